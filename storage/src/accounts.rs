//! API tokens: made once, shown once, kept only as a hash.
//!
//! A token's text is `tendon_<id>_<secret>`: letters, digits and underscores, so that it fits into
//! an `Authorization` header and into a WebSocket subprotocol. The id is no secret and names the
//! token in lists and logs. The secret is 32 bytes from the operating system; the store keeps its
//! SHA-256, which is enough, for nobody guesses 256 random bits.
//!
//! The embedded store belongs to one process. A command that makes a token while the server runs
//! leaves the record in an *inbox* folder, from which the server takes it when it is first shown.

use std::fmt;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::str::FromStr;

use rand::TryRngCore;
use rand::rngs::OsRng;
use sha2::{Digest, Sha256};
use thiserror::Error;

use crate::folder;
use crate::meta::{Meta, MetaError, StoreError, Tokens};
use crate::records::{PERSON_BYTES_MAX, Role, TokenRecord, excerpt};

const ID_BYTES: usize = 8;
const SECRET_BYTES: usize = 32;
const PREFIX: &str = "tendon_";
/// Longest record file that the inbox takes, in bytes.
const INBOX_BYTES_MAX: u64 = 64 << 10;

/// A token with its secret. It prints without it; [`Token::reveal`] gives the whole text.
#[derive(Clone)]
pub struct Token {
    id: String,
    secret: [u8; SECRET_BYTES],
}

/// A text is no token.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
#[error("this is no token; send the whole line that `tendon token create` printed, tendon_<id>_<secret>")]
pub struct TokenFormatError;

impl Token {
    /// A new token from the operating system's random source.
    fn random() -> Result<Self, AccountError> {
        let mut id = [0; ID_BYTES];
        let mut secret = [0; SECRET_BYTES];
        for bytes in [&mut id[..], &mut secret[..]] {
            OsRng.try_fill_bytes(bytes).map_err(|error| AccountError::Random { reason: error.to_string() })?;
        }
        Ok(Self { id: hex(&id), secret })
    }

    /// The public half.
    #[must_use]
    pub fn id(&self) -> &str {
        &self.id
    }

    /// The whole text, for the one to whom the token is given.
    #[must_use]
    pub fn reveal(&self) -> String {
        format!("{PREFIX}{}_{}", self.id, hex(&self.secret))
    }

    fn digest(&self) -> [u8; 32] {
        Sha256::digest(self.secret).into()
    }
}

impl fmt::Display for Token {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{PREFIX}{}_redacted", self.id)
    }
}

impl fmt::Debug for Token {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Token({self})")
    }
}

impl FromStr for Token {
    type Err = TokenFormatError;
    fn from_str(text: &str) -> Result<Self, TokenFormatError> {
        let halves = text.strip_prefix(PREFIX).and_then(|rest| rest.split_once('_'));
        let (id, secret) = halves.ok_or(TokenFormatError)?;
        let _: [u8; ID_BYTES] = unhex(id).ok_or(TokenFormatError)?;
        Ok(Self { id: id.to_owned(), secret: unhex(secret).ok_or(TokenFormatError)? })
    }
}

fn hex(bytes: &[u8]) -> String {
    use fmt::Write;
    bytes.iter().fold(String::with_capacity(2 * bytes.len()), |mut text, byte| {
        // Writing to a string does not fail.
        let _ = write!(text, "{byte:02x}");
        text
    })
}

/// Lower case only: one token, one spelling.
fn unhex<const N: usize>(text: &str) -> Option<[u8; N]> {
    if text.len() != 2 * N {
        return None;
    }
    let digit = |byte: u8| match byte {
        b'0'..=b'9' => Some(byte - b'0'),
        b'a'..=b'f' => Some(byte - b'a' + 10),
        _ => None,
    };
    let mut bytes = [0; N];
    for (target, pair) in bytes.iter_mut().zip(text.as_bytes().chunks_exact(2)) {
        *target = digit(pair[0])? << 4 | digit(pair[1])?;
    }
    Some(bytes)
}

/// A token was not made, or not let in.
#[derive(Debug, Error)]
pub enum AccountError {
    /// No token at all.
    #[error(transparent)]
    Format(#[from] TokenFormatError),
    /// Wrong id or wrong secret; which of the two is nobody's business.
    #[error("token {id} is not known here or its secret is wrong; make one with `tendon token create`")]
    Unknown {
        /// The public half, as it was sent.
        id: String,
    },
    /// It was good once.
    #[error("token {id} ({name}) was revoked; make a new one with `tendon token create`")]
    Revoked {
        /// The public half.
        id: String,
        /// Whose it was.
        name: String,
    },
    /// A name that garbles lists.
    #[error("token name {got:?} has {bytes} bytes; use 1 to {PERSON_BYTES_MAX} bytes without control characters")]
    Name {
        /// Cut to 64 characters.
        got: String,
        /// Its length.
        bytes: usize,
    },
    /// The system gives no random bytes.
    #[error("the operating system gives no random bytes ({reason}); check that /dev/urandom is there")]
    Random {
        /// What it said.
        reason: String,
    },
    /// The inbox cannot be used.
    #[error("token inbox {path} cannot be used ({source}); give this user write permission there")]
    Inbox {
        /// File or folder.
        path: String,
        /// What the system said.
        source: io::Error,
    },
    /// The store failed.
    #[error(transparent)]
    Meta(#[from] MetaError),
}

/// Makes, checks and revokes tokens. Blocks, as [`crate::meta`] does.
#[derive(Clone)]
pub struct Accounts {
    tokens: Tokens,
    inbox: Option<PathBuf>,
}

impl Accounts {
    /// Over a store of tokens.
    #[must_use]
    pub fn new(tokens: Tokens) -> Self {
        Self { tokens, inbox: None }
    }

    /// Also takes in tokens that [`create_beside_server`] left in this folder.
    #[must_use]
    pub fn with_inbox(self, inbox: PathBuf) -> Self {
        Self { inbox: Some(inbox), ..self }
    }

    /// Makes a token. The one chance to see its text.
    ///
    /// # Errors
    /// When the name is no name, or the store fails.
    pub fn create(&self, name: &str, role: Role, now_ns: i64) -> Result<(Token, TokenRecord), AccountError> {
        let (token, record) = make(name, role, now_ns)?;
        self.tokens.create(&record)?;
        Ok((token, record))
    }

    /// The record of a token that somebody shows.
    ///
    /// # Errors
    /// When it is no token, not known, wrong or revoked; or the store fails.
    pub fn verify(&self, text: &str) -> Result<TokenRecord, AccountError> {
        let token: Token = text.parse()?;
        let mut found = self.tokens.get(token.id())?;
        if found.is_none() {
            found = self.take_in(token.id())?;
        }
        let unknown = || AccountError::Unknown { id: token.id().to_owned() };
        let record = found.ok_or_else(unknown)?;
        let kept: [u8; 32] = unhex(&record.hash).ok_or_else(unknown)?;
        if !equal_in_constant_time(&kept, &token.digest()) {
            return Err(unknown());
        }
        if record.revoked_ns.is_some() {
            return Err(AccountError::Revoked { id: record.id, name: record.name });
        }
        Ok(record)
    }

    /// All tokens, the revoked ones too.
    ///
    /// # Errors
    /// When the store or the inbox fails.
    pub fn list(&self) -> Result<Vec<TokenRecord>, AccountError> {
        if let Some(inbox) = self.inbox.as_deref().filter(|inbox| inbox.is_dir()) {
            let failed = |source| inbox_error(inbox, source);
            for entry in fs::read_dir(inbox).map_err(failed)? {
                let name = entry.map_err(failed)?.file_name();
                if let Some(id) = name.to_str().and_then(|name| name.strip_suffix(".json")) {
                    self.take_in(id)?;
                }
            }
        }
        Ok(self.tokens.list()?)
    }

    /// Ends a token for good. The first time counts.
    ///
    /// # Errors
    /// When there is no such token, or the store fails.
    pub fn revoke(&self, id: &str, now_ns: i64) -> Result<TokenRecord, AccountError> {
        if self.tokens.get(id)?.is_none() {
            self.take_in(id)?;
        }
        Ok(self.tokens.update(id, |record| {
            record.revoked_ns.get_or_insert(now_ns);
        })?)
    }

    /// Moves one record from the inbox to the store.
    fn take_in(&self, id: &str) -> Result<Option<TokenRecord>, AccountError> {
        let Some(inbox) = &self.inbox else { return Ok(None) };
        // The id becomes a file name: nothing but hexadecimal digits may.
        if unhex::<ID_BYTES>(id).is_none() {
            return Ok(None);
        }
        let path = inbox.join(format!("{id}.json"));
        let length = match fs::metadata(&path) {
            Ok(metadata) => metadata.len(),
            Err(error) if matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::NotADirectory) => {
                return Ok(None);
            }
            Err(error) => return Err(inbox_error(&path, error)),
        };
        if length > INBOX_BYTES_MAX {
            return Ok(None);
        }
        let bytes = fs::read(&path).map_err(|error| inbox_error(&path, error))?;
        let record = match serde_json::from_slice::<TokenRecord>(&bytes) {
            Ok(record) if record.id == id => record,
            Ok(_) | Err(_) => return Ok(None),
        };
        match self.tokens.create(&record) {
            // Another request was faster; its record counts, it may be revoked by now.
            Ok(()) | Err(MetaError::Exists { .. }) => {}
            Err(error) => return Err(error.into()),
        }
        // The record is durable in the store; a file that stays is found to exist next time.
        if let Err(error) = fs::remove_file(&path) {
            tracing::warn!(path = %path.display(), %error, "a token that was taken in stays in the inbox");
        }
        Ok(self.tokens.get(id)?)
    }
}

/// Makes a token for the server whose metadata is in `meta_folder`, whether it runs or not: if it
/// runs, the record waits in `inbox`, and the token is good at once.
///
/// # Errors
/// When the name is no name, or neither folder can be written.
pub fn create_beside_server(
    meta_folder: &Path,
    inbox: &Path,
    name: &str,
    role: Role,
    now_ns: i64,
) -> Result<(Token, TokenRecord), AccountError> {
    match Meta::open(meta_folder) {
        Ok(meta) => Accounts::new(meta.tokens).create(name, role, now_ns),
        Err(MetaError::Store(StoreError::Locked { .. })) => {
            let (token, record) = make(name, role, now_ns)?;
            leave(inbox, &record)?;
            Ok((token, record))
        }
        Err(error) => Err(error.into()),
    }
}

/// Puts a record into the inbox, whole or not at all.
fn leave(inbox: &Path, record: &TokenRecord) -> Result<(), AccountError> {
    let failed = |source| inbox_error(inbox, source);
    folder::create(inbox).map_err(failed)?;
    let bytes = serde_json::to_vec(record).map_err(|error| failed(error.into()))?;
    let unfinished = inbox.join(format!("{}.unfinished", record.id));
    fs::write(&unfinished, bytes).map_err(failed)?;
    let file = fs::File::open(&unfinished).map_err(failed)?;
    file.sync_all().map_err(failed)?;
    fs::rename(&unfinished, inbox.join(format!("{}.json", record.id))).map_err(failed)?;
    folder::sync(inbox).map_err(failed)
}

fn make(name: &str, role: Role, now_ns: i64) -> Result<(Token, TokenRecord), AccountError> {
    if name.is_empty() || name.len() > PERSON_BYTES_MAX || name.chars().any(char::is_control) {
        return Err(AccountError::Name { got: excerpt(name), bytes: name.len() });
    }
    let token = Token::random()?;
    let record = TokenRecord {
        id: token.id.clone(),
        name: name.to_owned(),
        role,
        hash: hex(&token.digest()),
        created_ns: now_ns,
        revoked_ns: None,
    };
    Ok((token, record))
}

fn inbox_error(path: &Path, source: io::Error) -> AccountError {
    AccountError::Inbox { path: path.display().to_string(), source }
}

/// Looks at every byte, so that the time does not tell how many were right.
fn equal_in_constant_time(left: &[u8; 32], right: &[u8; 32]) -> bool {
    let differences = left.iter().zip(right).fold(0, |sum, (left, right)| sum | (left ^ right));
    std::hint::black_box(differences) == 0
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn accounts(folder: &Path) -> Accounts {
        Accounts::new(Meta::open(&folder.join("meta")).unwrap().tokens)
    }

    #[test]
    fn a_token_is_let_in_with_its_role_until_it_is_revoked() {
        let folder = tempfile::tempdir().unwrap();
        let accounts = accounts(folder.path());
        let (token, record) = accounts.create("arm-1", Role::Robot, 5).unwrap();
        assert_eq!(accounts.verify(&token.reveal()).unwrap(), record);
        assert_eq!(accounts.revoke(token.id(), 9).unwrap().revoked_ns, Some(9));
        assert_eq!(accounts.revoke(token.id(), 11).unwrap().revoked_ns, Some(9));
        assert!(matches!(accounts.verify(&token.reveal()), Err(AccountError::Revoked { .. })));
    }

    #[test]
    fn a_token_survives_a_restart_of_the_store() {
        let folder = tempfile::tempdir().unwrap();
        let (token, record) = accounts(folder.path()).create("ada", Role::Admin, 5).unwrap();
        assert_eq!(accounts(folder.path()).verify(&token.reveal()).unwrap(), record);
    }

    #[test]
    fn each_wrong_byte_of_a_secret_is_refused_like_an_unknown_token() {
        let folder = tempfile::tempdir().unwrap();
        let accounts = accounts(folder.path());
        let (token, _) = accounts.create("ada", Role::Admin, 5).unwrap();
        for byte in 0..SECRET_BYTES {
            let mut wrong = token.clone();
            wrong.secret[byte] ^= 1;
            let refused = accounts.verify(&wrong.reveal()).unwrap_err();
            assert!(matches!(refused, AccountError::Unknown { .. }), "byte {byte}: {refused}");
        }
        let (stranger, _) = make("eve", Role::Admin, 5).unwrap();
        assert!(matches!(accounts.verify(&stranger.reveal()), Err(AccountError::Unknown { .. })));
    }

    #[test]
    fn neither_the_store_nor_any_print_holds_the_secret() {
        let folder = tempfile::tempdir().unwrap();
        let accounts = accounts(folder.path());
        let (token, record) = accounts.create("ada", Role::Admin, 5).unwrap();
        let secret = hex(&token.secret);
        let stored = serde_json::to_string(&accounts.list().unwrap()).unwrap();
        for print in [format!("{token}"), format!("{token:?}"), format!("{record:?}"), stored] {
            assert!(!print.contains(&secret), "{print}");
        }
        assert!(!format!("{record:?}").contains(&record.hash));
        assert!(token.reveal().contains(&secret));
    }

    #[test]
    fn a_token_made_while_the_server_runs_is_good_at_once() {
        let folder = tempfile::tempdir().unwrap();
        let inbox = folder.path().join("inbox");
        let server = accounts(folder.path()).with_inbox(inbox.clone());
        let create = |name| create_beside_server(&folder.path().join("meta"), &inbox, name, Role::Operator, 5).unwrap();
        let (first, record) = create("first");
        let (second, _) = create("second");
        assert_eq!(server.verify(&first.reveal()).unwrap(), record);
        assert_eq!(server.list().unwrap().len(), 2);
        assert_eq!(fs::read_dir(&inbox).unwrap().count(), 0);
        server.revoke(second.id(), 7).unwrap();
        assert!(matches!(server.verify(&second.reveal()), Err(AccountError::Revoked { .. })));
    }

    /// The file of a token comes back when the crash came between taking it in and removing it.
    #[test]
    fn a_revoked_token_is_not_revived_by_its_file_in_the_inbox() {
        let folder = tempfile::tempdir().unwrap();
        let inbox = folder.path().join("inbox");
        let server = accounts(folder.path()).with_inbox(inbox.clone());
        let (token, record) = server.create("ada", Role::Admin, 5).unwrap();
        server.revoke(token.id(), 7).unwrap();
        leave(&inbox, &record).unwrap();
        assert!(server.list().unwrap().iter().all(|token| token.revoked_ns == Some(7)));
        assert!(matches!(server.verify(&token.reveal()), Err(AccountError::Revoked { .. })));
    }

    #[test]
    fn a_token_made_while_no_server_runs_goes_into_the_store() {
        let folder = tempfile::tempdir().unwrap();
        let (meta, inbox) = (folder.path().join("meta"), folder.path().join("inbox"));
        let (token, record) = create_beside_server(&meta, &inbox, "ada", Role::Viewer, 5).unwrap();
        assert!(!inbox.exists());
        assert_eq!(accounts(folder.path()).verify(&token.reveal()).unwrap(), record);
    }

    #[test]
    fn files_in_the_inbox_that_are_no_records_let_nobody_in() {
        let folder = tempfile::tempdir().unwrap();
        let inbox = folder.path().join("inbox");
        fs::create_dir(&inbox).unwrap();
        let server = accounts(folder.path()).with_inbox(inbox.clone());
        let (token, mut record) = make("eve", Role::Admin, 5).unwrap();
        record.id = "0011223344556677".to_owned();
        for content in [b"{".to_vec(), serde_json::to_vec(&record).unwrap(), vec![b' '; 70_000]] {
            fs::write(inbox.join(format!("{}.json", token.id())), content).unwrap();
            assert!(matches!(server.verify(&token.reveal()), Err(AccountError::Unknown { .. })));
        }
        assert_eq!(server.list().unwrap(), Vec::new());
    }

    #[test]
    fn two_hashes_are_equal_only_in_every_bit() {
        let hash: [u8; 32] = std::array::from_fn(|at| at as u8);
        assert!(equal_in_constant_time(&hash, &hash));
        for bit in 0..256 {
            let mut other = hash;
            other[bit / 8] ^= 1 << (bit % 8);
            assert!(!equal_in_constant_time(&hash, &other), "bit {bit}");
        }
    }

    #[test]
    fn names_that_garble_a_list_are_refused() {
        for name in ["", "a\nb", &"x".repeat(PERSON_BYTES_MAX + 1)] {
            assert!(matches!(make(name, Role::Viewer, 1), Err(AccountError::Name { .. })), "{name:?}");
        }
    }

    proptest! {
        #[test]
        fn a_token_comes_back_from_its_text(id in any::<[u8; ID_BYTES]>(), secret in any::<[u8; SECRET_BYTES]>()) {
            let text = Token { id: hex(&id), secret }.reveal();
            let token: Token = text.parse().unwrap();
            prop_assert_eq!(token.reveal(), text);
        }

        #[test]
        fn a_token_with_one_character_changed_is_another_or_none(at in any::<proptest::sample::Index>(), put in any::<char>()) {
            let text = Token { id: hex(&[7; ID_BYTES]), secret: [9; SECRET_BYTES] }.reveal();
            let mut characters: Vec<char> = text.chars().collect();
            *at.get_mut(&mut characters[..]) = put;
            let changed: String = characters.into_iter().collect();
            match changed.parse::<Token>() {
                Ok(token) => prop_assert_eq!(token.reveal(), changed),
                Err(TokenFormatError) => prop_assert_ne!(changed, text),
            }
        }

        #[test]
        fn any_text_is_parsed_without_a_panic(text in ".{0,120}") {
            let _ = text.parse::<Token>();
        }
    }
}
