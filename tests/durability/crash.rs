//! kill -9 and graceful stops under load: nothing acknowledged is lost, nothing comes twice, order stays.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::thread;
use std::time::{Duration, Instant, SystemTime};

use rand::Rng as _;

use crate::client::{Client, Manner, Seen};
use crate::common::{TestServer, program, until};
use crate::device::{Device, Plan};
use crate::ground::{Place, assert_exactly_once, chance, config, drain};

/// Whether the events of this device go to this path: those of the broker `plant` have numbers from 10.
fn goes_to(path: &str, device: u16) -> bool {
    device < 10 || path == "/a"
}

/// Two clients of each path from the first event on.
fn first_clients(place: &Arc<Place>) -> Vec<Client> {
    let start = |path, manner| Client::start(place, path, manner, "").connected();
    let of = |path| [start(path, Manner::Query), start(path, Manner::Stream)];
    ["/a", "/b"].into_iter().flat_map(of).collect()
}

/// Devices with windows of 1, 20 and 100 at both sources.
fn devices(place: &Arc<Place>) -> Vec<Device> {
    let plans = [
        Plan::factory(0, 1),
        Plan::factory(1, 20),
        Plan { identifiers: 65_535, rate: 1500, ..Plan::factory(2, 100) },
        Plan { identifiers: 150, padding: 600, ..Plan::factory(3, 100) },
        Plan { identifiers: 7, ..Plan::plant(10, 1) },
        Plan { identifiers: 21, ..Plan::plant(11, 20) },
        Plan { identifiers: 100, ..Plan::plant(12, 100) },
    ];
    plans.map(|plan| Device::at(plan, place)).into()
}

/// Each client saw what the first one of its path saw, from its own start on; and that was each event once.
fn check(clients: Vec<Client>, sent: &BTreeMap<u16, u32>) -> usize {
    let mut paths: BTreeMap<String, Vec<Seen>> = BTreeMap::new();
    let mut checked = 0;
    for client in clients {
        let (what, path, query) = (format!("{client:?}"), client.path.clone(), client.query.clone());
        let seen = client.stop();
        checked += seen.len();
        let Some(whole) = paths.get(&path) else {
            let of_path = |device: &u16| goes_to(&path, *device);
            let sent = sent.iter().filter(|(device, _)| of_path(device)).map(|(d, n)| (*d, *n)).collect();
            assert_exactly_once(&what, &seen, &sent);
            paths.insert(path, seen);
            continue;
        };
        let start = whole.len().checked_sub(seen.len()).unwrap_or_else(|| panic!("{what} saw too much"));
        let differs = seen.iter().zip(&whole[start..]).position(|(one, other)| one != other);
        assert_eq!(differs, None, "{what}: place {start} of {} in the path's order", whole.len());
        if let Some(after) = query.strip_prefix("last_event_id=") {
            assert_eq!(whole[start - 1].id.to_string(), after, "{what}: a gap after its start");
        } else if query.is_empty() || query == "since=1h" {
            assert_eq!(start, 0, "{what} missed the beginning");
        } else if let Some(time) = query.strip_prefix("since=") {
            // An event is broadcast after it came.
            let time: jiff::Timestamp = time.parse().unwrap();
            let came = |event: &Seen| triggercast::model::event_id::time(event.id).unwrap();
            let missed = whole[..start].iter().find(|event| came(event) > SystemTime::from(time));
            assert_eq!(missed, None, "{what} missed what came after its start");
        }
    }
    checked
}

#[test]
fn kill_9_under_load_loses_nothing_and_doubles_nothing() {
    const ROUNDS: usize = 24;
    let mut chance = chance();
    let folder = tempfile::tempdir().unwrap();
    let config = config();
    let began = Instant::now();
    let place = Arc::new(Place::default());
    let mut server = TestServer::start_in(folder.path(), &config);
    place.is_at(&server);
    let mut clients = first_clients(&place);
    let devices = devices(&place);
    let mut killed_early = 0;
    for round in 0..ROUNDS {
        // The moment is a random one, so this waits for nothing.
        thread::sleep(Duration::from_millis(chance.random_range(20..700)));
        clients.iter().for_each(Client::check);
        drop(server);
        place.is_lost();
        // Some starts do not come to their end.
        while chance.random_ratio(1, 3) {
            let mut child = program(folder.path(), &config).spawn().unwrap();
            thread::sleep(Duration::from_millis(chance.random_range(0..40)));
            child.kill().unwrap();
            child.wait().unwrap();
            killed_early += 1;
        }
        server = TestServer::start_in(folder.path(), &config);
        place.is_at(&server);
        let path = if chance.random() { "/a" } else { "/b" };
        let manner = [Manner::Query, Manner::Header, Manner::Stream][chance.random_range(0..3)];
        let whole = clients.iter().find(|client| client.path == path).unwrap();
        let query = match round {
            3 | 13 => "since=1h".to_owned(),
            7 | 17 => format!("since={}", jiff::Timestamp::now()),
            5 | 10 | 15 | 20 => {
                let seen = whole.seen();
                format!("last_event_id={}", seen[chance.random_range(0..seen.len())].id)
            }
            _ => continue,
        };
        clients.push(Client::start(&place, path, manner, &query));
    }
    let repeated: u32 = devices.iter().map(Device::repeated).sum();
    let sent = drain(devices, &clients, goes_to);
    let checked = check(clients, &sent);
    let events: u32 = sent.values().sum();
    println!(
        "{ROUNDS} rounds of kill -9, {killed_early} more of them while starting; {events} events acknowledged, \
         {repeated} publishes repeated, {checked} events seen by clients; {:?}",
        began.elapsed()
    );
    assert!(events > 10_000 && repeated > 100, "{events} events are no load");
    let (_, ready) = server.get("/readyz");
    assert!(ready.contains("\"journal\":{\"state\":\"writing\"}"), "{ready}");
}

#[test]
fn graceful_stops_under_load_lose_nothing_and_double_nothing() {
    const ROUNDS: usize = 6;
    let mut chance = chance();
    let folder = tempfile::tempdir().unwrap();
    let config = config();
    let place = Arc::new(Place::default());
    let mut server = TestServer::start_in(folder.path(), &config);
    place.is_at(&server);
    let mut clients = first_clients(&place);
    let devices = devices(&place);
    for _ in 0..ROUNDS {
        thread::sleep(Duration::from_millis(chance.random_range(100..600)));
        clients.iter().for_each(Client::check);
        server.signal("TERM");
        place.is_lost();
        let status = server.wait();
        assert!(status.success(), "{status}: {:?}", server.log(""));
        server = TestServer::start_in(folder.path(), &config);
        place.is_at(&server);
        let path = if chance.random() { "/a" } else { "/b" };
        clients.push(Client::start(&place, path, Manner::Header, "since=1h"));
    }
    let closes: Vec<u16> = clients.iter().flat_map(Client::closes).collect();
    assert!(!closes.is_empty() && closes.iter().all(|code| *code == 1012), "{closes:?}");
    let sent = drain(devices, &clients, goes_to);
    let checked = check(clients, &sent);
    let events: u32 = sent.values().sum();
    println!("{ROUNDS} graceful stops; {events} events acknowledged, {checked} seen by clients");
    assert!(events > 2_000, "{events} events are no load");
}

#[test]
fn a_second_server_on_the_same_data_is_refused() {
    let folder = tempfile::tempdir().unwrap();
    let config = config();
    let first = TestServer::start_in(folder.path(), &config);
    for _ in 0..2 {
        let output = program(folder.path(), &config).output().unwrap();
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        assert_eq!(output.status.code(), Some(1), "{said}");
        assert!(said.contains("data_dir") && said.contains("data is in use by another process"), "{said}");
    }
    // The first one goes on, and what it holds is free when it is killed.
    let place = Arc::new(Place::default());
    place.is_at(&first);
    let client = [Client::start(&place, "/b", Manner::Query, "").connected()];
    let sent = {
        let device = Device::at(Plan::factory(0, 20), &place);
        until("some events", || (device.acknowledged() > 50).then_some(()));
        drain(vec![device], &client, goes_to)
    };
    drop(first);
    place.is_lost();
    let second = TestServer::start_in(folder.path(), &config);
    place.is_at(&second);
    let late = Client::start(&place, "/b", Manner::Query, "since=1h").connected();
    until("the events", || (late.seen().len() >= sent[&0] as usize).then_some(()));
    check(client.into_iter().chain([late]).collect(), &sent);
}
