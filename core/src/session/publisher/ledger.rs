//! Where a forwarded publish waits for its outcome, and where the outcome is looked up.
//!
//! How the upstream tells outcomes depends on the channel. The three ways exclude each other ([`Outcomes`]):
//!
//! * without confirms, it never tells: an id is committed when its message is written ([`Written`] remembers the last ones);
//! * with confirms, by acks and nacks ([`Confirms`]): the client has selected confirms, or Hapax has, without telling the client;
//! * in a transaction, by `tx.commit-ok` ([`Transactions`]).

use crate::session::blame::Blame;
use crate::session::confirms::{ClientTag, Confirms, ENTRY, UpstreamTag};
use crate::session::cx::{Cx, Link};
use crate::session::entry::{Entry, Hears, Outcome, Verified};
use crate::session::held_returns::HeldReturns;
use crate::session::outbox::{Piece, View};
use crate::session::replies::Replies;
use crate::session::returns::{ReturnKey, Shown};
use crate::session::transaction::Transactions;
use crate::session::unremembered::Deadline;
use crate::session::written::Written;
use crate::window::{BodyDigest, Claim, ConfirmRule, ForgetCause, Memo, Reservation, Window};
use crate::wire::frame::FrameKind;
use crate::wire::method::{MethodId, Settle};
use crate::wire::{ChannelId, emit};
use bytes::{Bytes, BytesMut};
use std::collections::VecDeque;
use std::sync::Arc;
use std::time::{Duration, Instant};

/// The last publishes that were not entered and may come back.
const UNENTERED: usize = 64;
/// Bytes of a publish in the ledger, where its key is in a set, too, because it is in a transaction.
const TX_ENTRY: usize = ENTRY + 32;

/// The reservation of a publish, and the facts that its commit tells the window.
pub(super) type Reserved = (Reservation, Memo);

/// How the upstream tells what became of a publish.
#[derive(Debug)]
enum Outcomes {
    /// It does not.
    Untold,
    /// By acks. `client`: the client has selected confirms itself. Otherwise Hapax has, and the client does not know.
    Confirms { client: bool, confirms: Confirms },
    /// By `tx.commit-ok`. It goes to the client when the ids are remembered.
    Tx { transactions: Transactions, replies: Replies },
}

impl Outcomes {
    fn tx() -> Outcomes {
        Outcomes::Tx { transactions: Transactions::default(), replies: Replies::default() }
    }
}

/// The forwarded publishes of one channel.
#[derive(Debug)]
pub(in crate::session) struct Ledger {
    outcomes: Outcomes,
    /// Ids that were committed when they were written. It outlives the selection of confirms or tx, until the first outcome.
    written: Option<Box<Written>>,
    /// The client has asked for a return on this channel.
    has_asked: bool,
    /// The last publishes whose return the client has asked for and that were not entered, oldest first. Their returns may still come.
    unentered: VecDeque<ReturnKey>,
    /// the returns of duplicates that no ack follows, or whose transaction is committed
    told: HeldReturns,
    /// The client hears nothing more.
    is_deaf: bool,
}

impl Ledger {
    /// Creates the ledger of a channel that has just been opened.
    pub(super) fn new() -> Ledger {
        Ledger::with(Outcomes::Untold)
    }

    /// Creates the ledger of a channel that has just selected tx.
    pub(super) fn of_transactions() -> Ledger {
        Ledger::with(Outcomes::tx())
    }

    fn with(outcomes: Outcomes) -> Ledger {
        let (unentered, told) = (VecDeque::new(), HeldReturns::default());
        Ledger { outcomes, written: None, has_asked: false, unentered, told, is_deaf: false }
    }

    /// Returns true if the upstream tells outcomes by acks.
    pub(in crate::session) fn has_confirms(&self) -> bool {
        matches!(self.outcomes, Outcomes::Confirms { .. })
    }

    /// Returns true if the client has selected confirms.
    pub(in crate::session) fn answers_client(&self) -> bool {
        matches!(self.outcomes, Outcomes::Confirms { client: true, .. })
    }

    /// Returns true if Hapax has selected confirms and the client does not know.
    pub(in crate::session) fn is_unseen(&self) -> bool {
        matches!(self.outcomes, Outcomes::Confirms { client: false, .. })
    }

    /// Returns true if the channel has selected tx.
    pub(in crate::session) fn is_tx(&self) -> bool {
        matches!(self.outcomes, Outcomes::Tx { .. })
    }

    /// Returns true if the upstream does not tell outcomes. An id is committed when its message is written, so the second of two
    /// publishes of one id is a duplicate, even if both come in one read.
    pub(super) fn is_untold(&self) -> bool {
        matches!(self.outcomes, Outcomes::Untold)
    }

    /// Returns true if the client hears neither acks nor `tx.commit-ok`.
    pub(in crate::session) fn is_silent(&self) -> bool {
        matches!(self.outcomes, Outcomes::Untold | Outcomes::Confirms { client: false, .. })
    }

    /// Returns the tag of the client's next publish, if it counts them.
    #[inline]
    pub(super) fn next_client_tag(&mut self) -> Option<ClientTag> {
        match &mut self.outcomes {
            Outcomes::Confirms { client: true, confirms } => Some(confirms.answers.next_tag()),
            Outcomes::Confirms { client: false, .. } | Outcomes::Untold | Outcomes::Tx { .. } => None,
        }
    }

    /// Handles the client's `confirm.select`: from here on it counts its publishes.
    pub(in crate::session) fn select_confirm(&mut self) {
        match &mut self.outcomes {
            Outcomes::Untold => {
                self.outcomes = Outcomes::Confirms { client: true, confirms: Confirms::new() };
            }
            Outcomes::Confirms { client, .. } => *client = true,
            Outcomes::Tx { .. } => {}
        }
    }

    /// Handles the client's `tx.select`.
    pub(in crate::session) fn select_tx(&mut self) {
        if matches!(self.outcomes, Outcomes::Untold) {
            self.outcomes = Outcomes::tx();
        }
    }

    /// Selects confirms without telling the client, if the window's rules say so and nothing was selected yet.
    pub(super) fn select_unseen(&mut self, channel: ChannelId, window: &Arc<dyn Window>, cx: &mut Cx<'_>) {
        if matches!(self.outcomes, Outcomes::Untold) && window.rules().confirms == ConfirmRule::Shadow {
            cx.link.out.upstream.push(emit::confirm_select(channel));
            self.outcomes = Outcomes::Confirms { client: false, confirms: Confirms::new() };
        }
    }

    /// Enters a publish that was forwarded to `exchange`. Gives its reservation back if no outcome will be told: then it is
    /// committed when the whole message is written.
    #[inline]
    pub(super) fn enter(&mut self, entry: Entry, exchange: &[u8]) -> Option<Reserved> {
        if let Outcomes::Confirms { confirms, .. } = &mut self.outcomes {
            confirms.forwarded(entry, exchange);
            return None;
        }
        self.enter_without_confirms(entry, exchange)
    }

    #[inline(never)]
    fn enter_without_confirms(&mut self, entry: Entry, exchange: &[u8]) -> Option<Reserved> {
        match &mut self.outcomes {
            Outcomes::Untold => {
                let reserved = entry.reserved();
                let committed = reserved.and_then(|reserved| Some((reserved.window()?, reserved.claim())));
                if committed.is_some() || self.written.is_some() {
                    self.written.get_or_insert_default().push(committed, exchange, entry.shows());
                } else if let Some(mandatory) = entry.mandatory.as_deref().filter(|it| it.asked) {
                    if self.unentered.len() >= UNENTERED {
                        self.unentered.pop_front();
                    }
                    self.unentered.push_back(mandatory.key);
                }
                return entry.reservation;
            }
            Outcomes::Tx { transactions, .. } => transactions.forwarded(entry, exchange),
            Outcomes::Confirms { confirms, .. } => confirms.forwarded(entry, exchange),
        }
        None
    }

    /// Returns true if a publish that no window has judged is entered, too.
    pub(super) fn enters_unjudged(&self) -> bool {
        !matches!(self.outcomes, Outcomes::Untold) || self.written.is_some()
    }

    /// Notes that the client asks for the return of a publish that is about to be forwarded.
    pub(super) fn note_asked(&mut self) {
        self.has_asked = true;
    }

    /// Returns true if a `basic.return` means something here.
    pub(in crate::session) fn hears_returns(&self) -> bool {
        self.enters_unjudged()
    }

    /// Returns the reservation of the publish that was forwarded last, if an entry has it.
    pub(super) fn newest(&mut self) -> Option<&mut Option<Reserved>> {
        let entry = match &mut self.outcomes {
            Outcomes::Untold => None,
            Outcomes::Confirms { confirms, .. } => confirms.newest(),
            Outcomes::Tx { transactions, .. } => transactions.newest(),
        };
        entry.map(|entry| &mut entry.reservation)
    }

    /// Returns the open transaction and those that are ending, if the channel has selected tx.
    pub(super) fn transactions(&mut self) -> Option<&mut Transactions> {
        match &mut self.outcomes {
            Outcomes::Tx { transactions, .. } => Some(transactions),
            Outcomes::Untold | Outcomes::Confirms { .. } => None,
        }
    }

    /// Returns true if the open transaction has forwarded a publish of this claim.
    pub(super) fn transaction_holds(&self, claim: Claim) -> bool {
        matches!(&self.outcomes, Outcomes::Tx { transactions, .. } if transactions.holds(claim))
    }

    /// Returns the digest of the body that the open transaction holds for this claim, see [`Transactions::body_of`].
    pub(super) fn transaction_body(&self, claim: Claim) -> BodyDigest {
        match &self.outcomes {
            Outcomes::Tx { transactions, .. } => transactions.body_of(claim),
            Outcomes::Untold | Outcomes::Confirms { .. } => BodyDigest::UNKNOWN,
        }
    }

    /// Returns true if the client waits for `tx.commit-ok` or `tx.rollback-ok`.
    pub(in crate::session) fn owes_tx_ended(&self) -> bool {
        match &self.outcomes {
            Outcomes::Tx { transactions, replies } => transactions.is_ending() || replies.is_unremembered(),
            Outcomes::Untold | Outcomes::Confirms { .. } => false,
        }
    }

    /// Returns the number of publishes of the open transaction.
    pub(super) fn open_len(&self) -> usize {
        match &self.outcomes {
            Outcomes::Tx { transactions, .. } => transactions.open_len(),
            Outcomes::Untold | Outcomes::Confirms { .. } => 0,
        }
    }

    /// Acks the client's publish: it is stored, by itself or by another of the same id.
    pub(super) fn ack(&mut self, tag: ClientTag) {
        if let Outcomes::Confirms { confirms, .. } = &mut self.outcomes {
            confirms.answers.ack(tag);
        }
    }

    /// Nacks the client's publish: it is not stored.
    pub(super) fn nack(&mut self, tag: ClientTag) {
        if let Outcomes::Confirms { confirms, .. } = &mut self.outcomes {
            confirms.answers.nack(tag);
        }
    }

    /// Tells the client that a publish was a duplicate, by a return with these frames. The ack follows, if the client uses confirms. In
    /// a transaction the return waits until it is committed.
    pub(super) fn tell(&mut self, client: Option<ClientTag>, frames: Bytes) {
        match (&mut self.outcomes, client) {
            _ if self.is_deaf => {}
            (Outcomes::Confirms { confirms, .. }, Some(tag)) => confirms.answers.return_and_ack(tag, frames),
            (Outcomes::Tx { transactions, .. }, _) => transactions.tell(frames),
            (Outcomes::Untold | Outcomes::Confirms { .. }, _) => self.told.push(frames),
        }
    }

    /// Returns the bytes of the returns of duplicates that the client has not got.
    pub(super) fn told_bytes(&self) -> usize {
        self.told.bytes()
            + match &self.outcomes {
                Outcomes::Untold => 0,
                Outcomes::Confirms { confirms, .. } => confirms.answers.return_bytes(),
                Outcomes::Tx { transactions, .. } => transactions.told_bytes(),
            }
    }

    /// Returns true if answers or replies to the client are due.
    #[inline]
    pub(in crate::session) fn is_due(&self) -> bool {
        if !self.told.is_empty() {
            return true;
        }
        match &self.outcomes {
            Outcomes::Untold => false,
            Outcomes::Confirms { confirms, .. } => confirms.answers.is_due(),
            Outcomes::Tx { replies, .. } => replies.is_due(),
        }
    }

    /// Writes the answers to the client that are due.
    pub(in crate::session) fn flush(&mut self, channel: ChannelId, out: &mut BytesMut) {
        self.told.flush(out);
        if let Outcomes::Confirms { confirms, .. } = &mut self.outcomes {
            confirms.answers.flush(channel, out);
        }
    }

    /// Takes a frame of the upstream that has to wait behind a `tx.commit-ok`. Returns false if it may go on.
    #[inline]
    pub(in crate::session) fn delays(
        &mut self,
        kind: FrameKind,
        id: Option<MethodId>,
        frame: View<'_>,
    ) -> bool {
        match &mut self.outcomes {
            Outcomes::Tx { replies, .. } => replies.take(kind, id, frame),
            Outcomes::Untold | Outcomes::Confirms { .. } => false,
        }
    }

    /// Takes the next frame that has waited and may go to the client now.
    pub(in crate::session) fn pop_reply(&mut self) -> Option<Piece> {
        match &mut self.outcomes {
            Outcomes::Tx { replies, .. } => replies.pop(),
            Outcomes::Untold | Outcomes::Confirms { .. } => None,
        }
    }

    /// Returns true if the client waits until a window remembers its ids.
    #[inline]
    pub(in crate::session) fn is_unremembered(&self) -> bool {
        match &self.outcomes {
            Outcomes::Untold => false,
            Outcomes::Confirms { confirms, .. } => confirms.answers.is_unremembered(),
            Outcomes::Tx { replies, .. } => replies.is_unremembered(),
        }
    }

    /// Answers the publishes that windows remember by now.
    pub(in crate::session) fn recv_remembered(&mut self) {
        match &mut self.outcomes {
            Outcomes::Untold => {}
            Outcomes::Confirms { confirms, .. } => confirms.answers.recv_remembered(),
            Outcomes::Tx { replies, .. } => replies.recv_remembered(),
        }
    }

    /// Returns when a window will have been silent about a commit for too long.
    pub(super) fn deadline(&self) -> Option<Instant> {
        match &self.outcomes {
            Outcomes::Untold => None,
            Outcomes::Confirms { confirms, .. } => confirms.answers.deadline(),
            Outcomes::Tx { replies, .. } => replies.deadline(),
        }
    }

    /// Asks windows that have been silent about a commit for too long what to do.
    pub(super) fn expire(&mut self, now: Instant, timeout: Duration) {
        match &mut self.outcomes {
            Outcomes::Untold => {}
            Outcomes::Confirms { confirms, .. } => confirms.answers.expire(now, timeout),
            Outcomes::Tx { replies, .. } => replies.expire(now, timeout),
        }
    }

    /// Forgets the client, because its channel is closed: no tag and no request of it will be answered any more.
    pub(in crate::session) fn forget_client(&mut self) {
        match &mut self.outcomes {
            Outcomes::Untold => {}
            Outcomes::Confirms { confirms, .. } => confirms.answers.forget_client(),
            Outcomes::Tx { replies, .. } => replies.forget_client(),
        }
        self.tell_nothing();
    }

    /// Notes that the client is gone: nothing has to wait until its ids are remembered.
    pub(in crate::session) fn client_gone(&mut self) {
        match &mut self.outcomes {
            Outcomes::Untold => {}
            Outcomes::Confirms { confirms, .. } => confirms.answers.not_heard(),
            Outcomes::Tx { replies, .. } => replies.forget_client(),
        }
        self.tell_nothing();
    }

    /// Forgets the returns of duplicates, and takes no more.
    fn tell_nothing(&mut self) {
        self.is_deaf = true;
        self.told.clear();
        if let Outcomes::Tx { transactions, .. } = &mut self.outcomes {
            transactions.forget_client();
        }
    }

    /// Returns the bytes of the replies that wait, and of the returns of duplicates that no transaction holds.
    pub(super) fn held(&self) -> usize {
        self.told.bytes()
            + match &self.outcomes {
                Outcomes::Tx { replies, .. } => replies.bytes(),
                Outcomes::Confirms { confirms, .. } => confirms.answers.return_bytes(),
                Outcomes::Untold => 0,
            }
    }

    /// Returns the bytes of the publishes whose outcome the upstream will tell.
    pub(super) fn memory(&self) -> usize {
        match &self.outcomes {
            Outcomes::Untold => 0,
            Outcomes::Confirms { confirms, .. } => confirms.memory(),
            Outcomes::Tx { .. } => self.unresolved(0, 0) * ENTRY,
        }
    }

    /// Returns the bytes of the open transaction, and of the returns that transactions hold.
    pub(super) fn stuck(&self) -> usize {
        let told = match &self.outcomes {
            Outcomes::Tx { transactions, .. } => transactions.told_bytes(),
            Outcomes::Untold | Outcomes::Confirms { .. } => 0,
        };
        self.open_len() * TX_ENTRY + told
    }

    /// Returns how many publishes have no outcome yet, or an answer that is not written. `incomplete` of the entries are not
    /// counted. `waiting` are not forwarded yet.
    #[inline]
    pub(super) fn unresolved(&self, incomplete: usize, waiting: usize) -> usize {
        match &self.outcomes {
            Outcomes::Untold => waiting,
            Outcomes::Confirms { confirms, .. } => confirms.unresolved(waiting).saturating_sub(incomplete),
            Outcomes::Tx { transactions, replies } => {
                transactions.ending_len() + replies.publishes() + waiting
            }
        }
    }

    /// Returns true if every whole publish has its outcome, and the client may be told. `incomplete`: the newest entry is of a
    /// content that is not whole.
    pub(super) fn is_settled(&self, incomplete: bool) -> bool {
        match &self.outcomes {
            Outcomes::Untold => true,
            Outcomes::Confirms { confirms, .. } => {
                confirms.unsettled() <= usize::from(incomplete) && !confirms.answers.is_unremembered()
            }
            Outcomes::Tx { transactions, replies } => !transactions.is_ending() && replies.is_empty(),
        }
    }

    /// Returns the number of publishes that wait for an ack or a nack.
    pub(in crate::session) fn unsettled(&self) -> usize {
        match &self.outcomes {
            Outcomes::Confirms { confirms, .. } => confirms.unsettled(),
            Outcomes::Untold | Outcomes::Tx { .. } => 0,
        }
    }

    /// Returns true if others wait for one of `count` of these publishes, from this one on.
    pub(in crate::session) fn is_awaited(&self, from: usize, count: usize) -> bool {
        match &self.outcomes {
            Outcomes::Confirms { confirms, .. } => confirms.is_awaited(from, count),
            Outcomes::Untold | Outcomes::Tx { .. } => false,
        }
    }

    /// Lets chaos look at the publishes that an ack of the broker settles.
    #[cold]
    pub(in crate::session) fn trouble(&self, channel: ChannelId, settle: Settle, cx: &mut Cx<'_>) {
        let (Outcomes::Confirms { client: true, confirms }, Some(chaos)) =
            (&self.outcomes, &mut cx.link.chaos)
        else {
            return;
        };
        for (entry, went_to) in confirms.settled_by(UpstreamTag(settle.tag), settle.multiple) {
            chaos.recv_outcome(channel, entry, went_to.exchange(), cx.now);
        }
    }

    /// Handles `basic.ack` or `basic.nack`.
    pub(super) fn recv_settle(&mut self, settle: Settle, outcome: Outcome, cx: &mut Cx<'_>) {
        // The broker routes in order: nothing that was written before confirms were selected can come back any more.
        self.written = None;
        self.unentered.clear();
        let Outcomes::Confirms { confirms, .. } = &mut self.outcomes else { return };
        let Cx { shared, link, now, .. } = cx;
        let Link { rights, mailbox, returning, .. } = &mut **link;
        let (shared, now) = (*shared, *now);
        let deadline = Deadline { now, timeout: shared.settings.store_timeout, mailbox };
        // Neighbours mostly came by the same read and went to the same place, so the listener gets one call for them.
        let (mut since, mut alike) = (now, 0);
        let mut learned = None;
        let tell = |since, alike| {
            if alike > 0 {
                shared.listener.publish_latency(now.saturating_duration_since(since), alike);
            }
        };
        confirms.settle(UpstreamTag(settle.tag), settle.multiple, outcome, deadline, |entry, went_to| {
            if entry.since != since {
                tell(since, std::mem::take(&mut alike));
                since = entry.since;
            }
            alike += 1;
            if !returning.is_empty() && outcome == Outcome::Acked && entry.verified == Verified::Yes {
                returning.stored(went_to.exchange());
            }
            if let Some(right) = entry.right.filter(|_| entry.right != learned) {
                rights.learn(&shared.rights, right, now);
                learned = entry.right;
            }
        });
        tell(since, alike);
    }

    /// Handles a `basic.return` that shows this. Says who hears of it.
    pub(super) fn recv_return(&mut self, shown: &Shown, now: Instant) -> Hears {
        if self.takes_unentered(shown) {
            return Hears::Unknown;
        }
        // A message that was written before confirms or tx were selected is older than all entries.
        let written = self.written.as_mut().is_some_and(|written| written.holds(shown));
        let entered = match &mut self.outcomes {
            Outcomes::Confirms { confirms, .. } if !written => Some(confirms.returned(shown)),
            Outcomes::Tx { transactions, .. } if !written => Some(transactions.returned(shown)),
            Outcomes::Untold | Outcomes::Confirms { .. } | Outcomes::Tx { .. } => None,
        };
        let (hears, exact) = entered.unwrap_or((Hears::Unknown, false));
        if exact {
            return hears;
        }
        let earlier = self.written.as_mut().map_or(Hears::Unknown, |earlier| earlier.recv_return(shown, now));
        match hears.or(earlier) {
            // It may be one that is not entered.
            Hears::Nobody if !self.unentered.is_empty() && !written => Hears::Unknown,
            // (Of very many publishes without confirms, the oldest are not remembered any more.)
            Hears::Unknown if !self.has_asked => Hears::Nobody,
            hears => hears,
        }
    }

    /// Takes a publish that was not entered, if it looks exactly like this return: no other is meant. If one that was entered looks like it,
    /// too, that one may be meant.
    fn takes_unentered(&mut self, shown: &Shown) -> bool {
        let Some(at) = self.unentered.iter().position(|key| *key == shown.by_header) else { return false };
        self.unentered.remove(at);
        let is_entered = match &mut self.outcomes {
            Outcomes::Untold => false,
            Outcomes::Confirms { confirms, .. } => confirms.looks_like(shown),
            Outcomes::Tx { transactions, .. } => transactions.looks_like(shown),
        };
        !is_entered && !self.written.as_mut().is_some_and(|written| written.holds(shown))
    }

    /// Handles `tx.commit-ok` or `tx.rollback-ok`. Returns true if it has to wait until the ids of the transaction are
    /// remembered.
    pub(super) fn recv_tx_ended(&mut self, frame: View<'_>, cx: &mut Cx<'_>) -> bool {
        let Cx { shared, link, now, .. } = cx;
        self.written = None;
        self.unentered.clear();
        let Outcomes::Tx { transactions, replies } = &mut self.outcomes else { return false };
        let rights = &mut link.rights;
        let (commits, publishes, returns) =
            transactions.ended(*now, |right| rights.learn(&shared.rights, right, *now));
        self.told.append(returns);
        let deadline = Deadline { now: *now, timeout: shared.settings.store_timeout, mailbox: &link.mailbox };
        replies.recv_tx_ended(frame, commits, publishes, deadline)
    }

    /// Handles that the upstream channel or connection is closed: outcomes that it has not told are unknown from now on.
    /// `incomplete`: the newest entry is of a content that is not whole. `blame`: the broker has closed the channel because of
    /// a publish.
    pub(super) fn upstream_closed(&mut self, incomplete: bool, blame: Option<&Blame>, now: Instant) {
        match &mut self.outcomes {
            Outcomes::Untold => {
                // Publishes that no window has judged are written down, too, once another was.
                if let Some(written) = self.written.as_mut().filter(|_| incomplete) {
                    written.drop_newest();
                }
            }
            Outcomes::Confirms { confirms, .. } => give_back(confirms, incomplete, blame, now),
            // A publish that was not sent whole is in the open transaction, which is forgotten anyway.
            Outcomes::Tx { transactions, .. } => {
                transactions.take_unsettled(blame).into_iter().for_each(|entry| entry.in_doubt(now));
            }
        }
        if let (Some(written), Some(blame)) = (self.written.take(), blame) {
            written.blame(blame, now);
        }
    }
}

/// Gives publishes with confirms back, oldest first. If one of them is to blame, those that may be it, or that came after it,
/// are forgotten. All others are in doubt. (Only the exchanges of publishes with a reservation are known. One without may be
/// to blame, too, but there is nothing to forget.) `incomplete`: the newest was not sent whole, so it was not stored, whatever
/// the rule is.
fn give_back(confirms: &mut Confirms, incomplete: bool, blame: Option<&Blame>, now: Instant) {
    let whole = confirms.unsettled().saturating_sub(usize::from(incomplete));
    let guilty = blame.map_or_else(Vec::new, |blame| {
        let is_suspect = |exchange: Option<&[u8]>| {
            blame.names_any() && exchange.is_none_or(|exchange| blame.names(exchange))
        };
        Blame::guilty(confirms.unsettled_exchanges().take(whole).map(is_suspect))
    });
    let mut entries = confirms.take_unsettled();
    if incomplete && let Some(entry) = entries.pop() {
        entry.forget(ForgetCause::Incomplete);
    }
    for (at, entry) in entries.into_iter().enumerate() {
        if guilty.get(at) == Some(&true) {
            entry.forget(ForgetCause::ChannelClosed);
        } else {
            entry.in_doubt(now);
        }
    }
}
