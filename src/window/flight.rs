//! What is in flight: keys that were forwarded and whose outcome is not known, each with those that wait for it.
//!
//! The table is in shards, and the lock of a key's shard is *the* lock of that key: whoever asks the engine for a key or
//! changes it there holds it. So reserve, commit and rollback of one key never interleave.
//!
//! Nothing that can call back is done here: a waiter is handed out as `(mailbox, ticket)`, and the caller delivers when
//! the lock is released. (A letter that is dropped may hold a reservation, whose drop takes the lock.)

use super::key::KeyHash;
use super::{Apart, Key, Mailbox, Ticket};
use parking_lot::{Mutex, MutexGuard};
use std::collections::{HashMap, VecDeque};
use std::sync::{Arc, Weak};

/// A power of two. One lock per shard; contention falls with their number.
const SHARDS: usize = Key::LOCKS;

/// The keys of one shard.
pub(super) type Shard = HashMap<Key, Flight, KeyHash>;

/// All keys in flight.
#[derive(Debug)]
pub(super) struct Flights {
    shards: Box<[Apart<Mutex<Shard>>]>,
}

impl Flights {
    pub(super) fn new() -> Flights {
        Flights { shards: std::iter::repeat_with(Apart::default).take(SHARDS).collect() }
    }

    /// Locks this key.
    pub(super) fn lock(&self, key: Key) -> MutexGuard<'_, Shard> {
        self.shards[key.shard(SHARDS)].lock()
    }

    pub(super) fn len(&self) -> usize {
        self.shards.iter().map(|shard| shard.lock().len()).sum()
    }

    /// Of the tables; the queues of waiters are bounded by the sessions that wait.
    pub(super) fn bytes(&self) -> usize {
        let slot = size_of::<(Key, Flight)>() + 1;
        self.shards
            .iter()
            .map(|shard| size_of::<Apart<Mutex<Shard>>>() + shard.lock().capacity() * 8 / 7 * slot)
            .sum()
    }
}

/// One key in flight: its reservation is held by somebody, and these wait. Weak: a session that is gone leaves its
/// place behind if it had no time to leave the queue.
/// For most nobody waits, and such a one is a pointer that is none: with its key it is half a cache line.
#[derive(Debug, Default)]
pub(super) struct Flight {
    waiters: Option<Box<Waiters>>,
}

/// The oldest first.
#[derive(Debug, Default)]
struct Waiters(VecDeque<(Weak<Mailbox>, Ticket)>);

impl Flight {
    /// Takes a place at the end, or says that there is none. The dead do not count.
    pub(super) fn queue(&mut self, mailbox: &Arc<Mailbox>, ticket: Ticket, bound: usize) -> bool {
        let Waiters(waiters) = &mut **self.waiters.get_or_insert_default();
        if waiters.len() >= bound {
            waiters.retain(|(mailbox, _)| mailbox.strong_count() > 0);
        }
        let room = waiters.len() < bound;
        if room {
            waiters.push_back((Arc::downgrade(mailbox), ticket));
        }
        room
    }

    /// Gives a place up; nothing happens if it was already called.
    pub(super) fn leave(&mut self, mailbox: &Arc<Mailbox>, ticket: Ticket) {
        if let Some(waiters) = &mut self.waiters {
            waiters.0.retain(|(other, theirs)| *theirs != ticket || other.as_ptr() != Arc::as_ptr(mailbox));
        }
    }

    /// The oldest that still lives.
    pub(super) fn next(&mut self) -> Option<(Arc<Mailbox>, Ticket)> {
        let Waiters(waiters) = &mut **self.waiters.as_mut()?;
        while let Some((mailbox, ticket)) = waiters.pop_front() {
            if let Some(mailbox) = mailbox.upgrade() {
                return Some((mailbox, ticket));
            }
        }
        None
    }

    /// All that still live, oldest first.
    pub(super) fn into_waiters(self) -> Vec<(Arc<Mailbox>, Ticket)> {
        let Some(waiters) = self.waiters else { return Vec::new() };
        waiters.0.into_iter().filter_map(|(mailbox, ticket)| Some((mailbox.upgrade()?, ticket))).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A `Wait` keeps its mailbox alive and leaves when it is dropped, so the dead are rare; but they happen when a
    /// session ends between two of these.
    #[test]
    fn the_dead_are_passed_over_and_take_no_place() {
        let (dead, alive) = (Arc::new(Mailbox::new()), Arc::new(Mailbox::new()));
        let mut flight = Flight::default();
        assert!(flight.queue(&dead, Ticket(1), 2) && flight.queue(&alive, Ticket(2), 2));
        assert!(!flight.queue(&alive, Ticket(3), 2));
        drop(dead);
        assert!(flight.queue(&alive, Ticket(4), 2));
        flight.leave(&Arc::new(Mailbox::new()), Ticket(2));
        assert_eq!(flight.next().map(|(_, ticket)| ticket), Some(Ticket(2)));
        assert_eq!(flight.into_waiters().len(), 1);
    }

    #[test]
    fn a_promotion_skips_the_dead() {
        let (dead, alive) = (Arc::new(Mailbox::new()), Arc::new(Mailbox::new()));
        let mut flight = Flight::default();
        assert!(flight.queue(&dead, Ticket(1), 2) && flight.queue(&alive, Ticket(2), 2));
        drop(dead);
        assert_eq!(flight.next().map(|(_, ticket)| ticket), Some(Ticket(2)));
        assert!(flight.next().is_none());
    }
}
