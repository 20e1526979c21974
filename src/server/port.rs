//! The one port: plain TCP or TLS, HTTP with the API, and two kinds of WebSocket.
//!
//! A producer's socket is taken from the HTTP server by its upgrade hook and served by hand. That
//! hook would also take the operators' console, which the HTTP server serves itself. So the first
//! request line is read before the choice is made.

use std::io;
use std::net::SocketAddr;
use std::pin::Pin;
use std::rc::Rc;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use actix_codec::{AsyncRead, AsyncWrite, Framed, ReadBuf};
use actix_http::{HttpServiceBuilder, KeepAlive, Request, h1};
use actix_rt::Arbiter;
use actix_rt::net::TcpStream;
use actix_server::Server;
use actix_service::{Service, ServiceFactory, fn_factory, fn_service, map_config};
use actix_web::dev::AppConfig;
use actix_web::{App, web};
use anyhow::{Context as _, Result, bail};
use bytes::BytesMut;
use tokio::io::AsyncReadExt;
use tokio_rustls::TlsAcceptor;
use tokio_rustls::server::TlsStream;

use crate::config::{Config, Tls};
use crate::http::{self, HttpState};
use crate::ingest::listener::{Door, Prefixed, serve};

/// Path whose WebSocket the HTTP server serves itself.
const CONSOLE_PATH: &str = "/api/v1/console";
/// Time for the TLS handshake and the first request line.
const FIRST_LINE_TIMEOUT: Duration = Duration::from_secs(10);
/// Longest first request line that is looked at.
const FIRST_LINE_BYTES_MAX: usize = 4096;
/// An HTTP connection without a request is closed after so long.
const KEEP_ALIVE: Duration = Duration::from_secs(30);
/// Connections that wait to be accepted.
const BACKLOG: u32 = 1024;

/// A connection's socket.
pub enum Socket {
    /// TCP as it is.
    Plain(TcpStream),
    /// TLS over TCP.
    Tls(Box<TlsStream<TcpStream>>),
}

macro_rules! either {
    ($self:ident, $io:ident => $call:expr) => {
        match $self.get_mut() {
            Socket::Plain($io) => $call,
            Socket::Tls(inner) => {
                let $io = inner.as_mut();
                $call
            }
        }
    };
}

impl AsyncRead for Socket {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        either!(self, io => Pin::new(io).poll_read(cx, buf))
    }
}

impl AsyncWrite for Socket {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, data: &[u8]) -> Poll<io::Result<usize>> {
        either!(self, io => Pin::new(io).poll_write(cx, data))
    }
    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        either!(self, io => Pin::new(io).poll_flush(cx))
    }
    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        either!(self, io => Pin::new(io).poll_shutdown(cx))
    }
    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        data: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        either!(self, io => Pin::new(io).poll_write_vectored(cx, data))
    }
    fn is_write_vectored(&self) -> bool {
        match self {
            Self::Plain(io) => io.is_write_vectored(),
            Self::Tls(io) => io.is_write_vectored(),
        }
    }
}

type Io = Prefixed<Socket>;

/// Binds the port and builds the server, which runs when it is awaited.
///
/// # Errors
/// When the address is taken or a certificate cannot be read.
pub(super) fn open(config: &Config, door: Arc<Door>, state: HttpState) -> Result<(Server, SocketAddr)> {
    let listener = std::net::TcpListener::bind(config.listen).with_context(|| {
        format!("address {} cannot be used; stop who uses it or choose another with --listen", config.listen)
    })?;
    let address = listener.local_addr()?;
    let tls = config.tls.as_ref().map(acceptor).transpose()?;
    let state = web::Data::new(state);
    let builder = Server::build()
        .workers(config.worker_threads())
        .worker_max_blocking_threads(super::BLOCKING_THREADS)
        .backlog(BACKLOG)
        .disable_signals()
        .shutdown_timeout(1);
    let server = builder.listen("tendon", listener, move || {
        let (door, state, tls) = (Arc::clone(&door), state.clone(), tls.clone());
        fn_factory(move || services(Arc::clone(&door), state.clone(), tls.clone()))
    });
    Ok((server.context("the port cannot be served")?.run(), address))
}

async fn services(
    door: Arc<Door>,
    state: web::Data<HttpState>,
    tls: Option<TlsAcceptor>,
) -> Result<impl Service<TcpStream, Response = (), Error = ()>, ()> {
    let app = move || {
        let state = state.clone();
        map_config(App::new().configure(move |service| http::configure(service, state)), |()| AppConfig::default())
    };
    let upgrade = fn_service(move |(request, framed): (Request, Framed<Io, h1::Codec>)| {
        let door = Arc::clone(&door);
        async move {
            serve(request, framed, door, Arbiter::current()).await;
            Ok::<(), actix_http::Error>(())
        }
    });
    let keep_alive = KeepAlive::Timeout(KEEP_ALIVE);
    let with_ingest = HttpServiceBuilder::<Io, _, _, _>::default().keep_alive(keep_alive).upgrade(upgrade).h1(app());
    let with_console = HttpServiceBuilder::<Io, _, _, _>::default().keep_alive(keep_alive).h1(app());
    let with_ingest = Rc::new(with_ingest.new_service(()).await?);
    let with_console = Rc::new(with_console.new_service(()).await?);
    Ok(fn_service(move |tcp: TcpStream| {
        let (with_ingest, with_console, tls) = (Rc::clone(&with_ingest), Rc::clone(&with_console), tls.clone());
        async move {
            let peer = tcp.peer_addr().ok();
            let _ = tcp.set_nodelay(true);
            let Ok(Ok((io, is_console))) = tokio::time::timeout(FIRST_LINE_TIMEOUT, first_line(tcp, tls)).await else {
                return Ok(());
            };
            let served =
                if is_console { with_console.call((io, peer)).await } else { with_ingest.call((io, peer)).await };
            if let Err(error) = served {
                tracing::debug!("connection ended: {error}");
            }
            Ok(())
        }
    }))
}

/// Opens TLS if there is any and reads up to the end of the first request line, which stays to be read.
async fn first_line(tcp: TcpStream, tls: Option<TlsAcceptor>) -> io::Result<(Io, bool)> {
    let mut socket = match tls {
        Some(tls) => Socket::Tls(Box::new(tls.accept(tcp).await?)),
        None => Socket::Plain(tcp),
    };
    let mut read = BytesMut::with_capacity(FIRST_LINE_BYTES_MAX);
    while !read.contains(&b'\n') && read.len() < FIRST_LINE_BYTES_MAX {
        if socket.read_buf(&mut read).await? == 0 {
            break;
        }
    }
    let target = read[..].split(|byte| *byte == b' ').nth(1).unwrap_or_default();
    let path = target.split(|byte| *byte == b'?').next().unwrap_or_default();
    let is_console = path == CONSOLE_PATH.as_bytes();
    Ok((Prefixed::new(read, socket), is_console))
}

fn acceptor(tls: &Tls) -> Result<TlsAcceptor> {
    use rustls::pki_types::pem::PemObject;
    use rustls::pki_types::{CertificateDer, PrivateKeyDer};
    let chain = CertificateDer::pem_file_iter(&tls.cert)
        .and_then(Iterator::collect::<Result<Vec<_>, _>>)
        .with_context(|| format!("certificate {} cannot be read; it must be PEM", tls.cert.display()))?;
    if chain.is_empty() {
        bail!("{} holds no certificate; it must be PEM, own certificate first", tls.cert.display());
    }
    let key = PrivateKeyDer::from_pem_file(&tls.key)
        .with_context(|| format!("key {} cannot be read; it must be PEM", tls.key.display()))?;
    let mut config =
        rustls::ServerConfig::builder().with_no_client_auth().with_single_cert(chain, key).with_context(|| {
            format!("certificate {} and key {} do not fit together", tls.cert.display(), tls.key.display())
        })?;
    config.alpn_protocols = vec![b"http/1.1".to_vec()];
    Ok(TlsAcceptor::from(Arc::new(config)))
}
