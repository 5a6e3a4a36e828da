//! Container registries and their events: images and tags that come and go. Pure.
//!
//! The JSON is the model system's form of a container registry event, keys in the order of its documentation:
//! `{"event_metadata":{"cloud_id":…,"created_at":…,"event_id":…,"event_type":…,"folder_id":…,"tracing_context":{…}},
//! "details":{"image_digest":…,"image_id":…,"registry_id":…,"repository_name":…,"tag":…}}`.

use std::collections::BTreeSet;
use std::fmt;
use std::path::PathBuf;
use std::time::{Duration, SystemTime};

use bytes::Bytes;
use serde::Serialize;
use sha2::{Digest as _, Sha256};

use super::event::Event;
use super::event_id::EventId;
use super::id::Id;
use super::reference::hex;
use super::secret::Token;

/// A container registry whose images and tags are followed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ContainerRegistry {
    /// The registry's id.
    pub id: Id,
    /// Which program it is.
    pub kind: ContainerRegistryKind,
    /// Its address, `http://` or `https://`, without a slash at the end. Without it the registry is never asked.
    pub url: Option<String>,
    /// What its notifications must show.
    pub webhook_token: Token,
    /// The login there.
    pub login: Option<RegistryLogin>,
    /// Certificates in PEM form that are trusted there besides the system's.
    pub ca_file: Option<PathBuf>,
    /// Which manifests are told as images.
    pub manifests: BTreeSet<ManifestKind>,
    /// Whether a manifest that is pushed without a tag is told at once; if not, with its first tag.
    pub tells_untagged: bool,
    /// The repositories that are followed; `None` is all that the registry's catalog names.
    pub repositories: Option<Vec<String>>,
    /// How the registry is asked.
    pub reconcile: Reconcile,
    /// What stands before a repository's name in `repository_name`.
    pub repository_prefix: String,
    /// `cloud_id` of its events.
    pub cloud_id: Id,
    /// `folder_id` of its events.
    pub folder_id: Id,
}

/// A name and password for a registry's HTTP API.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RegistryLogin {
    /// The user.
    pub username: String,
    /// The password, or an access token.
    pub password: Token,
}

/// How a registry is asked what it holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Reconcile {
    /// From the end of one reconciliation to the next; `None` is only on demand.
    pub every: Option<Duration>,
    /// Most requests in a second.
    pub requests_per_second: u32,
}

impl Default for Reconcile {
    fn default() -> Self {
        Self { every: Some(Duration::from_secs(300)), requests_per_second: 200 }
    }
}

/// The container registries whose notifications we know.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ContainerRegistryKind {
    /// CNCF Distribution (`registry:2`, `registry:3`), and registries that send its notifications.
    Distribution,
    /// zot.
    Zot,
    /// Harbor.
    Harbor,
    /// Any program that posts our own events.
    Generic,
}

/// What a manifest stands for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum ManifestKind {
    /// A container image, of one or several platforms.
    Image,
    /// A Helm chart.
    Helm,
    /// Another artifact.
    Artifact,
    /// A signature, an attestation, or another manifest that refers to one.
    Signature,
}

/// What can happen in a container registry.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum ContainerEventType {
    /// An image came.
    CreateImage,
    /// An image went.
    DeleteImage,
    /// A tag was set.
    CreateImageTag,
    /// A tag was removed.
    DeleteImageTag,
}

impl ContainerEventType {
    /// All of them.
    pub const ALL: [Self; 4] =
        [Self::CreateImage, Self::DeleteImage, Self::CreateImageTag, Self::DeleteImageTag];

    /// Whether something goes.
    pub fn is_deletion(self) -> bool {
        matches!(self, Self::DeleteImage | Self::DeleteImageTag)
    }

    /// As triggers name it.
    pub fn name(self) -> &'static str {
        match self {
            Self::CreateImage => "create_image",
            Self::DeleteImage => "delete_image",
            Self::CreateImageTag => "create_image_tag",
            Self::DeleteImageTag => "delete_image_tag",
        }
    }

    /// As events name it.
    pub fn event_type(self) -> &'static str {
        match self {
            Self::CreateImage => "yandex.cloud.events.containerregistry.CreateImage",
            Self::DeleteImage => "yandex.cloud.events.containerregistry.DeleteImage",
            Self::CreateImageTag => "yandex.cloud.events.containerregistry.CreateImageTag",
            Self::DeleteImageTag => "yandex.cloud.events.containerregistry.DeleteImageTag",
        }
    }
}

/// What a trigger wants of a registry. Image and tag must both match.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct ContainerFilter {
    /// At least one.
    pub event_types: BTreeSet<ContainerEventType>,
    /// Only this repository, with or without what stands before its name in events.
    pub image_name: Option<Id>,
    /// Only this tag.
    pub tag: Option<Id>,
}

impl ContainerFilter {
    /// Whether an event is wanted. `tags` are the tags that it is about: those that the image had, if it was deleted.
    pub fn wants<'a>(
        &self,
        registry: &ContainerRegistry,
        event_type: ContainerEventType,
        repository: &str,
        tags: impl IntoIterator<Item = &'a str>,
    ) -> bool {
        let is_image = |wanted: &Id| {
            let bare = wanted.strip_prefix(registry.repository_prefix.as_str());
            let of_registry = wanted.strip_prefix(&*registry.id).and_then(|rest| rest.strip_prefix('/'));
            **wanted == *repository || bare == Some(repository) || of_registry == Some(repository)
        };
        self.event_types.contains(&event_type)
            && self.image_name.as_ref().is_none_or(is_image)
            && self.tag.as_ref().is_none_or(|wanted| tags.into_iter().any(|tag| *tag == **wanted))
    }
}

impl fmt::Display for ContainerFilter {
    /// Types, image and tag; the same text for the same filter only.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let types: Vec<_> = self.event_types.iter().map(|event_type| event_type.name()).collect();
        write!(f, "{} of ", types.join(","))?;
        f.write_str(self.image_name.as_deref().unwrap_or("(all images)"))?;
        self.tag.iter().try_for_each(|tag| write!(f, " tag {tag}"))
    }
}

/// What joins the events of one operation: a trace in the sense of W3C Trace Context, without the headers.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Trace {
    trace_id: [u8; 16],
    cause: String,
}

impl Trace {
    /// The trace of an operation. A UUID gives its own digits; any other name a digest of it.
    pub fn of(operation: &str, cause: &str) -> Self {
        let trace_id = match uuid::Uuid::try_parse(operation) {
            Ok(id) => id.into_bytes(),
            Err(_) => first(&digest(&["operation", operation])),
        };
        Self { trace_id, cause: cause.to_owned() }
    }

    fn span(&self, words: &[&str]) -> String {
        let mut all = vec!["span", self.cause.as_str()];
        all.extend_from_slice(words);
        hex(&first::<8>(&digest(&all)))
    }
}

/// One event of a container registry.
#[derive(Debug, Clone)]
pub struct ContainerEvent<'a> {
    /// What happened.
    pub event_type: ContainerEventType,
    /// Where.
    pub registry: &'a ContainerRegistry,
    /// In which repository, as the registry names it.
    pub repository: &'a str,
    /// To which image.
    pub digest: &'a str,
    /// Which tag; empty when the event is about none.
    pub tag: &'a str,
    /// When, as the registry says.
    pub created_at: SystemTime,
    /// Of which operation.
    pub trace: &'a Trace,
}

impl ContainerEvent<'_> {
    /// Encodes it under an id.
    pub fn encode(&self, id: EventId) -> Event {
        let registry = self.registry;
        let created_at = jiff::Timestamp::try_from(self.created_at).unwrap_or(jiff::Timestamp::UNIX_EPOCH);
        let encoded = Encoded {
            event_metadata: Metadata {
                cloud_id: &registry.cloud_id,
                created_at: format!("{created_at:.0}"),
                event_id: id.to_string(),
                event_type: self.event_type.event_type(),
                folder_id: &registry.folder_id,
                tracing_context: TracingContext {
                    parent_span_id: self.trace.span(&[]),
                    span_id: self.trace.span(&[self.event_type.name(), self.tag, self.digest]),
                    trace_id: hex(&self.trace.trace_id),
                },
            },
            details: Details {
                image_digest: self.digest,
                image_id: image_id(&registry.id, self.repository, self.digest),
                registry_id: &registry.id,
                repository_name: format!("{}{}", registry.repository_prefix, self.repository),
                tag: self.tag,
            },
        };
        // Strings alone do not fail.
        Event { id, json: Bytes::from(serde_json::to_vec(&encoded).unwrap_or_default()) }
    }
}

#[derive(Serialize)]
struct Encoded<'a> {
    event_metadata: Metadata<'a>,
    details: Details<'a>,
}

#[derive(Serialize)]
struct Metadata<'a> {
    cloud_id: &'a str,
    created_at: String,
    event_id: String,
    event_type: &'a str,
    folder_id: &'a str,
    tracing_context: TracingContext,
}

#[derive(Serialize)]
struct TracingContext {
    parent_span_id: String,
    span_id: String,
    trace_id: String,
}

#[derive(Serialize)]
struct Details<'a> {
    image_digest: &'a str,
    image_id: String,
    registry_id: &'a str,
    repository_name: String,
    tag: &'a str,
}

/// The id of an image in a repository: 20 characters, the same for the same image for ever.
pub fn image_id(registry_id: &str, repository: &str, digest: &str) -> String {
    const DIGITS: &[u8; 32] = b"0123456789abcdefghijklmnopqrstuv";
    let digest = self::digest(&["image", registry_id, repository, digest]);
    let digits = digest.iter().take(17).map(|byte| char::from(DIGITS[usize::from(byte & 31)]));
    std::iter::once("crt".to_owned()).chain(digits.map(String::from)).collect()
}

fn digest(words: &[&str]) -> [u8; 32] {
    let mut hash = Sha256::new();
    for word in words {
        hash.update((word.len() as u64).to_le_bytes());
        hash.update(word.as_bytes());
    }
    hash.finalize().into()
}

fn first<const N: usize>(digest: &[u8; 32]) -> [u8; N] {
    std::array::from_fn(|at| digest[at])
}

#[cfg(test)]
pub(crate) mod tests {
    use std::time::UNIX_EPOCH;

    use super::*;

    /// A registry with every default.
    pub(crate) fn registry(id: &str) -> ContainerRegistry {
        ContainerRegistry {
            id: id.into(),
            kind: ContainerRegistryKind::Distribution,
            url: None,
            webhook_token: Token::new("t".to_owned()),
            login: None,
            ca_file: None,
            manifests: [ManifestKind::Image].into(),
            tells_untagged: false,
            repositories: None,
            reconcile: Reconcile::default(),
            repository_prefix: format!("{id}/"),
            cloud_id: "default".into(),
            folder_id: "default".into(),
        }
    }

    const DIGEST: &str = "sha256:e0b9cc7494c37459ce59467bb0201494f122fff19f6dd26b0d31eeedb99757dc";

    #[test]
    fn an_event_has_exactly_these_bytes_and_is_known_again_in_the_journal() {
        let id = uuid::Uuid::from_u128(0x0199_0000_0000_7000_8000_0000_0000_0001);
        let event = ContainerEvent {
            event_type: ContainerEventType::CreateImage,
            registry: &registry("images"),
            repository: "team/app",
            digest: DIGEST,
            tag: "v1",
            created_at: UNIX_EPOCH + Duration::new(1_599_476_954, 900_000_000),
            trace: &Trace::of("b6e1c71e-3cfa-4f3c-8a0c-1a2b3c4d5e6f", "event-1"),
        };
        let event = event.encode(id);
        assert_eq!(
            std::str::from_utf8(&event.json).unwrap(),
            concat!(
                r#"{"event_metadata":{"cloud_id":"default","created_at":"2020-09-07T11:09:14Z","#,
                r#""event_id":"01990000-0000-7000-8000-000000000001","#,
                r#""event_type":"yandex.cloud.events.containerregistry.CreateImage","folder_id":"default","#,
                r#""tracing_context":{"parent_span_id":"c9720fd943af5683","span_id":"f5cf2ccf33922d64","#,
                r#""trace_id":"b6e1c71e3cfa4f3c8a0c1a2b3c4d5e6f"}},"#,
                r#""details":{"image_digest":"sha256:e0b9cc7494c37459ce59467bb0201494f122fff19f6dd26b0d31eeedb99757dc","#,
                r#""image_id":"crt5d55frisd7g3nlnfu","registry_id":"images","repository_name":"images/team/app","tag":"v1"}}"#
            )
        );
        assert_eq!(Event::from_json(event.json.clone()), Some(event));
    }

    #[test]
    fn the_id_of_an_image_is_its_own_and_stays() {
        let id = image_id("images", "team/app", DIGEST);
        assert_eq!(id.len(), 20);
        assert_eq!(id, image_id("images", "team/app", DIGEST));
        assert_ne!(id, image_id("images", "team/apps", DIGEST));
        assert_ne!(image_id("ab", "c", DIGEST), image_id("a", "bc", DIGEST));
    }

    #[test]
    fn a_filter_wants_type_image_and_tag_together() {
        use ContainerEventType::{CreateImage, CreateImageTag, DeleteImage};
        let registry = ContainerRegistry { repository_prefix: "h:5000/".into(), ..registry("images") };
        let filter = |image: Option<&str>, tag: Option<&str>| ContainerFilter {
            event_types: [CreateImage, DeleteImage].into(),
            image_name: image.map(Into::into),
            tag: tag.map(Into::into),
        };
        assert!(filter(None, None).wants(&registry, CreateImage, "a/b", ["v1"]));
        assert!(!filter(None, None).wants(&registry, CreateImageTag, "a/b", ["v1"]));
        for image in ["a/b", "images/a/b", "h:5000/a/b"] {
            assert!(filter(Some(image), Some("v1")).wants(&registry, CreateImage, "a/b", ["v1"]), "{image}");
            assert!(!filter(Some(image), Some("v1")).wants(&registry, CreateImage, "a/b", ["v2"]), "{image}");
            assert!(!filter(Some(image), None).wants(&registry, CreateImage, "b", ["v1"]), "{image}");
        }
        assert!(filter(None, Some("v1")).wants(&registry, DeleteImage, "a", ["v0", "v1"]));
        assert!(!filter(None, Some("v1")).wants(&registry, DeleteImage, "a", []));
    }

    #[test]
    fn the_list_of_event_types_is_in_the_order_of_their_numbers() {
        let numbers = ContainerEventType::ALL.map(|event_type| event_type as usize);
        assert_eq!(numbers, [0, 1, 2, 3], "the outbox on disk holds them");
    }

    #[test]
    fn different_filters_have_different_names() {
        let types: BTreeSet<_> = ContainerEventType::ALL.into();
        let name = |image: Option<&str>, tag: Option<&str>, types: &BTreeSet<_>| {
            let filter = ContainerFilter {
                event_types: types.clone(),
                image_name: image.map(Into::into),
                tag: tag.map(Into::into),
            };
            filter.to_string()
        };
        let one: BTreeSet<_> = [ContainerEventType::CreateImage].into();
        let names: BTreeSet<_> = [
            name(None, None, &types),
            name(None, None, &one),
            name(Some("a"), None, &one),
            name(Some("a"), Some("b"), &one),
            name(None, Some("b"), &one),
            name(Some("a:b"), None, &one),
        ]
        .into();
        assert_eq!(names.len(), 6);
    }
}
