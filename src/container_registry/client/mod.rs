//! [`Client`]: asks a registry what it holds, by the HTTP API of the OCI Distribution Specification 1.1.
//!
//! It asks for catalogs, lists of tags, and manifests; it follows pages, logs in as the registry wants (`login`), keeps to
//! a rate (`pace`), and trusts nothing that is answered: everything is bounded and checked.

mod login;
mod pace;

use std::time::{Duration, SystemTime};

use reqwest::header::{ACCEPT, CONTENT_TYPE, DATE, HeaderMap, LINK, RETRY_AFTER};
use reqwest::{Method, Response, StatusCode};
use url::Url;

use self::login::Login;
use self::pace::Pace;
use super::manifest::{self, Told};
use super::micros;
use crate::model::container::{ContainerRegistry, ManifestKind};
use crate::model::reference;

/// Longest answer that is read, in bytes; the specification wants 4 MiB for manifests.
const MAX_BODY: usize = 8 * 1024 * 1024;
/// Most names of one list.
const MAX_NAMES: usize = 1_000_000;
/// Names asked for at once.
const PAGE: usize = 1000;
/// How long a connection may take.
const CONNECT: Duration = Duration::from_secs(5);
/// How long an answer may take.
const ANSWER: Duration = Duration::from_secs(30);
/// How often a registry that asks for patience gets it.
const RETRIES: usize = 3;
/// The longest that it gets at a time.
const LONGEST_WAIT: Duration = Duration::from_secs(30);

/// Why a registry could not be asked.
#[derive(Debug, Clone, thiserror::Error)]
pub enum AskError {
    /// The settings do not make a client.
    #[error("{0}")]
    Unusable(String),
    /// It is not to be reached.
    #[error("it cannot be reached: {0}")]
    Unreachable(String),
    /// Its answer does not come, or not whole.
    #[error("its answer does not come: {0}")]
    Broken(String),
    /// It wants another login.
    #[error("it refuses the login for {0}")]
    Denied(String),
    /// It answers with an error.
    #[error("it answers {0} to {1}")]
    Status(u16, String),
    /// Its answer does not follow the specification.
    #[error("its answer to {0} is not understood: {1}")]
    Malformed(String, String),
}

/// A registry's client.
#[derive(Debug)]
pub(super) struct Client {
    http: reqwest::Client,
    /// With a slash at the end.
    base: Url,
    /// What answers may be: lists, and every form of manifest.
    accept: String,
    login: Login,
    pace: Pace,
}

/// What kind of list is asked for.
#[derive(Clone, Copy)]
struct List {
    field: &'static str,
    is_valid: fn(&str) -> bool,
}

/// A list, and when it was so by the registry's clock, in microseconds since 1970.
#[derive(Debug)]
pub(super) struct Listed {
    /// The names.
    pub names: Vec<String>,
    /// When.
    pub as_of: i64,
}

/// A manifest that is there.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Found {
    /// Its digest.
    pub digest: String,
    /// What its media type tells of it.
    pub told: Told,
    /// When it was there, by the registry's clock.
    pub as_of: i64,
}

impl Client {
    /// A client of a registry; `None` if it has no address.
    pub(super) fn new(registry: &ContainerRegistry) -> Result<Option<Self>, AskError> {
        let Some(url) = &registry.url else { return Ok(None) };
        let unusable = |error: &dyn std::fmt::Display| AskError::Unusable(error.to_string());
        let base = Url::parse(&format!("{url}/")).map_err(|error| unusable(&error))?;
        // Every client of the process shares it; all but the first find it there.
        let _ = rustls::crypto::ring::default_provider().install_default();
        let mut http = reqwest::Client::builder()
            .connect_timeout(CONNECT)
            .timeout(ANSWER)
            .user_agent(concat!("triggercast/", env!("CARGO_PKG_VERSION")))
            .redirect(reqwest::redirect::Policy::limited(3));
        if let Some(file) = &registry.ca_file {
            let pem = std::fs::read(file).map_err(|error| unusable(&error))?;
            let certificates =
                reqwest::Certificate::from_pem_bundle(&pem).map_err(|error| unusable(&error))?;
            http = http.tls_certs_merge(certificates);
        }
        Ok(Some(Self {
            http: http.build().map_err(|error| unusable(&error))?,
            accept: manifest::MEDIA_TYPES.join(", ") + ", application/json",
            login: Login::new(registry.login.clone(), base.scheme() == "https"),
            base,
            pace: Pace::new(registry.reconcile.requests_per_second),
        }))
    }

    /// Asks whether this is a registry that lets us in.
    pub(super) async fn greet(&self) -> Result<(), AskError> {
        let path = "v2/";
        good(self.ask(Method::GET, self.url(path)?, "").await?, path).map(drop)
    }

    /// Names of all repositories.
    pub(super) async fn repositories(&self) -> Result<Vec<String>, AskError> {
        let first = format!("v2/_catalog?n={PAGE}");
        let list = List { field: "repositories", is_valid: reference::is_repository };
        Ok(self.list(&first, "registry:catalog:*", list).await?.names)
    }

    /// Tags of a repository; none if there is no such repository.
    pub(super) async fn tags(&self, repository: &str) -> Result<Listed, AskError> {
        let first = format!("v2/{repository}/tags/list?n={PAGE}");
        self.list(&first, &scope(repository), List { field: "tags", is_valid: reference::is_tag }).await
    }

    /// What a tag or a digest names; `None` if nothing.
    pub(super) async fn manifest(
        &self,
        repository: &str,
        reference: &str,
    ) -> Result<Option<Found>, AskError> {
        let path = format!("v2/{repository}/manifests/{reference}");
        let answer = self.ask(Method::HEAD, self.url(&path)?, &scope(repository)).await?;
        if answer.status() == StatusCode::NOT_FOUND {
            return Ok(None);
        }
        let answer = good(answer, &path)?;
        let header = |name: &str| answer.headers().get(name)?.to_str().ok();
        let as_of = date(answer.headers());
        let told = manifest::by_media_type(header(CONTENT_TYPE.as_str()).unwrap_or_default(), None);
        // Something that calls itself no manifest is still one, since it was found there.
        let told = if told == Told::NoManifest { Told::Unclear } else { told };
        let digest = match header("docker-content-digest") {
            Some(digest) => digest.to_owned(),
            None if reference::is_digest(reference) => reference.to_owned(),
            // The header is optional.
            None => match self.bytes(repository, reference).await? {
                Some(bytes) => reference::sha256(&bytes),
                None => return Ok(None),
            },
        };
        if !reference::is_digest(&digest) {
            return Err(AskError::Malformed(path, format!("the digest {digest:?}")));
        }
        Ok(Some(Found { digest, told, as_of }))
    }

    /// What a manifest stands for, by its bytes; `None` if it is not there.
    pub(super) async fn kind(
        &self,
        repository: &str,
        digest: &str,
    ) -> Result<Option<ManifestKind>, AskError> {
        Ok(self.bytes(repository, digest).await?.map(|bytes| manifest::by_bytes(&bytes)))
    }

    async fn bytes(&self, repository: &str, reference: &str) -> Result<Option<Vec<u8>>, AskError> {
        let path = format!("v2/{repository}/manifests/{reference}");
        let answer = self.ask(Method::GET, self.url(&path)?, &scope(repository)).await?;
        if answer.status() == StatusCode::NOT_FOUND {
            return Ok(None);
        }
        body(good(answer, &path)?, &path).await.map(Some)
    }

    /// Follows the pages of a list. What is not there is an empty list.
    async fn list(&self, first: &str, scope: &str, list: List) -> Result<Listed, AskError> {
        let mut names: Vec<String> = Vec::new();
        let mut url = self.url(first)?;
        let mut as_of = None;
        let mut seen = 0;
        while seen < MAX_NAMES {
            let answer = self.ask(Method::GET, url.clone(), scope).await?;
            let is_first = as_of.is_none();
            let as_of = *as_of.get_or_insert_with(|| date(answer.headers()));
            if answer.status() == StatusCode::NOT_FOUND && list.field == "tags" && is_first {
                return Ok(Listed { names, as_of });
            }
            let answer = good(answer, url.path())?;
            let next = next_page(answer.headers());
            let malformed = |error: String| AskError::Malformed(url.path().to_owned(), error);
            let json: serde_json::Value = serde_json::from_slice(&body(answer, url.path()).await?)
                .map_err(|error| malformed(error.to_string()))?;
            // A repository without tags has null.
            let page = match json.get(list.field) {
                Some(serde_json::Value::Array(page)) => page.as_slice(),
                Some(serde_json::Value::Null) => &[],
                _ => return Err(malformed(format!("the field {:?} is missing", list.field))),
            };
            seen += page.len().max(1);
            let valid = page.iter().filter_map(|name| name.as_str()).filter(|name| (list.is_valid)(name));
            names.extend(valid.map(ToOwned::to_owned));
            let Some(next) = next else {
                names.sort_unstable();
                names.dedup();
                return Ok(Listed { names, as_of });
            };
            let next = url.join(&next).map_err(|error| malformed(error.to_string()))?;
            if next.origin() != self.base.origin() {
                return Err(malformed("the next page is on another host".to_owned()));
            }
            // Half a list must not be taken for a whole one.
            if page.is_empty() || next == url {
                return Err(malformed("its pages lead nowhere".to_owned()));
            }
            url = next;
        }
        Err(AskError::Malformed(first.to_owned(), format!("it has more than {MAX_NAMES} names")))
    }

    fn url(&self, path: &str) -> Result<Url, AskError> {
        self.base.join(path).map_err(|error| AskError::Malformed(path.to_owned(), error.to_string()))
    }

    /// One question, asked again after a login or when the registry asks for patience.
    async fn ask(&self, method: Method, url: Url, scope: &str) -> Result<Response, AskError> {
        let mut waits = 0;
        let mut has_logged_in = false;
        loop {
            self.pace.turn().await;
            let request = self.http.request(method.clone(), url.clone());
            let request = request.header(ACCEPT, &self.accept);
            let request = self.login.sign(request, scope).await;
            let answer = request.send().await.map_err(unreachable)?;
            match answer.status() {
                StatusCode::UNAUTHORIZED if !has_logged_in => {
                    has_logged_in = true;
                    self.login.answer(&self.http, answer.headers(), scope).await?;
                }
                StatusCode::TOO_MANY_REQUESTS | StatusCode::SERVICE_UNAVAILABLE if waits < RETRIES => {
                    waits += 1;
                    tokio::time::sleep(patience(answer.headers(), waits)).await;
                }
                _ => return Ok(answer),
            }
        }
    }
}

fn scope(repository: &str) -> String {
    format!("repository:{repository}:pull")
}

fn unreachable(error: reqwest::Error) -> AskError {
    // The innermost says what it is; the others where.
    let mut source: &dyn std::error::Error = &error;
    while let Some(inner) = source.source() {
        source = inner;
    }
    let text = source.to_string();
    if error.is_connect() { AskError::Unreachable(text) } else { AskError::Broken(text) }
}

fn good(answer: Response, path: &str) -> Result<Response, AskError> {
    match answer.status() {
        status if status.is_success() => Ok(answer),
        StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN => Err(AskError::Denied(path.to_owned())),
        status => Err(AskError::Status(status.as_u16(), path.to_owned())),
    }
}

async fn body(mut answer: Response, path: &str) -> Result<Vec<u8>, AskError> {
    let mut bytes = Vec::new();
    while let Some(chunk) = answer.chunk().await.map_err(unreachable)? {
        if bytes.len() + chunk.len() > MAX_BODY {
            let error = format!("it is longer than {MAX_BODY} bytes");
            return Err(AskError::Malformed(path.to_owned(), error));
        }
        bytes.extend_from_slice(&chunk);
    }
    Ok(bytes)
}

/// The target of `Link: <target>; rel="next"` (RFC 8288).
fn next_page(headers: &HeaderMap) -> Option<String> {
    let links = headers.get_all(LINK).iter().filter_map(|link| link.to_str().ok());
    let mut links = links.flat_map(|links| links.split(", <"));
    let next = links.find(|link| link.contains("rel=\"next\"") || link.contains("rel=next"))?;
    let (target, _) = next.trim().trim_start_matches('<').split_once('>')?;
    Some(target.to_owned())
}

/// The time of an answer by the registry's clock, to the second below, or ours.
fn date(headers: &HeaderMap) -> i64 {
    let text = headers.get(DATE).and_then(|date| date.to_str().ok());
    let date = text.and_then(|text| jiff::fmt::rfc2822::parse(text).ok());
    date.map_or_else(|| micros(SystemTime::now()), |date| date.timestamp().as_microsecond())
}

/// How long the registry wants to be left alone.
fn patience(headers: &HeaderMap, waits: usize) -> Duration {
    let wanted = headers.get(RETRY_AFTER).and_then(|text| text.to_str().ok()?.parse().ok());
    let wanted = wanted.map(Duration::from_secs).unwrap_or(Duration::from_secs(1 << waits));
    wanted.min(LONGEST_WAIT)
}

#[cfg(test)]
pub(super) mod tests;
