//! The model: two lists, and for each question a walk over them. It keeps live entries only: when an engine gets rid of an
//! expired one is the engine's business, within bounds that [`crate::actions`] checks.

use hapax_core::window::{EvictionCause, ForgetCause};
use std::collections::HashMap;
use std::time::{Duration, Instant};

#[derive(Clone, Debug)]
pub(crate) struct Entry {
    pub(crate) key: u128,
    pub(crate) at: Instant,
    pub(crate) until: Instant,
    pub(crate) duplicates: u32,
}

/// Who waits: which mailbox, which ticket.
pub(crate) type Waiter = (usize, u64);

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Said {
    /// With the number of the reservation.
    Fresh(u64),
    InFlight,
    Crowded,
    Duplicate,
}

/// A key in flight: which reservation has it, since when if it is not the first, and who waits.
#[derive(Debug, Default)]
pub(crate) struct Flight {
    pub(crate) key: u128,
    holder: u64,
    overtaken: Vec<u64>,
    /// Those that a consumer has published again while another one held the key.
    beside: Vec<u64>,
    /// One of its reservations was committed.
    stored: bool,
    since: Option<Instant>,
    /// It was promoted, and nobody has asked for the key since.
    unseen: bool,
    uploading: bool,
    crowded: bool,
    pub(crate) waiters: Vec<Waiter>,
}

impl Flight {
    fn asked(&mut self, now: Instant) {
        if std::mem::take(&mut self.unseen) {
            self.since = Some(now);
        }
    }
}

/// A letter in a mailbox.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Letter {
    pub(crate) to: Waiter,
    pub(crate) said: Said,
    pub(crate) key: u128,
}

#[derive(PartialEq, Eq, Debug)]
pub(crate) enum Taken {
    Granted,
    Wait(Instant),
    Answered,
}

#[derive(Debug, Default)]
pub(crate) struct Model {
    pub(crate) refresh: bool,
    pub(crate) bound: usize,
    /// Least recently seen first.
    pub(crate) entries: Vec<Entry>,
    pub(crate) flights: Vec<Flight>,
    pub(crate) letters: Vec<Letter>,
    pub(crate) reservations: u64,
    pub(crate) said: HashMap<&'static str, u64>,
    pub(crate) forgotten: HashMap<ForgetCause, u64>,
    pub(crate) evicted: HashMap<EvictionCause, u64>,
}

impl Model {
    fn say(&mut self, what: &'static str) {
        *self.said.entry(what).or_default() += 1;
    }

    pub(crate) fn evict(&mut self, cause: EvictionCause) {
        *self.evicted.entry(cause).or_default() += 1;
    }

    pub(crate) fn time_is(&mut self, now: Instant) {
        let before = self.entries.len();
        self.entries.retain(|entry| now < entry.until);
        (self.entries.len()..before).for_each(|_| self.evict(EvictionCause::Expired));
    }

    fn draw(&mut self) -> u64 {
        self.reservations += 1;
        self.reservations
    }

    fn flight(&mut self, key: u128) -> Option<&mut Flight> {
        self.flights.iter_mut().find(|flight| flight.key == key)
    }

    pub(crate) fn reserve(&mut self, key: u128, now: Instant, waiter: Waiter) -> Said {
        let bound = self.bound;
        let is_seen = self.entries.iter().any(|entry| entry.key == key);
        if let Some(flight) = self.flight(key).filter(|flight| !flight.stored || !is_seen) {
            flight.asked(now);
            let room = flight.waiters.len() < bound;
            if room {
                flight.waiters.push(waiter);
            } else {
                flight.crowded = true;
            }
            self.say("in flight");
            return if room { Said::InFlight } else { Said::Crowded };
        }
        if let Some(index) = self.entries.iter().position(|entry| entry.key == key) {
            let mut entry = self.entries.remove(index);
            entry.duplicates += 1;
            if self.refresh {
                let ttl = entry.until - entry.at;
                entry.at = now;
                entry.until = now + ttl;
            }
            self.entries.push(entry);
            self.say("duplicate");
            return Said::Duplicate;
        }
        let holder = self.draw();
        self.flights.push(Flight { key, holder, ..Flight::default() });
        self.say("fresh");
        Said::Fresh(holder)
    }

    /// A new message: the number of its reservation, and whether another one holds the key.
    pub(crate) fn republish(&mut self, key: u128) -> (u64, bool) {
        self.say("republished");
        let id = self.draw();
        let before = self.entries.len();
        self.entries.retain(|entry| entry.key != key);
        (self.entries.len()..before).for_each(|_| self.evict(EvictionCause::Republished));
        if let Some(flight) = self.flight(key) {
            flight.beside.push(id);
            flight.stored = false;
            return (id, true);
        }
        self.flights.push(Flight { key, holder: id, ..Flight::default() });
        (id, false)
    }

    /// Whoever stores it: it is seen, and all who wait learn it. Whoever else has it in flight still has.
    pub(crate) fn commit(&mut self, (key, id): (u128, u64), now: Instant, ttl: Duration, in_doubt: bool) {
        if let Some(index) = self.flights.iter().position(|flight| flight.key == key) {
            let flight = &mut self.flights[index];
            flight.stored = true;
            flight.crowded = false;
            let waiters = std::mem::take(&mut flight.waiters);
            if flight.holder != id {
                flight.overtaken.retain(|other| *other != id);
                flight.beside.retain(|other| *other != id);
            } else if flight.beside.is_empty() {
                self.flights.remove(index);
            } else {
                (flight.holder, flight.uploading) = (flight.beside.remove(0), false);
            }
            for to in waiters {
                self.letters.push(Letter { to, said: Said::Duplicate, key });
                self.say("duplicate");
            }
        }
        if let Some(index) = self.entries.iter().position(|entry| entry.key == key) {
            self.entries.remove(index);
            self.evict(EvictionCause::Expired);
        }
        self.say(if in_doubt { "in doubt" } else { "committed" });
        self.entries.push(Entry { key, at: now, until: now + ttl, duplicates: 0 });
        self.time_is(now);
    }

    pub(crate) fn rollback(&mut self, key: u128, id: u64, cause: ForgetCause) {
        *self.forgotten.entry(cause).or_default() += 1;
        if let Some(flight) = self.flight(key) {
            flight.overtaken.retain(|other| *other != id);
            flight.beside.retain(|other| *other != id);
        }
        let has_it = |flight: &Flight| flight.key == key && flight.holder == id;
        let Some(index) = self.flights.iter().position(has_it) else { return };
        if let Some(back) = self.flights[index].overtaken.pop() {
            (self.flights[index].holder, self.flights[index].uploading) = (back, false);
            return;
        }
        if !self.flights[index].beside.is_empty() {
            let next = self.flights[index].beside.remove(0);
            (self.flights[index].holder, self.flights[index].uploading) = (next, false);
            return;
        }
        if self.flights[index].waiters.is_empty() {
            self.flights.remove(index);
            return;
        }
        let holder = self.draw();
        let flight = &mut self.flights[index];
        (flight.holder, flight.since, flight.unseen, flight.uploading) = (holder, None, true, false);
        flight.stored = false;
        let to = flight.waiters.remove(0);
        self.letters.push(Letter { to, said: Said::Fresh(holder), key });
        self.say("promoted");
        self.say("fresh");
    }

    /// A waiter, or one of a crowd, has waited since `since`. The number of its reservation, if it gets one.
    pub(crate) fn take_over(
        &mut self,
        key: u128,
        since: Instant,
        now: Instant,
        waiter: Option<Waiter>,
    ) -> (Taken, u64) {
        let holder = self.draw();
        let Some(flight) = self.flight(key) else { return (Taken::Answered, 0) };
        if flight.uploading {
            return (Taken::Wait(now), 0);
        }
        flight.asked(now);
        if let Some(at) = flight.since.filter(|at| *at > since) {
            return (Taken::Wait(at), 0);
        }
        flight.overtaken.push(flight.holder);
        (flight.holder, flight.since) = (holder, Some(now));
        flight.waiters.retain(|other| Some(*other) != waiter);
        self.say("taken over");
        self.say("fresh");
        (Taken::Granted, holder)
    }

    pub(crate) fn upload(&mut self, key: u128, id: u64, uploading: bool) {
        if let Some(flight) = self.flight(key).filter(|flight| flight.holder == id) {
            flight.uploading = uploading;
        }
    }

    pub(crate) fn waits_on(&mut self, key: u128) -> bool {
        self.flight(key).is_none_or(|flight| flight.uploading)
    }

    pub(crate) fn is_awaited(&mut self, key: u128, id: u64) -> bool {
        let flight = self.flight(key).filter(|flight| flight.holder == id);
        flight.is_some_and(|flight| std::mem::take(&mut flight.crowded) || !flight.waiters.is_empty())
    }

    pub(crate) fn leave(&mut self, gone: impl Fn(&Waiter) -> bool) {
        for flight in &mut self.flights {
            flight.waiters.retain(|waiter| !gone(waiter));
        }
    }

    pub(crate) fn forget(&mut self, key: u128) -> bool {
        let index = self.entries.iter().position(|entry| entry.key == key);
        if let Some(index) = index {
            self.entries.remove(index);
            self.evict(EvictionCause::Forget);
        }
        index.is_some()
    }

    pub(crate) fn flush(&mut self) {
        (0..self.entries.len()).for_each(|_| self.evict(EvictionCause::Flush));
        self.entries.clear();
    }
}
