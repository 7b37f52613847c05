//! The claim of a publish on its window, the question that it asks, and how it ends.

use super::{Key, Memo, Ticket, Turn};

/// A claim of a publish on its window: "nobody has published this before".
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub enum Claim {
    /// An id, as its keyed digest.
    Digest(Key),
}

const _: () = assert!(size_of::<Claim>() == size_of::<Key>());

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
