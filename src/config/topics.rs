//! Topic filters of triggers: only those that can match something are accepted.

use crate::model::iot::{DeviceRegistry, KINDS};
use crate::model::topic;

use super::fields::quote;
use super::suggest;

/// Checks the filter of a broker's topics.
pub fn check_broker_filter(filter: &str) -> Result<(), String> {
    if filter.starts_with('$') {
        return Err("is not a topic of a broker: those do not begin with '$'".into());
    }
    topic::check_filter(filter).map_err(|error| format!("is not a topic filter: it {error}"))
}

/// Checks the filter of a registry's topics, perhaps of one device only.
pub fn check_registry_filter(
    filter: &str,
    registry: &DeviceRegistry,
    device_id: Option<&str>,
) -> Result<(), String> {
    topic::check_filter(filter).map_err(|error| format!("is not a topic filter: it {error}"))?;
    let levels: Vec<&str> = filter.split('/').collect();
    match levels[0] {
        "$devices" => check_standard(&levels, |id| check_device(id, registry, device_id)),
        "$registries" if device_id.is_some() => {
            Err("is a topic of the registry, which no device publishes to; remove `device_id`".into())
        }
        "$registries" => check_standard(&levels, |id| check_registry(id, registry)),
        "$monitoring" => Err("is a monitoring topic; triggers cannot read those".into()),
        first if first.starts_with('$') => {
            Err("must begin with \"$devices/\" or \"$registries/\", or with an alias".into())
        }
        _ => check_alias(&levels, registry, device_id),
    }
}

/// `$devices/{id}/{kind}/…`: three levels at least, unless a `#` stands for the rest.
fn check_standard(levels: &[&str], check_id: impl Fn(&str) -> Result<(), String>) -> Result<(), String> {
    let open = levels.last() == Some(&"#");
    if levels.len() < 3 && !open {
        return Err(format!(
            "is too short: three levels are needed, such as \"{0}/+/events\", or \"{0}/#\"",
            levels[0]
        ));
    }
    match levels.get(1) {
        Some(&("+" | "#")) | None => {}
        Some(id) => check_id(id)?,
    }
    match levels.get(2) {
        Some(&("+" | "#")) | None => Ok(()),
        Some(kind) => check_kind(kind),
    }
}

fn check_kind(kind: &str) -> Result<(), String> {
    if KINDS.contains(&kind) {
        return Ok(());
    }
    let known = suggest::among(kind, KINDS, "it may be");
    Err(format!("can never match: the third level {} is no standard topic{known}", quote(kind)))
}

fn check_device(id: &str, registry: &DeviceRegistry, device_id: Option<&str>) -> Result<(), String> {
    if let Some(only) = device_id.filter(|only| *only != id) {
        return Err(format!("can never match: `device_id` is {}", quote(only)));
    }
    let known = registry.devices.iter().map(|device| &*device.id);
    // A device whose id is a fault is empty, and may be the one.
    if known.clone().any(|device| device == id || device.is_empty()) {
        return Ok(());
    }
    let known = suggest::among(id, known, "its devices");
    Err(format!("can never match: {} is not a device of the registry \"{}\"{known}", quote(id), registry.id))
}

fn check_registry(id: &str, registry: &DeviceRegistry) -> Result<(), String> {
    if id == &*registry.id {
        return Ok(());
    }
    Err(format!("can never match: the trigger reads the registry \"{}\"", registry.id))
}

/// Filters without `$` see topics by their aliases only.
fn check_alias(levels: &[&str], registry: &DeviceRegistry, device_id: Option<&str>) -> Result<(), String> {
    let devices = registry.devices.iter().filter(|device| device_id.is_none_or(|only| only == &*device.id));
    let mut names = devices.flat_map(|device| &device.aliases).peekable();
    let whose = device_id.unwrap_or(&registry.id);
    if names.peek().is_none() {
        return Err(format!("can never match: it matches aliases only, and \"{whose}\" has none"));
    }
    let mut names = names.collect::<Vec<_>>();
    if names.iter().any(|alias| can_match(levels, &alias.name, &alias.target)) {
        return Ok(());
    }
    names.truncate(6);
    let known = names.iter().map(|alias| quote(&alias.name)).collect::<Vec<_>>().join(", ");
    Err(format!(
        "can never match: it matches aliases only, with topics below them such as \"…/events\"; those of \
         \"{whose}\" are {known}"
    ))
}

/// Whether a filter can match a topic at or below an alias, seen under the alias's name.
fn can_match(filter: &[&str], name: &str, target: &str) -> bool {
    let mut rest = filter.iter().copied();
    for level in name.split('/') {
        match rest.next() {
            Some("#") => return true,
            Some(wanted) if wanted == "+" || wanted == level => {}
            _ => return false,
        }
    }
    // Below the alias the levels go on behind the target: the whole must be a standard topic.
    let target = target.split('/').count();
    let below: Vec<&str> = rest.collect();
    let open = below.last() == Some(&"#");
    let kind = if target == 2 { below.first() } else { None };
    (open || target + below.len() >= 3)
        && kind.is_none_or(|kind| matches!(*kind, "+" | "#") || KINDS.contains(kind))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_filter_must_reach_an_alias() {
        for (filter, expected) in [
            ("#", true),
            ("hall/#", true),
            ("hall/+/events", true),
            ("hall/press-1/#", true),
            ("hall/press-1/events/temperature", true),
            ("+/+/state", true),
            ("hall/press-1", false),
            ("hall/press-1/event", false),
            ("hall", false),
            ("hall/press-2/#", false),
            ("+", false),
        ] {
            let levels: Vec<&str> = filter.split('/').collect();
            assert_eq!(can_match(&levels, "hall/press-1", "$devices/press-1"), expected, "{filter}");
        }
        assert!(can_match(&["t"], "t", "$devices/press-1/events"));
        assert!(can_match(&["t", "any"], "t", "$devices/press-1/events"));
    }
}
