//! How long things took: a histogram that keeps every time to within one part in 64.

/// Sub-buckets of one doubling.
const SUB: u64 = 64;
/// Powers of two of [`SUB`].
const SUB_BITS: u32 = 6;
/// Buckets for every `u64`.
const BUCKETS: usize = ((64 - SUB_BITS as usize) + 1) * SUB as usize;

/// Times in nanoseconds.
#[derive(Clone, Debug)]
pub struct Latencies {
    buckets: Vec<u64>,
    count: u64,
    max_ns: u64,
}

impl Default for Latencies {
    fn default() -> Self {
        Self { buckets: vec![0; BUCKETS], count: 0, max_ns: 0 }
    }
}

fn index(ns: u64) -> usize {
    if ns < SUB {
        return ns as usize;
    }
    let shift = ns.ilog2() - SUB_BITS;
    (u64::from(shift) * SUB + (ns >> shift)) as usize
}

/// The largest time that falls into a bucket.
fn upper(index: usize) -> u64 {
    let index = index as u64;
    if index < 2 * SUB {
        return index;
    }
    let shift = index / SUB - 1;
    let within = index % SUB + SUB;
    ((within + 1) << shift).wrapping_sub(1)
}

impl Latencies {
    /// Counts one time.
    pub fn record(&mut self, ns: u64) {
        self.buckets[index(ns)] += 1;
        self.count += 1;
        self.max_ns = self.max_ns.max(ns);
    }

    /// Adds all times of another.
    pub fn merge(&mut self, other: &Self) {
        for (mine, theirs) in self.buckets.iter_mut().zip(&other.buckets) {
            *mine += theirs;
        }
        self.count += other.count;
        self.max_ns = self.max_ns.max(other.max_ns);
    }

    /// Times counted.
    pub fn count(&self) -> u64 {
        self.count
    }

    /// The time in milliseconds that `fraction` (0 to 1) of all do not exceed; 0 when there are none.
    pub fn quantile_ms(&self, fraction: f64) -> f64 {
        let rank = ((fraction * self.count as f64).ceil() as u64).clamp(1, self.count.max(1));
        let mut seen = 0;
        for (index, count) in self.buckets.iter().enumerate() {
            seen += count;
            if seen >= rank {
                return upper(index).min(self.max_ns) as f64 / 1e6;
            }
        }
        0.0
    }

    /// The longest time in milliseconds.
    pub fn max_ms(&self) -> f64 {
        self.max_ns as f64 / 1e6
    }
}

/// The middle of some numbers; the mean of the middle two of an even count; 0 of none.
pub fn median(values: &[f64]) -> f64 {
    let mut sorted = values.to_vec();
    sorted.sort_by(f64::total_cmp);
    match sorted.len() {
        0 => 0.0,
        count if count % 2 == 1 => sorted[count / 2],
        count => f64::midpoint(sorted[count / 2 - 1], sorted[count / 2]),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::collection::vec;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn a_quantile_is_at_most_a_64th_too_high_and_never_too_low(mut values in vec(0u64..u64::MAX / 2, 1..300), permille in 1u32..=1000) {
            let mut latencies = Latencies::default();
            values.iter().for_each(|value| latencies.record(*value));
            values.sort_unstable();
            let fraction = f64::from(permille) / 1000.0;
            let exact = values[(fraction * values.len() as f64).ceil() as usize - 1] as f64 / 1e6;
            let found = latencies.quantile_ms(fraction);
            prop_assert!(found >= exact * 0.999_999 && found <= exact * (1.0 + 1.0 / 64.0) + 1e-6, "exact {exact}, found {found}");
        }

        #[test]
        fn each_time_lies_in_a_bucket_that_ends_at_or_after_it(ns in any::<u64>()) {
            prop_assert!(index(ns) < BUCKETS);
            prop_assert!(upper(index(ns)) >= ns);
            prop_assert!(index(ns) == 0 || upper(index(ns) - 1) < ns);
        }
    }

    #[test]
    fn merged_times_are_those_of_both_and_none_have_no_quantile() {
        let (mut a, mut b) = (Latencies::default(), Latencies::default());
        assert_eq!(a.quantile_ms(0.99), 0.0);
        a.record(1_000_000);
        b.record(9_000_000);
        a.merge(&b);
        assert_eq!((a.count(), a.max_ms()), (2, 9.0));
        assert!(a.quantile_ms(0.5) < 1.02 && a.quantile_ms(0.99) == 9.0);
    }

    #[test]
    fn a_median_of_an_even_count_lies_between_the_middle_two() {
        assert_eq!(median(&[3.0, 1.0, 2.0]), 2.0);
        assert_eq!(median(&[4.0, 1.0, 2.0, 3.0]), 2.5);
        assert_eq!(median(&[]), 0.0);
    }
}
