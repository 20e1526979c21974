//! The writing half of a producer's connection: answers, acknowledgements, probes, in one task.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use fastwebsockets::{Frame, OpCode, Payload, WebSocketError, WebSocketWrite};
use tendon_actors::board::AckBoard;
use tendon_actors::house::ServerClock;
use tendon_actors::session::Outgoing;
use tendon_protocol::control::{Acknowledge, ClockKind, Probe, ProbeRole};
use tendon_protocol::id::{ClockId, StreamId};
use tendon_protocol::message::Message;
use tokio::io::AsyncWrite;
use tokio::sync::mpsc;
use tokio::time::{MissedTickBehavior, interval, timeout};

/// A producer that takes nothing for so long has gone.
const WRITE_TIMEOUT: Duration = Duration::from_secs(10);

/// What the reader wants written, apart from messages.
pub(super) enum Control {
    /// Answer to a ping.
    Pong(Vec<u8>),
}

/// What the writer needs.
pub(super) struct Writer<W> {
    pub socket: WebSocketWrite<W>,
    pub outbox: mpsc::Receiver<Outgoing>,
    pub control: mpsc::Receiver<Control>,
    pub board: Arc<AckBoard>,
    /// Positions that the welcome told.
    pub seen: BTreeMap<StreamId, u64>,
    pub clock: ServerClock,
    pub producer_clock: ClockId,
    pub clock_kind: ClockKind,
    pub probe_interval: Duration,
}

impl<W: AsyncWrite + Unpin> Writer<W> {
    /// Writes until the outbox closes or the socket fails.
    pub(super) async fn run(mut self) {
        let mut probes = interval(self.probe_interval);
        probes.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut probe_id = 0u64;
        let wants_probes = self.clock_kind != ClockKind::Replay;
        loop {
            // All four wait without losing anything when another one is first.
            let written = tokio::select! {
                biased;
                outgoing = self.outbox.recv() => match outgoing {
                    Some(Outgoing::Message(message)) => self.message(&message).await,
                    Some(Outgoing::Close) | None => {
                        let _ = self.acknowledge().await;
                        let _ = timeout(WRITE_TIMEOUT, self.socket.write_frame(Frame::close(1001, b"see the goodbye message"))).await;
                        return;
                    }
                },
                control = self.control.recv() => match control {
                    Some(Control::Pong(data)) => self.frame(Frame::pong(Payload::Owned(data))).await,
                    None => {
                        let _ = self.acknowledge().await;
                        return;
                    }
                },
                () = self.board.acknowledger.notified() => self.acknowledge().await,
                _ = probes.tick() => {
                    probe_id += 1;
                    if wants_probes {
                        self.probe(probe_id).await
                    } else {
                        // A replay's clock is not measured; the ping says that the server is still there.
                        self.frame(Frame::new(true, OpCode::Ping, None, Payload::Borrowed(b""))).await
                    }
                }
            };
            if written.is_err() {
                return;
            }
        }
    }

    async fn acknowledge(&mut self) -> Result<(), WebSocketError> {
        let positions = self.board.news(&mut self.seen);
        if positions.is_empty() {
            return Ok(());
        }
        self.message(&Message::Acknowledge(Acknowledge { positions })).await
    }

    async fn probe(&mut self, id: u64) -> Result<(), WebSocketError> {
        let probe = Probe {
            role: ProbeRole::Request,
            id,
            clock: self.producer_clock,
            sent_ns: self.clock.now_ns(),
            received_ns: 0,
            replied_ns: 0,
            wall_ns: 0,
        };
        self.message(&Message::Probe(probe)).await
    }

    async fn message(&mut self, message: &Message) -> Result<(), WebSocketError> {
        self.frame(Frame::new(true, OpCode::Binary, None, Payload::Owned(message.encode()))).await
    }

    async fn frame(&mut self, frame: Frame<'_>) -> Result<(), WebSocketError> {
        match timeout(WRITE_TIMEOUT, self.socket.write_frame(frame)).await {
            Ok(written) => written,
            Err(_) => Err(WebSocketError::ConnectionClosed),
        }
    }
}
