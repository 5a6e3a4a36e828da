//! Clients with filters, and clients with compression.

use std::sync::LazyLock;

use super::*;
use crate::gateway::deflate::{deflate, inflate};

const DEFLATE: &str = "Sec-WebSocket-Extensions: permessage-deflate; client_max_window_bits\r\n";

/// What does not become much shorter when it is compressed.
static NOISE: LazyLock<String> =
    LazyLock::new(|| (0..200_000).map(|_| char::from(rand::random_range(b'a'..=b'z'))).collect());

/// Devices of the events here; event `n` is of device `n % DEVICES`.
const DEVICES: usize = 5;

fn deflated(backlog_bytes: usize) -> GatewayPath {
    GatewayPath { deflate: true, backlog_bytes, ..GatewayPath::new("/ws") }
}

impl Bench {
    /// Broadcasts numbered events, each padded to `len`, in batches of seven, a batch at a time.
    async fn tell(&self, range: std::ops::Range<usize>, len: usize) {
        for batch in numbered(range, len) {
            let broadcast = Broadcast { path: "/ws".into(), origin: None, batches: Arc::new(vec![batch]) };
            self.gateway.send(broadcast).await.unwrap();
        }
    }

    async fn client_with(&self, path: &str, headers: &'static str) -> Client {
        let (address, path) = (self.address, path.to_owned());
        let connect = move || Client::connect_with(address, &path, headers);
        actix_rt::task::spawn_blocking(connect).await.unwrap()
    }
}

fn numbered(range: std::ops::Range<usize>, len: usize) -> Vec<Vec<Event>> {
    let numbers: Vec<usize> = range.collect();
    let one = |n: &usize| {
        let (device, topic) = (n % DEVICES, n % 3);
        let kind = if n.is_multiple_of(2) { "Even" } else { "Odd" };
        let noise = &NOISE[n * 3001 % 150_000..][..len];
        let json = format!(
            r#"{{"event_metadata":{{"event_type":"org.example.{kind}"}},"details":{{"device_id":"d{device}","mqtt_topic":"t/{topic}","payload":"{noise}"}},"n":{n}}}"#
        );
        event(json.as_bytes())
    };
    numbers.chunks(7).map(|seven| seven.iter().map(one).collect()).collect()
}

/// The numbers in a message's text.
fn numbers_of(text: &str) -> Vec<usize> {
    let json: serde_json::Value =
        serde_json::from_str(text).unwrap_or_else(|error| panic!("{error}: {text}"));
    let messages = json["messages"].as_array().unwrap();
    assert!(!messages.is_empty(), "a message without events");
    messages.iter().map(|event| event["n"].as_u64().unwrap() as usize).collect()
}

impl Client {
    /// The next text, joined and inflated; pings are left out. Also whether it was compressed.
    pub(super) fn message(&mut self) -> (String, bool) {
        let (mut all, mut packed) = (Vec::new(), false);
        loop {
            let (first, payload) = self.raw_frame();
            match first & 0x0f {
                0x9 => continue,
                0x1 => packed = first & 0x40 != 0,
                opcode => {
                    assert_eq!((opcode, first & 0x40), (0, 0), "{:?}", String::from_utf8_lossy(&payload))
                }
            }
            all.extend(payload);
            if first & 0x80 != 0 {
                let text = if packed { inflate(&all, 1 << 20).unwrap() } else { all };
                return (String::from_utf8(text).unwrap(), packed);
            }
        }
    }

    /// The numbers that come, until `last` is among them.
    fn numbers_until(mut self, last: usize) -> Vec<usize> {
        let mut numbers = Vec::new();
        while numbers.last() != Some(&last) {
            numbers.extend(numbers_of(&self.message().0));
        }
        numbers
    }

    fn send(&mut self, first: u8, payload: &[u8]) {
        let mut frame = vec![first];
        match payload.len() {
            len @ 0..=125 => frame.push(0x80 | len as u8),
            len => {
                frame.push(0x80 | 126);
                frame.extend((len as u16).to_be_bytes());
            }
        }
        frame.extend([0; 4]);
        frame.extend(payload);
        self.io.write_all(&frame).unwrap();
    }
}

/// Reads server-sent events until `last` is among them.
fn stream_until(mut io: TcpStream, last: usize) -> Vec<usize> {
    io.set_read_timeout(Some(LIMIT)).unwrap();
    let (mut bytes, mut part) = (Vec::new(), [0; 65_536]);
    let mark = format!("\"n\":{last}}}]}}\n\n");
    while !bytes.windows(mark.len()).any(|window| window == mark.as_bytes()) {
        let read = io.read(&mut part).unwrap();
        assert!(read > 0, "the response ended");
        bytes.extend_from_slice(&part[..read]);
    }
    let text = String::from_utf8(bytes).unwrap();
    // Lengths of chunks stand between, and perhaps within, the lines.
    let mut rest = text.split_once("\r\n\r\n").unwrap().1;
    let mut body = String::new();
    while let Some((len, after)) = rest.split_once("\r\n") {
        let len = usize::from_str_radix(len, 16).unwrap();
        assert!(len > 0, "an empty chunk ends the response");
        body.push_str(&after[..len.min(after.len())]);
        rest = after.get(len + 2..).unwrap_or_default();
    }
    body.lines().filter_map(|line| line.strip_prefix("data: ")).flat_map(numbers_of).collect()
}

fn wanted(range: std::ops::Range<usize>, wants: impl Fn(usize) -> bool) -> Vec<usize> {
    range.filter(|n| wants(*n)).collect()
}

#[actix::test]
async fn filters_let_through_what_is_wanted_live_and_from_the_journal_while_events_pour_in() {
    let bench = Bench::with(2, deflated(1 << 20), 1000);
    bench.tell(0..2100, 10).await;
    let mut readers = Vec::new();
    for round in 0..30 {
        let from = 2100 + round * 140;
        let last = 1 + (round * 97) % 2000;
        let (query, wants): (String, Box<dyn Fn(usize) -> bool>) = match round % 4 {
            0 => (format!("device=d{}", round % DEVICES), Box::new(move |n| n % DEVICES == round % DEVICES)),
            1 => ("topic=t/1&topic=t/2".into(), Box::new(|n| n % 3 != 0)),
            2 => (
                "event_type=org.example.Even&device=d4&device=d1".into(),
                Box::new(|n| n % 2 == 0 && (n % 5 == 4 || n % 5 == 1)),
            ),
            _ => ("topic=%23".into(), Box::new(|_| true)),
        };
        // It starts within a batch, mostly.
        let path = format!("/ws?last={last}&{query}");
        let headers = if round % 3 == 0 { DEFLATE } else { "" };
        let address = bench.address;
        let until = wanted(0..6300, &wants).pop().unwrap();
        let is_stream = round % 3 == 2;
        let got = if is_stream {
            let io = stream(address, &path, "");
            actix_rt::task::spawn_blocking(move || stream_until(io, until))
        } else {
            let client = bench.client_with(&path, headers).await;
            assert_eq!(
                client.head.contains("Sec-WebSocket-Extensions: permessage-deflate; server_no"),
                !headers.is_empty()
            );
            actix_rt::task::spawn_blocking(move || client.numbers_until(until))
        };
        readers.push((from - last, path, wants, is_stream, got));
        bench.tell(from..from + 140, 10).await;
    }
    for (begin, path, wants, is_stream, got) in readers {
        let got = got.await.unwrap();
        // A stream's request may be read a little later.
        let begin = if is_stream { begin.max(got[0]) } else { begin };
        assert_eq!(got, wanted(begin..6300, wants), "{path}");
    }
}

/// A socket that holds little.
fn narrow(address: SocketAddr) -> TcpStream {
    let socket = socket2::Socket::new(socket2::Domain::IPV4, socket2::Type::STREAM, None).unwrap();
    socket.set_recv_buffer_size(16 * 1024).unwrap();
    socket.connect(&address.into()).unwrap();
    socket.into()
}

#[actix::test]
async fn a_stalled_client_with_a_filter_reads_on_from_the_journal_and_comes_back() {
    for headers in ["", DEFLATE] {
        let bench = Bench::with(1, deflated(128 * 1024), 100);
        let path = "/ws?device=d1&device=d2&device=d3";
        let address = bench.address;
        let connect = move || Client::over(narrow(address), path, headers);
        let stalled = actix_rt::task::spawn_blocking(connect).await.unwrap();
        let good = bench.client_with("/ws?device=d2", headers).await;
        let last = 2_002;
        let reader = actix_rt::task::spawn_blocking(move || good.numbers_until(last));
        let behind = || METRICS.slow_clients.get(["replay"]);
        let before = behind();
        bench.tell(0..1400, 3000).await; // 2.5 MB for it
        until("the stalled client's change to the journal", || behind() > before).await;
        let late = actix_rt::task::spawn_blocking(move || stalled.numbers_until(last));
        bench.tell(1400..last + 1, 3000).await;
        assert_eq!(reader.await.unwrap(), wanted(0..last + 1, |n| n % 5 == 2));
        assert_eq!(late.await.unwrap(), wanted(0..last + 1, |n| (1..=3).contains(&(n % 5))));
    }
}

#[actix::test]
async fn what_was_not_delivered_is_found_by_clients_with_a_filter() {
    for query in ["/ws?device=d2", "/ws?device=d2&last=7"] {
        let bench = Bench::new(1, 1 << 20, 100);
        bench.tell(0..7, 1).await;
        let client = bench.client(query).await;
        let address = bench.address;
        let before = METRICS.event_streams.get();
        let io = stream(address, query, "");
        until("the stream", || METRICS.event_streams.get() > before).await;
        bench.tell(7..14, 1).await;
        bench.gateway.send(Flush).await.unwrap();
        let entry = bench.directory.find("h", "/main/ws").unwrap().route.entry;
        let lost = Arc::new(numbered(14..21, 1));
        entry.journal.append(Run { path: entry.key.clone(), origin: None, batches: lost }).unwrap();
        // What shows that something was lost has nothing for them.
        let nothing = Arc::new(vec![vec![event(b"{}")]]);
        bench.gateway.send(Broadcast { path: "/ws".into(), origin: None, batches: nothing }).await.unwrap();
        let begin = if query.contains("last") { 0 } else { 7 };
        let expected = wanted(begin..21, |n| n % 5 == 2);
        assert_eq!(client.with(|client| client.numbers_until(17)).await, expected, "{query}");
        let streamed = actix_rt::task::spawn_blocking(move || stream_until(io, 17));
        assert_eq!(streamed.await.unwrap(), expected, "{query}");
    }
}

#[actix::test]
async fn bad_filters_are_refused_with_words_and_different_ones_have_their_bound() {
    let bench = Bench::new(1, 1 << 20, 10_000);
    let refused = |path: &'static str| {
        let client = bench.client(path);
        async move {
            let mut client = client.await;
            assert!(client.head.starts_with("HTTP/1.1 400 "), "{}", client.head);
            let mut body = String::new();
            client.io.read_to_string(&mut body).unwrap();
            body
        }
    };
    assert!(refused("/ws?device=A").await.contains("device: \\\"A\\\" is not the id of a device"));
    assert!(refused("/ws?topic=a%23").await.contains("topic: \\\"a#\\\""));
    assert!(refused("/ws?event_type=x").await.contains("event_type: \\\"x\\\" is not one of CreateImage"));
    let address = bench.address;
    let open = move |range: std::ops::Range<usize>| {
        actix_rt::task::spawn_blocking(move || {
            range.map(|n| Client::connect(address, &format!("/ws?device=d{n}"))).collect::<Vec<_>>()
        })
    };
    let full = open(0..paths::MAX_FILTERED).await.unwrap();
    assert!(full.iter().all(|client| client.head.starts_with("HTTP/1.1 101 ")));
    let more = bench.client("/ws?device=one-more").await;
    assert!(more.head.starts_with("HTTP/1.1 503 "), "{}", more.head);
    // One that is known has room, and so has one without a filter.
    assert!(bench.client("/ws?device=d7").await.head.starts_with("HTTP/1.1 101 "));
    assert!(bench.client("/ws").await.head.starts_with("HTTP/1.1 101 "));
    bench.tell(0..14, 1).await;
    let third = full.into_iter().nth(2).unwrap();
    assert_eq!(third.with(|client| client.numbers_until(12)).await, [2, 7, 12]);
    // All have gone but one, and their filters with them.
    let start = Instant::now();
    while !bench.client("/ws?device=one-more").await.head.starts_with("HTTP/1.1 101 ") {
        assert!(start.elapsed() < LIMIT, "filters that nobody has keep others out");
    }
}

#[actix::test]
async fn compressed_and_plain_clients_see_the_same_messages() {
    let bench = Bench::with(1, deflated(1 << 20), 100);
    let mut all = Vec::new();
    for (path, headers) in [("/ws", ""), ("/ws", DEFLATE), ("/ws?topic=%23", DEFLATE), ("/ws?topic=%23", "")]
    {
        all.push(bench.client_with(path, headers).await);
    }
    let large = numbered(0..70, 5000).concat(); // 350 KB of text in one message
    let random: Vec<u8> = (0..90_000).map(|_| rand::random_range(b'a'..=b'z')).collect();
    let random =
        format!(r#"{{"n":1,"details":{{"mqtt_topic":"x"}},"r":"{}"}}"#, String::from_utf8(random).unwrap());
    let batches = vec![numbered(0..1, 1).remove(0), large, vec![event(random.as_bytes())]];
    let texts: Vec<_> = batches.iter().map(|batch| crate::model::message::join(batch)).collect();
    let broadcast = Broadcast { path: "/ws".into(), origin: None, batches: Arc::new(batches) };
    bench.gateway.send(broadcast).await.unwrap();
    for (n, client) in all.into_iter().enumerate() {
        let got = client.with(|mut client| [client.message(), client.message(), client.message()]).await;
        assert!(got.iter().zip(&texts).all(|((text, _), expected)| text.as_bytes() == expected), "{n}");
        let is_deflated = n == 1 || n == 2;
        assert_eq!(got.map(|(_, packed)| packed), [false, is_deflated, is_deflated], "{n}");
    }
    // A path that does not compress answers no offer.
    let plain = Bench::new(1, 1 << 20, 100);
    let client = plain.client_with("/ws", DEFLATE).await;
    assert!(
        client.head.starts_with("HTTP/1.1 101 ") && !client.head.contains("xtensions"),
        "{}",
        client.head
    );
    let malformed = bench.client_with("/ws", "Sec-WebSocket-Extensions: permessage-deflate;\r\n").await;
    assert!(malformed.head.starts_with("HTTP/1.1 400 "), "{}", malformed.head);
}

#[actix::test]
async fn what_clients_compress_is_read_within_the_bounds_of_a_message() {
    let bench = Bench::with(1, deflated(1 << 20), 100);
    let text = "what a client says ".repeat(500);
    let good = deflate(text.as_bytes()).unwrap();
    let bomb = deflate(&vec![b'x'; 20 << 20]).unwrap();
    let half = good.len() / 2;
    let ping: (u8, &[u8]) = (0x89, b"p");
    type Frames<'a> = Vec<(u8, &'a [u8])>;
    let cases: [(&str, &str, Frames<'_>, Option<u16>); 11] = [
        ("whole", DEFLATE, vec![(0xc1, &good), ping], None),
        ("binary", DEFLATE, vec![(0xc2, &good), ping], None),
        ("plain", DEFLATE, vec![(0x81, text.as_bytes()), ping], None),
        (
            "in fragments, with a ping between",
            DEFLATE,
            vec![(0x41, &good[..half]), ping, (0x80, &good[half..])],
            None,
        ),
        ("a bomb", DEFLATE, vec![(0xc1, &bomb[..20_000])], Some(1009)),
        (
            "a bomb in fragments",
            DEFLATE,
            vec![(0x41, &bomb[..10_000]), (0x80, &bomb[10_000..20_000])],
            Some(1009),
        ),
        ("corrupt", DEFLATE, vec![(0xc1, &[0xff; 50])], Some(1007)),
        ("cut", DEFLATE, vec![(0xc1, &good[..half])], Some(1007)),
        ("the bit on a fragment", DEFLATE, vec![(0x41, &good[..half]), (0xc0, &good[half..])], Some(1002)),
        ("the bit on a ping", DEFLATE, vec![(0xc9, b"p")], Some(1002)),
        ("not agreed on", "", vec![(0xc1, &good)], Some(1002)),
    ];
    for (what, headers, frames, code) in cases {
        let mut client = bench.client_with("/ws", headers).await;
        frames.iter().for_each(|(first, payload)| client.send(*first, payload));
        match code {
            Some(code) => assert_eq!(client.with(|mut client| client.rest().1).await, Some(code), "{what}"),
            None => {
                let pong = client.with(|mut client| {
                    let pong = client.frame();
                    client.send(0x88, &[0x03, 0xe8]);
                    (pong, client.rest().1)
                });
                assert_eq!(pong.await, ((0x8a, b"p".to_vec()), Some(1000)), "{what}");
            }
        }
    }
}

#[actix::test]
async fn a_single_connection_is_found_whatever_it_sees() {
    let bench = Bench::with(2, deflated(1 << 20), 100);
    let connections = Connections::new(Arc::clone(&bench.directory), bench.listener.workers());
    for (path, headers) in [("/ws?device=d1", ""), ("/ws", DEFLATE), ("/ws?device=d2", DEFLATE)] {
        let client = bench.client_with(path, headers).await;
        let id = client
            .head
            .lines()
            .find_map(|line| line.strip_prefix("X-Yc-Apigateway-Websocket-Connection-Id: "));
        let id = id.unwrap().to_owned();
        assert_eq!(connections.send(&id, b"for you alone", true).await, Sent::Queued);
        assert!(connections.disconnect(&id).await);
        let (frames, code) = client.with(|mut client| client.rest()).await;
        assert_eq!((frames, code), (vec![b"for you alone".to_vec()], Some(1001)));
    }
}
