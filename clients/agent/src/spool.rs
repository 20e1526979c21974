//! Messages on disk until they are acknowledged, and what else must outlive the process.
//!
//! [`files`] appends messages to segment files and finds them again; [`state`] is one small file that is replaced as a
//! whole. Both are plain blocking I/O without a task or a lock of their own; `core` calls them.

pub(crate) mod files;
pub(crate) mod state;
