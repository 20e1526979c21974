//! `tendon doctor`: what this machine lacks to run a server, and how to get it.

mod checks;

use std::net::SocketAddr;
use std::path::PathBuf;

use clap::Args;
use serde::Serialize;

use super::error::{CliError, EXIT_FINDINGS};
use super::output::Output;
use crate::config::{Config, Overrides};

const EXAMPLES: &str = "\
Examples:
  tendon doctor
  tendon doctor --data /srv/tendon --listen 0.0.0.0:7400
  tendon doctor --json | jq '.checks[] | select(.state != \"ok\")'

Exit code 0: a server can run here; 1: something that it needs is missing.";

/// Arguments of `tendon doctor`.
#[derive(Debug, Args)]
#[command(after_help = EXAMPLES)]
pub struct DoctorArgs {
    /// File with the server's settings.
    #[arg(long, value_name = "FILE")]
    pub config: Option<PathBuf>,
    /// Folder that the server would use [default: tendon-data].
    #[arg(long, value_name = "DIR")]
    pub data: Option<PathBuf>,
    /// Address that the server would listen on [default: 127.0.0.1:7400].
    #[arg(long, value_name = "ADDR")]
    pub listen: Option<SocketAddr>,
    /// Print JSON.
    #[arg(long)]
    pub json: bool,
}

/// How a check ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum State {
    /// As it should be.
    Ok,
    /// It works, with less comfort or speed.
    Warning,
    /// A server cannot run, or could lose its promise.
    Missing,
}

/// One check.
#[derive(Clone, Debug, Serialize)]
pub struct Check {
    /// Stable name for scripts.
    pub name: &'static str,
    /// How it ended.
    pub state: State,
    /// What was found, with numbers.
    pub message: String,
    /// What to do; null when nothing.
    pub remedy: Option<String>,
}

/// What `doctor --json` prints.
#[derive(Clone, Debug, Serialize)]
pub struct Diagnosis {
    /// Whether a server can run.
    pub ok: bool,
    /// Every check, in a fixed order.
    pub checks: Vec<Check>,
}

/// Runs the command.
///
/// # Errors
/// When the settings cannot be read.
pub fn run(args: &DoctorArgs, output: &Output) -> Result<u8, CliError> {
    let overrides = Overrides { data: args.data.clone(), listen: args.listen };
    let config = Config::load(args.config.as_deref(), overrides).map_err(|error| CliError::usage(error.to_string()))?;
    let working = output.spinner("looking at this machine");
    let checks = checks::all(&config);
    working.finish_and_clear();
    let diagnosis = Diagnosis { ok: checks.iter().all(|check| check.state != State::Missing), checks };
    output.result(&diagnosis, |diagnosis| lines(diagnosis).iter().for_each(|line| output.line(line)));
    Ok(if diagnosis.ok { 0 } else { EXIT_FINDINGS })
}

fn lines(diagnosis: &Diagnosis) -> Vec<String> {
    let mut lines = Vec::new();
    let wide = diagnosis.checks.iter().map(|check| check.name.len()).max().unwrap_or(0);
    for check in &diagnosis.checks {
        let word = match check.state {
            State::Ok => "ok     ",
            State::Warning => "warning",
            State::Missing => "MISSING",
        };
        lines.push(format!("{word}  {:wide$}  {}", check.name, check.message));
        lines.extend(check.remedy.iter().map(|remedy| format!("{:indent$}{remedy}", "", indent = wide + 11)));
    }
    lines.push(String::new());
    let verdict = if diagnosis.ok {
        "a server can run here: tendon serve"
    } else {
        "a server cannot run here yet, see MISSING above"
    };
    lines.push(verdict.to_owned());
    lines
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_missing_is_loud_and_says_what_to_do() {
        let check = |name, state, remedy: Option<&str>| Check {
            name,
            state,
            message: "m".to_owned(),
            remedy: remedy.map(str::to_owned),
        };
        let checks = vec![check("disk", State::Missing, Some("make room")), check("ffmpeg", State::Ok, None)];
        let lines = lines(&Diagnosis { ok: false, checks });
        assert_eq!(lines[0], "MISSING  disk    m");
        assert_eq!(lines[1], "                 make room");
        assert_eq!(lines[2], "ok       ffmpeg  m");
        assert!(lines.last().unwrap().contains("cannot run"));
    }
}
