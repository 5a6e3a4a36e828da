//! Tests of what is read of senders' bodies.

use std::collections::HashMap;

use proptest::prelude::*;

use super::*;
use crate::model::container::tests::registry;
use crate::model::container::{ContainerEventType, ManifestKind};

const D1: &str = "sha256:2bb501e6173d9d006e56de5bce2720eb06396803300fe1687b58a7ff32bf4c14";

#[derive(Default)]
struct Map(HashMap<String, String>);

impl Headers for Map {
    fn get(&self, name: &str) -> Option<&str> {
        self.0.get(name).map(String::as_str)
    }
}

fn of(kind: ContainerRegistryKind) -> ContainerRegistry {
    ContainerRegistry { kind, ..registry("images") }
}

fn read_as(kind: ContainerRegistryKind, body: &str) -> Result<Notification, Malformed> {
    read(&of(kind), &Map::default(), body.as_bytes())
}

fn notices(kind: ContainerRegistryKind, body: &str) -> Vec<Notice> {
    read_as(kind, body).unwrap().notices
}

fn push(tag: Option<&str>, kind: Told) -> Happened {
    Happened::Push { digest: D1.into(), tag: tag.map(Into::into), kind, is_whole: false }
}

#[test]
fn distribution_sends_envelopes_and_its_relatives_single_events() {
    let event = format!(
        r#"{{"id":"e1","timestamp":"2026-11-21T02:59:18.268989179Z","action":"push","target":{{"mediaType":
        "application/vnd.oci.image.manifest.v1+json","digest":"{D1}","repository":"team/app","tag":"v1"}},
        "request":{{"id":"93762716-225d-4156-97a4-e25c3e4540d9"}},"source":{{"addr":"vm:5000","instanceID":"i1"}}}}"#
    );
    let kind = ContainerRegistryKind::Distribution;
    let found = read_as(kind, &format!(r#"{{"events":[{event},{{"action":"push"}},7]}}"#)).unwrap();
    assert_eq!(
        (found.notices.len(), found.ignored),
        (1, 2),
        "one bad event is no reason to refuse the others"
    );
    assert_eq!(found.instance, Some(("vm:5000".into(), "i1".into())));
    let notice = &found.notices[0];
    assert_eq!((notice.repository.as_str(), notice.id.as_deref()), ("team/app", Some("e1")));
    assert_eq!(notice.happened, push(Some("v1"), Told::Unclear));
    assert_eq!(notice.at, time("2026-11-21T02:59:18.268989179Z"));
    assert_eq!(notice.trace, Trace::of("93762716-225d-4156-97a4-e25c3e4540d9", "e1"));
    assert_eq!(notices(kind, &event), found.notices);
    // What it refers to first is its configuration.
    let refers = r#""references":[{"mediaType":"application/vnd.cncf.helm.config.v1+json"}],"tag":"v1""#;
    let chart = notices(kind, &event.replace(r#""tag":"v1""#, refers));
    assert_eq!(chart[0].happened, push(Some("v1"), Told::Kind(ManifestKind::Helm)));
    for (action, target, happened) in [
        ("delete", format!(r#""digest":"{D1}""#), Some(Happened::DeleteImage { digest: D1.into() })),
        ("delete", r#""tag":"v1""#.into(), Some(Happened::DeleteTag { tag: "v1".into(), digest: None })),
        ("delete", r#""digest":"""#.into(), Some(Happened::DeleteRepository)),
        ("pull", format!(r#""digest":"{D1}","tag":"v1""#), None),
        ("mount", format!(r#""digest":"{D1}""#), None),
        ("push", format!(r#""digest":"{D1}","mediaType":"application/octet-stream""#), None),
        ("delete", r#""digest":"sha256:short""#.into(), None),
        ("delete", r#""tag":"../..""#.into(), None),
    ] {
        let body = format!(r#"{{"action":"{action}","target":{{{target},"repository":"team/app"}}}}"#);
        let found = read_as(kind, &body).unwrap();
        assert_eq!(found.notices.first().map(|notice| notice.happened.clone()), happened, "{body}");
        assert_eq!(found.ignored, usize::from(happened.is_none()), "{body}");
    }
}

#[test]
fn harbor_speaks_its_own_form_and_cloud_events() {
    let kind = ContainerRegistryKind::Harbor;
    let data = format!(
        r#"{{"resources":[{{"digest":"{D1}","tag":"3.8","resource_url":"h/library/alpine:3.8"}},
            {{"digest":"{D1}","tag":"{D1}"}}],
            "repository":{{"name":"alpine","namespace":"library","repo_full_name":"library/alpine","repo_type":"public"}}}}"#
    );
    let own = |event: &str| {
        format!(r#"{{"type":"{event}","occur_at":1680502598,"operator":"admin","event_data":{data}}}"#)
    };
    let pushed = notices(kind, &own("PUSH_ARTIFACT"));
    assert_eq!(pushed[0].repository, "library/alpine");
    assert_eq!(pushed[0].happened, push(Some("3.8"), Told::Unclear));
    assert_eq!(pushed[0].at, time("2023-04-03T06:16:38Z"));
    assert_eq!(pushed[0].id, None, "its own form has no id");
    assert_eq!(pushed[1].happened, push(None, Told::Unclear), "a digest in the place of a tag is no tag");
    let deleted = notices(kind, &own("DELETE_ARTIFACT"));
    assert_eq!(deleted[0].happened, Happened::DeleteImage { digest: D1.into() });
    let event = |event: &str| {
        format!(
            r#"{{"specversion":"1.0","id":"343f1623-7cba-487c-88f1-c5ebf55e93aa","requestid":
            "ca0f3ceb-810f-4598-a268-a2291ad4de49","source":"/projects/2/webhook/policies/15","type":"{event}",
            "datacontenttype":"application/json","time":"2023-04-03T06:16:38Z","data":{data},"operator":"admin"}}"#
        )
    };
    let pushed = notices(kind, &event("harbor.artifact.pushed"));
    assert_eq!(pushed[0].happened, push(Some("3.8"), Told::Unclear));
    assert_eq!(pushed[0].id.as_deref(), Some("343f1623-7cba-487c-88f1-c5ebf55e93aa 0"));
    assert_eq!(pushed[1].id.as_deref(), Some("343f1623-7cba-487c-88f1-c5ebf55e93aa 1"));
    assert_eq!(pushed[0].at, time("2023-04-03T06:16:38Z"));
    assert_eq!(read_as(kind, &event("harbor.artifact.pulled")).unwrap().ignored, 1);
    assert_eq!(read_as(kind, &own("SCANNING_COMPLETED")).unwrap().ignored, 1);
    for bad in ["[]", "{}", r#"{"type":"PUSH_ARTIFACT"}"#, r#"{"events":[]}"#] {
        assert!(read_as(kind, bad).is_err(), "{bad}");
    }
}

#[test]
fn zot_sends_cloud_events_in_headers_or_in_the_body() {
    let kind = ContainerRegistryKind::Zot;
    let manifest = r#"{\"config\":{\"mediaType\":\"application/vnd.oci.image.config.v1+json\"}}"#;
    let data = |reference: &str| {
        format!(
            r#"{{"name":"golang","reference":"{reference}","digest":"{D1}",
            "mediaType":"application/vnd.oci.image.manifest.v1+json","manifest":"{manifest}"}}"#
        )
    };
    let binary = |event_type: &str, body: &str| {
        let headers = [("ce-type", event_type), ("ce-id", "z1"), ("ce-time", "2026-11-21T02:59:18.5Z")];
        let headers = headers.map(|(name, value)| (name.to_owned(), value.to_owned()));
        read(&of(kind), &Map(headers.into()), body.as_bytes())
    };
    let pushed = binary("zotregistry.image.updated", &data("1.20")).unwrap().notices;
    assert_eq!(pushed[0].happened, push(Some("1.20"), Told::Kind(ManifestKind::Image)));
    assert_eq!((pushed[0].repository.as_str(), pushed[0].id.as_deref()), ("golang", Some("z1")));
    assert_eq!(pushed[0].at, time("2026-11-21T02:59:18.5Z"));
    let structured = format!(
        r#"{{"specversion":"1.0","id":"z1","source":"zotregistry.dev","type":"zotregistry.image.updated",
        "time":"2026-11-21T02:59:18.5Z","data":{}}}"#,
        data("1.20")
    );
    assert_eq!(notices(kind, &structured), pushed);
    let by_digest = binary("zotregistry.image.updated", &data(D1)).unwrap().notices;
    assert_eq!(by_digest[0].happened, push(None, Told::Kind(ManifestKind::Image)));
    let untagged = binary("zotregistry.image.deleted", &data("1.20")).unwrap().notices;
    assert_eq!(untagged[0].happened, Happened::DeleteTag { tag: "1.20".into(), digest: Some(D1.into()) });
    let deleted = binary("zotregistry.image.deleted", &data(D1)).unwrap().notices;
    assert_eq!(deleted[0].happened, Happened::DeleteImage { digest: D1.into() });
    for other in ["zotregistry.repository.created", "zotregistry.image.lint_failed"] {
        assert_eq!(binary(other, &data("1.20")).unwrap().ignored, 1);
    }
    assert!(binary("zotregistry.image.updated", "no json").is_err());
    assert!(read_as(kind, &data("1.20")).is_err(), "neither form");
}

fn message(metadata: &str, details: &str) -> String {
    format!(r#"{{"messages":[{{"event_metadata":{{{metadata}}},"details":{{{details}}}}}]}}"#)
}

#[test]
fn our_own_events_can_be_posted_by_anybody() {
    let kind = ContainerRegistryKind::Generic;
    let image = ContainerEventType::CreateImage.event_type();
    let details = format!(r#""repository_name":"team/app","image_digest":"{D1}","tag":"v1""#);
    let told = Told::Kind(ManifestKind::Image);
    let pushed = |tag: Option<&str>| Happened::Push {
        digest: D1.into(),
        tag: tag.map(Into::into),
        kind: told,
        is_whole: true,
    };
    for (event_type, details, happened) in [
        (image, details.clone(), pushed(Some("v1"))),
        ("CreateImage", details.replace(r#","tag":"v1""#, ""), pushed(None)),
        ("CreateImageTag", details.clone(), pushed(Some("v1"))),
        ("DeleteImage", details.clone(), Happened::DeleteImage { digest: D1.into() }),
        (
            "DeleteImageTag",
            details.clone(),
            Happened::DeleteTag { tag: "v1".into(), digest: Some(D1.into()) },
        ),
        (
            "DeleteImageTag",
            r#""repository_name":"images/team/app","tag":"v1""#.into(),
            Happened::DeleteTag { tag: "v1".into(), digest: None },
        ),
    ] {
        let body = message(&format!(r#""event_type":"{event_type}","event_id":"job-1""#), &details);
        let found = notices(kind, &body);
        assert_eq!(found[0].happened, happened, "{body}");
        assert_eq!((found[0].repository.as_str(), found[0].id.as_deref()), ("team/app", Some("job-1")));
    }
    // What is broadcast can be posted.
    let trace = Trace::of("b6e1c71e-3cfa-4f3c-8a0c-1a2b3c4d5e6f", "e");
    let own = crate::model::container::ContainerEvent {
        event_type: ContainerEventType::CreateImageTag,
        registry: &of(kind),
        repository: "team/app",
        digest: D1,
        tag: "v1",
        created_at: std::time::UNIX_EPOCH,
        trace: &trace,
    };
    let event = own.encode(uuid::Uuid::from_u128(7));
    let body = format!(r#"{{"messages":[{}]}}"#, std::str::from_utf8(&event.json).unwrap());
    let found = notices(kind, &body);
    assert_eq!((&found[0].happened, found[0].repository.as_str()), (&pushed(Some("v1")), "team/app"));
    assert_eq!(found[0].at, Some(std::time::UNIX_EPOCH));
}

#[test]
fn a_mistake_in_a_posted_event_is_named_with_its_field_value_and_rule() {
    let kind = ContainerRegistryKind::Generic;
    let metadata = r#""event_type":"CreateImage""#;
    let details = |repository: &str, digest: &str, tag: &str| {
        format!(r#""repository_name":"{repository}","image_digest":"{digest}","tag":"{tag}""#)
    };
    for (body, words) in [
        (
            message(metadata, &details("Team/App", D1, "v1")),
            ["messages[0].details.repository_name", "Team/App", "lower-case"],
        ),
        (
            message(metadata, &details("a", "sha256:1", "v1")),
            ["messages[0].details.image_digest", "sha256:1", "64"],
        ),
        (message(metadata, &details("a", "", "v1")), ["messages[0].details.image_digest", "\"\"", "64"]),
        (message(metadata, &details("a", D1, ".x")), ["messages[0].details.tag", ".x", "128"]),
        (
            message(r#""event_type":"Push""#, &details("a", D1, "v1")),
            [
                "messages[0].event_metadata.event_type",
                "Push",
                "CreateImage, DeleteImage, CreateImageTag, DeleteImageTag",
            ],
        ),
        (
            message(r#""event_type":"CreateImage","created_at":"today""#, &details("a", D1, "v1")),
            ["messages[0].event_metadata.created_at", "today", "2026-01-31T08:00:00Z"],
        ),
        (r#"{"messages":[]}"#.to_owned(), ["messages", "0", "1000"]),
        (r#"{"messages":7}"#.to_owned(), ["not a list of events", "7", "sequence"]),
        (r#"{"messages":[{}]}"#.to_owned(), ["event_metadata", "missing", "line 1"]),
    ] {
        let error = read_as(kind, &body).unwrap_err().to_string();
        assert!(words.iter().all(|word| error.contains(word)), "{body}: {error}");
    }
}

fn json() -> impl Strategy<Value = String> {
    let words = prop_oneof![
        "[a-z]{0,8}",
        Just("push".to_owned()),
        Just("delete".to_owned()),
        Just("PUSH_ARTIFACT".to_owned()),
        Just("harbor.artifact.deleted".to_owned()),
        Just("zotregistry.image.updated".to_owned()),
        Just("CreateImage".to_owned()),
        Just(D1.to_owned()),
        ".{0,12}",
    ];
    let leaf = prop_oneof![
        Just(serde_json::Value::Null),
        any::<i64>().prop_map(Into::into),
        words.prop_map(Into::into),
    ];
    const KEYS: [&str; 24] = [
        "events",
        "id",
        "timestamp",
        "action",
        "target",
        "request",
        "source",
        "mediaType",
        "digest",
        "repository",
        "tag",
        "references",
        "type",
        "occur_at",
        "event_data",
        "resources",
        "data",
        "name",
        "reference",
        "manifest",
        "messages",
        "event_metadata",
        "details",
        "event_type",
    ];
    let value = leaf.prop_recursive(5, 48, 6, |inner| {
        prop_oneof![
            prop::collection::vec(inner.clone(), 0..4).prop_map(Into::into),
            prop::collection::vec((prop::sample::select(&KEYS[..]), inner), 0..8).prop_map(|fields| {
                fields
                    .into_iter()
                    .map(|(key, value)| (key.to_owned(), value))
                    .collect::<serde_json::Map<_, _>>()
                    .into()
            }),
        ]
    });
    value.prop_map(|value| value.to_string())
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(3000))]

    /// Whatever comes: it is refused, or what is read of it follows the grammar.
    #[test]
    fn any_body_is_refused_or_gives_valid_names(body in prop_oneof![json(), ".{0,64}"], event_type in "[a-z.]{0,30}") {
        use ContainerRegistryKind::{Distribution, Generic, Harbor, Zot};
        for kind in [Distribution, Harbor, Zot, Generic] {
            for headers in [Map::default(), Map([("ce-type".to_owned(), event_type.clone())].into())] {
                if let Ok(found) = read(&of(kind), &headers, body.as_bytes()) {
                    prop_assert!(found.notices.iter().all(Notice::is_valid));
                }
            }
        }
    }
}

/// What registries have sent: the bodies that the fixtures have recorded, and one of each other kind.
fn samples() -> Vec<Vec<u8>> {
    let fixtures = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/fixtures/container_registry");
    let mut found: Vec<_> = std::fs::read_dir(fixtures).unwrap().map(|entry| entry.unwrap().path()).collect();
    found.retain(|path| path.extension().is_some_and(|ending| ending == "json"));
    found.sort();
    let mut bodies: Vec<_> = found.iter().map(|path| std::fs::read(path).unwrap()).collect();
    bodies.retain(|body| body.len() < 16 * 1024);
    assert!(bodies.len() > 10);
    bodies.extend([
        format!(
            r#"{{"type":"PUSH_ARTIFACT","occur_at":1,"event_data":{{"resources":[{{"digest":"{D1}","tag":"v1","resource_url":"h/a/b:v1"}}],"repository":{{"name":"b","repo_full_name":"a/b"}}}}}}"#
        ).into_bytes(),
        format!(r#"{{"name":"a/b","reference":"v1","digest":"{D1}","manifest":"{{}}","mediaType":"x"}}"#).into_bytes(),
    ]);
    bodies
}

proptest! {
    #![proptest_config(crate::fuzzing::cases(2000))]

    #[test]
    fn fuzz_bodies_of_webhooks(body in crate::fuzzing::mutated(samples()), event_type in "[a-z.]{0,20}") {
        use ContainerRegistryKind::{Distribution, Generic, Harbor, Zot};
        let headers = Map([("ce-type".to_owned(), format!("zotregistry.{event_type}"))].into());
        for kind in [Distribution, Harbor, Zot, Generic] {
            if let Ok(found) = read(&of(kind), &headers, &body) {
                prop_assert!(found.notices.iter().all(Notice::is_valid));
                prop_assert!(found.notices.len() + found.ignored <= body.len());
            }
        }
    }
}
