//! Reads a segment from its bytes alone, as after a crash. Never trusts a length before checking it.

use std::io;

use super::file::File;
use super::format::{
    BLOCK_BYTES, DATA_START, GROUP_HEADER, GroupHead, Header, RecordHead, Run, align, read_group, read_record,
    stated_record_bytes,
};

/// Bytes that are read at once, unless a group is longer.
const CHUNK_BYTES: usize = 256 << 10;

/// What the two header blocks say together.
#[derive(Debug)]
pub enum HeaderState {
    /// A segment or a spare, and the slot that said so.
    Whole {
        /// The newer whole header.
        header: Header,
        /// Its slot, 0 or 1.
        slot: u64,
    },
    /// Never came into use: its making was cut short.
    Unused,
    /// Neither header is whole, though the file was in use.
    Bad,
}

/// Reads the headers of a file.
pub fn read_header(file: &dyn File) -> io::Result<HeaderState> {
    let length = file.len()?;
    if length < DATA_START + BLOCK_BYTES {
        return Ok(HeaderState::Unused);
    }
    let mut blocks = vec![0; DATA_START as usize + GROUP_HEADER];
    file.read_at(&mut blocks, 0)?;
    let (slots, data) = blocks.split_at(DATA_START as usize);
    let mut newest: Option<(Header, u64)> = None;
    for (slot, block) in slots.chunks_exact(BLOCK_BYTES as usize).enumerate() {
        let Some(header) = Header::decode(block).filter(|header| header.length == length) else { continue };
        if newest.as_ref().is_none_or(|(other, _)| other.stamp < header.stamp) {
            newest = Some((header, slot as u64));
        }
    }
    // The first header of a file goes into slot 0, and nothing follows before it is durable.
    let is_unused = slots[BLOCK_BYTES as usize..].iter().chain(data).all(|byte| *byte == 0);
    Ok(match newest {
        Some((header, slot)) => HeaderState::Whole { header, slot },
        None if is_unused => HeaderState::Unused,
        None => HeaderState::Bad,
    })
}

/// A record and where it starts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Found {
    /// What it says.
    pub head: RecordHead,
    /// Offset of its header in the segment.
    pub offset: u32,
}

/// Part of a segment that cannot be used.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Broken {
    /// Where it starts.
    pub offset: u64,
    /// Its length.
    pub bytes: u64,
    /// What was wrong.
    pub what: &'static str,
}

/// Result of a scan.
#[derive(Debug, Default)]
pub struct Scan {
    /// Whole records in the order of the file.
    pub records: Vec<Found>,
    /// End of the last whole record, or the end that was given.
    pub end: u64,
    /// What was cut off behind `end`.
    pub torn: Option<Broken>,
    /// What is broken before the end that was given.
    pub damage: Vec<Broken>,
}

/// Reads all records. With `end` the segment is known to be durable up to there, and whatever does
/// not fit before it is damage; without, its last run ends where the first thing does not fit.
pub fn scan(file: &dyn File, header: &Header, end: Option<u64>) -> io::Result<Scan> {
    let mut scanner = Scanner { file, length: header.length, buffer: Vec::new(), base: 0, scan: Scan::default() };
    scanner.scan.end = DATA_START;
    for run in &header.runs {
        let end = match (run.end, end) {
            (0, end) => end,
            (run_end, None) => Some(u64::from(run_end)),
            (run_end, Some(end)) => Some(end.min(u64::from(run_end))),
        };
        scanner.scan.end = u64::from(run.start).max(scanner.scan.end);
        match end {
            Some(end) => scanner.sealed_run(run, end.min(header.length))?,
            None => scanner.open_run(run)?,
        }
    }
    if let Some(end) = end {
        scanner.scan.end = end.min(header.length);
    }
    Ok(scanner.scan)
}

struct Scanner<'a> {
    file: &'a dyn File,
    length: u64,
    buffer: Vec<u8>,
    base: u64,
    scan: Scan,
}

impl Scanner<'_> {
    /// `bytes` bytes from `offset`; `None` when the segment ends before.
    fn fetch(&mut self, offset: u64, bytes: usize) -> io::Result<Option<&[u8]>> {
        let Some(end) = offset.checked_add(bytes as u64).filter(|end| *end <= self.length) else { return Ok(None) };
        if offset < self.base || end > self.base + self.buffer.len() as u64 {
            let read = (CHUNK_BYTES.max(bytes) as u64).min(self.length - offset);
            self.buffer.resize(read as usize, 0);
            self.base = offset;
            self.file.read_at(&mut self.buffer, offset)?;
        }
        let from = (offset - self.base) as usize;
        Ok(self.buffer.get(from..from + bytes))
    }

    fn group(&mut self, run: &Run, offset: u64) -> io::Result<GroupHead> {
        let head = self.fetch(offset, GROUP_HEADER)?.and_then(|bytes| bytes.first_chunk());
        Ok(head.map_or(GroupHead::Other, |head| read_group(head, run, offset)))
    }

    /// The part that was being written: the first thing that does not fit ends it.
    fn open_run(&mut self, run: &Run) -> io::Result<()> {
        let seed = run.seed();
        let mut offset = u64::from(run.start);
        loop {
            let bytes = match self.group(run, offset)? {
                GroupHead::Whole { bytes } => bytes,
                GroupHead::Torn => {
                    self.scan.torn = Some(Broken { offset, bytes: BLOCK_BYTES, what: "group fails its checksum" });
                    return Ok(());
                }
                GroupHead::Other => return Ok(()),
            };
            let Some(group) = self.fetch(offset, bytes)?.map(<[u8]>::to_vec) else {
                self.scan.torn = Some(Broken { offset, bytes: BLOCK_BYTES, what: "group passes the segment's end" });
                return Ok(());
            };
            let mut at = GROUP_HEADER;
            while at < group.len() {
                match read_record(&group[at..], seed) {
                    Ok(head) => at = self.keep(head, offset, at),
                    Err(what) => {
                        let bytes = (group.len() - at) as u64;
                        self.scan.torn = Some(Broken { offset: offset + at as u64, bytes, what });
                        return Ok(());
                    }
                }
            }
            offset = align(offset + group.len() as u64);
        }
    }

    /// A part that was durable up to `end`: what does not fit is damage, and the scan goes on.
    fn sealed_run(&mut self, run: &Run, end: u64) -> io::Result<()> {
        let seed = run.seed();
        let mut offset = u64::from(run.start);
        while offset < end {
            let GroupHead::Whole { bytes } = self.group(run, offset)? else {
                let from = offset;
                loop {
                    offset += BLOCK_BYTES;
                    if offset >= end || matches!(self.group(run, offset)?, GroupHead::Whole { .. }) {
                        break;
                    }
                }
                let bytes = offset.min(end) - from;
                self.scan.damage.push(Broken { offset: from, bytes, what: "no whole group starts there" });
                continue;
            };
            let bytes = bytes.min(usize::try_from(end - offset).unwrap_or(usize::MAX));
            let group = self.fetch(offset, bytes)?.map(<[u8]>::to_vec).unwrap_or_default();
            let mut at = GROUP_HEADER;
            while at < group.len() {
                match read_record(&group[at..], seed) {
                    Ok(head) => at = self.keep(head, offset, at),
                    Err(what) => {
                        // A wrong length leads to something that fails its checksum as well.
                        let bytes = stated_record_bytes(&group[at..]).unwrap_or(group.len() - at);
                        self.scan.damage.push(Broken { offset: offset + at as u64, bytes: bytes as u64, what });
                        at += bytes;
                    }
                }
            }
            offset = align(offset + bytes.max(GROUP_HEADER) as u64);
        }
        self.scan.end = end;
        Ok(())
    }

    fn keep(&mut self, head: RecordHead, group: u64, at: usize) -> usize {
        // Segments are shorter than 4 GiB: their headers are refused otherwise.
        let offset = (group + at as u64) as u32;
        self.scan.records.push(Found { head, offset });
        let next = at + super::format::record_bytes(head.payload as usize);
        self.scan.end = group + next as u64;
        next
    }
}
