//! Who may connect to a path: `authorizer` of `config.yaml`, and `x-yc-apigateway-authorizer` of an OpenAPI document,
//! which have the same keys.

use std::ops::RangeInclusive;
use std::time::Duration;

use url::Url;

use super::accounts::items;
use super::fields::{Fields, Reading, Value, quote};
use super::scalar::{duration, whole, word};
use crate::model::authorizer::{Authorizer, HttpAuthorizer, IdentitySource, JwtRules, TokenPlace};
use crate::model::hook::Place;

/// Longest time that keys and answers are used again, in seconds.
const MAX_TTL: usize = 86_400;
/// Time that an authorizer has for its answer.
const TIMEOUT: RangeInclusive<Duration> = Duration::from_millis(100)..=Duration::from_secs(30);
const DEFAULT_TIMEOUT: Duration = Duration::from_secs(5);
/// Most entries of a list, and longest text, in bytes.
const MAX_ENTRIES: usize = 100;
const MAX_TEXT: usize = 1024;

/// Reads an authorizer. `None`: it has a fault.
pub(super) fn read(value: &Value<'_>, reading: &mut Reading) -> Option<Authorizer> {
    #[derive(Clone, Copy)]
    enum Kind {
        Jwt,
        Http,
        Function,
    }
    const WORDS: &[(&str, Kind)] = &[("jwt", Kind::Jwt), ("http", Kind::Http), ("function", Kind::Function)];
    let mut fields = value.fields(reading);
    let kind = fields.need("type", reading)?;
    let authorizer = match word(&kind, WORDS, reading)? {
        Kind::Jwt => jwt(&mut fields, reading).map(Authorizer::Jwt),
        Kind::Http => http(&mut fields, reading).map(Authorizer::Http),
        Kind::Function => {
            let other = "there are no functions here; \"http\" asks a server in the same words (keys: `url`, `timeout`)";
            kind.fault(reading, other);
            return None;
        }
    };
    fields.finish(reading);
    authorizer
}

fn jwt(fields: &mut Fields<'_>, reading: &mut Reading) -> Option<JwtRules> {
    let jwks_uri = fields.need("jwksUri", reading).and_then(|value| url(&value, reading));
    let jwks_ttl = seconds(fields, "jwkTtlInSeconds", reading);
    // A token is judged in less time than an answer is looked for.
    seconds(fields, "authorizer_result_ttl_in_seconds", reading);
    caching_mode(fields, reading);
    let source = fields.need("identitySource", reading).and_then(|value| source(&value, reading));
    let issuers = texts(fields, "issuers", reading);
    let audiences = texts(fields, "audiences", reading);
    let required_claims = texts(fields, "requiredClaims", reading);
    let scopes = texts(fields, "scopes", reading);
    Some(JwtRules {
        jwks_uri: jwks_uri?,
        jwks_ttl,
        source: source?,
        issuers,
        audiences,
        required_claims,
        scopes,
    })
}

fn http(fields: &mut Fields<'_>, reading: &mut Reading) -> Option<HttpAuthorizer> {
    let url = fields.need("url", reading).and_then(|value| self::url(&value, reading));
    let timeout = fields.get("timeout").and_then(|value| duration(&value, TIMEOUT, reading));
    let cache_ttl = seconds(fields, "authorizer_result_ttl_in_seconds", reading);
    let cache_by_uri = caching_mode(fields, reading);
    let given = fields.get("identitySource");
    let source = given.as_ref().and_then(|value| source(value, reading));
    if given.is_none() && !cache_ttl.is_zero() {
        let why = "`authorizer_result_ttl_in_seconds` needs `identitySource`: answers are kept by token";
        reading.fault(&fields.spot, why);
    }
    Some(HttpAuthorizer {
        url: url?,
        timeout: timeout.unwrap_or(DEFAULT_TIMEOUT),
        cache_ttl,
        cache_by_uri,
        source,
    })
}

fn source(value: &Value<'_>, reading: &mut Reading) -> Option<IdentitySource> {
    const WORDS: &[(&str, TokenPlace)] = &[
        ("header", TokenPlace::Request(Place::Header)),
        ("query", TokenPlace::Request(Place::Query)),
        ("cookie", TokenPlace::Request(Place::Cookie)),
        ("subprotocol", TokenPlace::Subprotocol),
    ];
    let mut fields = value.fields(reading);
    let place = fields.need("in", reading).and_then(|value| word(&value, WORDS, reading));
    let name = fields.need("name", reading).and_then(|value| {
        let text = value.str(reading)?;
        if !is_name(text) {
            let shown = value.shown();
            value.fault(
                reading,
                format_args!("{shown} is not a name (1 to 128 of a-z A-Z 0-9 !#$%&'*+-.^_`|~)"),
            );
        }
        Some(text.to_owned())
    });
    let prefix = fields.get("prefix").and_then(|value| text(&value, 0, reading));
    fields.finish(reading);
    Some(IdentitySource { place: place?, name: name?, prefix: prefix.unwrap_or_default() })
}

/// A token of RFC 9110, as headers, cookies and subprotocols have for a name.
fn is_name(text: &str) -> bool {
    let is_allowed = |byte: u8| byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&byte);
    (1..=128).contains(&text.len()) && text.bytes().all(is_allowed)
}

fn url(value: &Value<'_>, reading: &mut Reading) -> Option<String> {
    let text = value.str(reading)?;
    let is_good =
        |url: &Url| matches!(url.scheme(), "http" | "https") && url.has_host() && url.fragment().is_none();
    if !Url::parse(text).is_ok_and(|url| is_good(&url)) {
        let shown = value.shown();
        value.fault(
            reading,
            format_args!("{shown} is not a URL of http or https, such as \"https://login.example.org/keys\""),
        );
    }
    Some(text.to_owned())
}

fn seconds(fields: &mut Fields<'_>, name: &'static str, reading: &mut Reading) -> Duration {
    let seconds = fields.get(name).and_then(|value| whole(&value, 0..=MAX_TTL, reading));
    Duration::from_secs(seconds.unwrap_or(0) as u64)
}

/// Whether answers hold for one query only.
fn caching_mode(fields: &mut Fields<'_>, reading: &mut Reading) -> bool {
    let words = [("path", false), ("uri", true)];
    let mode = fields.get("authorizer_result_caching_mode");
    mode.and_then(|value| word(&value, &words, reading)).unwrap_or(false)
}

fn texts(fields: &mut Fields<'_>, name: &'static str, reading: &mut Reading) -> Vec<String> {
    let values = items(fields, name, reading);
    if let Some(value) = values.get(MAX_ENTRIES) {
        value.fault(reading, format_args!("the list has {} entries (at most {MAX_ENTRIES})", values.len()));
    }
    values.iter().filter_map(|value| text(value, 1, reading)).collect()
}

fn text(value: &Value<'_>, least: usize, reading: &mut Reading) -> Option<String> {
    let text = value.str(reading)?;
    if !(least..=MAX_TEXT).contains(&text.len()) || text.chars().any(char::is_control) {
        let shown = quote(text);
        value.fault(
            reading,
            format_args!("{shown} has not {least} to {MAX_TEXT} characters without control characters"),
        );
    }
    Some(text.to_owned())
}
