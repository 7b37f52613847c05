//! The shell around one session: what it says is carried out, its timeout kept, its bounds looked at, streams moved on.

use super::super::broker::CHANNEL_MAX;
use super::super::content::{human, uid_of};
use super::super::ctx::Ctx;
use super::super::plan::Micros;
use super::super::schedule::{Event, Schedule, instant, micros};
use super::super::streams::End;
use super::super::tap::Toward;
use super::super::transcript::Line;
use super::{Link, Socket, closes};
use crate::support::frames::Frame;
use amq_protocol::frame::AMQPFrame;
use bytes::Bytes;
use hapax_core::session::{ChaosFault, ChaosWhat, Output, Queued, Reading, Room};

fn digest(first: u64, bytes: &[u8]) -> u64 {
    bytes.iter().fold(first, |digest, byte| (digest ^ u64::from(*byte)).wrapping_mul(0x0100_0000_01B3))
}

/// Channels that may live on at the broker when their client has closed them.
const HIDDEN: usize = 64;

/// Frames that a session handles in a turn. Nobody else does anything between two turns here, so the runs of old seeds stay as they were.
pub const TURN: usize = 7;

/// How many timeouts may be due at one moment before we say that time stands still.
const STILL: u32 = 20;

impl Link {
    /// Carries out what the relay says until it says nothing more.
    pub(super) fn pump(&mut self, ctx: &mut Ctx, schedule: &mut Schedule) {
        loop {
            while let Some(output) = self.relay.as_mut().and_then(|relay| relay.poll_output()) {
                self.carry_out(output, ctx, schedule);
            }
            if let Some(relay) = self.relay.as_mut().filter(|relay| relay.is_turn_over()) {
                relay.handle_turn(TURN, instant(ctx.now));
                continue;
            }
            let wants = self.relay.as_ref().is_some_and(|relay| relay.wants_client());
            let again =
                wants && !self.wanted && !self.client_buf.is_empty() && self.client_socket == Socket::Open;
            self.wanted = wants;
            if !again {
                break;
            }
            self.client_bytes(ctx);
        }
        self.bounds(ctx);
        if self.relay.as_ref().is_some_and(|relay| relay.is_over()) {
            ctx.log.say(|| format!("{} link {}: over", human(ctx.now), self.id));
            self.relay = None;
            self.from_client.drop_reader();
            self.from_broker.drop_reader();
            self.to_client.close();
            self.to_broker.close();
        }
        self.arm(ctx, schedule);
        self.kick(ctx, schedule);
    }

    pub(super) fn carry_out(&mut self, output: Output, ctx: &mut Ctx, schedule: &mut Schedule) {
        match output {
            Output::Dial => schedule.at(ctx.soon(ctx.plan.way), Event::Dialled(self.id)),
            Output::ToClient(bytes) => self.to_client(&bytes, ctx),
            Output::ToUpstream(bytes) => self.to_upstream(&bytes, ctx),
            Output::HeartbeatClient if !self.to_client.is_empty() => {}
            Output::HeartbeatUpstream if !self.to_broker.is_empty() => {}
            Output::HeartbeatClient => {
                self.to_client(&Bytes::from_static(&hapax_core::wire::emit::HEARTBEAT), ctx);
            }
            Output::HeartbeatUpstream => {
                self.to_upstream(&Bytes::from_static(&hapax_core::wire::emit::HEARTBEAT), ctx);
            }
            Output::CloseClient | Output::CutClient => {
                self.client_socket = Socket::Over;
                self.to_client.close();
                self.from_client.drop_reader();
            }
            Output::CloseUpstream | Output::CutUpstream => {
                self.upstream_socket = Socket::Over;
                ctx.truth.closed(self.id, 0, ctx.now);
                self.to_broker.close();
                self.from_broker.drop_reader();
            }
            Output::Sighted(sighting) if sighting.what.is_conflict() => {
                ctx.truth.count("relay: a conflict is told of");
            }
            Output::Sighted(_) => ctx.truth.count("relay: a duplicate is told of"),
            Output::Audited(_) => ctx.truth.count("relay: a line of the audit"),
            Output::Copied(_) => ctx.truth.count("relay: a copy"),
            Output::Chaos(deed) => {
                if matches!(deed.what, ChaosWhat::Done(ChaosFault::DropAck | ChaosFault::Cut)) {
                    ctx.truth.cut(self.id);
                }
                ctx.truth.count(match deed.what {
                    ChaosWhat::Done(ChaosFault::DropAck) => "relay: an ack is dropped",
                    ChaosWhat::Done(ChaosFault::HoldAcks) => "relay: acks are held",
                    ChaosWhat::Done(ChaosFault::Cut) => "relay: a client is cut",
                    ChaosWhat::Done(_) => "relay: an ack of a delivery is lost",
                    ChaosWhat::Spared(_) => "relay: a client is spared",
                    ChaosWhat::ShownAgain => "relay: a delivery is shown again",
                });
            }
            Output::Kept(_) => ctx.truth.count("relay: a publish comes again"),
            Output::BadHeader(_) | Output::Traced(_) => {}
        }
    }

    fn to_client(&mut self, bytes: &Bytes, ctx: &mut Ctx) {
        if self.client_socket == Socket::Over && self.to_client.end == End::Open {
            // Its end was told to the relay: a socket that is half closed may still be written to.
            return;
        }
        if self.client_socket == Socket::Over && self.client.is_some() {
            ctx.truth.broken('i', format!("link {}: bytes for a client that was closed", self.id));
        }
        self.fold(bytes);
        self.transcribe(Toward::Client, bytes, ctx);
        match self.client_tap.read(bytes) {
            Ok(frames) => frames.into_iter().for_each(|frame| {
                self.say(ctx, "client ←", &frame);
                if closes(&frame) {
                    ctx.truth.shut(self.id, frame.channel());
                    ctx.truth.ends(self.id, frame.channel(), ctx.now);
                }
                self.job_shown(&frame, ctx);
                self.to_client.write(frame);
            }),
            Err(why) => ctx.truth.broken('i', format!("link {}: {why}", self.id)),
        }
    }

    /// (p): a job that the client is shown was acked by nobody.
    fn job_shown(&self, frame: &Frame, ctx: &mut Ctx) {
        if let AMQPFrame::Header(_, header) = &frame.0
            && let Some(id) = header.properties.message_id()
            && id.as_str().starts_with("job-")
        {
            ctx.truth.count("guard: job shown");
            let queue = header.properties.app_id().as_ref().map(|queue| queue.as_str()).unwrap_or_default();
            if let Some(wrong) = ctx.truth.jobs.shown(queue, id.as_str(), instant(ctx.now)) {
                ctx.truth.broken('p', format!("link {}: {wrong}", self.id));
            }
        }
    }

    fn to_upstream(&mut self, bytes: &Bytes, ctx: &mut Ctx) {
        if self.upstream_socket != Socket::Open {
            let text = format!("link {}: bytes for an upstream that is {:?}", self.id, self.upstream_socket);
            return ctx.truth.broken('i', text);
        }
        self.fold(bytes);
        self.transcribe(Toward::Broker, bytes, ctx);
        match self.broker_tap.read(bytes) {
            Ok(frames) => frames.into_iter().for_each(|frame| {
                self.say(ctx, "→ broker", &frame);
                self.forwarded(&frame, ctx);
                if closes(&frame) {
                    ctx.truth.closed(self.id, frame.channel(), ctx.now);
                }
                self.to_broker.write(frame);
            }),
            Err(why) => ctx.truth.broken('i', format!("link {}: {why}", self.id)),
        }
    }

    /// Records in the truth that a message is forwarded to the broker. Its header tells which one it is, or its body
    /// if only that can.
    fn forwarded(&mut self, frame: &Frame, ctx: &mut Ctx) {
        if self.hostile {
            return;
        }
        if let AMQPFrame::Header(_, header) = &frame.0
            && let Some(uid) = uid_of(header)
        {
            ctx.truth.forwarded(uid, self.id, ctx.now);
            self.written.insert(frame.channel(), (uid, 0));
        }
        self.follow(frame, ctx);
        if ctx.plan.alike > 0
            && ctx.truth.by_body(1)
            && let Some(whole) = self.nameless.entry(frame.channel()).or_default().frame(frame)
            && uid_of(&whole.header).is_none()
            && let Some(uid) = whole.uid(&ctx.truth)
        {
            ctx.truth.forwarded(uid, self.id, ctx.now);
            ctx.truth.forwarded_whole(uid);
        }
    }

    /// Records when all of a message is written.
    fn follow(&mut self, frame: &Frame, ctx: &mut Ctx) {
        let Some((uid, left)) = self.written.get_mut(&frame.channel()) else { return };
        match &frame.0 {
            AMQPFrame::Header(_, header) => *left = header.body_size,
            AMQPFrame::Body(_, bytes) => *left = left.saturating_sub(bytes.len() as u64),
            _ => {
                self.written.remove(&frame.channel());
                return;
            }
        }
        if *left == 0 {
            ctx.truth.forwarded_whole(*uid);
            self.written.remove(&frame.channel());
        }
    }

    /// (j), (k): the relay writes what it would write if the others were not there.
    fn transcribe(&self, toward: Toward, bytes: &[u8], ctx: &mut Ctx) {
        let line = Line { time: ctx.now, client: self.owner, toward, digest: digest(0, bytes) };
        let (letter, side) = match self.hostile {
            true => ('k', &mut ctx.transcript.hostile),
            false => ('j', &mut ctx.transcript.honest),
        };
        if let Err(why) = side.write(line) {
            ctx.truth.broken(letter, format!("link {}: {why}", self.id));
        }
    }

    pub(super) fn say(&self, ctx: &mut Ctx, way: &str, frame: &Frame) {
        let (now, id) = (ctx.now, self.id);
        ctx.log.say(|| format!("{} link {id}: {way} {frame:?}", human(now)));
    }

    fn fold(&mut self, bytes: &[u8]) {
        self.digest = digest(self.digest, bytes);
    }

    /// (e): what is unresolved and what is held is within its bounds.
    fn bounds(&mut self, ctx: &mut Ctx) {
        let Some(relay) = &self.relay else { return };
        let (unresolved, held, channels) = (relay.unresolved(), relay.held_bytes(), relay.channels());
        let most = if !relay.is_open() {
            0
        } else if self.hostile {
            CHANNEL_MAX
        } else {
            ctx.plan.channels
        };
        if channels > usize::from(most) + HIDDEN {
            let text = format!("link {}: {channels} channels, {most} are possible now", self.id);
            ctx.truth.broken('e', text);
        }
        if unresolved > ctx.plan.most_unresolved(most) || held > ctx.plan.most_held(most) {
            let text = format!(
                "link {}: {unresolved} unresolved, {held} bytes held, {:?}",
                self.id, ctx.plan.settings
            );
            ctx.truth.broken('e', text);
        }
    }

    /// Sets the timer to the relay's next timeout; (h): a timeout that was handled is not due again at once.
    pub(super) fn arm(&mut self, ctx: &mut Ctx, schedule: &mut Schedule) {
        if self.allowed.is_none() && self.relay.as_ref().is_some_and(|relay| relay.is_at_publish_limit()) {
            ctx.truth.count("relay: held back by a rate");
            let at = ctx.soon(ctx.plan.pause);
            self.allowed = Some(at);
            schedule.at(at, Event::Timer(self.id));
        }
        let Some(at) = self.relay.as_ref().and_then(|relay| relay.poll_timeout()).map(micros) else { return };
        self.still = if at > ctx.now { 0 } else { self.still + 1 };
        if self.still > STILL {
            ctx.truth.broken('h', format!("link {}: its timeout stands still at {}", self.id, human(at)));
        }
        let at = at.max(ctx.now);
        if self.timer.is_none_or(|timer| at < timer) {
            self.timer = Some(at);
            schedule.at(at, Event::Timer(self.id));
        }
    }

    /// Whatever waits on a stream gets an event that will take it.
    pub(super) fn kick(&mut self, ctx: &mut Ctx, schedule: &mut Schedule) {
        let id = self.id;
        let way = ctx.plan.way;
        if self.back_pressure(ctx) {
            self.arm(ctx, schedule);
        }
        let Reading { client: wants, upstream } = self.reading;
        // The end is behind the bytes: while nobody wants those, nobody finds it.
        let ends = self.from_client.end == End::Coming && self.from_client.is_empty();
        let from_client = ends || (wants && self.from_client.has_more());
        let from_broker = self.from_broker.has_more() && (upstream || self.from_broker.is_empty());
        // A client that writes with blocking calls reads when all of it is taken.
        let writes = ctx.plan.blocking.is_some() && self.client.is_some() && !self.from_client.is_empty();
        let (to_client, to_broker) = (self.to_client.has_more() && !writes, self.to_broker.has_more());
        let waiting = [
            (&mut self.from_client.busy, from_client, Event::ToRelay(id, Toward::Client)),
            (&mut self.from_broker.busy, from_broker, Event::ToRelay(id, Toward::Broker)),
            (&mut self.to_client.busy, to_client, Event::FromRelay(id, Toward::Client)),
            (&mut self.to_broker.busy, to_broker, Event::FromRelay(id, Toward::Broker)),
        ];
        for (busy, full, event) in waiting {
            if full && !*busy {
                *busy = true;
                schedule.at(ctx.soon(way), event);
            }
        }
        self.kick_broker(ctx, schedule);
    }

    /// Decides which side the relay may read from, as the real shell does. The frames that wait for the client are counted.
    /// Returns true if that has changed.
    fn back_pressure(&mut self, ctx: &mut Ctx) -> bool {
        let Some(relay) = &mut self.relay else { return false };
        let room = Room { buffer: ctx.plan.blocking.unwrap_or(usize::MAX), unread: Some(usize::MAX) };
        let reading = relay.reading(Queued { client: self.to_client.len(), upstream: 0 }, room);
        let changed = reading != self.reading;
        if changed {
            self.reading = reading;
            relay.handle_reading(reading, instant(ctx.now));
        }
        changed
    }

    fn kick_broker(&mut self, ctx: &mut Ctx, schedule: &mut Schedule) {
        let Some(broker) = &self.broker else { return };
        let at = if broker.has_work(ctx) || broker.is_done() {
            ctx.soon(ctx.plan.toil)
        } else {
            ctx.now + broker.idle()
        };
        if self.working.is_none_or(|working| at < working) {
            self.working = Some(at);
            schedule.at(at, Event::Work(self.id, at));
        }
    }

    /// Whether this piece of work is the one that is due.
    pub fn is_due(&self, at: Micros) -> bool {
        self.working == Some(at)
    }
}
