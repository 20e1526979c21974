//! From an HTTP request with `Upgrade: websocket` to a WebSocket of a producer.

use std::io;
use std::sync::Arc;
use std::time::Duration;

use actix_codec::{AsyncRead, AsyncWrite, Framed};
use actix_http::{HttpMessage, Request, h1};
use actix_rt::ArbiterHandle;
use tendon_actors::fleet::FleetHandle;
use tendon_storage::records::Right;
use tokio::io::AsyncWriteExt;

use crate::admission::Admission;
use crate::auth::{Auth, Identity, offers_subprotocol};
use crate::ingest::connection;

/// Path of the record lane.
pub const INGEST_PATH: &str = "/api/v1/ingest";

/// What the raw door needs.
pub struct Door {
    /// Finds sessions.
    pub fleet: FleetHandle,
    /// Checks tokens.
    pub auth: Arc<Auth>,
    /// Limits.
    pub admission: Admission,
    /// A connection that sends nothing for so long is closed.
    pub idle_timeout: Duration,
    /// Time between two probes of a producer's clock.
    pub probe_interval: Duration,
    /// Told when the server stops.
    pub stopping: tokio::sync::watch::Receiver<bool>,
}

/// A handshake that is refused: status, code for programs, text for people.
struct Refused {
    status: u16,
    code: &'static str,
    message: String,
    retry_after: Option<Duration>,
}

/// Serves one upgraded request to its end.
pub async fn serve<T>(request: Request, framed: Framed<T, h1::Codec>, door: Arc<Door>, arbiter: ArbiterHandle)
where
    T: AsyncRead + AsyncWrite + Unpin + 'static,
{
    let (mut io, read_buf) = {
        let parts = framed.into_parts();
        (parts.io, parts.read_buf)
    };
    let admitted = admit(&request, &door).await;
    let accepted = accept_text(&request);
    // A connection lives for hours: nothing of its handshake stays.
    drop(request);
    match admitted {
        Ok(identity) => {
            if io.write_all(accepted.as_bytes()).await.is_err() || io.flush().await.is_err() {
                return;
            }
            metrics::gauge!("tendon_connections").increment(1.0);
            // A client may send right behind its handshake: what was read already comes first.
            let io = Prefixed::new(read_buf, io);
            connection::run(io, &door, &identity, &arbiter).await;
            metrics::gauge!("tendon_connections").decrement(1.0);
        }
        Err(refused) => {
            metrics::counter!("tendon_handshakes_refused_total", "code" => refused.code).increment(1);
            let _ = write_refusal(&mut io, &refused).await;
        }
    }
}

async fn admit(request: &Request, door: &Door) -> Result<Identity, Refused> {
    let refused = |status, code, message: String| Refused { status, code, message, retry_after: None };
    if request.path() != INGEST_PATH {
        let message = format!("no WebSocket at {}; producers connect to {INGEST_PATH}", request.path());
        return Err(refused(404, "not_found", message));
    }
    if *door.stopping.borrow() {
        let message = "the server stops; connect again in a few seconds".to_owned();
        return Err(Refused { status: 503, code: "stopping", message, retry_after: Some(Duration::from_secs(2)) });
    }
    if let Err(error) = actix_http::ws::verify_handshake(request.head()) {
        return Err(refused(400, "bad_handshake", format!("{error}; send a WebSocket handshake of version 13")));
    }
    if let Err(wait) = door.admission.handshake() {
        let message = format!("too many handshakes at once; try again in {} ms", wait.as_millis());
        return Err(Refused { status: 429, code: "too_many_handshakes", message, retry_after: Some(wait) });
    }
    let identity = door.auth.admit(request.head()).await;
    let identity = identity.map_err(|error| refused(error.status(), error.code(), error.to_string()))?;
    identity.require(Right::Stream).map_err(|error| refused(error.status(), error.code(), error.to_string()))?;
    Ok(identity)
}

fn accept_text(request: &Request) -> String {
    let key = request.headers().get("sec-websocket-key").map(|key| actix_http::ws::hash_key(key.as_bytes()));
    let accept = key.unwrap_or_default();
    let accept = String::from_utf8_lossy(&accept);
    let protocol = if offers_subprotocol(request.headers()) { "Sec-WebSocket-Protocol: tendon\r\n" } else { "" };
    format!(
        "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Accept: {accept}\r\n{protocol}\r\n"
    )
}

async fn write_refusal<T: AsyncWrite + Unpin>(io: &mut T, refused: &Refused) -> io::Result<()> {
    let body = serde_json::json!({ "error": { "code": refused.code, "message": refused.message } }).to_string();
    let reason = match refused.status {
        400 => "Bad Request",
        401 => "Unauthorized",
        403 => "Forbidden",
        404 => "Not Found",
        429 => "Too Many Requests",
        _ => "Service Unavailable",
    };
    let retry = refused.retry_after.map_or(String::new(), |wait| format!("Retry-After: {}\r\n", wait.as_secs() + 1));
    let head = format!(
        "HTTP/1.1 {} {reason}\r\nContent-Type: application/json\r\nContent-Length: {}\r\nConnection: close\r\n{retry}\r\n",
        refused.status,
        body.len()
    );
    io.write_all(head.as_bytes()).await?;
    io.write_all(body.as_bytes()).await?;
    io.flush().await?;
    io.shutdown().await
}

/// A socket with bytes in front that were read from it already.
pub struct Prefixed<T> {
    prefix: bytes::BytesMut,
    io: T,
}

impl<T> Prefixed<T> {
    /// `prefix` is read first, then `io`.
    pub const fn new(prefix: bytes::BytesMut, io: T) -> Self {
        Self { prefix, io }
    }
}

impl<T: AsyncRead + Unpin> AsyncRead for Prefixed<T> {
    fn poll_read(
        mut self: std::pin::Pin<&mut Self>,
        cx: &mut std::task::Context<'_>,
        buf: &mut tokio::io::ReadBuf<'_>,
    ) -> std::task::Poll<io::Result<()>> {
        if self.prefix.is_empty() {
            return std::pin::Pin::new(&mut self.io).poll_read(cx, buf);
        }
        let count = self.prefix.len().min(buf.remaining());
        buf.put_slice(&self.prefix.split_to(count));
        if self.prefix.is_empty() {
            self.prefix = bytes::BytesMut::new();
        }
        std::task::Poll::Ready(Ok(()))
    }
}

impl<T: AsyncWrite + Unpin> AsyncWrite for Prefixed<T> {
    fn poll_write(
        mut self: std::pin::Pin<&mut Self>,
        cx: &mut std::task::Context<'_>,
        data: &[u8],
    ) -> std::task::Poll<io::Result<usize>> {
        std::pin::Pin::new(&mut self.io).poll_write(cx, data)
    }
    fn poll_flush(
        mut self: std::pin::Pin<&mut Self>,
        cx: &mut std::task::Context<'_>,
    ) -> std::task::Poll<io::Result<()>> {
        std::pin::Pin::new(&mut self.io).poll_flush(cx)
    }
    fn poll_shutdown(
        mut self: std::pin::Pin<&mut Self>,
        cx: &mut std::task::Context<'_>,
    ) -> std::task::Poll<io::Result<()>> {
        std::pin::Pin::new(&mut self.io).poll_shutdown(cx)
    }
    fn poll_write_vectored(
        mut self: std::pin::Pin<&mut Self>,
        cx: &mut std::task::Context<'_>,
        data: &[io::IoSlice<'_>],
    ) -> std::task::Poll<io::Result<usize>> {
        std::pin::Pin::new(&mut self.io).poll_write_vectored(cx, data)
    }
    fn is_write_vectored(&self) -> bool {
        self.io.is_write_vectored()
    }
}
