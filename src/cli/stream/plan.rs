//! Which features of a dataset become which streams.

use std::collections::BTreeSet;
use std::path::Path;

use serde::Serialize;
use tendon_dataset::lerobot::reader::episode::video_path;
use tendon_dataset::lerobot::reader::file::{Expected, look, read_text};
use tendon_dataset::lerobot::reader::raw_info::RawInfo;
use tendon_dataset::lerobot::reader::{Access, Dataset, SourceFeature, meta};
use tendon_protocol::id::StreamId;
use tendon_protocol::stream::{Content, Role, StreamDeclaration};
use tendon_storage::records::FPS_MAX;

use super::CameraChoice;
use crate::cli::error::CliError;

/// One row for each sample of this.
pub const ROW_STREAM: &str = "observation.state";

/// Streams, and what is not streamed.
#[derive(Clone, Debug)]
pub struct Plan {
    /// Rows a second of the session.
    pub fps: u32,
    /// Rows a second as the dataset says.
    pub fps_exact: f64,
    /// Streams in the order of the dataset's features, numbered from 1.
    pub streams: Vec<StreamDeclaration>,
    /// The rest.
    pub left_out: Vec<LeftOut>,
}

/// A feature that is not streamed.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct LeftOut {
    /// Its name.
    pub feature: String,
    /// Why not.
    pub why: String,
}

/// Makes the plan for these positions of `dataset.episodes`.
///
/// # Errors
/// When the dataset has no `observation.state` that can be streamed, or no sane rate.
#[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "the rate is checked to be 1 to 1000")]
pub fn plan(dataset: &Dataset, root: &Path, chosen: &[usize], cameras: CameraChoice) -> Result<Plan, CliError> {
    let fps = dataset.fps.round();
    if !(1.0..=f64::from(FPS_MAX)).contains(&fps) {
        return Err(CliError::usage(format!(
            "the dataset has {} rows a second; 1 to {FPS_MAX} can be recorded",
            dataset.fps
        )));
    }
    let mut plan = Plan { fps: fps as u32, fps_exact: dataset.fps, streams: Vec::new(), left_out: Vec::new() };
    let videos = Videos::of(root, dataset);
    let rate_mhz = (dataset.fps * 1000.0).round() as u32;
    for feature in &dataset.features {
        let number = u32::try_from(plan.streams.len() + 1).unwrap_or(u32::MAX);
        match declare(feature, StreamId(number), rate_mhz)
            .and_then(|stream| allow(stream, &videos, dataset, chosen, cameras))
        {
            Ok(stream) => plan.streams.push(stream),
            Err(why) => plan.left_out.push(LeftOut { feature: feature.spec.key.clone(), why }),
        }
    }
    if plan.streams.iter().any(|stream| stream.feature == ROW_STREAM && stream.content == Content::Values) {
        return Ok(plan);
    }
    let why = plan
        .left_out
        .iter()
        .find(|left| left.feature == ROW_STREAM)
        .map_or("it is not there", |left| left.why.as_str());
    Err(CliError::usage(format!(
        "the dataset has no {ROW_STREAM} that can be streamed ({why}); rows are taken from it"
    )))
}

/// The stream that a feature becomes, or why it cannot be one.
fn declare(feature: &SourceFeature, stream: StreamId, rate_mhz: u32) -> Result<StreamDeclaration, String> {
    if let Access::Unsupported(why) = &feature.access {
        return Err(why.clone());
    }
    let spec = &feature.spec;
    let is_camera = spec.content.is_camera();
    let declaration = StreamDeclaration {
        stream,
        feature: spec.key.clone(),
        names: if is_camera { Vec::new() } else { spec.names.clone() },
        unit: spec.unit.clone(),
        dtype: spec.dtype,
        shape: spec.shape.clone(),
        rate_mhz,
        // A dataset may lack the video of an episode, a row has all of its numbers.
        required: !is_camera,
        role: if spec.key.starts_with("action") && !is_camera { Role::Commanded } else { Role::Measured },
        content: spec.content,
    };
    match declaration.check() {
        Ok(()) => Ok(declaration),
        Err(error) => {
            // Names that repeat or are empty say little; the numbers do not depend on them.
            let nameless = StreamDeclaration { names: Vec::new(), ..declaration };
            if nameless.check().is_ok() { Ok(nameless) } else { Err(error.to_string()) }
        }
    }
}

/// Leaves out cameras that the user does not want, or whose videos are not there.
fn allow(
    stream: StreamDeclaration,
    videos: &Videos,
    dataset: &Dataset,
    chosen: &[usize],
    cameras: CameraChoice,
) -> Result<StreamDeclaration, String> {
    if !stream.content.is_camera() {
        return Ok(stream);
    }
    let there =
        chosen.iter().filter(|position| videos.has(dataset.episodes[**position].index, &stream.feature)).count();
    match cameras {
        CameraChoice::None => Err("--cameras none".to_owned()),
        CameraChoice::Whole if there < chosen.len() => Err(format!(
            "its video is there for {there} of {} episodes; choose those with --episodes, or take --cameras any",
            chosen.len()
        )),
        CameraChoice::Any if there == 0 => Err("none of its videos is there".to_owned()),
        CameraChoice::Whole | CameraChoice::Any => Ok(stream),
    }
}

/// Which videos are there and begin like one.
struct Videos {
    /// `episode_index` and feature.
    there: BTreeSet<(u64, String)>,
}

impl Videos {
    fn of(root: &Path, dataset: &Dataset) -> Self {
        let mut there = BTreeSet::new();
        let keys: Vec<String> = dataset.cameras().map(|feature| feature.spec.key.clone()).collect();
        let info = read_text(&root.join("meta/info.json")).ok().and_then(|text| RawInfo::parse(&text).ok());
        if let (Some(info), false) = (info, keys.is_empty()) {
            for row in meta::episodes(root, dataset.version, &keys).rows {
                let Some(index) = row.index.and_then(|index| u64::try_from(index).ok()) else {
                    continue;
                };
                for key in &keys {
                    let path = video_path(&info, dataset.version, index, &row, key);
                    if path.is_ok_and(|path| look(&root.join(path), Expected::Mp4).is_ok()) {
                        there.insert((index, key.clone()));
                    }
                }
            }
        }
        Self { there }
    }

    fn has(&self, episode: u64, feature: &str) -> bool {
        self.there.contains(&(episode, feature.to_owned()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use tendon_protocol::stream::Dtype;

    fn data(name: &str) -> std::path::PathBuf {
        let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../shared/data").join(name);
        assert!(path.is_dir(), "{} is not there; put the shared folder beside the checkout", path.display());
        path
    }

    fn planned(name: &str, chosen: Option<&[usize]>, cameras: CameraChoice) -> Plan {
        let dataset = Dataset::open(&data(name)).unwrap();
        let all: Vec<usize> = (0..dataset.episodes.len()).collect();
        plan(&dataset, &data(name), chosen.unwrap_or(&all), cameras).unwrap()
    }

    fn features(plan: &Plan) -> Vec<&str> {
        plan.streams.iter().map(|stream| stream.feature.as_str()).collect()
    }

    #[test]
    fn a_camera_is_played_when_its_video_is_there_for_every_chosen_episode() {
        let some = planned("dobot-cr5-v2", Some(&[0, 2]), CameraChoice::Whole);
        assert_eq!(features(&some), ["observation.state", "observation.images.top", "action"]);
        let all = planned("dobot-cr5-v2", None, CameraChoice::Whole);
        assert_eq!(features(&all), ["observation.state", "action"]);
        assert!(all.left_out[0].why.contains("3 of 81"), "{:?}", all.left_out);
        let any = planned("dobot-cr5-v2", None, CameraChoice::Any);
        assert_eq!(features(&any).len(), 3);
        assert_eq!(features(&planned("dobot-cr5-v2", Some(&[0]), CameraChoice::None)).len(), 2);
    }

    #[test]
    fn commands_are_told_from_measurements_and_names_stay() {
        let plan = planned("dobot-cr5-v2", None, CameraChoice::Whole);
        let action = plan.streams.iter().find(|stream| stream.feature == "action").unwrap();
        let state = plan.streams.iter().find(|stream| stream.feature == ROW_STREAM).unwrap();
        assert_eq!((action.role, state.role), (Role::Commanded, Role::Measured));
        assert_eq!((action.names.len(), action.names[6].as_str()), (7, "gripper"));
        assert_eq!((plan.fps, state.rate_mhz, state.required), (10, 10_000, true));
    }

    #[test]
    fn doubles_stay_doubles() {
        let plan = planned("gr1-picknplace-v2", None, CameraChoice::Whole);
        let state = plan.streams.iter().find(|stream| stream.feature == ROW_STREAM).unwrap();
        assert_eq!((state.dtype, state.shape.as_slice()), (Dtype::F64, [44].as_slice()));
    }

    #[test]
    fn a_dataset_without_a_state_is_refused_by_that_name() {
        let mut dataset = Dataset::open(&data("dobot-cr5-v2")).unwrap();
        dataset.features.retain(|feature| feature.spec.key != ROW_STREAM);
        let error = plan(&dataset, &data("dobot-cr5-v2"), &[0], CameraChoice::None).unwrap_err();
        assert_eq!(error.code, "usage");
        assert!(error.to_string().contains(ROW_STREAM), "{error}");
    }

    #[test]
    fn names_that_repeat_are_left_out_and_reserved_features_are_not_streamed() {
        let mut feature = Dataset::open(&data("dobot-cr5-v2")).unwrap().features.remove(0);
        feature.spec.names = vec!["a".to_owned(); 6];
        assert!(declare(&feature, StreamId(1), 1000).unwrap().names.is_empty());
        feature.spec.key = "sample_flags".to_owned();
        assert!(declare(&feature, StreamId(1), 1000).unwrap_err().contains("sample_flags"));
    }
}
