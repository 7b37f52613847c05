//! A delivery that the client has not been shown: its facts, and its frames where they have to be kept.

use super::guarded::Guarded;
use crate::session::candidate::{header_of, is_of_stream};
use crate::session::outbox::{Piece, View};
use crate::window::Ticket;
use crate::window::{Claim, Memo, Verdict};
use std::sync::Arc;
use std::time::Duration;

/// Bytes of a delivery that is kept, beside its frames: an estimate.
const WITHHELD: usize = 320;

/// The one who is shown a delivery.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum For {
    /// a consumer
    Consumer,
    /// the client's `basic.get` of this number
    Get(u64),
    /// Nobody: a `basic.get` has brought it while another consumer works on its id, and has got another message since.
    Nobody,
}

/// The facts about a delivery.
#[derive(Clone, Debug)]
pub(super) struct Facts {
    /// the broker's tag
    pub(super) upstream: u64,
    /// the broker waits until it is settled
    pub(super) acks: bool,
    /// the client has to settle it
    pub(super) counts: bool,
    pub(super) to: For,
    /// the number of its consumer; 0: none that is known
    pub(super) consumer: u64,
    /// the guard of its queue
    pub(super) by: Option<Arc<Guarded>>,
    /// its id, and for how long that is remembered
    pub(super) id: Option<(Claim, Duration)>,
}

impl Facts {
    /// Returns what the commit of its id tells the window.
    pub(super) fn memo(&self) -> Memo {
        Memo::from(self.id.map_or(Duration::ZERO, |(_, ttl)| ttl))
    }

    /// Returns true if duplicates are counted and shown.
    pub(super) fn is_observed(&self) -> bool {
        self.by.as_ref().is_some_and(|by| by.is_observed())
    }
}

/// A delivery whose frames are where they were read.
#[derive(Clone, Copy, Debug)]
pub(super) struct Arrival<'a> {
    pub(super) method: View<'a>,
    /// its header, and the frames of its body that have come
    pub(super) content: View<'a>,
    /// octets of the body that are missing
    pub(super) left: u64,
}

/// A delivery that is kept.
#[derive(Debug)]
pub(super) struct Withheld {
    pub(super) facts: Facts,
    pub(super) method: Piece,
    /// its header, and the frames of its body that have come
    pub(super) content: Vec<u8>,
    /// octets of the body that are missing
    pub(super) left: u64,
}

impl Withheld {
    /// Copies a delivery, so that the read that it came with can be freed.
    pub(super) fn new(facts: Facts, arrival: Arrival<'_>) -> Withheld {
        let Arrival { method, content, left } = arrival;
        Withheld { facts, method: method.compact(), content: content.octets().to_vec(), left }
    }

    /// Returns the bytes that it takes.
    pub(super) fn weight(&self) -> usize {
        WITHHELD + self.method.view().len() + self.content.len()
    }

    /// Returns true if a stream has delivered it.
    pub(super) fn is_of_stream(&self) -> bool {
        is_of_stream(header_of(&self.content))
    }

    /// Adds a frame of the body.
    pub(super) fn extend(&mut self, frame: View<'_>) {
        self.left = self.left.saturating_sub(frame.payload().len() as u64);
        self.content.extend_from_slice(frame.octets());
    }

    /// Drops the frames: nobody will be shown them.
    pub(super) fn drop_content(&mut self) {
        self.content = Vec::new();
    }
}

/// The part of the verdict about a delivery that is known.
#[derive(Debug)]
pub(super) enum Known {
    /// Nobody judges it.
    Plain,
    /// The window is to be asked when it is the delivery's turn: a copy of it waits on this channel already.
    Ask,
    /// The window has been asked under this ticket.
    Asked(Ticket, Verdict),
}

impl Known {
    /// Gives up what the verdict holds: the delivery is not shown.
    pub(super) fn give_up(self, cause: crate::window::ForgetCause) {
        if let Known::Asked(_, Verdict::Fresh(reservation)) = self {
            reservation.forget(cause);
        }
    }

    /// Replaces the verdict by the one that has come under this ticket. Gives it back if it is not for this delivery.
    pub(super) fn recv(&mut self, ticket: Ticket, verdict: Verdict) -> Result<(), Verdict> {
        match self {
            Known::Asked(own, before) if *own == ticket => {
                match std::mem::replace(before, verdict) {
                    Verdict::InFlight(wait) | Verdict::Pending(wait) => wait.answered(),
                    Verdict::Fresh(_) | Verdict::Crowded | Verdict::Duplicate(_) | Verdict::Refused(_) => {}
                }
                Ok(())
            }
            _ => Err(verdict),
        }
    }

    /// Returns true if the window's store has still to be heard.
    pub(super) fn is_pending(&self) -> bool {
        matches!(self, Known::Asked(_, Verdict::Pending(_)))
    }
}
