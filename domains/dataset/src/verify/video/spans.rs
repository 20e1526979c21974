//! Episodes inside a video: where each begins, and whether every row meets its picture.

use std::fs::File;

use super::super::code::Code;
use super::super::findings::Findings;
use super::super::rows::{Rows, TOLERANCE_S, number};
use super::super::{Place, Subject};
use super::VideoFile;
use super::track::seconds;
use crate::mp4::demux::Mp4;

/// One episode in a video.
#[derive(Debug)]
pub(super) struct Span<'a> {
    pub episode: u64,
    /// Rows of the data, or of the metadata where the data cannot be read.
    pub rows: u64,
    from: Option<f64>,
    to: Option<f64>,
    has_to: bool,
    times: &'a [f32],
    file: &'a str,
    row: u64,
}

impl<'a> Span<'a> {
    /// `None` when nobody says how many rows the episode has.
    pub(super) fn new(subject: &'a Subject, position: usize, camera: &str, rows: &'a Rows) -> Option<Self> {
        let entry = subject.episodes.rows.get(position)?;
        let episode = number(entry)?;
        let video = entry.videos.get(camera).copied().unwrap_or_default();
        let seen = rows.episode(episode);
        let stated = entry.length.and_then(|length| u64::try_from(length).ok());
        let to = video.to.filter(|to| to.is_finite());
        Some(Self {
            episode,
            rows: seen.map(|seen| seen.rows).or(stated)?,
            from: video.from.filter(|from| from.is_finite()),
            to,
            has_to: video.to.is_some(),
            times: seen.map_or(&[], |seen| seen.times.as_slice()),
            file: &entry.file,
            row: entry.row,
        })
    }

    fn place(&self) -> Place {
        Place::row(self.file, self.episode, self.row)
    }

    #[expect(clippy::cast_precision_loss, reason = "rows of an episode are far below 2^53")]
    fn duration(&self, fps: f64) -> f64 {
        self.rows as f64 / fps
    }
}

/// Check the spans of v3.0 and the picture of every row.
pub(super) fn check(subject: &Subject, video: &VideoFile, mp4: &Mp4<File>, spans: &[Span], findings: &mut Findings) {
    let Some(fps) = subject.info.fps() else { return };
    let pictures: Vec<f64> = mp4.presentation_order().into_iter().map(|sample| seconds(mp4, sample)).collect();
    let average = mp4.average_fps().unwrap_or(fps);
    let end = pictures.last().map_or(0.0, |last| last + 1.0 / average.max(fps));
    let half = 0.5 / average.max(fps);
    let mut placed: Vec<(f64, f64, &Span)> = Vec::new();
    for span in spans {
        let Some(from) = span.from else {
            findings.grouped(Code::VideoSpan, &video.camera, span.place(), || {
                format!("{}: from_timestamp is missing or not finite", video.camera)
            });
            continue;
        };
        let to = span.to.unwrap_or_else(|| from + span.duration(fps));
        shape(video, span, from, to, end, fps, findings);
        placed.push((from, to, span));
        every_row(video, span, from, &pictures, average, findings);
    }
    placed.sort_by(|left, right| left.0.total_cmp(&right.0));
    let mut before = 0.0;
    for (place, (from, to, span)) in placed.iter().enumerate() {
        if *from < before - half && place > 0 {
            findings.grouped(Code::VideoSpanOverlap, &video.camera, span.place(), || {
                format!(
                    "{}: episode {} begins at {from} s of {}, the one before ends at {before} s",
                    video.camera, span.episode, video.path
                )
            });
        } else if *from > before + half {
            findings.grouped(Code::VideoUnclaimed, &video.camera, span.place(), || {
                format!("{}: {before} s to {from} s of {} belong to no episode", video.camera, video.path)
            });
        }
        before = to.max(before);
    }
}

fn shape(video: &VideoFile, span: &Span, from: f64, to: f64, end: f64, fps: f64, findings: &mut Findings) {
    let camera = &video.camera;
    let duration = span.duration(fps);
    let off = ((to - from) - duration).abs() > 0.5 / fps;
    if from < -TOLERANCE_S || to <= from || off || (span.has_to && span.to.is_none()) {
        findings.grouped(Code::VideoSpan, camera, span.place(), || {
            format!(
                "{camera}: episode {} spans {from} s to {to} s, its {} rows take {duration:.6} s",
                span.episode, span.rows
            )
        });
    }
    if to > end + 0.5 / fps || from > end {
        findings.grouped(Code::VideoSpanEnd, camera, span.place(), || {
            format!("{camera}: episode {} spans {from} s to {to} s, {} ends at {end:.6} s", span.episode, video.path)
        });
    }
}

/// lerobot's two ways to find a row's picture, tried on every row.
fn every_row(video: &VideoFile, span: &Span, from: f64, pictures: &[f64], average: f64, findings: &mut Findings) {
    for (row, time) in span.times.iter().enumerate() {
        let wanted = from + f64::from(*time);
        let nearest = nearest(pictures, wanted);
        let by_number = by_number(pictures, wanted * average);
        let error = |found: Option<f64>| found.map_or(f64::INFINITY, |found| (found - wanted).abs());
        let worst = error(nearest).max(error(by_number));
        if worst < TOLERANCE_S {
            continue;
        }
        let size = if worst.is_finite() { worst } else { f64::MAX };
        let place = Place::row(&video.path, span.episode, row as u64);
        findings.sized(Code::VideoFrameTime, &format!("{} {}", video.camera, video.path), place, size, || {
            let show = |found: Option<f64>| found.map_or("none".into(), |found| format!("one at {found:.6} s"));
            format!(
                "{}: row {row} of episode {} is at {wanted:.6} s of the video; pyav finds {}, torchcodec {}",
                video.camera,
                span.episode,
                show(nearest),
                show(by_number)
            )
        });
    }
}

fn nearest(pictures: &[f64], wanted: f64) -> Option<f64> {
    let after = pictures.partition_point(|time| *time < wanted);
    let around = [after.checked_sub(1), Some(after)].into_iter().flatten().filter_map(|at| pictures.get(at).copied());
    around.min_by(|left, right| (left - wanted).abs().total_cmp(&(right - wanted).abs()))
}

fn by_number(pictures: &[f64], number: f64) -> Option<f64> {
    let number = number.round_ties_even();
    #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "checked to be in 0 .. 2^52")]
    let at = (0.0..4.5e15).contains(&number).then_some(number as usize)?;
    pictures.get(at).copied()
}

/// v2: one file an episode; the k-th picture is the k-th row's, whatever the clock says.
pub(super) fn drift(video: &VideoFile, mp4: &Mp4<File>, spans: &[Span], findings: &mut Findings) {
    let order = mp4.presentation_order();
    for span in spans {
        let mut worst = (0, 0.0_f64);
        for (row, (time, sample)) in span.times.iter().zip(&order).enumerate() {
            let off = f64::from(*time) - seconds(mp4, *sample);
            if off.abs() > worst.1.abs() {
                worst = (row, off);
            }
        }
        if worst.1.abs() >= TOLERANCE_S {
            let place = Place::row(&video.path, span.episode, worst.0 as u64);
            findings.sized(Code::VideoDrift, &video.camera, place, worst.1.abs(), || {
                format!("{}: the timestamp of row {} is {:+.4} s off its picture", video.camera, worst.0, worst.1)
            });
        }
    }
}
