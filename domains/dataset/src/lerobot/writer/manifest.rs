//! `meta/tendon.json`: what LeRobot's files have no place for.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

/// Version of the manifest's own layout.
const FORMAT: u32 = 1;

/// The whole file.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Manifest {
    /// Layout of this file; 1.
    pub format: u32,
    /// Program and version that wrote last.
    pub tool: String,
    /// Unit by feature key, for those that have one.
    pub units: BTreeMap<String, String>,
    /// One entry per episode, in order. May be one longer than the dataset after an append that was
    /// cut: `info.json` decides.
    pub episodes: Vec<ManifestEpisode>,
}

/// One episode.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ManifestEpisode {
    /// Its number in the dataset.
    pub index: u64,
    /// Where it comes from, as [`crate::episode::Episode::origin`] says.
    pub origin: String,
    /// Rows.
    pub rows: u64,
    /// Its own files: the table and one video per camera.
    pub files: Vec<ManifestFile>,
}

/// One file of an episode.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ManifestFile {
    /// Path under the dataset's root.
    pub path: String,
    /// Length in bytes.
    pub bytes: u64,
}

impl Manifest {
    pub(super) fn new(units: BTreeMap<String, String>) -> Self {
        Self { format: FORMAT, tool: concat!("tendon ", env!("CARGO_PKG_VERSION")).into(), units, episodes: Vec::new() }
    }

    /// The file as text: one line an episode, so that a diff of two versions can be read.
    pub(super) fn to_text(&self) -> Result<String, serde_json::Error> {
        let mut text = format!(
            "{{\n\"format\": {},\n\"tool\": {},\n\"units\": {},\n\"episodes\": [",
            self.format,
            serde_json::to_string(&self.tool)?,
            serde_json::to_string(&self.units)?
        );
        for (number, episode) in self.episodes.iter().enumerate() {
            text.push_str(if number == 0 { "\n" } else { ",\n" });
            text.push_str(&serde_json::to_string(episode)?);
        }
        text.push_str("\n]\n}\n");
        Ok(text)
    }
}
