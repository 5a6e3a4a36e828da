//! Our own events, as any program may post them: `{"messages":[{"event_metadata":{…},"details":{…}}]}`, the form in
//! which they are broadcast, with what the sender cannot know left out.
//!
//! Each of the four is taken for what it says: what is known already, or follows from it, is told once. So a sender may
//! post all events of an operation, or only the one that it knows of.

use serde::Deserialize;

use super::{Happened, Malformed, Notice, Notification};
use crate::container_registry::manifest::Told;
use crate::model::container::{ContainerEventType, ContainerRegistry, ManifestKind, Trace};
use crate::model::reference;

/// Events of one body.
const MOST: usize = 1000;

#[derive(Deserialize)]
struct Body {
    messages: Vec<Message>,
}

#[derive(Deserialize)]
struct Message {
    event_metadata: Metadata,
    details: Details,
}

#[derive(Deserialize)]
struct Metadata {
    event_type: String,
    #[serde(default)]
    event_id: String,
    #[serde(default)]
    created_at: Option<String>,
    #[serde(default)]
    tracing_context: Context,
}

#[derive(Default, Deserialize)]
struct Context {
    #[serde(default)]
    trace_id: String,
}

#[derive(Deserialize)]
struct Details {
    repository_name: String,
    #[serde(default)]
    image_digest: String,
    #[serde(default)]
    tag: String,
}

pub(super) fn read(registry: &ContainerRegistry, body: &[u8]) -> Result<Notification, Malformed> {
    let body: Body = super::json(body, "a list of events, {\"messages\":[…]}")?;
    if body.messages.is_empty() || body.messages.len() > MOST {
        return Err(Malformed(format!(
            "messages has {} events; 1 to {MOST} are allowed",
            body.messages.len()
        )));
    }
    let messages = body.messages.into_iter().enumerate();
    let notices = messages.map(|(number, message)| notice(registry, number, message));
    Ok(Notification { notices: notices.collect::<Result<_, _>>()?, ..Notification::default() })
}

fn notice(registry: &ContainerRegistry, number: usize, message: Message) -> Result<Notice, Malformed> {
    let fault = |field: &str, value: &str, rule: &str| {
        let shown: String = value.chars().take(80).collect();
        Malformed(format!("messages[{number}].{field}: {shown:?} is not allowed; it must be {rule}"))
    };
    let Message { event_metadata: metadata, details } = message;
    let name = &details.repository_name;
    let of_registry = name.strip_prefix(&*registry.id).and_then(|rest| rest.strip_prefix('/'));
    let repository =
        name.strip_prefix(&registry.repository_prefix).or(of_registry).unwrap_or(name).to_owned();
    if !reference::is_repository(&repository) {
        return Err(fault("details.repository_name", name, reference::REPOSITORY_RULE));
    }
    let (digest, tag) = (details.image_digest, details.tag);
    let is_digest = |digest: &str| match reference::is_digest(digest) {
        true => Ok(digest.to_owned()),
        false => Err(fault("details.image_digest", digest, reference::DIGEST_RULE)),
    };
    let is_tag = |tag: &str| match reference::is_tag(tag) {
        true => Ok(tag.to_owned()),
        false => Err(fault("details.tag", tag, reference::TAG_RULE)),
    };
    let optional = |text: &str, check: &dyn Fn(&str) -> Result<String, Malformed>| {
        (!text.is_empty()).then(|| check(text)).transpose()
    };
    let short = metadata.event_type.rsplit('.').next().unwrap_or_default();
    let known = ContainerEventType::ALL.into_iter().find(|known| {
        known.event_type() == metadata.event_type
            || metadata.event_type == short && known.event_type().ends_with(&format!(".{short}"))
    });
    let kind = Told::Kind(ManifestKind::Image);
    let happened = match known {
        Some(ContainerEventType::CreateImage) => {
            let tag = optional(&tag, &is_tag)?;
            Happened::Push { digest: is_digest(&digest)?, tag, kind, is_whole: true }
        }
        Some(ContainerEventType::CreateImageTag) => {
            let tag = Some(is_tag(&tag)?);
            Happened::Push { digest: is_digest(&digest)?, tag, kind, is_whole: true }
        }
        Some(ContainerEventType::DeleteImage) => Happened::DeleteImage { digest: is_digest(&digest)? },
        Some(ContainerEventType::DeleteImageTag) => {
            Happened::DeleteTag { tag: is_tag(&tag)?, digest: optional(&digest, &is_digest)? }
        }
        None => {
            let names = ContainerEventType::ALL
                .map(|known| known.event_type().rsplit('.').next().unwrap_or_default());
            let rule = format!("one of {}", names.join(", "));
            return Err(fault("event_metadata.event_type", &metadata.event_type, &rule));
        }
    };
    let id = &metadata.event_id;
    if !id.is_empty() && super::id(id).is_none() {
        return Err(fault("event_metadata.event_id", id, "at most 200 bytes long"));
    }
    let trace_id = &metadata.tracing_context.trace_id;
    if trace_id.len() > super::LONGEST_ID {
        return Err(fault("event_metadata.tracing_context.trace_id", trace_id, "at most 200 bytes long"));
    }
    let at = metadata.created_at.as_deref().map(|text| {
        super::time(text)
            .ok_or_else(|| fault("event_metadata.created_at", text, "a time such as 2026-01-31T08:00:00Z"))
    });
    let own = format!("{short} {repository} {digest} {tag}");
    let operation = [trace_id, id, &own].into_iter().find(|name| !name.is_empty()).unwrap_or(&own);
    let trace = Trace::of(operation, if id.is_empty() { &own } else { id });
    Ok(Notice { repository, happened, at: at.transpose()?, id: super::id(id), trace })
}
