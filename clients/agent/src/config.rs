//! Settings of an agent, each with its unit and default.

use std::fmt;
use std::path::PathBuf;
use std::time::Duration;

use tendon_protocol::id::{ProducerId, SessionId};
use tendon_protocol::limit;

use crate::clock::Clock;
use crate::error::AgentError;

/// Path of the server's door for producers.
pub const INGEST_PATH: &str = "/api/v1/ingest";
/// Least memory for the spool: two of the longest messages, or the longest would never fit.
pub const MEMORY_BYTES_MIN: usize = 2 * (limit::PAYLOAD_BYTES_MAX + 4096);

/// What an agent needs to know. [`AgentConfig::new`] fills in the defaults.
#[derive(Clone)]
pub struct AgentConfig {
    /// Where the server is; see [`ingest_url`].
    pub url: String,
    /// API token, sent in the `Authorization` header and never shown.
    pub token: String,
    /// The session to feed.
    pub session: SessionId,
    /// Who feeds it; the same over restarts of one producer.
    pub producer: ProducerId,
    /// The clock that samples are stamped with.
    pub clock: Clock,
    /// Where messages wait for their acknowledgement.
    pub spool: SpoolConfig,
    /// What `send` does when the spool is full. Default: wait.
    pub when_full: WhenFull,
    /// Compress batches of 16 samples and more. Default: yes; costs about 1 us a sample, saves a third of the bytes.
    pub compress: bool,
    /// Samples of one message, 1 to 256. Default 16: longer ones save little more.
    pub batch_samples: usize,
    /// A batch that is not full is sent after this. Default 100 ms.
    pub linger: Duration,
    /// Pauses between tries to connect.
    pub backoff: Backoff,
    /// A connection that is idle this long is probed with a ping. Default 10 s.
    pub keepalive: Duration,
    /// A connection that brings nothing for this long, not even a pong, is given up. Default 30 s.
    pub idle_timeout: Duration,
    /// Longest time for one try to connect, handshake included. Default 10 s.
    pub connect_timeout: Duration,
    /// How long `Agent::connect` tries before it gives up; `None` tries for ever. Default 30 s.
    pub connect_wait: Option<Duration>,
    /// Which certificates are trusted for `wss://`. Default: the system's.
    pub roots: Roots,
    /// Turn a server's request for a mark into a mark at once, without asking the application. Default: no.
    pub auto_marks: bool,
}

impl fmt::Debug for AgentConfig {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("AgentConfig")
            .field("url", &self.url)
            .field("session", &self.session)
            .field("producer", &self.producer)
            .field("clock", &self.clock)
            .field("spool", &self.spool)
            .finish_non_exhaustive()
    }
}

/// Where messages wait for their acknowledgement.
#[derive(Clone, Debug)]
pub struct SpoolConfig {
    /// Memory for messages in bytes. Default 64 MiB: a minute of two cameras at 30 Hz.
    pub memory_bytes_max: usize,
    /// Folder of the spool files; one agent each. Default: none, memory alone.
    pub folder: Option<PathBuf>,
    /// When messages go to the files. Default: when memory is full.
    pub mode: SpoolMode,
    /// Bytes of all spool files together. Default 4 GiB.
    pub file_bytes_max: u64,
    /// Bytes of one spool file; it is deleted once all its messages are acknowledged. Default 16 MiB.
    pub segment_bytes: u64,
    /// Wait for the disk after every message. Default: no; a killed process loses nothing either way, a power cut does.
    pub fsync: bool,
}

impl Default for SpoolConfig {
    fn default() -> Self {
        Self {
            memory_bytes_max: 64 << 20,
            folder: None,
            mode: SpoolMode::Overflow,
            file_bytes_max: 4 << 30,
            segment_bytes: 16 << 20,
            fsync: false,
        }
    }
}

/// When messages go to the spool files.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SpoolMode {
    /// When memory is full. A killed process loses what was in memory.
    Overflow,
    /// Always, before they are sent: a killed process loses no message, only the samples of a batch that was still filling.
    WriteThrough,
}

/// What `send` does when memory and spool files are full.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum WhenFull {
    /// Waits until something is acknowledged.
    Wait,
    /// Drops the new sample; the hole is declared to the server as lost.
    DeclareLost,
}

/// Pauses between tries to connect: doubled each time, random between `min` and that.
#[derive(Clone, Copy, Debug)]
pub struct Backoff {
    /// Shortest pause. Default 100 ms.
    pub min: Duration,
    /// Longest pause. Default 10 s.
    pub max: Duration,
}

impl Default for Backoff {
    fn default() -> Self {
        Self { min: Duration::from_millis(100), max: Duration::from_secs(10) }
    }
}

/// Which certificates are trusted for `wss://`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Roots {
    /// The system's bundle (`SSL_CERT_FILE`, or where Linux distributions keep it).
    System,
    /// The certificates of this PEM file and no others.
    Pem(PathBuf),
    /// None: `wss://` is refused.
    None,
}

impl AgentConfig {
    /// Settings with every default.
    #[must_use]
    pub fn new(
        url: impl Into<String>,
        token: impl Into<String>,
        session: SessionId,
        producer: ProducerId,
        clock: Clock,
    ) -> Self {
        Self {
            url: url.into(),
            token: token.into(),
            session,
            producer,
            clock,
            spool: SpoolConfig::default(),
            when_full: WhenFull::Wait,
            compress: true,
            batch_samples: 16,
            linger: Duration::from_millis(100),
            backoff: Backoff::default(),
            keepalive: Duration::from_secs(10),
            idle_timeout: Duration::from_secs(30),
            connect_timeout: Duration::from_secs(10),
            connect_wait: Some(Duration::from_secs(30)),
            roots: Roots::System,
            auto_marks: false,
        }
    }

    pub(crate) fn check(&self) -> Result<(), AgentError> {
        if self.batch_samples == 0 || self.batch_samples > limit::SAMPLES_MAX {
            let what = format!("{} samples a batch; use 1 to {}", self.batch_samples, limit::SAMPLES_MAX);
            return Err(AgentError::setting("batch_samples", what));
        }
        if self.spool.memory_bytes_max < MEMORY_BYTES_MIN {
            let what = format!(
                "{} bytes cannot hold the longest messages; use at least {MEMORY_BYTES_MIN}",
                self.spool.memory_bytes_max
            );
            return Err(AgentError::setting("spool.memory_bytes_max", what));
        }
        if self.spool.segment_bytes < MEMORY_BYTES_MIN as u64
            || self.spool.file_bytes_max < 2 * self.spool.segment_bytes
        {
            let what = format!(
                "segments of {} bytes in {} bytes; use segments of at least {MEMORY_BYTES_MIN} bytes, and room for two",
                self.spool.segment_bytes, self.spool.file_bytes_max
            );
            return Err(AgentError::setting("spool.segment_bytes", what));
        }
        if self.backoff.min.is_zero() || self.backoff.min > self.backoff.max {
            let what = format!(
                "{:?} to {:?}; the shortest pause must be above 0 and not above the longest",
                self.backoff.min, self.backoff.max
            );
            return Err(AgentError::setting("backoff", what));
        }
        if self.keepalive.is_zero() || self.keepalive >= self.idle_timeout {
            let what =
                format!("{:?} must be above 0 and shorter than idle_timeout, {:?}", self.keepalive, self.idle_timeout);
            return Err(AgentError::setting("keepalive", what));
        }
        if self.linger.is_zero() {
            return Err(AgentError::setting(
                "linger",
                "0 would never let a batch fill; for single samples set batch_samples to 1",
            ));
        }
        Ok(())
    }
}

/// The door for producers of a server: `http` becomes `ws`, `https` becomes `wss`, a missing scheme is `ws`, and the path
/// is added where there is none.
#[must_use]
pub fn ingest_url(server: &str) -> String {
    let url = match server.split_once("://") {
        Some(("http", rest)) => format!("ws://{rest}"),
        Some(("https", rest)) => format!("wss://{rest}"),
        Some(_) => server.to_owned(),
        None => format!("ws://{server}"),
    };
    let after_scheme = url.find("://").map_or(0, |at| at + 3);
    match url[after_scheme..].find('/') {
        None => format!("{url}{INGEST_PATH}"),
        Some(at) if after_scheme + at + 1 == url.len() => format!("{}{INGEST_PATH}", &url[..url.len() - 1]),
        Some(_) => url,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use tendon_protocol::id::ClockId;

    fn config() -> AgentConfig {
        let clock = Clock::replay(ClockId::from_u128(1));
        AgentConfig::new("ws://h:1", "secret-token", SessionId::default(), ProducerId::default(), clock)
    }

    #[test]
    fn a_servers_address_becomes_its_door() {
        for (from, to) in [
            ("http://robot:80", "ws://robot:80/api/v1/ingest"),
            ("https://robot/", "wss://robot/api/v1/ingest"),
            ("127.0.0.1:7420", "ws://127.0.0.1:7420/api/v1/ingest"),
            ("ws://h:1/api/v1/ingest", "ws://h:1/api/v1/ingest"),
            ("wss://h/behind/proxy", "wss://h/behind/proxy"),
        ] {
            assert_eq!(ingest_url(from), to);
        }
    }

    #[test]
    fn the_defaults_are_allowed_and_the_token_is_not_shown() {
        config().check().unwrap();
        assert!(!format!("{:?}", config()).contains("secret"));
    }

    #[test]
    fn a_setting_that_cannot_be_right_is_named() {
        let with = |change: fn(&mut AgentConfig)| {
            let mut config = config();
            change(&mut config);
            config.check().unwrap_err().to_string()
        };
        assert!(with(|c| c.batch_samples = 257).contains("batch_samples"));
        assert!(with(|c| c.spool.memory_bytes_max = 10).contains("memory_bytes_max"));
        assert!(with(|c| c.spool.file_bytes_max = 10).contains("segment_bytes"));
        assert!(with(|c| c.backoff.min = Duration::from_secs(60)).contains("backoff"));
        assert!(with(|c| c.keepalive = Duration::from_secs(60)).contains("keepalive"));
        assert!(with(|c| c.linger = Duration::ZERO).contains("linger"));
    }
}
