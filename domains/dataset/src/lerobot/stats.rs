//! Statistics as LeRobot wants them: min, max, mean, std, count and five quantiles per element.
//!
//! Of an episode everything is exact ([`Summary::of_runs`]). Of a dataset, min, max, mean and std are
//! exact too, and quantiles are right to 1/4096 of the range: a [`Distribution`] keeps counts in bins
//! and is merged episode by episode, so that an episode costs the same whether it is the first or the
//! thousandth. (LeRobot itself averages the episodes' quantiles, which is wrong.)

use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

pub mod picture;

/// Names of all statistics in LeRobot's order.
pub const NAMES: [&str; 10] = ["min", "max", "mean", "std", "count", "q01", "q10", "q50", "q90", "q99"];
/// The quantiles behind the last five names.
pub const QUANTILES: [f64; 5] = [0.01, 0.10, 0.50, 0.90, 0.99];
/// Most bins between the smallest and the largest value. After a doubling of the bin width half
/// remain in use, hence the 1/4096.
const BINS_MAX: i64 = 8192;
/// Finest bin width is 2 to this power; finer than any sensor.
const EXPONENT_MIN: i32 = -1000;

/// Values in rising order, each with how often it occurs. No NaN, no infinity.
pub type Runs = Vec<(f64, u64)>;

/// Sorts values into [`Runs`], leaving out those that are not finite.
#[must_use]
pub fn runs(values: impl Iterator<Item = f64>) -> Runs {
    let mut values: Vec<f64> = values.filter(|value| value.is_finite()).collect();
    values.sort_unstable_by(f64::total_cmp);
    let mut runs: Runs = Vec::new();
    for value in values {
        match runs.last_mut() {
            Some((same, count)) if *same == value => *count += 1,
            _ => runs.push((value, 1)),
        }
    }
    runs
}

/// What shape the values have in files.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Form {
    /// A list of n.
    Vector,
    /// Three channels, each in two more lists.
    Picture,
}

/// The statistics of one feature over one episode or a whole dataset. Lists have one entry per element.
#[derive(Clone, Debug, PartialEq)]
pub struct Summary {
    /// How it is nested in files.
    pub form: Form,
    /// Rows, or for pictures the frames that were looked at.
    pub count: u64,
    /// Smallest values.
    pub min: Vec<f64>,
    /// Largest values.
    pub max: Vec<f64>,
    /// Means.
    pub mean: Vec<f64>,
    /// Standard deviations of the population.
    pub std: Vec<f64>,
    /// The [`QUANTILES`], each with one entry per element.
    pub quantiles: [Vec<f64>; 5],
}

impl Summary {
    /// Exact statistics of values that are all in memory: one [`Runs`] per element. An element
    /// without any finite value has zeros.
    #[must_use]
    pub fn of_runs(form: Form, count: u64, elements: &[Runs]) -> Self {
        let mut summary = Self::empty(form, count);
        for runs in elements {
            let distribution = Distribution::of(runs);
            summary.push_moments(&distribution);
            for (list, quantile) in summary.quantiles.iter_mut().zip(QUANTILES) {
                list.push(exact_quantile(runs, distribution.count, quantile));
            }
        }
        summary
    }

    fn empty(form: Form, count: u64) -> Self {
        Self {
            form,
            count,
            min: Vec::new(),
            max: Vec::new(),
            mean: Vec::new(),
            std: Vec::new(),
            quantiles: Default::default(),
        }
    }

    fn push_moments(&mut self, distribution: &Distribution) {
        self.min.push(distribution.min);
        self.max.push(distribution.max);
        self.mean.push(distribution.mean);
        self.std.push(distribution.std());
    }

    /// The list called `name`, one of [`NAMES`] but `count`.
    #[must_use]
    pub fn list(&self, name: &str) -> Option<&[f64]> {
        Some(match name {
            "min" => &self.min,
            "max" => &self.max,
            "mean" => &self.mean,
            "std" => &self.std,
            "q01" => &self.quantiles[0],
            "q10" => &self.quantiles[1],
            "q50" => &self.quantiles[2],
            "q90" => &self.quantiles[3],
            "q99" => &self.quantiles[4],
            _ => return None,
        })
    }

    /// The entries called `names`, as in `stats.json`.
    #[must_use]
    pub fn to_json(&self, names: &[&'static str]) -> super::info::Ordered<Value> {
        let mut entries = Vec::new();
        for name in names {
            let value = match (self.list(name), self.form) {
                (None, _) => json!([self.count]),
                (Some(list), Form::Vector) => json!(list),
                (Some(list), Form::Picture) => json!(list.iter().map(|value| [[value]]).collect::<Vec<_>>()),
            };
            entries.push(((*name).to_owned(), value));
        }
        super::info::Ordered(entries)
    }
}

/// Linear between the two nearest values, as numpy's default.
fn exact_quantile(runs: &Runs, count: u64, quantile: f64) -> f64 {
    let rank = quantile * count.saturating_sub(1) as f64;
    let (below, above) = (rank.floor() as u64, rank.ceil() as u64);
    let at = |rank: u64| {
        let mut seen = 0;
        for (value, times) in runs {
            seen += times;
            if rank < seen {
                return *value;
            }
        }
        0.0
    };
    let (low, high) = (at(below), at(above));
    low + (high - low) * rank.fract()
}

/// How the values of one element are spread, in bounded memory, mergeable in any order.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Distribution {
    count: u64,
    #[serde(with = "bits")]
    min: f64,
    #[serde(with = "bits")]
    max: f64,
    #[serde(with = "bits")]
    mean: f64,
    /// Sum of squared distances from the mean.
    #[serde(with = "bits")]
    squares: f64,
    /// Bins are 2^exponent wide and begin at multiples of that, so that bins of two distributions nest.
    exponent: i32,
    /// (number of the bin, values in it), rising.
    bins: Vec<(i64, u64)>,
}

/// Floats as their bits: the text must give back the very same number.
mod bits {
    use serde::{Deserialize, Deserializer, Serializer};

    pub(super) fn serialize<S: Serializer>(value: &f64, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_u64(value.to_bits())
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<f64, D::Error> {
        u64::deserialize(deserializer).map(f64::from_bits)
    }
}

impl Distribution {
    /// The distribution of values that are all in memory.
    #[must_use]
    pub fn of(runs: &Runs) -> Self {
        let (Some((min, _)), Some((max, _))) = (runs.first(), runs.last()) else {
            return Self::default();
        };
        let (mut count, mut mean) = (0u64, 0.0);
        for (value, times) in runs {
            count += times;
            // Weighted step by step, each product by itself: a sum or distance could leave the range of f64.
            let weight = *times as f64 / count as f64;
            mean += value * weight - mean * weight;
        }
        // The steps above lose a few bits; the mean distance gives them back.
        let correction: f64 =
            runs.iter().map(|(value, times)| (value - mean) * *times as f64).sum::<f64>() / count as f64;
        let mean = if correction.is_finite() { mean + correction } else { mean }.clamp(*min, *max);
        let squares = finite(runs.iter().map(|(value, times)| (value - mean).powi(2) * *times as f64).sum());
        let exponent = exponent_for(*min, *max, EXPONENT_MIN);
        let mut bins: Vec<(i64, u64)> = Vec::new();
        for (value, times) in runs {
            push_bin(&mut bins, bin_of(*value, exponent), *times);
        }
        Self { count, min: *min, max: *max, mean, squares, exponent, bins }
    }

    /// Adds another distribution's values.
    pub fn merge(&mut self, other: &Self) {
        if other.count == 0 {
            return;
        }
        if self.count == 0 {
            *self = other.clone();
            return;
        }
        let (ours, theirs) = (self.count as f64, other.count as f64);
        let (distance, total) = (other.mean - self.mean, ours + theirs);
        self.squares = finite(self.squares + other.squares + distance.powi(2) * ours * (theirs / total));
        self.mean = if distance.is_finite() {
            self.mean + distance * (theirs / total)
        } else {
            self.mean * (ours / total) + other.mean * (theirs / total)
        };
        self.count += other.count;
        self.min = self.min.min(other.min);
        self.max = self.max.max(other.max);
        let exponent = exponent_for(self.min, self.max, self.exponent.max(other.exponent));
        let coarse = |from: &Self| {
            let steps = u32::try_from(exponent - from.exponent).unwrap_or(0).min(63);
            let mut bins = Vec::with_capacity(from.bins.len());
            for (bin, times) in &from.bins {
                push_bin(&mut bins, bin >> steps, *times);
            }
            bins
        };
        let (left, right) = (coarse(self), coarse(other));
        self.bins = Vec::with_capacity(left.len().max(right.len()));
        let (mut left, mut right) = (left.into_iter().peekable(), right.into_iter().peekable());
        while let Some((bin, times)) = match (left.peek(), right.peek()) {
            (Some(a), Some(b)) if b.0 < a.0 => right.next(),
            (Some(_), _) => left.next(),
            (None, _) => right.next(),
        } {
            push_bin(&mut self.bins, bin, times);
        }
        self.exponent = exponent;
    }

    fn std(&self) -> f64 {
        if self.count == 0 { 0.0 } else { (self.squares / self.count as f64).sqrt() }
    }

    /// Right to one bin: linear inside it, never outside min and max.
    fn quantile(&self, quantile: f64) -> f64 {
        let rank = quantile * self.count.saturating_sub(1) as f64;
        let mut before = 0;
        for (bin, times) in &self.bins {
            if rank < (before + times) as f64 {
                let inside = (rank - before as f64) / *times as f64;
                return ((*bin as f64 + inside) * power_of_two(self.exponent)).clamp(self.min, self.max);
            }
            before += times;
        }
        self.max
    }
}

fn push_bin(bins: &mut Vec<(i64, u64)>, bin: i64, times: u64) {
    match bins.last_mut() {
        Some((same, count)) if *same == bin => *count += times,
        _ => bins.push((bin, times)),
    }
}

fn bin_of(value: f64, exponent: i32) -> i64 {
    (value * power_of_two(-exponent)).floor() as i64
}

/// The smallest exponent, from `least` on, at which min and max are fewer than [`BINS_MAX`] bins
/// apart and bin numbers are exact.
fn exponent_for(min: f64, max: f64, least: i32) -> i32 {
    let largest = min.abs().max(max.abs());
    let magnitude = (largest.to_bits() >> 52) as i32 - 1023;
    let mut exponent = (magnitude - 52).max(least).max(EXPONENT_MIN);
    while bin_of(max, exponent) - bin_of(min, exponent) >= BINS_MAX {
        exponent += 1;
    }
    exponent
}

/// Exact for -1022 to 1023, which is all that [`exponent_for`] gives.
fn power_of_two(exponent: i32) -> f64 {
    f64::from_bits(u64::try_from(exponent + 1023).unwrap_or(0) << 52)
}

/// JSON has no infinity; a sum that left the range is shown as the largest number.
fn finite(value: f64) -> f64 {
    value.clamp(f64::MIN, f64::MAX)
}

/// The statistics of one feature over all episodes so far.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Running {
    form: Form,
    count: u64,
    elements: Vec<Distribution>,
}

impl Running {
    /// Nothing yet, for `elements` elements.
    #[must_use]
    pub fn new(form: Form, elements: usize) -> Self {
        Self { form, count: 0, elements: vec![Distribution::default(); elements] }
    }

    /// Adds an episode of `count` rows (or looked-at frames). Its elements are as many as ours.
    pub fn add(&mut self, count: u64, elements: &[Runs]) {
        assert_eq!(self.elements.len(), elements.len(), "an episode's element count was checked before");
        self.count += count;
        for (ours, runs) in self.elements.iter_mut().zip(elements) {
            ours.merge(&Distribution::of(runs));
        }
    }

    /// Elements per row.
    #[must_use]
    pub fn width(&self) -> usize {
        self.elements.len()
    }

    /// The statistics of everything added.
    #[must_use]
    pub fn summary(&self) -> Summary {
        let mut summary = Summary::empty(self.form, self.count);
        for distribution in &self.elements {
            summary.push_moments(distribution);
            for (list, quantile) in summary.quantiles.iter_mut().zip(QUANTILES) {
                list.push(distribution.quantile(quantile));
            }
        }
        summary
    }
}

#[cfg(test)]
mod tests;
