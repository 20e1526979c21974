//! The same door behind TLS.

use std::path::Path;

use tendon_agent::{Agent, Roots};
use tendon_protocol::control::MarkAction;
use tokio::process::Command;

use super::requests::agent_config;
use super::scene::*;
use super::server::{Home, QUICK};

/// A certificate for 127.0.0.1 that signs itself, and its key.
async fn certificate(folder: &Path) {
    let output = Command::new("openssl")
        .args(["req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes", "-days", "2"])
        .args([
            "-subj",
            "/CN=tendon-test",
            "-addext",
            "subjectAltName=IP:127.0.0.1",
            "-addext",
            "basicConstraints=critical,CA:FALSE",
        ])
        .args(["-keyout", "key.pem", "-out", "cert.pem"])
        .current_dir(folder)
        .output()
        .await
        .expect("the program openssl makes the certificate; install it (apt-get install openssl)");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
}

fn config(folder: &Path) -> String {
    let file = |name: &str| folder.join(name).display().to_string();
    format!("{QUICK}[tls]\ncert = \"{}\"\nkey = \"{}\"\n", file("cert.pem"), file("key.pem"))
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_agent_that_trusts_the_certificate_streams_over_tls_and_another_does_not() {
    let mut home = Home::new(QUICK);
    certificate(home.path()).await;
    home.configure(&config(home.path()));
    let server = home.start().await;
    assert!(server.url.starts_with("https://"), "{}", server.url);
    let session = server.session().await;
    let mut trusting = agent_config(&server, session);
    trusting.roots = Roots::Pem(home.path().join("cert.pem"));
    let agent = Agent::connect(trusting.clone()).await.unwrap();
    agent.declare(state()).await.unwrap();
    agent.declare(action()).await.unwrap();
    agent.mark(MarkAction::Start, 1, time_of(0), "in secret").await.unwrap();
    for sequence in 0..11 {
        agent.send_f32(STATE, time_of(sequence), &sample(STATE, sequence), 0).await.unwrap();
        agent.send_f32(ACTION, time_of(sequence), &sample(ACTION, sequence), 0).await.unwrap();
    }
    agent.mark(MarkAction::StopSuccess, 1, time_of(10), "").await.unwrap();
    agent.flush().await.unwrap();
    server.episode_in(session, 0, "stored").await;
    assert_frames(&server.frames(session, 0, "action").await, ACTION, 0..11);
    agent.close().await.unwrap();

    let other = tempfile::tempdir().unwrap();
    certificate(other.path()).await;
    let mut doubting = trusting;
    doubting.roots = Roots::Pem(other.path().join("cert.pem"));
    doubting.connect_wait = Some(std::time::Duration::from_secs(2));
    let error = Agent::connect(doubting).await.expect_err("another certificate").to_string();
    assert!(error.contains("certificate"), "{error}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_certificate_that_cannot_be_used_stops_the_start_with_its_file() {
    let mut home = Home::new(QUICK);
    certificate(home.path()).await;
    home.configure(&config(home.path()));
    let cert = home.path().join("cert.pem");
    std::fs::write(&cert, "no certificate").unwrap();
    let (said, code) = home.start_in_vain().await;
    assert!(said.contains(cert.to_str().unwrap()) && code == Some(2), "{code:?} {said}");
    std::fs::remove_file(&cert).unwrap();
    let (said, _) = home.start_in_vain().await;
    assert!(said.contains(cert.to_str().unwrap()) && said.contains("PEM"), "{said}");
}
