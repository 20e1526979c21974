//! One video by itself: size, coding, rate, time base, number of pictures.

use std::fs::File;

use serde_json::Value;

use super::super::code::Code;
use super::super::findings::Findings;
use super::super::rows::TOLERANCE_S;
use super::super::{Place, Subject, info};
use super::VideoFile;
use super::spans::Span;
use crate::lerobot::reader::raw_info::RawFeature;
use crate::mp4::demux::Mp4;

/// Share by which a mean rate may differ: the last picture's length is a matter of taste.
const RATE_SLACK: f64 = 5e-4;

/// How many pictures the video has for each row: 1, or more where its rate is a multiple of fps.
pub(super) fn pictures_per_row(mp4: &Mp4<File>, fps: f64) -> usize {
    let ratio = mp4.average_fps().map_or(1.0, |average| (average / fps).round());
    #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "clamped to 1 .. 64")]
    let whole = ratio.clamp(1.0, 64.0) as usize;
    whole
}

#[expect(clippy::cast_precision_loss, reason = "ticks of real videos are far below 2^53")]
pub(super) fn seconds(mp4: &Mp4<File>, sample: usize) -> f64 {
    mp4.samples()[sample].pts as f64 / f64::from(mp4.track().timescale.max(1))
}

pub(super) fn check(
    subject: &Subject,
    video: &VideoFile,
    feature: &RawFeature,
    mp4: &Mp4<File>,
    spans: &[Span],
    findings: &mut Findings,
) {
    size_and_coding(video, feature, mp4, findings);
    let order = mp4.presentation_order();
    let (key, path) = (&video.camera, &video.path);
    if mp4.samples().first().is_some_and(|sample| !sample.key) {
        findings.grouped(Code::VideoNoKeyFrame, key, Place::file(path), || "the first picture is no key frame".into());
    }
    if let Some(first) = order.first().map(|sample| seconds(mp4, *sample)).filter(|first| first.abs() >= TOLERANCE_S) {
        findings
            .grouped(Code::VideoFirstPts, key, Place::file(path), || format!("the first picture is at {first:.6} s"));
    }
    let Some(fps) = subject.info.fps() else { return };
    rate(video, feature, mp4, fps, findings);
    count(video, mp4, order.len(), spans, fps, findings);
}

fn size_and_coding(video: &VideoFile, feature: &RawFeature, mp4: &Mp4<File>, findings: &mut Findings) {
    let (key, track) = (&video.camera, mp4.track());
    let place = || Place::file(&video.path);
    if let Some((height, width)) = feature.picture_size()
        && (height, width) != (track.height, track.width)
    {
        findings.grouped(Code::VideoSize, key, place(), || {
            format!("{key}: the shape says {width}x{height}, the video is {}x{}", track.width, track.height)
        });
    }
    let stated = feature.info("codec").and_then(Value::as_str).map(plain_codec);
    if let Some(stated) = stated.filter(|stated| *stated != track.codec.name()) {
        findings.grouped(Code::VideoInfo, &format!("{key} codec"), Place::file(info::PATH), || {
            format!("{key}: info says codec {stated}, {} is {}", video.path, track.codec)
        });
    }
    for (name, real) in [("height", track.height), ("width", track.width)] {
        if let Some(stated) = feature.info(name).and_then(Value::as_f64).filter(|stated| *stated != f64::from(real)) {
            findings.grouped(Code::VideoInfo, &format!("{key} {name}"), Place::file(info::PATH), || {
                format!("{key}: info says {name} {stated}, {} has {real}", video.path)
            });
        }
    }
}

/// Names of encoders and containers for the same coding.
fn plain_codec(name: &str) -> String {
    match name.to_ascii_lowercase().as_str() {
        "libsvtav1" | "libaom-av1" | "av01" | "av1_nvenc" => "av1".into(),
        "libx264" | "avc1" | "avc" | "h264_nvenc" | "h264_videotoolbox" | "h264_vaapi" | "h264_qsv" => "h264".into(),
        "libx265" | "hvc1" | "hev1" | "h265" | "hevc_nvenc" | "hevc_videotoolbox" => "hevc".into(),
        "mp4v" => "mpeg4".into(),
        "vp09" | "libvpx-vp9" => "vp9".into(),
        "jpeg" | "mjpg" => "mjpeg".into(),
        other => other.to_owned(),
    }
}

fn rate(video: &VideoFile, feature: &RawFeature, mp4: &Mp4<File>, fps: f64, findings: &mut Findings) {
    let (key, scale) = (&video.camera, f64::from(mp4.track().timescale.max(1)));
    let place = || Place::file(&video.path);
    let ticks = scale / fps;
    if (ticks - ticks.round()).abs() > 1e-9 * ticks && 0.5 / scale >= TOLERANCE_S {
        findings.grouped(Code::VideoTimeBase, key, place(), || {
            format!("time base 1/{scale}: {fps} fps is off by up to {:.2} ms, 0.1 ms is allowed", 500.0 / scale)
        });
    }
    let Some(average) = mp4.average_fps() else { return };
    let ratio = average / fps;
    if ratio.round() < 1.0 || (ratio - ratio.round()).abs() > RATE_SLACK * ratio.round() {
        findings.grouped(Code::VideoFps, key, place(), || {
            format!("{average:.4} pictures a second on average, fps is {fps}")
        });
    }
    let stated = feature.info("fps").and_then(Value::as_f64);
    if let Some(stated) = stated.filter(|stated| (stated - average).abs() > RATE_SLACK * average) {
        findings.grouped(Code::VideoInfo, &format!("{key} fps"), Place::file(info::PATH), || {
            format!("{key}: info says fps {stated}, {} has {average:.4}", video.path)
        });
    }
}

/// Pictures of the file against the rows of all its episodes together.
fn count(video: &VideoFile, mp4: &Mp4<File>, pictures: usize, spans: &[Span], fps: f64, findings: &mut Findings) {
    let (key, path) = (&video.camera, &video.path);
    if spans.len() < video.episodes.len() {
        return;
    }
    let rows: u64 = spans.iter().map(|span| span.rows).sum();
    let per_row = pictures_per_row(mp4, fps);
    let wanted = rows.saturating_mul(per_row as u64);
    let found = pictures as u64;
    let episodes = spans.len();
    let place = || Place { file: path.clone(), episode: (episodes == 1).then(|| spans[0].episode), row: None };
    if found > wanted {
        findings.grouped(Code::VideoExtra, key, place(), || {
            format!("{found} pictures for {rows} rows of {episodes} episodes, {} too many", found - wanted)
        });
    } else if found + 1 == wanted && ends_one_early(mp4, wanted, fps) {
        findings.grouped(Code::VideoOneShort, key, place(), || {
            format!("{found} pictures for {rows} rows of {episodes} episodes: the last is missing")
        });
    } else if found < wanted {
        findings.grouped(Code::VideoFrames, key, place(), || {
            format!("{found} pictures for {rows} rows of {episodes} episodes, {} missing", wanted - found)
        });
    }
}

/// Whether the one picture that is missing is the last: the others are where they should be.
fn ends_one_early(mp4: &Mp4<File>, wanted: u64, fps: f64) -> bool {
    let order = mp4.presentation_order();
    let Some(last) = order.last().map(|sample| seconds(mp4, *sample)) else {
        return false;
    };
    #[expect(clippy::cast_precision_loss, reason = "pictures of a file are far below 2^53")]
    let expected = wanted.saturating_sub(2) as f64 / fps;
    (last - expected).abs() < 0.5 / fps
}
