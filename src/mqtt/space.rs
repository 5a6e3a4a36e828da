//! One device registry or broker: its subscriptions, links and permanent messages. Nothing crosses over
//! into another space. Connections ask it for routes and remember them until its generation changes.

use std::collections::HashMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, RwLock};

use tokio::time::Instant;

use super::access::{Canonical, Identity, Names, Plan, Topics};
use super::heard::Heard;
use super::limits::Limits;
use super::link::{Link, LinkQueue};
use super::message::{Delivery, Message};
use super::outbox::Outbox;
use super::session::Kept;
use super::trie::Trie;
use crate::model::activity::DeviceActivity;
use crate::model::id::Id;
use crate::model::trigger::MqttTopics;

/// A space.
#[derive(Debug)]
pub(crate) struct Space {
    /// The registry or broker.
    pub(crate) id: Id,
    topics: RwLock<Arc<Topics>>,
    routes: Mutex<Routes>,
    generation: AtomicU64,
    permanent: Mutex<Permanent>,
    /// Held while a permanent message is kept and delivered, and while a subscription is made and gets the
    /// kept one: else a subscriber could get an older message behind a newer. Taken before the others.
    permanent_order: Mutex<()>,
    /// What came from devices that have been there.
    heard: Mutex<HashMap<Id, Arc<Heard>>>,
}

#[derive(Debug, Default)]
struct Routes {
    canonical: Trie<Subscriber>,
    aliases: Trie<Subscriber>,
    links: Vec<Arc<LinkQueue>>,
    last_link: u64,
    stopped: bool,
}

/// A subscription of a session.
#[derive(Debug)]
pub(crate) struct Subscriber {
    /// The session.
    pub(crate) session: u64,
    /// Its queue.
    pub(crate) outbox: Arc<Outbox>,
    /// Who reads.
    pub(crate) who: Identity,
    /// The granted quality of service.
    pub(crate) qos: u8,
    /// Not what the session published itself.
    pub(crate) no_local: bool,
    /// The subscription identifier, or zero.
    pub(crate) id: u32,
    /// The client's own filter; two filters of one session may be kept under the same one.
    pub(crate) filter: Box<str>,
    /// The name that deliveries carry.
    pub(crate) names: Names,
}

/// Where a topic's messages go.
#[derive(Debug)]
pub(crate) struct Route {
    /// The topic itself.
    pub(crate) canonical: Canonical,
    /// Links that want it.
    pub(crate) links: Vec<Arc<LinkQueue>>,
    /// Subscribers that get it.
    pub(crate) targets: Vec<Target>,
}

/// A subscriber of a route.
#[derive(Debug)]
pub(crate) struct Target {
    outbox: Arc<Outbox>,
    qos: u8,
    topic: Arc<str>,
    ids: Arc<[u32]>,
}

/// The last messages of state and config topics.
#[derive(Debug)]
struct Permanent {
    messages: HashMap<String, (Arc<Message>, u8)>,
    bytes: usize,
    max_count: usize,
    max_bytes: usize,
    told: bool,
}

impl Space {
    /// A space with these rules.
    pub(crate) fn new(id: Id, topics: Topics, limits: &Limits) -> Self {
        Self {
            id,
            topics: RwLock::new(Arc::new(topics)),
            routes: Mutex::default(),
            generation: AtomicU64::new(0),
            permanent_order: Mutex::new(()),
            heard: Mutex::default(),
            permanent: Mutex::new(Permanent {
                messages: HashMap::new(),
                bytes: 0,
                max_count: limits.max_permanent_topics,
                max_bytes: limits.max_permanent_bytes,
                told: false,
            }),
        }
    }

    /// Its rules.
    pub(crate) fn topics(&self) -> Arc<Topics> {
        Arc::clone(&self.topics.read().unwrap_or_else(PoisonError::into_inner))
    }

    /// Changes its rules, as when a device was added.
    pub(crate) fn set_topics(&self, topics: Topics) {
        if *self.topics() == topics {
            return;
        }
        self.heard().retain(|device, _| topics.has_device(device));
        *self.topics.write().unwrap_or_else(PoisonError::into_inner) = Arc::new(topics);
        self.changed();
    }

    /// Whether it is a device registry's.
    pub(crate) fn is_registry(&self) -> bool {
        matches!(*self.topics(), Topics::Registry(_))
    }

    fn routes(&self) -> MutexGuard<'_, Routes> {
        self.routes.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn heard(&self) -> MutexGuard<'_, HashMap<Id, Arc<Heard>>> {
        self.heard.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Where it is told what comes from a device.
    pub(crate) fn heard_by(&self, device: &Id) -> Arc<Heard> {
        Arc::clone(self.heard().entry(device.clone()).or_default())
    }

    /// What came from these devices.
    pub(crate) fn heard_of(&self, devices: &[Id]) -> Vec<DeviceActivity> {
        let heard = self.heard();
        devices.iter().filter_map(|device| Some(heard.get(device)?.read(device))).collect()
    }

    /// Lets nobody else change or hand out permanent messages meanwhile.
    pub(crate) fn permanent_order(&self) -> MutexGuard<'_, ()> {
        self.permanent_order.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn permanent(&self) -> MutexGuard<'_, Permanent> {
        self.permanent.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Changes whenever a route may have changed.
    pub(crate) fn generation(&self) -> u64 {
        self.generation.load(Ordering::Acquire)
    }

    fn changed(&self) {
        self.generation.fetch_add(1, Ordering::AcqRel);
    }

    /// Where `topic`, published by this session of `who`, goes; `None` if it may not.
    pub(crate) fn route(&self, who: &Identity, session: u64, topic: &str) -> Option<Route> {
        let topics = self.topics();
        let canonical = topics.publish(who, topic)?;
        let routes = self.routes();
        // Nobody takes events any more: an acknowledgement would be a lie.
        if routes.stopped {
            return None;
        }
        let links = routes.links.iter().filter(|link| topics.wants(&link.source, &canonical.topic));
        let links = links.cloned().collect();
        let mut targets: Vec<Target> = Vec::new();
        let mut known: HashMap<(u64, String), usize> = HashMap::new();
        let mut add = |subscriber: &Subscriber, name: String| {
            let own = subscriber.no_local && subscriber.session == session;
            if own || !topics.may_read(&subscriber.who, &canonical.topic) {
                return;
            }
            // Overlapping subscriptions of one session deliver once, with the highest QoS.
            match known.get(&(subscriber.session, name.clone())).and_then(|at| targets.get_mut(*at)) {
                Some(target) => {
                    target.qos = target.qos.max(subscriber.qos);
                    if subscriber.id != 0 {
                        target.ids = target.ids.iter().copied().chain([subscriber.id]).collect();
                    }
                }
                None => {
                    known.insert((subscriber.session, name.clone()), targets.len());
                    targets.push(Target {
                        outbox: Arc::clone(&subscriber.outbox),
                        qos: subscriber.qos,
                        topic: name.into(),
                        ids: if subscriber.id == 0 { Arc::new([]) } else { Arc::new([subscriber.id]) },
                    });
                }
            }
        };
        routes.canonical.for_each_match(&canonical.topic, |s| add(s, s.names.deliver(&canonical.topic)));
        for alias in topics.aliases_of(&canonical.topic) {
            routes.aliases.for_each_match(&alias, |s| add(s, alias.clone()));
        }
        drop(routes);
        Some(Route { canonical, links, targets })
    }

    /// Adds a subscription, in place of an earlier one of the same session and filter.
    pub(crate) fn subscribe(&self, plan: &Plan, earlier: Option<&Kept>, subscriber: Subscriber) -> Kept {
        let kept = Kept { filter: plan.filter.clone(), is_alias: plan.names == Names::Alias };
        let mut routes = self.routes();
        if let Some(earlier) = earlier {
            routes.remove(earlier, subscriber.session, &subscriber.filter);
        }
        let tree = if kept.is_alias { &mut routes.aliases } else { &mut routes.canonical };
        tree.insert(&kept.filter, subscriber);
        drop(routes);
        self.changed();
        kept
    }

    /// Removes subscriptions of a session.
    pub(crate) fn unsubscribe<'a>(
        &self,
        session: u64,
        filters: impl IntoIterator<Item = (&'a str, &'a Kept)>,
    ) {
        let mut routes = self.routes();
        for (filter, kept) in filters {
            routes.remove(kept, session, filter);
        }
        drop(routes);
        self.changed();
    }

    /// Adds a link; `None` once the server has stopped.
    pub(crate) fn link(self: &Arc<Self>, source: &MqttTopics, capacity: usize) -> Option<Link> {
        let mut routes = self.routes();
        if routes.stopped {
            return None;
        }
        // A link whose reader was lost refuses events until its successor is here.
        routes.links.retain(|link| !(link.sender.is_closed() && link.source == *source));
        routes.last_link += 1;
        let (link, queue) = Link::new(routes.last_link, source.clone(), capacity, Arc::downgrade(self));
        routes.links.push(Arc::new(queue));
        drop(routes);
        self.changed();
        Some(link)
    }

    /// Removes a link.
    pub(crate) fn unlink(&self, number: u64) {
        self.routes().links.retain(|link| link.number != number);
        self.changed();
    }

    /// Removes links that nobody reads and that are not wanted.
    pub(crate) fn forget_closed(&self, is_wanted: impl Fn(&MqttTopics) -> bool) {
        let mut routes = self.routes();
        let before = routes.links.len();
        routes.links.retain(|link| !link.sender.is_closed() || is_wanted(&link.source));
        if routes.links.len() != before {
            drop(routes);
            self.changed();
        }
    }

    /// No connection is left: links end when they are empty.
    pub(crate) fn stop(&self) {
        let mut routes = self.routes();
        routes.stopped = true;
        routes.links.clear();
        drop(routes);
        self.changed();
    }

    /// Keeps the last message of a permanent topic. An empty one forgets the topic.
    pub(crate) fn keep(&self, topic: &str, message: &Arc<Message>, qos: u8) {
        self.permanent().keep(topic, message, qos, &self.id);
    }

    /// The last message of a permanent topic, and the QoS it was published with.
    pub(crate) fn kept(&self, topic: &str) -> Option<(Arc<Message>, u8)> {
        let mut permanent = self.permanent();
        let (message, qos) = permanent.messages.get(topic)?.clone();
        if message.is_expired(Instant::now()) {
            permanent.forget(topic);
            return None;
        }
        Some((message, qos))
    }
}

impl Routes {
    fn remove(&mut self, kept: &Kept, session: u64, filter: &str) {
        let tree = if kept.is_alias { &mut self.aliases } else { &mut self.canonical };
        tree.remove(&kept.filter, |s| s.session == session && *s.filter == *filter);
    }
}

impl Route {
    /// Hands the message to every subscriber.
    pub(crate) fn deliver(&self, message: &Arc<Message>, qos: u8) {
        for target in &self.targets {
            target.outbox.push(Delivery {
                message: Arc::clone(message),
                topic: Arc::clone(&target.topic),
                qos: Delivery::qos(qos, target.qos),
                retain: false,
                ids: Arc::clone(&target.ids),
            });
        }
    }
}

impl Permanent {
    fn forget(&mut self, topic: &str) {
        if let Some((old, _)) = self.messages.remove(topic) {
            self.bytes -= old.cost() + topic.len();
        }
    }

    fn keep(&mut self, topic: &str, message: &Arc<Message>, qos: u8, space: &Id) {
        self.forget(topic);
        if message.payload.is_empty() {
            return;
        }
        let cost = message.cost() + topic.len();
        if self.messages.len() >= self.max_count || self.bytes + cost > self.max_bytes {
            if !std::mem::replace(&mut self.told, true) {
                tracing::warn!(%space, "has as many permanent topics as are kept; new ones are not");
            }
            return;
        }
        self.bytes += cost;
        self.messages.insert(topic.to_owned(), (Arc::clone(message), qos));
    }
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;
    use tokio::sync::Notify;

    use super::*;
    use crate::model::iot::{Alias, Device, DeviceRegistry};

    fn space() -> Arc<Space> {
        let registry = DeviceRegistry {
            id: "r".into(),
            passwords: vec![],
            certificates: vec![],
            devices: vec![Device {
                id: "d1".into(),
                passwords: vec![],
                certificates: vec![],
                aliases: vec![Alias { name: "hall/one".into(), target: "$devices/d1".into() }],
            }],
            external: None,
        };
        let limits = Limits { max_permanent_topics: 1, ..Limits::default() };
        Arc::new(Space::new("r".into(), Topics::of_registry(&registry), &limits))
    }

    fn device() -> Identity {
        Identity::Device("d1".into())
    }

    fn subscribe(space: &Space, session: u64, who: &Identity, filter: &str, qos: u8, id: u32) -> Kept {
        let plan = space.topics().subscribe(who, filter).unwrap();
        let subscriber = Subscriber {
            session,
            outbox: Arc::new(Outbox::new(&Limits::default(), Arc::new(Notify::new()))),
            who: who.clone(),
            qos,
            no_local: false,
            id,
            filter: filter.into(),
            names: plan.names.clone(),
        };
        space.subscribe(&plan, None, subscriber)
    }

    fn targets(space: &Space, who: &Identity, topic: &str) -> Vec<(String, u8, Vec<u32>)> {
        let route = space.route(who, 0, topic).unwrap();
        let mut found: Vec<_> =
            route.targets.iter().map(|t| (t.topic.to_string(), t.qos, t.ids.to_vec())).collect();
        found.sort();
        found
    }

    #[test]
    fn overlapping_subscriptions_deliver_once_with_the_highest_qos() {
        let space = space();
        subscribe(&space, 1, &Identity::Registry, "$devices/#", 0, 5);
        subscribe(&space, 1, &Identity::Registry, "$devices/+/events", 1, 6);
        let found = targets(&space, &device(), "$devices/d1/events");
        assert_eq!(found.len(), 1);
        assert_eq!((found[0].1, found[0].2.len()), (1, 2));
    }

    #[test]
    fn deliveries_carry_the_name_that_was_subscribed_to() {
        let space = space();
        subscribe(&space, 1, &device(), "$me/device/commands", 1, 0);
        subscribe(&space, 2, &device(), "hall/+/commands", 1, 0);
        subscribe(&space, 3, &device(), "$devices/d1/#", 0, 0);
        let names = targets(&space, &Identity::Registry, "hall/one/commands");
        let expected = [
            ("$devices/d1/commands".to_owned(), 0, vec![]),
            ("$me/device/commands".to_owned(), 1, vec![]),
            ("hall/one/commands".to_owned(), 1, vec![]),
        ];
        assert_eq!(names, expected);
    }

    #[test]
    fn a_wildcard_never_shows_what_may_not_be_read() {
        let space = space();
        subscribe(&space, 1, &device(), "$devices/#", 1, 0);
        subscribe(&space, 2, &device(), "#", 1, 0);
        assert_eq!(targets(&space, &device(), "$devices/d1/events"), []);
        assert_eq!(targets(&space, &Identity::Registry, "$devices/d1/config").len(), 2);
    }

    #[test]
    fn the_generation_changes_with_every_route() {
        let space = space();
        let mut seen = vec![space.generation()];
        let kept = subscribe(&space, 1, &device(), "$devices/#", 1, 0);
        seen.push(space.generation());
        space.unsubscribe(1, [("$devices/#", &kept)]);
        seen.push(space.generation());
        assert_eq!(targets(&space, &Identity::Registry, "$devices/d1/config"), []);
        let source = MqttTopics::IotMessage { registry_id: "r".into(), device_id: None, mqtt_topic: None };
        let mut link = space.link(&source, 1).unwrap();
        seen.push(space.generation());
        assert_eq!(space.route(&device(), 0, "$devices/d1/events").unwrap().links.len(), 1);
        link.close();
        seen.push(space.generation());
        assert_eq!(space.route(&device(), 0, "$devices/d1/events").unwrap().links.len(), 0);
        seen.dedup();
        assert_eq!(seen.len(), 5);
    }

    #[test]
    fn permanent_topics_keep_their_last_message_within_bounds() {
        let space = space();
        let message = |text: &'static str| {
            Arc::new(Message {
                payload: Bytes::from_static(text.as_bytes()),
                properties: Bytes::new(),
                expires: None,
            })
        };
        let kept = |topic| space.kept(topic).map(|(m, _)| m.payload.clone());
        space.keep("a", &message("1"), 1);
        space.keep("a", &message("2"), 1);
        space.keep("b", &message("3"), 1);
        assert_eq!(kept("a").as_deref(), Some(&b"2"[..]));
        assert_eq!(kept("b"), None);
        space.keep("a", &message(""), 1);
        assert_eq!(kept("a"), None);
        assert_eq!(space.permanent().bytes, 0);
        space.keep("b", &message("3"), 1);
        assert_eq!(kept("b").as_deref(), Some(&b"3"[..]));
    }
}
