//! Everything of one channel that has to wait, in its order. Other channels go on meanwhile.
//!
//! ```text
//!   promoted   publishes that may go as soon as no other content is on its way upstream
//!   asked      publishes that the window was asked about: the verdict of the first is not known yet,
//!              or it found no room to wait
//!   frames     all that the client has sent after them
//! ```
//!
//! All plain publishes of a read are asked about together, and so are those that wait as frames, as soon as nothing else stands
//! before them. Verdicts may come in any order, and are used in the order of the publishes. A window that is silent for too long is
//! asked what it says without its store. Every byte is counted.
//!
//! A message that its consumer publishes again needs no verdict. It waits here, too, if the store of its window has to forget the one
//! before first.

use crate::session::candidate::Kept;
use crate::session::outbox::{Piece, View};
use crate::session::timers::earliest;
use crate::session::unremembered::{Deadline, Outstanding};
use crate::session::waiting::{ClaimCounts, LOOKED_AT};
use crate::window::{BodyDigest, Claim, Committed, ForgetCause, Reservation, Ticket, Verdict, Wait, Window};
use crate::wire::frame::FrameKind;
use crate::wire::method::MethodId;
use crate::wire::properties::{BASIC, ContentHeader};
use crate::wire::scan;
use bytes::Bytes;
use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::Arc;
use std::time::{Duration, Instant};

/// The most frames of one publish that are looked at together. A larger publish is handled frame by frame.
const LOOKED_AT_ONCE: usize = 64;
/// Bytes of a frame that waits, beside its own.
const QUEUED: usize = size_of::<Piece>() + 48;
/// Bytes of a publish that the window was asked about, beside its frames: its places here and in the window.
const ASKED: usize = size_of::<Asked>() + 256;

/// A publish that has waited for another's outcome, and goes on now.
#[derive(Debug)]
pub(super) struct Promoted {
    pub(super) candidate: Kept,
    pub(super) weight: usize,
    pub(super) reservation: Option<Reservation>,
}

impl Promoted {
    /// Gives its reservation back: it will not be sent.
    fn forget(self) {
        if let Some(reservation) = self.reservation {
            reservation.forget(ForgetCause::ChannelClosed);
        }
    }
}

/// A publish that the window was asked about.
#[derive(Debug)]
pub(super) struct Asked {
    pub(super) candidate: Kept,
    pub(super) ticket: Ticket,
    pub(super) answer: Answer,
    /// how long it may wait for another's outcome, if it has begun to wait
    pub(super) until: Option<Instant>,
}

impl Asked {
    fn is_republish(&self) -> bool {
        matches!(self.answer, Answer::Republish { .. })
    }
}

/// A publish whose verdict is known and used now.
#[derive(Debug)]
pub(super) struct Known {
    pub(super) candidate: Kept,
    pub(super) ticket: Ticket,
    pub(super) verdict: Verdict,
    /// when the verdict came
    pub(super) since: Instant,
    /// how long the publish may wait for another's outcome, if it has begun to wait
    pub(super) until: Option<Instant>,
}

/// The window's answer.
#[derive(Debug)]
pub(super) enum Answer {
    /// It will answer by mail, or is asked again when this time is over.
    Pending { wait: Wait, due: Instant },
    /// The verdict, and when it came.
    Known(Verdict, Instant),
    /// There was no room to wait. It is asked again at this time. Only the first publish can have this answer.
    NoRoom { retry_at: Instant },
    /// A consumer publishes its message again. `goes`: the window's store has forgotten the message before, so this one may go.
    Republish { reservation: Reservation, goes: bool },
}

impl Answer {
    /// Makes an answer of a verdict. The window may be silent for `timeout`.
    pub(super) fn of(verdict: Verdict, now: Instant, timeout: Duration) -> Answer {
        match verdict {
            Verdict::Pending(wait) => Answer::Pending { wait, due: now + timeout },
            verdict => Answer::Known(verdict, now),
        }
    }

    /// Returns true if the answer may change: by mail, or because a store has come so far.
    fn may_change(&self) -> bool {
        let waits = matches!(self, Answer::Republish { goes: false, .. });
        waits || matches!(self, Answer::Pending { .. } | Answer::Known(Verdict::InFlight(_), _))
    }

    /// Returns true if it is not known what becomes of the publish.
    fn is_open(&self) -> bool {
        matches!(self, Answer::Pending { .. } | Answer::Republish { goes: false, .. })
    }
}

/// Everything that waits on one channel.
#[derive(Debug, Default)]
pub(in crate::session) struct Line {
    promoted: VecDeque<Promoted>,
    /// How many promoted publishes there are of each claim.
    claims: ClaimCounts,
    asked: VecDeque<Asked>,
    /// How many publishes were taken from the front of `asked` so far.
    taken: usize,
    /// The places of the publishes whose answer may change, among all that were ever asked about.
    places: BTreeMap<Ticket, usize>,
    /// When windows have been silent for too long.
    due: BTreeSet<(Instant, Ticket)>,
    /// The messages that consumers publish again, and that wait until a store has forgotten the ones before.
    forgetting: Outstanding<Ticket>,
    /// How many messages of consumers are among the asked.
    republishes: usize,
    /// of the promoted and the asked
    bytes: usize,
    /// The frames of publishes that were asked about in vain, until the end of their batch.
    withdrawn: Vec<Piece>,
    frames: VecDeque<Piece>,
    frame_bytes: usize,
}

impl Line {
    /// Returns the bytes of the publishes that wait, without the frames behind them.
    pub(super) fn publish_bytes(&self) -> usize {
        self.bytes
    }

    /// Returns the bytes of all that waits.
    pub(super) fn bytes(&self) -> usize {
        self.bytes + self.frame_bytes
    }

    /// Returns the bytes of the places of the frames and of the publishes that were asked about.
    pub(super) fn places(&self) -> usize {
        self.frames.len() * QUEUED + self.asked.len() * ASKED
    }

    /// Returns the number of promoted publishes.
    pub(super) fn promoted_len(&self) -> usize {
        self.promoted.len()
    }

    /// Returns true if a publish was promoted and has not gone.
    #[inline]
    pub(super) fn has_promoted(&self) -> bool {
        !self.promoted.is_empty()
    }

    /// Returns true if a publish of this claim was promoted and has not gone.
    pub(super) fn holds(&self, claim: Claim) -> bool {
        self.claims.holds(claim)
    }

    /// Returns the body of a publish of this claim that was promoted and has not gone.
    pub(super) fn body_of(&self, claim: Claim) -> BodyDigest {
        self.claims.body_of(claim)
    }

    pub(super) fn push_promoted(&mut self, promoted: Promoted) {
        self.bytes += promoted.weight;
        self.claims.add(promoted.candidate.terms.claim, promoted.candidate.body());
        self.promoted.push_back(promoted);
    }

    pub(super) fn pop_promoted(&mut self) -> Option<Promoted> {
        let promoted = self.promoted.pop_front()?;
        self.bytes -= promoted.weight;
        self.claims.remove(promoted.candidate.terms.claim);
        Some(promoted)
    }

    /// Forgets the promoted publishes: they will not be sent.
    pub(super) fn drop_promoted(&mut self) {
        while let Some(promoted) = self.pop_promoted() {
            promoted.forget();
        }
    }

    /// Forgets those of them whose client hears that they were dropped: their confirms do not come.
    pub(super) fn drop_heard(&mut self) {
        for _ in 0..self.promoted.len() {
            let Some(promoted) = self.pop_promoted() else { return };
            match promoted.candidate.terms.client {
                Some(_) => promoted.forget(),
                None => self.push_promoted(promoted),
            }
        }
    }

    /// Returns true if others wait for a promoted publish. (If there are very many, the oldest are asked.)
    pub(super) fn is_awaited(&self) -> bool {
        let reservations = self.promoted.iter().filter_map(|promoted| promoted.reservation.as_ref());
        reservations.take(LOOKED_AT).any(Reservation::is_awaited)
    }

    /// Returns true if a publish waits for its verdict.
    #[inline]
    pub(super) fn is_stalled(&self) -> bool {
        !self.asked.is_empty()
    }

    /// Returns true if the verdict of the first publish is not known.
    pub(in crate::session) fn is_pending(&self) -> bool {
        self.asked.front().is_some_and(|first| first.answer.is_open())
    }

    /// Returns the window of the first publish, if it is not known what becomes of that.
    pub(super) fn waits_for(&self) -> Option<&Arc<dyn Window>> {
        let first = self.asked.front().filter(|first| first.answer.is_open())?;
        Some(&first.candidate.window)
    }

    /// Returns true if nothing was asked about but messages that consumers publish again.
    pub(super) fn has_only_republishes(&self) -> bool {
        self.republishes == self.asked.len()
    }

    /// Returns true if a message waits until a store has forgotten the one before.
    #[inline]
    pub(super) fn is_forgetting(&self) -> bool {
        !self.forgetting.is_empty()
    }

    /// Returns true if another publish may be asked about behind those that were asked about before.
    #[inline]
    pub(super) fn takes_more(&self) -> bool {
        self.asked
            .back()
            .is_none_or(|last| last.candidate.left == 0 && !matches!(last.answer, Answer::NoRoom { .. }))
    }

    /// Returns how many publishes the window was asked about. One that is not whole is not counted: if reading stopped for it,
    /// its rest would never come. Nor is one that found no room: the client may have to send something else before there is room.
    pub(super) fn asked_len(&self) -> usize {
        let counts =
            |asked: &Asked| asked.candidate.left == 0 && !matches!(asked.answer, Answer::NoRoom { .. });
        match self.asked.back() {
            Some(last) => self.asked.len() - usize::from(!counts(last)),
            None => 0,
        }
    }

    /// Adds a publish that the window was asked about. If the first one found no room, this one gives up what it was granted,
    /// and [`Line::restore`] puts its frames back: it may have to wait for long, and others would wait for it.
    pub(super) fn ask(&mut self, asked: Asked) {
        if matches!(self.asked.front(), Some(Asked { answer: Answer::NoRoom { .. }, .. })) {
            return self.withdrawn.extend(withdraw(asked));
        }
        expect(&mut self.places, &mut self.due, &asked, self.taken + self.asked.len());
        self.bytes += asked.candidate.size();
        self.republishes += usize::from(asked.is_republish());
        self.asked.push_back(asked);
    }

    /// Adds a message that a consumer publishes again. It goes when the window's store has forgotten the one before.
    pub(super) fn republish(
        &mut self,
        candidate: Kept,
        ticket: Ticket,
        reservation: Reservation,
        forgotten: Committed,
        deadline: Deadline<'_>,
    ) {
        let goes = matches!(forgotten, Committed::Now);
        if let Committed::Later(unwritten) = forgotten {
            self.forgetting.push(unwritten, ticket, deadline);
        }
        self.ask(Asked { candidate, ticket, answer: Answer::Republish { reservation, goes }, until: None });
    }

    /// Lets the messages go that stores have forgotten the ones before by now.
    pub(super) fn recv_remembered(&mut self) {
        let Line { forgetting, places, asked, taken, .. } = self;
        forgetting.recv_remembered(|ticket| let_go(places, asked, *taken, ticket));
    }

    /// Puts a publish back at the head, about which the window was asked again.
    pub(super) fn ask_first(&mut self, asked: Asked) {
        self.taken -= 1;
        expect(&mut self.places, &mut self.due, &asked, self.taken);
        self.bytes += asked.candidate.size();
        self.asked.push_front(asked);
    }

    /// Puts the frames of publishes back that were asked about in vain. It is called after each batch.
    #[inline]
    pub(super) fn restore(&mut self) {
        if !self.withdrawn.is_empty() {
            for frame in std::mem::take(&mut self.withdrawn).into_iter().rev() {
                self.push_frame_first(frame.view());
            }
        }
    }

    /// Stops the channel: the first publish found no room to wait, and will ask again. The publishes behind it wait as frames.
    pub(super) fn stall(&mut self, first: Asked) {
        let behind = std::mem::take(&mut self.asked);
        self.forget_places();
        self.ask(first);
        for asked in behind.into_iter().rev() {
            self.bytes -= asked.candidate.size();
            withdraw(asked).iter().rev().for_each(|frame| self.push_frame_first(frame.view()));
        }
    }

    /// Takes a verdict that has come by mail. Gives it back if no publish here waits for it: it is the second one for this
    /// ticket, or it is for another publish.
    pub(super) fn answer(
        &mut self,
        ticket: Ticket,
        verdict: Verdict,
        now: Instant,
        timeout: Duration,
    ) -> Option<Verdict> {
        let Some(place) = self.places.remove(&ticket) else { return Some(verdict) };
        let Some(asked) = place.checked_sub(self.taken).and_then(|at| self.asked.get_mut(at)) else {
            return Some(verdict);
        };
        let answer = match (&asked.answer, verdict) {
            // It may put the verdict off, but not for longer than before.
            (Answer::Pending { due, .. }, Verdict::Pending(wait)) => Answer::Pending { wait, due: *due },
            (_, verdict) => Answer::of(verdict, now, timeout),
        };
        if let Answer::Pending { due, .. } = &asked.answer {
            self.due.remove(&(*due, ticket));
        }
        match std::mem::replace(&mut asked.answer, answer) {
            Answer::Pending { wait, .. } | Answer::Known(Verdict::InFlight(wait), _) => wait.answered(),
            Answer::Known(..) | Answer::NoRoom { .. } | Answer::Republish { .. } => {}
        }
        expect(&mut self.places, &mut self.due, asked, place);
        None
    }

    /// Asks windows that have been silent for too long what they say without their store. `draw` draws new tickets.
    /// Answers under the old ones are discarded from now on.
    pub(super) fn expire(&mut self, now: Instant, timeout: Duration, mut draw: impl FnMut() -> Ticket) {
        let Line { forgetting, places, asked, taken, .. } = self;
        forgetting.expire(now, timeout, |ticket| let_go(places, asked, *taken, ticket));
        while let Some(first @ (_, ticket)) = self.due.first().copied().filter(|(due, _)| *due <= now) {
            self.due.remove(&first);
            let Some(place) = self.places.remove(&ticket) else { continue };
            let Some(asked) = place.checked_sub(self.taken).and_then(|at| self.asked.get_mut(at)) else {
                continue;
            };
            let silent = std::mem::replace(&mut asked.answer, Answer::NoRoom { retry_at: now });
            asked.answer = match silent {
                Answer::Pending { wait, .. } => {
                    asked.ticket = draw();
                    // Meanwhile another one may have taken the id, so its patience counts anew.
                    asked.until = None;
                    Answer::of(wait.overdue(asked.ticket, now), now, timeout)
                }
                answer => answer,
            };
            expect(&mut self.places, &mut self.due, asked, place);
        }
    }

    /// Takes the first publish, if its verdict is known. A message that a consumer publishes again is new, however long it has waited.
    pub(super) fn take_known(&mut self, now: Instant) -> Option<Known> {
        let is_known =
            |asked: &Asked| matches!(asked.answer, Answer::Known(..) | Answer::Republish { goes: true, .. });
        let Asked { candidate, ticket, answer, until } = self.take_first_if(is_known)?;
        let (verdict, since) = match answer {
            Answer::Known(verdict, since) => (verdict, since),
            Answer::Republish { reservation, .. } => (Verdict::Fresh(reservation), now),
            Answer::Pending { .. } | Answer::NoRoom { .. } => return None,
        };
        Some(Known { candidate, ticket, verdict, since, until })
    }

    /// Takes the first publish, if its verdict is not known. Its question is withdrawn.
    pub(super) fn take_pending(&mut self) -> Option<Kept> {
        let Asked { candidate, answer, .. } = self.take_first_if(|asked| asked.answer.is_open())?;
        give_back(answer);
        Some(candidate)
    }

    /// Takes the first publish, if it found no room and is to ask again now.
    pub(super) fn take_retry(&mut self, now: Instant) -> Option<Asked> {
        self.take_first_if(|asked| matches!(asked.answer, Answer::NoRoom { retry_at } if retry_at <= now))
    }

    fn take_first_if(&mut self, condition: impl FnOnce(&Asked) -> bool) -> Option<Asked> {
        if !condition(self.asked.front()?) {
            return None;
        }
        let asked = self.asked.pop_front()?;
        self.taken += 1;
        self.note_left(&asked);
        Some(asked)
    }

    /// Notes that a publish is not in the line any more.
    fn note_left(&mut self, asked: &Asked) {
        self.places.remove(&asked.ticket);
        if let Answer::Pending { due, .. } = &asked.answer {
            self.due.remove(&(*due, asked.ticket));
        }
        self.bytes -= asked.candidate.size();
        self.republishes -= usize::from(asked.is_republish());
    }

    /// Forgets where the publishes are that were asked about: all of them leave.
    fn forget_places(&mut self) {
        self.places.clear();
        self.due.clear();
        self.forgetting.clear();
        self.republishes = 0;
    }

    /// Forgets the publishes that wait for their verdict.
    pub(super) fn drop_asked(&mut self) {
        self.forget_places();
        for asked in std::mem::take(&mut self.asked) {
            self.taken += 1;
            self.bytes -= asked.candidate.size();
            give_back(asked.answer);
        }
    }

    /// Forgets the publish that is not whole, and never will be, or that found no room. The others keep waiting.
    pub(super) fn drop_stopped(&mut self) {
        if self.takes_more() {
            return;
        }
        if let Some(asked) = self.asked.pop_back() {
            self.note_left(&asked);
            give_back(asked.answer);
        }
    }

    /// Returns when the first publish asks again, or a window will have been silent for too long.
    pub(super) fn deadline(&self) -> Option<Instant> {
        let retry = match self.asked.front()?.answer {
            Answer::NoRoom { retry_at } => Some(retry_at),
            Answer::Pending { .. } | Answer::Known(..) | Answer::Republish { .. } => None,
        };
        earliest([retry, self.due.first().map(|(due, _)| *due), self.forgetting.deadline()])
    }

    /// Returns true if frames wait.
    #[inline]
    pub(in crate::session) fn has_frames(&self) -> bool {
        !self.frames.is_empty()
    }

    /// Returns the frames that wait, in their order.
    pub(in crate::session) fn frames(&self) -> impl Iterator<Item = View<'_>> {
        self.frames.iter().map(Piece::view)
    }

    /// Puts a frame behind all the others.
    pub(in crate::session) fn push_frame(&mut self, frame: View<'_>) {
        self.frame_bytes += frame.len();
        self.frames.push_back(frame.compact());
    }

    /// Puts a frame before all the others.
    pub(in crate::session) fn push_frame_first(&mut self, frame: View<'_>) {
        self.frame_bytes += frame.len();
        self.frames.push_front(frame.compact());
    }

    /// Takes the first frame.
    pub(in crate::session) fn pop_frame(&mut self) -> Option<Piece> {
        let frame = self.frames.pop_front()?;
        self.frame_bytes -= frame.view().len();
        Some(frame)
    }

    /// Returns the method and the header of the publish that the first frames make up, and how many frames it has. Returns
    /// `None` if the first frames are something else, or if the publish is not whole or has more than [`LOOKED_AT_ONCE`]
    /// frames.
    pub(super) fn first_publish(&self) -> Option<(View<'_>, View<'_>, usize)> {
        let mut frames = self.frames().take(LOOKED_AT_ONCE);
        let (publish, header) = (frames.next()?, frames.next()?);
        if publish.method(publish.kind()?) != Some(MethodId::BASIC_PUBLISH)
            || header.kind()? != FrameKind::Header
        {
            return None;
        }
        let Ok((BASIC, mut left)) = ContentHeader::size_of(header.payload()) else { return None };
        let mut count = 2;
        while left > 0 {
            let body = frames.next().filter(|body| body.kind() == Some(FrameKind::Body))?;
            left = left.checked_sub(body.payload().len() as u64)?;
            count += 1;
        }
        Some((publish, header, count))
    }

    /// Returns true if the first frames are those of a body that is `left` octets long.
    pub(super) fn starts_with_body(&self, mut left: u64) -> bool {
        let bodies = self.frames().take_while(|frame| frame.kind() == Some(FrameKind::Body));
        left == 0
            || bodies.into_iter().any(|body| {
                left = left.saturating_sub(body.payload().len() as u64);
                left == 0
            })
    }

    /// Takes the publish that the first `count` frames make up: its method, and its content in one piece.
    pub(super) fn pop_publish(&mut self, count: usize) -> Option<(Piece, Bytes)> {
        let publish = self.pop_frame()?;
        let mut content = Vec::new();
        for _ in 1..count {
            content.extend_from_slice(self.pop_frame()?.view().octets());
        }
        Some((publish, content.into()))
    }

    /// Drops all frames. Returns how many `channel.close`s of the client were among them.
    pub(in crate::session) fn drop_frames(&mut self) -> usize {
        self.frame_bytes = 0;
        let says_close = |frame: &Piece| {
            frame.view().kind() == Some(FrameKind::Method)
                && frame.view().method(FrameKind::Method) == Some(MethodId::CHANNEL_CLOSE)
        };
        self.frames.drain(..).filter(says_close).count()
    }
}

/// Gives back what the window has granted to a publish. Returns its frames.
fn withdraw(asked: Asked) -> Vec<Piece> {
    give_back(asked.answer);
    let content = Bytes::from(asked.candidate.content);
    let mut frames = vec![asked.candidate.publish];
    let mut start = 0;
    while let Ok(Some(frame)) = scan(content.get(start..).unwrap_or_default(), usize::MAX) {
        let end = start + frame.wire_len();
        frames.push(View::new(&content, start..end).piece());
        start = end;
    }
    frames
}

/// The publish will not be sent: what the window has granted is given back.
fn give_back(answer: Answer) {
    if let Answer::Known(Verdict::Fresh(reservation), _) | Answer::Republish { reservation, .. } = answer {
        reservation.forget(ForgetCause::ChannelClosed);
    }
}

/// Lets the message of this ticket go. It may have left already.
fn let_go(places: &mut BTreeMap<Ticket, usize>, asked: &mut VecDeque<Asked>, taken: usize, ticket: Ticket) {
    let place = places.remove(&ticket).and_then(|place| place.checked_sub(taken));
    if let Some(Asked { answer: Answer::Republish { goes, .. }, .. }) = place.and_then(|at| asked.get_mut(at))
    {
        *goes = true;
    }
}

/// Notes that an answer may change, and until when a verdict may come by mail.
fn expect(
    places: &mut BTreeMap<Ticket, usize>,
    due: &mut BTreeSet<(Instant, Ticket)>,
    asked: &Asked,
    place: usize,
) {
    if asked.answer.may_change() {
        places.insert(asked.ticket, place);
    }
    if let Answer::Pending { due: until, .. } = &asked.answer {
        due.insert((*until, asked.ticket));
    }
}
