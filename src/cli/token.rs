//! `tendon token`: who may use a server.
//!
//! Works on the data folder of a server, whether that runs or not, or through a server with an
//! admin's token.

use std::path::{Path, PathBuf};

use clap::{Args, Subcommand};
use serde::Serialize;
use tendon_storage::accounts::{AccountError, Accounts, create_beside_server};
use tendon_storage::meta::{Meta, MetaError, StoreError};
use tendon_storage::records::{Role, TokenRecord};

use super::client::{Client, ShownToken};
use super::error::CliError;
use super::output::{Output, moment, now_ns};
use super::table::{Side, Table};
use super::{ServerArgs, wait_for};
use crate::server::TOKEN_INBOX;

const EXAMPLES: &str = "\
Examples:
  tendon token create --role admin                         the first one, beside the server
  tendon token create --role robot --name arm-1 --data /srv/tendon
  tendon token list
  tendon token revoke 0f3a9c1e5b7d2468
  tendon token create --role viewer --to http://lab:7400 --token ADMINS_TOKEN

Roles: viewer looks at everything; operator also runs sessions and exports; robot only streams,
and sees the sessions of the robot that its name says; admin also makes tokens.";

/// Arguments of `tendon token`.
#[derive(Debug, Args)]
#[command(after_help = EXAMPLES)]
pub struct TokenArgs {
    /// What to do.
    #[command(subcommand)]
    pub action: TokenAction,
    /// Data folder of the server.
    #[arg(long, value_name = "DIR", default_value = "tendon-data", global = true, conflicts_with = "to")]
    pub data: PathBuf,
    /// Ask this running server instead.
    #[arg(long, value_name = "URL", global = true, requires = "token")]
    pub to: Option<String>,
    /// An admin's token, for --to.
    #[arg(long, value_name = "TOKEN", global = true, env = "TENDON_TOKEN", hide_env_values = true)]
    pub token: Option<String>,
    /// Print JSON.
    #[arg(long, global = true)]
    pub json: bool,
}

/// What to do with tokens.
#[derive(Debug, Subcommand)]
pub enum TokenAction {
    /// Make a token. The last line of stdout is the token; it is shown this once.
    Create {
        /// viewer, operator, robot or admin.
        #[arg(long, value_name = "ROLE")]
        role: Role,
        /// Whose it is; for a robot the robot's name [default: the role].
        #[arg(long, value_name = "NAME")]
        name: Option<String>,
    },
    /// List all tokens, without their secrets.
    List,
    /// End a token for good.
    Revoke {
        /// The token's id, as `list` shows it.
        id: String,
    },
}

/// What `token create --json` prints.
#[derive(Clone, Debug, Serialize)]
pub struct Created {
    /// The public half.
    pub id: String,
    /// Whose it is.
    pub name: String,
    /// What the holder is.
    pub role: Role,
    /// Unix nanoseconds.
    pub created_ns: i64,
    /// The whole text.
    pub token: String,
}

/// What `token list --json` prints.
#[derive(Clone, Debug, Serialize)]
pub struct Listed {
    /// All tokens, revoked ones too.
    pub tokens: Vec<ShownToken>,
}

/// Runs the command.
///
/// # Errors
/// When the folder or the server cannot be used, or there is no such token.
pub fn run(args: &TokenArgs, output: &Output) -> Result<u8, CliError> {
    match &args.action {
        TokenAction::Create { role, name } => {
            let name = name.clone().unwrap_or_else(|| role.to_string());
            let created = create(args, &name, *role)?;
            output.result(&created, |created| {
                output.note(format!(
                    "token {} for {:?} with role {} is good at once; it is shown only here:",
                    created.id, created.name, created.role
                ));
                output.line(&created.token);
            });
        }
        TokenAction::List => {
            let listed = Listed { tokens: list(args)? };
            output.result(&listed, |listed| show(&listed.tokens, output));
        }
        TokenAction::Revoke { id } => {
            let revoked = revoke(args, id)?;
            output.result(&revoked, |revoked| {
                output.line(format!(
                    "token {} ({}, {}) is revoked; a server that knows it forgets it within 5 s",
                    revoked.id, revoked.name, revoked.role
                ));
            });
        }
    }
    Ok(0)
}

fn client(args: &TokenArgs) -> Result<Option<Client>, CliError> {
    let (Some(to), Some(token)) = (&args.to, &args.token) else {
        return Ok(None);
    };
    let server = ServerArgs { to: to.clone(), token: token.clone() };
    Client::new(&server).map(Some)
}

fn create(args: &TokenArgs, name: &str, role: Role) -> Result<Created, CliError> {
    if let Some(client) = client(args)? {
        let made = wait_for(client.create_token(name, role))?;
        let ShownToken { id, name, role, created_ns, .. } = made.shown;
        return Ok(Created { id, name, role, created_ns, token: made.token });
    }
    let (token, record) = create_in(&args.data, name, role)?;
    let TokenRecord { id, name, role, created_ns, .. } = record;
    Ok(Created { id, name, role, created_ns, token })
}

/// Makes a token for the server of a data folder, whether it runs or not; gives its text and record.
///
/// # Errors
/// When the name is no name, or the folder cannot be written.
pub fn create_in(data: &Path, name: &str, role: Role) -> Result<(String, TokenRecord), CliError> {
    std::fs::create_dir_all(data)
        .map_err(|error| CliError::path("make", data, &error, "choose another folder with --data"))?;
    let made = create_beside_server(&data.join("meta"), &data.join(TOKEN_INBOX), name, role, now_ns());
    let (token, record) = made.map_err(|error| failed(&error))?;
    Ok((token.reveal(), record))
}

fn failed(error: &AccountError) -> CliError {
    match error {
        AccountError::Name { .. } => CliError::usage(format!("--name: {error}")),
        AccountError::Meta(MetaError::Store(StoreError::Locked { .. })) => CliError::failed(
            "a server runs on this data folder and only it may look in; ask it: add --to URL and an admin's --token",
        ),
        AccountError::Format(_)
        | AccountError::Unknown { .. }
        | AccountError::Revoked { .. }
        | AccountError::Random { .. }
        | AccountError::Inbox { .. }
        | AccountError::Meta(_) => CliError::failed(error.to_string()),
    }
}

/// The accounts of a folder on which no server runs.
fn accounts(data: &Path) -> Result<Accounts, CliError> {
    let meta = data.join("meta");
    if !meta.exists() {
        return Err(CliError::usage(format!(
            "{} is no data folder of a server; name one with --data, or make the first token with `tendon token create`",
            data.display()
        )));
    }
    let meta = Meta::open(&meta).map_err(|error| failed(&error.into()))?;
    Ok(Accounts::new(meta.tokens).with_inbox(data.join(TOKEN_INBOX)))
}

fn list(args: &TokenArgs) -> Result<Vec<ShownToken>, CliError> {
    if let Some(client) = client(args)? {
        return wait_for(client.tokens());
    }
    let records = accounts(&args.data)?.list().map_err(|error| failed(&error))?;
    Ok(records.into_iter().map(shown).collect())
}

fn revoke(args: &TokenArgs, id: &str) -> Result<ShownToken, CliError> {
    if let Some(client) = client(args)? {
        return wait_for(client.revoke_token(id));
    }
    accounts(&args.data)?.revoke(id, now_ns()).map(shown).map_err(|error| failed(&error))
}

fn shown(record: TokenRecord) -> ShownToken {
    let TokenRecord { id, name, role, created_ns, revoked_ns, .. } = record;
    ShownToken { id, name, role, created_ns, revoked_ns }
}

fn show(tokens: &[ShownToken], output: &Output) {
    if tokens.is_empty() {
        output.line("no tokens; make one with `tendon token create --role admin`");
        return;
    }
    let mut table = Table::new(&[
        ("id", Side::Left),
        ("role", Side::Left),
        ("name", Side::Left),
        ("made (UTC)", Side::Left),
        ("revoked (UTC)", Side::Left),
    ]);
    for token in tokens {
        let revoked = token.revoked_ns.map(moment).unwrap_or_default();
        table.row([token.id.clone(), token.role.to_string(), token.name.clone(), moment(token.created_ns), revoked]);
    }
    table.lines().iter().for_each(|line| output.line(line));
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_token_made_in_a_folder_is_listed_without_its_secret_and_can_be_revoked() {
        let folder = tempfile::tempdir().unwrap();
        let (text, record) = create_in(folder.path(), "arm-1", Role::Robot).unwrap();
        assert!(text.starts_with(&format!("tendon_{}_", record.id)), "{text}");
        let listed =
            Listed { tokens: accounts(folder.path()).unwrap().list().unwrap().into_iter().map(shown).collect() };
        let printed = serde_json::to_string(&listed).unwrap();
        let secret = text.rsplit('_').next().unwrap();
        assert!(printed.contains("arm-1") && !printed.contains(secret) && !printed.contains(&record.hash), "{printed}");
        let revoked = accounts(folder.path()).unwrap().revoke(&record.id, 9).unwrap();
        assert_eq!(revoked.revoked_ns, Some(9));
    }

    #[test]
    fn a_token_can_be_made_while_a_server_holds_the_store() {
        let folder = tempfile::tempdir().unwrap();
        create_in(folder.path(), "first", Role::Admin).unwrap();
        let held = Meta::open(&folder.path().join("meta")).unwrap();
        let (_, record) = create_in(folder.path(), "second", Role::Viewer).unwrap();
        assert!(folder.path().join(TOKEN_INBOX).join(format!("{}.json", record.id)).is_file());
        let error = match accounts(folder.path()) {
            Ok(_) => panic!("two processes hold one store"),
            Err(error) => error.to_string(),
        };
        assert!(error.contains("--to"), "{error}");
        drop(held);
    }

    #[test]
    fn a_folder_without_a_store_is_named() {
        let folder = tempfile::tempdir().unwrap();
        let error = accounts(folder.path()).map(drop).unwrap_err();
        assert_eq!(error.code, "usage");
        assert!(error.to_string().contains("--data"));
    }
}
