//! Harbor's webhooks, in its own form and as structured CloudEvents.
//!
//! Source: the project's documentation ("Configure Webhook Notifications"). Harbor tells of a deleted artifact with one
//! of its tags only, and of tags that are added or removed by themselves not at all.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use serde::Deserialize;

use super::{Happened, Malformed, Notice, Notification};
use crate::container_registry::manifest::Told;
use crate::model::container::Trace;
use crate::model::reference;

#[derive(Deserialize)]
struct Body {
    #[serde(rename = "type")]
    event_type: String,
    #[serde(default)]
    occur_at: Option<u64>,
    /// Of Harbor's own form.
    #[serde(default)]
    event_data: Option<Data>,
    /// Of a CloudEvent.
    #[serde(default)]
    data: Option<Data>,
    #[serde(default)]
    id: String,
    #[serde(default, alias = "requestid")]
    request_id: String,
    #[serde(default)]
    time: String,
}

#[derive(Deserialize)]
struct Data {
    #[serde(default)]
    resources: Vec<Resource>,
    #[serde(default)]
    repository: Repository,
}

#[derive(Deserialize)]
struct Resource {
    #[serde(default)]
    digest: String,
    #[serde(default)]
    tag: String,
}

#[derive(Default, Deserialize)]
struct Repository {
    #[serde(default)]
    name: String,
    #[serde(default)]
    namespace: String,
    #[serde(default)]
    repo_full_name: String,
}

pub(super) fn read(body: &[u8]) -> Result<Notification, Malformed> {
    let body: Body = super::json(body, "a webhook of Harbor, {\"type\":…,\"event_data\":{…}}")?;
    let mut notification = Notification::default();
    let is_push = match body.event_type.as_str() {
        "PUSH_ARTIFACT" | "harbor.artifact.pushed" => true,
        "DELETE_ARTIFACT" | "harbor.artifact.deleted" => false,
        _ => {
            notification.ignored += 1;
            return Ok(notification);
        }
    };
    let at = match body.occur_at {
        Some(seconds) => UNIX_EPOCH.checked_add(Duration::from_secs(seconds)),
        None => super::time(&body.time),
    };
    let Some(Data { resources, repository }) = body.event_data.or(body.data) else {
        return Err(Malformed("the body has neither event_data nor data".to_owned()));
    };
    let name = match repository.repo_full_name {
        name if name.is_empty() => format!("{}/{}", repository.namespace, repository.name),
        name => name,
    };
    if !reference::is_repository(&name) {
        notification.ignored += resources.len();
        return Ok(notification);
    }
    let id = super::id(&body.id);
    // Its own form names no operation: what was done to a repository in one second is taken for one.
    let operation = super::id(&body.request_id).or_else(|| id.clone());
    let operation = operation.unwrap_or_else(|| format!("{name} {}", seconds(at)));
    for (number, Resource { digest, tag }) in resources.into_iter().enumerate() {
        let tag = super::tag_of(&tag).map(ToOwned::to_owned);
        let cause = format!("{} {} {}", body.event_type, digest, tag.as_deref().unwrap_or_default());
        let happened = if is_push {
            Happened::Push { digest, tag, kind: Told::Unclear, is_whole: false }
        } else {
            Happened::DeleteImage { digest }
        };
        let id = id.as_ref().map(|id| format!("{id} {number}"));
        let trace = Trace::of(&operation, &cause);
        notification.add(Some(Notice { repository: name.clone(), happened, at, id, trace }));
    }
    Ok(notification)
}

fn seconds(at: Option<SystemTime>) -> u64 {
    at.and_then(|at| at.duration_since(UNIX_EPOCH).ok()).map_or(0, |since| since.as_secs())
}
