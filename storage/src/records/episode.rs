//! An episode: one attempt at a task, cut out of a session's streams by capture time.

use std::collections::BTreeMap;
use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Deserializer, Serialize, Serializer};
use tendon_protocol::id::{ClockId, SessionId, StreamId};
use thiserror::Error;

use super::dataset::DatasetName;
use super::text::{excerpt, finite, parsed, words};

words! {
    /// Where an episode is in its life.
    EpisodeState, "episode state" {
        /// Started, not stopped.
        Recording = "recording",
        /// Held; the samples until the resume are left out.
        Paused = "paused",
        /// The stop mark is durable; streams may still be on their way.
        Stopped = "stopped",
        /// Being written to object storage.
        Flushing = "flushing",
        /// Its manifest exists: the episode is whole.
        Stored = "stored",
        /// A required stream stayed away for too long, see [`EpisodeRecord::missing`]; samples that come later complete it.
        Incomplete = "incomplete",
        /// Thrown away by the operator.
        Discarded = "discarded",
        /// Could not be written, see [`EpisodeRecord::error`].
        Failed = "failed",
    }
}

words! {
    /// How an attempt ended.
    Outcome, "outcome" {
        /// The task was done.
        Success = "success",
        /// It was not.
        Failure = "failure",
    }
}

/// Names one episode: `<session>/<number>`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct EpisodeKey {
    /// The session.
    pub session: SessionId,
    /// Number in the session, from 0.
    pub number: u32,
}

/// A text names no episode.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
#[error("{got:?} names no episode; write the session id, a slash and the episode's number in the session, from 0")]
pub struct EpisodeKeyError {
    got: String,
}

impl fmt::Display for EpisodeKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.session, self.number)
    }
}

impl FromStr for EpisodeKey {
    type Err = EpisodeKeyError;
    fn from_str(text: &str) -> Result<Self, EpisodeKeyError> {
        let parse = || {
            let (session, number) = text.split_once('/')?;
            // `u32` would also read "+3": one episode, one spelling.
            if !number.bytes().all(|byte| byte.is_ascii_digit()) {
                return None;
            }
            Some(Self { session: session.parse().ok()?, number: number.parse().ok()? })
        };
        parse().ok_or_else(|| EpisodeKeyError { got: excerpt(text) })
    }
}

impl Serialize for EpisodeKey {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for EpisodeKey {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        parsed(deserializer)
    }
}

/// What somebody said about an episode after it was recorded. Nothing is overwritten: the newest
/// annotation that sets a field wins.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Annotation {
    /// When it was said.
    pub at_ns: i64,
    /// Who said it: the name of the token.
    pub by: String,
    /// A new language instruction.
    #[serde(default)]
    pub instruction: Option<String>,
    /// A new outcome.
    #[serde(default)]
    pub outcome: Option<Outcome>,
    /// Free text.
    #[serde(default)]
    pub note: Option<String>,
}

/// One episode of a session.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct EpisodeRecord {
    /// The session.
    pub session: SessionId,
    /// Number in the session, from 0.
    pub number: u32,
    /// The producer's running number, as its marks carry it.
    pub mark: u64,
    /// Where the episode is in its life.
    pub state: EpisodeState,
    /// How the attempt ended, as the producer's stop mark said; see [`EpisodeRecord::outcome_now`].
    #[serde(default)]
    pub outcome: Option<Outcome>,
    /// The language instruction of the start mark; see [`EpisodeRecord::instruction_now`].
    #[serde(default)]
    pub instruction: String,
    /// What was said later, oldest first.
    #[serde(default)]
    pub annotations: Vec<Annotation>,
    /// The clock of the times below.
    pub clock: ClockId,
    /// Capture time of the start mark in nanoseconds of `clock`; the first moment inside.
    pub start_ns: i64,
    /// Newest capture time on `clock` that was seen while the episode was open. Where it ends if the
    /// producer is started again and its stop mark comes on another clock.
    #[serde(default)]
    pub last_ns: Option<i64>,
    /// Capture time of the stop mark in nanoseconds of `clock`.
    #[serde(default)]
    pub stop_ns: Option<i64>,
    /// Pauses that have ended, as (from, to) in nanoseconds of `clock`, in order.
    #[serde(default)]
    pub pauses: Vec<(i64, i64)>,
    /// Start of the pause that goes on, in nanoseconds of `clock`.
    #[serde(default)]
    pub paused_since_ns: Option<i64>,
    /// Journal entries below this one have taken effect on this episode; a restart skips them.
    #[serde(default)]
    pub journal_applied: u64,
    /// The session's dataset.
    pub dataset: DatasetName,
    /// The session's operator.
    pub operator: String,
    /// The session's robot.
    pub robot: String,
    /// When the server saw the start mark. Never changes: a dataset's episodes are ordered by it.
    pub created_ns: i64,
    /// Feature names of required streams that stayed away.
    #[serde(default)]
    pub missing: Vec<String>,
    /// How well the streams kept their promises, once measured.
    #[serde(default)]
    pub report: Option<EpisodeReport>,
    /// Object path of the manifest, once the episode is stored.
    #[serde(default)]
    pub manifest: Option<String>,
    /// Bytes in object storage.
    #[serde(default)]
    pub bytes: u64,
    /// Why it failed, in words for a person.
    #[serde(default)]
    pub error: Option<String>,
}

impl EpisodeRecord {
    /// The episode's name.
    #[must_use]
    pub const fn key(&self) -> EpisodeKey {
        EpisodeKey { session: self.session, number: self.number }
    }

    /// The instruction after all annotations.
    #[must_use]
    pub fn instruction_now(&self) -> &str {
        let annotated = self.annotations.iter().rev().find_map(|said| said.instruction.as_deref());
        annotated.unwrap_or(&self.instruction)
    }

    /// The outcome after all annotations.
    #[must_use]
    pub fn outcome_now(&self) -> Option<Outcome> {
        let annotated = self.annotations.iter().rev().find_map(|said| said.outcome);
        annotated.or(self.outcome)
    }
}

/// How well an episode's streams kept their promises.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct EpisodeReport {
    /// Length without pauses in seconds.
    #[serde(serialize_with = "finite")]
    pub duration_s: f64,
    /// One entry per declared stream.
    #[serde(default)]
    pub streams: Vec<StreamReport>,
}

/// One stream of one episode, measured. Figures that cannot be told (one sample has no rate) are 0.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct StreamReport {
    /// The stream's number.
    pub stream: StreamId,
    /// Its feature name.
    pub feature: String,
    /// Samples kept.
    #[serde(default)]
    pub samples: u64,
    /// Samples that the producer declared lost.
    #[serde(default)]
    pub lost: u64,
    /// The same by reason: `restart`, `spool_full`, `page_reload`, `other`.
    #[serde(default)]
    pub lost_reasons: BTreeMap<String, u64>,
    /// Nominal rate in hertz, when the stream has one.
    #[serde(default)]
    pub declared_hz: Option<f64>,
    /// Measured rate in hertz.
    #[serde(default, serialize_with = "finite")]
    pub measured_hz: f64,
    /// Longest time between two samples in milliseconds.
    #[serde(default, serialize_with = "finite")]
    pub longest_gap_ms: f64,
    /// Intervals longer than 1.5 nominal periods.
    #[serde(default)]
    pub gaps: u64,
    /// Standard deviation of the intervals in milliseconds.
    #[serde(default, serialize_with = "finite")]
    pub jitter_ms: f64,
    /// Samples that hold NaN or an infinity.
    #[serde(default)]
    pub not_finite: u64,
    /// Pictures that do not decode.
    #[serde(default)]
    pub undecodable: u64,
    /// Samples whose capture time lies before that of the sample before them.
    #[serde(default)]
    pub time_backwards: u64,
    /// Server time less the stream's clock in nanoseconds, when it could be estimated.
    #[serde(default)]
    pub clock_offset_ns: Option<i64>,
    /// How far off that may be, in nanoseconds.
    #[serde(default)]
    pub clock_uncertainty_ns: Option<i64>,
    /// Whether the stream kept its declared rate.
    #[serde(default)]
    pub keeps_rate: bool,
}
