//! Tests of the store: what is durable, what is refused, and what one job does to another.

use std::time::UNIX_EPOCH;

use proptest::prelude::*;

use super::index::{MAX_UNTOLD, Observation, Registry, What};
use super::*;
use crate::container_registry::repository::{Doubt, Push, Repository, Seen, Snapshot};
use crate::container_registry::touched::{Reading, Touched};
use crate::model::container::tests::registry as declared;
use crate::model::container::{ContainerEventType, Trace};

const SECOND: i64 = 1_000_000;

fn push(id: Option<&str>, digest: &str, tag: &str, at: i64) -> Observation {
    Observation {
        repository: "team/app".into(),
        what: What::Push {
            digest: digest.into(),
            tag: Some(tag.into()),
            is_told: true,
            tells_untagged: false,
        },
        at: at * SECOND,
        created_at: UNIX_EPOCH,
        is_unsure: false,
        id: id.map(Into::into),
        trace: Trace::of("operation", "cause"),
    }
}

async fn registry(store: &Store, id: &'static str) -> Registry {
    let (number, _) = store.work(move |job| index::open(job, id, &["all".to_owned()])).await.unwrap();
    Registry { number, declared: Arc::new(declared(id)), has_triggers: Arc::new(true.into()) }
}

async fn observe(
    store: &Store,
    registry: &Registry,
    observation: Observation,
) -> Result<index::Observed, StoreError> {
    let registry = registry.clone();
    store.try_work(move |job| index::observe(job, &registry, &[observation])).await
}

async fn untold(store: &Store, registry: &Registry) -> Vec<(ContainerEventType, String)> {
    let registry = registry.clone();
    let (rows, _) = store.read(move |job| index::untold(job, &registry, 0, 1000)).await.unwrap();
    rows.into_iter().map(|row| (row.event_type, row.tags)).collect()
}

#[tokio::test]
async fn what_was_answered_is_there_after_a_restart_and_known() {
    use ContainerEventType::{CreateImage, CreateImageTag};
    let folder = tempfile::tempdir().unwrap();
    let store = Store::open(folder.path()).unwrap();
    let images = registry(&store, "images").await;
    let observed = observe(&store, &images, push(Some("e1"), "d1", "v1", 1)).await.unwrap();
    assert_eq!((observed.events, observed.duplicates), (2, 0));
    // Not closed: as after a kill.
    let copy = tempfile::tempdir().unwrap();
    for file in std::fs::read_dir(folder.path()).unwrap() {
        let file = file.unwrap().path();
        std::fs::copy(&file, copy.path().join(file.file_name().unwrap())).unwrap();
    }
    let store = Store::open(copy.path()).unwrap();
    let images = registry(&store, "images").await;
    assert_eq!(untold(&store, &images).await, [(CreateImage, "v1".into()), (CreateImageTag, "v1".into())]);
    let again = observe(&store, &images, push(Some("e1"), "d2", "v1", 2)).await.unwrap();
    assert_eq!((again.events, again.duplicates), (0, 1), "the sender's id is known");
    let again = observe(&store, &images, push(None, "d1", "v1", 2)).await.unwrap();
    assert_eq!(again.events, 0, "what is so is no news");
    store.close();
}

#[tokio::test]
async fn registries_do_not_see_each_other_and_what_was_taken_goes() {
    let folder = tempfile::tempdir().unwrap();
    let store = Store::open(folder.path()).unwrap();
    let (one, two) = (registry(&store, "one").await, registry(&store, "two").await);
    let (newest_one, newest_two) = (store.newest(one.number), store.newest(two.number));
    observe(&store, &one, push(Some("e"), "d1", "v1", 1)).await.unwrap();
    assert_eq!((*newest_one.borrow(), *newest_two.borrow()), (2, 0));
    assert_eq!(observe(&store, &two, push(Some("e"), "d1", "v1", 1)).await.unwrap().events, 2);
    assert_eq!(*newest_two.borrow(), 2);
    store.taken(one.number, "all".into(), 2);
    store.taken(two.number, "all".into(), 1);
    observe(&store, &one, push(None, "d1", "v1", 1)).await.unwrap();
    assert_eq!(untold(&store, &one).await, []);
    assert_eq!(untold(&store, &two).await.len(), 1);
    store.close();
    assert!(matches!(observe(&store, &one, push(None, "d1", "v1", 1)).await, Err(StoreError::Ended)));
    // Numbers are never used again: who stands at one must not miss what comes.
    let store = Store::open(folder.path()).unwrap();
    let two = registry(&store, "two").await;
    store.taken(two.number, "all".into(), 2);
    observe(&store, &two, push(None, "d1", "v2", 1)).await.unwrap();
    let newest = {
        let two = two.clone();
        store.read(move |job| index::untold(job, &two, 2, 10))
    };
    assert_eq!(newest.await.unwrap().1, 3);
    store.close();
}

#[tokio::test]
async fn sources_go_on_where_they_were_and_new_ones_begin_with_what_comes() {
    let folder = tempfile::tempdir().unwrap();
    let store = Store::open(folder.path()).unwrap();
    async fn open(store: &Store, sources: &[&str]) -> Result<(i64, Vec<i64>), StoreError> {
        let sources: Vec<_> = sources.iter().map(|source| (*source).to_owned()).collect();
        store.work(move |job| index::open(job, "images", &sources)).await
    }
    let (number, cursors) = open(&store, &["a", "b"]).await.unwrap();
    assert_eq!(cursors, [0, 0]);
    let images =
        Registry { number, declared: Arc::new(declared("images")), has_triggers: Arc::new(true.into()) };
    observe(&store, &images, push(None, "d1", "v1", 1)).await.unwrap();
    store.taken(number, "a".into(), 2);
    store.taken(number, "b".into(), 1);
    // Nothing else is written: it is, soon.
    let began = Instant::now();
    while untold(&store, &images).await.len() != 1 {
        assert!(began.elapsed() < Duration::from_secs(20), "what was taken is not written");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    store.close();
    let store = Store::open(folder.path()).unwrap();
    let (_, cursors) = open(&store, &["a", "b", "new"]).await.unwrap();
    assert_eq!(cursors, [2, 1, 2]);
    let (_, cursors) = open(&store, &["new", "a"]).await.unwrap();
    assert_eq!(cursors, [2, 2]);
    assert_eq!(untold(&store, &images).await, [], "only the source that is gone has not taken it");
    store.close();
}

#[tokio::test]
async fn a_registry_without_triggers_is_followed_and_not_told() {
    let folder = tempfile::tempdir().unwrap();
    let store = Store::open(folder.path()).unwrap();
    let images = registry(&store, "images").await;
    observe(&store, &images, push(None, "d1", "v1", 1)).await.unwrap();
    let (number, _) = store.work(|job| index::open(job, "images", &[])).await.unwrap();
    let silent = Registry { has_triggers: Arc::default(), number, ..images.clone() };
    assert_eq!(untold(&store, &silent).await, [], "nobody will take what was left");
    observe(&store, &silent, push(None, "d2", "v1", 10)).await.unwrap();
    assert_eq!(untold(&store, &silent).await, []);
    assert_eq!(observe(&store, &images, push(None, "d2", "v1", 20)).await.unwrap().events, 0);
    // One that is followed no more keeps nothing.
    observe(&store, &images, push(None, "d3", "v1", 30)).await.unwrap();
    store.work(|job| index::retire_others(job, &[])).await.unwrap();
    assert_eq!(untold(&store, &images).await, []);
    store.close();
}

#[tokio::test]
async fn jobs_that_find_no_room_are_refused() {
    let folder = tempfile::tempdir().unwrap();
    let store = Arc::new(Store::open(folder.path()).unwrap());
    let images = registry(&store, "images").await;
    let (go, gate) = mpsc::channel::<()>();
    let held = {
        let store = Arc::clone(&store);
        tokio::spawn(async move {
            store
                .work(move |_| {
                    let _ = gate.recv();
                    Ok(())
                })
                .await
        })
    };
    while store.room.available_permits() == WAITING {
        tokio::task::yield_now().await;
    }
    let waiting: Vec<_> = (1..WAITING)
        .map(|_| {
            let store = Arc::clone(&store);
            tokio::spawn(async move { store.try_work(|_| Ok(())).await })
        })
        .collect();
    while store.room.available_permits() > 0 {
        tokio::task::yield_now().await;
    }
    assert!(matches!(observe(&store, &images, push(None, "d1", "v1", 1)).await, Err(StoreError::Busy)));
    drop(go);
    held.await.unwrap().unwrap();
    for job in waiting {
        job.await.unwrap().unwrap();
    }
    assert_eq!(observe(&store, &images, push(None, "d1", "v1", 1)).await.unwrap().events, 2);
    store.close();
}

#[tokio::test]
async fn a_full_outbox_refuses_what_is_new_and_changes_nothing() {
    let folder = tempfile::tempdir().unwrap();
    let store = Store::open(folder.path()).unwrap();
    let images = registry(&store, "images").await;
    let number = images.number;
    let fill = store.work(move |job| {
        let sql = "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < ?2)
            INSERT INTO outbox (key, event_type, repository, tags, data) SELECT (?1 << 47) + i, 0, 'a', '', x'' FROM n";
        let filled = job.db.execute(sql, rusqlite::params![number, MAX_UNTOLD as i64])?;
        job.db.execute("UPDATE registries SET newest = ?", [MAX_UNTOLD as i64])?;
        Ok(filled)
    });
    assert_eq!(fill.await.unwrap(), MAX_UNTOLD);
    let refused = observe(&store, &images, push(Some("e1"), "d1", "v1", 1)).await;
    assert!(matches!(refused, Err(StoreError::Full(MAX_UNTOLD))), "{refused:?}");
    store.taken(number, "all".into(), MAX_UNTOLD as i64);
    store.work(|_| Ok(())).await.unwrap();
    let taken = observe(&store, &images, push(Some("e1"), "d1", "v1", 1)).await.unwrap();
    assert_eq!((taken.events, taken.duplicates), (2, 0), "the refused one has left no trace");
    store.close();
}

#[tokio::test]
async fn a_job_that_fails_takes_no_other_with_it_and_a_panic_is_survived() {
    let folder = tempfile::tempdir().unwrap();
    let store = Arc::new(Store::open(folder.path()).unwrap());
    let images = registry(&store, "images").await;
    let observing = {
        let images = images.clone();
        store.work(move |job| {
            index::observe(job, &images, &[push(None, "d9", "v9", 1)])?;
            job.db.execute("SELECT nothing FROM nowhere", [])?;
            Ok(())
        })
    };
    let (failed, good) = tokio::join!(observing, observe(&store, &images, push(None, "d1", "v1", 1)));
    assert!(failed.unwrap_err().to_string().contains("nowhere"));
    assert_eq!(good.unwrap().events, 2);
    assert_eq!(untold(&store, &images).await.len(), 2, "what failed is rolled back");
    let panicked = store.work(|_| -> Result<(), StoreError> { panic!("on purpose") }).await;
    assert!(matches!(panicked, Err(StoreError::Ended)));
    let mut condition = store.condition();
    let mut is = async |wanted: fn(&Condition) -> bool| {
        tokio::time::timeout(Duration::from_secs(20), condition.wait_for(wanted)).await.unwrap().unwrap();
    };
    is(|now| matches!(now, Condition::Failing { error, .. } if error.contains("panic"))).await;
    assert_eq!(observe(&store, &images, push(None, "d1", "v2", 1)).await.unwrap().events, 1);
    is(|now| *now == Condition::Running).await;
    store.close();
}

fn snapshot(tags: &[(&str, &str)]) -> Snapshot {
    let seen = |digest: &str| Some(Seen { digest: digest.to_owned(), is_told: true });
    let tags = tags.iter().map(|(tag, digest)| ((*tag).to_owned(), seen(digest))).collect();
    Snapshot { tags, is_complete: true, as_of: 10 * SECOND, ..Snapshot::default() }
}

struct Reader {
    store: Arc<Store>,
    registry: Registry,
    touched: Arc<Touched>,
}

impl Reader {
    async fn read(&self) -> Repository {
        let registry = self.registry.clone();
        self.store.read(move |job| index::read(job, &registry, "team/app")).await.unwrap()
    }

    async fn apply(&self, reading: Reading, before: Repository, snapshot: Snapshot) -> usize {
        let registry = self.registry.clone();
        let trace = Trace::of("o", "c");
        let work = move |job: &mut Job<'_>| index::apply(job, &registry, &reading, &before, snapshot, &trace);
        self.store.work(work).await.unwrap().events
    }
}

#[tokio::test]
async fn what_has_changed_since_a_repository_was_read_is_left_as_it_is() {
    let folder = tempfile::tempdir().unwrap();
    let store = Arc::new(Store::open(folder.path()).unwrap());
    let registry = registry(&store, "images").await;
    let touched = Arc::new(Touched::default());
    let reader =
        Reader { store: Arc::clone(&store), registry: registry.clone(), touched: Arc::clone(&touched) };
    observe(&store, &registry, push(None, "d0", "old", 1)).await.unwrap();
    let named = registry.clone();
    store.work(move |job| index::name_all(job, &named, &[])).await.unwrap();
    let read = reader.touched.read("team/app");
    assert_eq!(reader.apply(read, reader.read().await, snapshot(&[("old", "d0")])).await, 0);

    let (reading, before) = (reader.touched.read("team/app"), reader.read().await);
    // Meanwhile a tag is set, and one that is not known is removed.
    observe(&store, &registry, push(None, "d2", "v1", 20)).await.unwrap();
    touched.note("team/app", ["gone"]);
    let found = snapshot(&[("v1", "d1"), ("gone", "d1"), ("v2", "d1")]);
    assert_eq!(reader.apply(reading, before, found).await, 3, "old goes, v2 comes");
    let known = reader.read().await;
    let tags: Vec<_> = known.tags.iter().map(|(tag, of)| (tag.as_str(), of.digest.as_str())).collect();
    assert_eq!(tags, [("v1", "d2"), ("v2", "d1")]);
    // Nothing has changed since this one.
    let (reading, before) = (reader.touched.read("team/app"), reader.read().await);
    assert_eq!(reader.apply(reading, before, snapshot(&[("v1", "d1"), ("v2", "d1")])).await, 2);
    // What is older than the reading is not believed.
    let late = observe(&store, &registry, push(None, "d2", "v1", 9)).await.unwrap();
    assert_eq!((late.events, late.doubts), (0, vec![("team/app".into(), Doubt::Tag("v1".into()))]));
    store.close();
}

#[tokio::test]
async fn the_first_reading_of_what_was_there_before_tells_nothing() {
    let folder = tempfile::tempdir().unwrap();
    let store = Arc::new(Store::open(folder.path()).unwrap());
    let registry = registry(&store, "images").await;
    let reader = Reader { store: Arc::clone(&store), registry: registry.clone(), touched: Arc::default() };
    let name_all = |names: &[&str]| {
        let names: Vec<_> = names.iter().map(|name| (*name).to_owned()).collect();
        let registry = registry.clone();
        store.work(move |job| index::name_all(job, &registry, &names))
    };
    name_all(&["team/app", "unreadable", "partly"]).await.unwrap();
    // Told by a notification before it was read: told, and the rest is not.
    assert_eq!(observe(&store, &registry, push(None, "d9", "v9", 1)).await.unwrap().events, 2);
    observe(&store, &registry, push(None, "d8", "v8", 1)).await.unwrap();
    let found = || snapshot(&[("v1", "d1"), ("v9", "d9")]);
    let told = reader.apply(reader.touched.read("team/app"), reader.read().await, found()).await;
    assert_eq!(told, 1, "what was told and is not there goes: v8");
    let more = snapshot(&[("v1", "d1"), ("v2", "d1"), ("v9", "d9")]);
    assert_eq!(reader.apply(reader.touched.read("team/app"), reader.read().await, more).await, 1);
    // What could not be read the first time is no news the second.
    let partly = Snapshot { unread: ["old".to_owned()].into(), ..snapshot(&[("v1", "d1")]) };
    let whole = || snapshot(&[("v1", "d1"), ("old", "d1")]);
    let reading = || reader.touched.read("partly");
    assert_eq!(reader.apply(reading(), Repository::default(), partly).await, 0);
    let read = || {
        let registry = registry.clone();
        store.read(move |job| index::read(job, &registry, "partly"))
    };
    assert_eq!(reader.apply(reading(), read().await.unwrap(), whole()).await, 0);
    let gone = Snapshot { gone: ["d1".to_owned()].into(), ..snapshot(&[]) };
    assert_eq!(reader.apply(reading(), read().await.unwrap(), gone).await, 3);
    // What is new in a registry that is known is news, whatever has become of the others.
    name_all(&["team/app", "unreadable", "new"]).await.unwrap();
    let apply = |name: &'static str| {
        reader.apply(reader.touched.read(name), Repository::default(), snapshot(&[("v1", "d1")]))
    };
    assert_eq!(apply("new").await, 2);
    assert_eq!(apply("unreadable").await, 0);
    store.close();
}

#[tokio::test]
async fn a_database_of_another_kind_or_in_use_is_refused() {
    let folder = tempfile::tempdir().unwrap();
    let store = Store::open(folder.path()).unwrap();
    // Held by this process; SQLite waits a while for it.
    let again = Store::open(folder.path()).err().unwrap();
    assert!(again.to_string().contains("locked"), "{again}");
    store.close();
    drop(store);
    let other = tempfile::tempdir().unwrap();
    let db = Connection::open(other.path().join("registries.db")).unwrap();
    db.pragma_update(None, "user_version", 9).unwrap();
    drop(db);
    let error = Store::open(other.path()).err().unwrap();
    assert!(matches!(error, OpenError::Foreign(_, 9)), "{error}");
}

/// One of few repositories, images and tags, so that they meet.
fn observation() -> impl Strategy<Value = Observation> {
    let what = prop_oneof![
        4 => (0..3u8, 0..3u8, any::<bool>()).prop_map(|(image, tag, is_told)| What::Push {
            digest: format!("d{image}"),
            tag: Some(format!("v{tag}")),
            is_told,
            tells_untagged: false,
        }),
        1 => (0..3u8, any::<bool>()).prop_map(|(image, tells_untagged)| What::Push {
            digest: format!("d{image}"),
            tag: None,
            is_told: true,
            tells_untagged,
        }),
        2 => (0..3u8).prop_map(|image| What::DeleteImage { digest: format!("d{image}") }),
        1 => (0..3u8, prop::option::of(0..3u8)).prop_map(|(tag, image)| What::DeleteTag {
            tag: format!("v{tag}"),
            digest: image.map(|image| format!("d{image}")),
        }),
        1 => Just(What::DeleteRepository),
    ];
    (what, 0..2u8, 0..20i64, any::<bool>()).prop_map(|(what, repository, at, is_unsure)| Observation {
        repository: format!("r{repository}"),
        what,
        at: at * SECOND,
        is_unsure,
        ..push(None, "", "", 0)
    })
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(100))]

    /// Reading only the rows that an observation is about makes no difference.
    #[test]
    fn the_tables_do_as_whole_repositories_would(history in prop::collection::vec(observation(), 1..40)) {
        let mut wholes: std::collections::BTreeMap<String, Repository> = Default::default();
        let mut expected = index::Observed::default();
        for Observation { repository, what, at, is_unsure, .. } in &history {
            let whole = wholes.entry(repository.clone()).or_default();
            let out = match what {
                What::Push { digest, tag, is_told, tells_untagged } => {
                    let (is_told, tells_untagged) = (*is_told, *tells_untagged);
                    whole.push(Push { digest, tag: tag.as_deref(), is_told, tells_untagged }, *at, *is_unsure)
                }
                What::DeleteImage { digest } => whole.delete_image(digest, *at),
                What::DeleteTag { tag, digest } => whole.delete_tag(tag, digest.as_deref(), *at, *is_unsure),
                What::DeleteRepository => whole.delete_all(*at),
            };
            expected.events += out.changes.len();
            expected.doubts.extend(out.doubts.into_iter().map(|doubt| (repository.clone(), doubt)));
        }
        wholes.retain(|_, whole| *whole != Repository::default());
        let folder = tempfile::tempdir().unwrap();
        let store = Store::open(folder.path()).unwrap();
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        let (observed, all, told) = runtime.block_on(async {
            let registry = registry(&store, "images").await;
            let (one, two) = (registry.clone(), registry.clone());
            let observed = store.work(move |job| index::observe(job, &one, &history)).await.unwrap();
            let all = store.read(move |job| index::all(job, &two)).await.unwrap();
            (observed, all, untold(&store, &registry).await.len())
        });
        store.close();
        prop_assert_eq!(&observed, &expected);
        prop_assert_eq!(all, wholes);
        prop_assert_eq!(told, expected.events);
    }
}
