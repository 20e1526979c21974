//! `steady` and `burst`: light clients that send at a rate, or as fast as they are acknowledged.

use std::cell::Cell;
use std::rc::Rc;
use std::time::{Duration, Instant};

use anyhow::{Result, bail};
use serde_json::json;
use tendon_protocol::batch::Media;
use tendon_protocol::envelope::Sealer;
use tendon_protocol::id::StreamId;
use tendon_protocol::message::Message;
use tendon_protocol::stream::Content;

use super::warm::{settle, warm};
use super::{compare, connect_all, create_sessions, declarations, drained, on_one_thread, seed_of};
use crate::batch::Motion;
use crate::latencies::Latencies;
use crate::link::{Link, STATE, Totals};
use crate::options::StreamArgs;
use crate::process::{cpu_s, memory};
use crate::report::{AckMs, Cpu, Load, LogWarmth, Rates, Report, Rss};
use crate::server_process::{Folder, Server};
use crate::values::{motion, picture};
use crate::yardstick::disk::{Files, Plan};
use crate::yardstick::{Sample, limits, tcp};

/// Batches before the socket is written to at least once.
const CHUNK: u64 = 32;
/// Pictures a second of a camera.
const CAMERA_HZ: u64 = 30;
/// Bytes of a picture.
const PICTURE_BYTES: usize = 40_000;
/// Longest wait for the last acknowledgements.
pub const DRAIN_WAIT: Duration = Duration::from_secs(60);
/// Samples a second of `burst` and `flaky` when none are asked for.
pub const RATE_DEFAULT: f64 = 200.0;

/// Which of the two.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Shape {
    /// Evenly.
    Steady,
    /// A second's worth at once.
    Burst,
}

/// When a session sends.
#[derive(Clone, Copy, Debug)]
pub enum Pace {
    /// As fast as it is acknowledged, with so many samples on the way.
    Full { window: u64 },
    /// So many batches each time.
    Timed { batches: u64, every: Duration },
}

/// Runs the scenario.
pub fn run(args: StreamArgs, shape: Shape) -> Result<bool> {
    on_one_thread(measure_all(args, shape))
}

fn pace(args: &StreamArgs, shape: Shape) -> Pace {
    let batch = f64::from(args.batch);
    match shape {
        Shape::Steady if args.rate <= 0.0 => {
            Pace::Full { window: u64::from(args.batch) * u64::from(args.window / args.sessions).max(1) }
        }
        Shape::Steady => Pace::Timed { batches: 1, every: Duration::from_secs_f64(batch / args.rate) },
        Shape::Burst => {
            let rate = if args.rate > 0.0 { args.rate } else { RATE_DEFAULT };
            let batches = (rate / batch).round().max(1.0);
            Pace::Timed { batches: batches as u64, every: Duration::from_secs_f64(batches * batch / rate) }
        }
    }
}

async fn measure_all(args: StreamArgs, shape: Shape) -> Result<bool> {
    let seed = seed_of(args.server.seed);
    let folder = Folder::new(args.server.data.as_deref())?;
    let server = Server::open(&args.server, &folder).await?;
    let empty = server.pid().map(memory).transpose()?.map(|memory| memory.rss);
    let pace = pace(&args, shape);
    let mut bytes = expected_bytes(&args, pace);
    if !args.cold && server.pid().is_some() {
        bytes = warm(&server, &args, pace).await?;
    }
    let plan = Plan::for_bytes(bytes, u64::from(args.server.segment_mib) << 20);
    eprintln!("measuring disk and loopback ...");
    let mut files = Files::make(folder.path(), &plan)?;
    let mut samples = vec![look(&mut files, &args)?];
    eprintln!("measuring the server ...");
    let mut load = measure(&server, &args, pace).await?;
    load.rss_bytes.server_empty = empty;
    settle(&server).await?;
    let mut half_load = None;
    if args.half {
        let rate = load.frames_per_s.stored / 2.0 / f64::from(args.sessions);
        eprintln!("measuring at half of it: {rate:.0} samples/s a session ...");
        let pace = Pace::Timed { batches: 1, every: Duration::from_secs_f64(f64::from(args.batch) / rate.max(1.0)) };
        let mut half = measure(&server, &args, pace).await?;
        half.rss_bytes.server_empty = empty;
        half_load = Some(half);
        settle(&server).await?;
    }
    eprintln!("measuring disk and loopback again ...");
    samples.push(look(&mut files, &args)?);
    let name = if shape == Shape::Steady { "steady" } else { "burst" };
    let settings = json!({
        "sessions": args.sessions, "rate_hz": args.rate, "batch": args.batch, "cameras": args.cameras, "seconds": args.seconds,
        "zstd": args.zstd, "window_batches": args.window, "segment_mib": args.server.segment_mib, "warmup_s": args.warmup, "half": args.half, "cold": args.cold,
        "server": if server.pid().is_some() { "child" } else { "running" },
    });
    let mut report = Report::new(name, folder.path(), settings, seed, load);
    report.half_load = half_load;
    report.limits = Some(limits(&samples, &plan));
    let report = report.with_ratios();
    report.publish(args.server.json.as_deref())?;
    Ok(report.is_clean())
}

/// About what a measurement writes.
pub fn expected_bytes(args: &StreamArgs, pace: Pace) -> u64 {
    let per_s = match pace {
        // About what one disk does.
        Pace::Full { .. } => 100e6,
        Pace::Timed { batches, every } => {
            let samples = batches as f64 * f64::from(args.batch) / every.as_secs_f64();
            let cameras = f64::from(args.cameras) * CAMERA_HZ as f64 * PICTURE_BYTES as f64;
            f64::from(args.sessions) * samples.mul_add(130.0, cameras)
        }
    };
    (per_s * f64::from(args.seconds + args.warmup)) as u64
}

fn look(files: &mut Files, args: &StreamArgs) -> Result<Sample> {
    let batch = usize::from(args.batch);
    let message = 32 + 44 + batch * (9 + motion(0, 1).len()) + 8;
    Ok(Sample {
        grouped: files.sequential(true)?,
        plain: files.sequential(false)?,
        syncs: files.lone_syncs()?,
        tcp: tcp::measure(message, batch as u64, CHUNK as usize, Duration::from_secs(2))?,
    })
}

/// Says goodbye on every link.
pub async fn finish(links: Vec<Rc<Link>>) {
    for link in links {
        if let Some(link) = Rc::into_inner(link) {
            link.close().await;
        }
    }
}

/// One measurement with new sessions.
async fn measure(server: &Server, args: &StreamArgs, pace: Pace) -> Result<Load> {
    let totals = Rc::new(Totals::default());
    let rate = match pace {
        Pace::Full { .. } => 0.0,
        Pace::Timed { batches, every } => batches as f64 * f64::from(args.batch) / every.as_secs_f64(),
    };
    let sessions = create_sessions(&server.rest, args.sessions, "load").await?;
    let rest_before = stored_metrics(server).await?;
    let links = connect_all(&server.rest, &sessions, &totals, rate, args.cameras).await?;
    let links: Vec<Rc<Link>> = links.into_iter().map(Rc::new).collect();
    let stop = Rc::new(Cell::new(false));
    let mut drivers = Vec::new();
    for (number, link) in links.iter().enumerate() {
        // Robots do not tick together, unless a burst is asked for.
        let offset = match pace {
            Pace::Timed { batches: 1, every } => every.mul_f64(number as f64 / links.len() as f64),
            Pace::Timed { .. } | Pace::Full { .. } => Duration::ZERO,
        };
        drivers.push(spawn_driver(link, &totals, &stop, args, pace, offset));
        for camera in 0..args.cameras {
            drivers.push(spawn_camera(link, &totals, &stop, StreamId(2 + camera)));
        }
    }
    let mut load = watch(server, &totals, args).await?;
    stop.set(true);
    for driver in drivers {
        driver.await?;
    }
    let streams: Vec<StreamId> =
        declarations(rate, args.cameras).iter().map(|declaration| declaration.stream).collect();
    drained(&links, &streams, &totals, DRAIN_WAIT).await?;
    load.sessions = args.sessions;
    load.wire_bytes_per_frame = totals.frame_bytes.get() as f64 / totals.frames_sent.get().max(1) as f64;
    load.rest_bytes_per_frame = load.wire_bytes_per_frame - 8.0 / f64::from(args.batch);
    for (session, link) in sessions.iter().zip(&links) {
        let sent: Vec<(String, u64)> =
            declarations(rate, args.cameras).into_iter().map(|it| (it.feature, link.sent(it.stream))).collect();
        let kept = compare(&server.rest, *session, &sent).await?;
        load.lost += kept.lost;
        load.duplicates += kept.duplicates;
    }
    finish(links).await;
    for session in &sessions {
        server.rest.complete(*session).await?;
    }
    if args.cameras == 0
        && let (Some(before), Some(after)) = (rest_before, stored_metrics(server).await?)
        && after.0 > before.0
    {
        load.rest_bytes_per_frame = (after.1 - before.1) / (after.0 - before.0);
    }
    Ok(load)
}

/// Frames and bytes that the server made durable so far, if it counts them.
async fn stored_metrics(server: &Server) -> Result<Option<(f64, f64)>> {
    let frames = server.rest.metric("tendon_frames_stored_total").await?;
    let bytes = server.rest.metric("tendon_stored_bytes_total").await?;
    Ok(frames.zip(bytes))
}

/// Lets the load run, and measures it after the warm-up.
async fn watch(server: &Server, totals: &Totals, args: &StreamArgs) -> Result<Load> {
    let sleep = async |lasts: Duration| {
        let begun = Instant::now();
        while begun.elapsed() < lasts {
            if let Some(error) = totals.error.borrow().clone() {
                bail!("{error}\n{}", server.last_words());
            }
            tokio::time::sleep((lasts.saturating_sub(begun.elapsed())).min(Duration::from_millis(250))).await;
        }
        Ok(())
    };
    sleep(Duration::from_secs(u64::from(args.warmup))).await?;
    let own = std::process::id();
    let cpu = |pid: Option<u32>| pid.map(cpu_s).transpose();
    let counted =
        || [&totals.frames_sent, &totals.frames_stored, &totals.pictures_sent, &totals.pictures_stored].map(Cell::get);
    *totals.latencies.borrow_mut() = Some(Latencies::default());
    let (log_before, server_cpu, client_cpu) = (server.log_files(), cpu(server.pid())?, cpu_s(own)?);
    let (begun, before) = (Instant::now(), counted());
    sleep(Duration::from_secs(u64::from(args.seconds))).await?;
    let (seconds, after) = (begun.elapsed().as_secs_f64(), counted());
    let (server_cpu_after, client_cpu_after) = (cpu(server.pid())?, cpu_s(own)?);
    let latencies = totals.latencies.borrow_mut().take().unwrap_or_default();
    let log_after = server.log_files();
    let rates = |sent: usize, stored: usize| Rates {
        offered: (after[sent] - before[sent]) as f64 / seconds,
        stored: (after[stored] - before[stored]) as f64 / seconds,
    };
    let frames = (after[1] - before[1]).max(1) as f64;
    let server_s = server_cpu_after.zip(server_cpu).map(|(after, before)| after - before);
    let client_s = client_cpu_after - client_cpu;
    Ok(Load {
        seconds,
        frames_per_s: rates(0, 1),
        pictures_per_s: rates(2, 3),
        cpu_us_per_frame: Cpu { server: server_s.map(|it| it * 1e6 / frames), client: client_s * 1e6 / frames },
        cpu_cores: Cpu { server: server_s.map(|it| it / seconds), client: client_s / seconds },
        ack_ms: AckMs::of(&latencies),
        rss_bytes: Rss {
            server_empty: None,
            server: server.pid().map(memory).transpose()?.map(|memory| memory.rss),
            client: memory(own)?.rss,
        },
        throttled_ms: totals.throttled_ms.get(),
        log: log_before.zip(log_after).map(|(before, after)| LogWarmth {
            before,
            after,
            warm: after.count <= before.count,
        }),
        ..Load::default()
    })
}

/// A session that sends until it is stopped.
pub fn spawn_driver(
    link: &Rc<Link>,
    totals: &Rc<Totals>,
    stop: &Rc<Cell<bool>>,
    args: &StreamArgs,
    pace: Pace,
    offset: Duration,
) -> tokio::task::JoinHandle<()> {
    let (link, totals, stop) = (Rc::clone(link), Rc::clone(totals), Rc::clone(stop));
    let sealer = args.zstd.then(Sealer::new);
    let motion = Motion::new(STATE, link.clock().0, usize::from(args.batch), sealer);
    tokio::task::spawn_local(async move {
        if let Err(error) = drive(&link, &stop, motion, pace, offset).await
            && !link.has_failed()
        {
            totals.fail(format!("{error:#}"));
        }
    })
}

/// A session that sends at an even rate until it is stopped. `place`: which one of how many, so that they do not tick together.
pub fn drive_at(
    link: &Rc<Link>,
    totals: &Rc<Totals>,
    stop: &Rc<Cell<bool>>,
    batch: u16,
    rate_hz: f64,
    place: (u32, u32),
) -> tokio::task::JoinHandle<()> {
    let (link, totals, stop) = (Rc::clone(link), Rc::clone(totals), Rc::clone(stop));
    let motion = Motion::new(STATE, link.clock().0, usize::from(batch), None);
    let every = Duration::from_secs_f64(f64::from(batch) / rate_hz);
    let offset = every.mul_f64(f64::from(place.0) / f64::from(place.1.max(1)));
    tokio::task::spawn_local(async move {
        if let Err(error) = drive(&link, &stop, motion, Pace::Timed { batches: 1, every }, offset).await
            && !link.has_failed()
        {
            totals.fail(format!("{error:#}"));
        }
    })
}

async fn drive(link: &Link, stop: &Cell<bool>, mut motion: Motion, pace: Pace, offset: Duration) -> Result<()> {
    let mut due = tokio::time::Instant::now() + offset;
    let mut captured_ns = 0;
    while !stop.get() && !link.has_failed() {
        match pace {
            Pace::Full { window } => {
                let free = window.saturating_sub(link.waiting(STATE)) / motion.count();
                if free == 0 {
                    link.moved().await;
                    continue;
                }
                put(link, &mut motion, &mut captured_ns, free.min(CHUNK), Duration::ZERO).await?;
                // Acknowledgements are read on this very thread.
                tokio::task::yield_now().await;
            }
            Pace::Timed { batches, every } => {
                tokio::time::sleep_until(due).await;
                // Timers are as coarse as a millisecond: everything that is due by now goes together.
                let mut count = 0;
                while due <= tokio::time::Instant::now() {
                    due += every;
                    count += batches;
                }
                put(link, &mut motion, &mut captured_ns, count, every / u32::try_from(batches).unwrap_or(1)).await?;
            }
        }
    }
    Ok(())
}

/// Sends batches whose samples were captured over the `span` of each batch before now, and after `captured_ns`.
async fn put(link: &Link, motion: &mut Motion, captured_ns: &mut i64, batches: u64, span: Duration) -> Result<()> {
    let count = motion.count();
    // Without a rate, samples are a microsecond apart.
    let step_ns = if span.is_zero() { 1000 } else { i64::try_from(span.as_nanos()).unwrap_or(i64::MAX) / count as i64 };
    for left in (0..batches).rev() {
        let first = link.sent(STATE);
        let start_ns = (link.clock().1 - step_ns * (left as i64 + 1) * count as i64).max(*captured_ns);
        *captured_ns = start_ns + step_ns * count as i64;
        let message = motion.next(first, start_ns, step_ns);
        link.send(STATE, count, message).await?;
        if left % CHUNK == 0 {
            link.flush().await?;
        }
    }
    Ok(())
}

fn spawn_camera(
    link: &Rc<Link>,
    totals: &Rc<Totals>,
    stop: &Rc<Cell<bool>>,
    stream: StreamId,
) -> tokio::task::JoinHandle<()> {
    let (link, totals, stop) = (Rc::clone(link), Rc::clone(totals), Rc::clone(stop));
    tokio::task::spawn_local(async move {
        let mut media = Media {
            stream,
            sequence: 0,
            clock: link.clock().0,
            time_ns: 0,
            content: Content::Jpeg,
            flags: 0,
            data: picture(0, stream.0, 0, PICTURE_BYTES),
        };
        let mut ticks = tokio::time::interval(Duration::from_nanos(1_000_000_000 / CAMERA_HZ));
        while !stop.get() && !link.has_failed() {
            ticks.tick().await;
            (media.sequence, media.time_ns) = (link.sent(stream), link.clock().1);
            let message = Message::Media(media.clone()).encode();
            let sent = async {
                link.send(stream, 1, &message).await?;
                link.flush().await
            };
            if let Err(error) = sent.await {
                if !link.has_failed() {
                    totals.fail(format!("{error:#}"));
                }
                return;
            }
        }
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::Parser;

    fn args(text: &str) -> StreamArgs {
        match crate::options::Options::parse_from(["loadtest", "steady"].into_iter().chain(text.split_whitespace()))
            .command
        {
            crate::options::Command::Steady(args) => args,
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn a_rate_is_kept_by_one_batch_at_a_time_or_by_one_burst_a_second() {
        let args = args("--rate 100 --batch 20");
        let Pace::Timed { batches, every } = pace(&args, Shape::Steady) else { panic!("timed") };
        assert_eq!((batches, every), (1, Duration::from_millis(200)));
        let Pace::Timed { batches, every } = pace(&args, Shape::Burst) else { panic!("timed") };
        assert_eq!((batches, every), (5, Duration::from_secs(1)));
    }

    #[test]
    fn without_a_rate_the_window_is_shared_by_all_sessions() {
        let Pace::Full { window } = pace(&args("--sessions 8 --window 64 --batch 16"), Shape::Steady) else {
            panic!("full")
        };
        assert_eq!(window, 128);
        let Pace::Full { window } = pace(&args("--sessions 800 --window 64 --batch 16"), Shape::Steady) else {
            panic!("full")
        };
        assert_eq!(window, 16);
    }

    #[test]
    fn the_expected_bytes_follow_the_rate() {
        let args = args("--sessions 10 --rate 50 --seconds 8 --warmup 2");
        assert_eq!(expected_bytes(&args, pace(&args, Shape::Steady)), 10 * 50 * 130 * 10);
    }
}
