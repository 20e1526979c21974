use std::path::Path;
use std::sync::Mutex;

use bytes::Bytes;
use proptest::prelude::*;

use super::fuzz::fuzz_segment;
use super::sim::{Crash, SimFiles};
use super::*;

mod bytes_on_disk;
mod full;
mod recovery;
mod threads;

const SEGMENT: u64 = 32 << 10;

type Outcome = (u64, Result<(), Arc<LogError>>);

/// Collects what completions were told.
#[derive(Clone, Default)]
struct Ledger(Arc<Mutex<Vec<Outcome>>>);

struct Line {
    first: u64,
    ledger: Ledger,
}

impl Completion for Line {
    fn done(self: Box<Self>, outcome: Result<(), Arc<LogError>>) {
        self.ledger.0.lock().unwrap().push((self.first, outcome));
    }
}

impl Ledger {
    fn line(&self, first: u64) -> Box<dyn Completion> {
        Box::new(Line { first, ledger: self.clone() })
    }

    fn stored(&self) -> Vec<u64> {
        let lines = self.0.lock().unwrap();
        lines.iter().filter(|(_, outcome)| outcome.is_ok()).map(|(first, _)| *first).collect()
    }

    fn failed(&self) -> Vec<(u64, String)> {
        let lines = self.0.lock().unwrap();
        lines.iter().filter_map(|(first, outcome)| Some((*first, outcome.as_ref().err()?.to_string()))).collect()
    }
}

fn session(number: u128) -> SessionId {
    SessionId::from_u128(number)
}

/// One sample of stream 1, with a payload that says which.
fn entry(of: u128, first: u64, bytes: usize) -> Entry {
    let mark = first ^ (of as u64) << 32;
    let payload = Bytes::from(mark.to_le_bytes().repeat(bytes.div_ceil(8)));
    Entry { session: session(of), stream: StreamId(1), first, count: 1, epoch: 1, payload }
}

fn config(segments: u64) -> LogConfig {
    LogConfig { segment_bytes: SEGMENT, frames_bytes_max: segments * SEGMENT, ..LogConfig::new("log") }
}

fn open(files: &SimFiles, segments: u64) -> (Writer, RecoveryReport) {
    Writer::open(config(segments), Arc::new(files.clone())).unwrap()
}

/// Appends entries of their own group each, and expects that all are stored.
fn store(writer: &mut Writer, of: u128, firsts: std::ops::Range<u64>, bytes: usize) {
    let ledger = Ledger::default();
    for first in firsts.clone() {
        writer.append(entry(of, first, bytes), ledger.line(first)).unwrap();
        writer.commit();
    }
    assert_eq!(ledger.stored(), firsts.collect::<Vec<_>>());
}

fn firsts(writer: &Writer, of: u128) -> Vec<u64> {
    let stored = writer.read(session(of), StreamId(1), 0, u64::MAX).unwrap();
    stored
        .into_iter()
        .map(|stored| {
            assert_eq!(stored.payload, entry(of, stored.first, stored.payload.len()).payload);
            stored.first
        })
        .collect()
}

fn in_log(name: &str) -> std::path::PathBuf {
    Path::new("log").join(name)
}

fn segment_files(files: &SimFiles) -> Vec<String> {
    let mut names = files.list(Path::new("log")).unwrap();
    names.retain(|name| name.ends_with(".log"));
    names.sort();
    names
}
