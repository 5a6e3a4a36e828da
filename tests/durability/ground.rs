//! The ground of a test: where the server is now, a folder that stays, chance that can be repeated, the last check.

use std::collections::{BTreeMap, HashMap};
use std::net::SocketAddr;
use std::sync::Mutex;
use std::thread;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use rand::SeedableRng;
use rand::rngs::StdRng;

use crate::client::{Client, Seen};
use crate::common::TestServer;
use crate::device::Device;

/// How long whoever has lost the server waits before asking where it is.
pub const NAP: Duration = Duration::from_millis(3);

/// Where the server can be reached now. Its ports are others after each start.
#[derive(Debug, Default)]
pub struct Place(Mutex<Option<(SocketAddr, SocketAddr)>>);

impl Place {
    /// The server has started.
    pub fn is_at(&self, server: &TestServer) {
        *self.0.lock().unwrap() = Some((server.gateway, server.mqtt.unwrap()));
    }

    /// It is going away.
    pub fn is_lost(&self) {
        *self.0.lock().unwrap() = None;
    }

    pub fn gateway(&self) -> Option<SocketAddr> {
        self.0.lock().unwrap().map(|(gateway, _)| gateway)
    }

    pub fn mqtt(&self) -> Option<SocketAddr> {
        self.0.lock().unwrap().map(|(_, mqtt)| mqtt)
    }
}

/// Chance, the same again with TRIGGERCAST_SEED. The seed is printed; cargo shows it when the test fails.
pub fn chance() -> StdRng {
    let now = || SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_millis() as u64;
    let seed = std::env::var("TRIGGERCAST_SEED").map_or_else(|_| now(), |seed| seed.parse().unwrap());
    println!("to repeat this run: TRIGGERCAST_SEED={seed}");
    StdRng::seed_from_u64(seed)
}

/// A configuration with two sources and three triggers: the devices of the registry `factory` go to `/a` by sevens
/// and to `/b` one by one, those of the broker `plant` to `/a` by hundreds.
pub fn config() -> String {
    config_with("", "")
}

/// The same with further lines of paths and of triggers.
pub fn config_with(paths: &str, triggers: &str) -> String {
    let devices: String =
        (0..8).map(|n| format!("        - {{ id: d{n}, password: \"Device-password-{n}\" }}\n")).collect();
    let sevens = "iot_message: { registry_id: factory, batch_settings: { max_count: 7, cutoff: 200ms } }";
    let ones = "iot_message: { registry_id: factory, batch_settings: { max_count: 1, cutoff: 1s } }";
    let hundreds =
        "iot_broker_message: { broker_id: plant, batch_settings: { max_count: 100, cutoff: 500ms } }";
    use crate::common::{BEGINNING, trigger};
    let (sevens, ones, hundreds) =
        (trigger("sevens", sevens, "/a"), trigger("ones", ones, "/b"), trigger("hundreds", hundreds, "/a"));
    format!(
        r#"{BEGINNING}gateways:
  - id: main
    paths:
      /a: {{}}
      /b: {{}}
{paths}iot:
  registries:
    - id: factory
      devices:
{devices}  brokers:
    - {{ id: plant, password: "Plant-password" }}
triggers:
{sevens}{ones}{hundreds}{triggers}"#
    )
}

/// Waits for something as long as nobody has failed meanwhile.
pub fn until(what: &str, limit: Duration, clients: &[Client], mut is_so: impl FnMut() -> bool) {
    let start = Instant::now();
    while !is_so() {
        for client in clients {
            client.check();
        }
        assert!(start.elapsed() < limit, "{what} did not come");
        thread::sleep(Duration::from_millis(5));
    }
}

/// Lets the devices get everything acknowledged, and their clients get it; gives how many each has published.
pub fn drain(devices: Vec<Device>, clients: &[Client], to: impl Fn(&str, u16) -> bool) -> BTreeMap<u16, u32> {
    let limit = Duration::from_secs(30);
    devices.iter().for_each(Device::finish);
    until("the last acknowledgement", limit, clients, || devices.iter().all(Device::is_done));
    let sent: BTreeMap<u16, u32> = devices.into_iter().map(Device::join).collect();
    for client in clients {
        let last: HashMap<u16, u32> = sent
            .iter()
            .filter(|(device, count)| **count > 0 && to(&client.path, **device))
            .map(|(device, count)| (*device, count - 1))
            .collect();
        let has_last = || {
            let seen = client.seen();
            last.iter().all(|(device, seq)| seen.iter().any(|s| (s.device, s.seq) == (*device, *seq)))
        };
        until(&format!("the last event of {client:?}"), limit, clients, has_last);
    }
    sent
}

/// Each event once, nothing else, each device in its order.
pub fn assert_exactly_once(what: &str, seen: &[Seen], sent: &BTreeMap<u16, u32>) {
    let mut next: BTreeMap<u16, u32> = sent.keys().map(|device| (*device, 0)).collect();
    for (at, event) in seen.iter().enumerate() {
        let expected = next.get_mut(&event.device).unwrap_or_else(|| {
            panic!("{what}: {event:?} at {at} is of a device that published nothing there")
        });
        // Whether an event stands twice on the path or a publish became two events, and what surrounds it.
        let others = || {
            seen.iter()
                .enumerate()
                .filter(|(_, other)| (other.device, other.seq) == (event.device, event.seq))
        };
        assert!(
            event.seq == *expected,
            "{what}: {event:?} at {at} of {}, expected was {expected}; all of this number: {:?}; around it: {:?}",
            seen.len(),
            others().collect::<Vec<_>>(),
            &seen[at.saturating_sub(3)..seen.len().min(at + 30)]
        );
        *expected += 1;
    }
    assert_eq!(&next, sent, "{what}: not everything came");
}
