//! The embedded MQTT server from outside: raw sockets with exact bytes, and real clients.
//!
//! Nothing here sleeps for luck: a test waits for what must come, with a limit, and proves that nothing came
//! by a PINGREQ whose answer is the next packet.

#[cfg(test)]
#[path = "mqtt_server/bounds.rs"]
mod bounds;
#[cfg(test)]
#[path = "mqtt_server/clients.rs"]
mod clients;
#[cfg(test)]
#[path = "mqtt_server/flow.rs"]
mod flow;
#[cfg(test)]
#[path = "mqtt_server/hostile.rs"]
mod hostile;
#[cfg(test)]
#[path = "mqtt_server/login.rs"]
mod login;
#[cfg(test)]
#[path = "mqtt_server/raw.rs"]
mod raw;
#[cfg(test)]
#[path = "mqtt_server/sessions.rs"]
mod sessions;
#[cfg(test)]
#[path = "mqtt_server/topics.rs"]
mod topics;
