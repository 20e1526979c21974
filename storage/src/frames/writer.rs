//! Writes groups. Knows no thread: [`FrameLog`](super::FrameLog) runs it on one, a test drives it
//! step by step.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use tendon_protocol::id::{SessionId, StreamId};

use super::catalogue::{Catalogue, Item};
use super::entry::{Completion, Entry, LogConfig, Stored};
use super::error::{AppendError, LogError};
use super::file::Files;
use super::format::{
    BLOCK_BYTES, DATA_START, GROUP_HEADER, Run, SEALS_MAX, align, finish_group, push_record, record_bytes, seal_record,
};
use super::index::Source;
use super::recovery;
use super::report::{Health, RecoveryReport, Usage};
use super::segment::{Segment, segment_name};
use super::sidecar::IndexEntry;

/// The segment that takes entries.
pub(super) struct Active {
    /// Its file.
    pub segment: Segment,
    /// The run that is being written.
    pub run: Run,
    /// Where the next group starts.
    pub offset: u64,
}

impl Active {
    fn left(&self) -> u64 {
        self.segment.length.saturating_sub(self.offset)
    }
}

struct Pending {
    key: (SessionId, StreamId),
    /// Its offset is that in the group until the group is durable.
    entry: IndexEntry,
    completion: Box<dyn Completion>,
    ticket: u64,
    charge: u64,
}

/// Collects entries into groups and makes them durable.
pub struct Writer {
    catalogue: Arc<Catalogue>,
    active: Option<Active>,
    group: Vec<u8>,
    group_bytes_max: usize,
    pending: Vec<Pending>,
    /// Sessions of which an entry failed, with the last ticket that failed.
    behind: HashMap<SessionId, u64>,
    /// A segment was sealed since the helper was last asked for.
    has_sealed: bool,
}

impl Writer {
    /// Opens the log in `config.directory`, or makes one there, and says what was found.
    ///
    /// # Errors
    /// When the folder cannot be read or another process has it. Damaged segments are no error:
    /// they are in the report.
    pub fn open(config: LogConfig, files: Arc<dyn Files>) -> Result<(Self, RecoveryReport), LogError> {
        let recovered = recovery::open(config, files)?;
        let room = recovered.catalogue.config.segment_bytes - DATA_START;
        let group_bytes_max =
            recovered.catalogue.config.group_bytes_max.min(usize::try_from(room).unwrap_or(usize::MAX));
        let writer = Self {
            catalogue: Arc::new(recovered.catalogue),
            active: recovered.active,
            group: Vec::with_capacity(group_bytes_max + BLOCK_BYTES as usize),
            group_bytes_max,
            pending: Vec::new(),
            behind: HashMap::new(),
            has_sealed: false,
        };
        writer.count_left();
        Ok((writer, recovered.report))
    }

    pub(super) fn catalogue(&self) -> &Arc<Catalogue> {
        &self.catalogue
    }

    /// Takes an entry into the group. May make the group durable first when that is full.
    ///
    /// # Errors
    /// When there is no room; the entry comes back.
    pub fn append(&mut self, entry: Entry, completion: Box<dyn Completion>) -> Result<(), AppendError> {
        let item = self.catalogue.admit(entry, completion)?;
        self.push(item);
        Ok(())
    }

    /// Takes an admitted entry into the group.
    pub(super) fn push(&mut self, item: Item) {
        let bytes = record_bytes(item.entry.payload.len());
        let is_over = self.group.len() + bytes > self.group_bytes_max;
        if !self.pending.is_empty() && (is_over || !self.fits(self.group.len() + bytes)) {
            self.commit();
        }
        if let Some(error) = self.refusal(&item) {
            return self.fail(item.entry.session, item.ticket, item.charge, item.completion, &Arc::new(error));
        }
        if self.pending.is_empty() {
            if !self.fits(GROUP_HEADER + bytes)
                && let Err(error) = self.change_segment()
            {
                return self.fail(item.entry.session, item.ticket, item.charge, item.completion, &Arc::new(error));
            }
            self.group.clear();
            self.group.resize(GROUP_HEADER, 0);
        }
        let Some(active) = &self.active else { return };
        let Item { entry, completion, ticket, charge } = item;
        let index = IndexEntry {
            first: entry.first,
            epoch: entry.epoch,
            offset: self.group.len() as u32,
            payload: entry.payload.len() as u32,
            count: entry.count,
        };
        push_record(&mut self.group, &entry, active.run.seed());
        self.pending.push(Pending { key: (entry.session, entry.stream), entry: index, completion, ticket, charge });
    }

    /// Makes the group durable, then tells the completions. Does nothing without a group.
    pub fn commit(&mut self) {
        if self.pending.is_empty() {
            return;
        }
        let Err(first) = self.write_group() else { return self.publish() };
        tracing::error!("{first}; the segment is given up, its last group goes into another one");
        // Nobody knows what is on the disk behind the last good sync: this segment is never written
        // or synced again. Its group was not acknowledged, so it goes elsewhere.
        self.seal_active();
        let again = self.open_segment().and_then(|()| {
            self.reseal_group();
            self.write_group().inspect_err(|_| self.seal_active())
        });
        match again {
            Ok(()) => self.publish(),
            Err(error) => self.fail_group(error),
        }
    }

    /// Tries to get going again after appends were refused.
    pub fn revive(&mut self) {
        self.commit();
        if self.active.is_some() && self.catalogue.index().is_active_spent() {
            // All of it was released, so the helper can take it back.
            self.seal_active();
        }
        if self.catalogue.is_stalled() {
            match self.open_segment() {
                Ok(()) => self.catalogue.set_stalled(None),
                Err(LogError::Full { .. }) => self.catalogue.set_stalled(None),
                Err(error) => self.stall(&error),
            }
        }
        self.count_left();
    }

    /// See [`FrameLog::positions`](super::FrameLog::positions).
    #[must_use]
    pub fn positions(&self, session: SessionId) -> BTreeMap<StreamId, u64> {
        self.catalogue.positions(session)
    }

    /// See [`FrameLog::sessions`](super::FrameLog::sessions).
    #[must_use]
    pub fn sessions(&self) -> Vec<SessionId> {
        self.catalogue.index().sessions()
    }

    /// See [`FrameLog::read`](super::FrameLog::read).
    ///
    /// # Errors
    /// As there.
    pub fn read(&self, session: SessionId, stream: StreamId, from: u64, to: u64) -> Result<Vec<Stored>, LogError> {
        self.catalogue.read(session, stream, from, to)
    }

    /// See [`FrameLog::release`](super::FrameLog::release).
    pub fn release(&self, session: SessionId, below: &[(StreamId, u64)]) {
        self.catalogue.index_mut().release(session, below);
    }

    /// See [`FrameLog::release_all`](super::FrameLog::release_all).
    pub fn release_all(&self, session: SessionId) {
        self.catalogue.index_mut().release_all(session);
    }

    /// See [`FrameLog::forgive`](super::FrameLog::forgive).
    pub fn forgive(&self, session: SessionId) {
        self.catalogue.forgive(session);
    }

    /// See [`FrameLog::usage`](super::FrameLog::usage).
    #[must_use]
    pub fn usage(&self) -> Usage {
        self.catalogue.usage()
    }

    /// See [`FrameLog::health`](super::FrameLog::health).
    #[must_use]
    pub fn health(&self) -> Health {
        self.catalogue.health()
    }

    /// Does what the helper thread does: index files, free segments, a spare.
    pub fn tidy(&self) -> bool {
        self.catalogue.tidy()
    }

    /// Whether the helper has something to do.
    pub(super) fn wants_help(&mut self) -> bool {
        std::mem::take(&mut self.has_sealed) || self.catalogue.wants_spare()
    }

    fn fits(&self, group: usize) -> bool {
        self.active.as_ref().is_some_and(|active| align(group as u64) <= active.left())
    }

    fn refusal(&mut self, item: &Item) -> Option<LogError> {
        if self.behind.is_empty() {
            return None;
        }
        let session = item.entry.session;
        let failed = *self.behind.get(&session)?;
        if self.catalogue.pardon_after(session, failed).is_some_and(|from| item.ticket >= from) {
            self.behind.remove(&session);
            self.catalogue.drop_pardon(session);
            return None;
        }
        Some(LogError::Behind { session })
    }

    fn change_segment(&mut self) -> Result<(), LogError> {
        if self.catalogue.is_stalled() {
            return Err(LogError::Stalled);
        }
        self.seal_active();
        self.open_segment().inspect_err(|error| self.stall(error))
    }

    /// No segment can be had. A log that is only full needs no trying again: a release ends it.
    fn stall(&self, error: &LogError) {
        if !matches!(error, LogError::Full { .. }) {
            self.catalogue.set_stalled(Some(error.to_string()));
        }
    }

    fn seal_active(&mut self) {
        if let Some(Active { segment, offset, .. }) = self.active.take() {
            self.catalogue.index_mut().seal(segment, offset);
            self.has_sealed = true;
        }
        self.count_left();
    }

    fn open_segment(&mut self) -> Result<(), LogError> {
        let mut segment = self.catalogue.pool.take()?;
        let mut seals = self.catalogue.index().seals();
        seals.truncate(SEALS_MAX);
        let run = self.catalogue.pool.new_run(DATA_START as u32);
        if let Err(error) = segment.write_header(self.catalogue.pool.next_generation(), vec![run], &seals) {
            self.catalogue.pool.discard(&segment);
            return Err(error);
        }
        let mut index = self.catalogue.index_mut();
        index.told(&seals, run.generation);
        index.open(Source::new(&segment));
        drop(index);
        self.active = Some(Active { segment, run, offset: DATA_START });
        self.count_left();
        Ok(())
    }

    fn count_left(&self) {
        self.catalogue.set_active_left(self.active.as_ref().map_or(0, Active::left));
    }

    /// Gives the records of the group the checksums of the segment that is active now.
    fn reseal_group(&mut self) {
        let Some(active) = &self.active else { return };
        let seed = active.run.seed();
        for pending in &self.pending {
            if let Some(record) = self.group.get_mut(pending.entry.offset as usize..) {
                seal_record(record, seed);
            }
        }
    }

    fn write_group(&mut self) -> Result<(), LogError> {
        let Some(active) = &mut self.active else { return Err(LogError::Stalled) };
        let bytes = self.group.len();
        let padded = align(bytes as u64);
        if padded > active.left() {
            // Only when a segment of another length came in between.
            return Err(LogError::Full { bytes: active.offset, bytes_max: active.segment.length });
        }
        finish_group(&mut self.group, &active.run, active.offset, self.pending.len() as u32);
        self.group.resize(padded as usize, 0);
        let written = active.segment.file.write_at(&self.group, active.offset);
        let durable = written.and_then(|()| active.segment.file.sync_data());
        self.group.truncate(bytes);
        if let Err(source) = durable {
            active.segment.is_suspect = true;
            let name = format!("{} at byte {}", segment_name(active.segment.number), active.offset);
            return Err(LogError::io("write", name, source));
        }
        Ok(())
    }

    /// The group is durable: into the index with it, then the completions.
    fn publish(&mut self) {
        let Some(active) = &mut self.active else { return };
        let base = active.offset as u32;
        active.offset += align(self.group.len() as u64);
        let entries = self.pending.iter().map(|pending| {
            let entry = IndexEntry { offset: base + pending.entry.offset, ..pending.entry };
            (pending.key, entry)
        });
        self.catalogue.index_mut().add(entries);
        self.count_left();
        let mut charge = 0;
        for pending in self.pending.drain(..) {
            charge += pending.charge;
            pending.completion.done(Ok(()));
        }
        self.catalogue.discharge(charge);
        self.group.clear();
    }

    fn fail_group(&mut self, error: LogError) {
        self.stall(&error);
        let error = Arc::new(error);
        // All sessions first: a completion may cause appends at once.
        let pending = std::mem::take(&mut self.pending);
        self.behind.extend(pending.iter().map(|pending| (pending.key.0, pending.ticket)));
        for Pending { key, completion, ticket, charge, .. } in pending {
            self.fail(key.0, ticket, charge, completion, &error);
        }
        self.group.clear();
    }

    fn fail(
        &mut self,
        session: SessionId,
        ticket: u64,
        charge: u64,
        completion: Box<dyn Completion>,
        error: &Arc<LogError>,
    ) {
        let failed = self.behind.entry(session).or_default();
        *failed = (*failed).max(ticket);
        self.catalogue.discharge(charge);
        completion.done(Err(Arc::clone(error)));
    }
}
