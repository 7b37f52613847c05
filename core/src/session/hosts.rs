//! Which deliveries a session's publishes are compared with: those of its own connection, and, where a window says so
//! (`republish = "host"`), those of all connections of the same user from the same host. Many client libraries publish on a second
//! connection.
//!
//! The same user means: the same vhost and the same credentials, as the broker has accepted them.

use super::Shared;
use super::delivered::{Delivered, Mark, RouteMark};
use super::finder::{Judge, Source};
use super::noted::Noted;
use crate::window::{RepublishRule, Rules};
use core::net::IpAddr;
use parking_lot::Mutex;
use std::collections::HashMap;
use std::sync::{Arc, Weak};

/// The deliveries of one user on one host.
type Common = Arc<Mutex<Record>>;

/// The same, for one who does not keep it alive.
type Known = Weak<Mutex<Record>>;

/// The deliveries of all users and hosts that have connections: at most one record for each connection.
#[derive(Debug, Default)]
pub struct Hosts {
    records: Mutex<HashMap<Box<[u8]>, Known>>,
}

impl Hosts {
    /// Returns the number of records.
    pub fn len(&self) -> usize {
        self.records.lock().len()
    }

    /// Returns true if there are none.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Returns the record of this user on this host. It lives as long as one of its sessions does.
    fn join(&self, host: &[u8]) -> Common {
        let mut records = self.records.lock();
        if let Some(common) = records.get(host).and_then(Weak::upgrade) {
            return common;
        }
        if records.len() == records.capacity() {
            records.retain(|_, record| record.strong_count() > 0);
        }
        let common = Common::default();
        records.insert(host.into(), Arc::downgrade(&common));
        common
    }
}

/// The deliveries of one connection, or of one user on one host.
#[derive(Debug, Default)]
struct Record {
    delivered: Delivered,
    noted: Noted,
    /// publishes that have passed because of a delivery that may have left no mark
    passed: Delivered,
}

impl Record {
    fn holds(&mut self, sought: Sought, rules: &Rules) -> bool {
        self.delivered.holds(sought.mark) || self.is_unsure(sought, rules) && !self.passed.holds(sought.mark)
    }

    fn take(&mut self, sought: Sought, rules: &Rules) {
        self.delivered.take(sought.mark);
        if self.is_unsure(sought, rules) {
            self.passed.note(sought.mark);
        }
    }

    fn is_unsure(&self, Sought { exchange, .. }: Sought, rules: &Rules) -> bool {
        exchange.is_some_and(|exchange| self.noted.lacks(exchange, rules))
    }

    fn memory(&self) -> usize {
        self.delivered.memory() + self.noted.memory() + self.passed.memory()
    }
}

/// The mark by which a publish is looked for among the deliveries, and the exchange that it goes to.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Sought {
    mark: Mark,
    /// see [`Judge::exchange`]
    exchange: Option<RouteMark>,
}

/// The deliveries that the publishes of one session are compared with.
#[derive(Debug, Default)]
pub(super) struct Marks {
    own: Record,
    /// Bytes that tell this user on this host from others.
    host: Vec<u8>,
    common: Option<Common>,
}

impl Marks {
    /// Sets the user that the broker has accepted, and the host that it came from.
    pub(super) fn set_identity(&mut self, identity: &[u8], peer: IpAddr) {
        self.host = [peer.to_string().as_bytes(), b"\0", identity].concat();
        self.common = None;
    }

    /// Notes a delivery, for a window with this rule.
    #[inline]
    pub(super) fn note(&mut self, mark: Mark, rule: RepublishRule, shared: &Shared) {
        match rule {
            RepublishRule::Connection => self.own.delivered.note(mark),
            RepublishRule::Host => self.common(shared).lock().delivered.note(mark),
            RepublishRule::Drop => {}
        }
    }

    /// Notes for which sources the deliveries of this exchange leave their marks from now on.
    pub(super) fn note_sources(&mut self, exchange: RouteMark, sources: &Arc<[Source]>, shared: &Shared) {
        self.own.noted.add(exchange, sources);
        self.common(shared).lock().noted.add(exchange, sources);
    }

    /// Returns what a publish that this window judges is looked for by, if something was delivered that it might be. `with_id` adds
    /// its id to the mark.
    #[inline]
    pub(super) fn of_publish(
        &self,
        judge: &Judge,
        with_id: impl FnOnce(RouteMark) -> Option<Mark>,
    ) -> Option<Sought> {
        let Record { delivered, noted, .. } = &self.own;
        let has_none = delivered.is_empty() && (judge.exchange.is_none() || noted.is_empty());
        if has_none && judge.window.rules().republish != RepublishRule::Host {
            return None;
        }
        let mark = judge.mark.and_then(with_id)?;
        Some(Sought { mark, exchange: judge.exchange })
    }

    /// Returns true if such a message was delivered, or may have been, and nobody has published it again since.
    pub(super) fn holds(&mut self, sought: Sought, rules: &Rules, shared: &Shared) -> bool {
        match rules.republish {
            RepublishRule::Connection => self.own.holds(sought, rules),
            RepublishRule::Host => self.common(shared).lock().holds(sought, rules),
            RepublishRule::Drop => false,
        }
    }

    /// Takes the mark: the message is being published again.
    pub(super) fn take(&mut self, sought: Sought, rules: &Rules, shared: &Shared) {
        match rules.republish {
            RepublishRule::Connection => self.own.take(sought, rules),
            RepublishRule::Host => self.common(shared).lock().take(sought, rules),
            RepublishRule::Drop => {}
        }
    }

    /// Forgets the older half of this connection's deliveries, because the process is short of memory.
    pub(super) fn halve(&mut self) {
        self.own.delivered.halve();
        self.own.passed.halve();
    }

    /// Returns the bytes that [`Marks::halve`] can free.
    pub(super) fn spare(&self) -> usize {
        self.own.delivered.memory() + self.own.passed.memory()
    }

    /// Returns the bytes that they take. A record that several sessions share counts for each of them in part.
    pub(super) fn memory(&self) -> usize {
        let common = |common: &Common| common.lock().memory() / Arc::strong_count(common).max(1);
        self.own.memory() + self.common.as_ref().map_or(0, common)
    }

    fn common(&mut self, shared: &Shared) -> &Common {
        let Marks { host, common, .. } = self;
        common.get_or_insert_with(|| shared.hosts.join(host))
    }
}
