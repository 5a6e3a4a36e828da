//! Who may connect: real tokens, real servers of keys and decisions, from the handshake to the end of a token.

use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::process::Stdio;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, LazyLock, Mutex};
use std::thread;
use std::time::{SystemTime, UNIX_EPOCH};

use jsonwebtoken::jwk::Jwk;
use jsonwebtoken::{Algorithm, EncodingKey, Header};
use ring::rand::SystemRandom;
use ring::signature::{ECDSA_P256_SHA256_FIXED_SIGNING, EcdsaKeyPair};
use serde_json::{Value, json};

use crate::common::{
    BEGINNING, FACTORY, LIMIT, Socket, TestServer, free_port, program, script, trigger, until,
};

static RSA: LazyLock<EncodingKey> = LazyLock::new(|| {
    let pair = triggercast::identity::key::generate(2048).unwrap();
    EncodingKey::from_rsa_pem(pair.private.as_bytes()).unwrap()
});
static EC: LazyLock<EncodingKey> = LazyLock::new(ec);

fn ec() -> EncodingKey {
    let made = EcdsaKeyPair::generate_pkcs8(&ECDSA_P256_SHA256_FIXED_SIGNING, &SystemRandom::new()).unwrap();
    EncodingKey::from_ec_der(made.as_ref())
}

fn now() -> i64 {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_secs() as i64
}

/// A token of `sub` that lasts so many seconds; `more` is put over its claims.
fn token(key: &EncodingKey, algorithm: Algorithm, id: &str, seconds: i64, more: &Value) -> String {
    let mut claims = json!({
        "iss": "https://login.example.org", "aud": "screens", "sub": "alice", "scope": "hall:read",
        "iat": now(), "exp": now() + seconds,
    });
    claims.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
    let header = Header { kid: Some(id.to_owned()), ..Header::new(algorithm) };
    jsonwebtoken::encode(&header, &claims, key).unwrap()
}

fn good(seconds: i64) -> String {
    token(&EC, Algorithm::ES256, "ec", seconds, &json!({}))
}

fn jwk(key: &EncodingKey, algorithm: Algorithm, id: &str) -> Value {
    let mut jwk = Jwk::from_encoding_key(key, algorithm).unwrap();
    jwk.common.key_id = Some(id.to_owned());
    serde_json::to_value(jwk).unwrap()
}

fn keys() -> Value {
    json!({ "keys": [jwk(&RSA, Algorithm::RS256, "rsa"), jwk(&EC, Algorithm::ES256, "ec")] })
}

/// A server that answers what it is told to; without words it hangs up.
#[derive(Clone)]
struct Other {
    address: SocketAddr,
    says: Arc<Mutex<Option<Value>>>,
    asked: Arc<AtomicUsize>,
    last: Arc<Mutex<String>>,
}

impl Other {
    fn start(says: Value) -> Self {
        Self::start_on(0, says)
    }

    fn start_on(port: u16, says: Value) -> Self {
        let listener = TcpListener::bind(("127.0.0.1", port)).unwrap();
        let says = Arc::new(Mutex::new(Some(says)));
        let address = listener.local_addr().unwrap();
        let other = Self { address, says, asked: Arc::default(), last: Arc::default() };
        let running = other.clone();
        thread::spawn(move || {
            for mut io in listener.incoming().map_while(Result::ok) {
                let running = running.clone();
                thread::spawn(move || running.serve(&mut io));
            }
        });
        other
    }

    fn serve(&self, io: &mut TcpStream) -> Option<()> {
        let mut input = BufReader::new(io.try_clone().ok()?);
        let mut len = 0;
        loop {
            let mut line = String::new();
            input.read_line(&mut line).ok().filter(|count| *count > 0)?;
            if let Some(value) = line.to_ascii_lowercase().strip_prefix("content-length:") {
                len = value.trim().parse().ok()?;
            }
            if line == "\r\n" {
                break;
            }
        }
        let mut body = vec![0; len];
        input.read_exact(&mut body).ok()?;
        *self.last.lock().unwrap() = String::from_utf8(body).unwrap();
        self.asked.fetch_add(1, Ordering::SeqCst);
        let says = self.says.lock().unwrap().clone()?.to_string();
        write!(io, "HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: {}\r\n\r\n{says}", says.len())
            .ok()
    }

    fn says(&self, says: impl Into<Option<Value>>) {
        *self.says.lock().unwrap() = says.into();
    }

    fn asked(&self) -> usize {
        self.asked.load(Ordering::SeqCst)
    }
}

/// A configuration whose gateway `main` has these paths, and may ask this port.
fn config(port: u16, paths: &[(&str, String)]) -> String {
    let targets = format!("drain: 100ms, allowed_local_targets: [\"127.0.0.1:{port}\"]");
    let paths: String = paths
        .iter()
        .map(|(path, authorizer)| format!("      {path}: {{ authorizer: {authorizer} }}\n"))
        .collect();
    let source = "iot_message: { registry_id: factory, batch_settings: { max_count: 1, cutoff: 1s } }";
    format!(
        "{}gateways:\n  - id: main\n    paths:\n      /ws: {{}}\n{paths}{FACTORY}triggers:\n{}",
        BEGINNING.replace("drain: 100ms", &targets),
        trigger("telemetry", source, "/jwt")
    )
}

const HEADER: &str = "identitySource: { in: header, name: Authorization, prefix: \"Bearer \" }";

fn jwt(port: u16, rest: &str) -> String {
    format!("{{ type: jwt, jwksUri: \"http://127.0.0.1:{port}/keys\", {rest} }}")
}

/// The head of the answer to a handshake.
fn answer(server: &TestServer, path: &str, headers: &str) -> String {
    Socket::handshake(server.gateway, &format!("/main{path}"), headers).1
}

fn status(server: &TestServer, path: &str, headers: &str) -> u16 {
    answer(server, path, headers).split(' ').nth(1).unwrap().parse().unwrap()
}

fn bearer(token: &str) -> String {
    format!("Authorization: Bearer {token}\r\n")
}

#[test]
fn a_token_is_judged_at_the_handshake_wherever_it_stands_and_never_logged() {
    let issuer = Other::start(keys());
    let port = issuer.address.port();
    let ttl = "jwkTtlInSeconds: 300";
    let rules = "issuers: [\"https://login.example.org\"], audiences: [screens], scopes: [\"hall:read\"]";
    let paths = [
        ("/jwt", jwt(port, &format!("{ttl}, {rules}, {HEADER}"))),
        ("/query", jwt(port, &format!("{ttl}, identitySource: {{ in: query, name: access_token }}"))),
        ("/cookie", jwt(port, &format!("{ttl}, identitySource: {{ in: cookie, name: session }}"))),
        ("/protocol", jwt(port, &format!("{ttl}, identitySource: {{ in: subprotocol, name: bearer }}"))),
    ];
    let folder = tempfile::tempdir().unwrap();
    let server = TestServer::start_by(program(folder.path(), &config(port, &paths)).env("RUST_LOG", "trace"));
    let rs256 = |more: &Value| token(&RSA, Algorithm::RS256, "rsa", 60, more);
    assert_eq!(status(&server, "/ws", ""), 101, "a path without an authorizer");
    assert_eq!(status(&server, "/jwt", &bearer(&good(60))), 101);
    assert_eq!(status(&server, "/jwt", &bearer(&rs256(&json!({})))), 101);
    let without = answer(&server, "/jwt", "");
    assert!(
        without.starts_with("HTTP/1.1 401 ") && without.contains("\r\nwww-authenticate: Bearer\r\n"),
        "{without}"
    );
    for (bad, expected, word) in [
        (rs256(&json!({ "exp": now() - 1 })), 401, "expired"),
        (rs256(&json!({ "nbf": now() + 600 })), 401, "not valid yet"),
        (rs256(&json!({ "iss": "https://evil.example" })), 401, "issuer"),
        (rs256(&json!({ "aud": "phones" })), 401, "audience"),
        (rs256(&json!({ "scope": "hall:write" })), 403, "scope"),
        (token(&EC, Algorithm::ES256, "rsa", 60, &json!({})), 401, "signature"),
        (token(&ec(), Algorithm::ES256, "ec", 60, &json!({})), 401, "signature"),
        (token(&EC, Algorithm::ES256, "who", 60, &json!({})), 401, "key"),
        (token(&EncodingKey::from_secret(b"x"), Algorithm::HS256, "rsa", 60, &json!({})), 401, "RS256"),
        ("rubbish".to_owned(), 401, "JWT"),
    ] {
        let refused = answer(&server, "/jwt", &bearer(&bad));
        assert!(
            refused.starts_with(&format!("HTTP/1.1 {expected} ")) && refused.contains(word),
            "{word}: {refused}"
        );
    }
    let query = format!("/query?access_token={}", good(60));
    assert_eq!((status(&server, &query, ""), status(&server, "/query", &bearer(&good(60)))), (101, 401));
    let cookie = format!("Cookie: a=b; session={}\r\n", good(60));
    assert_eq!((status(&server, "/cookie", &cookie), status(&server, "/cookie", "")), (101, 401));
    let offered = good(60);
    let offer = answer(&server, "/protocol", &format!("Sec-WebSocket-Protocol: bearer, {offered}\r\n"));
    assert!(
        offer.starts_with("HTTP/1.1 101 ") && offer.contains("\r\nSec-WebSocket-Protocol: bearer\r\n"),
        "{offer}"
    );
    assert!(!offer.contains(&offered));
    assert_eq!(status(&server, "/protocol", "Sec-WebSocket-Protocol: bearer\r\n"), 401);
    // Server-sent events are let in and refused alike.
    let events = |headers: &str| {
        let mut io = TcpStream::connect(server.gateway).unwrap();
        io.set_read_timeout(Some(LIMIT)).unwrap();
        write!(io, "GET /main/jwt HTTP/1.1\r\nHost: a\r\nAccept: text/event-stream\r\n{headers}\r\n")
            .unwrap();
        let mut line = String::new();
        BufReader::new(io).read_line(&mut line).unwrap();
        line
    };
    assert_eq!(events(&bearer(&good(60))), "HTTP/1.1 200 OK\r\n");
    assert_eq!(events(""), "HTTP/1.1 401 Unauthorized\r\n");
    // The keys, and the key that nobody knows.
    assert_eq!(issuer.asked(), 2);
    let (_, metrics) = server.get("/metrics");
    for (reason, count) in [("no_token", 5), ("token_expired", 1), ("token_scope", 1), ("token", 8)] {
        let line = format!("websocket_refused_total{{reason=\"{reason}\"}} {count}\n");
        assert!(metrics.contains(&line), "{line}{metrics}");
    }
    let log = server.log("").concat();
    assert!(log.contains("\"connected\"") && log.contains("alice"));
    // What every one of these tokens has in its middle.
    let [header, claims, signature] = offered.splitn(3, '.').collect::<Vec<_>>().try_into().unwrap();
    assert!(![header, claims, signature].iter().any(|part| log.contains(part)), "a token is in the log");
}

#[test]
fn keys_come_late_change_and_go_away() {
    let port = free_port();
    let server = TestServer::start(&config(port, &[("/jwt", jwt(port, HEADER))]));
    assert_eq!(status(&server, "/jwt", &bearer(&good(60))), 500);
    assert!(answer(&server, "/jwt", &bearer(&good(60))).contains("\r\nretry-after: 1\r\n"));
    let issuer = Other::start_on(port, keys());
    let comes = |token: &str| (status(&server, "/jwt", &bearer(token)) == 101).then_some(());
    until("keys", || comes(&good(60)));
    // Another key takes the place of the first.
    let second = ec();
    issuer.says(json!({ "keys": [jwk(&second, Algorithm::ES256, "second")] }));
    let of_second = || token(&second, Algorithm::ES256, "second", 60, &json!({}));
    until("the second key", || comes(&of_second()));
    assert_eq!(status(&server, "/jwt", &bearer(&good(60))), 401);
    // Nobody answers any more, and the second key is still known.
    issuer.says(None);
    let asked = issuer.asked();
    for _ in 0..5 {
        assert_eq!(status(&server, "/jwt", &bearer(&of_second())), 101);
    }
    assert!(issuer.asked() > asked);
    until("the line that tells of it", || (!server.log("failed to fetch the keys").is_empty()).then_some(()));
}

#[test]
fn a_token_that_ends_ends_the_connection_unless_another_comes_before() {
    let issuer = Other::start(keys());
    let port = issuer.address.port();
    let rules = jwt(port, &format!("jwkTtlInSeconds: 300, {HEADER}"));
    let server = TestServer::start(&config(port, &[("/jwt", rules)]));
    let connect = |token: &str| {
        let (socket, head) = Socket::handshake(server.gateway, "/main/jwt", &bearer(token));
        assert!(head.starts_with("HTTP/1.1 101 "), "{head}");
        socket
    };
    let end = now() + 4;
    let mut events = TcpStream::connect(server.gateway).unwrap();
    events.set_read_timeout(Some(LIMIT)).unwrap();
    let accept = "Accept: text/event-stream\r\nConnection: close\r\n";
    write!(events, "GET /main/jwt HTTP/1.1\r\nHost: a\r\n{accept}{}\r\n", bearer(&good(4))).unwrap();
    let (mut left, mut stays) = (connect(&good(4)), connect(&good(4)));
    let mut say = |text: Value| {
        stays.send(0x81, text.to_string().as_bytes());
        serde_json::from_str::<Value>(&stays.text()).unwrap()
    };
    for (bad, word) in [
        (json!("rubbish"), "JWT"),
        (json!(good(-1)), "expired"),
        (json!(token(&EC, Algorithm::ES256, "ec", 60, &json!({ "sub": "bob" }))), "subject"),
        (json!(null), "missing"),
    ] {
        let told = say(json!({ "type": "authorize", "token": bad }));
        assert_eq!(told["type"], "unauthorized");
        assert!(told["message"].as_str().unwrap().contains(word), "{told}");
    }
    let told = say(json!({ "type": "authorize", "token": good(60) }));
    let at: jiff::Timestamp = told["expires_at"].as_str().unwrap().parse().unwrap();
    assert_eq!(told["type"], "authorized");
    assert!((end + 50..=now() + 60).contains(&at.as_second()), "{told}");
    let (first, payload) = left.frame();
    let closed = now();
    assert_eq!((first, &payload[2..]), (0x88, &b"the token has expired"[..]));
    assert_eq!(u16::from_be_bytes([payload[0], payload[1]]), 4401);
    assert!((end..=end + 3).contains(&closed), "{}", closed - end);
    let mut rest = String::new();
    events.read_to_string(&mut rest).unwrap();
    assert!(rest.starts_with("HTTP/1.1 200 OK") && (end..=end + 3).contains(&now()), "{rest}");
    until("the time after the first token", || (now() > end + 1).then_some(()));
    server.publish("$devices/press-1/events", "still here");
    assert_eq!(stays.events(1)[0].payload, "still here");
    left.send(0x88, &payload[..2]);
    let counted = || server.get("/metrics").1.contains("websocket_closed_total{reason=\"expired\"} 1\n");
    until("the counter of ends", || counted().then_some(()));
}

#[test]
fn another_server_decides_and_its_answer_is_used_again() {
    let other = Other::start(json!({ "isAuthorized": true, "context": { "subject": "carol" } }));
    let port = other.address.port();
    let http =
        |rest: &str| format!("{{ type: http, url: \"http://127.0.0.1:{port}/ask\", timeout: 2s{rest} }}");
    let paths = [
        ("/kept", http(&format!(", authorizer_result_ttl_in_seconds: 60, {HEADER}"))),
        ("/each", http("")),
        ("/elsewhere", "{ type: http, url: \"http://127.0.0.1:9/ask\" }".to_owned()),
        ("/jwt", http("")),
    ];
    let folder = tempfile::tempdir().unwrap();
    let server = TestServer::start_by(program(folder.path(), &config(port, &paths)).env("RUST_LOG", "trace"));
    assert_eq!((status(&server, "/kept", ""), other.asked()), (401, 0));
    for _ in 0..3 {
        assert_eq!(
            status(&server, "/kept?room=1", &format!("{}User-Agent: me\r\n", bearer("secret-1"))),
            101
        );
    }
    assert_eq!(other.asked(), 1);
    let told: Value = serde_json::from_str(&other.last.lock().unwrap()).unwrap();
    assert_eq!(
        (&told["resource"], &told["path"], &told["httpMethod"]),
        (&json!("/kept"), &json!("/kept"), &json!("GET"))
    );
    assert_eq!(told["headers"]["Authorization"], "Bearer secret-1");
    assert_eq!(told["queryStringParameters"], json!({ "room": "1" }));
    assert_eq!(told["requestContext"]["identity"], json!({ "sourceIp": "127.0.0.1", "userAgent": "me" }));
    other.says(json!({ "isAuthorized": false }));
    assert_eq!(status(&server, "/kept", &bearer("secret-2")), 403);
    assert_eq!(status(&server, "/kept", &bearer("secret-1")), 101, "as it was told before");
    assert_eq!(status(&server, "/each", ""), 403);
    other.says(json!({ "isAuthorized": "yes" }));
    assert_eq!(status(&server, "/each", ""), 500);
    other.says(None);
    assert_eq!(status(&server, "/each", ""), 502);
    assert_eq!(status(&server, "/elsewhere", ""), 500, "it is not among the local servers that are asked");
    // A right with an end.
    other.says(json!({ "isAuthorized": true, "context": { "expires_at": now() + 2 } }));
    let (mut socket, _) = Socket::handshake(server.gateway, "/main/each", "");
    assert_eq!(socket.close_code(), 4401);
    let log = server.log("").concat();
    assert!(
        log.contains("failed to ask the authorizer") && !log.contains("secret-"),
        "a token is in the log"
    );
}

#[test]
fn another_server_is_told_of_the_client_behind_a_proxy_and_of_the_path_that_hooks_see() {
    let other = Other::start(json!({ "isAuthorized": true }));
    let port = other.address.port();
    let gateway = format!(
        "drain: 100ms, trusted_proxies: [\"127.0.0.1\"], allowed_local_targets: [\"127.0.0.1:{port}\"]"
    );
    let beginning =
        BEGINNING.replace("drain: 100ms", &gateway).replace("mqtt: { ", "mqtt: { websocket: off, ");
    let authorizer = format!("authorizer: {{ type: http, url: \"http://127.0.0.1:{port}/ask\" }}");
    let server = TestServer::start(&format!(
        "{beginning}gateways:\n  - id: main\n    domain: \"127.0.0.1\"\n    paths: {{ \"/{{all+}}\": {{ {authorizer} }} }}\n"
    ));
    // Under the domain the path is whole, also where it begins like the gateway's id.
    let (_io, head) =
        Socket::handshake(server.gateway, "/main/x", "X-Forwarded-For: 203.0.113.9, 198.51.100.7\r\n");
    assert!(head.starts_with("HTTP/1.1 101 "), "{head}");
    let told: Value = serde_json::from_str(&other.last.lock().unwrap()).unwrap();
    assert_eq!((&told["resource"], &told["path"]), (&json!("/{all+}"), &json!("/main/x")));
    assert_eq!(told["pathParameters"], json!({ "all": "main/x" }));
    assert_eq!(told["requestContext"]["identity"]["sourceIp"], "198.51.100.7");
}

#[test]
fn a_subject_of_another_issuer_is_another_client() {
    let issuer = Other::start(keys());
    let port = issuer.address.port();
    let rules = jwt(port, &format!("jwkTtlInSeconds: 300, {HEADER}"));
    let path = ("/jwt", format!("{rules}, limits: {{ connections_per_subject: 1 }}"));
    let server = TestServer::start(&config(port, &[path]));
    let connect = |issuer: &str| {
        let token = token(&EC, Algorithm::ES256, "ec", 60, &json!({ "iss": issuer }));
        Socket::handshake(server.gateway, "/main/jwt", &bearer(&token))
    };
    let clients = [connect("https://a.example"), connect("https://b.example")];
    assert!(clients.iter().all(|(_, head)| head.starts_with("HTTP/1.1 101 ")), "{}", clients[1].1);
    assert!(connect("https://a.example").1.starts_with("HTTP/1.1 429 "));
}

#[test]
fn tokens_of_pyjwt_let_python_in_from_every_place() {
    let mut command = script("rights.py");
    command.stdin(Stdio::piped()).stdout(Stdio::piped());
    let mut python = command.spawn().unwrap();
    let mut lines = BufReader::new(python.stdout.take().unwrap()).lines().map(Result::unwrap);
    assert_eq!(lines.next().unwrap(), "connected");
    let port: u16 = lines.next().unwrap().parse().unwrap();
    let place = |place: &str, name: &str, prefix: &str| {
        let source = format!("identitySource: {{ in: {place}, name: {name}, prefix: \"{prefix}\" }}");
        jwt(port, &format!("audiences: [screens], {source}"))
    };
    let paths = [
        ("/header", place("header", "Authorization", "Bearer ")),
        ("/query", place("query", "access_token", "")),
        ("/cookie", place("cookie", "session", "")),
        ("/subprotocol", place("subprotocol", "bearer", "")),
        ("/jwt", place("header", "Authorization", "Bearer ")),
    ];
    let server = TestServer::start(&config(port, &paths));
    writeln!(python.stdin.take().unwrap(), "ws://{}/main", server.gateway).unwrap();
    let said: Vec<String> = lines.collect();
    assert_eq!(
        said,
        [
            "header RS256 101",
            "header RS512 101",
            "header ES256 101",
            "header ES384 101",
            "header 401",
            "query 101 401",
            "cookie 101",
            "subprotocol 101 bearer",
            "refresh authorized",
        ]
    );
    assert!(python.wait().unwrap().success());
}

#[test]
fn who_a_client_is_is_shown_and_all_of_one_are_sent_to_and_closed() {
    let issuer = Other::start(keys());
    let port = issuer.address.port();
    let server = TestServer::start(&config(port, &[("/jwt", jwt(port, HEADER))]));
    let connect = |subject: &str| {
        let token = token(&EC, Algorithm::ES256, "ec", 60, &json!({ "sub": subject }));
        let (socket, answer) = Socket::handshake(server.gateway, "/main/jwt", &bearer(&token));
        assert!(answer.starts_with("HTTP/1.1 101 "), "{answer}");
        socket
    };
    let (mut alice, mut bob) = ([connect("alice"), connect("alice")], connect("bob"));
    let list = |query: &str| {
        let path = format!("/triggercast/v1/connections?gatewayId=main{query}");
        server.done("GET", &path, &Value::Null)["connections"].as_array().cloned().unwrap_or_default()
    };
    let subjects: Vec<_> = list("").iter().map(|found| found["subject"].clone()).collect();
    assert_eq!(subjects, ["alice", "alice", "bob"]);
    let found = list("&subject=bob");
    let single = format!("/apigateways/websocket/v1/connections/{}", found[0]["id"].as_str().unwrap());
    assert_eq!((found.len(), &server.done("GET", &single, &Value::Null)["subject"]), (1, &json!("bob")));
    let of_alice =
        json!({ "gatewayId": "main", "path": "/jwt", "subject": "alice", "data": "aGk=", "type": "TEXT" });
    let sent = server.done("POST", "/triggercast/v1/connections:broadcast", &of_alice);
    assert_eq!(sent, json!({ "queued": "2" }));
    let of_alice = json!({ "gatewayId": "main", "subject": "alice" });
    let closed = server.done("POST", "/triggercast/v1/connections:disconnect", &of_alice);
    assert_eq!(closed, json!({ "disconnected": "2" }));
    for socket in &mut alice {
        assert_eq!(socket.text(), "hi");
        assert_eq!(socket.close_code(), 1001);
    }
    assert!(!bob.comes_within(std::time::Duration::from_millis(50)));
}
