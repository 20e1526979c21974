//! A batch that is encoded once and then only patched, so that a client costs next to nothing
//! beside the server that it loads. `docs/wire.md` has the offsets.

use tendon_protocol::batch::Batch;
use tendon_protocol::envelope::{ENVELOPE_BYTES, Kind, Sealer};
use tendon_protocol::id::{ClockId, StreamId};
use tendon_protocol::message::Message;
use tendon_protocol::stream::Dtype;

use crate::values::{WIDTH, motion};

/// Bytes of a batch's archived root, behind its body.
const ROOT_BYTES: usize = 44;
/// Where the envelope's checksum stands.
const CHECKSUM_AT: usize = 20;

/// A whole message of one batch, uncompressed.
pub struct Prepared {
    message: Vec<u8>,
    count: usize,
}

impl Prepared {
    /// Encodes a batch.
    pub fn new(batch: Batch) -> Self {
        let count = batch.count();
        Self { message: Message::Batch(batch).encode(), count }
    }

    /// The message with another first sequence and other capture times: `start_ns` and so on by `step_ns`.
    pub fn patch(&mut self, first: u64, start_ns: i64, step_ns: i64) -> &[u8] {
        let times = &mut self.message[ENVELOPE_BYTES..ENVELOPE_BYTES + self.count * 8];
        let mut time_ns = start_ns;
        for slot in times.as_chunks_mut::<8>().0 {
            *slot = time_ns.to_le_bytes();
            time_ns += step_ns;
        }
        let root_at = self.message.len() - ROOT_BYTES;
        self.message[root_at..root_at + 8].copy_from_slice(&first.to_le_bytes());
        let sum = crc32c::crc32c(&self.message[..CHECKSUM_AT]);
        let sum = crc32c::crc32c_append(sum, &self.message[CHECKSUM_AT + 4..]);
        self.message[CHECKSUM_AT..CHECKSUM_AT + 4].copy_from_slice(&sum.to_le_bytes());
        &self.message
    }

    /// The payload as it was patched last, compressed into a new message.
    pub fn compressed(&self, sealer: &mut Sealer) -> Vec<u8> {
        sealer.seal_compressed(Kind::Batch, &self.message[ENVELOPE_BYTES..])
    }
}

/// Batches of a motion, one after the other for ever.
pub struct Motion {
    prepared: Vec<Prepared>,
    turn: usize,
    count: usize,
    sealer: Option<Sealer>,
    sealed: Vec<u8>,
}

/// Different batches of a motion; enough that a compressor does not see one twice in its window.
const PHASES: u32 = 16;

impl Motion {
    /// Batches of `count` samples of 28 f32 for a stream, compressed if there is a sealer.
    pub fn new(stream: StreamId, clock: ClockId, count: usize, sealer: Option<Sealer>) -> Self {
        let batch = |phase| Batch {
            stream,
            first: 0,
            clock,
            dtype: Dtype::F32,
            width: WIDTH as u32,
            times_ns: vec![0; count],
            flags: vec![0; count],
            values: motion(phase, count),
        };
        Self {
            prepared: (0..PHASES).map(|phase| Prepared::new(batch(phase))).collect(),
            turn: 0,
            count,
            sealer,
            sealed: Vec::new(),
        }
    }

    /// Samples of each batch.
    pub fn count(&self) -> u64 {
        self.count as u64
    }

    /// The next message.
    pub fn next(&mut self, first: u64, start_ns: i64, step_ns: i64) -> &[u8] {
        self.turn = (self.turn + 1) % self.prepared.len();
        let prepared = &mut self.prepared[self.turn];
        prepared.patch(first, start_ns, step_ns);
        match &mut self.sealer {
            None => &prepared.message,
            Some(sealer) => {
                self.sealed = prepared.compressed(sealer);
                &self.sealed
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn batch(count: usize, first: u64, start_ns: i64, step_ns: i64) -> Batch {
        Batch {
            stream: StreamId(5),
            first,
            clock: ClockId::from_u128(77),
            dtype: Dtype::F32,
            width: WIDTH as u32,
            times_ns: (0..count as i64).map(|index| start_ns + index * step_ns).collect(),
            flags: vec![0; count],
            values: motion(3, count),
        }
    }

    proptest! {
        #[test]
        fn a_patched_batch_is_the_encoded_one(count in 1usize..=256, first in 0u64..1 << 60, start_ns in -1i64 << 50..1 << 50, step_ns in 0i64..1 << 30) {
            let mut prepared = Prepared::new(batch(count, 0, 0, 0));
            prepared.patch(99, 98, 97);
            let expected = Message::Batch(batch(count, first, start_ns, step_ns));
            prop_assert_eq!(prepared.patch(first, start_ns, step_ns), &expected.encode()[..]);
            let sealed = prepared.compressed(&mut Sealer::new());
            prop_assert_eq!(Message::decode(&sealed), Ok(expected));
        }
    }

    #[test]
    fn a_motion_goes_on_and_compresses() {
        let mut raw = Motion::new(StreamId(1), ClockId::from_u128(1), 16, None);
        let mut zstd = Motion::new(StreamId(1), ClockId::from_u128(1), 16, Some(Sealer::new()));
        let mut seen = Vec::new();
        for turn in 0..3 {
            let plain = raw.next(turn * 16, 0, 1).to_vec();
            let short = zstd.next(turn * 16, 0, 1).to_vec();
            assert_eq!(plain.len(), ENVELOPE_BYTES + ROOT_BYTES + 16 * (9 + 4 * WIDTH));
            assert!(short.len() < plain.len());
            assert_eq!(Message::decode(&plain), Message::decode(&short));
            seen.push(plain);
        }
        assert!(seen[0] != seen[1] && seen[1] != seen[2]);
    }
}
