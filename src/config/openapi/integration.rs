//! `x-yc-apigateway-integration`: who answers a hook.

use std::time::Duration;

use url::Url;

use super::parameters::check;
use crate::config::fields::{Fields, Reading, Value, quote};
use crate::config::scalar::{whole, word};
use crate::config::tree::Kind;
use crate::model::hook::{self, Dummy, HttpCall, Integration, Parameter};

const METHODS: &[(&str, &str)] = &[
    ("GET", "GET"),
    ("HEAD", "HEAD"),
    ("POST", "POST"),
    ("PUT", "PUT"),
    ("PATCH", "PATCH"),
    ("DELETE", "DELETE"),
    ("OPTIONS", "OPTIONS"),
];
/// What `connect` and `read` of `timeouts` are when a document is silent.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);
const READ_TIMEOUT: Duration = Duration::from_secs(30);
/// Times may be as long as a gateway of the model system runs, in seconds.
const MAX_TIMEOUT: f64 = 600.0;
const MIN_TIMEOUT: f64 = 0.001;

/// Reads an integration of a hook.
pub(super) fn read(
    fields: &mut Fields<'_>,
    known: &[Parameter],
    reading: &mut Reading,
) -> Option<Integration> {
    let kind = fields.need("type", reading)?;
    match kind.str(reading)? {
        "dummy" => Some(Integration::Dummy(dummy(fields, known, reading))),
        "http" => http(fields, known, reading).map(Integration::Http),
        other => {
            kind.fault(
                reading,
                format_args!("{} is not built into this server; it has \"dummy\" and \"http\"", quote(other)),
            );
            None
        }
    }
}

fn dummy(fields: &mut Fields<'_>, known: &[Parameter], reading: &mut Reading) -> Dummy {
    let status = fields.get("http_code").and_then(|value| whole(&value, 200..=599, reading));
    let mut headers = Vec::new();
    if let Some(map) = fields.get("http_headers") {
        for (name, value) in map.entries(reading) {
            let values = match value.node.kind {
                Kind::List(_) => value.items(reading),
                _ => vec![value],
            };
            for value in values {
                header(name, &value, known, &mut headers, reading);
            }
        }
    }
    let mut content = None;
    if let Some(value) = fields.get("content") {
        if let Kind::Text(text) = &value.node.kind {
            content = Some(text.value.clone());
        } else {
            // Messages accept everything, so any may be taken: the default, else the first.
            let entries = value.entries(reading);
            let texts: Vec<_> =
                entries.iter().filter_map(|(kind, value)| Some((*kind, value.str(reading)?))).collect();
            if let Some((kind, text)) = texts.iter().find(|(kind, _)| *kind == "*").or(texts.first()) {
                content = Some((*text).to_owned());
                let has_type = headers.iter().any(|(name, _)| name.eq_ignore_ascii_case("content-type"));
                if *kind != "*" && !has_type {
                    headers.push(("content-type".to_owned(), (*kind).to_owned()));
                }
            }
        }
    }
    Dummy { status: status.map_or(200, |status| status as u16), headers, content }
}

/// Adds a header, checked.
fn header(
    name: &str,
    value: &Value<'_>,
    known: &[Parameter],
    headers: &mut Vec<(String, String)>,
    reading: &mut Reading,
) {
    let Some(text) = value.str(reading) else { return };
    let is_all = name == "*" && text == "*";
    let is_name = !name.is_empty()
        && name.bytes().all(|b| b.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&b));
    if !is_name || (name.contains('*') && !is_all) {
        value.fault(reading, format_args!("{} is not the name of a header", quote(name)));
    }
    if text.bytes().any(|b| b < b' ' && b != b'\t' || b == 0x7f) {
        value.fault(reading, "a header's value has no line ends and no control characters");
    }
    check(text, known, value, reading);
    headers.push((name.to_owned(), text.to_owned()));
}

fn http(fields: &mut Fields<'_>, known: &[Parameter], reading: &mut Reading) -> Option<HttpCall> {
    let url = fields.need("url", reading);
    let method = fields.get("method").and_then(|value| word(&value, METHODS, reading));
    let mut headers = Vec::new();
    if let Some(map) = fields.get("headers") {
        for (name, value) in map.entries(reading) {
            header(name, &value, known, &mut headers, reading);
        }
    }
    let mut query = Vec::new();
    if let Some(map) = fields.get("query") {
        for (name, value) in map.entries(reading) {
            let Some(text) = value.str(reading) else { continue };
            check(text, known, &value, reading);
            query.push((name.to_owned(), text.to_owned()));
        }
    }
    let mut flag = |name, fields: &mut Fields<'_>| match fields.get(name)?.node.kind {
        Kind::Bool(flag) => Some(flag),
        _ => {
            let value = fields.get(name)?;
            value.fault(reading, format_args!("{} is neither true nor false", value.shown()));
            None
        }
    };
    let omit_empty_headers = flag("omitEmptyHeaders", fields).unwrap_or_default();
    let omit_empty_query = flag("omitEmptyQueryParameters", fields).unwrap_or_default();
    let (mut connect_timeout, mut read_timeout) = (CONNECT_TIMEOUT, READ_TIMEOUT);
    if let Some(value) = fields.get("timeouts") {
        let mut times = value.fields(reading);
        connect_timeout = seconds(&mut times, "connect", reading).unwrap_or(connect_timeout);
        read_timeout = seconds(&mut times, "read", reading).unwrap_or(read_timeout);
        times.finish(reading);
    }
    for name in ["serviceAccountId", "service_account_id"] {
        if let Some(value) = fields.get(name) {
            value.fault(reading, "calls in the name of a service account are not built into this server");
        }
    }
    let url = url.and_then(|value| address(&value, known, reading))?;
    Some(HttpCall {
        url,
        method: method.unwrap_or("POST").to_owned(),
        headers,
        omit_empty_headers,
        query,
        omit_empty_query,
        connect_timeout,
        read_timeout,
    })
}

/// An address whose scheme, host and port are fixed.
fn address(value: &Value<'_>, known: &[Parameter], reading: &mut Reading) -> Option<String> {
    let text = value.str(reading)?;
    check(text, known, value, reading);
    // A reader of addresses forgives much: slashes that are too many or too few, the other slash, line ends. The host has
    // to stand where everybody sees it.
    let rest = text.strip_prefix("https://").or_else(|| text.strip_prefix("http://"));
    let host = rest.and_then(|rest| rest.split(['/', '\\', '?', '#']).next()).unwrap_or_default();
    if hook::names(host).next().is_some() {
        value.fault(reading, "parameters may not choose the host");
        return None;
    }
    match Url::parse(text) {
        Ok(url) if !host.is_empty() && !text.contains(char::is_control) => {
            if !url.username().is_empty() || url.password().is_some() {
                value.fault(reading, "an address holds no user name; use the header Authorization");
                return None;
            }
            Some(text.to_owned())
        }
        _ => {
            let shown = value.shown();
            value.fault(
                reading,
                format_args!("{shown} is not an address such as \"https://example.org/hook\""),
            );
            None
        }
    }
}

/// Seconds, with a fraction.
fn seconds(fields: &mut Fields<'_>, name: &'static str, reading: &mut Reading) -> Option<Duration> {
    let value = fields.get(name)?;
    let seconds = match value.node.kind {
        Kind::Int(number) => number as f64,
        Kind::Float(number) => number,
        _ => f64::NAN,
    };
    if (MIN_TIMEOUT..=MAX_TIMEOUT).contains(&seconds) {
        return Some(Duration::from_secs_f64(seconds));
    }
    let shown = value.shown();
    value.fault(reading, format_args!("{shown} is not a number of seconds ({MIN_TIMEOUT} to {MAX_TIMEOUT})"));
    None
}
