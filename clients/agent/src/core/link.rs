//! Carries out what the machine decides, and gives the writer its bytes.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use tendon_protocol::control::{
    ClockKind, ErrorCode, Goodbye, GoodbyeReason, Hello, Lost, LostReason, Mark, MarkAction, Position, Probe, ProbeRole,
};
use tendon_protocol::id::StreamId;
use tendon_protocol::limit::PAYLOAD_BYTES_MAX;
use tendon_protocol::message::Message;

use crate::clock::wall_ns;
use crate::core::renumber::renumber;
use crate::core::shelf::{Pressure, Source, Stored};
use crate::core::{Control, Core, MarkRequest};
use crate::error::AgentError;
use crate::ledger::{Entry, Hole};
use crate::spool::files::Head;
use crate::spool::state::Shift;
use crate::uplink::machine::{Effect, Event, Phase};

/// Control messages that wait for the writer: every declaration twice over. Probes and pongs beyond that are dropped;
/// the server asks again.
const CONTROL_MAX: usize = 1024;
/// Bytes that are joined into one write. A probe's answer waits for no more than this.
const WRITE_BYTES: usize = 64 << 10;
/// Messages that are joined into one write.
const WRITE_MESSAGES: usize = 128;

/// A server that says it takes less than this is not believed: the widest sample has 32 kB.
const PAYLOAD_BYTES_MIN: usize = 64 << 10;

/// What the shell has to do after a step.
#[derive(Debug, Default)]
pub(crate) struct Verdict {
    /// Open a socket.
    pub connect: bool,
    /// Drop the socket, for this reason.
    pub hang: Option<String>,
    /// Dial again at this time.
    pub retry_at: Option<Duration>,
    /// Something became free: wake whoever waits for room or for the end.
    pub freed: bool,
    /// There is something to write.
    pub write: bool,
}

/// One message for the socket.
#[derive(Debug)]
pub(crate) struct Outgoing {
    pub stream: StreamId,
    pub first: u64,
    pub source: Source,
}

impl Core {
    /// Brings an event to the machine and carries out what it decides.
    pub fn step(&mut self, event: Event) -> Verdict {
        let (mut verdict, mut effects) = (Verdict::default(), Vec::new());
        let now = self.now();
        self.machine.step(event, now, &mut effects);
        for effect in effects {
            self.carry_out(effect, now, &mut verdict);
        }
        verdict.write |= !self.control.is_empty();
        verdict
    }

    fn carry_out(&mut self, effect: Effect, now: Duration, verdict: &mut Verdict) {
        match effect {
            Effect::Connect => verdict.connect = true,
            Effect::Hello(positions) => self.hello(positions),
            Effect::Resume { positions, payload_bytes_max } => {
                let limit = usize::try_from(payload_bytes_max).unwrap_or(usize::MAX);
                self.payload_bytes_max = limit.clamp(PAYLOAD_BYTES_MIN, PAYLOAD_BYTES_MAX);
                self.resume(&positions, now, verdict);
                verdict.freed = true;
                verdict.write = true;
            }
            Effect::Forget(positions) => {
                self.forget(&positions, now);
                verdict.freed = true;
            }
            Effect::Rewind { stream, from } => {
                self.mend(stream, from, LostReason::Other);
                self.ledger.rewind(stream, from);
                // It may be a declaration of loss that came too early: the journal goes back to it.
                if let Some(hole) = self.ledger.undeclared_holes(stream, from).first() {
                    self.ledger.rewind(StreamId::JOURNAL, hole.declared);
                }
                verdict.write = true;
            }
            Effect::Refuse { stream, code, text } => {
                self.refuse(stream, code, text);
                verdict.freed = true;
            }
            Effect::Throttled { delay_ms, text } => {
                self.counters.throttled_ms += u64::from(delay_ms);
                self.counters.throttles += 1;
                self.patience = Duration::from_millis(u64::from(delay_ms));
                tracing::debug!(delay_ms, text, "server slows this producer");
            }
            Effect::Request(mark) => {
                self.request(mark);
                verdict.write = true;
            }
            Effect::Reply(probe) => {
                let Probe { id, sent_ns, .. } = probe;
                self.push_control(Control::Reply { id, sent_ns, received_ns: self.clock.now_ns(), wall_ns: wall_ns() });
            }
            Effect::Report(text) => {
                tracing::info!(text, "uplink");
                self.counters.last_error = Some(text);
            }
            Effect::Farewell => {
                let text = String::from("everything is acknowledged");
                self.push_message(&Message::Goodbye(Goodbye { reason: GoodbyeReason::Done, text }));
                self.push_control(Control::Close);
            }
            Effect::Hang(reason) => verdict.hang = Some(reason),
            Effect::RetryAt(at) => verdict.retry_at = Some(at.max(self.hold_until)),
            Effect::Fail(error) => {
                tracing::error!(%error, "agent stops");
                self.counters.last_error = Some(error.to_string());
                verdict.hang = Some(error.to_string());
                verdict.freed = true;
                self.failed = Some(error);
                self.requests = None;
            }
        }
    }

    pub fn push_control(&mut self, control: Control) {
        if self.control.len() < CONTROL_MAX {
            self.control.push_back(control);
        }
    }

    pub fn push_message(&mut self, message: &Message) {
        self.push_control(Control::Message(Bytes::from(message.encode())));
    }

    fn hello(&mut self, positions: Vec<Position>) {
        self.control.clear();
        self.push_message(&Message::Hello(Hello {
            session: self.settings.session,
            producer: self.settings.producer,
            clock: self.clock.id(),
            clock_kind: self.clock.kind(),
            time_ns: self.clock.now_ns(),
            wall_ns: wall_ns(),
            positions,
        }));
    }

    fn resume(&mut self, positions: &[Position], now: Duration, verdict: &mut Verdict) {
        let first_time = !self.ledger.settled();
        if first_time {
            self.settle(positions);
        }
        if let Err(foreign) = self.ledger.rewind_all(positions) {
            let crate::ledger::Foreign { stream, server, next } = foreign;
            let more = self.step(Event::Fault(AgentError::Foreign { stream, server, next }));
            verdict.hang = more.hang;
            return;
        }
        self.forget(positions, now);
        let reason = if first_time { LostReason::Restart } else { LostReason::Other };
        for stream in self.ledger.streams() {
            let from = positions.iter().find(|position| position.stream == stream).map_or(0, |position| position.next);
            if first_time {
                self.mend_in_order(stream, from);
            }
            self.mend(stream, from, reason);
        }
        if first_time && let Err(error) = self.write_state_now() {
            let more = self.step(Event::Fault(error));
            verdict.hang = more.hang;
            return;
        }
        for source in self.sources.values() {
            let message = Message::Declare(source.declaration.clone());
            self.control.push_back(Control::Message(Bytes::from(message.encode())));
        }
        self.send_anchors();
        self.replay_until = self.ledger.order();
        self.counters.connections += 1;
    }

    /// The first welcome of this process says where the server stands.
    fn settle(&mut self, positions: &[Position]) {
        let Self { ledger, sources, shelf, .. } = self;
        let (mut from, until) = (u64::MAX, ledger.order());
        let mut moved = None;
        let settled = ledger.settle(
            positions,
            |stream| sources.contains_key(&stream),
            self.unclean,
            |entry, deltas| {
                if entry.payload.place.is_some() {
                    from = from.min(entry.order);
                }
                let moved = moved.get_or_insert_with(|| Arc::new(deltas.clone()));
                if deltas.is_empty() {
                    return;
                }
                entry.payload.shift = entry.payload.place.is_some().then(|| Arc::clone(moved));
                if let Some(bytes) = &entry.payload.memory {
                    let again =
                        Bytes::from(renumber(bytes, deltas).expect("a message that was encoded here can be decoded"));
                    shelf.memory_bytes = shelf.memory_bytes - bytes.len() + again.len();
                    entry.bytes = again.len();
                    entry.payload.memory = Some(again);
                }
            },
        );
        // Provisional records on disk must be known as settled, even where nothing moved: the next process would move them.
        if from != u64::MAX {
            self.shifts.push(Shift { from, until, deltas: settled.deltas });
        }
        for ((stream, lost), sequence) in settled.placeholders.into_iter().zip(settled.journal_first..) {
            self.declare_at(sequence, stream, lost, lost, LostReason::Restart);
        }
    }

    /// Declares lost what lies from `from` on and is neither kept nor declared yet.
    fn mend(&mut self, stream: StreamId, from: u64, reason: LostReason) {
        for (first, last) in self.ledger.gaps(stream, from) {
            if stream != StreamId::JOURNAL {
                self.lose(stream, first, last, reason);
                continue;
            }
            // A hole in the journal cannot be declared behind itself: the loss takes the number of the lost message.
            for sequence in first..=last {
                self.fill_journal(Lost { sequence, stream, first: sequence, last: sequence, reason });
            }
        }
    }

    /// Declares what an earlier process lost in front of holes whose declarations still wait.
    ///
    /// The server takes declarations only in the order of a stream's numbers. So the waiting ones give their places in the
    /// journal to the first holes, and are declared anew behind them. The server has none of them: they are not durable.
    fn mend_in_order(&mut self, stream: StreamId, from: u64) {
        let gaps = self.ledger.gaps(stream, from);
        let Some((first_gap, _)) = gaps.first().copied().filter(|_| stream != StreamId::JOURNAL) else { return };
        let waiting = self.ledger.undeclared_holes(stream, first_gap);
        if waiting.is_empty() {
            return;
        }
        let mut places: Vec<u64> = waiting.iter().map(|hole| hole.declared).collect();
        places.sort_unstable();
        self.ledger.forget_holes(stream, &waiting);
        let known = waiting.iter().map(|hole| (hole.first, hole.last, hole.reason));
        let mut ranges: Vec<_> =
            gaps.into_iter().map(|(first, last)| (first, last, LostReason::Restart)).chain(known).collect();
        ranges.sort_unstable();
        // One hole for each place that there is; what is left comes behind all of them.
        let rest = ranges.split_off(places.len());
        for (sequence, (first, last, reason)) in places.into_iter().zip(ranges) {
            self.declare_at(sequence, stream, first, last, reason);
        }
        for (first, last, reason) in rest {
            self.lose(stream, first, last, reason);
        }
    }

    /// Declares samples lost at a given number of the journal.
    fn declare_at(&mut self, sequence: u64, stream: StreamId, first: u64, last: u64, reason: LostReason) {
        self.fill_journal(Lost { sequence, stream, first, last, reason });
        self.ledger.hole(stream, Hole { first, last, declared: sequence, reason });
        self.counters.lost += last - first + 1;
    }

    /// Puts a declaration of loss at a number of the journal that is free, or whose message is not needed any more.
    fn fill_journal(&mut self, lost: Lost) {
        let (stream, first) = (StreamId::JOURNAL, lost.sequence);
        tracing::warn!(stream = %lost.stream, first = lost.first, last = lost.last, reason = ?lost.reason, "samples or marks are lost");
        let bytes = Message::Lost(lost).encode();
        let (clock, order, length) = (self.clock.id(), self.ledger.order_at(stream, first), bytes.len());
        let head = Head { order, first, stream, count: 1, provisional: false, clock };
        let Ok(payload) = self.shelf.put(head, bytes, Pressure::Forced) else { return };
        if let Some(old) = self.ledger.replace(stream, first, length, payload.clone()) {
            self.shelf.release(&old);
            return;
        }
        let (count, after, provisional, written) = (1, None, false, None);
        self.ledger
            .fill(stream, Entry { order, first, count, bytes: length, after, provisional, clock, written, payload });
    }

    fn send_anchors(&mut self) {
        let spooled: std::collections::BTreeSet<_> = self.ledger.entries().map(|(_, entry)| entry.clock).collect();
        let old = self.clocks.iter().filter(|clock| {
            clock.id != self.clock.id() && clock.kind != ClockKind::Replay && spooled.contains(&clock.id)
        });
        let anchors: Vec<Probe> = old
            .flat_map(|clock| {
                let last = (clock.last != clock.first).then_some(clock.last);
                [Some(clock.first), last].into_iter().flatten().map(|anchor| Probe {
                    role: ProbeRole::Anchor,
                    id: 0,
                    clock: clock.id,
                    sent_ns: 0,
                    received_ns: anchor.clock_ns,
                    replied_ns: anchor.clock_ns,
                    wall_ns: anchor.wall_ns,
                })
            })
            .collect();
        for anchor in anchors {
            self.push_message(&Message::Probe(anchor));
        }
    }

    fn forget(&mut self, positions: &[Position], now: Duration) {
        self.patience = Duration::ZERO;
        let Self { ledger, shelf, counters, .. } = self;
        for position in positions {
            ledger.acknowledge(position.stream, position.next, |entry| {
                shelf.release(&entry.payload);
                if let Some(written) = entry.written {
                    counters
                        .latencies
                        .record(u64::try_from(now.saturating_sub(written).as_micros()).unwrap_or(u64::MAX));
                }
                if position.stream != StreamId::JOURNAL {
                    counters.acknowledged += u64::from(entry.count);
                    counters.waiting = counters.waiting.saturating_sub(u64::from(entry.count));
                }
            });
        }
        self.dirty = true;
    }

    fn refuse(&mut self, stream: StreamId, code: ErrorCode, text: String) {
        let error = AgentError::StreamRefused { stream, code, text };
        tracing::error!(%error, "stream stops");
        self.counters.last_error = Some(error.to_string());
        let Self { ledger, shelf, counters, sources, open_bytes, .. } = self;
        let mut dropped = 0;
        ledger.refuse(stream, |entry: Entry<Stored>| {
            shelf.release(&entry.payload);
            dropped += u64::from(entry.count);
        });
        if let Some(source) = sources.get_mut(&stream) {
            dropped += source.discard_open(open_bytes) + std::mem::take(&mut source.dropped);
            source.refused = Some(error);
        }
        counters.refused += dropped;
        counters.waiting = counters.waiting.saturating_sub(dropped);
        self.dirty = true;
    }

    fn request(&mut self, mark: Mark) {
        let Mark { action, instruction, episode, .. } = mark;
        if !self.settings.auto_marks {
            let request = MarkRequest { action, instruction, episode };
            if self.requests.as_ref().is_none_or(|requests| requests.try_send(request).is_err()) {
                self.counters.requests_dropped += 1;
                tracing::warn!(?action, "nobody took the server's request for a mark");
            }
            return;
        }
        let episode = match action {
            // The place in the journal is a running number that no restart repeats.
            MarkAction::Start => self.ledger.next(StreamId::JOURNAL),
            MarkAction::Pause
            | MarkAction::Resume
            | MarkAction::StopSuccess
            | MarkAction::StopFailure
            | MarkAction::Discard => self.episode,
        };
        let now = self.clock.now_ns();
        if let Err(error) = self.mark(action, episode, now, &instruction, Pressure::Forced) {
            self.counters.last_error = Some(error.to_string());
        }
    }

    /// Whether messages from before this connection still wait to be written.
    pub fn replaying(&self) -> bool {
        self.replay_until > 0
    }

    /// The next control messages and messages with samples, in the order of writing. `wrote`: bytes written since the last call.
    pub fn collect(&mut self, wrote: usize, control: &mut Vec<Control>, out: &mut Vec<Outgoing>) {
        self.counters.bytes += wrote as u64;
        control.extend(self.control.drain(..));
        if self.machine.phase() != Phase::Live {
            return;
        }
        let now = self.now();
        let (mut bytes, mut oldest) = (0, u64::MAX);
        let Self { ledger, shelf, counters, .. } = self;
        while bytes < WRITE_BYTES && out.len() < WRITE_MESSAGES {
            let Some(taken) = ledger.take(now) else { break };
            bytes += taken.entry.bytes;
            oldest = taken.entry.order;
            let samples = if taken.stream == StreamId::JOURNAL { 0 } else { u64::from(taken.entry.count) };
            if taken.again {
                counters.replayed += samples;
            } else {
                counters.messages += 1;
            }
            if let Some(source) = shelf.source(&taken.entry.payload) {
                out.push(Outgoing { stream: taken.stream, first: taken.entry.first, source });
            }
        }
        if self.replay_until > 0 && (oldest == u64::MAX || oldest >= self.replay_until || self.ledger.all_written()) {
            self.replay_until = 0;
        }
    }

    /// The probe's answer, now that it leaves.
    pub fn reply(&self, id: u64, sent_ns: i64, received_ns: i64, wall_ns: i64) -> Vec<u8> {
        let (clock, replied_ns) = (self.clock.id(), self.clock.now_ns());
        Message::Probe(Probe { role: ProbeRole::Reply, id, clock, sent_ns, received_ns, replied_ns, wall_ns }).encode()
    }

    /// The bytes of a kept message cannot be read back: its samples are lost.
    pub fn damaged(&mut self, stream: StreamId, first: u64, why: &str) {
        let Some(entry) = self.ledger.remove(stream, first) else { return };
        self.shelf.release(&entry.payload);
        self.counters.last_error = Some(format!(
            "a spooled message of stream {stream} cannot be read ({why}); its {} samples are lost",
            entry.count
        ));
        if stream != StreamId::JOURNAL {
            self.counters.waiting = self.counters.waiting.saturating_sub(u64::from(entry.count));
        }
        self.mend(stream, first, LostReason::Other);
    }
}
