//! How fast the log is, beside what the disk can do at best.
//!
//! ```text
//! cargo run --release -p tendon-storage --example log_rate -- [FOLDER] [SECONDS] [ENTRY_BYTES]
//! ```
//! Appends entries from one thread with up to 20,000 in flight, releases them behind, so that
//! segments are warm (zero-filled, used again), and prints MB/s. Before and after it measures, in
//! the same folder and for the same time, the disk's sequential limit: 1 MiB writes in place into a
//! zero-filled file of a segment's length, one fdatasync every 64 MiB; and the same with one
//! fdatasync every 4 MiB, the longest group of the log.

use std::fs::File;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use bytes::Bytes;
use tendon_protocol::id::{SessionId, StreamId};
use tendon_storage::frames::{Completion, Entry, FrameLog, LogConfig, LogError, RealFiles};

type Result<T> = std::result::Result<T, Box<dyn std::error::Error>>;

const SEGMENT_BYTES: u64 = 64 << 20;
const GROUP_BYTES: u64 = 4 << 20;
const IN_FLIGHT_MAX: u64 = 20_000;
const SESSIONS: u64 = 64;

#[derive(Default)]
struct Counts {
    durable: AtomicU64,
    failed: AtomicU64,
}

struct Count(Arc<Counts>);

impl Completion for Count {
    fn done(self: Box<Self>, outcome: std::result::Result<(), Arc<LogError>>) {
        let counter = if outcome.is_ok() { &self.0.durable } else { &self.0.failed };
        counter.fetch_add(1, Ordering::Release);
    }
}

/// CPU time of the process so far, user and system; `/proc/self/stat` counts in hundredths.
fn cpu() -> Result<Duration> {
    let stat = std::fs::read_to_string("/proc/self/stat")?;
    // The name in brackets may hold spaces.
    let (_, after_name) = stat.rsplit_once(')').ok_or("/proc/self/stat has no name")?;
    let ticks = after_name.split_whitespace().skip(11).take(2).map(str::parse::<u64>);
    Ok(Duration::from_millis(10 * ticks.sum::<std::result::Result<u64, _>>()?))
}

fn sequential(file: &File, length: Duration, sync_every: u64) -> Result<f64> {
    let block = vec![0x5a; 1 << 20];
    let (start, mut written, mut offset) = (Instant::now(), 0u64, 0);
    while start.elapsed() < length {
        file.write_all_at(&block, offset)?;
        written += block.len() as u64;
        offset = (offset + block.len() as u64) % SEGMENT_BYTES;
        if written % sync_every == 0 {
            file.sync_data()?;
        }
    }
    file.sync_data()?;
    Ok(written as f64 / start.elapsed().as_secs_f64() / 1e6)
}

struct Load<'a> {
    log: &'a FrameLog,
    counts: Arc<Counts>,
    payload: Bytes,
    appended: u64,
}

impl Load<'_> {
    /// Appends for a while; entries that are durable are released a segment later.
    fn run(&mut self, length: Duration) -> Result<(u64, f64, Duration)> {
        let (start, cpu_start) = (Instant::now(), cpu()?);
        let (before, mut released) = (self.counts.durable.load(Ordering::Acquire), 0);
        // About half a segment of each session's entries stays.
        let kept = SEGMENT_BYTES / 2 / SESSIONS / self.payload.len() as u64;
        while start.elapsed() < length {
            let durable = self.counts.durable.load(Ordering::Acquire);
            if self.appended - durable >= IN_FLIGHT_MAX {
                thread::sleep(Duration::from_micros(200));
                continue;
            }
            for _ in 0..64 {
                self.append()?;
            }
            if durable / SESSIONS > released + kept {
                released = durable / SESSIONS;
                for session in 0..SESSIONS {
                    let id = SessionId::from_u128(u128::from(session));
                    self.log.release(id, &[(StreamId(1), released.saturating_sub(kept) * 16)]);
                }
            }
        }
        while self.counts.durable.load(Ordering::Acquire) < self.appended {
            thread::sleep(Duration::from_micros(200));
            if self.counts.failed.load(Ordering::Acquire) > 0 {
                return Err(self.log.health().to_string().into());
            }
        }
        let entries = self.appended - before;
        Ok((entries, start.elapsed().as_secs_f64(), cpu()? - cpu_start))
    }

    fn append(&mut self) -> Result<()> {
        let entry = Entry {
            session: SessionId::from_u128(u128::from(self.appended % SESSIONS)),
            stream: StreamId(1),
            first: self.appended / SESSIONS * 16,
            count: 16,
            epoch: 1,
            payload: self.payload.clone(),
        };
        match self.log.append(entry, Box::new(Count(Arc::clone(&self.counts)))) {
            Ok(()) => self.appended += 1,
            Err(refused) if refused.is_queue_full() => thread::sleep(Duration::from_micros(200)),
            Err(refused) => return Err(refused.to_string().into()),
        }
        Ok(())
    }
}

fn zero_filled(path: &Path) -> Result<File> {
    let file = File::options().read(true).write(true).create(true).truncate(true).open(path)?;
    let zeros = vec![0; 1 << 20];
    for offset in (0..SEGMENT_BYTES).step_by(zeros.len()) {
        file.write_all_at(&zeros, offset)?;
    }
    file.sync_all()?;
    Ok(file)
}

fn main() -> Result<()> {
    let mut arguments = std::env::args().skip(1);
    let folder = arguments.next().map_or_else(|| std::env::temp_dir().join("tendon-log-rate"), PathBuf::from);
    let seconds = arguments.next().map_or(Ok(5), |text| text.parse())?;
    let bytes: usize = arguments.next().map_or(Ok(2048), |text| text.parse())?;
    let length = Duration::from_secs(seconds);
    std::fs::create_dir_all(&folder)?;
    let raw_path = folder.join("sequential");
    let raw = zero_filled(&raw_path)?;
    let config = LogConfig { segment_bytes: SEGMENT_BYTES, ..LogConfig::new(folder.join("log")) };
    let (log, report) = FrameLog::open(config, Arc::new(RealFiles))?;
    println!("log in {}: {report}", folder.display());
    let mut load = Load { log: &log, counts: Arc::default(), payload: Bytes::from(vec![0x42; bytes]), appended: 0 };
    load.run(length.min(Duration::from_secs(3)))?;
    let before = sequential(&raw, length, SEGMENT_BYTES)?;
    let before_grouped = sequential(&raw, length, GROUP_BYTES)?;
    let (entries, elapsed, cpu) = load.run(length)?;
    let after_grouped = sequential(&raw, length, GROUP_BYTES)?;
    let after = sequential(&raw, length, SEGMENT_BYTES)?;
    let rate = (entries * bytes as u64) as f64 / elapsed / 1e6;
    let (limit, grouped) = (f64::midpoint(before, after), f64::midpoint(before_grouped, after_grouped));
    println!("disk, sequential, fdatasync every 64 MiB: {before:.0} MB/s before, {after:.0} MB/s after");
    println!("disk, sequential, fdatasync every 4 MiB: {before_grouped:.0} MB/s before, {after_grouped:.0} MB/s after");
    println!("log, entries of {bytes} bytes: {rate:.0} MB/s of payload, {:.0} entries/s", entries as f64 / elapsed);
    println!("durable_to_disk: {:.2}; to the disk with a sync every 4 MiB: {:.2}", rate / limit, rate / grouped);
    println!("CPU: {:.2} us per entry, appending included", cpu.as_secs_f64() * 1e6 / entries as f64);
    log.close();
    std::fs::remove_dir_all(folder.join("log"))?;
    std::fs::remove_file(raw_path)?;
    Ok(())
}
