//! The publishing half of a channel: from `basic.publish` to the answer.
//!
//! Nearly all publishes stand whole in a read. They are taken together ([`ahead`]): the window is asked about all of them by one
//! call, and their verdicts are used in their order.
//!
//! Any other publish is put together from its frames ([`assembler`]). Its content header has its id. Until the broker has shown
//! that the user may publish there, it is held ([`held`]), and its channel with it. Then the window is asked ([`verdicts`]):
//!
//! ```text
//!   basic.publish --> Header --content header--> judge --+-- Fresh -------> Forward   (an entry in the ledger)
//!                                                        +-- Duplicate ---> Compare   (an ack, when the body is whole and the same)
//!                                                        +-- InFlight ----> Keep      (aside, until the first one's outcome)
//!                                                        +-- Crowded -----> Swallow   (a nack), or without confirms Line
//!                                                        +-- Pending -----> Line      (the channel's frames wait in order)
//! ```
//!
//! A publish that goes on is written ([`sender`]) and entered ([`ledger`]), where its outcome finds it.

mod ahead;
mod assembler;
mod batch;
mod collected;
mod comparison;
mod draft;
mod held;
mod ledger;
mod line;
mod progress;
mod questions;
mod reading;
mod sender;
mod shown;
mod signals;
mod verdicts;

pub(in crate::session) use held::ask;
pub(in crate::session) use ledger::Ledger;
pub(in crate::session) use line::Line;

use self::ahead::{Ahead, Next};
use self::assembler::{Fate, Step, size_of};
use self::batch::{Waited, WaitingBatch};
use self::collected::CollectedBody;
use self::draft::Draft;
use self::held::{Held, goes_where};
use self::reading::{Kind, Reading, Start};
use self::shown::shown;
use self::verdicts::Verdicts;
use crate::session::blame::Blame;
use crate::session::candidate::{Candidate, Terms};
use crate::session::confirms::ClientTag;
use crate::session::cx::Cx;
use crate::session::entry::{Hears, Outcome};
use crate::session::fault::Fault;
use crate::session::finder::Verify;
use crate::session::inbound::Chunk;
use crate::session::outbox::View;
use crate::session::probe::{Asker, Finding};
use crate::session::rights::{Right, Standing};
use crate::window::{Event, HINTED, MissingId, Ticket, Verdict, Window};
use crate::wire::ChannelId;
use crate::wire::frame::FrameKind;
use crate::wire::method::{Return, Settle};
use crate::wire::names::Names;
use crate::wire::properties::{BASIC, ContentHeader};
use std::sync::Arc;
use std::time::Instant;

/// The publishes of one channel.
#[derive(Debug)]
pub(in crate::session) struct Publisher {
    id: ChannelId,
    birth: u64,
    verdicts: Verdicts,
    held: Option<Held>,
    /// A publish has begun to be held since [`Publisher::take_newly_held`] was called.
    newly_held: bool,
}

impl Publisher {
    pub(in crate::session) fn new(id: ChannelId, birth: u64) -> Publisher {
        Publisher { id, birth, verdicts: Verdicts::new(id), held: None, newly_held: false }
    }

    /// Begins anew with tx: a fresh upstream channel has taken the place of the old one.
    pub(in crate::session) fn restart_with_tx(&mut self) {
        self.verdicts.restart_with_tx();
    }

    /// Returns the ledger.
    pub(in crate::session) fn ledger(&self) -> &Ledger {
        &self.verdicts.sender.ledger
    }

    /// Returns the ledger, to change it.
    pub(in crate::session) fn ledger_mut(&mut self) -> &mut Ledger {
        &mut self.verdicts.sender.ledger
    }

    /// Returns the line.
    pub(in crate::session) fn line(&self) -> &Line {
        &self.verdicts.line
    }

    /// Returns the line, to change it.
    pub(in crate::session) fn line_mut(&mut self) -> &mut Line {
        &mut self.verdicts.line
    }

    /// Returns the bytes of all that waits on this channel.
    pub(in crate::session) fn held(&self) -> usize {
        self.verdicts.held() + self.held.as_ref().map_or(0, Held::size)
    }

    /// Returns the bytes of the entries and places, beside those that are [held](Publisher::held) or [stuck](Publisher::stuck).
    pub(in crate::session) fn memory(&self) -> usize {
        self.verdicts.memory()
    }

    /// Returns the bytes of the open transaction. (A body that is its own id is held already: [`Publisher::collecting`].)
    pub(in crate::session) fn stuck(&self) -> usize {
        self.ledger().stuck()
    }

    /// Returns the bytes held for a body that is its own id, or is to be compared: only the client can end it.
    pub(in crate::session) fn collecting(&self) -> usize {
        let assembler = &self.verdicts.sender.assembler;
        assembler.collecting() + assembler.comparing()
    }

    /// Returns the number of publishes without an outcome, as [`Verdicts::unresolved`].
    #[inline]
    pub(in crate::session) fn unresolved(&self) -> usize {
        self.verdicts.unresolved()
    }

    /// Returns true if no content is being received.
    pub(in crate::session) fn is_between_contents(&self) -> bool {
        self.verdicts.sender.assembler.is_between_contents()
    }

    /// Returns true if the upstream has the beginning of a content and not its end: nothing else may go to it on this channel.
    pub(in crate::session) fn is_forwarding(&self) -> bool {
        self.verdicts.sender.assembler.is_forwarding()
    }

    /// Returns the octets that the upstream still waits for, of a content that it has the beginning of.
    pub(in crate::session) fn left_to_forward(&self) -> u64 {
        self.verdicts.sender.assembler.left_to_forward()
    }

    /// Returns true if the channel's next frames have to wait for a verdict, or for the proof of a right.
    #[inline]
    pub(in crate::session) fn is_stalled(&self) -> bool {
        self.line().is_stalled() || self.is_held()
    }

    /// Returns true if the next publish waits for the proof of a right.
    #[inline]
    pub(in crate::session) fn is_held(&self) -> bool {
        self.held.is_some()
    }

    /// Returns true if a publish has begun to wait for the proof of a right since the last call.
    pub(in crate::session) fn take_newly_held(&mut self) -> bool {
        std::mem::take(&mut self.newly_held) && self.is_held()
    }

    /// Returns true if publishes wait for the outcome of others.
    pub(in crate::session) fn has_waiting(&self) -> bool {
        self.verdicts.has_waiting()
    }

    /// Returns true if every whole publish has its outcome. (A publish that is being forwarded when its client is gone will
    /// never be whole.)
    pub(in crate::session) fn is_settled(&self) -> bool {
        self.held.is_none() && self.verdicts.is_settled()
    }

    /// Returns true if the client has begun a transaction with messages in it, and has not ended it.
    pub(in crate::session) fn is_amid_transaction(&self) -> bool {
        self.ledger().open_len() > 0
    }

    /// Returns when [`Publisher::handle_timeout`] has something to do.
    pub(in crate::session) fn deadline(&self) -> Option<Instant> {
        self.verdicts.deadline()
    }

    /// Does what [`Publisher::deadline`] was set for.
    pub(in crate::session) fn handle_timeout(&mut self, cx: &mut Cx<'_>) -> Result<(), Fault> {
        self.verdicts.handle_timeout(cx)
    }

    // ---- from the client -------------------------------------------------------------------------------------------

    /// Returns true if the next publish can be taken before anything else happens.
    pub(in crate::session) fn takes_publishes(&self) -> bool {
        let in_order = self.is_between_contents() && self.line().takes_more();
        in_order && !self.is_held() && !self.ledger().is_tx()
    }

    /// Takes the publishes that stand whole in the read and come next, `most` at most. If one of them has to wait, the rest is
    /// left.
    pub(in crate::session) fn recv_publishes(&mut self, most: usize, cx: &mut Cx<'_>) -> Result<(), Fault> {
        let held = self.verdicts.publish_bytes();
        let mut left = most;
        let mut ahead = Ahead::default();
        let mut chunk = Chunk::default();
        while left > 0 && self.goes_on(held) {
            let distinct = self.ledger().is_untold();
            match ahead.look(self.id, (self.most_at_once(left), cx.room(held)), distinct, cx) {
                Next::Plain(window) => {
                    let mut result = Ok(());
                    let in_order = !self.line().is_stalled();
                    let publishes = ahead.ask(&window, self.id, in_order, &mut chunk, cx);
                    for (whole, terms, ticket, verdict) in publishes {
                        left -= 1;
                        whole.take(cx);
                        let terms = Terms { client: self.ledger_mut().next_client_tag(), ..terms };
                        let (publish, content) = (whole.method(&chunk), whole.content(&chunk));
                        let candidate = Candidate { window: &window, terms, publish, content, left: 0 };
                        result = result.and(self.verdicts.recv_judged(candidate, ticket, verdict, cx));
                    }
                    self.line_mut().restore();
                    result?;
                }
                // Anything else has to wait behind the publishes whose verdicts are not known.
                _ if self.is_stalled() => return Ok(()),
                Next::Unmatched { whole, mandatory, passed_by } => {
                    left -= 1;
                    whole.take(cx);
                    count_unjudged(passed_by.as_ref(), cx);
                    let client = self.ledger_mut().next_client_tag();
                    cx.link.inbound.fetch(whole, &mut chunk);
                    self.forward_unjudged(client, None, None, mandatory, Start::of(whole, &chunk), cx)?;
                }
                Next::Special(whole) => {
                    left -= 1;
                    whole.take(cx);
                    cx.link.inbound.fetch(whole, &mut chunk);
                    self.recv_start(Start::of(whole, &chunk), cx)?;
                }
                Next::Other => return Ok(()),
            }
        }
        Ok(())
    }

    /// Takes the plain publishes that the first waiting frames make up, and asks the window about all of them together. Returns
    /// true if there were any.
    pub(in crate::session) fn recv_waiting_publishes(&mut self, cx: &mut Cx<'_>) -> Result<bool, Fault> {
        if !self.takes_publishes() {
            return Ok(false);
        }
        let most = self.most_at_once(cx.publishes_left(self.unresolved())).min(HINTED);
        let mut batch = WaitingBatch::default();
        let distinct = self.ledger().is_untold();
        while batch.len() < most && batch.take_first(self.line_mut(), distinct, cx) {}
        // Messages that consumers publish again wait for the store together, too. (Behind others they would have to be asked about anew.)
        if batch.is_empty()
            && self.line().has_only_republishes()
            && let Some(waited) = Waited::republish(self.line_mut(), cx)
        {
            let client = self.ledger_mut().next_client_tag();
            return waited.judge(client, |candidate| self.verdicts.judge(candidate, cx)).map(|()| true);
        }
        let mut result = Ok(!batch.is_empty());
        batch.ask(self.id, cx, |candidate, ticket, verdict, cx| {
            let mut candidate = candidate;
            candidate.terms.client = self.ledger_mut().next_client_tag();
            let judged = self.verdicts.recv_judged(candidate, ticket, verdict, cx);
            result = std::mem::replace(&mut result, Ok(true)).and_then(|any| judged.map(|()| any));
        });
        self.line_mut().restore();
        result
    }

    /// Returns how many publishes may be asked about together, if this number may be unresolved. A publish that waits for
    /// another's outcome counts twice if its client counts, too.
    fn most_at_once(&self, left: usize) -> usize {
        if self.ledger().answers_client() { (left / 2).max(1) } else { left }
    }

    /// Returns true if nothing has begun to wait since so much was held.
    fn goes_on(&self, held: usize) -> bool {
        self.takes_publishes() && self.verdicts.publish_bytes() == held
    }

    /// Handles `basic.publish`, between contents. `whole`: its header is next in the same read.
    pub(in crate::session) fn recv_publish(&mut self, publish: View<'_>, whole: bool) {
        let publish = if whole { publish.piece() } else { publish.compact() };
        self.verdicts.sender.assembler.begin(publish);
    }

    /// Handles a header or body frame, or a method where content was expected.
    pub(in crate::session) fn recv_content(
        &mut self,
        kind: FrameKind,
        frame: View<'_>,
        cx: &mut Cx<'_>,
    ) -> Result<(), Fault> {
        match self.verdicts.recv_content(kind, frame, cx)? {
            Step::Header(publish) => {
                let result = self.recv_header(publish.view(), frame, cx);
                if result.is_err() {
                    self.verdicts.sender.assembler.let_go();
                }
                result
            }
            Step::Whole(fate) => self.verdicts.body_ended(fate, cx),
            Step::Taken => Ok(()),
        }
    }

    fn recv_header(&mut self, publish: View<'_>, header: View<'_>, cx: &mut Cx<'_>) -> Result<(), Fault> {
        // The broker will refuse a header of another class.
        let Ok((BASIC, left)) = ContentHeader::size_of(header.payload()) else {
            cx.link.out.upstream.forward(publish);
            cx.link.out.upstream.forward(header);
            return Ok(());
        };
        self.recv_start(Start { publish, header, content: header, left }, cx)
    }

    /// Handles a publish whose header has come.
    fn recv_start(&mut self, start: Start<'_>, cx: &mut Cx<'_>) -> Result<(), Fault> {
        let Start { publish, header, content, left } = start;
        // The broker will refuse a method that can't be understood, too.
        let Some(route) = cx.link.finder.route(cx.shared, &cx.link.rights, publish.payload()) else {
            cx.link.out.upstream.forward(publish);
            cx.link.out.upstream.forward(content);
            return Ok(());
        };
        if self.ledger().is_tx() && self.ledger().open_len() >= cx.shared.settings.max_unresolved {
            return Err(Fault::TxTooLarge { max: cx.shared.settings.max_unresolved });
        }
        let mandatory = route.mandatory;
        let Some(judge) = route.judge() else {
            let passed_by = route.passed_by().cloned();
            count_unjudged(passed_by.as_ref(), cx);
            let client = self.ledger_mut().next_client_tag();
            return self.forward_unjudged(client, None, None, mandatory, start, cx);
        };
        let standing = cx.link.rights.standing(&cx.shared.rights, &judge.needs, cx.now);
        let (rights, marks) = (&cx.link.rights, &cx.link.marks);
        let Reading { kind, bad } =
            Reading::of(header.payload(), route, judge, standing, rights, &cx.shared.keys, marks);
        let mark = marks.of_publish(judge, |route| Some(route.body(left)));
        let rejects = judge.window.rules().missing_id == MissingId::Reject;
        let goes_on_unjudged = match kind {
            Kind::Plain(_) | Kind::Body(_) => false,
            Kind::NoId => !rejects,
            Kind::Bypass | Kind::Malformed => true,
        };
        if standing == Standing::Unknown && !goes_on_unjudged {
            if cx.link.rights.is_refused(&cx.shared.rights, &judge.needs, cx.now) {
                return self.recv_refused(start, cx);
            }
            return self.hold(start, cx);
        }
        let client = self.ledger_mut().next_client_tag();
        let (window, right) = (Arc::clone(&judge.window), judge.needs.right);
        let (verify, tenant) = (judge.verify != Verify::No, judge.tenant);
        cx.link.bad_headers.count(bad, &*cx.shared.listener);
        match kind {
            Kind::Plain(terms) => {
                let terms = Terms { client, ..terms };
                self.verdicts.judge(Candidate { window: &window, terms, publish, content, left }, cx)
            }
            Kind::Bypass => {
                window.notice(Event::Bypassed);
                self.forward_unjudged(client, Some(&window), None, mandatory, start, cx)
            }
            Kind::Body(scoped) if left > 0 && self.has_room(left, cx) => {
                let draft = Draft {
                    tenant,
                    window,
                    client,
                    scoped,
                    right,
                    verify,
                    mark,
                    publish: publish.compact(),
                    header: header.compact(),
                    body: CollectedBody::new(left),
                };
                self.verdicts.go_on(left, Fate::Collect(Box::new(draft)), cx)
            }
            kind @ (Kind::NoId | Kind::Body(_) | Kind::Malformed) => {
                window.notice(Event::NoId);
                if matches!(kind, Kind::NoId) && window.wants_names() {
                    window.note_names(Names::of(header.payload()).as_slice());
                }
                let rules = window.rules();
                if rejects && !matches!(kind, Kind::Malformed) {
                    return Err(Fault::MissingId {
                        window: (&*rules.name).into(),
                        id: rules.id.to_string().into(),
                    });
                }
                self.forward_unjudged(client, Some(&window), None, mandatory, start, cx)
            }
        }
    }

    fn forward_unjudged(
        &mut self,
        client: Option<ClientTag>,
        window: Option<&Arc<dyn Window>>,
        right: Option<Right>,
        mandatory: bool,
        start: Start<'_>,
        cx: &mut Cx<'_>,
    ) -> Result<(), Fault> {
        self.verdicts.sender.forward_unjudged(client, window, right, mandatory, start, cx);
        self.verdicts.go_on(start.left, Fate::FORWARD, cx)
    }

    fn has_room(&self, more: u64, cx: &Cx<'_>) -> bool {
        cx.has_room(self.verdicts.publish_bytes(), size_of(more))
    }

    // ---- rights ----------------------------------------------------------------------------------------------------

    /// Keeps a publish until the broker has shown the rights of its user that are not known, and asks for them.
    fn hold(&mut self, start: Start<'_>, cx: &mut Cx<'_>) -> Result<(), Fault> {
        let asker = Asker { channel: self.id, birth: self.birth };
        // Another thread may have learned of them just now, or may have switched the window off.
        let Some(right) = ask(start.publish, Some(asker), cx) else { return self.recv_start(start, cx) };
        self.verdicts.sender.assembler.let_go();
        self.held = Some(Held::new(start, right));
        self.newly_held = true;
        Ok(())
    }

    /// Handles that the broker has shown whether the user has this right, or can't be asked.
    pub(in crate::session) fn recv_finding(
        &mut self,
        right: Right,
        finding: Finding,
        cx: &mut Cx<'_>,
    ) -> Result<(), Fault> {
        let Some(held) = self.held.take() else { return Ok(()) };
        let start = held.start();
        match finding {
            Finding::Refused if right == held.right() => self.recv_refused(start, cx),
            // The answer may be one that an earlier publish of the channel has waited for.
            Finding::Missing if goes_where(right, start.publish, cx) => self.recv_refused(start, cx),
            Finding::Unasked => {
                cx.shared.listener.unverified();
                self.recv_refused(start, cx)
            }
            // If another right is unknown, it is held again.
            Finding::Allowed | Finding::Refused | Finding::Missing => self.recv_start(start, cx),
        }
    }

    /// Forwards a publish that the broker will refuse, so that it says so itself. If it does not, its ack proves the right.
    fn recv_refused(&mut self, start: Start<'_>, cx: &mut Cx<'_>) -> Result<(), Fault> {
        let Some(route) = cx.link.finder.route(cx.shared, &cx.link.rights, start.publish.payload()) else {
            return Ok(());
        };
        let mandatory = route.mandatory;
        let judge = route.judge().map(|judge| (Arc::clone(&judge.window), judge.needs.right));
        let client = self.ledger_mut().next_client_tag();
        let Some((window, right)) = judge else {
            return self.forward_unjudged(client, None, None, mandatory, start, cx);
        };
        let id = self.id;
        self.ledger_mut().select_unseen(id, &window, cx);
        self.forward_unjudged(client, Some(&window), Some(right), mandatory, start, cx)
    }

    // ---- late verdicts and outcomes --------------------------------------------------------------------------------

    /// Handles a verdict that came late.
    pub(in crate::session) fn recv_verdict(
        &mut self,
        ticket: Ticket,
        verdict: Verdict,
        cx: &mut Cx<'_>,
    ) -> Result<(), Fault> {
        self.verdicts.recv_verdict(ticket, verdict, cx)
    }

    /// Handles `basic.ack` or `basic.nack`.
    pub(in crate::session) fn recv_settle(&mut self, settle: Settle, outcome: Outcome, cx: &mut Cx<'_>) {
        self.ledger_mut().recv_settle(settle, outcome, cx);
    }

    /// Handles `basic.return` with its header. Says who hears of it.
    pub(in crate::session) fn recv_return(
        &mut self,
        fields: &Return<'_>,
        header: View<'_>,
        cx: &mut Cx<'_>,
    ) -> Hears {
        let shown = shown(fields, header, cx);
        let hears = self.ledger_mut().recv_return(&shown, cx.now);
        // (Without confirms, nobody hears what was stored there.)
        if hears == Hears::Nobody && !shown.kept && self.ledger().has_confirms() {
            cx.link.returning.returned(fields.exchange, cx.link.finder.vhost(), cx.shared);
        }
        hears
    }

    /// Handles `tx.commit-ok` or `tx.rollback-ok`. Returns true if the client has to wait for it.
    pub(in crate::session) fn recv_tx_ended(&mut self, frame: View<'_>, cx: &mut Cx<'_>) -> bool {
        self.ledger_mut().recv_tx_ended(frame, cx)
    }

    /// Handles `tx.commit`, which is about to be forwarded.
    pub(in crate::session) fn commit(&mut self) {
        self.verdicts.sender.commit();
    }

    /// Handles `tx.rollback`, which is about to be forwarded.
    pub(in crate::session) fn rollback(&mut self) {
        self.verdicts.rollback();
    }

    // ---- ends ------------------------------------------------------------------------------------------------------

    /// Returns true if the client, or a publish, waits until a window's store has come so far.
    #[inline]
    pub(in crate::session) fn is_unremembered(&self) -> bool {
        self.ledger().is_unremembered() || self.line().is_forgetting()
    }

    /// Handles that windows may remember more than before, as [`Verdicts::recv_remembered`].
    pub(in crate::session) fn recv_remembered(&mut self, cx: &mut Cx<'_>) -> Result<(), Fault> {
        self.verdicts.recv_remembered(cx)
    }

    /// Forwards the publishes that no window has judged in time, as [`Verdicts::send_pending`].
    pub(in crate::session) fn send_pending(&mut self, cx: &mut Cx<'_>) -> Result<(), Fault> {
        self.verdicts.send_pending(cx)
    }

    /// Forwards those that wait aside, as [`Verdicts::send_waiting`].
    pub(in crate::session) fn send_waiting(&mut self, cx: &mut Cx<'_>) {
        self.verdicts.send_waiting(cx);
    }

    /// Handles that the client will send nothing more, as [`Verdicts::client_done`].
    pub(in crate::session) fn client_done(&mut self) {
        if self.is_forwarding() {
            self.held = None;
        }
        self.verdicts.client_done();
    }

    /// Handles that the upstream is closed, as [`Verdicts::upstream_closed`].
    pub(in crate::session) fn upstream_closed(&mut self, blame: Option<&Blame>, now: Instant) {
        self.verdicts.upstream_closed(blame, now);
        self.held = None;
    }

    /// Handles that Hapax has closed the client's channel, as [`Verdicts::refused`].
    pub(in crate::session) fn refused(&mut self) {
        self.held = None;
        self.verdicts.refused();
    }

    /// Drops all publishes that wait: nobody asks for them any more.
    pub(in crate::session) fn abandon_waiting(&mut self) {
        self.held = None;
        self.verdicts.abandon_waiting();
    }
}

/// Counts a publish that no window judges.
fn count_unjudged(passed_by: Option<&Arc<dyn Window>>, cx: &Cx<'_>) {
    match passed_by {
        Some(window) => window.notice(Event::Bypassed),
        None => cx.shared.listener.unmatched(),
    }
}
