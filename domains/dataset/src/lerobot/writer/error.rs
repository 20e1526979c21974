//! Why a dataset cannot be written, with what to do about it.

use std::io;
use std::path::PathBuf;

use thiserror::Error;

use crate::jpeg::JpegError;
use crate::lerobot::MANIFEST;
use crate::lerobot::spec::{Difference, SpecError};
use crate::mp4::Mp4Error;

/// Why a dataset cannot be written.
#[derive(Debug, Error)]
pub enum WriteError {
    /// The promise itself.
    #[error(transparent)]
    Spec(#[from] SpecError),
    /// The operating system refused.
    #[error("{path}: {source}", path = path.display())]
    Io {
        /// Which file.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// The folder has something else in it.
    #[error("{path} already holds a dataset or other files; append to it or choose an empty folder", path = path.display())]
    Taken {
        /// The folder.
        path: PathBuf,
    },
    /// A dataset that another program wrote.
    #[error("{path} was not written by tendon (no {MANIFEST}); export into a new folder and merge with `lerobot-edit-dataset`", path = path.display())]
    NotOurs {
        /// The folder.
        path: PathBuf,
    },
    /// Another version of the format.
    #[error("{path} has version {got:?}; only v3.0 can be appended to, export the dataset again", path = path.display())]
    Version {
        /// The folder.
        path: PathBuf,
        /// Its `codebase_version`.
        got: String,
    },
    /// A file of a dataset of ours is not as we wrote it.
    #[error("{path} is damaged: {what}", path = path.display())]
    Damaged {
        /// Which file.
        path: PathBuf,
        /// What is wrong.
        what: String,
    },
    /// The episode or the wish does not fit the dataset.
    #[error("{what} does not fit the dataset: {}", list(differences))]
    Different {
        /// The episode's origin or the dataset's folder.
        what: String,
        /// Every difference.
        differences: Vec<Difference>,
    },
    /// An episode of no rows.
    #[error("episode {origin} has no rows; leave it out")]
    NoRows {
        /// Where it comes from.
        origin: String,
    },
    /// A column that is too short or too long.
    #[error("episode {origin}: {feature} has {got} bytes, {rows} rows need {expected}")]
    Length {
        /// Where the episode comes from.
        origin: String,
        /// Feature key.
        feature: String,
        /// Bytes there are.
        got: usize,
        /// Bytes there should be.
        expected: usize,
        /// Rows of the episode.
        rows: usize,
    },
    /// NaN or infinity.
    #[error(
        "episode {origin}: {feature}, element {element}, row {row} is {value}; leave the episode out or ask for such values to be kept"
    )]
    NotFinite {
        /// Where the episode comes from.
        origin: String,
        /// Feature key.
        feature: String,
        /// Row in the episode.
        row: usize,
        /// Name or number of the element.
        element: String,
        /// The value.
        value: f64,
    },
    /// A camera without exactly one picture a row.
    #[error("episode {origin}: {camera} has {got} pictures for {rows} rows; fill the rows that miss one")]
    Pictures {
        /// Where the episode comes from.
        origin: String,
        /// Camera key.
        camera: String,
        /// Pictures there are.
        got: usize,
        /// Rows of the episode.
        rows: usize,
    },
    /// A camera whose content is numbers.
    #[error("episode {origin}: {camera} is listed as a camera, but its content is numbers")]
    NotACamera {
        /// Where the episode comes from.
        origin: String,
        /// Camera key.
        camera: String,
    },
    /// A picture that cannot be used.
    #[error("episode {origin}: {camera}, row {row}: {source}; fill this row")]
    Picture {
        /// Where the episode comes from.
        origin: String,
        /// Camera key.
        camera: String,
        /// Row in the episode.
        row: u32,
        /// What is wrong with the JPEG.
        source: JpegError,
    },
    /// A picture of another size.
    #[error("episode {origin}: {camera}, row {row} has {}x{} pixels, the camera was declared with {}x{}; fill this row or split the episode", got.0, got.1, expected.0, expected.1)]
    PictureSize {
        /// Where the episode comes from.
        origin: String,
        /// Camera key.
        camera: String,
        /// Row in the episode.
        row: u32,
        /// Width and height of the picture.
        got: (u32, u32),
        /// Width and height of the camera.
        expected: (u32, u32),
    },
    /// Pictures that no video can be made of.
    #[error("episode {origin}: {camera}: {source}")]
    Video {
        /// Where the episode comes from.
        origin: String,
        /// Camera key.
        camera: String,
        /// Why.
        source: Mp4Error,
    },
    /// Nobody can look at coded pictures.
    #[error(
        "episode {origin}: {camera} is coded as video, and its statistics need decoded pictures; set `with_image_statistics` (the server uses ffmpeg)"
    )]
    NoImageStatistics {
        /// Where the episode comes from.
        origin: String,
        /// Camera key.
        camera: String,
    },
    /// Looking at coded pictures failed.
    #[error("episode {origin}: statistics of {camera}: {what}")]
    ImageStatistics {
        /// Where the episode comes from.
        origin: String,
        /// Camera key.
        camera: String,
        /// What went wrong.
        what: String,
    },
    /// A table or text could not be made.
    #[error("{path} cannot be written: {what}", path = path.display())]
    Table {
        /// Which file.
        path: PathBuf,
        /// Why.
        what: String,
    },
    /// Nothing was written.
    #[error("the dataset has no episode; LeRobot cannot load that")]
    NoEpisodes,
}

fn list(differences: &[Difference]) -> String {
    differences.iter().map(ToString::to_string).collect::<Vec<_>>().join("; ")
}
