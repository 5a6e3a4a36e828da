//! A clock that steps between starts: ids stay in order, and clients resume over the steps.

use std::process::Command;
use std::sync::Arc;

use crate::client::{Client, Manner};
use crate::common::{TestServer, program, run, until};
use crate::device::{Device, Plan};
use crate::ground::{Place, assert_exactly_once, config, drain};

#[test]
fn ids_stay_in_order_when_the_clock_is_set_back() {
    // The library itself: the program would be a parent of the server that dies in its place.
    let library = run(Command::new("faketime").args(["-m", "-f", "+0", "printenv", "LD_PRELOAD"]));
    let folder = tempfile::tempdir().unwrap();
    let place = Arc::new(Place::default());
    let start = |minutes: i64| {
        let offset = format!("{minutes:+}m");
        let mut command = program(folder.path(), &config());
        command.env("LD_PRELOAD", library.trim()).env("FAKETIME", &offset);
        // Only the time of day is set, as an operator does it.
        command.env("FAKETIME_DONT_FAKE_MONOTONIC", "1").env("DONT_FAKE_MONOTONIC", "1");
        let server = TestServer::start_by(&mut command);
        // It believes it.
        let line = until("a line of the log", || server.log("timestamp").pop());
        let line: serde_json::Value = serde_json::from_str(&line).unwrap();
        let said: jiff::Timestamp = line["timestamp"].as_str().unwrap().parse().unwrap();
        let off = (said.as_second() - jiff::Timestamp::now().as_second()) / 60 - minutes;
        assert!(off.abs() <= 1, "the server's clock is {said}");
        place.is_at(&server);
        server
    };
    let mut server = start(0);
    let mut clients = vec![
        Client::start(&place, "/b", Manner::Query, "").connected(),
        Client::start(&place, "/b", Manner::Stream, "").connected(),
    ];
    let devices: Vec<Device> = [(0, 1), (1, 20), (2, 100)]
        .map(|(device, window)| Device::at(Plan { rate: 500, ..Plan::factory(device, window) }, &place))
        .into();
    const STEPS: [i64; 5] = [-60, 0, 60, -120, 30];
    for (number, minutes) in STEPS.into_iter().enumerate() {
        let before: Vec<u32> = devices.iter().map(Device::acknowledged).collect();
        until("some load", || {
            let has_more = |(device, before): (&Device, &u32)| device.acknowledged() > before + 100;
            devices.iter().zip(&before).all(has_more).then_some(())
        });
        if number % 2 == 0 {
            drop(server);
        } else {
            server.signal("TERM");
            assert!(server.wait().success());
        }
        place.is_lost();
        server = start(minutes);
        // A client of before the step, one that asks for a time, and one that comes from the middle.
        let middle = {
            let seen = clients[0].seen();
            seen[seen.len() / 2].id
        };
        clients.push(Client::start(&place, "/b", Manner::Query, "since=24h"));
        clients.push(Client::start(&place, "/b", Manner::Header, &format!("last_event_id={middle}")));
    }
    let sent = drain(devices, &clients, |_, _| true);
    let mut clients = clients.into_iter();
    let whole = clients.next().unwrap().stop();
    assert_exactly_once("the first client", &whole, &sent);
    // Ids are given before events of several connections meet in their source, so neighbours may be swapped; those
    // of one device may not, and none stands far from where it belongs.
    let mut newest = [None; 3];
    let mut highest = std::time::UNIX_EPOCH;
    for event in &whole {
        let before = newest[usize::from(event.device)].replace(event.id);
        assert!(before < Some(event.id), "d{}: {} after {before:?}", event.device, event.id);
        let time = triggercast::model::event_id::time(event.id).unwrap();
        highest = highest.max(time);
        assert!(highest.duration_since(time).unwrap().as_secs() < 5, "{event:?} is far behind {highest:?}");
    }
    for client in clients {
        let (what, query) = (format!("{client:?}"), client.query.clone());
        let seen = client.stop();
        assert!(whole.ends_with(&seen), "{what} saw another order");
        let missed = whole.len() - seen.len();
        match query.strip_prefix("last_event_id=") {
            Some(after) => assert_eq!(whole[missed - 1].id.to_string(), after, "{what}"),
            None => assert_eq!(missed, 0, "{what}"),
        }
    }
    println!("{} events over {} steps of the clock", whole.len(), STEPS.len());
}
