//! The records that a window has not seen written yet, and who waits for them.

use super::record::{Record, What};
use crate::window::key::KeyHash;
use crate::window::{Claim, Commit, Key, Mailbox, Memo, Position, ProducerKey};
use parking_lot::Mutex;
use std::collections::hash_map::Entry;
use std::collections::{BTreeMap, HashMap, VecDeque};
use std::sync::atomic::{
    AtomicU64,
    Ordering::{Acquire, Release},
};
use std::sync::{Arc, Weak};
use std::task::Waker;
use std::time::Instant;

/// The most records that wait for a store which is out of order, or slower than the publishers. 60 MB.
pub(super) const MOST_WAITING: usize = 1 << 20;
/// The most records that are kept when more than [`MOST_WAITING`] wait, because without them the store would remember too much.
const MOST_KEPT: usize = 1 << 16;

/// The records of one window on their way to its store. Positions count records, from 1 on.
#[derive(Debug, Default)]
pub(super) struct Queue {
    inner: Mutex<Inner>,
    /// Everybody who waits for a position up to this one need not wait any more.
    settled: AtomicU64,
}

#[derive(Debug, Default)]
struct Inner {
    /// Records that are older than all in `waiting`, and without which the store would remember too much. The others around them were
    /// dropped.
    kept: VecDeque<Record>,
    /// the records that nobody has taken yet
    waiting: VecDeque<Record>,
    /// those that were taken and are not written yet
    taken: VecDeque<Taken>,
    /// how many these are
    on_their_way: usize,
    /// the position of the last record that was taken
    taken_to: u64,
    /// The store has everything up to this position.
    written_to: u64,
    /// Somebody waits for the record at this position, who does not commit.
    urgent: u64,
    /// the position of the last record
    last: u64,
    /// when the last record was made
    latest: Option<Instant>,
    /// Commits that are not remembered yet: their claims are in flight.
    stored: VecDeque<Stored>,
    /// The keys of these commits.
    keys: HashMap<Key, Pending, KeyHash>,
    /// Commits up to this position were made before the window was flushed.
    flushed: u64,
    /// the sessions to call, and at which position
    calls: BTreeMap<(u64, u64), Weak<Mailbox>>,
    called: u64,
    /// wakes the writer
    waker: Option<Alarm>,
    dropped: u64,
}

/// The waker of a writer, and what it waits for.
#[derive(Debug)]
struct Alarm {
    waker: Waker,
    /// It collects records, and only one that somebody waits for is a reason to write at once.
    only_urgent: bool,
}

/// A commit that is not remembered yet.
#[derive(Clone, Copy, Debug)]
pub(super) struct Stored {
    position: u64,
    pub(super) commit: Commit,
    pub(super) at: Instant,
    /// Nobody knows whether its message is stored.
    pub(super) in_doubt: bool,
    /// It was disowned in the meantime.
    pub(super) is_disowned: bool,
}

impl Stored {
    /// Returns true if both can become seen together.
    pub(super) fn is_alike(&self, other: &Stored) -> bool {
        let kind = |commit: &Stored| (commit.at, commit.in_doubt, commit.is_disowned);
        kind(self) == kind(other)
    }
}

/// Records that were taken together.
#[derive(Clone, Copy, Debug)]
struct Taken {
    /// the position of the last one
    position: u64,
    count: usize,
    /// when the oldest one was made
    at: Instant,
}

/// The commits of a key that are not remembered yet.
#[derive(Debug)]
struct Pending {
    commits: u32,
    /// Commits up to this position were disowned in the meantime.
    disowned: u64,
}

impl Queue {
    /// Adds records. Nobody waits for them, so if more than `bound` wait, old ones are dropped.
    pub(super) fn push(&self, records: impl IntoIterator<Item = Record>, bound: usize) {
        self.add(bound, |inner| records.into_iter().for_each(|record| inner.push(record)));
    }

    /// Adds a record that somebody waits for. Returns its position.
    pub(super) fn push_urgent(&self, record: Record, bound: usize) -> Position {
        self.add(bound, |inner| {
            inner.push(record);
            inner.urgent = inner.last;
        })
    }

    /// Returns true if somebody waits for a record that nobody has taken yet, and that is no commit.
    pub(super) fn is_urgent(&self) -> bool {
        self.inner.lock().is_urgent()
    }

    /// Adds commits that stay in flight until the store has them. Returns the position of the last one.
    pub(super) fn push_stored(
        &self,
        commits: &[Commit],
        at: Instant,
        in_doubt: bool,
        bound: usize,
    ) -> Position {
        self.add(bound, |inner| {
            for &commit in commits {
                inner.push(Record { at, what: What::Seen(commit.claim, commit.memo) });
                let (position, key) = (inner.last, commit.claim.key());
                inner.keys.entry(key).or_insert(Pending { commits: 0, disowned: 0 }).commits += 1;
                inner.stored.push_back(Stored { position, commit, at, in_doubt, is_disowned: false });
            }
        })
    }

    /// Adds what `push` pushes, drops old records if more than `bound` wait, and wakes the writer. Returns the position of the last
    /// record.
    fn add(&self, bound: usize, push: impl FnOnce(&mut Inner)) -> Position {
        let (last, waker) = {
            let mut inner = self.inner.lock();
            push(&mut inner);
            inner.make_room(bound);
            (inner.last, inner.take_waker())
        };
        waker.into_iter().for_each(Waker::wake);
        Position(last)
    }

    /// Returns true if the message of this claim is stored, and its commit is not remembered yet.
    pub(super) fn is_stored(&self, claim: Claim) -> bool {
        self.inner.lock().keys.contains_key(&claim.key())
    }

    /// Calls `then` with the answer to [`Queue::is_stored`], which stays true until `then` has returned. If `then` says so, the claim is to
    /// be forgotten: no record of it comes in between.
    pub(super) fn settle_flight<T>(
        &self,
        claim: Claim,
        bound: usize,
        then: impl FnOnce(bool, &mut bool) -> T,
    ) -> T {
        let key = claim.key();
        let mut is_forgotten = false;
        let (result, waker) = {
            let mut inner = self.inner.lock();
            let result = then(inner.keys.contains_key(&key), &mut is_forgotten);
            // It was forgotten before, when its flight began, so there was a record.
            let waker = inner.latest.filter(|_| is_forgotten).and_then(|at| {
                inner.push(Record { at, what: What::Forgotten(claim) });
                inner.make_room(bound);
                inner.take_waker()
            });
            (result, waker)
        };
        waker.into_iter().for_each(Waker::wake);
        result
    }

    /// Notes that the commits of this claim which are not remembered yet are to be forgotten when they are.
    pub(super) fn disown(&self, claim: Claim) {
        let key = claim.key();
        let mut inner = self.inner.lock();
        let last = inner.last;
        if let Some(pending) = inner.keys.get_mut(&key) {
            pending.disowned = last;
        }
    }

    /// Notes the same for all claims.
    pub(super) fn flush(&self) {
        let mut inner = self.inner.lock();
        inner.flushed = inner.last;
    }

    /// Notes the same for the claims of a producer.
    pub(super) fn disown_producer(&self, producer: ProducerKey) {
        let mut inner = self.inner.lock();
        for stored in &mut inner.stored {
            stored.is_disowned |= stored.commit.claim.is_of(producer);
        }
    }

    /// Returns the claims that are seen by records which nobody has taken yet, oldest first: with the commit of each. With a producer,
    /// only its claims.
    pub(super) fn seen_unwritten(&self, of: Option<ProducerKey>) -> Vec<(Claim, Instant, Memo)> {
        let inner = self.inner.lock();
        let mut seen: HashMap<Key, (usize, Claim, Instant, Memo), KeyHash> = HashMap::default();
        for (place, record) in inner.waiting.iter().enumerate() {
            match record.what {
                What::Seen(claim, memo) | What::Touched(claim, memo) => {
                    seen.insert(claim.key(), (place, claim, record.at, memo));
                }
                What::Forgotten(claim) => drop(seen.remove(&claim.key())),
                What::ProducerForgotten(producer) => seen.retain(|_, (_, claim, ..)| !claim.is_of(producer)),
                What::Flushed => seen.clear(),
                What::Producer(_) | What::Changed(_) => {}
            }
        }
        let is_seen = |(key, (_, claim, ..)): &(Key, (usize, Claim, Instant, Memo))| {
            !inner.keys.contains_key(key) && of.is_none_or(|producer| claim.is_of(producer))
        };
        let mut seen: Vec<_> = seen.into_iter().filter(is_seen).collect();
        seen.sort_unstable_by_key(|(_, (place, ..))| *place);
        seen.into_iter().map(|(_, (_, claim, at, memo))| (claim, at, memo)).collect()
    }

    /// Takes the oldest records, at most this many, and the position of the last one.
    pub(super) fn take(&self, most: usize) -> Option<(Vec<Record>, Position)> {
        let mut inner = self.inner.lock();
        let from_kept = inner.kept.len().min(most);
        let count = inner.waiting.len().min(most - from_kept);
        let at = inner.kept.front().or(inner.waiting.front())?.at;
        if from_kept + count == 0 {
            return None;
        }
        let mut records: Vec<Record> = inner.kept.drain(..from_kept).collect();
        records.extend(inner.waiting.drain(..count));
        // (While some are kept, nothing after them is taken.)
        if inner.kept.is_empty() {
            inner.taken_to = inner.last - inner.waiting.len() as u64;
        }
        let position = inner.taken_to;
        inner.taken.push_back(Taken { position, count: records.len(), at });
        inner.on_their_way += records.len();
        Some((records, Position(position)))
    }

    /// Notes that the store has everything up to this position.
    pub(super) fn written(&self, Position(position): Position) {
        let mut inner = self.inner.lock();
        inner.written_to = inner.written_to.max(position);
        while let Some(taken) = inner.taken.pop_front_if(|taken| taken.position <= position) {
            inner.on_their_way -= taken.count;
        }
    }

    /// Returns true if the store has everything up to this position.
    pub(super) fn is_written(&self, Position(position): Position) -> bool {
        self.inner.lock().written_to >= position
    }

    /// Returns true if there is something to take.
    pub(super) fn has_waiting(&self) -> bool {
        self.inner.lock().has_waiting()
    }

    /// Registers the waker of the writer. Returns true if there is something to take already.
    pub(super) fn register(&self, waker: &Waker) -> bool {
        self.register_for(waker, false, Inner::has_waiting)
    }

    /// Registers the waker of a writer that collects records. Returns true if somebody waits for one of them already.
    pub(super) fn register_urgent(&self, waker: &Waker) -> bool {
        self.register_for(waker, true, Inner::is_urgent)
    }

    fn register_for(&self, waker: &Waker, only_urgent: bool, is_there: impl FnOnce(&Inner) -> bool) -> bool {
        let mut inner = self.inner.lock();
        if is_there(&inner) {
            return true;
        }
        match &mut inner.waker {
            Some(old) if old.waker.will_wake(waker) => old.only_urgent = only_urgent,
            slot => *slot = Some(Alarm { waker: waker.clone(), only_urgent }),
        }
        false
    }

    /// Takes the oldest commits up to this position, at most this many. They need not be in flight any more.
    pub(super) fn take_stored(&self, Position(position): Position, most: usize) -> Vec<Stored> {
        let mut inner = self.inner.lock();
        let mut taken = Vec::new();
        while taken.len() < most
            && let Some(mut stored) = inner.stored.pop_front_if(|stored| stored.position <= position)
        {
            let key = stored.commit.claim.key();
            stored.is_disowned |= stored.position <= inner.flushed;
            if let Entry::Occupied(mut pending) = inner.keys.entry(key) {
                stored.is_disowned |= stored.position <= pending.get().disowned;
                pending.get_mut().commits -= 1;
                if pending.get().commits == 0 {
                    pending.remove();
                }
            }
            taken.push(stored);
        }
        taken
    }

    /// Lets everybody go on who waits for a position up to this one.
    pub(super) fn settle(&self, Position(position): Position) {
        self.settled.fetch_max(position, Release);
        let due = {
            let mut inner = self.inner.lock();
            let later = inner.calls.split_off(&(position.saturating_add(1), 0));
            std::mem::replace(&mut inner.calls, later)
        };
        due.values().filter_map(Weak::upgrade).for_each(|mailbox| mailbox.call());
    }

    /// Returns the position up to which nobody has to wait any more.
    pub(super) fn settled(&self) -> Position {
        Position(self.settled.load(Acquire))
    }

    /// Calls this mailbox when the position is settled.
    pub(super) fn tell_when(&self, position: Position, mailbox: &Arc<Mailbox>) {
        {
            let mut inner = self.inner.lock();
            if self.settled() < position {
                inner.called += 1;
                let place = (position.0, inner.called);
                inner.calls.insert(place, Arc::downgrade(mailbox));
                return;
            }
        }
        mailbox.call();
    }

    /// Returns the position of the last record.
    pub(super) fn last(&self) -> Position {
        Position(self.inner.lock().last)
    }

    /// Returns the number of records that the store does not have yet, and when the oldest one was made.
    pub(super) fn waiting(&self) -> (usize, Option<Instant>) {
        let inner = self.inner.lock();
        let waiting = || inner.kept.front().or(inner.waiting.front()).map(|record| record.at);
        let oldest = inner.taken.front().map(|taken| taken.at).or_else(waiting);
        (inner.on_their_way + inner.kept.len() + inner.waiting.len(), oldest)
    }

    /// Returns the number of commits that are not remembered yet.
    pub(super) fn stored(&self) -> usize {
        self.inner.lock().stored.len()
    }

    /// Returns how many records the store will never learn of.
    pub(super) fn dropped(&self) -> u64 {
        self.inner.lock().dropped
    }

    /// Estimates the bytes on the heap.
    pub(super) fn bytes(&self) -> usize {
        let inner = self.inner.lock();
        (inner.kept.capacity() + inner.waiting.capacity()) * size_of::<Record>()
            + inner.stored.capacity() * size_of::<Stored>()
            + inner.keys.capacity() * (size_of::<(Key, Pending)>() + 1)
    }
}

impl Inner {
    fn has_waiting(&self) -> bool {
        !self.waiting.is_empty() || !self.kept.is_empty()
    }

    fn is_urgent(&self) -> bool {
        self.urgent > self.taken_to
    }

    /// Takes the waker of the writer, if it is to be woken now.
    fn take_waker(&mut self) -> Option<Waker> {
        let is_urgent = self.is_urgent();
        self.waker.take_if(|alarm| is_urgent || !alarm.only_urgent).map(|alarm| alarm.waker)
    }

    fn push(&mut self, record: Record) {
        self.latest = Some(record.at);
        self.waiting.push_back(record);
        self.last += 1;
    }

    /// Drops the oldest records if more than `bound` wait. A commit that a client waits for stays. Records that make ids unknown
    /// are kept: a store that does not learn of them would take a new message for a duplicate. If there are too many of them, one record
    /// makes the store forget everything.
    fn make_room(&mut self, bound: usize) {
        let surplus = self.waiting.len().saturating_sub(bound);
        if surplus == 0 {
            return;
        }
        let first = self.last + 1 - self.waiting.len() as u64;
        let awaited = self.stored.front().map_or(u64::MAX, |oldest| oldest.position);
        let droppable = usize::try_from(awaited.saturating_sub(first)).unwrap_or(usize::MAX);
        for record in self.waiting.drain(..surplus.min(droppable)) {
            match record.what {
                What::Seen(..) | What::Touched(..) => self.dropped += 1,
                What::Forgotten(_) | What::ProducerForgotten(_) | What::Changed(_)
                    if self.kept.len() < MOST_KEPT =>
                {
                    self.kept.push_back(record);
                }
                What::Producer(_) => self.dropped += 1,
                What::Forgotten(_) | What::ProducerForgotten(_) | What::Flushed | What::Changed(_) => {
                    self.dropped += self.kept.len() as u64;
                    self.kept.clear();
                    self.kept.push_back(Record { at: record.at, what: What::Flushed });
                }
            }
        }
    }
}
