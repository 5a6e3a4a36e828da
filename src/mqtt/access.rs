//! Who may publish and read what, and what a topic is really called: pure rules, asked by [`super::space`].
//!
//! Inside, every topic of a device registry has one canonical name, `$devices/<id>/<kind>[/…]` or
//! `$registries/<id>/<kind>[/…]`, where kind is one of events, state, commands, config. Aliases and
//! `$me/…` are other names for the same topics; they are rewritten on the way in and back on the way out.

use std::collections::HashMap;

use crate::model::id::Id;
use crate::model::iot::{Alias, DeviceRegistry};
use crate::model::topic;
use crate::model::trigger::MqttTopics;

/// Longest topic or filter.
pub(crate) const MAX_TOPIC: usize = 1024;

/// Who a connection is; a login's result.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Identity {
    /// A device of the space's registry.
    Device(Id),
    /// The registry itself.
    Registry,
    /// The broker itself.
    Broker,
}

/// The topics of one space.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Topics {
    /// Those of a device registry and its devices.
    Registry(RegistryTopics),
    /// Any that does not start with `$`.
    Broker,
}

/// What the rules must know about a registry.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct RegistryTopics {
    id: Id,
    /// Each device with its aliases.
    devices: HashMap<Id, Vec<Alias>>,
}

/// The last level of the fixed part of a registry topic.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    Events,
    State,
    Commands,
    Config,
}

/// Whose topic it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Owner<'a> {
    Device(&'a str),
    Registry(&'a str),
}

/// Why a subscription is refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Refusal {
    /// The filter is malformed, or not one of the forms the space knows.
    Invalid,
    /// The user may not read what the filter asks for.
    Denied,
    /// `$share/…`.
    Shared,
}

/// A topic as the engine and the routes know it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Canonical {
    /// The canonical name.
    pub(crate) topic: String,
    /// The device an event of this topic is of.
    pub(crate) device_id: Option<Id>,
    /// Its last message is kept for later subscribers.
    pub(crate) permanent: bool,
}

/// How a granted subscription is kept.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Plan {
    /// The filter to match with.
    pub(crate) filter: String,
    /// What it is matched against, and the name that deliveries carry.
    pub(crate) names: Names,
    /// The one canonical topic it means, if it holds no wildcard.
    pub(crate) exact: Option<String>,
}

/// Under which names a subscription sees topics.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Names {
    /// Canonical names.
    Canonical,
    /// Aliases: the filter is matched against alias names, deliveries carry them.
    Alias,
    /// `$me/…`: canonical names, delivered with the first `prefix` bytes replaced by `me`.
    Me {
        /// Length of what is replaced.
        prefix: usize,
        /// What stands there instead.
        me: &'static str,
    },
}

impl Kind {
    fn parse(level: &str) -> Option<Self> {
        Some(match level {
            "events" => Self::Events,
            "state" => Self::State,
            "commands" => Self::Commands,
            "config" => Self::Config,
            _ => return None,
        })
    }

    /// Devices write events and state; registries write commands and config.
    fn is_upward(self) -> bool {
        matches!(self, Self::Events | Self::State)
    }

    fn is_permanent(self) -> bool {
        matches!(self, Self::State | Self::Config)
    }
}

/// Splits a canonical topic into its owner and kind.
fn parse(topic: &str) -> Option<(Owner<'_>, Kind)> {
    let mut levels = topic.splitn(4, '/');
    let owner: fn(_) -> _ = match levels.next()? {
        "$devices" => Owner::Device,
        "$registries" => Owner::Registry,
        _ => return None,
    };
    Some((owner(levels.next()?), Kind::parse(levels.next()?)?))
}

impl Topics {
    /// The topics of a registry.
    pub(crate) fn of_registry(registry: &DeviceRegistry) -> Self {
        let devices = registry.devices.iter();
        let devices = devices.map(|device| (device.id.clone(), device.aliases.clone())).collect();
        Self::Registry(RegistryTopics { id: registry.id.clone(), devices })
    }

    /// Whether this is a device of the registry.
    pub(crate) fn has_device(&self, id: &Id) -> bool {
        matches!(self, Self::Registry(registry) if registry.devices.contains_key(id))
    }

    /// The canonical form of the valid topic name `topic` if `who` may publish to it.
    pub(crate) fn publish(&self, who: &Identity, topic: &str) -> Option<Canonical> {
        match (self, who) {
            (Self::Registry(registry), _) => registry.publish(who, topic),
            (Self::Broker, Identity::Broker) if !topic.starts_with('$') => {
                Some(Canonical { topic: topic.into(), device_id: None, permanent: false })
            }
            (Self::Broker, _) => None,
        }
    }

    /// What becomes of the subscription `filter` of `who`.
    pub(crate) fn subscribe(&self, who: &Identity, filter: &str) -> Result<Plan, Refusal> {
        if filter == "$share" || filter.starts_with("$share/") {
            return Err(Refusal::Shared);
        }
        topic::check_filter(filter).map_err(|_| Refusal::Invalid)?;
        if filter.len() > MAX_TOPIC {
            return Err(Refusal::Invalid);
        }
        match self {
            Self::Registry(registry) => registry.subscribe(who, filter),
            Self::Broker if filter.starts_with('$') || *who != Identity::Broker => Err(Refusal::Denied),
            Self::Broker => Ok(Plan { filter: filter.into(), names: Names::Canonical, exact: None }),
        }
    }

    /// Whether `who` may read the canonical `topic`; asked once more for every route.
    pub(crate) fn may_read(&self, who: &Identity, topic: &str) -> bool {
        match self {
            Self::Registry(registry) => parse(topic).is_some_and(|(o, k)| registry.may_read(who, o, k)),
            Self::Broker => *who == Identity::Broker,
        }
    }

    /// The other names of a canonical topic.
    pub(crate) fn aliases_of(&self, canonical: &str) -> Vec<String> {
        let (Self::Registry(registry), Some((Owner::Device(id), _))) = (self, parse(canonical)) else {
            return Vec::new();
        };
        let named = |alias: &Alias| {
            let rest = canonical.strip_prefix(alias.target.as_str())?;
            (rest.is_empty() || rest.starts_with('/')).then(|| format!("{}{rest}", alias.name))
        };
        registry.devices.get(id).into_iter().flatten().filter_map(named).collect()
    }

    /// Whether a trigger with this source wants the canonical `topic`. The source must be of this space.
    pub(crate) fn wants(&self, source: &MqttTopics, canonical: &str) -> bool {
        let (device_id, filter) = match source {
            MqttTopics::IotMessage { device_id, mqtt_topic, .. } => (device_id.as_deref(), mqtt_topic),
            MqttTopics::IotBrokerMessage { mqtt_topic, .. } => (None, mqtt_topic),
        };
        let of_device =
            device_id.is_none_or(|id| matches!(parse(canonical), Some((Owner::Device(of), _)) if of == id));
        of_device
            && filter.as_deref().is_none_or(|filter| match self {
                Self::Registry(_) if !filter.starts_with('$') => {
                    self.aliases_of(canonical).iter().any(|alias| topic::matches(filter, alias))
                }
                _ => topic::matches(filter, canonical),
            })
    }
}

impl RegistryTopics {
    fn publish(&self, who: &Identity, topic: &str) -> Option<Canonical> {
        let topic = match who {
            Identity::Device(id) if topic.starts_with("$me/device/") => {
                format!("$devices/{id}{}", topic.strip_prefix("$me/device")?)
            }
            _ if topic.starts_with('$') => topic.to_owned(),
            _ => self.unalias(who, topic)?,
        };
        let (owner, kind) = parse(&topic)?;
        if !self.may_write(who, owner, kind) {
            return None;
        }
        let device_id = match (who, owner) {
            (Identity::Device(id), _) => Some(id.clone()),
            (_, Owner::Device(id)) => self.devices.get_key_value(id).map(|(id, _)| id.clone()),
            (_, Owner::Registry(_)) => None,
        };
        Some(Canonical { device_id, permanent: kind.is_permanent(), topic })
    }

    /// The canonical name behind an alias; a device knows only its own. Where aliases overlap the longest
    /// counts.
    fn unalias(&self, who: &Identity, topic: &str) -> Option<String> {
        let longest = |aliases: &mut dyn Iterator<Item = &Alias>| {
            let under = aliases.filter_map(|alias| Some((alias.name.len(), alias.resolve(topic)?)));
            under.max_by_key(|(length, _)| *length).map(|(_, canonical)| canonical)
        };
        match who {
            Identity::Device(id) => longest(&mut self.devices.get(id)?.iter()),
            _ => longest(&mut self.devices.values().flatten()),
        }
    }

    fn may_write(&self, who: &Identity, owner: Owner<'_>, kind: Kind) -> bool {
        match (who, owner) {
            (Identity::Device(me), Owner::Device(id)) => **me == *id && kind.is_upward(),
            (Identity::Device(_), Owner::Registry(id)) => *self.id == *id && kind.is_upward(),
            (Identity::Registry, Owner::Device(id)) => self.devices.contains_key(id) && !kind.is_upward(),
            (Identity::Registry, Owner::Registry(id)) => *self.id == *id && !kind.is_upward(),
            (Identity::Broker, _) => false,
        }
    }

    fn may_read(&self, who: &Identity, owner: Owner<'_>, kind: Kind) -> bool {
        match (who, owner) {
            (Identity::Device(me), Owner::Device(id)) => **me == *id && !kind.is_upward(),
            (Identity::Device(_), Owner::Registry(id)) => *self.id == *id && !kind.is_upward(),
            (Identity::Registry, Owner::Device(id)) => self.devices.contains_key(id) && kind.is_upward(),
            (Identity::Registry, Owner::Registry(id)) => *self.id == *id && kind.is_upward(),
            (Identity::Broker, _) => false,
        }
    }

    fn subscribe(&self, who: &Identity, filter: &str) -> Result<Plan, Refusal> {
        let wild = filter.contains(['+', '#']);
        let plan = |filter: String, names| Ok(Plan { exact: (!wild).then(|| filter.clone()), filter, names });
        if let Some(rest) = filter.strip_prefix("$me/") {
            let Identity::Device(id) = who else { return Err(Refusal::Denied) };
            let (me, owner, rest) = match rest.split_once('/') {
                Some(("device", rest)) => ("$me/device", format!("$devices/{id}"), rest),
                Some(("registry", rest)) => ("$me/registry", format!("$registries/{}", self.id), rest),
                // `$me/#` and `$me/+/…` would mean two trees at once.
                _ => return Err(Refusal::Invalid),
            };
            let canonical = format!("{owner}/{rest}");
            self.check_canonical_filter(who, &canonical)?;
            return plan(canonical, Names::Me { prefix: owner.len(), me });
        }
        if filter.starts_with("$devices/") || filter.starts_with("$registries/") {
            self.check_canonical_filter(who, filter)?;
            return plan(filter.to_owned(), Names::Canonical);
        }
        if filter.starts_with('$') {
            return Err(Refusal::Denied);
        }
        if wild {
            return Ok(Plan { filter: filter.to_owned(), names: Names::Alias, exact: None });
        }
        // Without a wildcard it is known now whether the alias exists and may be read.
        let canonical = self.unalias(who, filter).ok_or(Refusal::Denied)?;
        self.check_canonical_filter(who, &canonical)?;
        Ok(Plan { filter: filter.to_owned(), names: Names::Alias, exact: Some(canonical) })
    }

    /// Whether something that matches this `$devices/…` or `$registries/…` filter may be read.
    fn check_canonical_filter(&self, who: &Identity, filter: &str) -> Result<(), Refusal> {
        let mut levels = filter.splitn(4, '/');
        let of_devices = levels.next() == Some("$devices");
        let owner = levels.next().ok_or(Refusal::Invalid)?;
        let kinds: &[Kind] = &[Kind::Events, Kind::State, Kind::Commands, Kind::Config];
        let one;
        let kinds = match (owner, levels.next()) {
            ("#", None) | (_, Some("#" | "+")) => kinds,
            (_, None) => return Err(Refusal::Invalid),
            (_, Some(kind)) => {
                one = [Kind::parse(kind).ok_or(Refusal::Denied)?];
                &one
            }
        };
        // A wildcard stands for what the user could at best see.
        let owner = match (owner, who) {
            ("#" | "+", Identity::Device(me)) if of_devices => Owner::Device(me),
            ("#" | "+", _) if of_devices => match self.devices.keys().next() {
                Some(any) => Owner::Device(any),
                None => return Ok(()),
            },
            ("#" | "+", _) => Owner::Registry(&self.id),
            (id, _) if of_devices => Owner::Device(id),
            (id, _) => Owner::Registry(id),
        };
        let readable = kinds.iter().any(|kind| self.may_read(who, owner, *kind));
        if readable { Ok(()) } else { Err(Refusal::Denied) }
    }
}

impl Names {
    /// The name under which the canonical `topic` is delivered; not asked for aliases.
    pub(crate) fn deliver(&self, topic: &str) -> String {
        match self {
            Self::Canonical | Self::Alias => topic.to_owned(),
            Self::Me { prefix, me } => format!("{me}{}", topic.get(*prefix..).unwrap_or_default()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::iot::Device;

    fn registry() -> Topics {
        let device = |id: &str, aliases: &[(&str, &str)]| Device {
            id: id.into(),
            passwords: vec![],
            certificates: vec![],
            aliases: aliases
                .iter()
                .map(|(name, target)| Alias { name: (*name).into(), target: (*target).into() })
                .collect(),
        };
        Topics::of_registry(&DeviceRegistry {
            id: "r".into(),
            passwords: vec![],
            certificates: vec![],
            devices: vec![
                device("d1", &[("hall/one", "$devices/d1"), ("alarm", "$devices/d1/events/alarm")]),
                device("d2", &[("hall/two", "$devices/d2")]),
            ],
            external: None,
        })
    }

    fn device() -> Identity {
        Identity::Device("d1".into())
    }

    #[test]
    fn publishing_follows_the_table() {
        let topics = registry();
        for (who, topic, expected) in [
            // A device writes its own events and state, and those of its registry.
            (device(), "$devices/d1/events", Some(("$devices/d1/events", "d1", false))),
            (device(), "$devices/d1/events/a/b", Some(("$devices/d1/events/a/b", "d1", false))),
            (device(), "$devices/d1/state", Some(("$devices/d1/state", "d1", true))),
            (device(), "$devices/d1/commands", None),
            (device(), "$devices/d1/config", None),
            (device(), "$registries/r/events", Some(("$registries/r/events", "d1", false))),
            (device(), "$registries/r/state/x", Some(("$registries/r/state/x", "d1", true))),
            (device(), "$registries/r/commands", None),
            (device(), "$registries/r/config", None),
            (device(), "$devices/d2/events", None),
            (device(), "$registries/other/events", None),
            (device(), "$me/device/events", Some(("$devices/d1/events", "d1", false))),
            (device(), "$me/device/state/x", Some(("$devices/d1/state/x", "d1", true))),
            (device(), "$me/device/commands", None),
            (device(), "$me/registry/events", None),
            (device(), "hall/one/events/x", Some(("$devices/d1/events/x", "d1", false))),
            (device(), "alarm/x", Some(("$devices/d1/events/alarm/x", "d1", false))),
            (device(), "hall/one", None),
            (device(), "hall/one/commands", None),
            (device(), "hall/two/events", None),
            (device(), "hall/onex/events", None),
            (device(), "free/topic", None),
            (device(), "$monitoring/d1/json", None),
            (device(), "$SYS/x", None),
            (device(), "$devices/d1", None),
            (device(), "$devices/d1/", None),
            (device(), "$devices/d1/eventsx", None),
            (device(), "$devices//events", None),
            // A registry writes commands and config of its devices and its own.
            (Identity::Registry, "$devices/d2/commands/x", Some(("$devices/d2/commands/x", "d2", false))),
            (Identity::Registry, "$devices/d2/config", Some(("$devices/d2/config", "d2", true))),
            (Identity::Registry, "$devices/d2/events", None),
            (Identity::Registry, "$devices/d2/state", None),
            (Identity::Registry, "$devices/stranger/commands", None),
            (Identity::Registry, "$registries/r/commands", Some(("$registries/r/commands", "", false))),
            (Identity::Registry, "$registries/r/config", Some(("$registries/r/config", "", true))),
            (Identity::Registry, "$registries/r/events", None),
            (Identity::Registry, "$registries/other/commands", None),
            (Identity::Registry, "hall/two/commands", Some(("$devices/d2/commands", "d2", false))),
            (Identity::Registry, "$me/device/commands", None),
            (Identity::Broker, "$devices/d1/events", None),
        ] {
            let expected = expected.map(|(topic, device, permanent): (&str, &str, bool)| Canonical {
                topic: topic.into(),
                device_id: (!device.is_empty()).then(|| device.into()),
                permanent,
            });
            assert_eq!(topics.publish(&who, topic), expected, "{who:?} {topic}");
        }
    }

    #[test]
    fn subscribing_follows_the_table() {
        let topics = registry();
        let names = |plan: &Plan| plan.names.clone();
        for (who, filter, expected) in [
            // A device reads its own commands and config, and those of its registry.
            (device(), "$devices/d1/commands", Ok(Names::Canonical)),
            (device(), "$devices/d1/commands/#", Ok(Names::Canonical)),
            (device(), "$devices/d1/config", Ok(Names::Canonical)),
            (device(), "$devices/d1/+", Ok(Names::Canonical)),
            (device(), "$devices/d1/#", Ok(Names::Canonical)),
            (device(), "$devices/+/commands", Ok(Names::Canonical)),
            (device(), "$devices/#", Ok(Names::Canonical)),
            (device(), "$registries/r/commands", Ok(Names::Canonical)),
            (device(), "$registries/r/config/x", Ok(Names::Canonical)),
            (device(), "$registries/#", Ok(Names::Canonical)),
            (device(), "$devices/d1/events", Err(Refusal::Denied)),
            (device(), "$devices/d1/state", Err(Refusal::Denied)),
            (device(), "$devices/d2/commands", Err(Refusal::Denied)),
            (device(), "$devices/d2/#", Err(Refusal::Denied)),
            (device(), "$devices/+/events", Err(Refusal::Denied)),
            (device(), "$registries/r/events", Err(Refusal::Denied)),
            (device(), "$registries/other/commands", Err(Refusal::Denied)),
            (device(), "$me/device/commands", Ok(Names::Me { prefix: 11, me: "$me/device" })),
            (device(), "$me/device/config/+", Ok(Names::Me { prefix: 11, me: "$me/device" })),
            (device(), "$me/device/#", Ok(Names::Me { prefix: 11, me: "$me/device" })),
            (device(), "$me/registry/config", Ok(Names::Me { prefix: 13, me: "$me/registry" })),
            (device(), "$me/device/events", Err(Refusal::Denied)),
            (device(), "$me/registry/events", Err(Refusal::Denied)),
            (device(), "$me/#", Err(Refusal::Invalid)),
            (device(), "$me/+/commands", Err(Refusal::Invalid)),
            (device(), "$me/monitoring/json", Err(Refusal::Invalid)),
            (device(), "hall/one/commands", Ok(Names::Alias)),
            (device(), "hall/one/events", Err(Refusal::Denied)),
            (device(), "hall/two/commands", Err(Refusal::Denied)),
            (device(), "nobody/knows", Err(Refusal::Denied)),
            (device(), "#", Ok(Names::Alias)),
            (device(), "hall/+/commands", Ok(Names::Alias)),
            // A registry reads events and state of its devices and its own.
            (Identity::Registry, "$devices/#", Ok(Names::Canonical)),
            (Identity::Registry, "$devices/+/events/#", Ok(Names::Canonical)),
            (Identity::Registry, "$devices/d2/state", Ok(Names::Canonical)),
            (Identity::Registry, "$devices/+/+", Ok(Names::Canonical)),
            (Identity::Registry, "$registries/r/events", Ok(Names::Canonical)),
            (Identity::Registry, "$registries/+/state", Ok(Names::Canonical)),
            (Identity::Registry, "$devices/+/commands", Err(Refusal::Denied)),
            (Identity::Registry, "$devices/d2/config", Err(Refusal::Denied)),
            (Identity::Registry, "$devices/stranger/events", Err(Refusal::Denied)),
            (Identity::Registry, "$registries/r/commands", Err(Refusal::Denied)),
            (Identity::Registry, "$registries/other/events", Err(Refusal::Denied)),
            (Identity::Registry, "$me/device/commands", Err(Refusal::Denied)),
            (Identity::Registry, "hall/+/events", Ok(Names::Alias)),
            (Identity::Registry, "hall/two/events", Ok(Names::Alias)),
            (Identity::Registry, "hall/two/commands", Err(Refusal::Denied)),
            // What nobody may.
            (Identity::Registry, "$devices/+", Err(Refusal::Invalid)),
            (Identity::Registry, "$registries/+", Err(Refusal::Invalid)),
            (Identity::Registry, "$devices/d1", Err(Refusal::Invalid)),
            (Identity::Registry, "$devices/d1/monitoring", Err(Refusal::Denied)),
            (Identity::Registry, "$monitoring/d1/json", Err(Refusal::Denied)),
            (Identity::Registry, "$devices", Err(Refusal::Denied)),
            (Identity::Registry, "$SYS/#", Err(Refusal::Denied)),
            (Identity::Registry, "$share/g/$devices/#", Err(Refusal::Shared)),
            (Identity::Registry, "a#", Err(Refusal::Invalid)),
            (Identity::Registry, "", Err(Refusal::Invalid)),
            (Identity::Registry, "a\0", Err(Refusal::Invalid)),
        ] {
            let plan = topics.subscribe(&who, filter);
            assert_eq!(plan.as_ref().map(names).map_err(|e| *e), expected, "{who:?} {filter}");
        }
    }

    #[test]
    fn only_a_filter_without_wildcards_is_exact() {
        let topics = registry();
        let exact = |who: &Identity, filter: &str| topics.subscribe(who, filter).unwrap().exact;
        assert_eq!(exact(&device(), "$me/device/config").as_deref(), Some("$devices/d1/config"));
        assert_eq!(exact(&device(), "hall/one/config").as_deref(), Some("$devices/d1/config"));
        assert_eq!(exact(&Identity::Registry, "$devices/d1/state").as_deref(), Some("$devices/d1/state"));
        assert_eq!(exact(&Identity::Registry, "$devices/d1/state/#"), None);
        assert_eq!(exact(&device(), "hall/one/config/#"), None);
    }

    #[test]
    fn me_topics_are_delivered_under_their_own_name() {
        let plan = registry().subscribe(&device(), "$me/device/commands/#").unwrap();
        assert_eq!(plan.filter, "$devices/d1/commands/#");
        assert_eq!(plan.names.deliver("$devices/d1/commands/a"), "$me/device/commands/a");
    }

    #[test]
    fn a_wildcard_shows_only_what_may_be_read() {
        let topics = registry();
        assert!(topics.may_read(&Identity::Registry, "$devices/d1/state"));
        assert!(!topics.may_read(&Identity::Registry, "$devices/d1/commands"));
        assert!(topics.may_read(&device(), "$devices/d1/config/x"));
        assert!(!topics.may_read(&device(), "$devices/d2/config"));
        assert!(!topics.may_read(&device(), "$devices/d1/events"));
    }

    #[test]
    fn a_topic_knows_its_aliases() {
        let topics = registry();
        assert_eq!(topics.aliases_of("$devices/d1/events/alarm/x"), ["hall/one/events/alarm/x", "alarm/x"]);
        assert_eq!(topics.aliases_of("$devices/d12/events"), Vec::<String>::new());
    }

    #[test]
    fn a_broker_takes_any_topic_without_a_dollar() {
        let topics = Topics::Broker;
        let who = Identity::Broker;
        assert!(topics.publish(&who, "a/b").is_some_and(|c| c.topic == "a/b" && !c.permanent));
        assert_eq!(topics.publish(&who, "$a"), None);
        assert_eq!(topics.publish(&device(), "a"), None);
        assert!(topics.subscribe(&who, "#").is_ok());
        assert_eq!(topics.subscribe(&who, "$SYS/#"), Err(Refusal::Denied));
        assert_eq!(topics.subscribe(&who, "$share/a/b"), Err(Refusal::Shared));
    }

    #[test]
    fn triggers_want_what_their_source_says() {
        let topics = registry();
        let source = |device: Option<&str>, topic: Option<&str>| MqttTopics::IotMessage {
            registry_id: "r".into(),
            device_id: device.map(Into::into),
            mqtt_topic: topic.map(Into::into),
        };
        for (device, filter, topic, expected) in [
            (None, None, "$devices/d1/events", true),
            (None, None, "$registries/r/commands", true),
            (Some("d1"), None, "$devices/d1/commands/x", true),
            (Some("d1"), None, "$devices/d2/events", false),
            (Some("d1"), None, "$registries/r/events", false),
            (None, Some("$devices/+/events"), "$devices/d2/events", true),
            (None, Some("$devices/+/events"), "$devices/d2/events/x", false),
            (None, Some("$devices/#"), "$registries/r/events", false),
            (Some("d1"), Some("$devices/+/events"), "$devices/d2/events", false),
            (None, Some("hall/one/events/#"), "$devices/d1/events/x", true),
            (None, Some("hall/+/events"), "$devices/d2/events", true),
            (None, Some("hall/one/#"), "$devices/d2/events", false),
            (None, Some("#"), "$devices/d1/events", true),
        ] {
            let source = source(device, filter);
            assert_eq!(topics.wants(&source, topic), expected, "{source} {topic}");
        }
    }
}
