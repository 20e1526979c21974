//! Metadata: sessions, episodes, datasets, exports, clocks and tokens in a small key-value store.
//!
//! Read [`MetaStore`] first: the trait that a driver fills, made of partitions, ordered keys and
//! compare-and-set, which an embedded tree and a CQL table can both give. [`EmbeddedStore`] is the
//! driver for one machine. On top lie the typed stores that everybody else uses; [`Meta`] opens
//! them together.
//!
//! All calls block, for as long as an `fdatasync` in the worst case: call them from a blocking
//! thread, never from an event loop.
//!
//! Lists read index entries, which are written before their record and removed after it. An entry
//! may therefore be stale, never missing; readers check each record against what they asked for.

mod cursor;
mod day;
mod embedded;
mod episodes;
mod join;
mod sessions;
mod small;
mod typed;

use std::ops::Bound;
use std::path::Path;
use std::sync::Arc;

use serde::{Deserialize, Serialize};
use thiserror::Error;

use crate::records::RecordError;

pub use cursor::{Cursor, CursorError};
pub use day::{Day, DayError};
pub use embedded::EmbeddedStore;
pub use episodes::{EpisodeFilter, Episodes};
pub use sessions::{SessionFilter, Sessions};
pub use small::{Clocks, Datasets, Exports, Tokens};

/// Version of the layout of tables, keys and index entries. A store with a newer one is not opened.
pub const SCHEMA_VERSION: u32 = 1;
/// Longest partition or key in bytes.
pub const KEY_BYTES_MAX: usize = 1024;
/// Longest value in bytes; a CQL row should stay below it too.
pub const VALUE_BYTES_MAX: usize = 1 << 20;
/// Most records a page.
pub const PAGE_RECORDS_MAX: usize = 1000;

/// One table. The numbers are part of the layout.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[repr(u8)]
pub enum Table {
    /// The store's own settings.
    Schema = 1,
    /// Session records, one partition each.
    Sessions = 2,
    /// Episode records, one partition a session.
    Episodes = 3,
    /// Dataset records, by name.
    Datasets = 4,
    /// Export records, by time.
    Exports = 5,
    /// Clock records, one partition a session.
    Clocks = 6,
    /// Tokens.
    Tokens = 7,
    /// Index entries, one partition for each value that is asked for.
    Index = 8,
}

/// A value and the version that names this writing of it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Versioned {
    /// The value.
    pub value: Vec<u8>,
    /// Changes with every write and never comes back for the same key, not even after a delete.
    /// Says nothing about order.
    pub version: u64,
}

/// One row of a scan.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Row {
    /// The ordered key in its partition.
    pub key: Vec<u8>,
    /// The value.
    pub value: Vec<u8>,
    /// Its version.
    pub version: u64,
}

/// Which way a scan goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Direction {
    /// Smallest key first.
    Ascending,
    /// Largest key first.
    Descending,
}

/// Where a scan starts and ends, seen in its direction.
#[derive(Clone, Copy, Debug)]
pub struct Span<'a> {
    /// The first key: the smallest one when ascending, the largest one when descending.
    pub from: Bound<&'a [u8]>,
    /// The last key.
    pub to: Bound<&'a [u8]>,
}

impl Span<'_> {
    /// The whole partition.
    pub const ALL: Self = Self { from: Bound::Unbounded, to: Bound::Unbounded };
}

/// The store itself failed.
#[derive(Debug, Error)]
pub enum StoreError {
    /// Another process has it open.
    #[error("metadata folder {folder} is in use by another server; stop that server or choose another --data folder")]
    Locked {
        /// The folder.
        folder: String,
    },
    /// The folder cannot be made or written.
    #[error(
        "metadata folder {folder} cannot be opened for writing ({source}); give this user write permission or choose another --data folder"
    )]
    NotWritable {
        /// The folder.
        folder: String,
        /// What the system said.
        source: std::io::Error,
    },
    /// Something else lies there.
    #[error(
        "folder {folder} holds other files ({example}) and no metadata; choose an empty folder or the right --data folder"
    )]
    Foreign {
        /// The folder.
        folder: String,
        /// One of the files.
        example: String,
    },
    /// Written by a newer version of this program.
    #[error(
        "metadata has schema version {found}, this program knows up to {SCHEMA_VERSION}; start the newer tendon that wrote it"
    )]
    NewerSchema {
        /// The version found.
        found: u32,
    },
    /// No room for a write.
    #[error("no space left for metadata in {folder}; free some space, writes go on by themselves")]
    Full {
        /// The folder.
        folder: String,
    },
    /// A background write failed; the reason is in the log.
    #[error(
        "metadata in {folder} could not write its table files; see that the disk has space, writes go on by themselves"
    )]
    Interrupted {
        /// The folder.
        folder: String,
    },
    /// A sync failed: what is on the disk is not known any more.
    #[error("metadata in {folder} stopped after a failed sync ({reason}); check the disk, then restart the server")]
    Stopped {
        /// The folder.
        folder: String,
        /// What the system said the first time.
        reason: String,
    },
    /// A partition or key is empty where it must not be, or too long.
    #[error("{what} has {bytes} bytes, the limit is {KEY_BYTES_MAX}; use a shorter name")]
    KeyTooLong {
        /// Partition or key.
        what: &'static str,
        /// Its length.
        bytes: usize,
    },
    /// A value is too long.
    #[error("record has {bytes} bytes, the limit is {VALUE_BYTES_MAX}; shorten its texts, names or metadata")]
    ValueTooLong {
        /// Its length.
        bytes: usize,
    },
    /// Whatever else a driver says.
    #[error("metadata store at {place} failed ({source}); see the server's log, then restart it")]
    Failed {
        /// Folder or address.
        place: String,
        /// What the driver said.
        source: Box<dyn std::error::Error + Send + Sync>,
    },
}

/// A compare-and-set did not take place.
#[derive(Debug, Error)]
pub enum CasError {
    /// Somebody else was faster. A driver whose write has an unknown outcome resolves it (by its
    /// own version, read serially) before it returns this.
    #[error("the row has changed; read it again and decide anew")]
    Conflict {
        /// What is there now.
        current: Option<Versioned>,
    },
    /// The store failed.
    #[error(transparent)]
    Store(#[from] StoreError),
}

/// A driver of metadata. `contract::meta_store` is the test that each one passes.
pub trait MetaStore: Send + Sync {
    /// Reads one row.
    ///
    /// # Errors
    /// When the store fails.
    fn get(&self, table: Table, partition: &[u8], key: &[u8]) -> Result<Option<Versioned>, StoreError>;

    /// Writes one row if it is as `expected`: `None` = absent, else its version. Durable when it
    /// returns, and with it every earlier write of the same caller. Returns the new version.
    ///
    /// # Errors
    /// [`CasError::Conflict`] with what is there; or the store's failure.
    fn put_if(
        &self,
        table: Table,
        partition: &[u8],
        key: &[u8],
        value: &[u8],
        expected: Option<u64>,
    ) -> Result<u64, CasError>;

    /// Writes one row whatever is there. Need not be durable before the caller's next
    /// [`MetaStore::put_if`] returns, but never later than that. Returns the new version.
    ///
    /// # Errors
    /// When the store fails.
    fn put_ahead(&self, table: Table, partition: &[u8], key: &[u8], value: &[u8]) -> Result<u64, StoreError>;

    /// Removes one row if it has this version. May come back after a crash until the caller's next
    /// [`MetaStore::put_if`] has returned.
    ///
    /// # Errors
    /// [`CasError::Conflict`] with what is there; or the store's failure.
    fn delete_if(&self, table: Table, partition: &[u8], key: &[u8], expected: u64) -> Result<(), CasError>;

    /// Reads rows of one partition in the order of their keys' bytes, at most `limit`.
    ///
    /// # Errors
    /// When the store fails.
    fn scan(
        &self,
        table: Table,
        partition: &[u8],
        span: Span<'_>,
        limit: usize,
        direction: Direction,
    ) -> Result<Vec<Row>, StoreError>;
}

/// A typed store refused or failed.
#[derive(Debug, Error)]
pub enum MetaError {
    /// The name is taken.
    #[error("{what} {name} exists already; choose another name")]
    Exists {
        /// Kind of record.
        what: &'static str,
        /// Its name.
        name: String,
    },
    /// There is none.
    #[error("{what} {name} does not exist; list them to see the names")]
    NotFound {
        /// Kind of record.
        what: &'static str,
        /// Its name.
        name: String,
    },
    /// Others kept changing the record.
    #[error("{what} {name} was changed by others {attempts} times in a row; try again")]
    Contended {
        /// Kind of record.
        what: &'static str,
        /// Its name.
        name: String,
        /// How often this one tried.
        attempts: u32,
    },
    /// The stored bytes are no such record, or a record cannot be stored so that it is read back.
    #[error("{what} {name} does not read back ({source}); make it simpler, or restore the store from a backup")]
    Unreadable {
        /// Kind of record.
        what: &'static str,
        /// Its name.
        name: String,
        /// What is wrong with the JSON.
        source: serde_json::Error,
    },
    /// A change touched what names or orders the record.
    #[error("a change of {what} {name} touched its id or creation time; make a new record instead")]
    Identity {
        /// Kind of record.
        what: &'static str,
        /// Its name.
        name: String,
    },
    /// A record holds what none may hold.
    #[error(transparent)]
    Record(#[from] RecordError),
    /// The cursor is of another list.
    #[error(transparent)]
    Cursor(#[from] CursorError),
    /// The store failed.
    #[error(transparent)]
    Store(#[from] StoreError),
}

/// One page of a list.
#[derive(Clone, Debug, PartialEq)]
pub struct Page<R> {
    /// The records, in the list's order. May be fewer than asked for, even none, while there is a
    /// next page: a page reads a bounded number of rows.
    pub records: Vec<R>,
    /// Where the next page starts, `None` at the end.
    pub next: Option<Cursor>,
}

/// All typed stores over one driver.
#[derive(Clone)]
pub struct Meta {
    /// Sessions.
    pub sessions: Sessions,
    /// Episodes.
    pub episodes: Episodes,
    /// Datasets.
    pub datasets: Datasets,
    /// Exports.
    pub exports: Exports,
    /// Clocks.
    pub clocks: Clocks,
    /// Tokens.
    pub tokens: Tokens,
}

#[derive(Serialize, Deserialize)]
struct Schema {
    version: u32,
}

const SCHEMA_PARTITION: &[u8] = b"schema";
const SCHEMA_KEY: &[u8] = b"version";

impl Meta {
    /// Opens the embedded store in `folder`, which is made when it is not there.
    ///
    /// # Errors
    /// When the folder cannot be written, is in use, holds something else or a newer schema.
    pub fn open(folder: &Path) -> Result<Self, MetaError> {
        Self::over(Arc::new(EmbeddedStore::open(folder)?))
    }

    /// The typed stores over any driver.
    ///
    /// # Errors
    /// When the store fails or holds a newer schema.
    pub fn over(store: Arc<dyn MetaStore>) -> Result<Self, MetaError> {
        check_schema(store.as_ref())?;
        Ok(Self {
            sessions: Sessions::over(Arc::clone(&store)),
            episodes: Episodes::over(Arc::clone(&store)),
            datasets: Datasets::over(Arc::clone(&store)),
            exports: Exports::over(Arc::clone(&store)),
            clocks: Clocks::over(Arc::clone(&store)),
            tokens: Tokens::over(store),
        })
    }
}

/// Writes the version into a new store; refuses a newer one.
fn check_schema(store: &dyn MetaStore) -> Result<(), MetaError> {
    let unreadable = |source| MetaError::Unreadable { what: "setting", name: "schema version".to_owned(), source };
    let ours = serde_json::to_vec(&Schema { version: SCHEMA_VERSION }).map_err(unreadable)?;
    let found = match store.get(Table::Schema, SCHEMA_PARTITION, SCHEMA_KEY)? {
        Some(found) => found,
        None => match store.put_if(Table::Schema, SCHEMA_PARTITION, SCHEMA_KEY, &ours, None) {
            Ok(_) | Err(CasError::Conflict { current: None }) => return Ok(()),
            Err(CasError::Conflict { current: Some(other) }) => other,
            Err(CasError::Store(error)) => return Err(error.into()),
        },
    };
    let schema: Schema = serde_json::from_slice(&found.value).map_err(unreadable)?;
    if schema.version > SCHEMA_VERSION {
        return Err(StoreError::NewerSchema { found: schema.version }.into());
    }
    Ok(())
}

/// Checks lengths before a driver sees them, so that every driver refuses the same.
pub(crate) fn check_key(partition: &[u8], key: &[u8]) -> Result<(), StoreError> {
    for (what, bytes) in [("partition", partition.len()), ("key", key.len())] {
        if bytes > KEY_BYTES_MAX {
            return Err(StoreError::KeyTooLong { what, bytes });
        }
    }
    Ok(())
}

/// Like [`check_key`], for values.
pub(crate) fn check_value(value: &[u8]) -> Result<(), StoreError> {
    if value.len() > VALUE_BYTES_MAX {
        return Err(StoreError::ValueTooLong { bytes: value.len() });
    }
    Ok(())
}

#[cfg(test)]
mod tests;
