//! The disk without a server: the same writes into the same kind of files.

use std::fs::File;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use anyhow::{Context, Result};

use crate::latencies::Latencies;
use crate::values::mixed;

/// One write, and one group of the log under load.
const WRITE_BYTES: usize = 1 << 20;
/// One lone write.
const BLOCK_BYTES: u64 = 4096;
/// Longest time for the lone syncs of one look.
const SYNCS_WAIT: Duration = Duration::from_secs(3);
/// Most lone syncs of one look.
const SYNCS_MAX: u64 = 2000;
/// Least and most bytes of one figure.
const BYTES: std::ops::RangeInclusive<u64> = 256 << 20..=4 << 30;

/// How much is written.
#[derive(Clone, Debug)]
pub struct Plan {
    /// Files.
    pub files: u64,
    /// Bytes of each.
    pub file_bytes: u64,
}

impl Plan {
    /// As many bytes as the load will write, within reason, in files as long as the log's.
    pub fn for_bytes(bytes: u64, file_bytes: u64) -> Self {
        Self { files: bytes.clamp(*BYTES.start(), *BYTES.end()).div_ceil(file_bytes), file_bytes }
    }
}

/// Files of the yardstick. They stay for the second look, and are removed with it.
pub struct Files {
    files: Vec<(PathBuf, File)>,
    file_bytes: u64,
    block: Vec<u8>,
}

impl Files {
    /// Makes the files, fills them with zeros, and waits until the disk has them.
    pub fn make(folder: &Path, plan: &Plan) -> Result<Self> {
        let folder = folder.join("yardstick");
        std::fs::create_dir_all(&folder).with_context(|| format!("cannot make {}", folder.display()))?;
        let zeros = vec![0; WRITE_BYTES];
        let mut files = Vec::new();
        for number in 0..plan.files {
            let path = folder.join(format!("{number:04}"));
            let failed = || format!("cannot write {}; make room, or choose another disk with --data", path.display());
            let file =
                File::options().create(true).truncate(true).read(true).write(true).open(&path).with_context(failed)?;
            for offset in (0..plan.file_bytes).step_by(WRITE_BYTES) {
                file.write_all_at(&zeros, offset).with_context(failed)?;
            }
            file.sync_all().with_context(failed)?;
            files.push((path, file));
        }
        File::open(&folder).and_then(|folder| folder.sync_all()).context("cannot sync the yardstick's folder")?;
        // Not zeros and not regular, so that no layer below can save the work.
        let block = (0..WRITE_BYTES as u64 / 8).flat_map(|index| mixed(index).to_le_bytes()).collect();
        Ok(Self { files, file_bytes: plan.file_bytes, block })
    }

    /// Bytes a second with a sync after each write, or with one for each file at the end.
    pub fn sequential(&mut self, sync_each: bool) -> Result<f64> {
        let started = Instant::now();
        let mut bytes = 0;
        for (_, file) in &self.files {
            for offset in (0..self.file_bytes).step_by(WRITE_BYTES) {
                // Another first word each time: no block is ever written twice with the same bytes.
                bytes += WRITE_BYTES as u64;
                self.block[..8].copy_from_slice(&mixed(bytes ^ u64::from(sync_each)).to_le_bytes());
                file.write_all_at(&self.block, offset)?;
                if sync_each {
                    file.sync_data()?;
                }
            }
        }
        if !sync_each {
            for (_, file) in &self.files {
                file.sync_data()?;
            }
        }
        Ok(bytes as f64 / started.elapsed().as_secs_f64())
    }

    /// Times of single syncs after 4 KiB each, one behind the other.
    pub fn lone_syncs(&self) -> Result<Latencies> {
        let mut latencies = Latencies::default();
        let Some((_, file)) = self.files.first() else { return Ok(latencies) };
        let started = Instant::now();
        for number in 0..SYNCS_MAX {
            if started.elapsed() > SYNCS_WAIT {
                break;
            }
            let offset = number * BLOCK_BYTES % self.file_bytes;
            file.write_all_at(&self.block[..BLOCK_BYTES as usize], offset)?;
            let asked = Instant::now();
            file.sync_data()?;
            latencies.record(u64::try_from(asked.elapsed().as_nanos()).unwrap_or(u64::MAX));
        }
        Ok(latencies)
    }
}

impl Drop for Files {
    fn drop(&mut self) {
        for (path, _) in &self.files {
            // They lie in the run's folder, which is removed as a whole later.
            let _ = std::fs::remove_file(path);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_plan_follows_the_load_within_bounds() {
        let files = |bytes, file_mib: u64| Plan::for_bytes(bytes, file_mib << 20).files;
        assert_eq!([files(0, 64), files(600 << 20, 64), files(1 << 40, 64)], [4, 10, 64]);
        assert_eq!([files(0, 1024), files(5 << 30, 1024)], [1, 4]);
    }

    #[test]
    fn files_are_written_whole_and_removed() {
        let folder = tempfile::tempdir().unwrap();
        let plan = Plan { files: 2, file_bytes: 2 << 20 };
        let mut files = Files::make(folder.path(), &plan).unwrap();
        assert!(files.sequential(true).unwrap() > 0.0 && files.sequential(false).unwrap() > 0.0);
        let paths: Vec<PathBuf> = files.files.iter().map(|(path, _)| path.clone()).collect();
        for path in &paths {
            let content = std::fs::read(path).unwrap();
            assert_eq!(content.len(), 2 << 20);
            assert!(content.chunks(4096).all(|block| block.iter().any(|byte| *byte != 0)));
        }
        drop(files);
        assert!(paths.iter().all(|path| !path.exists()));
    }
}
