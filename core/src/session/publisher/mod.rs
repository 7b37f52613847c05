//! The publishing half of a channel: from `basic.publish` to the answer.
//!
//! A publish is held until its content header arrives, for the id is there. Where the broker has not shown yet that the user
//! may publish there, it is held until that is proven ([`held`]), and its channel with it. Then its fate is known, or it is not:
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

mod ends;
mod held;
mod outcome;
mod progress;
mod run;
mod verdict;

pub(in crate::session) use held::ask;

use self::progress::Progress;
use crate::session::blame::Blame;
use crate::session::candidate::{Candidate, Terms, forward_to};
use crate::session::confirms::{ClientTag, Confirms, UpstreamTag};
use crate::session::cx::{Cx, Judge, Route};
use crate::session::entry::{Entry, Mandatory, Outcome};
use crate::session::fault::Fault;
use crate::session::outbox::{Piece, View};
use crate::session::probe::{Asker, Finding};
use crate::session::returns::ReturnKey;
use crate::session::rights::Standing;
use crate::session::transaction::Transactions;
use crate::session::waiting::{Waiter, Waiting};
use crate::session::written::Written;
use crate::window::{
    Confirms as ConfirmRule, Event, ForgetCause, Key, KeyMaker, MissingId, Reservation, Reservations, Scoped,
    Ticket, Window,
};
use crate::wire::frame::{FrameKind, OVERHEAD};
use crate::wire::method::{Publish, Return, Settle};
use crate::wire::properties::{BASIC, ContentHeader, IdSource, IdValue};
use crate::wire::{ChannelId, emit};
use bytes::{Bytes, BytesMut};
use std::sync::Arc;
use std::time::{Duration, Instant};

/// How the upstream channel says what became of a publish.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(in crate::session) enum Mode {
    /// Not at all.
    Plain,
    /// By acks. `client`: the client has selected confirms itself; otherwise Hapax has, unseen.
    Confirm { client: bool },
    /// By `tx.commit-ok`.
    Tx,
}

/// What becomes of the content that is being received.
#[derive(Debug)]
pub(in crate::session) enum Fate {
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
#[derive(Clone, Copy, Debug)]
pub(in crate::session) enum Reply {
    Nothing,
    Ack(ClientTag),
    Nack(ClientTag),
}

/// A publish that is not judged before its user is known to have the right to publish there. Its channel waits with it.
#[derive(Debug)]
struct Held {
    right: Key,
    publish: Piece,
    header: Piece,
    /// the header, and what is there of the body
    content: Piece,
    /// octets of the body that are still to come
    left: u64,
}

impl Held {
    fn size(&self) -> usize {
        self.publish.view().len() + self.header.view().len() + self.content.view().len()
    }
}

/// A publish whose id is its body.
#[derive(Debug)]
pub(in crate::session) struct Draft {
    window: Arc<dyn Window>,
    client: Option<ClientTag>,
    scoped: Scoped,
    right: Key,
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
pub(in crate::session) enum Content {
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

/// A publish whose header is here.
#[derive(Clone, Copy)]
struct Start<'a> {
    publish: View<'a>,
    header: View<'a>,
    /// the header, and what is there of the body
    content: View<'a>,
    /// octets of the body that are still to come
    left: u64,
}

/// Bytes of a publish in the ledger: its entry, its slot, its reservation in the window, and what a return would show.
const ENTRY: usize = std::mem::size_of::<Entry>() + 128;
/// The same in a transaction, whose keys are in a set, too.
const TX_ENTRY: usize = ENTRY + 32;
/// Bytes of a publish that waits, beside its frames: its place here and in the window.
const WAITER: usize = std::mem::size_of::<Waiter>() + 128;

/// What a window finds in a content header.
enum Reading {
    /// An id. (The client's tag is not known here.)
    Plain(Terms),
    /// The id is the body.
    Body,
    Bypass,
    NoId,
    /// The broker's to refuse.
    Malformed,
}

impl Reading {
    #[inline]
    fn of(header: View<'_>, route: &Route, judge: &Judge, standing: Standing, keys: &KeyMaker) -> Reading {
        let rules = judge.window.rules();
        let Ok(found) = ContentHeader::parse(header.payload(), &rules.id) else { return Reading::Malformed };
        if found.bypass {
            return Reading::Bypass;
        }
        if rules.id == IdSource::Body {
            return Reading::Body;
        }
        let Some(id) = found.id else { return Reading::NoId };
        let return_key = || ReturnKey::new(keys, &route.target, &route.routing_key, header.payload());
        Reading::Plain(Terms {
            claim: judge.needs.scoped(&judge.scoped, standing).key(&id).into(),
            ttl: ttl_of(&found, &judge.window),
            client: None,
            right: judge.needs.right,
            return_key: route.mandatory.then(return_key),
        })
    }
}

/// See the module.
#[derive(Debug)]
pub(in crate::session) struct Publisher {
    id: ChannelId,
    birth: u64,
    mode: Mode,
    content: Content,
    confirms: Confirms,
    tx: Transactions,
    pub(in crate::session) waiting: Waiting,
    held: Option<Held>,
    /// It has begun to wait since somebody asked.
    newly_held: bool,
    progress: Progress,
    /// What was committed when it was written.
    written: Option<Box<Written>>,
}

impl Publisher {
    pub(in crate::session) fn new(id: ChannelId, birth: u64, mode: Mode) -> Publisher {
        Publisher {
            id,
            birth,
            mode,
            content: Content::Idle,
            confirms: Confirms::new(),
            tx: Transactions::default(),
            waiting: Waiting::default(),
            held: None,
            newly_held: false,
            progress: Progress::default(),
            written: None,
        }
    }

    pub(in crate::session) fn mode(&self) -> Mode {
        self.mode
    }

    pub(in crate::session) fn confirms(&mut self) -> &mut Confirms {
        &mut self.confirms
    }

    /// Whether answers to the client are due.
    pub(in crate::session) fn is_due(&self) -> bool {
        self.confirms.is_due()
    }

    /// Bytes held for waiting publishes.
    pub(in crate::session) fn held(&self) -> usize {
        self.waiting.held()
    }

    /// Bytes that what is in the ledger and what waits takes, beside what is [held](Publisher::held) and
    /// [stuck](Publisher::stuck).
    pub(in crate::session) fn memory(&self) -> usize {
        (self.confirms.span() + self.tx.ending_len()) * ENTRY + self.waiting.len() * WAITER
    }

    /// Bytes of the open transaction. (A body that is its own id is held already: [`Publisher::collecting`].)
    pub(in crate::session) fn stuck(&self) -> usize {
        self.tx.open_len() * TX_ENTRY
    }

    /// Bytes held for a body that is its own id: nobody but the client can end it.
    pub(in crate::session) fn collecting(&self) -> usize {
        match &self.content {
            Content::Body { fate: Fate::Collect(draft), .. } => size_of(draft.size),
            Content::Body { .. } | Content::Idle | Content::Header(_) | Content::Opaque { .. } => 0,
        }
    }

    /// Publishes whose outcome is unknown, or whose answer waits behind another's. Those of an open transaction
    /// are not counted: the client has the next word there. So has it where one is not whole yet: reading must go on
    /// then, or its rest will never come.
    pub(in crate::session) fn unresolved(&self) -> usize {
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
    pub(in crate::session) fn is_between_contents(&self) -> bool {
        matches!(self.content, Content::Idle)
    }

    /// Whether the upstream has the beginning of a content and not its end: nothing else may go to it on this channel.
    pub(in crate::session) fn is_forwarding(&self) -> bool {
        matches!(self.content, Content::Body { fate: Fate::Forward { .. }, .. } | Content::Opaque { .. })
    }

    /// Octets that the upstream still waits for, of the content that it has the beginning of.
    pub(in crate::session) fn left_to_forward(&self) -> u64 {
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

    /// Whether the channel's next frames have to wait for a verdict, or for the proof of a right.
    pub(in crate::session) fn is_stalled(&self) -> bool {
        self.waiting.is_stalled() || self.is_held()
    }

    /// Whether the next publish waits for the proof of a right.
    pub(in crate::session) fn is_held(&self) -> bool {
        self.held.is_some()
    }

    /// Whether a publish has begun to wait for the proof of a right since the last call.
    pub(in crate::session) fn take_newly_held(&mut self) -> bool {
        std::mem::take(&mut self.newly_held) && self.is_held()
    }

    /// Whether publishes wait for the outcome of others.
    pub(in crate::session) fn has_waiting(&self) -> bool {
        self.waiting.len() > 0
    }

    /// Whether every complete publish has its outcome. (What is being forwarded when its client is gone will never be
    /// complete.)
    pub(in crate::session) fn is_settled(&self) -> bool {
        let incomplete = usize::from(self.is_amid_entry() && matches!(self.mode, Mode::Confirm { .. }));
        !self.has_waiting()
            && !self.is_stalled()
            && self.confirms.unsettled() <= incomplete
            && !self.tx.is_ending()
    }

    /// `basic.publish`, between contents. `whole` says that its header is next in the same read.
    pub(in crate::session) fn recv_publish(&mut self, publish: View<'_>, whole: bool) {
        self.content = Content::Header(if whole { publish.piece() } else { publish.compact() });
    }

    /// A header or body frame, or a method where content was expected.
    pub(in crate::session) fn recv_content(
        &mut self,
        kind: FrameKind,
        frame: View<'_>,
        cx: &mut Cx<'_>,
    ) -> Result<(), Fault> {
        let entered = self.is_amid_entry();
        match (std::mem::replace(&mut self.content, Content::Opaque { entered }), kind) {
            (Content::Header(publish), FrameKind::Header) => {
                let result = self.recv_header(publish.view(), frame, cx);
                if result.is_err() {
                    self.content = Content::Idle;
                }
                result
            }
            (Content::Body { left, fate }, FrameKind::Body) => self.recv_body(left, fate, frame, cx),
            // From here on the client is in the wrong. Where the broker is in the same state as the client, it says so.
            (Content::Header(publish), _) => {
                cx.out.upstream.forward(publish.view());
                cx.out.upstream.forward(frame);
                Ok(())
            }
            (Content::Body { fate: Fate::Swallow(_) | Fate::Keep(_) | Fate::Collect(_), .. }, got) => {
                Err(Fault::Unexpected { channel: self.id, got: name(got) })
            }
            (
                Content::Idle | Content::Opaque { .. } | Content::Body { fate: Fate::Forward { .. }, .. },
                _,
            ) => {
                cx.out.upstream.forward(frame);
                Ok(())
            }
        }
    }

    fn recv_header(&mut self, publish: View<'_>, header: View<'_>, cx: &mut Cx<'_>) -> Result<(), Fault> {
        // A header of another class is the broker's to refuse.
        let Ok((BASIC, left)) = ContentHeader::size_of(header.payload()) else {
            cx.out.upstream.forward(publish);
            cx.out.upstream.forward(header);
            return Ok(());
        };
        self.recv_start(Start { publish, header, content: header, left }, cx)
    }

    /// A publish whose header is here: what becomes of it?
    fn recv_start(&mut self, start: Start<'_>, cx: &mut Cx<'_>) -> Result<(), Fault> {
        let Start { publish, header, content, left } = start;
        // What can't be understood is the broker's to refuse, too.
        let Some(route) = cx.finder.route(cx.shared, cx.rights, publish.payload()) else {
            cx.out.upstream.forward(publish);
            cx.out.upstream.forward(content);
            return Ok(());
        };
        if self.mode == Mode::Tx && self.tx.open_len() >= cx.shared.settings.max_unresolved {
            return Err(Fault::TxTooLarge { max: cx.shared.settings.max_unresolved });
        }
        let mandatory = route.mandatory;
        let Some(judge) = route.judge() else {
            cx.shared.listener.unmatched();
            let client = self.next_client_tag();
            return self.forward_unjudged(client, None, None, mandatory, start, cx);
        };
        let standing = cx.rights.standing(&cx.shared.rights, &judge.needs, cx.now);
        let reading = Reading::of(header, route, judge, standing, &cx.shared.keys);
        let rejects = judge.window.rules().missing_id == MissingId::Reject;
        let goes_on_unjudged = match reading {
            Reading::Plain(_) | Reading::Body => false,
            Reading::NoId => !rejects,
            Reading::Bypass | Reading::Malformed => true,
        };
        if standing == Standing::Unknown && !goes_on_unjudged {
            return self.hold(start, cx);
        }
        let client = self.next_client_tag();
        let (window, right) = (Arc::clone(&judge.window), judge.needs.right);
        let scoped = *judge.needs.scoped(&judge.scoped, standing);
        match reading {
            Reading::Plain(terms) => {
                let terms = Terms { client, ..terms };
                self.judge(Candidate { window: &window, terms, publish, content, left }, cx)
            }
            Reading::Bypass => {
                window.notice(Event::Bypassed);
                self.forward_unjudged(client, Some(&window), None, mandatory, start, cx)
            }
            Reading::Body if left > 0 && self.has_room(left, cx) => {
                self.waiting.hold(size_of(left));
                let draft = Draft {
                    window,
                    client,
                    scoped,
                    right,
                    publish: publish.compact(),
                    header: header.compact(),
                    size: left,
                    body: Vec::new(),
                    largest: 0,
                };
                self.content = Content::Body { left, fate: Fate::Collect(Box::new(draft)) };
                Ok(())
            }
            reading @ (Reading::NoId | Reading::Body | Reading::Malformed) => {
                window.notice(Event::NoId);
                let rules = window.rules();
                if rejects && !matches!(reading, Reading::Malformed) {
                    return Err(Fault::MissingId {
                        window: (&*rules.name).into(),
                        id: rules.id.to_string().into(),
                    });
                }
                self.forward_unjudged(client, Some(&window), None, mandatory, start, cx)
            }
        }
    }

    fn has_room(&self, more: u64, cx: &Cx<'_>) -> bool {
        usize::try_from(more).is_ok_and(|more| cx.has_room(self.waiting.held(), more))
    }

    /// Where the client counts, it has just said its next one.
    fn next_client_tag(&mut self) -> Option<ClientTag> {
        matches!(self.mode, Mode::Confirm { client: true }).then(|| self.confirms.next_client_tag())
    }

    fn recv_body(
        &mut self,
        left: u64,
        mut fate: Fate,
        frame: View<'_>,
        cx: &mut Cx<'_>,
    ) -> Result<(), Fault> {
        let Some(left) = left.checked_sub(frame.payload().len() as u64) else {
            return match fate {
                Fate::Forward { .. } => {
                    cx.out.upstream.forward(frame);
                    Ok(())
                }
                Fate::Swallow(_) | Fate::Keep(_) | Fate::Collect(_) => {
                    Err(Fault::Unexpected { channel: self.id, got: "too large content body" })
                }
            };
        };
        match &mut fate {
            Fate::Forward { .. } => cx.out.upstream.forward(frame),
            Fate::Swallow(_) => {}
            Fate::Keep(ticket) => {
                self.waiting.extend(*ticket, frame, left);
            }
            Fate::Collect(draft) => {
                draft.body.extend_from_slice(frame.payload());
                draft.largest = draft.largest.max(frame.payload().len());
            }
        }
        if left == 0 {
            self.body_ended(&fate);
        }
        self.go_on(left, fate, cx)
    }

    /// The fate of a content is known, and what is missing of it.
    pub(in crate::session) fn go_on(&mut self, left: u64, fate: Fate, cx: &mut Cx<'_>) -> Result<(), Fault> {
        if left > 0 {
            self.content = Content::Body { left, fate };
            return Ok(());
        }
        self.content = Content::Idle;
        match fate {
            Fate::Forward { at_write } => commit_at_write(at_write, cx.now),
            Fate::Swallow(reply) => self.reply(reply),
            Fate::Keep(_) => {}
            Fate::Collect(draft) => self.judge_collected(*draft, cx)?,
        }
        if self.waiting.has_promoted() {
            self.forward_promoted(cx);
        }
        Ok(())
    }

    fn judge_collected(&mut self, draft: Draft, cx: &mut Cx<'_>) -> Result<(), Fault> {
        let Draft { window, client, scoped, right, publish, header, size, body: whole, largest } = draft;
        self.waiting.release(size_of(size));
        let rules = window.rules();
        let (Ok(fields), Ok(found)) = (
            Publish::parse(publish.view().payload()),
            ContentHeader::parse(header.view().payload(), &rules.id),
        ) else {
            return Ok(());
        };
        let claim = scoped.key(&IdValue::Bytes(&whole)).into();
        let ttl = ttl_of(&found, &window);
        let target = rules.forward_to.as_deref().map_or(fields.exchange, str::as_bytes);
        let return_key = fields
            .mandatory
            .then(|| ReturnKey::new(&cx.shared.keys, target, fields.routing_key, header.view().payload()));
        let terms = Terms { claim, ttl, client, right, return_key };
        let content = in_frames(self.id, header.view(), &whole, largest);
        let (publish, content) = (publish.view(), View::whole(&content));
        self.judge(Candidate { window: &window, terms, publish, content, left: 0 }, cx)
    }

    /// The client selects confirms: from here on it counts.
    pub(in crate::session) fn select_confirm(&mut self) {
        match self.mode {
            Mode::Plain | Mode::Confirm { .. } => self.mode = Mode::Confirm { client: true },
            Mode::Tx => {}
        }
    }

    /// The client selects tx.
    pub(in crate::session) fn select_tx(&mut self) {
        if self.mode == Mode::Plain {
            self.mode = Mode::Tx;
        }
    }

    pub(in crate::session) fn commit(&mut self) {
        if self.mode == Mode::Tx {
            self.progress.transaction_ended();
            self.tx.commit();
        }
    }

    pub(in crate::session) fn rollback(&mut self) {
        if self.mode == Mode::Tx {
            self.progress.transaction_ended();
            self.drop_waiting();
            self.tx.rollback();
        }
    }
}

pub(in crate::session) fn commit_at_write(at_write: Option<(Reservation, Duration)>, now: Instant) {
    if let Some((reservation, ttl)) = at_write {
        reservation.commit(now, ttl);
    }
}

/// A header, and a body in frames of this payload.
fn in_frames(channel: ChannelId, header: View<'_>, body: &[u8], payload: usize) -> Bytes {
    let mut frames = BytesMut::with_capacity(header.len() + body.len() + OVERHEAD);
    frames.extend_from_slice(header.octets());
    for piece in body.chunks(payload.max(1)) {
        emit::body(&mut frames, channel, piece);
    }
    frames.freeze()
}

/// For how long it is remembered.
fn ttl_of(found: &ContentHeader<'_>, window: &Arc<dyn Window>) -> Duration {
    found.cache_ttl_ms.map_or_else(|| window.ttl(), Duration::from_millis)
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
