//! A full disk: nothing is acknowledged until there is room again, and what was acknowledged goes out meanwhile.

use std::fs::File;
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;
use std::thread;
use std::time::{Duration, Instant};

use crate::client::{Client, Manner};
use crate::common::{TestServer, run, trigger, until};
use crate::device::{Device, Plan};
use crate::ground::{Place, assert_exactly_once, config_with, drain};

/// A small disk, unmounted on drop.
struct Disk(PathBuf);

impl Disk {
    /// Mounts one of so many MiB over a folder; `None` only if the environment says that this cannot be had here.
    fn mount(folder: &Path, size: usize) -> Option<Self> {
        if std::env::var_os("TRIGGERCAST_NO_MOUNT").is_some() {
            println!("not tested: TRIGGERCAST_NO_MOUNT is set");
            return None;
        }
        let options = format!("size={size}m,mode=0777");
        let mounted = as_root(&["mount", "-t", "tmpfs", "-o", &options, "tmpfs", &folder.to_string_lossy()]);
        assert!(
            mounted,
            "a tmpfs cannot be mounted, so a full disk cannot be tested: run as root, or with sudo without a \
             password, or set TRIGGERCAST_NO_MOUNT=1 to leave this test out"
        );
        Some(Self(folder.to_owned()))
    }

    /// Takes all the room there is.
    fn fill(&self) {
        let mut file = File::options().create(true).append(true).open(self.ballast()).unwrap();
        for size in [1 << 20, 1 << 12, 1] {
            let part = vec![7; size];
            while file.write_all(&part).is_ok() {}
        }
    }

    /// Gives a part of it back if the server has nothing: it may have given its reserve free just when the disk was
    /// filled once more.
    fn leave_the_reserve(&self) {
        let room = run(Command::new("df").args(["-B1", "--output=avail"]).arg(&self.0));
        let room: u64 = room.lines().nth(1).unwrap().trim().parse().unwrap();
        if room < 64 * 1024 {
            println!("the ballast had taken the reserve");
            let file = File::options().write(true).open(self.ballast()).unwrap();
            file.set_len(file.metadata().unwrap().len() - 4 * 1024 * 1024).unwrap();
        }
    }

    fn ballast(&self) -> PathBuf {
        self.0.join("ballast")
    }
}

impl Drop for Disk {
    fn drop(&mut self) {
        as_root(&["umount", "-l", &self.0.to_string_lossy()]);
    }
}

fn as_root(words: &[&str]) -> bool {
    let is_root =
        std::fs::metadata("/proc/self").is_ok_and(|own| std::os::unix::fs::MetadataExt::uid(&own) == 0);
    let sudo: &[&str] = if is_root { &[] } else { &["sudo", "-n"] };
    let mut all = sudo.iter().chain(words);
    Command::new(all.next().unwrap()).args(all).status().is_ok_and(|status| status.success())
}

fn goes_to(path: &str, device: u16) -> bool {
    path != "/late" || device >= 6
}

#[test]
fn a_full_disk_stops_acknowledgements_and_nothing_else() {
    let folder = tempfile::tempdir().unwrap();
    let data = folder.path().join("data");
    std::fs::create_dir(&data).unwrap();
    let Some(disk) = Disk::mount(&data, 48) else { return };
    // Two devices that have batches open for long, one for each time the disk is full.
    let late = |number| {
        let source = format!(
            "iot_message: {{ registry_id: factory, device_id: d{number}, \
             batch_settings: {{ max_count: 1000, cutoff: 8s }} }}"
        );
        trigger(&format!("late-{number}"), &source, "/late")
    };
    let config = config_with("      /late: {}\n", &[late(6), late(7)].concat());
    let server = TestServer::start_in(folder.path(), &config);
    let place = Arc::new(Place::default());
    place.is_at(&server);
    let start = |path, manner| Client::start(&place, path, manner, "").connected();
    let mut clients: Vec<Client> = [("/b", Manner::Query), ("/b", Manner::Stream), ("/late", Manner::Header)]
        .map(|(p, m)| start(p, m))
        .into();
    let plans = [(0, 1), (1, 20), (2, 100)];
    let mut devices: Vec<Device> = plans
        .map(|(device, window)| Device::at(Plan { rate: 300, ..Plan::factory(device, window) }, &place))
        .into();
    let mut stalled = Vec::new();
    for (time, late) in [(0, 6), (1, 7)] {
        let before: Vec<u32> = devices.iter().map(Device::acknowledged).collect();
        until("some load", || {
            devices[..3].iter().zip(&before).all(|(d, n)| d.acknowledged() > n + 50).then_some(())
        });
        let patient = Device::at(Plan { rate: 100, ..Plan::factory(late, 20) }, &place);
        until("the events of the open batch", || (patient.acknowledged() >= 20).then_some(()));
        patient.finish();
        devices.push(patient);
        let acknowledged = loop {
            disk.fill();
            let body = until("a journal that fails", || {
                let (status, body) = server.get("/readyz");
                (status == 503).then_some(body)
            });
            assert!(
                body.contains("\"journal\":{\"error\":") && body.contains("\"state\":\"failing\""),
                "{body}"
            );
            assert_eq!(server.get("/healthz").0, 200);
            // Time passes in which the server tries again. It may find room in its own files once; that is taken too.
            let failed = Instant::now();
            let mut acknowledged: Vec<u32> = Vec::new();
            while failed.elapsed() < Duration::from_millis(2500) && server.get("/readyz").0 == 503 {
                if failed.elapsed() > Duration::from_millis(500) && acknowledged.is_empty() {
                    acknowledged = devices.iter().map(Device::acknowledged).collect();
                }
                thread::sleep(Duration::from_millis(20));
            }
            if failed.elapsed() >= Duration::from_millis(2500) {
                break acknowledged;
            }
        };
        disk.leave_the_reserve();
        let is_open = |client: &&Client| {
            client.path == "/late" && !client.seen().iter().any(|seen| seen.device == late)
        };
        assert_eq!(clients.iter().filter(is_open).count(), 1, "the batch was to be open until now");
        // What was acknowledged before goes out, also the batch that was open; and who comes now gets it too.
        let fresh = Client::start(&place, "/b", Manner::Query, "since=1h").connected();
        clients.push(fresh);
        for client in &clients {
            let is_there = |device: u16, count: u32| {
                count == 0
                    || !goes_to(&client.path, device)
                    || client.seen().iter().any(|seen| (seen.device, seen.seq) == (device, count - 1))
            };
            until(&format!("what was acknowledged, at {client:?}"), || {
                let numbers = [0, 1, 2, 6, 7];
                let all = numbers.iter().zip(&acknowledged).all(|(device, count)| is_there(*device, *count));
                all.then_some(())
            });
        }
        assert_eq!(server.get("/readyz").0, 503);
        let now: Vec<u32> = devices.iter().map(Device::acknowledged).collect();
        assert_eq!(now, acknowledged, "acknowledged while nothing could be written");
        stalled.push(now.iter().sum::<u32>());
        std::fs::remove_file(disk.ballast()).unwrap();
        until("readiness", || (server.get("/readyz").0 == 200).then_some(()));
        until("acknowledgements", || {
            devices[..3].iter().zip(&now).all(|(d, n)| d.acknowledged() > *n).then_some(())
        });
        println!(
            "full for the {}. time with {} events acknowledged; it went on",
            time + 1,
            now.iter().sum::<u32>()
        );
    }
    let sent = drain(devices, &clients, goes_to);
    let mut whole = Vec::new();
    for client in clients {
        let (what, path) = (format!("{client:?}"), client.path.clone());
        let seen = client.stop();
        let of_path = sent.iter().filter(|(device, _)| goes_to(&path, **device));
        assert_exactly_once(&what, &seen, &of_path.map(|(device, count)| (*device, *count)).collect());
        if path == "/b" {
            whole.push(seen);
        }
    }
    assert!(whole.windows(2).all(|pair| pair[0] == pair[1]), "clients saw different orders");
    let said = server.log("the journal ").join("\n");
    let failures = said.matches("cannot be written").count();
    assert!(failures >= 2 && said.matches("is written again").count() == failures, "{said}");
    println!("{} events, acknowledged when it was full: {stalled:?}", sent.values().sum::<u32>());
    assert!(server.stop().success());
}

#[test]
fn a_disk_that_the_log_fills_is_used_again() {
    let folder = tempfile::tempdir().unwrap();
    let data = folder.path().join("data");
    std::fs::create_dir(&data).unwrap();
    // The log alone may have 16 MiB, and 8 MiB are set aside: it fills the disk before it is moved into the tables.
    let Some(_disk) = Disk::mount(&data, 24) else { return };
    let server = TestServer::start_in(folder.path(), &config_with("", ""));
    let place = Arc::new(Place::default());
    place.is_at(&server);
    let client = [Client::start(&place, "/b", Manner::Query, "").connected()];
    // One publish at a time, so that there are many commits with little in each.
    let device = Device::at(Plan { rate: 5000, ..Plan::factory(0, 1) }, &place);
    let has_failed = || !server.get("/metrics").1.contains("triggercast_journal_failures_total 0\n");
    until("a full disk", || has_failed().then_some(()));
    for _ in 0..2 {
        let before = device.acknowledged();
        until("more acknowledgements", || (device.acknowledged() > before + 300).then_some(()));
    }
    let sent = drain(vec![device], &client, goes_to);
    let [client] = client;
    assert_exactly_once("the client", &client.stop(), &sent);
    println!("{} events on a disk that the log fills", sent[&0]);
    assert!(server.stop().success());
}

#[test]
fn a_start_on_a_full_disk_uses_what_was_set_aside() {
    let folder = tempfile::tempdir().unwrap();
    let data = folder.path().join("data");
    std::fs::create_dir(&data).unwrap();
    let Some(disk) = Disk::mount(&data, 24) else { return };
    let config = config_with("", "");
    let place = Arc::new(Place::default());
    let server = TestServer::start_in(folder.path(), &config);
    place.is_at(&server);
    let client = [Client::start(&place, "/b", Manner::Query, "").connected()];
    let device = Device::at(Plan { rate: 300, ..Plan::factory(0, 20) }, &place);
    until("some acknowledgements", || (device.acknowledged() > 100).then_some(()));
    assert!(server.stop().success());
    disk.fill();
    let server = TestServer::start_in(folder.path(), &config);
    place.is_at(&server);
    let before = device.acknowledged();
    until("more acknowledgements", || (device.acknowledged() > before + 100).then_some(()));
    assert!(!data.join("journal.reserve").exists() && !data.join("journal.probe").exists());
    assert_eq!(server.get("/readyz").0, 200);
    let sent = drain(vec![device], &client, goes_to);
    let [client] = client;
    assert_exactly_once("the client", &client.stop(), &sent);
    assert!(server.stop().success());
}
