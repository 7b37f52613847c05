//! `store = "stream"`: the log of a window is a RabbitMQ stream queue.
//!
//! ```text
//!   the window's records ──▶ outbox ── batches, with confirms ──▶ ┌──────────────────────┐
//!                                                                 │ hapax.window.NAME    │
//!   the window ◀── recover, merge ◀── reader ◀── consumer ─────── └──────────────────────┘
//! ```
//!
//! [`link`] keeps one connection for all windows, by a [`socket`]. Each window has a task ([`keeper`]) with two channels on it. It declares the stream
//! ([`queue`]), consumes it from the time on that its ids may be from, and publishes a *mark*. When the mark comes back, everything is
//! read that stood there before. Then it writes what the window has to write, and merges what the other relays write.
//!
//! What a message means is decided without a broker, in [`envelope`], [`reader`] and [`outbox`].

mod envelope;
mod health;
mod keeper;
mod link;
#[cfg(all(test, feature = "tools"))]
mod measure;
mod outbox;
mod queue;
mod reader;
mod session;
mod socket;

pub(crate) use keeper::open;
pub(crate) use link::{Link, Live as BrokerConnection, within};

use crate::config::Node;
use lapin::ErrorKind;
use lapin::protocol::{AMQPErrorKind, AMQPHardError, AMQPSoftError};
use std::fmt;

/// Why the stream, or another connection of Hapax itself, can't be used at present.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct Why {
    what: String,
    /// what an operator can do about it
    fix: Option<String>,
    /// It stays so until somebody changes something.
    is_final: bool,
}

impl Why {
    /// Something that no operator can do anything about.
    pub(crate) fn new(what: impl Into<String>) -> Why {
        Why { what: what.into(), fix: None, is_final: false }
    }

    fn of(error: &lapin::Error) -> Why {
        let fix = match soft_error(error) {
            Some((AMQPSoftError::ACCESSREFUSED, _)) => Some(
                "give the user of [store.stream] the permissions: read and configure on the stream, write on the default exchange (amq.default)",
            ),
            _ => None,
        };
        Why { what: text(error), fix: fix.map(str::to_owned), is_final: false }
    }

    /// Why there is no connection to this node.
    fn at(node: &Node, error: &lapin::Error) -> Why {
        let fix = match (soft_error(error), hard_error(error)) {
            (Some((AMQPSoftError::ACCESSREFUSED, _)), _) => {
                Some("check user and password of `uri` in [store.stream]")
            }
            (_, Some(AMQPHardError::NOTALLOWED)) => {
                Some("check the vhost of `uri` in [store.stream], and whether its user may use it")
            }
            _ => None,
        };
        let what = format!("{}: {}", node.authority(), text(error));
        Why { what, fix: fix.map(str::to_owned), is_final: false }
    }
}

impl fmt::Display for Why {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.what)
    }
}

impl From<lapin::Error> for Why {
    fn from(error: lapin::Error) -> Why {
        Why::of(&error)
    }
}

/// What the broker said, or else what lapin says.
fn text(error: &lapin::Error) -> String {
    match error.kind() {
        ErrorKind::ProtocolError(error) => error.get_message().to_string(),
        _ => error.to_string(),
    }
}

/// The broker's reason to close a channel, if it was that.
fn soft_error(error: &lapin::Error) -> Option<(AMQPSoftError, String)> {
    match error.kind() {
        ErrorKind::ProtocolError(said) => match said.kind() {
            AMQPErrorKind::Soft(soft) => Some((soft.clone(), said.get_message().to_string())),
            _ => None,
        },
        _ => None,
    }
}

/// The broker's reason to close the connection, if it was that.
fn hard_error(error: &lapin::Error) -> Option<AMQPHardError> {
    match error.kind() {
        ErrorKind::ProtocolError(said) => match said.kind() {
            AMQPErrorKind::Hard(hard) => Some(hard.clone()),
            _ => None,
        },
        _ => None,
    }
}
