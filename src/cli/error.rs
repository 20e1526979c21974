//! Why a command was not done, for a person and for a script.

use std::fmt::Display;

use thiserror::Error;

/// The work was done, but something is wrong with the data.
pub const EXIT_FINDINGS: u8 = 1;
/// The work was not done.
pub const EXIT_FAILED: u8 = 2;

/// A command could not do its work.
#[derive(Clone, Debug, Error)]
#[error("{message}")]
pub struct CliError {
    /// Stable word for scripts: `usage`, `unreachable`, `failed`, or the code of the server's refusal.
    pub code: String,
    /// Exit code of the process.
    pub exit: u8,
    /// What happened, with numbers, and what to do.
    pub message: String,
}

impl CliError {
    fn new(code: &str, message: impl Into<String>) -> Self {
        Self { code: code.to_owned(), exit: EXIT_FAILED, message: message.into() }
    }

    /// The arguments cannot be right.
    pub fn usage(message: impl Into<String>) -> Self {
        Self::new("usage", message)
    }

    /// No server answers.
    pub fn unreachable(message: impl Into<String>) -> Self {
        Self::new("unreachable", message)
    }

    /// Something else went wrong.
    pub fn failed(message: impl Into<String>) -> Self {
        Self::new("failed", message)
    }

    /// The server refused, with its code.
    pub fn refused(code: &str, message: impl Into<String>) -> Self {
        Self::new(code, message)
    }

    /// A file or folder cannot be used.
    pub fn path(what: &str, path: &std::path::Path, error: &dyn Display, remedy: &str) -> Self {
        Self::failed(format!("cannot {what} {} ({error}); {remedy}", path.display()))
    }

    /// The same, with the exit code for data that is wrong.
    #[must_use]
    pub fn about_data(self) -> Self {
        Self { exit: EXIT_FINDINGS, ..self }
    }
}
