//! How far the client's connection is.
//!
//! ```text
//!   Greeting --protocol header--> Live --client's connection.close--> SaidClose --close-ok--> Gone
//!                                  |\--Hapax's connection.close--> Told --close-ok, or timeout--> Gone
//!                                  \--no broker: Hapax's connection.start--> Dismissed --open--> Told
//! ```

use super::liveness::Clock;
use std::time::Instant;

/// The states of the client's connection.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum ClientState {
    /// The protocol header has not arrived yet.
    Greeting,
    /// The client may send anything.
    Live,
    /// The client has sent `connection.close` and waits for the answer.
    SaidClose,
    /// There is no broker. Hapax has sent `connection.start`, so that it may say why it closes. The client may answer until
    /// this time.
    Dismissed { until: Instant },
    /// Hapax has sent `connection.close`. The client may answer until this time.
    Told { until: Instant },
    /// Nothing more is read or written.
    Gone,
}

/// The client's connection: its state and its heartbeats.
#[derive(Debug)]
pub(super) struct ClientSide {
    state: ClientState,
    clock: Clock,
}

impl ClientSide {
    /// Creates the side of a client that has just connected.
    pub(super) fn new(now: Instant) -> ClientSide {
        ClientSide { state: ClientState::Greeting, clock: Clock::new(now) }
    }

    /// Returns the state.
    #[inline]
    pub(super) fn state(&self) -> ClientState {
        self.state
    }

    /// Returns true if the client may send anything.
    #[inline]
    pub(super) fn is_live(&self) -> bool {
        self.state == ClientState::Live
    }

    /// Returns true if nothing more is read or written.
    pub(super) fn is_gone(&self) -> bool {
        self.state == ClientState::Gone
    }

    /// Returns true if Hapax has sent `connection.close` and waits for the answer.
    pub(super) fn is_told(&self) -> bool {
        matches!(self.state, ClientState::Told { .. })
    }

    /// Returns true if the client has not answered in time.
    pub(super) fn is_late(&self, now: Instant) -> bool {
        self.deadline().is_some_and(|until| now >= until)
    }

    /// Returns when the client is late with its answer.
    pub(super) fn deadline(&self) -> Option<Instant> {
        match self.state {
            ClientState::Told { until } | ClientState::Dismissed { until } => Some(until),
            ClientState::Greeting | ClientState::Live | ClientState::SaidClose | ClientState::Gone => None,
        }
    }

    /// Returns the heartbeats.
    pub(super) fn clock(&self) -> &Clock {
        &self.clock
    }

    /// Returns the heartbeats, to change them.
    pub(super) fn clock_mut(&mut self) -> &mut Clock {
        &mut self.clock
    }

    /// Notes that the protocol header has arrived.
    pub(super) fn greeted(&mut self) {
        self.state = ClientState::Live;
    }

    /// Notes that the client has sent `connection.close`. It may wait for the answer as long as the linger, so it goes on
    /// receiving heartbeats, and its own silence means nothing.
    pub(super) fn said_close(&mut self, now: Instant) {
        self.state = ClientState::SaidClose;
        self.clock.set_listening(false, now);
    }

    /// Notes that Hapax has sent `connection.start`, because there is no broker.
    pub(super) fn dismissed(&mut self, until: Instant) {
        self.state = ClientState::Dismissed { until };
    }

    /// Notes that Hapax has sent `connection.close`.
    pub(super) fn told(&mut self, until: Instant) {
        self.state = ClientState::Told { until };
        self.clock.stop();
    }

    /// Notes that nothing more is read or written.
    pub(super) fn gone(&mut self) {
        self.state = ClientState::Gone;
        self.clock.stop();
    }
}
