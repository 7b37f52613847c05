//! The confirm ledger of a channel alone, for `benches/ledger.rs`. Its publishes belong to no window, so the benchmark
//! measures the ledger and not the windows. This is no part of the crate's interface.

use super::confirms::{Confirms, UpstreamTag};
use super::entry::{Entry, Mandatory, Outcome, Verified};
use super::returns::ReturnKey;
use super::unremembered::Deadline;
use crate::window::{Key, Mailbox};
use crate::wire::ChannelId;
use bytes::BytesMut;
use std::hint::black_box;
use std::sync::Arc;
use std::time::{Duration, Instant};

/// A channel's confirm ledger.
#[derive(Debug)]
pub struct Ledger {
    confirms: Confirms,
    mailbox: Arc<Mailbox>,
    now: Option<Instant>,
}

impl Ledger {
    /// Creates a ledger without publishes.
    #[expect(clippy::new_without_default, reason = "as the ledger itself")]
    pub fn new() -> Ledger {
        Ledger { confirms: Confirms::new(), mailbox: Arc::default(), now: None }
    }

    /// Forwards the client's next publish. It is mandatory if there is a `return_key`.
    pub fn forward(&mut self, since: Instant, return_key: Option<Key>) {
        self.now = Some(since);
        let client = Some(self.confirms.answers.next_tag());
        let entry = Entry {
            client,
            reservation: None,
            since,
            right: None,
            mandatory: return_key.map(|key| Mandatory::new(ReturnKey::of_key(key), true, None)),
            verified: Verified::No,
        };
        self.confirms.forwarded(entry, b"");
    }

    /// Acks the client's next publish as a duplicate, without forwarding it.
    pub fn swallow(&mut self) {
        let tag = self.confirms.answers.next_tag();
        self.confirms.answers.ack(tag);
    }

    /// Handles an ack of the upstream.
    pub fn ack(&mut self, tag: u64, multiple: bool) {
        let Some(now) = self.now else { return };
        let deadline = Deadline { now, timeout: Duration::ZERO, mailbox: &self.mailbox };
        self.confirms.settle(UpstreamTag(tag), multiple, Outcome::Acked, deadline, |entry, _| {
            black_box(entry);
        });
    }

    /// Writes the confirms that are due.
    pub fn flush(&mut self, out: &mut BytesMut) {
        self.confirms.answers.flush(ChannelId(1), out);
    }

    /// Returns the number of publishes that were forwarded and are not settled.
    pub fn unsettled(&self) -> usize {
        self.confirms.unsettled()
    }
}
