//! Whether others wait for outcomes that the upstream has told and nobody reads.
//!
//! While too many bytes wait for a client, its upstream is not read. Other clients may wait for the outcome of a publish with the
//! same id, and they would wait for somebody who does not read. While the upstream is not read, the session therefore looks once
//! a second whether one of its publishes is awaited. If one is, it needs the upstream's answers (see [`super::flow`]).

use super::channels::Channels;
use std::time::{Duration, Instant};

/// The time between two looks at all publishes.
const EVERY: Duration = Duration::from_secs(1);
/// When the rest of many publishes is looked at.
const NEXT_LOOK: Duration = Duration::from_millis(1);
/// Publishes that are looked at in one go.
const LOOKED_AT: usize = 1024;

/// The looks of one session at its publishes.
#[derive(Debug, Default)]
pub(super) struct Awaited {
    /// when to look next; `None` while there is no need
    at: Option<Instant>,
    /// the upstream is not read
    paused: bool,
    /// where the next look begins
    from: usize,
    found: bool,
}

impl Awaited {
    /// Returns true if the last looks have found a publish that others wait for.
    #[inline]
    pub(super) fn is_any(&self) -> bool {
        self.found
    }

    /// Notes whether the upstream is read.
    pub(super) fn set_reading(&mut self, reading: bool, now: Instant) {
        self.paused = !reading;
        if self.paused {
            self.at.get_or_insert(now + EVERY);
        } else if !self.found {
            // (Otherwise it may be read because of what was found.)
            *self = Awaited::default();
        }
    }

    /// Returns when to look next.
    pub(super) fn deadline(&self) -> Option<Instant> {
        self.at
    }

    /// Looks at some of the publishes, if it is time.
    pub(super) fn look(&mut self, channels: &Channels, now: Instant) {
        if self.at.is_none_or(|at| at > now) {
            return;
        }
        let count = channels.total().unresolved;
        self.found = channels.are_awaited(self.from, LOOKED_AT);
        let next = self.from + LOOKED_AT;
        let pause = if !self.found && next < count { NEXT_LOOK } else { EVERY };
        // The next look begins with the publishes among which an awaited one was found.
        self.from = if self.found {
            self.from
        } else if next < count {
            next
        } else {
            0
        };
        self.at = (self.found || self.paused).then_some(now + pause);
    }
}
