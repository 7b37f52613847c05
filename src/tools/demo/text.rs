//! Where the demo speaks, and how it writes numbers.

use std::io::{self, Write};

/// To stdout, or to stderr where stdout is for the JSON.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Voice {
    /// stdout is for the JSON
    pub(super) json: bool,
}

impl Voice {
    /// A line or more. Nobody may be listening any more (`hapax demo | head`): that is no failure.
    pub(super) fn say(self, text: &str) {
        let _ = if self.json { writeln!(io::stderr(), "{text}") } else { writeln!(io::stdout(), "{text}") };
    }
}

/// `100,000`.
pub(crate) fn grouped(number: u64) -> String {
    let digits = number.to_string();
    let mut text = String::new();
    for (place, digit) in digits.chars().enumerate() {
        if place > 0 && (digits.len() - place).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn thousands_are_set_apart() {
        assert_eq!(
            [0, 999, 1_000, 80_000, 1_234_567].map(grouped),
            ["0", "999", "1,000", "80,000", "1,234,567"]
        );
    }
}
