//! Where a token lies in a request, and where it must not.

use std::fmt;

use actix_http::header::{AUTHORIZATION, HeaderMap, SEC_WEBSOCKET_PROTOCOL};
use tendon_storage::accounts::Token;

use super::AuthError;

/// The subprotocol of producers and consoles; the server answers with it when it is offered.
pub const SUBPROTOCOL: &str = "tendon";
/// What precedes a token among the subprotocols.
const BEARER: &str = "bearer.";
/// Longest token in bytes. The real ones have about 60.
const TOKEN_BYTES_MAX: usize = 256;
/// Names in a query string that announce a token.
const QUERY_NAMES: [&str; 9] =
    ["token", "access_token", "auth_token", "api_key", "apikey", "auth", "authorization", "bearer", "secret"];

/// A token as it was presented. Never printed.
pub(super) struct Secret(String);

impl Secret {
    pub(super) fn expose(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Secret(redacted)")
    }
}

/// The one token that a request carries.
pub(super) fn token(headers: &HeaderMap) -> Result<Secret, AuthError> {
    let found = match (from_authorization(headers)?, from_subprotocols(headers)?) {
        (None, None) => return Err(AuthError::Missing),
        (Some(one), None) | (None, Some(one)) => one,
        (Some(one), Some(other)) if one == other => one,
        (Some(_), Some(_)) => return Err(AuthError::Ambiguous),
    };
    if found.is_empty() {
        return Err(AuthError::Malformed("it is empty; put the text that 'tendon token create' printed behind Bearer"));
    }
    if found.len() > TOKEN_BYTES_MAX {
        return Err(AuthError::Malformed(
            "it has more than 256 bytes; send the text that 'tendon token create' printed",
        ));
    }
    let allowed = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_' | b'.' | b'~');
    if !found.bytes().all(allowed) {
        return Err(AuthError::Malformed(
            "it holds other characters than letters, digits, '-', '_', '.' and '~'; send the text that 'tendon token create' printed",
        ));
    }
    Ok(Secret(found.to_owned()))
}

fn from_authorization(headers: &HeaderMap) -> Result<Option<&str>, AuthError> {
    let mut values = headers.get_all(AUTHORIZATION);
    let Some(value) = values.next() else { return Ok(None) };
    if values.next().is_some() {
        return Err(AuthError::Ambiguous);
    }
    let unreadable =
        AuthError::Malformed("the header Authorization holds other characters than ASCII; send 'Bearer TOKEN'");
    let text = value.to_str().map_err(|_| unreadable)?.trim();
    let (scheme, token) = text.split_once([' ', '\t']).unwrap_or((text, ""));
    // Nothing of the value is repeated: who forgets the word Bearer sends the token as scheme.
    if !scheme.eq_ignore_ascii_case("bearer") {
        return Err(AuthError::Malformed("the header Authorization does not start with Bearer; send 'Bearer TOKEN'"));
    }
    Ok(Some(token.trim()))
}

fn from_subprotocols(headers: &HeaderMap) -> Result<Option<&str>, AuthError> {
    let mut found = None;
    for protocol in subprotocols(headers) {
        let Some(token) = protocol?.strip_prefix(BEARER) else {
            continue;
        };
        if found.is_some_and(|earlier| earlier != token) {
            return Err(AuthError::Ambiguous);
        }
        found = Some(token);
    }
    if found.is_some() && !offers_subprotocol(headers) {
        return Err(AuthError::Malformed(
            "the subprotocol tendon is not offered, so the handshake has no answer; send 'tendon, bearer.TOKEN'",
        ));
    }
    Ok(found)
}

fn subprotocols(headers: &HeaderMap) -> impl Iterator<Item = Result<&str, AuthError>> {
    let unreadable = "the header Sec-WebSocket-Protocol holds other characters than ASCII; send 'tendon, bearer.TOKEN'";
    headers.get_all(SEC_WEBSOCKET_PROTOCOL).flat_map(move |value| {
        let (text, fault) = match value.to_str() {
            Ok(text) => (text, None),
            Err(_) => ("", Some(Err(AuthError::Malformed(unreadable)))),
        };
        text.split(',').map(|protocol| Ok(protocol.trim())).chain(fault)
    })
}

/// Whether a WebSocket handshake offers the subprotocol `tendon`; the answer must name it then,
/// and must name none otherwise.
#[must_use]
pub fn offers_subprotocol(headers: &HeaderMap) -> bool {
    subprotocols(headers).any(|protocol| protocol.is_ok_and(|name| name == SUBPROTOCOL))
}

/// Whether a query string carries a token, by the name of a field or by the look of a value.
pub(super) fn holds_token(query: &str) -> bool {
    query.split('&').any(|pair| {
        let (name, value) = pair.split_once('=').unwrap_or((pair, ""));
        let name = decoded(name).to_ascii_lowercase();
        QUERY_NAMES.contains(&name.as_str()) || decoded(value).parse::<Token>().is_ok()
    })
}

/// Undoes percent-encoding where it is well formed; enough to recognise names.
fn decoded(text: &str) -> String {
    let bytes = text.as_bytes();
    let mut plain = Vec::with_capacity(bytes.len());
    let mut at = 0;
    while at < bytes.len() {
        let escape = (bytes[at] == b'%').then(|| text.get(at + 1..at + 3)).flatten();
        match escape.and_then(|digits| u8::from_str_radix(digits, 16).ok()) {
            Some(byte) => {
                plain.push(byte);
                at += 3;
            }
            None => {
                plain.push(bytes[at]);
                at += 1;
            }
        }
    }
    String::from_utf8_lossy(&plain).into_owned()
}
