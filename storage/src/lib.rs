//! Records at rest: what was recorded, who may see it, and where the bytes lie.
//!
//! Read [`records`] first: the types that everything else keeps. [`meta`] stores them in a small
//! key-value store behind a trait, [`accounts`] adds tokens to it, [`objects`] holds whole files,
//! and [`contract`] is the test that every driver passes.
//!
//! Drivers are behind traits; what this program promises is written at the traits. This crate
//! decides nothing about sessions: it knows no socket, no actor and no clock, and takes the time
//! from its callers.
//!
//! ```
//! use tendon_storage::meta::Meta;
//! use tendon_storage::records::DatasetName;
//!
//! # let folder = tempfile::tempdir()?;
//! # let folder = folder.path();
//! let meta = Meta::open(&folder.join("meta"))?;
//! let name: DatasetName = "pick-and-place".parse()?;
//! meta.datasets.ensure(&name, 1_764_028_800_000_000_000)?;
//! assert_eq!(meta.datasets.list(None, 10)?.records[0].name, name);
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```

pub mod accounts;
pub mod contract;
mod folder;
pub mod frames;
pub mod meta;
pub mod objects;
pub mod records;
