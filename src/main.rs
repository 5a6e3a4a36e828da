//! The program `triggercast`: arguments in, exit code out.

use std::process::ExitCode;

use clap::Parser;
use triggercast::{cli, jq, server};

fn main() -> ExitCode {
    // Before anything else: the worker has no environment, and its output is a protocol.
    if std::env::args().nth(1).is_some_and(|command| command == jq::worker::COMMAND) {
        return jq::worker::run();
    }
    cli::dispatch(cli::Args::parse(), |settings| Ok(server::run(settings)?))
}
