//! A publish that was forwarded and whose outcome is not known: it owns its reservation until it is.

use super::confirms::ClientTag;
use super::returns::ReturnKey;
use super::rights::Right;
use crate::window::{ForgetCause, InDoubt, Memo, Reservation};
use std::time::Instant;

/// The upstream's answer to a publish, which alone does not say whether it was stored: see [`Entry::stored`].
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Outcome {
    /// stored or consumed, unless the message was returned before
    Acked,
    /// refused
    Nacked,
}

const _: () = assert!(size_of::<Option<(Reservation, Memo)>>() == 56);

/// A forwarded publish without an outcome. Dropping it forgets the id, and counts it as in doubt. Only [`Entry::in_doubt`] asks the
/// window's rule, which may be to keep the id.
#[derive(Debug)]
pub(super) struct Entry {
    /// the client's tag, where it uses confirms
    pub(super) client: Option<ClientTag>,
    /// what is reserved, and what the window is told when it is committed
    pub(super) reservation: Option<(Reservation, Memo)>,
    /// when the publish was forwarded
    pub(super) since: Instant,
    /// the right that its outcome proves, where it is not proven already
    pub(super) right: Option<Right>,
    /// what its return would need, where it is mandatory
    pub(super) mandatory: Option<Box<Mandatory>>,
}

/// The part of an entry that only a publish has that may be returned.
#[derive(Debug)]
pub(super) struct Mandatory {
    /// what a return would show of it
    pub(super) key: ReturnKey,
    /// it came back: an ack that follows does not mean stored
    pub(super) returned: bool,
    /// the exchange that the client named, where it was forwarded to another
    pub(super) named: Option<Box<[u8]>>,
}

impl Mandatory {
    /// Makes the part of a publish that may be returned.
    pub(super) fn new(key: ReturnKey, named: Option<Box<[u8]>>) -> Box<Mandatory> {
        Box::new(Mandatory { key, returned: false, named })
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
    }

    /// Takes the exchange that the client named, if it was forwarded to another.
    pub(super) fn take_named(&mut self) -> Option<Box<[u8]>> {
        self.mandatory.as_mut()?.named.take()
    }

    /// Returns true if it came back.
    pub(super) fn is_returned(&self) -> bool {
        self.mandatory.as_ref().is_some_and(|mandatory| mandatory.returned)
    }

    /// Handles that the upstream has acked or committed it. Returns the reservation that is to be committed. If it was
    /// returned, it is not stored, and its id is forgotten.
    #[inline]
    pub(super) fn stored(self) -> Option<(Reservation, Memo)> {
        let returned = self.is_returned();
        let (reservation, memo) = self.reservation?;
        if returned {
            reservation.forget(ForgetCause::Returned);
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
