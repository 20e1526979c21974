//! The command line: what people and scripts type.
//!
//! Read [`Command`] first: one module per command, each with its arguments, its work and its JSON
//! schema (a struct that derives `Serialize`; `docs/cli.md` shows it, a test compares the two).
//! [`output`] is the one place that decides between people and machines: results go to stdout, all
//! that is said on the way to stderr, and with `--json` stdout holds exactly one JSON document.
//!
//! Exit codes: 0 done, 1 done but something is wrong with the data, 2 not done.

pub mod client;
pub mod demo;
pub mod doctor;
pub mod episodes;
pub mod error;
pub mod export;
pub mod output;
pub mod ranges;
pub mod serve;
pub mod sessions;
pub mod stream;
pub mod table;
pub mod token;
pub mod verify;

use std::future::Future;
use std::process::ExitCode;

use clap::{Args, Parser, Subcommand};

use error::CliError;
use output::Output;

/// What [`Cli`] says about itself.
const ABOUT: &str = "Records robot teleoperation without losing a frame, and turns it into LeRobot datasets.";

const EXAMPLES: &str = "\
Begin here:
  tendon demo                        everything at once: record, pull the plug, export, verify
  tendon doctor                      what this machine lacks
  tendon serve                       a server for robots

Exit codes: 0 done; 1 done, but something is wrong with the data; 2 not done.
Logs are chosen by TENDON_LOG, such as TENDON_LOG=debug.";

/// The whole command line.
#[derive(Debug, Parser)]
#[command(name = "tendon", version, about = ABOUT, after_help = EXAMPLES, max_term_width = 100)]
pub struct Cli {
    /// What to do.
    #[command(subcommand)]
    pub command: Command,
}

/// One command each.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Run a server until it is stopped by Ctrl-C or SIGTERM.
    Serve(serve::ServeArgs),
    /// Show everything in a minute: record a simulated robot, cut it off, kill the server, export, verify.
    Demo(demo::DemoArgs),
    /// Play a LeRobot dataset to a server as a robot would.
    Stream(stream::StreamArgs),
    /// List the sessions of a server.
    Sessions(sessions::SessionsArgs),
    /// Fetch a session or a dataset from a server as a LeRobot dataset.
    Export(export::ExportArgs),
    /// Check a LeRobot dataset on disk, more strictly than lerobot does.
    Verify(verify::VerifyArgs),
    /// Make, list and revoke the tokens that let robots and people in.
    Token(token::TokenArgs),
    /// Say what this machine lacks to run a server, and how to get it.
    Doctor(doctor::DoctorArgs),
}

/// Which server, and who asks.
#[derive(Clone, Debug, Args)]
pub struct ServerArgs {
    /// Address of the server, such as http://robot-lab:7400.
    #[arg(long, value_name = "URL", env = "TENDON_URL")]
    pub to: String,
    /// API token, as `tendon token create` printed it. In the environment other users do not see it.
    #[arg(long, value_name = "TOKEN", env = "TENDON_TOKEN", hide_env_values = true)]
    pub token: String,
}

/// Reads the command line, runs the command, gives the exit code.
#[must_use]
pub fn main() -> ExitCode {
    // The only crypto back end; a second call finds it installed, which is as good.
    let _ = rustls::crypto::ring::default_provider().install_default();
    let cli = Cli::parse();
    let output = Output::new(cli.command.wants_json());
    match run(cli.command, &output) {
        Ok(code) => ExitCode::from(code),
        Err(error) => {
            output.error(&error);
            ExitCode::from(error.exit)
        }
    }
}

impl Command {
    /// Whether stdout is for a machine. `demo --json FILE` writes a file and talks to people.
    #[must_use]
    pub fn wants_json(&self) -> bool {
        match self {
            Self::Serve(args) => args.json,
            Self::Demo(_) => false,
            Self::Stream(args) => args.json,
            Self::Sessions(args) => args.json,
            Self::Export(args) => args.json,
            Self::Verify(args) => args.json,
            Self::Token(args) => args.json,
            Self::Doctor(args) => args.json,
        }
    }
}

/// Runs one command.
///
/// # Errors
/// When the command could not do its work.
pub fn run(command: Command, output: &Output) -> Result<u8, CliError> {
    match command {
        Command::Serve(args) => serve::run(&args, output),
        Command::Demo(args) => wait_for(demo::run(&args, output)),
        Command::Stream(args) => wait_for(stream::run(&args, output)),
        Command::Sessions(args) => wait_for(sessions::run(&args, output)),
        Command::Export(args) => wait_for(export::run(&args, output)),
        Command::Verify(args) => Ok(verify::run(&args, output)),
        Command::Token(args) => token::run(&args, output),
        Command::Doctor(args) => doctor::run(&args, output),
    }
}

/// Runs a command that talks to a server.
fn wait_for<T>(work: impl Future<Output = Result<T, CliError>>) -> Result<T, CliError> {
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build();
    runtime
        .map_err(|error| CliError::failed(format!("no threads ({error}); raise the limit of threads")))?
        .block_on(work)
}

#[cfg(test)]
mod tests;
