//! One connection of the model broker. Its channels are in [`super::broker_channel`].
//!
//! On the wire it behaves as RabbitMQ does. Where a real broker decides by its state, the model rolls dice. An honest
//! client through an honest relay does nothing illegal, so an illegal frame breaks invariant (i). A hostile client
//! gets an answer.

use super::broker_channel::BrokerChannel;
use super::ctx::Ctx;
use super::plan::{Micros, SECOND};
use super::streams::{Out, push};
use super::truth::LinkId;
use super::users::{NOBODY, may_enter, who};
use crate::support::frames::{Frame, heartbeat};
use crate::support::methods::{
    blocked, connection_close, connection_close_ok, connection_open_ok, start, tune, unblocked,
};
use amq_protocol::frame::AMQPFrame;
use amq_protocol::protocol::{AMQPClass, channel, connection};
use std::collections::{BTreeMap, VecDeque};

/// The channel_max that the broker offers.
pub const CHANNEL_MAX: u16 = 2047;

/// Where a connection is.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Phase {
    Header,
    StartOk,
    TuneOk,
    Open,
    Running,
    /// it has been offended before it was told who it is: it hears nothing more, and hangs up then without a word
    NoSessionListener(Micros),
    /// it has sent `connection.close`
    Closing,
    /// nothing more will come from it but what is queued
    Closed,
}

/// One connection, seen from the broker.
#[derive(Debug)]
pub struct Broker {
    link: LinkId,
    phase: Phase,
    /// its client may do anything
    hostile: bool,
    user: &'static str,
    channels: BTreeMap<u16, BrokerChannel>,
    out: VecDeque<Out>,
    heartbeat: Micros,
    heard: Micros,
    said: Micros,
    blocking: bool,
}

impl Broker {
    /// How many deliveries consumers of this connection have not settled, while it is open.
    pub fn unsettled_deliveries(&self) -> usize {
        match self.phase {
            Phase::Running => self.channels.values().map(BrokerChannel::unsettled_deliveries).sum(),
            _ => 0,
        }
    }

    /// Somebody has connected.
    pub fn new(link: LinkId, hostile: bool, now: Micros) -> Broker {
        Broker {
            link,
            phase: Phase::Header,
            hostile,
            user: NOBODY,
            channels: BTreeMap::new(),
            out: VecDeque::new(),
            heartbeat: 0,
            heard: now,
            said: now,
            blocking: false,
        }
    }

    /// A frame from the relay.
    pub fn handle(&mut self, frame: &Frame, ctx: &mut Ctx) {
        use connection::AMQPMethod as C;
        self.heard = ctx.now;
        let method = match frame.method() {
            Some(AMQPClass::Connection(method)) => Some(method),
            _ => None,
        };
        match (self.phase, method) {
            (Phase::Closed | Phase::NoSessionListener(_), _) => {}
            (_, Some(C::Close(_))) => {
                self.peer_gone(ctx);
                self.flush_channels();
                push(&mut self.out, connection_close_ok(), vec![]);
                self.phase = Phase::Closed;
            }
            (Phase::Closing, Some(C::CloseOk(_))) => self.phase = Phase::Closed,
            (Phase::Closing, _) => {}
            (Phase::Header, _) if matches!(frame.0, AMQPFrame::ProtocolHeader(_)) => {
                push(&mut self.out, start(), vec![]);
                self.phase = Phase::StartOk;
            }
            (Phase::StartOk, Some(C::StartOk(ok))) => {
                self.user = who(ok.response.as_bytes());
                if self.user == NOBODY {
                    return self.refuse(403, ctx);
                }
                push(&mut self.out, tune(CHANNEL_MAX, ctx.plan.frame_max, ctx.plan.heartbeat), vec![]);
                self.phase = Phase::TuneOk;
            }
            (Phase::TuneOk, Some(C::TuneOk(ok))) => {
                self.heartbeat = Micros::from(ok.heartbeat) * SECOND;
                self.phase = Phase::Open;
            }
            (Phase::Open, Some(C::Open(open))) if !may_enter(self.user, open.virtual_host.as_str()) => {
                self.refuse(530, ctx);
            }
            (Phase::Open, Some(C::Open(_))) => {
                ctx.watch.let_in(self.link);
                push(&mut self.out, connection_open_ok(), vec![]);
                self.phase = Phase::Running;
            }
            (Phase::Running, None) if frame.channel() > 0 => self.on_channel(frame, ctx),
            (_, _) if frame.0 == AMQPFrame::Heartbeat => {}
            (Phase::Header | Phase::StartOk | Phase::TuneOk, _) if self.hostile => {
                self.phase = Phase::NoSessionListener(ctx.now + 3 * SECOND);
            }
            (Phase::Open, None) if self.hostile => self.refuse(505, ctx),
            (_, _) if self.hostile => self.refuse(504, ctx),
            (phase, _) => ctx.truth.broken('i', format!("the broker is at {phase:?} and gets {frame:?}")),
        }
    }

    /// The client has done something wrong, so the connection ends.
    fn refuse(&mut self, code: u16, ctx: &mut Ctx) {
        ctx.truth.count("broker refused a connection");
        self.channels.values_mut().for_each(|channel| channel.fail(ctx));
        self.flush_channels();
        push(&mut self.out, connection_close(code, "refused"), vec![]);
        self.phase = Phase::Closing;
    }

    fn on_channel(&mut self, frame: &Frame, ctx: &mut Ctx) {
        let id = frame.channel();
        if matches!(frame.method(), Some(AMQPClass::Channel(channel::AMQPMethod::Open(_)))) {
            let too_many = id > CHANNEL_MAX || self.channels.len() >= usize::from(CHANNEL_MAX);
            if self.hostile && (too_many || self.channels.get(&id).is_some_and(|old| !old.is_gone())) {
                return self.refuse(if too_many { 530 } else { 504 }, ctx);
            }
            let old = self.channels.remove(&id);
            if old.as_ref().is_some_and(|old| !old.is_gone()) {
                ctx.truth.broken('i', format!("link {}: {frame:?}, which is open at the broker", self.link));
            }
            let out = old.map(|old| old.out).unwrap_or_default();
            self.channels.insert(id, BrokerChannel::new(self.link, id, self.user, self.hostile, out));
            return;
        }
        match self.channels.get_mut(&id) {
            Some(channel) if !channel.is_gone() => {
                channel.handle(frame, ctx);
                if let Some(code) = channel.outrage.take() {
                    self.refuse(code, ctx);
                }
            }
            _ if self.hostile => self.refuse(504, ctx),
            _ => {
                ctx.truth.broken('i', format!("link {}: {frame:?} on a channel that is not open", self.link));
            }
        }
    }

    /// A piece of work: something is stored, settled, delivered, blocked, beaten.
    pub fn work(&mut self, ctx: &mut Ctx) {
        if let Phase::NoSessionListener(until) = self.phase
            && ctx.now >= until
        {
            ctx.truth.count("broker hung up on a stranger");
            self.phase = Phase::Closed;
        }
        if self.phase != Phase::Running {
            return;
        }
        if ctx.rng.chance(ctx.plan.weather.connection_close) {
            return self.close(ctx);
        }
        let deliveries = ctx.plan.weather.deliver > 0;
        let busy: Vec<u16> =
            self.channels.iter().filter(|(_, c)| c.has_work(deliveries)).map(|(id, _)| *id).collect();
        if !busy.is_empty() {
            let id = ctx.rng.pick(&busy);
            if let Some(channel) = self.channels.get_mut(&id) {
                channel.work(ctx);
            }
        }
        if self.blocking && (ctx.rng.chance(200) || ctx.plan.weather.block == 0) {
            self.blocking = false;
            push(&mut self.out, unblocked(), vec![]);
        } else if !self.blocking && ctx.rng.chance(ctx.plan.weather.block) {
            self.blocking = true;
            push(&mut self.out, blocked("low on memory"), vec![]);
        }
        self.beat(ctx);
    }

    fn beat(&mut self, ctx: &mut Ctx) {
        if self.heartbeat == 0 {
            return;
        }
        if ctx.now.saturating_sub(self.said) >= self.heartbeat / 2 {
            push(&mut self.out, heartbeat(), vec![]);
        }
        let silence = ctx.now.saturating_sub(self.heard);
        if silence > self.heartbeat * 2 && !self.hostile {
            ctx.truth
                .broken('h', format!("link {}: the broker has heard nothing for {silence} µs", self.link));
        }
    }

    /// 320: the broker wants this connection to end.
    fn close(&mut self, ctx: &mut Ctx) {
        ctx.truth.count("broker closed a connection");
        ctx.truth.fault(self.link, 0);
        self.channels.values_mut().for_each(|channel| channel.fail(ctx));
        self.flush_channels();
        push(&mut self.out, connection_close(320, "CONNECTION_FORCED - closed by the dice"), vec![]);
        self.phase = Phase::Closing;
    }

    /// The connection breaks, but the broker lives. All publishes that have arrived are stored.
    pub fn peer_gone(&mut self, ctx: &mut Ctx) {
        self.channels.values_mut().for_each(|channel| channel.accept_all(ctx));
        if self.phase != Phase::Closed {
            self.phase = Phase::Closing;
        }
    }

    /// The broker dies. Some of the publishes that have arrived are stored.
    pub fn die(&mut self, ctx: &mut Ctx) {
        self.channels.values_mut().for_each(|channel| channel.fail(ctx));
        self.phase = Phase::Closed;
    }

    /// Moves all frames of the channels into the connection's queue, so that the next frame can't get into the middle
    /// of a content.
    fn flush_channels(&mut self) {
        for channel in self.channels.values_mut() {
            self.out.append(&mut channel.out);
        }
    }

    /// Whether more work would do something now.
    pub fn has_work(&self, ctx: &Ctx) -> bool {
        let deliveries = ctx.plan.weather.deliver > 0;
        let busy = self.blocking || self.channels.values().any(|channel| channel.has_work(deliveries));
        self.has_out() || (self.phase == Phase::Running && busy)
    }

    fn has_out(&self) -> bool {
        !self.out.is_empty() || self.channels.values().any(|channel| !channel.out.is_empty())
    }

    /// How long until it must be asked again even when nothing comes.
    pub fn idle(&self) -> Micros {
        match self.heartbeat {
            _ if matches!(self.phase, Phase::NoSessionListener(_)) => SECOND,
            0 => 10 * SECOND,
            heartbeat => heartbeat / 4,
        }
    }

    /// Some frames of some channel, to be written.
    pub fn some_out(&mut self, ctx: &mut Ctx) -> Vec<Out> {
        let full: Vec<u16> =
            self.channels.iter().filter(|(_, c)| !c.out.is_empty()).map(|(id, _)| *id).collect();
        let queue = match full.is_empty() || (!self.out.is_empty() && ctx.rng.chance(300)) {
            true => &mut self.out,
            false => &mut self.channels.get_mut(&ctx.rng.pick(&full)).expect("a channel").out,
        };
        let count = ctx.rng.some_of(queue.len());
        if count > 0 {
            self.said = ctx.now;
        }
        queue.drain(..count).collect()
    }

    /// Whether the socket is to be closed, everything having been written.
    pub fn is_done(&self) -> bool {
        self.phase == Phase::Closed && !self.has_out()
    }
}
