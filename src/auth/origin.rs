//! Which pages may use the server through somebody's browser.
//!
//! Programs send no `Origin` and are not concerned. A browser sends it with every WebSocket and
//! every request that changes something, and a page cannot forge it.

use std::fmt;
use std::str::FromStr;

use actix_http::header::{HOST, HeaderMap, ORIGIN};
use thiserror::Error;

use super::AuthError;

/// Longest origin in bytes: a host name has at most 253.
const ORIGIN_BYTES_MAX: usize = 300;

/// Scheme, host and port of a page.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Origin {
    secure: bool,
    host: String,
    port: u16,
}

/// A text is no origin.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
#[error("{got:?} is no origin; write scheme://host or scheme://host:port with http or https and nothing behind it")]
pub struct OriginError {
    got: String,
}

impl FromStr for Origin {
    type Err = OriginError;
    /// Reads `http://host`, `https://host:port` and the like; nothing else, also not `null`.
    fn from_str(text: &str) -> Result<Self, OriginError> {
        let parse = || {
            if text.len() > ORIGIN_BYTES_MAX {
                return None;
            }
            let (scheme, authority) = text.split_once("://")?;
            let secure = match scheme.to_ascii_lowercase().as_str() {
                "https" => true,
                "http" => false,
                _ => return None,
            };
            let (host, port) = authority_of(authority)?;
            let port = port.unwrap_or(if secure { 443 } else { 80 });
            Some(Self { secure, host, port })
        };
        parse().ok_or_else(|| OriginError { got: text.chars().take(128).collect() })
    }
}

impl Origin {
    /// Whether the page came from the server that the header `Host` names. The scheme is not
    /// compared: behind a proxy that ends TLS the server does not know its own.
    fn is_at(&self, host_header: &str) -> bool {
        authority_of(host_header).is_some_and(|(host, port)| {
            host == self.host && port.unwrap_or(if self.secure { 443 } else { 80 }) == self.port
        })
    }
}

impl fmt::Display for Origin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let scheme = if self.secure { "https" } else { "http" };
        write!(f, "{scheme}://{}:{}", self.host, self.port)
    }
}

/// Host in lower case and port of `host`, `host:port`, `[v6]` or `[v6]:port`.
fn authority_of(text: &str) -> Option<(String, Option<u16>)> {
    let (host, port) = match text.strip_prefix('[') {
        Some(rest) => {
            let (inside, behind) = rest.split_once(']')?;
            inside.parse::<std::net::Ipv6Addr>().ok()?;
            let port = if behind.is_empty() { None } else { Some(behind.strip_prefix(':')?) };
            (&text[..inside.len() + 2], port)
        }
        None => match text.split_once(':') {
            Some((host, port)) => (host, Some(port)),
            None => (text, None),
        },
    };
    let named = text.starts_with('[')
        || (!host.is_empty()
            && host.bytes().all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'.' | b'_')));
    let port = match port {
        None => None,
        Some(digits) if digits.bytes().all(|byte| byte.is_ascii_digit()) => Some(digits.parse().ok()?),
        Some(_) => return None,
    };
    named.then(|| (host.to_ascii_lowercase(), port))
}

/// Refuses pages of other sites that are not allowed.
pub(super) fn check(headers: &HeaderMap, allowed: &[Origin]) -> Result<(), AuthError> {
    for value in headers.get_all(ORIGIN) {
        let text = value.to_str().unwrap_or("other characters than ASCII");
        let page = text.parse::<Origin>().ok();
        if !page.is_some_and(|page| is_own(&page, headers) || allowed.contains(&page)) {
            return Err(AuthError::OriginRefused { origin: text.chars().take(128).collect() });
        }
    }
    Ok(())
}

/// The value of `Origin` when it is an allowed page of another site.
pub(super) fn foreign(headers: &HeaderMap, allowed: &[Origin]) -> Option<String> {
    let text = headers.get(ORIGIN)?.to_str().ok()?;
    let page = text.parse::<Origin>().ok()?;
    (!is_own(&page, headers) && allowed.contains(&page)).then(|| text.to_owned())
}

fn is_own(page: &Origin, headers: &HeaderMap) -> bool {
    let host = headers.get(HOST).and_then(|host| host.to_str().ok());
    host.is_some_and(|host| page.is_at(host))
}
