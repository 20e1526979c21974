//! What a session's actor is told, and by whom: [`Attach`], [`Ingest`], [`Detach`], [`ClockNews`],
//! [`TellProducer`] and [`TellThrottle`] come from a connection, the others from the fleet.

use std::sync::Arc;

use actix::prelude::*;
use bytes::Bytes;
use tendon_protocol::control::{ErrorMessage, Hello, MarkAction, Position, Throttle};
use tendon_protocol::id::ClockId;
use tendon_protocol::message::Message as Wire;
use tendon_protocol::stream::StreamDeclaration;
use tendon_storage::records::SessionRecord;
use tokio::sync::{Semaphore, mpsc};

use super::machine::{JournalEntry, SampleHead};
use crate::api::{End, Live, Refusal};
use crate::board::{AckBoard, Permits};

/// Something for the producer.
#[derive(Debug)]
pub enum Outgoing {
    /// A message.
    Message(Box<Wire>),
    /// Send what is queued, then close the socket.
    Close,
}

/// The way to one connection's socket.
pub type Outbox = mpsc::Sender<Outgoing>;

/// A producer has said hello.
#[derive(Message)]
#[rtype(result = "Result<Attached, ErrorMessage>")]
pub struct Attach {
    /// Its hello.
    pub hello: Hello,
    /// The way to its socket.
    pub outbox: Outbox,
}

/// What a connection needs to feed a session.
pub struct Attached {
    /// Number of this connection.
    pub epoch: u64,
    /// Where to resume.
    pub positions: Vec<Position>,
    /// What is durable.
    pub board: Arc<AckBoard>,
    /// Byte permits of the session.
    pub permits: Arc<Semaphore>,
    /// Who drives; limits are kept per operator.
    pub operator: String,
}

/// Messages of one connection, in order.
#[derive(Message)]
#[rtype(result = "()")]
pub struct Ingest {
    /// The connection.
    pub epoch: u64,
    /// The messages.
    pub items: Vec<Item>,
    /// Byte permits of them all.
    pub permits: Arc<Permits>,
}

/// One checked message.
pub enum Item {
    /// Samples, with the whole message as it came.
    Samples(SampleHead, Bytes),
    /// A mark or lost message, with the whole message as it came.
    Journal(Box<JournalEntry>, Bytes),
    /// A declaration.
    Declare(Box<StreamDeclaration>),
}

/// A connection is gone.
#[derive(Message)]
#[rtype(result = "()")]
pub struct Detach {
    /// The connection.
    pub epoch: u64,
    /// Whether the producer said that it is done.
    pub done: bool,
}

/// A measurement of, or a word on, a producer's clock.
#[derive(Message)]
#[rtype(result = "()")]
pub struct ClockNews {
    /// The clock.
    pub clock: ClockId,
    /// `boot`, `page` or `replay`.
    pub kind: String,
    /// Server's time, clock's time, round trip: of a probe.
    pub probe: Option<(i64, i64, i64)>,
    /// Clock's time, wall time: of an anchor.
    pub anchor: Option<(i64, i64)>,
}

/// Somebody asks the producer for a mark.
#[derive(Message)]
#[rtype(result = "Result<(), Refusal>")]
pub struct RequestMark {
    /// What should happen.
    pub action: MarkAction,
    /// Language instruction.
    pub instruction: String,
}

/// Somebody ends the session.
#[derive(Message)]
#[rtype(result = "Result<SessionRecord, Refusal>")]
pub struct EndSession(pub End);

/// How does the session stand?
#[derive(Message)]
#[rtype(result = "Option<Live>")]
pub struct AskLive;

/// The server stops: say goodbye, take nothing more, answer when all is durable and saved.
#[derive(Message)]
#[rtype(result = "()")]
pub struct Drain;

/// The log's writer thread has news.
#[derive(Message)]
#[rtype(result = "()")]
pub(super) struct Woken;

/// A connection found something wrong and closes; the producer should know why.
#[derive(Message)]
#[rtype(result = "()")]
pub struct TellProducer {
    /// The connection.
    pub epoch: u64,
    /// What is wrong.
    pub error: ErrorMessage,
}

/// A connection rests; the producer should know for how long.
#[derive(Message)]
#[rtype(result = "()")]
pub struct TellThrottle {
    /// The connection.
    pub epoch: u64,
    /// For how long and why.
    pub throttle: Throttle,
}
