//! What is numbered, what is written, what is acknowledged. Pure: it holds no bytes, file or socket.
//!
//! A [`Ledger`] has one [`Lane`] per stream, the journal (stream 0) included. Messages wait in their lane until an
//! acknowledgement covers them. They are sent in the order in which they were kept, except that a lane behind a hole
//! waits until the journal message that declares the hole was sent: the server would refuse it as a gap.
//!
//! Numbers given out before the first welcome of a process are *provisional*: the server may hold more of a stream than
//! this process knows (its spool is gone, or a power cut took its tail). [`Ledger::settle`] then moves them up, which is
//! allowed because nothing provisional was ever sent.

use std::collections::{BTreeMap, VecDeque};
use std::time::Duration;

use serde::{Deserialize, Serialize};
use tendon_protocol::control::{LostReason, Position};
use tendon_protocol::id::{ClockId, StreamId};

/// One message that waits for its acknowledgement. `P` says where its bytes are.
#[derive(Clone, Debug)]
pub(crate) struct Entry<P> {
    /// Place in the order of sending.
    pub order: u64,
    /// First sequence number.
    pub first: u64,
    /// Samples of the message, at least 1.
    pub count: u32,
    /// Bytes of the message.
    pub bytes: usize,
    /// Journal sequence that must be sent first: it declares the hole in front of this message.
    pub after: Option<u64>,
    /// Numbered before the first welcome.
    pub provisional: bool,
    /// Clock of its times.
    pub clock: ClockId,
    /// When it was first written to a socket.
    pub written: Option<Duration>,
    /// Where its bytes are.
    pub payload: P,
}

impl<P> Entry<P> {
    /// First sequence behind it.
    pub fn end(&self) -> u64 {
        self.first + u64::from(self.count)
    }
}

/// Numbers that no sample has.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Hole {
    pub first: u64,
    pub last: u64,
    /// Number of the journal message that says so.
    pub declared: u64,
    pub reason: LostReason,
}

/// One stream.
#[derive(Debug)]
pub(crate) struct Lane<P> {
    entries: VecDeque<Entry<P>>,
    /// Index of the next entry to write on this connection.
    cursor: usize,
    /// Highest acknowledgement that was ever seen, exclusive.
    acknowledged: u64,
    /// Next number to give out.
    next: u64,
    /// Numbers from here on are provisional until [`Ledger::settle`].
    settled_next: u64,
    /// Journal sequence that the next entry must wait for.
    held: Option<u64>,
    /// Declared holes that are not acknowledged yet.
    holes: Vec<Hole>,
    /// The server wants no more of it.
    refused: bool,
    /// Samples of an earlier process may be lost; their placeholder waits for the declaration of the stream.
    due: bool,
}

impl<P> Default for Lane<P> {
    fn default() -> Self {
        Self {
            entries: VecDeque::new(),
            cursor: 0,
            acknowledged: 0,
            next: 0,
            settled_next: 0,
            held: None,
            holes: Vec::new(),
            refused: false,
            due: false,
        }
    }
}

impl<P> Lane<P> {
    /// Ranges from `from` on that are neither kept nor declared lost.
    fn gaps(&self, from: u64) -> Vec<(u64, u64)> {
        let kept = self.entries.iter().map(|entry| (entry.first, entry.end()));
        let mut covered: Vec<(u64, u64)> =
            kept.chain(self.holes.iter().map(|hole| (hole.first, hole.last + 1))).collect();
        covered.sort_unstable();
        let mut gaps = Vec::new();
        let mut at = from;
        for (first, end) in covered.into_iter().chain([(self.next, self.next)]) {
            if first > at {
                gaps.push((at, first - 1));
            }
            at = at.max(end);
        }
        gaps
    }

    /// The server has numbers below `has`; provisional ones begin at `next` from now on.
    fn settle(&mut self, has: u64, next: u64, stream: StreamId, deltas: &mut Deltas) {
        let settled = self.settled_next;
        let delta = next - settled;
        self.next += delta;
        for entry in self.entries.iter_mut().filter(|entry| entry.provisional) {
            entry.first += delta;
        }
        for hole in self.holes.iter_mut().filter(|hole| hole.first >= settled) {
            hole.first += delta;
            hole.last += delta;
        }
        // What the server has was not lost, even if this process does not remember making it.
        self.acknowledged = self.acknowledged.max(has);
        if delta > 0 {
            deltas.insert(stream, delta);
        }
    }
}

/// The place of a message that is about to be kept.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Plan {
    pub order: u64,
    pub first: u64,
    pub provisional: bool,
}

/// A written entry, for the caller to send.
pub(crate) struct Taken<'a, P> {
    pub stream: StreamId,
    pub entry: &'a Entry<P>,
    /// It was written before.
    pub again: bool,
}

/// What a stream looked like when the process before this one ended.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Before {
    pub acknowledged: u64,
    pub next: u64,
    pub holes: Vec<Hole>,
}

/// All lanes.
#[derive(Debug)]
pub(crate) struct Ledger<P> {
    lanes: BTreeMap<StreamId, Lane<P>>,
    order: u64,
    settled: bool,
}

/// How far the provisional numbers of each lane were moved; lanes that stayed are left out.
pub(crate) type Deltas = BTreeMap<StreamId, u64>;

/// What the first welcome changed.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Settled {
    pub deltas: Deltas,
    /// Streams with a number that stands for an unknown number of lost samples.
    pub placeholders: Vec<(StreamId, u64)>,
    /// The journal number that declares the first of them; the others follow.
    pub journal_first: u64,
}

/// The server has more of a stream than was ever numbered here.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Foreign {
    pub stream: StreamId,
    pub server: u64,
    pub next: u64,
}

impl<P> Ledger<P> {
    pub fn new() -> Self {
        Self { lanes: BTreeMap::from([(StreamId::JOURNAL, Lane::default())]), order: 0, settled: false }
    }

    fn lane(&mut self, stream: StreamId) -> &mut Lane<P> {
        self.lanes.entry(stream).or_default()
    }

    /// Brings back a lane of an earlier process.
    pub fn restore_lane(&mut self, stream: StreamId, before: Before) {
        let lane = self.lane(stream);
        lane.acknowledged = before.acknowledged;
        // The journal may have no holes, because it is the journal that declares them. If its newest messages are gone
        // after a power cut, the server does not have them either, and their numbers are given out again.
        let next = if stream == StreamId::JOURNAL { 0 } else { before.next };
        lane.settled_next = next.max(before.acknowledged);
        lane.next = lane.settled_next;
        lane.holes = before.holes;
    }

    /// Brings back an entry of an earlier process, in the order of keeping.
    pub fn restore(&mut self, stream: StreamId, entry: Entry<P>) {
        self.order = self.order.max(entry.order + 1);
        let lane = self.lane(stream);
        lane.next = lane.next.max(entry.end());
        if !entry.provisional {
            lane.settled_next = lane.settled_next.max(entry.end());
        }
        lane.entries.push_back(entry);
    }

    /// Brings back a hole that a journal message of an earlier process declares.
    pub fn restore_hole(&mut self, stream: StreamId, hole: Hole, settled: bool) {
        if hole.last < self.lane(stream).acknowledged {
            return;
        }
        self.hole(stream, hole);
        let lane = self.lane(stream);
        if settled {
            lane.settled_next = lane.settled_next.max(hole.last + 1);
        }
    }

    /// Makes sure that later messages come after `order`.
    pub fn order_from(&mut self, order: u64) {
        self.order = self.order.max(order);
    }

    pub fn order(&self) -> u64 {
        self.order
    }

    /// Whether the first welcome has come.
    pub fn settled(&self) -> bool {
        self.settled
    }

    /// Next number of a stream.
    pub fn next(&self, stream: StreamId) -> u64 {
        self.lanes.get(&stream).map_or(0, |lane| lane.next)
    }

    /// What to write down about a lane: never ahead of what is certain.
    pub fn before(&self) -> impl Iterator<Item = (StreamId, Before)> + '_ {
        self.lanes.iter().map(|(stream, lane)| {
            let next = if self.settled { lane.next } else { lane.settled_next };
            let holes = lane.holes.iter().copied().filter(|hole| hole.last < next).collect();
            (*stream, Before { acknowledged: lane.acknowledged, next, holes })
        })
    }

    /// Highest acknowledgements ever seen.
    pub fn acknowledged(&self) -> Vec<Position> {
        let seen = self.lanes.iter().filter(|(_, lane)| lane.acknowledged > 0);
        seen.map(|(stream, lane)| Position { stream: *stream, next: lane.acknowledged }).collect()
    }

    pub fn is_empty(&self) -> bool {
        self.lanes.values().all(|lane| lane.entries.is_empty())
    }

    /// Order of the oldest entry.
    pub fn oldest(&self) -> Option<u64> {
        self.lanes.values().filter_map(|lane| lane.entries.front()).map(|entry| entry.order).min()
    }

    pub fn entries(&self) -> impl Iterator<Item = (StreamId, &Entry<P>)> {
        self.lanes.iter().flat_map(|(stream, lane)| lane.entries.iter().map(move |entry| (*stream, entry)))
    }

    pub fn entries_mut(&mut self) -> impl Iterator<Item = (StreamId, &mut Entry<P>)> {
        self.lanes.iter_mut().flat_map(|(stream, lane)| lane.entries.iter_mut().map(move |entry| (*stream, entry)))
    }

    /// The place that the next message of a stream will have. It must be committed, or planned anew.
    pub fn plan(&self, stream: StreamId) -> Plan {
        Plan { order: self.order, first: self.next(stream), provisional: !self.settled }
    }

    /// Keeps a planned message.
    pub fn commit(&mut self, stream: StreamId, plan: Plan, count: u32, bytes: usize, clock: ClockId, payload: P) {
        self.order = plan.order + 1;
        let lane = self.lane(stream);
        assert!(plan.first == lane.next && count > 0, "a message is kept at the place that was planned for it");
        lane.next += u64::from(count);
        let after = lane.held.take();
        let Plan { order, first, provisional } = plan;
        lane.entries.push_back(Entry { order, first, count, bytes, after, provisional, clock, written: None, payload });
    }

    /// Puts a message where one of the same lane is missing.
    pub fn fill(&mut self, stream: StreamId, entry: Entry<P>) {
        self.order = self.order.max(entry.order + 1);
        let lane = self.lane(stream);
        let at = lane.entries.partition_point(|other| other.first < entry.first);
        lane.cursor = lane.cursor.min(at);
        lane.next = lane.next.max(entry.end());
        lane.entries.insert(at, entry);
    }

    /// Holes of a stream that begin at `from` or later and whose declarations still wait in the journal, by number.
    pub fn undeclared_holes(&self, stream: StreamId, from: u64) -> Vec<Hole> {
        let journal = self.lanes.get(&StreamId::JOURNAL);
        let waits = |hole: &&Hole| {
            journal.is_some_and(|journal| {
                journal.entries.binary_search_by_key(&hole.declared, |entry| entry.first).is_ok()
            })
        };
        let holes = self.lanes.get(&stream).into_iter().flat_map(|lane| &lane.holes);
        let mut holes: Vec<Hole> = holes.filter(|hole| hole.last >= from).filter(waits).copied().collect();
        holes.sort_unstable_by_key(|hole| hole.first);
        holes
    }

    /// Puts other bytes at a number that was never durable. Gives the entry's order and what was there.
    pub fn replace(&mut self, stream: StreamId, first: u64, bytes: usize, payload: P) -> Option<P> {
        let lane = self.lanes.get_mut(&stream)?;
        let entry = lane.entries.iter_mut().find(|entry| entry.first == first)?;
        entry.bytes = bytes;
        Some(std::mem::replace(&mut entry.payload, payload))
    }

    /// Takes the declarations of these holes back, to declare them anew.
    pub fn forget_holes(&mut self, stream: StreamId, holes: &[Hole]) {
        self.lane(stream).holes.retain(|hole| !holes.contains(hole));
    }

    /// Order of the entry that a filled one goes in front of.
    pub fn order_at(&self, stream: StreamId, sequence: u64) -> u64 {
        let lane = self.lanes.get(&stream);
        lane.and_then(|lane| lane.entries.iter().find(|entry| entry.first >= sequence))
            .map_or(self.order, |entry| entry.order)
    }

    /// Gives out numbers that no sample will have.
    pub fn skip(&mut self, stream: StreamId, count: u64) -> (u64, u64) {
        let lane = self.lane(stream);
        let first = lane.next;
        lane.next += count;
        (first, first + count - 1)
    }

    /// What lies behind a declared hole waits until the declaration was sent.
    pub fn hole(&mut self, stream: StreamId, hole: Hole) {
        let lane = self.lane(stream);
        lane.holes.retain(|other| (other.first, other.last) != (hole.first, hole.last));
        lane.holes.push(hole);
        match lane.entries.iter_mut().find(|entry| entry.first > hole.last) {
            Some(entry) => entry.after = entry.after.max(Some(hole.declared)),
            None => lane.held = lane.held.max(Some(hole.declared)),
        }
        lane.next = lane.next.max(hole.last + 1);
    }

    /// Forgets what lies below `next`. Numbers that were never given out cannot be acknowledged and are cut off.
    pub fn acknowledge(&mut self, stream: StreamId, next: u64, mut forget: impl FnMut(Entry<P>)) {
        let lane = self.lane(stream);
        let next = next.min(lane.next);
        lane.acknowledged = lane.acknowledged.max(next);
        while lane.entries.front().is_some_and(|entry| entry.end() <= next) {
            if let Some(entry) = lane.entries.pop_front() {
                lane.cursor = lane.cursor.saturating_sub(1);
                forget(entry);
            }
        }
        let acknowledged = lane.acknowledged;
        lane.holes.retain(|hole| hole.last >= acknowledged);
    }

    /// The first welcome of this process: moves provisional numbers behind what the server has.
    ///
    /// A stream of which an earlier process may have lost samples gets one placeholder number. If the stream is not declared
    /// yet, the placeholder is due at [`Self::take_due`]. The others' declarations of loss get their own numbers in the journal,
    /// in front of what was provisional there, so that the holes of a stream are declared in the order of their numbers.
    /// `unclean`: the process before this one ended with messages in memory alone. `renumber` is shown every entry that was
    /// provisional and how far each lane was moved.
    pub fn settle(
        &mut self,
        positions: &[Position],
        declared: impl Fn(StreamId) -> bool,
        unclean: bool,
        mut renumber: impl FnMut(&mut Entry<P>, &Deltas),
    ) -> Settled {
        let server: BTreeMap<StreamId, u64> =
            positions.iter().map(|position| (position.stream, position.next)).collect();
        for stream in server.keys() {
            self.lane(*stream);
        }
        let (mut deltas, mut placeholders) = (Deltas::new(), Vec::new());
        for (stream, lane) in self.lanes.iter_mut().filter(|(stream, _)| **stream != StreamId::JOURNAL) {
            let has = server.get(stream).copied().unwrap_or(0);
            let had = has > 0 || lane.settled_next > 0;
            let lost = had && (has > lane.settled_next || unclean);
            lane.due = lost && !declared(*stream);
            let mut next = has.max(lane.settled_next);
            if lost && !lane.due {
                placeholders.push((*stream, next));
                next += 1;
            }
            lane.settle(has, next, *stream, &mut deltas);
        }
        let journal = self.lane(StreamId::JOURNAL);
        let has = server.get(&StreamId::JOURNAL).copied().unwrap_or(0);
        let (journal_settled, journal_first) = (journal.settled_next, has.max(journal.settled_next));
        journal.settle(has, journal_first + placeholders.len() as u64, StreamId::JOURNAL, &mut deltas);
        let journal_delta = deltas.get(&StreamId::JOURNAL).copied().unwrap_or(0);
        for lane in self.lanes.values_mut() {
            let waits = lane.entries.iter_mut().filter_map(|entry| entry.after.as_mut()).chain(lane.held.as_mut());
            let waits = waits.chain(lane.holes.iter_mut().map(|hole| &mut hole.declared));
            waits.filter(|after| **after >= journal_settled).for_each(|after| *after += journal_delta);
            for entry in lane.entries.iter_mut().filter(|entry| entry.provisional) {
                entry.provisional = false;
                renumber(entry, &deltas);
            }
            lane.settled_next = lane.next;
        }
        self.settled = true;
        Settled { deltas, placeholders, journal_first }
    }

    /// Whether a placeholder is due for a stream; asked once, when the stream is declared.
    pub fn take_due(&mut self, stream: StreamId) -> bool {
        self.lanes.get_mut(&stream).is_some_and(|lane| std::mem::take(&mut lane.due))
    }

    /// A connection begins: every lane is sent again from its first entry.
    ///
    /// # Errors
    /// When the server has what nobody here numbered.
    pub fn rewind_all(&mut self, positions: &[Position]) -> Result<(), Foreign> {
        for Position { stream, next: server } in positions {
            let next = self.next(*stream);
            if *server > next {
                return Err(Foreign { stream: *stream, server: *server, next });
            }
        }
        self.lanes.values_mut().for_each(|lane| lane.cursor = 0);
        Ok(())
    }

    /// A lane is sent again from the entry that holds `from`.
    pub fn rewind(&mut self, stream: StreamId, from: u64) {
        if let Some(lane) = self.lanes.get_mut(&stream) {
            lane.cursor = lane.entries.partition_point(|entry| entry.end() <= from).min(lane.cursor);
        }
    }

    /// Ranges from `from` on that are neither kept nor declared lost.
    pub fn gaps(&self, stream: StreamId, from: u64) -> Vec<(u64, u64)> {
        self.lanes.get(&stream).map_or_else(Vec::new, |lane| if lane.refused { Vec::new() } else { lane.gaps(from) })
    }

    pub fn streams(&self) -> Vec<StreamId> {
        self.lanes.keys().copied().collect()
    }

    /// The next message to write, if any may be.
    pub fn take(&mut self, now: Duration) -> Option<Taken<'_, P>> {
        let journal = self.lanes.get(&StreamId::JOURNAL)?;
        let journal_sent = journal.entries.get(journal.cursor).map_or(journal.next, |entry| entry.first);
        let mut best: Option<(u64, StreamId)> = None;
        for (stream, lane) in &self.lanes {
            let Some(entry) = lane.entries.get(lane.cursor) else { continue };
            let free = entry.after.is_none_or(|after| after < journal_sent);
            if free && best.is_none_or(|(order, _)| entry.order < order) {
                best = Some((entry.order, *stream));
            }
        }
        let (_, stream) = best?;
        let lane = self.lanes.get_mut(&stream)?;
        let entry = lane.entries.get_mut(lane.cursor)?;
        lane.cursor += 1;
        let again = entry.written.is_some();
        entry.written = entry.written.or(Some(now));
        Some(Taken { stream, entry, again })
    }

    /// Whether everything was written on this connection.
    pub fn all_written(&self) -> bool {
        self.lanes.values().all(|lane| lane.cursor >= lane.entries.len())
    }

    /// Drops one entry whose bytes cannot be read.
    pub fn remove(&mut self, stream: StreamId, first: u64) -> Option<Entry<P>> {
        let lane = self.lanes.get_mut(&stream)?;
        let at = lane.entries.iter().position(|entry| entry.first == first)?;
        if at < lane.cursor {
            lane.cursor -= 1;
        }
        lane.entries.remove(at)
    }

    /// The server wants no more of a stream: everything of it is dropped.
    pub fn refuse(&mut self, stream: StreamId, mut forget: impl FnMut(Entry<P>)) {
        let lane = self.lane(stream);
        lane.refused = true;
        lane.cursor = 0;
        lane.entries.drain(..).for_each(&mut forget);
    }
}

#[cfg(test)]
mod tests;
