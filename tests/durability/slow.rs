//! A client that stops to read, by each policy of its path; the client beside it notices nothing.

use std::io::{BufRead as _, BufReader};
use std::process::{Child, Command, Stdio};
use std::sync::{Arc, Mutex};
use std::thread::{self, JoinHandle};

use crate::client::{Client, Manner, Seen, parse};
use crate::common::{TestServer, run, trigger, until};
use crate::device::{Device, Plan};
use crate::ground::{Place, assert_exactly_once, config_with, drain};

/// `triggercast listen`, a process that can be stopped.
struct Listen {
    child: Child,
    seen: Arc<Mutex<Vec<Seen>>>,
    words: Arc<Mutex<String>>,
    threads: Vec<JoinHandle<()>>,
}

impl Listen {
    fn start(url: &str) -> Self {
        let mut child = Command::new(env!("CARGO_BIN_EXE_triggercast"))
            .args(["listen", url])
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let (seen, words) = <(Arc<Mutex<Vec<Seen>>>, Arc<Mutex<String>>)>::default();
        let (out, err) = (child.stdout.take().unwrap(), child.stderr.take().unwrap());
        let (to_seen, to_words) = (Arc::clone(&seen), Arc::clone(&words));
        let threads = vec![
            thread::spawn(move || {
                for line in BufReader::new(out).lines() {
                    to_seen.lock().unwrap().extend(parse(line.unwrap().as_bytes()));
                }
            }),
            thread::spawn(move || {
                for line in BufReader::new(err).lines() {
                    to_words.lock().unwrap().push_str(&line.unwrap());
                }
            }),
        ];
        Self { child, seen, words, threads }
    }

    fn signal(&self, name: &str) {
        run(Command::new("kill").args(["-s", name, &self.child.id().to_string()]));
    }

    /// Waits until it ends; what it said on stderr.
    fn end(mut self) -> (Vec<Seen>, String) {
        self.threads.drain(..).for_each(|thread| thread.join().unwrap());
        let words = self.words.lock().unwrap().clone();
        (std::mem::take(&mut self.seen.lock().unwrap()), words)
    }
}

impl Drop for Listen {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// What a client stopped for a while sees, what it says, and what there was to see.
struct Outcome {
    slow: Vec<Seen>,
    words: String,
    whole: Vec<Seen>,
    dropped: u64,
}

/// Stops a client until its path's policy has been applied and more has come, then lets it go on to the end.
fn outcome(policy: &str) -> Outcome {
    let path = format!("      /p: {{ backlog_bytes: 65536, slow_clients: {policy} }}\n");
    let source = "iot_message: { registry_id: factory, batch_settings: { max_count: 5, cutoff: 100ms } }";
    let folder = tempfile::tempdir().unwrap();
    let server = TestServer::start_in(folder.path(), &config_with(&path, &trigger("heavy", source, "/p")));
    let place = Arc::new(Place::default());
    place.is_at(&server);
    let client = [Client::start(&place, "/p", Manner::Query, "").connected()];
    let connections = |count| server.get("/metrics").1.contains(&format!("websocket_connections {count}\n"));
    let listen = Listen::start(&server.url("/p"));
    until("the listener", || connections(2).then_some(()));
    let device = Device::at(Plan { rate: 1000, padding: 6000, large: 6000, ..Plan::factory(0, 20) }, &place);
    until("its first events", || (listen.seen.lock().unwrap().len() > 100).then_some(()));

    listen.signal("STOP");
    // On a busy machine it may have been too slow before it was stopped, and more than once.
    let reason = format!("slow_clients_total{{reason=\"{policy}\"}}");
    until("a client that is too slow", || (server.counted(&reason) > 0).then_some(()));
    let now = device.acknowledged();
    until("more events", || (device.acknowledged() > now + 500).then_some(()));
    listen.signal("CONT");
    let sent = drain(vec![device], &client, |_, _| true);
    if policy != "disconnect" {
        let is_last = |seen: &[Seen]| seen.last().is_some_and(|seen| seen.seq == sent[&0] - 1);
        until("the end", || is_last(&listen.seen.lock().unwrap()).then_some(()));
        assert!(server.get("/healthz").0 == 200 && connections(2));
    }
    let (_, metrics) = server.get("/metrics");
    let dropped =
        metrics.lines().find_map(|line| line.strip_prefix("triggercast_slow_client_dropped_total "));
    let dropped = dropped.unwrap().parse().unwrap();
    let [client] = client;
    assert!(client.closes().is_empty(), "the other client was closed: {:?}", client.closes());
    let whole = client.stop();
    assert_exactly_once("the other client", &whole, &sent);
    if policy != "disconnect" {
        listen.signal("TERM");
    }
    let (slow, words) = listen.end();
    println!("{policy}: {} events, the slow client saw {}", whole.len(), slow.len());
    Outcome { slow, words, whole, dropped }
}

#[test]
fn a_stopped_client_gets_everything_by_replay() {
    let Outcome { slow, whole, dropped, .. } = outcome("replay");
    assert!(slow == whole, "{} of {}", slow.len(), whole.len());
    assert_eq!(dropped, 0);
}

#[test]
fn a_stopped_client_misses_the_oldest_by_drop_oldest() {
    let Outcome { slow, whole, dropped, .. } = outcome("drop_oldest");
    let mut rest = whole.iter();
    let is_in_order = slow.iter().all(|event| rest.any(|other| other == event));
    assert!(is_in_order, "events out of order, or unknown");
    assert_eq!(slow.last(), whole.last());
    assert!(dropped > 0);
    assert_eq!(slow.len() as u64 + dropped, whole.len() as u64, "what is missing is what was counted");
}

#[test]
fn a_stopped_client_is_closed_by_disconnect() {
    let Outcome { slow, whole, words, .. } = outcome("disconnect");
    assert!(words.contains("1013"), "{words}");
    assert!(whole.starts_with(&slow) && slow.len() < whole.len(), "{} of {}", slow.len(), whole.len());
}
