//! Finds out whether the broker has handled all that was sent to it on a channel: by `channel.flow`, which changes nothing.
//!
//! RabbitMQ handles the methods of a channel in their order. Its answers to the methods before (a `channel.close` with its
//! code, a return, a reply) come before `channel.flow-ok`.

use super::frames;
use crate::session::outbox::Lane;
use crate::wire::ChannelId;

#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
enum State {
    #[default]
    NotAsked,
    /// This many answers to the client's own `channel.flow` come before the one to Hapax's.
    Asked {
        clients: u32,
    },
    Answered,
}

/// A question to the broker on one channel, at most one at a time.
#[derive(Debug, Default)]
pub(super) struct RoundTrip {
    /// `channel.flow`s of the client without an answer.
    clients: u32,
    state: State,
}

impl RoundTrip {
    /// Handles a `channel.flow` of the client.
    pub(super) fn recv_client_flow(&mut self) {
        self.clients = self.clients.saturating_add(1);
    }

    /// Asks, if that was not done yet.
    pub(super) fn ask(&mut self, channel: ChannelId, upstream: &mut Lane) {
        if self.state == State::NotAsked {
            self.state = State::Asked { clients: self.clients };
            upstream.push(frames::flow(channel));
        }
    }

    /// Returns true if the question was asked.
    pub(super) fn is_asked(&self) -> bool {
        self.state != State::NotAsked
    }

    /// Returns true if the broker has answered.
    pub(super) fn is_answered(&self) -> bool {
        self.state == State::Answered
    }

    /// Handles `channel.flow-ok`. Returns true if it answers the question, so that it is not for the client.
    pub(super) fn recv_flow_ok(&mut self) -> bool {
        match &mut self.state {
            State::Asked { clients: 0 } => {
                self.state = State::Answered;
                return true;
            }
            State::Asked { clients } => *clients -= 1,
            State::NotAsked | State::Answered => {}
        }
        self.clients = self.clients.saturating_sub(1);
        false
    }
}
