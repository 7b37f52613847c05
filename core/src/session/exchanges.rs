//! The types of exchanges, as far as they matter and are known from `exchange.declare` on any connection.
//!
//! The delayed-message exchange (type `x-delayed-message`, a plugin) keeps a message that has the header `x-delay`, and routes it
//! later. It returns the message all the same if the mandatory bit is set. Therefore Hapax does not set the bit where it knows of such
//! an exchange. A type is believed when the broker has answered `exchange.declare-ok`: that of an exchange which exists is the same
//! one then. A declaration that the broker refuses is not believed.
//!
//! At most [`KEPT`] exchanges are remembered. An exchange that is forgotten costs a return for each message, and nothing else: a message with the header that
//! comes back from an exchange of unknown type counts as kept.

use crate::window::Changes;
use lru::LruCache;
use parking_lot::Mutex;
use std::num::NonZeroUsize;
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};

/// Exchanges that are remembered. Each takes about 600 bytes at most: two names of up to 255 bytes.
const KEPT: NonZeroUsize = NonZeroUsize::new(4_096).unwrap();

/// The type of the exchanges that return what they keep.
const DELAYED: &str = "x-delayed-message";

/// The type of an exchange, as far as it matters.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum ExchangeType {
    /// `x-delayed-message`
    Delayed,
    /// any other
    Other,
}

impl ExchangeType {
    /// Reads the name of a type.
    pub(super) fn of(name: &str) -> ExchangeType {
        if name == DELAYED { ExchangeType::Delayed } else { ExchangeType::Other }
    }
}

/// The types of exchanges that all sessions of a process share.
#[derive(Debug)]
pub struct Exchanges {
    known: Mutex<LruCache<Box<[u8]>, ExchangeType>>,
    delayed: AtomicUsize,
    changes: Changes,
}

impl Default for Exchanges {
    fn default() -> Exchanges {
        Exchanges::counting(Changes::default())
    }
}

impl Exchanges {
    /// Knows nothing yet. Counts changes together with others.
    pub(super) fn counting(changes: Changes) -> Exchanges {
        Exchanges { known: Mutex::new(LruCache::new(KEPT)), delayed: AtomicUsize::new(0), changes }
    }

    /// Returns true if this exchange is known to be a delayed-message exchange.
    pub(super) fn is_delayed(&self, vhost: &[u8], exchange: &[u8]) -> bool {
        // There is mostly no such exchange, so the lock is not needed.
        self.delayed.load(Relaxed) > 0 && self.is(vhost, exchange, ExchangeType::Delayed)
    }

    /// Returns true if this exchange is known to be none.
    pub(super) fn is_of_other_type(&self, vhost: &[u8], exchange: &[u8]) -> bool {
        is_predeclared(exchange) || self.is(vhost, exchange, ExchangeType::Other)
    }

    /// Returns a number that is another one when a delayed-message exchange was learned of or forgotten, or when other windows
    /// judge.
    #[inline]
    pub(super) fn changes(&self) -> u64 {
        self.changes.now()
    }

    /// Handles that the broker has confirmed the type of an exchange.
    pub(super) fn learn(&self, vhost: &[u8], exchange: &[u8], of: ExchangeType) {
        let mut known = self.known.lock();
        let name = name(vhost, exchange);
        let before = known.get(&name).copied();
        if before == Some(of) {
            return;
        }
        let pushed_out = known.push(name, of).map(|(_, of)| of);
        self.count(pushed_out, Some(of));
    }

    /// Handles that somebody deletes an exchange: it may get another type.
    pub(super) fn forget(&self, vhost: &[u8], exchange: &[u8]) {
        let forgotten = self.known.lock().pop(&name(vhost, exchange));
        self.count(forgotten, None);
    }

    /// Counts the delayed-message exchanges. The lock need not be held: the sum is right when nothing changes.
    fn count(&self, before: Option<ExchangeType>, after: Option<ExchangeType>) {
        let is_delayed = |of| of == Some(ExchangeType::Delayed);
        match (is_delayed(before), is_delayed(after)) {
            (false, true) => self.delayed.fetch_add(1, Relaxed),
            (true, false) => self.delayed.fetch_sub(1, Relaxed),
            (true, true) | (false, false) => return,
        };
        self.changes.count();
    }

    fn is(&self, vhost: &[u8], exchange: &[u8], of: ExchangeType) -> bool {
        self.known.lock().get(&name(vhost, exchange)).is_some_and(|known| *known == of)
    }
}

/// Returns true for the exchanges that every vhost has.
fn is_predeclared(exchange: &[u8]) -> bool {
    exchange.is_empty() || exchange.starts_with(b"amq.")
}

/// Returns vhost and exchange as one name. The exchange has at most 255 bytes, so its length comes last.
fn name(vhost: &[u8], exchange: &[u8]) -> Box<[u8]> {
    let len = u8::try_from(exchange.len()).unwrap_or(u8::MAX);
    [vhost, exchange, &[len]].concat().into()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_learned_last_counts_and_only_so_many_are_kept() {
        let exchanges = Exchanges::default();
        exchanges.learn(b"v", b"x", ExchangeType::Delayed);
        assert!(
            exchanges.is_delayed(b"v", b"x")
                && !exchanges.is_delayed(b"vx", b"")
                && !exchanges.is_delayed(b"w", b"x")
        );
        let changes = exchanges.changes();
        exchanges.learn(b"v", b"x", ExchangeType::Delayed);
        assert_eq!(exchanges.changes(), changes);
        exchanges.learn(b"v", b"x", ExchangeType::Other);
        assert!(!exchanges.is_delayed(b"v", b"x") && exchanges.is_of_other_type(b"v", b"x"));
        assert_ne!(exchanges.changes(), changes);
        exchanges.forget(b"v", b"x");
        assert!(!exchanges.is_of_other_type(b"v", b"x") && exchanges.is_of_other_type(b"v", b"amq.topic"));
        for n in 0..2 * KEPT.get() {
            exchanges.learn(b"v", n.to_string().as_bytes(), ExchangeType::Delayed);
        }
        assert_eq!((exchanges.known.lock().len(), exchanges.delayed.load(Relaxed)), (KEPT.get(), KEPT.get()));
    }
}
