//! Checks of `meta/stats.json`, `meta/episodes_stats.jsonl` and the statistics columns of v3.0.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::Value;

use super::code::Code;
use super::findings::Findings;
use super::rows::Rows;
use super::{Place, Subject};
use crate::lerobot::reader::file::{self, FileFault};
use crate::lerobot::reader::json::{self, Ordered};
use crate::lerobot::reader::meta::Version;
use crate::lerobot::reader::raw_info::{RawFeature, whole};
use crate::lerobot::reader::table::Table;

mod compare;
mod judge;

pub(super) use judge::Stat;

const BASIC: [&str; 5] = ["min", "max", "mean", "std", "count"];
const QUANTILES: [&str; 5] = ["q01", "q10", "q50", "q90", "q99"];

/// Check all statistics that the version has.
pub(super) fn check(subject: &Subject, rows: &Rows, findings: &mut Findings) {
    if subject.version == Version::V21 {
        per_episode(subject, rows, findings);
    } else {
        whole_dataset(subject, rows, findings);
    }
    if subject.version == Version::V30 {
        for file in subject.episodes.files.iter().filter(|file| file.fault.is_none()) {
            columns(subject, &file.path, findings);
        }
    }
}

fn whole_dataset(subject: &Subject, rows: &Rows, findings: &mut Findings) {
    let path = "meta/stats.json";
    let bytes = match file::read_text(&subject.root.join(path)) {
        Ok(bytes) => bytes,
        Err(FileFault::Missing) => {
            findings.add(Code::StatsMissing, Place::file(path), || format!("{path} is missing"));
            return;
        }
        Err(fault) => {
            findings.file(path, &fault);
            return;
        }
    };
    match json::parse::<Ordered>(&bytes) {
        Err(message) => findings.add(Code::JsonDamaged, Place::file(path), || message),
        Ok(parsed) => {
            if parsed.not_finite {
                findings.add(Code::JsonNotFinite, Place::file(path), || "NaN or Infinity in the text".into());
            }
            let stats: BTreeMap<String, Stat> =
                parsed.value.0.iter().map(|(key, value)| (key.clone(), Stat::new(value))).collect();
            features(subject, &stats, &Place::file(path), findings);
            if rows.whole {
                compare::with_data(subject, &stats, rows, path, findings);
            }
        }
    }
}

/// Statistics of v2.1: one line an episode.
fn per_episode(subject: &Subject, rows: &Rows, findings: &mut Findings) {
    let path = "meta/episodes_stats.jsonl";
    let bytes = match file::read_text(&subject.root.join(path)) {
        Ok(bytes) => bytes,
        Err(FileFault::Missing) => {
            findings.add(Code::StatsMissing, Place::file(path), || format!("{path} is missing"));
            return;
        }
        Err(fault) => {
            findings.file(path, &fault);
            return;
        }
    };
    let mut seen = BTreeSet::new();
    let mut all: BTreeMap<String, Stat> = BTreeMap::new();
    for line in json::lines(&bytes) {
        let line = match line {
            Ok(line) => line,
            Err(fault) => {
                findings.add(Code::JsonDamaged, Place::at(path, fault.number), || {
                    format!("line {}: {}", fault.number, fault.message)
                });
                continue;
            }
        };
        let episode = line.value.get("episode_index").and_then(whole).and_then(|index| u64::try_from(index).ok());
        let place = Place { file: path.into(), episode, row: Some(line.number) };
        if line.not_finite {
            findings.add(Code::JsonNotFinite, place.clone(), || format!("NaN or Infinity in line {}", line.number));
        }
        seen.extend(episode);
        let stats = line.value.get("stats").and_then(Value::as_object);
        let stats: BTreeMap<String, Stat> =
            stats.into_iter().flatten().map(|(key, value)| (key.clone(), Stat::new(value))).collect();
        features(subject, &stats, &place, findings);
        for (key, stat) in stats {
            all.entry(key).and_modify(|whole| whole.widen(&stat)).or_insert(stat);
        }
    }
    if subject.episodes_whole {
        let listed: BTreeSet<u64> = subject.episodes.rows.iter().filter_map(super::rows::number).collect();
        let without: Vec<&u64> = listed.symmetric_difference(&seen).take(10).collect();
        if !without.is_empty() {
            findings.add(Code::StatsEpisodes, Place::file(path), || {
                format!(
                    "{} episodes are listed, {} have statistics; they differ in {without:?}",
                    listed.len(),
                    seen.len()
                )
            });
        }
        if rows.whole && without.is_empty() {
            compare::ranges_with_data(subject, &all, rows, path, findings);
        }
    }
}

/// Check the statistics of each feature for themselves.
fn features(subject: &Subject, stats: &BTreeMap<String, Stat>, place: &Place, findings: &mut Findings) {
    let v3 = subject.version == Version::V30;
    let mut without: Vec<&str> = Vec::new();
    for feature in subject.info.features.iter().filter(|feature| !is_text(feature)) {
        let key = &feature.key;
        let Some(stat) = stats.get(key) else {
            without.push(key);
            continue;
        };
        let lacks = |keys: &[&'static str]| -> Vec<&'static str> {
            keys.iter().filter(|name| !stat.has(name)).copied().collect()
        };
        let basic = if subject.version == Version::V20 { &BASIC[..4] } else { &BASIC[..] };
        let (basic, quantiles) = (lacks(basic), lacks(&QUANTILES));
        if !basic.is_empty() {
            findings.grouped(Code::StatsKey, key, place.clone(), || format!("{key} lacks {}", basic.join(", ")));
        }
        if v3 && !quantiles.is_empty() {
            findings.add(Code::StatsQuantiles, place.clone(), || format!("{key} lacks {}", quantiles.join(", ")));
        }
        judge::one(feature, stat, place, findings);
    }
    if !without.is_empty() {
        findings.add(Code::StatsFeature, place.clone(), || format!("no statistics for {}", without.join(", ")));
    }
}

fn is_text(feature: &RawFeature) -> bool {
    matches!(feature.dtype.as_deref(), Some("string" | "language"))
}

/// The `stats/F/S` columns of meta/episodes: shapes and finite numbers, row by row.
fn columns(subject: &Subject, path: &str, findings: &mut Findings) {
    let Ok(table) = Table::open(&subject.root.join(path)) else {
        return;
    };
    for feature in subject.info.features.iter().filter(|feature| !is_text(feature)) {
        let key = &feature.key;
        for name in BASIC.into_iter().chain(QUANTILES) {
            let column = format!("stats/{key}/{name}");
            if table.root(&column).is_none() {
                continue;
            }
            let wanted = judge::width(feature, name);
            let Ok(batches) = table.batches(&[&column], None) else {
                continue;
            };
            let mut first = 0;
            for batch in batches {
                let batch = match batch {
                    Ok(batch) => batch,
                    Err(fault) => {
                        findings.file(path, &fault);
                        break;
                    }
                };
                let Some(cells) = batch.get(&column) else { break };
                for row in 0..batch.rows {
                    let place = Place::at(path, first + row as u64);
                    let found = cells.width(row);
                    if !judge::fits(feature, name, found as u64) {
                        findings.add(Code::StatsShape, place, || {
                            format!("{column}: {found} numbers instead of {}", wanted.unwrap_or(0))
                        });
                    } else if cells.is_null(row) || cells.floats(row).iter().any(|value| !value.is_finite()) {
                        findings.add(Code::StatsNotFinite, place, || format!("{column}: null, NaN or infinite"));
                    }
                }
                first += batch.rows as u64;
            }
        }
    }
}

/// The elements that divide by zero when they are normalised.
fn spreadless(feature: &RawFeature, stat: &Stat) -> Vec<usize> {
    let key = feature.key.as_str();
    let normalised = key.starts_with("action") || key.starts_with("observation");
    if !normalised || stat.get("count").and_then(|count| count.first()).is_some_and(|count| *count < 2.0) {
        return Vec::new();
    }
    let zero = |at: usize| {
        let value = |name: &str| stat.get(name).and_then(|values| values.get(at)).copied();
        value("std") == Some(0.0) || matches!((value("q01"), value("q99")), (Some(low), Some(high)) if low >= high)
    };
    let elements = stat.get("std").or_else(|| stat.get("q01")).map_or(0, <[f64]>::len);
    (0..elements).filter(|at| zero(*at)).collect()
}
