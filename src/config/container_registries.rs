//! `container_registries`: whose images and tags are followed.

use std::collections::BTreeSet;
use std::time::Duration;

use super::accounts::items;
use super::fields::{Fields, Reading, Value};
use super::scalar::{declared_id, duration, http_url, whole, word};
use super::secret::{secret, token};
use super::unique::Unique;
use crate::model::container::{
    ContainerRegistry, ContainerRegistryKind, ManifestKind, Reconcile, RegistryLogin,
};
use crate::model::id::{self, Id};
use crate::model::secret::Token;

/// How often a registry may be asked for everything.
const EVERY: std::ops::RangeInclusive<Duration> = Duration::ZERO..=Duration::from_secs(24 * 3600);
/// The shortest of them that is not zero.
const SHORTEST: Duration = Duration::from_secs(10);
/// `cloud_id` and `folder_id` of the events of a registry that names none.
const DEFAULT_ID: &str = "default";

/// Reads `container_registries`.
pub(super) fn read(root: &mut Fields<'_>, reading: &mut Reading) -> Vec<ContainerRegistry> {
    let mut ids = Unique::default();
    items(root, "container_registries", reading)
        .iter()
        .map(|item| {
            let mut fields = item.fields(reading);
            let registry = registry(&mut fields, &mut ids, reading);
            fields.finish(reading);
            registry
        })
        .collect()
}

fn registry(fields: &mut Fields<'_>, ids: &mut Unique, reading: &mut Reading) -> ContainerRegistry {
    use ContainerRegistryKind::{Distribution, Generic, Harbor, Zot};
    let kinds = [("distribution", Distribution), ("zot", Zot), ("harbor", Harbor), ("generic", Generic)];
    let (id, spot) = declared_id(fields, reading);
    ids.declare(&id, "ids of container registries must differ", &spot, reading);
    let kind = fields.need("kind", reading).and_then(|value| word(&value, &kinds, reading));
    let kind = kind.unwrap_or(Distribution);
    // Who only posts events may have nothing to ask.
    let url = if kind == Generic { fields.get("url") } else { fields.need("url", reading) };
    let url = url.and_then(|value| http_url(&value, reading));
    let webhook_token = secret(fields, "webhook_token", "webhook_token_file", reading);
    if !fields.has("webhook_token") && !fields.has("webhook_token_file") {
        fields.missing("webhook_token", reading);
    }
    let webhook_token = token(webhook_token, true, reading).unwrap_or_else(|| Token::new(String::new()));
    let login = login(fields, reading);
    let ca_file = fields.get("ca_file").and_then(|value| {
        let name = value.str(reading)?;
        let path = reading.folder.join(name);
        if let Err(error) = std::fs::File::open(&path) {
            value.fault(reading, format_args!("{} cannot be read: {error}", value.shown()));
        }
        Some(path)
    });
    let prefix = fields.get("repository_prefix").and_then(|value| prefix(&value, reading));
    let mut owner = |name| fields.get(name).and_then(|value| owner_id(&value, reading));
    let (cloud_id, folder_id) = (owner("cloud_id"), owner("folder_id"));
    ContainerRegistry {
        url,
        webhook_token,
        login,
        ca_file,
        manifests: manifests(fields, reading).unwrap_or_else(|| [ManifestKind::Image].into()),
        tells_untagged: untagged(fields, reading),
        repositories: fields.get("repositories").map(|value| repositories(&value, reading)),
        reconcile: fields.get("reconcile").map(|value| reconcile(&value, reading)).unwrap_or_default(),
        repository_prefix: prefix.unwrap_or_else(|| format!("{id}/")),
        cloud_id: cloud_id.unwrap_or_else(|| DEFAULT_ID.into()),
        folder_id: folder_id.unwrap_or_else(|| DEFAULT_ID.into()),
        id,
        kind,
    }
}

fn login(fields: &mut Fields<'_>, reading: &mut Reading) -> Option<RegistryLogin> {
    let username = fields.get("username");
    let password = secret(fields, "password", "password_file", reading);
    let has_password = fields.has("password") || fields.has("password_file");
    match &username {
        Some(_) if !has_password => fields.missing("password", reading),
        None if has_password => fields.missing("username", reading),
        _ => {}
    }
    let username = username?;
    let text = username.str(reading)?;
    if text.is_empty() || text.contains(':') || text.chars().any(char::is_control) {
        let shown = username.shown();
        username
            .fault(reading, format_args!("{shown} is not a user name (no ':' and no control characters)"));
    }
    let password = token(password, false, reading)?;
    Some(RegistryLogin { username: text.to_owned(), password })
}

fn manifests(fields: &mut Fields<'_>, reading: &mut Reading) -> Option<BTreeSet<ManifestKind>> {
    use ManifestKind::{Artifact, Helm, Image, Signature};
    let words = [("image", Image), ("helm", Helm), ("artifact", Artifact), ("signature", Signature)];
    let list = fields.get("manifests")?;
    let faults = reading.faults.len();
    let found: BTreeSet<_> =
        list.items(reading).iter().filter_map(|value| word(value, &words, reading)).collect();
    if found.is_empty() && reading.faults.len() == faults {
        list.fault(reading, "at least one kind is needed: image, helm, artifact or signature");
    }
    Some(found)
}

fn untagged(fields: &mut Fields<'_>, reading: &mut Reading) -> bool {
    let words = [("defer", false), ("emit", true)];
    fields.get("untagged").and_then(|value| word(&value, &words, reading)).unwrap_or_default()
}

fn repositories(list: &Value<'_>, reading: &mut Reading) -> Vec<String> {
    let mut found = Vec::new();
    for value in list.items(reading) {
        let Some(text) = value.str(reading) else { continue };
        if !crate::model::reference::is_repository(text) {
            let rule = crate::model::reference::REPOSITORY_RULE;
            value.fault(reading, format_args!("{} is not a repository ({rule})", value.shown()));
        }
        found.push(text.to_owned());
    }
    found
}

fn reconcile(value: &Value<'_>, reading: &mut Reading) -> Reconcile {
    let mut fields = value.fields(reading);
    let default = Reconcile::default();
    let every = fields.get("every").and_then(|value| {
        let every = duration(&value, EVERY, reading)?;
        if !every.is_zero() && every < SHORTEST {
            let shown = value.shown();
            value.fault(reading, format_args!("{shown} is too often: 10s to 24h, or 0s for never by itself"));
        }
        Some(every)
    });
    let rate = fields.get("requests_per_second").and_then(|value| whole(&value, 1..=10_000, reading));
    fields.finish(reading);
    Reconcile {
        every: every.map_or(default.every, |every| (!every.is_zero()).then_some(every)),
        requests_per_second: rate.map_or(default.requests_per_second, |rate| rate as u32),
    }
}

/// What is put before names of repositories.
fn prefix(value: &Value<'_>, reading: &mut Reading) -> Option<String> {
    let text = value.str(reading)?;
    let allowed = |c: char| c.is_ascii_alphanumeric() || "/-._:".contains(c);
    if text.len() > 255 || !text.chars().all(allowed) {
        let shown = value.shown();
        value.fault(
            reading,
            format_args!("{shown} is not a prefix (at most 255 letters, digits, '/', '-', '.', '_' or ':')"),
        );
    }
    Some(text.to_owned())
}

/// An id of a cloud or a folder, which other systems may have made.
fn owner_id(value: &Value<'_>, reading: &mut Reading) -> Option<Id> {
    let text = value.str(reading)?;
    if !id::check(text) {
        value.fault(reading, format_args!("{} is not an id ({})", value.shown(), id::RULE));
    }
    Some(Id::from(text))
}
