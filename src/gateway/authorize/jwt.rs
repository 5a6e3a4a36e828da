//! Judges tokens (RFC 7519, with the advice of RFC 8725). Pure: who asks brings the keys and the time.
//!
//! Nothing in a token is believed before its signature is, but for the name of the key; where keys are, the rules say.

use base64::Engine;
use base64::prelude::BASE64_URL_SAFE_NO_PAD;
use serde_json::{Map, Value};

use super::jwks::{Algorithm, KeySet};
use crate::model::authorizer::JwtRules;

/// How far the clocks of issuers may be ahead of ours, in seconds. A token ends when it says so.
const LEEWAY: i64 = 60;
/// Longest subject and longest name of a key, in bytes.
pub(super) const MAX_SUBJECT: usize = 255;
const MAX_KEY_ID: usize = 1024;

/// Why a token is not taken, in words for who brings it.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(in crate::gateway) enum Flaw {
    /// It is not a JWT.
    #[error("the token is not a signed JWT")]
    Form,
    /// It is signed in a way that is not taken.
    #[error("the token is not signed with RS256, RS384, RS512, ES256 or ES384")]
    Algorithm,
    /// It does not say which key has signed it.
    #[error("the token does not name its key in `kid`")]
    NoKey,
    /// There is no such key.
    #[error("the token's key is not among its issuer's")]
    UnknownKey,
    /// The key has not signed it.
    #[error("the token's signature is wrong")]
    Signature,
    /// It has no end, or has come to it.
    #[error("the token has expired")]
    Expired,
    /// It is for later.
    #[error("the token is not valid yet")]
    Early,
    /// It is somebody else's.
    #[error("the token is of another issuer")]
    Issuer,
    /// It is for somebody else.
    #[error("the token is for another audience")]
    Audience,
    /// It lacks something.
    #[error("the token's `{0}` is missing or malformed")]
    Claim(String),
    /// It does not allow this.
    #[error("the token's scope does not allow this")]
    Scope,
    /// It is a good token of somebody else.
    #[error("the token is of another subject")]
    Subject,
}

/// What a good token says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Told {
    pub(super) issuer: Option<Box<str>>,
    pub(super) subject: Option<Box<str>>,
    /// The second of its end, since 1970.
    pub(super) expires_at: i64,
}

/// A token that has the form of one.
#[derive(Debug)]
pub(super) struct Token<'a> {
    /// The name of the key.
    pub(super) key: String,
    algorithm: Algorithm,
    signed: &'a str,
    claims: &'a str,
    signature: Vec<u8>,
}

impl<'a> Token<'a> {
    /// Reads the header of a token, and nothing else.
    pub(super) fn parse(token: &'a str) -> Result<Self, Flaw> {
        let (signed, signature) = token.rsplit_once('.').ok_or(Flaw::Form)?;
        let (header, claims) = signed.split_once('.').ok_or(Flaw::Form)?;
        let header = object(header)?;
        // What must be understood is not.
        if header.contains_key("crit") || claims.contains('.') {
            return Err(Flaw::Form);
        }
        let algorithm = header.get("alg").and_then(Value::as_str).and_then(Algorithm::find);
        let algorithm = algorithm.ok_or(Flaw::Algorithm)?;
        let key = header.get("kid").and_then(Value::as_str).filter(|key| key.len() <= MAX_KEY_ID);
        let key = key.ok_or(Flaw::NoKey)?.to_owned();
        let signature = BASE64_URL_SAFE_NO_PAD.decode(signature).map_err(|_| Flaw::Form)?;
        Ok(Self { key, algorithm, signed, claims, signature })
    }

    /// Judges it at `now`, in seconds since 1970.
    pub(super) fn judge(&self, keys: &KeySet, rules: &JwtRules, now: i64) -> Result<Told, Flaw> {
        if !keys.has(&self.key) {
            return Err(Flaw::UnknownKey);
        }
        if !keys.has_signed(&self.key, self.algorithm, self.signed.as_bytes(), &self.signature) {
            return Err(Flaw::Signature);
        }
        let claims = object(self.claims)?;
        let time = |name: &str| match claims.get(name) {
            None => Ok(None),
            // Fractions of seconds are lawful.
            Some(value) => {
                value.as_f64().map(|time| Some(time as i64)).ok_or_else(|| Flaw::Claim(name.to_owned()))
            }
        };
        let expires_at = time("exp")?.ok_or_else(|| Flaw::Claim("exp".to_owned()))?;
        if expires_at <= now {
            return Err(Flaw::Expired);
        }
        for name in ["nbf", "iat"] {
            if time(name)?.is_some_and(|time| time > now.saturating_add(LEEWAY)) {
                return Err(Flaw::Early);
            }
        }
        let text = |name: &str| claims.get(name).and_then(Value::as_str);
        let issuer = text("iss");
        if !rules.issuers.is_empty()
            && !issuer.is_some_and(|issuer| rules.issuers.iter().any(|one| one == issuer))
        {
            return Err(Flaw::Issuer);
        }
        let mut audiences = words(claims.get("aud"), |text| vec![text]).into_iter();
        if !rules.audiences.is_empty() && !audiences.any(|one| rules.audiences.iter().any(|ours| ours == one))
        {
            return Err(Flaw::Audience);
        }
        let is_missing = |name: &&String| claims.get(*name).is_none_or(Value::is_null);
        if let Some(name) = rules.required_claims.iter().find(is_missing) {
            return Err(Flaw::Claim(name.clone()));
        }
        let subject = match claims.get("sub") {
            None => None,
            Some(Value::String(subject)) if subject.len() <= MAX_SUBJECT => Some(subject.as_str()),
            Some(_) => return Err(Flaw::Claim("sub".to_owned())),
        };
        let scope = words(claims.get("scope"), |text| text.split_ascii_whitespace().collect());
        if !rules.scopes.iter().all(|wanted| scope.contains(&wanted.as_str())) {
            return Err(Flaw::Scope);
        }
        Ok(Told { issuer: issuer.map(Box::from), subject: subject.map(Box::from), expires_at })
    }
}

/// A part of a token that holds a JSON object.
fn object(part: &str) -> Result<Map<String, Value>, Flaw> {
    let json = BASE64_URL_SAFE_NO_PAD.decode(part).map_err(|_| Flaw::Form)?;
    serde_json::from_slice(&json).map_err(|_| Flaw::Form)
}

/// A claim that is a text or a list of texts.
fn words<'v>(value: Option<&'v Value>, of_text: impl Fn(&'v str) -> Vec<&'v str>) -> Vec<&'v str> {
    match value {
        Some(Value::String(text)) => of_text(text),
        Some(Value::Array(list)) => list.iter().filter_map(Value::as_str).collect(),
        _ => Vec::new(),
    }
}

#[cfg(test)]
pub(super) mod tests;
