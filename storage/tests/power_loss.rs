//! The promise of the log: what was acknowledged and not released is there after any crash.
//!
//! A history is a random workload on a simulated disk, cut by a power loss (or a killed process) at
//! a random operation, taken up again, and cut again, several times. After each crash the log must
//! hold every acknowledged and unreleased entry with its bytes, nothing that was never appended, no
//! hole before its positions, and must go on.
//!
//! `TENDON_CRASH_STATES=200000 cargo test --release -p tendon-storage --test power_loss` tries more
//! crashes. A failure names its history: `TENDON_SEED=<seed> TENDON_CRASH_STATES=1` plays it again.

#![allow(clippy::unwrap_used, reason = "a test stops at the first thing that is not as it should be")]

use std::collections::{BTreeMap, BTreeSet};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::thread;

use bytes::Bytes;
use tendon_protocol::id::{SessionId, StreamId};
use tendon_storage::frames::sim::{Broken, Crash, Dice, SimFiles};
use tendon_storage::frames::{AppendError, Completion, Entry, LogConfig, LogError, RecoveryReport, Stored, Writer};

const STATES: u64 = 500;
const CRASHES_A_HISTORY: u64 = 8;

type Key = (SessionId, StreamId);

/// How long payloads are.
#[derive(Clone, Copy)]
enum Lengths {
    /// All the same: records of every generation start at the same places.
    Equal(usize),
    /// Up to what a segment holds.
    Mixed { bytes_max: u64 },
}

/// Entries follow from where they start, so that a replay brings the same bytes.
fn entry_at(key: Key, first: u64, epoch: u64, lengths: Lengths) -> Entry {
    let mut dice = Dice::new(u64::from(key.0.0[15]) << 40 ^ u64::from(key.1.0) << 32 ^ first);
    let count = 1 + dice.below(16) as u32;
    let bytes = match lengths {
        Lengths::Equal(bytes) => bytes,
        Lengths::Mixed { bytes_max } if dice.chance(8) => 8 + dice.below(bytes_max - 7) as usize,
        Lengths::Mixed { bytes_max } => 8 + dice.below(bytes_max.min(2500) - 7) as usize,
    };
    let mut payload = dice.any().to_le_bytes().repeat(bytes.div_ceil(8));
    payload.truncate(bytes);
    Entry { session: key.0, stream: key.1, first, count, epoch, payload: Bytes::from(payload) }
}

/// What the world outside the log knows of one stream.
#[derive(Default)]
struct Track {
    /// Where the next entry starts.
    next: u64,
    /// First sequence numbers of all entries ever handed to the log.
    appended: BTreeSet<u64>,
    /// Acknowledged entries: first and next.
    acked: BTreeMap<u64, u64>,
    released: u64,
}

impl Track {
    fn acked_next(&self) -> u64 {
        self.acked.values().max().copied().unwrap_or(0)
    }
}

#[derive(Default)]
struct Outcomes {
    acked: Vec<(Key, u64, u64)>,
    failed: BTreeSet<SessionId>,
}

struct Told {
    key: Key,
    first: u64,
    next: u64,
    outcomes: Arc<Mutex<Outcomes>>,
}

impl Completion for Told {
    fn done(self: Box<Self>, outcome: Result<(), Arc<LogError>>) {
        let mut outcomes = self.outcomes.lock().unwrap();
        match outcome {
            Ok(()) => outcomes.acked.push((self.key, self.first, self.next)),
            Err(_) => {
                outcomes.failed.insert(self.key.0);
            }
        }
    }
}

struct History {
    dice: Dice,
    config: LogConfig,
    lengths: Lengths,
    tracks: BTreeMap<Key, Track>,
    outcomes: Arc<Mutex<Outcomes>>,
    epoch: u64,
    /// Whether the disk may fail syncs and fill up.
    has_faults: bool,
    seen: Seen,
}

/// What histories came across, to know that they are not empty.
#[derive(Clone, Copy, Debug, Default)]
struct Seen {
    crashes: u64,
    entries_acknowledged: u64,
    entries_failed: u64,
    refusals_full: u64,
    refusals_disk: u64,
    tails_torn: u64,
    segments_reused: u64,
}

impl Seen {
    fn add(&mut self, other: Self) {
        self.crashes += other.crashes;
        self.entries_acknowledged += other.entries_acknowledged;
        self.entries_failed += other.entries_failed;
        self.refusals_full += other.refusals_full;
        self.refusals_disk += other.refusals_disk;
        self.tails_torn += other.tails_torn;
        self.segments_reused += other.segments_reused;
    }
}

impl History {
    fn new(seed: u64, has_faults: bool) -> Self {
        let mut dice = Dice::new(seed);
        let segment_bytes = [16, 32, 64][dice.below(3) as usize] << 10;
        let mut config = LogConfig::new("log");
        config.segment_bytes = segment_bytes;
        config.frames_bytes_max = segment_bytes * (4 + dice.below(12));
        config.group_bytes_max = [4096, 8192, 32768][dice.below(3) as usize];
        let mut tracks = BTreeMap::new();
        for session in 0..1 + dice.below(4) {
            for stream in 0..1 + dice.below(3) {
                tracks.insert((SessionId::from_u128(u128::from(session)), StreamId(stream as u32)), Track::default());
            }
        }
        let lengths = match dice.below(3) {
            0 => Lengths::Equal(256 << dice.below(4)),
            _ => Lengths::Mixed { bytes_max: segment_bytes - 8192 - 128 },
        };
        Self { dice, config, lengths, tracks, outcomes: Arc::default(), epoch: 1, has_faults, seen: Seen::default() }
    }

    fn any_key(&mut self) -> Key {
        let at = self.dice.below(self.tracks.len() as u64) as usize;
        *self.tracks.keys().nth(at).unwrap()
    }

    /// Plays until `crashes` crashes were survived, or says what was lost.
    fn play(mut self, seed: u64, broken: Broken, crashes: u64) -> Result<Seen, String> {
        let mut files = SimFiles::new(seed);
        files.break_promises(broken);
        let (mut writer, _) = self.open(&files)?.ok_or("no start on an empty disk")?;
        for survived in 0..crashes {
            files.power_off_after(self.dice.chance(80).then(|| self.dice.below(250)));
            for _ in 0..10 + self.dice.below(60) {
                if files.is_off() {
                    break;
                }
                self.step(&mut writer, &files).map_err(|text| format!("{text}, before crash {survived}"))?;
            }
            (files, writer) = self.crash(&files, writer).map_err(|text| format!("{text}, after crash {survived}"))?;
        }
        Ok(self.seen)
    }

    fn open(&mut self, files: &SimFiles) -> Result<Option<(Writer, RecoveryReport)>, String> {
        match Writer::open(self.config.clone(), Arc::new(files.clone())) {
            Ok(_) if files.is_off() => Ok(None),
            Ok(opened) => Ok(Some(opened)),
            Err(_) if files.is_off() => Ok(None),
            Err(error) => Err(format!("the log does not open: {error}")),
        }
    }

    fn crash(&mut self, files: &SimFiles, writer: Writer) -> Result<(SimFiles, Writer), String> {
        let mut files = files.clone();
        drop(writer);
        loop {
            let crash = if self.dice.chance(75) { Crash::PowerLoss } else { Crash::Kill };
            files = files.crash(crash);
            files.power_off_after(self.dice.chance(15).then(|| self.dice.below(12)));
            self.epoch += 1;
            self.listen();
            let Some((writer, report)) = self.open(&files)? else { continue };
            files.power_off_after(None);
            self.seen.crashes += 1;
            self.seen.tails_torn += report.torn.len() as u64;
            self.seen.segments_reused += report.spares as u64;
            if let Some(damage) = report.damage.first() {
                return Err(format!("a crash alone was taken for damage: {damage}"));
            }
            self.check(&writer)?;
            return Ok((files, writer));
        }
    }

    /// Takes note of what completions were told.
    fn listen(&mut self) -> BTreeSet<SessionId> {
        let Outcomes { acked, failed } = std::mem::take(&mut *self.outcomes.lock().unwrap());
        self.seen.entries_acknowledged += acked.len() as u64;
        self.seen.entries_failed += failed.len() as u64;
        for (key, first, next) in acked {
            self.tracks.get_mut(&key).unwrap().acked.insert(first, next);
        }
        failed
    }

    fn step(&mut self, writer: &mut Writer, files: &SimFiles) -> Result<(), String> {
        match self.dice.below(100) {
            0..60 => self.append(writer),
            60..75 => writer.commit(),
            75..85 => drop(writer.tidy()),
            85..93 => self.release(writer),
            93..95 => self.check_stream(writer, false)?,
            _ if !self.has_faults => writer.commit(),
            95..97 => files.fail_syncs(self.dice.below(6), 1 + self.dice.below(3)),
            97 => files.fail_all_syncs(true),
            98 => files.fill_up(true),
            _ => {
                files.fill_up(false);
                files.fail_all_syncs(false);
                writer.revive();
            }
        }
        for session in self.listen() {
            // As the server does: back to what is durable, then again.
            let positions = writer.positions(session);
            for ((_, stream), track) in self.tracks.iter_mut().filter(|((of, _), _)| *of == session) {
                track.next = positions.get(stream).copied().unwrap_or(0).max(track.acked_next());
            }
            writer.forgive(session);
        }
        Ok(())
    }

    fn append(&mut self, writer: &mut Writer) {
        for _ in 0..1 + self.dice.below(5) {
            let key = self.any_key();
            let track = self.tracks.get_mut(&key).unwrap();
            let entry = entry_at(key, track.next, self.epoch, self.lengths);
            let (first, next) = (entry.first, entry.next());
            let told = Told { key, first, next, outcomes: Arc::clone(&self.outcomes) };
            track.appended.insert(first);
            match writer.append(entry, Box::new(told)) {
                Ok(()) => track.next = next,
                Err(refused @ (AppendError::Full { .. } | AppendError::NotAccepting { .. })) => {
                    let is_full = matches!(refused, AppendError::Full { .. });
                    *(if is_full { &mut self.seen.refusals_full } else { &mut self.seen.refusals_disk }) += 1;
                    writer.revive();
                    writer.tidy();
                    return;
                }
                Err(error) => panic!("{error}"),
            }
        }
    }

    fn release(&mut self, writer: &Writer) {
        let (session, stream) = self.any_key();
        if self.dice.chance(15) {
            let positions = writer.positions(session);
            writer.release_all(session);
            for ((_, stream), track) in self.tracks.iter_mut().filter(|((of, _), _)| *of == session) {
                track.released = track.released.max(positions.get(stream).copied().unwrap_or(0));
            }
            return;
        }
        let track = self.tracks.get_mut(&(session, stream)).unwrap();
        let at = self.dice.below(2 * track.acked.len() as u64 + 1) as usize;
        let position = track.acked.values().nth(at).copied().unwrap_or_else(|| track.acked_next());
        track.released = track.released.max(position);
        writer.release(session, &[(stream, position)]);
    }

    fn check_stream(&mut self, writer: &Writer, is_start: bool) -> Result<(), String> {
        let key = self.any_key();
        self.check_key(writer, key, is_start)
    }

    /// After a start: everything is there, and all of it counts as acknowledged from now on.
    fn check(&mut self, writer: &Writer) -> Result<(), String> {
        let keys: Vec<Key> = self.tracks.keys().copied().collect();
        for key in keys {
            self.check_key(writer, key, true)?;
            let track = &self.tracks[&key];
            if self.dice.chance(70) {
                writer.release(key.0, &[(key.1, track.released)]);
            }
        }
        Ok(())
    }

    fn check_key(&mut self, writer: &Writer, key: Key, is_start: bool) -> Result<(), String> {
        let of = format!("session {} stream {}", key.0, key.1);
        let position = writer.positions(key.0).get(&key.1).copied().unwrap_or(0);
        let stored = writer.read(key.0, key.1, 0, u64::MAX).map_err(|error| format!("{of}: {error}"))?;
        let track = self.tracks.get_mut(&key).unwrap();
        let mut firsts = BTreeSet::new();
        let mut covered = track.released;
        for Stored { first, count, epoch, payload } in stored {
            let sent = entry_at(key, first, epoch, self.lengths);
            if !track.appended.contains(&first) || sent.count != count || sent.payload != payload {
                return Err(format!("{of}: entry {first} of {count} was never appended so"));
            }
            firsts.insert(first);
            if sent.next() > covered {
                if first > covered {
                    return Err(format!("{of}: hole from {covered} to {first}"));
                }
                covered = sent.next();
            }
        }
        for (first, next) in track.acked.range(..) {
            if *next > track.released && !firsts.contains(first) {
                return Err(format!("{of}: acknowledged entry {first} is lost"));
            }
        }
        if covered > track.released && position != covered {
            return Err(format!("{of}: position is {position}, entries end at {covered}"));
        }
        if is_start {
            for first in firsts {
                let next = entry_at(key, first, 0, self.lengths).next();
                track.acked.insert(first, next);
            }
            track.next = position.max(track.acked_next());
        }
        Ok(())
    }
}

fn number(name: &str, default: u64) -> u64 {
    match std::env::var(name) {
        Ok(text) => text.parse().unwrap_or_else(|_| panic!("{name} is {text:?}, not a number")),
        Err(_) => default,
    }
}

#[test]
fn acknowledged_entries_survive_any_crash() {
    let states = number("TENDON_CRASH_STATES", STATES);
    let seed = number("TENDON_SEED", 20_251_125);
    let histories = states.div_ceil(CRASHES_A_HISTORY);
    println!("TENDON_SEED={seed} TENDON_CRASH_STATES={states}");
    let started = std::time::Instant::now();
    let (next, seen) = (AtomicU64::new(0), Mutex::new(Seen::default()));
    let workers = thread::available_parallelism().map_or(1, usize::from);
    let failures: Vec<String> = thread::scope(|scope| {
        let work = || {
            let mut failures = Vec::new();
            loop {
                let history = next.fetch_add(1, Ordering::Relaxed);
                if history >= histories || !failures.is_empty() {
                    return failures;
                }
                let seed = seed.wrapping_add(history);
                match History::new(seed, history % 2 == 0).play(seed, Broken::default(), CRASHES_A_HISTORY) {
                    Ok(saw) => seen.lock().unwrap().add(saw),
                    Err(text) => failures.push(format!("TENDON_SEED={seed} TENDON_CRASH_STATES=1: {text}")),
                }
            }
        };
        let threads: Vec<_> = (0..workers).map(|_| scope.spawn(work)).collect();
        threads.into_iter().flat_map(|thread| thread.join().unwrap()).collect()
    });
    assert!(failures.is_empty(), "{}", failures.join("\n"));
    let seen = seen.into_inner().unwrap();
    let rate = seen.crashes as f64 / started.elapsed().as_secs_f64();
    println!("acknowledged_lost 0, {rate:.0} crashes/s, {seen:?}");
    if states >= STATES {
        let rarest =
            [seen.entries_failed, seen.refusals_full, seen.refusals_disk, seen.tails_torn, seen.segments_reused];
        assert!(rarest.iter().all(|count| *count > 0), "the histories are too tame: {seen:?}");
    }
}

/// Histories that lose something when the disk does not keep a promise.
fn losses(broken: Broken) -> Vec<String> {
    let play = |seed| History::new(seed, true).play(seed, broken, CRASHES_A_HISTORY).err();
    (0..40).filter_map(play).collect()
}

#[test]
fn the_check_finds_loss_when_files_are_not_synced() {
    let losses = losses(Broken { sync_data: true, ..Broken::default() });
    println!("{} of 40 histories lost something, such as: {:?}", losses.len(), losses.first());
    assert!(losses.iter().any(|text| text.contains("is lost")), "{losses:?}");
}

#[test]
fn the_check_finds_loss_when_folders_are_not_synced() {
    let losses = losses(Broken { sync_directory: true, ..Broken::default() });
    println!("{} of 40 histories lost something, such as: {:?}", losses.len(), losses.first());
    assert!(losses.iter().any(|text| text.contains("is lost")), "{losses:?}");
}
