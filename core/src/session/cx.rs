//! The things that a session lends a channel while the channel handles an event.

use super::Shared;
use super::bad_header_log::BadHeaderLog;
use super::blocked::Blocked;
use super::channels::Channels;
use super::chaos::Chaos;
use super::delivered::RouteMark;
use super::exclusive::ExclusiveQueues;
use super::finder::{Finder, Source};
use super::handshake::Handshake;
use super::hosts::Marks;
use super::inbound::Inbound;
use super::outbox::Outbox;
use super::probe::{Answer, Finding, Probes};
use super::returning::Returning;
use super::rights::{OwnRights, Rights};
use crate::window::{Mailbox, Presence, RepublishRule, Ticket, Window};
use crate::wire::{ChannelId, ContentHeader, IdSource};
use core::net::IpAddr;
use std::sync::Arc;
use std::time::Instant;

/// The things that all channels of one session use. Each part keeps its own fields to itself; channels borrow all of it.
#[derive(Debug)]
pub(super) struct Link {
    /// everything that will be written to the client and to the upstream
    pub(super) out: Outbox,
    /// frames of the client that were read and not handled yet
    pub(super) inbound: Inbound,
    /// which window judges a publish
    pub(super) finder: Finder,
    /// where the user may publish
    pub(super) rights: OwnRights,
    /// the messages that were delivered, and may be published again
    pub(super) marks: Marks,
    /// what the broker is asked about the user's rights
    pub(super) probes: Probes,
    /// the exclusive queues that the client has declared
    pub(super) exclusive: ExclusiveQueues,
    /// exchanges from which everything comes back
    pub(super) returning: Returning,
    /// whether the client may publish
    pub(super) blocked: Blocked,
    /// late verdicts arrive here
    pub(super) mailbox: Arc<Mailbox>,
    /// numbers for the questions that may be answered late
    pub(super) tickets: Tickets,
    /// `basic.publish`es that the client has sent
    pub(super) publishes: u64,
    /// Hapax holds the client's next frame back. If nothing goes on, the client is not to blame.
    pub(super) is_held_back: bool,
    /// messages that the broker has sent for the client's consumers, or in answer to `basic.get`
    pub(super) deliveries: u64,
    /// headers of the client that can't be understood
    pub(super) bad_headers: BadHeaderLog,
    /// `None`: the connection may not be troubled
    pub(super) chaos: Option<Box<Chaos>>,
    /// tells the windows that this session is there
    _presence: Option<Presence>,
}

impl Link {
    /// Creates the link of a session whose client has just connected.
    pub(super) fn new(shared: &Shared) -> Link {
        Link {
            out: Outbox::default(),
            inbound: Inbound::default(),
            finder: Finder::default(),
            rights: OwnRights::new(shared.settings.rights_held),
            marks: Marks::default(),
            probes: Probes::default(),
            exclusive: ExclusiveQueues::default(),
            returning: Returning::default(),
            blocked: Blocked::default(),
            mailbox: Arc::new(Mailbox::new()),
            tickets: Tickets::default(),
            publishes: 0,
            is_held_back: false,
            deliveries: 0,
            bad_headers: BadHeaderLog::default(),
            chaos: None,
            _presence: shared.windows.enter(),
        }
    }

    /// Notes that the broker has accepted the client as this user, at this vhost.
    pub(super) fn identify(&mut self, handshake: &Handshake, peer: IpAddr) {
        let identity = handshake.identity();
        self.marks.set_identity(&identity, peer);
        self.rights.set_identity(identity);
        // The finder comes after that: what it finds depends on the identity.
        let user = handshake.about().and_then(|about| about.user.as_deref());
        self.finder.set_place(handshake.vhost(), user);
    }

    /// Notes that a publish waits for this window, because it has no verdict yet, or because its store has not come so far.
    #[cold]
    pub(super) fn publish_waits(&mut self, window: &Arc<dyn Window>) {
        self.blocked.publish_waits(window, &self.mailbox);
    }

    /// Returns the number of publishes and deliveries so far.
    pub(super) fn messages(&self) -> u64 {
        self.publishes + self.deliveries
    }

    /// Returns true if chaos holds the confirms of this channel back.
    pub(super) fn holds_confirms(&self, channel: ChannelId) -> bool {
        self.chaos.as_ref().is_some_and(|chaos| chaos.holds(channel))
    }

    /// Notes a delivery: its consumer may publish it again. `method` and `header` are the payloads of its first two frames.
    #[inline]
    pub(super) fn delivered(&mut self, shared: &Shared, method: &[u8], header: &[u8]) {
        self.deliveries += 1;
        let Some(delivery) = self.finder.delivery(shared, method, &mut self.marks) else { return };
        // Where no window judges what is published to its exchange, one may judge where the message was published before it died.
        let mut may_have_died = delivery.sources.is_empty();
        for Source { id, rule } in &*delivery.sources {
            // A header that Hapax can't read is one that no publish could have.
            let Ok((mark, is_special)) = delivery.mark.header(header, id) else { continue };
            may_have_died |= is_special;
            if let Some(mark) = mark {
                self.marks.note(mark, *rule, shared);
            }
        }
        if may_have_died {
            let (mark, sources) = (delivery.mark, Arc::clone(&delivery.sources));
            self.delivered_after_death(shared, mark, &sources, header);
        }
    }

    /// Notes a delivery that has died before: its consumer may publish it again without `x-death`, and also where it was published when it
    /// died. A queue that delays retries is such a place: the message comes from another exchange than it is published to.
    #[cold]
    fn delivered_after_death(
        &mut self,
        shared: &Shared,
        delivered: RouteMark,
        sources: &[Source],
        header: &[u8],
    ) {
        let Ok(found) = ContentHeader::parse(header, &IdSource::MessageId) else { return };
        if found.death() == Ok(None) {
            return;
        }
        for Source { id, rule } in sources {
            self.note_without_deaths(shared, delivered, header, id, *rule);
        }
        for (exchange, routing_key) in found.places() {
            let place = RouteMark::new(exchange, routing_key);
            for Source { id, rule } in &*self.finder.sources(shared, exchange, &mut self.marks) {
                self.note_without_deaths(shared, place, header, id, *rule);
            }
        }
    }

    fn note_without_deaths(
        &mut self,
        shared: &Shared,
        route: RouteMark,
        header: &[u8],
        id: &IdSource,
        rule: RepublishRule,
    ) {
        if let Ok(found) = ContentHeader::parse(header, id)
            && let Some(mark) = route.without_deaths(&found, id)
        {
            self.marks.note(mark, rule, shared);
        }
    }

    /// Asks the broker about the rights that publishes wait for, if the upstream connection is live. It allows `most` channels.
    /// Returns the questions that are given up because there is no channel to ask on.
    pub(super) fn ask(
        &mut self,
        shared: &Shared,
        channels: &Channels,
        most: u16,
        is_live: bool,
        now: Instant,
    ) -> Vec<Answer> {
        self.probes.drop_unwanted(|asker| channels.waits(asker));
        if is_live {
            self.probes.go_on(&mut self.out.upstream);
        }
        if !is_live || !self.probes.wants_channel() {
            return Vec::new();
        }
        // RabbitMQ counts the open channels of a connection, whatever their numbers.
        let room = channels.len() < usize::from(most);
        let may_ask = room && self.rights.may_ask(&shared.rights, &shared.keys, now);
        match if may_ask { channels.free_number(most) } else { None } {
            Some(channel) => {
                self.probes.start(channel, &mut self.out.upstream);
                Vec::new()
            }
            None => self.probes.give_up(),
        }
    }

    /// Deletes the exclusive queues of a client that is gone, if there is a channel to do it on. The broker allows `most` channels.
    pub(super) fn delete_exclusive_queues(
        &mut self,
        shared: &Shared,
        channels: &Channels,
        most: u16,
        now: Instant,
    ) {
        let Link { exclusive, out, probes, rights, .. } = self;
        if exclusive.is_empty() || exclusive.channel().is_some() {
            return;
        }
        // RabbitMQ counts the open channels of a connection, whatever their numbers.
        let has_room = channels.len() + usize::from(probes.channel().is_some()) < usize::from(most)
            && rights.may_ask(&shared.rights, &shared.keys, now);
        let is_free = |id: &ChannelId| !channels.contains(*id) && probes.channel() != Some(*id);
        // The largest number is left to the questions about rights.
        let number = (1..most).rev().map(ChannelId).find(is_free);
        if let Some(channel) = number.filter(|_| has_room) {
            exclusive.delete(channel, &mut out.upstream);
        }
    }

    /// Keeps what the broker has shown of the user's rights.
    pub(super) fn learn(&mut self, common: &Rights, answers: &[Answer], now: Instant) {
        for Answer { question, finding, .. } in answers {
            match finding {
                Finding::Allowed => self.rights.learn(common, question.right, now),
                Finding::Refused => self.rights.learn_refusal(common, question.otherwise, now),
                Finding::Missing | Finding::Unasked => {}
            }
        }
    }

    /// Returns the bytes that it takes. Bytes that wait to be written do not count.
    pub(super) fn memory(&self) -> usize {
        self.inbound.memory()
            + self.finder.memory()
            + self.rights.memory()
            + self.probes.memory()
            + self.exclusive.memory()
            + self.marks.memory()
            + self.chaos.as_ref().map_or(0, |chaos| chaos.memory())
    }
}

impl Drop for Link {
    /// The session is over, and its channels are gone: nobody acts on late verdicts any more.
    fn drop(&mut self) {
        self.mailbox.close();
    }
}

/// Channels of one connection that may live on at the upstream after their client has closed them. They count for the limits
/// of the user and the process, and each has an outcome to wait for. A client that wants more has to wait for `close-ok`.
const HIDDEN: usize = 64;

/// Lends a channel what it needs to handle one event.
pub(super) struct Cx<'a> {
    /// what all sessions of the process use
    pub(super) shared: &'a Shared,
    /// what all channels of this session use
    pub(super) link: &'a mut Link,
    /// unresolved publishes of the session's other channels
    pub(super) unresolved_elsewhere: usize,
    /// bytes held by the session's other channels
    pub(super) held_elsewhere: usize,
    /// the session's other channels that live on at the upstream after their client has closed them
    pub(super) hidden_elsewhere: usize,
    /// the time of the event
    pub(super) now: Instant,
}

impl Cx<'_> {
    /// Returns how many publishes may be taken, when this channel has `own` unresolved ones.
    pub(super) fn publishes_left(&self, own: usize) -> usize {
        self.shared.settings.max_unresolved.saturating_sub(self.unresolved_elsewhere + own)
    }

    /// Returns true if another publish may be taken, when this channel has `own` unresolved ones.
    pub(super) fn may_publish(&self, own: usize) -> bool {
        self.unresolved_elsewhere + own < self.shared.settings.max_unresolved
    }

    /// Returns true if the upstream's channel may live on after the client was told that it is closed.
    pub(super) fn may_hide(&mut self) -> bool {
        let Cx { shared, link, now, .. } = self;
        self.hidden_elsewhere < HIDDEN && link.rights.may_ask(&shared.rights, &shared.keys, *now)
    }

    /// Returns how many bytes more may be held, when this channel holds `own` bytes.
    pub(super) fn room(&self, own: usize) -> usize {
        self.shared.settings.held_bytes.saturating_sub(self.held_elsewhere.saturating_add(own))
    }

    /// Returns true if `more` bytes may be held, when this channel holds `own` bytes.
    pub(super) fn has_room(&self, own: usize, more: usize) -> bool {
        self.held_elsewhere.saturating_add(own).saturating_add(more) <= self.shared.settings.held_bytes
    }
}

/// Draws tickets: the numbers by which a session finds the publish that a late verdict is about.
#[derive(Debug, Default)]
pub(super) struct Tickets {
    drawn: u64,
}

impl Tickets {
    /// Draws a ticket. It carries the channel in its upper 16 bits. Later tickets of a channel are larger.
    pub(super) fn draw(&mut self, channel: ChannelId) -> Ticket {
        self.drawn += 1;
        Ticket(u64::from(channel.0) << 48 | self.drawn & 0xFFFF_FFFF_FFFF)
    }

    /// Returns the channel that drew the ticket.
    pub(super) fn channel(ticket: Ticket) -> ChannelId {
        ChannelId(u16::try_from(ticket.0 >> 48).unwrap_or_default())
    }
}
