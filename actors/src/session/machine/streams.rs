//! One stream of a session: what was accepted, what is durable, where capture times lie.

use std::collections::{BTreeMap, VecDeque};

use tendon_protocol::control::{ErrorCode, ErrorMessage, Lost};
use tendon_protocol::id::{ClockId, StreamId};
use tendon_protocol::stream::StreamDeclaration;

use super::{SampleHead, SampleShape, Verdict, refuse};

/// Distance of two checkpoints in capture time. Finer ones would only save a quarter of a second of log.
const CHECKPOINT_NS: i64 = 250_000_000;
/// Most checkpoints of a stream: with the distance above, 32 s of capture time in 2 kB.
const CHECKPOINTS_MAX: usize = 128;

/// A sequence and its capture time.
#[derive(Clone, Copy, Debug)]
struct Checkpoint {
    sequence: u64,
    time_ns: i64,
}

/// State of one stream.
#[derive(Debug)]
pub(super) struct StreamState {
    declaration: StreamDeclaration,
    shape: SampleShape,
    accepted: u64,
    durable: u64,
    /// Declared holes that durable samples have not reached yet: (first, end).
    holes: VecDeque<(u64, u64)>,
    clock: ClockId,
    latest_ns: Option<i64>,
    checkpoints: VecDeque<Checkpoint>,
    lost: u64,
}

impl StreamState {
    pub(super) fn new(declaration: StreamDeclaration) -> Self {
        let shape = if declaration.content.is_camera() {
            SampleShape::Camera(declaration.content)
        } else {
            SampleShape::Values(declaration.dtype, declaration.width())
        };
        Self {
            declaration,
            shape,
            accepted: 0,
            durable: 0,
            holes: VecDeque::new(),
            clock: ClockId::default(),
            latest_ns: None,
            checkpoints: VecDeque::new(),
            lost: 0,
        }
    }

    pub(super) fn declaration(&self) -> &StreamDeclaration {
        &self.declaration
    }

    pub(super) fn durable(&self) -> u64 {
        self.durable
    }

    pub(super) fn accepted(&self) -> u64 {
        self.accepted
    }

    pub(super) fn lost(&self) -> u64 {
        self.lost
    }

    /// Clock and time of the newest sample.
    pub(super) fn latest(&self) -> Option<(ClockId, i64)> {
        self.latest_ns.map(|time_ns| (self.clock, time_ns))
    }

    pub(super) fn resume(&mut self, next: u64, lost: u64, latest: Option<(ClockId, i64)>) {
        self.accepted = next;
        self.durable = next;
        self.lost = lost;
        if let Some((clock, time_ns)) = latest {
            self.clock = clock;
            self.latest_ns = Some(time_ns);
        }
    }

    /// A lost message in the log reaches to `next`, where no sample is.
    pub(super) fn skip_to(&mut self, next: u64) {
        self.accepted = self.accepted.max(next);
        self.durable = self.durable.max(next);
    }

    pub(super) fn rewind(&mut self, durable: u64) {
        self.durable = self.durable.max(durable);
        self.accepted = self.durable;
        self.holes.clear();
        let accepted = self.accepted;
        self.checkpoints.retain(|checkpoint| checkpoint.sequence < accepted);
    }

    pub(super) fn accept(&mut self, head: &SampleHead, mark_lag_ns: i64) -> Verdict {
        let end = head.first + u64::from(head.count);
        if head.shape != self.shape {
            let text = format!(
                "stream {} ({}) was declared as {:?}, samples {} to {} come as {:?}; send what was declared",
                head.stream,
                self.declaration.feature,
                self.shape,
                head.first,
                end - 1,
                head.shape
            );
            return Verdict::Refuse(refuse(ErrorCode::WidthMismatch, head.stream, head.first, text));
        }
        if end <= self.accepted {
            return Verdict::Duplicate;
        }
        if head.first != self.accepted {
            let text = if head.first > self.accepted {
                let last = head.first - 1;
                format!(
                    "samples {} to {last} of stream {} are missing; send them, or declare them lost",
                    self.accepted, head.stream
                )
            } else {
                format!("samples {} to {} begin inside what is stored; begin at {}", head.first, end - 1, self.accepted)
            };
            return Verdict::Refuse(refuse(ErrorCode::SequenceGap, head.stream, self.accepted, text));
        }
        self.accepted = end;
        self.note_times(head, mark_lag_ns);
        Verdict::Keep
    }

    fn note_times(&mut self, head: &SampleHead, mark_lag_ns: i64) {
        if self.clock != head.clock || self.latest_ns.is_none() {
            self.clock = head.clock;
            self.latest_ns = None;
            self.checkpoints.clear();
        }
        // The newest sample, not the largest time: one wild stamp must not say for ever that a stop mark is passed.
        self.latest_ns = Some(head.last_ns);
        // A long lag gets a coarser grid, so that the checkpoints always reach back over it.
        let distance_ns = CHECKPOINT_NS.max(mark_lag_ns / 100);
        let is_far = |last: &Checkpoint| head.first_ns.saturating_sub(last.time_ns).saturating_abs() >= distance_ns;
        if self.checkpoints.back().is_none_or(is_far) {
            self.checkpoints.push_back(Checkpoint { sequence: head.first, time_ns: head.first_ns });
        }
        // One checkpoint older than the lag stays: what lies before it can be released.
        let old_ns = head.last_ns.saturating_sub(mark_lag_ns);
        while self.checkpoints.len() > CHECKPOINTS_MAX
            || self.checkpoints.get(1).is_some_and(|second| second.time_ns <= old_ns)
        {
            self.checkpoints.pop_front();
        }
    }

    pub(super) fn accept_lost(&mut self, lost: &Lost) -> Result<(), ErrorMessage> {
        if lost.first != self.accepted {
            let text = format!(
                "samples {} to {} of stream {} are declared lost, but {} is the next one expected; declare exactly what is missing",
                lost.first, lost.last, lost.stream, self.accepted
            );
            return Err(refuse(ErrorCode::SequenceGap, lost.stream, self.accepted, text));
        }
        self.accepted = lost.last + 1;
        Ok(())
    }

    pub(super) fn lost_is_durable(&mut self, lost: &Lost) {
        self.lost += lost.last - lost.first + 1;
        self.holes.push_back((lost.first, lost.last + 1));
        self.close_holes();
    }

    pub(super) fn set_durable(&mut self, next: u64) {
        self.durable = self.durable.max(next);
        self.accepted = self.accepted.max(self.durable);
        self.close_holes();
    }

    fn close_holes(&mut self) {
        while let Some((first, end)) = self.holes.front().copied() {
            if first > self.durable {
                break;
            }
            self.durable = self.durable.max(end);
            self.holes.pop_front();
        }
    }

    /// A sequence at or before the first sample that was captured at `time_ns` or later.
    pub(super) fn sequence_before(&self, clock: ClockId, time_ns: i64, released: u64) -> u64 {
        if self.latest_ns.is_none() {
            return self.accepted.max(released);
        }
        if clock != self.clock {
            return released;
        }
        let found = self.checkpoints.iter().rev().find(|checkpoint| checkpoint.time_ns <= time_ns);
        found.map_or(released, |checkpoint| checkpoint.sequence).max(released)
    }

    /// Up to where no start mark can reach back any more.
    pub(super) fn releasable(&self) -> u64 {
        self.checkpoints.front().map_or(0, |oldest| oldest.sequence.min(self.durable))
    }

    /// Whether the newest sample lies at or past `time_ns`.
    pub(super) fn is_past(&self, clock: ClockId, time_ns: i64, clocks: &[ClockId]) -> bool {
        self.latest().is_some_and(|(own, latest_ns)| passed(own, latest_ns, clock, time_ns, clocks))
    }
}

/// Whether a moment on `own` is at or past `time_ns` on `clock`. A clock that appeared later is of a later boot.
pub(super) fn passed(own: ClockId, own_ns: i64, clock: ClockId, time_ns: i64, clocks: &[ClockId]) -> bool {
    if own == clock {
        return own_ns >= time_ns;
    }
    let place = |id: ClockId| clocks.iter().position(|known| *known == id);
    match (place(own), place(clock)) {
        (Some(own), Some(other)) => own > other,
        (Some(_), None) => true,
        (None, _) => false,
    }
}

/// What people call a stream.
pub(super) fn feature_of(streams: &BTreeMap<StreamId, StreamState>, stream: StreamId) -> String {
    streams.get(&stream).map_or_else(|| format!("stream {stream}"), |state| state.declaration.feature.clone())
}
