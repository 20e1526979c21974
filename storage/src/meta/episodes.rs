//! Episodes, listed in the order of their session or in the order of their making.

use std::ops::Bound;
use std::sync::Arc;

use tendon_protocol::id::SessionId;

use super::cursor::{Cursor, ListKind};
use super::typed::{Address, Query, Stored, Typed, list_of, sortable};
use super::{Direction, MetaError, MetaStore, Page, Table};
use crate::records::{DatasetName, EpisodeKey, EpisodeRecord, EpisodeState};

/// Which episodes a list shows: those that match all that is given.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct EpisodeFilter {
    /// Of this session.
    pub session: Option<SessionId>,
    /// Of this dataset.
    pub dataset: Option<DatasetName>,
    /// In this state.
    pub state: Option<EpisodeState>,
}

/// The store of episodes.
#[derive(Clone)]
pub struct Episodes(Typed<EpisodeRecord>);

impl Stored for EpisodeRecord {
    const TABLE: Table = Table::Episodes;
    const WHAT: &'static str = "episode";

    fn address(&self) -> Address {
        address(self.key())
    }

    fn name(&self) -> String {
        self.key().to_string()
    }

    fn order(&self) -> Vec<u8> {
        let time = sortable(self.created_ns);
        [&time[..], &self.session.0, &self.number.to_be_bytes()].concat()
    }

    fn lists(&self) -> Vec<Vec<u8>> {
        vec![everything(), by("dataset", self.dataset.as_str()), by("state", self.state.as_str())]
    }
}

fn address(key: EpisodeKey) -> Address {
    Address { partition: key.session.0.to_vec(), key: key.number.to_be_bytes().to_vec() }
}

fn everything() -> Vec<u8> {
    by("all", "")
}

fn by(field: &str, value: &str) -> Vec<u8> {
    list_of("episodes", field, value.as_bytes())
}

impl Episodes {
    pub(super) fn over(store: Arc<dyn MetaStore>) -> Self {
        Self(Typed::over(store))
    }

    /// Writes a new episode.
    ///
    /// # Errors
    /// When its key is taken, or the store fails.
    pub fn create(&self, record: &EpisodeRecord) -> Result<(), MetaError> {
        self.0.create(record)
    }

    /// Reads an episode.
    ///
    /// # Errors
    /// When the store fails.
    pub fn get(&self, key: EpisodeKey) -> Result<Option<EpisodeRecord>, MetaError> {
        self.0.get(&address(key), &|| key.to_string())
    }

    /// Changes an episode against all other writers; returns it as written. `change` may run more
    /// than once.
    ///
    /// # Errors
    /// When there is no such episode, or the store fails.
    pub fn update(
        &self,
        key: EpisodeKey,
        mut change: impl FnMut(&mut EpisodeRecord),
    ) -> Result<EpisodeRecord, MetaError> {
        self.try_update(key, |record| {
            change(record);
            Ok(())
        })
    }

    /// Like [`Episodes::update`]; an error of `change` ends it without a write.
    ///
    /// # Errors
    /// What `change` says; or as [`Episodes::update`].
    pub fn try_update<E: From<MetaError>>(
        &self,
        key: EpisodeKey,
        change: impl FnMut(&mut EpisodeRecord) -> Result<(), E>,
    ) -> Result<EpisodeRecord, E> {
        self.0.update(&address(key), &|| key.to_string(), change)
    }

    /// One page, oldest first: by number within a session, else by time of making.
    ///
    /// # Errors
    /// When the cursor is of another list, or the store fails.
    pub fn list(
        &self,
        filter: &EpisodeFilter,
        after: Option<&Cursor>,
        limit: usize,
    ) -> Result<Page<EpisodeRecord>, MetaError> {
        let keep = |record: &EpisodeRecord| {
            filter.dataset.as_ref().is_none_or(|dataset| record.dataset == *dataset)
                && filter.state.is_none_or(|state| record.state == state)
        };
        let mut lists: Vec<Vec<u8>> = [
            filter.dataset.as_ref().map(|dataset| by("dataset", dataset.as_str())),
            filter.state.map(|state| by("state", state.as_str())),
        ]
        .into_iter()
        .flatten()
        .collect();
        if lists.is_empty() {
            lists.push(everything());
        }
        let query = |kind| Query {
            kind,
            lists,
            range: (Bound::Unbounded, Bound::Unbounded),
            direction: Direction::Ascending,
            after,
            limit,
            keep: &keep,
        };
        match filter.session {
            Some(session) => self.0.partition_page(&session.0, &query(ListKind::SessionEpisodes)),
            None => self.0.page(&query(ListKind::Episodes)),
        }
    }
}
