//! The producers of a window with `id = "sequence"`: for each its epoch, its highest stored number, and a bit for each of the numbers
//! below that. What an engine is to ids, this is to numbers.
//!
//! ```text
//!               number ──▶ reserve ──▶ Fresh   not stored; the producer can't be evicted until store or release
//!                                  ──▶ Stored  a duplicate
//!                                  ──▶ Stale   of an epoch that is over
//!                                  ──▶ Gap     numbers before it were never let through, and the window wants them first
//! ```
//!
//! It knows nothing of what is in flight but how much. The caller holds the lock of the number in the table of flights.

mod holes;
mod image;
mod key;
mod numbers;
mod shard;

pub use image::ProducerImage;
pub use key::ProducerKey;

use self::shard::{Room, Shard};
use super::engine::{Entry, Gone, MOST_IDS, Stamp};
use super::{CacheAligned, Key};
use parking_lot::{Mutex, MutexGuard};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};
use std::time::Duration;

/// With fewer producers than this in each shard there is one shard, and the order in which they make room is exact.
const PER_SHARD: usize = 256;
/// The number of shards of a large window: a power of two.
const SHARDS: usize = 16;
/// Producers of a shard that a sweep evicts at most.
const SWEEP_IDLE: usize = 1024;
/// Octets kept of a producer's name, for people to read.
const LONGEST: usize = 64;

/// The rule for a number that comes while numbers before it have never been let through.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, serde::Deserialize, serde::Serialize)]
#[serde(rename_all = "lowercase")]
pub enum OnGap {
    /// forwarded and counted: the numbers between may come later, or never
    #[default]
    Forward,
    /// refused: nacked, or without confirms the channel is closed with 406
    Reject,
}

/// How a window with `id = "sequence"` counts.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Numbering {
    /// see [`OnGap`]
    pub on_gap: OnGap,
    /// how many of the highest numbers of a producer are known one by one; rounded up to a multiple of 64
    pub places: usize,
}

impl Numbering {
    /// The default of `places`.
    pub const PLACES: usize = 1024;
    /// The bounds of `places`. A jump of a number costs time for each place.
    pub const LEAST: usize = 64;
    /// See [`Numbering::LEAST`].
    pub const MOST: usize = 16_384;
    /// The most bytes of the producers of a window. The largest window of ids takes as many.
    pub const MOST_BYTES: usize = 43 * MOST_IDS;

    /// Estimates the bytes of a window with this many producers.
    pub fn bytes_at(self, producers: usize) -> usize {
        producers.saturating_mul(Producers::bytes_of_one(self.words()))
    }

    /// Returns how many producers a window may have: they take [`Numbering::MOST_BYTES`] at most.
    pub fn most_producers(self) -> usize {
        Numbering::MOST_BYTES / Producers::bytes_of_one(self.words())
    }

    fn words(self) -> usize {
        self.places.clamp(Numbering::LEAST, Numbering::MOST).div_ceil(64)
    }
}

impl Default for Numbering {
    fn default() -> Numbering {
        Numbering { on_gap: OnGap::default(), places: Numbering::PLACES }
    }
}

/// Why a number is not let through although it is not stored.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Refusal {
    /// Its producer has begun a higher epoch: this one is a zombie.
    Stale,
    /// Numbers before it have never been let through (`on_gap = "reject"`).
    Gap,
}

/// The facts that are counted about a number that is let through.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub(super) struct Leaving {
    /// Numbers before it have never been let through.
    pub(super) gap: bool,
    /// It would be refused for that, if the window did not only observe.
    pub(super) observed: bool,
    /// It is so low that it has no bit any more, and is not known to be stored.
    pub(super) below: bool,
}

/// The answer to a number that is not in flight.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Admission {
    Fresh(Leaving),
    Stored,
    Stale,
    Gap,
}

/// A producer, as people see it.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct ProducerFacts {
    /// what the window knows it by
    pub key: ProducerKey,
    /// the first octets of its name; `None` until it publishes again after a restart
    pub name: Option<Box<[u8]>>,
    /// its epoch
    pub epoch: u64,
    /// the highest number of this epoch that was stored; `None` before the first
    pub highest: Option<u64>,
    /// how many of the numbers that are known one by one are not stored: holes, gaps, and what is in flight
    pub open: u64,
    /// reservations whose outcome is not known
    pub in_flight: u32,
    /// duplicates since it became known
    pub duplicates: u32,
    /// since it was seen last
    pub idle: Duration,
    /// how long it will be remembered if it is not seen again
    pub left: Duration,
}

/// The producers of a window.
#[derive(Debug)]
pub(super) struct Producers {
    shards: Box<[CacheAligned<Mutex<Shard>>]>,
    words: usize,
    room: Arc<Room>,
    /// How many producers have no name, about. While it is zero, nobody has to look.
    unnamed: AtomicUsize,
}

impl Producers {
    pub(super) fn new(capacity: usize, numbering: Numbering) -> Producers {
        let count = if capacity < SHARDS * PER_SHARD { 1 } else { SHARDS };
        let words = numbering.words();
        let room = Arc::new(Room::new(capacity, count, numbering.on_gap));
        let shard = || CacheAligned(Mutex::new(Shard::new(Arc::clone(&room), words)));
        Producers {
            shards: std::iter::repeat_with(shard).take(count).collect(),
            words,
            room,
            unnamed: AtomicUsize::new(0),
        }
    }

    /// Says whether gaps that `on_gap` refuses are only observed: counted, and let through.
    pub(super) fn set_observing(&self, observing: bool) {
        self.room.set_observing(observing);
    }

    /// Returns the bytes of this many producers.
    pub(super) fn bytes_at(&self, capacity: usize) -> usize {
        capacity * Producers::bytes_of_one(self.words)
    }

    /// Returns the bytes of one producer when the window is well filled: its record, its bits, its place in the table, and its name.
    fn bytes_of_one(words: usize) -> usize {
        Shard::RECORD + words * size_of::<u64>() + Shard::PLACE + LONGEST / 4
    }

    /// Estimates the bytes of one producer when the window is well filled.
    #[expect(clippy::cast_precision_loss, reason = "a few hundred")]
    pub(super) fn bytes_per_producer(&self) -> f64 {
        Producers::bytes_of_one(self.words) as f64
    }

    pub(super) fn reserve(
        &self,
        producer: ProducerKey,
        at: (u64, u64),
        now: Stamp,
        gone: &mut impl Gone,
    ) -> Admission {
        self.change(producer, |shard| shard.reserve(producer, at, now, gone))
    }

    pub(super) fn touch(&self, producer: ProducerKey, at: (u64, u64), now: Stamp) -> bool {
        self.lock(producer).touch(producer, at, now)
    }

    pub(super) fn peek(&self, producer: ProducerKey, at: (u64, u64)) -> Option<Entry> {
        self.lock(producer).peek(producer, at)
    }

    pub(super) fn is_stale(&self, producer: ProducerKey, epoch: u64) -> bool {
        self.lock(producer).is_stale(producer, epoch)
    }

    pub(super) fn hold(&self, producer: ProducerKey, epoch: u64, now: Stamp, gone: &mut impl Gone) {
        self.change(producer, |shard| shard.hold(producer, epoch, now, gone));
    }

    pub(super) fn release(&self, producer: ProducerKey) {
        self.change(producer, |shard| shard.release(producer));
    }

    pub(super) fn store(
        &self,
        producer: ProducerKey,
        at: (u64, u64),
        entry: Entry,
        now: Stamp,
        gone: &mut impl Gone,
    ) {
        self.change(producer, |shard| shard.store(producer, at, entry, now, gone));
    }

    /// Notes that a number is stored because a store outside of this process says so, at the time of the entry. Returns whether it was
    /// stored here already; `None` if its epoch is over.
    pub(super) fn bring(
        &self,
        producer: ProducerKey,
        at: (u64, u64),
        entry: Entry,
        gone: &mut impl Gone,
    ) -> Option<bool> {
        self.change(producer, |shard| shard.bring(producer, at, entry, gone))
    }

    /// Takes what a store has of a producer that was seen last at this time.
    pub(super) fn restore(&self, image: &ProducerImage, at: Stamp, gone: &mut impl Gone) {
        self.change(image.producer, |shard| shard.restore(image, at, gone));
    }

    /// Returns all producers of which something is stored and that are not expired, those seen last at the end, each with that time.
    pub(super) fn images(&self, now: Stamp) -> Vec<(Stamp, ProducerImage)> {
        let mut all = Vec::new();
        for shard in &self.shards {
            all.extend(shard.lock().images(now));
        }
        all.sort_by_key(|(at, image)| (*at, image.producer));
        all
    }

    /// Returns true if the store of the window is to learn that this producer still lives: the last time is long ago. It counts as told.
    pub(super) fn is_to_be_told(&self, producer: ProducerKey, now: Stamp) -> bool {
        self.lock(producer).is_to_be_told(producer, now)
    }

    /// Returns the image of an epoch that a publish has begun, without numbers, if the store of the window does not know of it. With `take`,
    /// it counts as told.
    pub(super) fn new_epoch(&self, producer: ProducerKey, take: bool) -> Option<ProducerImage> {
        self.lock(producer).new_epoch(producer, take)
    }

    /// Notes that all numbers of a producer before this one may have been let through.
    pub(super) fn expect(&self, producer: ProducerKey, at: (u64, u64)) {
        self.lock(producer).expect(producer, at);
    }

    pub(super) fn unstore(&self, producer: ProducerKey, at: (u64, u64)) -> bool {
        self.lock(producer).unstore(producer, at)
    }

    /// Makes everything about a producer unknown, and says whether it was known. Its numbers in flight stay in flight.
    pub(super) fn forget(&self, producer: ProducerKey, gone: &mut impl Gone) -> bool {
        self.change(producer, |shard| shard.forget(producer, gone))
    }

    pub(super) fn clear(&self, gone: &mut impl Gone) {
        self.shards.iter().for_each(|shard| self.count_names(&mut shard.lock(), |shard| shard.clear(gone)));
    }

    pub(super) fn resize(&self, capacity: usize, gone: &mut impl Gone) {
        self.room.set_capacity(capacity);
        // First those shards shrink that have more than their part.
        for least in [self.room.part(), 0] {
            self.shards
                .iter()
                .for_each(|shard| self.count_names(&mut shard.lock(), |shard| shard.resize(least, gone)));
        }
    }

    pub(super) fn sweep(&self, now: Stamp, gone: &mut impl Gone) {
        self.shards
            .iter()
            .for_each(|shard| self.count_names(&mut shard.lock(), |shard| shard.sweep(now, gone)));
        self.make_room(gone);
    }

    /// Evicts producers, those seen least recently in all shards first, until there are no more than there is room for; but at most
    /// [`SWEEP_IDLE`] for each shard. More of them are there when many were in flight at once.
    fn make_room(&self, gone: &mut impl Gone) {
        let mut oldest: Vec<Option<Stamp>> = self.shards.iter().map(|shard| shard.lock().oldest()).collect();
        for _ in 0..SWEEP_IDLE * self.shards.len() {
            let first = (0_usize..).zip(&oldest).filter_map(|(at, stamp)| Some((stamp.as_ref()?, at))).min();
            let Some(((_, at), true)) = first.map(|first| (first, self.room.lacks(0))) else { return };
            if let (Some(shard), Some(stamp)) = (self.shards.get(at), oldest.get_mut(at)) {
                *stamp = self.count_names(&mut shard.lock(), |shard| shard.evict_oldest(gone));
            }
        }
    }

    pub(super) fn len(&self) -> usize {
        self.shards.iter().map(|shard| shard.lock().len()).sum()
    }

    pub(super) fn capacity(&self) -> usize {
        self.room.capacity()
    }

    pub(super) fn bytes(&self) -> usize {
        self.shards.iter().map(|shard| size_of::<CacheAligned<Mutex<Shard>>>() + shard.lock().bytes()).sum()
    }

    pub(super) fn oldest(&self) -> Option<Stamp> {
        self.shards.iter().filter_map(|shard| shard.lock().oldest()).min()
    }

    /// Returns true if nobody has told the name of this producer.
    #[inline]
    pub(super) fn wants_name(&self, producer: ProducerKey) -> bool {
        self.unnamed.load(Relaxed) > 0 && self.lock(producer).wants_name(producer)
    }

    /// Takes the name of a producer.
    pub(super) fn name(&self, producer: ProducerKey, name: &[u8]) {
        let name = name.get(..LONGEST).unwrap_or(name);
        self.change(producer, |shard| shard.name(producer, name));
    }

    /// Returns producers, those seen last first: at most this many, of those whose name or key contains the text.
    pub(super) fn facts(&self, most: usize, containing: &str, now: Stamp) -> Vec<ProducerFacts> {
        let mut all = Vec::new();
        for shard in &self.shards {
            all.extend(shard.lock().facts(most, containing, now));
        }
        all.sort_by_key(|facts| (facts.idle, facts.key));
        all.truncate(most);
        all
    }

    /// Returns one producer.
    pub(super) fn find(&self, producer: ProducerKey, now: Stamp) -> Option<ProducerFacts> {
        self.lock(producer).find(producer, now)
    }

    fn lock(&self, producer: ProducerKey) -> MutexGuard<'_, Shard> {
        self.shards[producer.key().shard(self.shards.len())].lock()
    }

    fn change<T>(&self, producer: ProducerKey, change: impl FnOnce(&mut Shard) -> T) -> T {
        self.count_names(&mut self.lock(producer), change)
    }

    /// Changes a shard, and keeps the count of producers without a name.
    fn count_names<T>(&self, shard: &mut Shard, change: impl FnOnce(&mut Shard) -> T) -> T {
        let before = shard.unnamed();
        let result = change(shard);
        let after = shard.unnamed();
        if after != before {
            self.unnamed.fetch_add(after.wrapping_sub(before), Relaxed);
        }
        result
    }
}

/// The key that an event of a producer names.
impl From<ProducerKey> for Key {
    fn from(producer: ProducerKey) -> Key {
        producer.key()
    }
}
