//! One client of `kills`: a process that may die at any moment and goes on where it stood.
//!
//! Every value is a function of session, stream and sequence number, so that whatever the server
//! stored can be checked without asking this process. What it saw acknowledged it writes down, since
//! it will not live to tell. It ends in order when its stdin ends.

use std::fs::File;
use std::io::Write;
use std::process::ExitCode;
use std::time::Duration;

use anyhow::{Context, Result, bail};
use tendon_agent::{Agent, AgentConfig, Backoff, Clock, Status};
use tendon_protocol::control::MarkAction;
use tendon_protocol::id::{ProducerId, SessionId, StreamId};
use tendon_protocol::stream::{Content, Dtype, Role, StreamDeclaration};

use crate::options::ProduceArgs;
use crate::values::{picture, sample};

/// Joints that were measured.
pub const STATE: StreamId = StreamId(1);
/// Elements of [`STATE`].
pub const STATE_WIDTH: u32 = 28;
/// Joints that were ordered.
pub const ACTION: StreamId = StreamId(2);
/// Elements of [`ACTION`].
pub const ACTION_WIDTH: u32 = 7;
/// A camera.
pub const CAMERA: StreamId = StreamId(3);
/// Bytes of a picture.
pub const PICTURE_BYTES: usize = 3000;
/// Samples of [`STATE`] between two pictures.
const PICTURE_EVERY: u64 = 8;
/// Samples of [`STATE`] of one episode.
const EPISODE_SAMPLES: u64 = 500;
/// Samples of a batch: more batches, more moments to die in.
const BATCH: usize = 8;
/// How often it is written down what was acknowledged.
const NOTE_EVERY: Duration = Duration::from_millis(20);
/// Longest wait for the last acknowledgements.
const CLOSE_WAIT: Duration = Duration::from_secs(90);
/// Where the token comes from: the command line is for everybody to read.
pub const TOKEN_VARIABLE: &str = "TENDON_TOKEN";
/// File in the client's folder with what it saw acknowledged: a line each, stream and next sequence.
pub const NOTES: &str = "acknowledged";

/// Runs the client.
pub fn run(args: ProduceArgs) -> ExitCode {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    let done = runtime.context("no runtime").and_then(|runtime| runtime.block_on(produce(&args)));
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("producer {}: {error:#}", args.producer);
            ExitCode::from(2)
        }
    }
}

/// What its streams carry.
fn declarations(rate_hz: u32) -> [StreamDeclaration; 3] {
    let numbers = |stream, feature: &str, width, role| StreamDeclaration {
        stream,
        feature: feature.into(),
        names: Vec::new(),
        unit: "rad".into(),
        dtype: Dtype::F32,
        shape: vec![width],
        rate_mhz: rate_hz * 1000,
        required: true,
        role,
        content: Content::Values,
    };
    let camera = StreamDeclaration {
        stream: CAMERA,
        feature: "observation.images.front".into(),
        names: Vec::new(),
        unit: String::new(),
        dtype: Dtype::U8,
        shape: vec![48, 64, 3],
        rate_mhz: 0,
        required: false,
        role: Role::Measured,
        content: Content::Jpeg,
    };
    [
        numbers(STATE, "observation.state", STATE_WIDTH, Role::Measured),
        numbers(ACTION, "action", ACTION_WIDTH, Role::Commanded),
        camera,
    ]
}

async fn produce(args: &ProduceArgs) -> Result<()> {
    let session: SessionId = args.session.parse()?;
    let token = std::env::var(TOKEN_VARIABLE).context("no token in the environment")?;
    std::fs::create_dir_all(&args.folder).with_context(|| format!("cannot make {}", args.folder.display()))?;
    let mut config = AgentConfig::new(&args.url, token, session, ProducerId(session.0), Clock::boot()?);
    config.spool.folder = Some(args.folder.join("spool"));
    config.spool.mode = tendon_agent::SpoolMode::WriteThrough;
    config.batch_samples = BATCH;
    config.backoff = Backoff { min: Duration::from_millis(10), max: Duration::from_millis(200) };
    config.connect_wait = Some(CLOSE_WAIT);
    let agent = Agent::connect(config).await?;
    let notes = tokio::spawn(note(agent.clone(), args.folder.join(NOTES)));
    let sent = send(&agent, session, args.rate).await;
    let closed = match sent {
        Ok(()) => tokio::time::timeout(CLOSE_WAIT, agent.flush())
            .await
            .context("samples are not acknowledged")?
            .map_err(Into::into),
        Err(error) => Err(error),
    };
    if closed.is_ok() {
        // The last acknowledgements are noted before the farewell.
        tokio::time::sleep(NOTE_EVERY * 3).await;
        agent.close().await?;
    }
    notes.abort();
    closed
}

async fn send(agent: &Agent, session: SessionId, rate_hz: u32) -> Result<()> {
    for declaration in declarations(rate_hz) {
        agent.declare(declaration).await?;
    }
    let seed = u128::from_be_bytes(session.0);
    let (ended, mut end) = tokio::sync::oneshot::channel();
    // A thread of its own: nothing can cancel a read of stdin.
    std::thread::spawn(move || {
        let _ = std::io::copy(&mut std::io::stdin().lock(), &mut std::io::sink());
        let _ = ended.send(());
    });
    // An episode that an earlier life left open ends where this one starts, so that every sample is in one.
    let mut episode = agent.episode() + 1;
    agent.mark(MarkAction::Start, episode, agent.clock().now_ns(), "kill me").await?;
    let mut ticks = tokio::time::interval(Duration::from_secs(1) / rate_hz);
    let mut status = agent.status();
    loop {
        tokio::select! {
            _ = ticks.tick() => {}
            _ = &mut end => break,
        }
        if let Status::Failed(error) = &*status.borrow_and_update() {
            bail!("the agent gave up: {error}");
        }
        let sequence = agent.next_sequence(STATE);
        if sequence % EPISODE_SAMPLES == EPISODE_SAMPLES - 1 {
            let now_ns = agent.clock().now_ns();
            agent.mark(MarkAction::StopSuccess, episode, now_ns, "").await?;
            episode += 1;
            agent.mark(MarkAction::Start, episode, now_ns + 1, "again").await?;
            // The first sample of an episode must not be older than its mark.
            while agent.clock().now_ns() <= now_ns + 1 {}
        }
        agent.send(STATE, agent.clock().now_ns(), &sample(seed, STATE.0, sequence, STATE_WIDTH), 0).await?;
        let command = agent.next_sequence(ACTION);
        agent.send(ACTION, agent.clock().now_ns(), &sample(seed, ACTION.0, command, ACTION_WIDTH), 0).await?;
        if sequence.is_multiple_of(PICTURE_EVERY) {
            let number = agent.next_sequence(CAMERA);
            agent
                .send_media(CAMERA, agent.clock().now_ns(), &picture(seed, CAMERA.0, number, PICTURE_BYTES), 0)
                .await?;
        }
    }
    agent.mark(MarkAction::StopSuccess, episode, agent.clock().now_ns(), "").await?;
    Ok(())
}

/// Writes down what is acknowledged, one line each. A line that is cut by a kill is ignored by the reader.
async fn note(agent: Agent, path: std::path::PathBuf) -> Result<()> {
    let mut file = File::options()
        .create(true)
        .append(true)
        .open(&path)
        .with_context(|| format!("cannot write {}", path.display()))?;
    let mut noted = Vec::new();
    loop {
        let positions = agent.positions();
        if positions != noted {
            let lines: String =
                positions.iter().map(|position| format!("{} {}.\n", position.stream, position.next)).collect();
            // One write: a process that is killed has written all of it or none.
            file.write_all(lines.as_bytes())?;
            noted = positions;
        }
        tokio::time::sleep(NOTE_EVERY).await;
    }
}
