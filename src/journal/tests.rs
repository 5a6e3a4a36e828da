//! One suite over both journals, against a model: any sequence of runs, reads, starts and (on disk) restarts.

use std::collections::HashMap;
use std::time::{Duration, SystemTime};

use bytes::Bytes;
use proptest::prelude::*;
use tempfile::TempDir;
use tokio::sync::Notify;

use super::disk::{Arrived, Disk};
use super::*;
use crate::model::event_id;
use crate::model::receipt::{Gate, Verdict};
use crate::model::repeat::{Repeat, Repeats};

const ALL: ReadLimit = ReadLimit { bytes: usize::MAX, grid: u64::MAX };

fn key(path: usize) -> PathKey {
    PathKey { gateway_id: "main".into(), path: format!("/{path}").into() }
}

fn event() -> Event {
    let id = event_id::next(SystemTime::now());
    let now = jiff::Timestamp::now();
    let json = format!(
        r#"{{"event_metadata":{{"event_id":"{id}","event_type":"test","created_at":"{now}"}},"details":{{}}}}"#
    );
    Event { id, json: Bytes::from(json) }
}

/// A journal of two paths, three actions on two sources, and what it must hold.
struct World {
    journals: Journals,
    paths: Paths,
    folder: Option<TempDir>,
    /// The batches of each path, in order.
    model: [Vec<Vec<Event>>; 2],
    /// The actions: source, path, name in the journal.
    actions: Vec<(usize, usize, disk::ActionId)>,
    sources: Vec<disk::SourceId>,
    /// Events of each source that were logged.
    logged: [Vec<Event>; 2],
    /// For each action, events of its source that are in runs.
    batched: [usize; 3],
}

/// Where the events of the actions come from and go to.
const ACTIONS: [(usize, usize); 3] = [(0, 0), (1, 0), (1, 1)];

impl World {
    fn new(on_disk: bool, retention: Retention) -> Self {
        let durability = if on_disk { Durability::Disk } else { Durability::Memory };
        let paths: Paths = (0..2).map(|path| (key(path), (durability, retention))).collect();
        let mut world = Self {
            journals: Journals::new(&paths, None),
            paths,
            folder: on_disk.then(|| TempDir::new().unwrap()),
            model: Default::default(),
            actions: Vec::new(),
            sources: Vec::new(),
            logged: Default::default(),
            batched: [0; 3],
        };
        world.open();
        world
    }

    /// Opens the journal on disk, again if it was open before.
    fn open(&mut self) {
        self.open_with(&[0, 1, 2]);
    }

    /// The same, with these actions only.
    fn open_with(&mut self, wanted: &[usize]) {
        let Some(folder) = &self.folder else {
            self.actions = ACTIONS.iter().map(|(source, path)| (*source, *path, 0)).collect();
            return;
        };
        self.journals = Journals::new(&self.paths, None);
        let disk = Arc::new(Disk::open(folder.path(), &self.paths).unwrap());
        self.sources = (0..2).map(|n| disk.source(&format!("source {n}")).unwrap()).collect();
        let action = |(n, (source, path)): (usize, &(usize, usize))| {
            let wanted = wanted.contains(&n);
            let name = || disk.action(&"t".into(), *source, self.sources[*source], &key(*path)).unwrap();
            (*source, *path, if wanted { name() } else { 0 })
        };
        self.actions = ACTIONS.iter().enumerate().map(action).collect();
        disk.retire_others().unwrap();
        self.journals = Journals::new(&self.paths, Some(disk));
    }

    fn disk(&self) -> Arc<Disk> {
        Arc::clone(self.journals.disk().unwrap())
    }

    fn of(&self, path: usize) -> Arc<dyn Journal> {
        self.journals.of(&key(path)).unwrap()
    }

    /// Logs events of a source and gives the gate of their acknowledgement.
    fn log(&mut self, source: usize, count: usize, repeats: Option<Repeats>) -> Arc<Gate> {
        let events: Vec<Event> = (0..count).map(|_| event()).collect();
        self.logged[source].extend(events.clone());
        let (gate, mut receipts) = Gate::new(1, Arc::new(Notify::new()));
        let receipt = receipts.pop().unwrap();
        if self.folder.is_some() {
            let arrived = Arrived { events: events.into(), repeats, made_of: None, receipt };
            let first = self.disk().log(self.sources[source], arrived).unwrap();
            assert_eq!(first as usize + count, self.logged[source].len());
        } else {
            receipt.accept();
        }
        gate
    }

    /// Batches what an action has not batched, in batches of at most `size`.
    fn run(&mut self, action: usize, size: usize) {
        let (source, path, id) = self.actions[action];
        let first = self.batched[action];
        let events = &self.logged[source][first..];
        if events.is_empty() {
            return;
        }
        let batches: Vec<Vec<Event>> = events.chunks(size).map(<[Event]>::to_vec).collect();
        self.batched[action] = self.logged[source].len();
        let position: usize = self.model[path].iter().map(Vec::len).sum();
        self.model[path].extend(batches.clone());
        let origin = Some(Origin { action: id, first: first as u64 });
        let run = Run { path: key(path), origin, batches: Arc::new(batches) };
        let appended = self.of(path).append(run).unwrap();
        assert_eq!(appended.position as usize, position);
    }

    /// Until everything is committed.
    fn settle(&self) {
        if self.folder.is_some() {
            self.disk().flushed(self.sources[0]).unwrap();
        }
        for path in 0..2 {
            let committed = *self.of(path).committed(&key(path)).unwrap().borrow();
            assert_eq!(committed as usize, self.model[path].iter().map(Vec::len).sum::<usize>());
        }
    }

    fn events(&self, path: usize) -> Vec<Event> {
        self.model[path].concat()
    }

    fn read(&self, path: usize, from: usize, limit: ReadLimit) -> Result<Vec<Stored>, ReadError> {
        self.of(path).read(&key(path), from as u64, limit)
    }

    fn find(&self, path: usize, start: Start) -> Found {
        self.of(path).find(&key(path), start).unwrap()
    }

    /// Reads a path from a position to its end, in steps.
    fn read_all(&self, path: usize, from: usize, limit: ReadLimit) -> Vec<Stored> {
        let mut all = Vec::new();
        let mut position = from;
        loop {
            let some = self.read(path, position, limit).unwrap();
            let Some(last) = some.last() else { return all };
            position = last.position as usize + last.events.len();
            all.extend(some);
        }
    }
}

#[derive(Debug, Clone)]
enum Step {
    Log { source: usize, count: usize },
    Run { action: usize, size: usize },
    Restart,
    Read { path: usize, from: prop::sample::Index, bytes: usize, grid: u64 },
    Find { path: usize, event: prop::sample::Index },
    Last { path: usize, count: u64 },
}

fn step() -> impl Strategy<Value = Step> {
    let index = any::<prop::sample::Index>;
    prop_oneof![
        4 => (0usize..2, 1usize..6).prop_map(|(source, count)| Step::Log { source, count }),
        4 => (0usize..3, 1usize..4).prop_map(|(action, size)| Step::Run { action, size }),
        1 => Just(Step::Restart),
        3 => (0usize..2, index(), 1usize..400, 1u64..9)
            .prop_map(|(path, from, bytes, grid)| Step::Read { path, from, bytes, grid }),
        3 => (0usize..2, index()).prop_map(|(path, event)| Step::Find { path, event }),
        1 => (0usize..2, 0u64..9).prop_map(|(path, count)| Step::Last { path, count }),
    ]
}

fn check(world: &mut World, step: Step) -> Result<(), TestCaseError> {
    match step {
        Step::Log { source, count } => drop(world.log(source, count, None)),
        Step::Run { action, size } => world.run(action, size),
        Step::Restart if world.folder.is_some() => {
            world.settle();
            world.open();
            for (n, (source, _, action)) in world.actions.clone().into_iter().enumerate() {
                prop_assert_eq!(world.disk().cursor(action) as usize, world.batched[n]);
                let (mut offset, mut left) = (world.batched[n], Vec::new());
                while offset < world.logged[source].len() {
                    left.extend(world.disk().backlog(world.sources[source], offset as u64).unwrap());
                    offset = world.batched[n] + left.len();
                }
                prop_assert_eq!(
                    &left[..],
                    &world.logged[source][world.batched[n]..],
                    "what was not broadcast"
                );
            }
        }
        Step::Restart => {}
        Step::Read { path, from, bytes, grid } => {
            world.settle();
            let events = world.events(path);
            let from = from.index(events.len() + 1);
            let some = world.read(path, from, ReadLimit { bytes, grid }).unwrap();
            prop_assert_eq!(some.is_empty(), from == events.len());
            let all = world.read_all(path, from, ReadLimit { bytes, grid });
            prop_assert_eq!(&all[..some.len()], &some[..]);
            let read: Vec<Event> = all.iter().flat_map(|batch| batch.events.clone()).collect();
            prop_assert_eq!(&read[..], &events[from..]);
            // Batches are those of the path, but for the one that the position cuts.
            let mut position = 0;
            let mut expected = Vec::new();
            for batch in &world.model[path] {
                let skip = from.saturating_sub(position).min(batch.len());
                if skip < batch.len() {
                    expected
                        .push(Stored { position: (position + skip) as u64, events: batch[skip..].to_vec() });
                }
                position += batch.len();
            }
            prop_assert_eq!(all, expected);
        }
        Step::Find { path, event } => {
            world.settle();
            let events = world.events(path);
            if !events.is_empty() {
                let at = event.index(events.len());
                let found = world.find(path, Start::After(events[at].id));
                prop_assert!(!found.gap);
                // An event that stands twice on a path is found where it stands first.
                let first = events.iter().position(|event| event.id == events[at].id).unwrap();
                prop_assert_eq!(found.position as usize, first + 1);
            }
        }
        Step::Last { path, count } => {
            world.settle();
            let events = world.events(path).len() as u64;
            prop_assert_eq!(world.find(path, Start::Last(count)).position, events.saturating_sub(count));
        }
    }
    Ok(())
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(48))]
    #[test]
    fn both_journals_hold_what_the_model_says(on_disk: bool, steps in prop::collection::vec(step(), 1..40)) {
        let mut world = World::new(on_disk, Retention::default());
        for step in steps {
            check(&mut world, step)?;
        }
    }
}

fn both(retention: Retention, test: impl Fn(World)) {
    for on_disk in [false, true] {
        test(World::new(on_disk, retention));
    }
}

#[test]
fn an_unknown_id_is_placed_by_its_time() {
    both(Retention::default(), |mut world| {
        std::thread::sleep(Duration::from_millis(3));
        let before = event_id::next(SystemTime::now());
        std::thread::sleep(Duration::from_millis(3));
        world.log(0, 3, None);
        world.run(0, 2);
        world.settle();
        std::thread::sleep(Duration::from_millis(3));
        let after = event_id::next(SystemTime::now());
        let place = |id| {
            let found = world.find(0, Start::After(id));
            (found.position, found.gap)
        };
        // A journal in memory knows nothing of before its start.
        let old = uuid::Uuid::from_u64_pair((1_700_000_000_000 << 16) | 0x7000, 0x8000_0000_0000_0000);
        assert_eq!(place(old), (0, world.folder.is_none()));
        assert_eq!(place(before), (0, false));
        assert_eq!(place(after), (3, false));
        assert_eq!(
            place(uuid::Builder::from_random_bytes([7; 16]).into_uuid()),
            (0, true),
            "an id without a time"
        );
        assert_eq!(world.find(1, Start::After(after)).position, 0, "a path without events");
    });
}

#[test]
fn since_begins_with_what_was_broadcast_then() {
    both(Retention::default(), |mut world| {
        world.log(0, 2, None);
        world.run(0, 9);
        std::thread::sleep(Duration::from_millis(3));
        let middle = SystemTime::now();
        world.log(0, 2, None);
        world.run(0, 9);
        world.settle();
        let place = |time| world.find(0, Start::Since(time)).position;
        assert_eq!(place(SystemTime::UNIX_EPOCH), 0);
        assert_eq!(place(middle), 2);
        assert_eq!(place(SystemTime::now() + Duration::from_secs(60)), 4);
    });
}

#[test]
fn retention_drops_the_oldest_and_says_so() {
    let retention = Retention { events: 10, ..Retention::default() };
    both(retention, |mut world| {
        for _ in 0..20 {
            world.log(0, 3, None);
            world.run(0, 2);
            world.settle();
        }
        if world.folder.is_some() {
            // It follows the commits: one more turn.
            until(|| world.find(0, Start::Last(100)).position >= 50);
        }
        let oldest = world.find(0, Start::Last(1000)).position as usize;
        assert!((50..60).contains(&oldest), "{oldest}");
        let events = world.events(0);
        let found = world.find(0, Start::After(events[5].id));
        assert_eq!(
            (found.position as usize, found.gap, found.oldest),
            (oldest, true, Some(events[oldest].id))
        );
        let found = world.find(0, Start::After(events[oldest + 1].id));
        assert_eq!((found.position as usize, found.gap), (oldest + 2, false));
        assert!(
            matches!(world.read(0, 5, ALL), Err(ReadError::Gone { oldest: at }) if at as usize == oldest)
        );
        let read: Vec<Event> =
            world.read_all(0, oldest, ALL).into_iter().flat_map(|batch| batch.events).collect();
        assert_eq!(read, events[oldest..]);
    });
}

#[test]
fn what_is_kept_changes_while_the_journal_is_open() {
    both(Retention::default(), |mut world| {
        let run = |world: &mut World| {
            world.log(0, 3, None);
            world.run(0, 2);
            world.settle();
        };
        (0..20).for_each(|_| run(&mut world));
        assert_eq!(world.find(0, Start::Last(1000)).position, 0);
        // What a path asks for at the next start does not move it now.
        let other = if world.folder.is_some() { Durability::Memory } else { Durability::Disk };
        let less = Retention { events: 10, ..Retention::default() };
        world.journals.add(&Paths::from([(key(0), (other, less))])).unwrap();
        run(&mut world);
        until(|| world.find(0, Start::Last(1000)).position >= 53);
        assert_eq!(world.journals.of(&key(0)).map(|_| world.events(0).len()), Some(63));
    });
}

#[test]
fn retention_by_age_and_bytes() {
    for retention in [
        Retention { bytes: 500, ..Retention::default() },
        Retention { age: Duration::from_millis(1), ..Retention::default() },
    ] {
        both(retention, |mut world| {
            for _ in 0..20 {
                world.log(1, 3, None);
                world.run(1, 3);
                world.run(2, 3);
                world.settle();
                std::thread::sleep(Duration::from_millis(2));
            }
            let oldest = || world.find(0, Start::Last(1000)).position as usize;
            until(|| oldest() > 40);
            let events = world.events(0).len();
            if retention.age < Duration::from_secs(1) {
                // In time everything is too old, and the order goes on behind it.
                until(|| oldest() == events);
            } else {
                assert!(oldest() <= events - 3, "the newest run stays");
            }
            world.log(1, 1, None);
            world.run(1, 1);
            world.settle();
        });
    }
}

#[test]
fn what_retention_has_dropped_is_not_broadcast_again_after_a_restart() {
    let mut world = World::new(true, Retention { events: 1, ..Retention::default() });
    for _ in 0..10 {
        world.log(0, 3, None);
        world.run(0, 2);
        world.settle();
    }
    until(|| world.find(0, Start::Last(1000)).position >= 27);
    world.open();
    assert_eq!(world.disk().cursor(world.actions[0].2), 30);
    world.log(0, 1, None);
    world.run(0, 1);
    world.settle();
    assert_eq!(world.events(0).len(), 31);
}

/// Events of a source that are still in the database, counted by reading it.
fn kept(world: &World, source: usize) -> usize {
    let db = rusqlite::Connection::open(world.folder.as_ref().unwrap().path().join("journal.db")).unwrap();
    let sql = "SELECT coalesce(sum(count), 0) FROM events WHERE key >> 47 = ?";
    db.query_row(sql, [world.sources[source]], |row| row.get::<_, i64>(0)).unwrap() as usize
}

#[test]
fn a_path_without_news_keeps_its_own_events_of_a_source_and_not_those_of_others() {
    let mut world = World::new(true, Retention { events: 20, ..Retention::default() });
    // Both paths get the first events of source 1; then the action of the second path is no more.
    world.log(1, 10, None);
    world.run(1, 5);
    world.run(2, 5);
    world.settle();
    world.open_with(&[0, 1]);
    for _ in 0..100 {
        world.log(1, 10, None);
        world.run(1, 5);
        world.settle();
    }
    until(|| kept(&world, 1) < 100);
    assert_eq!(world.read_all(1, 0, ALL).iter().map(|batch| batch.events.len()).sum::<usize>(), 10);
    let mut faults = Vec::new();
    let reader = disk::Reader::open(world.folder.as_ref().unwrap().path()).unwrap();
    reader.verify(|fault| faults.push(fault)).unwrap();
    assert_eq!(faults, Vec::<String>::new());
}

#[test]
fn a_trigger_that_comes_back_begins_with_what_comes_then() {
    let mut world = World::new(true, Retention { events: 20, ..Retention::default() });
    world.log(1, 10, None);
    world.run(2, 5);
    world.settle();
    world.open_with(&[0, 1]);
    for _ in 0..50 {
        world.log(1, 10, None);
        world.run(1, 5);
        world.settle();
    }
    until(|| kept(&world, 1) < 100);
    world.open();
    let action = world.actions[2].2;
    assert_eq!(world.disk().cursor(action) as usize, world.logged[1].len());
    world.batched[2] = world.logged[1].len();
    world.log(1, 3, None);
    world.run(2, 5);
    world.settle();
    assert_eq!(
        world.read_all(1, 0, ALL).concat_ids(),
        world.events(1).iter().map(|event| event.id).collect::<Vec<_>>()
    );
}

#[test]
fn what_retention_lets_pass_in_a_pause_leaves_a_journal_without_faults() {
    let mut world = World::new(true, Retention { events: 20, ..Retention::default() });
    let action = world.actions[0].2;
    // The first batch ends in the middle of what was logged together.
    world.log(0, 10, None);
    let rest = world.logged[0].split_off(4);
    world.run(0, 2);
    world.logged[0].extend(rest);
    world.settle();
    for is_closed in [false, true] {
        world.disk().hold(action, true);
        for _ in 0..20 {
            world.log(0, 10, None);
            world.settle();
        }
        until(|| kept(&world, 0) <= 4 + 10 + 30);
        if is_closed {
            // Known also to those that open it after.
            world.open();
            world.disk().hold(action, true);
        }
        let folder = world.folder.as_ref().unwrap().path().to_owned();
        let verify = || {
            let mut faults = Vec::new();
            disk::Reader::open(&folder).unwrap().verify(|fault| faults.push(fault)).unwrap();
            assert_eq!(faults, Vec::<String>::new());
        };
        verify();
        let from = world.disk().resume(action).unwrap() as usize;
        let waiting = world.logged[0].len() - from;
        assert!((1..=20).contains(&waiting), "{waiting} events wait");
        assert_eq!(
            world.disk().backlog(world.sources[0], from as u64).unwrap()[0].id,
            world.logged[0][from].id
        );
        world.batched[0] = from;
        world.run(0, 5);
        world.settle();
        verify();
    }
}

#[test]
fn a_hole_among_events_that_are_still_to_come_is_told() {
    let mut world = World::new(true, Retention::default());
    world.disk().hold(world.actions[0].2, true);
    for _ in 0..3 {
        world.log(0, 1, None);
        world.settle();
    }
    let folder = world.folder.as_ref().unwrap().path();
    let db = rusqlite::Connection::open(folder.join("journal.db")).unwrap();
    let key = world.sources[0] << 47 | 1;
    assert_eq!(db.execute("DELETE FROM events WHERE key = ?", [key]).unwrap(), 1);
    let mut faults = Vec::new();
    disk::Reader::open(folder).unwrap().verify(|fault| faults.push(fault)).unwrap();
    assert!(
        matches!(&faults[..], [fault] if fault.ends_with("offset 1: the next row is at offset 2")),
        "{faults:?}"
    );
}

#[test]
fn a_journal_of_an_older_version_is_opened_with_all_it_has() {
    let mut world = World::new(true, Retention::default());
    world.log(0, 10, None);
    world.run(0, 5);
    world.settle();
    world.journals = Journals::new(&world.paths, None);
    let path = world.folder.as_ref().unwrap().path().join("journal.db");
    let old = "ALTER TABLE actions DROP COLUMN passed; PRAGMA user_version = 1;";
    rusqlite::Connection::open(path).unwrap().execute_batch(old).unwrap();
    world.open();
    assert_eq!(world.disk().cursor(world.actions[0].2), 10);
    assert_eq!(
        world.read_all(0, 0, ALL).concat_ids(),
        world.events(0).iter().map(|event| event.id).collect::<Vec<_>>()
    );
}

#[test]
fn a_row_that_alone_is_too_large_waits_in_a_pause_all_the_same() {
    let mut world = World::new(true, Retention { events: 20, ..Retention::default() });
    let action = world.actions[0].2;
    world.disk().hold(action, true);
    world.log(0, 10, None);
    world.settle();
    world.log(0, 30, None);
    world.settle();
    until(|| kept(&world, 0) == 30);
    assert_eq!(world.disk().resume(action).unwrap(), 10);
}

trait ConcatIds {
    fn concat_ids(&self) -> Vec<EventId>;
}

impl ConcatIds for Vec<Stored> {
    fn concat_ids(&self) -> Vec<EventId> {
        self.iter().flat_map(|batch| batch.events.iter().map(|event| event.id)).collect()
    }
}

#[test]
fn a_sender_is_acknowledged_when_its_events_are_committed() {
    let mut world = World::new(true, Retention::default());
    let gates: Vec<_> = (0..50).map(|_| world.log(0, 3, None)).collect();
    world.disk().flushed(world.sources[0]).unwrap();
    assert!(gates.iter().all(|gate| gate.verdict() == Verdict::Accepted));
}

#[test]
fn a_full_queue_gives_events_back_and_has_room_again() {
    let mut world = World::new(true, Retention::default());
    let big = Event { json: Bytes::from(vec![b'1'; disk::QUEUE_BYTES / 2]), ..event() };
    let mut refused = 0;
    for _ in 0..100 {
        let (_, mut receipts) = Gate::new(1, Arc::new(Notify::new()));
        let arrived = Arrived {
            events: vec![big.clone()].into(),
            repeats: None,
            made_of: None,
            receipt: receipts.pop().unwrap(),
        };
        refused += usize::from(world.disk().log(world.sources[0], arrived).is_err());
    }
    assert!(refused > 0, "the queue has no bound");
    world.disk().flushed(world.sources[0]).unwrap();
    let gate = world.log(1, 1, None);
    world.disk().flushed(world.sources[1]).unwrap();
    assert_eq!(gate.verdict(), Verdict::Accepted);
}

#[test]
fn a_run_that_is_known_is_left_out_and_one_that_leaves_events_out_is_not_taken() {
    let mut world = World::new(true, Retention::default());
    world.log(0, 6, None);
    let action = world.actions[0].2;
    let events = world.logged[0].clone();
    let run = |first: usize, end: usize| Run {
        path: key(0),
        origin: Some(Origin { action, first: first as u64 }),
        batches: Arc::new(vec![events[first..end].to_vec()]),
    };
    let journal = world.of(0);
    assert_eq!(journal.append(run(0, 2)).unwrap().position, 0);
    assert!(matches!(journal.append(run(0, 2)), Err(NotAppended::Known)));
    let appended = journal.append(run(0, 4)).unwrap();
    assert_eq!((appended.position, &*appended.batches), (2, &vec![events[2..4].to_vec()]));
    assert!(matches!(journal.append(run(5, 6)), Err(NotAppended::Known)));
    assert_eq!(journal.append(run(4, 6)).unwrap().position, 4);
    world.disk().flushed(world.sources[0]).unwrap();
    let read: Vec<Event> = world.read_all(0, 0, ALL).into_iter().flat_map(|batch| batch.events).collect();
    assert_eq!(read, events);
}

#[test]
fn what_senders_may_repeat_is_known_after_a_restart_if_every_copy_was_written() {
    let mut world = World::new(true, Retention::default());
    let publish = |packet_id, copies| Repeat { packet_id, qos: 1, copies, content: u64::from(packet_id) };
    let repeats = |publishes: &[Repeat]| Some(Repeats { session: 9, publishes: publishes.to_vec() });
    world.log(0, 3, repeats(&[publish(1, 1), publish(2, 2), publish(3, 2)]));
    world.log(1, 1, repeats(&[publish(2, 2)]));
    world.log(0, 1, repeats(&[Repeat { content: 77, ..publish(1, 1) }]));
    // Its sender says the same under the same identifier again: what comes next is not known to be a repetition.
    world.log(0, 2, repeats(&[publish(4, 1), publish(4, 1)]));
    world.disk().flushed(world.sources[0]).unwrap();
    world.open();
    let known = world.disk().take_repeats(9).unwrap().publishes;
    let mut known: Vec<_> = known.iter().map(|publish| (publish.packet_id, publish.content)).collect();
    known.sort_unstable();
    // 3 was to be written twice and was not; of 1 the newest counts.
    assert_eq!(known, [(1, 77), (2, 2)]);
    assert!(world.disk().take_repeats(9).is_none());
}

#[test]
fn what_a_slow_broker_may_repeat_is_known_after_a_restart() {
    let mut world = World::new(true, Retention::default());
    let publish = |packet_id| Repeat { packet_id, qos: 1, copies: 1, content: u64::from(packet_id) };
    for first in (1..=20_000).step_by(1000) {
        let publishes = (first..first + 1000).map(publish).collect();
        world.log(0, 1, Some(Repeats { session: 9, publishes }));
    }
    // Long after the first of this identifier and content, it is no reason for doubt.
    world.log(0, 1, Some(Repeats { session: 9, publishes: vec![publish(1)] }));
    world.disk().flushed(world.sources[0]).unwrap();
    world.open();
    let known = world.disk().take_repeats(9).unwrap().publishes;
    assert_eq!(known.len(), 20_000);
    assert_eq!((known.first(), known.last()), (Some(&publish(2)), Some(&publish(1))));
}

#[test]
fn a_journal_is_open_once_and_says_what_it_is_not() {
    let folder = TempDir::new().unwrap();
    let paths: Paths = HashMap::new();
    let disk = Disk::open(folder.path(), &paths).unwrap();
    assert!(matches!(Disk::open(folder.path(), &paths), Err(disk::OpenError::Locked(_))));
    drop(disk);
    drop(Disk::open(folder.path(), &paths).unwrap());
    let other = TempDir::new().unwrap();
    std::fs::write(other.path().join("journal.db"), b"not a database, but long enough to be looked at")
        .unwrap();
    assert!(matches!(Disk::open(other.path(), &paths), Err(disk::OpenError::Database(..))));
    assert!(matches!(disk::Reader::open(&other.path().join("none")), Err(disk::OpenError::Missing(_))));
}

fn until(condition: impl Fn() -> bool) {
    for _ in 0..1000 {
        if condition() {
            return;
        }
        std::thread::sleep(Duration::from_millis(10));
    }
    panic!("it did not come");
}
