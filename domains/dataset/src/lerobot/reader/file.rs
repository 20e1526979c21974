//! What a file turns out to be, told from its first and last bytes.
//!
//! A dataset that was cloned without Git LFS, downloaded through a login page or cut off by a crash
//! holds files with the right names and the wrong content. Each case has its own remedy, so each is
//! told apart before a parser says something about bytes that it cannot know.

use std::fs::File;
use std::io::{Read, Seek, SeekFrom};
use std::path::Path;

use thiserror::Error;

/// First line of every Git LFS pointer.
const LFS_PREFIX: &[u8] = b"version https://git-lfs.github.com/spec/v1";
/// Both ends of a whole parquet file.
const PARQUET_MAGIC: &[u8] = b"PAR1";
/// Bytes looked at from the start; a pointer file has about 130.
const HEAD_BYTES: u64 = 512;
/// Text files (JSON, JSONL) over this are refused: the largest known is under 100 MB.
pub const TEXT_BYTES_MAX: u64 = 512 << 20;

/// Why a file cannot be read as what its name says.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum FileFault {
    /// No such file.
    #[error("the file is missing")]
    Missing,
    /// Zero bytes long.
    #[error("the file is empty (0 bytes)")]
    Empty,
    /// A Git LFS pointer in place of the data.
    #[error("this is a Git LFS pointer of {size} bytes, not the data")]
    LfsPointer {
        /// Bytes of the pointer file.
        size: u64,
    },
    /// A web page in place of the data.
    #[error("this is an HTML page of {size} bytes, not the data")]
    Html {
        /// Bytes of the page.
        size: u64,
    },
    /// Parquet that was never finished.
    #[error("cut off while being written: {size} bytes, no footer at its end{zeros}")]
    NoFooter {
        /// Bytes of the file.
        size: u64,
        /// Says so when the last bytes are zeros, as after a power cut.
        zeros: &'static str,
    },
    /// Neither of the above, nor what was expected.
    #[error("not {expected}: {size} bytes that begin with {head}")]
    Alien {
        /// What the name promises.
        expected: &'static str,
        /// Bytes of the file.
        size: u64,
        /// First bytes, printable.
        head: String,
    },
    /// The right kind of file, but its content is damaged.
    #[error("damaged: {0}")]
    Damaged(String),
    /// Larger than any sane file of its kind.
    #[error("{size} bytes are over the limit of {max}")]
    TooLarge {
        /// Bytes of the file.
        size: u64,
        /// Bytes allowed.
        max: u64,
    },
    /// The system refused.
    #[error("cannot be read: {0}")]
    Io(String),
}

impl FileFault {
    /// What the user can do about it.
    #[must_use]
    pub fn remedy(&self) -> &'static str {
        match self {
            Self::Missing => "copy the file from the source, or take its episodes out of the metadata",
            Self::Empty => "download or record it again; nothing is left to repair",
            Self::LfsPointer { .. } => "run `git lfs install` and `git lfs pull` in the clone",
            Self::Html { .. } => "download it again, signed in: the server answered with a page instead of the file",
            Self::NoFooter { .. } => {
                "the writer was stopped before it finished; record again or restore a copy, the other files stay usable"
            }
            Self::Alien { .. } => "check what wrote this file, or take it away",
            Self::Damaged(_) => "restore the file from a copy",
            Self::TooLarge { .. } => "check what wrote this file",
            Self::Io(_) => "check the rights of the file and the disk",
        }
    }
}

/// What a file should be, by its name.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Expected {
    /// `*.parquet`
    Parquet,
    /// `*.mp4`
    Mp4,
    /// `*.json`, `*.jsonl`
    Text,
}

/// Look at both ends of a file and return its size when it can be what it should be.
///
/// # Errors
/// The [`FileFault`] that the first and last bytes prove.
pub fn look(path: &Path, expected: Expected) -> Result<u64, FileFault> {
    let mut file = open(path)?;
    let size = file.metadata().map_err(io)?.len();
    if size == 0 {
        return Err(FileFault::Empty);
    }
    let mut head = Vec::new();
    (&mut file).take(HEAD_BYTES).read_to_end(&mut head).map_err(io)?;
    if let Some(fault) = replaced(&head, size) {
        return Err(fault);
    }
    match expected {
        Expected::Parquet => parquet_ends(&mut file, &head, size),
        Expected::Mp4 => mp4_start(&head, size),
        Expected::Text if size > TEXT_BYTES_MAX => Err(FileFault::TooLarge { size, max: TEXT_BYTES_MAX }),
        Expected::Text if head.iter().all(|byte| *byte == 0) => {
            Err(FileFault::Alien { expected: "text", size, head: "zeros".into() })
        }
        Expected::Text => Ok(size),
    }
}

/// Read a whole text file of bounded size.
///
/// # Errors
/// As [`look`].
pub fn read_text(path: &Path) -> Result<Vec<u8>, FileFault> {
    let size = look(path, Expected::Text)?;
    let mut bytes = Vec::new();
    open(path)?.take(TEXT_BYTES_MAX).read_to_end(&mut bytes).map_err(io)?;
    if (bytes.len() as u64) < size {
        return Err(FileFault::Io(format!("{} of {size} bytes came", bytes.len())));
    }
    Ok(bytes)
}

/// Open a regular file.
///
/// # Errors
/// Missing, not a file, or what the system says.
pub fn open(path: &Path) -> Result<File, FileFault> {
    let meta = std::fs::metadata(path).map_err(io)?;
    if !meta.is_file() {
        return Err(FileFault::Io("not a regular file".into()));
    }
    File::open(path).map_err(io)
}

#[expect(clippy::needless_pass_by_value, reason = "used as a function for map_err")]
fn io(error: std::io::Error) -> FileFault {
    match error.kind() {
        std::io::ErrorKind::NotFound | std::io::ErrorKind::NotADirectory => FileFault::Missing,
        _ => FileFault::Io(error.to_string()),
    }
}

fn replaced(head: &[u8], size: u64) -> Option<FileFault> {
    if head.starts_with(LFS_PREFIX) {
        return Some(FileFault::LfsPointer { size });
    }
    let text = head.strip_prefix(b"\xef\xbb\xbf").unwrap_or(head).trim_ascii_start();
    let start = text.get(..15).unwrap_or(text).to_ascii_lowercase();
    (start.starts_with(b"<!doctype html") || start.starts_with(b"<html")).then_some(FileFault::Html { size })
}

fn parquet_ends(file: &mut File, head: &[u8], size: u64) -> Result<u64, FileFault> {
    if !head.starts_with(PARQUET_MAGIC) {
        return Err(FileFault::Alien { expected: "parquet", size, head: printable(head) });
    }
    let mut tail = [0_u8; 8];
    if size < 12 {
        return Err(FileFault::NoFooter { size, zeros: "" });
    }
    file.seek(SeekFrom::End(-8)).map_err(io)?;
    file.read_exact(&mut tail).map_err(io)?;
    if tail.ends_with(PARQUET_MAGIC) {
        return Ok(size);
    }
    let zeros = if tail == [0; 8] { ", zeros instead" } else { "" };
    Err(FileFault::NoFooter { size, zeros })
}

fn mp4_start(head: &[u8], size: u64) -> Result<u64, FileFault> {
    const FIRST_BOXES: [&[u8]; 8] = [b"ftyp", b"moov", b"mdat", b"free", b"skip", b"wide", b"styp", b"moof"];
    let kind = head.get(4..8).unwrap_or_default();
    if FIRST_BOXES.contains(&kind) {
        return Ok(size);
    }
    Err(FileFault::Alien { expected: "an mp4", size, head: printable(head) })
}

fn printable(head: &[u8]) -> String {
    let shown = head.get(..16).unwrap_or(head);
    format!("\"{}\"", shown.escape_ascii())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn fault(name: &str, content: &[u8], expected: Expected) -> Result<u64, FileFault> {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join(name);
        std::fs::write(&path, content).unwrap();
        look(&path, expected)
    }

    #[test]
    fn look_tells_pointer_page_empty_and_cut_files_apart() {
        let pointer = b"version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 1\n";
        assert_eq!(fault("a", pointer, Expected::Parquet), Err(FileFault::LfsPointer { size: pointer.len() as u64 }));
        assert!(matches!(fault("a", b"\n <!DOCTYPE html><html>", Expected::Parquet), Err(FileFault::Html { .. })));
        assert_eq!(fault("a", b"", Expected::Text), Err(FileFault::Empty));
        assert_eq!(
            fault("a", b"PAR1....some pages", Expected::Parquet),
            Err(FileFault::NoFooter { size: 18, zeros: "" })
        );
        let zeros = [b"PAR1pages".as_slice(), &[0; 64]].concat();
        assert_eq!(
            fault("a", &zeros, Expected::Parquet),
            Err(FileFault::NoFooter { size: 73, zeros: ", zeros instead" })
        );
        assert!(matches!(fault("a", b"hello parquet", Expected::Parquet), Err(FileFault::Alien { .. })));
        assert!(matches!(fault("a", b"hello mp4 file", Expected::Mp4), Err(FileFault::Alien { .. })));
        assert_eq!(fault("a", b"{}", Expected::Text), Ok(2));
        assert_eq!(look(Path::new("/no/such/file"), Expected::Text), Err(FileFault::Missing));
    }
}
