//! Row by row through all data files.

use std::collections::{BTreeMap, BTreeSet};

use super::super::code::Code;
use super::super::findings::Findings;
use super::super::{Place, Subject};
use super::moments::Moments;
use super::times::{self, Times};
use super::{DataFile, Rows, Seen, number};
use crate::lerobot::reader::OWN_COLUMNS;
use crate::lerobot::reader::cells::{Cells, Stored};
use crate::lerobot::reader::table::Batch;

/// The episode that the rows are in.
#[derive(Debug)]
struct Current {
    episode: u64,
    file: String,
    first_row: u64,
    first_index: Option<i64>,
    rows: u64,
    seconds: Vec<f64>,
    tasks: BTreeSet<i64>,
}

/// What is known while walking.
#[derive(Debug)]
pub(super) struct Walk<'a> {
    subject: &'a Subject,
    lengths: BTreeMap<u64, i64>,
    starts: BTreeMap<u64, i64>,
    tasks: BTreeMap<i64, String>,
    listed: BTreeMap<u64, &'a [String]>,
    rows: Rows,
    used: BTreeSet<i64>,
    current: Option<Current>,
    file: DataFile,
    row: u64,
    /// `index` that the next row should have; unknown after a file that could not be read.
    next_index: Option<i64>,
}

impl<'a> Walk<'a> {
    pub(super) fn new(subject: &'a Subject) -> Self {
        let (mut lengths, mut starts, mut listed) = (BTreeMap::new(), BTreeMap::new(), BTreeMap::new());
        let mut next = 0_i64;
        for row in &subject.episodes.rows {
            let (Some(index), Some(length)) = (number(row), row.length) else {
                continue;
            };
            lengths.insert(index, length);
            starts.insert(index, next);
            next = next.saturating_add(length);
            if let Some(tasks) = &row.tasks {
                listed.insert(index, tasks.as_slice());
            }
        }
        // v3.0 looks texts up by position, v2 by number.
        let by_position = !subject.version.is_v2();
        let tasks = subject.tasks.rows.iter().enumerate().filter_map(|(position, task)| {
            let index = if by_position { i64::try_from(position).ok() } else { task.index };
            Some((index?, task.text.clone().unwrap_or_default()))
        });
        Self {
            subject,
            lengths,
            starts,
            tasks: tasks.collect(),
            listed,
            rows: Rows::default(),
            used: BTreeSet::new(),
            current: None,
            file: DataFile { path: String::new(), episode: None },
            row: 0,
            next_index: Some(0),
        }
    }

    /// A new file begins.
    pub(super) fn begin(&mut self, file: &DataFile, columns: &[String]) {
        self.file = file.clone();
        self.row = 0;
        if let Some(episode) = file.episode {
            self.next_index = self.starts.get(&episode).copied();
        }
        for feature in &self.subject.info.features {
            if columns.contains(&feature.key) && !self.rows.moments.contains_key(&feature.key) {
                let float = feature.dtype.as_deref().is_some_and(|dtype| dtype.starts_with("float"));
                self.rows.moments.insert(feature.key.clone(), Moments::new(feature.width().unwrap_or(0), float));
            }
        }
    }

    /// Rows of the file were lost; the `index` of the next one is unknown.
    pub(super) fn skip(&mut self, rows: u64) {
        self.row = self.row.saturating_add(rows);
        self.next_index = None;
    }

    pub(super) fn take(&mut self, batch: &Batch, findings: &mut Findings) {
        for row in 0..batch.rows {
            self.episode_of(batch, row, findings);
            self.own_columns(batch, row, findings);
            self.rows.count += 1;
            self.row += 1;
        }
        // Values are taken per column, after the boundaries are known, so that one look-up serves all rows.
        self.values(batch, findings);
    }

    fn here(&self) -> Place {
        let episode = self.current.as_ref().map(|current| current.episode);
        Place { file: self.file.path.clone(), episode, row: Some(self.row) }
    }

    /// Follow `episode_index`; a change ends one episode and begins another.
    fn episode_of(&mut self, batch: &Batch, row: usize, findings: &mut Findings) {
        let cells = batch.get("episode_index");
        let stated = cells.and_then(|cells| cells.integer(row)).and_then(|index| u64::try_from(index).ok());
        let episode = match (stated, self.file.episode) {
            (Some(stated), Some(wanted)) if stated != wanted => {
                let place = Place::row(&self.file.path, wanted, self.row);
                findings.add(Code::EpisodeIndexWrong, place, || {
                    format!("episode_index is {stated} in the file of episode {wanted}")
                });
                wanted
            }
            (Some(stated), _) => stated,
            (None, wanted) => {
                if cells.is_some() {
                    let place = Place { episode: None, ..self.here() };
                    findings
                        .add(Code::EpisodeIndexWrong, place, || "episode_index is no whole number from 0 on".into());
                }
                wanted.or_else(|| self.current.as_ref().map(|current| current.episode)).unwrap_or(0)
            }
        };
        if self
            .current
            .as_ref()
            .is_some_and(|current| current.episode == episode && (self.row > 0 || self.file.episode.is_none()))
        {
            return;
        }
        let before = self.current.as_ref().map(|current| current.episode);
        self.end_episode(findings);
        if before.is_some_and(|before| episode < before) || self.rows.episodes.contains_key(&episode) {
            let place = Place::row(&self.file.path, episode, self.row);
            let before = before.unwrap_or(0);
            findings
                .add(Code::RowsOrder, place, || format!("a row of episode {episode} follows rows of episode {before}"));
        }
        let first_index = batch.get("index").and_then(|cells| cells.integer(row));
        let (file, first_row) = (self.file.path.clone(), self.row);
        self.current = Some(Current {
            episode,
            file,
            first_row,
            first_index,
            rows: 0,
            seconds: Vec::new(),
            tasks: BTreeSet::new(),
        });
    }

    fn own_columns(&mut self, batch: &Batch, row: usize, findings: &mut Findings) {
        let place = self.here();
        let integer = |name: &str| batch.get(name).map(|cells| cells.integer(row));
        let Some(current) = &mut self.current else { return };
        if let Some(frame) = integer("frame_index")
            && frame != i64::try_from(current.rows).ok()
        {
            findings.add(Code::FrameIndexWrong, place.clone(), || {
                format!("frame_index is {} in row {} of the episode", text(frame), current.rows)
            });
        }
        if let Some(index) = integer("index") {
            if let Some(next) = self.next_index
                && index != Some(next)
            {
                findings.add(Code::IndexWrong, place.clone(), || {
                    format!("index is {}, the row is number {next}", text(index))
                });
            }
            self.next_index = self.next_index.or(index).map(|next| next.saturating_add(1));
        }
        if let Some(task) = integer("task_index") {
            if self.subject.tasks.file.fault.is_none() && !task.is_some_and(|task| self.tasks.contains_key(&task)) {
                let count = self.tasks.len();
                findings
                    .add(Code::TaskIndex, place, || format!("task_index is {}, there are {count} tasks", text(task)));
            }
            current.tasks.extend(task);
        }
        let seconds = batch.get("timestamp").and_then(|cells| cells.scalar(row));
        if let Some(seconds) = seconds {
            current.seconds.push(seconds);
        }
        current.rows += 1;
        let seen = self.rows.episodes.entry(current.episode).or_default();
        seen.rows += 1;
        #[expect(clippy::cast_possible_truncation, reason = "the rounding that lerobot does")]
        seen.times.extend(seconds.map(|seconds| seconds as f32));
        match seen.files.get_mut(&self.file.path) {
            Some(rows) => *rows += 1,
            None => {
                seen.files.insert(self.file.path.clone(), 1);
            }
        }
    }

    fn values(&mut self, batch: &Batch, findings: &mut Findings) {
        let first = self.row - batch.rows as u64;
        let episodes = batch.get("episode_index");
        let fallback = self.file.episode;
        let episode_at = |row: usize| {
            episodes.and_then(|cells| cells.integer(row)).and_then(|index| u64::try_from(index).ok()).or(fallback)
        };
        for feature in &self.subject.info.features {
            let (Some(cells), Some(moments)) = (batch.get(&feature.key), self.rows.moments.get_mut(&feature.key))
            else {
                continue;
            };
            let width = feature.width();
            let mut before = None;
            for row in 0..batch.rows {
                let episode = episode_at(row);
                if episode != before || (row == 0 && first == 0) {
                    moments.cut();
                    before = episode;
                }
                let place = || Place { file: self.file.path.clone(), episode, row: Some(first + row as u64) };
                one_value(&feature.key, feature.names.flat(), width, cells, row, moments, findings, &place);
            }
        }
    }

    fn end_episode(&mut self, findings: &mut Findings) {
        let Some(current) = self.current.take() else { return };
        let length = self.lengths.get(&current.episode).and_then(|length| u64::try_from(*length).ok());
        let times = Times {
            seconds: &current.seconds,
            first_index: current.first_index,
            length_differs: length.is_some_and(|length| length != current.rows),
            file: &current.file,
            first_row: current.first_row,
            episode: current.episode,
        };
        times::judge(self.subject, &times, findings);
        if let Some(listed) = self.listed.get(&current.episode) {
            for task in &current.tasks {
                if let Some(text) = self.tasks.get(task).filter(|text| !listed.contains(text)) {
                    let place = Place::row(&current.file, current.episode, current.first_row);
                    let short: String = text.chars().take(80).collect();
                    findings.grouped(Code::EpisodeTask, "rows", place, || {
                        format!("rows are of task \"{short}\", which the episode does not list")
                    });
                }
            }
        }
        self.used.extend(current.tasks);
    }

    pub(super) fn finish(mut self, findings: &mut Findings) -> Rows {
        self.end_episode(findings);
        if self.rows.count > 0 && !self.used.is_empty() {
            let path = &self.subject.tasks.file.path;
            for (position, task) in self.subject.tasks.rows.iter().enumerate() {
                let index = if self.subject.version.is_v2() { task.index } else { i64::try_from(position).ok() };
                if index.is_some_and(|index| !self.used.contains(&index)) {
                    let short: String = task.text.iter().flat_map(|text| text.chars()).take(80).collect();
                    findings.add(Code::TaskUnused, Place::at(path, task.row), || {
                        format!("no row points to task \"{short}\"")
                    });
                }
            }
        }
        self.rows
    }
}

fn text(value: Option<i64>) -> String {
    value.map_or_else(|| "no whole number".into(), |value| value.to_string())
}

#[expect(clippy::too_many_arguments, reason = "one step of the inner loop, split off for its length only")]
fn one_value(
    key: &str,
    names: &[String],
    width: Option<u64>,
    cells: &Cells,
    row: usize,
    moments: &mut Moments,
    findings: &mut Findings,
    place: &dyn Fn() -> Place,
) {
    if width.is_some_and(|width| width != cells.width(row) as u64) {
        let (found, width) = (cells.width(row), width.unwrap_or(0));
        findings.grouped(Code::ListWidth, key, place(), || format!("{key}: {found} elements, the shape has {width}"));
    }
    if cells.is_null(row) {
        findings.grouped(Code::NullValue, key, place(), || format!("{key} is null or holds a null"));
        return;
    }
    let (bad, wrap) = moments.add(cells, row);
    let name = |at: usize| names.get(at).cloned().unwrap_or_else(|| format!("element {at}"));
    if let Some(at) = bad {
        let value = cells.float(cells.bounds[row] + at);
        findings.grouped(Code::NotFinite, key, place(), || format!("{key}: {} is {value}", name(at)));
    }
    if let Some((at, before, after)) = wrap.filter(|_| !OWN_COLUMNS.contains(&key) && cells.stored != Stored::Bool) {
        findings.grouped(Code::Wrap, key, place(), || format!("{key}: {} goes from {before} to {after}", name(at)));
    }
}

impl Rows {
    /// The rows of one episode, if any were read.
    pub(in super::super) fn episode(&self, episode: u64) -> Option<&Seen> {
        self.episodes.get(&episode)
    }
}
