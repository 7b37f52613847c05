//! The records that a window has not seen written yet, and who waits for them.

use super::record::{Record, What};
use crate::window::{Claim, Key, Mailbox, Memo, Position};
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

/// The most records that wait for a store which is out of order. The oldest ones are dropped then: the store never learns of them. 60 MB.
pub(super) const MOST_WAITING: usize = 1 << 20;

/// The records of one window on their way to its store. Positions count records, from 1 on.
#[derive(Debug, Default)]
pub(super) struct Queue {
    inner: Mutex<Inner>,
    /// Everybody who waits for a position up to this one need not wait any more.
    settled: AtomicU64,
}

#[derive(Debug, Default)]
struct Inner {
    /// the records that nobody has taken yet
    waiting: VecDeque<Record>,
    /// those that were taken and are not written yet
    taken: VecDeque<Taken>,
    /// how many these are
    on_their_way: usize,
    /// the position of the last record
    last: u64,
    /// Commits that are not remembered yet: their claims are in flight.
    stored: VecDeque<Stored>,
    /// The keys of these commits.
    keys: HashMap<Key, Pending>,
    /// Commits up to this position were made before the window was flushed.
    flushed: u64,
    /// the sessions to call, and at which position
    calls: BTreeMap<(u64, u64), Weak<Mailbox>>,
    called: u64,
    /// wakes the writer
    waker: Option<Waker>,
    dropped: u64,
}

/// A commit that is not remembered yet.
#[derive(Clone, Copy, Debug)]
pub(super) struct Stored {
    position: u64,
    pub(super) claim: Claim,
    pub(super) memo: Memo,
    pub(super) at: Instant,
    /// It was disowned in the meantime.
    pub(super) is_disowned: bool,
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

/// What is to be known of a key whose commits are not remembered yet.
#[derive(Debug)]
struct Pending {
    commits: u32,
    /// Commits up to this position were disowned in the meantime.
    disowned: u64,
}

impl Queue {
    /// Adds records. Nobody waits for them.
    pub(super) fn push(&self, records: impl IntoIterator<Item = Record>, bound: usize) {
        let waker = {
            let mut inner = self.inner.lock();
            inner.extend(records, bound);
            inner.waker.take()
        };
        waker.into_iter().for_each(Waker::wake);
    }

    /// Adds commits that stay in flight until the store has them. Returns the position of the last one.
    pub(super) fn push_stored(&self, commits: &[(Claim, Memo)], at: Instant) -> Position {
        let (last, waker) = {
            let mut inner = self.inner.lock();
            for (claim, memo) in commits {
                inner.waiting.push_back(Record { at, what: What::Seen(*claim, *memo) });
                inner.last += 1;
                let position = inner.last;
                let Claim::Digest(key) = *claim;
                inner.keys.entry(key).or_insert(Pending { commits: 0, disowned: 0 }).commits += 1;
                let commit = Stored { position, claim: *claim, memo: *memo, at, is_disowned: false };
                inner.stored.push_back(commit);
            }
            (inner.last, inner.waker.take())
        };
        waker.into_iter().for_each(Waker::wake);
        Position(last)
    }

    /// Returns true if the message of this claim is stored, and its commit is not remembered yet.
    pub(super) fn is_stored(&self, Claim::Digest(key): Claim) -> bool {
        self.inner.lock().keys.contains_key(&key)
    }

    /// Notes that the commits of this claim which are not remembered yet are to be forgotten when they are.
    pub(super) fn disown(&self, Claim::Digest(key): Claim) {
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

    /// Takes the oldest records, at most this many, and the position of the last one.
    pub(super) fn take(&self, most: usize) -> Option<(Vec<Record>, Position)> {
        let mut inner = self.inner.lock();
        let count = inner.waiting.len().min(most);
        let position = inner.last - (inner.waiting.len() - count) as u64;
        let at = inner.waiting.front()?.at;
        if count == 0 {
            return None;
        }
        inner.taken.push_back(Taken { position, count, at });
        inner.on_their_way += count;
        Some((inner.waiting.drain(..count).collect(), Position(position)))
    }

    /// Notes that the store has everything up to this position.
    pub(super) fn written(&self, Position(position): Position) {
        let mut inner = self.inner.lock();
        while let Some(taken) = inner.taken.pop_front_if(|taken| taken.position <= position) {
            inner.on_their_way -= taken.count;
        }
    }

    /// Registers the waker of the writer. Returns true if there is something to take already.
    pub(super) fn register(&self, waker: &Waker) -> bool {
        let mut inner = self.inner.lock();
        if !inner.waiting.is_empty() {
            return true;
        }
        match &mut inner.waker {
            Some(old) if old.will_wake(waker) => {}
            slot => *slot = Some(waker.clone()),
        }
        false
    }

    /// Takes the commits up to this position, which need not be in flight any more.
    pub(super) fn take_stored(&self, Position(position): Position) -> Vec<Stored> {
        let mut inner = self.inner.lock();
        let mut taken = Vec::new();
        while let Some(mut commit) = inner.stored.pop_front_if(|commit| commit.position <= position) {
            let Claim::Digest(key) = commit.claim;
            commit.is_disowned = commit.position <= inner.flushed;
            if let Entry::Occupied(mut pending) = inner.keys.entry(key) {
                commit.is_disowned |= commit.position <= pending.get().disowned;
                pending.get_mut().commits -= 1;
                if pending.get().commits == 0 {
                    pending.remove();
                }
            }
            taken.push(commit);
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
        let oldest = inner.taken.front().map(|taken| taken.at);
        let oldest = oldest.or_else(|| inner.waiting.front().map(|record| record.at));
        (inner.on_their_way + inner.waiting.len(), oldest)
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
        inner.waiting.capacity() * size_of::<Record>()
            + inner.stored.capacity() * size_of::<Stored>()
            + inner.keys.capacity() * (size_of::<(Key, Pending)>() + 1)
    }
}

impl Inner {
    fn extend(&mut self, records: impl IntoIterator<Item = Record>, bound: usize) {
        for record in records {
            self.waiting.push_back(record);
            self.last += 1;
        }
        let surplus = self.waiting.len().saturating_sub(bound);
        self.waiting.drain(..surplus);
        self.dropped += surplus as u64;
    }
}
