//! The consumers of one channel by their tags: which one a delivery is for, and what is known about it.
//!
//! A client may use a tag again as soon as it has sent `basic.cancel`. Deliveries to the old consumer are still on their way then. Therefore
//! each tag has a line of consumers, the oldest first:
//!
//! ```text
//!   client    cancel c   consume c
//!   broker    deliver c   deliver c   cancel-ok c   consume-ok c   deliver c
//!             \-- to the first consumer of the tag -/              \-- to the second one
//! ```
//!
//! Two things hold for the queues of RabbitMQ, whatever happens at the same time: all deliveries to a consumer come before the
//! `cancel-ok` that its queue sends, and none comes before its own `consume-ok`. A consumer therefore joins at its `consume-ok`, and
//! leaves when its cancels are answered. RabbitMQ answers a second `basic.cancel` early, because it does not know the tag any more.
//! Therefore an answer counts for a second cancel as long as there is one.
//!
//! There is one exception: RabbitMQ 4 sends a few deliveries of a quorum queue after the `cancel-ok`. If the next consumer of the tag reads the
//! same queue, and both ack or neither does, its guard judges them, too. Otherwise they are shown, and nobody judges them.
//!
//! A consumer with the nowait bit has no `consume-ok`. While an older one of its tag may still get deliveries, a delivery may be for either of
//! them. If they differ, it is for nobody: it is shown, and nobody judges it. One that is hidden by mistake is lost.
//!
//! Direct replies stand in no queue, so RabbitMQ answers their `basic.consume` and `basic.cancel` before those of other consumers. Their
//! deliveries show what they are ([`is_direct_reply`]), and their consumers neither join nor leave for others.

use crate::session::guard::Guarded;
use crate::wire::consuming::consumer_tag;
use crate::wire::method::Delivery;
use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;

/// Bytes of a consumer: an estimate. Its tag has at most 255 bytes.
const CONSUMER: usize = 384;
/// The routing keys of direct replies begin with this, and the exchange is the default one. No queue may have such a name.
const DIRECT_REPLIES: &[u8] = b"amq.rabbitmq.reply-to.";

/// The queue that a consumer reads, as far as guards need to know.
#[derive(Clone, Debug)]
pub(in crate::session) enum Reads {
    /// a queue without a guard
    Unguarded,
    Guarded(Arc<Guarded>),
    /// It gets its name by the answer to the declaration of this number.
    Unnamed(u64),
    DirectReplies,
}

impl Reads {
    fn guard(&self) -> Option<&Arc<Guarded>> {
        match self {
            Reads::Guarded(guarded) => Some(guarded),
            Reads::Unguarded | Reads::Unnamed(_) | Reads::DirectReplies => None,
        }
    }

    fn forget_guard(&mut self) {
        if matches!(self, Reads::Guarded(_)) {
            *self = Reads::Unguarded;
        }
    }

    /// Returns true if a delivery may be for one or the other, and that is the same for it.
    fn is_as(&self, other: &Reads) -> bool {
        match (self.guard(), other.guard()) {
            (Some(one), Some(other)) => one.is_as(other),
            (None, None) => true,
            _ => false,
        }
    }
}

/// How far a consumer is.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Stage {
    /// Its `consume-ok` is still to come, and no delivery comes before that.
    Asked,
    /// It may get deliveries.
    Served,
    /// It may get deliveries that are on their way. Hapax has cancelled it without asking for an answer.
    Stopped,
    /// It gets nothing any more. Answers to cancels of its tag are still to come.
    Gone,
}

/// The answers to `basic.cancel` that are still to come.
#[derive(Clone, Copy, Default, Debug)]
struct Cancels {
    /// those that the client expects
    clients: u32,
    /// those that Hapax has asked for where the client has set the nowait bit
    own: u32,
}

impl Cancels {
    fn is_any(self) -> bool {
        self.clients + self.own > 0
    }

    /// Takes one of them. Returns true if the client expects it.
    fn take(&mut self) -> bool {
        let is_expected = self.clients > 0;
        match is_expected {
            true => self.clients -= 1,
            false => self.own = self.own.saturating_sub(1),
        }
        is_expected
    }
}

/// A consumer, or a cancel of a tag that nobody has.
#[derive(Debug)]
struct Consumer {
    number: u64,
    /// The broker takes each of its deliveries for acked (`no-ack`).
    no_ack: bool,
    reads: Reads,
    stage: Stage,
    cancels: Cancels,
    /// The consumer before it has just left, reads the same queue, and acks if this one does.
    goes_on: bool,
}

impl Consumer {
    /// Returns true if deliveries of a queue may be for it.
    fn is_served(&self) -> bool {
        matches!(self.stage, Stage::Served | Stage::Stopped) && !self.is_of_direct_replies()
    }

    fn is_of_direct_replies(&self) -> bool {
        matches!(self.reads, Reads::DirectReplies)
    }

    /// Returns how many answers to its cancels may come at any time, because no queue sends them.
    fn early_answers(&self) -> u32 {
        let all = self.cancels.clients + self.cancels.own;
        let from_queue = self.stage != Stage::Gone && !self.is_of_direct_replies();
        all.saturating_sub(u32::from(from_queue))
    }

    /// Returns true if the broker takes a `basic.cancel` for it. RabbitMQ ends the connection with 541 if that comes before the
    /// `consume-ok`.
    fn may_be_cancelled(&self) -> bool {
        self.stage == Stage::Served && !self.cancels.is_any()
    }
}

/// The consumer that a delivery is for. By default it is for nobody that is known, and has to be acked.
#[derive(Clone, Default, Debug)]
pub(in crate::session) struct Recipient {
    /// 0: nobody
    pub(in crate::session) number: u64,
    pub(in crate::session) no_ack: bool,
    /// who judges it
    pub(in crate::session) by: Option<Arc<Guarded>>,
}

/// The change that a method of the broker makes.
#[derive(Default, Debug)]
pub(super) struct Change {
    /// consumers that get nothing any more
    pub(super) gone: Vec<u64>,
    /// Hapax has asked for this answer, and the client does not expect it.
    pub(super) is_own: bool,
}

/// The consumers of one channel.
#[derive(Debug, Default)]
pub(super) struct Consumers {
    /// In an order: a session writes the same whenever it was told the same. No line is empty.
    by_tag: BTreeMap<Box<[u8]>, VecDeque<Consumer>>,
    /// consumers whose tags come with their `consume-ok`
    untagged: VecDeque<Consumer>,
    held: usize,
    drawn: u64,
    /// how many have begun to read a queue whose name was still to come, and have not learned it
    unnamed: usize,
    /// There was one with `no-ack`.
    some_no_ack: bool,
    /// There was one of direct replies.
    some_direct: bool,
}

impl Consumers {
    /// Returns the bytes that they take.
    pub(super) fn memory(&self) -> usize {
        self.held * CONSUMER
    }

    // ---- from the client -------------------------------------------------------------------------------------------

    /// Adds a consumer that the client asks for. An empty tag: the broker draws one, and tells it by the `consume-ok`.
    pub(super) fn push(&mut self, tag: &[u8], no_ack: bool, reads: Reads, nowait: bool) {
        self.some_no_ack |= no_ack;
        self.some_direct |= matches!(reads, Reads::DirectReplies);
        self.unnamed += usize::from(matches!(reads, Reads::Unnamed(_)));
        let stage = if nowait { Stage::Served } else { Stage::Asked };
        let consumer = self.draw(no_ack, reads, stage);
        if tag.is_empty() {
            self.untagged.push_back(consumer);
        } else {
            self.line(tag).push_back(consumer);
        }
    }

    fn draw(&mut self, no_ack: bool, reads: Reads, stage: Stage) -> Consumer {
        self.held += 1;
        self.drawn += 1;
        Consumer { number: self.drawn, no_ack, reads, stage, cancels: Cancels::default(), goes_on: false }
    }

    fn line(&mut self, tag: &[u8]) -> &mut VecDeque<Consumer> {
        // Nearly all tags are used once.
        self.by_tag.entry(tag.into()).or_insert_with(|| VecDeque::with_capacity(1))
    }

    /// Handles `basic.cancel` of the client, which the broker answers. `is_own`: the client does not expect that. Returns the consumer.
    pub(super) fn cancel(&mut self, tag: &[u8], is_own: bool) -> Option<u64> {
        if !self.by_tag.contains_key(tag) {
            // Its answer must not be taken for that to a later cancel.
            let nobody = self.draw(false, Reads::Unguarded, Stage::Gone);
            self.line(tag).push_back(nobody);
        }
        let last = self.by_tag.get_mut(tag)?.back_mut()?;
        let Cancels { clients, own } = &mut last.cancels;
        let answers = if is_own { own } else { clients };
        *answers = answers.saturating_add(1);
        (last.stage != Stage::Gone).then_some(last.number)
    }

    /// Handles `basic.cancel` of the client, which nobody answers: the consumer is forgotten.
    pub(super) fn forget(&mut self, tag: &[u8]) {
        if let Some(line) = self.by_tag.get_mut(tag) {
            self.held -= usize::from(line.pop_back().is_some());
        }
        self.sweep(tag);
    }

    /// Gives the consumers of this queue their guard: its name has come. `find` is called for each of them.
    pub(super) fn name(&mut self, declaration: u64, find: impl Fn() -> Option<Arc<Guarded>>) {
        if self.unnamed == 0 {
            return;
        }
        for consumer in self.by_tag.values_mut().flatten().chain(&mut self.untagged) {
            if matches!(consumer.reads, Reads::Unnamed(number) if number == declaration) {
                consumer.reads = find().map_or(Reads::Unguarded, Reads::Guarded);
                self.unnamed = self.unnamed.saturating_sub(1);
            }
        }
    }

    // ---- from the upstream -----------------------------------------------------------------------------------------

    /// Handles `basic.consume-ok`: older consumers of the tag are gone, unless answers to their cancels are still to come.
    pub(super) fn recv_consume_ok(&mut self, tag: &[u8]) -> Change {
        let mut change = Change::default();
        let is_asked = |consumer: &Consumer| consumer.stage == Stage::Asked;
        let at = self.by_tag.get(tag).and_then(|line| line.iter().position(is_asked));
        let Some(at) = at else {
            let untagged = self.untagged.pop_front();
            let mut consumer = untagged.unwrap_or_else(|| self.draw(false, Reads::Unguarded, Stage::Asked));
            consumer.stage = Stage::Served;
            self.line(tag).push_back(consumer);
            return change;
        };
        let Some(line) = self.by_tag.get_mut(tag) else { return change };
        let mut is_direct = false;
        if let Some(consumer) = line.get_mut(at) {
            consumer.stage = Stage::Served;
            is_direct = consumer.is_of_direct_replies();
        }
        if at > 0 && !is_direct {
            let joined = line.split_off(at);
            let (stay, gone): (VecDeque<_>, VecDeque<_>) =
                line.drain(..).partition(|older| older.cancels.is_any());
            *line = stay;
            line.extend(joined);
            self.leave(&gone, &mut change);
        }
        change
    }

    /// Handles `basic.cancel-ok`.
    pub(super) fn recv_cancel_ok(&mut self, tag: &[u8]) -> Change {
        let mut change = Change::default();
        let Some(line) = self.by_tag.get_mut(tag) else { return change };
        let early = line.iter().position(|consumer| consumer.early_answers() > 0);
        let at = early.or_else(|| line.iter().position(|consumer| consumer.cancels.is_any()));
        let Some((at, consumer)) = at.and_then(|at| Some((at, line.get_mut(at)?))) else { return change };
        change.is_own = !consumer.cancels.take();
        if consumer.cancels.is_any() {
            return change;
        }
        // If its queue has answered, those before it had no cancel: the broker has dropped them without a word, and taken their tag for free.
        let first = if early.is_some() { at } else { 0 };
        let gone: VecDeque<Consumer> = line.drain(first..=at).collect();
        if let (Some(last), Some(next)) = (gone.back(), line.get_mut(first)) {
            next.goes_on = last.reads.is_as(&next.reads) && last.no_ack == next.no_ack;
        }
        self.leave(&gone, &mut change);
        self.sweep(tag);
        change
    }

    /// Handles `basic.cancel` of the broker: the consumer that it serves under this tag is gone.
    pub(super) fn recv_cancel(&mut self, tag: &[u8]) -> Change {
        let mut change = Change::default();
        let Some(line) = self.by_tag.get_mut(tag) else { return change };
        let served = line.iter().filter(|consumer| consumer.is_served()).count();
        if served > 1 {
            // It may be any of them. Nobody judges what still comes under this tag.
            line.iter_mut().for_each(|consumer| consumer.reads.forget_guard());
            return change;
        }
        let Some(at) = line.iter().position(|consumer| consumer.is_served()) else { return change };
        if let Some(consumer) = line.get_mut(at).filter(|consumer| consumer.cancels.is_any()) {
            consumer.stage = Stage::Gone;
            change.gone.push(consumer.number);
        } else {
            let gone = line.remove(at).into_iter().collect();
            self.leave(&gone, &mut change);
            self.sweep(tag);
        }
        change
    }

    fn leave(&mut self, gone: &VecDeque<Consumer>, change: &mut Change) {
        self.held -= gone.len();
        let were_there = gone.iter().filter(|consumer| consumer.stage != Stage::Gone);
        change.gone.extend(were_there.map(|consumer| consumer.number));
    }

    /// Forgets a tag that nobody has any more.
    fn sweep(&mut self, tag: &[u8]) {
        if self.by_tag.get(tag).is_some_and(VecDeque::is_empty) {
            self.by_tag.remove(tag);
        }
    }

    // ---- deliveries ------------------------------------------------------------------------------------------------

    /// Returns true if the broker takes this delivery for acked when it is sent.
    #[inline]
    pub(super) fn is_acked_when_sent(&self, deliver: &[u8]) -> bool {
        self.some_no_ack && self.recipient(deliver).no_ack
    }

    /// Returns the consumer that a delivery is for. `deliver` is the payload of its method.
    pub(super) fn recipient(&self, deliver: &[u8]) -> Recipient {
        if self.some_direct && is_direct_reply(deliver) {
            return Recipient { no_ack: true, ..Recipient::default() };
        }
        let Some(line) = consumer_tag(deliver).ok().and_then(|tag| self.by_tag.get(tag)) else {
            return Recipient::default();
        };
        let mut served = line.iter().filter(|consumer| consumer.is_served());
        let Some(first) = served.next() else {
            // Nobody is served. If all of them agree, it is acked or not.
            let no_ack = line.iter().all(|consumer| consumer.no_ack);
            let by = line.front().filter(|next| next.goes_on).and_then(|next| next.reads.guard());
            return Recipient { number: 0, no_ack, by: by.map(Arc::clone) };
        };
        let (mut number, mut no_ack, mut by) = (first.number, first.no_ack, first.reads.guard());
        for other in served {
            number = 0;
            no_ack &= other.no_ack;
            by = by.filter(|_| first.reads.is_as(&other.reads));
        }
        Recipient { number, no_ack, by: by.map(Arc::clone) }
    }

    // ---- when Hapax cancels them -----------------------------------------------------------------------------------

    /// Cancels, without an answer, the consumers that may be cancelled; `acking_only`: those that ack. `write` is called for each tag.
    pub(super) fn stop(&mut self, acking_only: bool, mut write: impl FnMut(&[u8])) {
        for (tag, line) in &mut self.by_tag {
            if let Some(last) = line.back_mut()
                && last.may_be_cancelled()
                && !(acking_only && last.no_ack)
            {
                last.stage = Stage::Stopped;
                write(tag);
            }
        }
    }
}

/// Returns true if a delivery is the reply to a question, and stands in no queue.
fn is_direct_reply(deliver: &[u8]) -> bool {
    Delivery::parse(deliver).is_ok_and(|delivery| {
        delivery.exchange.is_empty() && delivery.routing_key.starts_with(DIRECT_REPLIES)
    })
}
