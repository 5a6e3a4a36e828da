//! The configuration: the default file, every form that is accepted, and every fault with its message.

use std::path::Path;
use std::time::Duration;

use triggercast::config::{self, Settings};
use triggercast::model::trigger::{BatchSettings, TriggerSource};

const DEFAULT: &str = include_str!("../config.yaml");

fn parse(text: &str) -> Result<Settings, config::ConfigErrors> {
    config::parse(text, Path::new("config.yaml"), &|_| None)
}

#[test]
fn the_default_file_declares_what_the_documentation_says() {
    let settings = parse(DEFAULT).unwrap();
    let r = &settings.resources;
    assert_eq!(r.gateways.iter().map(|g| &*g.id).collect::<Vec<_>>(), ["main"]);
    assert_eq!(r.gateways[0].paths.iter().map(|p| p.path.as_str()).collect::<Vec<_>>(), ["/ws", "/images"]);
    assert_eq!(r.device_registries.iter().map(|r| &*r.id).collect::<Vec<_>>(), ["factory"]);
    let devices = &r.device_registries[0].devices;
    assert_eq!(devices.iter().map(|d| &*d.id).collect::<Vec<_>>(), ["press-1", "press-2"]);
    assert_eq!(devices[0].aliases[0].name, "hall/press-1");
    assert_eq!(devices[0].aliases[0].target, "$devices/press-1");
    assert_eq!(r.brokers, []);
    assert_eq!(settings.container_registries.iter().map(|c| &*c.id).collect::<Vec<_>>(), ["images"]);
    assert_eq!(settings.service_accounts.iter().map(|a| &*a.id).collect::<Vec<_>>(), ["broadcaster"]);
    assert_eq!(r.triggers.iter().map(|t| &*t.name).collect::<Vec<_>>(), ["telemetry"]);
    assert_eq!(
        r.triggers[0].source,
        TriggerSource::IotMessage {
            registry_id: "factory".into(),
            device_id: None,
            mqtt_topic: Some("$devices/+/events".into())
        }
    );
    assert_eq!(
        r.triggers[0].batch,
        BatchSettings { max_count: 10, max_bytes: 131_072, cutoff: Duration::from_secs(1) }
    );
    assert_eq!(settings.container_registry_triggers.len(), 1);
    assert_eq!(&*settings.container_registry_triggers[0].name, "pushes");
}
