//! From a row and its arguments to the JSON of a request.

use std::io::Read;
use std::path::Path;

use base64::Engine;
use base64::prelude::BASE64_STANDARD;
use clap::ArgMatches;
use clap::parser::ValueSource;
use prost_reflect::{DynamicMessage, FieldDescriptor, Kind as FieldKind, MessageDescriptor};
use serde_json::{Map, Value, json};

use super::table::{Flag, How, Kind, Row};
use super::tree;
use crate::cli::Failure;
use crate::model::duration;
use crate::proto::POOL;

const RULES: &str = "triggercast.rules";

/// A request, and what is still to be looked up for it.
#[derive(Debug)]
pub(super) struct Plan {
    pub(super) request: Value,
    pub(super) names: Vec<Name>,
}

/// A field that takes the id of what has this name.
#[derive(Debug)]
pub(super) struct Name {
    pub(super) field: String,
    /// The path of its group.
    pub(super) group: &'static str,
    pub(super) name: String,
}

fn input(message: String) -> Failure {
    Failure::Input(message)
}

/// Reads the flags. The resources that a command is about, and its folder, are not in the request yet.
pub(super) fn plan(
    row: &'static Row,
    descriptor: &MessageDescriptor,
    matches: &ArgMatches,
) -> Result<Plan, Failure> {
    if let Some(name) = row.refused.iter().find(|name| matches.value_source(name).is_some()) {
        return Err(input(format!(
            "--{name}: Triggercast broadcasts to WebSockets only. Say where with --gateway-id, \
             --gateway-websocket-broadcast-path and --gateway-websocket-broadcast-service-account-id"
        )));
    }
    let mut plan = Plan { request: json!({}), names: Vec::new() };
    for (field, text) in row.fixed {
        set(&mut plan.request, field, json!(text));
    }
    let flags = tree::flags(row, Some(descriptor));
    for flag in flags.iter().filter(|flag| !flag.to.is_empty()) {
        let Some(values) = given(matches, tree::first_name(flag)) else { continue };
        let field = whole_path(row, flag);
        match flag.kind {
            Kind::NameOf(group) => plan.names.push(Name { field, group, name: values.concat() }),
            Kind::Subject => {
                let text = values.concat();
                let (kind, id) = subject(&text)?;
                set(&mut plan.request, &field, json!(id));
                set(&mut plan.request, &sibling(&field, "type"), json!(kind));
            }
            _ => set(&mut plan.request, &field, value(flag, values)?),
        }
    }
    if row.how == How::New
        && let Some(name) = given(matches, tree::TARGET)
    {
        set(&mut plan.request, "name", json!(name.concat()));
    }
    check_twice(row, &flags, matches)?;
    if matches!(row.how, How::New | How::One) {
        check_needed(row, descriptor, &flags, &plan)?;
    }
    Ok(plan)
}

/// The values of an argument, if it is there.
pub(super) fn given(matches: &ArgMatches, id: &str) -> Option<Vec<String>> {
    let values = matches.try_get_many::<String>(id).ok().flatten()?;
    Some(values.cloned().collect())
}

fn whole_path(row: &Row, flag: &Flag) -> String {
    if flag.to.starts_with('.') { format!("{}{}", row.under, flag.to) } else { flag.to.to_owned() }
}

fn sibling(field: &str, name: &str) -> String {
    match field.rsplit_once('.') {
        Some((before, _)) => format!("{before}.{name}"),
        None => name.to_owned(),
    }
}

/// Sets a field that may lie deeper; a number on the way is a place in a list.
pub(super) fn set(at: &mut Value, field: &str, value: Value) {
    let Some((first, rest)) = field.split_once('.') else {
        at[field] = value;
        return;
    };
    let next_is_list = rest.starts_with(|c: char| c.is_ascii_digit());
    let inner = match (at, first.parse::<usize>()) {
        (Value::Array(items), Ok(place)) => {
            items.resize(items.len().max(place + 1), json!({}));
            &mut items[place]
        }
        (at, _) => &mut at[first],
    };
    if inner.is_null() {
        *inner = if next_is_list { json!([]) } else { json!({}) };
    }
    set(inner, rest, value);
}

/// A deeper field.
pub(super) fn get<'a>(at: &'a Value, field: &str) -> Option<&'a Value> {
    at.pointer(&format!("/{}", field.replace('.', "/")))
}

/// Two flags may not set one field.
fn check_twice(row: &Row, flags: &[&'static Flag], matches: &ArgMatches) -> Result<(), Failure> {
    let is_given = |flag: &&&Flag| {
        let source = matches.value_source(tree::first_name(flag));
        !flag.to.is_empty() && source == Some(ValueSource::CommandLine)
    };
    let mut seen: Vec<(String, &str)> = Vec::new();
    for flag in flags.iter().filter(is_given) {
        let (field, name) = (whole_path(row, flag), tree::first_name(flag));
        if let Some((_, other)) = seen.iter().find(|(known, _)| *known == field) {
            return Err(input(format!("--{other} and --{name} say the same; give one of them")));
        }
        seen.push((field, name));
    }
    Ok(())
}

/// What the rules of the messages ask for must be given, so far as there are flags for it.
fn check_needed(
    row: &Row,
    descriptor: &MessageDescriptor,
    flags: &[&'static Flag],
    plan: &Plan,
) -> Result<(), Failure> {
    let mut missing: Vec<(String, String)> = Vec::new();
    for flag in flags.iter().filter(|flag| !flag.to.is_empty()) {
        let field = whole_path(row, flag);
        let there = get(&plan.request, &field).is_some() || plan.names.iter().any(|name| name.field == field);
        if there || !field_of(descriptor, &field).is_some_and(|field| is_needed(&field)) {
            continue;
        }
        let name = match (tree::first_name(flag), row.how) {
            ("name", How::New) => "NAME".to_owned(),
            (name, _) => format!("--{name}"),
        };
        match missing.iter_mut().find(|(known, _)| *known == field) {
            Some((_, names)) => names.push_str(&format!(" or {name}")),
            None => missing.push((field, name)),
        }
    }
    if missing.is_empty() {
        return Ok(());
    }
    let names: Vec<String> = missing.into_iter().map(|(_, names)| names).collect();
    Err(input(format!("missing: {}. More with --help", names.join(", "))))
}

/// The field at the end of a path.
pub(super) fn field_of(descriptor: &MessageDescriptor, path: &str) -> Option<FieldDescriptor> {
    let mut names = path.split('.').filter(|name| name.parse::<usize>().is_err()).peekable();
    let mut message = descriptor.clone();
    while let Some(name) = names.next() {
        let field = message.get_field_by_name(name)?;
        if names.peek().is_none() {
            return Some(field);
        }
        let FieldKind::Message(inner) = field.kind() else { return None };
        message = inner;
    }
    None
}

fn is_needed(field: &FieldDescriptor) -> bool {
    let Some(extension) = POOL.get_extension_by_name(RULES) else { return false };
    let options = field.options();
    let rules = options.get_extension(&extension);
    let Some(rules) = rules.as_message() else { return false };
    let is = |name| rules.get_field_by_name(name);
    is("required").is_some_and(|value| value.as_bool() == Some(true))
        || is("size").is_some_and(|value| value.as_str() == Some(">0"))
}

fn value(flag: &Flag, values: Vec<String>) -> Result<Value, Failure> {
    let name = tree::first_name(flag);
    let wrong = |text: &str, rule: &str| input(format!("--{name}: {text:?} is not {rule}"));
    let upper = |prefix: &str, word: &str| format!("{prefix}{}", word.to_uppercase().replace('-', "_"));
    let one = values.last().map(String::as_str).unwrap_or_default();
    Ok(match flag.kind {
        Kind::Text | Kind::Switch | Kind::NameOf(_) | Kind::Subject => json!(one),
        Kind::Texts => json!(values),
        Kind::Whole(_) => json!(one.parse::<i64>().map_err(|_| wrong(one, "a whole number"))?.to_string()),
        Kind::Span(_) => {
            json!(span(one).ok_or_else(|| wrong(one, "a duration such as 500ms, 1.5s or 1m"))?)
        }
        Kind::Pairs => {
            let pair = |text: &String| {
                let (key, value) = text.split_once('=').ok_or_else(|| wrong(text, "KEY=VALUE"))?;
                Ok((key.trim().to_owned(), json!(value)))
            };
            Value::Object(values.iter().map(pair).collect::<Result<Map<_, _>, Failure>>()?)
        }
        Kind::Keys => {
            let key = |text: &String| text.split_once('=').map_or(text.clone(), |(key, _)| key.to_owned());
            json!(values.iter().map(key).collect::<Vec<_>>())
        }
        Kind::Word(prefix, _) => json!(upper(prefix, one)),
        Kind::Words(prefix, _) => json!(values.iter().map(|word| upper(prefix, word)).collect::<Vec<_>>()),
        Kind::File => json!(text_of(one)?),
        Kind::Secret => json!(text_of(one)?.trim_end_matches(['\n', '\r'])),
        Kind::Data => json!(BASE64_STANDARD.encode(one)),
        Kind::DataFile => json!(BASE64_STANDARD.encode(bytes_of(one)?)),
        Kind::Json => {
            let item = |text: &String| {
                let text = match text.strip_prefix('@') {
                    Some(file) => text_of(file)?,
                    None => text.clone(),
                };
                serde_json::from_str(&text).map_err(|error| input(format!("--{name}: not JSON: {error}")))
            };
            Value::Array(values.iter().map(item).collect::<Result<_, Failure>>()?)
        }
        Kind::Bindings => Value::Array(values.iter().map(|text| binding(text)).collect::<Result<_, _>>()?),
    })
}

/// A duration as JSON has it.
pub(super) fn span(text: &str) -> Option<String> {
    let duration = duration::parse(text)?;
    let (seconds, nanos) = (duration.as_secs(), duration.subsec_nanos());
    if nanos == 0 {
        return Some(format!("{seconds}s"));
    }
    let fraction = format!("{nanos:09}");
    Some(format!("{seconds}.{}s", fraction.trim_end_matches('0')))
}

fn subject(text: &str) -> Result<(&str, &str), Failure> {
    let wrong = || input(format!("{text:?} is not TYPE:ID, such as serviceAccount:aje…"));
    text.split_once(':').filter(|(kind, id)| !kind.is_empty() && !id.is_empty()).ok_or_else(wrong)
}

fn binding(text: &str) -> Result<Value, Failure> {
    let mut binding = json!({});
    for part in text.split(',') {
        match part.split_once('=') {
            Some(("role", role)) => binding["role_id"] = json!(role),
            Some(("subject", who)) => {
                let (kind, id) = subject(who)?;
                binding["subject"] = json!({ "id": id, "type": kind });
            }
            Some(("service-account-id", id)) => {
                binding["subject"] = json!({ "id": id, "type": "serviceAccount" });
            }
            _ => return Err(input(format!("--access-binding: {part:?} is not role=… or subject=TYPE:ID"))),
        }
    }
    Ok(binding)
}

/// What a file holds; `-` is stdin.
pub(super) fn bytes_of(file: &str) -> Result<Vec<u8>, Failure> {
    let mut bytes = Vec::new();
    let read = match file {
        "-" => std::io::stdin().lock().read_to_end(&mut bytes).map(|_| ()),
        file => std::fs::read(Path::new(file)).map(|read| bytes = read),
    };
    read.map_err(|error| input(format!("{file}: cannot be read: {error}")))?;
    Ok(bytes)
}

/// The same as text.
pub(super) fn text_of(file: &str) -> Result<String, Failure> {
    String::from_utf8(bytes_of(file)?).map_err(|_| input(format!("{file}: not UTF-8 text")))
}

/// A request as a message. What does not fit comes from JSON that was given.
pub(super) fn message(descriptor: MessageDescriptor, request: &Value) -> Result<DynamicMessage, Failure> {
    DynamicMessage::deserialize(descriptor, request.clone())
        .map_err(|error| input(format!("this cannot be asked for: {error}")))
}

/// A mask of these fields, as JSON has it.
pub(super) fn mask<'a>(fields: impl Iterator<Item = &'a String>) -> Value {
    let camel = |name: &String| {
        let mut parts = name.split('_');
        let first = parts.next().unwrap_or_default().to_owned();
        parts.fold(first, |name, part| {
            let (head, tail) = part.split_at(part.len().min(1));
            name + &head.to_uppercase() + tail
        })
    };
    json!(fields.map(camel).collect::<Vec<_>>().join(","))
}
