//! Objects: files of datasets, episodes and manifests, in a local folder or an object store.
//!
//! [`Objects`] is thin over `object_store`. What it adds: paths are checked once, here; errors name
//! the path and what to do; in a local folder an object is on the disk when its `put` returns.
//!
//! The last point takes two things. `object_store` syncs the file, the folder it lies in, and
//! folders that it made itself, once asked to. It does not sync a folder that it finds: that one may
//! be new, made by a put that still runs or by a process that was killed. [`Objects`] therefore
//! makes and syncs the folders itself, each one once a process, before the put.

mod path;

use std::collections::HashSet;
use std::ops::Range;
use std::path::{Path as FilePath, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

use bytes::Bytes;
use futures::stream::{BoxStream, StreamExt, TryStreamExt};
use object_store::local::LocalFileSystem;
use object_store::path::Path;
use object_store::{ObjectStore, ObjectStoreExt, PutMode, PutOptions, WriteMultipart};
use thiserror::Error;
use tokio::io::AsyncReadExt;

use crate::folder;
use path::check;
pub use path::{PATH_BYTES_MAX, PathFault, SEGMENT_BYTES_MAX};

/// Files longer than this go up in parts of this many bytes. S3 takes 5 MiB and more.
const PART_BYTES: usize = 8 << 20;
/// Parts on their way at once.
const PARTS_IN_FLIGHT: usize = 3;
/// Folders that a process remembers as synced; a dataset has a dozen.
const DURABLE_FOLDERS_MAX: usize = 10_000;

/// An object could not be written or read.
#[derive(Debug, Error)]
pub enum ObjectError {
    /// The path may not be used.
    #[error(
        "object path {path:?} {fault}; use segments of 1 to {SEGMENT_BYTES_MAX} bytes between slashes, without '..', '\\', '#' and control characters"
    )]
    Path {
        /// Cut to 64 characters.
        path: String,
        /// What is wrong with it.
        fault: PathFault,
    },
    /// There is none.
    #[error("object {path} does not exist; list its folder to see what does")]
    NotFound {
        /// Its path.
        path: String,
    },
    /// It is there already, and was to be new.
    #[error("object {path} exists already; read it and compare, or choose another path")]
    Exists {
        /// Its path.
        path: String,
    },
    /// No room.
    #[error("no space left for object {path} in {place}; free some space and try again")]
    Full {
        /// Its path.
        path: String,
        /// Folder or bucket.
        place: String,
    },
    /// Not allowed.
    #[error("no permission for object {path} in {place} ({source}); give this user access or choose another place")]
    Denied {
        /// Its path.
        path: String,
        /// Folder or bucket.
        place: String,
        /// What the store said.
        source: Box<dyn std::error::Error + Send + Sync>,
    },
    /// A range outside the object.
    #[error("bytes {from} to {to} of object {path} were asked for; ask within its length")]
    Range {
        /// Its path.
        path: String,
        /// First byte.
        from: u64,
        /// One past the last byte.
        to: u64,
    },
    /// The local file that was to go up cannot be read.
    #[error("file {file} cannot be read for object {path} ({source}); check the file")]
    Local {
        /// The object's path.
        path: String,
        /// The file.
        file: String,
        /// What the system said.
        source: std::io::Error,
    },
    /// The folder of the store cannot be used.
    #[error(
        "object folder {folder} cannot be used ({source}); give this user write permission or choose another folder"
    )]
    Folder {
        /// The folder.
        folder: String,
        /// What the system said.
        source: std::io::Error,
    },
    /// Whatever else the store says. A write may have taken place all the same.
    #[error("object {path} in {place} failed ({source}); check that the store is there, then try again")]
    Store {
        /// The object's path.
        path: String,
        /// Folder or bucket.
        place: String,
        /// What the store said.
        source: Box<dyn std::error::Error + Send + Sync>,
    },
}

/// One object of a list.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ObjectInfo {
    /// Its path.
    pub path: String,
    /// Its length in bytes.
    pub bytes: u64,
    /// When it was last written, unix nanoseconds.
    pub modified_ns: i64,
}

/// An object that is read piece by piece.
pub struct ObjectStream {
    /// Its length in bytes.
    pub bytes: u64,
    /// The pieces, in order.
    pub pieces: BoxStream<'static, Result<Bytes, ObjectError>>,
}

/// A store of objects. Clones share it.
#[derive(Clone)]
pub struct Objects {
    store: Arc<dyn ObjectStore>,
    place: Arc<str>,
    local: Option<Arc<LocalFolder>>,
}

/// What a local folder needs besides its driver.
struct LocalFolder {
    root: PathBuf,
    /// Folders whose own entry this process has synced.
    durable: Mutex<HashSet<PathBuf>>,
}

impl Objects {
    /// Objects as files in `root`, which is made when it is not there. Blocks for a moment.
    ///
    /// # Errors
    /// When the folder cannot be made.
    pub fn local(root: &FilePath) -> Result<Self, ObjectError> {
        let failed = |source| ObjectError::Folder { folder: root.display().to_string(), source };
        folder::create(root).map_err(failed)?;
        let root = root.canonicalize().map_err(failed)?;
        folder::sync_parent(&root).map_err(failed)?;
        let store = LocalFileSystem::new_with_prefix(&root).map_err(|error| failed(std::io::Error::other(error)))?;
        Ok(Self {
            store: Arc::new(store.with_fsync(true)),
            place: root.display().to_string().into(),
            local: Some(Arc::new(LocalFolder { root, durable: Mutex::new(HashSet::new()) })),
        })
    }

    /// Objects in any store that is durable by itself; `place` names it in errors.
    #[must_use]
    pub fn over(store: Arc<dyn ObjectStore>, place: &str) -> Self {
        Self { store, place: place.into(), local: None }
    }

    /// Writes an object, over an old one if there is one: readers see the old or the new one.
    ///
    /// # Errors
    /// Names the path and what to do.
    pub async fn put(&self, path: &str, content: Bytes) -> Result<(), ObjectError> {
        self.put_with(path, content, PutMode::Overwrite).await
    }

    /// Writes an object unless there is one. Of several writers exactly one succeeds.
    ///
    /// # Errors
    /// [`ObjectError::Exists`] when there is one. After any other error the object may exist: read
    /// it and compare.
    pub async fn put_if_absent(&self, path: &str, content: Bytes) -> Result<(), ObjectError> {
        self.put_with(path, content, PutMode::Create).await
    }

    async fn put_with(&self, path: &str, content: Bytes, mode: PutMode) -> Result<(), ObjectError> {
        let location = check(path)?;
        self.prepare(&location).await?;
        let put = self.store.put_opts(&location, content.into(), PutOptions::from(mode)).await;
        put.map(|_| ()).map_err(|error| self.describe(path, error))
    }

    /// Writes an object from a file, in parts when it is long. Returns its length in bytes.
    ///
    /// # Errors
    /// Names the path or the file and what to do.
    pub async fn put_file(&self, path: &str, file: &FilePath) -> Result<u64, ObjectError> {
        let location = check(path)?;
        let unread = |source| ObjectError::Local { path: path.to_owned(), file: file.display().to_string(), source };
        let mut source = tokio::fs::File::open(file).await.map_err(unread)?;
        let first = read_part(&mut source).await.map_err(unread)?;
        if first.len() < PART_BYTES {
            let bytes = first.len() as u64;
            self.put(path, first).await?;
            return Ok(bytes);
        }
        self.prepare(&location).await?;
        let started = self.store.put_multipart(&location).await;
        let upload = started.map_err(|error| self.describe(path, error))?;
        let mut upload = WriteMultipart::new_with_chunk_size(upload, PART_BYTES);
        let mut bytes = 0;
        let mut part = first;
        while !part.is_empty() {
            bytes += part.len() as u64;
            if let Err(error) = upload.wait_for_capacity(PARTS_IN_FLIGHT).await {
                // The first error is the one to tell.
                let _ = upload.abort().await;
                return Err(self.describe(path, error));
            }
            upload.put(part);
            part = match read_part(&mut source).await {
                Ok(part) => part,
                Err(error) => {
                    let _ = upload.abort().await;
                    return Err(unread(error));
                }
            };
        }
        let finished = upload.finish().await;
        finished.map(|_| bytes).map_err(|error| self.describe(path, error))
    }

    /// Reads a whole object into memory. For manifests and records; see [`Objects::get_stream`].
    ///
    /// # Errors
    /// Names the path and what to do.
    pub async fn get(&self, path: &str) -> Result<Bytes, ObjectError> {
        let found = self.store.get(&check(path)?).await;
        let found = found.map_err(|error| self.describe(path, error))?;
        found.bytes().await.map_err(|error| self.describe(path, error))
    }

    /// Reads an object piece by piece.
    ///
    /// # Errors
    /// Names the path and what to do; so do the pieces.
    pub async fn get_stream(&self, path: &str) -> Result<ObjectStream, ObjectError> {
        let found = self.store.get(&check(path)?).await;
        let found = found.map_err(|error| self.describe(path, error))?;
        let bytes = found.meta.size;
        let (this, path) = (self.clone(), path.to_owned());
        let pieces = found.into_stream().map_err(move |error| this.describe(&path, error));
        Ok(ObjectStream { bytes, pieces: pieces.boxed() })
    }

    /// Reads bytes `range` (end excluded), all of them or an error.
    ///
    /// # Errors
    /// Names the path and what to do.
    pub async fn get_range(&self, path: &str, range: Range<u64>) -> Result<Bytes, ObjectError> {
        let location = check(path)?;
        let outside = || ObjectError::Range { path: path.to_owned(), from: range.start, to: range.end };
        if range.start > range.end || range.end > self.size(path).await? {
            return Err(outside());
        }
        if range.is_empty() {
            return Ok(Bytes::new());
        }
        let read = self.store.get_range(&location, range.clone()).await;
        let read = read.map_err(|error| self.describe(path, error))?;
        // The object may have been replaced by a shorter one in between.
        let whole = read.len() as u64 == range.end - range.start;
        if whole { Ok(read) } else { Err(outside()) }
    }

    /// Length of an object in bytes.
    ///
    /// # Errors
    /// Names the path and what to do.
    pub async fn size(&self, path: &str) -> Result<u64, ObjectError> {
        let found = self.store.head(&check(path)?).await;
        found.map(|meta| meta.size).map_err(|error| self.describe(path, error))
    }

    /// All objects below `prefix` (whole segments; empty for all), sorted by path. Unfinished
    /// writes are not among them.
    ///
    /// # Errors
    /// Names the path and what to do.
    pub async fn list(&self, prefix: &str) -> Result<Vec<ObjectInfo>, ObjectError> {
        let location = if prefix.is_empty() { None } else { Some(check(prefix)?) };
        let listed = self.store.list(location.as_ref()).map_ok(|meta| ObjectInfo {
            path: meta.location.to_string(),
            bytes: meta.size,
            modified_ns: meta.last_modified.timestamp_nanos_opt().unwrap_or(0),
        });
        let listed: Result<Vec<ObjectInfo>, object_store::Error> = listed.try_collect().await;
        let mut listed = listed.map_err(|error| self.describe(prefix, error))?;
        listed.sort_by(|left, right| left.path.cmp(&right.path));
        Ok(listed)
    }

    /// Removes an object. One that is not there is fine: a removal may be repeated. In a local
    /// folder the object may come back after a power loss.
    ///
    /// # Errors
    /// Names the path and what to do.
    pub async fn delete(&self, path: &str) -> Result<(), ObjectError> {
        match self.store.delete(&check(path)?).await {
            Ok(()) | Err(object_store::Error::NotFound { .. }) => Ok(()),
            Err(error) => Err(self.describe(path, error)),
        }
    }

    /// Removes what killed writers left in a local folder; returns the bytes freed. For the start
    /// of the one server that owns the folder: a write that runs meanwhile would be cut off.
    ///
    /// # Errors
    /// When the folder cannot be read.
    pub async fn remove_unfinished(&self) -> Result<u64, ObjectError> {
        let Some(local) = self.local.clone() else { return Ok(0) };
        let place = Arc::clone(&self.place);
        self.blocking(move || {
            let removed = remove_unfinished(&local.root);
            removed.map_err(|source| ObjectError::Folder { folder: place.to_string(), source })
        })
        .await
    }

    /// Makes the folders of a local object durable; see the module's header.
    async fn prepare(&self, location: &Path) -> Result<(), ObjectError> {
        let Some(local) = self.local.clone() else { return Ok(()) };
        let segments: Vec<String> = location.parts().map(|part| part.as_ref().to_owned()).collect();
        let folders = segments.split_last().map(|(_, folders)| folders.to_vec()).unwrap_or_default();
        if local.is_durable(&folders) {
            return Ok(());
        }
        let path = location.to_string();
        let this = self.clone();
        self.blocking(move || {
            let made = local.make_durable(&folders);
            made.map_err(|error| this.describe_io(&path, error))
        })
        .await
    }

    async fn blocking<T: Send + 'static>(
        &self,
        work: impl FnOnce() -> Result<T, ObjectError> + Send + 'static,
    ) -> Result<T, ObjectError> {
        let done = tokio::task::spawn_blocking(work).await;
        done.unwrap_or_else(|error| Err(self.describe("", error.into())))
    }

    fn describe_io(&self, path: &str, error: std::io::Error) -> ObjectError {
        let source = Box::new(error);
        self.describe(path, object_store::Error::Generic { store: "folder", source })
    }

    fn describe(&self, path: &str, error: object_store::Error) -> ObjectError {
        let (path, place) = (path.to_owned(), self.place.to_string());
        match error {
            object_store::Error::NotFound { .. } => ObjectError::NotFound { path },
            object_store::Error::AlreadyExists { .. } | object_store::Error::Precondition { .. } => {
                ObjectError::Exists { path }
            }
            object_store::Error::PermissionDenied { source, .. }
            | object_store::Error::Unauthenticated { source, .. } => ObjectError::Denied { path, place, source },
            other => match io_kind(&other) {
                Some(std::io::ErrorKind::StorageFull | std::io::ErrorKind::QuotaExceeded) => {
                    ObjectError::Full { path, place }
                }
                Some(std::io::ErrorKind::PermissionDenied | std::io::ErrorKind::ReadOnlyFilesystem) => {
                    let source = Box::new(other);
                    ObjectError::Denied { path, place, source }
                }
                _ => {
                    let source = Box::new(other);
                    ObjectError::Store { path, place, source }
                }
            },
        }
    }
}

impl LocalFolder {
    fn folder(&self, segments: &[String]) -> PathBuf {
        segments.iter().fold(self.root.clone(), |folder, segment| folder.join(segment))
    }

    fn is_durable(&self, segments: &[String]) -> bool {
        let durable = self.durable.lock().unwrap_or_else(PoisonError::into_inner);
        segments.is_empty() || durable.contains(&self.folder(segments))
    }

    /// Makes each folder down to `segments` and syncs the one above it.
    fn make_durable(&self, segments: &[String]) -> std::io::Result<()> {
        let mut above = self.root.clone();
        for segment in segments {
            let below = above.join(segment);
            match std::fs::create_dir(&below) {
                Err(error) if error.kind() != std::io::ErrorKind::AlreadyExists => return Err(error),
                Ok(()) | Err(_) => folder::sync(&above)?,
            }
            above = below;
        }
        let mut durable = self.durable.lock().unwrap_or_else(PoisonError::into_inner);
        if durable.len() >= DURABLE_FOLDERS_MAX {
            // Forgetting costs a sync each, nothing else.
            durable.clear();
        }
        durable.insert(above);
        Ok(())
    }
}

/// Removes the driver's unfinished files: a name, `#` and a number.
fn remove_unfinished(folder: &FilePath) -> std::io::Result<u64> {
    let mut freed = 0;
    for entry in std::fs::read_dir(folder)? {
        let entry = entry?;
        let kind = entry.file_type()?;
        if kind.is_dir() {
            freed += remove_unfinished(&entry.path())?;
            continue;
        }
        let name = entry.file_name();
        let suffix = name.to_str().and_then(|name| name.rsplit_once('#')).map(|(_, suffix)| suffix);
        let unfinished =
            suffix.is_some_and(|suffix| !suffix.is_empty() && suffix.bytes().all(|byte| byte.is_ascii_digit()));
        if kind.is_file() && unfinished {
            freed += entry.metadata()?.len();
            std::fs::remove_file(entry.path())?;
        }
    }
    Ok(freed)
}

async fn read_part(file: &mut tokio::fs::File) -> std::io::Result<Bytes> {
    let mut part = Vec::new();
    file.take(PART_BYTES as u64).read_to_end(&mut part).await?;
    Ok(part.into())
}

/// The kind of the system error at the bottom, if there is one.
fn io_kind(error: &(dyn std::error::Error + 'static)) -> Option<std::io::ErrorKind> {
    let mut cause = Some(error);
    while let Some(this) = cause {
        if let Some(io) = this.downcast_ref::<std::io::Error>() {
            return Some(io.kind());
        }
        cause = this.source();
    }
    None
}

#[cfg(test)]
mod tests;
