//! The log is full, or there is no place to write to: say so, stay up, recover.

use serde_json::{Value, json};
use tendon_protocol::control::{ErrorCode, GoodbyeReason, MarkAction, ThrottleLimit};
use tendon_protocol::id::SessionId;
use tendon_protocol::message::Message;

use super::scene::*;
use super::server::{Home, QUICK, Server, until};
use super::wire::{Incoming, Wire};

/// The smallest log that can be configured: 16 MiB.
const TINY: &str =
    "workers = 2\nflush_wait_s = 1\nmark_lag_s = 1\n[log]\nsegment_bytes = 4194304\nframes_bytes_max = 16777216\n";
/// Bytes of one picture; forty of them are more than the log holds.
const PICTURE_BYTES: usize = 500_000;
const PICTURES: u64 = 40;

/// A session whose open episode has filled the log.
async fn full(server: &Server) -> (SessionId, Wire) {
    let session = server.session().await;
    let mut wire = Wire::connect(server, session, 1).await;
    declare(&mut wire).await;
    wire.send(&Message::Declare(camera())).await;
    wire.send_durable(&mark(0, MarkAction::Start, START)).await;
    wire.send_durable(&samples(STATE, 0, 4)).await;
    wire.send_durable(&samples(ACTION, 0, 4)).await;
    for sequence in 0..PICTURES {
        wire.send(&picture(sequence, vec![sequence as u8; PICTURE_BYTES])).await;
    }
    while wire.throttles.is_empty() {
        assert!(!matches!(wire.next().await, Incoming::Closed), "closed before anybody was told");
    }
    (session, wire)
}

/// Waits until the server says that it is not ready: what was admitted last may still be on its way to the disk.
async fn not_ready(server: &Server) -> String {
    let ask = async || {
        let answer = server.request(reqwest::Method::GET, "/readyz", None, None).await;
        (answer.status == 503).then(|| answer.refused(503, "not_ready"))
    };
    until("not ready", ask).await
}

async fn ready_again(server: &Server) {
    until("ready again", async || {
        (server.request(reqwest::Method::GET, "/readyz", None, None).await.status == 200).then_some(())
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_full_log_names_its_holder_and_recovers_when_the_episode_is_discarded() {
    let mut home = Home::new(TINY);
    let mut server = home.start().await;
    let (session, mut wire) = full(&server).await;
    let throttle = wire.throttles[0].clone();
    assert_eq!(throttle.limit, ThrottleLimit::Storage);
    for word in ["full", &session.to_string(), "discard", "log.frames_bytes_max"] {
        assert!(throttle.text.contains(word), "{word}: {}", throttle.text);
    }
    let text = not_ready(&server).await;
    assert!(text.contains("full") && text.contains(&session.to_string()), "{text}");
    assert_eq!(
        server.request(reqwest::Method::GET, "/healthz", None, None).await.status,
        200,
        "a full disk is no reason to restart"
    );
    assert!(server.runs());
    let stored = wire.position(CAMERA);
    assert!(stored < PICTURES, "{stored}");
    // Another session is not acknowledged either, and is told.
    let other = server.session().await;
    let mut second = Wire::connect(&server, other, 2).await;
    second.send(&Message::Declare(state())).await;
    second.send(&samples(STATE, 0, 4)).await;

    // A mark of the producer would have to pass through the log; the operator's word need not.
    let asked = server.post(&format!("/sessions/{session}/episodes/discard"), json!({})).await;
    assert_eq!(asked.status, 202, "{asked:?}");
    server.episode_in(session, 0, "discarded").await;
    wire.wait_for(CAMERA, PICTURES).await;
    second.wait_for(STATE, 4).await;
    ready_again(&server).await;
    // The producer's own mark for it comes late, is refused, and harms nothing.
    wire.send(&mark(1, MarkAction::Discard, time_of(PICTURES))).await;
    wire.expect_error(ErrorCode::BadMark).await;
    wire.send(&samples(STATE, 4, PICTURES)).await;
    wire.send(&samples(ACTION, 4, PICTURES)).await;
    record(&mut wire, 2, 2, PICTURES, 11).await;
    wire.send_durable(&picture(PICTURES, jpeg(1, 64, 48))).await;
    wire.send(&lost(4, CAMERA, PICTURES + 1, PICTURES + 10)).await;
    wire.send_durable(&picture(PICTURES + 11, jpeg(1, 64, 48))).await;
    server.episode_in(session, 1, "stored").await;
    assert_frames(&server.frames(session, 1, "action").await, ACTION, PICTURES..PICTURES + 11);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_log_that_is_full_of_samples_outside_episodes_makes_room_by_itself() {
    let mut home = Home::new(&TINY.replace("mark_lag_s = 1\n", "mark_lag_s = 600\n"));
    let server = home.start().await;
    let session = server.session().await;
    let mut wire = Wire::connect(&server, session, 1).await;
    declare(&mut wire).await;
    wire.send(&Message::Declare(camera())).await;
    for sequence in 0..3 * PICTURES {
        wire.send(&picture(sequence, vec![sequence as u8; PICTURE_BYTES])).await;
    }
    wire.wait_for(CAMERA, 3 * PICTURES).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_full_log_recovers_when_its_holder_is_failed_by_rest() {
    let mut home = Home::new(TINY);
    let mut server = home.start().await;
    let (session, wire) = full(&server).await;
    let stored = wire.position(CAMERA);
    let other = server.session().await;
    let mut second = Wire::connect(&server, other, 2).await;
    second.send(&Message::Declare(state())).await;
    second.send(&samples(STATE, 0, 4)).await;

    let failed = server.post(&format!("/sessions/{session}/fail"), json!({ "reason": "the log is full" })).await.ok();
    assert_eq!(failed["state"], "failed");
    // States stopped long before the pictures did.
    let episode = server.episode_in(session, 0, "incomplete").await;
    assert!(
        stream_report(&episode, "observation.images.front")["samples"].as_u64().unwrap() >= stored,
        "what was acknowledged is there: {episode}"
    );
    assert_frames(&server.frames(session, 0, "observation.state").await, STATE, 0..4);
    second.wait_for(STATE, 4).await;
    ready_again(&server).await;
    assert!(server.runs());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_full_log_survives_a_restart_and_goes_on_with_a_larger_limit() {
    let mut home = Home::new(TINY);
    let server = home.start().await;
    let (session, wire) = full(&server).await;
    let stored = wire.position(CAMERA);
    not_ready(&server).await;
    server.kill().await;
    drop(wire);
    let server = home.start().await;
    let text = not_ready(&server).await;
    assert!(text.contains(&session.to_string()), "{text}");
    server.kill().await;
    home.configure(&TINY.replace("16777216", "67108864"));
    let server = home.start().await;
    ready_again(&server).await;
    let mut wire = Wire::connect(&server, session, 1).await;
    let resumed = wire.position(CAMERA);
    assert!(resumed >= stored, "{resumed} of {stored}");
    for sequence in resumed..PICTURES {
        wire.send(&picture(sequence, vec![sequence as u8; PICTURE_BYTES])).await;
    }
    wire.send(&samples(STATE, 4, PICTURES)).await;
    wire.send(&samples(ACTION, 4, PICTURES)).await;
    wire.send_durable(&mark(1, MarkAction::StopSuccess, time_of(PICTURES - 1))).await;
    let episode = server.episode_in(session, 0, "stored").await;
    assert_eq!(stream_report(&episode, "observation.images.front")["samples"].as_u64(), Some(PICTURES));
    assert_frames(&server.frames(session, 0, "action").await, ACTION, 0..PICTURES);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_full_log_does_not_hold_up_the_stop() {
    let mut home = Home::new(TINY);
    let server = home.start().await;
    let (session, mut wire) = full(&server).await;
    not_ready(&server).await;
    let begun = std::time::Instant::now();
    server.ask_to_stop();
    wire.expect_goodbye(GoodbyeReason::ServerStops).await;
    wire.expect_close().await;
    let stored = wire.position(CAMERA);
    assert!(server.terminate().await.success());
    assert!(begun.elapsed().as_secs() < 15, "it waited for its own time limit: {:?}", begun.elapsed());
    let server = home.start().await;
    assert!(Wire::connect(&server, session, 1).await.position(CAMERA) >= stored);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_log_of_finished_episodes_is_never_full() {
    let mut home = Home::new(TINY);
    let server = home.start().await;
    let session = server.session().await;
    let mut wire = Wire::connect(&server, session, 1).await;
    declare(&mut wire).await;
    wire.send(&Message::Declare(camera())).await;
    // Three times what the log holds.
    for episode in 0..10 {
        let (journal, first) = (episode * 2, episode * 10);
        wire.send(&mark_of(episode, journal, MarkAction::Start, time_of(first), "again")).await;
        for sequence in first..first + 10 {
            wire.send(&picture(sequence, vec![sequence as u8; PICTURE_BYTES])).await;
        }
        wire.send(&samples(STATE, first, first + 10)).await;
        wire.send(&samples(ACTION, first, first + 10)).await;
        wire.send_durable(&mark_of(episode, journal + 1, MarkAction::StopSuccess, time_of(first + 9), "")).await;
        server.episode_in(session, u32::try_from(episode).unwrap(), "stored").await;
    }
    let listed: Vec<Value> = server.episodes(session).await;
    assert!(
        listed.len() == 10 && listed.iter().all(|episode| stream_report(episode, "action")["samples"] == 10),
        "{listed:?}"
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_data_folder_that_cannot_be_written_stops_the_start_with_what_to_do() {
    let mut home = Home::new(QUICK);
    // A file in its place: also root cannot make a folder there.
    std::fs::write(home.data(), "in the way").unwrap();
    let (said, code) = home.start_in_vain().await;
    assert!(
        said.contains("data folder") && said.contains(home.data().to_str().unwrap()) && said.contains("--data"),
        "{said}"
    );
    assert_eq!(code, Some(2));
    assert!(!said.contains("panicked"), "{said}");
    std::fs::remove_file(home.data()).unwrap();
    // The folder is there, what belongs into it cannot be made.
    for part in ["log", "meta", "objects"] {
        std::fs::create_dir_all(home.data()).unwrap();
        std::fs::write(home.data().join(part), "in the way").unwrap();
        let (said, code) = home.start_in_vain().await;
        assert!(said.contains(part) && said.contains(';') && !said.contains("panicked"), "{part}: {said}");
        assert_eq!(code, Some(2), "{part}");
        std::fs::remove_dir_all(home.data()).unwrap();
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_second_server_on_the_same_folder_is_refused_and_the_first_goes_on() {
    let mut home = Home::new(QUICK);
    let server = home.start().await;
    let session = server.session().await;
    let mut other = Home::new(QUICK);
    std::os::unix::fs::symlink(home.data(), other.data()).unwrap();
    let (said, code) = other.start_in_vain().await;
    assert!(said.contains("in use") || said.contains("lock"), "{said}");
    assert!(code == Some(2) && !said.contains("panicked"), "{said}");
    let mut wire = Wire::connect(&server, session, 1).await;
    declare(&mut wire).await;
    wire.send_durable(&samples(STATE, 0, 4)).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_configuration_that_cannot_work_stops_the_start_with_every_reason() {
    let mut home = Home::new("flush_wait_s = 0\n[log]\nsegment_bytes = 1\n[admission]\nhandshakes_per_s = 0\n");
    let (said, code) = home.start_in_vain().await;
    for word in ["flush_wait_s", "segment_bytes", "handshakes_per_s", "server.toml"] {
        assert!(said.contains(word), "{word}: {said}");
    }
    assert_eq!(code, Some(2));
    home.configure("flush_wait = 3\n");
    let (said, _) = home.start_in_vain().await;
    assert!(said.contains("unknown field `flush_wait`") && said.contains("flush_wait_s"), "{said}");
}
