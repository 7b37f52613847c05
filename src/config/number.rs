//! The grammar of numbers: counts, sizes and durations are written alike in the configuration, on the command line, in the
//! API and on the dashboard. `tests/fixtures/numbers.json` has examples; the dashboard's JavaScript is tested with them, too.
//!
//! ```text
//! count     2000000  2_000_000  2,000,000  500k  1.5M  2G           k, M, G: thousand, million, billion
//! size      262144  256KiB  16MiB  1.5G  16MB                       k, M, G, KiB, MiB, GiB: powers of 1024 (as in rabbitmq.conf)
//!                                                                   kB, MB, GB: powers of 1000
//! duration  90  90s  10m  1h 30m  1.5h  500ms  7d                   without a unit: seconds
//! ```
//!
//! Case does not matter. A number with a unit may have a fraction, if the result is whole. A comma groups three digits; it is
//! never a decimal point, so `1,5M` is refused.

use std::time::Duration;

/// How to write a count.
#[cfg(feature = "tools")]
pub(crate) const COUNT: &str =
    "write a whole number, as in 2000000, 500k or 1.5M (k, M, G: thousand, million, billion)";
/// How to write a duration.
#[cfg(feature = "tools")]
pub(crate) const DURATION: &str =
    "write a duration, as in 500ms, 30s, 10m or 1h 30m; a number without a unit counts seconds";

/// Nanoseconds of each unit of time. The first name of each is the usual one.
const TIMES: [(&[&str], u128); 10] = [
    (&["ns", "nsec"], 1),
    (&["us", "usec", "µs"], 1_000),
    (&["ms", "msec", "millisecond", "milliseconds"], 1_000_000),
    (&["s", "sec", "secs", "second", "seconds"], SECOND),
    (&["m", "min", "mins", "minute", "minutes"], 60 * SECOND),
    (&["h", "hr", "hrs", "hour", "hours"], 3600 * SECOND),
    (&["d", "day", "days"], 86_400 * SECOND),
    (&["w", "week", "weeks"], 604_800 * SECOND),
    // `hapax check` writes long durations with these two. They are averages, as in the crate humantime.
    (&["month", "months"], 2_630_016 * SECOND),
    (&["y", "year", "years"], 31_557_600 * SECOND),
];
const SECOND: u128 = 1_000_000_000;

/// Parses a count. Returns `None` if the text is none.
pub(crate) fn count(text: &str) -> Option<u64> {
    let (number, unit) = Decimal::split(text.trim())?;
    let unit = match unit.trim_start().to_ascii_lowercase().as_str() {
        "" => 1,
        "k" => 1_000,
        "m" => 1_000_000,
        "g" => 1_000_000_000,
        _ => return None,
    };
    number.times(unit)?.try_into().ok()
}

/// Parses a number of bytes. Returns `None` if the text is none.
pub(crate) fn size(text: &str) -> Option<u64> {
    let (number, unit) = Decimal::split(text.trim())?;
    let unit = match unit.trim_start().to_ascii_lowercase().as_str() {
        "" | "b" => 1,
        "k" | "ki" | "kib" => 1 << 10,
        "m" | "mi" | "mib" => 1 << 20,
        "g" | "gi" | "gib" => 1 << 30,
        "t" | "ti" | "tib" => 1 << 40,
        "kb" => 1_000,
        "mb" => 1_000_000,
        "gb" => 1_000_000_000,
        "tb" => 1_000_000_000_000,
        _ => return None,
    };
    number.times(unit)?.try_into().ok()
}

/// Parses a duration. Returns `None` if the text is none.
pub(crate) fn duration(text: &str) -> Option<Duration> {
    let text = text.trim();
    let (number, rest) = Decimal::split(text)?;
    if rest.is_empty() {
        return nanos(number.times(SECOND)?);
    }
    let (mut sum, mut rest) = (0_u128, text);
    while !rest.is_empty() {
        let (number, behind) = Decimal::split(rest)?;
        let behind = behind.trim_start();
        let end = behind.find(|c: char| !c.is_alphabetic()).unwrap_or(behind.len());
        let (unit, behind) = behind.split_at_checked(end)?;
        let unit = unit.to_lowercase();
        let (_, unit) = TIMES.iter().find(|(names, _)| names.contains(&&*unit))?;
        sum = sum.checked_add(number.times(*unit)?)?;
        rest = behind.trim_start();
    }
    nanos(sum)
}

fn nanos(nanos: u128) -> Option<Duration> {
    let seconds = u64::try_from(nanos / SECOND).ok()?;
    Some(Duration::new(seconds, u32::try_from(nanos % SECOND).ok()?))
}

/// A decimal number: digits, and how many of them stand behind the point.
struct Decimal {
    digits: u128,
    places: u32,
}

impl Decimal {
    /// Takes a number from the beginning of a text. Returns it and the rest.
    fn split(text: &str) -> Option<(Decimal, &str)> {
        let end =
            text.find(|c: char| !c.is_ascii_digit() && !matches!(c, '_' | ',' | '.')).unwrap_or(text.len());
        let (number, rest) = text.split_at_checked(end)?;
        let (whole, fraction) = number.split_once('.').unwrap_or((number, ""));
        let is_number =
            |digits: &str| !digits.is_empty() && digits.bytes().all(|digit| digit.is_ascii_digit());
        if number.contains('.') && !is_number(fraction) || !is_grouped(whole) {
            return None;
        }
        let digits = whole.replace(['_', ','], "") + fraction;
        let places = u32::try_from(fraction.len()).ok()?;
        Some((Decimal { digits: digits.parse().ok()?, places }, rest))
    }

    /// Returns the product, if it is a whole number.
    fn times(&self, unit: u128) -> Option<u128> {
        let (product, scale) = (self.digits.checked_mul(unit)?, 10_u128.checked_pow(self.places)?);
        (product % scale == 0).then_some(product / scale)
    }
}

/// Returns true for digits that may be grouped: by `_` anywhere between them, or by commas into threes.
fn is_grouped(whole: &str) -> bool {
    let digits = |part: &str| {
        !part.is_empty()
            && part.split('_').all(|part| !part.is_empty() && part.bytes().all(|b| b.is_ascii_digit()))
    };
    let mut parts = whole.split(',');
    let first = parts.next().unwrap_or_default();
    let rest: Vec<&str> = parts.collect();
    let threes = rest.iter().all(|part| part.len() == 3 && part.bytes().all(|b| b.is_ascii_digit()));
    digits(first) && threes && (rest.is_empty() || first.len() <= 3 && !first.contains('_'))
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::Value;

    /// `[[text, value or null]…]` of the table of examples.
    fn examples(kind: &str) -> Vec<(String, Option<f64>)> {
        let text = std::fs::read_to_string("tests/fixtures/numbers.json").unwrap();
        let table: Value = serde_json::from_str(&text).unwrap();
        let rows = table[kind].as_array().unwrap();
        rows.iter().map(|row| (row[0].as_str().unwrap().to_owned(), row[1].as_f64())).collect()
    }

    #[test]
    fn the_examples_mean_what_the_table_says() {
        for (text, value) in examples("counts") {
            assert_eq!(count(&text).map(|count| count as f64), value, "count {text:?}");
        }
        for (text, value) in examples("sizes") {
            assert_eq!(size(&text).map(|size| size as f64), value, "size {text:?}");
        }
        for (text, value) in examples("durations") {
            assert_eq!(duration(&text).map(|span| span.as_secs_f64()), value, "duration {text:?}");
        }
    }

    #[test]
    fn what_is_written_is_read_back() {
        for seconds in [0, 1, 59, 60, 3599, 86_400, 31_536_000] {
            for millis in [0, 1, 999] {
                let span = Duration::from_secs(seconds) + Duration::from_millis(millis);
                let text = humantime::format_duration(span).to_string();
                assert_eq!(duration(&text), Some(span), "{text}");
            }
        }
    }
}
