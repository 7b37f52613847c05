//! Looking on: recorders of the publishes that a window judges, as keys and moments, for `hapax record`.
//!
//! Publishes must not notice. Without a recorder, one relaxed load; with one, a push into a buffer with a bound, under a lock
//! that the other side holds only to swap buffers. What has no place is counted and left out.
//!
//! What is recorded is that a verdict was asked for, not what came of it: a publish that waits for the outcome of another
//! one is a publish, too.

use super::Key;
use super::engine::Stamp;
use parking_lot::{Mutex, RwLock};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};
use std::time::Duration;

/// Recorders of one window at a time: each costs every publish a push.
pub const RECORDERS: usize = 4;
/// Publishes that wait to be taken, for each recorder: 2 MB.
pub const BUFFERED: usize = 1 << 16;

/// A publish.
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
    /// A verdict is asked for.
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
    /// None if there are [`RECORDERS`] already.
    pub(super) fn open(tap: Arc<Tap>, begin: Stamp) -> Option<Recorder> {
        let buffer = tap.open(begin)?;
        Some(Recorder { tap, buffer })
    }

    /// What was recorded since the last time, in place of what is in `samples`.
    pub fn take(&self, samples: &mut Vec<Sample>) {
        samples.clear();
        samples.reserve(BUFFERED);
        std::mem::swap(&mut self.buffer.held.lock().samples, samples);
    }

    /// Publishes that had no place so far.
    pub fn dropped(&self) -> u64 {
        self.buffer.held.lock().dropped
    }
}

impl Drop for Recorder {
    fn drop(&mut self) {
        self.tap.close(&self.buffer);
    }
}
