//! From `info.json`, one data file and one video per camera to the features of a dataset.

use tendon_protocol::stream::{Content, Dtype};

use super::file::{self, Expected};
use super::raw_info::RawFeature;
use super::table::{Root, Table};
use super::{Access, Dataset, OWN_COLUMNS, SourceFeature, content_of, dtype_of};
use crate::episode::FeatureSpec;
use crate::mp4::demux::Mp4;

/// Fill `dataset.features`, and say what is odd.
pub(super) fn describe(dataset: &mut Dataset) {
    let roots = first_schema(dataset);
    if roots.is_none() {
        dataset.warnings.push("no data file can be read: element types are those of meta/info.json".into());
    }
    let declared: Vec<RawFeature> = dataset.info.features.clone();
    for raw in declared.iter().filter(|raw| !OWN_COLUMNS.contains(&raw.key.as_str())) {
        let feature = if raw.is_video() { camera(dataset, raw) } else { values(dataset, raw, roots.as_deref()) };
        if let Access::Unsupported(reason) = &feature.access {
            dataset.warnings.push(format!("{}: {reason}; left out", raw.key));
        }
        dataset.features.push(feature);
    }
}

fn first_schema(dataset: &Dataset) -> Option<Vec<Root>> {
    let rows = dataset.rows.iter();
    rows.filter_map(|row| dataset.data_path(row).ok())
        .find_map(|path| Some(Table::open(&dataset.root.join(path)).ok()?.roots()))
}

fn values(dataset: &mut Dataset, raw: &RawFeature, roots: Option<&[Root]>) -> SourceFeature {
    let declared = raw.dtype.clone().unwrap_or_default();
    let root = roots.map(|roots| roots.iter().find(|root| root.name == raw.key));
    let stored = match root {
        Some(Some(root)) if root.is_struct => None,
        Some(Some(root)) => dtype_of(root.stored, &declared),
        _ => declared_dtype(&declared),
    };
    let access = match (root, stored, raw.width()) {
        _ if raw.is_image() => Access::Unsupported("pictures stored in parquet are not read".into()),
        (Some(None), ..) => Access::Unsupported("declared, but the data files have no such column".into()),
        (_, None, _) => Access::Unsupported(format!("dtype \"{declared}\" holds no numbers that can be streamed")),
        (_, _, None) => Access::Unsupported("its shape is missing or impossible".into()),
        _ => Access::Values,
    };
    if let Some(Some(root)) = root
        && access == Access::Values
        && root.stored.name() != declared
    {
        dataset.warnings.push(format!("{}: declared {declared}, stored as {}", raw.key, root.stored.name()));
    }
    let shape: Vec<u32> = raw.shape.iter().flatten().filter_map(|side| u32::try_from(*side).ok()).collect();
    let width = raw.width().unwrap_or(0);
    let mut names = raw.names.flat().to_vec();
    if !names.is_empty() && names.len() as u64 != width && access == Access::Values {
        dataset.warnings.push(format!("{}: {} names for {width} elements; read without names", raw.key, names.len()));
        names.clear();
    }
    let spec = FeatureSpec {
        key: raw.key.clone(),
        dtype: stored.unwrap_or(Dtype::U8),
        shape,
        names,
        unit: String::new(),
        content: Content::Values,
    };
    SourceFeature { spec, dtype: declared, access }
}

/// The type a declaration stands for, when no data file tells the stored one.
fn declared_dtype(declared: &str) -> Option<Dtype> {
    match declared {
        "float16" | "float32" => Some(Dtype::F32),
        "float64" => Some(Dtype::F64),
        "bool" => Some(Dtype::Bool),
        "uint8" => Some(Dtype::U8),
        "int8" | "int16" | "int32" | "int64" | "uint16" | "uint32" | "uint64" => Some(Dtype::I64),
        _ => None,
    }
}

/// The first video that opens says how a camera's pictures are coded and how large they are.
fn camera(dataset: &mut Dataset, raw: &RawFeature) -> SourceFeature {
    let mut missing = 0;
    let mut track = None;
    for row in &dataset.rows {
        let Ok(path) = dataset.video_path(row, &raw.key) else {
            continue;
        };
        let path = dataset.root.join(path);
        if file::look(&path, Expected::Mp4).is_err() {
            missing += 1;
        } else if track.is_none() {
            match Mp4::open(path) {
                Ok(mp4) => track = Some(mp4.track().clone()),
                Err(_) => missing += 1,
            }
        }
    }
    if missing > 0 {
        let listed = dataset.rows.len();
        dataset.warnings.push(format!("{}: the videos of {missing} of {listed} episodes cannot be opened", raw.key));
    }
    let declared_size = raw.picture_size();
    let (content, size, access) = match &track {
        None => (None, declared_size, Access::Unsupported("no video of this camera can be opened".into())),
        Some(track) => match content_of(track.codec) {
            None => (
                None,
                declared_size,
                Access::Unsupported(format!("its videos are {}, which streams do not carry", track.codec)),
            ),
            Some(content) => (Some(content), Some((track.height, track.width)), Access::Camera),
        },
    };
    if let (Some(real), Some(declared), true) = (size, declared_size, track.is_some())
        && real != declared
    {
        dataset
            .warnings
            .push(format!("{}: declared {}x{}, the video is {}x{}", raw.key, declared.1, declared.0, real.1, real.0));
    }
    let (height, width) = size.unwrap_or((0, 0));
    let spec = FeatureSpec {
        key: raw.key.clone(),
        dtype: Dtype::U8,
        shape: vec![height, width, 3],
        names: ["height", "width", "channels"].map(str::to_owned).to_vec(),
        unit: String::new(),
        content: content.unwrap_or(Content::Values),
    };
    SourceFeature { spec, dtype: "video".into(), access }
}
