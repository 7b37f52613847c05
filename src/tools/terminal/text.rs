//! Numbers as people read them, and names that do no harm to a terminal.
//!
//! Vhosts, exchanges, routing keys and client properties are chosen by whoever connects. Written to a terminal as they
//! are they could move its cursor, recolour it, or turn a line around; so everything that comes from the relay goes through
//! [`clean`] (text) or [`json`] (documents) first.

use crate::log::is_hidden;
use std::fmt::Write;
use unicode_width::{UnicodeWidthChar, UnicodeWidthStr};

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

/// Cut to so many columns, with an ellipsis if something is missing. The text is [`clean`]ed.
pub fn fit(text: &str, columns: usize) -> String {
    let text = clean(text);
    if text.width() <= columns {
        return text;
    }
    let mut out = String::new();
    let mut room = columns.saturating_sub(1);
    for c in text.chars() {
        let width = c.width().unwrap_or(0);
        if width > room {
            break;
        }
        room -= width;
        out.push(c);
    }
    if columns > 0 {
        out.push('…');
    }
    out
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

/// A bar of so many columns, to an eighth of a column.
pub fn bar(value: f64, columns: usize) -> String {
    const EIGHTHS: [char; 8] = [' ', '▏', '▎', '▍', '▌', '▋', '▊', '▉'];
    let value = if value.is_finite() && columns > 0 { value.clamp(0.0, 1.0) } else { 0.0 };
    #[expect(clippy::cast_possible_truncation, reason = "between 0 and 8 × columns")]
    let mut eighths = (value * columns as f64 * 8.0).round() as usize;
    if value > 0.0 && eighths == 0 {
        // What there is is seen.
        eighths = 1;
    }
    let mut out = "█".repeat(eighths / 8);
    if !eighths.is_multiple_of(8) {
        out.push(EIGHTHS[eighths % 8]);
    }
    let have = eighths.div_ceil(8);
    out.push_str(&" ".repeat(columns.saturating_sub(have)));
    out
}

/// The newest values, right-aligned in so many columns, against the largest of them.
pub fn spark(values: impl DoubleEndedIterator<Item = f64>, columns: usize) -> String {
    const LEVELS: [char; 8] = ['▁', '▂', '▃', '▄', '▅', '▆', '▇', '█'];
    let newest: Vec<f64> = values.rev().take(columns).collect();
    let top = newest.iter().copied().filter(|v| v.is_finite()).fold(0.0, f64::max);
    let mut out = " ".repeat(columns - newest.len());
    for value in newest.into_iter().rev() {
        #[expect(clippy::cast_possible_truncation, reason = "between 0 and 7")]
        let level =
            if top > 0.0 && value.is_finite() { (value.max(0.0) / top * 7.0).round() as usize } else { 0 };
        out.push(LEVELS[level.min(7)]);
    }
    out
}

/// The known name that looks most like it.
pub fn alike<'a>(name: &str, known: impl IntoIterator<Item = &'a str>) -> Option<&'a str> {
    /// Below this, a suggestion would puzzle more than help.
    const ALIKE: f64 = 0.75;
    let likeness = |known: &str| strsim::jaro_winkler(name, known);
    let best = known.into_iter().max_by(|a, b| likeness(a).total_cmp(&likeness(b)))?;
    (likeness(best) >= ALIKE).then_some(best)
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
    fn bars_and_sparks_take_the_room_they_are_given() {
        assert_eq!(
            [0.0, 0.5, 1.0, 7.0, f64::NAN].map(|v| bar(v, 4)),
            ["    ", "██  ", "████", "████", "    "]
        );
        assert_eq!(bar(0.001, 4), "▏   ");
        assert_eq!(spark([0.0, 1.0, 2.0, 4.0].into_iter(), 6), "  ▁▃▅█");
        assert_eq!(spark([9.0, 0.0, 0.0].into_iter(), 2), "▁▁", "what is not shown does not scale");
        for columns in 0..5 {
            assert_eq!(bar(0.33, columns).width(), columns);
            assert!(fit("注文注文注文", columns).width() <= columns);
        }
        assert_eq!(fit("abcdef", 4), "abc…");
    }

    #[test]
    fn a_suggestion_is_near_or_none() {
        assert_eq!(alike("ordes", ["default", "orders"]), Some("orders"));
        assert_eq!(alike("zzz", ["default", "orders"]), None);
        assert_eq!(alike("x", []), None);
    }
}
