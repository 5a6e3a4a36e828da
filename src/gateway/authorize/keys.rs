//! The keys of issuers: fetched when they are needed, used again as long as the rules say, and longer while their
//! server does not answer.
//!
//! A fetch is under way once for each URL; who needs it meanwhile waits for it. Tokens that name unknown keys make the
//! set be fetched again at most every [`UNKNOWN_PAUSE`], so that nobody makes us ask an issuer at will. What is to be
//! done is decided purely, by [`Held::next`].

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError, RwLock};
use std::time::{Duration, Instant};

use url::Url;

use super::jwks::KeySet;
use crate::gateway::outbound::{Outbound, OutboundError, StatusCode};
use crate::telemetry::{self, METRICS};

/// Sets that are known at a time; there are as many as paths name.
const MAX_SETS: usize = 256;
/// Longest set, in bytes.
const MAX_BYTES: usize = 256 * 1024;
/// Time for an answer.
const TIMEOUT: Duration = Duration::from_secs(5);
/// How long old keys are used while no newer ones are to be had.
const STALE: Duration = Duration::from_secs(3600);
/// How often a set is fetched because of a key that it has not.
const UNKNOWN_PAUSE: Duration = Duration::from_secs(10);
/// How long a server that did not answer is left alone.
const FAILED_PAUSE: Duration = Duration::from_secs(1);

/// What is known of a set.
#[derive(Debug, Clone, Default)]
struct Held {
    keys: Option<Arc<KeySet>>,
    /// When they came.
    fetched: Option<Instant>,
    /// When they did not come, if that was later.
    failed: Option<Instant>,
    /// When a key that was not there made them be fetched.
    missed: Option<Instant>,
}

/// What to do for who needs a key.
#[derive(Debug, Clone)]
enum Next {
    /// Judge by these. The key may be missing.
    Use(Arc<KeySet>),
    /// Fetch them.
    Fetch,
    /// There are none.
    Nothing,
}

impl Held {
    /// What to do at `now` for somebody who came at `arrived` and needs the key `id`. What was fetched since then is
    /// new enough whatever the `ttl`.
    fn next(&self, id: &str, ttl: Duration, arrived: Instant, now: Instant) -> Next {
        let is_since = |moment: Option<Instant>, pause: Duration| {
            moment.is_some_and(|at| at >= arrived || now.saturating_duration_since(at) < pause)
        };
        let has_failed = is_since(self.failed, FAILED_PAUSE);
        let Some(keys) = &self.keys else { return if has_failed { Next::Nothing } else { Next::Fetch } };
        let is_fresh = is_since(self.fetched, ttl);
        let is_usable = is_since(self.fetched, ttl.saturating_add(STALE));
        let is_told = if keys.has(id) {
            is_fresh
        } else {
            self.fetched.is_some_and(|at| at >= arrived) || is_since(self.missed, UNKNOWN_PAUSE)
        };
        match (is_told, has_failed) {
            (true, _) => Next::Use(Arc::clone(keys)),
            (false, true) if is_usable => Next::Use(Arc::clone(keys)),
            (false, true) => Next::Nothing,
            (false, false) => Next::Fetch,
        }
    }
}

#[derive(Debug, Default)]
struct Set {
    held: RwLock<Held>,
    /// Held by who fetches.
    turn: tokio::sync::Mutex<()>,
}

impl Set {
    fn held(&self) -> Held {
        self.held.read().unwrap_or_else(PoisonError::into_inner).clone()
    }

    fn change(&self, change: impl FnOnce(&mut Held)) {
        change(&mut self.held.write().unwrap_or_else(PoisonError::into_inner));
    }

    /// Fetches it for a token that names the key `id`.
    async fn fetch(&self, outbound: &Outbound, url: &str, id: &str) {
        let is_missed = self.held().keys.is_some_and(|keys| !keys.has(id));
        let fetched = fetch(outbound, url).await;
        let had_failed = self.held().failed.is_some();
        // The address alone: a query may be secret.
        let server =
            Url::parse(url).ok().and_then(|url| url.host_str().map(ToOwned::to_owned)).unwrap_or_default();
        let now = Instant::now();
        match fetched {
            Ok(keys) => {
                telemetry::count(&METRICS.authorizers, "keys_fetched");
                self.change(|held| {
                    if is_missed {
                        held.missed = Some(now);
                    }
                    (held.keys, held.fetched, held.failed) = (Some(Arc::new(keys)), Some(now), None);
                });
                if had_failed {
                    tracing::info!(server, "the keys of tokens can be fetched again");
                }
            }
            Err(error) => {
                telemetry::count(&METRICS.authorizers, "keys_failed");
                self.change(|held| held.failed = Some(now));
                // One line for each time that it begins to fail.
                if !had_failed {
                    tracing::warn!(
                        server,
                        error,
                        "failed to fetch the keys of tokens; trying again when they are needed"
                    );
                }
            }
        }
    }
}

/// The sets of all issuers.
#[derive(Debug)]
pub(super) struct Keys {
    outbound: Outbound,
    sets: Mutex<HashMap<String, Arc<Set>>>,
}

impl Keys {
    pub(super) fn new(outbound: Outbound) -> Self {
        Self { outbound, sets: Mutex::default() }
    }

    /// The set at `url`, to judge a token by that names the key `id`. `None`: it is not to be had.
    pub(super) async fn get(&self, url: &str, ttl: Duration, id: &str) -> Option<Arc<KeySet>> {
        let arrived = Instant::now();
        let set = self.set(url);
        let next = |set: &Set| set.held().next(id, ttl, arrived, Instant::now());
        match next(&set) {
            Next::Use(keys) => return Some(keys),
            Next::Nothing => return None,
            Next::Fetch => {}
        }
        let fetch = {
            let (outbound, set) = (self.outbound.clone(), Arc::clone(&set));
            let (url, id) = (url.to_owned(), id.to_owned());
            async move {
                let _turn = set.turn.lock().await;
                // Somebody may have fetched it meanwhile.
                if matches!(set.held().next(&id, ttl, arrived, Instant::now()), Next::Fetch) {
                    set.fetch(&outbound, &url, &id).await;
                }
            }
        };
        // In a task of its own: whoever asked first may go, and the others need it.
        let _ = self.outbound.runtime().spawn(fetch).await;
        match next(&set) {
            Next::Use(keys) => Some(keys),
            Next::Fetch | Next::Nothing => None,
        }
    }

    fn set(&self, url: &str) -> Arc<Set> {
        let mut sets = self.sets.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(set) = sets.get(url) {
            return Arc::clone(set);
        }
        if sets.len() >= MAX_SETS {
            // The one that was not fetched for longest belongs to no path any more.
            let oldest = sets.iter().min_by_key(|(_, set)| set.held().fetched).map(|(url, _)| url.clone());
            oldest.map(|url| sets.remove(&url));
        }
        Arc::clone(sets.entry(url.to_owned()).or_default())
    }
}

async fn fetch(outbound: &Outbound, url: &str) -> Result<KeySet, String> {
    let url = Url::parse(url).map_err(|error| error.to_string())?;
    let answer = outbound.send(super::ask(url, TIMEOUT, MAX_BYTES)).await;
    let answer = answer.map_err(|error: OutboundError| error.to_string())?;
    if answer.status != StatusCode::OK {
        return Err(format!("the answer is {}", answer.status));
    }
    KeySet::parse(&answer.body).map_err(ToOwned::to_owned)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::json;

    use super::*;

    const TTL: Duration = Duration::from_secs(300);

    fn keys(id: &str) -> Option<Arc<KeySet>> {
        let set = json!({ "keys": [{ "kty": "RSA", "kid": id, "n": "AQAB", "e": "AQAB" }] });
        Some(Arc::new(KeySet::parse(set.to_string().as_bytes()).unwrap()))
    }

    fn word(next: &Next) -> &'static str {
        match next {
            Next::Use(_) => "use",
            Next::Fetch => "fetch",
            Next::Nothing => "nothing",
        }
    }

    /// What is done so many seconds after what is held, for a known and an unknown key.
    fn after(held: &Held, ttl: Duration, start: Instant, seconds: f64) -> [&'static str; 2] {
        let now = start + Duration::from_secs_f64(seconds);
        ["a", "b"].map(|id| word(&held.next(id, ttl, now, now)))
    }

    #[test]
    fn keys_are_used_for_their_time_and_fetched_for_unknown_ones_now_and_then() {
        let t = Instant::now();
        assert_eq!(after(&Held::default(), TTL, t, 0.0), ["fetch", "fetch"]);
        let held = Held { keys: keys("a"), fetched: Some(t), ..Held::default() };
        assert_eq!(after(&held, TTL, t, 299.0), ["use", "fetch"]);
        assert_eq!(after(&held, TTL, t, 300.0), ["fetch", "fetch"]);
        assert_eq!(after(&held, Duration::ZERO, t, 0.1), ["fetch", "fetch"]);
        let missed = Held { missed: Some(t), ..held };
        assert_eq!(after(&missed, TTL, t, 9.9), ["use", "use"]);
        assert_eq!(after(&missed, TTL, t, 10.0), ["use", "fetch"]);
        assert_eq!(after(&missed, Duration::ZERO, t, 9.9), ["fetch", "use"]);
    }

    #[test]
    fn old_keys_are_used_for_a_while_when_no_others_are_to_be_had() {
        let t = Instant::now();
        let at = |seconds| t + Duration::from_secs(seconds);
        let none = Held { failed: Some(t), ..Held::default() };
        assert_eq!(after(&none, TTL, t, 0.5), ["nothing", "nothing"]);
        assert_eq!(after(&none, TTL, t, 1.0), ["fetch", "fetch"]);
        let old = Held { keys: keys("a"), fetched: Some(t), failed: Some(at(400)), missed: None };
        assert_eq!(after(&old, TTL, t, 400.5), ["use", "use"]);
        assert_eq!(after(&old, TTL, t, 401.0), ["fetch", "fetch"]);
        let too_old = Held { failed: Some(at(4000)), ..old };
        assert_eq!(after(&too_old, TTL, t, 4000.5), ["nothing", "nothing"]);
    }

    #[test]
    fn who_has_waited_for_a_fetch_is_told_what_it_brought() {
        let t = Instant::now();
        let later = t + Duration::from_secs(20);
        let came = Held { keys: keys("a"), fetched: Some(later), ..Held::default() };
        let next = |held: &Held, id| word(&held.next(id, Duration::ZERO, t, later + Duration::from_secs(60)));
        assert_eq!([next(&came, "a"), next(&came, "b")], ["use", "use"]);
        let failed = Held { failed: Some(later), ..Held::default() };
        assert_eq!(next(&failed, "a"), "nothing");
    }

    proptest! {
        /// After a fetch that was made for somebody nothing is fetched for him again.
        #[test]
        fn nobody_fetches_twice(ttl in 0u64..1000, ago in 0u64..10_000, came: bool, known: bool, missed: bool) {
            let arrived = Instant::now() + Duration::from_secs(20_000);
            let now = arrived + Duration::from_secs(5);
            let fetched = arrived - Duration::from_secs(ago);
            let mut held = Held { keys: keys("a"), fetched: Some(fetched), ..Held::default() };
            held.missed = missed.then_some(fetched);
            if came { held.fetched = Some(now) } else { held.failed = Some(now) }
            let id = if known { "a" } else { "b" };
            prop_assert!(!matches!(held.next(id, Duration::from_secs(ttl), arrived, now), Next::Fetch));
        }
    }
}
