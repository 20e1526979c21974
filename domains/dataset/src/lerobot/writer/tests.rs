use std::collections::BTreeMap;
use std::fs::{self, File};
use std::path::{Path, PathBuf};

use arrow_array::RecordBatch;
use arrow_array::cast::AsArray;
use arrow_array::types::{Float32Type, Float64Type, Int64Type, UInt8Type};
use arrow_schema::Schema;
use bytes::Bytes;
use parquet::arrow::arrow_reader::ParquetRecordBatchReaderBuilder;
use proptest::collection::vec;
use proptest::prelude::*;
use tempfile::TempDir;
use tendon_protocol::stream::{Content, Dtype};

use super::*;
use crate::episode::{Column, FeatureSpec, Picture};
use crate::jpeg;
use crate::lerobot::spec::NotFinite;
use crate::mp4::demux::Mp4;

const JOINTS: [&str; 6] =
    ["shoulder_pan.pos", "shoulder_lift.pos", "elbow_flex.pos", "wrist_flex.pos", "wrist_roll.pos", "gripper.pos"];

fn reference() -> PathBuf {
    let root = Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/../../../shared/data/lerobot-reference-v3"));
    assert!(root.is_dir(), "put the shared folder beside the checkout: {} is not there", root.display());
    root.to_path_buf()
}

fn feature(key: &str, dtype: Dtype, shape: &[u32], names: &[&str]) -> FeatureSpec {
    let names = names.iter().map(|name| (*name).to_owned()).collect();
    FeatureSpec { key: key.into(), dtype, shape: shape.into(), names, unit: String::new(), content: Content::Values }
}

fn floats(key: &str, names: &[&str], rows: usize, salt: usize) -> Column {
    let spec = feature(key, Dtype::F32, &[names.len() as u32], names);
    let values = (0..rows * names.len()).flat_map(|at| ((at * 7 + salt) as f32 * 0.3).sin().to_le_bytes()).collect();
    Column { spec, values }
}

fn camera(key: &str, width: u32, height: u32, rows: usize, salt: usize) -> Camera {
    let mut spec = feature(key, Dtype::U8, &[height, width, 3], &["height", "width", "channels"]);
    spec.content = Content::Jpeg;
    let pictures = (0..rows).map(|row| {
        let pixels: Vec<u8> = (0..(width * height * 3) as usize).map(|at| (at * 5 + row * 9 + salt) as u8).collect();
        Picture { data: jpeg::encode_rgb(width, height, &pixels, 80).unwrap(), key: true, row: row as u32 }
    });
    Camera { spec, config: Bytes::new(), pictures: pictures.collect() }
}

/// Two joints and a camera, different for every `salt`.
fn episode(rows: usize, salt: usize) -> Episode {
    Episode {
        fps: 30,
        rows,
        tasks: vec![format!("task {}", salt % 3)],
        columns: vec![
            floats("action", &["a", "b"], rows, salt),
            floats("observation.state", &["a", "b"], rows, salt + 1),
        ],
        cameras: vec![camera("observation.images.front", 16, 8, rows, salt)],
        origin: format!("session/{salt}"),
    }
}

fn spec() -> DatasetSpec {
    DatasetSpec::of(&episode(1, 0), Some("so101_follower".into()))
}

fn written(episodes: &[Episode]) -> (TempDir, Writer) {
    let folder = tempfile::tempdir().unwrap();
    let mut writer = Writer::create(folder.path(), DatasetSpec::of(&episodes[0], None)).unwrap();
    for episode in episodes {
        writer.append(episode).unwrap();
    }
    (folder, writer)
}

fn table(path: &Path) -> RecordBatch {
    let file = File::open(path).unwrap();
    let builder = ParquetRecordBatchReaderBuilder::try_new(file).unwrap();
    assert_eq!(builder.metadata().num_row_groups(), 1, "{}", path.display());
    builder.with_batch_size(1 << 20).build().unwrap().next().unwrap().unwrap()
}

/// Arrow schema, and per leaf its path, physical type and levels.
fn schemas(path: &Path) -> (Schema, Vec<String>) {
    let builder = ParquetRecordBatchReaderBuilder::try_new(File::open(path).unwrap()).unwrap();
    let leaves = builder.parquet_schema().columns().iter().map(|column| {
        format!(
            "{} {:?} {:?} {} {}",
            column.path().string(),
            column.physical_type(),
            column.logical_type_ref(),
            column.max_def_level(),
            column.max_rep_level()
        )
    });
    (builder.schema().as_ref().clone(), leaves.collect())
}

fn all_files(root: &Path) -> BTreeMap<String, Vec<u8>> {
    let folder = Folder::new(root);
    let paths = ["data", "meta", "videos"].into_iter().flat_map(|part| folder.files(part).unwrap());
    let files: BTreeMap<String, Vec<u8>> =
        paths.map(|path| (path.clone(), fs::read(root.join(path)).unwrap())).collect();
    assert!(!files.is_empty(), "no files under {}", root.display());
    files
}

fn copy(from: &Path) -> TempDir {
    let to = tempfile::tempdir().unwrap();
    for (path, bytes) in all_files(from) {
        let path = to.path().join(path);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, bytes).unwrap();
    }
    to
}

/// The reference dataset was recorded by lerobot itself; ours of the same features has the same schemas.
#[test]
fn tables_have_the_schemas_of_lerobot() {
    let rows = 2;
    let episode = Episode {
        columns: vec![floats("action", &JOINTS, rows, 0), floats("observation.state", &JOINTS, rows, 1)],
        cameras: vec![
            camera("observation.images.front", 640, 480, rows, 0),
            camera("observation.images.wrist", 640, 480, rows, 1),
        ],
        ..episode(rows, 0)
    };
    let (folder, _) = written(&[episode]);
    for path in ["data/chunk-000/file-000.parquet", "meta/episodes/chunk-000/file-000.parquet", "meta/tasks.parquet"] {
        let (ours, our_leaves) = schemas(&folder.path().join(path));
        let (theirs, their_leaves) = schemas(&reference().join(path));
        assert_eq!(our_leaves, their_leaves, "{path}");
        assert_eq!(ours.fields(), theirs.fields(), "{path}");
        for (key, text) in &theirs.metadata {
            let parse = |text: &str| -> Value {
                let mut value: Value = serde_json::from_str(text).unwrap();
                // Who wrote it, and a random number, may differ.
                let object = value.as_object_mut().unwrap();
                object.remove("creator");
                object.remove("fingerprint");
                value
            };
            assert_eq!(parse(&ours.metadata[key]), parse(text), "{path} {key}");
        }
        assert_eq!(ours.metadata.len(), theirs.metadata.len(), "{path}");
    }
    let read = |root: &Path| -> Info { serde_json::from_slice(&fs::read(root.join(INFO)).unwrap()).unwrap() };
    let (mut ours, mut theirs) = (read(folder.path()), read(&reference()));
    for feature in ours.features.0.iter_mut().chain(&mut theirs.features.0) {
        feature.1.info = None;
    }
    assert_eq!(ours.features, theirs.features);
    assert_eq!((ours.data_path, ours.video_path), (theirs.data_path, theirs.video_path));
    assert_eq!(
        (ours.data_files_size_in_mb, ours.video_files_size_in_mb),
        (theirs.data_files_size_in_mb, theirs.video_files_size_in_mb)
    );
}

/// lerobot's own statistics of its own rows, to what its histogram of 5000 bins can say.
#[test]
fn statistics_of_the_reference_rows_are_those_that_lerobot_computed() {
    let data = ParquetRecordBatchReaderBuilder::try_new(
        File::open(reference().join("data/chunk-000/file-000.parquet")).unwrap(),
    )
    .unwrap();
    let data = data.with_batch_size(1000).build().unwrap().next().unwrap().unwrap();
    let known = table(&reference().join("meta/episodes/chunk-000/file-000.parquet"));
    let values = data["action"].as_fixed_size_list().values().as_primitive::<Float32Type>().values().to_vec();
    let state = data["observation.state"].as_fixed_size_list().values().as_primitive::<Float32Type>().values().to_vec();
    let bytes = |values: &[f32]| values.iter().flat_map(|value| value.to_le_bytes()).collect::<Vec<u8>>();
    let episodes: Vec<Episode> = (0..3)
        .map(|number| Episode {
            rows: 100,
            columns: vec![
                Column {
                    spec: feature("action", Dtype::F32, &[6], &JOINTS),
                    values: bytes(&values[number * 600..][..600]),
                },
                Column {
                    spec: feature("observation.state", Dtype::F32, &[6], &JOINTS),
                    values: bytes(&state[number * 600..][..600]),
                },
            ],
            cameras: vec![],
            ..episode(100, number)
        })
        .collect();
    let (folder, _) = written(&episodes);
    let ours = table(&folder.path().join("meta/episodes/chunk-000/file-000.parquet"));
    for key in ["action", "observation.state", "timestamp", "frame_index", "index", "episode_index"] {
        let range: Vec<f64> = {
            let list = |name: &str| {
                known[format!("stats/{key}/{name}").as_str()]
                    .as_list::<i32>()
                    .values()
                    .as_primitive::<Float64Type>()
                    .values()
                    .to_vec()
            };
            list("max").iter().zip(list("min")).map(|(max, min)| max - min).collect()
        };
        for name in stats::NAMES {
            let column = format!("stats/{key}/{name}");
            let (ours, theirs) = (ours[column.as_str()].as_list::<i32>(), known[column.as_str()].as_list::<i32>());
            if name == "count" {
                assert_eq!(
                    ours.values().as_primitive::<Int64Type>(),
                    theirs.values().as_primitive::<Int64Type>(),
                    "{column}"
                );
                continue;
            }
            let (ours, theirs) = (
                ours.values().as_primitive::<Float64Type>().values(),
                theirs.values().as_primitive::<Float64Type>().values(),
            );
            assert_eq!(ours.len(), theirs.len(), "{column}");
            for (at, (a, b)) in ours.iter().zip(theirs).enumerate() {
                // Quantiles lie somewhere between two neighbours of 100 values that are spread unevenly.
                let slack = if name.starts_with('q') { range[at] / 10.0 } else { range[at] * 1e-4 };
                assert!((a - b).abs() <= slack + 1e-6, "{column}: {a} {b}");
            }
        }
    }
}

#[test]
fn every_row_and_picture_comes_back() {
    let episodes = [episode(5, 0), episode(1, 1), episode(3, 4)];
    let (folder, writer) = written(&episodes);
    assert_eq!(writer.finish().unwrap(), Totals { episodes: 3, rows: 9, tasks: 2 });
    let mut first = 0;
    for (number, episode) in episodes.iter().enumerate() {
        let data = table(&folder.path().join(format!("data/chunk-000/file-{number:03}.parquet")));
        let list = data["action"].as_fixed_size_list().values().as_primitive::<Float32Type>();
        assert_eq!(
            list.values().iter().flat_map(|value| value.to_le_bytes()).collect::<Vec<u8>>(),
            episode.columns[0].values
        );
        let integers = |key: &str| data[key].as_primitive::<Int64Type>().values().to_vec();
        let rows = episode.rows as i64;
        assert_eq!(integers("frame_index"), (0..rows).collect::<Vec<_>>());
        assert_eq!(integers("index"), (first..first + rows).collect::<Vec<_>>());
        assert_eq!(integers("episode_index"), vec![number as i64; episode.rows]);
        assert_eq!(integers("task_index"), vec![[0, 1, 1][number]; episode.rows]);
        let times: Vec<f32> = (0..episode.rows).map(|row| (row as f64 / 30.0) as f32).collect();
        assert_eq!(data["timestamp"].as_primitive::<Float32Type>().values(), &times[..]);
        first += rows;
        let mut mp4 =
            Mp4::open(folder.path().join(format!("videos/observation.images.front/chunk-000/file-{number:03}.mp4")))
                .unwrap();
        assert_eq!(mp4.whole(), episode.rows);
        for picture in &episode.cameras[0].pictures {
            assert_eq!(mp4.read_sample(picture.row as usize).unwrap(), picture.data);
            assert_eq!(mp4.samples()[picture.row as usize].pts, i64::from(picture.row) * 512);
        }
    }
}

#[test]
fn jpegs_given_in_any_order_are_stored_in_that_of_their_rows() {
    let mut episode = episode(4, 2);
    episode.cameras[0].pictures.swap(0, 3);
    episode.cameras[0].pictures.swap(1, 2);
    let (folder, _) = written(std::slice::from_ref(&episode));
    let mut mp4 = Mp4::open(folder.path().join("videos/observation.images.front/chunk-000/file-000.mp4")).unwrap();
    for picture in &episode.cameras[0].pictures {
        assert_eq!(mp4.read_sample(picture.row as usize).unwrap(), picture.data);
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(24))]

    /// Bits are never changed, whatever the type, NaN payloads and all.
    #[test]
    fn values_of_every_type_are_stored_bit_for_bit(bytes in vec(any::<u8>(), 48), rows in 1usize..4) {
        let width = |dtype: Dtype| 48 / 3 / dtype.size_bytes();
        let columns: Vec<Column> = [Dtype::F32, Dtype::F64, Dtype::I64, Dtype::U8, Dtype::Bool].into_iter().map(|dtype| {
            let values = bytes[..rows * width(dtype) * dtype.size_bytes()].iter().map(|byte| if dtype == Dtype::Bool { byte & 1 } else { *byte }).collect();
            Column { spec: feature(&format!("of.{}", crate::lerobot::spec::dtype_name(dtype)), dtype, &[width(dtype) as u32], &[]), values }
        }).collect();
        let place = Place { episode: 0, first_index: 0, task: 0, rows, fps: 30 };
        let batch = table::batch(&columns.iter().collect::<Vec<_>>(), place, ListName::List).unwrap();
        let folder = tempfile::tempdir().unwrap();
        Folder::new(folder.path()).write_table("x.parquet", &batch).unwrap();
        let read = table(&folder.path().join("x.parquet"));
        for column in &columns {
            let values = read[column.spec.key.as_str()].as_fixed_size_list().values().clone();
            let got: Vec<u8> = match column.spec.dtype {
                Dtype::F32 => values.as_primitive::<Float32Type>().values().iter().flat_map(|value| value.to_le_bytes()).collect(),
                Dtype::F64 => values.as_primitive::<Float64Type>().values().iter().flat_map(|value| value.to_le_bytes()).collect(),
                Dtype::I64 => values.as_primitive::<Int64Type>().values().iter().flat_map(|value| value.to_le_bytes()).collect(),
                Dtype::U8 => values.as_primitive::<UInt8Type>().values().to_vec(),
                Dtype::Bool => values.as_boolean().iter().map(|value| u8::from(value.unwrap())).collect(),
            };
            prop_assert_eq!(&got, &column.values);
        }
    }
}

/// An append that stops after any of its files: the next one gives what it would have given without
/// that, no finished file changes, and what is there in between has the old `info.json`.
#[test]
fn an_append_cut_after_any_file_is_as_if_it_had_never_begun() {
    let (folder, mut writer) = written(&[episode(3, 0), episode(2, 1)]);
    let before = copy(folder.path());
    let commit = writer.append(&episode(4, 2)).unwrap();
    let wish = DatasetSpec { robot_type: None, ..spec() };
    let uncut = copy(before.path());
    Writer::append_to(uncut.path(), wish.clone()).unwrap().append(&episode(4, 5)).unwrap();
    let uncut = all_files(uncut.path());
    for whole in 0..commit.files.len() {
        let cut = copy(before.path());
        for path in &commit.files[..whole] {
            let target = cut.path().join(path);
            fs::create_dir_all(target.parent().unwrap()).unwrap();
            fs::copy(folder.path().join(path), target).unwrap();
        }
        // The file that was being written.
        fs::write(cut.path().join("data/chunk-000/.file-002.parquet.part"), b"half").unwrap();
        assert_eq!(fs::read(cut.path().join(INFO)).unwrap(), fs::read(before.path().join(INFO)).unwrap());
        let mut again = Writer::append_to(cut.path(), wish.clone()).unwrap();
        assert_eq!(again.totals(), Totals { episodes: 2, rows: 5, tasks: 2 });
        again.append(&episode(4, 5)).unwrap();
        let again = all_files(cut.path());
        assert_eq!(again.keys().collect::<Vec<_>>(), uncut.keys().collect::<Vec<_>>(), "cut after {whole} files");
        for (path, bytes) in &again {
            assert_eq!(bytes, &uncut[path], "{path}, cut after {whole} files");
        }
    }
}

/// Between two appends a reader may come at any moment, also of a copy made in commit order.
#[test]
fn files_are_committed_data_first_and_info_last() {
    let (folder, mut writer) = written(&[episode(2, 0)]);
    let before = all_files(folder.path());
    let commit = writer.append(&episode(2, 1)).unwrap();
    assert_eq!(
        commit.files,
        [
            "data/chunk-000/file-001.parquet",
            "videos/observation.images.front/chunk-000/file-001.mp4",
            "meta/episodes/chunk-000/file-000.parquet",
            "meta/tasks.parquet",
            "meta/stats.json",
            "meta/tendon/statistics-000002.json",
            "meta/tendon.json",
            "meta/info.json",
        ]
    );
    assert_eq!(commit.removed, ["meta/tendon/statistics-000001.json"]);
    let after = all_files(folder.path());
    for (path, bytes) in before {
        if path.starts_with("data/") || path.starts_with("videos/") {
            assert_eq!(after[&path], bytes, "{path} was touched");
        }
    }
    // Every file on disk was announced, or was there before.
    for path in after.keys() {
        assert!(commit.files.iter().any(|file| file == path) || path.contains("file-000"), "{path}");
    }
}

#[test]
fn a_session_of_its_own_writes_a_meta_file_of_its_own() {
    let (folder, writer) = written(&[episode(2, 0), episode(2, 1)]);
    drop(writer);
    let first = fs::read(folder.path().join("meta/episodes/chunk-000/file-000.parquet")).unwrap();
    let mut writer = Writer::append_to(folder.path(), DatasetSpec { robot_type: None, ..spec() }).unwrap();
    writer.append(&episode(2, 2)).unwrap();
    let commit = writer.append(&episode(2, 3)).unwrap();
    assert_eq!(commit.files[2], "meta/episodes/chunk-000/file-001.parquet");
    assert_eq!(fs::read(folder.path().join("meta/episodes/chunk-000/file-000.parquet")).unwrap(), first);
    let rows = table(&folder.path().join("meta/episodes/chunk-000/file-001.parquet"));
    let integers = |key: &str| rows[key].as_primitive::<Int64Type>().values().to_vec();
    assert_eq!(integers("episode_index"), [2, 3]);
    assert_eq!(integers("dataset_from_index"), [4, 6]);
    assert_eq!(integers("meta/episodes/file_index"), [1, 1]);
    assert_eq!(integers("data/file_index"), [2, 3]);
}

#[test]
fn files_go_to_the_next_chunk_after_a_thousand() {
    let (folder, mut writer) = written(&[episode(1, 0)]);
    writer.state.totals.episodes = 999;
    writer.state.open_rows.clear();
    writer.state.open_file = 999;
    assert_eq!(
        writer.append(&episode(1, 1)).unwrap().files[..2],
        ["data/chunk-000/file-999.parquet", "videos/observation.images.front/chunk-000/file-999.mp4"]
    );
    writer.state.open_file = 1000;
    let files = writer.append(&episode(1, 2)).unwrap().files;
    assert_eq!(
        files[..2],
        ["data/chunk-001/file-000.parquet", "videos/observation.images.front/chunk-001/file-000.mp4"]
    );
    assert_eq!(files[2], "meta/episodes/chunk-001/file-000.parquet");
    let row = table(&folder.path().join(&files[2]));
    for (key, expected) in [
        ("data/chunk_index", 1),
        ("data/file_index", 0),
        ("videos/observation.images.front/chunk_index", 1),
        ("meta/episodes/chunk_index", 1),
    ] {
        assert_eq!(row[key].as_primitive::<Int64Type>().value(1), expected, "{key}");
    }
    assert_eq!(file_number("videos/k/chunk-001/file-002.mp4"), Some(1002));
}

#[test]
fn a_full_file_of_meta_episodes_is_followed_by_a_new_one() {
    let bare = |salt| Episode { cameras: vec![], columns: vec![floats("action", &["a"], 1, salt)], ..episode(1, salt) };
    let (folder, mut writer) = written(&[bare(0)]);
    let row = writer.state.open_rows[0].clone();
    writer.state.open_rows =
        (0..episodes::ROWS_MAX as u64).map(|episode| episodes::Row { episode, ..row.clone() }).collect();
    writer.state.totals.episodes = episodes::ROWS_MAX as u64;
    assert_eq!(writer.append(&bare(1)).unwrap().files[1], "meta/episodes/chunk-000/file-001.parquet");
    assert_eq!(table(&folder.path().join("meta/episodes/chunk-000/file-001.parquet")).num_rows(), 1);
}

#[test]
fn without_a_camera_there_is_no_video_path() {
    let episode = Episode { cameras: vec![], ..episode(2, 0) };
    let (folder, _) = written(&[episode]);
    let info = fs::read_to_string(folder.path().join(INFO)).unwrap();
    assert!(info.contains("\"video_path\": null"), "{info}");
    assert!(!folder.path().join("videos").exists());
}

#[test]
fn appending_names_every_real_difference() {
    let (folder, writer) = written(&[episode(2, 0)]);
    drop(writer);
    let mut wish = DatasetSpec { fps: 50, robot_type: Some("other".into()), ..spec() };
    wish.features[0].names[1] = "c".into();
    wish.features[1].dtype = Dtype::F64;
    wish.features[2].shape = vec![8, 32, 3];
    wish.features.push(feature("observation.force", Dtype::F32, &[1], &[]));
    let error = Writer::append_to(folder.path(), wish).err().unwrap().to_string();
    for part in [
        "fps is 30 here and 50 there",
        "robot_type is null here and \"other\" there",
        "action.names is \"b\" at 1 here and \"c\" at 1 there",
        "observation.state.dtype is float32 here and float64 there",
        "observation.images.front.shape is [8, 16, 3] here and [8, 32, 3] there",
        "observation.force is missing here and a feature there",
    ] {
        assert!(error.contains(part), "{part:?} is not in {error}");
    }
    assert_eq!(error.matches("; ").count(), 5, "{error}");
}

#[test]
fn units_that_are_stated_must_agree_and_the_order_of_features_need_not() {
    let mut first = episode(2, 0);
    first.columns[0].spec.unit = "rad".into();
    let (folder, writer) = written(&[first.clone()]);
    drop(writer);
    let mut wish = DatasetSpec::of(&first, None);
    wish.features.reverse();
    Writer::append_to(folder.path(), wish.clone()).unwrap();
    wish.features[2].unit = "deg".into();
    let error = Writer::append_to(folder.path(), wish).err().unwrap().to_string();
    assert!(error.contains("action.unit is rad here and deg there"), "{error}");
}

/// Each of these must leave the dataset as it is and the writer usable.
#[test]
fn an_episode_that_does_not_fit_is_refused_by_name() {
    let (folder, mut writer) = written(&[episode(2, 0)]);
    let before = all_files(folder.path());
    let mut refuse = |change: &dyn Fn(&mut Episode), expected: &str| {
        let mut episode = episode(3, 7);
        change(&mut episode);
        let error = writer.append(&episode).unwrap_err().to_string();
        assert!(error.contains("session/7") && error.contains(expected), "{expected:?} is not in {error:?}");
        assert_eq!(all_files(folder.path()), before, "{expected}");
    };
    refuse(&|episode| episode.rows = 0, "has no rows");
    refuse(&|episode| episode.fps = 25, "fps is 30 here and 25 there");
    refuse(&|episode| episode.columns.truncate(1), "observation.state is a feature here and missing there");
    refuse(&|episode| episode.columns[0].values.truncate(20), "action has 20 bytes, 3 rows need 24");
    refuse(
        &|episode| episode.columns[1].values[12..16].copy_from_slice(&f32::NAN.to_le_bytes()),
        "observation.state, element b, row 1 is NaN",
    );
    refuse(
        &|episode| episode.columns[1].values[0..4].copy_from_slice(&f32::INFINITY.to_le_bytes()),
        "element a, row 0 is inf",
    );
    refuse(&|episode| episode.cameras[0].pictures.truncate(2), "observation.images.front has 2 pictures for 3 rows");
    refuse(&|episode| episode.cameras[0].pictures[2].row = 1, "frame 1 is there twice");
    refuse(&|episode| episode.cameras[0].pictures[1].data = Bytes::from_static(b"no picture"), "row 1: not a jpeg");
    refuse(
        &|episode| episode.cameras[0].pictures[1].data = episode.cameras[0].pictures[1].data.slice(..200),
        "row 1: jpeg of 200 bytes ends inside",
    );
    refuse(
        &|episode| episode.cameras[0].pictures[1].data = jpeg::black(8, 8).unwrap(),
        "row 1 has 8x8 pixels, the camera was declared with 16x8",
    );
    refuse(&|episode| episode.cameras[0].spec.content = Content::H264, "avcC record of 0 bytes");
    refuse(
        &|episode| {
            episode.cameras[0].spec.content = Content::Av1;
            episode.cameras[0].config = Bytes::from_static(&[0x81, 0, 0, 0]);
        },
        "set `with_image_statistics`",
    );
    assert_eq!(writer.append(&episode(3, 7)).unwrap().episode, 1);
}

#[test]
fn values_that_are_no_numbers_are_kept_when_asked_for() {
    let mut odd = episode(3, 0);
    odd.columns[0].values[0..4].copy_from_slice(&f32::NAN.to_le_bytes());
    let folder = tempfile::tempdir().unwrap();
    let wish = DatasetSpec { not_finite: NotFinite::Keep, ..DatasetSpec::of(&odd, None) };
    Writer::create(folder.path(), wish).unwrap().append(&odd).unwrap();
    let data = table(&folder.path().join("data/chunk-000/file-000.parquet"));
    assert!(data["action"].as_fixed_size_list().values().as_primitive::<Float32Type>().value(0).is_nan());
    let text = fs::read_to_string(folder.path().join("meta/stats.json")).unwrap();
    assert!(!text.contains("null") && !text.contains("NaN"));
}

#[test]
fn coded_cameras_are_looked_at_by_the_caller() {
    let mut coded = episode(3, 0);
    coded.cameras[0].spec.content = Content::H264;
    coded.cameras[0].config = Bytes::from_static(&[1, 0x42, 0, 0x1e, 0xff, 0xe1, 0, 1, 0x67, 1, 0, 1, 0x68]);
    coded.cameras[0].pictures.swap(1, 2);
    let folder = tempfile::tempdir().unwrap();
    let looked = |camera: &Camera, rows: &[u32]| {
        assert_eq!((camera.pictures.len(), rows), (3, &[0, 1, 2][..]));
        let mut histogram = Histogram::default();
        histogram.add_rgb(1, 1, &[255, 0, 51]);
        Ok(histogram)
    };
    let mut writer =
        Writer::create(folder.path(), DatasetSpec::of(&coded, None)).unwrap().with_image_statistics(Box::new(looked));
    writer.append(&coded).unwrap();
    let stats: Value = serde_json::from_slice(&fs::read(folder.path().join("meta/stats.json")).unwrap()).unwrap();
    assert_eq!(stats["observation.images.front"]["mean"], serde_json::json!([[[1.0]], [[0.0]], [[0.2]]]));
    assert_eq!(stats["observation.images.front"]["count"], serde_json::json!([1]));
    let mut writer = writer.with_image_statistics(Box::new(|_, _| Err("ffmpeg is not there".into())));
    let error = writer.append(&coded).unwrap_err().to_string();
    assert!(error.contains("statistics of observation.images.front: ffmpeg is not there"), "{error}");
    let mp4 = Mp4::open(folder.path().join("videos/observation.images.front/chunk-000/file-000.mp4")).unwrap();
    assert_eq!(mp4.presentation_order(), [0, 2, 1]);
    // A later episode as JPEGs: the file can no longer name one codec for all.
    let mut writer = writer;
    writer.append(&episode(2, 1)).unwrap();
    let info = fs::read_to_string(folder.path().join(INFO)).unwrap();
    assert!(!info.contains("video.codec") && info.contains("video.fps"), "{info}");
}

#[test]
fn long_and_odd_task_texts_are_kept_by_number() {
    let long = "ü🤖".repeat(11_000);
    let texts = [&long[..], "", "a\nb\"c\0", "a"];
    let episodes: Vec<Episode> = texts
        .iter()
        .enumerate()
        .map(|(salt, text)| Episode { tasks: vec![(*text).into()], ..episode(1, salt) })
        .collect();
    let (folder, writer) = written(&episodes);
    drop(writer);
    let mut again = Writer::append_to(folder.path(), DatasetSpec { robot_type: None, ..spec() }).unwrap();
    again.append(&Episode { tasks: vec!["a".into(), "new".into()], ..episode(1, 9) }).unwrap();
    let tasks = table(&folder.path().join(TASKS));
    let read: Vec<&str> = tasks["task"].as_string::<i32>().iter().map(|text| text.unwrap()).collect();
    assert_eq!(read, [&long, "", "a\nb\"c\0", "a", "new"]);
    let data = table(&folder.path().join("data/chunk-000/file-004.parquet"));
    assert_eq!(data["task_index"].as_primitive::<Int64Type>().values(), &[3]);
}

#[test]
fn create_refuses_a_folder_with_content_and_clears_its_own_false_start() {
    let folder = tempfile::tempdir().unwrap();
    fs::create_dir_all(folder.path().join("data/chunk-000")).unwrap();
    fs::write(folder.path().join("data/chunk-000/file-000.parquet"), b"mine").unwrap();
    assert!(matches!(Writer::create(folder.path(), spec()), Err(WriteError::Taken { .. })));
    let (folder, writer) = written(&[episode(1, 0)]);
    drop(writer);
    assert!(matches!(Writer::create(folder.path(), spec()), Err(WriteError::Taken { .. })));
    fs::remove_file(folder.path().join(INFO)).unwrap();
    let writer = Writer::create(folder.path(), spec()).unwrap();
    assert!(!folder.path().join("data").exists());
    assert!(matches!(writer.finish(), Err(WriteError::NoEpisodes)));
}

#[test]
fn append_to_refuses_what_is_not_ours_or_is_damaged() {
    let wish = DatasetSpec { robot_type: None, ..spec() };
    let theirs = copy(&reference());
    assert!(matches!(Writer::append_to(theirs.path(), wish.clone()), Err(WriteError::NotOurs { .. })));
    let (folder, writer) = written(&[episode(1, 0), episode(1, 1)]);
    drop(writer);
    let damage = |path: &str, bytes: &[u8]| {
        let broken = copy(folder.path());
        fs::write(broken.path().join(path), bytes).unwrap();
        Writer::append_to(broken.path(), wish.clone()).err().unwrap().to_string()
    };
    for path in
        [INFO, MANIFEST, TASKS, "meta/tendon/statistics-000002.json", "meta/episodes/chunk-000/file-000.parquet"]
    {
        let error = damage(path, b"{}");
        assert!(error.contains(path) && error.contains("is damaged"), "{error}");
    }
    let info = fs::read_to_string(folder.path().join(INFO)).unwrap();
    let error = damage(INFO, info.replace("\"total_episodes\": 2", "\"total_episodes\": 5").as_bytes());
    assert!(error.contains("2 episodes, but info.json has 5"), "{error}");
    let error = damage(INFO, info.replace("\"total_frames\": 2", "\"total_frames\": 7").as_bytes());
    assert!(error.contains("total_frames is 7, but the last episode ends at row 2"), "{error}");
    assert!(damage(INFO, info.replace("v3.0", "v2.1").as_bytes()).contains("has version \"v2.1\""));
}

/// The disk refuses in the middle of an append: what was written of it is taken away again.
#[test]
fn an_append_that_the_disk_refuses_leaves_no_rows_behind() {
    let (folder, mut writer) = written(&[episode(2, 0)]);
    let stats = folder.path().join("meta/stats.json");
    fs::remove_file(&stats).unwrap();
    fs::create_dir(&stats).unwrap();
    fs::write(stats.join("x"), b"").unwrap();
    assert!(matches!(writer.append(&episode(2, 1)), Err(WriteError::Io { .. })));
    assert!(!folder.path().join("data/chunk-000/file-001.parquet").exists());
    assert!(!folder.path().join("videos/observation.images.front/chunk-000/file-001.mp4").exists());
    assert_eq!(table(&folder.path().join("meta/episodes/chunk-000/file-000.parquet")).num_rows(), 1);
    fs::remove_dir_all(&stats).unwrap();
    assert_eq!(writer.append(&episode(2, 1)).unwrap().episode, 1);
}

#[test]
fn keys_that_would_leave_the_folder_or_clash_are_refused() {
    let check = |key: &str| {
        let mut wish = spec();
        wish.features[0].key = key.into();
        wish.check()
    };
    for key in ["", ".", "..", "a/b", "../x", "a\\b", "a\0", "timestamp", "index", "task", "observation.state"] {
        assert!(check(key).is_err(), "{key:?}");
    }
    assert!(check(&"k".repeat(201)).is_err());
    assert!(check("next.reward").is_ok());
    assert!(DatasetSpec { fps: 0, ..spec() }.check().is_err());
    let mut twice = spec();
    twice.features[0].names[1] = "a".into();
    assert!(twice.check().unwrap_err().to_string().contains("\"a\" is there twice"));
}

#[test]
fn the_older_format_has_a_table_and_a_video_an_episode_and_lists_beside_them() {
    let folder = tempfile::tempdir().unwrap();
    let mut writer =
        v21::Writer::create(folder.path(), DatasetSpec { robot_type: Some("x".into()), ..spec() }).unwrap();
    assert_eq!(writer.append(&episode(2, 0)).unwrap(), 0);
    assert!(writer.append(&Episode { rows: 0, ..episode(2, 0) }).is_err());
    assert_eq!(writer.append(&episode(3, 1)).unwrap(), 1);
    assert!(!folder.path().join(INFO).exists());
    assert_eq!(writer.finish().unwrap(), Totals { episodes: 2, rows: 5, tasks: 2 });
    let lines = |path: &str| -> Vec<Value> {
        let text = fs::read_to_string(folder.path().join(path)).unwrap();
        text.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
    };
    assert_eq!(lines("meta/tasks.jsonl")[1], serde_json::json!({"task_index": 1, "task": "task 1"}));
    assert_eq!(
        lines("meta/episodes.jsonl")[1],
        serde_json::json!({"episode_index": 1, "tasks": ["task 1"], "length": 3})
    );
    let stats = lines("meta/episodes_stats.jsonl");
    assert_eq!(stats[1]["stats"]["index"]["min"], serde_json::json!([2.0]));
    assert_eq!(stats[0]["stats"]["action"].as_object().unwrap().len(), 5);
    let info: Info = serde_json::from_slice(&fs::read(folder.path().join(INFO)).unwrap()).unwrap();
    assert_eq!((info.total_videos, info.total_chunks, info.total_frames), (Some(2), Some(1), 5));
    let path = folder.path().join("data/chunk-000/episode_000001.parquet");
    assert_eq!(table(&path)["index"].as_primitive::<Int64Type>().values(), &[2, 3, 4]);
    let (schema, _) = schemas(&path);
    assert!(schema.metadata["huggingface"].contains("\"Sequence\""));
    assert_eq!(
        Mp4::open(folder.path().join("videos/chunk-000/observation.images.front/episode_000001.mp4")).unwrap().whole(),
        3
    );
}
