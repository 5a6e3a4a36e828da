//! Memory of 5,000 connections on which nothing is sent.

use std::time::Duration;

use anyhow::Result;

use super::{Args, SERVER_CPU};
use crate::contenders::{Contender, Ours};
use crate::load::Group;
use crate::report::{Sample, Table};

const CLIENTS: usize = 5000;
/// Fresh servers of each kind; memory differs little from one to the next.
const RUNS: usize = 3;

/// Memory of each server with and without connections.
pub(super) fn run(args: &Args) -> Result<()> {
    let mut contenders: Vec<Box<dyn Contender>> = vec![Box::new(Ours::default())];
    contenders.extend(args.peers()?);
    let mut table = Table::new(
        "Idle: 5,000 connections",
        &["server", "KiB per connection (PSS)", "server without connections, MiB"],
    );
    for contender in contenders {
        let (mut each, mut empty) = (Sample::default(), Sample::default());
        for _ in 0..RUNS {
            let server = contender.start(SERVER_CPU)?;
            let ports = (server.publish_port, server.listen_port);
            let open = |clients| {
                Group::open(
                    (contender.publish(), ports.0),
                    (&contender.protocol(), ports.1),
                    contender.form(),
                    clients,
                )
            };
            let first = open(1)?;
            std::thread::sleep(Duration::from_secs(2));
            let before = server.pss()?;
            drop(first);
            let group = open(CLIENTS)?;
            std::thread::sleep(Duration::from_secs(3));
            each.0.push((server.pss()? as f64 - before as f64) / group.clients() as f64);
            empty.0.push(before as f64 / 1024.0);
        }
        eprintln!("{}: {each}", contender.name());
        table.row([contender.name(), each.to_string(), empty.to_string()]);
    }
    table.print();
    Ok(())
}
