//! Values by their tags. Their memory depends on how many there are, and not on how far apart their tags are.
//!
//! Tags are given in order, and the values are mostly taken in order. Each value has a place in a queue. A value that is taken
//! out of the middle leaves a hole. One value that is never taken would keep the holes of all later ones alive, so the oldest
//! values of a queue that is more than half holes move into an ordered map.
//!
//! ```text
//!   tags      3       8      |  1000001  1000002  1000003  1000004
//!             far: a map     |  near: a queue with a hole for each value that was taken
//! ```
//!
//! Each value moves at most once, and each hole is dropped once, so an operation takes constant time on average, or logarithmic
//! time where it is about a value that has moved.

use std::collections::{BTreeMap, VecDeque};

/// The holes that the queue may have, whatever its length is.
const SLACK: usize = 256;
/// An empty queue with more places than this is freed.
const KEPT: usize = 4_096;

/// Values by their tags: 1 for the first, and one more for each that follows.
#[derive(Debug)]
pub(super) struct ByTag<T> {
    /// The tag of `near.front()`.
    first: u64,
    near: VecDeque<Option<T>>,
    /// How many places of `near` are no holes.
    filled: usize,
    /// Values with tags below `first`.
    far: BTreeMap<u64, T>,
}

impl<T> ByTag<T> {
    pub(super) fn new() -> ByTag<T> {
        ByTag { first: 1, near: VecDeque::new(), filled: 0, far: BTreeMap::new() }
    }

    /// Returns the number of values.
    #[inline]
    pub(super) fn len(&self) -> usize {
        self.filled + self.far.len()
    }

    /// Returns the number of places in the queue, holes and free places included.
    #[inline]
    pub(super) fn places(&self) -> usize {
        self.near.capacity()
    }

    /// Returns the tag of the queue's first place. Values with smaller tags have moved into the map.
    #[inline]
    pub(super) fn first_near(&self) -> u64 {
        self.first
    }

    /// Adds a value. Returns its tag.
    #[inline]
    pub(super) fn push(&mut self, value: T) -> u64 {
        let tag = self.first + self.near.len() as u64;
        self.near.push_back(Some(value));
        self.filled += 1;
        tag
    }

    /// Returns the value that was added last, if it is still here.
    pub(super) fn newest_mut(&mut self) -> Option<&mut T> {
        self.near.back_mut()?.as_mut()
    }

    #[inline]
    pub(super) fn get_mut(&mut self, tag: u64) -> Option<&mut T> {
        match tag.checked_sub(self.first) {
            Some(at) => self.near.get_mut(usize::try_from(at).ok()?)?.as_mut(),
            None => self.far.get_mut(&tag),
        }
    }

    /// Takes one value. Call [`ByTag::tidy`] after the last of them.
    #[inline]
    pub(super) fn take(&mut self, tag: u64) -> Option<T> {
        match tag.checked_sub(self.first) {
            Some(at) => {
                let value = self.near.get_mut(usize::try_from(at).ok()?)?.take()?;
                self.filled -= 1;
                Some(value)
            }
            None => self.far.remove(&tag),
        }
    }

    /// Takes the oldest value, if it is the one that `is_it` looks for.
    #[inline]
    pub(super) fn pop_first_if(&mut self, is_it: impl FnOnce(u64, &T) -> bool) -> Option<(u64, T)> {
        if !self.far.is_empty() {
            return self.pop_far_if(is_it);
        }
        self.drop_holes();
        let tag = self.first;
        let value =
            self.near.pop_front_if(|place| place.as_ref().is_some_and(|value| is_it(tag, value)))??;
        self.first += 1;
        self.filled -= 1;
        Some((tag, value))
    }

    #[cold]
    fn pop_far_if(&mut self, is_it: impl FnOnce(u64, &T) -> bool) -> Option<(u64, T)> {
        let oldest = self.far.first_entry()?;
        is_it(*oldest.key(), oldest.get()).then(|| oldest.remove_entry())
    }

    /// Drops holes, if there are too many. Calls `moved` with each value that moves into the map.
    #[inline]
    pub(super) fn tidy(&mut self, moved: impl FnMut(u64, &T)) {
        self.drop_holes();
        if self.near.len() > 2 * self.filled + SLACK {
            self.move_oldest(moved);
        } else if self.near.is_empty() && self.near.capacity() > KEPT {
            self.near = VecDeque::new();
        }
    }

    /// Drops the holes in front of the oldest value of the queue.
    #[inline]
    fn drop_holes(&mut self) {
        while self.near.pop_front_if(|place| place.is_none()).is_some() {
            self.first += 1;
        }
    }

    #[cold]
    fn move_oldest(&mut self, mut moved: impl FnMut(u64, &T)) {
        while self.near.len() > 2 * self.filled + SLACK
            && let Some(place) = self.near.pop_front()
        {
            if let Some(value) = place {
                moved(self.first, &value);
                self.far.insert(self.first, value);
                self.filled -= 1;
            }
            self.first += 1;
        }
        self.drop_holes();
        self.near.shrink_to(2 * self.near.len() + KEPT);
    }

    /// Returns all values, oldest first.
    pub(super) fn iter(&self) -> impl Iterator<Item = (u64, &T)> {
        let near = (self.first..).zip(&self.near);
        let near = near.filter_map(|(tag, place)| Some((tag, place.as_ref()?)));
        self.far.iter().map(|(tag, value)| (*tag, value)).chain(near)
    }

    /// Takes all values, oldest first.
    pub(super) fn take_all(&mut self) -> impl Iterator<Item = T> + use<T> {
        self.first += self.near.len() as u64;
        self.filled = 0;
        let (far, near) = (std::mem::take(&mut self.far), std::mem::take(&mut self.near));
        far.into_values().chain(near.into_iter().flatten())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[derive(Clone, Debug)]
    enum Step {
        Push(u64),
        /// takes the value at this share of the tags so far
        Take(f64),
        /// takes all up to the tag at this share
        TakeUpTo(f64),
        /// takes all but those with a tag that this divides
        TakeAllBut(u64),
        Change(f64),
        TakeAll,
    }

    fn step() -> impl Strategy<Value = Step> {
        prop_oneof![
            10 => (1..600_u64).prop_map(Step::Push),
            20 => (0.0..1.1).prop_map(Step::Take),
            2 => (0.0..1.1).prop_map(Step::TakeUpTo),
            6 => (2..500_u64).prop_map(Step::TakeAllBut),
            5 => (0.0..1.1).prop_map(Step::Change),
            1 => Just(Step::TakeAll),
        ]
    }

    #[expect(
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        clippy::cast_precision_loss,
        reason = "some tag near this share will do"
    )]
    fn at(share: f64, tags: u64) -> u64 {
        (share * tags as f64) as u64
    }

    proptest! {
        #[test]
        fn it_is_a_map(steps in prop::collection::vec(step(), 1..60)) {
            let (mut values, mut model) = (ByTag::new(), BTreeMap::new());
            let (mut tags, mut moved) = (0, Vec::new());
            for step in steps {
                match step {
                    Step::Push(count) => for _ in 0..count {
                        tags += 1;
                        prop_assert_eq!(values.push(tags * 10), tags);
                        model.insert(tags, tags * 10);
                    },
                    Step::Take(share) => {
                        let tag = at(share, tags);
                        prop_assert_eq!(values.take(tag), model.remove(&tag));
                    }
                    Step::TakeUpTo(share) => {
                        let last = at(share, tags);
                        while let Some((tag, value)) = values.pop_first_if(|tag, _| tag <= last) {
                            prop_assert_eq!(model.pop_first(), Some((tag, value)));
                        }
                        prop_assert!(model.first_key_value().is_none_or(|(first, _)| *first > last));
                    }
                    Step::TakeAllBut(divisor) => for tag in (1..=tags).filter(|tag| tag % divisor != 0) {
                        prop_assert_eq!(values.take(tag), model.remove(&tag));
                    },
                    Step::Change(share) => {
                        let tag = at(share, tags);
                        let (value, expected) = (values.get_mut(tag), model.get_mut(&tag));
                        prop_assert_eq!(&value, &expected);
                        value.into_iter().chain(expected).for_each(|value| *value += 1);
                    }
                    Step::TakeAll => {
                        let all: Vec<u64> = values.take_all().collect();
                        prop_assert_eq!(all, std::mem::take(&mut model).into_values().collect::<Vec<_>>());
                    }
                }
                values.tidy(|tag, _| moved.push(tag));
                prop_assert_eq!(values.len(), model.len());
                prop_assert!(values.iter().eq(model.iter().map(|(tag, value)| (*tag, value))));
                prop_assert_eq!(values.newest_mut().copied(), model.get(&tags).copied());
                prop_assert!(values.near.len() <= 2 * values.len() + SLACK);
                prop_assert!(values.far.keys().all(|tag| *tag < values.first_near()));
            }
            prop_assert!(moved.is_sorted_by(|one, next| one < next), "each moves once, the oldest first");
        }
    }

    #[test]
    fn two_million_behind_one_take_the_room_of_one() {
        let mut values = ByTag::new();
        let stuck = values.push(0_u64);
        for _ in 0..2_000_000 {
            let tag = values.push(1);
            assert_eq!(values.take(tag), Some(1));
            values.tidy(|_, _| ());
        }
        assert_eq!(values.len(), 1);
        assert!(values.places() <= KEPT, "{}", values.places());
        assert_eq!(values.pop_first_if(|_, _| true), Some((stuck, 0)));
        values.tidy(|_, _| ());
        assert_eq!(values.push(2), 2_000_002);
    }

    #[test]
    fn an_empty_queue_that_was_long_is_freed() {
        let mut values = ByTag::new();
        (0..100_000).for_each(|n| assert_eq!(values.push(n), n + 1));
        while values.pop_first_if(|_, _| true).is_some() {}
        values.tidy(|_, _| ());
        assert_eq!(values.places(), 0);
    }
}
