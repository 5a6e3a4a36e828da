//! Tests of the client against registries that answer as told, well and badly.

use std::net::SocketAddr;
use std::sync::{Arc, Mutex};

use reqwest::header::{HeaderMap, HeaderValue};
use tokio::io::{AsyncBufReadExt as _, AsyncWriteExt as _, BufReader};
use tokio::net::TcpListener;

use super::*;
use crate::model::container::tests::registry;
use crate::model::container::{Reconcile, RegistryLogin};
use crate::model::secret::Token;

/// A request: its method and path, and its `Authorization`.
pub(in crate::container_registry) type Asked = (String, Option<String>);

/// Answers every request with what `answer` says: status line, header lines, body.
pub(in crate::container_registry) async fn fake(
    answer: impl Fn(&str, Option<&str>) -> (&'static str, String, String) + Send + Sync + 'static,
) -> (SocketAddr, Arc<Mutex<Vec<Asked>>>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let (asked, answer) = (Arc::new(Mutex::new(Vec::new())), Arc::new(answer));
    let seen = Arc::clone(&asked);
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            let (answer, seen) = (Arc::clone(&answer), Arc::clone(&seen));
            tokio::spawn(async move {
                let mut stream = BufReader::new(stream);
                let mut first = String::new();
                while stream.read_line(&mut first).await.is_ok_and(|read| read > 0) {
                    let mut authorization = None;
                    let mut line = String::new();
                    while stream.read_line(&mut line).await.is_ok_and(|read| read > 2) {
                        if let Some(value) = line.strip_prefix("authorization: ") {
                            authorization = Some(value.trim().to_owned());
                        }
                        line.clear();
                    }
                    let request = first.trim_end().trim_end_matches(" HTTP/1.1").to_owned();
                    seen.lock().unwrap().push((request.clone(), authorization.clone()));
                    let (status, headers, body) = answer(&request, authorization.as_deref());
                    let length = body.len();
                    let body = if request.starts_with("HEAD") { "" } else { &body };
                    let text =
                        format!("HTTP/1.1 {status}\r\n{headers}Content-Length: {length}\r\n\r\n{body}");
                    if stream.write_all(text.as_bytes()).await.is_err() {
                        return;
                    }
                    first.clear();
                }
            });
        }
    });
    (address, asked)
}

fn client(address: SocketAddr, login: bool) -> Client {
    let login = login.then(|| RegistryLogin { username: "me".into(), password: Token::new("secret".into()) });
    let reconcile = Reconcile { requests_per_second: 10_000, ..Reconcile::default() };
    let url = Some(format!("http://{address}"));
    Client::new(&ContainerRegistry { url, login, reconcile, ..registry("images") }).unwrap().unwrap()
}

fn ok(headers: &str, body: &str) -> (&'static str, String, String) {
    ("200 OK", headers.to_owned(), body.to_owned())
}

const DIGEST: &str = "sha256:e0b9cc7494c37459ce59467bb0201494f122fff19f6dd26b0d31eeedb99757dc";

#[tokio::test]
async fn lists_are_followed_over_their_pages_and_null_is_none() {
    let (address, _) = fake(|request, _| match request {
        "GET /v2/_catalog?n=1000" => {
            ok("Link: </v2/_catalog?last=b&n=2>; rel=\"next\"\r\n", r#"{"repositories":["a","b"]}"#)
        }
        "GET /v2/_catalog?last=b&n=2" => ok("", r#"{"repositories":["b","c/d","Not Valid","../.."]}"#),
        "GET /v2/a/tags/list?n=1000" => {
            ok("Date: Sat, 21 Nov 2026 02:59:18 GMT\r\n", r#"{"name":"a","tags":null}"#)
        }
        "GET /v2/b/tags/list?n=1000" => ok("", r#"{"name":"b","tags":["v1","v2"]}"#),
        _ => ("404 Not Found", String::new(), String::new()),
    })
    .await;
    let client = client(address, false);
    assert_eq!(client.repositories().await.unwrap(), ["a", "b", "c/d"]);
    let none = client.tags("a").await.unwrap();
    assert_eq!((none.names.len(), none.as_of), (0, 1_795_229_958_000_000));
    assert_eq!(client.tags("b").await.unwrap().names, ["v1", "v2"]);
    assert_eq!(client.tags("gone").await.unwrap().names.len(), 0);
    assert!(matches!(client.greet().await, Err(AskError::Status(404, _))), "not a registry");
}

#[tokio::test]
async fn a_list_that_goes_round_or_leaves_the_host_ends() {
    let (address, asked) = fake(|request, _| match request {
        "GET /v2/_catalog?n=1000" => {
            ok("Link: </v2/_catalog?n=1000>; rel=\"next\"\r\n", r#"{"repositories":["a"]}"#)
        }
        "GET /v2/a/tags/list?n=1000" => {
            ok("Link: <http://192.0.2.1/steal>; rel=\"next\"\r\n", r#"{"name":"a","tags":["v1"]}"#)
        }
        "GET /v2/b/tags/list?n=1000" => ok("", "{}"),
        "GET /v2/c/tags/list?n=1000" => ok("", &"x".repeat(MAX_BODY + 1)),
        _ => ok("", "not json"),
    })
    .await;
    let client = client(address, false);
    let error = client.repositories().await.unwrap_err().to_string();
    assert!(error.contains("lead nowhere"), "{error}");
    assert_eq!(asked.lock().unwrap().len(), 1);
    for (repository, words) in [("a", "another host"), ("b", "\"tags\""), ("c", "8388608"), ("d", "expected")]
    {
        let error = client.tags(repository).await.unwrap_err().to_string();
        assert!(error.contains(words), "{error}");
    }
}

#[tokio::test]
async fn manifests_are_told_by_their_headers_or_by_their_bytes() {
    let (address, _) = fake(|request, _| {
        let manifest = r#"{"config":{"mediaType":"application/vnd.cncf.helm.config.v1+json"}}"#;
        let digest = format!("Docker-Content-Digest: {DIGEST}\r\n");
        let oci = "Content-Type: application/vnd.oci.image.manifest.v1+json\r\n";
        match request {
            "HEAD /v2/a/manifests/docker" => ok(
                &format!("{digest}Content-Type: application/vnd.docker.distribution.manifest.v2+json\r\n"),
                "",
            ),
            "HEAD /v2/a/manifests/oci" => ok(&format!("{digest}{oci}"), ""),
            "HEAD /v2/a/manifests/silent" | "GET /v2/a/manifests/silent" => ok(oci, manifest),
            "HEAD /v2/a/manifests/bad" => ok("Docker-Content-Digest: ../../x\r\n", ""),
            "HEAD /v2/a/manifests/broken" => ("500 Oh", String::new(), String::new()),
            request if request.starts_with("GET") && request.ends_with(DIGEST) => ok(oci, manifest),
            _ => ("404 Not Found", String::new(), String::new()),
        }
    })
    .await;
    let client = client(address, false);
    let found = |tag: &'static str| client.manifest("a", tag);
    let docker = found("docker").await.unwrap().unwrap();
    assert_eq!((docker.digest.as_str(), docker.told), (DIGEST, Told::Kind(ManifestKind::Image)));
    assert_eq!(found("oci").await.unwrap().unwrap().told, Told::Unclear);
    // sha256sum of the manifest above.
    let silent = found("silent").await.unwrap().unwrap();
    assert_eq!(
        silent.digest,
        reference::sha256(br#"{"config":{"mediaType":"application/vnd.cncf.helm.config.v1+json"}}"#)
    );
    assert_eq!(found("nowhere").await.unwrap(), None);
    assert!(matches!(found("bad").await, Err(AskError::Malformed(..))));
    assert!(matches!(found("broken").await, Err(AskError::Status(500, _))));
    assert_eq!(client.kind("a", DIGEST).await.unwrap(), Some(ManifestKind::Helm));
    assert_eq!(client.kind("b", "sha256:none").await.unwrap(), None);
}

#[tokio::test]
async fn the_login_is_shown_only_when_it_is_asked_for_and_in_the_way_that_is_wanted() {
    let basic = |_: &str, shown: Option<&str>| match shown {
        // me:secret
        Some("Basic bWU6c2VjcmV0") => ok("", "{}"),
        _ => ("401 Unauthorized", "WWW-Authenticate: Basic realm=\"r\"\r\n".to_owned(), String::new()),
    };
    let (address, asked) = fake(basic).await;
    let with = client(address, true);
    with.greet().await.unwrap();
    with.greet().await.unwrap();
    let shown: Vec<_> = asked.lock().unwrap().iter().map(|(_, shown)| shown.is_some()).collect();
    assert_eq!(shown, [false, true, true]);
    assert!(matches!(client(address, false).greet().await, Err(AskError::Denied(_))));
}

#[tokio::test]
async fn a_token_is_fetched_for_each_scope_and_kept() {
    let own: Arc<std::sync::OnceLock<SocketAddr>> = Arc::default();
    let at = Arc::clone(&own);
    let (address, asked) = fake(move |request, shown| {
        let realm = at.get().unwrap();
        match (request, shown) {
            (request, Some("Basic bWU6c2VjcmV0")) if request.starts_with("GET /token?service=reg&scope=") => {
                ok("", r#"{"token":"t0k3n","expires_in":300}"#)
            }
            (_, Some("Bearer t0k3n")) => ok("", r#"{"name":"a","tags":["v1"],"repositories":[]}"#),
            _ => (
                "401 Unauthorized",
                format!("WWW-Authenticate: Bearer realm=\"http://{realm}/token\",service=\"reg\"\r\n"),
                String::new(),
            ),
        }
    })
    .await;
    own.set(address).unwrap();
    let client = client(address, true);
    assert_eq!(client.tags("a").await.unwrap().names, ["v1"]);
    assert_eq!(client.tags("a").await.unwrap().names, ["v1"]);
    let asked: Vec<_> = asked.lock().unwrap().iter().map(|(request, _)| request.clone()).collect();
    let list = "GET /v2/a/tags/list?n=1000";
    assert_eq!(asked, [list, "GET /token?service=reg&scope=repository%3Aa%3Apull", list, list]);
}

#[tokio::test]
async fn a_password_does_not_leave_by_a_way_that_is_less_safe() {
    let login = Login::new(
        Some(RegistryLogin { username: "me".into(), password: Token::new("secret".into()) }),
        true,
    );
    let mut headers = HeaderMap::new();
    let challenge = "Bearer realm=\"http://127.0.0.1:1/token\"";
    headers.insert("www-authenticate", HeaderValue::from_static(challenge));
    let client = client("127.0.0.1:1".parse().unwrap(), true);
    let refused = login.answer(&client.http, &headers, "scope").await.unwrap_err().to_string();
    assert!(refused.contains("not https"), "{refused}");
}

#[tokio::test]
async fn a_registry_that_is_busy_is_asked_again_and_one_that_is_away_is_told() {
    let count = std::sync::atomic::AtomicUsize::new(0);
    let (address, asked) = fake(move |_, _| match count.fetch_add(1, std::sync::atomic::Ordering::Relaxed) {
        0 => ("429 Too Many Requests", "Retry-After: 0\r\n".to_owned(), String::new()),
        1 => ("503 Service Unavailable", "Retry-After: 0\r\n".to_owned(), String::new()),
        _ => ok("", "{}"),
    })
    .await;
    client(address, false).greet().await.unwrap();
    assert_eq!(asked.lock().unwrap().len(), 3);
    let away = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let error = client(away, false).greet().await.unwrap_err();
    assert!(matches!(&error, AskError::Unreachable(text) if text.contains("refused")), "{error}");
}

#[test]
fn the_next_page_is_the_link_that_says_so() {
    for (link, next) in [
        ("</v2/_catalog?last=a&n=1>; rel=\"next\"", Some("/v2/_catalog?last=a&n=1")),
        ("<http://h/a>; rel=\"prev\", <http://h/b>; rel=\"next\"", Some("http://h/b")),
        ("</v2/a>; rel=next", Some("/v2/a")),
        ("</v2/a>; rel=\"prev\"", None),
        ("rel=\"next\"", None),
    ] {
        let mut headers = HeaderMap::new();
        headers.insert(LINK, HeaderValue::from_static(link));
        assert_eq!(next_page(&headers).as_deref(), next, "{link}");
    }
}

#[test]
fn a_registrys_patience_is_bounded() {
    let mut headers = HeaderMap::new();
    assert_eq!(patience(&headers, 1), Duration::from_secs(2));
    headers.insert(RETRY_AFTER, HeaderValue::from_static("7"));
    assert_eq!(patience(&headers, 1), Duration::from_secs(7));
    headers.insert(RETRY_AFTER, HeaderValue::from_static("99999"));
    assert_eq!(patience(&headers, 1), LONGEST_WAIT);
}

#[test]
fn the_time_is_the_registrys() {
    let mut headers = HeaderMap::new();
    headers.insert(DATE, HeaderValue::from_static("Sat, 21 Nov 2026 02:59:18 GMT"));
    assert_eq!(date(&headers), 1_795_229_958_000_000);
}
