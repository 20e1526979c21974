//! One message of each kind, with a different value in every field.

use tendon_protocol::batch::{Batch, Media, flag};
use tendon_protocol::control::{
    Acknowledge, ClockKind, ErrorCode, ErrorMessage, Goodbye, GoodbyeReason, Hello, Lost, LostReason, Mark, MarkAction,
    Position, Probe, ProbeRole, Throttle, ThrottleLimit, Welcome,
};
use tendon_protocol::id::{ClockId, ProducerId, SessionId, StreamId};
use tendon_protocol::message::Message;
use tendon_protocol::stream::{Content, Dtype, Role, StreamDeclaration};

pub const SESSION: SessionId = SessionId::from_u128(0x0197_f3a0_1122_7333_8444_5566_7788_99aa);
pub const PRODUCER: ProducerId = ProducerId::from_u128(0x1011_1213_1415_1617_1819_1a1b_1c1d_1e1f);
pub const CLOCK: ClockId = ClockId::from_u128(0x2021_2223_2425_2627_2829_2a2b_2c2d_2e2f);

pub fn positions() -> Vec<Position> {
    vec![Position { stream: StreamId(0), next: 3 }, Position { stream: StreamId(7), next: 0x0102_0304_0506_0708 }]
}

/// Three samples of two f32 values.
pub fn batch() -> Batch {
    let values: Vec<u8> =
        [0.5f32, -1.25, 3.75, f32::MIN_POSITIVE, -0.0, 1e9].iter().flat_map(|value| value.to_le_bytes()).collect();
    Batch {
        stream: StreamId(1),
        first: 0x1122_3344_5566_7788,
        clock: CLOCK,
        dtype: Dtype::F32,
        width: 2,
        times_ns: vec![1_000_000_007, 1_020_000_011, -5],
        flags: vec![0, flag::INTERVENTION, flag::CLIPPED | flag::STALE],
        values,
    }
}

/// 32 samples of four f64 values that repeat, so that they compress.
pub fn long_batch() -> Batch {
    let values = (0..32u32).flat_map(|sample| (0..4u32).map(move |element| f64::from(sample / 8 + element)));
    Batch {
        stream: StreamId(2),
        first: 4096,
        clock: CLOCK,
        dtype: Dtype::F64,
        width: 4,
        times_ns: (0..32).map(|sample| 20_000_000 * sample).collect(),
        flags: vec![0; 32],
        values: values.flat_map(f64::to_le_bytes).collect(),
    }
}

pub fn declaration() -> StreamDeclaration {
    StreamDeclaration {
        stream: StreamId(9),
        feature: "observation.state".into(),
        names: vec!["shoulder_pan".into(), "greifer.öffnung".into()],
        unit: "rad".into(),
        dtype: Dtype::F32,
        shape: vec![2],
        rate_mhz: 50_000,
        required: true,
        role: Role::Measured,
        content: Content::Values,
    }
}

fn greetings() -> [(&'static str, Message); 2] {
    let hello = Hello {
        session: SESSION,
        producer: PRODUCER,
        clock: CLOCK,
        clock_kind: ClockKind::Page,
        time_ns: 0x0807_0605_0403_0201,
        wall_ns: 1_764_028_800_123_456_789,
        positions: positions(),
    };
    let welcome = Welcome {
        session: SESSION,
        epoch: 5,
        server_ns: 1_764_028_800_987_654_321,
        payload_bytes_max: 1 << 20,
        positions: positions(),
    };
    [("hello", Message::Hello(hello)), ("welcome", Message::Welcome(welcome))]
}

fn media() -> Media {
    Media {
        stream: StreamId(3),
        sequence: 77,
        clock: CLOCK,
        time_ns: -9,
        content: Content::Jpeg,
        flags: flag::KEY,
        data: vec![0xff, 0xd8, 1, 2, 3, 0xff, 0xd9],
    }
}

fn journal() -> [(&'static str, Message); 2] {
    let mark = Mark {
        sequence: 11,
        episode: 4,
        action: MarkAction::Start,
        request: false,
        clock: CLOCK,
        time_ns: 123_456_789_012,
        instruction: "Würfel aufheben".into(),
    };
    let lost = Lost { sequence: 12, stream: StreamId(3), first: 78, last: 90, reason: LostReason::SpoolFull };
    [("mark", Message::Mark(mark)), ("lost", Message::Lost(lost))]
}

fn answers() -> [(&'static str, Message); 3] {
    let probe = Probe {
        role: ProbeRole::Reply,
        id: 6,
        clock: CLOCK,
        sent_ns: 100,
        received_ns: 200,
        replied_ns: 201,
        wall_ns: 1_764_028_800_000_000_000,
    };
    let goodbye = Goodbye { reason: GoodbyeReason::ServerStops, text: "come back".into() };
    let error = ErrorMessage {
        code: ErrorCode::SequenceGap,
        stream: StreamId(3),
        sequence: 78,
        text: "samples 78 to 90 are missing".into(),
    };
    [("probe", Message::Probe(probe)), ("goodbye", Message::Goodbye(goodbye)), ("error", Message::Error(error))]
}

/// One message of each kind, in the order of their codes.
pub fn one_of_each() -> Vec<(&'static str, Message)> {
    let throttle = Throttle {
        delay_ms: 250,
        limit: ThrottleLimit::OperatorBytes,
        text: "raise admission.operator_bytes_per_s".into(),
    };
    let mut all = greetings().to_vec();
    all.push(("declare", Message::Declare(declaration())));
    all.push(("batch", Message::Batch(batch())));
    all.push(("media", Message::Media(media())));
    all.push(("acknowledge", Message::Acknowledge(Acknowledge { positions: positions() })));
    all.push(("throttle", Message::Throttle(throttle)));
    all.extend(journal());
    all.extend(answers());
    all
}
