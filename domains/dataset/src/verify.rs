//! A dataset checked more strictly than lerobot checks it: `tendon verify`.
//!
//! [`verify`] reads everything it can and never stops at the first fault. Each fault becomes one
//! [`Finding`] with a stable code, see [`code`] for the table. Most of lerobot's troubles come at the
//! first use of an item, or never, as a wrong picture or a wrong text; a verifier earns its keep with
//! those. v2.0 and v2.1 are checked by their own rules.
//!
//! Read in the order of the work: [`info`], [`meta`], [`stats`], [`rows`], [`video`], [`files`].

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use serde::Serialize;

use crate::lerobot::reader::file::{self, FileFault};
use crate::lerobot::reader::meta::{self as reader_meta, Episodes, Tasks, Version};
use crate::lerobot::reader::raw_info::RawInfo;

pub mod code;

mod files;
mod findings;
mod info;
mod meta;
mod rows;
mod stats;
mod video;

pub use code::{Code, Severity, markdown};

use findings::Findings;

/// Files read besides data and videos: info, episodes, tasks, statistics, the listing.
const META_STEPS: u64 = 5;

/// Where a finding is.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
struct Place {
    file: String,
    episode: Option<u64>,
    row: Option<u64>,
}

impl Place {
    fn file(path: &str) -> Self {
        Self { file: path.to_owned(), ..Self::default() }
    }

    fn at(path: &str, row: u64) -> Self {
        Self { row: Some(row), ..Self::file(path) }
    }

    fn episode(path: &str, episode: u64) -> Self {
        Self { episode: Some(episode), ..Self::file(path) }
    }

    fn row(path: &str, episode: u64, row: u64) -> Self {
        Self { file: path.to_owned(), episode: Some(episode), row: Some(row) }
    }
}

/// One fault.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Finding {
    /// Stable name of the kind of fault.
    pub code: &'static str,
    /// How bad it is.
    pub severity: Severity,
    /// Path inside the dataset.
    pub file: String,
    /// `episode_index`, where there is one.
    pub episode: Option<u64>,
    /// 0-based row of that file; in JSONL files the 1-based line, in videos the 0-based row of the episode.
    pub row: Option<u64>,
    /// What is wrong, with values and counts.
    pub message: String,
    /// What to do about it.
    pub remedy: &'static str,
}

/// What was found.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Report {
    /// The folder as it was named.
    pub dataset: String,
    /// `codebase_version` as `info.json` writes it.
    pub version: Option<String>,
    /// Episodes that have rows in the data.
    pub episodes: u64,
    /// Rows read.
    pub frames: u64,
    /// Faults, errors first.
    pub findings: Vec<Finding>,
    #[serde(skip)]
    usable: bool,
}

impl Report {
    /// 0: nothing found. 1: something found. 2: no dataset, or not one row of it can be read.
    #[must_use]
    pub fn exit_code(&self) -> u8 {
        match (self.usable, self.findings.is_empty()) {
            (false, _) => 2,
            (true, false) => 1,
            (true, true) => 0,
        }
    }

    /// Whether lerobot would refuse the dataset or give something wrong.
    #[must_use]
    pub fn has_errors(&self) -> bool {
        findings::any_error(&self.findings)
    }
}

/// What the checks look at.
#[derive(Debug)]
struct Subject {
    root: PathBuf,
    info: RawInfo,
    version: Version,
    episodes: Episodes,
    /// All files of the episode table were read to their end.
    episodes_whole: bool,
    tasks: Tasks,
    /// Data and video files that the metadata refers to.
    expected: BTreeSet<String>,
    /// Starts or parts of paths whose files cannot be told apart: the metadata does not say where they are.
    blind: Vec<String>,
}

/// Steps done, for the caller's progress bar.
struct Progress<'a> {
    report: &'a mut dyn FnMut(u64, u64),
    done: u64,
    total: u64,
}

impl Progress<'_> {
    fn step(&mut self) {
        self.done += 1;
        (self.report)(self.done.min(self.total), self.total);
    }
}

/// Check the dataset in `root`. `progress` is told (files done, files in all).
pub fn verify(root: &Path, progress: &mut dyn FnMut(u64, u64)) -> Report {
    let mut findings = Findings::default();
    let mut report = Report {
        dataset: root.display().to_string(),
        version: None,
        episodes: 0,
        frames: 0,
        findings: Vec::new(),
        usable: false,
    };
    match load(root, &mut findings) {
        None => progress(1, 1),
        Some(subject) => {
            report.version = subject.info.version().map(str::to_owned);
            let rows = check(subject, &mut findings, progress);
            (report.episodes, report.frames) = (rows.episodes.len() as u64, rows.count);
            report.usable = rows.count > 0;
        }
    }
    report.findings = findings.finish();
    report
}

/// Read the metadata; `None` when there is nothing to check.
fn load(root: &Path, findings: &mut Findings) -> Option<Subject> {
    if !root.is_dir() {
        findings.add(Code::NotADataset, Place::default(), || "no such folder".into());
        return None;
    }
    let bytes = match file::read_text(&root.join(info::PATH)) {
        Ok(bytes) => bytes,
        Err(FileFault::Missing) => {
            findings.add(Code::NotADataset, Place::file(info::PATH), || "meta/info.json is missing".into());
            return None;
        }
        Err(fault) => {
            findings.file(info::PATH, &fault);
            return None;
        }
    };
    let info = match RawInfo::parse(&bytes) {
        Ok(info) => info,
        Err(message) => {
            findings.add(Code::JsonDamaged, Place::file(info::PATH), || message);
            return None;
        }
    };
    let Some(version) = reader_meta::detect_version(root, &info) else {
        let what = info.keys.get("codebase_version").map_or_else(|| "missing".to_owned(), ToString::to_string);
        findings.add(Code::NotADataset, Place::file(info::PATH), || {
            format!("codebase_version is {what}, and no table of episodes or tasks is there to tell the version by")
        });
        return None;
    };
    let videos: Vec<String> = info.videos().map(|feature| feature.key.clone()).collect();
    let episodes = reader_meta::episodes(root, version, &videos);
    let whole = |file: &reader_meta::MetaFile| file.fault.is_none() && file.line_faults.is_empty();
    let episodes_whole = !episodes.files.is_empty() && episodes.files.iter().all(whole);
    let tasks = reader_meta::tasks(root, version);
    Some(Subject {
        root: root.to_owned(),
        info,
        version,
        episodes,
        episodes_whole,
        tasks,
        expected: BTreeSet::new(),
        blind: Vec::new(),
    })
}

fn check(mut subject: Subject, findings: &mut Findings, report: &mut dyn FnMut(u64, u64)) -> rows::Rows {
    let data = rows::plan(&mut subject, findings);
    let videos = video::plan(&mut subject, findings);
    let total = META_STEPS + data.files.len() as u64 + videos.files.len() as u64;
    let mut progress = Progress { report, done: 0, total };
    info::check(&subject, findings);
    progress.step();
    meta::check_episodes(&subject, findings);
    progress.step();
    meta::check_tasks(&subject, findings);
    progress.step();
    let rows = rows::check(&subject, &data, findings, &mut progress);
    stats::check(&subject, &rows, findings);
    progress.step();
    video::check(&subject, &videos, &rows, findings, &mut progress);
    files::check(&subject, findings);
    info::totals(&subject, rows.whole.then_some(rows.count), findings);
    progress.step();
    rows
}
