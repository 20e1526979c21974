//! Who knocks, and what they may do: the one place where rights are checked.
//!
//! [`Auth::admit`] is called once for each request, by the REST door and by the socket door alike,
//! before anything else is read. It gives an [`Identity`]; whatever is done next asks
//! [`Identity::require`]. A token comes in `Authorization: Bearer TOKEN`, or, because browsers
//! cannot set that header on a WebSocket, in the subprotocols `tendon, bearer.TOKEN`. A token in a
//! URL is refused: URLs end up in logs and histories.
//!
//! A token that was found good is remembered for [`REMEMBERED_FOR`], so a revoked one stops
//! working within that time, at once in the process that revoked it. No token is ever logged or
//! repeated in an error; the memory holds only hashes.

mod header;
mod origin;

use std::collections::HashMap;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use actix_http::RequestHead;
use actix_http::header::HeaderMap;
use sha2::{Digest, Sha256};
use tendon_storage::accounts::{AccountError, Accounts};
use tendon_storage::meta::{Meta, Tokens};
use tendon_storage::records::{Right, Role, SessionRecord, TokenRecord};
use thiserror::Error;
use tokio::sync::Semaphore;

use header::Secret;

pub use header::{SUBPROTOCOL, offers_subprotocol};
pub use origin::{Origin, OriginError};

/// How long a good token is remembered. The promise to admins is five seconds.
pub const REMEMBERED_FOR: Duration = Duration::from_secs(3);
/// Most tokens that are remembered; each takes about 200 bytes.
const REMEMBERED_MAX: usize = 4096;
/// Most tokens that are looked up at once, so that a flood of wrong ones leaves blocking threads
/// for everybody else.
const LOOKUPS_AT_ONCE: usize = 16;

/// Who sent a request. Only [`Auth`] makes one.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Identity {
    /// The public half of the token.
    pub token: String,
    /// Whose it is; for a robot the robot's name.
    pub name: String,
    /// What they are.
    pub role: Role,
}

impl Identity {
    /// Whether this right is held.
    ///
    /// # Errors
    /// Names the role and the right that it lacks.
    pub fn require(&self, right: Right) -> Result<(), AuthError> {
        if self.role.allows(right) {
            return Ok(());
        }
        Err(AuthError::RightMissing { role: self.role, right })
    }

    /// The robot whose sessions alone may be seen; `None` when all may.
    #[must_use]
    pub fn own_robot(&self) -> Option<&str> {
        (!self.role.allows(Right::Read)).then_some(self.name.as_str())
    }

    /// Whether this session may be seen: all of them with [`Right::Read`], those of one's own robot
    /// with [`Right::ReadOwn`].
    ///
    /// # Errors
    /// Names the robot whose sessions this token may see, or the right that it lacks.
    pub fn may_see(&self, session: &SessionRecord) -> Result<(), AuthError> {
        if self.role.allows(Right::Read) {
            return Ok(());
        }
        self.require(Right::ReadOwn)?;
        if session.robot == self.name {
            return Ok(());
        }
        Err(AuthError::NotOwn { robot: self.name.clone() })
    }
}

impl From<TokenRecord> for Identity {
    fn from(record: TokenRecord) -> Self {
        Self { token: record.id, name: record.name, role: record.role }
    }
}

/// A request is not let in.
#[derive(Debug, Error)]
pub enum AuthError {
    /// No token at all.
    #[error(
        "no token; send it as 'Authorization: Bearer TOKEN', or in a WebSocket's subprotocols as 'tendon, bearer.TOKEN'; 'tendon token create' makes one"
    )]
    Missing,
    /// Something is there that is no token.
    #[error("the token cannot be read: {0}")]
    Malformed(&'static str),
    /// More than one token, or two that differ.
    #[error("the request carries more than one token; send one, once")]
    Ambiguous,
    /// A token where everybody can read it.
    #[error(
        "the URL carries a token, and URLs end up in logs; revoke that token and send a new one in the header Authorization or in the WebSocket's subprotocols"
    )]
    InUrl,
    /// Unknown, mistyped or revoked; which of them is nobody's business.
    #[error("the token is not known or was revoked; ask an admin for a new one ('tendon token create')")]
    Refused,
    /// The role lacks a right.
    #[error("role {role} may not do this, it needs the right {right:?}; use a token of a role that has it")]
    RightMissing {
        /// The role of the token.
        role: Role,
        /// The right that is needed.
        right: Right,
    },
    /// A robot asks for what is another robot's.
    #[error("this token sees only sessions of robot {robot:?}; use a viewer's or operator's token for others")]
    NotOwn {
        /// The robot of the token.
        robot: String,
    },
    /// A page of another site.
    #[error("pages from {origin:?} may not use this server; add that origin to public.allowed_origins")]
    OriginRefused {
        /// The origin, cut to 128 characters.
        origin: String,
    },
    /// The store of tokens does not answer.
    #[error("tokens cannot be checked at the moment; try again, and see the server's log")]
    Store(#[source] Box<dyn std::error::Error + Send + Sync>),
}

impl AuthError {
    /// A stable word for programs.
    #[must_use]
    pub const fn code(&self) -> &'static str {
        match self {
            Self::Missing => "token_missing",
            Self::Malformed(_) => "token_malformed",
            Self::Ambiguous => "token_ambiguous",
            Self::InUrl => "token_in_url",
            Self::Refused => "token_refused",
            Self::RightMissing { .. } => "right_missing",
            Self::NotOwn { .. } => "not_own_robot",
            Self::OriginRefused { .. } => "origin_refused",
            Self::Store(_) => "token_store_failed",
        }
    }

    /// The HTTP status.
    #[must_use]
    pub const fn status(&self) -> u16 {
        match self {
            Self::Missing | Self::Refused => 401,
            Self::Malformed(_) | Self::Ambiguous | Self::InUrl => 400,
            Self::RightMissing { .. } | Self::NotOwn { .. } | Self::OriginRefused { .. } => 403,
            Self::Store(_) => 503,
        }
    }
}

/// SHA-256 of a presented token: what the memory is keyed by.
type Fingerprint = [u8; 32];

struct Remembered {
    identity: Identity,
    checked: Instant,
}

/// Checks tokens and origins. One per process, shared by all doors.
pub struct Auth {
    accounts: Accounts,
    tokens: Tokens,
    origins: Vec<Origin>,
    remembered: Mutex<HashMap<Fingerprint, Remembered>>,
    lookups: Arc<Semaphore>,
}

impl Auth {
    /// Checks tokens against this store, also those that wait in the folder `inbox`, and pages
    /// against these origins besides the server's own.
    #[must_use]
    pub fn new(meta: &Meta, inbox: PathBuf, origins: Vec<Origin>) -> Self {
        Self {
            accounts: Accounts::new(meta.tokens.clone()).with_inbox(inbox),
            tokens: meta.tokens.clone(),
            origins,
            remembered: Mutex::new(HashMap::new()),
            lookups: Arc::new(Semaphore::new(LOOKUPS_AT_ONCE)),
        }
    }

    /// Everything that a request must pass: no token in the URL, a good origin, a good token.
    ///
    /// # Errors
    /// When one of them is not so.
    pub async fn admit(&self, head: &RequestHead) -> Result<Identity, AuthError> {
        if head.uri.query().is_some_and(header::holds_token) {
            return Err(AuthError::InUrl);
        }
        self.check_origin(&head.headers)?;
        self.authenticate(&head.headers).await
    }

    /// Whether a page of this origin, if it is a page at all, may use the server.
    ///
    /// # Errors
    /// Names the origin.
    pub fn check_origin(&self, headers: &HeaderMap) -> Result<(), AuthError> {
        origin::check(headers, &self.origins)
    }

    /// The origin of a page of another site that may use the server, for the answer's headers.
    #[must_use]
    pub fn foreign_origin(&self, headers: &HeaderMap) -> Option<String> {
        origin::foreign(headers, &self.origins)
    }

    /// Finds whose token these headers carry. Waits for a blocking thread unless it is remembered.
    ///
    /// # Errors
    /// When there is no token, more than one, or none that is known.
    pub async fn authenticate(&self, headers: &HeaderMap) -> Result<Identity, AuthError> {
        let secret = header::token(headers)?;
        let fingerprint = secret.fingerprint();
        if let Some(identity) = self.recall(&fingerprint, Instant::now()) {
            return Ok(identity);
        }
        // Taken before the lookup, so that a token revoked during it is not remembered for longer.
        let asked = Instant::now();
        let accounts = self.accounts.clone();
        let record = self.blocking(move || look_up(&accounts, &secret)).await?;
        let identity = Identity::from(record);
        self.remember(fingerprint, identity.clone(), asked);
        Ok(identity)
    }

    /// Whether the token of a long-lived connection is still good. Ask every few seconds.
    ///
    /// # Errors
    /// [`AuthError::Refused`] when it was revoked; [`AuthError::Store`] when nobody can tell.
    pub async fn recheck(&self, identity: &Identity) -> Result<(), AuthError> {
        let (tokens, id) = (self.tokens.clone(), identity.token.clone());
        let found = self.blocking(move || tokens.get(&id).map_err(|error| store_failed(error.into()))).await?;
        match found {
            Some(record) if record.revoked_ns.is_none() => Ok(()),
            Some(_) | None => Err(AuthError::Refused),
        }
    }

    /// Makes, lists and revokes tokens. After a revocation call [`Auth::forget`].
    #[must_use]
    pub fn accounts(&self) -> &Accounts {
        &self.accounts
    }

    /// Forgets a token that was just revoked.
    pub fn forget(&self, token: &str) {
        self.remembered().retain(|_, remembered| remembered.identity.token != token);
    }

    async fn blocking<T: Send + 'static>(
        &self,
        work: impl FnOnce() -> Result<T, AuthError> + Send + 'static,
    ) -> Result<T, AuthError> {
        let permit = Arc::clone(&self.lookups).acquire_owned().await;
        let permit = permit.map_err(|closed| AuthError::Store(Box::new(closed)))?;
        let task = tokio::task::spawn_blocking(move || {
            let _permit = permit;
            work()
        });
        task.await.map_err(|failed| AuthError::Store(Box::new(failed)))?
    }

    fn recall(&self, fingerprint: &Fingerprint, now: Instant) -> Option<Identity> {
        let remembered = self.remembered();
        let found = remembered.get(fingerprint)?;
        (now.saturating_duration_since(found.checked) < REMEMBERED_FOR).then(|| found.identity.clone())
    }

    fn remember(&self, fingerprint: Fingerprint, identity: Identity, checked: Instant) {
        let mut remembered = self.remembered();
        if remembered.len() >= REMEMBERED_MAX {
            remembered.retain(|_, old| checked.saturating_duration_since(old.checked) < REMEMBERED_FOR);
        }
        if remembered.len() >= REMEMBERED_MAX {
            remembered.clear();
        }
        remembered.insert(fingerprint, Remembered { identity, checked });
    }

    fn remembered(&self) -> std::sync::MutexGuard<'_, HashMap<Fingerprint, Remembered>> {
        self.remembered.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Secret {
    fn fingerprint(&self) -> Fingerprint {
        Sha256::digest(self.expose().as_bytes()).into()
    }
}

fn look_up(accounts: &Accounts, secret: &Secret) -> Result<TokenRecord, AuthError> {
    accounts.verify(secret.expose()).map_err(|error| match error {
        AccountError::Format(_) => AuthError::Malformed(
            "it is no token of this program; send the whole line that 'tendon token create' printed",
        ),
        AccountError::Unknown { .. } | AccountError::Revoked { .. } => AuthError::Refused,
        error => store_failed(error),
    })
}

fn store_failed(error: AccountError) -> AuthError {
    tracing::error!(%error, "tokens cannot be read");
    AuthError::Store(Box::new(error))
}

#[cfg(test)]
mod tests;
