//! Decides until when a session reads from its client when the process is about to end.
//!
//! ```text
//!   No --drain--> WhenClientHasFinished --nothing is left that only the client can end, or overdue--> Now
//! ```
//!
//! Nobody waits for a client that has nothing to finish. It is told 320 at once, and connects to the next process. Messages in flight are no
//! reason to read on: their outcomes come from the broker. A reason is what would be lost, or done twice, by a close in the middle of it,
//! although the client would have ended it itself:
//!
//! * a message of which only a part has come: without confirms its publisher takes it for sent;
//! * a transaction with messages or acks in it;
//! * a delivery that is not acked: the queue would give it to somebody else, who does the same work again. Its consumer gets no new ones
//!   meanwhile;
//! * a login: many clients take the end of the socket for a wrong password, and some never try again.

use super::connection::Connection;
use std::time::Instant;

/// How far the end of the session is that the end of the process asks for.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Drain {
    /// The process goes on.
    No,
    /// The client is read from as long as it has something to finish. Then the session ends: outcomes are awaited until this time.
    WhenClientHasFinished { until: Instant },
    /// Nothing more is read from the client.
    Now,
}

impl Drain {
    /// Returns true if the client may be read from.
    #[inline]
    pub(super) fn reads(self, connection: &Connection) -> bool {
        match self {
            Drain::No => true,
            Drain::WhenClientHasFinished { .. } => connection.awaits_client(),
            Drain::Now => false,
        }
    }
}
