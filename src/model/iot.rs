//! Device registries, devices and IoT brokers, and how their topics are named.

use super::certificate::Certificate;
use super::id::Id;
use super::secret::Password;

/// A registry of devices, served by the embedded MQTT server or living on an external broker.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DeviceRegistry {
    /// Also the registry's MQTT user name.
    pub id: Id,
    /// Each of them is the registry's own login; without any the registry cannot log in.
    pub passwords: Vec<Password>,
    /// The same of certificates.
    pub certificates: Vec<Certificate>,
    /// The devices; their ids are unique over all registries.
    pub devices: Vec<Device>,
    /// Where the device topics are read instead of the embedded server.
    pub external: Option<ExternalBroker>,
}

/// A device.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Device {
    /// Also the device's MQTT user name.
    pub id: Id,
    /// Each of them lets the device log in; without any it cannot.
    pub passwords: Vec<Password>,
    /// The same of certificates.
    pub certificates: Vec<Certificate>,
    /// Other names for the device's topics.
    pub aliases: Vec<Alias>,
}

/// `name/…` stands for `target/…`; both without a trailing slash.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Alias {
    /// Such as `hall/press-1`.
    pub name: String,
    /// Such as `$devices/press-1`, always this device.
    pub target: String,
}

impl Alias {
    /// The standard topic that `topic` stands for, if it lies under this alias.
    pub fn resolve(&self, topic: &str) -> Option<String> {
        let rest = topic.strip_prefix(self.name.as_str())?;
        (rest.is_empty() || rest.starts_with('/')).then(|| format!("{}{rest}", self.target))
    }
}

/// An IoT broker: any topic that does not start with `$`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Broker {
    /// The resource's id; on the embedded server also its MQTT user name.
    pub id: Id,
    /// Each is a login on the embedded server; unused when `external` is set.
    pub passwords: Vec<Password>,
    /// The same of certificates.
    pub certificates: Vec<Certificate>,
    /// The real broker; without it the embedded server keeps the topics of this broker apart.
    pub external: Option<ExternalBroker>,
}

/// An MQTT broker outside this process.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ExternalBroker {
    /// Host name or address.
    pub host: String,
    /// TCP port.
    pub port: u16,
    /// Login, if the broker wants one.
    pub credentials: Option<Credentials>,
}

/// A user name and a password that we send.
#[derive(Clone, PartialEq, Eq)]
pub struct Credentials {
    /// The MQTT user name.
    pub username: String,
    /// The MQTT password.
    pub password: String,
}

impl std::fmt::Debug for Credentials {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Credentials").field("username", &self.username).finish_non_exhaustive()
    }
}

/// What stands behind the id in a standard topic.
pub const KINDS: [&str; 4] = ["events", "state", "commands", "config"];

/// Whether what follows the id in a standard topic is one of [`KINDS`], or below it.
pub fn is_standard(rest: &str) -> bool {
    rest.split('/').next().is_some_and(|kind| KINDS.contains(&kind))
}

/// Splits `$devices/{id}/{rest}` into the id and the rest; `None` for any other topic.
pub fn device_of_topic(topic: &str) -> Option<(&str, &str)> {
    topic.strip_prefix("$devices/")?.split_once('/').filter(|(id, _)| !id.is_empty())
}

/// Splits `$registries/{id}/{rest}` into the id and the rest; `None` for any other topic.
pub fn registry_of_topic(topic: &str) -> Option<(&str, &str)> {
    topic.strip_prefix("$registries/")?.split_once('/')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_alias_resolves_whole_levels_only() {
        let alias = Alias { name: "hall/press".into(), target: "$devices/press-1".into() };
        assert_eq!(alias.resolve("hall/press/events/t").as_deref(), Some("$devices/press-1/events/t"));
        assert_eq!(alias.resolve("hall/press").as_deref(), Some("$devices/press-1"));
        assert_eq!(alias.resolve("hall/press-2/events"), None);
        assert_eq!(alias.resolve("hall"), None);
    }

    #[test]
    fn ids_are_read_from_standard_topics() {
        assert_eq!(device_of_topic("$devices/a/events/x"), Some(("a", "events/x")));
        assert_eq!(device_of_topic("$devices/a"), None);
        assert_eq!(device_of_topic("$devices//events"), None);
        assert_eq!(registry_of_topic("$registries/r/commands"), Some(("r", "commands")));
        assert!(is_standard("events") && is_standard("state/x") && !is_standard("json") && !is_standard(""));
    }
}
