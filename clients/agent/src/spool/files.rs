//! Segment files: records are appended, never changed, and a segment is deleted once all its records are forgotten.
//!
//! A record is a head of 48 bytes and a whole message. The head's numbers are little endian:
//!
//! | bytes | field |
//! |---|---|
//! | 0..4 | length of the message |
//! | 4..8 | CRC32C of bytes 8..48 and the message |
//! | 8..16 | order: place among all records |
//! | 16..24 | first sequence number |
//! | 24..28 | stream |
//! | 28..30 | number of samples |
//! | 30 | 1 when the numbers are provisional |
//! | 31 | zero |
//! | 32..48 | clock of the samples |

use std::collections::BTreeMap;
use std::fs::{File, OpenOptions};
use std::io::{self, Read, Write};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use rustix::fs::FlockOperation;
use tendon_protocol::envelope::ENVELOPE_BYTES;
use tendon_protocol::id::{ClockId, StreamId};
use tendon_protocol::limit;

use crate::error::AgentError;

/// Bytes of a record's head.
pub(crate) const HEAD_BYTES: usize = 48;
/// Longest message that a record can hold.
const MESSAGE_BYTES_MAX: usize = ENVELOPE_BYTES + limit::PAYLOAD_BYTES_MAX;

/// What a record says about its message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Head {
    pub order: u64,
    pub first: u64,
    pub stream: StreamId,
    pub count: u16,
    pub provisional: bool,
    pub clock: ClockId,
}

/// Where a message lies.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Place {
    segment: u64,
    /// Offset of the message behind its head.
    offset: u64,
    bytes: u32,
}

impl Place {
    /// Bytes of the message.
    pub fn bytes(self) -> usize {
        self.bytes as usize
    }
}

/// A record found when the folder was opened.
#[derive(Clone, Debug)]
pub(crate) struct Found {
    pub head: Head,
    pub place: Place,
    /// The message of a journal record; others stay on disk.
    pub journal: Option<Vec<u8>>,
}

#[derive(Debug)]
struct Segment {
    file: Arc<File>,
    bytes: u64,
    /// Records that are not forgotten.
    live: u64,
}

/// The segment files of one folder.
#[derive(Debug)]
pub(crate) struct SpoolFiles {
    folder: PathBuf,
    segments: BTreeMap<u64, Segment>,
    /// Number of the segment that is written, once there is one.
    current: Option<u64>,
    next_number: u64,
    segment_bytes: u64,
    file_bytes_max: u64,
    fsync: bool,
    bytes: u64,
    /// Bytes cut from torn tails when the folder was opened.
    pub cut_bytes: u64,
    buffer: Vec<u8>,
    /// Held for as long as this lives, so that no second process uses the folder.
    _lock: File,
}

/// A message to read without holding any lock.
#[derive(Clone, Debug)]
pub(crate) struct Reading {
    file: Arc<File>,
    place: Place,
}

impl Reading {
    /// Reads the message; blocks.
    pub fn read(&self) -> io::Result<Vec<u8>> {
        let mut message = vec![0; self.place.bytes as usize];
        self.file.read_exact_at(&mut message, self.place.offset)?;
        Ok(message)
    }
}

fn encode_head(head: Head, message: &[u8]) -> io::Result<[u8; HEAD_BYTES]> {
    let length = u32::try_from(message.len()).ok().filter(|_| message.len() <= MESSAGE_BYTES_MAX);
    let length = length
        .ok_or_else(|| io::Error::other(format!("message of {} bytes is over {MESSAGE_BYTES_MAX}", message.len())))?;
    let mut bytes = [0u8; HEAD_BYTES];
    bytes[..4].copy_from_slice(&length.to_le_bytes());
    bytes[8..16].copy_from_slice(&head.order.to_le_bytes());
    bytes[16..24].copy_from_slice(&head.first.to_le_bytes());
    bytes[24..28].copy_from_slice(&head.stream.0.to_le_bytes());
    bytes[28..30].copy_from_slice(&head.count.to_le_bytes());
    bytes[30] = u8::from(head.provisional);
    bytes[32..].copy_from_slice(&head.clock.0);
    let sum = crc32c::crc32c_append(crc32c::crc32c(&bytes[8..]), message);
    bytes[4..8].copy_from_slice(&sum.to_le_bytes());
    Ok(bytes)
}

fn word<const N: usize>(bytes: &[u8], at: usize) -> [u8; N] {
    let mut word = [0; N];
    word.copy_from_slice(&bytes[at..at + N]);
    word
}

/// Reads one record; `None` where the file ends or does not go on as a record would.
fn read_record(reader: &mut impl Read) -> io::Result<Option<(Head, Vec<u8>)>> {
    let mut bytes = [0u8; HEAD_BYTES];
    if !fill(reader, &mut bytes)? {
        return Ok(None);
    }
    let length = u32::from_le_bytes(word(&bytes, 0)) as usize;
    if !(ENVELOPE_BYTES..=MESSAGE_BYTES_MAX).contains(&length) {
        return Ok(None);
    }
    let mut message = vec![0; length];
    if !fill(reader, &mut message)? {
        return Ok(None);
    }
    let sum = crc32c::crc32c_append(crc32c::crc32c(&bytes[8..]), &message);
    let head = Head {
        order: u64::from_le_bytes(word(&bytes, 8)),
        first: u64::from_le_bytes(word(&bytes, 16)),
        stream: StreamId(u32::from_le_bytes(word(&bytes, 24))),
        count: u16::from_le_bytes(word(&bytes, 28)),
        provisional: bytes[30] != 0,
        clock: ClockId(word(&bytes, 32)),
    };
    let whole = sum == u32::from_le_bytes(word(&bytes, 4))
        && head.count > 0
        && head.first.checked_add(u64::from(head.count)).is_some();
    Ok(whole.then_some((head, message)))
}

/// Fills the buffer; false when the file ends before that.
fn fill(reader: &mut impl Read, buffer: &mut [u8]) -> io::Result<bool> {
    match reader.read_exact(buffer) {
        Ok(()) => Ok(true),
        Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => Ok(false),
        Err(error) => Err(error),
    }
}

/// How spool files are kept.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Limits {
    pub segment_bytes: u64,
    pub file_bytes_max: u64,
    pub fsync: bool,
}

impl SpoolFiles {
    /// Opens a folder, makes it if it is not there, and gives back what it holds, in the order in which it was written.
    pub fn open(folder: &Path, limits: Limits) -> Result<(Self, Vec<Found>), AgentError> {
        std::fs::create_dir_all(folder).map_err(|error| AgentError::io("make the folder", folder, error))?;
        let lock = take_lock(folder)?;
        let mut files = Self {
            folder: folder.to_owned(),
            segments: BTreeMap::new(),
            current: None,
            next_number: 0,
            segment_bytes: limits.segment_bytes,
            file_bytes_max: limits.file_bytes_max,
            fsync: limits.fsync,
            bytes: 0,
            cut_bytes: 0,
            buffer: Vec::new(),
            _lock: lock,
        };
        let mut found = Vec::new();
        for number in segment_numbers(folder)? {
            files.scan(number, &mut found)?;
        }
        Ok((files, found))
    }

    fn path(&self, number: u64) -> PathBuf {
        self.folder.join(format!("{number:016x}.spool"))
    }

    fn scan(&mut self, number: u64, found: &mut Vec<Found>) -> Result<(), AgentError> {
        let path = self.path(number);
        let failed = |what| {
            let path = path.clone();
            move |error| AgentError::io(what, &path, error)
        };
        let file = OpenOptions::new().read(true).append(true).open(&path).map_err(failed("open"))?;
        let length = file.metadata().map_err(failed("read"))?.len();
        let mut reader = io::BufReader::with_capacity(1 << 16, &file);
        let (mut whole, mut live) = (0u64, 0u64);
        while let Some((head, message)) = read_record(&mut reader).map_err(failed("read"))? {
            let offset = whole + HEAD_BYTES as u64;
            let place = Place { segment: number, offset, bytes: u32::try_from(message.len()).unwrap_or(u32::MAX) };
            whole = offset + message.len() as u64;
            live += 1;
            found.push(Found { head, place, journal: (head.stream == StreamId::JOURNAL).then_some(message) });
        }
        self.next_number = self.next_number.max(number + 1);
        if whole == 0 {
            std::fs::remove_file(&path).map_err(failed("delete"))?;
            self.cut_bytes += length;
            return Ok(());
        }
        if whole < length {
            file.set_len(whole).map_err(failed("cut the torn tail of"))?;
            self.cut_bytes += length - whole;
        }
        self.bytes += whole;
        self.segments.insert(number, Segment { file: Arc::new(file), bytes: whole, live });
        Ok(())
    }

    /// Bytes of all segments.
    pub fn bytes(&self) -> u64 {
        self.bytes
    }

    /// Whether so many more bytes of messages fit the limit.
    pub fn has_room(&self, bytes: usize) -> bool {
        self.bytes + (bytes + HEAD_BYTES) as u64 <= self.file_bytes_max
    }

    /// Writes one message down.
    ///
    /// # Errors
    /// When the limit is reached ([`io::ErrorKind::StorageFull`]) or the system refuses. Nothing is kept then.
    pub fn append(&mut self, head: Head, message: &[u8]) -> io::Result<Place> {
        if !self.has_room(message.len()) {
            return Err(io::Error::new(
                io::ErrorKind::StorageFull,
                format!("spool files hold {} bytes, their limit", self.bytes),
            ));
        }
        self.buffer.clear();
        self.buffer.extend_from_slice(&encode_head(head, message)?);
        self.buffer.extend_from_slice(message);
        let number = self.writable()?;
        let fsync = self.fsync;
        let segment = self.segments.get_mut(&number).ok_or_else(|| io::Error::other("segment is gone"))?;
        let mut file: &File = &segment.file;
        let written = file.write_all(&self.buffer).and_then(|()| if fsync { file.sync_data() } else { Ok(()) });
        if let Err(error) = written {
            // Half a record would hide everything written behind it. If it cannot be cut, nothing is written behind it.
            if segment.file.set_len(segment.bytes).is_err() {
                self.current = None;
            }
            return Err(error);
        }
        let place = Place {
            segment: number,
            offset: segment.bytes + HEAD_BYTES as u64,
            bytes: u32::try_from(message.len()).unwrap_or(u32::MAX),
        };
        segment.bytes += self.buffer.len() as u64;
        segment.live += 1;
        self.bytes += self.buffer.len() as u64;
        Ok(place)
    }

    /// The segment to write to; a new one when there is none or it is full.
    fn writable(&mut self) -> io::Result<u64> {
        if let Some(number) = self.current
            && self.segments.get(&number).is_some_and(|segment| segment.bytes < self.segment_bytes)
        {
            return Ok(number);
        }
        let number = self.next_number;
        let file = OpenOptions::new().read(true).append(true).create_new(true).open(self.path(number))?;
        if self.fsync {
            File::open(&self.folder)?.sync_all()?;
        }
        self.next_number += 1;
        self.segments.insert(number, Segment { file: Arc::new(file), bytes: 0, live: 0 });
        if let Some(full) = self.current.replace(number) {
            self.drop_if_empty(full);
        }
        Ok(number)
    }

    /// One message is no longer needed.
    pub fn forget(&mut self, place: Place) {
        if let Some(segment) = self.segments.get_mut(&place.segment) {
            segment.live = segment.live.saturating_sub(1);
        }
        self.drop_if_empty(place.segment);
    }

    fn drop_if_empty(&mut self, number: u64) {
        let Some(segment) = self.segments.get(&number) else { return };
        // The segment that is being written stays until it is worth deleting, or every acknowledgement would cost a file.
        let young = self.current == Some(number) && segment.bytes < self.segment_bytes / 2;
        if segment.live > 0 || young {
            return;
        }
        self.bytes -= segment.bytes;
        self.segments.remove(&number);
        if self.current == Some(number) {
            self.current = None;
        }
        if let Err(error) = std::fs::remove_file(self.path(number)) {
            tracing::warn!(segment = number, %error, "cannot delete a spool file that is no longer needed");
        }
    }

    /// Deletes segments without a message, the one being written included.
    pub fn tidy(&mut self) {
        self.current = None;
        for number in self.segments.keys().copied().collect::<Vec<_>>() {
            self.drop_if_empty(number);
        }
    }

    /// How to read a message back.
    pub fn reading(&self, place: Place) -> Option<Reading> {
        self.segments.get(&place.segment).map(|segment| Reading { file: Arc::clone(&segment.file), place })
    }
}

fn take_lock(folder: &Path) -> Result<File, AgentError> {
    let path = folder.join("lock");
    let lock = OpenOptions::new()
        .create(true)
        .truncate(false)
        .write(true)
        .open(&path)
        .map_err(|error| AgentError::io("open", &path, error))?;
    rustix::fs::flock(&lock, FlockOperation::NonBlockingLockExclusive).map_err(|error| AgentError::Spool {
        folder: folder.to_owned(),
        what: format!("another agent uses it ({error}); give each agent its own folder"),
    })?;
    Ok(lock)
}

fn segment_numbers(folder: &Path) -> Result<Vec<u64>, AgentError> {
    let failed = |error| AgentError::io("list", folder, error);
    let mut numbers = Vec::new();
    for entry in std::fs::read_dir(folder).map_err(failed)? {
        let name = entry.map_err(failed)?.file_name();
        let number = name
            .to_str()
            .and_then(|name| name.strip_suffix(".spool"))
            .and_then(|hex| u64::from_str_radix(hex, 16).ok());
        numbers.extend(number.filter(|number| *number < u64::MAX));
    }
    numbers.sort_unstable();
    Ok(numbers)
}

#[cfg(test)]
mod tests;
