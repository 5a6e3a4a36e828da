//! "Did you mean …": the nearest known name, or the list of all.

use super::fields::quote;

/// Most names that a message lists.
const MOST_LISTED: usize = 12;

/// The end of a message about an unknown `name`: ` (did you mean "x"?)`, or `; {what}: "x", "y"`.
pub(super) fn among<'a>(name: &str, known: impl IntoIterator<Item = &'a str>, what: &str) -> String {
    let mut known: Vec<&str> = known.into_iter().collect();
    known.sort_unstable();
    known.dedup();
    let nearest = known
        .iter()
        .map(|candidate| (distance(name, candidate), *candidate))
        .filter(|(distance, candidate)| *distance <= candidate.chars().count().min(9) / 3)
        .min();
    if let Some((_, nearest)) = nearest {
        return format!(" (did you mean {}?)", quote(nearest));
    }
    if known.is_empty() {
        return format!("; {what}: none");
    }
    let rest = known.len().saturating_sub(MOST_LISTED);
    let list = known.iter().take(MOST_LISTED).map(|name| quote(name)).collect::<Vec<_>>().join(", ");
    let more = if rest > 0 { format!(" and {rest} more") } else { String::new() };
    format!("; {what}: {list}{more}")
}

/// Edits (insert, remove, replace a character) between two names. Long names are never near.
fn distance(a: &str, b: &str) -> usize {
    const LONG: usize = 128;
    if a.len() > LONG || b.len() > LONG {
        return LONG;
    }
    let b: Vec<char> = b.chars().collect();
    let mut row: Vec<usize> = (0..=b.len()).collect();
    for (i, from) in a.chars().enumerate() {
        let mut diagonal = i;
        row[0] = i + 1;
        for (j, to) in b.iter().enumerate() {
            let replaced = diagonal + usize::from(from != *to);
            diagonal = row[j + 1];
            row[j + 1] = replaced.min(row[j] + 1).min(diagonal + 1);
        }
    }
    row[b.len()]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn offers_the_nearest_name_or_all() {
        assert_eq!(among("facotry", ["factory", "plant"], "known"), " (did you mean \"factory\"?)");
        assert_eq!(among("zzz", ["plant", "factory"], "known"), "; known: \"factory\", \"plant\"");
        assert_eq!(among("x", [], "known"), "; known: none");
        assert_eq!(distance("kitten", "sitting"), 3);
        assert_eq!(distance("", "abc"), 3);
    }
}
