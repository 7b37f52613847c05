//! What is in flight: keys that were forwarded and whose outcome is not known, each with those that wait for it.
//!
//! The table is in shards, and the lock of a key's shard is *the* lock of that key: whoever asks the engine for a key or
//! changes it there holds it. So reserve, commit and rollback of one key never interleave.
//!
//! Nothing that can call back is done here: a waiter is handed out as `(mailbox, ticket)`, and the caller delivers when
//! the lock is released. (A letter that is dropped may hold a reservation, whose drop takes the lock.)
//!
//! A key may be taken over from a reservation that lives on. So each reservation has a [`Turn`]: the one whose turn is the
//! flight's has the key, any other was *overtaken*. An overtaken reservation still counts until its outcome is known, and has
//! the key again if the one that took it over is given up.

use super::key::KeyHash;
use super::{CacheAligned, Key, Mailbox, Ticket, Turn};
use parking_lot::{Mutex, MutexGuard};
use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::{Arc, Weak};
use std::time::Instant;

/// A power of two. One lock per shard; contention falls with their number.
const SHARDS: usize = Key::LOCKS;

/// The keys of one lock.
#[derive(Debug, Default)]
pub(super) struct Shard {
    pub(super) flights: HashMap<Key, Flight, KeyHash>,
    turns: Turns,
    /// Reservations whose key is another's by now, or nobody's.
    overtaken: usize,
}

/// Draws turns. None is drawn twice for a key: a key has one shard.
#[derive(Debug, Default)]
pub(super) struct Turns(u64);

impl Turns {
    pub(super) fn draw(&mut self) -> Turn {
        self.0 += 1;
        Turn(self.0)
    }
}

impl Shard {
    /// The table, and the turns for what is put in flight there.
    pub(super) fn parts(&mut self) -> (&mut HashMap<Key, Flight, KeyHash>, &mut Turns) {
        (&mut self.flights, &mut self.turns)
    }

    /// The outcome of a reservation of this key is known: stored. It need not be the reservation that has the key now; then
    /// the other one is overtaken in its place, so their number stays.
    pub(super) fn stored(&mut self, key: Key) -> Option<Flight> {
        let flight = self.flights.remove(&key);
        if flight.is_none() {
            self.overtaken = self.overtaken.saturating_sub(1);
        }
        flight
    }

    /// The reservation of this turn was given up. If it had overtaken one whose outcome is still open, that one has the key
    /// again: what it stores must not be stored a second time. Otherwise the oldest waiter has it from now on; without one,
    /// nobody has.
    pub(super) fn pass_on(&mut self, key: Key, turn: Turn) -> Option<(Arc<Mailbox>, Ticket, Turn)> {
        let Some(flight) = self.flights.get_mut(&key).filter(|flight| flight.turn() == turn) else {
            self.overtaken = self.overtaken.saturating_sub(1);
            self.flights.get_mut(&key).into_iter().for_each(|flight| flight.no_longer_overtaken(turn));
            return None;
        };
        if flight.goes_back() {
            self.overtaken = self.overtaken.saturating_sub(1);
            return None;
        }
        let Some((mailbox, ticket)) = flight.next() else {
            self.flights.remove(&key);
            return None;
        };
        let next = self.turns.draw();
        flight.begin(next, Since::Unknown);
        Some((mailbox, ticket, next))
    }

    /// A publish takes the key over from who has it. `queued`: it leaves the queue for that. Otherwise it found no room there.
    pub(super) fn take_over(
        &mut self,
        key: Key,
        since: Instant,
        now: Instant,
        queued: Option<(&Arc<Mailbox>, Ticket)>,
    ) -> Taken {
        let Some(flight) = self.flights.get_mut(&key) else { return Taken::Answered };
        if let Some((mailbox, ticket)) = queued
            && !flight.is_queued(mailbox, ticket)
        {
            return Taken::Answered;
        }
        if let Some(since) = flight.patience(since, now) {
            return Taken::Wait { since };
        }
        if let Some((mailbox, ticket)) = queued {
            flight.leave(mailbox, ticket);
        }
        let turn = self.turns.draw();
        flight.overtake();
        flight.begin(turn, Since::At(now));
        self.overtaken += 1;
        Taken::Granted(turn)
    }
}

/// See [`TakeOver`](super::TakeOver); the reservation is made without the lock.
pub(super) enum Taken {
    Granted(Turn),
    Wait { since: Instant },
    Answered,
}

/// All keys in flight.
#[derive(Debug)]
pub(super) struct Flights {
    shards: Box<[CacheAligned<Mutex<Shard>>]>,
}

impl Flights {
    pub(super) fn new() -> Flights {
        Flights { shards: std::iter::repeat_with(CacheAligned::default).take(SHARDS).collect() }
    }

    /// Locks this key.
    pub(super) fn lock(&self, key: Key) -> MutexGuard<'_, Shard> {
        self.shards[key.shard(SHARDS)].lock()
    }

    /// Reservations whose outcome is not known, those that were overtaken included.
    pub(super) fn len(&self) -> usize {
        let outstanding = |shard: &Shard| shard.flights.len() + shard.overtaken;
        self.shards.iter().map(|shard| outstanding(&shard.lock())).sum()
    }

    /// Of the tables; the queues of waiters are bounded by the sessions that wait.
    pub(super) fn bytes(&self) -> usize {
        let slot = size_of::<(Key, Flight)>() + 1;
        self.shards
            .iter()
            .map(|shard| {
                size_of::<CacheAligned<Mutex<Shard>>>() + shard.lock().flights.capacity() * 8 / 7 * slot
            })
            .sum()
    }
}

/// One key in flight: the reservation of this turn has it, and these wait. A flight without waiters is a null pointer and a
/// number: with its key it is half a cache line.
#[derive(Debug)]
pub(super) struct Flight {
    waiters: Option<Box<Waiters>>,
    /// The turn, times two; one more while the content of its publish is not whole.
    turn: u64,
}

const _: () = assert!(size_of::<(Key, Flight)>() == 32);

/// Who waits. Weak: a session that is gone leaves its place behind if it had no time to leave the queue.
#[derive(Debug, Default)]
struct Waiters {
    /// By the order in which they came.
    queue: BTreeMap<u64, (Weak<Mailbox>, Ticket)>,
    /// Where each of them is in the queue. (An address is not used again while the queue holds on to it.)
    places: BTreeMap<(usize, Ticket), u64>,
    came: u64,
    /// Who had the key before, and whose outcome is still open. Later turns are larger.
    overtaken: BTreeSet<Turn>,
    since: Since,
    /// Somebody found no room here since it was asked for last.
    crowded: bool,
}

/// From when on the key is its holder's.
#[derive(Clone, Copy, Default, Debug)]
enum Since {
    /// Before anybody waited.
    #[default]
    Always,
    /// It is the second or a later one.
    At(Instant),
    /// Likewise, but nobody has looked at a clock since.
    Unknown,
}

impl Since {
    /// It is so late at least.
    fn seen(&mut self, now: Instant) {
        if matches!(self, Since::Unknown) {
            *self = Since::At(now);
        }
    }
}

impl Waiters {
    fn pop(&mut self) -> Option<(Weak<Mailbox>, Ticket)> {
        let (_, (mailbox, ticket)) = self.queue.pop_first()?;
        self.places.remove(&(mailbox.as_ptr().addr(), ticket));
        Some((mailbox, ticket))
    }
}

impl Flight {
    pub(super) fn new(turn: Turn) -> Flight {
        Flight { waiters: None, turn: turn.0 << 1 }
    }

    fn turn(&self) -> Turn {
        Turn(self.turn >> 1)
    }

    fn begin(&mut self, turn: Turn, since: Since) {
        self.turn = turn.0 << 1;
        self.waiters.get_or_insert_default().since = since;
    }

    /// Who has the key loses it, and is remembered.
    fn overtake(&mut self) {
        let turn = self.turn();
        self.waiters.get_or_insert_default().overtaken.insert(turn);
    }

    /// If this turn was overtaken, it never gets the key again.
    fn no_longer_overtaken(&mut self, turn: Turn) {
        if let Some(waiters) = &mut self.waiters {
            waiters.overtaken.remove(&turn);
        }
    }

    /// Who was overtaken last has the key again, if anybody was. Those who wait are as patient as they were.
    fn goes_back(&mut self) -> bool {
        let Some(turn) = self.waiters.as_mut().and_then(|waiters| waiters.overtaken.pop_last()) else {
            return false;
        };
        self.turn = turn.0 << 1;
        true
    }

    /// Whether the content of the publish that has the key is not whole.
    pub(super) fn is_uploading(&self) -> bool {
        self.turn & 1 == 1
    }

    /// The reservation of this turn says that its content is not whole, or that it is.
    pub(super) fn set_uploading(&mut self, turn: Turn, uploading: bool) {
        if self.turn() == turn {
            self.turn = turn.0 << 1 | u64::from(uploading);
        }
    }

    /// Whether the reservation of this turn has the key and somebody waits for it, or has found no room to wait since this
    /// was asked last.
    pub(super) fn is_awaited(&mut self, turn: Turn) -> bool {
        let awaited =
            |waiters: &mut Box<Waiters>| std::mem::take(&mut waiters.crowded) || !waiters.queue.is_empty();
        self.turn() == turn && self.waiters.as_mut().is_some_and(awaited)
    }

    /// From when on somebody who has waited since `since` has to be patient anew, if it has to.
    fn patience(&mut self, since: Instant, now: Instant) -> Option<Instant> {
        if self.is_uploading() {
            return Some(now);
        }
        let waiters = self.waiters.as_mut()?;
        waiters.since.seen(now);
        match waiters.since {
            Since::At(at) if at > since => Some(at),
            Since::At(_) | Since::Always | Since::Unknown => None,
        }
    }

    /// Takes a place at the end, or says that there is none. The dead at the front do not count.
    pub(super) fn queue(
        &mut self,
        mailbox: &Arc<Mailbox>,
        ticket: Ticket,
        bound: usize,
        now: Instant,
    ) -> bool {
        let waiters = &mut **self.waiters.get_or_insert_default();
        waiters.since.seen(now);
        let is_dead = |first: &(Weak<Mailbox>, Ticket)| first.0.strong_count() == 0;
        while waiters.queue.len() >= bound && waiters.queue.values().next().is_some_and(is_dead) {
            waiters.pop();
        }
        let room = waiters.queue.len() < bound;
        if room {
            waiters.came += 1;
            waiters.queue.insert(waiters.came, (Arc::downgrade(mailbox), ticket));
            waiters.places.insert((Arc::as_ptr(mailbox).addr(), ticket), waiters.came);
        } else {
            waiters.crowded = true;
        }
        room
    }

    /// Whether it waits, and has not been called yet.
    pub(super) fn is_queued(&self, mailbox: &Arc<Mailbox>, ticket: Ticket) -> bool {
        let place = (Arc::as_ptr(mailbox).addr(), ticket);
        self.waiters.as_ref().is_some_and(|waiters| waiters.places.contains_key(&place))
    }

    /// Gives a place up; nothing happens if it was already called.
    pub(super) fn leave(&mut self, mailbox: &Arc<Mailbox>, ticket: Ticket) {
        if let Some(waiters) = &mut self.waiters
            && let Some(place) = waiters.places.remove(&(Arc::as_ptr(mailbox).addr(), ticket))
        {
            waiters.queue.remove(&place);
        }
    }

    /// The oldest that still lives.
    fn next(&mut self) -> Option<(Arc<Mailbox>, Ticket)> {
        let waiters = &mut **self.waiters.as_mut()?;
        while let Some((mailbox, ticket)) = waiters.pop() {
            if let Some(mailbox) = mailbox.upgrade() {
                return Some((mailbox, ticket));
            }
        }
        None
    }

    /// All that still live, oldest first.
    pub(super) fn into_waiters(self) -> Vec<(Arc<Mailbox>, Ticket)> {
        let Some(waiters) = self.waiters else { return Vec::new() };
        waiters
            .queue
            .into_values()
            .filter_map(|(mailbox, ticket)| Some((mailbox.upgrade()?, ticket)))
            .collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[expect(clippy::disallowed_methods, reason = "an instant; no test looks at how late it is")]
    fn base() -> Instant {
        Instant::now()
    }

    /// A `Wait` keeps its mailbox alive and leaves when it is dropped, so the dead are rare; but they happen when a
    /// session ends between two of these.
    #[test]
    fn the_dead_are_passed_over_and_take_no_place() {
        let (dead, alive) = (Arc::new(Mailbox::new()), Arc::new(Mailbox::new()));
        let (mut flight, now) = (Flight::new(Turn(1)), base());
        assert!(flight.queue(&dead, Ticket(1), 2, now) && flight.queue(&alive, Ticket(2), 2, now));
        assert!(!flight.queue(&alive, Ticket(3), 2, now));
        drop(dead);
        assert!(flight.queue(&alive, Ticket(4), 2, now));
        flight.leave(&Arc::new(Mailbox::new()), Ticket(2));
        assert_eq!(flight.next().map(|(_, ticket)| ticket), Some(Ticket(2)));
        assert_eq!(flight.into_waiters().len(), 1);
    }

    #[test]
    fn a_promotion_skips_the_dead() {
        let (dead, alive) = (Arc::new(Mailbox::new()), Arc::new(Mailbox::new()));
        let (mut flight, now) = (Flight::new(Turn(1)), base());
        assert!(flight.queue(&dead, Ticket(1), 2, now) && flight.queue(&alive, Ticket(2), 2, now));
        drop(dead);
        assert_eq!(flight.next().map(|(_, ticket)| ticket), Some(Ticket(2)));
        assert!(flight.next().is_none());
    }
}
