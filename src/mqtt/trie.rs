//! Topic filters with values, looked up by topic name. `space` keeps its subscriptions in two.

use std::collections::HashMap;

use foldhash::fast::RandomState;

/// A tree of filter levels. Filters and names are valid ones, so that it is at most
/// [`crate::model::topic::MAX_LEVELS`] deep.
#[derive(Debug)]
pub struct Trie<T> {
    root: Node<T>,
}

#[derive(Debug)]
struct Node<T> {
    values: Vec<T>,
    children: HashMap<Box<str>, Node<T>, RandomState>,
}

impl<T> Default for Node<T> {
    fn default() -> Self {
        Self { values: Vec::new(), children: HashMap::default() }
    }
}

impl<T> Default for Trie<T> {
    fn default() -> Self {
        Self { root: Node::default() }
    }
}

impl<T> Trie<T> {
    /// Adds a value under a filter.
    pub fn insert(&mut self, filter: &str, value: T) {
        let mut node = &mut self.root;
        for level in filter.split('/') {
            node = node.children.entry(level.into()).or_default();
        }
        node.values.push(value);
    }

    /// Removes the values under `filter` that `which` names, and the levels that nothing needs any more.
    pub fn remove(&mut self, filter: &str, which: impl Fn(&T) -> bool) {
        Self::remove_below(&mut self.root, Some(filter), &which);
    }

    fn remove_below(node: &mut Node<T>, rest: Option<&str>, which: &impl Fn(&T) -> bool) {
        let Some(rest) = rest else {
            node.values.retain(|value| !which(value));
            return;
        };
        let (level, below) = split(rest);
        if let Some(child) = node.children.get_mut(level) {
            Self::remove_below(child, below, which);
            if child.values.is_empty() && child.children.is_empty() {
                node.children.remove(level);
            }
        }
    }

    /// Calls `found` for every value whose filter matches `topic`. Every node is visited at most once.
    pub fn for_each_match<'a>(&'a self, topic: &str, mut found: impl FnMut(&'a T)) {
        // A leading wildcard does not match a leading `$` (MQTT-4.7.2-1).
        let mut stack = vec![(&self.root, Some(topic), !topic.starts_with('$'))];
        while let Some((node, rest, wildcards)) = stack.pop() {
            if wildcards && let Some(all) = node.children.get("#") {
                all.values.iter().for_each(&mut found);
            }
            let Some(rest) = rest else {
                node.values.iter().for_each(&mut found);
                continue;
            };
            let (level, below) = split(rest);
            if let Some(child) = node.children.get(level) {
                stack.push((child, below, true));
            }
            if wildcards && let Some(child) = node.children.get("+") {
                stack.push((child, below, true));
            }
        }
    }

    /// Whether nothing is left in it.
    #[cfg(test)]
    fn is_empty(&self) -> bool {
        self.root.values.is_empty() && self.root.children.is_empty()
    }
}

fn split(rest: &str) -> (&str, Option<&str>) {
    match rest.split_once('/') {
        Some((level, below)) => (level, Some(below)),
        None => (rest, None),
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::model::topic;

    fn found(trie: &Trie<usize>, topic: &str) -> Vec<usize> {
        let mut found = Vec::new();
        trie.for_each_match(topic, |value| found.push(*value));
        found.sort_unstable();
        found
    }

    #[test]
    fn leading_wildcards_miss_dollar_topics() {
        let mut trie = Trie::default();
        for (i, filter) in ["#", "+/a", "$d/#", "$d/+", "$d/a"].iter().enumerate() {
            trie.insert(filter, i);
        }
        assert_eq!(found(&trie, "$d/a"), [2, 3, 4]);
        assert_eq!(found(&trie, "$d"), [2]);
        assert_eq!(found(&trie, "d/a"), [0, 1]);
    }

    #[test]
    fn removing_the_last_value_frees_the_levels() {
        let mut trie = Trie::default();
        trie.insert("a/b/c", 1);
        trie.insert("a/b", 2);
        trie.remove("a/b/c", |v| *v == 1);
        assert_eq!(found(&trie, "a/b/c"), Vec::<usize>::new());
        assert_eq!(found(&trie, "a/b"), [2]);
        trie.remove("a/b", |v| *v == 9);
        assert_eq!(found(&trie, "a/b"), [2]);
        trie.remove("a/b", |v| *v == 2);
        assert!(trie.is_empty());
    }

    fn path(levels: &'static [&'static str]) -> impl Strategy<Value = String> {
        prop::collection::vec(prop::sample::select(levels), 1..5)
            .prop_map(|levels| levels.join("/"))
            .prop_filter("valid", |text| !text.is_empty())
    }

    proptest! {
        #[test]
        fn agrees_with_the_matcher(
            filters in prop::collection::vec((path(&["a", "b", "", "+", "$d"]), any::<bool>()), 0..12),
            name in path(&["a", "b", "", "$d"]),
        ) {
            let filters: Vec<String> =
                filters.into_iter().map(|(f, hash)| if hash { format!("{f}/#") } else { f }).collect();
            let mut trie = Trie::default();
            for (i, filter) in filters.iter().enumerate() {
                trie.insert(filter, i);
            }
            let expected: Vec<usize> =
                (0..filters.len()).filter(|i| topic::matches(&filters[*i], &name)).collect();
            prop_assert_eq!(found(&trie, &name), expected);
            for (i, filter) in filters.iter().enumerate() {
                trie.remove(filter, |v| *v == i);
            }
            prop_assert!(trie.is_empty());
        }
    }
}
