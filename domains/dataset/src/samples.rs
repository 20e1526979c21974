//! Samples of streams, gathered from stored messages and cut to an episode.
//!
//! [`Gatherer`] takes whole messages as they lie in the log, in any order and with overlaps, and
//! gives [`StreamSamples`]: each sequence once, in order. [`cut`](cut::cut) leaves what was captured
//! inside a [`Window`](cut::Window). [`crate::rows`] and [`crate::report`] go on from there.

pub mod cut;
mod order;
#[cfg(test)]
mod tests;

use std::collections::BTreeMap;

use bytes::Bytes;
use tendon_protocol::batch::{BatchView, MediaView, flag, is_finite};
use tendon_protocol::control::Lost;
use tendon_protocol::envelope::{Kind, Opener};
use tendon_protocol::id::{ClockId, StreamId};
use tendon_protocol::message::{MessageError, View};
use tendon_protocol::stream::{Content, StreamDeclaration};
use thiserror::Error;

use crate::jpeg;

/// Most clocks of one stream; a producer that changes its clock with every sample is broken.
const CLOCKS_MAX: usize = 4096;

/// Why a stored message or declaration cannot be used.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum GatherError {
    /// The bytes are not what was stored.
    #[error("stored message does not open: {0}")]
    Message(#[from] MessageError),
    /// A kind of message that is never stored with samples.
    #[error("{kind} is no sample, mark or loss; give stored record messages only")]
    NotASample {
        /// What the message is.
        kind: Kind,
    },
    /// Samples of a stream nobody declared.
    #[error("stream {stream} was not declared")]
    NotDeclared {
        /// The stream.
        stream: StreamId,
    },
    /// Two declarations of one stream.
    #[error("stream {stream} is declared twice, as {first:?} and {second:?}")]
    DeclaredTwice {
        /// The stream.
        stream: StreamId,
        /// Feature of the first declaration.
        first: String,
        /// Feature of the second.
        second: String,
    },
    /// Samples are not what was declared.
    #[error("samples from {first} of stream {stream} ({feature}) are {got}; declared is {declared}")]
    OtherShape {
        /// The stream.
        stream: StreamId,
        /// Its feature.
        feature: String,
        /// First sequence of the message.
        first: u64,
        /// What came.
        got: String,
        /// What was declared.
        declared: String,
    },
    /// More clocks than any producer has.
    #[error("samples of stream {stream} name more than {CLOCKS_MAX} clocks; cut the episode from a shorter time")]
    TooManyClocks {
        /// The stream.
        stream: StreamId,
    },
}

/// One picture or coded unit.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MediaSample {
    /// Sequence number in its stream.
    pub sequence: u64,
    /// Capture time on the clock it was stamped with, in nanoseconds.
    pub capture_ns: i64,
    /// Picture or unit, unchanged: a slice of the message it came in.
    pub data: Bytes,
    /// Flags as sent, and [`flag::UNDECODABLE`].
    pub flags: u8,
    /// Width and height in pixels; known of JPEGs that decode.
    pub size: Option<(u32, u32)>,
}

/// The samples of one stream. The vectors run in parallel: entry `i` of each is sample `i`.
#[derive(Clone, Debug, PartialEq)]
pub struct StreamSamples {
    /// What the stream carries.
    pub declaration: StreamDeclaration,
    /// Clocks that samples are stamped with; `clock` holds places in here.
    pub clocks: Vec<ClockId>,
    /// Sequence numbers, rising.
    pub sequences: Vec<u64>,
    /// Capture times in nanoseconds, each on its own clock.
    pub capture_ns: Vec<i64>,
    /// Which of `clocks` each sample is stamped with.
    pub clock: Vec<u16>,
    /// Flags as sent, and [`flag::NOT_FINITE`] and [`flag::UNDECODABLE`].
    pub flags: Vec<u8>,
    /// Numbers, sample by sample, little endian; empty for cameras.
    pub values: Vec<u8>,
    /// Pictures; empty for numbers.
    pub media: Vec<MediaSample>,
    /// Configuration records of coded cameras, by sequence; no samples of their own.
    pub configs: Vec<MediaSample>,
    /// Losses that the producer declared, by first sequence.
    pub lost: Vec<Lost>,
    /// Sequences (first, last) between samples that are neither here nor declared lost.
    pub holes: Vec<(u64, u64)>,
    /// Samples that came again with the same bytes and were removed.
    pub duplicates: u64,
    /// Sequences that came again with other bytes; the first that was given is kept.
    pub conflicts: Vec<u64>,
    /// Samples captured before their predecessor on the same clock. Not counted for H.264 and AV1, whose
    /// units come in the order of decoding.
    pub time_backwards: u64,
}

impl StreamSamples {
    /// A stream without samples.
    #[must_use]
    pub fn empty(declaration: StreamDeclaration) -> Self {
        Self {
            declaration,
            clocks: Vec::new(),
            sequences: Vec::new(),
            capture_ns: Vec::new(),
            clock: Vec::new(),
            flags: Vec::new(),
            values: Vec::new(),
            media: Vec::new(),
            configs: Vec::new(),
            lost: Vec::new(),
            holes: Vec::new(),
            duplicates: 0,
            conflicts: Vec::new(),
            time_backwards: 0,
        }
    }

    /// Number of samples.
    #[must_use]
    pub fn count(&self) -> usize {
        self.sequences.len()
    }

    /// Bytes of the numbers of one sample; 0 for cameras.
    #[must_use]
    pub fn sample_bytes(&self) -> usize {
        match self.declaration.content {
            Content::Values => self.declaration.width() as usize * self.declaration.dtype.size_bytes(),
            Content::Jpeg | Content::H264 | Content::Av1 => 0,
        }
    }

    /// The clock of sample `index`.
    #[must_use]
    pub fn clock_of(&self, index: usize) -> ClockId {
        self.clocks[usize::from(self.clock[index])]
    }

    /// Whether units depend on one another, so that none can be left out.
    #[must_use]
    pub const fn is_coded(&self) -> bool {
        matches!(self.declaration.content, Content::H264 | Content::Av1)
    }

    fn place_of(&mut self, clock: ClockId) -> Result<u16, GatherError> {
        // Almost always the clock of the sample before.
        let place = match self.clocks.iter().rposition(|known| *known == clock) {
            Some(place) => place,
            None if self.clocks.len() >= CLOCKS_MAX => {
                return Err(GatherError::TooManyClocks { stream: self.declaration.stream });
            }
            None => {
                self.clocks.push(clock);
                self.clocks.len() - 1
            }
        };
        u16::try_from(place).map_err(|_| GatherError::TooManyClocks { stream: self.declaration.stream })
    }

    fn add_batch(&mut self, batch: BatchView<'_>) -> Result<(), GatherError> {
        let StreamDeclaration { stream, content, dtype, .. } = self.declaration;
        let width = self.declaration.width();
        if content.is_camera() || batch.dtype() != dtype || batch.width() != width {
            return Err(self.other_shape(stream, batch.first(), format!("{} x {:?}", batch.width(), batch.dtype())));
        }
        let place = self.place_of(batch.clock())?;
        let count = batch.count();
        self.sequences.extend(batch.first()..batch.first() + count as u64);
        self.capture_ns.extend(batch.times_ns());
        self.clock.extend(std::iter::repeat_n(place, count));
        let samples = batch.values().chunks_exact(batch.sample_bytes());
        self.flags.extend(batch.flags().iter().zip(samples).map(|(flags, sample)| match is_finite(dtype, sample) {
            true => *flags,
            false => *flags | flag::NOT_FINITE,
        }));
        self.values.extend_from_slice(batch.values());
        Ok(())
    }

    fn add_media(&mut self, media: MediaView<'_>, message: &Bytes, keep: Pictures) -> Result<(), GatherError> {
        let StreamDeclaration { stream, content, .. } = self.declaration;
        if media.content() != content {
            return Err(self.other_shape(stream, media.sequence(), format!("{:?}", media.content())));
        }
        let mut sample = MediaSample {
            sequence: media.sequence(),
            capture_ns: media.time_ns(),
            data: slice_of(message, media.data()),
            flags: media.flags(),
            size: None,
        };
        if sample.flags & flag::CONFIG != 0 {
            self.configs.push(sample);
            return Ok(());
        }
        if matches!(content, Content::Jpeg) {
            match jpeg::probe(&sample.data) {
                Ok(size) => sample.size = Some(size),
                Err(_) => sample.flags |= flag::UNDECODABLE,
            }
        }
        if keep == Pictures::Digests {
            sample.data = digest(media.data());
        }
        let place = self.place_of(media.clock())?;
        self.sequences.push(sample.sequence);
        self.capture_ns.push(sample.capture_ns);
        self.clock.push(place);
        self.flags.push(sample.flags);
        self.media.push(sample);
        Ok(())
    }

    fn other_shape(&self, stream: StreamId, first: u64, got: String) -> GatherError {
        let StreamDeclaration { feature, content, dtype, .. } = &self.declaration;
        let declared = match content {
            Content::Values => format!("{} x {dtype:?}", self.declaration.width()),
            Content::Jpeg | Content::H264 | Content::Av1 => format!("{content:?}"),
        };
        GatherError::OtherShape { stream, feature: feature.clone(), first, got, declared }
    }
}

/// Length and CRC32C of a picture, in its place.
fn digest(data: &[u8]) -> Bytes {
    let sum = tendon_protocol::envelope::crc32c(data).to_le_bytes();
    Bytes::from([&(data.len() as u64).to_le_bytes()[..], &sum[..]].concat())
}

/// The part of `message` that `data` is, without copying where it lies in it.
fn slice_of(message: &Bytes, data: &[u8]) -> Bytes {
    // A compressed message was opened into another buffer.
    let start = (data.as_ptr() as usize).checked_sub(message.as_ptr() as usize);
    match start {
        Some(start) if start + data.len() <= message.len() => message.slice(start..start + data.len()),
        _ => Bytes::copy_from_slice(data),
    }
}

/// Takes stored messages and gives the samples of each stream.
pub struct Gatherer {
    streams: BTreeMap<StreamId, StreamSamples>,
    /// By journal sequence, so that a loss that was replayed counts once.
    lost: BTreeMap<u64, Lost>,
    opener: Opener,
    keep: Pictures,
}

/// What a gatherer keeps of pictures.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Pictures {
    /// All of them.
    Whole,
    /// Their length and checksum: enough to measure rates and to tell two of them apart.
    Digests,
}

impl Gatherer {
    /// A gatherer of these streams.
    ///
    /// # Errors
    /// When a stream is declared twice.
    pub fn new(declarations: impl IntoIterator<Item = StreamDeclaration>) -> Result<Self, GatherError> {
        let mut streams = BTreeMap::new();
        for declaration in declarations {
            let (stream, second) = (declaration.stream, declaration.feature.clone());
            if let Some(first) = streams.insert(stream, StreamSamples::empty(declaration)) {
                return Err(GatherError::DeclaredTwice { stream, first: first.declaration.feature, second });
            }
        }
        Ok(Self { streams, lost: BTreeMap::new(), opener: Opener::new(), keep: Pictures::Whole })
    }

    /// A gatherer that keeps no pictures, only what a report needs of them: an hour of cameras is gigabytes.
    ///
    /// # Errors
    /// When a stream is declared twice.
    pub fn for_measuring(declarations: impl IntoIterator<Item = StreamDeclaration>) -> Result<Self, GatherError> {
        Ok(Self { keep: Pictures::Digests, ..Self::new(declarations)? })
    }

    /// Takes one stored message, envelope included: samples, marks (which say nothing here) and losses.
    /// Coded cameras need the messages from the last key unit before the episode on, and the
    /// configuration record, wherever it was sent.
    ///
    /// # Errors
    /// When the message is none of these or does not fit its declaration; nothing of it is taken then.
    pub fn add(&mut self, message: &Bytes) -> Result<(), GatherError> {
        let Self { streams, lost, opener, keep } = self;
        let of = |stream| GatherError::NotDeclared { stream };
        match View::open(opener, message)? {
            View::Batch(batch) => streams.get_mut(&batch.stream()).ok_or(of(batch.stream()))?.add_batch(batch),
            View::Media(media) => {
                streams.get_mut(&media.stream()).ok_or(of(media.stream()))?.add_media(media, message, *keep)
            }
            View::Lost(it) => {
                if !streams.contains_key(&it.stream) {
                    return Err(of(it.stream));
                }
                lost.entry(it.sequence).or_insert(it);
                Ok(())
            }
            View::Mark(_) => Ok(()),
            View::Hello(_) => Err(GatherError::NotASample { kind: Kind::Hello }),
            View::Welcome(_) => Err(GatherError::NotASample { kind: Kind::Welcome }),
            View::Declare(_) => Err(GatherError::NotASample { kind: Kind::Declare }),
            View::Acknowledge(_) => Err(GatherError::NotASample { kind: Kind::Acknowledge }),
            View::Throttle(_) => Err(GatherError::NotASample { kind: Kind::Throttle }),
            View::Probe(_) => Err(GatherError::NotASample { kind: Kind::Probe }),
            View::Goodbye(_) => Err(GatherError::NotASample { kind: Kind::Goodbye }),
            View::Error(_) => Err(GatherError::NotASample { kind: Kind::Error }),
        }
    }

    /// All streams by number, each sequence once and in order.
    #[must_use]
    pub fn finish(mut self) -> Vec<StreamSamples> {
        for lost in self.lost.into_values() {
            if let Some(stream) = self.streams.get_mut(&lost.stream) {
                stream.lost.push(lost);
            }
        }
        self.streams.into_values().map(order::in_order).collect()
    }
}
