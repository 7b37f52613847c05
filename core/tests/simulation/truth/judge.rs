//! The invariants: what the dates of [`Truth`] must be to each other.

use super::super::plan::{MILLI, Micros, SECOND, WindowPlan};
use super::{LinkId, ModelKey, Publish, Truth, Uid};
use hapax_core::window::OnDuplicate;
use std::collections::BTreeSet;

impl Truth {
    /// (b): no other copy was stored within the window of one whose outcome the relay has learnt.
    pub(super) fn stored_once(&mut self, key: ModelKey, uid: Uid) {
        let others: Vec<Uid> = self.stored.get(&key).cloned().unwrap_or_default();
        let edition = self.of(uid).edition;
        let rivals: Vec<Uid> =
            others.into_iter().filter(|other| *other != uid && self.of(*other).edition == edition).collect();
        for other in rivals {
            let by_date = |uid: Uid| (self.of(uid).forwarded, uid);
            let (first, second) = if by_date(other) < by_date(uid) { (other, uid) } else { (uid, other) };
            let Some(known) = self.of(first).known else { continue };
            let until = self.of(first).evicted.unwrap_or(Micros::MAX).min(known + self.ttl(first));
            let again = self.of(second).forwarded.unwrap_or(Micros::MAX);
            let begun = self.of(first).forwarded.unwrap_or(Micros::MAX);
            let mut times = self.overtaken.get(&key).into_iter().flatten();
            // (It may be forwarded and overtaken in the same moment.)
            let overtaken = times.any(|at| (*at > begun || *at == again) && (begun..=again).contains(at));
            let gave_up = self.gave_up(first)
                || overtaken
                || self.is_second_body(second)
                || self.is_unjudged(second)
                || self.was_beside(key, first, second)
                || self.may_be_released(key, begun, again)
                || self.was_forgotten(key, begun, again)
                || self.was_superseded(key, first, begun, again);
            if again < until && !gave_up && self.deduplicates && !self.windows[key.0].observe {
                let text = format!(
                    "{key:?} is stored twice in its window: publish {first}, known at {known}, remembered until \
                     {until}; publish {second}, forwarded at {again}"
                );
                self.broken('b', text);
            }
        }
    }

    /// Returns true if, between these times, a consumer's copy may have been given up that was not forwarded yet: the window's store had
    /// still to forget the message before, or the copy waited behind others on its channel, which wait for another window's store. The
    /// message before is unknown then, as if the copy had not been stored. How long a copy waits for its verdict is not known, so it is
    /// not asked when it came.
    fn was_forgotten(&self, key: ModelKey, from: Micros, to: Micros) -> bool {
        let given_up = |p: &Publish| {
            let delivery = self.delivery_of(p.link, p.what);
            p.forwarded.is_none()
                && self.key(p.what) == Some(key)
                && p.closed.is_none_or(|closed| closed >= from)
                && p.answered != Some(true)
                && p.begun <= to
                && delivery.is_some_and(|delivered| self.delivered.contains_key(&delivered))
        };
        self.publishes.iter().any(given_up)
    }

    /// Returns true if the relay may have taken a consumer's ack of this key between these times.
    fn may_be_released(&self, key: ModelKey, from: Micros, to: Micros) -> bool {
        let may_be = |(began, taken): &(Micros, Option<Micros>)| {
            *began <= to && taken.is_none_or(|taken| taken >= from)
        };
        self.consumed.get(&key).into_iter().flatten().any(may_be)
    }

    /// (q): returns true if a consumer has acked a message of this key before a publish began, and this copy of it was forwarded before that.
    /// After a crash, a store may bring an id back; and of several messages in flight at a time, only one is released.
    fn is_released(&self, copy: Uid, publish: Uid) -> bool {
        let (copy, p) = (self.of(copy), self.of(publish));
        let Some(key) = self.key(p.what) else { return false };
        let frees = |(began, taken): &(Micros, Option<Micros>)| {
            copy.forwarded.is_some_and(|forwarded| forwarded < *began)
                && taken.is_some_and(|taken| taken < p.begun)
        };
        // A repeated message of one transaction shares the fate of the first one, which no consumer can have acked yet.
        let place = |p: &Publish| (p.link, p.channel, p.era, p.transaction);
        let is_repeated = p.transaction.is_some() && place(copy) == place(p);
        let is_sure = !self.has_crashed && !self.overtaken.contains_key(&key) && !is_repeated;
        is_sure && self.consumed.get(&key).into_iter().flatten().any(frees)
    }

    /// Returns true if its transaction has the same id with another body before it. Then it is forwarded, and not remembered. The one before
    /// it may wait for another's outcome, and may be forwarded later than this one.
    fn is_second_body(&self, uid: Uid) -> bool {
        let p = self.of(uid);
        let key = self.key(p.what).filter(|_| p.edition.is_some());
        let is_before = |q: &Publish| {
            let same = (q.link, q.channel, q.era, q.transaction) == (p.link, p.channel, p.era, p.transaction);
            same && !q.bypass && self.key(q.what) == key && q.edition != p.edition
        };
        p.transaction.is_some() && key.is_some() && self.publishes.iter().take(uid as usize).any(is_before)
    }

    /// Returns true if a copy with another body may have taken the key between these times: only the last one is remembered. (And
    /// where there is no room to hold a body, it is not compared. And not each body of a transaction is remembered.)
    fn was_superseded(&self, key: ModelKey, first: Uid, from: Micros, to: Micros) -> bool {
        let edition = self.of(first).edition;
        let others = self.forwarded.get(&key).into_iter().flatten().map(|uid| self.of(*uid));
        let between = |p: &Publish| {
            let ended = p.heard.is_some() && p.heard_at < from;
            p.edition != edition && p.forwarded.is_some_and(|forwarded| forwarded <= to) && !ended
        };
        let is_remembered = !self.tight && !self.is_second_body(first);
        edition.is_some() && (!is_remembered || others.into_iter().any(between))
    }

    /// Without confirms there is nobody to be told that it was given up: it has gone on unjudged.
    pub(super) fn gave_up(&self, uid: Uid) -> bool {
        let p = self.of(uid);
        p.tag.is_none() && p.forwarded.is_some_and(|forwarded| forwarded >= p.begun + self.patience)
    }

    /// Returns true if the relay closed its channel or connection when the linger was over. That is when.
    fn end_of_linger(&self, p: &Publish) -> Option<Micros> {
        [p.channel, 0].into_iter().find_map(|channel| {
            let closed = *self.closed.get(&(p.link, channel))?;
            let ending = [p.channel, 0].into_iter().filter_map(|channel| self.ending.get(&(p.link, channel)));
            ending.min().filter(|ending| closed >= **ending + self.linger).map(|_| closed)
        })
    }

    /// When the linger is over, a publish that no window has judged, or that waits for another's outcome, is forwarded if its client would
    /// hear of nothing: that is the last that its channel or connection writes. It is not remembered.
    fn is_unjudged(&self, uid: Uid) -> bool {
        let p = self.of(uid);
        p.tag.is_none() && !p.tx && p.forwarded.is_some() && self.end_of_linger(p) == p.forwarded
    }

    /// A message that its consumer publishes again passes those that have come before it, and takes nothing from them. Where bodies
    /// count, it may be beside one with another body, which is what the window knows until it remembers this one.
    fn was_beside(&self, key: ModelKey, first: Uid, second: Uid) -> bool {
        let (first, second) = (self.of(first), self.of(second));
        let came_before = second.reached.is_some_and(|reached| Some(reached) <= first.forwarded);
        let log = self.oracle.as_ref().zip(second.forwarded).filter(|_| first.edition.is_some());
        let is_late = log.is_some_and(|(log, then)| log.was_unremembered(key, first.heard_at, then));
        first.beside && (came_before || is_late)
    }

    fn ttl(&self, uid: Uid) -> Micros {
        let p = self.of(uid);
        let window = self.window_of(p.what.exchange).map(|window| &self.windows[window]);
        // Of a number, its own TTL says nothing.
        let own = p.ttl.filter(|_| !window.is_some_and(|window| window.sequence));
        own.unwrap_or(window.map_or(0, |window| window.ttl))
    }

    /// (a) and (f): the client gets an ack.
    pub fn acked(&mut self, uid: Uid) {
        self.answered(uid, true);
        self.judge_signal(uid, false);
        self.judge_ack(uid, "acked");
    }

    /// (c): the client gets a nack.
    pub fn nacked(&mut self, uid: Uid, now: Micros) {
        self.answered(uid, false);
        let is_duplicate = self.of(uid).forwarded.is_none() && self.original_of(uid).is_some();
        if is_duplicate && self.signal_of(uid) == OnDuplicate::Nack {
            return self.count("client told by a nack");
        }
        if self.of(uid).heard == Some(true) {
            self.broken('c', format!("publish {uid} is nacked, though the broker has acked it"));
        }
        let waited = self.of(uid).heard.is_none() && !self.tight;
        if let Some(copy) = waited.then(|| self.stored_meanwhile(uid, now)).flatten() {
            self.broken('c', format!("publish {uid} is nacked, though {copy} was acked while it waited"));
        }
    }

    /// Returns a copy that was acked since it came, if news of it had time to get around, and no other body has taken its place.
    fn stored_meanwhile(&self, uid: Uid, now: Micros) -> Option<Uid> {
        let p = self.of(uid);
        let key = self.key(p.what).filter(|_| !p.bypass)?;
        let same = |copy: &&Uid| self.of(**copy).edition == p.edition && !self.gave_up(**copy);
        let mut copies = self.stored.get(&key).into_iter().flatten().filter(same);
        // It may have waited for a silent store at first, its own or that of a publish before it on its channel, and for another copy after
        // that: the first was past, or evicted.
        let may_be_past = self.may_wait_for_a_store(uid);
        let found = copies.find(|copy| {
            let ttl = self.ttl(**copy);
            let copy = *copy;
            let is_there = |known| known + ttl > now && self.of(*copy).evicted.is_none();
            self.of(*copy).known.is_some_and(|known| {
                let still_known = !may_be_past || is_there(known);
                let begun = self.of(*copy).forwarded.unwrap_or_default();
                let is_news = Some(known) >= p.reached && known + SECOND < now;
                is_news
                    && still_known
                    && !self.was_superseded(key, *copy, begun, now)
                    && !self.may_be_released(key, begun, now)
            })
        });
        found.copied()
    }

    /// Returns true if the window of a publish answers late, or that of one which its channel has sent before it.
    fn may_wait_for_a_store(&self, uid: Uid) -> bool {
        let p = self.of(uid);
        let is_late = |q: &Publish| {
            let window = self.window_of(q.what.exchange).map(|window| &self.windows[window]);
            window.is_some_and(|window| window.late || window.logged.is_some())
        };
        let mut there = self.publishes.iter().take(uid as usize + 1);
        there.any(|q| (q.link, q.channel, q.era) == (p.link, p.channel, p.era) && is_late(q))
    }

    /// (a): the client gets `tx.commit-ok` for these publishes. Copies within one transaction share one fate: if the
    /// first was returned, the second is not stored either.
    pub fn committed(&mut self, uids: &[Uid]) {
        for uid in uids.iter().copied() {
            self.count("client committed");
            let key = self.key(self.of(uid).what);
            let twin_returned = |twin: &Uid| {
                let p = self.of(*twin);
                let told = p.returned && (p.return_seen || !p.mandatory) || p.dropped;
                *twin < uid && key.is_some() && self.key(p.what) == key && told
            };
            if !uids.iter().any(twin_returned) {
                self.judge_ack(uid, "committed");
            }
            self.judge_signal(uid, true);
        }
    }

    /// (m): whether a consumer publishes its message again, and that was taken for a duplicate. One of several that its connection publishes is new.
    fn is_lost_republish(&self, uid: Uid) -> bool {
        let p = self.of(uid);
        let delivery = self.delivery_of(p.link, p.what);
        let is_new = |q: &Publish| {
            self.delivery_of(q.link, q.what) == delivery
                && q.forwarded.is_some_and(|forwarded| forwarded >= p.begun)
        };
        p.republish && p.forwarded.is_none() && self.deduplicates && !self.publishes.iter().any(is_new)
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
        if self.is_lost_republish(uid) {
            let text = format!(
                "publish {uid} is {how}, a message that its consumer publishes again, and was not forwarded: {p:?}"
            );
            return self.broken('m', text);
        }
        if p.republish {
            self.count("republished");
        }
        let p = self.of(uid);
        // The broker acks what no queue took.
        if p.heard == Some(true) && p.dropped {
            return;
        }
        if p.heard == Some(true) && p.returned {
            if !p.return_seen && p.mandatory {
                self.broken('f', format!("publish {uid} is {how} before its return"));
            }
            return;
        }
        if p.heard == Some(true) && p.stored.is_some() {
            if self.is_unremembered(uid) {
                self.broken(
                    'l',
                    format!("publish {uid} is {how}, but its id is not remembered: {:?}", self.of(uid)),
                );
            }
            return;
        }
        match self.original_of(uid) {
            // An id that is kept in doubt is known, too.
            Some(original)
                if p.forwarded.is_none() && self.are_unremembered(uid) && !self.is_kept_in_doubt(uid) =>
            {
                let text = format!("publish {uid} is {how} for {original}, whose id is not remembered");
                self.broken('l', text);
            }
            Some(_)
                if p.forwarded.is_none()
                    && self.originals_of(uid).all(|copy| self.is_released(copy, uid))
                    && !self.is_kept_in_doubt(uid) =>
            {
                let text = format!(
                    "publish {uid} is {how} as a duplicate, and a consumer has acked its message: {p:?}"
                );
                self.broken('q', text);
            }
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

    /// (l): whether the window has not remembered the commit of a publish yet, and the client must not be told.
    fn is_unremembered(&self, uid: Uid) -> bool {
        let p = self.of(uid);
        let key = self.key(p.what).filter(|_| !p.bypass);
        // A commit is known by its id and its time. Where copies were committed at the same time, it may be the other's.
        let copies = key.and_then(|key| self.stored.get(&key)).into_iter().flatten();
        if copies.filter(|copy| self.of(**copy).heard_at == p.heard_at).count() > 1
            || self.may_be_taken_for_another(uid)
        {
            return false;
        }
        let oracle = self.oracle.as_ref().filter(|_| self.deduplicates);
        oracle.zip(key).is_some_and(|(oracle, key)| oracle.is_unremembered(key, p.heard_at))
    }

    /// Returns true if a copy came back while this one was on its way on the same channel. Both can be on their way only if a consumer
    /// publishes one of them again. Nobody can tell which of them has come back, so the other one's commit counts for both.
    fn may_be_taken_for_another(&self, uid: Uid) -> bool {
        let p = self.of(uid);
        let same = |q: &Publish| (q.link, q.channel, q.era, q.what) == (p.link, p.channel, p.era, p.what);
        let meets = |q: &Publish| {
            let ended = q.heard.is_some() && Some(q.heard_at) < p.forwarded;
            q.forwarded.is_some_and(|forwarded| forwarded <= p.heard_at) && !ended
        };
        self.publishes.iter().any(|q| same(q) && q.returned && meets(q) && (p.beside || q.beside))
    }

    /// The stored, acked and still remembered copy that makes a publish a duplicate. (An engine may forget a millisecond late.)
    fn original_of(&self, uid: Uid) -> Option<Uid> {
        self.originals_of(uid).next()
    }

    /// (l): whether the window has remembered none of the copies that make a publish a duplicate.
    fn are_unremembered(&self, uid: Uid) -> bool {
        self.originals_of(uid).all(|original| self.is_unremembered(original))
    }

    fn originals_of(&self, uid: Uid) -> impl Iterator<Item = Uid> {
        let p = self.of(uid);
        let key = self.key(p.what).filter(|_| !p.bypass);
        let copies = key.and_then(|key| Some((key, self.stored.get(&key)?)));
        let copies = copies.into_iter().flat_map(|(key, copies)| copies.iter().map(move |copy| (key, *copy)));
        copies
            .filter(move |(_, other)| *other != uid && self.of(*other).edition == p.edition)
            .filter(move |(key, other)| {
                let (key, refresh) = (*key, self.windows[key.0].refresh);
                let other_p = self.of(*other);
                let until = other_p.heard_at + self.ttl(*other) + MILLI;
                // It was in flight until it was remembered, however short its TTL is.
                let log = self.oracle.as_ref();
                let in_flight =
                    || log.is_some_and(|log| log.was_unremembered(key, other_p.heard_at, p.begun));
                other_p.heard == Some(true) && (refresh || until > p.begun || in_flight())
            })
            .map(|(_, other)| other)
    }

    /// Whether the window keeps what is in doubt, and a copy is: a loss is possible then, by choice.
    fn is_kept_in_doubt(&self, uid: Uid) -> bool {
        let Some(key) = self.key(self.of(uid).what) else { return false };
        let edition = self.of(uid).edition;
        let mut copies = self.forwarded.get(&key).into_iter().flatten().filter(|copy| **copy != uid);
        let kept = |copy: &Uid| self.of(*copy).heard.is_none() && self.of(*copy).edition == edition;
        self.windows[key.0].keep && copies.any(kept)
    }

    /// (n): the relay has crashed, and a window has recovered from its store. `is_safe`: it has promised to remember every id whose ack a
    /// client has. Whatever else is not remembered is free to come again.
    pub fn crashed(
        &mut self,
        window: usize,
        now: Micros,
        is_safe: bool,
        remembers: impl Fn(ModelKey) -> bool,
    ) {
        let promised = |p: &Publish| {
            let is_stored = p.answered == Some(true) && p.known.is_some() && !p.returned && !p.dropped;
            is_stored && p.evicted.is_none() && !p.bypass && p.edition.is_none() && p.tag.is_some()
        };
        let WindowPlan { capacity, observe, .. } = self.windows[window];
        let has_room = capacity > 1000 && !observe;
        let given_up = self.publishes.iter().filter(|p| p.republish && p.forwarded.is_none());
        let given_up: BTreeSet<ModelKey> = given_up.filter_map(|p| self.key(p.what)).collect();
        let forgotten = (0..self.next_uid()).find(|uid| {
            let p = self.of(*uid);
            let lives = p.known.is_some_and(|known| known + self.ttl(*uid) > now + 2 * MILLI);
            let key = self.key(p.what).filter(|key| key.0 == window && promised(p) && lives);
            // What its consumer publishes again makes it unknown, also if that is given up before it is forwarded.
            key.is_some_and(|key| {
                let is_overtaken = self.overtaken.contains_key(&key) || given_up.contains(&key);
                !is_overtaken && !self.consumed.contains_key(&key) && !remembers(key)
            })
        });
        if let Some(uid) = forgotten.filter(|_| is_safe && has_room && self.deduplicates) {
            let p = self.of(uid);
            self.broken('n', format!("publish {uid} was acked, and its id did not survive the crash: {p:?}"));
        }
        self.count("recovered");
        self.has_crashed = true;
        self.evicted(window, now, remembers);
        // Another copy of the key may be remembered, and this one was not written.
        for uid in 0..self.next_uid() {
            let p = self.of(uid);
            let key = self.key(p.what).filter(|key| key.0 == window && p.known.is_some());
            let unwritten =
                |key| self.oracle.as_ref().is_some_and(|old| old.was_unremembered(key, p.heard_at, now));
            if key.is_some_and(unwritten) {
                self.at(uid).evicted.get_or_insert(now);
            }
        }
    }

    /// What the window of a publish says of a duplicate.
    fn signal_of(&self, uid: Uid) -> OnDuplicate {
        let window = self.window_of(self.of(uid).what.exchange).filter(|_| self.deduplicates);
        window.map_or(OnDuplicate::Ack, |window| self.windows[window].on_duplicate)
    }

    /// (o): what was not forwarded is a duplicate. Its client has heard of that as the window says, before it hears that all is well.
    /// In a transaction (`committed`) there is no nack, and there may be no room for a return.
    fn judge_signal(&mut self, uid: Uid, committed: bool) {
        let (p, rule) = (self.of(uid), self.signal_of(uid));
        let is_missing = match rule {
            OnDuplicate::Ack => false,
            OnDuplicate::Nack => !committed,
            OnDuplicate::Return => !(p.told || committed && self.tight),
        };
        if p.forwarded.is_none() && p.allowed && is_missing {
            let text =
                format!("publish {uid} was not forwarded, and its client does not hear {rule:?}: {p:?}");
            self.broken('o', text);
        }
    }

    /// (o): the client hears by a return that a publish was a duplicate.
    pub fn told(&mut self, uid: Uid, link: LinkId, channel: u16) {
        let rule = self.signal_of(uid);
        let p = self.at(uid);
        let again = std::mem::replace(&mut p.told, true);
        if again
            || rule != OnDuplicate::Return
            || p.forwarded.is_some()
            || p.answered.is_some()
            || (p.link, p.channel) != (link, channel)
        {
            let text =
                format!("publish {uid} is said to be a duplicate on link {link} channel {channel}: {p:?}");
            self.broken('o', text);
        }
        self.count("client told by a return");
    }

    /// (f): the client gets a return.
    pub fn return_seen(&mut self, uid: Uid, link: LinkId, channel: u16) {
        let Some(p) = self.publishes.get_mut(uid as usize) else {
            return self.broken('f', format!("publish {uid} is returned, which nobody began"));
        };
        let again = std::mem::replace(&mut p.return_seen, true);
        if again
            || !p.mandatory
            || !p.returned
            || p.answered.is_some()
            || (p.link, p.channel) != (link, channel)
        {
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
            // Unread frames may be the rest of a message when the linger is over.
            let cut = given_up && !p.whole && self.end_of_linger(p).is_some();
            let held = cut || p.forwarded.is_none() && (given_up || self.is_cut_short(p.link, p.channel));
            let excused = p.returned || p.dropped || p.settled == Some(false) || held;
            promised
                && !excused
                && p.stored.is_none()
                && (self.is_lost_republish(*uid) || !self.stored_as_other(*uid))
                && !self.may_be_over(p.what)
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

    /// Whether it came after a publish for which its channel had to be closed, or may have been.
    fn is_after_wrong(&self, uid: Uid) -> bool {
        let p = self.of(uid);
        let place = |p: &Publish| (p.link, p.channel, p.era);
        let is_wrong = |p: &Publish| !p.allowed || self.may_be_over(p.what);
        self.publishes
            .iter()
            .take(uid as usize)
            .any(|earlier| place(earlier) == place(p) && is_wrong(earlier))
    }

    /// (r): what was begun when a window remembered a number of a later epoch was not forwarded. (One that a consumer publishes again is.)
    pub fn nothing_stale(&mut self) {
        let later = |p: &Publish, forwarded: Micros| {
            let (producer, epoch) = self.counts(p.what)?;
            let window = &self.windows[producer.0];
            let is_later = |q: &Publish| {
                self.counts(q.what).is_some_and(|(other, later)| other == producer && later > epoch)
                    && q.known.is_some_and(|known| known < p.begun && known + window.ttl > forwarded)
                    && q.evicted.is_none_or(|evicted| evicted > forwarded)
                    && !q.bypass
            };
            let judged = !window.late && !window.observe && !p.bypass && !p.beside;
            let later = self.publishes.iter().position(is_later).filter(|_| judged)?;
            Some(later)
        };
        let stale = self.publishes.iter().enumerate().find_map(|(uid, p)| {
            let unjudged = self.gave_up(uid as Uid) || self.is_unjudged(uid as Uid);
            Some((uid, later(p, p.forwarded.filter(|_| !unjudged)?)?))
        });
        if let Some((uid, later)) = stale.filter(|_| !self.has_crashed) {
            let [p, q] = [uid, later].map(|uid| &self.publishes[uid]);
            self.broken(
                'r',
                format!("publish {uid} is forwarded, and {later} is of a later epoch: {p:?}, {q:?}"),
            );
        }
    }

    fn stored_as_other(&self, uid: Uid) -> bool {
        let p = self.of(uid);
        let Some(key) = self.key(p.what).filter(|_| !p.bypass) else { return false };
        let mut copies = self.stored.get(&key).into_iter().flatten();
        let since =
            |other: &Uid| self.of(*other).stored >= Some(p.begun) && self.of(*other).edition == p.edition;
        copies.any(since) || self.original_of(uid).is_some() || self.is_kept_in_doubt(uid)
    }
}
