//! What notifications have been about while a repository was read: there what was read may be out of date.

use std::collections::{BTreeSet, HashMap};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// Names by repository, for those that are being read.
#[derive(Debug, Default)]
pub(super) struct Touched(Mutex<HashMap<String, Being>>);

/// A repository that is being read.
#[derive(Debug, Default)]
struct Being {
    readers: usize,
    names: BTreeSet<String>,
}

/// Keeps the names of a repository while it lives.
#[derive(Debug)]
pub(super) struct Reading {
    touched: Arc<Touched>,
    repository: String,
}

impl Touched {
    fn lock(&self) -> MutexGuard<'_, HashMap<String, Being>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A notification is about these tags and digests. Call it before the notification is taken.
    pub(super) fn note<'a>(&self, repository: &str, names: impl IntoIterator<Item = &'a str>) {
        if let Some(being) = self.lock().get_mut(repository) {
            being.names.extend(names.into_iter().map(ToOwned::to_owned));
        }
    }

    /// Begins to read a repository.
    pub(super) fn read(self: &Arc<Self>, repository: &str) -> Reading {
        self.lock().entry(repository.to_owned()).or_default().readers += 1;
        Reading { touched: Arc::clone(self), repository: repository.to_owned() }
    }
}

impl Reading {
    /// What is read.
    pub(super) fn repository(&self) -> &str {
        &self.repository
    }

    /// What has been noted by now.
    pub(super) fn names(&self) -> BTreeSet<String> {
        self.touched.lock().get(&self.repository).map(|being| being.names.clone()).unwrap_or_default()
    }
}

impl Drop for Reading {
    fn drop(&mut self) {
        let mut touched = self.touched.lock();
        if let Some(being) = touched.get_mut(&self.repository) {
            being.readers -= 1;
            if being.readers == 0 {
                touched.remove(&self.repository);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_kept_from_the_first_reader_to_the_last() {
        let touched = Arc::new(Touched::default());
        touched.note("a", ["before"]);
        let first = touched.read("a");
        touched.note("a", ["v1", "d1"]);
        touched.note("b", ["v2"]);
        let second = touched.read("a");
        drop(first);
        assert_eq!(second.names(), ["d1".to_owned(), "v1".to_owned()].into());
        drop(second);
        assert!(touched.lock().is_empty());
        assert!(touched.read("a").names().is_empty());
    }
}
