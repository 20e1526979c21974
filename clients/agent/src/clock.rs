//! The clock that samples are stamped with.

use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};
use std::time::{SystemTime, UNIX_EPOCH};

use tendon_protocol::control::ClockKind;
use tendon_protocol::id::ClockId;

use crate::error::AgentError;

/// Where Linux tells the id of the running boot.
const BOOT_ID: &str = "/proc/sys/kernel/random/boot_id";

/// A clock with a name. Times of two clocks are never compared; the server estimates how each stands to its own.
#[derive(Clone, Debug)]
pub struct Clock {
    id: ClockId,
    kind: ClockKind,
    source: Source,
}

#[derive(Clone, Debug)]
enum Source {
    /// Nanoseconds since boot, suspended time included.
    Machine,
    /// The machine's clock, moved and bent; stands in for another machine.
    Bent { offset_ns: i64, drift_ppb: i64, since_ns: i64 },
    /// The newest time that was sent.
    Replay(Arc<AtomicI64>),
}

impl Clock {
    /// The monotonic clock of this boot of this machine.
    ///
    /// # Errors
    /// When the system does not tell the id of its boot.
    pub fn boot() -> Result<Self, AgentError> {
        let text = std::fs::read_to_string(BOOT_ID).map_err(|error| AgentError::io("read", BOOT_ID.as_ref(), error))?;
        let id = text
            .trim()
            .parse()
            .map_err(|_| AgentError::setting("clock", format!("{BOOT_ID} holds {text:?}, not an id")))?;
        Ok(Self { id, kind: ClockKind::Boot, source: Source::Machine })
    }

    /// The times of a recording that is played again. Its "now" is the newest time that was sent.
    #[must_use]
    pub fn replay(id: ClockId) -> Self {
        Self { id, kind: ClockKind::Replay, source: Source::Replay(Arc::new(AtomicI64::new(0))) }
    }

    /// A clock that stands `offset_ns` off this machine's and gains `drift_ppm` millionths: for simulated robots.
    #[must_use]
    pub fn bent(id: ClockId, offset_ns: i64, drift_ppm: i32) -> Self {
        let source = Source::Bent { offset_ns, drift_ppb: i64::from(drift_ppm) * 1000, since_ns: machine_ns() };
        Self { id, kind: ClockKind::Boot, source }
    }

    /// Its name.
    #[must_use]
    pub fn id(&self) -> ClockId {
        self.id
    }

    /// What it is.
    #[must_use]
    pub fn kind(&self) -> ClockKind {
        self.kind
    }

    /// Now, in nanoseconds.
    #[must_use]
    pub fn now_ns(&self) -> i64 {
        match &self.source {
            Source::Machine => machine_ns(),
            Source::Bent { offset_ns, drift_ppb, since_ns } => {
                let now = machine_ns();
                let gained = i128::from(now - since_ns) * i128::from(*drift_ppb) / 1_000_000_000;
                now.saturating_add(*offset_ns).saturating_add(i64::try_from(gained).unwrap_or(i64::MAX))
            }
            Source::Replay(newest) => newest.load(Ordering::Relaxed),
        }
    }

    /// A sample with this time was sent; a replay's clock moves on.
    pub(crate) fn observe(&self, time_ns: i64) {
        match &self.source {
            Source::Replay(newest) => {
                newest.fetch_max(time_ns, Ordering::Relaxed);
            }
            Source::Machine | Source::Bent { .. } => {}
        }
    }
}

/// Nanoseconds since boot; on systems without such a clock, of the monotonic clock.
fn machine_ns() -> i64 {
    #[cfg(any(target_os = "linux", target_os = "android"))]
    let clock = rustix::time::ClockId::Boottime;
    #[cfg(not(any(target_os = "linux", target_os = "android")))]
    let clock = rustix::time::ClockId::Monotonic;
    let now = rustix::time::clock_gettime(clock);
    now.tv_sec * 1_000_000_000 + now.tv_nsec
}

/// Now on the wall clock in unix nanoseconds; 0 when it stands before 1970.
pub(crate) fn wall_ns() -> i64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| i64::try_from(since.as_nanos()).unwrap_or(0))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_boot_clock_has_the_same_name_every_time_and_does_not_run_backwards() {
        let (a, b) = (Clock::boot().unwrap(), Clock::boot().unwrap());
        assert_eq!(a.id(), b.id());
        let before = a.now_ns();
        assert!(b.now_ns() >= before);
    }

    #[test]
    fn a_replays_now_is_the_newest_time_sent() {
        let clock = Clock::replay(ClockId::from_u128(1));
        for time in [5, 9, 7] {
            clock.observe(time);
        }
        assert_eq!(clock.now_ns(), 9);
    }

    #[test]
    fn a_bent_clock_stands_off_the_machines() {
        let hour = 3_600_000_000_000;
        let clock = Clock::bent(ClockId::from_u128(1), -2 * hour, 0);
        let before = machine_ns();
        let now = clock.now_ns() + 2 * hour;
        assert!(now >= before && now <= machine_ns());
    }
}
