//! One feature's statistics: shape, order, range.

use serde_json::Value;

use super::super::Place;
use super::super::code::Code;
use super::super::findings::Findings;
use super::super::rows::named;
use super::{BASIC, QUANTILES, spreadless};
use crate::lerobot::reader::raw_info::RawFeature;

/// Most numbers kept of one statistic.
const NUMBERS_MAX: usize = 1 << 16;
/// Statistics that must rise.
const RISING: [&str; 7] = ["min", "q01", "q10", "q50", "q90", "q99", "max"];

/// The statistics of one feature, flat; null, NaN and text are NaN.
#[derive(Clone, Debug, Default)]
pub(in super::super) struct Stat {
    values: Vec<(&'static str, Vec<f64>, usize)>,
}

impl Stat {
    pub(super) fn new(value: &Value) -> Self {
        let values = BASIC.into_iter().chain(QUANTILES).filter_map(|name| {
            let value = value.get(name)?;
            let mut flat = Vec::new();
            flatten(value, &mut flat);
            Some((name, flat, depth(value)))
        });
        Self { values: values.collect() }
    }

    pub(super) fn has(&self, name: &str) -> bool {
        self.values.iter().any(|(found, ..)| *found == name)
    }

    pub(super) fn get(&self, name: &str) -> Option<&[f64]> {
        self.values.iter().find(|(found, ..)| *found == name).map(|(_, values, _)| values.as_slice())
    }

    /// Take in another episode: smallest of the smallest, largest of the largest.
    pub(super) fn widen(&mut self, other: &Self) {
        for (name, values, _) in &mut self.values {
            let Some(others) = other.get(name) else { continue };
            for (value, other) in values.iter_mut().zip(others) {
                match *name {
                    "min" => *value = value.min(*other),
                    "max" => *value = value.max(*other),
                    _ => {}
                }
            }
        }
    }
}

fn flatten(value: &Value, flat: &mut Vec<f64>) {
    match value {
        Value::Array(items) if flat.len() < NUMBERS_MAX => items.iter().for_each(|item| flatten(item, flat)),
        Value::Array(_) => {}
        Value::Bool(value) => flat.push(f64::from(u8::from(*value))),
        other => flat.push(other.as_f64().unwrap_or(f64::NAN)),
    }
}

fn depth(value: &Value) -> usize {
    match value {
        Value::Array(items) => 1 + items.first().map_or(0, depth),
        _ => 0,
    }
}

/// Numbers that a statistic of this feature has; `None` when it cannot be told.
pub(super) fn width(feature: &RawFeature, statistic: &str) -> Option<u64> {
    if statistic == "count" {
        return Some(1);
    }
    if feature.is_video() || feature.is_image() {
        let channels = feature.shape.as_ref().filter(|shape| shape.len() == 3)?;
        let depth_map = channels.contains(&1);
        return Some(if depth_map { 1 } else { 3 });
    }
    feature.width()
}

/// Whether LeRobot folds this feature's statistics: of two sides and more it keeps only the last one,
/// except in episodes of one row.
pub(super) fn is_folded(feature: &RawFeature) -> bool {
    let sides = feature.shape.as_ref().map_or(0, Vec::len);
    !feature.is_video() && !feature.is_image() && sides > 1
}

/// Whether a statistic may have this many numbers.
pub(super) fn fits(feature: &RawFeature, statistic: &str, found: u64) -> bool {
    let last = feature.shape.as_ref().and_then(|shape| shape.last().copied());
    let folded =
        statistic != "count" && is_folded(feature) && last.is_some_and(|last| u64::try_from(last) == Ok(found));
    folded || width(feature, statistic).is_none_or(|wanted| wanted == found)
}

/// Check one feature's statistics.
pub(super) fn one(feature: &RawFeature, stat: &Stat, place: &Place, findings: &mut Findings) {
    let key = &feature.key;
    let image = feature.is_video() || feature.is_image();
    for (name, values, depth) in &stat.values {
        let wanted = width(feature, name);
        let fits = fits(feature, name, values.len() as u64);
        if !fits || *depth == 0 || (image && *name != "count" && *depth != 3) {
            findings.grouped(Code::StatsShape, key, place.clone(), || {
                format!(
                    "{key}: {name} has {} numbers in {depth} levels of lists, {} are wanted",
                    values.len(),
                    wanted.unwrap_or(0)
                )
            });
        }
        if let Some(at) = values.iter().position(|value| !value.is_finite()) {
            findings.grouped(Code::StatsNotFinite, key, place.clone(), || {
                format!("{key}: {name} is not finite in element {at}")
            });
        }
    }
    if let Some(what) = contradiction(stat).or_else(|| image.then(|| outside(stat)).flatten()) {
        findings.grouped(Code::StatsImplausible, key, place.clone(), || format!("{key}: {what}"));
    }
    let zero = spreadless(feature, stat);
    if !zero.is_empty() {
        let list = named(&zero, if image { &[] } else { feature.names.flat() });
        findings.grouped(Code::StatsZeroSpread, key, place.clone(), || format!("{key}: std 0 or q01 = q99 for {list}"));
    }
}

fn contradiction(stat: &Stat) -> Option<String> {
    let elements = stat.get("min").map_or(0, <[f64]>::len);
    let value = |name: &str, at: usize| {
        stat.get(name).and_then(|values| values.get(at)).copied().filter(|value| value.is_finite())
    };
    for at in 0..elements {
        // lerobot's histogram quantiles may lie 1e-10 outside, and float32 sums round.
        let slack = 1e-6 * (1.0 + value("min", at).unwrap_or(0.0).abs() + value("max", at).unwrap_or(0.0).abs());
        let known: Vec<(&str, f64)> = RISING.into_iter().filter_map(|name| Some((name, value(name, at)?))).collect();
        if let Some(pair) = known.windows(2).find(|pair| pair[0].1 > pair[1].1 + slack) {
            return Some(format!("{} {} is over {} {} in element {at}", pair[0].0, pair[0].1, pair[1].0, pair[1].1));
        }
        if let (Some(min), Some(mean), Some(max)) = (value("min", at), value("mean", at), value("max", at))
            && (mean < min - slack || mean > max + slack)
        {
            return Some(format!("mean {mean} is outside {min} to {max} in element {at}"));
        }
        if let Some(std) = value("std", at).filter(|std| *std < 0.0) {
            return Some(format!("std is {std} in element {at}"));
        }
    }
    None
}

fn outside(stat: &Stat) -> Option<String> {
    let largest = stat.get("max")?.iter().copied().filter(|value| value.is_finite()).fold(0.0, f64::max);
    (largest > 1.0 + 1e-6 && largest <= 255.0).then(|| format!("max is {largest}; pictures are counted from 0 to 1"))
}
