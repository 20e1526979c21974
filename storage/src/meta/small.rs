//! The stores that need little: datasets, exports, clocks and tokens.

use std::ops::Bound;
use std::sync::Arc;

use tendon_protocol::id::{ClockId, SessionId};

use super::cursor::{Cursor, ListKind};
use super::typed::{Address, Query, Stored, Typed, list_of};
use super::{Direction, MetaError, MetaStore, PAGE_RECORDS_MAX, Page, Table};
use crate::records::{ClockRecord, DatasetName, DatasetRecord, ExportRecord, JobState, RecordError, TokenRecord};

/// The partition of tables that are read as a whole.
const WHOLE: &[u8] = b"all";

fn whole(key: &[u8]) -> Address {
    Address { partition: WHOLE.to_vec(), key: key.to_vec() }
}

/// A query for one partition in the order of its keys.
fn in_order<'q, R>(kind: ListKind, direction: Direction, after: Option<&'q Cursor>, limit: usize) -> Query<'q, R> {
    Query {
        kind,
        lists: Vec::new(),
        range: (Bound::Unbounded, Bound::Unbounded),
        direction,
        after,
        limit,
        keep: &|_| true,
    }
}

impl Stored for DatasetRecord {
    const TABLE: Table = Table::Datasets;
    const WHAT: &'static str = "dataset";

    fn address(&self) -> Address {
        whole(self.name.as_str().as_bytes())
    }

    fn name(&self) -> String {
        self.name.to_string()
    }

    fn order(&self) -> Vec<u8> {
        self.name.as_str().as_bytes().to_vec()
    }

    fn lists(&self) -> Vec<Vec<u8>> {
        Vec::new()
    }
}

/// The store of datasets.
#[derive(Clone)]
pub struct Datasets(Typed<DatasetRecord>);

impl Datasets {
    pub(super) fn over(store: Arc<dyn MetaStore>) -> Self {
        Self(Typed::over(store))
    }

    /// Writes a new dataset.
    ///
    /// # Errors
    /// When the name is taken, or the store fails.
    pub fn create(&self, record: &DatasetRecord) -> Result<(), MetaError> {
        self.0.create(record)
    }

    /// The dataset of this name, made now (`now_ns`) if there is none.
    ///
    /// # Errors
    /// When the store fails.
    pub fn ensure(&self, name: &DatasetName, now_ns: i64) -> Result<DatasetRecord, MetaError> {
        if let Some(found) = self.get(name)? {
            return Ok(found);
        }
        let made = DatasetRecord { name: name.clone(), created_ns: now_ns, description: String::new() };
        match self.0.create(&made) {
            Err(MetaError::Exists { what, name: taken }) => {
                self.get(name)?.ok_or(MetaError::NotFound { what, name: taken })
            }
            created => created.map(|()| made),
        }
    }

    /// Reads a dataset.
    ///
    /// # Errors
    /// When the store fails.
    pub fn get(&self, name: &DatasetName) -> Result<Option<DatasetRecord>, MetaError> {
        self.0.get(&whole(name.as_str().as_bytes()), &|| name.to_string())
    }

    /// Changes a dataset against all other writers; returns it as written.
    ///
    /// # Errors
    /// When there is no such dataset, or the store fails.
    pub fn update(
        &self,
        name: &DatasetName,
        mut change: impl FnMut(&mut DatasetRecord),
    ) -> Result<DatasetRecord, MetaError> {
        let address = whole(name.as_str().as_bytes());
        self.0.update(&address, &|| name.to_string(), |record| {
            change(record);
            Ok::<(), MetaError>(())
        })
    }

    /// One page, by the bytes of the name.
    ///
    /// # Errors
    /// When the cursor is of another list, or the store fails.
    pub fn list(&self, after: Option<&Cursor>, limit: usize) -> Result<Page<DatasetRecord>, MetaError> {
        self.0.partition_page(WHOLE, &in_order(ListKind::Datasets, Direction::Ascending, after, limit))
    }
}

impl Stored for ExportRecord {
    const TABLE: Table = Table::Exports;
    const WHAT: &'static str = "export";

    fn address(&self) -> Address {
        whole(self.id.as_bytes())
    }

    fn name(&self) -> String {
        self.id.clone()
    }

    fn order(&self) -> Vec<u8> {
        self.id.as_bytes().to_vec()
    }

    fn lists(&self) -> Vec<Vec<u8>> {
        vec![by_state(self.state)]
    }

    fn check(&self) -> Result<(), MetaError> {
        // The text is the order: one export, one spelling.
        let usual = uuid::Uuid::parse_str(&self.id).is_ok_and(|id| id.to_string() == self.id);
        if usual {
            return Ok(());
        }
        Err(RecordError::ExportId { got: crate::records::excerpt(&self.id) }.into())
    }
}

fn by_state(state: JobState) -> Vec<u8> {
    list_of("exports", "state", state.as_str().as_bytes())
}

/// The store of exports.
#[derive(Clone)]
pub struct Exports(Typed<ExportRecord>);

impl Exports {
    pub(super) fn over(store: Arc<dyn MetaStore>) -> Self {
        Self(Typed::over(store))
    }

    /// Writes a new export.
    ///
    /// # Errors
    /// When the id is taken or no UUID, or the store fails.
    pub fn create(&self, record: &ExportRecord) -> Result<(), MetaError> {
        self.0.create(record)
    }

    /// Reads an export. Any text may be asked for.
    ///
    /// # Errors
    /// When the store fails.
    pub fn get(&self, id: &str) -> Result<Option<ExportRecord>, MetaError> {
        if id.len() > super::KEY_BYTES_MAX {
            return Ok(None);
        }
        self.0.get(&whole(id.as_bytes()), &|| id.to_owned())
    }

    /// Changes an export against all other writers; returns it as written.
    ///
    /// # Errors
    /// When there is no such export, or the store fails.
    pub fn update(&self, id: &str, mut change: impl FnMut(&mut ExportRecord)) -> Result<ExportRecord, MetaError> {
        self.0.update(&whole(id.as_bytes()), &|| id.to_owned(), |record| {
            change(record);
            Ok::<(), MetaError>(())
        })
    }

    /// One page, newest first.
    ///
    /// # Errors
    /// When the cursor is of another list, or the store fails.
    pub fn list(
        &self,
        state: Option<JobState>,
        after: Option<&Cursor>,
        limit: usize,
    ) -> Result<Page<ExportRecord>, MetaError> {
        let query = in_order(ListKind::Exports, Direction::Descending, after, limit);
        match state {
            None => self.0.partition_page(WHOLE, &query),
            Some(state) => self.0.page(&Query { lists: vec![by_state(state)], ..query }),
        }
    }
}

impl Stored for ClockRecord {
    const TABLE: Table = Table::Clocks;
    const WHAT: &'static str = "clock";

    fn address(&self) -> Address {
        clock_address(self.session, self.clock)
    }

    fn name(&self) -> String {
        format!("{} of session {}", self.clock, self.session)
    }

    fn order(&self) -> Vec<u8> {
        self.clock.0.to_vec()
    }

    fn lists(&self) -> Vec<Vec<u8>> {
        Vec::new()
    }
}

fn clock_address(session: SessionId, clock: ClockId) -> Address {
    Address { partition: session.0.to_vec(), key: clock.0.to_vec() }
}

/// The store of clocks.
#[derive(Clone)]
pub struct Clocks(Typed<ClockRecord>);

impl Clocks {
    pub(super) fn over(store: Arc<dyn MetaStore>) -> Self {
        Self(Typed::over(store))
    }

    /// Writes a new clock.
    ///
    /// # Errors
    /// When the session has this clock already, or the store fails.
    pub fn create(&self, record: &ClockRecord) -> Result<(), MetaError> {
        self.0.create(record)
    }

    /// Reads a clock.
    ///
    /// # Errors
    /// When the store fails.
    pub fn get(&self, session: SessionId, clock: ClockId) -> Result<Option<ClockRecord>, MetaError> {
        self.0.get(&clock_address(session, clock), &|| clock.to_string())
    }

    /// Changes a clock against all other writers; returns it as written.
    ///
    /// # Errors
    /// When there is no such clock, or the store fails.
    pub fn update(
        &self,
        session: SessionId,
        clock: ClockId,
        mut change: impl FnMut(&mut ClockRecord),
    ) -> Result<ClockRecord, MetaError> {
        let address = clock_address(session, clock);
        self.0.update(&address, &|| clock.to_string(), |record| {
            change(record);
            Ok::<(), MetaError>(())
        })
    }

    /// Changes a clock, which is made (of this `kind`, without probes) if there is none.
    ///
    /// # Errors
    /// When the store fails.
    pub fn upsert(
        &self,
        session: SessionId,
        clock: ClockId,
        kind: &str,
        change: impl FnMut(&mut ClockRecord),
    ) -> Result<ClockRecord, MetaError> {
        if self.get(session, clock)?.is_none() {
            let made = ClockRecord { session, clock, kind: kind.to_owned(), probes: Vec::new(), anchors: Vec::new() };
            match self.0.create(&made) {
                Ok(()) | Err(MetaError::Exists { .. }) => {}
                Err(error) => return Err(error),
            }
        }
        self.update(session, clock, change)
    }

    /// The clocks of a session, at most a thousand.
    ///
    /// # Errors
    /// When the store fails.
    pub fn list(&self, session: SessionId) -> Result<Vec<ClockRecord>, MetaError> {
        let query = in_order(ListKind::Clocks, Direction::Ascending, None, PAGE_RECORDS_MAX);
        Ok(self.0.partition_page(&session.0, &query)?.records)
    }
}

impl Stored for TokenRecord {
    const TABLE: Table = Table::Tokens;
    const WHAT: &'static str = "token";

    fn address(&self) -> Address {
        whole(self.id.as_bytes())
    }

    fn name(&self) -> String {
        self.id.clone()
    }

    fn order(&self) -> Vec<u8> {
        self.id.as_bytes().to_vec()
    }

    fn lists(&self) -> Vec<Vec<u8>> {
        Vec::new()
    }
}

/// The store of tokens. [`crate::accounts`] makes and checks them.
#[derive(Clone)]
pub struct Tokens(Typed<TokenRecord>);

impl Tokens {
    pub(super) fn over(store: Arc<dyn MetaStore>) -> Self {
        Self(Typed::over(store))
    }

    /// Writes a new token.
    ///
    /// # Errors
    /// When the id is taken, or the store fails.
    pub fn create(&self, record: &TokenRecord) -> Result<(), MetaError> {
        self.0.create(record)
    }

    /// Reads a token.
    ///
    /// # Errors
    /// When the store fails.
    pub fn get(&self, id: &str) -> Result<Option<TokenRecord>, MetaError> {
        if id.len() > super::KEY_BYTES_MAX {
            return Ok(None);
        }
        self.0.get(&whole(id.as_bytes()), &|| id.to_owned())
    }

    /// Changes a token against all other writers; returns it as written.
    ///
    /// # Errors
    /// When there is no such token, or the store fails.
    pub fn update(&self, id: &str, mut change: impl FnMut(&mut TokenRecord)) -> Result<TokenRecord, MetaError> {
        self.0.update(&whole(id.as_bytes()), &|| id.to_owned(), |record| {
            change(record);
            Ok::<(), MetaError>(())
        })
    }

    /// All tokens, by id.
    ///
    /// # Errors
    /// When the store fails.
    pub fn list(&self) -> Result<Vec<TokenRecord>, MetaError> {
        let mut tokens = Vec::new();
        let mut after = None;
        loop {
            let query = in_order(ListKind::Tokens, Direction::Ascending, after.as_ref(), PAGE_RECORDS_MAX);
            let page = self.0.partition_page(WHOLE, &query)?;
            tokens.extend(page.records);
            match page.next {
                Some(next) => after = Some(next),
                None => return Ok(tokens),
            }
        }
    }
}
