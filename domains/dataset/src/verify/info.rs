//! Checks of `meta/info.json` that need no other file.

use std::collections::BTreeSet;

use serde_json::Value;

use super::code::Code;
use super::findings::Findings;
use super::{Place, Subject};
use crate::lerobot::reader::OWN_COLUMNS;
use crate::lerobot::reader::meta::{Version, declared_version};
use crate::lerobot::reader::paths::{self, Field, PathFault};
use crate::lerobot::reader::raw_info::{Names, RawFeature, whole_f64};

/// Path of the file.
pub(super) const PATH: &str = "meta/info.json";

const KEYS_V3: [&str; 14] = [
    "codebase_version",
    "fps",
    "features",
    "total_episodes",
    "total_frames",
    "total_tasks",
    "chunks_size",
    "data_files_size_in_mb",
    "video_files_size_in_mb",
    "data_path",
    "video_path",
    "robot_type",
    "splits",
    "tools",
];
const KEYS_V2: [&str; 2] = ["total_chunks", "total_videos"];
const DTYPES: [&str; 16] = [
    "float16", "float32", "float64", "int8", "int16", "int32", "int64", "uint8", "uint16", "uint32", "uint64", "bool",
    "string", "image", "video", "language",
];

/// Run all checks of this file.
pub(super) fn check(subject: &Subject, findings: &mut Findings) {
    keys(subject, findings);
    version(subject, findings);
    fps(subject, findings);
    templates(subject, findings);
    own_features(subject, findings);
    for feature in &subject.info.features {
        if !OWN_COLUMNS.contains(&feature.key.as_str()) {
            one_feature(feature, findings);
        }
    }
    names_order(subject, findings);
    velocities(subject, findings);
}

fn at() -> Place {
    Place::file(PATH)
}

fn keys(subject: &Subject, findings: &mut Findings) {
    let info = &subject.info;
    for key in ["codebase_version", "fps", "features", "total_episodes", "total_frames", "total_tasks"] {
        match info.keys.get(key) {
            None => findings.grouped(Code::InfoKeyMissing, key, at(), || format!("\"{key}\" is missing")),
            Some(value) if key.starts_with("total_") && info.count(key).is_none() => {
                findings.grouped(Code::InfoValue, key, at(), || format!("{key} is {value}, not a count"));
            }
            Some(_) => {}
        }
    }
    let missing: Vec<&str> = ["codebase_version", "fps", "features", "total_episodes"]
        .into_iter()
        .filter(|key| info.keys.get(key).is_none())
        .collect();
    if info.keys.get("codebase_version").is_none() && info.keys.get("features").is_none() {
        findings.add(Code::NotADataset, at(), || {
            format!("of no LeRobot version that is known: {} are missing", missing.join(", "))
        });
    }
    for key in ["chunks_size", "data_files_size_in_mb", "video_files_size_in_mb"] {
        if let Some(value) = info.keys.get(key)
            && !value.as_f64().is_some_and(|number| number > 0.0)
        {
            findings.grouped(Code::InfoValue, key, at(), || format!("{key} is {value}; it must be over 0"));
        }
    }
    if subject.version.is_v2() {
        for key in KEYS_V2.into_iter().filter(|key| info.keys.get(key).is_none()) {
            findings.grouped(Code::ConverterKeyMissing, key, at(), || format!("\"{key}\" is missing"));
        }
    }
    for (key, _) in &info.keys.0 {
        let known = KEYS_V3.contains(&key.as_str()) || (subject.version.is_v2() && KEYS_V2.contains(&key.as_str()));
        if !known {
            findings.grouped(Code::InfoKeyUnknown, key, at(), || format!("unknown key \"{key}\""));
        }
    }
    for key in info.keys.repeated() {
        findings.grouped(Code::InfoKeyRepeated, &key, at(), || format!("\"{key}\" stands twice"));
    }
    if info.not_finite {
        findings.add(Code::JsonNotFinite, at(), || "NaN or Infinity in the text".into());
    }
    if info.features.is_empty() && info.keys.get("features").is_some() {
        findings.add(Code::FeaturesEmpty, at(), || "no features are declared".into());
    }
    for key in &info.repeated_features {
        findings.grouped(Code::FeatureRepeated, key, at(), || format!("feature \"{key}\" is declared twice"));
    }
}

fn version(subject: &Subject, findings: &mut Findings) {
    let Some(value) = subject.info.keys.get("codebase_version") else {
        return;
    };
    let used = subject.version.name();
    let Some(text) = value.as_str() else {
        findings
            .add(Code::VersionUnknown, at(), || format!("codebase_version is {value}, not a text such as \"{used}\""));
        return;
    };
    match declared_version(text) {
        None => findings
            .add(Code::VersionUnknown, at(), || format!("codebase_version \"{text}\" is unknown; checked as {used}")),
        Some(declared) if declared.is_v2() != subject.version.is_v2() => {
            findings.add(Code::VersionLayout, at(), || {
                format!("codebase_version is \"{text}\", but the files follow {used}")
            });
        }
        Some(Version::V30) if text == "v3.0" => {}
        Some(declared) if declared.is_v2() && matches!(text, "v2.0" | "v2.1") => {}
        Some(_) => findings.add(Code::VersionOdd, at(), || {
            format!("codebase_version \"{text}\" was never released; checked as {used}")
        }),
    }
}

fn fps(subject: &Subject, findings: &mut Findings) {
    let Some(value) = subject.info.keys.get("fps") else {
        return;
    };
    match subject.info.fps() {
        None => findings.add(Code::FpsInvalid, at(), || format!("fps is {value}")),
        Some(fps) if whole_f64(fps).is_none() => findings.add(Code::FpsNotWhole, at(), || format!("fps is {value}")),
        Some(_) if value.is_f64() => findings.add(Code::FpsFloat, at(), || format!("fps is {value}")),
        Some(_) => {}
    }
}

fn templates(subject: &Subject, findings: &mut Findings) {
    let v2 = subject.version.is_v2();
    let has_video = subject.info.videos().next().is_some();
    for key in ["data_path", "video_path"] {
        let Some(value) = subject.info.keys.get(key) else {
            continue;
        };
        let is_video = key == "video_path";
        if is_video && !has_video {
            continue;
        }
        let fault = match value.as_str() {
            None => Some(format!("{key} is {value}")),
            Some(template) => template_fault(template, v2, is_video).map(|fault| format!("{key}: {fault}")),
        };
        if let Some(fault) = fault {
            findings.grouped(Code::PathTemplate, key, at(), || fault);
        }
    }
}

fn template_fault(template: &str, v2: bool, is_video: bool) -> Option<PathFault> {
    let mut fields = if v2 {
        vec![("episode_chunk", Field::Number(0)), ("episode_index", Field::Number(0))]
    } else {
        vec![("chunk_index", Field::Number(0)), ("file_index", Field::Number(0))]
    };
    if is_video {
        fields.push(("video_key", Field::Text("key")));
    }
    if let Err(fault) = paths::fill(template, &fields) {
        return Some(fault);
    }
    let needed = [if v2 { "episode_index" } else { "file_index" }, "video_key"];
    let needed = if is_video { &needed[..] } else { &needed[..1] };
    let lacks = needed.iter().find(|field| !template.contains(&format!("{{{field}")))?;
    Some(PathFault::LacksField { template: template.to_owned(), field: lacks })
}

fn own_features(subject: &Subject, findings: &mut Findings) {
    if subject.info.features.is_empty() {
        return;
    }
    for key in OWN_COLUMNS {
        let Some(feature) = subject.info.feature(key) else {
            let code = if key == "frame_index" && subject.version.is_v2() {
                Code::FrameIndexMissing
            } else {
                Code::OwnFeatureMissing
            };
            findings.grouped(code, key, at(), || format!("feature {key} is not declared"));
            continue;
        };
        let wanted = if key == "timestamp" { "float32" } else { "int64" };
        if feature.dtype.as_deref() != Some(wanted) || feature.shape.as_deref() != Some(&[1]) {
            let (dtype, shape) = (feature.dtype.clone().unwrap_or_default(), feature.shape.clone().unwrap_or_default());
            findings.grouped(Code::OwnFeatureType, key, at(), || {
                format!("{key} is declared {dtype} {shape:?}, lerobot has {wanted} [1]")
            });
        }
    }
}

fn one_feature(feature: &RawFeature, findings: &mut Findings) {
    let key = &feature.key;
    if key.is_empty() || key.contains('/') {
        findings.grouped(Code::FeatureName, key, at(), || format!("feature \"{key}\""));
    }
    match &feature.dtype {
        Some(dtype) if DTYPES.contains(&dtype.as_str()) => {}
        dtype => {
            let dtype = dtype.clone().unwrap_or_else(|| "missing".into());
            findings.grouped(Code::FeatureDtype, key, at(), || format!("{key}: dtype is {dtype}"));
        }
    }
    let Some(width) = feature.width() else {
        let shape = feature.shape.as_ref().map_or_else(|| "missing".into(), |shape| format!("{shape:?}"));
        findings.grouped(Code::FeatureShape, key, at(), || format!("{key}: shape is {shape}"));
        return;
    };
    if feature.is_video() || feature.is_image() {
        camera_names(feature, findings);
    } else {
        vector_names(feature, width, findings);
    }
    let names = feature.names.flat();
    let mut seen = BTreeSet::new();
    if let Some(name) = names.iter().find(|name| !seen.insert(name.as_str())) {
        findings.grouped(Code::NamesRepeated, key, at(), || format!("{key}: \"{name}\" stands twice"));
    }
    match &feature.names {
        Names::Nested(_) => {
            findings.grouped(Code::NamesNested, key, at(), || format!("{key}: names are a list inside a list"))
        }
        Names::Other(text) => findings.grouped(Code::NamesNested, key, at(), || format!("{key}: names are {text}")),
        Names::Absent | Names::Null | Names::List(_) | Names::Object(_) => {}
    }
}

fn camera_names(feature: &RawFeature, findings: &mut Findings) {
    let (key, names) = (&feature.key, feature.names.flat());
    if names.is_empty() {
        findings.grouped(Code::CameraNames, key, at(), || format!("{key}: no names"));
    } else if names.len() != 3 || !names.iter().any(|name| name.starts_with("channel")) {
        findings.grouped(Code::CameraNames, key, at(), || format!("{key}: names are {names:?}"));
    }
    if feature.picture_size().is_none() {
        findings.grouped(Code::FeatureShape, key, at(), || {
            format!("{key}: {:?} is no height, width, channels", feature.shape)
        });
    }
}

fn vector_names(feature: &RawFeature, width: u64, findings: &mut Findings) {
    let (key, names) = (&feature.key, feature.names.flat());
    let sides = feature.shape.as_ref().map_or(0, Vec::len);
    let is_text = matches!(feature.dtype.as_deref(), Some("string" | "language"));
    if names.is_empty() {
        let wanted = key == "action"
            || (width > 1 && sides == 1 && (key.starts_with("action") || key.starts_with("observation")));
        if wanted && !is_text {
            findings.grouped(Code::NamesMissing, key, at(), || format!("{key}: {width} elements without names"));
        }
    } else if names.len() as u64 != width && names.len() != sides {
        findings.grouped(Code::NamesCount, key, at(), || {
            format!("{key}: {} names for shape {:?}", names.len(), feature.shape.as_deref().unwrap_or(&[]))
        });
    }
}

fn names_order(subject: &Subject, findings: &mut Findings) {
    let names = |key: &str| subject.info.feature(key).map(|feature| feature.names.flat()).unwrap_or_default();
    let (action, state) = (names("action"), names("observation.state"));
    if action == state || action.is_empty() {
        return;
    }
    let sorted = |names: &[String]| {
        let mut names = names.to_vec();
        names.sort();
        names
    };
    if sorted(action) == sorted(state) {
        let first = action.iter().zip(state).position(|(one, other)| one != other).unwrap_or(0);
        findings.add(Code::NamesOrder, at(), || {
            format!("element {first} is \"{}\" in action and \"{}\" in observation.state", action[first], state[first])
        });
    }
}

/// An action of velocities beside a state of positions: legal, but replay and policies must know.
fn velocities(subject: &Subject, findings: &mut Findings) {
    let of = |key: &str| {
        let names = subject.info.feature(key).map(|feature| feature.names.flat()).unwrap_or_default();
        (names.iter().filter(|name| name.ends_with("vel") || name.ends_with("velocity")).count(), names.len())
    };
    let ((action, all), (state, positions)) = (of("action"), of("observation.state"));
    if action * 2 > all && state == 0 && positions > 0 {
        findings.add(Code::ActionVelocity, at(), || {
            format!("{action} of {all} actions are velocities by their names, the {positions} states are not")
        });
    }
}

/// Compare the totals with what was counted.
pub(super) fn totals(subject: &Subject, rows_read: Option<u64>, findings: &mut Findings) {
    let info = &subject.info;
    let episodes = subject.episodes.rows.len() as u64;
    let listed: u64 = subject.episodes.rows.iter().filter_map(|row| u64::try_from(row.length?).ok()).sum();
    let mut compare = |code: Code, key: &str, found: u64, what: &str| {
        if let Some(stated) = info.count(key).filter(|stated| *stated != found) {
            findings.add(code, at(), || format!("{key} is {stated}, {what} {found}"));
        }
    };
    if subject.episodes_whole {
        compare(Code::TotalEpisodes, "total_episodes", episodes, "the metadata lists");
    }
    if subject.tasks.file.fault.is_none() {
        compare(Code::TotalTasks, "total_tasks", subject.tasks.rows.len() as u64, "the task table lists");
    }
    match rows_read {
        Some(rows) => compare(Code::TotalFrames, "total_frames", rows, "the data files hold"),
        None if subject.episodes_whole => {
            compare(Code::TotalFrames, "total_frames", listed, "the lengths of the episodes add up to")
        }
        None => {}
    }
    if !subject.episodes_whole {
        return;
    }
    if subject.version.is_v2() {
        let cameras = info.videos().count() as u64;
        compare(Code::TotalVideos, "total_videos", episodes * cameras, "episodes times cameras are");
        let size = info.count("chunks_size").filter(|size| *size > 0).unwrap_or(1000);
        compare(Code::TotalChunks, "total_chunks", episodes.div_ceil(size), "the chunks are");
    }
    splits(subject, episodes, findings);
}

fn splits(subject: &Subject, episodes: u64, findings: &mut Findings) {
    let Some(splits) = subject.info.keys.get("splits") else {
        return;
    };
    let ends: Option<Vec<u64>> = splits.as_object().map(|splits| splits.values().filter_map(range_end).collect());
    let end = ends.and_then(|ends| ends.into_iter().max());
    if end != Some(episodes) && !(episodes == 0 && end.is_none()) {
        findings.add(Code::Splits, at(), || format!("splits are {splits}, there are {episodes} episodes"));
    }
}

fn range_end(value: &Value) -> Option<u64> {
    value.as_str()?.rsplit(':').next()?.trim().parse().ok()
}
