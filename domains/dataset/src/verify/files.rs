//! Files that nothing refers to.

use std::path::Path;

use super::code::Code;
use super::findings::Findings;
use super::{Place, Subject};

/// Deepest folder looked into.
const DEPTH_MAX: usize = 8;
/// Most entries listed; a dataset of a million episodes has fewer files than this.
const ENTRIES_MAX: usize = 4_000_000;

/// Compare what lies in the folders with what the metadata refers to.
pub(super) fn check(subject: &Subject, findings: &mut Findings) {
    let list = |folder: &str| {
        let mut found = Vec::new();
        walk(&subject.root, folder, 0, &mut found);
        found.sort();
        found
    };
    for path in list("images") {
        let camera = path.split('/').take(2).collect::<Vec<_>>().join("/");
        findings.grouped(Code::ImagesLeft, &camera, Place::file(&path), || format!("{path} is left of a recording"));
    }
    for path in list("meta") {
        if !meta_known(subject, &path) {
            findings.add(Code::StrayFile, Place::file(&path), || format!("nothing refers to {path}"));
        }
    }
    if !subject.episodes_whole {
        return;
    }
    for folder in ["data", "videos"] {
        for path in list(folder) {
            let blind = subject.blind.iter().any(|part| path.contains(part));
            if subject.expected.contains(&path) || blind {
                continue;
            }
            let joined = !subject.version.is_v2()
                && folder == "data"
                && path.ends_with(".parquet")
                && path.split('/').count() == 3;
            let code = if joined { Code::StrayData } else { Code::StrayFile };
            let group = path.rsplit_once('/').map_or(folder, |(group, _)| group).to_owned();
            findings.grouped(code, &group, Place::file(&path), || format!("no episode refers to {path}"));
        }
    }
}

fn meta_known(subject: &Subject, path: &str) -> bool {
    let name = path.strip_prefix("meta/").unwrap_or(path);
    match name {
        "info.json" | "stats.json" | "modality.json" | "tendon.json" | "README.md" => true,
        "episodes.jsonl" | "tasks.jsonl" | "episodes_stats.jsonl" => subject.version.is_v2(),
        "tasks.parquet" => !subject.version.is_v2(),
        _ if name.starts_with("tendon/") => true,
        _ if name.starts_with("episodes/") => {
            !subject.version.is_v2() && subject.episodes.files.iter().any(|file| file.path == path)
        }
        _ => false,
    }
}

/// Files below `folder`, relative to `root`. Hidden files are the system's, not the dataset's.
fn walk(root: &Path, folder: &str, depth: usize, found: &mut Vec<String>) {
    let Ok(entries) = std::fs::read_dir(root.join(folder)) else {
        return;
    };
    for entry in entries.flatten() {
        if found.len() >= ENTRIES_MAX {
            return;
        }
        let name = entry.file_name().to_string_lossy().into_owned();
        if name.starts_with('.') {
            continue;
        }
        let path = format!("{folder}/{name}");
        match entry.file_type() {
            Ok(kind) if kind.is_dir() && depth < DEPTH_MAX => walk(root, &path, depth + 1, found),
            Ok(kind) if kind.is_dir() => {}
            _ => found.push(path),
        }
    }
}
