//! The bodies of the fuzz targets `message` and `payload`, run on some thousand inputs.
//!
//! The seed is printed when it fails; `TENDON_SEED=N` runs one seed again.

use tendon_protocol::envelope::Sealer;
use tendon_protocol::message::{Message, fuzz_message, fuzz_payload};

use crate::samples::{long_batch, one_of_each};

const SEEDS: u64 = 4000;

/// SplitMix64: enough for a test, and the same everywhere.
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }
    fn below(&mut self, end: usize) -> usize {
        (self.next() % end.max(1) as u64) as usize
    }
}

fn mutate(random: &mut Random, bytes: &mut Vec<u8>) {
    for _ in 0..=random.below(6) {
        let at = random.below(bytes.len());
        match random.below(6) {
            _ if bytes.is_empty() => bytes.push(random.next() as u8),
            0 | 1 => bytes[at] ^= 1 << random.below(8),
            2 => bytes[at] = [0, 1, 0x7f, 0x80, 0xff][random.below(5)],
            3 => bytes.truncate(at),
            4 => bytes.insert(at, random.next() as u8),
            _ => {
                let from = random.below(bytes.len());
                let piece = bytes[from..(from + random.below(16)).min(bytes.len())].to_vec();
                bytes.splice(at..at, piece);
            }
        }
    }
}

fn run(seed: u64) {
    let random = &mut Random(seed);
    let all = one_of_each();
    let message = match random.below(all.len() + 1) {
        index if index < all.len() => all[index].1.clone(),
        _ => Message::Batch(long_batch()),
    };
    let mut whole = message.encode_with(&mut Sealer::new());
    mutate(random, &mut whole);
    fuzz_message(&whole);

    let mut payload = message.to_payload().to_vec();
    mutate(random, &mut payload);
    // The body takes the kind modulo 12, in the order of the codes, which begin with 1.
    payload.insert(0, message.kind().code() - 1);
    fuzz_payload(&payload);

    let junk: Vec<u8> = (0..random.below(300)).map(|_| random.next() as u8).collect();
    fuzz_message(&junk);
    fuzz_payload(&junk);
}

#[test]
fn fuzz_bodies_take_random_and_changed_messages_without_a_panic() {
    if let Some(seed) = std::env::var("TENDON_SEED").ok().and_then(|seed| seed.parse().ok()) {
        return run(seed);
    }
    for seed in 0..SEEDS {
        if let Err(panic) = std::panic::catch_unwind(|| run(seed)) {
            eprintln!("TENDON_SEED={seed} shows this again");
            std::panic::resume_unwind(panic);
        }
    }
}
