//! What breaks outside is survived, told once, and mended by itself.

use std::io::Write as _;
use std::net::TcpStream;
use std::process::Command;

use crate::common::{FACTORY, Mosquitto, TestServer, config, free_port, trigger, until};

const SIZE_1: &str = "batch_settings: { max_count: 1, cutoff: 1s }";

fn plant_server(port: u16) -> TestServer {
    let iot = format!("iot:\n  brokers:\n    - {{ id: plant, url: \"mqtt://127.0.0.1:{port}\" }}\n");
    let source = format!("iot_broker_message: {{ broker_id: plant, {SIZE_1} }}");
    TestServer::start(&config(&format!("{iot}triggers:\n{}", trigger("plant", &source, "/ws"))))
}

#[test]
fn a_broker_that_is_away_is_told_once_and_taken_up_when_it_comes() {
    let port = free_port();
    let server = plant_server(port);
    let (status, body) = until("a failing source", || {
        let answer = server.get("/readyz");
        answer.1.contains("failing").then_some(answer)
    });
    assert!(
        status == 503 && body.contains("\"source\":\"plant (all topics)\"") && body.contains("\"error\":"),
        "{body}"
    );
    assert_eq!(server.get("/healthz").0, 200);
    let mut socket = server.websocket("/ws");

    let mosquitto = Mosquitto::start_on(port);
    until("readiness", || (server.get("/readyz").0 == 200).then_some(()));
    mosquitto.publish("a", "first");
    assert_eq!(socket.events(1)[0].payload, "first");

    let port = mosquitto.kill();
    until("the loss", || (server.get("/readyz").0 == 503).then_some(()));
    let mosquitto = Mosquitto::start_on(port);
    until("readiness again", || (server.get("/readyz").0 == 200).then_some(()));
    mosquitto.publish("a", "second");
    assert_eq!(socket.events(1)[0].payload, "second");
    let said = server.log("MQTT broker");
    let count = |text: &str| said.iter().filter(|line| line.contains(text)).count();
    assert_eq!(
        (count("no events from the MQTT broker"), count("the MQTT broker is back")),
        (2, 2),
        "{said:?}"
    );
}

#[test]
fn malformed_mqtt_ends_its_connection_and_nothing_else() {
    let source = format!("iot_message: {{ registry_id: factory, {SIZE_1} }}");
    let server =
        TestServer::start(&config(&format!("{FACTORY}triggers:\n{}", trigger("telemetry", &source, "/ws"))));
    let mut socket = server.websocket("/ws");
    let inputs: [&[u8]; 5] = [
        b"GET / HTTP/1.1\r\n\r\n",
        &[0x10, 0xff, 0xff, 0xff, 0xff, 0xff],
        &[0x30, 0x05, 0, 3, b'a', b'/', b'b'],
        &[0x10, 0x04, 0, 4, b'M', b'Q'],
        &[0; 64],
    ];
    for bytes in inputs {
        let mut io = TcpStream::connect(server.mqtt.unwrap()).unwrap();
        io.set_read_timeout(Some(crate::common::LIMIT)).unwrap();
        io.write_all(bytes).unwrap();
        let _ = io.shutdown(std::net::Shutdown::Write);
        let mut rest = Vec::new();
        let _ = std::io::Read::read_to_end(&mut io, &mut rest);
    }
    server.publish("$devices/press-1/events", "alive");
    assert_eq!(socket.events(1)[0].payload, "alive");
}

#[test]
fn a_taken_port_ends_the_start_with_its_name() {
    let taken = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let address = taken.local_addr().unwrap().to_string();
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("config.yaml");
    let text = config(FACTORY).replacen(
        "gateway: { listen: \"127.0.0.1:0\"",
        &format!("gateway: {{ listen: \"{address}\""),
        1,
    );
    std::fs::write(&file, text).unwrap();
    let output = Command::new(env!("CARGO_BIN_EXE_triggercast")).arg("--config").arg(&file).output().unwrap();
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert_eq!(output.status.code(), Some(1), "{said}");
    assert!(said.contains(&address) && said.contains("gateway.listen"), "{said}");
}

#[test]
fn a_stop_acknowledges_publishers_and_ends_clean_under_load() {
    let source = "iot_message: { registry_id: factory, batch_settings: { max_count: 10, cutoff: 1s } }";
    let server =
        TestServer::start(&config(&format!("{FACTORY}triggers:\n{}", trigger("telemetry", source, "/ws"))));
    let mut socket = server.websocket("/ws");
    let count = 2000;
    let mut device = Device::connect(&server);
    for number in 0..count {
        device.publish(number, &number.to_string());
    }
    // The stop comes while acknowledgements and messages are on their way.
    server.signal("TERM");
    let acknowledged = device.acknowledgements();
    let mut got = Vec::new();
    while let (0x81, payload) = socket.frame() {
        got.extend(
            crate::common::events(std::str::from_utf8(&payload).unwrap())
                .into_iter()
                .map(|event| event.payload),
        );
    }
    let mut server = server;
    assert!(server.wait().success());
    let expected: Vec<_> = (0..got.len()).map(|number| number.to_string()).collect();
    assert_eq!(got, expected);
    assert!(acknowledged <= got.len(), "{acknowledged} acknowledged, {} delivered", got.len());
}

#[test]
fn ctrl_c_and_a_closed_terminal_stop_as_sigterm_does() {
    for signal in ["INT", "HUP"] {
        let mut server = TestServer::start(&config(FACTORY));
        let mut socket = server.websocket("/ws");
        server.signal(signal);
        assert_eq!(socket.close_code(), 1012, "{signal}");
        socket.send(0x88, &1012u16.to_be_bytes());
        assert!(server.wait().success(), "{signal}");
    }
}

/// A device that writes MQTT 3.1.1 by hand.
struct Device(TcpStream);

impl Device {
    fn connect(server: &TestServer) -> Self {
        let mut io = TcpStream::connect(server.mqtt.unwrap()).unwrap();
        io.set_read_timeout(Some(crate::common::LIMIT)).unwrap();
        let mut body = b"\0\x04MQTT\x04\xc2\0\0".to_vec();
        for text in ["press-1", "press-1", "Press-1-demo-1"] {
            body.extend((text.len() as u16).to_be_bytes());
            body.extend(text.as_bytes());
        }
        io.write_all(&[&[0x10, body.len() as u8], &body[..]].concat()).unwrap();
        let mut answer = [0; 4];
        std::io::Read::read_exact(&mut io, &mut answer).unwrap();
        assert_eq!(answer, [0x20, 2, 0, 0]);
        Self(io)
    }

    fn publish(&mut self, number: u16, payload: &str) {
        let topic = "$devices/press-1/events";
        let mut body = (topic.len() as u16).to_be_bytes().to_vec();
        body.extend(topic.as_bytes());
        body.extend((number + 1).to_be_bytes());
        body.extend(payload.as_bytes());
        self.0.write_all(&[&[0x32, body.len() as u8], &body[..]].concat()).unwrap();
    }

    /// Reads to the end of the connection and counts PUBACKs.
    fn acknowledgements(&mut self) -> usize {
        let mut all = Vec::new();
        let _ = std::io::Read::read_to_end(&mut self.0, &mut all);
        all.chunks_exact(4).filter(|packet| packet[0] == 0x40).count()
    }
}

#[test]
fn a_stop_as_soon_as_the_server_is_ready_is_one_in_order() {
    for _ in 0..12 {
        let server = TestServer::start(&config(FACTORY));
        assert!(server.stop().success());
    }
}
