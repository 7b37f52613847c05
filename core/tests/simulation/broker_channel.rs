//! A channel of the model broker: publishes stored or refused by dice, confirms in any legal order, transactions.

use super::content::{Assembler, Whole, body, body_of, compose, is_number};
use super::ctx::Ctx;
use super::jobs::{self, Jobs, PREFETCH, QUEUES};
use super::streams::{Mark, Out, push};
use super::truth::{LinkId, ROUTING_KEYS, Uid};
use super::users::may_publish;
use crate::support::frames::{Frame, Frames, message};
use crate::support::methods::*;
use amq_protocol::protocol::{AMQPClass, basic, channel, confirm, queue, tx};
use std::collections::{BTreeMap, VecDeque};

#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
enum Mode {
    #[default]
    Plain,
    Confirm,
    Tx,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Life {
    Open,
    /// it has sent `channel.close`
    Closing,
    Gone,
}

/// The fate of a message. It is decided when the message arrives, and carried out later.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Fate {
    Store,
    Refuse,
    NoRoute,
}

#[derive(Clone, Copy, Debug)]
struct Job {
    uid: Uid,
    fate: Fate,
    done: bool,
}

/// How a consumer settles a delivery.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Settled {
    Ack,
    /// it is not put back into its queue
    Discard,
    Requeue,
}

impl Settled {
    fn refused(requeue: bool) -> Settled {
        if requeue { Settled::Requeue } else { Settled::Discard }
    }
}

/// A delivery that its consumer has to settle.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
enum Held {
    /// a job, which goes back to its queue if it is not acked
    Job(jobs::Job),
    /// a copy of a publish
    Copy(Uid),
    /// a message that no client has published
    Other,
}

/// A channel of the model broker.
#[derive(Debug)]
pub struct BrokerChannel {
    link: LinkId,
    id: u16,
    user: &'static str,
    hostile: bool,
    /// the client's number of the channel, once a publish has told it: the relay may use another one here
    client: Option<u16>,
    life: Life,
    mode: Mode,
    tag: u64,
    jobs: BTreeMap<u64, Job>,
    transaction: Vec<(Uid, Whole, Fate)>,
    /// messages of the relay's own in the transaction, which only ask whether the user may publish
    questions: u32,
    content: Assembler,
    /// the consumer of all but jobs, and whether it acks
    consumer: Option<(String, bool)>,
    /// the consumer of jobs and its queue
    worker: Option<(String, usize)>,
    /// what is not settled, by its tag; and what is in the open transaction: whether it is acked or goes back
    unacked: Vec<(u64, Held)>,
    settled: Vec<(u64, Held, bool)>,
    deliveries: u64,
    /// the connection has to end for what the client has done here
    pub outrage: Option<u16>,
    /// frames that wait to be written
    pub out: VecDeque<Out>,
}

impl BrokerChannel {
    /// `channel.open` has come; `out` is what the number's last use has left to write.
    pub fn new(
        link: LinkId,
        id: u16,
        user: &'static str,
        hostile: bool,
        out: VecDeque<Out>,
    ) -> BrokerChannel {
        let mut channel = BrokerChannel {
            link,
            id,
            user,
            hostile,
            client: None,
            life: Life::Open,
            mode: Mode::Plain,
            tag: 0,
            jobs: BTreeMap::new(),
            transaction: Vec::new(),
            questions: 0,
            outrage: None,
            content: Assembler::default(),
            consumer: None,
            worker: None,
            unacked: Vec::new(),
            settled: Vec::new(),
            deliveries: 0,
            out,
        };
        channel.reply(channel_open_ok(id));
        channel
    }

    /// Whether its number is free.
    pub fn is_gone(&self) -> bool {
        self.life == Life::Gone
    }

    /// A frame from the relay.
    pub fn handle(&mut self, frame: &Frame, ctx: &mut Ctx) {
        use channel::AMQPMethod as Ch;
        match (frame.method(), self.life) {
            (Some(AMQPClass::Channel(Ch::CloseOk(_))), Life::Closing) => self.life = Life::Gone,
            (Some(AMQPClass::Channel(Ch::Close(_))), Life::Closing) => self.reply(channel_close_ok(self.id)),
            (_, Life::Closing) => {}
            (Some(AMQPClass::Channel(Ch::Close(_))), _) => {
                self.accept_all(ctx);
                self.reply(channel_close_ok(self.id));
                self.life = Life::Gone;
            }
            (method, _) if self.hostile && self.content.is_amid() == method.is_some() => {
                self.outrage = Some(505);
            }
            (Some(AMQPClass::Basic(basic::AMQPMethod::Publish(_))), _) | (None, _) => {
                if let Some(whole) = self.content.frame(frame) {
                    self.publish(whole, ctx);
                }
            }
            (Some(class), _) => self.method(&class.clone(), ctx),
        }
    }

    fn method(&mut self, class: &AMQPClass, ctx: &mut Ctx) {
        use AMQPClass as A;
        match (class, self.mode) {
            (A::Confirm(confirm::AMQPMethod::Select(_)), Mode::Tx) => self.close(406, ctx),
            (A::Confirm(confirm::AMQPMethod::Select(select)), _) => {
                self.mode = Mode::Confirm;
                if !select.nowait {
                    self.reply(confirm_select_ok(self.id));
                }
            }
            (A::Tx(tx::AMQPMethod::Select(_)), Mode::Confirm) => self.close(406, ctx),
            (A::Tx(tx::AMQPMethod::Select(_)), _) => {
                self.mode = Mode::Tx;
                self.reply(tx_select_ok(self.id));
            }
            (A::Tx(tx::AMQPMethod::Commit(_)), Mode::Tx) => self.commit(ctx),
            (A::Tx(tx::AMQPMethod::Rollback(_)), Mode::Tx) => {
                self.transaction.clear();
                self.unacked.extend(self.settled.drain(..).map(|(tag, job, _)| (tag, job)));
                self.unacked.sort_unstable();
                if std::mem::take(&mut self.questions) > 0 {
                    ctx.truth.count("probe");
                }
                self.reply(tx_rollback_ok(self.id));
            }
            (A::Tx(_), _) => self.close(406, ctx),
            (A::Channel(channel::AMQPMethod::Flow(flow)), _) if flow.active => {
                ctx.truth.count("relay asked for a sign");
                self.reply(flow_ok(self.id, true));
            }
            (A::Queue(queue::AMQPMethod::Declare(declare)), _) => {
                self.reply(queue_declare_ok(self.id, declare.queue.as_str()));
            }
            (A::Basic(basic::AMQPMethod::Consume(consume)), _) => {
                let tag = consume.consumer_tag.as_str();
                match QUEUES.iter().position(|queue| *queue == consume.queue.as_str()) {
                    Some(queue) => {
                        let before = self.worker.replace((tag.into(), queue));
                        if before.is_some() && !self.hostile {
                            ctx.truth.broken('i', format!("link {}: the tag {tag} is not free", self.link));
                        }
                    }
                    None => self.consumer = Some((tag.into(), !consume.no_ack)),
                }
                self.reply(consume_ok(self.id, tag));
            }
            (A::Basic(basic::AMQPMethod::Cancel(cancel)), _) => {
                let tag = cancel.consumer_tag.as_str();
                match self.worker.as_ref().is_some_and(|(worker, _)| worker == tag) {
                    true => self.worker = None,
                    false => self.consumer = self.consumer.take().filter(|(consumer, _)| consumer != tag),
                }
                if !cancel.nowait {
                    self.reply(cancel_ok(self.id, cancel.consumer_tag.as_str()));
                }
            }
            (A::Basic(basic::AMQPMethod::Ack(ack)), _) => {
                self.settle_deliveries(ack.delivery_tag, ack.multiple, Settled::Ack, ctx);
            }
            (A::Basic(basic::AMQPMethod::Nack(nack)), _) => {
                self.settle_deliveries(nack.delivery_tag, nack.multiple, Settled::refused(nack.requeue), ctx);
            }
            (A::Basic(basic::AMQPMethod::Reject(reject)), _) => {
                self.settle_deliveries(reject.delivery_tag, false, Settled::refused(reject.requeue), ctx);
            }
            _ if self.hostile => self.outrage = Some(540),
            (class, mode) => {
                ctx.truth.broken('i', format!("the broker's channel in {mode:?} gets {class:?}"));
            }
        }
    }

    fn reply(&mut self, frames: Frames) {
        push(&mut self.out, frames, vec![]);
    }

    fn publish(&mut self, whole: Whole, ctx: &mut Ctx) {
        let basic::AMQPMethod::Publish(publish) = &whole.method else { return };
        let told = whole.uid(&ctx.truth).and_then(|uid| ctx.truth.find(uid)).map(|p| p.channel);
        self.client = self.client.or(told.filter(|_| !self.hostile));
        let (exchange, mandatory) = (publish.exchange.as_str(), publish.mandatory);
        if !may_publish(self.user, exchange, publish.routing_key.as_str()) {
            ctx.truth.count("broker refused a user");
            return self.close(403, ctx);
        }
        ctx.watch.shown(self.user, exchange);
        if whole.header.properties.expiration().as_ref().is_some_and(|text| !is_number(text.as_str())) {
            ctx.truth.count("probe");
            return self.close(406, ctx);
        }
        if self.hostile {
            return self.publish_of_hostile(&whole, mandatory, ctx);
        }
        let uid = whole.uid(&ctx.truth);
        if uid.is_none() && self.mode == Mode::Tx && whole.body.is_empty() && !mandatory {
            self.questions += 1;
            return;
        }
        let Some(uid) = self.check(uid, &whole, ctx) else { return };
        if ctx.rng.chance(ctx.plan.weather.channel_close) {
            return self.close(404, ctx);
        }
        let alike = self.fate_of_alike(uid, ctx);
        let fate = match () {
            () if alike == Some(Fate::NoRoute) => Fate::NoRoute,
            () if alike.is_none()
                && (mandatory || ctx.truth.verifies(ctx.truth.of(uid)))
                && ctx.rng.chance(ctx.plan.weather.no_route) =>
            {
                Fate::NoRoute
            }
            () if self.mode == Mode::Confirm && ctx.rng.chance(ctx.plan.weather.nack) => Fate::Refuse,
            () => Fate::Store,
        };
        let tag = self.tag + 1;
        ctx.log.say(|| format!("  broker: u{uid} is {fate:?}, {:?}, tag {tag}", self.mode));
        match self.mode {
            Mode::Plain if fate == Fate::NoRoute => self.find_no_queue(uid, &whole, ctx),
            Mode::Plain => ctx.truth.stored(uid, ctx.now),
            Mode::Confirm => {
                if fate == Fate::NoRoute {
                    self.find_no_queue(uid, &whole, ctx);
                }
                if fate == Fate::Refuse {
                    ctx.truth.refused(uid);
                }
                self.tag += 1;
                self.jobs.insert(self.tag, Job { uid, fate, done: fate != Fate::Store });
            }
            Mode::Tx => self.transaction.push((uid, whole, fate)),
        }
    }

    /// Returns the fate of publishes that look the same as this one, while any of them is unanswered: all must have
    /// the same fate.
    fn fate_of_alike(&self, uid: Uid, ctx: &Ctx) -> Option<Fate> {
        let alike = |other: Uid| {
            let (one, other) = (ctx.truth.of(uid), ctx.truth.of(other));
            let same =
                (one.what.exchange, one.what.routing_key) == (other.what.exchange, other.what.routing_key);
            one.alike && other.alike && same
        };
        let jobs = self.jobs.values().map(|job| (job.uid, job.fate));
        let mut all = jobs.chain(self.transaction.iter().map(|(uid, _, fate)| (*uid, *fate)));
        all.find(|(other, _)| alike(*other)).map(|(_, fate)| fate)
    }

    /// A message of a hostile client: nothing is promised of it.
    fn publish_of_hostile(&mut self, whole: &Whole, mandatory: bool, ctx: &mut Ctx) {
        ctx.truth.count("hostile: may publish");
        if mandatory && self.mode != Mode::Tx && ctx.rng.chance(ctx.plan.weather.no_route) {
            self.give_back(whole, ctx);
        }
        if self.mode == Mode::Confirm {
            self.tag += 1;
            let refused = ctx.rng.chance(ctx.plan.weather.nack);
            self.reply(if refused { nack(self.id, self.tag) } else { ack(self.id, self.tag) });
        }
    }

    /// (i): the message is the one that its client began, bit by bit.
    fn check(&self, uid: Option<Uid>, whole: &Whole, ctx: &mut Ctx) -> Option<Uid> {
        let found = uid.and_then(|uid| ctx.truth.find(uid)).cloned();
        let (Some(uid), Some(p)) = (uid, found) else {
            ctx.truth.broken('i', format!("the broker gets a message that nobody began: {:?}", whole.header));
            return None;
        };
        let to = match &whole.method {
            basic::AMQPMethod::Publish(m) => (m.exchange.as_str(), m.routing_key.as_str(), m.mandatory),
            _ => ("", "", false),
        };
        // The relay may set the bit, to find out whether a queue takes the message.
        let mandatory = p.mandatory || to.2 && ctx.truth.verifies(&p);
        let meant = (ctx.truth.target(&p), ROUTING_KEYS[p.what.routing_key], mandatory);
        if to != meant || whole.body != body_of(uid, &p) || p.forwarded.is_none() {
            ctx.truth.broken('i', format!("publish {uid} arrives changed: {to:?}, {whole:?}, {p:?}"));
        }
        Some(uid)
    }

    /// No queue takes a message. It comes back if its mandatory bit is set; otherwise nobody hears of it.
    fn find_no_queue(&mut self, uid: Uid, whole: &Whole, ctx: &mut Ctx) {
        match &whole.method {
            basic::AMQPMethod::Publish(publish) if publish.mandatory => {
                ctx.truth.returned(uid);
                if !ctx.truth.of(uid).mandatory {
                    ctx.truth.count("returned to the relay alone");
                }
                self.give_back(whole, ctx);
            }
            _ => ctx.truth.dropped(uid),
        }
    }

    fn give_back(&mut self, whole: &Whole, ctx: &mut Ctx) {
        let basic::AMQPMethod::Publish(publish) = &whole.method else { return };
        let back = message(publish.exchange.as_str(), publish.routing_key.as_str())
            .properties(whole.header.properties.clone())
            .body(&whole.body)
            .frame_size(9 + ctx.rng.below(40));
        self.reply(back.returned(self.id));
    }

    fn commit(&mut self, ctx: &mut Ctx) {
        let transaction = std::mem::take(&mut self.transaction);
        let settled = std::mem::take(&mut self.settled);
        if self.questions > 0 {
            ctx.truth.broken('i', format!("link {}: a question of the relay's own is committed", self.link));
        }
        if ctx.rng.chance(ctx.plan.weather.no_commit) {
            for (uid, ..) in transaction {
                if ctx.rng.chance(300) {
                    ctx.truth.stored(uid, ctx.now);
                }
            }
            give_back(settled.into_iter().map(|(_, held, _)| held), ctx);
            return self.close(406, ctx);
        }
        give_back(settled.into_iter().filter(|(_, _, done)| !done).map(|(_, held, _)| held), ctx);
        let mut marks = Vec::new();
        for (uid, whole, fate) in transaction {
            match fate {
                Fate::NoRoute => self.find_no_queue(uid, &whole, ctx),
                Fate::Store | Fate::Refuse => ctx.truth.stored(uid, ctx.now),
            }
            ctx.truth.settled(uid, true);
            marks.push(Mark::Acked(self.id, uid));
        }
        push(&mut self.out, tx_commit_ok(self.id), marks);
    }

    /// Whether work would do something; `deliveries`: the broker has something for consumers.
    pub fn has_work(&self, deliveries: bool) -> bool {
        let consumes = self.consumer.is_some() || self.worker.is_some();
        self.life == Life::Open && (!self.jobs.is_empty() || (deliveries && consumes))
    }

    /// A piece of work: store some, settle some, deliver something.
    pub fn work(&mut self, ctx: &mut Ctx) {
        let mut open: Vec<u64> = self.jobs.iter().filter(|(_, job)| !job.done).map(|(tag, _)| *tag).collect();
        for _ in 0..ctx.rng.some_of(open.len()) {
            let at = if ctx.rng.chance(ctx.plan.weather.disorder) { ctx.rng.below(open.len()) } else { 0 };
            let tag = open.remove(at);
            self.jobs.entry(tag).and_modify(|job| {
                job.done = true;
                ctx.truth.stored(job.uid, ctx.now);
            });
        }
        if ctx.rng.chance(700) {
            self.settle(ctx);
        }
        if self.consumer.is_some() && ctx.rng.chance(ctx.plan.weather.deliver) {
            self.deliver(ctx);
        }
        while self.worker.is_some() && self.has_room() && ctx.rng.chance(ctx.plan.weather.deliver) {
            self.deliver_job(ctx);
        }
    }

    fn settle(&mut self, ctx: &mut Ctx) {
        let positive = |job: &Job| job.fate != Fate::Refuse;
        let Some(first) = self.jobs.values().next().copied() else { return };
        if first.done && ctx.rng.chance(ctx.plan.weather.multiple) {
            let prefix = self.jobs.iter().take_while(|(_, j)| j.done && positive(j) == positive(&first));
            let tags: Vec<u64> = prefix.map(|(tag, _)| *tag).collect();
            let upto = tags[ctx.rng.below(tags.len())];
            let rest = self.jobs.split_off(&(upto + 1));
            let covered = std::mem::replace(&mut self.jobs, rest);
            let frames =
                if positive(&first) { ack_multiple(self.id, upto) } else { nack_multiple(self.id, upto) };
            return self.answer(frames, covered.values().copied(), ctx);
        }
        let done: Vec<u64> = self.jobs.iter().filter(|(_, job)| job.done).map(|(tag, _)| *tag).collect();
        for _ in 0..ctx.rng.some_of(done.len()) {
            let at = if ctx.rng.chance(ctx.plan.weather.disorder) { ctx.rng.below(done.len()) } else { 0 };
            if let Some(job) = self.jobs.remove(&done[at]) {
                let frames = if positive(&job) { ack(self.id, done[at]) } else { nack(self.id, done[at]) };
                self.answer(frames, std::iter::once(job), ctx);
            }
        }
    }

    fn answer(&mut self, frames: Frames, jobs: impl Iterator<Item = Job>, ctx: &mut Ctx) {
        let mut marks = Vec::new();
        for Job { uid, fate, .. } in jobs {
            let positive = fate != Fate::Refuse;
            ctx.truth.settled(uid, positive);
            marks.push(if positive { Mark::Acked(self.id, uid) } else { Mark::Nacked(self.id, uid) });
        }
        push(&mut self.out, frames, marks);
    }

    /// How many deliveries its consumers have not settled.
    pub fn unsettled_deliveries(&self) -> usize {
        if self.life == Life::Open { self.unacked.len() + self.settled.len() } else { 0 }
    }

    /// Whether the prefetch has room.
    fn has_room(&self) -> bool {
        self.unacked.len() + self.settled.len() < PREFETCH
    }

    fn deliver(&mut self, ctx: &mut Ctx) {
        let Some((consumer, acks)) = self.consumer.clone() else { return };
        if acks && !self.has_room() {
            return;
        }
        self.deliveries += 1;
        let tag = self.deliveries;
        let any = ctx.rng.below(usize::MAX >> 1);
        if let Some(uid) =
            ctx.truth.deliverable(any, self.user).filter(|_| !self.hostile && ctx.rng.chance(500))
        {
            let p = ctx.truth.of(uid).clone();
            let stored = compose(uid, &p).frame_size(9 + ctx.rng.below(40));
            self.reply(stored.deliver_from(ctx.truth.target(&p), self.id, &consumer, tag));
            match acks {
                true => self.unacked.push((tag, Held::Copy(uid))),
                false => ctx.truth.consumes(uid, ctx.now),
            }
            return ctx.truth.delivered(uid, self.link, ctx.now);
        }
        if acks {
            self.unacked.push((tag, Held::Other));
        }
        let len = ctx.rng.below(60);
        let message = message("deliveries", "").app(&format!("d{tag}"));
        let message = message.body(body(u32::try_from(tag).expect("small"), len));
        let message = message.frame_size(9 + ctx.rng.below(40));
        self.reply(message.deliver(self.id, &consumer, tag));
        ctx.truth.count("delivered");
    }

    fn deliver_job(&mut self, ctx: &mut Ctx) {
        let Some((worker, queue)) = self.worker.clone() else { return };
        let (job, message) = Jobs::next(queue, ctx);
        self.deliveries += 1;
        self.unacked.push((self.deliveries, Held::Job(job)));
        self.reply(message.deliver(self.id, &worker, self.deliveries));
    }

    /// As RabbitMQ does: a tag that is not unacked closes the channel.
    fn settle_deliveries(&mut self, tag: u64, multiple: bool, how: Settled, ctx: &mut Ctx) {
        let at = self.unacked.iter().position(|(own, _)| *own == tag);
        let taken: Vec<(u64, Held)> = match at {
            _ if multiple && tag == 0 => std::mem::take(&mut self.unacked),
            Some(at) if multiple => self.unacked.drain(..=at).collect(),
            Some(at) => vec![self.unacked.remove(at)],
            None if self.hostile => return,
            None => {
                let text = format!("link {} channel {}: tag {tag} is not unacked", self.link, self.id);
                return ctx.truth.broken('p', text);
            }
        };
        let (is_ack, is_final) = (how == Settled::Ack, self.mode != Mode::Tx);
        for (_, held) in &taken {
            match held {
                Held::Job(job) => {
                    ctx.truth.count("guard: job settled");
                    let wrong = if is_ack { ctx.truth.jobs.settled(*job, is_final) } else { None };
                    wrong.into_iter().for_each(|text| ctx.truth.broken('p', text));
                }
                Held::Copy(uid) if is_ack && is_final => ctx.truth.has_consumed(*uid, ctx.now),
                Held::Copy(_) | Held::Other => {}
            }
        }
        let done = how != Settled::Requeue;
        if self.mode == Mode::Tx {
            self.settled.extend(taken.into_iter().map(|(tag, held)| (tag, held, done)));
        } else if !done {
            give_back(taken.into_iter().map(|(_, held)| held), ctx);
        }
    }

    /// The broker closes the channel: what it has not answered is lost from sight.
    fn close(&mut self, code: u16, ctx: &mut Ctx) {
        ctx.truth.count("broker closed a channel");
        // A number that no client uses, and no publish has told whose channel it is: it may be any.
        let own = Some(self.id).filter(|id| *id <= ctx.plan.channels || self.hostile);
        ctx.truth.fault(self.link, self.client.or(own).unwrap_or(0));
        self.fail(ctx);
        self.reply(channel_close(self.id, code, "closed by the dice"));
        self.life = Life::Closing;
    }

    /// The channel fails. Some of the unanswered publishes are stored.
    pub fn fail(&mut self, ctx: &mut Ctx) {
        for job in std::mem::take(&mut self.jobs).into_values() {
            if !job.done && ctx.rng.chance(500) {
                ctx.truth.stored(job.uid, ctx.now);
            }
        }
        self.forget(ctx);
    }

    /// All unanswered publishes are stored, because they were in the queues already.
    pub fn accept_all(&mut self, ctx: &mut Ctx) {
        for job in std::mem::take(&mut self.jobs).into_values() {
            if !job.done {
                ctx.truth.stored(job.uid, ctx.now);
            }
        }
        self.forget(ctx);
    }

    fn forget(&mut self, ctx: &mut Ctx) {
        let settled = self.settled.drain(..).map(|(tag, held, _)| (tag, held));
        let mut back: Vec<(u64, Held)> = self.unacked.drain(..).chain(settled).collect();
        back.sort_unstable();
        give_back(back.into_iter().map(|(_, held)| held), ctx);
        self.worker = None;
        self.transaction.clear();
        self.questions = 0;
        self.consumer = None;
        self.content = Assembler::default();
    }
}

/// Puts the jobs of these back into their queue.
fn give_back(held: impl DoubleEndedIterator<Item = Held>, ctx: &mut Ctx) {
    ctx.truth.jobs.give_back(held.filter_map(|held| match held {
        Held::Job(id) => Some(id),
        Held::Copy(_) | Held::Other => None,
    }));
}
