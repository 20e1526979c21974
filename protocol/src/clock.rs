//! How a producer's clock stands to the server's.
//!
//! Start with [`ProbeSample`], one question and answer. [`ClockEstimator`] keeps the best of them
//! and turns times of one clock into server time. [`ClockMap`] does so for all clocks of one
//! producer: a clock of an earlier boot, which the server never could ask, is reached over the
//! producer's wall clock. Nothing here reads a clock; all times are passed in.
//!
//! A probe that was `r` on the way says where the producer's clock stood to within `r / 2`, however
//! unequal the two ways are (RFC 5905, section 8). Only the quickest probes are used, joined by
//! straight lines, so the error stays within half of their round trip as long as the clock runs
//! evenly between them. Outside of the probes the drift that they show is carried on.
//!
//! "Server time" is one time line of the server, in nanoseconds; whoever feeds probes sees to it
//! that it does not step.

mod curve;
mod map;
#[cfg(test)]
mod tests;

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

pub use curve::Curve;
pub use map::{ClockFacts, ClockMap, Moved};

use curve::{Drift, Point, Rate};

/// Most probes that an estimator keeps: one for each window of time; windows grow with the span.
pub const PROBES_KEPT_MAX: usize = 512;
/// Longest round trip of a probe that is taken, in nanoseconds. A slower one says less than drift alone.
pub const ROUND_TRIP_NS_MAX: i64 = 2_000_000_000;
/// Most that a clock is taken to run fast or slow as long as nothing better is known, in parts per million.
pub const DRIFT_PPM_MAX: f64 = 200.0;
/// Width of the first windows, of which only the quickest probe is kept, in nanoseconds.
const WINDOW_NS: i64 = 1_000_000_000;

/// One question and answer between the server's clock and a producer's.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ProbeSample {
    /// Server's time in the middle of the exchange, in nanoseconds.
    pub server_ns: i64,
    /// Producer's clock in the middle of its turn, in its nanoseconds.
    pub clock_ns: i64,
    /// Time on the way, both ways together, in nanoseconds; never negative.
    pub round_trip_ns: i64,
}

impl ProbeSample {
    /// A sample from the four times of an exchange, in nanoseconds: the server asked at `sent`, the
    /// producer received at `received` and replied at `replied` (both on its clock), the reply was
    /// back at `returned`. `None` when time ran backwards on either side, or when the exchange took
    /// longer than [`ROUND_TRIP_NS_MAX`]: such a probe says nothing.
    #[must_use]
    pub fn from_times(sent: i64, received: i64, replied: i64, returned: i64) -> Option<Self> {
        let whole = returned.checked_sub(sent)?;
        let turn = replied.checked_sub(received)?;
        if whole < 0 || turn < 0 || whole > ROUND_TRIP_NS_MAX {
            return None;
        }
        // On a quick link a producer whose clock runs fast may seem to answer in less than no time.
        let round_trip_ns = whole.checked_sub(turn)?.max(0);
        let middle = |from: i64, span: i64| from.checked_add(span / 2);
        Some(Self { server_ns: middle(sent, whole)?, clock_ns: middle(received, turn)?, round_trip_ns })
    }

    /// Whether the sample can be used; samples from a store or a wire may hold anything.
    #[must_use]
    pub const fn is_usable(&self) -> bool {
        self.round_trip_ns >= 0 && self.round_trip_ns <= ROUND_TRIP_NS_MAX
    }
}

/// A time of a producer's clock on the server's.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Mapped {
    /// Server time in nanoseconds.
    pub server_ns: i64,
    /// How far off that may be, either way, in nanoseconds.
    pub uncertainty_ns: i64,
}

/// What is known about one clock from its probes: bounded, whatever is fed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ClockEstimator {
    window_ns: i64,
    /// Quickest probe of each window of server time.
    windows: BTreeMap<i64, ProbeSample>,
}

impl Default for ClockEstimator {
    fn default() -> Self {
        Self { window_ns: WINDOW_NS, windows: BTreeMap::new() }
    }
}

impl ClockEstimator {
    /// An estimator that has taken `probes`, in any order.
    #[must_use]
    pub fn from_probes(probes: impl IntoIterator<Item = ProbeSample>) -> Self {
        let mut estimator = Self::default();
        for probe in probes {
            estimator.add(probe);
        }
        estimator
    }

    /// Takes a probe. Of each window of time the quickest stays; windows double in width whenever
    /// there are more than [`PROBES_KEPT_MAX`], so that hours of drift stay visible.
    pub fn add(&mut self, probe: ProbeSample) {
        if !probe.is_usable() {
            return;
        }
        keep_quickest(&mut self.windows, probe, self.window_ns);
        while self.windows.len() > PROBES_KEPT_MAX {
            self.window_ns = self.window_ns.saturating_mul(2);
            let kept = std::mem::take(&mut self.windows);
            for probe in kept.into_values() {
                keep_quickest(&mut self.windows, probe, self.window_ns);
            }
        }
    }

    /// The probes that are kept, by server time; what to store to have the estimator again.
    pub fn probes(&self) -> impl Iterator<Item = &ProbeSample> {
        self.windows.values()
    }

    /// The relation to server time; `None` without a probe. Compute it once for many samples.
    #[must_use]
    pub fn curve(&self) -> Option<Curve> {
        let points = Point::choose(self.probes(), 0);
        let drift = Drift::of(&points, Rate::Crystal);
        Curve::through(points, drift)
    }

    /// Where `clock_ns` lies in server time; `None` without a probe.
    #[must_use]
    pub fn to_server(&self, clock_ns: i64) -> Option<Mapped> {
        Some(self.curve()?.to_server(clock_ns))
    }
}

fn keep_quickest(windows: &mut BTreeMap<i64, ProbeSample>, probe: ProbeSample, window_ns: i64) {
    let kept = windows.entry(probe.server_ns.div_euclid(window_ns)).or_insert(probe);
    if probe.round_trip_ns < kept.round_trip_ns {
        *kept = probe;
    }
}
