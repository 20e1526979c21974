//! `meta/info.json` as it is, not as it should be.
//!
//! The writer's own model refuses what is wrong. A reader and a verifier must look at what is wrong
//! and still use the rest, so every key here may be absent or of the wrong type.

use serde_json::Value;

use super::json::{self, Ordered};

/// Deepest nesting of names that is flattened; real datasets have one or two levels.
const NAMES_DEPTH_MAX: usize = 4;
/// Most elements of one sample; a camera of 8192 x 8192 x 3 is the largest known shape.
pub const WIDTH_MAX: u64 = 1 << 28;

/// The keys of `info.json`, in file order.
#[derive(Clone, Debug, Default)]
pub struct RawInfo {
    /// Top-level keys and values.
    pub keys: Ordered,
    /// Features in file order.
    pub features: Vec<RawFeature>,
    /// Feature keys that occur twice.
    pub repeated_features: Vec<String>,
    /// NaN or infinity stands in the file.
    pub not_finite: bool,
}

/// One entry of `features`.
#[derive(Clone, Debug, PartialEq)]
pub struct RawFeature {
    /// Feature key.
    pub key: String,
    /// `dtype` when it is a string.
    pub dtype: Option<String>,
    /// `shape` when it is a list of whole numbers.
    pub shape: Option<Vec<i64>>,
    /// `names`, flattened.
    pub names: Names,
    /// `info` or the older `video_info`.
    pub info: Option<Value>,
}

/// What stands under `names`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Names {
    /// No such key.
    Absent,
    /// null.
    Null,
    /// A plain list.
    List(Vec<String>),
    /// Lists in a list; flattened here.
    Nested(Vec<String>),
    /// An object such as `{"motors": [..]}`; flattened here.
    Object(Vec<String>),
    /// Something else.
    Other(String),
}

impl Names {
    /// The names in order; empty when there are none.
    #[must_use]
    pub fn flat(&self) -> &[String] {
        match self {
            Self::List(names) | Self::Nested(names) | Self::Object(names) => names,
            Self::Absent | Self::Null | Self::Other(_) => &[],
        }
    }
}

impl RawFeature {
    /// Elements of one sample, when the shape is sane: sides of at least 1, at most five of them.
    #[must_use]
    pub fn width(&self) -> Option<u64> {
        let shape = self.shape.as_ref()?;
        if shape.is_empty() || shape.len() > 5 {
            return None;
        }
        let width = shape.iter().try_fold(1_u64, |width, side| {
            let side = u64::try_from(*side).ok().filter(|side| *side > 0)?;
            width.checked_mul(side)
        })?;
        (width <= WIDTH_MAX).then_some(width)
    }

    /// Whether its pictures lie in mp4 files.
    #[must_use]
    pub fn is_video(&self) -> bool {
        self.dtype.as_deref() == Some("video")
    }

    /// Whether its pictures lie in the parquet files.
    #[must_use]
    pub fn is_image(&self) -> bool {
        self.dtype.as_deref() == Some("image")
    }

    /// Height and width in pixels, by the names or by where the channel count stands.
    #[must_use]
    pub fn picture_size(&self) -> Option<(u32, u32)> {
        let shape = self.shape.as_ref().filter(|shape| shape.len() == 3)?;
        let names = self.names.flat();
        let at = |wanted: &str| names.iter().position(|name| name == wanted);
        let (height, width) = match (at("height"), at("width")) {
            (Some(height), Some(width)) if names.len() == 3 => (height, width),
            _ if matches!(shape[2], 1 | 3 | 4) => (0, 1),
            _ if matches!(shape[0], 1 | 3 | 4) => (1, 2),
            _ => return None,
        };
        Some((u32::try_from(shape[height]).ok()?, u32::try_from(shape[width]).ok()?))
    }

    /// A key of `info`, with or without the `video.` prefix.
    #[must_use]
    pub fn info(&self, key: &str) -> Option<&Value> {
        let info = self.info.as_ref()?;
        info.get(format!("video.{key}")).or_else(|| info.get(key))
    }

    fn new(key: String, value: &Value) -> Self {
        let shape = value.get("shape").and_then(Value::as_array).and_then(|sides| sides.iter().map(whole).collect());
        Self {
            key,
            dtype: value.get("dtype").and_then(Value::as_str).map(str::to_owned),
            shape,
            names: names(value.get("names")),
            info: value.get("info").or_else(|| value.get("video_info")).filter(|info| info.is_object()).cloned(),
        }
    }
}

impl RawInfo {
    /// Parse `info.json`.
    ///
    /// # Errors
    /// When it is no JSON object; the parser's message.
    pub fn parse(bytes: &[u8]) -> Result<Self, String> {
        let parsed = json::parse::<Ordered>(bytes)?;
        // Parsed a second time into an ordered object: the order of features is the order of columns.
        let features: Ordered = parsed
            .value
            .get("features")
            .and_then(|features| {
                #[derive(serde::Deserialize)]
                struct Only {
                    features: Ordered,
                }
                features.as_object()?;
                json::parse::<Only>(bytes).ok().map(|only| only.value.features)
            })
            .unwrap_or_default();
        Ok(Self {
            repeated_features: features.repeated(),
            features: features.0.into_iter().map(|(key, value)| RawFeature::new(key, &value)).collect(),
            keys: parsed.value,
            not_finite: parsed.not_finite,
        })
    }

    /// `codebase_version` when it is a string.
    #[must_use]
    pub fn version(&self) -> Option<&str> {
        self.text("codebase_version")
    }

    /// `fps` as a number, when it is positive and finite.
    #[must_use]
    pub fn fps(&self) -> Option<f64> {
        self.keys.get("fps").and_then(Value::as_f64).filter(|fps| fps.is_finite() && *fps > 0.0)
    }

    /// A string value.
    #[must_use]
    pub fn text(&self, key: &str) -> Option<&str> {
        self.keys.get(key).and_then(Value::as_str)
    }

    /// A count: a whole number that is not negative.
    #[must_use]
    pub fn count(&self, key: &str) -> Option<u64> {
        self.keys.get(key).and_then(whole).and_then(|count| u64::try_from(count).ok())
    }

    /// The feature of this key.
    #[must_use]
    pub fn feature(&self, key: &str) -> Option<&RawFeature> {
        self.features.iter().find(|feature| feature.key == key)
    }

    /// Features that lie in mp4 files.
    pub fn videos(&self) -> impl Iterator<Item = &RawFeature> {
        self.features.iter().filter(|feature| feature.is_video())
    }
}

/// A whole number, also one written as `3.0`.
#[must_use]
pub fn whole(value: &Value) -> Option<i64> {
    value.as_i64().or_else(|| value.as_f64().and_then(whole_f64))
}

/// The whole number that a float is, if it is one and exact.
#[must_use]
#[expect(clippy::cast_possible_truncation, reason = "checked to be whole and within 2^53")]
pub fn whole_f64(value: f64) -> Option<i64> {
    const EXACT_MAX: f64 = 9_007_199_254_740_992.0;
    (value.fract() == 0.0 && value.abs() <= EXACT_MAX).then_some(value as i64)
}

fn names(value: Option<&Value>) -> Names {
    match value {
        None => Names::Absent,
        Some(Value::Null) => Names::Null,
        Some(Value::Array(items)) => {
            let nested = items.iter().any(Value::is_array);
            let mut flat = Vec::new();
            if !flatten(items, 0, &mut flat) {
                return Names::Other("a list with something that is no name".into());
            }
            if nested { Names::Nested(flat) } else { Names::List(flat) }
        }
        Some(Value::Object(object)) => names_of_object(object),
        Some(other) => Names::Other(other.to_string().chars().take(60).collect()),
    }
}

/// `{"motors": ["a", "b"]}` or `{"x": 0, "y": 1}`.
fn names_of_object(object: &serde_json::Map<String, Value>) -> Names {
    let mut flat = Vec::new();
    let mut numbered: Vec<(i64, &String)> = Vec::new();
    for (key, value) in object {
        match value {
            Value::Array(items) if flatten(items, 1, &mut flat) => {}
            Value::Object(inner) => match names_of_object(inner) {
                Names::Object(inner) => flat.extend(inner),
                _ => return Names::Other("an object without names".into()),
            },
            other => match whole(other) {
                Some(place) => numbered.push((place, key)),
                None => return Names::Other("an object without names".into()),
            },
        }
    }
    numbered.sort();
    flat.extend(numbered.into_iter().map(|(_, key)| key.clone()));
    Names::Object(flat)
}

fn flatten(items: &[Value], depth: usize, flat: &mut Vec<String>) -> bool {
    depth < NAMES_DEPTH_MAX
        && items.iter().all(|item| match item {
            Value::String(name) => {
                flat.push(name.clone());
                true
            }
            Value::Number(number) => {
                flat.push(number.to_string());
                true
            }
            Value::Array(inner) => flatten(inner, depth + 1, flat),
            _ => false,
        })
}

/// Fuzz body: any bytes, read as `info.json`.
pub fn fuzz_info(bytes: &[u8]) {
    let Ok(info) = RawInfo::parse(bytes) else { return };
    assert!(info.fps().is_none_or(|fps| fps > 0.0));
    for feature in &info.features {
        assert!(feature.width().is_none_or(|width| (1..=WIDTH_MAX).contains(&width)));
        let _ = feature.picture_size();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn feature(names: &str, shape: &str) -> RawFeature {
        let text =
            format!(r#"{{"features": {{"z": {{"dtype": "video", "shape": {shape}, "names": {names}}}, "a": {{}}}}}}"#);
        let info = RawInfo::parse(text.as_bytes()).unwrap();
        assert_eq!(info.features[1].key, "a");
        info.features[0].clone()
    }

    #[test]
    fn names_are_flattened_whatever_their_shape() {
        assert_eq!(feature(r#"[["a", "b"]]"#, "[2]").names, Names::Nested(vec!["a".into(), "b".into()]));
        assert_eq!(feature(r#"{"motors": ["a", "b"]}"#, "[2]").names.flat(), ["a", "b"]);
        assert_eq!(feature(r#"{"b": 0, "a": 1}"#, "[2]").names.flat(), ["b", "a"]);
        assert_eq!(feature("null", "[2]").names, Names::Null);
        assert!(matches!(feature("7", "[2]").names, Names::Other(_)));
    }

    #[test]
    fn picture_size_follows_the_names_before_the_place_of_the_channels() {
        assert_eq!(feature(r#"["height", "width", "channels"]"#, "[480, 640, 3]").picture_size(), Some((480, 640)));
        assert_eq!(feature(r#"["channels", "height", "width"]"#, "[3, 480, 640]").picture_size(), Some((480, 640)));
        assert_eq!(feature("null", "[3, 480, 640]").picture_size(), Some((480, 640)));
        assert_eq!(feature("null", "[480, 640]").picture_size(), None);
    }

    #[test]
    fn width_refuses_shapes_that_no_sample_can_have() {
        for shape in ["[]", "[0]", "[-3]", "[4294967296, 4294967296]", "[1.5]", "[1,1,1,1,1,1]", "\"6\""] {
            assert_eq!(feature("null", shape).width(), None, "{shape}");
        }
        assert_eq!(feature("null", "[2, 3]").width(), Some(6));
    }

    proptest! {
        #[test]
        fn fuzz_info_takes_any_json_like_text(text in "[\\[\\]{}\":,0-9eE.\\-aN\n]{0,200}") {
            fuzz_info(text.as_bytes());
        }

        #[test]
        fn fuzz_info_takes_a_real_file_with_bytes_changed(at in 0_usize..400, byte in any::<u8>()) {
            let mut text = br#"{"codebase_version": "v3.0", "fps": 30, "features": {"action": {"dtype": "float32", "shape": [6], "names": {"motors": ["a", "b"]}}, "observation.images.front": {"dtype": "video", "shape": [480, 640, 3], "names": ["height", "width", "channels"], "info": {"video.fps": 30}}}, "total_episodes": 3, "total_frames": 300}"#.to_vec();
            let at = at % text.len();
            text[at] = byte;
            fuzz_info(&text);
        }
    }
}
