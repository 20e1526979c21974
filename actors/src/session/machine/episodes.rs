//! Episodes of a session: marks make them, streams that pass the stop mark finish them.

use std::collections::BTreeMap;

use tendon_protocol::control::{ErrorCode, Mark, MarkAction};
use tendon_protocol::id::{ClockId, StreamId};
use tendon_storage::records::{EpisodeRecord, EpisodeState, Outcome, SessionState};

use super::streams::{StreamState, feature_of, passed};
use super::{Effect, Machine, SampleHead, refuse};

/// An episode that still needs the log.
#[derive(Debug)]
pub(super) struct OpenEpisode {
    pub(super) record: EpisodeRecord,
    /// Per stream, a sequence at or before the episode's first sample.
    from: BTreeMap<StreamId, u64>,
    phase: Phase,
}

/// Per stream that takes part, the position that must be durable; `None` while it is behind the stop mark.
type Until = BTreeMap<StreamId, Option<u64>>;

#[derive(Debug, PartialEq, Eq)]
enum Phase {
    /// Start mark seen, no stop mark.
    Open,
    /// Stop mark seen, streams on their way. Not flushed before `not_before_ns`, and with what is there at `deadline_ns`.
    Waiting { until: Until, not_before_ns: i64, deadline_ns: i64 },
    /// The flusher works on it. Streams that were missing may still complete it.
    Flushing { until: Until },
}

/// What the flusher needs to know.
#[derive(Clone, Debug, PartialEq)]
pub struct FlushOrder {
    /// The episode's record, in state `flushing`.
    pub record: EpisodeRecord,
    /// Per stream, the first sequence to read.
    pub from: BTreeMap<StreamId, u64>,
    /// Per stream, the first sequence that is not durable.
    pub to: BTreeMap<StreamId, u64>,
    /// Required streams that did not pass the stop mark in time.
    pub missing: Vec<String>,
}

impl OpenEpisode {
    pub(super) fn from(&self, stream: StreamId) -> Option<u64> {
        self.from.get(&stream).copied()
    }

    pub(super) fn is_waiting(&self) -> bool {
        matches!(self.phase, Phase::Waiting { .. })
    }

    pub(super) fn is_paused(&self) -> bool {
        self.record.state == EpisodeState::Paused
    }

    /// Whether it is stored as it is and its wait for more ends at or before `now_ns`.
    pub(super) fn is_incomplete_until(&self, now_ns: i64) -> bool {
        let is_over = matches!(self.phase, Phase::Waiting { deadline_ns, .. } if deadline_ns <= now_ns);
        self.record.state == EpisodeState::Incomplete && is_over
    }

    fn until_mut(&mut self) -> Option<&mut Until> {
        match &mut self.phase {
            Phase::Open => None,
            Phase::Waiting { until, .. } | Phase::Flushing { until } => Some(until),
        }
    }

    /// A stream that was behind the stop mark may have passed it.
    pub(super) fn saw(&mut self, head: &SampleHead, clocks: &[ClockId]) {
        if head.clock == self.record.clock && self.phase == Phase::Open {
            self.record.last_ns = self.record.last_ns.max(Some(head.last_ns));
        }
        let (clock, Some(stop_ns)) = (self.record.clock, self.record.stop_ns) else {
            return;
        };
        if let Some(until) = self.until_mut()
            && let Some(position @ None) = until.get_mut(&head.stream)
            && passed(head.clock, head.last_ns, clock, stop_ns, clocks)
        {
            *position = Some(head.first + u64::from(head.count));
        }
    }
}

impl Machine {
    /// Takes an unfinished episode from the store.
    pub(super) fn adopt(&mut self, record: EpisodeRecord, now_ns: i64) {
        let number = record.number;
        let released = |stream: StreamId| self.record.released.get(&stream).copied().unwrap_or(0);
        let streams = self.streams.keys().copied().chain([StreamId::JOURNAL]);
        let from = streams.map(|stream| (stream, released(stream))).collect();
        if !self.clocks.contains(&record.clock) {
            self.clocks.push(record.clock);
        }
        let phase = match record.state {
            EpisodeState::Recording | EpisodeState::Paused => {
                self.current = Some(number);
                Phase::Open
            }
            EpisodeState::Stopped | EpisodeState::Flushing | EpisodeState::Incomplete => self.waiting(&record, now_ns),
            EpisodeState::Stored | EpisodeState::Discarded | EpisodeState::Failed => return,
        };
        self.episodes.insert(number, OpenEpisode { record, from, phase });
    }

    pub(super) fn apply_mark(&mut self, mark: &Mark, now_ns: i64) -> Vec<Effect> {
        self.meet_clock(mark.clock);
        if mark.sequence < self.marks_applied {
            // Saved before the restart, ahead of the session's record.
            return Vec::new();
        }
        if self.record.state.has_ended() {
            return bad_mark(mark, "the session has ended");
        }
        if mark.action == MarkAction::Start {
            return self.start(mark, now_ns);
        }
        let Some(number) = self.current else {
            return bad_mark(mark, "no episode is being recorded; start one first");
        };
        let Some(open) = self.episodes.get(&number) else {
            return bad_mark(mark, "the episode is gone");
        };
        let (running, start_ns) = (open.record.mark, open.record.start_ns);
        if running != mark.episode {
            return bad_mark(mark, &format!("episode {running} is being recorded"));
        }
        if open.record.clock == mark.clock && mark.time_ns < start_ns {
            return bad_mark(mark, &format!("its time {} ns lies before the start at {start_ns} ns", mark.time_ns));
        }
        match mark.action {
            MarkAction::Start => Vec::new(),
            MarkAction::Pause => self.pause(number, mark),
            MarkAction::Resume => self.resume(number, mark),
            MarkAction::StopSuccess => self.stop(number, mark, Some(Outcome::Success), now_ns),
            MarkAction::StopFailure => self.stop(number, mark, Some(Outcome::Failure), now_ns),
            MarkAction::Discard => self.discard(number, mark),
        }
    }

    fn start(&mut self, mark: &Mark, now_ns: i64) -> Vec<Effect> {
        let mut effects = Vec::new();
        if let Some(number) = self.current {
            if self.episodes.get(&number).is_some_and(|open| open.record.mark == mark.episode) {
                return bad_mark(mark, "it was started before");
            }
            // A take that nobody stopped must not swallow the next one.
            effects.extend(bad_mark(mark, "the episode before it was never stopped; it ends where this one starts"));
            effects.extend(self.stop(number, mark, None, now_ns));
        }
        let number = self.record.episodes;
        self.record.episodes += 1;
        self.record.state = SessionState::Recording;
        let released = |stream: &StreamId| self.record.released.get(stream).copied().unwrap_or(0);
        let before = |(stream, state): (&StreamId, &StreamState)| {
            (*stream, state.sequence_before(mark.clock, mark.time_ns, released(stream)))
        };
        let mut from: BTreeMap<StreamId, u64> = self.streams.iter().map(before).collect();
        from.insert(StreamId::JOURNAL, mark.sequence);
        let record = self.new_episode(number, mark, now_ns);
        effects.push(Effect::SaveEpisode(Box::new(record.clone())));
        self.current = Some(number);
        self.episodes.insert(number, OpenEpisode { record, from, phase: Phase::Open });
        effects
    }

    fn new_episode(&self, number: u32, mark: &Mark, now_ns: i64) -> EpisodeRecord {
        EpisodeRecord {
            session: self.record.id,
            number,
            mark: mark.episode,
            state: EpisodeState::Recording,
            outcome: None,
            instruction: mark.instruction.clone(),
            annotations: Vec::new(),
            clock: mark.clock,
            start_ns: mark.time_ns,
            last_ns: None,
            stop_ns: None,
            pauses: Vec::new(),
            paused_since_ns: None,
            journal_applied: mark.sequence + 1,
            dataset: self.record.dataset.clone(),
            operator: self.record.operator.clone(),
            robot: self.record.robot.clone(),
            created_ns: now_ns,
            missing: Vec::new(),
            report: None,
            manifest: None,
            bytes: 0,
            error: None,
        }
    }

    fn pause(&mut self, number: u32, mark: &Mark) -> Vec<Effect> {
        let Some(open) = self.episodes.get_mut(&number) else {
            return Vec::new();
        };
        if open.record.paused_since_ns.is_some() {
            return bad_mark(mark, "it is paused already");
        }
        open.record.journal_applied = mark.sequence + 1;
        open.record.paused_since_ns = Some(mark.time_ns);
        open.record.state = EpisodeState::Paused;
        self.record.state = SessionState::Paused;
        vec![Effect::SaveEpisode(Box::new(open.record.clone()))]
    }

    fn resume(&mut self, number: u32, mark: &Mark) -> Vec<Effect> {
        let Some(open) = self.episodes.get_mut(&number) else {
            return Vec::new();
        };
        let Some(since_ns) = open.record.paused_since_ns.take() else {
            return bad_mark(mark, "it is not paused");
        };
        open.record.journal_applied = mark.sequence + 1;
        open.record.pauses.push((since_ns, mark.time_ns.max(since_ns)));
        open.record.state = EpisodeState::Recording;
        self.record.state = SessionState::Recording;
        vec![Effect::SaveEpisode(Box::new(open.record.clone()))]
    }

    fn stop(&mut self, number: u32, mark: &Mark, outcome: Option<Outcome>, now_ns: i64) -> Vec<Effect> {
        let clock = self.episodes.get(&number).map_or(mark.clock, |open| open.record.clock);
        let stop_ns = if clock == mark.clock { Some(mark.time_ns) } else { self.end_on(number, clock) };
        if let Some(open) = self.episodes.get_mut(&number)
            && mark.action != MarkAction::Start
        {
            // A start that ends the episode before it has not taken effect until its own episode is saved too.
            open.record.journal_applied = mark.sequence + 1;
            if !mark.instruction.is_empty() {
                open.record.instruction.clone_from(&mark.instruction);
            }
        }
        self.stop_at(number, stop_ns, outcome, now_ns)
    }

    /// Ends an open episode with its newest sample, because the session failed.
    pub(super) fn stop_where_it_stands(&mut self, number: u32, now_ns: i64) -> Vec<Effect> {
        let clock = self.episodes.get(&number).map(|open| open.record.clock);
        let stop_ns = clock.and_then(|clock| self.end_on(number, clock));
        self.stop_at(number, stop_ns, None, now_ns)
    }

    fn stop_at(&mut self, number: u32, stop_ns: Option<i64>, outcome: Option<Outcome>, now_ns: i64) -> Vec<Effect> {
        self.current = None;
        if self.record.state == SessionState::Paused {
            self.record.state = SessionState::Recording;
        }
        let Some(mut open) = self.episodes.remove(&number) else {
            return Vec::new();
        };
        let record = &mut open.record;
        let stop_ns = stop_ns.unwrap_or(record.start_ns).max(record.start_ns);
        if let Some(since_ns) = record.paused_since_ns.take() {
            record.pauses.push((since_ns, stop_ns.max(since_ns)));
        }
        record.stop_ns = Some(stop_ns);
        record.outcome = outcome;
        record.state = EpisodeState::Stopped;
        let saved = record.clone();
        open.phase = self.waiting(&saved, now_ns);
        self.episodes.insert(number, open);
        vec![Effect::SaveEpisode(Box::new(saved))]
    }

    /// Where an episode ends that no stop mark on its own clock ended: with the newest sample of that
    /// clock. A producer that was started again stamps on another one.
    fn end_on(&self, number: u32, clock: ClockId) -> Option<i64> {
        let seen = self.episodes.get(&number).and_then(|open| open.record.last_ns);
        let times = self.streams.values().filter_map(StreamState::latest);
        let newest = times.filter(|(own, _)| *own == clock).map(|(_, time_ns)| time_ns).max();
        seen.max(newest)
    }

    fn discard(&mut self, number: u32, mark: &Mark) -> Vec<Effect> {
        self.current = None;
        if self.record.state == SessionState::Paused {
            self.record.state = SessionState::Recording;
        }
        let Some(mut open) = self.episodes.remove(&number) else {
            return Vec::new();
        };
        open.record.state = EpisodeState::Discarded;
        open.record.journal_applied = mark.sequence + 1;
        vec![Effect::SaveEpisode(Box::new(open.record))]
    }

    /// Throws the open episode away without the producer's mark, and makes room. For a log that is
    /// full: the mark would have to pass through it.
    pub fn discard_now(&mut self, now_ns: i64) -> Vec<Effect> {
        let Some(mut open) = self.current.take().and_then(|number| self.episodes.remove(&number)) else {
            return Vec::new();
        };
        if self.record.state == SessionState::Paused {
            self.record.state = SessionState::Recording;
        }
        open.record.state = EpisodeState::Discarded;
        let mut effects = vec![Effect::SaveEpisode(Box::new(open.record)), Effect::SaveSession];
        effects.extend(self.make_room(now_ns));
        effects
    }

    fn waiting(&self, record: &EpisodeRecord, now_ns: i64) -> Phase {
        let deadline_ns = now_ns.saturating_add(self.settings.flush_wait_ns);
        Phase::Waiting { until: self.until(record), not_before_ns: i64::MIN, deadline_ns }
    }

    /// What must be durable before the episode is whole.
    fn until(&self, record: &EpisodeRecord) -> Until {
        let stop_ns = record.stop_ns.unwrap_or(record.start_ns);
        let position =
            |state: &StreamState| state.is_past(record.clock, stop_ns, &self.clocks).then(|| state.accepted());
        let takes_part = |state: &StreamState| state.declaration().required || state.latest().is_some();
        self.streams
            .iter()
            .filter(|(_, state)| takes_part(state))
            .map(|(stream, state)| (*stream, position(state)))
            .collect()
    }

    /// The producer has said goodbye: nothing more will come, what is accepted is all.
    pub fn producer_is_done(&mut self, now_ns: i64) -> Vec<Effect> {
        let ends: BTreeMap<StreamId, u64> =
            self.streams.iter().map(|(stream, state)| (*stream, state.accepted())).collect();
        for until in self.episodes.values_mut().filter_map(OpenEpisode::until_mut) {
            for (stream, position) in until.iter_mut() {
                // A stream that never came stays missing, goodbye or not.
                *position = position.or_else(|| ends.get(stream).copied().filter(|end| *end > 0));
            }
        }
        self.check_flushes(now_ns)
    }

    /// Starts the flush of every episode whose streams are durable past the stop mark, or whose time is up.
    pub(super) fn check_flushes(&mut self, now_ns: i64) -> Vec<Effect> {
        if !self.episodes.values().any(OpenEpisode::is_waiting) {
            return Vec::new();
        }
        let durable: BTreeMap<StreamId, u64> =
            self.streams.iter().map(|(stream, state)| (*stream, state.durable())).collect();
        // An ended session waits for no sample, but for those that were accepted.
        let ended =
            self.record.state.has_ended() && self.streams.values().all(|state| state.durable() >= state.accepted());
        let mut due = Vec::new();
        for (number, open) in &self.episodes {
            let Phase::Waiting { until, not_before_ns, deadline_ns } = &open.phase else {
                continue;
            };
            if now_ns < *not_before_ns {
                continue;
            }
            let behind = behind(until, &durable);
            let tried = open.record.state == EpisodeState::Incomplete;
            let is_whole =
                if tried { !behind.iter().any(|stream| self.is_required(*stream)) } else { behind.is_empty() };
            if is_whole || (!tried && (now_ns >= *deadline_ns || ended)) {
                due.push((*number, behind));
            }
        }
        due.into_iter().flat_map(|(number, behind)| self.order_flush(number, &behind, durable.clone())).collect()
    }

    fn is_required(&self, stream: StreamId) -> bool {
        self.streams.get(&stream).is_some_and(|state| state.declaration().required)
    }

    fn order_flush(&mut self, number: u32, behind: &[StreamId], mut to: BTreeMap<StreamId, u64>) -> Vec<Effect> {
        let missing: Vec<String> = behind
            .iter()
            .filter(|stream| self.is_required(**stream))
            .map(|stream| feature_of(&self.streams, *stream))
            .collect();
        to.insert(StreamId::JOURNAL, self.record.journal_applied);
        let Some(open) = self.episodes.get_mut(&number) else {
            return Vec::new();
        };
        let Some(until) = open.until_mut().map(std::mem::take) else {
            return Vec::new();
        };
        open.record.state = EpisodeState::Flushing;
        open.record.missing.clone_from(&missing);
        open.phase = Phase::Flushing { until };
        let order = FlushOrder { record: open.record.clone(), from: open.from.clone(), to, missing };
        vec![Effect::SaveEpisode(Box::new(open.record.clone())), Effect::Flush(Box::new(order))]
    }

    /// The flusher is done with an episode; `record` is what it made of it.
    pub fn flushed(&mut self, record: EpisodeRecord, now_ns: i64) -> Vec<Effect> {
        let number = record.number;
        let Some(mut open) = self.episodes.remove(&number) else {
            return Vec::new();
        };
        let mut effects = vec![Effect::SaveEpisode(Box::new(record.clone()))];
        let waits = record.state == EpisodeState::Incomplete && !self.record.state.has_ended();
        open.record = record;
        if waits && let Some(until) = open.until_mut().map(std::mem::take) {
            open.phase = Phase::Waiting {
                until,
                not_before_ns: i64::MIN,
                deadline_ns: now_ns.saturating_add(self.settings.incomplete_hold_ns),
            };
            self.episodes.insert(number, open);
        }
        effects.extend(self.check_flushes(now_ns));
        effects.extend(self.release(now_ns));
        effects
    }

    /// A flush failed for a reason that may pass, such as a store that is away: try again at `at_ns`.
    pub fn flush_again(&mut self, number: u32, at_ns: i64) {
        if let Some(open) = self.episodes.get_mut(&number)
            && let Some(until) = open.until_mut().map(std::mem::take)
        {
            open.record.state = EpisodeState::Stopped;
            open.phase = Phase::Waiting { until, not_before_ns: at_ns, deadline_ns: at_ns };
        }
    }
}

fn bad_mark(mark: &Mark, why: &str) -> Vec<Effect> {
    let text = format!("mark {:?} of episode {}: {why}", mark.action, mark.episode);
    vec![Effect::Refuse(refuse(ErrorCode::BadMark, StreamId::JOURNAL, mark.sequence, text))]
}

/// Streams that are not durable up to where they must be.
fn behind(until: &Until, durable: &BTreeMap<StreamId, u64>) -> Vec<StreamId> {
    let is_behind = |(stream, position): &(&StreamId, &Option<u64>)| match position {
        Some(position) => durable.get(stream).copied().unwrap_or(0) < *position,
        None => true,
    };
    until.iter().filter(is_behind).map(|(stream, _)| *stream).collect()
}
