//! `parameters` of a path and its operations, and where `{name}` refers to them.

use crate::config::fields::{Fields, Reading, Value};
use crate::config::scalar::word;
use crate::config::tree::Kind;
use crate::model::hook::{self, Parameter, Place};
use crate::model::path_template::PathTemplate;

/// Most parameters of one path.
const MOST: usize = 64;

/// Those that stand in the path itself need no declaration.
pub(super) fn of_path(template: &PathTemplate) -> Vec<Parameter> {
    let parameter = |(name, is_rest): (&str, bool)| Parameter {
        name: name.to_owned(),
        place: if is_rest { Place::Rest } else { Place::Path },
        default: None,
    };
    template.names().map(parameter).collect()
}

/// Adds those that are declared here.
pub(super) fn read(fields: &mut Fields<'_>, known: &mut Vec<Parameter>, reading: &mut Reading) {
    let Some(list) = fields.get("parameters") else { return };
    for item in list.items(reading) {
        const PLACES: &[(&str, Place)] = &[
            ("path", Place::Path),
            ("query", Place::Query),
            ("header", Place::Header),
            ("cookie", Place::Cookie),
        ];
        let mut fields = item.fields(reading);
        let name = fields.need("name", reading).and_then(|value| value.str(reading));
        let place = fields.need("in", reading).and_then(|value| word(&value, PLACES, reading));
        let default = fields.get("schema").and_then(|schema| schema.fields(reading).get("default"));
        let default = default.and_then(|value| scalar(&value));
        let (Some(name), Some(place)) = (name, place) else { continue };
        if !hook::is_name(name) {
            item.fault(
                reading,
                format_args!(
                    "{} is not the name of a parameter ({})",
                    super::super::fields::quote(name),
                    hook::NAME_RULE
                ),
            );
        }
        if known.len() >= MOST {
            item.fault(reading, format_args!("a path may have at most {MOST} parameters"));
            return;
        }
        match known.iter().find(|other| other.name == name) {
            // The same for several operations.
            Some(other) if other.place == place || (other.place, place) == (Place::Rest, Place::Path) => {}
            Some(_) => item.fault(reading, "two parameters of a path may not have one name and two places"),
            None if place == Place::Path => {
                item.fault(reading, format_args!("the path has no {{{name}}}"));
            }
            None => known.push(Parameter { name: name.to_owned(), place, default }),
        }
    }
}

/// A value as the text that stands for it.
fn scalar(value: &Value<'_>) -> Option<String> {
    match &value.node.kind {
        Kind::Text(text) => Some(text.value.clone()),
        Kind::Bool(value) => Some(value.to_string()),
        Kind::Int(value) => Some(value.to_string()),
        Kind::Float(value) => Some(value.to_string()),
        Kind::Null | Kind::Unset | Kind::List(_) | Kind::Map(_) => None,
    }
}

/// Notes names in `text` that are not known.
pub(super) fn check(text: &str, known: &[Parameter], value: &Value<'_>, reading: &mut Reading) {
    for name in hook::names(text) {
        if !known.iter().any(|parameter| parameter.name == name) && !hook::is_own_header(name) {
            value.fault(
                reading,
                format_args!("{{{name}}} is neither a parameter of the path nor declared under `parameters`"),
            );
        }
    }
}
