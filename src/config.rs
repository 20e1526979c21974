//! The server's settings: `tendon serve --config FILE`, with defaults that need no file.
//!
//! Read `configs/server.toml` first: it lists every key with its unit, default and reason, and a
//! test holds it to [`Config::default`]. Keys that are not known stop the start, because a
//! misspelt limit that is silently ignored is found only when it was needed. [`Config::load`] is
//! called once by `main`; everything else gets the parts that it needs.

mod check;

use std::net::{Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};
use tendon_storage::records::VideoChoice;
use thiserror::Error;

/// Longest configuration file in bytes; a real one has a few thousand.
const FILE_BYTES_MAX: u64 = 1 << 20;

const KIB: u64 = 1 << 10;
const MIB: u64 = 1 << 20;
const GIB: u64 = 1 << 30;

/// All settings of a server. `configs/server.toml` gives unit, default and reason of each.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Config {
    /// Folder that holds everything the server keeps.
    pub data: PathBuf,
    /// Address and port of the door; port 0 takes a free one.
    pub listen: SocketAddr,
    /// Threads that serve sockets; 0 is one a core.
    pub workers: usize,
    /// Longest wait in seconds for required streams after a stop mark.
    pub flush_wait_s: u64,
    /// Seconds without a byte from a producer after which its socket is closed.
    pub idle_timeout_s: u64,
    /// Seconds of samples outside any episode that are kept for a start mark that comes late.
    pub mark_lag_s: u64,
    /// Seconds between two time probes of one connection.
    pub probe_interval_s: u64,
    /// Certificate of the door; absent means plain TCP.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub tls: Option<Tls>,
    /// The embedded log.
    pub log: Log,
    /// Bytes on their way to the disk.
    pub memory: Memory,
    /// Rates that are let in.
    pub admission: Admission,
    /// What becomes of camera samples.
    pub video: Video,
    /// What browsers may do.
    pub public: Public,
}

/// Certificate and key of the door.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Tls {
    /// File with the certificate chain, PEM, own certificate first.
    pub cert: PathBuf,
    /// File with the private key, PEM.
    pub key: PathBuf,
}

/// The embedded log of samples that are not yet in a stored episode.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Log {
    /// Length of one recycled file in bytes.
    pub segment_bytes: u64,
    /// Most bytes of all segments together; beyond it the log stops acknowledging.
    pub frames_bytes_max: u64,
    /// Most messages that wait for the writer thread.
    pub queue_entries: usize,
}

/// Byte permits: what may be on its way from sockets to the disk.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Memory {
    /// Most bytes of one session.
    pub session_bytes: u64,
    /// Most bytes of all sessions.
    pub process_bytes: u64,
}

/// Rates that are let in. The record lane is delayed beyond them, never refused.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Admission {
    /// Messages a second of one connection.
    pub connection_messages_per_s: u32,
    /// Messages at once of one connection.
    pub connection_messages_burst: u32,
    /// Decompressed bytes a second of one connection.
    pub connection_bytes_per_s: u32,
    /// Decompressed bytes at once of one connection.
    pub connection_bytes_burst: u32,
    /// Messages a second of all connections of one operator.
    pub operator_messages_per_s: u32,
    /// Messages at once of all connections of one operator.
    pub operator_messages_burst: u32,
    /// Decompressed bytes a second of all connections of one operator.
    pub operator_bytes_per_s: u32,
    /// Decompressed bytes at once of all connections of one operator.
    pub operator_bytes_burst: u32,
    /// Handshakes a second of the whole server; more are refused.
    pub handshakes_per_s: u32,
    /// Handshakes at once of the whole server.
    pub handshakes_burst: u32,
}

/// What becomes of camera samples when an episode is stored.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Video {
    /// `keep`, `h264` or `av1`.
    pub codec: VideoChoice,
    /// Program that encodes, by name or path; also measures and fills cameras that send H.264 or AV1.
    pub ffmpeg: PathBuf,
}

/// What browsers may do.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Public {
    /// Origins of pages, besides the server's own, that may use it (`https://host:port`).
    pub allowed_origins: Vec<String>,
}

/// Values of the command line, which win over the file.
#[derive(Clone, Debug, Default)]
pub struct Overrides {
    /// `--data`.
    pub data: Option<PathBuf>,
    /// `--listen`.
    pub listen: Option<SocketAddr>,
}

/// A configuration cannot be used.
#[derive(Debug, Error)]
pub enum ConfigError {
    /// The file is not there or not readable.
    #[error("configuration {path} cannot be read ({source}); check the path after --config")]
    Read {
        /// The file.
        path: String,
        /// What the system said.
        source: std::io::Error,
    },
    /// The file is far too long to be a configuration.
    #[error("configuration {path} has {bytes} bytes, the limit is {FILE_BYTES_MAX}; is it the right file?")]
    TooLong {
        /// The file.
        path: String,
        /// Its length.
        bytes: u64,
    },
    /// No TOML, an unknown key or a value of the wrong kind.
    #[error("configuration {path} is wrong; configs/server.toml lists every key:\n{source}")]
    Parse {
        /// The file.
        path: String,
        /// Where and what.
        source: Box<toml::de::Error>,
    },
    /// Values that cannot work, all of them at once.
    #[error("{origin} cannot work:\n  {}", problems.join("\n  "))]
    Invalid {
        /// The file, or the defaults with the command line.
        origin: String,
        /// One line each: key, value, limits, what to do.
        problems: Vec<String>,
    },
}

impl Default for Config {
    fn default() -> Self {
        Self {
            data: PathBuf::from("tendon-data"),
            listen: SocketAddr::from((Ipv4Addr::LOCALHOST, 7400)),
            workers: 0,
            flush_wait_s: 10,
            idle_timeout_s: 30,
            mark_lag_s: 10,
            probe_interval_s: 5,
            tls: None,
            log: Log::default(),
            memory: Memory::default(),
            admission: Admission::default(),
            video: Video::default(),
            public: Public::default(),
        }
    }
}

impl Default for Log {
    fn default() -> Self {
        Self { segment_bytes: 64 * MIB, frames_bytes_max: 8 * GIB, queue_entries: 4096 }
    }
}

impl Default for Memory {
    fn default() -> Self {
        Self { session_bytes: 8 * MIB, process_bytes: 256 * MIB }
    }
}

impl Default for Admission {
    fn default() -> Self {
        Self {
            connection_messages_per_s: 4000,
            connection_messages_burst: 8000,
            connection_bytes_per_s: 64 << 20,
            connection_bytes_burst: 64 << 20,
            operator_messages_per_s: 16_000,
            operator_messages_burst: 32_000,
            operator_bytes_per_s: 256 << 20,
            operator_bytes_burst: 256 << 20,
            handshakes_per_s: 200,
            handshakes_burst: 400,
        }
    }
}

impl Default for Video {
    fn default() -> Self {
        Self { codec: VideoChoice::Keep, ffmpeg: PathBuf::from("ffmpeg") }
    }
}

impl Config {
    /// Reads the file, when there is one, lets the command line win, and checks every bound.
    ///
    /// # Errors
    /// When the file cannot be read, has an unknown key, or a value that cannot work.
    pub fn load(file: Option<&Path>, overrides: Overrides) -> Result<Self, ConfigError> {
        let mut config = match file {
            Some(path) => Self::parse(&read(path)?, &path.display().to_string())?,
            None => Self::default(),
        };
        if let Some(data) = overrides.data {
            config.data = data;
        }
        if let Some(listen) = overrides.listen {
            config.listen = listen;
        }
        let problems = check::problems(&config);
        if problems.is_empty() {
            return Ok(config);
        }
        let origin =
            file.map_or_else(|| "the command line".to_owned(), |path| format!("configuration {}", path.display()));
        Err(ConfigError::Invalid { origin, problems })
    }

    /// Threads that serve sockets: as configured, or one a core.
    #[must_use]
    pub fn worker_threads(&self) -> usize {
        match self.workers {
            0 => std::thread::available_parallelism().map_or(1, std::num::NonZeroUsize::get),
            workers => workers,
        }
    }

    /// Reads a configuration from text, without checking its bounds.
    ///
    /// # Errors
    /// When it is no TOML, has an unknown key or a value of the wrong kind.
    pub fn parse(text: &str, path: &str) -> Result<Self, ConfigError> {
        toml::from_str(text).map_err(|source| ConfigError::Parse { path: path.to_owned(), source: Box::new(source) })
    }
}

fn read(path: &Path) -> Result<String, ConfigError> {
    let failed = |source| ConfigError::Read { path: path.display().to_string(), source };
    let bytes = std::fs::metadata(path).map_err(failed)?.len();
    if bytes > FILE_BYTES_MAX {
        return Err(ConfigError::TooLong { path: path.display().to_string(), bytes });
    }
    std::fs::read_to_string(path).map_err(failed)
}

#[cfg(test)]
mod tests;
