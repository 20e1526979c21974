//! `flaky`: the agent library over connections that break at random. Nothing may be lost or doubled.

use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};
use serde_json::json;
use tendon_agent::{Agent, AgentConfig, Backoff, Clock, Latencies, Stats};
use tendon_protocol::id::{ClockId, ProducerId, SessionId, StreamId};
use tokio::task::JoinSet;

use super::stream::RATE_DEFAULT;
use super::{compare, create_sessions, declarations, seed_of};
use crate::link::STATE;
use crate::options::StreamArgs;
use crate::process::{cpu_s, memory};
use crate::report::{AckMs, Cpu, Flaky, Load, Rates, Report, Rss};
use crate::rest::Rest;
use crate::server_process::{Folder, Server};
use crate::values::{WIDTH, picture, sample};

/// Time between two cuts of a connection in milliseconds.
const BETWEEN_MS: std::ops::Range<u64> = 300..3000;
/// How long the network stays away in milliseconds.
const AWAY_MS: std::ops::Range<u64> = 0..500;
/// Time between two pictures.
const PICTURE_EVERY: Duration = Duration::from_nanos(1_000_000_000 / 30);
/// Bytes of a picture.
const PICTURE_BYTES: usize = 40_000;
/// Longest wait for the last acknowledgements.
const CLOSE_WAIT: Duration = Duration::from_secs(60);

/// Runs the scenario.
pub fn run(args: StreamArgs) -> Result<bool> {
    let runtime =
        tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().context("no runtime")?;
    runtime.block_on(measure(args))
}

struct Done {
    stats: Stats,
    latencies: Latencies,
    sent: Vec<(String, u64)>,
    cuts: u64,
}

async fn measure(args: StreamArgs) -> Result<bool> {
    let seed = seed_of(args.server.seed);
    let folder = Folder::new(args.server.data.as_deref())?;
    let server = Server::open(&args.server, &folder).await?;
    let empty = server.pid().map(memory).transpose()?.map(|memory| memory.rss);
    let sessions = create_sessions(&server.rest, args.sessions, "flaky").await?;
    let own = std::process::id();
    let (begun, client_cpu, server_cpu) = (Instant::now(), cpu_s(own)?, server.pid().map(cpu_s).transpose()?);
    let mut robots = JoinSet::new();
    for (number, session) in (0..).zip(&sessions) {
        let random = StdRng::seed_from_u64(seed ^ number);
        robots.spawn(robot(server.rest.clone(), args.clone(), *session, random));
    }
    let (mut load, mut flaky, mut sent_all) =
        (Load { sessions: args.sessions, ..Load::default() }, Flaky::default(), (0, 0));
    let (mut latencies, mut bytes) = (Latencies::default(), 0);
    while let Some(done) = robots.join_next().await {
        let (session, done) = done??;
        let kept = compare(&server.rest, session, &done.sent).await?;
        load.lost += kept.lost + done.stats.samples_lost + done.stats.samples_refused;
        load.duplicates += kept.duplicates;
        load.throttled_ms += done.stats.throttled_ms;
        flaky.cuts += done.cuts;
        flaky.connections += done.stats.connections;
        flaky.replayed += done.stats.samples_replayed;
        latencies.merge(&done.latencies);
        bytes += done.stats.bytes;
        for (feature, count) in &done.sent {
            if feature == "observation.state" { sent_all.0 += count } else { sent_all.1 += count }
        }
    }
    load.seconds = begun.elapsed().as_secs_f64();
    let rates = |count: u64| Rates {
        offered: count as f64 / load.seconds,
        stored: count.saturating_sub(load.lost) as f64 / load.seconds,
    };
    (load.frames_per_s, load.pictures_per_s) = (rates(sent_all.0), rates(sent_all.1));
    let frames = sent_all.0.max(1) as f64;
    let client_s = cpu_s(own)? - client_cpu;
    let server_s = server.pid().map(cpu_s).transpose()?.zip(server_cpu).map(|(after, before)| after - before);
    load.cpu_us_per_frame = Cpu { server: server_s.map(|it| it * 1e6 / frames), client: client_s * 1e6 / frames };
    load.cpu_cores = Cpu { server: server_s.map(|it| it / load.seconds), client: client_s / load.seconds };
    load.ack_ms = AckMs {
        p50: latencies.quantile_ms(0.5),
        p99: latencies.quantile_ms(0.99),
        p999: latencies.quantile_ms(0.999),
        max: latencies.quantile_ms(1.0),
        count: latencies.count(),
    };
    load.rss_bytes = Rss {
        server_empty: empty,
        server: server.pid().map(memory).transpose()?.map(|memory| memory.rss),
        client: memory(own)?.rss,
    };
    load.flaky = Some(flaky);
    if args.cameras == 0 {
        // Everything that was sent, replays included.
        load.wire_bytes_per_frame = bytes as f64 / frames;
        load.rest_bytes_per_frame = load.wire_bytes_per_frame;
    }
    let settings = json!({
        "sessions": args.sessions, "rate_hz": rate(&args), "batch": args.batch, "cameras": args.cameras, "seconds": args.seconds, "zstd": args.zstd,
    });
    let report = Report::new("flaky", folder.path(), settings, seed, load).with_ratios();
    report.publish(args.server.json.as_deref())?;
    Ok(report.is_clean())
}

fn rate(args: &StreamArgs) -> f64 {
    if args.rate > 0.0 { args.rate } else { RATE_DEFAULT }
}

/// One producer, from its first connection to its goodbye.
async fn robot(rest: Rest, args: StreamArgs, session: SessionId, mut random: StdRng) -> Result<(SessionId, Done)> {
    // A clock of its own for each, as robots have.
    let clock = Clock::bent(ClockId(session.0), random.random_range(-3_600_000_000_000..3_600_000_000_000), 0);
    let mut config = AgentConfig::new(&rest.url, &rest.token, session, ProducerId(session.0), clock);
    config.batch_samples = usize::from(args.batch);
    config.compress = args.zstd;
    config.backoff = Backoff { min: Duration::from_millis(20), max: Duration::from_millis(500) };
    let agent = Agent::connect(config).await?;
    let declarations = declarations(rate(&args), args.cameras);
    for declaration in &declarations {
        agent.declare(declaration.clone()).await?;
    }
    let lasts = Duration::from_secs(u64::from(args.seconds));
    let cutter = tokio::spawn(cut(agent.clone(), random, lasts));
    let mut senders = JoinSet::new();
    senders.spawn(send_numbers(agent.clone(), session, rate(&args), lasts));
    for camera in 0..args.cameras {
        senders.spawn(send_pictures(agent.clone(), session, StreamId(2 + camera), lasts));
    }
    while let Some(sent) = senders.join_next().await {
        sent??;
    }
    let cuts = cutter.await?;
    tokio::time::timeout(CLOSE_WAIT, agent.flush()).await.with_context(|| {
        let stats = agent.stats();
        format!(
            "{} samples are not acknowledged after {} s; last error: {:?}",
            stats.samples_waiting,
            CLOSE_WAIT.as_secs(),
            stats.last_error
        )
    })??;
    let sent = declarations.into_iter().map(|it| (it.feature, agent.next_sequence(it.stream))).collect();
    let done = Done { stats: agent.stats(), latencies: agent.latencies(), sent, cuts };
    agent.close().await?;
    Ok((session, done))
}

async fn cut(agent: Agent, mut random: StdRng, lasts: Duration) -> u64 {
    let begun = Instant::now();
    let mut cuts = 0;
    loop {
        let pause = Duration::from_millis(random.random_range(BETWEEN_MS));
        if begun.elapsed() + pause >= lasts {
            return cuts;
        }
        tokio::time::sleep(pause).await;
        agent.cut_for(Duration::from_millis(random.random_range(AWAY_MS)));
        cuts += 1;
    }
}

async fn send_numbers(agent: Agent, session: SessionId, rate_hz: f64, lasts: Duration) -> Result<()> {
    let seed = u128::from_be_bytes(session.0);
    let begun = tokio::time::Instant::now();
    for sequence in 0u64.. {
        let at = Duration::from_secs_f64(sequence as f64 / rate_hz);
        if at >= lasts {
            return Ok(());
        }
        tokio::time::sleep_until(begun + at).await;
        agent.send(STATE, agent.clock().now_ns(), &sample(seed, STATE.0, sequence, WIDTH as u32), 0).await?;
    }
    Ok(())
}

async fn send_pictures(agent: Agent, session: SessionId, stream: StreamId, lasts: Duration) -> Result<()> {
    let seed = u128::from_be_bytes(session.0);
    let mut ticks = tokio::time::interval(PICTURE_EVERY);
    let begun = Instant::now();
    for sequence in 0u64.. {
        ticks.tick().await;
        if begun.elapsed() >= lasts {
            return Ok(());
        }
        agent.send_media(stream, agent.clock().now_ns(), &picture(seed, stream.0, sequence, PICTURE_BYTES), 0).await?;
    }
    Ok(())
}
