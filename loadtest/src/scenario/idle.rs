//! `idle`: what a session costs that streamed for a while and is silent now.

use std::cell::Cell;
use std::rc::Rc;
use std::time::Duration;

use anyhow::{Context, Result};
use serde_json::json;

use super::stream::{drive_at, finish};
use super::{connect_all, create_sessions, drained, on_one_thread, seed_of};
use crate::latencies::Latencies;
use crate::link::{Link, STATE, Totals};
use crate::options::IdleArgs;
use crate::process::memory;
use crate::report::{AckMs, Load, Rates, Report, Rss};
use crate::server_process::{Folder, Server};

/// Rate of each session before the silence.
const RATE_HZ: f64 = 50.0;
/// Samples of a batch.
const BATCH: u16 = 16;

/// Runs the scenario.
pub fn run(args: IdleArgs) -> Result<bool> {
    on_one_thread(measure(args))
}

async fn measure(args: IdleArgs) -> Result<bool> {
    let seed = seed_of(args.server.seed);
    let folder = Folder::new(args.server.data.as_deref())?;
    let server = Server::open(&args.server, &folder).await?;
    let pid = server.pid().context("idle reads the memory of a server that it started; leave --url out")?;
    // What the first requests of all leave behind is no session's.
    tokio::time::sleep(Duration::from_secs(2)).await;
    let empty = memory(pid)?.rss;
    let totals = Rc::new(Totals::default());
    let sessions = create_sessions(&server.rest, args.sessions, "idle").await?;
    let created = memory(pid)?.rss;
    let links: Vec<Rc<Link>> =
        connect_all(&server.rest, &sessions, &totals, RATE_HZ, 0).await?.into_iter().map(Rc::new).collect();
    *totals.latencies.borrow_mut() = Some(Latencies::default());
    let stop = Rc::new(Cell::new(false));
    let drivers: Vec<_> = (0..)
        .zip(&links)
        .map(|(number, link)| drive_at(link, &totals, &stop, BATCH, RATE_HZ, (number, args.sessions)))
        .collect();
    let seconds = f64::from(args.stream);
    tokio::time::sleep(Duration::from_secs(u64::from(args.stream))).await;
    let streaming = memory(pid)?.rss;
    stop.set(true);
    for driver in drivers {
        driver.await?;
    }
    drained(&links, &[STATE], &totals, Duration::from_secs(60)).await?;
    tokio::time::sleep(Duration::from_secs(u64::from(args.silence))).await;
    if let Some(error) = totals.error.borrow().clone() {
        anyhow::bail!("{error}\n{}", server.last_words());
    }
    let silent = memory(pid)?.rss;
    let frames = totals.frames_stored.get();
    let latencies = totals.latencies.borrow_mut().take().unwrap_or_default();
    let wire_bytes_per_frame = totals.frame_bytes.get() as f64 / totals.frames_sent.get().max(1) as f64;
    let load = Load {
        sessions: args.sessions,
        seconds,
        frames_per_s: Rates { offered: totals.frames_sent.get() as f64 / seconds, stored: frames as f64 / seconds },
        ack_ms: AckMs::of(&latencies),
        rss_bytes: Rss { server_empty: Some(empty), server: Some(silent), client: memory(std::process::id())?.rss },
        lost: totals.frames_sent.get() - frames,
        throttled_ms: totals.throttled_ms.get(),
        wire_bytes_per_frame,
        rest_bytes_per_frame: wire_bytes_per_frame - 8.0 / f64::from(BATCH),
        ..Load::default()
    };
    let settings = json!({
        "sessions": args.sessions, "stream_s": args.stream, "silence_s": args.silence, "rate_hz": RATE_HZ, "batch": BATCH,
        "rss_created": created, "rss_streaming": streaming,
    });
    let mut report = Report::new("idle", folder.path(), settings, seed, load).with_ratios();
    report.ratios.idle_rss_bytes_per_session = Some((silent as f64 - empty as f64) / f64::from(args.sessions));
    report.publish(args.server.json.as_deref())?;
    finish(links).await;
    Ok(report.is_clean())
}
