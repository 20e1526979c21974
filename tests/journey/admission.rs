//! Too much at once: the record lane is delayed and told why, handshakes are refused and told until when.

use tendon_protocol::control::{MarkAction, ThrottleLimit};
use tendon_protocol::message::Message;

use super::scene::*;
use super::server::{Home, QUICK};
use super::wire::{INGEST, Wire, handshake_headers};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_producer_over_its_limit_is_slowed_and_told_and_loses_nothing() {
    for (key, limit) in [
        ("connection_messages_per_s = 40\nconnection_messages_burst = 10", ThrottleLimit::ConnectionMessages),
        ("operator_messages_per_s = 40\noperator_messages_burst = 10", ThrottleLimit::OperatorMessages),
    ] {
        let mut home = Home::new(&format!("{QUICK}[admission]\n{key}\n"));
        let server = home.start().await;
        let session = server.session().await;
        let mut wire = Wire::connect(&server, session, 1).await;
        declare(&mut wire).await;
        wire.send(&mark(0, MarkAction::Start, START)).await;
        // Faster than allowed by far, as a spool is replayed.
        for sequence in 0..50 {
            wire.send(&samples(STATE, sequence, sequence + 1)).await;
            wire.send(&samples(ACTION, sequence, sequence + 1)).await;
        }
        wire.send_durable(&mark(1, MarkAction::StopSuccess, time_of(49))).await;
        wire.wait_for(STATE, 50).await;
        wire.wait_for(ACTION, 50).await;
        let told = wire.throttles.first().expect("is told");
        assert_eq!(told.limit, limit, "{told:?}");
        assert!(
            told.delay_ms >= 100
                && told.text.contains(key.split(' ').next().unwrap())
                && told.text.contains("nothing is lost"),
            "{told:?}"
        );
        server.episode_in(session, 0, "stored").await;
        assert_frames(&server.frames(session, 0, "action").await, ACTION, 0..50);
        let metrics = server.request(reqwest::Method::GET, "/metrics", Some(&server.token), None).await;
        assert!(metrics.body.as_str().unwrap().contains("tendon_throttled_ms_total"), "{}", metrics.body);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn bytes_count_after_decompression() {
    let mut home =
        Home::new(&format!("{QUICK}[admission]\nconnection_bytes_per_s = 2000000\nconnection_bytes_burst = 1114112\n"));
    let server = home.start().await;
    let session = server.session().await;
    let mut wire = Wire::connect(&server, session, 1).await;
    let wide = tendon_protocol::stream::StreamDeclaration { shape: vec![2048], names: vec![], ..state() };
    wire.send(&Message::Declare(wide)).await;
    let mut sealer = tendon_protocol::envelope::Sealer::new();
    let mut sent = 0;
    for first in (0..640).step_by(64) {
        let still = tendon_protocol::batch::Batch {
            width: 2048,
            values: vec![0; 64 * 2048 * 4],
            ..batch(STATE, first, first + 64)
        };
        let bytes = Message::Batch(still).encode_with(&mut sealer);
        sent += bytes.len();
        wire.send_bytes(&bytes).await;
    }
    assert!(sent < 20_000, "they are small on the wire: {sent}");
    wire.wait_for(STATE, 640).await;
    let told = wire.throttles.first().expect("is told");
    assert_eq!(told.limit, ThrottleLimit::ConnectionBytes);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn too_many_handshakes_are_refused_with_a_time_to_come_back() {
    let mut home = Home::new(&format!("{QUICK}[admission]\nhandshakes_per_s = 1\nhandshakes_burst = 2\n"));
    let server = home.start().await;
    let session = server.session().await;
    let mut first = Wire::connect(&server, session, 1).await;
    declare(&mut first).await;
    let mut refusals = Vec::new();
    for _ in 0..5 {
        refusals.extend(Wire::shake(server.address, INGEST, &handshake_headers(&server.token)).await.err());
    }
    let refusal = refusals.first().expect("one of five is refused");
    let text = refusal.text(429, "too_many_handshakes");
    assert!(text.contains("try again in"), "{text}");
    let header = refusal.head.lines().find_map(|line| line.strip_prefix("Retry-After: ")).expect("a time to come back");
    assert!((1..=2).contains(&header.trim().parse::<u64>().unwrap()), "{header}");
    // Who is in stays in.
    first.send_durable(&samples(STATE, 0, 4)).await;
}
