//! A session: who drives which robot, into which dataset, and how far its streams are durable.

use std::collections::BTreeMap;
use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Deserializer, Serialize, Serializer};
use tendon_protocol::id::{ProducerId, SessionId, StreamId};
use tendon_protocol::limit::NAME_BYTES_MAX;
use tendon_protocol::stream::StreamDeclaration;
use thiserror::Error;

use super::dataset::DatasetName;
use super::text::{excerpt, parsed, words};

/// Highest rate of rows a second. A grid finer than a millisecond would only repeat samples.
pub const FPS_MAX: u32 = 1000;
/// Longest name of an operator, robot or embodiment in bytes; they are parts of index keys.
pub const PERSON_BYTES_MAX: usize = 128;

words! {
    /// How the person or program drives the robot.
    SessionType, "session type" {
        /// A Meta Quest headset.
        VrQuest = "vr_quest",
        /// An Apple Vision Pro headset.
        VrVisionPro = "vr_vision_pro",
        /// Two leader arms, two follower arms.
        BilateralAloha = "bilateral_aloha",
        /// The robot is led by hand.
        Kinesthetic = "kinesthetic",
        /// Keyboard and mouse.
        KeyboardMouse = "keyboard_mouse",
        /// A game controller.
        Gamepad = "gamepad",
        /// One leader arm, one follower arm.
        LeaderArm = "leader_arm",
        /// A policy drives; a person may take over.
        Policy = "policy",
    }
}

words! {
    /// Where a session is in its life.
    SessionState, "session state" {
        /// Made, no episode yet.
        Created = "created",
        /// An episode is being recorded, or the next one may start at once.
        Recording = "recording",
        /// Held by the operator; streams may go on.
        Paused = "paused",
        /// Ended well; takes no more samples.
        Completed = "completed",
        /// Ended by a fault, see [`SessionRecord::failure`].
        Failed = "failed",
    }
}

impl SessionState {
    /// Whether the session is over.
    #[must_use]
    pub const fn has_ended(self) -> bool {
        match self {
            Self::Created | Self::Recording | Self::Paused => false,
            Self::Completed | Self::Failed => true,
        }
    }
}

/// What decides when a row of the dataset is taken: `grid` or `stream:<feature>`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub enum RowClock {
    /// One row every 1/fps seconds.
    #[default]
    Grid,
    /// One row per sample of the stream with this feature name.
    Stream(String),
}

/// A text is no row clock.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
#[error(
    "{got:?} is no row clock; write grid, or stream: and a feature name of 1 to {NAME_BYTES_MAX} bytes without control characters"
)]
pub struct RowClockError {
    got: String,
}

impl fmt::Display for RowClock {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Grid => f.write_str("grid"),
            Self::Stream(feature) => write!(f, "stream:{feature}"),
        }
    }
}

impl FromStr for RowClock {
    type Err = RowClockError;
    fn from_str(text: &str) -> Result<Self, RowClockError> {
        if text == "grid" {
            return Ok(Self::Grid);
        }
        match text.strip_prefix("stream:") {
            Some(feature) if is_name(feature, NAME_BYTES_MAX) => Ok(Self::Stream(feature.to_owned())),
            _ => Err(RowClockError { got: excerpt(text) }),
        }
    }
}

impl Serialize for RowClock {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for RowClock {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        parsed(deserializer)
    }
}

/// One teleoperation session.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct SessionRecord {
    /// The session's name.
    pub id: SessionId,
    /// Who drives.
    pub operator: String,
    /// The robot that is driven.
    pub robot: String,
    /// The robot's kind (`so101`, `g1`, ...), as datasets name it.
    pub embodiment: String,
    /// How it is driven; `type` in JSON.
    #[serde(rename = "type")]
    pub kind: SessionType,
    /// Target rate of rows in 1/s, 1 to [`FPS_MAX`].
    pub fps: u32,
    /// What decides when a row is taken.
    #[serde(default)]
    pub row_clock: RowClock,
    /// The dataset that the episodes belong to.
    pub dataset: DatasetName,
    /// Where the session is in its life.
    pub state: SessionState,
    /// When it was made. Never changes: lists are ordered by it.
    pub created_ns: i64,
    /// When it completed or failed.
    #[serde(default)]
    pub ended_ns: Option<i64>,
    /// Why it failed, in words for a person.
    #[serde(default)]
    pub failure: Option<String>,
    /// The producer that streams, once one has connected.
    #[serde(default)]
    pub producer: Option<ProducerId>,
    /// Number of the producer's newest connection; older connections are fenced off.
    #[serde(default)]
    pub epoch: u64,
    /// What the streams carry, by stream number.
    #[serde(default)]
    pub streams: Vec<StreamDeclaration>,
    /// First sequence not yet durable, per stream, when last saved. The log itself is newer.
    #[serde(default)]
    pub positions: BTreeMap<StreamId, u64>,
    /// First sequence that the log must still keep, per stream.
    #[serde(default)]
    pub released: BTreeMap<StreamId, u64>,
    /// First journal entry (mark, lost message) that has not taken effect. Durable ones from here
    /// on are applied at a restart.
    #[serde(default)]
    pub journal_applied: u64,
    /// Samples that the producer declared lost, per stream.
    #[serde(default)]
    pub lost: BTreeMap<StreamId, u64>,
    /// Samples that came again and were the same, since the session was made.
    #[serde(default)]
    pub duplicates_removed: u64,
    /// Number that the next episode gets: how many there are.
    #[serde(default)]
    pub episodes: u32,
    /// Whatever the maker of the session wants to keep with it.
    #[serde(default)]
    pub metadata: serde_json::Map<String, serde_json::Value>,
}

/// A record holds something that no record may hold.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum RecordError {
    /// No rows, or more than the grid can tell apart.
    #[error("fps is {got}; choose 1 to {FPS_MAX}")]
    Fps {
        /// The rate in rows a second.
        got: u32,
    },
    /// Empty, too long, or unreadable.
    #[error(
        "{field} is {got:?} ({bytes} bytes); use 1 to {PERSON_BYTES_MAX} bytes without control characters or space at either end"
    )]
    Name {
        /// The field of the record.
        field: &'static str,
        /// Cut to 64 characters.
        got: String,
        /// Length in bytes.
        bytes: usize,
    },
    /// No UUID in its usual spelling.
    #[error("export id is {got:?}; use a UUID version 7 in lower case with dashes")]
    ExportId {
        /// Cut to 64 characters.
        got: String,
    },
}

impl SessionRecord {
    /// Checks what came from outside: the rate and the names.
    ///
    /// # Errors
    /// Names the field, what it holds and what is allowed.
    pub fn check(&self) -> Result<(), RecordError> {
        if self.fps == 0 || self.fps > FPS_MAX {
            return Err(RecordError::Fps { got: self.fps });
        }
        for (field, name) in [("operator", &self.operator), ("robot", &self.robot), ("embodiment", &self.embodiment)] {
            if !is_name(name, PERSON_BYTES_MAX) || name.trim() != name {
                return Err(RecordError::Name { field, got: excerpt(name), bytes: name.len() });
            }
        }
        Ok(())
    }
}

/// Not empty, short enough for a key, and nothing that garbles a terminal or a log.
fn is_name(text: &str, bytes_max: usize) -> bool {
    !text.is_empty() && text.len() <= bytes_max && !text.chars().any(char::is_control)
}
