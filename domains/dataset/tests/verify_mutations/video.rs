//! Videos changed by the system's ffmpeg, or written anew by our own muxer.

use std::process::Command;

use tendon_dataset::mp4::demux::Mp4;
use tendon_dataset::mp4::mux::{self, Format, Unit};

use super::Copy;

/// Run ffmpeg on `name`; `IN` stands for its old content.
pub fn ffmpeg(copy: &Copy, name: &str, arguments: &[&str]) {
    let (old, new) = (copy.path(name), copy.root().join("changed.mp4"));
    let mut command = Command::new("ffmpeg");
    command.args(["-hide_banner", "-loglevel", "error", "-y", "-nostdin"]);
    for argument in arguments {
        if *argument == "IN" {
            command.arg(&old)
        } else {
            command.arg(argument)
        };
    }
    let output = command.arg(&new).output().expect("ffmpeg is needed for these tests: apt-get install ffmpeg");
    assert!(output.status.success(), "ffmpeg {arguments:?}: {}", String::from_utf8_lossy(&output.stderr));
    std::fs::rename(new, old).unwrap();
}

/// Write `name` anew: picture n of the new file is picture `pick(n)` of the old one, until `None`.
pub fn remux(copy: &Copy, name: &str, width: u32, height: u32, fps: u32, pick: &dyn Fn(u32) -> Option<u32>) {
    let mut mp4 = Mp4::open(copy.path(name)).unwrap();
    let track = mp4.track().clone();
    let order = mp4.presentation_order();
    let mut pictures = Vec::new();
    while let Some(old) = pick(u32::try_from(pictures.len()).unwrap()) {
        let sample = order[old as usize];
        pictures.push((mp4.read_sample(sample).unwrap(), mp4.samples()[sample].key));
    }
    let units: Vec<Unit> =
        (0..).zip(&pictures).map(|(presentation, (data, key))| Unit { data, key: *key, presentation }).collect();
    let mut out = Vec::new();
    mux::write(&mut out, Format { codec: track.codec, width, height, fps, config: &track.config }, &units).unwrap();
    copy.write(name, &out);
}
