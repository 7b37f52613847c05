//! The confirm ledger of a channel alone, for `benches/ledger.rs`. Its publishes belong to no window, so the benchmark
//! measures the ledger and not the windows. This is no part of the crate's interface.

use super::confirms::{Confirms, UpstreamTag};
use super::entry::{Entry, Mandatory, Outcome};
use super::returns::ReturnKey;
use crate::window::Key;
use crate::wire::ChannelId;
use bytes::BytesMut;
use std::hint::black_box;
use std::time::Instant;

/// A channel's [`Confirms`] without a channel.
#[derive(Debug)]
pub struct Ledger(Confirms);

impl Ledger {
    /// Creates a ledger without publishes.
    #[expect(clippy::new_without_default, reason = "as the ledger itself")]
    pub fn new() -> Ledger {
        Ledger(Confirms::new())
    }

    /// Forwards the client's next publish. It is mandatory if there is a `return_key`.
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

    /// Acks the client's next publish as a duplicate, without forwarding it.
    pub fn swallow(&mut self) {
        let tag = self.0.next_client_tag();
        self.0.ack(tag);
    }

    /// Handles an ack of the upstream.
    pub fn ack(&mut self, tag: u64, multiple: bool) {
        self.0.settle(UpstreamTag(tag), multiple, Outcome::Acked, |entry| drop(black_box(entry)));
    }

    /// Writes the confirms that are due.
    pub fn flush(&mut self, out: &mut BytesMut) {
        self.0.flush(ChannelId(1), out);
    }

    /// Returns the number of publishes that were forwarded and are not settled.
    pub fn unsettled(&self) -> usize {
        self.0.unsettled()
    }
}
