//! How a session's actor answers its messages, in the order in which they come.

use std::sync::Arc;
use std::time::Duration;

use actix::prelude::*;
use tendon_protocol::control::{ErrorCode, ErrorMessage, GoodbyeReason, Mark, MarkAction, Position};
use tendon_protocol::id::{ClockId, StreamId};
use tendon_protocol::message::Message as Wire;
use tendon_storage::records::SessionRecord;
use tokio::sync::oneshot;

use super::messages::Woken;
use super::work::Work;
use super::{
    AskLive, Attach, Attached, ClockNews, Detach, Drain, EndSession, Ingest, Link, Outgoing, RequestMark, Session,
    TellProducer, TellThrottle,
};
use crate::api::{Live, LiveStream, Refusal, RefusalCode};
use crate::board::AckBoard;

/// How often a hello looks whether older samples are durable; a sync takes milliseconds.
const SETTLE_EVERY: Duration = Duration::from_millis(2);
/// Longest wait for the session's record at a hello. A disk that is full may take long to get room.
const SAVE_TIMEOUT: Duration = Duration::from_secs(8);
/// Longest wait for a goodbye to be written when the server stops.
const GOODBYE_TIMEOUT: Duration = Duration::from_secs(2);

impl Handler<Attach> for Session {
    type Result = ResponseFuture<Result<Attached, ErrorMessage>>;

    fn handle(&mut self, message: Attach, ctx: &mut Self::Context) -> Self::Result {
        let id = self.machine.record().id;
        if self.is_stopping {
            let text = "the server stops; connect again in a few seconds".to_owned();
            let error = ErrorMessage { code: ErrorCode::Storage, stream: StreamId::JOURNAL, sequence: 0, text };
            return Box::pin(async move { Err(error) });
        }
        // The welcome must not lie behind what was acknowledged: the producer has forgotten that.
        self.pull_durable(ctx);
        // The log itself is asked, not what this actor remembers of it.
        let durable = self.house.log.positions(id);
        let epoch = match self.machine.hello(&message.hello, &durable) {
            Ok(epoch) => epoch,
            Err(error) => {
                self.last_error = Some(error.text.clone());
                tracing::error!(session = %id, code = ?error.code, "{}", error.text);
                metrics::counter!("tendon_refused_total", "code" => format!("{:?}", error.code)).increment(1);
                return Box::pin(async move { Err(error) });
            }
        };
        self.close_link(GoodbyeReason::Fenced, "a newer connection of the same producer took over");
        self.link = Some(Link { epoch, outbox: message.outbox });
        let mut attached = Attached {
            epoch,
            positions: self.machine.positions(self.board.position(StreamId::JOURNAL)),
            board: Arc::clone(&self.board),
            permits: Arc::clone(&self.permits),
            operator: self.machine.record().operator.clone(),
        };
        let accepted = self.machine.accepted();
        self.board.wake_session(true);
        let (saved, done) = oneshot::channel();
        self.work.push_back(Work::SaveSession(Box::new(self.machine.record().clone()), vec![saved]));
        self.work_on(ctx);
        Box::pin(async move {
            // The epoch is durable before the producer hears of it.
            match tokio::time::timeout(SAVE_TIMEOUT, done).await {
                Ok(_) => {
                    settle(&attached.board, &accepted).await?;
                    // What was on its way to the disk when the connection before this one broke need not come again.
                    let board = Arc::clone(&attached.board);
                    for position in &mut attached.positions {
                        position.next = position.next.max(board.position(position.stream));
                    }
                    Ok(attached)
                }
                Err(_) => Err(ErrorMessage {
                    code: ErrorCode::Storage,
                    stream: StreamId::JOURNAL,
                    sequence: 0,
                    text: format!(
                        "the session's record could not be saved within {} s; look at /readyz and free some disk, then connect again",
                        SAVE_TIMEOUT.as_secs()
                    ),
                }),
            }
        })
    }
}

/// Waits until what older connections sent is durable. A producer that was started again without its
/// spool numbers its samples from the welcome on: those numbers must not be taken by samples on their way.
async fn settle(board: &AckBoard, accepted: &[Position]) -> Result<(), ErrorMessage> {
    let started = tokio::time::Instant::now();
    while let Some(behind) = accepted.iter().find(|position| board.position(position.stream) < position.next) {
        if started.elapsed() >= SAVE_TIMEOUT {
            let text = format!(
                "samples of an earlier connection below {} of stream {} are still on their way to the disk after {} s; look at /readyz, then connect again",
                behind.next,
                behind.stream,
                SAVE_TIMEOUT.as_secs()
            );
            return Err(ErrorMessage { code: ErrorCode::Storage, stream: behind.stream, sequence: behind.next, text });
        }
        tokio::time::sleep(SETTLE_EVERY).await;
    }
    Ok(())
}

impl Handler<Ingest> for Session {
    type Result = ();

    fn handle(&mut self, message: Ingest, ctx: &mut Self::Context) {
        if self.is_stopping || self.link.as_ref().is_none_or(|link| link.epoch != message.epoch) {
            metrics::counter!("tendon_fenced_messages_total").increment(message.items.len() as u64);
            return;
        }
        for item in message.items {
            self.take(item, &message.permits, ctx);
        }
        if !self.unverified.is_empty() {
            self.board.wake_session(true);
            self.verify_duplicates(ctx);
        }
    }
}

impl Handler<Detach> for Session {
    type Result = ();

    fn handle(&mut self, message: Detach, ctx: &mut Self::Context) {
        if self.link.as_ref().is_none_or(|link| link.epoch != message.epoch) {
            return;
        }
        self.link = None;
        self.clocks.touch();
        if message.done {
            let effects = self.machine.producer_is_done(self.now_ns());
            self.act(effects, ctx);
        }
    }
}

impl Handler<ClockNews> for Session {
    type Result = ();

    fn handle(&mut self, message: ClockNews, _: &mut Self::Context) {
        self.clocks.learn(self.machine.record().id, &message);
    }
}

impl Handler<RequestMark> for Session {
    type Result = Result<(), Refusal>;

    fn handle(&mut self, message: RequestMark, ctx: &mut Self::Context) -> Self::Result {
        let record = self.machine.record();
        if record.state.has_ended() {
            return Err(Refusal::new(
                RefusalCode::WrongState,
                format!("session {} is {}; create a new session", record.id, record.state),
            ));
        }
        match (message.action, self.machine.current()) {
            (MarkAction::Start, Some(number)) => {
                return Err(Refusal::new(
                    RefusalCode::WrongState,
                    format!("episode {number} is being recorded; stop or discard it first"),
                ));
            }
            (MarkAction::Start, None) | (_, Some(_)) => {}
            (_, None) => {
                return Err(Refusal::new(RefusalCode::WrongState, "no episode is being recorded; start one first"));
            }
        }
        if message.action == MarkAction::Discard && self.is_log_full() {
            tracing::warn!(session = %self.machine.record().id, "episode discarded without the producer's mark, which the full log could not take");
            let effects = self.machine.discard_now(self.now_ns());
            self.act(effects, ctx);
            return Ok(());
        }
        let request = Mark {
            sequence: 0,
            episode: 0,
            action: message.action,
            request: true,
            clock: ClockId::default(),
            time_ns: 0,
            instruction: message.instruction,
        };
        let Some(link) = self.link.as_ref().filter(|link| !link.outbox.is_closed()) else {
            return Err(Refusal::new(
                RefusalCode::NoProducer,
                "no producer is connected that could make the mark; connect the robot first",
            ));
        };
        link.outbox
            .try_send(Outgoing::Message(Box::new(Wire::Mark(request))))
            .map_err(|_| Refusal::new(RefusalCode::Busy, "the producer does not read its messages; try again"))
    }
}

impl Handler<EndSession> for Session {
    type Result = ResponseFuture<Result<SessionRecord, Refusal>>;

    fn handle(&mut self, message: EndSession, ctx: &mut Self::Context) -> Self::Result {
        self.pull_durable(ctx);
        let now_ns = self.now_ns();
        let effects = match self.machine.end(&message.0, now_ns) {
            Ok(effects) => effects,
            Err(refusal) => return Box::pin(async move { Err(refusal) }),
        };
        self.act(effects, ctx);
        let record = self.machine.record().clone();
        let (saved, done) = oneshot::channel();
        self.work.push_back(Work::SaveSession(Box::new(record.clone()), vec![saved]));
        self.work_on(ctx);
        Box::pin(async move {
            let _ = done.await;
            Ok(record)
        })
    }
}

impl Handler<AskLive> for Session {
    type Result = Option<Live>;

    fn handle(&mut self, _: AskLive, _: &mut Self::Context) -> Self::Result {
        let streams = self.machine.streams().map(|(declaration, durable, lost)| LiveStream {
            feature: declaration.feature.clone(),
            next: durable.max(self.board.position(declaration.stream)),
            lost,
        });
        Some(Live {
            connected: self.link.as_ref().is_some_and(|link| !link.outbox.is_closed()),
            epoch: self.machine.record().epoch,
            episode: self.machine.current(),
            streams: streams.collect(),
            last_error: self.last_error.clone(),
        })
    }
}

impl Handler<Drain> for Session {
    type Result = ResponseFuture<()>;

    fn handle(&mut self, _: Drain, ctx: &mut Self::Context) -> Self::Result {
        self.is_stopping = true;
        self.append_stalled();
        self.clocks.touch();
        self.save_clocks(ctx);
        let (waiter, done) = oneshot::channel();
        self.draining.push(waiter);
        let outbox = self.link.as_ref().map(|link| link.outbox.clone());
        self.board.wake_session(true);
        self.board.session.notify_one();
        Box::pin(async move {
            let _ = done.await;
            if let Some(outbox) = outbox {
                // The process must not end before its goodbye is written.
                let _ = tokio::time::timeout(GOODBYE_TIMEOUT, outbox.closed()).await;
            }
        })
    }
}

impl Handler<Woken> for Session {
    type Result = ();

    fn handle(&mut self, _: Woken, ctx: &mut Self::Context) {
        self.pull_durable(ctx);
    }
}

impl Handler<TellProducer> for Session {
    type Result = ();

    fn handle(&mut self, message: TellProducer, _: &mut Self::Context) {
        if self.link.as_ref().is_some_and(|link| link.epoch == message.epoch) {
            self.refuse(message.error);
        }
    }
}

impl Handler<TellThrottle> for Session {
    type Result = ();

    fn handle(&mut self, message: TellThrottle, _: &mut Self::Context) {
        if self.link.as_ref().is_some_and(|link| link.epoch == message.epoch) {
            self.tell(Wire::Throttle(message.throttle));
        }
    }
}
