//! The embedded log of samples that are in no stored episode yet.
//!
//! Read [`Entry`] and [`Completion`] first, then [`FrameLog`]. An entry whose completion was told
//! `Ok` is on the disk and comes back after any crash, until it is released. Of everything else the
//! log promises only that it never shows a later entry of a session without the ones before.
//!
//! Inside, from the bytes upwards: `format` and `scan` know what a segment looks like, `segment`
//! makes and recycles files, `sidecar` and `index` know where entries lie, `catalogue` is what
//! threads share, [`Writer`] makes groups durable, `recovery` reads what a crash left. All of them
//! reach the disk through [`Files`], so that [`sim`] can stand in for a disk that loses power.
//!
//! It has no timer: a group is whatever came while the last one was synced. It knows no socket and
//! no actor, and does not look into payloads.

mod catalogue;
mod entry;
mod error;
mod file;
mod format;
mod fuzz;
mod index;
mod recovery;
mod report;
mod scan;
mod segment;
mod sidecar;
pub mod sim;
mod writer;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use crossbeam::channel::{Receiver, Sender, TrySendError, bounded, select};
use tendon_protocol::id::{SessionId, StreamId};

use self::catalogue::{Catalogue, Item};
pub use self::entry::{Completion, Entry, LogConfig, PAYLOAD_BYTES_MAX, Stored};
pub use self::error::{AppendError, LogError, Refused};
pub use self::file::{File, Files, FolderLock, RealFiles};
pub use self::fuzz::fuzz_segment;
pub use self::report::{Damage, Health, Holder, RecoveryReport, TornTail, Usage};
pub use self::writer::Writer;

/// Least time between two tries to get a segment from a disk that refuses.
const RETRY: Duration = Duration::from_millis(250);

/// The log. Shared by all sessions; its writer and a helper have a thread each.
pub struct FrameLog {
    catalogue: Arc<Catalogue>,
    items: Option<Sender<Item>>,
    wakes: Wakes,
    threads: Vec<JoinHandle<()>>,
}

/// How to wake the two threads. Each has room for one wake-up: more say nothing more.
#[derive(Clone)]
struct Wakes {
    writer: Sender<()>,
    helper: Sender<()>,
    is_closing: Arc<AtomicBool>,
}

impl Wakes {
    fn helper(&self) {
        let _ = self.helper.try_send(());
    }

    fn both(&self) {
        let _ = self.writer.try_send(());
        self.helper();
    }
}

impl FrameLog {
    /// Opens the log in `config.directory`, or makes one there, and says what was found.
    ///
    /// # Errors
    /// When the folder cannot be read, another process has it, or no thread can be started. Damaged
    /// segments are no error: they are in the report.
    pub fn open(config: LogConfig, files: Arc<dyn Files>) -> Result<(Self, RecoveryReport), LogError> {
        let (writer, report) = Writer::open(config, files)?;
        let catalogue = Arc::clone(writer.catalogue());
        let (items, items_out) = bounded(catalogue.config.queue_entries);
        let (wake_writer, writer_wakes) = bounded(1);
        let (wake_helper, helper_wakes) = bounded(1);
        let wakes = Wakes { writer: wake_writer, helper: wake_helper, is_closing: Arc::default() };
        wakes.helper();
        let mut log = Self { catalogue, items: Some(items), wakes, threads: Vec::new() };
        let wakes = log.wakes.clone();
        log.spawn("tendon-log", move || write_all(writer, &items_out, &writer_wakes, &wakes))?;
        let (catalogue, is_closing) = (Arc::clone(&log.catalogue), Arc::clone(&log.wakes.is_closing));
        log.spawn("tendon-log-help", move || help(&catalogue, &helper_wakes, &is_closing))?;
        Ok((log, report))
    }

    fn spawn(&mut self, name: &'static str, run: impl FnOnce() + Send + 'static) -> Result<(), LogError> {
        let spawned = thread::Builder::new().name(name.to_owned()).spawn(run);
        self.threads.push(spawned.map_err(|source| LogError::io("start the thread", name, source))?);
        Ok(())
    }

    /// Gives an entry to the writer thread. Never blocks.
    ///
    /// # Errors
    /// When the entry was not taken; it comes back with its completion. Keep it and try again in
    /// order, or later entries of its stream would be acknowledged over a hole.
    pub fn append(&self, entry: Entry, completion: Box<dyn Completion>) -> Result<(), AppendError> {
        let item = self.catalogue.admit(entry, completion).inspect_err(|_| self.wakes.both())?;
        let refused = match &self.items {
            Some(items) => match items.try_send(item) {
                Ok(()) => return Ok(()),
                Err(refused) => refused,
            },
            None => TrySendError::Disconnected(item),
        };
        let is_full = refused.is_full();
        let Item { entry, completion, charge, .. } = refused.into_inner();
        self.catalogue.discharge(charge);
        let refused = Box::new(Refused { entry, completion });
        if is_full {
            let queue_entries = self.catalogue.config.queue_entries;
            return Err(AppendError::QueueFull { queue_entries, refused });
        }
        Err(AppendError::Closed { refused })
    }

    /// Durable next sequence number per stream: the highest end of an entry that the log has.
    #[must_use]
    pub fn positions(&self, session: SessionId) -> BTreeMap<StreamId, u64> {
        self.catalogue.positions(session)
    }

    /// Sessions that have something in the log and were not released as a whole.
    #[must_use]
    pub fn sessions(&self) -> Vec<SessionId> {
        self.catalogue.index().sessions()
    }

    /// Durable entries of a stream that overlap `from..to`, ascending by first sequence number, then
    /// epoch. Reads the disk and blocks: call it on a thread that may.
    ///
    /// # Errors
    /// When the disk cannot be read, or an entry there is not what was written; the error names
    /// segment and offset.
    pub fn read(&self, session: SessionId, stream: StreamId, from: u64, to: u64) -> Result<Vec<Stored>, LogError> {
        self.catalogue.read(session, stream, from, to)
    }

    /// The log may forget entries that end at or below these positions. Not kept over a restart:
    /// say it again then.
    pub fn release(&self, session: SessionId, below: &[(StreamId, u64)]) {
        if self.catalogue.index_mut().release(session, below) {
            self.wakes.helper();
        }
    }

    /// The log may forget all that is durable of a session so far.
    pub fn release_all(&self, session: SessionId) {
        if self.catalogue.index_mut().release_all(session) {
            self.wakes.helper();
        }
    }

    /// The caller has gone back to [`positions`](Self::positions) after a completion was told an
    /// error: what it appends from now on counts again.
    pub fn forgive(&self, session: SessionId) {
        self.catalogue.forgive(session);
    }

    /// How full the log is, and who holds it.
    #[must_use]
    pub fn usage(&self) -> Usage {
        self.catalogue.usage()
    }

    /// Whether entries are stored at present, and why not.
    #[must_use]
    pub fn health(&self) -> Health {
        self.catalogue.health()
    }

    /// Whether entries are stored at present.
    ///
    /// # Errors
    /// The reason, in words for a person.
    pub fn readiness(&self) -> Result<(), String> {
        match self.health() {
            Health::Accepting => Ok(()),
            health @ (Health::Full { .. } | Health::NotAccepting { .. }) => Err(health.to_string()),
        }
    }

    /// Makes durable what waits, tells the completions, and ends the threads. Dropping does the same.
    pub fn close(self) {
        drop(self);
    }
}

impl Drop for FrameLog {
    fn drop(&mut self) {
        self.items = None;
        self.wakes.is_closing.store(true, Ordering::Release);
        self.wakes.helper();
        for thread in self.threads.drain(..) {
            if thread.join().is_err() {
                tracing::error!("a thread of the log panicked; what it held was not acknowledged");
            }
        }
    }
}

fn write_all(mut writer: Writer, items: &Receiver<Item>, wakes: &Receiver<()>, others: &Wakes) {
    let mut tried: Option<Instant> = None;
    loop {
        select! {
            recv(items) -> item => match item {
                Ok(item) => writer.push(item),
                Err(_) => return,
            },
            recv(wakes) -> _ => {
                if tried.is_none_or(|tried| tried.elapsed() >= RETRY) {
                    writer.revive();
                    tried = Some(Instant::now());
                    others.helper();
                }
            }
        }
        // Whatever came during the last sync is one group, up to its size limit.
        while let Ok(item) = items.try_recv() {
            writer.push(item);
        }
        writer.commit();
        if writer.wants_help() {
            others.helper();
        }
    }
}

fn help(catalogue: &Catalogue, wakes: &Receiver<()>, is_closing: &AtomicBool) {
    while wakes.recv().is_ok() {
        let is_done = catalogue.tidy();
        if is_closing.load(Ordering::Acquire) {
            return;
        }
        if !is_done {
            thread::sleep(RETRY);
        }
    }
}

#[cfg(test)]
mod tests;
