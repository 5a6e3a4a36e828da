//! Micro-benchmarks of what is done for every event: encoding it, joining it to a batch, matching its topic.

use std::hint::black_box;

use divan::counter::{BytesCount, ItemsCount};
use divan::{AllocProfiler, Bencher};
use triggercast::model::event::{Encoder, Event, Origin};
use triggercast::model::{message, repeat::Repeat};
use triggercast::mqtt::trie::Trie;

#[global_allocator]
static ALLOCATIONS: AllocProfiler = AllocProfiler::system();

const ORIGIN: Origin<'static> = Origin::Device { registry_id: "factory", device_id: "press-1" };
const TOPIC: &str = "$devices/press-1/events";

fn main() {
    divan::main();
}

/// The events of one read, with payloads of this many bytes.
#[divan::bench(args = [16, 128, 1024, 16_384])]
fn encode_a_group_of_64_events(bencher: Bencher<'_, '_>, payload: usize) {
    let (mut encoder, payload) = (Encoder::new(), vec![b'x'; payload]);
    let bytes = 64 * payload.len();
    bencher.counter(ItemsCount::new(64_u64)).counter(BytesCount::new(bytes)).bench_local(|| {
        for _ in 0..64 {
            black_box(encoder.iot_message(ORIGIN, TOPIC, black_box(&payload)));
        }
        encoder.end_group();
    });
}

/// An event that comes alone.
#[divan::bench]
fn encode_one_event(bencher: Bencher<'_, '_>) {
    let mut encoder = Encoder::new();
    bencher.bench_local(|| {
        let event = encoder.iot_message(ORIGIN, TOPIC, black_box(&[b'x'; 128]));
        encoder.end_group();
        event
    });
}

/// What tells a repeated publish.
#[divan::bench]
fn digest_a_publish() -> u64 {
    Repeat::content(black_box(TOPIC), black_box(&[b'x'; 128]))
}

/// A batch of so many events of 128 bytes.
#[divan::bench(args = [1, 10, 100, 1000])]
fn join_a_batch(bencher: Bencher<'_, '_>, events: usize) {
    let mut encoder = Encoder::new();
    let events: Vec<Event> = (0..events).map(|_| encoder.iot_message(ORIGIN, TOPIC, &[b'x'; 128])).collect();
    bencher.counter(ItemsCount::new(events.len())).bench(|| message::join(black_box(&events)));
}

/// 10,000 filters: of single devices, of one level of all devices, of everything below a device.
fn filters() -> Trie<usize> {
    let mut trie = Trie::default();
    for number in 0..10_000 {
        let filter = match number % 10 {
            0 => format!("plant/+/line-{number}/state"),
            1 => format!("plant/hall-{}/#", number / 10),
            _ => format!("plant/hall-{}/line-{number}/state", number % 100),
        };
        trie.insert(&filter, number);
    }
    trie
}

/// A topic that one filter of 10,000 names, one that wildcards match, and one that none does.
#[divan::bench(args = ["plant/hall-2/line-4002/state", "plant/hall-500/line-4000/state", "office/printer"])]
fn match_a_topic_with_10000_filters(bencher: Bencher<'_, '_>, topic: &str) {
    let trie = filters();
    bencher.bench(|| {
        let mut found = 0;
        trie.for_each_match(black_box(topic), |_| found += 1);
        found
    });
}
