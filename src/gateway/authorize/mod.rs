//! Who may connect to a path: [`Rights`] asks its authorizer, which is rules for tokens or another server.
//!
//! What a request holds (`identity`), what a token is worth (`jwt`, `jwks`) and what another server is told and answers
//! (`form`) is decided purely. `keys` fetches the keys of issuers, `answers` keeps what servers have answered, and
//! `refresh` takes new tokens of clients that are connected. No token is logged or kept.

mod answers;
mod form;
mod identity;
mod jwks;
mod jwt;
mod keys;
pub(super) mod refresh;

use std::cell::Cell;
use std::net::IpAddr;
use std::sync::{Arc, PoisonError, RwLock};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use actix_http::RequestHead;
use bytes::Bytes;
use url::Url;

use self::answers::{Answers, Decision, Question};
pub(super) use self::jwt::Flaw;
use self::jwt::{Token, Told};
use self::keys::Keys;
use super::outbound::{Ask, HeaderMap, HeaderValue, Method, Outbound, OutboundError, StatusCode};
use super::refusal::Refusal;
use crate::model::authorizer::{Authorizer, HttpAuthorizer, JwtRules};
use crate::model::gateway::PathKey;
use crate::telemetry::{self, METRICS};

/// Time to connect to a server that is asked.
const CONNECT: Duration = Duration::from_secs(3);
/// Longest answer of an authorizer, in bytes.
const MAX_ANSWER: usize = 64 * 1024;
const JSON: HeaderValue = HeaderValue::from_static("application/json");

/// Asks authorizers, for all paths.
#[derive(Debug)]
pub(super) struct Rights {
    outbound: Outbound,
    keys: Keys,
    answers: Answers,
}

/// Why an authorizer that is another server cannot say anything.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Trouble {
    /// It may not be asked, or its answer is none.
    Broken,
    /// It is not there.
    Unreachable,
    /// It takes too long.
    TimedOut,
}

/// What a client has shown, kept as long as it is connected.
#[derive(Debug, Clone)]
pub(super) struct Pass {
    /// Who it is, as its token or the authorizer says.
    subject: Option<Box<str>>,
    /// Who says so: subjects of two issuers are two.
    issuer: Option<Box<str>>,
    /// The second of its end, since 1970.
    expires_at: Cell<Option<i64>>,
    /// A new token is looked at.
    is_asking: Cell<bool>,
}

impl Pass {
    fn new(subject: Option<Box<str>>, issuer: Option<Box<str>>, expires_at: Option<i64>) -> Box<Self> {
        Box::new(Self { subject, issuer, expires_at: Cell::new(expires_at), is_asking: Cell::new(false) })
    }

    /// Who the client is.
    pub(super) fn subject(&self) -> Option<&str> {
        self.subject.as_deref()
    }

    /// Who says so, if a token does.
    pub(super) fn issuer(&self) -> Option<&str> {
        self.issuer.as_deref()
    }

    /// Whether it holds no more.
    pub(super) fn is_over(&self, now: SystemTime) -> bool {
        self.expires_at.get().is_some_and(|end| end <= seconds(now))
    }

    /// How long it holds; `None`: for ever.
    pub(super) fn left(&self, now: SystemTime) -> Option<Duration> {
        let end = Duration::from_secs(self.expires_at.get()?.try_into().unwrap_or_default());
        Some(end.saturating_sub(now.duration_since(UNIX_EPOCH).unwrap_or_default()))
    }
}

/// A request, as the authorizer of its path is asked about it.
#[derive(Debug)]
pub(super) struct Asked<'r> {
    pub(super) head: &'r RequestHead,
    /// Where the client comes from: behind proxies that are believed, as they say.
    pub(super) address: Option<IpAddr>,
    /// The path as it is declared.
    pub(super) key: &'r PathKey,
    /// The path as it was asked for, without the gateway's id.
    pub(super) path: &'r str,
    /// The values of the path's parameters.
    pub(super) values: &'r [(String, String)],
}

/// What an authorizer that lets a client in gives it.
#[derive(Debug)]
pub(super) struct Entrance {
    pub(super) pass: Box<Pass>,
    /// The subprotocol that the answer names.
    pub(super) protocol: Option<String>,
}

impl Rights {
    pub(super) fn new(outbound: Outbound) -> Self {
        Self { keys: Keys::new(outbound.clone()), outbound, answers: Answers::default() }
    }

    /// Asks the authorizer of its path about a request.
    async fn ask(&self, authorizer: &Authorizer, asked: &Asked<'_>) -> Result<Entrance, Refusal> {
        let source = match authorizer {
            Authorizer::Jwt(rules) => Some(&rules.source),
            Authorizer::Http(http) => http.source.as_ref(),
        };
        let token =
            source.map(|source| identity::token(source, asked.head).ok_or(Refusal::NoToken)).transpose()?;
        let pass = match authorizer {
            Authorizer::Jwt(rules) => {
                let told = self.judge(rules, token.as_deref().unwrap_or_default()).await?;
                Pass::new(told.subject, told.issuer, Some(told.expires_at))
            }
            Authorizer::Http(http) => {
                let decision =
                    self.decide(http, token.as_deref(), asked).await.map_err(Refusal::Authorizer)?;
                let is_over = decision.expires_at.is_some_and(|end| end <= seconds(SystemTime::now()));
                if !decision.is_authorized || is_over {
                    return Err(Refusal::Denied);
                }
                Pass::new(decision.subject, None, decision.expires_at)
            }
        };
        let protocol = source.and_then(identity::protocol).map(ToOwned::to_owned);
        Ok(Entrance { pass, protocol })
    }

    /// Judges a token.
    async fn judge(&self, rules: &JwtRules, token: &str) -> Result<Told, Refusal> {
        let token = Token::parse(token).map_err(Refusal::Token)?;
        let keys = self.keys.get(&rules.jwks_uri, rules.jwks_ttl, &token.key).await;
        let keys = keys.ok_or(Refusal::Authorizer(Trouble::Broken))?;
        token.judge(&keys, rules, seconds(SystemTime::now())).map_err(Refusal::Token)
    }

    /// Has another server decide, or looks up what it has decided.
    async fn decide(
        &self,
        http: &HttpAuthorizer,
        token: Option<&str>,
        asked: &Asked<'_>,
    ) -> Result<Decision, Trouble> {
        let query = if http.cache_by_uri { asked.head.uri.query().unwrap_or_default() } else { "" };
        let question = token
            .filter(|_| !http.cache_ttl.is_zero())
            .map(|token| Question::of(&[&http.url, &asked.key.gateway_id, asked.path, query, token]));
        let kept = question.and_then(|question| self.answers.get(&question, Instant::now()));
        if let Some(decision) = kept {
            telemetry::count(&METRICS.authorizers, "answer_kept");
            return Ok(decision);
        }
        let body = form::question(asked).to_string();
        let decision = self.send(http, body).await.map_err(|(trouble, error)| {
            telemetry::count(&METRICS.authorizers, "failed");
            tracing::debug!(path = %asked.key, error, "failed to ask the authorizer");
            trouble
        })?;
        telemetry::count(&METRICS.authorizers, "asked");
        if let Some(question) = question {
            // A right that has ended may have been given again.
            let now = seconds(SystemTime::now());
            let left = decision.expires_at.map(|end| end.saturating_sub(now).try_into().unwrap_or_default());
            let kept = left.map(Duration::from_secs).map_or(http.cache_ttl, |left| http.cache_ttl.min(left));
            self.answers.keep(question, decision.clone(), Instant::now() + kept);
        }
        Ok(decision)
    }

    async fn send(&self, http: &HttpAuthorizer, body: String) -> Result<Decision, (Trouble, String)> {
        let url = Url::parse(&http.url).map_err(|error| (Trouble::Broken, error.to_string()))?;
        let mut ask = ask(url, http.timeout, MAX_ANSWER);
        ask.method = Method::POST;
        ask.headers.insert("content-type", JSON);
        ask.body = body.into();
        let answer = self.outbound.send(ask).await.map_err(|error| {
            let trouble = match error {
                OutboundError::Forbidden(_) | OutboundError::TooLarge(_) => Trouble::Broken,
                OutboundError::Unreachable(_) => Trouble::Unreachable,
                OutboundError::TimedOut => Trouble::TimedOut,
            };
            (trouble, error.to_string())
        })?;
        if answer.status != StatusCode::OK {
            return Err((Trouble::Broken, format!("the answer is {}", answer.status)));
        }
        form::answer(&answer.body).map_err(|error| (Trouble::Broken, error.to_owned()))
    }
}

/// A request for JSON.
fn ask(url: Url, timeout: Duration, max_bytes: usize) -> Ask {
    let mut headers = HeaderMap::new();
    headers.insert("accept", JSON);
    let (method, body) = (Method::GET, Bytes::new());
    Ask { method, url, headers, body, connect_timeout: CONNECT.min(timeout), timeout, max_bytes }
}

fn seconds(time: SystemTime) -> i64 {
    time.duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs() as i64)
}

/// The authorizer of one path, as it is just now.
#[derive(Debug)]
pub(super) struct Door {
    rights: Arc<Rights>,
    authorizer: RwLock<Option<Arc<Authorizer>>>,
}

impl Door {
    pub(super) fn new(rights: Arc<Rights>, authorizer: Option<Authorizer>) -> Self {
        Self { rights, authorizer: RwLock::new(authorizer.map(Arc::new)) }
    }

    /// From now on this authorizer is asked. Clients that are connected stay.
    pub(super) fn change(&self, authorizer: Option<&Authorizer>) {
        let mut current = self.authorizer.write().unwrap_or_else(PoisonError::into_inner);
        if current.as_deref() != authorizer {
            *current = authorizer.cloned().map(Arc::new);
        }
    }

    /// Lets a request in, or not. `None`: everybody may come in.
    pub(super) async fn ask(&self, asked: &Asked<'_>) -> Result<Option<Entrance>, Refusal> {
        let Some(authorizer) = self.authorizer() else { return Ok(None) };
        self.rights.ask(&authorizer, asked).await.map(Some)
    }

    /// The authorizer that is asked now.
    pub(super) fn authorizer(&self) -> Option<Arc<Authorizer>> {
        self.authorizer.read().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

#[cfg(test)]
mod tests;
