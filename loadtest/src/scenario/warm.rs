//! Brings the log into the state of one that has run for a while: its files written before, nothing held.

use std::cell::Cell;
use std::rc::Rc;
use std::time::{Duration, Instant};

use anyhow::Result;

use super::stream::{DRAIN_WAIT, Pace, expected_bytes, finish, spawn_driver};
use super::{connect_all, create_sessions, drained};
use crate::link::{Link, STATE, Totals};
use crate::options::StreamArgs;
use crate::server_process::Server;

/// Sessions that fill the log.
const SESSIONS: u32 = 16;
/// Batches of each on their way.
const WINDOW: u64 = 128;
/// Longest time for it.
const WARM_WAIT: Duration = Duration::from_secs(120);
/// Longest wait for the log to forget.
const SETTLE_WAIT: Duration = Duration::from_secs(60);
/// The log's files must not change for this long.
const CALM: Duration = Duration::from_secs(2);
/// Files that are filled at least: a log keeps some of them ready to be used again.
const FILES: u64 = 6;

/// Lets the log write what the measurement will write, and then forget it. Gives the bytes that the measurement will
/// probably write.
pub async fn warm(server: &Server, args: &StreamArgs, pace: Pace) -> Result<u64> {
    eprintln!("filling the log ...");
    let (totals, stop) = (Rc::new(Totals::default()), Rc::new(Cell::new(false)));
    let sessions = create_sessions(&server.rest, SESSIONS, "warm").await?;
    let links = connect_all(&server.rest, &sessions, &totals, 0.0, 0).await?;
    let links: Vec<Rc<Link>> = links.into_iter().map(Rc::new).collect();
    let window = u64::from(args.batch) * WINDOW;
    let quick = StreamArgs { zstd: false, ..args.clone() };
    let drivers: Vec<_> = links
        .iter()
        .map(|link| spawn_driver(link, &totals, &stop, &quick, Pace::Full { window }, Duration::ZERO))
        .collect();
    let lasts = Duration::from_secs(u64::from(args.seconds + args.warmup));
    let begun = Instant::now();
    // At full pace nobody knows the bytes before: it lasts as long as the measurement.
    let is_enough = |bytes: u64| match pace {
        Pace::Full { .. } => begun.elapsed() >= lasts && bytes >= FILES * server.segment_bytes(),
        Pace::Timed { .. } => bytes >= expected_bytes(args, pace),
    };
    while !is_enough(totals.frame_bytes.get()) && totals.error.borrow().is_none() && begun.elapsed() < WARM_WAIT {
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    let bytes = totals.frame_bytes.get();
    stop.set(true);
    for driver in drivers {
        driver.await?;
    }
    drained(&links, &[STATE], &totals, DRAIN_WAIT).await?;
    finish(links).await;
    for session in sessions {
        server.rest.complete(session).await?;
    }
    settle(server).await?;
    Ok(match pace {
        Pace::Full { .. } => bytes,
        Pace::Timed { .. } => expected_bytes(args, pace),
    })
}

/// Waits until the log has forgotten the sessions that ended, and its files are at rest.
pub async fn settle(server: &Server) -> Result<()> {
    if server.pid().is_none() {
        return Ok(());
    }
    let begun = Instant::now();
    let (mut files, mut since) = (server.log_files(), Instant::now());
    while begun.elapsed() < SETTLE_WAIT {
        tokio::time::sleep(Duration::from_millis(250)).await;
        let now = server.log_files();
        if now != files {
            (files, since) = (now, Instant::now());
        }
        if since.elapsed() >= CALM {
            return Ok(());
        }
    }
    eprintln!("the log's files still change; the next figures are those of a busy disk");
    Ok(())
}
