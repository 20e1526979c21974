//! Writes datasets in LeRobot's format v3.0; [`v21`] writes v2.1.
//!
//! Every [`Writer::append`] commits: when it returns, the episode is durable and the dataset loads;
//! when it fails or the machine stops in it, the dataset is as it was before. So an episode has files
//! of its own (a table, a video per camera), which no later append opens, every file appears whole
//! under its name, and `info.json`, which says how many episodes count, comes last. What a cut append
//! left behind is overwritten by the next one.
//!
//! ```
//! use tendon_dataset::episode::{Column, Episode, FeatureSpec};
//! use tendon_dataset::lerobot::{spec::DatasetSpec, writer::Writer};
//! use tendon_protocol::stream::{Content, Dtype};
//!
//! let spec = FeatureSpec {
//!     key: "action".into(),
//!     dtype: Dtype::F32,
//!     shape: vec![2],
//!     names: vec!["left".into(), "right".into()],
//!     unit: "rad".into(),
//!     content: Content::Values,
//! };
//! let values = [0.0f32, 0.5, 0.1, 0.6].iter().flat_map(|value| value.to_le_bytes()).collect();
//! let episode = Episode {
//!     fps: 30,
//!     rows: 2,
//!     tasks: vec!["wave".into()],
//!     columns: vec![Column { spec, values }],
//!     cameras: vec![],
//!     origin: "example/0".into(),
//! };
//! let folder = tempfile::tempdir()?;
//! let mut writer = Writer::create(folder.path(), DatasetSpec::of(&episode, Some("example".into())))?;
//! writer.append(&episode)?;
//! assert_eq!(writer.finish()?.rows, 2);
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```

use std::collections::BTreeMap;
use std::fs;
use std::io::{self, Write};
use std::path::Path;

use serde_json::Value;

use crate::episode::{Camera, Episode};
use crate::mp4::{Mp4Error, mux};

use super::info::{DATA_PATH_V30, Info, Ordered, VIDEO_PATH_V30, indented};
use super::spec::DatasetSpec;
use super::stats::picture::Histogram;
use super::stats::{self, Form, Running};
use super::tasks::Tasks;
use super::{CHUNK_FILES, MANIFEST, OWN_FOLDER};

pub mod manifest;
pub mod v21;

mod describe;
mod episodes;
mod error;
mod folder;
mod prepare;
mod table;
#[cfg(test)]
mod tests;

pub use error::WriteError;
use folder::Folder;
use manifest::{Manifest, ManifestEpisode, ManifestFile};
use prepare::{Prepared, Video};
use table::{ListName, Place};

/// Where `info.json` is.
const INFO: &str = "meta/info.json";
/// Where the task table is.
const TASKS: &str = "meta/tasks.parquet";
/// Sizes that LeRobot's own recorder takes as "full", in 2^20 bytes; stated, not used: our files
/// hold one episode each.
const FULL_MB: (u64, u64) = (100, 200);

/// Looks at the pictures of a camera that is coded (H.264, AV1), whose pixels this crate cannot see:
/// decodes the rows asked for and gives their histogram. Returns what went wrong as text.
pub type ImageStatistics = Box<dyn FnMut(&Camera, &[u32]) -> Result<Histogram, String> + Send>;

/// What an append did to the folder.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Commit {
    /// The episode's number in the dataset.
    pub episode: u64,
    /// Files written, relative to the root with `/` between, in the order in which they must reach
    /// another store: whoever copies them so never shows a dataset that is not whole.
    pub files: Vec<String>,
    /// Files that are not needed any more once all of `files` are there.
    pub removed: Vec<String>,
}

/// What the dataset holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Totals {
    /// Episodes.
    pub episodes: u64,
    /// Rows of all episodes.
    pub rows: u64,
    /// Different task texts.
    pub tasks: u64,
}

/// An open dataset. Only one writer at a time may have a folder.
pub struct Writer {
    folder: Folder,
    spec: DatasetSpec,
    images: Option<ImageStatistics>,
    state: State,
    /// Changes made while opening, told with the next commit.
    pending: (Vec<String>, Vec<String>),
}

/// What an append changes in memory, once its files are safe.
#[derive(Clone)]
struct State {
    totals: Totals,
    tasks: Tasks,
    running: Ordered<Running>,
    manifest: Manifest,
    info: Option<Info>,
    /// Rows of the file of meta/episodes that this writer fills.
    open_rows: Vec<episodes::Row>,
    /// The number of that file.
    open_file: u64,
}

/// The task texts that `info.json` counts. Later ones are of an append that was cut.
fn read_tasks(folder: &Folder, info: &Info) -> Result<Tasks, WriteError> {
    let damaged = |what: String| WriteError::Damaged { path: folder.path(TASKS), what };
    let table = episodes::read(folder, TASKS)?;
    let mut tasks = Tasks::from_batches(&[table]).ok_or_else(|| damaged("is not a table of tasks by number".into()))?;
    tasks.truncate(usize::try_from(info.total_tasks).unwrap_or(usize::MAX));
    if (tasks.texts().len() as u64) < info.total_tasks {
        let what = format!("{} tasks, but info.json has {}", tasks.texts().len(), info.total_tasks);
        return Err(damaged(what));
    }
    Ok(tasks)
}

impl Writer {
    /// Begins a dataset in a folder that has none. A folder that an earlier attempt left before its
    /// first episode was whole is cleared.
    ///
    /// # Errors
    /// When the promise cannot be kept, the folder has other content, or the disk refuses.
    pub fn create(root: impl AsRef<Path>, spec: DatasetSpec) -> Result<Self, WriteError> {
        spec.check()?;
        let root = root.as_ref();
        let folder = Folder::new(root);
        clear_unfinished(&folder, root)?;
        let manifest = Manifest::new(describe::units(&spec));
        write_manifest(&folder, &manifest)?;
        let mut running = Ordered::default();
        for feature in &spec.features {
            let form = if feature.content.is_camera() { Form::Picture } else { Form::Vector };
            running.0.push((feature.key.clone(), Running::new(form, prepare::statistics_width(&feature.shape))));
        }
        for key in super::DEFAULT_FEATURES {
            running.0.push((key.to_owned(), Running::new(Form::Vector, 1)));
        }
        let totals = Totals { episodes: 0, rows: 0, tasks: 0 };
        let state = State {
            totals,
            tasks: Tasks::default(),
            running,
            manifest,
            info: None,
            open_rows: Vec::new(),
            open_file: 0,
        };
        Ok(Self { folder, spec, images: None, state, pending: Default::default() })
    }

    /// Opens a dataset that this crate wrote, to add episodes. Only its `meta` folder must be there,
    /// so a dataset in another store can be gone on with after fetching that. What an append that
    /// was cut left behind is removed.
    ///
    /// # Errors
    /// When there is no dataset of ours, it is damaged, or it differs from `spec`: every real
    /// difference is named.
    pub fn append_to(root: impl AsRef<Path>, spec: DatasetSpec) -> Result<Self, WriteError> {
        spec.check()?;
        let root = root.as_ref();
        let folder = Folder::new(root);
        let info: Info = read_json(&folder, INFO)?;
        if info.codebase_version != "v3.0" {
            return Err(WriteError::Version { path: root.to_path_buf(), got: info.codebase_version });
        }
        let damaged = |relative: &str, what: String| WriteError::Damaged { path: folder.path(relative), what };
        if !folder.path(MANIFEST).is_file() {
            return Err(WriteError::NotOurs { path: root.to_path_buf() });
        }
        let mut manifest: Manifest = read_json(&folder, MANIFEST)?;
        let known = describe::spec_of(&info, &manifest.units).map_err(|what| damaged(INFO, what))?;
        let differences = known.differences(&spec);
        if !differences.is_empty() {
            return Err(WriteError::Different { what: root.display().to_string(), differences });
        }
        let episodes = info.total_episodes;
        if (manifest.episodes.len() as u64) < episodes {
            let what = format!(
                "{} episodes, but info.json has {episodes}; another program changed the dataset, export it again",
                manifest.episodes.len()
            );
            return Err(damaged(MANIFEST, what));
        }
        manifest.episodes.truncate(usize::try_from(episodes).unwrap_or(usize::MAX));
        let tasks = read_tasks(&folder, &info)?;
        let statistics = running_path(episodes);
        let running: Ordered<Running> = read_json(&folder, &statistics)?;
        check_running(&running, &info).map_err(|what| damaged(&statistics, what))?;
        let (open_file, end, shortened) = episodes::trim(&folder, episodes)?;
        if end != info.total_frames {
            return Err(damaged(
                INFO,
                format!("total_frames is {}, but the last episode ends at row {end}", info.total_frames),
            ));
        }
        let removed = sweep(&folder, episodes, open_file)?;
        let totals = Totals { episodes, rows: info.total_frames, tasks: info.total_tasks };
        // Units may be stated for the first time; names and order are those of the dataset.
        manifest.units.extend(describe::units(&spec));
        let not_finite = spec.not_finite;
        let state = State { totals, tasks, running, manifest, info: Some(info), open_rows: Vec::new(), open_file };
        let pending = (shortened.into_iter().collect(), removed);
        Ok(Self { folder, spec: DatasetSpec { not_finite, ..known }, images: None, state, pending })
    }

    /// Sets who looks at the pictures of coded cameras. Without it an episode with one is refused.
    #[must_use]
    pub fn with_image_statistics(mut self, collect: ImageStatistics) -> Self {
        self.images = Some(collect);
        self
    }

    /// What the dataset promises.
    #[must_use]
    pub fn spec(&self) -> &DatasetSpec {
        &self.spec
    }

    /// What the dataset holds now.
    #[must_use]
    pub fn totals(&self) -> Totals {
        self.state.totals
    }

    /// Adds an episode and commits it. After an error the dataset and this writer are as before.
    ///
    /// # Errors
    /// Names the episode and what of it does not fit, or the file that the disk refused.
    pub fn append(&mut self, episode: &Episode) -> Result<Commit, WriteError> {
        let mut state = self.state.clone();
        let task = number_tasks(&mut state.tasks, &episode.tasks);
        let number = state.totals.episodes;
        let place =
            Place { episode: number, first_index: state.totals.rows, task, rows: episode.rows, fps: self.spec.fps };
        let prepared = prepare::prepare(episode, &self.spec, place, &mut self.images)?;
        let files = match self.commit(&mut state, &prepared, episode, place) {
            Ok(files) => files,
            Err(error) => {
                self.undo();
                return Err(error);
            }
        };
        let mut removed = std::mem::take(&mut self.pending.1);
        self.pending.0.clear();
        self.state = state;
        if number > 0 {
            let path = running_path(number);
            // The episode is committed: what cannot be removed now is swept at the next opening.
            if let Err(error) = self.folder.remove(&path) {
                tracing::warn!(%error, "a file that is not needed any more stays");
            }
            removed.push(path);
        }
        // A leftover of a cut append may have had the name of a file that this one wrote.
        removed.retain(|path| !files.contains(path));
        Ok(Commit { episode: number, files, removed })
    }

    /// Writes all files of an episode in commit order, and into `state` what they say.
    fn commit(
        &self,
        state: &mut State,
        prepared: &Prepared<'_>,
        episode: &Episode,
        place: Place,
    ) -> Result<Vec<String>, WriteError> {
        let number = place.episode;
        let mut files = self.pending.0.clone();
        let own = self.write_episode(prepared, place)?;
        files.extend(own.iter().map(|file| file.path.clone()));
        files.push(self.write_row(state, prepared, episode, place)?);
        self.folder.write_table(TASKS, &state.tasks.to_batch().map_err(|error| self.table_error(TASKS, &error))?)?;
        files.push(TASKS.into());
        files.extend(self.write_statistics(state, prepared, number + 1)?);
        let rows = place.rows as u64;
        state.manifest.episodes.push(ManifestEpisode {
            index: number,
            origin: episode.origin.clone(),
            rows,
            files: own,
        });
        write_manifest(&self.folder, &state.manifest)?;
        files.push(MANIFEST.into());
        state.totals =
            Totals { episodes: number + 1, rows: state.totals.rows + rows, tasks: state.tasks.texts().len() as u64 };
        let info = self.info(state, &prepared.videos);
        let text = info.to_text().map_err(|error| self.table_error(INFO, &error))?;
        self.folder.write_bytes(INFO, &text)?;
        files.push(INFO.into());
        state.info = Some(info);
        Ok(files)
    }

    /// Takes away what a failed append wrote, as far as the disk lets us. The dataset is whole either
    /// way, but a table that nobody refers to would read as rows behind the last episode.
    fn undo(&self) {
        let State { totals, open_rows, open_file, .. } = &self.state;
        let undone = || -> Result<(), WriteError> {
            sweep(&self.folder, totals.episodes, open_file + u64::from(!open_rows.is_empty()))?;
            if !open_rows.is_empty() {
                let path = episodes::path(*open_file);
                let batch = episodes::batch(open_rows, *open_file).map_err(|error| self.table_error(&path, &error))?;
                self.folder.write_table(&path, &batch)?;
            }
            Ok(())
        }();
        if let Err(error) = undone {
            tracing::warn!(%error, "a failed append left files behind; the next opening removes them");
        }
    }

    /// Ends the writing. Everything is on disk already.
    ///
    /// # Errors
    /// When the dataset has no episode: LeRobot cannot load that.
    pub fn finish(self) -> Result<Totals, WriteError> {
        if self.state.totals.episodes == 0 {
            return Err(WriteError::NoEpisodes);
        }
        Ok(self.state.totals)
    }

    fn table_error(&self, relative: &str, error: &dyn std::fmt::Display) -> WriteError {
        WriteError::Table { path: self.folder.path(relative), what: error.to_string() }
    }

    /// The files that belong to this episode alone.
    fn write_episode(&self, prepared: &Prepared<'_>, place: Place) -> Result<Vec<ManifestFile>, WriteError> {
        let (chunk, file) = episodes::place(place.episode);
        let path = format!("data/chunk-{chunk:03}/file-{file:03}.parquet");
        let batch =
            table::batch(&prepared.columns, place, ListName::List).map_err(|error| self.table_error(&path, &error))?;
        let bytes = self.folder.write_table(&path, &batch)?;
        let mut files = vec![ManifestFile { path, bytes }];
        for video in &prepared.videos {
            let path = format!("videos/{}/chunk-{chunk:03}/file-{file:03}.mp4", video.key);
            let bytes = write_video(&self.folder, &path, video)?;
            files.push(ManifestFile { path, bytes });
        }
        Ok(files)
    }

    /// The row of meta/episodes. A file that is full, or that this writer did not begin, is left alone.
    fn write_row(
        &self,
        state: &mut State,
        prepared: &Prepared<'_>,
        episode: &Episode,
        place: Place,
    ) -> Result<String, WriteError> {
        if state.open_rows.len() >= episodes::ROWS_MAX {
            state.open_rows.clear();
            state.open_file += 1;
        }
        state.open_rows.push(episodes::Row {
            episode: place.episode,
            tasks: if episode.tasks.is_empty() { vec![String::new()] } else { episode.tasks.clone() },
            length: place.rows as u64,
            first_index: place.first_index,
            fps: place.fps,
            videos: prepared.videos.iter().map(|video| video.key.to_owned()).collect(),
            statistics: prepared.statistics.iter().map(|entry| (entry.key.clone(), entry.summary())).collect(),
        });
        let path = episodes::path(state.open_file);
        let batch =
            episodes::batch(&state.open_rows, state.open_file).map_err(|error| self.table_error(&path, &error))?;
        self.folder.write_table(&path, &batch)?;
        Ok(path)
    }

    fn write_statistics(
        &self,
        state: &mut State,
        prepared: &Prepared<'_>,
        episodes: u64,
    ) -> Result<[String; 2], WriteError> {
        let mut all: Ordered<Ordered<Value>> = Ordered::default();
        for ((key, running), entry) in state.running.0.iter_mut().zip(&prepared.statistics) {
            running.add(entry.count, &entry.elements);
            all.0.push((key.clone(), running.summary().to_json(&stats::NAMES)));
        }
        let path = "meta/stats.json";
        let text = indented(&all).map_err(|error| self.table_error(path, &error))?;
        self.folder.write_bytes(path, &text)?;
        let running = running_path(episodes);
        let text = serde_json::to_vec(&state.running).map_err(|error| self.table_error(&running, &error))?;
        self.folder.write_bytes(&running, &text)?;
        Ok([path.into(), running])
    }

    fn info(&self, state: &State, videos: &[Video<'_>]) -> Info {
        let Totals { episodes, rows, tasks } = state.totals;
        Info {
            codebase_version: "v3.0".into(),
            fps: f64::from(self.spec.fps),
            features: describe::features(&self.spec, videos, state.info.as_ref().map(|info| &info.features)),
            total_episodes: episodes,
            total_frames: rows,
            total_tasks: tasks,
            total_videos: None,
            total_chunks: None,
            chunks_size: CHUNK_FILES,
            data_files_size_in_mb: Some(FULL_MB.0),
            video_files_size_in_mb: Some(FULL_MB.1),
            data_path: DATA_PATH_V30.into(),
            video_path: (!videos.is_empty()).then(|| VIDEO_PATH_V30.into()),
            robot_type: self.spec.robot_type.clone(),
            splits: BTreeMap::from([("train".into(), format!("0:{episodes}"))]),
        }
    }
}

/// Gives every text a number; the first one's is the task of all rows. Without any text it is "".
fn number_tasks(tasks: &mut Tasks, texts: &[String]) -> u64 {
    let first = tasks.number(texts.first().map_or("", String::as_str));
    for text in texts {
        tasks.number(text);
    }
    first
}

fn write_video(folder: &Folder, path: &str, video: &Video<'_>) -> Result<u64, WriteError> {
    folder.write(path, |out| {
        mux::write(out, video.format, &video.units).map_err(|error| match error {
            Mp4Error::Io(source) => WriteError::Io { path: folder.path(path), source },
            other => WriteError::Table { path: folder.path(path), what: other.to_string() },
        })
    })
}

fn write_manifest(folder: &Folder, manifest: &Manifest) -> Result<(), WriteError> {
    let text = manifest
        .to_text()
        .map_err(|error| WriteError::Table { path: folder.path(MANIFEST), what: error.to_string() })?;
    folder.write(MANIFEST, |out| out.write_all(text.as_bytes()).map_err(folder.io(MANIFEST)))?;
    Ok(())
}

/// Statistics of the first `episodes` episodes. The number in the name ties the file to an
/// `info.json`: the one before stays until the next is committed.
fn running_path(episodes: u64) -> String {
    format!("{OWN_FOLDER}/statistics-{episodes:06}.json")
}

fn check_running(running: &Ordered<Running>, info: &Info) -> Result<(), String> {
    if running.0.len() != info.features.0.len() {
        return Err(format!("{} features, but info.json has {}", running.0.len(), info.features.0.len()));
    }
    for ((key, running), (expected, feature)) in running.0.iter().zip(&info.features.0) {
        let width = prepare::statistics_width(&feature.shape);
        if key != expected || running.width() != width {
            return Err(format!(
                "{key:?} of {} elements where {expected:?} of {width} belongs; export the dataset again",
                running.width()
            ));
        }
    }
    Ok(())
}

fn read_json<T: serde::de::DeserializeOwned>(folder: &Folder, relative: &str) -> Result<T, WriteError> {
    let bytes = fs::read(folder.path(relative)).map_err(folder.io(relative))?;
    serde_json::from_slice(&bytes)
        .map_err(|error| WriteError::Damaged { path: folder.path(relative), what: error.to_string() })
}

/// Refuses a folder with content, unless it is a dataset of ours whose first episode was never whole.
fn clear_unfinished(folder: &Folder, root: &Path) -> Result<(), WriteError> {
    let taken = || WriteError::Taken { path: root.to_path_buf() };
    let parts = ["meta", "data", "videos"];
    if parts.iter().all(|part| !folder.path(part).exists()) {
        return Ok(());
    }
    if folder.path(INFO).exists() {
        return Err(taken());
    }
    let manifest: Manifest = read_json(folder, MANIFEST).map_err(|_| taken())?;
    if manifest.episodes.len() > 1 {
        return Err(taken());
    }
    for part in parts {
        match fs::remove_dir_all(folder.path(part)) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(folder.io(part)(error)),
            _ => {}
        }
    }
    Ok(())
}

/// Removes what does not belong to the first `episodes` episodes: a stray table would become rows.
fn sweep(folder: &Folder, episodes: u64, first_free_file: u64) -> Result<Vec<String>, WriteError> {
    let mut removed = Vec::new();
    for (part, kept) in [("data", episodes), ("videos", episodes), ("meta/episodes", first_free_file)] {
        for path in folder.files(part)? {
            if is_temporary(&path) || file_number(&path).is_some_and(|number| number >= kept) {
                folder.remove(&path)?;
                removed.push(path);
            }
        }
    }
    let current = running_path(episodes);
    for path in folder.files(OWN_FOLDER)? {
        if path != current {
            folder.remove(&path)?;
            removed.push(path);
        }
    }
    for path in folder.files("meta")?.into_iter().filter(|path| is_temporary(path)) {
        folder.remove(&path)?;
        removed.push(path);
    }
    Ok(removed)
}

fn is_temporary(path: &str) -> bool {
    path.rsplit('/').next().is_some_and(|name| name.starts_with('.') && name.ends_with(".part"))
}

/// The n of the n-th file of its kind, from `.../chunk-C/file-F.ext`.
fn file_number(path: &str) -> Option<u64> {
    let mut parts = path.rsplit('/');
    let (file, chunk) = (parts.next()?, parts.next()?);
    let file: u64 = file.strip_prefix("file-")?.split('.').next()?.parse().ok()?;
    let chunk: u64 = chunk.strip_prefix("chunk-")?.parse().ok()?;
    chunk.checked_mul(CHUNK_FILES)?.checked_add(file)
}
