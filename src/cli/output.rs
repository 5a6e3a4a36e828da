//! Lines to stdout and stderr that never panic: whoever reads them may go away at any time.

use std::fmt::Arguments;
use std::io::{self, Write};

/// Writes a line to stderr. There is nobody left to tell when that fails.
pub(super) fn to_stderr(line: Arguments<'_>) {
    let _ = writeln!(io::stderr().lock(), "{line}");
}

/// A number with its noun: `1 device`, `2 registries`.
pub(super) fn count(number: usize, what: &str) -> String {
    match (number, what.strip_suffix('y')) {
        (1, _) => format!("1 {what}"),
        (_, Some(stem)) => format!("{number} {stem}ies"),
        (_, None) => format!("{number} {what}s"),
    }
}

/// Takes a closed stdout (`| head -1`) for a clean end.
pub(super) fn closed_is_done(result: io::Result<()>) -> io::Result<()> {
    match result {
        Err(error) if error.kind() == io::ErrorKind::BrokenPipe => Ok(()),
        other => other,
    }
}
