//! One producer's connection, from hello to the closed socket.
//!
//! A reader and a writer task, since reading a frame must never be cancelled. The reader gathers
//! what has arrived, pays for it (rate limits, byte permits), and hands it to the session's actor
//! as one message. Without permits it stops reading; TCP then slows the producer.

use std::collections::BTreeMap;
use std::future::poll_fn;
use std::pin::pin;
use std::sync::Arc;
use std::task::Poll;
use std::time::Duration;

use actix::Addr;
use actix_rt::ArbiterHandle;
use fastwebsockets::{
    Frame, OpCode, Payload, Role, WebSocketError, WebSocketRead, WebSocketWrite, after_handshake_split,
};
use tendon_actors::api::RefusalCode;
use tendon_actors::board::Permits;
use tendon_actors::house::blocking;
use tendon_actors::session::{Attach, Attached, ClockNews, Detach, Ingest, Item, OUTBOX_MESSAGES, Outgoing, Session};
use tendon_protocol::control::{ClockKind, ErrorCode, ErrorMessage, Hello, Probe, ProbeRole, Welcome};
use tendon_protocol::envelope::ENVELOPE_BYTES;
use tendon_protocol::id::{SessionId, StreamId};
use tendon_protocol::limit::PAYLOAD_BYTES_MAX;
use tendon_protocol::message::Message;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::sync::mpsc;
use tokio::time::timeout;

use super::listener::Door;
use super::reader::{Parsed, parse, parse_hello};
use super::writer::{Control, Writer};
use crate::admission::{Admission, Charge, Lane};
use crate::auth::Identity;

/// Time for the first message after the handshake.
const HELLO_TIMEOUT: Duration = Duration::from_secs(10);
/// Handed to the actor at once: one wake-up for about thirty batches.
const CHUNK_BYTES: usize = 64 << 10;
/// Charged at least per message, so that byte permits bound the count of messages too.
const MESSAGE_BYTES_MIN: usize = 1 << 10;
/// How often a connection's token is looked at again.
const RECHECK: Duration = Duration::from_secs(5);
/// An answer to a probe that took longer says nothing about a clock.
const PROBE_NS_MAX: i64 = 60_000_000_000;
/// Pings that wait for their answer.
const CONTROLS: usize = 16;

/// Serves a producer until one side ends the connection.
pub async fn run<T>(io: T, door: &Arc<Door>, identity: &Identity, arbiter: &ArbiterHandle)
where
    T: AsyncRead + AsyncWrite + Unpin + 'static,
{
    let (read, write) = tokio::io::split(io);
    let (mut read, mut write) = after_handshake_split(read, write, Role::Server);
    // It reads into a buffer of its own, 8 KiB: a second one in front would double what an idle connection holds.
    // The default of 64 MiB would be reserved for any header that claims it.
    read.set_max_message_size(PAYLOAD_BYTES_MAX + ENVELOPE_BYTES + 4096);
    read.set_auto_close(false);
    read.set_auto_pong(false);
    let hello = match greet(&mut read).await {
        Ok(hello) => hello,
        Err(error) => return refuse(&mut write, error).await,
    };
    let (outbox, outgoing) = mpsc::channel(OUTBOX_MESSAGES);
    let (session, attached) = match attach(door, identity, &hello, outbox, arbiter).await {
        Ok(found) => found,
        Err(error) => return refuse(&mut write, error).await,
    };
    tracing::info!(session = %hello.session, producer = %hello.producer, epoch = attached.epoch, token = %identity.name, "producer connected");
    let clock = door.fleet.house().clock;
    let welcome = Message::Welcome(Welcome {
        session: hello.session,
        epoch: attached.epoch,
        server_ns: clock.now_ns(),
        payload_bytes_max: u32::try_from(PAYLOAD_BYTES_MAX).unwrap_or(u32::MAX),
        positions: attached.positions.clone(),
    });
    if write.write_frame(binary(&welcome)).await.is_err() {
        session.send(Detach { epoch: attached.epoch, done: false }).await.ok();
        return;
    }
    let (controls, control) = mpsc::channel(CONTROLS);
    let writer = Writer {
        socket: write,
        outbox: outgoing,
        control,
        board: Arc::clone(&attached.board),
        seen: attached.positions.iter().map(|position| (position.stream, position.next)).collect::<BTreeMap<_, _>>(),
        clock,
        producer_clock: hello.clock,
        clock_kind: hello.clock_kind,
        probe_interval: door.probe_interval,
    };
    let mut writing = actix_rt::spawn(writer.run());
    note_hello_clock(&session, &hello).await;
    let lane = door.admission.lane(&attached.operator);
    let reader = Reader { door, lane, session: &session, attached: &attached, hello: &hello, controls, outbox: None };
    let (done, is_writing) = tokio::select! {
        // The whole reader is dropped with its socket: nothing is read after that.
        done = reader.run(&mut read) => (done, true),
        _ = &mut writing => (false, false),
        () = revoked(door, identity) => (false, true),
    };
    let _ = session.send(Detach { epoch: attached.epoch, done }).await;
    // The reader's end of the control queue is gone: the writer sends the last acknowledgements and ends.
    // A task that has ended must not be asked again.
    if is_writing {
        let _ = timeout(HELLO_TIMEOUT, &mut writing).await;
    }
    tracing::info!(session = %hello.session, epoch = attached.epoch, done, "producer gone");
}

/// Ends when the connection's token is revoked. A store that cannot be asked is asked again later.
async fn revoked(door: &Door, identity: &Identity) {
    loop {
        tokio::time::sleep(RECHECK).await;
        if let Err(crate::auth::AuthError::Refused) = door.auth.recheck(identity).await {
            tracing::warn!(token = %identity.name, "token was revoked, connection closed");
            return;
        }
    }
}

fn binary(message: &Message) -> Frame<'static> {
    Frame::new(true, OpCode::Binary, None, Payload::Owned(message.encode()))
}

async fn refuse<W: AsyncWrite + Unpin>(write: &mut WebSocketWrite<W>, error: ErrorMessage) {
    metrics::counter!("tendon_refused_total", "code" => format!("{:?}", error.code)).increment(1);
    let _ = write.write_frame(binary(&Message::Error(error))).await;
    let _ = write.write_frame(Frame::close(1008, b"see the error message")).await;
}

fn protocol_error(text: String) -> ErrorMessage {
    ErrorMessage { code: ErrorCode::BadMessage, stream: StreamId::JOURNAL, sequence: 0, text }
}

async fn read_frame<R: AsyncRead + Unpin>(read: &mut WebSocketRead<R>) -> Result<Frame<'_>, WebSocketError> {
    // Answers are sent by the writer; the reader never sends anything itself.
    read.read_frame(&mut |_| async { Ok::<(), WebSocketError>(()) }).await
}

async fn greet<R: AsyncRead + Unpin>(read: &mut WebSocketRead<R>) -> Result<Hello, ErrorMessage> {
    match timeout(HELLO_TIMEOUT, read_frame(read)).await {
        Ok(Ok(frame)) if frame.fin && frame.opcode == OpCode::Binary => parse_hello(&frame.payload),
        Ok(Ok(frame)) => {
            Err(protocol_error(format!("the first frame is {:?}; send a hello as one binary frame", frame.opcode)))
        }
        Ok(Err(error)) => Err(protocol_error(format!("no hello: {error}"))),
        Err(_) => Err(protocol_error(format!("no hello within {} s", HELLO_TIMEOUT.as_secs()))),
    }
}

/// A robot's token feeds the sessions of its own robot only. Asked before the session hears of the
/// connection, which would fence the one that is there.
async fn may_feed(door: &Door, identity: &Identity, session: SessionId) -> Result<(), ErrorMessage> {
    if identity.own_robot().is_none() {
        return Ok(());
    }
    let refused = |code, text| ErrorMessage { code, stream: StreamId::JOURNAL, sequence: 0, text };
    let meta = door.fleet.house().meta.clone();
    match blocking(move || meta.sessions.get(session)).await {
        // What does not exist is refused by that name later.
        Ok(found) => found
            .map_or(Ok(()), |record| identity.may_see(&record))
            .map_err(|error| refused(ErrorCode::Forbidden, error.to_string())),
        Err(error) => Err(refused(ErrorCode::Storage, error.to_string())),
    }
}

async fn attach(
    door: &Door,
    identity: &Identity,
    hello: &Hello,
    outbox: mpsc::Sender<Outgoing>,
    arbiter: &ArbiterHandle,
) -> Result<(Addr<Session>, Attached), ErrorMessage> {
    let refused = |code, text| ErrorMessage { code, stream: StreamId::JOURNAL, sequence: 0, text };
    may_feed(door, identity, hello.session).await?;
    let session = door.fleet.session(hello.session, arbiter).await.map_err(|refusal| match refusal.code {
        RefusalCode::NotFound => refused(
            ErrorCode::UnknownSession,
            format!("session {} does not exist; create it with POST /api/v1/sessions", hello.session),
        ),
        _ => refused(ErrorCode::Storage, refusal.message),
    })?;
    let attach = Attach { hello: hello.clone(), outbox };
    match session.send(attach).await {
        Ok(answer) => answer.map(|attached| (session, attached)),
        Err(error) => Err(refused(ErrorCode::Storage, format!("the session's actor is gone ({error}); connect again"))),
    }
}

fn kind_text(kind: ClockKind) -> &'static str {
    match kind {
        ClockKind::Boot => "boot",
        ClockKind::Page => "page",
        ClockKind::Replay => "replay",
    }
}

async fn note_hello_clock(session: &Addr<Session>, hello: &Hello) {
    let anchor =
        (hello.wall_ns != 0 && hello.clock_kind != ClockKind::Replay).then_some((hello.time_ns, hello.wall_ns));
    let news = ClockNews { clock: hello.clock, kind: kind_text(hello.clock_kind).to_owned(), probe: None, anchor };
    let _ = session.send(news).await;
}

struct Reader<'a> {
    door: &'a Door,
    lane: Lane,
    session: &'a Addr<Session>,
    attached: &'a Attached,
    hello: &'a Hello,
    controls: mpsc::Sender<Control>,
    outbox: Option<ErrorMessage>,
}

/// What came together.
#[derive(Default)]
struct Chunk {
    items: Vec<Item>,
    wire_bytes: usize,
    charge: Charge,
}

enum Step {
    Go,
    Done,
    Gone,
}

impl Reader<'_> {
    /// Reads until the connection ends. True if the producer said that it is done.
    async fn run<R: AsyncRead + Unpin>(mut self, read: &mut WebSocketRead<R>) -> bool {
        let mut chunk = Chunk::default();
        loop {
            let frame = {
                let mut reading = pin!(read_frame(read));
                // Polled once: what has arrived joins the chunk; otherwise the chunk goes first, and the same read goes on.
                match poll_fn(|cx| Poll::Ready(reading.as_mut().poll(cx))).await {
                    Poll::Ready(frame) => frame,
                    Poll::Pending => {
                        if !self.deliver(&mut chunk).await {
                            return false;
                        }
                        match timeout(self.door.idle_timeout, reading).await {
                            Ok(frame) => frame,
                            Err(_) => {
                                tracing::info!(session = %self.hello.session, "nothing came for {} s, connection closed", self.door.idle_timeout.as_secs());
                                return false;
                            }
                        }
                    }
                }
            };
            let step = match frame {
                Ok(frame) => self.take(frame, &mut chunk).await,
                Err(error) => {
                    if matches!(error, WebSocketError::FrameTooLarge) {
                        let text = format!(
                            "frame over the limit of {} bytes; send smaller pictures or batches",
                            PAYLOAD_BYTES_MAX + ENVELOPE_BYTES
                        );
                        self.outbox = Some(ErrorMessage {
                            code: ErrorCode::TooLarge,
                            stream: StreamId::JOURNAL,
                            sequence: 0,
                            text,
                        });
                    }
                    Step::Gone
                }
            };
            // Decompressed bytes too: a chunk is charged as a whole, after it lies in memory.
            let is_full = chunk.wire_bytes.max(chunk.charge.bytes as usize) >= CHUNK_BYTES;
            match step {
                Step::Go if is_full => {
                    if !self.deliver(&mut chunk).await {
                        return false;
                    }
                }
                Step::Go => {}
                Step::Done | Step::Gone => {
                    let delivered = self.deliver(&mut chunk).await;
                    if let Some(error) = self.outbox.take() {
                        let _ = self
                            .session
                            .send(tendon_actors::session::TellProducer { epoch: self.attached.epoch, error })
                            .await;
                    }
                    return delivered && matches!(step, Step::Done);
                }
            }
        }
    }

    async fn take(&mut self, frame: Frame<'_>, chunk: &mut Chunk) -> Step {
        match frame.opcode {
            OpCode::Binary if frame.fin => match parse(&frame.payload) {
                Ok(Parsed::Item(item, bytes)) => {
                    chunk.wire_bytes += frame.payload.len().max(MESSAGE_BYTES_MIN);
                    chunk.charge.messages += 1;
                    chunk.charge.bytes = chunk.charge.bytes.saturating_add(u32::try_from(bytes).unwrap_or(u32::MAX));
                    chunk.items.push(item);
                    Step::Go
                }
                Ok(Parsed::Probe(probe)) => {
                    chunk.charge.messages += 1;
                    self.probe(probe).await;
                    Step::Go
                }
                Ok(Parsed::Goodbye) => Step::Done,
                Err(error) => {
                    self.outbox = Some(error);
                    Step::Gone
                }
            },
            OpCode::Ping => {
                // Full: the producer pings faster than it reads answers; it gets the ones that fit.
                let _ = self.controls.try_send(Control::Pong(frame.payload.to_vec()));
                Step::Go
            }
            OpCode::Pong => Step::Go,
            OpCode::Close => Step::Gone,
            OpCode::Binary | OpCode::Text | OpCode::Continuation => {
                self.outbox = Some(protocol_error(format!(
                    "{:?} frame; send each message as one whole binary frame",
                    frame.opcode
                )));
                Step::Gone
            }
        }
    }

    async fn probe(&self, probe: Probe) {
        let now_ns = self.door.fleet.house().clock.now_ns();
        let kind = if probe.clock == self.hello.clock { kind_text(self.hello.clock_kind) } else { "boot" };
        let wall = (probe.wall_ns != 0).then_some((probe.received_ns, probe.wall_ns));
        let (sample, anchor) = match probe.role {
            ProbeRole::Request => return,
            ProbeRole::Anchor => (None, wall),
            ProbeRole::Reply => {
                let turn_ns = probe.replied_ns.saturating_sub(probe.received_ns);
                let round_trip_ns = now_ns.saturating_sub(probe.sent_ns).saturating_sub(turn_ns);
                let is_sound = turn_ns >= 0
                    && round_trip_ns >= 0
                    && (0..PROBE_NS_MAX).contains(&now_ns.saturating_sub(probe.sent_ns))
                    && probe.clock == self.hello.clock;
                if !is_sound {
                    return;
                }
                let server_ns = probe.sent_ns + (now_ns - probe.sent_ns) / 2;
                let clock_ns = probe.received_ns.saturating_add(turn_ns / 2);
                (Some((server_ns, clock_ns, round_trip_ns)), wall)
            }
        };
        let news = ClockNews { clock: probe.clock, kind: kind.to_owned(), probe: sample, anchor };
        let _ = self.session.send(news).await;
    }

    /// Pays for a chunk and hands it to the session. False when the session is gone.
    async fn deliver(&self, chunk: &mut Chunk) -> bool {
        if chunk.items.is_empty() {
            return true;
        }
        let chunk = std::mem::take(chunk);
        let mut bill = chunk.charge.into();
        while let Some((delay, throttle)) = self.door.admission.pay(&self.lane, &mut bill) {
            metrics::counter!("tendon_throttled_ms_total").increment(u64::from(throttle.delay_ms));
            if Admission::is_told(delay) {
                let tell = tendon_actors::session::TellThrottle { epoch: self.attached.epoch, throttle };
                let _ = self.session.send(tell).await;
            }
            tokio::time::sleep(delay).await;
        }
        let house = self.door.fleet.house();
        // Never more than exist: that would wait for ever.
        let bytes = chunk.wire_bytes.min(house.settings.session_bytes).min(house.settings.process_bytes);
        let permits = u32::try_from(bytes).unwrap_or(u32::MAX);
        let (own, all) = (Arc::clone(&self.attached.permits), Arc::clone(&house.process_permits));
        let (Ok(own), Ok(all)) = (own.acquire_many_owned(permits).await, all.acquire_many_owned(permits).await) else {
            return false;
        };
        let mut ingest = Ingest { epoch: self.attached.epoch, items: chunk.items, permits: Permits::new(own, all) };
        loop {
            match self.session.try_send(ingest) {
                Ok(()) => return true,
                Err(actix::dev::SendError::Full(back)) => {
                    // The permits bound what can queue, so this is rare: let the actor work.
                    ingest = back;
                    tokio::time::sleep(Duration::from_millis(1)).await;
                }
                Err(actix::dev::SendError::Closed(_)) => return false,
            }
        }
    }
}
