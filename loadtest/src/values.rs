//! Sample values: for load, a motion that repeats; for checks, a pure function of stream and sequence.

/// Elements of a state sample, as the reports count a frame.
pub const WIDTH: usize = 28;

/// SplitMix64 of one number.
pub fn mixed(number: u64) -> u64 {
    let mut z = number.wrapping_add(0x9e37_79b9_7f4a_7c15);
    z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ (z >> 31)
}

/// One element of a sample that can be checked wherever it turns up. Always finite.
pub fn element(session: u128, stream: u32, sequence: u64, element: u32) -> f32 {
    let place = mixed((session >> 64) as u64 ^ session as u64) ^ mixed(u64::from(stream) << 32 | u64::from(element));
    let bits = mixed(place ^ sequence.wrapping_mul(0x2545_f491_4f6c_dd1d));
    // 24 bits are exact in an f32.
    ((bits >> 40) as f32).mul_add(1.0 / 8192.0, -1024.0)
}

/// The bytes of a whole sample, little endian.
pub fn sample(session: u128, stream: u32, sequence: u64, width: u32) -> Vec<u8> {
    (0..width).flat_map(|index| element(session, stream, sequence, index).to_le_bytes()).collect()
}

/// Bytes that look like a JPEG from outside, a pure function of where they belong.
pub fn picture(session: u128, stream: u32, sequence: u64, bytes: usize) -> Vec<u8> {
    let mut data = vec![0xff, 0xd8];
    let mut state = mixed(session as u64 ^ u64::from(stream)) ^ mixed(sequence);
    while data.len() + 2 < bytes {
        state = mixed(state);
        let left = bytes - 2 - data.len();
        data.extend_from_slice(&state.to_le_bytes()[..left.min(8)]);
    }
    data.extend_from_slice(&[0xff, 0xd9]);
    data
}

/// A batch's values of a slow motion with the steps of an encoder, as joints have it.
pub fn motion(phase: u32, count: usize) -> Vec<u8> {
    let at = |sample: usize, joint: usize| {
        let time = (phase as usize * count + sample) as f32 * 0.02;
        let angle = (time * 0.12f32.mul_add(joint as f32, 0.3)).sin() * 1.5;
        // 4096 steps a turn, and noise of one of them.
        let noise = (mixed(((phase as u64) << 32) ^ ((sample as u64) << 8) ^ joint as u64) % 3) as f32 - 1.0;
        ((angle * 651.9).round() + noise) / 651.9
    };
    (0..count).flat_map(|sample| (0..WIDTH).flat_map(move |joint| at(sample, joint).to_le_bytes())).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_checked_value_depends_on_everything_that_names_it() {
        let base = element(1, 2, 3, 4);
        assert_eq!(base, element(1, 2, 3, 4));
        for other in [element(9, 2, 3, 4), element(1, 9, 3, 4), element(1, 2, 9, 4), element(1, 2, 3, 9)] {
            assert_ne!(base.to_bits(), other.to_bits());
        }
        assert!((0..10_000).all(|sequence| element(7, 1, sequence, 0).is_finite()));
        assert_eq!(sample(1, 2, 3, 28).len(), 112);
    }

    #[test]
    fn a_picture_has_the_asked_length_and_a_jpegs_ends() {
        for bytes in [8, 100, 1001, 40_000] {
            let data = picture(1, 3, 5, bytes);
            assert_eq!(data.len(), bytes);
            assert_eq!((&data[..2], &data[bytes - 2..]), (&[0xff, 0xd8][..], &[0xff, 0xd9][..]));
        }
        assert_ne!(picture(1, 3, 5, 100), picture(1, 3, 6, 100));
    }
}
