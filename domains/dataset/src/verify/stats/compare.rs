//! Statistics against the data they were made from.

use std::collections::BTreeMap;

use super::super::code::Code;
use super::super::findings::Findings;
use super::super::rows::Rows;
use super::super::{Place, Subject};
use super::{Stat, judge};

/// Share of a range by which a figure may differ: float32 sums and sampled quantiles.
const SLACK: f64 = 1e-3;

/// min, max, mean, std and count of every feature of numbers.
pub(super) fn with_data(
    subject: &Subject,
    stats: &BTreeMap<String, Stat>,
    rows: &Rows,
    path: &str,
    findings: &mut Findings,
) {
    figures(subject, stats, rows, path, &["min", "max", "mean", "std"], findings);
    for (key, stat) in stats {
        let mut features = subject.info.features.iter();
        if !rows.moments.contains_key(key) || features.any(|feature| feature.key == *key && judge::is_folded(feature)) {
            continue;
        }
        let count = stat.get("count").and_then(|count| count.first());
        #[expect(clippy::cast_precision_loss, reason = "rows of a dataset are far below 2^53")]
        let found = rows.count as f64;
        if let Some(count) = count.filter(|count| **count != found) {
            findings.add(Code::StatsDisagree, Place::file(path), || {
                format!("{key}: count is {count}, the data hold {found} rows")
            });
        }
    }
}

/// min and max only, gathered from the statistics of all episodes.
pub(super) fn ranges_with_data(
    subject: &Subject,
    stats: &BTreeMap<String, Stat>,
    rows: &Rows,
    path: &str,
    findings: &mut Findings,
) {
    figures(subject, stats, rows, path, &["min", "max"], findings);
}

fn figures(
    subject: &Subject,
    stats: &BTreeMap<String, Stat>,
    rows: &Rows,
    path: &str,
    names: &[&str],
    findings: &mut Findings,
) {
    for feature in &subject.info.features {
        let (Some(stat), Some(moments)) = (stats.get(&feature.key), rows.moments.get(&feature.key)) else {
            continue;
        };
        if judge::is_folded(feature) {
            continue;
        }
        for (at, element) in moments.elements.iter().enumerate().filter(|(_, element)| element.min <= element.max) {
            let slack = SLACK * (element.max - element.min) + 1e-6 * (1.0 + element.max.abs().max(element.min.abs()));
            for name in names {
                let found = match *name {
                    "min" => element.min,
                    "max" => element.max,
                    "mean" => element.mean(),
                    _ => element.std(),
                };
                let Some(stated) = stat.get(name).and_then(|values| values.get(at)).filter(|value| value.is_finite())
                else {
                    continue;
                };
                if (stated - found).abs() > slack {
                    let key = &feature.key;
                    findings.grouped(Code::StatsDisagree, key, Place::file(path), || {
                        format!("{key}: {name} of element {at} is {stated}, the data give {found}")
                    });
                }
            }
        }
    }
}
