//! Files of an export on this disk: fetched aside, then put in place, `info.json` last.

use std::collections::BTreeSet;
use std::fs::File;
use std::path::{Component, Path, PathBuf};

use indicatif::ProgressBar;
use tendon_dataset::lerobot::MANIFEST;
use tendon_storage::records::{ExportFile, ExportRecord};

use crate::cli::client::Client;
use crate::cli::error::CliError;
use crate::cli::output::Output;

/// Files wait here until all are there.
const ASIDE: &str = ".tendon-partial";
/// Without it no reader takes a folder for a dataset.
const INFO: &str = "meta/info.json";
/// Folders that belong to a dataset; nothing else is ever removed.
const FOLDERS: [&str; 3] = ["data", "meta", "videos"];
/// Kinds of files in them.
const KINDS: [&str; 4] = ["parquet", "mp4", "json", "jsonl"];
/// Times that a file is asked for.
const TRIES: usize = 4;
/// Code of the error when a file is no longer what the export listed.
pub(super) const CHANGED: &str = "export_changed";
/// Longest path of a file; the deepest of ours has about 100 bytes.
const PATH_BYTES_MAX: usize = 1024;

/// A folder that may become a dataset.
#[derive(Debug)]
pub(super) struct Target {
    folder: PathBuf,
}

impl Target {
    /// Looks whether the folder may be used.
    ///
    /// # Errors
    /// When it holds something that is no earlier export.
    pub(super) fn open(folder: &Path) -> Result<Self, CliError> {
        let target = Self { folder: folder.to_owned() };
        let entries = match std::fs::read_dir(folder) {
            Ok(entries) => entries,
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(target),
            Err(error) => {
                return Err(CliError::path("look into", folder, &error, "choose another folder with --out"));
            }
        };
        let is_empty = entries.filter_map(Result::ok).all(|entry| entry.file_name() == ASIDE);
        if is_empty || folder.join(MANIFEST).is_file() || target.was_cut() {
            return Ok(target);
        }
        Err(CliError::usage(format!(
            "{} is not empty and holds no earlier export; choose another folder with --out",
            folder.display()
        )))
    }

    /// Whether a command ended while it put files in place: the folder is then ours, and no dataset.
    fn was_cut(&self) -> bool {
        let is_ours = self.folder.join(ASIDE).symlink_metadata().is_ok_and(|aside| aside.is_dir());
        is_ours && !self.folder.join(INFO).exists()
    }

    /// Brings the files of a finished export here; gives their bytes.
    ///
    /// # Errors
    /// When the server lists what cannot be, does not answer, or the disk refuses; with the code
    /// [`CHANGED`] when a file is not what was listed.
    pub(super) async fn fetch(&self, client: &Client, record: &ExportRecord, output: &Output) -> Result<u64, CliError> {
        check(&record.files)?;
        let total: u64 = record.files.iter().map(|file| file.bytes).sum();
        let bar = output.bar_bytes(total, "fetching");
        self.clear_aside()?;
        let mut finished = 0;
        for file in &record.files {
            self.fetch_one(client, &record.id, file, &bar, finished).await?;
            finished += file.bytes;
        }
        bar.finish_and_clear();
        self.put_in_place(&record.files)?;
        Ok(total)
    }

    /// Makes the aside folder, or empties it. It is never gone in between, as it says whose the folder is.
    fn clear_aside(&self) -> Result<(), CliError> {
        let aside = self.folder.join(ASIDE);
        let failed =
            |error| CliError::path("empty", &aside, &error, "remove it by hand, and give this user write permission");
        std::fs::create_dir_all(&aside).map_err(failed)?;
        for entry in std::fs::read_dir(&aside).map_err(failed)? {
            let entry = entry.map_err(failed)?;
            let is_folder = entry.file_type().map_err(failed)?.is_dir();
            let removed =
                if is_folder { std::fs::remove_dir_all(entry.path()) } else { std::fs::remove_file(entry.path()) };
            removed.map_err(failed)?;
        }
        sync_folder(&self.folder)
    }

    /// Brings one file; `finished` are the bytes of the files before it.
    ///
    /// # Errors
    /// As [`Target::fetch`].
    pub(super) async fn fetch_one(
        &self,
        client: &Client,
        export: &str,
        file: &ExportFile,
        bar: &ProgressBar,
        finished: u64,
    ) -> Result<(), CliError> {
        let path = self.folder.join(ASIDE).join(&file.path);
        make_parent(&path)?;
        let mut last = None;
        for _ in 0..TRIES {
            // What an earlier try brought does not count.
            bar.set_position(finished);
            match client.fetch(export, &file.path, &path, |bytes| bar.inc(bytes)).await {
                Ok(length) if length == file.bytes => return Ok(()),
                Ok(length) => {
                    return Err(changed(format!("{} has {length} bytes, the export listed {}", file.path, file.bytes)));
                }
                Err(error) if error.code == "not_found" => return Err(changed(error.message)),
                Err(error) if error.code == "unreachable" => last = Some(error),
                Err(error) => return Err(error),
            }
        }
        Err(last.unwrap_or_else(|| CliError::failed(format!("{} cannot be fetched", file.path))))
    }

    /// Replaces an earlier dataset. From the first step to the last but one there is no `info.json`,
    /// so that no reader takes old and new files together for a dataset, whenever this ends.
    fn put_in_place(&self, files: &[ExportFile]) -> Result<(), CliError> {
        self.hide()?;
        let (info, others): (Vec<&ExportFile>, Vec<&ExportFile>) = files.iter().partition(|file| file.path == INFO);
        others.iter().try_for_each(|file| self.place(file))?;
        self.remove_old(files)?;
        // The files themselves were synced as they came. The folder of the last one may hold nothing yet.
        make_parent(&self.folder.join(INFO))?;
        self.sync_folders(files)?;
        info.iter().try_for_each(|file| self.place(file))?;
        sync_folder(&self.folder.join("meta"))?;
        remove_folder(&self.folder.join(ASIDE))
    }

    /// Takes an earlier dataset out of sight, for good before the first of its files changes.
    fn hide(&self) -> Result<(), CliError> {
        let info = self.folder.join(INFO);
        match std::fs::remove_file(&info) {
            Ok(()) => sync_folder(&self.folder.join("meta")),
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(()),
            Err(error) => Err(CliError::path("replace", &info, &error, "give this user write permission")),
        }
    }

    fn place(&self, file: &ExportFile) -> Result<(), CliError> {
        let (from, to) = (self.folder.join(ASIDE).join(&file.path), self.folder.join(&file.path));
        make_parent(&to)?;
        std::fs::rename(&from, &to)
            .map_err(|error| CliError::path("put in place", &to, &error, "give this user write permission"))
    }

    /// All folders that hold one of the files, up to the dataset's own.
    fn sync_folders(&self, files: &[ExportFile]) -> Result<(), CliError> {
        let folders: BTreeSet<&Path> =
            files.iter().flat_map(|file| Path::new(&file.path).ancestors().skip(1)).collect();
        folders.iter().rev().try_for_each(|folder| sync_folder(&self.folder.join(folder)))
    }

    fn remove_old(&self, files: &[ExportFile]) -> Result<(), CliError> {
        let kept: BTreeSet<PathBuf> = files.iter().map(|file| self.folder.join(&file.path)).collect();
        let mut folders: Vec<PathBuf> = FOLDERS.iter().map(|folder| self.folder.join(folder)).collect();
        while let Some(folder) = folders.pop() {
            let Ok(entries) = std::fs::read_dir(&folder) else {
                continue;
            };
            for entry in entries.filter_map(Result::ok) {
                let path = entry.path();
                // A link is not followed: what it leads to is not ours.
                match entry.file_type() {
                    Ok(kind) if kind.is_dir() => folders.push(path),
                    Ok(kind) if kind.is_file() && is_ours(&path) && !kept.contains(&path) => {
                        std::fs::remove_file(&path).map_err(|error| {
                            CliError::path(
                                "remove",
                                &path,
                                &error,
                                "it belongs to the earlier export; remove it by hand",
                            )
                        })?;
                    }
                    Ok(_) | Err(_) => {}
                }
            }
        }
        Ok(())
    }
}

fn changed(what: impl std::fmt::Display) -> CliError {
    CliError::refused(CHANGED, format!("{what}; a newer export has changed it meanwhile, run the command again"))
}

fn is_ours(path: &Path) -> bool {
    path.extension().and_then(|extension| extension.to_str()).is_some_and(|extension| KINDS.contains(&extension))
}

/// What a server lists becomes paths here: none may lead out of the folder, or stand there twice.
fn check(files: &[ExportFile]) -> Result<(), CliError> {
    let mut seen = BTreeSet::new();
    for file in files {
        let path = Path::new(&file.path);
        let is_plain = path.components().all(|part| matches!(part, Component::Normal(_)));
        let first = path.components().next().map(|part| part.as_os_str().to_owned());
        let is_inside = first.is_some_and(|first| FOLDERS.iter().any(|folder| first == *folder));
        let is_short = file.path.len() <= PATH_BYTES_MAX && !file.path.contains(['\0', '\\']);
        if !is_plain || !is_inside || !is_short || !seen.insert(&file.path) {
            let shown: String = file.path.chars().take(128).collect();
            return Err(CliError::failed(format!(
                "the server lists the file {shown:?}, which no dataset has; is it a Tendon server of this version?"
            )));
        }
    }
    if seen.iter().any(|path| *path == INFO) {
        return Ok(());
    }
    Err(CliError::failed(format!("the server lists {} files without {INFO}; the export is not whole", files.len())))
}

fn make_parent(path: &Path) -> Result<(), CliError> {
    let Some(parent) = path.parent() else { return Ok(()) };
    std::fs::create_dir_all(parent).map_err(|error| {
        CliError::path("make", parent, &error, "give this user write permission, or choose another --out")
    })
}

fn sync_folder(folder: &Path) -> Result<(), CliError> {
    File::open(folder)
        .and_then(|opened| opened.sync_all())
        .map_err(|error| CliError::path("sync", folder, &error, "look at the disk, then run the command again"))
}

fn remove_folder(folder: &Path) -> Result<(), CliError> {
    match std::fs::remove_dir_all(folder) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
            Err(CliError::path("remove", folder, &error, "remove it by hand"))
        }
        Ok(()) | Err(_) => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn file(path: &str) -> ExportFile {
        ExportFile { path: path.to_owned(), bytes: 1 }
    }

    fn write(folder: &Path, path: &str, text: &str) {
        make_parent(&folder.join(path)).unwrap();
        std::fs::write(folder.join(path), text).unwrap();
    }

    #[test]
    fn a_folder_with_other_things_is_refused_and_an_earlier_export_is_not() {
        let folder = tempfile::tempdir().unwrap();
        Target::open(&folder.path().join("new")).unwrap();
        Target::open(folder.path()).unwrap();
        write(folder.path(), "notes.txt", "mine");
        assert_eq!(Target::open(folder.path()).unwrap_err().code, "usage");
        write(folder.path(), MANIFEST, "{}");
        Target::open(folder.path()).unwrap();
    }

    #[test]
    fn a_download_that_was_cut_does_not_block_the_next_one() {
        let folder = tempfile::tempdir().unwrap();
        write(folder.path(), ".tendon-partial/meta/info.json", "{");
        Target::open(folder.path()).unwrap();
    }

    #[test]
    fn a_folder_whose_new_files_were_cut_before_the_manifest_is_taken_again() {
        let folder = tempfile::tempdir().unwrap();
        write(folder.path(), "data/chunk-000/file-000.parquet", "new");
        assert_eq!(Target::open(folder.path()).unwrap_err().code, "usage");
        write(&folder.path().join(ASIDE), INFO, "new");
        let target = Target::open(folder.path()).unwrap();
        target.clear_aside().unwrap();
        assert_eq!(std::fs::read_dir(folder.path().join(ASIDE)).unwrap().count(), 0);
        Target::open(folder.path()).unwrap();
        // A dataset of somebody else stays refused.
        write(folder.path(), INFO, "theirs");
        assert_eq!(Target::open(folder.path()).unwrap_err().code, "usage");
    }

    #[test]
    fn an_export_that_cannot_be_shown_leaves_no_old_file_beside_new_ones_and_can_be_tried_again() {
        let folder = tempfile::tempdir().unwrap();
        let (new, old) = ("data/chunk-000/file-000.parquet", "data/chunk-000/file-007.parquet");
        for path in [INFO, MANIFEST, new, old, "videos/top/file-000.mp4"] {
            write(folder.path(), path, "old");
        }
        let files = [file(INFO), file(MANIFEST), file(new)];
        for file in &files {
            write(&folder.path().join(ASIDE), &file.path, "new");
        }
        // Only the last rename has nothing to move.
        std::fs::remove_file(folder.path().join(ASIDE).join(INFO)).unwrap();
        let error = Target::open(folder.path()).unwrap().put_in_place(&files).unwrap_err();
        assert!(error.message.contains(INFO), "{error}");
        let read = |path: &str| std::fs::read_to_string(folder.path().join(path)).ok();
        assert_eq!((read(INFO), read(old), read("videos/top/file-000.mp4")), (None, None, None));
        assert_eq!((read(new).as_deref(), read(MANIFEST).as_deref()), (Some("new"), Some("new")));
        assert!(folder.path().join(ASIDE).is_dir(), "the folder is known as ours");

        let target = Target::open(folder.path()).unwrap();
        target.clear_aside().unwrap();
        for file in &files {
            write(&folder.path().join(ASIDE), &file.path, "newer");
        }
        target.put_in_place(&files).unwrap();
        assert_eq!((read(INFO).as_deref(), read(new).as_deref()), (Some("newer"), Some("newer")));
        assert!(!folder.path().join(ASIDE).exists());
    }

    #[test]
    fn a_folder_in_the_place_of_the_last_file_changes_nothing() {
        let folder = tempfile::tempdir().unwrap();
        let old = "data/chunk-000/file-007.parquet";
        for path in [MANIFEST, old, "meta/info.json/notes.txt"] {
            write(folder.path(), path, "old");
        }
        let files = [file(INFO), file("data/chunk-000/file-000.parquet")];
        for file in &files {
            write(&folder.path().join(ASIDE), &file.path, "new");
        }
        let target = Target::open(folder.path()).unwrap();
        target.put_in_place(&files).unwrap_err();
        assert!(folder.path().join(old).exists() && !folder.path().join(&files[1].path).exists());
        std::fs::remove_dir_all(folder.path().join(INFO)).unwrap();
        target.put_in_place(&files).unwrap();
        assert!(folder.path().join(INFO).is_file() && !folder.path().join(old).exists());
    }

    #[test]
    fn a_new_export_replaces_the_old_one_and_leaves_foreign_files_alone() {
        let folder = tempfile::tempdir().unwrap();
        for (path, text) in [
            (INFO, "old"),
            (MANIFEST, "old"),
            ("data/chunk-000/file-007.parquet", "old"),
            ("data/notes.txt", "mine"),
            ("README.md", "mine"),
        ] {
            write(folder.path(), path, text);
        }
        let files = [file(INFO), file(MANIFEST), file("data/chunk-000/file-000.parquet")];
        for file in &files {
            write(&folder.path().join(ASIDE), &file.path, "new");
        }
        Target::open(folder.path()).unwrap().put_in_place(&files).unwrap();
        let read = |path: &str| std::fs::read_to_string(folder.path().join(path)).ok();
        assert_eq!(
            (read(INFO).as_deref(), read("data/chunk-000/file-000.parquet").as_deref()),
            (Some("new"), Some("new"))
        );
        assert_eq!(read("data/chunk-000/file-007.parquet"), None);
        assert_eq!((read("data/notes.txt").as_deref(), read("README.md").as_deref()), (Some("mine"), Some("mine")));
        assert!(!folder.path().join(ASIDE).exists());
    }

    #[test]
    fn a_dataset_is_out_of_sight_while_its_files_are_replaced() {
        let folder = tempfile::tempdir().unwrap();
        write(folder.path(), INFO, "old");
        write(folder.path(), MANIFEST, "old");
        // The second file was never fetched: putting in place fails in the middle.
        write(&folder.path().join(ASIDE), "data/a.parquet", "new");
        let files = [file("data/a.parquet"), file("meta/stats.json"), file(INFO)];
        Target::open(folder.path()).unwrap().put_in_place(&files).unwrap_err();
        assert!(!folder.path().join(INFO).exists());
        Target::open(folder.path()).unwrap();
    }

    #[test]
    fn a_listing_that_leads_elsewhere_is_refused() {
        for path in ["../x", "/etc/passwd", "data/../../x", "", "data", "other/x", "data/a\0b", "C:\\x", "./data/x"] {
            let listed = [file(INFO), file(path)];
            let is_allowed = path == "data";
            assert_eq!(check(&listed).is_ok(), is_allowed, "{path:?}");
        }
        assert!(check(&[file(INFO), file("data/a"), file("data/a")]).is_err());
        assert!(check(&[file("data/a")]).is_err());
    }

    proptest! {
        #[test]
        fn no_listed_path_that_is_taken_leads_out_of_the_folder(path in "[./a-z\\\\]{0,20}") {
            if check(&[file(INFO), file(&path)]).is_ok() {
                prop_assert!(!path.contains("..") || !Path::new(&path).components().any(|part| part == Component::ParentDir));
                prop_assert!(Path::new("/out").join(&path).starts_with("/out/data") || Path::new("/out").join(&path).starts_with("/out/meta"));
            }
        }
    }
}
