//! `tendon export`: a session or a dataset of a server, as a LeRobot dataset on this disk.
//!
//! The server does the work as a job; this command follows it and fetches the files. [`download`]
//! keeps the promise that a dataset that a reader can see is always whole.

mod download;
#[cfg(test)]
mod tests;

use std::path::{Path, PathBuf};
use std::str::FromStr;
use std::time::Duration;

use clap::Args;
use serde::Serialize;
use tendon_actors::api::NewExport;
use tendon_protocol::id::SessionId;
use tendon_storage::records::{DatasetName, EpisodeKey, ExportFormat, ExportRecord, JobState, VideoChoice};

use super::ServerArgs;
use super::client::Client;
use super::error::CliError;
use super::output::{Output, bytes, count};
use download::Target;

const EXAMPLES: &str = "\
Examples:
  tendon export cups --to http://lab:7400 --token T --out ./cups           a dataset: all its sessions
  tendon export 0197f3a0-0000-7000-8000-000000000001 --out ./one           one session
  tendon export cups --out ./cups --exclude SESSION/3 --format v2.1 --video h264

--out must be empty, or hold an earlier export, which is then replaced. Exit code 0: done; 1: the
server could not export this, and says why; 2: not done for another reason.";

/// Pause between two looks at the job.
const POLL: Duration = Duration::from_millis(250);
/// Times that the files are fetched anew when a newer export has changed them meanwhile.
const RESTARTS: usize = 2;
/// The server's refusals that are about what was asked for, not about who asks or how the server is.
const ABOUT_DATA: [&str; 2] = ["wrong_state", "invalid"];
/// Steps of the bar.
const STEPS: f64 = 1000.0;

/// What is exported.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Source {
    /// All stored episodes of a session.
    Session(SessionId),
    /// All stored episodes of a dataset.
    Dataset(DatasetName),
}

impl FromStr for Source {
    type Err = tendon_storage::records::DatasetNameError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        match text.parse() {
            Ok(session) => Ok(Self::Session(session)),
            Err(_) => text.parse().map(Self::Dataset),
        }
    }
}

/// Arguments of `tendon export`.
#[derive(Debug, Args)]
#[command(after_help = EXAMPLES)]
pub struct ExportArgs {
    /// A session's id, or a dataset's name.
    #[arg(value_name = "SESSION|DATASET")]
    pub source: Source,
    /// Which server.
    #[command(flatten)]
    pub server: ServerArgs,
    /// Folder for the dataset; empty, or with an earlier export.
    #[arg(long, value_name = "DIR")]
    pub out: PathBuf,
    /// v3.0, or v2.1 for openpi and forks that pin it.
    #[arg(long, value_name = "VERSION", default_value = "v3.0")]
    pub format: ExportFormat,
    /// Leave an episode out, as SESSION/NUMBER; may be given again.
    #[arg(long, value_name = "SESSION/NUMBER")]
    pub exclude: Vec<EpisodeKey>,
    /// keep, h264 or av1 [default: the server's video.codec].
    #[arg(long, value_name = "CODEC")]
    pub video: Option<VideoChoice>,
    /// Export NaN and infinite values instead of refusing them.
    #[arg(long)]
    pub allow_not_finite: bool,
    /// Print JSON.
    #[arg(long)]
    pub json: bool,
}

/// What `export --json` prints.
#[derive(Clone, Debug, Serialize)]
pub struct Exported {
    /// Id of the job on the server.
    pub export: String,
    /// Folder of the dataset.
    pub path: String,
    /// Its format.
    pub format: ExportFormat,
    /// Episodes in it.
    pub episodes: u32,
    /// Rows in it.
    pub rows: u64,
    /// Files in it.
    pub files: usize,
    /// Bytes in all.
    pub bytes: u64,
    /// What its reader should know.
    pub warnings: Vec<String>,
}

/// Runs the command.
///
/// # Errors
/// When the folder cannot be used, the server does not answer, or the export fails.
pub async fn run(args: &ExportArgs, output: &Output) -> Result<u8, CliError> {
    let client = Client::new(&args.server)?;
    let exported = export(&client, &request(args), &args.out, output).await?;
    output.warn_all(&exported.warnings);
    output.result(&exported, |exported| {
        let (episodes, rows) = (count(exported.episodes.into(), "episode"), count(exported.rows, "row"));
        output.note(format!("{} with {episodes}, {rows}, {}", exported.format, bytes(exported.bytes)));
        output.line(&exported.path);
    });
    Ok(0)
}

fn request(args: &ExportArgs) -> NewExport {
    let (dataset, session) = match &args.source {
        Source::Session(session) => (None, Some(*session)),
        Source::Dataset(name) => (Some(name.to_string()), None),
    };
    NewExport {
        dataset,
        session,
        format: args.format,
        exclude: args.exclude.iter().map(ToString::to_string).collect(),
        allow_not_finite: args.allow_not_finite,
        video: args.video,
    }
}

/// Whether a folder may become a dataset: empty, absent, or an earlier export.
///
/// # Errors
/// When it holds something else.
pub fn check_out(out: &Path) -> Result<(), CliError> {
    Target::open(out).map(drop)
}

/// Starts an export, follows it, and brings its files into `out`.
///
/// # Errors
/// When the folder cannot be used, the server does not answer, or the export fails.
pub async fn export(client: &Client, request: &NewExport, out: &Path, output: &Output) -> Result<Exported, CliError> {
    // Looked at first: an hour of work on the server must not end at a folder that is not empty.
    let target = Target::open(out)?;
    let mut record = follow(client, start(client, request).await?, output).await?;
    let mut restarts = 0;
    let bytes = loop {
        match target.fetch(client, &record, output).await {
            Err(error) if error.code == download::CHANGED && restarts < RESTARTS => {
                restarts += 1;
                output.note("a newer export has changed files meanwhile; fetching them anew");
                record = again(client, request, record, output).await?;
            }
            fetched => break fetched?,
        }
    };
    Ok(Exported {
        export: record.id,
        path: out.display().to_string(),
        format: record.format,
        episodes: record.episodes_done,
        rows: record.rows,
        files: record.files.len(),
        bytes,
        warnings: record.warnings,
    })
}

async fn start(client: &Client, request: &NewExport) -> Result<ExportRecord, CliError> {
    let started = client.export(request).await;
    started.map_err(|error| if ABOUT_DATA.contains(&error.code.as_str()) { error.about_data() } else { error })
}

/// The export as it is now. A record that still lists the old files is of no more use: the same is
/// then asked for again, which waits for the newer export and goes on where that ended.
async fn again(
    client: &Client,
    request: &NewExport,
    before: ExportRecord,
    output: &Output,
) -> Result<ExportRecord, CliError> {
    let now = client.export_state(&before.id).await?;
    let now = if now.files == before.files { start(client, request).await? } else { now };
    follow(client, now, output).await
}

#[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "a conversion of floats saturates")]
async fn follow(client: &Client, started: ExportRecord, output: &Output) -> Result<ExportRecord, CliError> {
    let bar = output.bar_percent(STEPS as u64, "exporting");
    let mut record = started;
    loop {
        match record.state {
            JobState::Queued | JobState::Running => {}
            JobState::Done => {
                bar.finish_and_clear();
                return Ok(record);
            }
            JobState::Failed => {
                let why = record.error.unwrap_or_else(|| "the server gives no reason".to_owned());
                let error = CliError::refused("export_failed", format!("the export failed: {why}"));
                // Only an export that was cut off by the end of its server has no end of its own.
                return Err(if record.finished_ns.is_some() { error.about_data() } else { error });
            }
        }
        bar.set_position((record.progress * STEPS) as u64);
        if !record.step.is_empty() {
            bar.set_message(record.step.clone());
        }
        tokio::time::sleep(POLL).await;
        record = client.export_state(&record.id).await?;
    }
}
