//! Why and when the upstream connection will be closed, and the frames of channel 0 that close a connection.

use super::outbox::{Piece, View};
use super::patience::Patience;
use crate::wire::{ChannelId, emit};
use amq_protocol::protocol::AMQPClass;
use amq_protocol::protocol::connection::{AMQPMethod as ConnectionMethod, Close, CloseOk};
use bytes::Bytes;
use std::time::{Duration, Instant};

/// Why the upstream connection will be closed.
#[derive(Debug)]
pub(super) enum Why {
    /// The client has sent this `connection.close`. It will be forwarded, unless outcomes take too long.
    ClientClose(Piece),
    /// The client is gone.
    ClientGone,
    /// The process is about to end.
    Drain,
}

/// The upstream connection will be closed when everything is settled, or at the time `until`.
#[derive(Debug)]
pub(super) struct Ending {
    why: Why,
    until: Instant,
    /// of a client that waits for `connection.close-ok`
    patience: Option<Patience>,
}

impl Ending {
    /// Waits for unsettled publishes until this time.
    pub(super) fn new(why: Why, until: Instant) -> Ending {
        Ending { why, until, patience: None }
    }

    /// Waits for unsettled publishes for at most this long after the client's `connection.close`.
    pub(super) fn of_client(close: Piece, linger: Duration, now: Instant) -> Ending {
        let patience = Some(Patience::new(linger, now));
        Ending { why: Why::ClientClose(close), until: now + linger, patience }
    }

    /// Returns true if the client waits for `connection.close-ok`, and has waited long enough.
    pub(super) fn is_overdue(&mut self, now: Instant) -> bool {
        self.patience.as_mut().is_some_and(|patience| patience.is_over(now))
    }

    /// Returns when something is due, if nothing else happens.
    pub(super) fn deadline(&self) -> Instant {
        self.patience.as_ref().map_or(self.until, |patience| patience.deadline().min(self.until))
    }

    /// Returns until when unsettled publishes are waited for.
    pub(super) fn until(&self) -> Instant {
        self.until
    }

    /// Returns why the connection is closed.
    pub(super) fn why(self) -> Why {
        self.why
    }
}

/// Makes a `connection.close`.
pub(super) fn close(code: u16, text: &str, (class_id, method_id): (u16, u16)) -> Bytes {
    let close = Close { reply_code: code, reply_text: text.into(), class_id, method_id };
    emit::method(ChannelId::CONNECTION, AMQPClass::Connection(ConnectionMethod::Close(close)))
}

/// Makes a `connection.close-ok`.
pub(super) fn close_ok() -> Bytes {
    emit::method(ChannelId::CONNECTION, AMQPClass::Connection(ConnectionMethod::CloseOk(CloseOk {})))
}

/// Returns the reply-code of a `connection.close`.
pub(super) fn reply_code(close: View<'_>) -> Option<u16> {
    close.payload().get(4..)?.first_chunk().map(|code| u16::from_be_bytes(*code))
}
