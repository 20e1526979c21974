//! Bytes that are no message, frames that are no frames: each is named, and nothing is lost by it.

use fastwebsockets::OpCode;
use tendon_protocol::control::{
    Acknowledge, ErrorCode, ErrorMessage, Goodbye, GoodbyeReason, Mark, MarkAction, Position, Throttle, ThrottleLimit,
    Welcome,
};
use tendon_protocol::envelope::{Envelope, Kind, PROTOCOL_VERSION, seal};
use tendon_protocol::id::SessionId;
use tendon_protocol::limit;
use tendon_protocol::message::Message;

use super::scene::*;
use super::server::{Home, QUICK, Server, until};
use super::wire::{Wire, frame, hello};

/// Something that no producer should send, as bytes on the socket, with the code and words of the answer.
struct Bad {
    name: &'static str,
    bytes: Vec<u8>,
    code: ErrorCode,
    says: &'static [&'static str],
}

fn bad(name: &'static str, message: Vec<u8>, says: &'static [&'static str]) -> Bad {
    Bad { name, bytes: frame(true, OpCode::Binary, &message), code: ErrorCode::BadMessage, says }
}

fn with(mut message: Vec<u8>, at: usize, byte: u8) -> Vec<u8> {
    message[at] = byte;
    message
}

/// A whole envelope around a payload, whose stated lengths are then changed. The checksum covers them.
fn stated(kind: Kind, payload: &[u8], stored: u32, original: u32) -> Vec<u8> {
    let mut message = seal(kind, payload);
    message[12..16].copy_from_slice(&stored.to_le_bytes());
    message[16..20].copy_from_slice(&original.to_le_bytes());
    let sum = tendon_protocol::envelope::crc32c(&message[..20]);
    let sum = tendon_protocol::envelope::crc32c_append(sum, &message[24..]);
    message[20..24].copy_from_slice(&sum.to_le_bytes());
    message
}

fn envelopes() -> Vec<Bad> {
    let good = samples(STATE, 4, 8).encode();
    let payload = samples(STATE, 4, 8).to_payload();
    let bomb = zstd::bulk::compress(&vec![0u8; 256 << 20], 3).unwrap();
    let long = u32::try_from(limit::BATCH_BYTES_MAX + 1).unwrap();
    vec![
        bad("another protocol version", with(good.clone(), 4, PROTOCOL_VERSION + 1), &["version 2", "one release"]),
        bad("unknown kind", with(good.clone(), 5, 99), &["kind 99"]),
        bad("not ours", with(good.clone(), 0, b'X'), &["TNDN", "Tendon client"]),
        bad("unknown flag", with(good.clone(), 6, 0x80), &["flags"]),
        bad("another layout", with(good.clone(), 8, 9), &["schema"]),
        bad("truncated envelope", good[..20].to_vec(), &["20 bytes", "32"]),
        bad("empty", Vec::new(), &["0 bytes"]),
        bad("truncated payload", good[..good.len() - 1].to_vec(), &["stored"]),
        bad("bad checksum", with(good.clone(), 40, good[40] ^ 1), &["checksum", "damaged"]),
        bad("stated length over the limit", stated(Kind::Batch, &payload, long, long), &["1048577", "1048576"]),
        bad(
            "stated original length over the limit",
            Envelope::write(Kind::Batch, &payload, 1 << 30, true),
            &["1073741824", "1048576"],
        ),
        bad("stated length over what came", stated(Kind::Batch, &payload, 5000, 5000), &["5000"]),
        bad("zstd bomb", Envelope::write(Kind::Batch, &bomb, 1 << 20, true), &["does not decompress", "1048576"]),
        bad("no zstd at all", Envelope::write(Kind::Batch, &payload, payload.len(), true), &["does not decompress"]),
        bad("archive that fails its check", seal(Kind::Batch, &[0xff; 200]), &["Batch"]),
        bad("archive with bytes in front", seal(Kind::Batch, &[&[0; 16], &payload[..]].concat()), &["Batch"]),
        bad("empty archive", seal(Kind::Mark, &[]), &["archive"]),
    ]
}

fn messages() -> Vec<Bad> {
    let position = Position { stream: STATE, next: 1 };
    let welcome = Welcome {
        session: SessionId::default(),
        epoch: 1,
        server_ns: 0,
        payload_bytes_max: 0,
        positions: vec![position],
    };
    let throttle = Throttle { delay_ms: 1, limit: ThrottleLimit::Storage, text: "slower".into() };
    let request = Mark {
        sequence: 0,
        episode: 1,
        action: MarkAction::Start,
        request: true,
        clock: CLOCK,
        time_ns: 0,
        instruction: String::new(),
    };
    let many = batch(STATE, 4, 4 + limit::SAMPLES_MAX as u64 + 1);
    let mut flagged = batch(STATE, 4, 8);
    flagged.flags[1] = 0x80;
    let mut last = batch(STATE, 4, 8);
    last.first = u64::MAX - 1;
    let text = "x".repeat(limit::INSTRUCTION_BYTES_MAX + 1);
    let mut reversed = Vec::new();
    if let Message::Lost(it) = lost(0, STATE, 9, 4) {
        reversed = Message::Lost(it).encode();
    }
    let told = Message::Error(ErrorMessage { code: ErrorCode::Storage, stream: STATE, sequence: 0, text: "no".into() });
    vec![
        bad("welcome", Message::Welcome(welcome).encode(), &["servers only"]),
        bad("acknowledge", Message::Acknowledge(Acknowledge { positions: vec![position] }).encode(), &["servers only"]),
        bad("throttle", Message::Throttle(throttle).encode(), &["servers only"]),
        bad("second hello", Message::Hello(hello(SessionId::default(), 1)).encode(), &["twice"]),
        bad("request for a mark", Message::Mark(request).encode(), &["request"]),
        bad("too many samples", Message::Batch(many).encode(), &["257", "256"]),
        bad("no samples", samples(STATE, 4, 4).encode(), &["0 samples"]),
        bad("unknown sample flag", Message::Batch(flagged).encode(), &["sample flags 128"]),
        bad("sequence past the end", Message::Batch(last).encode(), &["64 bits"]),
        bad("instruction too long", mark_of(1, 0, MarkAction::Start, START, &text).encode(), &["65537", "65536"]),
        bad("lost that runs backwards", reversed, &["sequence numbers from 9"]),
        bad("error", told.encode(), &["error"]),
    ]
}

fn frames() -> Vec<Bad> {
    let good = samples(STATE, 4, 8).encode();
    let bad_frame = |name, bytes, code, says| Bad { name, bytes, code, says };
    let mut fragments = frame(false, OpCode::Binary, &good[..40]);
    fragments.extend(frame(true, OpCode::Continuation, &good[40..]));
    // Only the head of it comes: the limit is checked before anything is reserved.
    let claims = [&[0x82, 0xff][..], &(1u64 << 40).to_be_bytes(), &[1, 2, 3, 4]].concat();
    vec![
        bad_frame(
            "text frame",
            frame(true, OpCode::Text, b"hello"),
            ErrorCode::BadMessage,
            &["one whole binary frame"],
        ),
        bad_frame("fragmented frame", fragments, ErrorCode::BadMessage, &["one whole binary frame"]),
        bad_frame(
            "continuation of nothing",
            frame(true, OpCode::Continuation, b"x"),
            ErrorCode::BadMessage,
            &["one whole binary frame"],
        ),
        bad_frame(
            "frame over the limit",
            frame(true, OpCode::Binary, &vec![7; 3 << 20]),
            ErrorCode::TooLarge,
            &["limit", "send smaller"],
        ),
        bad_frame("frame that claims a terabyte", claims, ErrorCode::TooLarge, &["limit", "send smaller"]),
    ]
}

/// A session whose first four states are acknowledged; then something bad; then the next four.
async fn endures(server: &Server, case: &Bad) {
    let session = server.session().await;
    let mut wire = Wire::connect(server, session, 1).await;
    declare(&mut wire).await;
    wire.send_durable(&samples(STATE, 0, 4)).await;
    // What is whole and in front of the bad bytes counts.
    wire.send(&samples(ACTION, 0, 2)).await;
    wire.send_raw(&case.bytes).await;
    let error = wire.expect_error(case.code).await;
    for word in case.says {
        assert!(error.text.contains(word), "{}: {word:?} is not in {:?}", case.name, error.text);
    }
    assert!(error.text.contains(';'), "{}: nothing says what to do in {:?}", case.name, error.text);
    assert!(!error.text.contains("0x0000"), "{}: an address of the server's memory in {:?}", case.name, error.text);
    assert!(error.text.len() < 1000, "{}: {} bytes of text", case.name, error.text.len());
    wire.expect_close().await;
    drop(wire);
    let mut wire = Wire::connect(server, session, 1).await;
    assert_eq!(wire.position(STATE), 4, "{}", case.name);
    let action = wire.position(ACTION);
    assert!(action == 2 || action == 0, "{}", case.name);
    if action == 0 {
        // The same batch as before: it may be there in the meantime.
        wire.send(&samples(ACTION, 0, 2)).await;
    }
    wire.send_durable(&samples(ACTION, 2, 4)).await;
    wire.send_durable(&samples(STATE, 4, 8)).await;
    wire.send_durable(&mark(0, MarkAction::Start, START)).await;
    let live = server.session_record(session).await;
    assert_eq!(live["live"]["connected"], true, "{}: {live}", case.name);
}

async fn endures_all(cases: Vec<Bad>) {
    let mut home = Home::new(QUICK);
    let mut server = home.start().await;
    let mut failed = Vec::new();
    for case in &cases {
        println!("{}", case.name);
        // Goes on behind a failure: one look shows all of them.
        let outcome = futures::FutureExt::catch_unwind(std::panic::AssertUnwindSafe(endures(&server, case))).await;
        if outcome.is_err() {
            failed.push(case.name);
        }
    }
    assert!(server.runs());
    assert_eq!(failed, Vec::<&str>::new());
    assert!(!server.log().contains("panicked"), "{}", server.log());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn bytes_that_are_no_envelope_or_archive_are_named_and_cost_nothing() {
    endures_all(envelopes()).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn messages_that_no_producer_may_send_are_named_and_cost_nothing() {
    endures_all(messages()).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn frames_that_are_no_whole_binary_frames_are_named_and_cost_nothing() {
    endures_all(frames()).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_comes_right_before_a_goodbye_is_kept() {
    let mut home = Home::new(QUICK);
    let server = home.start().await;
    let session = server.session().await;
    let mut wire = Wire::connect(&server, session, 1).await;
    declare(&mut wire).await;
    let mut together = Vec::new();
    let goodbye = Message::Goodbye(Goodbye { reason: GoodbyeReason::Done, text: String::new() });
    for message in [samples(STATE, 0, 4), samples(ACTION, 0, 4), goodbye] {
        together.extend(frame(true, OpCode::Binary, &message.encode()));
    }
    wire.send_raw(&together).await;
    wire.expect_close().await;
    until("both are durable", async || {
        let wire = Wire::connect(&server, session, 1).await;
        (wire.position(STATE) == 4 && wire.position(ACTION) == 4).then_some(())
    })
    .await;
}

/// The error must arrive also when the producer is still busy sending: a socket that is closed over
/// unread bytes is reset, and what was on its way back is gone.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_error_arrives_although_the_producer_goes_on_sending() {
    let mut home = Home::new(QUICK);
    let server = home.start().await;
    let session = server.session().await;
    for round in 0..5 {
        let mut wire = Wire::connect(&server, session, 1).await;
        declare(&mut wire).await;
        let mut together = frame(true, OpCode::Binary, &with(samples(STATE, 0, 4).encode(), 4, 77));
        for sequence in 0..200 {
            together.extend(frame(true, OpCode::Binary, &picture(sequence, vec![7; 20_000]).encode()));
        }
        wire.send_raw(&together).await;
        let error = wire.expect_error(ErrorCode::BadMessage).await;
        assert!(error.text.contains("version 77"), "round {round}: {}", error.text);
    }
}
