//! The console over a real socket, since its promise is about what a client has read.

use std::time::Duration;

use actix_codec::Framed;
use actix_http::ws::{Codec, Frame, Message};
use actix_web::HttpServer;
use futures::{SinkExt, StreamExt};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use super::*;

/// Far longer than anything here takes; only a hang reaches it.
const HANG: Duration = Duration::from_secs(30);

/// Shakes hands; gives the answer's head and the socket behind it.
async fn open(house: &House, role: Role) -> (String, Framed<TcpStream, Codec>, actix_web::dev::ServerHandle) {
    let state = house.state.clone();
    let server = HttpServer::new(move || {
        let state = state.clone();
        App::new().configure(|config| configure(config, state))
    });
    let server = server.workers(1).bind("127.0.0.1:0").unwrap();
    let address = server.addrs()[0];
    let server = server.run();
    let handle = server.handle();
    actix_web::rt::spawn(server);
    let mut socket = TcpStream::connect(address).await.unwrap();
    let request = format!(
        "GET /api/v1/console HTTP/1.1\r\nHost: {address}\r\nConnection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\n\
         Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Protocol: tendon, bearer.{}\r\n\r\n",
        house.tokens[&role]
    );
    socket.write_all(request.as_bytes()).await.unwrap();
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        head.push(tokio::time::timeout(HANG, socket.read_u8()).await.unwrap().unwrap());
    }
    let framed = Framed::new(socket, Codec::new().client_mode().max_size(1 << 20));
    (String::from_utf8(head).unwrap(), framed, handle)
}

async fn next(framed: &mut Framed<TcpStream, Codec>) -> Frame {
    tokio::time::timeout(HANG, framed.next()).await.expect("the console hangs").unwrap().unwrap()
}

#[actix_web::test]
async fn a_console_shows_live_sessions_and_goes_on_only_for_a_page_that_reads() {
    let house = House::new();
    let session = house.session(&json!({})).await;
    let (head, mut framed, server) = open(&house, Role::Viewer).await;
    assert!(head.starts_with("HTTP/1.1 101"), "{head}");
    assert!(head.to_lowercase().contains("sec-websocket-protocol: tendon\r\n"), "{head}");
    for _ in 0..2 {
        let Frame::Text(text) = next(&mut framed).await else { panic!("no snapshot") };
        let snapshot: Value = serde_json::from_slice(&text).unwrap();
        assert_eq!(snapshot["sessions"][0]["id"], json!(session));
        assert_eq!(snapshot["sessions"][0]["live"]["connected"], true);
        // The ping that must be answered before the next snapshot comes.
        let Frame::Ping(ping) = next(&mut framed).await else { panic!("no ping") };
        framed.send(Message::Pong(ping)).await.unwrap();
    }
    framed.send(Message::Text("hello".into())).await.unwrap();
    loop {
        match next(&mut framed).await {
            Frame::Close(reason) => {
                assert!(reason.unwrap().description.unwrap().contains("takes no messages"));
                break;
            }
            Frame::Text(_) | Frame::Ping(_) => {}
            other => panic!("{other:?}"),
        }
    }
    server.stop(false).await;
    assert_eq!(house.state.consoles.load(std::sync::atomic::Ordering::Relaxed), 0, "the seat is free again");
}

#[actix_web::test]
async fn a_console_of_a_robot_or_without_a_websocket_is_refused() {
    let house = House::new();
    let (head, _, server) = open(&house, Role::Robot).await;
    assert!(head.starts_with("HTTP/1.1 403"), "{head}");
    server.stop(false).await;
    house.get("/api/v1/console").await.refused(400, "no_websocket");
    assert_eq!(house.state.consoles.load(std::sync::atomic::Ordering::Relaxed), 0);
}

#[actix_web::test]
async fn a_console_ends_when_its_token_is_revoked() {
    let house = House::new();
    let (_, mut framed, server) = open(&house, Role::Viewer).await;
    let record =
        house.state.auth.accounts().list().unwrap().into_iter().find(|record| record.role == Role::Viewer).unwrap();
    house.state.auth.accounts().revoke(&record.id, 9).unwrap();
    let reason = loop {
        match next(&mut framed).await {
            Frame::Ping(ping) => framed.send(Message::Pong(ping)).await.unwrap(),
            Frame::Close(reason) => break reason.unwrap(),
            _ => {}
        }
    };
    assert!(reason.description.unwrap().contains("revoked"));
    server.stop(false).await;
}
