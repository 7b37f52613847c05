//! How far both sides of a session are, and how long each may take.

use super::client::{ClientSide, ClientState};
use super::ending::{Ending, Why};
use super::handshake::Handshake;
use super::outbox::{Outbox, Piece};
use super::timers::earliest;
use super::upstream::{UpstreamSide, UpstreamState};
use super::{Phase, Settings};
use std::time::{Duration, Instant};

/// The client's side, the upstream's side, their handshake, and their end.
#[derive(Debug)]
pub(super) struct Sides {
    pub(super) handshake: Handshake,
    pub(super) client: ClientSide,
    pub(super) upstream: UpstreamSide,
    ending: Option<Ending>,
}

impl Sides {
    /// Creates the sides of a client that has just connected.
    pub(super) fn new(settings: &Settings, now: Instant) -> Sides {
        Sides {
            handshake: Handshake::new(settings, now + settings.handshake_timeout),
            client: ClientSide::new(now),
            upstream: UpstreamSide::new(now),
            ending: None,
        }
    }

    /// Returns true if both sides may send anything.
    #[inline]
    pub(super) fn are_live(&self) -> bool {
        self.client.is_live() && self.upstream.is_live()
    }

    /// Returns true if both sides are closed.
    pub(super) fn are_over(&self) -> bool {
        let upstream = matches!(self.upstream.state(), UpstreamState::Unborn | UpstreamState::Gone);
        self.client.is_gone() && upstream
    }

    /// Returns true if frames of the client may be handled, as far as the states of both sides tell.
    pub(super) fn want_client(&self) -> bool {
        match self.client.state() {
            ClientState::Greeting
            | ClientState::SaidClose
            | ClientState::Dismissed { .. }
            | ClientState::Told { .. } => true,
            ClientState::Gone => false,
            ClientState::Live => {
                let upstream = self.upstream.state();
                matches!(upstream, UpstreamState::Live | UpstreamState::SaidClose { .. })
                    && self.handshake.is_clients_turn()
            }
        }
    }

    /// Returns how far the connection is.
    pub(super) fn phase(&self) -> Phase {
        match (self.client.state(), self.upstream.state()) {
            (ClientState::Gone, _) => Phase::Lingering,
            (ClientState::SaidClose | ClientState::Dismissed { .. } | ClientState::Told { .. }, _)
            | (_, UpstreamState::SaidClose { .. } | UpstreamState::Closing { .. } | UpstreamState::Gone) => {
                Phase::Closing
            }
            _ if self.ending.is_some() => Phase::Closing,
            _ if !self.handshake.opened() => Phase::Handshake,
            (ClientState::Greeting | ClientState::Live, _) => Phase::Open,
        }
    }

    /// Returns when the first of the sides' times is over.
    pub(super) fn deadline(&self) -> Option<Instant> {
        earliest([
            self.handshake.deadline(),
            self.client.deadline(),
            self.upstream.deadline(),
            self.ending.as_ref().map(Ending::deadline),
            self.client.clock().deadline(),
            self.upstream.clock().deadline(),
        ])
    }

    /// Tells the heartbeats which sides something was written to.
    pub(super) fn note_sent(&mut self, out: &mut Outbox, now: Instant) {
        if out.client.take_wrote() {
            self.client.clock_mut().sent(now);
        }
        if out.upstream.take_wrote() {
            self.upstream.clock_mut().sent(now);
        }
    }

    // ---- the end of the upstream connection ------------------------------------------------------------------------

    /// Returns true if the upstream connection will be closed when everything is settled.
    pub(super) fn are_ending(&self) -> bool {
        self.ending.is_some()
    }

    /// Handles the client's `connection.close`, which is forwarded when everything is settled, or after `linger`.
    pub(super) fn end_for_client(&mut self, close: Piece, linger: Duration, now: Instant) {
        self.client.said_close(now);
        self.ending = Some(Ending::of_client(close, linger, now));
    }

    /// Returns true if the client waits for `connection.close-ok`, and has waited long enough.
    pub(super) fn is_overdue(&mut self, now: Instant) -> bool {
        self.ending.as_mut().is_some_and(|ending| ending.is_overdue(now))
    }

    /// Closes the upstream connection when everything is settled, or at the time `until`.
    pub(super) fn end(&mut self, why: Why, until: Instant) {
        self.ending = Some(Ending::new(why, until));
    }

    /// Returns why the upstream connection has to be closed now, if that is so.
    pub(super) fn take_ending(&mut self, now: Instant, are_settled: impl FnOnce() -> bool) -> Option<Why> {
        self.ending.take_if(|ending| now >= ending.until() || are_settled()).map(Ending::why)
    }

    /// Notes that the upstream connection is closed.
    pub(super) fn upstream_gone(&mut self) {
        self.ending = None;
        self.upstream.gone();
    }
}
