//! What every `Source` has to do, over every implementation: the embedded server's link, the client of an
//! external broker on a real Mosquitto, and that client on the embedded server.
//!
//! A case is one function over [`Harness`]; `conformance!` makes the tests of one implementation of it.
//! What only an external broker can do to us is in `external`.

#[cfg(test)]
#[path = "conformance/cases.rs"]
mod cases;
#[cfg(test)]
#[path = "conformance/external.rs"]
mod external;
#[cfg(test)]
#[path = "conformance/harness.rs"]
mod harness;
#[cfg(test)]
#[path = "common/mosquitto.rs"]
mod mosquitto;
#[cfg(test)]
#[path = "common/publisher.rs"]
mod publisher;
#[cfg(test)]
#[path = "conformance/reader.rs"]
mod reader;

/// All cases for one harness, each a test of its own.
#[cfg(test)]
macro_rules! conformance {
    ($module:ident, $harness:ty: $($case:ident),* $(,)?) => {
        mod $module {
            $(
                #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
                async fn $case() {
                    crate::cases::$case::<$harness>().await;
                }
            )*
        }
    };
    ($($module:ident, $harness:ty;)*) => {
        $(conformance!($module, $harness:
            all_topics_of_a_registry,
            one_device,
            a_wildcard_level,
            subtopics,
            an_alias,
            all_topics_of_a_broker,
            one_topic_of_a_broker,
            events_have_exactly_this_json,
            every_quality_of_service_arrives_once,
            the_order_of_a_publisher_is_kept,
            a_large_payload,
            receipts_may_be_accepted_late_and_in_any_order,
            refused_events_come_again,
            a_full_queue_holds_and_nothing_at_qos_1_is_lost,
            a_stopped_source_gives_what_it_has_and_then_ends,
        );)*
    };
}

#[cfg(test)]
conformance! {
    embedded, crate::harness::Embedded;
    mosquitto_broker, crate::harness::ExternalMosquitto;
    embedded_as_broker, crate::harness::ExternalEmbedded;
}
