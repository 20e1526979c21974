//! What is said about a recording that was played: to people, and as JSON.

use serde::Serialize;
use tendon_protocol::id::SessionId;
use tendon_protocol::stream::{Content, Dtype, Role, StreamDeclaration};
use tendon_storage::records::{DatasetName, EpisodeRecord, EpisodeState};

use super::plan::{LeftOut, ROW_STREAM};
use crate::cli::output::{Output, count};

/// What `stream --json` prints.
#[derive(Clone, Debug, Serialize)]
pub struct Summary {
    /// The session.
    pub session: SessionId,
    /// Dataset on the server.
    pub dataset: DatasetName,
    /// Folder that was read.
    pub source: String,
    /// Version of its format.
    pub version: &'static str,
    /// Rows that were sent.
    pub rows: u64,
    /// Samples of all streams that were sent.
    pub samples_sent: u64,
    /// Samples that the server acknowledged as durable.
    pub samples_acknowledged: u64,
    /// Samples that were sent again after a lost connection.
    pub samples_replayed: u64,
    /// Seconds from the first sample to the last stored episode.
    pub seconds: f64,
    /// Features that were played.
    pub features: Vec<Feature>,
    /// Features that were not, and why.
    pub left_out: Vec<LeftOut>,
    /// Episodes as the server stored them.
    pub episodes: Vec<Played>,
    /// What is odd about the source or the result.
    pub warnings: Vec<String>,
}

/// A feature that was played.
#[derive(Clone, Debug, Serialize)]
pub struct Feature {
    /// Its name.
    pub feature: String,
    /// Element type.
    pub dtype: Dtype,
    /// Shape of a sample.
    pub shape: Vec<u32>,
    /// Commanded or measured.
    pub role: Role,
    /// How samples are coded.
    pub content: Content,
}

/// An episode that was played.
#[derive(Clone, Debug, Serialize)]
pub struct Played {
    /// Its number in the session.
    pub number: u32,
    /// `episode_index` in the source.
    pub source: u64,
    /// How it stands on the server.
    pub state: EpisodeState,
    /// Rows of the source.
    pub rows: u64,
    /// Samples of the row clock's stream that the server stored.
    pub stored: u64,
    /// Intervals longer than 1.5 periods that the server measured in that stream.
    pub gaps: u64,
    /// The longest of them in milliseconds.
    pub longest_gap_ms: f64,
}

pub(super) fn played(record: &EpisodeRecord, (source, rows): (u64, u64)) -> Played {
    let report = record.report.iter().flat_map(|report| &report.streams).find(|stream| stream.feature == ROW_STREAM);
    Played {
        number: record.number,
        source,
        state: record.state,
        rows,
        stored: report.map_or(0, |stream| stream.samples),
        gaps: report.map_or(0, |stream| stream.gaps),
        longest_gap_ms: report.map_or(0.0, |stream| stream.longest_gap_ms),
    }
}

/// What keeps the recording from being whole.
pub(super) fn troubles(records: &[EpisodeRecord], episodes: &[Played]) -> Vec<String> {
    let mut troubles = Vec::new();
    for (record, played) in records.iter().zip(episodes) {
        let name = format!("episode {} ({} in the source)", played.number, played.source);
        match record.state {
            EpisodeState::Stored if played.stored == played.rows => {}
            EpisodeState::Stored => {
                troubles.push(format!("{name}: {} of {} rows are stored", played.stored, played.rows))
            }
            state => {
                let why = record.error.clone().unwrap_or_else(|| format!("without {}", record.missing.join(", ")));
                troubles.push(format!("{name} is {state}: {why}"));
            }
        }
    }
    troubles
}

pub(super) fn feature(stream: StreamDeclaration) -> Feature {
    Feature {
        feature: stream.feature,
        dtype: stream.dtype,
        shape: stream.shape,
        role: stream.role,
        content: stream.content,
    }
}

pub(super) fn tell(summary: &Summary, output: &Output) {
    let gaps: u64 = summary.episodes.iter().map(|episode| episode.gaps).sum();
    let longest = summary.episodes.iter().map(|episode| episode.longest_gap_ms).fold(0.0, f64::max);
    output.note(format!(
        "{} of {} in {:.1} s; {} samples sent, {} acknowledged, {} sent again",
        count(summary.rows, "row"),
        count(summary.episodes.len() as u64, "episode"),
        summary.seconds,
        summary.samples_sent,
        summary.samples_acknowledged,
        summary.samples_replayed,
    ));
    if gaps > 0 {
        output.note(format!(
            "the recording itself has {} longer than 1.5 rows, the longest {longest:.0} ms",
            count(gaps, "gap")
        ));
    }
    output.line(summary.session.to_string());
}
