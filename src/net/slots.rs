//! Limits the number of client connections, in all and per address, and decides which connection gives way to which.
//!
//! A connection whose address is not known yet, because a proxy has to say it, counts for no address until then.
//!
//! A connection that has not logged in is a *stranger*. When a limit is reached, a stranger that counts toward this limit is closed, and
//! the newcomer takes its slot: the oldest one of the newcomer's address, or of the address that has the most ([`Strangers`]). If there
//! is no stranger, the newcomer is turned away. This way, connections that say nothing can't keep out a client that logs in.

use super::Relay;
use super::strangers::Strangers;
use crate::stats::Stats;
use parking_lot::Mutex;
use std::collections::HashMap;
use std::fmt;
use std::net::{IpAddr, Ipv6Addr};
use std::sync::Arc;
use tokio::task::AbortHandle;

/// The limit because of which a connection is turned away.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Full {
    /// `limits.max_connections`
    Process,
    /// `limits.connections_per_address`
    Address,
    /// `limits.handshakes`
    Handshakes,
}

impl fmt::Display for Full {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Full::Process => "limits.max_connections",
            Full::Address => "limits.connections_per_address",
            Full::Handshakes => "limits.handshakes",
        })
    }
}

/// The limits.
#[derive(Clone, Copy, Debug)]
pub(super) struct Most {
    /// connections
    pub(super) all: usize,
    /// connections of one address
    pub(super) per_address: usize,
    /// connections that have not logged in
    pub(super) handshakes: usize,
}

impl Most {
    pub(super) fn of(relay: &Relay) -> Most {
        Most {
            all: relay.settings.max_connections,
            per_address: relay.settings.connections_per_address,
            handshakes: relay.settings.handshakes,
        }
    }
}

/// All slots for client connections.
#[derive(Debug)]
pub(super) struct ConnectionSlots {
    inner: Mutex<Inner>,
    stats: Arc<Stats>,
}

#[derive(Debug)]
struct Inner {
    most: Most,
    last_number: u64,
    taken: usize,
    by_address: HashMap<IpAddr, usize>,
    strangers: Strangers,
}

impl ConnectionSlots {
    /// Creates the slots. `stats` shows how many strangers there are.
    pub(super) fn new(most: Most, stats: Arc<Stats>) -> Arc<ConnectionSlots> {
        let strangers = Strangers::default();
        let inner = Inner { most, last_number: 0, taken: 0, by_address: HashMap::new(), strangers };
        Arc::new(ConnectionSlots { inner: Mutex::new(inner), stats })
    }

    /// Changes the limits for connections that come from now on. Those that are there stay.
    pub(super) fn set_limits(&self, most: Most) {
        self.inner.lock().most = most;
    }

    /// Takes a slot for a new connection from this address; `None`: it is not known yet. Also returns the limit because of which a stranger
    /// gave way to it, if one did.
    pub(super) fn take(
        self: &Arc<ConnectionSlots>,
        from: Option<IpAddr>,
    ) -> Result<(ConnectionSlot, Option<Full>), Full> {
        let address = from.map(network);
        let mut inner = self.inner.lock();
        let displaced = inner.make_room(address)?;
        inner.last_number += 1;
        let number = inner.last_number;
        inner.taken += 1;
        inner.count(address);
        inner.strangers.insert(number, address);
        self.stats.set_handshakes(inner.strangers.len());
        let slot = ConnectionSlot { slots: Arc::clone(self), number, address, logged_in: false };
        Ok((slot, displaced))
    }
}

impl Inner {
    /// Makes room for one more connection. Returns the limit because of which a stranger had to give way.
    fn make_room(&mut self, address: Option<IpAddr>) -> Result<Option<Full>, Full> {
        if let Some(address) = address
            && self.is_full(address)
        {
            let theirs = self.strangers.oldest_of(address).ok_or(Full::Address)?;
            self.displace(theirs);
            return Ok(Some(Full::Address));
        }
        let full = if self.taken >= self.most.all {
            Full::Process
        } else if self.strangers.len() >= self.most.handshakes {
            Full::Handshakes
        } else {
            return Ok(None);
        };
        let first = self.strangers.first_to_go().ok_or(full)?;
        self.displace(first);
        Ok(Some(full))
    }

    /// Returns true if there are as many connections from this address as there may be.
    fn is_full(&self, address: IpAddr) -> bool {
        self.by_address.get(&address).copied().unwrap_or(0) >= self.most.per_address
    }

    fn count(&mut self, address: Option<IpAddr>) {
        if let Some(address) = address {
            *self.by_address.entry(address).or_default() += 1;
        }
    }

    /// Aborts a stranger's task and frees its slot at once.
    fn displace(&mut self, number: u64) {
        if let Some((address, task)) = self.strangers.remove(number) {
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

    /// Counts the slot for the address that a proxy has said. Returns the limit because of which a stranger from there gave way to it, if
    /// one did.
    pub(super) fn comes_from(&mut self, from: IpAddr) -> Result<Option<Full>, Full> {
        let address = network(from);
        let mut inner = self.slots.inner.lock();
        // If the connection has just been displaced, its task is about to end.
        if self.address.is_some() || !inner.strangers.contains(self.number) {
            return Ok(None);
        }
        let displaced = if inner.is_full(address) {
            let theirs = inner.strangers.oldest_of(address).ok_or(Full::Address)?;
            inner.displace(theirs);
            Some(Full::Address)
        } else {
            None
        };
        inner.strangers.comes_from(self.number, address);
        inner.count(Some(address));
        self.address = Some(address);
        self.slots.stats.set_handshakes(inner.strangers.len());
        Ok(displaced)
    }

    /// Makes the slot permanent, because the client has logged in. Every call after the first is free.
    pub(super) fn log_in(&mut self) {
        if !self.logged_in {
            // If the connection has just been displaced, its task is about to end.
            let mut inner = self.slots.inner.lock();
            self.logged_in = inner.strangers.remove(self.number).is_some();
            self.slots.stats.set_handshakes(inner.strangers.len());
        }
    }
}

impl ConnectionSlots {
    /// Stores the handle that aborts the task of the connection with this number.
    pub(super) fn has_task(&self, number: u64, task: AbortHandle) {
        self.inner.lock().strangers.has_task(number, task);
    }
}

impl Drop for ConnectionSlot {
    fn drop(&mut self) {
        let mut inner = self.slots.inner.lock();
        let stranger = inner.strangers.remove(self.number).is_some();
        self.slots.stats.set_handshakes(inner.strangers.len());
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
    use proptest::prelude::*;

    fn address(last: u8) -> IpAddr {
        IpAddr::from([10, 0, 0, last])
    }

    fn slots(all: usize, per_address: usize, handshakes: usize) -> Arc<ConnectionSlots> {
        ConnectionSlots::new(Most { all, per_address, handshakes }, Stats::new())
    }

    #[test]
    fn the_oldest_stranger_gives_way_and_who_is_logged_in_does_not() {
        let slots = slots(3, 3, 9);
        let mut taken: Vec<ConnectionSlot> =
            (1..=3).map(|n| slots.take(Some(address(n))).unwrap().0).collect();
        taken[0].log_in();
        let (fourth, displaced) = slots.take(Some(address(4))).unwrap();
        assert_eq!(displaced, Some(Full::Process));
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
        let slots = slots(10, 2, 99);
        let mut one = slots.take(Some(address(1))).unwrap().0;
        let other = slots.take(Some(address(2))).unwrap().0;
        one.log_in();
        let stranger = slots.take(Some(address(1))).unwrap().0;
        assert!(slots.inner.lock().strangers.contains(other.number));
        let (mut newcomer, displaced) = slots.take(Some(address(1))).unwrap();
        assert_eq!(displaced, Some(Full::Address));
        assert!(slots.inner.lock().strangers.contains(other.number), "another's stranger stays");
        drop(stranger);
        newcomer.log_in();
        assert_eq!(slots.take(Some(address(1))).map(drop), Err(Full::Address));
        assert!(slots.take(Some(address(3))).is_ok());
    }

    #[test]
    fn who_comes_by_a_proxy_counts_for_its_own_address() {
        let slots = slots(10, 1, 99);
        let mut first = slots.take(None).unwrap().0;
        let mut second = slots.take(None).unwrap().0;
        assert!(slots.inner.lock().by_address.is_empty(), "a proxy is no client");
        assert_eq!(first.comes_from(address(1)), Ok(None));
        assert_eq!(
            second.comes_from(address(1)),
            Ok(Some(Full::Address)),
            "the stranger from there gives way"
        );
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
    fn a_crowd_of_handshakes_gives_way_itself_and_keeps_nobody_out() {
        let slots = slots(1000, 1000, 10);
        let honest = slots.take(Some(address(1))).unwrap().0;
        let mut crowd = Vec::new();
        for n in 0..100 {
            let (slot, displaced) = slots.take(Some(address(2))).unwrap();
            assert_eq!(displaced, (n >= 9).then_some(Full::Handshakes));
            crowd.push(slot);
        }
        assert!(
            slots.inner.lock().strangers.contains(honest.number),
            "it is the oldest, and not of the crowd"
        );
        assert_eq!(slots.stats.snapshot().handshakes, 10);
        let mut logged_in: Vec<ConnectionSlot> = Vec::new();
        for _ in 0..20 {
            let mut slot = slots.take(Some(address(1))).unwrap().0;
            slot.log_in();
            logged_in.push(slot);
        }
        assert!(logged_in.iter().all(|slot| slot.logged_in), "who logs in makes room for the next");
        drop((honest, crowd, logged_in));
        assert_eq!((slots.inner.lock().taken, slots.stats.snapshot().handshakes), (0, 0));
    }

    proptest! {
        /// Whatever connections do, and at whatever stage they end: the counts are those of the connections that are there.
        #[test]
        fn no_place_leaks(steps in prop::collection::vec((0_u8..6, 0_u8..3, any::<prop::sample::Index>()), 0..100)) {
            let slots = slots(8, 5, 4);
            let mut held: Vec<ConnectionSlot> = Vec::new();
            for (what, at, which) in steps {
                let index = |held: &Vec<ConnectionSlot>| which.index(held.len());
                match what {
                    0 if !held.is_empty() => drop(held.swap_remove(index(&held))),
                    1 if !held.is_empty() => { let at = index(&held); held[at].log_in(); }
                    2 if !held.is_empty() => {
                        let which = index(&held);
                        if held[which].comes_from(address(at)).is_err() {
                            drop(held.swap_remove(which));
                        }
                    }
                    3 => held.extend(slots.take(None).ok().map(|(slot, _)| slot)),
                    _ => held.extend(slots.take(Some(address(at))).ok().map(|(slot, _)| slot)),
                }
                let inner = slots.inner.lock();
                let there = |slot: &&ConnectionSlot| slot.logged_in || inner.strangers.contains(slot.number);
                prop_assert_eq!(inner.taken, held.iter().filter(there).count());
                prop_assert!(inner.taken <= 8 && inner.strangers.len() <= 4);
                for at in 0..3 {
                    let theirs = held.iter().filter(there).filter(|slot| slot.address == Some(address(at))).count();
                    prop_assert_eq!(inner.by_address.get(&address(at)).copied().unwrap_or(0), theirs);
                    prop_assert!(theirs <= 5);
                }
            }
            held.clear();
            let inner = slots.inner.lock();
            prop_assert_eq!((inner.taken, inner.by_address.len(), inner.strangers.len()), (0, 0, 0));
        }
    }

    #[test]
    fn hosts_have_many_ipv6_addresses() {
        let ip = |text: &str| network(text.parse().unwrap());
        assert_eq!(ip("2001:db8:1:2::1"), ip("2001:db8:1:2:ffff::9"));
        assert_ne!(ip("2001:db8:1:2::1"), ip("2001:db8:1:3::1"));
        assert_eq!(ip("::ffff:10.0.0.1"), address(1));
    }
}
