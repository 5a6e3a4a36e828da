//! zot's events: CloudEvents 1.0, with the attributes in headers (binary mode) or in the body (structured mode).
//!
//! Source: the project's documentation ("Events") and the CloudEvents HTTP protocol binding. zot sends each event on its
//! own and tries once, so their order means nothing.

use serde::Deserialize;
use serde_json::Value;

use super::{Happened, Headers, Malformed, Notice, Notification};
use crate::container_registry::manifest::{self, Told};
use crate::model::container::Trace;

#[derive(Deserialize)]
struct Structured {
    #[serde(rename = "type")]
    event_type: String,
    #[serde(default)]
    id: String,
    #[serde(default)]
    time: String,
    #[serde(default)]
    data: Option<Data>,
}

#[derive(Default, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Data {
    #[serde(default)]
    name: String,
    /// A tag or a digest.
    #[serde(default)]
    reference: String,
    #[serde(default)]
    digest: String,
    #[serde(default)]
    media_type: String,
    /// Text, or the manifest itself.
    #[serde(default)]
    manifest: Value,
}

pub(super) fn read(headers: &dyn Headers, body: &[u8]) -> Result<Notification, Malformed> {
    let what = "an event of zot, {\"name\":…,\"reference\":…} with a header Ce-Type";
    let event = match headers.get("ce-type") {
        Some(event_type) => Structured {
            event_type: event_type.to_owned(),
            id: headers.get("ce-id").unwrap_or_default().to_owned(),
            time: headers.get("ce-time").unwrap_or_default().to_owned(),
            data: Some(super::json(body, what)?),
        },
        None => super::json(body, what)?,
    };
    let mut notification = Notification::default();
    notification.add(notice(event));
    Ok(notification)
}

fn notice(event: Structured) -> Option<Notice> {
    let Structured { event_type, id, time, data } = event;
    let Data { name, reference, digest, media_type, manifest } = data?;
    let tag = super::tag_of(&reference).map(ToOwned::to_owned);
    let digest = if digest.is_empty() && tag.is_none() { reference } else { digest };
    let cause = format!("{event_type} {name} {digest} {}", tag.as_deref().unwrap_or_default());
    let happened = match (event_type.as_str(), tag) {
        ("zotregistry.image.updated", tag) => {
            let kind = match (manifest::by_media_type(&media_type, None), &manifest) {
                (Told::Unclear, Value::String(text)) if !text.is_empty() => {
                    Told::Kind(manifest::by_bytes(text.as_bytes()))
                }
                (Told::Unclear, Value::Object(_)) => {
                    Told::Kind(manifest::by_bytes(manifest.to_string().as_bytes()))
                }
                (told, _) => told,
            };
            (kind != Told::NoManifest).then_some(Happened::Push { digest, tag, kind, is_whole: false })?
        }
        ("zotregistry.image.deleted", Some(tag)) => {
            Happened::DeleteTag { tag, digest: (!digest.is_empty()).then_some(digest) }
        }
        ("zotregistry.image.deleted", None) => Happened::DeleteImage { digest },
        _ => return None,
    };
    let id = super::id(&id);
    let trace = Trace::of(id.as_deref().unwrap_or(&cause), &cause);
    Some(Notice { repository: name, happened, at: super::time(&time), id, trace })
}
