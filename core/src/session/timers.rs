//! When channels want to be told that time has passed: the first one is known at once, however many wait.

use crate::wire::ChannelId;
use std::collections::{BTreeMap, BTreeSet};
use std::time::Instant;

/// A deadline for each channel that has one.
#[derive(Debug, Default)]
pub(super) struct Timers {
    at: BTreeMap<ChannelId, Instant>,
    due: BTreeSet<(Instant, ChannelId)>,
}

impl Timers {
    /// The channel's deadline is this one now, or it has none.
    pub(super) fn set(&mut self, id: ChannelId, deadline: Option<Instant>) {
        // Most channels never have one.
        if deadline.is_none() && self.at.is_empty() {
            return;
        }
        let before = match deadline {
            Some(at) => self.at.insert(id, at),
            None => self.at.remove(&id),
        };
        if before != deadline {
            if let Some(at) = before {
                self.due.remove(&(at, id));
            }
            self.due.extend(deadline.map(|at| (at, id)));
        }
    }

    /// The first deadline of all.
    pub(super) fn first(&self) -> Option<Instant> {
        self.due.first().map(|(at, _)| *at)
    }

    /// The channels whose time has come.
    pub(super) fn due(&self, now: Instant) -> Vec<ChannelId> {
        self.due.iter().take_while(|(at, _)| *at <= now).map(|(_, id)| *id).collect()
    }
}
