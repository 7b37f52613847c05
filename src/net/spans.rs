//! The spans of judged publishes on their way to the collector (`[telemetry]`).
//!
//! A connection's task never waits here: a span that finds no room is counted and dropped. The queue takes [`ROOM`] spans of at most a
//! kilobyte each.

use hapax_core::session::Traced;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering::Relaxed};
use std::time::SystemTime;
use tokio::sync::mpsc;

/// The spans that may wait.
const ROOM: usize = 2048;

/// A span.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Span {
    /// the publish
    pub traced: Box<Traced>,
    /// the user who published it, if the mechanism shows it
    pub user: Option<Box<str>>,
    /// when it was read
    pub began: SystemTime,
    /// when its verdict was carried out
    pub ended: SystemTime,
}

/// Takes the spans of all connections.
#[derive(Debug)]
pub struct Spans {
    /// every n-th judged publish is looked at
    every: u32,
    /// counts connections, so that not all of them begin with the same publish
    connections: AtomicU32,
    queue: mpsc::Sender<Span>,
    dropped: AtomicU64,
}

impl Spans {
    /// Creates the queue. Every n-th judged publish of a connection is looked at.
    pub fn new(every: u32) -> (Arc<Spans>, mpsc::Receiver<Span>) {
        let (queue, spans) = mpsc::channel(ROOM);
        let connections = AtomicU32::new(0);
        (Arc::new(Spans { every, connections, queue, dropped: AtomicU64::new(0) }), spans)
    }

    /// Returns every how many publishes of a new connection one is looked at, and how many are passed over before the first.
    pub(super) fn pace(&self) -> (u32, u32) {
        // Multiples of this number are spread evenly.
        let number = self.connections.fetch_add(1, Relaxed).wrapping_mul(0x9E37_79B9);
        (self.every, number % self.every.max(1))
    }

    /// Puts a span in, if there is room.
    pub(super) fn put(&self, span: Span) {
        let left_out = span.traced.left_out;
        let dropped = left_out + u64::from(self.queue.try_send(span).is_err());
        self.dropped(dropped);
    }

    /// Counts spans that were dropped.
    pub fn dropped(&self, spans: u64) {
        if spans > 0 {
            self.dropped.fetch_add(spans, Relaxed);
        }
    }

    /// Returns how many spans were dropped since the start.
    pub fn dropped_total(&self) -> u64 {
        self.dropped.load(Relaxed)
    }
}
