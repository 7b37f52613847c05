//! Commits that their windows do not remember yet. Something waits for each of them.

use crate::window::{Mailbox, OverdueCommit, Unremembered, Window, is_same};
use std::collections::VecDeque;
use std::sync::Arc;
use std::time::{Duration, Instant};

/// When a commit was made, and how long its window may be silent about it.
#[derive(Clone, Copy, Debug)]
pub(super) struct Deadline<'a> {
    pub(super) now: Instant,
    /// how long the window may be silent
    pub(super) timeout: Duration,
    /// the session that the window wakes when it remembers the commit
    pub(super) mailbox: &'a Arc<Mailbox>,
}

/// The things that wait until windows remember commits: a `T` for each commit. A window remembers its commits in their order.
#[derive(Debug)]
pub(super) struct Outstanding<T> {
    /// mostly one
    windows: Vec<Log<T>>,
}

/// The commits of one window, oldest first.
#[derive(Debug)]
struct Log<T> {
    window: Arc<dyn Window>,
    commits: VecDeque<Commit<T>>,
}

#[derive(Debug)]
struct Commit<T> {
    commit: Unremembered,
    /// when the window is asked what to do about its silence
    until: Instant,
    waits: T,
}

impl<T> Default for Outstanding<T> {
    fn default() -> Outstanding<T> {
        Outstanding { windows: Vec::new() }
    }
}

impl<T> Outstanding<T> {
    /// Returns true if nothing waits.
    #[inline]
    pub(super) fn is_empty(&self) -> bool {
        self.windows.is_empty()
    }

    /// Lets `waits` wait for this commit. The window wakes the session when it remembers it.
    pub(super) fn push(&mut self, commit: Unremembered, waits: T, deadline: Deadline<'_>) {
        commit.tell_when(deadline.mailbox);
        let until = deadline.now + deadline.timeout;
        let window = Arc::clone(commit.window());
        let commit = Commit { commit, until, waits };
        match self.windows.iter_mut().find(|log| is_same(&log.window, &window)) {
            Some(log) => log.commits.push_back(commit),
            None => self.windows.push(Log { window, commits: VecDeque::from([commit]) }),
        }
    }

    /// Calls `done` with everything that need not wait any more.
    pub(super) fn recv_remembered(&mut self, mut done: impl FnMut(T)) {
        for log in &mut self.windows {
            let position = log.window.remembered();
            while let Some(commit) = log.commits.pop_front_if(|commit| commit.commit.position() <= position) {
                done(commit.waits);
            }
        }
        self.windows.retain(|log| !log.commits.is_empty());
    }

    /// Returns when [`Outstanding::expire`] has something to do.
    pub(super) fn deadline(&self) -> Option<Instant> {
        self.windows.iter().filter_map(|log| Some(log.commits.front()?.until)).min()
    }

    /// Asks each window that has been silent for too long what to do. Calls `done` with everything that need not wait any
    /// more; the rest gets a new deadline. A commit that the window remembers by now is not overdue, even if the window has called nobody.
    pub(super) fn expire(&mut self, now: Instant, timeout: Duration, mut done: impl FnMut(T)) {
        if self.deadline().is_none_or(|first| first > now) {
            return;
        }
        self.recv_remembered(&mut done);
        for log in &mut self.windows {
            while let Some(oldest) = log.commits.front_mut().filter(|oldest| oldest.until <= now) {
                match oldest.commit.overdue(now) {
                    OverdueCommit::AckAnyway => log.commits.pop_front().into_iter().for_each(|commit| {
                        done(commit.waits);
                    }),
                    OverdueCommit::WaitOn => oldest.until = now + timeout,
                }
            }
        }
        self.windows.retain(|log| !log.commits.is_empty());
    }

    /// Calls `done` with everything that waits, and waits for nothing any more.
    pub(super) fn drain(&mut self, mut done: impl FnMut(T)) {
        for log in self.windows.drain(..) {
            log.commits.into_iter().for_each(|commit| done(commit.waits));
        }
    }

    /// Forgets everything: nobody waits any more.
    pub(super) fn clear(&mut self) {
        self.windows.clear();
    }
}
