//! All that is remembered of a producer, as a store keeps it: it does not depend on the number of places.

use super::ProducerKey;
use std::time::Duration;

/// All that is remembered of a producer.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct ProducerImage {
    /// which
    pub producer: ProducerKey,
    /// its epoch
    pub epoch: u64,
    /// how long it is remembered from the moment on when it was seen last
    pub ttl: Duration,
    /// One more than the highest number that was stored. 0: the epoch has begun, and no more is said.
    pub end: u64,
    /// Nothing is known of the numbers below this one.
    pub unknown_below: u64,
    /// The numbers between the two that are not stored: ranges with both ends, in order. All others between them are stored.
    pub missing: Vec<(u64, u64)>,
}
