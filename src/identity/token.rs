//! IAM tokens: `t1.` + claims + `.` + signature, as long-lived as they say, checked without asking anyone.

use std::fs;
use std::io;
use std::path::Path;

use base64::Engine;
use base64::prelude::{BASE64_STANDARD, BASE64_URL_SAFE_NO_PAD};
use ring::rand::SystemRandom;
use ring::signature::{ED25519, Ed25519KeyPair, KeyPair, UnparsedPublicKey};
use serde::{Deserialize, Serialize};
use uuid::Uuid;

use super::secret::write_private;

/// The model system's mark of its tokens.
const MARK: &str = "t1.";
/// How long a token lasts, in seconds; the model system's most.
pub const LIFE: i64 = 12 * 3600;

/// Who a token is for, and until when.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Claims {
    /// Names the token, so that it can be revoked.
    pub jti: String,
    /// The service account.
    pub sub: String,
    /// The second after which it is not valid.
    pub exp: i64,
}

/// Makes and checks tokens with the key of this server.
#[derive(Debug)]
pub struct Tokens {
    pair: Ed25519KeyPair,
}

impl Tokens {
    /// With the key in `file`, which is made if there is none.
    pub fn open(file: &Path) -> io::Result<Self> {
        let bad = || io::Error::other(format!("{} is not a key; delete it to get a new one", file.display()));
        let text = match fs::read_to_string(file) {
            Ok(text) => text,
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                let made = Ed25519KeyPair::generate_pkcs8(&SystemRandom::new());
                let made = made.map_err(|_| io::Error::other("the system has no random numbers"))?;
                let text = BASE64_STANDARD.encode(made.as_ref());
                write_private(file, &text)?;
                text
            }
            Err(error) => return Err(error),
        };
        let der = BASE64_STANDARD.decode(text.trim()).map_err(|_| bad())?;
        Ok(Self { pair: Ed25519KeyPair::from_pkcs8(&der).map_err(|_| bad())? })
    }

    /// A token for an account that lasts [`LIFE`] from `now`, and the second of its end.
    pub fn make(&self, account: &str, now: i64) -> (String, i64) {
        let claims = Claims { jti: Uuid::now_v7().to_string(), sub: account.to_owned(), exp: now + LIFE };
        let json = serde_json::json!({ "jti": claims.jti, "sub": claims.sub, "exp": claims.exp }).to_string();
        let body = format!("{MARK}{}", BASE64_URL_SAFE_NO_PAD.encode(json));
        let signature = BASE64_URL_SAFE_NO_PAD.encode(self.pair.sign(body.as_bytes()));
        (format!("{body}.{signature}"), claims.exp)
    }

    /// What a token of ours says, if it is one and lasts at `now`.
    pub fn check(&self, token: &str, now: i64) -> Option<Claims> {
        let (body, signature) = token.rsplit_once('.')?;
        let signature = BASE64_URL_SAFE_NO_PAD.decode(signature).ok()?;
        UnparsedPublicKey::new(&ED25519, self.pair.public_key()).verify(body.as_bytes(), &signature).ok()?;
        let json = BASE64_URL_SAFE_NO_PAD.decode(body.strip_prefix(MARK)?).ok()?;
        serde_json::from_slice(&json).ok().filter(|claims: &Claims| claims.exp > now)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_token_is_valid_until_its_end_and_only_as_it_was_made() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("iam.key");
        let tokens = Tokens::open(&file).unwrap();
        let (token, end) = tokens.make("aje1", 1000);
        assert_eq!(end, 1000 + LIFE);
        let signature = token.rsplit_once('.').unwrap().1;
        assert_eq!(signature.len(), 86);
        // The same key after a restart.
        let tokens = Tokens::open(&file).unwrap();
        assert_eq!(tokens.check(&token, end - 1).unwrap().sub, "aje1");
        assert_eq!(tokens.check(&token, end), None);
        let other = Tokens::open(&folder.path().join("other.key")).unwrap();
        assert_eq!(other.check(&token, 1000), None);
        for at in [4, 20, token.len() - 10] {
            let mut forged = token.clone().into_bytes();
            forged[at] = if forged[at] == b'A' { b'B' } else { b'A' };
            assert_eq!(tokens.check(std::str::from_utf8(&forged).unwrap(), 1000), None, "{at}");
        }
        assert_eq!(tokens.check("t1.", 0), None);
        std::fs::write(&file, "rubbish").unwrap();
        assert!(Tokens::open(&file).unwrap_err().to_string().contains("iam.key"));
    }
}
