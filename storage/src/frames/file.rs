//! The few things that the log asks of a file system, so that a test can stand in for one.

use std::fs;
use std::io;
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::sync::Arc;

/// Keeps a folder locked until it is dropped.
pub trait FolderLock: Send + Sync {}

/// A file system, as far as the log needs one.
pub trait Files: Send + Sync {
    /// Makes a folder that survives a power loss.
    ///
    /// # Errors
    /// As the system says.
    fn create_directory(&self, directory: &Path) -> io::Result<()>;
    /// Keeps other processes out of a folder.
    ///
    /// # Errors
    /// When another process has it.
    fn lock_directory(&self, directory: &Path) -> io::Result<Box<dyn FolderLock>>;
    /// Makes a new file, open for reading and writing. Its name is durable after
    /// [`sync_directory`](Self::sync_directory).
    ///
    /// # Errors
    /// As the system says; also when the name is taken.
    fn create(&self, path: &Path) -> io::Result<Arc<dyn File>>;
    /// Opens a file for reading and writing.
    ///
    /// # Errors
    /// As the system says.
    fn open(&self, path: &Path) -> io::Result<Arc<dyn File>>;
    /// Names of the files in a folder, in any order.
    ///
    /// # Errors
    /// As the system says.
    fn list(&self, directory: &Path) -> io::Result<Vec<String>>;
    /// Removes a file.
    ///
    /// # Errors
    /// As the system says.
    fn remove(&self, path: &Path) -> io::Result<()>;
    /// Makes the names in a folder durable.
    ///
    /// # Errors
    /// As the system says.
    fn sync_directory(&self, directory: &Path) -> io::Result<()>;
    /// A number that nobody outside can guess.
    fn salt(&self) -> u64;
}

/// An open file. All methods may be called from several threads.
pub trait File: Send + Sync {
    /// Fills `buffer` from `offset`.
    ///
    /// # Errors
    /// As the system says; also when the file ends before.
    fn read_at(&self, buffer: &mut [u8], offset: u64) -> io::Result<()>;
    /// Writes all of `bytes` at `offset`.
    ///
    /// # Errors
    /// As the system says; part of it may be written then.
    fn write_at(&self, bytes: &[u8], offset: u64) -> io::Result<()>;
    /// Its length, bytes.
    ///
    /// # Errors
    /// As the system says.
    fn len(&self) -> io::Result<u64>;
    /// Whether it has no bytes.
    ///
    /// # Errors
    /// As the system says.
    fn is_empty(&self) -> io::Result<bool> {
        Ok(self.len()? == 0)
    }
    /// Cuts it, or lengthens it with zeros.
    ///
    /// # Errors
    /// As the system says.
    fn set_len(&self, bytes: u64) -> io::Result<()>;
    /// Makes the content durable. After an error nothing is known of what was written since the
    /// last success, and a later success says nothing about it.
    ///
    /// # Errors
    /// As the system says.
    fn sync_data(&self) -> io::Result<()>;
    /// Makes later reads come from the disk. After a failed sync the cache of the system can hold
    /// what the disk does not.
    ///
    /// # Errors
    /// As the system says.
    fn drop_cache(&self) -> io::Result<()>;
}

/// The system's own files.
#[derive(Clone, Copy, Debug, Default)]
pub struct RealFiles;

struct RealFile(fs::File);

struct RealLock {
    _file: fs::File,
}

impl FolderLock for RealLock {}

impl Files for RealFiles {
    fn create_directory(&self, directory: &Path) -> io::Result<()> {
        crate::folder::create(directory)
    }

    fn lock_directory(&self, directory: &Path) -> io::Result<Box<dyn FolderLock>> {
        let file = fs::File::options().create(true).truncate(false).write(true).open(directory.join("lock"))?;
        file.try_lock().map_err(io::Error::from)?;
        Ok(Box::new(RealLock { _file: file }))
    }

    fn create(&self, path: &Path) -> io::Result<Arc<dyn File>> {
        let file = fs::File::options().read(true).write(true).create_new(true).open(path)?;
        Ok(Arc::new(RealFile(file)))
    }

    fn open(&self, path: &Path) -> io::Result<Arc<dyn File>> {
        let file = fs::File::options().read(true).write(true).open(path)?;
        Ok(Arc::new(RealFile(file)))
    }

    fn list(&self, directory: &Path) -> io::Result<Vec<String>> {
        let mut names = Vec::new();
        for entry in fs::read_dir(directory)? {
            // The log's own names are ASCII; what is not text is not of the log.
            names.extend(entry?.file_name().into_string());
        }
        Ok(names)
    }

    fn remove(&self, path: &Path) -> io::Result<()> {
        fs::remove_file(path)
    }

    fn sync_directory(&self, directory: &Path) -> io::Result<()> {
        crate::folder::sync(directory)
    }

    fn salt(&self) -> u64 {
        rand::random()
    }
}

impl File for RealFile {
    fn read_at(&self, buffer: &mut [u8], offset: u64) -> io::Result<()> {
        self.0.read_exact_at(buffer, offset)
    }

    fn write_at(&self, bytes: &[u8], offset: u64) -> io::Result<()> {
        self.0.write_all_at(bytes, offset)
    }

    fn len(&self) -> io::Result<u64> {
        Ok(self.0.metadata()?.len())
    }

    fn set_len(&self, bytes: u64) -> io::Result<()> {
        self.0.set_len(bytes)
    }

    fn sync_data(&self) -> io::Result<()> {
        self.0.sync_data()
    }

    #[cfg(target_os = "linux")]
    fn drop_cache(&self) -> io::Result<()> {
        Ok(rustix::fs::fadvise(&self.0, 0, None, rustix::fs::Advice::DontNeed)?)
    }

    #[cfg(not(target_os = "linux"))]
    fn drop_cache(&self) -> io::Result<()> {
        Ok(())
    }
}
