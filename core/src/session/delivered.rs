//! The record of deliveries. It tells a consumer that publishes its message again from a publisher that tries again.
//!
//! Each delivery leaves a [`Mark`] of its exchange, its routing key and its id. A publish with the same mark takes it: it is a new
//! message, and its own retries are duplicates again. A message that is delivered again leaves its mark again; a mark is there or
//! not, so a message that was redelivered a hundred times may be published again once.
//!
//! A connection that only consumes pays for the mark and for one store into a ring. Marks are looked up only if there are any, and
//! the table for that is built by the first publish that is judged.

use crate::wire::properties::{ContentHeader, IdSource, IdValue};
use crate::wire::{Death, WireError};
use std::collections::HashMap;
use std::hash::{BuildHasherDefault, Hasher};
use std::num::NonZeroU64;

/// The last deliveries of a connection that leave a mark.
const KEPT: usize = 65_536;

/// A hash of exchange, routing key and id. Two messages with the same mark are the same for [`Delivered`]. It is no secret: a client
/// that finds two ids with one mark can let its own duplicates pass, and nothing else.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub(super) struct Mark(NonZeroU64);

impl Mark {
    /// Returns the hash.
    pub(super) fn number(self) -> u64 {
        self.0.get()
    }

    fn of(hash: u64) -> Mark {
        Mark(NonZeroU64::new(hash).unwrap_or(NonZeroU64::MIN))
    }
}

/// A mark without an id: what all messages to an exchange with a routing key have in common.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, Default)]
pub(super) struct RouteMark(u64);

impl RouteMark {
    /// Makes the mark of an exchange and a routing key.
    pub(super) fn new(exchange: &[u8], routing_key: &[u8]) -> RouteMark {
        RouteMark(fold(fold(SEED, exchange), routing_key))
    }

    /// Makes the mark of an exchange alone.
    pub(super) fn of_exchange(exchange: &[u8]) -> RouteMark {
        RouteMark(fold(SEED, exchange))
    }

    /// Adds an id.
    #[inline]
    pub(super) fn id(self, id: &IdValue<'_>) -> Mark {
        Mark::of(fold_value(self.0, id))
    }

    /// Adds the id that was found in a content header, and the newest death of the message. Other routing keys do not count: nobody
    /// delivers `BCC`. `None` if there is no id.
    ///
    /// Each incarnation of a message has another mark, as it has another key. A consumer that moves a dead letter by hand keeps
    /// `x-death`, and the window then sees by the death which publishes are retries.
    #[inline]
    pub(super) fn found(self, found: &ContentHeader<'_>, source: &IdSource) -> Option<Mark> {
        if found.is_special() {
            self.of_incarnation(found).without_deaths(found, source)
        } else {
            self.without_deaths(found, source)
        }
    }

    /// Adds the newest death. Deaths that can't be read are all the same.
    #[cold]
    fn of_incarnation(self, found: &ContentHeader<'_>) -> RouteMark {
        let death = match found.death() {
            Ok(Some(death)) => death,
            Ok(None) => return self,
            Err(_) => return RouteMark(self.0 ^ DIED),
        };
        let Death { queue, reason, count, time, exchange, routing_keys } = death;
        let hash = fold(fold(self.0 ^ DIED, queue), reason);
        RouteMark([count, time, exchange, routing_keys].iter().fold(hash, |hash, field| match field {
            Some(value) => fold_value(hash, value),
            None => fold(hash ^ ABSENT, &[]),
        }))
    }

    /// As [`RouteMark::found`], of a copy without `x-death`.
    #[inline]
    pub(super) fn without_deaths(self, found: &ContentHeader<'_>, source: &IdSource) -> Option<Mark> {
        if !matches!(source, IdSource::Parts(_) | IdSource::Sequence) {
            return found.id.map(|id| self.id(&id));
        }
        let mut hash = self.0;
        let has_id = found.feed_id(source, &mut |kind, bytes| hash = fold(hash ^ u64::from(kind), bytes));
        has_id.then(|| Mark::of(hash))
    }

    /// Adds the size of a body that is its own id. A delivery passes frame by frame, so its body is not digested: messages of the
    /// same size have the same mark.
    pub(super) fn body(self, size: u64) -> Mark {
        Mark::of(fold(self.0 ^ u64::from(b'b') << 16, &size.to_le_bytes()))
    }

    /// Adds what this content header says: the mark, or `None` if it has no id, and whether it may have died.
    #[inline]
    pub(super) fn header(self, payload: &[u8], source: &IdSource) -> Result<(Option<Mark>, bool), WireError> {
        if *source == IdSource::Body {
            let (_, size) = ContentHeader::size_of(payload)?;
            return Ok((Some(self.body(size)), false));
        }
        let found = ContentHeader::parse(payload, source)?;
        Ok((self.found(&found, source), found.is_special()))
    }
}

/// The newest place of each mark.
type Places = HashMap<Mark, u32, BuildHasherDefault<MarkHasher>>;

/// The marks of one connection, or of all connections of one user from one host.
#[derive(Debug, Default)]
pub(super) struct Delivered {
    /// The last marks, in the order of the deliveries, from `next` on. It grows up to [`KEPT`].
    ring: Vec<Mark>,
    /// The place of the next mark, once the ring is full.
    next: usize,
    /// The newest place of each mark that was not taken. Built by the first question.
    places: Option<Places>,
}

impl Delivered {
    /// Returns true if nothing was delivered that leaves a mark.
    #[inline]
    pub(super) fn is_empty(&self) -> bool {
        self.ring.is_empty()
    }

    /// Notes a delivery.
    #[inline]
    pub(super) fn note(&mut self, mark: Mark) {
        let at = if self.ring.len() < KEPT { self.ring.len() } else { self.next };
        if self.places.is_some() {
            self.place(at, mark);
        }
        match self.ring.get_mut(at) {
            Some(slot) => {
                *slot = mark;
                self.next = (at + 1) % KEPT;
            }
            None => self.ring.push(mark),
        }
    }

    /// Enters a mark in the table, in place of the one that leaves the ring.
    fn place(&mut self, at: usize, mark: Mark) {
        let (Some(places), Ok(place)) = (&mut self.places, u32::try_from(at)) else { return };
        if let Some(old) = self.ring.get(at)
            && places.get(old) == Some(&place)
        {
            places.remove(old);
        }
        places.insert(mark, place);
    }

    /// Returns true if a message with this mark was delivered, and nobody has published it again since.
    pub(super) fn holds(&mut self, mark: Mark) -> bool {
        self.places().contains_key(&mark)
    }

    /// Takes the mark: the message is being published again.
    pub(super) fn take(&mut self, mark: Mark) {
        self.places().remove(&mark);
    }

    fn places(&mut self) -> &mut Places {
        let Delivered { ring, next, places } = self;
        places.get_or_insert_with(|| {
            let (newer, older) = ring.split_at_checked(*next).unwrap_or_default();
            let older = (*next..).zip(older);
            // If a mark has two places, the newer one counts.
            let all = older.chain((0..).zip(newer));
            all.filter_map(|(at, mark)| Some((*mark, u32::try_from(at).ok()?))).collect()
        })
    }

    /// Forgets the older half of the marks.
    pub(super) fn halve(&mut self) {
        let Delivered { ring, next, .. } = self;
        ring.rotate_left(*next);
        let kept = ring.split_off(ring.len().div_ceil(2));
        *self = Delivered { ring: kept, next: 0, places: None };
    }

    /// Returns the bytes that it takes.
    pub(super) fn memory(&self) -> usize {
        let slot = size_of::<(Mark, u32)>() + 1;
        let table = self.places.as_ref().map_or(0, |places| places.capacity() * 8 / 7 * slot);
        self.ring.capacity() * size_of::<Mark>() + table
    }
}

/// The hash of a mark is the mark.
#[derive(Default)]
pub(super) struct MarkHasher(u64);

impl Hasher for MarkHasher {
    fn write_u64(&mut self, mark: u64) {
        self.0 = mark;
    }

    /// Hashes other bytes. Marks never get here.
    fn write(&mut self, bytes: &[u8]) {
        self.0 = fold(self.0, bytes);
    }

    fn finish(&self) -> u64 {
        self.0
    }
}

const SEED: u64 = 0x243f_6a88_85a3_08d3;
/// Tells the marks of messages with `x-death` from others.
const DIED: u64 = 0x1319_8a2e_0370_7344;
/// Tells a field of a death that is not there from others.
const ABSENT: u64 = 0xa409_3822_299f_31d0;
const FIRST: u64 = 0x9e37_79b9_7f4a_7c15;
const SECOND: u64 = 0xbf58_476d_1ce4_e5b9;

/// Multiplies to 128 bits, and adds both halves without a carry.
#[inline]
#[expect(clippy::cast_possible_truncation, reason = "the two halves are meant")]
fn mix(one: u64, other: u64) -> u64 {
    let product = u128::from(one) * u128::from(other);
    (product >> 64) as u64 ^ product as u64
}

/// Adds bytes and their length to a hash.
#[inline]
fn fold(hash: u64, bytes: &[u8]) -> u64 {
    let mut hash = mix(hash ^ bytes.len() as u64, FIRST);
    let (pairs, rest) = bytes.as_chunks::<16>();
    for pair in pairs {
        let (one, other) = halves(pair);
        hash = mix(one ^ FIRST ^ hash, other ^ SECOND);
    }
    if !rest.is_empty() {
        let mut last = [0; 16];
        last.iter_mut().zip(rest).for_each(|(to, from)| *to = *from);
        let (one, other) = halves(&last);
        hash = mix(one ^ FIRST ^ hash, other ^ SECOND);
    }
    mix(hash, SECOND)
}

/// Adds a value, and of what kind it is.
#[inline]
fn fold_value(hash: u64, value: &IdValue<'_>) -> u64 {
    match *value {
        IdValue::Bytes(bytes) => fold(hash, bytes),
        IdValue::Integer(number) => fold(hash ^ u64::from(b'i'), &number.to_le_bytes()),
        IdValue::Other(tag, bytes) => fold(hash ^ (u64::from(tag) << 8 | 1), bytes),
    }
}

#[inline]
#[expect(clippy::cast_possible_truncation, reason = "the two halves are meant")]
fn halves(pair: &[u8; 16]) -> (u64, u64) {
    let both = u128::from_le_bytes(*pair);
    (both as u64, (both >> 64) as u64)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::HashSet;

    fn mark(id: u64) -> Mark {
        RouteMark::new(b"e", b"k").id(&IdValue::Bytes(&id.to_le_bytes()))
    }

    #[test]
    fn a_mark_is_taken_once_and_left_again_by_the_next_delivery() {
        let mut delivered = Delivered::default();
        assert!(delivered.is_empty() && !delivered.holds(mark(1)));
        (0..3).for_each(|_| delivered.note(mark(1)));
        assert!(delivered.holds(mark(1)) && !delivered.holds(mark(2)));
        delivered.take(mark(1));
        assert!(!delivered.holds(mark(1)));
        delivered.note(mark(1));
        assert!(delivered.holds(mark(1)));
    }

    /// Whether the table is built before or after, and however often the ring has gone round.
    #[test]
    fn the_last_deliveries_count_and_no_others() {
        let kept = KEPT as u64;
        for built_at in [0, 10, kept, kept + 10, 3 * kept] {
            let mut delivered = Delivered::default();
            for id in 0..2 * kept + 100 {
                if id == built_at {
                    delivered.holds(mark(0));
                }
                delivered.note(mark(id));
            }
            assert!(!delivered.holds(mark(kept + 99)), "{built_at}");
            assert!((kept + 100..2 * kept + 100).all(|id| delivered.holds(mark(id))), "{built_at}");
            assert!(delivered.memory() < 4 << 20);
        }
    }

    #[test]
    fn a_delivery_that_came_again_counts_from_its_last_time() {
        let mut delivered = Delivered::default();
        for id in (0..10).chain([0]).chain(10..KEPT as u64 + 9) {
            delivered.note(mark(id));
        }
        assert!(delivered.holds(mark(0)) && !delivered.holds(mark(1)) && !delivered.holds(mark(9)));
    }

    #[test]
    fn marks_differ_in_every_part() {
        let route = RouteMark::new;
        let marks = [
            route(b"e", b"k").id(&IdValue::Bytes(b"a")),
            route(b"ek", b"").id(&IdValue::Bytes(b"a")),
            route(b"", b"ek").id(&IdValue::Bytes(b"a")),
            route(b"e", b"").id(&IdValue::Bytes(b"ka")),
            route(b"e", b"k").id(&IdValue::Bytes(b"a\0")),
            route(b"e", b"k").id(&IdValue::Bytes(b"0123456789abcdef")),
            route(b"e", b"k").id(&IdValue::Bytes(b"0123456789abcdef0")),
            route(b"e", b"k").id(&IdValue::Integer(97)),
            route(b"e", b"k").id(&IdValue::Bytes(&97_i128.to_le_bytes())),
            route(b"e", b"k").id(&IdValue::Other(b'f', b"a")),
            route(b"e", b"k").id(&IdValue::Other(b'd', b"a")),
            route(b"e", b"k").body(1),
            route(b"e", b"k").body(2),
        ];
        assert_eq!(marks.iter().collect::<HashSet<_>>().len(), marks.len());
        let counted: HashSet<Mark> = (0..100_000).map(mark).collect();
        assert_eq!(counted.len(), 100_000);
    }
}
