//! The command line as a whole: what it takes, and that it explains itself.

use clap::CommandFactory;

use super::*;

fn parse(line: &str) -> Result<Cli, clap::Error> {
    Cli::try_parse_from(line.split_whitespace())
}

#[test]
fn the_command_line_is_consistent() {
    Cli::command().debug_assert();
}

#[test]
fn every_promised_line_is_taken() {
    let id = "0197f3a0-0000-7000-8000-000000000001";
    for line in [
        "tendon serve",
        "tendon serve --config F --data DIR --listen 0.0.0.0:7400",
        "tendon demo --out DIR --episodes 2 --exit --json FILE",
        "tendon stream DATASET --to http://h:1 --token T --speed max --episodes 0,3-5",
        "tendon stream DATASET --to h --token T --speed 2 --dataset cups --operator ada --robot arm-1",
        &format!("tendon stream DATASET --to h --token T --session {id}"),
        "tendon sessions --to h --token T --robot a --operator b --state failed --type policy --dataset d --day 2026-11-25 --json",
        &format!("tendon export {id} --to h --token T --out DIR"),
        &format!(
            "tendon export cups --to h --token T --out DIR --format v2.1 --exclude {id}/0 --exclude {id}/3 --video av1 --allow-not-finite"
        ),
        "tendon verify DIR --json",
        "tendon token create --role robot --name arm-1 --data DIR",
        "tendon token --data DIR create --role admin",
        "tendon token list --data DIR --json",
        "tendon token revoke 0f3a9c1e5b7d2468 --to h --token T",
        "tendon doctor --json",
    ] {
        if let Err(error) = parse(line) {
            panic!("{line}: {error}");
        }
    }
}

#[test]
fn what_makes_no_sense_is_refused_as_usage() {
    let id = "0197f3a0-0000-7000-8000-000000000001";
    for line in [
        "tendon",
        "tendon fly",
        "tendon stream DATASET --to h --token T --episodes 5-3",
        "tendon stream DATASET --to h --token T --speed 0",
        &format!("tendon stream DATASET --to h --token T --session {id} --dataset cups"),
        "tendon export ../cups --to h --token T --out DIR",
        "tendon export cups --to h --token T --out DIR --format v9",
        "tendon export cups --to h --token T --out DIR --exclude 3",
        "tendon export cups --to h --token T",
        "tendon demo --episodes 0",
        "tendon token create --role king",
        "tendon token list --to h --token T --data DIR",
        "tendon sessions --to h --token T --type flying",
        "tendon serve --listen nowhere",
    ] {
        match parse(line) {
            Ok(_) => panic!("{line} was taken"),
            Err(error) => assert_eq!(error.exit_code(), i32::from(error::EXIT_FAILED), "{line}"),
        }
    }
}

#[test]
fn every_command_shows_examples_of_itself() {
    for command in Cli::command().get_subcommands().filter(|command| command.get_name() != "help") {
        let help = command.get_after_help().map(ToString::to_string).unwrap_or_default();
        assert!(help.contains("Examples:"), "{}", command.get_name());
        assert!(help.contains(&format!("  tendon {}", command.get_name())), "{}", command.get_name());
    }
}

#[test]
fn examples_in_the_help_are_lines_that_are_taken() {
    for command in Cli::command().get_subcommands() {
        let help = command.get_after_help().map(ToString::to_string).unwrap_or_default();
        for line in help.lines().filter_map(|line| line.strip_prefix("  tendon ")) {
            // An explanation stands two spaces behind the command; a pipe belongs to the shell.
            let line = line.split("  ").next().unwrap_or_default().split(" | ").next().unwrap_or_default();
            let mut words: Vec<&str> = std::iter::once("tendon").chain(line.split_whitespace()).collect();
            let needs_server = matches!(words[1], "stream" | "sessions" | "export") && !words.contains(&"--to");
            if needs_server {
                words.extend(["--to", "h", "--token", "T"]);
            }
            let words = words.iter().map(|word| word.replace("SESSION/3", "0197f3a0-0000-7000-8000-000000000001/3"));
            if let Err(error) = Cli::try_parse_from(words) {
                panic!("tendon {line}: {error}");
            }
        }
    }
}

#[test]
fn a_token_is_never_shown_by_the_help() {
    for command in Cli::command().get_subcommands() {
        for argument in command.get_arguments().filter(|argument| argument.get_id() == "token") {
            assert!(argument.is_hide_env_values_set(), "{}", command.get_name());
        }
    }
}
