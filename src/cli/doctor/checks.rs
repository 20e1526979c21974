//! The checks themselves. Each looks, and changes nothing that stays.

use std::fs;
use std::io::{self, Write};
use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use super::{Check, State};
use crate::cli::output::bytes;
use crate::config::Config;
use crate::server::look_up;
use tendon_actors::video::{AV1_ENCODER, H264_ENCODER, encoder_of, encoders_of};

/// Writes that are timed; enough for a median that means something, short enough for a hard disk.
const SYNCS: usize = 40;
/// No more of them are begun after this.
const SYNCS_TIME: Duration = Duration::from_secs(3);
/// One batch of 16 samples of 28 numbers.
const SYNC_BYTES: usize = 4096;
/// A sync slower than this makes acknowledgements slow, not wrong.
const SYNC_SLOW_MS: f64 = 30.0;
/// A sync faster than this never reached a disk.
const SYNC_UNBELIEVABLE_MS: f64 = 0.005;
/// Room for episodes and exports, beyond what the log may take.
const FREE_BYTES: u64 = 2 << 30;
/// Sockets, segments and the metadata's files of a thousand sessions.
const OPEN_FILES: u64 = 4096;
/// What ffmpeg is for.
const FFMPEG_NEEDED: &str = "needed to encode as H.264 or AV1, for the statistics of cameras that send H.264 or AV1, and to fill gaps in such cameras; JPEG cameras need none";

/// Everything, in the order in which it is shown.
pub(super) fn all(config: &Config) -> Vec<Check> {
    let (place, writable) = data(&config.data);
    let mut checks = vec![writable];
    checks.push(disk(config, &place));
    checks.push(fdatasync(&place));
    checks.push(ffmpeg(config));
    checks.push(port(config));
    checks.push(open_files());
    checks.push(clock());
    checks
}

fn check(name: &'static str, state: State, message: impl Into<String>, remedy: Option<String>) -> Check {
    Check { name, state, message: message.into(), remedy }
}

/// The folder, or the nearest one above it that exists.
fn existing(folder: &Path) -> PathBuf {
    let absolute = std::path::absolute(folder).unwrap_or_else(|_| folder.to_owned());
    absolute.ancestors().find(|place| place.is_dir()).unwrap_or(Path::new("/")).to_owned()
}

/// A file that is gone when its name is dropped.
struct Probe(PathBuf);

impl Probe {
    fn create(place: &Path) -> io::Result<(Self, fs::File)> {
        let path = place.join(format!(".tendon-doctor-{}", std::process::id()));
        let file = fs::File::create_new(&path)?;
        Ok((Self(path), file))
    }
}

impl Drop for Probe {
    fn drop(&mut self) {
        let _ = fs::remove_file(&self.0);
    }
}

fn data(folder: &Path) -> (PathBuf, Check) {
    let place = existing(folder);
    let shown = folder.display();
    if folder.exists() && !folder.is_dir() {
        let remedy = "move that file away, or choose another folder with --data".to_owned();
        return (place, check("data_folder", State::Missing, format!("{shown} is no folder"), Some(remedy)));
    }
    let made = if folder.is_dir() { "" } else { ", it will be made" };
    let result = match Probe::create(&place) {
        Ok(_) => check("data_folder", State::Ok, format!("{shown} can be written{made}"), None),
        Err(error) => {
            let remedy =
                format!("give this user write permission on {}, or choose another folder with --data", place.display());
            check(
                "data_folder",
                State::Missing,
                format!("{} cannot be written ({error})", place.display()),
                Some(remedy),
            )
        }
    };
    (place, result)
}

fn disk(config: &Config, place: &Path) -> Check {
    let name = "disk_free";
    let free = match rustix::fs::statvfs(place) {
        Ok(stat) => stat.f_bavail.saturating_mul(stat.f_frsize),
        Err(error) => {
            return check(name, State::Warning, format!("the system does not tell ({error})"), None);
        }
    };
    let log = config.log.frames_bytes_max;
    let message = format!("{} free, the log may take {}, episodes and exports come on top", bytes(free), bytes(log));
    if free >= log.saturating_add(FREE_BYTES) {
        return check(name, State::Ok, message, None);
    }
    // Segments are made one by one: a small disk works until the log needs them.
    let least = config.log.segment_bytes.saturating_mul(4).saturating_add(FREE_BYTES);
    let state = if free >= least { State::Warning } else { State::Missing };
    let remedy = format!(
        "make room, take another disk with --data, or lower log.frames_bytes_max; at least {} are needed",
        bytes(least)
    );
    check(name, state, message, Some(remedy))
}

fn fdatasync(place: &Path) -> Check {
    let name = "fdatasync";
    let mut times = match sync_times(place) {
        Ok(times) => times,
        Err(error) => {
            let remedy =
                "a server acknowledges only what is on disk: take a disk that can sync, with --data".to_owned();
            return check(
                name,
                State::Missing,
                format!("a file on {} cannot be synced ({error})", place.display()),
                Some(remedy),
            );
        }
    };
    times.sort_by(f64::total_cmp);
    let at = |fraction: f64| times[((times.len() - 1) as f64 * fraction).round() as usize];
    let (median, high) = (at(0.5), at(0.99));
    let message = format!("{median:.2} ms median, {high:.2} ms p99 of {} writes of {SYNC_BYTES} bytes", times.len());
    if median > SYNC_SLOW_MS {
        let remedy =
            "acknowledgements wait for it, so robots need larger spools; an SSD is a hundred times faster".to_owned();
        return check(name, State::Warning, message, Some(remedy));
    }
    if median < SYNC_UNBELIEVABLE_MS {
        let remedy = "this is memory, or a disk that does not wait: a power cut would lose acknowledged samples; use a real disk".to_owned();
        return check(name, State::Warning, message, Some(remedy));
    }
    check(name, State::Ok, message, None)
}

/// Times of writes with their sync in milliseconds; at least one.
fn sync_times(place: &Path) -> io::Result<Vec<f64>> {
    let (_probe, mut file) = Probe::create(place)?;
    let block = [7u8; SYNC_BYTES];
    let begin = Instant::now();
    let mut times = Vec::with_capacity(SYNCS);
    // The first sync also writes the new file's own entry.
    file.write_all(&block)?;
    file.sync_all()?;
    while times.is_empty() || (times.len() < SYNCS && begin.elapsed() < SYNCS_TIME) {
        let start = Instant::now();
        file.write_all(&block)?;
        file.sync_data()?;
        times.push(start.elapsed().as_secs_f64() * 1000.0);
    }
    Ok(times)
}

fn ffmpeg(config: &Config) -> Check {
    let name = "ffmpeg";
    let get = format!("apt-get install ffmpeg, or brew install ffmpeg; {FFMPEG_NEEDED}");
    let wanted = &config.video.ffmpeg;
    let found =
        if wanted.components().count() > 1 { wanted.is_file().then(|| wanted.clone()) } else { look_up(wanted) };
    let encoder = encoder_of(config.video.codec);
    let without = if encoder.is_some() { State::Missing } else { State::Warning };
    let Some(program) = found else {
        return check(name, without, format!("{} is not there", wanted.display()), Some(get));
    };
    let Some(encoders) = encoders_of(&program) else {
        return check(name, without, format!("{} does not run", program.display()), Some(get));
    };
    let (has, lacks): (Vec<&str>, Vec<&str>) =
        [H264_ENCODER, AV1_ENCODER].into_iter().partition(|used| encoders.iter().any(|encoder| encoder == used));
    let message = match (&has[..], &lacks[..]) {
        (_, []) => format!("{} with {}", program.display(), has.join(" and ")),
        ([], _) => format!("{} without {}", program.display(), lacks.join(" and ")),
        _ => format!("{} with {}, without {}", program.display(), has.join(" and "), lacks.join(" and ")),
    };
    if let Some(encoder) = encoder.filter(|encoder| lacks.contains(encoder)) {
        let remedy = format!("video.codec is {}: take an ffmpeg that has {encoder} ({get})", config.video.codec);
        return check(name, State::Missing, message, Some(remedy));
    }
    if lacks.is_empty() {
        return check(name, State::Ok, message, None);
    }
    let remedy = format!("an ffmpeg with {H264_ENCODER} and {AV1_ENCODER} can do more ({get})");
    check(name, State::Warning, message, Some(remedy))
}

fn port(config: &Config) -> Check {
    let name = "port";
    let address = config.listen;
    match TcpListener::bind(address) {
        Ok(_) => check(name, State::Ok, format!("{address} is free"), None),
        Err(error) if error.kind() == io::ErrorKind::AddrInUse => {
            let remedy =
                "if it is not your own server, stop that program or choose another port with --listen".to_owned();
            check(name, State::Warning, format!("something listens on {address} already"), Some(remedy))
        }
        Err(error) => {
            let remedy = "choose an address of this machine and a port above 1023 with --listen".to_owned();
            check(name, State::Missing, format!("{address} cannot be used ({error})"), Some(remedy))
        }
    }
}

fn open_files() -> Check {
    let limit = rustix::process::getrlimit(rustix::process::Resource::Nofile);
    let Some(current) = limit.current else {
        return check("open_files", State::Ok, "no limit", None);
    };
    let message = format!("{current} files and sockets at once");
    if current >= OPEN_FILES {
        return check("open_files", State::Ok, message, None);
    }
    let remedy =
        format!("a thousand sessions need about {OPEN_FILES}: ulimit -n {OPEN_FILES}, or LimitNOFILE= of the service");
    check("open_files", State::Warning, message, Some(remedy))
}

fn clock() -> Check {
    let name = "clock";
    let path = "/sys/devices/system/clocksource/clocksource0/current_clocksource";
    let source = fs::read_to_string(path).map(|text| text.trim().to_owned());
    let step = grain();
    match source {
        Ok(source) if matches!(source.as_str(), "hpet" | "acpi_pm" | "jiffies") => {
            let remedy = "time stamps cost a microsecond each and are coarser; boot with clocksource=tsc where the processor allows it".to_owned();
            check(name, State::Warning, format!("the kernel's clock is {source}, grain {step} ns"), Some(remedy))
        }
        Ok(source) => check(name, State::Ok, format!("the kernel's clock is {source}, grain {step} ns"), None),
        Err(_) => check(name, State::Ok, format!("monotonic clock with a grain of {step} ns"), None),
    }
}

/// Shortest step that the monotonic clock was seen to take, in nanoseconds.
fn grain() -> u128 {
    let mut shortest = u128::MAX;
    for _ in 0..1000 {
        let start = Instant::now();
        let mut step = start.elapsed();
        while step.is_zero() {
            step = start.elapsed();
        }
        shortest = shortest.min(step.as_nanos());
    }
    shortest
}

#[cfg(test)]
mod tests {
    use tendon_storage::records::VideoChoice;

    use super::*;

    fn config(data: &Path) -> Config {
        Config { data: data.to_owned(), ..Config::default() }
    }

    #[test]
    fn a_folder_that_does_not_exist_yet_is_judged_by_the_one_above_and_not_made() {
        let folder = tempfile::tempdir().unwrap();
        let wanted = folder.path().join("a/b");
        let (place, found) = data(&wanted);
        assert_eq!((place.as_path(), found.state), (folder.path(), State::Ok));
        assert!(found.message.contains("will be made"), "{}", found.message);
        assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 0);
    }

    #[test]
    fn a_file_where_the_folder_should_be_is_told() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("data");
        fs::write(&file, "").unwrap();
        let (_, found) = data(&file);
        assert_eq!(found.state, State::Missing);
        assert!(found.message.contains("no folder"), "{}", found.message);
    }

    #[test]
    fn a_port_in_use_is_told_from_one_that_cannot_be_used() {
        let folder = tempfile::tempdir().unwrap();
        let taken = TcpListener::bind("127.0.0.1:0").unwrap();
        let mut config = config(folder.path());
        config.listen = taken.local_addr().unwrap();
        assert_eq!(port(&config).state, State::Warning);
        // TEST-NET-1 is no address of any machine.
        config.listen = "192.0.2.1:7400".parse().unwrap();
        assert_eq!(port(&config).state, State::Missing);
    }

    #[test]
    fn a_missing_ffmpeg_stops_only_a_server_that_was_told_to_encode() {
        let folder = tempfile::tempdir().unwrap();
        let mut config = config(folder.path());
        config.video.ffmpeg = folder.path().join("ffmpeg");
        assert_eq!(ffmpeg(&config).state, State::Warning);
        config.video.codec = VideoChoice::Av1;
        let found = ffmpeg(&config);
        assert_eq!(found.state, State::Missing);
        assert!(found.remedy.unwrap().contains("install ffmpeg"));
    }

    /// Another encoder of the same format is of no use: the command line names the one.
    #[test]
    fn only_the_encoder_that_is_used_counts() {
        let folder = tempfile::tempdir().unwrap();
        let mut config = config(folder.path());
        config.video.ffmpeg = lists(folder.path(), "one", &["libx264", "libaom-av1", "av1_nvenc"]);
        let found = ffmpeg(&config);
        assert_eq!(found.state, State::Warning, "nothing is encoded");
        assert!(found.message.ends_with("with libx264, without libsvtav1"), "{}", found.message);
        assert!(found.remedy.unwrap().contains("statistics of cameras"));
        config.video.codec = VideoChoice::H264;
        assert_eq!(ffmpeg(&config).state, State::Warning);
        config.video.codec = VideoChoice::Av1;
        let found = ffmpeg(&config);
        assert_eq!(found.state, State::Missing);
        assert!(found.remedy.unwrap().contains("an ffmpeg that has libsvtav1"));
        config.video.ffmpeg = lists(folder.path(), "both", &["libx264", "libsvtav1"]);
        assert_eq!(ffmpeg(&config).state, State::Ok);
    }

    /// A program that lists these encoders. It is made by another process: were it open here while a
    /// parallel test starts a child, running it would fail as a busy file.
    fn lists(folder: &Path, name: &str, encoders: &[&str]) -> PathBuf {
        let path = folder.join(name);
        let lines: Vec<String> = encoders.iter().map(|encoder| format!("echo ' V....D {encoder} text'")).collect();
        let text = format!("#!/bin/sh\n{}\n", lines.join("\n"));
        let writing = ["-c", "printf %s \"$1\" > \"$0\" && chmod 755 \"$0\""];
        let status = std::process::Command::new("sh").args(writing).arg(&path).arg(text).status().unwrap();
        assert!(status.success());
        path
    }

    #[test]
    fn a_log_that_does_not_fit_the_disk_is_told() {
        let folder = tempfile::tempdir().unwrap();
        let mut config = config(folder.path());
        config.log.frames_bytes_max = 1 << 50;
        assert_eq!(disk(&config, folder.path()).state, State::Warning);
        config.log.segment_bytes = 1 << 50;
        assert_eq!(disk(&config, folder.path()).state, State::Missing);
    }

    #[test]
    fn every_check_is_there_and_what_is_not_ok_has_a_remedy() {
        let folder = tempfile::tempdir().unwrap();
        let checks = all(&config(folder.path()));
        let names: Vec<&str> = checks.iter().map(|check| check.name).collect();
        assert_eq!(names, ["data_folder", "disk_free", "fdatasync", "ffmpeg", "port", "open_files", "clock"]);
        for check in checks.iter().filter(|check| check.state == State::Missing) {
            assert!(check.remedy.is_some(), "{check:?}");
        }
    }
}
