//! A disk in memory that loses power, for tests of what the log promises.
//!
//! What a real disk and a real system may do to bytes that were not synced, this one does at
//! random, but the same again for the same seed: each sector of 512 bytes keeps its old content, or
//! any state that it went through since the last sync, independent of its neighbours (so writes are
//! dropped and reordered), or is torn: part new, the rest old, zeros or garbage. A new or removed
//! name counts only after its folder was synced. A failed sync stores some sectors and forgets the
//! others, and as on Linux a later sync does not write them, though reads still show them.
//!
//! ```
//! use std::path::Path;
//! use tendon_storage::frames::Files;
//! use tendon_storage::frames::sim::{Crash, SimFiles};
//!
//! let files = SimFiles::new(7);
//! let file = files.create(Path::new("log/a"))?;
//! file.write_at(b"kept", 0)?;
//! file.sync_data()?;
//! files.sync_directory(Path::new("log"))?;
//! file.write_at(b"lost?", 4)?;
//! let survivor = files.crash(Crash::PowerLoss);
//! let mut bytes = [0; 4];
//! survivor.open(Path::new("log/a"))?.read_at(&mut bytes, 0)?;
//! assert_eq!(&bytes, b"kept");
//! # Ok::<(), std::io::Error>(())
//! ```

mod content;

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use self::content::{Content, Odds};
use super::file::{File, Files, FolderLock};

/// Unit that a disk writes whole or not, bytes.
pub const SECTOR_BYTES: usize = 512;

/// Random numbers that are the same on every machine (splitmix64).
#[derive(Clone, Debug)]
pub struct Dice(u64);

impl Dice {
    /// Dice that roll the same for the same seed.
    #[must_use]
    pub fn new(seed: u64) -> Self {
        Self(seed)
    }

    /// Any number.
    pub fn any(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }

    /// A number below `end`; 0 when `end` is 0.
    pub fn below(&mut self, end: u64) -> u64 {
        self.any() % end.max(1)
    }

    /// Whether something happens that does so in `percent` of all cases.
    pub fn chance(&mut self, percent: u64) -> bool {
        self.below(100) < percent
    }
}

/// How a machine stops.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Crash {
    /// The power goes: only what was synced is certain.
    PowerLoss,
    /// Only the process dies: the system keeps its cache.
    Kill,
}

/// What a test can switch off, to see that it notices.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Broken {
    /// Syncs of files do nothing.
    pub sync_data: bool,
    /// Syncs of folders do nothing.
    pub sync_directory: bool,
    /// Reads after a failed sync still come from the cache, however often it is dropped.
    pub drop_cache: bool,
}

struct State {
    dice: Dice,
    names: BTreeMap<PathBuf, u64>,
    disk_names: BTreeMap<PathBuf, u64>,
    /// What happened to names since their folder was synced.
    name_changes: Vec<(PathBuf, Option<u64>)>,
    contents: HashMap<u64, Content>,
    next_id: u64,
    operations: u64,
    /// Operations until the power goes.
    power_left: Option<u64>,
    is_off: bool,
    /// Syncs until the first that fails, and how many fail then.
    sync_fails_in: u64,
    syncs_to_fail: u64,
    all_syncs_fail: bool,
    is_full: bool,
    broken: Broken,
}

fn error(kind: io::ErrorKind, text: &'static str) -> io::Error {
    io::Error::new(kind, text)
}

impl State {
    /// Counts an operation that changes something; the last one before the power goes may be done.
    fn spend(&mut self) -> io::Result<bool> {
        self.check_power()?;
        self.operations += 1;
        match &mut self.power_left {
            Some(0) => {
                self.is_off = true;
                if self.dice.chance(50) { Ok(false) } else { self.check_power().map(|()| true) }
            }
            Some(left) => {
                *left -= 1;
                Ok(true)
            }
            None => Ok(true),
        }
    }

    fn check_power(&self) -> io::Result<()> {
        if self.is_off { Err(error(io::ErrorKind::Other, "the power is off")) } else { Ok(()) }
    }

    /// Whether this sync fails.
    fn sync_fails(&mut self) -> bool {
        if self.syncs_to_fail == 0 || self.sync_fails_in > 0 {
            self.sync_fails_in = self.sync_fails_in.saturating_sub(1);
            return self.all_syncs_fail;
        }
        self.syncs_to_fail -= 1;
        true
    }

    fn content(&mut self, id: u64) -> &mut Content {
        self.contents.entry(id).or_default()
    }
}

/// Files on the simulated disk. A clone is the same disk.
#[derive(Clone)]
pub struct SimFiles {
    state: Arc<Mutex<State>>,
}

struct SimFile {
    state: Arc<Mutex<State>>,
    id: u64,
}

struct SimLock;

impl FolderLock for SimLock {}

fn lock(state: &Mutex<State>) -> MutexGuard<'_, State> {
    state.lock().unwrap_or_else(PoisonError::into_inner)
}

impl SimFiles {
    /// An empty disk.
    #[must_use]
    pub fn new(seed: u64) -> Self {
        Self::with(State {
            dice: Dice::new(seed),
            names: BTreeMap::new(),
            disk_names: BTreeMap::new(),
            name_changes: Vec::new(),
            contents: HashMap::new(),
            next_id: 1,
            operations: 0,
            power_left: None,
            is_off: false,
            sync_fails_in: 0,
            syncs_to_fail: 0,
            all_syncs_fail: false,
            is_full: false,
            broken: Broken::default(),
        })
    }

    fn with(state: State) -> Self {
        Self { state: Arc::new(Mutex::new(state)) }
    }

    /// Stops the machine and gives the disk that the next start finds. This one is off from then on.
    #[must_use]
    pub fn crash(&self, crash: Crash) -> Self {
        let mut old = lock(&self.state);
        let seed = old.dice.any();
        old.is_off = true;
        let next = Self::new(seed);
        {
            let mut new = lock(&next.state);
            new.broken = old.broken;
            new.next_id = old.next_id;
            new.is_full = old.is_full;
            new.operations = old.operations;
            new.contents = std::mem::take(&mut old.contents);
            new.names = std::mem::take(&mut old.names);
            new.disk_names = std::mem::take(&mut old.disk_names);
            new.name_changes = std::mem::take(&mut old.name_changes);
            if crash == Crash::PowerLoss {
                lose_power(&mut new);
            }
        }
        next
    }

    /// The power goes after so many more operations that change something.
    pub fn power_off_after(&self, operations: Option<u64>) {
        lock(&self.state).power_left = operations;
    }

    /// Whether the power is off.
    #[must_use]
    pub fn is_off(&self) -> bool {
        lock(&self.state).is_off
    }

    /// Operations so far that changed something.
    #[must_use]
    pub fn operations(&self) -> u64 {
        lock(&self.state).operations
    }

    /// One sync of a file fails: the next one for 0.
    pub fn fail_sync_in(&self, syncs: Option<u64>) {
        self.fail_syncs(syncs.unwrap_or(0), u64::from(syncs.is_some()));
    }

    /// After so many syncs that work, some fail in a row.
    pub fn fail_syncs(&self, after: u64, times: u64) {
        let mut state = lock(&self.state);
        (state.sync_fails_in, state.syncs_to_fail) = (after, times);
    }

    /// Whether every sync of a file fails.
    pub fn fail_all_syncs(&self, fails: bool) {
        lock(&self.state).all_syncs_fail = fails;
    }

    /// Whether no file can be made or grow.
    pub fn fill_up(&self, is_full: bool) {
        lock(&self.state).is_full = is_full;
    }

    /// Makes some of its promises false.
    pub fn break_promises(&self, broken: Broken) {
        lock(&self.state).broken = broken;
    }

    /// Changes bytes on the disk behind everybody's back.
    ///
    /// # Errors
    /// When there is no such file or it is shorter.
    pub fn overwrite(&self, path: &Path, offset: usize, bytes: &[u8]) -> io::Result<()> {
        let mut state = lock(&self.state);
        let id = *state.names.get(path).ok_or_else(|| io::Error::from(io::ErrorKind::NotFound))?;
        let content = state.content(id);
        for side in [&mut content.view, &mut content.disk] {
            let target = side.get_mut(offset..offset + bytes.len());
            target.ok_or_else(|| io::Error::from(io::ErrorKind::UnexpectedEof))?.copy_from_slice(bytes);
        }
        Ok(())
    }
}

fn lose_power(state: &mut State) {
    let odds = Odds::roll(&mut state.dice);
    let mut names = std::mem::take(&mut state.disk_names);
    let mut is_settled = BTreeSet::new();
    // Changes of one name happen in order, up to some moment; names are independent.
    for (path, id) in std::mem::take(&mut state.name_changes) {
        if is_settled.contains(&path) {
            continue;
        }
        if !state.dice.chance(odds.keep) {
            is_settled.insert(path);
            continue;
        }
        match id {
            Some(id) => names.insert(path, id),
            None => names.remove(&path),
        };
    }
    let mut contents = HashMap::new();
    for id in names.values() {
        let mut content = state.contents.remove(id).unwrap_or_default();
        content.settle(&mut state.dice, odds);
        content.view.clone_from(&content.disk);
        contents.insert(*id, content);
    }
    state.contents = contents;
    state.names.clone_from(&names);
    state.disk_names = names;
}

impl Files for SimFiles {
    fn create_directory(&self, _: &Path) -> io::Result<()> {
        lock(&self.state).check_power()
    }

    fn lock_directory(&self, _: &Path) -> io::Result<Box<dyn FolderLock>> {
        lock(&self.state).check_power()?;
        Ok(Box::new(SimLock))
    }

    fn create(&self, path: &Path) -> io::Result<Arc<dyn File>> {
        let mut state = lock(&self.state);
        if state.is_full {
            return Err(error(io::ErrorKind::StorageFull, "no space left on device"));
        }
        if state.names.contains_key(path) {
            return Err(io::ErrorKind::AlreadyExists.into());
        }
        let goes_on = state.spend()?;
        let id = state.next_id;
        state.next_id += 1;
        state.names.insert(path.to_owned(), id);
        state.name_changes.push((path.to_owned(), Some(id)));
        state.contents.insert(id, Content::default());
        if !goes_on {
            state.check_power()?;
        }
        Ok(Arc::new(SimFile { state: Arc::clone(&self.state), id }))
    }

    fn open(&self, path: &Path) -> io::Result<Arc<dyn File>> {
        let state = lock(&self.state);
        state.check_power()?;
        let id = *state.names.get(path).ok_or_else(|| io::Error::from(io::ErrorKind::NotFound))?;
        Ok(Arc::new(SimFile { state: Arc::clone(&self.state), id }))
    }

    fn list(&self, directory: &Path) -> io::Result<Vec<String>> {
        let state = lock(&self.state);
        state.check_power()?;
        let inside = state.names.keys().filter_map(|path| path.strip_prefix(directory).ok());
        Ok(inside.map(|name| name.display().to_string()).collect())
    }

    fn remove(&self, path: &Path) -> io::Result<()> {
        let mut state = lock(&self.state);
        state.check_power()?;
        if !state.names.contains_key(path) {
            return Err(io::ErrorKind::NotFound.into());
        }
        state.spend()?;
        state.names.remove(path);
        state.name_changes.push((path.to_owned(), None));
        state.check_power()
    }

    fn sync_directory(&self, _: &Path) -> io::Result<()> {
        let mut state = lock(&self.state);
        let goes_on = state.spend()?;
        if !state.broken.sync_directory && goes_on {
            state.disk_names = state.names.clone();
            state.name_changes.clear();
        }
        state.check_power()
    }

    fn salt(&self) -> u64 {
        lock(&self.state).dice.any()
    }
}

impl File for SimFile {
    fn read_at(&self, buffer: &mut [u8], offset: u64) -> io::Result<()> {
        let mut state = lock(&self.state);
        state.check_power()?;
        let start = usize::try_from(offset).map_err(|_| io::Error::from(io::ErrorKind::UnexpectedEof))?;
        let view = &state.content(self.id).view;
        let bytes = start.checked_add(buffer.len()).and_then(|end| view.get(start..end));
        buffer.copy_from_slice(bytes.ok_or_else(|| io::Error::from(io::ErrorKind::UnexpectedEof))?);
        Ok(())
    }

    fn write_at(&self, bytes: &[u8], offset: u64) -> io::Result<()> {
        let mut state = lock(&self.state);
        let start = usize::try_from(offset).map_err(|_| io::Error::from(io::ErrorKind::InvalidInput))?;
        let grows = start + bytes.len() > state.content(self.id).view.len();
        if grows && state.is_full {
            return Err(error(io::ErrorKind::StorageFull, "no space left on device"));
        }
        state.spend()?;
        state.content(self.id).write(bytes, start);
        state.check_power()
    }

    fn len(&self) -> io::Result<u64> {
        let mut state = lock(&self.state);
        state.check_power()?;
        Ok(state.content(self.id).view.len() as u64)
    }

    fn set_len(&self, bytes: u64) -> io::Result<()> {
        let mut state = lock(&self.state);
        state.spend()?;
        let length = usize::try_from(bytes).map_err(|_| io::Error::from(io::ErrorKind::InvalidInput))?;
        state.content(self.id).view.resize(length, 0);
        state.check_power()
    }

    fn sync_data(&self) -> io::Result<()> {
        let mut state = lock(&self.state);
        let goes_on = state.spend()?;
        if state.sync_fails() {
            let (odds, mut dice) = (Odds::roll(&mut state.dice), state.dice.clone());
            state.content(self.id).settle(&mut dice, odds);
            state.dice = dice;
            return Err(io::Error::from_raw_os_error(5));
        }
        if !state.broken.sync_data && goes_on {
            state.content(self.id).sync();
        }
        state.check_power()
    }

    fn drop_cache(&self) -> io::Result<()> {
        let mut state = lock(&self.state);
        state.check_power()?;
        if !state.broken.drop_cache {
            state.content(self.id).drop_cache();
        }
        Ok(())
    }
}
