//! All clocks of one producer, those of earlier boots among them.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::curve::{Curve, Drift, Point, Rate, narrow, rising, scaled};
use super::{ClockEstimator, DRIFT_PPM_MAX, Mapped, ProbeSample};
use crate::control::ClockKind;
use crate::id::ClockId;

/// Clocks that are looked at; a page that is loaded again and again makes one each time.
const CLOCKS_MAX: usize = 256;
/// Corners of other clocks that are looked at on either side of a clock; those further away say no more.
const CORNERS_BESIDE: usize = 64;
/// Most that a wall clock is steered against a monotonic one before that counts as a step (adjtimex).
const STEERING: f64 = 500e-6;
/// Two clocks that are read one after the other may be so far apart, in nanoseconds.
const READING_NS: f64 = 1e6;
/// How far the rate of a wall clock against a monotonic one is off when anchors show it.
const STEADY: f64 = 5e-6;
/// The same when they do not.
const RATE_UNKNOWN: f64 = DRIFT_PPM_MAX * 1e-6;
/// Anchors that lie so far apart show how fast the wall clock ran against the other, in nanoseconds.
const RATE_FROM_NS: i128 = 30_000_000_000;

/// What is known about one clock: the fields of its stored record.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ClockFacts {
    /// The clock.
    pub clock: ClockId,
    /// What it is. Times of a replay have no relation to now, whatever its probes say.
    pub kind: ClockKind,
    /// Probes, in any order.
    #[serde(default)]
    pub probes: Vec<ProbeSample>,
    /// Moments that the producer wrote down: (its clock, its unix time), both in nanoseconds, in any order.
    #[serde(default)]
    pub anchors: Vec<(i64, i64)>,
}

/// A time of one clock on another one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Moved {
    /// Nanoseconds of the other clock.
    pub clock_ns: i64,
    /// How far off that may be, either way, in nanoseconds.
    pub uncertainty_ns: i64,
}

/// The clocks of one producer, each with its way to server time.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct ClockMap {
    clocks: BTreeMap<ClockId, Known>,
}

#[derive(Clone, Debug, PartialEq)]
struct Known {
    /// From the clock's own probes.
    own: Option<Curve>,
    wall: Option<WallLine>,
    /// From wall time to server time, through the probes of all clocks that have a wall clock.
    over_wall: Option<Curve>,
}

impl ClockMap {
    /// A map of these clocks; of two facts about the same clock both count.
    #[must_use]
    pub fn new(facts: &[ClockFacts]) -> Self {
        let mut merged: BTreeMap<ClockId, ClockFacts> = BTreeMap::new();
        for fact in facts {
            match merged.get_mut(&fact.clock) {
                Some(kept) => {
                    kept.probes.extend_from_slice(&fact.probes);
                    kept.anchors.extend_from_slice(&fact.anchors);
                }
                None => drop(merged.insert(fact.clock, fact.clone())),
            }
        }
        let mut clocks: BTreeMap<ClockId, Known> =
            merged.into_values().map(|fact| (fact.clock, Known::alone(&fact))).collect();
        let corners = wall_corners(&clocks);
        for (source, known) in clocks.values_mut().enumerate() {
            known.over_wall = known.join(source, &corners);
        }
        Self { clocks }
    }

    /// Whether the clock was ever heard of.
    #[must_use]
    pub fn contains(&self, clock: ClockId) -> bool {
        self.clocks.contains_key(&clock)
    }

    /// Where `clock_ns` of a clock lies in server time; `None` when nothing relates the two.
    #[must_use]
    pub fn to_server(&self, clock: ClockId, clock_ns: i64) -> Option<Mapped> {
        self.clocks.get(&clock)?.to_server(clock_ns)
    }

    /// Which time `from_ns` of the clock `from` is on the clock `to`; `None` when nothing relates the two.
    #[must_use]
    pub fn translate(&self, from: ClockId, to: ClockId, from_ns: i64) -> Option<Moved> {
        if from == to {
            return Some(Moved { clock_ns: from_ns, uncertainty_ns: 0 });
        }
        let (source, target) = (self.clocks.get(&from)?, self.clocks.get(&to)?);
        if let Some(there) = source.to_server(from_ns)
            && let Some((clock_ns, uncertainty)) = target.at_server(there.server_ns)
        {
            return Some(Moved { clock_ns, uncertainty_ns: there.uncertainty_ns.saturating_add(uncertainty) });
        }
        // Neither was ever asked: only the wall clock joins them.
        let (wall, there) = source.wall()?.to_wall(i128::from(from_ns));
        let (clock, back) = target.wall()?.to_clock(wall);
        Some(Moved { clock_ns: narrow(clock), uncertainty_ns: narrow((there + back + READING_NS).ceil() as i128) })
    }
}

impl Known {
    fn alone(fact: &ClockFacts) -> Self {
        let (own, wall) = match fact.kind {
            ClockKind::Boot | ClockKind::Page => {
                (ClockEstimator::from_probes(fact.probes.iter().copied()).curve(), WallLine::through(&fact.anchors))
            }
            ClockKind::Replay => (None, None),
        };
        Self { own, wall, over_wall: None }
    }

    fn wall(&self) -> Option<&WallLine> {
        self.wall.as_ref()
    }

    /// A curve over wall time through the own corners and, outside of them, those of other clocks.
    fn join(&self, source: usize, corners: &[Point]) -> Option<Curve> {
        let wall = self.wall()?;
        let mine: Vec<Point> = corners.iter().filter(|point| point.source == source).copied().collect();
        let others = corners.iter().filter(|point| point.source != source);
        let joined: Vec<Point> = match (mine.first(), mine.last(), &self.own) {
            (Some(first), Some(last), Some(_)) => {
                let before = others
                    .clone()
                    .filter(|point| point.clock < first.clock && point.server < first.server && agree(point, first));
                let after = others
                    .clone()
                    .filter(|point| point.clock > last.clock && point.server > last.server && agree(last, point));
                let (before, after) = (before.copied().collect::<Vec<_>>(), after.copied().collect::<Vec<_>>());
                if before.is_empty() && after.is_empty() {
                    return None;
                }
                let (before, after) = (rising(before), rising(after));
                let nearest = before.into_iter().rev().take(CORNERS_BESIDE).collect::<Vec<_>>().into_iter().rev();
                nearest.chain(mine.iter().copied()).chain(after.into_iter().take(CORNERS_BESIDE)).collect()
            }
            _ => {
                let all = rising(others.copied().collect());
                let end = all.partition_point(|point| point.clock <= wall.last());
                all[end.saturating_sub(CORNERS_BESIDE)..all.len().min(end + CORNERS_BESIDE)].to_vec()
            }
        };
        let drift = Drift::of(&joined, Rate::Wall);
        Curve::through(joined, drift)
    }

    fn to_server(&self, clock_ns: i64) -> Option<Mapped> {
        let clock = i128::from(clock_ns);
        if let Some(own) = &self.own {
            let (first, last) = own.span();
            if (first..=last).contains(&clock) || self.over_wall.is_none() {
                return Some(own.to_server(clock_ns));
            }
        }
        let (wall, reading) = self.wall()?.to_wall(clock);
        let (server, uncertainty) = self.over_wall.as_ref()?.map(wall);
        Some(Mapped { server_ns: narrow(server), uncertainty_ns: narrow((uncertainty + reading).ceil() as i128) })
    }

    fn at_server(&self, server_ns: i64) -> Option<(i64, i64)> {
        if let Some(own) = &self.own {
            let (first, last) = own.span();
            let (clock_ns, uncertainty) = own.to_clock(server_ns);
            if (first..=last).contains(&i128::from(clock_ns)) || self.over_wall.is_none() {
                return Some((clock_ns, uncertainty));
            }
        }
        let (wall, uncertainty) = self.over_wall.as_ref()?.to_clock(server_ns);
        let (clock, reading) = self.wall()?.to_clock(i128::from(wall));
        Some((narrow(clock), uncertainty.saturating_add(narrow(reading.ceil() as i128))))
    }
}

/// Corners of all clocks that have a wall clock, by wall time; `source` is the clock's place in the map.
fn wall_corners(clocks: &BTreeMap<ClockId, Known>) -> Vec<Point> {
    let mut corners = Vec::new();
    for (source, known) in clocks.values().enumerate().take(CLOCKS_MAX) {
        let (Some(own), Some(wall)) = (&known.own, &known.wall) else {
            continue;
        };
        corners.extend(own.points().iter().map(|point| {
            let (clock, reading) = wall.to_wall(point.clock);
            // With one anchor all wall times are those of the crystal; this uncertainty keeps its drift from being
            // taken for the wall clock's.
            Point { clock, half: point.half + reading, source, ..*point }
        }));
    }
    corners.sort_by_key(|point| point.clock);
    corners
}

/// Whether the wall clock may have run on between two corners of different clocks, without having been set.
fn agree(a: &Point, b: &Point) -> bool {
    let (wall, server) = (b.clock - a.clock, b.server - a.server);
    (server - wall).abs() as f64 <= STEERING * wall.abs() as f64 + a.half + b.half + READING_NS
}

/// Wall time over one clock, through its anchors.
#[derive(Clone, Debug, PartialEq)]
struct WallLine {
    /// (clock, wall) in nanoseconds; at least one, both rise.
    points: Vec<(i128, i128)>,
    /// Wall seconds per clock second, less 1, outside of the anchors.
    rate: f64,
    /// How far `rate` may be off.
    uncertainty: f64,
}

impl WallLine {
    fn through(anchors: &[(i64, i64)]) -> Option<Self> {
        // A wall time of 0 stands for none.
        let mut anchors: Vec<(i128, i128)> = anchors
            .iter()
            .filter(|anchor| anchor.1 != 0)
            .map(|(clock, wall)| (i128::from(*clock), i128::from(*wall)))
            .collect();
        anchors.sort_unstable();
        let mut points: Vec<(i128, i128)> = Vec::new();
        for (clock, wall) in anchors {
            if let Some((last_clock, last_wall)) = points.last().copied() {
                let (passed, by_wall) = (clock - last_clock, wall - last_wall);
                if (by_wall - passed).abs() as f64 > STEERING * passed as f64 + READING_NS {
                    // The wall clock was set, most often right: from its battery's time to the network's.
                    points.clear();
                } else if passed == 0 || by_wall <= 0 {
                    continue;
                }
            }
            points.push((clock, wall));
        }
        let (first, last) = (points.first()?, points.last()?);
        let (span, by_wall) = (last.0 - first.0, last.1 - first.1);
        let (rate, uncertainty) = if span >= RATE_FROM_NS {
            ((by_wall - span) as f64 / span as f64, READING_NS / span as f64 + STEADY)
        } else {
            (0.0, RATE_UNKNOWN)
        };
        Some(Self { points, rate, uncertainty })
    }

    /// The last wall time that was written down.
    fn last(&self) -> i128 {
        self.points.last().map_or(0, |point| point.1)
    }

    /// Wall time at a clock time, and what the lack of anchors adds to the uncertainty, in nanoseconds.
    fn to_wall(&self, clock: i128) -> (i128, f64) {
        along(&self.points, self.rate, self.uncertainty, clock, |point| *point)
    }

    fn to_clock(&self, wall: i128) -> (i128, f64) {
        along(&self.points, -self.rate / (1.0 + self.rate), self.uncertainty, wall, |point| (point.1, point.0))
    }
}

/// Follows a line of straight pieces, in the direction that `turned` gives to its points.
fn along(
    points: &[(i128, i128)],
    rate: f64,
    uncertainty: f64,
    at: i128,
    turned: fn(&(i128, i128)) -> (i128, i128),
) -> (i128, f64) {
    let after = points.partition_point(|point| turned(point).0 <= at);
    match (after.checked_sub(1).map(|before| turned(&points[before])), points.get(after).map(turned)) {
        (Some(a), Some(b)) => {
            let (gone, span) = (at - a.0, b.0 - a.0);
            let slope = ((b.1 - a.1) - span) as f64 / span as f64;
            (a.1 + gone + scaled(gone, slope), 0.0)
        }
        (Some(edge), None) | (None, Some(edge)) => {
            let distance = at - edge.0;
            (edge.1 + distance + scaled(distance, rate), uncertainty * distance.abs() as f64)
        }
        (None, None) => (at, f64::INFINITY),
    }
}
