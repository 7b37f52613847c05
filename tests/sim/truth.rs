//! What really happened to every publish, and the invariants that it is held to.
//!
//! Every attempt to publish has its own number, its [`Uid`], which travels in the `app-id` property: the relay does
//! not look at it, and the models can tell a message from its copies. All that is here are dates; the invariants
//! compare them. Their letters are those of `docs/testing.md`.

use super::plan::{Micros, Plan, SECOND, WindowPlan};
use std::collections::{BTreeMap, BTreeSet};
use std::fmt;

/// One attempt to publish.
pub type Uid = u32;
/// One connection of a client.
pub type LinkId = usize;

/// The exchanges: the first two belong to windows, the third to none.
pub const EXCHANGES: [&str; 3] = ["alpha", "beta", "free"];
/// The routing keys.
pub const ROUTING_KEYS: [&str; 2] = ["red", "blue"];

/// Where the second window sends what was published to the second exchange, where it sends it elsewhere.
pub const BACKING: &str = "beta-store";

/// What a publish says.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct What {
    /// index into [`EXCHANGES`]
    pub exchange: usize,
    /// index into [`ROUTING_KEYS`]
    pub routing_key: usize,
    /// its id
    pub id: Option<u32>,
}

/// What makes two publishes the same message: window, exchange, routing key where the scope has it, id.
pub type ModelKey = (usize, usize, usize, u32);

/// One attempt to publish: how it was made, and when what became of it.
#[derive(Clone, Debug)]
pub struct Publish {
    /// on which connection
    pub link: LinkId,
    /// on which channel
    pub channel: u16,
    /// which opening of the channel it was
    pub era: u32,
    /// what it says
    pub what: What,
    /// the client's delivery tag, where it uses confirms
    pub tag: Option<u64>,
    /// whether it is part of a transaction
    pub tx: bool,
    /// whether it asks for its return
    pub mandatory: bool,
    /// whether it passes the window by
    pub bypass: bool,
    /// whether its user may publish there, and the window takes what has no id
    pub allowed: bool,
    /// its own TTL
    pub ttl: Option<Micros>,
    /// the length of its body
    pub len: usize,
    /// its body is its id
    pub by_body: bool,
    /// when the client began it
    pub begun: Micros,
    /// when the relay had taken all of it
    pub reached: Option<Micros>,
    /// when the relay had written all of it to the broker
    pub forwarded: Option<Micros>,
    /// when the broker stored it
    pub stored: Option<Micros>,
    /// whether the broker wrote a return
    pub returned: bool,
    /// what the broker wrote of it: ack or nack
    pub settled: Option<bool>,
    /// what the relay took of it: ack or nack
    pub heard: Option<bool>,
    /// and when
    pub heard_at: Micros,
    /// when the relay took the ack of what was stored, not having given up its channel to the broker before
    pub known: Option<Micros>,
    /// when the window gave it up early
    pub evicted: Option<Micros>,
    /// whether the client got its return
    pub return_seen: bool,
    /// what the client got: ack or nack
    pub answered: Option<bool>,
    /// the broker, or the line to it, failed around it: nobody promises that it is stored
    pub excused: bool,
}

impl Publish {
    /// One that has just begun, of which nothing is said yet.
    pub fn begun(now: Micros) -> Publish {
        Publish {
            link: 0,
            channel: 0,
            era: 0,
            what: What { exchange: 0, routing_key: 0, id: None },
            tag: None,
            tx: false,
            mandatory: false,
            bypass: false,
            allowed: true,
            ttl: None,
            len: 0,
            by_body: false,
            begun: now,
            reached: None,
            forwarded: None,
            stored: None,
            returned: false,
            settled: None,
            heard: None,
            heard_at: 0,
            known: None,
            evicted: None,
            return_seen: false,
            answered: None,
            excused: false,
        }
    }
}

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

/// See the module.
#[derive(Debug, Default)]
pub struct Truth {
    publishes: Vec<Publish>,
    stored: BTreeMap<ModelKey, Vec<Uid>>,
    remembered: BTreeSet<ModelKey>,
    forwarded: BTreeMap<ModelKey, Vec<Uid>>,
    faulty: BTreeSet<(LinkId, u16)>,
    eras: BTreeMap<(LinkId, u16), u32>,
    windows: Vec<WindowPlan>,
    patience: Micros,
    tight: bool,
    deduplicates: bool,
    /// the first invariant that was broken
    pub violation: Option<Violation>,
    /// how often what happened: the proof that a run has been through it
    pub counts: BTreeMap<&'static str, u64>,
}

impl Truth {
    /// Nothing has happened. `deduplicates`: copies are held to (b).
    pub fn new(plan: &Plan, deduplicates: bool) -> Truth {
        let patience = plan.settings.in_flight_timeout.as_micros() as Micros;
        Truth { windows: plan.windows.clone(), patience, tight: plan.tight, deduplicates, ..Truth::default() }
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
        let p = &publish;
        publish.excused |= self.faulty.contains(&(p.link, p.channel)) || self.faulty.contains(&(p.link, 0));
        self.publishes.push(publish);
        u32::try_from(self.publishes.len() - 1).expect("fewer than four billion")
    }

    /// Whether the window of this exchange refuses what has no id.
    pub fn wants_id(&self, exchange: usize) -> bool {
        self.deduplicates && self.window_of(exchange).is_some_and(|window| self.windows[window].reject)
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

    /// The relay has taken all of it.
    pub fn reached(&mut self, uid: Uid, now: Micros) {
        self.at(uid).reached = Some(now);
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
        if let Some(key) = self.key(what).filter(|key| self.windows[key.0].keep) {
            self.forwarded.entry(key).or_default().push(uid);
        }
        self.count("forwarded");
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

    /// (b): no other copy was stored within the window of one whose outcome the relay has learnt.
    fn stored_once(&mut self, key: ModelKey, uid: Uid) {
        let others: Vec<Uid> = self.stored.get(&key).cloned().unwrap_or_default();
        for other in others.into_iter().filter(|other| *other != uid) {
            let by_date = |uid: Uid| (self.of(uid).forwarded, uid);
            let (first, second) = if by_date(other) < by_date(uid) { (other, uid) } else { (uid, other) };
            let Some(known) = self.of(first).known else { continue };
            let until = self.of(first).evicted.unwrap_or(Micros::MAX).min(known + self.ttl(first));
            let again = self.of(second).forwarded.unwrap_or(Micros::MAX);
            let gave_up = self.gave_up(first) || self.gave_up(second);
            if again < until && !gave_up && self.deduplicates && !self.windows[key.0].observe {
                let text = format!(
                    "{key:?} is stored twice in its window: publish {first}, known at {known}, remembered until \
                     {until}; publish {second}, forwarded at {again}"
                );
                self.broken('b', text);
            }
        }
    }

    /// Without confirms there is nobody to be told that it was given up: it has gone on unjudged.
    fn gave_up(&self, uid: Uid) -> bool {
        let p = self.of(uid);
        p.tag.is_none() && p.forwarded.is_some_and(|forwarded| forwarded >= p.begun + self.patience)
    }

    fn ttl(&self, uid: Uid) -> Micros {
        let p = self.of(uid);
        let window = self.window_of(p.what.exchange).map_or(0, |window| self.windows[window].ttl);
        p.ttl.unwrap_or(window)
    }

    /// The broker writes a return.
    pub fn returned(&mut self, uid: Uid) {
        self.at(uid).returned = true;
        self.count("returned");
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

    /// The relay's process is to end: what it has read and not yet looked at counts for nothing.
    pub fn drained(&mut self, link: LinkId) {
        self.faulty.insert((link, 0));
        let touched = |p: &&mut Publish| p.link == link && p.forwarded.is_none();
        self.publishes.iter_mut().filter(touched).for_each(|p| p.excused = true);
    }

    /// A channel is opened afresh.
    pub fn reopened(&mut self, link: LinkId, channel: u16) {
        self.faulty.remove(&(link, channel));
        *self.eras.entry((link, channel)).or_default() += 1;
    }

    /// (a) and (f): the client gets an ack.
    pub fn acked(&mut self, uid: Uid) {
        self.answered(uid, true);
        self.judge_ack(uid, "acked");
    }

    /// (c): the client gets a nack.
    pub fn nacked(&mut self, uid: Uid, now: Micros) {
        self.answered(uid, false);
        if self.of(uid).heard == Some(true) {
            self.broken('c', format!("publish {uid} is nacked, though the broker has acked it"));
        }
        if self.of(uid).heard.is_none() && !self.tight && self.was_stored_meanwhile(uid, now) {
            self.broken('c', format!("publish {uid} is nacked, though a copy was acked while it waited"));
        }
    }

    /// Whether a copy was acked since it came, and news of it had time to get around.
    fn was_stored_meanwhile(&self, uid: Uid, now: Micros) -> bool {
        let p = self.of(uid);
        let Some(key) = self.key(p.what).filter(|_| !p.bypass) else { return false };
        let mut copies = self.stored.get(&key).into_iter().flatten().filter(|copy| !self.gave_up(**copy));
        copies.any(|copy| {
            let copy = self.of(*copy);
            copy.known.is_some_and(|known| Some(known) >= p.reached && known + SECOND < now)
        })
    }

    /// (a): the client gets `tx.commit-ok` for these. What stands twice in a transaction shares one fate: where the
    /// first was returned, the second is not stored either.
    pub fn committed(&mut self, uids: &[Uid]) {
        for uid in uids.iter().copied() {
            self.count("client committed");
            let key = self.key(self.of(uid).what);
            let twin_returned = |twin: &Uid| {
                let p = self.of(*twin);
                *twin < uid && key.is_some() && self.key(p.what) == key && p.returned && p.return_seen
            };
            if !uids.iter().any(twin_returned) {
                self.judge_ack(uid, "committed");
            }
        }
    }

    fn answered(&mut self, uid: Uid, ack: bool) {
        self.count(if ack { "client acked" } else { "client nacked" });
        if self.at(uid).answered.replace(ack).is_some() {
            self.broken('c', format!("publish {uid} is answered twice"));
        }
    }

    fn judge_ack(&mut self, uid: Uid, how: &str) {
        let p = self.of(uid);
        if !p.allowed {
            return self
                .broken('a', format!("publish {uid} is {how}, though its user may not publish there"));
        }
        if p.heard == Some(true) && p.returned {
            if !p.return_seen {
                self.broken('f', format!("publish {uid} is {how} before its return"));
            }
            return;
        }
        if p.heard == Some(true) && p.stored.is_some() {
            return;
        }
        match self.original_of(uid) {
            Some(_) if p.forwarded.is_some() && p.heard.is_none() => {
                self.broken(
                    'a',
                    format!("publish {uid} is {how}; it was forwarded, and its own outcome is unknown"),
                );
            }
            Some(_) => self.count("duplicate answered"),
            None if self.is_kept_in_doubt(uid) => self.count("duplicate of one in doubt answered"),
            None => {
                let copies =
                    self.key(p.what).and_then(|key| self.stored.get(&key)).cloned().unwrap_or_default();
                let copies: Vec<_> = copies.iter().rev().take(3).map(|copy| (copy, self.of(*copy))).collect();
                let text = format!(
                    "publish {uid} is {how}, no copy of it is stored and acked: {p:?}, not {copies:?}"
                );
                self.broken('a', text);
            }
        }
    }

    /// The stored, acked and still remembered copy that makes a publish a duplicate.
    fn original_of(&self, uid: Uid) -> Option<Uid> {
        let p = self.of(uid);
        let key = self.key(p.what).filter(|_| !p.bypass)?;
        let refresh = self.windows[key.0].refresh;
        let copies = self.stored.get(&key)?.iter().copied();
        copies.filter(|other| *other != uid).find(|other| {
            let other_p = self.of(*other);
            other_p.heard == Some(true) && (refresh || other_p.heard_at + self.ttl(*other) > p.begun)
        })
    }

    /// Whether the window keeps what is in doubt, and a copy is: a loss is possible then, by choice.
    fn is_kept_in_doubt(&self, uid: Uid) -> bool {
        let Some(key) = self.key(self.of(uid).what) else { return false };
        let mut copies = self.forwarded.get(&key).into_iter().flatten().filter(|copy| **copy != uid);
        copies.any(|copy| self.of(*copy).heard.is_none())
    }

    /// (f): the client gets a return.
    pub fn return_seen(&mut self, uid: Uid, link: LinkId, channel: u16) {
        let Some(p) = self.publishes.get_mut(uid as usize) else {
            return self.broken('f', format!("publish {uid} is returned, which nobody began"));
        };
        let again = std::mem::replace(&mut p.return_seen, true);
        if again || !p.returned || p.answered.is_some() || (p.link, p.channel) != (link, channel) {
            let text =
                format!("publish {uid} is returned on link {link} channel {channel}, out of turn: {p:?}");
            self.broken('f', text);
        }
        self.count("client returned");
    }

    /// (g): at the end, everything that was sent without confirms and reached the relay is stored, but for what the
    /// broker itself refused or lost. `given_up`: bounds or times were so small that publishes may be given up.
    pub fn nothing_lost(&mut self, given_up: bool) {
        let lost = (0..self.next_uid()).find(|uid| {
            let p = self.of(*uid);
            let promised = p.tag.is_none() && !p.tx && p.allowed && p.reached.is_some() && !p.excused;
            let held = p.forwarded.is_none() && (given_up || self.is_cut_short(p.link, p.channel));
            let excused = p.returned || p.settled == Some(false) || held;
            promised
                && !excused
                && p.stored.is_none()
                && !self.stored_as_other(*uid)
                && !self.is_after_wrong(*uid)
        });
        if let Some(uid) = lost {
            self.broken('g', format!("publish {uid} is lost: {:?}", self.of(uid)));
        }
    }

    /// Whether a message was forwarded there whose end never came: nothing can be forwarded behind it.
    fn is_cut_short(&self, link: LinkId, channel: u16) -> bool {
        let mut there = self.publishes.iter().filter(|p| (p.link, p.channel) == (link, channel));
        there.any(|p| p.forwarded.is_some() && p.reached.is_none())
    }

    /// Whether it came after a publish for which its channel had to be closed.
    fn is_after_wrong(&self, uid: Uid) -> bool {
        let p = self.of(uid);
        let place = |p: &Publish| (p.link, p.channel, p.era);
        self.publishes.iter().take(uid as usize).any(|earlier| place(earlier) == place(p) && !earlier.allowed)
    }

    fn stored_as_other(&self, uid: Uid) -> bool {
        let p = self.of(uid);
        let Some(key) = self.key(p.what).filter(|_| !p.bypass) else { return false };
        let mut copies = self.stored.get(&key).into_iter().flatten();
        copies.any(|other| self.of(*other).stored >= Some(p.begun))
            || self.original_of(uid).is_some()
            || self.is_kept_in_doubt(uid)
    }
}
