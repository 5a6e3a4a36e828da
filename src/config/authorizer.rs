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

#[cfg(test)]
mod tests {
    use std::path::Path;

    use crate::config::parse;
    use crate::model::authorizer::{Authorizer, HttpAuthorizer, IdentitySource, JwtRules, TokenPlace};
    use crate::model::hook::Place;

    use super::*;

    /// The authorizer that is written so, or the faults, without the file and the key that all have.
    fn read(text: &str) -> Result<Authorizer, Vec<String>> {
        let text = format!("gateways:\n  - {{ id: main, paths: {{ /ws: {{ authorizer: {text} }} }} }}\n");
        match parse(&text, Path::new("c.yaml"), &|_| None) {
            Ok(mut settings) => Ok(settings.resources.gateways[0].paths[0].authorizer.take().unwrap()),
            Err(errors) => Err(errors
                .iter()
                .map(|error| {
                    let text = error.to_string();
                    let mark = "gateways[0].paths[\"/ws\"].authorizer";
                    text.split_once(mark).unwrap_or_else(|| panic!("{text}")).1.to_owned()
                })
                .collect()),
        }
    }

    const SOURCE: &str = "identitySource: { in: header, name: Authorization, prefix: \"Bearer \" }";

    #[test]
    fn an_authorizer_of_the_model_system_is_understood() {
        let source = |place, name: &str, prefix: &str| IdentitySource {
            place,
            name: name.to_owned(),
            prefix: prefix.to_owned(),
        };
        let words = |words: &[&str]| words.iter().map(ToString::to_string).collect();
        let header = TokenPlace::Request(Place::Header);
        let text = "{ type: jwt, authorizer_result_ttl_in_seconds: 3000, authorizer_result_caching_mode: uri, \
                    jwkTtlInSeconds: 5000, jwksUri: https://example.com/.well-known/jwks.json, \
                    issuers: [https://example.com, https://example2.com], audiences: [audience-1], \
                    requiredClaims: [role, email], scopes: [\"profile:read\"], \
                    identitySource: { in: header, name: Authorization, prefix: \"Bearer \" } }";
        let expected = JwtRules {
            jwks_uri: "https://example.com/.well-known/jwks.json".into(),
            jwks_ttl: Duration::from_secs(5000),
            source: source(header, "Authorization", "Bearer "),
            issuers: words(&["https://example.com", "https://example2.com"]),
            audiences: words(&["audience-1"]),
            required_claims: words(&["role", "email"]),
            scopes: words(&["profile:read"]),
        };
        assert_eq!(read(text), Ok(Authorizer::Jwt(expected)));
        let least =
            "{ type: jwt, jwksUri: \"http://h/k\", identitySource: { in: subprotocol, name: bearer } }";
        let expected = JwtRules {
            jwks_uri: "http://h/k".into(),
            jwks_ttl: Duration::ZERO,
            source: source(TokenPlace::Subprotocol, "bearer", ""),
            issuers: vec![],
            audiences: vec![],
            required_claims: vec![],
            scopes: vec![],
        };
        assert_eq!(read(least), Ok(Authorizer::Jwt(expected)));
        let expected = HttpAuthorizer {
            url: "http://h/a?b".into(),
            timeout: DEFAULT_TIMEOUT,
            cache_ttl: Duration::ZERO,
            cache_by_uri: false,
            source: None,
        };
        assert_eq!(read("{ type: http, url: \"http://h/a?b\" }"), Ok(Authorizer::Http(expected.clone())));
        let text = format!(
            "{{ type: http, url: \"http://h/a?b\", timeout: 1s, authorizer_result_ttl_in_seconds: 60, \
             authorizer_result_caching_mode: uri, {SOURCE} }}"
        );
        let expected = HttpAuthorizer {
            timeout: Duration::from_secs(1),
            cache_ttl: Duration::from_secs(60),
            cache_by_uri: true,
            source: Some(source(header, "Authorization", "Bearer ")),
            ..expected
        };
        assert_eq!(read(&text), Ok(Authorizer::Http(expected)));
    }

    #[test]
    fn faults_say_what_and_where() {
        let jwt = |rest: &str| format!("{{ type: jwt, jwksUri: \"https://h/k\", {rest} }}");
        let sourced = |rest: &str| jwt(&format!("{SOURCE}, {rest}"));
        let http = |rest: &str| format!("{{ type: http, url: \"https://h/a\", {rest} }}");
        for (text, expected) in [
            ("{}".to_owned(), ": the key `type` is missing"),
            ("{ type: basic }".to_owned(), ".type: \"basic\" is not one of \"jwt\", \"http\", \"function\""),
            (
                "{ type: function, function_id: f }".to_owned(),
                ".type: there are no functions here; \"http\" asks",
            ),
            (jwt("jwkTtlInSeconds: 1"), ": the key `identitySource` is missing"),
            (format!("{{ type: jwt, {SOURCE} }}"), ": the key `jwksUri` is missing"),
            (
                format!("{{ type: jwt, jwksUri: \"ftp://h/k\", {SOURCE} }}"),
                ".jwksUri: \"ftp://h/k\" is not a URL",
            ),
            (format!("{{ type: jwt, jwksUri: /keys, {SOURCE} }}"), ".jwksUri: \"/keys\" is not a URL"),
            (sourced("jwkTtlInSeconds: 86401"), ".jwkTtlInSeconds: 86401 is out of range (0 to 86400)"),
            (sourced("jwkTtlInSeconds: 5m"), ".jwkTtlInSeconds: \"5m\" is not a whole number (0 to 86400)"),
            (sourced("issuer: x"), ".issuer: unknown key (did you mean \"issuers\"?)"),
            (sourced("issuers: x"), ".issuers: a list is expected here, not text"),
            (sourced("audiences: [\"\"]"), ".audiences[0]: \"\" has not 1 to 1024 characters"),
            (
                sourced("authorizer_result_caching_mode: query"),
                ".authorizer_result_caching_mode: \"query\" is not",
            ),
            (
                jwt("identitySource: { in: body, name: a }"),
                ".identitySource.in: \"body\" is not one of \"header\"",
            ),
            (jwt("identitySource: { in: header }"), ".identitySource: the key `name` is missing"),
            (
                jwt("identitySource: { in: header, name: \"a b\" }"),
                ".identitySource.name: \"a b\" is not a name",
            ),
            (jwt("identitySource: { in: query, name: a, prefx: b }"), ".identitySource.prefx: unknown key"),
            (http("timeout: 31s"), ".timeout: \"31s\" is out of range (0.1s to 30s)"),
            (http("jwksUri: \"https://h/k\""), ".jwksUri: unknown key"),
            (
                http("authorizer_result_ttl_in_seconds: 1"),
                ": `authorizer_result_ttl_in_seconds` needs `identitySource`",
            ),
        ] {
            let faults = read(&text).unwrap_err();
            assert!(faults.len() == 1 && faults[0].starts_with(expected), "{text}\n{faults:?}\n{expected}");
        }
        let many = sourced(&format!("issuers: [{}]", vec!["a"; 101].join(", ")));
        assert!(
            read(&many).unwrap_err()[0].starts_with(".issuers[100]: the list has 101 entries (at most 100)")
        );
    }

    #[test]
    fn local_targets_are_hosts_with_ports() {
        let read = |text: &str| {
            parse(&format!("gateway: {{ allowed_local_targets: {text} }}"), Path::new("c.yaml"), &|_| None)
        };
        let settings = read("[\"127.0.0.1:9000\", \"[::1]:80\"]").unwrap();
        assert_eq!(settings.gateway.allowed_local_targets, ["127.0.0.1:9000", "[::1]:80"]);
        let fault = read("[localhost]").unwrap_err().to_string();
        assert!(
            fault.contains("gateway.allowed_local_targets[0]: \"localhost\" is not HOST:PORT, such as"),
            "{fault}"
        );
    }
}
