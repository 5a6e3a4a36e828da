//! Events of a Mosquitto: the server is killed and comes back, the broker stops and comes back.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::thread;
use std::time::Duration;

use rand::Rng as _;

use crate::client::{Client, Manner, Seen};
use crate::common::{BEGINNING, TestServer, trigger, until};
use crate::device::{Device, Plan};
use crate::ground::{Place, assert_exactly_once, chance, drain};
use crate::mosquitto::Mosquitto;

fn config(mosquitto: &Mosquitto) -> String {
    let source = "iot_broker_message: { broker_id: plant, batch_settings: { max_count: 7, cutoff: 200ms } }";
    format!(
        r#"{BEGINNING}gateways:
  - {{ id: main, paths: {{ /a: {{}} }} }}
iot:
  brokers:
    - {{ id: plant, url: "mqtt://{}" }}
triggers:
{}"#,
        mosquitto.address(),
        trigger("plant", source, "/a")
    )
}

/// Kills the server, and with `restarts` stops the broker, at random moments under load. Gives what each of two
/// clients saw, and what the broker has acknowledged.
fn run(rounds: usize, restarts: bool) -> (Vec<Vec<Seen>>, BTreeMap<u16, u32>) {
    let mut chance = chance();
    // It must not drop what a subscriber is too slow for, and keep everything over a stop.
    let mut mosquitto = Mosquitto::start("max_queued_messages 0\npersistence true\nautosave_interval 100000");
    let (folder, config) = (tempfile::tempdir().unwrap(), config(&mosquitto));
    let place = Arc::new(Place::default());
    let mut server = TestServer::start_in(folder.path(), &config);
    place.is_at(&server);
    let is_ready = |server: &TestServer| {
        until("readiness", || (server.get("/readyz").0 == 200).then_some(()));
    };
    // The broker keeps messages for us from the first subscription on.
    is_ready(&server);
    let clients: Vec<Client> = [Manner::Query, Manner::Stream]
        .map(|manner| Client::start(&place, "/a", manner, "").connected())
        .into();
    let address = mosquitto.address();
    let devices: Vec<Device> = [(0, 1), (1, 20), (2, 100)]
        .map(|(device, window)| Plan { login: None, rate: 700, ..Plan::plant(device, window) })
        .map(|plan| Device::start(plan, move || Some(address)))
        .into();
    for round in 0..rounds {
        thread::sleep(Duration::from_millis(chance.random_range(50..500)));
        clients.iter().for_each(Client::check);
        if restarts && round % 2 == 0 {
            mosquitto.end("TERM");
            mosquitto.run();
            continue;
        }
        drop(server);
        place.is_lost();
        server = TestServer::start_in(folder.path(), &config);
        place.is_at(&server);
        if round % 3 != 2 {
            is_ready(&server);
        }
    }
    let sent = drain(devices, &clients, |_, _| true);
    (clients.into_iter().map(Client::stop).collect(), sent)
}

#[test]
fn kill_9_with_an_external_broker_loses_nothing_and_doubles_nothing() {
    const ROUNDS: usize = 10;
    let (seen, sent) = run(ROUNDS, false);
    assert_exactly_once("the first client", &seen[0], &sent);
    assert!(seen[0] == seen[1], "clients saw different orders");
    println!("{ROUNDS} rounds of kill -9 with Mosquitto, {} events", seen[0].len());
}

#[test]
fn restarts_of_an_external_broker_lose_nothing() {
    const ROUNDS: usize = 8;
    let (seen, sent) = run(ROUNDS, true);
    let both = seen[0].len().min(seen[1].len());
    assert!(seen[0][..both] == seen[1][..both], "clients saw different orders");
    // A publisher repeats to a broker that has stopped what it took without acknowledging; Mosquitto does not know
    // it again, and gives it to us as another message.
    let mut counts: BTreeMap<(u16, u32), usize> = BTreeMap::new();
    for event in &seen[0] {
        *counts.entry((event.device, event.seq)).or_default() += 1;
    }
    for (device, count) in &sent {
        for seq in 0..*count {
            assert!(counts.contains_key(&(*device, seq)), "d{device} {seq} was acknowledged and is lost");
        }
    }
    let published: u32 = sent.values().sum();
    assert_eq!(counts.len(), published as usize, "something unknown came");
    println!(
        "{ROUNDS} restarts of Mosquitto and of the server in turn, {published} events, {} came twice",
        seen[0].len() - counts.len()
    );
}
