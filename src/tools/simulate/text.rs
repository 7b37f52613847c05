//! How numbers and times are written on a command line and in a trace, and how they are shown.

use jiff::Timestamp;
use std::fmt;
use std::time::Duration;

/// A number between 0 and 1.
#[derive(Clone, Copy, PartialEq, PartialOrd, Debug)]
pub struct Share(pub f64);

impl Share {
    /// `0.05` or `5%`.
    pub fn parse(text: &str) -> Result<Share, String> {
        let text = text.trim();
        let share = match text.strip_suffix('%') {
            // Divided in decimal: 99.9 / 100.0 is not what 0.999 is.
            Some(percent) => format!("{}e-2", percent.trim()).parse::<f64>(),
            None => text.parse(),
        };
        match share {
            Ok(share) if (0.0..=1.0).contains(&share) => Ok(Share(share)),
            Ok(_) => Err("a share lies between 0 and 1, or 0% and 100%".to_owned()),
            Err(_) => Err("write a share, as in 0.05 or 5%".to_owned()),
        }
    }
}

/// `10000`, `10k`, `1.5M`, `2G`.
pub(crate) fn parse_count(text: &str) -> Result<usize, String> {
    let wrong = || "write a number from 1 on, as in 250000, 250k or 1.5M".to_owned();
    let text = text.trim();
    let (number, unit) = match text.char_indices().next_back() {
        Some((place, 'k' | 'K')) => (text.get(..place).unwrap_or_default(), 1e3),
        Some((place, 'M')) => (text.get(..place).unwrap_or_default(), 1e6),
        Some((place, 'G')) => (text.get(..place).unwrap_or_default(), 1e9),
        _ => (text, 1.0),
    };
    let number: f64 = number.replace('_', "").parse().map_err(|_| wrong())?;
    let count = (number * unit).round();
    // As the configuration's bound for `capacity`.
    if !(1.0..=4e9).contains(&count) {
        return Err("it must lie between 1 and 4,000,000,000".to_owned());
    }
    #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "it lies between 1 and 4e9")]
    Ok(count as usize)
}

/// `30s`, `1m 30s`, `2h`; longer than nothing.
pub(crate) fn parse_duration(text: &str) -> Result<Duration, String> {
    match humantime::parse_duration(text.trim()) {
        Ok(Duration::ZERO) => Err("it must be longer than nothing".to_owned()),
        Ok(duration) => Ok(duration),
        Err(_) => Err("write a duration with its unit, as in 500ms, 30s, 10m or 1h 30m".to_owned()),
    }
}

/// What the times of a trace are.
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
    /// What a time that is written like this most likely is. Whole numbers that are as large as a time since 1970 in ms,
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

/// A share as per cent: `99.9`, and `100` only if all of it is there.
pub(super) fn percent(part: u64, whole: u64) -> String {
    if part == whole || whole == 0 {
        return "100".to_owned();
    }
    #[expect(clippy::cast_precision_loss, reason = "for the eye")]
    let percent = part as f64 * 100.0 / whole as f64;
    match percent {
        percent if percent > 99.995 => ">99.99".to_owned(),
        percent if percent > 99.0 => format!("{percent:.2}"),
        percent => format!("{percent:.1}"),
    }
}

/// `10k`, `1.5M`: at most three digits where nothing is lost by it, else all of them.
pub(super) fn count(number: usize) -> String {
    for (unit, name) in [(1_000_000_000, "G"), (1_000_000, "M"), (1_000, "k")] {
        if number >= unit && number.is_multiple_of(unit / 100) {
            let (whole, rest) = (number / unit, number % unit / (unit / 100));
            let fraction = format!(".{rest:02}");
            return format!("{whole}{}{name}", fraction.trim_end_matches('0').trim_end_matches('.'));
        }
    }
    number.to_string()
}

/// `1.5 MB`.
pub(super) fn bytes(number: u64) -> String {
    #[expect(clippy::cast_precision_loss, reason = "for the eye")]
    let number = number as f64;
    match number {
        n if n < 1e3 => format!("{n:.0} B"),
        n if n < 1e6 => format!("{:.1} kB", n / 1e3),
        n if n < 1e9 => format!("{:.1} MB", n / 1e6),
        n => format!("{:.1} GB", n / 1e9),
    }
}

/// As `humantime` writes it.
pub(super) struct Span(pub(super) Duration);

impl fmt::Display for Span {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        humantime::format_duration(self.0).fmt(f)
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

    #[test]
    fn counts_and_shares_have_units() {
        let counts = ["1", "250k", "1.5M", "4G", "1_000"].map(parse_count);
        assert_eq!(counts, [1, 250_000, 1_500_000, 4_000_000_000, 1_000].map(Ok));
        assert!(["0", "", "k", "-1", "5G", "many", "inf"].iter().all(|text| parse_count(text).is_err()));
        assert_eq!(
            ["99.9%", "0.05", "1"].map(Share::parse),
            [0.999, 0.05, 1.0].map(|share| Ok(Share(share)))
        );
        assert!(["5", "-1%", "101%", "x", "NaN"].iter().all(|text| Share::parse(text).is_err()));
        assert_eq!([999, 1_000, 1_500, 1_234, 2_000_000].map(count), ["999", "1k", "1.5k", "1234", "2M"]);
        assert_eq!([percent(1, 3), percent(9_999_999, 10_000_000), percent(5, 5)], ["33.3", ">99.99", "100"]);
    }
}
