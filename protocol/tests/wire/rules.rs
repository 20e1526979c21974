//! Refusals by name: what a declaration, a batch, a picture and an envelope must hold.

use tendon_protocol::batch::{Batch, Media, is_finite};
use tendon_protocol::control::{Acknowledge, Lost, LostReason, Mark, MarkAction, Position};
use tendon_protocol::envelope::{Envelope, EnvelopeError, Kind, Opener};
use tendon_protocol::id::{ClockId, StreamId};
use tendon_protocol::limit;
use tendon_protocol::message::{Message, MessageError, PayloadError, View};
use tendon_protocol::stream::{Content, Dtype, Role, StreamDeclaration};

use crate::samples::{CLOCK, batch, declaration};

fn refusal(message: &Message) -> PayloadError {
    match Message::decode(&message.encode()) {
        Err(MessageError::Payload(error)) => error,
        other => panic!("{other:?} instead of a refused payload"),
    }
}

fn declared(change: impl FnOnce(&mut StreamDeclaration)) -> String {
    let mut declaration = declaration();
    change(&mut declaration);
    let error = refusal(&Message::Declare(declaration.clone()));
    assert_eq!(declaration.check(), Err(error.clone()), "the producer's own check says the same as the server's");
    error.to_string()
}

#[test]
fn a_declaration_is_refused_by_the_rule_that_it_breaks() {
    assert!(declared(|d| d.stream = StreamId::JOURNAL).contains("stream 0 is the journal"));
    assert!(declared(|d| d.names[1] = d.names[0].clone()).contains("twice"));
    assert!(declared(|d| d.names[1].clear()).contains("one line of 1 to"));
    assert!(declared(|d| d.names[1] = "x".repeat(limit::NAME_BYTES_MAX + 1)).contains("one line of 1 to"));
    assert!(declared(|d| drop(d.names.pop())).contains("1 names for 2 elements"));
    assert!(declared(|d| d.shape = vec![2, 0]).contains("each at least 1"));
    assert!(declared(|d| d.shape.clear()).contains("1 to 4 sides"));
    assert!(declared(|d| d.shape = vec![limit::WIDTH_MAX + 1]).contains("4097 elements; at most 4096"));
    assert!(declared(|d| d.shape = vec![u32::MAX, u32::MAX]).contains("at most 4096"));
    assert!(declared(|d| d.feature.clear()).contains("use 1 to 128"));
    assert!(declared(|d| d.feature = "x".repeat(129)).contains("use 1 to 128"));
    assert!(declared(|d| d.feature = "../etc/passwd".into()).contains("single inner dots"));
    assert!(declared(|d| d.feature = "action.".into()).contains("single inner dots"));
    assert!(declared(|d| d.unit = "x".repeat(129)).contains("at most 128"));
    for reserved in limit::FEATURES_RESERVED {
        assert!(declared(|d| d.feature = reserved.into()).contains("written by the exporter"));
    }
}

#[test]
fn a_camera_is_three_bytes_a_pixel() {
    let camera = |d: &mut StreamDeclaration| {
        (d.content, d.dtype, d.shape, d.names) = (Content::Jpeg, Dtype::U8, vec![480, 640, 3], Vec::new());
    };
    let mut good = declaration();
    camera(&mut good);
    assert_eq!(Message::decode(&Message::Declare(good.clone()).encode()), Ok(Message::Declare(good)));
    let wrong = |change: fn(&mut StreamDeclaration)| {
        declared(|d| {
            camera(d);
            change(d);
        })
    };
    assert!(wrong(|d| d.shape = vec![480, 640]).contains("[height, width, 3]"));
    assert!(wrong(|d| d.shape = vec![480, 640, 1]).contains("[height, width, 3]"));
    assert!(wrong(|d| d.dtype = Dtype::F32).contains("[height, width, 3]"));
    assert!(wrong(|d| d.shape = vec![4096, 4097, 3]).contains("at most"));
}

/// The payload of a message of this kind with some bytes replaced, seen from the root's start.
fn patched(message: &Message, root_bytes: usize, at: usize, bytes: &[u8]) -> PayloadError {
    let mut payload = message.to_payload().to_vec();
    let at = payload.len() - root_bytes + at;
    payload[at..at + bytes.len()].copy_from_slice(bytes);
    match View::from_payload(message.kind(), &payload) {
        Err(error) => error,
        Ok(_) => panic!("{bytes:?} at {at} of {:?} was taken", message.kind()),
    }
}

/// Bytes of the archived root of a batch, see `docs/wire.md`.
const BATCH_ROOT: usize = 44;

#[test]
fn a_batch_holds_1_to_256_samples() {
    let of = |count: usize| {
        let mut it = batch();
        (it.width, it.dtype) = (1, Dtype::U8);
        (it.times_ns, it.flags, it.values) = (vec![0; count], vec![0; count], vec![0; count]);
        Message::Batch(it)
    };
    for count in [0, 257, 1000] {
        assert_eq!(refusal(&of(count)), PayloadError::SampleCount { got: count });
    }
    for count in [1, 256] {
        assert_eq!(Message::decode(&of(count).encode()), Ok(of(count)));
    }
}

#[test]
fn a_batch_body_has_exactly_the_bytes_that_its_head_asks_for() {
    let change = |change: fn(&mut Batch)| {
        let mut it = batch();
        change(&mut it);
        refusal(&Message::Batch(it))
    };
    assert_eq!(change(|b| b.values.truncate(23)), PayloadError::BodyLength { got: 50, expected: 51 });
    assert_eq!(change(|b| b.values.push(0)), PayloadError::BodyLength { got: 52, expected: 51 });
    assert_eq!(change(|b| b.width = 3), PayloadError::BodyLength { got: 51, expected: 63 });
    assert_eq!(change(|b| b.flags.clear()), PayloadError::BodyLength { got: 48, expected: 51 });
    assert_eq!(change(|b| b.width = 0), PayloadError::Width { stream: 1, got: 0, declared: limit::WIDTH_MAX });
    assert_eq!(change(|b| b.width = 4097), PayloadError::Width { stream: 1, got: 4097, declared: limit::WIDTH_MAX });
    // A count that the head states and the body does not hold.
    assert_eq!(
        patched(&Message::Batch(batch()), BATCH_ROOT, 32, &[4, 0]),
        PayloadError::BodyLength { got: 51, expected: 68 }
    );
}

#[test]
fn sequence_numbers_that_pass_64_bits_are_refused() {
    let mut it = batch();
    it.first = u64::MAX - 2;
    assert_eq!(refusal(&Message::Batch(it.clone())), PayloadError::SequenceOverflow { first: u64::MAX - 2 });
    it.first = u64::MAX - 3;
    assert_eq!(Message::decode(&Message::Batch(it.clone()).encode()), Ok(Message::Batch(it)));
    let lost =
        |first, last| Message::Lost(Lost { sequence: 0, stream: StreamId(1), first, last, reason: LostReason::Other });
    assert_eq!(refusal(&lost(5, 4)), PayloadError::SequenceOverflow { first: 5 });
    assert_eq!(refusal(&lost(5, u64::MAX)), PayloadError::SequenceOverflow { first: 5 });
    let mark = Mark {
        sequence: u64::MAX,
        episode: 0,
        action: MarkAction::Start,
        request: false,
        clock: CLOCK,
        time_ns: 0,
        instruction: String::new(),
    };
    assert_eq!(refusal(&Message::Mark(mark)), PayloadError::SequenceOverflow { first: u64::MAX });
    assert_eq!(
        refusal(&Message::Media(picture(|m| m.sequence = u64::MAX))),
        PayloadError::SequenceOverflow { first: u64::MAX }
    );
}

#[test]
fn numbers_that_are_not_finite_are_kept_as_they_are() {
    let mut it = batch();
    it.values = [f32::NAN, f32::INFINITY, 1.0, f32::NEG_INFINITY, f32::from_bits(0xffc0_1234), 0.0]
        .iter()
        .flat_map(|v| v.to_le_bytes())
        .collect();
    assert_eq!(Message::decode(&Message::Batch(it.clone()).encode()), Ok(Message::Batch(it)));
    for (value, finite) in
        [(f64::NAN, false), (f64::NEG_INFINITY, false), (f64::MAX, true), (f64::MIN_POSITIVE / 4.0, true), (-0.0, true)]
    {
        assert_eq!(is_finite(Dtype::F64, &value.to_le_bytes()), finite, "{value}");
    }
    for (value, finite) in
        [(f32::NAN, false), (f32::INFINITY, false), (f32::MIN, true), (f32::MIN_POSITIVE / 4.0, true)]
    {
        assert_eq!(is_finite(Dtype::F32, &value.to_le_bytes()), finite, "{value}");
    }
    assert!(is_finite(Dtype::I64, &i64::MAX.to_le_bytes()));
}

#[test]
fn a_bool_is_0_or_1_and_flags_of_readers_are_not_sent() {
    let mut it = batch();
    (it.dtype, it.values) = (Dtype::Bool, vec![0, 1, 2, 0, 0, 0]);
    assert_eq!(refusal(&Message::Batch(it)), PayloadError::UnknownCode { field: "bool value", code: 2 });
    let mut it = batch();
    it.flags[1] = 8;
    assert_eq!(refusal(&Message::Batch(it)), PayloadError::UnknownCode { field: "sample flags", code: 8 });
    assert_eq!(
        patched(&Message::Batch(batch()), BATCH_ROOT, 34, &[6]),
        PayloadError::UnknownCode { field: "dtype", code: 6 }
    );
    assert!(matches!(patched(&Message::Batch(batch()), BATCH_ROOT, 35, &[1]), PayloadError::Width { .. }));
}

fn picture(change: impl FnOnce(&mut Media)) -> Media {
    let mut media = Media {
        stream: StreamId(3),
        sequence: 1,
        clock: ClockId::default(),
        time_ns: 0,
        content: Content::Jpeg,
        flags: 0,
        data: vec![1],
    };
    change(&mut media);
    media
}

#[test]
fn a_picture_says_how_it_is_coded_and_is_not_empty() {
    assert_eq!(refusal(&Message::Media(picture(|m| m.data.clear()))), PayloadError::BodyLength { got: 0, expected: 1 });
    assert_eq!(
        refusal(&Message::Media(picture(|m| m.flags = 32))),
        PayloadError::UnknownCode { field: "media flags", code: 32 }
    );
    assert_eq!(
        refusal(&Message::Media(picture(|m| m.content = Content::Values))),
        PayloadError::UnknownCode { field: "media content", code: 0 }
    );
    let media = Message::Media(picture(|_| ()));
    assert_eq!(patched(&media, 48, 36, &[16]), PayloadError::ReservedForDepth { code: 16 });
    assert_eq!(patched(&media, 48, 36, &[31]), PayloadError::ReservedForDepth { code: 31 });
    assert_eq!(patched(&media, 48, 36, &[32]), PayloadError::UnknownCode { field: "content", code: 32 });
}

#[test]
fn a_session_has_at_most_256_streams() {
    let of = |count: u32| {
        let positions = (0..count).map(|stream| Position { stream: StreamId(stream), next: 0 }).collect();
        Message::Acknowledge(Acknowledge { positions })
    };
    assert_eq!(refusal(&of(257)), PayloadError::TooManyStreams { got: 257 });
    assert_eq!(Message::decode(&of(256).encode()), Ok(of(256)));
}

#[test]
fn an_instruction_has_at_most_64_kib() {
    let of = |bytes: usize| {
        let instruction = "ü".repeat(bytes / 2);
        Message::Mark(Mark {
            sequence: 0,
            episode: 0,
            action: MarkAction::Start,
            request: false,
            clock: CLOCK,
            time_ns: 0,
            instruction,
        })
    };
    assert_eq!(Message::decode(&of(65536).encode()), Ok(of(65536)));
    assert_eq!(refusal(&of(65538)), PayloadError::TextTooLong { field: "instruction", got: 65538 });
}

#[test]
fn bytes_in_front_of_or_behind_an_archive_are_refused() {
    let payload = Message::Batch(batch()).to_payload().to_vec();
    let with = |front: usize, behind: usize| {
        let mut bytes = vec![0; front];
        bytes.extend_from_slice(&payload);
        bytes.extend(vec![0; behind]);
        View::from_payload(Kind::Batch, &bytes).map(|_| ())
    };
    assert_eq!(with(0, 0), Ok(()));
    assert_eq!(
        with(8, 0),
        Err(PayloadError::Stray { kind: Kind::Batch, got: payload.len() + 8, expected: payload.len() })
    );
    assert!(with(0, 8).is_err());
}

/// 64 MiB of zeros in 6 kB, whatever length the envelope states.
#[test]
fn a_zstd_bomb_is_refused_whatever_it_states() {
    let bomb = zstd::bulk::compress(&vec![0u8; 64 << 20], 3).unwrap();
    let mut opener = Opener::new();
    for stated in [0, 1, 1000, limit::BATCH_BYTES_MAX] {
        let message = Envelope::write(Kind::Batch, &bomb, stated, true);
        assert_eq!(
            opener.open(&message),
            Err(EnvelopeError::Compression { kind: Kind::Batch, original: stated as u32 })
        );
    }
    let message = Envelope::write(Kind::Batch, &bomb, 64 << 20, true);
    assert!(matches!(opener.open(&message), Err(EnvelopeError::Length { .. })));
}

#[test]
fn a_zstd_frame_that_is_shorter_than_stated_or_no_frame_is_refused() {
    let short = zstd::bulk::compress(&[7u8; 900], 3).unwrap();
    let mut opener = Opener::new();
    for stored in [&short[..], b"not zstd at all", b""] {
        let message = Envelope::write(Kind::Batch, stored, 1000, true);
        assert_eq!(opener.open(&message), Err(EnvelopeError::Compression { kind: Kind::Batch, original: 1000 }));
    }
}

#[test]
fn a_declaration_may_hold_the_longest_names_of_every_element() {
    let longest = StreamDeclaration {
        shape: vec![900],
        names: (0..900).map(|index| format!("{index:0>128}")).collect(),
        role: Role::Commanded,
        ..declaration()
    };
    let message = Message::Declare(longest);
    assert_eq!(Message::decode(&message.encode()), Ok(message));
}
