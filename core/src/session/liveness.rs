//! Heartbeats. Each side of a session has a clock of its own: if all that a client sends is dropped, the upstream still has to
//! receive something from Hapax, and the other way round.

use std::time::{Duration, Instant};

/// The answer of [`Clock::check`].
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Beat {
    /// Do nothing.
    Quiet,
    /// Nothing was sent for half an interval: send a heartbeat.
    Send,
    /// Nothing was heard for two intervals: the peer is gone.
    Dead,
}

/// The heartbeat clock of one side.
#[derive(Debug)]
pub(super) struct Clock {
    /// The interval that was agreed on; `None` without heartbeats.
    interval: Option<Duration>,
    /// When something was received last.
    heard: Instant,
    /// When something was sent last.
    sent: Instant,
    /// The shell reads from this side.
    listening: bool,
}

impl Clock {
    /// Creates a clock without heartbeats.
    pub(super) fn new(now: Instant) -> Clock {
        Clock { interval: None, heard: now, sent: now, listening: true }
    }

    /// Sets the interval that both sides have agreed on. Zero means no heartbeats.
    pub(super) fn set_interval(&mut self, seconds: u16, now: Instant) {
        self.interval = (seconds > 0).then(|| Duration::from_secs(seconds.into()));
        self.heard = now;
        self.sent = now;
    }

    /// Notes that something was received.
    pub(super) fn heard(&mut self, now: Instant) {
        self.heard = now;
    }

    /// Notes that something was sent.
    pub(super) fn sent(&mut self, now: Instant) {
        self.sent = now;
    }

    /// Notes whether the shell reads from this side. While it does not, silence means nothing.
    pub(super) fn set_listening(&mut self, listening: bool, now: Instant) {
        if listening && !self.listening {
            self.heard = now;
        }
        self.listening = listening;
    }

    /// Returns true if there are heartbeats.
    pub(super) fn is_running(&self) -> bool {
        self.interval.is_some()
    }

    /// Ends the heartbeats.
    pub(super) fn stop(&mut self) {
        self.interval = None;
    }

    /// Returns when [`Clock::check`] has something to tell.
    pub(super) fn deadline(&self) -> Option<Instant> {
        let interval = self.interval?;
        let send = self.sent + interval / 2;
        Some(if self.listening { send.min(self.heard + interval * 2) } else { send })
    }

    /// Returns true if nothing was received for two intervals.
    pub(super) fn is_dead(&self, now: Instant) -> bool {
        self.interval.is_some_and(|interval| self.listening && now >= self.heard + interval * 2)
    }

    /// Tells whether a heartbeat is due, or the peer is gone.
    pub(super) fn check(&mut self, now: Instant) -> Beat {
        let Some(interval) = self.interval else { return Beat::Quiet };
        if self.is_dead(now) {
            return Beat::Dead;
        }
        if now >= self.sent + interval / 2 {
            self.sent = now;
            return Beat::Send;
        }
        Beat::Quiet
    }
}
