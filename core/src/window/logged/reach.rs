//! How far back a window knows from its store what was published.
//!
//! A window that starts with an empty memory is as old as its process. One that has read its log is as old as the log, as far as nothing was
//! forgotten in between: a flush begins its age anew. A change of TTL or mode in the log begins it
//! anew, too, because the ids of before were remembered by another rule.

use super::record::Setting;
use std::time::{Duration, Instant, SystemTime};

/// The age of what a window knows from its store.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Reach {
    /// the oldest commit since then
    oldest: Option<Instant>,
    /// The longest TTL since then. Older ids are no longer known.
    longest: Duration,
}

/// The records of one batch, which were all read at the same moment.
#[derive(Debug)]
pub(super) struct Reading {
    now: Instant,
    wall: SystemTime,
    oldest: Option<SystemTime>,
    longest: Duration,
    is_new: bool,
}

impl Reading {
    /// `now` and `wall` are the same moment on the two clocks.
    pub(super) fn new(now: Instant, wall: SystemTime) -> Reading {
        Reading { now, wall, oldest: None, longest: Duration::ZERO, is_new: false }
    }

    /// Takes a commit, whether its TTL is over or not.
    pub(super) fn commit(&mut self, at: SystemTime, ttl: Duration) {
        self.oldest = Some(self.oldest.map_or(at, |oldest| oldest.min(at)));
        self.longest = self.longest.max(ttl);
    }

    /// Takes what an operator has done. A capacity says nothing of how long an id is remembered, and a flush is a record of its own.
    pub(super) fn change(&mut self, setting: Setting) {
        match setting {
            Setting::Capacity(_) | Setting::Flushed | Setting::Forgotten => {}
            Setting::Ttl(_) | Setting::Mode(_) => self.begin_anew(),
        }
    }

    /// Begins anew: the records of before say nothing of the age.
    pub(super) fn begin_anew(&mut self) {
        *self = Reading { is_new: true, ..Reading::new(self.now, self.wall) };
    }
}

impl Reach {
    /// Takes the records of a batch that come after all others.
    pub(super) fn extend(&mut self, reading: &Reading) {
        if reading.is_new {
            *self = Reach::default();
        }
        let age = |at: SystemTime| reading.wall.duration_since(at).unwrap_or_default();
        let oldest = reading.oldest.map(|at| reading.now.checked_sub(age(at)).unwrap_or(reading.now));
        self.oldest = self.oldest.into_iter().chain(oldest).min();
        self.longest = self.longest.max(reading.longest);
    }

    /// Returns for how long everything is known. `None` if nothing is.
    pub(super) fn age(&self, now: Instant) -> Option<Duration> {
        self.oldest.map(|oldest| now.saturating_duration_since(oldest).min(self.longest))
    }
}
