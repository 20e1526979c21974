//! What goes into the log, what comes out of it, and who is told when it is durable.

use std::path::PathBuf;
use std::sync::Arc;

use bytes::Bytes;
use tendon_protocol::id::{SessionId, StreamId};

use super::error::LogError;

/// Longest payload of one entry: a message of 1 MiB and 64 KiB for what surrounds it.
pub const PAYLOAD_BYTES_MAX: usize = (1 << 20) + (64 << 10);

/// Where the log lies and how large it may grow.
#[derive(Clone, Debug)]
pub struct LogConfig {
    /// Folder of the segments. Made when it is not there; one log at a time uses it.
    pub directory: PathBuf,
    /// Length of one segment, bytes; a multiple of 4096. The default, 64 MiB, is long enough that
    /// changing segments costs nothing, and short enough that one is free again soon.
    pub segment_bytes: u64,
    /// Most bytes of all segments, spares included. Default 16 GiB.
    pub frames_bytes_max: u64,
    /// Most entries that wait for the writer thread. Default 8192.
    pub queue_entries: usize,
    /// Most bytes of one write and sync, unless a single entry is longer. Default 4 MiB: on a disk
    /// whose syncs take milliseconds however little they store, groups of 1 MiB reached a third of
    /// what groups of 4 MiB did, and on one that stores 160 MB/s a group still takes only 25 ms.
    /// Only a log with more than that waiting makes groups so long.
    pub group_bytes_max: usize,
}

impl LogConfig {
    /// The defaults, in `directory`.
    #[must_use]
    pub fn new(directory: impl Into<PathBuf>) -> Self {
        Self {
            directory: directory.into(),
            segment_bytes: 64 << 20,
            frames_bytes_max: 16 << 30,
            queue_entries: 8192,
            group_bytes_max: 4 << 20,
        }
    }
}

/// One batch or one picture on its way into the log.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Entry {
    /// The session it belongs to.
    pub session: SessionId,
    /// The stream of that session.
    pub stream: StreamId,
    /// Sequence number of its first sample.
    pub first: u64,
    /// Number of samples.
    pub count: u32,
    /// Epoch of the connection that brought it.
    pub epoch: u64,
    /// The whole message; opaque here. At most [`PAYLOAD_BYTES_MAX`] bytes.
    pub payload: Bytes,
}

impl Entry {
    /// The sequence number after its last sample.
    #[must_use]
    pub fn next(&self) -> u64 {
        self.first.saturating_add(u64::from(self.count))
    }
}

/// One entry read back.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Stored {
    /// Sequence number of its first sample.
    pub first: u64,
    /// Number of samples.
    pub count: u32,
    /// Epoch of the connection that brought it.
    pub epoch: u64,
    /// The message as it was appended.
    pub payload: Bytes,
}

/// Told once what became of an entry.
///
/// Runs on the writer thread between two syncs, so it must be cheap and must not block.
pub trait Completion: Send {
    /// `Ok` means that the entry is on the disk. After an `Err` the log writes nothing more of
    /// that session until [`FrameLog::forgive`](super::FrameLog::forgive), so that no later entry
    /// can be acknowledged over the hole.
    fn done(self: Box<Self>, outcome: Result<(), Arc<LogError>>);
}
