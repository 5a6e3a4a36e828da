//! Keeps requests to a rate.

use std::time::Duration;

use tokio::sync::Mutex;
use tokio::time::Instant;

/// How much of a second's requests may come at once.
const BURST: Duration = Duration::from_millis(50);

/// Gives turns at a steady rate.
#[derive(Debug)]
pub(super) struct Pace {
    gap: Duration,
    next: Mutex<Option<Instant>>,
}

impl Pace {
    pub(super) fn new(per_second: u32) -> Self {
        Self { gap: Duration::from_secs(1) / per_second.max(1), next: Mutex::new(None) }
    }

    /// Ready when it is the caller's turn. Those who wait no more take no turn.
    pub(super) async fn turn(&self) {
        let mut next = self.next.lock().await;
        let now = Instant::now();
        let earliest = now.checked_sub(BURST).unwrap_or(now);
        let at = next.map_or(now, |next| next.max(earliest));
        tokio::time::sleep_until(at).await;
        *next = Some(at + self.gap);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn turns_come_at_the_rate() {
        let pace = Pace::new(100);
        let began = Instant::now();
        for _ in 0..200 {
            pace.turn().await;
        }
        let took = began.elapsed();
        assert!((Duration::from_millis(1900)..Duration::from_millis(2050)).contains(&took), "{took:?}");
        tokio::time::sleep(Duration::from_secs(10)).await;
        let began = Instant::now();
        for _ in 0..100 {
            pace.turn().await;
        }
        assert!(
            began.elapsed() > Duration::from_millis(900),
            "a pause is not saved up: {:?}",
            began.elapsed()
        );
    }

    #[tokio::test(start_paused = true)]
    async fn who_waits_no_more_takes_no_turn() {
        let pace = Pace::new(1);
        pace.turn().await;
        for _ in 0..100 {
            let waited = tokio::time::timeout(Duration::from_millis(1), pace.turn()).await;
            assert!(waited.is_err());
        }
        let began = Instant::now();
        pace.turn().await;
        assert!(began.elapsed() <= Duration::from_secs(1), "{:?}", began.elapsed());
    }
}
