//! The coded pictures of one camera in one episode.

use std::path::Path;

use bytes::Bytes;
use tendon_protocol::stream::Content;

use super::file::{self, Expected};
use super::{SourceFeature, content_of};
use crate::episode::FeatureSpec;
use crate::mp4::demux::Mp4;

/// Most bytes of one camera in one episode: an hour of 4K at 8 Mbit/s.
const BYTES_MAX: u64 = 4 << 30;

/// One coded picture.
#[derive(Clone, Debug, PartialEq)]
pub struct Unit {
    /// JPEG or access unit, as it stands in the mp4.
    pub data: Bytes,
    /// Presentation time in seconds, counted from the start of the episode.
    pub pts: f64,
    /// Whether decoding can start here.
    pub key: bool,
    /// The row that shows it; `None` for pictures that no row shows.
    pub row: Option<u32>,
}

/// One camera of one episode.
#[derive(Clone, Debug, PartialEq)]
pub struct SourceCamera {
    /// What the feature is; size and coding are those of the video.
    pub spec: FeatureSpec,
    /// avcC or av1C record; empty for JPEG.
    pub config: Bytes,
    /// Coded pictures in decoding order.
    pub units: Vec<Unit>,
    /// Whether the first unit is a key frame. When not, decoders need pictures before this episode.
    pub starts_at_key: bool,
}

/// The part of a video that belongs to an episode.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) enum Span {
    /// All of it.
    Whole,
    /// From one time to another, exclusive, in seconds of the file.
    Seconds {
        /// First picture.
        from: f64,
        /// End.
        to: f64,
    },
}

/// Read the pictures of `span`; gives the camera and what is odd about it.
pub(super) fn read(
    path: &Path,
    feature: &SourceFeature,
    span: Span,
    rows: usize,
    fps: f64,
) -> Result<(SourceCamera, Vec<String>), String> {
    file::look(path, Expected::Mp4).map_err(|fault| format!("{fault}; {}", fault.remedy()))?;
    let mut mp4 = Mp4::open(path).map_err(|error| error.to_string())?;
    let track = mp4.track().clone();
    let content =
        content_of(track.codec).ok_or_else(|| format!("{} is not a coding that streams carry", track.codec))?;
    if content != feature.spec.content {
        return Err(format!("{} here, {:?} in the camera's first video", track.codec, feature.spec.content));
    }
    let nal_length = track.config.get(4).map_or(3, |byte| byte & 3);
    if content == Content::H264 && nal_length != 3 {
        return Err(format!("NAL lengths of {} bytes; only 4 are carried", nal_length + 1));
    }
    let mut odd: Vec<String> = mp4.fault().iter().map(ToString::to_string).collect();
    let shown = choose(&mp4, span, fps);
    let (units, starts_at_key) = units(&mut mp4, &shown, span, rows, &mut odd)?;
    let mut spec = feature.spec.clone();
    spec.shape = vec![track.height, track.width, 3];
    if !starts_at_key && !units.is_empty() {
        odd.push("the episode does not begin at a key frame".into());
    }
    Ok((SourceCamera { spec, config: track.config, units, starts_at_key }, odd))
}

/// Sample numbers of the span in presentation order.
fn choose(mp4: &Mp4<std::fs::File>, span: Span, fps: f64) -> Vec<usize> {
    let order = mp4.presentation_order();
    let Span::Seconds { from, to } = span else { return order };
    let half = 0.5 / mp4.average_fps().unwrap_or(fps).max(fps);
    let inside = |number: &usize| {
        let time = seconds(mp4, *number);
        time >= from - half && time < to - half
    };
    order.into_iter().filter(inside).collect()
}

#[expect(clippy::cast_precision_loss, reason = "ticks of real videos are far below 2^53")]
fn seconds(mp4: &Mp4<std::fs::File>, number: usize) -> f64 {
    mp4.samples()[number].pts as f64 / f64::from(mp4.track().timescale.max(1))
}

fn units(
    mp4: &mut Mp4<std::fs::File>,
    shown: &[usize],
    span: Span,
    rows: usize,
    odd: &mut Vec<String>,
) -> Result<(Vec<Unit>, bool), String> {
    let start = match span {
        Span::Whole => 0.0,
        Span::Seconds { from, .. } => from,
    };
    // Twice the frame rate with every frame doubled is legal: the first of each pair is the row's.
    let step =
        if rows > 0 && shown.len() >= 2 * rows && shown.len().is_multiple_of(rows) { shown.len() / rows } else { 1 };
    if shown.len() != rows * step {
        odd.push(format!("{} pictures for {rows} rows", shown.len()));
    }
    let mut numbered: Vec<(usize, Option<u32>)> = Vec::with_capacity(shown.len());
    for (place, number) in shown.iter().enumerate() {
        let row =
            (place.is_multiple_of(step) && place / step < rows).then(|| u32::try_from(place / step).ok()).flatten();
        numbered.push((*number, row));
    }
    numbered.sort_unstable();
    let (mut units, mut bytes) = (Vec::with_capacity(numbered.len()), 0_u64);
    let whole = mp4.whole();
    for (number, row) in numbered.into_iter().filter(|(number, _)| *number < whole) {
        let pts = seconds(mp4, number) - start;
        let key = mp4.samples()[number].key;
        let data = mp4.read_sample(number).map_err(|error| error.to_string())?;
        bytes += data.len() as u64;
        if bytes > BYTES_MAX {
            return Err(format!("over {BYTES_MAX} bytes of video in one episode"));
        }
        units.push(Unit { data, pts, key, row });
    }
    let starts_at_key = units.first().is_some_and(|unit| unit.key);
    Ok((units, starts_at_key))
}
