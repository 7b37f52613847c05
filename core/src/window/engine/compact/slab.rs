//! The memory of a shard's slots. It grows by chunks and gives chunks back. A slot keeps its place until [`Slab::drop_last`] moves it.
//!
//! Slots name each other by place. A [`Chain`] links them: one chain holds the free slots, another one the remembered ids.

use super::slot::{NONE, Slot};
use std::ops::{Index, IndexMut};

/// Slots in a chunk: a power of two, 64 KiB. Large enough that the list of chunks stays in the cache. Small enough that the last
/// chunk, which grows by doubling as any `Vec`, neither wastes much memory nor stops anybody.
const CHUNK: usize = 2048;

/// Slots linked from the oldest to the youngest.
#[derive(Clone, Copy, Debug)]
pub(super) struct Chain {
    pub(super) oldest: u32,
    pub(super) youngest: u32,
}

impl Chain {
    pub(super) const EMPTY: Chain = Chain { oldest: NONE, youngest: NONE };

    pub(super) fn push_young(&mut self, slab: &mut Slab, place: u32) {
        let slot = &mut slab[place];
        slot.set_older(self.youngest);
        slot.set_younger(NONE);
        match self.youngest {
            NONE => self.oldest = place,
            youngest => slab[youngest].set_younger(place),
        }
        self.youngest = place;
    }

    pub(super) fn push_old(&mut self, slab: &mut Slab, place: u32) {
        let slot = &mut slab[place];
        slot.set_younger(self.oldest);
        slot.set_older(NONE);
        match self.oldest {
            NONE => self.youngest = place,
            oldest => slab[oldest].set_older(place),
        }
        self.oldest = place;
    }

    pub(super) fn unlink(&mut self, slab: &mut Slab, place: u32) {
        let (older, younger) = (slab[place].older(), slab[place].younger());
        self.join(slab, older, younger);
    }

    /// Corrects the neighbours of a slot that was moved to `place` with its links.
    fn moved(&mut self, slab: &mut Slab, place: u32) {
        let (older, younger) = (slab[place].older(), slab[place].younger());
        match older {
            NONE => self.oldest = place,
            older => slab[older].set_younger(place),
        }
        match younger {
            NONE => self.youngest = place,
            younger => slab[younger].set_older(place),
        }
    }

    fn join(&mut self, slab: &mut Slab, older: u32, younger: u32) {
        match older {
            NONE => self.oldest = younger,
            older => slab[older].set_younger(younger),
        }
        match younger {
            NONE => self.youngest = older,
            younger => slab[younger].set_older(older),
        }
    }
}

/// The slots of one shard.
#[derive(Debug)]
pub(super) struct Slab {
    /// All chunks but the last one are full.
    chunks: Vec<Vec<Slot>>,
    /// The free slots. Places are taken from the old end, so the slots of the lower half are put there.
    free: Chain,
    free_places: usize,
}

impl Slab {
    pub(super) fn new() -> Slab {
        Slab { chunks: Vec::new(), free: Chain::EMPTY, free_places: 0 }
    }

    /// Returns the number of places, free ones included.
    fn places(&self) -> usize {
        let full = self.chunks.len().saturating_sub(1) * CHUNK;
        full + self.chunks.last().map_or(0, Vec::len)
    }

    /// Returns the last place. There must be one.
    pub(super) fn last_place(&self) -> u32 {
        u32::try_from(self.places().saturating_sub(1)).unwrap_or(NONE)
    }

    pub(super) fn free_places(&self) -> usize {
        self.free_places
    }

    pub(super) fn len(&self) -> usize {
        self.places() - self.free_places
    }

    /// Stores a slot, and returns its place.
    pub(super) fn put(&mut self, slot: Slot) -> u32 {
        let place = self.free.oldest;
        if place != NONE {
            self.take_free(place);
            self[place] = slot;
            return place;
        }
        let place = self.places();
        match self.chunks.last_mut().filter(|chunk| chunk.len() < CHUNK) {
            Some(chunk) => chunk.push(slot),
            None => self.chunks.push(vec![slot]),
        }
        u32::try_from(place).unwrap_or(NONE)
    }

    /// Frees a place. The slot must have been unlinked before.
    pub(super) fn free(&mut self, place: u32) {
        self[place].set_free();
        let mut free = self.free;
        if (place as usize) < self.places() / 2 {
            free.push_old(self, place);
        } else {
            free.push_young(self, place);
        }
        self.free = free;
        self.free_places += 1;
    }

    /// Removes the last place if there is a free one. A slot in the last place moves into the free one, and `chain`, which it belongs
    /// to, is corrected. Returns from where to where a slot has moved.
    pub(super) fn drop_last(&mut self, chain: &mut Chain) -> Option<(u32, u32)> {
        if self.free_places == 0 {
            return None;
        }
        let last = u32::try_from(self.places() - 1).ok()?;
        let mut moved = None;
        if self[last].is_free() {
            self.take_free(last);
        } else {
            let place = self.free.oldest;
            self.take_free(place);
            self[place] = self[last];
            chain.moved(self, place);
            moved = Some((last, place));
        }
        if let Some(chunk) = self.chunks.last_mut() {
            chunk.pop();
            if chunk.is_empty() {
                self.chunks.pop();
            }
        }
        moved
    }

    fn take_free(&mut self, place: u32) {
        let mut free = self.free;
        free.unlink(self, place);
        self.free = free;
        self.free_places -= 1;
    }

    /// Gives back the unused capacity of the last chunk and of the list of chunks.
    pub(super) fn trim(&mut self) {
        if let Some(chunk) = self.chunks.last_mut() {
            chunk.shrink_to_fit();
        }
        self.chunks.shrink_to_fit();
    }

    /// Returns the bytes that a slab with `len` slots takes at most.
    pub(super) fn bytes_at(len: usize) -> usize {
        let places = if len < CHUNK { len.next_power_of_two().max(4) } else { len.next_multiple_of(CHUNK) };
        places * size_of::<Slot>() + 2 * len.div_ceil(CHUNK).max(4) * size_of::<Vec<Slot>>()
    }

    pub(super) fn bytes(&self) -> usize {
        let slots = self.chunks.len().saturating_sub(1) * CHUNK + self.chunks.last().map_or(0, Vec::capacity);
        slots * size_of::<Slot>() + self.chunks.capacity() * size_of::<Vec<Slot>>()
    }
}

impl Index<u32> for Slab {
    type Output = Slot;

    fn index(&self, place: u32) -> &Slot {
        &self.chunks[place as usize / CHUNK][place as usize % CHUNK]
    }
}

impl IndexMut<u32> for Slab {
    fn index_mut(&mut self, place: u32) -> &mut Slot {
        &mut self.chunks[place as usize / CHUNK][place as usize % CHUNK]
    }
}
