//! The management ports: callers whom nobody knows, requests that are deep, large or never come.

use std::io::Write as _;
use std::net::TcpStream;
use std::thread;
use std::time::{Duration, Instant};

use bytes::Bytes;
use serde_json::{Value, json};
use tonic::metadata::MetadataValue;
use tonic::transport::Channel;
use tonic::{Code, Request, Status};
use triggercast::proto::POOL;
use triggercast::proto::raw::RawCodec;

use super::{ask, grown, statuses, still_serves, telemetry};
use crate::common::{LIMIT, TestServer};

/// A server whose gRPC port needs no certificate.
fn server() -> TestServer {
    TestServer::start(
        &telemetry().replace("grpc_listen: \"127.0.0.1:0\"", "grpc_listen: \"127.0.0.1:0\", tls: off"),
    )
}

fn runtime() -> tokio::runtime::Runtime {
    tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap()
}

async fn channel(server: &TestServer) -> Channel {
    let address = format!("http://{}", server.grpc);
    tonic::transport::Endpoint::from_shared(address).unwrap().connect().await.unwrap()
}

/// One call with this `authorization`.
async fn call(channel: &Channel, name: &str, who: &str, body: Vec<u8>) -> Result<(), Status> {
    let mut client = tonic::client::Grpc::new(channel.clone());
    client.ready().await.unwrap();
    let mut request = Request::new(Bytes::from(body));
    if !who.is_empty() {
        request.metadata_mut().insert("authorization", MetadataValue::try_from(who).unwrap());
    }
    let path = format!("/{name}").parse().unwrap();
    client.unary(request, path, RawCodec).await.map(|_: tonic::Response<Bytes>| ())
}

const STRANGERS: [&str; 6] =
    ["", "Bearer", "Bearer t1.e30.AAAA", "Api-Key AQVNadmin.AAAA", "Basic YWRtaW46YWRtaW4=", "Bearer null"];

#[test]
fn every_call_of_rest_is_refused_to_strangers() {
    let server = server();
    let document: Value = serde_json::from_str(&server.get("/openapi.json").1).unwrap();
    let mut calls = Vec::new();
    for (path, item) in document["paths"].as_object().unwrap() {
        for (verb, operation) in item.as_object().unwrap() {
            if operation["security"] != json!([]) {
                calls.push((verb.to_uppercase(), path.replace(['{', '}'], "")));
            }
        }
    }
    assert!(calls.len() > 100, "{}", calls.len());
    let ask_all = |first: usize| {
        for (number, (verb, path)) in calls.iter().enumerate().skip(first).step_by(16) {
            let who = STRANGERS[number % STRANGERS.len()];
            let who = if who.is_empty() { String::new() } else { format!("Authorization: {who}\r\n") };
            // No body comes: nobody waits for one.
            let request = format!(
                "{verb} {path} HTTP/1.1\r\nHost: h\r\nConnection: close\r\nContent-Length: 1000000\r\n{who}\r\n"
            );
            let start = Instant::now();
            assert_eq!(statuses(&ask(server.management, request.as_bytes())), [401], "{verb} {path} {who}");
            assert!(start.elapsed() < Duration::from_secs(10), "{verb} {path}");
        }
    };
    thread::scope(|scope| {
        for first in 0..16 {
            let ask_all = &ask_all;
            scope.spawn(move || ask_all(first));
        }
    });
}

#[test]
fn every_call_of_grpc_is_refused_to_strangers() {
    let server = server();
    runtime().block_on(async {
        let channel = channel(&server).await;
        let (mut refused, mut number) = (0, 0);
        for method in POOL.services().flat_map(|service| service.methods().collect::<Vec<_>>()) {
            let name = format!("{}/{}", method.parent_service().full_name(), method.name());
            if triggercast::api::is_open(&name) == Some(true) {
                continue;
            }
            let who = STRANGERS[number % STRANGERS.len()];
            number += 1;
            let status = call(&channel, &name, who, Vec::new()).await.unwrap_err();
            match status.code() {
                Code::Unauthenticated => refused += 1,
                // It is in the files of messages, and nowhere else.
                code => assert_eq!(
                    (code, triggercast::api::is_open(&name)),
                    (Code::Unimplemented, None),
                    "{name}"
                ),
            }
        }
        assert!(refused > 100, "{refused}");
        for name in
            ["", "a", "a/b/c", "grpc.reflection.v1.ServerReflection/ServerReflectionInfo", "../x", "%2e%2e/x"]
        {
            let status = call(&channel, name, "", Vec::new()).await.unwrap_err();
            assert!(
                [Code::Unimplemented, Code::Unauthenticated].contains(&status.code()),
                "{name}: {status}"
            );
        }
    });
}

/// What a stranger sends is not even read: neither much, nor what never ends.
#[test]
fn nothing_is_read_of_strangers() {
    const LIST: &str = "yandex.cloud.serverless.triggers.v1.TriggerService/List";
    let server = server();
    let before = server.resident_kib();
    runtime().block_on(async {
        let channel = channel(&server).await;
        let mut client = tonic::client::Grpc::new(channel.clone());
        client.ready().await.unwrap();
        let never = Request::new(futures_util::stream::pending::<Bytes>());
        let path = format!("/{LIST}").parse().unwrap();
        let call_of_nothing = client.client_streaming(never, path, RawCodec);
        let answer: Result<tonic::Response<Bytes>, Status> =
            tokio::time::timeout(Duration::from_secs(10), call_of_nothing).await.unwrap();
        assert_eq!(answer.unwrap_err().code(), Code::Unauthenticated);
        let calls = (0..40).map(|_| call(&channel, LIST, "Bearer x", vec![0; 4_000_000]));
        for answer in futures_util::future::join_all(calls).await {
            let code = answer.unwrap_err().code();
            assert!(
                [Code::Unauthenticated, Code::Unknown, Code::Internal, Code::Cancelled].contains(&code),
                "{code:?}"
            );
        }
        // Who need not say who he is may say little.
        let open = "yandex.cloud.iam.v1.IamTokenService/Create";
        let status = call(&channel, open, "", vec![0; 100_000]).await.unwrap_err();
        assert_eq!(status.code(), Code::OutOfRange, "{status}");
    });
    assert!(grown(&server, before) < 48 * 1024, "{} KiB", grown(&server, before));
}

#[test]
fn deep_large_and_compressed_requests_are_refused() {
    let server = server();
    let mut client = server.websocket("/ws");
    let who = server.caller().who;
    let before = server.resident_kib();
    let rest = |headers: &str, body: &[u8]| {
        let head = format!(
            "POST /triggers/v1/triggers HTTP/1.1\r\nHost: h\r\nConnection: close\r\nAuthorization: {who}\r\n\
             Content-Length: {}\r\n{headers}\r\n",
            body.len()
        );
        statuses(&ask(server.management, &[head.as_bytes(), body].concat()))
    };
    let bomb = super::gzip_bomb();
    for (what, headers, body) in [
        ("deep lists", "", vec![b'['; 1 << 20]),
        ("deep objects", "", "{\"rule\":".repeat(1 << 18).into_bytes()),
        ("deep in a field that is there", "", [&b"{\"labels\":"[..], &[b'['; 1 << 20]].concat()),
        ("compressed", "Content-Encoding: gzip\r\n", bomb.clone()),
        ("compressed by another", "Content-Encoding: br\r\n", bomb),
        ("another form", "Content-Type: application/x-www-form-urlencoded\r\n", b"a=b".to_vec()),
        ("many keys", "", format!("{{{}}}", "\"a\":1,".repeat(200_000)).into_bytes()),
    ] {
        assert_eq!(rest(headers, &body), [400], "{what}");
    }
    assert_eq!(rest("", &vec![b' '; 9 * 1024 * 1024]), [400]);
    // Documents of gateways: deep, and small ones that would unfold without end.
    let bomb = (1..12).fold("a0: &a0 [x,x,x,x,x,x,x,x,x]\n".to_owned(), |text, n| {
        let last = format!("*a{},", n - 1).repeat(9);
        text + &format!("a{n}: &a{n} [{last}]\n")
    });
    for spec in
        ["[".repeat(200_000), "{a: ".repeat(200_000), "- ".repeat(200_000), bomb, "a: &a [*a]".to_owned()]
    {
        let body = json!({ "folderId": "default", "name": "deep", "openapiSpec": format!("openapi: 3.0.0\n{spec}") });
        let start = Instant::now();
        let (status, answer) = server.call("POST", "/apigateways/v1/apigateways", &body);
        assert!(status == 400 || answer["error"]["code"] == 3, "{status} {answer}");
        assert!(start.elapsed() < LIMIT);
    }
    runtime().block_on(async {
        let channel = channel(&server).await;
        let create = "yandex.cloud.serverless.triggers.v1.TriggerService/Create";
        let nested = (0..100_000).fold(Vec::new(), |mut bytes: Vec<u8>, _| {
            bytes.extend([0x0b, 0x13]);
            bytes
        });
        for body in
            [nested, vec![0xff; 100_000], vec![0x0a; 100_000], [0x0b, 0x0c].repeat(100_000), vec![0x80; 11]]
        {
            let status = call(&channel, create, &who, body).await.unwrap_err();
            assert_eq!(status.code(), Code::InvalidArgument, "{status}");
        }
        let status = call(&channel, create, &who, vec![0; 5 * 1024 * 1024]).await.unwrap_err();
        assert_eq!(status.code(), Code::OutOfRange, "{status}");
    });
    still_serves(&server, &mut client, LIMIT);
    assert!(grown(&server, before) < 96 * 1024, "{} KiB", grown(&server, before));
}

#[test]
fn requests_that_drip_are_ended_and_delay_nobody() {
    let server = server();
    let slow: Vec<_> = (0..50)
        .map(|_| {
            let mut io = TcpStream::connect(server.management).unwrap();
            io.write_all(b"GET /healthz HTTP/1.1\r\nHost: h\r\nX: ").unwrap();
            io.set_read_timeout(Some(LIMIT)).unwrap();
            io
        })
        .collect();
    assert_eq!(server.get("/healthz").0, 200);
    let ended: Vec<_> = slow
        .into_iter()
        .map(|mut io| {
            thread::spawn(move || {
                let mut answer = Vec::new();
                let _ = std::io::Read::read_to_end(&mut io, &mut answer);
                statuses(&answer)
            })
        })
        .collect();
    for found in ended {
        let found = found.join().unwrap();
        assert!(found == [408] || found.is_empty(), "{found:?}");
    }
}
