//! How many connections a user may have: `limits.connections_per_user`.
//!
//! A connection counts from the client's `connection.open` on. By then the broker has accepted the login, so nobody takes places in
//! another's name. It counts until the client has left, or was told to: outcomes that are awaited without the client take no place.

use core::net::IpAddr;
use parking_lot::Mutex;
use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};

/// The connections of all users.
#[derive(Debug, Default)]
pub struct UserPlaces {
    /// 0: there is no limit
    max: AtomicUsize,
    taken: Mutex<HashMap<Box<str>, usize>>,
}

impl UserPlaces {
    /// Sets the most connections that a user may have; 0: as many as it likes. Connections that are open stay.
    pub fn set_max(&self, max: usize) {
        self.max.store(max, Relaxed);
    }

    /// Returns how many users have connections, and how many the one has that has the most.
    pub fn users(&self) -> (usize, usize) {
        let taken = self.taken.lock();
        (taken.len(), taken.values().copied().max().unwrap_or(0))
    }

    /// Takes a place, or returns the limit that is reached.
    pub(super) fn take(self: &Arc<UserPlaces>, user: &str) -> Result<UserPlace, usize> {
        let max = self.max.load(Relaxed);
        let mut taken = self.taken.lock();
        if let Some(count) = taken.get_mut(user) {
            if max > 0 && *count >= max {
                return Err(max);
            }
            *count += 1;
        } else {
            taken.insert(user.into(), 1);
        }
        Ok(UserPlace { places: Arc::clone(self), user: user.into() })
    }
}

/// The place of one connection.
#[must_use = "dropping it frees the place"]
#[derive(Debug)]
pub(super) struct UserPlace {
    places: Arc<UserPlaces>,
    user: Box<str>,
}

impl Drop for UserPlace {
    fn drop(&mut self) {
        let mut taken = self.places.taken.lock();
        if let Some(count) = taken.get_mut(&self.user) {
            *count -= 1;
            if *count == 0 {
                taken.remove(&self.user);
            }
        }
    }
}

/// Returns the name that limits of users count a client by. If the mechanism does not show the user, it is the client's address, so nobody
/// escapes a limit by another mechanism.
pub fn counted_as(user: Option<&str>, peer: IpAddr) -> Box<str> {
    user.map_or_else(|| format!("(unknown user at {peer})").into(), Box::from)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn a_reload_changes_the_limit_and_ends_nobody() {
        let places = Arc::new(UserPlaces::default());
        let all: Vec<UserPlace> = (0..5).map(|_| places.take("bob").unwrap()).collect();
        places.set_max(5);
        assert_eq!(places.take("bob").map(drop), Err(5));
        assert!(places.take("eve").is_ok());
        places.set_max(2);
        assert_eq!(places.users(), (1, 5));
        drop(all);
        assert_eq!(places.users(), (0, 0));
    }

    proptest! {
        /// Whatever comes and goes, the counts are those of the places that are held.
        #[test]
        fn counts_are_what_is_held(max in 0_usize..4, steps in prop::collection::vec((0_usize..3, any::<bool>(), any::<prop::sample::Index>()), 0..60)) {
            let places = Arc::new(UserPlaces::default());
            places.set_max(max);
            let mut held: Vec<(usize, UserPlace)> = Vec::new();
            for (user, leaves, which) in steps {
                if leaves && !held.is_empty() {
                    drop(held.swap_remove(which.index(held.len())));
                    continue;
                }
                let theirs = held.iter().filter(|(other, _)| *other == user).count();
                match places.take(["a", "b", "c"][user]) {
                    Ok(place) => {
                        prop_assert!(max == 0 || theirs < max);
                        held.push((user, place));
                    }
                    Err(limit) => prop_assert!(limit == max && theirs >= max),
                }
                let count = |user: usize| held.iter().filter(|(other, _)| *other == user).count();
                let users = (0..3).filter(|user| count(*user) > 0).count();
                prop_assert_eq!(places.users(), (users, (0..3).map(count).max().unwrap_or(0)));
            }
            held.clear();
            prop_assert_eq!(places.users(), (0, 0));
        }
    }
}
