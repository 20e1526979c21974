//! Loads a Tendon server on its real wire, and measures the machine beside it.
//!
//! Read [`options`] first: what can be asked. Each [`scenario`] starts a server of its own (or uses
//! a running one), drives it, and gives a [`report`]; [`yardstick`] measures in the same run what
//! the disk and the loopback could do at best, so that every result is a ratio and a slow machine
//! is not mistaken for a slow server. It speaks the wire and REST; it knows nothing of the server's
//! insides, but for the files of stored episodes that `kills` reads back.

mod batch;
mod latencies;
mod link;
mod machine;
mod options;
mod process;
mod report;
mod rest;
mod scenario;
mod server_process;
mod values;
mod yardstick;

use std::process::ExitCode;

use clap::Parser;

use options::{Command, Options};

fn main() -> ExitCode {
    // The only crypto back end; a second call finds it installed, which is as good.
    let _ = rustls::crypto::ring::default_provider().install_default();
    let options = Options::parse();
    process::raise_file_limit();
    let done = match options.command {
        Command::Steady(args) => scenario::stream::run(args, scenario::stream::Shape::Steady),
        Command::Burst(args) => scenario::stream::run(args, scenario::stream::Shape::Burst),
        Command::Flaky(args) => scenario::flaky::run(args),
        Command::Idle(args) => scenario::idle::run(args),
        Command::Kills(args) => scenario::kills::run(args),
        Command::Produce(args) => return scenario::produce::run(args),
    };
    match done {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::from(1),
        Err(error) => {
            eprintln!("error: {error:#}");
            ExitCode::from(2)
        }
    }
}
