//! Gathers messages that are ready together into one group of events; and what acknowledges each.

use bytes::Bytes;
use rumqttc::{Packet, PubAck, PubRec, Publish, QoS};

use super::ledger::Message;
use super::queue::SLOT_BYTES;
use super::spec::Topics;
use crate::model::event::{Encoder, Event};
use crate::telemetry::trace;

/// Most events of a group.
const GROUP_EVENTS: usize = 64;

/// The group that is being gathered.
#[derive(Debug, Default)]
pub(super) struct Intake {
    encoder: Encoder,
    group: Group,
}

/// Messages that arrived together.
#[derive(Debug, Default)]
pub(super) struct Group {
    /// The events of those that the source wants.
    pub(super) events: Vec<Event>,
    /// Bytes of their JSON.
    pub(super) bytes: usize,
    /// What the broker wants acknowledged, in the order of arrival, also for messages of no interest.
    pub(super) messages: Vec<Message>,
    /// Events that came with QoS 0: nobody sends them again.
    pub(super) unrepeatable: usize,
}

/// How the broker knows a message; None for QoS 0, which is not acknowledged.
pub(super) fn message_of(publish: &Publish) -> Option<Message> {
    let exactly_once = publish.qos == QoS::ExactlyOnce;
    (publish.qos != QoS::AtMostOnce)
        .then(|| Message::new(publish.pkid, exactly_once, &publish.topic, &publish.payload))
}

/// The acknowledgement of a message, or of the first half of an exchange with QoS 2.
pub(super) fn answer(message: Message) -> Packet {
    if message.exactly_once {
        Packet::PubRec(PubRec::new(message.id))
    } else {
        Packet::PubAck(PubAck::new(message.id))
    }
}

/// The client reads no more of a message than this to acknowledge it.
pub(super) fn stub(message: Message) -> Publish {
    let qos = if message.exactly_once { QoS::ExactlyOnce } else { QoS::AtLeastOnce };
    Publish { pkid: message.id, ..Publish::from_bytes(String::new(), qos, Bytes::new()) }
}

/// One message, encoded.
#[derive(Debug)]
pub(super) struct Taken {
    event: Option<Event>,
    message: Option<Message>,
}

impl Intake {
    /// Encodes a message. Retained messages are of the past, and no events.
    pub(super) fn encode(&mut self, topics: &Topics, publish: &Publish, message: Option<Message>) -> Taken {
        let event = if publish.retain {
            None
        } else {
            let encoder = &mut self.encoder;
            topics.interpret(&publish.topic, |origin, topic| {
                let event = encoder.iot_message(origin, topic, &publish.payload);
                if trace::is_on() {
                    trace::received(&event, origin.device_id(), topic);
                }
                event
            })
        };
        Taken { event, message }
    }

    /// Whether the group has room for the message.
    pub(super) fn has_room(&self, taken: &Taken) -> bool {
        let Group { events, bytes, messages, .. } = &self.group;
        let more = taken.event.as_ref().map_or(0, |event| event.json.len());
        let fits = events.len() < GROUP_EVENTS && messages.len() < GROUP_EVENTS && bytes + more <= SLOT_BYTES;
        fits || (events.is_empty() && messages.is_empty())
    }

    /// Adds the message to the group.
    pub(super) fn add(&mut self, Taken { event, message }: Taken) {
        if message.is_none() && event.is_some() {
            self.group.unrepeatable += 1;
        }
        self.group.messages.extend(message);
        self.group.bytes += event.as_ref().map_or(0, |event| event.json.len());
        self.group.events.extend(event);
    }

    /// The group so far; a new one begins. None if nothing was added.
    pub(super) fn take(&mut self) -> Option<Group> {
        let group = std::mem::take(&mut self.group);
        self.encoder.end_group();
        (!group.events.is_empty() || !group.messages.is_empty()).then_some(group)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn publish(topic: &str, qos: QoS, size: usize) -> Publish {
        let mut publish = Publish::new(topic, qos, vec![7; size]);
        publish.pkid = 9;
        publish
    }

    fn groups(publishes: &[Publish]) -> Vec<Group> {
        let topics = Topics::Broker { broker_id: "plant".into() };
        let mut intake = Intake::default();
        let mut groups = Vec::new();
        for publish in publishes {
            let taken = intake.encode(&topics, publish, message_of(publish));
            if !intake.has_room(&taken) {
                groups.extend(intake.take());
            }
            intake.add(taken);
        }
        groups.extend(intake.take());
        assert!(intake.take().is_none());
        groups
    }

    #[test]
    fn groups_hold_64_events() {
        let sizes: Vec<_> =
            groups(&vec![publish("a", QoS::AtMostOnce, 1); 130]).iter().map(|g| g.events.len()).collect();
        assert_eq!(sizes, [64, 64, 2]);
    }

    #[test]
    fn groups_hold_64_kib_but_for_a_giant_alone() {
        let small = publish("a", QoS::AtLeastOnce, 20_000);
        let giant = publish("a", QoS::AtLeastOnce, 100_000);
        let groups = groups(&[small.clone(), small.clone(), small.clone(), giant, small]);
        assert_eq!(groups.iter().map(|g| g.events.len()).collect::<Vec<_>>(), [2, 1, 1, 1]);
        assert!(groups.iter().all(|g| g.bytes == g.events.iter().map(|e| e.json.len()).sum::<usize>()));
    }

    #[test]
    fn what_is_no_event_is_acknowledged_all_the_same() {
        let retained = Publish { retain: true, ..publish("a", QoS::AtLeastOnce, 1) };
        let groups =
            groups(&[retained, publish("$SYS/x", QoS::ExactlyOnce, 1), publish("a", QoS::AtMostOnce, 1)]);
        let [group] = &groups[..] else { panic!("{groups:?}") };
        assert_eq!((group.events.len(), group.unrepeatable), (1, 1));
        let ids: Vec<_> = group.messages.iter().map(|message| (message.id, message.exactly_once)).collect();
        assert_eq!(ids, [(9, false), (9, true)]);
    }
}
