//! From samples of the application to numbered, encoded messages.

use std::time::Duration;

use tendon_protocol::batch::{Batch, Media, flag};
use tendon_protocol::control::{Lost, LostReason, Mark, MarkAction};
use tendon_protocol::id::StreamId;
use tendon_protocol::limit;
use tendon_protocol::message::Message;
use tendon_protocol::stream::Dtype;

use crate::config::WhenFull;
use crate::core::Core;
use crate::core::renumber::encode;
use crate::core::shelf::{Full, Pressure};
use crate::error::AgentError;
use crate::ledger::Hole;
use crate::spool::files::Head;

/// What a message costs beside its samples: envelope, heads, the ledger's entry.
const MESSAGE_OVERHEAD_BYTES: usize = 256;
/// Bytes of a payload beside its samples or picture, generously.
const PAYLOAD_HEAD_BYTES: usize = 128;

/// Samples that wait for their batch to fill.
#[derive(Debug, Default)]
pub(crate) struct OpenBatch {
    times_ns: Vec<i64>,
    flags: Vec<u8>,
    values: Vec<u8>,
    opened: Duration,
}

impl OpenBatch {
    pub fn count(&self) -> u64 {
        self.times_ns.len() as u64
    }

    fn cost(&self) -> usize {
        if self.times_ns.is_empty() { 0 } else { MESSAGE_OVERHEAD_BYTES + self.times_ns.len() * 9 + self.values.len() }
    }
}

/// What became of a sample.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Pushed {
    /// It waits in an open batch; `first` says that it opened it.
    Open { first: bool },
    /// A message is ready to be sent.
    Ready,
    /// Dropped, and counted to be declared lost.
    Dropped,
    /// There is no room; try again once something was acknowledged.
    Full,
}

impl super::Source {
    /// Throws the open batch away; gives how many samples it had.
    pub fn discard_open(&mut self, open_bytes: &mut usize) -> u64 {
        *open_bytes -= self.open.cost();
        std::mem::take(&mut self.open).times_ns.len() as u64
    }
}

impl Core {
    /// Takes one sample of numbers whose little endian bytes `fill` appends.
    pub fn push(
        &mut self,
        stream: StreamId,
        time_ns: i64,
        flags: u8,
        bytes: usize,
        fill: impl FnOnce(&mut Vec<u8>),
    ) -> Result<Pushed, AgentError> {
        self.check_sample(stream, flags, bytes)?;
        let full = self.settings.batch_samples;
        let payload_max = self.payload_bytes_max.min(limit::BATCH_BYTES_MAX) - PAYLOAD_HEAD_BYTES;
        let Some(source) = self.sources.get(&stream) else { return Err(AgentError::NotDeclared { stream }) };
        let count = source.open.times_ns.len();
        let no_more = count >= full || (count + 1) * (bytes + 9) > payload_max || (source.dropped > 0 && count > 0);
        if no_more && self.seal(stream, Pressure::Bounded).is_err() {
            return Ok(self.no_room(stream));
        }
        if !self.shelf.has_room(self.open_bytes, bytes + 9 + MESSAGE_OVERHEAD_BYTES) {
            return Ok(self.no_room(stream));
        }
        self.close_hole(stream);
        self.clock.observe(time_ns);
        let started = self.started;
        let Some(source) = self.sources.get_mut(&stream) else { return Err(AgentError::NotDeclared { stream }) };
        let before = source.open.cost();
        let first = source.open.times_ns.is_empty();
        if first {
            source.open.opened = started.elapsed();
        }
        source.open.times_ns.push(time_ns);
        source.open.flags.push(flags);
        fill(&mut source.open.values);
        let ready = source.open.times_ns.len() >= full;
        self.open_bytes += source.open.cost() - before;
        self.counters.sent += 1;
        self.counters.waiting += 1;
        if ready && self.seal(stream, Pressure::Bounded).is_ok() {
            return Ok(Pushed::Ready);
        }
        Ok(Pushed::Open { first })
    }

    fn check_sample(&self, stream: StreamId, flags: u8, bytes: usize) -> Result<(), AgentError> {
        self.check_running()?;
        let Some(source) = self.sources.get(&stream) else { return Err(AgentError::NotDeclared { stream }) };
        if let Some(error) = &source.refused {
            return Err(error.clone());
        }
        let wrong = |what: String| Err(AgentError::Sample { stream, what });
        let camera = source.declaration.content.is_camera();
        let (limit, allowed) = if camera {
            (self.payload_bytes_max - PAYLOAD_HEAD_BYTES, flag::SENT_ON_MEDIA)
        } else {
            (source.sample_bytes, flag::SENT_ON_VALUES)
        };
        if flags & !allowed != 0 {
            return wrong(format!(
                "flags {flags:#04x} hold bits that a producer may not set; allowed are {allowed:#04x}"
            ));
        }
        if camera && (bytes == 0 || bytes > limit) {
            return wrong(format!("picture of {bytes} bytes; send 1 to {limit}, lower the camera's quality or size"));
        }
        if !camera && bytes != limit {
            return wrong(format!("{bytes} bytes, its declaration asks for {limit}"));
        }
        Ok(())
    }

    fn no_room(&mut self, stream: StreamId) -> Pushed {
        match self.settings.when_full {
            WhenFull::Wait => Pushed::Full,
            WhenFull::DeclareLost => {
                if let Some(source) = self.sources.get_mut(&stream) {
                    source.dropped += 1;
                }
                Pushed::Dropped
            }
        }
    }

    /// Declares the samples lost that were dropped; the open batch in front of them must be sealed.
    fn close_hole(&mut self, stream: StreamId) {
        let dropped = self.sources.get_mut(&stream).map_or(0, |source| std::mem::take(&mut source.dropped));
        if dropped > 0 {
            let (first, last) = self.ledger.skip(stream, dropped);
            self.lose(stream, first, last, LostReason::SpoolFull);
        }
    }

    /// Takes one picture.
    pub fn push_media(&mut self, stream: StreamId, time_ns: i64, flags: u8, data: &[u8]) -> Result<Pushed, AgentError> {
        self.check_sample(stream, flags, data.len())?;
        let Some(source) = self.sources.get(&stream) else { return Err(AgentError::NotDeclared { stream }) };
        let content = source.declaration.content;
        if !content.is_camera() {
            return Err(AgentError::Sample { stream, what: String::from("it is declared as numbers; use `send`") });
        }
        if !self.shelf.has_room(self.open_bytes, data.len() + MESSAGE_OVERHEAD_BYTES) {
            return Ok(self.no_room(stream));
        }
        self.close_hole(stream);
        let clock = self.clock.id();
        let media =
            |sequence| Message::Media(Media { stream, sequence, clock, time_ns, content, flags, data: data.to_vec() });
        if self.keep(stream, 1, Pressure::Bounded, media).is_err() {
            return Ok(self.no_room(stream));
        }
        self.clock.observe(time_ns);
        self.counters.sent += 1;
        self.counters.waiting += 1;
        Ok(Pushed::Ready)
    }

    /// Makes a message of the open batch, if there is one.
    pub fn seal(&mut self, stream: StreamId, pressure: Pressure) -> Result<(), Full> {
        let clock = self.clock.id();
        let Some(source) = self.sources.get_mut(&stream) else { return Ok(()) };
        let count = source.open.times_ns.len();
        if count == 0 {
            return Ok(());
        }
        let cost = source.open.cost();
        let open = &mut source.open;
        let mut batch = Batch {
            stream,
            first: 0,
            clock,
            dtype: source.declaration.dtype,
            width: source.declaration.width(),
            times_ns: std::mem::take(&mut open.times_ns),
            flags: std::mem::take(&mut open.flags),
            values: std::mem::take(&mut open.values),
        };
        let first = self.ledger.next(stream);
        batch.first = first;
        let message = Message::Batch(batch);
        let kept = self.keep_encoded(
            stream,
            u32::try_from(count).unwrap_or(u32::MAX),
            pressure,
            encode(&message, self.settings.compress),
        );
        let (Message::Batch(mut batch), Some(source)) = (message, self.sources.get_mut(&stream)) else { return Ok(()) };
        if kept.is_ok() {
            // The memory is used again for the next batch.
            batch.times_ns.clear();
            batch.flags.clear();
            batch.values.clear();
            self.open_bytes -= cost;
        }
        source.open.times_ns = batch.times_ns;
        source.open.flags = batch.flags;
        source.open.values = batch.values;
        kept
    }

    /// Makes messages of all open batches that are older than `age`, and closes holes behind them.
    /// Gives when the next one will be.
    pub fn seal_older(&mut self, age: Duration, pressure: Pressure) -> (bool, Option<Duration>) {
        let now = self.now();
        let streams: Vec<StreamId> = self.sources.keys().copied().collect();
        let (mut sealed, mut next) = (false, None::<Duration>);
        for stream in streams {
            let Some(source) = self.sources.get(&stream) else { continue };
            if source.open.times_ns.is_empty() {
                continue;
            }
            let due = source.open.opened + age;
            if due <= now && self.seal(stream, pressure).is_ok() {
                sealed = true;
                continue;
            }
            // A batch that found no room is tried again after the same time.
            let again = if due <= now { now + age.max(Duration::from_millis(1)) } else { due };
            next = Some(next.map_or(again, |next| next.min(again)));
        }
        (sealed, next)
    }

    /// Makes messages of all open batches. Fails when one finds no room.
    pub fn seal_all(&mut self, pressure: Pressure) -> Result<(), Full> {
        for stream in self.sources.keys().copied().collect::<Vec<_>>() {
            self.seal(stream, pressure)?;
            self.close_hole(stream);
        }
        Ok(())
    }

    /// Numbers, encodes and keeps one message.
    fn keep(
        &mut self,
        stream: StreamId,
        count: u32,
        pressure: Pressure,
        message: impl FnOnce(u64) -> Message,
    ) -> Result<u64, Full> {
        let first = self.ledger.next(stream);
        self.keep_encoded(stream, count, pressure, message(first).encode())?;
        Ok(first)
    }

    fn keep_encoded(&mut self, stream: StreamId, count: u32, pressure: Pressure, bytes: Vec<u8>) -> Result<(), Full> {
        let plan = self.ledger.plan(stream);
        let clock = self.clock.id();
        let head = Head {
            order: plan.order,
            first: plan.first,
            stream,
            count: u16::try_from(count).unwrap_or(u16::MAX),
            provisional: plan.provisional,
            clock,
        };
        let length = bytes.len();
        let stored = self.shelf.put(head, bytes, pressure)?;
        self.ledger.commit(stream, plan, count, length, clock, stored);
        self.dirty = true;
        Ok(())
    }

    /// Declares samples lost.
    pub fn lose(&mut self, stream: StreamId, first: u64, last: u64, reason: LostReason) {
        let lost = |sequence| Message::Lost(Lost { sequence, stream, first, last, reason });
        if let Ok(sequence) = self.keep(StreamId::JOURNAL, 1, Pressure::Forced, lost) {
            self.ledger.hole(stream, Hole { first, last, declared: sequence, reason });
            self.counters.lost += last - first + 1;
        }
        tracing::warn!(%stream, first, last, ?reason, "samples are lost");
    }

    /// Makes a mark.
    pub fn mark(
        &mut self,
        action: MarkAction,
        episode: u64,
        time_ns: i64,
        instruction: &str,
        pressure: Pressure,
    ) -> Result<Pushed, AgentError> {
        self.check_running()?;
        if instruction.len() > limit::INSTRUCTION_BYTES_MAX {
            return Err(AgentError::InstructionTooLong { got: instruction.len(), max: limit::INSTRUCTION_BYTES_MAX });
        }
        if pressure == Pressure::Bounded
            && !self.shelf.has_room(self.open_bytes, instruction.len() + MESSAGE_OVERHEAD_BYTES)
        {
            return Ok(Pushed::Full);
        }
        let clock = self.clock.id();
        let instruction = instruction.to_owned();
        let mark =
            |sequence| Message::Mark(Mark { sequence, episode, action, request: false, clock, time_ns, instruction });
        if self.keep(StreamId::JOURNAL, 1, pressure, mark).is_err() {
            return Ok(Pushed::Full);
        }
        self.clock.observe(time_ns);
        self.episode = episode;
        Ok(Pushed::Ready)
    }

    /// Leaves out numbers that the application knows to be lost.
    pub fn declare_lost(&mut self, stream: StreamId, count: u64, reason: LostReason) -> Result<Pushed, AgentError> {
        self.check_running()?;
        if !self.sources.contains_key(&stream) {
            return Err(AgentError::NotDeclared { stream });
        }
        if count == 0 || count > u64::from(u32::MAX) {
            return Err(AgentError::Sample {
                stream,
                what: format!("{count} samples cannot be lost at once; say 1 to {}", u32::MAX),
            });
        }
        if self.seal(stream, Pressure::Bounded).is_err() {
            return Ok(Pushed::Full);
        }
        self.close_hole(stream);
        let (first, last) = self.ledger.skip(stream, count);
        self.lose(stream, first, last, reason);
        Ok(Pushed::Ready)
    }

    /// Whether elements of this type may be sent as values of the stream, and bool elements are 0 or 1.
    pub fn check_values(&self, stream: StreamId, dtype: Option<Dtype>, sample: &[u8]) -> Result<(), AgentError> {
        let Some(source) = self.sources.get(&stream) else { return Err(AgentError::NotDeclared { stream }) };
        let wrong = |what: String| Err(AgentError::Sample { stream, what });
        let declaration = &source.declaration;
        if declaration.content.is_camera() {
            return wrong(String::from("it is declared as a camera; use `send_media`"));
        }
        if dtype.is_some_and(|dtype| dtype != declaration.dtype) {
            return wrong(format!(
                "{dtype:?} elements, declared are {:?}; values are never converted",
                declaration.dtype
            ));
        }
        match sample.iter().find(|element| declaration.dtype == Dtype::Bool && **element > 1) {
            Some(element) => wrong(format!("bool element {element}; send 0 or 1")),
            None => Ok(()),
        }
    }
}
