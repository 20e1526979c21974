//! What must outlive the process beside the messages: one JSON file, replaced as a whole.
//!
//! It may be behind the truth (older acknowledgements are only re-sent), never ahead of it.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::sync::Mutex;

use serde::{Deserialize, Serialize};
use tendon_protocol::control::ClockKind;
use tendon_protocol::id::{ClockId, ProducerId, SessionId, StreamId};
use tendon_protocol::stream::StreamDeclaration;

use crate::error::AgentError;
use crate::ledger::Hole;

/// Layout of the file; another one is refused.
const VERSION: u32 = 1;
const FILE: &str = "state.json";

/// Everything in the file.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct State {
    pub version: u32,
    pub session: SessionId,
    pub producer: ProducerId,
    /// The process ended with every message acknowledged or on disk.
    pub clean: bool,
    pub streams: Vec<StreamState>,
    pub shifts: Vec<Shift>,
    pub clocks: Vec<ClockState>,
    pub declarations: Vec<StreamDeclaration>,
    /// Number of the open or last episode.
    pub episode: u64,
}

/// One stream, the journal included.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct StreamState {
    pub stream: StreamId,
    pub acknowledged: u64,
    pub next: u64,
    pub holes: Vec<Hole>,
}

/// Provisional records with `from <= order < until` are sent with these added to their numbers.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Shift {
    pub from: u64,
    pub until: u64,
    pub deltas: BTreeMap<StreamId, u64>,
}

/// One clock that stamped samples, and where it stood.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct ClockState {
    pub id: ClockId,
    pub kind: ClockKind,
    pub first: Anchor,
    pub last: Anchor,
}

/// One moment on two clocks.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Anchor {
    pub clock_ns: i64,
    pub wall_ns: i64,
}

impl State {
    pub fn new(session: SessionId, producer: ProducerId) -> Self {
        Self {
            version: VERSION,
            session,
            producer,
            clean: true,
            streams: Vec::new(),
            shifts: Vec::new(),
            clocks: Vec::new(),
            declarations: Vec::new(),
            episode: 0,
        }
    }

    /// Reads the file of a folder; `None` when there is none.
    pub fn read(folder: &Path) -> Result<Option<Self>, AgentError> {
        let path = folder.join(FILE);
        let text = match std::fs::read(&path) {
            Ok(text) => text,
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(AgentError::io("read", &path, error)),
        };
        let spool = |what| AgentError::Spool { folder: folder.to_owned(), what };
        let state: Self = serde_json::from_slice(&text).map_err(|error| {
            spool(format!(
                "{FILE} does not parse ({error}); move the folder away to start anew, its samples stay in it"
            ))
        })?;
        if state.version != VERSION {
            return Err(spool(format!(
                "{FILE} has layout {}, this release reads {VERSION}; use the release that wrote it",
                state.version
            )));
        }
        Ok(Some(state))
    }
}

/// Writes snapshots of the state, newest last.
#[derive(Debug)]
pub(crate) struct StateFile {
    folder: PathBuf,
    /// Number of the newest snapshot on disk.
    written: Mutex<u64>,
}

impl StateFile {
    pub fn new(folder: PathBuf) -> Self {
        Self { folder, written: Mutex::new(0) }
    }

    /// Replaces the file, unless a newer snapshot is there already; blocks until it is on disk.
    pub fn write(&self, number: u64, state: &State) -> Result<(), AgentError> {
        let mut written = self.written.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        if number <= *written {
            return Ok(());
        }
        let (path, new) = (self.folder.join(FILE), self.folder.join("state.json.new"));
        let replace = || -> std::io::Result<()> {
            let mut file = File::create(&new)?;
            file.write_all(&serde_json::to_vec_pretty(state)?)?;
            // Without this a power cut may leave an empty file under the final name.
            file.sync_data()?;
            std::fs::rename(&new, &path)
        };
        replace().map_err(|error| AgentError::io("write", &path, error))?;
        *written = number;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_older_snapshot_never_replaces_a_newer_one() {
        let folder = tempfile::tempdir().unwrap();
        let file = StateFile::new(folder.path().to_owned());
        let mut state = State::new(SessionId::from_u128(1), ProducerId::from_u128(2));
        state.episode = 7;
        file.write(2, &state).unwrap();
        file.write(1, &State::new(SessionId::default(), ProducerId::default())).unwrap();
        assert_eq!(State::read(folder.path()).unwrap(), Some(state));
    }

    #[test]
    fn a_missing_file_is_no_state_and_a_broken_one_is_an_error_that_says_what_to_do() {
        let folder = tempfile::tempdir().unwrap();
        assert_eq!(State::read(folder.path()).unwrap(), None);
        std::fs::write(folder.path().join(FILE), b"{").unwrap();
        assert!(State::read(folder.path()).unwrap_err().to_string().contains("move the folder away"));
    }
}
