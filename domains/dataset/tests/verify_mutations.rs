//! The promise of `tendon verify`: one fault put into a whole dataset is found, by its code.
//!
//! Every row of [`MUTATIONS`] copies the reference dataset, changes one thing and names the codes
//! that must be among the findings. The faults are those that `lerobot` refuses, fails on at an item,
//! or gives something wrong for without a word, and those of public reports.

#![allow(clippy::unwrap_used, reason = "a helper that fails must end its test")]

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use tendon_dataset::episode::Episode;
use tendon_dataset::lerobot::reader::{Dataset, Version};
use tendon_dataset::lerobot::spec::DatasetSpec;
use tendon_dataset::lerobot::writer::{Writer, v21};
use tendon_dataset::verify::{Code, Report, Severity, verify};

#[path = "verify_mutations/support.rs"]
mod support;

use support::data::{self, Col};
use support::video;
use support::{Copy, edit_json, shared};

fn check(root: &Path) -> Report {
    verify(root, &mut |done, total| assert!(done <= total, "{done} of {total}"))
}

fn codes(report: &Report) -> BTreeSet<&'static str> {
    report.findings.iter().map(|finding| finding.code).collect()
}

type Change = fn(&Copy);

/// Name of the fault, the change, codes that must be found, exit code.
#[rustfmt::skip] // one fault a line
const MUTATIONS: &[(&str, Change, &[&str], u8)] = &[
    // info.json: keys and versions
    ("no codebase_version", |c| c.info(|i| drop(i.remove("codebase_version"))), &["info-key-missing"], 1),
    ("no fps", |c| c.info(|i| drop(i.remove("fps"))), &["info-key-missing"], 1),
    ("fps 0", |c| c.info(|i| drop(i.insert("fps".into(), 0.into()))), &["fps-invalid"], 1),
    ("fps negative", |c| c.info(|i| drop(i.insert("fps".into(), (-30).into()))), &["fps-invalid"], 1),
    ("no features", |c| c.info(|i| drop(i.remove("features"))), &["info-key-missing"], 1),
    ("no version and no features", |c| c.info(|i| { i.remove("codebase_version"); i.remove("features"); }), &["not-a-dataset", "info-key-missing"], 1),
    ("no total_episodes", |c| c.info(|i| drop(i.remove("total_episodes"))), &["info-key-missing"], 1),
    ("no total_frames", |c| c.info(|i| drop(i.remove("total_frames"))), &["info-key-missing"], 1),
    ("no total_tasks", |c| c.info(|i| drop(i.remove("total_tasks"))), &["info-key-missing"], 1),
    ("unknown key", |c| c.info(|i| drop(i.insert("owner".into(), "me".into()))), &["info-key-unknown"], 1),
    ("fps 30.0", |c| c.text("meta/info.json", "\"fps\": 30,", "\"fps\": 30.0,"), &["fps-float"], 1),
    ("fps 29.97", |c| c.info(|i| drop(i.insert("fps".into(), 29.97.into()))), &["fps-not-whole", "fps-mismatch", "video-fps"], 1),
    ("version v3.1", |c| c.version("v3.1"), &["version-odd"], 1),
    ("version v4.0", |c| c.version("v4.0"), &["version-odd"], 1),
    ("version 3.0", |c| c.version("3.0"), &["version-odd"], 1),
    ("version v3.0.0", |c| c.version("v3.0.0"), &["version-odd"], 1),
    ("version v2.1", |c| c.version("v2.1"), &["version-layout"], 1),
    ("version v2.0", |c| c.version("v2.0"), &["version-layout"], 1),
    ("version v1.6", |c| c.version("v1.6"), &["version-unknown"], 1),
    ("total_episodes 4", |c| c.count("total_episodes", 4), &["total-episodes"], 1),
    ("total_episodes 2", |c| c.count("total_episodes", 2), &["total-episodes"], 1),
    ("total_frames 999", |c| c.count("total_frames", 999), &["total-frames"], 1),
    ("total_tasks 3", |c| c.count("total_tasks", 3), &["total-tasks"], 1),
    ("total_frames a text", |c| c.info(|i| drop(i.insert("total_frames".into(), "300".into()))), &["info-value"], 1),
    ("chunks_size 0", |c| c.count("chunks_size", 0), &["info-value"], 1),
    ("splits of other episodes", |c| c.info(|i| drop(i.insert("splits".into(), serde_json::json!({"train": "0:37"})))), &["splits"], 1),
    ("a v2 template", |c| c.info(|i| drop(i.insert("data_path".into(), "data/train/episode_{episode_index:06d}.parquet".into()))), &["path-template"], 1),
    ("a template without file number", |c| c.info(|i| drop(i.insert("video_path".into(), "videos/{video_key}/chunk-{chunk_index:03d}/file.mp4".into()))), &["path-template"], 1),
    ("a template that leaves", |c| c.info(|i| drop(i.insert("data_path".into(), "../{file_index}.parquet".into()))), &["path-template"], 1),
    ("video_path null", |c| c.info(|i| drop(i.insert("video_path".into(), serde_json::Value::Null))), &["path-template"], 1),
    ("a key twice", |c| c.text("meta/info.json", "\"fps\": 30,", "\"fps\": 30, \"fps\": 30,"), &["info-key-repeated"], 1),
    ("info.json cut", |c| c.cut("meta/info.json", 500), &["json-damaged"], 2),
    ("info.json empty", |c| c.write("meta/info.json", b""), &["file-empty"], 2),
    ("info.json missing", |c| c.remove("meta/info.json"), &["not-a-dataset"], 2),
    ("info.json a pointer", |c| c.write("meta/info.json", support::POINTER), &["lfs-pointer"], 2),
    ("info.json a page", |c| c.write("meta/info.json", support::PAGE), &["html-page"], 2),
    // Features
    ("camera without names", |c| c.feature("observation.images.front", |f| drop(f.remove("names"))), &["camera-names"], 1),
    ("camera with names null", |c| c.feature("observation.images.front", |f| drop(f.insert("names".into(), serde_json::Value::Null))), &["camera-names"], 1),
    ("camera without channels", |c| c.feature("observation.images.front", |f| drop(f.insert("names".into(), serde_json::json!(["a", "b", "c"])))), &["camera-names"], 1),
    ("camera shape 100x100", |c| c.feature("observation.images.front", |f| drop(f.insert("shape".into(), serde_json::json!([100, 100, 3])))), &["video-size"], 1),
    ("camera shape of two sides", |c| c.feature("observation.images.front", |f| drop(f.insert("shape".into(), serde_json::json!([480, 640])))), &["feature-shape"], 1),
    ("action without names", |c| c.feature("action", |f| drop(f.remove("names"))), &["names-missing"], 1),
    ("five names for six", |c| c.feature("action", |f| drop(f["names"].as_array_mut().unwrap().pop())), &["names-count"], 1),
    ("a name twice", |c| c.feature("action", |f| f["names"][1] = f["names"][0].clone()), &["names-repeated"], 1),
    ("nested names", |c| c.feature("action", |f| { let names = f["names"].clone(); f.insert("names".into(), serde_json::json!([names])); }), &["names-nested"], 1),
    ("names in another order", |c| c.feature("action", |f| f["names"].as_array_mut().unwrap().swap(0, 1)), &["names-order"], 1),
    ("action of velocities", |c| c.feature("action", |f| f["names"] = serde_json::json!(["a_vel", "b_vel", "c_vel", "d_vel", "e_vel", "f_vel"])), &["action-velocity"], 1),
    ("timestamp not declared", |c| c.features(|f| drop(f.remove("timestamp"))), &["own-feature-missing", "column-extra"], 1),
    ("frame_index not declared", |c| c.features(|f| drop(f.remove("frame_index"))), &["own-feature-missing", "column-extra"], 1),
    ("timestamp declared int64", |c| c.feature("timestamp", |f| drop(f.insert("dtype".into(), "int64".into()))), &["own-feature-type", "column-type"], 1),
    ("a feature name with a slash", |c| c.features(|f| { let action = f["action"].clone(); f.insert("action/left".into(), action); }), &["feature-name", "column-missing"], 1),
    ("a feature without a column", |c| c.features(|f| { let action = f["action"].clone(); f.insert("observation.force".into(), action); }), &["column-missing"], 1),
    ("a column without a feature", |c| c.features(|f| drop(f.remove("action"))), &["column-extra"], 1),
    ("shape 0", |c| c.feature("action", |f| drop(f.insert("shape".into(), serde_json::json!([0])))), &["feature-shape"], 1),
    ("dtype unknown", |c| c.feature("action", |f| drop(f.insert("dtype".into(), "float31".into()))), &["feature-dtype"], 1),
    ("width five for six", |c| c.feature("action", |f| drop(f.insert("shape".into(), serde_json::json!([5])))), &["list-width"], 1),
    ("features empty", |c| c.info(|i| drop(i.insert("features".into(), serde_json::json!({})))), &["features-empty"], 1),
    ("a feature twice", |c| c.text("meta/info.json", "\"features\": {", "\"features\": {\"action\": {\"dtype\": \"float32\", \"shape\": [6], \"names\": null},"), &["feature-repeated"], 1),
    // Data rows
    ("NaN in action", |c| data::edit_f32(c, "action", |row, values| if row == 42 { values[3] = f32::NAN; }), &["not-finite"], 1),
    ("infinity in state", |c| data::edit_f32(c, "observation.state", |row, values| if row == 7 { values[0] = f32::INFINITY; }), &["not-finite"], 1),
    ("a null row", |c| data::null_row(c, "action", 11), &["null-value"], 1),
    ("one row too short", |c| data::widths(c, "action", |row| if row == 5 { 4 } else { 6 }), &["list-width"], 1),
    ("all rows too wide", |c| data::widths(c, "action", |_| 7), &["list-width"], 1),
    ("a constant element", |c| data::edit_f32(c, "observation.state", |_, values| values[2] = 1.0), &["constant-dimension", "stats-disagree"], 1),
    ("an angle that wraps", |c| data::edit_f32(c, "observation.state", |row, values| values[0] = if row % 2 == 0 { 179.9 } else { -179.9 }), &["wrap"], 1),
    ("column action missing", |c| data::without(c, "action"), &["column-missing"], 1),
    ("column task_index missing", |c| data::without(c, "task_index"), &["column-missing"], 1),
    ("a column too many", |c| data::set_i64(c, "extra", |row| row), &["column-extra"], 1),
    ("a column twice", |c| data::twice(c, "action"), &["column-repeated"], 1),
    ("action stored as double", |c| data::as_f64_list(c, "action"), &["column-type"], 1),
    ("footer missing", |c| c.cut_by(DATA, 20), &["parquet-cut"], 2),
    ("zeros at the end", |c| c.zero_end(DATA, 64), &["parquet-cut"], 2),
    ("data a pointer", |c| c.write(DATA, support::POINTER), &["lfs-pointer"], 2),
    ("data empty", |c| c.write(DATA, b""), &["file-empty"], 2),
    ("data missing", |c| c.remove(DATA), &["data-missing"], 2),
    ("a page damaged", |c| c.flip_middle(DATA), &["file-damaged"], 1),
    ("a stray data file", |c| c.duplicate(DATA, "data/chunk-000/file-009.parquet"), &["stray-data-file", "rows-order", "index", "total-frames"], 1),
    ("timestamps 2 ms late", |c| data::set_time(c, |row| seconds(row % 100) + 0.002), &["timestamp-offset", "video-frame-time"], 1),
    ("timestamps not reset", |c| data::set_time(c, seconds), &["timestamp-not-reset", "video-frame-time"], 1),
    ("timestamps all 0", |c| data::set_time(c, |_| 0.0), &["timestamp-zero"], 1),
    ("time goes back", |c| data::set_time(c, |row| seconds(if row % 100 == 50 { 10 } else { row % 100 })), &["timestamp-backwards"], 1),
    ("time stands still", |c| data::set_time(c, |row| seconds(if row == 50 { 49 } else { row % 100 })), &["timestamp-backwards"], 1),
    ("a capture clock with a gap", |c| data::set_time(c, |row| seconds(row % 100) + if row % 100 > 50 { 0.2 } else { 0.001 * (row % 3) as f64 }), &["timestamp-off-grid", "timestamp-gap", "video-frame-time"], 1),
    ("rows at 24 Hz stamped so", |c| data::set_time(c, |row| (row % 100) as f64 / 24.0), &["fps-mismatch", "video-frame-time"], 1),
    ("task_index beyond the table", |c| data::set_i64(c, "task_index", |row| if row == 120 { 9 } else { i64::from(row >= 200) }), &["task-index"], 1),
    ("task_index negative", |c| data::set_i64(c, "task_index", |row| if row == 120 { -1 } else { i64::from(row >= 200) }), &["task-index"], 1),
    ("task of another episode", |c| data::set_i64(c, "task_index", |_| 0), &["episode-task", "task-unused"], 1),
    ("index not from 0", |c| data::set_i64(c, "index", |row| row + 1), &["index"], 1),
    ("index starts anew", |c| data::set_i64(c, "index", |row| row % 100), &["index"], 1),
    ("frame_index not reset", |c| data::set_i64(c, "frame_index", |row| row), &["frame-index"], 1),
    ("20 takes saved as one", |c| data::set_i64(c, "episode_index", |_| 0), &["episode-length", "episode-no-rows", "frame-index"], 1),
    ("boundary one row late", |c| data::set_i64(c, "episode_index", |row| if row == 100 { 0 } else { row / 100 }), &["episode-length", "frame-index"], 1),
    ("an episode nobody lists", |c| data::set_i64(c, "episode_index", |row| if row >= 290 { 3 } else { row / 100 }), &["episode-unknown", "episode-length"], 1),
    ("episode_index negative", |c| data::set_i64(c, "episode_index", |row| if row == 5 { -1 } else { row / 100 }), &["episode-index"], 1),
    ("rows reversed", |c| data::order(c, &|row| 299 - row), &["rows-order", "index", "frame-index"], 1),
    ("two rows swapped", |c| data::order(c, &|row| match row { 10 => 11, 11 => 10, row => row }), &["index", "frame-index", "timestamp-backwards"], 1),
    ("the last row lost", |c| data::keep(c, 299), &["episode-length", "total-frames", "video-extra"], 1),
    // Tasks
    ("tasks without the pandas index", |c| data::tasks(c, &[(0, PICK), (1, PLACE)], None), &["tasks-index"], 1),
    ("tasks with a range index", |c| data::tasks(c, &[(0, PICK), (1, PLACE)], Some(r#"{"index_columns": [{"kind": "range", "start": 0, "stop": 2, "step": 1}]}"#)), &["tasks-index"], 1),
    ("tasks out of order", |c| data::tasks(c, &[(1, PLACE), (0, PICK)], Some(PANDAS)), &["tasks-order"], 1),
    ("a task twice", |c| data::tasks(c, &[(0, PICK), (1, PLACE), (2, PICK)], Some(PANDAS)), &["task-repeated", "total-tasks", "task-unused"], 1),
    ("a task without text", |c| data::tasks(c, &[(0, ""), (1, PLACE)], Some(PANDAS)), &["task-empty", "episode-task"], 1),
    ("a task too few", |c| data::tasks(c, &[(0, PICK)], Some(PANDAS)), &["task-index", "episode-task", "total-tasks"], 1),
    ("tasks without texts", |c| data::task_table(c, "name", &[(0, PICK), (1, PLACE)], Some(PANDAS)), &["tasks-column"], 1),
    ("tasks missing", |c| c.remove("meta/tasks.parquet"), &["file-missing"], 1),
    ("tasks a pointer", |c| c.write("meta/tasks.parquet", support::POINTER), &["lfs-pointer"], 1),
    ("tasks cut", |c| c.cut_by("meta/tasks.parquet", 30), &["parquet-cut"], 1),
    // meta/episodes
    ("no meta/episodes", |c| c.remove_folder("meta/episodes"), &["episodes-missing"], 1),
    ("meta/episodes cut", |c| c.cut_by(EPISODES, 100), &["parquet-cut"], 1),
    ("no from and to index", |c| data::episodes_without(c, &["dataset_from_index", "dataset_to_index"]), &["episodes-column"], 1),
    ("no video file numbers", |c| data::episodes_without(c, &["videos/observation.images.front/chunk_index", "videos/observation.images.front/file_index"]), &["episodes-column"], 1),
    ("no from_timestamp", |c| data::episodes_without(c, &["videos/observation.images.front/from_timestamp"]), &["episodes-column", "video-span"], 1),
    ("no tasks and length", |c| data::episodes_without(c, &["tasks", "length"]), &["episodes-column-optional"], 1),
    ("no data file numbers", |c| data::episodes_without(c, &["data/chunk_index", "data/file_index"]), &["episodes-column-optional"], 1),
    ("no episode statistics", |c| data::episodes_without(c, &["stats/action/mean"]), &["episodes-column-optional"], 1),
    ("from_timestamp 1 ms late", |c| data::episodes_set(c, FROM, Col::Shift(0.001)), &["video-frame-time"], 1),
    ("from_timestamp one frame late", |c| data::episodes_set(c, FROM, Col::Shift(1.0 / 30.0)), &["video-span"], 1),
    ("both ends one frame late", |c| { data::episodes_set(c, FROM, Col::Shift(1.0 / 30.0)); data::episodes_set(c, TO, Col::Shift(1.0 / 30.0)); }, &["video-span-end", "video-unclaimed"], 1),
    ("from_timestamp not reset in a new file", |c| { data::episodes_set(c, FROM, Col::Shift(600.0)); data::episodes_set(c, TO, Col::Shift(600.0)); }, &["video-span-end", "video-frame-time"], 1),
    ("spans overlap", |c| { data::episodes_set(c, FROM, Col::One(1, 0.0)); data::episodes_set(c, TO, Col::One(1, 10.0 / 3.0)); }, &["video-span-overlap"], 1),
    ("from_timestamp negative", |c| data::episodes_set(c, FROM, Col::One(0, -1.0)), &["video-span", "video-frame-time"], 1),
    ("from_timestamp NaN", |c| data::episodes_set(c, FROM, Col::One(1, f64::NAN)), &["video-span"], 1),
    ("episode rows reversed", |c| data::episodes_order(c, &[2, 1, 0]), &["episodes-order"], 1),
    ("an episode removed from the middle", |c| data::episodes_order(c, &[0, 2]), &["episodes-gap", "episodes-order", "episode-unknown", "total-episodes"], 1),
    ("an episode twice", |c| data::episodes_order(c, &[0, 1, 1, 2]), &["episodes-repeated", "episodes-order"], 1),
    ("length one too many", |c| data::episodes_int(c, "length", &[100, 101, 100]), &["episode-length", "episode-range"], 1),
    ("length 0", |c| data::episodes_int(c, "length", &[100, 0, 100]), &["episode-length"], 1),
    ("ranges scrambled", |c| data::episodes_int(c, "dataset_from_index", &[0, 200, 100]), &["episode-range"], 1),
    ("a data file that is not there", |c| data::episodes_int(c, "data/file_index", &[0, 0, 1]), &["data-missing"], 1),
    ("rows in another file than named", data::split_without_telling, &["episode-elsewhere"], 1),
    ("meta numbers of another file", |c| data::episodes_int(c, "meta/episodes/file_index", &[0, 0, 7]), &["episode-meta-place"], 1),
    ("a video file that is not there", |c| data::episodes_int(c, "videos/observation.images.front/file_index", &[0, 0, 3]), &["video-missing", "video-extra"], 1),
    ("a flat episodes.parquet that counts otherwise", |c| { data::episodes_copy(c, "meta/episodes/episodes.parquet", 2); }, &["stray-file", "meta-disagree"], 1),
    // Statistics
    ("no stats.json", |c| c.remove("meta/stats.json"), &["stats-missing"], 1),
    ("stats.json damaged", |c| c.cut("meta/stats.json", 100), &["json-damaged"], 1),
    ("no quantiles", |c| edit_json(c, "meta/stats.json", |s| for (_, f) in s { for q in ["q01", "q10", "q50", "q90", "q99"] { f.as_object_mut().unwrap().remove(q); } }), &["stats-quantiles"], 1),
    ("no camera statistics", |c| edit_json(c, "meta/stats.json", |s| drop(s.remove("observation.images.front"))), &["stats-feature"], 1),
    ("no mean", |c| edit_json(c, "meta/stats.json", |s| drop(s["action"].as_object_mut().unwrap().remove("mean"))), &["stats-key"], 1),
    ("std 0", |c| edit_json(c, "meta/stats.json", |s| s["action"]["std"][2] = 0.0.into()), &["stats-zero-spread", "stats-disagree"], 1),
    ("q99 equals q01", |c| edit_json(c, "meta/stats.json", |s| s["action"]["q99"] = s["action"]["q01"].clone()), &["stats-zero-spread", "stats-implausible"], 1),
    ("NaN in statistics", |c| c.text("meta/stats.json", "\"mean\": [", "\"mean\": [NaN, "), &["json-not-finite", "stats-not-finite", "stats-shape"], 1),
    ("null in statistics", |c| edit_json(c, "meta/stats.json", |s| s["action"]["max"][0] = serde_json::Value::Null), &["stats-not-finite"], 1),
    ("five means for six", |c| edit_json(c, "meta/stats.json", |s| drop(s["action"]["mean"].as_array_mut().unwrap().pop())), &["stats-shape"], 1),
    ("image statistics flat", |c| edit_json(c, "meta/stats.json", |s| s["observation.images.front"]["mean"] = serde_json::json!([0.4, 0.4, 0.4])), &["stats-shape"], 1),
    ("image statistics to 255", |c| edit_json(c, "meta/stats.json", |s| s["observation.images.front"]["max"] = serde_json::json!([[[180.0]], [[200.0]], [[190.0]]])), &["stats-implausible"], 1),
    ("statistics of other data", |c| edit_json(c, "meta/stats.json", |s| s["action"]["max"][0] = 9999.0.into()), &["stats-disagree"], 1),
    ("count of other data", |c| edit_json(c, "meta/stats.json", |s| s["action"]["count"][0] = 299.into()), &["stats-disagree"], 1),
    // Videos
    ("mp4 missing", |c| c.remove(FRONT), &["video-missing"], 1),
    ("mp4 empty", |c| c.write(FRONT, b""), &["file-empty"], 1),
    ("mp4 a pointer", |c| c.write(FRONT, support::POINTER), &["lfs-pointer"], 1),
    ("mp4 something else", |c| c.write(FRONT, b"RIFF....AVI LIST"), &["file-alien"], 1),
    ("mp4 half", |c| c.cut_half(FRONT), &["video-cut"], 1),
    ("mp4 without its index", |c| c.cut(FRONT, 32), &["video-cut"], 1),
    ("mp4 with a broken table", |c| c.binary(FRONT, b"stsz", b"xxxx"), &["video-damaged"], 1),
    ("time base of milliseconds", |c| video::ffmpeg(c, FRONT, &["-i", "IN", "-c", "copy", "-video_track_timescale", "1000"]), &["video-time-base", "video-frame-time"], 1),
    ("first picture at 1 s", |c| video::ffmpeg(c, FRONT, &["-itsoffset", "1", "-i", "IN", "-c", "copy", "-video_track_timescale", "15360"]), &["video-first-pts", "video-frame-time"], 1),
    ("stamps of 29.97", |c| video::ffmpeg(c, FRONT, &["-i", "IN", "-c", "copy", "-bsf:v", "setts=ts=floor(N*512*1.001+0.5)"]), &["video-fps", "video-frame-time", "video-info"], 1),
    ("one picture missing in the middle", |c| video::ffmpeg(c, FRONT, &["-i", "IN", "-c", "copy", "-bsf:v", "noise=drop='eq(n,50)'"]), &["video-frames", "video-frame-time", "video-fps"], 1),
    ("last picture missing", |c| video::remux(c, FRONT, 640, 480, 30, &|n| (n < 299).then_some(n)), &["video-one-short", "video-frame-time"], 1),
    ("5 pictures for 300 rows", |c| video::remux(c, FRONT, 640, 480, 30, &|n| (n < 5).then_some(n)), &["video-frames", "video-span-end", "video-frame-time"], 1),
    ("10 pictures too many", |c| video::remux(c, FRONT, 640, 480, 30, &|n| (n < 310).then_some(n % 300)), &["video-extra"], 1),
    ("video of 320x240", |c| video::remux(c, FRONT, 320, 240, 30, &|n| (n < 300).then_some(n)), &["video-size", "video-info"], 1),
    ("video at 25 fps", |c| video::remux(c, FRONT, 640, 480, 25, &|n| (n < 300).then_some(n)), &["video-fps", "video-info", "video-frame-time"], 1),
    ("no key frame first", |c| video::remux(c, FRONT, 640, 480, 30, &|n| (n < 300).then_some((n + 1) % 300)), &["video-no-key-frame"], 1),
    ("a video nobody names", |c| c.duplicate(FRONT, "videos/observation.images.front/chunk-000/file-001.mp4"), &["stray-file"], 1),
    // Leftovers
    ("a picture under images", |c| c.write("images/observation.images.front/episode-000003/frame-000000.png", b"x"), &["images-left"], 1),
    ("tables of v2 beside v3", |c| c.write("meta/episodes.jsonl", b"{}\n"), &["stray-file"], 1),
];

const DATA: &str = "data/chunk-000/file-000.parquet";
const EPISODES: &str = "meta/episodes/chunk-000/file-000.parquet";
const FRONT: &str = "videos/observation.images.front/chunk-000/file-000.mp4";
const FROM: &str = "videos/observation.images.front/from_timestamp";
const TO: &str = "videos/observation.images.front/to_timestamp";
const PICK: &str = "Pick the red cube";
const PLACE: &str = "Place the cube in the box";
const PANDAS: &str = r#"{"index_columns": ["task"]}"#;

fn seconds(row: i64) -> f64 {
    row as f64 / 30.0
}

#[test]
fn every_mutation_is_found_by_its_code() {
    let known: BTreeSet<&str> = Code::ALL.iter().map(|code| code.name()).collect();
    let mut wrong = Vec::new();
    for (name, change, wanted, exit) in MUTATIONS {
        let copy = Copy::reference();
        change(&copy);
        let report = check(copy.root());
        let found = codes(&report);
        let missing: Vec<&&str> = wanted.iter().filter(|code| !found.contains(**code)).collect();
        assert!(
            wanted.iter().all(|code| known.contains(code)),
            "{name}: {wanted:?} names a code that is not in the registry"
        );
        if !missing.is_empty() || report.exit_code() != *exit {
            wrong.push(format!("{name}: {missing:?} not among {found:?}, exit code {} for {exit}", report.exit_code()));
        }
    }
    assert!(wrong.is_empty(), "{} of {} mutations:\n{}", wrong.len(), MUTATIONS.len(), wrong.join("\n"));
}

/// A code that no test raises could be dead. Those left out here need a file system that refuses, a
/// file of half a gigabyte, or a dataset of v2, and are tested elsewhere or cannot be.
#[test]
fn mutations_and_real_sets_raise_nearly_every_code() {
    let elsewhere = [
        "file-too-large",
        "file-unreadable",
        "more-findings",
        "episode-long",
        "converter-key-missing",
        "frame-index-missing",
        "total-videos",
        "total-chunks",
        "stats-episodes",
        "camera-without-video",
        "video-drift",
    ];
    let raised: BTreeSet<&str> = MUTATIONS.iter().flat_map(|(_, _, codes, _)| codes.iter().copied()).collect();
    let dead: Vec<&str> = Code::ALL
        .iter()
        .map(|code| code.name())
        .filter(|name| !raised.contains(name) && !elsewhere.contains(name))
        .collect();
    assert_eq!(dead, Vec::<&str>::new());
}

#[test]
fn reference_has_no_finding() {
    let report = check(&shared("data/lerobot-reference-v3"));
    assert_eq!(report.findings, []);
    assert_eq!(
        (report.episodes, report.frames, report.exit_code(), report.version.as_deref()),
        (3, 300, 0, Some("v3.0"))
    );
}

/// What lerobot accepts, and verify has nothing against either.
#[test]
fn accepted_variants_have_no_finding() {
    #[rustfmt::skip] // one variant a line
    let variants: &[(&str, Change)] = &[
        ("no schema metadata, one row group, zstd", data::rewrite_zstd),
        ("empty folders under images", |c| std::fs::create_dir_all(c.path("images/observation.images.front")).unwrap()),
        ("lists of variable length", |c| data::widths(c, "action", |_| 6)),
        ("our own manifest", |c| c.write("meta/tendon.json", b"{}")),
        ("older name of the task index", data::tasks_older),
        ("smallest pandas metadata", |c| data::tasks(c, &[(0, PICK), (1, PLACE)], Some(PANDAS))),
        ("all timestamps 50 us late", |c| data::set_time(c, |row| seconds(row % 100) + 50e-6)),
        ("no splits, sizes, paths, robot", |c| c.info(|i| for key in ["splits", "chunks_size", "data_path", "video_path", "robot_type", "data_files_size_in_mb"] { i.remove(key); })),
        ("no video info", |c| c.feature("observation.images.front", |f| drop(f.remove("info")))),
        ("every picture twice at 60", |c| { c.feature("observation.images.front", |f| f["info"]["video.fps"] = 60.into()); video::remux(c, FRONT, 640, 480, 60, &|n| (n < 600).then_some(n / 2 * 2 % 300)); }),
        ("channels first", |c| c.feature("observation.images.front", |f| { f["shape"] = serde_json::json!([3, 480, 640]); f["names"] = serde_json::json!(["channels", "height", "width"]); })),
        ("a time base of 90000", |c| video::ffmpeg(c, FRONT, &["-i", "IN", "-c", "copy", "-video_track_timescale", "90000"])),
        ("fragmented", |c| video::ffmpeg(c, FRONT, &["-i", "IN", "-c", "copy", "-movflags", "frag_keyframe+empty_moov+default_base_moof"])),
        ("faststart", |c| video::ffmpeg(c, FRONT, &["-i", "IN", "-c", "copy", "-movflags", "faststart"])),
        ("x264 with B-frames", |c| { c.feature("observation.images.front", |f| f["info"]["video.codec"] = "h264".into()); video::ffmpeg(c, FRONT, &["-f", "lavfi", "-i", "testsrc=size=640x480:rate=30", "-frames:v", "300", "-c:v", "libx264", "-preset", "veryfast", "-bf", "3", "-pix_fmt", "yuv420p"]); }),
    ];
    for (name, change) in variants {
        let copy = Copy::reference();
        change(&copy);
        let report = check(copy.root());
        assert_eq!(report.findings, [], "{name}");
    }
}

/// An empty-looking picture of a false alarm: a file of several episodes against one episode, n rows
/// that last n/fps, and time that starts anew with each episode.
#[test]
fn false_alarms_of_other_checkers_do_not_occur() {
    let copy = Copy::reference();
    data::two_lengths(&copy, 117);
    let report = check(copy.root());
    let found = codes(&report);
    for code in [
        "video-frames",
        "video-extra",
        "timestamp-backwards",
        "timestamp-not-reset",
        "video-frame-time",
        "video-span",
        "episode-length",
    ] {
        assert!(!found.contains(code), "{code}: {:#?}", report.findings);
    }
}

#[test]
fn real_sets_give_the_findings_of_their_faults() {
    #[rustfmt::skip] // one set a line
    let sets: &[(&str, &[&str], u8)] = &[
        ("dobot-cr5-v2", &["timestamp-gap", "timestamp-off-grid", "video-drift", "video-missing", "action-velocity"], 1),
        ("unitree-g1-v2", &["names-nested", "video-missing"], 1),
        ("gr1-picknplace-v2", &["camera-without-video", "total-videos", "total-chunks", "splits", "frame-index-missing", "timestamp-offset", "task-unused", "fps-float", "constant-dimension", "stats-zero-spread", "video-drift"], 1),
        ("lfs-pointers-v21", &["lfs-pointer", "names-count", "info-key-unknown"], 2),
        ("omx-sim-broken/dataset", &["not-a-dataset", "info-key-missing", "meta-disagree", "tasks-index", "episodes-missing", "data-missing"], 2),
        ("omx-sim-broken/franka_pickplace", &["column-repeated", "path-template", "data-missing", "video-span-overlap"], 2),
        ("omx-sim-broken/examples/dataset", &["data-missing", "path-template"], 2),
        ("ioai-fixtures/datasets/lerobotv2", &["column-type", "camera-names", "converter-key-missing"], 1),
        ("ioai-fixtures/datasets/lerobotv2-image", &["column-type", "stats-feature"], 1),
        ("ioai-fixtures/datasets/lerobotv3", &["column-type", "tasks-index", "episodes-column-optional", "camera-names", "stats-missing"], 1),
        ("ioai-fixtures/invalid/v2-missing-episodes", &["episodes-missing", "features-empty"], 2),
        ("ioai-fixtures/invalid/v3-missing-episodes-parquet", &["episodes-missing", "features-empty"], 2),
        ("wengmister-meta-only", &["data-missing"], 2),
        ("pico-dual-so101-meta/local_so101_dual_xr_teleop", &["data-missing", "camera-without-video"], 2),
        ("rosbag2-fixtures", &["not-a-dataset"], 2),
    ];
    for (name, wanted, exit) in sets {
        let report = check(&shared("data").join(name));
        let found = codes(&report);
        for code in *wanted {
            assert!(found.contains(code), "{name}: {code} not among {found:?}");
        }
        assert_eq!(report.exit_code(), *exit, "{name}: {:#?}", report.findings);
    }
}

#[test]
fn real_sets_are_counted_once_and_exactly() {
    let report = check(&shared("data/dobot-cr5-v2"));
    let message = |report: &Report, code: &str| {
        let found: Vec<_> = report.findings.iter().filter(|finding| finding.code == code).collect();
        assert_eq!(found.len(), 1, "{code}");
        found[0].message.clone()
    };
    assert!(
        message(&report, "timestamp-gap").contains("352.1 ms")
            && message(&report, "timestamp-gap").contains("271 in 71 episodes")
    );
    assert!(message(&report, "timestamp-off-grid").contains("2.139 s"));
    assert!(message(&report, "video-missing").contains("78 of 81"));
    assert_eq!((report.episodes, report.frames), (81, 18_039));
    let report = check(&shared("data/unitree-g1-v2"));
    assert!(message(&report, "video-missing").contains("98 of 100"));
    assert!(!codes(&report).contains("timestamp-off-grid"));
    let report = check(&shared("data/gr1-picknplace-v2"));
    let errors: Vec<_> = report.findings.iter().filter(|finding| finding.severity == Severity::Error).collect();
    assert!(errors.is_empty(), "all of it is odd and readable: {errors:#?}");
    let constant: Vec<_> = report
        .findings
        .iter()
        .filter(|finding| finding.code == "constant-dimension")
        .map(|finding| &finding.message)
        .collect();
    assert!(constant[0].contains("18 of 44") && constant[1].contains("25 of 44"), "{constant:?}");
}

#[test]
fn report_is_written_as_documented() {
    let copy = Copy::reference();
    copy.remove(FRONT);
    let report = check(copy.root());
    let json = serde_json::to_value(&report).unwrap();
    let keys: Vec<&String> = json.as_object().unwrap().keys().collect();
    assert_eq!(keys, ["dataset", "episodes", "findings", "frames", "version"]);
    let finding = &json["findings"][0];
    let keys: Vec<&String> = finding.as_object().unwrap().keys().collect();
    assert_eq!(keys, ["code", "episode", "file", "message", "remedy", "row", "severity"]);
    assert_eq!(
        (finding["code"].as_str(), finding["severity"].as_str(), finding["file"].as_str()),
        (Some("video-missing"), Some("error"), Some(FRONT))
    );
    assert!(finding["row"].is_null());
}

#[test]
fn progress_rises_to_its_total() {
    let mut steps = Vec::new();
    verify(&shared("data/dobot-cr5-v2"), &mut |done, total| steps.push((done, total)));
    let total = steps[0].1;
    assert!(steps.windows(2).all(|pair| pair[0].0 < pair[1].0));
    assert_eq!(steps.last(), Some(&(total, total)));
    assert!(total > 84, "81 data files and 3 videos: {total}");
}

/// Every file of the reference, cut at many places: never a panic, always a finding.
#[test]
fn cut_files_are_found() {
    let files = [DATA, EPISODES, FRONT, "meta/info.json", "meta/stats.json", "meta/tasks.parquet"];
    for file in files {
        let whole = std::fs::read(shared("data/lerobot-reference-v3").join(file)).unwrap();
        let copy = Copy::reference();
        for step in 0..24 {
            let keep = whole.len() * step / 24;
            copy.write(file, &whole[..keep]);
            let report = check(copy.root());
            assert!(matches!(report.exit_code(), 1 | 2), "{file} cut to {keep} of {} bytes", whole.len());
        }
    }
}

/// Random bytes changed in every file: never a panic. What can be read stays readable.
#[test]
fn flipped_bits_never_panic() {
    let seed = std::env::var("TENDON_SEED").ok().and_then(|seed| seed.parse().ok()).unwrap_or(0x5eed_u64);
    println!("seed {seed}; set TENDON_SEED to replay");
    let mut random = support::Random(seed);
    let files = [DATA, EPISODES, FRONT, "meta/info.json", "meta/stats.json", "meta/tasks.parquet"];
    for file in files {
        let whole = std::fs::read(shared("data/lerobot-reference-v3").join(file)).unwrap();
        let copy = Copy::reference();
        for _ in 0..40 {
            let mut bytes = whole.clone();
            for _ in 0..1 + random.below(3) {
                // Half of the flips hit the ends, where indexes and footers are.
                let near = bytes.len().min(600);
                let at = match random.below(4) {
                    0 => random.below(near),
                    1 => bytes.len() - 1 - random.below(near),
                    _ => random.below(bytes.len()),
                };
                bytes[at] ^= 1 << random.below(8);
            }
            copy.write(file, &bytes);
            let report = check(copy.root());
            assert!(report.exit_code() <= 2);
            if let Ok(dataset) = Dataset::open(copy.root()) {
                for position in 0..dataset.episodes.len().min(4) {
                    let _ = dataset.read_episode(position);
                }
            }
        }
    }
}

#[test]
fn v2_faults_are_found_by_v2_rules() {
    #[rustfmt::skip] // one fault a line
    let changes: &[(&str, Change, &[&str])] = &[
        ("a line of episodes.jsonl damaged", |c| c.text("meta/episodes.jsonl", "\"length\": 470}", "\"length\": "), &["json-damaged"]),
        ("an episode of another file", |c| c.copy_over("data/chunk-000/episode_000001.parquet", "data/chunk-000/episode_000002.parquet"), &["episode-index", "index"]),
        ("one data file gone", |c| c.remove("data/chunk-000/episode_000003.parquet"), &["data-missing"]),
        ("one video gone", |c| c.remove("videos/chunk-000/observation.images.ego_view/episode_000003.mp4"), &["video-missing"]),
        ("one video of another episode", |c| c.copy_over("videos/chunk-000/observation.images.ego_view/episode_000004.mp4", "videos/chunk-000/observation.images.ego_view/episode_000003.mp4"), &["video-frames"]),
        ("a stray data file", |c| c.duplicate("data/chunk-000/episode_000003.parquet", "data/chunk-000/episode_000077.parquet"), &["stray-file"]),
        ("task numbers with a hole", |c| c.text("meta/tasks.jsonl", "\"task_index\": 5", "\"task_index\": 9"), &["tasks-order", "task-index"]),
        ("declared v2.1 without its statistics", |c| c.text("meta/info.json", "\"v2.0\"", "\"v2.1\""), &["stats-missing"]),
        ("no total_chunks", |c| c.info(|i| drop(i.remove("total_chunks"))), &["converter-key-missing"]),
    ];
    for (name, change, wanted) in changes {
        let copy = Copy::of("data/gr1-picknplace-v2");
        change(&copy);
        let found = codes(&check(copy.root()));
        for code in *wanted {
            assert!(found.contains(code), "{name}: {code} not among {found:?}");
        }
    }
}

/// What our own writer makes is clean, and comes back through the reader bit for bit.
#[test]
fn our_own_datasets_have_no_finding_and_come_back() {
    let episodes: Vec<Episode> =
        [(40, 1), (25, 2), (1, 3), (60, 4)].map(|(rows, salt)| support::own::episode(rows, salt)).to_vec();
    let spec = DatasetSpec::of(&episodes[0], Some("so101_follower".into()));
    let (v30, v21) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let mut writer = Writer::create(v30.path(), spec.clone()).unwrap();
    let mut older = v21::Writer::create(v21.path(), spec).unwrap();
    for episode in &episodes {
        writer.append(episode).unwrap();
        older.append(episode).unwrap();
    }
    writer.finish().unwrap();
    older.finish().unwrap();
    for (root, version) in [(v30.path(), Version::V30), (v21.path(), Version::V21)] {
        let report = check(root);
        assert_eq!(report.findings, [], "{version:?}");
        assert_eq!((report.episodes, report.frames, report.exit_code()), (4, 126, 0));
        let dataset = Dataset::open(root).unwrap();
        assert_eq!((dataset.version, dataset.warnings.clone()), (version, Vec::new()));
        for (position, episode) in episodes.iter().enumerate() {
            let read = dataset.read_episode(position).unwrap();
            assert_eq!(read.warnings, Vec::<String>::new());
            assert_eq!(read.tasks, episode.tasks);
            assert_eq!(read.columns.len(), episode.columns.len());
            for (column, original) in read.columns.iter().zip(&episode.columns) {
                assert_eq!(
                    (&column.spec.key, column.spec.dtype, &column.values),
                    (&original.spec.key, original.spec.dtype, &original.values)
                );
            }
            let pictures: Vec<_> = read.cameras[0].units.iter().map(|unit| (unit.row, unit.data.clone())).collect();
            let originals: Vec<_> =
                episode.cameras[0].pictures.iter().map(|picture| (Some(picture.row), picture.data.clone())).collect();
            assert_eq!(pictures, originals);
        }
    }
}

/// lerobot reads such a video rightly, so it is no error.
#[test]
fn pictures_too_many_at_the_end_are_only_a_warning() {
    let copy = Copy::reference();
    video::remux(&copy, FRONT, 640, 480, 30, &|n| (n < 310).then_some(n % 300));
    let report = check(copy.root());
    assert_eq!(codes(&report), BTreeSet::from(["video-extra"]));
    assert!(!report.has_errors());
}

#[test]
fn faults_of_many_episodes_are_found() {
    let copy = Copy::of("data/dobot-cr5-v2");
    copy.text("meta/episodes.jsonl", "\"length\": 215", "\"length\": 5000");
    let text = String::from_utf8(copy.read("meta/episodes_stats.jsonl")).unwrap();
    copy.write("meta/episodes_stats.jsonl", text.split_once('\n').unwrap().1.as_bytes());
    let found = codes(&check(copy.root()));
    for code in ["episode-long", "episode-length", "stats-episodes"] {
        assert!(found.contains(code), "{code} not among {found:?}");
    }
}

#[test]
fn a_folder_that_is_none_is_no_dataset() {
    let report = check(&PathBuf::from("/no/such/folder"));
    assert_eq!((report.exit_code(), report.findings[0].code), (2, "not-a-dataset"));
}
