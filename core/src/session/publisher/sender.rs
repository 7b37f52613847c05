//! The way of a publish to the upstream: its frames are written, and its entry is made in the ledger.

use super::assembler::{Assembler, Fate};
use super::comparison::{Compared, Digesting, Subject};
use super::ledger::{Ledger, Reserved};
use super::line::Line;
use super::progress::Progress;
use super::reading::Start;
use crate::session::blame::Blame;
use crate::session::candidate::{Candidate, digest_of, forward_to};
use crate::session::confirms::ClientTag;
use crate::session::cx::Cx;
use crate::session::entry::{Entry, Mandatory, Verified};
use crate::session::fault::Fault;
use crate::session::outbox::View;
use crate::session::returns::ReturnKey;
use crate::session::rights::Right;
use crate::window::{BodyDigest, ForgetCause, Reservation, Window};
use crate::wire::ChannelId;
use crate::wire::method::Publish;
use std::sync::Arc;
use std::time::Instant;

/// The contents of one channel on their way, and the ledger that they are entered in.
#[derive(Debug)]
pub(super) struct Sender {
    id: ChannelId,
    pub(super) assembler: Assembler,
    pub(super) ledger: Ledger,
    progress: Progress,
}

impl Sender {
    pub(super) fn new(id: ChannelId, ledger: Ledger) -> Sender {
        Sender { id, assembler: Assembler::new(id), ledger, progress: Progress::default() }
    }

    /// Returns true if every whole publish that was forwarded has its outcome.
    pub(super) fn is_settled(&self) -> bool {
        self.ledger.is_settled(self.assembler.is_amid_entry())
    }

    /// Returns when [`Sender::check_progress`] has something to do.
    pub(super) fn deadline(&self) -> Option<Instant> {
        self.progress.deadline(self.assembler.left_to_forward(), self.ledger.open_len())
    }

    /// Forwards a publish that a window has judged. `reservation`: the window remembers its id if it is stored.
    pub(super) fn forward(
        &mut self,
        candidate: Candidate<'_>,
        reservation: Option<Reservation>,
        cx: &mut Cx<'_>,
    ) -> Fate {
        self.ledger.select_unseen(self.id, candidate.window, cx);
        let (left, is_reserved) = (candidate.left, reservation.is_some());
        if candidate.terms.asked {
            self.ledger.note_asked();
        }
        let rules = candidate.window.rules();
        let exchange = went_to(rules.forward_to.as_deref(), candidate.publish);
        let (mut body, mut digesting) = (BodyDigest::UNKNOWN, None);
        if is_reserved && rules.compares_bodies() {
            let content = candidate.content.octets();
            if left == 0 {
                body = digest_of(content);
            } else {
                digesting = Some(Box::new(Digesting::of(content)));
            }
        }
        let entry = candidate.forward(self.id, reservation, body, &mut cx.link.out.upstream, cx.now);
        let at_write = self.ledger.enter(entry, exchange);
        if is_reserved && (left > 0 || self.ledger.is_tx()) {
            self.owe_progress(left, at_write.as_ref(), cx);
        }
        Fate::Forward { at_write, digesting, later: None }
    }

    /// Forwards a duplicate whose body is compared only to be counted.
    pub(super) fn forward_compared(
        &mut self,
        candidate: Candidate<'_>,
        stored: BodyDigest,
        cx: &mut Cx<'_>,
    ) -> Fate {
        let subject = Subject::of(&candidate);
        let compared = subject.compare(stored);
        if compared == Compared::Other {
            subject.conflicts(cx);
        }
        let compare = (compared == Compared::NotWhole).then(|| Box::new(subject.later(stored)));
        let mut fate = self.forward(candidate, None, cx);
        if let Fate::Forward { later, .. } = &mut fate {
            *later = compare;
        }
        fate
    }

    /// Forwards a publish that no window judges. `right`: the right that its outcome proves.
    pub(super) fn forward_unjudged(
        &mut self,
        client: Option<ClientTag>,
        window: Option<&Arc<dyn Window>>,
        right: Option<Right>,
        mandatory: bool,
        start: Start<'_>,
        cx: &mut Cx<'_>,
    ) {
        let Start { publish, header, content, .. } = start;
        let target = window.and_then(|window| window.rules().forward_to.as_deref());
        // Its return has to name the exchange that the client named.
        if let (Some(window), Some(_), true) = (window, target, mandatory) {
            self.ledger.select_unseen(self.id, window, cx);
        }
        let named = forward_to(target, self.id, publish, mandatory, &mut cx.link.out.upstream);
        cx.link.out.upstream.forward(content);
        if mandatory {
            self.ledger.note_asked();
        }
        if mandatory || self.ledger.enters_unjudged() {
            let exchange = went_to(target, publish);
            let fields = if mandatory { Publish::parse(publish.payload()).ok() } else { None };
            let mandatory = fields.map(|Publish { routing_key, .. }| {
                Mandatory::new(
                    ReturnKey::new(&cx.shared.keys, exchange, routing_key, header.payload()),
                    true,
                    named,
                )
            });
            let (since, verified) = (cx.now, Verified::No);
            let entry = Entry { client, reservation: None, since, right, mandatory, verified };
            self.ledger.enter(entry, exchange);
        }
    }

    /// Handles that a content that was forwarded is whole. `digesting`: the digest of its body, if it came in several reads.
    pub(super) fn written(
        &mut self,
        mut at_write: Option<Reserved>,
        digesting: Option<&Digesting>,
        now: Instant,
    ) {
        if let Some(digesting) = digesting {
            let entered = self.ledger.newest().and_then(Option::as_mut);
            if let Some((_, memo)) = at_write.as_mut().or(entered) {
                memo.set_body(digesting.finish());
            }
        }
        if let Some((reservation, memo)) = at_write {
            // No client hears of it, so nobody waits until it is remembered.
            drop(reservation.commit(now, memo));
        }
    }

    /// Handles the last frame of a body.
    pub(super) fn body_ended(&mut self, fate: &Fate) {
        if self.progress.body_ended()
            && let Fate::Forward { at_write, .. } = fate
        {
            self.tell_uploading(false, at_write.as_ref());
        }
    }

    /// Hurries the body that is on its way: a publish that others wait for has to wait for it.
    pub(super) fn hurry_body(&mut self, cx: &Cx<'_>) {
        let patience = cx.shared.settings.in_flight_timeout;
        self.progress.hurry_body(self.assembler.left_to_forward(), patience, cx.now);
    }

    /// Sets deadlines for a publish that was forwarded with a reservation, with `left` octets of its body missing or in a
    /// transaction.
    fn owe_progress(&mut self, left: u64, at_write: Option<&Reserved>, cx: &Cx<'_>) {
        let patience = cx.shared.settings.in_flight_timeout;
        if self.ledger.is_tx() {
            self.progress.owe_transaction(patience, cx.now);
        }
        if left > 0 {
            self.progress.owe_body(left, patience, cx.now);
            self.tell_uploading(true, at_write);
        }
    }

    /// Fails if a publish that others wait for does not go on.
    /// `line` holds those that wait for the body to end before they can be sent. If the session `reads` nothing from its client
    /// because too much waits, or because the client has sent more messages than it may, the client is not to blame. Then those who wait for the body lose their patience: they may be what
    /// takes the room.
    pub(super) fn check_progress(&mut self, line: &Line, reads: bool, cx: &mut Cx<'_>) -> Result<(), Fault> {
        let left = self.assembler.left_to_forward();
        if self.deadline().is_none_or(|deadline| deadline > cx.now) {
            return Ok(());
        }
        let patience = cx.shared.settings.in_flight_timeout;
        let Sender { assembler, ledger, progress, .. } = self;
        progress.check_body(self.id, left, patience, cx.now, || {
            let holder = incomplete(assembler, ledger).and_then(|holder| holder.as_ref());
            let is_awaited = holder.is_some_and(|(reservation, _)| {
                reservation.set_uploading(reads);
                reads && reservation.is_awaited()
            });
            is_awaited || reads && line.is_awaited()
        })?;
        match ledger.transactions() {
            Some(transactions) => progress.check_transaction(transactions, patience, cx.now),
            None => Ok(()),
        }
    }

    fn tell_uploading(&mut self, uploading: bool, at_write: Option<&Reserved>) {
        let entered = self.ledger.newest().and_then(|newest| newest.as_ref());
        if let Some((reservation, _)) = at_write.or(entered) {
            reservation.set_uploading(uploading);
        }
    }

    /// Handles `tx.commit`, which is about to be forwarded.
    pub(super) fn commit(&mut self) {
        if let Some(transactions) = self.ledger.transactions() {
            self.progress.transaction_ended();
            transactions.commit();
        }
    }

    /// Handles `tx.rollback`, which is about to be forwarded.
    pub(super) fn rollback(&mut self) {
        if let Some(transactions) = self.ledger.transactions() {
            self.progress.transaction_ended();
            transactions.rollback();
        }
    }

    /// Forgets the open transaction: it will never be committed.
    pub(super) fn abandon_transaction(&mut self) {
        if let Some(transactions) = self.ledger.transactions() {
            transactions.abandon_open();
        }
    }

    /// Gives back the reservation of the content on its way, which will never be whole.
    pub(super) fn forget_incomplete(&mut self) {
        let incomplete = incomplete(&mut self.assembler, &mut self.ledger);
        if let Some((reservation, _)) = incomplete.and_then(Option::take) {
            reservation.forget(ForgetCause::Incomplete);
        }
    }

    /// Handles that the upstream channel or connection is closed.
    pub(super) fn upstream_closed(&mut self, blame: Option<&Blame>, now: Instant) {
        self.ledger.upstream_closed(self.assembler.is_amid_entry(), blame, now);
        if let Some((reservation, _)) = self.assembler.upstream_closed() {
            reservation.forget(ForgetCause::Incomplete);
        }
    }
}

/// Returns the reservation of the content that is on its way upstream.
fn incomplete<'a>(assembler: &'a mut Assembler, ledger: &'a mut Ledger) -> Option<&'a mut Option<Reserved>> {
    let forwards = assembler.left_to_forward() > 0;
    match assembler.at_write() {
        Some(at_write) => Some(at_write),
        None if forwards => ledger.newest(),
        None => None,
    }
}

/// Returns the exchange that a publish is forwarded to.
fn went_to<'a>(target: Option<&'a str>, publish: View<'a>) -> &'a [u8] {
    target.map_or_else(|| Publish::exchange_of(publish.payload()), str::as_bytes)
}
