//! Records of one type over any driver: JSON, compare-and-set and index entries, written once.
//!
//! An index entry is written before the record that it leads to and removed after the record has
//! moved away from it. Every writer writes its entries anew, which gives them a new version, and
//! removes only the versions that it saw before its own compare-and-set: of two writers the
//! slower one can therefore never remove the entry of the faster one.

use std::marker::PhantomData;
use std::ops::Bound;
use std::sync::Arc;
use std::time::Duration;

use rand::Rng;
use serde::Serialize;
use serde::de::DeserializeOwned;

use super::cursor::{Cursor, ListKind};
use super::join::{Join, Next, as_slice};
use super::{CasError, Direction, MetaError, MetaStore, PAGE_RECORDS_MAX, Page, Row, Span, Table, Versioned};

/// How often a change is tried against others before it gives up.
const ATTEMPTS_MAX: u32 = 100;
/// From this attempt on a writer waits a moment, so that many writers do not keep beating each other.
const PATIENT_ATTEMPTS: u32 = 4;

/// Where a record lies.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Address {
    pub(super) partition: Vec<u8>,
    pub(super) key: Vec<u8>,
}

/// A record that a typed store can hold.
pub(super) trait Stored: Serialize + DeserializeOwned + Clone {
    const TABLE: Table;
    /// What it is, for error messages.
    const WHAT: &'static str;
    /// Where it lies; never changes.
    fn address(&self) -> Address;
    /// Its name, for error messages.
    fn name(&self) -> String;
    /// Its place in the lists; unique, of fixed length, never changes.
    fn order(&self) -> Vec<u8>;
    /// The lists that it is in: partitions of the index.
    fn lists(&self) -> Vec<Vec<u8>>;
    /// Refuses what no record may hold.
    fn check(&self) -> Result<(), MetaError> {
        Ok(())
    }
}

/// What a list asks for.
pub(super) struct Query<'q, R> {
    pub(super) kind: ListKind,
    /// Lists that a record must be in; one or more.
    pub(super) lists: Vec<Vec<u8>>,
    /// The largest range of order keys, from low to high.
    pub(super) range: (Bound<Vec<u8>>, Bound<Vec<u8>>),
    pub(super) direction: Direction,
    pub(super) after: Option<&'q Cursor>,
    pub(super) limit: usize,
    /// What else a record must hold.
    pub(super) keep: &'q dyn Fn(&R) -> bool,
}

/// The store of one type of record.
pub(super) struct Typed<R> {
    store: Arc<dyn MetaStore>,
    record: PhantomData<fn() -> R>,
}

impl<R> Clone for Typed<R> {
    fn clone(&self) -> Self {
        Self { store: Arc::clone(&self.store), record: PhantomData }
    }
}

impl<R: Stored> Typed<R> {
    pub(super) fn over(store: Arc<dyn MetaStore>) -> Self {
        Self { store, record: PhantomData }
    }

    /// Writes a new record.
    pub(super) fn create(&self, record: &R) -> Result<(), MetaError> {
        record.check()?;
        let value = encode(record)?;
        let address = record.address();
        for list in record.lists() {
            self.store.put_ahead(Table::Index, &list, &record.order(), &pack(&address))?;
        }
        match self.store.put_if(R::TABLE, &address.partition, &address.key, &value, None) {
            Ok(_) => Ok(()),
            Err(CasError::Conflict { .. }) => Err(MetaError::Exists { what: R::WHAT, name: record.name() }),
            Err(CasError::Store(error)) => Err(error.into()),
        }
    }

    pub(super) fn get(&self, address: &Address, name: &dyn Fn() -> String) -> Result<Option<R>, MetaError> {
        let found = self.store.get(R::TABLE, &address.partition, &address.key)?;
        found.map(|found| decode(&found.value, name)).transpose()
    }

    /// Reads, lets `change` change, and writes if nobody else has; else starts over. An error of
    /// `change` ends it without a write. A change that changes nothing costs no write.
    pub(super) fn update<E: From<MetaError>>(
        &self,
        address: &Address,
        name: &dyn Fn() -> String,
        mut change: impl FnMut(&mut R) -> Result<(), E>,
    ) -> Result<R, E> {
        for attempt in 0..ATTEMPTS_MAX {
            let found = self.store.get(R::TABLE, &address.partition, &address.key);
            let found =
                found.map_err(MetaError::from)?.ok_or_else(|| MetaError::NotFound { what: R::WHAT, name: name() })?;
            let old: R = decode(&found.value, name)?;
            let mut new = old.clone();
            change(&mut new)?;
            if self.replace(address, &found, &old, &new)? {
                return Ok(new);
            }
            if attempt >= PATIENT_ATTEMPTS {
                let us_max = 100u64 << (attempt - PATIENT_ATTEMPTS).min(6);
                std::thread::sleep(Duration::from_micros(rand::rng().random_range(0..us_max)));
            }
        }
        Err(E::from(MetaError::Contended { what: R::WHAT, name: name(), attempts: ATTEMPTS_MAX }))
    }

    /// Writes `new` over `old`; false when somebody was faster.
    fn replace(&self, address: &Address, found: &Versioned, old: &R, new: &R) -> Result<bool, MetaError> {
        if new.address() != *address || new.order() != old.order() {
            return Err(MetaError::Identity { what: R::WHAT, name: old.name() });
        }
        new.check()?;
        let value = encode(new)?;
        if value == found.value {
            return Ok(true);
        }
        let order = new.order();
        let (left, joined) = (old.lists(), new.lists());
        let mut leaving = Vec::new();
        for list in left.iter().filter(|list| !joined.contains(list)) {
            if let Some(entry) = self.store.get(Table::Index, list, &order)? {
                leaving.push((list, entry.version));
            }
        }
        for list in joined.iter().filter(|list| !left.contains(list)) {
            self.store.put_ahead(Table::Index, list, &order, &pack(address))?;
        }
        match self.store.put_if(R::TABLE, &address.partition, &address.key, &value, Some(found.version)) {
            Ok(_) => {}
            Err(CasError::Conflict { .. }) => return Ok(false),
            Err(CasError::Store(error)) => return Err(error.into()),
        }
        for (list, version) in leaving {
            match self.store.delete_if(Table::Index, list, &order, version) {
                // A conflict: the record has come back to this list, the entry is somebody else's.
                Ok(()) | Err(CasError::Conflict { .. }) => {}
                // The record is written: a stale entry costs a reader one look.
                Err(CasError::Store(error)) => {
                    tracing::warn!(what = R::WHAT, name = new.name(), %error, "a stale index entry stays");
                }
            }
        }
        Ok(true)
    }

    /// One page of the records that are in all lists of the query.
    pub(super) fn page(&self, query: &Query<'_, R>) -> Result<Page<R>, MetaError> {
        let limit = query.limit.clamp(1, PAGE_RECORDS_MAX);
        let span = directed(query)?;
        let mut join = Join::new(self.store.as_ref(), query.lists.clone(), span, query.direction, limit + 1);
        let mut records: Vec<R> = Vec::new();
        let mut settled: Option<Vec<u8>> = None;
        let next = loop {
            if join.is_spent() && settled.is_some() {
                break settled;
            }
            let entry = match join.next()? {
                Next::Entry(entry) => entry,
                Next::End => break None,
                Next::Pause(key) => break Some(key),
            };
            if records.len() == limit {
                break settled;
            }
            if let Some(record) = self.follow(&entry, query)? {
                records.push(record);
            }
            settled = Some(entry.key);
        };
        Ok(Page { records, next: next.map(|key| Cursor::new(query.kind, key)) })
    }

    /// The record behind an index entry, unless the entry is stale.
    fn follow(&self, entry: &Row, query: &Query<'_, R>) -> Result<Option<R>, MetaError> {
        let Some(address) = unpack(&entry.value) else {
            return Ok(None);
        };
        let name = || format!("behind index entry {:02x?}", entry.key);
        let Some(record) = self.get(&address, &name)? else {
            return Ok(None);
        };
        let lists = record.lists();
        let current = record.order() == entry.key && query.lists.iter().all(|list| lists.contains(list));
        Ok((current && (query.keep)(&record)).then_some(record))
    }

    /// One page of one partition of the record's own table; `lists` of the query is not used.
    pub(super) fn partition_page(&self, partition: &[u8], query: &Query<'_, R>) -> Result<Page<R>, MetaError> {
        let limit = query.limit.clamp(1, PAGE_RECORDS_MAX);
        let (mut from, to) = directed(query)?;
        let mut records = Vec::new();
        let mut reads = 0;
        let next = loop {
            let wanted = limit + 1 - records.len();
            let span = Span { from: as_slice(&from), to: as_slice(&to) };
            let rows = self.store.scan(R::TABLE, partition, span, wanted, query.direction)?;
            let ended = rows.len() < wanted;
            reads += rows.len();
            let mut more = None;
            for row in rows {
                if records.len() == limit {
                    more = Some(from.clone());
                    break;
                }
                let record: R = decode(&row.value, &|| format!("at key {:02x?}", row.key))?;
                from = Bound::Excluded(row.key);
                if (query.keep)(&record) {
                    records.push(record);
                }
            }
            match more {
                Some(last) => break Some(last),
                None if ended => break None,
                None if reads >= super::join::READS_MAX => break Some(from),
                None => {}
            }
        };
        let key = next.and_then(|last| match last {
            Bound::Included(key) | Bound::Excluded(key) => Some(key),
            Bound::Unbounded => None,
        });
        Ok(Page { records, next: key.map(|key| Cursor::new(query.kind, key)) })
    }
}

/// The query's range as (from, to) in its direction, starting behind its cursor.
type Directed = (Bound<Vec<u8>>, Bound<Vec<u8>>);
fn directed<R>(query: &Query<'_, R>) -> Result<Directed, MetaError> {
    let (low, high) = query.range.clone();
    let (from, to) = match query.direction {
        Direction::Ascending => (low, high),
        Direction::Descending => (high, low),
    };
    let Some(cursor) = query.after else {
        return Ok((from, to));
    };
    let after = cursor.key_of(query.kind)?.to_vec();
    let inside = match (&from, query.direction) {
        (Bound::Unbounded, _) => true,
        (Bound::Included(start) | Bound::Excluded(start), Direction::Ascending) => after >= *start,
        (Bound::Included(start) | Bound::Excluded(start), Direction::Descending) => after <= *start,
    };
    Ok((if inside { Bound::Excluded(after) } else { from }, to))
}

/// Bytes of a record that reads back. JSON that this program could write but not read (a number
/// that is none, metadata nested too deep) must not get into the store.
fn encode<R: Stored>(record: &R) -> Result<Vec<u8>, MetaError> {
    let unreadable = |source| MetaError::Unreadable { what: R::WHAT, name: record.name(), source };
    let value = serde_json::to_vec(record).map_err(unreadable)?;
    serde_json::from_slice::<R>(&value).map_err(unreadable)?;
    Ok(value)
}

fn decode<R: Stored>(value: &[u8], name: &dyn Fn() -> String) -> Result<R, MetaError> {
    serde_json::from_slice(value).map_err(|source| MetaError::Unreadable { what: R::WHAT, name: name(), source })
}

/// An address as the value of an index entry: length of the partition, partition, key.
fn pack(address: &Address) -> Vec<u8> {
    let length = u16::try_from(address.partition.len()).unwrap_or(u16::MAX);
    [&length.to_be_bytes()[..], &address.partition, &address.key].concat()
}

fn unpack(value: &[u8]) -> Option<Address> {
    let (length, rest) = value.split_first_chunk::<2>()?;
    let (partition, key) = rest.split_at_checked(usize::from(u16::from_be_bytes(*length)))?;
    Some(Address { partition: partition.to_vec(), key: key.to_vec() })
}

/// A partition of the index: which records, which field, which value. The value comes last, so
/// that no value can look like another field.
pub(super) fn list_of(records: &str, field: &str, value: &[u8]) -> Vec<u8> {
    [records.as_bytes(), b"/", field.as_bytes(), b"/", value].concat()
}

/// A time as bytes that sort as it does.
pub(super) fn sortable(time_ns: i64) -> [u8; 8] {
    (time_ns.cast_unsigned() ^ (1 << 63)).to_be_bytes()
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn times_sort_as_their_bytes(left in any::<i64>(), right in any::<i64>()) {
            prop_assert_eq!(left.cmp(&right), sortable(left).cmp(&sortable(right)));
        }

        #[test]
        fn an_address_comes_back_from_an_index_entry(partition in any::<Vec<u8>>(), key in any::<Vec<u8>>()) {
            let address = Address { partition, key };
            prop_assert_eq!(unpack(&pack(&address)), Some(address));
        }

        #[test]
        fn any_bytes_are_unpacked_without_a_panic(value in any::<Vec<u8>>()) {
            let _ = unpack(&value);
        }
    }
}
