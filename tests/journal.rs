//! `triggercast journal`: what it shows of a server's journal, while the server runs, after it was killed, after it
//! has stopped, and when the journal is damaged.
#![expect(clippy::unwrap_used, clippy::expect_used, reason = "a test fails by panicking")]
#![expect(unreachable_pub, reason = "one crate, nothing is published")]

#[path = "e2e/common.rs"]
#[expect(dead_code, reason = "made for more tests than these")]
mod common;

use std::io::{BufRead, BufReader, Read, Write};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};

use common::{FACTORY, Socket, TestServer, config, events, trigger, until};
use serde_json::Value;
use triggercast::journal::disk::Reader;
use triggercast::journal::{ReadError, ReadLimit};

/// A folder for a journal, which outlives the servers that write to it.
struct Data {
    folder: tempfile::TempDir,
}

/// A command that has ended.
#[derive(Debug, PartialEq, Eq)]
struct Done {
    code: Option<i32>,
    out: String,
    err: String,
}

impl Data {
    fn new() -> Self {
        Self { folder: tempfile::tempdir().unwrap() }
    }

    fn path(&self) -> PathBuf {
        self.folder.path().join("data")
    }

    /// A server that keeps its journal here: `/main/ws` gets what devices say, in batches of `max_count`.
    fn server(&self, max_count: usize, ws: &str) -> TestServer {
        let source = format!(
            "iot_message: {{ registry_id: factory, batch_settings: {{ max_count: {max_count}, cutoff: 1s }} }}"
        );
        let config = config(&format!("{FACTORY}triggers:\n{}", trigger("telemetry", &source, "/ws")));
        let config = config.replace("data_dir: ./data", &format!("data_dir: {}", self.path().display()));
        TestServer::start(&config.replacen("/ws: {}, /other", &format!("/ws: {ws}, /other"), 1))
    }

    fn command(&self, args: &[&str]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_triggercast"));
        command.arg("journal").args(args).arg("--data").arg(self.path());
        command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
        command
    }

    fn run(&self, args: &[&str]) -> Done {
        Done::of(self.command(args).output().unwrap())
    }

    /// What a command that succeeds prints.
    #[track_caller]
    fn printed(&self, args: &[&str]) -> String {
        let done = self.run(args);
        assert_eq!((done.code, done.err.as_str()), (Some(0), ""), "{args:?}");
        done.out
    }

    /// The line of `/main/ws` in `ls --json`.
    fn listed(&self) -> Value {
        let out = self.printed(&["ls", "--json"]);
        let lines = out.lines().map(|line| serde_json::from_str::<Value>(line).unwrap());
        lines.into_iter().find(|path| path["path"] == "/main/ws").unwrap()
    }

    /// Does something to a copy of the database; the server must have stopped.
    fn damaged(&self, damage: impl FnOnce(&Path)) -> Self {
        let copy = Self::new();
        std::fs::create_dir(copy.path()).unwrap();
        let database = copy.path().join("journal.db");
        // What a reader had open at the stop can leave part of it in the log.
        let whole = rusqlite::Connection::open(self.path().join("journal.db")).unwrap();
        whole.query_row("PRAGMA wal_checkpoint(TRUNCATE)", [], |_| Ok(())).unwrap();
        drop(whole);
        std::fs::copy(self.path().join("journal.db"), &database).unwrap();
        damage(&database);
        copy
    }

    /// The same with SQL.
    fn changed(&self, sql: &str) -> Self {
        self.damaged(|database| {
            let db = rusqlite::Connection::open(database).unwrap();
            db.execute_batch(&format!("PRAGMA foreign_keys = off; {sql}")).unwrap();
            assert!(db.changes() > 0, "{sql}");
        })
    }
}

impl Done {
    fn of(output: Output) -> Self {
        Self {
            code: output.status.code(),
            out: String::from_utf8(output.stdout).unwrap(),
            err: String::from_utf8(output.stderr).unwrap(),
        }
    }

    #[track_caller]
    fn check(&self, code: i32, out: &str, err: &str) {
        assert_eq!(self.code, Some(code), "{self:?}");
        assert!(self.out.contains(out) && self.err.contains(err), "{out:?}, {err:?}: {self:?}");
    }
}

/// Publishes each as a message of its own, over one connection.
fn publish(server: &TestServer, payloads: impl IntoIterator<Item = String>) {
    feed(publisher(server), payloads);
}

fn publisher(server: &TestServer) -> Child {
    let rest = ["-q", "1", "-t", "$devices/press-1/events", "-l"];
    server.mosquitto_pub("press-1", "Press-1-demo-1", &rest).stdin(Stdio::piped()).spawn().unwrap()
}

fn feed(mut child: Child, payloads: impl IntoIterator<Item = String>) {
    let mut input = child.stdin.take().unwrap();
    for payload in payloads {
        writeln!(input, "{payload}").unwrap();
    }
    drop(input);
    assert!(child.wait().unwrap().success());
}

/// The messages that a client gets, up to so many events.
fn messages(socket: &mut Socket, count: usize) -> Vec<String> {
    let mut all = Vec::new();
    let mut got = 0;
    while got < count {
        let text = socket.text();
        got += events(&text).len();
        all.push(text);
    }
    assert_eq!(got, count);
    all
}

/// The lines of `cat` that belong to these messages.
fn lines_of(messages: &[String]) -> String {
    let events = |text: &String| {
        let inner = text.strip_prefix("{\"messages\":[").unwrap().strip_suffix("]}").unwrap();
        format!("{}\n", inner.replace("}},{", "}}\n{"))
    };
    messages.iter().map(events).collect()
}

/// Six events, each with rows of its own, of a server that has stopped in order.
fn six_events() -> Data {
    let data = Data::new();
    let server = data.server(1, "{}");
    let mut socket = server.websocket("/ws");
    for n in 0..6 {
        publish(&server, [format!("reading {n}")]);
        // It is committed before it is delivered.
        socket.text();
    }
    assert!(server.stop().success());
    data
}

#[test]
fn cat_gives_what_clients_got_whether_the_server_runs_was_killed_or_has_stopped() {
    let data = Data::new();
    let mut server = data.server(3, "{}");
    let mut live = server.websocket("/ws");
    publish(&server, (0..10).map(|n| format!("reading {n}")));
    let live = messages(&mut live, 10);
    let (mut resumed, head) = Socket::handshake(server.gateway, "/main/ws?since=1h", "");
    assert!(head.to_lowercase().contains("x-resume-status: complete"), "{head}");
    assert_eq!(messages(&mut resumed, 10), live);

    let look = || {
        assert_eq!(data.printed(&["cat", "/main/ws", "--batches", "--since", "1h"]), live.join("\n") + "\n");
        assert_eq!(data.printed(&["cat", "/main/ws", "--since", "1h"]), lines_of(&live));
        assert_eq!(data.printed(&["cat", "/main/ws"]), lines_of(&live));
        assert_eq!(data.printed(&["cat", "/main/other"]), "");
        assert_eq!(data.printed(&["verify"]), "4 paths, 10 events, no faults\n");
        let listed = data.listed();
        let bytes = lines_of(&live).len() - 10;
        assert_eq!((&listed["events"], &listed["bytes"]), (&10.into(), &bytes.into()));
        assert_eq!((&listed["oldest"], &listed["newest"]), (&0.into(), &9.into()));
        for at in ["oldest_at", "newest_at"] {
            listed[at].as_str().unwrap().parse::<jiff::Timestamp>().unwrap();
        }
        data.printed(&["ls"])
    };
    let table = look();
    let words: Vec<Vec<&str>> = table.lines().map(|line| line.split_whitespace().collect()).collect();
    assert_eq!(words[0], ["PATH", "EVENTS", "BYTES", "OLDEST", "NEWEST", "FROM", "TO"]);
    assert_eq!(words[1][..2], ["/listed/ws", "0"]);
    assert!(words[1..].iter().all(|row| row.len() == 7) && words[4][0] == "/main/ws", "{table}");

    server.signal("KILL");
    server.wait();
    let before = std::fs::read(data.path().join("journal.db")).unwrap();
    assert_eq!(look(), table);
    let after = std::fs::read(data.path().join("journal.db")).unwrap();
    assert!(before == after, "who only reads has written");
    let server = data.server(3, "{}");
    assert!(server.stop().success());
    assert_eq!(look(), table);
}

#[test]
fn a_selection_begins_and_ends_where_it_is_asked_to() {
    let data = six_events();
    let all = data.printed(&["cat", "/main/ws"]);
    let all: Vec<&str> = all.lines().collect();
    let events: Vec<Value> = all.iter().map(|line| serde_json::from_str(line).unwrap()).collect();
    let id = |n: usize| events[n]["event_metadata"]["event_id"].as_str().unwrap();
    let at = |n: usize| events[n]["event_metadata"]["created_at"].as_str().unwrap();
    for (args, expected) in [
        (&["--last", "2"][..], &all[4..]),
        (&["--last", "100"], &all[..]),
        (&["--from", "4"], &all[4..]),
        (&["--from", "6"], &[]),
        (&["--from", "600"], &[]),
        (&["--count", "2"], &all[..2]),
        (&["--last-event-id", id(2)], &all[3..]),
        (&["--last-event-id", id(2), "--count", "1"], &all[3..4]),
        (&["--last-event-id", id(5)], &[]),
        (&["--since", at(0)], &all[..]),
        (&["--since", "2999-01-01T00:00:00Z"], &[]),
        (&["--since", "0s"], &[]),
        (&["--since", "1h", "--count", "5"], &all[..5]),
    ] {
        let out = data.printed(&[&["cat", "/main/ws"], args].concat());
        assert_eq!(out.lines().collect::<Vec<_>>(), expected, "{args:?}");
        // `export` chooses alike.
        let done = data.run(&[&["export", "/main/ws", "-"], args].concat());
        assert_eq!(done.out, out, "{args:?}");
        let events = if expected.len() == 1 { "event" } else { "events" };
        done.check(0, "", &format!("{} {events}, {} bytes\n", expected.len(), out.len()));
    }
    let decoded = format!("{} $devices/press-1/events reading 5\n", at(5));
    assert_eq!(data.printed(&["cat", "/main/ws", "--last", "1", "--decode"]), decoded);
    let messages = all[..2].iter().map(|event| format!("{{\"messages\":[{event}]}}\n")).collect::<String>();
    assert_eq!(data.printed(&["cat", "/main/ws", "--count", "2", "--batches"]), messages);
}

#[test]
fn wrong_arguments_and_foreign_files_are_told() {
    let data = six_events();
    for (args, err) in [
        (
            &["cat", "/main/none"][..],
            "\"/main/none\" is not a path of the journal; it has /listed/ws, /main/other, /main/small, /main/ws",
        ),
        (&["cat"], "<PATH>"),
        (&["cat", "/main/ws", "--last", "0"], "0 is not in 1.."),
        (&["cat", "/main/ws", "--last", "1", "--since", "1h"], "cannot be used with"),
        (
            &["cat", "/main/ws", "--since", "yesterday"],
            "not a time such as 2026-01-31T08:00:00Z, or a duration",
        ),
        (&["cat", "/main/ws", "--last-event-id", "7"], "invalid value '7'"),
        (&["cat", "/main/ws", "--decode", "--batches"], "cannot be used with"),
        (&["export", "/main/none", "-"], "\"/main/none\" is not a path"),
        (&[], "Usage: triggercast journal"),
    ] {
        let done = data.run(args);
        assert_eq!(done.out, "", "{args:?}");
        done.check(2, "", err);
    }
    // None at all, not one of ours, another version.
    let none = Data::new();
    let other = data.changed("PRAGMA user_version = 7; UPDATE paths SET floor = floor");
    let garbage = data.damaged(|database| std::fs::write(database, [7; 4096]).unwrap());
    for args in [&["ls"][..], &["cat", "/main/ws"], &["export", "/main/ws", "-"], &["verify"]] {
        none.run(args).check(1, "", "journal.db does not exist");
        other.run(args).check(1, "", "is not a journal of this version of the program (form 7, expected 2)");
        let done = garbage.run(args);
        assert!(
            [&done.out, &done.err].iter().any(|text| text.contains("file is not a database")),
            "{done:?}"
        );
        done.check(1, "", "");
    }
    // The folder can come from a configuration.
    let config = none.folder.path().join("config.yaml");
    std::fs::write(&config, format!("data_dir: {}\n", data.path().display())).unwrap();
    let ls = |args: &[&str]| {
        let mut command = Command::new(env!("CARGO_BIN_EXE_triggercast"));
        Done::of(command.args(args).current_dir(none.folder.path()).output().unwrap())
    };
    assert_eq!(ls(&["journal", "ls"]).out, data.printed(&["ls"]));
    assert_eq!(ls(&["journal", "--config", "config.yaml", "ls"]).out, data.printed(&["ls"]));
    ls(&["journal", "ls", "--config", "missing.yaml"]).check(2, "", "missing.yaml: the file cannot be read");
}

#[test]
fn what_is_kept_no_more_is_told() {
    let data = Data::new();
    let server = data.server(1, "{ retention: { events: 3 } }");
    let mut socket = server.websocket("/ws");
    let mut first = None;
    for n in 0..8 {
        publish(&server, [format!("reading {n}")]);
        let id = events(&socket.text())[0].id.clone();
        first.get_or_insert(id);
    }
    until("retention", || (data.listed()["oldest"] == 5).then_some(()));
    let kept = data.printed(&["cat", "/main/ws"]);
    assert_eq!(kept.lines().count(), 3);
    let oldest: Value = serde_json::from_str(kept.lines().next().unwrap()).unwrap();
    let gap = format!("gap; oldest={}\n", oldest["event_metadata"]["event_id"].as_str().unwrap());
    let first = first.unwrap();
    for args in [&["--last-event-id", &first][..], &["--since", "1h"], &["--from", "2"]] {
        let done = data.run(&[&["cat", "/main/ws"], args].concat());
        assert_eq!(done, Done { code: Some(0), out: kept.clone(), err: gap.clone() }, "{args:?}");
    }
    assert_eq!(data.printed(&["verify"]), "4 paths, 3 events, no faults\n");
    assert!(server.stop().success());
    assert_eq!(data.printed(&["verify"]), "4 paths, 3 events, no faults\n");
}

#[test]
fn reading_and_writing_do_not_disturb_each_other() {
    let data = Data::new();
    let server = data.server(5, "{ retention: { events: 2000 } }");
    let mut socket = server.websocket("/ws");
    publish(&server, ["first".to_owned()]);
    socket.text();
    std::thread::scope(|scope| {
        let publisher = publisher(&server);
        let writer = scope.spawn(|| feed(publisher, (0..10_000).map(|n| format!("reading {n}"))));
        let mut rounds = 0;
        while !writer.is_finished() || rounds < 3 {
            rounds += 1;
            let out = data.printed(&["verify"]);
            assert!(out.ends_with("no faults\n"), "{out}");
            // Ids never fall here: a device, one connection.
            let out = data.run(&["cat", "/main/ws"]);
            assert_eq!(out.code, Some(0), "{}", out.err);
            assert!(out.err.lines().all(|line| line.starts_with("gap; oldest=")), "{}", out.err);
            let lines: Vec<&str> = out.out.lines().collect();
            assert!(lines.windows(2).all(|pair| pair[0] < pair[1]));
            data.printed(&["ls"]);
        }
    });
    assert_eq!(messages(&mut socket, 10_000).len(), 2000);
    assert_eq!(server.log("cannot be written"), Vec::<String>::new());
    assert!(server.stop().success());
    assert!(data.printed(&["verify"]).ends_with("no faults\n"));
}

/// Retention may delete what is being read. Then it is gone; what comes later does not take its place.
#[test]
fn a_read_begins_where_it_is_asked_to() {
    let data = Data::new();
    let server = data.server(5, "{ retention: { events: 50 } }");
    let publisher = publisher(&server);
    let writer = std::thread::spawn(|| feed(publisher, (0..20_000).map(|n| format!("reading {n}"))));
    let reader = Reader::open(&data.path()).unwrap();
    let limit = ReadLimit { bytes: 100_000, grid: u64::MAX };
    // Told at the end: the publisher must have ended before the server.
    let mut wrong = 0;
    while !writer.is_finished() {
        let path = reader.paths().unwrap().into_iter().find(|path| path.name == "/main/ws").unwrap();
        let is_right = match reader.read(path.id, path.oldest, limit) {
            Ok(read) => read.first().is_none_or(|first| first.position == path.oldest),
            Err(ReadError::Gone { oldest }) => oldest > path.oldest,
            Err(ReadError::Failed(_)) => false,
        };
        wrong += u32::from(!is_right);
    }
    writer.join().unwrap();
    assert_eq!(wrong, 0);
}

#[test]
fn a_reader_that_has_read_enough_ends_cat_quietly() {
    let data = Data::new();
    let server = data.server(1, "{}");
    let mut socket = server.websocket("/ws");
    publish(&server, (0..8).map(|_| "x".repeat(60_000)));
    messages(&mut socket, 8);
    for args in [&["cat", "/main/ws"][..], &["cat", "/main/ws", "--decode"], &["export", "/main/ws", "-"]] {
        let mut child = data.command(args).spawn().unwrap();
        let mut out = BufReader::new(child.stdout.take().unwrap());
        out.read_line(&mut String::new()).unwrap();
        drop(out);
        let mut err = String::new();
        child.stderr.take().unwrap().read_to_string(&mut err).unwrap();
        assert_eq!((child.wait().unwrap().code(), err.as_str()), (Some(0), ""), "{args:?}");
    }
}

#[test]
fn export_makes_a_whole_file_or_none() {
    let data = six_events();
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("events.jsonl");
    let name = file.to_str().unwrap();
    let all = data.printed(&["cat", "/main/ws"]);
    let summary = format!("{name}: 6 events, {} bytes\n", all.len());
    assert_eq!(data.printed(&["export", "/main/ws", name]), summary);
    assert_eq!(std::fs::read_to_string(&file).unwrap(), all);
    data.run(&["export", "/main/ws", name, "--last", "1"]).check(
        1,
        "",
        "exists already; --force replaces it",
    );
    assert_eq!(std::fs::read_to_string(&file).unwrap(), all);
    data.printed(&["export", "/main/ws", name, "--last", "1", "--force"]);
    assert_eq!(std::fs::read_to_string(&file).unwrap(), format!("{}\n", all.lines().last().unwrap()));
    // What is no file is not replaced by one.
    for other in ["/dev/null", folder.path().to_str().unwrap()] {
        data.run(&["export", "/main/ws", other, "--force"]).check(1, "", "is not a regular file");
    }
    // Nothing comes of a journal that cannot be read to its end.
    let damaged = data.changed("DELETE FROM events WHERE key & 0x7fffffffffff = 3");
    let other = folder.path().join("other.jsonl");
    let done = damaged.run(&["export", "/main/ws", other.to_str().unwrap()]);
    done.check(1, "", "failed to read the journal at position 3");
    data.run(&["export", "/main/ws", "/nowhere/x"]).check(1, "", "failed to make /nowhere/x");
    let names: Vec<_> = std::fs::read_dir(&folder).unwrap().map(|entry| entry.unwrap().file_name()).collect();
    assert_eq!(names, ["events.jsonl"]);
}

#[test]
fn verify_tells_what_is_damaged() {
    let data = six_events();
    assert_eq!(data.printed(&["verify"]), "4 paths, 6 events, no faults\n");
    let place = "key & 0x7fffffffffff";
    for (sql, fault) in [
        (
            format!("DELETE FROM runs WHERE {place} = 3"),
            "path /main/ws, position 4: the run that stands here was expected at 3",
        ),
        (
            format!("DELETE FROM runs WHERE {place} = 0"),
            "path /main/ws, position 1: the run that stands here was expected at 0",
        ),
        (format!("DELETE FROM events WHERE {place} = 3"), "path /main/ws, position 3: the event at offset 3"),
        (format!("DELETE FROM events WHERE {place} = 0"), "path /main/ws, position 0: the event at offset 0"),
        (format!("DELETE FROM events WHERE {place} = 5"), "path /main/ws, position 5: the event at offset 5"),
        (
            format!("UPDATE runs SET events = 2 WHERE {place} = 3"),
            "position 3: batches of 1 events in a run of 2",
        ),
        (
            format!("UPDATE runs SET counts = x'ff' WHERE {place} = 3"),
            "position 3: batches of 127 events in a run of 1",
        ),
        (
            format!("UPDATE runs SET events = -1, first = -9 WHERE {place} = 3"),
            "position 3: batches of 1 events in a run of 0",
        ),
        (
            format!(
                "UPDATE runs SET events = 0x7fffffffffffffff, counts = x'ffffffffffffffff7f' WHERE {place} = 3"
            ),
            "position 3",
        ),
        (format!("UPDATE runs SET bytes = 7 WHERE {place} = 3"), "bytes of events in a run of 7"),
        (
            format!("UPDATE runs SET at = 7 WHERE {place} = 3"),
            "position 3: an earlier time than that of the run before",
        ),
        ("UPDATE runs SET at = 7".to_owned(), "position 0: broadcast before one of its events was made"),
        (
            format!("UPDATE runs SET first = first + 1 WHERE {place} = 3"),
            "the run at position 3 begins with offset 4, not 3",
        ),
        (format!("UPDATE runs SET action = 99 WHERE {place} = 3"), "names none of actions"),
        ("UPDATE actions SET path = path + 1".to_owned(), "a run of an action that has another path"),
        ("DELETE FROM paths WHERE name = '/main/ws'".to_owned(), "6 rows of runs belong to none of paths"),
        ("DELETE FROM sources".to_owned(), "6 rows of events belong to none of sources"),
        (format!("UPDATE events SET count = 2 WHERE {place} = 3"), "offset 3: the row holds 1 events, not 2"),
        (
            format!("UPDATE events SET high = 0 WHERE {place} = 3"),
            "offset 3: the highest id is higher than the row says",
        ),
        (
            format!("UPDATE events SET repeats = x'00' WHERE {place} = 3"),
            "offset 3: how senders repeat these events cannot be read",
        ),
        (
            format!("UPDATE events SET data = (SELECT data FROM events WHERE {place} = 2) WHERE {place} = 3"),
            "is there twice",
        ),
        (
            format!("UPDATE events SET data = (SELECT data FROM events WHERE {place} = 1) WHERE {place} = 3"),
            "offset 3: the id ",
        ),
        (
            format!(
                "UPDATE events SET data = CAST(replace(CAST(data AS TEXT), 'payload', 'payl') AS BLOB) WHERE {place} = 3"
            ),
            "offset 3: the event is damaged: payload is missing",
        ),
        (
            format!("UPDATE events SET data = substr(data, 1, length(data) - 2) WHERE {place} = 3"),
            "offset 3: the event is damaged: not a whole line",
        ),
    ] {
        let damaged = data.changed(&sql);
        let done = damaged.run(&["verify"]);
        done.check(1, fault, "");
        let last = done.out.lines().last().unwrap();
        let count = done.out.lines().count() - 1;
        assert!(last.ends_with(&format!(" {count} fault{}", if count == 1 { "" } else { "s" })), "{last}");
        // Whatever can be read of it ends, with or without an error.
        for args in [&["ls"][..], &["cat", "/main/ws"], &["cat", "/main/ws", "--since", "1h"]] {
            let done = damaged.run(args);
            assert!(matches!(done.code, Some(0..=2)) && !done.err.contains("panicked"), "{sql}: {done:?}");
        }
    }
}

#[test]
fn cat_prints_what_stands_before_a_hole_and_says_where_that_is() {
    let data = six_events();
    let all = data.printed(&["cat", "/main/ws"]);
    let damaged = data.changed("DELETE FROM runs WHERE key & 0x7fffffffffff IN (2, 3)");
    let done = damaged.run(&["cat", "/main/ws"]);
    assert_eq!(done.out.lines().count(), 2);
    assert!(all.starts_with(&done.out));
    done.check(1, "", "failed to read the journal at position 2: the run at position 2 is missing");
    assert!(all.ends_with(&damaged.printed(&["cat", "/main/ws", "--from", "4"])));
    // Times and ids are searched by halves, and the halves may fall into the hole.
    for since in ["2999-01-01T00:00:00Z", "0s"] {
        assert_eq!(damaged.printed(&["cat", "/main/ws", "--since", since]), "");
    }
    let damaged = data.changed("DELETE FROM events WHERE key & 0x7fffffffffff IN (2, 3)");
    let last: Value = serde_json::from_str(all.lines().nth(4).unwrap()).unwrap();
    let id = last["event_metadata"]["event_id"].as_str().unwrap();
    assert!(all.ends_with(&damaged.printed(&["cat", "/main/ws", "--last-event-id", id])));
}

#[test]
fn verify_survives_bytes_that_are_flipped() {
    let data = six_events();
    let size = std::fs::metadata(data.path().join("journal.db")).unwrap().len() as usize;
    let page = 16384;
    for at in (0..size).step_by(page / 4) {
        let damaged = data.damaged(|database| {
            let mut bytes = std::fs::read(database).unwrap();
            bytes[at..at + 64].iter_mut().for_each(|byte| *byte ^= 0xff);
            std::fs::write(database, bytes).unwrap();
        });
        for args in [&["verify"][..], &["ls"], &["cat", "/main/ws"]] {
            let done = damaged.run(args);
            // Empty room in a page is nobody's loss.
            assert!(matches!(done.code, Some(0..=2)) && !done.err.contains("panicked"), "{at}: {done:?}");
        }
        if at % page == 0 {
            damaged.run(&["verify"]).check(1, "", "");
        }
    }
    // In the middle of an event.
    let damaged = data.damaged(|database| {
        let mut bytes = std::fs::read(database).unwrap();
        let at = bytes.windows(10).position(|window| window == b"mqtt_topic").unwrap();
        bytes[at..at + 4].iter_mut().for_each(|byte| *byte ^= 0xff);
        std::fs::write(database, bytes).unwrap();
    });
    damaged.run(&["verify"]).check(1, "the event is damaged", "");
}
