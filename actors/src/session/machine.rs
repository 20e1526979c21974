//! What a session decides, without socket, disk or clock.
//!
//! Read [`Machine`] first, then the methods in the order their events come: [`Machine::hello`],
//! [`Machine::declare`], [`Machine::samples`], [`Machine::journal`], [`Machine::durable`],
//! [`Machine::tick`], [`Machine::flushed`], [`Machine::end`]. Each returns what the shell must do.
//! Marks and lost messages take effect when they are durable, so that a restart that reads them
//! from the log again comes to the same state.

use std::collections::{BTreeMap, VecDeque};

use tendon_protocol::control::{ErrorCode, ErrorMessage, Hello, Lost, Mark, Position};
use tendon_protocol::id::{ClockId, StreamId};
use tendon_protocol::limit::STREAMS_MAX;
use tendon_protocol::stream::{Content, Dtype, StreamDeclaration};
use tendon_storage::records::{EpisodeRecord, SessionRecord, SessionState};

use crate::api::{End, Refusal, RefusalCode};

mod episodes;
mod streams;
#[cfg(test)]
mod tests;

pub use episodes::FlushOrder;
use episodes::OpenEpisode;
use streams::StreamState;

/// Time limits of the machine.
#[derive(Clone, Copy, Debug)]
pub struct MachineSettings {
    /// Longest wait for streams that are behind a stop mark, in nanoseconds.
    pub flush_wait_ns: i64,
    /// How far back in capture time a start mark may reach, in nanoseconds: older samples outside
    /// of episodes leave the log.
    pub mark_lag_ns: i64,
    /// How long an incomplete episode that is stored holds the log for samples that may complete it,
    /// in nanoseconds.
    pub incomplete_hold_ns: i64,
    /// Shortest time between two releases of the log, in nanoseconds. A release costs one
    /// synchronous write of the session's record.
    pub release_every_ns: i64,
}

impl Default for MachineSettings {
    fn default() -> Self {
        Self {
            flush_wait_ns: 10_000_000_000,
            mark_lag_ns: 10_000_000_000,
            incomplete_hold_ns: 600_000_000_000,
            release_every_ns: 30_000_000_000,
        }
    }
}

/// What the shell must do, in this order.
#[derive(Clone, Debug, PartialEq)]
pub enum Effect {
    /// Tell the producer.
    Refuse(ErrorMessage),
    /// Save the session's record ([`Machine::record`]), synchronously.
    SaveSession,
    /// Save this episode's record, keeping annotations that others made.
    SaveEpisode(Box<EpisodeRecord>),
    /// Write an episode to object storage, then call [`Machine::flushed`].
    Flush(Box<FlushOrder>),
    /// The log no longer needs what ends at or below these positions. Only after `SaveSession`.
    Release(Vec<(StreamId, u64)>),
    /// The log needs nothing of this session any more.
    ReleaseAll,
    /// The session has ended: say goodbye to the producer.
    CloseEnded,
}

/// The head of a batch or picture: all that decides about it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SampleHead {
    /// Its stream.
    pub stream: StreamId,
    /// First sequence.
    pub first: u64,
    /// Number of samples.
    pub count: u32,
    /// Type and width of numbers, or the coding of a picture.
    pub shape: SampleShape,
    /// The clock of the times.
    pub clock: ClockId,
    /// Capture time of the first sample.
    pub first_ns: i64,
    /// Capture time of the last sample.
    pub last_ns: i64,
}

/// What samples look like.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SampleShape {
    /// Numbers.
    Values(Dtype, u32),
    /// A picture or access unit.
    Camera(Content),
}

/// What becomes of samples.
#[derive(Clone, Debug, PartialEq)]
pub enum Verdict {
    /// New: append it.
    Keep,
    /// All of it was accepted before: compare it with what is stored.
    Duplicate,
    /// Not taken; tell the producer.
    Refuse(ErrorMessage),
}

/// An entry of the journal.
#[derive(Clone, Debug, PartialEq)]
pub enum JournalEntry {
    /// Something happens to an episode.
    Mark(Mark),
    /// Samples that will never come.
    Lost(Lost),
}

impl JournalEntry {
    /// Sequence number in the journal.
    #[must_use]
    pub const fn sequence(&self) -> u64 {
        match self {
            Self::Mark(mark) => mark.sequence,
            Self::Lost(lost) => lost.sequence,
        }
    }
}

/// What the store knew when the session's actor was (re)started.
pub struct Recovered {
    /// The session's record.
    pub record: SessionRecord,
    /// All episodes of the session, in order.
    pub episodes: Vec<EpisodeRecord>,
    /// Durable positions in the log.
    pub positions: BTreeMap<StreamId, u64>,
    /// Clock and capture time of the last durable sample of each stream.
    pub latest: BTreeMap<StreamId, (ClockId, i64)>,
    /// Journal entries that are durable and perhaps not applied.
    pub journal: Vec<JournalEntry>,
}

/// One session's state.
pub struct Machine {
    record: SessionRecord,
    settings: MachineSettings,
    streams: BTreeMap<StreamId, StreamState>,
    /// Next journal sequence to accept.
    journal_accepted: u64,
    /// Accepted entries that are not yet durable and applied.
    journal_pending: VecDeque<JournalEntry>,
    /// Clocks in the order they appeared: a later one belongs to a later boot.
    clocks: Vec<ClockId>,
    /// Episodes that still need the log, by number.
    episodes: BTreeMap<u32, OpenEpisode>,
    /// The episode that is being recorded.
    current: Option<u32>,
    released_at_ns: i64,
    /// Marks below this journal sequence are in the episodes' records already.
    marks_applied: u64,
}

fn refuse(code: ErrorCode, stream: StreamId, sequence: u64, text: impl Into<String>) -> ErrorMessage {
    ErrorMessage { code, stream, sequence, text: text.into() }
}

impl Machine {
    /// The machine of a session as the store knows it. Journal entries that were durable but not
    /// applied take effect now.
    #[must_use]
    pub fn recover(recovered: Recovered, settings: MachineSettings, now_ns: i64) -> (Self, Vec<Effect>) {
        let Recovered { record, episodes, positions, latest, journal } = recovered;
        let mut machine = Self {
            journal_accepted: 0,
            journal_pending: VecDeque::new(),
            clocks: Vec::new(),
            streams: BTreeMap::new(),
            episodes: BTreeMap::new(),
            current: None,
            released_at_ns: now_ns,
            marks_applied: 0,
            record,
            settings,
        };
        for declaration in machine.record.streams.clone() {
            machine.streams.insert(declaration.stream, StreamState::new(declaration));
        }
        for (stream, state) in &mut machine.streams {
            let saved = machine.record.positions.get(stream).copied().unwrap_or(0);
            let next = saved.max(positions.get(stream).copied().unwrap_or(0));
            let lost = machine.record.lost.get(stream).copied().unwrap_or(0);
            state.resume(next, lost, latest.get(stream).copied());
        }
        let saved = machine.record.positions.get(&StreamId::JOURNAL).copied().unwrap_or(0);
        machine.journal_accepted =
            saved.max(positions.get(&StreamId::JOURNAL).copied().unwrap_or(0)).max(machine.record.journal_applied);
        for episode in episodes {
            machine.record.episodes = machine.record.episodes.max(episode.number + 1);
            machine.marks_applied = machine.marks_applied.max(episode.journal_applied);
            machine.adopt(episode, now_ns);
        }
        machine.follow_episodes();
        for entry in journal {
            // A lost message moves its stream even when it was applied before: the log holds no sample for it.
            if let JournalEntry::Lost(lost) = &entry
                && let Some(state) = machine.streams.get_mut(&lost.stream)
            {
                state.skip_to(lost.last + 1);
            }
            if entry.sequence() >= machine.record.journal_applied {
                machine.journal_pending.push_back(entry);
            }
        }
        let journal_durable = machine.journal_accepted;
        let mut effects = machine.apply_journal(journal_durable, now_ns);
        effects.extend(machine.check_flushes(now_ns));
        (machine, effects)
    }

    /// Brings the session's state in line with its episodes, which are saved before it.
    fn follow_episodes(&mut self) {
        if self.record.state.has_ended() || self.record.episodes == 0 {
            return;
        }
        let is_paused = self.current.and_then(|number| self.episodes.get(&number)).is_some_and(OpenEpisode::is_paused);
        self.record.state = if is_paused { SessionState::Paused } else { SessionState::Recording };
    }

    /// The session's record as it should be saved.
    #[must_use]
    pub fn record(&self) -> &SessionRecord {
        &self.record
    }

    /// Number of the episode that is being recorded.
    #[must_use]
    pub fn current(&self) -> Option<u32> {
        self.current
    }

    /// Whether the shell should report durable positions at once and not with the next tick.
    #[must_use]
    pub fn wants_durable(&self) -> bool {
        !self.journal_pending.is_empty() || self.episodes.values().any(OpenEpisode::is_waiting)
    }

    /// Whether nothing is left to do for a session that has ended.
    #[must_use]
    pub fn is_finished(&self) -> bool {
        self.record.state.has_ended() && self.episodes.is_empty() && self.journal_pending.is_empty()
    }

    /// Durable positions of all streams, the journal included.
    #[must_use]
    pub fn positions(&self, journal_durable: u64) -> Vec<Position> {
        let journal = Position { stream: StreamId::JOURNAL, next: journal_durable };
        let streams = self.streams.iter().map(|(stream, state)| Position { stream: *stream, next: state.durable() });
        std::iter::once(journal).chain(streams).collect()
    }

    /// Positions that were accepted, durable or not, the journal included.
    #[must_use]
    pub fn accepted(&self) -> Vec<Position> {
        let journal = Position { stream: StreamId::JOURNAL, next: self.journal_accepted };
        let streams = self.streams.iter().map(|(stream, state)| Position { stream: *stream, next: state.accepted() });
        std::iter::once(journal).chain(streams).collect()
    }

    /// Declared streams with their lost counts, for people.
    pub fn streams(&self) -> impl Iterator<Item = (&StreamDeclaration, u64, u64)> {
        self.streams.values().map(|state| (state.declaration(), state.durable(), state.lost()))
    }

    /// A producer connects. On success the epoch has been raised: save the session, then welcome.
    ///
    /// `durable` are the positions that the log holds at this moment.
    ///
    /// # Errors
    /// The message to refuse with.
    pub fn hello(&mut self, hello: &Hello, durable: &BTreeMap<StreamId, u64>) -> Result<u64, ErrorMessage> {
        if self.record.state.has_ended() {
            let text = format!("session {} is {}; create a new session", self.record.id, self.record.state);
            return Err(refuse(ErrorCode::SessionEnded, StreamId::JOURNAL, 0, text));
        }
        if let Some(bound) = self.record.producer
            && bound != hello.producer
        {
            let text = format!(
                "session {} is fed by producer {bound}, not by {}; use one producer per session, or create a session of its own",
                self.record.id, hello.producer
            );
            return Err(refuse(ErrorCode::SecondProducer, StreamId::JOURNAL, 0, text));
        }
        for seen in &hello.positions {
            let known = if seen.stream == StreamId::JOURNAL {
                self.journal_accepted
            } else {
                self.streams.get(&seen.stream).map_or(0, StreamState::durable)
            };
            let known = known.max(durable.get(&seen.stream).copied().unwrap_or(0));
            if seen.next > known {
                let text = format!(
                    "ACKNOWLEDGED SAMPLES ARE LOST: the producer saw stream {} acknowledged below {}, the log holds it below {known}; stop recording, keep the data folder and the producer's spool, and check the disk",
                    seen.stream, seen.next
                );
                return Err(refuse(ErrorCode::AcknowledgedLost, seen.stream, known, text));
            }
        }
        self.record.producer = Some(hello.producer);
        self.record.epoch += 1;
        if !self.clocks.contains(&hello.clock) {
            self.clocks.push(hello.clock);
        }
        Ok(self.record.epoch)
    }

    /// A producer says what a stream carries.
    pub fn declare(&mut self, declaration: StreamDeclaration) -> Vec<Effect> {
        let stream = declaration.stream;
        if let Some(known) = self.streams.get(&stream) {
            if *known.declaration() == declaration {
                return Vec::new();
            }
            let text = format!(
                "stream {stream} was declared as {:?} and comes now as {:?}; a stream never changes, number a new one",
                known.declaration(),
                declaration
            );
            return vec![Effect::Refuse(refuse(ErrorCode::DeclarationConflict, stream, 0, text))];
        }
        if let Some(other) = self.record.streams.iter().find(|other| other.feature == declaration.feature) {
            let text = format!(
                "feature {:?} is already carried by stream {}; names must be unique",
                declaration.feature, other.stream
            );
            return vec![Effect::Refuse(refuse(ErrorCode::DeclarationConflict, stream, 0, text))];
        }
        if self.streams.len() >= STREAMS_MAX {
            let text = format!("{} streams are declared already; at most {STREAMS_MAX}", self.streams.len());
            return vec![Effect::Refuse(refuse(ErrorCode::TooLarge, stream, 0, text))];
        }
        self.record.streams.push(declaration.clone());
        self.streams.insert(stream, StreamState::new(declaration));
        vec![Effect::SaveSession]
    }

    /// Samples arrive. This is the hot path: no allocation unless something is refused.
    pub fn samples(&mut self, head: &SampleHead) -> Verdict {
        if self.record.state.has_ended() {
            let text = format!("session {} is {}; create a new session", self.record.id, self.record.state);
            return Verdict::Refuse(refuse(ErrorCode::SessionEnded, head.stream, head.first, text));
        }
        let Some(stream) = self.streams.get_mut(&head.stream) else {
            let text = format!("stream {} was not declared; send its declaration after the welcome", head.stream);
            return Verdict::Refuse(refuse(ErrorCode::StreamNotDeclared, head.stream, head.first, text));
        };
        let verdict = stream.accept(head, self.settings.mark_lag_ns);
        if verdict == Verdict::Keep {
            for episode in self.episodes.values_mut() {
                episode.saw(head, &self.clocks);
            }
        }
        verdict
    }

    /// A journal entry arrives. What it means takes effect once it is durable.
    pub fn journal(&mut self, entry: JournalEntry) -> Verdict {
        let sequence = entry.sequence();
        if self.record.state.has_ended() {
            let text = format!("session {} is {}; create a new session", self.record.id, self.record.state);
            return Verdict::Refuse(refuse(ErrorCode::SessionEnded, StreamId::JOURNAL, sequence, text));
        }
        if sequence < self.journal_accepted {
            return Verdict::Duplicate;
        }
        if sequence > self.journal_accepted {
            let text = format!("journal entry {sequence} came, {} is next; send from there", self.journal_accepted);
            return Verdict::Refuse(refuse(ErrorCode::SequenceGap, StreamId::JOURNAL, self.journal_accepted, text));
        }
        // A journal entry that the producer cannot read any more stands for itself.
        let is_own = |lost: &Lost| lost.stream == StreamId::JOURNAL && (lost.first, lost.last) == (sequence, sequence);
        if let JournalEntry::Lost(lost) = &entry
            && !is_own(lost)
        {
            let Some(stream) = self.streams.get_mut(&lost.stream) else {
                let text = format!("lost samples of stream {}, which was not declared", lost.stream);
                return Verdict::Refuse(refuse(ErrorCode::StreamNotDeclared, lost.stream, sequence, text));
            };
            if let Err(error) = stream.accept_lost(lost) {
                return Verdict::Refuse(error);
            }
        }
        self.journal_accepted += 1;
        self.journal_pending.push_back(entry);
        Verdict::Keep
    }

    /// The log's durable positions moved.
    pub fn durable(&mut self, positions: &BTreeMap<StreamId, u64>, now_ns: i64) -> Vec<Effect> {
        for (stream, next) in positions {
            if let Some(state) = self.streams.get_mut(stream) {
                state.set_durable(*next);
            }
        }
        let journal = positions.get(&StreamId::JOURNAL).copied().unwrap_or(0);
        let mut effects = self.apply_journal(journal, now_ns);
        effects.extend(self.check_flushes(now_ns));
        effects
    }

    /// The log failed to store what was accepted: go back to what is durable. The shell closes the
    /// connection, so that the producer sends again.
    pub fn rewind(&mut self, positions: &BTreeMap<StreamId, u64>) {
        let journal = positions.get(&StreamId::JOURNAL).copied().unwrap_or(0).max(self.record.journal_applied);
        self.journal_accepted = journal;
        self.journal_pending.retain(|entry| entry.sequence() < journal);
        for (stream, state) in &mut self.streams {
            state.rewind(positions.get(stream).copied().unwrap_or(0));
        }
        for entry in &self.journal_pending {
            if let JournalEntry::Lost(lost) = entry
                && let Some(state) = self.streams.get_mut(&lost.stream)
            {
                state.skip_to(lost.last + 1);
            }
        }
    }

    fn apply_journal(&mut self, durable: u64, now_ns: i64) -> Vec<Effect> {
        let mut effects = Vec::new();
        while self.journal_pending.front().is_some_and(|entry| entry.sequence() < durable) {
            let Some(entry) = self.journal_pending.pop_front() else {
                break;
            };
            self.record.journal_applied = entry.sequence() + 1;
            match entry {
                JournalEntry::Mark(mark) => effects.extend(self.apply_mark(&mark, now_ns)),
                JournalEntry::Lost(lost) => {
                    if let Some(state) = self.streams.get_mut(&lost.stream) {
                        state.lost_is_durable(&lost);
                        *self.record.lost.entry(lost.stream).or_default() += lost.last - lost.first + 1;
                    }
                }
            }
        }
        if !effects.is_empty() {
            // After the episode's record: a crash between the two applies the mark again, to the same end.
            effects.push(Effect::SaveSession);
        }
        effects
    }

    /// Time passes.
    pub fn tick(&mut self, now_ns: i64) -> Vec<Effect> {
        let mut effects = self.check_flushes(now_ns);
        if now_ns - self.released_at_ns >= self.settings.release_every_ns {
            effects.extend(self.release(now_ns));
        }
        effects
    }

    /// What the log may forget now.
    fn release(&mut self, now_ns: i64) -> Vec<Effect> {
        self.release_up_to(StreamState::releasable, now_ns)
    }

    /// Much has been written since the last release: the log takes used segments again rather than new ones.
    pub fn release_now(&mut self, now_ns: i64) -> Vec<Effect> {
        self.release(now_ns)
    }

    /// The log is full: what lies outside of episodes is no longer kept for a start mark that comes late.
    pub fn make_room(&mut self, now_ns: i64) -> Vec<Effect> {
        self.give_up_incomplete(i64::MAX);
        self.release_up_to(StreamState::durable, now_ns)
    }

    /// Releases what no episode needs, up to `free` of each stream.
    fn release_up_to(&mut self, free: fn(&StreamState) -> u64, now_ns: i64) -> Vec<Effect> {
        self.released_at_ns = now_ns;
        // Nothing more will come to a session that has ended.
        self.give_up_incomplete(if self.record.state.has_ended() { i64::MAX } else { now_ns });
        if self.is_finished() {
            self.save_positions();
            return vec![Effect::SaveSession, Effect::ReleaseAll];
        }
        let mut below = Vec::new();
        for (stream, state) in &self.streams {
            let held = self.episodes.values().filter_map(|episode| episode.from(*stream)).min();
            let free = free(state);
            below.push((*stream, held.map_or(free, |held| held.min(free))));
        }
        let held = self.episodes.values().filter_map(|episode| episode.from(StreamId::JOURNAL)).min();
        let free = self.record.journal_applied;
        below.push((StreamId::JOURNAL, held.map_or(free, |held| held.min(free))));
        below.retain(|(stream, next)| *next > self.record.released.get(stream).copied().unwrap_or(0));
        if below.is_empty() {
            return Vec::new();
        }
        for (stream, next) in &below {
            self.record.released.insert(*stream, *next);
        }
        self.save_positions();
        vec![Effect::SaveSession, Effect::Release(below)]
    }

    /// Incomplete episodes whose time is up at `now_ns` hold the log no longer: what there was is stored.
    fn give_up_incomplete(&mut self, now_ns: i64) {
        self.episodes.retain(|_, open| !open.is_incomplete_until(now_ns));
    }

    /// Puts a clock that was never heard of before the present one: it can only be of an earlier boot.
    fn meet_clock(&mut self, clock: ClockId) {
        if !self.clocks.contains(&clock) {
            let place = self.clocks.len().saturating_sub(1);
            self.clocks.insert(place, clock);
        }
    }

    fn save_positions(&mut self) {
        for (stream, state) in &self.streams {
            self.record.positions.insert(*stream, state.durable());
        }
        let applied = self.record.journal_applied;
        self.record.positions.insert(StreamId::JOURNAL, applied);
    }

    /// Samples came again and were the same.
    pub fn note_duplicates(&mut self, removed: u64) -> Vec<Effect> {
        self.record.duplicates_removed += removed;
        Vec::new()
    }

    /// Somebody ends the session.
    ///
    /// # Errors
    /// When it has ended, or completes with an episode open.
    pub fn end(&mut self, end: &End, now_ns: i64) -> Result<Vec<Effect>, Refusal> {
        if self.record.state.has_ended() {
            let text = format!("session {} is {} already", self.record.id, self.record.state);
            return Err(Refusal::new(RefusalCode::WrongState, text));
        }
        let mut effects = Vec::new();
        match (end, self.current) {
            (End::Completed, Some(number)) => {
                let text =
                    format!("episode {number} is still being recorded; stop or discard it, then complete the session");
                return Err(Refusal::new(RefusalCode::WrongState, text));
            }
            (End::Completed, None) if !self.journal_pending.is_empty() => {
                let text = "a mark is on its way to the disk; try again in a second";
                return Err(Refusal::new(RefusalCode::Busy, text));
            }
            (End::Completed, None) => self.record.state = SessionState::Completed,
            (End::Failed(reason), open) => {
                if let Some(number) = open {
                    effects.extend(self.stop_where_it_stands(number, now_ns));
                }
                self.record.state = SessionState::Failed;
                self.record.failure = Some(reason.clone());
            }
        }
        self.record.ended_ns = Some(now_ns);
        self.save_positions();
        effects.push(Effect::SaveSession);
        effects.push(Effect::CloseEnded);
        effects.extend(self.check_flushes(now_ns));
        if self.is_finished() {
            effects.extend(self.release(now_ns));
        }
        Ok(effects)
    }
}
