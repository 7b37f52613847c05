//! The confirm ledger by itself, for `benches/ledger.rs`: a channel's [`Confirms`] with publishes of no window, so that what is
//! measured is the ledger and not what its entries do when they are done. No part of the crate's interface.

use super::confirms::{Confirms, UpstreamTag};
use super::entry::{Entry, Mandatory, Outcome};
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
    /// Nothing was published yet.
    #[expect(clippy::new_without_default, reason = "as the ledger itself")]
    pub fn new() -> Ledger {
        Ledger { confirms: Confirms::new(), mailbox: Arc::default(), now: None }
    }

    /// The client's next publish is forwarded; with `return_key`, it is mandatory.
    pub fn forward(&mut self, since: Instant, return_key: Option<Key>) {
        self.now = Some(since);
        let client = Some(self.confirms.answers.next_tag());
        let entry = Entry {
            client,
            reservation: None,
            since,
            right: None,
            mandatory: return_key.map(|key| Mandatory::new(ReturnKey::of_key(key), None)),
        };
        self.confirms.forwarded(entry, b"");
    }

    /// The client's next publish is a duplicate: acked and not forwarded.
    pub fn swallow(&mut self) {
        let tag = self.confirms.answers.next_tag();
        self.confirms.answers.ack(tag);
    }

    /// The upstream acks.
    pub fn ack(&mut self, tag: u64, multiple: bool) {
        let Some(now) = self.now else { return };
        let deadline = Deadline { now, timeout: Duration::ZERO, mailbox: &self.mailbox };
        self.confirms.settle(UpstreamTag(tag), multiple, Outcome::Acked, deadline, |entry| {
            black_box(entry);
        });
    }

    /// Writes the answers that are due.
    pub fn flush(&mut self, out: &mut BytesMut) {
        self.confirms.answers.flush(ChannelId(1), out);
    }

    /// Forwarded and not settled.
    pub fn unsettled(&self) -> usize {
        self.confirms.unsettled()
    }
}
