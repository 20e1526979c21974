//! One property per kind: a whole message comes back; each proper prefix, each flipped bit is
//! refused; a payload that was changed behind the checksum never panics, and what is taken of it
//! is the same message once encoded again.

use proptest::collection::{hash_set, vec};
use proptest::prelude::*;
use proptest::sample::{Index, select};
use tendon_protocol::batch::{Batch, Media, flag};
use tendon_protocol::control::{
    Acknowledge, ClockKind, ErrorCode, ErrorMessage, Goodbye, GoodbyeReason, Hello, Lost, LostReason, Mark, MarkAction,
    Position, Probe, ProbeRole, Throttle, ThrottleLimit, Welcome,
};
use tendon_protocol::envelope::{Opener, Sealer};
use tendon_protocol::id::{ClockId, ProducerId, SessionId, StreamId};
use tendon_protocol::message::{Message, View};
use tendon_protocol::stream::{Content, Dtype, Role, StreamDeclaration};

/// A change of a payload: where, how, with what.
#[derive(Clone, Debug)]
enum Change {
    Flip(Index, u8),
    Set(Index, u8),
    Cut(Index),
    Drop(Index),
    Insert(Index, u8),
    Swap(Index, Index),
}

impl Change {
    fn apply(&self, bytes: &mut Vec<u8>) {
        if bytes.is_empty() {
            return;
        }
        let length = bytes.len();
        match self {
            Self::Flip(at, bit) => bytes[at.index(length)] ^= 1 << (bit % 8),
            Self::Set(at, byte) => bytes[at.index(length)] = *byte,
            Self::Cut(at) => bytes.truncate(at.index(length)),
            Self::Drop(at) => drop(bytes.remove(at.index(length))),
            Self::Insert(at, byte) => bytes.insert(at.index(length), *byte),
            Self::Swap(a, b) => bytes.swap(a.index(length), b.index(length)),
        }
    }
}

fn change() -> impl Strategy<Value = Change> {
    let at = any::<Index>;
    prop_oneof![
        4 => (at(), any::<u8>()).prop_map(|(at, bit)| Change::Flip(at, bit)),
        3 => (at(), prop_oneof![Just(0u8), Just(1), Just(0x7f), Just(0xff), any::<u8>()]).prop_map(|(at, byte)| Change::Set(at, byte)),
        1 => at().prop_map(Change::Cut),
        1 => at().prop_map(Change::Drop),
        1 => (at(), any::<u8>()).prop_map(|(at, byte)| Change::Insert(at, byte)),
        1 => (at(), at()).prop_map(|(a, b)| Change::Swap(a, b)),
    ]
}

fn text() -> impl Strategy<Value = String> {
    prop_oneof![".{0,40}", "[a-z0-9 äöü]{0,300}"]
}

fn positions() -> impl Strategy<Value = Vec<Position>> {
    vec((any::<u32>(), any::<u64>()).prop_map(|(stream, next)| Position { stream: StreamId(stream), next }), 0..9)
}

fn clock() -> impl Strategy<Value = ClockId> {
    any::<u128>().prop_map(ClockId::from_u128)
}

fn hello() -> impl Strategy<Value = Message> {
    (any::<u128>(), any::<u128>(), clock(), select(ClockKind::ALL), any::<i64>(), any::<i64>(), positions()).prop_map(
        |(session, producer, clock, clock_kind, time_ns, wall_ns, positions)| {
            let (session, producer) = (SessionId::from_u128(session), ProducerId::from_u128(producer));
            Message::Hello(Hello { session, producer, clock, clock_kind, time_ns, wall_ns, positions })
        },
    )
}

fn welcome() -> impl Strategy<Value = Message> {
    (any::<u128>(), any::<u64>(), any::<i64>(), any::<u32>(), positions()).prop_map(
        |(session, epoch, server_ns, payload_bytes_max, positions)| {
            Message::Welcome(Welcome {
                session: SessionId::from_u128(session),
                epoch,
                server_ns,
                payload_bytes_max,
                positions,
            })
        },
    )
}

fn declare() -> impl Strategy<Value = Message> {
    let dtype = select(vec![Dtype::F32, Dtype::F64, Dtype::I64, Dtype::Bool, Dtype::U8]);
    let role = select(vec![Role::Measured, Role::Commanded]);
    let numbers = (vec(1u32..5, 1..=4), "[a-z][a-z0-9_]{0,12}(\\.[a-z0-9_-]{1,12}){0,2}_", any::<bool>())
        .prop_flat_map(|(shape, feature, named)| {
            let width = if named { shape.iter().product::<u32>() as usize } else { 0 };
            (Just(shape), Just(feature), hash_set("[^\n]{1,12}", width))
        })
        .prop_map(|(shape, feature, names)| (Content::Values, shape, feature, names.into_iter().collect::<Vec<_>>()));
    let camera = (select(vec![Content::Jpeg, Content::H264, Content::Av1]), 1u32..4000, 1u32..4000).prop_map(
        |(content, height, width)| (content, vec![height, width, 3], "observation.images.front".to_owned(), Vec::new()),
    );
    (prop_oneof![3 => numbers, 1 => camera], dtype, role, 1..=u32::MAX, any::<u32>(), "[^\n]{0,12}", any::<bool>())
        .prop_map(|((content, shape, feature, names), dtype, role, stream, rate_mhz, unit, required)| {
            let dtype = if content.is_camera() { Dtype::U8 } else { dtype };
            let stream = StreamId(stream);
            Message::Declare(StreamDeclaration {
                stream,
                feature,
                names,
                unit,
                dtype,
                shape,
                rate_mhz,
                required,
                role,
                content,
            })
        })
}

fn batch() -> impl Strategy<Value = Message> {
    let dtype = select(vec![Dtype::F32, Dtype::F64, Dtype::I64, Dtype::Bool, Dtype::U8]);
    (1usize..40, 1u32..6, dtype, any::<u32>(), 0..u64::MAX - 256, clock())
        .prop_flat_map(|(count, width, dtype, stream, first, clock)| {
            let bytes = count * width as usize * dtype.size_bytes();
            let value = if dtype == Dtype::Bool { (0u8..2).boxed() } else { any::<u8>().boxed() };
            let sample = (vec(any::<i64>(), count), vec(0..=flag::SENT_ON_VALUES, count), vec(value, bytes));
            (Just((stream, first, clock, dtype, width)), sample)
        })
        .prop_map(|((stream, first, clock, dtype, width), (times_ns, flags, values))| {
            Message::Batch(Batch { stream: StreamId(stream), first, clock, dtype, width, times_ns, flags, values })
        })
}

fn media() -> impl Strategy<Value = Message> {
    let content = select(vec![Content::Jpeg, Content::H264, Content::Av1]);
    (any::<u32>(), 0..u64::MAX, clock(), any::<i64>(), content, any::<u8>(), vec(any::<u8>(), 1..400)).prop_map(
        |(stream, sequence, clock, time_ns, content, flags, data)| {
            let (stream, flags) = (StreamId(stream), flags & flag::SENT_ON_MEDIA);
            Message::Media(Media { stream, sequence, clock, time_ns, content, flags, data })
        },
    )
}

fn acknowledge() -> impl Strategy<Value = Message> {
    positions().prop_map(|positions| Message::Acknowledge(Acknowledge { positions }))
}

fn throttle() -> impl Strategy<Value = Message> {
    (any::<u32>(), select(ThrottleLimit::ALL), text())
        .prop_map(|(delay_ms, limit, text)| Message::Throttle(Throttle { delay_ms, limit, text }))
}

fn mark() -> impl Strategy<Value = Message> {
    (0..u64::MAX, any::<u64>(), select(MarkAction::ALL), any::<bool>(), clock(), any::<i64>(), text()).prop_map(
        |(sequence, episode, action, request, clock, time_ns, instruction)| {
            Message::Mark(Mark { sequence, episode, action, request, clock, time_ns, instruction })
        },
    )
}

fn lost() -> impl Strategy<Value = Message> {
    (0..u64::MAX, any::<u32>(), 0..u64::MAX, 0..u64::MAX, select(LostReason::ALL)).prop_map(
        |(sequence, stream, a, b, reason)| {
            Message::Lost(Lost { sequence, stream: StreamId(stream), first: a.min(b), last: a.max(b), reason })
        },
    )
}

fn probe() -> impl Strategy<Value = Message> {
    (select(ProbeRole::ALL), any::<u64>(), clock(), any::<[i64; 4]>()).prop_map(
        |(role, id, clock, [sent_ns, received_ns, replied_ns, wall_ns])| {
            Message::Probe(Probe { role, id, clock, sent_ns, received_ns, replied_ns, wall_ns })
        },
    )
}

fn goodbye() -> impl Strategy<Value = Message> {
    (select(GoodbyeReason::ALL), text()).prop_map(|(reason, text)| Message::Goodbye(Goodbye { reason, text }))
}

fn error() -> impl Strategy<Value = Message> {
    (select(ErrorCode::ALL), any::<u32>(), any::<u64>(), text()).prop_map(|(code, stream, sequence, text)| {
        Message::Error(ErrorMessage { code, stream: StreamId(stream), sequence, text })
    })
}

fn opens(opener: &mut Opener, bytes: &[u8]) -> bool {
    View::open(opener, bytes).is_ok()
}

fn holds(message: &Message, bits: &[Index], changes: &[Change]) -> Result<(), TestCaseError> {
    let mut opener = Opener::new();
    for bytes in [message.encode(), message.encode_with(&mut Sealer::new())] {
        let read = View::open(&mut opener, &bytes).map(View::into_message);
        prop_assert_eq!(read.as_ref(), Ok(message));
        for cut in 0..bytes.len() {
            prop_assert!(!opens(&mut opener, &bytes[..cut]), "the first {} of {} bytes were taken", cut, bytes.len());
        }
        let mut damaged = bytes.clone();
        for bit in bits {
            let bit = bit.index(bytes.len() * 8);
            damaged[bit / 8] ^= 1 << (bit % 8);
            prop_assert!(!opens(&mut opener, &damaged), "bit {} was flipped and not noticed", bit);
            damaged[bit / 8] ^= 1 << (bit % 8);
        }
    }
    let mut payload = message.to_payload().to_vec();
    for change in changes {
        change.apply(&mut payload);
        if let Ok(view) = View::from_payload(message.kind(), &payload) {
            let taken = view.into_message();
            let again = Message::decode(&taken.encode());
            prop_assert_eq!(again.as_ref(), Ok(&taken));
            prop_assert_eq!(&taken.to_payload()[..], &payload[..], "two payloads for one content");
        }
    }
    Ok(())
}

macro_rules! property {
    ($($name:ident: $strategy:ident),+ $(,)?) => {
        proptest! {
            #![proptest_config(ProptestConfig::with_cases(64))]
            $(
                #[test]
                fn $name(message in $strategy(), bits in vec(any::<Index>(), 1..20), changes in vec(change(), 1..12)) {
                    holds(&message, &bits, &changes)?;
                }
            )+
        }
    };
}

property! {
    a_hello_is_taken_whole_or_not_at_all: hello,
    a_welcome_is_taken_whole_or_not_at_all: welcome,
    a_declaration_is_taken_whole_or_not_at_all: declare,
    a_batch_is_taken_whole_or_not_at_all: batch,
    a_picture_is_taken_whole_or_not_at_all: media,
    an_acknowledgement_is_taken_whole_or_not_at_all: acknowledge,
    a_throttle_is_taken_whole_or_not_at_all: throttle,
    a_mark_is_taken_whole_or_not_at_all: mark,
    a_lost_message_is_taken_whole_or_not_at_all: lost,
    a_probe_is_taken_whole_or_not_at_all: probe,
    a_goodbye_is_taken_whole_or_not_at_all: goodbye,
    an_error_is_taken_whole_or_not_at_all: error,
}
