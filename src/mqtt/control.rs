//! What a connection answers to packets other than PUBLISH.

use std::num::NonZeroU32;
use std::sync::Arc;

use bytestring::ByteString;
use rmqtt_codec::v5::RetainHandling;

use super::access::{Names, Plan, Refusal};
use super::close::Close;
use super::connection::Connection;
use super::encode;
use super::message::Delivery;
use super::packet::{AckKind, Packet, Subscription, Version};
use super::space::Subscriber;

/// PUBREL or PUBCOMP for an identifier that is not in use.
const NOT_FOUND: u8 = 0x92;
/// A quota is used up.
const QUOTA: u8 = 0x97;

impl Connection {
    /// Answers one packet.
    pub(super) fn control(&mut self, packet: Packet) -> Result<(), Close> {
        match packet {
            Packet::Ack(AckKind::Puback, id) => drop(self.tenure.session.acknowledged(id)),
            // Nothing is ever sent with QoS 2; these are left from another server's session.
            Packet::Ack(AckKind::Pubcomp, _) => {}
            Packet::Ack(AckKind::Pubrec, id) => {
                encode::ack(&mut self.out, self.version, AckKind::Pubrel, id, NOT_FOUND);
            }
            Packet::Ack(AckKind::Pubrel, id) => {
                let code = if self.tenure.session.release(id) { 0 } else { NOT_FOUND };
                encode::ack(&mut self.out, self.version, AckKind::Pubcomp, id, code);
            }
            Packet::Subscribe(packet, id, subscriptions) => self.subscribe(packet, id, subscriptions),
            Packet::Unsubscribe(packet, filters) => self.unsubscribe(packet, &filters),
            Packet::Ping => encode::pong(&mut self.out),
            Packet::Disconnect(with_will, expiry) => {
                if let Some(expiry) = expiry {
                    // What ends with the connection cannot be kept after all (MQTT-3.1.2-23).
                    if self.session_expiry == 0 && expiry != 0 {
                        return Err(Close::Protocol);
                    }
                    let longest = u32::try_from(self.limits.max_session_expiry.as_secs());
                    self.session_expiry = expiry.min(longest.unwrap_or(u32::MAX));
                }
                return Err(if with_will { Close::GoodbyeWithWill } else { Close::Goodbye });
            }
        }
        Ok(())
    }

    fn subscribe(&mut self, packet: u16, id: Option<NonZeroU32>, subscriptions: Vec<Subscription>) {
        let mut codes = Vec::with_capacity(subscriptions.len());
        for (number, subscription) in subscriptions.into_iter().enumerate() {
            if number >= self.limits.max_subscriptions {
                codes.push(if self.version == Version::V5 { QUOTA } else { 0x80 });
                continue;
            }
            let code = match self.subscribe_one(id, &subscription) {
                Ok(granted) => granted,
                Err(code) if self.version == Version::V5 => code,
                Err(_) => 0x80,
            };
            codes.push(code);
        }
        encode::granted(&mut self.out, self.version, 0x90, packet, &codes);
    }

    /// Grants one subscription with a QoS, or refuses it with a code of 5.0. The kept message that it asks for
    /// goes into the queue, which is emptied only after the SUBACK is in the output.
    fn subscribe_one(&mut self, id: Option<NonZeroU32>, subscription: &Subscription) -> Result<u8, u8> {
        let space = &self.account.space;
        let plan = space.topics().subscribe(&self.account.identity, &subscription.filter);
        let plan = plan.map_err(|refusal| match refusal {
            Refusal::Invalid => 0x8f,
            Refusal::Denied => 0x87,
            Refusal::Shared => 0x9e,
        })?;
        let session = &mut self.tenure.session;
        let earlier = session.subscriptions.get(&*subscription.filter);
        if earlier.is_none() && session.subscriptions.len() >= self.limits.max_subscriptions {
            return Err(QUOTA);
        }
        let (is_new, qos) = (earlier.is_none(), subscription.qos.min(1));
        let subscriber = Subscriber {
            session: self.tenure.seat.number,
            outbox: Arc::clone(&self.tenure.seat.outbox),
            who: self.account.identity.clone(),
            qos,
            no_local: subscription.no_local,
            id: id.map_or(0, NonZeroU32::get),
            filter: (*subscription.filter).into(),
            names: plan.names.clone(),
        };
        let shared = Arc::clone(space);
        let _order = plan.exact.is_some().then(|| shared.permanent_order());
        let kept = space.subscribe(&plan, earlier, subscriber);
        session.subscriptions.insert((*subscription.filter).into(), kept);
        let wanted = match subscription.retain {
            RetainHandling::AtSubscribe => true,
            RetainHandling::AtSubscribeNew => is_new,
            RetainHandling::NoAtSubscribe => false,
        };
        if wanted && let Some(delivery) = self.kept_message(&plan, qos, id) {
            self.tenure.seat.outbox.push(delivery);
        }
        Ok(qos)
    }

    /// The last message of the permanent topic that a filter without wildcards names.
    fn kept_message(&self, plan: &Plan, granted: u8, id: Option<NonZeroU32>) -> Option<Delivery> {
        let space = &self.account.space;
        let topic = plan.exact.as_deref()?;
        let (message, published) = space.kept(topic)?;
        if !space.topics().may_read(&self.account.identity, topic) {
            return None;
        }
        let name = match plan.names {
            Names::Alias => plan.filter.clone(),
            _ => plan.names.deliver(topic),
        };
        Some(Delivery {
            message,
            topic: name.into(),
            qos: Delivery::qos(published, granted),
            retain: true,
            ids: id.map(NonZeroU32::get).into_iter().collect(),
        })
    }

    fn unsubscribe(&mut self, packet: u16, filters: &[ByteString]) {
        let mut codes = Vec::new();
        for filter in filters {
            let kept = self.tenure.session.subscriptions.remove(&**filter);
            if let Some(kept) = &kept {
                self.account.space.unsubscribe(self.tenure.seat.number, [(&**filter, kept)]);
            }
            if self.version == Version::V5 {
                codes.push(if kept.is_some() { 0 } else { 0x11 });
            }
        }
        encode::granted(&mut self.out, self.version, 0xb0, packet, &codes);
    }
}
