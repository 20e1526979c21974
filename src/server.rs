//! Starts and stops the server: the one place that picks drivers and knows the order of things.
//!
//! Start: folders, metadata, log (which reports what it cut), sessions, then the port. Stop: no new
//! connections, goodbye to producers, everything taken is made durable and acknowledged, then the
//! port closes.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use actix_rt::{Arbiter, System};
use anyhow::{Context, Result, bail};
use tendon_actors::fleet::FleetHandle;
use tendon_actors::house::{House, HouseSettings};
use tendon_actors::session::machine::MachineSettings;
use tendon_actors::video::{encoder_of, encoders_of};
use tendon_storage::frames::{FrameLog, LogConfig, RealFiles, RecoveryReport};
use tendon_storage::meta::Meta;
use tendon_storage::objects::Objects;
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::watch;

use crate::admission::Admission;
use crate::auth::{Auth, Origin};
use crate::config::Config;
use crate::http::HttpState;
use crate::ingest::listener::Door;
use crate::telemetry;

mod port;

/// Folder of tokens that were made while no server could be asked; see [`Auth`].
pub const TOKEN_INBOX: &str = "tokens.d";
/// Threads for blocking calls, per event loop. Records are synced in groups, so a few serve many sessions.
pub(crate) const BLOCKING_THREADS: usize = 12;
/// How often idle operators are forgotten and gauges are read.
const HOUSEKEEPING: Duration = Duration::from_secs(5);
/// Longest wait for sessions to drain. A disk that answers no more must not keep the process for ever.
const DRAIN_TIMEOUT: Duration = Duration::from_secs(20);

/// Runs a server until it is told to stop by SIGINT or SIGTERM. `ready` hears the address.
///
/// # Errors
/// When a folder, the port or a certificate cannot be used, or a store is damaged.
pub fn run(config: Config, ready: impl FnOnce(SocketAddr)) -> Result<()> {
    // The only crypto back end; a second call finds it installed, which is as good.
    let _ = rustls::crypto::ring::default_provider().install_default();
    // Idle connections touch little of many pages; whole huge pages would stay in memory for each of them.
    if let Err(error) = rustix::thread::disable_transparent_huge_pages(true) {
        tracing::debug!("huge pages stay on: {error}");
    }
    let mut builder = tokio::runtime::Builder::new_current_thread();
    let runtime = builder.enable_all().max_blocking_threads(BLOCKING_THREADS).build();
    let runtime = runtime.context("no runtime could be started; raise the limit of threads")?;
    let system = System::with_tokio_rt(move || runtime);
    system.block_on(serve(config, ready))
}

async fn serve(config: Config, ready: impl FnOnce(SocketAddr)) -> Result<()> {
    let metrics = telemetry::install_metrics()?;
    let (fleet, meta, objects) = open(&config).await?;
    let house = Arc::clone(fleet.house());
    let recovered = fleet.recover().await?;
    if recovered > 0 {
        tracing::info!(sessions = recovered, "sessions recovered from the log");
    }
    let origins =
        config.public.allowed_origins.iter().map(|text| text.parse::<Origin>()).collect::<Result<Vec<_>, _>>()?;
    let auth = Arc::new(Auth::new(&meta, config.data.join(TOKEN_INBOX), origins));
    let (stop, stopping) = watch::channel(false);
    let door = Arc::new(Door {
        fleet: fleet.clone(),
        auth: Arc::clone(&auth),
        admission: Admission::new(&config.admission),
        idle_timeout: Duration::from_secs(config.idle_timeout_s),
        probe_interval: Duration::from_secs(config.probe_interval_s.max(1)),
        stopping,
    });
    let state = HttpState::new(meta, objects, Arc::new(fleet.clone()), auth, metrics);
    let (server, address) = port::open(&config, Arc::clone(&door), state)?;
    let handle = server.handle();
    let running = actix_rt::spawn(server);
    tracing::info!(%address, data = %config.data.display(), "server is ready");
    ready(address);
    let mut interrupt = signal(SignalKind::interrupt())?;
    let mut terminate = signal(SignalKind::terminate())?;
    let mut housekeeping = tokio::time::interval(HOUSEKEEPING);
    loop {
        tokio::select! {
            _ = interrupt.recv() => break,
            _ = terminate.recv() => break,
            _ = housekeeping.tick() => {
                door.admission.forget_idle();
                fleet.forget_stopped();
                gauges(&house);
            }
        }
    }
    tracing::info!("stopping: producers are sent away, what was taken becomes durable");
    handle.pause().await;
    let _ = stop.send(true);
    if tokio::time::timeout(DRAIN_TIMEOUT, fleet.drain()).await.is_err() {
        tracing::error!(
            "sessions did not drain within {} s; what was not acknowledged is sent again by the producers",
            DRAIN_TIMEOUT.as_secs()
        );
    }
    handle.stop(false).await;
    let _ = running.await;
    tracing::info!("stopped");
    Ok(())
}

fn gauges(house: &House) {
    let usage = house.log.usage();
    metrics::gauge!("tendon_log_bytes").set(usage.held_bytes as f64);
    metrics::gauge!("tendon_log_bytes_max").set(usage.bytes_max as f64);
}

async fn open(config: &Config) -> Result<(FleetHandle, Meta, Objects)> {
    let data = &config.data;
    std::fs::create_dir_all(data)
        .with_context(|| format!("data folder {} cannot be made; choose another with --data", data.display()))?;
    let scratch = data.join("scratch");
    if scratch.exists() {
        std::fs::remove_dir_all(&scratch)
            .with_context(|| format!("scratch folder {} cannot be emptied", scratch.display()))?;
    }
    std::fs::create_dir_all(&scratch)
        .with_context(|| format!("data folder {} is not writable; give this user write permission", data.display()))?;
    let meta = Meta::open(&data.join("meta"))?;
    let objects = Objects::local(&data.join("objects"))?;
    objects.remove_unfinished().await?;
    let log_config = LogConfig {
        directory: data.join("log"),
        segment_bytes: config.log.segment_bytes,
        frames_bytes_max: config.log.frames_bytes_max,
        queue_entries: config.log.queue_entries,
        ..LogConfig::new(data.join("log"))
    };
    let (log, report) = FrameLog::open(log_config, Arc::new(RealFiles))?;
    tell_recovery(&report);
    let second = |seconds: u64| i64::try_from(seconds).unwrap_or(i64::MAX).saturating_mul(1_000_000_000);
    let settings = HouseSettings {
        machine: MachineSettings {
            flush_wait_ns: second(config.flush_wait_s),
            mark_lag_ns: second(config.mark_lag_s),
            ..MachineSettings::default()
        },
        session_bytes: usize::try_from(config.memory.session_bytes)?,
        process_bytes: usize::try_from(config.memory.process_bytes)?,
        scratch,
        ffmpeg: find_ffmpeg(config)?,
        video: config.video.codec,
    };
    let house = Arc::new(House::new(meta.clone(), log, objects.clone(), settings));
    Ok((FleetHandle::new(house, Arbiter::current()), meta, objects))
}

fn tell_recovery(report: &RecoveryReport) {
    tracing::info!("{report}");
    for damage in &report.damage {
        tracing::error!("LOG DAMAGE: {damage}");
    }
}

/// The ffmpeg that is configured: a path, or a name that is looked up.
///
/// # Errors
/// When encoding is configured and there is none, or none with the encoder: better now than at the first export.
fn find_ffmpeg(config: &Config) -> Result<Option<PathBuf>> {
    let (wanted, codec) = (&config.video.ffmpeg, config.video.codec);
    let found =
        if wanted.components().count() > 1 { is_program(wanted).then(|| wanted.clone()) } else { look_up(wanted) };
    let Some(encoder) = encoder_of(codec) else {
        return Ok(found);
    };
    let Some(program) = found else {
        bail!(
            "video.codec is {codec} but {} is not there; install it (apt-get install ffmpeg), or set video.codec = \"keep\"",
            wanted.display()
        );
    };
    let Some(encoders) = encoders_of(&program) else {
        bail!(
            "video.codec is {codec} but {} does not list its encoders; run \"{} -encoders\" to see why, install another (apt-get install ffmpeg), or set video.codec = \"keep\"",
            program.display(),
            program.display()
        );
    };
    if !encoders.iter().any(|it| it == encoder) {
        bail!(
            "video.codec is {codec} but {} has no encoder {encoder}; install one that has it (apt-get install ffmpeg) and name it in video.ffmpeg, or set video.codec = \"keep\"",
            program.display()
        );
    }
    Ok(Some(program))
}

fn is_program(path: &Path) -> bool {
    path.is_file()
}

/// Looks a program up in the folders of `PATH`.
#[must_use]
pub fn look_up(name: &Path) -> Option<PathBuf> {
    let folders = std::env::var_os("PATH")?;
    std::env::split_paths(&folders).map(|folder| folder.join(name)).find(|path| is_program(path))
}

#[cfg(test)]
mod tests {
    use tendon_storage::records::VideoChoice;

    use super::*;

    /// The program is written by another process: were it open here while a parallel test starts a
    /// child, running it would fail as a busy file.
    #[test]
    fn a_server_that_is_to_encode_needs_a_program_with_the_encoder() {
        let folder = tempfile::tempdir().unwrap();
        let mut config = Config::default();
        let mut find = |name: &str, text: &str, codec| {
            let path = folder.path().join(name);
            let writing = ["-c", "printf %s \"$1\" > \"$0\" && chmod 755 \"$0\""];
            let status = std::process::Command::new("sh").args(writing).arg(&path).arg(text).status().unwrap();
            assert!(status.success());
            config.video.ffmpeg = path.clone();
            config.video.codec = codec;
            find_ffmpeg(&config).map(|found| assert_eq!(found, Some(path))).map_err(|error| error.to_string())
        };
        let one = "#!/bin/sh\necho ' V....D libx264 text'\necho ' V....D libaom-av1 text'\n";
        assert_eq!(find("one", one, VideoChoice::H264), Ok(()));
        assert_eq!(find("one", one, VideoChoice::Keep), Ok(()));
        let error = find("one", one, VideoChoice::Av1).unwrap_err();
        assert!(error.contains("has no encoder libsvtav1; install one"), "{error}");
        let error = find("broken", "#!/bin/sh\nexit 1\n", VideoChoice::H264).unwrap_err();
        assert!(error.contains("does not list its encoders"), "{error}");
        assert_eq!(find("broken", "#!/bin/sh\nexit 1\n", VideoChoice::Keep), Ok(()), "it is not even started");
        config.video.codec = VideoChoice::Av1;
        config.video.ffmpeg = folder.path().join("none");
        let error = find_ffmpeg(&config).unwrap_err().to_string();
        assert!(error.contains("is not there; install it"), "{error}");
    }
}
