//! What only an external broker can do to a source: not be there, die, refuse, hold back, send nonsense.

use std::net::SocketAddr;
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::runtime::Handle;
use tokio::sync::watch;
use triggercast::model::receipt::Arrivals;
use triggercast::model::trigger::MqttTopics;
use triggercast::source::mqtt::{MqttSource, QUEUE};
use triggercast::source::{Condition, Source};
use triggercast::telemetry::METRICS;

use super::cases::in_order;
use super::harness::{broker, registry, spec};
use super::mosquitto::Mosquitto;
use super::publisher::Publisher;
use super::reader::{Reader, number};

fn source(what: &MqttTopics, address: SocketAddr) -> Box<dyn Source> {
    Box::new(MqttSource::start(spec(what, address, None), &Handle::current()))
}

fn error(condition: &Condition) -> Option<&str> {
    match condition {
        Condition::Failing { error, .. } => Some(error),
        _ => None,
    }
}

#[tokio::test]
async fn a_broker_that_is_not_there_is_waited_for() {
    let mut mosquitto = Mosquitto::prepare("");
    let mut reader = Reader::new(source(&broker(None), mosquitto.address()));
    let condition = reader.until("a failure", |condition| error(condition).is_some()).await;
    assert!(error(&condition).unwrap().contains("refused"), "{condition:?}");
    mosquitto.run();
    reader.until("the source runs", |condition| *condition == Condition::Running).await;
    Publisher::connect(mosquitto.address(), "p").await.publish("a", b"1", 1).await;
    assert_eq!(reader.numbers_to(1).await, [1]);
}

#[tokio::test]
async fn retained_messages_and_dollar_topics_are_no_events() {
    let mosquitto = Mosquitto::start("sys_interval 1");
    let mut publisher = Publisher::connect(mosquitto.address(), "p").await;
    publisher.retain("$devices/d1/events", b"1").await;
    publisher.retain("a", b"1").await;
    let mut devices = Reader::running(source(&registry(None, None), mosquitto.address())).await;
    let mut all = Reader::running(source(&broker(None), mosquitto.address())).await;
    let mut system = Reader::running(source(&broker(Some("$SYS/broker/uptime")), mosquitto.address())).await;
    publisher.publish("$monitoring/d1/json", b"2", 1).await;
    publisher.publish("$registries/other/events", b"2", 1).await;
    publisher.publish("$devices/d1/events", b"3", 1).await;
    publisher.publish("a", b"3", 1).await;
    assert_eq!(devices.numbers_to(3).await, [3]);
    assert_eq!(all.numbers_to(3).await, [3]);
    // Skipped messages do not fill the broker's window of 20.
    for n in 4..=60 {
        publisher.publish("$registries/other/events", b"2", 1).await;
        publisher.publish("$devices/d1/events", n.to_string().as_bytes(), 1).await;
    }
    assert_eq!(devices.numbers_to(60).await, (4..=60).collect::<Vec<_>>());
    system.stop();
    assert!(system.rest().await.is_empty());
}

#[tokio::test]
async fn what_is_published_while_the_source_is_away_comes_when_it_is_back() {
    let mosquitto = Mosquitto::start("");
    let mut publisher = Publisher::connect(mosquitto.address(), "p").await;
    let mut reader = Reader::running(source(&registry(None, None), mosquitto.address())).await;
    reader.stop();
    assert!(reader.rest().await.is_empty());
    for n in 1..=50 {
        publisher.publish("$devices/d1/events", n.to_string().as_bytes(), 1).await;
    }
    let mut reader = Reader::new(source(&registry(None, None), mosquitto.address()));
    assert_eq!(reader.numbers_to(50).await, (1..=50).collect::<Vec<_>>());
}

#[tokio::test]
async fn a_broker_keeps_nothing_for_a_source_that_nobody_wants_any_more() {
    let mosquitto = Mosquitto::start("");
    let mut publisher = Publisher::connect(mosquitto.address(), "p").await;
    let mut reader = Reader::running(source(&registry(None, None), mosquitto.address())).await;
    publisher.publish("$devices/d1/events", b"1", 1).await;
    assert_eq!(reader.numbers_to(1).await, [1]);
    reader.forget();
    assert!(reader.rest().await.is_empty());
    for n in 2..=50 {
        publisher.publish("$devices/d1/events", n.to_string().as_bytes(), 1).await;
    }
    let mut reader = Reader::running(source(&registry(None, None), mosquitto.address())).await;
    publisher.publish("$devices/d1/events", b"51", 1).await;
    assert_eq!(reader.numbers_to(51).await, [51]);
}

#[tokio::test]
async fn a_broker_with_a_window_of_20_stops_there_and_goes_on_with_the_first_acknowledgement() {
    let mosquitto = Mosquitto::start("max_queued_messages 100000");
    let mut publisher = Publisher::connect(mosquitto.address(), "p").await;
    let mut reader = Reader::running(source(&registry(None, None), mosquitto.address())).await;
    for n in 1..=500 {
        publisher.send("$devices/d1/events", n.to_string().as_bytes(), 1).await;
        publisher.acknowledged(50).await;
    }
    publisher.acknowledged(0).await;
    let (mut numbers, mut receipts) = (Vec::new(), Vec::new());
    while numbers.len() < 20 {
        let Arrivals { events, receipt, .. } = reader.group().await.unwrap();
        numbers.extend(events.iter().map(number));
        receipts.push(receipt);
    }
    assert_eq!(numbers, (1..=20).collect::<Vec<_>>(), "no more than the window without an acknowledgement");
    receipts.into_iter().for_each(|receipt| receipt.accept());
    numbers.extend(reader.numbers_to(500).await);
    assert_eq!(numbers, (1..=500).collect::<Vec<_>>());
}

/// Mosquitto acknowledges a publish before it is in its file, so a publisher that wants to lose nothing has to
/// keep what came after the last save; this one does. Everything else is up to the source.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn five_crashes_of_the_broker_lose_nothing_and_keep_the_order() {
    const LAST: u32 = 1500;
    // It drops what it cannot queue; this is not about that.
    let settings = "persistence true\nautosave_interval 100000\nmax_queued_messages 100000";
    let mut mosquitto = Mosquitto::start(settings);
    let address = mosquitto.address();
    let mut reader = Reader::running(source(&registry(None, None), address)).await;
    let (read, reading) = watch::channel(Vec::new());
    let reader = tokio::spawn(async move {
        while !read.borrow().contains(&LAST) {
            let numbers: Vec<_> = reader.accepted().await.expect("more events").iter().map(number).collect();
            read.send_modify(|read| {
                for number in numbers {
                    if !read.contains(&number) {
                        read.push(number);
                    }
                }
            });
        }
    });
    let mut publisher = Publisher::connect(address, "p").await;
    let mut numbers = 1..=LAST;
    for _ in 0..5 {
        let first: Vec<_> = numbers.by_ref().take(150).collect();
        let second: Vec<_> = numbers.by_ref().take(100).collect();
        let here = first[149];
        publisher = supervised(&mut mosquitto, publish(publisher, first)).await;
        // Every crash is to meet a source that has come back and reads.
        supervised(&mut mosquitto, reads(reading.clone(), here)).await;
        mosquitto.save().await;
        publisher.keep_from_here();
        let publishing = tokio::spawn(publish(publisher, second));
        // In the middle of it.
        supervised(&mut mosquitto, reads(reading.clone(), here + 30)).await;
        mosquitto.kill();
        mosquitto.run();
        publisher = supervised(&mut mosquitto, async { publishing.await.unwrap() }).await;
    }
    publisher = supervised(&mut mosquitto, publish(publisher, numbers.collect())).await;
    while tokio::time::timeout(Duration::from_millis(200), reads(reading.clone(), LAST)).await.is_err() {
        if mosquitto.revive() {
            publisher = publish(publisher, vec![LAST]).await;
        }
        assert!(!reader.is_finished() || reading.borrow().contains(&LAST), "the reader ended early");
    }
    reader.await.unwrap();
    in_order(&reading.borrow(), 1..=LAST);
}

/// Waits until the number has been read.
async fn reads(mut reading: watch::Receiver<Vec<u32>>, number: u32) {
    reading.wait_for(|read| read.contains(&number)).await.unwrap();
}

/// Does the work while somebody looks after the broker, should it end of its own.
async fn supervised<T>(mosquitto: &mut Mosquitto, work: impl Future<Output = T>) -> T {
    let mut work = std::pin::pin!(work);
    loop {
        match tokio::time::timeout(Duration::from_millis(100), work.as_mut()).await {
            Ok(done) => return done,
            Err(_) => _ = mosquitto.revive(),
        }
    }
}

/// Publishes numbers with QoS 1, ten at a time; the publisher comes back when all are acknowledged.
async fn publish(mut publisher: Publisher, numbers: Vec<u32>) -> Publisher {
    for number in numbers {
        publisher.send("$devices/d1/events", number.to_string().as_bytes(), 1).await;
        publisher.acknowledged(10).await;
    }
    publisher.acknowledged(0).await;
    publisher
}

#[tokio::test]
async fn a_queue_that_stays_full_drops_qos_0_and_leaves_qos_1_with_the_broker() {
    let mosquitto = Mosquitto::start("max_inflight_messages 1000");
    let what = registry(None, None);
    let source = MqttSource::with_queue(spec(&what, mosquitto.address(), None), 2, &Handle::current());
    let mut reader = Reader::running(Box::new(source)).await;
    let mut publisher = Publisher::connect(mosquitto.address(), "p").await;
    for n in 1..=300 {
        publisher.publish("$devices/d1/events", n.to_string().as_bytes(), 1).await;
        publisher.send("$devices/d1/state", b"0", 0).await;
    }
    // Half a keep-alive of 30 seconds passes before the source reads on, and drops.
    let dropped = METRICS.source_dropped.get();
    let began = std::time::Instant::now();
    while METRICS.source_dropped.get() == dropped {
        assert!(began.elapsed() < Duration::from_secs(60), "nothing was dropped");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    let numbers = reader.numbers_to(300).await;
    let qos1: Vec<_> = numbers.into_iter().filter(|number| *number > 0).collect();
    assert_eq!(qos1, (1..=300).collect::<Vec<_>>());
}

#[tokio::test]
async fn a_large_queue_takes_a_burst() {
    let mosquitto = Mosquitto::start("max_inflight_messages 1000");
    let reader = Reader::running(source(&registry(None, None), mosquitto.address())).await;
    let mut publisher = Publisher::connect(mosquitto.address(), "p").await;
    for n in 0..QUEUE as u32 {
        publisher.publish("$devices/d1/events", n.to_string().as_bytes(), 1).await;
    }
    let mut reader = reader;
    assert_eq!(reader.numbers_to(QUEUE as u32 - 1).await.len(), QUEUE);
}

#[tokio::test]
async fn wrong_credentials_are_told() {
    let mosquitto = Mosquitto::start("allow_anonymous false");
    let reader = Reader::new(source(&broker(None), mosquitto.address()));
    let condition = reader.until("a failure", |condition| error(condition).is_some()).await;
    assert!(error(&condition).unwrap().contains("NotAuthorized"), "{condition:?}");
}

/// A broker of our own making: answers CONNECT (with a session) and SUBSCRIBE as told, then sends `more`.
async fn fake_broker(granted: u8, more: &'static [u8]) -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(async move {
        loop {
            let (stream, _) = listener.accept().await.unwrap();
            tokio::spawn(converse(stream, granted, more));
        }
    });
    address
}

async fn converse(mut stream: TcpStream, granted: u8, more: &'static [u8]) -> std::io::Result<()> {
    loop {
        // Every packet of the source is shorter than 128 bytes.
        let (first, len) = (stream.read_u8().await?, stream.read_u8().await?);
        let mut body = vec![0; len.into()];
        stream.read_exact(&mut body).await?;
        match first {
            0x10 => stream.write_all(&[0x20, 2, 1, 0]).await?,
            0x82 => {
                stream.write_all(&[0x90, 3, body[0], body[1], granted]).await?;
                stream.write_all(more).await?;
            }
            _ => {}
        }
    }
}

#[tokio::test]
async fn a_refused_subscription_is_told_with_its_filter() {
    let address = fake_broker(0x80, b"").await;
    let reader = Reader::new(source(&broker(Some("hall/+")), address));
    let condition = reader.until("a failure", |condition| error(condition).is_some()).await;
    assert!(error(&condition).unwrap().contains("'hall/+'"), "{condition:?}");
}

#[tokio::test]
async fn a_message_that_cannot_be_read_does_not_pass_for_a_working_source() {
    // PUBLISH with QoS 3. The first failures may be an accident; then the source stays failing.
    let address = fake_broker(1, &[0x36, 5, 0, 1, b'a', 0, 1]).await;
    let source = source(&broker(None), address);
    let mut condition = source.condition();
    let reader = Reader::new(source);
    let mut failures = 0;
    while failures < 5 {
        reader.until("it runs", |condition| *condition == Condition::Running).await;
        reader.until("a failure", |condition| error(condition).is_some()).await;
        failures += 1;
    }
    // It connects once more, but is not said to run.
    let disconnects = METRICS.source_disconnects.get();
    condition.borrow_and_update();
    while METRICS.source_disconnects.get() < disconnects + 1 {
        tokio::time::timeout(Duration::from_secs(30), condition.changed()).await.unwrap().unwrap();
        assert!(error(&condition.borrow_and_update()).is_some());
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 3)]
async fn acknowledgements_are_not_kept_back_by_a_broker_that_does_not_stop() {
    const DUE: u16 = 4000;
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let mut reader = Reader::new(source(&broker(None), listener.local_addr().unwrap()));
    let (mut input, mut output) = listener.accept().await.unwrap().0.into_split();
    // CONNECT and SUBSCRIBE; every one of these packets is shorter than 128 bytes.
    for answer in [vec![0x20, 2, 0, 0], vec![0x90, 3, 0, 1, 1]] {
        let (_, len) = (input.read_u8().await.unwrap(), input.read_u8().await.unwrap());
        input.read_exact(&mut vec![0; len.into()]).await.unwrap();
        output.write_all(&answer).await.unwrap();
    }
    let message = |id: u16| [&[0x32, 0x80, 8, 0, 1, b'a'], &id.to_be_bytes()[..], &[b'1'; 1019]].concat();
    let mut receipts = Vec::new();
    let mut events = 0;
    for id in 1..=DUE {
        output.write_all(&message(id)).await.unwrap();
        while events + 20 < usize::from(id) {
            let group = reader.group().await.unwrap();
            events += group.events.len();
            receipts.push(group.receipt);
        }
    }
    while events < usize::from(DUE) {
        let group = reader.group().await.unwrap();
        events += group.events.len();
        receipts.push(group.receipt);
    }
    receipts.into_iter().for_each(|receipt| receipt.accept());
    // Far more than sockets hold: what is sent has been read.
    let sending = tokio::spawn(async move {
        for id in DUE + 1..=6 * DUE {
            output.write_all(&message(id)).await.unwrap();
        }
        output
    });
    let acknowledged = async {
        for id in 1..=DUE {
            let mut packet = [0; 4];
            input.read_exact(&mut packet).await.unwrap();
            assert_eq!(packet[..2], [0x40, 2]);
            assert_eq!(packet[2..], id.to_be_bytes(), "in the order of the messages");
        }
    };
    let mut receipts = Vec::new();
    let read_on = async {
        loop {
            receipts.push(reader.group().await.unwrap().receipt);
        }
    };
    tokio::select! {
        () = acknowledged => {}
        () = read_on => {}
    }
    assert!(!sending.is_finished(), "all was read before all was acknowledged");
}

#[tokio::test]
async fn a_dropped_source_leaves_its_messages_with_the_broker() {
    let mosquitto = Mosquitto::start("");
    let mut publisher = Publisher::connect(mosquitto.address(), "p").await;
    let reader = Reader::running(source(&registry(None, None), mosquitto.address())).await;
    for n in 1..=5 {
        publisher.publish("$devices/d1/events", n.to_string().as_bytes(), 1).await;
    }
    drop(reader);
    let mut reader = Reader::new(source(&registry(None, None), mosquitto.address()));
    assert_eq!(reader.numbers_to(5).await, [1, 2, 3, 4, 5]);
}
