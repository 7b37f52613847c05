//! Windows that a reload has taken out, until their stores are closed.

use crate::store::{CLOSE_WITHIN, Keeper};
use futures_util::future::join_all;
use hapax_core::window::{Inspect, StoreFacts};
use parking_lot::Mutex;
use std::sync::Arc;
use std::time::{Duration, Instant};
use tokio::task::JoinHandle;

/// A session may still be about to ask a window that was just taken out. That takes microseconds.
pub(super) const GRACE: Duration = Duration::from_secs(5);

/// A window whose last publishes are in flight.
struct Retired {
    window: Arc<dyn Inspect>,
    keeper: Keeper,
    since: Instant,
}

impl Retired {
    /// Returns true if nobody will ask it or commit to it any more.
    fn is_done(&self, now: Instant) -> bool {
        let is_owed = |store: StoreFacts| store.waiting_publishes > 0 || store.waiting_commits > 0;
        now.duration_since(self.since) >= GRACE
            && self.window.in_flight() == Some(0)
            && !self.window.store(now).is_some_and(is_owed)
    }
}

/// The stores of windows that were taken out.
#[derive(Default)]
pub(super) struct RetiredStores {
    waiting: Mutex<Vec<Retired>>,
    closing: Mutex<Vec<(Arc<str>, JoinHandle<()>)>>,
}

impl RetiredStores {
    /// Keeps a store until the last publish of its window is settled.
    pub(super) fn add(&self, window: Arc<dyn Inspect>, keeper: Keeper, since: Instant) {
        self.waiting.lock().push(Retired { window, keeper, since });
    }

    /// Returns true if the store of a window of this name is not closed yet.
    pub(super) fn has(&self, name: &str) -> bool {
        self.waiting.lock().iter().any(|retired| *retired.window.rules().name == *name)
            || self.closing.lock().iter().any(|(other, task)| **other == *name && !task.is_finished())
    }

    /// Closes those whose last publish is settled.
    pub(super) fn tick(&self, now: Instant) {
        self.closing.lock().retain(|(_, task)| !task.is_finished());
        let done: Vec<Retired> = self.waiting.lock().extract_if(.., |retired| retired.is_done(now)).collect();
        done.into_iter().for_each(|retired| self.close_one(retired, CLOSE_WITHIN));
    }

    fn close_one(&self, Retired { window, keeper, .. }: Retired, within: Duration) {
        let name = Arc::clone(&window.rules().name);
        let said = Arc::clone(&name);
        let task = tokio::spawn(async move {
            keeper.close(within).await;
            tracing::info!(window = &*said, "the store of a window that was removed is closed");
        });
        self.closing.lock().push((name, task));
    }

    /// Closes all of them, and waits for that, but not longer than this.
    pub(super) async fn close(&self, within: Duration) {
        let closing = std::mem::take(&mut *self.closing.lock());
        let ended = closing.into_iter().map(|(window, task)| async move {
            if tokio::time::timeout(within, task).await.is_err() {
                tracing::warn!(window = &*window, "the store of a window that was removed does not answer: what was not written is forgotten");
            }
        });
        let waiting = std::mem::take(&mut *self.waiting.lock());
        let closed = waiting.into_iter().map(|retired| retired.keeper.close(within));
        tokio::join!(join_all(ended), join_all(closed));
    }
}
