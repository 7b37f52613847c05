//! The value that Redis has under the key of an id.
//!
//! ```text
//! lease   "L" | 1 | relay 8 | serial 8 | keep in ms 8 | seal 8        (integers: big endian)
//! seen    "S" | 1 | ttl in ms 8 | generation 4 | body 4 | seal 8
//! ```
//!
//! * A *lease* says that a publish of this id is in flight, and in which relay. `serial` is unique within the relay, so a lease is never
//!   taken for another one of the same relay. `keep` is zero, or (`in_doubt = "keep"`) how long the id counts as seen if nobody renews the
//!   lease any more.
//! * *Seen* says that the message was stored. `generation` is the number of times that the window was flushed before.
//! * The *seal* is a keyed digest of the key and the value. Who may write to Redis, but does not know the secret, can't make Hapax take a
//!   message for a duplicate.

use crate::window::logged::{Reader, RelayId, whole_millis};
use crate::window::{BodyDigest, Key, KeyMaker};
use std::time::Duration;

/// The version of the format, in each value.
const FORMAT: u8 = 1;
const SEAL: usize = 8;

/// A lease, as its relay knows it.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub struct Lease {
    /// which lease of the relay it is
    pub serial: u64,
    /// How long its id counts as seen if nobody renews it, in milliseconds. Zero: it does not.
    pub keep: u64,
}

/// A value that was read.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Value {
    Leased(RelayId, Lease),
    Seen {
        ttl: Duration,
        generation: u32,
        body: BodyDigest,
    },
    /// Somebody else has written it, or with another secret, or it is damaged.
    Strange,
}

/// Returns the beginning of the values of all leases of this relay.
pub(super) fn lease_of(relay: RelayId) -> Vec<u8> {
    let mut value = Vec::with_capacity(2 + 3 * 8 + SEAL);
    value.extend_from_slice(&[b'L', FORMAT]);
    value.extend_from_slice(&relay.0.to_be_bytes());
    value
}

/// Writes and reads values.
#[derive(Clone, Debug)]
pub(super) struct Values {
    keys: KeyMaker,
}

impl Values {
    pub(super) fn new(keys: KeyMaker) -> Values {
        Values { keys }
    }

    pub(super) fn lease(&self, key: Key, relay: RelayId, lease: Lease) -> Vec<u8> {
        let mut value = lease_of(relay);
        value.extend_from_slice(&lease.serial.to_be_bytes());
        value.extend_from_slice(&lease.keep.to_be_bytes());
        self.sealed(key, value)
    }

    pub(super) fn seen(&self, key: Key, ttl: Duration, generation: u32, body: BodyDigest) -> Vec<u8> {
        let mut value = Vec::with_capacity(2 + 8 + 4 + 4 + SEAL);
        value.extend_from_slice(&[b'S', FORMAT]);
        value.extend_from_slice(&millis(ttl).to_be_bytes());
        value.extend_from_slice(&generation.to_be_bytes());
        value.extend_from_slice(&body.bits().to_be_bytes());
        self.sealed(key, value)
    }

    fn sealed(&self, key: Key, mut value: Vec<u8>) -> Vec<u8> {
        let seal = self.seal(key, &value);
        value.extend_from_slice(&seal);
        value
    }

    fn seal(&self, key: Key, value: &[u8]) -> [u8; SEAL] {
        let mut sealed = [0; Key::OCTETS + 2 + 3 * 8];
        let (head, rest) = sealed.split_at_mut(Key::OCTETS);
        head.copy_from_slice(&key.octets());
        let len = value.len().min(rest.len());
        if let (Some(to), Some(from)) = (rest.get_mut(..len), value.get(..len)) {
            to.copy_from_slice(from);
        }
        let digest = self.keys.seal(sealed.get(..Key::OCTETS + len).unwrap_or_default());
        digest.first_chunk().copied().unwrap_or_default()
    }

    pub(super) fn read(&self, key: Key, value: &[u8]) -> Value {
        let read = || {
            let (content, seal) = value.split_last_chunk::<SEAL>()?;
            let mut rest = Reader(content);
            let value = match rest.take()? {
                [b'L', FORMAT] => {
                    let relay = RelayId(u64::from_be_bytes(rest.take()?));
                    let serial = u64::from_be_bytes(rest.take()?);
                    Value::Leased(relay, Lease { serial, keep: u64::from_be_bytes(rest.take()?) })
                }
                [b'S', FORMAT] => Value::Seen {
                    ttl: Duration::from_millis(u64::from_be_bytes(rest.take()?)),
                    generation: u32::from_be_bytes(rest.take()?),
                    body: BodyDigest::from_bits(u32::from_be_bytes(rest.take()?)),
                },
                _ => return None,
            };
            (rest.0.is_empty() && self.seal(key, content) == *seal).then_some(value)
        };
        read().unwrap_or(Value::Strange)
    }
}

/// Rounds up: an id is never forgotten early. Redis knows no longer time than this, which is a century.
pub fn millis(duration: Duration) -> u64 {
    const LONGEST: u64 = 100 * 365 * 86_400_000;
    whole_millis(duration).min(LONGEST)
}

#[cfg(test)]
mod tests {
    use super::*;

    const RELAY: RelayId = RelayId(0x0102_0304_0506_0708);
    const LEASE: Lease = Lease { serial: 9, keep: 60_000 };
    const TTL: Duration = Duration::from_secs(600);

    fn values(secret: u64) -> Values {
        Values::new(KeyMaker::new((secret, 2)))
    }

    fn hex(bytes: &[u8]) -> String {
        bytes.iter().map(|byte| format!("{byte:02x}")).collect()
    }

    /// A store that outlives the process holds these bytes.
    #[test]
    fn the_format_is_pinned() {
        let body = BodyDigest::from_bits(0x0a0b_0c0d);
        let (lease, seen) = (values(1).lease(Key(5), RELAY, LEASE), values(1).seen(Key(5), TTL, 3, body));
        assert_eq!(hex(&lease[..26]), "4c0101020304050607080000000000000009000000000000ea60");
        assert_eq!(hex(&seen[..18]), "530100000000000927c0000000030a0b0c0d");
        assert_eq!((lease.len(), seen.len()), (34, 26));
        assert_eq!(values(1).read(Key(5), &lease), Value::Leased(RELAY, LEASE));
        assert_eq!(values(1).read(Key(5), &seen), Value::Seen { ttl: TTL, generation: 3, body });
    }

    /// By a stranger who may write to Redis, by a fault of its memory, or by a copy of another id's value.
    #[test]
    fn a_value_that_was_changed_is_strange() {
        let seen = values(1).seen(Key(5), TTL, 0, BodyDigest::UNKNOWN);
        for bit in 0..seen.len() * 8 {
            let mut damaged = seen.clone();
            damaged[bit / 8] ^= 1 << (bit % 8);
            assert_eq!(values(1).read(Key(5), &damaged), Value::Strange, "bit {bit}");
        }
        for len in 0..seen.len() {
            assert_eq!(values(1).read(Key(5), &seen[..len]), Value::Strange, "{len} octets");
        }
        assert_eq!(values(1).read(Key(6), &seen), Value::Strange);
        assert_eq!(values(2).read(Key(5), &seen), Value::Strange);
    }

    #[test]
    fn times_are_rounded_up_and_have_an_end() {
        assert_eq!(millis(Duration::from_nanos(1)), 1);
        assert_eq!(millis(Duration::MAX), 100 * 365 * 86_400_000);
    }
}
