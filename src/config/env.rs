//! `${NAME}` in text values becomes the environment variable of that name; `$${` stands for `${`.
//!
//! It is done after the YAML is read, so that a variable's content cannot add keys. `$` before anything but
//! `{` is left alone: `$devices/…` is a topic.

use super::fields::{Reading, Spot, child_key, item_key};
use super::tree::{Kind, Node};

/// Fills in the variables of a node and everything below it.
pub(super) fn expand(
    node: &mut Node,
    key: &str,
    env: &dyn Fn(&str) -> Option<String>,
    reading: &mut Reading,
) {
    match &mut node.kind {
        Kind::Text(text) if text.value.contains("${") => match fill_in(&text.value, env) {
            Ok(value) => {
                // A text that only holds `$${` is no secret and stays shown as it acts.
                let filled = value != text.value.replace("$${", "${");
                let written = std::mem::replace(&mut text.value, value);
                text.written = filled.then_some(written);
            }
            Err(fault) => {
                reading.fault(&Spot { key: key.to_owned(), place: node.place }, fault);
                node.kind = Kind::Unset;
            }
        },
        Kind::List(items) => {
            for (index, item) in items.iter_mut().enumerate() {
                expand(item, &item_key(key, index), env, reading);
            }
        }
        Kind::Map(entries) => {
            for (name, value) in entries {
                expand(value, &child_key(key, &name.name), env, reading);
            }
        }
        Kind::Null | Kind::Unset | Kind::Bool(_) | Kind::Int(_) | Kind::Float(_) | Kind::Text(_) => {}
    }
}

fn fill_in(text: &str, env: &dyn Fn(&str) -> Option<String>) -> Result<String, String> {
    let mut out = String::with_capacity(text.len());
    let mut rest = text;
    while let Some(start) = rest.find("${") {
        if let Some(before) = rest[..start].strip_suffix('$') {
            out.push_str(before);
            out.push_str("${");
            rest = &rest[start + 2..];
            continue;
        }
        out.push_str(&rest[..start]);
        let Some((name, after)) = rest[start + 2..].split_once('}') else {
            return Err("holds \"${\" without \"}\"; write \"$${\" for the characters themselves".into());
        };
        if !is_name(name) {
            return Err(format!(
                "\"${{{name}}}\" does not name a variable (letters, digits and '_', no digit first); \
                 write \"$${{\" for the characters \"${{\" themselves"
            ));
        }
        let value = env(name).ok_or_else(|| format!("the environment variable {name} is not set"))?;
        out.push_str(&value);
        rest = after;
    }
    out.push_str(rest);
    Ok(out)
}

fn is_name(name: &str) -> bool {
    !name.is_empty()
        && !name.starts_with(|c: char| c.is_ascii_digit())
        && name.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'_')
}

#[cfg(test)]
mod tests {
    use super::*;

    fn fill(text: &str) -> Result<String, String> {
        fill_in(text, &|name| match name {
            "A" => Some("x".into()),
            "NEST" => Some("${A}".into()),
            _ => None,
        })
    }

    #[test]
    fn fills_in_braced_names_only() {
        for (text, expected) in [
            ("${A}", "x"),
            ("a${A}b${A}", "axbx"),
            ("$devices/${A}/events", "$devices/x/events"),
            ("$A $", "$A $"),
            ("$${A}", "${A}"),
            ("$$${A}", "$${A}"),
            ("${NEST}", "${A}"),
            ("ü${A}ü", "üxü"),
        ] {
            assert_eq!(fill(text).as_deref(), Ok(expected), "{text}");
        }
    }

    #[test]
    fn says_what_is_wrong() {
        assert!(fill("${B}").unwrap_err().contains("B is not set"));
        assert!(fill("${A").unwrap_err().contains("without"));
        assert!(fill("${}").unwrap_err().contains("does not name"));
        assert!(fill("${1A}").unwrap_err().contains("does not name"));
    }
}
