//! What the log says about itself: after a start, and while it runs.

use std::fmt;

use tendon_protocol::id::SessionId;

/// Holders that an error text names.
const HOLDERS_NAMED: usize = 5;

/// A session and what it holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Holder {
    /// The session.
    pub session: SessionId,
    /// Bytes of its entries that are not released.
    pub bytes: u64,
}

pub(super) fn holders_text(holders: &[Holder]) -> String {
    if holders.is_empty() {
        return "no session".to_owned();
    }
    let named: Vec<String> = holders
        .iter()
        .take(HOLDERS_NAMED)
        .map(|holder| format!("session {} ({} bytes)", holder.session, holder.bytes))
        .collect();
    named.join(", ")
}

/// How full the log is.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Usage {
    /// Bytes of all segments on the disk, spares included.
    pub bytes: u64,
    /// Most bytes of all segments.
    pub bytes_max: u64,
    /// Bytes of entries that are not released.
    pub held_bytes: u64,
    /// Segments that hold entries or take them.
    pub segments: usize,
    /// Segments that wait to be used.
    pub spares: usize,
    /// Sessions with entries that are not released, largest first.
    pub holders: Vec<Holder>,
}

/// Whether entries are stored at present.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Health {
    /// Entries are stored.
    Accepting,
    /// All segments are held.
    Full {
        /// Bytes of all segments.
        bytes: u64,
        /// Most bytes of all segments.
        bytes_max: u64,
        /// Who holds most, largest first.
        holders: Vec<Holder>,
    },
    /// The disk refuses, nothing is acknowledged; each later append makes the log try again.
    NotAccepting {
        /// What happened, and what to do.
        reason: String,
    },
}

impl fmt::Display for Health {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Accepting => f.write_str("log accepts entries"),
            Self::Full { bytes, bytes_max, holders } => write!(
                f,
                "log is full at {bytes} of {bytes_max} bytes, held by {}; flush or discard their episodes, or raise log.frames_bytes_max",
                holders_text(holders)
            ),
            Self::NotAccepting { reason } => write!(f, "log takes nothing at present: {reason}"),
        }
    }
}

/// Bytes after the last whole entry of a segment that was in use when the machine stopped. They
/// were never acknowledged.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TornTail {
    /// Number of the segment.
    pub segment: u64,
    /// Where the valid part ends, bytes.
    pub offset: u64,
    /// Bytes that were cut off.
    pub bytes: u64,
}

/// Bytes that were durable once and are not what was written.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Damage {
    /// Number of the segment.
    pub segment: u64,
    /// Where the damage starts, bytes.
    pub offset: u64,
    /// Bytes that cannot be used.
    pub bytes: u64,
    /// What was wrong there.
    pub what: &'static str,
}

impl fmt::Display for Damage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "segment {} is damaged at byte {}, {} bytes cannot be used ({}); acknowledged samples may be lost, check the disk",
            self.segment, self.offset, self.bytes, self.what
        )
    }
}

/// What was found when the log was opened.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct RecoveryReport {
    /// Segments with entries.
    pub segments: usize,
    /// Segments that wait to be used.
    pub spares: usize,
    /// Whole entries.
    pub entries: u64,
    /// Bytes of their payloads.
    pub bytes: u64,
    /// Tails that were cut, oldest segment first. At most one, unless syncs failed before.
    pub torn: Vec<TornTail>,
    /// Damage in parts that were durable: say it loudly.
    pub damage: Vec<Damage>,
    /// Index files that were missing or bad and were made again from their segments.
    pub indexes_rebuilt: usize,
}

impl fmt::Display for RecoveryReport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} entries of {} bytes in {} segments", self.entries, self.bytes, self.segments)?;
        for torn in &self.torn {
            write!(f, "; cut a torn tail of {} bytes at byte {} of segment {}", torn.bytes, torn.offset, torn.segment)?;
        }
        for damage in &self.damage {
            write!(f, "; {damage}")?;
        }
        Ok(())
    }
}
