//! The configuration file: YAML in, [`Settings`] out, or every fault at once. Called by `cli`.
//!
//! `tree` reads the YAML with its places, `env` fills in variables, and one file for each section takes the
//! values out with the cursors of `fields`. Nothing is started and nothing is written here; the only files read
//! are the configuration and the secrets that it names.
//!
//! Choices that the format leaves open:
//! - Paths in the file are relative to the file's own folder.
//! - A section that is left out acts with its defaults, except `mqtt`: without that key there is no embedded MQTT
//!   server. Registries and brokers without a `url` may then be declared, but no trigger may read them.
//! - Only passwords and tokens that stand in the file in plain text are demo passwords. Those of a `password_file` or a
//!   `${VARIABLE}` are not, and argon2 hashes are not.
//! - Messages show values as they are written, variables unfilled, and never a secret.

mod accounts;
mod actions;
mod aliases;
mod authorizer;
mod batch;
mod container_registries;
mod env;
mod error;
mod fields;
mod gateways;
mod iot;
mod limits;
pub mod openapi;
mod scalar;
mod secret;
mod server;
mod settings;
mod sources;
mod suggest;
mod topics;
mod tree;
mod triggers;
mod unique;

/// Rules that what is declared by calls has to follow too.
pub mod rules {
    pub use super::aliases::{MOST as MAX_ALIASES, check_name as check_alias, is_own_topic};
    pub use super::sources::{check_image_name, check_tag};
    pub use super::topics::{check_broker_filter, check_registry_filter};
}

use std::path::Path;

pub use error::{ConfigError, ConfigErrors, Place};
pub use iot::mqtt_address;
pub use settings::{
    GatewaySettings, LogSettings, ManagementSettings, MqttSettings, ServiceAccount, Settings, Tls,
};

use crate::model::Resources;
use crate::model::container::ContainerRegistry;
use crate::model::gateway::Gateway;
use crate::model::iot::{Broker, DeviceRegistry};
use fields::{Reading, Value};

/// Reads and checks a file, with the variables of this process.
pub fn load(path: &Path) -> Result<Settings, ConfigErrors> {
    let text = read_file(path).map_err(|message| ConfigErrors::of_file(path, None, message))?;
    parse(&text, path, &|name| std::env::var(name).ok())
}

/// Reads and checks a text. `file_name` is for messages, and its folder for the files that the text names.
pub fn parse(
    text: &str,
    file_name: &Path,
    env: &dyn Fn(&str) -> Option<String>,
) -> Result<Settings, ConfigErrors> {
    let mut tree =
        tree::read(text).map_err(|(place, message)| ConfigErrors::of_file(file_name, place, message))?;
    let mut reading = Reading::of(file_name);
    env::expand(&mut tree, "", env, &mut reading);
    let settings = read(&Value::root(&tree), &mut reading);
    if reading.faults.is_empty() { Ok(settings) } else { Err(ConfigErrors::new(reading.faults)) }
}

/// What triggers refer to.
struct Known<'a> {
    embedded_mqtt: bool,
    device_registries: &'a [DeviceRegistry],
    brokers: &'a [Broker],
    gateways: &'a [Gateway],
    service_accounts: &'a [ServiceAccount],
    container_registries: &'a [ContainerRegistry],
}

fn read(root: &Value<'_>, reading: &mut Reading) -> Settings {
    let mut fields = root.fields(reading);
    let server = server::read(&mut fields, reading);
    let service_accounts = accounts::service_accounts(&mut fields, reading);
    let mqtt_websocket = server.mqtt.as_ref().is_some_and(|mqtt| mqtt.websocket);
    let gateways = gateways::read(&mut fields, mqtt_websocket, reading);
    let (device_registries, brokers) = iot::read(&mut fields, reading);
    let container_registries = container_registries::read(&mut fields, reading);
    let known = Known {
        embedded_mqtt: server.mqtt.is_some(),
        device_registries: &device_registries,
        brokers: &brokers,
        gateways: &gateways,
        service_accounts: &service_accounts,
        container_registries: &container_registries,
    };
    let triggers = triggers::read(&mut fields, &known, reading);
    server::check_demo_passwords(&server, reading);
    fields.finish(reading);
    Settings {
        data_dir: server.data_dir,
        node: server.node,
        gateway: server.gateway,
        management: server.management,
        mqtt: server.mqtt,
        log: server.log,
        resources: Resources { gateways, device_registries, brokers, container_registries, triggers },
        service_accounts,
    }
}

fn read_file(path: &Path) -> Result<String, String> {
    use std::io::Read;
    let mut bytes = Vec::new();
    std::fs::File::open(path)
        .and_then(|file| file.take(tree::MAX_FILE_BYTES as u64 + 1).read_to_end(&mut bytes))
        .map_err(|error| format!("the file cannot be read: {error}"))?;
    String::from_utf8(bytes).map_err(|_| "the file is not UTF-8 text".to_owned())
}

#[cfg(test)]
mod tests;
