//! The peers, each as its users run it, tuned where its manual says how.

use anyhow::Result;

use super::process::{Starter, free_port, service};
use super::{Contender, Server};
use crate::load::{Protocol, Publish};

/// All peers.
pub(super) fn all() -> Vec<Box<dyn Contender>> {
    vec![
        Box::new(Bridge::Bun),
        Box::new(Nchan),
        Box::new(Nats),
        Box::new(Mosquitto),
        Box::new(Bridge::Node),
        Box::new(Bridge::NodeRed),
    ]
}

fn mqtt() -> Publish {
    Publish::Mqtt { topic: "bench".to_owned(), login: None }
}

/// Mosquitto: MQTT in, MQTT in WebSocket out.
struct Mosquitto;

impl Contender for Mosquitto {
    fn name(&self) -> String {
        "Mosquitto".to_owned()
    }

    fn start(&self, cpus: &str) -> Result<Server> {
        let mut starter = Starter::new(cpus)?;
        let (mqtt, websocket) = (free_port()?, free_port()?);
        let lines =
            format!("listener {mqtt} 127.0.0.1\nlistener {websocket} 127.0.0.1\nprotocol websockets\n");
        starter.mosquitto(&lines, websocket)?;
        Ok(starter.done(mqtt, websocket))
    }

    fn publish(&self) -> Publish {
        mqtt()
    }

    fn protocol(&self) -> Protocol {
        Protocol::MqttInWebSocket
    }
}

/// NATS: its own protocol in, the same in WebSocket out.
struct Nats;

impl Contender for Nats {
    fn name(&self) -> String {
        "NATS".to_owned()
    }

    fn start(&self, cpus: &str) -> Result<Server> {
        let mut starter = Starter::new(cpus)?;
        let (tcp, websocket) = (free_port()?, free_port()?);
        starter.write(
            "nats.conf",
            &format!(
                "listen: 127.0.0.1:{tcp}\nmax_connections: 100000\n\
                 websocket {{ listen: \"127.0.0.1:{websocket}\", no_tls: true }}\n"
            ),
        )?;
        starter.spawn(&service("nats-server"), &["-c", "nats.conf"], websocket)?;
        Ok(starter.done(tcp, websocket))
    }

    fn publish(&self) -> Publish {
        Publish::Nats
    }

    fn protocol(&self) -> Protocol {
        Protocol::NatsInWebSocket
    }
}

/// nginx with nchan: a POST in, WebSocket out.
struct Nchan;

impl Contender for Nchan {
    fn name(&self) -> String {
        "nchan".to_owned()
    }

    fn start(&self, cpus: &str) -> Result<Server> {
        let mut starter = Starter::new(cpus)?;
        let port = free_port()?;
        let folder = starter.folder().display().to_string();
        starter.write(
            "nginx.conf",
            &format!(
                "load_module /usr/lib/nginx/modules/ngx_nchan_module.so;\n\
                 user root; daemon off; master_process off; worker_processes 1; worker_rlimit_nofile 20000;\n\
                 error_log {folder}/error.log error; pid {folder}/nginx.pid;\n\
                 events {{ worker_connections 20000; }}\n\
                 http {{ access_log off; client_body_temp_path {folder}; proxy_temp_path {folder};\n\
                 fastcgi_temp_path {folder}; uwsgi_temp_path {folder}; scgi_temp_path {folder};\n\
                 keepalive_requests 100000000; nchan_shared_memory_size 256M;\n\
                 server {{ listen 127.0.0.1:{port};\n\
                 location = /pub {{ nchan_publisher http; nchan_channel_id bench; \
                 nchan_message_buffer_length 20000; nchan_message_timeout 60s; }}\n\
                 location = /ws {{ nchan_subscriber websocket; nchan_channel_id bench; \
                 nchan_subscriber_first_message newest; }} }} }}\n"
            ),
        )?;
        starter.spawn(&service("nginx"), &["-c", &format!("{folder}/nginx.conf")], port)?;
        Ok(starter.done(port, port))
    }

    fn publish(&self) -> Publish {
        Publish::Http { path: "/pub".to_owned() }
    }

    fn protocol(&self) -> Protocol {
        Protocol::WebSocket("/ws".to_owned())
    }
}

/// A program that takes events from Mosquitto and sends them to its WebSocket clients.
enum Bridge {
    /// uWebSockets, in Bun.
    Bun,
    /// Node with `mqtt` and `ws`, as a user would write it.
    Node,
    /// Node-RED with two nodes: mqtt in, websocket out.
    NodeRed,
}

impl Contender for Bridge {
    fn name(&self) -> String {
        match self {
            Self::Bun => "uWebSockets (Bun)",
            Self::Node => "Node, mqtt + ws",
            Self::NodeRed => "Node-RED",
        }
        .to_owned()
    }

    fn start(&self, cpus: &str) -> Result<Server> {
        let mut starter = Starter::new(cpus)?;
        let (mqtt, websocket) = (free_port()?, free_port()?);
        starter.mosquitto(&format!("listener {mqtt} 127.0.0.1\n"), mqtt)?;
        let peers = crate::home().join("peers");
        let file = |name: &str| peers.join(name).display().to_string();
        let (mqtt_text, websocket_text) = (mqtt.to_string(), websocket.to_string());
        match self {
            Self::Bun => {
                let program = file("node_modules/.bin/bun");
                starter.spawn(&program, &[&file("bun.js"), &mqtt_text, &websocket_text], websocket)?;
            }
            Self::Node => {
                starter.spawn("node", &[&file("node.js"), &mqtt_text, &websocket_text], websocket)?;
            }
            Self::NodeRed => {
                let flow = std::fs::read_to_string(peers.join("node-red.json"))?;
                starter.write("flows.json", &flow.replace("\"MQTT_PORT\"", &format!("\"{mqtt}\"")))?;
                let settings = "module.exports = { flowFile: 'flows.json', uiHost: '127.0.0.1', \
                                logging: { console: { level: 'error' } } };\n";
                starter.write("settings.js", settings)?;
                let folder = starter.folder().display().to_string();
                let program = file("node_modules/node-red/red.js");
                let args =
                    [&program, "-u", &folder, "-s", &format!("{folder}/settings.js"), "-p", &websocket_text];
                starter.spawn("node", &args, websocket)?;
            }
        }
        Ok(starter.done(mqtt, websocket))
    }

    fn publish(&self) -> Publish {
        mqtt()
    }

    fn protocol(&self) -> Protocol {
        Protocol::WebSocket("/ws".to_owned())
    }
}
