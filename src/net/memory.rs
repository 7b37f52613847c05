//! The memory limit for everything that is held for clients (`limits.memory`). Each connection counts what it holds,
//! and the sum for the process is bounded.
//!
//! Each connection reports its bytes to a [`Holding`] once per wake-up of its task. The *mark* is half of the limit.
//! The *share* of a connection is the mark divided by the number of connections, but at least what one connection
//! needs. While the process holds more than the mark, a connection that holds more than its share is not read from.
//! Its memory shrinks anyway: outcomes arrive, waits time out, buffers are written. Publishes that could not leave
//! memory in any of these ways are refused (`Session::handle_memory_pressure`). Connections within their share are
//! read as usual.
//!
//! This bounds the sum. When the process passes the mark, all connections together hold the mark. After that only
//! connections within their share can grow, each up to one share plus one read. With n connections the sum is at most
//!
//! ```text
//!   mark + n * (share + one read)  =  limit + n * one read        where share = mark / n
//! ```
//!
//! If the limit is so small that mark / n is less than one connection needs, n times that need counts instead of the
//! mark. Reads are short while the process is above its mark.

use crate::stats::Stats;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};
use tokio::sync::watch;

/// A connection reports a change only when it is at least this many bytes: most wake-ups change almost nothing. The
/// sum can therefore be wrong by this much for each connection.
const REPORT_STEP: usize = 4 << 10;
/// Bytes that a connection may always hold, in addition to one frame. An idle connection holds less.
const ALWAYS_ALLOWED: usize = 256 << 10;

/// The memory limit of the process.
#[derive(Debug)]
pub struct MemoryLimit {
    stats: Arc<Stats>,
    mark: AtomicUsize,
    /// When the sum falls below this, waiting connections wake up. It is lower than the mark, so that they do not wake
    /// up for every small step.
    low: AtomicUsize,
    room: watch::Sender<()>,
}

impl MemoryLimit {
    /// Creates a limit of `limit` bytes. `stats` shows how much of it is used.
    pub fn new(limit: usize, stats: Arc<Stats>) -> Arc<MemoryLimit> {
        let (mark, low) = (AtomicUsize::new(0), AtomicUsize::new(0));
        let memory = Arc::new(MemoryLimit { stats, mark, low, room: watch::Sender::new(()) });
        memory.set_limit(limit);
        memory
    }

    /// Changes the limit. Connections notice it at their next report.
    pub fn set_limit(&self, limit: usize) {
        self.stats.memory.limit.store(limit, Relaxed);
        let mark = limit / 2;
        self.mark.store(mark, Relaxed);
        self.low.store(mark - mark / 8, Relaxed);
        self.room.send_replace(());
    }

    fn mark(&self) -> usize {
        self.mark.load(Relaxed)
    }

    /// Wakes waiting connections so that they check again. Call it about once a second: a share grows when other
    /// connections close, and nothing else tells the waiting ones.
    pub fn tick(&self) {
        if self.stats.memory.paused.load(Relaxed) > 0 {
            self.room.send_replace(());
        }
    }

    /// Adds a connection to those that share the memory.
    pub(super) fn enter(self: &Arc<MemoryLimit>) -> Holding {
        self.stats.memory.holders.fetch_add(1, Relaxed);
        Holding { room: self.room.subscribe(), limit: Arc::clone(self), reported: 0, share: None }
    }

    fn is_above_mark(&self) -> bool {
        self.stats.memory.used.load(Relaxed) > self.mark()
    }

    fn add(&self, bytes: usize) {
        self.stats.memory.used.fetch_add(bytes, Relaxed);
    }

    fn take(&self, bytes: usize) {
        let before = self.stats.memory.used.fetch_sub(bytes, Relaxed);
        let low = self.low.load(Relaxed);
        if before > low && before - bytes <= low {
            self.room.send_replace(());
        }
    }
}

/// The memory that one connection holds.
#[derive(Debug)]
pub(super) struct Holding {
    limit: Arc<MemoryLimit>,
    reported: usize,
    /// The connection's share, while it holds more than that and is not read from.
    share: Option<usize>,
    room: watch::Receiver<()>,
}

impl Holding {
    /// Reports that the connection holds `held` bytes and needs `frame` bytes more to complete a frame. Returns its
    /// share if it holds more than that and must not be read from.
    pub(super) fn report(&mut self, held: usize, frame: usize) -> Option<usize> {
        match (held.checked_sub(self.reported), self.reported.checked_sub(held)) {
            (Some(more), _) if more >= REPORT_STEP => {
                self.limit.add(more);
                self.reported = held;
            }
            (_, Some(less)) if less >= REPORT_STEP => {
                self.limit.take(less);
                self.reported = held;
            }
            _ => {}
        }
        let share = if self.limit.is_above_mark() { self.share_if_exceeded(held, frame) } else { None };
        if share.is_some() != self.share.is_some() {
            let paused = &self.limit.stats.memory.paused;
            match share {
                Some(_) => paused.fetch_add(1, Relaxed),
                None => paused.fetch_sub(1, Relaxed),
            };
        }
        self.share = share;
        share
    }

    fn share_if_exceeded(&mut self, held: usize, frame: usize) -> Option<usize> {
        // Mark the channel as seen before the sum is read: a change that comes later wakes us again.
        self.room.borrow_and_update();
        let holders = self.limit.stats.memory.holders.load(Relaxed).max(1);
        let share = (self.limit.mark() / holders).max(ALWAYS_ALLOWED + frame);
        (held > share && self.limit.is_above_mark()).then_some(share)
    }

    /// Returns true if reads should be short.
    pub(super) fn is_tight(&self) -> bool {
        self.limit.is_above_mark()
    }

    /// Returns true if the connection waits for memory.
    pub(super) fn is_waiting(&self) -> bool {
        self.share.is_some()
    }

    /// Waits until there may be memory again.
    pub(super) async fn wait_for_room(&mut self) {
        if self.room.changed().await.is_err() {
            std::future::pending::<()>().await;
        }
    }
}

impl Drop for Holding {
    fn drop(&mut self) {
        let memory = &self.limit.stats.memory;
        memory.holders.fetch_sub(1, Relaxed);
        if self.share.is_some() {
            memory.paused.fetch_sub(1, Relaxed);
        }
        self.limit.take(self.reported);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use futures_util::FutureExt;

    const MIB: usize = 1 << 20;
    const FRAME: usize = 128 << 10;

    fn memory_limit(limit: usize) -> Arc<MemoryLimit> {
        MemoryLimit::new(limit, Stats::new())
    }

    fn used(limit: &MemoryLimit) -> usize {
        limit.stats.memory.used.load(Relaxed)
    }

    #[test]
    fn nobody_is_stopped_below_the_mark() {
        let limit = memory_limit(64 * MIB);
        let mut one = limit.enter();
        assert_eq!(one.report(32 * MIB, FRAME), None);
        assert_eq!(one.report(32 * MIB + REPORT_STEP, FRAME), Some(32 * MIB));
        assert_eq!(limit.stats.memory.paused.load(Relaxed), 1);
    }

    #[test]
    fn above_the_mark_those_above_their_share_wait_until_there_is_room() {
        let limit = memory_limit(64 * MIB);
        let mut all: Vec<Holding> = (0..4).map(|_| limit.enter()).collect();
        all[0].report(30 * MIB, FRAME);
        all[1].report(7 * MIB, FRAME);
        assert_eq!(all[0].report(30 * MIB, FRAME), Some(8 * MIB));
        assert_eq!(all[1].report(7 * MIB, FRAME), None, "it is within its share");
        assert!(all[0].wait_for_room().now_or_never().is_none());
        drop(all.remove(1));
        assert!(all[0].wait_for_room().now_or_never().is_none(), "there is too little room still");
        all[0].report(27 * MIB, FRAME);
        assert!(all[0].wait_for_room().now_or_never().is_some());
        assert_eq!(all[0].report(27 * MIB, FRAME), None);
        assert_eq!(limit.stats.memory.paused.load(Relaxed), 0);
        drop(all);
        assert_eq!(used(&limit), 0);
    }

    #[test]
    fn a_tick_wakes_those_that_wait() {
        let limit = memory_limit(64 * MIB);
        let mut one = limit.enter();
        one.report(33 * MIB, FRAME);
        assert!(one.wait_for_room().now_or_never().is_none());
        limit.tick();
        assert!(one.wait_for_room().now_or_never().is_some());
    }

    /// Connections grow by one read at a time, as fast as they may, and never shrink.
    #[test]
    fn the_sum_is_bounded() {
        const READ: usize = 64 << 10;
        for (limit, count) in [(64 * MIB, 61), (256 * MIB, 7), (16 * MIB, 1)] {
            let memory = memory_limit(limit);
            let mut all: Vec<(Holding, usize)> = (0..count).map(|_| (memory.enter(), 0)).collect();
            for round in 0..10_000 {
                // Some connections grow faster than others.
                for (n, (holding, held)) in all.iter_mut().enumerate() {
                    if round % (n % 5 + 1) == 0 && holding.report(*held, FRAME).is_none() {
                        *held += READ;
                    }
                }
            }
            let sum: usize = all.iter().map(|(_, held)| held).sum();
            let least = count * (ALWAYS_ALLOWED + FRAME);
            assert!(
                sum <= limit.max(limit / 2 + least) + count * (READ + REPORT_STEP),
                "{sum} of {limit} by {count}"
            );
            assert!(sum >= limit / 2, "{sum} of {limit} is less than is allowed");
        }
    }
}
