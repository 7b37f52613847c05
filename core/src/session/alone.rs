//! The confirm ledger by itself, for `benches/ledger.rs`: a channel's [`Confirms`] with publishes of no window, so that what is
//! measured is the ledger and not what its entries do when they are done. No part of the crate's interface.

use super::confirms::{Confirms, UpstreamTag};
use super::entry::{Entry, Mandatory, Outcome};
use super::returns::ReturnKey;
use crate::window::Key;
use crate::wire::ChannelId;
use bytes::BytesMut;
use std::hint::black_box;
use std::time::Instant;

/// See the module.
#[derive(Debug)]
pub struct Ledger(Confirms);

impl Ledger {
    /// Nothing was published yet.
    #[expect(clippy::new_without_default, reason = "as the ledger itself")]
    pub fn new() -> Ledger {
        Ledger(Confirms::new())
    }

    /// The client's next publish is forwarded; with `return_key`, it is mandatory.
    pub fn forward(&mut self, since: Instant, return_key: Option<Key>) {
        let client = Some(self.0.next_client_tag());
        let entry = Entry {
            client,
            reservation: None,
            since,
            right: None,
            mandatory: return_key.map(|key| Mandatory::new(ReturnKey::of_key(key), None)),
        };
        self.0.forwarded(entry, b"");
    }

    /// The client's next publish is a duplicate: acked and not forwarded.
    pub fn swallow(&mut self) {
        let tag = self.0.next_client_tag();
        self.0.ack(tag);
    }

    /// The upstream acks.
    pub fn ack(&mut self, tag: u64, multiple: bool) {
        self.0.settle(UpstreamTag(tag), multiple, Outcome::Acked, |entry| drop(black_box(entry)));
    }

    /// Writes the answers that are due.
    pub fn flush(&mut self, out: &mut BytesMut) {
        self.0.flush(ChannelId(1), out);
    }

    /// Forwarded and not settled.
    pub fn unsettled(&self) -> usize {
        self.0.unsettled()
    }
}
