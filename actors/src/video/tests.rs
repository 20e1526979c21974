//! A stand-in for ffmpeg plays the part of one that meets damaged video, so that no test needs the real one.

use tendon_dataset::episode::FeatureSpec;
use tendon_dataset::rows::SourceUnit;
use tendon_protocol::stream::Dtype;

use super::*;

const HEIGHT: u32 = 16;
const WIDTH: u32 = 24;
/// More than any pipe holds.
const COMPLAINT: &str = "yes 'error while decoding MB 3 4' | head -n 40000 >&2";

/// A program that runs `decoding` as a decoder and `encoding` as an encoder.
fn stand_in(folder: &Path, decoding: &str, encoding: &str) -> PathBuf {
    let path = folder.join("ffmpeg");
    let text = format!("#!/bin/sh\ncase \"$*\" in\n*'-i - '*)\n{encoding}\n;;\n*)\n{decoding}\n;;\nesac\n");
    // Written by another process: were it open here while a parallel test starts a child, running it
    // would fail as a busy file.
    let mut writer = Command::new("sh")
        .args(["-c", "cat > \"$0\" && chmod 755 \"$0\""])
        .arg(&path)
        .stdin(Stdio::piped())
        .spawn()
        .unwrap();
    writer.stdin.take().unwrap().write_all(text.as_bytes()).unwrap();
    assert!(writer.wait().unwrap().success());
    path
}

/// `count` pictures on standard output.
fn pictures(count: u32) -> String {
    format!("head -c {} /dev/zero", HEIGHT * WIDTH * 3 * count)
}

fn camera(count: u32) -> Camera {
    let data = jpeg::black(WIDTH, HEIGHT).unwrap();
    Camera {
        spec: FeatureSpec {
            key: "observation.images.front".into(),
            dtype: Dtype::U8,
            shape: vec![HEIGHT, WIDTH, 3],
            names: Vec::new(),
            unit: String::new(),
            content: Content::Jpeg,
        },
        config: Bytes::new(),
        pictures: (0..count).map(|row| Picture { data: data.clone(), key: true, row }).collect(),
    }
}

/// Units of these capture times, and rows that show them.
fn reencode(capture_ns: &[i64], rows: &[Option<u32>]) -> Reencode {
    let data = jpeg::black(WIDTH, HEIGHT).unwrap();
    Reencode {
        camera: 0,
        why: String::new(),
        configs: vec![Bytes::new()],
        units: capture_ns
            .iter()
            .map(|time| SourceUnit { data: data.clone(), key: true, config: 0, capture_ns: *time })
            .collect(),
        rows: rows.to_vec(),
    }
}

fn studio<'a>(folder: &'a Path, ffmpeg: &'a Path) -> Studio<'a> {
    Studio { ffmpeg: Some(ffmpeg), scratch: folder, fps: 10 }
}

fn left_in(folder: &Path) -> Vec<String> {
    let names = std::fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().file_name());
    names.map(|name| name.to_string_lossy().into_owned()).filter(|name| name.ends_with(".log")).collect()
}

#[test]
fn complaints_longer_than_a_pipe_do_not_hold_up_the_pictures() {
    let folder = tempfile::tempdir().unwrap();
    let ffmpeg = stand_in(folder.path(), &format!("{COMPLAINT}\n{}", pictures(3)), "exit 9");
    let histogram = studio(folder.path(), &ffmpeg).histogram(&camera(3), &[0, 2]).unwrap();
    let mut expected = Histogram::default();
    let black = vec![0; (HEIGHT * WIDTH * 3) as usize];
    expected.add_rgb(WIDTH, HEIGHT, &black);
    expected.add_rgb(WIDTH, HEIGHT, &black);
    assert_eq!(histogram, expected);
    assert!(left_in(folder.path()).is_empty());
}

#[test]
fn the_last_complaints_of_a_failure_are_told() {
    let folder = tempfile::tempdir().unwrap();
    let decoding = format!("{COMPLAINT}\n{}\necho the last word >&2\nexit 1", pictures(1));
    let ffmpeg = stand_in(folder.path(), &decoding, "exit 9");
    match studio(folder.path(), &ffmpeg).histogram(&camera(3), &[0]) {
        Err(VideoError::Failed { message, .. }) => {
            assert!(message.ends_with(" | the last word") && message.len() < 200, "{message}");
        }
        other => panic!("{other:?}"),
    }
    assert!(left_in(folder.path()).is_empty());
}

#[test]
fn an_encoder_that_complains_and_stops_reading_is_told_by_its_words() {
    let folder = tempfile::tempdir().unwrap();
    let ffmpeg = stand_in(folder.path(), "exit 9", &format!("{COMPLAINT}\necho no such encoder >&2\nexit 1"));
    match studio(folder.path(), &ffmpeg).encode_jpegs(&mut camera(200), Content::H264) {
        Err(VideoError::Failed { message, .. }) => assert!(message.ends_with("no such encoder"), "{message}"),
        other => panic!("{other:?}"),
    }
}

/// The second unit was captured first, so its picture has left the decoder before the first unit's.
#[test]
fn a_row_that_wants_an_earlier_picture_is_refused_by_row_and_unit() {
    let folder = tempfile::tempdir().unwrap();
    // A decoder that goes on for ever has to be stopped by the refusal.
    let ffmpeg = stand_in(folder.path(), "exec cat /dev/zero", "exec cat >/dev/null");
    let source = reencode(&[20, 10, 30], &[None, Some(0), Some(0), Some(1), Some(2)]);
    match studio(folder.path(), &ffmpeg).reencode(&mut camera(0), &source, Content::H264) {
        Err(VideoError::Unfit { what, .. }) => assert!(what.contains("row 3 shows unit 1,"), "{what}"),
        other => panic!("{other:?}"),
    }
    assert!(left_in(folder.path()).is_empty(), "both programs were ended");
}

#[test]
fn a_row_whose_picture_does_not_decode_is_told_by_row_and_unit() {
    let folder = tempfile::tempdir().unwrap();
    let ffmpeg = stand_in(folder.path(), &pictures(1), "exec cat >/dev/null");
    let source = reencode(&[10, 20], &[Some(0), Some(0), Some(1)]);
    match studio(folder.path(), &ffmpeg).reencode(&mut camera(0), &source, Content::H264) {
        Err(VideoError::Unfit { what, .. }) => {
            assert!(what.contains("row 2 shows unit 1, but only 1 pictures decode"), "{what}");
        }
        other => panic!("{other:?}"),
    }
    let beyond = reencode(&[10], &[Some(0), Some(7)]);
    match studio(folder.path(), &ffmpeg).reencode(&mut camera(0), &beyond, Content::H264) {
        Err(VideoError::Unfit { what, .. }) => assert!(what.contains("row 1 shows unit 7 of 1"), "{what}"),
        other => panic!("{other:?}"),
    }
}
