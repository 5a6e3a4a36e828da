//! A container registry that is as large as one likes and holds nothing but names, and the notifications that it would send.

use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::{Ipv4Addr, TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use anyhow::{Context, Result, bail, ensure};

/// What notifications show.
pub(crate) const TOKEN: &str = "Registry-bench-1";

/// The digest of an image, by its number.
fn digest(number: u64) -> String {
    format!("sha256:{number:064x}")
}

/// Answers for so many repositories, with so many tags each. The images behind the tags are others in each generation.
#[derive(Debug)]
pub(crate) struct FakeRegistry {
    pub(crate) port: u16,
    pub(crate) generation: Arc<AtomicU64>,
    pub(crate) requests: Arc<AtomicU64>,
}

impl FakeRegistry {
    pub(crate) fn start(repositories: u64, tags: u64) -> Result<Self> {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?;
        let port = listener.local_addr()?.port();
        let (generation, requests) = (Arc::new(AtomicU64::new(1)), Arc::new(AtomicU64::new(0)));
        let (current, count) = (Arc::clone(&generation), Arc::clone(&requests));
        std::thread::spawn(move || {
            for stream in listener.incoming().map_while(std::io::Result::ok) {
                let (current, count) = (Arc::clone(&current), Arc::clone(&count));
                // A connection that ends badly is the client's affair.
                std::thread::spawn(move || serve(stream, repositories, tags, &current, &count));
            }
        });
        Ok(Self { port, generation, requests })
    }
}

fn serve(
    stream: TcpStream,
    repositories: u64,
    tags: u64,
    generation: &AtomicU64,
    count: &AtomicU64,
) -> Result<()> {
    stream.set_nodelay(true)?;
    let mut input = BufReader::new(stream.try_clone()?);
    let mut output = stream;
    let (mut request, mut line) = (String::new(), String::new());
    loop {
        request.clear();
        if input.read_line(&mut request)? == 0 {
            return Ok(());
        }
        loop {
            line.clear();
            input.read_line(&mut line)?;
            if line.trim().is_empty() {
                break;
            }
        }
        count.fetch_add(1, Ordering::Relaxed);
        let path = request.split(' ').nth(1).context("no path")?;
        let names = |names: Vec<String>| format!("[\"{}\"]", names.join("\",\""));
        let (headers, body) = if path.starts_with("/v2/_catalog") {
            let last = path.split("last=").nth(1).and_then(|rest| rest.split('&').next());
            let from =
                last.and_then(|last| last.strip_prefix("app-")?.parse().ok()).map_or(0, |last: u64| last + 1);
            let to = (from + 1000).min(repositories);
            let next = format!("Link: </v2/_catalog?last=app-{:06}&n=1000>; rel=\"next\"\r\n", to - 1);
            let page = (from..to).map(|number| format!("app-{number:06}")).collect();
            let headers = if to < repositories { next } else { String::new() };
            (headers, format!("{{\"repositories\":{}}}", names(page)))
        } else if path.contains("/tags/list") {
            (
                String::new(),
                format!("{{\"tags\":{}}}", names((0..tags).map(|tag| format!("v{tag}")).collect())),
            )
        } else if let Some((repository, tag)) = path.split_once("/manifests/v") {
            let repository: u64 =
                repository.strip_prefix("/v2/app-").context("another repository")?.parse()?;
            let image = generation.load(Ordering::Relaxed) << 40 | repository << 16 | tag.parse::<u64>()?;
            let media_type = "application/vnd.docker.distribution.manifest.v2+json";
            (
                format!("Docker-Content-Digest: {}\r\nContent-Type: {media_type}\r\n", digest(image)),
                String::new(),
            )
        } else {
            (String::new(), "{}".to_owned())
        };
        let answer = format!("HTTP/1.1 200 OK\r\n{headers}Content-Length: {}\r\n\r\n{body}", body.len());
        output.write_all(answer.as_bytes())?;
    }
}

/// The notification of a first push, as CNCF Distribution writes it, for an image of its own.
pub(crate) fn notification(number: u64) -> String {
    format!(
        r#"{{"events":[{{"id":"00000000-0000-4000-8000-{number:012x}","timestamp":"2026-11-21T02:00:15.857019077Z","action":"push","target":{{"mediaType":"application/vnd.docker.distribution.manifest.v2+json","size":451,"length":451,"digest":"{}","repository":"team/app-{}","url":"http://127.0.0.1:5000/v2/team/app/manifests/sha256:e0b9cc","tag":"v{number}"}},"request":{{"id":"00000000-0000-4000-9000-{number:012x}","addr":"127.0.0.1:51714","host":"127.0.0.1:5000","method":"PUT","useragent":"bench/1"}},"actor":{{"name":"alice"}},"source":{{"addr":"vm:5000","instanceID":"d6863ef7-d451-4b0c-b9f5-8e9b8fd1f0a7"}}}}]}}"#,
        digest(number),
        number % 100,
    )
}

/// POST on a connection of its own, as CNCF Distribution does it. The answer's body; it must be 200.
pub(crate) fn post(port: u16, call: &str, body: &str) -> Result<String> {
    let mut stream = TcpStream::connect((Ipv4Addr::LOCALHOST, port))?;
    stream.set_nodelay(true)?;
    let request = format!(
        "POST /container-registry/v1/registries/images{call} HTTP/1.1\r\nHost: 127.0.0.1:{port}\r\nConnection: close\r\n\
         Authorization: Bearer {TOKEN}\r\nContent-Length: {}\r\n\r\n{body}",
        body.len()
    );
    stream.write_all(request.as_bytes())?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer)?;
    let (head, body) = answer.split_once("\r\n\r\n").context("no answer")?;
    if !head.starts_with("HTTP/1.1 200 ") {
        bail!("{head}: {body}");
    }
    Ok(body.to_owned())
}

/// Posts notifications from so many senders for a time; how many were taken.
pub(crate) fn notify(
    port: u16,
    senders: usize,
    time: std::time::Duration,
    next: &Arc<AtomicU64>,
) -> Result<u64> {
    let begun = std::time::Instant::now();
    let sender = |_| {
        let next = Arc::clone(next);
        std::thread::spawn(move || -> Result<u64> {
            let mut taken = 0;
            while begun.elapsed() < time {
                let answer =
                    post(port, "/notifications", &notification(next.fetch_add(1, Ordering::Relaxed)))?;
                ensure!(answer.contains("\"events\":2"), "{answer}");
                taken += 1;
            }
            Ok(taken)
        })
    };
    let senders: Vec<_> = (0..senders).map(sender).collect();
    let join = |sender: std::thread::JoinHandle<Result<u64>>| {
        sender.join().map_err(|_| anyhow::anyhow!("a panic"))?
    };
    senders.into_iter().map(join).sum()
}
