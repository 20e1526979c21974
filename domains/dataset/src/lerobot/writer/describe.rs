//! The features of `info.json` from a dataset's promise, and back.

use std::collections::BTreeMap;

use serde_json::{Value, json};
use tendon_protocol::stream::{Content, Dtype};

use crate::episode::FeatureSpec;
use crate::lerobot::DEFAULT_FEATURES;
use crate::lerobot::info::{Feature, Info, Ordered};
use crate::lerobot::spec::{CAMERA_NAMES, DatasetSpec, NotFinite, dtype_name, dtype_of};
use crate::mp4::Codec;

use super::prepare::Video;

/// All features, LeRobot's own last. `known` are those of the file so far: a camera whose coding
/// changed from one episode to another no longer names one.
pub(super) fn features(spec: &DatasetSpec, videos: &[Video<'_>], known: Option<&Ordered<Feature>>) -> Ordered<Feature> {
    let mut features = Ordered::default();
    for feature in &spec.features {
        let entry = match videos.iter().find(|video| video.key == feature.key) {
            Some(video) => {
                let before = known.and_then(|known| known.get(&feature.key)).and_then(|entry| entry.info.as_ref());
                let shape = feature.shape.clone();
                Feature {
                    dtype: "video".into(),
                    shape,
                    names: json!(CAMERA_NAMES),
                    info: Some(video_info(video, before)),
                }
            }
            None => Feature {
                dtype: dtype_name(feature.dtype).into(),
                shape: feature.shape.clone(),
                names: if feature.names.is_empty() { Value::Null } else { json!(feature.names) },
                info: None,
            },
        };
        features.0.push((feature.key.clone(), entry));
    }
    Info::push_default_features(&mut features);
    features
}

fn video_info(video: &Video<'_>, before: Option<&Ordered<Value>>) -> Ordered<Value> {
    // `lerobot-edit-dataset` makes an encoder from video.codec and video.pix_fmt before it looks
    // whether it needs one, and refuses mjpeg, for which it has none. Left out, it takes its default
    // and only copies our files, as each holds one episode. So JPEG is told under names of our own.
    let (codec, pixels) = match video.format.codec {
        Codec::Mjpeg => ("tendon.codec", "tendon.pix_fmt"),
        _ => ("video.codec", "video.pix_fmt"),
    };
    let mut entries = vec![
        ("is_depth_map", json!(false)),
        ("video.height", json!(video.format.height)),
        ("video.width", json!(video.format.width)),
        (codec, json!(video.format.codec.name())),
        (pixels, json!(video.pixel_format)),
        ("video.fps", json!(video.format.fps)),
        ("video.channels", json!(3)),
        ("has_audio", json!(false)),
    ];
    if let Some(before) = before {
        entries.retain(|(key, value)| before.get(key) == Some(value));
    }
    Ordered(entries.into_iter().map(|(key, value)| (key.to_owned(), value)).collect())
}

/// The promise that a dataset of ours made, or which of its features is not one of ours.
pub(super) fn spec_of(info: &Info, units: &BTreeMap<String, String>) -> Result<DatasetSpec, String> {
    let mut features = Vec::new();
    for (key, feature) in &info.features.0 {
        if DEFAULT_FEATURES.contains(&key.as_str()) {
            continue;
        }
        let camera = feature.dtype == "video";
        let dtype = if camera { Some(Dtype::U8) } else { dtype_of(&feature.dtype) };
        let Some(dtype) = dtype else {
            return Err(format!("feature {key:?} has dtype {:?}", feature.dtype));
        };
        let names: Option<Vec<String>> = match &feature.names {
            Value::Null => Some(Vec::new()),
            names => serde_json::from_value(names.clone()).ok(),
        };
        let Some(names) = names else {
            return Err(format!("feature {key:?} has names that are no list of texts"));
        };
        features.push(FeatureSpec {
            key: key.clone(),
            dtype,
            shape: feature.shape.clone(),
            names,
            unit: units.get(key).cloned().unwrap_or_default(),
            content: if camera { content(feature) } else { Content::Values },
        });
    }
    // info.fps is a whole number in datasets of ours.
    let fps = info.fps as u32;
    Ok(DatasetSpec { fps, robot_type: info.robot_type.clone(), features, not_finite: NotFinite::default() })
}

fn content(feature: &Feature) -> Content {
    match feature.info.as_ref().and_then(|info| info.get("video.codec")).and_then(Value::as_str) {
        Some("h264") => Content::H264,
        Some("av1") => Content::Av1,
        _ => Content::Jpeg,
    }
}

/// The units that are stated.
pub(super) fn units(spec: &DatasetSpec) -> BTreeMap<String, String> {
    spec.features
        .iter()
        .filter(|feature| !feature.unit.is_empty())
        .map(|feature| (feature.key.clone(), feature.unit.clone()))
        .collect()
}
