//! Who may do what: roles, rights and the stored half of a token.

use std::fmt;

use serde::{Deserialize, Serialize};

use super::session::SessionRecord;
use super::text::words;

words! {
    /// What the holder of a token is.
    Role, "role" {
        /// Looks at everything, changes nothing.
        Viewer = "viewer",
        /// Runs sessions and exports.
        Operator = "operator",
        /// A robot: streams, and sees its own sessions.
        Robot = "robot",
        /// Everything.
        Admin = "admin",
    }
}

/// One thing that a request may need.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Right {
    /// See every session, episode, dataset and export.
    Read,
    /// See the sessions of one's own robot, see [`TokenRecord::may_read`].
    ReadOwn,
    /// Make, start, stop and annotate sessions and episodes.
    Operate,
    /// Connect as a producer.
    Stream,
    /// Start an export and fetch its files.
    Export,
    /// Tokens and settings.
    Admin,
}

impl Role {
    /// Whether this role has this right. The only place where that is decided.
    #[must_use]
    pub const fn allows(self, right: Right) -> bool {
        match self {
            Self::Viewer => matches!(right, Right::Read | Right::ReadOwn),
            Self::Operator => match right {
                Right::Read | Right::ReadOwn | Right::Operate | Right::Stream | Right::Export => true,
                Right::Admin => false,
            },
            Self::Robot => matches!(right, Right::Stream | Right::ReadOwn),
            Self::Admin => true,
        }
    }
}

/// What the server keeps of a token: never the secret itself.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct TokenRecord {
    /// The public half, in the token's text and in logs.
    pub id: String,
    /// Whose it is. A robot's token carries the robot's name.
    pub name: String,
    /// What the holder is.
    pub role: Role,
    /// SHA-256 of the secret in lower-case hexadecimal.
    pub hash: String,
    /// When it was made.
    pub created_ns: i64,
    /// When it was revoked.
    #[serde(default)]
    pub revoked_ns: Option<i64>,
}

impl TokenRecord {
    /// Whether the holder may see this session and its episodes.
    #[must_use]
    pub fn may_read(&self, session: &SessionRecord) -> bool {
        self.role.allows(Right::Read) || (self.role.allows(Right::ReadOwn) && session.robot == self.name)
    }
}

impl fmt::Debug for TokenRecord {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("TokenRecord")
            .field("id", &self.id)
            .field("name", &self.name)
            .field("role", &self.role)
            .field("hash", &"redacted")
            .field("created_ns", &self.created_ns)
            .field("revoked_ns", &self.revoked_ns)
            .finish()
    }
}
