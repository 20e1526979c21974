//! What a dataset promises about all of its episodes, and how two promises differ.

use std::fmt;

use tendon_protocol::stream::{Content, Dtype};
use thiserror::Error;

use crate::episode::{Episode, FeatureSpec};
use crate::mp4::mux::FPS_MAX;

use super::DEFAULT_FEATURES;

/// Longest feature key in bytes. Keys become folder names, which most file systems hold to 255.
pub const KEY_BYTES_MAX: usize = 200;
/// Most sides of a shape, as LeRobot's array types have.
pub const SIDES_MAX: usize = 5;
/// What the sides of a camera's shape are called.
pub const CAMERA_NAMES: [&str; 3] = ["height", "width", "channels"];

/// What all episodes of a dataset share.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DatasetSpec {
    /// Rows per second.
    pub fps: u32,
    /// LeRobot's name of the robot type, e.g. `so101_follower`.
    pub robot_type: Option<String>,
    /// Features in dataset order, cameras among them, without LeRobot's own five.
    pub features: Vec<FeatureSpec>,
    /// What to do with values that are no numbers.
    pub not_finite: NotFinite,
}

/// What to do with NaN and infinite values.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum NotFinite {
    /// Refuse the episode and name the first one: training on them breaks a policy silently.
    #[default]
    Refuse,
    /// Write them as they are; statistics leave them out.
    Keep,
}

/// A promise that no dataset can keep.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum SpecError {
    /// Frame rate out of range.
    #[error("{fps} rows per second; a dataset takes 1 to {FPS_MAX}")]
    Fps {
        /// The rate asked for.
        fps: u32,
    },
    /// No features at all.
    #[error("no features; a dataset needs at least one")]
    Empty,
    /// A feature cannot be in a dataset.
    #[error("feature {key:?}: {what}")]
    Feature {
        /// Its key.
        key: String,
        /// What is wrong and what to do.
        what: String,
    },
}

/// One real difference between two datasets, or a dataset and an episode.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Difference {
    /// What differs: `fps`, `robot_type`, or a feature key with its part, as `action.names`.
    pub part: String,
    /// The dataset's side.
    pub dataset: String,
    /// The other side.
    pub other: String,
}

impl fmt::Display for Difference {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "{} is {} here and {} there", self.part, self.dataset, self.other)
    }
}

impl DatasetSpec {
    /// The promise that `episode` alone would make.
    #[must_use]
    pub fn of(episode: &Episode, robot_type: Option<String>) -> Self {
        let numbers = episode.columns.iter().map(|column| column.spec.clone());
        let cameras = episode.cameras.iter().map(|camera| camera.spec.clone());
        let features = numbers.chain(cameras).collect();
        Self { fps: episode.fps, robot_type, features, not_finite: NotFinite::default() }
    }

    /// Checks that a dataset can keep this promise.
    ///
    /// # Errors
    /// Names the first feature that cannot be written and why.
    pub fn check(&self) -> Result<(), SpecError> {
        if self.fps == 0 || self.fps > FPS_MAX {
            return Err(SpecError::Fps { fps: self.fps });
        }
        if self.features.is_empty() {
            return Err(SpecError::Empty);
        }
        for (number, feature) in self.features.iter().enumerate() {
            let refuse = |what: String| Err(SpecError::Feature { key: feature.key.clone(), what });
            if self.features[..number].iter().any(|earlier| earlier.key == feature.key) {
                return refuse("is there twice; keys must be unique".into());
            }
            if let Err(what) = check_feature(feature) {
                return refuse(what);
            }
        }
        Ok(())
    }

    /// Every real difference in rate, robot type and features. The order of features is none, nor is
    /// a camera's coding: LeRobot finds features by key and reads each video file by itself. Units
    /// differ only where both sides state one.
    #[must_use]
    pub fn differences(&self, other: &Self) -> Vec<Difference> {
        let mut found = Vec::new();
        let mut note = |part: String, dataset: String, other: String| found.push(Difference { part, dataset, other });
        if self.fps != other.fps {
            note("fps".into(), self.fps.to_string(), other.fps.to_string());
        }
        if self.robot_type != other.robot_type {
            let text = |name: &Option<String>| name.as_ref().map_or("null".into(), |name| format!("{name:?}"));
            note("robot_type".into(), text(&self.robot_type), text(&other.robot_type));
        }
        for feature in &self.features {
            let key = &feature.key;
            let Some(theirs) = other.features.iter().find(|theirs| theirs.key == *key) else {
                note(key.clone(), "a feature".into(), "missing".into());
                continue;
            };
            let camera = feature.content.is_camera();
            if camera != theirs.content.is_camera() {
                let kind = |camera: bool| if camera { "a camera" } else { "numbers" };
                note(key.clone(), kind(camera).into(), kind(!camera).into());
                continue;
            }
            if feature.dtype != theirs.dtype {
                note(format!("{key}.dtype"), dtype_name(feature.dtype).into(), dtype_name(theirs.dtype).into());
            }
            if feature.shape != theirs.shape {
                note(format!("{key}.shape"), format!("{:?}", feature.shape), format!("{:?}", theirs.shape));
            }
            if feature.names != theirs.names && !camera {
                let (ours, theirs) = names_that_differ(&feature.names, &theirs.names);
                note(format!("{key}.names"), ours, theirs);
            }
            if feature.unit != theirs.unit && !feature.unit.is_empty() && !theirs.unit.is_empty() {
                note(format!("{key}.unit"), feature.unit.clone(), theirs.unit.clone());
            }
        }
        for theirs in &other.features {
            if !self.features.iter().any(|feature| feature.key == theirs.key) {
                note(theirs.key.clone(), "missing".into(), "a feature".into());
            }
        }
        found
    }
}

/// The first pair of names that differ, or the two counts.
fn names_that_differ(ours: &[String], theirs: &[String]) -> (String, String) {
    match ours.iter().zip(theirs).enumerate().find(|(_, (a, b))| a != b) {
        Some((number, (a, b))) => (format!("{a:?} at {number}"), format!("{b:?} at {number}")),
        None => (format!("{} names", ours.len()), format!("{} names", theirs.len())),
    }
}

fn check_feature(feature: &FeatureSpec) -> Result<(), String> {
    let key = feature.key.as_str();
    if key.is_empty() || key.len() > KEY_BYTES_MAX {
        return Err(format!("key of {} bytes; 1 to {KEY_BYTES_MAX} are allowed", key.len()));
    }
    if key == "." || key == ".." || key.contains(['/', '\\']) || key.contains(char::is_control) {
        return Err("the key becomes a folder name; leave out slashes, control characters and dots alone".into());
    }
    if DEFAULT_FEATURES.contains(&key) || key == "task" {
        return Err("the format itself uses this key; choose another".into());
    }
    if feature.shape.is_empty() || feature.shape.len() > SIDES_MAX || feature.shape.contains(&0) {
        return Err(format!("shape {:?}; 1 to {SIDES_MAX} sides of at least 1 are allowed", feature.shape));
    }
    if feature.content == Content::Values {
        if !feature.names.is_empty() && feature.names.len() != feature.width() {
            return Err(format!(
                "{} names for {} elements; give one each or none",
                feature.names.len(),
                feature.width()
            ));
        }
        let mut seen = std::collections::HashSet::new();
        if let Some(name) = feature.names.iter().find(|name| !seen.insert(name.as_str())) {
            return Err(format!("element name {name:?} is there twice; names must be unique"));
        }
    } else if feature.shape.len() != 3 || feature.shape[2] != 3 || feature.dtype != Dtype::U8 {
        return Err(format!(
            "a camera has dtype uint8 and shape [height, width, 3], not {} {:?}",
            dtype_name(feature.dtype),
            feature.shape
        ));
    }
    Ok(())
}

/// LeRobot's name of an element type.
#[must_use]
pub const fn dtype_name(dtype: Dtype) -> &'static str {
    match dtype {
        Dtype::F32 => "float32",
        Dtype::F64 => "float64",
        Dtype::I64 => "int64",
        Dtype::Bool => "bool",
        Dtype::U8 => "uint8",
    }
}

/// The element type that LeRobot calls `name`, of those that can be written.
#[must_use]
pub fn dtype_of(name: &str) -> Option<Dtype> {
    [Dtype::F32, Dtype::F64, Dtype::I64, Dtype::Bool, Dtype::U8].into_iter().find(|dtype| dtype_name(*dtype) == name)
}
