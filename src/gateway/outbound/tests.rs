//! The outbound client against servers that hang, talk too much, redirect, or stand where they must not be asked.

use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Instant;

use super::*;

const EMPTY: &[u8] = b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n";

/// Answers one request.
fn reply(io: &mut TcpStream, bytes: &[u8]) {
    if head(io).is_some() {
        let _ = io.write_all(bytes);
    }
}

/// Gives every connection to `serve`, each on a thread of its own, and counts them.
fn server(serve: impl Fn(&mut TcpStream) + Send + Sync + 'static) -> (SocketAddr, Arc<AtomicUsize>) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    let count = Arc::new(AtomicUsize::new(0));
    let (counter, serve) = (Arc::clone(&count), Arc::new(serve));
    std::thread::spawn(move || {
        for mut io in listener.incoming().map_while(Result::ok) {
            counter.fetch_add(1, Ordering::SeqCst);
            let serve = Arc::clone(&serve);
            std::thread::spawn(move || serve(&mut io));
        }
    });
    (address, count)
}

/// Reads a request to the end of its head.
fn head(io: &mut TcpStream) -> Option<String> {
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        let mut byte = [0];
        io.read_exact(&mut byte).ok()?;
        head.push(byte[0]);
    }
    String::from_utf8(head).ok()
}

fn ask(url: &str) -> Ask {
    Ask {
        method: Method::GET,
        url: Url::parse(url).unwrap(),
        headers: HeaderMap::new(),
        body: Bytes::new(),
        connect_timeout: Duration::from_secs(5),
        timeout: Duration::from_secs(5),
        max_bytes: 1000,
    }
}

#[actix::test]
async fn an_answer_is_whole_and_its_connection_is_used_again() {
    let (address, connections) = server(|io| {
        while let Some(head) = head(io) {
            let body = head.lines().next().unwrap_or_default().to_owned();
            let answer = format!(
                "HTTP/1.1 418 I'm a teapot\r\nX-A: b\r\nContent-Length: {}\r\n\r\n{body}",
                body.len()
            );
            let _ = io.write_all(answer.as_bytes());
        }
    });
    let outbound = Outbound::for_tests(&[address]);
    for _ in 0..3 {
        let answer = outbound.send(ask(&format!("http://{address}/x?y"))).await.unwrap();
        assert_eq!((answer.status.as_u16(), &answer.headers["x-a"]), (418, &"b".parse().unwrap()));
        assert_eq!(answer.body, "GET /x?y HTTP/1.1");
    }
    assert_eq!(connections.load(Ordering::SeqCst), 1);
}

#[actix::test]
async fn local_servers_are_asked_only_where_they_are_listed() {
    let (address, connections) = server(|io| reply(io, EMPTY));
    let port = address.port();
    let strict = Outbound::for_tests(&[]);
    let other = Outbound::for_tests(&[SocketAddr::new(address.ip(), port ^ 1)]);
    for host in
        ["127.0.0.1", "localhost", "2130706433", "0x7f.1", "[::ffff:127.0.0.1]", "0.0.0.0", "[::]", "[::1]"]
    {
        for outbound in [&strict, &other] {
            let answer = outbound.send(ask(&format!("http://{host}:{port}/"))).await;
            assert!(matches!(answer, Err(OutboundError::Forbidden(_))), "{host}: {answer:?}");
        }
    }
    assert_eq!(connections.load(Ordering::SeqCst), 0);
    let listed = Outbound::for_tests(&[address]);
    for host in ["127.0.0.1", "localhost"] {
        assert_eq!(listed.send(ask(&format!("http://{host}:{port}/"))).await.unwrap().status, 200, "{host}");
    }
}

#[actix::test]
async fn redirects_are_answers() {
    let (address, connections) = server(|io| {
        let _ = head(io);
        let _ = io.write_all(
            b"HTTP/1.1 302 Found\r\nLocation: http://169.254.169.254/\r\nContent-Length: 0\r\n\r\n",
        );
    });
    let answer = Outbound::for_tests(&[address]).send(ask(&format!("http://{address}/"))).await.unwrap();
    assert_eq!((answer.status.as_u16(), connections.load(Ordering::SeqCst)), (302, 1));
}

#[actix::test]
async fn an_answer_over_its_size_is_not_read_to_its_end() {
    for start in ["Content-Length: 1000000000", "Transfer-Encoding: chunked"] {
        let (address, _) = server(move |io| {
            let _ = head(io);
            let _ = write!(io, "HTTP/1.1 200 OK\r\n{start}\r\n\r\n");
            while io.write_all(b"a\r\nxxxxxxxxxx\r\n").is_ok() {}
        });
        let answer = Outbound::for_tests(&[address]).send(ask(&format!("http://{address}/"))).await;
        assert_eq!(answer.unwrap_err(), OutboundError::TooLarge(1000), "{start}");
    }
}

#[actix::test]
async fn a_server_that_hangs_costs_its_time_and_nothing_more() {
    let (address, _) = server(|io| {
        reply(io, b"HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\n12345");
        let _ = io.read(&mut [0]);
    });
    let outbound = Outbound::for_tests(&[address]);
    let start = Instant::now();
    let short = Ask { timeout: Duration::from_millis(200), ..ask(&format!("http://{address}/")) };
    assert_eq!(outbound.send(short).await.unwrap_err(), OutboundError::TimedOut);
    assert!(start.elapsed() < Duration::from_secs(3));
}

#[actix::test]
async fn who_is_not_there_is_unreachable_and_no_error_tells_the_url() {
    let closed = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let outbound = Outbound::for_tests(&[closed]);
    let answer = outbound.send(ask(&format!("http://{closed}/?key=secret"))).await.unwrap_err();
    assert!(matches!(&answer, OutboundError::Unreachable(_)), "{answer:?}");
    assert!(!answer.to_string().contains("secret"), "{answer}");
    let (address, _) = server(|io| reply(io, b"SSH-2.0-OpenSSH_9\r\n\r\n"));
    let answer = Outbound::for_tests(&[address]).send(ask(&format!("http://{address}/?key=secret"))).await;
    assert!(matches!(answer, Err(OutboundError::Unreachable(_))), "{answer:?}");
}

#[actix::test]
async fn requests_of_one_target_take_turns_and_others_do_not_wait() {
    let (stuck, asked) = server(|io| {
        let _ = head(io);
        let _ = io.read(&mut [0]);
    });
    let (free, _) = server(|io| reply(io, EMPTY));
    let outbound = Outbound::for_tests(&[stuck, free]);
    let slow = Ask { timeout: Duration::from_secs(30), ..ask(&format!("http://{stuck}/")) };
    let asks: Vec<_> = (0..MAX_IN_FLIGHT + 20)
        .map(|_| {
            let (outbound, slow) = (outbound.clone(), slow.clone());
            actix_rt::spawn(async move { outbound.send(slow).await })
        })
        .collect();
    let start = Instant::now();
    while asked.load(Ordering::SeqCst) < MAX_IN_FLIGHT {
        assert!(start.elapsed() < Duration::from_secs(10), "{asked:?} requests came");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    assert_eq!(outbound.send(ask(&format!("http://{free}/"))).await.unwrap().status, 200);
    assert_eq!(asked.load(Ordering::SeqCst), MAX_IN_FLIGHT);
    asks.iter().for_each(|ask| ask.abort());
}
