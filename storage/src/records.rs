//! The records that describe what was recorded: sessions, episodes, datasets, exports, clocks and tokens.
//!
//! Read [`SessionRecord`] and [`EpisodeRecord`] first. Every record is stored as JSON in
//! snake case. A reader ignores fields that it does not know and fills optional ones that are
//! missing, so that neighbouring versions read each other's records. Times are unix nanoseconds
//! (`_ns`) unless a field names another clock. [`crate::meta`] stores these records; the HTTP
//! interface shows them as they are, except for the hash of a token.

mod access;
mod clock;
mod dataset;
mod episode;
mod export;
mod session;
mod text;

pub use access::{Right, Role, TokenRecord};
pub use clock::{ANCHORS_MAX, ClockRecord, PROBES_MAX, StoredProbe};
pub use dataset::{DATASET_NAME_BYTES_MAX, DatasetName, DatasetNameError, DatasetRecord};
pub use episode::{
    Annotation, EpisodeKey, EpisodeKeyError, EpisodeRecord, EpisodeReport, EpisodeState, Outcome, StreamReport,
};
pub use export::{ExportFile, ExportFormat, ExportRecord, JobState, VideoChoice};
pub use session::{
    FPS_MAX, PERSON_BYTES_MAX, RecordError, RowClock, RowClockError, SessionRecord, SessionState, SessionType,
};
pub use text::UnknownWord;
pub(crate) use text::excerpt;

#[cfg(test)]
mod tests;
