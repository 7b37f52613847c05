//! The publishes of a tx channel, by transaction: the open one, and those whose end the upstream has not answered yet.

use super::entry::{Entry, Mandatory};
use crate::window::{ForgetCause, Key, Reservation, Reservations};
use std::collections::{HashSet, VecDeque};
use std::time::Instant;

#[derive(Debug)]
enum Ended {
    Commit(Vec<Entry>),
    Rollback(Vec<Entry>),
}

/// See the module.
#[derive(Debug, Default)]
pub(super) struct Transactions {
    open: Vec<Entry>,
    keys: HashSet<Key>,
    ended: VecDeque<Ended>,
}

impl Transactions {
    /// A publish was forwarded inside the open transaction.
    pub(super) fn forwarded(&mut self, entry: Entry) {
        if let Some((reservation, _)) = &entry.reservation {
            self.keys.insert(reservation.key());
        }
        self.open.push(entry);
    }

    /// Whether the open transaction holds this key already.
    pub(super) fn holds(&self, key: Key) -> bool {
        self.keys.contains(&key)
    }

    /// What was forwarded last in the open transaction.
    pub(super) fn newest(&mut self) -> Option<&mut Entry> {
        self.open.last_mut()
    }

    /// Whether others wait for one of `count` publishes of the open transaction, from this one on.
    pub(super) fn is_awaited(&self, from: usize, count: usize) -> bool {
        let mut reservations = self.open.iter().skip(from).take(count).filter_map(Entry::reserved);
        reservations.any(Reservation::is_awaited)
    }

    /// Publishes of the open transaction.
    pub(super) fn open_len(&self) -> usize {
        self.open.len()
    }

    /// Publishes whose commit or rollback is on its way.
    pub(super) fn ending_len(&self) -> usize {
        let len = |ended: &Ended| match ended {
            Ended::Commit(entries) | Ended::Rollback(entries) => entries.len(),
        };
        self.ended.iter().map(len).sum()
    }

    /// Whether an answer of the upstream is still to come.
    pub(super) fn is_ending(&self) -> bool {
        !self.ended.is_empty()
    }

    /// `tx.commit` was forwarded.
    pub(super) fn commit(&mut self) {
        let entries = self.close();
        self.ended.push_back(Ended::Commit(entries));
    }

    /// `tx.rollback` was forwarded.
    pub(super) fn rollback(&mut self) {
        let entries = self.close();
        self.ended.push_back(Ended::Rollback(entries));
    }

    /// A return has come: it belongs to the transaction that is being committed.
    pub(super) fn returned(&mut self, key: Key) -> Option<&mut Mandatory> {
        let Some(Ended::Commit(entries)) = self.ended.front_mut() else { return None };
        let mut mandatory = entries.iter_mut().filter_map(|entry| entry.mandatory.as_deref_mut());
        let found = mandatory.find(|mandatory| mandatory.key == key && !mandatory.returned)?;
        found.returned = true;
        Some(found)
    }

    /// `tx.commit-ok` or `tx.rollback-ok`: the oldest ending is over. `proven` is told the rights that it has proven.
    pub(super) fn ended(&mut self, now: Instant, mut proven: impl FnMut(Key)) {
        match self.ended.pop_front() {
            Some(Ended::Commit(entries)) => {
                let mut stored = Reservations::default();
                for entry in entries {
                    entry.right.into_iter().for_each(&mut proven);
                    entry.stored(&mut stored, now);
                }
                stored.commit(now);
            }
            Some(Ended::Rollback(entries)) => {
                for entry in entries {
                    entry.right.into_iter().for_each(&mut proven);
                    entry.forget(ForgetCause::Rollback);
                }
            }
            None => {}
        }
    }

    /// Forgets the open transaction: it will never be committed.
    pub(super) fn abandon_open(&mut self) {
        for entry in self.close() {
            entry.forget(ForgetCause::Rollback);
        }
    }

    /// Gives up everything: those of the open transaction are not stored, those being committed are in doubt.
    pub(super) fn take_unsettled(&mut self) -> impl Iterator<Item = Entry> {
        self.abandon_open();
        let mut doubtful = Vec::new();
        for ended in std::mem::take(&mut self.ended) {
            match ended {
                Ended::Commit(entries) => doubtful.extend(entries),
                Ended::Rollback(entries) => {
                    entries.into_iter().for_each(|entry| entry.forget(ForgetCause::Rollback));
                }
            }
        }
        doubtful.into_iter()
    }

    fn close(&mut self) -> Vec<Entry> {
        self.keys.clear();
        std::mem::take(&mut self.open)
    }
}
