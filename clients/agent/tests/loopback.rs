//! An agent against a small server on real sockets that drops connections, forgets what it did not acknowledge, and
//! throws messages away. After the dust settles every sample is there once, in order, with identical bytes.
//!
//! `TENDON_SEED` replays a run; the seed is printed.

#![expect(clippy::unwrap_used, reason = "helpers of a test may stop it")]

use std::collections::BTreeMap;
use std::convert::Infallible;
use std::net::SocketAddr;
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use bytes::Bytes;
use fastwebsockets::{Frame, OpCode, Payload, WebSocketRead, WebSocketWrite};
use http_body_util::Full;
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper::{Request, Response};
use hyper_util::rt::TokioIo;
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};
use rustls::ServerConfig;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use tendon_agent::{Agent, AgentConfig, AgentError, Backoff, Clock, Roots, SpoolMode, Status};
use tendon_protocol::control::{
    Acknowledge, ErrorCode, ErrorMessage, Goodbye, GoodbyeReason, LostReason, Mark, MarkAction, Position, Probe,
    ProbeRole, Throttle, ThrottleLimit, Welcome,
};
use tendon_protocol::id::{ClockId, ProducerId, SessionId, StreamId};
use tendon_protocol::message::Message;
use tendon_protocol::stream::{Content, Dtype, Role, StreamDeclaration};
use tokio::io::{ReadHalf, WriteHalf};
use tokio::net::TcpListener;
use tokio_rustls::TlsAcceptor;

const SESSION: SessionId = SessionId::from_u128(3);
const STATE: StreamId = StreamId(1);
const ACTION: StreamId = StreamId(2);
const CAMERA: StreamId = StreamId(3);

fn seed() -> u64 {
    let seed = std::env::var("TENDON_SEED").ok().and_then(|text| text.parse().ok()).unwrap_or_else(rand::random);
    println!("TENDON_SEED={seed}");
    seed
}

/// What the server did to the client.
#[derive(Clone, Copy, Debug, Default)]
struct Mischief {
    /// One connection in so many messages is dropped without a word, and the tail that is not durable forgotten; 0: never.
    drop_one_in: u32,
    /// One message in so many is thrown away; 0: never.
    swallow_one_in: u32,
    /// Requests to refuse with this status first.
    refuse: Option<(u16, &'static str)>,
}

struct Kept {
    bytes: Bytes,
    /// Stream, first number and count of what it takes.
    takes: Vec<(StreamId, u64, u64)>,
}

#[derive(Default)]
struct Log {
    /// In the order of arrival; a prefix of `durable` is on "disk".
    messages: Vec<Kept>,
    durable: usize,
    duplicates: usize,
    connections: usize,
    replies: Vec<Probe>,
    goodbyes: Vec<GoodbyeReason>,
    tokens: Vec<String>,
}

struct Server {
    address: SocketAddr,
    log: Mutex<Log>,
    mischief: Mutex<Mischief>,
    random: Mutex<StdRng>,
    /// Only one connection at a time, as the real server fences.
    busy: tokio::sync::Mutex<()>,
    /// Messages to send to the next connection right behind its welcome.
    script: Mutex<Vec<Message>>,
    /// Keep the acknowledgements back.
    mute: AtomicBool,
    /// The connection is welcomed.
    welcomed: AtomicBool,
}

type Upgraded = TokioIo<hyper::upgrade::Upgraded>;
type Reader = WebSocketRead<ReadHalf<Upgraded>>;
type Writer = tokio::sync::Mutex<WebSocketWrite<WriteHalf<Upgraded>>>;

/// Numbers that a message takes: stream, first, count.
fn takes(message: &Message) -> Vec<(StreamId, u64, u64)> {
    match message {
        Message::Batch(batch) => vec![(batch.stream, batch.first, batch.count() as u64)],
        Message::Media(media) => vec![(media.stream, media.sequence, 1)],
        Message::Mark(mark) => vec![(StreamId::JOURNAL, mark.sequence, 1)],
        Message::Lost(lost) => {
            vec![(StreamId::JOURNAL, lost.sequence, 1), (lost.stream, lost.first, lost.last - lost.first + 1)]
        }
        _ => vec![],
    }
}

/// First missing number per stream.
fn positions(messages: &[Kept]) -> BTreeMap<StreamId, u64> {
    let mut ranges: BTreeMap<StreamId, BTreeMap<u64, u64>> = BTreeMap::new();
    for kept in messages {
        for (stream, first, count) in kept.takes.iter().copied() {
            ranges.entry(stream).or_default().insert(first, first + count);
        }
    }
    let next = |ranges: BTreeMap<u64, u64>| {
        ranges.into_iter().fold(0, |next, (first, end)| if first <= next { next.max(end) } else { next })
    };
    ranges.into_iter().map(|(stream, ranges)| (stream, next(ranges))).collect()
}

fn as_list(positions: &BTreeMap<StreamId, u64>) -> Vec<Position> {
    positions.iter().map(|(stream, next)| Position { stream: *stream, next: *next }).collect()
}

/// A certificate for 127.0.0.1 and its key, made for this test alone; it protects nothing.
const CERTIFICATE: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/tls/certificate.pem");
const KEY: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/tls/key.pem");

fn acceptor() -> TlsAcceptor {
    let certificate = CertificateDer::from_pem_file(CERTIFICATE).unwrap();
    let key = PrivateKeyDer::from_pem_file(KEY).unwrap();
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let config = ServerConfig::builder_with_provider(provider).with_safe_default_protocol_versions().unwrap();
    TlsAcceptor::from(Arc::new(config.with_no_client_auth().with_single_cert(vec![certificate], key).unwrap()))
}

impl Server {
    async fn start(seed: u64) -> Arc<Self> {
        Self::start_with(seed, None).await
    }

    async fn start_with(seed: u64, tls: Option<TlsAcceptor>) -> Arc<Self> {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let server = Arc::new(Self {
            address: listener.local_addr().unwrap(),
            log: Mutex::default(),
            mischief: Mutex::default(),
            random: Mutex::new(StdRng::seed_from_u64(seed)),
            busy: tokio::sync::Mutex::default(),
            script: Mutex::default(),
            mute: AtomicBool::new(false),
            welcomed: AtomicBool::new(false),
        });
        let shared = Arc::clone(&server);
        tokio::spawn(async move {
            while let Ok((socket, _)) = listener.accept().await {
                let shared = Arc::clone(&shared);
                let service = service_fn(move |request| shared.clone().upgrade(request));
                let http = hyper::server::conn::http1::Builder::new();
                let Some(tls) = tls.clone() else {
                    tokio::spawn(http.serve_connection(TokioIo::new(socket), service).with_upgrades());
                    continue;
                };
                tokio::spawn(async move {
                    if let Ok(stream) = tls.accept(socket).await {
                        let _ = http.serve_connection(TokioIo::new(stream), service).with_upgrades().await;
                    }
                });
            }
        });
        server
    }

    async fn upgrade(self: Arc<Self>, mut request: Request<Incoming>) -> Result<Response<Full<Bytes>>, Infallible> {
        assert_eq!(request.uri().path(), "/api/v1/ingest");
        let token = request.headers()["authorization"].to_str().unwrap().to_owned();
        self.log.lock().unwrap().tokens.push(token);
        if let Some((status, body)) = self.mischief.lock().unwrap().refuse.take() {
            let response =
                Response::builder().status(status).header("retry-after", "0").body(Full::from(body)).unwrap();
            return Ok(response);
        }
        let (response, upgrade) = fastwebsockets::upgrade::upgrade(&mut request).unwrap();
        tokio::spawn(async move {
            let Ok(mut socket) = upgrade.await else { return };
            let _one = self.busy.lock().await;
            socket.set_auto_close(false);
            let (mut reader, writer) = socket.split(tokio::io::split);
            let writer = Writer::new(writer);
            self.welcomed.store(false, Ordering::Relaxed);
            tokio::select! {
                () = self.serve(&mut reader, &writer) => {}
                () = self.acknowledge(&writer) => {}
            }
        });
        Ok(response.map(|_| Full::default()))
    }

    fn dice(&self, one_in: u32) -> bool {
        one_in > 0 && self.random.lock().unwrap().random_ratio(1, one_in)
    }

    /// One connection, until it ends or the dice say so.
    async fn serve(&self, reader: &mut Reader, writer: &Writer) {
        let Some((Message::Hello(hello), _)) = receive(reader).await else { return };
        let mut next = {
            let mut log = self.log.lock().unwrap();
            log.connections += 1;
            log.durable = log.messages.len();
            positions(&log.messages)
        };
        for seen in &hello.positions {
            assert!(
                next.get(&seen.stream).copied().unwrap_or(0) >= seen.next,
                "the client saw more acknowledged than there is"
            );
        }
        let epoch = self.log.lock().unwrap().connections as u64;
        let welcome = Welcome {
            session: hello.session,
            epoch,
            server_ns: 0,
            payload_bytes_max: 1 << 20,
            positions: as_list(&next),
        };
        if !send(writer, &Message::Welcome(welcome)).await {
            return;
        }
        self.welcomed.store(true, Ordering::Relaxed);
        let script: Vec<Message> = self.script.lock().unwrap().drain(..).collect();
        for message in script {
            send(writer, &message).await;
        }
        let mut declared = Vec::new();
        loop {
            let Some((message, bytes)) = receive(reader).await else { return };
            let mischief = *self.mischief.lock().unwrap();
            if self.dice(mischief.drop_one_in) {
                self.forget_tail();
                return;
            }
            match &message {
                Message::Declare(declaration) => declared.push(declaration.stream),
                Message::Probe(probe) => self.log.lock().unwrap().replies.push(*probe),
                Message::Goodbye(goodbye) => self.log.lock().unwrap().goodbyes.push(goodbye.reason),
                Message::Batch(_) | Message::Media(_) | Message::Mark(_) | Message::Lost(_) => {
                    let takes = takes(&message);
                    let stream = takes[0].0;
                    assert!(
                        stream == StreamId::JOURNAL || declared.contains(&stream),
                        "stream {stream} is not declared on this connection"
                    );
                    if self.dice(mischief.swallow_one_in) {
                        continue;
                    }
                    if !self.take(writer, &mut next, Kept { bytes, takes }).await {
                        return;
                    }
                }
                other => panic!("unexpected {other:?}"),
            }
        }
    }

    async fn take(&self, writer: &Writer, next: &mut BTreeMap<StreamId, u64>, kept: Kept) -> bool {
        let (stream, first, count) = kept.takes[0];
        let expected = next.get(&stream).copied().unwrap_or(0);
        if first > expected {
            let gap = ErrorMessage { code: ErrorCode::SequenceGap, stream, sequence: expected, text: "gap".into() };
            return send(writer, &Message::Error(gap)).await;
        }
        let mut log = self.log.lock().unwrap();
        if first + count <= expected {
            assert!(
                log.messages.iter().any(|other| other.bytes == kept.bytes),
                "stream {stream} sequence {first} came again with other bytes"
            );
            log.duplicates += 1;
        } else {
            assert_eq!(first, expected, "stream {stream}: a message overlaps what is there");
            log.messages.push(kept);
            *next = positions(&log.messages);
        }
        true
    }

    /// Makes a part of what came durable, again and again, and says so.
    async fn acknowledge(&self, writer: &Writer) {
        loop {
            tokio::time::sleep(Duration::from_millis(2)).await;
            if self.mute.load(Ordering::Relaxed) || !self.welcomed.load(Ordering::Relaxed) {
                continue;
            }
            let positions = {
                let mut log = self.log.lock().unwrap();
                if log.durable == log.messages.len() {
                    continue;
                }
                log.durable = self.random.lock().unwrap().random_range(log.durable + 1..=log.messages.len());
                as_list(&positions(&log.messages[..log.durable]))
            };
            if !send(writer, &Message::Acknowledge(Acknowledge { positions })).await {
                return;
            }
        }
    }

    fn forget_tail(&self) {
        let mut log = self.log.lock().unwrap();
        let keep = self.random.lock().unwrap().random_range(log.durable..=log.messages.len());
        log.messages.truncate(keep);
        log.durable = keep;
    }

    /// Everything of a stream in the order of its numbers, as (time, bytes); panics at holes that are not declared.
    fn samples(&self, stream: StreamId) -> Vec<(i64, Vec<u8>)> {
        let log = self.log.lock().unwrap();
        let mut samples = BTreeMap::new();
        let mut lost = 0;
        for kept in &log.messages {
            match Message::decode(&kept.bytes).unwrap() {
                Message::Batch(batch) if batch.stream == stream => {
                    let values = batch.values.chunks_exact(batch.values.len() / batch.count());
                    for (at, (time, value)) in batch.times_ns.iter().zip(values).enumerate() {
                        assert!(samples.insert(batch.first + at as u64, (*time, value.to_vec())).is_none());
                    }
                }
                Message::Media(media) if media.stream == stream => {
                    assert!(samples.insert(media.sequence, (media.time_ns, media.data)).is_none());
                }
                Message::Lost(lost_message) if lost_message.stream == stream => {
                    lost += lost_message.last - lost_message.first + 1
                }
                _ => {}
            }
        }
        let end = positions(&log.messages).get(&stream).copied().unwrap_or(0);
        assert_eq!(samples.len() as u64 + lost, end, "stream {stream} has a silent hole");
        samples.into_values().collect()
    }

    fn marks(&self) -> Vec<Mark> {
        let log = self.log.lock().unwrap();
        let messages = log.messages.iter().map(|kept| Message::decode(&kept.bytes).unwrap());
        messages.filter_map(|message| if let Message::Mark(mark) = message { Some(mark) } else { None }).collect()
    }
}

async fn send(writer: &Writer, message: &Message) -> bool {
    writer.lock().await.write_frame(Frame::binary(Payload::Owned(message.encode()))).await.is_ok()
}

async fn receive(reader: &mut Reader) -> Option<(Message, Bytes)> {
    let mut unused = |_| std::future::ready(Ok::<(), std::io::Error>(()));
    loop {
        let frame = reader.read_frame(&mut unused).await.ok()?;
        match frame.opcode {
            OpCode::Binary => {
                assert!(frame.fin);
                let bytes = Bytes::copy_from_slice(&frame.payload);
                return Some((Message::decode(&bytes).expect("the client sends whole messages"), bytes));
            }
            OpCode::Close => return None,
            _ => {}
        }
    }
}

fn config(server: &Server, spool: Option<&Path>) -> AgentConfig {
    let url = format!("http://{}", server.address);
    let mut config = AgentConfig::new(url, "token-1", SESSION, ProducerId::from_u128(4), Clock::boot().unwrap());
    config.spool.folder = spool.map(Path::to_owned);
    config.spool.mode = SpoolMode::WriteThrough;
    config.linger = Duration::from_millis(5);
    config.backoff = Backoff { min: Duration::from_millis(1), max: Duration::from_millis(20) };
    config
}

fn declaration(stream: StreamId) -> StreamDeclaration {
    let camera = stream == CAMERA;
    StreamDeclaration {
        stream,
        feature: format!("feature_{stream}"),
        names: vec![],
        unit: String::new(),
        dtype: if camera { Dtype::U8 } else { Dtype::F64 },
        shape: if camera { vec![48, 64, 3] } else { vec![3] },
        rate_mhz: 0,
        required: true,
        role: Role::Measured,
        content: if camera { Content::Jpeg } else { Content::Values },
    }
}

async fn declare_all(agent: &Agent) {
    for stream in [STATE, ACTION, CAMERA] {
        agent.declare(declaration(stream)).await.unwrap();
    }
}

fn values(random: &mut StdRng) -> [f64; 3] {
    [random.random(), random.random(), random.random()]
}

fn bytes_of(values: [f64; 3]) -> Vec<u8> {
    values.iter().flat_map(|value| value.to_le_bytes()).collect()
}

type Sent = BTreeMap<StreamId, Vec<(i64, Vec<u8>)>>;

/// Sends a random stretch on all streams, and remembers it.
async fn record(agent: &Agent, random: &mut StdRng, sent: &mut Sent, time: &mut i64, count: usize) {
    for _ in 0..count {
        *time += 1;
        match random.random_range(0..10) {
            0 => {
                let data: Vec<u8> = (0..random.random_range(1..3000)).map(|_| random.random()).collect();
                agent.send_media(CAMERA, *time, &data, 0).await.unwrap();
                sent.entry(CAMERA).or_default().push((*time, data));
            }
            1..=5 => {
                let values = values(random);
                agent.send_f64(STATE, *time, &values, 0).await.unwrap();
                sent.entry(STATE).or_default().push((*time, bytes_of(values)));
            }
            _ => {
                let values = bytes_of(values(random));
                agent.send(ACTION, *time, &values, 1).await.unwrap();
                sent.entry(ACTION).or_default().push((*time, values));
            }
        }
        if random.random_ratio(1, 40) {
            tokio::task::yield_now().await;
        }
        if random.random_ratio(1, 100) {
            let mut status = agent.status();
            soon("connecting", status.wait_for(|status| !matches!(status, Status::Offline))).await.unwrap();
            agent.cut();
        }
    }
}

/// Far above what any step needs; a test that hangs says where.
async fn soon<T>(what: &str, future: impl Future<Output = T>) -> T {
    tokio::time::timeout(Duration::from_secs(60), future).await.unwrap_or_else(|_| panic!("{what} takes for ever"))
}

async fn survives(seed: u64, spool: Option<&Path>, restarts: usize) {
    let mut random = StdRng::seed_from_u64(seed);
    let server = Server::start(seed ^ 1).await;
    *server.mischief.lock().unwrap() = Mischief { drop_one_in: 40, swallow_one_in: 60, refuse: None };
    let (mut sent, mut time) = (Sent::new(), 0);
    let config = config(&server, spool);
    let mut replayed = 0;
    for life in 0..=restarts {
        let agent = soon("start", Agent::start(config.clone())).await.unwrap();
        declare_all(&agent).await;
        agent.mark(MarkAction::Start, life as u64, time, "pick up").await.unwrap();
        soon("recording", record(&agent, &mut random, &mut sent, &mut time, 1500)).await;
        agent.mark(MarkAction::StopSuccess, life as u64, time, "").await.unwrap();
        if life < restarts {
            // A kill, once the filling batches are closed: dropped without a word, in the middle of whatever it does.
            soon("sealing", agent.seal()).await.unwrap();
            replayed += agent.stats().samples_replayed;
            drop(agent);
            continue;
        }
        // What was swallowed last is only missed once something follows it, so the mischief stops before the end.
        *server.mischief.lock().unwrap() = Mischief::default();
        soon("closing", agent.close()).await.unwrap();
        let stats = agent.stats();
        replayed += stats.samples_replayed;
        assert_eq!(
            (stats.samples_waiting, stats.samples_lost, stats.spool_file_bytes, stats.spool_memory_bytes),
            (0, 0, 0, 0),
            "{stats:?}"
        );
    }
    for (stream, sent) in &sent {
        let there = server.samples(*stream);
        assert_eq!(there.len(), sent.len(), "stream {stream}");
        assert!(there == *sent, "stream {stream} differs");
    }
    let marks: Vec<(u64, MarkAction)> = server.marks().iter().map(|mark| (mark.episode, mark.action)).collect();
    let expected: Vec<_> =
        (0..=restarts as u64).flat_map(|life| [(life, MarkAction::Start), (life, MarkAction::StopSuccess)]).collect();
    assert_eq!(marks, expected);
    let heard = async {
        while server.log.lock().unwrap().goodbyes.is_empty() {
            tokio::task::yield_now().await;
        }
    };
    soon("goodbye", heard).await;
    let log = server.log.lock().unwrap();
    assert!(
        log.connections > 1 && replayed > 0,
        "nothing went wrong: {} connections, {replayed} replayed",
        log.connections
    );
    assert_eq!(log.goodbyes, [GoodbyeReason::Done]);
    println!("{} connections, {replayed} samples replayed, {} duplicates", log.connections, log.duplicates);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_sample_arrives_once_from_memory() {
    survives(seed(), None, 0).await;
}

#[tokio::test]
async fn every_sample_arrives_once_on_a_runtime_of_one_thread() {
    survives(seed(), None, 0).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_sample_arrives_once_although_the_client_is_killed_again_and_again() {
    let folder = tempfile::tempdir().unwrap();
    survives(seed(), Some(folder.path()), 4).await;
}

#[tokio::test]
async fn an_agent_that_was_offline_sends_everything_once_it_connects() {
    let server = Server::start(1).await;
    *server.mischief.lock().unwrap() =
        Mischief { refuse: Some((503, r#"{"error":{"code":"starting","message":"not yet"}}"#)), ..Mischief::default() };
    let agent = Agent::start(config(&server, None)).await.unwrap();
    declare_all(&agent).await;
    for time in 0..100 {
        agent.send_f64(STATE, time, &[0.0, 1.0, 2.0], 0).await.unwrap();
    }
    soon("flush", agent.flush()).await.unwrap();
    assert_eq!(server.samples(STATE).len(), 100);
    assert!(agent.stats().last_error.unwrap().contains("not yet"));
    assert_eq!(server.log.lock().unwrap().tokens, ["Bearer token-1", "Bearer token-1"]);
    assert_eq!(agent.positions(), [Position { stream: STATE, next: 100 }]);
}

#[tokio::test]
async fn a_refusal_is_told_in_the_servers_words() {
    let server = Server::start(1).await;
    let body = r#"{"error":{"code":"no_token","message":"no such token; make one with tendon token create"}}"#;
    *server.mischief.lock().unwrap() = Mischief { refuse: Some((401, body)), ..Mischief::default() };
    let error = soon("connect", Agent::connect(config(&server, None))).await.unwrap_err();
    assert!(matches!(&error, AgentError::Refused { status: 401, .. }));
    assert!(error.to_string().contains("make one with tendon token create"), "{error}");
}

#[tokio::test]
async fn a_server_that_is_not_there_is_named_with_the_reason() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    drop(listener);
    let server = Server::start(1).await;
    let mut config = config(&server, None);
    config.url = format!("{address}");
    config.connect_wait = Some(Duration::from_millis(50));
    let error = soon("connect", Agent::connect(config)).await.unwrap_err();
    assert!(error.to_string().contains("refused"), "{error}");
}

#[tokio::test]
async fn probes_are_answered_on_the_agents_clock_and_throttles_are_counted() {
    let server = Server::start(1).await;
    let clock = Clock::boot().unwrap();
    let probe = Probe {
        role: ProbeRole::Request,
        id: 77,
        clock: ClockId::default(),
        sent_ns: 123,
        received_ns: 0,
        replied_ns: 0,
        wall_ns: 0,
    };
    let throttle = Throttle { delay_ms: 250, limit: ThrottleLimit::ConnectionBytes, text: "slow".into() };
    server.script.lock().unwrap().extend([Message::Probe(probe), Message::Throttle(throttle)]);
    let before = clock.now_ns();
    let agent = soon("connect", Agent::connect(config(&server, None))).await.unwrap();
    declare_all(&agent).await;
    agent.send_f64(STATE, 1, &[0.0; 3], 0).await.unwrap();
    soon("flush", agent.flush()).await.unwrap();
    let reply = server.log.lock().unwrap().replies[0];
    assert_eq!((reply.role, reply.id, reply.sent_ns, reply.clock), (ProbeRole::Reply, 77, 123, clock.id()));
    assert!(before <= reply.received_ns && reply.received_ns <= reply.replied_ns && reply.replied_ns <= clock.now_ns());
    assert!(reply.wall_ns > 0);
    let stats = agent.stats();
    assert_eq!((stats.throttles, stats.throttled_ms, stats.connections), (1, 250, 1));
    assert!(stats.ack_ms.p50 > 0.0);
}

fn request(action: MarkAction) -> Message {
    let (clock, instruction) = (ClockId::default(), String::from("fold the towel"));
    Message::Mark(Mark { sequence: 0, episode: 0, action, request: true, clock, time_ns: 0, instruction })
}

#[tokio::test]
async fn a_request_reaches_the_application_or_becomes_a_mark_by_itself() {
    let server = Server::start(1).await;
    server.script.lock().unwrap().push(request(MarkAction::Start));
    let agent = soon("connect", Agent::connect(config(&server, None))).await.unwrap();
    let mut requests = agent.requests().unwrap();
    let asked = soon("request", requests.recv()).await.unwrap();
    assert_eq!((asked.action, asked.instruction.as_str()), (MarkAction::Start, "fold the towel"));
    agent.mark(asked.action, 9, 1000, &asked.instruction).await.unwrap();
    soon("flush", agent.flush()).await.unwrap();
    agent.auto_marks(true);
    server.script.lock().unwrap().push(request(MarkAction::StopFailure));
    agent.cut();
    while server.marks().len() < 2 {
        tokio::task::yield_now().await;
    }
    let marks = server.marks();
    assert_eq!((marks[0].episode, marks[0].time_ns, marks[0].sequence), (9, 1000, 0));
    assert_eq!((marks[1].episode, marks[1].action, marks[1].sequence), (9, MarkAction::StopFailure, 1));
    assert!(marks[1].time_ns > 0);
    soon("close", agent.close()).await.unwrap();
    assert!(soon("end of requests", requests.recv()).await.is_none());
}

#[tokio::test]
async fn a_takeover_stops_the_agent_and_says_so_to_everyone_who_waits() {
    let server = Server::start(1).await;
    server.mute.store(true, Ordering::Relaxed);
    let agent = soon("connect", Agent::connect(config(&server, None))).await.unwrap();
    declare_all(&agent).await;
    agent.send_f64(STATE, 1, &[0.0; 3], 0).await.unwrap();
    let waiting = tokio::spawn({
        let agent = agent.clone();
        async move { agent.flush().await }
    });
    server
        .script
        .lock()
        .unwrap()
        .push(Message::Goodbye(Goodbye { reason: GoodbyeReason::Fenced, text: "newer".into() }));
    agent.cut();
    let error = soon("flush", waiting).await.unwrap().unwrap_err();
    assert!(matches!(error, AgentError::Fenced { .. }), "{error}");
    let mut status = agent.status();
    soon("status", status.wait_for(|status| matches!(status, Status::Failed(AgentError::Fenced { .. }))))
        .await
        .unwrap();
    assert!(agent.send_f64(STATE, 2, &[0.0; 3], 0).await.is_err());
}

#[tokio::test]
async fn a_stream_that_the_server_refuses_fails_alone() {
    let server = Server::start(1).await;
    let conflict =
        ErrorMessage { code: ErrorCode::SequenceConflict, stream: STATE, sequence: 0, text: "other bytes".into() };
    server.script.lock().unwrap().push(Message::Error(conflict));
    let agent = soon("connect", Agent::connect(config(&server, None))).await.unwrap();
    declare_all(&agent).await;
    while agent.send_f64(STATE, 1, &[0.0; 3], 0).await.is_ok() {
        tokio::task::yield_now().await;
    }
    agent.send_f64(ACTION, 1, &[0.0; 3], 0).await.unwrap();
    assert!(matches!(soon("flush", agent.flush()).await, Err(AgentError::StreamRefused { .. })));
    assert_eq!(server.samples(ACTION).len(), 1);
}

#[tokio::test]
async fn samples_that_the_application_gives_up_are_declared_where_they_are_missing() {
    let server = Server::start(1).await;
    let agent = soon("connect", Agent::connect(config(&server, None))).await.unwrap();
    declare_all(&agent).await;
    agent.send_f64(STATE, 1, &[1.0; 3], 0).await.unwrap();
    agent.declare_lost(STATE, 4, LostReason::Other).await.unwrap();
    agent.send_f64(STATE, 6, &[6.0; 3], 0).await.unwrap();
    assert_eq!(agent.next_sequence(STATE), 6);
    soon("close", agent.close()).await.unwrap();
    assert_eq!(server.samples(STATE).iter().map(|(time, _)| *time).collect::<Vec<_>>(), [1, 6]);
    assert_eq!(agent.stats().samples_lost, 4);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_sender_waits_while_the_spool_is_full_and_goes_on_afterwards() {
    let server = Server::start(1).await;
    let mut config = config(&server, None);
    config.spool.memory_bytes_max = 3 << 20;
    let agent = Agent::start(config).await.unwrap();
    // Nothing can be acknowledged while the agent stays away.
    agent.cut_for(Duration::from_millis(300));
    agent.declare(declaration(CAMERA)).await.unwrap();
    let picture = vec![7; 200_000];
    for time in 0..60 {
        soon("sending", agent.send_media(CAMERA, time, &picture, 0)).await.unwrap();
        assert!(agent.stats().spool_memory_bytes <= 3 << 20);
    }
    soon("close", agent.close()).await.unwrap();
    assert_eq!(server.samples(CAMERA).len(), 60);
}

#[tokio::test]
async fn samples_go_over_tls_to_a_server_that_is_trusted_and_to_no_other() {
    let server = Server::start_with(1, Some(acceptor())).await;
    let mut trusting = config(&server, None);
    trusting.url = format!("https://{}", server.address);
    trusting.roots = Roots::Pem(CERTIFICATE.into());
    let agent = soon("connect", Agent::connect(trusting.clone())).await.unwrap();
    declare_all(&agent).await;
    let picture = vec![9; 300_000];
    for time in 0..20 {
        agent.send_media(CAMERA, time, &picture, 0).await.unwrap();
        agent.send_f64(STATE, time, &[0.0; 3], 0).await.unwrap();
    }
    soon("close", agent.close()).await.unwrap();
    assert_eq!((server.samples(CAMERA).len(), server.samples(STATE).len()), (20, 20));
    let mut wary = trusting;
    wary.roots = Roots::System;
    wary.connect_wait = Some(Duration::from_millis(100));
    match soon("refusing", Agent::connect(wary)).await {
        Err(error @ AgentError::Unreachable { .. }) => assert!(error.to_string().contains("certificate"), "{error}"),
        // A machine without any certificates trusts nobody to begin with.
        Err(error) => assert!(error.to_string().contains("roots"), "{error}"),
        Ok(_) => panic!("an unknown certificate was trusted"),
    }
}
