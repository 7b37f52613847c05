//! One shard of the producers: their records, their bits, and the order in which they make room.
//!
//! The room is that of the whole window: a shard that gets more producers than others takes what they leave. It makes room only when the
//! window is full, and then among its own: one for each new one, and some more if it has more than its part. If there are still more producers than
//! there is room for, because many were in flight at once, a sweep of the window evicts them in the order of all shards.
//!
//! A producer with something in flight is in no order: it can't be evicted. It comes back as the most recently seen one when its last
//! message in flight has its outcome.

use super::numbers::Numbers;
use super::{Admission, Gone, Leaving, OnGap, ProducerFacts, ProducerImage, ProducerKey, SWEEP_IDLE};
use crate::window::engine::{Entry, Stamp};
use crate::window::key::KeyHash;
use crate::window::{BodyDigest, EvictionCause};
use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering::Relaxed};
use std::time::Duration;

/// The end of a list of places.
const NONE: u32 = u32::MAX;
/// Expired producers that one new producer removes.
const SWEEP: usize = 2;
/// Producers that make room for a new one at most. There may be more than there is room for, because what is in flight stays.
const MAKE_ROOM: usize = 8;
/// A store learns that a producer lives when this part of its TTL has passed since the last time.
const TOLD: u64 = 8;

/// A producer.
#[derive(Debug)]
struct Record {
    key: ProducerKey,
    /// the neighbours in the order, while nothing is in flight
    older: u32,
    newer: u32,
    /// reservations whose outcome is open, of whatever epoch
    in_flight: u32,
    duplicates: u32,
    /// When the store of the window, if it has one, has learnt last that it lives, in seconds. Zero: the store does not know its epoch.
    told: u32,
    epoch: u64,
    numbers: Numbers,
    /// when it was seen last
    at: Stamp,
    /// In nanoseconds, from its last commit. Zero: nothing of it was ever stored.
    ttl: u64,
    name: Option<Box<[u8]>>,
}

impl Record {
    fn new(key: ProducerKey, epoch: u64, now: Stamp) -> Record {
        Record {
            key,
            older: NONE,
            newer: NONE,
            in_flight: 0,
            duplicates: 0,
            told: seconds(now.0),
            epoch,
            numbers: Numbers::default(),
            at: now,
            ttl: 0,
            name: None,
        }
    }

    fn entry(&self) -> Entry {
        Entry {
            at: self.at,
            until: Stamp(self.at.0.saturating_add(self.ttl)),
            duplicates: self.duplicates,
            body: BodyDigest::UNKNOWN,
        }
    }

    /// Begins a new epoch: nothing of it is stored. Returns the bytes that are free again.
    fn begin(&mut self, epoch: u64) -> usize {
        self.epoch = epoch;
        std::mem::take(&mut self.numbers).bytes()
    }

    /// Returns what a store needs of it.
    fn image(&self, bits: &[u64]) -> ProducerImage {
        let end = self.numbers.highest().map_or(0, |highest| highest.saturating_add(1));
        ProducerImage {
            producer: self.key,
            epoch: self.epoch,
            ttl: Duration::from_nanos(self.ttl),
            end,
            unknown_below: self.numbers.unknown_below(),
            missing: if end == 0 { Vec::new() } else { self.numbers.missing_ranges(bits) },
        }
    }

    fn heap(&self) -> usize {
        self.numbers.bytes() + self.name.as_ref().map_or(0, |name| name.len())
    }
}

/// What the shards of a window share: its room, how much of it all of them have taken, and what is done about gaps.
#[derive(Debug)]
pub(super) struct Room {
    capacity: AtomicUsize,
    taken: AtomicUsize,
    shards: usize,
    on_gap: OnGap,
    /// gaps are counted, and let through
    observing: AtomicBool,
}

impl Room {
    pub(super) fn new(capacity: usize, shards: usize, on_gap: OnGap) -> Room {
        let capacity = AtomicUsize::new(capacity.max(1));
        Room { capacity, taken: AtomicUsize::new(0), shards, on_gap, observing: AtomicBool::new(false) }
    }

    /// Returns the part of a shard, if all have the same.
    pub(super) fn part(&self) -> usize {
        self.capacity().div_ceil(self.shards)
    }

    pub(super) fn set_observing(&self, observing: bool) {
        self.observing.store(observing, Relaxed);
    }

    fn is_observing(&self) -> bool {
        self.observing.load(Relaxed)
    }

    pub(super) fn capacity(&self) -> usize {
        self.capacity.load(Relaxed)
    }

    pub(super) fn set_capacity(&self, capacity: usize) {
        self.capacity.store(capacity.max(1), Relaxed);
    }

    /// Returns true if this many more find no room.
    pub(super) fn lacks(&self, more: usize) -> bool {
        self.taken.load(Relaxed) + more > self.capacity()
    }
}

/// The producers of one lock.
#[derive(Debug)]
pub(super) struct Shard {
    room: Arc<Room>,
    /// words of bits for each producer
    words: usize,
    places: HashMap<ProducerKey, u32, KeyHash>,
    records: Vec<Record>,
    /// the bits of all records, in their order
    bits: Vec<u64>,
    oldest: u32,
    newest: u32,
    /// bytes of names and holes
    heap: usize,
    /// producers whose name nobody has told
    unnamed: usize,
}

impl Shard {
    /// Bytes of one producer beside its bits.
    pub(super) const RECORD: usize = size_of::<Record>();
    /// Bytes of its place in the table, on average: the table is between 44 % and 88 % full.
    pub(super) const PLACE: usize = (size_of::<(ProducerKey, u32)>() + 1) * 3 / 2;

    pub(super) fn new(room: Arc<Room>, words: usize) -> Shard {
        Shard {
            room,
            words,
            places: HashMap::default(),
            records: Vec::new(),
            bits: Vec::new(),
            oldest: NONE,
            newest: NONE,
            heap: 0,
            unnamed: 0,
        }
    }

    pub(super) fn len(&self) -> usize {
        self.records.len()
    }

    pub(super) fn unnamed(&self) -> usize {
        self.unnamed
    }

    /// Returns the bytes on the heap.
    pub(super) fn bytes(&self) -> usize {
        self.records.capacity() * size_of::<Record>()
            + self.bits.capacity() * size_of::<u64>()
            + self.places.capacity() * 8 / 7 * (size_of::<(ProducerKey, u32)>() + 1)
            + self.heap
    }

    /// Returns when the producer that has to make room next was seen last.
    pub(super) fn oldest(&self) -> Option<Stamp> {
        self.record(self.oldest).map(|record| record.at)
    }

    // ---- the numbers -----------------------------------------------------------------------------------------------

    /// Judges a number that is not in flight. If it is let through, its producer has one more in flight.
    pub(super) fn reserve(
        &mut self,
        key: ProducerKey,
        (epoch, number): (u64, u64),
        now: Stamp,
        gone: &mut impl Gone,
    ) -> Admission {
        let at = self.find_live(key, now, gone).unwrap_or_else(|| self.add(key, epoch, now, gone));
        let (refuses_gaps, observed) = (self.room.on_gap == OnGap::Reject, self.room.is_observing());
        self.begin(at, epoch);
        let Some((record, bits)) = self.parts(at) else { return Admission::Fresh(Leaving::default()) };
        if epoch < record.epoch {
            return Admission::Stale;
        }
        if record.numbers.is_stored(number, bits) {
            record.duplicates = record.duplicates.saturating_add(1);
            self.seen(at, now);
            return Admission::Stored;
        }
        let (gap, below) = (record.numbers.leaves_gap(number), record.numbers.is_below(number, bits));
        if gap && refuses_gaps && !observed {
            return Admission::Gap;
        }
        let leaving = Leaving { gap, below, observed: gap && refuses_gaps };
        record.numbers.let_through(number);
        self.pin(at, now);
        Admission::Fresh(leaving)
    }

    /// Begins a higher epoch of a producer.
    fn begin(&mut self, at: u32, epoch: u64) {
        let Some(record) = self.record_mut(at).filter(|record| epoch > record.epoch) else { return };
        record.told = 0;
        let freed = record.begin(epoch);
        self.heap -= freed;
    }

    /// Changes the numbers of a record, and keeps the count of the bytes that they take.
    fn change_numbers(&mut self, at: u32, change: impl FnOnce(&mut Numbers, &mut [u64])) {
        let Some((record, bits)) = self.parts(at) else { return };
        let before = record.numbers.bytes();
        change(&mut record.numbers, bits);
        let after = record.numbers.bytes();
        self.heap = self.heap + after - before;
    }

    /// Says whether the number is stored, and counts a duplicate if so.
    pub(super) fn touch(&mut self, key: ProducerKey, (epoch, number): (u64, u64), now: Stamp) -> bool {
        let Some(at) = self.places.get(&key).copied() else { return false };
        let Some((record, bits)) = self.parts(at) else { return false };
        let is_stored = epoch == record.epoch && record.numbers.is_stored(number, bits);
        if is_stored {
            record.duplicates = record.duplicates.saturating_add(1);
            self.seen(at, now);
        }
        is_stored
    }

    /// Returns what is known of a number that is stored.
    pub(super) fn peek(&self, key: ProducerKey, (epoch, number): (u64, u64)) -> Option<Entry> {
        let at = *self.places.get(&key)?;
        let record = self.record(at)?;
        let is_stored = epoch == record.epoch && record.numbers.is_stored(number, self.bits_of(at));
        is_stored.then(|| record.entry())
    }

    /// Returns true if the producer has begun a higher epoch.
    pub(super) fn is_stale(&self, key: ProducerKey, epoch: u64) -> bool {
        self.places.get(&key).and_then(|at| self.record(*at)).is_some_and(|record| epoch < record.epoch)
    }

    /// Notes that another reservation of the producer exists.
    pub(super) fn hold(&mut self, key: ProducerKey, epoch: u64, now: Stamp, gone: &mut impl Gone) {
        let at = self.find_live(key, now, gone).unwrap_or_else(|| self.add(key, epoch, now, gone));
        self.pin(at, now);
    }

    /// Notes that a reservation has its outcome. If there are more producers than there is room for, the next new one makes room.
    pub(super) fn release(&mut self, key: ProducerKey) {
        let Some(at) = self.places.get(&key).copied() else { return };
        // (A caller may commit without a reservation.)
        let Some(record) = self.record_mut(at).filter(|record| record.in_flight > 0) else { return };
        record.in_flight -= 1;
        if record.in_flight > 0 {
            return;
        }
        if record.ttl == 0 {
            self.remove(at);
            return;
        }
        self.push(at);
    }

    /// Notes that a number is stored.
    pub(super) fn store(
        &mut self,
        key: ProducerKey,
        (epoch, number): (u64, u64),
        entry: Entry,
        now: Stamp,
        gone: &mut impl Gone,
    ) {
        let at = self.find_live(key, now, gone).unwrap_or_else(|| self.add(key, epoch, now, gone));
        self.begin(at, epoch);
        let Some(record) = self.record_mut(at) else { return };
        record.ttl = entry.until.0.saturating_sub(entry.at.0);
        if epoch == record.epoch {
            record.told = seconds(entry.at.0);
            self.change_numbers(at, |numbers, bits| numbers.store(number, bits));
        }
        self.seen(at, entry.at);
    }

    /// Notes that a number is stored because a store says so. Returns whether it was stored already; `None` if its epoch is over.
    /// The producer counts as expired if it was when the number was stored: what was remembered then is remembered now.
    pub(super) fn bring(
        &mut self,
        key: ProducerKey,
        (epoch, number): (u64, u64),
        entry: Entry,
        gone: &mut impl Gone,
    ) -> Option<bool> {
        let at = self.find_live(key, entry.at, gone).unwrap_or_else(|| self.add(key, epoch, entry.at, gone));
        self.begin(at, epoch);
        let (record, bits) = self.parts(at).filter(|(record, _)| record.epoch == epoch)?;
        let was_stored = record.numbers.is_stored(number, bits);
        record.numbers.let_through(number);
        self.store(key, (epoch, number), entry, entry.at, gone);
        Some(was_stored)
    }

    /// Notes that all numbers of a producer before this one may have been let through.
    pub(super) fn expect(&mut self, key: ProducerKey, (epoch, number): (u64, u64)) {
        let Some(at) = self.places.get(&key).copied() else { return };
        self.begin(at, epoch);
        let Some(record) = self.record_mut(at).filter(|record| record.epoch == epoch) else { return };
        if let Some(before) = number.checked_sub(1) {
            record.numbers.let_through(before);
        }
    }

    /// Takes what a store has of a producer.
    pub(super) fn restore(&mut self, image: &ProducerImage, at: Stamp, gone: &mut impl Gone) {
        let (key, epoch) = (image.producer, image.epoch);
        let slot = self.find_live(key, at, gone).unwrap_or_else(|| self.add(key, epoch, at, gone));
        self.begin(slot, epoch);
        let Some(record) = self.record_mut(slot).filter(|record| record.epoch == epoch) else { return };
        record.ttl = u64::try_from(image.ttl.as_nanos()).unwrap_or(u64::MAX);
        record.told = seconds(at.0);
        // An epoch that has begun says nothing of its numbers.
        if image.end == 0 {
            return self.seen(slot, at);
        }
        self.change_numbers(slot, |numbers, bits| *numbers = Numbers::of_image(image, bits));
        self.seen(slot, at);
    }

    /// Returns what a store needs of each producer, with the time at which it was seen last.
    pub(super) fn images(&self, now: Stamp) -> Vec<(Stamp, ProducerImage)> {
        let stored = |(_, record): &(u32, &Record)| record.ttl > 0 && !record.entry().is_expired(now);
        let image = |(at, record): (u32, &Record)| (record.at, record.image(self.bits_of(at)));
        (0_u32..).zip(&self.records).filter(stored).map(image).collect()
    }

    /// Returns the image of an epoch that has begun and that the store does not know; `None` if it does. With `take`, it counts as told.
    pub(super) fn new_epoch(&mut self, key: ProducerKey, take: bool) -> Option<ProducerImage> {
        let at = self.places.get(&key).copied()?;
        let record = self.record_mut(at).filter(|record| record.told == 0 && record.ttl > 0)?;
        if take {
            record.told = seconds(record.at.0);
        }
        Some(record.image(&[]))
    }

    /// See [`super::Producers::is_to_be_told`].
    pub(super) fn is_to_be_told(&mut self, key: ProducerKey, now: Stamp) -> bool {
        let Some(record) = self.places.get(&key).copied().and_then(|at| self.record_mut(at)) else {
            return false;
        };
        let now = seconds(now.0);
        let is_due = now.saturating_sub(record.told) > seconds(record.ttl / TOLD);
        if is_due {
            record.told = now;
        }
        is_due
    }

    /// Notes that a number is not stored after all. Returns true if it was.
    pub(super) fn unstore(&mut self, key: ProducerKey, (epoch, number): (u64, u64)) -> bool {
        let Some(at) = self.places.get(&key).copied() else { return false };
        let Some((record, bits)) = self.parts(at).filter(|(record, _)| record.epoch == epoch) else {
            return false;
        };
        let was_stored = record.numbers.is_stored(number, bits);
        self.change_numbers(at, |numbers, bits| numbers.forget(number, bits));
        was_stored
    }

    // ---- the producers ---------------------------------------------------------------------------------------------

    /// Makes everything about a producer unknown. Its numbers in flight stay in flight.
    pub(super) fn forget(&mut self, key: ProducerKey, gone: &mut impl Gone) -> bool {
        let Some(at) = self.places.get(&key).copied() else { return false };
        self.drop_producer(at, EvictionCause::Forget, gone);
        true
    }

    pub(super) fn clear(&mut self, gone: &mut impl Gone) {
        (0..self.records.len()).rev().for_each(|at| {
            self.drop_producer(u32::try_from(at).unwrap_or(NONE), EvictionCause::Flush, gone);
        });
        self.shrink();
    }

    /// Evicts producers until the window has no more than it has room for, or this shard no more than `least`.
    pub(super) fn resize(&mut self, least: usize, gone: &mut impl Gone) {
        while self.room.lacks(0) && self.records.len() > least && self.oldest != NONE {
            self.evict(self.oldest, EvictionCause::Resize, gone);
        }
        self.shrink();
    }

    pub(super) fn sweep(&mut self, now: Stamp, gone: &mut impl Gone) {
        self.sweep_some(SWEEP_IDLE, now, gone);
    }

    /// Evicts the producer that was seen least recently. Returns when the next one was seen.
    pub(super) fn evict_oldest(&mut self, gone: &mut impl Gone) -> Option<Stamp> {
        self.evict(self.oldest, EvictionCause::Capacity, gone);
        self.oldest()
    }

    pub(super) fn name(&mut self, key: ProducerKey, name: &[u8]) {
        let Some(record) = self.places.get(&key).copied().and_then(|at| self.record_mut(at)) else { return };
        if record.name.is_none() {
            record.name = Some(name.into());
            self.heap += name.len();
            self.unnamed = self.unnamed.saturating_sub(1);
        }
    }

    pub(super) fn wants_name(&self, key: ProducerKey) -> bool {
        self.places.get(&key).and_then(|at| self.record(*at)).is_some_and(|record| record.name.is_none())
    }

    /// Returns producers, those seen last first: at most this many, of those whose name or key contains the text. Publishes wait meanwhile,
    /// so millions of producers are neither sorted nor written as texts.
    pub(super) fn facts(&self, most: usize, containing: &str, now: Stamp) -> Vec<ProducerFacts> {
        let may_be_key = containing.bytes().all(|digit| matches!(digit, b'0'..=b'9' | b'a'..=b'f'));
        let contains = |record: &Record| {
            let name = record.name.as_deref().map(String::from_utf8_lossy).unwrap_or_default();
            containing.is_empty()
                || name.contains(containing)
                || may_be_key && format!("{:?}", record.key).contains(containing)
        };
        let matching = (0_u32..).zip(&self.records).filter(|(_, record)| contains(record));
        let mut found: Vec<(u32, &Record)> = matching.collect();
        let newest_first = |(_, record): &(u32, &Record)| std::cmp::Reverse(record.at);
        if found.len() > most {
            found.select_nth_unstable_by_key(most, newest_first);
            found.truncate(most);
        }
        found.sort_by_key(newest_first);
        found.into_iter().map(|(at, record)| self.facts_of(at, record, now)).collect()
    }

    pub(super) fn find(&self, key: ProducerKey, now: Stamp) -> Option<ProducerFacts> {
        let at = *self.places.get(&key)?;
        Some(self.facts_of(at, self.record(at)?, now))
    }

    fn facts_of(&self, at: u32, record: &Record, now: Stamp) -> ProducerFacts {
        ProducerFacts {
            key: record.key,
            name: record.name.clone(),
            epoch: record.epoch,
            highest: record.numbers.highest(),
            open: record.numbers.open(self.bits_of(at)),
            in_flight: record.in_flight,
            duplicates: record.duplicates,
            idle: now.since(record.at),
            left: record.entry().until.since(now),
        }
    }

    /// Finds a producer that is not expired. One that is makes room.
    fn find_live(&mut self, key: ProducerKey, now: Stamp, gone: &mut impl Gone) -> Option<u32> {
        let at = *self.places.get(&key)?;
        let record = self.record(at)?;
        if record.in_flight == 0 && record.entry().is_expired(now) {
            self.evict(at, EvictionCause::Expired, gone);
            return None;
        }
        Some(at)
    }

    /// Adds a producer of which nothing is known, as the most recently seen one.
    fn add(&mut self, key: ProducerKey, epoch: u64, now: Stamp, gone: &mut impl Gone) -> u32 {
        self.sweep_some(SWEEP, now, gone);
        self.make_room(gone);
        let at = u32::try_from(self.records.len()).unwrap_or(NONE);
        if self.records.len() == self.records.capacity() {
            // By an eighth: the window's memory is counted.
            let more = (self.records.len() / 8).max(4);
            self.records.reserve_exact(more);
            self.bits.reserve_exact(more * self.words);
        }
        self.records.push(Record::new(key, epoch, now));
        self.bits.resize(self.records.len() * self.words, 0);
        self.places.insert(key, at);
        self.room.taken.fetch_add(1, Relaxed);
        self.unnamed += 1;
        self.push(at);
        at
    }

    /// Evicts producers with nothing in flight until the window has room for one more: one of them, and some more if this shard has more than
    /// its part.
    fn make_room(&mut self, gone: &mut impl Gone) {
        for evicted in 0..MAKE_ROOM {
            let may_evict = evicted == 0 || self.records.len() >= self.room.part();
            if !self.room.lacks(1) || self.oldest == NONE || !may_evict {
                return;
            }
            self.evict(self.oldest, EvictionCause::Capacity, gone);
        }
    }

    fn sweep_some(&mut self, most: usize, now: Stamp, gone: &mut impl Gone) {
        for _ in 0..most {
            let oldest = self.oldest;
            if !self.record(oldest).is_some_and(|record| record.entry().is_expired(now)) {
                return;
            }
            self.evict(oldest, EvictionCause::Expired, gone);
        }
    }

    /// Makes a producer unknown. If it has something in flight, its record stays, empty.
    fn drop_producer(&mut self, at: u32, cause: EvictionCause, gone: &mut impl Gone) {
        let Some(record) = self.record_mut(at) else { return };
        if record.in_flight == 0 {
            return self.evict(at, cause, gone);
        }
        let (key, entry) = (record.key, record.entry());
        let freed = record.begin(0);
        let was_known = std::mem::take(&mut record.ttl) > 0;
        record.duplicates = 0;
        self.heap -= freed;
        if was_known {
            gone(key.key(), entry, cause);
        }
    }

    fn evict(&mut self, at: u32, cause: EvictionCause, gone: &mut impl Gone) {
        let Some(record) = self.record(at) else { return };
        let (key, entry, was_known) = (record.key, record.entry(), record.ttl > 0);
        self.unlink(at);
        self.remove(at);
        if was_known {
            gone(key.key(), entry, cause);
        }
    }

    /// Takes a record out that is in no order. The last one comes to its place.
    fn remove(&mut self, at: u32) {
        let (Some(slot), Some(last)) = (index(at, self.records.len()), self.records.len().checked_sub(1))
        else {
            return;
        };
        let record = self.records.swap_remove(slot);
        self.room.taken.fetch_sub(1, Relaxed);
        self.heap -= record.heap();
        self.unnamed -= usize::from(record.name.is_none());
        self.places.remove(&record.key);
        let words = self.words;
        self.bits.copy_within(last * words..(last + 1) * words, slot * words);
        self.bits.truncate(last * words);
        // The record that was the last one has another place now.
        let Some(moved) = self.records.get(slot) else { return };
        let (key, older, newer, is_free) = (moved.key, moved.older, moved.newer, moved.in_flight == 0);
        self.places.insert(key, at);
        if is_free {
            self.link(older, at, newer);
        }
    }

    fn shrink(&mut self) {
        self.records.shrink_to_fit();
        self.bits.shrink_to_fit();
        self.places.shrink_to_fit();
    }

    // ---- the order -------------------------------------------------------------------------------------------------

    /// Makes a producer the most recently seen one.
    fn seen(&mut self, at: u32, now: Stamp) {
        let Some(record) = self.record_mut(at) else { return };
        record.at = record.at.max(now);
        if record.in_flight == 0 && self.newest != at {
            self.unlink(at);
            self.push(at);
        }
    }

    /// Notes one more in flight. The producer leaves the order.
    fn pin(&mut self, at: u32, now: Stamp) {
        if self.record(at).is_some_and(|record| record.in_flight == 0) {
            self.unlink(at);
        }
        if let Some(record) = self.record_mut(at) {
            record.at = record.at.max(now);
            record.in_flight += 1;
        }
    }

    fn push(&mut self, at: u32) {
        let before = self.newest;
        self.link(before, at, NONE);
    }

    /// Puts a record between two others.
    fn link(&mut self, older: u32, at: u32, newer: u32) {
        if let Some(record) = self.record_mut(at) {
            (record.older, record.newer) = (older, newer);
        }
        match self.record_mut(older) {
            Some(record) => record.newer = at,
            None => self.oldest = at,
        }
        match self.record_mut(newer) {
            Some(record) => record.older = at,
            None => self.newest = at,
        }
    }

    fn unlink(&mut self, at: u32) {
        let Some((older, newer)) = self.record(at).map(|record| (record.older, record.newer)) else { return };
        if let Some(record) = self.record_mut(older) {
            record.newer = newer;
        } else if self.oldest == at {
            self.oldest = newer;
        }
        if let Some(record) = self.record_mut(newer) {
            record.older = older;
        } else if self.newest == at {
            self.newest = older;
        }
        if let Some(record) = self.record_mut(at) {
            (record.older, record.newer) = (NONE, NONE);
        }
    }

    fn record(&self, at: u32) -> Option<&Record> {
        self.records.get(index(at, self.records.len())?)
    }

    fn record_mut(&mut self, at: u32) -> Option<&mut Record> {
        let slot = index(at, self.records.len())?;
        self.records.get_mut(slot)
    }

    fn bits_of(&self, at: u32) -> &[u64] {
        let from = usize::try_from(at).unwrap_or(usize::MAX).saturating_mul(self.words);
        self.bits.get(from..from + self.words).unwrap_or_default()
    }

    fn parts(&mut self, at: u32) -> Option<(&mut Record, &mut [u64])> {
        let slot = index(at, self.records.len())?;
        let from = slot * self.words;
        Some((self.records.get_mut(slot)?, self.bits.get_mut(from..from + self.words)?))
    }
}

/// Makes whole seconds of nanoseconds: at least one.
fn seconds(nanos: u64) -> u32 {
    u32::try_from(nanos / 1_000_000_000).unwrap_or(u32::MAX).max(1)
}

fn index(at: u32, len: usize) -> Option<usize> {
    usize::try_from(at).ok().filter(|at| *at < len)
}
