//! One video track in an MP4 file: written by [`mux`], read by [`demux`].
//!
//! No codec runs here: pictures go in and come out as the bytes that a camera or encoder made.
//! Layout of every box: ISO/IEC 14496-12; sample entries: 14496-14 (`mp4v`), 14496-15 (`avc1`,
//! `hvc1`), the AV1 and VP9 ISO bindings. Times are in ticks of the track's time scale.

use std::fmt;
use std::io;

use thiserror::Error;

pub mod demux;
pub mod mux;

mod boxes;
mod fragment;
mod table;
#[cfg(test)]
mod tests;

/// How the pictures of a track are coded.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Codec {
    /// Each sample is a JPEG file.
    Mjpeg,
    /// H.264 with NAL units behind their lengths; the configuration is an avcC record.
    H264,
    /// H.265; the configuration is an hvcC record.
    Hevc,
    /// AV1 temporal units; the configuration is an av1C record.
    Av1,
    /// VP9; the configuration is a vpcC record.
    Vp9,
    /// MPEG-4 part 2; the configuration is the esds descriptor.
    Mpeg4,
    /// Something else, by its four-character code.
    Other([u8; 4]),
}

impl Codec {
    /// The name that ffmpeg and LeRobot's `video.codec` use.
    #[must_use]
    pub fn name(self) -> String {
        match self {
            Self::Mjpeg => "mjpeg".into(),
            Self::H264 => "h264".into(),
            Self::Hevc => "hevc".into(),
            Self::Av1 => "av1".into(),
            Self::Vp9 => "vp9".into(),
            Self::Mpeg4 => "mpeg4".into(),
            Self::Other(kind) => kind.escape_ascii().to_string(),
        }
    }
}

impl fmt::Display for Codec {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(&self.name())
    }
}

/// Why a file cannot be read or a track cannot be written.
#[derive(Debug, Error)]
pub enum Mp4Error {
    /// The operating system refused.
    #[error("reading or writing the mp4 failed: {0}")]
    Io(#[from] io::Error),
    /// Nothing in the file is a box that can come first.
    #[error("not an mp4 file: it begins with {begin:?}; expected an ftyp, moov, moof or mdat box")]
    NotMp4 {
        /// First bytes of the file, readable.
        begin: String,
    },
    /// The index is missing, as after a recording that was cut.
    #[error("no moov box in {bytes} bytes, last box {last}; the file was never finished, record or copy it again")]
    NoMovie {
        /// Length of the file.
        bytes: u64,
        /// Four-character code of the last box seen.
        last: String,
    },
    /// No track with handler `vide`.
    #[error("no video track among {tracks} tracks")]
    NoVideo {
        /// Tracks of any kind.
        tracks: usize,
    },
    /// A box contradicts itself or the file.
    #[error("box {kind} at byte {at}: {what}")]
    Box {
        /// Four-character code.
        kind: String,
        /// Byte offset of the box in the file.
        at: u64,
        /// What is wrong, with numbers.
        what: String,
    },
    /// A table is larger than this reader takes.
    #[error("{what} is {got}, over the limit of {limit}; split the file")]
    TooLarge {
        /// Which quantity.
        what: &'static str,
        /// Its value.
        got: u64,
        /// The limit.
        limit: u64,
    },
    /// A sample's bytes are not all in the file.
    #[error(
        "sample {sample} of {samples} needs bytes {offset} to {end}, but the file ends at {bytes}; it was cut, copy it again"
    )]
    Cut {
        /// First sample that is not whole, 0-based in decoding order.
        sample: usize,
        /// Samples that the index names.
        samples: usize,
        /// Where the sample begins.
        offset: u64,
        /// Where it ends, exclusive.
        end: u64,
        /// Length of the file.
        bytes: u64,
    },
    /// There is no such sample.
    #[error("sample {sample} does not exist; the track has {samples}")]
    NoSample {
        /// The number asked for.
        sample: usize,
        /// Samples of the track.
        samples: usize,
    },
    /// A track that cannot be written, said before a byte is.
    #[error("cannot write the track: {what}")]
    Track {
        /// What is wrong, with numbers and what to do.
        what: String,
    },
}
