//! The driver for one machine: an embedded log-structured tree (fjall) in a folder.
//!
//! All tables share one keyspace, so that one journal holds all writes in order: whatever was
//! written before a synced row is as durable as that row. A row's key is the table, the length of
//! the partition, the partition and the ordered key; its value starts with the version.
//!
//! A write takes the commit lock for the check and the journal entry, not for the sync: callers
//! that wait behind a running sync are covered together by the next one.

use std::io;
use std::ops::Bound;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError, RwLock};

use fjall::{Database, Keyspace, KeyspaceCreateOptions, PersistMode};
use rand::RngCore;

use super::{CasError, Direction, MetaStore, Row, Span, StoreError, Table, Versioned, check_key, check_value};
use crate::folder;

/// Blocks kept in memory in bytes. The working set is the newest pages of a few lists.
const CACHE_BYTES: u64 = 16 << 20;
/// Rows that collect in memory before they go to a table file, in bytes.
const MEMTABLE_BYTES: u64 = 16 << 20;
/// Journals on disk in bytes; the smallest that fjall takes.
const JOURNALS_BYTES: u64 = 64 << 20;
/// Name of the only keyspace.
const KEYSPACE: &str = "meta";
/// A file that fjall writes last when it makes a store.
const MARKER: &str = "version";
/// A file that fjall locks while a store is open.
const LOCK: &str = "lock";
const VERSION_BYTES: usize = 8;

/// The embedded driver. See the module's header.
pub struct EmbeddedStore {
    folder: PathBuf,
    memtable_bytes: u64,
    /// `None` while it could not be opened again after a failure.
    live: RwLock<Option<Live>>,
    failure: Mutex<Option<Failure>>,
    /// Held from the check of a row to its journal entry.
    commit: Mutex<()>,
    /// Writes in the journal so far.
    written: AtomicU64,
    /// How many of them a sync has covered.
    durable: Mutex<u64>,
}

struct Live {
    database: Database,
    rows: Keyspace,
}

/// Why a store takes no writes.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Failure {
    /// A write or a background task failed: nothing that was promised is at risk, so the store
    /// may be opened again from its journal.
    Reopen,
    /// A sync failed: the system may have dropped pages that it still shows, so that opening
    /// again would promise what is not on the disk.
    Stop(String),
}

impl EmbeddedStore {
    /// Opens the store in `folder`; makes it when there is none.
    ///
    /// # Errors
    /// Names the folder and what to do when it cannot be written, is in use or holds something else.
    pub fn open(folder: &Path) -> Result<Self, StoreError> {
        Self::open_with(folder, MEMTABLE_BYTES)
    }

    /// Like [`Self::open`]; a store that is made now keeps this many bytes of rows in memory.
    pub(super) fn open_with(folder: &Path, memtable_bytes: u64) -> Result<Self, StoreError> {
        if !folder.join(MARKER).is_file() {
            make(folder, memtable_bytes)?;
        }
        let live = open(folder, memtable_bytes)?;
        remove_unfinished(folder);
        Ok(Self {
            folder: folder.to_owned(),
            memtable_bytes,
            live: RwLock::new(Some(live)),
            failure: Mutex::new(None),
            commit: Mutex::new(()),
            written: AtomicU64::new(0),
            durable: Mutex::new(0),
        })
    }

    /// Table files on the disk.
    #[cfg(test)]
    pub(super) fn table_files(&self) -> usize {
        self.with(|live| Ok(live.rows.table_count())).unwrap()
    }

    /// Lets `action` use the store; opens it again first when that is due.
    fn with<T>(&self, action: impl FnOnce(&Live) -> Result<T, StoreError>) -> Result<T, StoreError> {
        loop {
            let live = self.live.read().unwrap_or_else(PoisonError::into_inner);
            if let Some(live) = live.as_ref() {
                return action(live);
            }
            drop(live);
            self.reopen()?;
        }
    }

    /// Like [`Self::with`], for writes: refuses them after a failed sync.
    fn with_writable<T, E>(&self, action: impl FnOnce(&Live) -> Result<T, E>) -> Result<T, E>
    where
        E: From<StoreError>,
    {
        let failure = lock(&self.failure).clone();
        match failure {
            None => {}
            Some(Failure::Reopen) => self.reopen()?,
            Some(Failure::Stop(reason)) => return Err(E::from(self.stopped(reason))),
        }
        self.with(|live| Ok(action(live)))?
    }

    /// Closes and opens the store. Waits until nobody uses it: fjall gives the folder free with
    /// the last handle.
    fn reopen(&self) -> Result<(), StoreError> {
        let mut live = self.live.write().unwrap_or_else(PoisonError::into_inner);
        let mut failure = lock(&self.failure);
        match failure.as_ref() {
            None if live.is_some() => return Ok(()),
            Some(Failure::Stop(reason)) => return Err(self.stopped(reason.clone())),
            Some(Failure::Reopen) | None => {}
        }
        drop(live.take());
        *live = Some(open(&self.folder, self.memtable_bytes)?);
        *failure = None;
        tracing::warn!(folder = %self.folder.display(), "metadata store opened again after a failed write");
        Ok(())
    }

    fn place(&self) -> String {
        self.folder.display().to_string()
    }

    /// Notes that fjall refused a write or a sync, and says what to do about it.
    pub(super) fn failed(&self, error: fjall::Error) -> StoreError {
        let full = is_full(&error);
        let next = match &error {
            // Said when a background task failed before, for the journal is written by us alone.
            fjall::Error::Poisoned => Failure::Reopen,
            _ if full => Failure::Reopen,
            other => Failure::Stop(other.to_string()),
        };
        let mut failure = lock(&self.failure);
        // Whoever comes second hears only "poisoned": it must not soften a failed sync.
        if !matches!(*failure, Some(Failure::Stop(_))) {
            *failure = Some(next);
        }
        match failure.clone() {
            Some(Failure::Stop(reason)) => self.stopped(reason),
            Some(Failure::Reopen) | None => describe(&self.folder, error),
        }
    }

    fn stopped(&self, reason: String) -> StoreError {
        StoreError::Stopped { folder: self.place(), reason }
    }

    /// Waits until the journal up to write number `ticket` is on the disk.
    fn sync(&self, live: &Live, ticket: u64) -> Result<(), StoreError> {
        let mut durable = lock(&self.durable);
        if *durable >= ticket {
            return Ok(());
        }
        let covered = self.written.load(Ordering::Acquire);
        let synced = live.database.persist(PersistMode::SyncData);
        synced.map_err(|error| self.failed(error))?;
        *durable = covered;
        Ok(())
    }

    /// Puts one row into the journal and the memory table; the caller holds the commit lock.
    /// Returns the version and the number to wait for.
    fn insert(&self, live: &Live, key: Vec<u8>, value: &[u8]) -> Result<(u64, u64), StoreError> {
        // Random, so that a version never comes back and tells the writer its own row.
        let version = rand::rng().next_u64();
        let mut stored = Vec::with_capacity(VERSION_BYTES + value.len());
        stored.extend_from_slice(&version.to_be_bytes());
        stored.extend_from_slice(value);
        let inserted = live.rows.insert(key, stored);
        inserted.map_err(|error| self.failed(error))?;
        Ok((version, self.written.fetch_add(1, Ordering::AcqRel) + 1))
    }

    fn read(&self, live: &Live, key: &[u8]) -> Result<Option<Versioned>, StoreError> {
        let found = live.rows.get(key).map_err(|error| describe(&self.folder, error))?;
        found.map(|stored| self.split(&stored)).transpose()
    }

    fn split(&self, stored: &[u8]) -> Result<Versioned, StoreError> {
        let Some((version, value)) = stored.split_first_chunk::<VERSION_BYTES>() else {
            return Err(StoreError::Failed {
                place: self.place(),
                source: format!("a row of {} bytes is shorter than its version", stored.len()).into(),
            });
        };
        Ok(Versioned { version: u64::from_be_bytes(*version), value: value.to_vec() })
    }
}

impl MetaStore for EmbeddedStore {
    fn get(&self, table: Table, partition: &[u8], key: &[u8]) -> Result<Option<Versioned>, StoreError> {
        check_key(partition, key)?;
        self.with(|live| self.read(live, &row_key(table, partition, key)))
    }

    fn put_if(
        &self,
        table: Table,
        partition: &[u8],
        key: &[u8],
        value: &[u8],
        expected: Option<u64>,
    ) -> Result<u64, CasError> {
        check_key(partition, key)?;
        check_value(value)?;
        let row = row_key(table, partition, key);
        self.with_writable(|live| {
            let committing = lock(&self.commit);
            let current = self.read(live, &row)?;
            if current.as_ref().map(|current| current.version) != expected {
                return Err(CasError::Conflict { current });
            }
            let (version, ticket) = self.insert(live, row, value)?;
            drop(committing);
            self.sync(live, ticket)?;
            Ok(version)
        })
    }

    fn put_ahead(&self, table: Table, partition: &[u8], key: &[u8], value: &[u8]) -> Result<u64, StoreError> {
        check_key(partition, key)?;
        check_value(value)?;
        let row = row_key(table, partition, key);
        self.with_writable(|live| {
            let _committing = lock(&self.commit);
            self.insert(live, row, value).map(|(version, _)| version)
        })
    }

    fn delete_if(&self, table: Table, partition: &[u8], key: &[u8], expected: u64) -> Result<(), CasError> {
        check_key(partition, key)?;
        let row = row_key(table, partition, key);
        self.with_writable(|live| {
            let _committing = lock(&self.commit);
            match self.read(live, &row)? {
                Some(current) if current.version == expected => {}
                current => return Err(CasError::Conflict { current }),
            }
            let removed = live.rows.remove(row);
            removed.map_err(|error| self.failed(error))?;
            self.written.fetch_add(1, Ordering::AcqRel);
            Ok(())
        })
    }

    fn scan(
        &self,
        table: Table,
        partition: &[u8],
        span: Span<'_>,
        limit: usize,
        direction: Direction,
    ) -> Result<Vec<Row>, StoreError> {
        let prefix = row_key(table, partition, &[]);
        let (low, high) = match direction {
            Direction::Ascending => (span.from, span.to),
            Direction::Descending => (span.to, span.from),
        };
        for bound in [low, high] {
            if let Bound::Included(key) | Bound::Excluded(key) = bound {
                check_key(partition, key)?;
            }
        }
        let low = low_bound(&prefix, low);
        let high = high_bound(&prefix, high);
        if is_empty(&low, &high) {
            return Ok(Vec::new());
        }
        self.with(|live| {
            let mut found = live.rows.range((low.clone(), high.clone()));
            let mut rows = Vec::with_capacity(limit.min(64));
            while rows.len() < limit {
                let next = match direction {
                    Direction::Ascending => found.next(),
                    Direction::Descending => found.next_back(),
                };
                let Some(next) = next else { break };
                let (key, stored) = next.into_inner().map_err(|error| describe(&self.folder, error))?;
                let Versioned { value, version } = self.split(&stored)?;
                rows.push(Row { key: key.get(prefix.len()..).unwrap_or_default().to_vec(), value, version });
            }
            Ok(rows)
        })
    }
}

/// Table, length of the partition, partition, key: rows of one partition lie together and in order.
fn row_key(table: Table, partition: &[u8], key: &[u8]) -> Vec<u8> {
    let length = u16::try_from(partition.len()).unwrap_or(u16::MAX);
    let mut row = Vec::with_capacity(3 + partition.len() + key.len());
    row.push(table as u8);
    row.extend_from_slice(&length.to_be_bytes());
    row.extend_from_slice(partition);
    row.extend_from_slice(key);
    row
}

fn low_bound(prefix: &[u8], bound: Bound<&[u8]>) -> Bound<Vec<u8>> {
    match bound {
        Bound::Included(key) => Bound::Included([prefix, key].concat()),
        Bound::Excluded(key) => Bound::Excluded([prefix, key].concat()),
        Bound::Unbounded => Bound::Included(prefix.to_vec()),
    }
}

fn high_bound(prefix: &[u8], bound: Bound<&[u8]>) -> Bound<Vec<u8>> {
    match bound {
        Bound::Included(key) => Bound::Included([prefix, key].concat()),
        Bound::Excluded(key) => Bound::Excluded([prefix, key].concat()),
        Bound::Unbounded => Bound::Excluded(after_all(prefix)),
    }
}

/// The smallest key that is larger than all that start with `prefix`. The first byte is a table's
/// number, far from 255, so there always is one.
fn after_all(prefix: &[u8]) -> Vec<u8> {
    let mut end = prefix.to_vec();
    while end.last() == Some(&u8::MAX) {
        end.pop();
    }
    if let Some(last) = end.last_mut() {
        *last += 1;
    }
    end
}

/// Whether no key can lie between the bounds. A range of a tree may not be asked backwards.
fn is_empty(low: &Bound<Vec<u8>>, high: &Bound<Vec<u8>>) -> bool {
    match (low, high) {
        (Bound::Included(low), Bound::Included(high)) => low > high,
        (Bound::Included(low) | Bound::Excluded(low), Bound::Included(high) | Bound::Excluded(high)) => low >= high,
        (Bound::Unbounded, _) | (_, Bound::Unbounded) => false,
    }
}

/// Opens a store that has been made.
fn open(folder: &Path, memtable_bytes: u64) -> Result<Live, StoreError> {
    let opened =
        Database::builder(folder).cache_size(CACHE_BYTES).max_journaling_size(JOURNALS_BYTES).worker_threads(1).open();
    let database = opened.map_err(|error| describe(folder, error))?;
    let options = || KeyspaceCreateOptions::default().max_memtable_size(memtable_bytes);
    let rows = database.keyspace(KEYSPACE, options);
    Ok(Live { rows: rows.map_err(|error| describe(folder, error))?, database })
}

/// Makes an empty store beside its place and moves it there whole: a process that is killed in
/// the middle leaves no half-made store that can never be opened.
fn make(folder: &Path, memtable_bytes: u64) -> Result<(), StoreError> {
    let denied = |source| StoreError::NotWritable { folder: folder.display().to_string(), source };
    folder::create(folder).map_err(denied)?;
    if let Some(entry) = std::fs::read_dir(folder).map_err(denied)?.next() {
        let example = entry.map_err(denied)?.file_name().to_string_lossy().into_owned();
        // Another process may have made the store since.
        if folder.join(MARKER).is_file() {
            return Ok(());
        }
        return Err(StoreError::Foreign { folder: folder.display().to_string(), example });
    }
    let beside = unfinished(folder, &format!("{:016x}", rand::rng().next_u64()));
    let made = open(&beside, memtable_bytes).and_then(|live| {
        drop(live);
        folder::sync_tree(&beside).map_err(denied)?;
        std::fs::rename(&beside, folder).map_err(denied)?;
        folder::sync_parent(folder).map_err(denied)
    });
    if made.is_err() && folder.join(MARKER).is_file() {
        // Somebody else's store is there by now: theirs is as good. What is left of ours is swept
        // up by whoever opens it.
        return Ok(());
    }
    made
}

/// Name of a store that is being made for `folder`.
fn unfinished(folder: &Path, suffix: &str) -> PathBuf {
    let mut name = folder.file_name().unwrap_or_default().to_owned();
    name.push(".unfinished-");
    name.push(suffix);
    folder.with_file_name(name)
}

/// Removes what killed processes left beside the folder. A store that somebody is making just now
/// is locked, and is left to them.
fn remove_unfinished(folder: &Path) {
    let pattern = unfinished(folder, "");
    let (Some(parent), Some(pattern)) = (pattern.parent(), pattern.file_name()) else {
        return;
    };
    for entry in std::fs::read_dir(parent).into_iter().flatten().flatten() {
        let name = entry.file_name();
        if !name.as_encoded_bytes().starts_with(pattern.as_encoded_bytes()) {
            continue;
        }
        let lock = std::fs::File::open(entry.path().join(LOCK));
        if lock.is_ok_and(|lock| lock.try_lock().is_err()) {
            continue;
        }
        if let Err(error) = std::fs::remove_dir_all(entry.path()) {
            tracing::warn!(path = %entry.path().display(), %error, "a half-made metadata store could not be removed");
        }
    }
}

fn is_full(error: &fjall::Error) -> bool {
    let mut cause: Option<&(dyn std::error::Error + 'static)> = Some(error);
    while let Some(this) = cause {
        if let Some(io) = this.downcast_ref::<io::Error>() {
            return matches!(io.kind(), io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded);
        }
        cause = this.source();
    }
    false
}

fn describe(folder: &Path, error: fjall::Error) -> StoreError {
    let place = folder.display().to_string();
    match error {
        fjall::Error::Locked => StoreError::Locked { folder: place },
        fjall::Error::Poisoned => StoreError::Interrupted { folder: place },
        full if is_full(&full) => StoreError::Full { folder: place },
        fjall::Error::Io(source)
            if matches!(
                source.kind(),
                io::ErrorKind::PermissionDenied | io::ErrorKind::ReadOnlyFilesystem | io::ErrorKind::NotADirectory
            ) =>
        {
            StoreError::NotWritable { folder: place, source }
        }
        other => StoreError::Failed { place, source: Box::new(other) },
    }
}

/// A thread that panicked while it held one of these locks left nothing half done.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
