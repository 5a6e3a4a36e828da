//! Authorized keys: RSA pairs of service accounts, and the JWTs that are signed with them.

use jsonwebtoken::{Algorithm, DecodingKey, Validation};
use rsa::pkcs8::{EncodePrivateKey, EncodePublicKey, LineEnding};
use rsa::{RsaPrivateKey, RsaPublicKey};
use serde::Deserialize;

/// Longest time that a JWT may be valid, in seconds.
const MAX_LIFE: i64 = 3600;
/// How far the clocks of others may be off, in seconds.
const LEEWAY: u64 = 60;

/// A pair of keys, both as PEM.
#[derive(Clone)]
pub struct Pair {
    /// `-----BEGIN PUBLIC KEY-----`.
    pub public: String,
    /// `-----BEGIN PRIVATE KEY-----`, in PKCS#8.
    pub private: String,
}

/// Why a JWT is not taken.
#[derive(Debug, thiserror::Error)]
pub enum JwtError {
    /// It has no form of a JWT, no key id, or another algorithm.
    #[error("the JWT is not one that is signed with PS256 and names its key in `kid`")]
    Form,
    /// Signature, times, issuer or audience are wrong.
    #[error("the JWT is not valid: {0}")]
    Invalid(String),
}

#[derive(Deserialize)]
struct Claims {
    iat: i64,
    exp: i64,
}

/// Makes a pair with so many bits. Takes a second, or several.
pub fn generate(bits: usize) -> Result<Pair, String> {
    let text = |error: &dyn std::fmt::Display| error.to_string();
    let private = RsaPrivateKey::new(&mut rsa::rand_core::OsRng, bits).map_err(|error| text(&error))?;
    let public = RsaPublicKey::from(&private);
    Ok(Pair {
        public: public.to_public_key_pem(LineEnding::LF).map_err(|error| text(&error))?,
        private: private.to_pkcs8_pem(LineEnding::LF).map_err(|error| text(&error))?.to_string(),
    })
}

/// The id of the key that a JWT says it is signed with.
pub fn key_id(jwt: &str) -> Result<String, JwtError> {
    let header = jsonwebtoken::decode_header(jwt).map_err(|_| JwtError::Form)?;
    if header.alg != Algorithm::PS256 {
        return Err(JwtError::Form);
    }
    header.kid.ok_or(JwtError::Form)
}

/// Checks a JWT of `issuer` against its public key: signature, times, and one of these audiences.
pub fn check(jwt: &str, public: &str, issuer: &str, audiences: &[String]) -> Result<(), JwtError> {
    let key = DecodingKey::from_rsa_pem(public.as_bytes()).map_err(|_| JwtError::Form)?;
    let mut validation = Validation::new(Algorithm::PS256);
    validation.set_required_spec_claims(&["iss", "aud", "exp"]);
    validation.set_issuer(&[issuer]);
    validation.set_audience(audiences);
    validation.leeway = LEEWAY;
    let invalid = |error: jsonwebtoken::errors::Error| JwtError::Invalid(error.to_string());
    let token = jsonwebtoken::decode::<Claims>(jwt, &key, &validation).map_err(invalid)?;
    let Claims { iat, exp } = token.claims;
    let now = jiff::Timestamp::now().as_second();
    if exp.saturating_sub(iat) > MAX_LIFE {
        return Err(JwtError::Invalid(format!("exp may be at most {MAX_LIFE} seconds after iat")));
    }
    if iat > now.saturating_add(LEEWAY as i64) {
        return Err(JwtError::Invalid("iat lies in the future".to_owned()));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use jsonwebtoken::{EncodingKey, Header};
    use serde_json::json;

    use super::*;

    fn sign(pair: &Pair, algorithm: Algorithm, claims: &serde_json::Value) -> String {
        let header = Header { kid: Some("k1".into()), ..Header::new(algorithm) };
        let key = EncodingKey::from_rsa_pem(pair.private.as_bytes()).unwrap();
        jsonwebtoken::encode(&header, claims, &key).unwrap()
    }

    #[test]
    fn a_jwt_is_taken_when_everything_in_it_is_right() {
        let pair = generate(2048).unwrap();
        assert!(pair.private.starts_with("-----BEGIN PRIVATE KEY-----\n"));
        let now = jiff::Timestamp::now().as_second();
        let right = json!({ "iss": "me", "aud": "here", "iat": now, "exp": now + 3600 });
        let audiences = ["there".to_owned(), "here".to_owned()];
        let jwt = sign(&pair, Algorithm::PS256, &right);
        assert_eq!(key_id(&jwt).unwrap(), "k1");
        check(&jwt, &pair.public, "me", &audiences).unwrap();
        assert!(check(&jwt, &pair.public, "you", &audiences).is_err());
        assert!(check(&jwt, &pair.public, "me", &["there".to_owned()]).is_err());
        let other = generate(2048).unwrap();
        assert!(check(&jwt, &other.public, "me", &audiences).is_err());
        for (wrong, value) in [
            ("exp", json!(now - 120)),
            ("exp", json!(now + 4000)),
            ("iat", json!(now + 600)),
            ("aud", json!("elsewhere")),
            ("iss", json!(null)),
        ] {
            let mut claims = right.clone();
            claims[wrong] = value;
            let jwt = sign(&pair, Algorithm::PS256, &claims);
            assert!(check(&jwt, &pair.public, "me", &audiences).is_err(), "{wrong}");
        }
        assert!(matches!(key_id(&sign(&pair, Algorithm::RS256, &right)), Err(JwtError::Form)));
        assert!(key_id("a.b").is_err());
    }
}
