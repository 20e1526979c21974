//! What the log knows in memory: positions, which segment holds what, and where entries lie.
//!
//! Entries of the active segment are here one by one. Of a sealed segment only the first and the
//! next sequence number per stream stay; its entries are in its index file.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use tendon_protocol::id::{SessionId, StreamId};

use super::file::File;
use super::format::{Run, Seal};
use super::report::Holder;
use super::segment::Segment;
use super::sidecar::{IndexEntry, SegmentIndex};

/// What reads need of a segment. While a clone is alive the segment is not used again.
#[derive(Clone)]
pub struct Source {
    /// Number of the file.
    pub number: u64,
    /// Generation of the first run.
    pub birth: u64,
    /// The file.
    pub file: Arc<dyn File>,
    /// Its runs: they say what checksums start from.
    pub runs: Arc<[Run]>,
    pin: Arc<()>,
}

impl Source {
    /// The source of a segment that has come into use.
    pub fn new(segment: &Segment) -> Self {
        Self {
            number: segment.number,
            birth: segment.birth(),
            file: Arc::clone(&segment.file),
            runs: segment.runs.as_slice().into(),
            pin: Arc::new(()),
        }
    }

    /// What the checksum of a record at `offset` starts from.
    pub fn seed(&self, offset: u32) -> u32 {
        self.runs.iter().rev().find(|run| run.start <= offset).map_or(0, Run::seed)
    }

    fn is_read(&self) -> bool {
        Arc::strong_count(&self.pin) > 1
    }
}

/// One stream's part of a sealed segment.
#[derive(Debug)]
struct Span {
    session: SessionId,
    stream: StreamId,
    first: u64,
    next: u64,
    bytes: u64,
    is_held: bool,
}

/// Where the entries of a sealed segment are listed.
pub enum Listing {
    /// Not in a file yet.
    Memory(Arc<SegmentIndex>),
    /// In the index file.
    File,
}

/// A segment that takes no more entries.
pub struct Sealed {
    /// For reads.
    pub source: Source,
    /// The file and what its headers say.
    pub segment: Segment,
    /// End of the durable part.
    pub end: u64,
    /// Its entries.
    pub listing: Listing,
    /// Birth of the segment whose header says where this one ends, while that is said nowhere else.
    pub told_by: Option<u64>,
    spans: Vec<Span>,
    held: usize,
}

#[derive(Debug)]
struct Stream {
    stream: StreamId,
    next: u64,
    released: u64,
    /// Entries in the active segment.
    open: Vec<IndexEntry>,
    open_bytes: u64,
    open_next: u64,
}

#[derive(Debug, Default)]
struct Session {
    streams: Vec<Stream>,
    /// Bytes in sealed segments that are not released.
    held_bytes: u64,
    /// Spans in sealed segments, and streams in the active one.
    spans: usize,
    /// All that it had was released; it goes when its last span goes.
    is_ended: bool,
}

impl Session {
    fn stream(&mut self, stream: StreamId) -> &mut Stream {
        let at = match self.streams.binary_search_by_key(&stream, |known| known.stream) {
            Ok(at) => at,
            Err(at) => {
                let new = Stream { stream, next: 0, released: 0, open: Vec::new(), open_bytes: 0, open_next: 0 };
                self.streams.insert(at, new);
                at
            }
        };
        &mut self.streams[at]
    }

    fn bytes(&self) -> u64 {
        let open = self.streams.iter().filter(|stream| stream.open_next > stream.released);
        self.held_bytes + open.map(|stream| stream.open_bytes).sum::<u64>()
    }
}

/// Part of a plan to read: where entries are.
pub enum Place {
    /// Here they are.
    Entries(Source, Vec<IndexEntry>),
    /// In an index in memory.
    Memory(Source, Arc<SegmentIndex>),
    /// In an index file of a segment that is durable up to here.
    File(Source, u64),
}

/// The index of the whole log.
#[derive(Default)]
pub struct Index {
    sessions: HashMap<SessionId, Session>,
    sealed: BTreeMap<u64, Sealed>,
    active: Option<Source>,
    touched: Vec<(SessionId, StreamId)>,
}

impl Index {
    /// Entries go into this segment from now on.
    pub fn open(&mut self, source: Source) {
        self.active = Some(source);
    }

    /// Adds entries that became durable in the active segment, in the order of writing.
    pub fn add(&mut self, entries: impl IntoIterator<Item = ((SessionId, StreamId), IndexEntry)>) {
        let touched = &mut self.touched;
        for ((session, stream), entry) in entries {
            let known = self.sessions.entry(session).or_default();
            let of_stream = known.stream(stream);
            let is_touch = of_stream.open.is_empty();
            of_stream.next = of_stream.next.max(entry.next());
            of_stream.open_next = of_stream.open_next.max(entry.next());
            of_stream.open_bytes += entry.record_bytes() as u64;
            of_stream.open.push(entry);
            known.is_ended = false;
            if is_touch {
                known.spans += 1;
                touched.push((session, stream));
            }
        }
    }

    /// The active segment takes no more entries: it is durable up to `end`.
    pub fn seal(&mut self, segment: Segment, end: u64) {
        let Some(source) = self.active.take() else { return };
        let mut by_stream = Vec::with_capacity(self.touched.len());
        for (session, stream) in std::mem::take(&mut self.touched) {
            let Some(known) = self.sessions.get_mut(&session) else { continue };
            let of_stream = known.stream(stream);
            by_stream.push(((session, stream), std::mem::take(&mut of_stream.open)));
            (of_stream.open_bytes, of_stream.open_next) = (0, 0);
            // `insert` counts it again.
            known.spans -= 1;
        }
        let index = SegmentIndex::new(by_stream);
        let sealed = Sealed { source, segment, end, told_by: None, spans: Vec::new(), held: 0, listing: Listing::File };
        self.insert_sealed(sealed, index, false);
    }

    /// Adds a sealed segment that was found at start.
    pub fn insert(&mut self, segment: Segment, end: u64, index: SegmentIndex, is_in_file: bool) {
        let source = Source::new(&segment);
        let sealed = Sealed { source, segment, end, told_by: None, spans: Vec::new(), held: 0, listing: Listing::File };
        self.insert_sealed(sealed, index, is_in_file);
    }

    fn insert_sealed(&mut self, mut sealed: Sealed, index: SegmentIndex, is_in_file: bool) {
        for ((session, stream), entries) in index.streams() {
            let Some(first) = entries.iter().map(|entry| entry.first).min() else { continue };
            let next = entries.iter().map(IndexEntry::next).max().unwrap_or(first);
            let bytes = entries.iter().map(|entry| entry.record_bytes() as u64).sum();
            let known = self.sessions.entry(session).or_default();
            known.spans += 1;
            let of_stream = known.stream(stream);
            of_stream.next = of_stream.next.max(next);
            let is_held = of_stream.released < next;
            if is_held {
                known.held_bytes += bytes;
                sealed.held += 1;
            }
            sealed.spans.push(Span { session, stream, first, next, bytes, is_held });
        }
        if !is_in_file {
            sealed.listing = Listing::Memory(Arc::new(index));
        }
        self.sealed.insert(sealed.source.birth, sealed);
    }

    /// Durable next sequence number per stream.
    pub fn positions(&self, session: SessionId) -> BTreeMap<StreamId, u64> {
        let streams = self.sessions.get(&session).map(|known| known.streams.as_slice()).unwrap_or_default();
        streams.iter().filter(|stream| stream.next > 0).map(|stream| (stream.stream, stream.next)).collect()
    }

    /// Sessions that were not released as a whole.
    pub fn sessions(&self) -> Vec<SessionId> {
        let mut sessions: Vec<_> =
            self.sessions.iter().filter(|(_, known)| !known.is_ended).map(|(session, _)| *session).collect();
        sessions.sort_unstable();
        sessions
    }

    /// Entries below these positions are not needed. Whether a segment may have become free.
    pub fn release(&mut self, session: SessionId, below: &[(StreamId, u64)]) -> bool {
        let Some(known) = self.sessions.get_mut(&session) else { return false };
        for (stream, position) in below {
            if let Ok(at) = known.streams.binary_search_by_key(stream, |of_stream| of_stream.stream) {
                let of_stream = &mut known.streams[at];
                of_stream.released = of_stream.released.max(*position);
            }
        }
        let mut has_freed = false;
        for sealed in self.sealed.values_mut() {
            let start = sealed.spans.partition_point(|span| span.session < session);
            for span in sealed.spans[start..].iter_mut().take_while(|span| span.session == session) {
                if span.is_held && known.stream(span.stream).released >= span.next {
                    span.is_held = false;
                    known.held_bytes -= span.bytes;
                    sealed.held -= 1;
                    has_freed |= sealed.held == 0;
                }
            }
        }
        has_freed
    }

    /// Nothing that the session has so far is needed.
    pub fn release_all(&mut self, session: SessionId) -> bool {
        let Some(known) = self.sessions.get_mut(&session) else { return false };
        known.is_ended = true;
        let below: Vec<_> = known.streams.iter().map(|stream| (stream.stream, stream.next)).collect();
        let has_freed = self.release(session, &below);
        self.forget(session);
        has_freed
    }

    fn forget(&mut self, session: SessionId) {
        if self.sessions.get(&session).is_some_and(|known| known.is_ended && known.spans == 0) {
            self.sessions.remove(&session);
        }
    }

    /// Whether nothing in the active segment is needed, though it has entries.
    pub fn is_active_spent(&self) -> bool {
        let is_released = |(session, stream): &(SessionId, StreamId)| {
            let known = self.sessions.get(session).map(|known| known.streams.as_slice()).unwrap_or_default();
            known.iter().filter(|of| of.stream == *stream).all(|of| of.released >= of.open_next)
        };
        !self.touched.is_empty() && self.touched.iter().all(is_released)
    }

    /// Takes out a segment that holds nothing that is needed, if there is one.
    pub fn take_free(&mut self) -> Option<Sealed> {
        let is_free = |sealed: &&Sealed| {
            sealed.held == 0
                && !sealed.source.is_read()
                && !self.sealed.values().any(|other| {
                    other.told_by == Some(sealed.source.birth) && matches!(other.listing, Listing::Memory(_))
                })
        };
        let birth = self.sealed.values().find(is_free).map(|sealed| sealed.source.birth)?;
        let sealed = self.sealed.remove(&birth)?;
        for span in &sealed.spans {
            if let Some(known) = self.sessions.get_mut(&span.session) {
                known.spans -= 1;
            }
            self.forget(span.session);
        }
        Some(sealed)
    }

    /// Sealed segments whose entries are in no file yet.
    pub fn unlisted(&self) -> Vec<(Source, u64, Arc<SegmentIndex>)> {
        let memory = |sealed: &Sealed| match &sealed.listing {
            Listing::Memory(index) => Some((sealed.source.clone(), sealed.end, Arc::clone(index))),
            Listing::File => None,
        };
        self.sealed.values().filter_map(memory).collect()
    }

    /// The index file of a segment is durable.
    pub fn listed(&mut self, birth: u64) {
        if let Some(sealed) = self.sealed.get_mut(&birth) {
            sealed.listing = Listing::File;
        }
    }

    /// Ends of the segments that are in no index file, youngest first, for the next header.
    pub fn seals(&self) -> Vec<Seal> {
        let unlisted = self.sealed.values().rev().filter(|sealed| matches!(sealed.listing, Listing::Memory(_)));
        unlisted.map(|sealed| Seal { birth: sealed.source.birth, end: sealed.end }).collect()
    }

    /// The header of `teller` is durable and says where these end.
    pub fn told(&mut self, seals: &[Seal], teller: u64) {
        for seal in seals {
            if let Some(sealed) = self.sealed.get_mut(&seal.birth) {
                sealed.told_by = Some(teller);
            }
        }
    }

    /// Where the entries that overlap `from..to` are.
    pub fn places(&self, session: SessionId, stream: StreamId, from: u64, to: u64) -> Vec<Place> {
        let mut places = Vec::new();
        for sealed in self.sealed.values() {
            let span = sealed.spans.binary_search_by_key(&(session, stream), |span| (span.session, span.stream));
            if !span.is_ok_and(|at| sealed.spans[at].first < to && sealed.spans[at].next > from) {
                continue;
            }
            places.push(match &sealed.listing {
                Listing::Memory(index) => Place::Memory(sealed.source.clone(), Arc::clone(index)),
                Listing::File => Place::File(sealed.source.clone(), sealed.end),
            });
        }
        let known = self.sessions.get(&session).map(|known| known.streams.as_slice()).unwrap_or_default();
        if let (Some(active), Ok(at)) = (&self.active, known.binary_search_by_key(&stream, |known| known.stream)) {
            let open = known[at].open.iter().filter(|entry| entry.first < to && entry.next() > from);
            places.push(Place::Entries(active.clone(), open.copied().collect()));
        }
        places
    }

    /// Sessions that hold something, largest first.
    pub fn holders(&self) -> Vec<Holder> {
        let all = self.sessions.iter().map(|(session, known)| Holder { session: *session, bytes: known.bytes() });
        let mut holders: Vec<Holder> = all.filter(|holder| holder.bytes > 0).collect();
        holders.sort_unstable_by(|a, b| b.bytes.cmp(&a.bytes).then(a.session.cmp(&b.session)));
        holders
    }

    /// Number of segments with entries, the active one included.
    pub fn segments(&self) -> usize {
        self.sealed.len() + usize::from(self.active.is_some())
    }
}
