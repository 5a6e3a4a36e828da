//! Sets of public keys, as issuers of tokens publish them (RFC 7517). Pure.

use base64::Engine;
use base64::prelude::BASE64_URL_SAFE_NO_PAD;
use ring::signature::{
    self, RsaParameters, RsaPublicKeyComponents, UnparsedPublicKey, VerificationAlgorithm,
};
use serde::Deserialize;
use serde_json::Value;

/// Most keys of a set that are known.
const MAX_KEYS: usize = 100;

/// How a token is signed (RFC 7518 section 3.1). ES512 is not among them: what verifies signatures here lacks its curve.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Algorithm {
    Rs256,
    Rs384,
    Rs512,
    Es256,
    Es384,
}

impl Algorithm {
    /// The algorithm with this name.
    pub(super) fn find(name: &str) -> Option<Self> {
        Some(match name {
            "RS256" => Self::Rs256,
            "RS384" => Self::Rs384,
            "RS512" => Self::Rs512,
            "ES256" => Self::Es256,
            "ES384" => Self::Es384,
            _ => return None,
        })
    }
}

/// A public key that signatures are checked with.
#[derive(Debug)]
struct Key {
    id: String,
    numbers: Numbers,
    /// The one algorithm that it is for, if it says so.
    only: Option<Algorithm>,
}

#[derive(Debug)]
enum Numbers {
    Rsa { n: Vec<u8>, e: Vec<u8> },
    P256(Vec<u8>),
    P384(Vec<u8>),
}

impl Key {
    /// Whether a message has this signature by this key. A key that is not one of the algorithm has signed nothing.
    fn has_signed(&self, algorithm: Algorithm, message: &[u8], signature: &[u8]) -> bool {
        if self.only.is_some_and(|only| only != algorithm) {
            return false;
        }
        let rsa = |n: &[u8], e: &[u8], parameters: &RsaParameters| {
            RsaPublicKeyComponents { n, e }.verify(parameters, message, signature).is_ok()
        };
        let ec = |point: &[u8], parameters: &'static dyn VerificationAlgorithm| {
            UnparsedPublicKey::new(parameters, point).verify(message, signature).is_ok()
        };
        match (algorithm, &self.numbers) {
            (Algorithm::Rs256, Numbers::Rsa { n, e }) => rsa(n, e, &signature::RSA_PKCS1_2048_8192_SHA256),
            (Algorithm::Rs384, Numbers::Rsa { n, e }) => rsa(n, e, &signature::RSA_PKCS1_2048_8192_SHA384),
            (Algorithm::Rs512, Numbers::Rsa { n, e }) => rsa(n, e, &signature::RSA_PKCS1_2048_8192_SHA512),
            (Algorithm::Es256, Numbers::P256(point)) => ec(point, &signature::ECDSA_P256_SHA256_FIXED),
            (Algorithm::Es384, Numbers::P384(point)) => ec(point, &signature::ECDSA_P384_SHA384_FIXED),
            _ => false,
        }
    }
}

/// The keys of one issuer.
#[derive(Debug)]
pub(super) struct KeySet(Vec<Key>);

/// A key as it is written.
#[derive(Deserialize)]
struct Written {
    kid: String,
    kty: String,
    alg: Option<String>,
    r#use: Option<String>,
    key_ops: Option<Vec<String>>,
    crv: Option<String>,
    n: Option<String>,
    e: Option<String>,
    x: Option<String>,
    y: Option<String>,
}

impl KeySet {
    /// Reads a set. Keys that are for something else, or of a kind that is not known, are left out.
    pub(super) fn parse(json: &[u8]) -> Result<Self, &'static str> {
        let set: Value = serde_json::from_slice(json).map_err(|_| "it is not JSON")?;
        let keys = set.get("keys").and_then(Value::as_array).ok_or("it has no list `keys`")?;
        Ok(Self(keys.iter().filter_map(key).take(MAX_KEYS).collect()))
    }

    /// Whether a key with this id is there.
    pub(super) fn has(&self, id: &str) -> bool {
        self.0.iter().any(|key| key.id == id)
    }

    /// Whether the key with this id has signed a message so.
    pub(super) fn has_signed(
        &self,
        id: &str,
        algorithm: Algorithm,
        message: &[u8],
        signature: &[u8],
    ) -> bool {
        let mut keys = self.0.iter().filter(|key| key.id == id);
        keys.any(|key| key.has_signed(algorithm, message, signature))
    }
}

fn key(value: &Value) -> Option<Key> {
    let written = Written::deserialize(value.as_object()?).ok()?;
    let is_for_signatures = written.r#use.as_deref().is_none_or(|r#use| r#use == "sig");
    let verifies = written.key_ops.as_ref().is_none_or(|ops| ops.iter().any(|op| op == "verify"));
    // One that is for an algorithm that is not known is not for another.
    let only = written.alg.as_deref().map(Algorithm::find);
    if !is_for_signatures || !verifies || only == Some(None) {
        return None;
    }
    let number = |text: &Option<String>| BASE64_URL_SAFE_NO_PAD.decode(text.as_deref()?).ok();
    let point = |len: usize| {
        let (x, y) = (number(&written.x)?, number(&written.y)?);
        (x.len() == len && y.len() == len).then(|| [&[4], &x[..], &y[..]].concat())
    };
    let numbers = match (written.kty.as_str(), written.crv.as_deref()) {
        ("RSA", _) => {
            // Some write a zero before the first digit.
            let n = number(&written.n)?;
            let digits = n.iter().position(|byte| *byte != 0)?;
            Numbers::Rsa { n: n[digits..].to_vec(), e: number(&written.e)? }
        }
        ("EC", Some("P-256")) => Numbers::P256(point(32)?),
        ("EC", Some("P-384")) => Numbers::P384(point(48)?),
        _ => return None,
    };
    Some(Key { id: written.kid, numbers, only: only.flatten() })
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn keys_that_are_of_no_use_are_left_out() {
        let x = BASE64_URL_SAFE_NO_PAD.encode([1; 32]);
        let good = json!({ "kty": "EC", "crv": "P-256", "kid": "good", "x": x, "y": x });
        let with = |id: &str, name: &str, value: Value| {
            let mut key = good.clone();
            (key["kid"], key[name]) = (json!(id), value);
            key
        };
        let keys = json!({ "keys": [
            good,
            with("sig", "use", json!("sig")),
            with("verify", "key_ops", json!(["verify", "sign"])),
            with("enc", "use", json!("enc")),
            with("encrypt", "key_ops", json!(["encrypt"])),
            with("es512", "alg", json!("ES512")),
            with("hmac", "kty", json!("oct")),
            with("long", "x", json!(BASE64_URL_SAFE_NO_PAD.encode([1; 33]))),
            with("curve", "crv", json!("P-521")),
            with("number", "kid", json!(7)),
            { "kty": "RSA", "kid": "no-numbers" },
            "no key",
        ] });
        let keys = KeySet::parse(keys.to_string().as_bytes()).unwrap();
        assert_eq!(keys.0.iter().map(|key| &*key.id).collect::<Vec<_>>(), ["good", "sig", "verify"]);
        assert!(keys.has("good") && !keys.has("enc"));
    }

    #[test]
    fn what_is_no_set_is_said_so_and_an_empty_one_is_one() {
        for bad in ["", "[]", "{}", r#"{"keys":{}}"#, "<html>"] {
            assert!(KeySet::parse(bad.as_bytes()).is_err(), "{bad}");
        }
        assert!(!KeySet::parse(br#"{"keys":[]}"#).unwrap().has(""));
        let many =
            json!({ "keys": vec![json!({ "kty": "RSA", "kid": "k", "n": "AQAB", "e": "AQAB" }); 200] });
        assert_eq!(KeySet::parse(many.to_string().as_bytes()).unwrap().0.len(), MAX_KEYS);
    }
}
