//! Exchanges from which everything comes back, as one connection sees it.
//!
//! Nothing that goes there is ever seen. That is right if no queue is bound: nothing is stored. But an exchange may keep what it
//! returns (as the delayed-message exchange does), and then duplicates pass. Hapax cannot tell, so it says once what to set. It
//! does not stop to verify by itself: then the retry of a message that no queue took would be lost.

use super::Shared;
use std::collections::HashMap;

/// Returns in a row, without a stored message, that are worth a word.
const MANY: u32 = 100;
/// Exchanges that are watched.
const WATCHED: usize = 64;

/// How many messages have come back from each exchange since one was stored there.
#[derive(Debug, Default)]
pub(super) struct Returning {
    counts: HashMap<Box<[u8]>, u32>,
}

impl Returning {
    /// Returns true if nothing has come back lately.
    #[inline]
    pub(super) fn is_empty(&self) -> bool {
        self.counts.is_empty()
    }

    /// Handles a return that only Hapax had asked for.
    pub(super) fn returned(&mut self, exchange: &[u8], vhost: &[u8], shared: &Shared) {
        if self.counts.len() >= WATCHED && !self.counts.contains_key(exchange) {
            self.counts.clear();
        }
        let count = self.counts.entry(exchange.into()).or_default();
        *count = count.saturating_add(1);
        if *count == MANY {
            shared.listener.returns_everything(vhost, exchange, MANY);
        }
    }

    /// Handles that a queue has taken a message of this exchange.
    pub(super) fn stored(&mut self, exchange: &[u8]) {
        // After the word was said, it stays said.
        if self.counts.get(exchange).is_some_and(|count| *count < MANY) {
            self.counts.remove(exchange);
        }
    }
}
