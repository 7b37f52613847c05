//! Recorders of the publishes that a window judges, as keys and moments, for `hapax record`.
//!
//! Publishes must not become slower by it. Without a recorder, a publish costs one relaxed load. With one, it costs a push into a
//! bounded buffer under a lock; the reader takes that lock only to swap buffers. A publish that finds the buffer full is counted and
//! left out.
//!
//! A publish is recorded when its verdict is asked for, whatever the verdict is. A publish that has to wait is a publish, too.

use super::Key;
use super::engine::Stamp;
use parking_lot::{Mutex, RwLock};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};
use std::time::Duration;

/// Recorders of one window at a time. Each costs every publish a push.
pub const RECORDERS: usize = 4;
/// Publishes that a recorder's buffer holds: 2 MB.
pub const BUFFERED: usize = 1 << 16;

/// A recorded publish.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Sample {
    /// since the recording began
    pub at: Duration,
    /// what the window compares: a digest with the process's own secret
    pub key: Key,
}

/// A window's recorders.
#[derive(Debug, Default)]
pub(super) struct Tap {
    open: AtomicUsize,
    buffers: RwLock<Vec<Arc<Buffer>>>,
}

impl Tap {
    /// Records that a verdict is asked for.
    pub(super) fn asked(&self, key: Key, now: Stamp) {
        if self.open.load(Relaxed) > 0 {
            self.tell(key, now);
        }
    }

    #[cold]
    fn tell(&self, key: Key, now: Stamp) {
        for buffer in &*self.buffers.read() {
            buffer.push(key, now);
        }
    }

    fn open(&self, begin: Stamp) -> Option<Arc<Buffer>> {
        let mut buffers = self.buffers.write();
        let room = buffers.len() < RECORDERS;
        room.then(|| {
            let held = Held { samples: Vec::with_capacity(BUFFERED), dropped: 0 };
            let buffer = Arc::new(Buffer { begin, held: Mutex::new(held) });
            buffers.push(Arc::clone(&buffer));
            self.open.store(buffers.len(), Relaxed);
            buffer
        })
    }

    fn close(&self, buffer: &Arc<Buffer>) {
        let mut buffers = self.buffers.write();
        buffers.retain(|other| !Arc::ptr_eq(other, buffer));
        self.open.store(buffers.len(), Relaxed);
    }
}

#[derive(Debug)]
struct Buffer {
    begin: Stamp,
    held: Mutex<Held>,
}

#[derive(Debug)]
struct Held {
    samples: Vec<Sample>,
    dropped: u64,
}

impl Buffer {
    fn push(&self, key: Key, now: Stamp) {
        let mut held = self.held.lock();
        if held.samples.len() < BUFFERED {
            held.samples.push(Sample { at: now.since(self.begin), key });
        } else {
            held.dropped += 1;
        }
    }
}

/// Records until it is dropped.
#[derive(Debug)]
pub struct Recorder {
    tap: Arc<Tap>,
    buffer: Arc<Buffer>,
}

impl Recorder {
    /// Opens a recorder; `None` if there are [`RECORDERS`] already.
    pub(super) fn open(tap: Arc<Tap>, begin: Stamp) -> Option<Recorder> {
        let buffer = tap.open(begin)?;
        Some(Recorder { tap, buffer })
    }

    /// Replaces the content of `samples` by what was recorded since the last call.
    pub fn take(&self, samples: &mut Vec<Sample>) {
        samples.clear();
        samples.reserve(BUFFERED);
        std::mem::swap(&mut self.buffer.held.lock().samples, samples);
    }

    /// Returns how many publishes were left out so far because the buffer was full.
    pub fn dropped(&self) -> u64 {
        self.buffer.held.lock().dropped
    }
}

impl Drop for Recorder {
    fn drop(&mut self) {
        self.tap.close(&self.buffer);
    }
}
