//! The command line.

use std::path::PathBuf;

use clap::{Args, Parser, Subcommand};

const EXAMPLES: &str = "\
Examples:
  cargo run --release -p tendon-loadtest -- steady --half --json load.json
  cargo run --release -p tendon-loadtest -- steady --sessions 200 --rate 50 --cameras 1 --seconds 30
  cargo run --release -p tendon-loadtest -- idle --sessions 1000
  cargo run --release -p tendon-loadtest -- kills --count 60 --seed 7

Exit codes: 0 done; 1 something was lost, doubled or wrong; 2 not done.";

/// Loads a Tendon server on its real wire and compares it with what the machine can do.
#[derive(Debug, Parser)]
#[command(name = "tendon-loadtest", version, after_help = EXAMPLES, max_term_width = 100)]
pub struct Options {
    /// What to do.
    #[command(subcommand)]
    pub command: Command,
}

/// Scenarios.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Sessions that send at an even rate, or as fast as they are acknowledged (--rate 0).
    Steady(StreamArgs),
    /// The same rate in bursts: a second's worth of samples at once, all sessions together.
    Burst(StreamArgs),
    /// Connections that break at random and resume, with the agent library.
    Flaky(StreamArgs),
    /// Sessions that streamed for a while and then stay connected in silence: memory of each.
    Idle(IdleArgs),
    /// SIGKILL of server and clients at random points; everything stored is read back and checked.
    Kills(KillArgs),
    /// One client of `kills`.
    #[command(hide = true)]
    Produce(ProduceArgs),
}

/// Which server.
#[derive(Clone, Debug, Args)]
pub struct ServerArgs {
    /// A running server, such as http://127.0.0.1:7400. Without it one is started and stopped.
    #[arg(long, value_name = "URL", requires = "token")]
    pub url: Option<String>,
    /// Its API token, with role admin or operator.
    #[arg(long, value_name = "TOKEN", env = "TENDON_TOKEN", hide_env_values = true)]
    pub token: Option<String>,
    /// Folder on the disk to measure; a folder of its own is made in it and removed at the end.
    #[arg(long, value_name = "DIR")]
    pub data: Option<PathBuf>,
    /// The program `tendon`. Without it the one of the same build, which is built if need be.
    #[arg(long, value_name = "FILE")]
    pub server: Option<PathBuf>,
    /// Length of one file of the log, and of the disk's yardstick, in MiB. A server has 64 by default.
    #[arg(long, value_name = "MIB", default_value_t = 64, value_parser = clap::value_parser!(u32).range(4..=1024))]
    pub segment_mib: u32,
    /// Write the report as JSON to this file, `-` for stdout.
    #[arg(long, value_name = "FILE")]
    pub json: Option<PathBuf>,
    /// Seed of everything random; printed in any case.
    #[arg(long, value_name = "N")]
    pub seed: Option<u64>,
}

/// Arguments of `steady`, `burst` and `flaky`.
#[derive(Clone, Debug, Args)]
pub struct StreamArgs {
    /// Sessions, each with a connection of its own.
    #[arg(long, default_value_t = 16, value_parser = clap::value_parser!(u32).range(1..=20_000))]
    pub sessions: u32,
    /// Samples a second of each session; 0 is as fast as they are acknowledged. `burst` and `flaky` take 200 for 0.
    #[arg(long, value_name = "HZ", default_value_t = 0.0)]
    pub rate: f64,
    /// Samples of a batch.
    #[arg(long, default_value_t = 16, value_parser = clap::value_parser!(u16).range(1..=256))]
    pub batch: u16,
    /// Cameras of each session: 40 kB at 30 Hz each.
    #[arg(long, default_value_t = 0, value_parser = clap::value_parser!(u32).range(0..=16))]
    pub cameras: u32,
    /// Length of the measurement, without warm-up and yardsticks.
    #[arg(long, default_value_t = 10, value_parser = clap::value_parser!(u32).range(1..=86_400))]
    pub seconds: u32,
    /// First measure the capacity, then once more at half of it, where acknowledgements should be quick.
    #[arg(long)]
    pub half: bool,
    /// Compress batches with zstd, as producers do by default. The client's time for it is in its CPU figure.
    #[arg(long)]
    pub zstd: bool,
    /// Batches of all sessions together that may wait for their acknowledgement at --rate 0.
    #[arg(long, default_value_t = 2048, value_parser = clap::value_parser!(u32).range(1..=1_000_000))]
    pub window: u32,
    /// Seconds before each measurement that do not count.
    #[arg(long, value_name = "SECONDS", default_value_t = 2, value_parser = clap::value_parser!(u32).range(0..=3600))]
    pub warmup: u32,
    /// Do not fill the log's files before the measurement; a young log writes every byte twice, once as zero.
    #[arg(long)]
    pub cold: bool,
    /// Which server.
    #[command(flatten)]
    pub server: ServerArgs,
}

/// Arguments of `idle`.
#[derive(Clone, Debug, Args)]
pub struct IdleArgs {
    /// Sessions.
    #[arg(long, default_value_t = 1000, value_parser = clap::value_parser!(u32).range(1..=20_000))]
    pub sessions: u32,
    /// Seconds of streaming (50 Hz, 16 a batch) before the silence.
    #[arg(long, value_name = "SECONDS", default_value_t = 10, value_parser = clap::value_parser!(u32).range(1..=3600))]
    pub stream: u32,
    /// Seconds of silence before memory is read.
    #[arg(long, value_name = "SECONDS", default_value_t = 15, value_parser = clap::value_parser!(u32).range(1..=3600))]
    pub silence: u32,
    /// Which server.
    #[command(flatten)]
    pub server: ServerArgs,
}

/// Arguments of `kills`.
#[derive(Clone, Debug, Args)]
pub struct KillArgs {
    /// Kills: server and clients in turn.
    #[arg(long, default_value_t = 60, value_parser = clap::value_parser!(u32).range(1..=1_000_000))]
    pub count: u32,
    /// Clients, each a process and a session of its own.
    #[arg(long, default_value_t = 4, value_parser = clap::value_parser!(u32).range(1..=64))]
    pub producers: u32,
    /// Samples a second of each stream.
    #[arg(long, value_name = "HZ", default_value_t = 200, value_parser = clap::value_parser!(u32).range(1..=10_000))]
    pub rate: u32,
    /// Longest time between two kills in milliseconds.
    #[arg(long, value_name = "MS", default_value_t = 700, value_parser = clap::value_parser!(u32).range(50..=600_000))]
    pub pause_ms: u32,
    /// Keep the data folder, also when all went well.
    #[arg(long)]
    pub keep: bool,
    /// Which server. `--url` cannot be used: a server that was not started here cannot be killed.
    #[command(flatten)]
    pub server: ServerArgs,
}

/// Arguments of `produce`.
#[derive(Clone, Debug, Args)]
pub struct ProduceArgs {
    /// Server.
    #[arg(long)]
    pub url: String,
    /// Session to feed.
    #[arg(long)]
    pub session: String,
    /// Number of this client.
    #[arg(long)]
    pub producer: u32,
    /// Folder of its spool and of what it saw acknowledged.
    #[arg(long)]
    pub folder: PathBuf,
    /// Samples a second of each stream.
    #[arg(long)]
    pub rate: u32,
}
