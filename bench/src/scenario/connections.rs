//! 10, 100, 1,000 and 10,000 connections of one server: what a delivery costs.

use anyhow::Result;

use super::turns::{Turn, Turns, turn};
use super::{Args, SERVER_CPU};
use crate::contenders::{Contender, Ours};
use crate::load::{Form, Group, Plan, Protocol};
use crate::report::Table;

/// Connections, and events a second: 100,000 deliveries a second at every size.
const SIZES: [(usize, f64); 4] = [(10, 10_000.0), (100, 1000.0), (1000, 100.0), (10_000, 10.0)];

/// Every size is a path of the same server.
pub(super) fn run(args: &Args) -> Result<()> {
    let ours = Ours { paths: SIZES.len(), ..Ours::default() };
    let server = ours.start(SERVER_CPU)?;
    let mut groups = Vec::new();
    for (path, (clients, _)) in SIZES.iter().enumerate() {
        let publish = (Ours::publish_to(path), server.publish_port);
        let protocol = Protocol::WebSocket(Ours::path(path));
        let mut group = Group::open(publish, (&protocol, server.listen_port), Form::Trigger, *clients)?;
        group.warm_up(1)?;
        eprintln!("{clients} clients");
        groups.push(group);
    }
    let named = |(clients, _): &(usize, f64)| Turns { name: clients.to_string(), turns: Vec::new() };
    let mut all: Vec<Turns> = SIZES.iter().map(named).collect();
    for _ in 0..args.rounds {
        groups.iter().try_for_each(Group::keep_alive)?;
        std::thread::sleep(std::time::Duration::from_secs(1));
        for ((group, (_, rate)), turns) in groups.iter_mut().zip(SIZES).zip(&mut all) {
            let plan = Plan::Paced { rate, count: 1, window: 1024, time: args.time() };
            turns.turns.push(turn(&server, group, plan)?);
        }
    }
    let columns = ["connections", "CPU µs/delivery", "× 1,000", "user %", "events/s", "p99 ms", "faults"];
    let mut table = Table::new("Connections: 100,000 deliveries/s, events one by one", &columns);
    let base = all[2].sample(|turn: &Turn| turn.cpu);
    for one in &all {
        let cpu = one.sample(|turn| turn.cpu);
        table.row([
            one.name.clone(),
            cpu.to_string(),
            cpu.over(&base).to_string(),
            format!("{:.0}", one.sample(|turn| turn.user * 100.0).median()),
            format!("{:.0}", one.sample(|turn| turn.events).median()),
            one.sample(|turn| turn.p99).to_string(),
            format!("{}", one.turns.iter().map(|turn| turn.faults).sum::<f64>()),
        ]);
    }
    table.print();
    Ok(())
}
