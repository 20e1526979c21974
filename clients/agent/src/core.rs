//! Everything an agent knows, behind one lock: open batches, the ledger, the shelf and the machine.
//!
//! Three sides call it, each for microseconds at a time: the application (`agent.rs`) brings samples, the reader and the
//! writer of the running connection (`uplink`) bring messages and take bytes, the housekeeper brings time.
//! [`keep`] numbers and encodes, [`link`] talks to the server, [`restore`] survives the process.

pub(crate) mod keep;
pub(crate) mod link;
pub(crate) mod renumber;
pub(crate) mod restore;
pub(crate) mod shelf;

use std::collections::{BTreeMap, VecDeque};
use std::time::{Duration, Instant};

use bytes::Bytes;
use tendon_protocol::control::{LostReason, MarkAction};
use tendon_protocol::id::{ProducerId, SessionId, StreamId};
use tendon_protocol::limit;
use tendon_protocol::stream::StreamDeclaration;
use tokio::sync::mpsc;

use crate::clock::Clock;
use crate::config::{AgentConfig, WhenFull};
use crate::core::keep::OpenBatch;
use crate::core::shelf::{Shelf, Stored};
use crate::error::AgentError;
use crate::ledger::Ledger;
use crate::spool::state::{ClockState, Shift, StateFile};
use crate::stats::{AckMs, Latencies, Stats};
use crate::uplink::machine::{Machine, Phase};

/// Streams that can be declared; the journal is one of the protocol's.
pub(crate) const STREAMS_MAX: usize = limit::STREAMS_MAX - 1;

/// A server's request for a mark, for the application to grant by `Agent::mark`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MarkRequest {
    /// What is asked for.
    pub action: MarkAction,
    /// Language instruction that comes with it; may be empty.
    pub instruction: String,
    /// The episode that the server means, if it said one.
    pub episode: u64,
}

/// How an agent stands.
#[derive(Clone, Debug)]
pub enum Status {
    /// No connection; samples go to the spool.
    Offline,
    /// Connected; samples from before the connection are still being sent.
    Replaying,
    /// Connected, and nothing old waits to be sent.
    Connected,
    /// Over, for this reason.
    Failed(AgentError),
    /// Closed in order.
    Closed,
}

/// A declared stream and its samples that have no number yet.
#[derive(Debug)]
pub(crate) struct Source {
    pub declaration: StreamDeclaration,
    /// Bytes of one sample; 0 for cameras.
    pub sample_bytes: usize,
    pub open: OpenBatch,
    /// Samples dropped behind the open batch because there was no room.
    pub dropped: u64,
    pub refused: Option<AgentError>,
}

/// Settings that are needed after the start.
#[derive(Clone, Debug)]
pub(crate) struct Settings {
    pub session: SessionId,
    pub producer: ProducerId,
    pub when_full: WhenFull,
    pub compress: bool,
    pub batch_samples: usize,
    pub linger: Duration,
    pub auto_marks: bool,
}

/// Counters that only grow.
#[derive(Debug, Default)]
pub(crate) struct Counters {
    pub sent: u64,
    pub acknowledged: u64,
    pub replayed: u64,
    pub lost: u64,
    pub refused: u64,
    pub waiting: u64,
    pub messages: u64,
    pub bytes: u64,
    pub connections: u64,
    pub throttled_ms: u64,
    pub throttles: u64,
    pub requests_dropped: u64,
    pub last_error: Option<String>,
    pub latencies: Latencies,
}

/// What goes to the socket ahead of samples.
#[derive(Debug)]
pub(crate) enum Control {
    /// A whole message.
    Message(Bytes),
    /// The answer to a server's question, completed as late as possible.
    Reply { id: u64, sent_ns: i64, received_ns: i64, wall_ns: i64 },
    /// Answer to a WebSocket ping.
    Pong(Bytes),
    /// A WebSocket ping of ours.
    Ping,
    /// A WebSocket close; nothing follows it.
    Close,
}

/// See the module.
#[derive(Debug)]
pub(crate) struct Core {
    pub settings: Settings,
    pub clock: Clock,
    pub started: Instant,
    pub sources: BTreeMap<StreamId, Source>,
    pub ledger: Ledger<Stored>,
    pub shelf: Shelf,
    pub machine: Machine,
    pub counters: Counters,
    pub control: VecDeque<Control>,
    /// Bytes in open batches.
    pub open_bytes: usize,
    pub failed: Option<AgentError>,
    /// Messages up to this order are replay.
    pub replay_until: u64,
    /// Longest payload that the server takes.
    pub payload_bytes_max: usize,
    /// The process before this one ended with messages in memory alone.
    pub unclean: bool,
    /// What the state file holds beside the ledger.
    pub shifts: Vec<Shift>,
    pub clocks: Vec<ClockState>,
    pub episode: u64,
    pub snapshots: u64,
    pub dirty: bool,
    /// Requests for the application; gone once the agent is over.
    pub requests: Option<mpsc::Sender<MarkRequest>>,
    /// The housekeeper has a deadline for open batches.
    pub armed: bool,
    /// How long the server said that it pauses, until it acknowledges again.
    pub patience: Duration,
    /// Stay away from the server until then.
    pub hold_until: Duration,
    /// The application stopped the agent.
    pub closed: bool,
    /// Where the state is written, with a spool folder.
    pub state_file: Option<std::sync::Arc<StateFile>>,
}

impl Core {
    pub fn now(&self) -> Duration {
        self.started.elapsed()
    }

    /// Fails once the agent is over.
    pub fn check_running(&self) -> Result<(), AgentError> {
        match &self.failed {
            Some(error) => Err(error.clone()),
            None if self.closed => Err(AgentError::Closed),
            None => Ok(()),
        }
    }

    /// Adds a stream. Gives whether it is new.
    pub fn declare(&mut self, declaration: StreamDeclaration) -> Result<bool, AgentError> {
        self.check_running()?;
        declaration.check()?;
        let stream = declaration.stream;
        if let Some(source) = self.sources.get(&stream) {
            return if source.declaration == declaration {
                Ok(false)
            } else {
                Err(AgentError::DeclarationChanged { stream })
            };
        }
        if self.sources.len() >= STREAMS_MAX {
            return Err(AgentError::TooManyStreams { got: self.sources.len() + 1, max: STREAMS_MAX });
        }
        if self.machine.phase() == Phase::Live {
            self.push_message(&tendon_protocol::message::Message::Declare(declaration.clone()));
        }
        self.add_source(declaration);
        if self.ledger.take_due(stream) {
            let (first, last) = self.ledger.skip(stream, 1);
            self.lose(stream, first, last, LostReason::Restart);
        }
        self.dirty = true;
        Ok(true)
    }

    pub fn add_source(&mut self, declaration: StreamDeclaration) {
        let camera = declaration.content.is_camera();
        let sample_bytes = if camera { 0 } else { declaration.width() as usize * declaration.dtype.size_bytes() };
        let source = Source { sample_bytes, open: OpenBatch::default(), dropped: 0, refused: None, declaration };
        self.sources.insert(source.declaration.stream, source);
    }

    pub fn status(&self) -> Status {
        if let Some(error) = &self.failed {
            return Status::Failed(error.clone());
        }
        match self.machine.phase() {
            Phase::Live if self.replaying() => Status::Replaying,
            Phase::Live | Phase::Leaving => Status::Connected,
            Phase::Closed => Status::Closed,
            Phase::Offline | Phase::Connecting | Phase::Greeting | Phase::Failed => {
                if self.closed {
                    Status::Closed
                } else {
                    Status::Offline
                }
            }
        }
    }

    pub fn next_sequence(&self, stream: StreamId) -> u64 {
        let open = self.sources.get(&stream).map_or(0, |source| source.open.count() + source.dropped);
        self.ledger.next(stream) + open
    }

    pub fn stats(&self) -> Stats {
        let counters = &self.counters;
        let dropped: u64 = self.sources.values().map(|source| source.dropped).sum();
        let quantile = |fraction| counters.latencies.quantile_ms(fraction);
        Stats {
            samples_sent: counters.sent,
            samples_acknowledged: counters.acknowledged,
            samples_replayed: counters.replayed,
            samples_lost: counters.lost + dropped,
            samples_refused: counters.refused,
            samples_waiting: counters.waiting,
            messages: counters.messages,
            bytes: counters.bytes,
            connections: counters.connections,
            throttled_ms: counters.throttled_ms,
            throttles: counters.throttles,
            requests_dropped: counters.requests_dropped,
            ack_ms: AckMs { p50: quantile(0.5), p99: quantile(0.99), p999: quantile(0.999) },
            spool_memory_bytes: (self.shelf.memory_bytes + self.open_bytes) as u64,
            spool_file_bytes: self.shelf.files.as_ref().map_or(0, crate::spool::files::SpoolFiles::bytes),
            last_error: counters.last_error.clone().or_else(|| self.shelf.error.clone()),
        }
    }
}

impl From<&AgentConfig> for Settings {
    fn from(config: &AgentConfig) -> Self {
        Self {
            session: config.session,
            producer: config.producer,
            when_full: config.when_full,
            compress: config.compress,
            batch_samples: config.batch_samples,
            linger: config.linger,
            auto_marks: config.auto_marks,
        }
    }
}

#[cfg(test)]
mod tests;
