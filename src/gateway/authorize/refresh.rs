//! New tokens of clients that are connected: `{"type":"authorize","token":"…"}`, on paths whose clients bring tokens.
//!
//! A good token of the same subject moves the end of the connection's time; a bad one changes nothing. Such messages are
//! for the gateway alone.

use std::rc::Rc;
use std::sync::Arc;

use memchr::memmem;
use serde_json::{Map, Value, json};

use super::Pass;
use super::identity::MAX_TOKEN;
use super::jwt::{Flaw, Told};
use crate::gateway::frame;
use crate::gateway::refusal::Refusal;
use crate::gateway::socket::Session;
use crate::model::authorizer::Authorizer;
use crate::telemetry::{self, METRICS};

/// What a message with a new token says.
#[derive(Debug, PartialEq, Eq)]
struct Request {
    token: Option<String>,
}

/// Reads a message. `None`: it is not one with a token.
fn request(text: &[u8]) -> Option<Request> {
    // Most messages are something else, and are not parsed.
    memmem::find(text, b"\"authorize\"")?;
    let mut message: Map<String, Value> = serde_json::from_slice(text).ok()?;
    if message.get("type")?.as_str()? != "authorize" {
        return None;
    }
    let token = match message.remove("token") {
        Some(Value::String(token)) => Some(token),
        _ => None,
    };
    Some(Request { token })
}

/// Takes a text message of a client, if it is one with a new token.
pub(in crate::gateway) fn take(session: &Rc<Session>, text: &[u8]) -> bool {
    let Some(pass) = &session.guest.pass else { return false };
    let Some(authorizer) = session.entry.door.authorizer() else { return false };
    if !matches!(*authorizer, Authorizer::Jwt(_)) {
        return false;
    }
    let Some(Request { token }) = request(text) else { return false };
    let token = match token {
        Some(token) if token.len() <= MAX_TOKEN => token,
        _ => {
            answer(session, &Err("the message's `token` is missing or too long".to_owned()));
            return true;
        }
    };
    if pass.is_asking.replace(true) {
        answer(session, &Err("another token is looked at just now".to_owned()));
        return true;
    }
    // It must not hold the socket of a client that leaves meanwhile.
    let (session, rights) = (Rc::downgrade(session), Arc::clone(&session.entry.door.rights));
    actix_rt::spawn(async move {
        let Authorizer::Jwt(rules) = &*authorizer else { return };
        let told = rights.judge(rules, &token).await;
        let Some(session) = session.upgrade() else { return };
        let Some(pass) = &session.guest.pass else { return };
        pass.is_asking.set(false);
        let refreshed = told.and_then(|told| pass.renew(&told).map_err(Refusal::Token));
        answer(&session, &refreshed.map_err(|refusal| refusal.message().into_owned()));
    });
    true
}

impl Pass {
    /// Moves the end to that of a new token, if it is one of the same subject.
    fn renew(&self, told: &Told) -> Result<i64, Flaw> {
        let is_same = self.subject.is_some() && self.subject == told.subject && self.issuer == told.issuer;
        if !is_same {
            return Err(Flaw::Subject);
        }
        self.expires_at.set(Some(told.expires_at));
        Ok(told.expires_at)
    }
}

fn answer(session: &Session, refreshed: &Result<i64, String>) {
    let json = match refreshed {
        Ok(expires_at) => {
            // A year that no calendar has is far enough.
            let at = jiff::Timestamp::from_second(*expires_at).unwrap_or(jiff::Timestamp::MAX);
            json!({ "type": "authorized", "expires_at": at.to_string() })
        }
        Err(message) => json!({ "type": "unauthorized", "message": message }),
    };
    telemetry::count(&METRICS.authorizers, if refreshed.is_ok() { "refreshed" } else { "not_refreshed" });
    // One who takes nothing need not be told.
    session.push_message(frame::message(json.to_string().as_bytes(), true));
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_message_of_its_form_holds_a_token() {
        let token = |text: &str| request(text.as_bytes()).map(|request| request.token);
        let given = Some(Some("a.b".to_owned()));
        assert_eq!(token(r#"{"type":"authorize","token":"a.b"}"#), given);
        assert_eq!(token(r#" { "token": "a.b", "more": [1], "type": "authorize" } "#), given);
        for without in [r#"{"type":"authorize"}"#, r#"{"type":"authorize","token":7}"#] {
            assert_eq!(token(without), Some(None), "{without}");
        }
        for other in [
            "",
            "authorize",
            r#""authorize""#,
            r#"["authorize"]"#,
            r#"{"type":"hello","for":"authorize"}"#,
            r#"{"kind":"authorize"}"#,
            r#"{"type":"authorize""#,
            r#"{"type":["authorize"]}"#,
        ] {
            assert_eq!(token(other), None, "{other}");
        }
    }

    #[test]
    fn a_pass_is_renewed_for_the_same_subject_of_the_same_issuer() {
        let told = |issuer: Option<&str>, subject: Option<&str>| Told {
            issuer: issuer.map(Box::from),
            subject: subject.map(Box::from),
            expires_at: 200,
        };
        let pass = |issuer: Option<&str>, subject: Option<&str>| {
            Pass::new(subject.map(Box::from), issuer.map(Box::from), Some(100))
        };
        let alice = pass(Some("i"), Some("alice"));
        for (issuer, subject) in
            [(Some("i"), Some("bob")), (Some("j"), Some("alice")), (None, Some("alice")), (Some("i"), None)]
        {
            assert_eq!(alice.renew(&told(issuer, subject)), Err(Flaw::Subject));
        }
        assert_eq!(alice.expires_at.get(), Some(100));
        assert_eq!(alice.renew(&told(Some("i"), Some("alice"))), Ok(200));
        assert_eq!(alice.expires_at.get(), Some(200));
        assert_eq!(
            pass(None, None).renew(&told(None, None)),
            Err(Flaw::Subject),
            "nobody is not the same as nobody"
        );
    }
}
