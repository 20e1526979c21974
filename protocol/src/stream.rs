//! What a stream carries, said once before its first sample.

use rkyv::{Archive, Deserialize as RkyvDeserialize, Serialize as RkyvSerialize};
use serde::{Deserialize, Serialize};

use crate::id::StreamId;
use crate::limit;
use crate::message::PayloadError;

/// Type of one element of a sample. Values are never converted on the way, so never rounded.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Dtype {
    /// IEEE 754 binary32.
    F32,
    /// IEEE 754 binary64.
    F64,
    /// Signed 64 bits.
    I64,
    /// One byte, 0 or 1.
    Bool,
    /// Unsigned 8 bits.
    U8,
}

impl Dtype {
    /// Bytes of one element.
    #[must_use]
    pub const fn size_bytes(self) -> usize {
        match self {
            Self::F32 => 4,
            Self::F64 | Self::I64 => 8,
            Self::Bool | Self::U8 => 1,
        }
    }

    /// The number that stands for this type on the wire.
    #[must_use]
    pub const fn code(self) -> u8 {
        match self {
            Self::F32 => 1,
            Self::F64 => 2,
            Self::I64 => 3,
            Self::Bool => 4,
            Self::U8 => 5,
        }
    }

    /// The type that `code` stands for.
    ///
    /// # Errors
    /// When no type has this code.
    pub const fn from_code(code: u8) -> Result<Self, PayloadError> {
        match code {
            1 => Ok(Self::F32),
            2 => Ok(Self::F64),
            3 => Ok(Self::I64),
            4 => Ok(Self::Bool),
            5 => Ok(Self::U8),
            _ => Err(PayloadError::UnknownCode { field: "dtype", code }),
        }
    }
}

/// Whether a stream holds what was ordered or what happened. The two are never copied from one another.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Role {
    /// Read from a sensor.
    Measured,
    /// Sent to the robot, after limits were applied.
    Commanded,
}

impl Role {
    const fn code(self) -> u8 {
        match self {
            Self::Measured => 1,
            Self::Commanded => 2,
        }
    }

    const fn from_code(code: u8) -> Result<Self, PayloadError> {
        match code {
            1 => Ok(Self::Measured),
            2 => Ok(Self::Commanded),
            _ => Err(PayloadError::UnknownCode { field: "role", code }),
        }
    }
}

/// How a stream's samples are coded.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Content {
    /// Numbers, in batches.
    Values,
    /// One JPEG picture a sample.
    Jpeg,
    /// One H.264 access unit a sample, each NAL unit behind its length in 4 bytes, as in MP4.
    H264,
    /// One AV1 temporal unit a sample, as in MP4.
    Av1,
}

impl Content {
    /// The number that stands for this content on the wire. 16 to 31 are reserved for depth.
    #[must_use]
    pub const fn code(self) -> u8 {
        match self {
            Self::Values => 0,
            Self::Jpeg => 1,
            Self::H264 => 2,
            Self::Av1 => 3,
        }
    }

    /// The content that `code` stands for.
    ///
    /// # Errors
    /// When no content has this code; depth codes (16 to 31) are reserved and say so.
    pub const fn from_code(code: u8) -> Result<Self, PayloadError> {
        match code {
            0 => Ok(Self::Values),
            1 => Ok(Self::Jpeg),
            2 => Ok(Self::H264),
            3 => Ok(Self::Av1),
            16..=31 => Err(PayloadError::ReservedForDepth { code }),
            _ => Err(PayloadError::UnknownCode { field: "content", code }),
        }
    }

    /// Whether samples are pictures.
    #[must_use]
    pub const fn is_camera(self) -> bool {
        !matches!(self, Self::Values)
    }
}

/// What a stream carries.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct StreamDeclaration {
    /// The stream's number in its session; never 0.
    pub stream: StreamId,
    /// Feature name in datasets: `observation.state`, `action`, `observation.images.front`, ...
    pub feature: String,
    /// One name per element in order; empty for cameras.
    pub names: Vec<String>,
    /// Unit of every element ("rad", "deg", "m"), or empty.
    pub unit: String,
    /// Type of an element; `U8` for cameras.
    pub dtype: Dtype,
    /// Shape of a sample: `[n]` for vectors, `[height, width, 3]` in pixels for cameras.
    pub shape: Vec<u32>,
    /// Nominal rate in thousandths of a hertz; 0 when samples come at no fixed rate.
    pub rate_mhz: u32,
    /// Whether an episode without this stream is incomplete.
    pub required: bool,
    /// Ordered or measured.
    pub role: Role,
    /// How samples are coded.
    pub content: Content,
}

/// The archived form of [`StreamDeclaration`]: fixed fields, then one vector of text lines
/// (feature, unit, names), each ended by a line feed.
#[derive(Archive, RkyvSerialize, RkyvDeserialize)]
pub struct DeclareWire {
    pub(crate) stream: u32,
    pub(crate) rate_mhz: u32,
    pub(crate) shape: [u32; 4],
    pub(crate) dimensions: u8,
    pub(crate) dtype: u8,
    pub(crate) role: u8,
    pub(crate) content: u8,
    pub(crate) required: u8,
    pub(crate) text: Vec<u8>,
}

impl StreamDeclaration {
    /// Elements of one sample: the product of the shape.
    #[must_use]
    pub fn width(&self) -> u32 {
        self.shape.iter().fold(1u32, |width, side| width.saturating_mul(*side))
    }

    /// Nominal rate in hertz, `None` when there is none.
    #[must_use]
    pub fn rate_hz(&self) -> Option<f64> {
        (self.rate_mhz > 0).then(|| f64::from(self.rate_mhz) / 1000.0)
    }

    /// Checks what every declaration must hold, whoever made it.
    ///
    /// # Errors
    /// Says which rule is broken, with numbers.
    pub fn check(&self) -> Result<(), PayloadError> {
        let wrong = |what: String| Err(PayloadError::Declaration { stream: self.stream.0, what });
        if self.stream == StreamId::JOURNAL {
            return wrong("stream 0 is the journal; number streams from 1".into());
        }
        if self.feature.is_empty() || self.feature.len() > limit::NAME_BYTES_MAX {
            return wrong(format!("feature name has {} bytes; use 1 to {}", self.feature.len(), limit::NAME_BYTES_MAX));
        }
        let plain = |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | '_' | '-');
        if !self.feature.chars().all(plain) || self.feature.split('.').any(str::is_empty) {
            return wrong(format!(
                "feature name {:?} may hold letters, digits, '_', '-' and single inner dots only",
                self.feature
            ));
        }
        if limit::FEATURES_RESERVED.contains(&self.feature.as_str()) {
            return wrong(format!("feature name {:?} is written by the exporter; choose another", self.feature));
        }
        if self.shape.is_empty() || self.shape.len() > 4 || self.shape.contains(&0) {
            return wrong(format!("shape {:?} must have 1 to 4 sides, each at least 1", self.shape));
        }
        let limit = if self.content.is_camera() { limit::PIXEL_BYTES_MAX } else { limit::WIDTH_MAX };
        if self.width() > limit {
            return wrong(format!("shape {:?} has {} elements; at most {limit}", self.shape, self.width()));
        }
        if self.content.is_camera() && (self.shape.len() != 3 || self.shape[2] != 3 || self.dtype != Dtype::U8) {
            return wrong(format!(
                "a camera has dtype u8 and shape [height, width, 3], not {:?} {:?}",
                self.dtype, self.shape
            ));
        }
        if !self.content.is_camera() && !self.names.is_empty() && self.names.len() != self.width() as usize {
            return wrong(format!("{} names for {} elements", self.names.len(), self.width()));
        }
        if self.unit.len() > limit::NAME_BYTES_MAX || self.unit.contains('\n') {
            return wrong(format!(
                "unit of {} bytes must be one line of at most {}",
                self.unit.len(),
                limit::NAME_BYTES_MAX
            ));
        }
        self.check_names()
    }

    fn check_names(&self) -> Result<(), PayloadError> {
        let mut seen = std::collections::HashSet::new();
        for name in &self.names {
            if name.is_empty() || name.len() > limit::NAME_BYTES_MAX || name.contains('\n') {
                let what = format!("element name {name:?} must be one line of 1 to {} bytes", limit::NAME_BYTES_MAX);
                return Err(PayloadError::Declaration { stream: self.stream.0, what });
            }
            if !seen.insert(name.as_str()) {
                let what = format!("element name {name:?} is there twice; names must be unique");
                return Err(PayloadError::Declaration { stream: self.stream.0, what });
            }
        }
        Ok(())
    }

    pub(crate) fn to_wire(&self) -> DeclareWire {
        let mut shape = [0u32; 4];
        for (target, side) in shape.iter_mut().zip(&self.shape) {
            *target = *side;
        }
        let mut text = Vec::new();
        for line in [&self.feature, &self.unit].into_iter().chain(&self.names) {
            text.extend_from_slice(line.as_bytes());
            text.push(b'\n');
        }
        DeclareWire {
            stream: self.stream.0,
            rate_mhz: self.rate_mhz,
            shape,
            dimensions: u8::try_from(self.shape.len()).unwrap_or(u8::MAX),
            dtype: self.dtype.code(),
            role: self.role.code(),
            content: self.content.code(),
            required: u8::from(self.required),
            text,
        }
    }

    pub(crate) fn from_wire(wire: &ArchivedDeclareWire) -> Result<Self, PayloadError> {
        let text = std::str::from_utf8(&wire.text).map_err(|_| PayloadError::NotUtf8 { field: "declaration" })?;
        let stream = wire.stream.to_native();
        let Some(text) = text.strip_suffix('\n') else {
            return Err(PayloadError::Declaration { stream, what: "text does not end with a line feed".into() });
        };
        let mut lines = text.split('\n');
        let (Some(feature), Some(unit)) = (lines.next(), lines.next()) else {
            return Err(PayloadError::Declaration { stream, what: "feature or unit line is missing".into() });
        };
        let dimensions = usize::from(wire.dimensions);
        let Some(shape) = wire.shape.get(..dimensions) else {
            return Err(PayloadError::Declaration { stream, what: format!("{dimensions} dimensions; at most 4") });
        };
        if wire.shape[dimensions..].iter().any(|side| side.to_native() != 0) {
            return Err(PayloadError::Declaration { stream, what: "unused sides of the shape are not 0".into() });
        }
        let required = match wire.required {
            0 => false,
            1 => true,
            code => {
                return Err(PayloadError::UnknownCode { field: "required", code });
            }
        };
        let declaration = Self {
            stream: StreamId(stream),
            feature: feature.to_owned(),
            unit: unit.to_owned(),
            names: lines.map(str::to_owned).collect(),
            dtype: Dtype::from_code(wire.dtype)?,
            shape: shape.iter().map(|side| side.to_native()).collect(),
            rate_mhz: wire.rate_mhz.to_native(),
            required,
            role: Role::from_code(wire.role)?,
            content: Content::from_code(wire.content)?,
        };
        declaration.check()?;
        Ok(declaration)
    }
}
