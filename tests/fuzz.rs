//! Fuzz tests of what the library takes from outside: configuration, OpenAPI documents, path templates, tokens, jq.
//!
//! Those of MQTT, WebSocket, webhooks, tokens of authorizers and requests of the API stand beside their code, as `fuzz_…`.
//! All run a while with the other tests, and for long by hand: `PROPTEST_CASES=5000000 cargo test fuzz_`.
#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

#[path = "../src/fuzzing.rs"]
mod fuzzing;

use std::path::Path;
use std::sync::LazyLock;
use std::time::{Duration, Instant};

use bytes::Bytes;
use proptest::prelude::*;
use triggercast::config;
use triggercast::identity::token::Tokens;
use triggercast::identity::{key, secret};
use triggercast::jq::{CheckError, Limits, Outcome, Pool, Reason, Steps};
use triggercast::model::path_template::PathTemplate;

use crate::fuzzing::{cases, mutated};

/// Far more than any input of these lengths should take, in a debug build on a busy machine.
const AMPLE: Duration = Duration::from_secs(20);

/// Changed samples of what must be UTF-8.
fn mutated_text(samples: &[&str]) -> impl Strategy<Value = String> + use<> {
    let samples = samples.iter().map(|sample| sample.as_bytes().to_vec()).collect();
    mutated(samples).prop_map(|data| String::from_utf8_lossy(&data).into_owned())
}

/// The default file with everything that it only mentions.
fn uncommented() -> String {
    let line = |line: &str| {
        let bare = line.trim_start();
        let indent = &line[..line.len() - bare.len()];
        match bare.strip_prefix('#') {
            Some(rest) if !rest.starts_with(' ') => format!("{indent}{rest}\n"),
            _ => format!("{line}\n"),
        }
    };
    include_str!("../config.yaml").lines().map(line).collect()
}

const CONFIG: &str = r#"gateways:
  - { id: main, paths: { /ws: { slow_clients: disconnect, limits: { idle: 1s, connections: 5 } }, "/r/{a}/{b+}": {} } }
  - { id: strict, allowed_origins: ["https://a.example"], paths: { /ws: { authorizer: { jwt: { jwks_uri: "https://a.example/keys", issuers: [a], audiences: b, leeway: 1s } } } } }
iot:
  registries: [{ id: f, password: "${P}", devices: [{ id: d, password: "x", aliases: { a/b: "$devices/d/events" } }] }]
  brokers: [{ id: b, url: "mqtt://127.0.0.1:1884", username: u, password: p }]
container_registries: [{ id: i, kind: generic, webhook_token: "0123456789abcdef" }]
service_accounts: [{ id: s, roles: [admin] }]
triggers:
  - { name: t, source: { iot_message: { registry_id: f, mqtt_topic: "$devices/+/events", batch_settings: { max_count: 3, cutoff: 1s } } }, action: [{ gateway_websocket_broadcast: { gateway_id: main, path: /ws, service_account_id: s, filter: ".a", transformer: "." } }] }
"#;

const OPENAPI: &str = r#"openapi: 3.0.0
info: { title: t, version: '1' }
components:
  securitySchemes:
    j: { type: openIdConnect, openIdConnectUrl: https://a.example, x-yc-apigateway-authorizer: { type: jwt, jwksUri: https://a.example/k, identitySource: { in: header, name: Authorization, prefix: 'Bearer ' }, issuers: [a] } }
paths:
  '/ws/{room}':
    parameters: [{ name: room, in: path, required: true, schema: { type: string } }]
    x-yc-apigateway-websocket-connect:
      x-yc-apigateway-integration: { type: http, url: 'https://a.example/{room}', method: POST, headers: { X: '{room}' }, query: { q: a }, timeouts: { connect: 1, read: 2.5 } }
      security: [{ j: [s] }]
    x-yc-apigateway-websocket-message: { type: dummy, http_code: 200, content: { '*': '{"a":"{room}"}' }, http_headers: { Content-Type: text/plain } }
    x-triggercast-path: { limits: { message_bytes: 100 }, slow_clients: replay }
  /plain: { x-yc-apigateway-websocket-message: { type: dummy }, get: { responses: {} } }
"#;

/// Every fault is one line, without what would colour or split a log.
fn check_faults(errors: &config::ConfigErrors) -> Result<(), TestCaseError> {
    prop_assert!(errors.iter().next().is_some());
    for error in errors.iter() {
        let text = error.to_string();
        prop_assert!(!text.is_empty() && !text.contains(['\n', '\r', '\u{1b}', '\0']), "{text:?}");
    }
    Ok(())
}

proptest! {
    #![proptest_config(cases(1500))]

    #[test]
    fn fuzz_configuration(text in mutated_text(&[CONFIG, CONFIG, include_str!("../config.yaml"), &uncommented()])) {
        let start = Instant::now();
        let name = Path::new("no/such/folder/config.yaml");
        if let Err(errors) = config::parse(&text, name, &|name| (name == "P").then(|| "from-outside".to_owned())) {
            check_faults(&errors)?;
        }
        prop_assert!(start.elapsed() < AMPLE);
    }

    #[test]
    fn fuzz_openapi(text in mutated_text(&[OPENAPI])) {
        let start = Instant::now();
        match config::openapi::parse(&text, Path::new("gateway.yaml")) {
            Ok(paths) => prop_assert!(!paths.is_empty()),
            Err(errors) => check_faults(&errors)?,
        }
        prop_assert!(start.elapsed() < AMPLE);
    }
}

proptest! {
    #![proptest_config(cases(5000))]

    /// A template that is taken matches what is made of it, and gives back what was put in.
    #[test]
    fn fuzz_path_templates(
        template in mutated_text(&["/ws", "/rooms/{room}", "/a/{b}/c/{d+}", "/{x+}"]),
        path in mutated_text(&["/ws", "/rooms/a%20b", "/a/b/c/d/e", "/a/../b", "/%2e%2e/a", "//"]),
        value in "[^\\x00-\\x1f\\x7f-\\x9f]{1,8}",
    ) {
        let text = template;
        let Ok(template) = PathTemplate::parse(&text) else { return Ok(()) };
        if let Some(values) = template.matches(&path) {
            prop_assert!(values.iter().all(|(_, value)| !value.is_empty() && !value.contains(char::is_control)));
            prop_assert_eq!(values.len(), template.names().count());
        }
        prop_assert!(template.is_like(&template));
        let names: Vec<_> = template.names().map(|(name, _)| name.to_owned()).collect();
        let encoded: String = value.bytes().map(|byte| format!("%{byte:02x}")).collect();
        let mut made = text;
        for name in &names {
            made = made.replace(&format!("{{{name}+}}"), &encoded).replace(&format!("{{{name}}}"), &encoded);
        }
        let found = template.matches(&made);
        let expected: Vec<_> = names.into_iter().map(|name| (name, value.clone())).collect();
        prop_assert_eq!(found, Some(expected), "{}", made);
    }

    #[test]
    fn fuzz_tokens_and_keys(text in mutated_text(&[TOKEN.as_str(), KEY.as_str(), JWT])) {
        if let Some(claims) = TOKENS.check(&text, 0) {
            prop_assert_eq!((&text, claims.sub.as_str()), (&*TOKEN, "account"));
        }
        if secret::is_digest_of(&secret::digest(&KEY), &text) {
            prop_assert_eq!(&text, &*KEY);
        }
        secret::api_key_id(&text);
        if key::key_id(&text).is_ok() {
            prop_assert!(key::check(&text, "no key", "issuer", &[]).is_err());
        }
        secret::is_hash_of(&text, "password");
    }
}

static TOKENS: LazyLock<Tokens> = LazyLock::new(|| {
    let folder = tempfile::tempdir().unwrap();
    Tokens::open(&folder.path().join("iam.key")).unwrap()
});
static TOKEN: LazyLock<String> = LazyLock::new(|| TOKENS.make("account", 1000).0);
static KEY: LazyLock<String> = LazyLock::new(|| secret::new_api_key("aje1").unwrap());
const JWT: &str = "eyJhbGciOiJQUzI1NiIsImtpZCI6ImsiLCJ0eXAiOiJKV1QifQ.eyJpc3MiOiJtZSJ9.AAAA";

/// What runs programs, for all cases.
struct Runner {
    runtime: tokio::runtime::Runtime,
    pool: Pool,
}

static RUNNER: LazyLock<Runner> = LazyLock::new(|| {
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
    let limits = Limits { time: Duration::from_millis(200), workers: 2, ..Limits::default() };
    let program = env!("CARGO_BIN_EXE_triggercast").into();
    let pool = Pool::new(program, vec!["jq-worker".into()], limits, runtime.handle().clone());
    Runner { runtime, pool }
});

proptest! {
    #![proptest_config(cases(600))]

    /// Any program on any event: an answer in bounded time, and workers that go on.
    #[test]
    fn fuzz_programs_and_events(
        code in mutated_text(&[
            ".details | select(.payload != null) | {a: .mqtt_topic, b: [.x[]?, 1, -2.5e3], c: (.d // \"e\")}",
            "[.[]? | tostring | test(\"a+b\"; \"x\")] | length as $n | reduce range(3) as $i (0; . + $i) | . == $n",
            "def f($x): if $x > 3 then $x else f($x + 1) end; f(0), (try error(\"a\") catch .) , (.a |= 5), @base64 \"\\(.)\"",
            "walk(if type == \"object\" then del(.a) else . end) | to_entries | map(.key) | join(\",\")",
        ]),
        event in mutated_text(&[
            r#"{"event_metadata":{"event_id":"e","created_at":"2026-01-01T00:00:00Z"},"details":{"mqtt_topic":"a/b","payload":"eHl6","x":[1,2,{"d":null}]}}"#,
        ]),
        is_filter: bool,
    ) {
        let Runner { runtime, pool } = &*RUNNER;
        let start = Instant::now();
        let checked = runtime.block_on(pool.check(&code));
        prop_assert!(!matches!(checked, Err(CheckError::Unavailable(_))), "{checked:?}");
        let code = Some(code.into());
        let steps = if is_filter { Steps { filter: code, transformer: None } } else { Steps { filter: None, transformer: code } };
        let outcomes = runtime.block_on(pool.run(&steps, &[Bytes::from(event)])).unwrap();
        prop_assert_eq!(outcomes.len(), 1);
        if let Outcome::Changed(json) = &outcomes[0] {
            prop_assert!(serde_json::from_slice::<serde::de::IgnoredAny>(json).is_ok(), "{:?}", json);
        }
        let is_refused = matches!(&outcomes[0], Outcome::Dropped(Reason::Error(_) | Reason::OverBudget));
        prop_assert!(checked.is_ok() || is_refused, "{checked:?} {outcomes:?}");
        prop_assert!(start.elapsed() < AMPLE);
    }
}
