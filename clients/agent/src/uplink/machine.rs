//! What to do next on the way to the server. Pure: no socket, no clock, no task.
//!
//! Read [`Phase`] first, then [`Machine::step`]. The shell in `uplink.rs` brings events and carries out effects.

use std::collections::BTreeMap;
use std::time::Duration;

use tendon_protocol::control::{
    ErrorCode, ErrorMessage, Goodbye, GoodbyeReason, Mark, Position, Probe, ProbeRole, Throttle, Welcome,
};
use tendon_protocol::id::{SessionId, StreamId};
use tendon_protocol::message::Message;

use crate::config::Backoff;
use crate::error::AgentError;

/// A gap in flight is reported once for every message behind it. Reports of a gap that was answered are ignored for this
/// long; if it still stands then, it is answered again.
const GAP_PAUSE: Duration = Duration::from_secs(1);
/// Connections in a row that may end with an error and without progress. At the default pauses that is about a minute.
const FRUITLESS_MAX: u32 = 12;
/// A server may ask for a longer pause than the backoff's longest, but for no longer than this.
const RETRY_AFTER_MAX: Duration = Duration::from_secs(300);

/// How the way to the server stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Phase {
    /// No connection.
    Offline,
    /// A socket is being opened.
    Connecting,
    /// Hello is sent, welcome has not come.
    Greeting,
    /// Samples flow.
    Live,
    /// A goodbye is on its way.
    Leaving,
    /// Over, for good.
    Failed,
    /// Closed in order.
    Closed,
}

/// A refused handshake.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Refusal {
    pub status: u16,
    pub code: String,
    pub message: String,
    pub retry_after: Option<Duration>,
}

/// What happened.
#[derive(Debug)]
pub(crate) enum Event {
    /// The pause is over.
    Dial,
    /// A socket is open.
    Opened,
    /// The handshake was refused.
    Refused(Refusal),
    /// No socket could be opened.
    Unreachable(String),
    /// The server sent a message.
    Received(Message),
    /// The socket ended.
    Ended(String),
    /// Time has passed.
    Tick,
    /// Everything is acknowledged and the application wants to go.
    Leave,
    /// The goodbye is written.
    Left,
    /// Something outside this machine cannot go on.
    Fault(AgentError),
}

/// What to do about it.
#[derive(Debug)]
pub(crate) enum Effect {
    /// Open a socket.
    Connect,
    /// Send hello with these positions.
    Hello(Vec<Position>),
    /// Declare all streams, forget what is durable, send the rest again.
    Resume { positions: Vec<Position>, payload_bytes_max: u32 },
    /// These moved: forget what lies below.
    Forget(Vec<Position>),
    /// Send a stream again from this sequence; what is gone is to be declared lost.
    Rewind { stream: StreamId, from: u64 },
    /// The server wants no more of this stream.
    Refuse { stream: StreamId, code: ErrorCode, text: String },
    /// The server reads later.
    Throttled { delay_ms: u32, text: String },
    /// The server asks for a mark.
    Request(Mark),
    /// The server asks for the time.
    Reply(Probe),
    /// Something to tell, without consequence.
    Report(String),
    /// Send a goodbye, then close.
    Farewell,
    /// Drop the socket.
    Hang(String),
    /// Try again at this time.
    RetryAt(Duration),
    /// Stop for good.
    Fail(AgentError),
}

#[derive(Clone, Copy, Debug)]
struct Gap {
    from: u64,
    answered: Duration,
    /// It was reported again since.
    stands: bool,
}

/// The decisions.
#[derive(Debug)]
pub(crate) struct Machine {
    phase: Phase,
    session: SessionId,
    backoff: Backoff,
    acknowledged: BTreeMap<StreamId, u64>,
    gaps: BTreeMap<StreamId, Gap>,
    /// Tries to connect since the last welcome that led somewhere.
    tries: u32,
    /// Connections in a row that ended with an error and without progress.
    fruitless: u32,
    /// Something was acknowledged on this connection.
    progress: bool,
    /// Last error message of this connection.
    error: Option<String>,
    random: u64,
}

impl Machine {
    pub fn new(session: SessionId, backoff: Backoff, acknowledged: &[Position], seed: u64) -> Self {
        Self {
            phase: Phase::Offline,
            session,
            backoff,
            acknowledged: acknowledged.iter().map(|position| (position.stream, position.next)).collect(),
            gaps: BTreeMap::new(),
            tries: 0,
            fruitless: 0,
            progress: false,
            error: None,
            random: seed,
        }
    }

    pub fn phase(&self) -> Phase {
        self.phase
    }

    /// Decides. `now` counts from any fixed moment and never runs backwards.
    pub fn step(&mut self, event: Event, now: Duration, effects: &mut Vec<Effect>) {
        if matches!(self.phase, Phase::Failed | Phase::Closed) {
            return;
        }
        match event {
            Event::Dial => self.dial(effects),
            Event::Opened => self.opened(effects),
            Event::Refused(refusal) => self.refused(refusal, now, effects),
            Event::Unreachable(text) => {
                if self.phase == Phase::Connecting {
                    effects.push(Effect::Report(text));
                    self.retry(now, None, effects);
                }
            }
            Event::Received(message) => self.received(message, now, effects),
            Event::Ended(text) => self.ended(text, now, effects),
            Event::Tick => self.recheck_gaps(now, effects),
            Event::Leave => self.leave(effects),
            Event::Left => self.phase = Phase::Closed,
            Event::Fault(error) => self.fail(error, effects),
        }
    }

    fn dial(&mut self, effects: &mut Vec<Effect>) {
        match self.phase {
            Phase::Offline => {
                self.phase = Phase::Connecting;
                effects.push(Effect::Connect);
            }
            Phase::Connecting | Phase::Greeting | Phase::Live | Phase::Leaving | Phase::Failed | Phase::Closed => {}
        }
    }

    fn opened(&mut self, effects: &mut Vec<Effect>) {
        if self.phase != Phase::Connecting {
            return;
        }
        self.phase = Phase::Greeting;
        self.progress = false;
        self.error = None;
        self.gaps.clear();
        let positions = self.acknowledged.iter().map(|(stream, next)| Position { stream: *stream, next: *next });
        effects.push(Effect::Hello(positions.collect()));
    }

    fn refused(&mut self, refusal: Refusal, now: Duration, effects: &mut Vec<Effect>) {
        if self.phase != Phase::Connecting {
            return;
        }
        let Refusal { status, code, message, retry_after } = refusal;
        // What a client did wrong stays wrong; 408, 425 and 429 are about time, as is everything above 500.
        if (300..500).contains(&status) && !matches!(status, 408 | 425 | 429) {
            return self.fail(AgentError::Refused { status, code, message }, effects);
        }
        effects.push(Effect::Report(AgentError::Refused { status, code, message }.to_string()));
        self.retry(now, retry_after, effects);
    }

    fn retry(&mut self, now: Duration, at_least: Option<Duration>, effects: &mut Vec<Effect>) {
        self.phase = Phase::Offline;
        let doubled = self.backoff.min.saturating_mul(2u32.saturating_pow(self.tries.min(20)));
        let span = doubled.min(self.backoff.max).saturating_sub(self.backoff.min);
        self.tries = self.tries.saturating_add(1);
        // SplitMix64: any spread will do, so that a thousand robots do not come back in the same millisecond.
        self.random = self.random.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.random;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        let fraction = ((mixed ^ (mixed >> 31)) >> 40) as f64 / (1u64 << 24) as f64;
        let pause = self.backoff.min + span.mul_f64(fraction);
        let pause = pause.max(at_least.unwrap_or_default().min(RETRY_AFTER_MAX));
        effects.push(Effect::RetryAt(now + pause));
    }

    fn fail(&mut self, error: AgentError, effects: &mut Vec<Effect>) {
        self.phase = Phase::Failed;
        effects.push(Effect::Fail(error));
    }

    fn received(&mut self, message: Message, now: Duration, effects: &mut Vec<Effect>) {
        match (self.phase, message) {
            (Phase::Greeting, Message::Welcome(welcome)) => self.welcome(welcome, effects),
            (Phase::Live | Phase::Leaving, Message::Acknowledge(acknowledge)) => {
                self.acknowledge(&acknowledge.positions, effects)
            }
            (Phase::Greeting | Phase::Live | Phase::Leaving, message) => self.other(message, now, effects),
            (Phase::Offline | Phase::Connecting | Phase::Failed | Phase::Closed, _) => {}
        }
    }

    fn other(&mut self, message: Message, now: Duration, effects: &mut Vec<Effect>) {
        match message {
            Message::Throttle(Throttle { delay_ms, text, .. }) => effects.push(Effect::Throttled { delay_ms, text }),
            Message::Mark(mark) if mark.request => effects.push(Effect::Request(mark)),
            Message::Probe(probe) if probe.role == ProbeRole::Request => effects.push(Effect::Reply(probe)),
            Message::Goodbye(goodbye) => self.goodbye(goodbye, effects),
            Message::Error(error) => self.error(error, now, effects),
            unexpected @ (Message::Hello(_)
            | Message::Welcome(_)
            | Message::Declare(_)
            | Message::Batch(_)
            | Message::Media(_)
            | Message::Acknowledge(_)
            | Message::Mark(_)
            | Message::Lost(_)
            | Message::Probe(_)) => {
                let text =
                    format!("server sent {} while {:?}; is this a Tendon server?", unexpected.kind(), self.phase);
                self.error = Some(text.clone());
                effects.push(Effect::Hang(text));
            }
        }
    }

    fn welcome(&mut self, welcome: Welcome, effects: &mut Vec<Effect>) {
        if welcome.session != self.session {
            let text = format!("server welcomed session {}, not {}", welcome.session, self.session);
            self.error = Some(text.clone());
            effects.push(Effect::Hang(text));
            return;
        }
        for (stream, seen) in &self.acknowledged {
            let server = welcome
                .positions
                .iter()
                .find(|position| position.stream == *stream)
                .map_or(0, |position| position.next);
            if server < *seen {
                let (stream, acknowledged) = (*stream, *seen);
                let text = String::from("found in the server's welcome");
                return self.fail(AgentError::AcknowledgedLost { stream, acknowledged, server, text }, effects);
            }
        }
        self.advance(&welcome.positions);
        self.phase = Phase::Live;
        if self.fruitless == 0 {
            self.tries = 0;
        }
        effects.push(Effect::Resume { positions: welcome.positions, payload_bytes_max: welcome.payload_bytes_max });
    }

    /// Takes what moved forward, and says whether anything did.
    fn advance(&mut self, positions: &[Position]) -> Vec<Position> {
        let mut moved = Vec::new();
        for position in positions {
            let seen = self.acknowledged.entry(position.stream).or_default();
            if position.next > *seen {
                *seen = position.next;
                moved.push(*position);
            }
        }
        moved
    }

    fn acknowledge(&mut self, positions: &[Position], effects: &mut Vec<Effect>) {
        let moved = self.advance(positions);
        if moved.is_empty() {
            return;
        }
        self.progress = true;
        self.fruitless = 0;
        self.tries = 0;
        for position in &moved {
            if self.gaps.get(&position.stream).is_some_and(|gap| position.next > gap.from) {
                self.gaps.remove(&position.stream);
            }
        }
        effects.push(Effect::Forget(moved));
    }

    fn goodbye(&mut self, goodbye: Goodbye, effects: &mut Vec<Effect>) {
        let text = goodbye.text;
        match goodbye.reason {
            GoodbyeReason::Fenced => self.fail(AgentError::Fenced { text }, effects),
            GoodbyeReason::SessionEnded => self.fail(AgentError::SessionEnded { text }, effects),
            GoodbyeReason::ServerStops | GoodbyeReason::Done => {
                effects.push(Effect::Hang(format!("server said goodbye: {text}")))
            }
        }
    }

    fn error(&mut self, error: ErrorMessage, now: Duration, effects: &mut Vec<Effect>) {
        let ErrorMessage { code, stream, sequence, text } = error;
        match code {
            ErrorCode::AcknowledgedLost => {
                let acknowledged = self.acknowledged.get(&stream).copied().unwrap_or(0);
                self.fail(AgentError::AcknowledgedLost { stream, acknowledged, server: sequence, text }, effects);
            }
            ErrorCode::SessionEnded => self.fail(AgentError::SessionEnded { text }, effects),
            ErrorCode::UnknownSession | ErrorCode::SecondProducer | ErrorCode::Forbidden => {
                self.fail(AgentError::Server { code, text }, effects);
            }
            ErrorCode::SequenceGap => self.gap(stream, sequence, text, now, effects),
            ErrorCode::SequenceConflict
            | ErrorCode::DeclarationConflict
            | ErrorCode::WidthMismatch
            | ErrorCode::StreamNotDeclared => {
                self.stream_refused(stream, code, text, effects);
            }
            ErrorCode::TooLarge | ErrorCode::BadMessage if stream != StreamId::JOURNAL => {
                self.stream_refused(stream, code, text, effects)
            }
            // A server that cannot store now will again: what it did not acknowledge is kept, for as long as it takes.
            ErrorCode::Storage => effects.push(Effect::Report(format!("server cannot store: {text}"))),
            ErrorCode::TooLarge | ErrorCode::BadMessage | ErrorCode::BadMark => {
                let text = format!("server reported {code:?}: {text}");
                self.error = Some(text.clone());
                effects.push(Effect::Report(text));
            }
        }
    }

    fn stream_refused(&mut self, stream: StreamId, code: ErrorCode, text: String, effects: &mut Vec<Effect>) {
        // The other lanes hang on the journal; without it nothing can be declared any more.
        if stream == StreamId::JOURNAL {
            return self.fail(AgentError::Server { code, text }, effects);
        }
        effects.push(Effect::Refuse { stream, code, text });
    }

    fn gap(&mut self, stream: StreamId, from: u64, text: String, now: Duration, effects: &mut Vec<Effect>) {
        let acknowledged = self.acknowledged.get(&stream).copied().unwrap_or(0);
        if from < acknowledged {
            return self.fail(AgentError::AcknowledgedLost { stream, acknowledged, server: from, text }, effects);
        }
        if let Some(gap) = self.gaps.get_mut(&stream)
            && gap.from == from
            && now.saturating_sub(gap.answered) < GAP_PAUSE
        {
            gap.stands = true;
            return;
        }
        self.gaps.insert(stream, Gap { from, answered: now, stands: false });
        effects.push(Effect::Rewind { stream, from });
    }

    fn recheck_gaps(&mut self, now: Duration, effects: &mut Vec<Effect>) {
        for (stream, gap) in &mut self.gaps {
            if gap.stands && now.saturating_sub(gap.answered) >= GAP_PAUSE {
                *gap = Gap { from: gap.from, answered: now, stands: false };
                effects.push(Effect::Rewind { stream: *stream, from: gap.from });
            }
        }
    }

    fn ended(&mut self, text: String, now: Duration, effects: &mut Vec<Effect>) {
        match self.phase {
            Phase::Offline | Phase::Failed | Phase::Closed => return,
            // The goodbye may not have arrived, but everything was acknowledged before it.
            Phase::Leaving => {
                self.phase = Phase::Closed;
                return;
            }
            Phase::Connecting | Phase::Greeting | Phase::Live => {}
        }
        effects.push(Effect::Report(text));
        if let Some(text) = self.error.take()
            && !self.progress
        {
            self.fruitless += 1;
            if self.fruitless >= FRUITLESS_MAX {
                return self.fail(AgentError::NoProgress { times: self.fruitless, text }, effects);
            }
        }
        self.retry(now, None, effects);
    }

    fn leave(&mut self, effects: &mut Vec<Effect>) {
        match self.phase {
            Phase::Live => {
                self.phase = Phase::Leaving;
                effects.push(Effect::Farewell);
            }
            // Nothing is open, and nothing is left to send: no one to say goodbye to.
            Phase::Offline | Phase::Connecting | Phase::Greeting => {
                self.phase = Phase::Closed;
                effects.push(Effect::Hang(String::from("closed before the connection was up")));
            }
            Phase::Leaving | Phase::Failed | Phase::Closed => {}
        }
    }
}

#[cfg(test)]
mod tests;
