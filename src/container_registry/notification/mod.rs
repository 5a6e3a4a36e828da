//! What registries send: bodies of webhooks as [`Notice`]s. Pure; one file for each kind of sender.
//!
//! A body that is not of the sender's kind at all is [`Malformed`]: somebody has connected the wrong thing. Single events
//! that are not understood, or that mean nothing here, are left out and counted, since many senders repeat for ever
//! what is refused and hold everything else back behind it. Only the generic kind, whose senders can mend what they
//! send, is strict.

mod distribution;
mod generic;
mod harbor;
mod zot;

use std::time::SystemTime;

use super::manifest::Told;
use crate::model::container::{ContainerRegistry, ContainerRegistryKind, Trace};
use crate::model::reference;

/// Headers that tell about a body, as far as senders use them.
pub(super) trait Headers {
    /// A header's value, if it is there and is text.
    fn get(&self, name: &str) -> Option<&str>;
}

/// What a body holds.
#[derive(Debug, Default)]
pub(super) struct Notification {
    /// In the order in which they stand.
    pub notices: Vec<Notice>,
    /// Events that mean nothing here: pulls, blobs, and what is not understood.
    pub ignored: usize,
    /// Who sent it, by an address and a number that differs after every start.
    pub instance: Option<(String, String)>,
}

/// Something that happened in a repository.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Notice {
    /// Where, without the registry's name.
    pub repository: String,
    /// What.
    pub happened: Happened,
    /// When, by the sender's clock.
    pub at: Option<SystemTime>,
    /// The sender's own id.
    pub id: Option<String>,
    /// The operation that it is part of.
    pub trace: Trace,
}

/// What happened.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Happened {
    /// A manifest was pushed, perhaps under a tag.
    Push {
        /// Its digest.
        digest: String,
        /// The tag.
        tag: Option<String>,
        /// What it stands for, as far as the sender says.
        kind: Told,
        /// Whether it counts although it has no tag.
        is_whole: bool,
    },
    /// A manifest, or a blob, was deleted.
    DeleteImage {
        /// Its digest.
        digest: String,
    },
    /// A tag was removed.
    DeleteTag {
        /// The tag.
        tag: String,
        /// The image that it named.
        digest: Option<String>,
    },
    /// A repository was deleted.
    DeleteRepository,
}

/// Why a body cannot be what this sender sends.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub(super) struct Malformed(pub String);

/// Reads a body.
pub(super) fn read(
    registry: &ContainerRegistry,
    headers: &dyn Headers,
    body: &[u8],
) -> Result<Notification, Malformed> {
    match registry.kind {
        ContainerRegistryKind::Distribution => distribution::read(body),
        ContainerRegistryKind::Harbor => harbor::read(body),
        ContainerRegistryKind::Zot => zot::read(headers, body),
        ContainerRegistryKind::Generic => generic::read(registry, body),
    }
}

fn json<'a, T: serde::Deserialize<'a>>(body: &'a [u8], what: &str) -> Result<T, Malformed> {
    serde_json::from_slice(body).map_err(|error| Malformed(format!("the body is not {what}: {error}")))
}

/// An id that is short enough to be kept, in bytes.
const LONGEST_ID: usize = 200;

fn id(text: &str) -> Option<String> {
    (1..=LONGEST_ID).contains(&text.len()).then(|| text.to_owned())
}

fn time(text: &str) -> Option<SystemTime> {
    text.parse::<jiff::Timestamp>().ok().map(Into::into)
}

/// A tag, or the digest that some senders put in its place.
fn tag_of(reference: &str) -> Option<&str> {
    (!reference.is_empty() && !reference.contains(':')).then_some(reference)
}

impl Notice {
    /// Whether all names follow the grammar of the specifications, so that they can be asked after and shown.
    fn is_valid(&self) -> bool {
        let is_digest = |digest: &String| reference::is_digest(digest);
        let is_tag = |tag: &String| reference::is_tag(tag);
        reference::is_repository(&self.repository)
            && match &self.happened {
                Happened::Push { digest, tag, .. } => is_digest(digest) && tag.iter().all(is_tag),
                Happened::DeleteImage { digest } => is_digest(digest),
                Happened::DeleteTag { tag, digest } => is_tag(tag) && digest.iter().all(is_digest),
                Happened::DeleteRepository => true,
            }
    }
}

impl Notification {
    /// Adds what was read of one event, or counts it as one that means nothing here.
    fn add(&mut self, notice: Option<Notice>) {
        match notice.filter(Notice::is_valid) {
            Some(notice) => self.notices.push(notice),
            None => self.ignored += 1,
        }
    }
}

#[cfg(test)]
mod tests;
