//! A channel that its client has closed, while outcomes of its publishes are not known.
//!
//! The client's `channel.close` is held back, and answers go on to the client. If the client's [`Patience`] is over before
//! the outcomes are known, Hapax asks the broker for a sign that it has handled all that the client has sent
//! ([`RoundTrip`]). Then it answers the client itself, and the upstream's channel lives on without the client
//! ([`super::refused`]).

use super::round_trip::RoundTrip;
use crate::session::outbox::Piece;
use crate::session::patience::Patience;
use std::time::{Duration, Instant};

/// A `channel.close` that is held back.
#[derive(Debug)]
pub(super) struct Settling {
    close: Piece,
    patience: Patience,
    /// When the close is forwarded although outcomes are not known.
    until: Instant,
}

/// The next step of a close that is held back.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Step {
    /// Outcomes are waited for.
    Wait,
    /// The close is to be forwarded.
    Forward,
    /// The broker is to be asked for a sign.
    Ask,
    /// The client is to be answered.
    Answer,
}

impl Settling {
    /// Holds back a close for at most this long.
    pub(super) fn new(close: Piece, linger: Duration, now: Instant) -> Settling {
        Settling { close, patience: Patience::new(linger, now), until: now + linger }
    }

    /// Returns the close.
    pub(super) fn close(&self) -> &Piece {
        &self.close
    }

    /// Returns until when outcomes are waited for.
    pub(super) fn until(&self) -> Instant {
        self.until
    }

    /// Returns when the next step is due, if nothing else happens.
    pub(super) fn deadline(&self) -> Instant {
        self.patience.deadline().min(self.until)
    }

    /// Returns the next step. `settled`: every outcome is known. `may_hide`: one more upstream channel may live on without its
    /// client.
    pub(super) fn step(
        &mut self,
        settled: bool,
        round_trip: &RoundTrip,
        may_hide: bool,
        now: Instant,
    ) -> Step {
        if settled || now >= self.until {
            return Step::Forward;
        }
        match (round_trip.is_asked(), round_trip.is_answered()) {
            _ if !self.patience.is_over(now) || !may_hide => Step::Wait,
            (false, _) => Step::Ask,
            (true, false) => Step::Wait,
            (true, true) => Step::Answer,
        }
    }
}
