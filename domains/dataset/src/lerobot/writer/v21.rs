//! Writes datasets in LeRobot's format v2.1, which openpi and forks of policy code still read.
//!
//! A table and a video per camera for each episode, lists of JSON lines beside them. For exports
//! only: the lists and `info.json` come with [`Writer::finish`], so a folder that was left before has
//! no `info.json` and nobody takes it for a dataset.

use std::collections::BTreeMap;
use std::path::Path;

use arrow_schema::ArrowError;
use serde::Serialize;
use serde_json::{Value, json};

use crate::episode::Episode;
use crate::lerobot::CHUNK_FILES;
use crate::lerobot::info::{DATA_PATH_V21, Feature, Info, Ordered, VIDEO_PATH_V21};
use crate::lerobot::spec::DatasetSpec;
use crate::lerobot::tasks::Tasks;

use super::folder::Folder;
use super::manifest::{Manifest, ManifestEpisode, ManifestFile};
use super::prepare::Prepared;
use super::table::{self, ListName, Place};
use super::{
    INFO, ImageStatistics, Totals, WriteError, clear_unfinished, describe, number_tasks, prepare, write_manifest,
    write_video,
};

/// Statistics of v2.1: no quantiles.
const NAMES: [&str; 5] = ["min", "max", "mean", "std", "count"];

/// An open dataset.
pub struct Writer {
    folder: Folder,
    spec: DatasetSpec,
    images: Option<ImageStatistics>,
    tasks: Tasks,
    rows: u64,
    manifest: Manifest,
    features: Option<Ordered<Feature>>,
    episode_lines: String,
    statistics_lines: String,
}

#[derive(Serialize)]
struct EpisodeLine<'a> {
    episode_index: u64,
    tasks: Vec<&'a str>,
    length: usize,
}

#[derive(Serialize)]
struct StatisticsLine {
    episode_index: u64,
    stats: Ordered<Ordered<Value>>,
}

impl Writer {
    /// Begins a dataset in a folder that has none.
    ///
    /// # Errors
    /// When the promise cannot be kept, the folder has other content, or the disk refuses.
    pub fn create(root: impl AsRef<Path>, spec: DatasetSpec) -> Result<Self, WriteError> {
        spec.check()?;
        let folder = Folder::new(root.as_ref());
        clear_unfinished(&folder, root.as_ref())?;
        let manifest = Manifest::new(describe::units(&spec));
        write_manifest(&folder, &manifest)?;
        Ok(Self {
            folder,
            spec,
            images: None,
            tasks: Tasks::default(),
            rows: 0,
            manifest,
            features: None,
            episode_lines: String::new(),
            statistics_lines: String::new(),
        })
    }

    /// Sets who looks at the pictures of coded cameras. Without it an episode with one is refused.
    #[must_use]
    pub fn with_image_statistics(mut self, collect: ImageStatistics) -> Self {
        self.images = Some(collect);
        self
    }

    /// Writes an episode's table and videos.
    ///
    /// # Errors
    /// Names the episode and what of it does not fit, or the file that the disk refused.
    pub fn append(&mut self, episode: &Episode) -> Result<u64, WriteError> {
        let mut tasks = self.tasks.clone();
        let task = number_tasks(&mut tasks, &episode.tasks);
        let number = self.manifest.episodes.len() as u64;
        let place = Place { episode: number, first_index: self.rows, task, rows: episode.rows, fps: self.spec.fps };
        let prepared = prepare::prepare(episode, &self.spec, place, &mut self.images)?;
        let refuse = |path: &str, error: &dyn std::fmt::Display| WriteError::Table {
            path: self.folder.path(path),
            what: error.to_string(),
        };
        let files = self.write_files(&prepared, place)?;
        let texts =
            if episode.tasks.is_empty() { vec![""] } else { episode.tasks.iter().map(String::as_str).collect() };
        let line = EpisodeLine { episode_index: number, tasks: texts, length: episode.rows };
        let stats =
            prepared.statistics.iter().map(|entry| (entry.key.clone(), entry.summary().to_json(&NAMES))).collect();
        let statistics = StatisticsLine { episode_index: number, stats: Ordered(stats) };
        let line = to_line(&line).map_err(|error| refuse("meta/episodes.jsonl", &error))?;
        let statistics = to_line(&statistics).map_err(|error| refuse("meta/episodes_stats.jsonl", &error))?;
        self.episode_lines.push_str(&line);
        self.statistics_lines.push_str(&statistics);
        self.features = Some(describe::features(&self.spec, &prepared.videos, self.features.as_ref()));
        let rows = episode.rows as u64;
        self.manifest.episodes.push(ManifestEpisode { index: number, origin: episode.origin.clone(), rows, files });
        self.tasks = tasks;
        self.rows += rows;
        Ok(number)
    }

    /// The episode's table and videos; on an error none of them stays.
    fn write_files(&self, prepared: &Prepared<'_>, place: Place) -> Result<Vec<ManifestFile>, WriteError> {
        let (number, chunk) = (place.episode, place.episode / CHUNK_FILES);
        let mut paths = vec![format!("data/chunk-{chunk:03}/episode_{number:06}.parquet")];
        paths.extend(
            prepared
                .videos
                .iter()
                .map(|video| format!("videos/chunk-{chunk:03}/{}/episode_{number:06}.mp4", video.key)),
        );
        let mut files = Vec::new();
        let mut written = || -> Result<(), WriteError> {
            for (at, path) in paths.iter().enumerate() {
                let bytes = match at.checked_sub(1) {
                    None => {
                        let refuse = |error: ArrowError| WriteError::Table {
                            path: self.folder.path(path),
                            what: error.to_string(),
                        };
                        let batch = table::batch(&prepared.columns, place, ListName::Sequence).map_err(refuse)?;
                        self.folder.write_table(path, &batch)?
                    }
                    Some(camera) => write_video(&self.folder, path, &prepared.videos[camera])?,
                };
                files.push(ManifestFile { path: path.clone(), bytes });
            }
            Ok(())
        };
        if let Err(error) = written() {
            for path in &paths {
                // The first error is the one to tell; what stays is overwritten by the next episode.
                let _ = self.folder.remove(path);
            }
            return Err(error);
        }
        Ok(files)
    }

    /// Writes the lists and, last, `info.json`. Returns what the dataset holds.
    ///
    /// # Errors
    /// When there was no episode or the disk refuses.
    pub fn finish(self) -> Result<Totals, WriteError> {
        let Some(features) = self.features else {
            return Err(WriteError::NoEpisodes);
        };
        let mut task_lines = String::new();
        for (number, text) in self.tasks.texts().iter().enumerate() {
            let line = Ordered(vec![("task_index".into(), json!(number)), ("task".into(), json!(text))]);
            let refuse = |error: serde_json::Error| WriteError::Table {
                path: self.folder.path("meta/tasks.jsonl"),
                what: error.to_string(),
            };
            task_lines.push_str(&to_line(&line).map_err(refuse)?);
        }
        for (path, text) in [
            ("meta/episodes.jsonl", &self.episode_lines),
            ("meta/tasks.jsonl", &task_lines),
            ("meta/episodes_stats.jsonl", &self.statistics_lines),
        ] {
            self.folder.write_bytes(path, text.as_bytes())?;
        }
        write_manifest(&self.folder, &self.manifest)?;
        let episodes = self.manifest.episodes.len() as u64;
        let videos = features.0.iter().filter(|(_, feature)| feature.dtype == "video").count() as u64;
        let info = Info {
            codebase_version: "v2.1".into(),
            fps: f64::from(self.spec.fps),
            features,
            total_episodes: episodes,
            total_frames: self.rows,
            total_tasks: self.tasks.texts().len() as u64,
            total_videos: Some(videos * episodes),
            total_chunks: Some(episodes.div_ceil(CHUNK_FILES)),
            chunks_size: CHUNK_FILES,
            data_files_size_in_mb: None,
            video_files_size_in_mb: None,
            data_path: DATA_PATH_V21.into(),
            video_path: (videos > 0).then(|| VIDEO_PATH_V21.into()),
            robot_type: self.spec.robot_type.clone(),
            splits: BTreeMap::from([("train".into(), format!("0:{episodes}"))]),
        };
        let text = info
            .to_text()
            .map_err(|error| WriteError::Table { path: self.folder.path(INFO), what: error.to_string() })?;
        self.folder.write_bytes(INFO, &text)?;
        Ok(Totals { episodes, rows: self.rows, tasks: info.total_tasks })
    }
}

fn to_line(value: &impl Serialize) -> Result<String, serde_json::Error> {
    let mut line = serde_json::to_string(value)?;
    line.push('\n');
    Ok(line)
}
