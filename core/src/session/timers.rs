//! The deadlines of channels, ordered by time. Finding the first one does not depend on how many channels wait.

use crate::wire::ChannelId;
use std::collections::{BTreeMap, BTreeSet};
use std::time::Instant;

/// Returns the earliest of these deadlines.
#[inline]
pub(super) fn earliest<const N: usize>(deadlines: [Option<Instant>; N]) -> Option<Instant> {
    deadlines.into_iter().flatten().min()
}

/// A deadline for each channel that has one.
#[derive(Debug, Default)]
pub(super) struct Timers {
    /// The deadline of each channel.
    at: BTreeMap<ChannelId, Instant>,
    /// The same, in the order of time.
    due: BTreeSet<(Instant, ChannelId)>,
}

impl Timers {
    /// Sets or removes the channel's deadline.
    pub(super) fn set(&mut self, id: ChannelId, deadline: Option<Instant>) {
        // Most channels never have a deadline.
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

    /// Returns the first deadline.
    pub(super) fn first(&self) -> Option<Instant> {
        self.due.first().map(|(at, _)| *at)
    }

    /// Returns the channels whose deadline has passed.
    pub(super) fn due(&self, now: Instant) -> Vec<ChannelId> {
        self.due.iter().take_while(|(at, _)| *at <= now).map(|(_, id)| *id).collect()
    }
}
