//! The digest of a message's body, and what a commit tells the window beside the claim.
//!
//! A window remembers 32 bits of the body of each message that was stored. When the id comes again with other bytes, that is a
//! *conflict*: somebody has used an id twice. Equal bodies never conflict. One conflict in 2^32 is missed.
//!
//! The digest is the lower half of XXH3-64. It does not depend on how the body is cut into frames. It has no secret: the only one who
//! could make two bodies of one digest is the publisher, and it would hide its own conflict, nobody else's.

use super::Tenant;
use super::engine::Stamp;
use std::hash::Hasher as _;
use std::time::Duration;
use twox_hash::xxhash3_64::{DEFAULT_SECRET_LENGTH, RawHasher, SecretBuffer};

/// 32 bits of the digest of a body, or [`BodyDigest::UNKNOWN`].
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, Default)]
pub struct BodyDigest(u32);

impl BodyDigest {
    /// The digest of a body that nobody has seen whole. It differs from none.
    pub const UNKNOWN: BodyDigest = BodyDigest(0);

    /// Returns the digest of this body.
    #[inline]
    pub fn of(body: &[u8]) -> BodyDigest {
        BodyDigest::folded(twox_hash::XxHash3_64::oneshot(body))
    }

    /// Makes it of the bits that a store has kept.
    pub const fn from_bits(bits: u32) -> BodyDigest {
        BodyDigest(bits)
    }

    /// Returns its bits: 0 for an unknown one.
    pub const fn bits(self) -> u32 {
        self.0
    }

    /// Returns true if it is the digest of a body.
    #[inline]
    pub fn is_known(self) -> bool {
        self != BodyDigest::UNKNOWN
    }

    /// Returns true if the two bodies are certainly not the same.
    #[inline]
    pub fn differs(self, other: BodyDigest) -> bool {
        self.is_known() && other.is_known() && self != other
    }

    /// The value that means "unknown" becomes 1.
    #[expect(clippy::cast_possible_truncation, reason = "the lower half is meant")]
    fn folded(hash: u64) -> BodyDigest {
        BodyDigest((hash as u32).max(1))
    }
}

/// Digests a body that comes in pieces. 400 bytes.
pub struct BodyHasher(RawHasher<&'static [u8; DEFAULT_SECRET_LENGTH]>);

impl BodyHasher {
    /// Creates a hasher that has seen nothing yet.
    #[expect(clippy::new_without_default, reason = "there is one way to get one")]
    pub fn new() -> BodyHasher {
        BodyHasher(RawHasher::new(SecretBuffer::default()))
    }

    /// Takes the next piece of the body.
    pub fn write(&mut self, piece: &[u8]) {
        self.0.write(piece);
    }

    /// Returns the digest of all pieces.
    pub fn finish(&self) -> BodyDigest {
        BodyDigest::folded(self.0.finish())
    }
}

impl std::fmt::Debug for BodyHasher {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("BodyHasher").finish_non_exhaustive()
    }
}

/// The things that a commit tells the window beside the claim: for how long it is remembered, the digest of its body, and
/// whose it is.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Memo {
    /// In nanoseconds, 584 years at most: a window's clock ends there, too.
    ttl: u64,
    body: BodyDigest,
    tenant: Tenant,
    mark: Mark,
}

/// A byte with one value. An `Option` around it is marked in the others, so that a ledger's entry does not grow.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[repr(u8)]
enum Mark {
    Present,
}

const _: () = assert!(size_of::<Memo>() == 16 && size_of::<Option<Memo>>() == 16);

impl Memo {
    /// Makes a memo of an id of the common tenant.
    #[inline]
    pub fn new(ttl: Duration, body: BodyDigest) -> Memo {
        let Stamp(ttl) = Stamp(0).after(ttl);
        Memo { ttl, body, tenant: Tenant::COMMON, mark: Mark::Present }
    }

    /// Returns for how long the claim is remembered.
    pub fn ttl(&self) -> Duration {
        Duration::from_nanos(self.ttl)
    }

    /// Returns until when a claim is remembered that is committed now.
    #[inline]
    pub fn until(&self, now: Stamp) -> Stamp {
        Stamp(now.0.saturating_add(self.ttl))
    }

    /// The same, of an id of this tenant.
    #[inline]
    #[must_use]
    pub fn of_tenant(self, tenant: Tenant) -> Memo {
        Memo { tenant, ..self }
    }

    /// Returns whose the id is.
    #[inline]
    pub fn tenant(&self) -> Tenant {
        self.tenant
    }

    /// Returns the digest of the body.
    pub fn body(&self) -> BodyDigest {
        self.body
    }

    /// Sets the digest: the body is whole by now.
    pub fn set_body(&mut self, body: BodyDigest) {
        self.body = body;
    }
}

impl From<Duration> for Memo {
    /// The body is not known.
    fn from(ttl: Duration) -> Memo {
        Memo::new(ttl, BodyDigest::UNKNOWN)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        /// However a body is cut into pieces, its digest is that of the whole.
        #[test]
        fn the_digest_does_not_depend_on_the_frames(
            body in prop::collection::vec(any::<u8>(), 0..5_000),
            cuts in prop::collection::vec(1..1_500_usize, 1..20),
        ) {
            let (mut hasher, mut rest, mut cuts) = (BodyHasher::new(), &body[..], cuts.iter().cycle());
            while !rest.is_empty() {
                let (piece, behind) = rest.split_at((*cuts.next().unwrap()).min(rest.len()));
                hasher.write(piece);
                rest = behind;
            }
            prop_assert_eq!(hasher.finish(), BodyDigest::of(&body));
            prop_assert!(!hasher.finish().differs(BodyDigest::of(&body)) && hasher.finish().is_known());
        }
    }

    /// A store that outlives the process holds these digests.
    #[test]
    fn the_digest_is_pinned() {
        let bits = [&b""[..], b"order 1", &[7; 1_000]].map(|body| BodyDigest::of(body).bits());
        assert_eq!(bits, [0x38d3_94c2, 0x58f0_9c02, 0x3954_51ea]);
    }

    #[test]
    fn an_unknown_body_differs_from_none() {
        let (one, other) = (BodyDigest::of(b"one"), BodyDigest::of(b"other"));
        assert!(one.differs(other) && !one.differs(one));
        assert!(!one.differs(BodyDigest::UNKNOWN) && !BodyDigest::UNKNOWN.differs(one));
        assert_eq!(BodyDigest::folded(7 << 32), BodyDigest::from_bits(1));
    }

    #[test]
    fn a_memo_keeps_a_ttl_of_any_length() {
        for ttl in [Duration::ZERO, Duration::from_nanos(1), Duration::from_secs(1 << 32)] {
            assert_eq!(Memo::from(ttl).ttl(), ttl);
            assert_eq!(Memo::from(ttl).until(Stamp(5)), Stamp(5).after(ttl));
        }
        assert_eq!(Memo::from(Duration::MAX).until(Stamp(5)), Stamp(u64::MAX));
    }
}
