//! The program `triggercast`: arguments in, exit code out.

use std::process::ExitCode;

use clap::Parser;
use triggercast::cli;

fn main() -> ExitCode {
    cli::dispatch(cli::Args::parse(), |_settings| anyhow::bail!("not wired"))
}
