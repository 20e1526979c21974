//! The reader on the real datasets beside the checkout.

use std::collections::BTreeSet;
use std::path::PathBuf;

use super::*;

fn data(name: &str) -> PathBuf {
    let path = PathBuf::from(concat!(env!("CARGO_MANIFEST_DIR"), "/../../../shared/data")).join(name);
    assert!(path.exists(), "put the shared folder beside the checkout: {} is missing", path.display());
    path
}

#[test]
fn reference_gives_every_row_and_every_picture() {
    let dataset = Dataset::open(&data("lerobot-reference-v3")).unwrap();
    assert_eq!((dataset.version, dataset.fps_whole, dataset.episodes.len()), (Version::V30, Some(30), 3));
    assert_eq!(dataset.warnings, Vec::<String>::new());
    assert_eq!(dataset.robot_type.as_deref(), Some("so101_follower"));
    for position in 0..3 {
        let episode = dataset.read_episode(position).unwrap();
        assert_eq!(episode.warnings, Vec::<String>::new());
        assert_eq!(
            (episode.rows, episode.timestamps_f32.len(), episode.columns.len(), episode.cameras.len()),
            (100, 100, 2, 2)
        );
        for camera in &episode.cameras {
            assert!(camera.starts_at_key);
            assert_eq!((camera.units.len(), camera.spec.shape.as_slice()), (100, [480, 640, 3].as_slice()));
            let rows: BTreeSet<_> = camera.units.iter().map(|unit| unit.row).collect();
            assert_eq!(rows, (0..100).map(Some).collect());
            assert!(camera.units.iter().all(|unit| (unit.pts - f64::from(unit.row.unwrap()) / 30.0).abs() < 1e-9));
        }
        let values = |at: usize| -> Vec<f32> {
            episode.columns[at]
                .values
                .chunks_exact(4)
                .map(|bytes| f32::from_le_bytes(bytes.try_into().unwrap()))
                .collect()
        };
        assert_eq!(values(0).len(), 600);
        assert!(values(0).iter().zip(values(1)).all(|(action, state)| (action - state - 0.5).abs() < 1e-4));
    }
    assert_eq!(dataset.read_episode(2).unwrap().tasks, ["Place the cube in the box"]);
}

#[test]
fn dobot_keeps_its_capture_clock_and_misses_most_videos() {
    let dataset = Dataset::open(&data("dobot-cr5-v2")).unwrap();
    assert_eq!((dataset.version, dataset.episodes.len()), (Version::V21, 81));
    assert_eq!(dataset.warnings, ["observation.images.top: the videos of 78 of 81 episodes cannot be opened"]);
    let mut rows = 0;
    let mut gaps = 0;
    for position in 0..dataset.episodes.len() {
        let episode = dataset.read_episode(position).unwrap();
        rows += episode.rows;
        gaps += episode.timestamps.windows(2).filter(|pair| pair[1] - pair[0] > 0.15).count();
        assert_eq!(episode.cameras.len(), usize::from(position < 3));
        if let Some(camera) = episode.cameras.first() {
            assert_eq!(camera.units.len(), episode.rows);
        }
        assert!(
            episode.timestamps.iter().zip(&episode.timestamps_f32).all(|(wide, narrow)| *wide == f64::from(*narrow))
        );
    }
    assert_eq!((rows, gaps), (18_039, 271));
}

#[test]
fn unitree_has_flat_names_and_two_videos() {
    let dataset = Dataset::open(&data("unitree-g1-v2")).unwrap();
    assert_eq!(dataset.features[0].spec.names.len(), 26);
    assert_eq!(dataset.features[0].spec.names[0], "kLeftShoulderPitch");
    assert_eq!(dataset.warnings, ["observation.images.cam_high: the videos of 98 of 100 episodes cannot be opened"]);
    let with_video = dataset.read_episode(1).unwrap();
    assert_eq!((with_video.rows, with_video.cameras[0].units.len()), (393, 393));
    let without = dataset.read_episode(0).unwrap();
    assert_eq!((without.rows, without.cameras.len(), without.warnings.len()), (479, 0, 1));
}

#[test]
fn gr1_is_float64_without_frame_index_and_starts_late() {
    let dataset = Dataset::open(&data("gr1-picknplace-v2")).unwrap();
    assert_eq!((dataset.version, dataset.fps_whole), (Version::V20, Some(20)));
    let state = dataset.features.iter().find(|feature| feature.spec.key == "observation.state").unwrap();
    assert_eq!((state.spec.dtype, state.spec.width()), (Dtype::F64, 44));
    let ego = dataset.features.iter().find(|feature| feature.spec.key == "observation.images.egoview").unwrap();
    assert!(matches!(ego.access, Access::Unsupported(_)));
    let mut rows = 0;
    for position in 0..5 {
        let episode = dataset.read_episode(position).unwrap();
        rows += episode.rows;
        assert!((episode.timestamps[0] - 0.05).abs() < 1e-6);
        assert_eq!(episode.cameras[0].units.len(), episode.rows);
        assert_eq!(episode.tasks.last().map(String::as_str), Some("valid"));
        assert!(episode.tasks[0].starts_with("pick the"));
        let keys: Vec<&str> = episode.columns.iter().map(|column| column.spec.key.as_str()).collect();
        assert!(keys.contains(&"next.done") && keys.contains(&"annotation.human.validity"), "{keys:?}");
    }
    assert_eq!(rows, 2_096);
}

#[test]
fn doubles_for_integers_and_misspelt_columns_are_read() {
    for (name, version, cameras) in
        [("lerobotv2", Version::V21, 1), ("lerobotv3", Version::V30, 1), ("lerobotv2-image", Version::V21, 0)]
    {
        let dataset = Dataset::open(&data("ioai-fixtures/datasets").join(name)).unwrap();
        assert_eq!((dataset.version, dataset.episodes.len()), (version, 2), "{name}");
        for position in 0..2 {
            let episode = dataset.read_episode(position).unwrap();
            assert_eq!((episode.rows, episode.cameras.len()), (3, cameras), "{name}");
            assert_eq!(episode.tasks, ["pick cube"], "{name}");
            assert_eq!(
                episode.columns[0].spec.dtype,
                Dtype::F64,
                "{name}: declared float32, stored as double, so never rounded"
            );
        }
    }
}

#[test]
fn pointers_and_other_inventions_are_refused_with_the_reason() {
    let error = Dataset::open(&data("lfs-pointers-v21")).unwrap_err().to_string();
    assert!(error.contains("meta/episodes.jsonl") && error.contains("git lfs pull"), "{error}");
    let error = Dataset::open(&data("omx-sim-broken/dataset")).unwrap_err().to_string();
    assert!(error.contains("features"), "{error}");
    let error = Dataset::open(&data("ioai-fixtures/invalid/v3-missing-episodes-parquet")).unwrap_err().to_string();
    assert!(error.contains("features"), "{error}");
    let meta_only = Dataset::open(&data("wengmister-meta-only")).unwrap();
    let error = meta_only.read_episode(0).unwrap_err().to_string();
    assert!(error.contains("missing"), "{error}");
    assert!(matches!(meta_only.read_episode(7), Err(ReadError::NoEpisode { position: 7, episodes: 1 })));
}

#[test]
fn damaged_lines_are_named_by_number_and_harmless_oddities_are_read() {
    let folder = tempfile::tempdir().unwrap();
    let source = data("wengmister-meta-only/meta");
    std::fs::create_dir(folder.path().join("meta")).unwrap();
    for name in ["info.json", "tasks.jsonl"] {
        std::fs::write(folder.path().join("meta").join(name), std::fs::read(source.join(name)).unwrap()).unwrap();
    }
    let line = r#"{"episode_index": 0, "tasks": ["x"], "length": 896}"#;
    let episodes = folder.path().join("meta/episodes.jsonl");
    std::fs::write(&episodes, format!("\u{feff}\r\n{line}\r\n  \r\n")).unwrap();
    assert_eq!(Dataset::open(folder.path()).unwrap().episodes.len(), 1);
    std::fs::write(&episodes, format!("{line}\n{{\"episode_index\": 1, \n")).unwrap();
    assert!(matches!(Dataset::open(folder.path()), Err(ReadError::Line { line: 2, .. })));
}
