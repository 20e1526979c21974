//! One file of the log, and the files that wait to be used.
//!
//! A file is filled with zeros once, when it is made: writing in place into allocated blocks needs
//! no journal of the file system, which made a sync nine times as fast on the disk that was
//! measured. After that a file is used again and again under new generations.

use std::path::PathBuf;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use super::entry::LogConfig;
use super::error::LogError;
use super::file::{File, Files};
use super::format::{BLOCK_BYTES, DATA_START, Header, RUNS_MAX, Run, Seal};

/// Spares that are always kept.
const SPARES_MIN: usize = 4;
/// Part of the log's budget that may lie in spares beyond that. A spare is written again as it is; a new
/// segment is filled with zeros first, which costs as much as what it will hold.
const SPARES_PART: u64 = 8;
/// Zeros that are written at once.
const FILL_BYTES: u64 = 1 << 20;

/// Name of a segment's file.
pub fn segment_name(number: u64) -> String {
    format!("segment-{number:08}.log")
}

/// Name of its index file in one use.
pub fn index_name(number: u64, birth: u64) -> String {
    format!("segment-{number:08}-{birth:016x}.idx")
}

/// Number of the segment that an index file is of, by the file's name.
pub fn index_number(name: &str) -> Option<u64> {
    let (number, _) = name.strip_prefix("segment-")?.strip_suffix(".idx")?.split_once('-')?;
    number.parse().ok()
}

/// A file of the log.
pub struct Segment {
    /// Its number, which is in its name.
    pub number: u64,
    /// The file.
    pub file: Arc<dyn File>,
    /// Its length, bytes.
    pub length: u64,
    /// Its runs; none while it waits to be used.
    pub runs: Vec<Run>,
    /// The slot with the newest header.
    pub slot: u64,
    /// A write or a sync failed: it is never used again.
    pub is_suspect: bool,
}

impl Segment {
    /// Generation of the first run.
    pub fn birth(&self) -> u64 {
        self.runs.first().map_or(0, |run| run.generation)
    }

    /// Whether another run can be told in its header.
    pub fn takes_another_run(&self) -> bool {
        !self.is_suspect && self.runs.len() < RUNS_MAX
    }

    /// Writes a header beside the newest one and makes it durable.
    pub fn write_header(&mut self, stamp: u64, runs: Vec<Run>, seals: &[Seal]) -> Result<(), LogError> {
        let header = Header { stamp, number: self.number, length: self.length, runs, seals: seals.to_vec() };
        let slot = 1 - self.slot;
        let written = self.file.write_at(&header.encode(), slot * BLOCK_BYTES).and_then(|()| self.file.sync_data());
        if let Err(source) = written {
            self.is_suspect = true;
            return Err(LogError::io("write the header of", segment_name(self.number), source));
        }
        self.slot = slot;
        self.runs = header.runs;
        Ok(())
    }
}

#[derive(Default)]
struct Shelf {
    spares: Vec<Segment>,
    number_next: u64,
    /// Bytes of all files, in use or not.
    bytes: u64,
    /// Why the last file could not be made.
    failure: Option<String>,
}

impl Shelf {
    /// Segments that are not in use, made or not.
    fn unused(&self, segment_bytes: u64, bytes_max: u64) -> u64 {
        let unmade = match self.failure {
            Some(_) => 0,
            None => bytes_max.saturating_sub(self.bytes) / segment_bytes,
        };
        self.spares.len() as u64 + unmade
    }
}

/// Makes, keeps and removes files.
pub struct Pool {
    files: Arc<dyn Files>,
    directory: PathBuf,
    segment_bytes: u64,
    bytes_max: u64,
    generation: AtomicU64,
    shelf: Mutex<Shelf>,
    /// Held while a file is made, so that two threads do not make one each.
    making: Mutex<()>,
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    // What these locks guard is whole between any two statements.
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Pool {
    /// An empty pool.
    pub fn new(config: &LogConfig, files: Arc<dyn Files>) -> Self {
        Self {
            files,
            directory: config.directory.clone(),
            segment_bytes: config.segment_bytes,
            bytes_max: config.frames_bytes_max,
            generation: AtomicU64::new(1),
            shelf: Mutex::default(),
            making: Mutex::default(),
        }
    }

    /// A number that was never used for a run or a header before.
    pub fn next_generation(&self) -> u64 {
        self.generation.fetch_add(1, Ordering::Relaxed)
    }

    /// A new run that starts at `start`.
    pub fn new_run(&self, start: u32) -> Run {
        Run { generation: self.next_generation(), salt: self.files.salt(), start, end: 0 }
    }

    /// Takes note of a file that was found at start, and of the highest generation in it.
    pub fn note(&self, number: u64, length: u64, generation: u64) {
        let mut shelf = lock(&self.shelf);
        shelf.number_next = shelf.number_next.max(number.saturating_add(1));
        shelf.bytes += length;
        self.generation.fetch_max(generation.saturating_add(1), Ordering::Relaxed);
    }

    /// Bytes of entries that fit in segments that are not in use yet, when the last `lost` bytes
    /// before each of them stay unused.
    pub fn room(&self, lost: u64) -> u64 {
        lock(&self.shelf).unused(self.segment_bytes, self.bytes_max)
            * (self.segment_bytes - DATA_START).saturating_sub(lost)
    }

    /// Whether a segment can be had.
    pub fn has_unused(&self) -> bool {
        lock(&self.shelf).unused(self.segment_bytes, self.bytes_max) > 0
    }

    /// Bytes of all files.
    pub fn bytes(&self) -> u64 {
        lock(&self.shelf).bytes
    }

    /// Number of files that wait to be used.
    pub fn spares(&self) -> usize {
        lock(&self.shelf).spares.len()
    }

    /// Why no file can be made, if that is so.
    pub fn failure(&self) -> Option<String> {
        lock(&self.shelf).failure.clone()
    }

    /// A file to use: a spare, or a new one.
    pub fn take(&self) -> Result<Segment, LogError> {
        if let Some(spare) = lock(&self.shelf).spares.pop() {
            return Ok(spare);
        }
        let _making = lock(&self.making);
        // Perhaps the helper was making one in the meantime.
        let spare = lock(&self.shelf).spares.pop();
        match spare {
            Some(spare) => Ok(spare),
            None => self.make(),
        }
    }

    /// Whether there is no spare, or none could be made the last time, and the limit allows one.
    pub fn wants_spare(&self) -> bool {
        let shelf = lock(&self.shelf);
        (shelf.spares.is_empty() || shelf.failure.is_some()) && shelf.bytes + self.segment_bytes <= self.bytes_max
    }

    /// Makes a spare if there is none and the limit allows it.
    pub fn prepare(&self) {
        let _making = lock(&self.making);
        if !self.wants_spare() {
            return;
        }
        // Why it failed stands in `failure`.
        if let Ok(spare) = self.make() {
            lock(&self.shelf).spares.push(spare);
        }
    }

    fn make(&self) -> Result<Segment, LogError> {
        let (number, name) = {
            let mut shelf = lock(&self.shelf);
            if shelf.bytes + self.segment_bytes > self.bytes_max {
                return Err(LogError::Full { bytes: shelf.bytes, bytes_max: self.bytes_max });
            }
            let number = shelf.number_next;
            shelf.number_next += 1;
            shelf.bytes += self.segment_bytes;
            (number, segment_name(number))
        };
        let made = self.fill(number, &name);
        let mut shelf = lock(&self.shelf);
        match &made {
            Ok(_) => {
                if shelf.failure.take().is_some() {
                    tracing::info!("log can make segments again");
                }
            }
            Err(error) => {
                shelf.bytes -= self.segment_bytes;
                let text = error.to_string();
                if shelf.failure.as_ref() != Some(&text) {
                    tracing::error!("log cannot make a segment: {text}");
                }
                shelf.failure = Some(text);
            }
        }
        made
    }

    fn fill(&self, number: u64, name: &str) -> Result<Segment, LogError> {
        let path = self.directory.join(name);
        let failed = |operation: &'static str| move |source| LogError::io(operation, name, source);
        let file = self.files.create(&path).map_err(failed("create"))?;
        let mut segment =
            Segment { number, file, length: self.segment_bytes, runs: Vec::new(), slot: 1, is_suspect: false };
        let filled = self
            .fill_with_zeros(&segment)
            .map_err(failed("fill"))
            // Only now, so that a header never stands before bytes that are not zero.
            .and_then(|()| segment.write_header(self.next_generation(), Vec::new(), &[]))
            .and_then(|()| self.files.sync_directory(&self.directory).map_err(failed("sync the folder of")));
        if let Err(error) = filled {
            // An unfinished file is removed at the next start, if not now.
            let _ = self.files.remove(&path);
            return Err(error);
        }
        Ok(segment)
    }

    fn fill_with_zeros(&self, segment: &Segment) -> std::io::Result<()> {
        let zeros = vec![0; FILL_BYTES.min(segment.length) as usize];
        let mut offset = 0;
        while offset < segment.length {
            let bytes = (segment.length - offset).min(FILL_BYTES) as usize;
            segment.file.write_at(&zeros[..bytes], offset)?;
            offset += bytes as u64;
        }
        segment.file.sync_data()
    }

    /// Takes back a file whose entries nobody needs.
    pub fn put(&self, mut segment: Segment) {
        let is_wanted = {
            let shelf = lock(&self.shelf);
            let spare_bytes = shelf.spares.len() as u64 * self.segment_bytes;
            let has_place = shelf.spares.len() < SPARES_MIN || spare_bytes < self.bytes_max / SPARES_PART;
            has_place && shelf.bytes <= self.bytes_max
        };
        // The header says that nothing in it counts, so that a start does not find it again.
        let is_blank = !segment.is_suspect && segment.write_header(self.next_generation(), Vec::new(), &[]).is_ok();
        if is_wanted && is_blank && segment.length == self.segment_bytes {
            lock(&self.shelf).spares.push(segment);
        } else {
            self.discard(&segment);
        }
    }

    /// Removes a file. When that fails it still counts, and the next start sees it again.
    pub fn discard(&self, segment: &Segment) {
        let name = segment_name(segment.number);
        match self.remove(&name) {
            Ok(()) => {
                let mut shelf = lock(&self.shelf);
                shelf.bytes = shelf.bytes.saturating_sub(segment.length);
            }
            Err(error) => tracing::warn!("{error}"),
        }
    }

    /// Removes a file of the log's folder.
    pub fn remove(&self, name: &str) -> Result<(), LogError> {
        self.files.remove(&self.directory.join(name)).map_err(|source| LogError::io("remove", name, source))
    }

    /// Makes an index file, in place of one that may be there.
    pub fn write_index(&self, name: &str, bytes: &[u8]) -> Result<(), LogError> {
        let path = self.directory.join(name);
        let failed = |source| LogError::io("write", name, source);
        // Left over from an attempt that failed, or found bad at start.
        let _ = self.files.remove(&path);
        let file = self.files.create(&path).map_err(failed)?;
        let written = file.write_at(bytes, 0).and_then(|()| file.sync_data());
        written.and_then(|()| self.files.sync_directory(&self.directory)).map_err(failed)
    }
}
