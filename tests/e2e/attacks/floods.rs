//! Clients that send much, or much of nothing.

use std::io::Write as _;
use std::net::TcpStream;
use std::thread;
use std::time::{Duration, Instant};

use triggercast::identity::secret::hash_password;

use super::{grown, server, still_serves, telemetry};
use crate::common::{LIMIT, Socket, TestServer, header, until};

#[test]
fn a_flood_of_pings_is_ended_and_not_kept() {
    let server = server();
    let mut client = server.websocket("/ws");
    let before = server.resident_kib();
    let ping = [&header(0x89, 125)[..], &[0; 4], &[b'p'; 125]].concat();
    // One who reads the answers, and some who do not.
    let mut reader = server.websocket("/ws");
    for _ in 0..1100 {
        if reader.io.write_all(&ping).is_err() {
            break;
        }
    }
    assert_eq!(reader.close_code(), 1008);
    let mut deaf: Vec<_> = (0..10).map(|_| server.websocket("/ws")).collect();
    let flood = ping.repeat(1000);
    for socket in &mut deaf {
        // What comes after the violation is thrown away for some seconds, and then the connection is reset.
        let start = Instant::now();
        while socket.io.write_all(&flood).is_ok() {
            assert!(start.elapsed() < LIMIT, "the flood is taken in without end");
        }
    }
    assert!(grown(&server, before) < 16 * 1024, "{} KiB", grown(&server, before));
    still_serves(&server, &mut client, LIMIT);
}

#[test]
fn messages_that_never_end_are_bounded_in_number_and_size() {
    let server = server();
    let mut client = server.websocket("/ws");
    let before = server.resident_kib();
    let mut socket = server.websocket("/ws");
    socket.send(0x01, b"");
    for _ in 0..2000 {
        if socket.io.write_all(&[&header(0x00, 0)[..], &[0; 4]].concat()).is_err() {
            break;
        }
    }
    assert!([1008, 1009].contains(&socket.close_code()));
    // Each may hold one message that is not whole, and no more.
    let mut begun: Vec<_> = (0..100).map(|_| server.websocket("/ws")).collect();
    for socket in &mut begun {
        socket.send(0x02, &[7; 32_768]);
        socket.send(0x00, &[7; 32_768]);
        socket.send(0x00, &[7; 32_768]);
        socket.io.write_all(&header(0x80, 32_768)).unwrap();
        socket.io.write_all(&[0; 1000]).unwrap();
    }
    still_serves(&server, &mut client, LIMIT);
    assert!(grown(&server, before) < 100 * 192 + 16 * 1024, "{} KiB", grown(&server, before));
    // The third fragment more is over the limit, by its header alone.
    let mut last = server.websocket("/ws");
    for first in [0x02, 0x00, 0x00, 0x00] {
        last.send(first, &[7; 32_768]);
    }
    last.io.write_all(&header(0x80, 1)).unwrap();
    assert_eq!(last.close_code(), 1009);
}

/// A CONNECT of MQTT 3.1.1.
fn connect(user: &str, password: &str) -> Vec<u8> {
    let text = |text: &str| [&(text.len() as u16).to_be_bytes()[..], text.as_bytes()].concat();
    let body = [&b"\0\x04MQTT\x04\xc2\0\x3c"[..], &text("c"), &text(user), &text(password)].concat();
    [&[0x10, body.len() as u8][..], &body].concat()
}

/// Each check of a password takes 19 MiB and much of a core. Those who try wait for their turn; nobody else does.
#[test]
fn logins_with_hashed_passwords_take_neither_memory_nor_time_from_others() {
    const TRIES: usize = 200;
    let hash = hash_password("Press-2-demo-1").unwrap();
    let server = TestServer::start(&telemetry().replace("\"Press-2-demo-1\"", &format!("\"{hash}\"")));
    let mut client = server.websocket("/ws");
    let before = server.resident_kib();
    let mqtt = server.mqtt.unwrap();
    let mut tries: Vec<_> = (0..TRIES)
        .map(|number| {
            let mut io = TcpStream::connect(mqtt).unwrap();
            io.set_nonblocking(false).unwrap();
            // Every second one for a user that is not there: it takes as long.
            let user = if number % 2 == 0 { "press-2" } else { "nobody" };
            io.write_all(&connect(user, "wrong")).unwrap();
            io
        })
        .collect();
    let (mut most, mut slowest) = (0, Duration::ZERO);
    for _ in 0..10 {
        let start = Instant::now();
        still_serves(&server, &mut client, LIMIT);
        slowest = slowest.max(start.elapsed());
        most = most.max(grown(&server, before));
    }
    assert!(most < 80 * 1024, "{most} KiB");
    assert!(slowest < Duration::from_secs(5), "{slowest:?}");
    // Keys of the API are long and random, so that a plain digest does: nobody waits for those who guess.
    let guess = |who: &str| {
        let headers = format!("Authorization: {who}\r\n");
        let request =
            format!("GET /triggers/v1/triggers HTTP/1.1\r\nHost: h\r\nConnection: close\r\n{headers}\r\n");
        let (management, request) = (server.management, request);
        thread::spawn(move || super::statuses(&super::ask(management, request.as_bytes())))
    };
    let guesses: Vec<_> = (0..TRIES)
        .map(|number| {
            guess(["Api-Key AQVNadmin.guess", "Bearer t1.e30.AAAA", "Basic YTpi", "Bearer"][number % 4])
        })
        .collect();
    for found in guesses {
        assert_eq!(found.join().unwrap(), [401]);
    }
    assert!(grown(&server, before) < 80 * 1024);
    tries.clear();
    let (user, right) = ("press-2", "Press-2-demo-1");
    until("a login when those who guessed are gone", || {
        let topic = ["-q", "1", "-t", "$devices/press-2/events", "-m", "x"];
        server.mosquitto_pub(user, right, &topic).output().unwrap().status.success().then_some(())
    });
}

/// More connections than there are files for wait for their turn: whatever else needs a file gets one, and when the crowd
/// goes, the next one is served at once. Each worker needs some files, so their number is said.
#[test]
fn without_file_descriptors_clients_stay_and_others_come_again() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("config.yaml");
    std::fs::write(&file, telemetry().replace("drain: 100ms", "workers: 2, drain: 100ms")).unwrap();
    let mut command = std::process::Command::new("sh");
    let program = env!("CARGO_BIN_EXE_triggercast");
    command.arg("-c").arg(format!("ulimit -n 128; exec '{program}' --config '{}'", file.display()));
    command.current_dir(folder.path()).stderr(std::process::Stdio::piped()).env_remove("RUST_LOG");
    let server = TestServer::start_by(&mut command);
    let mut client = server.websocket("/ws");
    let crowd: Vec<_> = (0..1000).filter_map(|_| TcpStream::connect(server.gateway).ok()).collect();
    assert!(crowd.len() > 128);
    // What is open goes on, and devices still come in.
    client.send(0x89, b"there?");
    assert_eq!(client.frame(), (0x8a, b"there?".to_vec()));
    still_serves(&server, &mut client, LIMIT);
    drop(crowd);
    until("room for others", || {
        let (_, head) = Socket::try_handshake(server.gateway, "/main/ws", "", Duration::from_secs(2))?;
        head.starts_with("HTTP/1.1 101 ").then_some(())
    });
    still_serves(&server, &mut client, LIMIT);
    // Nothing had to be tried again for want of files.
    assert_eq!(server.log("Too many open files"), [""; 0]);
    assert!(server.stop().success());
}
