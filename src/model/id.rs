//! Resource ids: what a user may call a registry, a device, a gateway or a broker.

use std::sync::Arc;

/// A resource id, shared without a copy by everything that names the resource.
pub type Id = Arc<str>;

/// What [`check`] allows, in words for an error message.
pub const RULE: &str = "1 to 49 characters: a lower-case letter, then lower-case letters, digits or '-'";

/// Tells whether `text` is a valid resource id: `[a-z][a-z0-9-]{0,48}`.
pub fn check(text: &str) -> bool {
    let mut bytes = text.bytes();
    text.len() <= 49
        && bytes.next().is_some_and(|first| first.is_ascii_lowercase())
        && bytes.all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn accepts_what_the_rule_says_and_nothing_else() {
        for good in ["a", "press-1", "factory", &"a".repeat(49)] {
            assert!(check(good), "{good}");
        }
        for bad in ["", "1a", "-a", "A", "a_b", "a/b", "ä", &"a".repeat(50)] {
            assert!(!check(bad), "{bad}");
        }
    }
}
