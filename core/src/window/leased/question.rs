//! The questions of a window to Redis, and the answers. The shell makes commands of questions.

use super::value::Lease;
use crate::window::{Claim, Refusal};
use std::time::Duration;

/// A question about one claim.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Question {
    /// which claim
    pub claim: Claim,
    /// the lease that it is about
    pub lease: Lease,
    /// what is asked
    pub what: Request,
}

/// The kinds of questions. For a number, read *number* in place of key, and *lease* in place of value. A stored number has no lease.
/// *The value* is that of the lease ([`LeasedWindow::value`](super::LeasedWindow::value)).
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Request {
    /// Set the value if the key has none.
    Lease,
    /// Set the value if the key has none, or this one.
    Replace(Vec<u8>),
    /// Say which value the key has, and how long it will have it.
    Look,
    /// If the key has the value, let it live for its time from now. If it has none, set the value.
    Renew,
    /// If the key has the value, remove it.
    Release,
}

/// The answer of Redis to a question.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Answer {
    /// It is done.
    Done,
    /// The key has another value. How long it will have it is known for [`Request::Look`] only.
    Found(Vec<u8>, Duration),
    /// The key has no value.
    Nothing,
    /// The number is not stored, and the lease is set (`id = "sequence"`).
    Granted {
        /// Numbers before it have never been let through, by any relay.
        gap: bool,
    },
    /// The number is stored. Its producer is remembered for this time.
    Stored(Duration),
    /// The number is not let through.
    Refused(Refusal),
}
