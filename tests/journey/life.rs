//! How the server is, how it stops, and how it comes back.

use reqwest::Method;
use serde_json::json;
use tendon_agent::Agent;
use tendon_protocol::control::{GoodbyeReason, MarkAction};
use tendon_protocol::id::StreamId;

use super::requests::agent_config;
use super::scene::*;
use super::server::{Home, QUICK, until};
use super::wire::Wire;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn health_and_readiness_are_open_and_metrics_need_a_token() {
    let mut home = Home::new(QUICK);
    let server = home.start().await;
    let health = server.request(Method::GET, "/healthz", None, None).await;
    assert_eq!(health.status, 200);
    assert_eq!(health.headers["cache-control"], "no-store");
    assert_eq!(server.request(Method::GET, "/readyz", None, None).await.ok()["status"], "ready");
    assert!(server.request(Method::GET, "/metrics", None, None).await.refused(401, "token_missing").contains("Bearer"));
    let session = server.session().await;
    let mut wire = Wire::connect(&server, session, 1).await;
    declare(&mut wire).await;
    wire.send_durable(&samples(STATE, 0, 4)).await;
    until("counted", async || {
        let metrics = server.request(Method::GET, "/metrics", Some(&server.token), None).await;
        metrics.body.as_str().unwrap().contains("tendon_frames_stored_total 4").then_some(())
    })
    .await;
    let metrics = server.request(Method::GET, "/metrics", Some(&server.token), None).await;
    for name in ["tendon_connections 1", "tendon_log_bytes_max", "tendon_ack_latency_seconds"] {
        assert!(metrics.body.as_str().unwrap().contains(name), "{name}: {}", metrics.body);
    }
    let unknown = server.request(Method::GET, "/nowhere", None, None).await;
    assert!(unknown.refused(404, "unknown_path").contains("/api/v1"));
    assert!(
        server.request(Method::PUT, "/healthz", None, None).await.refused(405, "method_not_allowed").contains("GET")
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_server_that_is_told_to_stop_says_goodbye_and_keeps_everything() {
    let mut home = Home::new(QUICK);
    let mut server = home.start().await;
    let session = server.session().await;
    let mut wire = Wire::connect(&server, session, 1).await;
    declare(&mut wire).await;
    wire.send_durable(&mark(0, MarkAction::Start, START)).await;
    wire.send(&samples(STATE, 0, 8)).await;
    wire.send(&samples(ACTION, 0, 8)).await;
    wire.settle().await;
    server.ask_to_stop();
    let goodbye = wire.expect_goodbye(GoodbyeReason::ServerStops).await;
    assert!(goodbye.text.contains("connect again"), "{}", goodbye.text);
    wire.expect_close().await;
    let seen = (wire.position(STATE), wire.position(ACTION));
    assert_eq!(seen, (8, 8), "what was taken before the stop is acknowledged");
    let status = server.wait().await;
    assert!(status.success(), "{status}");
    assert!(server.log().contains("stopped"), "{}", server.log());
    drop(server);

    let server = home.start().await;
    let mut wire = Wire::connect(&server, session, 1).await;
    assert_eq!((wire.position(STATE), wire.position(ACTION), wire.position(StreamId::JOURNAL)), (8, 8, 1));
    wire.send(&samples(STATE, 8, 11)).await;
    wire.send(&samples(ACTION, 8, 11)).await;
    wire.send_durable(&mark(1, MarkAction::StopSuccess, time_of(10))).await;
    server.episode_in(session, 0, "stored").await;
    assert_frames(&server.frames(session, 0, "observation.state").await, STATE, 0..11);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_server_with_an_idle_producer_stops_at_once() {
    let mut home = Home::new(QUICK);
    let server = home.start().await;
    let session = server.session().await;
    let wire = Wire::connect(&server, session, 1).await;
    // A connection that never says hello must not hold the process either.
    let silent = Wire::open(&server).await;
    let begun = std::time::Instant::now();
    assert!(server.terminate().await.success());
    assert!(begun.elapsed().as_secs() < 15, "it waited for its own time limit: {:?}", begun.elapsed());
    drop((wire, silent));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_agent_goes_on_by_itself_after_a_planned_restart() {
    let mut home = Home::new(QUICK);
    let server = home.start().await;
    let session = server.session().await;
    let agent = Agent::connect(agent_config(&server, session)).await.unwrap();
    agent.declare(state()).await.unwrap();
    agent.declare(action()).await.unwrap();
    agent.mark(MarkAction::Start, 1, time_of(0), "go on").await.unwrap();
    for sequence in 0..40 {
        if sequence == 20 {
            break;
        }
        agent.send_f32(STATE, time_of(sequence), &sample(STATE, sequence), 0).await.unwrap();
        agent.send_f32(ACTION, time_of(sequence), &sample(ACTION, sequence), 0).await.unwrap();
    }
    agent.flush().await.unwrap();
    assert!(server.terminate().await.success());
    for sequence in 20..40 {
        agent.send_f32(STATE, time_of(sequence), &sample(STATE, sequence), 0).await.unwrap();
        agent.send_f32(ACTION, time_of(sequence), &sample(ACTION, sequence), 0).await.unwrap();
    }
    let server = home.start().await;
    agent.mark(MarkAction::StopSuccess, 1, time_of(39), "").await.unwrap();
    agent.flush().await.unwrap();
    server.episode_in(session, 0, "stored").await;
    assert_frames(&server.frames(session, 0, "action").await, ACTION, 0..40);
    assert_eq!(server.session_record(session).await["duplicates_removed"], json!(0));
    agent.close().await.unwrap();
}
