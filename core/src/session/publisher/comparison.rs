//! The comparison of a duplicate's body with the one that was stored under its id, and the digest of a body that is on its way.
//!
//! The verdict comes with the header, and the body may come later:
//!
//! ```text
//!   whole                    compared at once
//!   not whole, is forwarded  digested as it streams; the digest is remembered with the id when the message is stored
//!   not whole, is dropped    digested as it streams, compared at its end: drop, reject, and mode observe
//!   not whole, may go on     held until its end, because only a whole one can be compared: forward
//! ```

use super::collected::CollectedBody;
use super::signals::Dropped;
use crate::session::candidate::{Candidate, Kept, Terms, bodies, digest_of, header_of};
use crate::session::confirms::ClientTag;
use crate::session::cx::Cx;
use crate::session::fault::Fault;
use crate::session::outbox::{Piece, View};
use crate::session::sightings::{Publication, Sighted};
use crate::window::{BodyDigest, BodyHasher, Claim, Event, Mode, OnConflict, Window};
use crate::wire::ChannelId;
use crate::wire::frame::OVERHEAD;
use std::sync::Arc;

/// The result of comparing a duplicate's body.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Compared {
    /// It is the same, as far as anybody can know.
    Same,
    /// It is another one: a conflict.
    Other,
    /// It is not whole.
    NotWhole,
}

/// A publish as a comparison needs it. `content`: its header and the frames of its body that have come.
#[derive(Clone, Copy)]
pub(super) struct Subject<'a> {
    pub(super) window: &'a Arc<dyn Window>,
    terms: &'a Terms,
    publish: View<'a>,
    content: &'a [u8],
    left: u64,
}

impl<'a> Subject<'a> {
    pub(super) fn of(candidate: &'a Candidate<'_>) -> Subject<'a> {
        let Candidate { window, terms, publish, content, left } = candidate;
        Subject { window, terms, publish: *publish, content: content.octets(), left: *left }
    }

    pub(super) fn of_kept(kept: &'a Kept) -> Subject<'a> {
        let Kept { window, terms, publish, content, left } = kept;
        Subject { window, terms, publish: publish.view(), content, left: *left }
    }

    pub(super) fn claim(&self) -> Claim {
        self.terms.claim
    }

    /// The client's tag, if it counts its publishes.
    pub(super) fn client(&self) -> Option<ClientTag> {
        self.terms.client
    }

    /// Compares it with the body that is stored under its id.
    pub(super) fn compare(&self, stored: BodyDigest) -> Compared {
        let rules = self.window.rules();
        if !self.is_comparable(stored) {
            // What is told of it is told when it is whole.
            let waits = self.left > 0 && !rules.signals.is_silent();
            return if waits { Compared::NotWhole } else { Compared::Same };
        }
        if self.left > 0 {
            return Compared::NotWhole;
        }
        if stored.differs(digest_of(self.content)) { Compared::Other } else { Compared::Same }
    }

    /// Returns true if another body than the one that is stored can be told from it.
    pub(super) fn is_comparable(&self, stored: BodyDigest) -> bool {
        stored.is_known() && self.window.rules().compares_bodies()
    }

    /// Returns the digest of its body, which is whole.
    pub(super) fn digest(&self) -> BodyDigest {
        digest_of(self.content)
    }

    /// Returns it as a publish that is dropped.
    pub(super) fn dropped(&self) -> Dropped<'_> {
        Dropped {
            window: self.window,
            claim: self.terms.claim,
            client: self.terms.client,
            publish: self.publish,
            header: header_of(self.content),
            content: Some(self.content).filter(|_| self.left == 0),
        }
    }

    /// Counts it as a conflict, and tells people of it.
    pub(super) fn conflicts(&self, cx: &mut Cx<'_>) {
        let header = header_of(self.content);
        conflicts(self.window, self.terms.claim, self.publish, header, cx);
    }

    /// Counts it as a conflict that is not forwarded, and tells people of it.
    pub(super) fn drops_conflict(&self, cx: &mut Cx<'_>) {
        cx.link.out.sightings.count();
        self.conflicts(cx);
    }

    /// Counts it as a duplicate, and tells people of it if it is time for that.
    #[inline]
    pub(super) fn is_known(&self, what: Sighted, cx: &mut Cx<'_>) {
        if cx.link.out.sightings.wants_duplicate(cx.now) {
            self.tell(what, cx);
        }
    }

    #[cold]
    fn tell(&self, what: Sighted, cx: &mut Cx<'_>) {
        let Subject { window, terms, publish, content, .. } = *self;
        let (claim, header) = (terms.claim, header_of(content));
        let link = &mut *cx.link;
        let publication = Publication { window, claim, vhost: link.finder.vhost(), publish, header };
        link.out.sightings.note(what, publication, cx.now);
    }

    /// Makes what is needed to compare it at its end.
    pub(super) fn later(&self, stored: BodyDigest) -> Later {
        let header = header_of(self.content);
        Later {
            window: Arc::clone(self.window),
            claim: self.terms.claim,
            client: self.terms.client,
            stored,
            publish: self.publish.compact(),
            header: header.into(),
            digesting: Digesting::of(self.content),
        }
    }
}

/// The digest of a body that is on its way.
#[derive(Debug)]
pub(super) struct Digesting(BodyHasher);

impl Digesting {
    /// Digests the part of a body that has come with its header.
    pub(super) fn of(content: &[u8]) -> Digesting {
        let mut hasher = BodyHasher::new();
        bodies(content).for_each(|piece| hasher.write(piece));
        Digesting(hasher)
    }

    /// Takes the next frame.
    pub(super) fn extend(&mut self, frame: View<'_>) {
        self.0.write(frame.payload());
    }

    pub(super) fn finish(&self) -> BodyDigest {
        self.0.finish()
    }
}

/// A duplicate that is compared when its body has ended.
#[derive(Debug)]
pub(super) struct Later {
    window: Arc<dyn Window>,
    claim: Claim,
    client: Option<ClientTag>,
    stored: BodyDigest,
    publish: Piece,
    /// the payload of the header
    header: Box<[u8]>,
    digesting: Digesting,
}

impl Later {
    /// Takes the next frame of the body.
    pub(super) fn extend(&mut self, frame: View<'_>) {
        self.digesting.extend(frame);
    }

    /// Returns the bytes that it takes.
    pub(super) fn bytes(&self) -> usize {
        std::mem::size_of::<Later>() + self.publish.view().len() + self.header.len()
    }

    /// Returns it as a publish that is dropped.
    pub(super) fn dropped(&self) -> Dropped<'_> {
        let Later { window, claim, client, publish, header, .. } = self;
        let (claim, client, publish) = (*claim, *client, publish.view());
        Dropped { window, claim, client, publish, header, content: None }
    }

    /// The client's tag, if it counts its publishes.
    pub(super) fn client(&self) -> Option<ClientTag> {
        self.client
    }

    /// Compares the body, which is whole now. Counts a conflict.
    pub(super) fn compare(&self, cx: &mut Cx<'_>) -> Compared {
        if !self.stored.differs(self.digesting.finish()) {
            return Compared::Same;
        }
        conflicts(&self.window, self.claim, self.publish.view(), &self.header, cx);
        Compared::Other
    }

    /// Returns true if a conflict is to be refused.
    pub(super) fn rejects(&self) -> bool {
        self.window.rules().on_conflict == OnConflict::Reject
    }

    /// The window of the message.
    pub(super) fn window(&self) -> &Arc<dyn Window> {
        &self.window
    }
}

/// A duplicate that is held until its body has ended. Then it is forwarded if it conflicts.
#[derive(Debug)]
pub(super) struct Holding {
    /// without its body
    kept: Kept,
    body: CollectedBody,
    stored: BodyDigest,
}

impl Holding {
    pub(super) fn new(kept: Kept, stored: BodyDigest) -> Holding {
        let mut kept = kept;
        let content = std::mem::take(&mut kept.content);
        let came: usize = bodies(&content).map(<[u8]>::len).sum();
        let mut body = CollectedBody::new(kept.left.saturating_add(came as u64));
        bodies(&content).for_each(|payload| body.extend(payload));
        let header = header_of(&content).len() + OVERHEAD;
        kept.content = content.get(..header).unwrap_or_default().to_vec();
        Holding { kept, body, stored }
    }

    /// Takes the next frame of the body.
    pub(super) fn extend(&mut self, frame: View<'_>) {
        self.body.extend(frame.payload());
    }

    /// Returns the bytes that it will take when it is whole.
    pub(super) fn bytes(&self) -> usize {
        self.kept.size().saturating_add(self.body.bytes())
    }

    /// Returns the publish, which is whole now, and the digest of the body that was stored.
    pub(super) fn finish(self, channel: ChannelId) -> (Kept, BodyDigest) {
        let Holding { mut kept, body, stored } = self;
        (kept.content, kept.left) = (body.content(&kept.content, channel), 0);
        (kept, stored)
    }
}

/// Returns the fault of a conflict that is to be refused, where no nack can say so.
pub(super) fn fault(window: &Arc<dyn Window>) -> Fault {
    Fault::Conflict { window: (&*window.rules().name).into() }
}

fn conflicts(window: &Arc<dyn Window>, claim: Claim, publish: View<'_>, header: &[u8], cx: &mut Cx<'_>) {
    window.notice(Event::Conflict { claim });
    let what = match window.mode() {
        Mode::Observe => Sighted::Observed,
        Mode::Enforce | Mode::Off => Sighted::Conflict(window.rules().on_conflict),
    };
    let link = &mut *cx.link;
    let publication = Publication { window, claim, vhost: link.finder.vhost(), publish, header };
    link.out.sightings.note(what, publication, cx.now);
}
