//! Exactly one picture per row.

use bytes::Bytes;
use tendon_protocol::batch::flag;
use tendon_protocol::stream::Content;

use super::pair::{Pick, Sorted};
use super::{FILLED, FeatureRows, HELD, Reencode, RowsError, Shown, SourceUnit};
use crate::episode::{Camera, FeatureSpec, Picture};
use crate::jpeg;
use crate::samples::MediaSample;
use crate::samples::cut::CutStream;

/// A camera's pictures, capture times and flags, and what is left to encode.
pub(super) fn camera(
    stream: &CutStream,
    spec: FeatureSpec,
    sorted: &Sorted,
    picks: &[Option<Pick>],
    counted: &mut FeatureRows,
) -> Result<(Camera, Shown, Option<Reencode>), RowsError> {
    if matches!(spec.content, Content::Jpeg) {
        let (camera, shown) = pictures(stream, spec, sorted, picks, counted)?;
        return Ok((camera, shown, None));
    }
    units(stream, spec, picks, counted)
}

/// Width and height that a camera's shape states.
fn declared_size(spec: &FeatureSpec) -> (u32, u32) {
    let side = |at: usize| spec.shape.get(at).copied().unwrap_or(0);
    (side(1), side(0))
}

/// JPEGs, unchanged; a row without a good one shows the last good one again.
fn pictures(
    stream: &CutStream,
    spec: FeatureSpec,
    sorted: &Sorted,
    picks: &[Option<Pick>],
    counted: &mut FeatureRows,
) -> Result<(Camera, Shown), RowsError> {
    let media = &stream.samples.media;
    let size = declared_size(&spec);
    count_bad(media, size, &spec, counted)?;
    let scans = Scans::of(media, size, sorted, picks);
    scans.count(media, counted);
    let is_good = |sample: usize| media[sample].size == Some(size) && !scans.is_broken(sample);
    let last_good = sorted.last_good(is_good);
    let mut used = vec![false; media.len()];
    let mut black: Option<Bytes> = None;
    let mut camera = Camera { spec, config: Bytes::new(), pictures: Vec::with_capacity(picks.len()) };
    let (mut times, mut flags) = (Vec::with_capacity(picks.len()), Vec::with_capacity(picks.len()));
    for (row, pick) in picks.iter().enumerate() {
        let (shown, added) = match pick {
            Some(Pick::Fresh(sample)) if is_good(*sample) => (Some(*sample), 0),
            Some(Pick::Fresh(sample) | Pick::Held(sample)) => {
                let broken = if scans.is_broken(*sample) { flag::UNDECODABLE } else { 0 };
                (last_good[*sample], FILLED | media[*sample].flags & flag::UNDECODABLE | broken)
            }
            Some(Pick::Later(_)) | None => (None, FILLED),
        };
        counted.filled += usize::from(added & FILLED != 0);
        let data = match shown {
            Some(sample) => {
                used[sample] = true;
                times.push(stream.times_ns[sample]);
                flags.push(media[sample].flags & !(FILLED | HELD) | added);
                media[sample].data.clone()
            }
            None => {
                times.push(0);
                flags.push(added);
                let picture = match black.take() {
                    Some(picture) => picture,
                    None => jpeg::black(size.0, size.1)
                        .map_err(|why| RowsError::Black { feature: camera.spec.key.clone(), why })?,
                };
                black.insert(picture).clone()
            }
        };
        camera.pictures.push(Picture { data, key: true, row: row_number(row) });
    }
    counted.unused = used.iter().filter(|used| !**used).count();
    Ok((camera, (times, flags)))
}

/// Which pictures with a sound header have pixels that do not decode.
///
/// The decoder (zune-jpeg, not strict) forgives damage inside a baseline scan, as other readers do: one
/// that ends early or holds wrong bits gives grey or wrong colours from there on. Such pictures count as
/// good. Broken are those that give no pixels: tables that are wrong or missing, damaged progressive scans.
struct Scans(Vec<Option<bool>>);

impl Scans {
    /// Decodes what the rows would show, each picture once. When one of them is broken another one
    /// takes its place, so then all the others are decoded as well.
    fn of(media: &[MediaSample], size: (u32, u32), sorted: &Sorted, picks: &[Option<Pick>]) -> Self {
        let is_sized = |sample: usize| media[sample].size == Some(size);
        let last_sized = sorted.last_good(is_sized);
        let mut scans = Self(vec![None; media.len()]);
        let shown = picks.iter().filter_map(|pick| match pick {
            Some(Pick::Fresh(sample) | Pick::Held(sample)) => last_sized[*sample],
            Some(Pick::Later(_)) | None => None,
        });
        for sample in shown {
            scans.decode(media, sample);
        }
        if scans.0.contains(&Some(false)) {
            (0..media.len()).filter(|sample| is_sized(*sample)).for_each(|sample| scans.decode(media, sample));
        }
        scans
    }

    fn decode(&mut self, media: &[MediaSample], sample: usize) {
        self.0[sample].get_or_insert_with(|| jpeg::decode_rgb(&media[sample].data).is_ok());
    }

    fn is_broken(&self, sample: usize) -> bool {
        self.0[sample] == Some(false)
    }

    fn count(&self, media: &[MediaSample], counted: &mut FeatureRows) {
        for (sample, _) in media.iter().zip(&self.0).filter(|(_, scan)| **scan == Some(false)) {
            counted.undecodable += 1;
            let first = counted.first_undecodable.map_or(sample.sequence, |first| first.min(sample.sequence));
            counted.first_undecodable = Some(first);
        }
    }
}

fn count_bad(
    media: &[MediaSample],
    size: (u32, u32),
    spec: &FeatureSpec,
    counted: &mut FeatureRows,
) -> Result<(), RowsError> {
    for sample in media {
        match sample.size {
            Some(got) if got != size => {
                counted.resized += 1;
                counted.first_resized = counted.first_resized.or(Some(sample.sequence));
            }
            Some(_) => {}
            None => {
                counted.undecodable += 1;
                counted.first_undecodable = counted.first_undecodable.or(Some(sample.sequence));
            }
        }
    }
    // One picture of another size is a fault of the camera; all of them are one of the declaration.
    match media.iter().find_map(|sample| sample.size) {
        Some(got) if counted.resized + counted.undecodable == media.len() => {
            Err(RowsError::CameraSize { feature: spec.key.clone(), declared: size, got, pictures: media.len() })
        }
        _ => Ok(()),
    }
}

/// Coded units: unchanged when they fit the rows one to one, else left to an encoder.
fn units(
    stream: &CutStream,
    spec: FeatureSpec,
    picks: &[Option<Pick>],
    counted: &mut FeatureRows,
) -> Result<(Camera, Shown, Option<Reencode>), RowsError> {
    let samples = &stream.samples;
    let (mut times, mut flags) = (Vec::with_capacity(picks.len()), Vec::with_capacity(picks.len()));
    let mut row_of: Vec<Option<usize>> = vec![None; samples.count()];
    let mut is_one_to_one = true;
    for (row, pick) in picks.iter().enumerate() {
        let shown = match pick {
            Some(Pick::Fresh(sample)) => Some((*sample, 0)),
            Some(Pick::Held(sample)) => Some((*sample, FILLED)),
            Some(Pick::Later(_)) | None => None,
        };
        let Some((sample, added)) = shown else {
            times.push(0);
            flags.push(FILLED);
            counted.filled += 1;
            is_one_to_one = false;
            continue;
        };
        counted.filled += usize::from(added != 0);
        is_one_to_one &= added == 0 && row_of[sample].is_none();
        row_of[sample] = row_of[sample].or(Some(row));
        times.push(stream.times_ns[sample]);
        flags.push(samples.flags[sample] & !(FILLED | HELD) | added);
    }
    counted.unused = row_of.iter().filter(|row| row.is_none()).count();
    let all = all_units(stream, &spec)?;
    let why = if !is_one_to_one || counted.unused > 0 {
        Some(format!("{} units for {} rows do not pair one to one", samples.count(), picks.len()))
    } else {
        why_not_as_they_are(stream, &all)
    };
    let mut camera = Camera { spec, config: Bytes::new(), pictures: Vec::new() };
    let Some(why) = why else {
        camera.config = all.configs.into_iter().next().unwrap_or_default();
        let pictures = samples.media.iter().zip(&row_of).map(|(unit, row)| Picture {
            data: unit.data.clone(),
            key: unit.flags & flag::KEY != 0,
            row: row_number(row.unwrap_or(0)),
        });
        camera.pictures = pictures.collect();
        return Ok((camera, (times, flags), None));
    };
    let place = |pick: &Option<Pick>| match pick {
        Some(Pick::Fresh(sample) | Pick::Held(sample)) => all.place_of.get(*sample).copied(),
        Some(Pick::Later(_)) | None => None,
    };
    let rows = picks.iter().map(place).collect();
    Ok((camera, (times, flags), Some(Reencode { camera: 0, why, configs: all.configs, units: all.units, rows })))
}

/// What else must hold for units to be muxed unchanged.
fn why_not_as_they_are(stream: &CutStream, all: &AllUnits) -> Option<String> {
    let samples = &stream.samples;
    if !stream.support.is_empty() {
        let sequence = stream.support[0].sequence;
        return Some(format!("decoding needs unit {sequence}, which lies outside the episode"));
    }
    if samples.media.first().is_some_and(|unit| unit.flags & flag::KEY == 0) {
        return Some(format!("the first unit, {}, is no key unit", samples.media[0].sequence));
    }
    if let Some((first, last)) =
        samples.holes.first().copied().or(samples.lost.first().map(|lost| (lost.first, lost.last)))
    {
        return Some(format!("units {first} to {last} are missing"));
    }
    (all.configs.len() > 1).then(|| "the configuration changes within the episode".to_owned())
}

struct AllUnits {
    configs: Vec<Bytes>,
    /// In decoding order.
    units: Vec<SourceUnit>,
    /// Place in `units` of each sample.
    place_of: Vec<u32>,
}

/// Units inside and those that they need, each with the configuration that applies to it.
fn all_units(stream: &CutStream, spec: &FeatureSpec) -> Result<AllUnits, RowsError> {
    let samples = &stream.samples;
    let mut all = AllUnits { configs: Vec::new(), units: Vec::new(), place_of: vec![0; samples.count()] };
    let inside = samples.media.iter().enumerate().map(|(sample, unit)| (unit, Some(sample)));
    let mut units: Vec<(&MediaSample, Option<usize>)> =
        inside.chain(stream.support.iter().map(|unit| (unit, None))).collect();
    units.sort_by_key(|unit| unit.0.sequence);
    for (place, (unit, sample)) in units.iter().enumerate() {
        let before = samples.configs.partition_point(|config| config.sequence < unit.sequence);
        let Some(config) = before.checked_sub(1).map(|at| &samples.configs[at].data) else {
            return Err(RowsError::NoConfig { feature: spec.key.clone(), units: units.len() });
        };
        if all.configs.last() != Some(config) {
            all.configs.push(config.clone());
        }
        all.units.push(SourceUnit {
            data: unit.data.clone(),
            key: unit.flags & flag::KEY != 0,
            config: row_number(all.configs.len() - 1),
            capture_ns: unit.capture_ns,
        });
        if let Some(sample) = sample {
            all.place_of[*sample] = row_number(place);
        }
    }
    Ok(all)
}

/// Rows and units of an episode are bounded far below 32 bits.
fn row_number(row: usize) -> u32 {
    u32::try_from(row).unwrap_or(u32::MAX)
}
