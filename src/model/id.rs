//! Resource ids: what a user may call a registry, a device, a gateway or a broker.

use std::sync::Arc;
use std::time::SystemTime;

use super::event_id;

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

/// A new id, as the model system's: 20 characters, the first ones `prefix`. Later ids sort after earlier ones.
pub fn generate(prefix: &str) -> Id {
    // What event ids sort by grows with every one that is made; the rest is random.
    let order = event_id::order(event_id::next(SystemTime::now()));
    let mut rest = u128::from(order) << 68 | u128::from(rand::random::<u64>()) << 4;
    let mut id = String::from(prefix);
    while id.len() < 20 {
        id.push(char::from(b"0123456789abcdefghijklmnopqrstuv"[(rest >> 123) as usize]));
        rest <<= 5;
    }
    id.into()
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

    #[test]
    fn generated_ids_are_valid_different_and_in_order() {
        let ids: Vec<Id> = (0..10_000).map(|_| generate("a1s")).collect();
        assert!(ids.iter().all(|id| id.len() == 20 && id.starts_with("a1s") && check(id)));
        assert!(ids.windows(2).all(|pair| pair[0] < pair[1]), "{:?}", &ids[..3]);
    }
}
