//! The handle that an application holds, and what it shares with the tasks behind it.

use std::mem::discriminant;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tendon_protocol::control::{LostReason, MarkAction, Position};
use tendon_protocol::id::StreamId;
use tendon_protocol::stream::{Dtype, StreamDeclaration};
use tokio::sync::{Notify, mpsc, watch};
use tokio::task::AbortHandle;

use crate::clock::Clock;
use crate::config::AgentConfig;
use crate::core::keep::Pushed;
use crate::core::link::{Outgoing, Verdict};
use crate::core::shelf::Pressure;
use crate::core::{Control, Core, MarkRequest, Status};
use crate::error::AgentError;
use crate::stats::{Latencies, Stats};
use crate::uplink::connect::Target;
use crate::uplink::machine::Event;

/// How long `close` waits for a connection to say goodbye on, and for the goodbye; everything is acknowledged by then.
const GOODBYE_WAIT: Duration = Duration::from_secs(3);

/// What the handle and the tasks share.
pub(crate) struct Shared {
    core: Mutex<Core>,
    status: watch::Sender<Status>,
    /// There is something to write.
    pub wake: Notify,
    /// A batch was opened while no deadline was armed.
    pub opened: Notify,
    /// Something was acknowledged, or the end came.
    pub space: Notify,
    /// Counts the cuts.
    pub cuts: watch::Sender<u64>,
    pub keepalive: Duration,
    idle_timeout: Duration,
}

impl Shared {
    pub fn core(&self) -> MutexGuard<'_, Core> {
        // A panic elsewhere is a bug, but no reason to lose what the robot still records.
        self.core.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Brings an event to the machine and wakes whom it concerns.
    pub fn step(&self, event: Event) -> Verdict {
        let mut core = self.core();
        let verdict = core.step(event);
        self.publish(&core);
        drop(core);
        if verdict.write {
            self.wake.notify_one();
        }
        if verdict.freed {
            self.space.notify_waiters();
        }
        verdict
    }

    fn publish(&self, core: &Core) {
        let new = core.status();
        self.status.send_if_modified(|old| {
            let changed = discriminant(old) != discriminant(&new);
            if changed {
                *old = new;
            }
            changed
        });
    }

    pub fn push_control(&self, control: Control) {
        self.core().push_control(control);
        self.wake.notify_one();
    }

    pub fn collect(&self, wrote: usize, control: &mut Vec<Control>, out: &mut Vec<Outgoing>) {
        let mut core = self.core();
        let before = core.replaying();
        core.collect(wrote, control, out);
        if before != core.replaying() {
            self.publish(&core);
        }
    }

    /// A server that announced a pause may be silent for that much longer.
    pub fn idle_timeout(&self) -> Duration {
        self.idle_timeout + self.core().patience
    }

    /// How long it is until `at`, or until the application wants the agent back; `None` when both are over.
    pub fn pause_until(&self, at: Duration) -> Option<Duration> {
        let core = self.core();
        at.max(core.hold_until).checked_sub(core.now()).filter(|pause| !pause.is_zero())
    }

    /// Seals batches that waited long enough. Gives after which pause the next one is due.
    pub fn seal_due(&self) -> Option<Duration> {
        let mut core = self.core();
        let linger = core.settings.linger;
        let (sealed, next) = core.seal_older(linger, Pressure::Bounded);
        core.armed = next.is_some();
        let pause = next.map(|next| next.saturating_sub(core.now()));
        drop(core);
        if sealed {
            self.wake.notify_one();
        }
        pause
    }

    /// Writes the state down if it changed. A failure is told, and tried again the next time.
    pub async fn save(self: &Arc<Self>) {
        let job = {
            let mut core = self.core();
            if !core.dirty {
                return;
            }
            core.snapshot().zip(core.state_file.clone())
        };
        let Some(((number, state), file)) = job else { return };
        let written = tokio::task::spawn_blocking(move || file.write(number, &state)).await;
        if let Ok(Err(error)) = written {
            tracing::warn!(%error, "cannot write the spool's state");
            let mut core = self.core();
            core.counters.last_error = Some(error.to_string());
            core.dirty = true;
        }
    }
}

/// Ends the tasks when the last handle goes.
struct Guard {
    shared: Arc<Shared>,
    tasks: Vec<AbortHandle>,
}

impl Guard {
    fn abort(&self) {
        for task in &self.tasks {
            task.abort();
        }
    }
}

impl Drop for Guard {
    fn drop(&mut self) {
        self.abort();
        let mut core = self.shared.core();
        core.closed = true;
        // Frees the folder for the next agent. What is in it stays.
        core.shelf.files = None;
    }
}

/// One producer's connection to its session. Clones are handles to the same agent; when the last one is dropped without
/// [`Agent::close`] or [`Agent::stop`], what is not on disk is gone, as if the process had been killed.
#[derive(Clone)]
pub struct Agent {
    shared: Arc<Shared>,
    guard: Arc<Guard>,
    requests: Arc<Mutex<Option<mpsc::Receiver<MarkRequest>>>>,
}

impl std::fmt::Debug for Agent {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Agent").field("status", &*self.shared.status.borrow()).finish_non_exhaustive()
    }
}

impl Agent {
    /// Opens the spool and starts to connect, without waiting for it: samples can be recorded offline at once.
    ///
    /// # Errors
    /// When a setting cannot be right or the spool folder cannot be used.
    pub async fn start(config: AgentConfig) -> Result<Self, AgentError> {
        let target = Target::new(&config)?;
        let (keepalive, idle_timeout) = (config.keepalive, config.idle_timeout);
        let opened = tokio::task::spawn_blocking(move || Core::open(&config)).await;
        let (core, requests) = opened.map_err(|_| AgentError::Closed)??;
        let shared = Arc::new(Shared {
            core: Mutex::new(core),
            status: watch::Sender::new(Status::Offline),
            wake: Notify::new(),
            opened: Notify::new(),
            space: Notify::new(),
            cuts: watch::Sender::new(0),
            keepalive,
            idle_timeout,
        });
        let supervisor = tokio::spawn(crate::uplink::supervise(Arc::clone(&shared), target));
        let keeper = tokio::spawn(crate::uplink::keep_house(Arc::clone(&shared)));
        let guard =
            Guard { shared: Arc::clone(&shared), tasks: vec![supervisor.abort_handle(), keeper.abort_handle()] };
        Ok(Self { shared, guard: Arc::new(guard), requests: Arc::new(Mutex::new(Some(requests))) })
    }

    /// Starts, and waits for the first welcome.
    ///
    /// # Errors
    /// As [`Agent::start`]; when the server refuses for good; when it cannot be reached within `connect_wait`.
    pub async fn connect(config: AgentConfig) -> Result<Self, AgentError> {
        let (wait, url) = (config.connect_wait, crate::config::ingest_url(&config.url));
        let agent = Self::start(config).await?;
        let mut status = agent.status();
        let decided = status.wait_for(|status| !matches!(status, Status::Offline));
        let decided = match wait {
            Some(wait) => tokio::time::timeout(wait, decided).await.ok(),
            None => Some(decided.await),
        };
        let error = match decided {
            Some(Ok(status)) => match &*status {
                Status::Failed(error) => error.clone(),
                Status::Connected | Status::Replaying => {
                    drop(status);
                    return Ok(agent);
                }
                Status::Offline | Status::Closed => AgentError::Closed,
            },
            Some(Err(_)) => AgentError::Closed,
            None => {
                let last = agent.stats().last_error.unwrap_or_else(|| String::from("no answer yet"));
                AgentError::Unreachable { url, waited: wait.unwrap_or_default(), last }
            }
        };
        Err(error)
    }

    /// Says what a stream carries, before its first sample. Saying the same again changes nothing.
    ///
    /// # Errors
    /// When the declaration breaks a rule, differs from an earlier one of this stream, or cannot be written to the spool.
    pub async fn declare(&self, declaration: StreamDeclaration) -> Result<(), AgentError> {
        let new = self.shared.core().declare(declaration)?;
        if new {
            self.shared.wake.notify_one();
            // Spooled samples mean nothing to a server that never saw their declaration.
            self.shared.save().await;
        }
        Ok(())
    }

    /// Sends one sample of numbers: `width` elements, little endian, with its capture time on the agent's clock.
    ///
    /// It is numbered and kept when its batch is full, or after `linger`. Waits while the spool is full, or drops the sample
    /// and declares it lost, as configured.
    ///
    /// # Errors
    /// When the sample is not what its stream declared, the server refused the stream, or the agent is over.
    pub async fn send(&self, stream: StreamId, time_ns: i64, sample: &[u8], flags: u8) -> Result<(), AgentError> {
        self.with_room(|core| {
            core.check_values(stream, None, sample)?;
            core.push(stream, time_ns, flags, sample.len(), |values| values.extend_from_slice(sample))
        })
        .await
    }

    /// Sends several samples of one stream: `values` holds them one behind the other.
    ///
    /// # Errors
    /// As [`Agent::send`], or when the lengths do not fit one another. Samples in front of a wrong one are sent.
    pub async fn send_many(
        &self,
        stream: StreamId,
        times_ns: &[i64],
        values: &[u8],
        flags: &[u8],
    ) -> Result<(), AgentError> {
        let count = times_ns.len();
        if count == 0 {
            return Ok(());
        }
        if flags.len() != count || !values.len().is_multiple_of(count) || values.is_empty() {
            let what = format!(
                "{count} times, {} flags and {} bytes of values do not fit one another",
                flags.len(),
                values.len()
            );
            return Err(AgentError::Sample { stream, what });
        }
        let mut rest = times_ns.iter().zip(flags).zip(values.chunks_exact(values.len() / count)).peekable();
        self.with_room(|core| {
            let mut outcome = Pushed::Open { first: false };
            while let Some(((time_ns, flags), sample)) = rest.peek() {
                core.check_values(stream, None, sample)?;
                match core.push(stream, **time_ns, **flags, sample.len(), |values| values.extend_from_slice(sample))? {
                    Pushed::Full => return Ok(Pushed::Full),
                    Pushed::Ready => outcome = Pushed::Ready,
                    Pushed::Open { first: true } if outcome != Pushed::Ready => outcome = Pushed::Open { first: true },
                    Pushed::Open { .. } | Pushed::Dropped => {}
                }
                rest.next();
            }
            Ok(outcome)
        })
        .await
    }

    /// Sends one sample of an `f32` stream.
    ///
    /// # Errors
    /// As [`Agent::send`].
    pub async fn send_f32(&self, stream: StreamId, time_ns: i64, sample: &[f32], flags: u8) -> Result<(), AgentError> {
        self.send_elements(stream, time_ns, Dtype::F32, sample, f32::to_le_bytes, flags).await
    }

    /// Sends one sample of an `f64` stream.
    ///
    /// # Errors
    /// As [`Agent::send`].
    pub async fn send_f64(&self, stream: StreamId, time_ns: i64, sample: &[f64], flags: u8) -> Result<(), AgentError> {
        self.send_elements(stream, time_ns, Dtype::F64, sample, f64::to_le_bytes, flags).await
    }

    /// Sends one sample of an `i64` stream.
    ///
    /// # Errors
    /// As [`Agent::send`].
    pub async fn send_i64(&self, stream: StreamId, time_ns: i64, sample: &[i64], flags: u8) -> Result<(), AgentError> {
        self.send_elements(stream, time_ns, Dtype::I64, sample, i64::to_le_bytes, flags).await
    }

    async fn send_elements<T: Copy, const N: usize>(
        &self,
        stream: StreamId,
        time_ns: i64,
        dtype: Dtype,
        sample: &[T],
        bytes: fn(T) -> [u8; N],
        flags: u8,
    ) -> Result<(), AgentError> {
        self.with_room(|core| {
            core.check_values(stream, Some(dtype), &[])?;
            core.push(stream, time_ns, flags, sample.len() * N, |values| {
                for element in sample {
                    values.extend_from_slice(&bytes(*element));
                }
            })
        })
        .await
    }

    /// Sends one picture or access unit of a camera, unchanged.
    ///
    /// # Errors
    /// As [`Agent::send`].
    pub async fn send_media(&self, stream: StreamId, time_ns: i64, data: &[u8], flags: u8) -> Result<(), AgentError> {
        self.with_room(|core| core.push_media(stream, time_ns, flags, data)).await
    }

    /// Marks the begin, pause or end of an episode. `episode` is the producer's running number; the marks of one episode share it.
    ///
    /// # Errors
    /// When the instruction is too long, or the agent is over.
    pub async fn mark(
        &self,
        action: MarkAction,
        episode: u64,
        time_ns: i64,
        instruction: &str,
    ) -> Result<(), AgentError> {
        self.with_room(|core| core.mark(action, episode, time_ns, instruction, Pressure::Bounded)).await
    }

    /// Gives up `count` sequence numbers behind the samples sent so far: they will never come.
    ///
    /// # Errors
    /// When the stream is not declared, or the agent is over.
    pub async fn declare_lost(&self, stream: StreamId, count: u64, reason: LostReason) -> Result<(), AgentError> {
        self.with_room(|core| core.declare_lost(stream, count, reason)).await
    }

    /// Tries until there is room; the lock is never held while waiting.
    async fn with_room(
        &self,
        mut attempt: impl FnMut(&mut Core) -> Result<Pushed, AgentError>,
    ) -> Result<(), AgentError> {
        loop {
            if self.try_once(&mut attempt).await? {
                return Ok(());
            }
            // Registered before the second try, so that room that comes in between is not missed.
            let mut room = std::pin::pin!(self.shared.space.notified());
            room.as_mut().enable();
            if self.try_once(&mut attempt).await? {
                return Ok(());
            }
            room.await;
        }
    }

    async fn try_once(
        &self,
        attempt: &mut impl FnMut(&mut Core) -> Result<Pushed, AgentError>,
    ) -> Result<bool, AgentError> {
        let (pushed, arm) = {
            let mut core = self.shared.core();
            let pushed = attempt(&mut core)?;
            let arm = pushed == Pushed::Open { first: true } && !std::mem::replace(&mut core.armed, true);
            (pushed, arm)
        };
        if arm {
            self.shared.opened.notify_one();
        }
        match pushed {
            Pushed::Full => {
                // Messages that are kept already must flow, or room would never come.
                self.shared.wake.notify_one();
                Ok(false)
            }
            Pushed::Ready => {
                self.shared.wake.notify_one();
                // A runtime of one thread sends only while the application lets go.
                tokio::task::coop::consume_budget().await;
                Ok(true)
            }
            Pushed::Open { .. } | Pushed::Dropped => Ok(true),
        }
    }

    /// Makes messages of all batches that are still filling, without waiting for their acknowledgement.
    ///
    /// # Errors
    /// When the agent is over.
    pub async fn seal(&self) -> Result<(), AgentError> {
        self.with_room(|core| {
            core.check_running()?;
            Ok(if core.seal_all(Pressure::Bounded).is_ok() { Pushed::Ready } else { Pushed::Full })
        })
        .await
    }

    /// Waits until everything sent so far is acknowledged as durable.
    ///
    /// # Errors
    /// When the agent is over, or the server refused a stream: what was refused will never be acknowledged.
    pub async fn flush(&self) -> Result<(), AgentError> {
        self.seal().await?;
        loop {
            let mut moved = std::pin::pin!(self.shared.space.notified());
            moved.as_mut().enable();
            {
                let core = self.shared.core();
                core.check_running()?;
                if core.ledger.is_empty() {
                    return core.sources.values().find_map(|source| source.refused.clone()).map_or(Ok(()), Err);
                }
            }
            moved.await;
        }
    }

    /// Flushes, says goodbye, and writes the state of an empty spool down.
    ///
    /// # Errors
    /// As [`Agent::flush`]. The agent is stopped in any case.
    pub async fn close(&self) -> Result<(), AgentError> {
        let flushed = self.flush().await;
        if flushed.is_ok() {
            let mut status = self.status();
            // The server waits for more until it hears that there is none, so a connection that was just lost is worth a
            // moment. One that stalls now holds nothing that matters.
            let up = status.wait_for(|status| !matches!(status, Status::Offline));
            let _ = tokio::time::timeout(GOODBYE_WAIT, up).await;
            self.shared.step(Event::Leave);
            let left = status.wait_for(|status| matches!(status, Status::Closed | Status::Failed(_)));
            let _ = tokio::time::timeout(GOODBYE_WAIT, left).await;
        }
        flushed.and(self.stop().await)
    }

    /// Stops at once. What is not acknowledged goes to the spool folder, if there is one, and is gone otherwise.
    ///
    /// # Errors
    /// When the spool cannot be written.
    pub async fn stop(&self) -> Result<(), AgentError> {
        self.guard.abort();
        let shared = Arc::clone(&self.shared);
        let shut = tokio::task::spawn_blocking(move || {
            let mut core = shared.core();
            let shut = core.shut();
            shared.publish(&core);
            shut
        });
        let shut = shut.await.map_err(|_| AgentError::Closed)?;
        self.shared.space.notify_waiters();
        shut
    }

    /// Drops the TCP connection at once, as a pulled plug would, and connects again after the shortest pause.
    pub fn cut(&self) {
        self.cut_for(Duration::ZERO);
    }

    /// Drops the TCP connection at once and stays away for so long.
    pub fn cut_for(&self, pause: Duration) {
        {
            let mut core = self.shared.core();
            core.hold_until = core.now() + pause;
        }
        self.shared.cuts.send_modify(|cuts| *cuts += 1);
    }

    /// Requests for marks from the server. Each asks for one call of [`Agent::mark`]. `None` when it was taken already.
    #[must_use]
    pub fn requests(&self) -> Option<mpsc::Receiver<MarkRequest>> {
        self.requests.lock().unwrap_or_else(PoisonError::into_inner).take()
    }

    /// Turn requests into marks at once, at the clock's now, or hand them to [`Agent::requests`].
    pub fn auto_marks(&self, on: bool) {
        self.shared.core().settings.auto_marks = on;
    }

    /// How the agent stands, now and whenever it changes.
    #[must_use]
    pub fn status(&self) -> watch::Receiver<Status> {
        self.shared.status.subscribe()
    }

    /// Counters so far.
    #[must_use]
    pub fn stats(&self) -> Stats {
        self.shared.core().stats()
    }

    /// All times from a message's first write to its acknowledgement, to join with those of other agents.
    #[must_use]
    pub fn latencies(&self) -> Latencies {
        self.shared.core().counters.latencies.clone()
    }

    /// What was acknowledged, by stream; the journal is stream 0.
    #[must_use]
    pub fn positions(&self) -> Vec<Position> {
        self.shared.core().ledger.acknowledged()
    }

    /// The number that the next sample of a stream will have. Before the first welcome it may still grow.
    #[must_use]
    pub fn next_sequence(&self, stream: StreamId) -> u64 {
        self.shared.core().next_sequence(stream)
    }

    /// Number of the episode that was marked last, by this process or, with a spool folder, the one before.
    #[must_use]
    pub fn episode(&self) -> u64 {
        self.shared.core().episode
    }

    /// The clock that samples are stamped with.
    #[must_use]
    pub fn clock(&self) -> Clock {
        self.shared.core().clock.clone()
    }
}
