//! `aliases` of devices: other names for a device's topics.

use std::collections::HashMap;

use super::fields::{Reading, Spot, Value, quote};
use crate::model::iot::Alias;
use crate::model::iot::KINDS;
use crate::model::topic;

/// Most aliases of one device, as in the model system.
pub const MOST: usize = 5;

/// An alias and its place, for checks over the whole registry.
pub(super) struct Placed {
    name: String,
    spot: Spot,
}

/// Reads one device's aliases and adds them to those of the registry.
pub(super) fn read(
    value: &Value<'_>,
    device_id: &str,
    placed: &mut Vec<Placed>,
    reading: &mut Reading,
) -> Vec<Alias> {
    let entries = value.entries(reading);
    if entries.len() > MOST {
        value.fault(reading, format_args!("{} aliases; a device has at most {MOST}", entries.len()));
    }
    let mut aliases = Vec::new();
    for (name, target) in entries {
        // The model system writes aliases with a slash at the end.
        let name = name.strip_suffix('/').unwrap_or(name);
        if let Err(fault) = check_name(name) {
            target.fault(reading, format_args!("the alias {} {fault}", quote(name)));
        }
        placed.push(Placed { name: name.to_owned(), spot: target.spot.clone() });
        let Some(text) = target.str(reading) else { continue };
        let text = text.strip_suffix('/').unwrap_or(text);
        if !is_own_topic(text, device_id) {
            let shown = target.shown();
            target.fault(
                reading,
                format_args!(
                    "{shown} is not a topic of this device: \"$devices/{device_id}\" or below it \
                     \"$devices/{device_id}/events\", …/state, …/commands or …/config"
                ),
            );
        }
        aliases.push(Alias { name: name.to_owned(), target: text.to_owned() });
    }
    aliases
}

/// Holds the name of an alias against the rules of topics.
pub fn check_name(name: &str) -> Result<(), String> {
    if name.starts_with('$') {
        return Err("must not begin with '$'".into());
    }
    topic::check_name(name).map_err(|error| error.to_string())
}

/// `$devices/{id}`, or below it one of the standard topics and anything under that.
pub fn is_own_topic(text: &str, device_id: &str) -> bool {
    let mut levels = text.split('/');
    topic::check_name(text).is_ok()
        && levels.next() == Some("$devices")
        && levels.next() == Some(device_id)
        && levels.next().is_none_or(|kind| KINDS.contains(&kind))
}

/// No alias of a registry may be another's name, nor lie above it by whole levels.
pub(super) fn check_prefixes(placed: &[Placed], reading: &mut Reading) {
    let mut by_name: HashMap<&str, &str> = HashMap::new();
    for alias in placed {
        if let Some(first) = by_name.insert(&alias.name, &alias.spot.key) {
            let name = quote(&alias.name);
            reading.fault(&alias.spot, format_args!("the alias {name} is already taken by {first}"));
        }
    }
    for alias in placed {
        let slashes = alias.name.match_indices('/').map(|(at, _)| at);
        let above = slashes.map(|at| &alias.name[..at]).find_map(|prefix| by_name.get_key_value(prefix));
        if let Some((prefix, key)) = above {
            reading.fault(
                &alias.spot,
                format_args!(
                    "the alias {} lies below the alias {} ({key}); no alias of a registry may be the beginning \
                     of another",
                    quote(&alias.name),
                    quote(prefix)
                ),
            );
        }
    }
}
