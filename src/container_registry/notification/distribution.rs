//! CNCF Distribution's notifications: an envelope of events, or one event alone, as registries made from it send it.
//!
//! Source: the project's documentation ("Work with notifications") and what version 2.8.2 sent.

use serde::Deserialize;
use serde_json::Value;

use super::{Happened, Malformed, Notice, Notification};
use crate::container_registry::manifest::{self, Told};
use crate::model::container::Trace;

#[derive(Deserialize)]
struct Event {
    #[serde(default)]
    id: String,
    #[serde(default)]
    timestamp: String,
    action: String,
    target: Target,
    #[serde(default)]
    request: Request,
    #[serde(default)]
    source: Source,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Target {
    #[serde(default)]
    media_type: String,
    #[serde(default)]
    digest: String,
    repository: String,
    #[serde(default)]
    tag: String,
    #[serde(default)]
    references: Vec<Reference>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Reference {
    #[serde(default)]
    media_type: String,
}

#[derive(Default, Deserialize)]
struct Request {
    #[serde(default)]
    id: String,
}

#[derive(Default, Deserialize)]
struct Source {
    #[serde(default)]
    addr: String,
    #[serde(default, rename = "instanceID")]
    instance_id: String,
}

pub(super) fn read(body: &[u8]) -> Result<Notification, Malformed> {
    let what = "an envelope of CNCF Distribution, {\"events\":[…]}";
    let mut notification = Notification::default();
    let events = match super::json(body, what)? {
        Value::Object(mut body) => match body.remove("events") {
            Some(Value::Array(events)) => events,
            None if body.contains_key("action") => vec![Value::Object(body)],
            _ => return Err(Malformed(format!("the body is not {what}"))),
        },
        _ => return Err(Malformed(format!("the body is not {what}"))),
    };
    for event in events {
        match serde_json::from_value::<Event>(event) {
            Ok(event) => add(event, &mut notification),
            Err(_) => notification.ignored += 1,
        }
    }
    Ok(notification)
}

fn add(event: Event, notification: &mut Notification) {
    let Source { addr, instance_id } = &event.source;
    if let (Some(addr), Some(instance_id)) = (super::id(addr), super::id(instance_id)) {
        notification.instance = Some((addr, instance_id));
    }
    notification.add(notice(event));
}

fn notice(event: Event) -> Option<Notice> {
    let Event { id, timestamp, action, target, request, .. } = event;
    let Target { media_type, digest, repository, tag, references } = target;
    let happened = match (action.as_str(), digest.is_empty(), tag.is_empty()) {
        ("push", false, _) => {
            // The first that a manifest refers to is its configuration.
            let config = references.first().map(|reference| reference.media_type.as_str());
            let kind = manifest::by_media_type(&media_type, config);
            let tag = (!tag.is_empty()).then_some(tag);
            (kind != Told::NoManifest).then_some(Happened::Push { digest, tag, kind, is_whole: false })?
        }
        ("delete", false, true) => Happened::DeleteImage { digest },
        ("delete", _, false) => Happened::DeleteTag { tag, digest: None },
        ("delete", true, true) => Happened::DeleteRepository,
        // Pulls and mounts change nothing.
        _ => return None,
    };
    let id = super::id(&id);
    let cause = id.as_deref().unwrap_or_default();
    let operation = super::id(&request.id);
    let trace = Trace::of(operation.as_deref().unwrap_or(cause), cause);
    Some(Notice { repository, happened, at: super::time(&timestamp), id, trace })
}
