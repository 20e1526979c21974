//! A client of the server's REST interface.
//!
//! Answers are the records of `tendon-storage`, as the server stores them; fields that this version
//! does not know are skipped. [`Client::get_patiently`] rides out a server that is started again.

use std::time::Duration;

use futures::StreamExt;
use reqwest::{Method, RequestBuilder, Response, StatusCode};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use tendon_actors::api::NewExport;
use tendon_protocol::id::SessionId;
use tendon_storage::accounts::Token;
use tendon_storage::records::{DatasetName, EpisodeRecord, ExportRecord, Role, RowClock, SessionRecord, SessionType};
use tokio::io::AsyncWriteExt;
use tokio::time::Instant;

use super::ServerArgs;
use super::error::CliError;

/// Longest time for a connection to come up.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);
/// A server that says nothing for so long is hung or away.
const READ_TIMEOUT: Duration = Duration::from_secs(60);
/// How long a server may be away while somebody waits for a job on it.
const PATIENCE: Duration = Duration::from_secs(60);
/// Pause between two tries.
const RETRY_PAUSE: Duration = Duration::from_millis(500);
/// Most records of one page; the server's own limit.
const PAGE: usize = 1000;
/// Longest error answer that is read.
const ERROR_BYTES_MAX: usize = 64 << 10;
/// Longest answer that is no file: a page of records, each below a megabyte in any sane use.
const ANSWER_BYTES_MAX: usize = 256 << 20;

/// What a new session is made of; `POST /sessions`.
#[derive(Clone, Debug, Serialize)]
pub struct NewSession {
    /// Who drives.
    pub operator: String,
    /// Which robot.
    pub robot: String,
    /// The robot's kind.
    pub embodiment: String,
    /// How it is driven.
    #[serde(rename = "type")]
    pub kind: SessionType,
    /// Rows a second.
    pub fps: u32,
    /// What decides when a row is taken.
    pub row_clock: RowClock,
    /// The dataset that the episodes belong to.
    pub dataset: DatasetName,
    /// Free fields.
    pub metadata: serde_json::Map<String, serde_json::Value>,
}

/// A token as the server shows it.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct ShownToken {
    /// The public half.
    pub id: String,
    /// Whose it is.
    pub name: String,
    /// What the holder is.
    pub role: Role,
    /// When it was made.
    pub created_ns: i64,
    /// When it was revoked.
    #[serde(default)]
    pub revoked_ns: Option<i64>,
}

/// A token that was made just now.
#[derive(Clone, Deserialize)]
pub struct MadeToken {
    /// What lists show.
    #[serde(flatten)]
    pub shown: ShownToken,
    /// The whole text.
    pub token: String,
}

#[derive(Deserialize)]
struct Refused {
    error: Refusal,
}

#[derive(Deserialize)]
struct Refusal {
    code: String,
    message: String,
}

/// One server, one token.
#[derive(Clone)]
pub struct Client {
    http: reqwest::Client,
    base: String,
    token: String,
}

/// The address of a server without a path, from whatever people type.
///
/// # Errors
/// When it is no address, or carries a token.
pub fn base_url(text: &str) -> Result<String, CliError> {
    let text = text.trim();
    let (scheme, rest) = match text.split_once("://") {
        Some(("http" | "ws", rest)) => ("http", rest),
        Some(("https" | "wss", rest)) => ("https", rest),
        Some((scheme, _)) => {
            let scheme: String = scheme.chars().take(16).collect();
            return Err(CliError::usage(format!(
                "--to begins with {scheme}://; a server's address begins with http:// or https://"
            )));
        }
        None => ("http", text),
    };
    if rest.contains(['?', '@', '#']) {
        return Err(CliError::usage(
            "--to holds more than an address; give the token with --token or TENDON_TOKEN, not in the URL",
        ));
    }
    let host = rest.split('/').next().unwrap_or_default();
    let url = format!("{scheme}://{host}");
    match reqwest::Url::parse(&url) {
        Ok(parsed) if parsed.host_str().is_some_and(|host| !host.is_empty()) => Ok(url),
        Ok(_) | Err(_) => {
            let shown: String = text.chars().take(128).collect();
            Err(CliError::usage(format!("--to is {shown:?}; write an address such as http://127.0.0.1:7400")))
        }
    }
}

impl Client {
    /// A client for the server that the arguments name.
    ///
    /// # Errors
    /// When the address or the token cannot be right.
    pub fn new(server: &ServerArgs) -> Result<Self, CliError> {
        let base = base_url(&server.to)?;
        let token = server.token.trim().to_owned();
        if let Err(error) = token.parse::<Token>() {
            return Err(CliError::usage(format!("--token: {error}")));
        }
        let http = reqwest::Client::builder()
            .connect_timeout(CONNECT_TIMEOUT)
            .read_timeout(READ_TIMEOUT)
            .user_agent(concat!("tendon/", env!("CARGO_PKG_VERSION")))
            // A token must not follow a redirect to another host.
            .redirect(reqwest::redirect::Policy::none())
            .build()
            .map_err(|error| {
                CliError::failed(format!("no HTTP client ({error}); are the system's certificates installed?"))
            })?;
        Ok(Self { http, base, token })
    }

    /// The server's address, without a path.
    #[must_use]
    pub fn base(&self) -> &str {
        &self.base
    }

    /// The token, for a producer's connection.
    #[must_use]
    pub fn token(&self) -> &str {
        &self.token
    }

    fn request(&self, method: Method, path: &str) -> RequestBuilder {
        self.http.request(method, format!("{}/api/v1{path}", self.base)).bearer_auth(&self.token)
    }

    async fn send(&self, request: RequestBuilder) -> Result<Response, CliError> {
        let response = request.send().await.map_err(|error| self.unreachable(&error))?;
        if response.status().is_success() {
            return Ok(response);
        }
        Err(refusal(response).await)
    }

    fn unreachable(&self, error: &reqwest::Error) -> CliError {
        let mut reason = error.to_string();
        let mut source = std::error::Error::source(error);
        while let Some(deeper) = source {
            reason = deeper.to_string();
            source = deeper.source();
        }
        CliError::unreachable(format!(
            "no server answers at {} ({reason}); start one with `tendon serve`, or correct --to",
            self.base
        ))
    }

    async fn read<T: DeserializeOwned>(&self, response: Response) -> Result<T, CliError> {
        let bytes = collect(response, ANSWER_BYTES_MAX).await.map_err(|error| self.unreachable(&error))?;
        serde_json::from_slice(&bytes).map_err(|error| {
            CliError::failed(format!(
                "{} answers something else than expected ({error}); is it a Tendon server of this version?",
                self.base
            ))
        })
    }

    /// Asks for one thing.
    ///
    /// # Errors
    /// When the server does not answer or refuses.
    pub async fn get<T: DeserializeOwned>(&self, path: &str) -> Result<T, CliError> {
        let response = self.send(self.request(Method::GET, path)).await?;
        self.read(response).await
    }

    /// Asks again while the server is away, for at most a minute.
    ///
    /// # Errors
    /// As [`Client::get`].
    pub async fn get_patiently<T: DeserializeOwned>(&self, path: &str) -> Result<T, CliError> {
        let until = Instant::now() + PATIENCE;
        loop {
            match self.get(path).await {
                Err(error) if (error.code == "unreachable" || error.code == "busy") && Instant::now() < until => {
                    tokio::time::sleep(RETRY_PAUSE).await;
                }
                answer => return answer,
            }
        }
    }

    async fn post<B: Serialize + Sync, T: DeserializeOwned>(&self, path: &str, body: &B) -> Result<T, CliError> {
        let response = self.send(self.request(Method::POST, path).json(body)).await?;
        self.read(response).await
    }

    /// All records of a list, page by page, at most `limit`.
    async fn list<T: DeserializeOwned>(
        &self,
        path: &str,
        name: &str,
        query: &[(&str, String)],
        limit: usize,
    ) -> Result<Vec<T>, CliError> {
        let mut records = Vec::new();
        let mut cursor: Option<String> = None;
        while records.len() < limit {
            let page = (limit - records.len()).min(PAGE);
            let mut fields: Vec<(&str, String)> = query.to_vec();
            fields.push(("limit", page.to_string()));
            fields.extend(cursor.take().map(|cursor| ("cursor", cursor)));
            let response = self.send(self.request(Method::GET, path).query(&fields)).await?;
            let mut answer: serde_json::Map<String, serde_json::Value> = self.read(response).await?;
            let next = answer.get("next").and_then(|next| next.as_str().map(str::to_owned));
            let found = answer.remove(name).unwrap_or_default();
            let found: Vec<T> = serde_json::from_value(found).map_err(|error| {
                CliError::failed(format!("{} answers {path} with other records than expected ({error})", self.base))
            })?;
            let is_empty = found.is_empty();
            records.extend(found);
            cursor = next;
            if cursor.is_none() || is_empty {
                break;
            }
        }
        Ok(records)
    }

    /// Makes a session.
    ///
    /// # Errors
    /// When the server does not answer or refuses.
    pub async fn create_session(&self, session: &NewSession) -> Result<SessionRecord, CliError> {
        self.post("/sessions", session).await
    }

    /// One session.
    ///
    /// # Errors
    /// When the server stays away, or has no such session.
    pub async fn session(&self, id: SessionId) -> Result<SessionRecord, CliError> {
        self.get_patiently(&format!("/sessions/{id}")).await
    }

    /// Sessions, newest first, as the query filters them.
    ///
    /// # Errors
    /// When the server does not answer or refuses.
    pub async fn sessions(&self, query: &[(&str, String)], limit: usize) -> Result<Vec<serde_json::Value>, CliError> {
        self.list("/sessions", "sessions", query, limit).await
    }

    /// Ends a session well.
    ///
    /// # Errors
    /// When the server does not answer or refuses.
    pub async fn complete(&self, id: SessionId) -> Result<SessionRecord, CliError> {
        self.post(&format!("/sessions/{id}/complete"), &serde_json::json!({})).await
    }

    /// All episodes of a session, in order.
    ///
    /// # Errors
    /// When the server does not answer or refuses.
    pub async fn episodes(&self, id: SessionId) -> Result<Vec<EpisodeRecord>, CliError> {
        let mut episodes: Vec<EpisodeRecord> =
            self.list(&format!("/sessions/{id}/episodes"), "episodes", &[], usize::MAX).await?;
        episodes.sort_by_key(|episode| episode.number);
        Ok(episodes)
    }

    /// Starts an export.
    ///
    /// # Errors
    /// When the server does not answer or refuses.
    pub async fn export(&self, export: &NewExport) -> Result<ExportRecord, CliError> {
        self.post("/exports", export).await
    }

    /// How an export stands.
    ///
    /// # Errors
    /// When the server stays away or refuses.
    pub async fn export_state(&self, id: &str) -> Result<ExportRecord, CliError> {
        self.get_patiently(&format!("/exports/{id}")).await
    }

    /// Writes one file of an export to `target`; gives its length. `progress` hears of every piece.
    ///
    /// # Errors
    /// When the server does not answer, the connection ends early, or the disk refuses.
    pub async fn fetch(
        &self,
        export: &str,
        path: &str,
        target: &std::path::Path,
        progress: impl Fn(u64),
    ) -> Result<u64, CliError> {
        let encoded: Vec<String> = path.split('/').map(encode).collect();
        let response =
            self.send(self.request(Method::GET, &format!("/exports/{export}/files/{}", encoded.join("/")))).await?;
        let disk = |error: std::io::Error| {
            CliError::path("write", target, &error, "make room or give this user write permission")
        };
        let mut file = tokio::fs::File::create(target).await.map_err(disk)?;
        let mut pieces = response.bytes_stream();
        let mut length = 0;
        while let Some(piece) = pieces.next().await {
            let piece = piece.map_err(|error| self.unreachable(&error))?;
            file.write_all(&piece).await.map_err(disk)?;
            length += piece.len() as u64;
            progress(piece.len() as u64);
        }
        file.sync_all().await.map_err(disk)?;
        Ok(length)
    }

    /// Makes a token.
    ///
    /// # Errors
    /// When the server does not answer or refuses.
    pub async fn create_token(&self, name: &str, role: Role) -> Result<MadeToken, CliError> {
        self.post("/tokens", &serde_json::json!({ "name": name, "role": role })).await
    }

    /// All tokens.
    ///
    /// # Errors
    /// When the server does not answer or refuses.
    pub async fn tokens(&self) -> Result<Vec<ShownToken>, CliError> {
        #[derive(Deserialize)]
        struct Answer {
            tokens: Vec<ShownToken>,
        }
        Ok(self.get::<Answer>("/tokens").await?.tokens)
    }

    /// Ends a token.
    ///
    /// # Errors
    /// When the server does not answer or refuses.
    pub async fn revoke_token(&self, id: &str) -> Result<ShownToken, CliError> {
        let response = self.send(self.request(Method::DELETE, &format!("/tokens/{}", encode(id)))).await?;
        self.read(response).await
    }

    /// Whether the server is up and able to store samples.
    pub async fn is_ready(&self) -> bool {
        let asked = self.http.get(format!("{}/readyz", self.base)).send().await;
        asked.is_ok_and(|answer| answer.status() == StatusCode::OK)
    }
}

/// Percent-encodes one segment of a path.
#[must_use]
pub fn encode(segment: &str) -> String {
    use std::fmt::Write;
    let mut text = String::with_capacity(segment.len());
    for byte in segment.bytes() {
        if byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_' | b'.' | b'~') {
            text.push(char::from(byte));
        } else {
            // Writing to a string does not fail.
            let _ = write!(text, "%{byte:02X}");
        }
    }
    text
}

async fn collect(response: Response, bytes_max: usize) -> Result<Vec<u8>, reqwest::Error> {
    let mut bytes = Vec::new();
    let mut pieces = response.bytes_stream();
    while let Some(piece) = pieces.next().await {
        let piece = piece?;
        // What is cut off is no JSON any more, and said to be none.
        if bytes.len() + piece.len() > bytes_max {
            break;
        }
        bytes.extend_from_slice(&piece);
    }
    Ok(bytes)
}

/// What the server said when it refused, or what its status means.
async fn refusal(response: Response) -> CliError {
    let status = response.status();
    let bytes = collect(response, ERROR_BYTES_MAX).await.unwrap_or_default();
    match serde_json::from_slice::<Refused>(&bytes) {
        Ok(Refused { error }) => CliError::refused(&error.code, error.message),
        Err(_) => CliError::refused(
            "unexpected_answer",
            format!("the server answers {status} without a reason; is it a Tendon server?"),
        ),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn an_address_is_read_however_it_is_typed() {
        for (typed, base) in [
            ("http://robot:7400", "http://robot:7400"),
            ("robot:7400", "http://robot:7400"),
            ("https://robot/", "https://robot"),
            ("ws://127.0.0.1:1/api/v1/ingest", "http://127.0.0.1:1"),
            (" http://[::1]:80 ", "http://[::1]:80"),
        ] {
            assert_eq!(base_url(typed).unwrap(), base);
        }
    }

    #[test]
    fn an_address_with_a_token_or_without_a_host_is_refused() {
        for typed in ["ftp://a", "", "http://", "http://a/?token=x", "http://user@a", "a b"] {
            let error = base_url(typed).unwrap_err();
            assert_eq!(error.code, "usage", "{typed}: {error}");
        }
    }

    proptest! {
        #[test]
        fn any_address_is_read_or_refused(text in "\\PC{0,40}") {
            let _ = base_url(&text);
        }

        #[test]
        fn an_encoded_segment_holds_nothing_that_ends_it(segment in any::<String>()) {
            let text = encode(&segment);
            prop_assert!(!text.contains(['/', '?', '#', ' ', '\n']));
            prop_assert!(text.is_ascii());
        }
    }
}
