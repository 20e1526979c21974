//! A dataset's files between the scratch folder and object storage.

use std::path::Path;
use std::sync::Arc;

use tendon_dataset::lerobot::writer::Commit;
use tendon_dataset::lerobot::writer::manifest::Manifest;
use tendon_storage::records::ExportFile;

use super::storage;
use crate::api::Refusal;
use crate::house::House;

/// Where our manifest is in a dataset.
const TENDON: &str = "meta/tendon.json";
/// Written last, in every format: a dataset without it does not exist.
const INFO: &str = "meta/info.json";

/// Origins of the episodes of a dataset in object storage; `None` when there is none.
pub(super) async fn origins(house: &House, prefix: &str) -> Option<Vec<String>> {
    let content = house.objects.get(&format!("{prefix}/{TENDON}")).await.ok()?;
    let manifest: Manifest = serde_json::from_slice(&content).ok()?;
    Some(manifest.episodes.into_iter().map(|episode| episode.origin).collect())
}

/// Fetches the part of a dataset that a writer needs to go on.
pub(super) async fn fetch_meta(house: &House, prefix: &str, folder: &Path) -> Result<(), Refusal> {
    for object in house.objects.list(&format!("{prefix}/meta")).await.map_err(storage)? {
        let Some(relative) = object.path.strip_prefix(&format!("{prefix}/")) else {
            continue;
        };
        let target = folder.join(relative);
        if let Some(parent) = target.parent() {
            tokio::fs::create_dir_all(parent).await.map_err(storage)?;
        }
        let content = house.objects.get(&object.path).await.map_err(storage)?;
        tokio::fs::write(&target, &content).await.map_err(storage)?;
    }
    Ok(())
}

/// Copies what an append wrote, in its order, then removes what is no longer needed. Data and
/// videos leave the scratch folder.
pub(super) async fn publish(house: &Arc<House>, prefix: &str, folder: &Path, commit: &Commit) -> Result<(), Refusal> {
    for file in &commit.files {
        let local = folder.join(file);
        house.objects.put_file(&format!("{prefix}/{file}"), &local).await.map_err(storage)?;
        if !file.starts_with("meta/") {
            tokio::fs::remove_file(&local).await.map_err(storage)?;
        }
    }
    for file in &commit.removed {
        if let Err(error) = house.objects.delete(&format!("{prefix}/{file}")).await {
            tracing::warn!("file that is no longer needed stays: {error}");
        }
    }
    Ok(())
}

/// Copies a whole dataset, `info.json` last.
pub(super) async fn publish_all(house: &Arc<House>, prefix: &str, folder: &Path) -> Result<(), Refusal> {
    let mut files = Vec::new();
    let mut folders = vec![folder.to_owned()];
    while let Some(next) = folders.pop() {
        let mut entries = tokio::fs::read_dir(&next).await.map_err(storage)?;
        while let Some(entry) = entries.next_entry().await.map_err(storage)? {
            let path = entry.path();
            if entry.file_type().await.map_err(storage)?.is_dir() {
                folders.push(path);
            } else if let Ok(relative) = path.strip_prefix(folder) {
                files.push(relative.to_string_lossy().into_owned());
            }
        }
    }
    files.sort_by_key(|file| (file == INFO, file.starts_with("meta/"), file.clone()));
    for file in files {
        house.objects.put_file(&format!("{prefix}/{file}"), &folder.join(&file)).await.map_err(storage)?;
    }
    Ok(())
}

/// All files of a dataset, `info.json` last, so that whoever copies them in this order has a whole one at the end.
pub(super) async fn listing(house: &House, prefix: &str) -> Result<Vec<ExportFile>, Refusal> {
    let found = house.objects.list(prefix).await.map_err(storage)?;
    let relative = |path: &str| path.strip_prefix(&format!("{prefix}/")).map(str::to_owned);
    let mut files: Vec<ExportFile> = found
        .into_iter()
        .filter_map(|object| relative(&object.path).map(|path| ExportFile { path, bytes: object.bytes }))
        .collect();
    files.sort_by_key(|file| (file.path == INFO, file.path.starts_with("meta/"), file.path.clone()));
    Ok(files)
}
