//! Any LeRobot dataset on disk, v2.0, v2.1 or v3.0, read one episode at a time.
//!
//! [`Dataset::open`] reads the metadata, [`Dataset::read_episode`] the rows and pictures of one
//! episode. Odd traits are read all the same and reported in `warnings`; nothing is repaired in
//! silence. Numbers come out as they are stored, bit for bit; pictures as they were coded.
//!
//! Read [`meta`] for what the metadata says, [`table`] and [`cells`] for parquet, [`file`] for files
//! that are not what their name says. [`crate::verify`] builds on the same parts.

use std::path::{Path, PathBuf};

use tendon_protocol::stream::{Content, Dtype};
use thiserror::Error;

use crate::episode::FeatureSpec;
use crate::mp4::Codec;

pub mod camera;
pub mod cells;
pub mod episode;
pub mod file;
pub mod json;
pub mod meta;
pub mod paths;
pub mod raw_info;
pub mod table;

mod feature;

pub use camera::{SourceCamera, Unit};
pub use episode::SourceEpisode;
pub use json::fuzz_jsonl;
pub use meta::Version;
pub use raw_info::fuzz_info;

use file::FileFault;
use meta::{EpisodeRow, Episodes, TaskRow};
use raw_info::{RawInfo, whole_f64};

/// LeRobot's own five columns; every other feature belongs to the recording.
pub const OWN_COLUMNS: [&str; 5] = ["timestamp", "frame_index", "episode_index", "index", "task_index"];

/// Why a dataset or an episode cannot be read.
#[derive(Debug, Error)]
pub enum ReadError {
    /// A file is not what it should be.
    #[error("{path}: {fault}; {}", fault.remedy())]
    File {
        /// Path inside the dataset.
        path: String,
        /// What is wrong with it.
        fault: FileFault,
    },
    /// A text file is damaged.
    #[error("{path}: no JSON: {message}; restore the file from a copy")]
    Json {
        /// Path inside the dataset.
        path: String,
        /// The parser's message.
        message: String,
    },
    /// A line of a JSONL file is damaged.
    #[error("{path}, line {line}: no JSON object: {message}; repair that line")]
    Line {
        /// Path inside the dataset.
        path: String,
        /// 1-based line.
        line: u64,
        /// The parser's message.
        message: String,
    },
    /// The folder is not a LeRobot dataset that this reader knows.
    #[error("not a LeRobot dataset of version 2 or 3: {what}; run `tendon verify` on the folder for the whole list")]
    NotADataset {
        /// What is missing or wrong.
        what: String,
    },
    /// There is no such episode.
    #[error("there is no episode at position {position}; the dataset lists {episodes}")]
    NoEpisode {
        /// Position asked for.
        position: usize,
        /// Episodes listed.
        episodes: usize,
    },
    /// An episode's rows are not usable.
    #[error("episode {episode}: {what}; run `tendon verify` on the folder, or leave the episode out")]
    Episode {
        /// `episode_index`
        episode: u64,
        /// What is wrong, with file and row.
        what: String,
    },
}

/// What can be done with a feature.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Access {
    /// Numbers: they come in [`SourceEpisode::columns`].
    Values,
    /// Pictures in mp4 files: they come in [`SourceEpisode::cameras`].
    Camera,
    /// Not read; the reason stands in the warnings too.
    Unsupported(String),
}

/// A feature of a dataset on disk.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SourceFeature {
    /// Key, element type as stored, shape, names, coding. Cameras: size and coding of the real video.
    pub spec: FeatureSpec,
    /// `dtype` as `info.json` writes it.
    pub dtype: String,
    /// What this reader makes of it.
    pub access: Access,
}

/// An episode as the metadata lists it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct EpisodeEntry {
    /// `episode_index`
    pub index: u64,
    /// Task texts of the metadata; may be empty.
    pub tasks: Vec<String>,
    /// Rows that the metadata states.
    pub length: u64,
}

/// An open dataset. Holds metadata only; rows and pictures are read per episode.
#[derive(Debug)]
pub struct Dataset {
    /// Rules it is read by.
    pub version: Version,
    /// Rows per second as `info.json` writes it.
    pub fps: f64,
    /// The same when it is a whole number.
    pub fps_whole: Option<u32>,
    /// Robot type, when given.
    pub robot_type: Option<String>,
    /// Features in file order, without LeRobot's own five columns.
    pub features: Vec<SourceFeature>,
    /// Episodes in the order of the metadata.
    pub episodes: Vec<EpisodeEntry>,
    /// What is odd about the metadata.
    pub warnings: Vec<String>,
    root: PathBuf,
    info: RawInfo,
    rows: Vec<EpisodeRow>,
    tasks: Vec<TaskRow>,
}

impl Dataset {
    /// Read the metadata of the dataset in `root`.
    ///
    /// # Errors
    /// When it is no dataset of a known version, or its metadata cannot be read.
    pub fn open(root: &Path) -> Result<Self, ReadError> {
        let info = read_info(root)?;
        let version =
            meta::detect_version(root, &info).ok_or_else(|| ReadError::NotADataset { what: missing_keys(&info) })?;
        let fps =
            info.fps().ok_or_else(|| ReadError::NotADataset { what: "meta/info.json has no usable fps".into() })?;
        if info.features.is_empty() {
            return Err(ReadError::NotADataset { what: "meta/info.json declares no features".into() });
        }
        let mut warnings = Vec::new();
        let videos: Vec<String> = info.videos().map(|feature| feature.key.clone()).collect();
        let (rows, episodes) = read_episodes(root, version, &videos, &mut warnings)?;
        let tasks = read_tasks(root, version, &mut warnings);
        let fps_whole = whole_f64(fps).and_then(|fps| u32::try_from(fps).ok());
        if fps_whole.is_none() {
            warnings.push(format!("meta/info.json: fps {fps} is no whole number"));
        }
        let mut dataset = Self {
            version,
            fps,
            fps_whole,
            robot_type: info.text("robot_type").map(str::to_owned),
            features: Vec::new(),
            episodes,
            warnings,
            root: root.to_owned(),
            info,
            rows,
            tasks,
        };
        dataset.compare_totals();
        feature::describe(&mut dataset);
        Ok(dataset)
    }

    /// Keys of the cameras that can be read.
    pub fn cameras(&self) -> impl Iterator<Item = &SourceFeature> {
        self.features.iter().filter(|feature| feature.access == Access::Camera)
    }

    /// Read all rows and pictures of the episode at `position` of [`Dataset::episodes`].
    ///
    /// # Errors
    /// When its rows cannot be read. A camera that cannot be read is a warning of the episode.
    pub fn read_episode(&self, position: usize) -> Result<SourceEpisode, ReadError> {
        episode::read(self, position)
    }

    fn compare_totals(&mut self) {
        let listed = self.episodes.len() as u64;
        let frames: u64 = self.episodes.iter().map(|episode| episode.length).sum();
        for (key, found) in
            [("total_episodes", listed), ("total_frames", frames), ("total_tasks", self.tasks.len() as u64)]
        {
            if let Some(stated) = self.info.count(key).filter(|stated| *stated != found) {
                self.warnings.push(format!("meta/info.json: {key} is {stated}, the metadata lists {found}"));
            }
        }
    }
}

fn read_info(root: &Path) -> Result<RawInfo, ReadError> {
    let path = "meta/info.json";
    let bytes = file::read_text(&root.join(path)).map_err(|fault| ReadError::File { path: path.into(), fault })?;
    RawInfo::parse(&bytes).map_err(|message| ReadError::Json { path: path.into(), message })
}

fn missing_keys(info: &RawInfo) -> String {
    let missing: Vec<&str> =
        ["codebase_version", "fps", "features"].into_iter().filter(|key| info.keys.get(key).is_none()).collect();
    match info.version() {
        Some(version) if missing.is_empty() => format!("codebase_version is \"{version}\""),
        _ => format!("meta/info.json lacks {}", missing.join(", ")),
    }
}

fn read_episodes(
    root: &Path,
    version: Version,
    videos: &[String],
    warnings: &mut Vec<String>,
) -> Result<(Vec<EpisodeRow>, Vec<EpisodeEntry>), ReadError> {
    let Episodes { files, rows } = meta::episodes(root, version, videos);
    if files.is_empty() {
        let path = "meta/episodes".into();
        return Err(ReadError::File { path, fault: FileFault::Missing });
    }
    for file in &files {
        if let Some(fault) = &file.fault {
            return Err(ReadError::File { path: file.path.clone(), fault: fault.clone() });
        }
        if let Some(fault) = file.line_faults.first() {
            return Err(ReadError::Line {
                path: file.path.clone(),
                line: fault.number,
                message: fault.message.clone(),
            });
        }
    }
    let (mut kept, mut entries) = (Vec::new(), Vec::new());
    for (position, row) in rows.into_iter().enumerate() {
        let Some(index) = row.index.and_then(|index| u64::try_from(index).ok()) else {
            warnings.push(format!("{}, row {}: no episode_index, left out", row.file, row.row));
            continue;
        };
        if index != position as u64 {
            warnings.push(format!("{}: episode {index} stands at position {position}", row.file));
        }
        let span = row.to_index.zip(row.from_index).map(|(to, from)| to.saturating_sub(from));
        let length = row.length.or(span).and_then(|length| u64::try_from(length).ok()).unwrap_or(0);
        entries.push(EpisodeEntry { index, tasks: row.tasks.clone().unwrap_or_default(), length });
        kept.push(row);
    }
    Ok((kept, entries))
}

/// A dataset without readable tasks still has its rows.
fn read_tasks(root: &Path, version: Version, warnings: &mut Vec<String>) -> Vec<TaskRow> {
    let tasks = meta::tasks(root, version);
    if let Some(fault) = &tasks.file.fault {
        warnings.push(format!("{}: {fault}; {}", tasks.file.path, fault.remedy()));
    }
    for fault in &tasks.file.line_faults {
        warnings.push(format!("{}, line {}: no JSON object: {}", tasks.file.path, fault.number, fault.message));
    }
    tasks.rows
}

/// What a track's coding is called here; `None` when streams cannot carry it.
fn content_of(codec: Codec) -> Option<Content> {
    match codec {
        Codec::Mjpeg => Some(Content::Jpeg),
        Codec::H264 => Some(Content::H264),
        Codec::Av1 => Some(Content::Av1),
        Codec::Hevc | Codec::Vp9 | Codec::Mpeg4 | Codec::Other(_) => None,
    }
}

/// The element type that holds a stored one without rounding, for a feature declared as `declared`.
fn dtype_of(stored: cells::Stored, declared: &str) -> Option<Dtype> {
    use cells::Stored;
    let whole = declared.starts_with("int") || declared.starts_with("uint");
    match stored {
        Stored::Float(_) if whole => Some(Dtype::I64),
        Stored::Float(64) => Some(Dtype::F64),
        Stored::Float(_) => Some(Dtype::F32),
        Stored::Unsigned(8) => Some(Dtype::U8),
        Stored::Signed(_) | Stored::Unsigned(_) => Some(Dtype::I64),
        Stored::Bool => Some(Dtype::Bool),
        Stored::Text | Stored::Other => None,
    }
}

#[cfg(test)]
mod tests;
