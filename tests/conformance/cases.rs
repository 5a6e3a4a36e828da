//! The cases. Each states in its name what every source does.

use tokio::sync::watch;
use triggercast::model::receipt::Arrivals;

use super::harness::{Harness, broker, registry};
use super::publisher::Publisher;
use super::reader::{Reader, number, payload};

const QUEUE: usize = 64;

/// Publishes numbers with QoS 1 to d1's events, one after the other.
async fn publish_numbers(publisher: &mut Publisher, numbers: std::ops::RangeInclusive<u32>, window: usize) {
    for number in numbers {
        publisher.send("$devices/d1/events", number.to_string().as_bytes(), 1).await;
        publisher.acknowledged(window).await;
    }
    publisher.acknowledged(0).await;
}

/// Tells where the numbers first differ from the expected.
pub(crate) fn in_order(numbers: &[u32], expected: std::ops::RangeInclusive<u32>) {
    let differs = numbers.iter().copied().zip(expected.clone()).find(|(found, expected)| found != expected);
    assert_eq!(differs, None, "(found, expected)");
    assert_eq!(numbers.len(), expected.count());
}

pub(crate) async fn all_topics_of_a_registry<H: Harness>() {
    let harness = H::start();
    let mut reader = Reader::running(harness.source(&registry(None, None), QUEUE)).await;
    let mut d1 = harness.publisher("d1").await;
    let mut d2 = harness.publisher("d2").await;
    d1.send("$devices/d1/events", b"", 1).await;
    assert_eq!(reader.topics(1).await, ["d1 $devices/d1/events"]);
    d2.send("$devices/d2/state/a", b"", 1).await;
    assert_eq!(reader.topics(1).await, ["d2 $devices/d2/state/a"]);
    if H::BROKER_KEEPS {
        // There the message is the registry's; in the embedded server it is known who published it.
        d1.send("$registries/r/events", b"", 1).await;
        assert_eq!(reader.topics(1).await, [" $registries/r/events"]);
    } else {
        d1.send("$registries/r/events", b"", 1).await;
        assert_eq!(reader.topics(1).await, ["d1 $registries/r/events"]);
    }
}

pub(crate) async fn one_device<H: Harness>() {
    let harness = H::start();
    let mut reader = Reader::running(harness.source(&registry(Some("d1"), None), QUEUE)).await;
    let mut d1 = harness.publisher("d1").await;
    let mut d2 = harness.publisher("d2").await;
    d2.send("$devices/d2/events", b"", 1).await;
    d1.send("$devices/d1/events", b"", 1).await;
    d1.send("$devices/d1/state", b"", 1).await;
    assert_eq!(reader.topics(2).await, ["d1 $devices/d1/events", "d1 $devices/d1/state"]);
}

pub(crate) async fn a_wildcard_level<H: Harness>() {
    let harness = H::start();
    let mut reader = Reader::running(harness.source(&registry(None, Some("$devices/+/events")), QUEUE)).await;
    let mut d1 = harness.publisher("d1").await;
    let mut d2 = harness.publisher("d2").await;
    d1.send("$devices/d1/events/deeper", b"", 1).await;
    d1.send("$devices/d1/state", b"", 1).await;
    d1.send("$devices/d1/events", b"", 1).await;
    assert_eq!(reader.topics(1).await, ["d1 $devices/d1/events"]);
    d2.send("$devices/d2/events", b"", 1).await;
    assert_eq!(reader.topics(1).await, ["d2 $devices/d2/events"]);
}

pub(crate) async fn subtopics<H: Harness>() {
    let harness = H::start();
    let mut reader =
        Reader::running(harness.source(&registry(None, Some("$devices/d1/events/#")), QUEUE)).await;
    let mut d1 = harness.publisher("d1").await;
    for topic in
        ["$devices/d1/state/a", "$devices/d1/events", "$devices/d1/events/a", "$devices/d1/events/a/ü"]
    {
        d1.send(topic, b"", 1).await;
    }
    let expected = ["d1 $devices/d1/events", "d1 $devices/d1/events/a", "d1 $devices/d1/events/a/ü"];
    assert_eq!(reader.topics(3).await, expected);
}

pub(crate) async fn an_alias<H: Harness>() {
    let harness = H::start();
    let mut reader = Reader::running(harness.source(&registry(None, Some("hall/+/events/#")), QUEUE)).await;
    let mut d1 = harness.publisher("d1").await;
    let mut d2 = harness.publisher("d2").await;
    d2.send("$devices/d2/events", b"", 1).await;
    d1.send("hall/one/state", b"", 1).await;
    d1.send("hall/one/events", b"", 1).await;
    d1.send("hall/one/events/a", b"", 1).await;
    assert_eq!(reader.topics(2).await, ["d1 $devices/d1/events", "d1 $devices/d1/events/a"]);
}

pub(crate) async fn all_topics_of_a_broker<H: Harness>() {
    let harness = H::start();
    let mut reader = Reader::running(harness.source(&broker(None), QUEUE)).await;
    let mut b = harness.publisher("b").await;
    for topic in ["a", "a/b", "/", "hall/one/events"] {
        b.send(topic, b"1", 1).await;
    }
    let found = reader.details(4).await;
    let topics: Vec<_> = found.iter().map(|details| details["mqtt_topic"].as_str().unwrap()).collect();
    assert_eq!(topics, ["a", "a/b", "/", "hall/one/events"]);
    assert!(found.iter().all(|details| details["broker_id"] == "b" && details.get("device_id").is_none()));
}

pub(crate) async fn one_topic_of_a_broker<H: Harness>() {
    let harness = H::start();
    let mut reader = Reader::running(harness.source(&broker(Some("hall/+/t")), QUEUE)).await;
    let mut b = harness.publisher("b").await;
    for topic in ["hall/1", "hall/1/p", "hall/1/t", "hall/2/t"] {
        b.send(topic, b"1", 1).await;
    }
    assert_eq!(reader.topics(2).await, ["- hall/1/t", "- hall/2/t"]);
}

pub(crate) async fn events_have_exactly_this_json<H: Harness>() {
    let harness = H::start();
    let mut reader = Reader::running(harness.source(&registry(None, None), QUEUE)).await;
    let mut d1 = harness.publisher("d1").await;
    d1.send("$devices/d1/events/\"q\"", b"{\"t\":21}", 1).await;
    let event = reader.accepted().await.unwrap().remove(0);
    let json: serde_json::Value = serde_json::from_slice(&event.json).unwrap();
    let created_at = json["event_metadata"]["created_at"].as_str().unwrap().to_owned();
    let (seconds, fraction) = created_at.strip_suffix('Z').unwrap().split_once('.').unwrap();
    assert!(seconds.len() == "2026-11-21T05:00:00".len() && fraction.len() == 9, "{created_at}");
    assert_eq!(event.id.get_version_num(), 7);
    let expected = format!(
        concat!(
            r#"{{"event_metadata":{{"event_id":"{}","event_type":"yandex.cloud.events.iot.IoTMessage","#,
            r#""created_at":"{}"}},"details":{{"registry_id":"r","device_id":"d1","#,
            r#""mqtt_topic":"$devices/d1/events/\"q\"","payload":"eyJ0IjoyMX0="}}}}"#
        ),
        event.id, created_at
    );
    assert_eq!(String::from_utf8(event.json.to_vec()).unwrap(), expected);
}

pub(crate) async fn every_quality_of_service_arrives_once<H: Harness>() {
    let harness = H::start();
    let mut reader = Reader::running(harness.source(&registry(None, None), QUEUE)).await;
    let mut d1 = harness.publisher("d1").await;
    for (number, qos) in [(0, 0), (1, 1), (2, 2), (3, 0), (4, 2), (5, 1), (6, 1)] {
        d1.send("$devices/d1/events", format!("{number}").as_bytes(), qos).await;
    }
    let acknowledging = tokio::spawn(async move { d1.acknowledged(0).await });
    let mut numbers = Vec::new();
    while numbers.len() < 7 {
        numbers.extend(reader.accepted().await.unwrap().iter().map(number));
    }
    acknowledging.await.unwrap();
    numbers.sort_unstable();
    assert_eq!(numbers, [0, 1, 2, 3, 4, 5, 6]);
}

pub(crate) async fn the_order_of_a_publisher_is_kept<H: Harness>() {
    let harness = H::start();
    let mut reader = Reader::running(harness.source(&registry(None, None), QUEUE)).await;
    let mut publisher = harness.publisher("d1").await;
    // Brokers acknowledge at once and drop what a subscriber does not take in time; this is not about that.
    let (read, mut progress) = watch::channel(0);
    let publishing = tokio::spawn(async move {
        for number in 1..=2000 {
            progress.wait_for(|read| number < *read + 300).await.unwrap();
            publisher.send("$devices/d1/events", number.to_string().as_bytes(), 1).await;
            publisher.acknowledged(50).await;
        }
        publisher.acknowledged(0).await;
    });
    let mut numbers = Vec::new();
    while numbers.len() < 2000 {
        numbers.extend(reader.accepted().await.unwrap().iter().map(number));
        read.send_replace(numbers.len());
    }
    in_order(&numbers, 1..=2000);
    publishing.await.unwrap();
}

pub(crate) async fn a_large_payload<H: Harness>() {
    let harness = H::start();
    let mut reader = Reader::running(harness.source(&registry(None, None), QUEUE)).await;
    let mut d1 = harness.publisher("d1").await;
    let large: Vec<u8> = (0..262_144u32).map(|n| (n % 251) as u8).collect();
    let sent = large.clone();
    let publishing = tokio::spawn(async move {
        d1.publish("$devices/d1/events", &sent, 1).await;
        d1.publish("$devices/d1/events", b"7", 1).await;
    });
    let first = reader.accepted().await.unwrap();
    assert_eq!(first.len(), 1, "an event larger than a group is alone");
    assert!(payload(&first[0]) == large);
    assert_eq!(reader.numbers_to(7).await, [7]);
    publishing.await.unwrap();
}

pub(crate) async fn receipts_may_be_accepted_late_and_in_any_order<H: Harness>() {
    let harness = H::start();
    let what = registry(None, None);
    let mut reader = Reader::running(harness.source(&what, QUEUE)).await;
    let mut d1 = harness.publisher("d1").await;
    let mut receipts = Vec::new();
    for n in 1..=10 {
        d1.send("$devices/d1/events", n.to_string().as_bytes(), 1).await;
        let Arrivals { events, receipt, .. } = reader.group().await.unwrap();
        assert_eq!(events.iter().map(number).collect::<Vec<_>>(), [n]);
        receipts.push(receipt);
    }
    receipts.into_iter().rev().for_each(|receipt| receipt.accept());
    d1.acknowledged(0).await;
    d1.send("$devices/d1/events", b"11", 1).await;
    assert_eq!(reader.numbers_to(11).await, [11]);
    d1.acknowledged(0).await;
    // Everything has been acknowledged: the next source gets nothing of it again.
    reader.stop();
    assert!(reader.rest().await.is_empty());
    let mut reader = Reader::running(harness.source(&what, QUEUE)).await;
    d1.send("$devices/d1/events", b"12", 1).await;
    assert_eq!(reader.numbers_to(12).await, [12]);
}

pub(crate) async fn refused_events_come_again<H: Harness>() {
    let harness = H::start();
    let mut reader = Reader::running(harness.source(&registry(None, None), QUEUE)).await;
    let mut d1 = harness.publisher("d1").await;
    let publishing = tokio::spawn(async move { publish_numbers(&mut d1, 1..=3, 0).await });
    let Arrivals { events, receipt, .. } = reader.group().await.unwrap();
    assert_eq!(number(&events[0]), 1);
    drop(receipt);
    // Later ones may be here already; the refused one has to come again, and all have to come.
    let mut numbers = Vec::new();
    while !(1..=3).all(|n| numbers.contains(&n)) {
        numbers.extend(reader.accepted().await.unwrap().iter().map(number));
    }
    publishing.await.unwrap();
}

pub(crate) async fn a_full_queue_holds_and_nothing_at_qos_1_is_lost<H: Harness>() {
    let harness = H::start();
    let mut reader = Reader::running(harness.source(&registry(None, None), 2)).await;
    let mut publisher = harness.publisher("d1").await;
    let (sent, mut progress) = watch::channel(0);
    let publishing = tokio::spawn(async move {
        for number in 0..=600u32 {
            // Where acknowledgements wait for the reader, the publisher stops here until it reads.
            publisher.acknowledged(40).await;
            publisher.send("$devices/d1/events", number.to_string().as_bytes(), 1).await;
            sent.send_replace(number);
        }
        publisher.acknowledged(0).await;
    });
    // Nobody reads yet, and this is more than the queue holds.
    progress.wait_for(|sent| *sent >= 40).await.unwrap();
    let numbers = reader.numbers_to(600).await;
    in_order(&numbers, 0..=600);
    publishing.await.unwrap();
}

pub(crate) async fn a_stopped_source_gives_what_it_has_and_then_ends<H: Harness>() {
    let harness = H::start();
    let what = registry(None, None);
    let mut reader = Reader::running(harness.source(&what, QUEUE)).await;
    let mut d1 = harness.publisher("d1").await;
    for n in 1..=5 {
        d1.send("$devices/d1/events", n.to_string().as_bytes(), 1).await;
    }
    let Arrivals { events, receipt, .. } = reader.group().await.unwrap();
    let first = events.iter().map(number).max().unwrap();
    reader.stop();
    receipt.accept();
    let rest: Vec<_> = reader.rest().await.iter().map(number).collect();
    assert_eq!(rest, (first + 1..=5).take(rest.len()).collect::<Vec<_>>(), "what was taken, in order");
    assert!(reader.group().await.is_none(), "the end is for good");
    // What was not taken has not been acknowledged, and comes to the next source.
    let taken = rest.last().copied().unwrap_or(first);
    let mut reader = Reader::running(harness.source(&what, QUEUE)).await;
    let publishing = tokio::spawn(async move {
        d1.acknowledged(0).await;
        d1.publish("$devices/d1/events", b"6", 1).await;
    });
    let numbers = reader.numbers_to(6).await;
    assert_eq!(numbers, (taken + 1..=6).collect::<Vec<_>>());
    publishing.await.unwrap();
}
