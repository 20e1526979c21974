//! The sample tables and the sample entry of a track, read from the `stbl` box.

use bytes::Bytes;

use super::boxes::Cursor;
use super::demux::{SAMPLES_MAX, Sample};
use super::{Codec, Mp4Error};

/// What the sample entry says.
pub(super) struct Entry {
    pub(super) codec: Codec,
    pub(super) width: u32,
    pub(super) height: u32,
    pub(super) config: Bytes,
}

/// Reads the first sample entry of `stsd`.
pub(super) fn read_entry(mut list: Cursor<'_>) -> Result<Entry, Mp4Error> {
    list.version()?;
    if list.u32()? == 0 {
        return Err(list.error("has no sample entry"));
    }
    let Some(mut entry) = list.child()? else {
        return Err(list.error("has no sample entry"));
    };
    let kind = entry.kind();
    entry.take(24)?;
    let (width, height) = (u32::from(entry.u16()?), u32::from(entry.u16()?));
    entry.take(50)?;
    let config = |entry: Cursor<'_>, name: &[u8; 4]| -> Result<Bytes, Mp4Error> {
        Ok(entry.find(name)?.map(|record| Bytes::copy_from_slice(record.rest())).unwrap_or_default())
    };
    let (codec, config) = match &kind {
        b"avc1" | b"avc2" | b"avc3" | b"avc4" => (Codec::H264, config(entry, b"avcC")?),
        b"hvc1" | b"hev1" => (Codec::Hevc, config(entry, b"hvcC")?),
        b"av01" => (Codec::Av1, config(entry, b"av1C")?),
        b"vp09" => (Codec::Vp9, config(entry, b"vpcC")?),
        b"jpeg" | b"mjpa" | b"mjpg" => (Codec::Mjpeg, Bytes::new()),
        b"mp4v" => match entry.find(b"esds")? {
            Some(esds) => (coded_as(esds)?, Bytes::copy_from_slice(esds.rest())),
            None => (Codec::Mpeg4, Bytes::new()),
        },
        other => (Codec::Other(*other), Bytes::new()),
    };
    Ok(Entry { codec, width, height, config })
}

/// The codec that an MPEG-4 elementary stream descriptor names by its object type.
fn coded_as(mut esds: Cursor<'_>) -> Result<Codec, Mp4Error> {
    esds.version()?;
    descriptor(&mut esds, 0x03)?;
    esds.take(2)?;
    let flags = esds.u8()?;
    if flags & 0x80 != 0 {
        esds.take(2)?;
    }
    if flags & 0x40 != 0 {
        let length = usize::from(esds.u8()?);
        esds.take(length)?;
    }
    if flags & 0x20 != 0 {
        esds.take(2)?;
    }
    descriptor(&mut esds, 0x04)?;
    Ok(match esds.u8()? {
        0x20 => Codec::Mpeg4,
        0x21 => Codec::H264,
        0x23 => Codec::Hevc,
        0x6c => Codec::Mjpeg,
        other => Codec::Other([b'm', b'4', b'v', other]),
    })
}

/// Steps over a descriptor's tag and its length of one to four bytes.
fn descriptor(esds: &mut Cursor<'_>, tag: u8) -> Result<(), Mp4Error> {
    let got = esds.u8()?;
    if got != tag {
        return Err(esds.error(format!("descriptor {got:#04x} where {tag:#04x} belongs")));
    }
    for _ in 0..4 {
        if esds.u8()? & 0x80 == 0 {
            return Ok(());
        }
    }
    Err(esds.error("descriptor length has more than four bytes"))
}

/// All samples of the tables, the sum of their durations in ticks, and what the tables disagree about.
/// `pts` is dts plus composition offset here; the edit list comes later.
pub(super) fn read(tables: Cursor<'_>, file_bytes: u64) -> Result<(Vec<Sample>, u64, Option<Mp4Error>), Mp4Error> {
    let sizes = Sizes::read(tables, file_bytes)?;
    let mut samples = Vec::with_capacity(sizes.count);
    for number in 0..sizes.count {
        samples.push(Sample { offset: 0, size: sizes.size(number), dts: 0, pts: 0, key: true, shown: true });
    }
    if samples.is_empty() {
        return Ok((samples, 0, None));
    }
    let mut fault = None;
    let placed = place(tables, &mut samples)?;
    let (timed, ticks) = time(tables, &mut samples)?;
    let kept = placed.min(timed);
    if kept < samples.len() {
        let what = format!("sizes of {} samples, but places for {placed} and times for {timed}", samples.len());
        fault = Some(tables.error(what));
        samples.truncate(kept);
    }
    compose(tables, &mut samples)?;
    mark_keys(tables, &mut samples)?;
    Ok((samples, ticks, fault))
}

/// `stsz` or `stz2`.
struct Sizes<'a> {
    count: usize,
    /// Same for all when not 0.
    uniform: u32,
    bits: usize,
    table: &'a [u8],
}

impl<'a> Sizes<'a> {
    fn read(tables: Cursor<'a>, file_bytes: u64) -> Result<Self, Mp4Error> {
        let (sizes, compact) = match tables.find(b"stsz")? {
            Some(sizes) => (Some(sizes), false),
            None => (tables.find(b"stz2")?, true),
        };
        let Some(mut sizes) = sizes else {
            return Err(tables.error("has neither stsz nor stz2 inside"));
        };
        sizes.version()?;
        let word = sizes.u32()?;
        let (uniform, bits) = if compact { (0, (word & 0xff) as usize) } else { (word, 32) };
        if !matches!(bits, 4 | 8 | 16 | 32) {
            return Err(sizes.error(format!("field size of {bits} bits; 4, 8 and 16 are legal")));
        }
        let count = u64::from(sizes.u32()?);
        if count > SAMPLES_MAX {
            return Err(Mp4Error::TooLarge { what: "number of samples", got: count, limit: SAMPLES_MAX });
        }
        // A sample has at least one byte, so a cut file aside there cannot be more samples than bytes.
        if uniform > 0 && count > file_bytes {
            return Err(sizes.error(format!("{count} samples of {uniform} bytes in a file of {file_bytes}")));
        }
        let count = usize::try_from(count).unwrap_or(usize::MAX);
        let table = if uniform > 0 { &[][..] } else { sizes.take((count * bits).div_ceil(8))? };
        Ok(Self { count, uniform, bits, table })
    }

    fn size(&self, number: usize) -> u32 {
        if self.uniform > 0 {
            return self.uniform;
        }
        let byte = |at: usize| u32::from(self.table.get(at).copied().unwrap_or(0));
        match self.bits {
            4 if number.is_multiple_of(2) => byte(number / 2) >> 4,
            4 => byte(number / 2) & 15,
            8 => byte(number),
            16 => byte(number * 2) << 8 | byte(number * 2 + 1),
            _ => byte(number * 4) << 24 | byte(number * 4 + 1) << 16 | byte(number * 4 + 2) << 8 | byte(number * 4 + 3),
        }
    }
}

/// Gives offsets from `stsc` and `stco` or `co64`; returns how many samples have a place.
fn place(tables: Cursor<'_>, samples: &mut [Sample]) -> Result<usize, Mp4Error> {
    let (mut chunks, long) = match tables.find(b"stco")? {
        Some(chunks) => (chunks, false),
        None => (tables.need(b"co64")?, true),
    };
    chunks.version()?;
    let count = chunks.count(if long { 8 } else { 4 })?;
    let mut runs = tables.need(b"stsc")?;
    runs.version()?;
    let mut runs_left = runs.count(12)?;
    // The run in force, and the chunk (from 1) at which the next one takes over.
    let (mut per_chunk, mut next) = (0, None);
    if runs_left > 0 {
        next = Some((runs.u32()?, runs.u32()?));
        runs.take(4)?;
        runs_left -= 1;
    }
    let mut number = 0;
    for chunk in 1..=count {
        let mut offset = if long { chunks.u64()? } else { u64::from(chunks.u32()?) };
        while let Some((first, length)) = next.filter(|(first, _)| *first as usize <= chunk) {
            per_chunk = length;
            next = None;
            if runs_left > 0 {
                let following = (runs.u32()?, runs.u32()?);
                runs.take(4)?;
                runs_left -= 1;
                if following.0 <= first {
                    return Err(runs.error(format!("run from chunk {} follows one from chunk {first}", following.0)));
                }
                next = Some(following);
            }
        }
        for _ in 0..per_chunk {
            let Some(sample) = samples.get_mut(number) else {
                return Ok(number);
            };
            sample.offset = offset;
            offset = offset.saturating_add(u64::from(sample.size));
            number += 1;
        }
    }
    Ok(number)
}

/// Gives decoding times from `stts`; returns how many samples have one and the sum of durations.
fn time(tables: Cursor<'_>, samples: &mut [Sample]) -> Result<(usize, u64), Mp4Error> {
    let mut runs = tables.need(b"stts")?;
    runs.version()?;
    let (mut number, mut dts) = (0, 0u64);
    for _ in 0..runs.count(8)? {
        let (length, delta) = (runs.u32()?, runs.u32()?);
        for _ in 0..length {
            let Some(sample) = samples.get_mut(number) else {
                return Ok((number, dts));
            };
            sample.dts = dts.cast_signed();
            // At most SAMPLES_MAX (2^22) times 2^32: no overflow.
            dts += u64::from(delta);
            number += 1;
        }
    }
    Ok((number, dts))
}

/// Sets pts from dts and `ctts`. Offsets are read as signed in both versions, as ffmpeg does.
fn compose(tables: Cursor<'_>, samples: &mut [Sample]) -> Result<(), Mp4Error> {
    for sample in &mut *samples {
        sample.pts = sample.dts;
    }
    let Some(mut runs) = tables.find(b"ctts")? else {
        return Ok(());
    };
    runs.version()?;
    let mut number = 0;
    for _ in 0..runs.count(8)? {
        let (length, offset) = (runs.u32()?, i64::from(runs.i32()?));
        for _ in 0..length {
            let Some(sample) = samples.get_mut(number) else {
                return Ok(());
            };
            sample.pts += offset;
            number += 1;
        }
    }
    Ok(())
}

/// Marks key pictures from `stss`; without that box every sample is one.
fn mark_keys(tables: Cursor<'_>, samples: &mut [Sample]) -> Result<(), Mp4Error> {
    let Some(mut keys) = tables.find(b"stss")? else {
        return Ok(());
    };
    keys.version()?;
    for sample in &mut *samples {
        sample.key = false;
    }
    for _ in 0..keys.count(4)? {
        let number = keys.u32()? as usize;
        if let Some(sample) = number.checked_sub(1).and_then(|index| samples.get_mut(index)) {
            sample.key = true;
        }
    }
    Ok(())
}
