//! `tendon demo`: everything in a minute, with the plug pulled twice.
//!
//! A server process of this very program, a simulated robot ([`robot`], [`arm`], [`picture`]), a cut
//! connection, a SIGKILL, then the dataset, checked. What is counted and on whose word: [`report`].

mod arm;
mod picture;
mod report;
mod robot;
mod server;

use std::path::{Path, PathBuf};
use std::time::Duration;

use clap::Args;
use indicatif::ProgressBar;
use tendon_actors::api::NewExport;
use tendon_agent::{Agent, AgentConfig, Clock};
use tendon_dataset::verify::Severity;
use tendon_protocol::control::MarkAction;
use tendon_protocol::id::ProducerId;
use tendon_storage::records::{ExportFormat, Role, RowClock, SessionRecord, SessionType};
use tokio::signal::unix::{SignalKind, signal};
use tokio::time::Instant;

use super::client::{Client, NewSession};
use super::episodes::settled;
use super::error::{CliError, EXIT_FINDINGS};
use super::output::{Output, count, document_text};
use super::serve::quoted;
use super::stream::agent_failed;
use super::{ServerArgs, export, token, verify};
use report::{AckMs, Facts, Report};
use robot::Robot;
use server::Server;

pub use report::{Report as DemoReport, StreamLine};

const EXAMPLES: &str = "\
Examples:
  tendon demo                              stays up afterwards, so that you can look around
  tendon demo --exit --json report.json    for scripts: ends with the report
  tendon demo --out /tmp/demo --episodes 1

Everything lies below --out: the server's data, its log, the dataset. Exit code 0: nothing was lost
and nothing found; 1: something was; 2: the demo did not run to its end.";

/// Length of an episode in seconds.
const EPISODE_S: f64 = 6.0;
/// Time between two episodes, while the streams go on.
const BETWEEN: Duration = Duration::from_secs(1);
/// How long the plug stays out.
const UNPLUGGED: Duration = Duration::from_millis(700);
/// How long the server stays dead.
const DEAD: Duration = Duration::from_millis(400);
/// What the robot is told to do, in turn.
const TASKS: [&str; 2] = ["Pick up the green cube and put it into the box.", "Take the green cube out of the box."];
/// Most episodes: an hour of them.
const EPISODES_MAX: u32 = 500;

/// Arguments of `tendon demo`.
#[derive(Debug, Args)]
#[command(after_help = EXAMPLES)]
pub struct DemoArgs {
    /// Folder for everything.
    #[arg(long, value_name = "DIR", default_value = "tendon-demo")]
    pub out: PathBuf,
    /// Episodes to record, six seconds each.
    #[arg(long, value_name = "N", default_value_t = 3, value_parser = clap::value_parser!(u32).range(1..=i64::from(EPISODES_MAX)))]
    pub episodes: u32,
    /// End after the report instead of staying up.
    #[arg(long)]
    pub exit: bool,
    /// Also write the report as JSON into this file.
    #[arg(long, value_name = "FILE")]
    pub json: Option<PathBuf>,
}

/// Something that goes wrong on purpose.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Trouble {
    /// The connection is cut.
    Cut,
    /// The server gets SIGKILL and is started again.
    Kill,
}

/// What goes wrong in an episode of so many, each with its part of the episode's length.
fn troubles(number: u32, episodes: u32) -> Vec<(f64, Trouble)> {
    let (cut, kill) = (1.min(episodes - 1), 2.min(episodes - 1));
    match (number == cut, number == kill) {
        (true, true) => vec![(0.3, Trouble::Cut), (0.6, Trouble::Kill)],
        (true, false) => vec![(0.5, Trouble::Cut)],
        (false, true) => vec![(0.5, Trouble::Kill)],
        (false, false) => Vec::new(),
    }
}

/// Everything that runs.
struct Stage {
    server: Server,
    client: Client,
    token: String,
    session: SessionRecord,
    agent: Agent,
    connections_cut: u32,
    server_kills: u32,
    output: Output,
}

/// Runs the demo.
///
/// # Errors
/// When something keeps it from running to its end.
pub async fn run(args: &DemoArgs, output: &Output) -> Result<u8, CliError> {
    let dataset = args.out.join("dataset");
    if let Some(file) = &args.json {
        // Found out now, not after the recording.
        let opened = std::fs::OpenOptions::new().create(true).append(true).open(file);
        opened.map_err(|error| CliError::path("write", file, &error, "choose another file with --json"))?;
    }
    // The same for a folder that holds something else.
    export::check_out(&dataset)?;
    let mut stage = Stage::set(args, *output).await?;
    let report = stage.play(args.episodes, &dataset).await?;
    report.tell(output);
    tell_verdict(&report, output);
    if let Some(file) = &args.json {
        let written = std::fs::write(file, document_text(&report) + "\n");
        written.map_err(|error| CliError::path("write", file, &error, "choose another file with --json"))?;
    }
    if !args.exit {
        stage.stay().await?;
    }
    stage.server.stop().await?;
    Ok(if report.is_clean() { 0 } else { EXIT_FINDINGS })
}

fn tell_verdict(report: &Report, output: &Output) {
    for finding in report.findings.iter().filter(|finding| finding.severity != Severity::Info) {
        output.line(format!("found: {} {}: {}", finding.file, finding.code, finding.message));
    }
    if report.is_clean() {
        output.line(
            "nothing that was acknowledged is missing, and verify finds nothing: lerobot can load the dataset from",
        );
    } else {
        output.line(
            "SOMETHING IS WRONG, see the numbers above; the server's log and data are kept beside the dataset in",
        );
    }
    output.line(format!("  {}", report.dataset));
}

impl Stage {
    /// Starts the server, makes a token and a session, connects the robot.
    async fn set(args: &DemoArgs, output: Output) -> Result<Self, CliError> {
        let (data, log) = (args.out.join("server"), args.out.join("server.log"));
        std::fs::create_dir_all(&data)
            .map_err(|error| CliError::path("make", &data, &error, "choose another folder with --out"))?;
        let (text, _) = token::create_in(&data, "demo", Role::Admin)?;
        let address = server::free_address()?;
        output.note(format!("starting a server on {address}; its data and log are in {}", args.out.display()));
        let mut server = Server::start(&data, &log, address)?;
        let arguments = ServerArgs { to: format!("http://{address}"), token: text.clone() };
        let client = Client::new(&arguments)?;
        server.ready(&client).await?;
        let session = client.create_session(&new_session()?).await?;
        output.note(format!("session {}: a simulated SO-101 leader and follower with two cameras", session.id));
        let clock = Clock::boot().map_err(|error| agent_failed(&error))?;
        let producer = ProducerId::from_u128(rand::random());
        let config = AgentConfig::new(client.base(), client.token(), session.id, producer, clock);
        let agent = Agent::connect(config).await.map_err(|error| agent_failed(&error))?;
        Ok(Self { server, client, token: text, session, agent, connections_cut: 0, server_kills: 0, output })
    }

    /// Records, exports, verifies, counts.
    async fn play(&mut self, episodes: u32, dataset: &Path) -> Result<Report, CliError> {
        let robot = Robot::start(self.agent.clone()).await?;
        for number in 0..episodes {
            self.episode(number, episodes).await?;
            tokio::time::sleep(BETWEEN).await;
        }
        let sent = robot.stop().await?;
        self.output.note("waiting until everything is acknowledged and stored");
        self.agent.close().await.map_err(|error| agent_failed(&error))?;
        let stored = settled(&self.client, self.session.id, 0, episodes as usize, &self.output).await?;
        self.session = self.client.complete(self.session.id).await?;
        let stats = self.agent.stats();
        let acknowledged = self.agent.positions();
        let facts = Facts { session: &self.session, episodes: &stored, sent: &sent, acknowledged: &acknowledged };
        self.output.note("exporting the session as a LeRobot dataset");
        let exported = export::export(&self.client, &self.request(), dataset, &self.output).await?;
        exported.warnings.iter().for_each(|warning| self.output.note(format!("  {warning}")));
        self.output.note(format!(
            "checking {}, {}",
            count(exported.episodes.into(), "episode"),
            count(exported.rows, "row")
        ));
        let checked = verify::check(dataset, &self.output);
        Ok(Report {
            samples_sent: stats.samples_sent,
            samples_stored: facts.stored(),
            samples_replayed: stats.samples_replayed,
            duplicates_removed: self.session.duplicates_removed,
            acknowledged_lost: facts.acknowledged_lost(),
            connections_cut: self.connections_cut,
            server_kills: self.server_kills,
            ack_ms: AckMs { p50: stats.ack_ms.p50, p99: stats.ack_ms.p99 },
            streams: facts.streams(),
            episodes: facts.stored_episodes().min(exported.episodes),
            dataset: exported.path,
            findings: checked.findings,
        })
    }

    fn request(&self) -> NewExport {
        NewExport {
            dataset: None,
            session: Some(self.session.id),
            format: ExportFormat::V30,
            exclude: Vec::new(),
            allow_not_finite: false,
            video: None,
        }
    }

    async fn episode(&mut self, number: u32, episodes: u32) -> Result<(), CliError> {
        let task = TASKS[number as usize % TASKS.len()];
        self.output.note(format!("episode {} of {episodes}: {task}", number + 1));
        self.mark(MarkAction::Start, number, task).await?;
        let begin = Instant::now();
        let bar = self.output.bar_percent(tenths(EPISODE_S), format!("recording episode {} of {episodes}", number + 1));
        for (part, trouble) in troubles(number, episodes) {
            watch_until(&bar, begin, EPISODE_S * part).await;
            match trouble {
                Trouble::Cut => self.cut(&bar),
                Trouble::Kill => self.kill(&bar).await?,
            }
        }
        watch_until(&bar, begin, EPISODE_S).await;
        bar.finish_and_clear();
        self.mark(MarkAction::StopSuccess, number, "").await
    }

    async fn mark(&self, action: MarkAction, number: u32, task: &str) -> Result<(), CliError> {
        let now_ns = self.agent.clock().now_ns();
        self.agent.mark(action, number.into(), now_ns, task).await.map_err(|error| agent_failed(&error))
    }

    fn cut(&mut self, bar: &ProgressBar) {
        bar.suspend(|| {
            self.output
                .note("  the network cable is pulled: the robot goes on recording, and sends the rest when it is back")
        });
        self.agent.cut_for(UNPLUGGED);
        self.connections_cut += 1;
    }

    async fn kill(&mut self, bar: &ProgressBar) -> Result<(), CliError> {
        bar.suspend(|| self.output.note("  the server is killed (SIGKILL) in the middle of its work"));
        self.server.kill()?;
        self.server_kills += 1;
        tokio::time::sleep(DEAD).await;
        self.server.start_again()?;
        self.server.ready(&self.client).await?;
        bar.suspend(|| {
            self.output.note("  the server is back: it has read its log and tells the robot where to go on")
        });
        Ok(())
    }

    /// Stays up for somebody to look around, until Ctrl-C or SIGTERM.
    async fn stay(&self) -> Result<(), CliError> {
        // Started by cargo, the program is not on the path.
        let program = std::env::args().next().map_or_else(|| "tendon".to_owned(), |program| quoted(&program));
        let (base, token, session) = (self.client.base(), &self.token, self.session.id);
        for line in [
            String::new(),
            format!("the server stays up at {base}; look around from another terminal:"),
            String::new(),
            format!("  export TENDON_URL={base}"),
            format!("  export TENDON_TOKEN={token}"),
            "  curl -s -H \"Authorization: Bearer $TENDON_TOKEN\" $TENDON_URL/api/v1/sessions".to_owned(),
            format!(
                "  curl -s -H \"Authorization: Bearer $TENDON_TOKEN\" $TENDON_URL/api/v1/sessions/{session}/episodes"
            ),
            "  curl -s -H \"Authorization: Bearer $TENDON_TOKEN\" $TENDON_URL/metrics | grep tendon_".to_owned(),
            format!("  {program} sessions"),
            format!("  {program} export {session} --out ./my-dataset"),
            String::new(),
            "Ctrl-C ends it; the data stays".to_owned(),
        ] {
            self.output.line(line);
        }
        let no_signals = |error: std::io::Error| CliError::failed(format!("signals cannot be heard ({error})"));
        let mut interrupt = signal(SignalKind::interrupt()).map_err(no_signals)?;
        let mut terminate = signal(SignalKind::terminate()).map_err(no_signals)?;
        tokio::select! {
            _ = interrupt.recv() => {}
            _ = terminate.recv() => {}
        }
        Ok(())
    }
}

fn new_session() -> Result<NewSession, CliError> {
    Ok(NewSession {
        operator: "demo".to_owned(),
        robot: "simulated-so101".to_owned(),
        embodiment: "so101_follower".to_owned(),
        kind: SessionType::LeaderArm,
        fps: robot::CAMERA_HZ,
        row_clock: RowClock::Grid,
        dataset: "demo"
            .parse()
            .map_err(|error: tendon_storage::records::DatasetNameError| CliError::failed(error.to_string()))?,
        metadata: serde_json::Map::new(),
    })
}

#[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "a conversion of floats saturates")]
fn tenths(seconds: f64) -> u64 {
    (seconds * 10.0).round() as u64
}

/// Moves the bar until so many seconds of the episode have passed.
async fn watch_until(bar: &ProgressBar, begin: Instant, seconds: f64) {
    let end = begin + Duration::from_secs_f64(seconds);
    while Instant::now() < end {
        bar.set_position(tenths(begin.elapsed().as_secs_f64()));
        tokio::time::sleep_until(end.min(Instant::now() + Duration::from_millis(100))).await;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_plug_is_pulled_in_episode_2_and_the_server_killed_in_episode_3() {
        assert_eq!((0..4).map(|number| troubles(number, 4).len()).collect::<Vec<_>>(), [0, 1, 1, 0]);
        assert_eq!(troubles(1, 3), [(0.5, Trouble::Cut)]);
        assert_eq!(troubles(2, 3), [(0.5, Trouble::Kill)]);
    }

    #[test]
    fn a_shorter_demo_has_both_troubles_all_the_same() {
        assert_eq!(troubles(1, 2), [(0.3, Trouble::Cut), (0.6, Trouble::Kill)]);
        assert!(troubles(0, 2).is_empty());
        assert_eq!(troubles(0, 1).len(), 2);
    }
}
