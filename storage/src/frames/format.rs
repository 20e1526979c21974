//! Bytes of a segment: two header blocks, then groups of records.
//!
//! ```text
//! 0      header, slot 0          one of the two is the newer one; a torn write of one leaves the
//! 4096   header, slot 1          other, so a segment always says whose records it holds
//! 8192   group: 32 bytes of group header, records, zeros up to the next block
//! ...    group
//! ```
//! A group is what one write and one sync made durable. Each starts on a block of its own, so that
//! a write that is cut by a power loss can never harm what was durable before it. Numbers are
//! little endian.
//!
//! Segments are used again without being filled with zeros again. What tells a record from an older
//! one that lay at the same place is the *run*: each use of a segment, and each start of the server
//! on a part-filled segment, is a run with a new generation and a new salt, and both go into every
//! checksum. The salt is random, so that no sender can put bytes into a payload that would pass.

use tendon_protocol::id::{SessionId, StreamId};

use super::entry::{Entry, PAYLOAD_BYTES_MAX};

/// Unit of writing: a page of the system and a physical sector of a disk.
pub const BLOCK_BYTES: u64 = 4096;
/// The same, for buffers.
const BLOCK: usize = 4096;
/// Where the first group starts.
pub const DATA_START: u64 = 2 * BLOCK_BYTES;
/// Bytes before the records of a group.
pub const GROUP_HEADER: usize = 32;
/// Bytes before the payload of a record.
pub const RECORD_HEADER: usize = 56;
/// Runs that fit in a header.
pub const RUNS_MAX: usize = 64;
/// Ends of other segments that fit in a header.
pub const SEALS_MAX: usize = 64;
/// Longest group that a scan believes: the largest group limit and one entry.
pub const GROUP_BYTES_MAX: usize = 8 << 20;

const SEGMENT_MAGIC: [u8; 8] = *b"TENDNSEG";
const GROUP_MAGIC: u32 = u32::from_le_bytes(*b"TGRP");
const RECORD_MAGIC: u32 = u32::from_le_bytes(*b"TREC");
const VERSION: u16 = 1;
const RUNS_AT: usize = 56;
const RUN_BYTES: usize = 24;
const SEALS_AT: usize = RUNS_AT + RUNS_MAX * RUN_BYTES;
const SEAL_BYTES: usize = 16;

/// `offset`, or the next start of a block.
pub const fn align(offset: u64) -> u64 {
    offset.next_multiple_of(BLOCK_BYTES)
}

/// Bytes of a record with a payload of `payload` bytes.
pub const fn record_bytes(payload: usize) -> usize {
    (RECORD_HEADER + payload).next_multiple_of(8)
}

/// Part of a segment that was written without a restart in between.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Run {
    /// Unique in the log, rising.
    pub generation: u64,
    /// Random.
    pub salt: u64,
    /// Where its first group starts.
    pub start: u32,
    /// Where its last whole record ends; 0 while it is written.
    pub end: u32,
}

impl Run {
    /// Where every checksum of the run starts from.
    pub fn seed(&self) -> u32 {
        let mut bytes = [0; 16];
        bytes[..8].copy_from_slice(&self.generation.to_le_bytes());
        bytes[8..].copy_from_slice(&self.salt.to_le_bytes());
        crc32c::crc32c(&bytes)
    }
}

/// Where another segment ends, told by a younger one: what lies behind was never acknowledged.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Seal {
    /// Generation of the segment's first run.
    pub birth: u64,
    /// End of its durable part.
    pub end: u64,
}

/// What a segment says of itself.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Header {
    /// The higher one of the two slots holds.
    pub stamp: u64,
    /// Number of the file.
    pub number: u64,
    /// Length of the file, bytes.
    pub length: u64,
    /// Runs, oldest first; none in a spare.
    pub runs: Vec<Run>,
    /// Ends of older segments that had no index file yet.
    pub seals: Vec<Seal>,
}

impl Header {
    /// Generation of the first run, which names this use of the file; none in a spare.
    pub fn birth(&self) -> Option<u64> {
        self.runs.first().map(|run| run.generation)
    }

    /// One block. Runs and seals beyond what fits are a bug of the caller.
    pub fn encode(&self) -> Vec<u8> {
        assert!(self.runs.len() <= RUNS_MAX && self.seals.len() <= SEALS_MAX, "header holds too many runs or seals");
        let mut block = vec![0; BLOCK];
        block[..8].copy_from_slice(&SEGMENT_MAGIC);
        block[8..10].copy_from_slice(&VERSION.to_le_bytes());
        block[16..24].copy_from_slice(&self.stamp.to_le_bytes());
        block[24..32].copy_from_slice(&self.number.to_le_bytes());
        block[32..40].copy_from_slice(&self.length.to_le_bytes());
        // Both counts are at most 64.
        block[40] = self.runs.len() as u8;
        block[41] = self.seals.len() as u8;
        for (run, target) in self.runs.iter().zip(block[RUNS_AT..].chunks_exact_mut(RUN_BYTES)) {
            target[..8].copy_from_slice(&run.generation.to_le_bytes());
            target[8..16].copy_from_slice(&run.salt.to_le_bytes());
            target[16..20].copy_from_slice(&run.start.to_le_bytes());
            target[20..24].copy_from_slice(&run.end.to_le_bytes());
        }
        for (seal, target) in self.seals.iter().zip(block[SEALS_AT..].chunks_exact_mut(SEAL_BYTES)) {
            target[..8].copy_from_slice(&seal.birth.to_le_bytes());
            target[8..16].copy_from_slice(&seal.end.to_le_bytes());
        }
        let crc = crc32c::crc32c(&block);
        block[12..16].copy_from_slice(&crc.to_le_bytes());
        block
    }

    /// Reads a block; `None` when it is not a whole header.
    pub fn decode(block: &[u8]) -> Option<Self> {
        let block: &[u8; BLOCK] = block.try_into().ok()?;
        if block[..8] != SEGMENT_MAGIC || u16_at(block, 8) != VERSION {
            return None;
        }
        let head = crc32c::crc32c_append(crc32c::crc32c(&block[..12]), &[0; 4]);
        if crc32c::crc32c_append(head, &block[16..]) != u32_at(block, 12) {
            return None;
        }
        let (runs, seals) = (usize::from(block[40]), usize::from(block[41]));
        if runs > RUNS_MAX || seals > SEALS_MAX {
            return None;
        }
        let length = u64_at(block, 32);
        let runs: Vec<Run> = block[RUNS_AT..]
            .chunks_exact(RUN_BYTES)
            .take(runs)
            .map(|run| Run {
                generation: u64_at(run, 0),
                salt: u64_at(run, 8),
                start: u32_at(run, 16),
                end: u32_at(run, 20),
            })
            .collect();
        let seals = block[SEALS_AT..]
            .chunks_exact(SEAL_BYTES)
            .take(seals)
            .map(|seal| Seal { birth: u64_at(seal, 0), end: u64_at(seal, 8) })
            .collect();
        let header = Self { stamp: u64_at(block, 16), number: u64_at(block, 24), length, runs, seals };
        header.is_sound().then_some(header)
    }

    /// Runs follow one another inside the segment, and only the last is open.
    fn is_sound(&self) -> bool {
        if self.length > u64::from(u32::MAX) || !self.length.is_multiple_of(BLOCK_BYTES) {
            return false;
        }
        let mut from = DATA_START;
        for (index, run) in self.runs.iter().enumerate() {
            let is_last = index + 1 == self.runs.len();
            let (start, end) = (u64::from(run.start), u64::from(run.end));
            if start < from || start > self.length || !start.is_multiple_of(BLOCK_BYTES) || is_last != (run.end == 0) {
                return false;
            }
            if !is_last {
                if end < start || end > self.length {
                    return false;
                }
                from = align(end);
            }
        }
        true
    }
}

/// Writes the group header into the first bytes of `group`, whose records are complete.
pub fn finish_group(group: &mut [u8], run: &Run, offset: u64, entries: u32) {
    let bytes = u32::try_from(group.len()).unwrap_or(u32::MAX);
    group[..4].copy_from_slice(&GROUP_MAGIC.to_le_bytes());
    group[8..16].copy_from_slice(&run.generation.to_le_bytes());
    group[16..20].copy_from_slice(&bytes.to_le_bytes());
    group[20..24].copy_from_slice(&entries.to_le_bytes());
    group[24..32].copy_from_slice(&offset.to_le_bytes());
    let crc = crc32c::crc32c_append(run.seed(), &group[8..GROUP_HEADER]);
    group[4..8].copy_from_slice(&crc.to_le_bytes());
}

/// What stands at the start of a block.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum GroupHead {
    /// A group of this run, of so many bytes with its header.
    Whole {
        /// Bytes.
        bytes: usize,
    },
    /// It says that it is of this run, but its checksum is wrong.
    Torn,
    /// Zeros, an older run, or anything else.
    Other,
}

/// Looks at the first bytes of a block at `offset`.
pub fn read_group(head: &[u8; GROUP_HEADER], run: &Run, offset: u64) -> GroupHead {
    if u32_at(head, 0) != GROUP_MAGIC || u64_at(head, 8) != run.generation {
        return GroupHead::Other;
    }
    let bytes = u32_at(head, 16) as usize;
    let is_whole = crc32c::crc32c_append(run.seed(), &head[8..]) == u32_at(head, 4);
    if is_whole && u64_at(head, 24) == offset && (GROUP_HEADER..=GROUP_BYTES_MAX).contains(&bytes) {
        GroupHead::Whole { bytes }
    } else {
        GroupHead::Torn
    }
}

/// The fixed part of a record.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RecordHead {
    /// The session.
    pub session: SessionId,
    /// The stream.
    pub stream: StreamId,
    /// Sequence number of the first sample.
    pub first: u64,
    /// Samples.
    pub count: u32,
    /// Epoch of the connection.
    pub epoch: u64,
    /// Bytes of the payload.
    pub payload: u32,
}

/// Appends the record of `entry` to `group`. The caller has checked the payload's length.
pub fn push_record(group: &mut Vec<u8>, entry: &Entry, seed: u32) {
    let start = group.len();
    let mut head = [0; RECORD_HEADER];
    head[..4].copy_from_slice(&RECORD_MAGIC.to_le_bytes());
    head[8..12].copy_from_slice(&(entry.payload.len() as u32).to_le_bytes());
    head[12..16].copy_from_slice(&entry.count.to_le_bytes());
    head[16..32].copy_from_slice(&entry.session.0);
    head[32..40].copy_from_slice(&entry.first.to_le_bytes());
    head[40..48].copy_from_slice(&entry.epoch.to_le_bytes());
    head[48..52].copy_from_slice(&entry.stream.0.to_le_bytes());
    group.extend_from_slice(&head);
    group.extend_from_slice(&entry.payload);
    seal_record(&mut group[start..], seed);
    group.resize(start + record_bytes(entry.payload.len()), 0);
}

/// Writes the checksum of the record that starts `record`, which may have padding behind it.
pub fn seal_record(record: &mut [u8], seed: u32) {
    let end = RECORD_HEADER + u32_at(record, 8) as usize;
    let crc = crc32c::crc32c_append(seed, &record[8..end]);
    record[4..8].copy_from_slice(&crc.to_le_bytes());
}

/// A record at the start of `bytes`, or what is wrong with it.
pub fn read_record(bytes: &[u8], seed: u32) -> Result<RecordHead, &'static str> {
    let head: &[u8; RECORD_HEADER] = bytes.first_chunk().ok_or("record is cut in its header")?;
    if u32_at(head, 0) != RECORD_MAGIC {
        return Err("no record starts there");
    }
    let payload = stated_payload(head).ok_or("record states a length over the limit")?;
    let whole = bytes.get(8..RECORD_HEADER + payload as usize).ok_or("record is cut in its payload")?;
    if crc32c::crc32c_append(seed, whole) != u32_at(head, 4) {
        return Err("record fails its checksum");
    }
    let mut session = [0; 16];
    session.copy_from_slice(&head[16..32]);
    Ok(RecordHead {
        session: SessionId(session),
        stream: StreamId(u32_at(head, 48)),
        first: u64_at(head, 32),
        count: u32_at(head, 12),
        epoch: u64_at(head, 40),
        payload,
    })
}

/// Bytes that the record at the start of `bytes` says it takes, if that can be: to step over one
/// that is damaged.
pub fn stated_record_bytes(bytes: &[u8]) -> Option<usize> {
    let head: &[u8; RECORD_HEADER] = bytes.first_chunk()?;
    if u32_at(head, 0) != RECORD_MAGIC {
        return None;
    }
    let total = record_bytes(stated_payload(head)? as usize);
    (total <= bytes.len()).then_some(total)
}

fn stated_payload(head: &[u8; RECORD_HEADER]) -> Option<u32> {
    let payload = u32_at(head, 8);
    (payload as usize <= PAYLOAD_BYTES_MAX).then_some(payload)
}

/// Two bytes at `at`; the caller knows that they are there.
pub fn u16_at(bytes: &[u8], at: usize) -> u16 {
    let mut number = [0; 2];
    number.copy_from_slice(&bytes[at..at + 2]);
    u16::from_le_bytes(number)
}

/// Four bytes at `at`; the caller knows that they are there.
pub fn u32_at(bytes: &[u8], at: usize) -> u32 {
    let mut number = [0; 4];
    number.copy_from_slice(&bytes[at..at + 4]);
    u32::from_le_bytes(number)
}

/// Eight bytes at `at`; the caller knows that they are there.
pub fn u64_at(bytes: &[u8], at: usize) -> u64 {
    let mut number = [0; 8];
    number.copy_from_slice(&bytes[at..at + 8]);
    u64::from_le_bytes(number)
}
