//! Container registries: notifications that are answered when their events are on disk, and reading a large registry.
//! No peer does the like.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Instant;

use anyhow::{Context, Result, ensure};

use super::{Args, SERVER_CPU};
use crate::contenders::{Ours, Server, Starter, free_port};
use crate::load::registry::{self, FakeRegistry, TOKEN};
use crate::report::{Sample, Table};

/// Repositories and tags of each of the registry that is read.
const SIZE: (u64, u64) = (1000, 10);
/// Senders at once.
const SENDERS: [usize; 3] = [1, 8, 64];

struct Follower {
    server: Server,
    management: u16,
}

/// A server that follows a registry and tells of it on a path on disk.
fn follower(registry: u16, requests_per_second: u32) -> Result<Follower> {
    let mut starter = Starter::new(SERVER_CPU)?;
    let (gateway, management) = (free_port()?, free_port()?);
    let config = format!(
        "data_dir: data\n\
         gateway: {{ listen: '127.0.0.1:{gateway}', workers: 1 }}\n\
         management: {{ listen: '127.0.0.1:{management}', grpc_listen: '127.0.0.1:0' }}\n\
         service_accounts: [ {{ id: sender, roles: [api-gateway.websocketBroadcaster] }} ]\n\
         gateways: [ {{ id: main, paths: {{ /images: {{}} }} }} ]\n\
         container_registries: [ {{ id: images, kind: distribution, url: 'http://127.0.0.1:{registry}', \
         webhook_token: '{TOKEN}', reconcile: {{ every: 0s, requests_per_second: {requests_per_second} }} }} ]\n\
         triggers:\n  - name: all\n    source: {{ container_registry: {{ registry_id: images, event_type: \
         [create_image, delete_image, create_image_tag, delete_image_tag], batch_settings: {{ max_count: 100, cutoff: 1s }} }} }}\n    \
         action: [ {{ gateway_websocket_broadcast: {{ gateway_id: main, path: /images, service_account_id: sender }} }} ]\n"
    );
    starter.write("config.yaml", &config)?;
    let program = Ours::default().program().display().to_string();
    starter.spawn(&program, &[], management)?;
    Ok(Follower { server: starter.done(management, gateway), management })
}

pub(super) fn run(args: &Args) -> Result<()> {
    notifications(args)?;
    readings(args)
}

fn notifications(args: &Args) -> Result<()> {
    let registry = FakeRegistry::start(0, 0)?;
    let Follower { server, management } = follower(registry.port, 200)?;
    let next = Arc::new(AtomicU64::new(1));
    let (mut rate, mut cpu) =
        (vec![Sample::default(); SENDERS.len()], vec![Sample::default(); SENDERS.len()]);
    for _ in 0..args.rounds {
        for (at, senders) in SENDERS.into_iter().enumerate() {
            let (before, begun) = (server.cpu()?, Instant::now());
            let taken = registry::notify(management, senders, args.time(), &next)?;
            let (used, time) = (server.cpu()? - before, begun.elapsed());
            rate[at].0.push(taken as f64 / time.as_secs_f64());
            cpu[at].0.push(used.total as f64 / 1000.0 / taken as f64);
        }
    }
    let title = "Notifications of first pushes, each on a connection of its own, two events each, on disk";
    let mut table = Table::new(title, &["senders", "taken/s", "CPU µs each"]);
    for (at, senders) in SENDERS.into_iter().enumerate() {
        table.row([senders.to_string(), rate[at].to_string(), cpu[at].to_string()]);
    }
    table.print();
    println!(
        "\nMemory after {} notifications: {} MiB (PSS).",
        next.load(Ordering::Relaxed) - 1,
        server.pss()? / 1024
    );
    Ok(())
}

fn readings(args: &Args) -> Result<()> {
    let registry = FakeRegistry::start(SIZE.0, SIZE.1)?;
    let names = ["the first, which tells nothing", "nothing has changed", "every tag names another image"];
    let mut seconds = vec![Sample::default(); names.len()];
    let mut cpu = vec![Sample::default(); names.len()];
    let (mut events, mut requests) = (vec![0; names.len()], 0);
    let mut memory = Sample::default();
    for _ in 0..args.rounds {
        let Follower { server, management } = follower(registry.port, 10_000)?;
        for at in 0..names.len() {
            if at == 2 {
                registry.generation.fetch_add(1, Ordering::Relaxed);
            }
            let (asked, before) = (registry.requests.load(Ordering::Relaxed), server.cpu()?);
            let report = registry::post(management, ":reconcile", "")?;
            let report: serde_json::Value = serde_json::from_str(&report)?;
            let number = |name: &str| report[name].as_f64().with_context(|| format!("no {name} in {report}"));
            ensure!(
                (number("repositories")?, number("tags")?) == (SIZE.0 as f64, (SIZE.0 * SIZE.1) as f64),
                "{report}"
            );
            seconds[at].0.push(number("seconds")?);
            cpu[at].0.push((server.cpu()? - before).total as f64 / 1e9);
            events[at] = number("events")? as u64;
            requests = registry.requests.load(Ordering::Relaxed) - asked;
        }
        memory.0.push(server.pss()? as f64 / 1024.0);
    }
    let title = format!(
        "Reading a registry of {} repositories with {} tags each, unhurried by any rate",
        SIZE.0, SIZE.1
    );
    let mut table = Table::new(title, &["reading", "seconds", "CPU seconds", "events"]);
    for (at, name) in names.into_iter().enumerate() {
        table.row([name.to_owned(), seconds[at].to_string(), cpu[at].to_string(), events[at].to_string()]);
    }
    table.print();
    println!("\n{requests} requests in the last; memory after the three {memory} MiB (PSS).");
    Ok(())
}
