//! What is known about a producer's clock.

use serde::{Deserialize, Serialize};
use tendon_protocol::id::{ClockId, SessionId};

/// Most probes kept per clock: eight a minute for an hour, thinned out beyond that.
pub const PROBES_MAX: usize = 512;
/// Most anchors kept per clock.
pub const ANCHORS_MAX: usize = 64;

/// One question and answer between the server's clock and a producer's.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct StoredProbe {
    /// Server's time in the middle of the round trip, unix nanoseconds.
    pub server_ns: i64,
    /// The producer's clock in the middle of its turn, in its nanoseconds.
    pub clock_ns: i64,
    /// Time on the way, both ways together, in nanoseconds.
    pub round_trip_ns: i64,
}

/// One clock of one session: a boot with its monotonic clock, a page load or a replay.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ClockRecord {
    /// The session.
    pub session: SessionId,
    /// The clock's name.
    pub clock: ClockId,
    /// `boot`, `page` or `replay`.
    pub kind: String,
    /// Probes by server time, at most [`PROBES_MAX`].
    #[serde(default)]
    pub probes: Vec<StoredProbe>,
    /// What the producer wrote down itself: (its clock, its unix time), both in nanoseconds, by
    /// its clock, at most [`ANCHORS_MAX`]. All that is known of a boot that ended offline.
    #[serde(default)]
    pub anchors: Vec<(i64, i64)>,
}

impl ClockRecord {
    /// Adds a probe. When there are too many, of the two that are nearest in time the one with
    /// the longer round trip goes: the span in time and the best probes stay.
    pub fn add_probe(&mut self, probe: StoredProbe) {
        let place = self.probes.partition_point(|kept| kept.server_ns <= probe.server_ns);
        self.probes.insert(place, probe);
        while self.probes.len() > PROBES_MAX {
            let left = nearest_pair(&self.probes, |probe| probe.server_ns);
            let slower = usize::from(self.probes[left + 1].round_trip_ns >= self.probes[left].round_trip_ns);
            self.probes.remove(left + slower);
        }
    }

    /// Adds an anchor. When there are too many, the later of the two that are nearest in time goes.
    pub fn add_anchor(&mut self, clock_ns: i64, wall_ns: i64) {
        let place = self.anchors.partition_point(|kept| kept.0 <= clock_ns);
        self.anchors.insert(place, (clock_ns, wall_ns));
        while self.anchors.len() > ANCHORS_MAX {
            let left = nearest_pair(&self.anchors, |anchor| anchor.0);
            self.anchors.remove(left + 1);
        }
    }
}

/// Index of the first of the two neighbours that are nearest; `items` are sorted, two or more.
fn nearest_pair<T>(items: &[T], time: impl Fn(&T) -> i64) -> usize {
    let gaps = items.windows(2).map(|pair| time(&pair[1]).saturating_sub(time(&pair[0])));
    gaps.enumerate().min_by_key(|(_, gap)| *gap).map_or(0, |(index, _)| index)
}
