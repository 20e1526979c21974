//! One teleoperation session, from its first hello to the last flushed episode.
//!
//! A thin shell: [`machine`] decides, this actor appends to the log, saves records, starts flushes
//! and talks to the connection. Started by [`crate::fleet`], fed by the front door with
//! [`Attach`], [`Ingest`] and [`Detach`]. It may be killed at any line: a new actor reads the
//! store and the log and comes to the same state.

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use actix::prelude::*;
use bytes::Bytes;
use tendon_protocol::control::{ErrorMessage, Goodbye, GoodbyeReason, Throttle, ThrottleLimit};
use tendon_protocol::id::StreamId;
use tendon_protocol::message::Message as Wire;
use tendon_storage::frames::{Completion, Entry};
use tendon_storage::records::EpisodeRecord;
use tokio::sync::{Semaphore, oneshot};

use crate::board::{AckBoard, Kept, Permits};
use crate::house::{House, blocking};
use crate::stored;

mod handlers;
pub mod machine;
mod messages;
mod work;

use machine::{Effect, Machine, SampleHead, Verdict};
use messages::Woken;
use work::Work;

pub use messages::{
    AskLive, Attach, Attached, ClockNews, Detach, Drain, EndSession, Ingest, Item, Outbox, Outgoing, RequestMark,
    TellProducer, TellThrottle,
};
pub use work::Clocks;

/// How often a session looks at its deadlines. Flush deadlines are in seconds.
const TICK: Duration = Duration::from_secs(1);
/// A session that writes fast releases the log this often in bytes, besides every half minute: a segment that is
/// written again costs half of a new one, which is filled with zeros first.
const RELEASE_BYTES: u64 = 32 << 20;
/// How long appends wait when the log refuses them.
const STALL: Duration = Duration::from_millis(50);
/// Messages to one producer that wait for its socket. One that reads nothing for so long is cut off.
pub const OUTBOX_MESSAGES: usize = 64;
/// More than the byte permits of a session admit at the smallest charge, so that a mailbox with credits is never full.
const MAILBOX_MESSAGES: usize = 4096;

struct Link {
    epoch: u64,
    outbox: Outbox,
}

/// The session's actor.
pub struct Session {
    house: Arc<House>,
    machine: Machine,
    board: Arc<AckBoard>,
    permits: Arc<Semaphore>,
    link: Option<Link>,
    /// Appends that the log refused, in order.
    stalled: VecDeque<(Entry, Box<dyn Completion>)>,
    stall_told: bool,
    /// Declared streams that the saved record has. A sample is stored after its declaration, or it would be worth nothing.
    streams_saved: usize,
    /// Bytes made durable since the log was last told what it may forget.
    unreleased_bytes: u64,
    /// Duplicates that wait until what they repeat is durable.
    unverified: VecDeque<(SampleHead, Bytes, Arc<Permits>)>,
    work: VecDeque<Work>,
    working: bool,
    clocks: Clocks,
    last_error: Option<String>,
    start_effects: Vec<Effect>,
    draining: Vec<oneshot::Sender<()>>,
    /// The server stops: nothing more is taken.
    is_stopping: bool,
}

impl Session {
    /// The actor of a recovered session.
    #[must_use]
    pub fn new(
        house: Arc<House>,
        machine: Machine,
        effects: Vec<Effect>,
        positions: BTreeMap<StreamId, u64>,
        clocks: Clocks,
    ) -> Self {
        let board = Arc::new(AckBoard::default());
        for (stream, next) in positions {
            board.advance(stream, next);
        }
        let permits = Arc::new(Semaphore::new(house.settings.session_bytes));
        let streams_saved = machine.record().streams.len();
        Self {
            house,
            machine,
            board,
            permits,
            link: None,
            stalled: VecDeque::new(),
            stall_told: false,
            streams_saved,
            unreleased_bytes: 0,
            unverified: VecDeque::new(),
            work: VecDeque::new(),
            working: false,
            clocks,
            last_error: None,
            start_effects: effects,
            draining: Vec::new(),
            is_stopping: false,
        }
    }

    fn now_ns(&self) -> i64 {
        self.house.clock.now_ns()
    }

    fn tell(&mut self, message: Wire) {
        let Some(link) = &self.link else { return };
        if link.outbox.try_send(Outgoing::Message(Box::new(message))).is_err() {
            // A producer that does not read has lost its connection; it will say hello again.
            self.link = None;
        }
    }

    fn close_link(&mut self, reason: GoodbyeReason, text: &str) {
        if let Some(link) = self.link.take() {
            let goodbye = Wire::Goodbye(Goodbye { reason, text: text.to_owned() });
            let _ = link.outbox.try_send(Outgoing::Message(Box::new(goodbye)));
            let _ = link.outbox.try_send(Outgoing::Close);
        }
    }

    fn act(&mut self, effects: Vec<Effect>, ctx: &mut Context<Self>) {
        for effect in effects {
            match effect {
                Effect::Refuse(error) => self.refuse(error),
                Effect::SaveSession => {
                    let record = Box::new(self.machine.record().clone());
                    match self.work.back_mut() {
                        Some(Work::SaveSession(queued, _)) => *queued = record,
                        _ => self.work.push_back(Work::SaveSession(record, Vec::new())),
                    }
                }
                Effect::SaveEpisode(record) => self.work.push_back(Work::SaveEpisode(record)),
                Effect::Flush(order) => self.work.push_back(Work::Flush(order)),
                Effect::Release(below) => self.work.push_back(Work::Release(below)),
                Effect::ReleaseAll => self.work.push_back(Work::ReleaseAll),
                Effect::CloseEnded => {
                    self.close_link(GoodbyeReason::SessionEnded, "the session has ended; create a new one")
                }
            }
        }
        self.work_on(ctx);
        self.board.wake_session(self.machine.wants_durable() || !self.unverified.is_empty());
    }

    fn refuse(&mut self, error: ErrorMessage) {
        tracing::warn!(session = %self.machine.record().id, code = ?error.code, stream = error.stream.0, sequence = error.sequence, "{}", error.text);
        self.last_error = Some(error.text.clone());
        metrics::counter!("tendon_refused_total", "code" => format!("{:?}", error.code)).increment(1);
        self.tell(Wire::Error(error));
    }

    fn take(&mut self, item: Item, permits: &Arc<Permits>, ctx: &mut Context<Self>) {
        match item {
            Item::Samples(head, payload) => match self.machine.samples(&head) {
                Verdict::Keep => self.keep(head.stream, head.first, head.count, payload, permits),
                Verdict::Duplicate => {
                    self.unverified.push_back((head, payload, Arc::clone(permits)));
                }
                Verdict::Refuse(error) => self.refuse(error),
            },
            Item::Journal(entry, payload) => {
                let sequence = entry.sequence();
                match self.machine.journal(*entry) {
                    Verdict::Keep => {
                        self.keep(StreamId::JOURNAL, sequence, 1, payload, permits);
                        self.board.wake_session(true);
                    }
                    Verdict::Duplicate => {
                        let head = stored::journal_head(sequence);
                        self.unverified.push_back((head, payload, Arc::clone(permits)));
                    }
                    Verdict::Refuse(error) => self.refuse(error),
                }
            }
            Item::Declare(declaration) => {
                let effects = self.machine.declare(*declaration);
                self.act(effects, ctx);
            }
        }
    }

    fn keep(&mut self, stream: StreamId, first: u64, count: u32, payload: Bytes, permits: &Arc<Permits>) {
        let bytes = u32::try_from(payload.len()).unwrap_or(u32::MAX);
        let entry = Entry {
            session: self.machine.record().id,
            stream,
            first,
            count,
            epoch: self.machine.record().epoch,
            payload,
        };
        let kept = Kept {
            board: Arc::clone(&self.board),
            stream,
            next: first + u64::from(count),
            samples: if stream == StreamId::JOURNAL { 0 } else { count },
            bytes,
            permits: Some(Arc::clone(permits)),
        };
        self.stalled.push_back((entry, Box::new(kept)));
        if self.stalled.len() == 1 {
            self.append_stalled();
        }
    }

    /// Appends in order; what the log refuses waits. Byte permits bound how much can wait.
    fn append_stalled(&mut self) {
        if self.streams_saved < self.machine.record().streams.len() {
            return;
        }
        while let Some((entry, completion)) = self.stalled.pop_front() {
            if let Err(refused) = self.house.log.append(entry, completion) {
                let text = refused.to_string();
                let is_queue = refused.is_queue_full();
                if self.is_stopping && !is_queue {
                    // Nobody was told that it is stored; the stop must not wait for room.
                    self.stalled.clear();
                    self.unverified.clear();
                    return;
                }
                self.stalled.push_front(refused.into_parts());
                if !is_queue && !self.stall_told {
                    self.stall_told = true;
                    tracing::error!(session = %self.machine.record().id, "log takes nothing: {text}");
                    self.last_error = Some(text.clone());
                    let delay_ms = u32::try_from(STALL.as_millis()).unwrap_or(u32::MAX);
                    self.tell(Wire::Throttle(Throttle { delay_ms, limit: ThrottleLimit::Storage, text }));
                }
                return;
            }
        }
        if self.stall_told {
            self.stall_told = false;
            self.last_error = None;
        }
    }

    fn pull_durable(&mut self, ctx: &mut Context<Self>) {
        if self.board.take_failure() {
            self.log_failed();
        }
        let positions = self.board.positions();
        let effects = self.machine.durable(&positions, self.now_ns());
        let mut has_moved = false;
        for (declaration, durable, _) in self.machine.streams() {
            // A declared hole moves the position without a sample, so no completion tells of it.
            has_moved |= self.board.advance(declaration.stream, durable);
        }
        if has_moved {
            self.board.acknowledger.notify_one();
        }
        self.verify_duplicates(ctx);
        self.act(effects, ctx);
        if self.stalled.is_empty()
            && self.unverified.is_empty()
            && self.work.is_empty()
            && !self.working
            && self.permits_are_back()
        {
            if self.is_stopping {
                // Not before: the last acknowledgements go with it.
                self.close_link(
                    GoodbyeReason::ServerStops,
                    "the server stops; connect again, nothing that was acknowledged is lost",
                );
            }
            for waiter in self.draining.drain(..) {
                let _ = waiter.send(());
            }
        }
    }

    /// Whether the session has ended and nothing of it is left to do. The fleet starts a new actor if somebody asks.
    fn is_over(&self) -> bool {
        self.machine.is_finished()
            && self.link.is_none()
            && self.work.is_empty()
            && !self.working
            && self.draining.is_empty()
            && self.stalled.is_empty()
            && self.permits_are_back()
    }

    /// Whether the log stores nothing at present. The session that holds it need not be one that sends.
    fn is_log_full(&self) -> bool {
        self.stall_told || self.house.log.readiness().is_err()
    }

    fn permits_are_back(&self) -> bool {
        self.permits.available_permits() == self.house.settings.session_bytes
    }

    /// The log could not store something that was accepted. Nothing of it was acknowledged: go back
    /// to what is durable and let the producer send again.
    fn log_failed(&mut self) {
        self.stalled.clear();
        self.unverified.clear();
        self.machine.rewind(&self.board.positions());
        self.house.log.forgive(self.machine.record().id);
        let text = format!(
            "the log could not store samples: {}; they were not acknowledged, the producer sends them again",
            self.house.log.health()
        );
        tracing::error!(session = %self.machine.record().id, "{text}");
        self.last_error = Some(text.clone());
        self.tell(Wire::Throttle(Throttle { delay_ms: 1000, limit: ThrottleLimit::Storage, text }));
        self.close_link(GoodbyeReason::ServerStops, "the server could not store; connect again in a second");
    }

    /// Compares samples that came again with what is stored. Reads the log, so on a blocking thread.
    fn verify_duplicates(&mut self, ctx: &mut Context<Self>) {
        let mut ready = Vec::new();
        while let Some((head, _, _)) = self.unverified.front() {
            if head.first + u64::from(head.count) > self.board.position(head.stream) {
                break;
            }
            ready.extend(self.unverified.pop_front());
        }
        if ready.is_empty() {
            return;
        }
        let log = Arc::clone(&self.house.log);
        let session = self.machine.record().id;
        let compare = blocking(move || stored::compare_duplicates(&log, session, ready));
        ctx.spawn(compare.into_actor(self).map(|(removed, errors), this, ctx| {
            metrics::counter!("tendon_duplicates_removed_total").increment(removed);
            let effects = this.machine.note_duplicates(removed);
            this.act(effects, ctx);
            for error in errors {
                this.refuse(error);
            }
        }));
    }
}

impl Actor for Session {
    type Context = Context<Self>;

    fn started(&mut self, ctx: &mut Self::Context) {
        ctx.set_mailbox_capacity(MAILBOX_MESSAGES);
        let (board, addr) = (Arc::clone(&self.board), ctx.address().downgrade());
        actix_rt::spawn(async move {
            loop {
                board.session.notified().await;
                let Some(addr) = addr.upgrade() else { return };
                // Awaiting the answer lets news gather: at most one wake-up is on its way.
                if addr.send(Woken).await.is_err() {
                    return;
                }
            }
        });
        ctx.run_interval(TICK, |this, ctx| {
            this.pull_durable(ctx);
            let now_ns = this.house.clock.now_ns();
            let mut effects = this.machine.tick(now_ns);
            if this.is_log_full() {
                effects.extend(this.machine.make_room(now_ns));
            }
            this.act(effects, ctx);
            this.save_clocks(ctx);
            let (samples, bytes) = this.board.take_counts();
            this.unreleased_bytes += bytes;
            if this.unreleased_bytes >= RELEASE_BYTES {
                this.unreleased_bytes = 0;
                let effects = this.machine.release_now(this.house.clock.now_ns());
                this.act(effects, ctx);
            }
            metrics::counter!("tendon_frames_stored_total").increment(samples);
            metrics::counter!("tendon_stored_bytes_total").increment(bytes);
            if this.is_over() {
                ctx.stop();
            }
        });
        ctx.run_interval(STALL, |this, _| {
            if !this.stalled.is_empty() {
                this.append_stalled();
            }
        });
        let effects = std::mem::take(&mut self.start_effects);
        self.act(effects, ctx);
    }

    fn stopped(&mut self, _: &mut Self::Context) {
        // The waker task holds the board: wake it, so that it sees that the actor is gone.
        self.board.session.notify_one();
    }
}

/// What the store keeps of an episode that somebody may have annotated meanwhile.
fn merge_episode(stored: &mut EpisodeRecord, ours: EpisodeRecord) {
    let annotations = std::mem::take(&mut stored.annotations);
    *stored = EpisodeRecord { annotations, ..ours };
}
