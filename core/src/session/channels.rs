//! The channels of a session, the sums over them, and which of them have something to do.

use super::Shared;
use super::channel::{Booked, Channel};
use super::cx::{Cx, Link};
use super::fault::Fault;
use super::handshake::Handshake;
use super::probe::{Asker, Probes};
use super::timers::Timers;
use crate::wire::ChannelId;
use std::collections::{BTreeMap, BTreeSet};
use std::time::Instant;

/// All channels of one connection.
#[derive(Debug, Default)]
pub(super) struct Channels {
    /// In the order of their numbers: what a session writes depends on nothing but what it was told. In boxes, because a node
    /// of the tree has room for eleven, and most connections have one channel.
    open: BTreeMap<ChannelId, Box<Channel>>,
    /// Channels that were opened so far: it tells channels with the same number apart.
    births: u64,
    /// The sums over all channels.
    total: Booked,
    /// Channels that have confirms for the client.
    due: BTreeSet<ChannelId>,
    /// Channels whose waiting frames could go on, if there were room for unresolved publishes.
    ready: BTreeSet<ChannelId>,
    /// Channels whose client waits until a window remembers its ids.
    unremembered: BTreeSet<ChannelId>,
    /// Channels that wait for a time.
    timers: Timers,
    /// Numbers of channels that are gone, but whose client has not answered a `channel.close` yet.
    owed: BTreeSet<ChannelId>,
}

impl Channels {
    /// Returns the number of channels that are open, or not closed yet by both sides.
    pub(super) fn len(&self) -> usize {
        self.open.len()
    }

    /// Returns true if there is a channel of this number.
    pub(super) fn contains(&self, id: ChannelId) -> bool {
        self.open.contains_key(&id)
    }

    /// Returns the numbers of all channels.
    pub(super) fn ids(&self) -> Vec<ChannelId> {
        self.open.keys().copied().collect()
    }

    /// Returns the sums over all channels.
    #[inline]
    pub(super) fn total(&self) -> Booked {
        self.total
    }

    /// Returns true if the outcome of every publish is known and nothing waits.
    pub(super) fn are_settled(&self) -> bool {
        self.open.values().all(|channel| channel.is_settled())
    }

    /// Returns true if something has begun on a channel that only the client can end.
    pub(super) fn await_client(&self) -> bool {
        self.open.values().any(|channel| channel.awaits_client())
    }

    /// Returns true if others wait for one of `count` publishes without an outcome, from this one on.
    pub(super) fn are_awaited(&self, mut from: usize, count: usize) -> bool {
        let mut left = count;
        for channel in self.open.values() {
            let unsettled = channel.unsettled();
            if from < unsettled && left > 0 {
                if channel.is_awaited(from, left) {
                    return true;
                }
                left -= left.min(unsettled - from);
            }
            from = from.saturating_sub(unsettled);
        }
        false
    }

    /// Returns true if a frame of the client for this channel number has to wait, because Hapax or the upstream still uses the
    /// number, or a number that the client may believe to be free.
    pub(super) fn is_blocked(&self, id: ChannelId, probes: &Probes, handshake: &Handshake) -> bool {
        let upstream_max = usize::from(handshake.upstream_channel_max());
        let is_free = |channel: &Channel| channel.is_free_for_client();
        probes.channel() == Some(id)
            || self.open.get(&id).is_some_and(|channel| is_free(channel))
            || self.total.hidden > 0 && self.len() >= upstream_max && !self.contains(id)
            || probes.is_at_work() && self.len() + 1 >= upstream_max && !self.contains(id)
    }

    /// Returns true if the client may believe that the number is free, but the upstream's channel is not closed yet.
    pub(super) fn is_hidden(&self, id: ChannelId) -> bool {
        self.open.get(&id).is_some_and(|channel| channel.is_free_for_client())
    }

    /// Returns true if the client has `max` channels, and this is none of them. Those that the client believes to be closed do
    /// not count.
    pub(super) fn is_one_too_many(&self, id: ChannelId, max: u16) -> bool {
        let has = self.len() - self.total.hidden;
        id != ChannelId::CONNECTION && has >= usize::from(max) && !self.contains(id)
    }

    /// Returns true if the client may believe that the number is free, but has still to answer a `channel.close` there.
    pub(super) fn is_owed(&self, id: ChannelId) -> bool {
        self.open.get(&id).is_some_and(|channel| channel.is_free_for_client() && channel.owes_close_ok())
    }

    /// Returns the largest number up to `most` that no channel has.
    pub(super) fn free_number(&self, most: u16) -> Option<ChannelId> {
        (1..=most).rev().map(ChannelId).find(|id| !self.contains(*id))
    }

    /// Returns true if this asker still waits for the proof of a right.
    pub(super) fn waits(&self, asker: &Asker) -> bool {
        self.open.get(&asker.channel).is_some_and(|channel| channel.waits_as(asker.birth))
    }

    /// Returns the channels on which a client that publishes hears no outcome.
    pub(super) fn silent(&self) -> impl Iterator<Item = ChannelId> {
        self.open.iter().filter(|(_, channel)| channel.is_silent()).map(|(id, _)| *id)
    }

    /// Returns true if messages may be lost when the client's connection ends now. `is_unheard`: the client publishes on this channel, and
    /// has heard no outcome.
    pub(super) fn would_lose(&self, is_unheard: impl Fn(ChannelId) -> bool) -> bool {
        self.open.iter().any(|(id, channel)| channel.would_lose(is_unheard(*id)))
    }

    /// Returns true if the broker would take back a delivery that was delivered before already, if the client's connection ended now.
    pub(super) fn hold_redelivered(&self) -> bool {
        self.open.values().any(|channel| channel.holds_redelivered())
    }

    /// Returns the channel that holds the most bytes that only the client can end.
    pub(super) fn most_stuck(&self) -> Option<ChannelId> {
        self.open.iter().max_by_key(|(_, channel)| channel.booked().stuck).map(|(id, _)| *id)
    }

    /// Returns true if a channel of this number is gone, but its client has not answered a `channel.close` yet.
    pub(super) fn is_answered_late(&self, id: ChannelId) -> bool {
        self.owed.contains(&id)
    }

    /// Notes that the client has given up this number at the upstream, and what it has not answered there.
    pub(super) fn forget_owed(&mut self, id: ChannelId) {
        self.owed.remove(&id);
    }

    /// Adds a channel when its `channel.open` is forwarded.
    pub(super) fn open(&mut self, id: ChannelId) {
        self.owed.remove(&id);
        self.births += 1;
        let mut channel = Box::new(Channel::new(id, self.births));
        let (before, after) = channel.book();
        self.total.replace(before, after);
        self.open.insert(id, channel);
    }

    /// Handles a `channel.close-ok` of the client for a channel that is gone. Returns true if it was owed.
    pub(super) fn recv_close_ok(&mut self, id: ChannelId) -> bool {
        self.owed.remove(&id)
    }

    /// Tells a channel of an event, refuses the channel if the event is a fault, and books the channel anew. Returns `None` if
    /// there is no such channel, and a fault if the whole connection has to end.
    pub(super) fn tell(
        &mut self,
        id: ChannelId,
        shared: &Shared,
        link: &mut Link,
        now: Instant,
        event: impl FnOnce(&mut Channel, &mut Cx<'_>) -> Result<(), Fault>,
    ) -> Option<Result<(), Fault>> {
        let channel = self.open.get_mut(&id)?;
        let Booked { unresolved, held, hidden, .. } = channel.booked();
        let unresolved_elsewhere = self.total.unresolved - unresolved;
        let held_elsewhere = self.total.held - held;
        let hidden_elsewhere = self.total.hidden - hidden;
        let mut cx = Cx { shared, link, unresolved_elsewhere, held_elsewhere, hidden_elsewhere, now };
        let result = event(channel, &mut cx).or_else(|fault| channel.refuse(fault, &mut cx));
        let (before, after) = channel.book();
        self.total.replace(before, after);
        if channel.is_due() {
            self.due.insert(id);
        }
        if channel.is_ready() {
            self.ready.insert(id);
        }
        if channel.is_unremembered() {
            self.unremembered.insert(id);
        } else if !self.unremembered.is_empty() {
            self.unremembered.remove(&id);
        }
        self.timers.set(id, channel.deadline());
        if channel.is_gone() {
            self.remove(id);
        }
        Some(result)
    }

    fn remove(&mut self, id: ChannelId) {
        if let Some(channel) = self.open.remove(&id) {
            self.total.replace(channel.booked(), Booked::default());
            if channel.owes_close_ok() {
                self.owed.insert(id);
            }
        }
        self.due.remove(&id);
        self.ready.remove(&id);
        self.unremembered.remove(&id);
        self.timers.set(id, None);
    }

    /// Returns true if a channel has confirms for the client.
    #[inline]
    pub(super) fn has_due(&self) -> bool {
        !self.due.is_empty()
    }

    /// Takes the channels that have confirms for the client.
    #[inline]
    pub(super) fn take_due(&mut self) -> BTreeSet<ChannelId> {
        std::mem::take(&mut self.due)
    }

    /// Returns true if waiting frames of a channel could go on, if there were room for unresolved publishes.
    #[inline]
    pub(super) fn has_ready(&self) -> bool {
        !self.ready.is_empty()
    }

    /// Takes the channels whose waiting frames could go on.
    pub(super) fn take_ready(&mut self) -> BTreeSet<ChannelId> {
        std::mem::take(&mut self.ready)
    }

    /// Returns the channels whose client waits until a window remembers its ids.
    pub(super) fn unremembered(&self) -> Vec<ChannelId> {
        self.unremembered.iter().copied().collect()
    }

    /// Returns the first time that a channel waits for.
    pub(super) fn deadline(&self) -> Option<Instant> {
        self.timers.first()
    }

    /// Returns the channels whose time has come.
    pub(super) fn expired(&self, now: Instant) -> Vec<ChannelId> {
        self.timers.due(now)
    }

    /// Removes all channels because the upstream connection is gone. Publishes without an outcome are in doubt now.
    pub(super) fn lose(&mut self, now: Instant) {
        for channel in self.open.values_mut() {
            channel.upstream_lost(now);
        }
        *self = Channels { births: self.births, ..Channels::default() };
    }
}
