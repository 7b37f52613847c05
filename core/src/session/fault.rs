//! What Hapax itself has to refuse: who is at fault, how far it reaches, and the AMQP code that says so.

use crate::wire::method::MethodId;
use crate::wire::{ChannelId, WireError};
use std::time::Duration;

/// How much a fault ends.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Closes {
    /// `channel.close`
    Channel,
    /// `connection.close`
    Connection,
}

/// A refusal that Hapax originates. Its `Display` is the reply-text, in RabbitMQ's manner: the constant's name first.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
pub enum Fault {
    /// The bytes are no AMQP frame.
    #[error("FRAME_ERROR - {0}")]
    Wire(WireError),
    /// A frame that can't follow in the content that is being received.
    #[error("UNEXPECTED_FRAME - expected content body, got {got} frame on channel {channel} instead")]
    Unexpected {
        /// where
        channel: ChannelId,
        /// what came
        got: &'static str,
    },
    /// The upstream connection died.
    #[error(
        "CONNECTION_FORCED - hapax lost its connection to the broker; publishes without an ack may or may not be stored"
    )]
    UpstreamLost,
    /// SIGTERM.
    #[error("CONNECTION_FORCED - hapax is shutting down; reconnect")]
    Draining,
    /// `missing_id = "reject"`.
    #[error(
        "PRECONDITION_FAILED - window '{window}' takes no publish without an id ({id}); set it, or missing_id = \"forward\""
    )]
    MissingId {
        /// the window's name
        window: Box<str>,
        /// where it looks for the id
        id: Box<str>,
    },
    /// `tx.select` on a channel that holds more than publishes.
    #[error(
        "PRECONDITION_FAILED - hapax can't switch this channel to tx mode: it has consumed or set qos, and has published without \
         confirms before tx.select; select tx before the first publish, or use a channel of its own"
    )]
    TxAfterPublish,
    /// A transaction has waited too long for another publish of the same id.
    #[error(
        "PRECONDITION_FAILED - an id of this transaction is in flight elsewhere and did not settle in time; retry the transaction"
    )]
    TxWaitedTooLong,
    /// The body of a message came too slowly, and others waited for its outcome.
    #[error(
        "CONNECTION_FORCED - the body of a message on channel {channel} has not gone on for {patience:?}, and others wait for the \
         outcome of its id; send bodies without pauses, and publish it again"
    )]
    BodyTooSlow {
        /// where
        channel: ChannelId,
        /// how long Hapax has waited for the end of the body, or for some KiB of it
        patience: Duration,
    },
    /// A transaction did not end, and others waited for its outcome.
    #[error(
        "PRECONDITION_FAILED - a transaction has not ended within {patience:?}, and others wait for the outcome of its ids; it is \
         rolled back: retry it, and commit sooner (timeouts.in_flight)"
    )]
    TxTooSlow {
        /// how long it was open at least
        patience: Duration,
    },
    /// More publishes in one transaction than the bound on unresolved publishes.
    #[error("RESOURCE_ERROR - more than {max} publishes in one transaction (limits.max_unresolved)")]
    TxTooLarge {
        /// the bound
        max: usize,
    },
    /// The user may have so few channels that none is left for Hapax. After this, it asks nothing in the name of this user.
    #[error(
        "CONNECTION_FORCED - hapax needed one channel to verify the user's rights, and the user's limit (max-channels) leaves none; reconnect"
    )]
    ChannelLimit,
    /// A channel is opened that is not closed yet. The words are RabbitMQ's.
    #[error("CHANNEL_ERROR - second 'channel.open' seen")]
    SecondOpen,
    /// One channel more than the client and Hapax have agreed on. The words are RabbitMQ's.
    #[error(
        "NOT_ALLOWED - number of channels opened ({open}) has reached the negotiated channel_max ({max})"
    )]
    ChannelMax {
        /// channels that are open
        open: usize,
        /// the bound
        max: u16,
    },
    /// The process holds too much, and this client more than its share of it.
    #[error(
        "RESOURCE_ERROR - hapax is short of memory (limits.memory), and an open transaction, an unfinished message or channels of \
         this connection hold {held} bytes of it; retry with less at a time"
    )]
    MemoryShort {
        /// what would stay held until the client says more
        held: usize,
        /// amid a content, or where it is no single channel
        closes: Closes,
    },
}

impl Fault {
    /// The AMQP reply-code.
    pub fn code(&self) -> u16 {
        match self {
            Fault::Wire(_) => 501,
            Fault::Unexpected { .. } => 505,
            Fault::UpstreamLost | Fault::Draining | Fault::ChannelLimit | Fault::BodyTooSlow { .. } => 320,
            Fault::MissingId { .. }
            | Fault::TxAfterPublish
            | Fault::TxWaitedTooLong
            | Fault::TxTooSlow { .. } => 406,
            Fault::TxTooLarge { .. } | Fault::MemoryShort { .. } => 506,
            Fault::SecondOpen => 504,
            Fault::ChannelMax { .. } => 530,
        }
    }

    /// How far it reaches.
    pub fn closes(&self) -> Closes {
        match self {
            Fault::Wire(_)
            | Fault::Unexpected { .. }
            | Fault::UpstreamLost
            | Fault::Draining
            | Fault::BodyTooSlow { .. }
            | Fault::ChannelLimit
            | Fault::SecondOpen
            | Fault::ChannelMax { .. } => Closes::Connection,
            Fault::MemoryShort { closes, .. } => *closes,
            Fault::MissingId { .. }
            | Fault::TxAfterPublish
            | Fault::TxWaitedTooLong
            | Fault::TxTooSlow { .. }
            | Fault::TxTooLarge { .. } => Closes::Channel,
        }
    }

    /// The method to blame, `(0, 0)` where there is none.
    pub fn culprit(&self) -> MethodId {
        match self {
            Fault::Wire(_)
            | Fault::Unexpected { .. }
            | Fault::UpstreamLost
            | Fault::Draining
            | Fault::BodyTooSlow { .. }
            | Fault::TxTooSlow { .. }
            | Fault::ChannelLimit
            | Fault::MemoryShort { .. }
            | Fault::ChannelMax { .. } => MethodId(0, 0),
            Fault::SecondOpen => MethodId::CHANNEL_OPEN,
            Fault::TxAfterPublish => MethodId::TX_SELECT,
            Fault::MissingId { .. } | Fault::TxWaitedTooLong | Fault::TxTooLarge { .. } => {
                MethodId::BASIC_PUBLISH
            }
        }
    }

    /// The reply-text: a short string holds 255 octets.
    pub fn text(&self) -> String {
        let mut text = self.to_string();
        if text.len() > 255 {
            let end = (0..=255).rev().find(|&at| text.is_char_boundary(at)).unwrap_or(0);
            text.truncate(end);
        }
        text
    }
}
