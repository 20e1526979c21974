//! What a command prints: results on stdout, everything else on stderr, a progress bar on long work.

use std::borrow::Cow;
use std::io::{self, IsTerminal, Write};
use std::time::Duration;

use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};
use serde::Serialize;
use serde_json::json;

use super::error::CliError;

/// Warnings of one kind that are shown; more would hide the others.
const WARNINGS_SHOWN: usize = 6;

/// Where a command says things.
#[derive(Clone, Copy, Debug)]
pub struct Output {
    json: bool,
}

impl Output {
    /// For a machine or for a person.
    #[must_use]
    pub const fn new(json: bool) -> Self {
        Self { json }
    }

    /// Whether stdout is for a machine.
    #[must_use]
    pub const fn is_json(self) -> bool {
        self.json
    }

    /// A line of the result, for a person. A machine gets its document instead.
    pub fn line(self, text: impl AsRef<str>) {
        if !self.json {
            print(text.as_ref());
        }
    }

    /// The result: a document for a machine, what `human` prints for a person.
    pub fn result<T: Serialize>(self, document: &T, human: impl FnOnce(&T)) {
        if self.json {
            print(&document_text(document));
        } else {
            human(document);
        }
    }

    /// The result on one line, for who reads it while the command still runs.
    pub fn result_line<T: Serialize>(self, document: &T, human: impl FnOnce(&T)) {
        match (self.json, serde_json::to_string(document)) {
            (true, Ok(text)) => print(&text),
            (true, Err(_)) | (false, _) => human(document),
        }
    }

    /// What goes on, for a person; never on stdout.
    pub fn note(self, text: impl AsRef<str>) {
        if !self.json {
            say(text.as_ref());
        }
    }

    /// Something that is odd but stops nothing. Told in either case; documents repeat it.
    pub fn warn(self, text: impl AsRef<str>) {
        say(&format!("warning: {}", text.as_ref()));
    }

    /// Several of them. A long list is cut for people; documents have all of it.
    pub fn warn_all(self, texts: &[String]) {
        for text in texts.iter().take(WARNINGS_SHOWN) {
            self.warn(text);
        }
        if texts.len() > WARNINGS_SHOWN {
            say(&format!("warning: and {} more; --json lists them all", texts.len() - WARNINGS_SHOWN));
        }
    }

    /// Why the command was not done.
    pub fn error(self, error: &CliError) {
        say(&format!("error: {error}"));
        if self.json {
            let document = json!({ "error": { "code": error.code, "message": error.message } });
            print(&document_text(&document));
        }
    }

    /// A bar for work whose size is known. Hidden when stderr is no terminal.
    #[must_use]
    pub fn bar(self, total: u64, what: impl Into<Cow<'static, str>>) -> ProgressBar {
        self.progress(Some(total), "{msg} [{bar:32}] {human_pos}/{human_len} {eta}", what)
    }

    /// A bar from 0 to `total` that is shown as a percentage.
    #[must_use]
    pub fn bar_percent(self, total: u64, what: impl Into<Cow<'static, str>>) -> ProgressBar {
        self.progress(Some(total), "{msg} [{bar:32}] {percent} %", what)
    }

    /// A bar for bytes.
    #[must_use]
    pub fn bar_bytes(self, total: u64, what: impl Into<Cow<'static, str>>) -> ProgressBar {
        self.progress(Some(total), "{msg} [{bar:32}] {bytes}/{total_bytes} {bytes_per_sec}", what)
    }

    /// A sign of life for work whose size is not known.
    #[must_use]
    pub fn spinner(self, what: impl Into<Cow<'static, str>>) -> ProgressBar {
        let bar = self.progress(None, "{spinner} {msg} {elapsed}", what);
        bar.enable_steady_tick(Duration::from_millis(120));
        bar
    }

    fn progress(self, total: Option<u64>, template: &str, what: impl Into<Cow<'static, str>>) -> ProgressBar {
        // Redrawing more often than the eye sees costs CPU that the work needs.
        let target = if io::stderr().is_terminal() {
            ProgressDrawTarget::stderr_with_hz(8)
        } else {
            ProgressDrawTarget::hidden()
        };
        let bar = ProgressBar::with_draw_target(total, target).with_message(what);
        match ProgressStyle::with_template(template) {
            Ok(style) => bar.with_style(style.progress_chars("=> ")),
            Err(_) => bar,
        }
    }
}

/// The text of a document, one JSON value on several lines.
#[must_use]
pub fn document_text<T: Serialize>(document: &T) -> String {
    serde_json::to_string_pretty(document)
        .unwrap_or_else(|error| json!({ "error": { "code": "failed", "message": error.to_string() } }).to_string())
}

/// Prints to stdout. A reader that has seen enough (`| head`) is no error.
fn print(text: &str) {
    let mut stdout = io::stdout().lock();
    let _ = writeln!(stdout, "{text}").and_then(|()| stdout.flush());
}

fn say(text: &str) {
    let _ = writeln!(io::stderr().lock(), "{text}");
}

/// A count with its noun: `1 episode`, `3 episodes`.
#[must_use]
pub fn count(number: u64, noun: &str) -> String {
    format!("{number} {noun}{}", if number == 1 { "" } else { "s" })
}

/// Bytes for people: `512 B`, `1.5 MiB`.
#[must_use]
pub fn bytes(number: u64) -> String {
    const UNITS: [&str; 6] = ["B", "KiB", "MiB", "GiB", "TiB", "PiB"];
    let mut value = number as f64;
    let mut unit = 0;
    while value >= 1024.0 && unit + 1 < UNITS.len() {
        value /= 1024.0;
        unit += 1;
    }
    if unit == 0 { format!("{number} B") } else { format!("{value:.1} {}", UNITS[unit]) }
}

/// A unix time in nanoseconds for people, in UTC.
#[must_use]
pub fn moment(unix_ns: i64) -> String {
    chrono::DateTime::from_timestamp(unix_ns.div_euclid(1_000_000_000), 0)
        .map_or_else(|| "?".to_owned(), |time| time.format("%Y-%m-%d %H:%M:%S").to_string())
}

/// Unix nanoseconds now.
#[must_use]
pub fn now_ns() -> i64 {
    chrono::Utc::now().timestamp_nanos_opt().unwrap_or(i64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_read_as_a_person_would_write_them() {
        assert_eq!(
            (count(1, "row"), count(0, "row"), count(2, "row")),
            ("1 row".into(), "0 rows".into(), "2 rows".into())
        );
        assert_eq!(
            (bytes(512), bytes(1536), bytes(u64::MAX)),
            ("512 B".into(), "1.5 KiB".into(), "16384.0 PiB".into())
        );
        assert_eq!(moment(0), "1970-01-01 00:00:00");
        assert_eq!(moment(-1), "1969-12-31 23:59:59");
    }
}
