//! How far the upstream connection is.
//!
//! ```text
//!   Unborn --dial--> Dialing --> Live --Hapax's or the client's connection.close--> Closing --close-ok, eof, timeout--> Gone
//!                                  \--upstream's connection.close--> SaidClose --close-ok--> Gone
//! ```

use super::liveness::Clock;
use bytes::Bytes;
use std::time::Instant;

/// The states of the upstream connection.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum UpstreamState {
    /// It is opened when the client's protocol header arrives.
    Unborn,
    /// The shell is opening it.
    Dialing,
    /// Frames go both ways.
    Live,
    /// The upstream has sent `connection.close`. The client's answer is waited for until this time.
    SaidClose { until: Instant },
    /// `connection.close` was sent to the upstream. Its answer is waited for until this time, or for as long as the client waits
    /// for it. Before the answer, the upstream may not have read all that was sent.
    Closing { until: Option<Instant> },
    /// Nothing more is read or written.
    Gone,
}

/// The upstream connection: its state and its heartbeats.
#[derive(Debug)]
pub(super) struct UpstreamSide {
    state: UpstreamState,
    clock: Clock,
    /// A method of the upstream has come.
    has_spoken: bool,
    /// The client's protocol header, until the connection is open and it can be sent.
    protocol_header: Bytes,
}

impl UpstreamSide {
    /// Creates the side before there is an upstream connection.
    pub(super) fn new(now: Instant) -> UpstreamSide {
        UpstreamSide {
            state: UpstreamState::Unborn,
            clock: Clock::new(now),
            has_spoken: false,
            protocol_header: Bytes::new(),
        }
    }

    /// Returns the state.
    #[inline]
    pub(super) fn state(&self) -> UpstreamState {
        self.state
    }

    /// Returns true if frames go both ways.
    #[inline]
    pub(super) fn is_live(&self) -> bool {
        self.state == UpstreamState::Live
    }

    /// Returns true if frames of the upstream are handled.
    #[inline]
    pub(super) fn is_heard(&self) -> bool {
        matches!(self.state, UpstreamState::Live | UpstreamState::Closing { .. })
    }

    /// Returns true if nothing more is read or written.
    pub(super) fn is_gone(&self) -> bool {
        self.state == UpstreamState::Gone
    }

    /// Returns true if a close was not answered in time.
    pub(super) fn is_late(&self, now: Instant) -> bool {
        self.deadline().is_some_and(|until| now >= until)
    }

    /// Returns until when the answer to a close is waited for.
    pub(super) fn deadline(&self) -> Option<Instant> {
        match self.state {
            UpstreamState::SaidClose { until } => Some(until),
            UpstreamState::Closing { until } => until,
            UpstreamState::Unborn | UpstreamState::Dialing | UpstreamState::Live | UpstreamState::Gone => {
                None
            }
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

    /// Notes that the shell was told to open the connection. Keeps the protocol header for it.
    pub(super) fn dial(&mut self, protocol_header: Bytes) {
        self.state = UpstreamState::Dialing;
        self.protocol_header = protocol_header;
    }

    /// Returns the client's protocol header, as long as it was not sent.
    pub(super) fn protocol_header(&self) -> &Bytes {
        &self.protocol_header
    }

    /// Notes that the connection is open. Returns the protocol header that is to be sent; `None` if it was not being opened.
    pub(super) fn opened(&mut self, now: Instant) -> Option<Bytes> {
        if self.state != UpstreamState::Dialing {
            return None;
        }
        self.state = UpstreamState::Live;
        self.clock.heard(now);
        Some(std::mem::take(&mut self.protocol_header))
    }

    /// Returns true if a method of the upstream has come.
    pub(super) fn has_spoken(&self) -> bool {
        self.has_spoken
    }

    /// Notes that a method of the upstream has come.
    pub(super) fn spoke(&mut self) {
        self.has_spoken = true;
    }

    /// Notes that the upstream has sent `connection.close`.
    pub(super) fn said_close(&mut self, until: Instant) {
        self.state = UpstreamState::SaidClose { until };
    }

    /// Notes that `connection.close` was sent to the upstream. `until`: how long its answer is waited for, if not as long as the
    /// client waits.
    pub(super) fn closing(&mut self, until: Option<Instant>) {
        self.state = UpstreamState::Closing { until };
    }

    /// Notes that the client waits no longer for the answer to `connection.close`. Does nothing if there is a time already.
    pub(super) fn close_until(&mut self, until: Instant) {
        if self.state == (UpstreamState::Closing { until: None }) {
            self.state = UpstreamState::Closing { until: Some(until) };
        }
    }

    /// Notes that nothing more is read or written.
    pub(super) fn gone(&mut self) {
        self.state = UpstreamState::Gone;
        self.clock.stop();
    }
}
