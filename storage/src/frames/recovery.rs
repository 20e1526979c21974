//! Finds out what is in the log's folder: after a clean stop, a killed process, or a power loss.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use super::catalogue::Catalogue;
use super::entry::LogConfig;
use super::error::LogError;
use super::file::{File, Files};
use super::format::{BLOCK_BYTES, DATA_START, Header, align};
use super::index::{Index, Source};
use super::report::{Damage, RecoveryReport, TornTail};
use super::scan::{HeaderState, read_header, scan};
use super::segment::{Pool, Segment, index_name, index_number, segment_name};
use super::sidecar::{self, SegmentIndex, Subject};
use super::writer::Active;

/// A log that was opened.
pub(super) struct Recovered {
    /// What everybody shares.
    pub catalogue: Catalogue,
    /// The segment that was being written, if it can go on.
    pub active: Option<Active>,
    /// What was found.
    pub report: RecoveryReport,
}

/// Least bytes that must be left in a segment for it to go on after a start.
const LEFT_BYTES_MIN: u64 = 2 * BLOCK_BYTES;

fn checked(mut config: LogConfig) -> Result<LogConfig, LogError> {
    let refuse = |text: String| Err(LogError::Config(text));
    config.segment_bytes -= config.segment_bytes % BLOCK_BYTES;
    let (bytes, least) = (config.segment_bytes, DATA_START + 2 * BLOCK_BYTES);
    if bytes < least || bytes > 1 << 30 {
        return refuse(format!("log.segment_bytes is {bytes}; it must be from {least} to {}", 1 << 30));
    }
    if config.frames_bytes_max < 2 * bytes {
        let max = config.frames_bytes_max;
        return refuse(format!("log.frames_bytes_max is {max}; it must hold two segments of {bytes} bytes"));
    }
    if config.queue_entries == 0 {
        return refuse("log.queue_entries is 0; at least one entry must be able to wait".to_owned());
    }
    config.group_bytes_max = config.group_bytes_max.clamp(BLOCK_BYTES as usize, 4 << 20);
    Ok(config)
}

struct Found {
    file: Arc<dyn File>,
    header: Header,
    slot: u64,
}

impl Found {
    fn segment(self) -> Segment {
        let Self { file, header, slot } = self;
        Segment { number: header.number, file, length: header.length, runs: header.runs, slot, is_suspect: false }
    }
}

struct Recovery {
    config: LogConfig,
    files: Arc<dyn Files>,
    pool: Pool,
    index: Index,
    report: RecoveryReport,
    /// Names of index files that are there.
    index_files: Vec<String>,
    /// Where segments end, by birth.
    ends: HashMap<u64, u64>,
}

/// Reads the folder and takes the log up where it was.
pub(super) fn open(config: LogConfig, files: Arc<dyn Files>) -> Result<Recovered, LogError> {
    let config = checked(config)?;
    let directory = config.directory.display().to_string();
    let failed = |operation: &'static str| {
        let directory = directory.clone();
        move |source| LogError::io(operation, directory, source)
    };
    files.create_directory(&config.directory).map_err(failed("make the log folder"))?;
    let guard = files
        .lock_directory(&config.directory)
        .map_err(|source| LogError::Locked { directory: directory.clone(), source })?;
    let names = files.list(&config.directory).map_err(failed("list"))?;
    // A killed process may have left names that are not durable.
    files.sync_directory(&config.directory).map_err(failed("sync"))?;
    let mut recovery = Recovery {
        pool: Pool::new(&config, Arc::clone(&files)),
        files,
        config,
        index: Index::default(),
        report: RecoveryReport::default(),
        index_files: names.iter().filter(|name| name.ends_with(".idx")).cloned().collect(),
        ends: HashMap::new(),
    };
    let (mut live, spares) = recovery.find(&names);
    let newest = live.pop_last();
    for (_, found) in live {
        recovery.sealed(found)?;
    }
    let active = match newest {
        Some((_, found)) => recovery.newest(found)?,
        None => None,
    };
    for spare in spares {
        recovery.pool.put(spare);
    }
    for stray in std::mem::take(&mut recovery.index_files) {
        // Of a segment that is gone, or found bad: it is made again.
        let _ = recovery.pool.remove(&stray);
    }
    recovery.report.segments = recovery.index.segments();
    recovery.report.spares = recovery.pool.spares();
    for damage in &recovery.report.damage {
        tracing::error!("{damage}");
    }
    let Recovery { config, files, pool, index, report, .. } = recovery;
    Ok(Recovered { catalogue: Catalogue::new(config, files, pool, index, guard), active, report })
}

impl Recovery {
    /// Opens all segments. What cannot be read or used is reported and left where it is.
    fn find(&mut self, names: &[String]) -> (BTreeMap<u64, Found>, Vec<Segment>) {
        let (mut live, mut spares) = (BTreeMap::new(), Vec::new());
        for number in self.index_files.iter().filter_map(|name| index_number(name)) {
            // A new segment must not be taken for the one that this file was of.
            self.pool.note(number, 0, 0);
        }
        for name in names {
            let digits = name.strip_prefix("segment-").and_then(|rest| rest.strip_suffix(".log"));
            let Some(number) = digits.and_then(|digits| digits.parse::<u64>().ok()) else { continue };
            let opened = self.files.open(&self.config.directory.join(name));
            let read = opened.and_then(|file| Ok((read_header(&*file)?, file.len()?, file)));
            let (state, length, file) = match read {
                Ok(read) => read,
                Err(_) => {
                    self.pool.note(number, self.config.segment_bytes, 0);
                    self.damage(number, 0, self.config.segment_bytes, "cannot be read");
                    continue;
                }
            };
            let (header, slot) = match state {
                HeaderState::Whole { header, slot } if header.number == number => (header, slot),
                HeaderState::Unused if self.has_index_file(number) => {
                    self.pool.note(number, length, 0);
                    self.damage(number, 0, length, "it was in use, and its headers are zeros");
                    continue;
                }
                HeaderState::Unused => {
                    self.pool.note(number, 0, 0);
                    let _ = self.pool.remove(name);
                    continue;
                }
                HeaderState::Whole { .. } | HeaderState::Bad => {
                    self.pool.note(number, length, 0);
                    self.damage(number, 0, length, "neither of its headers is whole");
                    continue;
                }
            };
            let newest_run = header.runs.last().map_or(0, |run| run.generation);
            self.pool.note(number, length, header.stamp.max(newest_run));
            self.ends.extend(header.seals.iter().map(|seal| (seal.birth, seal.end)));
            let found = Found { file, header, slot };
            match found.header.birth() {
                Some(birth) => {
                    live.insert(birth, found);
                }
                None => spares.push(found.segment()),
            }
        }
        (live, spares)
    }

    fn has_index_file(&self, number: u64) -> bool {
        self.index_files.iter().any(|name| index_number(name) == Some(number))
    }

    fn damage(&mut self, segment: u64, offset: u64, bytes: u64, what: &'static str) {
        self.report.damage.push(Damage { segment, offset, bytes, what });
    }

    /// Takes up a segment that is not the newest: nothing is written to it again.
    fn sealed(&mut self, found: Found) -> Result<(), LogError> {
        if let Some((end, index)) = self.index_file(&found) {
            self.keep_sealed(found.segment(), end, index, true);
            return Ok(());
        }
        match self.ends.get(&found.header.birth().unwrap_or(0)).copied() {
            Some(end) => self.scan_sealed(found, end),
            None => {
                // Given up after a failed write, and its end is told nowhere.
                let (end, index, _) = self.scan_open(&found)?;
                self.keep_sealed(found.segment(), end, index, false);
                Ok(())
            }
        }
    }

    /// Takes up the newest segment, and goes on in it if it was still being written.
    fn newest(&mut self, found: Found) -> Result<Option<Active>, LogError> {
        let is_ended = self.ends.contains_key(&found.header.birth().unwrap_or(0));
        if is_ended || self.index_file(&found).is_some() {
            self.sealed(found)?;
            return Ok(None);
        }
        let (end, index, is_durable) = self.scan_open(&found)?;
        let mut segment = found.segment();
        let start = align(end);
        let has_room = segment.length.saturating_sub(start) >= LEFT_BYTES_MIN;
        if !is_durable || !has_room || !segment.takes_another_run() || segment.length != self.config.segment_bytes {
            self.keep_sealed(segment, end, index, false);
            return Ok(None);
        }
        let mut runs = segment.runs.clone();
        if let Some(last) = runs.last_mut() {
            last.end = end as u32;
        }
        let run = self.pool.new_run(start as u32);
        runs.push(run);
        let seals = self.index.seals();
        let stamp = self.pool.next_generation();
        // A header that fails leaves the other one, by which the segment ends here as well.
        if let Err(error) = segment.write_header(stamp, runs, &seals[..seals.len().min(super::format::SEALS_MAX)]) {
            tracing::warn!("{error}; the segment takes no more entries");
            self.keep_sealed(segment, end, index, false);
            return Ok(None);
        }
        self.index.told(&seals, segment.birth());
        self.count(&index);
        self.index.open(Source::new(&segment));
        for (key, entries) in index.streams() {
            self.index.add(entries.iter().map(|entry| (key, *entry)));
        }
        Ok(Some(Active { segment, run, offset: start }))
    }

    fn index_file(&mut self, found: &Found) -> Option<(u64, SegmentIndex)> {
        let birth = found.header.birth()?;
        let name = index_name(found.header.number, birth);
        let at = self.index_files.iter().position(|known| *known == name)?;
        let file = self.files.open(&self.config.directory.join(&name)).ok()?;
        let end = sidecar::stated_end(&*file)?;
        if self.ends.get(&birth).is_some_and(|told| *told != end) {
            return None;
        }
        let index = sidecar::read(&*file, Subject { number: found.header.number, birth, end }).ok()??;
        self.index_files.swap_remove(at);
        self.ends.insert(birth, end);
        Some((end, index))
    }

    fn scan_sealed(&mut self, found: Found, end: u64) -> Result<(), LogError> {
        let number = found.header.number;
        let scanned = match scan(&*found.file, &found.header, Some(end)) {
            Ok(scanned) => scanned,
            Err(_) => {
                // Left as it is: it may be readable another day.
                self.damage(number, DATA_START, end.saturating_sub(DATA_START), "cannot be read");
                return Ok(());
            }
        };
        for broken in &scanned.damage {
            self.damage(number, broken.offset, broken.bytes, broken.what);
        }
        let index = SegmentIndex::from_records(&scanned.records);
        self.keep_sealed(found.segment(), end, index, false);
        Ok(())
    }

    /// Reads a segment whose end is not known. What is read is durable then: a killed process may
    /// have left it in the system's cache alone.
    fn scan_open(&mut self, found: &Found) -> Result<(u64, SegmentIndex, bool), LogError> {
        let number = found.header.number;
        let failed = |operation| move |source| LogError::io(operation, segment_name(number), source);
        let is_durable = found.file.sync_data().is_ok();
        found.file.drop_cache().map_err(failed("read again"))?;
        let scanned = scan(&*found.file, &found.header, None).map_err(failed("read"))?;
        if let Some(torn) = scanned.torn {
            self.report.torn.push(TornTail { segment: number, offset: torn.offset, bytes: torn.bytes });
        }
        for broken in &scanned.damage {
            self.damage(number, broken.offset, broken.bytes, broken.what);
        }
        Ok((scanned.end, SegmentIndex::from_records(&scanned.records), is_durable))
    }

    fn keep_sealed(&mut self, segment: Segment, end: u64, index: SegmentIndex, is_in_file: bool) {
        self.count(&index);
        if !is_in_file {
            self.report.indexes_rebuilt += 1;
        }
        self.index.insert(segment, end, index, is_in_file);
    }

    fn count(&mut self, index: &SegmentIndex) {
        self.report.entries += index.len() as u64;
        let entries = index.streams().flat_map(|(_, entries)| entries);
        self.report.bytes += entries.map(|entry| u64::from(entry.payload)).sum::<u64>();
    }
}
