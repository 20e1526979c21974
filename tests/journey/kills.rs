//! The process is killed, connections overtake one another, a log is lost.

use serde_json::{Value, json};
use tendon_agent::Agent;
use tendon_protocol::control::{ErrorCode, GoodbyeReason, MarkAction, Position};
use tendon_protocol::id::StreamId;
use tendon_protocol::message::Message;

use super::requests::agent_config;
use super::scene::*;
use super::server::{Home, QUICK, until};
use super::wire::{Wire, hello};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_killed_server_tells_where_to_resume_and_removes_what_comes_twice() {
    let mut home = Home::new(QUICK);
    let server = home.start().await;
    let session = server.session().await;
    let mut wire = Wire::connect(&server, session, 1).await;
    declare(&mut wire).await;
    wire.send(&mark(0, MarkAction::Start, time_of(0))).await;
    wire.send(&samples(STATE, 0, 8)).await;
    wire.send(&samples(ACTION, 0, 8)).await;
    wire.wait_for(STATE, 8).await;
    wire.wait_for(ACTION, 8).await;
    wire.wait_for(StreamId::JOURNAL, 1).await;
    // On its way when the server dies: nobody knows whether it is there.
    wire.send(&samples(STATE, 8, 16)).await;
    server.kill().await;
    drop(wire);

    let server = home.start().await;
    let live = server.session_record(session).await;
    assert_eq!(live["live"]["connected"], false, "the actor is back before the producer: {live}");
    let seen = [(STATE, 8), (ACTION, 8), (StreamId::JOURNAL, 1)].map(|(stream, next)| Position { stream, next });
    let mut greeting = hello(session, 1);
    greeting.positions = seen.to_vec();
    let mut wire = Wire::greet(&server, greeting).await.unwrap();
    assert_eq!(wire.welcome.as_ref().unwrap().epoch, 2);
    for position in seen {
        assert!(
            wire.position(position.stream) >= position.next,
            "{position:?} was acknowledged, the welcome says {:?}",
            wire.acknowledged
        );
    }
    let resumed = wire.position(STATE);
    assert!(matches!(resumed, 8 | 16), "a batch is there as a whole or not at all: {resumed}");
    // A producer that forgot everything sends it all again, in other batches.
    declare(&mut wire).await;
    wire.send(&mark(0, MarkAction::Start, time_of(0))).await;
    for (from, to) in [(0, 4), (4, 8), (8, 16)] {
        wire.send(&samples(STATE, from, to)).await;
    }
    wire.send(&samples(ACTION, 0, 8)).await;
    wire.send(&samples(ACTION, 8, 21)).await;
    wire.send(&samples(STATE, 16, 21)).await;
    wire.send_durable(&mark(1, MarkAction::StopSuccess, time_of(20))).await;
    let episode = server.episode_in(session, 0, "stored").await;
    for feature in ["observation.state", "action"] {
        assert_eq!(stream_report(&episode, feature)["samples"], 21);
    }
    assert_frames(&server.frames(session, 0, "observation.state").await, STATE, 0..21);
    assert_frames(&server.frames(session, 0, "action").await, ACTION, 0..21);
    let ended = server.post(&format!("/sessions/{session}/complete"), json!({})).await.ok();
    // The start mark, 8 actions, and the states that were there.
    assert_eq!(ended["duplicates_removed"].as_u64(), Some(1 + 8 + resumed));
    assert_eq!(server.exported(session, "v3.0").await.episode(0).rows, 21);
}

/// Samples without their declaration are worth nothing: once, a kill right behind the first
/// acknowledgement left samples in the log of a stream that the session's record did not know, and
/// the producer, which had forgotten them, was asked to send them again.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_acknowledged_has_a_declaration_that_survives_a_kill() {
    let mut home = Home::new(QUICK);
    let mut server = home.start().await;
    for producer in 1..6 {
        let session = server.session().await;
        let mut wire = Wire::connect(&server, session, producer).await;
        declare(&mut wire).await;
        wire.send_durable(&samples(ACTION, 0, 4)).await;
        server.kill().await;
        server = home.start().await;
        let mut wire = Wire::connect(&server, session, producer).await;
        assert_eq!(wire.position(ACTION), 4, "round {producer}: {:?}", wire.acknowledged);
        wire.send_durable(&samples(ACTION, 4, 8)).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_agent_comes_through_two_kills_without_a_loss() {
    let mut home = Home::new(QUICK);
    let server = home.start().await;
    let session = server.session().await;
    let agent = Agent::connect(agent_config(&server, session)).await.unwrap();
    agent.declare(state()).await.unwrap();
    agent.declare(action()).await.unwrap();
    agent.mark(MarkAction::Start, 1, time_of(0), "survive").await.unwrap();
    let mut server = Some(server);
    for sequence in 0..300 {
        agent.send_f32(STATE, time_of(sequence), &sample(STATE, sequence), 0).await.unwrap();
        agent.send_f32(ACTION, time_of(sequence), &sample(ACTION, sequence), 0).await.unwrap();
        if sequence == 90 || sequence == 190 {
            // What comes after this is still on its way when the server dies.
            agent.flush().await.unwrap();
        }
        if sequence == 100 || sequence == 200 {
            let running = server.take().unwrap();
            running.kill().await;
            server = Some(home.start().await);
        }
    }
    agent.mark(MarkAction::StopSuccess, 1, time_of(299), "").await.unwrap();
    agent.flush().await.unwrap();
    let server = server.unwrap();
    let episode = server.episode_in(session, 0, "stored").await;
    assert_eq!(stream_report(&episode, "action")["lost"], 0);
    assert_frames(&server.frames(session, 0, "observation.state").await, STATE, 0..300);
    assert_frames(&server.frames(session, 0, "action").await, ACTION, 0..300);
    assert!(agent.stats().connections >= 3, "{:?}", agent.stats());
    agent.close().await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_kill_between_stop_mark_and_storage_ends_in_a_stored_episode() {
    let mut home = Home::new(QUICK);
    let server = home.start().await;
    let session = server.session().await;
    let mut wire = Wire::connect(&server, session, 1).await;
    declare(&mut wire).await;
    record(&mut wire, 1, 0, 0, 50).await;
    server.kill().await;
    let server = home.start().await;
    // No producer is there: the log alone completes it.
    server.episode_in(session, 0, "stored").await;
    assert_frames(&server.frames(session, 0, "observation.state").await, STATE, 0..50);
    assert_eq!(server.episodes(session).await.len(), 1);
    assert_eq!(server.exported(session, "v3.0").await.episode(0).rows, 50);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_newer_connection_of_the_same_producer_fences_the_older() {
    let mut home = Home::new(QUICK);
    let server = home.start().await;
    let session = server.session().await;
    let mut old = Wire::connect(&server, session, 1).await;
    declare(&mut old).await;
    old.send_durable(&mark(0, MarkAction::Start, START)).await;
    old.send_durable(&samples(STATE, 0, 4)).await;
    let mut new = Wire::connect(&server, session, 1).await;
    assert_eq!((new.welcome.as_ref().unwrap().epoch, new.position(STATE)), (2, 4));
    // A late message of the old one, with bytes that must not become sample 4.
    let mut forged = batch(STATE, 4, 8);
    forged.values.fill(0);
    old.send(&Message::Batch(forged)).await;
    old.send(&mark(1, MarkAction::Discard, time_of(3))).await;
    let goodbye = old.expect_goodbye(GoodbyeReason::Fenced).await;
    assert!(goodbye.text.contains("newer connection"), "{}", goodbye.text);
    old.expect_close().await;
    drop(old);
    new.send(&samples(ACTION, 0, 11)).await;
    new.send_durable(&samples(STATE, 4, 11)).await;
    new.send_durable(&mark(1, MarkAction::StopSuccess, time_of(10))).await;
    server.episode_in(session, 0, "stored").await;
    assert_frames(&server.frames(session, 0, "observation.state").await, STATE, 0..11);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_second_producer_is_refused_and_the_first_goes_on() {
    let mut home = Home::new(QUICK);
    let server = home.start().await;
    let session = server.session().await;
    let mut first = Wire::connect(&server, session, 1).await;
    declare(&mut first).await;
    first.send_durable(&samples(STATE, 0, 4)).await;
    let error = Wire::greet(&server, hello(session, 2)).await.err().expect("is refused");
    assert_eq!(error.code, ErrorCode::SecondProducer);
    assert!(error.text.contains("one producer per session"), "{}", error.text);
    first.send_durable(&samples(STATE, 4, 8)).await;
    // Also when the first one is away: a session has one producer for life.
    drop(first);
    let error = Wire::greet(&server, hello(session, 2)).await.err().expect("is refused");
    assert_eq!(error.code, ErrorCode::SecondProducer);
    assert_eq!(Wire::connect(&server, session, 1).await.position(STATE), 8);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn acknowledged_samples_that_are_gone_are_cried_out_and_nothing_goes_on() {
    let mut home = Home::new(QUICK);
    let server = home.start().await;
    let session = server.session().await;
    let mut wire = Wire::connect(&server, session, 1).await;
    declare(&mut wire).await;
    wire.send_durable(&samples(STATE, 0, 10)).await;
    assert!(server.terminate().await.success());
    std::fs::remove_dir_all(home.data().join("log")).unwrap();

    let server = home.start().await;
    let mut greeting = hello(session, 1);
    greeting.positions = vec![Position { stream: STATE, next: 10 }];
    for _ in 0..2 {
        let error = Wire::greet(&server, greeting.clone()).await.err().expect("is refused");
        assert_eq!((error.code, error.stream, error.sequence), (ErrorCode::AcknowledgedLost, STATE, 0));
        assert!(error.text.contains("LOST") && error.text.contains("keep the data folder"), "{}", error.text);
    }
    assert!(server.log().contains("ACKNOWLEDGED SAMPLES ARE LOST"), "{}", server.log());
    let live = server.session_record(session).await;
    assert!(live["live"]["last_error"].as_str().is_some_and(|text| text.contains("LOST")), "{live}");
    let metrics = server.request(reqwest::Method::GET, "/metrics", Some(&server.token), None).await;
    assert!(metrics.body.as_str().unwrap().contains("AcknowledgedLost"), "{}", metrics.body);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_declared_loss_and_its_position_survive_a_kill() {
    let mut home = Home::new(QUICK);
    let server = home.start().await;
    let session = server.session().await;
    let mut wire = Wire::connect(&server, session, 1).await;
    declare(&mut wire).await;
    wire.send_durable(&mark(0, MarkAction::Start, START)).await;
    wire.send_durable(&samples(STATE, 0, 4)).await;
    wire.send_durable(&lost(1, STATE, 4, 6)).await;
    wire.wait_for(STATE, 7).await;
    server.kill().await;
    let server = home.start().await;
    let mut wire = Wire::connect(&server, session, 1).await;
    assert_eq!((wire.position(STATE), wire.position(StreamId::JOURNAL)), (7, 2));
    wire.send(&samples(ACTION, 0, 11)).await;
    wire.send_durable(&samples(STATE, 7, 11)).await;
    wire.send_durable(&mark(2, MarkAction::StopSuccess, time_of(10))).await;
    let episode = server.episode_in(session, 0, "stored").await;
    let report = stream_report(&episode, "observation.state");
    assert_eq!((report["samples"].as_u64(), report["lost"].as_u64()), (Some(8), Some(3)));
    assert_eq!(report["lost_reasons"], json!({ "other": 3 }));
    assert_eq!(server.session_record(session).await["lost"], json!({ "1": 3 }));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_export_that_a_kill_cut_off_is_failed_and_can_be_started_again() {
    let mut home = Home::new(QUICK);
    let server = home.start().await;
    let session = server.session().await;
    let mut wire = Wire::connect(&server, session, 1).await;
    declare(&mut wire).await;
    record(&mut wire, 1, 0, 0, 200).await;
    server.episode_in(session, 0, "stored").await;
    let started = server.post("/exports", json!({ "session": session })).await.ok();
    server.kill().await;
    let server = home.start().await;
    let id = started["id"].as_str().unwrap();
    let record: Value = until("export is over", async || {
        let record = server.get(&format!("/exports/{id}")).await.ok();
        matches!(record["state"].as_str(), Some("done" | "failed")).then_some(record)
    })
    .await;
    if record["state"] == "failed" {
        assert!(record["error"].as_str().unwrap().contains("export again"), "{record}");
        assert!(
            server.get(&format!("/exports/{id}/files")).await.refused(409, "wrong_state").contains("start a new one")
        );
    }
    assert_eq!(server.exported(session, "v3.0").await.episode(0).rows, 200);
}
