//! Chaos: trouble that an operator asks for, to see what a message does that arrives twice.
//!
//! A session does only what the world does, too, and only so that nothing is lost by it:
//!
//! ```text
//!   fault       occasion                              what happens
//!   drop_acks   a stored publish with confirms        its connection ends before the confirm is written
//!   hold_acks   the same                              the confirms of its channel wait, in their order
//!   cut         a publish, or a delivery              the connection ends without a word
//!   redeliver   a delivery that has to be acked       the client's ack becomes a basic.nack with requeue
//!   replay      a fresh publish of a window           the shell publishes it again, later
//! ```
//!
//! [`ChaosPlan::decides`] decides by the seed, the number of the connection, and the number of the occasion on it. A connection that
//! could not end without a loss is spared: see [`Connection::inflict`](super::connection::Connection::inflict).
//!
//! Without chaos a session has no [`Chaos`], and asks for it a few times for each read, never for a message.

mod plan;

pub use self::plan::{ChaosFault, ChaosPlan, ChaosShares};

use super::Output;
use super::candidate::is_of_stream;
use super::delivered::RouteMark;
use super::entry::Entry;
use crate::window::Claim;
use crate::wire::ChannelId;
use crate::wire::method::Delivery;
use crate::wire::properties::IdSource;
use bytes::Bytes;
use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::Arc;
use std::time::Instant;

/// Bytes of a channel that is held or unheard: an estimate.
const CHANNEL: usize = 48;

/// The orders of a session: it may be troubled, and this is the run, if there is one.
#[derive(Clone, Debug)]
pub struct ChaosOrders {
    /// the number of the connection, by which the plan decides
    pub connection: u64,
    /// `None`: no run is on
    pub plan: Option<Arc<ChaosPlan>>,
}

/// A thing that was done, or seen, in a run.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct ChaosDeed {
    /// which of them
    pub what: ChaosWhat,
    /// the window or the guard that judges the message
    pub window: Option<Arc<str>>,
    /// the exchange of a publish, or of a delivery the routing key, which is mostly the name of the queue
    pub place: Box<[u8]>,
    /// the message, if it is a delivery with a `message-id`
    pub message: Option<u64>,
}

/// The kind of a [`ChaosDeed`].
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub enum ChaosWhat {
    /// The fault was done.
    Done(ChaosFault),
    /// The fault was not done, because a message could have been lost by it.
    Spared(ChaosFault),
    /// A consumer was shown a delivery that the broker has marked as delivered before.
    ShownAgain,
}

/// A publish that the shell may publish again when it is stored.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct KeptPublish {
    /// decides when
    pub draw: u64,
    /// the name of the window that has judged it
    pub window: Arc<str>,
    /// what the window knows it by
    pub claim: Claim,
    /// the publisher's vhost
    pub vhost: Box<[u8]>,
    /// the exchange that the publisher names
    pub exchange: Box<[u8]>,
    /// routing key
    pub routing_key: Box<[u8]>,
    /// the payload of its content header: its properties
    pub header: Bytes,
    /// its body
    pub body: Bytes,
}

/// Chaos on one connection that may be troubled.
#[derive(Debug, Default)]
pub(super) struct Chaos {
    connection: u64,
    plan: Option<Arc<ChaosPlan>>,
    /// The occasions of each fault so far.
    occasions: [u64; ChaosFault::ALL.len()],
    /// The publishes and deliveries of the connection that were looked at, and whether the plan means any of them.
    looked_at: u64,
    is_meant: bool,
    /// A confirm is to be lost.
    dropping: Option<Box<ChaosDeed>>,
    /// Until when the confirms of these channels wait.
    held: BTreeMap<ChannelId, Instant>,
    /// Channels on which the client publishes and hears no outcome, or may do so.
    unheard: BTreeSet<ChannelId>,
    /// For the shell. It takes them whenever it has handled a read.
    deeds: VecDeque<Box<ChaosDeed>>,
    kept: VecDeque<Box<KeptPublish>>,
}

impl Chaos {
    /// Follows new orders: a run has begun, or is over. `messages`: the publishes and deliveries of the connection until now.
    pub(super) fn order(&mut self, orders: ChaosOrders, messages: u64) {
        let ChaosOrders { connection, plan } = orders;
        let unheard = std::mem::take(&mut self.unheard);
        let (deeds, kept) = (std::mem::take(&mut self.deeds), std::mem::take(&mut self.kept));
        *self = Chaos { connection, plan, looked_at: messages, unheard, deeds, kept, ..Chaos::default() };
    }

    /// Returns the bytes that it takes. Messages to the shell are not among them: it takes them at once.
    pub(super) fn memory(&self) -> usize {
        size_of::<Chaos>() + (self.held.len() + self.unheard.len()) * CHANNEL
    }

    /// Returns the plan, while its run is on.
    pub(super) fn plan(&self, now: Instant) -> Option<&Arc<ChaosPlan>> {
        self.plan.as_ref().filter(|plan| now < plan.until)
    }

    /// Takes the next message to the shell.
    pub(super) fn poll(&mut self) -> Option<Output> {
        let deed = self.deeds.pop_front().map(Output::Chaos);
        deed.or_else(|| self.kept.pop_front().map(Output::Kept))
    }

    /// Tells the shell of a deed.
    pub(super) fn tell(&mut self, deed: Box<ChaosDeed>) {
        self.deeds.push_back(deed);
    }

    /// Counts an occasion of this fault. Returns whether it happens.
    fn draw(&mut self, fault: ChaosFault, plan: &ChaosPlan) -> bool {
        let Some(count) = self.occasions.get_mut(fault as usize) else { return false };
        *count += 1;
        plan.decides(fault, self.connection, *count)
    }

    // ---- publishes -------------------------------------------------------------------------------------------------

    /// Notes a channel on which the client publishes and hears no outcome.
    pub(super) fn publishes_unheard(&mut self, channel: ChannelId) {
        self.unheard.insert(channel);
    }

    /// Looks at a publish whose outcome the broker has just told, on this channel.
    pub(super) fn recv_outcome(&mut self, channel: ChannelId, entry: &Entry, exchange: &[u8], now: Instant) {
        let Some(plan) = self.plan(now).cloned() else { return };
        let window = entry.reserved().and_then(|reservation| reservation.window());
        let window = window.map(|window| Arc::clone(&window.rules().name));
        if entry.client.is_none() || entry.is_returned() || !plan.covers(window.as_deref()) {
            return;
        }
        self.is_meant = true;
        let deed = |fault| {
            let (what, window, place) = (ChaosWhat::Done(fault), window.clone(), exchange.into());
            Box::new(ChaosDeed { what, window, place, message: None })
        };
        if self.draw(ChaosFault::DropAck, &plan) && self.dropping.is_none() {
            self.dropping = Some(deed(ChaosFault::DropAck));
        }
        if self.draw(ChaosFault::HoldAcks, &plan) && !self.held.contains_key(&channel) {
            self.held.insert(channel, now + plan.hold_for);
            self.tell(deed(ChaosFault::HoldAcks));
        }
    }

    /// Returns the number that says when a fresh publish of this window comes again, if it does.
    pub(super) fn draws_replay(&mut self, window: &str, now: Instant) -> Option<u64> {
        let plan = self.plan(now).filter(|plan| plan.covers(Some(window))).cloned()?;
        self.is_meant = true;
        let connection = self.connection;
        let drawn = self.draw(ChaosFault::Replay, &plan);
        let count = self.occasions.get(ChaosFault::Replay as usize).copied().unwrap_or_default();
        // Another number than the one that has decided: that one is small whenever the share is.
        drawn.then(|| plan.draw(ChaosFault::Replay, !connection, count))
    }

    /// Keeps a publish that comes again.
    pub(super) fn keep(&mut self, publish: KeptPublish) {
        self.kept.push_back(Box::new(publish));
    }

    // ---- held confirms ---------------------------------------------------------------------------------------------

    /// Returns true if the confirms of this channel wait.
    pub(super) fn holds(&self, channel: ChannelId) -> bool {
        self.held.contains_key(&channel)
    }

    /// Returns when [`Chaos::release`] has something to do.
    pub(super) fn deadline(&self) -> Option<Instant> {
        self.held.values().min().copied()
    }

    /// Lets the confirms go that have waited long enough.
    pub(super) fn release(&mut self, now: Instant) {
        self.held.retain(|_, until| *until > now);
    }

    // ---- deliveries ------------------------------------------------------------------------------------------------

    /// Looks at a delivery that the client is shown. `method` and `header` are the payloads of its first two frames. Returns the deed
    /// if the broker shall deliver it again, although the client will ack it. A message that was delivered before is not among those: it
    /// would come again and again. Nor is a message of a stream.
    pub(super) fn recv_shown(
        &mut self,
        (method, header): (&[u8], &[u8]),
        guard: Option<&Arc<str>>,
        (redelivered, acks): (bool, bool),
        now: Instant,
    ) -> Option<Box<ChaosDeed>> {
        let plan = self.plan(now).filter(|plan| plan.covers(guard.map(|name| &**name))).cloned()?;
        self.is_meant = true;
        let Delivery { exchange, routing_key, .. } = Delivery::parse(method).ok()?;
        let mark = RouteMark::new(exchange, routing_key).header(header, &IdSource::MessageId);
        let message = mark.ok().and_then(|(mark, _)| mark).map(|mark| mark.number());
        let deed =
            |what| Box::new(ChaosDeed { what, window: guard.cloned(), place: routing_key.into(), message });
        if redelivered {
            self.tell(deed(ChaosWhat::ShownAgain));
            return None;
        }
        // A stream takes nothing back: the broker would close the connection.
        let drawn = acks && !is_of_stream(header) && self.draw(ChaosFault::Redeliver, &plan);
        drawn.then(|| deed(ChaosWhat::Done(ChaosFault::Redeliver)))
    }

    // ---- the end of the connection ---------------------------------------------------------------------------------

    /// Returns the deed if the connection has to end now. `messages`: its publishes and deliveries until now. Call it whenever
    /// something has been handled.
    pub(super) fn take_end(&mut self, messages: u64, now: Instant) -> Option<Box<ChaosDeed>> {
        let from = std::mem::replace(&mut self.looked_at, messages);
        let dropping = self.dropping.take();
        let plan = self.plan(now).cloned()?;
        let mut cut = false;
        if self.is_meant || plan.windows.is_none() {
            for _ in from..messages {
                cut |= self.draw(ChaosFault::Cut, &plan);
            }
        }
        let deed = || ChaosDeed {
            what: ChaosWhat::Done(ChaosFault::Cut),
            window: None,
            place: Box::default(),
            message: None,
        };
        dropping.or_else(|| cut.then(|| Box::new(deed())))
    }

    /// Returns true if the client publishes on this channel and hears no outcome.
    pub(super) fn is_unheard(&self, channel: ChannelId) -> bool {
        self.unheard.contains(&channel)
    }
}
