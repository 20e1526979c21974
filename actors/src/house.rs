//! What all actors of one server share: the stores, the settings and the clock.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Instant, SystemTime, UNIX_EPOCH};

use tendon_storage::frames::FrameLog;
use tendon_storage::meta::Meta;
use tendon_storage::objects::Objects;
use tendon_storage::records::VideoChoice;
use tokio::sync::Semaphore;

use crate::session::machine::MachineSettings;

/// The server's clock: unix nanoseconds at the start, moved on by the monotonic clock, so that it
/// never jumps while producers' clocks are measured against it.
#[derive(Clone, Copy, Debug)]
pub struct ServerClock {
    started: Instant,
    unix_ns: i64,
}

impl ServerClock {
    /// A clock that shows the wall time of this moment.
    #[must_use]
    pub fn start() -> Self {
        let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        Self { started: Instant::now(), unix_ns: i64::try_from(since.as_nanos()).unwrap_or(i64::MAX) }
    }

    /// Unix nanoseconds.
    #[must_use]
    pub fn now_ns(&self) -> i64 {
        let elapsed = i64::try_from(self.started.elapsed().as_nanos()).unwrap_or(i64::MAX);
        self.unix_ns.saturating_add(elapsed)
    }
}

/// Settings of the actors.
#[derive(Clone, Debug)]
pub struct HouseSettings {
    /// Time limits of sessions.
    pub machine: MachineSettings,
    /// Bytes of one session's samples that may be on their way to the disk.
    pub session_bytes: usize,
    /// Bytes of all sessions' samples that may be on their way to the disk.
    pub process_bytes: usize,
    /// Folder for files that are being built; emptied at start.
    pub scratch: PathBuf,
    /// The ffmpeg program for re-encoding, if one is configured or found.
    pub ffmpeg: Option<PathBuf>,
    /// What becomes of camera pictures when an export does not say.
    pub video: VideoChoice,
}

/// Everything that actors share.
pub struct House {
    /// Sessions, episodes, datasets, exports, clocks.
    pub meta: Meta,
    /// The hot log.
    pub log: Arc<FrameLog>,
    /// Episodes and datasets.
    pub objects: Objects,
    /// Settings.
    pub settings: HouseSettings,
    /// The server's clock.
    pub clock: ServerClock,
    /// Byte permits of the process: what may be on its way to the disk.
    pub process_permits: Arc<Semaphore>,
    /// Flushes hold their episode in memory: few at a time.
    pub flush_permits: Arc<Semaphore>,
    /// Exports share ffmpeg and the disk: one at a time.
    pub export_permits: Arc<Semaphore>,
}

/// Episodes that are flushed at the same time. Each is held in memory while it is measured.
const FLUSHES_AT_ONCE: usize = 2;

impl House {
    /// A house over opened stores.
    #[must_use]
    pub fn new(meta: Meta, log: FrameLog, objects: Objects, settings: HouseSettings) -> Self {
        Self {
            meta,
            log: Arc::new(log),
            objects,
            clock: ServerClock::start(),
            process_permits: Arc::new(Semaphore::new(settings.process_bytes)),
            flush_permits: Arc::new(Semaphore::new(FLUSHES_AT_ONCE)),
            export_permits: Arc::new(Semaphore::new(1)),
            settings,
        }
    }
}

/// Runs a blocking call on a thread for such calls.
///
/// # Panics
/// When the call itself panicked.
pub async fn blocking<T: Send + 'static>(call: impl FnOnce() -> T + Send + 'static) -> T {
    match tokio::task::spawn_blocking(call).await {
        Ok(value) => value,
        Err(error) => std::panic::resume_unwind(error.into_panic()),
    }
}
