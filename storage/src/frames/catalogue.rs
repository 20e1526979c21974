//! What the writer thread, its helper and the callers share: the index, the files, the room left.

use std::collections::{BTreeMap, HashMap};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard};

use bytes::Bytes;
use tendon_protocol::id::{SessionId, StreamId};

use super::entry::{Completion, Entry, LogConfig, PAYLOAD_BYTES_MAX, Stored};
use super::error::{AppendError, LogError, Refused};
use super::file::{Files, FolderLock};
use super::format::{BLOCK_BYTES, DATA_START, GROUP_HEADER, Header, RECORD_HEADER, read_record, record_bytes};
use super::index::{Index, Place, Source};
use super::report::{Health, Usage};
use super::scan::scan;
use super::segment::{Pool, index_name, segment_name};
use super::sidecar::{self, IndexEntry, SegmentIndex, Subject};

/// Index files that are kept in memory after a read.
const INDEXES_LOADED_MAX: usize = 8;

/// An entry that was admitted.
pub struct Item {
    /// The entry.
    pub entry: Entry,
    /// Its completion.
    pub completion: Box<dyn Completion>,
    /// Rises with each entry.
    pub ticket: u64,
    /// Bytes that it may take at most, counted as waiting.
    pub charge: u64,
}

/// The shared part of the log.
pub struct Catalogue {
    /// The settings, made sound.
    pub config: LogConfig,
    /// The file system.
    pub files: Arc<dyn Files>,
    /// Files that are not in use.
    pub pool: Pool,
    index: RwLock<Index>,
    loaded: Mutex<Vec<(u64, Arc<SegmentIndex>)>>,
    /// Bytes left in the active segment.
    active_left: AtomicU64,
    /// Bytes that can be stored for certain.
    room: AtomicU64,
    /// Held while room is counted, so that an older count never replaces a newer one.
    counting: Mutex<()>,
    /// Bytes of the longest record so far: so much can stay unused at the end of a segment.
    longest: AtomicU64,
    /// Bytes that wait for the writer.
    queued: AtomicU64,
    tickets: AtomicU64,
    /// From which ticket on a session's entries count again, after one failed.
    pardons: Mutex<HashMap<SessionId, u64>>,
    /// Why the writer has no segment to write to.
    stalled: Mutex<Option<String>>,
    _lock: Box<dyn FolderLock>,
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Largest payload that fits in a segment.
pub fn payload_bytes_max(segment_bytes: u64) -> usize {
    let room = usize::try_from(segment_bytes - DATA_START).unwrap_or(usize::MAX);
    PAYLOAD_BYTES_MAX.min(room.saturating_sub(GROUP_HEADER + RECORD_HEADER + 8))
}

impl Catalogue {
    /// Around what recovery found.
    pub fn new(config: LogConfig, files: Arc<dyn Files>, pool: Pool, index: Index, guard: Box<dyn FolderLock>) -> Self {
        Self {
            config,
            files,
            pool,
            index: RwLock::new(index),
            loaded: Mutex::default(),
            active_left: AtomicU64::new(0),
            room: AtomicU64::new(0),
            counting: Mutex::default(),
            longest: AtomicU64::new(0),
            queued: AtomicU64::new(0),
            tickets: AtomicU64::new(0),
            pardons: Mutex::default(),
            stalled: Mutex::default(),
            _lock: guard,
        }
    }

    /// The index, to look something up.
    pub fn index(&self) -> RwLockReadGuard<'_, Index> {
        // Its methods do not panic between two changes that belong together.
        self.index.read().unwrap_or_else(PoisonError::into_inner)
    }

    /// The index, to change it.
    pub fn index_mut(&self) -> RwLockWriteGuard<'_, Index> {
        self.index.write().unwrap_or_else(PoisonError::into_inner)
    }

    /// Takes an entry if there is room for it.
    pub fn admit(&self, entry: Entry, completion: Box<dyn Completion>) -> Result<Item, AppendError> {
        let bytes = entry.payload.len();
        let bytes_max = payload_bytes_max(self.config.segment_bytes);
        let is_storable =
            bytes <= bytes_max && entry.count > 0 && entry.first.checked_add(entry.count.into()).is_some();
        if !is_storable {
            let count = entry.count;
            let refused = Box::new(Refused { entry, completion });
            return Err(AppendError::Unstorable { bytes, count, bytes_max, refused });
        }
        if let Some(reason) = lock(&self.stalled).clone() {
            return Err(AppendError::NotAccepting { reason, refused: Box::new(Refused { entry, completion }) });
        }
        let record = record_bytes(bytes) as u64;
        if self.longest.fetch_max(record, Ordering::AcqRel) < record {
            self.count_room();
        }
        // What it takes in a group of its own.
        let charge = record + GROUP_HEADER as u64 + BLOCK_BYTES;
        let queued = self.queued.fetch_add(charge, Ordering::AcqRel) + charge;
        // Alone it fits into any segment, however long it is.
        let fits_alone = queued == charge && self.pool.has_unused();
        if queued > self.room.load(Ordering::Acquire) && !fits_alone {
            self.queued.fetch_sub(charge, Ordering::AcqRel);
            let refused = Box::new(Refused { entry, completion });
            if let Some(reason) = self.pool.failure() {
                return Err(AppendError::NotAccepting { reason, refused });
            }
            let (bytes, bytes_max) = (self.pool.bytes(), self.config.frames_bytes_max);
            return Err(AppendError::Full { bytes, bytes_max, holders: self.index().holders(), refused });
        }
        let ticket = self.tickets.fetch_add(1, Ordering::AcqRel);
        Ok(Item { entry, completion, ticket, charge })
    }

    /// An admitted entry no longer waits.
    pub fn discharge(&self, charge: u64) {
        self.queued.fetch_sub(charge, Ordering::AcqRel);
    }

    /// Counts again what can be stored; the writer says what is left in its segment.
    pub fn set_active_left(&self, bytes: u64) {
        self.active_left.store(bytes, Ordering::Release);
        self.count_room();
    }

    fn count_room(&self) {
        let _counting = lock(&self.counting);
        // In this order: a spare that becomes active in between is missed, never counted twice.
        let active_left = self.active_left.load(Ordering::Acquire);
        let lost = self.longest.load(Ordering::Acquire) + BLOCK_BYTES;
        self.room.store(active_left + self.pool.room(lost), Ordering::Release);
    }

    /// Whether the helper should make a spare: the active segment is half full.
    pub fn wants_spare(&self) -> bool {
        self.active_left.load(Ordering::Acquire) < self.config.segment_bytes / 2 && self.pool.wants_spare()
    }

    /// The writer has no segment, or has one again.
    pub fn set_stalled(&self, reason: Option<String>) {
        let mut stalled = lock(&self.stalled);
        match (&*stalled, &reason) {
            (None, Some(reason)) => tracing::error!("log stopped acknowledging: {reason}"),
            (Some(_), None) => tracing::info!("log stores entries again"),
            (None, None) | (Some(_), Some(_)) => {}
        }
        *stalled = reason;
    }

    /// Whether the writer has no segment and could not get one.
    pub fn is_stalled(&self) -> bool {
        lock(&self.stalled).is_some()
    }

    /// Whether entries are stored at present.
    pub fn health(&self) -> Health {
        if let Some(reason) = lock(&self.stalled).clone() {
            return Health::NotAccepting { reason };
        }
        let longest =
            (payload_bytes_max(self.config.segment_bytes) as u64 + 2 * BLOCK_BYTES).min(self.config.segment_bytes / 4);
        if self.room.load(Ordering::Acquire) >= longest {
            return Health::Accepting;
        }
        match self.pool.failure() {
            Some(reason) => Health::NotAccepting { reason },
            None => Health::Full {
                bytes: self.pool.bytes(),
                bytes_max: self.config.frames_bytes_max,
                holders: self.index().holders(),
            },
        }
    }

    /// How full the log is.
    pub fn usage(&self) -> Usage {
        let index = self.index();
        let holders = index.holders();
        Usage {
            bytes: self.pool.bytes(),
            bytes_max: self.config.frames_bytes_max,
            held_bytes: holders.iter().map(|holder| holder.bytes).sum(),
            segments: index.segments(),
            spares: self.pool.spares(),
            holders,
        }
    }

    /// The caller went back to the durable positions: what it appends from now on counts again.
    pub fn forgive(&self, session: SessionId) {
        lock(&self.pardons).insert(session, self.tickets.load(Ordering::Acquire));
    }

    /// From which ticket on the session's entries count again. A pardon from before the failure
    /// does not count and is dropped.
    pub fn pardon_after(&self, session: SessionId, failed: u64) -> Option<u64> {
        let mut pardons = lock(&self.pardons);
        let from = *pardons.get(&session)?;
        if from > failed {
            return Some(from);
        }
        pardons.remove(&session);
        None
    }

    /// Forgets a pardon that was used.
    pub fn drop_pardon(&self, session: SessionId) {
        lock(&self.pardons).remove(&session);
    }

    /// Writes missing index files, takes back free segments, and makes a spare ahead of need.
    /// Returns whether everything was done.
    pub fn tidy(&self) -> bool {
        let mut is_done = true;
        let unlisted = self.index().unlisted();
        for (source, end, index) in unlisted {
            let subject = Subject { number: source.number, birth: source.birth, end };
            let name = index_name(source.number, source.birth);
            match self.pool.write_index(&name, &index.encode(subject)) {
                Ok(()) => self.index_mut().listed(source.birth),
                Err(error) => {
                    is_done = false;
                    tracing::warn!("index of segment {} stays in memory: {error}", source.number);
                }
            }
        }
        loop {
            let Some(sealed) = self.index_mut().take_free() else { break };
            let (number, birth) = (sealed.source.number, sealed.source.birth);
            lock(&self.loaded).retain(|(loaded, _)| *loaded != birth);
            drop(sealed.source);
            self.pool.put(sealed.segment);
            // Not there if it was never written; a stray one is removed at the next start.
            let _ = self.pool.remove(&index_name(number, birth));
        }
        if self.wants_spare() {
            self.pool.prepare();
        }
        self.count_room();
        is_done && self.pool.failure().is_none()
    }

    /// Durable entries of a stream that overlap `from..to`.
    pub fn read(&self, session: SessionId, stream: StreamId, from: u64, to: u64) -> Result<Vec<Stored>, LogError> {
        let places = self.index().places(session, stream, from, to);
        let mut found: Vec<(Source, IndexEntry)> = Vec::new();
        let overlaps = |entry: &&IndexEntry| entry.first < to && entry.next() > from;
        for place in places {
            match place {
                Place::Entries(source, entries) => {
                    found.extend(entries.into_iter().map(|entry| (source.clone(), entry)));
                }
                Place::Memory(source, index) => {
                    let entries = index.of(session, stream).iter().filter(overlaps);
                    found.extend(entries.map(|entry| (source.clone(), *entry)));
                }
                Place::File(source, end) => {
                    let index = self.load(&source, end)?;
                    let entries = index.of(session, stream).iter().filter(overlaps);
                    found.extend(entries.map(|entry| (source.clone(), *entry)));
                }
            }
        }
        // Stable: of equal ones the older segment's comes first.
        found.sort_by_key(|(_, entry)| (entry.first, entry.epoch));
        let mut stored: Vec<Stored> = Vec::with_capacity(found.len());
        for (source, entry) in found {
            let next = read_entry(&source, session, stream, &entry)?;
            // An entry that was written twice because a sync failed in between counts once.
            if stored.last() != Some(&next) {
                stored.push(next);
            }
        }
        Ok(stored)
    }

    fn load(&self, source: &Source, end: u64) -> Result<Arc<SegmentIndex>, LogError> {
        let mut loaded = lock(&self.loaded);
        if let Some(at) = loaded.iter().position(|(birth, _)| *birth == source.birth) {
            let index = loaded.remove(at);
            let found = Arc::clone(&index.1);
            loaded.push(index);
            return Ok(found);
        }
        drop(loaded);
        let subject = Subject { number: source.number, birth: source.birth, end };
        let path = self.config.directory.join(index_name(source.number, source.birth));
        let from_file = self.files.open(&path).and_then(|file| sidecar::read(&*file, subject)).ok().flatten();
        let index = match from_file {
            Some(index) => index,
            None => rebuild(source, end)?,
        };
        let index = Arc::new(index);
        let mut loaded = lock(&self.loaded);
        if loaded.len() >= INDEXES_LOADED_MAX {
            loaded.remove(0);
        }
        loaded.push((source.birth, Arc::clone(&index)));
        Ok(index)
    }

    /// Durable next sequence number per stream.
    pub fn positions(&self, session: SessionId) -> BTreeMap<StreamId, u64> {
        self.index().positions(session)
    }
}

/// The index from the segment itself, when its file is gone or bad.
fn rebuild(source: &Source, end: u64) -> Result<SegmentIndex, LogError> {
    let failed = |error| LogError::io("read", segment_name(source.number), error);
    let length = source.file.len().map_err(failed)?;
    let header = Header { stamp: 0, number: source.number, length, runs: source.runs.to_vec(), seals: Vec::new() };
    let scanned = scan(&*source.file, &header, Some(end)).map_err(failed)?;
    match scanned.damage.first() {
        Some(broken) => Err(LogError::Damaged { segment: source.number, offset: broken.offset, what: broken.what }),
        None => Ok(SegmentIndex::from_records(&scanned.records)),
    }
}

fn read_entry(source: &Source, session: SessionId, stream: StreamId, entry: &IndexEntry) -> Result<Stored, LogError> {
    let offset = u64::from(entry.offset);
    let damaged = |what| LogError::Damaged { segment: source.number, offset, what };
    if entry.payload as usize > PAYLOAD_BYTES_MAX {
        return Err(damaged("index states a length over the limit"));
    }
    let mut bytes = vec![0; entry.record_bytes()];
    let read = source.file.read_at(&mut bytes, offset);
    read.map_err(|error| LogError::io("read", format!("{} at byte {offset}", segment_name(source.number)), error))?;
    let head = read_record(&bytes, source.seed(entry.offset)).map_err(damaged)?;
    let is_same = head.session == session && head.stream == stream && head.first == entry.first;
    if !is_same || head.count != entry.count || head.payload != entry.payload || head.epoch != entry.epoch {
        return Err(damaged("record is not the one that the index names"));
    }
    let payload = Bytes::from(bytes).slice(RECORD_HEADER..);
    Ok(Stored { first: head.first, count: head.count, epoch: head.epoch, payload })
}
