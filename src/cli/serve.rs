//! `tendon serve`: a server until it is told to stop.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::Command;

use clap::Args;
use serde::Serialize;
use tendon_storage::meta::Meta;

use super::error::CliError;
use super::output::Output;
use crate::config::{Config, Overrides};
use crate::server::{self, TOKEN_INBOX};
use crate::telemetry::{LogFormat, init_logs};

const EXAMPLES: &str = "\
Examples:
  tendon serve                                         on 127.0.0.1:7400, keeping everything in ./tendon-data
  tendon serve --data /srv/tendon --listen 0.0.0.0:7400
  tendon serve --config configs/server.toml            configs/server.toml lists every setting

Stop it with Ctrl-C or SIGTERM: what was taken is written before it goes. A kill loses nothing
that was acknowledged either.";

/// Arguments of `tendon serve`.
#[derive(Debug, Args)]
#[command(after_help = EXAMPLES)]
pub struct ServeArgs {
    /// File with settings; configs/server.toml lists them all.
    #[arg(long, value_name = "FILE")]
    pub config: Option<PathBuf>,
    /// Folder that holds everything the server keeps [default: tendon-data].
    #[arg(long, value_name = "DIR")]
    pub data: Option<PathBuf>,
    /// Address and port; port 0 takes a free one [default: 127.0.0.1:7400].
    #[arg(long, value_name = "ADDR")]
    pub listen: Option<SocketAddr>,
    /// Print one line of JSON when ready, and logs as JSON lines on stderr.
    #[arg(long)]
    pub json: bool,
    /// Stop when stdin ends: a parent that dies takes the server with it.
    #[arg(long, hide = true)]
    pub stop_with_stdin: bool,
}

/// What `serve --json` prints when it is ready.
#[derive(Clone, Debug, Serialize)]
pub struct Ready {
    /// Address and port that it listens on.
    pub address: String,
    /// The same as a URL for `--to`.
    pub url: String,
    /// Data folder.
    pub data: String,
    /// Process id.
    pub pid: u32,
    /// Whether any token was made for this folder.
    pub has_tokens: bool,
}

/// Runs a server.
///
/// # Errors
/// When a setting cannot work, or the folder or port cannot be used.
pub fn run(args: &ServeArgs, output: &Output) -> Result<u8, CliError> {
    let overrides = Overrides { data: args.data.clone(), listen: args.listen };
    let config = Config::load(args.config.as_deref(), overrides).map_err(|error| CliError::usage(error.to_string()))?;
    let format = if args.json { LogFormat::Json } else { LogFormat::Human };
    init_logs(format).map_err(|error| CliError::usage(error.to_string()))?;
    if args.stop_with_stdin {
        stop_with_stdin()?;
    }
    let has_tokens = has_tokens(&config.data);
    let scheme = if config.tls.is_some() { "https" } else { "http" };
    let (data, output) = (config.data.clone(), *output);
    let ready = move |address: SocketAddr| {
        let ready = Ready {
            address: address.to_string(),
            url: format!("{scheme}://{address}"),
            data: data.display().to_string(),
            pid: std::process::id(),
            has_tokens,
        };
        output.result_line(&ready, |ready| tell(ready, output));
    };
    server::run(config, ready).map_err(|error| CliError::failed(format!("{error:#}")))?;
    Ok(0)
}

fn tell(ready: &Ready, output: Output) {
    output.line(format!("tendon {} listens on {}, data in {}", env!("CARGO_PKG_VERSION"), ready.url, ready.data));
    let data = quoted(&ready.data);
    if ready.has_tokens {
        output.line(format!("more tokens: tendon token create --role operator --data {data}"));
    } else {
        output.line("nobody can use it yet, there is no token; make the first one in another terminal:");
        output.line(format!("  tendon token create --role admin --data {data}"));
    }
    output.line("stop it with Ctrl-C");
}

/// A path as a shell reads it.
#[must_use]
pub fn quoted(text: &str) -> String {
    let plain =
        |character: char| character.is_ascii_alphanumeric() || matches!(character, '/' | '.' | '_' | '-' | '~' | ':');
    if !text.is_empty() && text.chars().all(plain) {
        return text.to_owned();
    }
    format!("'{}'", text.replace('\'', r"'\''"))
}

/// Whether any token exists. In doubt yes: a store that cannot be opened says why at once afterwards.
fn has_tokens(data: &Path) -> bool {
    let waits = std::fs::read_dir(data.join(TOKEN_INBOX)).is_ok_and(|mut entries| entries.next().is_some());
    let meta = data.join("meta");
    waits
        || (meta.exists()
            && Meta::open(&meta).and_then(|meta| meta.tokens.list()).map_or(true, |tokens| !tokens.is_empty()))
}

/// Sends this process SIGTERM when stdin ends.
fn stop_with_stdin() -> Result<(), CliError> {
    let watch = || {
        let _ = std::io::copy(&mut std::io::stdin().lock(), &mut std::io::sink());
        let own = rustix::process::getpid();
        let _ = rustix::process::kill_process(own, rustix::process::Signal::TERM);
    };
    let watcher = std::thread::Builder::new().name("stdin".to_owned()).spawn(watch);
    watcher.map(drop).map_err(|error| CliError::failed(format!("no thread ({error}); raise the limit of threads")))
}

/// A command that runs a server with this very program.
///
/// # Errors
/// When the system does not tell where the program is.
pub fn child(data: &Path, listen: SocketAddr) -> Result<Command, CliError> {
    let program = std::env::current_exe().map_err(|error| {
        CliError::failed(format!("the system does not tell where this program is ({error}); run it by its full path"))
    })?;
    let mut command = Command::new(program);
    command.arg("serve").arg("--data").arg(data).arg("--listen").arg(listen.to_string()).arg("--stop-with-stdin");
    Ok(command)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_path_is_quoted_so_that_a_shell_reads_it_back() {
        assert_eq!(quoted("/srv/tendon-1"), "/srv/tendon-1");
        assert_eq!(quoted("my data"), "'my data'");
        assert_eq!(quoted("it's"), r"'it'\''s'");
        assert_eq!(quoted(""), "''");
    }

    #[test]
    fn a_folder_without_a_store_has_no_tokens_and_one_with_a_waiting_record_has() {
        let folder = tempfile::tempdir().unwrap();
        assert!(!has_tokens(folder.path()));
        std::fs::create_dir(folder.path().join(TOKEN_INBOX)).unwrap();
        assert!(!has_tokens(folder.path()));
        std::fs::write(folder.path().join(TOKEN_INBOX).join("1.json"), "{}").unwrap();
        assert!(has_tokens(folder.path()));
    }
}
