//! `tendon stream`: a LeRobot dataset, played to a server as a robot would.
//!
//! Read [`plan`] first (which features become which streams), then [`times`] (when each row was),
//! then [`play`] (what is sent in which order). Rows come back one to one, because every stream of
//! numbers has one sample a row, at the row's own time, and `observation.state` is the row clock.

mod plan;
mod play;
mod summary;
mod times;

use std::path::{Path, PathBuf};
use std::str::FromStr;
use std::time::Instant;

use clap::{Args, ValueEnum};
use indicatif::ProgressBar;
use tendon_agent::{Agent, AgentConfig, Clock, Status};
use tendon_dataset::lerobot::reader::Dataset;
use tendon_protocol::id::{ClockId, ProducerId, SessionId};
use tendon_storage::records::{DatasetName, PERSON_BYTES_MAX, RowClock, SessionRecord, SessionType};
use thiserror::Error;
use tokio::sync::watch;

use super::ServerArgs;
use super::client::{Client, NewSession};
use super::episodes::settled;
use super::error::{CliError, EXIT_FINDINGS};
use super::output::{Output, count, now_ns};
use super::ranges::Ranges;
use plan::{Plan, ROW_STREAM};
use play::Player;
use summary::{feature, played, tell, troubles};
use times::Timeline;

pub use plan::LeftOut;
pub use summary::{Feature, Played, Summary};

const EXAMPLES: &str = "\
Examples:
  tendon stream my-dataset --to http://lab:7400 --token T            in real time
  tendon stream my-dataset --speed max --episodes 0,3-5              TENDON_URL and TENDON_TOKEN are set
  SESSION=$(tendon stream my-dataset --speed max | tail -n 1)        the last line is the session id

Reads v2.0, v2.1 and v3.0. Exit code 0: every row is stored; 1: something is missing, it is said
what; 2: not streamed.";

/// Samples of a message when nothing waits for them one by one.
const BATCH_AT_MAX_SPEED: usize = 64;

/// How fast a recording is played.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Speed {
    /// As fast as the server acknowledges.
    Max,
    /// So many times real time.
    Times(f64),
}

/// A text is no speed.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
#[error("{got:?} is no speed; write max, or a factor from 0.01 to 1000 such as 1 or 2.5")]
pub struct SpeedError {
    got: String,
}

impl FromStr for Speed {
    type Err = SpeedError;

    fn from_str(text: &str) -> Result<Self, SpeedError> {
        if text == "max" {
            return Ok(Self::Max);
        }
        match text.parse::<f64>() {
            Ok(factor) if (0.01..=1000.0).contains(&factor) => Ok(Self::Times(factor)),
            Ok(_) | Err(_) => Err(SpeedError { got: text.chars().take(32).collect() }),
        }
    }
}

/// Which cameras are played.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub enum CameraChoice {
    /// Those whose video is there for every episode that is played.
    #[default]
    Whole,
    /// All that have a video for at least one of them; an export fills the rest with black.
    Any,
    /// None.
    None,
}

/// Arguments of `tendon stream`.
#[derive(Debug, Args)]
#[command(after_help = EXAMPLES)]
pub struct StreamArgs {
    /// Folder of the dataset: the one that holds meta/info.json.
    pub dataset_dir: PathBuf,
    /// Which server.
    #[command(flatten)]
    pub server: ServerArgs,
    /// max, or so many times real time.
    #[arg(long, value_name = "max|N", default_value = "1")]
    pub speed: Speed,
    /// Episodes to play, by episode_index, such as 0,3-5 [default: all].
    #[arg(long, value_name = "LIST")]
    pub episodes: Option<Ranges>,
    /// Dataset on the server that the session belongs to [default: the folder's name].
    #[arg(long, value_name = "NAME")]
    pub dataset: Option<DatasetName>,
    /// Who drives [default: $USER].
    #[arg(long, value_name = "NAME")]
    pub operator: Option<String>,
    /// Which robot [default: the dataset's robot_type].
    #[arg(long, value_name = "NAME")]
    pub robot: Option<String>,
    /// How it was driven.
    #[arg(long = "type", value_name = "TYPE", default_value = "policy")]
    pub kind: SessionType,
    /// Play into this session and leave it open, instead of making one.
    #[arg(long, value_name = "ID", conflicts_with_all = ["dataset", "operator", "robot", "kind"])]
    pub session: Option<SessionId>,
    /// Which cameras are played.
    #[arg(long, value_name = "WHICH", default_value = "whole")]
    pub cameras: CameraChoice,
    /// Print JSON instead of the session id.
    #[arg(long)]
    pub json: bool,
}

/// Runs the command.
///
/// # Errors
/// When the dataset cannot be read, or the server does not answer or refuses.
pub async fn run(args: &StreamArgs, output: &Output) -> Result<u8, CliError> {
    let client = Client::new(&args.server)?;
    let mut dataset = open(&args.dataset_dir)?;
    let chosen = choose(&dataset, args.episodes.as_ref())?;
    let plan = plan::plan(&dataset, &args.dataset_dir, &chosen, args.cameras)?;
    // What is not played is not read.
    dataset.features.retain(|feature| plan.streams.iter().any(|stream| stream.feature == feature.spec.key));
    let session = session(args, &client, &dataset, &plan).await?;
    let mut warnings = oddities(&dataset, &plan, &session);
    output.warn_all(&warnings);
    output.note(format!(
        "session {}: {} into dataset {}",
        session.id,
        count(chosen.len() as u64, "episode"),
        session.dataset
    ));
    let begin = Instant::now();
    let sent = send(args, &client, &session, &dataset, &plan, &chosen, output).await?;
    let stored = settled(&client, session.id, session.episodes, chosen.len(), output).await?;
    if args.session.is_none() {
        client.complete(session.id).await?;
    }
    let fresh: Vec<String> = sent.warnings.iter().map(|(episode, odd)| format!("episode {episode}: {odd}")).collect();
    output.warn_all(&fresh);
    warnings.extend(fresh);
    let episodes: Vec<Played> = stored.iter().zip(&sent.episodes).map(|(record, sent)| played(record, *sent)).collect();
    let troubles = troubles(&stored, &episodes);
    output.warn_all(&troubles);
    let is_whole = troubles.is_empty();
    warnings.extend(troubles);
    let summary = Summary {
        session: session.id,
        dataset: session.dataset,
        source: args.dataset_dir.display().to_string(),
        version: dataset.version.name(),
        rows: sent.episodes.iter().map(|(_, rows)| rows).sum(),
        samples_sent: sent.stats.samples_sent,
        samples_acknowledged: sent.stats.samples_acknowledged,
        samples_replayed: sent.stats.samples_replayed,
        seconds: begin.elapsed().as_secs_f64(),
        features: plan.streams.into_iter().map(feature).collect(),
        left_out: plan.left_out,
        episodes,
        warnings,
    };
    output.result(&summary, |summary| tell(summary, output));
    Ok(if is_whole { 0 } else { EXIT_FINDINGS })
}

/// What is odd before anything is sent.
fn oddities(dataset: &Dataset, plan: &Plan, session: &SessionRecord) -> Vec<String> {
    let mut odd: Vec<String> =
        plan.left_out.iter().map(|left| format!("{} is left out: {}", left.feature, left.why)).collect();
    // The reader's own words about a feature that is left out would only repeat this.
    let is_told =
        |warning: &&String| plan.left_out.iter().any(|left| warning.starts_with(&format!("{}:", left.feature)));
    odd.extend(dataset.warnings.iter().filter(|warning| !is_told(warning)).cloned());
    let wanted = RowClock::Stream(ROW_STREAM.to_owned());
    if session.row_clock != wanted || session.fps != plan.fps {
        odd.push(format!(
            "session {} makes rows by {} at {} a second; to get the recording back row by row it needs {wanted} at {}",
            session.id, session.row_clock, session.fps, plan.fps
        ));
    }
    odd
}

fn open(folder: &Path) -> Result<Dataset, CliError> {
    Dataset::open(folder).map_err(|error| CliError::usage(format!("{}: {error}", folder.display())))
}

/// Positions of the episodes that are played.
fn choose(dataset: &Dataset, wanted: Option<&Ranges>) -> Result<Vec<usize>, CliError> {
    let Some(wanted) = wanted else {
        if dataset.episodes.is_empty() {
            return Err(CliError::usage("the dataset has no episodes"));
        }
        return Ok((0..dataset.episodes.len()).collect());
    };
    let place = |index: u64| dataset.episodes.iter().position(|episode| episode.index == index).ok_or(index);
    wanted.iter().map(place).collect::<Result<Vec<usize>, u64>>().map_err(|index| {
        let last = dataset.episodes.iter().map(|episode| episode.index).max().unwrap_or(0);
        CliError::usage(format!(
            "--episodes: there is no episode {index}; the dataset has {} up to {last}",
            count(dataset.episodes.len() as u64, "episode")
        ))
    })
}

/// The session that was named, or a new one.
async fn session(
    args: &StreamArgs,
    client: &Client,
    dataset: &Dataset,
    plan: &Plan,
) -> Result<SessionRecord, CliError> {
    if let Some(id) = args.session {
        return client.session(id).await;
    }
    let robot = args
        .robot
        .clone()
        .or_else(|| dataset.robot_type.clone())
        .and_then(|name| person(&name))
        .unwrap_or_else(|| "unknown".to_owned());
    let embodiment = dataset.robot_type.as_deref().and_then(person).unwrap_or_else(|| "unknown".to_owned());
    let user = || std::env::var("USER").ok().and_then(|name| person(&name)).unwrap_or_else(|| "unknown".to_owned());
    let folder = std::path::absolute(&args.dataset_dir).unwrap_or_else(|_| args.dataset_dir.clone());
    let name = folder.file_name().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default();
    let mut metadata = serde_json::Map::new();
    metadata.insert("source".to_owned(), serde_json::json!({ "folder": name, "version": dataset.version.name() }));
    let new = NewSession {
        operator: args.operator.clone().unwrap_or_else(user),
        robot,
        embodiment,
        kind: args.kind,
        fps: plan.fps,
        row_clock: RowClock::Stream(ROW_STREAM.to_owned()),
        dataset: args.dataset.clone().map_or_else(|| dataset_name(&name), Ok)?,
        metadata,
    };
    client.create_session(&new).await
}

/// A name that a session may hold, from whatever a dataset says; `None` when nothing is left of it.
fn person(text: &str) -> Option<String> {
    let plain: String = text.chars().filter(|character| !character.is_control()).collect();
    let mut name = plain.trim().to_owned();
    while name.len() > PERSON_BYTES_MAX {
        name.pop();
    }
    let name = name.trim_end().to_owned();
    (!name.is_empty()).then_some(name)
}

/// A dataset's name from a folder's.
fn dataset_name(folder: &str) -> Result<DatasetName, CliError> {
    let mut name = String::new();
    for character in folder.trim_start_matches('.').chars() {
        let kept = if character.is_alphanumeric() || matches!(character, '-' | '_' | '.') { character } else { '-' };
        if name.len() + kept.len_utf8() > tendon_storage::records::DATASET_NAME_BYTES_MAX {
            break;
        }
        if !(kept == '.' && name.ends_with('.')) {
            name.push(kept);
        }
    }
    name.parse().map_err(|error| {
        CliError::usage(format!("the folder's name makes no dataset name ({error}); give one with --dataset"))
    })
}

/// What was sent.
struct Sent {
    /// `episode_index` and rows of each.
    episodes: Vec<(u64, u64)>,
    /// What is odd, with the `episode_index`.
    warnings: Vec<(u64, String)>,
    stats: tendon_agent::Stats,
}

async fn send(
    args: &StreamArgs,
    client: &Client,
    session: &SessionRecord,
    dataset: &Dataset,
    plan: &Plan,
    chosen: &[usize],
    output: &Output,
) -> Result<Sent, CliError> {
    // A session that was fed before takes the same producer only.
    let producer = session.producer.unwrap_or_else(|| ProducerId::from_u128(rand::random()));
    let clock = Clock::replay(ClockId::from_u128(rand::random()));
    let mut config = AgentConfig::new(client.base(), client.token(), session.id, producer, clock);
    if args.speed == Speed::Max {
        config.batch_samples = BATCH_AT_MAX_SPEED;
    }
    let agent = Agent::connect(config).await.map_err(|error| agent_failed(&error))?;
    for stream in &plan.streams {
        agent.declare(stream.clone()).await.map_err(|error| agent_failed(&error))?;
    }
    let rows = chosen.iter().map(|position| dataset.episodes[*position].length).sum();
    let bar = output.bar(rows, "streaming rows");
    let watcher = tokio::spawn(tell_breaks(agent.status(), bar.clone(), *output));
    let mut player = Player::new(&agent, plan, Timeline::starting_at(now_ns()), args.speed, bar.clone());
    let mut sent = Sent { episodes: Vec::new(), warnings: Vec::new(), stats: tendon_agent::Stats::default() };
    for (number, position) in chosen.iter().enumerate() {
        let episode = tokio::task::block_in_place(|| dataset.read_episode(*position))
            .map_err(|error| CliError::failed(error.to_string()))?;
        let mark = u64::from(session.episodes) + number as u64;
        let odd = player.play(mark, &episode).await?;
        sent.warnings.extend(episode.warnings.into_iter().chain(odd).map(|odd| (episode.index, odd)));
        sent.episodes.push((episode.index, episode.rows as u64));
    }
    bar.set_message("waiting for the last acknowledgements");
    agent.close().await.map_err(|error| agent_failed(&error))?;
    watcher.abort();
    bar.finish_and_clear();
    sent.stats = agent.stats();
    Ok(sent)
}

/// Says when the connection is lost and when it is back: the agent itself only goes on trying.
async fn tell_breaks(mut status: watch::Receiver<Status>, bar: ProgressBar, output: Output) {
    let mut is_away = false;
    loop {
        let was_away = is_away;
        is_away = match &*status.borrow_and_update() {
            Status::Offline => true,
            Status::Replaying | Status::Connected => false,
            Status::Failed(_) | Status::Closed => return,
        };
        if is_away != was_away {
            let text =
                if is_away { "the connection is lost; trying again, nothing is lost" } else { "connected again" };
            bar.suspend(|| output.note(text));
        }
        if status.changed().await.is_err() {
            return;
        }
    }
}

/// An agent's fault with its code for scripts.
#[must_use]
pub fn agent_failed(error: &tendon_agent::AgentError) -> CliError {
    use tendon_agent::AgentError as Agent;
    let text = error.to_string();
    match error {
        Agent::Unreachable { .. } => CliError::unreachable(text),
        Agent::Refused { code, .. } if !code.is_empty() => CliError::refused(code, text),
        Agent::AcknowledgedLost { .. } => CliError::refused("acknowledged_lost", text).about_data(),
        _ => CliError::failed(text),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn a_speed_is_max_or_a_sane_factor() {
        assert_eq!("max".parse(), Ok(Speed::Max));
        assert_eq!("2.5".parse(), Ok(Speed::Times(2.5)));
        for text in ["0", "-1", "NaN", "inf", "1001", "fast", ""] {
            assert!(text.parse::<Speed>().is_err(), "{text}");
        }
    }

    proptest! {
        /// Whatever a folder is called, its dataset has an allowed name or the user is asked for one.
        #[test]
        fn a_folders_name_becomes_an_allowed_one(folder in any::<String>()) {
            if let Err(error) = dataset_name(&folder) {
                prop_assert!(error.to_string().contains("--dataset"));
                prop_assert!(folder.trim_start_matches('.').is_empty());
            }
        }

        #[test]
        fn a_persons_name_is_always_one_that_records_take(text in any::<String>()) {
            if let Some(name) = person(&text) {
                prop_assert!(!name.is_empty() && name.len() <= PERSON_BYTES_MAX && name.trim() == name);
                prop_assert!(!name.chars().any(char::is_control));
            }
        }
    }

    #[test]
    fn a_folders_name_stays_readable() {
        assert_eq!(dataset_name("dobot-cr5-v2").unwrap().as_str(), "dobot-cr5-v2");
        assert_eq!(dataset_name("..my data (1)").unwrap().as_str(), "my-data--1-");
    }
}
