//! Each sequence once, in order: replays overlap, and the log gives epochs one after the other.

use super::{MediaSample, StreamSamples};

/// Sorts, removes what came twice and finds what never came.
pub(super) fn in_order(mut samples: StreamSamples) -> StreamSamples {
    if !samples.sequences.is_sorted_by(|a, b| a < b) {
        samples = once_each(samples);
    }
    (samples.configs, samples.duplicates) = configs_once(std::mem::take(&mut samples.configs), samples.duplicates);
    samples.lost.sort_by_key(|lost| (lost.first, lost.last));
    samples.holes = holes(&samples);
    if !samples.is_coded() {
        let earlier = |index: &usize| {
            samples.clock[*index] == samples.clock[index - 1]
                && samples.capture_ns[*index] < samples.capture_ns[index - 1]
        };
        samples.time_backwards = (1..samples.count()).filter(earlier).count() as u64;
    }
    samples
}

fn once_each(mut samples: StreamSamples) -> StreamSamples {
    let mut order: Vec<usize> = (0..samples.count()).collect();
    // Stable: of one sequence the first that was given comes first.
    order.sort_by_key(|index| samples.sequences[*index]);
    let mut kept: Vec<usize> = Vec::with_capacity(order.len());
    for index in order {
        match kept.last() {
            Some(last) if samples.sequences[*last] == samples.sequences[index] => {
                if is_same(&samples, *last, index) {
                    samples.duplicates += 1;
                } else if samples.conflicts.last() != Some(&samples.sequences[index]) {
                    samples.conflicts.push(samples.sequences[index]);
                }
            }
            _ => kept.push(index),
        }
    }
    samples.only(&kept)
}

fn is_same(samples: &StreamSamples, a: usize, b: usize) -> bool {
    let bytes = samples.sample_bytes();
    samples.capture_ns[a] == samples.capture_ns[b]
        && samples.clock[a] == samples.clock[b]
        && samples.flags[a] == samples.flags[b]
        && samples.values.get(a * bytes..(a + 1) * bytes) == samples.values.get(b * bytes..(b + 1) * bytes)
        && samples.media.get(a).map(|sample| &sample.data) == samples.media.get(b).map(|sample| &sample.data)
}

fn configs_once(mut configs: Vec<MediaSample>, mut duplicates: u64) -> (Vec<MediaSample>, u64) {
    configs.sort_by_key(|config| config.sequence);
    let before = configs.len();
    configs.dedup_by_key(|config| config.sequence);
    duplicates += (before - configs.len()) as u64;
    (configs, duplicates)
}

/// Sequences between the first and the last one that nobody accounts for.
fn holes(samples: &StreamSamples) -> Vec<(u64, u64)> {
    let mut known: Vec<(u64, u64)> = samples.lost.iter().map(|lost| (lost.first, lost.last)).collect();
    known.extend(samples.configs.iter().map(|config| (config.sequence, config.sequence)));
    known.sort_unstable();
    let mut known = known.into_iter().peekable();
    let mut holes = Vec::new();
    for pair in samples.sequences.windows(2) {
        let mut next = pair[0] + 1;
        while next < pair[1] {
            while known.next_if(|range| range.1 < next).is_some() {}
            match known.peek() {
                Some(range) if range.0 <= next => next = range.1.saturating_add(1),
                Some(range) if range.0 < pair[1] => {
                    holes.push((next, range.0 - 1));
                    next = range.0;
                }
                _ => {
                    holes.push((next, pair[1] - 1));
                    next = pair[1];
                }
            }
        }
    }
    holes
}

impl StreamSamples {
    /// The samples at these places, in this order; everything that is no sample stays.
    pub(crate) fn only(self, places: &[usize]) -> Self {
        if places.len() == self.count() && places.is_sorted() {
            return self;
        }
        let bytes = self.sample_bytes();
        let mut values = Vec::with_capacity(places.len() * bytes);
        if bytes > 0 {
            for place in places {
                values.extend_from_slice(&self.values[place * bytes..(place + 1) * bytes]);
            }
        }
        Self {
            sequences: places.iter().map(|place| self.sequences[*place]).collect(),
            capture_ns: places.iter().map(|place| self.capture_ns[*place]).collect(),
            clock: places.iter().map(|place| self.clock[*place]).collect(),
            flags: places.iter().map(|place| self.flags[*place]).collect(),
            media: if self.media.is_empty() {
                Vec::new()
            } else {
                places.iter().map(|place| self.media[*place].clone()).collect()
            },
            values,
            ..self
        }
    }
}
