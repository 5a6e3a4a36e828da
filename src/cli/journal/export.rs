//! `triggercast journal export`: the events of a path as a file that is there whole, or not at all.

use std::ffi::OsString;
use std::fs::{self, File};
use std::io::{self, Write};
use std::path::{Path, PathBuf};

use anyhow::{Context, bail};

use super::events::{self, Selection};
use super::{Failure, count, written};
use crate::cli::output;
use crate::journal::disk::Reader;

/// What to write, and where.
#[derive(Debug, clap::Args)]
pub(super) struct Args {
    #[command(flatten)]
    selection: Selection,
    /// The file; - is stdout.
    file: PathBuf,
    /// Replace a file that is there already.
    #[arg(long)]
    force: bool,
}

/// Writes what is asked for, and tells how much that was.
pub(super) fn run(reader: &Reader, args: &Args) -> Result<(), Failure> {
    let path = args.selection.path(reader)?;
    if args.file.as_os_str() == "-" {
        let mut out = io::BufWriter::with_capacity(1 << 16, io::stdout().lock());
        let done = events::write(reader, &path, &args.selection, &mut out);
        let flushed = out.flush();
        let done = done?.and_then(|counted| flushed.map(|()| counted));
        if let Ok((events, bytes)) = done {
            output::to_stderr(format_args!("{}", summary(events, bytes)));
        }
        return Ok(written(done.map(|_| ()))?);
    }
    let name = args.file.display();
    match fs::symlink_metadata(&args.file) {
        // A device or a folder is never replaced.
        Ok(there) if !there.is_file() && !there.is_symlink() => {
            return Err(anyhow::anyhow!("{name} is not a regular file; - is stdout").into());
        }
        Ok(_) if !args.force => return Err(exists(&args.file).into()),
        Ok(_) | Err(_) => {}
    }
    let part = Part::new(&args.file)?;
    let mut out = io::BufWriter::with_capacity(1 << 16, &part.file);
    let done = events::write(reader, &path, &args.selection, &mut out)?;
    let failed = || format!("failed to write {name}");
    let (events, bytes) = done.with_context(failed)?;
    out.flush().with_context(failed)?;
    drop(out);
    part.become_file(&args.file, args.force)?;
    super::say(&format_args!("{name}: {}", summary(events, bytes)));
    Ok(())
}

fn summary(events: u64, bytes: u64) -> String {
    format!("{}, {}", count(events as usize, "event"), count(bytes as usize, "byte"))
}

fn exists(file: &Path) -> anyhow::Error {
    anyhow::anyhow!("{} exists already; --force replaces it", file.display())
}

/// A file that is not whole yet, beside the one that it is to become. It goes if nothing comes of it.
struct Part {
    path: PathBuf,
    file: File,
}

impl Part {
    fn new(file: &Path) -> anyhow::Result<Self> {
        let Some(name) = file.file_name() else { bail!("{} is not a file", file.display()) };
        let mut part = OsString::from(name);
        part.push(format!(".{}.part", std::process::id()));
        let path = file.with_file_name(part);
        let file = File::create_new(&path).with_context(|| format!("failed to make {}", path.display()))?;
        Ok(Self { path, file })
    }

    fn become_file(self, file: &Path, force: bool) -> anyhow::Result<()> {
        let failed = || format!("failed to make {}", file.display());
        self.file.sync_all().with_context(failed)?;
        if !force {
            // Unlike a rename, a link replaces nothing that has come meanwhile.
            match fs::hard_link(&self.path, file) {
                Ok(()) => return Ok(()),
                Err(error) if error.kind() == io::ErrorKind::AlreadyExists => return Err(exists(file)),
                // Not every file system has links.
                Err(_) => {}
            }
        }
        fs::rename(&self.path, file).with_context(failed)
    }
}

impl Drop for Part {
    fn drop(&mut self) {
        // After a rename there is none.
        let _ = fs::remove_file(&self.path);
    }
}
