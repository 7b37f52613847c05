//! Groups keys by their locks, so that each lock is taken once for all of its keys.

use super::{HINTED, Key};

/// The places of at most [`HINTED`] keys in their list: those of one lock together, and in their order.
pub(super) struct ByLock {
    places: [u8; HINTED],
    /// For each lock, where its part of the places ends.
    ends: [u8; Key::LOCKS],
}

const _: () = assert!(HINTED <= u8::MAX as usize);
const _: () = assert!(Key::LOCKS <= u8::MAX as usize);

impl ByLock {
    /// Groups these keys. Leaves out those behind the first [`HINTED`].
    #[expect(clippy::cast_possible_truncation, reason = "there are at most 64 keys and 16 locks")]
    pub(super) fn of(keys: impl Iterator<Item = Key>) -> ByLock {
        let mut locks = [0_u8; HINTED];
        let mut ends = [0_u8; Key::LOCKS];
        let mut count = 0;
        for (lock, key) in locks.iter_mut().zip(keys) {
            let shard = key.shard(Key::LOCKS);
            *lock = shard as u8;
            ends[shard] += 1;
            count += 1;
        }
        let mut sum = 0;
        let mut ends = ends.map(|count| {
            sum += count;
            sum - count
        });
        let mut places = [0_u8; HINTED];
        for (place, lock) in (0..).zip(locks.iter().take(count)) {
            let next = &mut ends[usize::from(*lock)];
            places[usize::from(*next)] = place;
            *next += 1;
        }
        ByLock { places, ends }
    }

    /// Returns the places of each lock. A lock without keys has none.
    pub(super) fn groups(&self) -> impl Iterator<Item = &[u8]> {
        let mut begin = 0;
        self.ends.iter().map(move |end| {
            let end = usize::from(*end);
            let group = self.places.get(begin..end).unwrap_or_default();
            begin = end;
            group
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn each_place_comes_once_with_those_of_its_lock_and_in_order(keys in prop::collection::vec(any::<u128>(), 0..80)) {
            let keys: Vec<Key> = keys.into_iter().map(Key).collect();
            let order = ByLock::of(keys.iter().copied());
            let groups: Vec<&[u8]> = order.groups().collect();
            prop_assert_eq!(groups.len(), Key::LOCKS);
            for (lock, group) in groups.iter().enumerate() {
                let of_lock = |place: &usize| keys[*place].shard(Key::LOCKS) == lock;
                let expected: Vec<usize> = (0..keys.len().min(HINTED)).filter(of_lock).collect();
                prop_assert_eq!(group.iter().map(|place| usize::from(*place)).collect::<Vec<_>>(), expected);
            }
        }
    }
}
