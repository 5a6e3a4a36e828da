//! What the end-to-end tests share: the server as a process, a Mosquitto, foreign programs, a plain client.

use std::collections::VecDeque;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::mpsc::{Receiver, channel};
use std::thread;
use std::time::{Duration, Instant};

use base64::Engine as _;
use serde_json::Value;

/// Longest wait for anything.
pub const LIMIT: Duration = Duration::from_secs(20);

/// How every configuration begins: all ports free ones, log lines that can be read, the account of [`trigger`].
pub const BEGINNING: &str = r#"data_dir: ./data
gateway: { listen: "127.0.0.1:0", drain: 100ms }
management: { listen: "127.0.0.1:0", grpc_listen: "127.0.0.1:0" }
mqtt: { listen: "127.0.0.1:0" }
log: { format: json }
service_accounts:
  - { id: broadcaster, roles: [api-gateway.websocketBroadcaster] }
"#;

/// A configuration with one registry, two devices, gateway `main` with `/ws` and `/other`, all ports free
/// ones; `rest` is put behind it.
pub fn config(rest: &str) -> String {
    format!(
        r#"{BEGINNING}gateways:
  - id: main
    paths: {{ /ws: {{}}, /other: {{}}, /small: {{ backlog_bytes: 65536 }} }}
  - id: listed
    allowed_origins: ["https://app.example.org"]
    paths: {{ /ws: {{}} }}
{rest}"#
    )
}

/// The section of [`config`]'s registry.
pub const FACTORY: &str = r#"iot:
  registries:
    - id: factory
      password: "Factory-demo-1"
      devices:
        - { id: press-1, password: "Press-1-demo-1", aliases: { "hall/press-1": "$devices/press-1" } }
        - { id: press-2, password: "Press-2-demo-1" }
"#;

/// A trigger in the v2 form that broadcasts to a path of `main`.
pub fn trigger(name: &str, source: &str, path: &str) -> String {
    format!(
        "  - name: {name}\n    source: {{ {source} }}\n    action:\n      - gateway_websocket_broadcast: \
         {{ gateway_id: main, path: {path}, service_account_id: broadcaster }}\n"
    )
}

/// The program, running.
pub struct TestServer {
    child: Child,
    /// Log lines from before the server was ready.
    early: Vec<String>,
    lines: Receiver<String>,
    pub gateway: SocketAddr,
    pub management: SocketAddr,
    pub grpc: SocketAddr,
    pub mqtt: Option<SocketAddr>,
    /// MQTT under TLS.
    pub mqtts: Option<SocketAddr>,
    /// Where its configuration and `data` are.
    pub folder: PathBuf,
    _folder: Option<tempfile::TempDir>,
}

/// The program on a configuration that is put into `folder`, not started yet.
pub fn program(folder: &Path, config: &str) -> Command {
    let file = folder.join("config.yaml");
    std::fs::write(&file, config).unwrap();
    let mut command = Command::new(env!("CARGO_BIN_EXE_triggercast"));
    command.arg("--config").arg(&file).current_dir(folder);
    command.stderr(Stdio::piped()).stdin(Stdio::null()).env_remove("RUST_LOG");
    command
}

impl TestServer {
    /// Starts the program on a configuration and waits until it is ready.
    pub fn start(config: &str) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let mut server = Self::start_in(folder.path(), config);
        server._folder = Some(folder);
        server
    }

    /// The same, with one more file beside the configuration.
    pub fn start_with(name: &str, text: &str, config: &str) -> Self {
        let folder = tempfile::tempdir().unwrap();
        std::fs::write(folder.path().join(name), text).unwrap();
        let mut server = Self::start_in(folder.path(), config);
        server._folder = Some(folder);
        server
    }

    /// The same, in a folder that stays.
    pub fn start_in(folder: &Path, config: &str) -> Self {
        Self::start_by(&mut program(folder, config))
    }

    /// Starts this [`program`] and waits until it is ready.
    pub fn start_by(command: &mut Command) -> Self {
        let mut child = command.spawn().unwrap();
        let lines = lines_of(child.stderr.take().unwrap());
        let mut early = Vec::new();
        let mut addresses = std::collections::HashMap::new();
        let start = Instant::now();
        loop {
            let line =
                lines.recv_timeout(LIMIT.saturating_sub(start.elapsed())).expect("the server is not ready");
            let json: Value =
                serde_json::from_str(&line).unwrap_or_else(|_| panic!("the server says: {line}"));
            let fields = &json["fields"];
            match fields["message"].as_str() {
                Some("listening") => {
                    let address = fields["address"].as_str().unwrap().parse().unwrap();
                    addresses.insert(fields["service"].as_str().unwrap().to_owned(), address);
                }
                Some("ready") => break,
                _ => early.push(line),
            }
        }
        Self {
            child,
            early,
            lines,
            gateway: addresses["gateway"],
            management: addresses["management"],
            grpc: addresses["grpc"],
            mqtt: addresses.get("mqtt").copied(),
            mqtts: addresses.get("mqtts").copied(),
            folder: command.get_current_dir().unwrap().to_owned(),
            _folder: None,
        }
    }

    /// The MQTT port.
    pub fn mqtt_port(&self) -> String {
        self.mqtt.unwrap().port().to_string()
    }

    /// The URL of a path of the gateway `main`.
    pub fn url(&self, path: &str) -> String {
        format!("ws://{}/main{path}", self.gateway)
    }

    /// Connects a plain client to a path of the gateway `main`.
    pub fn websocket(&self, path: &str) -> Socket {
        let (socket, head) = Socket::handshake(self.gateway, &format!("/main{path}"), "");
        assert!(head.starts_with("HTTP/1.1 101 "), "{head}");
        socket
    }

    /// A mosquitto_pub with the login of a device, ready to run.
    pub fn mosquitto_pub(&self, user: &str, password: &str, rest: &[&str]) -> Command {
        let mut command = Command::new("mosquitto_pub");
        command.args(["-h", "127.0.0.1", "-p", &self.mqtt_port(), "-u", user, "-P", password]).args(rest);
        command
    }

    /// Publishes with QoS 1 as `press-1`.
    pub fn publish(&self, topic: &str, payload: &str) {
        run(&mut self.mosquitto_pub("press-1", "Press-1-demo-1", &["-q", "1", "-t", topic, "-m", payload]));
    }

    /// GET on the management port: status and body.
    pub fn get(&self, path: &str) -> (u16, String) {
        http_get(self.management, path)
    }

    /// The sum of our counters that begin so, as `mqtt_closed_total{reason="login"}`.
    pub fn counted(&self, name: &str) -> u64 {
        counted(&self.get("/metrics").1, name)
    }

    /// Calls of the API with the administrator's key.
    pub fn caller(&self) -> Caller {
        let key = std::fs::read_to_string(self.folder.join("data/admin.key")).unwrap();
        Caller { address: self.management, who: format!("Api-Key {}", key.trim()) }
    }

    /// One of them: status and answer.
    pub fn call(&self, verb: &str, path: &str, body: &Value) -> (u16, Value) {
        self.caller().call(verb, path, body)
    }

    /// One that must succeed: its answer, or what the operation has come to.
    pub fn done(&self, verb: &str, path: &str, body: &Value) -> Value {
        self.caller().done(verb, path, body)
    }

    /// The command line, with this server's configuration.
    pub fn command(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_triggercast"));
        command.args(arguments).arg("--config").arg(self.folder.join("config.yaml"));
        let key = std::fs::read_to_string(self.folder.join("data/admin.key")).unwrap();
        command.args(["--endpoint", &format!("localhost:{}", self.grpc.port())]).current_dir(&self.folder);
        command.env("TRIGGERCAST_API_KEY", key.trim());
        command
    }

    /// Process memory in KiB (resident).
    pub fn resident_kib(&self) -> u64 {
        let status = std::fs::read_to_string(format!("/proc/{}/status", self.child.id())).unwrap();
        let line = status.lines().find(|line| line.starts_with("VmRSS:")).unwrap();
        line.split_whitespace().nth(1).unwrap().parse().unwrap()
    }

    /// Sends a signal.
    pub fn signal(&self, name: &str) {
        run(Command::new("kill").args(["-s", name, &self.child.id().to_string()]));
    }

    /// SIGTERM, then the exit status.
    pub fn stop(mut self) -> ExitStatus {
        self.signal("TERM");
        self.wait()
    }

    /// Waits for the end.
    pub fn wait(&mut self) -> ExitStatus {
        let child = &mut self.child;
        until("the end of the server", || child.try_wait().unwrap())
    }

    /// Log lines that have come by now and contain `text`.
    pub fn log(&self, text: &str) -> Vec<String> {
        self.early.iter().cloned().chain(self.lines.try_iter()).filter(|line| line.contains(text)).collect()
    }
}

impl Drop for TestServer {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Somebody who calls the API.
pub struct Caller {
    pub address: SocketAddr,
    /// The header `Authorization`.
    pub who: String,
}

impl Caller {
    /// A call: status and answer.
    pub fn call(&self, verb: &str, path: &str, body: &Value) -> (u16, Value) {
        let body = if body.is_null() { String::new() } else { body.to_string() };
        let headers = format!("Authorization: {}\r\nContent-Length: {}\r\n", self.who, body.len());
        let (status, text) = http(self.address, &format!("{verb} {path}"), &headers, &body);
        (status, serde_json::from_str(&text).unwrap_or(Value::String(text)))
    }

    /// A call that must succeed: its answer, or what the operation has come to.
    pub fn done(&self, verb: &str, path: &str, body: &Value) -> Value {
        let (status, mut answer) = self.call(verb, path, body);
        assert_eq!(status, 200, "{verb} {path} {body}: {answer}");
        if answer["done"] == true { answer["response"].take() } else { answer }
    }
}

fn lines_of(output: impl Read + Send + 'static) -> Receiver<String> {
    let (sender, lines) = channel();
    thread::spawn(move || {
        for line in BufReader::new(output).lines().map_while(Result::ok) {
            if sender.send(line).is_err() {
                break;
            }
        }
    });
    lines
}

/// The sum of our counters that begin so in a text of metrics.
pub fn counted(metrics: &str, name: &str) -> u64 {
    let values = metrics.lines().filter_map(|line| line.strip_prefix("triggercast_")?.strip_prefix(name));
    values.map(|rest| rest.rsplit(' ').next().unwrap().parse::<u64>().unwrap()).sum()
}

/// Asks until there is an answer.
pub fn until<T>(what: &str, mut ask: impl FnMut() -> Option<T>) -> T {
    let start = Instant::now();
    loop {
        if let Some(answer) = ask() {
            return answer;
        }
        assert!(start.elapsed() < LIMIT, "{what} did not come");
        thread::sleep(Duration::from_millis(5));
    }
}

/// Runs a program to its end; it must succeed. Returns what it wrote to stdout.
pub fn run(command: &mut Command) -> String {
    let child = command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn();
    let name = command.get_program().to_string_lossy().into_owned();
    let child = child.unwrap_or_else(|error| panic!("{name}: {error}; scripts/test installs it"));
    let output = child.wait_with_output().unwrap();
    assert!(output.status.success(), "{name}: {output:?}");
    String::from_utf8(output.stdout).unwrap()
}

/// A script of tests/clients, with its interpreter.
pub fn script(name: &str) -> Command {
    interpreted(&format!("tests/clients/{name}"))
}

/// A script of examples, with its interpreter.
pub fn example(name: &str) -> Command {
    let mut command = interpreted(&format!("examples/{name}"));
    command.env("NODE_PATH", Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/clients/node_modules"));
    command
}

fn interpreted(name: &str) -> Command {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let mut command = if name.ends_with(".py") {
        let python = root.join("target/test-tools/venv/bin/python");
        assert!(python.exists(), "{} is missing; scripts/test makes it", python.display());
        Command::new(python)
    } else if name.ends_with(".sh") {
        Command::new("sh")
    } else {
        assert!(
            root.join("tests/clients/node_modules").exists(),
            "npm packages are missing; scripts/test installs them"
        );
        Command::new("node")
    };
    command.arg(root.join(name));
    command
}

/// A program that listens and prints lines.
pub struct Listener {
    child: Child,
    lines: Receiver<String>,
}

impl Listener {
    /// Starts it.
    pub fn spawn(command: &mut Command) -> Self {
        let mut child =
            command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::null()).spawn().unwrap();
        let lines = lines_of(child.stdout.take().unwrap());
        Self { child, lines }
    }

    /// Starts it and waits for its line "connected".
    pub fn start(command: &mut Command) -> Self {
        let mut listener = Self::spawn(command);
        assert_eq!(listener.line(), "connected");
        listener
    }

    /// The next line.
    pub fn line(&mut self) -> String {
        self.lines
            .recv_timeout(LIMIT)
            .unwrap_or_else(|error| panic!("no line: {error}, {:?}", self.child.try_wait()))
    }
}

impl Drop for Listener {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// A Mosquitto with a configuration of its own.
pub struct Mosquitto {
    child: Child,
    pub port: u16,
    folder: tempfile::TempDir,
}

impl Mosquitto {
    /// Starts one on a free port.
    pub fn start() -> Self {
        Self::start_on(free_port())
    }

    /// Starts one on this port, and waits until it answers.
    pub fn start_on(port: u16) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("mosquitto.conf");
        let conf = format!("listener {port} 127.0.0.1\nallow_anonymous true\npersistence false\n");
        std::fs::write(&file, conf).unwrap();
        let program = ["/usr/sbin/mosquitto", "/usr/local/sbin/mosquitto", "/opt/homebrew/sbin/mosquitto"];
        let program = program.iter().map(PathBuf::from).find(|path| path.exists());
        let program = program.unwrap_or_else(|| PathBuf::from("mosquitto"));
        let mut command = Command::new(program);
        command.arg("-c").arg(&file).stdout(Stdio::null()).stderr(Stdio::null());
        let child =
            command.spawn().unwrap_or_else(|error| panic!("mosquitto: {error}; scripts/test installs it"));
        until("mosquitto", || TcpStream::connect(("127.0.0.1", port)).ok());
        Self { child, port, folder }
    }

    /// Publishes with QoS 1.
    pub fn publish(&self, topic: &str, payload: &str) {
        let port = self.port.to_string();
        run(Command::new("mosquitto_pub").args(["-p", &port, "-q", "1", "-t", topic, "-m", payload]));
    }

    /// Ends it at once; its port stays known.
    pub fn kill(mut self) -> u16 {
        let _ = self.child.kill();
        let _ = self.child.wait();
        self.port
    }
}

impl Drop for Mosquitto {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
        let _ = &self.folder;
    }
}

/// A port that was free a moment ago.
pub fn free_port() -> u16 {
    TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port()
}

/// GET: status and body.
pub fn http_get(address: SocketAddr, path: &str) -> (u16, String) {
    http(address, &format!("GET {path}"), "", "")
}

/// The same, with headers.
pub fn http_get_with(address: SocketAddr, path: &str, headers: &str) -> (u16, String) {
    http(address, &format!("GET {path}"), headers, "")
}

/// A request: status and body of its answer.
fn http(address: SocketAddr, request: &str, headers: &str, body: &str) -> (u16, String) {
    let mut io = TcpStream::connect(address).unwrap();
    io.set_read_timeout(Some(LIMIT)).unwrap();
    write!(io, "{request} HTTP/1.1\r\nHost: {address}\r\nConnection: close\r\n{headers}\r\n{body}").unwrap();
    let mut answer = String::new();
    io.read_to_string(&mut answer).unwrap();
    let (head, body) = answer.split_once("\r\n\r\n").unwrap();
    (head.split(' ').nth(1).unwrap().parse().unwrap(), body.to_owned())
}

/// A WebSocket client that shows every byte: RFC 6455 by hand, with blocking reads that have a limit.
pub struct Socket {
    pub io: TcpStream,
}

impl Socket {
    /// Sends a handshake and returns the answer's head, with its body if it is not a 101.
    pub fn handshake(address: SocketAddr, path: &str, headers: &str) -> (Self, String) {
        Self::try_handshake(address, path, headers, LIMIT).expect("an answer to the handshake")
    }

    /// The same with a server that may not answer now: `None` if it does not within this time.
    pub fn try_handshake(
        address: SocketAddr,
        path: &str,
        headers: &str,
        patience: Duration,
    ) -> Option<(Self, String)> {
        let mut io = TcpStream::connect(address).ok()?;
        io.set_read_timeout(Some(patience)).ok()?;
        io.set_write_timeout(Some(LIMIT)).ok()?;
        write!(
            io,
            "GET {path} HTTP/1.1\r\nHost: {address}\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\
             Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==\r\n{headers}\r\n"
        )
        .ok()?;
        let mut head = Vec::new();
        while !head.ends_with(b"\r\n\r\n") {
            let mut byte = [0];
            io.read_exact(&mut byte).ok()?;
            head.push(byte[0]);
        }
        io.set_read_timeout(Some(LIMIT)).ok()?;
        let mut head = String::from_utf8(head).ok()?;
        if !head.starts_with("HTTP/1.1 101 ") {
            io.read_to_string(&mut head).ok()?;
        }
        Some((Self { io }, head))
    }

    /// Sends a masked frame with this first byte.
    pub fn send(&mut self, first: u8, payload: &[u8]) {
        let mut frame = header(first, payload.len());
        frame.extend([0; 4]);
        frame.extend(payload);
        self.io.write_all(&frame).unwrap();
    }

    /// Whether something comes in this time; it stays to be read.
    pub fn comes_within(&mut self, time: Duration) -> bool {
        self.io.set_read_timeout(Some(time)).unwrap();
        let came = self.io.peek(&mut [0]).is_ok_and(|count| count > 0);
        self.io.set_read_timeout(Some(LIMIT)).unwrap();
        came
    }

    /// The next frame: first byte and payload.
    pub fn frame(&mut self) -> (u8, Vec<u8>) {
        let mut head = [0; 2];
        self.io.read_exact(&mut head).unwrap();
        assert_eq!(head[1] & 0x80, 0, "a server's frames are not masked");
        let len = match head[1] {
            126 => {
                let mut len = [0; 2];
                self.io.read_exact(&mut len).unwrap();
                usize::from(u16::from_be_bytes(len))
            }
            127 => panic!("a frame over 32 KiB"),
            len => usize::from(len),
        };
        assert!(len <= 32_768, "a frame of {len} bytes");
        let mut payload = vec![0; len];
        self.io.read_exact(&mut payload).unwrap();
        (head[0], payload)
    }

    /// The next text message, joined from its fragments; answers pings.
    pub fn text(&mut self) -> String {
        let mut text = Vec::new();
        loop {
            match self.frame() {
                (0x89, payload) => self.send(0x8a, &payload),
                (first @ (0x01 | 0x81 | 0x00 | 0x80), payload) => {
                    assert_eq!(first & 0x0f == 1, text.is_empty(), "fragments out of order");
                    text.extend(payload);
                    if first & 0x80 != 0 {
                        return String::from_utf8(text).unwrap();
                    }
                }
                other => panic!("unexpected frame {other:?}"),
            }
        }
    }

    /// The next message's events, with their payloads decoded.
    pub fn batch(&mut self) -> Vec<TestEvent> {
        events(&self.text())
    }

    /// Reads until as many events have come, however they are grouped.
    pub fn events(&mut self, count: usize) -> VecDeque<TestEvent> {
        let mut all = VecDeque::new();
        while all.len() < count {
            all.extend(self.batch());
        }
        all
    }

    /// Reads to the close frame and returns its code.
    pub fn close_code(&mut self) -> u16 {
        loop {
            let (first, payload) = self.frame();
            if first == 0x88 {
                return u16::from_be_bytes([payload[0], payload[1]]);
            }
        }
    }

    /// Whether the server has ended the connection in an orderly way.
    pub fn at_end(&mut self) -> bool {
        matches!(self.io.read(&mut [0]), Ok(0))
    }
}

/// A masked frame's header, without its mask.
pub fn header(first: u8, len: usize) -> Vec<u8> {
    let mut frame = vec![first];
    match len {
        0..=125 => frame.push(0x80 | len as u8),
        126..=65_535 => {
            frame.push(0x80 | 126);
            frame.extend((len as u16).to_be_bytes());
        }
        _ => {
            frame.push(0x80 | 127);
            frame.extend((len as u64).to_be_bytes());
        }
    }
    frame
}

/// An event of a message, as far as tests look at it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TestEvent {
    pub id: String,
    pub topic: String,
    pub payload: String,
}

/// The events of a message's text.
pub fn events(text: &str) -> Vec<TestEvent> {
    let json: Value = serde_json::from_str(text).unwrap_or_else(|error| panic!("{error}: {text}"));
    let messages = json["messages"].as_array().unwrap();
    let event = |event: &Value| TestEvent {
        id: event["event_metadata"]["event_id"].as_str().unwrap().to_owned(),
        topic: event["details"]["mqtt_topic"].as_str().unwrap().to_owned(),
        payload: String::from_utf8(
            base64::engine::general_purpose::STANDARD
                .decode(event["details"]["payload"].as_str().unwrap())
                .unwrap(),
        )
        .unwrap(),
    };
    messages.iter().map(event).collect()
}
