//! Commands that ask a server over the management API, with the words of the model system's command line.
//!
//! `table` holds every command as a row; `tree` makes arguments of it, `request` makes JSON of what was given, and
//! `act` sends it and shows what comes back. `settings` finds the server and the credentials.

mod act;
mod fault;
mod key_file;
mod request;
mod session;
mod settings;
mod show;
mod special;
mod table;
mod tree;
mod yaml;

use std::path::Path;

use clap::error::ErrorKind;
use clap::{ArgMatches, Command, FromArgMatches, Subcommand};

use super::{Failure, output};
use fault::Fault;
use session::Session;
use table::{How, Special};

/// One of the commands, as it was given.
#[derive(Debug)]
pub struct Asked {
    word: String,
    matches: ArgMatches,
}

impl FromArgMatches for Asked {
    fn from_arg_matches(matches: &ArgMatches) -> Result<Self, clap::Error> {
        let (word, matches) =
            matches.subcommand().ok_or_else(|| clap::Error::new(ErrorKind::MissingSubcommand))?;
        Ok(Self { word: word.to_owned(), matches: matches.clone() })
    }

    fn update_from_arg_matches(&mut self, matches: &ArgMatches) -> Result<(), clap::Error> {
        *self = Self::from_arg_matches(matches)?;
        Ok(())
    }
}

impl Subcommand for Asked {
    fn augment_subcommands(command: Command) -> Command {
        command.subcommands(tree::commands().into_iter().map(settings::add_flags))
    }

    fn augment_subcommands_for_update(command: Command) -> Command {
        Self::augment_subcommands(command)
    }

    fn has_subcommand(name: &str) -> bool {
        tree::is_first_word(name)
    }
}

/// Does what was asked for.
pub(super) fn run(asked: &Asked, config: &Path) -> Result<(), Failure> {
    let Some((group, row, matches)) = tree::find(&asked.word, &asked.matches) else {
        return Err(Failure::Input(format!("{} is no command", asked.word)));
    };
    if row.how == How::Special(Special::HelpAction) {
        return Ok(show::print(special::ACTION)?);
    }
    // Whoever signs for a token shows nothing else.
    let open = ["key", "jwt"].iter().any(|name| request::given(matches, name).is_some());
    let settings = settings::read(matches, config, open && row.how == How::Special(Special::Token))?;
    let endpoint = settings.endpoint.clone();
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let done = runtime.block_on(async {
        let session = Session::new(settings)?;
        act::act(&session, group, row, matches).await
    });
    match done {
        Err(Fault::Failure(failure @ Failure::Input(_))) => Err(failure),
        Err(fault) => {
            if let Some(words) = fault.told(&endpoint) {
                output::to_stderr(format_args!("{words}"));
            }
            Err(Failure::Told)
        }
        Ok(()) => Ok(()),
    }
}

#[cfg(test)]
mod tests;
