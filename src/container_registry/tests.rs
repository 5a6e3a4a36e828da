//! Tests of the whole way of a notification: what a real registry has sent, in; events of triggers, out.

use std::task::Poll;
use std::time::{Duration, Instant};

use super::*;
use crate::container_registry::notification::Headers;
use crate::container_registry::repository::Repository;
use crate::model::container::tests::registry;
use crate::model::container::{ContainerEventType, ContainerFilter, Reconcile};
use crate::model::event::Event;
use crate::model::event_id;
use crate::model::receipt::Arrivals;
use crate::model::trigger::{BatchSettings, Trigger};

struct NoHeaders;

impl Headers for NoHeaders {
    fn get(&self, _: &str) -> Option<&str> {
        None
    }
}

fn source(tag: Option<&str>) -> TriggerSource {
    let filter = ContainerFilter {
        event_types: ContainerEventType::ALL.into(),
        image_name: None,
        tag: tag.map(Into::into),
    };
    TriggerSource::ContainerRegistry { registry_id: "images".into(), filter }
}

async fn start(folder: &Path, sources: &[TriggerSource]) -> Registries {
    start_with(folder, registry("images"), sources).await
}

/// Follows a registry that is asked only on demand.
async fn start_asking(folder: &Path, address: std::net::SocketAddr) -> Registries {
    let reconcile = Reconcile { every: None, ..Reconcile::default() };
    let url = Some(format!("http://{address}"));
    start_with(folder, ContainerRegistry { url, reconcile, ..registry("images") }, &[]).await
}

async fn start_with(folder: &Path, declared: ContainerRegistry, sources: &[TriggerSource]) -> Registries {
    let trigger = |source: &TriggerSource| Trigger {
        id: "t".into(),
        pause: None,
        name: "t".into(),
        source: source.clone(),
        batch: BatchSettings::default(),
        actions: vec![],
    };
    let resources = Resources {
        container_registries: vec![declared],
        triggers: sources.iter().map(trigger).collect(),
        ..Resources::default()
    };
    Registries::start(folder, &resources, &Handle::current()).await.unwrap().unwrap()
}

impl Registries {
    async fn notify(&self, body: &[u8]) -> (usize, usize) {
        let followed = &self.by_id["images"];
        let notification = notification::read(&followed.registry.declared, &NoHeaders, body).unwrap();
        let ignored = notification.ignored;
        let observed = webhook::observe(Arc::clone(followed), notification).await.unwrap();
        (observed.events, ignored)
    }

    async fn index(&self) -> std::collections::BTreeMap<String, Repository> {
        let registry = self.by_id["images"].registry.clone();
        self.store.work(move |job| store::index::all(job, &registry)).await.unwrap()
    }
}

async fn next(link: &mut Link) -> Option<Arrivals> {
    let next = std::future::poll_fn(|cx| link.poll_next(cx));
    tokio::time::timeout(Duration::from_secs(20), next).await.expect("nothing came")
}

fn in_short(event: &Event) -> String {
    let json: serde_json::Value = serde_json::from_slice(&event.json).unwrap();
    let text = |value: &serde_json::Value| value.as_str().unwrap().to_owned();
    let event_type = text(&json["event_metadata"]["event_type"]);
    let event_type = event_type.rsplit('.').next().unwrap();
    let details = &json["details"];
    let digest = text(&details["image_digest"]);
    format!(
        "{event_type:14} {}:{} {}",
        text(&details["repository_name"]),
        text(&details["tag"]),
        &digest[7..15]
    )
}

/// Every body that one registry has sent, in order, by the file it stands in.
fn captured(files: &[&str], path: &str) -> Vec<(String, Vec<u8>)> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/container_registry");
    let mut names: Vec<_> = std::fs::read_dir(folder).unwrap().map(|file| file.unwrap().path()).collect();
    names.sort();
    let mut bodies = Vec::new();
    for file in names {
        let name = file.file_stem().unwrap().to_string_lossy().into_owned();
        if !files.iter().any(|prefix| name.starts_with(prefix)) {
            continue;
        }
        let json: serde_json::Value = serde_json::from_slice(&std::fs::read(&file).unwrap()).unwrap();
        let requests = json["requests"].as_array().unwrap();
        if requests.is_empty() {
            bodies.push((name, Vec::new()));
            continue;
        }
        for request in requests.iter().filter(|request| request["path"].as_str().unwrap().ends_with(path)) {
            bodies.push((name.clone(), request["body"].to_string().into_bytes()));
        }
    }
    assert!(!bodies.is_empty());
    bodies
}

/// What bodies become, file by file; each body twice, since senders repeat themselves.
async fn replay(bodies: &[(String, Vec<u8>)]) -> String {
    use std::fmt::Write as _;
    let folder = tempfile::tempdir().unwrap();
    let registries = start(folder.path(), &[source(None)]).await;
    let mut link = registries.link(&source(None), 0).unwrap();
    let mut text = String::new();
    let mut file = "";
    for (name, body) in bodies {
        if file != name {
            let _ = writeln!(text, "{name}");
            file = name;
        }
        if body.is_empty() {
            continue;
        }
        let (mut due, _) = registries.notify(body).await;
        assert_eq!(registries.notify(body).await.0, 0, "{name}: the same again is no news");
        while due > 0 {
            let Arrivals { events, receipt, .. } = next(&mut link).await.unwrap();
            due -= events.len();
            receipt.accept();
            for event in &events {
                let _ = writeln!(text, "  {}", in_short(event));
            }
        }
    }
    for (name, Repository { tags, images }) in registries.index().await {
        let tags: Vec<_> = tags.iter().map(|(tag, of)| format!("{tag}={}", &of.digest[7..15])).collect();
        let _ = writeln!(text, "at the end {name}: {}, {} images", tags.join(" "), images.len());
    }
    registries.close();
    text
}

#[tokio::test]
async fn everything_that_a_real_registry_sent_becomes_these_events() {
    let numbers: Vec<_> = (1..18).map(|number| format!("{number:02}")).collect();
    let numbers: Vec<_> = numbers.iter().map(String::as_str).collect();
    insta::assert_snapshot!("first_registry", replay(&captured(&numbers, "/ours")).await);
    for path in ["/ours", "/filtered"] {
        insta::assert_snapshot!("second_registry", replay(&captured(&["18", "19"], path)).await);
    }
    insta::assert_snapshot!("skopeo", replay(&captured(&["20", "21", "22", "23", "24"], "/ours")).await);
}

const DIGEST: &str = "sha256:e0b9cc7494c37459ce59467bb0201494f122fff19f6dd26b0d31eeedb99757dc";

fn pushed(tag: &str) -> Vec<u8> {
    let media_type = "application/vnd.docker.distribution.manifest.v2+json";
    let target =
        serde_json::json!({ "mediaType": media_type, "digest": DIGEST, "repository": "a", "tag": tag });
    serde_json::json!({ "events": [{ "action": "push", "target": target }] }).to_string().into_bytes()
}

#[tokio::test]
async fn a_link_gets_only_what_its_source_wants_and_goes_on_where_it_was() {
    let folder = tempfile::tempdir().unwrap();
    let sources = [source(None), source(Some("v2"))];
    let registries = start(folder.path(), &sources).await;
    let mut all = registries.link(&sources[0], 0).unwrap();
    let mut some = registries.link(&sources[1], 0).unwrap();
    for tag in ["v1", "v2", "v3"] {
        registries.notify(&pushed(tag)).await;
    }
    let Arrivals { events, receipt, .. } = next(&mut some).await.unwrap();
    assert_eq!(events.iter().map(in_short).collect::<Vec<_>>(), ["CreateImageTag images/a:v2 e0b9cc74"]);
    receipt.accept();
    let mut seen = 0;
    while seen < 4 {
        let Arrivals { events, receipt, .. } = next(&mut all).await.unwrap();
        seen += events.len();
        receipt.accept();
    }
    assert_eq!(seen, 4);
    // Both have taken everything, so nothing is kept.
    let registry = registries.by_id["images"].registry.clone();
    let left = async || {
        let registry = registry.clone();
        registries.store.read(move |job| store::index::untold(job, &registry, 0, 10)).await.unwrap().0.len()
    };
    let began = Instant::now();
    while left().await > 0 {
        assert!(began.elapsed() < Duration::from_secs(20), "what was taken is kept");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    all.close();
    assert!(next(&mut all).await.is_none());
    registries.notify(&pushed("v4")).await;
    let mut all = registries.link(&sources[0], 0).unwrap();
    let Arrivals { events, receipt, .. } = next(&mut all).await.unwrap();
    assert_eq!(events.iter().map(in_short).collect::<Vec<_>>(), ["CreateImageTag images/a:v4 e0b9cc74"]);
    receipt.accept();
    registries.close();
}

#[tokio::test]
async fn what_was_refused_is_offered_again_and_what_a_journal_has_is_not() {
    let folder = tempfile::tempdir().unwrap();
    let sources = [source(None)];
    let registries = start(folder.path(), &sources).await;
    let mut link = registries.link(&sources[0], 0).unwrap();
    registries.notify(&pushed("v1")).await;
    let Arrivals { events, receipt, .. } = next(&mut link).await.unwrap();
    let first = events[0].id;
    drop(receipt);
    assert!(next(&mut link).await.is_none(), "a chain that refuses starts again");
    // In the same process, without what a journal may have got: the same again.
    let began = Instant::now();
    while registries.end_link(&sources[0]).is_err() {
        assert!(began.elapsed() < Duration::from_secs(20), "the link does not end");
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
    let mut link = registries.link(&sources[0], 0).unwrap();
    let again = next(&mut link).await.unwrap();
    assert_eq!(again.events, events);
    assert!(registries.end_link(&sources[0]).is_err(), "what it handed over is not decided");
    drop(again);
    registries.close();
    drop(registries);

    // Another process; the journal had got the first event before the end.
    let registries = start(folder.path(), &sources).await;
    let mut link = registries.link(&sources[0], event_id::order(first)).unwrap();
    let Arrivals { events: again, receipt, .. } = next(&mut link).await.unwrap();
    assert_eq!(again, events[1..]);
    receipt.accept();
    registries.notify(&pushed("v2")).await;
    let Arrivals { events, receipt, .. } = next(&mut link).await.unwrap();
    assert_eq!(events.iter().map(in_short).collect::<Vec<_>>(), ["CreateImageTag images/a:v2 e0b9cc74"]);
    assert!(events[0].id > again[0].id);
    receipt.accept();
    registries.close();
}

#[tokio::test]
async fn a_link_waits_for_its_reader_and_the_outbox_holds_the_rest() {
    let folder = tempfile::tempdir().unwrap();
    let sources = [source(None)];
    let registries = start(folder.path(), &sources).await;
    let mut link = registries.link(&sources[0], 0).unwrap();
    for number in 0..300 {
        registries.notify(&pushed(&format!("v{number}"))).await;
    }
    let Arrivals { events, receipt, .. } = next(&mut link).await.unwrap();
    // Nothing more comes before the first group is accepted.
    let second = std::future::poll_fn(|cx| Poll::Ready(link.poll_next(cx).is_ready())).await;
    assert!(!second);
    receipt.accept();
    let mut seen = events.len();
    while seen < 301 {
        let Arrivals { events, receipt, .. } = next(&mut link).await.unwrap();
        seen += events.len();
        receipt.accept();
    }
    assert_eq!(seen, 301);
    registries.close();
}

#[tokio::test]
async fn doubts_that_find_no_room_make_a_reading_of_all() {
    let (address, asked) = client::tests::fake(|request, _| match request {
        "GET /v2/_catalog?n=1000" => ("200 OK", String::new(), r#"{"repositories":[]}"#.to_owned()),
        "GET /v2/" => ("200 OK", String::new(), "{}".to_owned()),
        _ => ("404 Not Found", String::new(), String::new()),
    })
    .await;
    let folder = tempfile::tempdir().unwrap();
    let registries = start_asking(folder.path(), address).await;
    // Two settings of a tag at once leave a doubt.
    let doubt = |number: usize| {
        [1, 2].map(|digest| {
            let target = serde_json::json!({
                "mediaType": "application/vnd.docker.distribution.manifest.v2+json",
                "digest": format!("sha256:{digest:064}"), "repository": "a", "tag": format!("v{number}"),
            });
            serde_json::json!({ "action": "push", "target": target })
        })
    };
    let is_read = || asked.lock().unwrap().iter().any(|(request, _)| request == "GET /v2/_catalog?n=1000");
    let events: Vec<_> = (0..10).flat_map(doubt).collect();
    registries.notify(serde_json::json!({ "events": events }).to_string().as_bytes()).await;
    tokio::task::yield_now().await;
    assert!(!is_read(), "there is room for some");
    let events: Vec<_> = (0..2 * QUESTIONS + 10).flat_map(doubt).collect();
    registries.notify(serde_json::json!({ "events": events }).to_string().as_bytes()).await;
    let began = Instant::now();
    while !is_read() {
        assert!(began.elapsed() < Duration::from_secs(20), "the registry is not read");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    registries.close();
}

#[tokio::test]
async fn a_sender_that_has_started_again_makes_a_reading_of_all() {
    let (address, asked) = client::tests::fake(|request, _| match request {
        "GET /v2/_catalog?n=1000" => ("200 OK", String::new(), r#"{"repositories":[]}"#.to_owned()),
        _ => ("200 OK", String::new(), "{}".to_owned()),
    })
    .await;
    let folder = tempfile::tempdir().unwrap();
    let registries = start_asking(folder.path(), address).await;
    let from = |address: &str, instance: &str| {
        let source = serde_json::json!({ "addr": address, "instanceID": instance });
        let target = serde_json::json!({ "repository": "a" });
        serde_json::json!({ "events": [{ "action": "pull", "target": target, "source": source }] })
    };
    for (address, instance) in [("one", "1"), ("two", "2"), ("one", "1")] {
        registries.notify(from(address, instance).to_string().as_bytes()).await;
    }
    tokio::task::yield_now().await;
    assert_eq!(asked.lock().unwrap().len(), 0, "nobody has started again");
    registries.notify(from("one", "3").to_string().as_bytes()).await;
    let began = Instant::now();
    while asked.lock().unwrap().len() < 2 {
        assert!(began.elapsed() < Duration::from_secs(20), "the registry is not read");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    registries.close();
}
