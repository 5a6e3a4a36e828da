//! Where the server is and who asks: from flags, the environment, or the files of the server on this machine.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::path::{Path, PathBuf};

use clap::parser::ValueSource;
use clap::{Arg, ArgAction, ArgMatches, Command, value_parser};

use super::request::given;
use super::tree::shown;
use crate::cli::Failure;
use crate::config;

const HEADING: &str = "Global options";
const CA_FILE: &str = "tls/ca.pem";
const KEY_FILE: &str = "admin.key";

/// Flags with a value: name, what it is called, variable, default, help.
const VALUES: [(&str, &str, &str, &str, &str); 8] = [
    (
        "endpoint",
        "HOST:PORT",
        "TRIGGERCAST_ENDPOINT",
        "",
        "The server; http://HOST:PORT for one without TLS.",
    ),
    ("token", "TOKEN", "TRIGGERCAST_TOKEN", "", "An IAM token to show."),
    ("api-key", "KEY", "TRIGGERCAST_API_KEY", "", "An API key to show."),
    ("ca-file", "FILE", "TRIGGERCAST_CA_FILE", "", "Certificates in PEM form that the server is known by."),
    ("folder-id", "ID", "TRIGGERCAST_FOLDER_ID", "", "The folder; without it, `default`."),
    ("folder-name", "NAME", "TRIGGERCAST_FOLDER_NAME", "", "The folder by name."),
    ("cloud-id", "ID", "TRIGGERCAST_CLOUD_ID", "triggercast", "The cloud that holds the folders."),
    ("format", "FORMAT", "TRIGGERCAST_FORMAT", "text", "How answers are shown."),
];
const SWITCHES: [(&str, &str); 3] = [
    ("async", "Do not wait for a change: print its operation."),
    ("debug", "Tell every call on stderr."),
    ("no-user-output", "No progress on stderr."),
];
/// Formats of answers.
pub(super) const FORMATS: [&str; 5] = ["text", "yaml", "json", "json-rest", "table"];

/// The flags that all commands of the management API have.
pub(super) fn add_flags(mut command: Command) -> Command {
    for (name, value, variable, default, help) in VALUES {
        let mut arg = Arg::new(name).long(name).value_name(value).help(shown(help)).env(variable);
        if name == "format" {
            arg = arg.value_parser(FORMATS);
        }
        if !default.is_empty() {
            arg = arg.default_value(default);
        }
        command = command.arg(arg.hide_env_values(true).global(true).help_heading(HEADING));
    }
    for (name, help) in SWITCHES {
        let arg = Arg::new(name).long(name).help(shown(help)).action(ArgAction::SetTrue);
        command = command.arg(arg.global(true).help_heading(HEADING));
    }
    let retry = Arg::new("retry")
        .long("retry")
        .value_name("N")
        .help(
            "How often to try again when the server is not there or busy, at most 2 minutes; -1 is endless.",
        )
        .env("TRIGGERCAST_RETRY")
        .hide_env_values(true)
        .default_value("5")
        .allow_negative_numbers(true)
        .value_parser(value_parser!(i64));
    command.arg(retry.global(true).help_heading(HEADING))
}

/// Whether one of them is called so.
pub(super) fn is_flag(name: &str) -> bool {
    VALUES.iter().any(|(known, ..)| *known == name)
}

/// What was given or found.
pub(super) struct Settings {
    /// With its scheme.
    pub(super) endpoint: String,
    /// Certificates to trust; none without TLS.
    pub(super) ca: Option<Vec<u8>>,
    /// The value of `authorization`.
    pub(super) authorization: Option<String>,
    pub(super) folder_id: Option<String>,
    pub(super) folder_name: Option<String>,
    pub(super) cloud_id: String,
    pub(super) format: String,
    pub(super) retry: i64,
    pub(super) is_async: bool,
    pub(super) debug: bool,
    pub(super) quiet: bool,
}

/// Reads the flags, and the configuration if something is not among them. `open` calls need no credentials.
pub(super) fn read(matches: &ArgMatches, config: &Path, open: bool) -> Result<Settings, Failure> {
    let text =
        |name: &str| given(matches, name).map(|values| values.concat()).filter(|text| !text.is_empty());
    let local = Local { config, loaded: std::cell::OnceCell::new() };
    let given = text("endpoint");
    // A key of this machine's server is shown to this machine's server only.
    let is_local = given.is_none();
    let endpoint = match given {
        Some(endpoint) => endpoint,
        None => local.endpoint()?,
    };
    let (is_plain, endpoint) = match endpoint.split_once("://") {
        Some(("http", _)) => (true, endpoint),
        Some(("https", _)) => (false, endpoint),
        Some(_) => return Err(Failure::Input(format!("--endpoint: {endpoint:?} is not HOST:PORT"))),
        None => (false, format!("https://{endpoint}")),
    };
    let ca = match text("ca-file") {
        _ if is_plain => None,
        Some(file) => Some(read_file(Path::new(&file), "--ca-file")?),
        None => Some(local.file(CA_FILE, "the server's certificate", "--ca-file FILE")?),
    };
    let authorization = match credentials(matches, &text) {
        Some(shown) => Some(shown),
        None if open => None,
        None if !is_local => {
            let message = "--endpoint needs --api-key KEY or --token TOKEN with it";
            return Err(Failure::Input(message.to_owned()));
        }
        None => {
            let key = local.file(KEY_FILE, "the administrator's key", "--api-key KEY or --token TOKEN")?;
            Some(format!("Api-Key {}", String::from_utf8_lossy(&key).trim()))
        }
    };
    let on_line = |name: &str| matches.value_source(name) == Some(ValueSource::CommandLine);
    let folder_id = text("folder-id").filter(|_| !on_line("folder-name") || on_line("folder-id"));
    Ok(Settings {
        endpoint,
        ca,
        authorization,
        folder_name: text("folder-name").filter(|_| folder_id.is_none()),
        folder_id,
        cloud_id: text("cloud-id").unwrap_or_default(),
        format: text("format").unwrap_or_default(),
        retry: matches.get_one("retry").copied().unwrap_or_default(),
        is_async: matches.get_flag("async"),
        debug: matches.get_flag("debug"),
        quiet: matches.get_flag("no-user-output"),
    })
}

/// A token or a key; what stands on the command line is stronger than a variable.
fn credentials(matches: &ArgMatches, text: &dyn Fn(&str) -> Option<String>) -> Option<String> {
    let mut kinds = [("token", "Bearer"), ("api-key", "Api-Key")];
    kinds.sort_by_key(|(name, _)| matches.value_source(name) != Some(ValueSource::CommandLine));
    kinds.iter().find_map(|(name, scheme)| Some(format!("{scheme} {}", text(name)?.trim())))
}

fn read_file(path: &Path, what: &str) -> Result<Vec<u8>, Failure> {
    let wrong = |error| Failure::Input(format!("{what}: {} cannot be read: {error}", path.display()));
    std::fs::read(path).map_err(wrong)
}

/// What the configuration of the server on this machine says.
struct Local<'a> {
    config: &'a Path,
    loaded: std::cell::OnceCell<(SocketAddr, PathBuf)>,
}

impl Local<'_> {
    fn load(&self, wanted: &str, instead: &str) -> Result<&(SocketAddr, PathBuf), Failure> {
        if let Some(loaded) = self.loaded.get() {
            return Ok(loaded);
        }
        let settings = config::load(self.config).map_err(|errors| {
            Failure::Input(format!(
                "{wanted} was looked for by the configuration, which cannot be used: {errors}\n\
                 Give {instead}, or --config FILE"
            ))
        })?;
        Ok(self.loaded.get_or_init(|| (settings.management.grpc_listen, settings.data_dir)))
    }

    fn endpoint(&self) -> Result<String, Failure> {
        let instead = "--endpoint HOST:PORT";
        let (listen, _) = self.load("the address of the server", instead)?;
        if listen.port() == 0 {
            return Err(Failure::Input(format!(
                "{}: management.grpc_listen takes any free port, so nobody knows which; give {instead}",
                self.config.display()
            )));
        }
        let ip = match listen.ip() {
            IpAddr::V4(ip) if ip.is_unspecified() => IpAddr::V4(Ipv4Addr::LOCALHOST),
            IpAddr::V6(ip) if ip.is_unspecified() => IpAddr::V6(Ipv6Addr::LOCALHOST),
            ip => ip,
        };
        Ok(SocketAddr::new(ip, listen.port()).to_string())
    }

    /// A file of the server's data.
    fn file(&self, name: &str, what: &str, instead: &str) -> Result<Vec<u8>, Failure> {
        let (_, data_dir) = self.load(what, instead)?;
        let path = data_dir.join(name);
        std::fs::read(&path).map_err(|error| {
            Failure::Input(format!(
                "{what} was looked for in {}: {error}\n\
                 The server writes it at its first start: start it, or give {instead}",
                path.display()
            ))
        })
    }
}
