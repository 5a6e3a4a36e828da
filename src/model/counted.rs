//! How many there are of each: what is counted out to nothing is forgotten.

use std::borrow::Borrow;
use std::collections::HashMap;
use std::hash::Hash;

/// Numbers by key; a key that is not there has 0.
#[derive(Debug)]
pub struct Counted<K>(HashMap<K, usize>);

impl<K> Default for Counted<K> {
    fn default() -> Self {
        Self(HashMap::new())
    }
}

impl<K: Hash + Eq> Counted<K> {
    /// How many there are of this.
    pub fn of<Q: Hash + Eq + ?Sized>(&self, key: &Q) -> usize
    where
        K: Borrow<Q>,
    {
        self.0.get(key).copied().unwrap_or(0)
    }

    /// One more of this.
    pub fn enter(&mut self, key: K) {
        *self.0.entry(key).or_default() += 1;
    }

    /// One less of this, which has been entered.
    pub fn leave<Q: Hash + Eq + ?Sized>(&mut self, key: &Q)
    where
        K: Borrow<Q>,
    {
        if let Some(count) = self.0.get_mut(key) {
            *count -= 1;
            if *count == 0 {
                self.0.remove(key);
            }
        }
    }

    /// Whether there is none of anything.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_has_left_is_forgotten() {
        let mut counted = Counted::default();
        ["a", "b", "a"].into_iter().for_each(|key| counted.enter(key));
        assert_eq!(["a", "b", "c"].map(|key| counted.of(key)), [2, 1, 0]);
        counted.leave("a");
        counted.leave("c");
        assert_eq!(counted.of("a"), 1);
        counted.leave("a");
        counted.leave("b");
        assert!(counted.is_empty());
    }
}
