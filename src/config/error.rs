//! What is wrong with a configuration: every fault at once, each with its place, key and rule.

use std::fmt;
use std::path::{Path, PathBuf};

/// A place in the file, both counted from 1, in characters.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Place {
    /// The line.
    pub line: u64,
    /// The column.
    pub column: u64,
}

/// One fault. Prints as `config.yaml:12:5: gateways[0].id: "Main" is not an id (…)`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ConfigError {
    /// The file, as it was named.
    pub file: PathBuf,
    /// Where it stands, when known.
    pub place: Option<Place>,
    /// The key's path, such as `triggers[0].name`; empty when the file as a whole is meant.
    pub key: String,
    /// The value and the rule it breaks. Never holds a secret.
    pub message: String,
}

impl fmt::Display for ConfigError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.file.display())?;
        if let Some(place) = self.place {
            write!(f, ":{}:{}", place.line, place.column)?;
        }
        if !self.key.is_empty() {
            write!(f, ": {}", self.key)?;
        }
        write!(f, ": {}", self.message)
    }
}

/// All faults of one configuration, at least one, in the order of the file. Prints one a line.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ConfigErrors(Vec<ConfigError>);

impl ConfigErrors {
    /// The faults, in the order of the file.
    pub fn iter(&self) -> impl Iterator<Item = &ConfigError> {
        self.0.iter()
    }

    /// Sorts by place; faults without a place come first, among equals the order of finding is kept.
    pub(super) fn new(mut errors: Vec<ConfigError>) -> Self {
        errors.sort_by_key(|error| error.place);
        Self(errors)
    }

    /// One fault that concerns the file as a whole.
    pub(super) fn of_file(file: &Path, place: Option<Place>, message: String) -> Self {
        Self(vec![ConfigError { file: file.to_owned(), place, key: String::new(), message }])
    }
}

impl fmt::Display for ConfigErrors {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, error) in self.0.iter().enumerate() {
            if index > 0 {
                f.write_str("\n")?;
            }
            error.fmt(f)?;
        }
        Ok(())
    }
}

impl std::error::Error for ConfigErrors {}
