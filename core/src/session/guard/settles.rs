//! How deliveries of a guarded channel are settled: by the client, whose ack makes an id seen, and by Hapax itself, which acks what it hides.
//!
//! Hapax sends nothing of its own at times when RabbitMQ does not expect it: amid a message of the client, while a `tx.commit` is on its
//! way, and from `basic.recover` to its answer. (After that, the broker has all unacked deliveries back, and their tags are unknown.)
//!
//! In a transaction an ack takes effect at `tx.commit`. The acks of Hapax are part of it. If the client has nothing in its transaction,
//! Hapax commits them by itself: a prefetch is free again only then.

use super::tags::{Shown, Tags};
use crate::session::chaos::ChaosDeed;
use crate::session::cx::Cx;
use crate::session::fault::Fault;
use crate::session::outbox::{Lane, View};
use crate::session::publisher::Publisher;
use crate::session::unremembered::{Deadline, Outstanding};
use crate::window::{Committed, ForgetCause, Reservations, Unremembered, Window, is_same};
use crate::wire::method::{MethodId, Settle};
use crate::wire::{ChannelId, emit};
use bytes::Bytes;
use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::Arc;
use std::time::{Duration, Instant};

/// The bit of `basic.nack` that gives messages back to their queues.
const REQUEUE_NACK: u8 = 2;
/// The same of `basic.reject`.
const REQUEUE_REJECT: u8 = 1;
/// Bytes of an ack that is to be lost: an estimate.
const LOST_ACK: usize = 256;

/// A delivery that the client has settled in a transaction.
#[derive(Debug)]
struct Settled {
    client: u64,
    shown: Shown,
    is_ack: bool,
}

/// A transaction whose end the broker has not confirmed.
#[derive(Debug)]
enum Ended {
    /// Hapax has committed its own acks.
    Own,
    Commit(Vec<Settled>),
    Rollback,
}

/// The settles of a channel's transactions.
#[derive(Debug, Default)]
struct Transactions {
    open: Vec<Settled>,
    /// The same of Hapax: the broker's tags, and whether they are acked or given back.
    own: Vec<(u64, bool)>,
    ended: VecDeque<Ended>,
}

/// The settles of one channel.
#[derive(Debug)]
pub(super) struct Settles {
    channel: ChannelId,
    pub(super) tags: Tags,
    /// hidden deliveries that Hapax has to ack
    acks: Vec<u64>,
    /// deliveries that Hapax has to give back
    returns: Vec<u64>,
    /// methods that Hapax has to send
    methods: VecDeque<Bytes>,
    /// acks of the client that wait until the window remembers their ids
    unremembered: Outstanding<Vec<u64>>,
    transactions: Transactions,
    /// For each `basic.recover` without an answer: whether the client expects one.
    recovering: VecDeque<bool>,
    /// The broker has all unacked deliveries back. No settle is sent any more.
    is_mute: bool,
    /// Deliveries that the broker shall deliver again although the client acks them, by its tags: chaos. The deed is told when the
    /// client has acked.
    lost_acks: BTreeMap<u64, Option<Box<ChaosDeed>>>,
    /// The broker's tags of unacked deliveries that it has marked as delivered before, for chaos.
    again: BTreeSet<u64>,
}

impl Settles {
    pub(super) fn new(channel: ChannelId) -> Settles {
        Settles {
            channel,
            tags: Tags::default(),
            acks: Vec::new(),
            returns: Vec::new(),
            methods: VecDeque::new(),
            unremembered: Outstanding::default(),
            transactions: Transactions::default(),
            recovering: VecDeque::new(),
            is_mute: false,
            lost_acks: BTreeMap::new(),
            again: BTreeSet::new(),
        }
    }

    /// Returns the bytes that they take.
    pub(super) fn memory(&self) -> usize {
        let own = self.acks.len() + self.returns.len() + self.transactions.own.len();
        let lost = self.lost_acks.len() * LOST_ACK;
        self.tags.memory()
            + lost
            + (own + self.again.len()) * 16
            + self.transactions.open.len() * size_of::<Settled>()
    }

    /// Returns true if the broker is about to take all unacked deliveries back.
    pub(super) fn is_recovering(&self) -> bool {
        !self.recovering.is_empty()
    }

    /// Returns true if no settle is sent to the broker any more.
    pub(super) fn is_mute(&self) -> bool {
        self.is_mute
    }

    /// Sends no settle any more: the broker has all unacked deliveries back.
    pub(super) fn mute(&mut self) {
        self.is_mute = true;
        self.again.clear();
    }

    /// Notes a delivery that the broker wants to be settled. `again`: it was delivered before.
    pub(super) fn delivered(&mut self, upstream: u64, again: bool) {
        self.tags.delivered(upstream);
        if again {
            self.again.insert(upstream);
        }
    }

    /// Returns true if the broker would take back a delivery that was delivered before already, if the connection ended now.
    pub(super) fn holds_redelivered(&self) -> bool {
        !self.again.is_empty()
    }

    /// Returns true if acks wait until a window remembers their ids.
    pub(super) fn is_unremembered(&self) -> bool {
        !self.unremembered.is_empty()
    }

    /// Returns when [`Settles::expire`] has something to do.
    pub(super) fn deadline(&self) -> Option<Instant> {
        self.unremembered.deadline()
    }

    // ---- by the client ---------------------------------------------------------------------------------------------

    /// Handles `basic.ack`, `basic.nack` or `basic.reject` of the client, and sends it on with the broker's tags. `None`: the broker may
    /// judge it, because it is malformed.
    pub(super) fn recv_settle(
        &mut self,
        id: MethodId,
        payload: &[u8],
        is_tx: bool,
        cx: &mut Cx<'_>,
    ) -> Result<Option<()>, Fault> {
        let parsed =
            if id == MethodId::BASIC_REJECT { Settle::of_reject(payload) } else { Settle::parse(payload) };
        let Ok(settle) = parsed else { return Ok(None) };
        let requeue = match (id, payload.last().copied().unwrap_or_default()) {
            (MethodId::BASIC_NACK, bits) => bits & REQUEUE_NACK,
            (MethodId::BASIC_REJECT, bits) => bits & REQUEUE_REJECT,
            _ => 0,
        };
        let Some(taken) = self.tags.take(settle) else {
            return Err(Fault::UnknownDeliveryTag { tag: settle.tag, method: id });
        };
        let is_ack = id == MethodId::BASIC_ACK;
        if is_tx {
            let tags: Vec<u64> = taken.values().map(|shown| shown.upstream).collect();
            let again: Vec<u64> = tags.iter().copied().filter(|tag| self.again.contains(tag)).collect();
            self.write(id, requeue, tags, &mut cx.link.out.upstream);
            // The broker takes them back if the connection ends before tx.commit-ok.
            self.again.extend(again);
            let settled = taken.into_iter().map(|(client, shown)| Settled { client, shown, is_ack });
            self.transactions.open.extend(settled);
        } else if is_ack {
            self.ack(taken, cx);
        } else {
            let mut tags = Vec::with_capacity(taken.len());
            for Shown { upstream, reserved, .. } in taken.into_values() {
                tags.push(upstream);
                reserved.into_iter().for_each(|(reservation, _)| reservation.forget(ForgetCause::Nack));
            }
            self.write(id, requeue, tags, &mut cx.link.out.upstream);
        }
        Ok(Some(()))
    }

    /// Handles that the client has acked these: their ids are seen from now on, whatever becomes of the ack on its way to the broker. An
    /// ack waits until its id is remembered.
    fn ack(&mut self, taken: BTreeMap<u64, Shown>, cx: &mut Cx<'_>) {
        if !self.lost_acks.is_empty() {
            self.tell_lost_acks(&taken, cx);
        }
        let mut now = Vec::with_capacity(taken.len());
        let mut batches: Vec<Batch> = Vec::new();
        for Shown { upstream, reserved, consumed } in taken.into_values() {
            consumed.release(cx.now);
            let Some((reservation, memo)) = reserved else {
                now.push(upstream);
                continue;
            };
            let Some(window) = reservation.window().map(Arc::clone) else { continue };
            let at = match batches.iter().position(|batch| is_same(&batch.window, &window)) {
                Some(at) => at,
                None => {
                    batches.push(Batch {
                        window,
                        reservations: Reservations::default(),
                        tags: Vec::new(),
                        last: None,
                    });
                    batches.len() - 1
                }
            };
            if let Some(batch) = batches.get_mut(at) {
                let before = batch.reservations.push(reservation, cx.now, memo);
                batch.committed(before);
                batch.tags.push(upstream);
            }
        }
        for mut batch in batches {
            let committed = batch.reservations.commit(cx.now);
            batch.committed(committed);
            match batch.last {
                None => now.extend(batch.tags),
                Some(commit) => {
                    let timeout = cx.shared.settings.store_timeout;
                    let deadline = Deadline { now: cx.now, timeout, mailbox: &cx.link.mailbox };
                    self.unremembered.push(commit, batch.tags, deadline);
                }
            }
        }
        self.write_acks(now, &mut cx.link.out.upstream);
    }

    /// Lets the ack of a delivery that the client is about to be shown be lost: the broker delivers it again.
    pub(super) fn lose_ack(&mut self, upstream: u64, deed: Box<ChaosDeed>) {
        self.lost_acks.insert(upstream, Some(deed));
    }

    /// Tells of the acks that are lost, now that the client has sent them. If the run is over, none is.
    #[cold]
    fn tell_lost_acks(&mut self, taken: &BTreeMap<u64, Shown>, cx: &mut Cx<'_>) {
        let chaos = cx.link.chaos.as_mut().filter(|chaos| chaos.plan(cx.now).is_some());
        let Some(chaos) = chaos else {
            // (Those that were told of are on their way.)
            self.lost_acks.retain(|_, deed| deed.is_none());
            return;
        };
        for shown in taken.values() {
            let deed = self.lost_acks.get_mut(&shown.upstream).and_then(Option::take);
            deed.into_iter().for_each(|deed| chaos.tell(deed));
        }
    }

    /// Acks these at the broker, and gives back those whose ack is lost.
    fn write_acks(&mut self, mut acks: Vec<u64>, upstream: &mut Lane) {
        let mut returns = Vec::new();
        if !self.lost_acks.is_empty() {
            returns.extend(acks.extract_if(.., |tag| self.lost_acks.contains_key(tag)));
        }
        self.write(MethodId::BASIC_ACK, 0, acks, upstream);
        self.write(MethodId::BASIC_NACK, REQUEUE_NACK, returns, upstream);
    }

    fn write(&mut self, id: MethodId, requeue: u8, tags: Vec<u64>, upstream: &mut Lane) {
        if !self.lost_acks.is_empty() {
            tags.iter().for_each(|tag| drop(self.lost_acks.remove(tag)));
        }
        if !self.again.is_empty() {
            tags.iter().for_each(|tag| _ = self.again.remove(tag));
        }
        if self.is_mute {
            return;
        }
        let channel = self.channel;
        let multiple = id != MethodId::BASIC_REJECT;
        self.tags.settle(tags, multiple, |settle| {
            emit::settle(upstream.made(), channel, id, settle.tag, requeue | u8::from(settle.multiple));
        });
    }

    /// Handles that windows may remember more than before.
    pub(super) fn recv_remembered(&mut self) {
        let Settles { unremembered, acks, .. } = self;
        unremembered.recv_remembered(|tags| acks.extend(tags));
    }

    /// Asks the windows that have been silent for too long what to do.
    pub(super) fn expire(&mut self, now: Instant, timeout: Duration) {
        let Settles { unremembered, acks, .. } = self;
        unremembered.expire(now, timeout, |tags| acks.extend(tags));
    }

    // ---- by Hapax --------------------------------------------------------------------------------------------------

    /// Notes that a delivery is hidden: it is acked.
    pub(super) fn hide(&mut self, upstream: u64) {
        self.acks.push(upstream);
    }

    /// Notes that a delivery is given back to its queue.
    pub(super) fn give_back(&mut self, upstream: u64) {
        self.returns.push(upstream);
    }

    /// Notes that a method has to be sent.
    pub(super) fn send(&mut self, method: Bytes) {
        self.methods.push_back(method);
    }

    /// Sends what Hapax has to say, if it may.
    #[inline]
    pub(super) fn flush(&mut self, publisher: &Publisher, upstream: &mut Lane) {
        if self.acks.is_empty() && self.returns.is_empty() && self.methods.is_empty() {
            return;
        }
        if self.is_mute {
            self.acks.clear();
            self.returns.clear();
            self.methods.clear();
            return;
        }
        let commits = self.transactions.ended.iter().any(|ended| matches!(ended, Ended::Commit(_)));
        if publisher.is_forwarding() || commits {
            return;
        }
        self.methods.drain(..).for_each(|method| upstream.push(method));
        if self.is_recovering() || self.acks.is_empty() && self.returns.is_empty() {
            return;
        }
        let (acks, returns) = (std::mem::take(&mut self.acks), std::mem::take(&mut self.returns));
        if publisher.ledger().is_tx() {
            let acked = acks.iter().map(|tag| (*tag, true));
            self.transactions.own.extend(acked.chain(returns.iter().map(|tag| (*tag, false))));
        }
        self.write_acks(acks, upstream);
        self.write(MethodId::BASIC_NACK, REQUEUE_NACK, returns, upstream);
        if publisher.ledger().is_tx() && self.transactions.open.is_empty() && !publisher.is_amid_transaction()
        {
            self.transactions.own.clear();
            self.transactions.ended.push_back(Ended::Own);
            upstream.push(super::methods::commit(self.channel));
        }
    }

    // ---- transactions ----------------------------------------------------------------------------------------------

    /// Handles `tx.commit` of the client, which is forwarded.
    pub(super) fn recv_commit(&mut self) {
        self.transactions.own.clear();
        let open = std::mem::take(&mut self.transactions.open);
        self.transactions.ended.push_back(Ended::Commit(open));
    }

    /// Handles `tx.rollback` of the client, which is forwarded: what was acked in the transaction is unacked again. Hapax acks again what it
    /// had acked.
    pub(super) fn recv_rollback(&mut self) {
        let Settles { transactions, tags, acks, returns, .. } = self;
        for Settled { client, shown, .. } in transactions.open.drain(..) {
            tags.restore(client, shown);
        }
        for (upstream, is_ack) in transactions.own.drain(..) {
            tags.delivered(upstream);
            let due = if is_ack { &mut *acks } else { &mut *returns };
            due.push(upstream);
        }
        transactions.ended.push_back(Ended::Rollback);
    }

    /// Handles `tx.commit-ok` or `tx.rollback-ok`. Returns true if it is the answer to Hapax.
    pub(super) fn recv_tx_ended(&mut self, now: Instant) -> bool {
        let settled = match self.transactions.ended.pop_front() {
            Some(Ended::Own) => return true,
            Some(Ended::Commit(settled)) => settled,
            Some(Ended::Rollback) | None => return false,
        };
        let mut acked = Reservations::default();
        for Settled { shown, is_ack, .. } in settled {
            self.again.remove(&shown.upstream);
            if is_ack {
                shown.consumed.release(now);
            }
            match shown.reserved {
                Some((reservation, memo)) if is_ack => drop(acked.push(reservation, now, memo)),
                Some((reservation, _)) => reservation.forget(ForgetCause::Nack),
                None => {}
            }
        }
        drop(acked.commit(now));
        false
    }

    // ---- basic.recover ---------------------------------------------------------------------------------------------

    /// Notes that `basic.recover` is sent. `expected`: the client expects an answer.
    pub(super) fn recv_recover(&mut self, expected: bool) {
        self.recovering.push_back(expected);
    }

    /// Handles `basic.recover-ok`: the broker has all unacked deliveries back. Returns true if the client expects it.
    pub(super) fn recv_recover_ok(&mut self) -> bool {
        self.acks.clear();
        self.returns.clear();
        self.lost_acks.clear();
        self.again.clear();
        self.unremembered.clear();
        forget(self.tags.clear().into_values());
        self.recovering.pop_front().unwrap_or(true)
    }

    // ---- the end ---------------------------------------------------------------------------------------------------

    /// Handles that the channel is about to end: the broker takes back what is unacked. Acks of the client need not wait any more.
    pub(super) fn end(&mut self) {
        self.again.clear();
        let Settles { unremembered, acks, transactions, methods, .. } = self;
        methods.clear();
        unremembered.drain(|tags| acks.extend(tags));
        // The answers are still to come, and those to Hapax are not for the client.
        let committing = transactions.ended.iter_mut().flat_map(|ended| match ended {
            Ended::Commit(settled) => std::mem::take(settled),
            Ended::Own | Ended::Rollback => Vec::new(),
        });
        forget(committing.chain(transactions.open.drain(..)).map(|settled| settled.shown));
        forget(self.tags.take_shown().into_values());
    }
}

/// The acks of one window.
struct Batch {
    window: Arc<dyn Window>,
    reservations: Reservations,
    tags: Vec<u64>,
    /// the last commit that the window does not remember yet
    last: Option<Unremembered>,
}

impl Batch {
    fn committed(&mut self, committed: Option<Committed>) {
        if let Some(Committed::Later(commit)) = committed {
            self.last = Some(commit);
        }
    }
}

fn forget(shown: impl Iterator<Item = Shown>) {
    for (reservation, _) in shown.filter_map(|shown| shown.reserved) {
        reservation.forget(ForgetCause::ChannelClosed);
    }
}

/// Returns true if this method of the client settles deliveries.
pub(in crate::session) fn is_settle(id: MethodId) -> bool {
    matches!(id, MethodId::BASIC_ACK | MethodId::BASIC_NACK | MethodId::BASIC_REJECT)
}

/// Returns true if the broker has marked this delivery as delivered before.
pub(super) fn is_redelivered(method: View<'_>) -> bool {
    tag_of(method).and_then(|(at, _)| method.payload().get(at + 8)).is_some_and(|bits| bits & 1 != 0)
}

/// Returns the broker's tag of a delivery, and where it stands in the payload of the method.
pub(super) fn tag_of(method: View<'_>) -> Option<(usize, u64)> {
    let payload = method.payload();
    let at = match MethodId::of(payload).ok()? {
        MethodId::BASIC_DELIVER => 5 + usize::from(*payload.get(4)?),
        _ => 4,
    };
    Some((at, u64::from_be_bytes(*payload.get(at..)?.first_chunk()?)))
}
