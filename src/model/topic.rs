//! MQTT topic names and topic filters: what is valid, and what matches (MQTT 5.0 section 4.7).

/// Longest topic name or filter that a packet can carry, in bytes.
pub const MAX_LEN: usize = 65_535;
/// Most levels of a topic that we accept; it stops topics of thousands of slashes.
pub const MAX_LEVELS: usize = 128;

/// Why a topic name or a topic filter is not valid.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum TopicError {
    /// Names and filters have at least one character.
    #[error("is empty")]
    Empty,
    /// More bytes than a packet can carry.
    #[error("is longer than 65535 bytes")]
    TooLong,
    /// More levels than the server accepts.
    #[error("has more than 128 levels")]
    TooDeep,
    /// The null character is forbidden.
    #[error("holds the null character")]
    Null,
    /// A wildcard in a topic name.
    #[error("holds a wildcard ('+' or '#'), which only filters may")]
    Wildcard,
    /// A wildcard that shares its level, or a `#` before the end.
    #[error("has a misplaced wildcard ('+' must stand alone in its level, '#' alone in the last)")]
    MisplacedWildcard,
}

/// Checks a topic name, as in PUBLISH.
pub fn check_name(topic: &str) -> Result<(), TopicError> {
    check_common(topic)?;
    if topic.contains(['+', '#']) { Err(TopicError::Wildcard) } else { Ok(()) }
}

/// Checks a topic filter, as in SUBSCRIBE. `$share` is no business of this function.
pub fn check_filter(filter: &str) -> Result<(), TopicError> {
    check_common(filter)?;
    let mut levels = filter.split('/').peekable();
    while let Some(level) = levels.next() {
        let well_placed = match level {
            "#" => levels.peek().is_none(),
            "+" => true,
            other => !other.contains(['+', '#']),
        };
        if !well_placed {
            return Err(TopicError::MisplacedWildcard);
        }
    }
    Ok(())
}

fn check_common(text: &str) -> Result<(), TopicError> {
    match text {
        "" => Err(TopicError::Empty),
        _ if text.len() > MAX_LEN => Err(TopicError::TooLong),
        _ if text.contains('\0') => Err(TopicError::Null),
        _ if text.bytes().filter(|b| *b == b'/').count() >= MAX_LEVELS => Err(TopicError::TooDeep),
        _ => Ok(()),
    }
}

/// Tells whether a valid filter matches a valid name. A leading wildcard does not match a leading `$`
/// (MQTT-4.7.2-1); `a/#` also matches `a`.
pub fn matches(filter: &str, topic: &str) -> bool {
    if topic.starts_with('$') && filter.starts_with(['+', '#']) {
        return false;
    }
    let mut levels = topic.split('/');
    for wanted in filter.split('/') {
        if wanted == "#" {
            return true;
        }
        match levels.next() {
            Some(level) if wanted == "+" || wanted == level => {}
            _ => return false,
        }
    }
    levels.next().is_none()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn names_are_checked() {
        assert_eq!(check_name("$devices/a/events/ü"), Ok(()));
        assert_eq!(check_name("/"), Ok(()));
        assert_eq!(check_name(""), Err(TopicError::Empty));
        assert_eq!(check_name("a\0"), Err(TopicError::Null));
        assert_eq!(check_name("a/+"), Err(TopicError::Wildcard));
        assert_eq!(check_name("a#"), Err(TopicError::Wildcard));
        assert_eq!(check_name(&"a".repeat(65_536)), Err(TopicError::TooLong));
        assert_eq!(check_name(&"/".repeat(128)), Err(TopicError::TooDeep));
        assert_eq!(check_name(&"/".repeat(127)), Ok(()));
    }

    #[test]
    fn filters_are_checked() {
        for good in ["#", "+", "a/+/b", "a/#", "+/+/#", "/", "$devices/+/events/#"] {
            assert_eq!(check_filter(good), Ok(()), "{good}");
        }
        for bad in ["a#", "a/#/b", "a+", "#/", "a/b+/c"] {
            assert_eq!(check_filter(bad), Err(TopicError::MisplacedWildcard), "{bad}");
        }
    }

    #[test]
    fn matches_as_the_standard_says() {
        for (filter, topic, expected) in [
            ("sport/tennis/player1/#", "sport/tennis/player1", true),
            ("sport/tennis/player1/#", "sport/tennis/player1/score/wimbledon", true),
            ("sport/#", "sport", true),
            ("sport/tennis/+", "sport/tennis/player1/ranking", false),
            ("sport/+", "sport", false),
            ("sport/+", "sport/", true),
            ("+/+", "/finance", true),
            ("/+", "/finance", true),
            ("+", "/finance", false),
            ("#", "$SYS/x", false),
            ("+/monitor", "$SYS/monitor", false),
            ("$SYS/#", "$SYS/monitor", true),
            ("a", "a/b", false),
            ("a/b", "a", false),
        ] {
            assert_eq!(matches(filter, topic), expected, "{filter} {topic}");
        }
    }

    /// The standard's words, level lists and recursion, nothing clever.
    fn naive(filter: &[&str], topic: &[&str]) -> bool {
        match (filter, topic) {
            (["#"], _) | ([], []) => true,
            (["+", f @ ..], [_, t @ ..]) => naive(f, t),
            ([a, f @ ..], [b, t @ ..]) if a == b => naive(f, t),
            _ => false,
        }
    }

    proptest! {
        #[test]
        fn agrees_with_a_naive_matcher(
            filter in prop::collection::vec(prop::sample::select(vec!["a", "b", "", "+"]), 1..5),
            hash: bool,
            topic in prop::collection::vec(prop::sample::select(vec!["a", "b", ""]), 1..5),
        ) {
            let mut filter = filter;
            if hash { filter.push("#"); }
            prop_assume!(!filter.join("/").is_empty() && !topic.join("/").is_empty());
            prop_assert_eq!(matches(&filter.join("/"), &topic.join("/")), naive(&filter, &topic));
        }
    }
}
