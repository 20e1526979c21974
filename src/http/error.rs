//! The one form of every refusal: `{"error":{"code","message"}}` with a fitting status.

use std::fmt;

use actix_web::body::BoxBody;
use actix_web::http::{StatusCode, header};
use actix_web::{HttpRequest, HttpResponse, ResponseError};
use serde_json::json;
use tendon_actors::api::{Refusal, RefusalCode};
use tendon_storage::accounts::AccountError;
use tendon_storage::meta::{MetaError, StoreError};
use tendon_storage::objects::ObjectError;

use crate::auth::AuthError;

/// Longest message in characters. Messages repeat parts of a request, which may be a megabyte.
const MESSAGE_CHARACTERS_MAX: usize = 1000;

/// A request that is refused or failed.
#[derive(Debug)]
pub struct ApiError {
    status: StatusCode,
    code: &'static str,
    message: String,
}

impl ApiError {
    /// A refusal. `code` is stable and meant for programs, `message` says what to do.
    #[must_use]
    pub fn new(status: StatusCode, code: &'static str, message: impl Into<String>) -> Self {
        let mut message: String = message.into();
        if let Some((end, _)) = message.char_indices().nth(MESSAGE_CHARACTERS_MAX) {
            message.truncate(end);
            message.push_str(" ...");
        }
        Self { status, code, message }
    }

    /// Something in the request cannot be right, though it is readable (422).
    #[must_use]
    pub fn invalid(message: impl fmt::Display) -> Self {
        Self::new(StatusCode::UNPROCESSABLE_ENTITY, "invalid", message.to_string())
    }

    /// Something in the path or the query cannot be read (400).
    #[must_use]
    pub fn unreadable(what: &str, message: impl fmt::Display) -> Self {
        Self::new(StatusCode::BAD_REQUEST, "unreadable", format!("{what}: {message}"))
    }

    /// There is no such thing (404).
    #[must_use]
    pub fn not_found(what: &str, name: impl fmt::Display) -> Self {
        let message = format!("{what} {name} does not exist; list them to see the names");
        Self::new(StatusCode::NOT_FOUND, "not_found", message)
    }

    /// The thing is in a state that does not allow this (409).
    #[must_use]
    pub fn wrong_state(message: impl Into<String>) -> Self {
        Self::new(StatusCode::CONFLICT, "wrong_state", message)
    }

    /// The server is about to end (503).
    #[must_use]
    pub fn stopping() -> Self {
        Self::new(StatusCode::SERVICE_UNAVAILABLE, "stopping", "the server is stopping; try again when it is back")
    }

    /// The word for programs.
    #[must_use]
    pub const fn code(&self) -> &'static str {
        self.code
    }

    /// The answer that says so; also for a request that came in by another door.
    #[must_use]
    pub fn response(&self) -> HttpResponse<BoxBody> {
        let mut response = HttpResponse::build(self.status);
        if self.status == StatusCode::UNAUTHORIZED {
            response.insert_header((header::WWW_AUTHENTICATE, "Bearer realm=\"tendon\""));
        }
        if matches!(self.status, StatusCode::TOO_MANY_REQUESTS | StatusCode::SERVICE_UNAVAILABLE) {
            response.insert_header((header::RETRY_AFTER, "1"));
        }
        response.json(json!({ "error": { "code": self.code, "message": self.message } }))
    }
}

impl fmt::Display for ApiError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)
    }
}

impl ResponseError for ApiError {
    fn status_code(&self) -> StatusCode {
        self.status
    }

    fn error_response(&self) -> HttpResponse<BoxBody> {
        self.response()
    }
}

impl From<AuthError> for ApiError {
    fn from(error: AuthError) -> Self {
        let status = StatusCode::from_u16(error.status()).unwrap_or(StatusCode::FORBIDDEN);
        Self::new(status, error.code(), error.to_string())
    }
}

impl From<Refusal> for ApiError {
    fn from(refusal: Refusal) -> Self {
        let (status, code) = match refusal.code {
            RefusalCode::NotFound => (StatusCode::NOT_FOUND, "not_found"),
            RefusalCode::WrongState => (StatusCode::CONFLICT, "wrong_state"),
            RefusalCode::Invalid => (StatusCode::UNPROCESSABLE_ENTITY, "invalid"),
            RefusalCode::NoProducer => (StatusCode::CONFLICT, "no_producer"),
            RefusalCode::Busy => (StatusCode::TOO_MANY_REQUESTS, "busy"),
            RefusalCode::Storage => (StatusCode::SERVICE_UNAVAILABLE, "storage"),
        };
        if refusal.code == RefusalCode::Storage {
            tracing::error!(error = %refusal, "a request met a failing store");
        }
        Self::new(status, code, refusal.message)
    }
}

impl From<MetaError> for ApiError {
    fn from(error: MetaError) -> Self {
        let (status, code) = match &error {
            MetaError::Exists { .. } => (StatusCode::CONFLICT, "exists"),
            MetaError::NotFound { .. } => (StatusCode::NOT_FOUND, "not_found"),
            MetaError::Contended { .. } => (StatusCode::TOO_MANY_REQUESTS, "busy"),
            MetaError::Record(_) => (StatusCode::UNPROCESSABLE_ENTITY, "invalid"),
            MetaError::Cursor(_) => (StatusCode::BAD_REQUEST, "unreadable"),
            MetaError::Store(store) => return store_error(store),
            MetaError::Unreadable { .. } | MetaError::Identity { .. } => {
                tracing::error!(%error, "a request met an unusable record");
                (StatusCode::INTERNAL_SERVER_ERROR, "record")
            }
        };
        Self::new(status, code, error.to_string())
    }
}

/// What the caller sent may be too long; all else is the store's own trouble, now and in the future.
fn store_error(error: &StoreError) -> ApiError {
    if let StoreError::KeyTooLong { .. } | StoreError::ValueTooLong { .. } = error {
        return ApiError::invalid(error);
    }
    tracing::error!(%error, "a request met a failing store");
    ApiError::new(StatusCode::SERVICE_UNAVAILABLE, "storage", error.to_string())
}

impl From<ObjectError> for ApiError {
    fn from(error: ObjectError) -> Self {
        if let ObjectError::NotFound { .. } = error {
            return Self::new(StatusCode::NOT_FOUND, "not_found", error.to_string());
        }
        tracing::error!(%error, "a file of an export cannot be read");
        Self::new(StatusCode::SERVICE_UNAVAILABLE, "storage", error.to_string())
    }
}

impl From<AccountError> for ApiError {
    fn from(error: AccountError) -> Self {
        match error {
            AccountError::Meta(error) => error.into(),
            AccountError::Name { .. } => Self::invalid(error),
            error => {
                tracing::error!(%error, "tokens cannot be kept");
                Self::new(StatusCode::SERVICE_UNAVAILABLE, "storage", error.to_string())
            }
        }
    }
}

/// No handler has this path.
pub(super) async fn unknown_path(request: HttpRequest) -> HttpResponse<BoxBody> {
    if request.path() == "/" {
        let message = format!(
            "this is tendon {}, which records robots; its interface is under /api/v1, see docs/api.md of the project; /healthz, /readyz and /metrics tell how it is",
            env!("CARGO_PKG_VERSION")
        );
        return ApiError::new(StatusCode::NOT_FOUND, "unknown_path", message).response();
    }
    let path: String = request.path().chars().take(128).collect();
    let message = format!("path {path:?} does not exist; the interface is under /api/v1, see docs/api.md");
    ApiError::new(StatusCode::NOT_FOUND, "unknown_path", message).response()
}

/// The path exists, with other methods.
pub(super) fn method_not_allowed(allowed: &str) -> HttpResponse<BoxBody> {
    let message = format!("this path knows {allowed}; use one of these methods");
    let mut response = ApiError::new(StatusCode::METHOD_NOT_ALLOWED, "method_not_allowed", message).response();
    if let Ok(value) = header::HeaderValue::from_str(allowed) {
        response.headers_mut().insert(header::ALLOW, value);
    }
    response
}
