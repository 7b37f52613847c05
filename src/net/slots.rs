//! Limits the number of client connections, in all and per address, and decides which connection gives way to which.
//!
//! A connection whose address is not known yet, because a proxy has to say it, counts for no address until then.
//!
//! A connection that has not logged in is a *stranger*. When a limit is reached, the oldest stranger that counts
//! toward this limit is closed, and the newcomer takes its slot. If there is no stranger, the newcomer is turned
//! away. This way, connections that say nothing can't keep out a client that logs in.

use parking_lot::Mutex;
use std::collections::{BTreeMap, HashMap};
use std::net::{IpAddr, Ipv6Addr};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};
use tokio::task::AbortHandle;

/// The limit because of which a connection is turned away.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Full {
    /// `limits.max_connections`
    Process,
    /// `limits.connections_per_address`
    Address,
}

/// All slots for client connections.
#[derive(Debug)]
pub(super) struct ConnectionSlots {
    max: AtomicUsize,
    max_per_address: AtomicUsize,
    inner: Mutex<Inner>,
}

#[derive(Debug, Default)]
struct Inner {
    last_number: u64,
    taken: usize,
    by_address: HashMap<IpAddr, usize>,
    /// Connections that have not logged in, oldest first, each with the handle that aborts its task.
    strangers: BTreeMap<u64, (Option<IpAddr>, Option<AbortHandle>)>,
}

impl ConnectionSlots {
    pub(super) fn new(max: usize, max_per_address: usize) -> Arc<ConnectionSlots> {
        let (max, max_per_address) = (max.into(), max_per_address.into());
        Arc::new(ConnectionSlots { max, max_per_address, inner: Mutex::default() })
    }

    /// Changes the limits for connections that come from now on. Those that are there stay.
    pub(super) fn set_limits(&self, max: usize, max_per_address: usize) {
        self.max.store(max, Relaxed);
        self.max_per_address.store(max_per_address, Relaxed);
    }

    fn max_per_address(&self) -> usize {
        self.max_per_address.load(Relaxed)
    }

    /// Takes a slot for a new connection from this address; `None`: it is not known yet. Also returns whether a stranger gave way to
    /// it.
    pub(super) fn take(
        self: &Arc<ConnectionSlots>,
        from: Option<IpAddr>,
    ) -> Result<(ConnectionSlot, bool), Full> {
        let address = from.map(network);
        let mut inner = self.inner.lock();
        let displaced = match address.and_then(|address| inner.room_for(address, self.max_per_address())) {
            Some(gone) => Some(gone.ok_or(Full::Address)?),
            None if inner.taken >= self.max.load(Relaxed) => Some(inner.oldest().ok_or(Full::Process)?),
            None => None,
        };
        if let Some(number) = displaced {
            inner.displace(number);
        }
        inner.last_number += 1;
        let number = inner.last_number;
        inner.taken += 1;
        inner.count(address);
        inner.strangers.insert(number, (address, None));
        let slot = ConnectionSlot { slots: Arc::clone(self), number, address, logged_in: false };
        Ok((slot, displaced.is_some()))
    }
}

impl Inner {
    /// Returns the oldest stranger.
    fn oldest(&self) -> Option<u64> {
        self.strangers.keys().next().copied()
    }

    /// Returns `None` if there is room for one more connection from this address, and otherwise the stranger from there that has to
    /// give way, if there is one.
    fn room_for(&self, address: IpAddr, max: usize) -> Option<Option<u64>> {
        if self.by_address.get(&address).copied().unwrap_or(0) < max {
            return None;
        }
        let theirs = self.strangers.iter().find(|(_, (other, _))| *other == Some(address));
        Some(theirs.map(|(number, _)| *number))
    }

    fn count(&mut self, address: Option<IpAddr>) {
        if let Some(address) = address {
            *self.by_address.entry(address).or_default() += 1;
        }
    }

    /// Aborts a stranger's task and frees its slot at once.
    fn displace(&mut self, number: u64) {
        if let Some((address, task)) = self.strangers.remove(&number) {
            self.release(address);
            if let Some(task) = task {
                task.abort();
            }
        }
    }

    fn release(&mut self, address: Option<IpAddr>) {
        self.taken = self.taken.saturating_sub(1);
        let Some(address) = address else { return };
        if let Some(count) = self.by_address.get_mut(&address) {
            *count -= 1;
            if *count == 0 {
                self.by_address.remove(&address);
            }
        }
    }
}

/// The slot of one connection.
#[must_use = "dropping it frees the slot"]
#[derive(Debug)]
pub(super) struct ConnectionSlot {
    slots: Arc<ConnectionSlots>,
    number: u64,
    address: Option<IpAddr>,
    logged_in: bool,
}

impl ConnectionSlot {
    /// Returns the number of this slot, for [`ConnectionSlots::has_task`].
    pub(super) fn number(&self) -> u64 {
        self.number
    }

    /// Counts the slot for the address that a proxy has said. Returns whether a stranger from there gave way to it.
    pub(super) fn comes_from(&mut self, from: IpAddr) -> Result<bool, Full> {
        let address = network(from);
        let mut inner = self.slots.inner.lock();
        // If the connection has just been displaced, its task is about to end.
        if self.address.is_some() || !inner.strangers.contains_key(&self.number) {
            return Ok(false);
        }
        let displaced = match inner.room_for(address, self.slots.max_per_address()) {
            Some(gone) => Some(gone.ok_or(Full::Address)?),
            None => None,
        };
        if let Some(number) = displaced {
            inner.displace(number);
        }
        if let Some((known, _)) = inner.strangers.get_mut(&self.number) {
            *known = Some(address);
        }
        inner.count(Some(address));
        self.address = Some(address);
        Ok(displaced.is_some())
    }

    /// Makes the slot permanent, because the client has logged in. Every call after the first is free.
    pub(super) fn log_in(&mut self) {
        if !self.logged_in {
            // If the connection has just been displaced, its task is about to end.
            self.logged_in = self.slots.inner.lock().strangers.remove(&self.number).is_some();
        }
    }
}

impl ConnectionSlots {
    /// Stores the handle that aborts the task of the connection with this number.
    pub(super) fn has_task(&self, number: u64, task: AbortHandle) {
        if let Some((_, slot)) = self.inner.lock().strangers.get_mut(&number) {
            *slot = Some(task);
        }
    }
}

impl Drop for ConnectionSlot {
    fn drop(&mut self) {
        let mut inner = self.slots.inner.lock();
        let stranger = inner.strangers.remove(&self.number).is_some();
        // A displaced connection has already lost its slot.
        if self.logged_in || stranger {
            inner.release(self.address);
        }
    }
}

/// Returns what counts as one address: an IPv4 address, or an IPv6 network of 64 bits, since a host can have every
/// address of such a network.
fn network(address: IpAddr) -> IpAddr {
    match address.to_canonical() {
        IpAddr::V6(v6) => IpAddr::V6(Ipv6Addr::from_bits(v6.to_bits() >> 64 << 64)),
        v4 => v4,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn address(last: u8) -> IpAddr {
        IpAddr::from([10, 0, 0, last])
    }

    #[test]
    fn the_oldest_stranger_gives_way_and_who_is_logged_in_does_not() {
        let slots = ConnectionSlots::new(3, 3);
        let mut taken: Vec<ConnectionSlot> =
            (1..=3).map(|n| slots.take(Some(address(n))).unwrap().0).collect();
        taken[0].log_in();
        let (fourth, displaced) = slots.take(Some(address(4))).unwrap();
        assert!(displaced);
        drop(taken.remove(1));
        assert_eq!(slots.inner.lock().taken, 3, "a displaced one frees nothing when it ends");
        taken[1].log_in();
        let mut fourth = fourth;
        fourth.log_in();
        assert_eq!(slots.take(Some(address(5))).map(drop), Err(Full::Process), "nobody is a stranger");
        drop(fourth);
        assert!(slots.take(Some(address(5))).is_ok());
        drop(taken);
        assert_eq!(slots.inner.lock().taken, 0);
        assert!(slots.inner.lock().by_address.is_empty());
    }

    #[test]
    fn an_address_has_its_share_and_its_own_strangers_give_way() {
        let slots = ConnectionSlots::new(10, 2);
        let mut one = slots.take(Some(address(1))).unwrap().0;
        let other = slots.take(Some(address(2))).unwrap().0;
        one.log_in();
        let stranger = slots.take(Some(address(1))).unwrap().0;
        assert!(slots.inner.lock().strangers.contains_key(&other.number));
        let (mut newcomer, displaced) = slots.take(Some(address(1))).unwrap();
        assert!(displaced);
        assert!(slots.inner.lock().strangers.contains_key(&other.number), "another's stranger stays");
        drop(stranger);
        newcomer.log_in();
        assert_eq!(slots.take(Some(address(1))).map(drop), Err(Full::Address));
        assert!(slots.take(Some(address(3))).is_ok());
    }

    #[test]
    fn who_comes_by_a_proxy_counts_for_its_own_address() {
        let slots = ConnectionSlots::new(10, 1);
        let mut first = slots.take(None).unwrap().0;
        let mut second = slots.take(None).unwrap().0;
        assert!(slots.inner.lock().by_address.is_empty(), "a proxy is no client");
        assert_eq!(first.comes_from(address(1)), Ok(false));
        assert_eq!(second.comes_from(address(1)), Ok(true), "the stranger from there gives way");
        drop(first);
        assert_eq!(slots.inner.lock().taken, 1);
        second.log_in();
        let mut third = slots.take(None).unwrap().0;
        assert_eq!(third.comes_from(address(1)), Err(Full::Address));
        drop(third);
        assert_eq!(slots.take(Some(address(1))).map(drop), Err(Full::Address), "as for who comes itself");
        drop(second);
        assert_eq!(slots.inner.lock().taken, 0);
        assert!(slots.inner.lock().by_address.is_empty());
    }

    #[test]
    fn hosts_have_many_ipv6_addresses() {
        let ip = |text: &str| network(text.parse().unwrap());
        assert_eq!(ip("2001:db8:1:2::1"), ip("2001:db8:1:2:ffff::9"));
        assert_ne!(ip("2001:db8:1:2::1"), ip("2001:db8:1:3::1"));
        assert_eq!(ip("::ffff:10.0.0.1"), address(1));
    }
}
