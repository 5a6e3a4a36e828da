//! `triggercast-bench`: Triggercast beside its peers, and beside the least that a machine must do.
//!
//! The modules stand in the order a measurement takes: [`contenders`] starts servers, [`load`] publishes to
//! them and listens as thousands of clients, [`scenario`] takes turns between them and [`report`] prints medians
//! and ratios. [`floor`] is the bare loop they are compared with, [`counts`] the check that no noise reaches.

mod contenders;
mod counts;
mod floor;
mod load;
mod machine;
mod report;
mod scenario;

use std::path::PathBuf;
use std::process::ExitCode;

use clap::{Parser, Subcommand};

/// Measures Triggercast beside its peers.
#[derive(Debug, Parser)]
#[command(name = "triggercast-bench", version)]
struct Args {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Runs scenarios and prints their tables.
    Compare(scenario::Args),
    /// Counts instructions and allocations of the server and holds them against the budgets.
    Counts(counts::Args),
    /// The bare loop: what it reads on one port goes to every connection of the other.
    #[command(hide = true)]
    Floor(floor::Args),
}

fn main() -> ExitCode {
    let done = match Args::parse().command {
        Command::Compare(args) => scenario::run(&args),
        Command::Counts(args) => counts::run(&args),
        Command::Floor(args) => floor::run(&args),
    };
    match done {
        Ok(code) => code,
        Err(error) => {
            eprintln!("triggercast-bench: {error:#}");
            ExitCode::FAILURE
        }
    }
}

/// The folder of this crate's own files, where it was built.
fn home() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR"))
}
