//! The memory that all accountings of a process share: what the machine has, and what part of it their ghosts may take.

use super::layout::GHOST_LEAST;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};

/// The ghosts of all windows together take at most this part of the memory that the process may use.
const GHOSTS: usize = 16;

/// The memory that the process may use. There is one for all accountings of a process.
#[derive(Debug)]
pub struct Room {
    memory: usize,
    windows: AtomicUsize,
}

impl Room {
    /// Creates the room of a process that may use this many bytes of memory.
    pub fn new(memory: usize) -> Arc<Room> {
        Arc::new(Room { memory, windows: AtomicUsize::new(0) })
    }

    /// Returns the bytes of memory that the process may use.
    pub fn memory(&self) -> usize {
        self.memory
    }

    /// Returns the bytes that the ghost of one window may take: an equal share for each, and never less than 1 MiB.
    pub(super) fn ghost_share(&self) -> usize {
        (self.memory / GHOSTS / self.windows.load(Relaxed).max(1)).max(GHOST_LEAST)
    }
}

/// One accounting's place in the room. It is given up when it is dropped.
#[derive(Debug)]
pub(super) struct Place(Arc<Room>);

impl Place {
    pub(super) fn new(room: Arc<Room>) -> Place {
        room.windows.fetch_add(1, Relaxed);
        Place(room)
    }

    pub(super) fn room(&self) -> &Room {
        &self.0
    }
}

impl Default for Place {
    /// Returns a place in a room without a bound.
    fn default() -> Place {
        Place::new(Room::new(usize::MAX))
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        self.0.windows.fetch_sub(1, Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_window_has_an_equal_share_and_at_least_a_megabyte() {
        let room = Room::new(1 << 30);
        let first = Place::new(Arc::clone(&room));
        assert_eq!(room.ghost_share(), 64 << 20);
        let others: Vec<Place> = (0..3).map(|_| Place::new(Arc::clone(&room))).collect();
        assert_eq!(room.ghost_share(), 16 << 20);
        drop(others);
        assert_eq!(first.room().ghost_share(), 64 << 20);
        let _many: Vec<Place> = (0..1000).map(|_| Place::new(Arc::clone(&room))).collect();
        assert_eq!(room.ghost_share(), GHOST_LEAST);
    }
}
