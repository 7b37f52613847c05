//! The numbers of one producer that are stored: exact for the highest ones, and bounded for all others.
//!
//! ```text
//!   0 ........ unknown_below ........ end - places ................... end - 1
//!   not known  stored, but for holes   one bit for each: stored or not  the highest number that was stored
//! ```
//!
//! It never takes a number for stored that is not. It may take a number below the bits for not stored that is, see [`super::holes`]:
//! then a duplicate passes, and is counted.

use super::ProducerImage;
use super::holes::Holes;

/// The numbers of one producer in one epoch. The bits are the caller's: `places` of them, a multiple of 64. The bit of a number is at
/// its remainder.
#[derive(Debug, Default)]
pub(super) struct Numbers {
    /// One more than the highest number that was stored; 0 before the first.
    end: u64,
    /// Nothing is known of the numbers below this one: they came before this producer was remembered.
    unknown_below: u64,
    /// One more than the highest number that was let through; 0 before the first.
    top: u64,
    /// The numbers from `unknown_below` on that have no bit any more and are not stored.
    holes: Option<Box<Holes>>,
}

impl Numbers {
    /// Returns the highest number that was stored.
    pub(super) fn highest(&self) -> Option<u64> {
        self.end.checked_sub(1)
    }

    /// Returns true if the number is stored for certain.
    pub(super) fn is_stored(&self, number: u64, bits: &[u64]) -> bool {
        if number >= self.end {
            return false;
        }
        if number >= self.base(bits) {
            return bit(number, bits);
        }
        number >= self.unknown_below && !self.holes.as_ref().is_some_and(|holes| holes.contains(number))
    }

    /// Returns true if the number has no bit any more.
    pub(super) fn is_below(&self, number: u64, bits: &[u64]) -> bool {
        number < self.base(bits)
    }

    /// Returns true if numbers before this one were never let through.
    pub(super) fn leaves_gap(&self, number: u64) -> bool {
        self.top > 0 && number > self.top
    }

    /// Notes that a number was let through.
    pub(super) fn let_through(&mut self, number: u64) {
        self.top = self.top.max(number.saturating_add(1));
    }

    /// Notes that a number is stored.
    pub(super) fn store(&mut self, number: u64, bits: &mut [u64]) {
        if self.end == 0 {
            bits.fill(0);
            self.end = number.saturating_add(1);
            self.unknown_below = self.base(bits);
        } else if number >= self.end {
            self.move_to(number, bits);
        }
        if number >= self.base(bits) {
            set(number, bits);
            return;
        }
        if number < self.unknown_below {
            self.holes.get_or_insert_default().insert(0, self.unknown_below - 1);
            self.unknown_below = 0;
        }
        if let Some(holes) = &mut self.holes {
            holes.remove(number);
            if holes.is_empty() {
                self.holes = None;
            }
        }
    }

    /// Notes that a number is not stored after all.
    pub(super) fn forget(&mut self, number: u64, bits: &mut [u64]) {
        if number >= self.end {
            return;
        }
        if number >= self.base(bits) {
            clear(number, bits);
        } else if number >= self.unknown_below {
            self.holes.get_or_insert_default().insert(number, number);
        }
    }

    /// Returns the numbers that are not stored among those from `unknown_below` on: ranges with both ends, in order.
    pub(super) fn missing_ranges(&self, bits: &[u64]) -> Vec<(u64, u64)> {
        let mut missing = self.holes.as_ref().map(|holes| holes.ranges().to_vec()).unwrap_or_default();
        for number in (self.base(bits)..self.end).filter(|number| !bit(*number, bits)) {
            match missing.last_mut() {
                Some((_, last)) if number - *last == 1 => *last = number,
                _ => missing.push((number, number)),
            }
        }
        missing
    }

    /// Returns the numbers below which nothing is known.
    pub(super) fn unknown_below(&self) -> u64 {
        self.unknown_below
    }

    /// Makes the numbers of an image, for any number of places.
    pub(super) fn of_image(image: &ProducerImage, bits: &mut [u64]) -> Numbers {
        let mut numbers = Numbers { end: image.end, top: image.end, ..Numbers::default() };
        let base = numbers.base(bits);
        numbers.unknown_below = image.unknown_below.min(base);
        bits.fill(0);
        (base.max(image.unknown_below)..image.end).for_each(|number| set(number, bits));
        for &(first, last) in &image.missing {
            if first < base {
                numbers.holes.get_or_insert_default().insert(first, last.min(base - 1));
            }
            (first.max(base)..=last)
                .take_while(|number| *number < image.end)
                .for_each(|number| clear(number, bits));
        }
        numbers
    }

    /// Returns how many of the numbers that have a bit are not stored, those below the first ones included.
    pub(super) fn open(&self, bits: &[u64]) -> u64 {
        let stored: u64 = bits.iter().map(|word| u64::from(word.count_ones())).sum();
        (self.end - self.base(bits)).saturating_sub(stored)
    }

    /// Returns the bytes on the heap.
    pub(super) fn bytes(&self) -> usize {
        self.holes.as_ref().map_or(0, |holes| size_of::<Holes>() + holes.bytes())
    }

    /// The lowest number that has a bit.
    fn base(&self, bits: &[u64]) -> u64 {
        self.end.saturating_sub(places(bits))
    }

    /// Moves the places up, so that this number has the last one. A number that leaves them without being stored is a hole.
    fn move_to(&mut self, number: u64, bits: &mut [u64]) {
        let (base, end) = (self.base(bits), self.end);
        self.end = number.saturating_add(1);
        let new_base = self.base(bits);
        for leaving in base..new_base.min(end) {
            if !bit(leaving, bits) {
                self.missing(leaving, leaving);
            }
        }
        if new_base > end {
            self.missing(end, new_base - 1);
        }
        if number - end >= places(bits) {
            bits.fill(0);
        } else {
            (end..=number).for_each(|number| clear(number, bits));
        }
    }

    /// Notes numbers that have no bit any more and are not stored. They are higher than all others of this kind.
    fn missing(&mut self, first: u64, last: u64) {
        if first <= self.unknown_below {
            self.unknown_below = self.unknown_below.max(last + 1);
        } else {
            self.holes.get_or_insert_default().insert(first, last);
        }
    }
}

fn places(bits: &[u64]) -> u64 {
    bits.len() as u64 * u64::from(u64::BITS)
}

/// Returns the word of a number, and its bit there.
fn place(number: u64, bits: &[u64]) -> (usize, u64) {
    let place = number % places(bits).max(1);
    let word = usize::try_from(place / u64::from(u64::BITS)).unwrap_or_default();
    (word, 1 << (place % u64::from(u64::BITS)))
}

fn bit(number: u64, bits: &[u64]) -> bool {
    let (word, bit) = place(number, bits);
    bits.get(word).is_some_and(|word| word & bit != 0)
}

fn set(number: u64, bits: &mut [u64]) {
    let (word, bit) = place(number, bits);
    bits.get_mut(word).into_iter().for_each(|word| *word |= bit);
}

fn clear(number: u64, bits: &mut [u64]) {
    let (word, bit) = place(number, bits);
    bits.get_mut(word).into_iter().for_each(|word| *word &= !bit);
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::window::{Key, ProducerKey};
    use std::collections::BTreeSet;
    use std::time::Duration;

    /// A generator of numbers, so that a failure can be repeated.
    struct Rng(u64);

    impl Rng {
        fn below(&mut self, bound: u64) -> u64 {
            self.0 ^= self.0 << 13;
            self.0 ^= self.0 >> 7;
            self.0 ^= self.0 << 17;
            self.0 % bound
        }
    }

    /// The model is a set of what is stored. Nothing else may count as stored; and while there is no more than the bounds allow, all of it
    /// does.
    #[test]
    fn it_says_stored_of_nothing_that_is_not() {
        for seed in 1..=200_u64 {
            let mut rng = Rng(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15));
            let (mut numbers, mut bits) = (Numbers::default(), vec![0; 1 + (seed % 3) as usize]);
            let (mut stored, mut next) = (BTreeSet::new(), rng.below(3) * rng.below(1000));
            let (first, dense) = (next, seed % 2 == 0);
            for step in 0..600 {
                let number = match rng.below(if dense { 8 } else { 12 }) {
                    0 => next.saturating_sub(rng.below(300)),
                    1..8 => next,
                    8 => next + rng.below(5),
                    9 => next + rng.below(500),
                    10 => next.saturating_sub(rng.below(10)),
                    _ => rng.below(next + 1),
                };
                if rng.below(20) == 0 {
                    numbers.forget(number, &mut bits);
                    stored.remove(&number);
                } else if !(dense && number == next && rng.below(100) == 0) {
                    numbers.store(number, &mut bits);
                    stored.insert(number);
                }
                next = next.max(number + 1);
                let highest = numbers.highest().unwrap_or_default();
                for asked in (0..next + 2).filter(|n| *n + 400 > next || rng.below(8) == 0) {
                    let says = numbers.is_stored(asked, &bits);
                    let is_stored = stored.contains(&asked);
                    assert!(!says || is_stored, "seed {seed} step {step}: {asked} is not stored");
                    if asked + places(&bits) > highest && asked <= highest {
                        assert_eq!(says, is_stored, "seed {seed} step {step}: {asked} has a bit");
                    }
                }
            }
            // Numbers without many holes are known for as long as the producer is.
            let known = stored.iter().filter(|number| numbers.is_stored(**number, &bits)).count();
            assert!(
                !dense || known * 10 >= stored.len() * 6,
                "seed {seed} from {first}: {known} of {}",
                stored.len()
            );
        }
    }

    /// An image says the same of every number; with fewer places it may know fewer, and with more of them no more.
    #[test]
    fn an_image_says_the_same_with_any_number_of_places() {
        for seed in 1..=100_u64 {
            let mut rng = Rng(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15));
            let (mut numbers, mut bits) = (Numbers::default(), vec![0; 2]);
            let mut next = rng.below(2) * rng.below(1000);
            for _ in 0..rng.below(800) {
                next += 1 + rng.below(8) / 7 * rng.below(40);
                numbers.store(next, &mut bits);
                if rng.below(9) == 0 {
                    numbers.forget(next.saturating_sub(rng.below(200)), &mut bits);
                }
            }
            let image = ProducerImage {
                producer: ProducerKey::new(Key(1)),
                epoch: 0,
                ttl: Duration::from_secs(1),
                end: numbers.highest().map_or(0, |highest| highest + 1),
                unknown_below: numbers.unknown_below(),
                missing: numbers.missing_ranges(&bits),
            };
            for words in [1, 2, 5] {
                let mut other_bits = vec![u64::MAX; words];
                let other = Numbers::of_image(&image, &mut other_bits);
                assert_eq!(other.highest(), numbers.highest());
                for number in 0..next + 3 {
                    let (is, was) = (other.is_stored(number, &other_bits), numbers.is_stored(number, &bits));
                    assert!(!is || was, "seed {seed}, {words} words: {number} is not stored");
                    assert!(
                        words < 2
                            || is == was
                            || other.holes.as_ref().is_some_and(|holes| holes.contains(number)),
                        "seed {seed}, {words} words: {number} is stored"
                    );
                }
                if words == 2 {
                    assert_eq!(other.missing_ranges(&other_bits), image.missing, "seed {seed}");
                }
            }
        }
    }

    #[test]
    fn a_jump_leaves_a_hole_that_can_be_filled() {
        let (mut numbers, mut bits) = (Numbers::default(), vec![0; 1]);
        (1..=10).for_each(|number| numbers.store(number, &mut bits));
        numbers.store(1 << 62, &mut bits);
        assert!(
            numbers.is_stored(10, &bits)
                && !numbers.is_stored(11, &bits)
                && !numbers.is_stored(1 << 61, &bits)
        );
        numbers.store(11, &mut bits);
        assert!(numbers.is_stored(11, &bits) && !numbers.is_stored(12, &bits));
        assert!(!numbers.is_stored(u64::MAX, &bits));
    }

    #[test]
    fn a_producer_that_counts_has_no_holes_to_keep() {
        for first in [0, 1, 5_000] {
            let (mut numbers, mut bits) = (Numbers::default(), vec![0; 16]);
            (first..first + 10_000).for_each(|number| numbers.store(number, &mut bits));
            assert_eq!((numbers.bytes(), numbers.open(&bits)), (0, 0));
            assert!(numbers.is_stored(first, &bits) && !numbers.is_stored(first + 10_000, &bits));
            assert!(
                first == 0 || !numbers.is_stored(first - 1, &bits),
                "it came before the producer was known"
            );
        }
    }

    #[test]
    fn too_many_holes_become_one_and_nothing_in_them_counts_as_stored() {
        let (mut numbers, mut bits) = (Numbers::default(), vec![0; 1]);
        (0..10_000).filter(|number| number % 7 != 3).for_each(|number| numbers.store(number, &mut bits));
        assert!(numbers.bytes() < 800, "{}", numbers.bytes());
        for number in 0..10_000 {
            assert!(!numbers.is_stored(number, &bits) || number % 7 != 3, "{number}");
        }
    }
}
