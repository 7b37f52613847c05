//! Numbers as people read them, and names that do no harm to a terminal.
//!
//! Vhosts, exchanges, routing keys and client properties are chosen by clients. Written to a terminal as they
//! are they could move its cursor, recolour it, or turn a line around; so everything that comes from the relay goes through
//! [`clean`] (text) or [`json`] (documents) first.

use crate::config::number;
use crate::log::is_hidden;
use std::fmt::{self, Write};
use std::time::Duration;

/// The same text with everything that a terminal would obey, or nobody would see, made visible.
pub fn clean(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for c in text.chars() {
        match c {
            // Unicode has a picture for each of the old control characters.
            '\0'..='\x1f' => out.push(char::from_u32(0x2400 + c as u32).unwrap_or('?')),
            '\x7f' => out.push('\u{2421}'),
            c if is_hidden(c) => {
                // Writing to a String does not fail.
                let _ = write!(out, "<U+{:04X}>", c as u32);
            }
            c => out.push(c),
        }
    }
    out
}

/// A JSON text with the same characters escaped. They can only stand within strings, so that it stays the same document.
pub fn json(text: &str) -> String {
    crate::log::json(text).into_owned()
}

/// `9,999`, `12.3k`, `1.23M`.
pub fn count(n: u64) -> String {
    if n < 10_000 { grouped(n) } else { scaled(n as f64) }
}

/// Every digit, in groups of three.
pub fn grouped(n: u64) -> String {
    let digits = n.to_string();
    let mut out = String::with_capacity(digits.len() + digits.len() / 3);
    for (at, digit) in digits.chars().enumerate() {
        if at > 0 && (digits.len() - at).is_multiple_of(3) {
            out.push(',');
        }
        out.push(digit);
    }
    out
}

/// Per second: `0`, `0.42`, `7.5`, `312`, `12.3k`.
pub fn rate(value: f64) -> String {
    match value {
        v if !v.is_finite() => "-".to_owned(),
        v if v < 0.005 => "0".to_owned(),
        v if v < 1.0 => format!("{v:.2}"),
        v if v < 99.95 => format!("{v:.1}"),
        v if v < 9_999.5 => format!("{v:.0}"),
        v => scaled(v),
    }
}

/// Three significant digits and a letter.
fn scaled(value: f64) -> String {
    let mut value = value;
    for letter in ["", "k", "M", "G", "T"] {
        if value < 999.5 {
            return three(value, letter);
        }
        value /= 1000.0;
    }
    format!("{value:.0}P")
}

fn three(value: f64, unit: &str) -> String {
    match value {
        v if v < 9.995 => format!("{v:.2}{unit}"),
        v if v < 99.95 => format!("{v:.1}{unit}"),
        v => format!("{v:.0}{unit}"),
    }
}

/// A share of one: `83.2 %`. Only a whole one is `100 %`: 99.97 % is not all.
pub fn share(value: f64) -> String {
    match value * 100.0 {
        p if !p.is_finite() => "-".to_owned(),
        p if p >= 100.0 => format!("{p:.0} %"),
        p if p > 99.9 => "99.9 %".to_owned(),
        p => format!("{p:.1} %"),
    }
}

/// A plain factor, such as the pressure: `0.83`, `12.4`.
pub fn factor(value: f64) -> String {
    match value {
        v if !v.is_finite() => "-".to_owned(),
        v if v < 99.95 => three(v, ""),
        v => rate(v),
    }
}

/// `512 B`, `88.0 MiB`.
pub fn bytes(n: u64) -> String {
    if n < 1024 {
        return format!("{n} B");
    }
    let mut value = n as f64 / 1024.0;
    for unit in [" KiB", " MiB", " GiB", " TiB"] {
        if value < 1023.5 {
            return three(value, unit);
        }
        value /= 1024.0;
    }
    format!("{value:.0} PiB")
}

/// `0.4s`, `12s`, `5m 24s`, `3h 4m`, `2d 3h`: two units at most.
pub fn span(seconds: f64) -> String {
    if !seconds.is_finite() {
        return "-".to_owned();
    }
    let seconds = seconds.max(0.0);
    if seconds < 0.001 {
        return "0s".to_owned();
    }
    if seconds < 0.9995 {
        return format!("{:.0}ms", seconds * 1000.0);
    }
    if seconds < 9.95 && (seconds - seconds.round()).abs() > 0.05 {
        return format!("{seconds:.1}s");
    }
    #[expect(clippy::cast_possible_truncation, reason = "saturates, not negative")]
    let whole = seconds.round() as u64;
    let two = |large: u64, l: &str, small: u64, s: &str| {
        if small == 0 { format!("{large}{l}") } else { format!("{large}{l} {small}{s}") }
    };
    match whole {
        w if w < 60 => format!("{w}s"),
        w if w < 3600 => two(w / 60, "m", w % 60, "s"),
        w if w < 86_400 => two(w / 3600, "h", w % 3600 / 60, "m"),
        w => two(w / 86_400, "d", w % 86_400 / 3600, "h"),
    }
}

/// Or a dash.
pub fn or_dash<T>(value: Option<T>, show: impl FnOnce(T) -> String) -> String {
    value.map_or_else(|| "-".to_owned(), show)
}

/// The known name that looks most like it.
pub fn alike<'a>(name: &str, known: impl IntoIterator<Item = &'a str>) -> Option<&'a str> {
    /// Below this, a suggestion would puzzle more than help.
    const ALIKE: f64 = 0.75;
    let likeness = |known: &str| strsim::jaro_winkler(name, known);
    let best = known.into_iter().max_by(|a, b| likeness(a).total_cmp(&likeness(b)))?;
    (likeness(best) >= ALIKE).then_some(best)
}

/// Nanoseconds, as people read them.
pub(crate) fn micros(nanos: u64) -> String {
    let value = nanos as f64;
    match nanos {
        0..1_000_000 => format!("{:.1} µs", value / 1e3),
        1_000_000..1_000_000_000 => format!("{:.2} ms", value / 1e6),
        _ => format!("{:.2} s", value / 1e9),
    }
}

/// A share as per cent: `99.9`, and `100` only if all of it is there.
pub(crate) fn percent(part: u64, whole: u64) -> String {
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
pub(crate) fn exact_count(number: usize) -> String {
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
pub(crate) fn decimal_bytes(number: u64) -> String {
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
pub(crate) struct Span(pub(crate) Duration);

impl fmt::Display for Span {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        humantime::format_duration(self.0).fmt(f)
    }
}

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

/// Parses a count of at least 1, as [`number::count`] reads it.
pub(crate) fn parse_count(text: &str) -> Result<usize, String> {
    let count = number::count(text).ok_or(number::COUNT)?;
    // As the configuration's bound for `capacity`, and more than any test needs.
    match usize::try_from(count) {
        Ok(count @ 1..=4_000_000_000) => Ok(count),
        _ => Err("it must lie between 1 and 4,000,000,000".to_owned()),
    }
}

/// Parses a duration that is longer than nothing, as [`number::duration`] reads it.
pub(crate) fn parse_duration(text: &str) -> Result<Duration, String> {
    match number::duration(text) {
        Some(Duration::ZERO) => Err("it must be longer than nothing".to_owned()),
        Some(duration) => Ok(duration),
        None => Err(number::DURATION.to_owned()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_terminal_would_obey_is_made_visible() {
        assert_eq!(clean("a\x1b[2Jb\r\n\x07\x7f"), "a␛[2Jb␍␊␇␡");
        assert_eq!(clean("x\u{9b}31m\u{202e}y\u{200b}"), "x<U+009B>31m<U+202E>y<U+200B>");
        assert_eq!(clean("ordinary, 注文 ü"), "ordinary, 注文 ü");
    }

    #[test]
    fn json_stays_the_same_document() {
        let value = serde_json::json!({"key": "a\u{9b}2J\u{202e}\x1b\u{7f}\u{e0041}", "ü": "注文"});
        let text = json(&value.to_string());
        assert!(!text.chars().any(|c| c.is_control() || is_hidden(c)), "{text:?}");
        assert_eq!(serde_json::from_str::<serde_json::Value>(&text).expect("JSON"), value);
    }

    #[test]
    fn numbers_keep_three_digits() {
        let counts = [0, 999, 9_999, 10_000, 999_499, 999_500, 1_234_567, u64::MAX].map(count);
        assert_eq!(counts, ["0", "999", "9,999", "10.0k", "999k", "1.00M", "1.23M", "18447P"]);
        let rates = [0.0, 0.004, 0.42, 7.46, 312.4, 9_999.9, f64::NAN, -1.0].map(rate);
        assert_eq!(rates, ["0", "0", "0.42", "7.5", "312", "10.0k", "-", "0"]);
        let shares = [0.0, 0.832, 0.9997, 1.0, f64::INFINITY].map(share);
        assert_eq!(shares, ["0.0 %", "83.2 %", "99.9 %", "100 %", "-"]);
        assert_eq!([0.826, 12.44, 1e5].map(factor), ["0.83", "12.4", "100k"]);
        assert_eq!(
            [0, 1023, 1024, 92_274_688, 1 << 60].map(bytes),
            ["0 B", "1023 B", "1.00 KiB", "88.0 MiB", "1024 PiB"]
        );
        assert_eq!(grouped(1_234_567), "1,234,567");
    }

    #[test]
    fn spans_have_two_units_at_most() {
        let spans = [0.0, 0.25, 1.0, 1.5, 12.4, 59.6, 324.0, 600.0, 11_040.0, 183_600.0, f64::NAN].map(span);
        assert_eq!(spans, ["0s", "250ms", "1s", "1.5s", "12s", "1m", "5m 24s", "10m", "3h 4m", "2d 3h", "-"]);
    }

    #[test]
    fn a_suggestion_is_near_or_none() {
        assert_eq!(alike("ordes", ["default", "orders"]), Some("orders"));
        assert_eq!(alike("zzz", ["default", "orders"]), None);
        assert_eq!(alike("x", []), None);
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
        assert_eq!(
            [999, 1_000, 1_500, 1_234, 2_000_000].map(exact_count),
            ["999", "1k", "1.5k", "1234", "2M"]
        );
        assert_eq!([percent(1, 3), percent(9_999_999, 10_000_000), percent(5, 5)], ["33.3", ">99.99", "100"]);
    }
}
