//! The connections that have not logged in, and which of them gives way.
//!
//! It is the oldest one of the address that has the most of them. A crowd from one address pushes out its own connections, and nobody
//! who logs in from elsewhere at that moment. Connections whose address a proxy has still to say are a crowd of their own.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::net::IpAddr;
use tokio::task::AbortHandle;

/// An address; `None`: it is not known yet.
type From = Option<IpAddr>;
/// How many connections an address has, and the number of its oldest one.
type Rank = (usize, Reverse<u64>);

/// All connections that have not logged in, by their numbers. A lower number is older.
#[derive(Debug, Default)]
pub(super) struct Strangers {
    all: BTreeMap<u64, Stranger>,
    by_address: HashMap<From, BTreeSet<u64>>,
    /// the addresses, that with the most connections last
    ranks: BTreeSet<(Rank, From)>,
}

#[derive(Debug)]
struct Stranger {
    from: From,
    task: Option<AbortHandle>,
}

impl Strangers {
    pub(super) fn len(&self) -> usize {
        self.all.len()
    }

    pub(super) fn contains(&self, number: u64) -> bool {
        self.all.contains_key(&number)
    }

    /// Adds the newest one.
    pub(super) fn insert(&mut self, number: u64, from: From) {
        self.all.insert(number, Stranger { from, task: None });
        self.change(from, |numbers| {
            numbers.insert(number);
        });
    }

    /// Stores the handle that aborts its task.
    pub(super) fn has_task(&mut self, number: u64, task: AbortHandle) {
        if let Some(stranger) = self.all.get_mut(&number) {
            stranger.task = Some(task);
        }
    }

    /// Removes it. Returns its address and its task, or `None` if it is no stranger.
    pub(super) fn remove(&mut self, number: u64) -> Option<(From, Option<AbortHandle>)> {
        let Stranger { from, task } = self.all.remove(&number)?;
        self.change(from, |numbers| {
            numbers.remove(&number);
        });
        Some((from, task))
    }

    /// Notes its address, which a proxy has said.
    pub(super) fn comes_from(&mut self, number: u64, address: IpAddr) {
        let Some((_, task)) = self.remove(number) else { return };
        self.insert(number, Some(address));
        if let Some(task) = task {
            self.has_task(number, task);
        }
    }

    /// Returns the oldest one of this address.
    pub(super) fn oldest_of(&self, address: IpAddr) -> Option<u64> {
        self.by_address.get(&Some(address)).and_then(|numbers| numbers.first().copied())
    }

    /// Returns the one that gives way: the oldest of the address that has the most. If several have as many, it is the one with the
    /// oldest connection.
    pub(super) fn first_to_go(&self) -> Option<u64> {
        self.ranks.last().map(|((_, Reverse(oldest)), _)| *oldest)
    }

    /// Changes the numbers of an address, and its rank.
    fn change(&mut self, from: From, change: impl FnOnce(&mut BTreeSet<u64>)) {
        let numbers = self.by_address.entry(from).or_default();
        let rank = |numbers: &BTreeSet<u64>| Some((numbers.len(), Reverse(*numbers.first()?)));
        if let Some(rank) = rank(numbers) {
            self.ranks.remove(&(rank, from));
        }
        change(numbers);
        match rank(numbers) {
            Some(rank) => {
                self.ranks.insert((rank, from));
            }
            None => {
                self.by_address.remove(&from);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn address(last: u8) -> IpAddr {
        IpAddr::from([10, 0, 0, last])
    }

    #[test]
    fn a_crowd_pushes_out_its_own() {
        let mut strangers = Strangers::default();
        strangers.insert(1, Some(address(1)));
        for number in 2..=50 {
            strangers.insert(number, Some(address(2)));
        }
        strangers.insert(51, None);
        for number in 2..=49 {
            assert_eq!(strangers.first_to_go(), Some(number));
            strangers.remove(number);
        }
        assert_eq!(strangers.first_to_go(), Some(1), "each has one now, and this is the oldest");
    }

    proptest! {
        /// The one that gives way is the one that a plain search finds, and nothing stays behind.
        #[test]
        fn the_first_to_go_is_what_a_search_finds(steps in prop::collection::vec((0_u8..5, 0_u8..4, any::<prop::sample::Index>()), 0..80)) {
            let mut strangers = Strangers::default();
            let mut model: Vec<(u64, From)> = Vec::new();
            let from = |at: u8| (at > 0).then(|| address(at));
            for (number, (what, at, which)) in (1..).zip(steps) {
                match what {
                    0 if !model.is_empty() => {
                        let (gone, _) = model.remove(which.index(model.len()));
                        prop_assert!(strangers.remove(gone).is_some());
                    }
                    1 if !model.is_empty() => {
                        let index = which.index(model.len());
                        model[index].1 = Some(address(at));
                        strangers.comes_from(model[index].0, address(at));
                    }
                    _ => {
                        model.push((number, from(at)));
                        strangers.insert(number, from(at));
                    }
                }
                let crowd = |from: From| model.iter().filter(|(_, other)| *other == from).count();
                let most = model.iter().map(|(_, from)| crowd(*from)).max();
                let found = model.iter().find(|(_, from)| Some(crowd(*from)) == most).map(|(number, _)| *number);
                prop_assert_eq!(strangers.first_to_go(), found);
                prop_assert_eq!(strangers.len(), model.len());
            }
            for (number, _) in model {
                strangers.remove(number);
            }
            prop_assert!(strangers.all.is_empty() && strangers.by_address.is_empty() && strangers.ranks.is_empty());
        }
    }
}
