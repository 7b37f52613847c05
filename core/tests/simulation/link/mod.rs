//! One client connection: the relay in the middle, the four streams around it, a tap on each that leaves it.
//!
//! This is the shell of `net/` without sockets: it hands bytes over, carries out what the relay says, and keeps time.

use super::broker::Broker;
use super::content::{Assembler, human};
use super::ctx::Ctx;
use super::plan::Micros;
use super::relay::Relay;
use super::schedule::{Event, Schedule, instant};
use super::streams::{ByteStream, End, FrameStream, Mark, Out};
use super::tap::{Tap, Toward};
use super::truth::{LinkId, Uid};
use crate::support::frames::Frame;
use bytes::BytesMut;
use hapax_core::session::Reading;
use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Wake, Waker};

mod shell;

pub use shell::TURN;

/// Told by a mailbox that a letter has come.
#[derive(Debug, Default)]
pub struct Bell(AtomicBool);

impl Wake for Bell {
    fn wake(self: Arc<Self>) {
        self.0.store(true, Ordering::Relaxed);
    }
}

/// Whether it is `channel.close` or `connection.close`.
fn closes(frame: &Frame) -> bool {
    use amq_protocol::protocol::{AMQPClass, channel, connection};
    matches!(
        frame.method(),
        Some(
            AMQPClass::Channel(channel::AMQPMethod::Close(_))
                | AMQPClass::Connection(connection::AMQPMethod::Close(_))
        )
    )
}

/// One socket of the relay.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Socket {
    Unopened,
    Open,
    /// its end was told to the relay, or the relay has closed it
    Over,
}

/// A client connection, with the relay in the middle.
pub struct Link {
    id: LinkId,
    relay: Option<Box<dyn Relay>>,
    /// whose connection it is, or was
    owner: usize,
    /// that one may do anything
    pub hostile: bool,
    /// whose connection it is, while somebody has it
    pub client: Option<usize>,
    /// nobody has it, and no end of stream will come
    pub frozen: bool,
    /// the broker's end
    pub broker: Option<Broker>,
    from_client: ByteStream,
    from_broker: ByteStream,
    to_client: FrameStream,
    to_broker: FrameStream,
    client_buf: BytesMut,
    upstream_buf: BytesMut,
    client_tap: Tap,
    broker_tap: Tap,
    /// messages for the broker whose header says nothing of who they are
    nameless: BTreeMap<u16, Assembler>,
    /// the message that is being written to the broker, and how much of its body is to come
    written: BTreeMap<u16, (Uid, u64)>,
    client_socket: Socket,
    upstream_socket: Socket,
    wanted: bool,
    reading: Reading,
    timer: Option<Micros>,
    /// when the client may publish again, if it may not now
    allowed: Option<Micros>,
    still: u32,
    working: Option<Micros>,
    bell: Arc<Bell>,
    /// a digest of all that the relay wrote
    pub digest: u64,
}

impl Link {
    /// A client has connected.
    pub fn new(
        id: LinkId,
        (client, hostile): (usize, bool),
        relay: Box<dyn Relay>,
        ctx: &mut Ctx,
        schedule: &mut Schedule,
    ) -> Link {
        let mut link = Link {
            id,
            relay: Some(relay),
            owner: client,
            hostile,
            client: Some(client),
            frozen: false,
            broker: None,
            from_client: ByteStream::default(),
            from_broker: ByteStream::default(),
            to_client: FrameStream::default(),
            to_broker: FrameStream::default(),
            client_buf: BytesMut::new(),
            upstream_buf: BytesMut::new(),
            client_tap: Tap::new(Toward::Client, hostile),
            broker_tap: Tap::new(Toward::Broker, hostile),
            nameless: BTreeMap::new(),
            written: BTreeMap::new(),
            client_socket: Socket::Open,
            upstream_socket: Socket::Unopened,
            wanted: true,
            reading: Reading { client: true, upstream: true },
            timer: None,
            allowed: None,
            still: 0,
            working: None,
            bell: Arc::default(),
            digest: 0,
        };
        link.listen();
        link.pump(ctx, schedule);
        link
    }

    fn listen(&mut self) {
        let Some(mailbox) = self.relay.as_ref().and_then(|relay| relay.mailbox()) else { return };
        if mailbox.register(&Waker::from(self.bell.clone())) {
            self.bell.0.store(true, Ordering::Relaxed);
        }
    }

    /// Whether a letter has come since it was last asked.
    pub fn bell_rang(&self) -> bool {
        self.bell.0.swap(false, Ordering::Relaxed)
    }

    /// Whether both ends are closed and nothing is on the way.
    pub fn is_gone(&self) -> bool {
        self.relay.is_none() && self.to_client.end == End::Over && self.to_broker.end == End::Over
    }

    /// Whether the relay has nothing unresolved.
    pub fn is_settled(&self) -> bool {
        self.relay.as_ref().is_none_or(|relay| relay.unresolved() == 0 && relay.held_bytes() == 0)
    }

    /// How many deliveries the broker waits for, if the relay is there to settle them: those take the room of their consumers' prefetch.
    pub fn unsettled_deliveries(&self) -> usize {
        self.relay.as_ref().and(self.broker.as_ref()).map_or(0, Broker::unsettled_deliveries)
    }

    /// Describes the state of the link, for the report of a run that does not end.
    pub fn describe(&self) -> String {
        let relay =
            self.relay.as_ref().map(|r| (r.unresolved(), r.held_bytes(), r.wants_client(), r.poll_timeout()));
        format!(
            "link {}: client {:?} frozen {} {:?}, upstream {:?}, (unresolved, held, wants, timeout) {relay:?}",
            self.id, self.client, self.frozen, self.client_socket, self.upstream_socket
        )
    }

    /// The client writes.
    pub fn client_writes(&mut self, outs: Vec<Out>, ctx: &mut Ctx, schedule: &mut Schedule) {
        for Out { frame, marks } in outs {
            self.say(ctx, "client →", &frame);
            if closes(&frame) {
                ctx.truth.ends(self.id, frame.channel(), ctx.now);
            }
            self.from_client.write(&frame, &marks);
        }
        self.kick(ctx, schedule);
    }

    /// The client has agreed to a frame_max.
    pub fn agreed(&mut self, frame_max: u32) {
        self.client_tap.agreed(frame_max);
        self.broker_tap.agreed(frame_max);
    }

    /// The client is gone: with `all`, what it has written still arrives.
    pub fn client_gone(&mut self, all: bool, ctx: &mut Ctx, schedule: &mut Schedule) {
        let id = self.id;
        ctx.log.say(|| format!("{} link {id}: the client is gone, all = {all}", human(ctx.now)));
        self.client = None;
        let keep = if all { usize::MAX } else { ctx.rng.below(self.from_client.len() + 1) };
        self.from_client.cut(keep);
        self.to_client.drop_reader();
        self.kick(ctx, schedule);
    }

    /// The client's machine is gone; `noticeable`: the relay must find out by itself.
    pub fn client_frozen(&mut self, noticeable: bool) {
        self.client = None;
        self.frozen = !noticeable;
        self.to_client.drop_reader();
    }

    /// A piece of bytes, or the end of them, reaches the relay.
    pub fn arrive(&mut self, from: Toward, ctx: &mut Ctx, schedule: &mut Schedule) {
        match from {
            Toward::Client => self.arrive_from_client(ctx),
            Toward::Broker => self.arrive_from_broker(ctx),
        }
        self.pump(ctx, schedule);
    }

    fn arrive_from_client(&mut self, ctx: &mut Ctx) {
        self.from_client.busy = false;
        let (Some(relay), Socket::Open) = (&mut self.relay, self.client_socket) else { return };
        let patient = !self.reading.client;
        if patient && (!self.from_client.is_empty() || ctx.rng.chance(800)) {
            return;
        }
        if !self.from_client.is_empty() {
            self.client_buf.extend_from_slice(&self.from_client.piece(&mut ctx.rng));
            self.client_bytes(ctx);
        } else if self.from_client.end == End::Coming {
            self.from_client.end = End::Over;
            self.client_socket = Socket::Over;
            ctx.log.say(|| format!("{} link {}: end of stream from the client", human(ctx.now), self.id));
            ctx.truth.ends(self.id, 0, ctx.now);
            relay.allow(u64::MAX, instant(ctx.now));
            relay.handle_client_eof(instant(ctx.now));
        }
    }

    fn client_bytes(&mut self, ctx: &mut Ctx) {
        let Some(relay) = &mut self.relay else { return };
        if ctx.plan.rate > 0 && !relay.is_at_publish_limit() {
            relay.allow(ctx.rng.between(0, ctx.plan.rate), instant(ctx.now));
        }
        relay.handle_client(&mut self.client_buf, instant(ctx.now));
        for mark in self.from_client.passed(self.client_buf.len()) {
            if let Mark::Reached(uid) = mark {
                ctx.truth.reached(uid, ctx.now);
            }
        }
    }

    fn arrive_from_broker(&mut self, ctx: &mut Ctx) {
        self.from_broker.busy = false;
        let (Some(relay), Socket::Open) = (&mut self.relay, self.upstream_socket) else { return };
        if !self.from_broker.is_empty() && !self.reading.upstream {
            return;
        }
        if !self.from_broker.is_empty() {
            self.upstream_buf.extend_from_slice(&self.from_broker.piece(&mut ctx.rng));
            relay.handle_upstream(&mut self.upstream_buf, instant(ctx.now));
            for mark in self.from_broker.passed(self.upstream_buf.len()) {
                match mark {
                    Mark::Acked(channel, uid) => {
                        ctx.truth.heard(uid, true, self.broker_tap.is_open(channel), ctx.now);
                    }
                    Mark::Nacked(_, uid) => ctx.truth.heard(uid, false, false, ctx.now),
                    Mark::Reached(_) => {}
                }
            }
        } else if self.from_broker.end == End::Coming {
            self.from_broker.end = End::Over;
            self.upstream_socket = Socket::Over;
            ctx.log.say(|| format!("{} link {}: end of stream from the broker", human(ctx.now), self.id));
            relay.handle_upstream_eof(instant(ctx.now));
        }
    }

    /// A few frames, or the end of them, reach the broker.
    pub fn reach_broker(&mut self, ctx: &mut Ctx, schedule: &mut Schedule) {
        self.to_broker.busy = false;
        for frame in self.to_broker.some(&mut ctx.rng) {
            if let Some(broker) = &mut self.broker {
                broker.handle(&frame, ctx);
            }
        }
        if self.to_broker.is_empty() && self.to_broker.end == End::Coming {
            self.to_broker.end = End::Over;
            if let Some(mut broker) = self.broker.take() {
                broker.peer_gone(ctx);
            }
            self.from_broker.drop_reader();
        }
        self.kick(ctx, schedule);
    }

    /// A few frames reach the client; `None` is the end of them.
    pub fn reach_client(&mut self, ctx: &mut Ctx, schedule: &mut Schedule) -> Option<Vec<Frame>> {
        self.to_client.busy = false;
        if self.to_client.is_empty() && self.to_client.end == End::Coming {
            self.to_client.end = End::Over;
            self.from_client.drop_reader();
            return None;
        }
        let frames = self.to_client.some(&mut ctx.rng);
        self.kick(ctx, schedule);
        Some(frames)
    }

    /// The dial is over; `found`: a broker answered.
    pub fn dialled(&mut self, found: bool, ctx: &mut Ctx, schedule: &mut Schedule) {
        let Some(relay) = &mut self.relay else { return };
        if found {
            self.upstream_socket = Socket::Open;
            self.broker = Some(Broker::new(self.id, self.hostile, ctx.now));
            relay.handle_upstream_open(instant(ctx.now));
        } else {
            self.upstream_socket = Socket::Over;
            ctx.truth.fault(self.id, 0);
            relay.handle_upstream_eof(instant(ctx.now));
        }
        self.pump(ctx, schedule);
    }

    /// The relay's timeout has passed.
    pub fn timeout(&mut self, ctx: &mut Ctx, schedule: &mut Schedule) {
        self.timer = None;
        let Some(relay) = &mut self.relay else { return };
        if relay.is_at_publish_limit() && self.allowed.is_some_and(|at| at <= ctx.now) {
            self.allowed = None;
            relay.allow(ctx.rng.between(1, ctx.plan.rate.max(1)), instant(ctx.now));
            self.pump(ctx, schedule);
        }
        let Some(relay) = &mut self.relay else { return };
        if relay.poll_timeout().is_some_and(|at| at <= instant(ctx.now)) {
            // While nobody reads from a client, its heartbeats are in the socket: it is alive.
            if self.client.is_some() && !self.reading.client && self.from_client.has_more() {
                relay.handle_client_alive(instant(ctx.now));
            }
            relay.handle_timeout(instant(ctx.now));
            self.pump(ctx, schedule);
        } else {
            self.arm(ctx, schedule);
        }
    }

    /// There is mail for the relay.
    pub fn mail(&mut self, ctx: &mut Ctx, schedule: &mut Schedule) {
        let Some(relay) = &mut self.relay else { return };
        ctx.log.say(|| format!("{} link {}: mail", human(ctx.now), self.id));
        relay.handle_mail(instant(ctx.now));
        self.listen();
        self.pump(ctx, schedule);
    }

    /// The relay's process ends without a word.
    pub fn killed(&mut self, ctx: &mut Ctx, schedule: &mut Schedule) {
        if self.relay.take().is_none() {
            return;
        }
        ctx.log.say(|| format!("{} link {}: the relay is killed", human(ctx.now), self.id));
        ctx.truth.fault(self.id, 0);
        ctx.truth.ends(self.id, 0, ctx.now);
        ctx.truth.closed(self.id, 0, ctx.now);
        (self.client_socket, self.upstream_socket) = (Socket::Over, Socket::Over);
        self.from_client.drop_reader();
        self.from_broker.drop_reader();
        self.to_client.close();
        self.to_broker.close();
        self.kick(ctx, schedule);
    }

    /// The relay's process is to end. The connections of every third client are closed by an operator instead. (No dice decide that, so the runs
    /// of old seeds stay as they were up to here.)
    pub fn drain(&mut self, ctx: &mut Ctx, schedule: &mut Schedule) {
        let Some(relay) = &mut self.relay else { return };
        let forced = self.owner % 3 == 2;
        let what = if forced { "closed by force" } else { "drained" };
        ctx.log.say(|| format!("{} link {}: {what}", human(ctx.now), self.id));
        ctx.truth.count(what);
        ctx.truth.drained(self.id);
        ctx.truth.ends(self.id, 0, ctx.now);
        match forced {
            true => relay.handle_forced_close(instant(ctx.now)),
            false => {
                relay.handle_drain(instant(ctx.now));
                let overdue = ctx.soon(50 * ctx.plan.pause);
                schedule.at(overdue, Event::DrainOverdue(self.id));
                schedule.at(overdue + 50 * ctx.plan.pause, Event::DrainOver(self.id));
            }
        }
        self.pump(ctx, schedule);
    }

    /// The client has had its time to finish what it had begun.
    pub fn drain_overdue(&mut self, ctx: &mut Ctx, schedule: &mut Schedule) {
        let Some(relay) = &mut self.relay else { return };
        ctx.log.say(|| format!("{} link {}: the drain is overdue", human(ctx.now), self.id));
        relay.handle_drain_overdue(instant(ctx.now));
        self.pump(ctx, schedule);
    }

    /// The process ends in a moment.
    pub fn drain_over(&mut self, ctx: &mut Ctx, schedule: &mut Schedule) {
        let Some(relay) = &mut self.relay else { return };
        ctx.log.say(|| format!("{} link {}: the drain is over", human(ctx.now), self.id));
        ctx.truth.count("drained to the end");
        relay.handle_drain_over(instant(ctx.now));
        self.pump(ctx, schedule);
    }

    /// The broker works, writes some of what it has to write, or dies.
    pub fn work(&mut self, ctx: &mut Ctx, schedule: &mut Schedule) {
        self.working = None;
        let Some(broker) = &mut self.broker else { return };
        if ctx.rng.chance(ctx.plan.weather.broker_death) {
            return self.upstream_lost(ctx, schedule);
        }
        broker.work(ctx);
        for Out { frame, marks } in broker.some_out(ctx) {
            ctx.log.say(|| format!("{} link {}: ← broker {frame:?}", human(ctx.now), self.id));
            self.from_broker.write(&frame, &marks);
        }
        if broker.is_done() {
            self.broker = None;
            self.from_broker.close();
            self.to_broker.drop_reader();
        }
        self.kick(ctx, schedule);
    }

    /// The broker dies, or the line to it is cut while the broker lives.
    fn upstream_lost(&mut self, ctx: &mut Ctx, schedule: &mut Schedule) {
        ctx.truth.count("upstream lost");
        ctx.truth.fault(self.id, 0);
        ctx.log.say(|| format!("{} link {}: upstream lost", human(ctx.now), self.id));
        if let Some(mut broker) = self.broker.take() {
            if ctx.rng.chance(500) {
                broker.die(ctx);
            } else {
                let arrive = ctx.rng.below(self.to_broker.len() + 1);
                self.to_broker.cut(arrive);
                while !self.to_broker.is_empty() {
                    self.to_broker.some(&mut ctx.rng).iter().for_each(|frame| broker.handle(frame, ctx));
                }
                broker.peer_gone(ctx);
            }
        }
        self.to_broker.drop_reader();
        let arrive = ctx.rng.below(self.from_broker.len() + 1);
        self.from_broker.cut(arrive);
        self.kick(ctx, schedule);
    }
}
