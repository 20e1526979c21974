//! `tendon sessions`: what a server has recorded.

use clap::Args;
use serde::Serialize;
use serde_json::Value;
use tendon_storage::records::{DatasetName, SessionState, SessionType};

use super::ServerArgs;
use super::client::Client;
use super::error::CliError;
use super::output::{Output, count, moment};
use super::table::{Side, Table};

const EXAMPLES: &str = "\
Examples:
  tendon sessions --to http://lab:7400 --token T
  tendon sessions --state recording --robot arm-1          TENDON_URL and TENDON_TOKEN are set
  tendon sessions --day 2026-11-25 --json | jq '.sessions[].id'";

/// Arguments of `tendon sessions`.
#[derive(Debug, Args)]
#[command(after_help = EXAMPLES)]
pub struct SessionsArgs {
    /// Which server.
    #[command(flatten)]
    pub server: ServerArgs,
    /// Sessions of this robot only.
    #[arg(long, value_name = "NAME")]
    pub robot: Option<String>,
    /// Sessions of this operator only.
    #[arg(long, value_name = "NAME")]
    pub operator: Option<String>,
    /// Sessions of this dataset only.
    #[arg(long, value_name = "NAME")]
    pub dataset: Option<DatasetName>,
    /// Sessions in this state only: created, recording, paused, completed or failed.
    #[arg(long, value_name = "STATE")]
    pub state: Option<SessionState>,
    /// Sessions of this type only, such as leader_arm or vr_quest.
    #[arg(long = "type", value_name = "TYPE")]
    pub kind: Option<SessionType>,
    /// Sessions of this day only, in UTC.
    #[arg(long, value_name = "YYYY-MM-DD")]
    pub day: Option<String>,
    /// Most sessions that are listed, newest first.
    #[arg(long, value_name = "N", default_value_t = 100)]
    pub limit: usize,
    /// Print JSON.
    #[arg(long)]
    pub json: bool,
}

/// What `sessions --json` prints.
#[derive(Clone, Debug, Serialize)]
pub struct Listed {
    /// Session records as the server shows them (docs/api.md), newest first.
    pub sessions: Vec<Value>,
}

impl SessionsArgs {
    fn query(&self) -> Vec<(&'static str, String)> {
        let fields = [
            ("robot", self.robot.clone()),
            ("operator", self.operator.clone()),
            ("dataset", self.dataset.as_ref().map(ToString::to_string)),
            ("state", self.state.map(|state| state.to_string())),
            ("type", self.kind.map(|kind| kind.to_string())),
            ("day", self.day.clone()),
        ];
        fields.into_iter().filter_map(|(name, value)| Some((name, value?))).collect()
    }
}

/// Runs the command.
///
/// # Errors
/// When the server does not answer or refuses.
pub async fn run(args: &SessionsArgs, output: &Output) -> Result<u8, CliError> {
    let client = Client::new(&args.server)?;
    let listed = Listed { sessions: client.sessions(&args.query(), args.limit).await? };
    output.result(&listed, |listed| show(&listed.sessions, args.limit, output));
    Ok(0)
}

fn show(sessions: &[Value], limit: usize, output: &Output) {
    if sessions.is_empty() {
        output.line("no such sessions");
        return;
    }
    for line in table(sessions).lines() {
        output.line(line);
    }
    let number = sessions.len();
    let more = if number == limit { "; there may be more, see --limit" } else { "" };
    output.note(format!("{}{more}", count(number as u64, "session")));
}

/// One row per session. Whatever a newer server leaves out stays empty.
fn table(sessions: &[Value]) -> Table {
    let mut table = Table::new(&[
        ("session", Side::Left),
        ("state", Side::Left),
        ("made (UTC)", Side::Left),
        ("robot", Side::Left),
        ("operator", Side::Left),
        ("type", Side::Left),
        ("dataset", Side::Left),
        ("fps", Side::Right),
        ("episodes", Side::Right),
    ]);
    for session in sessions {
        let text = |field: &str| session[field].as_str().unwrap_or_default().to_owned();
        let number = |field: &str| session[field].as_u64().map(|number| number.to_string()).unwrap_or_default();
        let made = session["created_ns"].as_i64().map(moment).unwrap_or_default();
        table.row([
            text("id"),
            text("state"),
            made,
            text("robot"),
            text("operator"),
            text("type"),
            text("dataset"),
            number("fps"),
            number("episodes"),
        ]);
    }
    table
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_session_is_one_line_of_the_table() {
        let session = serde_json::json!({
            "id": "0197f3a0-0000-7000-8000-000000000001", "state": "completed", "created_ns": 0, "robot": "arm-1",
            "operator": "ada", "type": "leader_arm", "dataset": "cups", "fps": 30, "episodes": 3,
        });
        let lines = table(&[session, Value::Null]).lines();
        assert_eq!(
            lines[1],
            "0197f3a0-0000-7000-8000-000000000001  completed  1970-01-01 00:00:00  arm-1  ada       leader_arm  cups      30         3"
        );
        assert_eq!(lines[2], "");
    }
}
