//! The model: two lists, and for each question a walk over them. It keeps live entries only: when an engine gets rid of an
//! expired one is the engine's business, within bounds that [`crate::actions`] checks.

use hapax::window::{EvictionCause, ForgetCause};
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

#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub(crate) enum Said {
    Fresh,
    InFlight,
    Crowded,
    Duplicate,
}

#[derive(Debug, Default)]
pub(crate) struct Model {
    pub(crate) refresh: bool,
    pub(crate) bound: usize,
    /// Least recently seen first.
    pub(crate) entries: Vec<Entry>,
    pub(crate) flights: Vec<(u128, Vec<Waiter>)>,
    /// What comes to the mailboxes.
    pub(crate) letters: Vec<(usize, u64, Said, u128)>,
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

    pub(crate) fn reserve(&mut self, key: u128, now: Instant, waiter: Waiter) -> Said {
        if let Some((_, waiters)) = self.flights.iter_mut().find(|(other, _)| *other == key) {
            let room = waiters.len() < self.bound;
            if room {
                waiters.push(waiter);
            }
            self.say("in flight");
            if !room {
                self.say("refused");
            }
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
        self.flights.push((key, Vec::new()));
        self.say("fresh");
        Said::Fresh
    }

    pub(crate) fn commit(&mut self, key: u128, now: Instant, ttl: Duration, in_doubt: bool) {
        let index =
            self.flights.iter().position(|(other, _)| *other == key).unwrap_or_else(|| panic!("{key}"));
        for (mailbox, ticket) in self.flights.remove(index).1 {
            self.letters.push((mailbox, ticket, Said::Duplicate, key));
            self.say("duplicate");
        }
        self.say(if in_doubt { "in doubt" } else { "committed" });
        self.entries.push(Entry { key, at: now, until: now + ttl, duplicates: 0 });
        self.time_is(now);
    }

    pub(crate) fn rollback(&mut self, key: u128, cause: ForgetCause) {
        let index =
            self.flights.iter().position(|(other, _)| *other == key).unwrap_or_else(|| panic!("{key}"));
        *self.forgotten.entry(cause).or_default() += 1;
        if self.flights[index].1.is_empty() {
            self.flights.remove(index);
            return;
        }
        let (mailbox, ticket) = self.flights[index].1.remove(0);
        self.letters.push((mailbox, ticket, Said::Fresh, key));
        self.say("promoted");
        self.say("fresh");
    }

    pub(crate) fn leave(&mut self, gone: impl Fn(&Waiter) -> bool) {
        for (_, waiters) in &mut self.flights {
            waiters.retain(|waiter| !gone(waiter));
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
