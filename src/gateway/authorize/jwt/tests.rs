//! Tokens that are good, and everything that makes one bad; keys and signatures are real.

use std::sync::LazyLock;

use proptest::prelude::*;
use ring::rand::SystemRandom;
use ring::signature::{
    ECDSA_P256_SHA256_FIXED_SIGNING, ECDSA_P384_SHA384_FIXED_SIGNING, EcdsaKeyPair, KeyPair,
    RSA_PKCS1_SHA256, RSA_PKCS1_SHA384, RSA_PKCS1_SHA512, RsaKeyPair,
};
use rsa::pkcs8::EncodePrivateKey;
use rsa::traits::PublicKeyParts;
use serde_json::json;

use super::*;
use crate::model::authorizer::{IdentitySource, TokenPlace};

/// An issuer's pair of keys.
pub(in crate::gateway::authorize) enum Signer {
    Rsa(RsaKeyPair, [String; 2]),
    P256(EcdsaKeyPair),
    P384(EcdsaKeyPair),
}

pub(in crate::gateway::authorize) static RSA: LazyLock<Signer> = LazyLock::new(|| rsa(2048));
pub(in crate::gateway::authorize) static P256: LazyLock<Signer> = LazyLock::new(|| {
    let made = EcdsaKeyPair::generate_pkcs8(&ECDSA_P256_SHA256_FIXED_SIGNING, &SystemRandom::new()).unwrap();
    let pair =
        EcdsaKeyPair::from_pkcs8(&ECDSA_P256_SHA256_FIXED_SIGNING, made.as_ref(), &SystemRandom::new());
    Signer::P256(pair.unwrap())
});
static P384: LazyLock<Signer> = LazyLock::new(|| {
    let made = EcdsaKeyPair::generate_pkcs8(&ECDSA_P384_SHA384_FIXED_SIGNING, &SystemRandom::new()).unwrap();
    let pair =
        EcdsaKeyPair::from_pkcs8(&ECDSA_P384_SHA384_FIXED_SIGNING, made.as_ref(), &SystemRandom::new());
    Signer::P384(pair.unwrap())
});

fn rsa(bits: usize) -> Signer {
    let made = rsa::RsaPrivateKey::new(&mut rsa::rand_core::OsRng, bits).unwrap();
    let public = [made.n(), made.e()].map(|number| encode(&number.to_bytes_be()));
    Signer::Rsa(RsaKeyPair::from_pkcs8(made.to_pkcs8_der().unwrap().as_bytes()).unwrap(), public)
}

fn encode(bytes: &[u8]) -> String {
    BASE64_URL_SAFE_NO_PAD.encode(bytes)
}

impl Signer {
    /// The public key, as it is published.
    pub(in crate::gateway::authorize) fn jwk(&self, id: &str) -> Value {
        let point = |curve: &str, point: &[u8]| {
            let (x, y) = point[1..].split_at(point.len() / 2);
            json!({ "kty": "EC", "crv": curve, "kid": id, "x": encode(x), "y": encode(y) })
        };
        match self {
            Self::Rsa(_, [n, e]) => json!({ "kty": "RSA", "kid": id, "n": n, "e": e }),
            Self::P256(pair) => point("P-256", pair.public_key().as_ref()),
            Self::P384(pair) => point("P-384", pair.public_key().as_ref()),
        }
    }

    fn sign(&self, algorithm: &str, message: &[u8]) -> Vec<u8> {
        match self {
            Self::Rsa(pair, _) => {
                let padding = match algorithm {
                    "RS384" => &RSA_PKCS1_SHA384,
                    "RS512" => &RSA_PKCS1_SHA512,
                    _ => &RSA_PKCS1_SHA256,
                };
                let mut signature = vec![0; pair.public().modulus_len()];
                pair.sign(padding, &SystemRandom::new(), message, &mut signature).unwrap();
                signature
            }
            Self::P256(pair) | Self::P384(pair) => {
                pair.sign(&SystemRandom::new(), message).unwrap().as_ref().to_vec()
            }
        }
    }

    /// A token.
    pub(in crate::gateway::authorize) fn token(&self, algorithm: &str, id: &str, claims: &Value) -> String {
        self.with_header(&json!({ "alg": algorithm, "typ": "JWT", "kid": id }), claims)
    }

    fn with_header(&self, header: &Value, claims: &Value) -> String {
        let signed =
            format!("{}.{}", encode(header.to_string().as_bytes()), encode(claims.to_string().as_bytes()));
        let signature = self.sign(header["alg"].as_str().unwrap_or_default(), signed.as_bytes());
        format!("{signed}.{}", encode(&signature))
    }
}

const NOW: i64 = 1_800_000_000;

fn keys() -> KeySet {
    let keys = json!({ "keys": [RSA.jwk("rsa"), P256.jwk("p256"), P384.jwk("p384")] });
    KeySet::parse(keys.to_string().as_bytes()).unwrap()
}

fn rules() -> JwtRules {
    let words = |words: &[&str]| words.iter().map(ToString::to_string).collect();
    JwtRules {
        jwks_uri: String::new(),
        jwks_ttl: std::time::Duration::ZERO,
        source: IdentitySource { place: TokenPlace::Subprotocol, name: String::new(), prefix: String::new() },
        issuers: words(&["https://login.example.org", "https://other.example.org"]),
        audiences: words(&["screens", "phones"]),
        required_claims: words(&["role"]),
        scopes: words(&["hall:read", "hall:list"]),
    }
}

fn good() -> Value {
    json!({
        "iss": "https://login.example.org", "aud": ["x", "screens"], "sub": "alice", "role": "guest",
        "scope": "hall:list profile hall:read", "iat": NOW - 10, "nbf": NOW - 10, "exp": NOW + 60,
    })
}

fn judge(token: &str, rules: &JwtRules) -> Result<Told, Flaw> {
    Token::parse(token)?.judge(&keys(), rules, NOW)
}

#[test]
fn a_good_token_tells_who_and_until_when() {
    let told = Told {
        issuer: Some("https://login.example.org".into()),
        subject: Some("alice".into()),
        expires_at: NOW + 60,
    };
    for (signer, algorithm, id) in [
        (&RSA, "RS256", "rsa"),
        (&RSA, "RS384", "rsa"),
        (&RSA, "RS512", "rsa"),
        (&P256, "ES256", "p256"),
        (&P384, "ES384", "p384"),
    ] {
        assert_eq!(judge(&signer.token(algorithm, id, &good()), &rules()).as_ref(), Ok(&told), "{algorithm}");
    }
    // Rules that ask for nothing.
    let none =
        JwtRules { issuers: vec![], audiences: vec![], required_claims: vec![], scopes: vec![], ..rules() };
    let told = judge(&P256.token("ES256", "p256", &json!({ "exp": NOW + 1 })), &none);
    assert_eq!(told, Ok(Told { issuer: None, subject: None, expires_at: NOW + 1 }));
}

#[test]
fn every_claim_is_looked_at() {
    let claim = |name: &str| Flaw::Claim(name.to_owned());
    let table = [
        ("exp", json!(NOW), Err(Flaw::Expired)),
        ("exp", json!(NOW + 1), Ok(NOW + 1)),
        ("exp", json!(NOW as f64 + 1.9), Ok(NOW + 1)),
        ("exp", json!(1e300), Ok(i64::MAX)),
        ("exp", json!(-1), Err(Flaw::Expired)),
        ("exp", json!("tomorrow"), Err(claim("exp"))),
        ("exp", Value::Null, Err(claim("exp"))),
        ("nbf", json!(NOW + 60), Ok(NOW + 60)),
        ("nbf", json!(NOW + 61), Err(Flaw::Early)),
        ("nbf", json!([]), Err(claim("nbf"))),
        ("iat", json!(NOW + 61), Err(Flaw::Early)),
        ("iss", json!("https://other.example.org"), Ok(NOW + 60)),
        ("iss", json!("https://login.example.org/"), Err(Flaw::Issuer)),
        ("iss", json!(["https://login.example.org"]), Err(Flaw::Issuer)),
        ("iss", Value::Null, Err(Flaw::Issuer)),
        ("aud", json!("phones"), Ok(NOW + 60)),
        ("aud", json!("screens phones"), Err(Flaw::Audience)),
        ("aud", json!([]), Err(Flaw::Audience)),
        ("aud", Value::Null, Err(Flaw::Audience)),
        ("role", Value::Null, Err(claim("role"))),
        ("role", json!(false), Ok(NOW + 60)),
        ("sub", json!(7), Err(claim("sub"))),
        ("sub", json!("x".repeat(256)), Err(claim("sub"))),
        ("scope", json!(["hall:read", "hall:list"]), Ok(NOW + 60)),
        ("scope", json!("hall:read"), Err(Flaw::Scope)),
        ("scope", json!("hall:read,hall:list"), Err(Flaw::Scope)),
        ("scope", Value::Null, Err(Flaw::Scope)),
    ];
    for (name, value, expected) in table {
        let mut claims = good();
        claims[name] = value.clone();
        let told = judge(&P256.token("ES256", "p256", &claims), &rules());
        assert_eq!(told.map(|told| told.expires_at), expected, "{name}: {value}");
    }
    let mut claims = good();
    claims.as_object_mut().unwrap().remove("exp");
    assert_eq!(judge(&P256.token("ES256", "p256", &claims), &rules()), Err(claim("exp")));
}

#[test]
fn a_signature_is_by_the_key_that_is_named_and_in_its_way() {
    let cases = [
        (RSA.token("RS256", "p256", &good()), Flaw::Signature),
        (P256.token("ES256", "rsa", &good()), Flaw::Signature),
        (P256.token("ES256", "p384", &good()), Flaw::Signature),
        (P256.token("ES384", "p256", &good()), Flaw::Signature),
        (rsa(2048).token("RS256", "rsa", &good()), Flaw::Signature),
        (P256.token("ES256", "other", &good()), Flaw::UnknownKey),
        (P256.with_header(&json!({ "alg": "ES256" }), &good()), Flaw::NoKey),
        (P256.with_header(&json!({ "alg": "ES256", "kid": 7 }), &good()), Flaw::NoKey),
        (
            P256.with_header(
                &json!({ "alg": "ES256", "kid": "p256", "crit": ["b64"], "b64": false }),
                &good(),
            ),
            Flaw::Form,
        ),
    ];
    for (number, (token, flaw)) in cases.into_iter().enumerate() {
        assert_eq!(judge(&token, &rules()), Err(flaw), "{number}");
    }
    for algorithm in ["none", "None", "", "HS256", "HS512", "PS256", "ES512", "EdDSA", "es256"] {
        let token = P256.with_header(&json!({ "alg": algorithm, "kid": "p256" }), &good());
        assert_eq!(judge(&token, &rules()), Err(Flaw::Algorithm), "{algorithm}");
    }
    // The key says which algorithm it is for.
    let mut jwk = RSA.jwk("rsa");
    jwk["alg"] = json!("RS512");
    let keys = KeySet::parse(json!({ "keys": [jwk] }).to_string().as_bytes()).unwrap();
    let judge = |algorithm: &str| {
        let token = RSA.token(algorithm, "rsa", &good());
        Token::parse(&token).unwrap().judge(&keys, &rules(), NOW).map(|_| ())
    };
    assert_eq!((judge("RS512"), judge("RS256")), (Ok(()), Err(Flaw::Signature)));
}

#[test]
fn public_keys_sign_nothing() {
    // The old trick: a MAC with the public key for its secret, where the key's bytes are known to all.
    let public = RSA.jwk("rsa").to_string();
    let key = ring::hmac::Key::new(ring::hmac::HMAC_SHA256, public.as_bytes());
    for algorithm in ["HS256", "RS256"] {
        let header = json!({ "alg": algorithm, "kid": "rsa" }).to_string();
        let signed = format!("{}.{}", encode(header.as_bytes()), encode(good().to_string().as_bytes()));
        let token = format!("{signed}.{}", encode(ring::hmac::sign(&key, signed.as_bytes()).as_ref()));
        assert!(judge(&token, &rules()).is_err(), "{algorithm}");
    }
    let none = json!({ "alg": "none", "kid": "rsa" }).to_string();
    let none = format!("{}.{}.", encode(none.as_bytes()), encode(good().to_string().as_bytes()));
    assert_eq!(judge(&none, &rules()), Err(Flaw::Algorithm));
}

#[test]
fn keys_in_a_token_are_not_looked_at() {
    let own = rsa(2048);
    let header = json!({
        "alg": "RS256", "kid": "rsa", "jwk": own.jwk("rsa"), "jku": "https://evil.example/keys",
        "x5u": "https://evil.example/cert",
    });
    assert_eq!(judge(&own.with_header(&header, &good()), &rules()), Err(Flaw::Signature));
}

#[test]
fn short_keys_sign_nothing() {
    let made = rsa::RsaPrivateKey::new(&mut rsa::rand_core::OsRng, 1024).unwrap();
    let [n, e] = [made.n(), made.e()].map(|number| encode(&number.to_bytes_be()));
    let keys = json!({ "keys": [{ "kty": "RSA", "kid": "rsa", "n": n, "e": e }] }).to_string();
    let keys = KeySet::parse(keys.as_bytes()).unwrap();
    let message = b"message";
    // What stands before a digest by SHA-256 (RFC 8017 section 9.2).
    let prefix = *b"\x30\x31\x30\x0d\x06\x09\x60\x86\x48\x01\x65\x03\x04\x02\x01\x05\x00\x04\x20";
    let padding = rsa::Pkcs1v15Sign { hash_len: Some(32), prefix: Box::new(prefix) };
    let signature = made.sign(padding, &sha256(message)).unwrap();
    assert!(!keys.has_signed("rsa", Algorithm::Rs256, message, &signature));
}

fn sha256(message: &[u8]) -> Vec<u8> {
    ring::digest::digest(&ring::digest::SHA256, message).as_ref().to_vec()
}

#[test]
fn what_is_no_token_is_none() {
    for bad in ["", ".", "..", "...", "a.b", "a.b.c", "e30.e30.e30", "bnVsbA.e30.", "\u{e9}.a.b"] {
        assert!(judge(bad, &rules()).is_err(), "{bad}");
    }
    let token = P256.token("ES256", "p256", &good());
    assert_eq!(judge(&format!("{token}."), &rules()), Err(Flaw::Form));
    assert_eq!(judge(&format!("{token}="), &rules()), Err(Flaw::Form));
    assert_eq!(judge(&format!("{token}.x"), &rules()), Err(Flaw::Form));
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    /// No byte of a token may be another.
    #[test]
    fn a_changed_token_is_not_taken(at: prop::sample::Index, byte in "[A-Za-z0-9_.-]") {
        let token = P256.token("ES256", "p256", &good());
        let at = at.index(token.len());
        let mut changed = token.clone();
        changed.replace_range(at..=at, &byte);
        if changed != token {
            prop_assert!(judge(&changed, &rules()).is_err());
        }
    }

    #[test]
    fn nothing_in_a_token_is_a_fault_of_ours(token in "[A-Za-z0-9_.-]{0,80}") {
        prop_assert!(judge(&token, &rules()).is_err());
    }
}

proptest! {
    #![proptest_config(crate::fuzzing::cases(2000))]

    /// Whatever is done to a good token: it is no good any more, or nothing was done.
    #[test]
    fn fuzz_tokens(token in crate::fuzzing::mutated(vec![
        P256.token("ES256", "p256", &good()).into_bytes(),
        P256.token("ES256", "p256", &json!({ "exp": 1, "aud": ["a"], "scope": "s" })).into_bytes(),
    ])) {
        let token = String::from_utf8_lossy(&token);
        if judge(&token, &rules()).is_ok() {
            // The signature is over every byte but its own, and that may be another that is as right.
            let signed = token.rsplit_once('.').unwrap().0;
            let header = object(signed.split_once('.').unwrap().0).unwrap();
            prop_assert_eq!(header.get("alg"), Some(&json!("ES256")));
            let claims: Value = object(signed.split_once('.').unwrap().1).unwrap().into();
            prop_assert_eq!(claims, good());
        }
    }

    /// Sets of keys are read or refused, whatever stands in them.
    #[test]
    fn fuzz_key_sets(set in crate::fuzzing::mutated(vec![
        json!({ "keys": [P256.jwk("p256"), P384.jwk("p384"), RSA.jwk("rsa")] }).to_string().into_bytes(),
        br#"{"keys":[{"kty":"RSA","kid":"a","n":"AQAB","e":"AQAB","use":"sig","key_ops":["verify"],"alg":"RS256"}]}"#.to_vec(),
    ])) {
        if let Ok(keys) = KeySet::parse(&set) {
            for id in ["p256", "p384", "rsa", "a"] {
                prop_assert!(!keys.has_signed(id, Algorithm::Rs256, b"message", b"signature"));
                prop_assert!(!keys.has_signed(id, Algorithm::Es256, b"message", &[1; 64]));
            }
        }
    }
}
