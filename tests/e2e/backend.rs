//! A server that integrations ask, and servers whose gateway is an OpenAPI document that names it.

use std::collections::HashMap;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::sync::{Arc, Mutex};

use crate::common::{BEGINNING, LIMIT, TestServer};

/// A request that a backend got.
#[derive(Debug, Clone)]
pub struct Asked {
    pub line: String,
    pub headers: HashMap<String, String>,
    pub body: Vec<u8>,
}

impl Asked {
    /// A header that tells of the connection.
    pub fn own(&self, name: &str) -> &str {
        let name = format!("x-yc-apigateway-websocket-{name}");
        self.headers.get(&name).map_or("", String::as_str)
    }
}

/// What a backend answers: status line, more headers, body.
pub type Reply = (&'static str, String, Vec<u8>);

/// A server that integrations ask.
pub struct Backend {
    pub address: SocketAddr,
    pub asked: Mutex<Receiver<Asked>>,
}

impl Backend {
    /// Starts one that answers so; `None` answers nothing, for ever.
    pub fn start(reply: impl Fn(&Asked) -> Option<Reply> + Send + Sync + 'static) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let (tell, asked) = channel();
        let reply = Arc::new(reply);
        std::thread::spawn(move || {
            for io in listener.incoming().flatten() {
                let (tell, reply) = (tell.clone(), Arc::clone(&reply));
                std::thread::spawn(move || serve(io, &tell, &*reply));
            }
        });
        Self { address, asked: Mutex::new(asked) }
    }

    /// The next request.
    pub fn next(&self) -> Asked {
        self.asked.lock().unwrap().recv_timeout(LIMIT).expect("the backend is asked")
    }
}

/// Answers until the other side ends; `None` answers nothing, for ever.
fn serve(io: TcpStream, tell: &Sender<Asked>, reply: &dyn Fn(&Asked) -> Option<Reply>) {
    let mut input = BufReader::new(io.try_clone().unwrap());
    let mut output = io;
    loop {
        let mut lines = Vec::new();
        loop {
            let mut line = String::new();
            if !matches!(input.read_line(&mut line), Ok(1..)) {
                return;
            }
            match line.trim_end() {
                "" => break,
                line => lines.push(line.to_owned()),
            }
        }
        let pairs = lines[1..].iter().filter_map(|line| line.split_once(": "));
        let headers: HashMap<_, _> =
            pairs.map(|(name, value)| (name.to_ascii_lowercase(), value.to_owned())).collect();
        let len = headers.get("content-length").map_or(0, |len| len.parse().unwrap());
        let mut body = vec![0; len];
        input.read_exact(&mut body).unwrap();
        let asked = Asked { line: lines[0].clone(), headers, body };
        let _ = tell.send(asked.clone());
        let Some((status, more, body)) = reply(&asked) else {
            let _ = input.read(&mut [0]);
            return;
        };
        let head = format!("HTTP/1.1 {status}\r\n{more}content-length: {}\r\n\r\n", body.len());
        if output.write_all(&[head.as_bytes(), &body].concat()).is_err() {
            return;
        }
    }
}

/// A server whose gateway `main` is a document with these paths; integrations may ask `backend`.
pub fn start(backend: SocketAddr, paths: &str) -> TestServer {
    let document = format!("openapi: 3.0.0\ninfo: {{ title: test, version: '1' }}\npaths:\n{paths}");
    let document = document.replace("BACKEND", &backend.to_string());
    let beginning = BEGINNING
        .replace("drain: 100ms }", &format!("drain: 100ms, allowed_local_targets: [\"{backend}\"] }}"));
    let config = format!("{beginning}gateways:\n  - {{ id: main, openapi: gateway.yaml }}\n");
    TestServer::start_with("gateway.yaml", &document, &config)
}

/// A hook that asks the backend.
pub fn http(event: &str, rest: &str) -> String {
    format!(
        "    x-yc-apigateway-websocket-{event}:\n      x-yc-apigateway-integration: {{ type: http, url: 'http://BACKEND/{event}'{rest} }}\n"
    )
}
