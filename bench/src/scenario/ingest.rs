//! Publishes of 1 and of 50 devices, with QoS 0 and 1: events made and kept, beside Mosquitto that only takes them.

use anyhow::{Context, Result};

use super::{Args, SERVER_CPU};
use crate::contenders::{self, Contender, Durability, Ours, Server};
use crate::load::Publish;
use crate::load::ingest::{Devices, Until};
use crate::report::{Sample, Table};

/// Devices, and publishes with QoS 1 of each that may wait for their acknowledgement.
const CROWDS: [(usize, u64); 2] = [(1, 1000), (50, 100)];
const DEVICES: usize = 50;

/// A server and its devices, as many as each of [`CROWDS`] says.
struct Taker {
    name: String,
    server: Server,
    crowds: Vec<Devices>,
}

impl Taker {
    fn new(name: String, server: Server, publish: impl Fn(usize) -> Publish) -> Result<Self> {
        let open = |(devices, _): &(usize, u64)| Devices::open(&publish, server.publish_port, *devices);
        let crowds = CROWDS.iter().map(open).collect::<Result<_>>()?;
        Ok(Self { name, server, crowds })
    }
}

/// Nobody listens, but every event is made, batched and, on disk, kept.
fn ours(durability: Durability) -> Result<Taker> {
    let ours = Ours { durability, size: 100, devices: DEVICES, ..Ours::default() };
    Taker::new(ours.name(), ours.start(SERVER_CPU)?, Ours::publish_to)
}

/// Nobody subscribes, so that it has the least to do.
fn mosquitto() -> Result<Taker> {
    let server = contenders::peer("Mosquitto").context("no peer Mosquitto")?.start(SERVER_CPU)?;
    let publish = |_| Publish::Mqtt { topic: "bench".to_owned(), login: None };
    Taker::new("Mosquitto".to_owned(), server, publish)
}

/// All of them take turns, for each QoS and number of devices.
pub(super) fn run(args: &Args) -> Result<()> {
    let mut takers = [mosquitto()?, ours(Durability::Memory)?, ours(Durability::Disk)?];
    for (crowd, (devices, window)) in CROWDS.into_iter().enumerate() {
        for qos in [0, 1] {
            let mut cpu = vec![Sample::default(); takers.len()];
            let mut rate = vec![Sample::default(); takers.len()];
            for round in 0..args.rounds {
                for step in 0..takers.len() {
                    let at = (step + round) % takers.len();
                    let Taker { name, server, crowds } = &mut takers[at];
                    let before = server.cpu()?;
                    let (published, time) = crowds[crowd]
                        .publish(qos, window, Until::Time(args.time()))
                        .with_context(|| name.clone())?;
                    let used = server.cpu()? - before;
                    cpu[at].0.push(used.total as f64 / 1000.0 / published as f64);
                    rate[at].0.push(published as f64 / time.as_secs_f64());
                }
            }
            let in_flight = if qos == 1 { format!(", {window} in flight each") } else { String::new() };
            let title = format!("Ingest: {devices} device(s), QoS {qos}{in_flight}");
            let columns = ["server", "CPU µs/publish", "Mosquitto ÷ it", "publishes/s"];
            let mut table = Table::new(title, &columns);
            for (at, taker) in takers.iter().enumerate() {
                let ratio = cpu[0].over(&cpu[at]);
                let cells = [cpu[at].to_string(), ratio.to_string(), rate[at].to_string()];
                table.row([taker.name.clone()].into_iter().chain(cells));
            }
            table.print();
        }
    }
    Ok(())
}
