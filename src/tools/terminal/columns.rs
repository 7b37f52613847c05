//! Text, bars and curves that fit into a number of columns.

use crate::tools::text::clean;
use unicode_width::{UnicodeWidthChar, UnicodeWidthStr};

/// Cuts a text to this number of columns, with an ellipsis if something is missing. The text is [`clean`]ed.
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

/// Returns a bar, exact to an eighth of a column.
pub fn bar(value: f64, columns: usize) -> String {
    const EIGHTHS: [char; 8] = [' ', '▏', '▎', '▍', '▌', '▋', '▊', '▉'];
    let value = if value.is_finite() && columns > 0 { value.clamp(0.0, 1.0) } else { 0.0 };
    #[expect(clippy::cast_possible_truncation, reason = "between 0 and 8 × columns")]
    let mut eighths = (value * columns as f64 * 8.0).round() as usize;
    if value > 0.0 && eighths == 0 {
        // A value above zero is always visible.
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

/// Returns a curve of the newest values, right-aligned, scaled to the largest of them.
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

#[cfg(test)]
mod tests {
    use super::*;

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
}
