//! The content that the client is sending on a channel: `basic.publish`, its header, its body.
//!
//! The body is never buffered to decide. It is forwarded, swallowed, or kept with a publish that waits. A window whose `id` is
//! the body itself is the exception: then it is collected in a [`Draft`].

use super::comparison::{Digesting, Holding, Later};
use super::draft::Draft;
use super::ledger::Reserved;
use crate::session::confirms::ClientTag;
use crate::session::fault::Fault;
use crate::session::outbox::{Lane, Piece, View};
use crate::session::waiting::Waiting;
use crate::window::Ticket;
use crate::wire::ChannelId;
use crate::wire::frame::FrameKind;

/// The fate of a content.
#[derive(Debug)]
pub(super) enum Fate {
    /// It goes upstream. `at_write` is committed when the last frame is written: no outcome will be told. Its body is digested on the way
    /// for the window that will remember it, or compared at its end.
    Forward { at_write: Option<Reserved>, digesting: Option<Box<Digesting>>, later: Option<Box<Later>> },
    /// It ends here. The client gets this reply when the content is whole.
    Swallow(Reply),
    /// It ends here, and its body is compared when it is whole. That decides about the reply.
    Compare(Box<Later>),
    /// It is held until it is whole. If its body conflicts, it goes on.
    Hold(Box<Holding>),
    /// It waits with the publish of this ticket.
    Keep(Ticket),
    /// Its body is the id.
    Collect(Box<Draft>),
}

/// The client's answer to a publish that is not forwarded.
#[derive(Clone, Copy, Debug)]
pub(super) enum Reply {
    Nothing,
    Ack(ClientTag),
    Nack(ClientTag),
}

impl Fate {
    /// It goes upstream, and there is nothing to remember of it.
    pub(super) const FORWARD: Fate = Fate::Forward { at_write: None, digesting: None, later: None };
}

impl Reply {
    /// An ack, if the client counts its publishes.
    pub(super) fn ack(tag: Option<ClientTag>) -> Reply {
        tag.map_or(Reply::Nothing, Reply::Ack)
    }
}

/// How far the content has come.
#[derive(Debug)]
enum Content {
    /// There is none.
    Idle,
    /// `basic.publish` has come; its header has not.
    Header(Piece),
    /// `left` octets of the body are missing.
    Body { left: u64, fate: Fate },
    /// The client has broken the rules and the broker is about to say so: all frames are forwarded. `entered`: the content
    /// has an entry in the ledger.
    Opaque { entered: bool },
}

/// The meaning of a frame for the content.
#[derive(Debug)]
pub(super) enum Step {
    /// The header of this `basic.publish`.
    Header(Piece),
    /// The last frame of a body with this fate.
    Whole(Fate),
    /// A frame that was forwarded, kept or dropped. More will come.
    Taken,
}

/// Puts contents together from their frames.
#[derive(Debug)]
pub(super) struct Assembler {
    channel: ChannelId,
    content: Content,
}

impl Assembler {
    pub(super) fn new(channel: ChannelId) -> Assembler {
        Assembler { channel, content: Content::Idle }
    }

    /// Returns true if no content is being received.
    #[inline]
    pub(super) fn is_between_contents(&self) -> bool {
        matches!(self.content, Content::Idle)
    }

    /// Returns true if the upstream has the beginning of a content and not its end: nothing else may go to it on this channel.
    #[inline]
    pub(super) fn is_forwarding(&self) -> bool {
        matches!(self.content, Content::Body { fate: Fate::Forward { .. }, .. } | Content::Opaque { .. })
    }

    /// Returns the octets that the upstream still waits for, of a content that it has the beginning of.
    pub(super) fn left_to_forward(&self) -> u64 {
        match self.content {
            Content::Body { left, fate: Fate::Forward { .. } } => left,
            _ => 0,
        }
    }

    /// Returns true if the newest entry of the ledger is of a content that is not whole.
    pub(super) fn is_amid_entry(&self) -> bool {
        matches!(
            self.content,
            Content::Body { fate: Fate::Forward { .. }, .. } | Content::Opaque { entered: true }
        )
    }

    /// Returns the bytes that a body will take that is being collected or held.
    pub(super) fn collecting(&self) -> usize {
        match &self.content {
            Content::Body { fate: Fate::Collect(draft), .. } => draft.bytes(),
            Content::Body { fate: Fate::Hold(holding), .. } => holding.bytes(),
            Content::Body { .. } | Content::Idle | Content::Header(_) | Content::Opaque { .. } => 0,
        }
    }

    /// Returns the bytes of the digest of the body that is on its way, with what it will be compared with. They do not count against
    /// `held_bytes`: if reading stopped for them, the rest of the body would never come.
    pub(super) fn comparing(&self) -> usize {
        match &self.content {
            Content::Body { fate: Fate::Compare(later), .. }
            | Content::Body { fate: Fate::Forward { later: Some(later), .. }, .. } => later.bytes(),
            Content::Body { fate: Fate::Forward { digesting: Some(digesting), .. }, .. } => {
                size_of_val(&**digesting)
            }
            Content::Body { .. } | Content::Idle | Content::Header(_) | Content::Opaque { .. } => 0,
        }
    }

    /// Returns how many publishes are not whole: those with an entry or an answer, and those that wait. (At most one.)
    pub(super) fn incomplete(&self) -> (usize, usize) {
        match &self.content {
            Content::Body { fate: Fate::Keep(_), .. } => (1, 1),
            Content::Body {
                fate:
                    Fate::Forward { .. } | Fate::Swallow(_) | Fate::Compare(_) | Fate::Hold(_) | Fate::Collect(_),
                ..
            }
            | Content::Opaque { .. } => (1, 0),
            Content::Idle | Content::Header(_) => (0, 0),
        }
    }

    /// Begins a content: `basic.publish` has come.
    pub(super) fn begin(&mut self, publish: Piece) {
        self.content = Content::Header(publish);
    }

    /// Takes a header or body frame, or another frame where one of these was expected. After a header, all frames are
    /// forwarded until somebody decides otherwise.
    pub(super) fn recv(
        &mut self,
        kind: FrameKind,
        frame: View<'_>,
        waiting: &mut Waiting,
        upstream: &mut Lane,
    ) -> Result<Step, Fault> {
        let entered = self.is_amid_entry();
        match (std::mem::replace(&mut self.content, Content::Opaque { entered }), kind) {
            (Content::Header(publish), FrameKind::Header) => return Ok(Step::Header(publish)),
            (Content::Body { left, fate }, FrameKind::Body) => {
                return self.recv_body(left, fate, frame, waiting, upstream);
            }
            // The client has broken the rules. If the broker has heard all that the client has said, it says so.
            (Content::Header(publish), _) => {
                upstream.forward(publish.view());
                upstream.forward(frame);
            }
            (
                Content::Idle | Content::Opaque { .. } | Content::Body { fate: Fate::Forward { .. }, .. },
                _,
            ) => upstream.forward(frame),
            // The broker has nothing of this content. It is dropped, and what came before it goes on.
            (content @ Content::Body { .. }, got) => {
                self.content = content;
                return Err(Fault::Unexpected { channel: self.channel, got: name(got) });
            }
        }
        Ok(Step::Taken)
    }

    fn recv_body(
        &mut self,
        left: u64,
        mut fate: Fate,
        frame: View<'_>,
        waiting: &mut Waiting,
        upstream: &mut Lane,
    ) -> Result<Step, Fault> {
        let Some(rest) = left.checked_sub(frame.payload().len() as u64) else {
            return match fate {
                Fate::Forward { .. } => {
                    upstream.forward(frame);
                    Ok(Step::Taken)
                }
                Fate::Swallow(_) | Fate::Compare(_) | Fate::Hold(_) | Fate::Keep(_) | Fate::Collect(_) => {
                    self.content = Content::Body { left, fate };
                    Err(Fault::Unexpected { channel: self.channel, got: "too large content body" })
                }
            };
        };
        match &mut fate {
            Fate::Forward { digesting, later, .. } => {
                digesting.iter_mut().for_each(|digesting| digesting.extend(frame));
                later.iter_mut().for_each(|later| later.extend(frame));
                upstream.forward(frame);
            }
            Fate::Swallow(_) => {}
            Fate::Compare(later) => later.extend(frame),
            Fate::Hold(holding) => holding.extend(frame),
            Fate::Keep(ticket) => waiting.extend(*ticket, frame, rest),
            Fate::Collect(draft) => draft.extend(frame),
        }
        Ok(self.go_on(rest, fate).map_or(Step::Taken, Step::Whole))
    }

    /// Sets the fate of the content. Gives it back if the content is whole.
    #[inline]
    pub(super) fn go_on(&mut self, left: u64, fate: Fate) -> Option<Fate> {
        if left > 0 {
            self.content = Content::Body { left, fate };
            return None;
        }
        self.content = Content::Idle;
        Some(fate)
    }

    /// Forgets the content: another owner has it now, or it will not come.
    pub(super) fn let_go(&mut self) {
        self.content = Content::Idle;
    }

    /// Returns true if the publish of this ticket waits and is not whole.
    pub(super) fn keeps(&self, ticket: Ticket) -> bool {
        matches!(self.content, Content::Body { fate: Fate::Keep(kept), .. } if kept == ticket)
    }

    /// Gives the publish that waits another ticket.
    pub(super) fn renew_kept(&mut self, before: Ticket, now: Ticket) {
        if let Content::Body { fate: Fate::Keep(kept), .. } = &mut self.content
            && *kept == before
        {
            *kept = now;
        }
    }

    /// Decides the publish of this ticket while it waits. Changes the fate of its body, if that is not whole. Returns false if
    /// it is.
    pub(super) fn decide_kept(&mut self, ticket: Ticket, fate: impl FnOnce() -> Fate) -> bool {
        match self.content {
            Content::Body { left, fate: Fate::Keep(kept) } if kept == ticket => {
                self.content = Content::Body { left, fate: fate() };
                true
            }
            _ => false,
        }
    }

    /// Drops the rest of the body of a publish that waits and is not whole, because all that wait are given up.
    pub(super) fn swallow_kept(&mut self) {
        if let Content::Body { fate, .. } = &mut self.content
            && matches!(fate, Fate::Keep(_))
        {
            *fate = Fate::Swallow(Reply::Nothing);
        }
    }

    /// Returns the reservation of the content that is on its way upstream, if the ledger does not have it.
    pub(super) fn at_write(&mut self) -> Option<&mut Option<Reserved>> {
        match &mut self.content {
            Content::Body { fate: Fate::Forward { at_write: at_write @ Some(_), .. }, .. } => Some(at_write),
            Content::Body { .. } | Content::Idle | Content::Header(_) | Content::Opaque { .. } => None,
        }
    }

    /// Drops the content, because the upstream channel is closed. Gives back its reservation, if it has one.
    pub(super) fn upstream_closed(&mut self) -> Option<Reserved> {
        match std::mem::replace(&mut self.content, Content::Idle) {
            Content::Body { fate: Fate::Forward { at_write, .. }, .. } => at_write,
            Content::Body { .. } | Content::Idle | Content::Header(_) | Content::Opaque { .. } => None,
        }
    }

    /// Drops the content, because the client will send nothing more. Gives back its fate. A content that the upstream has the
    /// beginning of stays.
    pub(super) fn client_done(&mut self) -> Option<Fate> {
        if self.is_forwarding() {
            return None;
        }
        match std::mem::replace(&mut self.content, Content::Idle) {
            Content::Body { fate, .. } => Some(fate),
            Content::Idle | Content::Header(_) | Content::Opaque { .. } => None,
        }
    }
}

/// Converts octets of a body to bytes of memory.
pub(super) fn size_of(octets: u64) -> usize {
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
