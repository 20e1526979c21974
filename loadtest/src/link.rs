//! A light client: one connection that sends messages made elsewhere, and counts what comes back.
//!
//! All links of a run live on one thread, so that they share counters without locks. Reading a frame
//! must never be cancelled, so each link has a reader task of its own.

use std::cell::{Cell, RefCell};
use std::collections::{BTreeMap, VecDeque};
use std::rc::Rc;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use fastwebsockets::{
    Frame, OpCode, Payload, Role, WebSocketError, WebSocketRead, WebSocketWrite, after_handshake_split,
};
use tendon_protocol::control::{ClockKind, Goodbye, GoodbyeReason, Hello, Probe, ProbeRole};
use tendon_protocol::id::{ClockId, ProducerId, SessionId, StreamId};
use tendon_protocol::message::Message;
use tokio::io::{AsyncReadExt, AsyncWriteExt, BufReader, BufWriter};
use tokio::net::TcpStream;
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};
use tokio::sync::{Mutex, Notify};
use tokio::task::JoinHandle;

use crate::latencies::Latencies;

/// Gathered before a system call: about thirty batches of 16 samples.
const WRITE_BYTES: usize = 64 << 10;
/// Acknowledgements are short.
const READ_BYTES: usize = 4 << 10;
/// Longest answer to a handshake.
const HEAD_BYTES_MAX: usize = 8 << 10;
/// Longest wait for a handshake and a welcome.
const CONNECT_WAIT: Duration = Duration::from_secs(30);
/// All zero: the server still applies it to every byte, this side need not.
const MASK: [u8; 4] = [0; 4];

type Writer = WebSocketWrite<BufWriter<OwnedWriteHalf>>;
type Reader = WebSocketRead<BufReader<OwnedReadHalf>>;

/// What all links of a run count together.
#[derive(Default)]
pub struct Totals {
    /// Samples of numbers that were sent.
    pub frames_sent: Cell<u64>,
    /// Samples of numbers that were acknowledged.
    pub frames_stored: Cell<u64>,
    /// Pictures that were sent.
    pub pictures_sent: Cell<u64>,
    /// Pictures that were acknowledged.
    pub pictures_stored: Cell<u64>,
    /// Bytes of messages with numbers, WebSocket framing included.
    pub frame_bytes: Cell<u64>,
    /// Milliseconds of delay that servers announced.
    pub throttled_ms: Cell<u64>,
    /// What went wrong first.
    pub error: RefCell<Option<String>>,
    /// From a message's write to its acknowledgement, while it is set.
    pub latencies: RefCell<Option<Latencies>>,
}

impl Totals {
    /// Keeps the first error.
    pub fn fail(&self, error: String) {
        self.error.borrow_mut().get_or_insert(error);
    }
}

fn add(cell: &Cell<u64>, count: u64) {
    cell.set(cell.get() + count);
}

#[derive(Default)]
struct Lane {
    sent: u64,
    stored: u64,
    waiting: VecDeque<(u64, Instant)>,
}

struct Shared {
    totals: Rc<Totals>,
    lanes: RefCell<BTreeMap<StreamId, Lane>>,
    moved: Notify,
    closing: Cell<bool>,
    failed: Cell<bool>,
    clock: ClockId,
    since: Instant,
}

impl Shared {
    fn fail(&self, error: String) {
        self.failed.set(true);
        self.moved.notify_waiters();
        if !self.closing.get() {
            self.totals.fail(error);
        }
    }

    fn now_ns(&self) -> i64 {
        i64::try_from(self.since.elapsed().as_nanos()).unwrap_or(i64::MAX)
    }

    /// Streams with numbers have batches, others one sample a message.
    fn stored(&self, stream: StreamId, next: u64) {
        let mut lanes = self.lanes.borrow_mut();
        let lane = lanes.entry(stream).or_default();
        if next > lane.sent {
            drop(lanes);
            return self.fail(format!("the server acknowledges stream {stream} below {next}, which was never sent"));
        }
        let news = next.saturating_sub(lane.stored);
        lane.stored = lane.stored.max(next);
        add(if stream == STATE { &self.totals.frames_stored } else { &self.totals.pictures_stored }, news);
        let now = Instant::now();
        let mut latencies = self.totals.latencies.borrow_mut();
        while lane.waiting.front().is_some_and(|(end, _)| *end <= next) {
            if let Some((_, written)) = lane.waiting.pop_front()
                && let Some(latencies) = latencies.as_mut()
            {
                latencies.record(u64::try_from((now - written).as_nanos()).unwrap_or(u64::MAX));
            }
        }
    }
}

/// The stream of numbers that every load session has.
pub const STATE: StreamId = StreamId(1);

/// One connection.
pub struct Link {
    writer: Rc<Mutex<Writer>>,
    shared: Rc<Shared>,
    reader: JoinHandle<()>,
}

/// Who connects, and where.
pub struct Target<'a> {
    /// Server, such as `http://127.0.0.1:7400`.
    pub url: &'a str,
    /// API token.
    pub token: &'a str,
    /// The session to feed.
    pub session: SessionId,
    /// The same over all connections of one producer.
    pub producer: ProducerId,
}

impl Link {
    /// Connects and says hello. Must run in a `LocalSet`.
    pub async fn connect(target: &Target<'_>, totals: Rc<Totals>) -> Result<Self> {
        let connecting = tokio::time::timeout(CONNECT_WAIT, Self::greet(target, totals));
        connecting.await.with_context(|| format!("no welcome within {} s", CONNECT_WAIT.as_secs()))?
    }

    async fn greet(target: &Target<'_>, totals: Rc<Totals>) -> Result<Self> {
        let stream = handshake(target.url, target.token).await?;
        let (read, write) = stream.into_split();
        let read = BufReader::with_capacity(READ_BYTES, read);
        let (mut read, mut write) =
            after_handshake_split(read, BufWriter::with_capacity(WRITE_BYTES, write), Role::Client);
        write.set_auto_apply_mask(false);
        // Small writes are gathered by the buffer, so there is nothing to scatter.
        write.set_writev(false);
        read.set_auto_close(false);
        read.set_auto_pong(false);
        let clock = ClockId(target.producer.0);
        let hello = Hello {
            session: target.session,
            producer: target.producer,
            clock,
            clock_kind: ClockKind::Boot,
            time_ns: 0,
            wall_ns: 0,
            positions: Vec::new(),
        };
        put(&mut write, &Message::Hello(hello).encode()).await?;
        write.flush().await?;
        match read_message(&mut read).await? {
            Message::Welcome(welcome) if welcome.positions.iter().all(|position| position.next == 0) => {}
            other => bail!("instead of a welcome to a new session came {other:?}"),
        }
        let shared = Rc::new(Shared {
            totals,
            lanes: RefCell::default(),
            moved: Notify::new(),
            closing: Cell::new(false),
            failed: Cell::new(false),
            clock,
            since: Instant::now(),
        });
        let writer = Rc::new(Mutex::new(write));
        let reader = tokio::task::spawn_local(listen(read, Rc::clone(&shared), Rc::clone(&writer)));
        Ok(Self { writer, shared, reader })
    }

    /// The clock that samples are stamped with, and how long it runs in nanoseconds.
    pub fn clock(&self) -> (ClockId, i64) {
        (self.shared.clock, self.shared.now_ns())
    }

    /// Samples of a stream that were sent.
    pub fn sent(&self, stream: StreamId) -> u64 {
        self.shared.lanes.borrow().get(&stream).map_or(0, |lane| lane.sent)
    }

    /// Samples of a stream that were sent and not acknowledged.
    pub fn waiting(&self, stream: StreamId) -> u64 {
        self.shared.lanes.borrow().get(&stream).map_or(0, |lane| lane.sent - lane.stored)
    }

    /// Whether nothing more can be sent.
    pub fn has_failed(&self) -> bool {
        self.shared.failed.get()
    }

    /// Waits until something is acknowledged, or the connection fails, or a while is over.
    pub async fn moved(&self) {
        let mut moved = std::pin::pin!(self.shared.moved.notified());
        moved.as_mut().enable();
        if !self.has_failed() {
            // Bounded, so that a link that fails in between is noticed.
            let _ = tokio::time::timeout(Duration::from_millis(100), moved).await;
        }
    }

    /// Sends a message that is no sample.
    pub async fn tell(&self, message: &Message) -> Result<()> {
        let mut writer = self.writer.lock().await;
        put(&mut writer, &message.encode()).await?;
        writer.flush().await?;
        Ok(())
    }

    /// Queues a message with the next `count` samples of a stream. [`Self::flush`] sends what is queued.
    pub async fn send(&self, stream: StreamId, count: u64, message: &[u8]) -> Result<()> {
        {
            let mut lanes = self.shared.lanes.borrow_mut();
            let lane = lanes.entry(stream).or_default();
            lane.sent += count;
            lane.waiting.push_back((lane.sent, Instant::now()));
        }
        let totals = &self.shared.totals;
        if stream == STATE {
            add(&totals.frames_sent, count);
            // Two bytes, a length of 0, 2 or 8 bytes, the mask.
            let head = match message.len() {
                0..126 => 6,
                126..65536 => 8,
                _ => 14,
            };
            add(&totals.frame_bytes, message.len() as u64 + head);
        } else {
            add(&totals.pictures_sent, count);
        }
        put(&mut *self.writer.lock().await, message).await
    }

    /// Sends what is queued.
    pub async fn flush(&self) -> Result<()> {
        Ok(self.writer.lock().await.flush().await?)
    }

    /// Says goodbye, or breaks off.
    pub async fn close(self) {
        self.shared.closing.set(true);
        let goodbye = Message::Goodbye(Goodbye { reason: GoodbyeReason::Done, text: String::new() });
        let _ = self.tell(&goodbye).await;
        let _ = tokio::time::timeout(Duration::from_secs(5), self.reader).await;
    }
}

async fn put(writer: &mut Writer, message: &[u8]) -> Result<()> {
    let frame = Frame::new(true, OpCode::Binary, Some(MASK), Payload::Borrowed(message));
    Ok(writer.write_frame(frame).await?)
}

async fn read_frame(read: &mut Reader) -> Result<Frame<'_>, WebSocketError> {
    read.read_frame(&mut |_| async { Ok::<(), WebSocketError>(()) }).await
}

async fn read_message(read: &mut Reader) -> Result<Message> {
    let frame = read_frame(read).await?;
    match frame.opcode {
        OpCode::Binary => Ok(Message::decode(&frame.payload)?),
        other => bail!("a {other:?} frame came instead of a message"),
    }
}

async fn listen(mut read: Reader, shared: Rc<Shared>, writer: Rc<Mutex<Writer>>) {
    loop {
        let frame = match read_frame(&mut read).await {
            Ok(frame) => frame,
            Err(error) => return shared.fail(format!("connection lost: {error}")),
        };
        match frame.opcode {
            OpCode::Binary => {}
            OpCode::Close => {
                return shared.fail(format!(
                    "the server closed: {}",
                    String::from_utf8_lossy(frame.payload.get(2..).unwrap_or_default())
                ));
            }
            OpCode::Ping | OpCode::Pong | OpCode::Text | OpCode::Continuation => continue,
        }
        match Message::decode(&frame.payload) {
            Ok(Message::Acknowledge(acknowledge)) => {
                for position in acknowledge.positions {
                    shared.stored(position.stream, position.next);
                }
                shared.moved.notify_waiters();
            }
            Ok(Message::Throttle(throttle)) => add(&shared.totals.throttled_ms, u64::from(throttle.delay_ms)),
            Ok(Message::Probe(probe)) => {
                let now_ns = shared.now_ns();
                let reply = Probe {
                    role: ProbeRole::Reply,
                    received_ns: now_ns,
                    replied_ns: now_ns,
                    wall_ns: 0,
                    clock: shared.clock,
                    ..probe
                };
                let writer = Rc::clone(&writer);
                // A task of its own: acknowledgements must not wait behind a full socket.
                tokio::task::spawn_local(async move {
                    let mut writer = writer.lock().await;
                    if put(&mut writer, &Message::Probe(reply).encode()).await.is_ok() {
                        let _ = writer.flush().await;
                    }
                });
            }
            Ok(Message::Error(error)) => {
                return shared.fail(format!("the server refuses ({:?}): {}", error.code, error.text));
            }
            Ok(Message::Goodbye(goodbye)) => {
                return shared.fail(format!("the server says goodbye ({:?}): {}", goodbye.reason, goodbye.text));
            }
            Ok(other) => return shared.fail(format!("unexpected {:?}", other.kind())),
            Err(error) => return shared.fail(format!("unreadable message: {error}")),
        }
    }
}

/// A WebSocket handshake by hand: one request, one answer.
async fn handshake(url: &str, token: &str) -> Result<TcpStream> {
    let host = url
        .strip_prefix("http://")
        .with_context(|| format!("{url} is no http:// address; TLS is not measured"))?
        .trim_end_matches('/');
    let mut stream = TcpStream::connect(host).await.with_context(|| format!("{host} does not answer"))?;
    stream.set_nodelay(true)?;
    let request = format!(
        "GET {} HTTP/1.1\r\nHost: {host}\r\nUpgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Version: 13\r\n\
         Sec-WebSocket-Key: dGVuZG9uLWxvYWQtdGVzdA==\r\nAuthorization: Bearer {token}\r\n\r\n",
        tendon_agent::INGEST_PATH
    );
    stream.write_all(request.as_bytes()).await?;
    let mut head = Vec::new();
    // Byte by byte: what follows the head belongs to the WebSocket. A server says nothing before the hello.
    while !head.ends_with(b"\r\n\r\n") {
        if head.len() >= HEAD_BYTES_MAX {
            bail!("the answer to the handshake has more than {HEAD_BYTES_MAX} bytes");
        }
        head.push(stream.read_u8().await.context("the server closed during the handshake")?);
    }
    let head = String::from_utf8_lossy(&head);
    if !head.starts_with("HTTP/1.1 101") {
        let mut body = vec![0; 1024];
        let length = stream.read(&mut body).await.unwrap_or(0);
        bail!(
            "handshake refused: {} {}",
            head.lines().next().unwrap_or_default(),
            String::from_utf8_lossy(&body[..length])
        );
    }
    Ok(stream)
}
