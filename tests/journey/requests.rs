//! Start and stop by REST are requests; the producer makes the marks.

use std::time::Duration;

use serde_json::json;
use tendon_agent::{Agent, AgentConfig, Backoff, Clock};
use tendon_protocol::control::MarkAction;
use tendon_protocol::id::{ProducerId, SessionId};

use super::scene::*;
use super::server::{Home, QUICK, Server};
use super::wire::Wire;

/// An agent that loses no time.
pub fn agent_config(server: &Server, session: SessionId) -> AgentConfig {
    let mut config = AgentConfig::new(
        server.url.as_str(),
        server.token.as_str(),
        session,
        ProducerId::from_u128(1),
        Clock::boot().unwrap(),
    );
    config.linger = Duration::from_millis(20);
    config.backoff = Backoff { min: Duration::from_millis(20), max: Duration::from_millis(200) };
    config.auto_marks = true;
    config
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn start_and_stop_by_rest_become_marks_of_the_producer() {
    let mut home = Home::new(QUICK);
    let server = home.start().await;
    let session = server.session().await;
    let agent = Agent::connect(agent_config(&server, session)).await.unwrap();
    agent.declare(state()).await.unwrap();
    agent.declare(action()).await.unwrap();
    let path = format!("/sessions/{session}/episodes");
    let asked = server.post(&format!("{path}/start"), json!({ "instruction": "stack the cups" })).await;
    assert_eq!(asked.status, 202, "a request, not yet a fact");
    server.episode_in(session, 0, "recording").await;
    let mut sent = Vec::new();
    for _ in 0..5 {
        let now = agent.clock().now_ns();
        agent.send_f32(STATE, now, &[1.0, 2.0], 0).await.unwrap();
        agent.send_f32(ACTION, now, &[3.0, 4.0], 0).await.unwrap();
        sent.push(now);
    }
    agent.flush().await.unwrap();
    assert!(
        server.post(&format!("{path}/start"), json!({})).await.refused(409, "wrong_state").contains("stop or discard")
    );
    assert_eq!(server.post(&format!("{path}/stop"), json!({ "outcome": "failure" })).await.status, 202);
    server.episode_in(session, 0, "stopped").await;
    // Past the stop mark, so that nobody waits for the deadline.
    let now = agent.clock().now_ns();
    agent.send_f32(STATE, now, &[1.0, 2.0], 0).await.unwrap();
    agent.send_f32(ACTION, now, &[3.0, 4.0], 0).await.unwrap();
    let episode = server.episode_in(session, 0, "stored").await;
    assert_eq!((&episode["instruction"], &episode["outcome"]), (&json!("stack the cups"), &json!("failure")));
    assert!(episode["start_ns"].as_i64().unwrap() <= sent[0] && sent[4] <= episode["stop_ns"].as_i64().unwrap());
    assert_eq!(stream_report(&episode, "action")["samples"], 5);
    agent.close().await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_request_reaches_the_producer_and_changes_nothing_by_itself() {
    let mut home = Home::new(QUICK);
    let server = home.start().await;
    let session = server.session().await;
    let path = format!("/sessions/{session}/episodes");
    let nobody = server.post(&format!("{path}/start"), json!({})).await.refused(409, "no_producer");
    assert!(nobody.contains("connect the robot"), "{nobody}");

    let mut wire = Wire::connect(&server, session, 1).await;
    declare(&mut wire).await;
    for stop in ["stop", "discard", "pause", "resume"] {
        let body = if stop == "stop" { json!({ "outcome": "success" }) } else { json!({}) };
        let refused = server.post(&format!("{path}/{stop}"), body).await.refused(409, "wrong_state");
        assert!(refused.contains("start one first"), "{refused}");
    }
    server.post(&format!("{path}/start"), json!({ "instruction": "stack" })).await.ok();
    let request = wire.expect_request().await;
    assert_eq!((request.action, request.instruction.as_str()), (MarkAction::Start, "stack"));
    wire.settle().await;
    assert!(server.episodes(session).await.is_empty(), "a request is no fact");
    wire.send_durable(&mark(0, MarkAction::Start, START)).await;
    server.episode_in(session, 0, "recording").await;
    for (word, action) in
        [("pause", MarkAction::Pause), ("resume", MarkAction::Resume), ("discard", MarkAction::Discard)]
    {
        server.post(&format!("{path}/{word}"), json!({})).await.ok();
        assert_eq!(wire.expect_request().await.action, action);
    }
    server.post(&format!("{path}/stop"), json!({ "outcome": "failure" })).await.ok();
    assert_eq!(wire.expect_request().await.action, MarkAction::StopFailure);
    assert_eq!(server.episode_in(session, 0, "recording").await["stop_ns"], json!(null));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_session_with_an_open_episode_is_not_completed_but_may_fail() {
    let mut home = Home::new(QUICK);
    let server = home.start().await;
    let session = server.session().await;
    let mut wire = Wire::connect(&server, session, 1).await;
    declare(&mut wire).await;
    wire.send(&mark(0, MarkAction::Start, time_of(0))).await;
    wire.send(&samples(ACTION, 0, 11)).await;
    wire.send_durable(&samples(STATE, 0, 11)).await;
    wire.wait_for(ACTION, 11).await;
    server.episode_in(session, 0, "recording").await;
    let refused = server.post(&format!("/sessions/{session}/complete"), json!({})).await.refused(409, "wrong_state");
    assert!(refused.contains("stop or discard"), "{refused}");
    let failed = server.post(&format!("/sessions/{session}/fail"), json!({ "reason": "gripper broke" })).await.ok();
    assert_eq!((&failed["state"], &failed["failure"]), (&json!("failed"), &json!("gripper broke")));
    let episode = server.episode_in(session, 0, "stored").await;
    assert_eq!(stream_report(&episode, "observation.state")["samples"], 11, "what was acknowledged is there");
    assert!(
        server
            .post(&format!("/sessions/{session}/fail"), json!({ "reason": "again" }))
            .await
            .refused(409, "wrong_state")
            .contains("already")
    );
}
