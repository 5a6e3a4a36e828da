//! Lines to stdout and stderr that never panic: whoever reads them may go away at any time.

use std::fmt::Arguments;
use std::io::{self, Write};

/// Writes a line to stderr. There is nobody left to tell when that fails.
pub(super) fn to_stderr(line: Arguments<'_>) {
    let _ = writeln!(io::stderr().lock(), "{line}");
}

/// Takes a closed stdout (`| head -1`) for a clean end.
pub(super) fn closed_is_done(result: io::Result<()>) -> io::Result<()> {
    match result {
        Err(error) if error.kind() == io::ErrorKind::BrokenPipe => Ok(()),
        other => other,
    }
}
