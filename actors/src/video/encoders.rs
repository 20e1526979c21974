//! Which of ffmpeg's encoders are used, and whether a program has them.

use std::io::Read;
use std::path::Path;
use std::process::{Command, Stdio};

use tendon_storage::records::VideoChoice;

/// What ffmpeg calls the encoder of H.264 that is used.
pub const H264_ENCODER: &str = "libx264";
/// What ffmpeg calls the encoder of AV1 that is used.
pub const AV1_ENCODER: &str = "libsvtav1";
/// Longest list that is read from a program; ffmpeg's own has about 20 kB.
const LIST_BYTES_MAX: u64 = 1 << 20;

/// The encoder that a choice needs; `None` when nothing is encoded.
#[must_use]
pub const fn encoder_of(choice: VideoChoice) -> Option<&'static str> {
    match choice {
        VideoChoice::Keep => None,
        VideoChoice::H264 => Some(H264_ENCODER),
        VideoChoice::Av1 => Some(AV1_ENCODER),
    }
}

/// Names of the encoders that an ffmpeg has, by its own list; `None` when the program does not run.
#[must_use]
pub fn encoders_of(program: &Path) -> Option<Vec<String>> {
    let mut child = Command::new(program)
        .args(["-hide_banner", "-encoders"])
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .ok()?;
    let mut text = Vec::new();
    let read = child.stdout.take().map(|stdout| stdout.take(LIST_BYTES_MAX).read_to_end(&mut text));
    let status = child.wait().ok()?;
    (matches!(read, Some(Ok(_))) && status.success()).then(|| listed(&String::from_utf8_lossy(&text)))
}

/// The second word of each line, without the legend above (`V..... = Video`).
fn listed(text: &str) -> Vec<String> {
    let name = |line: &str| line.split_whitespace().nth(1).filter(|word| *word != "=").map(str::to_owned);
    text.lines().filter_map(name).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn encoders_are_read_from_ffmpegs_own_list() {
        let text = "Encoders:\n V..... = Video\n ------\n V....D libx264              libx264 H.264 (codec h264)\n V..... libsvtav1  SVT-AV1\n V..... mjpeg  MJPEG\n";
        assert_eq!(listed(text), ["libx264", "libsvtav1", "mjpeg"]);
        assert!(listed("").is_empty());
    }

    #[test]
    fn a_program_that_does_not_run_has_no_list() {
        assert_eq!(encoders_of(Path::new("/nowhere/ffmpeg")), None);
        assert_eq!(encoders_of(Path::new("false")), None);
    }
}
