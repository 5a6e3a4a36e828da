//! `service_accounts`.

use super::fields::{Fields, Reading, Value};
use super::scalar::declared_id;
use super::settings::ServiceAccount;
use super::unique::Unique;
use crate::model::role::ADMIN;

/// Reads `service_accounts`.
pub(super) fn service_accounts(root: &mut Fields<'_>, reading: &mut Reading) -> Vec<ServiceAccount> {
    let mut ids = Unique::default();
    let mut accounts = Vec::new();
    for item in items(root, "service_accounts", reading) {
        let mut fields = item.fields(reading);
        let (id, spot) = declared_id(&mut fields, reading);
        ids.declare(&id, "ids of service accounts must differ", &spot, reading);
        if &*id == ADMIN {
            reading.fault(&spot, "is the id of the account that the server makes itself");
        }
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

/// The items of a list that may be left out.
pub(super) fn items<'a>(
    fields: &mut Fields<'a>,
    name: &'static str,
    reading: &mut Reading,
) -> Vec<Value<'a>> {
    fields.get(name).map(|list| list.items(reading)).unwrap_or_default()
}
