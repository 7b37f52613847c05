//! The part of a window that remembers: ids, in an engine, or the numbers of producers.

use super::engine::{Engine, EngineKind, Entry, Gone, Stamp, Store};
use super::producers::{Admission, Leaving, Producers, Refusal};
use super::{BodyDigest, Claim, Key, Mode, Rules, Tenant};
use crate::wire::IdSource;

/// The memory of a window. The caller holds the lock of the claim in the table of flights.
#[derive(Debug)]
#[expect(
    clippy::large_enum_variant,
    reason = "there is one for each window, behind an `Arc`; a box would be one more cache miss"
)]
pub(super) enum Memory {
    /// ids
    Ids(Store),
    /// the numbers of producers; they are neither compared by their bodies nor divided among tenants
    Numbers(Producers),
}

/// The answer to a claim that is not in flight.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Admitted {
    /// It is not seen. These facts about its number are counted.
    Fresh(Leaving),
    /// It is seen, with this body.
    Seen(BodyDigest),
    /// It is not let through.
    Refused(Refusal),
}

impl Admitted {
    /// The answer to an id that is seen with this body, or not at all.
    #[inline]
    pub(super) fn of_id(seen: Option<BodyDigest>) -> Admitted {
        seen.map_or(Admitted::Fresh(Leaving::default()), Admitted::Seen)
    }
}

impl Memory {
    /// Makes an empty memory for at most `capacity` ids or producers.
    pub(super) fn new(rules: &Rules, engine: EngineKind, capacity: usize) -> Memory {
        match rules.id {
            IdSource::Sequence => Memory::Numbers(Producers::new(capacity, rules.numbering)),
            _ => Memory::Ids(engine.build(capacity, rules.quota.is_some())),
        }
    }

    /// Takes the mode of the window. A gap that is only observed is let through and remembered as any other number: the numbers behind it are
    /// no gaps, and none of them is one when the window is switched on.
    pub(super) fn set_mode(&self, mode: Mode) {
        if let Memory::Numbers(producers) = self {
            producers.set_observing(mode == Mode::Observe);
        }
    }

    /// Returns the store of ids; `None` if it has producers.
    pub(super) fn ids(&self) -> Option<&Store> {
        match self {
            Memory::Ids(ids) => Some(ids),
            Memory::Numbers(_) => None,
        }
    }

    /// Returns the producers; `None` if it has ids.
    pub(super) fn producers(&self) -> Option<&Producers> {
        match self {
            Memory::Ids(_) => None,
            Memory::Numbers(producers) => Some(producers),
        }
    }

    /// Judges a claim that is not in flight, and counts a duplicate. A fresh one is in flight from now on: [`Memory::release`] ends
    /// that.
    #[inline]
    pub(super) fn admit(&self, claim: Claim, now: Stamp, refresh: bool, gone: &mut impl Gone) -> Admitted {
        match (self, claim) {
            (Memory::Numbers(producers), Claim::Sequence { producer, epoch, number }) => {
                match producers.reserve(producer, (epoch, number), now, gone) {
                    Admission::Fresh(leaving) => Admitted::Fresh(leaving),
                    Admission::Stored => Admitted::Seen(BodyDigest::UNKNOWN),
                    Admission::Stale => Admitted::Refused(Refusal::Stale),
                    Admission::Gap => Admitted::Refused(Refusal::Gap),
                }
            }
            _ => Admitted::of_id(self.touch(claim, now, refresh, gone)),
        }
    }

    /// Returns the body of a claim that is seen, and counts a duplicate.
    #[inline]
    pub(super) fn touch(
        &self,
        claim: Claim,
        now: Stamp,
        refresh: bool,
        gone: &mut impl Gone,
    ) -> Option<BodyDigest> {
        match (self, claim) {
            (Memory::Ids(ids), claim) => ids.touch(claim.key(), now, refresh, gone),
            (Memory::Numbers(producers), Claim::Sequence { producer, epoch, number }) => {
                producers.touch(producer, (epoch, number), now).then_some(BodyDigest::UNKNOWN)
            }
            (Memory::Numbers(_), Claim::Digest(_)) => None,
        }
    }

    /// Returns the entry of a claim, expired or not. Changes nothing. The entry of a number is that of its producer.
    pub(super) fn peek(&self, claim: Claim) -> Option<Entry> {
        match (self, claim) {
            (Memory::Ids(ids), claim) => ids.peek(claim.key()),
            (Memory::Numbers(producers), Claim::Sequence { producer, epoch, number }) => {
                producers.peek(producer, (epoch, number))
            }
            (Memory::Numbers(_), Claim::Digest(_)) => None,
        }
    }

    /// Makes a claim seen. It must not be seen yet, unless it is a number.
    #[inline]
    pub(super) fn insert(
        &self,
        claim: Claim,
        entry: Entry,
        tenant: Tenant,
        now: Stamp,
        gone: &mut impl Gone,
    ) {
        match (self, claim) {
            (Memory::Ids(ids), claim) => ids.insert(claim.key(), entry, tenant, now, gone),
            (Memory::Numbers(producers), Claim::Sequence { producer, epoch, number }) => {
                producers.store(producer, (epoch, number), entry, now, gone);
            }
            (Memory::Numbers(_), Claim::Digest(_)) => {}
        }
    }

    /// Makes a claim unknown. Returns the entry that an id had, expired or not: it has left the memory.
    pub(super) fn remove(&self, claim: Claim) -> Removed {
        match (self, claim) {
            (Memory::Ids(ids), claim) => match ids.remove(claim.key()) {
                Some(entry) => Removed::Id(claim.key(), entry),
                None => Removed::Nothing,
            },
            (Memory::Numbers(producers), Claim::Sequence { producer, epoch, number }) => {
                match producers.unstore(producer, (epoch, number)) {
                    true => Removed::Number,
                    false => Removed::Nothing,
                }
            }
            (Memory::Numbers(_), Claim::Digest(_)) => Removed::Nothing,
        }
    }

    /// Notes that one more reservation of a claim exists, which [`Memory::admit`] has not let through.
    #[inline]
    pub(super) fn hold(&self, claim: Claim, now: Stamp, gone: &mut impl Gone) {
        if let (Memory::Numbers(producers), Claim::Sequence { producer, epoch, .. }) = (self, claim) {
            producers.hold(producer, epoch, now, gone);
        }
    }

    /// Notes that a reservation of a claim has its outcome. If it is stored, [`Memory::insert`] comes before.
    #[inline]
    pub(super) fn release(&self, claim: Claim) {
        if let (Memory::Numbers(producers), Claim::Sequence { producer, .. }) = (self, claim) {
            producers.release(producer);
        }
    }

    /// Returns true if the claim is of an epoch that is over.
    #[inline]
    pub(super) fn is_stale(&self, claim: Claim) -> bool {
        match (self, claim) {
            (Memory::Numbers(producers), Claim::Sequence { producer, epoch, .. }) => {
                producers.is_stale(producer, epoch)
            }
            _ => false,
        }
    }

    /// Makes everything unknown.
    pub(super) fn clear(&self, gone: &mut impl Gone) {
        match self {
            Memory::Ids(ids) => ids.clear(gone),
            Memory::Numbers(producers) => producers.clear(gone),
        }
    }

    /// Changes the capacity.
    pub(super) fn resize(&self, capacity: usize, gone: &mut impl Gone) {
        match self {
            Memory::Ids(ids) => ids.resize(capacity, gone),
            Memory::Numbers(producers) => producers.resize(capacity, gone),
        }
    }

    /// Removes what is expired and easy to find.
    pub(super) fn sweep(&self, now: Stamp, gone: &mut impl Gone) {
        match self {
            Memory::Ids(ids) => ids.sweep(now, gone),
            Memory::Numbers(producers) => producers.sweep(now, gone),
        }
    }

    /// Returns the number of ids or producers.
    pub(super) fn len(&self) -> usize {
        match self {
            Memory::Ids(ids) => ids.len(),
            Memory::Numbers(producers) => producers.len(),
        }
    }

    /// Returns how many there can be.
    pub(super) fn capacity(&self) -> usize {
        match self {
            Memory::Ids(ids) => ids.capacity(),
            Memory::Numbers(producers) => producers.capacity(),
        }
    }

    /// Estimates the bytes on the heap.
    pub(super) fn bytes(&self) -> usize {
        match self {
            Memory::Ids(ids) => ids.bytes(),
            Memory::Numbers(producers) => producers.bytes(),
        }
    }

    /// Estimates the bytes of one id or producer in a well-filled window.
    pub(super) fn bytes_per_entry(&self) -> f64 {
        match self {
            Memory::Ids(ids) => ids.bytes_per_entry(),
            Memory::Numbers(producers) => producers.bytes_per_producer(),
        }
    }

    /// Returns when the id or producer that has to make room next was seen last.
    pub(super) fn oldest(&self) -> Option<Stamp> {
        match self {
            Memory::Ids(ids) => ids.oldest(),
            Memory::Numbers(producers) => producers.oldest(),
        }
    }

    /// Returns the tenants, see [`Engine::tenants`].
    pub(super) fn tenants(&self) -> Vec<(Tenant, usize, u64)> {
        self.ids().map(Engine::tenants).unwrap_or_default()
    }

    /// Reads what a look-up of these keys will read, see [`Engine::warm`].
    #[inline]
    pub(super) fn warm(&self, keys: &[Key], insert: bool) {
        if let Memory::Ids(ids) = self {
            ids.warm(keys, insert);
        }
    }
}

/// The result of [`Memory::remove`].
#[derive(Clone, Copy, Debug)]
pub(super) enum Removed {
    /// The claim was not seen.
    Nothing,
    /// An id, with its entry.
    Id(Key, Entry),
    /// A number. Its producer stays.
    Number,
}

impl Removed {
    /// Returns true if the claim was seen.
    pub(super) fn was_seen(self) -> bool {
        !matches!(self, Removed::Nothing)
    }
}
