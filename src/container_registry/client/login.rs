//! How a registry wants us to log in: with Basic, or with a token from a server that it names.
//!
//! Sources: RFC 7617, and the "Token Authentication Specification" of CNCF Distribution.

use std::collections::HashMap;
use std::time::Duration;

use reqwest::RequestBuilder;
use reqwest::header::{HeaderMap, WWW_AUTHENTICATE};
use serde::Deserialize;
use tokio::sync::Mutex;
use tokio::time::Instant;
use url::Url;

use super::AskError;
use crate::model::container::RegistryLogin;

/// How long a token lives whose server says nothing (the same specification).
const DEFAULT_LIFE: Duration = Duration::from_secs(60);
/// A token is not used any more when it has less than this, or than half of its life.
const MARGIN: Duration = Duration::from_secs(10);
/// Longest token, in bytes.
const LONGEST_TOKEN: usize = 64 * 1024;
/// Tokens that are kept; one for each repository that is asked for.
const MOST_TOKENS: usize = 1000;

/// What we know of the registry's wishes.
#[derive(Debug)]
pub(super) struct Login {
    credentials: Option<RegistryLogin>,
    is_https: bool,
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    wants_basic: bool,
    /// By scope.
    tokens: HashMap<String, (String, Instant)>,
}

#[derive(Deserialize)]
struct Answer {
    #[serde(default)]
    token: String,
    #[serde(default)]
    access_token: String,
    expires_in: Option<u64>,
}

impl Login {
    pub(super) fn new(credentials: Option<RegistryLogin>, is_https: bool) -> Self {
        Self { credentials, is_https, state: Mutex::default() }
    }

    /// Adds what is known to be wanted.
    pub(super) async fn sign(&self, request: RequestBuilder, scope: &str) -> RequestBuilder {
        let state = self.state.lock().await;
        let token = state.tokens.get(scope).filter(|(_, end)| *end > Instant::now());
        match (token, state.wants_basic) {
            (Some((token, _)), _) => request.bearer_auth(token),
            (None, true) => self.basic(request),
            (None, false) => request,
        }
    }

    fn basic(&self, request: RequestBuilder) -> RequestBuilder {
        match &self.credentials {
            Some(login) => request.basic_auth(&login.username, Some(login.password.expose())),
            None => request,
        }
    }

    /// Does what an answer of 401 asks for; then the question can be asked again.
    pub(super) async fn answer(
        &self,
        http: &reqwest::Client,
        headers: &HeaderMap,
        scope: &str,
    ) -> Result<(), AskError> {
        let denied = || AskError::Denied(scope.to_owned());
        let challenges = headers.get_all(WWW_AUTHENTICATE).iter().filter_map(|text| text.to_str().ok());
        let challenges: Vec<_> = challenges.filter_map(challenge).collect();
        if let Some((_, parameters)) = challenges.iter().find(|(scheme, _)| scheme == "bearer") {
            let realm = parameters.get("realm").ok_or_else(denied)?;
            let token = self.fetch(http, realm, parameters.get("service"), scope).await?;
            let mut state = self.state.lock().await;
            if state.tokens.len() >= MOST_TOKENS {
                state.tokens.clear();
            }
            state.tokens.insert(scope.to_owned(), token);
            return Ok(());
        }
        let wants_basic = challenges.iter().any(|(scheme, _)| scheme == "basic");
        let mut state = self.state.lock().await;
        if !wants_basic || self.credentials.is_none() {
            return Err(denied());
        }
        state.wants_basic = true;
        Ok(())
    }

    async fn fetch(
        &self,
        http: &reqwest::Client,
        realm: &str,
        service: Option<&String>,
        scope: &str,
    ) -> Result<(String, Instant), AskError> {
        let malformed = |error: String| AskError::Malformed(format!("the token server {realm}"), error);
        let mut url = Url::parse(realm).map_err(|error| malformed(error.to_string()))?;
        // The password must not leave by a way that is less safe than the registry's own.
        if url.scheme() != "https" && (self.is_https || url.scheme() != "http") {
            return Err(malformed("it is not https".to_owned()));
        }
        let service = service.map(|service| ("service", service.as_str()));
        let wanted = Some(("scope", scope)).filter(|(_, scope)| !scope.is_empty());
        for (name, value) in service.into_iter().chain(wanted) {
            url.query_pairs_mut().append_pair(name, value);
        }
        let asked = Instant::now();
        let answer = self.basic(http.get(url)).send().await.map_err(super::unreachable)?;
        let answer = super::good(answer, scope)?;
        let answer: Answer = serde_json::from_slice(&super::body(answer, realm).await?)
            .map_err(|error| malformed(error.to_string()))?;
        let token = if answer.token.is_empty() { answer.access_token } else { answer.token };
        if token.is_empty() || token.len() > LONGEST_TOKEN {
            return Err(malformed(format!("a token of {} bytes", token.len())));
        }
        let life = answer.expires_in.map_or(DEFAULT_LIFE, |seconds| Duration::from_secs(seconds.min(86_400)));
        Ok((token, asked + life.saturating_sub(MARGIN.min(life / 2))))
    }
}

/// A challenge: its scheme in lower case, and its parameters (RFC 9110, section 11.6.1).
fn challenge(text: &str) -> Option<(String, HashMap<String, String>)> {
    let (scheme, mut rest) = text.split_once(' ').unwrap_or((text, ""));
    let mut parameters = HashMap::new();
    while let Some((name, value)) = rest.split_once('=') {
        let name = name.trim_matches([' ', ',']).to_ascii_lowercase();
        let (value, after) = match value.strip_prefix('"') {
            Some(quoted) => quoted.split_once('"')?,
            None => value.split_once(',').unwrap_or((value, "")),
        };
        parameters.insert(name, value.trim().to_owned());
        rest = after;
    }
    Some((scheme.to_ascii_lowercase(), parameters))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn challenges_are_read() {
        let text = r#"Bearer realm="https://auth.example.org/token",service="registry", scope="repository:a/b:pull,push""#;
        let (scheme, parameters) = challenge(text).unwrap();
        assert_eq!(scheme, "bearer");
        assert_eq!(parameters["realm"], "https://auth.example.org/token");
        assert_eq!(parameters["service"], "registry");
        assert_eq!(parameters["scope"], "repository:a/b:pull,push");
        let (scheme, parameters) = challenge("Basic realm=plain").unwrap();
        assert_eq!((scheme.as_str(), parameters["realm"].as_str()), ("basic", "plain"));
        assert_eq!(challenge("Basic").unwrap().0, "basic");
        assert!(challenge("Bearer realm=\"no end").is_none());
    }
}
