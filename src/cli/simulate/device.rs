//! One device: its connection, from the first attempt to the last acknowledgement.
//!
//! The client must be polled without a pause and must not be awaited for anything else, so this task does nothing
//! but poll; readings come from the task in `pace` over the client's queue.
//!
//! At most [`WINDOW`] readings are on their way at once, those in the queue included: the client sends what it
//! kept from a lost connection without counting, and would lose readings beyond its own window.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use anyhow::{anyhow, bail};
use rumqttc::{
    AsyncClient, ConnectReturnCode, ConnectionError, Event, EventLoop, MqttOptions, NetworkOptions, Outgoing,
    Packet, QoS, Request,
};
use tokio::sync::Semaphore;
use tokio::time::Interval;

use super::{Login, Run, output, pace};

/// Readings that may wait for their acknowledgement.
pub(super) const WINDOW: u16 = 20;
/// How long the last acknowledgements are waited for after Ctrl-C.
const LAST_WAIT: Duration = Duration::from_secs(3);
const KEEP_ALIVE: Duration = Duration::from_secs(30);
const FIRST_DELAY: Duration = Duration::from_millis(200);
const LONGEST_DELAY: Duration = Duration::from_secs(2);
/// Largest packet that the server may send us: we subscribe to nothing.
const MAX_PACKET: usize = 1 << 20;

/// What the two tasks of a device share.
pub(super) struct Device {
    pub(super) run: Arc<Run>,
    pub(super) id: String,
    pub(super) window: Semaphore,
    /// Readings given to the client, and those that are through.
    pub(super) given: AtomicU64,
    through: AtomicU64,
    /// No more readings will be given.
    pub(super) ended: AtomicBool,
    pub(super) connected: tokio::sync::Notify,
}

/// Runs one device, the `index`th of `count`, until all its readings are acknowledged.
pub(super) async fn run(run: Arc<Run>, login: Login, index: usize, count: usize) -> anyhow::Result<()> {
    // With the process's number, so that two runs at once do not throw each other out.
    let client_id = format!("simulate-{}-{}", login.id, std::process::id());
    let mut options = MqttOptions::new(client_id, &*run.host, run.port);
    options
        .set_credentials(&*login.id, login.password)
        .set_clean_session(false)
        .set_inflight(WINDOW)
        .set_keep_alive(KEEP_ALIVE)
        .set_max_packet_size(MAX_PACKET, MAX_PACKET);
    let (client, mut poll) = AsyncClient::new(options, usize::from(WINDOW));
    let mut network = NetworkOptions::new();
    network.set_connection_timeout(run.timeout.as_secs().clamp(1, 10)).set_tcp_nodelay(true);
    poll.set_network_options(network);
    let device = Arc::new(Device {
        run,
        id: login.id,
        window: Semaphore::new(WINDOW.into()),
        given: AtomicU64::new(0),
        through: AtomicU64::new(0),
        ended: AtomicBool::new(false),
        connected: tokio::sync::Notify::new(),
    });
    // Dropped with this task, so that neither outlives the other.
    let mut readings = tokio::task::JoinSet::new();
    readings.spawn(pace::run(Arc::clone(&device), client.clone(), index, count));
    device.poll(&mut poll, &client).await
}

impl Device {
    async fn poll(&self, poll: &mut EventLoop, client: &AsyncClient) -> anyhow::Result<()> {
        let mut outage = Some(Outage::begin());
        let mut kept = Vec::new();
        let mut stopping = None;
        let mut wake = tokio::time::interval(Duration::from_millis(50));
        wake.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        loop {
            if self.is_done(&mut stopping) {
                if outage.is_none() {
                    disconnect(poll, client).await;
                }
                return Ok(());
            }
            let Some(event) = self.next(poll, &mut wake, &mut stopping).await else { continue };
            match event {
                Ok(Event::Incoming(Packet::ConnAck(connack))) => {
                    outage = None;
                    resume(poll, &mut kept, connack.session_present);
                    self.connected.notify_one();
                }
                Ok(event) => self.count(&event),
                Err(error) => {
                    kept.extend(std::mem::take(&mut poll.pending));
                    self.wait(&error, outage.get_or_insert_with(Outage::begin)).await?;
                }
            }
        }
    }

    /// The client's next event; `None` at the end, which may come while no packet does. Until then the client's
    /// future is never dropped half-way: it would lose what it was writing.
    async fn next(
        &self,
        poll: &mut EventLoop,
        wake: &mut Interval,
        stopping: &mut Option<Instant>,
    ) -> Option<Result<Event, ConnectionError>> {
        let mut event = std::pin::pin!(poll.poll());
        loop {
            tokio::select! {
                biased;
                event = &mut event => return Some(event),
                _ = wake.tick() => {
                    if self.is_done(stopping) {
                        return None;
                    }
                }
            }
        }
    }

    fn is_done(&self, stopping: &mut Option<Instant>) -> bool {
        if !self.ended.load(Ordering::Acquire) {
            return false;
        }
        let all = self.through.load(Ordering::Relaxed) == self.given.load(Ordering::Relaxed);
        all || (*self.run.stop.borrow() && stopping.get_or_insert_with(Instant::now).elapsed() > LAST_WAIT)
    }

    /// A reading is through when it is acknowledged, or with QoS 0 when it is written.
    fn count(&self, event: &Event) {
        let through = match event {
            Event::Incoming(Packet::PubAck(_)) => true,
            Event::Outgoing(Outgoing::Publish(_)) => self.run.qos == QoS::AtMostOnce,
            _ => false,
        };
        if through {
            self.through.fetch_add(1, Ordering::Relaxed);
            self.run.acknowledged.fetch_add(1, Ordering::Relaxed);
            self.window.add_permits(1);
        }
    }

    /// Tells what went wrong and waits a little; or gives up.
    async fn wait(&self, error: &ConnectionError, outage: &mut Outage) -> anyhow::Result<()> {
        let address = format!("{}:{}", self.run.host, self.run.port);
        if let ConnectionError::ConnectionRefused(code) = error {
            match code {
                ConnectReturnCode::ServiceUnavailable => {}
                ConnectReturnCode::BadUserNamePassword | ConnectReturnCode::NotAuthorized => {
                    bail!(
                        "the MQTT server at {address} refused the device {}: wrong password, or not known there",
                        self.id
                    )
                }
                other => bail!("the MQTT server at {address} refused the device {}: {other:?}", self.id),
            }
        }
        let left = self.run.timeout.saturating_sub(outage.since.elapsed());
        if left.is_zero() {
            let seconds = self.run.timeout.as_secs();
            return Err(anyhow!(
                "no connection to the MQTT server at {address} for {seconds} s ({error}); is it running?"
            ));
        }
        if !outage.told {
            output::to_stderr(format_args!(
                "{}: no connection to the MQTT server at {address} ({error}); trying again",
                self.id
            ));
            outage.told = true;
        }
        let jitter = rand::random_range(0.5..1.0);
        tokio::time::sleep(outage.delay.mul_f64(jitter).min(left)).await;
        outage.delay = (outage.delay * 2).min(LONGEST_DELAY);
        Ok(())
    }
}

/// A time without a connection.
struct Outage {
    since: Instant,
    delay: Duration,
    told: bool,
}

impl Outage {
    fn begin() -> Self {
        Self { since: Instant::now(), delay: FIRST_DELAY, told: false }
    }
}

/// Gives the client what a lost connection left behind. A server that has forgotten the session has forgotten the
/// packet identifiers too, so there everything is sent as new.
fn resume(poll: &mut EventLoop, kept: &mut Vec<Request>, session_present: bool) {
    for mut request in kept.drain(..) {
        if let Request::Publish(publish) = &mut request
            && !session_present
        {
            publish.pkid = 0;
            publish.dup = false;
        }
        poll.pending.push_back(request);
    }
}

/// Says goodbye; it does not matter when that fails.
async fn disconnect(poll: &mut EventLoop, client: &AsyncClient) {
    if client.try_disconnect().is_err() {
        return;
    }
    let goodbye = async {
        while let Ok(event) = poll.poll().await {
            if event == Event::Outgoing(Outgoing::Disconnect) {
                return;
            }
        }
    };
    let _ = tokio::time::timeout(Duration::from_secs(1), goodbye).await;
}
