//! Tests of [`Repository`]: single rules, and any history with what senders do to it.

use std::collections::{BTreeMap, BTreeSet};

use proptest::prelude::*;

use super::*;
use ContainerEventType::{CreateImage, CreateImageTag, DeleteImage, DeleteImageTag};

const SECOND: i64 = 1_000_000;

fn push<'a>(digest: &'a str, tag: &'a str) -> Push<'a> {
    Push { digest, tag: Some(tag), is_told: true, tells_untagged: false }
}

/// Changes in short: type, image, tag.
fn short(changes: &[Change]) -> Vec<(ContainerEventType, &str, &str)> {
    changes.iter().map(|change| (change.event_type, &*change.digest, &*change.tag)).collect()
}

#[test]
fn a_first_push_makes_an_image_and_its_tag_and_a_second_tag_only_a_tag() {
    let mut repository = Repository::default();
    let out = repository.push(push("d1", "v1"), SECOND, false);
    assert_eq!(short(&out.changes), [(CreateImage, "d1", "v1"), (CreateImageTag, "d1", "v1")]);
    assert!(out.doubts.is_empty());
    let out = repository.push(push("d1", "stable"), 2 * SECOND, false);
    assert_eq!(short(&out.changes), [(CreateImageTag, "d1", "stable")]);
    assert_eq!(repository.push(push("d1", "v1"), 3 * SECOND, false), Outcome::default());
}

#[test]
fn a_tag_that_moves_leaves_the_old_image_and_makes_the_new_one_if_it_is_new() {
    let mut repository = Repository::default();
    repository.push(push("d1", "v1"), 0, false);
    let out = repository.push(push("d2", "v1"), 10 * SECOND, false);
    let moved = [(DeleteImageTag, "d1", "v1"), (CreateImage, "d2", "v1"), (CreateImageTag, "d2", "v1")];
    assert_eq!(short(&out.changes), moved);
    assert!(out.doubts.is_empty());
    let out = repository.push(push("d1", "v1"), 20 * SECOND, false);
    assert_eq!(short(&out.changes), [(DeleteImageTag, "d2", "v1"), (CreateImageTag, "d1", "v1")]);
}

#[test]
fn an_image_that_is_deleted_takes_its_tags_along_and_matches_by_them() {
    let mut repository = Repository::default();
    repository.push(push("d1", "v1"), 0, false);
    repository.push(push("d1", "v2"), 0, false);
    repository.push(push("d2", "v3"), 0, false);
    let out = repository.delete_image("d1", SECOND);
    let gone = [(DeleteImage, "d1", ""), (DeleteImageTag, "d1", "v1"), (DeleteImageTag, "d1", "v2")];
    assert_eq!(short(&out.changes), gone);
    assert_eq!(out.changes[0].tags, ["v1", "v2"]);
    assert_eq!(repository.delete_image("d1", SECOND), Outcome::default());
    assert_eq!(repository.delete_tag("v1", None, SECOND, false), Outcome::default());
    let out = repository.delete_all(SECOND);
    assert_eq!(short(&out.changes), [(DeleteImage, "d2", ""), (DeleteImageTag, "d2", "v3")]);
    assert_eq!(repository, Repository::default());
}

#[test]
fn a_tag_that_is_removed_leaves_its_image_which_is_asked_after_if_it_has_no_other() {
    let mut repository = Repository::default();
    repository.push(push("d1", "v1"), 0, false);
    repository.push(push("d1", "v2"), 0, false);
    let out = repository.delete_tag("v1", None, SECOND, false);
    assert_eq!(short(&out.changes), [(DeleteImageTag, "d1", "v1")]);
    assert!(out.doubts.is_empty());
    assert_eq!(repository.delete_tag("v2", Some("d9"), SECOND, false), Outcome::default());
    let out = repository.delete_tag("v2", Some("d1"), SECOND, false);
    assert_eq!(short(&out.changes), [(DeleteImageTag, "d1", "v2")]);
    assert_eq!(out.doubts, [Doubt::Image("d1".into())]);
    assert!(repository.images.contains_key("d1"));
}

#[test]
fn what_is_pushed_without_a_tag_waits_for_its_first_one_unless_it_is_wanted_at_once() {
    let untagged = Push { digest: "d1", tag: None, is_told: true, tells_untagged: false };
    let mut repository = Repository::default();
    assert_eq!(repository.push(untagged, 0, false), Outcome::default());
    let out = repository.push(push("d1", "v1"), SECOND, false);
    assert_eq!(short(&out.changes), [(CreateImage, "d1", "v1"), (CreateImageTag, "d1", "v1")]);

    let mut repository = Repository::default();
    let out = repository.push(Push { tells_untagged: true, ..untagged }, 0, false);
    assert_eq!(short(&out.changes), [(CreateImage, "d1", "")]);
    let out = repository.push(push("d1", "v1"), SECOND, false);
    assert_eq!(short(&out.changes), [(CreateImageTag, "d1", "v1")]);
}

#[test]
fn what_is_no_image_is_known_and_never_told() {
    let mut repository = Repository::default();
    let chart = Push { is_told: false, ..push("c1", "v1") };
    assert_eq!(repository.push(chart, 0, false), Outcome::default());
    let out = repository.push(push("d1", "v1"), 10 * SECOND, false);
    assert_eq!(short(&out.changes), [(CreateImage, "d1", "v1"), (CreateImageTag, "d1", "v1")]);
    let out = repository.push(chart, 20 * SECOND, false);
    assert_eq!(short(&out.changes), [(DeleteImageTag, "d1", "v1")]);
    assert_eq!(repository.delete_image("c1", 30 * SECOND), Outcome::default());
    assert!(repository.tags.is_empty());
}

#[test]
fn what_is_older_than_what_is_known_is_asked_after_and_not_believed() {
    let mut repository = Repository::default();
    repository.push(push("d2", "v1"), 100 * SECOND, false);
    let before = repository.clone();
    let out = repository.push(push("d1", "v1"), 99 * SECOND, false);
    assert_eq!(out, Outcome { changes: vec![], doubts: vec![Doubt::Tag("v1".into())] });
    let out = repository.delete_tag("v1", None, 99 * SECOND, false);
    assert_eq!(out, Outcome { changes: vec![], doubts: vec![Doubt::Tag("v1".into())] });
    let out = repository.delete_image("d2", 99 * SECOND);
    assert_eq!(out, Outcome { changes: vec![], doubts: vec![Doubt::Image("d2".into())] });
    assert_eq!(repository, before);
}

#[test]
fn parallel_writers_of_a_tag_and_senders_without_an_order_are_asked_after() {
    let mut repository = Repository::default();
    repository.push(push("d1", "v1"), 100 * SECOND, false);
    let out = repository.push(push("d2", "v1"), 101 * SECOND, false);
    assert_eq!(out.changes.len(), 3);
    assert_eq!(out.doubts, [Doubt::Tag("v1".into())]);
    let out = repository.push(push("d3", "v2"), 200 * SECOND, true);
    assert_eq!(out.changes.len(), 2);
    assert_eq!(out.doubts, [Doubt::Tag("v2".into())]);
}

#[test]
fn a_snapshot_tells_what_was_missed_once() {
    let mut repository = Repository::default();
    for (digest, tag) in [("d1", "v1"), ("d1", "old"), ("d2", "v2"), ("d3", "v3")] {
        repository.push(push(digest, tag), 0, false);
    }
    let seen = |digest: &str| Some(Seen { digest: digest.into(), is_told: true });
    let snapshot = Snapshot {
        tags: [("v1".into(), seen("d1")), ("v2".into(), seen("d9")), ("new".into(), seen("d1"))].into(),
        is_complete: true,
        gone: ["d3".to_owned(), "unknown".to_owned()].into(),
        unread: BTreeSet::new(),
        as_of: SECOND,
    };
    let told = [
        (DeleteImage, "d3", ""),
        (DeleteImageTag, "d3", "v3"),
        (DeleteImageTag, "d1", "old"),
        (CreateImageTag, "d1", "new"),
        (DeleteImageTag, "d2", "v2"),
        (CreateImage, "d9", "v2"),
        (CreateImageTag, "d9", "v2"),
    ];
    assert_eq!(short(&repository.compare(&snapshot)), told);
    assert_eq!(repository.compare(&snapshot), []);
    // Part of a repository says nothing about the rest of it.
    let part = Snapshot { tags: [("v1".into(), None)].into(), ..Snapshot::default() };
    assert_eq!(short(&repository.compare(&part)), [(DeleteImageTag, "d1", "v1")]);
    assert_eq!(repository.tags.len(), 2);
}

/// What is done in a registry.
#[derive(Debug, Clone)]
enum Operation {
    Push(u8, u8),
    PushUntagged(u8),
    DeleteImage(u8),
    DeleteTag(u8),
}

/// The registry itself: tags, and the manifests that are there.
#[derive(Debug, Default)]
struct Registry {
    tags: BTreeMap<String, String>,
    manifests: BTreeSet<String>,
}

/// What it tells of an operation.
#[derive(Debug, Clone)]
enum Told {
    Push(String, Option<String>),
    DeleteImage(String),
    DeleteTag(String),
}

fn digest(number: u8) -> String {
    format!("d{number}")
}

fn tag(number: u8) -> String {
    format!("v{number}")
}

impl Registry {
    /// Does an operation, and tells of it as CNCF Distribution does.
    fn run(&mut self, operation: &Operation) -> Vec<Told> {
        match operation {
            Operation::Push(image, name) => {
                self.manifests.insert(digest(*image));
                self.tags.insert(tag(*name), digest(*image));
                vec![Told::Push(digest(*image), Some(tag(*name)))]
            }
            Operation::PushUntagged(image) => {
                self.manifests.insert(digest(*image));
                vec![Told::Push(digest(*image), None)]
            }
            Operation::DeleteImage(image) => {
                let digest = digest(*image);
                if !self.manifests.remove(&digest) {
                    return vec![];
                }
                let tags: Vec<_> =
                    self.tags.iter().filter(|(_, of)| **of == digest).map(|(tag, _)| tag.clone()).collect();
                self.tags.retain(|_, of| *of != digest);
                std::iter::once(Told::DeleteImage(digest))
                    .chain(tags.into_iter().map(Told::DeleteTag))
                    .collect()
            }
            Operation::DeleteTag(name) => match self.tags.remove(&tag(*name)) {
                Some(_) => vec![Told::DeleteTag(tag(*name))],
                None => vec![],
            },
        }
    }

    /// All that it holds, as a reconciliation reads it.
    fn snapshot(&self, known: &Repository, as_of: i64) -> Snapshot {
        let seen = |digest: &String| Some(Seen { digest: digest.clone(), is_told: true });
        Snapshot {
            tags: self.tags.iter().map(|(tag, digest)| (tag.clone(), seen(digest))).collect(),
            is_complete: true,
            gone: known.images.keys().filter(|digest| !self.manifests.contains(*digest)).cloned().collect(),
            unread: BTreeSet::new(),
            as_of,
        }
    }
}

/// Who believes every change that is told, and is told nothing that is so already.
#[derive(Debug, Default, PartialEq, Eq)]
struct Listener {
    tags: BTreeMap<String, String>,
    images: BTreeSet<String>,
}

impl Listener {
    fn hear(&mut self, changes: &[Change]) {
        for Change { event_type, digest, tag, .. } in changes {
            match event_type {
                CreateImage => assert!(self.images.insert(digest.clone()), "{digest} was made twice"),
                DeleteImage => assert!(self.images.remove(digest), "{digest} was deleted and not there"),
                CreateImageTag => {
                    assert!(self.images.contains(digest), "{tag} names {digest}, which is not there");
                    let old = self.tags.insert(tag.clone(), digest.clone());
                    assert_eq!(old, None, "{tag} was set and not removed");
                }
                DeleteImageTag => {
                    assert_eq!(
                        self.tags.remove(tag),
                        Some(digest.clone()),
                        "{tag} was removed and not so set"
                    );
                }
            }
        }
    }
}

/// A reading that takes its time: tags are listed first, and asked for one by one while things go on.
struct SlowReading {
    end: usize,
    before: Repository,
    to_ask: Vec<String>,
    tags: BTreeMap<String, Option<Seen>>,
    touched: BTreeSet<String>,
}

impl SlowReading {
    fn begin(registry: &Registry, known: &Repository, end: usize) -> Self {
        let to_ask = registry.tags.keys().cloned().collect();
        Self { end, before: known.clone(), to_ask, tags: BTreeMap::new(), touched: BTreeSet::new() }
    }

    fn look(&mut self, registry: &Registry) {
        let Some(tag) = self.to_ask.pop() else { return };
        let seen = registry.tags.get(&tag);
        self.tags.insert(tag, seen.map(|digest| Seen { digest: digest.clone(), is_told: true }));
    }

    fn finish(mut self, registry: &Registry, now: &Repository, as_of: i64) -> Snapshot {
        while !self.to_ask.is_empty() {
            self.look(registry);
        }
        let is_gone = |digest: &&String| !registry.manifests.contains(*digest);
        let gone = self.before.images.keys().filter(is_gone).cloned().collect();
        let unread = BTreeSet::new();
        let snapshot = Snapshot { tags: self.tags, is_complete: true, gone, unread, as_of };
        snapshot.settled(&self.before, now, &self.touched)
    }
}

fn operation() -> impl Strategy<Value = Operation> {
    prop_oneof![
        4 => (0..4u8, 0..4u8).prop_map(|(image, name)| Operation::Push(image, name)),
        1 => (0..4u8).prop_map(Operation::PushUntagged),
        2 => (0..4u8).prop_map(Operation::DeleteImage),
        1 => (0..4u8).prop_map(Operation::DeleteTag),
    ]
}

/// What happens to a notification on its way: how often it comes, and how much later.
fn fate() -> impl Strategy<Value = (usize, usize)> {
    (
        prop_oneof![6 => Just(1usize), 1 => Just(0usize), 1 => Just(2usize)],
        prop_oneof![6 => Just(0usize), 2 => 1..12usize],
    )
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2000))]

    /// Any history, told with losses, repetitions and in another order, and with readings of the registry in between:
    /// after the last of them what is known is what there is, and who heard all changes knows the same.
    #[test]
    fn any_history_is_told_once_in_net_effect(
        history in prop::collection::vec((operation(), fate(), any::<bool>()), 1..60),
        readings in prop::collection::vec((0..80usize, 0..10usize), 0..4),
        seconds in 1..10i64,
    ) {
        let mut registry = Registry::default();
        let mut on_their_way: Vec<(usize, usize, i64, Told)> = Vec::new();
        for (number, (operation, (copies, delay), is_reordered)) in history.iter().enumerate() {
            let at = (number as i64 + 1) * seconds * SECOND;
            for told in registry.run(operation) {
                for copy in 0..*copies {
                    let delay = if *is_reordered { *delay + 3 * copy } else { 0 };
                    on_their_way.push((number + delay, on_their_way.len(), at, told.clone()));
                }
            }
        }
        on_their_way.sort_by_key(|(due, order, ..)| (*due, *order));

        // The registry runs again, beside the notifications.
        let mut registry = Registry::default();
        let (mut known, mut listener) = (Repository::default(), Listener::default());
        let mut notifications = on_their_way.into_iter().peekable();
        let mut under_way: Vec<SlowReading> = Vec::new();
        for step in 0..history.len() + 80 {
            let now = (step as i64 + 1) * seconds * SECOND;
            if let Some((operation, ..)) = history.get(step) {
                registry.run(operation);
            }
            while let Some((.., at, told)) = notifications.next_if(|(due, ..)| *due <= step) {
                let is_unsure = now - at > 10 * SECOND;
                let names = match &told {
                    Told::Push(digest, tag) => vec![Some(digest), tag.as_ref()],
                    Told::DeleteImage(digest) => vec![Some(digest)],
                    Told::DeleteTag(tag) => vec![Some(tag)],
                };
                for reading in &mut under_way {
                    reading.touched.extend(names.iter().flatten().map(|name| (*name).clone()));
                }
                let out = match &told {
                    Told::Push(digest, tag) => {
                        let push = Push { digest, tag: tag.as_deref(), is_told: true, tells_untagged: false };
                        known.push(push, at, is_unsure)
                    }
                    Told::DeleteImage(digest) => known.delete_image(digest, at),
                    Told::DeleteTag(tag) => known.delete_tag(tag, None, at, is_unsure),
                };
                listener.hear(&out.changes);
                for doubt in out.doubts {
                    let mut snapshot = Snapshot { as_of: now, ..Snapshot::default() };
                    match doubt {
                        Doubt::Tag(tag) => {
                            let seen = registry.tags.get(&tag);
                            let seen = seen.map(|digest| Seen { digest: digest.clone(), is_told: true });
                            snapshot.tags.insert(tag, seen);
                        }
                        Doubt::Image(digest) if !registry.manifests.contains(&digest) => {
                            snapshot.gone.insert(digest);
                        }
                        Doubt::Image(_) => {}
                    }
                    listener.hear(&known.compare(&snapshot));
                }
            }
            for (_, length) in readings.iter().filter(|(start, _)| *start == step) {
                under_way.push(SlowReading::begin(&registry, &known, step + length));
            }
            let (ended, going) = under_way.into_iter().partition(|reading| reading.end <= step);
            under_way = going;
            under_way.iter_mut().for_each(|reading| reading.look(&registry));
            let ended: Vec<SlowReading> = ended;
            for reading in ended {
                let snapshot = reading.finish(&registry, &known, now);
                listener.hear(&known.compare(&snapshot));
            }
        }
        let end = (history.len() as i64 + 100) * seconds * SECOND;
        listener.hear(&known.compare(&registry.snapshot(&known, end)));
        prop_assert_eq!(&known.compare(&registry.snapshot(&known, end)), &vec![]);

        let tags: BTreeMap<_, _> = known.tags.iter().map(|(tag, of)| (tag.clone(), of.digest.clone())).collect();
        prop_assert_eq!(&tags, &registry.tags);
        prop_assert!(known.images.keys().all(|digest| registry.manifests.contains(digest)));
        prop_assert!(tags.values().all(|digest| known.images.contains_key(digest)));
        let told = Listener { tags, images: known.images.keys().cloned().collect() };
        prop_assert_eq!(listener, told);
    }

    /// Nothing lost and nothing late: every change is told as it happens, and nothing remains for a reading, not even for
    /// one that takes long while things go on.
    #[test]
    fn a_history_that_is_told_whole_leaves_nothing_to_reconcile(
        history in prop::collection::vec(operation(), 1..60),
        readings in prop::collection::vec((0..60usize, 0..20usize), 0..6),
    ) {
        let mut registry = Registry::default();
        let (mut known, mut listener) = (Repository::default(), Listener::default());
        let mut under_way: Vec<SlowReading> = Vec::new();
        for (number, operation) in history.iter().enumerate() {
            let at = (number as i64 + 1) * 10 * SECOND;
            for (_, length) in readings.iter().filter(|(start, _)| *start == number) {
                under_way.push(SlowReading::begin(&registry, &known, number + length));
            }
            for told in registry.run(operation) {
                let (out, names) = match told {
                    Told::Push(digest, tag) => {
                        let tag = tag.as_deref();
                        let push = Push { digest: &digest, tag, is_told: true, tells_untagged: false };
                        let names = vec![Some(digest.clone()), tag.map(ToOwned::to_owned)];
                        (known.push(push, at, false), names)
                    }
                    Told::DeleteImage(digest) => (known.delete_image(&digest, at), vec![Some(digest)]),
                    Told::DeleteTag(tag) => (known.delete_tag(&tag, None, at, false), vec![Some(tag)]),
                };
                under_way.iter_mut().for_each(|reading| reading.touched.extend(names.iter().flatten().cloned()));
                listener.hear(&out.changes);
            }
            under_way.iter_mut().for_each(|reading| reading.look(&registry));
            let (ended, going): (Vec<_>, _) = under_way.into_iter().partition(|reading| reading.end <= number);
            under_way = going;
            for reading in ended {
                let snapshot = reading.finish(&registry, &known, at);
                prop_assert_eq!(known.compare(&snapshot), vec![]);
            }
        }
        prop_assert_eq!(known.compare(&registry.snapshot(&known, i64::MAX)), vec![]);
        prop_assert_eq!(listener.tags, registry.tags);
    }
}
