//! The scenarios. In each, all servers run at once and take turns: the machine is not the same from minute to minute,
//! so only what was measured side by side is compared.

mod connections;
mod cores;
mod fan_out;
mod idle;
mod ingest;
mod registries;
mod turns;

use std::process::ExitCode;
use std::time::Duration;

use anyhow::{Result, bail};
use clap::ValueEnum;

use crate::contenders;
use crate::machine;

/// The CPU of the servers; the load has the other one.
const SERVER_CPU: &str = "0";

/// What can be measured.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Scenario {
    /// 100 events a second, one by one, to 1,000 connections.
    Steady,
    /// As fast as it goes to 1,000 connections.
    Flat,
    /// Batches of 100 events to 1,000 connections.
    Batches,
    /// Half the peak rate to 1,000 connections: latency.
    Latency,
    /// 10 to 10,000 connections.
    Connections,
    /// Memory of 5,000 idle connections.
    Idle,
    /// Publishes from 1 and 50 devices.
    Ingest,
    /// One core and two, 5,000 connections.
    Cores,
    /// Notifications of container registries, and reading a large one.
    Registries,
}

/// How to compare.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// What to measure; everything if nothing is named.
    #[arg(value_enum)]
    scenarios: Vec<Scenario>,
    /// Turns of each server.
    #[arg(long, default_value_t = 7)]
    rounds: usize,
    /// Length of a turn in seconds.
    #[arg(long, default_value_t = 2.0)]
    seconds: f64,
    /// Connections of the scenarios that have 1,000.
    #[arg(long, default_value_t = 1000)]
    clients: usize,
    /// Events a second of the steady scenario.
    #[arg(long, default_value_t = 100.0)]
    rate: f64,
    /// Only these peers, by name; "none" leaves all out.
    #[arg(long, value_delimiter = ',')]
    peers: Option<Vec<String>>,
}

impl Args {
    fn time(&self) -> Duration {
        Duration::from_secs_f64(self.seconds)
    }

    fn peers(&self) -> Result<Vec<Box<dyn contenders::Contender>>> {
        let all = contenders::peer_names();
        let names = match &self.peers {
            None => all.clone(),
            Some(names) if names == &["none"] => Vec::new(),
            Some(names) => names.clone(),
        };
        let find = |name: &String| match contenders::peer(name) {
            Some(peer) => Ok(peer),
            None => bail!("no peer '{name}'; there are: {}", all.join(", ")),
        };
        names.iter().map(find).collect()
    }
}

/// Runs what was asked for.
pub(crate) fn run(args: &Args) -> Result<ExitCode> {
    // The load is never where the servers are.
    machine::pin(1)?;
    println!(
        "Machine: {}. Servers on one core, the load on the other; {} turns each.",
        machine::describe(),
        args.rounds
    );
    let scenarios = if args.scenarios.is_empty() { Scenario::value_variants() } else { &args.scenarios[..] };
    for scenario in scenarios {
        match scenario {
            Scenario::Steady => fan_out::steady(args)?,
            Scenario::Flat => fan_out::flat(args)?,
            Scenario::Batches => fan_out::batches(args)?,
            Scenario::Latency => fan_out::latency(args)?,
            Scenario::Connections => connections::run(args)?,
            Scenario::Idle => idle::run(args)?,
            Scenario::Ingest => ingest::run(args)?,
            Scenario::Cores => cores::run(args)?,
            Scenario::Registries => registries::run(args)?,
        }
    }
    Ok(ExitCode::SUCCESS)
}
