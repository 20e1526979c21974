//! A producer that can send any bytes, also those that no client should send.

use std::collections::BTreeMap;
use std::net::SocketAddr;

use fastwebsockets::{OpCode, Role, WebSocketError, WebSocketRead, after_handshake_split};
use serde_json::Value;
use tendon_protocol::control::{
    ClockKind, ErrorCode, ErrorMessage, Goodbye, GoodbyeReason, Hello, Mark, Position, Throttle, Welcome,
};
use tendon_protocol::id::{ClockId, ProducerId, SessionId, StreamId};
use tendon_protocol::message::Message;
use tokio::io::{AsyncReadExt, AsyncWriteExt, Chain};
use tokio::net::TcpStream;
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};
use tokio::time::timeout;

use super::server::{DEADLINE, Server};

/// Longest head of an answer to a handshake.
const HEAD_BYTES_MAX: usize = 16 << 10;
/// Path of the record lane.
pub const INGEST: &str = "/api/v1/ingest";

/// An answer to a handshake that is no 101.
#[derive(Debug)]
pub struct Refusal {
    pub status: u16,
    pub head: String,
    pub body: Value,
}

impl Refusal {
    /// The text of a refusal with this status and code.
    #[track_caller]
    pub fn text(&self, status: u16, code: &str) -> String {
        assert_eq!((self.status, self.body["error"]["code"].as_str()), (status, Some(code)), "{self:?}");
        self.body["error"]["message"].as_str().unwrap().to_owned()
    }
}

/// The lines of a handshake, apart from the request line.
pub fn handshake_headers(token: &str) -> Vec<String> {
    let mut headers = vec![format!("Authorization: Bearer {token}")];
    headers.extend(["Host: tendon", "Upgrade: websocket", "Connection: Upgrade"].map(str::to_owned));
    headers.extend(["Sec-WebSocket-Version: 13", "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ=="].map(str::to_owned));
    headers
}

/// What comes from the server.
#[derive(Debug)]
pub enum Incoming {
    Message(Box<Message>),
    Pong(Vec<u8>),
    /// A close frame, or the socket's end.
    Closed,
}

/// One connection.
pub struct Wire {
    read: WebSocketRead<Chain<std::io::Cursor<Vec<u8>>, OwnedReadHalf>>,
    write: OwnedWriteHalf,
    /// Highest positions that the server acknowledged, the welcome's included.
    pub acknowledged: BTreeMap<StreamId, u64>,
    pub throttles: Vec<Throttle>,
    pub welcome: Option<Welcome>,
}

/// A hello with what most tests need.
pub fn hello(session: SessionId, producer: u128) -> Hello {
    Hello {
        session,
        producer: ProducerId::from_u128(producer),
        clock: ClockId::from_u128(7),
        clock_kind: ClockKind::Boot,
        time_ns: super::scene::START,
        wall_ns: 1_700_000_000_000_000_000,
        positions: Vec::new(),
    }
}

impl Wire {
    /// Shakes hands with these header lines.
    pub async fn shake(address: SocketAddr, target: &str, headers: &[String]) -> Result<Self, Refusal> {
        timeout(DEADLINE, Self::shake_unhurried(address, target, headers))
            .await
            .expect("the server answers a handshake")
    }

    async fn shake_unhurried(address: SocketAddr, target: &str, headers: &[String]) -> Result<Self, Refusal> {
        let mut tcp = TcpStream::connect(address).await.unwrap();
        tcp.set_nodelay(true).unwrap();
        let request = format!("GET {target} HTTP/1.1\r\n{}\r\n\r\n", headers.join("\r\n"));
        tcp.write_all(request.as_bytes()).await.unwrap();
        let (mut got, mut head_bytes) = (Vec::new(), None);
        while head_bytes.is_none() {
            assert!(
                got.len() < HEAD_BYTES_MAX && tcp.read_buf(&mut got).await.unwrap() > 0,
                "{}",
                String::from_utf8_lossy(&got)
            );
            head_bytes = got.windows(4).position(|window| window == b"\r\n\r\n").map(|at| at + 4);
        }
        let rest = got.split_off(head_bytes.unwrap());
        let head = String::from_utf8(got).unwrap();
        let status: u16 = head.split(' ').nth(1).unwrap().parse().unwrap();
        if status != 101 {
            let mut body = rest;
            tcp.read_to_end(&mut body).await.unwrap();
            return Err(Refusal { status, head, body: serde_json::from_slice(&body).unwrap_or_default() });
        }
        let (read, write) = tcp.into_split();
        let read = std::io::Cursor::new(rest).chain(read);
        let (mut read, _) = after_handshake_split(read, tokio::io::sink(), Role::Client);
        read.set_auto_close(false);
        read.set_auto_pong(false);
        Ok(Self { read, write, acknowledged: BTreeMap::new(), throttles: Vec::new(), welcome: None })
    }

    /// Shakes hands as an admin.
    pub async fn open(server: &Server) -> Self {
        Self::shake(server.address, INGEST, &handshake_headers(&server.token)).await.unwrap()
    }

    /// Shakes hands and says hello.
    pub async fn connect(server: &Server, session: SessionId, producer: u128) -> Self {
        Self::greet(server, hello(session, producer)).await.unwrap_or_else(|error| panic!("hello refused: {error:?}"))
    }

    /// Shakes hands and says this hello.
    pub async fn greet(server: &Server, hello: Hello) -> Result<Self, ErrorMessage> {
        let mut wire = Self::open(server).await;
        wire.send(&Message::Hello(hello)).await;
        match wire.next().await {
            Incoming::Message(message) => match *message {
                Message::Welcome(welcome) => {
                    wire.note(&welcome.positions);
                    wire.welcome = Some(welcome);
                    Ok(wire)
                }
                Message::Error(error) => Err(error),
                other => panic!("{other:?} in place of a welcome"),
            },
            other => panic!("{other:?} in place of a welcome"),
        }
    }

    /// Sends bytes as they are.
    pub async fn send_raw(&mut self, bytes: &[u8]) {
        // The server may have hung up already; what it said is still to be read.
        let _ = self.write.write_all(bytes).await;
    }

    /// Sends one WebSocket frame.
    pub async fn send_frame(&mut self, fin: bool, opcode: OpCode, payload: &[u8]) {
        self.send_raw(&frame(fin, opcode, payload)).await;
    }

    /// Sends bytes as one binary frame.
    pub async fn send_bytes(&mut self, message: &[u8]) {
        self.send_frame(true, OpCode::Binary, message).await;
    }

    /// Sends a message.
    pub async fn send(&mut self, message: &Message) {
        self.send_bytes(&message.encode()).await;
    }

    /// Sends a message that must not be answered with an error, and waits until it is durable.
    pub async fn send_durable(&mut self, message: &Message) {
        self.send(message).await;
        match message {
            Message::Batch(batch) => self.wait_for(batch.stream, batch.first + batch.count() as u64).await,
            Message::Media(media) => self.wait_for(media.stream, media.sequence + 1).await,
            Message::Mark(mark) => self.wait_for(StreamId::JOURNAL, mark.sequence + 1).await,
            Message::Lost(lost) => self.wait_for(StreamId::JOURNAL, lost.sequence + 1).await,
            other => panic!("{other:?} is never acknowledged"),
        }
    }

    fn note(&mut self, positions: &[Position]) {
        for position in positions {
            let known = self.acknowledged.entry(position.stream).or_default();
            assert!(
                position.next >= *known,
                "stream {} was acknowledged to {known}, now to {}",
                position.stream,
                position.next
            );
            *known = position.next;
        }
    }

    /// First sequence of a stream that is not acknowledged.
    pub fn position(&self, stream: StreamId) -> u64 {
        self.acknowledged.get(&stream).copied().unwrap_or(0)
    }

    /// The next frame, `None` at the socket's end.
    async fn read_frame(&mut self) -> Option<(OpCode, Vec<u8>)> {
        let mut never = |_| async { Ok::<(), WebSocketError>(()) };
        let read = timeout(DEADLINE, self.read.read_frame(&mut never)).await;
        let frame = read.unwrap_or_else(|_| panic!("nothing came for {DEADLINE:?}")).ok()?;
        Some((frame.opcode, frame.payload.to_vec()))
    }

    /// The next message; acknowledgements and throttles are noted on the way, probes left out.
    pub async fn next(&mut self) -> Incoming {
        loop {
            let Some((opcode, payload)) = self.read_frame().await else {
                return Incoming::Closed;
            };
            match opcode {
                OpCode::Close => return Incoming::Closed,
                OpCode::Pong => return Incoming::Pong(payload),
                OpCode::Binary => {}
                other => panic!("{other:?} frame from the server"),
            }
            match Message::decode(&payload).unwrap() {
                Message::Acknowledge(acknowledge) => {
                    self.note(&acknowledge.positions);
                    return Incoming::Message(Box::new(Message::Acknowledge(acknowledge)));
                }
                Message::Throttle(throttle) => {
                    self.throttles.push(throttle.clone());
                    return Incoming::Message(Box::new(Message::Throttle(throttle)));
                }
                Message::Probe(_) => {}
                message => return Incoming::Message(Box::new(message)),
            }
        }
    }

    /// Reads until a stream is acknowledged up to `next`.
    pub async fn wait_for(&mut self, stream: StreamId, next: u64) {
        while self.position(stream) < next {
            match self.next().await {
                Incoming::Message(message) => match *message {
                    Message::Acknowledge(_) | Message::Throttle(_) => {}
                    other => panic!("{other:?} before stream {stream} was acknowledged to {next}"),
                },
                Incoming::Pong(_) => {}
                Incoming::Closed => {
                    panic!("closed before stream {stream} was acknowledged to {next}: {:?}", self.acknowledged)
                }
            }
        }
    }

    /// Reads until an error comes, which must have this code.
    pub async fn expect_error(&mut self, code: ErrorCode) -> ErrorMessage {
        loop {
            match self.next().await {
                Incoming::Message(message) => match *message {
                    Message::Acknowledge(_) | Message::Throttle(_) => {}
                    Message::Error(error) => {
                        assert_eq!(error.code, code, "{}", error.text);
                        return error;
                    }
                    other => panic!("{other:?} in place of error {code:?}"),
                },
                Incoming::Pong(_) => {}
                Incoming::Closed => panic!("closed without error {code:?}"),
            }
        }
    }

    /// Reads until a goodbye comes, which must have this reason.
    pub async fn expect_goodbye(&mut self, reason: GoodbyeReason) -> Goodbye {
        loop {
            match self.next().await {
                Incoming::Message(message) => match *message {
                    Message::Acknowledge(_) | Message::Throttle(_) => {}
                    Message::Goodbye(goodbye) => {
                        assert_eq!(goodbye.reason, reason, "{}", goodbye.text);
                        return goodbye;
                    }
                    other => panic!("{other:?} in place of a goodbye"),
                },
                Incoming::Pong(_) => {}
                Incoming::Closed => panic!("closed without goodbye {reason:?}"),
            }
        }
    }

    /// Reads until the server asks for a mark.
    pub async fn expect_request(&mut self) -> Mark {
        loop {
            match self.next().await {
                Incoming::Message(message) => match *message {
                    Message::Acknowledge(_) | Message::Throttle(_) => {}
                    Message::Mark(mark) if mark.request => return mark,
                    other => panic!("{other:?} in place of a request"),
                },
                Incoming::Pong(_) => {}
                Incoming::Closed => panic!("closed without a request"),
            }
        }
    }

    /// Reads until the connection is closed.
    pub async fn expect_close(&mut self) {
        while !matches!(self.next().await, Incoming::Closed) {}
    }

    /// Waits until the server has read everything that was sent so far.
    pub async fn settle(&mut self) {
        self.send_frame(true, OpCode::Ping, b"settle").await;
        loop {
            match self.next().await {
                Incoming::Pong(payload) => {
                    assert_eq!(payload, b"settle");
                    return;
                }
                Incoming::Message(message) => {
                    assert!(matches!(*message, Message::Acknowledge(_) | Message::Throttle(_)), "{message:?}");
                }
                Incoming::Closed => panic!("closed"),
            }
        }
    }
}

/// The bytes of a masked frame.
pub fn frame(fin: bool, opcode: OpCode, payload: &[u8]) -> Vec<u8> {
    const MASK: [u8; 4] = [0x5a, 0x01, 0xc3, 0x9e];
    let code = match opcode {
        OpCode::Continuation => 0,
        OpCode::Text => 1,
        OpCode::Binary => 2,
        OpCode::Close => 8,
        OpCode::Ping => 9,
        OpCode::Pong => 10,
    };
    let mut bytes = vec![u8::from(fin) << 7 | code];
    match payload.len() {
        length @ 0..126 => bytes.push(0x80 | length as u8),
        length @ 126..65_536 => {
            bytes.push(0x80 | 126);
            bytes.extend_from_slice(&(length as u16).to_be_bytes());
        }
        length => {
            bytes.push(0x80 | 127);
            bytes.extend_from_slice(&(length as u64).to_be_bytes());
        }
    }
    bytes.extend_from_slice(&MASK);
    bytes.extend(payload.iter().zip(MASK.iter().cycle()).map(|(byte, mask)| byte ^ mask));
    bytes
}
