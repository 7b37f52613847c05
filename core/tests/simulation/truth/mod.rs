//! Records what really happened to every publish, and checks the invariants.
//!
//! Every attempt to publish has a number, its [`Uid`]. It travels in the `app-id` property, which the relay ignores,
//! so the models can tell a message from its copies. The records are times, and the invariants compare them. The
//! letters of the invariants are those of `docs/testing.md`.

use super::content::{Counted, counted, without_death};
use super::jobs::Jobs;
use super::plan::{Micros, Plan, WindowPlan};
use super::users::may_publish;
use super::windows::Oracle;
use std::collections::{BTreeMap, BTreeSet};
use std::fmt;

mod judge;
mod publish;

pub use publish::{
    BACKING, Delivered, EXCHANGES, LinkId, ModelKey, OTHER_VHOST, Publish, ROUTING_KEYS, Uid, VHOST, What,
};

/// An invariant that was broken.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Violation {
    /// its letter
    pub invariant: char,
    /// what happened
    pub text: String,
}

impl fmt::Display for Violation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "invariant ({}): {}", self.invariant, self.text)
    }
}

/// A producer: window, exchange, routing key (if it is in the scope), and its name.
type Producer = (usize, usize, usize, String);

/// The record of a run.
#[derive(Debug, Default)]
pub struct Truth {
    publishes: Vec<Publish>,
    stored: BTreeMap<ModelKey, Vec<Uid>>,
    remembered: BTreeSet<ModelKey>,
    forwarded: BTreeMap<ModelKey, Vec<Uid>>,
    /// when a publish of this key went on because it had waited too long: what it waited for is not waited for any more
    overtaken: BTreeMap<ModelKey, Vec<Micros>>,
    /// the newest epoch of each producer that the relay has taken a publish of
    epochs: BTreeMap<Producer, u32>,
    /// when a connection was delivered a message last
    delivered: BTreeMap<Delivered, Micros>,
    /// when a consumer may have begun to ack a message of this key, and when the relay has taken such an ack for certain
    consumed: BTreeMap<ModelKey, Vec<(Micros, Option<Micros>)>>,
    /// messages that a client has got, and may publish again
    licences: BTreeSet<Delivered>,
    faulty: BTreeSet<(LinkId, u16)>,
    eras: BTreeMap<(LinkId, u16), u32>,
    /// those that are alike, by their ids, which nobody else has
    alike: BTreeMap<u32, Uid>,
    windows: Vec<WindowPlan>,
    patience: Micros,
    linger: Micros,
    /// when the relay first heard or said that a channel, or (0) a connection, is to end
    ending: BTreeMap<(LinkId, u16), Micros>,
    /// when the relay closed a channel to the broker, or (0) the connection
    closed: BTreeMap<(LinkId, u16), Micros>,
    tight: bool,
    deduplicates: bool,
    /// a window has recovered from its store
    has_crashed: bool,
    /// the guarded queue
    pub jobs: Jobs,
    /// knows which commits are not remembered
    pub oracle: Option<Oracle>,
    /// the first invariant that was broken
    pub violation: Option<Violation>,
    /// how often what happened: the proof that a run has been through it
    pub counts: BTreeMap<&'static str, u64>,
}

impl Truth {
    /// Nothing has happened. `deduplicates`: copies are held to (b).
    pub fn new(plan: &Plan, deduplicates: bool) -> Truth {
        let patience = plan.settings.in_flight_timeout.as_micros() as Micros;
        let linger = plan.settings.linger.as_micros() as Micros;
        let windows = plan.windows.clone();
        Truth { windows, patience, linger, tight: plan.tight, deduplicates, ..Truth::default() }
    }

    /// An invariant is broken. The first one counts.
    pub fn broken(&mut self, invariant: char, text: impl Into<String>) {
        self.violation.get_or_insert_with(|| Violation { invariant, text: text.into() });
    }

    /// Something happened once more.
    pub fn count(&mut self, what: &'static str) {
        *self.counts.entry(what).or_default() += 1;
    }

    /// A publish by its number.
    pub fn of(&self, uid: Uid) -> &Publish {
        &self.publishes[uid as usize]
    }

    fn at(&mut self, uid: Uid) -> &mut Publish {
        &mut self.publishes[uid as usize]
    }

    /// The publish with this number, if there is one.
    pub fn find(&self, uid: Uid) -> Option<&Publish> {
        self.publishes.get(uid as usize)
    }

    /// The window that judges an exchange.
    pub fn window_of(&self, exchange: usize) -> Option<usize> {
        match exchange {
            0 => Some(0),
            1 => Some(self.windows.len() - 1),
            _ => None,
        }
    }

    /// The second window's scope is the exchange, without the routing key.
    pub fn key(&self, what: What) -> Option<ModelKey> {
        let window = self.window_of(what.exchange)?;
        let routing_key = if window == 1 { 0 } else { what.routing_key };
        Some((window, what.exchange, routing_key, what.id?))
    }

    /// A client begins a publish.
    pub fn publish(&mut self, mut publish: Publish) -> Uid {
        publish.era = self.eras.get(&(publish.link, publish.channel)).copied().unwrap_or_default();
        let licence = self.delivery_of(publish.link, publish.what).filter(|_| !publish.bypass);
        publish.republish = licence.is_some_and(|licence| self.licences.remove(&licence));
        let p = &publish;
        publish.excused |= self.faulty.contains(&(p.link, p.channel)) || self.faulty.contains(&(p.link, 0));
        let uid = u32::try_from(self.publishes.len()).expect("fewer than four billion");
        if let (true, Some(id)) = (publish.alike, publish.what.id) {
            self.alike.insert(id, uid);
        }
        self.publishes.push(publish);
        uid
    }

    /// Returns true if the window of this exchange refuses publishes without an id.
    pub fn wants_id(&self, exchange: usize) -> bool {
        self.deduplicates && self.window_of(exchange).is_some_and(|window| self.windows[window].reject)
    }

    /// The body that the next publish of this id has, where it matters: mostly the first of three.
    pub fn edition(&mut self, what: What) -> Option<u32> {
        let window = self.window_of(what.exchange).filter(|_| self.deduplicates && what.id.is_some())?;
        let editions = [0, 0, 0, 1, 0, 0, 2, 1];
        self.windows[window].forwards_conflicts.then(|| editions[self.publishes.len() % editions.len()])
    }

    /// The publish with this id, of those that are alike.
    pub fn alike(&self, id: u32) -> Option<Uid> {
        self.alike.get(&id).copied()
    }

    /// Whether the id is a header of its own.
    pub fn by_header(&self, exchange: usize) -> bool {
        exchange == 1 && self.windows.len() == 2 && !self.windows[1].by_body
    }

    /// Whether the id is the body.
    pub fn by_body(&self, exchange: usize) -> bool {
        self.window_of(exchange).is_some_and(|window| self.windows[window].by_body)
    }

    /// The exchange that the broker is to get a publish for.
    pub fn target(&self, p: &Publish) -> &'static str {
        match self.window_of(p.what.exchange) {
            Some(window) if self.windows[window].redirect && self.deduplicates => BACKING,
            _ => EXCHANGES[p.what.exchange],
        }
    }

    /// The number that the next publish will have.
    pub fn next_uid(&self) -> Uid {
        u32::try_from(self.publishes.len()).expect("fewer than four billion")
    }

    /// Returns the producer of a publish, and the epoch; `None`: its window does not count, or it is a dead letter, of which each is a
    /// producer of its own.
    fn counts(&self, what: What) -> Option<(Producer, u32)> {
        let (window, exchange, routing_key, id) = self.key(what)?;
        let Counted { producer, epoch, .. } = counted(id);
        let is_alive = id == without_death(id);
        let counts = self.deduplicates && self.windows[window].sequence && is_alive;
        counts.then_some(((window, exchange, routing_key, producer), epoch))
    }

    /// The relay has taken all of it.
    pub fn reached(&mut self, uid: Uid, now: Micros) {
        self.at(uid).reached = Some(now);
        let p = self.of(uid);
        if let Some((producer, epoch)) = self.counts(p.what).filter(|_| p.allowed && !p.bypass) {
            let newest = self.epochs.entry(producer).or_default();
            *newest = epoch.max(*newest);
        }
    }

    /// Returns true if the epoch of a publish may be over: a later one has come. It may be refused then, with its channel.
    pub fn may_be_over(&self, what: What) -> bool {
        let counts = self.counts(what);
        counts
            .is_some_and(|(producer, epoch)| self.epochs.get(&producer).is_some_and(|newest| *newest > epoch))
    }

    /// The relay has written all of it to the broker.
    pub fn forwarded(&mut self, uid: Uid, link: LinkId, now: Micros) {
        let Some(p) = self.publishes.get_mut(uid as usize) else {
            return self.broken('i', format!("publish {uid} is forwarded, which nobody began"));
        };
        if p.forwarded.is_some() || p.link != link {
            let text = format!("publish {uid} of link {} is forwarded again, or by link {link}", p.link);
            return self.broken('b', text);
        }
        p.forwarded = Some(now);
        let what = p.what;
        let listed = |key: &ModelKey| self.windows[key.0].keep || self.windows[key.0].forwards_conflicts;
        if let Some(key) = self.key(what).filter(listed) {
            self.forwarded.entry(key).or_default().push(uid);
        }
        // A message that its consumer publishes again is a new one, whatever was known of its id.
        let delivery = self.delivery_of(link, what);
        let new = delivery.is_some_and(|delivered| self.delivered.contains_key(&delivered));
        self.at(uid).beside = new;
        if let (true, Some(key)) = (new || self.gave_up(uid), self.key(what)) {
            self.overtaken.entry(key).or_default().push(now);
        }
        self.count("forwarded");
    }

    /// The relay has written the last of it to the broker.
    pub fn forwarded_whole(&mut self, uid: Uid) {
        if let Some(p) = self.publishes.get_mut(uid as usize) {
            p.whole = true;
        }
    }

    /// The relay has heard that a client ends a channel or (0) its connection, or ends it itself.
    pub fn ends(&mut self, link: LinkId, channel: u16, now: Micros) {
        self.ending.entry((link, channel)).or_insert(now);
    }

    /// The relay has closed a channel to the broker, or (0) the connection.
    pub fn closed(&mut self, link: LinkId, channel: u16, now: Micros) {
        self.closed.entry((link, channel)).or_insert(now);
        let touched = |p: &&mut Publish| p.link == link && (channel == 0 || p.channel == channel);
        self.publishes.iter_mut().filter(touched).for_each(|p| p.closed = p.closed.or(Some(now)));
    }

    /// A stored message that a consumer of this user may be delivered, and may publish again.
    pub fn deliverable(&self, from: usize, user: &str) -> Option<Uid> {
        let from = from % self.publishes.len().max(1);
        let may = |uid: &Uid| {
            let p = self.of(*uid);
            let known = p.what.id.is_some() && !p.alike && !p.by_body && self.key(p.what).is_some();
            known
                && p.stored.is_some()
                && may_publish(user, self.target(p), ROUTING_KEYS[p.what.routing_key])
                && may_publish(user, EXCHANGES[p.what.exchange], ROUTING_KEYS[p.what.routing_key])
        };
        (0..=from as Uid).rev().take(20).find(|uid| (*uid as usize) < self.publishes.len() && may(uid))
    }

    /// Returns a publish of a connection as the copy of a delivery that it may be, if it has an id. Each incarnation of an id is another.
    fn delivery_of(&self, link: LinkId, what: What) -> Option<Delivered> {
        let window = self.window_of(what.exchange).map(|window| &self.windows[window]);
        let is_any_other = self.deduplicates && window.is_some_and(|window| window.drops_republish);
        Some((link, what.exchange, what.routing_key, what.id?)).filter(|_| !is_any_other)
    }

    /// Returns the copies that a consumer may publish of this delivery: the same, and the same without its death. Nobody adds a death.
    fn licensed_by(&self, link: LinkId, what: What) -> BTreeSet<Delivered> {
        let without = what.id.filter(|_| !self.by_body(what.exchange)).map(without_death);
        let ids = [what.id, without];
        ids.into_iter().filter_map(|id| self.delivery_of(link, What { id, ..what })).collect()
    }

    /// The broker delivers a message.
    pub fn delivered(&mut self, uid: Uid, link: LinkId, now: Micros) {
        let licensed = self.licensed_by(link, self.of(uid).what);
        self.delivered.extend(licensed.into_iter().map(|delivered| (delivered, now)));
        self.count("delivered with an id");
    }

    /// Its consumer has got it. If it may be publishing the same already, nobody can say which of the two is the new message.
    pub fn received(&mut self, uid: Uid, link: LinkId) {
        for delivered in self.licensed_by(link, self.of(uid).what) {
            let Some(at) = self.delivered.get(&delivered).copied() else { continue };
            let is_early = |p: &Publish| {
                let judged = p.forwarded.map_or(p.answered.is_some(), |forwarded| forwarded < at);
                p.reached.is_some_and(|reached| reached < at) && judged
            };
            let mut same =
                self.publishes.iter().filter(|p| self.delivery_of(p.link, p.what) == Some(delivered));
            if same.all(is_early) {
                self.licences.insert(delivered);
            }
        }
    }

    /// Returns true if a window releases what was consumed.
    pub fn releases(&self) -> bool {
        self.deduplicates && self.windows.iter().any(|window| window.releases)
    }

    /// A consumer acks a copy of this publish, or the broker takes it for acked when it is sent: from now on its id may be unknown.
    pub fn consumes(&mut self, uid: Uid, now: Micros) {
        if let Some(key) = self.key(self.of(uid).what).filter(|key| self.windows[key.0].releases) {
            self.consumed.entry(key).or_default().push((now, None));
        }
    }

    /// The relay has taken such an ack. If several of a key are on the way it is one of them, and the first one frees the least.
    pub fn has_consumed(&mut self, uid: Uid, now: Micros) {
        let Some(key) = self.key(self.of(uid).what) else { return };
        let mut acks = self.consumed.get_mut(&key).into_iter().flatten();
        if let Some((_, taken)) = acks.find(|(_, taken)| taken.is_none()) {
            *taken = Some(now);
            self.count("released");
        }
    }

    /// The broker has stored it.
    pub fn stored(&mut self, uid: Uid, now: Micros) {
        self.at(uid).stored = Some(now);
        self.count("stored");
        let p = self.of(uid);
        if let Some(key) = self.key(p.what).filter(|_| !p.bypass) {
            let copies = self.stored.entry(key).or_default();
            copies.push(uid);
            // Copies that are long past are out of every window but the endless ones, where few copies come about.
            copies.drain(..copies.len().saturating_sub(100));
            self.stored_once(key, uid);
        }
    }

    /// The broker writes a return.
    pub fn returned(&mut self, uid: Uid) {
        self.at(uid).returned = true;
        self.count("returned");
    }

    /// No queue takes it, and nobody has asked the broker to say so.
    pub fn dropped(&mut self, uid: Uid) {
        self.at(uid).dropped = true;
        self.count("dropped");
    }

    /// Returns true if the relay has to find out whether a queue takes a publish, should it take the id for seen.
    pub fn verifies(&self, p: &Publish) -> bool {
        let window = self.window_of(p.what.exchange).filter(|_| self.deduplicates);
        window.is_some_and(|window| self.windows[window].verify) && p.what.id.is_some() && !p.bypass
    }

    /// The broker will not store it, whether it comes to say so or not.
    pub fn refused(&mut self, uid: Uid) {
        self.at(uid).excused = true;
    }

    /// The broker writes an ack or a nack, or commits its transaction.
    pub fn settled(&mut self, uid: Uid, ack: bool) {
        self.at(uid).settled = Some(ack);
        self.count(if ack { "broker acked" } else { "broker nacked" });
    }

    /// The relay has taken the ack or nack; `alive`: it had not given up the channel before.
    pub fn heard(&mut self, uid: Uid, ack: bool, alive: bool, now: Micros) {
        self.at(uid).heard = Some(ack);
        self.at(uid).heard_at = now;
        let p = self.of(uid);
        if let Some(key) = self.key(p.what).filter(|_| ack && alive && p.stored.is_some() && !p.bypass) {
            self.at(uid).known = Some(now);
            self.remembered.insert(key);
            self.stored_once(key, uid);
        }
    }

    /// A window has evicted early: those that it does not remember are free to come again.
    pub fn evicted(&mut self, window: usize, now: Micros, remembers: impl Fn(ModelKey) -> bool) {
        let gone = |key: &&ModelKey| key.0 == window && !remembers(**key);
        let gone: Vec<ModelKey> = self.remembered.iter().filter(gone).copied().collect();
        for key in gone {
            self.remembered.remove(&key);
            for uid in self.stored.get(&key).cloned().unwrap_or_default() {
                if self.of(uid).known.is_some() {
                    self.at(uid).evicted.get_or_insert(now);
                }
            }
        }
    }

    /// The broker or the line to it failed on a channel, or (0) on the connection.
    pub fn fault(&mut self, link: LinkId, channel: u16) {
        self.faulty.insert((link, channel));
        let touched = |p: &&mut Publish| p.link == link && (channel == 0 || p.channel == channel);
        self.publishes.iter_mut().filter(touched).for_each(|p| p.excused = true);
    }

    /// The relay has told the client that a channel, or (0) the connection, is closed: what it takes from now on counts
    /// for nothing.
    pub fn shut(&mut self, link: LinkId, channel: u16) {
        self.faulty.insert((link, channel));
        let touched = |p: &&mut Publish| p.link == link && (channel == 0 || p.channel == channel);
        self.publishes.iter_mut().filter(touched).for_each(|p| p.excused |= p.reached.is_none());
    }

    /// The relay cuts a client. It may lose a first message without confirms that it has read and not yet looked at: nothing has shown
    /// before that the client of this channel hears of no outcome.
    pub fn cut(&mut self, link: LinkId) {
        let place = |p: &Publish| (p.channel, p.era);
        let of_link = |p: &&Publish| p.link == link && p.tag.is_none() && !p.tx;
        let shown: BTreeSet<(u16, u32)> =
            self.publishes.iter().filter(of_link).filter(|p| p.forwarded.is_some()).map(place).collect();
        let unknown =
            |p: &&mut Publish| p.link == link && p.forwarded.is_none() && !shown.contains(&place(p));
        self.publishes.iter_mut().filter(unknown).for_each(|p| p.excused = true);
    }

    /// The relay's process is to end: what it has read and not yet looked at counts for nothing. That may be the rest of a message.
    pub fn drained(&mut self, link: LinkId) {
        self.faulty.insert((link, 0));
        let touched = |p: &&mut Publish| p.link == link && !p.whole;
        self.publishes.iter_mut().filter(touched).for_each(|p| p.excused = true);
    }

    /// A channel is opened afresh.
    pub fn reopened(&mut self, link: LinkId, channel: u16) {
        self.ending.remove(&(link, channel));
        self.closed.remove(&(link, channel));
        self.faulty.remove(&(link, channel));
        *self.eras.entry((link, channel)).or_default() += 1;
    }
}
