//! Counters of an agent.

use serde::Serialize;

/// Sub-buckets of one doubling: 16 keep the error of a percentile within 6 %.
const SUB: u64 = 16;
/// Doublings above 16 us; the last bucket also takes everything above about 19 hours.
const OCTAVES: u64 = 32;

/// How long messages waited for their acknowledgement, in microseconds.
#[derive(Clone, Debug, Default)]
pub struct Latencies {
    buckets: Vec<u64>,
    count: u64,
    max_us: u64,
}

impl Latencies {
    /// Counts one value.
    pub fn record(&mut self, us: u64) {
        // Made at the first value, so that an agent that never sends costs nothing.
        if self.buckets.is_empty() {
            self.buckets = vec![0; Self::index(u64::MAX) + 1];
        }
        self.buckets[Self::index(us)] += 1;
        self.count += 1;
        self.max_us = self.max_us.max(us);
    }

    /// Adds all values of another.
    pub fn merge(&mut self, other: &Self) {
        if self.buckets.is_empty() {
            self.buckets.clone_from(&other.buckets);
        } else {
            for (mine, theirs) in self.buckets.iter_mut().zip(&other.buckets) {
                *mine += theirs;
            }
        }
        self.count += other.count;
        self.max_us = self.max_us.max(other.max_us);
    }

    /// How many values were counted.
    #[must_use]
    pub fn count(&self) -> u64 {
        self.count
    }

    /// The value that `fraction` (0 to 1) of all values do not exceed, in milliseconds, at most 6 % too high; 0 without values.
    #[must_use]
    pub fn quantile_ms(&self, fraction: f64) -> f64 {
        let rank = (fraction * self.count as f64).ceil().max(1.0) as u64;
        let mut seen = 0;
        for (index, count) in self.buckets.iter().enumerate() {
            seen += count;
            if seen >= rank {
                return Self::upper_us(index as u64).min(self.max_us) as f64 / 1000.0;
            }
        }
        0.0
    }

    fn index(us: u64) -> usize {
        if us < SUB {
            return us as usize;
        }
        let octave = u64::from(us.ilog2()) - 4;
        let index = if octave < OCTAVES { SUB + octave * SUB + (us >> octave) - SUB } else { SUB + OCTAVES * SUB - 1 };
        index as usize
    }

    fn upper_us(index: u64) -> u64 {
        if index < SUB {
            return index;
        }
        let octave = (index - SUB) / SUB;
        let within = (index - SUB) % SUB + SUB;
        ((within + 1) << octave) - 1
    }
}

/// Summary of [`Latencies`].
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize)]
pub struct AckMs {
    /// Half of the messages were acknowledged within this many milliseconds of their first write.
    pub p50: f64,
    /// 99 of 100.
    pub p99: f64,
    /// 999 of 1000.
    pub p999: f64,
}

/// What an agent did so far.
#[derive(Clone, Debug, Default, Serialize)]
pub struct Stats {
    /// Samples that were taken from the application and numbered; marks are not counted.
    pub samples_sent: u64,
    /// Samples that the server acknowledged as durable.
    pub samples_acknowledged: u64,
    /// Samples that were written to a socket again.
    pub samples_replayed: u64,
    /// Samples that were declared lost.
    pub samples_lost: u64,
    /// Samples that the server refused for good.
    pub samples_refused: u64,
    /// Samples that wait for their acknowledgement, those of filling batches included.
    pub samples_waiting: u64,
    /// Messages with samples, marks or losses, each counted at its first write.
    pub messages: u64,
    /// Bytes written to sockets, WebSocket framing included.
    pub bytes: u64,
    /// Connections that the server welcomed.
    pub connections: u64,
    /// Milliseconds of delay that the server announced.
    pub throttled_ms: u64,
    /// Times that it did.
    pub throttles: u64,
    /// Requests for a mark that the application did not take in time.
    pub requests_dropped: u64,
    /// From the first write of a message to its acknowledgement.
    pub ack_ms: AckMs,
    /// Bytes of messages in memory.
    pub spool_memory_bytes: u64,
    /// Bytes of the spool files.
    pub spool_file_bytes: u64,
    /// Last thing that went wrong.
    pub last_error: Option<String>,
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::collection::vec;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn a_quantile_is_at_most_a_sixteenth_too_high_and_never_too_low(mut values in vec(0u64..10_000_000_000, 1..200), percent in 1u32..=100) {
            let mut latencies = Latencies::default();
            for value in &values {
                latencies.record(*value);
            }
            values.sort_unstable();
            let fraction = f64::from(percent) / 100.0;
            let rank = (fraction * values.len() as f64).ceil() as usize;
            let exact = values[rank - 1] as f64;
            let found = latencies.quantile_ms(fraction) * 1000.0;
            prop_assert!(found >= exact - 0.5 && found <= exact * 1.07 + 0.5, "exact {exact}, found {found}");
        }

        #[test]
        fn merged_latencies_are_those_of_all_values(a in vec(any::<u64>(), 0..50), b in vec(any::<u64>(), 0..50)) {
            let of = |values: &[u64]| {
                let mut latencies = Latencies::default();
                values.iter().for_each(|value| latencies.record(*value));
                latencies
            };
            let (mut left, right) = (of(&a), of(&b));
            left.merge(&right);
            let all = of(&[a, b].concat());
            prop_assert_eq!(left.count(), all.count());
            prop_assert_eq!(left.quantile_ms(0.5), all.quantile_ms(0.5));
            prop_assert_eq!(left.quantile_ms(0.99), all.quantile_ms(0.99));
        }
    }

    #[test]
    fn no_values_have_no_latency() {
        assert_eq!(Latencies::default().quantile_ms(0.99), 0.0);
    }
}
