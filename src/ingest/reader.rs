//! From bytes of one WebSocket message to a checked item for the session's actor.

use std::cell::RefCell;

use bytes::Bytes;
use tendon_actors::session::Item;
use tendon_actors::session::machine::{JournalEntry, SampleHead, SampleShape};
use tendon_protocol::control::{ErrorCode, ErrorMessage, Probe};
use tendon_protocol::envelope::{ENVELOPE_BYTES, Opener};
use tendon_protocol::id::StreamId;
use tendon_protocol::message::{MessageError, View};

thread_local! {
    /// One decompression context per worker thread: a hundred kilobytes that a thousand idle connections need not hold each.
    static OPENER: RefCell<Opener> = RefCell::new(Opener::new());
}

/// What a message is to the connection.
pub(super) enum Parsed {
    /// For the session, with its bytes after decompression.
    Item(Item, usize),
    /// An answer to, or an anchor without, a probe.
    Probe(Probe),
    /// The producer is done.
    Goodbye,
}

fn bad(text: String) -> ErrorMessage {
    ErrorMessage { code: ErrorCode::BadMessage, stream: StreamId::JOURNAL, sequence: 0, text }
}

/// What to do after any message that cannot be taken: the connection closes, since later ones build on it.
const REMEDY: &str = "correct the producer, then connect again and send on from the positions of the welcome";

fn unreadable(error: &MessageError) -> ErrorMessage {
    bad(format!("{error}; {REMEDY}"))
}

/// Checks one message.
///
/// # Errors
/// What to tell the producer; the connection cannot go on after that, since a message is missing.
pub(super) fn parse(message: &[u8]) -> Result<Parsed, ErrorMessage> {
    OPENER.with_borrow_mut(|opener| {
        let view = View::open(opener, message).map_err(|error| unreadable(&error))?;
        // A copy of its own: a slice would keep the whole read buffer alive until the disk has it.
        let keep = || Bytes::copy_from_slice(message);
        Ok(match view {
            View::Batch(batch) => {
                let (mut first_ns, mut last_ns) = (i64::MAX, i64::MIN);
                for time_ns in batch.times_ns() {
                    first_ns = first_ns.min(time_ns);
                    last_ns = last_ns.max(time_ns);
                }
                let head = SampleHead {
                    stream: batch.stream(),
                    first: batch.first(),
                    count: u32::try_from(batch.count()).unwrap_or(u32::MAX),
                    shape: SampleShape::Values(batch.dtype(), batch.width()),
                    clock: batch.clock(),
                    first_ns,
                    last_ns,
                };
                let bytes = batch.count() * (batch.sample_bytes() + 9) + ENVELOPE_BYTES;
                Parsed::Item(Item::Samples(head, keep()), bytes)
            }
            View::Media(media) => {
                let head = SampleHead {
                    stream: media.stream(),
                    first: media.sequence(),
                    count: 1,
                    shape: SampleShape::Camera(media.content()),
                    clock: media.clock(),
                    first_ns: media.time_ns(),
                    last_ns: media.time_ns(),
                };
                Parsed::Item(Item::Samples(head, keep()), message.len())
            }
            View::Mark(mark) if mark.request => {
                return Err(bad(format!("a producer makes marks, it does not request them; {REMEDY}")));
            }
            View::Mark(mark) => Parsed::Item(Item::Journal(Box::new(JournalEntry::Mark(mark)), keep()), message.len()),
            View::Lost(lost) => Parsed::Item(Item::Journal(Box::new(JournalEntry::Lost(lost)), keep()), message.len()),
            View::Declare(declaration) => Parsed::Item(Item::Declare(Box::new(declaration)), message.len()),
            View::Probe(probe) => Parsed::Probe(probe),
            View::Goodbye(_) => Parsed::Goodbye,
            View::Error(error) => {
                tracing::warn!(code = ?error.code, "producer reports: {}", error.text);
                return Err(bad(format!("connection closed after the producer's error; {REMEDY}")));
            }
            View::Hello(_) => return Err(bad("hello came twice; one connection feeds one session".to_owned())),
            View::Welcome(_) | View::Acknowledge(_) | View::Throttle(_) => {
                return Err(bad(format!("this message is sent by servers only; {REMEDY}")));
            }
        })
    })
}

/// Reads the first message of a connection.
///
/// # Errors
/// What to tell the producer.
pub(super) fn parse_hello(message: &[u8]) -> Result<tendon_protocol::control::Hello, ErrorMessage> {
    OPENER.with_borrow_mut(|opener| match View::open(opener, message) {
        Ok(View::Hello(hello)) => Ok(hello),
        Ok(_) => Err(bad("the first message must be a hello; send it, wait for the welcome, then go on".to_owned())),
        Err(error) => Err(unreadable(&error)),
    })
}
