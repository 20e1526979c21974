//! Sessions, listed newest first.

use std::ops::Bound;
use std::sync::Arc;

use tendon_protocol::id::SessionId;

use super::cursor::{Cursor, ListKind};
use super::day::Day;
use super::typed::{Address, Query, Stored, Typed, list_of, sortable};
use super::{Direction, MetaError, MetaStore, Page, Table};
use crate::records::{DatasetName, SessionRecord, SessionState, SessionType};

/// Which sessions a list shows: those that match all that is given.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct SessionFilter {
    /// Of this robot.
    pub robot: Option<String>,
    /// Of this operator.
    pub operator: Option<String>,
    /// In this state.
    pub state: Option<SessionState>,
    /// Of this dataset.
    pub dataset: Option<DatasetName>,
    /// Of this type.
    pub kind: Option<SessionType>,
    /// Made on this day (UTC).
    pub day: Option<Day>,
}

/// The store of sessions.
#[derive(Clone)]
pub struct Sessions(Typed<SessionRecord>);

impl Stored for SessionRecord {
    const TABLE: Table = Table::Sessions;
    const WHAT: &'static str = "session";

    fn address(&self) -> Address {
        address(self.id)
    }

    fn name(&self) -> String {
        self.id.to_string()
    }

    fn order(&self) -> Vec<u8> {
        [&sortable(self.created_ns)[..], &self.id.0].concat()
    }

    fn lists(&self) -> Vec<Vec<u8>> {
        vec![
            everything(),
            by("robot", &self.robot),
            by("operator", &self.operator),
            by("state", self.state.as_str()),
            by("dataset", self.dataset.as_str()),
            by("type", self.kind.as_str()),
        ]
    }

    fn check(&self) -> Result<(), MetaError> {
        Ok(SessionRecord::check(self)?)
    }
}

fn address(id: SessionId) -> Address {
    Address { partition: id.0.to_vec(), key: Vec::new() }
}

fn everything() -> Vec<u8> {
    by("all", "")
}

fn by(field: &str, value: &str) -> Vec<u8> {
    list_of("sessions", field, value.as_bytes())
}

impl Sessions {
    pub(super) fn over(store: Arc<dyn MetaStore>) -> Self {
        Self(Typed::over(store))
    }

    /// Writes a new session.
    ///
    /// # Errors
    /// When the id is taken, a field holds what it may not, or the store fails.
    pub fn create(&self, record: &SessionRecord) -> Result<(), MetaError> {
        self.0.create(record)
    }

    /// Reads a session.
    ///
    /// # Errors
    /// When the store fails.
    pub fn get(&self, id: SessionId) -> Result<Option<SessionRecord>, MetaError> {
        self.0.get(&address(id), &|| id.to_string())
    }

    /// Changes a session against all other writers; returns it as written. `change` may run more
    /// than once.
    ///
    /// # Errors
    /// When there is no such session, or the store fails.
    pub fn update(
        &self,
        id: SessionId,
        mut change: impl FnMut(&mut SessionRecord),
    ) -> Result<SessionRecord, MetaError> {
        self.try_update(id, |record| {
            change(record);
            Ok(())
        })
    }

    /// Like [`Sessions::update`]; an error of `change` ends it without a write.
    ///
    /// # Errors
    /// What `change` says; or as [`Sessions::update`].
    pub fn try_update<E: From<MetaError>>(
        &self,
        id: SessionId,
        change: impl FnMut(&mut SessionRecord) -> Result<(), E>,
    ) -> Result<SessionRecord, E> {
        self.0.update(&address(id), &|| id.to_string(), change)
    }

    /// One page, newest first, after the last one of the page that gave the cursor.
    ///
    /// # Errors
    /// When the cursor is of another list, or the store fails.
    pub fn list(
        &self,
        filter: &SessionFilter,
        after: Option<&Cursor>,
        limit: usize,
    ) -> Result<Page<SessionRecord>, MetaError> {
        let mut lists: Vec<Vec<u8>> = [
            filter.robot.as_deref().map(|robot| by("robot", robot)),
            filter.operator.as_deref().map(|operator| by("operator", operator)),
            filter.state.map(|state| by("state", state.as_str())),
            filter.dataset.as_ref().map(|dataset| by("dataset", dataset.as_str())),
            filter.kind.map(|kind| by("type", kind.as_str())),
        ]
        .into_iter()
        .flatten()
        // A name that is too long for any record is on no record.
        .collect();
        if lists.is_empty() {
            lists.push(everything());
        }
        if lists.iter().any(|list| list.len() > super::KEY_BYTES_MAX) {
            return Ok(Page { records: Vec::new(), next: None });
        }
        let range = filter.day.map_or((Bound::Unbounded, Bound::Unbounded), |day| {
            (Bound::Included(sortable(day.from_ns()).to_vec()), Bound::Excluded(sortable(day.to_ns()).to_vec()))
        });
        self.0.page(&Query {
            kind: ListKind::Sessions,
            lists,
            range,
            direction: Direction::Descending,
            after,
            limit,
            keep: &|_| true,
        })
    }
}
