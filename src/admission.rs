//! How much a producer may send, and what happens beyond that.
//!
//! The record lane is only ever delayed, and told by how much and why, so that a producer that
//! replays its spool is not punished. Handshakes are refused with a time to come back.

use std::num::NonZeroU32;
use std::time::Duration;

use governor::clock::{Clock, DefaultClock, QuantaInstant};
use governor::middleware::NoOpMiddleware;
use governor::state::keyed::DashMapStateStore;
use governor::state::{InMemoryState, NotKeyed};
use governor::{InsufficientCapacity, NotUntil, Quota, RateLimiter};
use tendon_protocol::control::{Throttle, ThrottleLimit};

use crate::config;

type Direct = RateLimiter<NotKeyed, InMemoryState, DefaultClock, NoOpMiddleware>;
type Keyed = RateLimiter<String, DashMapStateStore<String>, DefaultClock, NoOpMiddleware>;

/// Delays shorter than this are not told: they are the grain of the limiter.
const TOLD_FROM: Duration = Duration::from_millis(100);

/// Limits of the whole server.
pub struct Admission {
    limits: config::Admission,
    handshakes: Direct,
    operator_messages: Keyed,
    operator_bytes: Keyed,
    clock: DefaultClock,
}

/// Limits of one connection.
pub struct Lane {
    messages: Direct,
    bytes: Direct,
    operator: String,
}

/// What was charged at once.
#[derive(Clone, Copy, Debug, Default)]
pub struct Charge {
    /// Messages.
    pub messages: u32,
    /// Bytes after decompression.
    pub bytes: u32,
}

/// What of a [`Charge`] each limit has not let pass yet.
#[derive(Clone, Copy, Debug)]
pub struct Bill {
    own_messages: u32,
    own_bytes: u32,
    all_messages: u32,
    all_bytes: u32,
}

impl From<Charge> for Bill {
    fn from(Charge { messages, bytes }: Charge) -> Self {
        Self { own_messages: messages, own_bytes: bytes, all_messages: messages, all_bytes: bytes }
    }
}

fn quota(per_second: u32, burst: u32) -> Quota {
    let at_least_one = |value: u32| NonZeroU32::new(value).unwrap_or(NonZeroU32::MIN);
    Quota::per_second(at_least_one(per_second)).allow_burst(at_least_one(burst))
}

impl Admission {
    /// Limits as configured.
    #[must_use]
    pub fn new(limits: &config::Admission) -> Self {
        Self {
            handshakes: RateLimiter::direct(quota(limits.handshakes_per_s, limits.handshakes_burst)),
            operator_messages: RateLimiter::keyed(quota(
                limits.operator_messages_per_s,
                limits.operator_messages_burst,
            )),
            operator_bytes: RateLimiter::keyed(quota(limits.operator_bytes_per_s, limits.operator_bytes_burst)),
            clock: DefaultClock::default(),
            limits: limits.clone(),
        }
    }

    /// Whether one more connection may shake hands now.
    ///
    /// # Errors
    /// How long to wait before the next try.
    pub fn handshake(&self) -> Result<(), Duration> {
        self.handshakes.check().map_err(|until| until.wait_time_from(self.clock.now()))
    }

    /// Limits for a connection of this operator.
    #[must_use]
    pub fn lane(&self, operator: &str) -> Lane {
        let limits = &self.limits;
        Lane {
            messages: RateLimiter::direct(quota(limits.connection_messages_per_s, limits.connection_messages_burst)),
            bytes: RateLimiter::direct(quota(limits.connection_bytes_per_s, limits.connection_bytes_burst)),
            operator: operator.to_owned(),
        }
    }

    /// Pays as much of a bill as the limits allow now. When something is left, reading must rest for
    /// so long; then pay again. Never refuses.
    #[must_use]
    pub fn pay(&self, lane: &Lane, bill: &mut Bill) -> Option<(Duration, Throttle)> {
        let (limits, clock) = (&self.limits, &self.clock);
        let operator = &lane.operator;
        let own_messages =
            part(&mut bill.own_messages, limits.connection_messages_burst, clock, |n| lane.messages.check_n(n));
        let own_bytes = part(&mut bill.own_bytes, limits.connection_bytes_burst, clock, |n| lane.bytes.check_n(n));
        let all_messages = part(&mut bill.all_messages, limits.operator_messages_burst, clock, |n| {
            self.operator_messages.check_key_n(operator, n)
        });
        let all_bytes = part(&mut bill.all_bytes, limits.operator_bytes_burst, clock, |n| {
            self.operator_bytes.check_key_n(operator, n)
        });
        let waits = [
            (
                own_messages,
                ThrottleLimit::ConnectionMessages,
                "connection_messages_per_s",
                limits.connection_messages_per_s,
            ),
            (own_bytes, ThrottleLimit::ConnectionBytes, "connection_bytes_per_s", limits.connection_bytes_per_s),
            (all_messages, ThrottleLimit::OperatorMessages, "operator_messages_per_s", limits.operator_messages_per_s),
            (all_bytes, ThrottleLimit::OperatorBytes, "operator_bytes_per_s", limits.operator_bytes_per_s),
        ];
        let (delay, limit, key, value) = waits.into_iter().max_by_key(|(delay, ..)| *delay)?;
        if delay.is_zero() {
            return None;
        }
        let delay_ms = u32::try_from(delay.as_millis()).unwrap_or(u32::MAX);
        let text = format!(
            "reading rests for {delay_ms} ms: over the limit of {value} ({key}); nothing is lost, send slower or raise admission.{key}"
        );
        Some((delay, Throttle { delay_ms, limit, text }))
    }

    /// Whether a delay is long enough to tell the producer.
    #[must_use]
    pub fn is_told(delay: Duration) -> bool {
        delay >= TOLD_FROM
    }

    /// Forgets operators that have been idle, so that the maps do not grow for ever.
    pub fn forget_idle(&self) {
        self.operator_messages.retain_recent();
        self.operator_bytes.retain_recent();
        self.operator_messages.shrink_to_fit();
        self.operator_bytes.shrink_to_fit();
    }
}

/// Pays one part of a bill, at most a burst at a time: more could never be paid at once. Gives the
/// time until the next piece can be paid, zero when nothing is left.
fn part(
    left: &mut u32,
    burst: u32,
    clock: &DefaultClock,
    check: impl Fn(NonZeroU32) -> Result<Result<(), NotUntil<QuantaInstant>>, InsufficientCapacity>,
) -> Duration {
    while let Some(piece) = NonZeroU32::new((*left).min(burst)) {
        match check(piece) {
            Ok(Ok(())) => *left -= piece.get(),
            // One tick at least, or nobody would wait and try again.
            Ok(Err(until)) => return until.wait_time_from(clock.now()).max(Duration::from_millis(1)),
            Err(_) => return Duration::ZERO,
        }
    }
    Duration::ZERO
}

#[cfg(test)]
mod tests {
    use super::*;

    fn limits() -> config::Admission {
        config::Admission {
            connection_messages_per_s: 1000,
            connection_messages_burst: 1000,
            connection_bytes_per_s: 1 << 20,
            connection_bytes_burst: 2 << 20,
            handshakes_per_s: 1,
            handshakes_burst: 2,
            ..config::Admission::default()
        }
    }

    fn bill(messages: u32, bytes: u32) -> Bill {
        Charge { messages, bytes }.into()
    }

    #[test]
    fn a_lane_over_its_limit_is_delayed_with_the_reason_and_never_refused() {
        let admission = Admission::new(&limits());
        let lane = admission.lane("ada");
        assert!(admission.pay(&lane, &mut bill(1, 2 << 20)).is_none());
        let (delay, throttle) = admission.pay(&lane, &mut bill(1, 1 << 20)).expect("is over the limit");
        assert!(delay > Duration::from_millis(900) && delay <= Duration::from_secs(1), "{delay:?}");
        assert_eq!(throttle.limit, ThrottleLimit::ConnectionBytes);
        assert!(throttle.text.contains("connection_bytes_per_s"), "{}", throttle.text);
    }

    #[test]
    fn a_bill_larger_than_the_burst_is_paid_in_pieces_and_nothing_is_forgiven() {
        let admission = Admission::new(&limits());
        let lane = admission.lane("ada");
        let mut bill = bill(2500, 0);
        assert!(admission.pay(&lane, &mut bill).is_some());
        // The first thousand went through, and what trickled in meanwhile is less than a piece.
        assert_eq!((bill.own_messages, bill.all_messages), (1500, 0));
    }

    #[test]
    fn handshakes_beyond_the_burst_are_told_when_to_come_back() {
        let admission = Admission::new(&limits());
        assert!(admission.handshake().is_ok() && admission.handshake().is_ok());
        let wait = admission.handshake().expect_err("third of two");
        assert!(wait <= Duration::from_secs(1));
    }
}
