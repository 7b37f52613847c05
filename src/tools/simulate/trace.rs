//! A trace in memory: when each publish came and which key it had, in order of time.
//!
//! No ids: they are digested as they come. Columns, not rows, because a replay reads millions of events a hundred times.

use hapax_core::window::{Key, KeyMaker, Scope};
use hapax_core::wire::properties::IdValue;
use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::time::Duration;

/// An id that comes once has no slot.
pub(super) const NO_SLOT: u32 = u32::MAX;
/// The digests of a trace need no secret: a reader of the trace has the ids anyway. A fixed secret makes runs repeatable.
const SECRET: (u64, u64) = (0x6861_7061_7820_7369, 0x6d75_6c61_7465_2031);

/// The publishes of a trace in the order of their times.
#[derive(Debug)]
pub struct Trace {
    /// nanoseconds since the first event, never falling
    at: Vec<u64>,
    keys: Vec<Key>,
    /// a small number for each id that comes more than once, else [`NO_SLOT`]
    slots: Vec<u32>,
    /// the message's own TTL in nanoseconds; empty if no event has one, and 0 for those that have none
    ttls: Vec<u64>,
    ids: usize,
    repeating: usize,
    /// from each repeat back to the id's event before it, in nanoseconds, sorted
    delays: Vec<u64>,
    /// Of each event: which producer has published it, and under which number. `None` unless all events say so.
    numbers: Option<Vec<(u32, u64)>>,
    producers: usize,
}

impl Trace {
    /// Publishes.
    pub fn events(&self) -> usize {
        self.at.len()
    }

    /// Different ids.
    pub fn ids(&self) -> usize {
        self.ids
    }

    /// Publishes of an id that had come before, however long ago.
    pub fn repeats(&self) -> usize {
        self.events() - self.ids
    }

    /// Returns the time between the first and the last event.
    pub fn span(&self) -> Duration {
        Duration::from_nanos(self.at.last().copied().unwrap_or_default())
    }

    /// How long after the id's last event a repeat came, at this quantile (0 to 1); none without repeats.
    pub fn repeat_delay(&self, quantile: f64) -> Option<Duration> {
        #[expect(
            clippy::cast_possible_truncation,
            clippy::cast_sign_loss,
            clippy::cast_precision_loss,
            reason = "an index below the length, which is far below 2^52"
        )]
        let index = (self.delays.len().saturating_sub(1) as f64 * quantile.clamp(0.0, 1.0)).round() as usize;
        self.delays.get(index).map(|nanos| Duration::from_nanos(*nanos))
    }

    /// Producers; 0 unless all events name theirs.
    pub fn producers(&self) -> usize {
        self.producers
    }

    /// All events in order, if each names its producer and its number: when, which of them, and whether its id came before.
    pub(super) fn numbers(&self) -> Option<impl Iterator<Item = (u64, (u32, u64), bool)>> {
        let mut seen = vec![false; self.repeating];
        let mut is_repeat = move |slot: u32| {
            let seen = if slot == NO_SLOT { None } else { seen.get_mut(slot as usize) };
            seen.is_some_and(|seen| std::mem::replace(seen, true))
        };
        let events = self.at.iter().zip(self.numbers.as_ref()?).zip(&self.slots);
        Some(events.map(move |((at, number), slot)| (*at, *number, is_repeat(*slot))))
    }

    /// Ids that come more than once.
    pub(super) fn repeating(&self) -> usize {
        self.repeating
    }

    /// All events in order: when, which key, the id's slot, and the message's own TTL if it has one.
    pub(super) fn iter(&self) -> impl Iterator<Item = (u64, Key, u32, Option<u64>)> {
        let ttls = self.ttls.iter().copied().map(|ttl| (ttl > 0).then_some(ttl));
        let ttls = ttls.chain(std::iter::repeat(None));
        let events = self.at.iter().zip(&self.keys).zip(&self.slots).zip(ttls);
        events.map(|(((at, key), slot), ttl)| (*at, *key, *slot, ttl))
    }
}

/// Takes events in nearly any order.
#[derive(Debug)]
pub struct TraceBuilder {
    keys: KeyMaker,
    events: Vec<(i128, Key)>,
    ttls: Vec<u64>,
    /// the numbers of the first events, up to the first event without one
    numbers: Vec<(u32, u64)>,
    names: HashMap<Box<[u8]>, u32>,
    newest: i128,
    sorted: bool,
}

impl Default for TraceBuilder {
    fn default() -> TraceBuilder {
        TraceBuilder::new()
    }
}

impl TraceBuilder {
    /// An empty one.
    pub fn new() -> TraceBuilder {
        TraceBuilder {
            keys: KeyMaker::new(SECRET),
            events: Vec::new(),
            ttls: Vec::new(),
            numbers: Vec::new(),
            names: HashMap::new(),
            newest: i128::MIN,
            sorted: true,
        }
    }

    /// Whether there is no event yet.
    pub fn is_empty(&self) -> bool {
        self.events.is_empty()
    }

    /// The latest time that was pushed, in nanoseconds.
    pub fn newest(&self) -> Option<i128> {
        (!self.is_empty()).then_some(self.newest)
    }

    /// A publish of this id, `at` nanoseconds after whatever the trace counts from, with a TTL of its own or not.
    pub fn push(&mut self, at: i128, id: &[u8], ttl: Option<Duration>) {
        if let Some(ttl) = ttl {
            // A TTL of nothing remembers nothing; 0 stands for "none of its own".
            let nanos = u64::try_from(ttl.as_nanos()).unwrap_or(u64::MAX).max(1);
            self.ttls.resize(self.events.len(), 0);
            self.ttls.push(nanos);
        }
        self.events.push((at, self.keys.key(Scope::Vhost, b"", b"", b"", &IdValue::Bytes(id))));
        self.sorted &= at >= self.newest;
        self.newest = self.newest.max(at);
    }

    /// As [`TraceBuilder::push`], with the producer's name and the number that it has given to the message.
    pub fn push_number(&mut self, at: i128, id: &[u8], ttl: Option<Duration>, (name, number): (&[u8], u64)) {
        // (One event without a number is enough: then there is no comparison.)
        if self.numbers.len() == self.events.len() {
            let next = u32::try_from(self.names.len()).unwrap_or(u32::MAX);
            let producer = *self.names.entry(name.into()).or_insert(next);
            self.numbers.push((producer, number));
        }
        self.push(at, id, ttl);
    }

    /// Sorts the events and counts them.
    pub fn build(mut self) -> Trace {
        if !self.ttls.is_empty() {
            self.ttls.resize(self.events.len(), 0);
        }
        let all_have_numbers = !self.numbers.is_empty() && self.numbers.len() == self.events.len();
        if !self.sorted {
            let mut order: Vec<usize> = (0..self.events.len()).collect();
            order.sort_by_key(|index| self.events.get(*index).map(|(at, _)| *at));
            self.events = picked(&self.events, &order);
            self.ttls = picked(&self.ttls, &order);
            self.numbers = picked(&self.numbers, &order);
        }
        let first = self.events.first().map_or(0, |(at, _)| *at);
        let since = |at: i128| u64::try_from(at.saturating_sub(first)).unwrap_or(u64::MAX);
        let at: Vec<u64> = self.events.iter().map(|(at, _)| since(*at)).collect();
        let keys: Vec<Key> = self.events.iter().map(|(_, key)| *key).collect();
        let Numbered { slots, ids, repeating, delays } = number(&at, &keys);
        let producers = if all_have_numbers { self.names.len() } else { 0 };
        let numbers = all_have_numbers.then_some(self.numbers);
        Trace { at, keys, slots, ttls: self.ttls, ids, repeating, delays, numbers, producers }
    }
}

fn picked<T: Copy>(from: &[T], order: &[usize]) -> Vec<T> {
    order.iter().filter_map(|index| from.get(*index).copied()).collect()
}

struct Numbered {
    slots: Vec<u32>,
    ids: usize,
    repeating: usize,
    delays: Vec<u64>,
}

/// Gives the ids that repeat their slots.
fn number(at: &[u64], keys: &[Key]) -> Numbered {
    struct Known {
        first: usize,
        last: u64,
        slot: u32,
    }
    let mut slots = vec![NO_SLOT; keys.len()];
    let (mut repeating, mut delays) = (0, Vec::new());
    let mut known: HashMap<Key, Known> = HashMap::new();
    for (index, (at, key)) in at.iter().zip(keys).enumerate() {
        match known.entry(*key) {
            Entry::Vacant(place) => {
                place.insert(Known { first: index, last: *at, slot: NO_SLOT });
            }
            Entry::Occupied(mut place) => {
                let known = place.get_mut();
                if known.slot == NO_SLOT {
                    known.slot = repeating;
                    repeating += 1;
                    if let Some(slot) = slots.get_mut(known.first) {
                        *slot = known.slot;
                    }
                }
                if let Some(slot) = slots.get_mut(index) {
                    *slot = known.slot;
                }
                delays.push(at - known.last);
                known.last = *at;
            }
        }
    }
    delays.sort_unstable();
    Numbered { slots, ids: known.len(), repeating: repeating as usize, delays }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn events_are_sorted_and_counted_from_the_first() {
        let mut builder = TraceBuilder::new();
        for (at, id, ttl) in [(50, "b", None), (20, "a", Some(7)), (90, "a", None), (50, "c", None)] {
            builder.push(at, id.as_bytes(), ttl.map(Duration::from_nanos));
        }
        let trace = builder.build();
        assert_eq!((trace.events(), trace.ids(), trace.repeats()), (4, 3, 1));
        assert_eq!(trace.span(), Duration::from_nanos(70));
        assert_eq!(trace.repeat_delay(0.5), Some(Duration::from_nanos(70)));
        let seen: Vec<_> = trace.iter().map(|(at, _, slot, ttl)| (at, slot, ttl)).collect();
        let none = NO_SLOT;
        // Two events of one moment keep their order.
        assert_eq!(seen, [(0, 0, Some(7)), (30, none, None), (30, none, None), (70, 0, None)]);
        let keys: Vec<Key> = trace.iter().map(|(_, key, _, _)| key).collect();
        assert_eq!(keys[0], keys[3]);
        assert_ne!(keys[1], keys[2]);
    }

    #[test]
    fn nothing_is_a_trace_too() {
        let trace = TraceBuilder::new().build();
        assert_eq!((trace.events(), trace.ids(), trace.span()), (0, 0, Duration::ZERO));
        assert_eq!(trace.repeat_delay(0.5), None);
    }
}
