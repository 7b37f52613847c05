//! A model client: a publisher that connects, does what the dice say, crashes, comes back, and retries until it gets
//! an ack.
//!
//! [`super::client_channel`] holds what it does on a channel.

use super::client_channel::Channel;
use super::content::EPOCH;
use super::ctx::Ctx;
use super::plan::{MILLI, Micros, SECOND};
use super::streams::{Out, push};
use super::truth::{EXCHANGES, LinkId, ROUTING_KEYS, VHOST, What};
use super::users::{OWNER, RESTRICTED, may_publish};
use crate::support::frames::{Frame, heartbeat, protocol_header};
use crate::support::methods::*;
use amq_protocol::protocol::{AMQPClass, connection};
use std::collections::{BTreeMap, VecDeque};

/// Where a connection is.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Phase {
    Start,
    Tune,
    OpenOk,
    Running,
    /// it has sent `connection.close`
    Closing,
    /// nothing more will come from it but what is queued
    Closed,
}

/// The action that the world carries out for a client.
#[derive(Debug)]
pub enum Act {
    /// nothing
    Idle,
    /// connect it
    Connect,
    /// write these
    Write(Vec<Out>),
    /// its process is gone, its socket closed by its machine
    Vanish,
    /// its machine is gone: no word, no end of stream
    Freeze,
}

/// One connection, seen from the client.
#[derive(Debug)]
pub struct Connection {
    /// its number
    pub link: LinkId,
    phase: Phase,
    channels: BTreeMap<u16, Channel>,
    out: VecDeque<Out>,
    /// the frame_max that it has agreed to
    pub frame_max: u32,
    heartbeat: Micros,
    heard: Micros,
    said: Micros,
    blocked: bool,
}

/// Bodies that are ids have the same length where the ids are multiples of this.
const ALIKE: u32 = 40;

/// A model client.
#[derive(Debug)]
pub struct Client {
    /// who it is
    pub user: &'static str,
    /// its connection
    pub connection: Option<Connection>,
    /// what it must still see acked
    pub retry: VecDeque<What>,
    /// it only finishes what it has begun
    pub stopping: bool,
    /// it does not come back, whatever it is delivered on its way out
    pub is_gone: bool,
    next_id: u32,
}

impl Client {
    /// The `number`-th client of a run. Every third one is restricted.
    pub fn new(number: usize) -> Client {
        let user = if number % 3 == 2 { RESTRICTED } else { OWNER };
        let next_id = 1_000_000 * (number as u32 + 1);
        Client { user, connection: None, retry: VecDeque::new(), stopping: false, is_gone: false, next_id }
    }

    /// It is connected.
    pub fn connected(&mut self, link: LinkId, now: Micros) {
        let mut out = VecDeque::new();
        push(&mut out, protocol_header(), vec![]);
        self.connection = Some(Connection {
            link,
            phase: Phase::Start,
            channels: BTreeMap::new(),
            out,
            frame_max: 8192,
            heartbeat: 0,
            heard: now,
            said: now,
            blocked: false,
        });
    }

    /// Its connection is lost: what was not answered must be tried again.
    pub fn disconnected(&mut self, ctx: &mut Ctx) {
        if let Some(mut connection) = self.connection.take() {
            connection.channels.values_mut().for_each(|channel| channel.lost(&mut self.retry, ctx));
        }
    }

    /// Whether it has nothing left to finish.
    pub fn is_settled(&self) -> bool {
        let idle = |c: &Connection| c.phase == Phase::Running && c.channels.values().all(Channel::is_settled);
        self.retry.is_empty() && self.connection.as_ref().is_none_or(|c| idle(c) && c.out.is_empty())
    }

    /// Whether its socket is to be closed, everything having been written.
    pub fn is_done(&self) -> bool {
        let done = |c: &Connection| c.phase == Phase::Closed && c.out.is_empty();
        self.connection.as_ref().is_some_and(done)
    }

    /// How long it does nothing now; `idle`: it had nothing to do.
    pub fn pause(&self, idle: bool, ctx: &mut Ctx) -> Micros {
        match (idle, self.stopping) {
            (true, true) => 20 * MILLI,
            (true, false) => ctx.rng.between(1, ctx.plan.pause.max(ctx.plan.way)),
            (false, _) => ctx.rng.between(1, ctx.plan.pause),
        }
    }

    /// A frame from the relay.
    pub fn handle(&mut self, frame: &Frame, ctx: &mut Ctx) {
        let user = self.user;
        let Some(connection) = &mut self.connection else { return };
        connection.heard = ctx.now;
        if frame.channel() > 0 {
            let link = connection.link;
            let Some(channel) = connection.channels.get_mut(&frame.channel()) else {
                return ctx.truth.broken(
                    'i',
                    format!("link {link}: {frame:?} on a channel that the client never opened"),
                );
            };
            channel.handle(frame, &mut self.retry, ctx);
        } else if let Some(AMQPClass::Connection(method)) = frame.method() {
            connection.handle(method, user, &mut self.retry, ctx);
        }
    }

    /// It has a moment: what does it do?
    pub fn act(&mut self, ctx: &mut Ctx) -> Act {
        let Some(connection) = &mut self.connection else {
            let is_done = self.is_gone || self.stopping && self.retry.is_empty();
            return if is_done { Act::Idle } else { Act::Connect };
        };
        if connection.is_mute(ctx) {
            return Act::Idle;
        }
        let exposed = connection.phase == Phase::Running || ctx.rng.chance(100);
        if exposed && ctx.rng.chance(ctx.plan.weather.crash) {
            return Act::Vanish;
        }
        if exposed && ctx.rng.chance(ctx.plan.weather.freeze) {
            return Act::Freeze;
        }
        if connection.phase == Phase::Running && ctx.rng.chance(ctx.plan.weather.leave) {
            connection.leave();
        } else if connection.phase == Phase::Running {
            self.carry_on(ctx);
        }
        self.connection.as_mut().map_or(Act::Idle, |connection| Act::Write(connection.some_out(ctx)))
    }

    /// Publishes, or does one of the other things that a client does.
    fn carry_on(&mut self, ctx: &mut Ctx) {
        let Some(connection) = &mut self.connection else { return };
        let id = 1 + ctx.rng.below(usize::from(ctx.plan.channels)) as u16;
        let link = connection.link;
        let channel = connection.channels.entry(id).or_insert_with(|| Channel::new(link, id));
        if channel.is_shut() {
            if !self.stopping || !self.retry.is_empty() {
                channel.open();
            }
        } else if channel.is_ready() && self.stopping {
            channel.finish(&mut self.retry, connection.frame_max, ctx);
        } else if channel.is_ready() && !connection.blocked {
            match ctx.rng.below(100) {
                0..80 => self.publish(id, ctx),
                80..92 => channel.change(&mut self.retry, ctx),
                92..95 => channel.call(ctx),
                95 => channel.close(),
                _ => {}
            }
        }
    }

    fn publish(&mut self, id: u16, ctx: &mut Ctx) {
        let (what, new) = match self.retry.pop_front() {
            Some(what) if ctx.rng.chance(700) => (what, false),
            kept => {
                self.retry.extend(kept);
                self.anything(ctx)
            }
        };
        let Some(connection) = &mut self.connection else { return };
        let allowed = may_publish(self.user, EXCHANGES[what.exchange], ROUTING_KEYS[what.routing_key]);
        let alike = ctx.plan.alike > 0
            && new
            && allowed
            && what.id.is_some_and(|id| id.is_multiple_of(ALIKE))
            && ctx.truth.by_body(what.exchange);
        if let Some(channel) = connection.channels.get_mut(&id) {
            channel.publish(what, allowed, alike, connection.frame_max, ctx);
        }
    }

    /// A new message or, as often as the plan says, one that somebody has published before. Whether it is new.
    fn anything(&mut self, ctx: &mut Ctx) -> (What, bool) {
        let forbidden = self.user == RESTRICTED && !ctx.rng.chance(50);
        let exchange = if forbidden { ctx.rng.pick(&[0, 2]) } else { ctx.rng.pick(&[0, 0, 0, 1, 1, 2]) };
        let routing_key = ctx.rng.below(ROUTING_KEYS.len());
        let alike = ctx.truth.by_body(exchange) && ctx.rng.chance(ctx.plan.alike);
        let (id, new) = if !alike && ctx.rng.chance(ctx.plan.repeat) {
            (Some(ctx.rng.below(ctx.plan.ids as usize) as u32 + ctx.epoch() * EPOCH), false)
        } else if !alike && ctx.rng.chance(30) {
            (None, false)
        } else {
            self.next_id = if alike { (self.next_id / ALIKE + 1) * ALIKE } else { self.next_id + 1 };
            (Some(self.next_id + ctx.epoch() * EPOCH), true)
        };
        (What { exchange, routing_key, id }, new)
    }

    /// It closes its connection, what is in flight or not.
    pub fn leave(&mut self) {
        if let Some(connection) = self.connection.as_mut().filter(|c| c.phase == Phase::Running) {
            connection.leave();
        }
    }

    /// Whether the relay will find out that it is silent: by heartbeats, or because a handshake may not last.
    pub fn would_be_missed(&self) -> bool {
        let missed = |c: &Connection| c.heartbeat > 0 || matches!(c.phase, Phase::Start | Phase::Tune);
        self.connection.as_ref().is_none_or(missed)
    }
}

impl Connection {
    fn handle(
        &mut self,
        method: &connection::AMQPMethod,
        user: &str,
        retry: &mut VecDeque<What>,
        ctx: &mut Ctx,
    ) {
        use connection::AMQPMethod as C;
        match (self.phase, method) {
            (Phase::Closed, _) => {}
            (Phase::Start, C::Start(_)) => {
                push(&mut self.out, start_ok(user), vec![]);
                self.phase = Phase::Tune;
            }
            (Phase::Tune, C::Tune(tune)) => {
                self.frame_max = ctx.rng.pick(&[4096, tune.frame_max]).min(tune.frame_max);
                let heartbeat = if ctx.rng.chance(200) { 0 } else { tune.heartbeat };
                self.heartbeat = Micros::from(heartbeat) * SECOND;
                push(
                    &mut self.out,
                    tune_ok(tune.channel_max, self.frame_max, heartbeat) + connection_open(VHOST),
                    vec![],
                );
                self.phase = Phase::OpenOk;
            }
            (Phase::OpenOk, C::OpenOk(_)) => self.phase = Phase::Running,
            (_, C::Close(_)) => {
                ctx.truth.count("client was closed");
                self.channels.values_mut().for_each(|channel| channel.lost(retry, ctx));
                self.out.clear();
                push(&mut self.out, connection_close_ok(), vec![]);
                self.phase = Phase::Closed;
            }
            (Phase::Closing, C::CloseOk(_)) => {
                self.channels.values_mut().for_each(|channel| channel.lost(retry, ctx));
                self.phase = Phase::Closed;
            }
            (_, C::Blocked(_)) => self.blocked = true,
            (_, C::Unblocked(_)) => self.blocked = false,
            (phase, other) => ctx.truth.broken('i', format!("the client is at {phase:?} and gets {other:?}")),
        }
    }

    /// Sends a heartbeat where one is due; says whether nothing can be done.
    fn is_mute(&mut self, ctx: &mut Ctx) -> bool {
        if self.heartbeat > 0 && self.phase != Phase::Closed {
            if ctx.now.saturating_sub(self.said) >= self.heartbeat / 2 {
                push(&mut self.out, heartbeat(), vec![]);
            }
            let silence = ctx.now.saturating_sub(self.heard);
            // A client that does not read hears nothing.
            if silence > self.heartbeat * 2 && ctx.plan.blocking.is_none() {
                ctx.truth.broken(
                    'h',
                    format!("link {}: the client has heard nothing for {silence} µs", self.link),
                );
            }
        }
        self.phase == Phase::Closed && self.out.is_empty()
    }

    fn leave(&mut self) {
        for channel in self.channels.values_mut() {
            self.out.append(&mut channel.out);
        }
        push(&mut self.out, connection_close(200, "bye"), vec![]);
        self.phase = Phase::Closing;
    }

    /// Some frames of some channel, to be written.
    fn some_out(&mut self, ctx: &mut Ctx) -> Vec<Out> {
        let full: Vec<u16> =
            self.channels.iter().filter(|(_, c)| !c.out.is_empty()).map(|(id, _)| *id).collect();
        let closing = matches!(self.phase, Phase::Closing | Phase::Closed);
        let queue = match !self.out.is_empty() || full.is_empty() || closing {
            true => &mut self.out,
            false => &mut self.channels.get_mut(&ctx.rng.pick(&full)).expect("a channel").out,
        };
        let count = ctx.rng.some_of(queue.len());
        if count > 0 {
            self.said = ctx.now;
        }
        queue.drain(..count).collect()
    }
}
