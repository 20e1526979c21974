//! What the front door may ask of the actors, and how they refuse.
//!
//! Read [`FleetHandle`](crate::fleet::FleetHandle) next: it takes these requests to the right actor.

use serde::{Deserialize, Serialize};
use tendon_protocol::id::SessionId;
use tendon_storage::records::{ExportFormat, VideoChoice};
use thiserror::Error;

/// Why a request was refused. `code` is stable and meant for programs, the text for people.
#[derive(Clone, Debug, Error)]
#[error("{message}")]
pub struct Refusal {
    /// What kind of refusal.
    pub code: RefusalCode,
    /// What happened, with numbers, and what to do.
    pub message: String,
}

/// Kinds of refusal; the HTTP floor maps each to one status.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum RefusalCode {
    /// Nothing has this name (404).
    NotFound,
    /// The thing is in a state that does not allow this (409).
    WrongState,
    /// The request itself cannot be right (422).
    Invalid,
    /// No producer is connected that could act on it (409).
    NoProducer,
    /// Too much at once; try again (429).
    Busy,
    /// The disk or the store refuses (503).
    Storage,
}

impl Refusal {
    /// A refusal with a text for people.
    #[must_use]
    pub fn new(code: RefusalCode, message: impl Into<String>) -> Self {
        Self { code, message: message.into() }
    }
}

/// How a session ends.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum End {
    /// As planned.
    Completed,
    /// It failed, for this reason.
    Failed(String),
}

/// What to export.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct NewExport {
    /// All stored episodes of this dataset; exactly one of `dataset` and `session` is given.
    #[serde(default)]
    pub dataset: Option<String>,
    /// All stored episodes of this session.
    #[serde(default)]
    pub session: Option<SessionId>,
    /// Format of the dataset on disk.
    #[serde(default = "v3")]
    pub format: ExportFormat,
    /// Episodes to leave out, each as `<session>/<number>`.
    #[serde(default)]
    pub exclude: Vec<String>,
    /// Export NaN and infinite values instead of refusing them.
    #[serde(default)]
    pub allow_not_finite: bool,
    /// What becomes of camera pictures; the server's `video.codec` if absent.
    #[serde(default)]
    pub video: Option<VideoChoice>,
}

fn v3() -> ExportFormat {
    ExportFormat::V30
}

/// One page of frames of an episode, as recorded, before rows are made.
#[derive(Clone, Debug, Serialize)]
pub struct FramesPage {
    /// Feature name.
    pub feature: String,
    /// Samples in sequence order.
    pub frames: Vec<FrameView>,
    /// Pass as `from` to go on; absent at the end.
    pub next: Option<u64>,
}

/// One sample for a person or a script to look at.
#[derive(Clone, Debug, Serialize)]
pub struct FrameView {
    /// Sequence number in its stream.
    pub sequence: u64,
    /// Capture time in nanoseconds on the producer's clock.
    pub time_ns: i64,
    /// Flag bits of the sample.
    pub flags: u8,
    /// Numbers; `null` where one is not finite. Absent for cameras.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub values: Option<serde_json::Value>,
    /// Bytes of the picture. Absent for numbers.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub bytes: Option<usize>,
}

/// How a session stands at this moment.
#[derive(Clone, Debug, Serialize)]
pub struct Live {
    /// Whether a producer is connected.
    pub connected: bool,
    /// Epoch of the newest connection.
    pub epoch: u64,
    /// Number of the open episode.
    pub episode: Option<u32>,
    /// Streams with their durable positions.
    pub streams: Vec<LiveStream>,
    /// Last error that the session met, for people.
    pub last_error: Option<String>,
}

/// One stream of [`Live`].
#[derive(Clone, Debug, Serialize)]
pub struct LiveStream {
    /// Feature name.
    pub feature: String,
    /// First sequence that is not durable.
    pub next: u64,
    /// Samples that the producer declared lost.
    pub lost: u64,
}
