//! Who may publish where, as the broker has shown.
//!
//! A duplicate is acked without asking the broker, so the ack must not go to a user whom the broker would refuse. A
//! right is the digest of (credentials, vhost, exchange, routing key): it is proven when the broker has settled a publish of
//! those credentials, or by [`super::probe`]. It is believed for a minute, so that a revoked permission shows soon.

use crate::window::{Key, KeyMaker, Scope};
use crate::wire::properties::IdValue;
use lru::LruCache;
use parking_lot::Mutex;
use std::collections::HashSet;
use std::num::NonZeroUsize;
use std::time::{Duration, Instant};

/// How long a proof is believed.
const BELIEVED: Duration = Duration::from_secs(60);
/// Proofs kept for the whole process (48 bytes each).
const KEPT: NonZeroUsize = NonZeroUsize::new(65_536).unwrap();
/// Proofs that a session keeps for itself, to leave the common map alone.
const KEPT_BY_SESSION: usize = 1_024;

/// The proofs of the whole process.
#[derive(Debug)]
pub struct Rights {
    proven: Mutex<LruCache<Key, Instant>>,
}

impl Default for Rights {
    fn default() -> Rights {
        Rights { proven: Mutex::new(LruCache::new(KEPT)) }
    }
}

impl Rights {
    fn knows(&self, right: Key, now: Instant) -> bool {
        self.proven.lock().get(&right).is_some_and(|&until| now < until)
    }

    fn learn(&self, right: Key, now: Instant) {
        self.proven.lock().put(right, now + BELIEVED);
    }
}

/// One session's view: whose credentials, and what they have proven lately.
#[derive(Debug)]
pub(super) struct OwnRights {
    identity: Vec<u8>,
    recent: HashSet<Key>,
    recent_since: Instant,
}

impl OwnRights {
    pub(super) fn new(now: Instant) -> OwnRights {
        OwnRights { identity: Vec::new(), recent: HashSet::new(), recent_since: now }
    }

    /// The credentials and the vhost, as far as the handshake has shown them. What was proven for others is void.
    pub(super) fn set_identity(&mut self, identity: Vec<u8>) {
        self.identity = identity;
        self.recent.clear();
    }

    /// The right that a publish needs. Topic permissions look at the routing key; the predeclared exchanges that are not
    /// topic exchanges are known, any other may be one.
    pub(super) fn needed(&self, keys: &KeyMaker, exchange: &[u8], routing_key: &[u8]) -> Key {
        let routing_key: &[u8] = match exchange {
            b"" | b"amq.direct" | b"amq.fanout" | b"amq.headers" | b"amq.match" => b"",
            _ => routing_key,
        };
        keys.key(Scope::RoutingKey, &self.identity, exchange, routing_key, &IdValue::Bytes(b"right"))
    }

    pub(super) fn knows(&mut self, common: &Rights, right: Key, now: Instant) -> bool {
        self.fade(now);
        self.recent.contains(&right) || common.knows(right, now)
    }

    pub(super) fn learn(&mut self, common: &Rights, right: Key, now: Instant) {
        self.fade(now);
        if self.recent.contains(&right) {
            return;
        }
        if self.recent.len() >= KEPT_BY_SESSION {
            self.recent.clear();
        }
        self.recent.insert(right);
        common.learn(right, now);
    }

    /// Bytes that what was proven lately takes.
    pub(super) fn memory(&self) -> usize {
        self.recent.len() * 2 * size_of::<Key>()
    }

    fn fade(&mut self, now: Instant) {
        if now.saturating_duration_since(self.recent_since) >= BELIEVED {
            self.recent.clear();
            self.recent_since = now;
        }
    }
}
