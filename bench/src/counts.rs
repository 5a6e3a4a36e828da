//! Counts that no noise reaches: instructions (by callgrind) and allocations of the server per event and per
//! delivery, held against budgets. Each is the difference of two runs that differ in that alone.

use std::collections::BTreeMap;
use std::fs;
use std::process::ExitCode;

use anyhow::{Context, Result, bail};

use crate::contenders::{Contender, Durability, Ours};
use crate::load::ingest::{Devices, Until};
use crate::load::{Form, Group, Plan};
use crate::report::Table;

/// Events of the shorter and the longer run, one by one.
const FEW: (u64, u64) = (50, 450);
/// The same in a burst.
const MANY: (u64, u64) = (2_000, 22_000);
/// Publishes of a burst that wait for their acknowledgement.
const WINDOW: u64 = 100;
/// Connections of the smaller and the larger crowd.
const CROWDS: (usize, usize) = (10, 210);

#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// Writes the budgets anew, a fifth above what is counted.
    #[arg(long)]
    write: bool,
}

/// How things are counted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Counter {
    Instructions,
    Allocations,
}

/// What the server has to do in a run.
#[derive(Debug, Clone, Copy)]
enum Work {
    /// Events that come one by one to so many connections.
    Deliver { events: u64, clients: usize },
    /// A burst of publishes with QoS 1.
    Take { events: u64, durability: Durability },
}

impl Counter {
    const ALL: [Self; 2] = [Self::Instructions, Self::Allocations];

    fn name(self) -> &'static str {
        match self {
            Self::Instructions => "instructions",
            Self::Allocations => "allocations",
        }
    }

    /// Everything that a server does for `work`, its start and end included.
    fn count(self, work: Work) -> Result<f64> {
        let built = |name: &str| crate::home().join("../target/release").join(name);
        let (program, before, file, mark) = match self {
            Self::Allocations => (Some(built("triggercast-counted")), vec![], "0.log", "allocations: "),
            Self::Instructions => {
                let valgrind = ["valgrind", "--tool=callgrind", "--callgrind-out-file=counts"];
                (None, valgrind.map(str::to_owned).to_vec(), "counts", "totals: ")
            }
        };
        let ours = Ours { program, size: 1, durability: Durability::Memory, ..Ours::default() };
        let said = match work {
            Work::Deliver { events, clients } => {
                let server = ours.start_by("0", &before)?;
                let publish = (ours.publish(), server.publish_port);
                let listen = (&ours.protocol(), server.listen_port);
                let mut group = Group::open(publish, listen, Form::Trigger, clients)?;
                group.warm_up(1)?;
                let outcome = group.phase(Plan::Count(events))?;
                if outcome.delivered != events * clients as u64 {
                    bail!("{} of {} deliveries came", outcome.delivered, events * clients as u64);
                }
                server.stop(file)?
            }
            Work::Take { events, durability } => {
                let ours = Ours { durability, size: 100, ..ours };
                let server = ours.start_by("0", &before)?;
                let mut devices = Devices::open(Ours::publish_to, server.publish_port, 1)?;
                devices.publish(1, WINDOW, Until::Count(events))?;
                server.stop(file)?
            }
        };
        let line = said.lines().rev().find_map(|line| line.strip_prefix(mark));
        let line = line.with_context(|| format!("no '{mark}' in what the server left:\n{said}"))?;
        line.trim().parse().with_context(|| format!("'{line}' is no number"))
    }

    /// What one more event costs, and one more delivery.
    fn measure(self) -> Result<Vec<(&'static str, f64)>> {
        let difference = |work: &dyn Fn(u64) -> Work, (few, many): (u64, u64)| -> Result<f64> {
            Ok((self.count(work(many))? - self.count(work(few))?) / (many - few) as f64)
        };
        let to = |clients| difference(&move |events| Work::Deliver { events, clients }, FEW);
        let (small, large) = (to(CROWDS.0)?, to(CROWDS.1)?);
        let delivery = (large - small) / (CROWDS.1 - CROWDS.0) as f64;
        let take = |durability| difference(&move |events| Work::Take { events, durability }, MANY);
        Ok(vec![
            ("delivery", delivery),
            ("event, alone", small - delivery * CROWDS.0 as f64),
            ("event, in a burst", take(Durability::Memory)?),
            ("event, in a burst, journaled", take(Durability::Disk)?),
        ])
    }
}

type Budgets = BTreeMap<String, BTreeMap<String, f64>>;

/// Counts and compares. Fails when a budget is exceeded.
pub(crate) fn run(args: &Args) -> Result<ExitCode> {
    let file = crate::home().join("budgets.json");
    let mut budgets: Budgets = if args.write {
        Budgets::new()
    } else {
        let text = fs::read_to_string(&file).with_context(|| format!("failed to read {}", file.display()))?;
        serde_json::from_str(&text)?
    };
    let mut table = Table::new("Counts", &["what", "counted", "budget", ""]);
    let mut exceeded = false;
    for counter in Counter::ALL {
        for (what, counted) in counter.measure()? {
            let budgets = budgets.entry(counter.name().to_owned()).or_default();
            if args.write {
                let budget = counted * 1.2;
                let rounded = if budget > 100.0 { budget.round() } else { (budget * 100.0).ceil() / 100.0 };
                budgets.insert(what.to_owned(), rounded.max(0.02));
            }
            let budget = *budgets.get(what).with_context(|| format!("no budget for '{what}'"))?;
            let verdict = if counted > budget { "EXCEEDED" } else { "" };
            exceeded |= counted > budget;
            let show = |value: f64| {
                if value > 100.0 { format!("{value:.0}") } else { format!("{:.2}", value.max(0.0)) }
            };
            table.row([
                format!("{} per {what}", counter.name()),
                show(counted),
                show(budget),
                verdict.to_owned(),
            ]);
        }
    }
    table.print();
    if args.write {
        fs::write(&file, serde_json::to_string_pretty(&budgets)? + "\n")?;
    }
    if exceeded {
        println!(
            "\nA budget is exceeded. If the cost is wanted, say why in the commit and write the budgets anew."
        );
        return Ok(ExitCode::FAILURE);
    }
    Ok(ExitCode::SUCCESS)
}
