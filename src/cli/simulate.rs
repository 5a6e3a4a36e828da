//! `triggercast simulate`: real MQTT devices that publish believable sensor readings.
//!
//! Each device has one connection and two tasks: one polls the client (`device`), one makes the readings at the
//! wanted pace (`pace`). They share the [`Run`]: how many messages are still wanted, and how many went out.

mod device;
mod pace;
mod sensor;

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use anyhow::anyhow;
use rumqttc::QoS;
use tokio::sync::watch;
use tokio::task::JoinSet;

use super::{Failure, interrupt, output};
use crate::config::{self, Settings};
use crate::model::secret::Password;

const EXAMPLES: &str = "\
Examples:
  triggercast simulate                              2 readings a second, until Ctrl-C
  triggercast simulate --rate 1000 --count 60000    a minute of load
  triggercast simulate --rate 0 --devices press-1   as fast as the server acknowledges
  triggercast simulate --url mqtt://192.0.2.7:1883  devices of ./config.yaml, server elsewhere

Devices publish JSON to $devices/{id}/events. Those with a password in the configuration take part; a password of
which the configuration knows only the argon2 hash cannot be used.";

/// How the devices behave.
#[derive(Debug, clap::Args)]
#[command(after_help = EXAMPLES)]
pub struct Args {
    /// The MQTT server, mqtt://HOST[:PORT]; without it, the `mqtt.listen` of the configuration.
    #[arg(long, value_name = "URL")]
    url: Option<String>,
    /// Readings a second over all devices; 0 is as fast as they are acknowledged.
    #[arg(long, value_name = "N", default_value_t = 2)]
    rate: u64,
    /// Readings in all; without it, endless.
    #[arg(long, value_name = "N")]
    count: Option<u64>,
    /// Only these devices, with commas between.
    #[arg(long, value_name = "IDS", value_delimiter = ',')]
    devices: Vec<String>,
    /// MQTT's quality of service: 1 waits for acknowledgements, 0 does not.
    #[arg(long, value_name = "QOS", default_value_t = 1, value_parser = clap::value_parser!(u8).range(0..=1))]
    qos: u8,
    /// Seconds without a connection before giving up.
    #[arg(long, value_name = "SECONDS", default_value_t = 30)]
    timeout: u64,
}

/// What the tasks of all devices share.
struct Run {
    /// In brackets when it is an IPv6 address, as the client wants it.
    host: String,
    port: u16,
    qos: QoS,
    /// Readings a second of one device; `None` is as fast as they are acknowledged.
    rate: Option<f64>,
    timeout: Duration,
    /// Readings that nobody has taken on yet.
    wanted: AtomicU64,
    published: AtomicU64,
    acknowledged: AtomicU64,
    /// Turns true at Ctrl-C: no new readings.
    stop: watch::Receiver<bool>,
}

impl Run {
    /// Takes on one reading; `false` when all are taken.
    fn take_one(&self) -> bool {
        let less = |left: u64| left.checked_sub(1);
        self.wanted.fetch_update(Ordering::Relaxed, Ordering::Relaxed, less).is_ok()
    }
}

/// A device's login.
struct Login {
    id: String,
    password: String,
}

/// Runs the devices to the end.
pub(super) fn run(args: &Args, config: &Path) -> Result<(), Failure> {
    let settings = config::load(config)?;
    let logins = logins(&settings, &args.devices, args.url.is_some())?;
    let (host, port) = address(args.url.as_deref(), &settings)?;
    let devices = logins.len();
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
    let stop = runtime.block_on(async { interrupt::watched() })?;
    let run = Arc::new(Run {
        host: if host.contains(':') { format!("[{host}]") } else { host },
        port,
        qos: if args.qos == 0 { QoS::AtMostOnce } else { QoS::AtLeastOnce },
        #[expect(clippy::cast_precision_loss, reason = "a rate needs no 16 digits")]
        rate: (args.rate > 0).then(|| args.rate as f64 / devices as f64),
        timeout: Duration::from_secs(args.timeout),
        wanted: AtomicU64::new(args.count.unwrap_or(u64::MAX)),
        published: AtomicU64::new(0),
        acknowledged: AtomicU64::new(0),
        stop,
    });
    Ok(runtime.block_on(simulate(&run, logins))?)
}

async fn simulate(run: &Arc<Run>, logins: Vec<Login>) -> anyhow::Result<()> {
    let started = Instant::now();
    let mut devices = JoinSet::new();
    let count = logins.len();
    for (index, login) in logins.into_iter().enumerate() {
        devices.spawn(device::run(Arc::clone(run), login, index, count));
    }
    let mut tick = tokio::time::interval(Duration::from_secs(1));
    tick.tick().await;
    let mut shown = 0;
    let done = loop {
        tokio::select! {
            done = devices.join_next() => match done {
                Some(Ok(Ok(()))) => {}
                Some(Ok(Err(error))) => break Err(error),
                Some(Err(panic)) => break Err(anyhow!("a device ended badly: {panic}")),
                None => break Ok(()),
            },
            _ = tick.tick() => {
                let acknowledged = run.acknowledged.load(Ordering::Relaxed);
                progress(run, format_args!("{}/s", acknowledged - shown));
                shown = acknowledged;
            }
        }
    };
    devices.shutdown().await;
    let elapsed = started.elapsed().as_secs_f64();
    #[expect(clippy::cast_precision_loss, reason = "a rate needs no 16 digits")]
    let rate = run.acknowledged.load(Ordering::Relaxed) as f64 / elapsed.max(0.001);
    progress(run, format_args!("{rate:.1}/s over {elapsed:.1} s"));
    done
}

fn progress(run: &Run, rate: std::fmt::Arguments<'_>) {
    let published = run.published.load(Ordering::Relaxed);
    let acknowledged = run.acknowledged.load(Ordering::Relaxed);
    output::to_stderr(format_args!("published {published}, acknowledged {acknowledged}, {rate}"));
}

/// The devices that take part: those asked for, or all whose password is known.
/// The devices to be. Those of a registry on an external broker are known there, not to the server: they are
/// meant only with `elsewhere`, which is `--url`.
fn logins(settings: &Settings, wanted: &[String], elsewhere: bool) -> Result<Vec<Login>, Failure> {
    let registries = &settings.resources.device_registries;
    let (here, there): (Vec<_>, Vec<_>) =
        registries.iter().partition(|registry| elsewhere || registry.external.is_none());
    let devices: Vec<_> = here.iter().flat_map(|registry| &registry.devices).collect();
    for id in wanted {
        if there.iter().flat_map(|registry| &registry.devices).any(|device| *device.id == **id) {
            let message = format!(
                "--devices: \"{id}\" is of a registry on an external broker; give that one with --url"
            );
            return Err(Failure::Input(message));
        }
        match devices.iter().find(|device| *device.id == **id) {
            Some(device) if matches!(device.passwords[..], [Password::Plain(_), ..]) => {}
            Some(_) => {
                let message = format!("--devices: the configuration does not know the password of \"{id}\"");
                return Err(Failure::Input(message));
            }
            None => {
                let known = devices.iter().map(|device| format!("\"{}\"", device.id)).collect::<Vec<_>>();
                let known = if known.is_empty() { "none".to_owned() } else { known.join(", ") };
                let message =
                    format!("--devices: \"{id}\" is not a device of the configuration; known: {known}");
                return Err(Failure::Input(message));
            }
        }
    }
    let logins: Vec<Login> = devices
        .into_iter()
        .filter(|device| wanted.is_empty() || wanted.iter().any(|id| **id == *device.id))
        .filter_map(|device| match device.passwords.first() {
            Some(Password::Plain(password)) => {
                Some(Login { id: device.id.to_string(), password: password.clone() })
            }
            _ => None,
        })
        .collect();
    if logins.is_empty() {
        return Err(Failure::Input("the configuration has no device whose password is known".into()));
    }
    Ok(logins)
}

fn address(url: Option<&str>, settings: &Settings) -> Result<(String, u16), Failure> {
    let Some(url) = url else {
        let Some(mqtt) = &settings.mqtt else {
            let message =
                "the configuration has no `mqtt` section; name the server with --url mqtt://HOST[:PORT]";
            return Err(Failure::Input(message.into()));
        };
        let ip = match mqtt.listen.ip() {
            std::net::IpAddr::V4(ip) if ip.is_unspecified() => "127.0.0.1".to_owned(),
            std::net::IpAddr::V6(ip) if ip.is_unspecified() => "::1".to_owned(),
            ip => ip.to_string(),
        };
        return Ok((ip, mqtt.listen.port()));
    };
    config::mqtt_address(url).map_err(|fault| Failure::Input(format!("--url: {fault}")))
}
