//! Passwords and tokens as a user gives them: kept out of every log and debug print, compared in a time that tells
//! nothing.

use std::fmt;

use sha2::{Digest as _, Sha256};
use subtle::ConstantTimeEq as _;

/// Whether two secrets are the same. Their digests are compared, so that not even a length shows.
pub fn is_same(one: &[u8], other: &[u8]) -> bool {
    Sha256::digest(one)[..].ct_eq(&Sha256::digest(other)[..]).into()
}

/// A password of the configuration: plain text, or an argon2 hash in PHC form (`$argon2id$v=19$…`).
#[derive(Clone, PartialEq, Eq)]
pub enum Password {
    /// Plain text, meant for demonstrations and tests.
    Plain(String),
    /// An argon2 hash in PHC string form.
    Argon2(String),
}

impl Password {
    /// Takes a text that starts with `$argon2` as a hash and any other as the password itself.
    pub fn new(text: String) -> Self {
        if text.starts_with("$argon2") { Self::Argon2(text) } else { Self::Plain(text) }
    }
}

impl fmt::Debug for Password {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Plain(_) => "Plain(…)",
            Self::Argon2(_) => "Argon2(…)",
        })
    }
}

/// A secret that a program shows to another: always plain text, of high entropy.
#[derive(Clone, PartialEq, Eq)]
pub struct Token(String);

impl Token {
    /// Takes a text as it is.
    pub fn new(text: String) -> Self {
        Self(text)
    }

    /// The text, for the one place that sends or compares it.
    pub fn expose(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for Token {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Token(…)")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn comparison_is_exact() {
        assert!(is_same(b"", b"") && is_same(b"abc", b"abc"));
        assert!(!is_same(b"abc", b"ab") && !is_same(b"ab", b"abc") && !is_same(b"abc", b"abd"));
    }

    #[test]
    fn debug_never_shows_the_password() {
        let shown =
            format!("{:?} {:?}", Password::new("hunter2".into()), Password::new("$argon2id$x".into()));
        assert_eq!(shown, "Plain(…) Argon2(…)");
        assert_eq!(format!("{:?}", Token::new("hunter2".into())), "Token(…)");
    }
}
