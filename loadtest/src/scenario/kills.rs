//! `kills`: SIGKILL of server and clients at random points. What was acknowledged must be there, once.

use std::collections::BTreeMap;
use std::fs;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};
use serde::Serialize;
use tendon_protocol::id::SessionId;

use super::check::{Checker, Found, acknowledged};
use super::produce::{NOTES, TOKEN_VARIABLE};
use super::{create_sessions, on_one_thread, seed_of};
use crate::machine::{Machine, commit};
use crate::options::KillArgs;
use crate::report::publish;
use crate::server_process::{Folder, Server};

/// Time that clients run before the first kill.
const RUN_UP: Duration = Duration::from_secs(1);
/// Shortest time between two kills in milliseconds.
const PAUSE_MS_MIN: u64 = 20;
/// Longest time that a killed server stays away in milliseconds.
const AWAY_MS: u64 = 300;
/// Longest wait for clients to end in order.
const END_WAIT: Duration = Duration::from_secs(120);
/// Longest wait for the last episodes to be stored.
const STORE_WAIT: Duration = Duration::from_secs(120);

/// Runs the scenario.
pub fn run(args: KillArgs) -> Result<bool> {
    on_one_thread(kill_all(args))
}

#[derive(Serialize)]
struct Report {
    scenario: &'static str,
    commit: Option<String>,
    machine: Machine,
    kills: u32,
    server_kills: u32,
    client_kills: u32,
    producers: u32,
    seconds: f64,
    #[serde(flatten)]
    found: Found,
    /// Clients or servers that ended by themselves, which they must not.
    unexpected_ends: u32,
    seed: u64,
}

struct Producer {
    session: SessionId,
    number: u32,
    folder: PathBuf,
    child: Child,
}

async fn kill_all(args: KillArgs) -> Result<bool> {
    if args.server.url.is_some() {
        bail!("kills must start its own server; leave --url out");
    }
    let seed = seed_of(args.server.seed);
    eprintln!("seed {seed}");
    let mut folder = Folder::new(args.server.data.as_deref())?;
    let mut server = Server::open(&args.server, &folder).await?;
    let begun = Instant::now();
    let mut producers = Vec::new();
    for (number, session) in (0..).zip(create_sessions(&server.rest, args.producers, "kill").await?) {
        let own = folder.path().join(format!("producer-{number}"));
        let child = start(&server, session, number, &own, args.rate)?;
        producers.push(Producer { session, number, folder: own, child });
    }
    let outcome = async {
        let counts = kill_in_turn(&args, seed, &mut server, &mut producers).await?;
        end(&mut producers)?;
        let found = check(&server, &producers).await?;
        anyhow::Ok((counts, found))
    };
    let outcome = outcome.await;
    let clean = outcome.as_ref().is_ok_and(|(counts, found)| counts.unexpected == 0 && found.is_clean());
    if !clean || args.keep {
        folder.keep();
        eprintln!("everything is kept in {}", folder.path().display());
    }
    for producer in &mut producers {
        let _ = producer.child.kill();
    }
    let (counts, found) =
        outcome.with_context(|| format!("seed {seed}; the server's last words:\n{}", server.last_words()))?;
    let report = Report {
        scenario: "kills",
        commit: commit(),
        machine: Machine::here(folder.path()),
        kills: counts.server + counts.client,
        server_kills: counts.server,
        client_kills: counts.client,
        producers: args.producers,
        seconds: begun.elapsed().as_secs_f64(),
        found,
        unexpected_ends: counts.unexpected,
        seed,
    };
    publish(&table(&report), &report, args.server.json.as_deref())?;
    Ok(clean)
}

#[derive(Default)]
struct Counts {
    server: u32,
    client: u32,
    unexpected: u32,
}

async fn kill_in_turn(args: &KillArgs, seed: u64, server: &mut Server, producers: &mut [Producer]) -> Result<Counts> {
    let mut random = StdRng::seed_from_u64(seed);
    let mut counts = Counts::default();
    tokio::time::sleep(RUN_UP).await;
    for number in 0..args.count {
        let pause = random.random_range(PAUSE_MS_MIN..u64::from(args.pause_ms));
        tokio::time::sleep(Duration::from_millis(pause)).await;
        for producer in producers.iter_mut() {
            if let Some(status) = producer.child.try_wait()? {
                eprintln!("producer {} ended by itself ({status}): {}", producer.number, last_words(producer));
                counts.unexpected += 1;
                producer.child = start(server, producer.session, producer.number, &producer.folder, args.rate)?;
            }
        }
        if server.has_died() {
            eprintln!("the server ended by itself:\n{}", server.last_words());
            counts.unexpected += 1;
            server.restart().await?;
        }
        if number % 2 == 0 {
            server.kill()?;
            counts.server += 1;
            tokio::time::sleep(Duration::from_millis(random.random_range(0..AWAY_MS))).await;
            server.restart().await?;
        } else {
            let producer = &mut producers[random.random_range(0..args.producers as usize)];
            producer.child.kill()?;
            producer.child.wait()?;
            counts.client += 1;
            producer.child = start(server, producer.session, producer.number, &producer.folder, args.rate)?;
        }
        if (number + 1) % 10 == 0 {
            eprintln!("{} of {} kills", number + 1, args.count);
        }
    }
    tokio::time::sleep(RUN_UP).await;
    Ok(counts)
}

fn start(server: &Server, session: SessionId, number: u32, folder: &std::path::Path, rate: u32) -> Result<Child> {
    fs::create_dir_all(folder).with_context(|| format!("cannot make {}", folder.display()))?;
    let log = fs::File::options()
        .create(true)
        .append(true)
        .open(folder.join("log"))
        .context("cannot write a client's log")?;
    let mut command = Command::new(std::env::current_exe().context("the system does not tell where this program is")?);
    command.args([
        "produce",
        "--url",
        &server.rest.url,
        "--session",
        &session.to_string(),
        "--producer",
        &number.to_string(),
    ]);
    command.args(["--rate", &rate.to_string(), "--folder"]).arg(folder);
    command.env(TOKEN_VARIABLE, &server.rest.token).stdin(Stdio::piped()).stdout(Stdio::null()).stderr(log);
    command.spawn().context("a client cannot be started")
}

fn last_words(producer: &Producer) -> String {
    let text = fs::read_to_string(producer.folder.join("log")).unwrap_or_default();
    text.lines().last().unwrap_or_default().to_owned()
}

/// Lets all clients end in order.
fn end(producers: &mut [Producer]) -> Result<()> {
    for producer in producers.iter_mut() {
        drop(producer.child.stdin.take());
    }
    let asked = Instant::now();
    for producer in producers {
        loop {
            match producer.child.try_wait()? {
                Some(status) if status.success() => break,
                Some(status) => {
                    bail!("producer {} did not end well ({status}): {}", producer.number, last_words(producer))
                }
                None if asked.elapsed() > END_WAIT => {
                    bail!("producer {} does not end: {}", producer.number, last_words(producer))
                }
                None => std::thread::sleep(Duration::from_millis(20)),
            }
        }
    }
    Ok(())
}

/// Waits until all episodes are stored, then reads all of them.
async fn check(server: &Server, producers: &[Producer]) -> Result<Found> {
    let objects = server.data().context("no data folder")?.join("objects");
    let mut all = Found::default();
    for producer in producers {
        let episodes = stored_episodes(server, producer.session).await?;
        let mut checker = Checker::new(producer.session);
        for manifest in episodes {
            checker.episode(&objects, &manifest)?;
        }
        checker.record(&server.rest.session(producer.session).await?);
        let notes = fs::read_to_string(producer.folder.join(NOTES)).unwrap_or_default();
        let seen: BTreeMap<_, _> = acknowledged(&notes);
        if seen.is_empty() {
            bail!("producer {} saw nothing acknowledged: {}", producer.number, last_words(producer));
        }
        all.add(&checker.finish(&seen));
    }
    Ok(all)
}

/// Manifests of a session's episodes, once all are stored.
async fn stored_episodes(server: &Server, session: SessionId) -> Result<Vec<String>> {
    let asked = Instant::now();
    loop {
        let episodes = server.rest.episodes(session).await?;
        let open: Vec<String> = episodes
            .iter()
            .filter(|episode| episode["state"] != "stored" || !episode["manifest"].is_string())
            .map(|episode| {
                format!(
                    "{} {} missing {} error {}",
                    episode["number"], episode["state"], episode["missing"], episode["error"]
                )
            })
            .collect();
        if open.is_empty() && !episodes.is_empty() {
            return Ok(episodes.iter().filter_map(|episode| episode["manifest"].as_str().map(str::to_owned)).collect());
        }
        if asked.elapsed() > STORE_WAIT {
            bail!("episodes of session {session} are not stored after {} s: {}", STORE_WAIT.as_secs(), open.join("; "));
        }
        tokio::time::sleep(Duration::from_millis(200)).await;
    }
}

fn table(report: &Report) -> String {
    let found = &report.found;
    let rows = [
        ("kills", format!("{} ({} server, {} client)", report.kills, report.server_kills, report.client_kills)),
        ("acknowledged_lost", found.acknowledged_lost.to_string()),
        ("duplicates", found.duplicates.to_string()),
        ("wrong_values", found.wrong_values.to_string()),
        ("times_backwards", found.times_backwards.to_string()),
        ("declared_lost", found.declared_lost.to_string()),
        ("duplicates_removed", format!("{} samples came again and were left out", found.duplicates_removed)),
        ("unexpected_ends", report.unexpected_ends.to_string()),
        (
            "acknowledged",
            format!(
                "{} samples, {} stored in {} episodes of {} producers",
                found.acknowledged, found.stored, found.episodes, report.producers
            ),
        ),
        ("seconds", format!("{:.0}", report.seconds)),
        ("seed", report.seed.to_string()),
    ];
    rows.iter().map(|(name, value)| format!("{name:<18} {value}\n")).collect()
}
