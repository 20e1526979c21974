//! Copies of the real datasets to break.

use std::path::{Path, PathBuf};

use serde_json::{Map, Value};
use tempfile::TempDir;

pub mod data;
pub mod own;
pub mod video;

/// A Git LFS pointer.
pub const POINTER: &[u8] = b"version https://git-lfs.github.com/spec/v1\noid sha256:00\nsize 12345\n";
/// A page that a server sends instead of a file.
pub const PAGE: &[u8] = b"<!DOCTYPE html>\n<html><body>Sign in</body></html>";

/// A path in the shared folder beside the checkout.
pub fn shared(name: &str) -> PathBuf {
    let path = PathBuf::from(concat!(env!("CARGO_MANIFEST_DIR"), "/../../../shared")).join(name);
    assert!(path.exists(), "put the shared folder beside the checkout: {} is missing", path.display());
    path
}

/// A dataset that may be broken.
pub struct Copy {
    folder: TempDir,
}

impl Copy {
    pub fn reference() -> Self {
        Self::of("data/lerobot-reference-v3")
    }

    pub fn of(name: &str) -> Self {
        let folder = tempfile::tempdir().unwrap();
        copy_folder(&shared(name), folder.path());
        Self { folder }
    }

    pub fn root(&self) -> &Path {
        self.folder.path()
    }

    pub fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    pub fn read(&self, name: &str) -> Vec<u8> {
        std::fs::read(self.path(name)).unwrap()
    }

    pub fn write(&self, name: &str, bytes: &[u8]) {
        let path = self.path(name);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(path, bytes).unwrap();
    }

    pub fn remove(&self, name: &str) {
        std::fs::remove_file(self.path(name)).unwrap();
    }

    pub fn remove_folder(&self, name: &str) {
        std::fs::remove_dir_all(self.path(name)).unwrap();
    }

    pub fn duplicate(&self, name: &str, other: &str) {
        assert!(!self.path(other).exists());
        self.write(other, &self.read(name));
    }

    pub fn copy_over(&self, name: &str, other: &str) {
        self.write(other, &self.read(name));
    }

    pub fn cut(&self, name: &str, keep: usize) {
        let bytes = self.read(name);
        self.write(name, &bytes[..keep]);
    }

    pub fn cut_by(&self, name: &str, lose: usize) {
        self.cut(name, self.read(name).len() - lose);
    }

    pub fn cut_half(&self, name: &str) {
        self.cut(name, self.read(name).len() / 2);
    }

    pub fn zero_end(&self, name: &str, count: usize) {
        let mut bytes = self.read(name);
        let start = bytes.len() - count;
        bytes[start..].fill(0);
        self.write(name, &bytes);
    }

    /// Break the first page: its header says something else.
    pub fn flip_middle(&self, name: &str) {
        let mut bytes = self.read(name);
        bytes[4..64].fill(0xff);
        self.write(name, &bytes);
    }

    /// Replace bytes that occur.
    pub fn binary(&self, name: &str, from: &[u8], to: &[u8]) {
        let mut bytes = self.read(name);
        let at = bytes.windows(from.len()).position(|window| window == from).expect("the bytes occur");
        bytes[at..at + to.len()].copy_from_slice(to);
        self.write(name, &bytes);
    }

    /// Replace a text that occurs.
    pub fn text(&self, name: &str, from: &str, to: &str) {
        let text = String::from_utf8(self.read(name)).unwrap();
        assert!(text.contains(from), "{name} does not contain {from}");
        self.write(name, text.replacen(from, to, 1).as_bytes());
    }

    pub fn info(&self, edit: impl FnOnce(&mut Map<String, Value>)) {
        edit_json(self, "meta/info.json", edit);
    }

    pub fn version(&self, version: &str) {
        self.info(|info| drop(info.insert("codebase_version".into(), version.into())));
    }

    pub fn count(&self, key: &str, count: u64) {
        self.info(|info| drop(info.insert(key.into(), count.into())));
    }

    pub fn features(&self, edit: impl FnOnce(&mut Map<String, Value>)) {
        self.info(|info| edit(info["features"].as_object_mut().unwrap()));
    }

    pub fn feature(&self, key: &str, edit: impl FnOnce(&mut Map<String, Value>)) {
        self.features(|features| edit(features[key].as_object_mut().unwrap()));
    }
}

pub fn edit_json(copy: &Copy, name: &str, edit: impl FnOnce(&mut Map<String, Value>)) {
    let mut value: Map<String, Value> = serde_json::from_slice(&copy.read(name)).unwrap();
    edit(&mut value);
    copy.write(name, &serde_json::to_vec_pretty(&value).unwrap());
}

fn copy_folder(from: &Path, to: &Path) {
    std::fs::create_dir_all(to).unwrap();
    for entry in std::fs::read_dir(from).unwrap() {
        let entry = entry.unwrap();
        let target = to.join(entry.file_name());
        if entry.file_type().unwrap().is_dir() {
            copy_folder(&entry.path(), &target);
        } else {
            // Written anew: the originals are read-only.
            std::fs::write(target, std::fs::read(entry.path()).unwrap()).unwrap();
        }
    }
}

/// xorshift64*: enough to choose bytes.
pub struct Random(pub u64);

impl Random {
    pub fn below(&mut self, limit: usize) -> usize {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        (self.0.wrapping_mul(0x2545_f491_4f6c_dd1d) >> 33) as usize % limit
    }
}
