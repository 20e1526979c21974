//! Checks of the videos: are they there, are they whole, and does every row meet its picture.
//!
//! Only indexes are read, no picture is decoded. Episodes are grouped by file, and a file is compared
//! with the sum of its episodes: one file may hold many.

use std::collections::BTreeMap;

use super::code::Code;
use super::findings::Findings;
use super::rows::{Rows, number};
use super::{Place, Progress, Subject};
use crate::lerobot::reader::episode::video_path;
use crate::lerobot::reader::file::{self, Expected};
use crate::lerobot::reader::raw_info::RawFeature;
use crate::mp4::Mp4Error;
use crate::mp4::demux::Mp4;

mod spans;
mod track;

use spans::Span;

/// The videos to read.
#[derive(Debug, Default)]
pub(super) struct Plan {
    /// By camera, then path.
    pub files: Vec<VideoFile>,
}

/// One video and the episodes in it.
#[derive(Debug)]
pub(super) struct VideoFile {
    camera: String,
    path: String,
    /// Positions in the table of episodes.
    episodes: Vec<usize>,
}

/// Find out which videos there should be, note them as expected, and report those that are missing.
pub(super) fn plan(subject: &mut Subject, findings: &mut Findings) -> Plan {
    let mut plan = Plan::default();
    let cameras: Vec<String> = subject.info.videos().map(|feature| feature.key.clone()).collect();
    for camera in cameras {
        let mut named: BTreeMap<String, Vec<usize>> = BTreeMap::new();
        for (position, row) in subject.episodes.rows.iter().enumerate() {
            let Some(index) = number(row) else { continue };
            let known = subject.version.is_v2()
                || row.videos.get(&camera).is_some_and(|video| video.chunk.is_some() && video.file.is_some());
            match video_path(&subject.info, subject.version, index, row, &camera) {
                Ok(path) if known => named.entry(path).or_default().push(position),
                _ if subject.blind.contains(&camera) => {}
                _ => subject.blind.push(camera.clone()),
            }
        }
        let all = named.len();
        subject.expected.extend(named.keys().cloned());
        let (there, missing): (Vec<_>, Vec<_>) =
            named.into_iter().partition(|(path, _)| subject.root.join(path).exists());
        if let Some((path, episodes)) = missing.first() {
            let first = number(&subject.episodes.rows[episodes[0]]);
            let code =
                if there.is_empty() && subject.version.is_v2() { Code::CameraWithoutVideo } else { Code::VideoMissing };
            let place = Place { file: path.clone(), episode: first, row: None };
            let gone = missing.len();
            findings.grouped(code, &camera, place, || {
                format!("{camera}: {gone} of {all} videos are missing, {path} first")
            });
        }
        plan.files.extend(there.into_iter().map(|(path, episodes)| VideoFile {
            camera: camera.clone(),
            path,
            episodes,
        }));
    }
    plan
}

/// Check all videos that are there.
pub(super) fn check(subject: &Subject, plan: &Plan, rows: &Rows, findings: &mut Findings, progress: &mut Progress) {
    for video in &plan.files {
        if let Some(feature) = subject.info.feature(&video.camera) {
            one_file(subject, video, feature, rows, findings);
        }
        progress.step();
    }
}

fn one_file(subject: &Subject, video: &VideoFile, feature: &RawFeature, rows: &Rows, findings: &mut Findings) {
    let path = subject.root.join(&video.path);
    if let Err(fault) = file::look(&path, Expected::Mp4) {
        findings.file(&video.path, &fault);
        return;
    }
    let mp4 = match Mp4::open(&path) {
        Ok(mp4) => mp4,
        Err(error) => {
            findings.add(fault_code(&error), Place::file(&video.path), || error.to_string());
            return;
        }
    };
    if let Some(fault) = mp4.fault() {
        findings.add(fault_code(fault), Place::file(&video.path), || fault.to_string());
    }
    let spans: Vec<Span> =
        video.episodes.iter().filter_map(|position| Span::new(subject, *position, &video.camera, rows)).collect();
    track::check(subject, video, feature, &mp4, &spans, findings);
    if subject.version.is_v2() {
        spans::drift(video, &mp4, &spans, findings);
    } else {
        spans::check(subject, video, &mp4, &spans, findings);
    }
}

fn fault_code(error: &Mp4Error) -> Code {
    match error {
        Mp4Error::Cut { .. } | Mp4Error::NoMovie { .. } => Code::VideoCut,
        Mp4Error::NotMp4 { .. } => Code::FileAlien,
        _ => Code::VideoDamaged,
    }
}
