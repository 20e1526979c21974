//! Smallest, largest, mean and spread of every element of a feature, and full-turn jumps.

use super::super::code::Code;
use super::super::findings::Findings;
use super::super::{Place, Subject};
use super::Rows;
use crate::lerobot::reader::cells::Cells;
use crate::lerobot::reader::raw_info::WIDTH_MAX;

/// Elements of a feature that are followed; wider features (maps, embeddings) are followed in part.
const ELEMENTS_MAX: usize = 4096;
/// Full turns that encoders and angles make: radians, degrees, ticks of 12 bits.
const TURNS: [f64; 3] = [std::f64::consts::TAU, 360.0, 4096.0];
/// Both ends of a wrap lie within this share of a turn from the limits.
const EDGE: f64 = 0.02;
/// Elements that a message names.
const NAMED_MAX: usize = 12;

/// Running figures of one element.
#[derive(Clone, Copy, Debug)]
pub(in super::super) struct Moment {
    pub min: f64,
    pub max: f64,
    count: f64,
    mean: f64,
    squares: f64,
    previous: f64,
}

impl Moment {
    const EMPTY: Self =
        Self { min: f64::INFINITY, max: f64::NEG_INFINITY, count: 0.0, mean: 0.0, squares: 0.0, previous: f64::NAN };

    /// Mean of all finite values.
    pub fn mean(&self) -> f64 {
        self.mean
    }

    /// Standard deviation, population form.
    pub fn std(&self) -> f64 {
        (self.squares / self.count.max(1.0)).max(0.0).sqrt()
    }

    fn add(&mut self, value: f64) {
        self.min = self.min.min(value);
        self.max = self.max.max(value);
        self.count += 1.0;
        let delta = value - self.mean;
        self.mean += delta / self.count;
        self.squares += delta * (value - self.mean);
    }

    /// The turn by which the value jumped since the row before, if it did.
    fn wrapped(&self, value: f64) -> Option<f64> {
        TURNS.into_iter().find(|turn| {
            let half = turn / 2.0;
            let (low, high) = (self.previous.min(value), self.previous.max(value));
            let edge = turn * EDGE;
            let about_zero = high > half - edge && high < half + edge && low < edge - half && low > -half - edge;
            let from_zero = high > turn - edge && high < turn + edge && low >= 0.0 && low < edge;
            about_zero || from_zero
        })
    }
}

/// Running figures of one feature.
#[derive(Clone, Debug)]
pub(in super::super) struct Moments {
    /// Element by element.
    pub elements: Vec<Moment>,
    /// Values are floats.
    pub float: bool,
}

impl Moments {
    /// Empty figures for a feature of `width` elements.
    pub(super) fn new(width: u64, float: bool) -> Self {
        let width = usize::try_from(width.min(WIDTH_MAX)).unwrap_or(0).min(ELEMENTS_MAX);
        Self { elements: vec![Moment::EMPTY; width], float }
    }

    /// Forget the row before: a new episode begins.
    pub(super) fn cut(&mut self) {
        for element in &mut self.elements {
            element.previous = f64::NAN;
        }
    }

    /// Take one row. Gives the first element that is not finite, and the first that wrapped.
    pub(super) fn add(&mut self, cells: &Cells, row: usize) -> (Option<usize>, Option<(usize, f64, f64)>) {
        let (mut bad, mut wrap) = (None, None);
        let start = cells.bounds[row];
        for at in 0..cells.width(row) {
            let value = cells.float(start + at);
            if !value.is_finite() {
                bad = bad.or(Some(at));
                continue;
            }
            let Some(element) = self.elements.get_mut(at) else {
                continue;
            };
            if self.float && wrap.is_none() && element.wrapped(value).is_some() {
                wrap = Some((at, element.previous, value));
            }
            element.add(value);
            element.previous = value;
        }
        (bad, wrap)
    }
}

/// Name the elements of actions and observations that never change.
pub(super) fn constant(subject: &Subject, rows: &Rows, findings: &mut Findings) {
    for feature in &subject.info.features {
        let key = &feature.key;
        let Some(moments) = rows.moments.get(key) else { continue };
        if rows.count < 2 || !moments.float || !(key.starts_with("action") || key.starts_with("observation")) {
            continue;
        }
        let same: Vec<usize> =
            (0..moments.elements.len()).filter(|at| moments.elements[*at].min >= moments.elements[*at].max).collect();
        if !same.is_empty() {
            let list = named(&same, feature.names.flat());
            let all = moments.elements.len();
            findings.grouped(Code::ConstantDimension, key, Place::file("data"), || {
                format!("{key}: {} of {all} elements never change: {list}", same.len())
            });
        }
    }
}

/// Elements by name, or by number where there are no names.
pub(in super::super) fn named(elements: &[usize], names: &[String]) -> String {
    let mut list: Vec<String> =
        elements.iter().take(NAMED_MAX).map(|at| names.get(*at).cloned().unwrap_or_else(|| at.to_string())).collect();
    if elements.len() > NAMED_MAX {
        list.push("...".into());
    }
    list.join(", ")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn after(previous: f64) -> Moment {
        Moment { previous, ..Moment::EMPTY }
    }

    #[test]
    fn a_full_turn_is_a_wrap_and_fast_motion_is_not() {
        assert_eq!(after(3.1).wrapped(-3.12), Some(TURNS[0]));
        assert_eq!(after(-179.0).wrapped(178.5), Some(360.0));
        assert_eq!(after(4095.0).wrapped(0.0), Some(4096.0));
        assert_eq!(after(0.0).wrapped(1.0), None);
        assert_eq!(after(-90.0).wrapped(90.0), None);
        assert_eq!(after(-3.0).wrapped(3.0), None, "a hand that closes, not an angle");
        assert_eq!(after(f64::NAN).wrapped(6.27), None);
    }

    #[test]
    fn moments_agree_with_the_textbook() {
        let mut moment = Moment::EMPTY;
        for value in [2.0, 4.0, 4.0, 4.0, 5.0, 5.0, 7.0, 9.0] {
            moment.add(value);
        }
        assert_eq!((moment.min, moment.max, moment.mean()), (2.0, 9.0, 5.0));
        assert!((moment.std() - 2.0).abs() < 1e-12);
    }
}
