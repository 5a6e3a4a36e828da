//! The program `triggercast`: arguments in, exit code out.

use std::process::ExitCode;

use clap::Parser;
use triggercast::{cli, server};

fn main() -> ExitCode {
    cli::dispatch(cli::Args::parse(), |settings| Ok(server::run(settings)?))
}
