//! `service_accounts` and `container_registries`.

use super::fields::{Fields, Reading, Value};
use super::scalar::{declared_id, word};
use super::secret::secret;
use super::settings::{ContainerRegistry, ContainerRegistryKind, ServiceAccount};
use super::unique::Unique;
use crate::model::secret::Password;

/// Reads `service_accounts`.
pub(super) fn service_accounts(root: &mut Fields<'_>, reading: &mut Reading) -> Vec<ServiceAccount> {
    let mut ids = Unique::default();
    let mut accounts = Vec::new();
    for item in items(root, "service_accounts", reading) {
        let mut fields = item.fields(reading);
        let (id, spot) = declared_id(&mut fields, reading);
        ids.declare(&id, "ids of service accounts must differ", &spot, reading);
        let roles = fields.get("roles").map(|roles| roles.items(reading)).unwrap_or_default();
        let roles = roles.iter().filter_map(|role| self::role(role, reading)).collect();
        fields.finish(reading);
        accounts.push(ServiceAccount { id, roles });
    }
    accounts
}

/// A role has the form `service.name`. Unknown ones are kept: they grant nothing here.
fn role(value: &Value<'_>, reading: &mut Reading) -> Option<String> {
    let text = value.str(reading)?;
    let letters = |part: &str| {
        part.starts_with(|c: char| c.is_ascii_alphabetic())
            && part.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-')
    };
    if text.len() > 128 || !text.split('.').all(letters) {
        let shown = value.shown();
        value.fault(
            reading,
            format_args!("{shown} is not a role, such as \"{}\"", ServiceAccount::BROADCASTERS[0]),
        );
    }
    Some(text.to_owned())
}

/// Reads `container_registries`.
pub(super) fn container_registries(root: &mut Fields<'_>, reading: &mut Reading) -> Vec<ContainerRegistry> {
    use ContainerRegistryKind::{Distribution, Harbor, Zot};
    let kinds = [("distribution", Distribution), ("zot", Zot), ("harbor", Harbor)];
    let mut ids = Unique::default();
    let mut registries = Vec::new();
    for item in items(root, "container_registries", reading) {
        let mut fields = item.fields(reading);
        let (id, spot) = declared_id(&mut fields, reading);
        ids.declare(&id, "ids of container registries must differ", &spot, reading);
        let kind = fields.need("kind", reading).and_then(|value| word(&value, &kinds, reading));
        let url = fields.need("url", reading).and_then(|value| http_url(&value, reading));
        let token = secret(&mut fields, "webhook_token", "webhook_token_file", reading);
        if !fields.has("webhook_token") && !fields.has("webhook_token_file") {
            fields.missing("webhook_token", reading);
        }
        fields.finish(reading);
        registries.push(ContainerRegistry {
            id,
            kind: kind.unwrap_or(Distribution),
            url: url.unwrap_or_default(),
            webhook_token: Password::new(token.map(|token| token.text).unwrap_or_default()),
        });
    }
    registries
}

fn http_url(value: &Value<'_>, reading: &mut Reading) -> Option<String> {
    let text = value.str(reading)?;
    let good = url::Url::parse(text).ok().filter(|url| {
        matches!(url.scheme(), "http" | "https")
            && url.username().is_empty()
            && url.password().is_none()
            && url.query().is_none()
            && url.fragment().is_none()
    });
    if good.is_none() {
        // Not shown: it may hold a password.
        value.fault(reading, "the URL must be http://HOST[:PORT] or https://HOST[:PORT], without a login");
    }
    Some(text.trim_end_matches('/').to_owned())
}

/// The items of a list that may be left out.
pub(super) fn items<'a>(
    fields: &mut Fields<'a>,
    name: &'static str,
    reading: &mut Reading,
) -> Vec<Value<'a>> {
    fields.get(name).map(|list| list.items(reading)).unwrap_or_default()
}
