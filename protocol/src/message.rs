//! Whole messages: from bytes to a checked view, from a message to bytes.

use rkyv::api::high::{HighSerializer, HighValidator};
use rkyv::bytecheck::CheckBytes;
use rkyv::rancor;
use rkyv::ser::allocator::ArenaHandle;
use rkyv::util::AlignedVec;
use thiserror::Error;

use crate::batch::{ArchivedBatchWire, ArchivedMediaWire, Batch, BatchView, Media, MediaView};
use crate::control::{
    Acknowledge, ArchivedAcknowledgeWire, ArchivedErrorWire, ArchivedGoodbyeWire, ArchivedHelloWire, ArchivedLostWire,
    ArchivedMarkWire, ArchivedProbeWire, ArchivedThrottleWire, ArchivedWelcomeWire, ErrorMessage, Goodbye, Hello, Lost,
    Mark, Probe, Throttle, Welcome,
};
use crate::envelope::{EnvelopeError, Kind, Opener, Sealer, seal};
use crate::limit;
use crate::stream::{ArchivedDeclareWire, StreamDeclaration};

/// Why a payload is refused although its envelope is whole.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum PayloadError {
    /// The archive's own check failed.
    #[error("payload of {kind} is not a valid archive of schema {:#06x}; encode it byte by byte as docs/wire.md says", kind.schema())]
    Archive {
        /// What the message is.
        kind: Kind,
    },
    /// Bytes before or after the archive.
    #[error("payload of {kind} has {got} bytes, its content takes {expected}; nothing may lie before or behind it")]
    Stray {
        /// What the message is.
        kind: Kind,
        /// Bytes that came.
        got: usize,
        /// Bytes that the content takes.
        expected: usize,
    },
    /// A code without meaning.
    #[error("{field} {code} is not known")]
    UnknownCode {
        /// Which field.
        field: &'static str,
        /// The code that came.
        code: u8,
    },
    /// A content code that is kept for later.
    #[error("content {code} is reserved for depth cameras and not taken yet; send JPEG, H.264 or AV1")]
    ReservedForDepth {
        /// The code that came.
        code: u8,
    },
    /// A text is not UTF-8.
    #[error("{field} is not UTF-8")]
    NotUtf8 {
        /// Which field.
        field: &'static str,
    },
    /// A text is too long.
    #[error("{field} has {got} bytes, at most {} are allowed", limit::INSTRUCTION_BYTES_MAX)]
    TextTooLong {
        /// Which field.
        field: &'static str,
        /// Bytes that came.
        got: usize,
    },
    /// A declaration breaks a rule.
    #[error("declaration of stream {stream}: {what}")]
    Declaration {
        /// The stream.
        stream: u32,
        /// The rule, with numbers.
        what: String,
    },
    /// Too few or too many samples.
    #[error("batch of {got} samples; send 1 to {}", limit::SAMPLES_MAX)]
    SampleCount {
        /// Samples that came.
        got: usize,
    },
    /// A width that cannot be.
    #[error("samples of stream {stream} have {got} elements, {declared} are allowed")]
    Width {
        /// The stream.
        stream: u32,
        /// Elements that came.
        got: u32,
        /// Elements that are allowed.
        declared: u32,
    },
    /// The body does not hold what the head says.
    #[error("body of {got} bytes, its head asks for {expected}")]
    BodyLength {
        /// Bytes that came.
        got: usize,
        /// Bytes that the head asks for.
        expected: usize,
    },
    /// Sequence numbers would pass their last value.
    #[error("sequence numbers from {first} on do not fit 64 bits or run backwards")]
    SequenceOverflow {
        /// The first of them.
        first: u64,
    },
    /// More streams than a session may have.
    #[error("{got} streams; at most {}", limit::STREAMS_MAX)]
    TooManyStreams {
        /// Streams that came.
        got: usize,
    },
}

/// Why a message is refused.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum MessageError {
    /// The envelope.
    #[error(transparent)]
    Envelope(#[from] EnvelopeError),
    /// The payload.
    #[error(transparent)]
    Payload(#[from] PayloadError),
}

/// A message that owns its bytes.
#[derive(Clone, Debug, PartialEq)]
#[expect(missing_docs, reason = "each variant holds the type of its name, documented there")]
pub enum Message {
    Hello(Hello),
    Welcome(Welcome),
    Declare(StreamDeclaration),
    Batch(Batch),
    Media(Media),
    Acknowledge(Acknowledge),
    Throttle(Throttle),
    Mark(Mark),
    Lost(Lost),
    Probe(Probe),
    Goodbye(Goodbye),
    Error(ErrorMessage),
}

/// A checked message; samples still lie in the buffer they came in.
#[expect(missing_docs, reason = "each variant holds the type of its name, documented there")]
pub enum View<'a> {
    Hello(Hello),
    Welcome(Welcome),
    Declare(StreamDeclaration),
    Batch(BatchView<'a>),
    Media(MediaView<'a>),
    Acknowledge(Acknowledge),
    Throttle(Throttle),
    Mark(Mark),
    Lost(Lost),
    Probe(Probe),
    Goodbye(Goodbye),
    Error(ErrorMessage),
}

fn access<'a, T>(kind: Kind, payload: &'a [u8]) -> Result<&'a T, PayloadError>
where
    T: rkyv::Portable + for<'c> CheckBytes<HighValidator<'c, rancor::Error>>,
{
    rkyv::access::<T, rancor::Error>(payload).map_err(|_| PayloadError::Archive { kind })
}

/// The check of an archive accepts bytes in front of it; we do not.
fn exact<T>(kind: Kind, payload: &[u8], vector_bytes: usize) -> Result<(), PayloadError> {
    let expected = std::mem::size_of::<T>() + vector_bytes;
    if payload.len() == expected {
        return Ok(());
    }
    Err(PayloadError::Stray { kind, got: payload.len(), expected })
}

impl<'a> View<'a> {
    /// Opens and checks a whole message.
    ///
    /// # Errors
    /// When the envelope, the archive or a field is not as it must be.
    pub fn open(opener: &'a mut Opener, message: &'a [u8]) -> Result<Self, MessageError> {
        let (kind, payload) = opener.open(message)?;
        Ok(Self::from_payload(kind, payload)?)
    }

    /// Checks an uncompressed payload.
    ///
    /// # Errors
    /// When the archive or a field is not as it must be.
    pub fn from_payload(kind: Kind, payload: &'a [u8]) -> Result<Self, PayloadError> {
        const POSITION_BYTES: usize = std::mem::size_of::<crate::control::ArchivedPositionWire>();
        macro_rules! checked {
            ($wire:ty, $vector:expr) => {{
                let wire = access::<$wire>(kind, payload)?;
                let vector_bytes: fn(&$wire) -> usize = $vector;
                exact::<$wire>(kind, payload, vector_bytes(wire))?;
                wire
            }};
        }
        Ok(match kind {
            Kind::Hello => {
                Self::Hello(Hello::from_wire(checked!(ArchivedHelloWire, |w| w.positions.len() * POSITION_BYTES))?)
            }
            Kind::Welcome => Self::Welcome(Welcome::from_wire(
                checked!(ArchivedWelcomeWire, |w| w.positions.len() * POSITION_BYTES)
            )?),
            Kind::Declare => {
                Self::Declare(StreamDeclaration::from_wire(checked!(ArchivedDeclareWire, |w| w.text.len()))?)
            }
            Kind::Batch => Self::Batch(BatchView::from_wire(checked!(ArchivedBatchWire, |w| w.body.len()))?),
            Kind::Media => Self::Media(MediaView::from_wire(checked!(ArchivedMediaWire, |w| w.data.len()))?),
            Kind::Acknowledge => Self::Acknowledge(Acknowledge::from_wire(checked!(ArchivedAcknowledgeWire, |w| w
                .positions
                .len()
                * POSITION_BYTES))?),
            Kind::Throttle => Self::Throttle(Throttle::from_wire(checked!(ArchivedThrottleWire, |w| w.text.len()))?),
            Kind::Mark => Self::Mark(Mark::from_wire(checked!(ArchivedMarkWire, |w| w.instruction.len()))?),
            Kind::Lost => Self::Lost(Lost::from_wire(checked!(ArchivedLostWire, |_| 0))?),
            Kind::Probe => Self::Probe(Probe::from_wire(checked!(ArchivedProbeWire, |_| 0))?),
            Kind::Goodbye => Self::Goodbye(Goodbye::from_wire(checked!(ArchivedGoodbyeWire, |w| w.text.len()))?),
            Kind::Error => Self::Error(ErrorMessage::from_wire(checked!(ArchivedErrorWire, |w| w.text.len()))?),
        })
    }

    /// A copy that owns its bytes.
    #[must_use]
    pub fn into_message(self) -> Message {
        match self {
            Self::Hello(it) => Message::Hello(it),
            Self::Welcome(it) => Message::Welcome(it),
            Self::Declare(it) => Message::Declare(it),
            Self::Batch(it) => Message::Batch(it.to_batch()),
            Self::Media(it) => Message::Media(it.to_media()),
            Self::Acknowledge(it) => Message::Acknowledge(it),
            Self::Throttle(it) => Message::Throttle(it),
            Self::Mark(it) => Message::Mark(it),
            Self::Lost(it) => Message::Lost(it),
            Self::Probe(it) => Message::Probe(it),
            Self::Goodbye(it) => Message::Goodbye(it),
            Self::Error(it) => Message::Error(it),
        }
    }
}

fn archive<T>(wire: &T) -> AlignedVec
where
    T: for<'a> rkyv::Serialize<HighSerializer<AlignedVec, ArenaHandle<'a>, rancor::Error>>,
{
    rkyv::to_bytes::<rancor::Error>(wire).expect("archiving plain data into memory cannot fail")
}

impl Message {
    /// What the message is.
    #[must_use]
    pub const fn kind(&self) -> Kind {
        match self {
            Self::Hello(_) => Kind::Hello,
            Self::Welcome(_) => Kind::Welcome,
            Self::Declare(_) => Kind::Declare,
            Self::Batch(_) => Kind::Batch,
            Self::Media(_) => Kind::Media,
            Self::Acknowledge(_) => Kind::Acknowledge,
            Self::Throttle(_) => Kind::Throttle,
            Self::Mark(_) => Kind::Mark,
            Self::Lost(_) => Kind::Lost,
            Self::Probe(_) => Kind::Probe,
            Self::Goodbye(_) => Kind::Goodbye,
            Self::Error(_) => Kind::Error,
        }
    }

    /// The payload without its envelope.
    #[must_use]
    pub fn to_payload(&self) -> AlignedVec {
        match self {
            Self::Hello(it) => archive(&it.to_wire()),
            Self::Welcome(it) => archive(&it.to_wire()),
            Self::Declare(it) => archive(&it.to_wire()),
            Self::Batch(it) => archive(&it.to_wire()),
            Self::Media(it) => archive(&it.to_wire()),
            Self::Acknowledge(it) => archive(&it.to_wire()),
            Self::Throttle(it) => archive(&it.to_wire()),
            Self::Mark(it) => archive(&it.to_wire()),
            Self::Lost(it) => archive(&it.to_wire()),
            Self::Probe(it) => archive(&it.to_wire()),
            Self::Goodbye(it) => archive(&it.to_wire()),
            Self::Error(it) => archive(&it.to_wire()),
        }
    }

    /// The whole message as bytes, uncompressed.
    #[must_use]
    pub fn encode(&self) -> Vec<u8> {
        seal(self.kind(), &self.to_payload())
    }

    /// The whole message as bytes; batches of 16 samples and more are compressed.
    #[must_use]
    pub fn encode_with(&self, sealer: &mut Sealer) -> Vec<u8> {
        match self {
            Self::Batch(batch) if batch.count() >= limit::COMPRESS_FROM_SAMPLES => {
                sealer.seal_compressed(Kind::Batch, &self.to_payload())
            }
            _ => self.encode(),
        }
    }

    /// Reads a whole message.
    ///
    /// # Errors
    /// As [`View::open`].
    pub fn decode(message: &[u8]) -> Result<Self, MessageError> {
        Ok(View::open(&mut Opener::new(), message)?.into_message())
    }
}

/// Opens any bytes as a message, for fuzzing: never panics, and what is accepted is encoded to the same content.
pub fn fuzz_message(bytes: &[u8]) {
    if let Ok(message) = Message::decode(bytes) {
        let again = Message::decode(&message.encode());
        assert!(again.is_ok(), "an accepted message is refused once encoded again: {again:?}");
    }
}

/// Takes the first byte as a kind and the rest as its payload, for fuzzing past the checksum.
pub fn fuzz_payload(bytes: &[u8]) {
    let Some((kind, payload)) = bytes.split_first() else {
        return;
    };
    let kind = Kind::ALL[usize::from(*kind) % Kind::ALL.len()];
    if let Ok(view) = View::from_payload(kind, payload) {
        fuzz_message(&view.into_message().encode());
    }
}
