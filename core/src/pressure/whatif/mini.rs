//! A small store with exact least-recently-seen order and TTL, over 64-bit keys, in one slab. It does what an engine
//! would do at another capacity, for a sample of the keys. It has no events, no shards and no reservations.

use super::POINTS;
use crate::window::engine::Stamp;
use hashbrown::HashTable;

/// The most expired entries that one insert removes from the tail. Engines remove as many.
const SWEEP: usize = 2;
/// The index that means "no entry".
const NONE: u32 = u32::MAX;

/// A small store of keys.
#[derive(Debug)]
pub(super) struct Mini {
    capacity: usize,
    index: HashTable<u32>,
    nodes: Vec<Node>,
    /// index of the most recently seen entry
    head: u32,
    /// index of the least recently seen entry
    tail: u32,
    /// first of the unused nodes, which are linked by `next`
    free: u32,
}

#[derive(Debug)]
struct Node {
    key: u64,
    until: Stamp,
    /// the neighbour towards the head
    prev: u32,
    /// the neighbour towards the tail
    next: u32,
}

/// A publish, as the store sees it.
#[derive(Clone, Copy, Debug)]
pub(super) struct Publish {
    pub(super) key: u64,
    pub(super) now: Stamp,
    /// the end of its TTL, if the key is not remembered yet
    pub(super) until: Stamp,
    /// whether a duplicate renews its key
    pub(super) refresh: bool,
}

impl Mini {
    /// Creates an empty store for at least one entry. It allocates memory as it fills.
    pub(super) fn new(capacity: usize) -> Mini {
        let capacity = capacity.clamp(1, NONE as usize - 1);
        Mini { capacity, index: HashTable::new(), nodes: Vec::new(), head: NONE, tail: NONE, free: NONE }
    }

    /// Returns true if the publish is a duplicate. Otherwise remembers its key.
    pub(super) fn publish(&mut self, publish: Publish) -> bool {
        let Publish { key, now, until, refresh } = publish;
        let found = self.index.find(hash(key), |at| self.key(*at) == key).copied();
        if let Some(at) = found {
            let live = self.node(at).is_some_and(|node| now < node.until);
            self.unlink(at);
            if live {
                self.link_first(at);
                if let Some(node) = self.node_mut(at).filter(|_| refresh) {
                    node.until = node.until.max(until);
                }
                return true;
            }
            self.release(at);
        }
        self.make_room(now);
        self.insert(key, until);
        false
    }

    /// Returns the keys with the end of their TTL, most recently seen first.
    pub(super) fn recent(&self) -> impl Iterator<Item = (u64, Stamp)> + '_ {
        let mut at = self.head;
        std::iter::from_fn(move || {
            let node = self.node(at)?;
            at = node.next;
            Some((node.key, node.until))
        })
    }

    /// Adds a key as the *least* recently seen one. Returns false if there is no room.
    pub(super) fn append(&mut self, key: u64, until: Stamp) -> bool {
        let room = self.index.len() < self.capacity;
        if room {
            self.insert(key, until);
            let at = self.head;
            self.unlink(at);
            let tail = std::mem::replace(&mut self.tail, at);
            self.set_links(at, tail, NONE);
            match self.node_mut(tail) {
                Some(node) => node.next = at,
                None => self.head = at,
            }
        }
        room
    }

    /// Returns the bytes on the heap.
    pub(super) fn bytes(&self) -> usize {
        self.nodes.capacity() * size_of::<Node>() + self.index.allocation_size()
    }

    /// Returns the most bytes that stores with this many entries in all can take. The table has a power of two of
    /// buckets of 5 bytes, and is at most 7/8 full. It doubles once more if removals leave too few clean buckets.
    pub(super) fn bytes_at_most(entries: usize) -> usize {
        entries * size_of::<Node>() + entries * 32 / 7 * (size_of::<u32>() + 1) + POINTS * 64
    }

    fn make_room(&mut self, now: Stamp) {
        for _ in 0..SWEEP {
            if self.node(self.tail).is_none_or(|node| now < node.until) {
                break;
            }
            self.remove_last();
        }
        while self.index.len() >= self.capacity {
            self.remove_last();
        }
    }

    fn remove_last(&mut self) {
        let at = self.tail;
        self.unlink(at);
        self.release(at);
    }

    fn insert(&mut self, key: u64, until: Stamp) {
        let at = match self.node_mut(self.free) {
            Some(_) => self.free,
            None => u32::try_from(self.nodes.len()).unwrap_or(NONE),
        };
        let node = Node { key, until, prev: NONE, next: NONE };
        if let Some(slot) = self.nodes.get_mut(at as usize) {
            self.free = std::mem::replace(slot, node).next;
        } else {
            self.grow();
            self.nodes.push(node);
        }
        let nodes = &self.nodes;
        self.index
            .insert_unique(hash(key), at, |at| nodes.get(*at as usize).map_or(0, |node| hash(node.key)));
        self.link_first(at);
    }

    /// Makes room for twice as many nodes, but never for more than the capacity.
    fn grow(&mut self) {
        let held = self.nodes.len();
        if held == self.nodes.capacity() {
            self.nodes.reserve_exact(held.max(16).min(self.capacity.saturating_sub(held)));
        }
    }

    /// Frees a node that is in no list.
    fn release(&mut self, at: u32) {
        let key = self.key(at);
        if let Ok(entry) = self.index.find_entry(hash(key), |other| *other == at) {
            entry.remove();
        }
        self.set_links(at, NONE, self.free);
        self.free = at;
    }

    fn link_first(&mut self, at: u32) {
        let head = std::mem::replace(&mut self.head, at);
        self.set_links(at, NONE, head);
        match self.node_mut(head) {
            Some(node) => node.prev = at,
            None => self.tail = at,
        }
    }

    fn unlink(&mut self, at: u32) {
        let Some(&Node { prev, next, .. }) = self.node(at) else { return };
        match self.node_mut(prev) {
            Some(node) => node.next = next,
            None => self.head = next,
        }
        match self.node_mut(next) {
            Some(node) => node.prev = prev,
            None => self.tail = prev,
        }
    }

    fn set_links(&mut self, at: u32, prev: u32, next: u32) {
        if let Some(node) = self.node_mut(at) {
            (node.prev, node.next) = (prev, next);
        }
    }

    fn node(&self, at: u32) -> Option<&Node> {
        self.nodes.get(at as usize)
    }

    fn node_mut(&mut self, at: u32) -> Option<&mut Node> {
        self.nodes.get_mut(at as usize)
    }

    fn key(&self, at: u32) -> u64 {
        self.node(at).map_or(0, |node| node.key)
    }
}

/// Mixes a key. All sampled keys have the same highest bits, which are the bits by which a table tells its entries
/// apart.
fn hash(key: u64) -> u64 {
    let product = key.wrapping_mul(0x9e37_79b9_7f4a_7c15);
    product ^ product >> 32
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// The model: a list, least recently seen first.
    #[derive(Default)]
    struct Model(Vec<(u64, Stamp)>);

    impl Model {
        fn publish(&mut self, publish: Publish, capacity: usize) -> bool {
            let Publish { key, now, until, refresh } = publish;
            let known = self.0.iter().position(|(other, _)| *other == key).map(|n| self.0.remove(n));
            if let Some((_, old)) = known.filter(|(_, old)| now < *old) {
                self.0.push((key, if refresh { until } else { old }));
                return true;
            }
            for _ in 0..SWEEP {
                if self.0.first().is_some_and(|(_, until)| now >= *until) {
                    self.0.remove(0);
                }
            }
            if self.0.len() == capacity {
                self.0.remove(0);
            }
            self.0.push((key, until));
            false
        }
    }

    proptest! {
        #[test]
        fn any_list_of_publishes(
            publishes in prop::collection::vec((0..12_u64, 0..4_u64, 1..30_u64), 1..200),
            capacity in 1..8_usize,
            refresh: bool,
        ) {
            let (mut mini, mut model, mut clock) = (Mini::new(capacity), Model::default(), 0);
            for (key, pause, ttl) in publishes {
                clock += pause;
                let publish = Publish { key, now: Stamp(clock), until: Stamp(clock + ttl.max(if refresh { 29 } else { 1 })), refresh };
                prop_assert_eq!(mini.publish(publish), model.publish(publish, capacity));
                let held: Vec<_> = mini.recent().collect();
                prop_assert_eq!(&held, &model.0.iter().rev().copied().collect::<Vec<_>>());
                prop_assert!(mini.nodes.len() <= capacity, "nodes are used again");
                let mut copy = Mini::new(capacity);
                prop_assert!(held.iter().all(|(key, until)| copy.append(*key, *until)));
                prop_assert_eq!(copy.recent().collect::<Vec<_>>(), held);
            }
        }
    }
}
