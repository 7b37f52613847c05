//! How times are written in a trace.

use jiff::Timestamp;

/// The unit of the times in a trace.
#[derive(Clone, Copy, PartialEq, Eq, Debug, clap::ValueEnum)]
pub enum TimeUnit {
    /// seconds, with a fraction or without
    S,
    /// milliseconds
    Ms,
    /// microseconds
    Us,
    /// nanoseconds
    Ns,
    /// ISO 8601 with an offset or Z, as in 2026-11-24T22:18:07.123Z
    Iso,
}

impl TimeUnit {
    /// Guesses the unit of a time from how it is written. Whole numbers that are as large as a time since 1970 in ms,
    /// µs or ns would be, are; other numbers are seconds.
    pub fn guess(text: &str) -> Option<TimeUnit> {
        let text = text.trim();
        if text.parse::<f64>().is_err() {
            return text.parse::<Timestamp>().is_ok().then_some(TimeUnit::Iso);
        }
        let digits = text.trim_start_matches('-');
        Some(match digits.len() {
            _ if !digits.bytes().all(|byte| byte.is_ascii_digit()) => TimeUnit::S,
            0..=11 => TimeUnit::S,
            12..=14 => TimeUnit::Ms,
            15..=17 => TimeUnit::Us,
            _ => TimeUnit::Ns,
        })
    }

    /// Nanoseconds since whatever the trace counts from.
    pub fn parse(self, text: &str) -> Option<i128> {
        let text = text.trim();
        let (unit, digits) = match self {
            TimeUnit::Iso => return Some(text.parse::<Timestamp>().ok()?.as_nanosecond()),
            TimeUnit::S => (1_000_000_000_i128, 9),
            TimeUnit::Ms => (1_000_000, 6),
            TimeUnit::Us => (1_000, 3),
            TimeUnit::Ns => (1, 0),
        };
        exact(text, unit, digits).or_else(|| rounded(text, unit))
    }

    /// As it is written on the command line.
    pub fn name(self) -> &'static str {
        match self {
            TimeUnit::S => "s",
            TimeUnit::Ms => "ms",
            TimeUnit::Us => "us",
            TimeUnit::Ns => "ns",
            TimeUnit::Iso => "iso",
        }
    }
}

/// Plain decimals lose nothing: a time since 1970 in seconds has more digits than an `f64`.
fn exact(text: &str, unit: i128, digits: u32) -> Option<i128> {
    let (whole, fraction) = text.split_once('.').unwrap_or((text, ""));
    let negative = whole.starts_with('-');
    let whole: i128 = whole.parse::<i64>().ok()?.into();
    if !fraction.bytes().all(|byte| byte.is_ascii_digit()) {
        return None;
    }
    let kept = fraction.get(..fraction.len().min(digits as usize))?;
    let missing = digits - u32::try_from(kept.len()).ok()?;
    let fraction: i128 = if kept.is_empty() { 0 } else { kept.parse::<i64>().ok()?.into() };
    let fraction = fraction * 10_i128.pow(missing);
    Some(whole * unit + if negative { -fraction } else { fraction })
}

/// `1.5e3`, and what else a number may be.
fn rounded(text: &str, unit: i128) -> Option<i128> {
    #[expect(
        clippy::cast_possible_truncation,
        clippy::cast_precision_loss,
        reason = "checked below; the unit is at most 1e9"
    )]
    match (text.parse::<f64>().ok()? * unit as f64).round() {
        nanos if nanos.abs() < 1e30 => Some(nanos as i128),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_read_to_the_nanosecond() {
        let table = [
            (TimeUnit::S, "1764022687.123456789", Some(1_764_022_687_123_456_789)),
            (TimeUnit::S, "-0.5", Some(-500_000_000)),
            (TimeUnit::S, "1.5e3", Some(1_500_000_000_000)),
            (TimeUnit::S, "7", Some(7_000_000_000)),
            (TimeUnit::S, "0.1234567899", Some(123_456_789)),
            (TimeUnit::Ms, "1764022687123", Some(1_764_022_687_123_000_000)),
            (TimeUnit::Us, "1.25", Some(1_250)),
            (TimeUnit::Ns, "12", Some(12)),
            (TimeUnit::Iso, "1970-01-01T00:00:01.5Z", Some(1_500_000_000)),
            (TimeUnit::Iso, "1970-01-01T01:00:01+01:00", Some(1_000_000_000)),
            (TimeUnit::S, "NaN", None),
            (TimeUnit::S, "1e400", None),
            (TimeUnit::S, "yesterday", None),
            (TimeUnit::S, "1.x", None),
            (TimeUnit::Iso, "5", None),
        ];
        for (unit, text, nanos) in table {
            assert_eq!(unit.parse(text), nanos, "{text} as {unit:?}");
        }
    }

    #[test]
    fn units_are_guessed_by_size_and_shape() {
        let table = [
            ("0", Some(TimeUnit::S)),
            ("12.5", Some(TimeUnit::S)),
            ("1764022687", Some(TimeUnit::S)),
            ("1764022687.5", Some(TimeUnit::S)),
            ("1764022687123", Some(TimeUnit::Ms)),
            ("1764022687123456", Some(TimeUnit::Us)),
            ("1764022687123456789", Some(TimeUnit::Ns)),
            ("2026-11-24T22:18:07Z", Some(TimeUnit::Iso)),
            ("time", None),
            ("", None),
        ];
        for (text, unit) in table {
            assert_eq!(TimeUnit::guess(text), unit, "{text}");
        }
    }
}
