//! A channel of a model client: plain, with confirms, or with transactions; it counts its own tags and holds every
//! answer against what it has sent.

use super::content::{Assembler, Whole, body, body_of, compose};
use super::ctx::Ctx;
use super::jobs::{Job, QUEUES};
use super::plan::{AT_ONCE, MILLI};
use super::streams::{Mark, Out, push};
use super::truth::{EXCHANGES, LinkId, Publish, Uid, What};
use crate::support::frames::{Frame, Frames};
use crate::support::methods::*;
use amq_protocol::protocol::{AMQPClass, basic, channel, confirm, queue, tx};
use std::collections::{BTreeMap, VecDeque};

/// The mode that the client has selected on its channel.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub enum Mode {
    /// nothing
    #[default]
    Plain,
    /// it has selected confirms
    Confirm,
    /// it has selected transactions
    Tx,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
enum Life {
    #[default]
    Shut,
    Opening,
    Open,
    Closing,
}

/// An answer that is to come, and what hangs on it.
#[derive(Clone, PartialEq, Eq, Debug)]
enum Reply {
    ConfirmSelect,
    TxSelect,
    Commit(Vec<Uid>),
    Rollback,
    Declare,
    Consume,
    Cancel,
}

/// A delivery.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
enum Got {
    Job(Job),
    /// a copy of a publish
    Copy(Uid),
    Other,
}

/// A channel of a model client.
#[derive(Debug, Default)]
pub struct Channel {
    link: LinkId,
    id: u16,
    life: Life,
    mode: Mode,
    expected: VecDeque<Reply>,
    /// it does nothing more before all answers have come
    hold: bool,
    tag: u64,
    unanswered: BTreeMap<u64, Uid>,
    transaction: Vec<Uid>,
    /// how many transactions there were before the open one
    transactions: u32,
    /// it has a consumer of all but jobs
    consumes: bool,
    /// that one acks
    acks: bool,
    /// it has a consumer of jobs; the deliveries that it has got; those that it has not settled, and those that it has in the open
    /// transaction
    works: bool,
    delivered: u64,
    unacked: Vec<(u64, Got)>,
    settled: Vec<(u64, Got)>,
    content: Assembler,
    /// frames that wait to be written
    pub out: VecDeque<Out>,
}

impl Channel {
    /// One that is not open.
    pub fn new(link: LinkId, id: u16) -> Channel {
        Channel { link, id, ..Channel::default() }
    }

    /// Whether it is not open.
    pub fn is_shut(&self) -> bool {
        self.life == Life::Shut && self.out.is_empty()
    }

    /// Whether the client may use it now.
    pub fn is_ready(&self) -> bool {
        self.life == Life::Open && (self.expected.is_empty() || !self.hold) && self.out.len() < 2 * AT_ONCE
    }

    /// Whether every answer has come, and every delivery is settled.
    pub fn is_settled(&self) -> bool {
        let quiet = self.expected.is_empty() && self.unanswered.is_empty() && self.transaction.is_empty();
        let done = self.unacked.is_empty() && self.settled.is_empty() || self.life == Life::Shut;
        quiet && done && self.out.is_empty() && matches!(self.life, Life::Shut | Life::Open)
    }

    /// Opens it; how it is used is decided when it is open.
    pub fn open(&mut self) {
        *self = Channel { life: Life::Opening, ..Channel::new(self.link, self.id) };
        push(&mut self.out, channel_open(self.id), vec![]);
    }

    /// A frame from the relay.
    pub fn handle(&mut self, frame: &Frame, retry: &mut VecDeque<What>, ctx: &mut Ctx) {
        use basic::AMQPMethod as B;
        if let Some(whole) = self.content.frame(frame) {
            self.content(&whole, retry, ctx);
        }
        match frame.method() {
            None => {}
            Some(AMQPClass::Channel(method)) => self.lifecycle(method, retry, ctx),
            Some(AMQPClass::Basic(B::Ack(ack))) => {
                self.answer(ack.delivery_tag, ack.multiple, true, retry, ctx);
            }
            Some(AMQPClass::Basic(B::Nack(nack))) => {
                self.answer(nack.delivery_tag, nack.multiple, false, retry, ctx);
            }
            Some(AMQPClass::Basic(B::Deliver(deliver))) => {
                self.delivered += 1;
                if deliver.delivery_tag != self.delivered {
                    let text = format!(
                        "link {} channel {}: {deliver:?} is no. {}",
                        self.link, self.id, self.delivered
                    );
                    ctx.truth.broken('p', text);
                }
            }
            Some(AMQPClass::Basic(B::Return(_))) => {}
            Some(class) => self.reply(&class.clone(), ctx),
        }
    }

    fn lifecycle(&mut self, method: &channel::AMQPMethod, retry: &mut VecDeque<What>, ctx: &mut Ctx) {
        use channel::AMQPMethod as Ch;
        match (method, self.life) {
            (Ch::OpenOk(_), Life::Opening) => {
                self.life = Life::Open;
                ctx.truth.reopened(self.link, self.id);
                self.acks = ctx.truth.releases() && ctx.rng.chance(500);
                match ctx.rng.below(1000) as u32 {
                    dice if dice < ctx.plan.confirm => self.select_confirms(ctx),
                    _ if ctx.rng.chance(ctx.plan.tx) => self.select_tx(),
                    _ => {}
                }
            }
            (Ch::CloseOk(_), Life::Closing) => {
                if !self.unanswered.is_empty() {
                    ctx.truth.count("closed before the outcome");
                }
                self.lost(retry, ctx);
                self.life = Life::Shut;
            }
            (Ch::Close(_), Life::Open | Life::Opening) => {
                ctx.truth.count("client's channel was closed");
                self.lost(retry, ctx);
                self.out.clear();
                push(&mut self.out, channel_close_ok(self.id), vec![]);
                self.life = Life::Shut;
            }
            // Both close. Where its own close is on the way it answers and still waits; else it takes its own back.
            (Ch::Close(_), Life::Closing) => {
                if !self.out.is_empty() {
                    self.lost(retry, ctx);
                    self.out.clear();
                    self.life = Life::Shut;
                }
                push(&mut self.out, channel_close_ok(self.id), vec![]);
            }
            (other, life) => self.wrong(&format!("{other:?} while {life:?}"), ctx),
        }
    }

    fn wrong(&self, what: &str, ctx: &mut Ctx) {
        ctx.truth.broken('i', format!("link {} channel {}: the client gets {what}", self.link, self.id));
    }

    /// (a), (c): the tags of an answer are outstanding, each is answered this once.
    fn answer(&mut self, tag: u64, multiple: bool, ack: bool, retry: &mut VecDeque<What>, ctx: &mut Ctx) {
        if self.mode != Mode::Confirm || !self.unanswered.contains_key(&tag) {
            let text =
                format!("link {} channel {}: tag {tag} is not outstanding ({ack})", self.link, self.id);
            return ctx.truth.broken('c', text);
        }
        let covered = if multiple {
            let rest = self.unanswered.split_off(&(tag + 1));
            std::mem::replace(&mut self.unanswered, rest)
        } else {
            self.unanswered.remove_entry(&tag).into_iter().collect()
        };
        if covered.len() > 1 {
            ctx.truth.count("client answered by multiple");
            if covered.values().any(|uid| ctx.truth.of(*uid).told) {
                self.wrong("an ack for others and for a duplicate that was returned", ctx);
            }
        }
        for uid in covered.into_values() {
            if ack {
                ctx.truth.acked(uid);
                // A returned publish is not stored. Its client may try again, and nobody may count it as stored.
                let p = ctx.truth.of(uid);
                if (p.returned || p.dropped) && (p.alike || ctx.rng.chance(300)) {
                    again(uid, retry, ctx);
                }
            } else {
                ctx.truth.nacked(uid, ctx.now);
                // A nack may say that it is a duplicate. A client that tries all of them again never ends.
                if ctx.truth.of(uid).forwarded.is_some() || ctx.rng.chance(300) {
                    again(uid, retry, ctx);
                }
            }
        }
    }

    fn content(&mut self, whole: &Whole, retry: &mut VecDeque<What>, ctx: &mut Ctx) {
        match (&whole.method, whole.uid(&ctx.truth)) {
            (basic::AMQPMethod::Return(back), Some(uid)) => {
                let is_duplicate = back.reply_code == 319;
                if is_duplicate {
                    ctx.truth.told(uid, self.link, self.id);
                    let is_committed =
                        |reply: &Reply| matches!(reply, Reply::Commit(uids) if uids.contains(&uid));
                    if ctx.truth.of(uid).tx && !self.expected.iter().any(is_committed) {
                        self.wrong(&format!("a duplicate that is not committed: {whole:?}"), ctx);
                    }
                } else {
                    ctx.truth.return_seen(uid, self.link, self.id);
                }
                // Where there is no room for its body, it comes without.
                let is_cut = is_duplicate && ctx.plan.tight && whole.body.is_empty();
                let same = |p: &Publish| {
                    (is_cut || whole.body == body_of(uid, p))
                        && back.exchange.as_str() == EXCHANGES[p.what.exchange]
                };
                if !ctx.truth.find(uid).is_some_and(same) {
                    self.wrong(&format!("a return of another message: {whole:?}"), ctx);
                }
            }
            (basic::AMQPMethod::Deliver(deliver), None) if deliver.exchange.as_str() == "jobs" => {
                let properties = &whole.header.properties;
                let shown = properties.app_id().as_ref().zip(properties.message_id().as_ref());
                let job = shown.and_then(|(queue, id)| Job::shown_as(queue.as_str(), id.as_str()));
                self.unacked.push((deliver.delivery_tag, job.map_or(Got::Other, Got::Job)));
                self.work(ctx);
            }
            (basic::AMQPMethod::Deliver(deliver), None) => {
                if self.acks {
                    self.unacked.push((deliver.delivery_tag, Got::Other));
                    self.work(ctx);
                }
                let tag = whole.header.properties.app_id().as_ref();
                let tag =
                    tag.and_then(|tag| tag.as_str().strip_prefix('d')?.parse().ok()).unwrap_or_default();
                if whole.body != body(tag, whole.body.len()) {
                    self.wrong(&format!("a delivery with another body: {whole:?}"), ctx);
                }
            }
            (basic::AMQPMethod::Deliver(deliver), Some(uid)) => {
                ctx.truth.received(uid, self.link);
                if self.acks {
                    self.unacked.push((deliver.delivery_tag, Got::Copy(uid)));
                    self.work(ctx);
                } else {
                    ctx.truth.has_consumed(uid, ctx.now);
                }
                // It can not handle it now, and publishes it again.
                if ctx.rng.chance(600) {
                    retry.push_front(ctx.truth.of(uid).what);
                }
            }
            _ => self.wrong(&format!("{whole:?}"), ctx),
        }
    }

    /// Settles some deliveries, or none.
    fn work(&mut self, ctx: &mut Ctx) {
        if self.life != Life::Open || self.unacked.is_empty() || ctx.rng.chance(300) {
            return;
        }
        let at = ctx.rng.below(self.unacked.len());
        let multiple = ctx.rng.chance(300);
        // (Tag 0 means all that the broker has sent by the time when it reads it.)
        let (tag, _) = self.unacked[at];
        let settled: Vec<(u64, Got)> = match multiple {
            true => self.unacked.drain(..=at).collect(),
            false => vec![self.unacked.remove(at)],
        };
        let give_back = match ctx.rng.below(10) {
            0 if !multiple => give_back(self.id, tag),
            1 if !multiple => nack(self.id, tag),
            2 if !multiple => reject(self.id, tag, true),
            _ => return self.ack(tag, multiple, settled, ctx),
        };
        push(&mut self.out, give_back, vec![]);
        self.has_settled(settled);
    }

    /// Acks these deliveries, the last of which has this tag.
    fn ack(&mut self, tag: u64, multiple: bool, settled: Vec<(u64, Got)>, ctx: &mut Ctx) {
        for (_, got) in &settled {
            match got {
                Got::Job(job) => ctx.truth.jobs.acks(*job),
                Got::Copy(uid) => ctx.truth.consumes(*uid, ctx.now),
                Got::Other => {}
            }
        }
        push(&mut self.out, if multiple { ack_multiple(self.id, tag) } else { ack(self.id, tag) }, vec![]);
        self.has_settled(settled);
    }

    fn has_settled(&mut self, settled: Vec<(u64, Got)>) {
        if self.mode == Mode::Tx {
            self.settled.extend(settled);
        }
    }

    fn reply(&mut self, class: &AMQPClass, ctx: &mut Ctx) {
        use AMQPClass as A;
        match (class, self.expected.pop_front()) {
            (A::Confirm(confirm::AMQPMethod::SelectOk(_)), Some(Reply::ConfirmSelect))
            | (A::Tx(tx::AMQPMethod::SelectOk(_)), Some(Reply::TxSelect))
            | (A::Tx(tx::AMQPMethod::RollbackOk(_)), Some(Reply::Rollback))
            | (A::Queue(queue::AMQPMethod::DeclareOk(_)), Some(Reply::Declare))
            | (A::Basic(basic::AMQPMethod::ConsumeOk(_)), Some(Reply::Consume))
            | (A::Basic(basic::AMQPMethod::CancelOk(_)), Some(Reply::Cancel)) => {}
            (A::Tx(tx::AMQPMethod::CommitOk(_)), Some(Reply::Commit(uids))) => {
                ctx.truth.committed(&uids);
            }
            (other, expected) => self.wrong(&format!("{other:?}, expecting {expected:?}"), ctx),
        }
    }

    /// It is gone: what it was not told of must be tried again.
    pub fn lost(&mut self, retry: &mut VecDeque<What>, ctx: &mut Ctx) {
        let commits = self.expected.drain(..).flat_map(|reply| match reply {
            Reply::Commit(uids) => uids,
            _ => Vec::new(),
        });
        let uids: Vec<Uid> = commits.chain(std::mem::take(&mut self.unanswered).into_values()).collect();
        uids.into_iter().chain(std::mem::take(&mut self.transaction)).for_each(|uid| again(uid, retry, ctx));
        self.content = Assembler::default();
    }

    /// Publishes; the frames wait in `out`, so that other channels' frames come between them.
    ///
    /// `alike`: with the header of many others.
    pub fn publish(&mut self, what: What, allowed: bool, alike: bool, frame_max: u32, ctx: &mut Ctx) {
        // If the body is the id, a publish without an id has no body.
        let edition = ctx.truth.edition(what);
        let len = match ctx.rng.below(100) {
            _ if what.id.is_none() && ctx.truth.by_body(what.exchange) => 0,
            _ if edition.is_some() => what.id.map_or(0, |id| 10 + id as usize % 50),
            0..15 => 0,
            15 => ctx.rng.below(ctx.plan.body),
            _ => ctx.rng.below(60),
        };
        let bypass = what.id.is_some() && ctx.rng.chance(20) && !alike;
        let own_ttl = what.id.is_some() && ctx.rng.chance(50) && !alike;
        self.tag += u64::from(self.mode == Mode::Confirm);
        let publish = Publish {
            link: self.link,
            channel: self.id,
            what,
            tag: (self.mode == Mode::Confirm).then_some(self.tag),
            tx: self.mode == Mode::Tx,
            transaction: (self.mode == Mode::Tx).then_some(self.transactions),
            mandatory: ctx.rng.chance(200) || alike,
            bypass,
            allowed: allowed && (what.id.is_some() || !ctx.truth.wants_id(what.exchange)),
            ttl: own_ttl.then(|| ctx.rng.between(5, 500) * MILLI),
            len,
            edition,
            by_body: ctx.truth.by_body(what.exchange),
            by_header: ctx.truth.by_header(what.exchange),
            alike,
            ..Publish::begun(ctx.now)
        };
        let uid = ctx.truth.publish(publish);
        let size = if ctx.rng.chance(300) { 9 + len / 20 + ctx.rng.below(60) } else { frame_max as usize };
        let frames =
            compose(uid, ctx.truth.of(uid)).frame_size(size.min(frame_max as usize)).publish(self.id);
        push(&mut self.out, frames, vec![Mark::Reached(uid)]);
        match self.mode {
            Mode::Plain => {}
            Mode::Confirm => drop(self.unanswered.insert(self.tag, uid)),
            Mode::Tx => self.transaction.push(uid),
        }
        ctx.truth.count("publish");
        if alike {
            ctx.truth.count("looks like others");
        }
    }

    /// Another mode, or the end of a transaction.
    pub fn change(&mut self, retry: &mut VecDeque<What>, ctx: &mut Ctx) {
        match self.mode {
            Mode::Plain if ctx.plan.confirm > 0 && ctx.rng.chance(150) => self.select_confirms(ctx),
            Mode::Plain if ctx.plan.tx > 0 && ctx.rng.chance(100) => self.select_tx(),
            Mode::Tx if ctx.rng.chance(700) => self.commit(),
            Mode::Tx => {
                self.transactions += 1;
                let rolled_back = std::mem::take(&mut self.transaction);
                self.unacked.append(&mut self.settled);
                self.unacked.sort_unstable();
                rolled_back.into_iter().for_each(|uid| again(uid, retry, ctx));
                self.ask(tx_rollback(self.id), Reply::Rollback);
                ctx.truth.count("rollback");
            }
            Mode::Plain | Mode::Confirm => {}
        }
        self.hold = ctx.rng.chance(700);
    }

    fn ask(&mut self, frames: Frames, reply: Reply) {
        push(&mut self.out, frames, vec![]);
        self.expected.push_back(reply);
    }

    fn select_confirms(&mut self, ctx: &mut Ctx) {
        if ctx.rng.chance(200) {
            push(&mut self.out, confirm_select_nowait(self.id), vec![]);
        } else {
            self.ask(confirm_select(self.id), Reply::ConfirmSelect);
        }
        self.mode = Mode::Confirm;
        self.hold = ctx.rng.chance(700);
    }

    fn select_tx(&mut self) {
        self.ask(tx_select(self.id), Reply::TxSelect);
        self.mode = Mode::Tx;
        self.hold = true;
    }

    fn commit(&mut self) {
        self.transactions += 1;
        let uids = std::mem::take(&mut self.transaction);
        self.settled.clear();
        self.ask(tx_commit(self.id), Reply::Commit(uids));
    }

    /// Something that is no publish: a queue, a consumer.
    pub fn call(&mut self, ctx: &mut Ctx) {
        if self.acks {
            self.work(ctx);
        }
        let name = format!("c{}", self.id);
        if ctx.plan.guards && ctx.rng.chance(500) {
            self.call_for_jobs(ctx);
        } else if ctx.rng.chance(500) {
            self.ask(queue_declare(self.id, "queue"), Reply::Declare);
        } else if self.consumes {
            self.consumes = false;
            self.ask(cancel(self.id, &name), Reply::Cancel);
        } else {
            self.consumes = true;
            let consume = if self.acks { consume_acking } else { consume };
            self.ask(consume(self.id, "queue", &name), Reply::Consume);
        }
        self.hold = ctx.rng.chance(500);
    }

    /// Begins to work on jobs, or ends, or goes on with those of any queue under the same tag at once.
    fn call_for_jobs(&mut self, ctx: &mut Ctx) {
        let (worker, queue) = (format!("j{}", self.id), ctx.rng.pick(&QUEUES));
        let again = self.works && ctx.rng.chance(600);
        if self.works && ctx.rng.chance(300) {
            push(&mut self.out, cancel_nowait(self.id, &worker), vec![]);
        } else if self.works {
            self.ask(cancel(self.id, &worker), Reply::Cancel);
        }
        self.works = !self.works || again;
        if self.works {
            self.ask(consume_acking(self.id, queue, &worker), Reply::Consume);
        }
        if again {
            ctx.truth.count("guard: a tag is used again");
        }
    }

    /// Closes it, what is in flight or not.
    pub fn close(&mut self) {
        push(&mut self.out, channel_close(self.id, 200, "bye"), vec![]);
        self.life = Life::Closing;
    }

    /// Publishes no new messages. Retries those that must still be acked, acks all deliveries, and commits open transactions.
    pub fn finish(&mut self, retry: &mut VecDeque<What>, frame_max: u32, ctx: &mut Ctx) {
        if let Some((tag, _)) = self.unacked.last() {
            let (tag, all) = (*tag, std::mem::take(&mut self.unacked));
            self.ack(tag, true, all, ctx);
        }
        match self.mode {
            Mode::Plain if !retry.is_empty() => self.select_confirms(ctx),
            Mode::Plain => {}
            Mode::Confirm | Mode::Tx => {
                if let Some(what) = retry.pop_front() {
                    self.publish(what, true, false, frame_max, ctx);
                }
                if !self.transaction.is_empty() || !self.settled.is_empty() {
                    self.commit();
                }
            }
        }
        self.hold = true;
    }
}

/// Retries a publish that was not stored, unless nobody may publish it, or its epoch may be over.
fn again(uid: Uid, retry: &mut VecDeque<What>, ctx: &Ctx) {
    let p = ctx.truth.of(uid);
    if p.allowed && p.what.id.is_some() && !ctx.truth.may_be_over(p.what) {
        retry.push_back(p.what);
    }
}
