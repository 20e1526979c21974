//! Opens one WebSocket: TCP, perhaps TLS, then the HTTP handshake.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http_body_util::{BodyExt, Empty, Limited};
use hyper::header::{
    AUTHORIZATION, CONNECTION, HOST, HeaderValue, RETRY_AFTER, SEC_WEBSOCKET_KEY, SEC_WEBSOCKET_VERSION, UPGRADE,
};
use hyper::{Request, Response, StatusCode, Uri};
use hyper_util::rt::TokioIo;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, ServerName};
use rustls::{ClientConfig, RootCertStore};
use serde::Deserialize;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

use crate::config::{AgentConfig, Roots};
use crate::error::AgentError;
use crate::uplink::machine::Refusal;

/// Longest text of a refusal that is read.
const REFUSAL_BYTES_MAX: usize = 16 << 10;
/// Where Linux distributions keep the system's certificates.
const SYSTEM_ROOTS: [&str; 4] = [
    "/etc/ssl/certs/ca-certificates.crt",
    "/etc/pki/tls/certs/ca-bundle.crt",
    "/etc/ssl/ca-bundle.pem",
    "/etc/ssl/cert.pem",
];

/// Both directions of an open WebSocket. The reading side begins with what came right behind the handshake.
pub(crate) struct Socket {
    pub read: Box<dyn AsyncRead + Send + Unpin>,
    pub write: Box<dyn AsyncWrite + Send + Unpin>,
}

/// Why there is none.
#[derive(Debug)]
pub(crate) enum ConnectError {
    Refused(Refusal),
    Unreachable(String),
}

/// Where to connect to, checked once.
pub(crate) struct Target {
    pub url: String,
    host: String,
    port: u16,
    authority: String,
    path: String,
    tls: Option<(TlsConnector, ServerName<'static>)>,
    bearer: HeaderValue,
    timeout: Duration,
}

/// The server's text of a refused handshake.
#[derive(Deserialize)]
struct RefusalBody {
    error: RefusalText,
}

#[derive(Deserialize)]
struct RefusalText {
    code: String,
    message: String,
}

impl Target {
    pub fn new(config: &AgentConfig) -> Result<Self, AgentError> {
        let url = crate::config::ingest_url(&config.url);
        let wrong =
            |what: &str| AgentError::setting("url", format!("{url:?} {what}; it looks like ws://robot-lab:7420"));
        let uri: Uri = url.parse().map_err(|_| wrong("is no address"))?;
        let secure = match uri.scheme_str() {
            Some("ws") => false,
            Some("wss") => true,
            Some(_) | None => return Err(wrong("has neither ws:// nor wss:// in front")),
        };
        let authority = uri.authority().ok_or_else(|| wrong("names no host"))?.as_str().to_owned();
        if authority.contains('@') || uri.query().is_some() {
            return Err(wrong("holds a password or a query; the token goes into its own setting"));
        }
        let host = uri.host().ok_or_else(|| wrong("names no host"))?.trim_matches(['[', ']']).to_owned();
        let mut bearer = HeaderValue::try_from(format!("Bearer {}", config.token)).map_err(|_| {
            AgentError::setting("token", "holds characters that no token has; was a line feed copied with it?")
        })?;
        bearer.set_sensitive(true);
        let tls = if secure { Some(tls(&config.roots, &host)?) } else { None };
        let port = uri.port_u16().unwrap_or(if secure { 443 } else { 80 });
        Ok(Self {
            host,
            port,
            authority,
            path: uri.path().to_owned(),
            tls,
            bearer,
            timeout: config.connect_timeout,
            url,
        })
    }

    /// Opens a WebSocket, or says why not within the timeout.
    pub async fn open(&self) -> Result<Socket, ConnectError> {
        let waited = || {
            ConnectError::Unreachable(format!("{} did not answer within {} s", self.url, self.timeout.as_secs_f32()))
        };
        tokio::time::timeout(self.timeout, self.open_unhurried()).await.unwrap_or_else(|_| Err(waited()))
    }

    async fn open_unhurried(&self) -> Result<Socket, ConnectError> {
        let unreachable =
            |error: std::io::Error| ConnectError::Unreachable(format!("cannot connect to {}: {error}", self.authority));
        let tcp = TcpStream::connect((self.host.as_str(), self.port)).await.map_err(unreachable)?;
        tcp.set_nodelay(true).map_err(unreachable)?;
        match &self.tls {
            None => {
                let parts = self.upgrade::<TcpStream>(tcp).await?;
                let (read, write) = parts.io.into_inner().into_split();
                Ok(Socket { read: Box::new(std::io::Cursor::new(parts.read_buf).chain(read)), write: Box::new(write) })
            }
            Some((connector, name)) => {
                let stream = connector.connect(name.clone(), tcp).await.map_err(unreachable)?;
                let parts = self.upgrade::<TlsStream<TcpStream>>(stream).await?;
                let (read, write) = tokio::io::split(parts.io.into_inner());
                Ok(Socket { read: Box::new(std::io::Cursor::new(parts.read_buf).chain(read)), write: Box::new(write) })
            }
        }
    }

    async fn upgrade<S>(&self, stream: S) -> Result<hyper::upgrade::Parts<TokioIo<S>>, ConnectError>
    where
        S: AsyncRead + AsyncWrite + Send + Unpin + 'static,
    {
        let failed = |error: hyper::Error| {
            ConnectError::Unreachable(format!("handshake with {} failed: {error}", self.authority))
        };
        let request = Request::get(self.path.as_str())
            .header(HOST, self.authority.as_str())
            .header(UPGRADE, "websocket")
            .header(CONNECTION, "Upgrade")
            .header(SEC_WEBSOCKET_KEY, fastwebsockets::handshake::generate_key())
            .header(SEC_WEBSOCKET_VERSION, "13")
            .header(AUTHORIZATION, self.bearer.clone())
            .body(Empty::<Bytes>::new())
            .map_err(|error| ConnectError::Unreachable(format!("cannot write the handshake: {error}")))?;
        let (mut sender, connection) =
            hyper::client::conn::http1::handshake(TokioIo::new(stream)).await.map_err(failed)?;
        // Ends by itself: with the upgrade, or when the sender is dropped. Its error comes back through the request.
        let driver = tokio::spawn(connection.with_upgrades());
        let response = sender.send_request(request).await.map_err(failed)?;
        if response.status() != StatusCode::SWITCHING_PROTOCOLS {
            let refusal = refusal(response).await;
            driver.abort();
            return Err(ConnectError::Refused(refusal));
        }
        let upgraded = hyper::upgrade::on(response).await.map_err(failed)?;
        upgraded
            .downcast()
            .map_err(|_| ConnectError::Unreachable(String::from("the upgraded socket is not the one that was opened")))
    }
}

async fn refusal(response: Response<hyper::body::Incoming>) -> Refusal {
    let status = response.status();
    let header = response.headers().get(RETRY_AFTER).and_then(|value| value.to_str().ok());
    let retry_after = header.and_then(|text| text.trim().parse().ok()).map(Duration::from_secs);
    let body = Limited::new(response.into_body(), REFUSAL_BYTES_MAX)
        .collect()
        .await
        .map(|body| body.to_bytes())
        .unwrap_or_default();
    let (code, message) = match serde_json::from_slice::<RefusalBody>(&body) {
        Ok(body) => (body.error.code, body.error.message),
        // Not a Tendon server, or something in front of one: show the beginning of what it says.
        Err(_) => (String::new(), String::from_utf8_lossy(&body).trim().chars().take(200).collect()),
    };
    let message =
        if message.is_empty() { status.canonical_reason().unwrap_or("no reason given").to_owned() } else { message };
    Refusal { status: status.as_u16(), code, message, retry_after }
}

fn tls(roots: &Roots, host: &str) -> Result<(TlsConnector, ServerName<'static>), AgentError> {
    let wrong = |what: String| AgentError::setting("roots", what);
    let path = match roots {
        Roots::None => {
            return Err(wrong(String::from(
                "none are configured, so that wss:// cannot be trusted; name a PEM file or take the system's",
            )));
        }
        Roots::Pem(path) => path.clone(),
        Roots::System => system_roots()
            .ok_or_else(|| wrong(format!("found no system certificates in {SYSTEM_ROOTS:?}; name a PEM file")))?,
    };
    let mut store = RootCertStore::empty();
    let certificates = CertificateDer::pem_file_iter(&path)
        .map_err(|error| wrong(format!("cannot read {}: {error}", path.display())))?;
    // One certificate that rustls does not take must not cost the others of a system's bundle.
    let (taken, _ignored) = store.add_parsable_certificates(certificates.filter_map(Result::ok));
    if taken == 0 {
        return Err(wrong(format!("{} holds no certificate that can be used", path.display())));
    }
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let config = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .map_err(|error| wrong(error.to_string()))?
        .with_root_certificates(store)
        .with_no_client_auth();
    let name = ServerName::try_from(host.to_owned())
        .map_err(|_| AgentError::setting("url", format!("{host:?} is no name that a certificate can have")))?;
    Ok((TlsConnector::from(Arc::new(config)), name))
}

fn system_roots() -> Option<PathBuf> {
    let configured = std::env::var_os("SSL_CERT_FILE").map(PathBuf::from);
    configured.into_iter().chain(SYSTEM_ROOTS.map(PathBuf::from)).find(|path| path.is_file())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::clock::Clock;
    use tendon_protocol::id::{ClockId, ProducerId, SessionId};

    fn refused(url: &str, token: &str, roots: Roots) -> String {
        let clock = Clock::replay(ClockId::from_u128(1));
        let mut config = AgentConfig::new(url, token, SessionId::default(), ProducerId::default(), clock);
        config.roots = roots;
        Target::new(&config).err().map(|error| error.to_string()).unwrap_or_default()
    }

    #[test]
    fn an_address_that_cannot_be_right_is_refused_before_anything_is_sent() {
        assert!(refused("ftp://h", "t", Roots::None).contains("neither ws:// nor wss://"));
        assert!(refused("ws://user:secret@h/", "t", Roots::None).contains("password"));
        assert!(refused("ws://h/x?token=1", "t", Roots::None).contains("query"));
        assert!(refused("ws://h", "a\nb", Roots::None).contains("token"));
        assert!(refused("wss://h", "t", Roots::None).contains("none are configured"));
        assert_eq!(refused("ws://[::1]:80", "t", Roots::None), "");
    }
}
