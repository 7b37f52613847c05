//! The table of keys in flight: keys whose publish was forwarded and whose outcome is not known. Each has a queue of waiters.
//!
//! The table is in shards. The lock of a key's shard is *the* lock of that key: every call that looks the key up in the engine, or
//! changes it there, holds it. Reserve, commit and rollback of one key therefore never interleave.
//!
//! Nothing here calls back under the lock. A waiter is handed out as `(mailbox, ticket)`, and the caller delivers the letter after
//! the lock is released. (A letter that is dropped may hold a reservation, and the drop of a reservation takes the lock.)
//!
//! A waiter may take a key over from a reservation that still exists. Each reservation therefore has a [`Turn`]. The reservation
//! with the flight's turn is the *holder*; any other one was *overtaken*. An overtaken reservation counts until its outcome is known.
//! It becomes the holder again if the reservation that took over from it is given up.
//!
//! A message that its consumer publishes again does not wait: it is *beside* the holder. It is waited for as the holder is. When the
//! holder's outcome is known, one that is beside it becomes the holder. A key stays in the table while any reservation of it is to be
//! waited for. If one of them was stored by then, the key is seen as well.

use super::key::KeyHash;
use super::{BodyDigest, CacheAligned, EvictionCause, Key, Mailbox, Refusal, Ticket, Turn};
use parking_lot::{Mutex, MutexGuard};
use std::collections::hash_map::Entry;
use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::{Arc, Weak};
use std::time::Instant;

/// The number of shards: a power of two. Each shard has a lock, so more shards mean less contention.
const SHARDS: usize = Key::LOCKS;

/// Bits of [`Flight::turn`].
const UPLOADING: u64 = 1;
const SUPERSEDES: u64 = 2;
const REPUBLISH: u64 = 4;
const SEEN: u64 = 8;
const RELEASED: u64 = 16;
/// The place of the turn above the bits.
const TURN: u32 = 5;

/// The keys of one lock.
#[derive(Debug, Default)]
pub(super) struct Shard {
    pub(super) flights: HashMap<Key, Flight, KeyHash>,
    turns: Turns,
    /// The number of overtaken reservations. Another reservation holds their key by now, or none.
    overtaken: usize,
}

/// Draws turns. No turn is drawn twice for a key, because a key has one shard.
#[derive(Debug, Default)]
pub(super) struct Turns(u64);

impl Turns {
    pub(super) fn draw(&mut self) -> Turn {
        self.0 += 1;
        Turn(self.0)
    }
}

impl Shard {
    /// Returns the table, and the turns for new flights in it.
    pub(super) fn parts(&mut self) -> (&mut HashMap<Key, Flight, KeyHash>, &mut Turns) {
        (&mut self.flights, &mut self.turns)
    }

    /// Returns true if the key is in flight, and that began with a message that its consumer publishes again.
    pub(super) fn is_republish(&self, key: Key) -> bool {
        self.flights.get(&key).is_some_and(Flight::is_republish)
    }

    /// Makes a reservation of this key that neither waits nor takes over. If another one holds the key, it is beside that one.
    pub(super) fn place(&mut self, key: Key) -> Placed {
        let turn = self.turns.draw();
        match self.flights.entry(key) {
            Entry::Vacant(free) => {
                free.insert(Flight { waiters: None, turn: turn.0 << TURN | REPUBLISH });
                Placed { turn, beside: false, removed: false }
            }
            Entry::Occupied(mut flight) => {
                flight.get_mut().place_beside(turn);
                self.overtaken += 1;
                Placed { turn, beside: true, removed: false }
            }
        }
    }

    /// Makes a reservation that is to replace what is seen of its key, if it is seen. The key must not be in flight.
    pub(super) fn supersede(&mut self, key: Key, is_seen: bool) -> Turn {
        let turn = self.turns.draw();
        let supersedes = if is_seen { SUPERSEDES } else { 0 };
        self.flights.insert(key, Flight { waiters: None, turn: turn.0 << TURN | supersedes });
        turn
    }

    /// Takes the flight of a reservation that was stored, if nothing else is to be noted: it holds the key, alone.
    pub(super) fn take_alone(&mut self, key: Key, turn: Turn) -> Option<Flight> {
        match self.flights.entry(key) {
            Entry::Occupied(flight) if flight.get().is_alone(turn) => Some(flight.remove()),
            Entry::Occupied(_) | Entry::Vacant(_) => None,
        }
    }

    /// Notes that the reservation of this turn was stored. All waiters have their verdict. The key leaves the table if no other
    /// reservation is to be waited for.
    pub(super) fn stored(&mut self, key: Key, turn: Turn) -> Stored {
        let Entry::Occupied(mut entry) = self.flights.entry(key) else {
            self.overtaken = self.overtaken.saturating_sub(1);
            return Stored {
                waiters: Vec::new(),
                replaces: Some(EvictionCause::Expired),
                is_released: false,
            };
        };
        let flight = entry.get_mut();
        // A key in flight is seen only if one of its messages was stored, or if the holder is to replace what is seen.
        let replaces = match (flight.supersedes(), flight.is_seen()) {
            (true, _) => Some(EvictionCause::Superseded),
            (_, true) => Some(EvictionCause::Expired),
            _ => None,
        };
        let is_released = flight.take_released();
        let held = flight.turn() == turn || flight.turn() == Turn::NOBODY;
        if held && !flight.is_left_to_the_next() {
            return Stored { waiters: entry.remove().into_waiters(), replaces, is_released };
        }
        self.overtaken = self.overtaken.saturating_sub(1);
        if !held {
            flight.is_over(turn);
        }
        if !is_released {
            flight.seen_now();
        }
        Stored { waiters: flight.take_waiters(), replaces, is_released }
    }

    /// Notes that the reservation of this turn was given up. If it had overtaken a reservation whose outcome is still open, that one
    /// becomes the holder again, because its message may be stored and must not be stored a second time. One that is beside it comes next.
    /// Otherwise the oldest waiter becomes the holder, and is given back with its new turn. Without a waiter the key leaves the table. It
    /// also leaves it if it is seen, as `seen` says: then all waiters have their verdict. `is_stored`: the message of another reservation is stored,
    /// and its commit follows. The key waits for that.
    pub(super) fn pass_on(
        &mut self,
        key: Key,
        turn: Turn,
        is_stored: bool,
        seen: impl FnOnce() -> Option<BodyDigest>,
    ) -> Next {
        let Some(flight) = self.flights.get_mut(&key).filter(|flight| flight.turn() == turn) else {
            self.overtaken = self.overtaken.saturating_sub(1);
            self.flights.get_mut(&key).into_iter().for_each(|flight| flight.is_over(turn));
            return Next::Nobody;
        };
        if flight.goes_back() || flight.is_left_to_the_next() {
            self.overtaken = self.overtaken.saturating_sub(1);
            return Next::Nobody;
        }
        if is_stored {
            self.overtaken = self.overtaken.saturating_sub(1);
            flight.set_turn(Turn::NOBODY, false);
            return Next::Nobody;
        }
        if flight.supersedes() || flight.is_seen() {
            if let Some(body) = seen() {
                let waiters = self.flights.remove(&key).map(Flight::into_waiters).unwrap_or_default();
                return Next::Seen(body, waiters);
            }
            flight.seen_no_more();
        }
        let Some((mailbox, ticket)) = flight.next() else {
            self.flights.remove(&key);
            return Next::Nobody;
        };
        let next = self.turns.draw();
        flight.begin(next, Since::Unknown);
        Next::Promoted(mailbox, ticket, next)
    }

    /// Lets a publish take the key over from the holder. `queued` is its place in the queue, which it leaves then; `None` if it found no
    /// room there.
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

/// The new state of a key whose reservation was given up.
pub(super) enum Next {
    /// Nothing more is to be done.
    Nobody,
    /// This waiter holds it now.
    Promoted(Arc<Mailbox>, Ticket, Turn),
    /// It is of an epoch that is over. All of these have waited for it.
    Refused(Refusal, Vec<(Arc<Mailbox>, Ticket)>),
    /// It is seen with this body, as before. All of these have waited for it.
    Seen(BodyDigest, Vec<(Arc<Mailbox>, Ticket)>),
}

/// The effect of a commit on the flight of its key.
pub(super) struct Stored {
    /// All of these have waited for it.
    pub(super) waiters: Vec<(Arc<Mailbox>, Ticket)>,
    /// If the key is seen already, the commit replaces that, and this is why.
    pub(super) replaces: Option<EvictionCause>,
    /// A consumer has acked the message already: the key is not seen.
    pub(super) is_released: bool,
}

/// A [`Republish`](super::Republish) before its reservation is made, which must not happen under the lock.
pub(super) struct Placed {
    pub(super) turn: Turn,
    pub(super) beside: bool,
    /// The key was seen, and is not any more.
    pub(super) removed: bool,
}

/// A [`TakeOver`](super::TakeOver) before its reservation is made, which must not happen under the lock.
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

    /// Locks the shard of this key.
    pub(super) fn lock(&self, key: Key) -> MutexGuard<'_, Shard> {
        self.shards[key.shard(SHARDS)].lock()
    }

    /// Returns the number of reservations whose outcome is not known, overtaken ones included.
    pub(super) fn len(&self) -> usize {
        let outstanding = |shard: &Shard| shard.flights.len() + shard.overtaken;
        self.shards.iter().map(|shard| outstanding(&shard.lock())).sum()
    }

    /// Returns the bytes of the tables. The queues of waiters are not counted: sessions bound them.
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

/// One key in flight: the turn of its holder, and its waiters. A flight without waiters has a null pointer there, so key and flight
/// together take 32 bytes.
#[derive(Debug)]
pub(super) struct Flight {
    waiters: Option<Box<Waiters>>,
    /// The holder's turn, times 32. Bit 0: the content of its publish is not complete. Bit 1: the key is seen, too, with another
    /// body, until the flight is committed. Bit 2: it began with a message that its consumer publishes again. Bit 3: another reservation
    /// of the key was committed, so the key is seen, too, unless the engine has forgotten it. Bit 4: a consumer has acked the message of the
    /// holder.
    turn: u64,
}

const _: () = assert!(size_of::<(Key, Flight)>() == 32);

/// The waiters of one key, and the facts that a take-over needs. The mailboxes are weak: a session that ends may
/// leave its place behind.
#[derive(Debug, Default)]
struct Waiters {
    /// The waiters in the order in which they came.
    queue: BTreeMap<u64, (Weak<Mailbox>, Ticket)>,
    /// The position of each waiter in the queue, by the address of its mailbox. (The queue's weak pointer keeps the address from being
    /// used again.)
    places: BTreeMap<(usize, Ticket), u64>,
    came: u64,
    /// The turns of the overtaken reservations whose outcome is still open. Later turns are larger.
    overtaken: BTreeSet<Turn>,
    /// The turns of the reservations beside the holder.
    beside: BTreeSet<Turn>,
    since: Since,
    /// True if a publish has found no room here since [`Flight::is_awaited`] was called last.
    crowded: bool,
}

/// Since when the present holder has the key.
#[derive(Clone, Copy, Default, Debug)]
enum Since {
    /// Since before anybody waited.
    #[default]
    Always,
    /// Since this moment: it is not the first holder.
    At(Instant),
    /// It is not the first holder, but no call has brought the time since.
    Unknown,
}

impl Since {
    /// Replaces an unknown time by this one, which is late enough.
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
        Flight { waiters: None, turn: turn.0 << TURN }
    }

    /// Returns true if the key may be seen, too.
    #[inline]
    pub(super) fn supersedes(&self) -> bool {
        self.turn & SUPERSEDES != 0
    }

    /// Notes that the key is seen, too, by another relay's word.
    pub(super) fn supersedes_now(&mut self) {
        if !self.is_seen() {
            self.turn |= SUPERSEDES;
        }
    }

    /// Notes that the key is not seen any more.
    pub(super) fn supersedes_nothing(&mut self) {
        self.turn &= !SUPERSEDES;
    }

    /// Returns true if a reservation of the key was committed, and the holder's outcome is open.
    #[inline]
    pub(super) fn is_seen(&self) -> bool {
        self.turn & SEEN != 0
    }

    /// Notes that a reservation of the key was committed. A store that knows the key later means this message, or a later one.
    fn seen_now(&mut self) {
        self.turn = self.turn & !(SUPERSEDES | REPUBLISH) | SEEN;
    }

    /// Notes that the key is not seen any more, with whatever body.
    fn seen_no_more(&mut self) {
        self.turn &= !(SUPERSEDES | SEEN);
    }

    fn turn(&self) -> Turn {
        Turn(self.turn >> TURN)
    }

    /// Returns true if the reservation of this turn is the holder, none is beside it, and none was committed.
    #[inline]
    fn is_alone(&self, turn: Turn) -> bool {
        let is_holder = self.turn >> TURN == turn.0 && self.turn & (SEEN | RELEASED) == 0;
        is_holder && self.waiters.as_ref().is_none_or(|waiters| waiters.beside.is_empty())
    }

    /// Notes that a consumer has acked the message of the holder, whose commit is on its way.
    pub(super) fn release(&mut self) {
        self.turn |= RELEASED;
    }

    /// Returns true if a consumer has acked the message of the holder, whose commit is on its way.
    pub(super) fn is_released(&self) -> bool {
        self.turn & RELEASED != 0
    }

    /// Takes that note.
    fn take_released(&mut self) -> bool {
        let is_released = self.turn & RELEASED != 0;
        self.turn &= !RELEASED;
        is_released
    }

    /// Puts a reservation beside the holder. If the key was seen, too, that was the message before.
    fn place_beside(&mut self, turn: Turn) {
        self.waiters.get_or_insert_default().beside.insert(turn);
        if self.is_seen() {
            self.turn = self.turn & !SEEN | REPUBLISH;
        }
    }

    /// Makes the oldest reservation beside the holder the holder, and says whether there was one. The waiters keep their patience.
    fn is_left_to_the_next(&mut self) -> bool {
        let Some(turn) = self.waiters.as_mut().and_then(|waiters| waiters.beside.pop_first()) else {
            return false;
        };
        self.set_turn(turn, false);
        true
    }

    /// Returns true if the flight began with a message that its consumer publishes again: what others have stored of its key before is
    /// another message.
    pub(super) fn is_republish(&self) -> bool {
        self.turn & REPUBLISH != 0
    }

    /// Sets the holder. The other facts do not depend on who holds the key.
    fn set_turn(&mut self, turn: Turn, uploading: bool) {
        let kept = self.turn & (SUPERSEDES | REPUBLISH | SEEN);
        self.turn = turn.0 << TURN | kept | if uploading { UPLOADING } else { 0 };
    }

    fn begin(&mut self, turn: Turn, since: Since) {
        self.set_turn(turn, false);
        self.waiters.get_or_insert_default().since = since;
    }

    /// Makes the holder an overtaken reservation.
    fn overtake(&mut self) {
        let turn = self.turn();
        self.waiters.get_or_insert_default().overtaken.insert(turn);
    }

    /// Forgets an overtaken reservation, or one beside the holder: its outcome is known, so it never becomes the holder.
    fn is_over(&mut self, turn: Turn) {
        if let Some(waiters) = &mut self.waiters {
            waiters.overtaken.remove(&turn);
            waiters.beside.remove(&turn);
        }
    }

    /// Makes the reservation that was overtaken last the holder again, and says whether there was one. The waiters keep their patience.
    fn goes_back(&mut self) -> bool {
        let Some(turn) = self.waiters.as_mut().and_then(|waiters| waiters.overtaken.pop_last()) else {
            return false;
        };
        self.set_turn(turn, false);
        true
    }

    /// Returns true if the content of the holder's publish is not complete.
    pub(super) fn is_uploading(&self) -> bool {
        self.turn & UPLOADING != 0
    }

    /// Notes whether the content of the publish of this turn is still on its way. Overtaken reservations have no say.
    pub(super) fn set_uploading(&mut self, turn: Turn, uploading: bool) {
        if self.turn() == turn {
            self.set_turn(turn, uploading);
        }
    }

    /// Returns true if the reservation of this turn is the holder and a publish waits for it, or has found no room to wait since the
    /// last call.
    pub(super) fn is_awaited(&mut self, turn: Turn) -> bool {
        let awaited =
            |waiters: &mut Box<Waiters>| std::mem::take(&mut waiters.crowded) || !waiters.queue.is_empty();
        self.turn() == turn && self.waiters.as_mut().is_some_and(awaited)
    }

    /// Returns the time from which a waiter that has waited since `since` has to wait anew; `None` if it has waited long enough.
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

    /// Adds a waiter at the end of the queue. Returns false if the queue is full; waiters at the front whose session has ended do not
    /// count.
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

    /// Returns true if this waiter is in the queue.
    pub(super) fn is_queued(&self, mailbox: &Arc<Mailbox>, ticket: Ticket) -> bool {
        let place = (Arc::as_ptr(mailbox).addr(), ticket);
        self.waiters.as_ref().is_some_and(|waiters| waiters.places.contains_key(&place))
    }

    /// Notes that a publish has found no room to wait.
    pub(super) fn crowd(&mut self) {
        if let Some(waiters) = &mut self.waiters {
            waiters.crowded = true;
        }
    }

    /// Removes a waiter from the queue; does nothing if it is not there any more.
    pub(super) fn leave(&mut self, mailbox: &Arc<Mailbox>, ticket: Ticket) {
        if let Some(waiters) = &mut self.waiters
            && let Some(place) = waiters.places.remove(&(Arc::as_ptr(mailbox).addr(), ticket))
        {
            waiters.queue.remove(&place);
        }
    }

    /// Takes the oldest waiter whose session still exists.
    fn next(&mut self) -> Option<(Arc<Mailbox>, Ticket)> {
        let waiters = &mut **self.waiters.as_mut()?;
        while let Some((mailbox, ticket)) = waiters.pop() {
            if let Some(mailbox) = mailbox.upgrade() {
                return Some((mailbox, ticket));
            }
        }
        None
    }

    /// Takes all waiters whose sessions still exist, oldest first.
    pub(super) fn into_waiters(mut self) -> Vec<(Arc<Mailbox>, Ticket)> {
        self.take_waiters()
    }

    /// As [`Flight::into_waiters`], of a flight that goes on.
    fn take_waiters(&mut self) -> Vec<(Arc<Mailbox>, Ticket)> {
        let Some(waiters) = &mut self.waiters else { return Vec::new() };
        waiters.places.clear();
        waiters.crowded = false;
        std::mem::take(&mut waiters.queue)
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

    /// A `Wait` keeps its mailbox alive and leaves the queue when it is dropped. A waiter without a session is
    /// rare, but it is possible for a moment while a session ends.
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
