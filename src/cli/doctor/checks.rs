//! The checks themselves. Each looks, and changes nothing that stays.

use std::fs;
use std::io::{self, Read, Write};
use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use super::{Check, State};
use crate::cli::output::bytes;
use crate::config::Config;
use crate::server::look_up;
use tendon_storage::records::VideoChoice;

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
/// Longest text that is read from ffmpeg.
const FFMPEG_BYTES_MAX: u64 = 1 << 20;

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
    let get = "apt-get install ffmpeg, or brew install ffmpeg; only needed to encode cameras as H.264 or AV1 and to fill gaps in coded video";
    let wanted = &config.video.ffmpeg;
    let found =
        if wanted.components().count() > 1 { wanted.is_file().then(|| wanted.clone()) } else { look_up(wanted) };
    let needed = config.video.codec != VideoChoice::Keep;
    let without = if needed { State::Missing } else { State::Warning };
    let Some(program) = found else {
        return check(
            name,
            without,
            format!("{} is not there; cameras are muxed as they come", wanted.display()),
            Some(get.to_owned()),
        );
    };
    let Some(listed) = ask(&program, &["-hide_banner", "-encoders"]) else {
        return check(name, without, format!("{} does not run", program.display()), Some(get.to_owned()));
    };
    let encoders = encoders(&listed);
    let (h264, av1) = (
        encoders.iter().any(|encoder| encoder.contains("264")),
        encoders.iter().any(|encoder| encoder.contains("av1") || encoder.contains("rav1e")),
    );
    let message = format!(
        "{} with {}",
        program.display(),
        if encoders.is_empty() { "no video encoder".to_owned() } else { encoders.join(", ") }
    );
    let lacking = match config.video.codec {
        VideoChoice::H264 => !h264,
        VideoChoice::Av1 => !av1,
        VideoChoice::Keep => false,
    };
    match (lacking, h264 && av1) {
        (true, _) => check(
            name,
            State::Missing,
            message,
            Some(format!("video.codec is {}: take an ffmpeg that has it ({get})", config.video.codec)),
        ),
        (false, false) => check(
            name,
            State::Warning,
            message,
            Some(format!("an ffmpeg with libx264 and libsvtav1 can do more ({get})")),
        ),
        (false, true) => check(name, State::Ok, message, None),
    }
}

/// Encoders of H.264 and AV1 in the list of `ffmpeg -encoders`.
fn encoders(listed: &str) -> Vec<String> {
    let known = [
        "libx264",
        "libsvtav1",
        "librav1e",
        "libaom-av1",
        "libopenh264",
        "h264_nvenc",
        "av1_nvenc",
        "h264_vaapi",
        "h264_videotoolbox",
    ];
    let words: Vec<&str> = listed.lines().filter_map(|line| line.split_whitespace().nth(1)).collect();
    known.into_iter().filter(|encoder| words.contains(encoder)).map(str::to_owned).collect()
}

fn ask(program: &Path, arguments: &[&str]) -> Option<String> {
    let mut child = Command::new(program)
        .args(arguments)
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .ok()?;
    let mut text = Vec::new();
    let read = child.stdout.take()?.take(FFMPEG_BYTES_MAX).read_to_end(&mut text);
    let status = child.wait().ok()?;
    (read.is_ok() && status.success()).then(|| String::from_utf8_lossy(&text).into_owned())
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

    #[test]
    fn encoders_are_read_from_ffmpegs_own_list() {
        let listed = " V....D libx264              libx264 H.264 (codec h264)\n V..... libsvtav1  SVT-AV1\n V..... mjpeg  MJPEG\n";
        assert_eq!(encoders(listed), ["libx264", "libsvtav1"]);
        assert!(encoders("").is_empty());
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
