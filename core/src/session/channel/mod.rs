//! One channel: which side may say what, and when.
//!
//! ```text
//!            channel.close, unsettled            settled, or linger over
//!   Open ---------------------------> Settling --------------------------> Closing --close-ok--> Gone
//!    |                                   \-- outcomes take long: close-ok to the client --> Refused
//!    |  \-- channel.close, settled ---------------------------------------^
//!    |  \-- upstream's channel.close ---> UpstreamClosed --client's close-ok--> Gone
//!    |  \-- Hapax refuses --------------> Refused --client's and upstream's close-ok--> Gone
//!    \-- tx.select after shadow confirms -> Recycling --settled--> Reopening --fresh upstream channel--> Open
//! ```
//!
//! [`life`] owns this state. The channel has two halves: the [publisher](crate::session::publisher) handles what the client
//! publishes, [`deliveries`] what is sent to the client. Frames of the client that have to wait (for a verdict, for waiters
//! before `tx.commit`, for a fresh upstream channel) are kept in order in the publisher's line; other channels go on.

mod booked;
mod consumers;
mod content;
mod declares;
mod deliveries;
mod frames;
mod halves;
mod last_queue;
mod life;
mod refused;
mod round_trip;
mod settling;
mod unacked;

pub(in crate::session) use self::booked::Booked;
pub(in crate::session) use self::consumers::{Reads, Recipient};
pub(in crate::session) use self::deliveries::Deliveries;
pub(in crate::session) use self::frames::without_bits;
pub(in crate::session) use self::last_queue::{LastName, LastQueue};

use self::content::Content;
use self::halves::Halves;
use self::life::{Life, Then};
use crate::session::cx::Cx;
use crate::session::entry::Outcome;
use crate::session::fault::{Closes, Fault};
use crate::session::guard;
use crate::session::inbound::{Chunk, Inbound, Whole};
use crate::session::outbox::View;
use crate::session::probe::Finding;
use crate::session::rights::Right;
use crate::session::timers::earliest;
use crate::window::{Ticket, Verdict};
use crate::wire::ChannelId;
use crate::wire::frame::FrameKind;
use crate::wire::method::{MethodId, Settle};
use std::time::Instant;

/// One channel of the client, and the upstream channel of the same number.
#[derive(Debug)]
pub(in crate::session) struct Channel {
    /// tells the channel from earlier ones of the same number
    birth: u64,
    life: Life,
    halves: Halves,
    /// the message that the client is sending
    sending: Content,
    booked: Booked,
}

/// Bytes of a channel, with its place in the map of channels.
const CHANNEL: usize = size_of::<Channel>() + 64;

impl Channel {
    /// Creates the channel when `channel.open` is forwarded.
    pub(in crate::session) fn new(id: ChannelId, birth: u64) -> Channel {
        Channel {
            birth,
            life: Life::new(),
            halves: Halves::new(id, birth),
            sending: Content::default(),
            booked: Booked::default(),
        }
    }

    /// Returns true if this is the channel of that birth, and its next publish waits for the proof of a right.
    pub(in crate::session) fn waits_as(&self, birth: u64) -> bool {
        self.birth == birth && self.halves.publisher.is_held()
    }

    /// Returns the number of publishes that the upstream has not acked or nacked.
    pub(in crate::session) fn unsettled(&self) -> usize {
        self.halves.publisher.ledger().unsettled()
    }

    /// Returns true if others wait for one of `count` of these publishes, from this one on.
    pub(in crate::session) fn is_awaited(&self, from: usize, count: usize) -> bool {
        self.halves.publisher.ledger().is_awaited(from, count)
    }

    /// Returns true if both sides have closed the channel.
    pub(in crate::session) fn is_gone(&self) -> bool {
        self.life.is_gone()
    }

    /// Returns true if the client has still to answer a `channel.close`. That may be so after the channel is gone.
    pub(in crate::session) fn owes_close_ok(&self) -> bool {
        self.halves.owes_close_ok()
    }

    /// Returns true if confirms to the client are due.
    pub(in crate::session) fn is_due(&self) -> bool {
        self.halves.publisher.ledger().is_due()
    }

    /// Returns true if the client may believe that the number is free, but the upstream's channel is not closed yet.
    pub(in crate::session) fn is_free_for_client(&self) -> bool {
        self.life.is_free_for_client()
    }

    /// Returns what was booked last.
    pub(in crate::session) fn booked(&self) -> Booked {
        self.booked
    }

    /// Books the channel anew. Returns what was booked before, and what is booked now.
    pub(in crate::session) fn book(&mut self) -> (Booked, Booked) {
        let Halves { publisher, deliveries, guard, .. } = &self.halves;
        let held = publisher.held();
        let guarded = guard.as_ref().map_or(0, |guard| guard.memory());
        let stuck = CHANNEL + deliveries.memory() + guarded + publisher.stuck();
        let after = Booked {
            unresolved: publisher.unresolved(),
            held,
            memory: stuck + publisher.memory() + held,
            stuck: stuck + publisher.collecting(),
            hidden: usize::from(self.life.is_free_for_client()),
        };
        (std::mem::replace(&mut self.booked, after), after)
    }

    /// Returns true if every outcome is known and nothing waits.
    pub(in crate::session) fn is_settled(&self) -> bool {
        self.halves.is_settled()
    }

    /// Returns true if a client that publishes here hears no outcome.
    pub(in crate::session) fn is_silent(&self) -> bool {
        self.halves.publisher.ledger().is_silent()
    }

    /// Returns true if messages may be lost when the client's connection ends now. `is_unheard`: it has published and has heard no outcome.
    pub(in crate::session) fn would_lose(&self, is_unheard: bool) -> bool {
        is_unheard && self.is_silent() || self.halves.deliveries.has_got_acked()
    }

    /// Returns true if the broker would take back a delivery that was delivered before already, if the client's connection ended now. A
    /// channel that is not watched may have one if it has anything.
    pub(in crate::session) fn holds_redelivered(&self) -> bool {
        match &self.halves.guard {
            Some(guard) if guard.is_active() => guard.holds_redelivered(),
            _ => self.halves.deliveries.has_unacked(),
        }
    }

    /// Returns true if something has begun that only the client can end: a message that is not whole, a transaction with messages or acks
    /// in it, a delivery that it has not acked.
    pub(in crate::session) fn awaits_client(&self) -> bool {
        let Halves { publisher, deliveries, .. } = &self.halves;
        let begun =
            self.sending != Content::Idle || publisher.is_amid_transaction() || deliveries.has_unacked();
        self.life.is_open() && begun
    }

    /// Returns true if frames wait, and only the bound on unresolved publishes can stop them.
    pub(in crate::session) fn is_ready(&self) -> bool {
        self.halves.has_frames() && self.life.is_open() && !self.is_blocked()
    }

    /// Returns true if the client's next frame has to wait.
    fn is_blocked(&self) -> bool {
        self.halves.publisher.is_stalled() || self.is_stopped()
    }

    /// Returns true if the client's next frame has to wait for something else than a verdict.
    fn is_stopped(&self) -> bool {
        let refused = self.life.has_refusal() && !self.halves.publisher.is_forwarding();
        refused || self.halves.awaits_waiters() || self.life.is_changing_to_tx()
    }

    /// Returns when [`Channel::handle_timeout`] has something to do.
    pub(in crate::session) fn deadline(&self) -> Option<Instant> {
        let guard = self.halves.guard.as_ref().and_then(|guard| guard.deadline());
        earliest([self.life.deadline(&self.halves), self.halves.publisher.deadline(), guard])
    }

    // ---- from the client -------------------------------------------------------------------------------------------

    /// Handles a frame of the client. `whole`: the next frame in the same read is this channel's content header.
    pub(in crate::session) fn recv_client(
        &mut self,
        kind: FrameKind,
        frame: View<'_>,
        whole: bool,
        cx: &mut Cx<'_>,
    ) -> Result<(), Fault> {
        let blocked = self.is_blocked() || self.halves.has_frames();
        let (is_open, method) = (self.life.is_open(), frame.method(kind));
        self.sending = self.sending.after(kind, method, frame);
        // The number is in use. If the broker has received everything that the client has sent, it refuses the open itself.
        if method == Some(MethodId::CHANNEL_OPEN) && (blocked || !is_open) {
            return Err(Fault::SecondOpen);
        }
        if method == Some(MethodId::CHANNEL_CLOSE_OK) {
            self.halves.recv_client_close_ok();
        }
        if blocked && (is_open || self.life.is_changing_to_tx()) {
            self.halves.push_frame(kind, frame, cx);
            return Ok(());
        }
        if is_open {
            self.recv_open(kind, frame, whole, cx)?;
        } else {
            self.life.recv_client(kind, frame, &mut self.halves, cx);
        }
        self.advance(cx)
    }

    /// Handles publishes of the client that stand whole in the read that is being handled: `most` at most.
    pub(in crate::session) fn recv_publishes(&mut self, most: usize, cx: &mut Cx<'_>) -> Result<(), Fault> {
        let in_order = !self.life.has_refusal() && !self.halves.awaits_waiters() && !self.halves.has_frames();
        if !in_order || !self.life.is_open() || !self.halves.publisher.takes_publishes() {
            return Ok(());
        }
        let before = cx.link.publishes;
        self.halves.publisher.recv_publishes(most, cx)?;
        if cx.link.publishes != before {
            self.halves.note_unheard(cx);
        }
        self.advance(cx)
    }

    /// Handles a frame of the client on an open channel, when its turn has come.
    fn recv_open(
        &mut self,
        kind: FrameKind,
        frame: View<'_>,
        whole: bool,
        cx: &mut Cx<'_>,
    ) -> Result<(), Fault> {
        let Halves { publisher, deliveries, guard, .. } = &mut self.halves;
        let id = match frame.method(kind) {
            Some(id) if publisher.is_between_contents() => id,
            _ => return publisher.recv_content(kind, frame, cx),
        };
        match id {
            MethodId::BASIC_PUBLISH => {
                publisher.recv_publish(frame, whole);
                self.halves.note_unheard(cx);
                return Ok(());
            }
            MethodId::CONFIRM_SELECT => {
                deliveries.recv_confirm_select(frame);
                publisher.ledger_mut().select_confirm();
            }
            // Waiters were sent before the transaction, or belong to it. In both cases they come first.
            MethodId::TX_SELECT | MethodId::TX_COMMIT
                if !publisher.ledger().answers_client() && publisher.has_waiting() =>
            {
                self.halves.await_waiters(frame);
                return Ok(());
            }
            // Messages may follow the reply. It would wait behind `tx.commit-ok`, and they would overtake it.
            MethodId::BASIC_CONSUME | MethodId::BASIC_GET if publisher.ledger().owes_tx_ended() => {
                self.halves.await_tx_ended(frame);
                return Ok(());
            }
            MethodId::TX_SELECT if publisher.ledger().is_unseen() => {
                return self.life.recycle(frame, &self.halves, cx);
            }
            MethodId::TX_SELECT => publisher.ledger_mut().select_tx(),
            MethodId::TX_COMMIT => {
                deliveries.recv_tx_end();
                publisher.commit();
                guard.iter_mut().for_each(|guard| guard.recv_commit());
            }
            MethodId::TX_ROLLBACK => {
                deliveries.recv_tx_end();
                publisher.rollback();
                guard.iter_mut().for_each(|guard| guard.recv_rollback());
            }
            MethodId::CHANNEL_CLOSE => {
                self.halves.end_guard(cx);
                self.life.recv_client_close(frame, &mut self.halves, cx);
                return Ok(());
            }
            MethodId::QUEUE_DECLARE => {
                cx.link.exclusive.recv_declare(frame);
                deliveries.recv_declare(frame);
                self.halves.begin_guard(id, cx);
            }
            MethodId::QUEUE_DELETE => cx.link.exclusive.recv_delete(frame),
            MethodId::CHANNEL_FLOW => self.halves.round_trip.recv_client_flow(),
            MethodId::EXCHANGE_DECLARE => self.halves.declares.recv_declare(frame),
            MethodId::EXCHANGE_DELETE => self.halves.declares.recv_delete(frame, cx),
            id => return self.recv_consuming(id, frame, cx),
        }
        cx.link.out.upstream.forward(frame);
        Ok(())
    }

    /// Handles a method that may be about deliveries.
    fn recv_consuming(&mut self, id: MethodId, frame: View<'_>, cx: &mut Cx<'_>) -> Result<(), Fault> {
        self.halves.begin_guard(id, cx);
        match self.then_of(id, frame, cx)? {
            guard::Then::Forward => cx.link.out.upstream.forward(frame),
            guard::Then::Instead(method) => cx.link.out.upstream.push(method),
            guard::Then::Done => {}
        }
        Ok(())
    }

    /// Handles a method that may be about deliveries. Returns how it goes on.
    fn then_of(&mut self, id: MethodId, frame: View<'_>, cx: &mut Cx<'_>) -> Result<guard::Then, Fault> {
        let channel = self.halves.id();
        let Halves { publisher, deliveries, guard, .. } = &mut self.halves;
        let is_tx = publisher.ledger().is_tx();
        match (id, guard.as_deref_mut()) {
            (MethodId::BASIC_CONSUME, guard) => return Ok(deliveries.recv_consume(channel, frame, guard, cx)),
            (MethodId::BASIC_CANCEL, guard) => return Ok(deliveries.recv_cancel(frame, guard, cx)),
            (_, Some(guard)) => {
                let then = guard.recv_client(id, frame, is_tx, deliveries.last_queue(), cx)?;
                match (id, &then) {
                    // The guard knows what it has asked for.
                    (MethodId::BASIC_GET, guard::Then::Instead(_)) => deliveries.note_get(frame),
                    _ => deliveries.recv_client(id, frame, is_tx),
                }
                return Ok(then);
            }
            (_, None) => deliveries.recv_client(id, frame, is_tx),
        }
        // An ack that waited behind other frames while its client left would be one of an unknown tag.
        let is_void = deliveries.are_given_back() && settles(id);
        Ok(if is_void { guard::Then::Done } else { guard::Then::Forward })
    }

    // ---- late answers ----------------------------------------------------------------------------------------------

    /// Returns true if the client, or a publish, waits until a window's store has come so far.
    #[inline]
    pub(in crate::session) fn is_unremembered(&self) -> bool {
        self.halves.publisher.is_unremembered()
            || self.halves.guard.as_ref().is_some_and(|guard| guard.is_unremembered())
    }

    /// Handles that windows may remember more than before.
    pub(in crate::session) fn recv_remembered(&mut self, cx: &mut Cx<'_>) -> Result<(), Fault> {
        self.halves.publisher.recv_remembered(cx)?;
        if let Some(guard) = &mut self.halves.guard {
            guard.recv_remembered();
        }
        self.advance(cx)
    }

    /// Handles a verdict that came late.
    pub(in crate::session) fn recv_verdict(
        &mut self,
        ticket: Ticket,
        verdict: Verdict,
        cx: &mut Cx<'_>,
    ) -> Result<(), Fault> {
        let verdict = match &mut self.halves.guard {
            Some(guard) => guard.recv_verdict(ticket, verdict, cx),
            None => Err(verdict),
        };
        if let Err(verdict) = verdict {
            self.halves.publisher.recv_verdict(ticket, verdict, cx)?;
        }
        self.advance(cx)
    }

    /// Handles the broker's answer about a right that a publish of this channel waits for.
    pub(in crate::session) fn recv_finding(
        &mut self,
        right: Right,
        finding: Finding,
        cx: &mut Cx<'_>,
    ) -> Result<(), Fault> {
        self.halves.publisher.recv_finding(right, finding, cx)?;
        self.advance(cx)
    }

    /// Handles that [`Channel::deadline`] has passed.
    pub(in crate::session) fn handle_timeout(&mut self, cx: &mut Cx<'_>) -> Result<(), Fault> {
        self.halves.publisher.handle_timeout(cx)?;
        if let Some(guard) = &mut self.halves.guard {
            guard.handle_timeout(cx);
        }
        self.life.handle_timeout(cx.now)?;
        self.advance(cx)
    }

    // ---- from the upstream -----------------------------------------------------------------------------------------

    /// Handles a frame of the upstream.
    pub(in crate::session) fn recv_upstream(
        &mut self,
        kind: FrameKind,
        frame: View<'_>,
        cx: &mut Cx<'_>,
    ) -> Result<(), Fault> {
        let id = frame.method(kind);
        if let Some(id @ (MethodId::BASIC_ACK | MethodId::BASIC_NACK)) = id
            && self.halves.publisher.ledger().has_confirms()
            && let Ok(settle) = Settle::parse(frame.payload())
        {
            let outcome = if id == MethodId::BASIC_ACK { Outcome::Acked } else { Outcome::Nacked };
            if cx.link.chaos.is_some() && outcome == Outcome::Acked {
                self.halves.publisher.ledger().trouble(self.halves.id(), settle, cx);
            }
            self.halves.publisher.recv_settle(settle, outcome, cx);
            return self.advance(cx);
        }
        match self.life.recv_upstream(kind, id, frame, &mut self.halves, cx) {
            Then::ForClient => self.recv_for_client(kind, id, frame, cx),
            Then::Handled => {}
            Then::Wait => return Ok(()),
        }
        self.advance(cx)
    }

    /// Forwards the deliveries that stand whole in `read` and come next, `first` and those after it. Returns false if they
    /// have to be handled frame by frame.
    pub(in crate::session) fn recv_deliveries(
        &mut self,
        first: Whole,
        inbound: &mut Inbound,
        read: &Chunk,
        cx: &mut Cx<'_>,
    ) -> bool {
        let takes_whole = self.halves.deliveries.takes_whole();
        if !takes_whole || self.life.has_refusal() || !self.life.is_open() {
            return false;
        }
        self.flush(cx);
        if let Some(guard) = self.halves.guard.as_mut().filter(|guard| guard.is_active()) {
            let whole = guard.recv_whole(first, inbound, read, &mut self.halves.deliveries, cx);
            self.halves.advance_guard(cx);
            return whole;
        }
        let id = self.halves.id();
        self.halves.deliveries.forward_whole(id, first, inbound, read, cx);
        true
    }

    /// Handles a frame of the upstream that is for the client, as nearly all are.
    fn recv_for_client(&mut self, kind: FrameKind, id: Option<MethodId>, frame: View<'_>, cx: &mut Cx<'_>) {
        if let Some(id @ (MethodId::BASIC_CONSUME_OK | MethodId::BASIC_CANCEL_OK | MethodId::BASIC_CANCEL)) =
            id
            && !self.recv_change(id, frame, cx)
        {
            return;
        }
        let Halves { publisher, deliveries, guard, .. } = &mut self.halves;
        if let Some(guard) = guard
            && guard.recv_upstream(kind, id, frame, deliveries, cx)
        {
            return;
        }
        deliveries.note(kind, id, frame, cx);
        match id {
            Some(MethodId::BASIC_RETURN) if publisher.ledger().hears_returns() => {
                // It does not wait, and neither do its header and body.
                publisher.ledger_mut().delays(kind, id, frame);
                return deliveries.hold_return(frame);
            }
            Some(MethodId::CONFIRM_SELECT_OK) => {
                cx.link.out.client.forward(frame);
                return deliveries.recv_confirm_select_ok();
            }
            Some(MethodId::TX_COMMIT_OK | MethodId::TX_ROLLBACK_OK) => {
                if publisher.recv_tx_ended(frame, cx) {
                    return;
                }
            }
            Some(MethodId::QUEUE_DECLARE_OK) => {
                cx.link.exclusive.recv_declare_ok(frame);
                deliveries.recv_declare_ok(frame, cx);
            }
            Some(MethodId::CHANNEL_FLOW_OK) if self.halves.round_trip.recv_flow_ok() => return,
            Some(MethodId::EXCHANGE_DECLARE_OK) => self.halves.declares.recv_declare_ok(cx),
            Some(_) | None => {}
        }
        if self.halves.publisher.ledger_mut().delays(kind, id, frame) {
            return;
        }
        self.flush(cx);
        self.halves.forward_to_client(kind, id, frame, cx);
    }

    /// Handles `basic.consume-ok`, `basic.cancel-ok`, or `basic.cancel` of the broker. Returns true if the client expects it.
    fn recv_change(&mut self, id: MethodId, frame: View<'_>, cx: &mut Cx<'_>) -> bool {
        let is_expected = self.halves.recv_change(id, frame, cx);
        let is_new = id == MethodId::BASIC_CONSUME_OK;
        if is_new && self.halves.deliveries.are_unwanted() && self.life.is_open_or_settling() {
            self.halves.let_deliveries_go(cx);
        }
        is_expected
    }

    // ---- ends ------------------------------------------------------------------------------------------------------

    /// Handles that the process is about to end, and that the client still has something to finish: consumers that ack get nothing new.
    /// Does nothing while a message is being forwarded.
    pub(in crate::session) fn stop_consumers(&mut self, cx: &mut Cx<'_>) {
        if self.life.is_open() && !self.halves.publisher.is_forwarding() {
            self.halves.deliveries.cancel_acking(self.halves.id(), &mut cx.link.out.upstream);
        }
    }

    /// Closes the channel towards the client because of a fault. Gives the fault back if the whole connection has to end.
    pub(in crate::session) fn refuse(&mut self, fault: Fault, cx: &mut Cx<'_>) -> Result<(), Fault> {
        if self.life.refuse(fault, &mut self.halves, cx)? { self.advance(cx) } else { Ok(()) }
    }

    /// Gives up the channel because the process is short of memory, and only the client could end what the channel holds.
    pub(in crate::session) fn relieve(&mut self) -> Result<(), Fault> {
        let is_forwarding = self.halves.publisher.is_forwarding();
        let closes = if is_forwarding { Closes::Connection } else { Closes::Channel };
        Err(Fault::MemoryShort { held: self.booked.stuck, closes })
    }

    /// Writes the confirms that are due.
    pub(in crate::session) fn flush(&mut self, cx: &mut Cx<'_>) {
        self.life.flush(&mut self.halves, cx);
    }

    /// Handles the client's `connection.close`: the client will send nothing more.
    pub(in crate::session) fn finish(&mut self, cx: &mut Cx<'_>) -> Result<(), Fault> {
        self.life.finish();
        self.advance(cx)?;
        if !self.is_settled() && self.life.is_open() {
            self.halves.let_deliveries_go(cx);
        }
        Ok(())
    }

    /// Asks the broker for a sign that it has handled all that the client has sent. Returns true if it has given it, or if
    /// there is nothing to wait for.
    pub(in crate::session) fn ask_whether_all_is_said(&mut self, cx: &mut Cx<'_>) -> bool {
        if self.is_settled() || self.life.has_said_all(&self.halves) {
            return true;
        }
        if self.life.may_ask() {
            self.halves.ask_round_trip(cx);
        }
        false
    }

    /// Handles that the client has vanished, or will be told nothing more. Complete messages are settled. Everything else ends
    /// at once.
    pub(in crate::session) fn abandon(&mut self, cx: &mut Cx<'_>) -> Result<(), Fault> {
        self.life.abandon();
        self.halves.publisher.ledger_mut().client_gone();
        self.finish(cx)?;
        if self.halves.publisher.is_forwarding() || !self.life.is_open_or_settling() {
            return Ok(());
        }
        if self.is_settled() {
            self.life.close_settled(cx.now);
            return self.advance(cx);
        }
        Ok(())
    }

    /// Handles that `connection.close` is about to go upstream. Publishes that wait are dropped: they were never sent, so they
    /// are not in doubt. A publish that waits for the proof of a right, for a store, or for another's outcome is forwarded if its client
    /// hears no outcome: the client could not know that it was dropped, and the message would be lost.
    pub(in crate::session) fn end(&mut self, cx: &mut Cx<'_>) {
        // (What waited may have been `confirm.select`: from there on the client hears of its publishes.)
        while self.halves.publisher.ledger().is_silent() && self.life.is_open() {
            let sent = if self.halves.publisher.is_held() {
                // The other channels that wait for these answers end here, too.
                drop(cx.link.probes.give_up());
                self.recv_finding(Right::NONE, Finding::Unasked, cx)
            } else if self.halves.publisher.line().is_pending() {
                self.halves.publisher.send_pending(cx).and_then(|()| self.advance(cx))
            } else {
                break;
            };
            // A faulty publish is not forwarded, and nothing after it.
            if sent.is_err() {
                break;
            }
        }
        if self.life.is_open_upstream() {
            let unheard = self.halves.publisher.ledger().is_silent();
            if unheard && !self.life.is_open() && !self.halves.publisher.is_forwarding() {
                drop(self.halves.publisher.send_pending(cx));
            }
            self.halves.publisher.send_waiting(cx);
        }
        if self.life.is_open() {
            self.halves.end_guard(cx);
        }
        // A message that is not whole will never be, so nobody has to wait for the upstream's answer to know that.
        self.halves.publisher.client_done();
        self.halves.publisher.abandon_waiting();
        self.halves.drop_frames();
    }

    /// Handles that the upstream connection is gone.
    pub(in crate::session) fn upstream_lost(&mut self, now: Instant) {
        self.halves.publisher.upstream_closed(None, now);
        self.halves.guard.iter_mut().for_each(|guard| guard.give_up());
        self.halves.drop_frames();
    }

    // ---- going on ---------------------------------------------------------------------------------------------------

    /// Handles that there may be room again for frames that wait.
    pub(in crate::session) fn go_on(&mut self, cx: &mut Cx<'_>) -> Result<(), Fault> {
        self.advance(cx)
    }

    /// Does what the last event has made possible.
    fn advance(&mut self, cx: &mut Cx<'_>) -> Result<(), Fault> {
        self.halves.check_waiters();
        self.life.take_refusal(&self.halves)?;
        self.recv_waiting_frames(cx)?;
        self.halves.look_ahead(cx);
        if self.life.is_client_gone() && !self.halves.has_frames() && !self.is_blocked() {
            self.halves.publisher.client_done();
        }
        self.life.advance(&mut self.halves, cx);
        if self.halves.guard.is_some() {
            self.advance_guard(cx);
        }
        Ok(())
    }

    /// Shows the client what is ready and settles what is hidden, or ends the guard with its channel or its client.
    fn advance_guard(&mut self, cx: &mut Cx<'_>) {
        if self.life.is_changing_to_tx() {
            // It has had no deliveries, and goes on with the fresh channel.
        } else if !self.life.is_open() {
            self.halves.guard.iter_mut().for_each(|guard| guard.give_up());
        } else if self.life.is_client_gone() && !self.halves.has_frames() {
            self.halves.end_guard(cx);
        } else {
            self.halves.advance_guard(cx);
        }
    }

    /// Handles the frames that wait, as far as they may go on.
    fn recv_waiting_frames(&mut self, cx: &mut Cx<'_>) -> Result<(), Fault> {
        while self.halves.has_frames()
            && !self.is_stopped()
            && self.life.is_open()
            && (cx.may_publish(self.halves.publisher.unresolved())
                || !self.halves.publisher.is_between_contents())
        {
            if self.halves.publisher.recv_waiting_publishes(cx)? {
                continue;
            }
            if self.is_blocked() {
                break;
            }
            let Some(frame) = self.halves.publisher.line_mut().pop_frame() else { break };
            let frame = frame.view();
            if let Some(kind) = frame.kind() {
                self.recv_open(kind, frame, true, cx)?;
            }
        }
        Ok(())
    }
}

/// Returns true if this method of the client settles deliveries, or gives them back.
fn settles(id: MethodId) -> bool {
    guard::is_settle(id) || matches!(id, MethodId::BASIC_RECOVER | MethodId::BASIC_RECOVER_ASYNC)
}
