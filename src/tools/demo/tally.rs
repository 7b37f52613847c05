//! The counters of the publishers.

use super::client::Outcome;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

/// Shared by all publishers of a run.
#[derive(Debug, Default)]
pub(super) struct Tally {
    sent: AtomicU64,
    acked: AtomicU64,
    nacked: AtomicU64,
    returned: AtomicU64,
    unconfirmed: AtomicU64,
}

impl Tally {
    /// A publish was written to its connection.
    pub(super) fn sent(&self) {
        self.sent.fetch_add(1, Relaxed);
    }

    /// Its publisher knows, or knows that it will not know.
    pub(super) fn settled(&self, outcome: Outcome) {
        let counter = match outcome {
            Outcome::Acked => &self.acked,
            Outcome::Nacked => &self.nacked,
            Outcome::Returned => &self.returned,
            Outcome::Unconfirmed => &self.unconfirmed,
        };
        counter.fetch_add(1, Relaxed);
    }

    /// As it is now.
    pub(super) fn snapshot(&self) -> Counts {
        Counts {
            sent: self.sent.load(Relaxed),
            acked: self.acked.load(Relaxed),
            nacked: self.nacked.load(Relaxed),
            returned: self.returned.load(Relaxed),
            unconfirmed: self.unconfirmed.load(Relaxed),
        }
    }
}

/// A [`Tally`] at one moment.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug, serde::Serialize)]
pub(super) struct Counts {
    /// written to a connection
    pub(super) sent: u64,
    /// answered with an ack
    pub(super) acked: u64,
    /// answered with a nack
    pub(super) nacked: u64,
    /// sent back
    pub(super) returned: u64,
    /// never answered: the connection was gone
    pub(super) unconfirmed: u64,
}

impl Counts {
    /// Returns the number of publishes whose outcome will not change any more.
    pub(super) fn settled(&self) -> u64 {
        self.acked + self.nacked + self.returned + self.unconfirmed
    }
}
