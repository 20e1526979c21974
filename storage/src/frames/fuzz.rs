//! What a fuzzer calls: hostile files in the log's folder.

use std::path::Path;
use std::sync::Arc;

use tendon_protocol::id::{SessionId, StreamId};

use super::entry::{Completion, Entry, LogConfig};
use super::error::LogError;
use super::file::Files;
use super::format::{
    BLOCK_BYTES, DATA_START, GROUP_HEADER, Header, RECORD_HEADER, Run, finish_group, seal_record, u32_at,
};
use super::segment::{index_name, segment_name};
use super::sidecar::{SegmentIndex, Subject};
use super::sim::SimFiles;
use super::writer::Writer;

const SEGMENT_BYTES: usize = 64 << 10;
const RUN: Run = Run { generation: 5, salt: 9, start: DATA_START as u32, end: 0 };

struct Ignore;

impl Completion for Ignore {
    fn done(self: Box<Self>, _: Result<(), Arc<LogError>>) {}
}

/// Opens a log whose files are made of `bytes`, reads all of it and writes to it. For a fuzzer: it
/// must not panic, whatever the bytes are. Of each input 64 KiB count.
pub fn fuzz_segment(bytes: &[u8]) {
    let bytes = &bytes[..bytes.len().min(SEGMENT_BYTES)];
    let _ = Header::decode(bytes);
    let _ = SegmentIndex::decode(bytes, Subject { number: 1, birth: RUN.generation, end: DATA_START });
    let mut raw = bytes.to_vec();
    raw.resize(SEGMENT_BYTES, 0);
    let dressed = dress(&raw);
    // Neither can fail on a simulated disk with room.
    let _ = take_up(&[(0, &raw), (1, &dressed)], bytes);
}

fn take_up(segments: &[(u64, &[u8])], index: &[u8]) -> Option<()> {
    let files = SimFiles::new(1);
    let write = |name: String, bytes: &[u8]| files.create(&Path::new("log").join(name)).ok()?.write_at(bytes, 0).ok();
    for (number, bytes) in segments {
        write(segment_name(*number), bytes)?;
    }
    write(index_name(1, RUN.generation), index)?;
    let mut config = LogConfig::new("log");
    config.segment_bytes = SEGMENT_BYTES as u64;
    config.frames_bytes_max = 8 * SEGMENT_BYTES as u64;
    let (mut writer, _) = Writer::open(config, Arc::new(files)).ok()?;
    for session in writer.sessions() {
        for stream in writer.positions(session).into_keys() {
            let _ = writer.read(session, stream, 0, u64::MAX);
        }
        writer.release_all(session);
    }
    let payload = bytes::Bytes::from_static(b"after");
    let entry = Entry { session: SessionId::default(), stream: StreamId(1), first: 0, count: 1, epoch: 1, payload };
    let _ = writer.append(entry, Box::new(Ignore));
    writer.commit();
    writer.tidy();
    Some(())
}

/// Gives arbitrary bytes a whole header, and right checksums to what could be groups and records:
/// what is behind a checksum is reached as well.
fn dress(raw: &[u8]) -> Vec<u8> {
    let mut file = raw.to_vec();
    let header = Header { stamp: 6, number: 1, length: SEGMENT_BYTES as u64, runs: vec![RUN], seals: Vec::new() };
    let block = BLOCK_BYTES as usize;
    file[..block].copy_from_slice(&header.encode());
    file[block..2 * block].fill(0);
    for start in (2 * block..SEGMENT_BYTES).step_by(block) {
        let group = &mut file[start..];
        let length = (u32_at(group, 16) as usize % group.len()).max(GROUP_HEADER + RECORD_HEADER);
        let entries = u32_at(group, 20);
        if group[0].is_multiple_of(4) {
            continue;
        }
        let record = &mut group[GROUP_HEADER..length];
        record[..4].copy_from_slice(b"TREC");
        let payload = u32_at(record, 8) as usize % (record.len() - RECORD_HEADER + 1);
        record[8..12].copy_from_slice(&(payload as u32).to_le_bytes());
        seal_record(record, RUN.seed());
        finish_group(&mut group[..length], &RUN, start as u64, entries);
    }
    file
}
