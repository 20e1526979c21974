//! Files that appear whole or not at all.

use std::fs::{self, File};
use std::io::{self, BufWriter, Write};
use std::path::{Path, PathBuf};

use arrow_array::RecordBatch;
use parquet::arrow::ArrowWriter;
use parquet::basic::Compression;
use parquet::file::properties::WriterProperties;

use super::WriteError;

/// Buffer of a file that is written; pictures are larger and pass it by.
const BUFFER_BYTES: usize = 64 << 10;

/// The root of a dataset on disk.
#[derive(Clone, Debug)]
pub(super) struct Folder {
    root: PathBuf,
}

impl Folder {
    pub(super) fn new(root: &Path) -> Self {
        Self { root: root.to_path_buf() }
    }

    pub(super) fn path(&self, relative: &str) -> PathBuf {
        self.root.join(relative)
    }

    pub(super) fn io(&self, relative: &str) -> impl Fn(io::Error) -> WriteError {
        let path = self.path(relative);
        move |source| WriteError::Io { path: path.clone(), source }
    }

    /// Writes `relative` under a name that no reader looks at, syncs it, gives it its name and syncs
    /// the folder. Returns its length in bytes.
    pub(super) fn write(
        &self,
        relative: &str,
        fill: impl FnOnce(&mut BufWriter<File>) -> Result<(), WriteError>,
    ) -> Result<u64, WriteError> {
        let path = self.path(relative);
        let parent = path.parent().unwrap_or(&self.root).to_path_buf();
        let io = self.io(relative);
        make_folders(&parent).map_err(&io)?;
        let name = path.file_name().unwrap_or_default().to_string_lossy();
        let temporary = parent.join(format!(".{name}.part"));
        let written = || -> Result<u64, WriteError> {
            let mut out = BufWriter::with_capacity(BUFFER_BYTES, File::create(&temporary).map_err(&io)?);
            fill(&mut out)?;
            let file = out.into_inner().map_err(|error| io(error.into_error()))?;
            file.sync_all().map_err(&io)?;
            let bytes = file.metadata().map_err(&io)?.len();
            fs::rename(&temporary, &path).map_err(&io)?;
            sync_folder(&parent).map_err(&io)?;
            Ok(bytes)
        }();
        if written.is_err() {
            // The reason is in the error already; a leftover is swept by the next append.
            let _ = fs::remove_file(&temporary);
        }
        written
    }

    pub(super) fn write_bytes(&self, relative: &str, bytes: &[u8]) -> Result<u64, WriteError> {
        let io = self.io(relative);
        self.write(relative, |out| out.write_all(bytes).map_err(io))
    }

    /// Writes a table as one row group, compressed as LeRobot compresses it.
    pub(super) fn write_table(&self, relative: &str, batch: &RecordBatch) -> Result<u64, WriteError> {
        let refuse = |what: String| WriteError::Table { path: self.path(relative), what };
        let properties = WriterProperties::builder()
            .set_compression(Compression::SNAPPY)
            .set_max_row_group_row_count(None)
            .set_created_by(concat!("tendon version ", env!("CARGO_PKG_VERSION")).into())
            .build();
        self.write(relative, |out| {
            let mut writer = ArrowWriter::try_new(out, batch.schema(), Some(properties))
                .map_err(|error| refuse(error.to_string()))?;
            writer.write(batch).map_err(|error| refuse(error.to_string()))?;
            writer.close().map_err(|error| refuse(error.to_string()))?;
            Ok(())
        })
    }

    /// Removes a file that may be there.
    pub(super) fn remove(&self, relative: &str) -> Result<(), WriteError> {
        match fs::remove_file(self.path(relative)) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => Err(self.io(relative)(error)),
            _ => Ok(()),
        }
    }

    /// Paths of all files under `relative`, relative to the root with `/` between, sorted.
    pub(super) fn files(&self, relative: &str) -> Result<Vec<String>, WriteError> {
        let (mut found, mut folders) = (Vec::new(), vec![relative.to_owned()]);
        while let Some(folder) = folders.pop() {
            let entries = match fs::read_dir(self.path(&folder)) {
                Err(error) if error.kind() == io::ErrorKind::NotFound => continue,
                entries => entries.map_err(self.io(&folder))?,
            };
            for entry in entries {
                let entry = entry.map_err(self.io(&folder))?;
                let path = format!("{folder}/{}", entry.file_name().to_string_lossy());
                if entry.file_type().map_err(self.io(&path))?.is_dir() {
                    folders.push(path);
                } else {
                    found.push(path);
                }
            }
        }
        found.sort_unstable();
        Ok(found)
    }
}

/// Makes a folder and those above it, each durable in its own parent.
fn make_folders(folder: &Path) -> io::Result<()> {
    if folder.as_os_str().is_empty() || folder.is_dir() {
        return Ok(());
    }
    let parent = folder.parent().unwrap_or(Path::new(""));
    make_folders(parent)?;
    match fs::create_dir(folder) {
        Err(error) if error.kind() != io::ErrorKind::AlreadyExists => Err(error),
        _ => sync_folder(parent),
    }
}

fn sync_folder(folder: &Path) -> io::Result<()> {
    let folder = if folder.as_os_str().is_empty() { Path::new(".") } else { folder };
    File::open(folder)?.sync_all()
}
