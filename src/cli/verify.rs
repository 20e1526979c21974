//! `tendon verify`: what is wrong with a dataset on disk.

use std::collections::BTreeMap;
use std::path::PathBuf;

use clap::Args;
use tendon_dataset::verify::{Finding, Report, Severity, verify};

use super::output::{Output, count};

const EXAMPLES: &str = "\
Examples:
  tendon verify my-dataset
  tendon verify my-dataset --json | jq -r '.findings[] | [.severity, .code, .file, .message] | @tsv'

Reads LeRobot datasets of v3.0, v2.1 and v2.0, whoever made them. Every code is explained in
docs/cli.md. Exit code 0: nothing found; 1: findings; 2: no dataset, or not one row can be read.";

/// Arguments of `tendon verify`.
#[derive(Debug, Args)]
#[command(after_help = EXAMPLES)]
pub struct VerifyArgs {
    /// Folder of the dataset: the one that holds meta/info.json.
    pub dir: PathBuf,
    /// Print JSON.
    #[arg(long)]
    pub json: bool,
}

/// Runs the command.
#[must_use]
pub fn run(args: &VerifyArgs, output: &Output) -> u8 {
    let report = check(&args.dir, output);
    output.result(&report, |report| lines(report).iter().for_each(|line| output.line(line)));
    report.exit_code()
}

/// Checks a dataset behind a progress bar.
#[must_use]
pub fn check(dir: &std::path::Path, output: &Output) -> Report {
    let bar = output.bar(0, "checking files");
    let report = verify(dir, &mut |done, total| {
        bar.set_length(total);
        bar.set_position(done);
    });
    bar.finish_and_clear();
    report
}

/// The findings by file, the worst file first, then a summary.
#[must_use]
pub fn lines(report: &Report) -> Vec<String> {
    let mut files: BTreeMap<&str, Vec<&Finding>> = BTreeMap::new();
    for finding in &report.findings {
        files.entry(&finding.file).or_default().push(finding);
    }
    let mut files: Vec<(&str, Vec<&Finding>)> = files.into_iter().collect();
    files.sort_by_key(|(_, findings)| findings.iter().map(|finding| finding.severity).min());
    let mut lines = Vec::new();
    for (file, findings) in files {
        lines.push(if file.is_empty() { "the folder itself".to_owned() } else { plain(file) });
        for finding in findings {
            lines.push(format!(
                "  {} {}{}: {}",
                word(finding.severity),
                finding.code,
                place(finding),
                plain(&finding.message)
            ));
            lines.push(format!("      {}", finding.remedy));
        }
        lines.push(String::new());
    }
    lines.push(summary(report));
    lines
}

/// A line of text from a file, without what would move a terminal's cursor.
fn plain(text: &str) -> String {
    text.chars().map(|character| if character.is_control() { ' ' } else { character }).collect()
}

const fn word(severity: Severity) -> &'static str {
    match severity {
        Severity::Error => "error  ",
        Severity::Warning => "warning",
        Severity::Info => "info   ",
    }
}

fn place(finding: &Finding) -> String {
    let episode = finding.episode.map(|episode| format!("episode {episode}"));
    let row = finding.row.map(|row| format!("row {row}"));
    let parts: Vec<String> = episode.into_iter().chain(row).collect();
    if parts.is_empty() { String::new() } else { format!(", {}", parts.join(", ")) }
}

/// One line: what was read and how much was found.
#[must_use]
pub fn summary(report: &Report) -> String {
    let version = report.version.as_deref().map_or_else(|| "of no known version".to_owned(), plain);
    let read =
        format!("{} {version}: {}, {}", report.dataset, count(report.episodes, "episode"), count(report.frames, "row"));
    let of = |severity: Severity| report.findings.iter().filter(|finding| finding.severity == severity).count() as u64;
    let found: Vec<String> = [(Severity::Error, "error"), (Severity::Warning, "warning"), (Severity::Info, "remark")]
        .into_iter()
        .filter(|(severity, _)| of(*severity) > 0)
        .map(|(severity, noun)| count(of(severity), noun))
        .collect();
    if found.is_empty() { format!("{read}; nothing found") } else { format!("{read}; {}", found.join(", ")) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn findings_stand_under_their_file_with_what_to_do_and_a_summary_ends_them() {
        let folder = tempfile::tempdir().unwrap();
        std::fs::create_dir(folder.path().join("meta")).unwrap();
        std::fs::write(folder.path().join("meta/info.json"), "{ \"fps\": \u{1b}[31m }").unwrap();
        let report = verify(folder.path(), &mut |_, _| ());
        assert_eq!(report.exit_code(), 2);
        let lines = lines(&report);
        assert_eq!(lines[0], "meta/info.json");
        assert!(lines[1].starts_with("  error   json-damaged"), "{}", lines[1]);
        assert_eq!(lines[2].trim(), report.findings[0].remedy);
        assert!(lines.last().unwrap().ends_with("0 episodes, 0 rows; 1 error"), "{lines:?}");
        assert!(lines.iter().all(|line| !line.chars().any(char::is_control)), "{lines:?}");
    }

    /// Scripts match on codes: the documentation lists all of them. Set TENDON_WRITE_DOCS to write the table anew.
    #[test]
    fn the_documentation_lists_every_code() {
        let path = concat!(env!("CARGO_MANIFEST_DIR"), "/docs/cli.md");
        let text = std::fs::read_to_string(path).unwrap();
        let (before, rest) = text.split_once("<!-- codes -->\n").unwrap();
        let (table, after) = rest.split_once("<!-- end of codes -->\n").unwrap();
        let wanted = tendon_dataset::verify::markdown();
        if std::env::var_os("TENDON_WRITE_DOCS").is_some() {
            let whole = format!("{before}<!-- codes -->\n{wanted}<!-- end of codes -->\n{after}");
            std::fs::write(path, whole).unwrap();
        } else {
            assert!(table == wanted, "docs/cli.md is behind; run this test with TENDON_WRITE_DOCS=1");
        }
    }
}
