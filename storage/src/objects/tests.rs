use futures::StreamExt;
use object_store::memory::InMemory;

use super::*;
use crate::records::DatasetName;

fn run<T>(work: impl Future<Output = T>) -> T {
    tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap().block_on(work)
}

/// The local driver and, for what does not depend on files, one in memory.
fn both(folder: &FilePath) -> [Objects; 2] {
    [Objects::local(&folder.join("objects")).unwrap(), Objects::over(Arc::new(InMemory::new()), "memory")]
}

async fn paths(objects: &Objects, prefix: &str) -> Vec<String> {
    objects.list(prefix).await.unwrap().into_iter().map(|info| info.path).collect()
}

fn pattern(length: usize) -> Vec<u8> {
    (0..length).map(|at| (at.wrapping_mul(2_654_435_761) >> 7) as u8).collect()
}

#[test]
fn an_object_is_written_replaced_listed_and_removed() {
    let folder = tempfile::tempdir().unwrap();
    run(async {
        for objects in both(folder.path()) {
            objects.put("a/b/c.json", Bytes::from_static(b"old")).await.unwrap();
            objects.put("a/b/c.json", Bytes::from_static(b"new!")).await.unwrap();
            objects.put("a/bb", Bytes::new()).await.unwrap();
            assert_eq!(objects.get("a/b/c.json").await.unwrap(), "new!");
            assert_eq!(objects.size("a/b/c.json").await.unwrap(), 4);
            assert_eq!(paths(&objects, "").await, ["a/b/c.json", "a/bb"]);
            // A prefix is a folder, not the beginning of a name.
            assert_eq!(paths(&objects, "a/b").await, ["a/b/c.json"]);
            assert_eq!(paths(&objects, "nowhere").await, [""; 0]);
            let listed = objects.list("a/b").await.unwrap();
            assert!(listed[0].bytes == 4 && listed[0].modified_ns > 1_600_000_000_000_000_000, "{listed:?}");
            objects.delete("a/b/c.json").await.unwrap();
            objects.delete("a/b/c.json").await.unwrap();
            assert!(
                matches!(objects.get("a/b/c.json").await, Err(ObjectError::NotFound { path }) if path == "a/b/c.json")
            );
        }
    });
}

#[test]
fn dataset_names_of_any_script_come_back_equal() {
    let folder = tempfile::tempdir().unwrap();
    let names = ["würfel-stapeln", "データ.v2", "захват_1", "بيانات", &"漢".repeat(42)];
    run(async {
        for objects in both(folder.path()) {
            let mut expected = Vec::new();
            for name in names {
                let name: DatasetName = name.parse().unwrap();
                let path = format!("datasets/{name}/meta/info.json");
                objects.put(&path, Bytes::from(path.clone())).await.unwrap();
                expected.push(path);
            }
            expected.sort();
            assert_eq!(paths(&objects, "datasets").await, expected);
            for path in expected {
                assert_eq!(objects.get(&path).await.unwrap(), path);
            }
        }
    });
    // Also for a person who looks into the folder.
    assert!(folder.path().join("objects/datasets/データ.v2/meta/info.json").is_file());
}

#[test]
fn a_percent_sign_is_a_percent_sign() {
    let folder = tempfile::tempdir().unwrap();
    run(async {
        for objects in both(folder.path()) {
            objects.put("a%2Fb/c%25", Bytes::from_static(b"x")).await.unwrap();
            assert_eq!(paths(&objects, "").await, ["a%2Fb/c%25"]);
            assert_eq!(objects.get("a%2Fb/c%25").await.unwrap(), "x");
        }
    });
}

#[test]
fn of_many_writers_of_a_new_object_one_succeeds_and_its_bytes_stay() {
    let folder = tempfile::tempdir().unwrap();
    run(async {
        for objects in both(folder.path()) {
            for round in 0..10 {
                let path = format!("round-{round}/manifest.json");
                let write = |number: usize| {
                    let (objects, path) = (objects.clone(), path.clone());
                    tokio::spawn(async move { objects.put_if_absent(&path, Bytes::from(number.to_string())).await })
                };
                let writers: Vec<_> = (0..8).map(write).collect();
                let mut winners = Vec::new();
                for (number, writer) in writers.into_iter().enumerate() {
                    match writer.await.unwrap() {
                        Ok(()) => winners.push(number.to_string()),
                        Err(ObjectError::Exists { path: named }) => assert_eq!(named, path),
                        Err(other) => panic!("{other}"),
                    }
                }
                assert_eq!(winners.len(), 1);
                assert_eq!(objects.get(&path).await.unwrap(), winners[0]);
            }
        }
    });
}

#[test]
fn files_go_up_whole_at_every_length_around_a_part() {
    let folder = tempfile::tempdir().unwrap();
    run(async {
        for objects in both(folder.path()) {
            for length in [0, 1, PART_BYTES - 1, PART_BYTES, PART_BYTES + 1, 4 * PART_BYTES + 77] {
                let content = pattern(length);
                let file = folder.path().join("source");
                std::fs::write(&file, &content).unwrap();
                assert_eq!(objects.put_file("up/file.mp4", &file).await.unwrap(), length as u64);
                assert!(objects.get("up/file.mp4").await.unwrap() == content, "{length} bytes");
                let mut stream = objects.get_stream("up/file.mp4").await.unwrap();
                assert_eq!(stream.bytes, length as u64);
                let mut read = Vec::new();
                while let Some(piece) = stream.pieces.next().await {
                    read.extend_from_slice(&piece.unwrap());
                }
                assert!(read == content, "{length} bytes in pieces");
            }
            assert_eq!(paths(&objects, "").await, ["up/file.mp4"]);
        }
    });
}

#[test]
fn a_file_that_is_not_there_is_named_and_leaves_no_object() {
    let folder = tempfile::tempdir().unwrap();
    run(async {
        for objects in both(folder.path()) {
            let missing = folder.path().join("missing.mp4");
            let text = objects.put_file("up/file.mp4", &missing).await.unwrap_err().to_string();
            assert!(text.contains("missing.mp4") && text.contains("up/file.mp4"), "{text}");
            assert_eq!(paths(&objects, "").await, [""; 0]);
        }
    });
}

#[test]
fn a_range_is_read_whole_or_refused() {
    let folder = tempfile::tempdir().unwrap();
    run(async {
        for objects in both(folder.path()) {
            objects.put("x", Bytes::from_static(b"0123456789")).await.unwrap();
            assert_eq!(objects.get_range("x", 3..7).await.unwrap(), "3456");
            assert_eq!(objects.get_range("x", 0..10).await.unwrap(), "0123456789");
            assert_eq!(objects.get_range("x", 10..10).await.unwrap(), "");
            #[allow(clippy::reversed_empty_ranges, reason = "a caller may get it wrong")]
            for wrong in [9..11, 11..12, 5..4, 0..u64::MAX] {
                let refused = objects.get_range("x", wrong).await;
                assert!(matches!(refused, Err(ObjectError::Range { .. })), "{refused:?}");
            }
            assert!(matches!(objects.get_range("y", 0..1).await, Err(ObjectError::NotFound { .. })));
        }
    });
}

#[test]
fn no_call_takes_a_path_that_leads_out_of_the_store() {
    let folder = tempfile::tempdir().unwrap();
    std::fs::write(folder.path().join("secret"), "x").unwrap();
    let file = folder.path().join("secret");
    run(async {
        for objects in both(folder.path()) {
            for path in ["../secret", "a/../../secret", "/secret", "a\\..\\secret", ""] {
                let refused = [
                    objects.put(path, Bytes::new()).await.err(),
                    objects.put_if_absent(path, Bytes::new()).await.err(),
                    objects.put_file(path, &file).await.err(),
                    objects.get(path).await.err(),
                    objects.get_stream(path).await.err(),
                    objects.get_range(path, 0..1).await.err(),
                    objects.size(path).await.err(),
                    objects.delete(path).await.err(),
                ];
                for error in refused {
                    assert!(matches!(error, Some(ObjectError::Path { .. })), "{path:?}: {error:?}");
                }
            }
            assert!(objects.list("..").await.is_err());
        }
    });
    assert_eq!(std::fs::read_to_string(file).unwrap(), "x");
}

#[test]
fn objects_outlive_the_process_and_what_a_killed_one_left_is_removed() {
    let folder = tempfile::tempdir().unwrap();
    let root = folder.path().join("deep/er/objects");
    run(async {
        let objects = Objects::local(&root).unwrap();
        objects.put("a/b/whole.mp4", Bytes::from_static(b"whole")).await.unwrap();
        std::fs::write(root.join("a/b/part.mp4#1"), [0; 700]).unwrap();
        std::fs::write(root.join("a/part.mp4#23"), [0; 77]).unwrap();
        drop(objects);
        let objects = Objects::local(&root).unwrap();
        assert_eq!(paths(&objects, "").await, ["a/b/whole.mp4"]);
        assert_eq!(objects.remove_unfinished().await.unwrap(), 777);
        assert_eq!(objects.remove_unfinished().await.unwrap(), 0);
        assert_eq!(objects.get("a/b/whole.mp4").await.unwrap(), "whole");
    });
    assert_eq!(std::fs::read_dir(root.join("a")).unwrap().count(), 1);
}

#[test]
fn a_folder_removed_behind_our_back_is_made_again() {
    let folder = tempfile::tempdir().unwrap();
    run(async {
        let objects = Objects::local(folder.path()).unwrap();
        objects.put("a/b/c", Bytes::from_static(b"1")).await.unwrap();
        std::fs::remove_dir_all(folder.path().join("a")).unwrap();
        objects.put("a/b/c", Bytes::from_static(b"2")).await.unwrap();
        assert_eq!(objects.get("a/b/c").await.unwrap(), "2");
    });
}

#[test]
fn a_file_in_the_place_of_a_folder_is_a_clear_error() {
    let folder = tempfile::tempdir().unwrap();
    std::fs::write(folder.path().join("file"), "x").unwrap();
    let text = Objects::local(&folder.path().join("file/objects")).err().unwrap().to_string();
    assert!(text.contains("file/objects") && text.contains("write permission"), "{text}");
    run(async {
        let objects = Objects::local(folder.path()).unwrap();
        let text = objects.put("file/below", Bytes::new()).await.unwrap_err().to_string();
        assert!(text.contains("object file/below"), "{text}");
    });
}

#[test]
fn a_full_disk_is_told_from_other_failures() {
    let objects = Objects::over(Arc::new(InMemory::new()), "/mnt/data");
    let full = std::io::Error::from(std::io::ErrorKind::StorageFull);
    let text = objects.describe_io("a/b", full).to_string();
    assert_eq!(text, "no space left for object a/b in /mnt/data; free some space and try again");
    let other = objects.describe_io("a/b", std::io::Error::other("odd"));
    assert!(matches!(other, ObjectError::Store { .. }));
}
