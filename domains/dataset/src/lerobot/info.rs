//! `meta/info.json`, with its keys in the order in which `lerobot` writes them.

use std::collections::BTreeMap;
use std::fmt;
use std::marker::PhantomData;

use serde::de::{MapAccess, Visitor};
use serde::ser::SerializeMap;
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use serde_json::Value;

use super::{CHUNK_FILES, DEFAULT_FEATURES};

/// Where v3.0 keeps its tables.
pub const DATA_PATH_V30: &str = "data/chunk-{chunk_index:03d}/file-{file_index:03d}.parquet";
/// Where v3.0 keeps its videos.
pub const VIDEO_PATH_V30: &str = "videos/{video_key}/chunk-{chunk_index:03d}/file-{file_index:03d}.mp4";
/// Where v2.0 and v2.1 keep their tables.
pub const DATA_PATH_V21: &str = "data/chunk-{episode_chunk:03d}/episode_{episode_index:06d}.parquet";
/// Where v2.0 and v2.1 keep their videos.
pub const VIDEO_PATH_V21: &str = "videos/chunk-{episode_chunk:03d}/{video_key}/episode_{episode_index:06d}.mp4";

/// The whole file, for v2.0, v2.1 and v3.0. Unknown keys are skipped.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Info {
    /// "v3.0", "v2.1" or "v2.0".
    pub codebase_version: String,
    /// Rows per second. Whole in every sound dataset, and then written as an integer.
    #[serde(serialize_with = "whole")]
    pub fps: f64,
    /// Columns and videos by key, in dataset order.
    pub features: Ordered<Feature>,
    /// Episodes of the dataset.
    #[serde(default)]
    pub total_episodes: u64,
    /// Rows of all episodes.
    #[serde(default)]
    pub total_frames: u64,
    /// Rows of the table of tasks.
    #[serde(default)]
    pub total_tasks: u64,
    /// v2 only: video files.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub total_videos: Option<u64>,
    /// v2 only: chunk folders.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub total_chunks: Option<u64>,
    /// Most files of a chunk folder.
    #[serde(default = "chunk_files")]
    pub chunks_size: u64,
    /// v3 only: size at which a table file is full, in 2^20 bytes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub data_files_size_in_mb: Option<u64>,
    /// v3 only: size at which a video file is full, in 2^20 bytes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub video_files_size_in_mb: Option<u64>,
    /// Pattern of table paths.
    #[serde(default)]
    pub data_path: String,
    /// Pattern of video paths, null without videos.
    #[serde(default)]
    pub video_path: Option<String>,
    /// LeRobot's name of the robot type.
    #[serde(default)]
    pub robot_type: Option<String>,
    /// Ranges of episodes by name.
    #[serde(default)]
    pub splits: BTreeMap<String, String>,
}

/// One entry of `features`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Feature {
    /// A numpy name, "video", "image" or "string".
    pub dtype: String,
    /// Shape of one row's value.
    pub shape: Vec<u32>,
    /// A list, an object or null.
    #[serde(default)]
    pub names: Value,
    /// What the video files hold; for videos only.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub info: Option<Ordered<Value>>,
}

impl Info {
    /// The file as text: 4 spaces a level, as `lerobot` writes it.
    ///
    /// # Errors
    /// Never for values that [`Info`] can hold; passed on from the JSON writer.
    pub fn to_text(&self) -> Result<Vec<u8>, serde_json::Error> {
        indented(self)
    }

    /// The features that every dataset has after its own.
    pub fn push_default_features(features: &mut Ordered<Feature>) {
        for key in DEFAULT_FEATURES {
            let dtype = if key == "timestamp" { "float32" } else { "int64" };
            features
                .0
                .push((key.into(), Feature { dtype: dtype.into(), shape: vec![1], names: Value::Null, info: None }));
        }
    }
}

/// JSON with 4 spaces a level.
pub(super) fn indented(value: &impl Serialize) -> Result<Vec<u8>, serde_json::Error> {
    let mut out = Vec::new();
    let formatter = serde_json::ser::PrettyFormatter::with_indent(b"    ");
    value.serialize(&mut serde_json::Serializer::with_formatter(&mut out, formatter))?;
    Ok(out)
}

fn chunk_files() -> u64 {
    CHUNK_FILES
}

fn whole<S: Serializer>(fps: &f64, serializer: S) -> Result<S::Ok, S::Error> {
    if fps.fract() == 0.0 && (0.0..1e15).contains(fps) {
        return serializer.serialize_u64(*fps as u64);
    }
    serializer.serialize_f64(*fps)
}

/// A JSON object whose keys keep their order.
#[derive(Clone, Debug, PartialEq)]
pub struct Ordered<V>(pub Vec<(String, V)>);

impl<V> Default for Ordered<V> {
    fn default() -> Self {
        Self(Vec::new())
    }
}

impl<V> Ordered<V> {
    /// The value under `key`.
    #[must_use]
    pub fn get(&self, key: &str) -> Option<&V> {
        self.0.iter().find(|(name, _)| name == key).map(|(_, value)| value)
    }
}

impl<V: Serialize> Serialize for Ordered<V> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut map = serializer.serialize_map(Some(self.0.len()))?;
        for (key, value) in &self.0 {
            map.serialize_entry(key, value)?;
        }
        map.end()
    }
}

impl<'de, V: Deserialize<'de>> Deserialize<'de> for Ordered<V> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Entries<V>(PhantomData<V>);
        impl<'de, V: Deserialize<'de>> Visitor<'de> for Entries<V> {
            type Value = Ordered<V>;

            fn expecting(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
                formatter.write_str("an object")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Ordered<V>, A::Error> {
                let mut entries = Vec::new();
                while let Some(entry) = map.next_entry()? {
                    entries.push(entry);
                }
                Ok(Ordered(entries))
            }
        }
        deserializer.deserialize_map(Entries(PhantomData))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Byte for byte, so that a dataset that both wrote differs in nothing but its content.
    #[test]
    fn the_file_that_lerobot_wrote_comes_back_byte_for_byte() {
        let path = concat!(env!("CARGO_MANIFEST_DIR"), "/../../../shared/data/lerobot-reference-v3/meta/info.json");
        let text = std::fs::read(path).expect("put the shared folder beside the checkout");
        let info: Info = serde_json::from_slice(&text).unwrap();
        let written = String::from_utf8(info.to_text().unwrap()).unwrap();
        assert_eq!(written, String::from_utf8(text).unwrap());
    }

    #[test]
    fn older_versions_are_read() {
        for name in ["dobot-cr5-v2", "unitree-g1-v2", "gr1-picknplace-v2"] {
            let path = format!("{}/../../../shared/data/{name}/meta/info.json", env!("CARGO_MANIFEST_DIR"));
            let text = std::fs::read(path).expect("put the shared folder beside the checkout");
            let info: Info = serde_json::from_slice(&text).unwrap();
            assert!(info.codebase_version.starts_with("v2."), "{name}");
            assert!(info.total_chunks.is_some() && info.features.get("action").is_some(), "{name}");
        }
    }
}
