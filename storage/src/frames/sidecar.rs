//! The entries of one sealed segment, by stream, and their file beside the segment.
//!
//! ```text
//! 0    magic, version, CRC32C of all that follows byte 16
//! 16   segment's number, birth, end; number of streams and of entries
//! 48   streams: session, stream, entries      24 bytes each
//! ...  entries, stream by stream              32 bytes each
//! ```

use std::io;
use std::ops::Range;

use tendon_protocol::id::{SessionId, StreamId};

use super::file::File;
use super::format::{RECORD_HEADER, u32_at, u64_at};
use super::scan::Found;

const MAGIC: [u8; 8] = *b"TENDNIDX";
const VERSION: u32 = 1;
const HEADER_BYTES: usize = 48;
const STREAM_BYTES: usize = 24;
const ENTRY_BYTES: usize = 32;

/// Where one entry lies.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct IndexEntry {
    /// Sequence number of its first sample.
    pub first: u64,
    /// Epoch of the connection that brought it.
    pub epoch: u64,
    /// Offset of its record in the segment.
    pub offset: u32,
    /// Bytes of its payload.
    pub payload: u32,
    /// Samples.
    pub count: u32,
}

impl IndexEntry {
    /// The sequence number after the last sample.
    pub fn next(&self) -> u64 {
        self.first.saturating_add(u64::from(self.count))
    }

    /// Bytes of its record.
    pub fn record_bytes(&self) -> usize {
        RECORD_HEADER + self.payload as usize
    }
}

/// One stream's part of a segment.
pub type StreamEntries = ((SessionId, StreamId), Vec<IndexEntry>);

/// Which segment an index is of.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Subject {
    /// Number of the file.
    pub number: u64,
    /// Generation of the segment's first run.
    pub birth: u64,
    /// End of its durable part.
    pub end: u64,
}

/// All entries of one sealed segment.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct SegmentIndex {
    entries: Vec<IndexEntry>,
    streams: Vec<((SessionId, StreamId), Range<u32>)>,
}

impl SegmentIndex {
    /// From entries by stream, in any order of streams; each stream once.
    pub fn new(mut by_stream: Vec<StreamEntries>) -> Self {
        by_stream.sort_by_key(|(key, _)| *key);
        let mut index = Self::default();
        index.entries.reserve_exact(by_stream.iter().map(|(_, entries)| entries.len()).sum());
        for (key, mut entries) in by_stream {
            entries.sort_by_key(|entry| (entry.first, entry.epoch));
            let start = index.entries.len() as u32;
            index.entries.append(&mut entries);
            index.streams.push((key, start..index.entries.len() as u32));
        }
        index
    }

    /// From the records of a scan.
    pub fn from_records(records: &[Found]) -> Self {
        let mut by_stream = std::collections::HashMap::<_, Vec<IndexEntry>>::new();
        for Found { head, offset } in records {
            by_stream.entry((head.session, head.stream)).or_default().push(IndexEntry {
                first: head.first,
                epoch: head.epoch,
                offset: *offset,
                payload: head.payload,
                count: head.count,
            });
        }
        Self::new(by_stream.into_iter().collect())
    }

    /// The entries of one stream, ascending.
    pub fn of(&self, session: SessionId, stream: StreamId) -> &[IndexEntry] {
        let Ok(at) = self.streams.binary_search_by_key(&(session, stream), |(key, _)| *key) else { return &[] };
        self.slice(&self.streams[at].1)
    }

    /// All streams with their entries, by session.
    pub fn streams(&self) -> impl Iterator<Item = ((SessionId, StreamId), &[IndexEntry])> {
        self.streams.iter().map(|(key, range)| (*key, self.slice(range)))
    }

    /// Number of entries.
    pub fn len(&self) -> usize {
        self.entries.len()
    }

    fn slice(&self, range: &Range<u32>) -> &[IndexEntry] {
        self.entries.get(range.start as usize..range.end as usize).unwrap_or_default()
    }

    /// The bytes of the index file.
    pub fn encode(&self, subject: Subject) -> Vec<u8> {
        let mut bytes =
            Vec::with_capacity(HEADER_BYTES + self.streams.len() * STREAM_BYTES + self.entries.len() * ENTRY_BYTES);
        bytes.extend_from_slice(&MAGIC);
        bytes.extend_from_slice(&VERSION.to_le_bytes());
        bytes.extend_from_slice(&[0; 4]);
        for number in [subject.number, subject.birth, subject.end] {
            bytes.extend_from_slice(&number.to_le_bytes());
        }
        bytes.extend_from_slice(&(self.streams.len() as u32).to_le_bytes());
        bytes.extend_from_slice(&(self.entries.len() as u32).to_le_bytes());
        for ((session, stream), range) in &self.streams {
            bytes.extend_from_slice(&session.0);
            bytes.extend_from_slice(&stream.0.to_le_bytes());
            bytes.extend_from_slice(&(range.end - range.start).to_le_bytes());
        }
        for entry in &self.entries {
            bytes.extend_from_slice(&entry.first.to_le_bytes());
            bytes.extend_from_slice(&entry.epoch.to_le_bytes());
            bytes.extend_from_slice(&entry.offset.to_le_bytes());
            bytes.extend_from_slice(&entry.payload.to_le_bytes());
            bytes.extend_from_slice(&entry.count.to_le_bytes());
            bytes.extend_from_slice(&[0; 4]);
        }
        let crc = crc32c::crc32c(&bytes[16..]);
        bytes[12..16].copy_from_slice(&crc.to_le_bytes());
        bytes
    }

    /// Reads an index file: `None` when it is not whole or of another segment.
    pub fn decode(bytes: &[u8], subject: Subject) -> Option<Self> {
        let head: &[u8; HEADER_BYTES] = bytes.first_chunk()?;
        let said = Subject { number: u64_at(head, 16), birth: u64_at(head, 24), end: u64_at(head, 32) };
        let (streams, entries) = (u32_at(head, 40) as usize, u32_at(head, 44) as usize);
        let stream_bytes = streams.checked_mul(STREAM_BYTES)?;
        let length = entries.checked_mul(ENTRY_BYTES)?.checked_add(stream_bytes)?.checked_add(HEADER_BYTES)?;
        if head[..8] != MAGIC || u32_at(head, 8) != VERSION || said != subject || length != bytes.len() {
            return None;
        }
        if crc32c::crc32c(&bytes[16..]) != u32_at(head, 12) {
            return None;
        }
        let (streams, entries) = bytes[HEADER_BYTES..].split_at(stream_bytes);
        let mut index = Self::default();
        index.entries.extend(entries.chunks_exact(ENTRY_BYTES).map(|entry| IndexEntry {
            first: u64_at(entry, 0),
            epoch: u64_at(entry, 8),
            offset: u32_at(entry, 16),
            payload: u32_at(entry, 20),
            count: u32_at(entry, 24),
        }));
        let mut start = 0u32;
        for stream in streams.chunks_exact(STREAM_BYTES) {
            let mut session = [0; 16];
            session.copy_from_slice(&stream[..16]);
            let end = start.checked_add(u32_at(stream, 20))?;
            index.streams.push(((SessionId(session), StreamId(u32_at(stream, 16))), start..end));
            start = end;
        }
        let is_sorted = index.streams.windows(2).all(|pair| pair[0].0 < pair[1].0);
        (start as usize == index.entries.len() && is_sorted).then_some(index)
    }
}

/// Most bytes of an index file that are read: a segment of 4 GiB holds fewer than 2^26 records.
const FILE_BYTES_MAX: u64 = 1 << 31;

/// Reads the index of `subject` from its file: `None` when it is not whole.
pub fn read(file: &dyn File, subject: Subject) -> io::Result<Option<SegmentIndex>> {
    let length = file.len()?;
    if length > FILE_BYTES_MAX {
        return Ok(None);
    }
    let mut bytes = vec![0; length as usize];
    file.read_at(&mut bytes, 0)?;
    Ok(SegmentIndex::decode(&bytes, subject))
}

/// The end of the segment that an index file is of, before anything of it was checked.
pub fn stated_end(file: &dyn File) -> Option<u64> {
    let mut head = [0; HEADER_BYTES];
    file.read_at(&mut head, 0).ok()?;
    Some(u64_at(&head, 32))
}
