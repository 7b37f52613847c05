//! The claim of a publish on its window, the question that it asks, and how it ends.

use super::{Key, Memo, ProducerKey, Ticket, Turn};

/// A claim of a publish on its window: "nobody has published this before".
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub enum Claim {
    /// An id, as its keyed digest.
    Digest(Key),
    /// A number that a producer has counted (`id = "sequence"`).
    Sequence {
        /// whose number it is
        producer: ProducerKey,
        /// the count of the producer's starts, or any other number that only grows
        epoch: u64,
        /// the number
        number: u64,
    },
}

const _: () = assert!(size_of::<Claim>() == 2 * size_of::<Key>());

impl Claim {
    /// Returns what the claim is in flight under: the digest, or a key that only this number of this producer and epoch has. (Two
    /// numbers of one producer never have the same. For two producers it would be a collision of their digests, which have a secret.)
    #[inline]
    pub fn key(self) -> Key {
        match self {
            Claim::Digest(key) => key,
            Claim::Sequence { producer, epoch, number } => {
                Key(producer.key().0 ^ (u128::from(epoch) << 64 | u128::from(number)))
            }
        }
    }

    /// Returns what takes a place in the window when the claim is seen: the digest, or the producer.
    #[inline]
    pub fn owner(self) -> Key {
        match self {
            Claim::Digest(key) => key,
            Claim::Sequence { producer, .. } => producer.key(),
        }
    }

    /// Returns true if it is a number of this producer.
    #[inline]
    pub(super) fn is_of(self, producer: ProducerKey) -> bool {
        matches!(self, Claim::Sequence { producer: whose, .. } if whose == producer)
    }
}

impl From<Key> for Claim {
    fn from(key: Key) -> Claim {
        Claim::Digest(key)
    }
}

/// One question to a window: is this claim fresh?
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Ask {
    /// what is claimed
    pub claim: Claim,
    /// the name under which a late verdict comes to the mailbox
    pub ticket: Ticket,
}

/// One commit: the message of a reservation is stored.
#[derive(Clone, Copy, Debug)]
pub struct Commit {
    /// what the reservation holds
    pub claim: Claim,
    /// which reservation of this claim it is
    pub turn: Turn,
    /// what the window is to remember
    pub memo: Memo,
}
