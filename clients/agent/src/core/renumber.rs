//! Moves the sequence numbers of a message that was numbered before the server said where it stands.

use std::cell::RefCell;

use tendon_protocol::envelope::{Envelope, Sealer};
use tendon_protocol::id::StreamId;
use tendon_protocol::message::{Message, MessageError};

use crate::ledger::Deltas;

thread_local! {
    /// A compression context takes about a hundred kilobytes: one per thread, not one per agent.
    static SEALER: RefCell<Sealer> = RefCell::new(Sealer::new());
}

/// The bytes of a message, batches compressed if asked for.
pub(crate) fn encode(message: &Message, compress: bool) -> Vec<u8> {
    if compress { SEALER.with_borrow_mut(|sealer| message.encode_with(sealer)) } else { message.encode() }
}

/// Adds to every sequence number in a message.
pub(crate) fn shift(message: &mut Message, deltas: &Deltas) {
    let of = |stream: StreamId| deltas.get(&stream).copied().unwrap_or(0);
    match message {
        Message::Batch(batch) => batch.first += of(batch.stream),
        Message::Media(media) => media.sequence += of(media.stream),
        Message::Mark(mark) => mark.sequence += of(StreamId::JOURNAL),
        Message::Lost(lost) => {
            lost.sequence += of(StreamId::JOURNAL);
            lost.first += of(lost.stream);
            lost.last += of(lost.stream);
        }
        Message::Hello(_)
        | Message::Welcome(_)
        | Message::Declare(_)
        | Message::Acknowledge(_)
        | Message::Throttle(_)
        | Message::Probe(_)
        | Message::Goodbye(_)
        | Message::Error(_) => {}
    }
}

/// The same message with other numbers. The result depends on nothing but the arguments, so that a replay is identical.
pub(crate) fn renumber(bytes: &[u8], deltas: &Deltas) -> Result<Vec<u8>, MessageError> {
    let compressed = Envelope::read(bytes)?.0.compressed;
    let mut message = Message::decode(bytes)?;
    shift(&mut message, deltas);
    Ok(encode(&message, compressed))
}

#[cfg(test)]
mod tests {
    use super::*;
    use tendon_protocol::batch::Batch;
    use tendon_protocol::control::{Lost, LostReason};
    use tendon_protocol::id::ClockId;
    use tendon_protocol::stream::Dtype;

    #[test]
    fn a_moved_batch_keeps_all_but_its_number_and_a_moved_loss_moves_with_its_stream() {
        let deltas = Deltas::from([(StreamId(0), 3), (StreamId(2), 10)]);
        let batch = Batch {
            stream: StreamId(2),
            first: 5,
            clock: ClockId::from_u128(1),
            dtype: Dtype::F32,
            width: 1,
            times_ns: (0..20).collect(),
            flags: vec![0; 20],
            values: vec![0; 80],
        };
        for compress in [false, true] {
            let bytes = encode(&Message::Batch(batch.clone()), compress);
            let moved = renumber(&bytes, &deltas).unwrap();
            assert_eq!(Message::decode(&moved), Ok(Message::Batch(Batch { first: 15, ..batch.clone() })));
            assert_eq!(Envelope::read(&moved).unwrap().0.compressed, compress);
        }
        let lost = Lost { sequence: 1, stream: StreamId(2), first: 7, last: 8, reason: LostReason::SpoolFull };
        let moved = renumber(&Message::Lost(lost.clone()).encode(), &deltas).unwrap();
        assert_eq!(Message::decode(&moved), Ok(Message::Lost(Lost { sequence: 4, first: 17, last: 18, ..lost })));
    }
}
