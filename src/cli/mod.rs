//! The command line: arguments, and the commands that are not the server. Called by `main`.
//!
//! Exit codes: 0 done, 2 bad configuration or arguments, 1 anything else.

mod check;
mod interrupt;
mod journal;
mod listen;
mod output;
mod remote;
mod render;
mod simulate;

use std::io::Write;
use std::path::PathBuf;
use std::process::ExitCode;

use clap::builder::{PossibleValuesParser, TypedValueParser};
use clap::{CommandFactory, Parser, Subcommand};

use crate::config::{self, ConfigErrors, Settings};
use crate::telemetry::{self, LogFormat};

const EXAMPLES: &str = "\
Examples:
  triggercast                                     serve ./config.yaml
  triggercast --config /etc/triggercast.yaml      serve another file
  triggercast check                               is ./config.yaml right, and what would it start?
  triggercast simulate                            be the devices of ./config.yaml
  triggercast listen ws://127.0.0.1:8080/main/ws  see what they send
  triggercast journal cat /main/ws --since 1h     see what they sent
  triggercast trigger list                        which triggers does the running server have?

Exit codes: 0 done, 2 bad configuration or arguments, 1 anything else.";

/// Event routing in one binary: MQTT in, batches out to WebSockets.
#[derive(Debug, Parser)]
#[command(name = "triggercast", version, after_help = EXAMPLES)]
pub struct Args {
    /// The configuration file.
    #[arg(long, global = true, value_name = "FILE", default_value = "config.yaml")]
    pub config: PathBuf,
    /// How log lines look; stronger than `log.format` of the configuration.
    #[arg(long, global = true, value_name = "FORMAT", value_parser = log_format())]
    pub log_format: Option<LogFormat>,
    /// What to do; without it, `serve`.
    #[command(subcommand)]
    pub command: Option<Command>,
}

/// What to do.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Serve the configuration, until SIGTERM or Ctrl-C.
    Serve,
    /// Check a configuration and tell what it would start.
    #[command(after_help = check::EXAMPLES)]
    Check {
        /// The file; stronger than --config.
        file: Option<PathBuf>,
    },
    /// Be the devices of the configuration: publish believable sensor readings.
    Simulate(simulate::Args),
    /// Be a WebSocket client: print every batch as one line.
    Listen(listen::Args),
    /// Look into the journal: what was broadcast and is kept. Also while a server writes to it.
    #[command(after_help = journal::EXAMPLES)]
    Journal(journal::Args),
    /// Print what a shell needs to complete commands: bash, zsh, fish.
    Completion {
        /// The shell.
        shell: clap_complete::Shell,
    },
    /// Anything that a server is asked for over the management API.
    #[command(flatten)]
    Remote(remote::Asked),
}

fn log_format() -> impl TypedValueParser<Value = LogFormat> {
    PossibleValuesParser::new(["text", "json"]).map(|word| match word.as_str() {
        "json" => LogFormat::Json,
        _ => LogFormat::Text,
    })
}

/// Why a command failed, by exit code.
#[derive(Debug)]
enum Failure {
    /// The configuration or the arguments are wrong: 2. Printed as it is, perhaps over several lines.
    Input(String),
    /// Anything else: 1.
    Other(anyhow::Error),
    /// The same, but it has been printed already: 1.
    Told,
}

impl From<ConfigErrors> for Failure {
    fn from(errors: ConfigErrors) -> Self {
        Self::Input(errors.to_string())
    }
}

impl<E: Into<anyhow::Error>> From<E> for Failure
where
    E: NotConfig,
{
    fn from(error: E) -> Self {
        Self::Other(error.into())
    }
}

/// Errors that are no fault of the configuration.
trait NotConfig {}
impl NotConfig for anyhow::Error {}
impl NotConfig for std::io::Error {}

/// Does what the arguments say. `serve` runs the server until its end; logging is started before it.
pub fn dispatch(args: Args, serve: impl FnOnce(Settings) -> anyhow::Result<()>) -> ExitCode {
    let done = match args.command {
        None | Some(Command::Serve) => self::serve(&args.config, args.log_format, serve),
        Some(Command::Check { file }) => check::run(&file.unwrap_or(args.config)),
        Some(Command::Simulate(simulate)) => simulate::run(&simulate, &args.config),
        Some(Command::Listen(listen)) => listen::run(listen, &args.config),
        Some(Command::Journal(journal)) => journal::run(journal, &args.config),
        Some(Command::Completion { shell }) => completion(shell),
        Some(Command::Remote(asked)) => remote::run(&asked, &args.config),
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(Failure::Input(message)) => {
            output::to_stderr(format_args!("{message}"));
            ExitCode::from(2)
        }
        Err(Failure::Other(error)) => {
            output::to_stderr(format_args!("triggercast: {error:#}"));
            ExitCode::FAILURE
        }
        Err(Failure::Told) => ExitCode::FAILURE,
    }
}

fn serve(
    config: &std::path::Path,
    log_format: Option<LogFormat>,
    serve: impl FnOnce(Settings) -> anyhow::Result<()>,
) -> Result<(), Failure> {
    let mut settings = config::load(config)?;
    settings.log.format = log_format.unwrap_or(settings.log.format);
    telemetry::start_logging(settings.log.format, settings.log.trace.clone());
    Ok(serve(settings)?)
}

fn completion(shell: clap_complete::Shell) -> Result<(), Failure> {
    let mut script = Vec::new();
    clap_complete::generate(shell, &mut Args::command(), "triggercast", &mut script);
    Ok(output::closed_is_done(std::io::stdout().lock().write_all(&script))?)
}
