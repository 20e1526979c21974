//! Datasets in LeRobot's formats v2.0, v2.1 and v3.0, on a local disk.
//!
//! [`writer`] makes them from [`crate::episode::Episode`]s, [`reader`] gives episodes back. What the
//! files hold is the format of the official `lerobot` package 0.6.1, which is the judge of ours.

pub mod info;
pub mod reader;
pub mod spec;
pub mod stats;
pub mod tasks;
pub mod writer;

/// Most files of one chunk folder.
pub const CHUNK_FILES: u64 = 1000;

/// The five columns that every dataset has after its own, in this order, as LeRobot names them.
pub const DEFAULT_FEATURES: [&str; 5] = ["timestamp", "frame_index", "episode_index", "index", "task_index"];

/// Folder under `meta` with files that only this crate reads.
pub const OWN_FOLDER: &str = "meta/tendon";

/// Our manifest: where episodes come from, units, sizes of files. LeRobot does not look at it.
pub const MANIFEST: &str = "meta/tendon.json";
