//! One core and two: the time until one event is on 5,000 sockets, while nobody reads, beside the floor's.

use anyhow::Result;

use super::{Args, SERVER_CPU};
use crate::contenders::{self, Contender, Floor, Ours, Running};
use crate::load::{Form, Frame, Group};
use crate::report::{Sample, Table};

const CLIENTS: usize = 5000;
/// Events in each turn.
const BURSTS: usize = 20;
/// Clients at which the end of a burst is seen. Each costs the load one wake-up.
const WATCHED: usize = 50;

struct Side {
    name: String,
    running: Vec<Running>,
    milliseconds: Sample,
}

/// The clients are shared among as many servers as there are CPUs in `cpus`.
fn open(name: &str, contender: &dyn Contender, cpus: &[&str]) -> Result<Side> {
    let mut running = Vec::new();
    for cpu in cpus {
        let mut one = contenders::open(contender, cpu, CLIENTS / cpus.len())?;
        one.group.warm_up(1)?;
        running.push(one);
    }
    Ok(Side { name: name.to_owned(), running, milliseconds: Sample::default() })
}

/// Takes turns between one core and two: first of ours, then of the floor, since all at once would need more open
/// files than many systems allow.
pub(super) fn run(args: &Args) -> Result<()> {
    let columns = ["server", "ms until all have it", "1 core ÷ it"];
    let mut table = Table::new("Cores: one event to 5,000 connections, nobody reads meanwhile", &columns);
    let mut one = open("Triggercast, 1 core", &Ours::default(), &[SERVER_CPU])?;
    let frame: Frame = one.running[0].group.capture(1, Form::Trigger)?;
    let two = open("Triggercast, 2 cores", &Ours { workers: 2, ..Ours::default() }, &["0,1"])?;
    compare(args, [one, two], &mut table)?;
    let floor = Floor { coalesces: false, frame };
    let one = open("floor, 1 core", &floor, &["0"])?;
    let two = open("floor, 2 cores (two of them)", &floor, &["0", "1"])?;
    compare(args, [one, two], &mut table)?;
    table.print();
    Ok(())
}

fn compare(args: &Args, mut sides: [Side; 2], table: &mut Table) -> Result<()> {
    for round in 0..args.rounds {
        sides.iter().flat_map(|side| &side.running).try_for_each(|one| one.group.keep_alive())?;
        std::thread::sleep(std::time::Duration::from_millis(500));
        for step in 0..sides.len() {
            let side = &mut sides[(step + round) % 2];
            let mut groups: Vec<&mut Group> = side.running.iter_mut().map(|one| &mut one.group).collect();
            let mut times = Sample::default();
            for _ in 0..BURSTS {
                times.0.push(Group::burst(&mut groups, WATCHED)?.as_secs_f64() * 1000.0);
            }
            side.milliseconds.0.push(times.median());
        }
    }
    let [one, two] = &sides;
    for side in [one, two] {
        let ratio = one.milliseconds.over(&side.milliseconds);
        table.row([side.name.clone(), side.milliseconds.to_string(), ratio.to_string()]);
    }
    Ok(())
}
