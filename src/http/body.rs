//! JSON bodies and query strings, read with a limit and refused with a place.

use std::future::{Ready, ready};
use std::pin::Pin;

use actix_web::dev::Payload;
use actix_web::http::{StatusCode, header};
use actix_web::web::{BytesMut, Query};
use actix_web::{FromRequest, HttpRequest};
use futures::StreamExt;
use serde::Deserialize;
use serde::de::{DeserializeOwned, IgnoredAny};
use serde_json::error::Category;
use tendon_storage::meta::{Cursor, Page};

use super::{ApiError, BODY_BYTES_MAX};

/// Records of a page when `limit` is not given: a screen or two.
const LIMIT_DEFAULT: usize = 100;
/// Most records of a page.
pub(super) const LIMIT_MAX: usize = 1000;

/// A JSON body. An empty one counts as `{}`, and its media type is not looked at, so that
/// `curl -X POST` and `curl -d` work as people type them.
pub(super) struct Body<T>(pub(super) T);

impl<T: DeserializeOwned + 'static> FromRequest for Body<T> {
    type Error = ApiError;
    type Future = Pin<Box<dyn Future<Output = Result<Self, ApiError>>>>;

    fn from_request(request: &HttpRequest, payload: &mut Payload) -> Self::Future {
        let stated =
            request.headers().get(header::CONTENT_LENGTH).and_then(|length| length.to_str().ok()?.parse().ok());
        let payload = payload.take();
        Box::pin(async move {
            let bytes = collect(payload, stated).await?;
            parse(&bytes).map(Self)
        })
    }
}

async fn collect(mut payload: Payload, stated: Option<usize>) -> Result<BytesMut, ApiError> {
    if let Some(length) = stated.filter(|length| *length > BODY_BYTES_MAX) {
        return Err(too_large(&format!("{length} bytes")));
    }
    let mut bytes = BytesMut::new();
    while let Some(chunk) = payload.next().await {
        let chunk =
            chunk.map_err(|error| ApiError::unreadable("body", format!("it was cut off ({error}); send it again")))?;
        if bytes.len() + chunk.len() > BODY_BYTES_MAX {
            return Err(too_large(&format!("more than {BODY_BYTES_MAX} bytes")));
        }
        bytes.extend_from_slice(&chunk);
    }
    Ok(bytes)
}

fn too_large(length: &str) -> ApiError {
    let message = format!("the body has {length}, the limit is {BODY_BYTES_MAX}; send less at once");
    ApiError::new(StatusCode::PAYLOAD_TOO_LARGE, "body_too_large", message)
}

fn parse<T: DeserializeOwned>(bytes: &[u8]) -> Result<T, ApiError> {
    match bytes.iter().find(|byte| !byte.is_ascii_whitespace()) {
        None => serde_json::from_slice(b"{}").map_err(|error| refused(&error)),
        Some(b'{') => serde_json::from_slice(bytes).map_err(|error| refused(&error)),
        // A list would be taken for an object whose fields come in order.
        Some(_) => {
            serde_json::from_slice::<IgnoredAny>(bytes).map_err(|error| refused(&error))?;
            Err(ApiError::invalid(
                "the body is no JSON object; send {\"field\": value}, see docs/api.md for its fields",
            ))
        }
    }
}

/// The error itself tells line and column.
fn refused(error: &serde_json::Error) -> ApiError {
    match error.classify() {
        Category::Data => ApiError::invalid(format!("the body does not fit: {error}; see docs/api.md for its fields")),
        Category::Syntax | Category::Eof | Category::Io => {
            let message = format!("the body is no JSON: {error}; correct it there");
            ApiError::new(StatusCode::BAD_REQUEST, "bad_json", message)
        }
    }
}

/// A query string whose fields are all known and given once.
pub(super) struct Fields<T>(pub(super) T);

impl<T: DeserializeOwned> FromRequest for Fields<T> {
    type Error = ApiError;
    type Future = Ready<Result<Self, ApiError>>;

    fn from_request(request: &HttpRequest, _: &mut Payload) -> Self::Future {
        ready(fields(request.query_string()).map(Self))
    }
}

/// Reads a query string.
pub(super) fn fields<T: DeserializeOwned>(query: &str) -> Result<T, ApiError> {
    let read = Query::<T>::from_query(query);
    read.map(Query::into_inner).map_err(|error| {
        let message = error.to_string();
        let reason = message.strip_prefix("Query deserialize error: ").unwrap_or(&message);
        ApiError::unreadable("query", format!("{reason}; see docs/api.md for its fields"))
    })
}

/// A handler that takes no query at all.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct NoFields {}

/// Reads one field of a query or one part of a path.
pub(super) fn one<T: std::str::FromStr<Err: std::fmt::Display>>(what: &str, text: &str) -> Result<T, ApiError> {
    text.parse().map_err(|error| ApiError::unreadable(what, error))
}

/// Reads a field that may be absent.
pub(super) fn optional<T: std::str::FromStr<Err: std::fmt::Display>>(
    what: &str,
    text: Option<&String>,
) -> Result<Option<T>, ApiError> {
    text.map(|text| one(what, text)).transpose()
}

/// Reads `limit`: 1 to [`LIMIT_MAX`].
pub(super) fn limit(text: Option<&String>) -> Result<usize, ApiError> {
    let Some(text) = text else { return Ok(LIMIT_DEFAULT) };
    match text.parse() {
        Ok(limit) if (1..=LIMIT_MAX).contains(&limit) => Ok(limit),
        _ => {
            let got: String = text.chars().take(32).collect();
            Err(ApiError::unreadable(
                "limit",
                format!("{got:?} is not from 1 to {LIMIT_MAX}; ask for the rest with cursor"),
            ))
        }
    }
}

/// Reads `cursor`.
pub(super) fn cursor(text: Option<&String>) -> Result<Option<Cursor>, ApiError> {
    optional("cursor", text)
}

/// A page of a list as JSON: `{"<name>": [...], "next": cursor or null}`.
pub(super) fn page<R: serde::Serialize>(name: &'static str, page: &Page<R>) -> serde_json::Value {
    serde_json::json!({ name: page.records, "next": page.next.as_ref().map(ToString::to_string) })
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[derive(Debug, Deserialize)]
    #[serde(deny_unknown_fields)]
    struct Asked {
        robot: Option<String>,
        limit: Option<String>,
    }

    fn encode(text: &str) -> String {
        text.bytes().map(|byte| format!("%{byte:02X}")).collect()
    }

    proptest! {
        /// Whatever a robot is called, its filter comes back as it was meant.
        #[test]
        fn a_query_gives_back_the_text_that_was_encoded(robot in "\\PC{0,20}") {
            let asked: Asked = fields(&format!("robot={}", encode(&robot))).unwrap();
            prop_assert_eq!(asked.robot, Some(robot));
        }

        #[test]
        fn any_query_is_read_or_refused_with_a_short_message(query in "[ -~é&=%+]{0,3000}") {
            if let Err(error) = fields::<Asked>(&query) {
                prop_assert!(error.to_string().chars().count() <= 1004);
            }
        }

        #[test]
        fn a_limit_is_taken_exactly_within_its_bounds(limit_asked in any::<i32>()) {
            let read = limit(Some(&limit_asked.to_string()));
            match usize::try_from(limit_asked) {
                Ok(wanted) if (1..=LIMIT_MAX).contains(&wanted) => prop_assert_eq!(read.unwrap(), wanted),
                _ => prop_assert!(read.is_err()),
            }
        }

        #[test]
        fn any_bytes_are_json_or_refused(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
            let theirs = serde_json::from_slice::<serde_json::Value>(&bytes).is_ok_and(|value| value.is_object());
            let blank = bytes.iter().all(u8::is_ascii_whitespace);
            prop_assert_eq!(parse::<serde_json::Value>(&bytes).is_ok(), theirs || blank);
        }
    }

    /// A body without a stated length could go on for ever; so could one that states too little.
    #[actix_web::test]
    async fn a_body_in_pieces_is_read_up_to_the_limit_and_no_further() {
        for stated in [None, Some(7)] {
            let read = std::rc::Rc::new(std::cell::Cell::new(0));
            let counter = std::rc::Rc::clone(&read);
            let pieces = futures::stream::repeat_with(move || {
                counter.set(counter.get() + 1);
                Ok::<_, actix_web::error::PayloadError>(actix_web::web::Bytes::from_static(&[b' '; 4096]))
            });
            let payload: Payload = Payload::Stream { payload: pieces.boxed_local() };
            let error = collect(payload, stated).await.unwrap_err();
            assert_eq!(error.code(), "body_too_large");
            assert_eq!(read.get(), BODY_BYTES_MAX / 4096 + 1);
        }
    }

    #[test]
    fn unknown_and_repeated_fields_are_refused_by_name() {
        let unknown = fields::<Asked>("robto=a").unwrap_err().to_string();
        assert!(unknown.contains("robto") && unknown.contains("robot"), "{unknown}");
        let twice = fields::<Asked>("limit=1&limit=2").unwrap_err().to_string();
        assert!(twice.contains("limit"), "{twice}");
        let good: Asked = fields("limit=7").unwrap();
        assert_eq!((good.limit.as_deref(), good.robot), (Some("7"), None));
    }

    #[test]
    fn broken_json_is_refused_with_line_and_column() {
        let error = parse::<serde_json::Value>(b"{\n \"a\": }").unwrap_err();
        assert_eq!(error.code(), "bad_json");
        assert!(error.to_string().contains("line 2 column 7"), "{error}");
    }
}
