//! An episode as rows and pictures, between the samples that were recorded and a dataset on disk.
//!
//! [`crate::rows`] makes one from samples, [`crate::lerobot`] writes and reads it. One row is one
//! frame in LeRobot's sense: all features at one tick of the row clock.

use bytes::Bytes;
use serde::{Deserialize, Serialize};
use tendon_protocol::stream::{Content, Dtype};

/// What one feature of a dataset is, apart from its values.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct FeatureSpec {
    /// Dataset key: `observation.state`, `action`, ...
    pub key: String,
    /// Element type; `U8` for cameras.
    pub dtype: Dtype,
    /// Shape of one sample; `[height, width, 3]` for cameras.
    pub shape: Vec<u32>,
    /// One name per element; empty for none. Cameras: `height`, `width`, `channels`.
    pub names: Vec<String>,
    /// Unit of every element, or empty. Not part of LeRobot's format.
    pub unit: String,
    /// How a camera's pictures are coded; `Values` for numbers.
    pub content: Content,
}

impl FeatureSpec {
    /// Elements of one sample.
    #[must_use]
    pub fn width(&self) -> usize {
        self.shape.iter().map(|side| *side as usize).product()
    }
}

/// The columns of numbers of one feature.
#[derive(Clone, Debug, PartialEq)]
pub struct Column {
    /// What the feature is.
    pub spec: FeatureSpec,
    /// `rows x width` elements, row-major, little endian, exactly as recorded.
    pub values: Vec<u8>,
}

/// One coded picture or access unit.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Picture {
    /// The JPEG or access unit (NAL units behind 4-byte lengths; AV1 temporal unit), unchanged.
    pub data: Bytes,
    /// Whether decoding can start here. Always true for JPEG.
    pub key: bool,
    /// Row that shows this picture, 0-based. Units are stored in decoding order; rows need not rise.
    pub row: u32,
}

/// One camera of an episode: exactly one picture per row.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Camera {
    /// What the feature is; `content` says the coding.
    pub spec: FeatureSpec,
    /// avcC or av1C configuration record; empty for JPEG.
    pub config: Bytes,
    /// Pictures in decoding order; each row 0 .. rows-1 occurs exactly once. A filled row carries a copy.
    pub pictures: Vec<Picture>,
}

/// A whole episode.
#[derive(Clone, Debug, PartialEq)]
pub struct Episode {
    /// Rows per second of `timestamp`.
    pub fps: u32,
    /// Number of rows.
    pub rows: usize,
    /// Language instructions; the first is the task of every row.
    pub tasks: Vec<String>,
    /// Features of numbers in dataset order, without LeRobot's own five columns.
    pub columns: Vec<Column>,
    /// Cameras in dataset order.
    pub cameras: Vec<Camera>,
    /// Where the episode comes from, written beside the dataset; free text, e.g. `<session>/<number>`.
    pub origin: String,
}
