//! Tells the client by `connection.blocked` and `connection.unblocked` whether it may publish.
//!
//! ```text
//!   the broker blocks (an alarm) ─────────┐
//!   a window judges nothing, and a ───────┴─▶ either: blocked     none any more: unblocked
//!   publish of this client waits for it
//! ```
//!
//! RabbitMQ says so once, however many reasons there are, and only to clients that understand it. A client that publishes to no such window
//! hears nothing, as one that publishes nothing hears nothing of RabbitMQ's alarms.

use crate::window::{Mailbox, Window, is_same};
use crate::wire::{ChannelId, emit};
use amq_protocol::protocol::AMQPClass;
use amq_protocol::protocol::connection::{AMQPMethod, Blocked as BlockedMethod, StartOk, Unblocked};
use amq_protocol::types::AMQPValue;
use bytes::Bytes;
use std::sync::Arc;

/// Characters of a window's name in a reason. A reason takes 255 octets.
const LONGEST_NAME: usize = 50;

/// The reasons for which the client may not publish, and what it was told of them.
#[derive(Debug, Default)]
pub(super) struct Blocked {
    /// The client has said that it understands.
    can_be_told: bool,
    by_broker: bool,
    /// The windows that judge nothing, and that publishes of the client wait for.
    windows: Vec<Arc<dyn Window>>,
    /// The last that it was told is that it is blocked.
    told: bool,
}

impl Blocked {
    /// Notes what the client understands. It may say so once.
    pub(super) fn recv_start_ok(&mut self, start_ok: &StartOk) {
        self.can_be_told = has_capability(start_ok, "connection.blocked");
    }

    /// Notes that a publish of the client waits for this window. If it judges nothing at present, it calls the session when that is over.
    #[cold]
    pub(super) fn publish_waits(&mut self, window: &Arc<dyn Window>, mailbox: &Arc<Mailbox>) {
        let is_known = || self.windows.iter().any(|other| is_same(other, window));
        if self.can_be_told && !is_known() && window.is_refusing(mailbox) {
            self.windows.push(Arc::clone(window));
        }
    }

    /// Handles `connection.blocked` or `connection.unblocked` of the broker. Returns true if the client is to hear it.
    pub(super) fn recv_broker(&mut self, blocked: bool) -> bool {
        self.by_broker = blocked;
        let is_news = self.windows.is_empty() || blocked && !self.told;
        if is_news {
            self.told = blocked;
        }
        is_news
    }

    /// Returns true if [`Blocked::poll`] has something to do.
    #[inline]
    pub(super) fn is_any(&self) -> bool {
        !self.windows.is_empty()
    }

    /// Returns what the client is to be told now, if it does not know it yet.
    pub(super) fn poll(&mut self, mailbox: &Arc<Mailbox>) -> Option<Bytes> {
        self.windows.retain(|window| window.is_refusing(mailbox));
        let first = self.windows.first();
        let blocked = self.by_broker || first.is_some();
        if blocked == self.told {
            return None;
        }
        self.told = blocked;
        Some(match first {
            Some(window) => blocked_by(window),
            None => frame(AMQPMethod::Unblocked(Unblocked {})),
        })
    }
}

fn blocked_by(window: &Arc<dyn Window>) -> Bytes {
    let name: String = window.rules().name.chars().take(LONGEST_NAME).collect();
    let reason = format!("hapax: the store of window {name} is out of order");
    frame(AMQPMethod::Blocked(BlockedMethod { reason: reason.as_str().into() }))
}

fn frame(method: AMQPMethod) -> Bytes {
    emit::method(ChannelId::CONNECTION, AMQPClass::Connection(method))
}

/// Returns true if a `start-ok` says that its client has this capability.
pub(super) fn has_capability(start_ok: &StartOk, name: &str) -> bool {
    match start_ok.client_properties.inner().get("capabilities") {
        Some(AMQPValue::FieldTable(table)) => table.inner().get(name) == Some(&AMQPValue::Boolean(true)),
        _ => false,
    }
}
