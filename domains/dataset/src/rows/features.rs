//! What a dataset's features are, in which order, and where two sets of them differ.

use tendon_protocol::stream::{Content, Dtype, StreamDeclaration};

use super::{CAPTURE_TIME, RowsError, SAMPLE_FLAGS};
use crate::episode::FeatureSpec;
use crate::samples::cut::CutStream;

/// LeRobot's order: the action, the state, what else is measured in numbers, the cameras.
fn rank(declaration: &StreamDeclaration) -> u8 {
    match (declaration.content.is_camera(), declaration.feature.as_str()) {
        (true, _) => 3,
        (false, "action") => 0,
        (false, "observation.state") => 1,
        (false, _) => 2,
    }
}

/// Streams in the order of their features.
pub(super) fn ordered(streams: &[CutStream]) -> Result<Vec<&CutStream>, RowsError> {
    let mut ordered: Vec<&CutStream> = streams.iter().collect();
    ordered.sort_by_key(|stream| &stream.samples.declaration.feature);
    for pair in ordered.windows(2) {
        let (first, second) = (&pair[0].samples.declaration, &pair[1].samples.declaration);
        if first.feature == second.feature {
            let feature = first.feature.clone();
            return Err(RowsError::RepeatedFeature { feature, first: first.stream, second: second.stream });
        }
    }
    // Stable: within a rank by name, so that sessions which number their streams differently agree.
    ordered.sort_by_key(|stream| rank(&stream.samples.declaration));
    Ok(ordered)
}

/// The feature that a stream becomes. Elements without names are numbered: `state_0`, `state_1`, ...
#[must_use]
pub fn feature_spec(declaration: &StreamDeclaration) -> FeatureSpec {
    let names = if declaration.content.is_camera() {
        ["height", "width", "channels"].map(str::to_owned).to_vec()
    } else if declaration.names.is_empty() {
        let last = declaration.feature.rsplit('.').next().unwrap_or_default();
        (0..declaration.width()).map(|element| format!("{last}_{element}")).collect()
    } else {
        declaration.names.clone()
    };
    FeatureSpec {
        key: declaration.feature.clone(),
        dtype: declaration.dtype,
        shape: declaration.shape.clone(),
        names,
        unit: declaration.unit.clone(),
        content: declaration.content,
    }
}

/// Capture times and flags, one element per feature.
pub(super) fn extra_specs(names: &[String]) -> [FeatureSpec; 2] {
    [(CAPTURE_TIME, Dtype::I64, "ns"), (SAMPLE_FLAGS, Dtype::U8, "")].map(|(key, dtype, unit)| FeatureSpec {
        key: key.to_owned(),
        dtype,
        shape: vec![u32::try_from(names.len()).unwrap_or(u32::MAX)],
        names: names.to_vec(),
        unit: unit.to_owned(),
        content: Content::Values,
    })
}

/// Every difference that keeps episodes with features `a` and `b` out of one dataset, in words; empty when
/// there is none. The order of features is no difference, the order of elements is. A camera may come as
/// JPEG in one and as H.264 in another session, so the coding is one: each dataset has one coding per camera.
#[must_use]
pub fn compare_features(a: &[FeatureSpec], b: &[FeatureSpec]) -> Vec<String> {
    let is_extra = |spec: &&FeatureSpec| [CAPTURE_TIME, SAMPLE_FLAGS].contains(&spec.key.as_str());
    let (extra_a, plain_a): (Vec<&FeatureSpec>, Vec<&FeatureSpec>) = a.iter().partition(is_extra);
    let (extra_b, plain_b): (Vec<&FeatureSpec>, Vec<&FeatureSpec>) = b.iter().partition(is_extra);
    let differences = compare_all(&plain_a, &plain_b);
    // The extra columns have an element per feature: where features differ they only say so again.
    if differences.is_empty() { compare_all(&extra_a, &extra_b) } else { differences }
}

fn compare_all(a: &[&FeatureSpec], b: &[&FeatureSpec]) -> Vec<String> {
    let mut differences = Vec::new();
    for left in a {
        match b.iter().find(|right| right.key == left.key) {
            Some(right) => compare(left, right, &mut differences),
            None => differences.push(format!("{} is in the first only", left.key)),
        }
    }
    let only_right = b.iter().filter(|right| a.iter().all(|left| left.key != right.key));
    differences.extend(only_right.map(|right| format!("{} is in the second only", right.key)));
    differences
}

fn compare(a: &FeatureSpec, b: &FeatureSpec, differences: &mut Vec<String>) {
    let key = &a.key;
    if a.dtype != b.dtype {
        differences.push(format!("{key}: elements are {:?} and {:?}", a.dtype, b.dtype));
    }
    if a.shape != b.shape {
        differences.push(format!("{key}: shapes are {:?} and {:?}", a.shape, b.shape));
    }
    if a.unit != b.unit {
        differences.push(format!("{key}: units are {:?} and {:?}", a.unit, b.unit));
    }
    if a.content != b.content {
        differences.push(format!("{key}: coded as {:?} and {:?}", a.content, b.content));
    }
    // Of different widths the names differ anyway.
    if a.shape == b.shape && a.names != b.names {
        let mut sorted = (a.names.clone(), b.names.clone());
        sorted.0.sort_unstable();
        sorted.1.sort_unstable();
        let place = a
            .names
            .iter()
            .zip(&b.names)
            .position(|(left, right)| left != right)
            .unwrap_or(a.names.len().min(b.names.len()));
        let name = |names: &[String]| names.get(place).cloned().unwrap_or_else(|| "nothing".to_owned());
        let (left, right) = (name(&a.names), name(&b.names));
        let how = if sorted.0 == sorted.1 { "the same names in another order" } else { "other names" };
        differences.push(format!("{key}: {how}, element {place} is {left:?} and {right:?}"));
    }
}
