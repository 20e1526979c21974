//! What recorded data means: episodes as rows, LeRobot datasets written, read and verified.
//!
//! No socket, no actor, no clock, no database. Start with [`episode`], the meeting point of
//! everything here: [`rows`] makes an [`episode::Episode`] from samples, [`lerobot`] writes it
//! and reads it back, [`verify`] checks any dataset on disk.

pub mod episode;
pub mod jpeg;
pub mod lerobot;
pub mod mp4;
pub mod report;
pub mod rows;
pub mod samples;
pub mod verify;
