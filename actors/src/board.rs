//! Where the log's writer thread says what is durable, and those who wait for it read.
//!
//! One board per session. The writer thread advances it once per batch; the connection's
//! acknowledger and the session's actor are woken and read the newest state, so that a thousand
//! batches made durable by one sync are one acknowledgement.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, LazyLock, Mutex, MutexGuard, PoisonError};
use std::time::Instant;

use metrics::Histogram;

use tendon_protocol::control::Position;
use tendon_protocol::id::StreamId;
use tendon_storage::frames::{Completion, LogError};
use tokio::sync::{Notify, OwnedSemaphorePermit};

/// Durable positions of one session.
#[derive(Default)]
pub struct AckBoard {
    positions: Mutex<BTreeMap<StreamId, u64>>,
    /// Wakes the connection's acknowledger.
    pub acknowledger: Notify,
    /// Wakes the session's actor, if it asked to be woken.
    pub session: Notify,
    session_waits: AtomicBool,
    /// Samples and bytes made durable since somebody last took the counts.
    samples: AtomicU64,
    bytes: AtomicU64,
    failed: AtomicBool,
}

impl AckBoard {
    fn lock(&self) -> MutexGuard<'_, BTreeMap<StreamId, u64>> {
        // A panic between lock and unlock leaves a map that is still whole.
        self.positions.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// All durable positions.
    #[must_use]
    pub fn positions(&self) -> BTreeMap<StreamId, u64> {
        self.lock().clone()
    }

    /// The durable position of one stream.
    #[must_use]
    pub fn position(&self, stream: StreamId) -> u64 {
        self.lock().get(&stream).copied().unwrap_or(0)
    }

    /// Raises a position. Whether it moved: then somebody has to wake the acknowledger.
    pub fn advance(&self, stream: StreamId, next: u64) -> bool {
        let mut positions = self.lock();
        let position = positions.entry(stream).or_default();
        let has_moved = next > *position;
        *position = (*position).max(next);
        has_moved
    }

    /// Positions that are higher than in `seen`, which is brought up to date.
    #[must_use]
    pub fn news(&self, seen: &mut BTreeMap<StreamId, u64>) -> Vec<Position> {
        let positions = self.lock();
        let mut news = Vec::new();
        for (stream, next) in positions.iter() {
            let known = seen.entry(*stream).or_default();
            if *next > *known {
                *known = *next;
                news.push(Position { stream: *stream, next: *next });
            }
        }
        news
    }

    /// Whether the session's actor wants to be woken when something becomes durable.
    pub fn wake_session(&self, waits: bool) {
        self.session_waits.store(waits, Ordering::Release);
    }

    /// Whether the log failed to store something since this was last asked.
    #[must_use]
    pub fn take_failure(&self) -> bool {
        self.failed.swap(false, Ordering::AcqRel)
    }

    /// Samples and bytes that became durable since this was last asked.
    #[must_use]
    pub fn take_counts(&self) -> (u64, u64) {
        (self.samples.swap(0, Ordering::Relaxed), self.bytes.swap(0, Ordering::Relaxed))
    }
}

/// Byte permits of messages that came together; they come back when the last one is durable.
pub struct Permits {
    _session: OwnedSemaphorePermit,
    _process: OwnedSemaphorePermit,
    arrived: Instant,
}

/// Looked up once: the lookup costs more than the recording.
static ACK_LATENCY: LazyLock<Histogram> = LazyLock::new(|| metrics::histogram!("tendon_ack_latency_seconds"));

impl Drop for Permits {
    fn drop(&mut self) {
        ACK_LATENCY.record(self.arrived.elapsed().as_secs_f64());
    }
}

impl Permits {
    /// Permits that are held by messages on their way to the disk.
    #[must_use]
    pub fn new(session: OwnedSemaphorePermit, process: OwnedSemaphorePermit) -> Arc<Self> {
        Arc::new(Self { _session: session, _process: process, arrived: Instant::now() })
    }
}

/// What happens when a batch is durable.
pub struct Kept {
    /// The session's board.
    pub board: Arc<AckBoard>,
    /// The batch's stream.
    pub stream: StreamId,
    /// The position that is durable then.
    pub next: u64,
    /// Samples of the batch.
    pub samples: u32,
    /// Bytes of its message.
    pub bytes: u32,
    /// Held until then.
    pub permits: Option<Arc<Permits>>,
}

impl Completion for Kept {
    fn done(self: Box<Self>, outcome: Result<(), Arc<LogError>>) {
        match outcome {
            Ok(()) => {
                self.board.advance(self.stream, self.next);
                self.board.samples.fetch_add(u64::from(self.samples), Ordering::Relaxed);
                self.board.bytes.fetch_add(u64::from(self.bytes), Ordering::Relaxed);
                self.board.acknowledger.notify_one();
            }
            // The consequence of an earlier failure of this session, which was told then.
            Err(error) if matches!(*error, LogError::Behind { .. }) => {}
            Err(_) => self.board.failed.store(true, Ordering::Release),
        }
        if self.board.failed.load(Ordering::Acquire) || self.board.session_waits.load(Ordering::Acquire) {
            self.board.session.notify_one();
        }
    }
}
