//! Everything about an episode that can be wrong or slow, done before a file is touched.

use tendon_protocol::stream::Content;

use crate::episode::{Camera, Column, Episode};
use crate::jpeg;
use crate::lerobot::DEFAULT_FEATURES;
use crate::lerobot::spec::{DatasetSpec, NotFinite};
use crate::lerobot::stats::picture::{Histogram, sampled_rows};
use crate::lerobot::stats::{Form, Runs, Summary, runs};
use crate::mp4::Codec;
use crate::mp4::mux::{self, Format, Slot, Unit};

use super::table::{Place, default_values, number};
use super::{ImageStatistics, WriteError};

/// An episode that fits its dataset, with its statistics.
pub(super) struct Prepared<'a> {
    pub(super) columns: Vec<&'a Column>,
    pub(super) videos: Vec<Video<'a>>,
    /// Of each feature in dataset order, LeRobot's own last.
    pub(super) statistics: Vec<Statistics>,
}

/// A camera that can be muxed.
pub(super) struct Video<'a> {
    pub(super) key: &'a str,
    pub(super) format: Format<'a>,
    pub(super) pixel_format: &'static str,
    pub(super) units: Vec<Unit<'a>>,
}

/// The values of one feature in rising order.
pub(super) struct Statistics {
    pub(super) key: String,
    pub(super) form: Form,
    pub(super) count: u64,
    pub(super) elements: Vec<Runs>,
}

impl Statistics {
    pub(super) fn summary(&self) -> Summary {
        Summary::of_runs(self.form, self.count, &self.elements)
    }
}

/// How many elements the statistics of a feature have: LeRobot folds all sides but the last.
pub(super) fn statistics_width(shape: &[u32]) -> usize {
    shape.last().copied().unwrap_or(1).max(1) as usize
}

pub(super) fn prepare<'a>(
    episode: &'a Episode,
    spec: &DatasetSpec,
    place: Place,
    images: &mut Option<ImageStatistics>,
) -> Result<Prepared<'a>, WriteError> {
    let origin = || episode.origin.clone();
    if episode.rows == 0 {
        return Err(WriteError::NoRows { origin: origin() });
    }
    let theirs = DatasetSpec { robot_type: spec.robot_type.clone(), ..DatasetSpec::of(episode, None) };
    let differences = spec.differences(&theirs);
    if !differences.is_empty() {
        return Err(WriteError::Different { what: origin(), differences });
    }
    theirs.check()?;
    let mut prepared = Prepared { columns: Vec::new(), videos: Vec::new(), statistics: Vec::new() };
    for feature in &spec.features {
        if let Some(column) = episode.columns.iter().find(|column| column.spec.key == feature.key) {
            prepared.statistics.push(column_statistics(episode, column, spec.not_finite)?);
            prepared.columns.push(column);
        } else if let Some(camera) = episode.cameras.iter().find(|camera| camera.spec.key == feature.key) {
            prepared.videos.push(video(episode, camera)?);
            prepared.statistics.push(camera_statistics(episode, camera, images)?);
        }
    }
    for (key, values) in DEFAULT_FEATURES.into_iter().zip(default_values(place)) {
        let elements = vec![runs(values.into_iter())];
        prepared.statistics.push(Statistics {
            key: key.into(),
            form: Form::Vector,
            count: place.rows as u64,
            elements,
        });
    }
    Ok(prepared)
}

fn column_statistics(episode: &Episode, column: &Column, not_finite: NotFinite) -> Result<Statistics, WriteError> {
    let (size, width) = (column.spec.dtype.size_bytes(), column.spec.width());
    let expected = episode.rows * width * size;
    if column.values.len() != expected {
        let (origin, feature) = (episode.origin.clone(), column.spec.key.clone());
        return Err(WriteError::Length { origin, feature, got: column.values.len(), expected, rows: episode.rows });
    }
    let value = |at: usize| number(column.spec.dtype, &column.values[at * size..]);
    if not_finite == NotFinite::Refuse
        && let Some(at) = (0..episode.rows * width).find(|at| !value(*at).is_finite())
    {
        return Err(WriteError::NotFinite {
            origin: episode.origin.clone(),
            feature: column.spec.key.clone(),
            row: at / width,
            element: column.spec.names.get(at % width).cloned().unwrap_or_else(|| (at % width).to_string()),
            value: value(at),
        });
    }
    let folded = statistics_width(&column.spec.shape);
    let elements =
        (0..folded).map(|element| runs((element..episode.rows * width).step_by(folded).map(value))).collect();
    Ok(Statistics { key: column.spec.key.clone(), form: Form::Vector, count: episode.rows as u64, elements })
}

/// Checks a camera's pictures and puts them in the order of the file.
fn video<'a>(episode: &'a Episode, camera: &'a Camera) -> Result<Video<'a>, WriteError> {
    let (origin, key) = (|| episode.origin.clone(), camera.spec.key.as_str());
    let (height, width) = (camera.spec.shape[0], camera.spec.shape[1]);
    if camera.pictures.len() != episode.rows {
        return Err(WriteError::Pictures {
            origin: origin(),
            camera: key.into(),
            got: camera.pictures.len(),
            rows: episode.rows,
        });
    }
    let mut units: Vec<Unit<'_>> = Vec::with_capacity(episode.rows);
    for picture in &camera.pictures {
        units.push(Unit { data: &picture.data, key: picture.key, presentation: picture.row });
    }
    let (codec, pixel_format) = match camera.spec.content {
        Content::Jpeg => (Codec::Mjpeg, check_jpegs(episode, camera)?),
        Content::H264 => (Codec::H264, "yuv420p"),
        Content::Av1 => (Codec::Av1, "yuv420p"),
        Content::Values => {
            return Err(WriteError::NotACamera { origin: origin(), camera: key.into() });
        }
    };
    if codec == Codec::Mjpeg {
        // JPEGs need no other picture, so the order of showing is the best one to store them in.
        units.sort_by_key(|unit| unit.presentation);
        for unit in &mut units {
            unit.key = true;
        }
    }
    let format = Format { codec, width, height, fps: episode.fps, config: &camera.config };
    let slots: Vec<Slot> = units.iter().map(Slot::from).collect();
    // The index is made here only to hear of faults before the first file is written.
    mux::head(format, &slots).map_err(|source| WriteError::Video { origin: origin(), camera: key.into(), source })?;
    Ok(Video { key, format, pixel_format, units })
}

/// Every picture has the declared size and an end. Returns the colour format of the first.
fn check_jpegs(episode: &Episode, camera: &Camera) -> Result<&'static str, WriteError> {
    let expected = (camera.spec.shape[1], camera.spec.shape[0]);
    let mut pixel_format = None;
    for picture in &camera.pictures {
        let (origin, camera, row) = (|| episode.origin.clone(), || camera.spec.key.clone(), picture.row);
        let header = jpeg::header(&picture.data).map_err(|source| WriteError::Picture {
            origin: origin(),
            camera: camera(),
            row,
            source,
        })?;
        if (header.width, header.height) != expected {
            let got = (header.width, header.height);
            return Err(WriteError::PictureSize { origin: origin(), camera: camera(), row, got, expected });
        }
        pixel_format.get_or_insert(header.pixel_format());
    }
    Ok(pixel_format.unwrap_or("yuvj420p"))
}

fn camera_statistics(
    episode: &Episode,
    camera: &Camera,
    images: &mut Option<ImageStatistics>,
) -> Result<Statistics, WriteError> {
    let rows = sampled_rows(episode.rows);
    let histogram = if camera.spec.content == Content::Jpeg {
        let mut histogram = Histogram::default();
        for picture in camera.pictures.iter().filter(|picture| rows.binary_search(&picture.row).is_ok()) {
            let decoded = jpeg::decode_rgb(&picture.data).map_err(|source| WriteError::Picture {
                origin: episode.origin.clone(),
                camera: camera.spec.key.clone(),
                row: picture.row,
                source,
            })?;
            histogram.add_rgb(decoded.width, decoded.height, &decoded.pixels);
        }
        histogram
    } else {
        let (origin, key) = (|| episode.origin.clone(), || camera.spec.key.clone());
        let Some(collect) = images else {
            return Err(WriteError::NoImageStatistics { origin: origin(), camera: key() });
        };
        collect(camera, &rows).map_err(|what| WriteError::ImageStatistics { origin: origin(), camera: key(), what })?
    };
    if histogram.frames() == 0 {
        let what = "no picture was looked at".to_owned();
        return Err(WriteError::ImageStatistics {
            origin: episode.origin.clone(),
            camera: camera.spec.key.clone(),
            what,
        });
    }
    Ok(Statistics {
        key: camera.spec.key.clone(),
        form: Form::Picture,
        count: histogram.frames(),
        elements: histogram.runs().into(),
    })
}
