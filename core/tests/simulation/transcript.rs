//! Records what the relay writes in a run, to compare it with another run of the same seed: invariants (j) and (k).
//!
//! A run without the hostile clients and a run without the honest ones are recorded. In the run with both, each side
//! must get the same bytes at the same times. Otherwise one side has changed what the other one sees.

use super::content::human;
use super::plan::Micros;
use super::tap::Toward;

/// One thing that the relay has written.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Line {
    /// when
    pub time: Micros,
    /// on a connection of this client
    pub client: usize,
    /// to the client, or to the broker
    pub toward: Toward,
    /// a digest of the bytes
    pub digest: u64,
}

/// Everything that is written for one side, which is the honest or the hostile clients.
#[derive(Debug, Default)]
pub struct Side {
    /// all of it
    pub lines: Vec<Line>,
    expected: Option<Vec<Line>>,
    until: Option<Micros>,
}

/// The transcripts of both sides.
#[derive(Debug, Default)]
pub struct Transcript {
    /// the honest clients
    pub honest: Side,
    /// the hostile ones
    pub hostile: Side,
}

impl Side {
    /// Expects these lines and nothing else. With `until`, only lines before that time count.
    pub fn expect(&mut self, lines: Vec<Line>, until: Option<Micros>) {
        self.expected = Some(lines);
        self.until = until;
    }

    /// The relay has written something. `Err` says how it differs from what was expected.
    pub fn write(&mut self, line: Line) -> Result<(), String> {
        let at = self.lines.len();
        self.lines.push(line);
        let Some(expected) = self.expected.as_ref().filter(|_| self.counts(line.time)) else { return Ok(()) };
        match expected.get(at) {
            Some(other) if *other == line => Ok(()),
            Some(other) => Err(format!("{}, instead of {}", line.told(), other.told())),
            None => Err(format!("{}, instead of nothing more", line.told())),
        }
    }

    /// Returns the first expected line that was never written.
    pub fn is_missing(&self) -> Option<String> {
        let next = self.expected.as_ref()?.get(self.lines.len())?;
        self.counts(next.time).then(|| format!("nothing more, instead of {}", next.told()))
    }

    fn counts(&self, time: Micros) -> bool {
        self.until.is_none_or(|until| time < until)
    }
}

impl Line {
    fn told(&self) -> String {
        let Line { time, client, toward, digest } = self;
        format!("to the {toward:?} of client {client} at {} ({digest:016x})", human(*time))
    }
}
