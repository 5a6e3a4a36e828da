//! Makes one device's readings at the wanted pace and gives them to its client.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use rumqttc::AsyncClient;
use tokio::time::{Instant, sleep_until};

use super::device::Device;
use super::sensor::Sensor;

/// Readings made between two looks at the clock when there is no rate.
const UNPACED: u64 = 64;
/// Shortest sleep: at higher rates each wake-up makes several readings.
const TICK: Duration = Duration::from_millis(1);

/// Runs until all readings are taken on or Ctrl-C.
pub(super) async fn run(device: Arc<Device>, client: AsyncClient, index: usize, count: usize) {
    let mut stop = device.run.stop.clone();
    tokio::select! {
        () = publish(&device, &client, index, count) => {}
        _ = stop.wait_for(|stop| *stop) => {}
    }
    device.ended.store(true, Ordering::Release);
}

async fn publish(device: &Device, client: &AsyncClient, index: usize, count: usize) {
    device.connected.notified().await;
    let topic = format!("$devices/{}/events", device.id);
    let mut sensor = Sensor::new();
    let mut schedule = device.run.rate.map(|rate| Schedule::new(rate, index, count));
    loop {
        let due = match &mut schedule {
            Some(schedule) => schedule.due().await,
            None => UNPACED,
        };
        for _ in 0..due {
            let Ok(permit) = device.window.acquire().await else { return };
            if !device.run.take_one() {
                return;
            }
            // Given back when the reading is through.
            permit.forget();
            device.given.fetch_add(1, Ordering::Relaxed);
            // The queue is as long as the window, so there is always room.
            if client.try_publish(&*topic, device.run.qos, false, sensor.reading()).is_err() {
                return;
            }
            device.run.published.fetch_add(1, Ordering::Relaxed);
        }
    }
}

/// When readings are due: evenly spread over time, the devices one after the other.
struct Schedule {
    rate: f64,
    start: Instant,
    made: u64,
}

impl Schedule {
    #[expect(clippy::cast_precision_loss, reason = "a share of a second needs no 16 digits")]
    fn new(rate: f64, index: usize, count: usize) -> Self {
        let share = index as f64 / count as f64;
        Self { rate, start: Instant::now() + seconds(share / rate), made: 0 }
    }

    /// Waits until at least one reading is due and tells how many are. After an outage at most one second's worth
    /// is made up for.
    #[expect(
        clippy::cast_precision_loss,
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        reason = "counts stay far below 2^53"
    )]
    async fn due(&mut self) -> u64 {
        loop {
            let now = Instant::now();
            let passed = now.saturating_duration_since(self.start).as_secs_f64();
            let planned = if now < self.start { 0 } else { (passed * self.rate) as u64 + 1 };
            let most = (self.rate as u64).max(1);
            self.made = self.made.max(planned.saturating_sub(most));
            if planned > self.made {
                let due = planned - self.made;
                self.made = planned;
                return due;
            }
            let next = self.start + seconds(self.made as f64 / self.rate);
            sleep_until(next.max(now + TICK)).await;
        }
    }
}

/// A rate near zero would be longer than a `Duration`.
fn seconds(seconds: f64) -> Duration {
    Duration::from_secs_f64(seconds.min(1e9))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn keeps_the_rate() {
        for rate in [0.5, 2.0, 1000.0, 70_000.0] {
            let mut schedule = Schedule::new(rate, 0, 1);
            let start = Instant::now();
            let mut made = 0;
            while start.elapsed() < Duration::from_secs(10) {
                made += schedule.due().await;
            }
            let wanted = rate * 10.0;
            assert!((made as f64 - wanted).abs() <= (wanted * 0.001).max(1.0), "{rate}: {made}");
        }
    }

    #[tokio::test(start_paused = true)]
    async fn makes_up_for_one_second_at_most() {
        let mut schedule = Schedule::new(100.0, 0, 1);
        assert_eq!(schedule.due().await, 1);
        tokio::time::advance(Duration::from_secs(60)).await;
        assert_eq!(schedule.due().await, 100);
    }
}
