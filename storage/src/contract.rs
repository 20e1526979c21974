//! One test suite for every driver. A driver's own tests call it; a driver that passes may stand
//! behind [`crate::meta::Meta`].
//!
//! The suite panics with what was promised and what came instead. Random parts print their seed;
//! the environment variable `TENDON_SEED` replays one.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::Bound;
use std::sync::{Arc, Barrier};

use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};

use crate::meta::{
    CasError, Direction, KEY_BYTES_MAX, MetaStore, Row, Span, StoreError, Table, VALUE_BYTES_MAX, Versioned,
};

/// How much the suite does.
#[derive(Clone, Copy, Debug)]
pub struct Size {
    /// Rows of the partition that is paged through.
    pub rows: usize,
    /// Threads that race for one row.
    pub racers: usize,
    /// Writes of each racer.
    pub writes: usize,
}

impl Size {
    /// A second or two on an embedded store.
    pub const SMALL: Self = Self { rows: 2_000, racers: 6, writes: 20 };
    /// For nights.
    pub const LARGE: Self = Self { rows: 100_000, racers: 16, writes: 200 };
}

/// Runs the whole suite. `open` opens the same store each time, empty the first time; the suite
/// drops the store before it calls `open` again.
///
/// # Panics
/// When the driver breaks a promise of [`MetaStore`].
pub fn meta_store(open: &dyn Fn() -> Arc<dyn MetaStore>, size: Size) {
    let seed = seed();
    println!("contract suite with TENDON_SEED={seed} and {size:?}");
    let mut random = StdRng::seed_from_u64(seed);
    let store = open();
    a_row_is_written_only_over_what_was_expected(store.as_ref());
    versions_never_come_back(store.as_ref());
    partitions_and_tables_are_apart(store.as_ref());
    lengths_are_bounded_alike(store.as_ref());
    every_scan_equals_the_model(store.as_ref(), &mut random);
    paging_shows_every_row_once(store.as_ref(), &mut random, size.rows);
    one_racer_wins_each_round(&store, size);
    counters_lose_no_update(&store, size);
    rows_outlive_the_store(store, open);
}

/// The seed of this run.
fn seed() -> u64 {
    let given = std::env::var("TENDON_SEED").ok();
    given.map_or_else(|| rand::rng().random(), |text| text.parse().expect("TENDON_SEED must be a number"))
}

/// A partition of its own for each test.
fn place(name: &str) -> Vec<u8> {
    format!("contract/{name}").into_bytes()
}

fn conflict<T: std::fmt::Debug>(result: Result<T, CasError>, why: &str) -> Option<Versioned> {
    match result {
        Err(CasError::Conflict { current }) => current,
        other => panic!("{why}: expected a conflict, got {other:?}"),
    }
}

fn read(store: &dyn MetaStore, table: Table, partition: &[u8], key: &[u8]) -> Option<Versioned> {
    store.get(table, partition, key).expect("get")
}

fn keys(rows: &[Row]) -> Vec<Vec<u8>> {
    rows.iter().map(|row| row.key.clone()).collect()
}

fn a_row_is_written_only_over_what_was_expected(store: &dyn MetaStore) {
    let (table, partition, key) = (Table::Sessions, place("cas"), b"row");
    let put = |value: &[u8], expected| store.put_if(table, &partition, key, value, expected);
    let delete = |expected| store.delete_if(table, &partition, key, expected);
    assert_eq!(read(store, table, &partition, key), None, "a new store is empty");
    assert_eq!(conflict(put(b"x", Some(7)), "write over an absent row"), None);
    assert_eq!(conflict(delete(7), "delete an absent row"), None);

    let first = put(b"one", None).expect("create");
    let one = Versioned { value: b"one".to_vec(), version: first };
    assert_eq!(read(store, table, &partition, key), Some(one.clone()), "a row reads back");
    assert_eq!(conflict(put(b"two", None), "create twice"), Some(one.clone()));
    assert_eq!(conflict(put(b"two", Some(first ^ 1)), "wrong version"), Some(one.clone()));
    assert_eq!(conflict(delete(first ^ 1), "delete at a wrong version"), Some(one.clone()));
    assert_eq!(read(store, table, &partition, key), Some(one), "a conflict changes nothing");

    let second = put(b"", Some(first)).expect("write at the right version");
    let empty = Versioned { value: Vec::new(), version: second };
    assert_eq!(read(store, table, &partition, key), Some(empty.clone()), "an empty value is a value");
    assert_eq!(conflict(put(b"three", Some(first)), "an old version"), Some(empty));
    delete(second).expect("delete at the right version");
    assert_eq!(read(store, table, &partition, key), None, "a deleted row is gone");
    assert_eq!(conflict(put(b"four", Some(second)), "a version from before the delete"), None);
}

fn versions_never_come_back(store: &dyn MetaStore) {
    let (table, partition, key) = (Table::Index, place("versions"), b"row");
    let mut seen = BTreeSet::new();
    for round in 0..20 {
        let created = store.put_if(table, &partition, key, b"same", None).expect("create");
        let again = store.put_ahead(table, &partition, key, b"same").expect("write whatever is there");
        assert_eq!(read(store, table, &partition, key).map(|row| row.version), Some(again));
        let last = store.put_if(table, &partition, key, b"same", Some(again)).expect("write again");
        for version in [created, again, last] {
            assert!(seen.insert(version), "round {round}: version {version} came back");
        }
        assert!(conflict(store.delete_if(table, &partition, key, created), "delete at an old version").is_some());
        store.delete_if(table, &partition, key, last).expect("delete");
    }
}

fn partitions_and_tables_are_apart(store: &dyn MetaStore) {
    let table = Table::Episodes;
    let partitions: [&[u8]; 6] = [b"", b"a", b"ab", b"a\0", b"a\xff", "ä/🤖".as_bytes()];
    let row_keys: [&[u8]; 6] = [b"", b"b", b"\0", b"\xff", b"\xff\xff", "ключ".as_bytes()];
    for partition in partitions {
        for key in row_keys {
            let value = [partition, b"|", key].concat();
            store.put_if(table, partition, key, &value, None).expect("create");
        }
    }
    for partition in partitions {
        let mut expected: Vec<Vec<u8>> = row_keys.iter().map(|key| key.to_vec()).collect();
        expected.sort();
        let rows = store.scan(table, partition, Span::ALL, 100, Direction::Ascending).expect("scan");
        assert_eq!(keys(&rows), expected, "keys of partition {partition:02x?}");
        for row in rows {
            assert_eq!(row.value, [partition, b"|", &row.key].concat(), "value of {partition:02x?}, {:02x?}", row.key);
        }
        let rows = store.scan(Table::Clocks, partition, Span::ALL, 100, Direction::Ascending).expect("scan");
        assert_eq!(rows, Vec::new(), "another table has no such rows");
    }
}

fn lengths_are_bounded_alike(store: &dyn MetaStore) {
    let table = Table::Exports;
    let partition = vec![0xff; KEY_BYTES_MAX];
    let key = vec![0xff; KEY_BYTES_MAX];
    let value: Vec<u8> = (0..VALUE_BYTES_MAX).map(|at| (at % 251) as u8).collect();
    let version = store.put_if(table, &partition, &key, &value, None).expect("the longest row");
    assert_eq!(read(store, table, &partition, &key), Some(Versioned { value: value.clone(), version }));
    for direction in [Direction::Ascending, Direction::Descending] {
        let rows = store.scan(table, &partition, Span::ALL, 2, direction).expect("scan");
        assert_eq!(rows.len(), 1, "the largest key of the largest partition is found");
        assert!(rows[0].value == value, "the longest value is scanned whole");
    }
    let longer = vec![0xff; KEY_BYTES_MAX + 1];
    for (partition, key) in [(&longer, &key), (&partition, &longer)] {
        let refused = store.put_if(table, partition, key, b"", None);
        assert!(matches!(refused, Err(CasError::Store(StoreError::KeyTooLong { .. }))), "{refused:?}");
        assert!(store.put_ahead(table, partition, key, b"").is_err());
        assert!(store.get(table, partition, key).is_err());
    }
    let too_long = vec![0; VALUE_BYTES_MAX + 1];
    let refused = store.put_if(table, &place("long"), b"", &too_long, None);
    assert!(matches!(refused, Err(CasError::Store(StoreError::ValueTooLong { .. }))), "{refused:?}");
    assert!(store.put_ahead(table, &place("long"), b"", &too_long).is_err());
}

/// Few letters and short keys, so that keys are often equal, prefixes and neighbours.
fn short_key(random: &mut StdRng) -> Vec<u8> {
    let letters = [0u8, 1, b'a', 0xfe, 0xff];
    (0..random.random_range(0..4)).map(|_| letters[random.random_range(0..letters.len())]).collect()
}

fn bound(random: &mut StdRng) -> Bound<Vec<u8>> {
    match random.random_range(0..3) {
        0 => Bound::Unbounded,
        1 => Bound::Included(short_key(random)),
        _ => Bound::Excluded(short_key(random)),
    }
}

fn as_slice(bound: &Bound<Vec<u8>>) -> Bound<&[u8]> {
    match bound {
        Bound::Included(key) => Bound::Included(key),
        Bound::Excluded(key) => Bound::Excluded(key),
        Bound::Unbounded => Bound::Unbounded,
    }
}

fn every_scan_equals_the_model(store: &dyn MetaStore, random: &mut StdRng) {
    let (table, partition) = (Table::Index, place("model"));
    let mut model: BTreeMap<Vec<u8>, u64> = BTreeMap::new();
    for _ in 0..60 {
        let key = short_key(random);
        match model.get(&key) {
            Some(version) if random.random_bool(0.3) => {
                store.delete_if(table, &partition, &key, *version).expect("delete");
                model.remove(&key);
            }
            _ => {
                let version = store.put_ahead(table, &partition, &key, &key).expect("write");
                model.insert(key, version);
            }
        }
    }
    for _ in 0..300 {
        let (from, to) = (bound(random), bound(random));
        let limit = random.random_range(0..20);
        let ascending = random.random_bool(0.5);
        let (direction, low, high) =
            if ascending { (Direction::Ascending, &from, &to) } else { (Direction::Descending, &to, &from) };
        let within = |key: &Vec<u8>| {
            let above = match low {
                Bound::Included(low) => key >= low,
                Bound::Excluded(low) => key > low,
                Bound::Unbounded => true,
            };
            above
                && match high {
                    Bound::Included(high) => key <= high,
                    Bound::Excluded(high) => key < high,
                    Bound::Unbounded => true,
                }
        };
        let mut expected: Vec<Vec<u8>> = model.keys().filter(|key| within(key)).cloned().collect();
        if !ascending {
            expected.reverse();
        }
        expected.truncate(limit);
        let span = Span { from: as_slice(&from), to: as_slice(&to) };
        let rows = store.scan(table, &partition, span, limit, direction).expect("scan");
        assert_eq!(keys(&rows), expected, "from {from:02x?} to {to:02x?}, {limit} {direction:?}");
        for row in rows {
            assert_eq!((Some(&row.version), &row.value), (model.get(&row.key), &row.key));
        }
    }
}

fn paging_shows_every_row_once(store: &dyn MetaStore, random: &mut StdRng, rows: usize) {
    let (table, partition) = (Table::Index, place("paging"));
    let mut expected: BTreeMap<Vec<u8>, Vec<u8>> = BTreeMap::new();
    while expected.len() < rows {
        let key: [u8; 12] = random.random();
        let value = expected.len().to_be_bytes();
        store.put_ahead(table, &partition, &key, &value).expect("write");
        expected.insert(key.to_vec(), value.to_vec());
    }
    for direction in [Direction::Ascending, Direction::Descending] {
        let mut found = Vec::new();
        let mut from = Bound::Unbounded;
        loop {
            let limit = random.random_range(1..400);
            let span = Span { from: as_slice(&from), to: Bound::Unbounded };
            let page = store.scan(table, &partition, span, limit, direction).expect("scan");
            assert!(page.len() <= limit, "{} rows for a limit of {limit}", page.len());
            let Some(last) = page.last() else { break };
            from = Bound::Excluded(last.key.clone());
            found.extend(page.into_iter().map(|row| (row.key, row.value)));
        }
        if direction == Direction::Descending {
            found.reverse();
        }
        assert!(found.iter().map(|(key, value)| (key, value)).eq(&expected), "{direction:?} paging differs");
    }
}

fn one_racer_wins_each_round(store: &Arc<dyn MetaStore>, size: Size) {
    let partition = place("race");
    let start = Barrier::new(size.racers);
    for round in 0..size.writes.min(20) {
        let key = round.to_be_bytes();
        let wins: usize = std::thread::scope(|scope| {
            let racer = |number: usize| {
                let (store, partition, start) = (Arc::clone(store), &partition, &start);
                scope.spawn(move || {
                    start.wait();
                    let value = number.to_be_bytes();
                    match store.put_if(Table::Tokens, partition, &key, &value, None) {
                        Ok(version) => {
                            let row = read(store.as_ref(), Table::Tokens, partition, &key);
                            let own = Some(Versioned { value: value.to_vec(), version });
                            assert_eq!(row, own, "the winner's row stays");
                            1
                        }
                        Err(CasError::Conflict { current }) => {
                            assert!(current.is_some(), "the loser sees who won");
                            0
                        }
                        Err(CasError::Store(error)) => panic!("{error}"),
                    }
                })
            };
            let racers: Vec<_> = (0..size.racers).map(racer).collect();
            racers.into_iter().map(|racer| racer.join().expect("racer")).sum()
        });
        assert_eq!(wins, 1, "round {round} has one winner");
    }
}

fn counters_lose_no_update(store: &Arc<dyn MetaStore>, size: Size) {
    let partition = place("counter");
    let number = |row: &Versioned| u64::from_be_bytes(row.value.as_slice().try_into().expect("eight bytes"));
    store.put_if(Table::Sessions, &partition, b"", &0u64.to_be_bytes(), None).expect("create");
    std::thread::scope(|scope| {
        for _ in 0..size.racers {
            let (store, partition) = (Arc::clone(store), &partition);
            scope.spawn(move || {
                for _ in 0..size.writes {
                    let mut row = read(store.as_ref(), Table::Sessions, partition, b"").expect("the counter");
                    loop {
                        let next = (number(&row) + 1).to_be_bytes();
                        match store.put_if(Table::Sessions, partition, b"", &next, Some(row.version)) {
                            Ok(_) => break,
                            Err(CasError::Conflict { current }) => row = current.expect("the counter"),
                            Err(CasError::Store(error)) => panic!("{error}"),
                        }
                    }
                }
            });
        }
    });
    let row = read(store.as_ref(), Table::Sessions, &partition, b"").expect("the counter");
    assert_eq!(number(&row), (size.racers * size.writes) as u64, "no update is lost");
}

fn rows_outlive_the_store(store: Arc<dyn MetaStore>, open: &dyn Fn() -> Arc<dyn MetaStore>) {
    let (table, partition) = (Table::Datasets, place("reopen"));
    let ahead = store.put_ahead(table, &partition, b"ahead", b"before").expect("write ahead");
    let gone = store.put_if(table, &partition, b"gone", b"x", None).expect("create");
    store.delete_if(table, &partition, b"gone", gone).expect("delete");
    let last = store.put_if(table, &partition, b"last", b"after", None).expect("create");
    drop(store);

    let store = open();
    let rows = store.scan(table, &partition, Span::ALL, 10, Direction::Ascending).expect("scan");
    let row = |key: &[u8], value: &[u8], version| Row { key: key.to_vec(), value: value.to_vec(), version };
    let expected = vec![row(b"ahead", b"before", ahead), row(b"last", b"after", last)];
    assert_eq!(rows, expected, "a reopened store holds what was written");
    store.put_if(table, &partition, b"last", b"later", Some(last)).expect("versions outlive the store");
    assert!(conflict(store.put_if(table, &partition, b"last", b"", Some(last)), "an old version").is_some());
}
