//! The two heartbeat clocks. They are independent: when all that a client sends is dropped, the upstream still has to
//! hear from us, and the other way round.

use std::time::{Duration, Instant};

/// What a clock asks for.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Beat {
    /// Nothing now.
    Quiet,
    /// Nothing was sent for half an interval: send a heartbeat.
    Send,
    /// Nothing was heard for two intervals: the peer is gone.
    Dead,
}

/// One side's clock.
#[derive(Debug)]
pub(super) struct Clock {
    interval: Option<Duration>,
    heard: Instant,
    sent: Instant,
    listening: bool,
}

impl Clock {
    pub(super) fn new(now: Instant) -> Clock {
        Clock { interval: None, heard: now, sent: now, listening: true }
    }

    /// Both sides have agreed on an interval; zero is none.
    pub(super) fn set_interval(&mut self, seconds: u16, now: Instant) {
        self.interval = (seconds > 0).then(|| Duration::from_secs(seconds.into()));
        self.heard = now;
        self.sent = now;
    }

    pub(super) fn heard(&mut self, now: Instant) {
        self.heard = now;
    }

    pub(super) fn sent(&mut self, now: Instant) {
        self.sent = now;
    }

    /// While we do not read from a peer, its silence means nothing.
    pub(super) fn set_listening(&mut self, listening: bool, now: Instant) {
        if listening && !self.listening {
            self.heard = now;
        }
        self.listening = listening;
    }

    pub(super) fn is_running(&self) -> bool {
        self.interval.is_some()
    }

    pub(super) fn stop(&mut self) {
        self.interval = None;
    }

    pub(super) fn deadline(&self) -> Option<Instant> {
        let interval = self.interval?;
        let send = self.sent + interval / 2;
        Some(if self.listening { send.min(self.heard + interval * 2) } else { send })
    }

    /// Whether nothing was heard for two intervals.
    pub(super) fn is_dead(&self, now: Instant) -> bool {
        self.interval.is_some_and(|interval| self.listening && now >= self.heard + interval * 2)
    }

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
