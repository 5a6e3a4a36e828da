//! Names of repositories, tags and digests: the grammar of the OCI Distribution and Image specifications. Pure.

use sha2::{Digest as _, Sha256};

/// What [`is_repository`] allows, in words for an error message.
pub const REPOSITORY_RULE: &str =
    "1 to 255 lower-case letters and digits, in parts that '.', '_', '-' or '/' may join, such as team/app";
/// What [`is_tag`] allows, in words for an error message.
pub const TAG_RULE: &str = "1 to 128 letters, digits, '_', '.' or '-', not beginning with '.' or '-'";
/// What [`is_digest`] allows, in words for an error message.
pub const DIGEST_RULE: &str = "ALGORITHM:HEX, such as sha256: and 64 hexadecimal digits";

/// `[a-z0-9]+((\.|_|__|-+)[a-z0-9]+)*(\/…)*`, at most 255 characters
/// (OCI Distribution Specification 1.1, "Pulling manifests").
pub fn is_repository(text: &str) -> bool {
    let is_word = |b: &u8| b.is_ascii_lowercase() || b.is_ascii_digit();
    let is_part = |part: &str| {
        let bytes = part.as_bytes();
        let joins = part.split(|c: char| c.is_ascii_lowercase() || c.is_ascii_digit());
        bytes.first().is_some_and(is_word)
            && bytes.last().is_some_and(is_word)
            && joins
                .into_iter()
                .all(|join| matches!(join, "" | "." | "_" | "__") || join.bytes().all(|b| b == b'-'))
    };
    text.len() <= 255 && text.split('/').all(is_part)
}

/// `[a-zA-Z0-9_][a-zA-Z0-9._-]{0,127}` (the same place).
pub fn is_tag(text: &str) -> bool {
    let allowed = |b: u8| b.is_ascii_alphanumeric() || b"_.-".contains(&b);
    (1..=128).contains(&text.len()) && !text.starts_with(['.', '-']) && text.bytes().all(allowed)
}

/// `algorithm:encoded` (OCI Image Specification 1.1, "Digests"); of sha256 and sha512 exactly the hexadecimal form.
pub fn is_digest(text: &str) -> bool {
    let Some((algorithm, encoded)) = text.split_once(':') else { return false };
    let is_hex = |length: usize| {
        encoded.len() == length && encoded.bytes().all(|b| b.is_ascii_digit() || (b'a'..=b'f').contains(&b))
    };
    match algorithm {
        "sha256" => is_hex(64),
        "sha512" => is_hex(128),
        _ => {
            let component = |part: &str| {
                !part.is_empty() && part.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit())
            };
            let allowed = |b: u8| b.is_ascii_alphanumeric() || b"=_-".contains(&b);
            text.len() <= 255
                && algorithm.split(['+', '.', '_', '-']).all(component)
                && (32..=200).contains(&encoded.len())
                && encoded.bytes().all(allowed)
        }
    }
}

/// The digest of these bytes by SHA-256.
pub fn sha256(bytes: &[u8]) -> String {
    format!("sha256:{}", hex(&Sha256::digest(bytes)))
}

/// Bytes as lower-case hexadecimal digits.
pub fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn repositories_follow_the_grammar() {
        for good in ["a", "team/app", "a.b_c__d---e/f0", "0/1/2", &"a".repeat(255)] {
            assert!(is_repository(good), "{good}");
        }
        for bad in [
            "",
            "/",
            "a/",
            "/a",
            "A",
            "a//b",
            "a..b",
            "a___b",
            "-a",
            "a-",
            "a.-b",
            "ä",
            "a b",
            &"a".repeat(256),
        ] {
            assert!(!is_repository(bad), "{bad}");
        }
    }

    #[test]
    fn tags_and_digests_follow_the_grammar() {
        for good in ["v1", "_", "Latest", "1.2-3_4", &"a".repeat(128)] {
            assert!(is_tag(good), "{good}");
        }
        for bad in ["", ".a", "-a", "a:b", "a/b", "ä", &"a".repeat(129)] {
            assert!(!is_tag(bad), "{bad}");
        }
        let hex = "0123456789abcdef".repeat(4);
        for good in [
            format!("sha256:{hex}"),
            format!("sha512:{hex}{hex}"),
            format!("sha256+b64u:{}", "A_-=".repeat(11)),
        ] {
            assert!(is_digest(&good), "{good}");
        }
        for bad in [
            "",
            "sha256:",
            "sha256",
            &format!("sha256:{}", &hex[1..]),
            &format!("sha256:{}", hex.to_uppercase()),
        ] {
            assert!(!is_digest(bad), "{bad}");
        }
    }
}
