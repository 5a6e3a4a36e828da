//! Who may notify us: the proof that a webhook shows, compared in a time that tells nothing.
//!
//! Senders show the registry's token as `Authorization: Bearer TOKEN`, as the password of `Authorization: Basic`, as the
//! bare value of `Authorization` (Harbor sends what it is given), or sign the body with it: HMAC-SHA256 in
//! `X-Hub-Signature-256: sha256=HEX`, as GitHub and Gitea do.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use hmac::{Hmac, KeyInit as _, Mac as _};
use sha2::Sha256;

use super::notification::Headers;
use crate::model::secret::{Token, is_same};

/// What the headers prove.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Proof {
    /// The sender has the token.
    Given,
    /// The body is signed; this is the signature.
    Signed(Vec<u8>),
    /// The sender shows nothing, or the wrong thing.
    None,
}

/// Looks at the headers, before the body is read.
pub(super) fn of_headers(headers: &dyn Headers, token: &Token) -> Proof {
    if let Some(shown) = headers.get("authorization") {
        return if shows(shown, token) { Proof::Given } else { Proof::None };
    }
    let signature = headers.get("x-hub-signature-256").and_then(|text| text.strip_prefix("sha256="));
    match signature.and_then(unhex) {
        Some(signature) => Proof::Signed(signature),
        None => Proof::None,
    }
}

/// Whether this is the signature of the body.
pub(super) fn is_signed(token: &Token, body: &[u8], signature: &[u8]) -> bool {
    // A key of any length will do.
    let Ok(mut mac) = Hmac::<Sha256>::new_from_slice(token.expose().as_bytes()) else { return false };
    mac.update(body);
    mac.verify_slice(signature).is_ok()
}

fn shows(authorization: &str, token: &Token) -> bool {
    let scheme = |name: &str| {
        let (scheme, rest) = authorization.split_once(' ')?;
        scheme.eq_ignore_ascii_case(name).then(|| rest.trim())
    };
    if let Some(basic) = scheme("basic") {
        let decoded = STANDARD.decode(basic).unwrap_or_default();
        let colon = decoded.iter().position(|byte| *byte == b':');
        return colon.is_some_and(|at| is_same(&decoded[at + 1..], token.expose().as_bytes()));
    }
    is_same(scheme("bearer").unwrap_or(authorization).as_bytes(), token.expose().as_bytes())
}

fn unhex(text: &str) -> Option<Vec<u8>> {
    let digit = |byte: u8| char::from(byte).to_digit(16);
    let pairs = text.as_bytes().chunks(2);
    pairs.map(|pair| Some((digit(pair[0])? << 4 | digit(*pair.get(1)?)?) as u8)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    struct Header(&'static str, String);

    impl Headers for Header {
        fn get(&self, name: &str) -> Option<&str> {
            (name == self.0).then_some(self.1.as_str())
        }
    }

    fn proof(name: &'static str, value: &str) -> Proof {
        of_headers(&Header(name, value.to_owned()), &Token::new("s3cret".to_owned()))
    }

    #[test]
    fn a_token_is_shown_in_the_ways_that_senders_know() {
        let basic = |login: &str| format!("Basic {}", STANDARD.encode(login));
        for shown in ["Bearer s3cret", "bearer s3cret", "s3cret", &basic("any:s3cret"), &basic(":s3cret")] {
            assert_eq!(proof("authorization", shown), Proof::Given, "{shown}");
        }
        for shown in [
            "",
            "Bearer",
            "Bearer ",
            "Bearer s3cre",
            "Bearer s3crets",
            "Basic s3cret",
            &basic("s3cret"),
            &basic("s3cret:"),
            "s3cre",
        ] {
            assert_eq!(proof("authorization", shown), Proof::None, "{shown}");
        }
        assert_eq!(proof("x-other", "s3cret"), Proof::None);
    }

    #[test]
    fn a_body_is_signed_by_the_token() {
        // echo -n '{"a":1}' | openssl dgst -sha256 -hmac s3cret
        let hex = "5910e62016ef5034272c926c27071992a465c2335cecf41851bda071577f4f6d";
        let Proof::Signed(signature) = proof("x-hub-signature-256", &format!("sha256={hex}")) else {
            panic!()
        };
        let token = Token::new("s3cret".to_owned());
        assert!(is_signed(&token, b"{\"a\":1}", &signature));
        assert!(!is_signed(&token, b"{\"a\":2}", &signature));
        assert!(!is_signed(&Token::new("s3crets".to_owned()), b"{\"a\":1}", &signature));
        assert!(!is_signed(&token, b"{\"a\":1}", &signature[..31]));
        for bad in ["sha256=0", "sha256=zz", "sha1=00", "00"] {
            assert_eq!(proof("x-hub-signature-256", bad), Proof::None, "{bad}");
        }
        assert_eq!(proof("x-hub-signature-256", "sha256="), Proof::Signed(vec![]));
        assert!(!is_signed(&token, b"{\"a\":1}", &[]));
    }
}
