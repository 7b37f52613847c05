//! Where the demo speaks.

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
