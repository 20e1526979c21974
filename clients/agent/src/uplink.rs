//! The way to the server: one supervisor task, and a reader and a writer task per connection.
//!
//! [`machine`] decides, `core/link.rs` carries out, this file moves bytes. The reader never shares a `select!` with
//! anything: a half-read frame must not be dropped unless its connection is.

pub(crate) mod connect;
pub(crate) mod frame;
pub(crate) mod machine;

use std::ops::ControlFlow;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use fastwebsockets::{OpCode, Role, WebSocketRead};
use tendon_protocol::envelope::Envelope;
use tendon_protocol::limit;
use tendon_protocol::message::{Message, View};
use tokio::io::{AsyncRead, AsyncWrite, AsyncWriteExt};
use tokio::sync::watch;
use tokio::task::JoinSet;

use crate::agent::Shared;
use crate::core::Control;
use crate::core::link::Outgoing;
use crate::core::renumber::renumber;
use crate::core::shelf::Source;
use crate::uplink::connect::{ConnectError, Socket, Target};
use crate::uplink::machine::{Event, Phase};

/// Longest WebSocket message that is read. `fastwebsockets` reserves this much as soon as a head states it.
const READ_BYTES_MAX: usize = limit::PAYLOAD_BYTES_MAX + (64 << 10);
/// The writer's buffer is given back when one long message made it larger than this.
const BUFFER_BYTES_KEPT: usize = 256 << 10;

/// Connects again and again until the machine says that it is over.
pub(crate) async fn supervise(shared: Arc<Shared>, target: Target) {
    loop {
        // From here on, so that a cut also meets a connection that is only being opened.
        let mut cuts = shared.cuts.subscribe();
        let verdict = shared.step(Event::Dial);
        if !verdict.connect {
            return;
        }
        let verdict = match target.open().await {
            Ok(socket) => {
                let verdict = shared.step(Event::Opened);
                if verdict.hang.is_some() {
                    verdict
                } else {
                    let reason = run(&shared, socket, &mut cuts).await;
                    shared.step(Event::Ended(reason))
                }
            }
            Err(ConnectError::Refused(refusal)) => shared.step(Event::Refused(refusal)),
            Err(ConnectError::Unreachable(text)) => shared.step(Event::Unreachable(text)),
        };
        let Some(mut at) = verdict.retry_at else { return };
        // The application may ask for a longer pause while it lasts.
        while let Some(pause) = shared.pause_until(at) {
            tokio::time::sleep(pause).await;
            at = Duration::ZERO;
        }
    }
}

/// One connection, until it ends. Gives the reason.
async fn run(shared: &Arc<Shared>, socket: Socket, cuts: &mut watch::Receiver<u64>) -> String {
    let mut tasks = JoinSet::new();
    tasks.spawn(read(Arc::clone(shared), socket.read));
    tasks.spawn(write(Arc::clone(shared), socket.write));
    let reason = tokio::select! {
        ended = tasks.join_next() => match ended {
            Some(Ok(reason)) => reason,
            Some(Err(error)) => format!("connection task failed: {error}"),
            None => String::from("connection ended"),
        },
        _ = cuts.changed() => String::from("connection was cut by the application"),
    };
    tasks.shutdown().await;
    reason
}

async fn read(shared: Arc<Shared>, stream: Box<dyn AsyncRead + Send + Unpin>) -> String {
    let (mut socket, _) = fastwebsockets::after_handshake_split(stream, tokio::io::sink(), Role::Client);
    // Pings and closes are answered through the writer's queue.
    socket.set_auto_close(false);
    socket.set_auto_pong(false);
    socket.set_max_message_size(READ_BYTES_MAX);
    loop {
        match read_one(&shared, &mut socket).await {
            ControlFlow::Continue(()) => {}
            ControlFlow::Break(reason) => return reason,
        }
    }
}

async fn read_one(
    shared: &Shared,
    socket: &mut WebSocketRead<Box<dyn AsyncRead + Send + Unpin>>,
) -> ControlFlow<String> {
    // Nothing is sent by this side of the socket, see `read`.
    let mut send = |_| std::future::ready(Ok::<(), std::io::Error>(()));
    // A timeout drops a half-read frame, and the connection with it.
    let frame = match tokio::time::timeout(shared.idle_timeout(), socket.read_frame(&mut send)).await {
        Ok(Ok(frame)) => frame,
        Ok(Err(error)) => return ControlFlow::Break(format!("connection lost: {error}")),
        Err(_) => return ControlFlow::Break(String::from("server said nothing for too long, not even a pong")),
    };
    match frame.opcode {
        OpCode::Binary if frame.fin => receive(shared, &frame.payload),
        OpCode::Ping => {
            shared.push_control(Control::Pong(Bytes::copy_from_slice(&frame.payload)));
            ControlFlow::Continue(())
        }
        OpCode::Pong => ControlFlow::Continue(()),
        OpCode::Close => {
            let text = frame.payload.get(2..).map(String::from_utf8_lossy).unwrap_or_default();
            let code = frame.payload.get(..2).map_or(1005, |code| u16::from_be_bytes([code[0], code[1]]));
            ControlFlow::Break(format!("server closed the connection with {code} {text}"))
        }
        OpCode::Binary | OpCode::Continuation | OpCode::Text => {
            ControlFlow::Break(String::from("server sent a text or a message in pieces; is this a Tendon server?"))
        }
    }
}

fn receive(shared: &Shared, bytes: &[u8]) -> ControlFlow<String> {
    let message = match decode(bytes) {
        Ok(message) => message,
        Err(text) => return ControlFlow::Break(text),
    };
    match shared.step(Event::Received(message)).hang {
        Some(reason) => ControlFlow::Break(reason),
        None => ControlFlow::Continue(()),
    }
}

/// What a server sends is short and never compressed, so that no agent needs a decompression context.
fn decode(bytes: &[u8]) -> Result<Message, String> {
    let broken = |error: &dyn std::fmt::Display| format!("server sent what cannot be read: {error}");
    let (envelope, payload) = Envelope::read(bytes).map_err(|error| broken(&error))?;
    if envelope.compressed {
        return Err(broken(&"a compressed message"));
    }
    Ok(View::from_payload(envelope.kind, payload).map_err(|error| broken(&error))?.into_message())
}

/// What the writer should do after a round.
enum Round {
    /// There may be more.
    Busy,
    /// Nothing is left.
    Idle,
    /// The goodbye is written.
    Last,
}

async fn write(shared: Arc<Shared>, mut stream: Box<dyn AsyncWrite + Send + Unpin>) -> String {
    let mut buffer = Vec::new();
    let (mut control, mut out) = (Vec::new(), Vec::new());
    let mut wrote = 0;
    loop {
        shared.collect(std::mem::take(&mut wrote), &mut control, &mut out);
        let round = fill(&shared, &mut buffer, &mut control, &mut out).await;
        if !buffer.is_empty() {
            let written = stream.write_all(&buffer).await;
            if let Err(error) = written.and(stream.flush().await) {
                return format!("connection lost: {error}");
            }
            wrote = buffer.len();
            buffer.clear();
            buffer.shrink_to(BUFFER_BYTES_KEPT);
        }
        match round {
            Round::Busy => tokio::task::coop::consume_budget().await,
            Round::Idle => {
                if tokio::time::timeout(shared.keepalive, shared.wake.notified()).await.is_err() {
                    shared.push_control(Control::Ping);
                }
            }
            Round::Last => {
                // The server may still be reading; closing only after the last byte left.
                if let Err(error) = stream.shutdown().await {
                    tracing::debug!(%error, "socket was closed by the other side first");
                }
                shared.step(Event::Left);
                return String::from("closed in order");
            }
        }
    }
}

/// Turns what was collected into frames.
async fn fill(
    shared: &Arc<Shared>,
    buffer: &mut Vec<u8>,
    control: &mut Vec<Control>,
    out: &mut Vec<Outgoing>,
) -> Round {
    let mut round = if control.is_empty() && out.is_empty() { Round::Idle } else { Round::Busy };
    for control in control.drain(..) {
        match control {
            Control::Message(bytes) => append(buffer, OpCode::Binary, &bytes),
            Control::Reply { id, sent_ns, received_ns, wall_ns } => {
                let reply = shared.core().reply(id, sent_ns, received_ns, wall_ns);
                append(buffer, OpCode::Binary, &reply);
            }
            Control::Pong(payload) => append(buffer, OpCode::Pong, &payload),
            Control::Ping => append(buffer, OpCode::Ping, b""),
            Control::Close => {
                append(buffer, OpCode::Close, &1000u16.to_be_bytes());
                round = Round::Last;
            }
        }
    }
    if out.iter().any(|outgoing| matches!(outgoing.source, Source::File { .. })) {
        read_files(shared, out).await;
    }
    for outgoing in out.drain(..) {
        if let Source::Memory(bytes) = outgoing.source {
            append(buffer, OpCode::Binary, &bytes);
        }
    }
    round
}

fn append(buffer: &mut Vec<u8>, opcode: OpCode, payload: &[u8]) {
    frame::append(buffer, opcode, payload, rand::random());
}

/// Reads spooled messages off the runtime's threads. What cannot be read is declared lost, and left out.
async fn read_files(shared: &Arc<Shared>, out: &mut Vec<Outgoing>) {
    let mut batch = std::mem::take(out);
    let worker = tokio::task::spawn_blocking(move || {
        let mut failed = Vec::new();
        for outgoing in &mut batch {
            if let Source::File { reading, shift } = &outgoing.source {
                match read_one_file(reading, shift.as_deref()) {
                    Ok(bytes) => outgoing.source = Source::Memory(Bytes::from(bytes)),
                    Err(why) => failed.push((outgoing.stream, outgoing.first, why)),
                }
            }
        }
        (batch, failed)
    });
    // A panic or a stopping runtime leaves nothing to send; the connection's end sorts it out.
    let Ok((batch, failed)) = worker.await else { return };
    *out = batch;
    if failed.is_empty() {
        return;
    }
    let mut core = shared.core();
    for (stream, first, why) in failed {
        core.damaged(stream, first, &why);
    }
    // Messages behind a damaged one may only follow its declaration: send this round again from the ledger.
    for outgoing in out.drain(..) {
        core.ledger.rewind(outgoing.stream, outgoing.first);
    }
}

fn read_one_file(
    reading: &crate::spool::files::Reading,
    shift: Option<&crate::ledger::Deltas>,
) -> Result<Vec<u8>, String> {
    let bytes = reading.read().map_err(|error| error.to_string())?;
    match shift {
        Some(deltas) => renumber(&bytes, deltas).map_err(|error| error.to_string()),
        None => Envelope::read(&bytes).map(|_| ()).map_err(|error| error.to_string()).map(|()| bytes),
    }
}

/// Seals batches that have waited long enough, writes the state down, and lets the machine know that time passes.
pub(crate) async fn keep_house(shared: Arc<Shared>) {
    let mut next_tick = tokio::time::Instant::now() + TICK;
    let mut ticks = 0u32;
    loop {
        let due = shared.seal_due();
        let until = due.map_or(next_tick, |pause| next_tick.min(tokio::time::Instant::now() + pause));
        // A batch that is opened meanwhile arms its own deadline.
        let _ = tokio::time::timeout_at(until, shared.opened.notified()).await;
        if tokio::time::Instant::now() < next_tick {
            continue;
        }
        next_tick = tokio::time::Instant::now() + TICK;
        ticks = ticks.wrapping_add(1);
        shared.step(Event::Tick);
        // A spool that could not be written may have room again.
        shared.space.notify_waiters();
        if ticks.is_multiple_of(SAVE_TICKS) {
            shared.save().await;
        }
        if matches!(shared.core().machine.phase(), Phase::Failed | Phase::Closed) {
            shared.save().await;
            return;
        }
    }
}

/// How often time is told to the machine.
const TICK: Duration = Duration::from_millis(500);
/// Ticks between two writes of the state: what is behind is only sent again.
const SAVE_TICKS: u32 = 4;
