//! Who is let in: tokens, roles, paths, and hellos that lead nowhere.

use serde_json::json;
use tendon_protocol::control::{ErrorCode, GoodbyeReason};
use tendon_protocol::id::SessionId;
use tendon_protocol::message::Message;

use super::scene::*;
use super::server::{Home, QUICK, Server, token_beside_server, until};
use super::wire::{INGEST, Incoming, Refusal, Wire, handshake_headers, hello};

async fn refused(server: &Server, target: &str, headers: &[String]) -> Refusal {
    match Wire::shake(server.address, target, headers).await {
        Err(refusal) => refusal,
        Ok(_) => panic!("{target} with {headers:?} is let in"),
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_handshake_without_a_good_token_is_refused_with_what_to_do() {
    let mut home = Home::new(QUICK);
    let server = home.start().await;
    let with = |line: &str| -> Vec<String> {
        std::iter::once(line.to_owned()).chain(handshake_headers("").into_iter().skip(1)).collect()
    };
    let without: Vec<String> = handshake_headers("").into_iter().skip(1).collect();
    let text = refused(&server, INGEST, &without).await.text(401, "token_missing");
    assert!(text.contains("tendon token create"), "{text}");
    let mut wrong = server.token.clone();
    let last = if wrong.ends_with('0') { '1' } else { '0' };
    wrong.pop();
    wrong.push(last);
    let refusal = refused(&server, INGEST, &handshake_headers(&wrong)).await;
    assert!(refusal.status == 401 || refusal.status == 400, "{refusal:?}");
    assert!(refusal.body["error"]["message"].as_str().unwrap().contains("tendon token create"), "{refusal:?}");
    refused(&server, INGEST, &handshake_headers("not-a-token")).await.text(400, "token_malformed");
    refused(&server, INGEST, &with("Authorization: Basic YWRhOmFkYQ==")).await.text(400, "token_malformed");
    let text = refused(&server, &format!("{INGEST}?token={}", server.token), &handshake_headers(&server.token))
        .await
        .text(400, "token_in_url");
    assert!(text.contains("revoke that token"), "{text}");
    let text = refused(&server, "/api/v1/elsewhere", &handshake_headers(&server.token)).await.text(404, "not_found");
    assert!(text.contains(INGEST), "{text}");
    let foreign: Vec<String> =
        handshake_headers(&server.token).into_iter().chain(["Origin: https://evil.example".to_owned()]).collect();
    let text = refused(&server, INGEST, &foreign).await.text(403, "origin_refused");
    assert!(text.contains("allowed_origins"), "{text}");
    let old: Vec<String> =
        handshake_headers(&server.token).into_iter().map(|line| line.replace("Version: 13", "Version: 8")).collect();
    refused(&server, INGEST, &old).await.text(400, "bad_handshake");
    // Nothing of a token is in the log.
    let secret = server.token.rsplit(['_', '.']).next().unwrap();
    assert!(secret.len() > 8 && !server.log().contains(secret));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_token_is_taken_from_the_subprotocol_too() {
    let mut home = Home::new(QUICK);
    let server = home.start().await;
    let session = server.session().await;
    let mut headers: Vec<String> = handshake_headers("").into_iter().skip(1).collect();
    headers.push(format!("Sec-WebSocket-Protocol: tendon, bearer.{}", server.token));
    let mut wire = Wire::shake(server.address, INGEST, &headers).await.unwrap();
    wire.send(&Message::Hello(hello(session, 1))).await;
    assert!(matches!(wire.next().await, Incoming::Message(message) if matches!(*message, Message::Welcome(_))));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn each_role_may_do_what_it_should_and_no_more() {
    let mut home = Home::new(QUICK);
    let server = home.start().await;
    let session = server.session().await;
    let (viewer, robot) = (server.token_for("viewer", "eve").await, server.token_for("robot", "arm-1").await);
    let text = refused(&server, INGEST, &handshake_headers(&viewer)).await.text(403, "right_missing");
    assert!(text.contains("viewer") && text.contains("Stream"), "{text}");
    let post = reqwest::Method::POST;
    for token in [&viewer, &robot] {
        let answer = server.request(post.clone(), "/api/v1/sessions", Some(token), Some(&new_session("kitchen"))).await;
        assert!(answer.refused(403, "right_missing").contains("use a token of a role"), "{answer:?}");
        let answer = server
            .request(post.clone(), "/api/v1/tokens", Some(token), Some(&json!({ "name": "x", "role": "admin" })))
            .await;
        answer.refused(403, "right_missing");
    }
    let mut wire = Wire::shake(server.address, INGEST, &handshake_headers(&robot)).await.unwrap();
    wire.send(&Message::Hello(hello(session, 1))).await;
    assert!(matches!(wire.next().await, Incoming::Message(message) if matches!(*message, Message::Welcome(_))));
    let unknown = server.request(reqwest::Method::GET, "/api/v1/sessions", None, None).await;
    assert!(unknown.refused(401, "token_missing").contains("Authorization"), "{unknown:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_robots_token_feeds_sessions_of_its_own_robot_only() {
    let mut home = Home::new(QUICK);
    let server = home.start().await;
    let session = server.session().await;
    let other = server.token_for("robot", "arm-2").await;
    let mut wire = Wire::shake(server.address, INGEST, &handshake_headers(&other)).await.unwrap();
    wire.send(&Message::Hello(hello(session, 2))).await;
    let error = wire.expect_error(ErrorCode::Forbidden).await;
    assert!(error.text.contains("arm-2"), "{}", error.text);
    // The refused one has not taken the session over.
    Wire::connect(&server, session, 1).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_revoked_token_loses_its_connection_within_seconds_and_what_it_sent_stays() {
    let mut home = Home::new(QUICK);
    let server = home.start().await;
    let session = server.session().await;
    let made = server.post("/tokens", json!({ "name": "arm-1", "role": "robot" })).await.ok();
    let headers = handshake_headers(made["token"].as_str().unwrap());
    let mut wire = Wire::shake(server.address, INGEST, &headers).await.unwrap();
    wire.send(&Message::Hello(hello(session, 1))).await;
    declare(&mut wire).await;
    assert!(matches!(wire.next().await, Incoming::Message(message) if matches!(*message, Message::Welcome(_))));
    wire.send_durable(&samples(STATE, 0, 4)).await;
    let path = format!("/api/v1/tokens/{}", made["id"].as_str().unwrap());
    server.request(reqwest::Method::DELETE, &path, Some(&server.token), None).await.ok();
    wire.expect_close().await;
    refused(&server, INGEST, &headers).await.text(401, "token_refused");
    assert_eq!(Wire::connect(&server, session, 1).await.position(STATE), 4);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_token_made_beside_a_running_server_is_good_at_once() {
    let mut home = Home::new(QUICK);
    let server = home.start().await;
    let token = token_beside_server(&home.data(), "operator").await;
    let listed = server.request(reqwest::Method::GET, "/api/v1/sessions", Some(&token), None).await;
    listed.ok();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_session_that_is_not_there_or_has_ended_is_refused_by_name() {
    let mut home = Home::new(QUICK);
    let server = home.start().await;
    let error = Wire::greet(&server, hello(SessionId::from_u128(99), 1)).await.err().expect("is refused");
    assert_eq!(error.code, ErrorCode::UnknownSession);
    assert!(error.text.contains("POST /api/v1/sessions"), "{}", error.text);

    let session = server.session().await;
    let mut wire = Wire::connect(&server, session, 1).await;
    declare(&mut wire).await;
    record(&mut wire, 1, 0, 0, 11).await;
    server.episode_in(session, 0, "stored").await;
    server.post(&format!("/sessions/{session}/complete"), json!({})).await.ok();
    let goodbye = wire.expect_goodbye(GoodbyeReason::SessionEnded).await;
    assert!(goodbye.text.contains("create a new one"), "{}", goodbye.text);
    // Before and after the session's actor is gone.
    for _ in 0..2 {
        let error = Wire::greet(&server, hello(session, 1)).await.err().expect("is refused");
        assert_eq!(error.code, ErrorCode::SessionEnded);
        assert!(error.text.contains("create a new session"), "{}", error.text);
        until("actor is gone", async || server.session_record(session).await["live"].is_null().then_some(())).await;
    }
    assert_frames(&server.frames(session, 0, "observation.state").await, STATE, 0..11);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_first_message_that_is_no_hello_is_refused() {
    let mut home = Home::new(QUICK);
    let server = home.start().await;
    let mut wire = Wire::open(&server).await;
    wire.send(&samples(STATE, 0, 4)).await;
    let error = wire.expect_error(ErrorCode::BadMessage).await;
    assert!(error.text.contains("must be a hello"), "{}", error.text);
    wire.expect_close().await;
    let mut wire = Wire::open(&server).await;
    wire.send_frame(true, fastwebsockets::OpCode::Text, b"hello").await;
    let error = wire.expect_error(ErrorCode::BadMessage).await;
    assert!(error.text.contains("binary frame"), "{}", error.text);
    wire.expect_close().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_sent_right_behind_the_handshake_is_not_lost() {
    let mut home = Home::new(QUICK);
    let server = home.start().await;
    let session = server.session().await;
    let mut wire = Wire::open(&server).await;
    let mut together = Vec::new();
    let declarations = [state(), action()].map(Message::Declare);
    for message in std::iter::once(Message::Hello(hello(session, 1))).chain(declarations).chain([samples(STATE, 0, 4)])
    {
        together.extend(super::wire::frame(true, fastwebsockets::OpCode::Binary, &message.encode()));
    }
    wire.send_raw(&together).await;
    assert!(matches!(wire.next().await, Incoming::Message(message) if matches!(*message, Message::Welcome(_))));
    wire.wait_for(STATE, 4).await;
}
