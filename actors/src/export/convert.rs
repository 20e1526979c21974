//! From an episode's messages to rows and pictures. Pure but for ffmpeg; runs on a blocking thread.

use std::collections::HashMap;
use std::path::PathBuf;

use tendon_dataset::episode::Episode;
use tendon_dataset::rows::{self, RowsError, RowsInput, RowsReport, TOLERANCE_TICKS, make_rows};
use tendon_dataset::samples::Gatherer;
use tendon_dataset::samples::cut::cut;
use tendon_protocol::stream::Content;
use tendon_storage::records::{RowClock, VideoChoice};

use super::invalid;
use crate::api::Refusal;
use crate::stored::Manifest;
use crate::video::Studio;

pub(super) enum RowsTrouble {
    /// This episode has no rows; the others may.
    Skip(String),
    /// The export cannot go on.
    Refuse(Refusal),
}

/// Makes the rows of a stored episode.
pub(super) fn to_rows(
    manifest: &Manifest,
    messages: &[bytes::Bytes],
    instruction: String,
    origin: String,
    not_finite: rows::NotFinite,
) -> Result<(Episode, RowsReport), RowsTrouble> {
    let key = manifest.episode.key();
    let refuse = |text: String| RowsTrouble::Refuse(invalid(format!("episode {key}: {text}")));
    let declarations = manifest.streams.iter().map(|stream| stream.declaration.clone());
    let mut gatherer = Gatherer::new(declarations).map_err(|error| refuse(error.to_string()))?;
    for message in messages {
        gatherer.add(message).map_err(|error| refuse(error.to_string()))?;
    }
    let map = tendon_dataset::report::clock_map(&manifest.clocks);
    let cut = cut(gatherer.finish(), manifest.window.clone(), &map).map_err(|error| refuse(error.to_string()))?;
    let row_clock = match &manifest.row_clock {
        RowClock::Grid => rows::RowClock::Grid,
        RowClock::Stream(feature) => rows::RowClock::Stream(feature),
    };
    let input = RowsInput {
        cut: &cut,
        row_clock,
        fps: manifest.fps,
        tasks: vec![instruction],
        tolerance_ticks: TOLERANCE_TICKS,
        not_finite,
        origin,
    };
    make_rows(input).map_err(|error| {
        let text = error.to_string();
        match error {
            // Nothing to write; the other episodes are none the worse for it.
            RowsError::NoRows { .. } | RowsError::MissingRequired { .. } => RowsTrouble::Skip(text),
            _ => refuse(text),
        }
    })
}

/// Encodes pictures that cannot stay as they are, or that should not.
pub(super) fn convert(
    episode: &mut Episode,
    report: &RowsReport,
    choice: VideoChoice,
    studio: &Studio<'_>,
) -> Result<(), RowsTrouble> {
    let refuse = |error: crate::video::VideoError| RowsTrouble::Refuse(invalid(error.to_string()));
    let reencode: HashMap<usize, &rows::Reencode> =
        report.reencode.iter().map(|source| (source.camera, source)).collect();
    for (number, camera) in episode.cameras.iter_mut().enumerate() {
        let target = match choice {
            VideoChoice::Keep => camera.spec.content,
            VideoChoice::H264 => Content::H264,
            VideoChoice::Av1 => Content::Av1,
        };
        if let Some(source) = reencode.get(&number) {
            studio.reencode(camera, source, target).map_err(refuse)?;
        } else if target != camera.spec.content && camera.spec.content == Content::Jpeg {
            studio.encode_jpegs(camera, target).map_err(refuse)?;
        } else if target != camera.spec.content {
            let whole = rows::Reencode {
                camera: number,
                why: "another codec was asked for".to_owned(),
                configs: vec![camera.config.clone()],
                units: camera
                    .pictures
                    .iter()
                    .map(|picture| rows::SourceUnit {
                        data: picture.data.clone(),
                        key: picture.key,
                        config: 0,
                        capture_ns: i64::from(picture.row),
                    })
                    .collect(),
                rows: rows_of(&camera.pictures),
            };
            studio.reencode(camera, &whole, target).map_err(refuse)?;
        }
    }
    Ok(())
}

/// Which picture each row shows.
fn rows_of(pictures: &[tendon_dataset::episode::Picture]) -> Vec<Option<u32>> {
    let mut rows = vec![None; pictures.len()];
    for (number, picture) in pictures.iter().enumerate() {
        if let Some(row) = rows.get_mut(picture.row as usize) {
            *row = u32::try_from(number).ok();
        }
    }
    rows
}

/// A studio that can move to another thread.
pub(super) struct StudioOf {
    pub(super) ffmpeg: Option<PathBuf>,
    pub(super) scratch: PathBuf,
    pub(super) fps: u32,
}

impl StudioOf {
    pub(super) fn studio(&self) -> Studio<'_> {
        Studio { ffmpeg: self.ffmpeg.as_deref(), scratch: &self.scratch, fps: self.fps }
    }

    pub(super) fn hook(self) -> tendon_dataset::lerobot::writer::ImageStatistics {
        Box::new(move |camera, rows| self.studio().histogram(camera, rows).map_err(|error| error.to_string()))
    }
}
