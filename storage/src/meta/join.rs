//! Reads index entries that several partitions have in common, without reading the rest.
//!
//! All partitions of one list hold the same fixed-length order keys. The reader goes through the
//! first one and skips in the others to the key that it stands at; whenever another one is
//! already further, it skips ahead to that.

use std::collections::VecDeque;
use std::ops::Bound;

use super::{Direction, MetaStore, Row, Span, StoreError, Table};

/// Rows that one page may read, so that two filters that hardly ever meet do not turn a page into
/// a walk through everything.
pub(super) const READS_MAX: usize = 8192;
/// Rows fetched at once when several partitions are joined: most skips are short.
const SKIP_ROWS: usize = 32;

/// Where a join stands.
pub(super) enum Next {
    /// An entry that every partition has.
    Entry(Row),
    /// There are no more.
    End,
    /// Enough rows were read; nothing up to this key is left.
    Pause(Vec<u8>),
}

pub(super) struct Join<'a> {
    store: &'a dyn MetaStore,
    direction: Direction,
    to: Bound<Vec<u8>>,
    lanes: Vec<Lane>,
    chunk: usize,
    reads: usize,
    /// The last key that was settled.
    settled: Option<Vec<u8>>,
}

/// One partition.
struct Lane {
    partition: Vec<u8>,
    rows: VecDeque<Row>,
    /// Where the next fetch starts; `None` when there is nothing to fetch.
    resume: Option<Bound<Vec<u8>>>,
}

impl<'a> Join<'a> {
    /// Joins `partitions` of the index (one or more) from `from` to `to`. `expected` is how many
    /// entries the caller will probably take.
    pub(super) fn new(
        store: &'a dyn MetaStore,
        partitions: Vec<Vec<u8>>,
        (from, to): (Bound<Vec<u8>>, Bound<Vec<u8>>),
        direction: Direction,
        expected: usize,
    ) -> Self {
        let chunk = if partitions.len() == 1 { expected } else { SKIP_ROWS };
        let lane = |partition| Lane { partition, rows: VecDeque::new(), resume: Some(from.clone()) };
        Self {
            store,
            direction,
            to,
            lanes: partitions.into_iter().map(lane).collect(),
            chunk: chunk.clamp(1, READS_MAX),
            reads: 0,
            settled: None,
        }
    }

    /// The next entry in common.
    pub(super) fn next(&mut self) -> Result<Next, StoreError> {
        let Some(mut target) = self.peek(0, None)? else {
            return Ok(Next::End);
        };
        let mut agreed = 1;
        let mut lane = 0;
        while agreed < self.lanes.len() {
            if self.reads >= READS_MAX
                && let Some(settled) = self.settled.clone()
            {
                return Ok(Next::Pause(settled));
            }
            lane = (lane + 1) % self.lanes.len();
            let Some(key) = self.peek(lane, Some(&target))? else {
                return Ok(Next::End);
            };
            if key == target {
                agreed += 1;
            } else {
                // Nothing before `key` is in this lane, so nothing before it is in common. The
                // old target itself is settled: it is missing here.
                self.settled = Some(std::mem::replace(&mut target, key));
                agreed = 1;
            }
        }
        self.settled = Some(target);
        let mut taken = None;
        for lane in &mut self.lanes {
            taken = lane.rows.pop_front();
        }
        Ok(taken.map_or(Next::End, Next::Entry))
    }

    /// Whether the rows read so far are enough for one page.
    pub(super) fn is_spent(&self) -> bool {
        self.reads >= READS_MAX
    }

    /// The first key of a lane at or beyond `target`.
    fn peek(&mut self, index: usize, target: Option<&Vec<u8>>) -> Result<Option<Vec<u8>>, StoreError> {
        let direction = self.direction;
        let before = |key: &[u8], target: &Vec<u8>| match direction {
            Direction::Ascending => key < target.as_slice(),
            Direction::Descending => key > target.as_slice(),
        };
        let Some(lane) = self.lanes.get_mut(index) else {
            return Ok(None);
        };
        if let Some(target) = target {
            while lane.rows.front().is_some_and(|row| before(&row.key, target)) {
                lane.rows.pop_front();
            }
        }
        if let Some(row) = lane.rows.front() {
            return Ok(Some(row.key.clone()));
        }
        let Some(resume) = lane.resume.take() else {
            return Ok(None);
        };
        let start = match (target, &resume) {
            (Some(target), Bound::Unbounded) => Bound::Included(target.clone()),
            (Some(target), Bound::Included(key) | Bound::Excluded(key)) if before(key, target) => {
                Bound::Included(target.clone())
            }
            _ => resume,
        };
        let span = Span { from: as_slice(&start), to: as_slice(&self.to) };
        let rows = self.store.scan(Table::Index, &lane.partition, span, self.chunk, direction)?;
        self.reads += rows.len().max(1);
        if rows.len() == self.chunk {
            lane.resume = rows.last().map(|row| Bound::Excluded(row.key.clone()));
        }
        lane.rows = rows.into();
        Ok(lane.rows.front().map(|row| row.key.clone()))
    }
}

pub(super) fn as_slice(bound: &Bound<Vec<u8>>) -> Bound<&[u8]> {
    match bound {
        Bound::Included(key) => Bound::Included(key),
        Bound::Excluded(key) => Bound::Excluded(key),
        Bound::Unbounded => Bound::Unbounded,
    }
}
