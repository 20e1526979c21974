//! Samples of one stream: numbers in batches, pictures one by one.

use rkyv::{Archive, Deserialize as RkyvDeserialize, Serialize as RkyvSerialize};

use crate::id::{ClockId, StreamId};
use crate::limit;
use crate::message::PayloadError;
use crate::stream::{Content, Dtype};

/// Bits that say something about one sample.
pub mod flag {
    /// A person took over from the policy for this sample.
    pub const INTERVENTION: u8 = 1;
    /// The command was cut to a limit before it was sent.
    pub const CLIPPED: u8 = 2;
    /// The value is older than its capture time says; the sensor did not answer.
    pub const STALE: u8 = 4;
    /// Holds NaN or an infinity. Derived by the reader, never sent.
    pub const NOT_FINITE: u8 = 8;
    /// Decoding of the camera's stream can start at this unit.
    pub const KEY: u8 = 16;
    /// The picture does not decode. Derived by the reader, never sent.
    pub const UNDECODABLE: u8 = 32;
    /// Not a picture but the configuration record (avcC, av1C) of the units that follow.
    pub const CONFIG: u8 = 64;
    /// Flags that a producer may set on numbers.
    pub const SENT_ON_VALUES: u8 = INTERVENTION | CLIPPED | STALE;
    /// Flags that a producer may set on pictures.
    pub const SENT_ON_MEDIA: u8 = INTERVENTION | STALE | KEY | CONFIG;
}

/// 1 to 256 samples of one stream.
#[derive(Clone, Debug, PartialEq)]
pub struct Batch {
    /// The stream that was declared.
    pub stream: StreamId,
    /// Sequence number of the first sample; the others follow without a hole.
    pub first: u64,
    /// The clock of `times_ns`.
    pub clock: ClockId,
    /// Element type, as declared.
    pub dtype: Dtype,
    /// Elements of one sample, as declared.
    pub width: u32,
    /// Capture time of each sample in nanoseconds on `clock`.
    pub times_ns: Vec<i64>,
    /// Flags of each sample.
    pub flags: Vec<u8>,
    /// `count x width` elements, sample by sample, little endian.
    pub values: Vec<u8>,
}

/// The archived form of [`Batch`]: `body` holds the times (8 bytes each), the flags (1 byte each), then the values.
#[derive(Archive, RkyvSerialize, RkyvDeserialize)]
pub struct BatchWire {
    pub(crate) first: u64,
    pub(crate) clock: [u8; 16],
    pub(crate) stream: u32,
    pub(crate) width: u32,
    pub(crate) count: u16,
    pub(crate) dtype: u8,
    pub(crate) zero: u8,
    pub(crate) body: Vec<u8>,
}

/// A checked batch that still lies in the buffer it came in.
#[derive(Clone, Copy, Debug)]
pub struct BatchView<'a> {
    wire: &'a ArchivedBatchWire,
    dtype: Dtype,
    count: usize,
}

impl std::fmt::Debug for ArchivedBatchWire {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "batch of {} samples from {}", self.count.to_native(), self.first.to_native())
    }
}

impl Batch {
    /// Number of samples.
    #[must_use]
    pub fn count(&self) -> usize {
        self.times_ns.len()
    }

    pub(crate) fn to_wire(&self) -> BatchWire {
        let mut body = Vec::with_capacity(self.times_ns.len() * 9 + self.values.len());
        for time in &self.times_ns {
            body.extend_from_slice(&time.to_le_bytes());
        }
        body.extend_from_slice(&self.flags);
        body.extend_from_slice(&self.values);
        BatchWire {
            first: self.first,
            clock: self.clock.0,
            stream: self.stream.0,
            width: self.width,
            count: u16::try_from(self.count()).unwrap_or(u16::MAX),
            dtype: self.dtype.code(),
            zero: 0,
            body,
        }
    }
}

impl<'a> BatchView<'a> {
    pub(crate) fn from_wire(wire: &'a ArchivedBatchWire) -> Result<Self, PayloadError> {
        let (count, width) = (usize::from(wire.count.to_native()), wire.width.to_native());
        let dtype = Dtype::from_code(wire.dtype)?;
        if count == 0 || count > limit::SAMPLES_MAX {
            return Err(PayloadError::SampleCount { got: count });
        }
        if width == 0 || width > limit::WIDTH_MAX || wire.zero != 0 {
            return Err(PayloadError::Width {
                stream: wire.stream.to_native(),
                got: width,
                declared: limit::WIDTH_MAX,
            });
        }
        let expected = count * 9 + count * width as usize * dtype.size_bytes();
        if wire.body.len() != expected {
            return Err(PayloadError::BodyLength { got: wire.body.len(), expected });
        }
        if wire.first.to_native().checked_add(count as u64).is_none() {
            return Err(PayloadError::SequenceOverflow { first: wire.first.to_native() });
        }
        let view = Self { wire, dtype, count };
        if let Some(flags) = view.flags().iter().find(|flags| **flags & !flag::SENT_ON_VALUES != 0) {
            return Err(PayloadError::UnknownCode { field: "sample flags", code: *flags });
        }
        if dtype == Dtype::Bool
            && let Some(code) = view.values().iter().find(|value| **value > 1)
        {
            return Err(PayloadError::UnknownCode { field: "bool value", code: *code });
        }
        Ok(view)
    }

    /// The stream that was declared.
    #[must_use]
    pub fn stream(&self) -> StreamId {
        StreamId(self.wire.stream.to_native())
    }
    /// Sequence number of the first sample.
    #[must_use]
    pub fn first(&self) -> u64 {
        self.wire.first.to_native()
    }
    /// Number of samples, 1 to 256.
    #[must_use]
    pub fn count(&self) -> usize {
        self.count
    }
    /// Element type.
    #[must_use]
    pub fn dtype(&self) -> Dtype {
        self.dtype
    }
    /// Elements of one sample.
    #[must_use]
    pub fn width(&self) -> u32 {
        self.wire.width.to_native()
    }
    /// The clock of the capture times.
    #[must_use]
    pub fn clock(&self) -> ClockId {
        ClockId(self.wire.clock)
    }
    /// Capture times in nanoseconds on [`Self::clock`], in the order of the samples.
    pub fn times_ns(&self) -> impl Iterator<Item = i64> + use<'a> {
        let times: &'a [u8] = &self.wire.body[..self.count * 8];
        times.chunks_exact(8).map(|time| {
            let mut bytes = [0u8; 8];
            bytes.copy_from_slice(time);
            i64::from_le_bytes(bytes)
        })
    }
    /// Flags of each sample, as sent.
    #[must_use]
    pub fn flags(&self) -> &'a [u8] {
        &self.wire.body[self.count * 8..self.count * 9]
    }
    /// Elements, sample by sample, little endian.
    #[must_use]
    pub fn values(&self) -> &'a [u8] {
        &self.wire.body[self.count * 9..]
    }
    /// Bytes of one sample's values.
    #[must_use]
    pub fn sample_bytes(&self) -> usize {
        self.width() as usize * self.dtype.size_bytes()
    }
    /// A copy that owns its bytes.
    #[must_use]
    pub fn to_batch(&self) -> Batch {
        Batch {
            stream: self.stream(),
            first: self.first(),
            clock: self.clock(),
            dtype: self.dtype,
            width: self.width(),
            times_ns: self.times_ns().collect(),
            flags: self.flags().to_vec(),
            values: self.values().to_vec(),
        }
    }
}

/// Whether every element of a sample is a finite number. Integers always are.
#[must_use]
pub fn is_finite(dtype: Dtype, sample: &[u8]) -> bool {
    match dtype {
        Dtype::F32 => sample.chunks_exact(4).all(|element| {
            // All exponent bits set: infinity or NaN.
            u32::from_le_bytes([element[0], element[1], element[2], element[3]]) & 0x7f80_0000 != 0x7f80_0000
        }),
        Dtype::F64 => {
            sample.chunks_exact(8).all(|element| u16::from_le_bytes([element[6], element[7]]) & 0x7ff0 != 0x7ff0)
        }
        Dtype::I64 | Dtype::Bool | Dtype::U8 => true,
    }
}

/// One picture or access unit of one camera.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Media {
    /// The stream that was declared.
    pub stream: StreamId,
    /// Sequence number.
    pub sequence: u64,
    /// The clock of `time_ns`.
    pub clock: ClockId,
    /// Capture time in nanoseconds on `clock`.
    pub time_ns: i64,
    /// How `data` is coded; never `Values`.
    pub content: Content,
    /// Flags of the sample.
    pub flags: u8,
    /// The picture or unit, unchanged.
    pub data: Vec<u8>,
}

/// The archived form of [`Media`].
#[derive(Archive, RkyvSerialize, RkyvDeserialize)]
pub struct MediaWire {
    pub(crate) sequence: u64,
    pub(crate) time_ns: i64,
    pub(crate) clock: [u8; 16],
    pub(crate) stream: u32,
    pub(crate) content: u8,
    pub(crate) flags: u8,
    pub(crate) zero: u16,
    pub(crate) data: Vec<u8>,
}

/// A checked picture that still lies in the buffer it came in.
#[derive(Clone, Copy)]
pub struct MediaView<'a> {
    wire: &'a ArchivedMediaWire,
    content: Content,
}

impl Media {
    pub(crate) fn to_wire(&self) -> MediaWire {
        MediaWire {
            sequence: self.sequence,
            time_ns: self.time_ns,
            clock: self.clock.0,
            stream: self.stream.0,
            content: self.content.code(),
            flags: self.flags,
            zero: 0,
            data: self.data.clone(),
        }
    }
}

impl<'a> MediaView<'a> {
    pub(crate) fn from_wire(wire: &'a ArchivedMediaWire) -> Result<Self, PayloadError> {
        let content = Content::from_code(wire.content)?;
        if !content.is_camera() {
            return Err(PayloadError::UnknownCode { field: "media content", code: wire.content });
        }
        if wire.flags & !flag::SENT_ON_MEDIA != 0 || wire.zero.to_native() != 0 {
            return Err(PayloadError::UnknownCode { field: "media flags", code: wire.flags });
        }
        if wire.data.is_empty() {
            return Err(PayloadError::BodyLength { got: 0, expected: 1 });
        }
        if wire.sequence.to_native() == u64::MAX {
            return Err(PayloadError::SequenceOverflow { first: u64::MAX });
        }
        Ok(Self { wire, content })
    }
    /// The stream that was declared.
    #[must_use]
    pub fn stream(&self) -> StreamId {
        StreamId(self.wire.stream.to_native())
    }
    /// Sequence number.
    #[must_use]
    pub fn sequence(&self) -> u64 {
        self.wire.sequence.to_native()
    }
    /// The clock of the capture time.
    #[must_use]
    pub fn clock(&self) -> ClockId {
        ClockId(self.wire.clock)
    }
    /// Capture time in nanoseconds on [`Self::clock`].
    #[must_use]
    pub fn time_ns(&self) -> i64 {
        self.wire.time_ns.to_native()
    }
    /// How the data is coded.
    #[must_use]
    pub fn content(&self) -> Content {
        self.content
    }
    /// Flags, as sent.
    #[must_use]
    pub fn flags(&self) -> u8 {
        self.wire.flags
    }
    /// The picture or unit.
    #[must_use]
    pub fn data(&self) -> &'a [u8] {
        &self.wire.data
    }
    /// A copy that owns its bytes.
    #[must_use]
    pub fn to_media(&self) -> Media {
        Media {
            stream: self.stream(),
            sequence: self.sequence(),
            clock: self.clock(),
            time_ns: self.time_ns(),
            content: self.content,
            flags: self.flags(),
            data: self.data().to_vec(),
        }
    }
}
