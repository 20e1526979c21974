//! From probes to a line of straight pieces, forwards and backwards, with its uncertainty.

use super::{DRIFT_PPM_MAX, Mapped, ProbeSample};

/// Shortest distance of two corners of the curve, in nanoseconds: with jitter of a few
/// milliseconds on either, a shorter piece would be a step and no slope.
const CORNER_NS: i128 = 10_000_000_000;
/// Most corners of one clock; the span is cut into so many windows when it is long.
const CORNERS_MAX: i128 = 128;
/// How far the rate of a crystal wanders within hours (temperature, steering by NTP).
const WANDER: f64 = 5e-6;
const DRIFT_MAX: f64 = DRIFT_PPM_MAX * 1e-6;
/// Spread of drift that is expected before a probe was seen. Only weighs while probes span seconds.
const DRIFT_EXPECTED: f64 = 50e-6;
/// Jitter that even the quickest probes have, in nanoseconds.
const JITTER_NS: f64 = 20_000.0;

/// What is expected of a clock's rate.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Rate {
    /// A crystal: its drift is what the probes show.
    Crystal,
    /// A wall clock: steered to run as the server's unless the probes prove otherwise.
    Wall,
}

/// A probe as a corner of the curve. Wide numbers: differences of two 64-bit times must not overflow.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Point {
    pub(super) clock: i128,
    pub(super) server: i128,
    /// Half the round trip in nanoseconds: how far `server` may be off.
    pub(super) half: f64,
    /// Which clock of the producer answered.
    pub(super) source: usize,
}

impl Point {
    /// The corners that the probes of one clock are worth, by clock time.
    pub(super) fn choose<'a>(probes: impl Iterator<Item = &'a ProbeSample>, source: usize) -> Vec<Self> {
        let mut points: Vec<Self> = probes
            .filter(|probe| probe.is_usable())
            .map(|probe| Self {
                clock: i128::from(probe.clock_ns),
                server: i128::from(probe.server_ns),
                half: probe.round_trip_ns as f64 / 2.0,
                source,
            })
            .collect();
        points.sort_by(|a, b| a.clock.cmp(&b.clock).then(a.half.total_cmp(&b.half)));
        let points = thin(points);
        // Unless drift is known a probe is worth less than its neighbour only when that one is better
        // by more than drift can spoil; once it is known, almost only the quickest remain.
        let points = without_worse(points, DRIFT_MAX);
        let drift = Drift::of(&points, Rate::Crystal);
        rising(without_worse(points, drift.uncertainty.min(DRIFT_MAX)))
    }
}

/// Of each window of time the quickest probe; no two nearer than half a window.
fn thin(points: Vec<Point>) -> Vec<Point> {
    let (Some(first), Some(last)) = (points.first(), points.last()) else {
        return points;
    };
    let begin = first.clock;
    let window = CORNER_NS.max((last.clock - begin) / CORNERS_MAX + 1);
    let mut kept: Vec<Point> = Vec::new();
    for point in points {
        match kept.last_mut() {
            Some(last)
                if (last.clock - begin) / window == (point.clock - begin) / window
                    || point.clock - last.clock < window / 2 =>
            {
                if point.half < last.half {
                    *last = point;
                }
            }
            _ => kept.push(point),
        }
    }
    kept
}

/// Leaves out each point that another one, carried there at `rate`, would replace by a better one.
fn without_worse(points: Vec<Point>, rate: f64) -> Vec<Point> {
    let worse = |index: usize, point: &Point| {
        points.iter().enumerate().any(|(other, better)| {
            let carried = better.half + rate * (better.clock - point.clock).abs() as f64;
            carried < point.half || (carried <= point.half && other < index)
        })
    };
    let kept = points.iter().enumerate().filter(|(index, point)| !worse(*index, point));
    kept.map(|(_, point)| *point).collect()
}

/// Both times rise from point to point; of two that contradict each other the quicker stays.
pub(super) fn rising(points: Vec<Point>) -> Vec<Point> {
    let mut kept: Vec<Point> = Vec::new();
    for point in points {
        while let Some(last) = kept.last()
            && (point.server <= last.server || point.clock <= last.clock)
            && point.half < last.half
        {
            kept.pop();
        }
        if kept.last().is_none_or(|last| point.server > last.server && point.clock > last.clock) {
            kept.push(point);
        }
    }
    kept
}

/// How fast a clock runs: server seconds per clock second, less 1.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Drift {
    rate: f64,
    uncertainty: f64,
}

impl Drift {
    pub(super) fn of(points: &[Point], expected: Rate) -> Self {
        let (mut low, mut high) = (f64::NEG_INFINITY, f64::INFINITY);
        for (index, a) in points.iter().enumerate() {
            for b in &points[index + 1..] {
                let span = (b.clock - a.clock) as f64;
                let slope = slope_between(a, b);
                let slack = (a.half + b.half) / span + WANDER;
                low = low.max(slope - slack);
                high = high.min(slope + slack);
            }
        }
        // The usual limit, unless the probes prove that this clock is worse.
        if low < DRIFT_MAX && high > -DRIFT_MAX {
            (low, high) = (low.max(-DRIFT_MAX), high.min(DRIFT_MAX));
        }
        let fit = Self::fit(points);
        if low > high {
            // No even rate explains the probes: the clock was steered or suspended.
            return Self { rate: fit.clamp(-DRIFT_MAX, DRIFT_MAX), uncertainty: DRIFT_MAX };
        }
        let rate = match expected {
            // A slope that is only likely must not be carried back over hours of a boot that nobody asked.
            Rate::Wall if low <= 0.0 && high >= 0.0 => 0.0,
            Rate::Wall | Rate::Crystal => fit.clamp(low, high),
        };
        Self { rate, uncertainty: (high - rate).max(rate - low) }
    }

    /// Slope of a straight line by weighted least squares; quick probes weigh more.
    fn fit(points: &[Point]) -> f64 {
        let Some(first) = points.first() else { return 0.0 };
        let quickest = points.iter().map(|point| point.half).fold(f64::INFINITY, f64::min);
        let weighed = || {
            points.iter().map(|point| {
                let time = (point.clock - first.clock) as f64;
                let offset = ((point.server - first.server) - (point.clock - first.clock)) as f64;
                (1.0 / (JITTER_NS + point.half - quickest).powi(2), time, offset)
            })
        };
        let weight: f64 = weighed().map(|(weight, ..)| weight).sum();
        let time_mean = weighed().map(|(weight, time, _)| weight * time).sum::<f64>() / weight;
        let offset_mean = weighed().map(|(weight, _, offset)| weight * offset).sum::<f64>() / weight;
        // The expectation counts as one more observation of the slope.
        let spread: f64 = weighed().map(|(weight, time, _)| weight * (time - time_mean).powi(2)).sum::<f64>()
            + DRIFT_EXPECTED.powi(-2);
        let common: f64 =
            weighed().map(|(weight, time, offset)| weight * (time - time_mean) * (offset - offset_mean)).sum();
        common / spread
    }
}

/// Slope of the straight line between two points whose clock times differ, less 1.
fn slope_between(a: &Point, b: &Point) -> f64 {
    ((b.server - a.server) - (b.clock - a.clock)) as f64 / (b.clock - a.clock) as f64
}

/// The relation of a clock to server time: straight pieces through the best probes.
#[derive(Clone, Debug, PartialEq)]
pub struct Curve {
    /// At least one; both times rise.
    points: Vec<Point>,
    drift: Drift,
}

impl Curve {
    /// A curve through `points`, which rise; `None` without one. Outside of them it goes on with `drift`.
    pub(super) fn through(points: Vec<Point>, drift: Drift) -> Option<Self> {
        (!points.is_empty()).then_some(Self { points, drift })
    }

    pub(super) fn points(&self) -> &[Point] {
        &self.points
    }

    /// First and last clock time that lie between probes.
    pub(super) fn span(&self) -> (i128, i128) {
        (self.points[0].clock, self.points[self.points.len() - 1].clock)
    }

    /// How much server time passes more than clock time, in parts per million, outside of the probes.
    #[must_use]
    pub fn drift_ppm(&self) -> f64 {
        self.drift.rate * 1e6
    }

    /// Where `clock_ns` lies in server time.
    #[must_use]
    pub fn to_server(&self, clock_ns: i64) -> Mapped {
        let (server, uncertainty) = self.map(i128::from(clock_ns));
        Mapped { server_ns: narrow(server), uncertainty_ns: narrow(uncertainty.ceil() as i128) }
    }

    /// Which time of the clock `server_ns` is, and how far off that may be, both in nanoseconds.
    #[must_use]
    pub fn to_clock(&self, server_ns: i64) -> (i64, i64) {
        let clock = self.inverse(i128::from(server_ns));
        (narrow(clock), narrow(self.map(clock).1.ceil() as i128))
    }

    pub(super) fn map(&self, clock: i128) -> (i128, f64) {
        let after = self.points.partition_point(|point| point.clock <= clock);
        let outside = |edge: &Point| {
            let distance = clock - edge.clock;
            let server = edge.server + distance + scaled(distance, self.drift.rate);
            (server, edge.half + self.drift.uncertainty * distance.abs() as f64)
        };
        match (after.checked_sub(1).map(|before| &self.points[before]), self.points.get(after)) {
            (Some(a), Some(b)) => self.between(a, b, clock),
            (Some(edge), None) | (None, Some(edge)) => outside(edge),
            (None, None) => (clock, f64::INFINITY),
        }
    }

    fn between(&self, a: &Point, b: &Point, clock: i128) -> (i128, f64) {
        let (gone, whole) = (clock - a.clock, b.clock - a.clock);
        let slope = slope_between(a, b);
        let part = gone as f64 / whole as f64;
        let wander = if a.source == b.source { WANDER } else { DRIFT_MAX };
        let nearer = gone.min(whole - gone) as f64;
        // More than drift can explain: the clock stood still or was set somewhere in between.
        let steps = ((slope - self.drift.rate).abs() - DRIFT_MAX) * whole as f64 - a.half - b.half;
        let half = a.half + (b.half - a.half) * part;
        (a.server + gone + scaled(gone, slope), half + wander * nearer + steps.max(0.0))
    }

    fn inverse(&self, server: i128) -> i128 {
        let after = self.points.partition_point(|point| point.server <= server);
        let rate = self.drift.rate;
        let outside =
            |edge: &Point| edge.clock + (server - edge.server) - scaled(server - edge.server, rate / (1.0 + rate));
        match (after.checked_sub(1).map(|before| &self.points[before]), self.points.get(after)) {
            (Some(a), Some(b)) => {
                let gone = server - a.server;
                let slope = ((b.clock - a.clock) - (b.server - a.server)) as f64 / (b.server - a.server) as f64;
                a.clock + gone + scaled(gone, slope)
            }
            (Some(edge), None) | (None, Some(edge)) => outside(edge),
            (None, None) => server,
        }
    }
}

/// `span * rate` in whole nanoseconds; a rate is small, so the product keeps its precision.
pub(super) fn scaled(span: i128, rate: f64) -> i128 {
    (span as f64 * rate).round() as i128
}

/// The nearest time that 64 bits hold.
pub(super) fn narrow(time: i128) -> i64 {
    i64::try_from(time).unwrap_or(if time < 0 { i64::MIN } else { i64::MAX })
}
