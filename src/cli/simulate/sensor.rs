//! The readings of a press: values that drift slowly around where they belong.

use std::io::Write;

/// One press.
pub(super) struct Sensor {
    sequence: u64,
    cycles: u64,
    temperature: Drift,
    vibration: Drift,
    pressure: Drift,
}

impl Sensor {
    pub(super) fn new() -> Self {
        Self {
            sequence: 0,
            cycles: rand::random_range(10_000..90_000),
            temperature: Drift::new(62.0, 8.0),
            vibration: Drift::new(2.4, 0.8),
            pressure: Drift::new(182.0, 12.0),
        }
    }

    /// The next reading, as JSON.
    pub(super) fn reading(&mut self) -> Vec<u8> {
        self.sequence += 1;
        self.cycles += u64::from(rand::random_ratio(1, 3));
        let mut json = Vec::with_capacity(160);
        // Writing to a Vec does not fail.
        let _ = write!(
            json,
            r#"{{"ts":"{:.3}","seq":{},"temperature":{:.1},"vibration":{:.2},"pressure":{:.1},"cycles":{}}}"#,
            jiff::Timestamp::now(),
            self.sequence,
            self.temperature.next(),
            self.vibration.next(),
            self.pressure.next(),
            self.cycles,
        );
        json
    }
}

/// A random walk that is drawn back to its middle, so that it stays within its range.
struct Drift {
    middle: f64,
    range: f64,
    value: f64,
}

impl Drift {
    fn new(middle: f64, range: f64) -> Self {
        Self { middle, range, value: middle + range * rand::random_range(-0.5..0.5) }
    }

    fn next(&mut self) -> f64 {
        let step = self.range * rand::random_range(-0.05..0.05);
        let back = (self.middle - self.value) * 0.02;
        self.value = (self.value + step + back).clamp(self.middle - self.range, self.middle + self.range);
        self.value
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn readings_are_json_with_a_rising_number() {
        let mut sensor = Sensor::new();
        for sequence in 1..1000_u64 {
            let reading: serde_json::Value = serde_json::from_slice(&sensor.reading()).unwrap();
            assert_eq!(reading["seq"], sequence);
            let temperature = reading["temperature"].as_f64().unwrap();
            assert!((54.0..=70.0).contains(&temperature), "{temperature}");
            reading["ts"].as_str().unwrap().parse::<jiff::Timestamp>().unwrap();
        }
    }
}
