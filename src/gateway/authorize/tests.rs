//! Rights against real servers: of keys, and of decisions.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};

use actix_http::header::{HeaderName, HeaderValue as Value};
use serde_json::json;

use super::jwt::tests::{P256, RSA};
use super::*;
use crate::model::authorizer::{IdentitySource, TokenPlace};
use crate::model::hook::Place;

/// A server whose answers, status and body, a test sets; it counts requests and keeps the last one.
#[derive(Clone)]
struct Server {
    address: SocketAddr,
    says: Arc<Mutex<(u16, String)>>,
    asked: Arc<AtomicUsize>,
    last: Arc<Mutex<String>>,
}

impl Server {
    fn start(status: u16, body: impl ToString) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let server = Self {
            address: listener.local_addr().unwrap(),
            says: Arc::new(Mutex::new((status, body.to_string()))),
            asked: Arc::default(),
            last: Arc::default(),
        };
        let running = server.clone();
        std::thread::spawn(move || {
            for mut io in listener.incoming().map_while(Result::ok) {
                let running = running.clone();
                std::thread::spawn(move || while running.serve(&mut io).is_some() {});
            }
        });
        server
    }

    fn serve(&self, io: &mut TcpStream) -> Option<()> {
        let mut head = Vec::new();
        while !head.ends_with(b"\r\n\r\n") {
            let mut byte = [0];
            io.read_exact(&mut byte).ok()?;
            head.push(byte[0]);
        }
        let head = String::from_utf8(head).ok()?.to_ascii_lowercase();
        let len = head.split("content-length: ").nth(1).and_then(|rest| rest.lines().next()?.parse().ok());
        let mut body = vec![0; len.unwrap_or(0)];
        io.read_exact(&mut body).ok()?;
        *self.last.lock().unwrap() = String::from_utf8(body).ok()?;
        self.asked.fetch_add(1, Ordering::SeqCst);
        let (status, body) = self.says.lock().unwrap().clone();
        write!(io, "HTTP/1.1 {status} X\r\nContent-Length: {}\r\n\r\n{body}", body.len()).ok()
    }

    fn says(&self, status: u16, body: impl ToString) {
        *self.says.lock().unwrap() = (status, body.to_string());
    }

    fn asked(&self) -> usize {
        self.asked.load(Ordering::SeqCst)
    }

    fn url(&self) -> String {
        format!("http://{}/asked", self.address)
    }

    fn rights(&self) -> Rights {
        Rights::new(Outbound::for_tests(&[self.address]))
    }
}

fn bearer() -> IdentitySource {
    let place = TokenPlace::Request(Place::Header);
    IdentitySource { place, name: "Authorization".into(), prefix: "Bearer ".into() }
}

fn jwt(url: String, jwks_ttl: u64) -> Authorizer {
    Authorizer::Jwt(JwtRules {
        jwks_uri: url,
        jwks_ttl: Duration::from_secs(jwks_ttl),
        source: bearer(),
        issuers: vec![],
        audiences: vec![],
        required_claims: vec![],
        scopes: vec![],
    })
}

fn http(url: String, ttl: u64) -> Authorizer {
    Authorizer::Http(HttpAuthorizer {
        url,
        timeout: Duration::from_secs(5),
        cache_ttl: Duration::from_secs(ttl),
        cache_by_uri: false,
        source: (ttl > 0).then(bearer),
    })
}

/// Asks about a request for `/main/ws` with this query and token: the subject, or the refusal.
async fn ask(rights: &Rights, authorizer: &Authorizer, query: &str, token: &str) -> Result<String, Refusal> {
    let mut request = actix_http::Request::new();
    let head = request.head_mut();
    head.uri = format!("/main/ws?{query}").parse().unwrap();
    if !token.is_empty() {
        let name: HeaderName = "authorization".parse().unwrap();
        head.headers.insert(name, Value::from_str(&format!("Bearer {token}")).unwrap());
    }
    let key = PathKey { gateway_id: "main".into(), path: "/ws".into() };
    let asked = Asked { head, address: None, key: &key, path: "/ws", values: &[] };
    let entrance = rights.ask(authorizer, &asked).await?;
    Ok(entrance.pass.subject().unwrap_or_default().to_owned())
}

fn now() -> i64 {
    seconds(SystemTime::now())
}

fn token(id: &str) -> String {
    P256.token("ES256", id, &json!({ "sub": "alice", "exp": now() + 60 }))
}

const BROKEN: Refusal = Refusal::Authorizer(Trouble::Broken);

#[actix::test]
async fn keys_are_fetched_once_for_many_and_follow_their_issuer() {
    let server = Server::start(200, json!({ "keys": [P256.jwk("a")] }));
    let (rights, rules) = (Arc::new(server.rights()), jwt(server.url(), 300));
    let together = (0..20).map(|_| {
        let (rights, rules, token) = (Arc::clone(&rights), rules.clone(), token("a"));
        actix_rt::spawn(async move { ask(&rights, &rules, "", &token).await })
    });
    for answer in futures_util::future::join_all(together).await {
        assert_eq!(answer.unwrap(), Ok("alice".into()));
    }
    assert_eq!(server.asked(), 1);
    assert_eq!(ask(&rights, &rules, "", "").await, Err(Refusal::NoToken));
    // A new key, and an old one that is no more.
    server.says(200, json!({ "keys": [P256.jwk("b")] }));
    assert_eq!(ask(&rights, &rules, "", &token("b")).await, Ok("alice".into()));
    assert_eq!(ask(&rights, &rules, "", &token("a")).await, Err(Refusal::Token(Flaw::UnknownKey)));
    // Names that nobody knows do not make us ask again and again.
    for id in ["c", "d", "e"] {
        assert_eq!(ask(&rights, &rules, "", &token(id)).await, Err(Refusal::Token(Flaw::UnknownKey)));
    }
    assert_eq!(server.asked(), 2);
}

#[actix::test]
async fn keys_without_a_time_are_fetched_for_each_and_old_ones_help_out() {
    let server = Server::start(500, "no");
    let (rights, rules) = (server.rights(), jwt(server.url(), 0));
    assert_eq!(ask(&rights, &rules, "", &token("a")).await, Err(BROKEN));
    assert_eq!(ask(&rights, &rules, "", &token("a")).await, Err(BROKEN));
    assert_eq!(server.asked(), 1, "one that fails is left alone for a moment");
    server.says(200, json!({ "keys": [P256.jwk("a")] }));
    let start = Instant::now();
    while ask(&rights, &rules, "", &token("a")).await.is_err() {
        assert!(start.elapsed() < Duration::from_secs(10));
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    assert_eq!(ask(&rights, &rules, "", &token("a")).await, Ok("alice".into()));
    assert_eq!(server.asked(), 3);
    for bad in ["<html>", r#"{"keys":7}"#, &"x".repeat(300_000)] {
        server.says(200, bad);
        assert_eq!(ask(&rights, &rules, "", &token("a")).await, Ok("alice".into()), "{}", bad.len());
    }
    // Nobody who is not known gets in by that.
    let forged = RSA.token("RS256", "a", &json!({ "sub": "alice", "exp": now() + 60 }));
    assert_eq!(ask(&rights, &rules, "", &forged).await, Err(Refusal::Token(Flaw::Signature)));
    // What is local is not asked unless it is listed.
    let strict = Rights::new(Outbound::for_tests(&[]));
    assert_eq!(ask(&strict, &rules, "", &token("a")).await, Err(BROKEN));
}

#[actix::test]
async fn another_server_decides_and_its_answers_are_kept_by_token_and_path() {
    let server = Server::start(200, r#"{"isAuthorized":true,"context":{"subject":"bob"}}"#);
    let (rights, kept, each) = (server.rights(), http(server.url(), 60), http(server.url(), 0));
    assert_eq!(ask(&rights, &kept, "", "").await, Err(Refusal::NoToken));
    assert_eq!(server.asked(), 0);
    assert_eq!(ask(&rights, &kept, "a=1", "t1").await, Ok("bob".into()));
    let told: serde_json::Value = serde_json::from_str(&server.last.lock().unwrap()).unwrap();
    assert_eq!(told["headers"]["Authorization"], "Bearer t1");
    assert_eq!((&told["resource"], &told["path"]), (&json!("/ws"), &json!("/ws")));
    server.says(200, r#"{"isAuthorized":false}"#);
    assert_eq!(ask(&rights, &kept, "a=2", "t1").await, Ok("bob".into()), "kept");
    assert_eq!(ask(&rights, &kept, "", "t2").await, Err(Refusal::Denied));
    server.says(200, r#"{"isAuthorized":true}"#);
    assert_eq!(ask(&rights, &kept, "", "t2").await, Err(Refusal::Denied), "kept");
    assert_eq!(server.asked(), 2);
    for _ in 0..2 {
        assert_eq!(ask(&rights, &each, "", "").await, Ok(String::new()));
    }
    assert_eq!(server.asked(), 4);
    let by_uri = match kept {
        Authorizer::Http(http) => Authorizer::Http(HttpAuthorizer { cache_by_uri: true, ..http }),
        other => other,
    };
    for query in ["room=1", "room=2", "room=1"] {
        assert_eq!(ask(&rights, &by_uri, query, "t3").await, Ok(String::new()));
    }
    assert_eq!(server.asked(), 6);
    server.says(200, json!({ "isAuthorized": true, "context": { "expires_at": now() } }));
    assert_eq!(ask(&rights, &each, "", "").await, Err(Refusal::Denied), "over already");
    assert_eq!(ask(&rights, &by_uri, "", "t4").await, Err(Refusal::Denied));
    server.says(200, r#"{"isAuthorized":true}"#);
    assert_eq!(ask(&rights, &by_uri, "", "t4").await, Ok(String::new()), "an end that has come is not kept");
}

#[actix::test]
async fn a_server_that_says_nothing_lets_nobody_in_and_its_faults_are_not_kept() {
    let server = Server::start(200, "");
    let (rights, rules) = (server.rights(), http(server.url(), 60));
    for (status, body) in [
        (200, ""),
        (200, "[]"),
        (200, r#"{"isAuthorized":"yes"}"#),
        (500, r#"{"isAuthorized":true}"#),
        (302, ""),
    ] {
        server.says(status, body);
        assert_eq!(ask(&rights, &rules, "", "t").await, Err(BROKEN), "{status} {body}");
    }
    server.says(200, r#"{"isAuthorized":true}"#);
    assert_eq!(ask(&rights, &rules, "", "t").await, Ok(String::new()));
    let closed = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let rights = Rights::new(Outbound::for_tests(&[closed]));
    let gone = http(format!("http://{closed}/"), 0);
    assert_eq!(ask(&rights, &gone, "", "").await, Err(Refusal::Authorizer(Trouble::Unreachable)));
    let silent = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = silent.local_addr().unwrap();
    let rights = Rights::new(Outbound::for_tests(&[address]));
    let Authorizer::Http(slow) = http(format!("http://{address}/"), 0) else { panic!() };
    let slow = Authorizer::Http(HttpAuthorizer { timeout: Duration::from_millis(100), ..slow });
    assert_eq!(ask(&rights, &slow, "", "").await, Err(Refusal::Authorizer(Trouble::TimedOut)));
}

#[test]
fn a_pass_holds_until_its_second() {
    let at = |seconds: f64| UNIX_EPOCH + Duration::from_secs_f64(seconds);
    let pass = Pass::new(None, None, Some(100));
    assert!(!pass.is_over(at(99.9)) && pass.is_over(at(100.0)));
    assert_eq!(pass.left(at(98.5)), Some(Duration::from_millis(1500)));
    assert_eq!(pass.left(at(101.0)), Some(Duration::ZERO));
    let endless = Pass::new(None, None, None);
    assert!(!endless.is_over(at(1e12)) && endless.left(at(0.0)).is_none());
    assert_eq!(Pass::new(None, None, Some(-5)).left(at(0.0)), Some(Duration::ZERO));
}
