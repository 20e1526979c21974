//! Everything that can go wrong in the agent, in words for the person who has to mend it.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use tendon_protocol::control::ErrorCode;
use tendon_protocol::id::StreamId;
use tendon_protocol::message::PayloadError;
use thiserror::Error;

/// Why the agent refuses, or has stopped.
#[derive(Clone, Debug, Error)]
pub enum AgentError {
    /// A setting cannot be right.
    #[error("agent setting `{key}`: {what}")]
    Setting {
        /// Name of the setting.
        key: &'static str,
        /// What is wrong and what is allowed.
        what: String,
    },
    /// The server answered the handshake with a status that does not heal by itself.
    #[error("server refused the connection with HTTP {status} ({code}): {message}")]
    Refused {
        /// HTTP status.
        status: u16,
        /// The server's code of the refusal, or empty.
        code: String,
        /// The server's text.
        message: String,
    },
    /// No connection came up in time.
    #[error("no connection to {url} within {} s; last try: {last}", waited.as_secs_f32())]
    Unreachable {
        /// Where to.
        url: String,
        /// How long was tried.
        waited: Duration,
        /// What the last try met.
        last: String,
    },
    /// The server no longer has what it acknowledged. Nothing is sent on: someone must look at the server's store.
    #[error(
        "ACKNOWLEDGED SAMPLES LOST: stream {stream} was acknowledged up to {acknowledged} (exclusive), the server now has only {server}; \
         stop recording and look at the server's log files: {text}"
    )]
    AcknowledgedLost {
        /// The stream.
        stream: StreamId,
        /// First sequence that was not acknowledged.
        acknowledged: u64,
        /// First sequence that the server does not have.
        server: u64,
        /// What the server says.
        text: String,
    },
    /// The server has samples of this producer that this agent never made.
    #[error(
        "server has stream {stream} up to {server} (exclusive), this agent numbered only up to {next}; \
         does another process use the same producer id?"
    )]
    Foreign {
        /// The stream.
        stream: StreamId,
        /// First sequence that the server does not have.
        server: u64,
        /// First sequence that this agent has not yet given out.
        next: u64,
    },
    /// A newer connection with the same producer id.
    #[error("another connection took over this producer: {text}")]
    Fenced {
        /// What the server says.
        text: String,
    },
    /// The server ended the session.
    #[error("session has ended: {text}")]
    SessionEnded {
        /// What the server says.
        text: String,
    },
    /// The server refused for good.
    #[error("server refused with {code:?}: {text}")]
    Server {
        /// The code.
        code: ErrorCode,
        /// What the server says.
        text: String,
    },
    /// Connections come up, then end with an error before anything is acknowledged, again and again.
    #[error("{times} connections in a row ended with an error before anything was acknowledged; last: {text}")]
    NoProgress {
        /// How many.
        times: u32,
        /// The last error.
        text: String,
    },
    /// The server refused one stream for good; the others go on.
    #[error("server refused stream {stream} with {code:?}; nothing more of it is sent: {text}")]
    StreamRefused {
        /// The stream.
        stream: StreamId,
        /// The code.
        code: ErrorCode,
        /// What the server says.
        text: String,
    },
    /// A declaration breaks a rule of the protocol.
    #[error(transparent)]
    Declaration(#[from] PayloadError),
    /// A stream is declared twice in different ways.
    #[error("stream {stream} is declared already, and differently; use another number, or another session")]
    DeclarationChanged {
        /// The stream.
        stream: StreamId,
    },
    /// More streams than a session may have.
    #[error("{got} streams; at most {max} can be declared beside the journal")]
    TooManyStreams {
        /// Streams that would be declared.
        got: usize,
        /// Streams that may be.
        max: usize,
    },
    /// A sample of a stream that was not declared.
    #[error("stream {stream} is not declared; call `declare` first")]
    NotDeclared {
        /// The stream.
        stream: StreamId,
    },
    /// A sample is not what its stream declared.
    #[error("sample of stream {stream}: {what}")]
    Sample {
        /// The stream.
        stream: StreamId,
        /// What is wrong, with numbers.
        what: String,
    },
    /// A mark cannot be sent.
    #[error("instruction of {got} bytes is over the limit of {max}; shorten it")]
    InstructionTooLong {
        /// Bytes that came.
        got: usize,
        /// Bytes that are allowed.
        max: usize,
    },
    /// The spool folder cannot be used.
    #[error("spool folder {}: {what}", folder.display())]
    Spool {
        /// The folder.
        folder: PathBuf,
        /// What is wrong and what to do.
        what: String,
    },
    /// Reading or writing the spool failed.
    #[error("cannot {what} {}: {source}", path.display())]
    Io {
        /// What was tried.
        what: &'static str,
        /// The file or folder.
        path: PathBuf,
        /// What the system says.
        source: Arc<std::io::Error>,
    },
    /// The agent was closed.
    #[error("agent is closed; make a new one")]
    Closed,
}

impl AgentError {
    pub(crate) fn io(what: &'static str, path: &std::path::Path, source: std::io::Error) -> Self {
        Self::Io { what, path: path.to_owned(), source: Arc::new(source) }
    }

    pub(crate) fn setting(key: &'static str, what: impl Into<String>) -> Self {
        Self::Setting { key, what: what.into() }
    }
}
