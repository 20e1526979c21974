//! An export: a job that writes a dataset's or a session's episodes as LeRobot.

use serde::{Deserialize, Serialize};
use tendon_protocol::id::SessionId;

use super::dataset::DatasetName;
use super::episode::EpisodeKey;
use super::text::{finite, words};

words! {
    /// Version of the LeRobot format.
    ExportFormat, "export format" {
        /// Many episodes a file.
        V30 = "v3.0",
        /// One file an episode, for readers that still pin it.
        V21 = "v2.1",
    }
}

words! {
    /// What becomes of camera samples.
    VideoChoice, "video choice" {
        /// Muxed unchanged.
        Keep = "keep",
        /// Encoded as H.264.
        H264 = "h264",
        /// Encoded as AV1.
        Av1 = "av1",
    }
}

words! {
    /// Where a job is in its life.
    JobState, "job state" {
        /// Waits for its turn.
        Queued = "queued",
        /// Runs.
        Running = "running",
        /// Ended well.
        Done = "done",
        /// Ended by a fault, see [`ExportRecord::error`].
        Failed = "failed",
    }
}

/// One file of a finished export.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ExportFile {
    /// Path below the export's prefix.
    pub path: String,
    /// Length in bytes.
    pub bytes: u64,
}

/// One export job. It has a `dataset` or a `session`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct ExportRecord {
    /// A UUID version 7 in its usual text form: ids made later sort later.
    pub id: String,
    /// The dataset whose episodes are joined.
    #[serde(default)]
    pub dataset: Option<DatasetName>,
    /// The session whose episodes are written.
    #[serde(default)]
    pub session: Option<SessionId>,
    /// The format to write.
    pub format: ExportFormat,
    /// Episodes to leave out.
    #[serde(default)]
    pub exclude: Vec<EpisodeKey>,
    /// Whether samples with NaN or infinities may be written.
    #[serde(default)]
    pub allow_not_finite: bool,
    /// What becomes of camera samples.
    pub video: VideoChoice,
    /// Where the job is in its life.
    pub state: JobState,
    /// Done part, 0 to 1.
    #[serde(default, serialize_with = "finite")]
    pub progress: f64,
    /// What it does now, for a person.
    #[serde(default)]
    pub step: String,
    /// Episodes written.
    #[serde(default)]
    pub episodes_done: u32,
    /// Episodes to write.
    #[serde(default)]
    pub episodes_total: u32,
    /// Rows written.
    #[serde(default)]
    pub rows: u64,
    /// Why it failed, in words for a person.
    #[serde(default)]
    pub error: Option<String>,
    /// The files written, once done.
    #[serde(default)]
    pub files: Vec<ExportFile>,
    /// Object path under which the files lie.
    pub prefix: String,
    /// When it was asked for.
    pub created_ns: i64,
    /// When it was done or failed.
    #[serde(default)]
    pub finished_ns: Option<i64>,
    /// What the reader of the dataset should know.
    #[serde(default)]
    pub warnings: Vec<String>,
}
