//! JPEG pictures as a camera sends them: their size, whether they are whole, their pixels.
//!
//! [`probe`] walks the header only and is cheap enough for every picture; [`decode_rgb`] decodes
//! and is meant for samples (statistics, previews). Marker numbers: ITU-T T.81, table B.1.

use bytes::Bytes;
use thiserror::Error;
use zune_core::bytestream::ZCursor;
use zune_core::colorspace::ColorSpace;
use zune_core::options::DecoderOptions;
use zune_jpeg::JpegDecoder;

/// Longest side of a picture in pixels. With it a decoded picture is at most 48 MiB.
pub const SIDE_MAX: u32 = 4096;
/// Quality of fill pictures; they are black, so it only has to be legal.
const FILL_QUALITY: u8 = 80;

/// Why bytes are no picture that can be used.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum JpegError {
    /// The first two bytes are not those of a JPEG.
    #[error("not a jpeg: it begins with {begin}, not with ffd8")]
    NotJpeg {
        /// The first bytes in hexadecimal.
        begin: String,
    },
    /// The bytes end too early.
    #[error("jpeg of {bytes} bytes ends inside {part}; it was cut on the way")]
    Cut {
        /// Bytes there are.
        bytes: usize,
        /// What should have followed.
        part: &'static str,
    },
    /// The header contradicts itself.
    #[error("jpeg marker {marker:#04x} at byte {at} {what}")]
    Marker {
        /// The marker's second byte.
        marker: u8,
        /// Where it stands.
        at: usize,
        /// What is wrong.
        what: &'static str,
    },
    /// The picture is empty or too large.
    #[error("jpeg of {width}x{height} pixels; each side must be 1 to {SIDE_MAX}")]
    Size {
        /// Pixels in a row.
        width: u32,
        /// Rows.
        height: u32,
    },
    /// The decoder gave up.
    #[error("jpeg does not decode: {0}")]
    Decode(String),
    /// The encoder refused.
    #[error("jpeg cannot be made: {0}")]
    Encode(String),
}

/// What the header of a JPEG says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Header {
    /// Pixels in a row.
    pub width: u32,
    /// Rows.
    pub height: u32,
    /// Colour components: 1 grey, 3 colour, 4 print colours.
    pub components: u8,
    /// Sampling factors of the first component over those of the second: (2, 2) is 4:2:0.
    pub subsampling: (u8, u8),
}

impl Header {
    /// The name that ffmpeg gives to the pixels, as in LeRobot's `video.pix_fmt`.
    #[must_use]
    pub fn pixel_format(&self) -> &'static str {
        match (self.components, self.subsampling) {
            (1, _) => "gray",
            (_, (2, 2)) => "yuvj420p",
            (_, (2, 1)) => "yuvj422p",
            (_, (1, 2)) => "yuvj440p",
            (_, (4, 1)) => "yuvj411p",
            _ => "yuvj444p",
        }
    }
}

/// Width and height of a picture whose header is sound and whose end is there. Pixels are not decoded.
///
/// # Errors
/// Says at which byte the header is wrong, or that the end is missing.
pub fn probe(bytes: &[u8]) -> Result<(u32, u32), JpegError> {
    let header = header(bytes)?;
    Ok((header.width, header.height))
}

/// As [`probe`], with the colour format.
///
/// # Errors
/// Says at which byte the header is wrong, or that the end is missing.
pub fn header(bytes: &[u8]) -> Result<Header, JpegError> {
    if !bytes.starts_with(&[0xff, 0xd8]) {
        let begin = bytes.iter().take(4).map(|byte| format!("{byte:02x}")).collect();
        return Err(JpegError::NotJpeg { begin });
    }
    let cut = |part| JpegError::Cut { bytes: bytes.len(), part };
    let (mut at, mut frame) = (2, None);
    loop {
        let marker_at = at;
        if *bytes.get(at).ok_or(cut("its header"))? != 0xff {
            return Err(JpegError::Marker { marker: bytes[at], at, what: "does not begin with ff" });
        }
        // Any number of ff may fill up before a marker.
        while *bytes.get(at).ok_or(cut("its header"))? == 0xff {
            at += 1;
        }
        let marker = bytes[at];
        at += 1;
        let refuse = |what| Err(JpegError::Marker { marker, at: marker_at, what });
        match marker {
            0x01 | 0xd0..=0xd7 => continue,
            0x00 | 0xd8 => return refuse("cannot stand in a header"),
            0xd9 => return refuse("ends the picture before its scan"),
            _ => {}
        }
        let length = bytes.get(at..at + 2).ok_or(cut("its header"))?;
        let length = usize::from(u16::from_be_bytes([length[0], length[1]]));
        if length < 2 {
            return refuse("has a length below 2");
        }
        let segment = bytes.get(at + 2..at + length).ok_or(cut("its header"))?;
        match marker {
            0xc0..=0xc2 if frame.is_some() => return refuse("is a second frame header"),
            0xc0..=0xc2 => match frame_header(segment)? {
                Some(header) => frame = Some(header),
                None => return refuse("has a frame header that is too short or not of 8 bits"),
            },
            0xc3 | 0xc5..=0xc7 | 0xc9..=0xcb | 0xcd..=0xcf => {
                return refuse("is a lossless, hierarchical or arithmetic coding, which cameras do not send");
            }
            0xda => {
                let Some(header) = frame else {
                    return refuse("begins a scan without a frame header");
                };
                // Inside a scan ff is always followed by 00 or a restart, so ff d9 is the end.
                let ended = bytes[at + length..].windows(2).rev().any(|pair| pair == [0xff, 0xd9]);
                return if ended { Ok(header) } else { Err(cut("its scan")) };
            }
            _ => {}
        }
        at += length;
    }
}

/// Reads a frame header's content; `None` when it is malformed.
fn frame_header(segment: &[u8]) -> Result<Option<Header>, JpegError> {
    let &[8, h1, h0, w1, w0, components, ref rest @ ..] = segment else {
        return Ok(None);
    };
    if !matches!(components, 1 | 3 | 4) || rest.len() < usize::from(components) * 3 {
        return Ok(None);
    }
    let (width, height) = (u32::from(u16::from_be_bytes([w1, w0])), u32::from(u16::from_be_bytes([h1, h0])));
    if width == 0 || height == 0 || width > SIDE_MAX || height > SIDE_MAX {
        return Err(JpegError::Size { width, height });
    }
    let factors = |component: usize| (rest[component * 3 + 1] >> 4, rest[component * 3 + 1] & 15);
    let first = factors(0);
    let second = if components == 1 { first } else { factors(1) };
    if second.0 == 0 || second.1 == 0 {
        return Ok(None);
    }
    Ok(Some(Header { width, height, components, subsampling: (first.0 / second.0, first.1 / second.1) }))
}

/// A decoded picture.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Rgb {
    /// Pixels in a row.
    pub width: u32,
    /// Rows.
    pub height: u32,
    /// `height x width x 3` bytes: red, green, blue, row by row from the top.
    pub pixels: Vec<u8>,
}

/// Decodes a picture of at most [`SIDE_MAX`] pixels a side.
///
/// # Errors
/// When the header is wrong, the picture is cut or its scan cannot be decoded.
pub fn decode_rgb(bytes: &[u8]) -> Result<Rgb, JpegError> {
    let Header { width, height, .. } = header(bytes)?;
    let options = DecoderOptions::default()
        .set_max_width(SIDE_MAX as usize)
        .set_max_height(SIDE_MAX as usize)
        .jpeg_set_out_colorspace(ColorSpace::RGB);
    let mut decoder = JpegDecoder::new_with_options(ZCursor::new(bytes), options);
    let pixels = decoder.decode().map_err(|error| JpegError::Decode(error.to_string()))?;
    let expected = width as usize * height as usize * 3;
    if pixels.len() != expected {
        return Err(JpegError::Decode(format!("{} bytes of pixels, {expected} expected", pixels.len())));
    }
    Ok(Rgb { width, height, pixels })
}

/// A black picture, to fill a row whose picture is missing. The same size gives the same bytes.
///
/// # Errors
/// When a side is 0 or over [`SIDE_MAX`].
pub fn black(width: u32, height: u32) -> Result<Bytes, JpegError> {
    if width == 0 || height == 0 || width > SIDE_MAX || height > SIDE_MAX {
        return Err(JpegError::Size { width, height });
    }
    encode_rgb(width, height, &vec![0; width as usize * height as usize * 3], FILL_QUALITY)
}

/// Encodes pixels (`height x width x 3` bytes) with `quality` 1 to 100, for simulated cameras and tests.
///
/// # Errors
/// When a side is 0 or over 65535, or `pixels` is not that long.
pub fn encode_rgb(width: u32, height: u32, pixels: &[u8], quality: u8) -> Result<Bytes, JpegError> {
    let (Ok(w), Ok(h)) = (u16::try_from(width), u16::try_from(height)) else {
        return Err(JpegError::Size { width, height });
    };
    let mut out = Vec::new();
    jpeg_encoder::Encoder::new(&mut out, quality.clamp(1, 100))
        .encode(pixels, w, h, jpeg_encoder::ColorType::Rgb)
        .map_err(|error| JpegError::Encode(error.to_string()))?;
    Ok(out.into())
}

/// Probes and, when small enough to be quick, decodes `bytes`; the body of the fuzz target.
///
/// # Panics
/// When a promise of this module is broken.
pub fn fuzz_jpeg(bytes: &[u8]) {
    let Ok((width, height)) = probe(bytes) else { return };
    assert!((1..=SIDE_MAX).contains(&width) && (1..=SIDE_MAX).contains(&height));
    if width * height <= 1 << 16
        && let Ok(picture) = decode_rgb(bytes)
    {
        assert_eq!(picture.pixels.len(), (width * height * 3) as usize);
    }
}

#[cfg(test)]
mod tests {
    use proptest::collection::vec;
    use proptest::prelude::*;

    use super::*;

    fn picture(width: u32, height: u32) -> Bytes {
        let pixels: Vec<u8> = (0..width * height * 3).map(|index| (index * 7 % 251) as u8).collect();
        encode_rgb(width, height, &pixels, 90).unwrap()
    }

    #[test]
    fn probe_reads_the_size_and_the_colour_format() {
        let bytes = picture(70, 33);
        assert_eq!(probe(&bytes), Ok((70, 33)));
        let header = header(&bytes).unwrap();
        assert_eq!((header.components, header.pixel_format()), (3, "yuvj444p"));
    }

    #[test]
    fn black_decodes_to_black_and_is_the_same_each_time() {
        let bytes = black(32, 16).unwrap();
        assert_eq!(bytes, black(32, 16).unwrap());
        let decoded = decode_rgb(&bytes).unwrap();
        assert_eq!((decoded.width, decoded.height), (32, 16));
        assert!(decoded.pixels.iter().all(|value| *value == 0));
        assert!(matches!(black(0, 16), Err(JpegError::Size { .. })));
        assert!(matches!(black(32, 4097), Err(JpegError::Size { .. })));
    }

    #[test]
    fn bytes_after_the_end_are_no_fault_and_a_missing_end_is() {
        let bytes = picture(32, 16);
        let padded = [&bytes[..], &[0; 40]].concat();
        assert_eq!(probe(&padded), Ok((32, 16)));
        assert_eq!(probe(&bytes[..bytes.len() - 2]), Err(JpegError::Cut { bytes: bytes.len() - 2, part: "its scan" }));
    }

    #[test]
    fn a_picture_that_claims_a_huge_size_is_refused_before_it_is_decoded() {
        let mut bytes = picture(32, 16).to_vec();
        let frame = bytes.windows(2).position(|pair| pair[0] == 0xff && (0xc0..=0xc2).contains(&pair[1])).unwrap();
        bytes[frame + 5..frame + 9].copy_from_slice(&[0xff; 4]);
        assert_eq!(decode_rgb(&bytes), Err(JpegError::Size { width: 65535, height: 65535 }));
    }

    #[test]
    fn what_is_no_jpeg_is_named() {
        assert_eq!(probe(b"\x89PNG\r\n"), Err(JpegError::NotJpeg { begin: "89504e47".into() }));
        assert!(matches!(probe(b""), Err(JpegError::NotJpeg { .. })));
    }

    #[test]
    fn a_grey_picture_decodes_to_three_channels() {
        let mut bytes = Vec::new();
        jpeg_encoder::Encoder::new(&mut bytes, 90).encode(&[200; 64], 8, 8, jpeg_encoder::ColorType::Luma).unwrap();
        assert_eq!(header(&bytes).unwrap().pixel_format(), "gray");
        let decoded = decode_rgb(&bytes).unwrap();
        assert_eq!(decoded.pixels.len(), 192);
        assert!(decoded.pixels.iter().all(|value| value.abs_diff(200) <= 2));
    }

    proptest! {
        /// A whole picture is taken, every proper prefix of it refused.
        #[test]
        fn probe_takes_a_whole_picture_or_nothing(width in 1u32..80, height in 1u32..80, cut in any::<prop::sample::Index>()) {
            let bytes = picture(width, height);
            prop_assert_eq!(probe(&bytes), Ok((width, height)));
            prop_assert!(probe(&bytes[..cut.index(bytes.len())]).is_err());
        }

        #[test]
        fn damage_never_panics(hits in vec((any::<prop::sample::Index>(), any::<u8>()), 1..8)) {
            let mut bytes = picture(40, 24).to_vec();
            for (place, value) in hits {
                let place = place.index(bytes.len());
                bytes[place] = value;
            }
            fuzz_jpeg(&bytes);
        }
    }
}
