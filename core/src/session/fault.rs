//! The errors that Hapax itself sends to a client: their reply-code, their reply-text, and what they close.

use crate::wire::method::MethodId;
use crate::wire::{ChannelId, WireError};
use std::time::Duration;

/// The thing that a fault closes.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Closes {
    /// `channel.close`
    Channel,
    /// `connection.close`
    Connection,
}

/// An error that Hapax sends to a client. Its `Display` is the reply-text. As RabbitMQ's, it begins with the constant's name.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
pub enum Fault {
    /// The client has sent bytes that are no AMQP frame.
    #[error("FRAME_ERROR - {0}")]
    Wire(WireError),
    /// The client has sent a frame that can't follow in the message that it is sending.
    #[error("UNEXPECTED_FRAME - expected content body, got {got} frame on channel {channel} instead")]
    Unexpected {
        /// the channel of the frame
        channel: ChannelId,
        /// the kind of frame that came
        got: &'static str,
    },
    /// The upstream connection was lost.
    #[error(
        "CONNECTION_FORCED - hapax lost its connection to the broker; publishes without an ack may or may not be stored"
    )]
    UpstreamLost,
    /// Nothing answers at the broker's address.
    #[error("CONNECTION_FORCED - hapax can't reach the broker; try again later, or another host")]
    Unreachable,
    /// The process is about to end (SIGTERM).
    #[error("CONNECTION_FORCED - hapax is shutting down; reconnect")]
    Draining,
    /// An operator has closed the connection.
    #[error("CONNECTION_FORCED - {reason}")]
    Forced {
        /// what the operator says
        reason: Box<str>,
    },
    /// The publish has no id, and its window has `missing_id = "reject"`.
    #[error(
        "PRECONDITION_FAILED - window '{window}' takes no publish without an id ({id}); set it, or missing_id = \"forward\""
    )]
    MissingId {
        /// the window's name
        window: Box<str>,
        /// where it looks for the id
        id: Box<str>,
    },
    /// The publish has the id of another message and another body, and its window has `on_conflict = "reject"`.
    #[error(
        "PRECONDITION_FAILED - window '{window}' takes no other message with an id that is stored; give new content a new id, or \
         set on_conflict = \"forward\""
    )]
    Conflict {
        /// the window's name
        window: Box<str>,
    },
    /// The publish has an epoch that is lower than another that its producer has begun.
    #[error(
        "PRECONDITION_FAILED - window '{window}' has seen a higher x-hapax-epoch of this producer: another process has taken its \
         place; stop, or start again with a higher epoch"
    )]
    StaleEpoch {
        /// the window's name
        window: Box<str>,
    },
    /// The number of the publish is not the next one of its producer, and its window has `on_gap = "reject"`.
    #[error(
        "PRECONDITION_FAILED - window '{window}' takes no number while lower ones were never published; publish in the order of \
         x-hapax-sequence, or set on_gap = \"forward\""
    )]
    Gap {
        /// the window's name
        window: Box<str>,
    },
    /// `tx.select` came on a channel that Hapax can't replace by a fresh one.
    #[error(
        "PRECONDITION_FAILED - hapax can't switch this channel to tx mode: it has consumed or set qos, and has published without \
         confirms before tx.select; select tx before the first publish, or use a channel of its own"
    )]
    TxAfterPublish,
    /// A publish of a transaction has waited too long for the outcome of another with the same id.
    #[error(
        "PRECONDITION_FAILED - an id of this transaction is in flight elsewhere and did not settle in time; retry the transaction"
    )]
    TxWaitedTooLong,
    /// The body of a message came too slowly, and other publishes waited for its outcome.
    #[error(
        "CONNECTION_FORCED - the body of a message on channel {channel} has not gone on for {patience:?}, and others wait for the \
         outcome of its id; send bodies without pauses, and publish it again"
    )]
    BodyTooSlow {
        /// the channel of the message
        channel: ChannelId,
        /// how long Hapax has waited for the end of the body, or for a part of it
        patience: Duration,
    },
    /// A transaction stayed open for too long, and other publishes waited for its outcome.
    #[error(
        "PRECONDITION_FAILED - a transaction has not ended within {patience:?}, and others wait for the outcome of its ids; it is \
         rolled back: retry it, and commit sooner (timeouts.in_flight)"
    )]
    TxTooSlow {
        /// how long it was open, at least
        patience: Duration,
    },
    /// A transaction has more publishes than may be unresolved.
    #[error("RESOURCE_ERROR - more than {max} publishes in one transaction (limits.max_unresolved)")]
    TxTooLarge {
        /// the bound
        max: usize,
    },
    /// The user may have so few channels that none is left for Hapax. After this fault, Hapax asks nothing in the name of
    /// this user.
    #[error(
        "CONNECTION_FORCED - hapax needed one channel to verify the user's rights, or to wait for an outcome, and the user's limit (max-channels) leaves none; reconnect"
    )]
    ChannelLimit,
    /// The user may log in from this host only. The text is RabbitMQ's.
    #[error(
        "ACCESS_REFUSED - Login was refused using authentication mechanism {mechanism}. For details see the broker logfile."
    )]
    LoopbackUser {
        /// the SASL mechanism
        mechanism: Box<str>,
    },
    /// The client logs in by its certificate, which the broker can't see.
    #[error(
        "ACCESS_REFUSED - EXTERNAL can't be used here: TLS ends in hapax, and the broker sees hapax's certificate instead of the \
         client's; log in with a user and a password (PLAIN or AMQPLAIN)"
    )]
    External,
    /// The user has as many connections as it may have (`limits.connections_per_user`). The text is RabbitMQ's.
    #[error("NOT_ALLOWED - connection refused for user '{user}': user connection limit ({max}) is reached")]
    UserConnections {
        /// the user's name; empty if the mechanism does not show it
        user: Box<str>,
        /// the limit
        max: usize,
    },
    /// The client opens a channel that is open. The text is RabbitMQ's.
    #[error("CHANNEL_ERROR - second 'channel.open' seen")]
    SecondOpen,
    /// The client opens more channels than it has agreed on. The text is RabbitMQ's.
    #[error(
        "NOT_ALLOWED - number of channels opened ({open}) has reached the negotiated channel_max ({max})"
    )]
    ChannelMax {
        /// channels that are open
        open: usize,
        /// the bound
        max: u16,
    },
    /// The client sends more, but it does not read its deliveries and acks.
    #[error(
        "RESOURCE_ERROR - hapax could write nothing to this client for {patience:?}: {unread} bytes wait for it, and {unresolved} \
         publishes have no outcome; read while you publish (limits.unread_bytes, timeouts.unread)"
    )]
    Unread {
        /// bytes that wait to be written to the client
        unread: usize,
        /// publishes without an outcome
        unresolved: usize,
        /// how long nothing could be written
        patience: Duration,
    },
    /// The client settles a delivery that it has not got, or has settled. The text is RabbitMQ's.
    #[error("PRECONDITION_FAILED - unknown delivery tag {tag}")]
    UnknownDeliveryTag {
        /// the tag that the client has named
        tag: u64,
        /// `basic.ack`, `basic.nack` or `basic.reject`
        method: MethodId,
    },
    /// The process holds too many bytes, and this client more than its share.
    #[error(
        "RESOURCE_ERROR - hapax is short of memory (limits.memory), and an open transaction, an unfinished message or channels of \
         this connection hold {held} bytes of it; retry with less at a time"
    )]
    MemoryShort {
        /// bytes that would stay held until the client sends more
        held: usize,
        /// the connection, if a message is on its way, or if no single channel holds the bytes
        closes: Closes,
    },
}

impl Fault {
    /// Returns the AMQP reply-code.
    pub fn code(&self) -> u16 {
        match self {
            Fault::Wire(_) => 501,
            Fault::Unexpected { .. } => 505,
            Fault::UpstreamLost
            | Fault::Unreachable
            | Fault::Draining
            | Fault::Forced { .. }
            | Fault::ChannelLimit
            | Fault::BodyTooSlow { .. } => 320,
            Fault::MissingId { .. }
            | Fault::Conflict { .. }
            | Fault::StaleEpoch { .. }
            | Fault::Gap { .. }
            | Fault::TxAfterPublish
            | Fault::TxWaitedTooLong
            | Fault::UnknownDeliveryTag { .. }
            | Fault::TxTooSlow { .. } => 406,
            Fault::TxTooLarge { .. } | Fault::MemoryShort { .. } | Fault::Unread { .. } => 506,
            Fault::SecondOpen => 504,
            Fault::ChannelMax { .. } | Fault::UserConnections { .. } => 530,
            Fault::LoopbackUser { .. } | Fault::External => 403,
        }
    }

    /// Returns what the fault closes.
    pub fn closes(&self) -> Closes {
        match self {
            Fault::Wire(_)
            | Fault::Unexpected { .. }
            | Fault::UpstreamLost
            | Fault::Unreachable
            | Fault::Draining
            | Fault::Forced { .. }
            | Fault::BodyTooSlow { .. }
            | Fault::ChannelLimit
            | Fault::LoopbackUser { .. }
            | Fault::External
            | Fault::SecondOpen
            | Fault::Unread { .. }
            | Fault::UserConnections { .. }
            | Fault::ChannelMax { .. } => Closes::Connection,
            Fault::MemoryShort { closes, .. } => *closes,
            Fault::MissingId { .. }
            | Fault::Conflict { .. }
            | Fault::StaleEpoch { .. }
            | Fault::Gap { .. }
            | Fault::TxAfterPublish
            | Fault::TxWaitedTooLong
            | Fault::UnknownDeliveryTag { .. }
            | Fault::TxTooSlow { .. }
            | Fault::TxTooLarge { .. } => Closes::Channel,
        }
    }

    /// Returns the method that caused the fault; `(0, 0)` if none did.
    pub fn culprit(&self) -> MethodId {
        match self {
            Fault::Wire(_)
            | Fault::Unexpected { .. }
            | Fault::UpstreamLost
            | Fault::Unreachable
            | Fault::Draining
            | Fault::Forced { .. }
            | Fault::BodyTooSlow { .. }
            | Fault::TxTooSlow { .. }
            | Fault::ChannelLimit
            | Fault::LoopbackUser { .. }
            | Fault::External
            | Fault::MemoryShort { .. }
            | Fault::Unread { .. }
            | Fault::ChannelMax { .. } => MethodId(0, 0),
            Fault::SecondOpen => MethodId::CHANNEL_OPEN,
            Fault::UserConnections { .. } => MethodId::CONNECTION_OPEN,
            Fault::TxAfterPublish => MethodId::TX_SELECT,
            Fault::UnknownDeliveryTag { method, .. } => *method,
            Fault::MissingId { .. }
            | Fault::Conflict { .. }
            | Fault::StaleEpoch { .. }
            | Fault::Gap { .. }
            | Fault::TxWaitedTooLong
            | Fault::TxTooLarge { .. } => MethodId::BASIC_PUBLISH,
        }
    }

    /// Returns the reply-text, cut to the 255 bytes of a short string.
    pub fn text(&self) -> String {
        let mut text = self.to_string();
        if text.len() > 255 {
            let end = (0..=255).rev().find(|&at| text.is_char_boundary(at)).unwrap_or(0);
            text.truncate(end);
        }
        text
    }
}
