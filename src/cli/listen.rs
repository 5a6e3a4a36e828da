//! `triggercast listen`: a WebSocket client that prints every batch as one line.
//!
//! Stdout is written as fast as its reader takes it. A reader that stops makes this client stop reading too, and the
//! server sees a slow client, as with any other.

mod end;

use std::io::{self, IsTerminal, Write};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context;
use futures_util::{FutureExt, SinkExt, StreamExt};
use tokio::net::TcpStream;
use tokio::sync::watch;
use tokio_tungstenite::tungstenite::client::IntoClientRequest;
use tokio_tungstenite::tungstenite::handshake::client::Request;
use tokio_tungstenite::tungstenite::http::HeaderValue;
use tokio_tungstenite::tungstenite::{Error, Message};
use tokio_tungstenite::{Connector, MaybeTlsStream, WebSocketStream, connect_async_tls_with_config};

use super::{Failure, interrupt, output, render};
use crate::config;
use crate::model::event::EventId;
use crate::tls;
use end::End;

const EXAMPLES: &str = "\
Examples:
  triggercast listen ws://127.0.0.1:8080/main/ws             batches, one a line, byte for byte
  triggercast listen ws://127.0.0.1:8080/main/ws --decode    events, one a line, payloads as text
  triggercast listen ws://127.0.0.1:8080/main/ws --count 1   one batch, then end
  triggercast listen ws://127.0.0.1:8080/main/ws | jq .
  triggercast listen wss://localhost:8080/main/ws            under TLS, on the machine of the server

Exit codes: 0 closed in good order (1000, 1001, 1012), count reached, or Ctrl-C; 2 bad arguments; 1 anything else.";

const CONNECTION_ID: &str = "x-yc-apigateway-websocket-connection-id";
/// How long the server may take to accept, and to say goodbye.
const CONNECT_TIME: Duration = Duration::from_secs(10);
const CLOSE_TIME: Duration = Duration::from_secs(2);
const FIRST_DELAY: Duration = Duration::from_millis(250);
const LONGEST_DELAY: Duration = Duration::from_secs(10);

/// Where to listen, and how to print.
#[derive(Debug, clap::Args)]
#[command(after_help = EXAMPLES)]
pub struct Args {
    /// The address, ws://HOST[:PORT]/{gateway id}{path}; wss:// for TLS.
    url: String,
    /// End after this many messages.
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u64).range(1..))]
    count: Option<u64>,
    /// Print events instead: time, topic and payload, as text where it is UTF-8.
    #[arg(long)]
    decode: bool,
    /// Certificates in PEM form to trust besides the system's, for wss://. Default: those of the configuration's server,
    /// if they are on this machine.
    #[arg(long, value_name = "FILE", env = "TRIGGERCAST_CA_FILE", hide_env_values = true)]
    ca_file: Option<PathBuf>,
    /// The Origin header to send, as a browser would.
    #[arg(long, value_name = "ORIGIN")]
    origin: Option<String>,
    /// Come back after the connection is lost, or closed with a code that allows it, and get what was missed.
    #[arg(long)]
    reconnect: bool,
    /// Show progress on stderr every second; on a terminal it is shown anyway.
    #[arg(long)]
    progress: bool,
}

type Socket = WebSocketStream<MaybeTlsStream<TcpStream>>;

/// Listens until the end that the arguments ask for.
pub(super) fn run(args: Args, config: &Path) -> Result<(), Failure> {
    let request = request(&args)?;
    let tls = tls(&args, config)?;
    // One thread beside this one, which may hang in a write to stdout.
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build()?;
    let stop = runtime.block_on(async { interrupt::watched() })?;
    let mut listener = Listener {
        progress: args.progress || io::stderr().is_terminal(),
        args,
        tls,
        last: None,
        seen: Seen::default(),
        stop,
        out: io::BufWriter::with_capacity(1 << 16, io::stdout().lock()),
    };
    let end = runtime.block_on(listener.listen(request));
    let flushed = output::closed_is_done(listener.out.flush());
    if listener.progress {
        let Seen { messages, events, .. } = listener.seen;
        output::to_stderr(format_args!("in all {messages} messages, {events} events"));
    }
    end?;
    Ok(flushed?)
}

fn request(args: &Args) -> Result<Request, Failure> {
    let input = |message: String| Failure::Input(message);
    match args.url.split_once("://") {
        Some(("ws" | "wss", _)) => {}
        _ => return Err(input(format!("{:?} is not a WebSocket address: ws://HOST[:PORT]/PATH", args.url))),
    }
    let mut request = args
        .url
        .as_str()
        .into_client_request()
        .map_err(|error| input(format!("{:?} is not a WebSocket address: {error}", args.url)))?;
    if let Some(origin) = &args.origin {
        let value = HeaderValue::from_str(origin)
            .map_err(|_| input(format!("--origin: {origin:?} cannot be a header's value")))?;
        request.headers_mut().insert("origin", value);
    }
    Ok(request)
}

/// How the server is trusted, if that is asked for.
fn tls(args: &Args, config: &Path) -> Result<Connector, Failure> {
    if !args.url.starts_with("wss:") {
        return Ok(Connector::Plain);
    }
    let own = || {
        let settings = config::load(config).ok()?;
        Some(tls::ca_file(&settings.data_dir)).filter(|file| file.exists())
    };
    let file = args.ca_file.clone().or_else(own);
    let config = tls::client_config(file.as_deref())
        .map_err(|error| Failure::Input(format!("the certificates to trust cannot be used: {error}")))?;
    Ok(Connector::Rustls(Arc::new(config)))
}

/// What came so far, over all connections.
#[derive(Default)]
struct Seen {
    messages: u64,
    events: u64,
    bytes: u64,
}

struct Listener {
    args: Args,
    tls: Connector,
    progress: bool,
    /// The id of the last event that was printed, once there is one.
    last: Option<EventId>,
    seen: Seen,
    stop: watch::Receiver<bool>,
    out: io::BufWriter<io::StdoutLock<'static>>,
}

impl Listener {
    /// One connection after the other.
    async fn listen(&mut self, request: Request) -> anyhow::Result<()> {
        let mut delay = FIRST_DELAY;
        loop {
            let before = self.seen.messages;
            let end = self.one_connection(self.resumed(&request)).await?;
            if end.is_last() {
                return end.into_result(None);
            }
            if !(self.args.reconnect && end.may_come_back()) {
                return end.into_result(Some(&self.args.url));
            }
            if self.seen.messages > before {
                delay = FIRST_DELAY;
            }
            let wait = delay.mul_f64(rand::random_range(0.5..1.0));
            output::to_stderr(format_args!("{end}; coming back in {:.1} s", wait.as_secs_f64()));
            tokio::select! {
                () = tokio::time::sleep(wait) => {}
                () = interrupt::of(&mut self.stop) => return Ok(()),
            }
            delay = (delay * 2).min(LONGEST_DELAY);
        }
    }

    /// The request, going on after what was printed.
    fn resumed(&self, request: &Request) -> Request {
        let mut request = request.clone();
        let id = self.last.and_then(|id| HeaderValue::from_str(&id.to_string()).ok());
        if let Some(id) = id {
            request.headers_mut().insert("last-event-id", id);
        }
        request
    }

    async fn one_connection(&mut self, request: Request) -> anyhow::Result<End> {
        let connect = connect_async_tls_with_config(request, None, true, Some(self.tls.clone()));
        let connected = tokio::select! {
            connected = tokio::time::timeout(CONNECT_TIME, connect) => connected,
            () = interrupt::of(&mut self.stop) => return Ok(End::Asked),
        };
        let (mut socket, response) = match connected {
            Ok(Ok(connected)) => connected,
            Ok(Err(Error::Http(response))) => return Ok(End::refused(&response)),
            Ok(Err(error)) => return Ok(End::Lost(error.to_string())),
            Err(_) => return Ok(End::Lost(format!("no answer within {} s", CONNECT_TIME.as_secs()))),
        };
        if self.progress {
            let id =
                response.headers().get(CONNECTION_ID).and_then(|id| id.to_str().ok()).unwrap_or("unknown");
            output::to_stderr(format_args!("connected as {id}"));
        }
        let end = self.read(&mut socket).await?;
        if end.is_last() {
            // Whoever has read enough says goodbye, and does not mind the answer.
            let goodbye = async {
                socket.close(None).await?;
                while let Some(Ok(_)) = socket.next().await {}
                socket.flush().await
            };
            let _ = tokio::time::timeout(CLOSE_TIME, goodbye).await;
        }
        Ok(end)
    }

    /// Reads messages to the end of the connection. Lines are written together while more messages wait.
    async fn read(&mut self, socket: &mut Socket) -> anyhow::Result<End> {
        let mut tick = tokio::time::interval(Duration::from_secs(1));
        tick.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        tick.tick().await;
        let mut shown = self.seen.bytes;
        let mut batch = 0_u32;
        loop {
            // Even while messages never end, timers and signals get their turn.
            let ready = if batch < 1024 { socket.next().now_or_never() } else { None };
            batch += 1;
            let message = if let Some(message) = ready {
                message
            } else {
                batch = 0;
                if let Err(error) = self.out.flush() {
                    return closed(error);
                }
                tokio::select! {
                    biased;
                    () = interrupt::of(&mut self.stop) => return Ok(End::Asked),
                    _ = tick.tick() => {
                        self.show(&mut shown);
                        continue;
                    }
                    message = socket.next() => message,
                }
            };
            let text = match message {
                Some(Ok(Message::Text(text))) => bytes::Bytes::from(text),
                Some(Ok(Message::Binary(bytes))) => bytes,
                Some(Ok(Message::Close(frame))) => return Ok(End::Closed(frame)),
                // Pings are answered by the library, when it reads on.
                Some(Ok(_)) => continue,
                Some(Err(error)) => return Ok(End::Lost(error.to_string())),
                None => return Ok(End::Closed(None)),
            };
            if let Err(error) = self.print(&text) {
                return closed(error);
            }
            if self.args.count.is_some_and(|count| self.seen.messages >= count) {
                return Ok(End::Counted);
            }
        }
    }

    fn print(&mut self, message: &[u8]) -> io::Result<()> {
        self.seen.messages += 1;
        self.seen.bytes += message.len() as u64;
        if self.args.reconnect {
            self.last = render::last_id(message).or(self.last);
        }
        if self.progress {
            self.seen.events += render::count_events(message);
        }
        if self.args.decode {
            render::events(message, &mut self.out)
        } else {
            self.out.write_all(message)?;
            self.out.write_all(b"\n")
        }
    }

    fn show(&self, shown: &mut u64) {
        if self.progress {
            let Seen { messages, events, bytes } = self.seen;
            output::to_stderr(format_args!(
                "{messages} messages, {events} events, {} bytes/s",
                bytes - *shown
            ));
            *shown = bytes;
        }
    }
}

/// A reader of stdout that has gone (`| head -1`) has read enough.
fn closed(error: io::Error) -> anyhow::Result<End> {
    output::closed_is_done(Err(error)).context("stdout cannot be written")?;
    Ok(End::OutputClosed)
}
