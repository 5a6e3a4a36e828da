//! The way of a publish from a connection's read buffer into links, subscribers' queues and, when the engine
//! has taken it, its acknowledgement. One per connection; [`super::connection`] drives it. No I/O.
//!
//! Everything decoded from one read shares a gate. Acknowledgements stand in one line in the order of the
//! publishes (MQTT-4.6.0): a section of the line moves on when its gate is open.

use std::collections::{HashMap, VecDeque};
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use foldhash::fast::RandomState;
use tokio::sync::{Notify, mpsc};
use tokio::time::Instant;

use super::accounts::Account;
use super::close::Close;
use super::encode;
use super::heard::Recent;
use super::limits::Limits;
use super::link::LinkQueue;
use super::message::Message;
use super::packet::{AckKind, Version};
use super::properties;
use super::publish::Publish;
use super::session::{Arrival, Session};
use super::space::Route;
use crate::model::event::{Encoder, Event};
use crate::model::receipt::{Arrivals, Gate, Verdict};
use crate::model::repeat::{Repeat, Repeats};
use crate::model::topic;
use crate::telemetry::{METRICS, trace};

/// Most events of a group; bounds what one place in a link's queue can hold.
const GROUP_EVENTS: usize = 64;
/// Bytes of JSON after which a group is closed.
const GROUP_BYTES: usize = 64 * 1024;

/// The publishing side of one connection.
pub(crate) struct Intake {
    version: Version,
    account: Arc<Account>,
    session_number: u64,
    /// Who publishes, as the journal knows it.
    sender: u64,
    limits: Arc<Limits>,
    /// Woken when a gate with acknowledgements behind it is decided.
    wake: Arc<Notify>,
    /// For gates that nothing waits for.
    idle: Arc<Notify>,
    encoder: Encoder,
    /// Topics as the client writes them, with their routes; `None` where publishing is denied.
    routes: HashMap<Box<[u8]>, Option<Arc<Route>>, RandomState>,
    generation: u64,
    aliases: Vec<Option<Box<[u8]>>>,
    /// Events of this read, by link.
    staged: Vec<Staged>,
    events: u64,
    /// Publishes of this read.
    received: u64,
    /// Those of them that no link takes.
    unrouted: u64,
    staged_bytes: usize,
    /// Groups that found their link full, in order.
    waiting: VecDeque<(Arc<LinkQueue>, Arrivals)>,
    room: Option<Room>,
    acks: VecDeque<Ack>,
    /// PUBRECs among them; their identifiers are counted by the session.
    pubrecs: usize,
    sections: VecDeque<Section>,
    /// Sections, from the back, that belong to this read.
    fresh: usize,
    held_bytes: usize,
    /// What came from a device and is not told yet.
    recent: Recent,
}

type Room = Pin<Box<dyn Future<Output = Option<mpsc::OwnedPermit<Arrivals>>> + Send>>;

struct Staged {
    link: Arc<LinkQueue>,
    groups: Vec<Group>,
    /// Bytes of the last group.
    bytes: usize,
}

#[derive(Default)]
struct Group {
    events: Vec<Event>,
    publishes: Vec<Repeat>,
}

struct Ack {
    kind: AckKind,
    id: u16,
    code: u8,
    /// [`content`] of the publish; 0 where it was refused.
    content: u64,
}

/// A stretch of the line of acknowledgements.
struct Section {
    hold: Hold,
    acks: usize,
    bytes: usize,
}

/// What a section waits for.
enum Hold {
    Nothing,
    /// The gate of the read that is being decoded.
    ThisRead,
    Gate(Arc<Gate>),
}

impl Intake {
    /// The intake of a new connection.
    pub(crate) fn new(
        version: Version,
        account: Arc<Account>,
        (session_number, sender): (u64, u64),
        limits: Arc<Limits>,
        wake: Arc<Notify>,
    ) -> Self {
        let generation = account.space.generation();
        Self {
            version,
            account,
            session_number,
            sender,
            limits,
            wake,
            idle: Arc::new(Notify::new()),
            encoder: Encoder::new(),
            routes: HashMap::default(),
            generation,
            aliases: Vec::new(),
            staged: Vec::new(),
            events: 0,
            received: 0,
            unrouted: 0,
            staged_bytes: 0,
            waiting: VecDeque::new(),
            room: None,
            acks: VecDeque::new(),
            pubrecs: 0,
            sections: VecDeque::new(),
            fresh: 0,
            held_bytes: 0,
            recent: Recent::default(),
        }
    }

    /// Whether the connection must not be read on until the engine has taken some of what was read.
    pub(crate) fn is_full(&self) -> bool {
        !self.waiting.is_empty()
            || self.staged_bytes >= self.limits.max_unacknowledged_bytes
            || self.held_bytes >= self.limits.max_unacknowledged_bytes
            || self.acks.len()
                >= usize::from(self.limits.max_unacknowledged) + usize::from(self.version == Version::V5)
    }

    /// Whether all that was read is with the links.
    pub(crate) fn is_handed_over(&self) -> bool {
        self.waiting.is_empty()
    }

    /// Whether all that was read is with the links, and acknowledged.
    pub(crate) fn is_idle(&self) -> bool {
        self.waiting.is_empty() && self.acks.is_empty()
    }

    /// Takes one publish in.
    pub(crate) fn publish(&mut self, session: &mut Session, publish: &Publish<'_>) -> Result<(), Close> {
        if publish.payload.len() > self.limits.max_message_bytes {
            return Err(Close::TooLarge);
        }
        let used = (self.acks.len() + session.receiving()).saturating_sub(self.pubrecs);
        if publish.qos > 0
            && self.version == Version::V5
            && used >= usize::from(self.limits.max_unacknowledged)
            && !(publish.qos == 2 && session.has_received(publish.id))
        {
            return Err(Close::ReceiveMaximum);
        }
        let Some(mut route) = self.route(publish)? else { return self.deny(publish) };
        let content = content(publish, &route.canonical.topic);
        if publish.qos > 0 {
            match session.receive(publish.qos, publish.id, publish.dup, content) {
                Arrival::New => {}
                Arrival::Duplicate => {
                    self.stage_ack(publish, 0, content);
                    return Ok(());
                }
                Arrival::Undecided(gate) => {
                    self.push_ack(publish, 0, content, Hold::Gate(gate));
                    return Ok(());
                }
            }
        }
        self.received += 1;
        if self.account.heard().is_some() {
            self.recent.note(&route, publish.payload);
        }
        if route.canonical.permanent || !route.targets.is_empty() {
            let message = message(publish);
            let space = Arc::clone(&self.account.space);
            let _order = route.canonical.permanent.then(|| space.permanent_order());
            if route.canonical.permanent {
                self.account.space.keep(&route.canonical.topic, &message, publish.qos);
                // Who subscribed since the route was looked up got the old message: ask again.
                if let Some(again) = self.route(publish)? {
                    route = again;
                }
            }
            route.deliver(&message, publish.qos);
        }
        if route.links.is_empty() {
            self.unrouted += 1;
        } else {
            self.stage(&route, publish, content);
        }
        if publish.qos > 0 {
            self.stage_ack(publish, 0, content);
        }
        Ok(())
    }

    /// The route of a publish, from memory if nothing has changed.
    fn route(&mut self, publish: &Publish<'_>) -> Result<Option<Arc<Route>>, Close> {
        let generation = self.account.space.generation();
        if generation != self.generation {
            self.routes.clear();
            self.generation = generation;
        }
        let topic = match publish.properties.alias {
            0 => publish.topic,
            alias if alias > self.limits.max_topic_aliases => return Err(Close::TopicAlias),
            alias => {
                let at = usize::from(alias);
                if self.aliases.len() <= at {
                    self.aliases.resize(at + 1, None);
                }
                let known = self.aliases.get_mut(at).ok_or(Close::TopicAlias)?;
                if !publish.topic.is_empty() {
                    *known = Some(publish.topic.into());
                }
                known.as_deref().ok_or(Close::TopicAlias)?
            }
        };
        if let Some(route) = self.routes.get(topic) {
            return Ok(route.clone());
        }
        let name = std::str::from_utf8(topic).map_err(|_| Close::Malformed)?;
        topic::check_name(name).map_err(|_| Close::TopicName)?;
        if name.len() > super::access::MAX_TOPIC {
            return Err(Close::TopicName);
        }
        let space = &self.account.space;
        let route = space.route(&self.account.identity, self.session_number, name).map(Arc::new);
        if self.routes.len() >= self.limits.max_cached_topics {
            self.routes.clear();
        }
        self.routes.insert(topic.into(), route.clone());
        Ok(route)
    }

    /// 3.1.1 can only close the connection; 5.0 has a code for it.
    fn deny(&mut self, publish: &Publish<'_>) -> Result<(), Close> {
        if self.version == Version::V3 {
            return Err(Close::Denied);
        }
        if publish.qos == 0 {
            METRICS.mqtt_dropped.inc();
        } else {
            self.stage_ack(publish, 0x87, 0);
        }
        Ok(())
    }

    fn stage(&mut self, route: &Route, publish: &Publish<'_>, content: u64) {
        let canonical = &route.canonical;
        let origin = self.account.origin(canonical.device_id.as_deref());
        let event = self.encoder.iot_message(origin, &canonical.topic, publish.payload);
        if trace::is_on() {
            trace::received(&event, origin.device_id(), &canonical.topic);
        }
        let copies =
            route.links.iter().filter(|link| link.is_logged()).count().min(usize::from(u8::MAX)) as u8;
        let repeat = Repeat { packet_id: publish.id, qos: publish.qos, copies, content };
        self.events += 1;
        self.staged_bytes += event.json.len();
        for link in &route.links {
            let at = match self.staged.iter().position(|staged| Arc::ptr_eq(&staged.link, link)) {
                Some(at) => at,
                None => {
                    self.staged.push(Staged { link: Arc::clone(link), groups: Vec::new(), bytes: 0 });
                    self.staged.len() - 1
                }
            };
            if let Some(staged) = self.staged.get_mut(at) {
                staged.push(event.clone(), (publish.qos > 0).then_some(repeat));
            }
        }
    }

    fn stage_ack(&mut self, publish: &Publish<'_>, code: u8, content: u64) {
        let hold = if self.staged.is_empty() { Hold::Nothing } else { Hold::ThisRead };
        self.push_ack(publish, code, content, hold);
    }

    fn push_ack(&mut self, publish: &Publish<'_>, code: u8, content: u64, hold: Hold) {
        let kind = if publish.qos == 1 { AckKind::Puback } else { AckKind::Pubrec };
        self.pubrecs += usize::from(kind == AckKind::Pubrec && code == 0);
        self.acks.push_back(Ack { kind, id: publish.id, code, content });
        let bytes = publish.payload.len();
        self.held_bytes += bytes;
        match (self.sections.back_mut(), &hold) {
            (Some(Section { hold: Hold::ThisRead, acks, bytes: all }), Hold::ThisRead)
            | (Some(Section { hold: Hold::Nothing, acks, bytes: all }), Hold::Nothing) => {
                *acks += 1;
                *all += bytes;
            }
            _ => {
                self.sections.push_back(Section { hold, acks: 1, bytes });
                self.fresh += 1;
            }
        }
    }

    /// The read is decoded: its events go to the links in groups, its acknowledgements wait for their gate.
    pub(crate) fn hand_over(&mut self) {
        let groups = self.staged.iter().map(|staged| staged.groups.len()).sum();
        if groups > 0 {
            self.encoder.end_group();
            METRICS.events_received.inc_by(std::mem::take(&mut self.events));
            let sections = self.sections.iter_mut().rev().take(self.fresh);
            let mut held = sections.filter(|section| matches!(section.hold, Hold::ThisRead)).peekable();
            let wake = if held.peek().is_some() { &self.wake } else { &self.idle };
            let (gate, receipts) = Gate::new(groups, Arc::clone(wake));
            for section in held {
                section.hold = Hold::Gate(Arc::clone(&gate));
            }
            let mut receipts = receipts.into_iter();
            for staged in self.staged.drain(..) {
                for (Group { events, publishes }, receipt) in staged.groups.into_iter().zip(receipts.by_ref())
                {
                    let session = self.sender;
                    let repeats = (!publishes.is_empty()).then_some(Repeats { session, publishes });
                    self.waiting.push_back((
                        Arc::clone(&staged.link),
                        Arrivals { events, repeats, made_of: None, receipt },
                    ));
                }
            }
            self.offer();
        }
        if self.received > 0 {
            METRICS.mqtt_received.inc_by(std::mem::take(&mut self.received));
            METRICS.mqtt_unrouted.inc_by(std::mem::take(&mut self.unrouted));
        }
        self.fresh = 0;
        self.staged_bytes = 0;
        if let Some(heard) = self.account.heard() {
            self.recent.tell(heard);
        }
    }

    /// Gives waiting groups to the links that have room. A link that is closed refuses them.
    fn offer(&mut self) {
        let mut full: Vec<u64> = Vec::new();
        for _ in 0..self.waiting.len() {
            let Some((link, arrivals)) = self.waiting.pop_front() else { break };
            if full.contains(&link.number) {
                self.waiting.push_back((link, arrivals));
                continue;
            }
            if let Err(mpsc::error::TrySendError::Full(arrivals)) = link.sender.try_send(arrivals) {
                METRICS.publishers_held_back.inc();
                full.push(link.number);
                self.waiting.push_back((link, arrivals));
            }
        }
        self.room = self.waiting.front().map(|(link, _)| Box::pin(Arc::clone(link).room()) as Room);
    }

    /// Waits until the first waiting group has room in its link, and hands it over. Can be given up and
    /// called again without losing its place in the link's line. Never ends if no group waits.
    pub(crate) async fn make_way(&mut self) {
        let Some(room) = self.room.as_mut() else { return std::future::pending().await };
        let room = room.await;
        self.room = None;
        if let Some((_, arrivals)) = self.waiting.pop_front()
            && let Some(room) = room
        {
            room.send(arrivals);
        }
        self.offer();
    }

    /// Writes the acknowledgements that may leave. An engine that refused ends the connection.
    pub(crate) fn settle(&mut self, session: &mut Session, out: &mut BytesMut) -> Result<(), Close> {
        while let Some(section) = self.sections.front() {
            match section.hold {
                Hold::Nothing => {}
                Hold::ThisRead => break,
                Hold::Gate(ref gate) => match gate.verdict() {
                    Verdict::Accepted => {}
                    Verdict::Pending => break,
                    Verdict::Refused => {
                        self.leave(session);
                        return Err(Close::Refused);
                    }
                },
            }
            self.held_bytes -= section.bytes;
            for ack in self.acks.drain(..section.acks) {
                self.pubrecs -= usize::from(ack.kind == AckKind::Pubrec && ack.code == 0);
                if ack.kind == AckKind::Puback && ack.code == 0 {
                    session.past.acknowledged.remember(1, ack.id, ack.content);
                }
                encode::ack(out, self.version, ack.kind, ack.id, ack.code);
            }
            self.sections.pop_front();
        }
        Ok(())
    }

    /// The connection ends: publishes that the links have but that are not acknowledged stay with the session,
    /// so that they are not delivered again when the client repeats them.
    pub(crate) fn leave(&mut self, session: &mut Session) {
        for section in self.sections.drain(..) {
            for ack in self.acks.drain(..section.acks).filter(|ack| ack.code == 0) {
                let qos = if ack.kind == AckKind::Puback { 1 } else { 2 };
                match &section.hold {
                    Hold::Gate(gate) if gate.verdict() != Verdict::Refused => {
                        session.leave_undecided(qos, ack.id, ack.content, Arc::clone(gate));
                    }
                    Hold::Nothing => {}
                    Hold::ThisRead | Hold::Gate(_) if qos == 2 => session.unreceive(ack.id),
                    Hold::ThisRead | Hold::Gate(_) => {}
                }
            }
        }
        self.pubrecs = 0;
        self.held_bytes = 0;
    }
}

/// Tells whether a repeated publish says the same; 0 at QoS 0. The topic is the standard one: an alias means nothing on
/// the connection on which it is repeated.
fn content(publish: &Publish<'_>, topic: &str) -> u64 {
    if publish.qos == 0 {
        return 0;
    }
    Repeat::content(topic, publish.payload)
}

impl Staged {
    fn push(&mut self, event: Event, repeat: Option<Repeat>) {
        let size = event.json.len();
        match self.groups.last_mut() {
            Some(group) if group.events.len() < GROUP_EVENTS && self.bytes + size <= GROUP_BYTES => {
                self.bytes += size;
                group.events.push(event);
                group.publishes.extend(repeat);
            }
            _ => {
                self.bytes = size;
                let publishes = Vec::from_iter(repeat);
                self.groups.push(Group { events: vec![event], publishes });
            }
        }
    }
}

/// A message for subscribers, copied out of the read buffer once.
fn message(publish: &Publish<'_>) -> Arc<Message> {
    let properties = &publish.properties;
    Arc::new(Message {
        payload: Bytes::copy_from_slice(publish.payload),
        properties: if properties.forwards {
            properties::forwarded(publish.raw_properties)
        } else {
            Bytes::new()
        },
        expires: properties.expiry.map(|seconds| Instant::now() + Duration::from_secs(seconds.into())),
    })
}

#[cfg(test)]
mod tests {
    use std::task::{Context, Poll, Waker};

    use proptest::prelude::*;

    use super::super::accounts::{Accounts, Login};
    use super::super::link::Link;
    use super::super::packet::{self, AckKind, Packet};
    use super::super::properties::Properties;
    use super::super::publish;
    use super::*;
    use crate::model::Resources;
    use crate::model::iot::Broker;
    use crate::model::receipt::Receipt;
    use crate::model::secret::Password;
    use crate::model::trigger::MqttTopics;

    fn intake(version: Version, limits: Limits) -> (Intake, Session) {
        let broker = Broker {
            id: "b".into(),
            passwords: vec![Password::new("password".into())],
            certificates: vec![],
            external: None,
        };
        let resources = Resources { brokers: vec![broker], ..Resources::default() };
        let (accounts, _) = Accounts::none().renewed(&resources, &limits).unwrap();
        let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
        let account = runtime.block_on(accounts.log_in(Login::Password("b", b"password"))).unwrap();
        let intake = Intake::new(version, account, (1, 1), Arc::new(limits), Arc::new(Notify::new()));
        (intake, Session::default())
    }

    fn link(intake: &Intake, filter: &str, capacity: usize) -> Link {
        let source = MqttTopics::IotBrokerMessage { broker_id: "b".into(), mqtt_topic: Some(filter.into()) };
        intake.account.space.link(&source, capacity).unwrap()
    }

    fn publish(qos: u8, id: u16, topic: &'static str) -> Publish<'static> {
        Publish {
            dup: false,
            qos,
            topic: topic.as_bytes(),
            id,
            properties: Properties::default(),
            raw_properties: &[],
            payload: b"x",
        }
    }

    fn take(link: &mut Link) -> Option<Arrivals> {
        match link.poll_next(&mut Context::from_waker(Waker::noop())) {
            Poll::Ready(arrivals) => arrivals,
            Poll::Pending => None,
        }
    }

    #[test]
    fn what_no_link_takes_is_counted_and_what_is_repeated_is_counted_once() {
        let (mut intake, mut session) = intake(Version::V3, Limits::default());
        let _link = link(&intake, "a", 1);
        intake.publish(&mut session, &publish(2, 1, "a")).unwrap();
        intake.publish(&mut session, &publish(2, 1, "a")).unwrap();
        intake.publish(&mut session, &publish(0, 0, "b")).unwrap();
        assert_eq!((intake.received, intake.unrouted), (2, 1));
        intake.hand_over();
        assert_eq!((intake.received, intake.unrouted), (0, 0));
    }

    #[test]
    fn a_route_is_asked_for_once_until_something_changes() {
        let (mut intake, mut session) =
            intake(Version::V3, Limits { max_cached_topics: 2, ..Limits::default() });
        for topic in ["a", "a", "b"] {
            intake.publish(&mut session, &publish(0, 0, topic)).unwrap();
        }
        assert_eq!(intake.routes.len(), 2);
        let link = link(&intake, "a", 1);
        intake.publish(&mut session, &publish(0, 0, "a")).unwrap();
        assert_eq!((intake.routes.len(), intake.events), (1, 1));
        drop(link);
        for topic in ["a", "b", "c"] {
            intake.publish(&mut session, &publish(0, 0, topic)).unwrap();
        }
        assert_eq!(intake.routes.len(), 1);
    }

    #[test]
    fn groups_wait_for_room_without_passing_each_other() {
        let (mut intake, mut session) = intake(Version::V3, Limits::default());
        let (mut slow, mut fast) = (link(&intake, "#", 1), link(&intake, "a", 8));
        for _ in 0..130 {
            intake.publish(&mut session, &publish(0, 0, "a")).unwrap();
        }
        intake.hand_over();
        assert!(intake.is_full() && !intake.is_handed_over());
        // The one with room has all three groups; the other has one and gets the rest in order.
        let sizes =
            |link: &mut Link| std::iter::from_fn(|| take(link)).map(|a| a.events.len()).collect::<Vec<_>>();
        assert_eq!(sizes(&mut fast), [64, 64, 2]);
        let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
        let mut found = sizes(&mut slow);
        while !intake.is_handed_over() {
            runtime.block_on(intake.make_way());
            found.extend(sizes(&mut slow));
        }
        assert_eq!(found, [64, 64, 2]);
        assert!(!intake.is_full());
    }

    #[test]
    fn a_link_closed_while_a_group_waits_refuses_it() {
        let (mut intake, mut session) = intake(Version::V3, Limits::default());
        let mut link = link(&intake, "#", 1);
        for id in 1..=65 {
            intake.publish(&mut session, &publish(1, id, "a")).unwrap();
        }
        intake.hand_over();
        link.close();
        take(&mut link).unwrap().receipt.accept();
        tokio::runtime::Builder::new_current_thread().build().unwrap().block_on(intake.make_way());
        assert!(intake.is_handed_over());
        assert_eq!(intake.settle(&mut session, &mut BytesMut::new()), Err(Close::Refused));
    }

    proptest! {
        /// However the engine decides, acknowledgements leave in the order of the publishes, each after its
        /// own events were accepted, and in the end all of them.
        #[test]
        fn acknowledgements_keep_the_order(
            reads in prop::collection::vec(prop::collection::vec((0_u8..3, any::<bool>()), 1..6), 1..12),
            order in prop::collection::vec(any::<prop::sample::Index>(), 16),
        ) {
            let (mut intake, mut session) = intake(Version::V3, Limits::default());
            let mut link = link(&intake, "wanted", 64);
            let mut out = BytesMut::new();
            // The reads whose gate is not open, and the acknowledgements expected, with the read they wait for.
            let mut held: Vec<(usize, Receipt)> = Vec::new();
            let mut expected: Vec<([u8; 4], Option<usize>)> = Vec::new();
            let mut id = 0;
            for (number, read) in reads.iter().enumerate() {
                let mut wanted_before = false;
                for (qos, wanted) in read {
                    id += 1;
                    wanted_before |= wanted;
                    let topic = if *wanted { "wanted" } else { "unwanted" };
                    intake.publish(&mut session, &publish(*qos, id, topic)).unwrap();
                    if *qos > 0 {
                        let first = if *qos == 1 { 0x40 } else { 0x50 };
                        expected.push(([first, 2, 0, id as u8], wanted_before.then_some(number)));
                    }
                }
                intake.hand_over();
                while let Some(arrivals) = take(&mut link) {
                    held.push((number, arrivals.receipt));
                }
            }
            let mut order = order.into_iter().cycle();
            loop {
                intake.settle(&mut session, &mut out).unwrap();
                let free = expected
                    .iter()
                    .take_while(|(_, gate)| gate.is_none_or(|gate| held.iter().all(|(read, _)| *read != gate)));
                let bytes: Vec<u8> = free.flat_map(|(bytes, _)| *bytes).collect();
                prop_assert_eq!(&out[..], &bytes[..]);
                if held.is_empty() {
                    break;
                }
                let next = order.next().unwrap().index(held.len());
                held.remove(next).1.accept();
            }
            prop_assert_eq!(out.len(), 4 * expected.len());
            prop_assert!(intake.is_idle() && intake.held_bytes == 0 && intake.pubrecs == 0);
        }
    }

    /// What a client of each version may send, as streams of packets.
    fn conversations() -> Vec<Vec<u8>> {
        let packets: [&[&[u8]]; 2] = [
            &[
                b"\x30\x04\0\x01ax",
                b"\x32\x06\0\x01a\0\x01x",
                b"\x3a\x06\0\x01a\0\x01x",
                b"\x34\x06\0\x01a\0\x02x",
                b"\x62\x02\0\x02",
                b"\x40\x02\0\x01",
                b"\x82\x06\0\x03\0\x01#\x01",
                b"\xa2\x05\0\x04\0\x01#",
                b"\xc0\0",
                b"\xe0\0",
            ],
            &[
                b"\x30\x08\0\x01a\x03\x23\0\x05x",
                b"\x30\x07\0\0\x03\x23\0\x05x",
                b"\x32\x0c\0\x01a\0\x01\x05\x02\0\0\0\x01x",
                b"\x32\x10\0\x01a\0\x02\x09\x26\0\x01k\0\x01v\x01\x01x",
                b"\x34\x07\0\x01a\0\x03\0x",
                b"\x62\x03\0\x03\0",
                b"\x40\x08\0\x01\0\x04\x1f\0\x01a",
                b"\x82\x09\0\x04\x02\x0b\x07\0\x01#\x09",
                b"\xa2\x06\0\x05\0\0\x01#",
                b"\xe0\x07\x04\x05\x11\0\0\0\x05",
            ],
        ];
        packets
            .iter()
            .map(|packets| packets.concat())
            .chain(packets.concat().iter().map(|p| p.to_vec()))
            .collect()
    }

    /// Packets as a connection takes them, from input that comes in these pieces. Gives the events and answers that
    /// came of it, and why it ended.
    fn converse(version: Version, pieces: &[&[u8]]) -> (u64, Vec<u8>, Option<Close>) {
        let limits = Limits { max_message_bytes: 1024, ..Limits::default() };
        let most = limits.max_packet_bytes();
        let (mut intake, mut session) = intake(version, limits);
        let (mut input, mut out) = (BytesMut::new(), BytesMut::new());
        let mut close = None;
        for piece in pieces {
            input.extend_from_slice(piece);
            while close.is_none() {
                let frame = match packet::frame(&input, most) {
                    Ok(Some(frame)) if frame.total <= input.len() => frame,
                    Ok(_) => break,
                    Err(fault) => {
                        close = Some(fault);
                        break;
                    }
                };
                let bytes = input.split_to(frame.total);
                let taken = if publish::is_publish(frame.first) {
                    publish::publish(version, &bytes, frame)
                        .and_then(|publish| intake.publish(&mut session, &publish))
                } else {
                    packet::packet(version, &bytes, frame).map(|packet| match packet {
                        Packet::Ack(AckKind::Pubrel, id) => drop(session.release(id)),
                        Packet::Ack(_, id) => drop(session.acknowledged(id)),
                        _ => {}
                    })
                };
                close = taken.err();
                intake.hand_over();
                if let Err(fault) = intake.settle(&mut session, &mut out) {
                    close = close.or(Some(fault));
                }
            }
        }
        (intake.events, out.to_vec(), close)
    }

    proptest! {
        #![proptest_config(crate::fuzzing::cases(2000))]

        /// Whatever a client sends, and however it is cut: the same comes of it, and nothing else.
        #[test]
        fn fuzz_what_a_client_sends(
            data in crate::fuzzing::mutated(conversations()),
            cut: prop::sample::Index,
            v5: bool,
        ) {
            let version = if v5 { Version::V5 } else { Version::V3 };
            let whole = converse(version, &[&data]);
            prop_assert!(whole.0 <= data.len() as u64);
            let (first, second) = data.split_at(cut.index(data.len() + 1));
            prop_assert_eq!(whole, converse(version, &[first, second]));
        }
    }
}
