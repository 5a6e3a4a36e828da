//! Triggercast with an allocator that counts; it tells at its end how often it was asked.

use std::alloc::System;
use std::process::ExitCode;

use clap::Parser;
use stats_alloc::{INSTRUMENTED_SYSTEM, StatsAlloc};
use triggercast::{cli, server};

#[global_allocator]
static ALLOCATOR: &StatsAlloc<System> = &INSTRUMENTED_SYSTEM;

fn main() -> ExitCode {
    let code = cli::dispatch(cli::Args::parse(), |settings| Ok(server::run(settings)?));
    let stats = ALLOCATOR.stats();
    println!("allocations: {}", stats.allocations + stats.reallocations);
    code
}
