//! A publish that was forwarded and whose outcome is not known: it owns its reservation until it is.

use super::confirms::ClientTag;
use super::returns::{ReturnKey, Shows};
use super::rights::Right;
use crate::window::{BodyDigest, ForgetCause, InDoubt, Memo, Reservation};
use std::time::Instant;

/// The upstream's answer to a publish, which alone does not say whether it was stored: see [`Entry::stored`].
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Outcome {
    /// stored or consumed, unless the message was returned before
    Acked,
    /// refused
    Nacked,
}

/// The one who hears of a return.
#[derive(PartialEq, Eq, Debug)]
pub(super) enum Hears {
    /// The client. Its return names the exchange that the client had named, if that was another one.
    Client(Option<Box<[u8]>>),
    /// Nobody, because only Hapax had asked for it.
    Nobody,
    /// The client, because the return is of no publish that is known.
    Unknown,
}

impl Hears {
    /// Returns who hears of a return that may be of publishes at two places. If it may be one that the client has asked for, the
    /// client does.
    pub(super) fn or(self, other: Hears) -> Hears {
        match (self, other) {
            (client @ Hears::Client(_), _) | (_, client @ Hears::Client(_)) => client,
            (Hears::Nobody, _) | (_, Hears::Nobody) => Hears::Nobody,
            (Hears::Unknown, Hears::Unknown) => Hears::Unknown,
        }
    }
}

const _: () = assert!(size_of::<Option<(Reservation, Memo)>>() == 72);

/// A forwarded publish without an outcome. Dropping it forgets the id, and counts it as in doubt. Only [`Entry::in_doubt`] asks the
/// window's rule, which may be to keep the id.
#[derive(Debug)]
pub(super) struct Entry {
    /// the client's tag, where it uses confirms
    pub(super) client: Option<ClientTag>,
    /// the reservation, and the facts that its commit tells the window
    pub(super) reservation: Option<(Reservation, Memo)>,
    /// when the publish was forwarded
    pub(super) since: Instant,
    /// the right that its outcome proves, where it is not proven already
    pub(super) right: Option<Right>,
    /// The facts for its return, if it is known by its header.
    pub(super) mandatory: Option<Box<Mandatory>>,
    /// Whether Hapax has set the mandatory bit, where it is known by its claim.
    pub(super) verified: Verified,
}

/// Whether Hapax verifies that a queue has taken a publish, for which nobody else has asked.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Verified {
    /// It does not, or by [`Mandatory`].
    No,
    /// It has set the mandatory bit.
    Yes,
    /// The publish came back: an ack that follows does not mean stored.
    Returned,
}

/// The part of an entry that only a publish has whose return is known by its header.
#[derive(Debug)]
pub(super) struct Mandatory {
    /// what a return would show of it
    pub(super) key: ReturnKey,
    /// The client has set the mandatory bit. Otherwise only Hapax has.
    pub(super) asked: bool,
    /// it came back: an ack that follows does not mean stored
    pub(super) returned: bool,
    /// the exchange that the client named, where it was forwarded to another
    pub(super) named: Option<Box<[u8]>>,
}

impl Mandatory {
    /// Makes the part of a publish that may be returned.
    pub(super) fn new(key: ReturnKey, asked: bool, named: Option<Box<[u8]>>) -> Box<Mandatory> {
        Box::new(Mandatory { key, asked, returned: false, named })
    }
}

impl Entry {
    /// Returns the reservation that an ack will commit.
    pub(super) fn reserved(&self) -> Option<&Reservation> {
        self.reservation.as_ref().map(|(reservation, _)| reservation)
    }

    /// Marks the publish as returned. It may be only one of those that a return can mean.
    pub(super) fn came_back(&mut self) {
        if let Some(mandatory) = &mut self.mandatory {
            mandatory.returned = true;
        }
        if self.verified == Verified::Yes {
            self.verified = Verified::Returned;
        }
    }

    /// Marks the publish as returned if its body is another one than this: one that looks like it, with this body, counts as returned.
    pub(super) fn may_have_come_back(&mut self, body: BodyDigest) {
        if self.body().differs(body) {
            self.came_back();
        }
    }

    /// Returns the digest of its body, if a window has judged it.
    pub(super) fn body(&self) -> BodyDigest {
        self.reservation.as_ref().map_or(BodyDigest::UNKNOWN, |(_, memo)| memo.body())
    }

    /// Returns how a return would show it.
    #[inline]
    pub(super) fn shows(&self) -> Option<Shows> {
        if let Some(Mandatory { key, asked, .. }) = self.mandatory.as_deref() {
            return Some(Shows::Header { key: *key, asked: *asked });
        }
        self.return_key().map(Shows::Claim)
    }

    /// Returns what a return would show, if it is known by its claim.
    #[inline]
    pub(super) fn return_key(&self) -> Option<ReturnKey> {
        match (self.verified, self.right, self.reserved()) {
            (Verified::Yes | Verified::Returned, Some(right), Some(reservation)) => {
                Some(ReturnKey::of_claim(right, reservation.claim()))
            }
            _ => None,
        }
    }

    /// Takes the exchange that the client named, if it was forwarded to another.
    pub(super) fn take_named(&mut self) -> Option<Box<[u8]>> {
        self.mandatory.as_mut()?.named.take()
    }

    /// Returns true if it came back.
    pub(super) fn is_returned(&self) -> bool {
        self.returned_as().is_some()
    }

    /// Returns the cause for which its id is forgotten, if it came back.
    #[inline]
    fn returned_as(&self) -> Option<ForgetCause> {
        match self.mandatory.as_deref() {
            Some(Mandatory { returned: true, asked, .. }) => {
                Some(if *asked { ForgetCause::Returned } else { ForgetCause::Unroutable })
            }
            _ => (self.verified == Verified::Returned).then_some(ForgetCause::Unroutable),
        }
    }

    /// Handles that the upstream has acked or committed it. Returns the reservation that is to be committed. If it was
    /// returned, it is not stored, and its id is forgotten.
    #[inline]
    pub(super) fn stored(self) -> Option<(Reservation, Memo)> {
        let returned = self.returned_as();
        let (reservation, memo) = self.reservation?;
        if let Some(cause) = returned {
            reservation.forget(cause);
            return None;
        }
        Some((reservation, memo))
    }

    /// Gives the reservation back, because the message was not stored.
    pub(super) fn forget(self, cause: ForgetCause) {
        if let Some((reservation, _)) = self.reservation {
            reservation.forget(cause);
        }
    }

    /// Gives the reservation back, because its channel or connection ended before the outcome was known. The window's own rule
    /// says what that means.
    pub(super) fn in_doubt(self, now: Instant) {
        let returned = self.is_returned();
        if let Some((reservation, memo)) = self.reservation {
            let rule = reservation.window().map(|window| window.rules().in_doubt).unwrap_or_default();
            match rule {
                InDoubt::Keep if !returned => reservation.commit_in_doubt(now, memo),
                InDoubt::Keep | InDoubt::Forget => reservation.forget(ForgetCause::InDoubt),
            }
        }
    }
}
