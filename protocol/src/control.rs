//! Everything on the wire that is not a sample: greeting, marks, lost, probes, answers, farewell.

use rkyv::{Archive, Deserialize as RkyvDeserialize, Serialize as RkyvSerialize};
use serde::{Deserialize, Serialize};

use crate::id::{ClockId, ProducerId, SessionId, StreamId};
use crate::limit;
use crate::message::PayloadError;

/// Where one stream stands: every sequence below `next` is durable.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Position {
    /// The stream.
    pub stream: StreamId,
    /// First sequence that is not yet durable.
    pub next: u64,
}

/// The archived form of [`Position`].
#[derive(Archive, RkyvSerialize, RkyvDeserialize)]
pub struct PositionWire {
    pub(crate) next: u64,
    pub(crate) stream: u32,
}

fn positions_to_wire(positions: &[Position]) -> Vec<PositionWire> {
    positions.iter().map(|position| PositionWire { next: position.next, stream: position.stream.0 }).collect()
}

fn positions_from_wire(wire: &[ArchivedPositionWire]) -> Result<Vec<Position>, PayloadError> {
    if wire.len() > limit::STREAMS_MAX {
        return Err(PayloadError::TooManyStreams { got: wire.len() });
    }
    Ok(wire
        .iter()
        .map(|position| Position { stream: StreamId(position.stream.to_native()), next: position.next.to_native() })
        .collect())
}

/// Defines an enum that is one byte on the wire.
macro_rules! coded {
    ($(#[$doc:meta])* $name:ident, $field:literal { $($(#[$vdoc:meta])* $variant:ident = $code:literal),* $(,)? }) => {
        $(#[$doc])*
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
        #[serde(rename_all = "snake_case")]
        pub enum $name { $($(#[$vdoc])* $variant),* }
        impl $name {
            /// All values in the order of their codes.
            pub const ALL: &'static [Self] = &[$(Self::$variant),*];
            /// The byte that stands for this on the wire.
            #[must_use]
            pub const fn code(self) -> u8 { match self { $(Self::$variant => $code),* } }
            /// What `code` stands for.
            ///
            /// # Errors
            /// When it stands for nothing.
            pub const fn from_code(code: u8) -> Result<Self, PayloadError> {
                match code { $($code => Ok(Self::$variant),)* _ => Err(PayloadError::UnknownCode { field: $field, code }) }
            }
        }
    };
}

coded!(
    /// What a clock is.
    ClockKind, "clock kind" {
        /// The monotonic clock of one boot of a machine.
        Boot = 1,
        /// The monotonic clock of one page load.
        Page = 2,
        /// Times of a recording that is played again; they have no relation to now.
        Replay = 3,
    }
);
coded!(
    /// What happens to an episode.
    MarkAction, "mark action" {
        /// It begins.
        Start = 1,
        /// Samples from here on are left out, until `Resume`.
        Pause = 2,
        /// Samples count again.
        Resume = 3,
        /// It ends, and the task was done.
        StopSuccess = 4,
        /// It ends, and the task was not done.
        StopFailure = 5,
        /// It ends and is thrown away.
        Discard = 6,
    }
);
coded!(
    /// Why samples will never come.
    LostReason, "lost reason" {
        /// The producer was started again and no longer has them.
        Restart = 1,
        /// The spool was full.
        SpoolFull = 2,
        /// The page was loaded again.
        PageReload = 3,
        /// The producer says no more.
        Other = 4,
    }
);
coded!(
    /// Which of its parts a probe is.
    ProbeRole, "probe role" {
        /// Server to producer: what is your time?
        Request = 1,
        /// Producer to server: the answer.
        Reply = 2,
        /// Producer to server: this clock, perhaps of an earlier boot, stood so at that wall time.
        Anchor = 3,
    }
);
coded!(
    /// Which limit a producer ran into.
    ThrottleLimit, "throttle limit" {
        /// Messages per second of this connection.
        ConnectionMessages = 1,
        /// Bytes per second of this connection.
        ConnectionBytes = 2,
        /// Messages per second of the operator.
        OperatorMessages = 3,
        /// Bytes per second of the operator.
        OperatorBytes = 4,
        /// The log is full or cannot write.
        Storage = 5,
    }
);
coded!(
    /// Why a connection ends in order.
    GoodbyeReason, "goodbye reason" {
        /// The producer is done.
        Done = 1,
        /// The server stops; come back.
        ServerStops = 2,
        /// A newer connection of the same producer took over.
        Fenced = 3,
        /// The session has ended.
        SessionEnded = 4,
    }
);
coded!(
    /// What was refused.
    ErrorCode, "error code" {
        /// The bytes are no message, or not one that is allowed here.
        BadMessage = 1,
        /// No session has this id.
        UnknownSession = 2,
        /// The session is completed or failed.
        SessionEnded = 3,
        /// Another producer already feeds this session.
        SecondProducer = 4,
        /// The stream was not declared.
        StreamNotDeclared = 5,
        /// The declaration differs from the first one of this stream.
        DeclarationConflict = 6,
        /// Element type or width is not what was declared.
        WidthMismatch = 7,
        /// A sequence that is stored came again with other bytes.
        SequenceConflict = 8,
        /// A sequence beyond the next one; samples between are missing.
        SequenceGap = 9,
        /// The producer saw more acknowledged than the server has.
        AcknowledgedLost = 10,
        /// The token has no right to do this.
        Forbidden = 11,
        /// The server cannot store at present.
        Storage = 12,
        /// A mark does not fit the episode's state.
        BadMark = 13,
        /// A limit of the protocol was passed.
        TooLarge = 14,
    }
);

/// First message of a producer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Hello {
    /// The session to feed.
    pub session: SessionId,
    /// Who feeds it; the same over all connections of one producer.
    pub producer: ProducerId,
    /// The clock that samples are stamped with from now on.
    pub clock: ClockId,
    /// What that clock is.
    pub clock_kind: ClockKind,
    /// Now on that clock, in nanoseconds.
    pub time_ns: i64,
    /// Now on the producer's wall clock, unix nanoseconds; 0 when it has none.
    pub wall_ns: i64,
    /// Highest positions that the producer saw acknowledged.
    pub positions: Vec<Position>,
}

/// The archived form of [`Hello`].
#[derive(Archive, RkyvSerialize, RkyvDeserialize)]
pub struct HelloWire {
    pub(crate) session: [u8; 16],
    pub(crate) producer: [u8; 16],
    pub(crate) clock: [u8; 16],
    pub(crate) time_ns: i64,
    pub(crate) wall_ns: i64,
    pub(crate) clock_kind: u8,
    pub(crate) positions: Vec<PositionWire>,
}

impl Hello {
    pub(crate) fn to_wire(&self) -> HelloWire {
        HelloWire {
            session: self.session.0,
            producer: self.producer.0,
            clock: self.clock.0,
            time_ns: self.time_ns,
            wall_ns: self.wall_ns,
            clock_kind: self.clock_kind.code(),
            positions: positions_to_wire(&self.positions),
        }
    }
    pub(crate) fn from_wire(wire: &ArchivedHelloWire) -> Result<Self, PayloadError> {
        Ok(Self {
            session: SessionId(wire.session),
            producer: ProducerId(wire.producer),
            clock: ClockId(wire.clock),
            clock_kind: ClockKind::from_code(wire.clock_kind)?,
            time_ns: wire.time_ns.to_native(),
            wall_ns: wire.wall_ns.to_native(),
            positions: positions_from_wire(&wire.positions)?,
        })
    }
}

/// Answer to a hello: where to resume.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Welcome {
    /// The session.
    pub session: SessionId,
    /// Number of this connection of the producer; a higher one fences lower ones.
    pub epoch: u64,
    /// Now on the server's clock, unix nanoseconds.
    pub server_ns: i64,
    /// Longest payload that the server takes, in bytes.
    pub payload_bytes_max: u32,
    /// What is durable; send from here on.
    pub positions: Vec<Position>,
}

/// The archived form of [`Welcome`].
#[derive(Archive, RkyvSerialize, RkyvDeserialize)]
pub struct WelcomeWire {
    pub(crate) session: [u8; 16],
    pub(crate) epoch: u64,
    pub(crate) server_ns: i64,
    pub(crate) payload_bytes_max: u32,
    pub(crate) positions: Vec<PositionWire>,
}

impl Welcome {
    pub(crate) fn to_wire(&self) -> WelcomeWire {
        WelcomeWire {
            session: self.session.0,
            epoch: self.epoch,
            server_ns: self.server_ns,
            payload_bytes_max: self.payload_bytes_max,
            positions: positions_to_wire(&self.positions),
        }
    }
    pub(crate) fn from_wire(wire: &ArchivedWelcomeWire) -> Result<Self, PayloadError> {
        Ok(Self {
            session: SessionId(wire.session),
            epoch: wire.epoch.to_native(),
            server_ns: wire.server_ns.to_native(),
            payload_bytes_max: wire.payload_bytes_max.to_native(),
            positions: positions_from_wire(&wire.positions)?,
        })
    }
}

/// What is durable now.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Acknowledge {
    /// Streams that moved since the last acknowledgement.
    pub positions: Vec<Position>,
}

/// The archived form of [`Acknowledge`].
#[derive(Archive, RkyvSerialize, RkyvDeserialize)]
pub struct AcknowledgeWire {
    pub(crate) positions: Vec<PositionWire>,
}

impl Acknowledge {
    pub(crate) fn to_wire(&self) -> AcknowledgeWire {
        AcknowledgeWire { positions: positions_to_wire(&self.positions) }
    }
    pub(crate) fn from_wire(wire: &ArchivedAcknowledgeWire) -> Result<Self, PayloadError> {
        Ok(Self { positions: positions_from_wire(&wire.positions)? })
    }
}

fn text_from_wire(field: &'static str, bytes: &[u8]) -> Result<String, PayloadError> {
    let text = std::str::from_utf8(bytes).map_err(|_| PayloadError::NotUtf8 { field })?;
    if text.len() > limit::INSTRUCTION_BYTES_MAX {
        return Err(PayloadError::TextTooLong { field, got: text.len() });
    }
    Ok(text.to_owned())
}

/// The record lane is slowed; nothing is refused.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Throttle {
    /// How long the server waits before it reads on, in milliseconds.
    pub delay_ms: u32,
    /// Which limit.
    pub limit: ThrottleLimit,
    /// The limit and how to raise it.
    pub text: String,
}

/// The archived form of [`Throttle`].
#[derive(Archive, RkyvSerialize, RkyvDeserialize)]
pub struct ThrottleWire {
    pub(crate) delay_ms: u32,
    pub(crate) limit: u8,
    pub(crate) text: Vec<u8>,
}

impl Throttle {
    pub(crate) fn to_wire(&self) -> ThrottleWire {
        ThrottleWire { delay_ms: self.delay_ms, limit: self.limit.code(), text: self.text.clone().into_bytes() }
    }
    pub(crate) fn from_wire(wire: &ArchivedThrottleWire) -> Result<Self, PayloadError> {
        Ok(Self {
            delay_ms: wire.delay_ms.to_native(),
            limit: ThrottleLimit::from_code(wire.limit)?,
            text: text_from_wire("throttle text", &wire.text)?,
        })
    }
}

/// Something happens to an episode. From a producer it is the fact; from a server a request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Mark {
    /// Sequence number in the journal; ignored in a request.
    pub sequence: u64,
    /// The producer's running number of the episode; ignored in a request.
    pub episode: u64,
    /// What happens.
    pub action: MarkAction,
    /// Server to producer: please make this mark.
    pub request: bool,
    /// The clock of `time_ns`.
    pub clock: ClockId,
    /// When it happens, in nanoseconds on `clock`; ignored in a request.
    pub time_ns: i64,
    /// Language instruction; of `Start`, or of a stop that changes it. May be empty.
    pub instruction: String,
}

/// The archived form of [`Mark`].
#[derive(Archive, RkyvSerialize, RkyvDeserialize)]
pub struct MarkWire {
    pub(crate) sequence: u64,
    pub(crate) episode: u64,
    pub(crate) time_ns: i64,
    pub(crate) clock: [u8; 16],
    pub(crate) action: u8,
    pub(crate) request: u8,
    pub(crate) instruction: Vec<u8>,
}

impl Mark {
    pub(crate) fn to_wire(&self) -> MarkWire {
        MarkWire {
            sequence: self.sequence,
            episode: self.episode,
            time_ns: self.time_ns,
            clock: self.clock.0,
            action: self.action.code(),
            request: u8::from(self.request),
            instruction: self.instruction.clone().into_bytes(),
        }
    }
    pub(crate) fn from_wire(wire: &ArchivedMarkWire) -> Result<Self, PayloadError> {
        let request = match wire.request {
            0 => false,
            1 => true,
            code => return Err(PayloadError::UnknownCode { field: "request", code }),
        };
        if wire.sequence.to_native() == u64::MAX {
            return Err(PayloadError::SequenceOverflow { first: u64::MAX });
        }
        Ok(Self {
            sequence: wire.sequence.to_native(),
            episode: wire.episode.to_native(),
            action: MarkAction::from_code(wire.action)?,
            request,
            clock: ClockId(wire.clock),
            time_ns: wire.time_ns.to_native(),
            instruction: text_from_wire("instruction", &wire.instruction)?,
        })
    }
}

/// Samples that will never come: a hole that is declared, counted and never silent.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Lost {
    /// Sequence number in the journal.
    pub sequence: u64,
    /// The stream with the hole.
    pub stream: StreamId,
    /// First sequence that is lost.
    pub first: u64,
    /// Last sequence that is lost.
    pub last: u64,
    /// Why.
    pub reason: LostReason,
}

/// The archived form of [`Lost`].
#[derive(Archive, RkyvSerialize, RkyvDeserialize)]
pub struct LostWire {
    pub(crate) sequence: u64,
    pub(crate) first: u64,
    pub(crate) last: u64,
    pub(crate) stream: u32,
    pub(crate) reason: u8,
}

impl Lost {
    pub(crate) fn to_wire(&self) -> LostWire {
        LostWire {
            sequence: self.sequence,
            first: self.first,
            last: self.last,
            stream: self.stream.0,
            reason: self.reason.code(),
        }
    }
    pub(crate) fn from_wire(wire: &ArchivedLostWire) -> Result<Self, PayloadError> {
        let (first, last) = (wire.first.to_native(), wire.last.to_native());
        if first > last || last == u64::MAX || wire.sequence.to_native() == u64::MAX {
            return Err(PayloadError::SequenceOverflow { first });
        }
        Ok(Self {
            sequence: wire.sequence.to_native(),
            stream: StreamId(wire.stream.to_native()),
            first,
            last,
            reason: LostReason::from_code(wire.reason)?,
        })
    }
}

/// Measures how a producer's clock stands to the server's (RFC 5905, on-wire protocol).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Probe {
    /// Which part of the exchange.
    pub role: ProbeRole,
    /// Number of the exchange, chosen by the server.
    pub id: u64,
    /// The producer's clock.
    pub clock: ClockId,
    /// Server's monotonic nanoseconds when it asked; given back unchanged.
    pub sent_ns: i64,
    /// Producer's clock when the request came; in an anchor, the moment itself.
    pub received_ns: i64,
    /// Producer's clock when the reply left.
    pub replied_ns: i64,
    /// Producer's wall clock at `received_ns`, unix nanoseconds; 0 when it has none.
    pub wall_ns: i64,
}

/// The archived form of [`Probe`].
#[derive(Archive, RkyvSerialize, RkyvDeserialize)]
pub struct ProbeWire {
    pub(crate) id: u64,
    pub(crate) sent_ns: i64,
    pub(crate) received_ns: i64,
    pub(crate) replied_ns: i64,
    pub(crate) wall_ns: i64,
    pub(crate) clock: [u8; 16],
    pub(crate) role: u8,
}

impl Probe {
    pub(crate) fn to_wire(self) -> ProbeWire {
        ProbeWire {
            id: self.id,
            sent_ns: self.sent_ns,
            received_ns: self.received_ns,
            replied_ns: self.replied_ns,
            wall_ns: self.wall_ns,
            clock: self.clock.0,
            role: self.role.code(),
        }
    }
    pub(crate) fn from_wire(wire: &ArchivedProbeWire) -> Result<Self, PayloadError> {
        Ok(Self {
            role: ProbeRole::from_code(wire.role)?,
            id: wire.id.to_native(),
            clock: ClockId(wire.clock),
            sent_ns: wire.sent_ns.to_native(),
            received_ns: wire.received_ns.to_native(),
            replied_ns: wire.replied_ns.to_native(),
            wall_ns: wire.wall_ns.to_native(),
        })
    }
}

/// Orderly end of a connection.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Goodbye {
    /// Why.
    pub reason: GoodbyeReason,
    /// What to do next.
    pub text: String,
}

/// The archived form of [`Goodbye`].
#[derive(Archive, RkyvSerialize, RkyvDeserialize)]
pub struct GoodbyeWire {
    pub(crate) reason: u8,
    pub(crate) text: Vec<u8>,
}

impl Goodbye {
    pub(crate) fn to_wire(&self) -> GoodbyeWire {
        GoodbyeWire { reason: self.reason.code(), text: self.text.clone().into_bytes() }
    }
    pub(crate) fn from_wire(wire: &ArchivedGoodbyeWire) -> Result<Self, PayloadError> {
        Ok(Self { reason: GoodbyeReason::from_code(wire.reason)?, text: text_from_wire("goodbye text", &wire.text)? })
    }
}

/// Something was refused. The connection goes on unless a goodbye or close follows.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ErrorMessage {
    /// What was refused.
    pub code: ErrorCode,
    /// The stream it is about; 0 when it is about none.
    pub stream: StreamId,
    /// The sequence it is about; of a gap, the one to resume from.
    pub sequence: u64,
    /// What happened, with numbers, and what to do.
    pub text: String,
}

/// The archived form of [`ErrorMessage`].
#[derive(Archive, RkyvSerialize, RkyvDeserialize)]
pub struct ErrorWire {
    pub(crate) sequence: u64,
    pub(crate) stream: u32,
    pub(crate) code: u8,
    pub(crate) text: Vec<u8>,
}

impl ErrorMessage {
    pub(crate) fn to_wire(&self) -> ErrorWire {
        ErrorWire {
            sequence: self.sequence,
            stream: self.stream.0,
            code: self.code.code(),
            text: self.text.clone().into_bytes(),
        }
    }
    pub(crate) fn from_wire(wire: &ArchivedErrorWire) -> Result<Self, PayloadError> {
        Ok(Self {
            code: ErrorCode::from_code(wire.code)?,
            stream: StreamId(wire.stream.to_native()),
            sequence: wire.sequence.to_native(),
            text: text_from_wire("error text", &wire.text)?,
        })
    }
}
