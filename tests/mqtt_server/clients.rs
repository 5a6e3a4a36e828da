//! Clients as they are in the world: rumqttc for 3.1.1 and 5.0, and mosquitto's tools.

use std::process::{Command, Stdio};
use std::time::Duration;

use rumqttc::QoS;
use triggercast::mqtt::Server;

use crate::raw::{LIMIT, Raw, block_on, events, link, payload, server};

fn mosquitto(tool: &str, server: &Server, user: &str, rest: &[&str]) -> Command {
    let port = server.local_addr().port().to_string();
    let password = format!("{user}-password");
    let mut command = Command::new(tool);
    command.args(["-h", "127.0.0.1", "-p", &port, "-u", user, "-P", &password]).args(rest);
    command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
    command
}

#[test]
fn mosquitto_publishes_with_every_version_and_qos() {
    let server = server();
    let mut link = link(&server);
    for version in ["mqttv31", "mqttv311", "mqttv5"] {
        for qos in ["0", "1", "2"] {
            let text = format!("{version} {qos}");
            let rest = ["-V", version, "-q", qos, "-t", "$devices/d1/events", "-m", &text];
            let child = mosquitto("mosquitto_pub", &server, "d1", &rest).spawn().expect("mosquitto_pub");
            assert_eq!(payload(&events(&mut link, 1)[0]), text.as_bytes());
            let output = child.wait_with_output().unwrap();
            assert!(output.status.success(), "{output:?}");
        }
    }
}

#[test]
fn mosquitto_hears_why_it_is_refused() {
    let server = server();
    let rest = ["-t", "a", "-m", "x"];
    let output = mosquitto("mosquitto_pub", &server, "nobody", &rest).output().expect("mosquitto_pub");
    assert!(!output.status.success());
    let rest = ["-V", "mqttv5", "-q", "1", "-t", "$devices/d2/events", "-m", "x"];
    let output = mosquitto("mosquitto_pub", &server, "d1", &rest).output().unwrap();
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(said.contains("Not authorized") || said.contains("not authorised"), "{output:?}");
}

#[test]
fn mosquitto_subscribes() {
    let server = server();
    for version in ["mqttv311", "mqttv5"] {
        // The kept message tells that the subscription is in force.
        let mut device = Raw::v3(&server, "d1");
        device.publish(1, 1, "$devices/d1/state", b"ready");
        device.expect(&[0x40, 2, 0, 1]);
        let topics = ["-t", "$devices/d1/state", "-t", "$devices/+/events", "-C", "2", "-W", "9", "-v"];
        let rest = [&["-V", version, "-q", "1"], &topics[..]].concat();
        let mut child = mosquitto("mosquitto_sub", &server, "r", &rest).spawn().expect("mosquitto_sub");
        let mut lines = std::io::BufRead::lines(std::io::BufReader::new(child.stdout.take().unwrap()));
        assert_eq!(lines.next().unwrap().unwrap(), "$devices/d1/state ready");
        device.publish(1, 1, "hall/one/events", b"now");
        device.expect(&[0x40, 2, 0, 1]);
        assert_eq!(lines.next().unwrap().unwrap(), "$devices/d1/events now");
        assert!(child.wait().unwrap().success());
    }
}

#[test]
fn rumqttc_v4_publishes_and_subscribes() {
    use rumqttc::{AsyncClient, Event, MqttOptions, Packet};
    let server = server();
    let mut link = link(&server);
    block_on(async {
        let mut options = MqttOptions::new("c", "127.0.0.1", server.local_addr().port());
        options.set_credentials("d1", "d1-password").set_clean_session(false);
        options.set_keep_alive(Duration::from_secs(5));
        let (client, mut eventloop) = AsyncClient::new(options, 10);
        client.subscribe("$me/device/commands", QoS::AtLeastOnce).await.unwrap();
        let mut acks = 0;
        let mut commands = 0;
        let work = async {
            while acks < 2 || commands == 0 {
                match eventloop.poll().await.unwrap() {
                    Event::Incoming(Packet::SubAck(_)) => {
                        client.publish("hall/one/events", QoS::AtLeastOnce, false, "1").await.unwrap();
                        client.publish("hall/one/events", QoS::ExactlyOnce, false, "2").await.unwrap();
                        Raw::v3(&server, "r").publish(0, 0, "$devices/d1/commands", b"go");
                    }
                    Event::Incoming(Packet::PubAck(_) | Packet::PubComp(_)) => acks += 1,
                    Event::Incoming(Packet::Publish(publish)) => {
                        assert_eq!(publish.topic, "$me/device/commands");
                        commands += 1;
                    }
                    _ => {}
                }
                while let Some(arrivals) = crate::raw::ready_group(&mut link) {
                    arrivals.receipt.accept();
                }
            }
        };
        // The engine takes events while the client is polled.
        tokio::time::timeout(LIMIT, work).await.unwrap();
    });
}

#[test]
fn rumqttc_v5_publishes_and_subscribes() {
    use rumqttc::v5::mqttbytes::QoS;
    use rumqttc::v5::mqttbytes::v5::Packet;
    use rumqttc::v5::{AsyncClient, Event, MqttOptions};
    let server = server();
    block_on(async {
        let mut options = MqttOptions::new("c", "127.0.0.1", server.local_addr().port());
        options.set_credentials("b", "b-password");
        let (client, mut eventloop) = AsyncClient::new(options, 10);
        client.subscribe("hall/+", QoS::AtLeastOnce).await.unwrap();
        let work = async {
            let (mut acked, mut got) = (false, Vec::new());
            while !acked || got.len() < 2 {
                match eventloop.poll().await.unwrap() {
                    Event::Incoming(Packet::SubAck(_)) => {
                        client.publish("hall/1", QoS::AtLeastOnce, true, "one").await.unwrap();
                        client.publish("hall/2", QoS::ExactlyOnce, false, "two").await.unwrap();
                    }
                    Event::Incoming(Packet::PubComp(_)) => acked = true,
                    Event::Incoming(Packet::Publish(publish)) => got.push(publish.payload),
                    _ => {}
                }
            }
            got
        };
        assert_eq!(tokio::time::timeout(LIMIT, work).await.unwrap(), ["one", "two"]);
    });
}
