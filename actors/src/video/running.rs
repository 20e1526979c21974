//! A child process that cannot be left behind and cannot be held up by its own complaints.

use std::fs::File;
use std::io::{self, Read, Seek, SeekFrom};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, ChildStdout, Command};

/// Lines at the end of a complaint that are shown; before them ffmpeg repeats itself.
const LINES: usize = 3;
/// Bytes at the end of a complaint that are read.
const BYTES: u64 = 4096;

/// A running program. It is killed and waited for when this is dropped.
pub(super) struct Running {
    child: Child,
    /// Holds what the program writes to its standard error. A file and no pipe: nobody reads while
    /// the program runs, and a full pipe would stop it for ever.
    complaints: PathBuf,
}

impl Running {
    pub(super) fn start(command: &mut Command, complaints: PathBuf) -> io::Result<Self> {
        let child = command.stderr(File::create(&complaints)?).spawn()?;
        Ok(Self { child, complaints })
    }

    pub(super) fn stdin(&mut self) -> Option<&mut ChildStdin> {
        self.child.stdin.as_mut()
    }

    pub(super) fn take_stdout(&mut self) -> Option<ChildStdout> {
        self.child.stdout.take()
    }

    /// Ends the program's input and waits; whether it succeeded.
    pub(super) fn wait(&mut self) -> io::Result<bool> {
        drop(self.child.stdin.take());
        Ok(self.child.wait()?.success())
    }

    /// The end of what the program complained of.
    pub(super) fn complaint(&self) -> String {
        tail(&self.complaints).unwrap_or_else(|error| format!("what it said cannot be read ({error})"))
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        // Without effect on a program that was waited for already.
        let _ = self.child.kill();
        let _ = self.child.wait();
        let _ = std::fs::remove_file(&self.complaints);
    }
}

fn tail(path: &Path) -> io::Result<String> {
    let mut file = File::open(path)?;
    let length = file.metadata()?.len();
    file.seek(SeekFrom::Start(length.saturating_sub(BYTES)))?;
    let mut bytes = Vec::new();
    file.take(BYTES).read_to_end(&mut bytes)?;
    let text = String::from_utf8_lossy(&bytes);
    let lines: Vec<&str> = text.lines().filter(|line| !line.trim().is_empty()).collect();
    if lines.is_empty() {
        return Ok("it said nothing".to_owned());
    }
    Ok(lines[lines.len().saturating_sub(LINES)..].join(" | "))
}

#[cfg(test)]
mod tests {
    use std::process::Stdio;

    use super::*;

    #[test]
    fn a_program_that_is_dropped_is_killed_and_reaped_and_its_log_is_gone() {
        let folder = tempfile::tempdir().unwrap();
        let log = folder.path().join("log");
        let running = Running::start(Command::new("sleep").arg("1000").stdin(Stdio::null()), log.clone()).unwrap();
        let number = running.child.id().to_string();
        // A zombie, too, would still take signals.
        let is_there = || Command::new("kill").args(["-0", &number]).stderr(Stdio::null()).status().unwrap().success();
        assert!(is_there() && log.exists());
        drop(running);
        assert!(!is_there() && !log.exists());
    }

    #[test]
    fn only_the_last_lines_of_a_long_complaint_are_read() {
        let folder = tempfile::tempdir().unwrap();
        let log = folder.path().join("log");
        let lines: Vec<String> = (0..100_000).map(|line| format!("line {line}")).collect();
        std::fs::write(&log, lines.join("\n") + "\n\n").unwrap();
        assert_eq!(tail(&log).unwrap(), "line 99997 | line 99998 | line 99999");
        std::fs::write(&log, vec![b'x'; 1 << 20]).unwrap();
        assert_eq!(tail(&log).unwrap().len() as u64, BYTES);
        std::fs::write(&log, "").unwrap();
        assert_eq!(tail(&log).unwrap(), "it said nothing");
    }
}
