//! The leases of a relay, and the publishes that wait for one. No lock of a table is taken here, and nothing is delivered.
//!
//! ```text
//!   ask ──▶ out ─────┬─ the lease is ours ──▶ held ──▶ committed, released, or lost
//!                    ├─ seen ───────────────▶ (look) ──▶ all who wait have their verdict
//!                    └─ another relay has it ▶ elsewhere ──▶ out, after a moment
//! ```

use super::question::{Question, Request};
use super::value::Lease;
use crate::window::key::KeyHash;
use crate::window::{Claim, Key, Mailbox, Ticket};
use parking_lot::Mutex;
use std::collections::hash_map::Entry;
use std::collections::{BTreeSet, HashMap, VecDeque};
use std::sync::{Arc, Weak};
use std::task::Waker;
use std::time::{Duration, Instant};

/// How soon Redis is asked again about an id that is in flight in another relay. The time doubles each time, up to the longest.
const FIRST_POLL: Duration = Duration::from_millis(1);
const LONGEST_POLL: Duration = Duration::from_millis(100);

/// The leases of a window.
#[derive(Debug, Default)]
pub(super) struct Leases {
    inner: Mutex<Inner>,
}

#[derive(Debug, Default)]
struct Inner {
    asked: HashMap<Key, Asked, KeyHash>,
    held: HashMap<Key, Held, KeyHash>,
    /// when Redis is asked again
    polls: BTreeSet<(Instant, Key)>,
    /// questions that the shell has not taken
    out: VecDeque<Question>,
    waker: Option<Waker>,
    serials: u64,
}

/// A key that Redis was asked about.
#[derive(Debug)]
struct Asked {
    claim: Claim,
    lease: Lease,
    waiters: VecDeque<Waiter>,
    /// `None`: a question is out
    elsewhere: Option<Elsewhere>,
    /// how often another relay had it
    tries: u32,
    /// Somebody has it forgotten. An answer that says "seen" may be older than that.
    is_doubted: bool,
}

/// Another relay has the key.
#[derive(Debug)]
struct Elsewhere {
    /// the value that Redis has
    value: Vec<u8>,
    again_at: Instant,
}

/// A publish that waits for a lease.
#[derive(Clone, Debug)]
pub(super) struct Waiter {
    pub(super) mailbox: Weak<Mailbox>,
    pub(super) ticket: Ticket,
    /// It knows that the id is in flight.
    pub(super) is_told: bool,
}

#[derive(Debug)]
struct Held {
    claim: Claim,
    lease: Lease,
    /// when it was got, or renewed
    since: Instant,
}

/// The answer to a publish that asks.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Joined {
    Pending,
    Elsewhere,
    Crowded,
}

impl Waiter {
    fn is(&self, mailbox: &Arc<Mailbox>, ticket: Ticket) -> bool {
        self.ticket == ticket && self.mailbox.as_ptr() == Arc::as_ptr(mailbox)
    }
}

impl Leases {
    /// Adds a publish to those that wait for a lease of this key, and asks for one if nobody has yet. The shell is not woken: the caller
    /// does that once for all publishes of a read, by [`Leases::wake`]. `is_told`: it knows already that the id is in flight. At most `bound` publishes wait while
    /// another relay has the key.
    pub(super) fn ask(
        &self,
        claim: Claim,
        keep: u64,
        (mailbox, ticket): (&Arc<Mailbox>, Ticket),
        is_told: bool,
        bound: usize,
    ) -> Joined {
        let (mut inner, key) = (self.inner.lock(), claim.key());
        let mut waiter = Waiter { mailbox: Arc::downgrade(mailbox), ticket, is_told };
        let Some(asked) = inner.asked.get_mut(&key) else {
            let lease = inner.draw(keep);
            let waiters = VecDeque::from([waiter]);
            inner
                .asked
                .insert(key, Asked { claim, lease, waiters, elsewhere: None, tries: 0, is_doubted: false });
            inner.out.push_back(Question { claim, lease, what: Request::Lease });
            return Joined::Pending;
        };
        if asked.tries == 0 {
            asked.waiters.push_back(waiter);
            return Joined::Pending;
        }
        if asked.waiters.len() >= bound {
            asked.waiters.retain(|waiter| waiter.mailbox.strong_count() > 0);
        }
        if asked.waiters.len() >= bound {
            return Joined::Crowded;
        }
        waiter.is_told = true;
        asked.waiters.push_back(waiter);
        Joined::Elsewhere
    }

    /// Asks for a lease for which nobody waits.
    pub(super) fn claim(&self, claim: Claim, keep: u64) {
        let mut inner = self.inner.lock();
        let lease = inner.draw(keep);
        inner.out.push_back(Question { claim, lease, what: Request::Lease });
    }

    /// Asks this, too.
    pub(super) fn push(&self, question: Question) {
        let waker = {
            let mut inner = self.inner.lock();
            inner.out.push_back(question);
            inner.waker.take()
        };
        waker.into_iter().for_each(Waker::wake);
    }

    /// Wakes the shell if there are questions.
    pub(super) fn wake(&self) {
        let waker = {
            let mut inner = self.inner.lock();
            if inner.out.is_empty() { None } else { inner.waker.take() }
        };
        waker.into_iter().for_each(Waker::wake);
    }

    /// Returns true if there are questions.
    pub(super) fn asks(&self) -> bool {
        !self.inner.lock().out.is_empty()
    }

    /// Takes the oldest questions, at most this many.
    pub(super) fn take(&self, most: usize) -> Vec<Question> {
        let mut inner = self.inner.lock();
        let count = inner.out.len().min(most);
        inner.out.drain(..count).collect()
    }

    /// Registers the waker of the shell. Returns true if there are questions already.
    pub(super) fn register(&self, waker: &Waker) -> bool {
        let mut inner = self.inner.lock();
        if !inner.out.is_empty() {
            return true;
        }
        match &mut inner.waker {
            Some(old) if old.will_wake(waker) => {}
            slot => *slot = Some(waker.clone()),
        }
        false
    }

    /// Puts questions back that were taken, before the others.
    pub(super) fn put_back(&self, questions: Vec<Question>) {
        let mut inner = self.inner.lock();
        for question in questions.into_iter().rev() {
            inner.out.push_front(question);
        }
    }

    /// Forgets all questions but those that give leases back: nobody else does that. A lease that was asked for counts as held, because
    /// Redis may have granted it and the answer was lost. Returns the keys for which publishes wait.
    pub(super) fn give_up(&self, unanswered: &[Question], now: Instant) -> Vec<(Claim, VecDeque<Waiter>)> {
        let mut inner = self.inner.lock();
        inner.out.retain(|question| question.what == Request::Release);
        for question in unanswered.iter().rev() {
            match question.what {
                Request::Release => inner.out.push_front(question.clone()),
                Request::Lease | Request::Replace(_) => {
                    let held = Held { claim: question.claim, lease: question.lease, since: now };
                    inner.held.entry(question.claim.key()).or_insert(held);
                }
                Request::Look | Request::Renew => {}
            }
        }
        inner.polls.clear();
        inner.asked.drain().map(|(_, asked)| (asked.claim, asked.waiters)).collect()
    }

    /// Returns true if somebody waits for this lease.
    pub(super) fn is_asked(&self, key: Key, lease: Lease) -> bool {
        self.inner.lock().asked.get(&key).is_some_and(|asked| asked.lease == lease)
    }

    /// Doubts what Redis says of a claim before it is asked again: somebody has the claim forgotten.
    pub(super) fn doubt(&self, claim: Claim) {
        let key = claim.key();
        self.inner.lock().asked.get_mut(&key).into_iter().for_each(|asked| asked.is_doubted = true);
    }

    /// Doubts it of all these claims.
    pub(super) fn doubt_all(&self, is_meant: impl Fn(Claim) -> bool) {
        let mut inner = self.inner.lock();
        let asked = inner.asked.values_mut().filter(|asked| is_meant(asked.claim));
        asked.for_each(|asked| asked.is_doubted = true);
    }

    /// Returns true if the answer to the question about this lease is doubted. The next answer is not.
    pub(super) fn is_doubted(&self, key: Key, lease: Lease) -> bool {
        let mut inner = self.inner.lock();
        let asked = inner.asked.get_mut(&key).filter(|asked| asked.lease == lease);
        asked.is_some_and(|asked| std::mem::take(&mut asked.is_doubted))
    }

    /// Ends the waiting for this lease. Returns those who have waited.
    pub(super) fn settle(&self, key: Key, lease: Lease) -> VecDeque<Waiter> {
        self.inner.lock().take(key, lease)
    }

    /// Notes that the lease is ours. If it is for a publish, its key is in flight already: a lease that is held of a key that is not in
    /// flight is one that nobody needs any more.
    pub(super) fn hold(&self, claim: Claim, lease: Lease, now: Instant) {
        self.inner.lock().held.insert(claim.key(), Held { claim, lease, since: now });
    }

    /// Notes that another relay has the key. Returns those who do not know it yet, and drops those who find no room.
    pub(super) fn is_elsewhere(
        &self,
        key: Key,
        lease: Lease,
        value: Vec<u8>,
        now: Instant,
        bound: usize,
    ) -> (Vec<Waiter>, Vec<Waiter>) {
        let mut inner = self.inner.lock();
        let Some(asked) = inner.asked.get_mut(&key).filter(|asked| asked.lease == lease) else {
            return Default::default();
        };
        asked.waiters.retain(|waiter| waiter.mailbox.strong_count() > 0);
        let crowd = asked.waiters.split_off(asked.waiters.len().min(bound));
        if asked.waiters.is_empty() {
            inner.asked.remove(&key);
            return (Vec::new(), crowd.into());
        }
        let untold: Vec<Waiter> = asked.waiters.iter().filter(|waiter| !waiter.is_told).cloned().collect();
        asked.waiters.iter_mut().for_each(|waiter| waiter.is_told = true);
        let pause = FIRST_POLL.saturating_mul(1 << asked.tries.min(10)).min(LONGEST_POLL);
        asked.tries += 1;
        asked.elsewhere = Some(Elsewhere { value, again_at: now + pause });
        inner.polls.insert((now + pause, key));
        (untold, crowd.into())
    }

    /// Asks for the lease of a key in place of the relay that has it. Returns false if nobody waits for that relay.
    pub(super) fn replace(&self, key: Key, queued: Option<(&Arc<Mailbox>, Ticket)>) -> bool {
        let waker = {
            let mut inner = self.inner.lock();
            let Some(asked) = inner.asked.get_mut(&key) else { return false };
            if let Some((mailbox, ticket)) = queued
                && !asked.waiters.iter().any(|waiter| waiter.is(mailbox, ticket))
            {
                return false;
            }
            let Some(Elsewhere { value, again_at }) = asked.elsewhere.take() else { return true };
            let (claim, lease) = (asked.claim, asked.lease);
            inner.polls.remove(&(again_at, key));
            inner.out.push_back(Question { claim, lease, what: Request::Replace(value) });
            inner.waker.take()
        };
        waker.into_iter().for_each(Waker::wake);
        true
    }

    /// Returns whether this publish waits for another relay: `Some(false)` if a question about its key is out.
    pub(super) fn waits_elsewhere(&self, key: Key, queued: Option<(&Arc<Mailbox>, Ticket)>) -> Option<bool> {
        let inner = self.inner.lock();
        let asked = inner.asked.get(&key)?;
        let waits = |(mailbox, ticket): (&Arc<Mailbox>, Ticket)| {
            asked.waiters.iter().any(|waiter| waiter.is(mailbox, ticket))
        };
        queued.is_none_or(waits).then_some(asked.tries > 0)
    }

    /// Removes a publish from those that wait.
    pub(super) fn leave(&self, key: Key, mailbox: &Arc<Mailbox>, ticket: Ticket) {
        let mut inner = self.inner.lock();
        let Some(asked) = inner.asked.get_mut(&key) else { return };
        asked.waiters.retain(|waiter| !waiter.is(mailbox, ticket));
        // If a question is out, its answer will find nobody.
        if asked.waiters.is_empty()
            && let Some(Elsewhere { again_at, .. }) = &asked.elsewhere
        {
            let poll = (*again_at, key);
            inner.polls.remove(&poll);
            inner.asked.remove(&key);
        }
    }

    /// Forgets the leases of these claims: a commit takes their place in Redis.
    pub(super) fn committed(&self, claims: impl Iterator<Item = Claim>) {
        let mut inner = self.inner.lock();
        for claim in claims {
            inner.held.remove(&claim.key());
        }
    }

    /// Returns true if a lease of this key is held.
    pub(super) fn is_held(&self, key: Key) -> bool {
        self.inner.lock().held.contains_key(&key)
    }

    /// Returns the lease of this key that is held.
    pub(super) fn of(&self, key: Key) -> Option<Lease> {
        self.inner.lock().held.get(&key).map(|held| held.lease)
    }

    /// Gives this lease of a key back. If another one is held by now, that one stays: a later publish has it.
    pub(super) fn release(&self, key: Key, lease: Lease) {
        let released = {
            let mut inner = self.inner.lock();
            let is_held = inner.held.get(&key).is_some_and(|held| held.lease == lease);
            if is_held { inner.held.remove(&key) } else { None }
        };
        if let Some(Held { claim, lease, .. }) = released {
            self.push(Question { claim, lease, what: Request::Release });
        }
    }

    /// Notes that another relay has this lease now, or that the key is seen.
    pub(super) fn lost(&self, key: Key, lease: Lease) {
        let mut inner = self.inner.lock();
        if inner.held.get(&key).is_some_and(|held| held.lease == lease) {
            inner.held.remove(&key);
        }
    }

    /// Returns the keys of leases that are older than this.
    pub(super) fn older(&self, age: Duration, now: Instant) -> Vec<Key> {
        let inner = self.inner.lock();
        inner.held.iter().filter(|(_, held)| now >= held.since + age).map(|(key, _)| *key).collect()
    }

    /// Renews leases that are older than this.
    pub(super) fn renew(&self, age: Duration, now: Instant) {
        let waker = {
            let mut inner = self.inner.lock();
            let Inner { held, out, waker, .. } = &mut *inner;
            for held in held.values_mut().filter(|held| now >= held.since + age) {
                held.since = now;
                out.push_back(Question { claim: held.claim, lease: held.lease, what: Request::Renew });
            }
            if out.is_empty() { None } else { waker.take() }
        };
        waker.into_iter().for_each(Waker::wake);
    }

    /// Asks again about the keys whose time has come.
    pub(super) fn poll(&self, now: Instant) {
        let mut inner = self.inner.lock();
        while let Some(poll @ (_, key)) = inner.polls.first().copied().filter(|(at, _)| *at <= now) {
            inner.polls.remove(&poll);
            let Some(asked) = inner.asked.get_mut(&key) else { continue };
            asked.elsewhere = None;
            let (claim, lease) = (asked.claim, asked.lease);
            inner.out.push_back(Question { claim, lease, what: Request::Lease });
        }
    }

    /// Returns when the next key is to be asked about again.
    pub(super) fn next_poll(&self) -> Option<Instant> {
        self.inner.lock().polls.first().map(|(at, _)| *at)
    }

    /// Returns the number of publishes that wait.
    pub(super) fn waiting(&self) -> usize {
        self.inner.lock().asked.values().map(|asked| asked.waiters.len()).sum()
    }

    /// Returns the number of leases that are held.
    pub(super) fn held(&self) -> usize {
        self.inner.lock().held.len()
    }

    /// Estimates the bytes on the heap.
    pub(super) fn bytes(&self) -> usize {
        let inner = self.inner.lock();
        inner.asked.capacity() * (size_of::<(Key, Asked)>() + size_of::<Waiter>() + 1)
            + inner.held.capacity() * (size_of::<(Key, Held)>() + 1)
            + inner.out.capacity() * size_of::<Question>()
    }
}

impl Inner {
    fn draw(&mut self, keep: u64) -> Lease {
        self.serials += 1;
        Lease { serial: self.serials, keep }
    }

    fn take(&mut self, key: Key, lease: Lease) -> VecDeque<Waiter> {
        match self.asked.entry(key) {
            Entry::Occupied(asked) if asked.get().lease == lease => {
                let asked = asked.remove();
                if let Some(Elsewhere { again_at, .. }) = asked.elsewhere {
                    self.polls.remove(&(again_at, key));
                }
                asked.waiters
            }
            Entry::Occupied(_) | Entry::Vacant(_) => VecDeque::new(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A publish has given up its lease, and a later one has got its own before that was noted. Without its lease, another relay would let
    /// the same id through.
    #[test]
    #[expect(clippy::disallowed_methods, reason = "one instant, which nothing compares")]
    fn only_the_lease_that_somebody_has_had_is_given_back() {
        let (leases, claim, now) = (Leases::default(), Claim::Digest(Key(7)), Instant::now());
        let [first, second] = [1, 2].map(|serial| Lease { serial, keep: 0 });
        leases.hold(claim, first, now);
        assert_eq!(leases.of(claim.key()), Some(first));
        leases.hold(claim, second, now);
        leases.release(claim.key(), first);
        assert_eq!((leases.of(claim.key()), leases.asks()), (Some(second), false));
        leases.release(claim.key(), second);
        let question = Question { claim, lease: second, what: Request::Release };
        assert_eq!((leases.of(claim.key()), leases.take(9)), (None, vec![question]));
    }
}
