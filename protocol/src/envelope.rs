//! The 32 bytes in front of every payload, packed by hand so that any language can write them.
//!
//! | bytes | field |
//! |---|---|
//! | 0..4 | magic `TNDN` |
//! | 4 | protocol version |
//! | 5 | kind |
//! | 6..8 | flags, little endian |
//! | 8..10 | schema id of the payload |
//! | 10..12 | zero |
//! | 12..16 | stored length: bytes that follow the envelope |
//! | 16..20 | original length: bytes after decompression |
//! | 20..24 | CRC32C of bytes 0..20, bytes 24..32 and the stored payload |
//! | 24..32 | zero |

use std::fmt;

use thiserror::Error;

use crate::limit;

/// Bytes of an envelope.
pub const ENVELOPE_BYTES: usize = 32;
/// First bytes of every message.
pub const MAGIC: [u8; 4] = *b"TNDN";
/// The protocol version that this crate speaks.
pub const PROTOCOL_VERSION: u8 = 1;
/// Flag: the payload is one zstd frame.
pub const FLAG_ZSTD: u16 = 1;

/// What a message is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Kind {
    /// Producer to server, first message: who am I, what did I see acknowledged.
    Hello,
    /// Server to producer, the answer: where to resume.
    Welcome,
    /// Producer: what a stream carries.
    Declare,
    /// Producer: 1 to 256 samples of numbers.
    Batch,
    /// Producer: one picture or access unit.
    Media,
    /// Server: what is durable.
    Acknowledge,
    /// Server: slower, by how much and why.
    Throttle,
    /// Producer: an episode begins, pauses, ends. Server: a request for one.
    Mark,
    /// Producer: these samples will never come.
    Lost,
    /// Both: measures the offset of a clock.
    Probe,
    /// Both: orderly end of a connection.
    Goodbye,
    /// Both: something was refused.
    Error,
}

impl Kind {
    /// All kinds in the order of their codes.
    pub const ALL: [Self; 12] = [
        Self::Hello,
        Self::Welcome,
        Self::Declare,
        Self::Batch,
        Self::Media,
        Self::Acknowledge,
        Self::Throttle,
        Self::Mark,
        Self::Lost,
        Self::Probe,
        Self::Goodbye,
        Self::Error,
    ];

    /// The byte that stands for this kind on the wire.
    #[must_use]
    pub const fn code(self) -> u8 {
        match self {
            Self::Hello => 1,
            Self::Welcome => 2,
            Self::Declare => 3,
            Self::Batch => 4,
            Self::Media => 5,
            Self::Acknowledge => 6,
            Self::Throttle => 7,
            Self::Mark => 8,
            Self::Lost => 9,
            Self::Probe => 10,
            Self::Goodbye => 11,
            Self::Error => 12,
        }
    }

    fn from_code(code: u8) -> Option<Self> {
        Self::ALL.into_iter().find(|kind| kind.code() == code)
    }

    /// Id of the payload's layout: the kind, then the layout's own version.
    #[must_use]
    pub const fn schema(self) -> u16 {
        (self.code() as u16) << 8 | 1
    }

    /// Most bytes that a payload of this kind may have once decompressed.
    #[must_use]
    pub const fn payload_bytes_max(self) -> usize {
        match self {
            Self::Batch => limit::BATCH_BYTES_MAX,
            Self::Media => limit::PAYLOAD_BYTES_MAX,
            _ => limit::CONTROL_BYTES_MAX,
        }
    }
}

impl fmt::Display for Kind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{self:?}")
    }
}

/// Why bytes are not a message.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum EnvelopeError {
    /// Fewer bytes than an envelope has.
    #[error(
        "message of {got} bytes is shorter than its envelope of {ENVELOPE_BYTES}; send whole messages, one per WebSocket frame"
    )]
    Truncated {
        /// Bytes that came.
        got: usize,
    },
    /// The first four bytes are not ours.
    #[error("message begins with {got:02x?}, not with {MAGIC:02x?} (TNDN); is this a Tendon client?")]
    Magic {
        /// The bytes that came.
        got: [u8; 4],
    },
    /// Another protocol version.
    #[error(
        "protocol version {got} is not known; this side speaks {PROTOCOL_VERSION}, bring both sides to one release"
    )]
    Version {
        /// The version that came.
        got: u8,
    },
    /// A kind without meaning.
    #[error("message kind {got} is not known in protocol version {PROTOCOL_VERSION}")]
    UnknownKind {
        /// The code that came.
        got: u8,
    },
    /// Another layout of a known kind.
    #[error("schema {got:#06x} of {kind} is not known; this side reads {:#06x}", kind.schema())]
    Schema {
        /// What the message is.
        kind: Kind,
        /// The schema id that came.
        got: u16,
    },
    /// A flag bit without meaning, or bytes that must be zero are not.
    #[error("flags {flags:#06x} or reserved bytes of {kind} are not as version {PROTOCOL_VERSION} has them")]
    Reserved {
        /// What the message is.
        kind: Kind,
        /// The flags that came.
        flags: u16,
    },
    /// The stated lengths do not fit what came or the limit.
    #[error("{kind} states {stored} stored and {original} original bytes, {got} came, at most {max} are allowed")]
    Length {
        /// What the message is.
        kind: Kind,
        /// Stated length on the wire.
        stored: u32,
        /// Stated length after decompression.
        original: u32,
        /// Bytes behind the envelope.
        got: usize,
        /// The limit of this kind.
        max: usize,
    },
    /// The checksum does not match.
    #[error("checksum of {kind} is {found:#010x}, stated {stated:#010x}; the bytes were damaged on the way")]
    Checksum {
        /// What the message is.
        kind: Kind,
        /// Sum of the bytes that came.
        found: u32,
        /// Sum that the envelope states.
        stated: u32,
    },
    /// The payload is no zstd frame of the stated length.
    #[error("payload of {kind} does not decompress to its stated {original} bytes")]
    Compression {
        /// What the message is.
        kind: Kind,
        /// Stated length after decompression.
        original: u32,
    },
}

/// A checked envelope.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Envelope {
    /// What the message is.
    pub kind: Kind,
    /// Whether the stored payload is one zstd frame.
    pub compressed: bool,
    /// Bytes of the payload on the wire.
    pub stored_bytes: u32,
    /// Bytes of the payload after decompression.
    pub original_bytes: u32,
}

fn word(bytes: &[u8; ENVELOPE_BYTES], at: usize) -> u32 {
    u32::from_le_bytes([bytes[at], bytes[at + 1], bytes[at + 2], bytes[at + 3]])
}

fn checksum(head: &[u8; ENVELOPE_BYTES], stored: &[u8]) -> u32 {
    let sum = crc32c::crc32c(&head[..20]);
    let sum = crc32c::crc32c_append(sum, &head[24..]);
    crc32c::crc32c_append(sum, stored)
}

impl Envelope {
    /// Checks a whole message and gives its envelope and stored payload.
    ///
    /// # Errors
    /// Every field is checked, the checksum last.
    pub fn read(message: &[u8]) -> Result<(Self, &[u8]), EnvelopeError> {
        let Some((head, stored)) = message.split_first_chunk::<ENVELOPE_BYTES>() else {
            return Err(EnvelopeError::Truncated { got: message.len() });
        };
        let envelope = Self::read_head(head)?;
        let Self { kind, stored_bytes, original_bytes, .. } = envelope;
        if stored.len() != stored_bytes as usize {
            return Err(EnvelopeError::Length {
                kind,
                stored: stored_bytes,
                original: original_bytes,
                got: stored.len(),
                max: kind.payload_bytes_max(),
            });
        }
        let (found, stated) = (checksum(head, stored), word(head, 20));
        if found != stated {
            return Err(EnvelopeError::Checksum { kind, found, stated });
        }
        Ok((envelope, stored))
    }

    fn read_head(head: &[u8; ENVELOPE_BYTES]) -> Result<Self, EnvelopeError> {
        let magic = [head[0], head[1], head[2], head[3]];
        if magic != MAGIC {
            return Err(EnvelopeError::Magic { got: magic });
        }
        if head[4] != PROTOCOL_VERSION {
            return Err(EnvelopeError::Version { got: head[4] });
        }
        let kind = Kind::from_code(head[5]).ok_or(EnvelopeError::UnknownKind { got: head[5] })?;
        let flags = u16::from_le_bytes([head[6], head[7]]);
        let reserved = head[10..12].iter().chain(&head[24..]).any(|byte| *byte != 0);
        if flags & !FLAG_ZSTD != 0 || reserved {
            return Err(EnvelopeError::Reserved { kind, flags });
        }
        let schema = u16::from_le_bytes([head[8], head[9]]);
        if schema != kind.schema() {
            return Err(EnvelopeError::Schema { kind, got: schema });
        }
        let (stored_bytes, original_bytes) = (word(head, 12), word(head, 16));
        let compressed = flags & FLAG_ZSTD != 0;
        let max = kind.payload_bytes_max();
        let fits = original_bytes as usize <= max
            && stored_bytes as usize <= max
            && (compressed || stored_bytes == original_bytes);
        if !fits {
            return Err(EnvelopeError::Length {
                kind,
                stored: stored_bytes,
                original: original_bytes,
                got: stored_bytes as usize,
                max,
            });
        }
        Ok(Self { kind, compressed, stored_bytes, original_bytes })
    }

    /// The whole message: envelope, then `stored`.
    ///
    /// `stored` must be within the limit of its kind; longer payloads are refused by the reader.
    #[must_use]
    pub fn write(kind: Kind, stored: &[u8], original_bytes: usize, compressed: bool) -> Vec<u8> {
        let mut head = [0u8; ENVELOPE_BYTES];
        head[..4].copy_from_slice(&MAGIC);
        head[4] = PROTOCOL_VERSION;
        head[5] = kind.code();
        head[6..8].copy_from_slice(&u16::to_le_bytes(if compressed { FLAG_ZSTD } else { 0 }));
        head[8..10].copy_from_slice(&kind.schema().to_le_bytes());
        head[12..16].copy_from_slice(&length_field(stored.len()).to_le_bytes());
        head[16..20].copy_from_slice(&length_field(original_bytes).to_le_bytes());
        let sum = checksum(&head, stored);
        head[20..24].copy_from_slice(&sum.to_le_bytes());
        let mut message = Vec::with_capacity(ENVELOPE_BYTES + stored.len());
        message.extend_from_slice(&head);
        message.extend_from_slice(stored);
        message
    }
}

fn length_field(bytes: usize) -> u32 {
    u32::try_from(bytes).unwrap_or(u32::MAX)
}

/// CRC32C (Castagnoli) of bytes: the one sum that everything here is checked with.
#[must_use]
pub fn crc32c(bytes: &[u8]) -> u32 {
    crc32c::crc32c(bytes)
}

/// Continues a [`crc32c`] with more bytes.
#[must_use]
pub fn crc32c_append(sum: u32, bytes: &[u8]) -> u32 {
    crc32c::crc32c_append(sum, bytes)
}

/// Reused memory for decompression: one per worker, never one per connection.
pub struct Opener {
    context: zstd::bulk::Decompressor<'static>,
    buffer: Vec<u8>,
}

impl Default for Opener {
    fn default() -> Self {
        Self::new()
    }
}

impl Opener {
    /// An opener with empty buffers.
    ///
    /// # Panics
    /// When the zstd library cannot allocate its context.
    #[must_use]
    pub fn new() -> Self {
        let context = zstd::bulk::Decompressor::new().expect("zstd allocates a decompression context");
        Self { context, buffer: Vec::new() }
    }

    /// Checks a whole message and gives its kind and original payload.
    ///
    /// # Errors
    /// As [`Envelope::read`], and when the payload does not decompress to exactly its stated length.
    pub fn open<'a>(&'a mut self, message: &'a [u8]) -> Result<(Kind, &'a [u8]), EnvelopeError> {
        let (envelope, stored) = Envelope::read(message)?;
        let Envelope { kind, compressed, original_bytes, .. } = envelope;
        if !compressed {
            return Ok((kind, stored));
        }
        let original = original_bytes as usize;
        let failed = EnvelopeError::Compression { kind, original: original_bytes };
        // The buffer bounds the output: a frame that holds more than it states fails without allocating.
        self.buffer.resize(original, 0);
        match self.context.decompress_to_buffer(stored, &mut self.buffer[..]) {
            Ok(written) if written == original => Ok((kind, &self.buffer[..original])),
            Ok(_) | Err(_) => Err(failed),
        }
    }
}

/// Reused memory for compression: one per producer thread.
pub struct Sealer {
    context: zstd::bulk::Compressor<'static>,
}

impl Default for Sealer {
    fn default() -> Self {
        Self::new()
    }
}

impl Sealer {
    /// A sealer at the wire's compression level.
    ///
    /// # Panics
    /// When the zstd library cannot allocate its context.
    #[must_use]
    pub fn new() -> Self {
        let context = zstd::bulk::Compressor::new(limit::ZSTD_LEVEL).expect("zstd allocates a compression context");
        Self { context }
    }

    /// The whole message of a payload, compressed if that makes it shorter.
    #[must_use]
    pub fn seal_compressed(&mut self, kind: Kind, payload: &[u8]) -> Vec<u8> {
        match self.context.compress(payload) {
            Ok(stored) if stored.len() < payload.len() => Envelope::write(kind, &stored, payload.len(), true),
            Ok(_) | Err(_) => seal(kind, payload),
        }
    }
}

/// The whole message of a payload, as it is.
#[must_use]
pub fn seal(kind: Kind, payload: &[u8]) -> Vec<u8> {
    Envelope::write(kind, payload, payload.len(), false)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::collection::vec;
    use proptest::prelude::*;
    use proptest::sample::Index;

    proptest! {
        /// A whole message comes back; every proper prefix and every flipped bit is refused.
        #[test]
        fn a_message_is_taken_whole_or_not_at_all(payload in vec(any::<u8>(), 0..600), cut in any::<Index>(), bit in any::<Index>()) {
            let mut opener = Opener::new();
            let compressed = Sealer::new().seal_compressed(Kind::Batch, &payload);
            for message in [seal(Kind::Batch, &payload), compressed] {
                prop_assert_eq!(opener.open(&message), Ok((Kind::Batch, &payload[..])));
                prop_assert!(opener.open(&message[..cut.index(message.len())]).is_err());
                let mut damaged = message.clone();
                let bit = bit.index(message.len() * 8);
                damaged[bit / 8] ^= 1 << (bit % 8);
                prop_assert!(opener.open(&damaged).is_err());
            }
        }
    }

    #[test]
    fn a_frame_that_holds_more_than_it_states_is_refused() {
        let bomb = zstd::bulk::compress(&vec![0u8; 64 << 20], 3).expect("compresses");
        let message = Envelope::write(Kind::Batch, &bomb, 1000, true);
        assert_eq!(Opener::new().open(&message), Err(EnvelopeError::Compression { kind: Kind::Batch, original: 1000 }));
    }

    #[test]
    fn a_stated_length_over_the_limit_is_refused_before_the_checksum() {
        let message = Envelope::write(Kind::Hello, &[], limit::CONTROL_BYTES_MAX + 1, true);
        assert!(matches!(Envelope::read(&message), Err(EnvelopeError::Length { .. })));
    }

    #[test]
    fn another_version_and_an_unknown_kind_are_named() {
        let mut message = seal(Kind::Hello, b"x");
        message[4] = 9;
        assert_eq!(Envelope::read(&message), Err(EnvelopeError::Version { got: 9 }));
        message[4] = PROTOCOL_VERSION;
        message[5] = 77;
        assert_eq!(Envelope::read(&message), Err(EnvelopeError::UnknownKind { got: 77 }));
    }
}
