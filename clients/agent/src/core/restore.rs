//! From a spool folder to a core that goes on where the process before it stopped, and back.

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;
use std::time::{Duration, Instant};

use tendon_protocol::id::StreamId;
use tendon_protocol::limit;
use tendon_protocol::message::Message;
use tokio::sync::mpsc;

use crate::clock::wall_ns;
use crate::config::AgentConfig;
use crate::core::renumber;
use crate::core::shelf::{Pressure, Shelf, Stored};
use crate::core::{Core, Counters, MarkRequest, Settings};
use crate::error::AgentError;
use crate::ledger::{Before, Entry, Hole, Ledger};
use crate::spool::files::{Found, Head, Limits, SpoolFiles};
use crate::spool::state::{Anchor, ClockState, Shift, State, StateFile, StreamState};
use crate::uplink::machine::Machine;

/// Requests that wait for the application: a person presses a button at most a few times a second.
const REQUESTS_MAX: usize = 64;

impl Core {
    /// Opens the spool, if there is one; blocks on files.
    pub fn open(config: &AgentConfig) -> Result<(Self, mpsc::Receiver<MarkRequest>), AgentError> {
        config.check()?;
        let (files, found, state) = open_spool(config)?;
        let mut ledger = Ledger::new();
        for stream in &state.streams {
            let before = Before { acknowledged: stream.acknowledged, next: stream.next, holes: stream.holes.clone() };
            ledger.restore_lane(stream.stream, before);
        }
        ledger.order_from(state.shifts.iter().map(|shift| shift.until).max().unwrap_or(0));
        let mut counters = Counters::default();
        let mut shelf = Shelf::new(&config.spool, files);
        let waiting = restore_messages(&mut ledger, &mut shelf, found, &state.shifts)?;
        counters.waiting = waiting;
        let seed = rand::random();
        let (requests, receiver) = mpsc::channel(REQUESTS_MAX);
        let machine = Machine::new(config.session, config.backoff, &ledger.acknowledged(), seed);
        let mut core = Self {
            settings: Settings::from(config),
            clock: config.clock.clone(),
            started: Instant::now(),
            sources: BTreeMap::new(),
            ledger,
            shelf,
            machine,
            counters,
            control: VecDeque::new(),
            open_bytes: 0,
            failed: None,
            replay_until: 0,
            payload_bytes_max: limit::PAYLOAD_BYTES_MAX,
            unclean: !state.clean,
            shifts: state.shifts,
            clocks: state.clocks,
            episode: state.episode,
            snapshots: 0,
            dirty: false,
            requests: Some(requests),
            armed: false,
            patience: Duration::ZERO,
            hold_until: Duration::ZERO,
            closed: false,
            state_file: config.spool.folder.clone().map(|folder| Arc::new(StateFile::new(folder))),
        };
        for declaration in state.declarations {
            core.add_source(declaration);
        }
        core.write_state_now()?;
        Ok((core, receiver))
    }

    /// What to write to the state file now; `None` without a spool folder.
    pub fn snapshot(&mut self) -> Option<(u64, State)> {
        self.shelf.files.as_ref()?;
        self.dirty = false;
        self.snapshots += 1;
        self.prune();
        let all_on_disk =
            || self.open_bytes == 0 && self.ledger.entries().all(|(_, entry)| entry.payload.place.is_some());
        let mut state = State::new(self.settings.session, self.settings.producer);
        // A running process in overflow mode may die with samples in memory; one that writes through cannot.
        state.clean = self.shelf.writes_through() || (self.closed && all_on_disk());
        state.streams = self
            .ledger
            .before()
            .map(|(stream, before)| StreamState {
                stream,
                acknowledged: before.acknowledged,
                next: before.next,
                holes: before.holes,
            })
            .collect();
        state.shifts.clone_from(&self.shifts);
        state.clocks.clone_from(&self.clocks);
        state.declarations = self.sources.values().map(|source| source.declaration.clone()).collect();
        state.episode = self.episode;
        Some((self.snapshots, state))
    }

    /// Leaves out of the state what no kept message needs, and says where the own clock stands.
    fn prune(&mut self) {
        let oldest = self.ledger.oldest().unwrap_or(u64::MAX);
        self.shifts.retain(|shift| shift.until > oldest);
        let own = self.clock.id();
        if self.clocks.iter().any(|clock| clock.id != own) {
            let spooled: std::collections::BTreeSet<_> = self.ledger.entries().map(|(_, entry)| entry.clock).collect();
            self.clocks.retain(|clock| clock.id == own || spooled.contains(&clock.id));
        }
        let anchor = Anchor { clock_ns: self.clock.now_ns(), wall_ns: wall_ns() };
        match self.clocks.iter_mut().find(|clock| clock.id == own) {
            Some(clock) => clock.last = anchor,
            None => self.clocks.push(ClockState { id: own, kind: self.clock.kind(), first: anchor, last: anchor }),
        }
    }

    /// Writes the state file; blocks until it is on disk. For moments after which being behind would be wrong.
    pub fn write_state_now(&mut self) -> Result<(), AgentError> {
        let Some(file) = self.state_file.clone() else { return Ok(()) };
        match self.snapshot() {
            Some((number, state)) => file.write(number, &state),
            None => Ok(()),
        }
    }

    /// The application stops: everything goes to the files, if there are any.
    pub fn shut(&mut self) -> Result<(), AgentError> {
        // Nothing can be done about samples that do not fit the disk; the state file will say that the end was not clean.
        let sealed = self.seal_all(Pressure::Forced);
        self.closed = true;
        let Self { ledger, shelf, .. } = self;
        if let (Ok(()), true) = (sealed, shelf.files.is_some()) {
            for (stream, entry) in ledger.entries_mut() {
                let head = Head {
                    order: entry.order,
                    first: entry.first,
                    stream,
                    count: u16::try_from(entry.count).unwrap_or(u16::MAX),
                    provisional: entry.provisional,
                    clock: entry.clock,
                };
                shelf.spill(head, &mut entry.payload);
            }
        }
        if let Some(files) = &mut shelf.files {
            files.tidy();
        }
        self.requests = None;
        let written = self.write_state_now();
        // Frees the folder for the next agent.
        self.shelf.files = None;
        written
    }
}

fn open_spool(config: &AgentConfig) -> Result<(Option<SpoolFiles>, Vec<Found>, State), AgentError> {
    let fresh = State::new(config.session, config.producer);
    let Some(folder) = &config.spool.folder else { return Ok((None, Vec::new(), fresh)) };
    let limits = Limits {
        segment_bytes: config.spool.segment_bytes,
        file_bytes_max: config.spool.file_bytes_max,
        fsync: config.spool.fsync,
    };
    let (files, found) = SpoolFiles::open(folder, limits)?;
    let wrong = |what: String| Err(AgentError::Spool { folder: folder.clone(), what });
    let state = match State::read(folder)? {
        Some(state) => state,
        None if found.is_empty() => fresh,
        None => {
            return wrong(format!(
                "holds {} messages but no state.json that says whose; move it away to start anew",
                found.len()
            ));
        }
    };
    if (state.session, state.producer) != (config.session, config.producer) {
        return wrong(format!(
            "belongs to session {} and producer {}; finish that one first, or use another folder",
            state.session, state.producer
        ));
    }
    if files.cut_bytes > 0 {
        tracing::warn!(bytes = files.cut_bytes, folder = %folder.display(), "cut torn records off the spool files");
    }
    Ok((Some(files), found, state))
}

/// The first number of a record, and how it was moved.
fn numbered<'a>(head: &Head, shifts: &'a [Shift]) -> (u64, Option<&'a Shift>) {
    let shift = shifts.iter().find(|shift| head.provisional && (shift.from..shift.until).contains(&head.order));
    let delta = shift.and_then(|shift| shift.deltas.get(&head.stream)).copied().unwrap_or(0);
    (head.first.saturating_add(delta), shift)
}

/// Puts the records back into the ledger; gives how many samples wait.
fn restore_messages(
    ledger: &mut Ledger<Stored>,
    shelf: &mut Shelf,
    found: Vec<Found>,
    shifts: &[Shift],
) -> Result<u64, AgentError> {
    let acknowledged: BTreeMap<StreamId, u64> =
        ledger.acknowledged().into_iter().map(|position| (position.stream, position.next)).collect();
    let (mut waiting, mut losses, mut entries) = (0, Vec::new(), Vec::new());
    // A journal number that was written twice means its last message.
    let mut newest: BTreeMap<u64, usize> = BTreeMap::new();
    for (at, record) in found.iter().enumerate().filter(|(_, record)| record.head.stream == StreamId::JOURNAL) {
        newest.insert(numbered(&record.head, shifts).0, at);
    }
    for (at, Found { head, place, journal }) in found.into_iter().enumerate() {
        let (first, shift) = numbered(&head, shifts);
        let deltas = shift.map(|shift| Arc::new(shift.deltas.clone()));
        let end = first.saturating_add(u64::from(head.count));
        let replaced = head.stream == StreamId::JOURNAL && newest.get(&first) != Some(&at);
        if replaced || end <= acknowledged.get(&head.stream).copied().unwrap_or(0) {
            if let Some(files) = &mut shelf.files {
                files.forget(place);
            }
            ledger.order_from(head.order + 1);
            continue;
        }
        if let Some(bytes) = journal
            && let Ok(mut message) = Message::decode(&bytes)
        {
            if let Some(deltas) = &deltas {
                renumber::shift(&mut message, deltas);
            }
            if let Message::Lost(lost) = message
                && lost.stream != StreamId::JOURNAL
            {
                losses.push((lost, !head.provisional || shift.is_some()));
            }
        }
        if head.stream != StreamId::JOURNAL {
            waiting += u64::from(head.count);
        }
        let bytes = place.bytes();
        let provisional = head.provisional && shift.is_none();
        let payload = Stored { memory: None, place: Some(place), shift: deltas.filter(|deltas| !deltas.is_empty()) };
        let (order, count, clock) = (head.order, u32::from(head.count), head.clock);
        let entry = Entry { order, first, count, bytes, after: None, provisional, clock, written: None, payload };
        entries.push((head.stream, entry));
    }
    // Records of equal order are of one stream: one was put in front of the other later.
    entries.sort_by_key(|(_, entry)| (entry.order, entry.first));
    for (stream, entry) in entries {
        ledger.restore(stream, entry);
    }
    for (lost, settled) in losses {
        let hole = Hole { first: lost.first, last: lost.last, declared: lost.sequence, reason: lost.reason };
        ledger.restore_hole(lost.stream, hole, settled);
    }
    Ok(waiting)
}
