//! A log of SQLite that ends in the middle: the server starts, and the path is what it was up to some event.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;

use rand::Rng as _;

use crate::client::{Client, Manner, Seen};
use crate::common::{TestServer, until};
use crate::device::{Device, Plan};
use crate::ground::{Place, chance, config};

const LOG: &str = "journal.db-wal";

fn size(file: &Path) -> usize {
    std::fs::metadata(file).map_or(0, |file| file.len() as usize)
}

/// Copies the folder of a server that is dead.
fn copy(from: &Path, to: &Path) {
    std::fs::create_dir_all(to).unwrap();
    for entry in std::fs::read_dir(from).unwrap() {
        let entry = entry.unwrap();
        if entry.file_type().unwrap().is_dir() {
            copy(&entry.path(), &to.join(entry.file_name()));
        } else {
            std::fs::copy(entry.path(), to.join(entry.file_name())).unwrap();
        }
    }
}

/// Starts a server in the folder and lets a device publish. Gives what clients of the paths `/a` and `/b` see from
/// the beginning to a stop, without the events of that device, which must come to its end.
fn read_all(folder: &Path) -> [Vec<Seen>; 2] {
    const NEW: u16 = 7;
    let mut server = TestServer::start_in(folder, &config());
    let place = Arc::new(Place::default());
    place.is_at(&server);
    let clients = ["/a", "/b"].map(|path| Client::start(&place, path, Manner::Query, "since=1h").connected());
    let device = Device::at(Plan { rate: 500, ..Plan::factory(NEW, 20) }, &place);
    until("new events", || (device.acknowledged() > 20).then_some(()));
    device.finish();
    let (_, count) = device.join();
    for client in &clients {
        let is_last = |seen: &Seen| (seen.device, seen.seq) == (NEW, count - 1);
        until("the last new event", || client.seen().iter().any(is_last).then_some(()));
    }
    // A stop sends what batches are open; the clients have it all when they are closed.
    server.signal("TERM");
    place.is_lost();
    assert!(server.wait().success());
    clients.map(|client| {
        until("the close", || (!client.closes().is_empty()).then_some(()));
        let path = client.path.clone();
        let (new, old): (Vec<_>, Vec<_>) = client.stop().into_iter().partition(|seen| seen.device == NEW);
        let numbers: Vec<u32> = new.iter().map(|seen| seen.seq).collect();
        assert_eq!(numbers, (0..count).collect::<Vec<_>>(), "new events on {path}");
        old
    })
}

/// The numbers of each device, which must be those from 0 on.
fn counts(what: &str, seen: &[Seen]) -> BTreeMap<u16, u32> {
    let mut counts = BTreeMap::new();
    for event in seen {
        let next: &mut u32 = counts.entry(event.device).or_default();
        assert_eq!(event.seq, *next, "{what}: {event:?}");
        *next += 1;
    }
    counts
}

#[test]
fn a_log_with_a_torn_tail_is_read_up_to_the_tear() {
    let mut chance = chance();
    let folder = tempfile::tempdir().unwrap();
    let data = folder.path().join("data");
    let place = Arc::new(Place::default());
    let server = TestServer::start_in(folder.path(), &config());
    place.is_at(&server);
    let plans = [
        Plan::factory(0, 1),
        Plan { padding: 2000, ..Plan::factory(1, 20) },
        Plan::factory(2, 100),
        Plan::plant(12, 100),
    ];
    let devices = plans.map(|plan| Device::at(plan, &place));
    // First some that is in the tables when the log begins, as after a stop.
    until("some load", || devices.iter().all(|device| device.acknowledged() > 200).then_some(()));
    place.is_lost();
    assert!(server.stop().success());
    assert_eq!(size(&data.join(LOG)), 0, "a stop leaves no log");
    let first: Vec<u32> = devices.iter().map(Device::acknowledged).collect();
    let server = TestServer::start_in(folder.path(), &config());
    place.is_at(&server);
    until("a long log", || (size(&data.join(LOG)) > 3 << 20).then_some(()));
    drop(server);
    place.is_lost();
    let acknowledged: BTreeMap<u16, u32> = devices.into_iter().map(Device::abandon).collect();
    let log = std::fs::read(data.join(LOG)).unwrap();
    // From 16 MiB on it would be written from its beginning again, and a tear would be no tear of its tail.
    assert!(log.len() < 15 << 20, "the log has {} bytes", log.len());

    let attempt = |damage: &dyn Fn(&Path)| {
        let folder = tempfile::tempdir().unwrap();
        copy(&data, &folder.path().join("data"));
        damage(&folder.path().join("data"));
        read_all(folder.path())
    };
    let [whole_a, whole_b] = attempt(&|_| {});
    let (in_a, in_b) = (counts("/a", &whole_a), counts("/b", &whole_b));
    for (device, count) in &acknowledged {
        assert!(in_a[device] >= *count, "d{device} on /a: {} of {count}", in_a[device]);
        assert!(*device >= 10 || in_b[device] >= *count, "d{device} on /b: {} of {count}", in_b[device]);
    }

    let length = log.len();
    let mut cuts: Vec<usize> = vec![0, 10, 32, length / 2, length - 16 * 1024, length - 1];
    cuts.extend((0..6).map(|_| chance.random_range(0..length)));
    let mut left = Vec::new();
    for (number, cut) in cuts.iter().enumerate() {
        let is_flip = number >= 9;
        // Sometimes the index of the log has gone too, as after a loss of power.
        let has_index = number % 2 == 0;
        let what = format!("{} at {cut} of {length}", if is_flip { "changed bytes" } else { "a cut" });
        let [a, b] = attempt(&|data: &Path| {
            let mut torn = log.clone();
            if is_flip {
                for byte in torn[*cut..].iter_mut().step_by(4099) {
                    *byte ^= 0x55;
                }
            } else {
                torn.truncate(*cut);
            }
            std::fs::write(data.join(LOG), torn).unwrap();
            if !has_index {
                std::fs::remove_file(data.join("journal.db-shm")).unwrap();
            }
        });
        let (count_a, count_b) = (counts(&what, &a), counts(&what, &b));
        // One source feeds `/b`, so its order is given.
        assert!(whole_b.starts_with(&b), "{what}: /b is no beginning of what it was");
        // Of `/a` what had no place before the tear gets a new one, so its sources may meet otherwise.
        let id = |seen: &Seen| seen.id;
        let known: std::collections::HashSet<_> = whole_a.iter().map(id).collect();
        assert!(a.iter().all(|seen| known.contains(&seen.id)), "{what}: unknown ids on /a");
        let same = a.iter().zip(&whole_a).take_while(|(one, other)| one == other).count();
        for (device, count) in &count_b {
            assert_eq!(count_a.get(device), Some(count), "{what}: d{device}, of one source on two paths");
        }
        for (at, device) in [0u16, 1, 2].iter().enumerate() {
            let has = count_b.get(device).copied().unwrap_or(0);
            assert!(
                has >= first[at],
                "{what}: d{device} lost what was in the tables: {has} of {}",
                first[at]
            );
        }
        left.push((b.len(), a.len(), same));
    }
    println!(
        "{} damages of a log of {length} bytes; /b had {}, /a {} events; after damage on /b, on /a, and of those \
         in the same place: {left:?}",
        cuts.len(),
        whole_b.len(),
        whole_a.len()
    );
    assert!(left.iter().any(|(b, ..)| *b < whole_b.len()), "no damage did any");
    // The first damage left nothing but the tables.
    let (_, in_tables, _) = left[0];
    assert!(left.iter().all(|(_, _, same)| *same >= in_tables), "/a kept no order: {left:?}");
}
