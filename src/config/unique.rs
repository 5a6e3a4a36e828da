//! Names that may be declared once.

use std::collections::HashMap;

use super::fields::{Reading, Spot, quote};

/// The names of one kind that were declared so far, each with the key that declared it.
#[derive(Default)]
pub(super) struct Unique(HashMap<String, String>);

impl Unique {
    /// Declares a name; the second time is a fault. The empty name stands for a missing one.
    pub(super) fn declare(&mut self, name: &str, rule: &str, spot: &Spot, reading: &mut Reading) {
        if name.is_empty() {
            return;
        }
        match self.0.get(name) {
            Some(first) => {
                reading.fault(spot, format_args!("{} is already taken by {first}; {rule}", quote(name)));
            }
            None => {
                self.0.insert(name.to_owned(), spot.key.clone());
            }
        }
    }
}
