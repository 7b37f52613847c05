//! Keys: a 96-bit keyed digest of (scope, id), and the hash that the tables use for them. The other 32 bits of the place of a key hold
//! the digest of the message's body in an engine (ADR 26).
//!
//! A publisher chooses its ids, so the digest is keyed: without the secret nobody can look for two ids that collide,
//! nor for many that fall into one bucket. That is why the tables can do with a multiplication for a hash.

use super::{ProducerKey, Quota, Tenant};
use crate::wire::Death;
use crate::wire::properties::{IdValue, feed_parts};
use siphasher::sip128::{Hasher128, SipHasher13, SipHasher24};
use std::fmt;
use std::hash::{BuildHasher, BuildHasherDefault, Hasher, RandomState};

/// The keyed digest of scope and id, which a window compares. Without the secret nobody can choose ids that collide.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Key(pub u128);

impl Key {
    /// The bits of a key that is made of an id. The others are zero.
    pub const BITS: u32 = 96;
    /// The bits of a key that may be set.
    pub const MASK: u128 = (1 << Key::BITS) - 1;

    /// The octets of a key where it is written.
    pub const OCTETS: usize = Key::BITS as usize / 8;

    /// Returns the key as it is written: little endian.
    pub fn octets(self) -> [u8; Key::OCTETS] {
        self.0.to_le_bytes().first_chunk().copied().unwrap_or_default()
    }

    /// Reads a key that was written.
    pub fn of_octets(octets: [u8; Key::OCTETS]) -> Key {
        let mut wide = [0; 16];
        wide.iter_mut().zip(octets).for_each(|(to, from)| *to = from);
        Key(u128::from_le_bytes(wide))
    }

    /// The number of locks that keys are divided among, by [`Key::shard`]. Keys with the same shard number have the same lock. An engine
    /// has no more shards than this, so keys with one lock in the window have one lock in the engine, too.
    pub(crate) const LOCKS: usize = 16;

    /// Returns 64 bits that spread well even over keys that were made by counting, as in tests.
    #[expect(clippy::cast_possible_truncation, reason = "the two halves are meant")]
    pub(crate) fn spread(self) -> u64 {
        let halves = (self.0 >> 64) as u64 ^ self.0 as u64;
        let product = u128::from(halves) * 0x9e37_79b9_7f4a_7c15;
        (product >> 64) as u64 ^ product as u64
    }

    /// Returns which of `count` shards (a power of two, at most 256) the key belongs to. Its bits are neither those that a hash table
    /// takes its bucket from (the lowest) nor those that it tags the bucket with (the highest seven).
    pub(crate) fn shard(self, count: usize) -> usize {
        Key::shard_of(self.spread(), count)
    }

    /// Does the same from the spread of a key.
    pub(crate) fn shard_of(spread: u64, count: usize) -> usize {
        ((spread >> 48) & 0xff) as usize & (count - 1)
    }
}

impl fmt::Debug for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:032x}", self.0)
    }
}

/// Hashes [`Key`]s for hash tables, see [`Key::spread`].
pub(super) type KeyHash = BuildHasherDefault<KeyHasher>;

/// The hasher of [`KeyHash`]: the hash of a key is its spread.
#[derive(Default, Clone)]
pub(super) struct KeyHasher(u64);

impl Hasher for KeyHasher {
    fn write_u128(&mut self, key: u128) {
        self.0 = Key(key).spread();
    }

    /// Hashes other bytes. Keys never get here.
    fn write(&mut self, bytes: &[u8]) {
        for byte in bytes {
            self.0 = (self.0 ^ u64::from(*byte)).wrapping_mul(0x0000_0100_0000_01b3);
        }
    }

    fn finish(&self) -> u64 {
        self.0
    }
}

/// The scope within which an id is unique. It is never larger than a vhost.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, serde::Deserialize, serde::Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Scope {
    /// vhost, exchange and routing key (the default: two queues by the default exchange are two scopes)
    #[default]
    RoutingKey,
    /// vhost and exchange
    Exchange,
    /// vhost
    Vhost,
}

/// Makes keys. There is one for each process. Without a secret that is given, each start draws a new one.
#[derive(Clone)]
pub struct KeyMaker {
    secret: (u64, u64),
}

impl KeyMaker {
    /// A maker with this secret, for tests.
    pub fn new(secret: (u64, u64)) -> KeyMaker {
        KeyMaker { secret }
    }

    /// A maker with a secret that is given, for stores that outlive the process or that several processes share. The same
    /// secret makes the same keys. It is condensed to 128 bits; less than 16 bytes can be guessed.
    pub fn of_secret(secret: &[u8]) -> KeyMaker {
        let mut digest = SipHasher13::new();
        digest.write(secret);
        let digest = digest.finish128();
        KeyMaker { secret: (digest.h1, digest.h2) }
    }

    /// With a secret from the operating system, by way of the standard library's hash map seed.
    pub fn random() -> KeyMaker {
        let seed = RandomState::new();
        KeyMaker { secret: (seed.hash_one(0_u8), seed.hash_one(1_u8)) }
    }

    /// Returns a keyed digest of these bytes. Nobody can make it without the secret. Its function is another one than that of the keys.
    pub fn seal(&self, bytes: &[u8]) -> [u8; 16] {
        let mut digest = SipHasher24::new_with_keys(self.secret.0, self.secret.1);
        digest.write(bytes);
        digest.finish128().as_u128().to_le_bytes()
    }

    /// Returns the tenant of publishes of this user to this exchange of this vhost. A user whose name is not known belongs to
    /// the common one.
    pub fn tenant(&self, quota: Quota, vhost: &[u8], user: Option<&[u8]>, exchange: &[u8]) -> Tenant {
        let (vhost, name) = match (quota, user) {
            (Quota::None, _) | (Quota::User, None) => return Tenant::COMMON,
            (Quota::Vhost, _) => (vhost, &[][..]),
            (Quota::User, Some(user)) => (&[][..], user),
            (Quota::Exchange, _) => (vhost, exchange),
        };
        let len = (vhost.len() as u64).to_le_bytes();
        let bytes = [b"tenant ", quota.name().as_bytes(), b"\0", &len[..], vhost, name].concat();
        Tenant::of_digest(self.seal(&bytes))
    }

    /// SipHash-1-3-128 over the parts of the scope and the id, each with its kind and its length before it: no two
    /// lists of parts give the same bytes. The digest does not depend on the machine's byte order.
    pub fn key(
        &self,
        scope: Scope,
        vhost: &[u8],
        exchange: &[u8],
        routing_key: &[u8],
        id: &IdValue<'_>,
    ) -> Key {
        self.scoped(scope, vhost, exchange, routing_key).key(id)
    }

    /// Digests everything but the id, for a caller that has many ids of the same scope.
    pub fn scoped(&self, scope: Scope, vhost: &[u8], exchange: &[u8], routing_key: &[u8]) -> Scoped {
        let mut digest = Digest(SipHasher13::new_with_keys(self.secret.0, self.secret.1));
        match scope {
            Scope::RoutingKey => {
                digest.tag(b'r');
                digest.part(vhost);
                digest.part(exchange);
                digest.part(routing_key);
            }
            Scope::Exchange => {
                digest.tag(b'e');
                digest.part(vhost);
                digest.part(exchange);
            }
            Scope::Vhost => {
                digest.tag(b'v');
                digest.part(vhost);
            }
        }
        Scoped(digest)
    }

    /// Digests everything but the id, for ids that are unique within a queue.
    pub fn scoped_to_queue(&self, vhost: &[u8], queue: &[u8]) -> Scoped {
        let mut digest = Digest(SipHasher13::new_with_keys(self.secret.0, self.secret.1));
        digest.tag(b'q');
        digest.part(vhost);
        digest.part(queue);
        Scoped(digest)
    }
}

impl fmt::Debug for KeyMaker {
    /// The secret stays one.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("KeyMaker").finish_non_exhaustive()
    }
}

/// A digest that has come as far as its scope, see [`KeyMaker::scoped`]. 64 bytes.
#[derive(Clone, Copy)]
pub struct Scoped(Digest);

impl Scoped {
    /// The key of this id.
    pub fn key(&self, id: &IdValue<'_>) -> Key {
        let Scoped(mut digest) = *self;
        id.feed(&mut |kind, bytes| digest.tagged(kind, bytes));
        digest.key()
    }

    /// Returns the key by which a window knows the producer of this name.
    pub fn producer(&self, name: &[u8]) -> ProducerKey {
        let Scoped(mut digest) = *self;
        digest.tagged(b'q', name);
        ProducerKey::new(digest.key())
    }

    /// The scope of one number of one epoch of a producer.
    #[must_use]
    pub fn with_number(&self, epoch: u64, number: u64) -> Scoped {
        let Scoped(mut digest) = *self;
        digest.tagged(b's', &epoch.to_le_bytes());
        digest.part(&number.to_le_bytes());
        Scoped(digest)
    }

    /// The key of an id that has several parts. An absent part is another one than an empty part.
    pub fn key_of_parts<'a>(&self, parts: impl ExactSizeIterator<Item = Option<IdValue<'a>>>) -> Key {
        let Scoped(mut digest) = *self;
        feed_parts(parts, &mut |kind, bytes| digest.tagged(kind, bytes));
        digest.key()
    }

    /// The scope of messages that have these routing keys, too (sorted, each once). `owner`: whose ids they are; empty if they are
    /// common to all who may publish there.
    #[must_use]
    pub fn with_extra_keys(&self, owner: &[u8], keys: &[&[u8]]) -> Scoped {
        let Scoped(mut digest) = *self;
        digest.tagged(b'k', owner);
        digest.tagged(b'n', &(keys.len() as u64).to_le_bytes());
        keys.iter().for_each(|key| digest.part(key));
        Scoped(digest)
    }

    /// The scope of the incarnations of messages that came to be by this death.
    #[must_use]
    pub fn with_death(&self, death: &Death<'_>) -> Scoped {
        let Scoped(mut digest) = *self;
        let Death { queue, reason, count, time, exchange, routing_keys } = death;
        digest.tagged(b'd', queue);
        digest.part(reason);
        feed_parts([*count, *time, *exchange, *routing_keys].into_iter(), &mut |kind, bytes| {
            digest.tagged(kind, bytes);
        });
        Scoped(digest)
    }
}

impl fmt::Debug for Scoped {
    /// The secret stays one.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Scoped").finish_non_exhaustive()
    }
}

/// The octets of a tag and a length.
const HEAD: usize = 9;
/// Values of up to this many octets, as nearly all ids are, are copied behind their tag and length.
const SHORT: usize = 64;

#[derive(Clone, Copy)]
struct Digest(SipHasher13);

impl Digest {
    /// The key that it makes.
    fn key(&self) -> Key {
        Key(self.0.finish128().as_u128() & Key::MASK)
    }

    fn tag(&mut self, tag: u8) {
        self.0.write(&[tag]);
    }

    fn part(&mut self, bytes: &[u8]) {
        self.0.write(&(bytes.len() as u64).to_le_bytes());
        self.0.write(bytes);
    }

    /// The same as a tag and a part, in fewer pieces: each piece has a price of its own.
    #[inline]
    fn tagged(&mut self, tag: u8, bytes: &[u8]) {
        let mut piece = [tag; HEAD + SHORT];
        let (head, rest) = piece.split_at_mut(HEAD);
        if let Some(len) = head.last_chunk_mut() {
            *len = (bytes.len() as u64).to_le_bytes();
        }
        match rest.get_mut(..bytes.len()) {
            Some(short) => {
                short.copy_from_slice(bytes);
                self.0.write(piece.get(..HEAD + bytes.len()).unwrap_or_default());
            }
            None => {
                self.0.write(head);
                self.0.write(bytes);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::HashSet;

    fn key(scope: Scope, parts: [&str; 3], id: IdValue<'_>) -> Key {
        let [vhost, exchange, routing_key] = parts.map(str::as_bytes);
        KeyMaker::new((1, 2)).key(scope, vhost, exchange, routing_key, &id)
    }

    #[test]
    fn what_differs_in_any_part_has_another_key() {
        let id = IdValue::Bytes(b"a");
        let keys = [
            key(Scope::RoutingKey, ["v", "e", "r"], id),
            key(Scope::RoutingKey, ["v", "er", ""], id),
            key(Scope::RoutingKey, ["v", "", "er"], id),
            key(Scope::RoutingKey, ["ve", "", "r"], id),
            key(Scope::RoutingKey, ["v", "e", ""], IdValue::Bytes(b"ra")),
            key(Scope::Exchange, ["v", "e", "r"], id),
            key(Scope::Vhost, ["v", "e", "r"], id),
            key(Scope::RoutingKey, ["v", "e", "r"], IdValue::Integer(97)),
            key(Scope::RoutingKey, ["v", "e", "r"], IdValue::Integer(-97)),
            key(Scope::RoutingKey, ["v", "e", "r"], IdValue::Bytes(&97_i128.to_le_bytes())),
            key(Scope::RoutingKey, ["v", "e", "r"], IdValue::Other(b'd', b"a")),
            key(Scope::RoutingKey, ["v", "e", "r"], IdValue::Other(b'f', b"a")),
            key(Scope::RoutingKey, ["v", "e", "r"], IdValue::Bytes(b"da")),
            KeyMaker::new((1, 3)).key(Scope::RoutingKey, b"v", b"e", b"r", &id),
        ];
        assert_eq!(keys.iter().collect::<HashSet<_>>().len(), keys.len());
    }

    #[test]
    fn what_is_outside_of_the_scope_does_not_count() {
        let id = IdValue::Bytes(b"a");
        assert_eq!(key(Scope::Exchange, ["v", "e", "r"], id), key(Scope::Exchange, ["v", "e", "s"], id));
        assert_eq!(key(Scope::Vhost, ["v", "e", "r"], id), key(Scope::Vhost, ["v", "f", "s"], id));
    }

    #[test]
    fn parts_extra_keys_and_deaths_make_other_keys() {
        let scoped = KeyMaker::new((1, 2)).scoped(Scope::RoutingKey, b"v", b"e", b"r");
        let (a, empty) = (IdValue::Bytes(b"a"), IdValue::Bytes(b""));
        let death = Death {
            queue: b"q",
            reason: b"r",
            count: Some(IdValue::Integer(1)),
            time: Some(IdValue::Integer(2)),
            exchange: None,
            routing_keys: None,
        };
        let died = |death: Death<'_>| scoped.with_death(&death).key(&a);
        let keys = [
            scoped.key(&a),
            scoped.key_of_parts([Some(a)].into_iter()),
            scoped.key_of_parts([Some(a), None].into_iter()),
            scoped.key_of_parts([Some(a), Some(empty)].into_iter()),
            scoped.key_of_parts([None, Some(a)].into_iter()),
            scoped.with_extra_keys(b"", &[b"a"]).key(&a),
            scoped.with_extra_keys(b"", &[b"a", b"b"]).key(&a),
            scoped.with_extra_keys(b"", &[b"ab"]).key(&a),
            scoped.with_extra_keys(b"user", &[b"a"]).key(&a),
            scoped.with_extra_keys(b"", &[b"a"]).with_death(&death).key(&a),
            died(death),
            died(Death { queue: b"p", ..death }),
            died(Death { reason: b"s", ..death }),
            died(Death { count: Some(IdValue::Integer(2)), ..death }),
            died(Death { count: None, ..death }),
            died(Death { time: Some(IdValue::Integer(3)), ..death }),
            died(Death { exchange: Some(empty), ..death }),
            died(Death { routing_keys: Some(empty), ..death }),
            scoped.producer(b"a").key(),
            scoped.with_number(1, 2).producer(b"a").key(),
            scoped.with_number(2, 1).producer(b"a").key(),
            scoped.with_number(1, 3).producer(b"a").key(),
            KeyMaker::new((1, 2)).scoped_to_queue(b"v", b"er").key(&a),
            KeyMaker::new((1, 2)).scoped_to_queue(b"v", b"r").key(&a),
            KeyMaker::new((1, 2)).scoped_to_queue(b"w", b"r").key(&a),
        ];
        assert_eq!(keys.iter().collect::<HashSet<_>>().len(), keys.len());
    }

    /// A store that outlives the process holds these digests: they may not change by accident.
    #[test]
    fn the_digest_is_pinned() {
        let pinned = key(Scope::RoutingKey, ["/", "orders", "new"], IdValue::Bytes(b"order-1"));
        assert_eq!(format!("{pinned:?}"), "00000000960622b246923415e698f89a");
    }

    /// A store that outlives the process relies on it.
    #[test]
    fn a_given_secret_makes_the_same_keys_in_every_process() {
        let key = |secret: &[u8]| {
            KeyMaker::of_secret(secret).key(Scope::Vhost, b"/", b"", b"", &IdValue::Bytes(b"order-1"))
        };
        assert_eq!(key(b"0123456789abcdef"), key(b"0123456789abcdef"));
        assert_ne!(key(b"0123456789abcdef"), key(b"0123456789abcdeg"));
        assert_ne!(key(b"0123456789abcdef"), key(b"0123456789abcdef0"));
        assert_eq!(format!("{:?}", key(b"0123456789abcdef")), "000000001efb8f263df0b446b10981b7");
    }

    #[test]
    fn two_processes_have_two_secrets_and_do_not_tell() {
        let (one, two) = (KeyMaker::random(), KeyMaker::random());
        assert_ne!(one.secret, two.secret);
        assert_eq!(format!("{one:?}"), "KeyMaker { .. }");
    }

    #[test]
    fn scopes_are_read_as_the_configuration_writes_them() {
        #[derive(serde::Deserialize)]
        struct Holder {
            scope: Scope,
        }
        for (text, scope) in
            [("routing-key", Scope::RoutingKey), ("exchange", Scope::Exchange), ("vhost", Scope::Vhost)]
        {
            assert_eq!(
                serde_json::from_str::<Holder>(&format!("{{\"scope\": \"{text}\"}}")).unwrap().scope,
                scope
            );
        }
        assert_eq!(Scope::default(), Scope::RoutingKey);
    }

    #[test]
    fn counted_keys_spread_over_shards() {
        let mut shards = [0_u32; 16];
        for n in 0..16_000_u128 {
            shards[Key(n).shard(16)] += 1;
        }
        assert!(shards.iter().all(|n| (800..1200).contains(n)), "{shards:?}");
    }
}
