//! The operators' console: a WebSocket that shows each second which sessions are live.
//!
//! Called by `http::configure` for `GET /api/v1/console`. It is the only user of
//! `actix-web-actors`, whose outgoing queue has no bound; so the bound is here: after each
//! snapshot comes a ping, and the next snapshot waits for its pong, which proves that the page has
//! read everything before it. The newest wins: a slow page gets fewer snapshots, never older ones,
//! and one that has not read for [`SILENCE_MAX`] is closed.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use actix::prelude::*;
use actix_web::http::StatusCode;
use actix_web::{HttpRequest, HttpResponse, web};
use actix_web_actors::ws;
use serde_json::{Value, json};
use tendon_actors::api::Live;
use tendon_storage::meta::SessionFilter;
use tendon_storage::records::{SessionRecord, SessionState};

use crate::auth::{AuthError, Identity, SUBPROTOCOL};
use crate::http::door::{Granted, Read};
use crate::http::{ApiError, HttpState, now_ns};

/// Time between two snapshots: what a person who watches many robots can take in.
const PERIOD: Duration = Duration::from_secs(1);
/// Longest time for which a page may read nothing: ten snapshots, or a laptop changing its network.
pub const SILENCE_MAX: Duration = Duration::from_secs(10);
/// Most consoles that are open at once; each reads the session lists once a second.
pub const CONSOLES_MAX: usize = 64;
/// Most sessions of each state in a snapshot.
const SESSIONS_MAX: usize = 200;
/// Longest snapshot in bytes; fits into the socket's buffer of a usual system.
const SNAPSHOT_BYTES_MAX: usize = 256 << 10;
/// Longest frame of a page in bytes. Pages send only pongs and farewells, of 125 bytes at most.
const FRAME_BYTES_MAX: usize = 1024;

/// Opens a console.
///
/// # Errors
/// When the request is no WebSocket handshake, or there are [`CONSOLES_MAX`] consoles.
pub(crate) async fn console(
    granted: Granted<Read>,
    request: HttpRequest,
    stream: web::Payload,
    state: web::Data<HttpState>,
) -> Result<HttpResponse, ApiError> {
    let seat = Seat::take(&state.consoles).ok_or_else(|| {
        let message = format!("{CONSOLES_MAX} consoles are open, the limit; close one first");
        ApiError::new(StatusCode::TOO_MANY_REQUESTS, "busy", message)
    })?;
    let console = Console {
        state,
        identity: granted.identity,
        reader: Reader::new(Instant::now()),
        pong_owed: None,
        _seat: seat,
    };
    ws::WsResponseBuilder::new(console, &request, stream)
        .protocols(&[SUBPROTOCOL])
        .frame_size(FRAME_BYTES_MAX)
        .start()
        .map_err(|error| {
            let message = format!("no WebSocket handshake ({error}); open this path with a WebSocket client");
            ApiError::new(StatusCode::BAD_REQUEST, "no_websocket", message)
        })
}

/// A place among the open consoles, given back when dropped.
struct Seat(Arc<AtomicUsize>);

impl Seat {
    fn take(taken: &Arc<AtomicUsize>) -> Option<Self> {
        let one_more = |count: usize| (count < CONSOLES_MAX).then_some(count + 1);
        let took = taken.fetch_update(Ordering::Relaxed, Ordering::Relaxed, one_more).is_ok();
        took.then(|| Self(Arc::clone(taken)))
    }
}

impl Drop for Seat {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

/// How far the page has read.
#[derive(Debug)]
struct Reader {
    /// Number of the newest ping.
    sent: u64,
    /// Whether its pong has come.
    has_read: bool,
    /// Whether a snapshot is being made.
    is_making: bool,
    /// When the page last proved that it reads.
    read_at: Instant,
}

impl Reader {
    fn new(now: Instant) -> Self {
        Self { sent: 0, has_read: true, is_making: false, read_at: now }
    }

    /// Whether a snapshot may be made now. If so, it is being made.
    fn start_snapshot(&mut self) -> bool {
        let may = self.has_read && !self.is_making;
        self.is_making |= may;
        may
    }

    /// The snapshot was sent; gives the number of the ping that follows it.
    fn snapshot_sent(&mut self) -> u64 {
        self.is_making = false;
        self.has_read = false;
        self.sent += 1;
        self.sent
    }

    /// No snapshot could be made this time.
    fn snapshot_failed(&mut self, now: Instant) {
        self.is_making = false;
        self.read_at = now;
    }

    /// A pong came. One that answers an older ping, or none at all, proves nothing.
    fn pong(&mut self, payload: &[u8], now: Instant) {
        if payload == self.sent.to_be_bytes() {
            self.has_read = true;
            self.read_at = now;
        }
    }

    fn is_gone(&self, now: Instant) -> bool {
        !self.has_read && now.saturating_duration_since(self.read_at) > SILENCE_MAX
    }
}

/// One open console.
struct Console {
    state: web::Data<HttpState>,
    identity: Identity,
    reader: Reader,
    /// The newest ping of the page. Answered once a period: pings are no way to fill the queue.
    pong_owed: Option<web::Bytes>,
    _seat: Seat,
}

impl Console {
    fn tick(&mut self, context: &mut ws::WebsocketContext<Self>) {
        if self.reader.is_gone(Instant::now()) {
            close(context, ws::CloseCode::Policy, "the page has stopped reading; open the console again");
            return;
        }
        if let Some(ping) = self.pong_owed.take() {
            context.pong(&ping);
        }
        if !self.reader.start_snapshot() {
            return;
        }
        let made = snapshot(self.state.clone(), self.identity.clone());
        context.spawn(made.into_actor(self).map(|made, console, context| match made {
            Ok(text) => {
                context.text(text);
                let ping = console.reader.snapshot_sent();
                context.ping(&ping.to_be_bytes());
            }
            Err(Stop::Refused) => {
                close(context, ws::CloseCode::Policy, "the token was revoked; ask an admin for a new one")
            }
            // Said in the log already; the next period tries again.
            Err(Stop::Later) => console.reader.snapshot_failed(Instant::now()),
        }));
    }
}

fn close(context: &mut ws::WebsocketContext<Console>, code: ws::CloseCode, reason: &str) {
    context.close(Some((code, reason).into()));
    context.stop();
}

impl Actor for Console {
    type Context = ws::WebsocketContext<Self>;

    fn started(&mut self, context: &mut Self::Context) {
        self.tick(context);
        context.run_interval(PERIOD, Self::tick);
    }
}

impl StreamHandler<Result<ws::Message, ws::ProtocolError>> for Console {
    fn handle(&mut self, message: Result<ws::Message, ws::ProtocolError>, context: &mut Self::Context) {
        match message {
            Ok(ws::Message::Ping(payload)) => self.pong_owed = Some(payload),
            Ok(ws::Message::Pong(payload)) => self.reader.pong(&payload, Instant::now()),
            Ok(ws::Message::Close(reason)) => {
                context.close(reason);
                context.stop();
            }
            Ok(ws::Message::Text(_) | ws::Message::Binary(_) | ws::Message::Continuation(_)) => {
                close(context, ws::CloseCode::Policy, "the console takes no messages; use the REST interface");
            }
            Ok(ws::Message::Nop) => {}
            Err(error) => {
                tracing::debug!(%error, "a console sent no WebSocket frame");
                close(context, ws::CloseCode::Protocol, "that was no frame of a console");
            }
        }
    }
}

/// Why there is no snapshot.
enum Stop {
    /// The token was revoked meanwhile.
    Refused,
    /// A store does not answer.
    Later,
}

/// All live sessions, newest first, as JSON.
async fn snapshot(state: web::Data<HttpState>, identity: Identity) -> Result<String, Stop> {
    match state.auth.recheck(&identity).await {
        Ok(()) => {}
        Err(AuthError::Store(_)) => return Err(Stop::Later),
        Err(_) => return Err(Stop::Refused),
    }
    let listed = state.ask(|meta| {
        let mut records = Vec::new();
        for wanted in [SessionState::Recording, SessionState::Paused, SessionState::Created] {
            let filter = SessionFilter { state: Some(wanted), ..SessionFilter::default() };
            records.extend(meta.sessions.list(&filter, None, SESSIONS_MAX)?.records);
        }
        Ok(records)
    });
    let mut records = listed.await.map_err(|_| Stop::Later)?;
    records.sort_by_key(|record| std::cmp::Reverse(record.created_ns));
    let mut shown = Vec::new();
    for record in records {
        if let Some(live) = state.fleet.live(record.id).await {
            shown.push(view(&record, &live));
        }
    }
    Ok(assemble(now_ns(), shown))
}

/// What a console shows of one session.
fn view(record: &SessionRecord, live: &Live) -> Value {
    json!({
        "id": record.id,
        "operator": record.operator,
        "robot": record.robot,
        "dataset": record.dataset,
        "type": record.kind,
        "state": record.state,
        "created_ns": record.created_ns,
        "episodes": record.episodes,
        "live": live,
    })
}

/// The text of a snapshot; `more` says that sessions were left out for its length.
fn assemble(at_ns: i64, sessions: Vec<Value>) -> String {
    let mut bytes = 0;
    let all = sessions.len();
    let kept: Vec<Value> = sessions
        .into_iter()
        .take_while(|session| {
            bytes += session.to_string().len() + 1;
            bytes <= SNAPSHOT_BYTES_MAX
        })
        .collect();
    json!({ "at_ns": at_ns, "more": kept.len() < all, "sessions": kept }).to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_next_snapshot_waits_until_the_page_has_read_the_last_one() {
        let start = Instant::now();
        let mut reader = Reader::new(start);
        assert!(reader.start_snapshot());
        assert!(!reader.start_snapshot(), "one is being made");
        let first = reader.snapshot_sent();
        assert!(!reader.start_snapshot(), "the page has not read it");
        reader.pong(&(first + 1).to_be_bytes(), start);
        reader.pong(b"", start);
        assert!(!reader.start_snapshot(), "these pongs answer no ping");
        reader.pong(&first.to_be_bytes(), start);
        assert!(reader.start_snapshot());
        let second = reader.snapshot_sent();
        reader.pong(&first.to_be_bytes(), start);
        assert!(!reader.start_snapshot(), "an old pong proves nothing");
        reader.pong(&second.to_be_bytes(), start);
        assert!(reader.start_snapshot());
    }

    #[test]
    fn a_page_that_stops_reading_is_gone_and_one_that_reads_slowly_is_not() {
        let start = Instant::now();
        let mut reader = Reader::new(start);
        assert!(reader.start_snapshot());
        let ping = reader.snapshot_sent();
        assert!(!reader.is_gone(start + SILENCE_MAX));
        assert!(reader.is_gone(start + SILENCE_MAX + Duration::from_millis(1)));
        reader.pong(&ping.to_be_bytes(), start + SILENCE_MAX);
        assert!(!reader.is_gone(start + SILENCE_MAX * 2), "it has read all there is");
    }

    #[test]
    fn a_store_that_fails_for_a_while_does_not_end_a_console() {
        let start = Instant::now();
        let mut reader = Reader::new(start);
        assert!(reader.start_snapshot());
        reader.snapshot_failed(start + SILENCE_MAX * 3);
        assert!(!reader.is_gone(start + SILENCE_MAX * 3));
        assert!(reader.start_snapshot());
    }

    #[test]
    fn consoles_beyond_the_limit_find_no_seat_until_one_is_left() {
        let taken = Arc::new(AtomicUsize::new(0));
        let mut seats: Vec<Seat> = (0..CONSOLES_MAX).map(|_| Seat::take(&taken).unwrap()).collect();
        assert!(Seat::take(&taken).is_none());
        seats.pop();
        assert!(Seat::take(&taken).is_some());
        drop(seats);
        assert_eq!(taken.load(Ordering::Relaxed), 0);
    }

    #[test]
    fn a_snapshot_stays_within_its_length_and_says_what_it_left_out() {
        let session = json!({ "id": "x".repeat(1000) });
        let few: Value = serde_json::from_str(&assemble(5, vec![session.clone(); 3])).unwrap();
        assert_eq!((few["sessions"].as_array().unwrap().len(), &few["more"]), (3, &json!(false)));
        let text = assemble(5, vec![session; 1000]);
        assert!(text.len() <= SNAPSHOT_BYTES_MAX + 100, "{} bytes", text.len());
        let many: Value = serde_json::from_str(&text).unwrap();
        assert_eq!(many["more"], json!(true));
        assert!(many["sessions"].as_array().unwrap().len() > 200);
    }
}
