//! What can go wrong, and what to do then.

use std::fmt;
use std::io;

use tendon_protocol::id::SessionId;
use thiserror::Error;

use super::entry::{Completion, Entry};
use super::report::{Holder, holders_text};

/// The log could not do what was asked.
#[derive(Debug, Error)]
pub enum LogError {
    /// The settings contradict one another.
    #[error("{0}")]
    Config(String),
    /// Another log has the folder.
    #[error(
        "log folder {directory} is in use or cannot be locked ({source}); stop the other server or choose another folder"
    )]
    Locked {
        /// The folder.
        directory: String,
        /// What the system said.
        source: io::Error,
    },
    /// The disk or the file system refused.
    #[error(
        "cannot {operation} {name}: {source}; check the disk's health, its free space and the folder's permissions"
    )]
    Io {
        /// What was tried.
        operation: &'static str,
        /// The file or folder.
        name: String,
        /// What the system said.
        source: io::Error,
    },
    /// Bytes that were durable are not what was written.
    #[error(
        "segment {segment} is damaged at byte {offset} ({what}); check the disk, and restore the file or end its sessions"
    )]
    Damaged {
        /// Number of the segment.
        segment: u64,
        /// Where in it, bytes.
        offset: u64,
        /// What was wrong there.
        what: &'static str,
    },
    /// All segments are held.
    #[error(
        "log is full at {bytes} of {bytes_max} bytes; flush or discard episodes of the sessions that hold it, or raise log.frames_bytes_max"
    )]
    Full {
        /// Bytes of all segments.
        bytes: u64,
        /// The limit.
        bytes_max: u64,
    },
    /// An earlier entry of this session failed, so this one would leave a hole before it.
    #[error("an earlier entry of session {session} was not stored; go back to its durable positions, then send again")]
    Behind {
        /// The session.
        session: SessionId,
    },
    /// The writer has no segment; the first entry that failed so was told why.
    #[error("log has no segment that it can write to; it tries again with later appends, see its health")]
    Stalled,
    /// The log was closed before the entry was written.
    #[error("log is closed; send again after the restart")]
    Closed,
}

impl LogError {
    pub(super) fn io(operation: &'static str, name: impl Into<String>, source: io::Error) -> Self {
        Self::Io { operation, name: name.into(), source }
    }

    /// Whether it is lack of space on the disk.
    #[must_use]
    pub fn is_disk_full(&self) -> bool {
        matches!(self, Self::Io { source, .. }
            if matches!(source.kind(), io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded))
    }
}

/// An entry that was not taken, with its completion.
pub struct Refused {
    /// The entry.
    pub entry: Entry,
    /// Its completion; it was not told anything.
    pub completion: Box<dyn Completion>,
}

impl fmt::Debug for Refused {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // Not the payload: a megabyte in a log line helps nobody.
        let Entry { session, stream, first, count, epoch, payload } = &self.entry;
        write!(
            f,
            "Refused({session} stream {stream} first {first} count {count} epoch {epoch}, {} bytes)",
            payload.len()
        )
    }
}

/// The log did not take an entry. It gives it back: keep it and try again, in order.
#[derive(Debug, Error)]
pub enum AppendError {
    /// The writer thread is busy; there is room again after the next sync.
    #[error("{queue_entries} entries wait for the disk already; try again in a moment")]
    QueueFull {
        /// Length of the queue.
        queue_entries: usize,
        /// What was not taken.
        refused: Box<Refused>,
    },
    /// The log has reached its size.
    #[error("log is full at {bytes} of {bytes_max} bytes, held by {}; flush or discard their episodes, or raise log.frames_bytes_max", holders_text(.holders))]
    Full {
        /// Bytes of all segments.
        bytes: u64,
        /// The limit.
        bytes_max: u64,
        /// Who holds most, largest first.
        holders: Vec<Holder>,
        /// What was not taken.
        refused: Box<Refused>,
    },
    /// The disk takes nothing at present; the log tries again by itself.
    #[error("log takes nothing at present: {reason}")]
    NotAccepting {
        /// What happened, and what to do.
        reason: String,
        /// What was not taken.
        refused: Box<Refused>,
    },
    /// The entry can never be stored.
    #[error(
        "entry of {bytes} bytes and {count} samples is empty, over the limit of {bytes_max} bytes, or passes the last sequence number; split it"
    )]
    Unstorable {
        /// Bytes of its payload.
        bytes: usize,
        /// Its samples.
        count: u32,
        /// Largest payload.
        bytes_max: usize,
        /// What was not taken.
        refused: Box<Refused>,
    },
    /// The writer thread is gone.
    #[error("log is closed; start the server again")]
    Closed {
        /// What was not taken.
        refused: Box<Refused>,
    },
}

impl AppendError {
    /// Whether only the queue is full, which passes within one sync.
    #[must_use]
    pub fn is_queue_full(&self) -> bool {
        matches!(self, Self::QueueFull { .. })
    }

    /// The entry and its completion.
    #[must_use]
    pub fn into_parts(self) -> (Entry, Box<dyn Completion>) {
        match self {
            Self::QueueFull { refused, .. }
            | Self::Full { refused, .. }
            | Self::NotAccepting { refused, .. }
            | Self::Unstorable { refused, .. }
            | Self::Closed { refused } => (refused.entry, refused.completion),
        }
    }
}
