//! One event, or batch, to 1,000 connections: steadily, flat out, in batches, and how long it takes.

use std::time::Duration;

use anyhow::Result;

use super::turns::{Turns, rotate};
use super::{Args, SERVER_CPU};
use crate::contenders::{self, Contender, Durability, Floor, Ours, Running};
use crate::load::{Form, Frame, Plan};
use crate::report::Table;

/// Events on their way at most, flat out.
const WINDOW: u64 = 32;
/// The same at a given rate: a server that is this far behind cannot keep up.
const PACED_WINDOW: u64 = 64;

/// Ours, and what it writes for one batch.
fn ours(args: &Args, size: usize, durability: Durability) -> Result<(Running, Frame)> {
    let mut running =
        contenders::open(&Ours { size, durability, ..Ours::default() }, SERVER_CPU, args.clients)?;
    running.group.warm_up(size as u64)?;
    let frame = running.group.capture(size as u64, Form::Trigger)?;
    Ok((running, frame))
}

fn other(args: &Args, contender: &dyn Contender) -> Result<Running> {
    let mut running = contenders::open(contender, SERVER_CPU, args.clients)?;
    running.group.warm_up(1)?;
    eprintln!("{}: {} clients", running.name, running.group.clients());
    Ok(running)
}

/// Floors with our frames, ours on disk and in memory, floors with bare payloads, and the peers.
fn everyone(args: &Args) -> Result<Vec<Running>> {
    let (disk, frame) = ours(args, 1, Durability::Disk)?;
    let (memory, _) = ours(args, 1, Durability::Memory)?;
    let floor = |coalesces, frame: &Frame| other(args, &Floor { coalesces, frame: frame.clone() });
    let mut all = vec![floor(false, &frame)?, floor(true, &frame)?, disk, memory];
    all.push(floor(false, &Frame::plain())?);
    all.push(floor(true, &Frame::plain())?);
    for peer in args.peers()? {
        all.push(other(args, peer.as_ref())?);
    }
    Ok(all)
}

fn print(title: &str, all: &[Turns], bases: &[usize]) {
    let mut columns = vec!["server", "CPU µs/delivery"];
    let names: Vec<String> = bases.iter().map(|base| format!("× {}", all[*base].name)).collect();
    columns.extend(names.iter().map(String::as_str));
    columns.extend(["user %", "deliveries/s", "events/s", "p50 ms", "p99 ms", "bytes", "faults"]);
    let mut table = Table::new(title, &columns);
    for one in all {
        let cpu = one.sample(|turn| turn.cpu);
        let mut cells = vec![one.name.clone(), cpu.to_string()];
        cells.extend(bases.iter().map(|base| cpu.over(&all[*base].sample(|turn| turn.cpu)).to_string()));
        cells.push(format!("{:.0}", one.sample(|turn| turn.user * 100.0).median()));
        cells.push(one.sample(|turn| turn.rate).to_string());
        cells.push(format!("{:.0}", one.sample(|turn| turn.events).median()));
        cells.push(one.sample(|turn| turn.p50).to_string());
        cells.push(one.sample(|turn| turn.p99).to_string());
        cells.push(format!("{:.0}", one.sample(|turn| turn.bytes).median()));
        cells.push(format!("{}", one.turns.iter().map(|turn| turn.faults).sum::<f64>()));
        table.row(cells);
    }
    table.print();
}

/// 100 events a second, one by one.
pub(super) fn steady(args: &Args) -> Result<()> {
    let mut all = everyone(args)?;
    let plan = Plan::Paced { rate: args.rate, count: 1, window: PACED_WINDOW, time: args.time() };
    let turns = rotate(&mut all, args.rounds, |_| plan)?;
    print(&format!("Steady: {} connections, {} events/s one by one", args.clients, args.rate), &turns, &[0]);
    Ok(())
}

/// As fast as it goes.
pub(super) fn flat(args: &Args) -> Result<()> {
    let mut all = everyone(args)?;
    let plan = Plan::Flat { window: WINDOW, time: args.time() };
    let turns = rotate(&mut all, args.rounds, |_| plan)?;
    print(&format!("Flat out: {} connections, 32 events on their way", args.clients), &turns, &[1]);
    let base = turns[1].sample(|turn| turn.rate);
    let mut table = Table::new("Flat out, deliveries/s", &["server", "floor, coalescing ÷ it"]);
    for one in &turns {
        table.row([one.name.clone(), base.over(&one.sample(|turn| turn.rate)).to_string()]);
    }
    table.print();
    Ok(())
}

/// Batches of 100 events, 20 a second.
pub(super) fn batches(args: &Args) -> Result<()> {
    let (disk, frame) = ours(args, 100, Durability::Disk)?;
    let (memory, _) = ours(args, 100, Durability::Memory)?;
    let floor = contenders::open(&Floor { coalesces: false, frame }, SERVER_CPU, args.clients)?;
    let mut all = vec![floor, disk, memory];
    let plan = Plan::Paced { rate: 20.0, count: 100, window: 400, time: args.time() };
    let turns = rotate(&mut all, args.rounds, |_| plan)?;
    print(
        &format!("Batches: {} connections, 20 batches/s of 100 events; per event", args.clients),
        &turns,
        &[0],
    );
    Ok(())
}

/// Half of what ours does flat out.
pub(super) fn latency(args: &Args) -> Result<()> {
    let (disk, frame) = ours(args, 1, Durability::Disk)?;
    let (memory, _) = ours(args, 1, Durability::Memory)?;
    let mut all = vec![other(args, &Floor { coalesces: true, frame })?, disk, memory];
    let flat = Plan::Flat { window: WINDOW, time: args.time() };
    let peak = rotate(&mut all, 3, |_| flat)?[2].sample(|turn| turn.events).median();
    let plan = Plan::Paced { rate: peak / 2.0, count: 1, window: 1 << 14, time: args.time() };
    // Settled before it is measured.
    std::thread::sleep(Duration::from_millis(500));
    let turns = rotate(&mut all, args.rounds, |_| plan)?;
    print(
        &format!("Latency: {} connections, {:.0} events/s, half the peak", args.clients, peak / 2.0),
        &turns,
        &[0],
    );
    Ok(())
}
