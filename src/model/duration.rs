//! Durations as people write them: `500ms`, `1.5s`, `2m`, `24h`.

use std::time::Duration;

/// A decimal number with at most nine digits after the point, then a unit.
pub fn parse(text: &str) -> Option<Duration> {
    let unit_at = text.find(|c: char| c.is_ascii_alphabetic())?;
    let (number, unit) = text.split_at(unit_at);
    let unit_nanos: u128 = match unit {
        "ms" => 1_000_000,
        "s" => 1_000_000_000,
        "m" => 60_000_000_000,
        "h" => 3_600_000_000_000,
        _ => return None,
    };
    let (whole, fraction) = number.split_once('.').unwrap_or((number, "0"));
    let digits = |text: &str, most: usize| {
        !text.is_empty() && text.len() <= most && text.bytes().all(|b| b.is_ascii_digit())
    };
    if !digits(whole, 18) || !digits(fraction, 9) {
        return None;
    }
    let whole: u128 = whole.parse().ok()?;
    let billionths: u128 = format!("{fraction:0<9}").parse().ok()?;
    let nanos = whole * unit_nanos + billionths * unit_nanos / 1_000_000_000;
    let seconds = u64::try_from(nanos / 1_000_000_000).ok()?;
    let rest = u32::try_from(nanos % 1_000_000_000).ok()?;
    Some(Duration::new(seconds, rest))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_are_exact() {
        for (text, nanos) in [
            ("1s", 1_000_000_000),
            ("500ms", 500_000_000),
            ("1.5s", 1_500_000_000),
            ("2m", 120_000_000_000),
            ("0s", 0),
            ("0.000000001s", 1),
            ("1h", 3_600_000_000_000),
        ] {
            assert_eq!(parse(text), Some(Duration::from_nanos(nanos)), "{text}");
        }
        for bad in ["", "1", "s", "1 s", "-1s", "+1s", "1.s", ".5s", "1sec", "1.0000000001s", "1e3s", "٣s"] {
            assert_eq!(parse(bad), None, "{bad}");
        }
    }
}
