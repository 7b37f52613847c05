//! The publishing half of a channel: from `basic.publish` to the answer.
//!
//! A publish is held until its content header arrives, for the id is there. Then its fate is known, or it is not:
//!
//! ```text
//!   basic.publish --> Header --content header--> judge --+-- Fresh -------> Forward   (entry in the ledger)
//!                                                        +-- Duplicate ---> Swallow   (ack, once the body is in)
//!                                                        +-- InFlight ----> Keep      (aside, until the first one's outcome)
//!                                                        +-- Pending -----> stalled   (the channel's frames wait in order)
//! ```
//!
//! The body is never buffered to decide; it is streamed on, swallowed, or kept with a waiting publish. (A window whose
//! `id` is the body itself is the exception: `Collect`.)

use super::candidate::{Candidate, forward_to};
use super::confirms::{ClientTag, Confirms, UpstreamTag};
use super::cx::Cx;
use super::entry::{Entry, Outcome};
use super::fault::Fault;
use super::outbox::Piece;
use super::probe::Asker;
use super::transaction::Transactions;
use super::waiting::Waiting;
use crate::window::{
    Confirms as ConfirmRule, Event, ForgetCause, Key, MissingId, Mode as WindowMode, Reservation, Ticket,
    Window,
};
use crate::wire::frame::{FrameKind, OVERHEAD};
use crate::wire::method::{Publish, Return, Settle};
use crate::wire::properties::{ContentHeader, IdSource, IdValue};
use crate::wire::{ChannelId, emit};
use bytes::BytesMut;
use std::sync::Arc;
use std::time::{Duration, Instant};

/// How the upstream channel says what became of a publish.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Mode {
    /// Not at all.
    Plain,
    /// By acks. `client`: the client has selected confirms itself; otherwise Hapax has, unseen.
    Confirm { client: bool },
    /// By `tx.commit-ok`.
    Tx,
}

/// What becomes of the content that is being received.
#[derive(Debug)]
pub(super) enum Fate {
    /// It goes upstream. Without confirms there is no later sign: the key is committed when the last frame is written.
    Forward { at_write: Option<(Reservation, Duration)> },
    /// It ends here; this is said when it is complete.
    Swallow(Reply),
    /// It waits with the publish of this ticket.
    Keep(Ticket),
    /// Its body is the id.
    Collect(Box<Draft>),
}

/// What is said of a publish that is not forwarded.
#[derive(Debug)]
pub(super) enum Reply {
    Nothing,
    /// It is stored. To be said only to a user who may publish there.
    Duplicate {
        client: Option<ClientTag>,
        right: Key,
        publish: Piece,
    },
    Nack(ClientTag),
}

/// A publish whose id is its body.
#[derive(Debug)]
pub(super) struct Draft {
    window: Arc<dyn Window>,
    client: Option<ClientTag>,
    publish: Piece,
    header: Piece,
    /// octets of the body, all told
    size: u64,
    /// what is there of it
    body: Vec<u8>,
    /// the largest payload of its frames: it is cut into pieces of this size again
    largest: usize,
}

/// Where we are in the content that the client sends on this channel.
#[derive(Debug)]
pub(super) enum Content {
    Idle,
    /// `basic.publish` is held until its header comes.
    Header(Piece),
    Body {
        left: u64,
        fate: Fate,
    },
    /// The client has broken the rules and the broker is about to say so: all is passed on. `entered`: amid a content that
    /// has an entry.
    Opaque {
        entered: bool,
    },
}

/// See the module.
#[derive(Debug)]
pub(super) struct Publisher {
    pub(super) id: ChannelId,
    birth: u64,
    pub(super) mode: Mode,
    pub(super) content: Content,
    confirms: Confirms,
    pub(super) tx: Transactions,
    pub(super) waiting: Waiting,
    /// Duplicates whose user's right is being verified.
    asked: usize,
}

impl Publisher {
    pub(super) fn new(id: ChannelId, birth: u64, mode: Mode) -> Publisher {
        Publisher {
            id,
            birth,
            mode,
            content: Content::Idle,
            confirms: Confirms::new(),
            tx: Transactions::default(),
            waiting: Waiting::default(),
            asked: 0,
        }
    }

    pub(super) fn mode(&self) -> Mode {
        self.mode
    }

    pub(super) fn confirms(&mut self) -> &mut Confirms {
        &mut self.confirms
    }

    /// Whether answers to the client are due.
    pub(super) fn is_due(&self) -> bool {
        self.confirms.is_due()
    }

    /// Bytes held for waiting publishes.
    pub(super) fn held(&self) -> usize {
        self.waiting.held()
    }

    /// Publishes whose outcome is unknown, or whose answer waits behind another's. Those of an open transaction
    /// are not counted: the client has the next word there. So has it where one is not whole yet: reading must go on
    /// then, or its rest will never come.
    pub(super) fn unresolved(&self) -> usize {
        let (answers, waiting) = match &self.content {
            Content::Body { fate: Fate::Keep(_), .. } => (1, 1),
            Content::Body { fate: Fate::Forward { .. } | Fate::Swallow(_) | Fate::Collect(_), .. }
            | Content::Opaque { .. } => (1, 0),
            Content::Idle | Content::Header(_) => (0, 0),
        };
        let waiting = self.waiting.len().saturating_sub(waiting);
        self.confirms.span().saturating_sub(answers) + waiting + self.tx.ending_len()
    }

    /// Whether no content is being received.
    pub(super) fn is_between_contents(&self) -> bool {
        matches!(self.content, Content::Idle)
    }

    /// Whether the upstream has the beginning of a content and not its end: nothing else may go to it on this channel.
    pub(super) fn is_forwarding(&self) -> bool {
        matches!(self.content, Content::Body { fate: Fate::Forward { .. }, .. } | Content::Opaque { .. })
    }

    /// Octets that the upstream still waits for, of the content that it has the beginning of.
    pub(super) fn left_to_forward(&self) -> u64 {
        match self.content {
            Content::Body { left, fate: Fate::Forward { .. } } => left,
            _ => 0,
        }
    }

    /// Whether the newest entry is of a content that is not whole.
    fn is_amid_entry(&self) -> bool {
        matches!(
            self.content,
            Content::Body { fate: Fate::Forward { .. }, .. } | Content::Opaque { entered: true }
        )
    }

    /// Whether the channel's next frames have to wait for a verdict.
    pub(super) fn is_stalled(&self) -> bool {
        self.waiting.is_stalled()
    }

    /// Whether publishes wait for the outcome of others, or for the proof that they may be acked.
    pub(super) fn has_waiting(&self) -> bool {
        self.waiting.len() > 0 || self.asked > 0
    }

    /// The user was found to have the right that the publish of `client` needed.
    pub(super) fn verified(&mut self, client: Option<ClientTag>) {
        self.asked = self.asked.saturating_sub(1);
        client.into_iter().for_each(|tag| self.confirms.ack(tag));
    }

    /// Whether every complete publish has its outcome. (What is being forwarded when its client is gone will never be
    /// complete.)
    pub(super) fn is_settled(&self) -> bool {
        let incomplete = usize::from(self.is_amid_entry() && matches!(self.mode, Mode::Confirm { .. }));
        !self.has_waiting()
            && !self.is_stalled()
            && self.confirms.unsettled() <= incomplete
            && !self.tx.is_ending()
    }

    // ---- the client's frames -------------------------------------------------------------------------------------

    /// `basic.publish`, between contents. `whole` says that its header is next in the same read.
    pub(super) fn recv_publish(&mut self, publish: &Piece, whole: bool) {
        self.content = Content::Header(if whole { publish.clone() } else { publish.compact() });
    }

    /// A header or body frame, or a method where content was expected.
    pub(super) fn recv_content(
        &mut self,
        kind: FrameKind,
        piece: &Piece,
        cx: &mut Cx<'_>,
    ) -> Result<(), Fault> {
        let entered = self.is_amid_entry();
        match (std::mem::replace(&mut self.content, Content::Opaque { entered }), kind) {
            (Content::Header(publish), FrameKind::Header) => {
                let result = self.recv_header(publish, piece, cx);
                if result.is_err() {
                    self.content = Content::Idle;
                }
                result
            }
            (Content::Body { left, fate }, FrameKind::Body) => self.recv_body(left, fate, piece, cx),
            // From here on the client is in the wrong. Where the broker is in the same state as the client, it says so.
            (Content::Header(publish), _) => {
                cx.out.upstream.forward(&publish);
                cx.out.upstream.forward(piece);
                Ok(())
            }
            (Content::Body { fate: Fate::Swallow(_) | Fate::Keep(_) | Fate::Collect(_), .. }, got) => {
                Err(Fault::Unexpected { channel: self.id, got: name(got) })
            }
            (
                Content::Idle | Content::Opaque { .. } | Content::Body { fate: Fate::Forward { .. }, .. },
                _,
            ) => {
                cx.out.upstream.forward(piece);
                Ok(())
            }
        }
    }

    fn recv_header(&mut self, publish: Piece, header: &Piece, cx: &mut Cx<'_>) -> Result<(), Fault> {
        // A header of another class is the broker's to refuse, too.
        let (Ok(fields), Ok((60, left))) =
            (Publish::parse(publish.payload()), ContentHeader::size_of(header.payload()))
        else {
            cx.out.upstream.forward(&publish);
            cx.out.upstream.forward(header);
            return Ok(());
        };
        if self.mode == Mode::Tx && self.tx.open_len() >= cx.shared.settings.max_unresolved {
            return Err(Fault::TxTooLarge { max: cx.shared.settings.max_unresolved });
        }
        let client =
            matches!(self.mode, Mode::Confirm { client: true }).then(|| self.confirms.next_client_tag());
        let window =
            cx.finder.find(cx.shared, fields.exchange).filter(|window| window.mode() != WindowMode::Off);
        let Some(window) = window.filter(|_| !fields.immediate) else {
            cx.shared.listener.unmatched();
            return self.forward_unjudged(client, None, &publish, header, left, cx);
        };
        let rules = window.rules();
        let target = rules.forward_to.as_deref();
        let Ok(found) = ContentHeader::parse(header.payload(), &rules.id) else {
            window.notice(Event::NoId);
            return self.forward_unjudged(client, target, &publish, header, left, cx);
        };
        if found.bypass {
            window.notice(Event::Bypassed);
            return self.forward_unjudged(client, target, &publish, header, left, cx);
        }
        if rules.id == IdSource::Body && left > 0 {
            let room = usize::try_from(left).is_ok_and(|left| cx.has_room(self.waiting.held(), left));
            if room {
                let (publish, header) = (publish.compact(), header.compact());
                self.waiting.hold(size_of(left));
                let draft =
                    Draft { window, client, publish, header, size: left, body: Vec::new(), largest: 0 };
                self.content = Content::Body { left, fate: Fate::Collect(Box::new(draft)) };
                return Ok(());
            }
        }
        let Some(id) = found.id.filter(|id| !id.is_empty()) else {
            window.notice(Event::NoId);
            if rules.missing_id == MissingId::Reject {
                return Err(Fault::MissingId {
                    window: (&*rules.name).into(),
                    id: rules.id.to_string().into(),
                });
            }
            return self.forward_unjudged(client, target, &publish, header, left, cx);
        };
        let key =
            cx.shared.keys.key(rules.scope, cx.finder.vhost(), fields.exchange, fields.routing_key, &id);
        let ttl = found.cache_ttl_ms.map_or_else(|| window.ttl(), Duration::from_millis);
        let target = rules.forward_to.as_deref().map_or(fields.exchange, str::as_bytes);
        let right = cx.rights.needed(&cx.shared.keys, target, fields.routing_key);
        let return_key =
            fields.mandatory.then(|| cx.return_key(target, fields.routing_key, found.message_id));
        let header = header.clone();
        let candidate = Candidate {
            window,
            key,
            ttl,
            client,
            right,
            return_key,
            publish,
            header,
            body: Vec::new(),
            left,
        };
        self.judge(candidate, cx)
    }

    fn recv_body(&mut self, left: u64, mut fate: Fate, piece: &Piece, cx: &mut Cx<'_>) -> Result<(), Fault> {
        let Some(left) = left.checked_sub(piece.payload().len() as u64) else {
            return match fate {
                Fate::Forward { .. } => {
                    cx.out.upstream.forward(piece);
                    Ok(())
                }
                Fate::Swallow(_) | Fate::Keep(_) | Fate::Collect(_) => {
                    Err(Fault::Unexpected { channel: self.id, got: "too large content body" })
                }
            };
        };
        match &mut fate {
            Fate::Forward { .. } => cx.out.upstream.forward(piece),
            Fate::Swallow(_) => {}
            Fate::Keep(ticket) => {
                self.waiting.extend(*ticket, piece, left);
            }
            Fate::Collect(draft) => {
                draft.body.extend_from_slice(piece.payload());
                draft.largest = draft.largest.max(piece.payload().len());
            }
        }
        self.content = Content::Body { left, fate };
        self.complete_if_whole(cx)
    }

    /// What follows once the last octet of a content is here.
    pub(super) fn complete_if_whole(&mut self, cx: &mut Cx<'_>) -> Result<(), Fault> {
        if !matches!(self.content, Content::Body { left: 0, .. }) {
            return Ok(());
        }
        if let Content::Body { fate, .. } = std::mem::replace(&mut self.content, Content::Idle) {
            match fate {
                Fate::Forward { at_write } => commit_at_write(at_write, cx.now),
                Fate::Swallow(reply) => self.reply(reply, cx),
                Fate::Keep(_) => {}
                Fate::Collect(draft) => self.judge_collected(*draft, cx)?,
            }
        }
        self.forward_promoted(cx);
        Ok(())
    }

    fn judge_collected(&mut self, draft: Draft, cx: &mut Cx<'_>) -> Result<(), Fault> {
        let Draft { window, client, publish, header, size, body: whole, largest } = draft;
        self.waiting.release(size_of(size));
        let rules = window.rules();
        let (Ok(fields), Ok(found)) =
            (Publish::parse(publish.payload()), ContentHeader::parse(header.payload(), &rules.id))
        else {
            return Ok(());
        };
        let key = cx.shared.keys.key(
            rules.scope,
            cx.finder.vhost(),
            fields.exchange,
            fields.routing_key,
            &IdValue::Bytes(&whole),
        );
        let ttl = found.cache_ttl_ms.map_or_else(|| window.ttl(), Duration::from_millis);
        let target = rules.forward_to.as_deref().map_or(fields.exchange, str::as_bytes);
        let right = cx.rights.needed(&cx.shared.keys, target, fields.routing_key);
        let return_key =
            fields.mandatory.then(|| cx.return_key(target, fields.routing_key, found.message_id));
        let body = in_frames(self.id, &whole, largest);
        self.judge(
            Candidate { window, key, ttl, client, right, return_key, publish, header, body, left: 0 },
            cx,
        )
    }

    // ---- forwarding ----------------------------------------------------------------------------------------------

    pub(super) fn forward(
        &mut self,
        candidate: Candidate,
        reservation: Option<Reservation>,
        cx: &mut Cx<'_>,
    ) -> Fate {
        if self.mode == Mode::Plain && candidate.window.rules().confirms == ConfirmRule::Shadow {
            cx.out.upstream.push(emit::confirm_select(self.id));
            self.mode = Mode::Confirm { client: false };
        }
        let entry = candidate.forward(self.id, reservation, &mut cx.out.upstream, cx.now);
        Fate::Forward { at_write: self.enter(entry) }
    }

    fn forward_unjudged(
        &mut self,
        client: Option<ClientTag>,
        target: Option<&str>,
        publish: &Piece,
        header: &Piece,
        left: u64,
        cx: &mut Cx<'_>,
    ) -> Result<(), Fault> {
        let named = forward_to(target, self.id, publish, &mut cx.out.upstream);
        cx.out.upstream.forward(header);
        if self.mode != Mode::Plain {
            let fields = Publish::parse(publish.payload()).ok().filter(|fields| fields.mandatory);
            let return_key = fields.map(|fields| {
                let found = ContentHeader::parse(header.payload(), &IdSource::MessageId).ok();
                let exchange = target.map_or(fields.exchange, str::as_bytes);
                cx.return_key(exchange, fields.routing_key, found.and_then(|found| found.message_id))
            });
            let since = cx.now;
            self.enter(Entry {
                client,
                reservation: None,
                since,
                right: None,
                return_key,
                returned: false,
                named,
            });
        }
        self.content = Content::Body { left, fate: Fate::Forward { at_write: None } };
        self.complete_if_whole(cx)
    }

    /// Puts a forwarded publish where its outcome will find it; without confirms or tx there is no such place.
    fn enter(&mut self, entry: Entry) -> Option<(Reservation, Duration)> {
        match self.mode {
            Mode::Plain => return entry.reservation,
            Mode::Confirm { .. } => self.confirms.forwarded(entry),
            Mode::Tx => self.tx.forwarded(entry),
        }
        None
    }

    pub(super) fn reply(&mut self, reply: Reply, cx: &mut Cx<'_>) {
        match reply {
            Reply::Nothing => {}
            Reply::Nack(tag) => self.confirms.nack(tag),
            Reply::Duplicate { client, right, publish } => {
                if cx.rights.knows(&cx.shared.rights, right, cx.now) {
                    client.into_iter().for_each(|tag| self.confirms.ack(tag));
                } else if let Ok(fields) = Publish::parse(publish.payload()) {
                    let asker = Asker { channel: self.id, birth: self.birth, client };
                    let window = cx.finder.find(cx.shared, fields.exchange);
                    let target = window.as_ref().and_then(|window| window.rules().forward_to.as_deref());
                    let exchange = target.map_or(fields.exchange, str::as_bytes);
                    self.asked += usize::from(cx.probes.ask(right, exchange, fields.routing_key, asker));
                }
            }
        }
    }

    // ---- what the upstream says ----------------------------------------------------------------------------------

    /// `basic.ack` or `basic.nack`.
    pub(super) fn recv_settle(&mut self, settle: Settle, outcome: Outcome, cx: &mut Cx<'_>) {
        let Cx { shared, rights, now, .. } = cx;
        self.confirms.settle(UpstreamTag(settle.tag), settle.multiple, outcome, |entry| {
            shared.listener.publish_latency(now.saturating_duration_since(entry.since));
            entry.right.into_iter().for_each(|right| rights.learn(&shared.rights, right, *now));
            match outcome {
                Outcome::Acked => entry.stored(*now),
                Outcome::Nacked => entry.forget(ForgetCause::Nack),
            }
        });
    }

    /// `basic.return` with its header. Gives back the exchange that the client had named, where it was another.
    pub(super) fn recv_return(
        &mut self,
        fields: &Return<'_>,
        header: &Piece,
        cx: &Cx<'_>,
    ) -> Option<Box<[u8]>> {
        let found = ContentHeader::parse(header.payload(), &IdSource::MessageId).ok();
        let message_id = found.and_then(|found| found.message_id);
        let key = cx.return_key(fields.exchange, fields.routing_key, message_id);
        let entry = match self.mode {
            Mode::Plain => None,
            Mode::Confirm { .. } => self.confirms.returned(key),
            Mode::Tx => self.tx.returned(key),
        };
        entry.and_then(|entry| entry.named.take())
    }

    /// `tx.commit-ok` or `tx.rollback-ok`.
    pub(super) fn recv_tx_ended(&mut self, cx: &mut Cx<'_>) {
        let Cx { shared, rights, now, .. } = cx;
        self.tx.ended(*now, |right| rights.learn(&shared.rights, right, *now));
    }

    // ---- modes ---------------------------------------------------------------------------------------------------

    /// The client selects confirms: from here on it counts.
    pub(super) fn select_confirm(&mut self) {
        match self.mode {
            Mode::Plain | Mode::Confirm { .. } => self.mode = Mode::Confirm { client: true },
            Mode::Tx => {}
        }
    }

    /// The client selects tx.
    pub(super) fn select_tx(&mut self) {
        if self.mode == Mode::Plain {
            self.mode = Mode::Tx;
        }
    }

    pub(super) fn commit(&mut self) {
        if self.mode == Mode::Tx {
            self.tx.commit();
        }
    }

    pub(super) fn rollback(&mut self) {
        if self.mode == Mode::Tx {
            self.drop_waiting();
            self.tx.rollback();
        }
    }

    // ---- ends ----------------------------------------------------------------------------------------------------

    /// The client will send nothing more on this channel: content that is not whole never will be, and an open transaction
    /// is rolled back.
    pub(super) fn client_done(&mut self) {
        match std::mem::replace(&mut self.content, Content::Idle) {
            Content::Body { fate: Fate::Keep(ticket), .. } => drop(self.waiting.take(ticket)),
            Content::Body { fate: Fate::Collect(draft), .. } => {
                self.waiting.release(size_of(draft.size));
            }
            // Nothing can follow on this channel any more.
            content @ (Content::Body { fate: Fate::Forward { .. }, .. } | Content::Opaque { .. }) => {
                self.content = content;
                self.abandon_waiting();
            }
            Content::Idle | Content::Header(_) | Content::Body { fate: Fate::Swallow(_), .. } => {}
        }
        if self.mode == Mode::Tx {
            self.drop_waiting();
            self.tx.abandon_open();
        }
    }

    /// The upstream channel is closed: what it has not answered, it never will.
    pub(super) fn upstream_channel_closed(&mut self) {
        self.give_back(|entry| entry.forget(ForgetCause::ChannelClosed));
    }

    /// The upstream connection is gone: nobody knows what it has stored.
    pub(super) fn upstream_lost(&mut self, now: Instant) {
        self.give_back(|entry| entry.in_doubt(now));
    }

    fn give_back(&mut self, mut each: impl FnMut(Entry)) {
        // What was not sent whole was not stored, whatever the rule.
        // (In a transaction it is in the open one, which is forgotten anyway.)
        let incomplete = self.is_amid_entry() && matches!(self.mode, Mode::Confirm { .. });
        let mut entries: Vec<Entry> =
            self.confirms.take_unsettled().chain(self.tx.take_unsettled()).collect();
        if incomplete && let Some(entry) = entries.pop() {
            entry.forget(ForgetCause::Incomplete);
        }
        entries.into_iter().for_each(&mut each);
        if let Content::Body { fate: Fate::Forward { at_write: Some((reservation, _)) }, .. } =
            std::mem::replace(&mut self.content, Content::Idle)
        {
            reservation.forget(ForgetCause::Incomplete);
        }
        self.abandon_waiting();
    }

    /// The client is told that its channel is closed. What waits without a tag was sent before that: it keeps waiting,
    /// for nobody would send it again.
    pub(super) fn refused(&mut self) {
        if matches!(self.mode, Mode::Plain | Mode::Confirm { client: false }) {
            self.asked = 0;
            drop(self.waiting.take_stalled());
        } else {
            self.abandon_waiting();
        }
    }

    /// Nobody asks any more for what waits.
    pub(super) fn abandon_waiting(&mut self) {
        self.asked = 0;
        self.drop_waiting();
        drop(self.waiting.take_stalled());
    }

    fn drop_waiting(&mut self) {
        self.waiting.drop_queued();
        if let Content::Body { fate, .. } = &mut self.content
            && matches!(fate, Fate::Keep(_))
        {
            *fate = Fate::Swallow(Reply::Nothing);
        }
    }
}

pub(super) fn commit_at_write(at_write: Option<(Reservation, Duration)>, now: Instant) {
    if let Some((reservation, ttl)) = at_write {
        reservation.commit(now, ttl);
    }
}

/// A body in frames of this payload.
fn in_frames(channel: ChannelId, body: &[u8], payload: usize) -> Vec<u8> {
    let mut frames = BytesMut::with_capacity(body.len() + OVERHEAD);
    for piece in body.chunks(payload.max(1)) {
        emit::body(&mut frames, channel, piece);
    }
    frames.into()
}

/// Octets of a body as bytes of memory.
fn size_of(octets: u64) -> usize {
    usize::try_from(octets).unwrap_or(usize::MAX)
}

fn name(kind: FrameKind) -> &'static str {
    match kind {
        FrameKind::Method => "method",
        FrameKind::Header => "content header",
        FrameKind::Body => "content body",
        FrameKind::Heartbeat => "heartbeat",
    }
}
