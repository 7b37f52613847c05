//! The two halves of a channel, and what both need: answers that are due, and `channel.close`s.

use super::declares::Declares;
use super::deliveries::Deliveries;
use super::frames;
use super::round_trip::RoundTrip;
use crate::session::cx::Cx;
use crate::session::entry::Hears;
use crate::session::fault::Fault;
use crate::session::guard::Guard;
use crate::session::outbox::{Piece, View};
use crate::session::publisher::{self, Publisher};
use crate::wire::frame::FrameKind;
use crate::wire::method::{MethodId, Return};
use crate::wire::{ChannelId, emit};

/// Bound on the repeated `channel.close`s that are answered. All of them are answered when the upstream says close-ok, which
/// may take long.
const CLOSES_AGAIN: u32 = 64;

/// Waiting frames that are looked at when a publish begins to wait for the proof of a right.
const LOOKED_AT: usize = 4_096;

/// The kind of frames that wait.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum WaitingFrames {
    /// They may be of any kind.
    Any,
    /// They are publishes only, and the first publish waits for the proof of a right. The broker is asked for theirs, too.
    OnlyPublishes,
    /// The first of them is `tx.select` or `tx.commit`. It waits for the waiters before it.
    TxFirst,
    /// The first of them is `basic.consume` or `basic.get`. It waits until the client has got `tx.commit-ok` or `tx.rollback-ok`.
    TxEnds,
}

/// The publishing and the consuming half of one channel.
#[derive(Debug)]
pub(super) struct Halves {
    id: ChannelId,
    pub(super) publisher: Publisher,
    pub(super) deliveries: Deliveries,
    /// judges deliveries, if a queue of the vhost may have a guard
    pub(super) guard: Option<Box<Guard>>,
    pub(super) round_trip: RoundTrip,
    pub(super) declares: Declares,
    waiting: WaitingFrames,
    /// How often the client has repeated its `channel.close`, up to [`CLOSES_AGAIN`].
    closes_again: u32,
    /// The client was sent `channel.close` and has not answered.
    owes_close_ok: bool,
}

impl Halves {
    /// Creates the halves of a channel that has just been opened.
    pub(super) fn new(id: ChannelId, birth: u64) -> Halves {
        Halves {
            id,
            publisher: Publisher::new(id, birth),
            deliveries: Deliveries::default(),
            guard: None,
            round_trip: RoundTrip::default(),
            declares: Declares::default(),
            waiting: WaitingFrames::Any,
            closes_again: 0,
            owes_close_ok: false,
        }
    }

    /// Returns the channel's number.
    pub(super) fn id(&self) -> ChannelId {
        self.id
    }

    /// Creates the guard of the channel, if a queue of the vhost may have one and the channel has not got deliveries without it.
    pub(super) fn begin_guard(&mut self, id: MethodId, cx: &Cx<'_>) {
        let begins = matches!(id, MethodId::QUEUE_DECLARE | MethodId::BASIC_CONSUME | MethodId::BASIC_GET);
        if begins && self.guard.is_none() && is_watched(cx) && !self.deliveries.has_begun() {
            self.guard = Some(Box::new(Guard::new(self.id)));
        }
    }

    /// Tells chaos if the client publishes here and hears no outcome.
    #[inline]
    pub(super) fn note_unheard(&self, cx: &mut Cx<'_>) {
        if let Some(chaos) = &mut cx.link.chaos
            && self.publisher.ledger().is_silent()
        {
            chaos.publishes_unheard(self.id);
        }
    }

    /// Shows the client what the guard has ready, and settles what it hides.
    #[inline]
    pub(super) fn advance_guard(&mut self, cx: &mut Cx<'_>) {
        let Halves { publisher, deliveries, guard, .. } = self;
        if let Some(guard) = guard {
            guard.advance(publisher, deliveries, cx);
        }
    }

    /// Handles `basic.consume-ok`, `basic.cancel-ok`, or `basic.cancel` of the broker. A consumer that is gone gives
    /// back what it has not been shown. Returns true if the client expects the method.
    pub(super) fn recv_change(&mut self, id: MethodId, frame: View<'_>, cx: &mut Cx<'_>) -> bool {
        let change = self.deliveries.recv_change(id, frame);
        if let Some(guard) = &mut self.guard
            && !change.gone.is_empty()
        {
            change.gone.into_iter().for_each(|number| guard.consumer_gone(number, cx));
            self.advance_guard(cx);
        }
        !change.is_own
    }

    /// Ends the guard: reservations are given back, and acks that were held back are sent.
    pub(super) fn end_guard(&mut self, cx: &mut Cx<'_>) {
        let Halves { publisher, guard, .. } = self;
        if let Some(guard) = guard {
            guard.end(publisher, cx);
        }
    }

    /// Returns true if a message is on its way and not complete, to the upstream or to the client.
    pub(super) fn is_amid_content(&self) -> bool {
        self.publisher.is_forwarding() || self.deliveries.is_amid_content()
    }

    /// Returns true if every outcome is known and nothing waits.
    pub(super) fn is_settled(&self) -> bool {
        self.publisher.is_settled() && !self.has_frames()
    }

    /// Returns true if confirms are due and may be written now.
    pub(super) fn may_flush(&self) -> bool {
        self.publisher.ledger().is_due() && self.deliveries.takes_confirms()
    }

    /// Writes the confirms that are due, and the replies of the upstream that had to wait for them.
    pub(super) fn flush(&mut self, cx: &mut Cx<'_>) {
        self.publisher.ledger_mut().flush(self.id, cx.link.out.client.made());
        while let Some(reply) = self.publisher.ledger_mut().pop_reply() {
            let frame = reply.view();
            match frame.kind() {
                Some(kind) => {
                    self.deliveries.forward(kind, frame.method(kind), frame, &mut cx.link.out.client);
                }
                None => cx.link.out.client.forward(frame),
            }
        }
    }

    /// Cancels the client's consumers. Does nothing while a message is being forwarded: no method may be sent amid it.
    pub(super) fn cancel_consumers(&mut self, cx: &mut Cx<'_>) {
        if !self.publisher.is_forwarding() {
            self.deliveries.cancel(self.id, &mut cx.link.out.upstream);
        }
    }

    /// Gives back all deliveries that the client has not acked. Does nothing while a message is being forwarded.
    pub(super) fn requeue(&mut self, cx: &mut Cx<'_>) {
        if !self.publisher.is_forwarding() {
            self.deliveries.requeue(self.id, &mut cx.link.out.upstream);
            self.guard.iter_mut().for_each(|guard| guard.mute());
        }
    }

    /// Cancels the client's consumers and gives back what they have not acked, because the client has closed the channel.
    pub(super) fn let_deliveries_go(&mut self, cx: &mut Cx<'_>) {
        self.cancel_consumers(cx);
        self.requeue(cx);
    }

    /// Asks the broker for a sign that it has handled all that was sent, if that may be asked now: nothing waits to be sent
    /// before it, and no message is on its way.
    pub(super) fn ask_round_trip(&mut self, cx: &mut Cx<'_>) {
        if !self.publisher.is_forwarding() && !self.publisher.is_held() && !self.has_frames() {
            self.round_trip.ask(self.id, &mut cx.link.out.upstream);
        }
    }

    /// Forwards a frame to the client. If it is the header of a return, the return is forwarded before it. A return that only
    /// Hapax had asked for ends here, with its body.
    pub(super) fn forward_to_client(
        &mut self,
        kind: FrameKind,
        id: Option<MethodId>,
        frame: View<'_>,
        cx: &mut Cx<'_>,
    ) {
        if let Some(returned) = self.deliveries.take_return(kind)
            && !self.forward_return(&returned, frame, cx)
        {
            self.deliveries.swallow(frame);
            return;
        }
        if self.deliveries.swallows(kind, frame) {
            return;
        }
        self.deliveries.forward(kind, id, frame, &mut cx.link.out.client);
    }

    /// Forwards a return, unless only Hapax had asked for it. Returns whether it did. If the window has redirected the publish,
    /// the return names the exchange that the client had named.
    fn forward_return(&mut self, returned: &Piece, header: View<'_>, cx: &mut Cx<'_>) -> bool {
        let payload = returned.view().payload();
        let fields = Return::parse(payload).ok();
        let hears = fields.map_or(Hears::Unknown, |fields| self.publisher.recv_return(&fields, header, cx));
        let named = match hears {
            Hears::Nobody => return false,
            Hears::Client(named) => named,
            Hears::Unknown => None,
        };
        match named.and_then(|named| emit::return_from(self.id, payload, &named).ok()) {
            Some(frame) => cx.link.out.client.push(frame),
            None => cx.link.out.client.forward(returned.view()),
        }
        true
    }

    // ---- frames that wait ------------------------------------------------------------------------------------------

    /// Returns true if frames of the client wait.
    #[inline]
    pub(super) fn has_frames(&self) -> bool {
        self.publisher.line().has_frames()
    }

    /// Returns true if `tx.select` or `tx.commit` waits for waiters, or another method for the end of a transaction: all frames
    /// wait behind it.
    #[inline]
    pub(super) fn awaits_waiters(&self) -> bool {
        matches!(self.waiting, WaitingFrames::TxFirst | WaitingFrames::TxEnds)
    }

    /// Puts a frame of the client behind those that wait.
    pub(super) fn push_frame(&mut self, kind: FrameKind, frame: View<'_>, cx: &mut Cx<'_>) {
        if self.waiting == WaitingFrames::OnlyPublishes && !ask_ahead(kind, frame, cx) {
            self.waiting = WaitingFrames::Any;
        }
        self.publisher.line_mut().push_frame(frame);
    }

    /// Puts `tx.select` or `tx.commit` before the frames that wait, until the waiters before it have their outcome.
    pub(super) fn await_waiters(&mut self, frame: View<'_>) {
        self.waiting = WaitingFrames::TxFirst;
        self.publisher.line_mut().push_frame_first(frame);
    }

    /// Puts a method before the frames that wait. It waits until the client has got `tx.commit-ok` or `tx.rollback-ok`.
    pub(super) fn await_tx_ended(&mut self, frame: View<'_>) {
        self.waiting = WaitingFrames::TxEnds;
        self.publisher.line_mut().push_frame_first(frame);
    }

    /// Lets the frames go on if there is nothing any more that they wait for.
    #[inline]
    pub(super) fn check_waiters(&mut self) {
        let waits = match self.waiting {
            WaitingFrames::Any | WaitingFrames::OnlyPublishes => return,
            WaitingFrames::TxFirst => self.publisher.has_waiting(),
            WaitingFrames::TxEnds => self.publisher.ledger().owes_tx_ended(),
        };
        if !waits {
            self.waiting = WaitingFrames::Any;
        }
    }

    /// When a publish has begun to wait for the proof of a right, asks for the rights of the publishes behind it, too. Then one
    /// answer of the broker lets all of them go on.
    #[inline]
    pub(super) fn look_ahead(&mut self, cx: &mut Cx<'_>) {
        if !self.publisher.take_newly_held() {
            return;
        }
        let mut frames = self.publisher.line().frames().take(LOOKED_AT);
        let only_publishes = frames.all(|frame| frame.kind().is_some_and(|kind| ask_ahead(kind, frame, cx)));
        self.waiting = if only_publishes { WaitingFrames::OnlyPublishes } else { WaitingFrames::Any };
    }

    /// Drops the frames that wait. Returns how many `channel.close`s of the client were among them.
    pub(super) fn drop_frames(&mut self) -> usize {
        self.waiting = WaitingFrames::Any;
        self.publisher.line_mut().drop_frames()
    }

    // ---- channel.close ---------------------------------------------------------------------------------------------

    /// Returns true if the client has not answered the `channel.close` that it was sent.
    pub(super) fn owes_close_ok(&self) -> bool {
        self.owes_close_ok
    }

    /// Handles the client's `channel.close-ok`.
    pub(super) fn recv_client_close_ok(&mut self) {
        self.owes_close_ok = false;
    }

    /// Handles a `channel.close` of the client on a channel that it has closed already: it is answered, too.
    pub(super) fn recv_client_close_again(&mut self) {
        self.closes_again = CLOSES_AGAIN.min(self.closes_again + 1);
    }

    /// Sends the client a `channel.close` because of this fault.
    pub(super) fn close_client(&mut self, fault: &Fault, cx: &mut Cx<'_>) {
        let close = frames::close(self.id, fault.code(), &fault.text(), fault.culprit());
        cx.link.out.client.push(close);
        self.owes_close_ok = true;
    }

    /// Forwards the upstream's `channel.close` to the client.
    pub(super) fn forward_close(&mut self, close: View<'_>, cx: &mut Cx<'_>) {
        cx.link.out.client.forward(close);
        self.owes_close_ok = true;
    }

    /// Answers every `channel.close` of the client.
    pub(super) fn answer_closes(&mut self, cx: &mut Cx<'_>) {
        for _ in 0..=std::mem::take(&mut self.closes_again) {
            cx.link.out.client.push(frames::close_ok(self.id));
        }
    }
}

/// Returns true if deliveries of this vhost may mean something to a window, or to chaos.
fn is_watched(cx: &Cx<'_>) -> bool {
    let (windows, vhost) = (&cx.shared.windows, cx.link.finder.vhost());
    windows.has_guards(vhost) || windows.releases(vhost) || cx.link.chaos.is_some()
}

/// Asks for the right that a waiting publish needs. Returns true if the frames after it may be looked at, too.
fn ask_ahead(kind: FrameKind, frame: View<'_>, cx: &mut Cx<'_>) -> bool {
    match frame.method(kind) {
        Some(MethodId::BASIC_PUBLISH) if cx.link.probes.has_room() => {
            publisher::ask(frame, None, cx);
            true
        }
        // Any other method may change where the publishes after it may go.
        Some(_) => false,
        None => true,
    }
}
