//! Writes one video track from pictures that are coded already. Start with [`write`](fn@write).
//!
//! The index comes before the pictures, so a player can begin at once and a cut file still has one.
//! Every frame lasts [`TICKS_PER_FRAME`] ticks of a time scale of `fps x 512`, the one that ffmpeg
//! chooses: picture k is shown at exactly k / fps and the first one at 0, whatever order they are
//! decoded in. Only the sample table is held in memory.

use std::io::Write;

use super::boxes::{put, put_full, put_u16, put_u32, put_u64};
use super::demux::{SAMPLE_BYTES_MAX, SAMPLES_MAX};
use super::{Codec, Mp4Error};

/// Ticks of the track's time scale that one frame lasts.
pub const TICKS_PER_FRAME: u32 = 512;
/// Highest frame rate; far above any camera, and the time scale stays small.
pub const FPS_MAX: u32 = 10_000;
/// Ticks per second of the movie header.
const MOVIE_TIMESCALE: u32 = 1000;

/// One coded picture, in decoding order.
#[derive(Clone, Copy, Debug)]
pub struct Unit<'a> {
    /// The JPEG or access unit as the track stores it.
    pub data: &'a [u8],
    /// Whether decoding can start here.
    pub key: bool,
    /// Which frame of the track it is, counted from 0 in the order of showing.
    pub presentation: u32,
}

/// What [`head`] must know of a picture.
#[derive(Clone, Copy, Debug)]
pub struct Slot {
    /// Bytes.
    pub size: u32,
    /// Whether decoding can start here.
    pub key: bool,
    /// Which frame of the track it is, counted from 0 in the order of showing.
    pub presentation: u32,
}

impl From<&Unit<'_>> for Slot {
    fn from(unit: &Unit<'_>) -> Self {
        let size = u32::try_from(unit.data.len()).unwrap_or(u32::MAX);
        Self { size, key: unit.key, presentation: unit.presentation }
    }
}

/// The track apart from its pictures.
#[derive(Clone, Copy, Debug)]
pub struct Format<'a> {
    /// [`Codec::Mjpeg`], [`Codec::H264`] or [`Codec::Av1`].
    pub codec: Codec,
    /// Width in pixels.
    pub width: u32,
    /// Height in pixels.
    pub height: u32,
    /// Frames per second.
    pub fps: u32,
    /// avcC or av1C record without box header; empty for MJPEG.
    pub config: &'a [u8],
}

/// Writes the whole file: index first, then the pictures in the order given.
///
/// # Errors
/// When the format or the order of the pictures is not one that can be written, or `out` refuses.
pub fn write(out: &mut impl Write, format: Format<'_>, units: &[Unit<'_>]) -> Result<(), Mp4Error> {
    let slots: Vec<Slot> = units.iter().map(Slot::from).collect();
    out.write_all(&head(format, &slots)?)?;
    for unit in units {
        out.write_all(unit.data)?;
    }
    Ok(())
}

/// Everything before the first picture: ftyp, moov and the header of mdat. A caller that cannot
/// hold all pictures writes this and then the pictures, in the order of `slots`.
///
/// # Errors
/// When the format or the order of the pictures is not one that can be written.
pub fn head(format: Format<'_>, slots: &[Slot]) -> Result<Vec<u8>, Mp4Error> {
    check(format, slots)?;
    let mut out = Vec::new();
    put(&mut out, b"ftyp", |out| {
        out.extend_from_slice(b"isom");
        put_u32(out, 512);
        out.extend_from_slice(b"isomiso2");
        match format.codec {
            Codec::H264 => out.extend_from_slice(b"avc1"),
            Codec::Av1 => out.extend_from_slice(b"av01"),
            _ => {}
        }
        out.extend_from_slice(b"mp41");
    });
    let data_bytes: u64 = slots.iter().map(|slot| u64::from(slot.size)).sum();
    let mdat_header = if data_bytes + 8 > u64::from(u32::MAX) { 16 } else { 8 };
    // Offsets in the index depend on the length of the index: measure it with offsets of 0 first.
    // Whether they fit 32 bits is decided before, with room for the index, so the length stays.
    let long = data_bytes + (slots.len() as u64 * 32) + (1 << 20) > u64::from(u32::MAX);
    let measured = movie(format, slots, 0, long).len();
    let first = (out.len() + measured) as u64 + mdat_header;
    out.extend_from_slice(&movie(format, slots, first, long));
    if mdat_header == 16 {
        put_u32(&mut out, 1);
        out.extend_from_slice(b"mdat");
        put_u64(&mut out, data_bytes + 16);
    } else {
        put_u32(&mut out, u32::try_from(data_bytes + 8).unwrap_or(u32::MAX));
        out.extend_from_slice(b"mdat");
    }
    Ok(out)
}

fn check(format: Format<'_>, slots: &[Slot]) -> Result<(), Mp4Error> {
    let refuse = |what: String| Err(Mp4Error::Track { what });
    match format.codec {
        Codec::Mjpeg => {}
        Codec::H264 if format.config.first() == Some(&1) && format.config.len() >= 7 => {}
        Codec::H264 => {
            return refuse(format!(
                "avcC record of {} bytes; H.264 needs one of 7 or more that begins with 1",
                format.config.len()
            ));
        }
        Codec::Av1 if format.config.first() == Some(&0x81) && format.config.len() >= 4 => {}
        Codec::Av1 => {
            return refuse(format!(
                "av1C record of {} bytes; AV1 needs one of 4 or more that begins with 0x81",
                format.config.len()
            ));
        }
        other => return refuse(format!("codec {other}; mjpeg, h264 and av1 can be written")),
    }
    if format.width == 0 || format.height == 0 || format.width > 0xffff || format.height > 0xffff {
        return refuse(format!("picture size {}x{}; each side must be 1 to 65535", format.width, format.height));
    }
    if format.fps == 0 || format.fps > FPS_MAX {
        return refuse(format!("{} frames per second; 1 to {FPS_MAX} can be written", format.fps));
    }
    if slots.is_empty() || slots.len() as u64 > SAMPLES_MAX {
        return refuse(format!("{} pictures; 1 to {SAMPLES_MAX} can be written", slots.len()));
    }
    let mut seen = vec![false; slots.len()];
    for (number, slot) in slots.iter().enumerate() {
        if slot.size == 0 || u64::from(slot.size) > SAMPLE_BYTES_MAX {
            return refuse(format!("picture {number} has {} bytes; 1 to {SAMPLE_BYTES_MAX} can be written", slot.size));
        }
        match seen.get_mut(slot.presentation as usize) {
            Some(place) if !*place => *place = true,
            Some(_) => {
                return refuse(format!(
                    "frame {} is there twice, the second time as picture {number}",
                    slot.presentation
                ));
            }
            None => {
                return refuse(format!(
                    "picture {number} is frame {}, but there are {} frames",
                    slot.presentation,
                    slots.len()
                ));
            }
        }
    }
    Ok(())
}

fn movie(format: Format<'_>, slots: &[Slot], first: u64, long: bool) -> Vec<u8> {
    let frames = slots.len() as u64;
    // Rounded up, so that an edit of this length shows the last frame.
    let movie_ticks =
        u32::try_from((frames * u64::from(MOVIE_TIMESCALE)).div_ceil(u64::from(format.fps))).unwrap_or(u32::MAX);
    let delay = delay_frames(slots);
    let mut out = Vec::new();
    put(&mut out, b"moov", |out| {
        put_full(out, b"mvhd", 0, 0, |out| {
            // Created and modified: unknown, so that equal pictures make equal files.
            put_u64(out, 0);
            put_u32(out, MOVIE_TIMESCALE);
            put_u32(out, movie_ticks);
            put_u32(out, 0x0001_0000);
            put_u16(out, 0x0100);
            out.extend_from_slice(&[0; 10]);
            put_matrix(out);
            out.extend_from_slice(&[0; 24]);
            put_u32(out, 2);
        });
        put(out, b"trak", |out| {
            // Flags: the track is enabled and in the movie.
            put_full(out, b"tkhd", 0, 3, |out| {
                put_u64(out, 0);
                put_u32(out, 1);
                put_u32(out, 0);
                put_u32(out, movie_ticks);
                out.extend_from_slice(&[0; 16]);
                put_matrix(out);
                put_u32(out, format.width << 16);
                put_u32(out, format.height << 16);
            });
            if delay > 0 {
                put(out, b"edts", |out| {
                    put_full(out, b"elst", 0, 0, |out| {
                        put_u32(out, 1);
                        put_u32(out, movie_ticks);
                        put_u32(out, delay * TICKS_PER_FRAME);
                        put_u32(out, 0x0001_0000);
                    });
                });
            }
            put(out, b"mdia", |out| media(out, format, slots, first, long, delay));
        });
    });
    out
}

fn media(out: &mut Vec<u8>, format: Format<'_>, slots: &[Slot], first: u64, long: bool, delay: u32) {
    let ticks = slots.len() as u64 * u64::from(TICKS_PER_FRAME);
    // SAMPLES_MAX is 2^22, so the duration fits 32 bits.
    let ticks = u32::try_from(ticks).unwrap_or(u32::MAX);
    put_full(out, b"mdhd", 0, 0, |out| {
        put_u64(out, 0);
        put_u32(out, format.fps * TICKS_PER_FRAME);
        put_u32(out, ticks);
        // "und": language not determined.
        put_u16(out, 0x55c4);
        put_u16(out, 0);
    });
    put_full(out, b"hdlr", 0, 0, |out| {
        put_u32(out, 0);
        out.extend_from_slice(b"vide");
        out.extend_from_slice(&[0; 12]);
        out.extend_from_slice(b"VideoHandler\0");
    });
    put(out, b"minf", |out| {
        put_full(out, b"vmhd", 0, 1, |out| put_u64(out, 0));
        put(out, b"dinf", |out| {
            put_full(out, b"dref", 0, 0, |out| {
                put_u32(out, 1);
                // Flag 1: the data is in this file.
                put_full(out, b"url ", 0, 1, |_| {});
            });
        });
        put(out, b"stbl", |out| {
            put_full(out, b"stsd", 0, 0, |out| {
                put_u32(out, 1);
                sample_entry(out, format, slots);
            });
            tables(out, format.fps, slots, first, long, delay);
        });
    });
}

fn sample_entry(out: &mut Vec<u8>, format: Format<'_>, slots: &[Slot]) {
    let kind = match format.codec {
        Codec::H264 => b"avc1",
        Codec::Av1 => b"av01",
        _ => b"mp4v",
    };
    let size_max = slots.iter().map(|slot| slot.size).max().unwrap_or(0);
    let total: u64 = slots.iter().map(|slot| u64::from(slot.size)).sum();
    let rate = u32::try_from(total * 8 * u64::from(format.fps) / slots.len().max(1) as u64).unwrap_or(u32::MAX);
    put(out, kind, |out| {
        out.extend_from_slice(&[0; 6]);
        put_u16(out, 1);
        out.extend_from_slice(&[0; 16]);
        // check() keeps both sides below 65536.
        put_u16(out, u16::try_from(format.width).unwrap_or(u16::MAX));
        put_u16(out, u16::try_from(format.height).unwrap_or(u16::MAX));
        put_u32(out, 0x0048_0000);
        put_u32(out, 0x0048_0000);
        put_u32(out, 0);
        put_u16(out, 1);
        out.extend_from_slice(&[0; 32]);
        put_u16(out, 24);
        put_u16(out, 0xffff);
        match format.codec {
            Codec::H264 => put(out, b"avcC", |out| out.extend_from_slice(format.config)),
            Codec::Av1 => put(out, b"av1C", |out| out.extend_from_slice(format.config)),
            _ => put_full(out, b"esds", 0, 0, |out| jpeg_descriptor(out, size_max, rate)),
        }
        put(out, b"pasp", |out| put_u64(out, 1 << 32 | 1));
    });
}

/// The elementary stream descriptor of MPEG-4 part 1 for JPEG pictures (object type 0x6C).
fn jpeg_descriptor(out: &mut Vec<u8>, size_max: u32, rate: u32) {
    out.extend_from_slice(&[0x03, 21]);
    // Stream number, as the track's; no dependencies.
    put_u16(out, 1);
    out.push(0);
    // Object type, stream type "visual" with its reserved bit, buffer size in 24 bits, bit rates.
    out.extend_from_slice(&[0x04, 13, 0x6c, 0x11]);
    out.extend_from_slice(&size_max.min(0x00ff_ffff).to_be_bytes()[1..]);
    put_u32(out, rate);
    put_u32(out, rate);
    // Synchronisation as MP4 files predefine it.
    out.extend_from_slice(&[0x06, 1, 0x02]);
}

fn tables(out: &mut Vec<u8>, fps: u32, slots: &[Slot], first: u64, long: bool, delay: u32) {
    let count = u32::try_from(slots.len()).unwrap_or(u32::MAX);
    put_full(out, b"stts", 0, 0, |out| {
        put_u32(out, 1);
        put_u32(out, count);
        put_u32(out, TICKS_PER_FRAME);
    });
    if slots.iter().any(|slot| !slot.key) {
        put_full(out, b"stss", 0, 0, |out| {
            put_u32(out, u32::try_from(slots.iter().filter(|slot| slot.key).count()).unwrap_or(u32::MAX));
            for (number, _) in (1..).zip(slots).filter(|(_, slot)| slot.key) {
                put_u32(out, number);
            }
        });
    }
    if delay > 0 {
        put_full(out, b"ctts", 0, 0, |out| compositions(out, slots, delay));
    }
    // A chunk is a second of pictures, as players like to read ahead by chunks.
    let per_chunk = fps.min(count);
    put_full(out, b"stsc", 0, 0, |out| {
        let left = count % per_chunk;
        put_u32(out, if left > 0 && count > per_chunk { 2 } else { 1 });
        for field in [1, per_chunk, 1] {
            put_u32(out, field);
        }
        if left > 0 && count > per_chunk {
            for field in [count / per_chunk + 1, left, 1] {
                put_u32(out, field);
            }
        }
    });
    put_full(out, b"stsz", 0, 0, |out| {
        put_u32(out, 0);
        put_u32(out, count);
        for slot in slots {
            put_u32(out, slot.size);
        }
    });
    put_full(out, if long { b"co64" } else { b"stco" }, 0, 0, |out| {
        put_u32(out, count.div_ceil(per_chunk));
        let mut offset = first;
        for chunk in slots.chunks(per_chunk as usize) {
            if long {
                put_u64(out, offset);
            } else {
                put_u32(out, u32::try_from(offset).unwrap_or(u32::MAX));
            }
            offset += chunk.iter().map(|slot| u64::from(slot.size)).sum::<u64>();
        }
    });
}

/// By how many frames showing must lag behind decoding so that no offset is negative.
fn delay_frames(slots: &[Slot]) -> u32 {
    (0u32..).zip(slots).map(|(number, slot)| number.saturating_sub(slot.presentation)).max().unwrap_or(0)
}

fn compositions(out: &mut Vec<u8>, slots: &[Slot], delay: u32) {
    let mut runs: Vec<(u32, u32)> = Vec::new();
    for (number, slot) in (0u32..).zip(slots) {
        // Not negative: delay is the largest lag of any frame.
        let offset = (slot.presentation + delay - number) * TICKS_PER_FRAME;
        match runs.last_mut() {
            Some((length, same)) if *same == offset => *length += 1,
            _ => runs.push((1, offset)),
        }
    }
    put_u32(out, u32::try_from(runs.len()).unwrap_or(u32::MAX));
    for (length, offset) in runs {
        put_u32(out, length);
        put_u32(out, offset);
    }
}

/// No rotation, no scaling.
fn put_matrix(out: &mut Vec<u8>) {
    for value in [0x0001_0000, 0, 0, 0, 0x0001_0000, 0, 0, 0, 0x4000_0000] {
        put_u32(out, value);
    }
}
