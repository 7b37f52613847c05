//! A hostile client. It does things that no library does, in order to learn or to change what others see. It has no
//! right to publish to a window, except for the key holder, whose messages nobody else publishes.
//!
//! It follows a script that the dice write step by step, and may vanish after any step. Its publishes look like
//! messages of the honest clients, and many of its ids are theirs. The simulation promises nothing to it.

use super::client::Act;
use super::content::compose;
use super::ctx::Ctx;
use super::plan::{MILLI, Micros};
use super::rng::Rng;
use super::streams::push;
use super::truth::{EXCHANGES, LinkId, OTHER_VHOST, Publish, ROUTING_KEYS, VHOST, What};
use super::users::{KEYHOLDER, NEIGHBOUR, NOBODY, OWNER, TENANT};
use crate::support::frames::{Frame, Frames, protocol_header};
use crate::support::methods::*;
use amq_protocol::protocol::{AMQPClass, channel, connection};
use std::collections::VecDeque;

/// The identity that it has on this connection.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Guise {
    /// it never logs in
    Stranger,
    /// it shows a wrong password of the owner's
    Impostor,
    /// it logs in and may publish to the exchange without a window
    Neighbour,
    /// the same, and one routing key of the second exchange
    Keyholder,
    /// it logs in at another vhost
    Tenant,
}

/// The answer that must arrive before it goes on.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Sign {
    Start,
    Tune,
    OpenOk,
    /// anything on this channel
    On(u16),
}

#[derive(Clone, PartialEq, Debug)]
enum Step {
    Say(Frames),
    Hear(Sign),
    /// it does nothing for this many turns
    Sit(u32),
}

/// A hostile client.
#[derive(Debug)]
pub struct Hostile {
    guise: Guise,
    link: Option<LinkId>,
    script: VecDeque<Step>,
    heard: Vec<Sign>,
    /// it waits for answers
    polite: bool,
    /// its next channel
    channel: u16,
    /// how often it has done something: it tires, or a long run would be its own
    acts: u64,
    /// it does nothing any more
    pub stopping: bool,
}

impl Hostile {
    /// One that has done nothing yet.
    pub fn new() -> Hostile {
        Hostile {
            guise: Guise::Stranger,
            link: None,
            script: VecDeque::new(),
            heard: Vec::new(),
            polite: false,
            channel: 1,
            acts: 0,
            stopping: false,
        }
    }

    /// Its connection, while it has one.
    pub fn link(&self) -> Option<LinkId> {
        self.link
    }

    /// The user whose rights it has on this connection, once it is let in.
    pub fn user(&self) -> &'static str {
        match self.guise {
            Guise::Stranger | Guise::Impostor => NOBODY,
            Guise::Neighbour => NEIGHBOUR,
            Guise::Keyholder => KEYHOLDER,
            Guise::Tenant => TENANT,
        }
    }

    /// It is about to connect: as whom?
    pub fn dress(&mut self, ctx: &mut Ctx) {
        use Guise::{Impostor, Keyholder, Neighbour, Stranger, Tenant};
        let all = [Stranger, Stranger, Impostor, Neighbour, Neighbour, Neighbour, Tenant, Keyholder];
        self.guise = match ctx.rng.pick(&all) {
            Keyholder if !ctx.plan.keyholder => Neighbour,
            guise => guise,
        };
        *self = Hostile { guise: self.guise, polite: ctx.rng.chance(700), acts: self.acts, ..Hostile::new() };
    }

    /// It is connected.
    pub fn connected(&mut self, link: LinkId, ctx: &mut Ctx) {
        self.link = Some(link);
        ctx.truth.count(match self.guise {
            Guise::Stranger => "hostile: stranger",
            Guise::Impostor => "hostile: impostor",
            Guise::Neighbour => "hostile: neighbour",
            Guise::Keyholder => "hostile: key holder",
            Guise::Tenant => "hostile: tenant",
        });
        self.log_in(ctx);
        self.attack(ctx);
    }

    /// Its connection is over.
    pub fn disconnected(&mut self) {
        self.link = None;
        self.script.clear();
    }

    /// How long it does nothing now.
    pub fn pause(&self, ctx: &mut Ctx) -> Micros {
        match self.script.front() {
            _ if self.stopping => 100 * MILLI,
            Some(Step::Sit(_)) => {
                ctx.rng.between(1, 20 * ctx.plan.pause + 10 * MILLI) * (1 + self.acts / 100)
            }
            _ => ctx.rng.between(1, 2 * ctx.plan.pause) * (1 + self.acts / 100),
        }
    }

    /// A frame from the relay.
    pub fn handle(&mut self, frame: &Frame, ctx: &mut Ctx) {
        use channel::AMQPMethod as Ch;
        use connection::AMQPMethod as C;
        let id = frame.channel();
        match frame.method() {
            Some(AMQPClass::Connection(C::Start(_))) => self.heard.push(Sign::Start),
            Some(AMQPClass::Connection(C::Tune(_))) => self.heard.push(Sign::Tune),
            Some(AMQPClass::Connection(C::OpenOk(_))) => self.heard.push(Sign::OpenOk),
            Some(AMQPClass::Connection(C::Close(_))) => {
                ctx.truth.count("hostile: was closed");
                self.script.clear();
                if ctx.rng.chance(800) {
                    self.script.push_back(Step::Say(connection_close_ok()));
                }
                self.script.push_back(Step::Sit(3));
            }
            Some(AMQPClass::Channel(Ch::Close(_))) => {
                ctx.truth.count("hostile: its channel was closed");
                self.heard.push(Sign::On(id));
                if ctx.rng.chance(800) {
                    self.script.push_front(Step::Say(channel_close_ok(id)));
                }
            }
            _ => self.heard.push(Sign::On(id)),
        }
    }

    /// It has a moment: what does it do?
    pub fn act(&mut self, ctx: &mut Ctx) -> Act {
        if self.link.is_none() {
            return if self.stopping { Act::Idle } else { Act::Connect };
        }
        self.acts += 1;
        if ctx.rng.chance(30) {
            return Act::Vanish;
        }
        match self.script.pop_front() {
            Some(Step::Say(frames)) => {
                let mut outs = VecDeque::new();
                push(&mut outs, frames, vec![]);
                return Act::Write(outs.into());
            }
            Some(Step::Hear(sign)) if !self.heard.contains(&sign) => {
                self.script.push_front(Step::Hear(sign));
            }
            Some(Step::Hear(_)) => {}
            Some(Step::Sit(0)) => return Act::Vanish,
            Some(Step::Sit(left)) => self.script.push_front(Step::Sit(left - 1)),
            None => match ctx.rng.below(10) {
                0..6 => self.attack(ctx),
                6 => self.script.push_back(Step::Say(connection_close(200, "bye"))),
                7 => return Act::Vanish,
                _ => self.script.push_back(Step::Sit(40)),
            },
        }
        Act::Idle
    }

    fn say(&mut self, frames: Frames) {
        self.script.push_back(Step::Say(frames));
    }

    /// Says it, and waits for the answer where it is polite.
    fn ask(&mut self, frames: Frames, sign: Sign) {
        match self.script.back_mut() {
            Some(Step::Say(before)) if !self.polite => *before += frames,
            _ => self.say(frames),
        }
        if self.polite {
            self.script.push_back(Step::Hear(sign));
        }
    }

    fn log_in(&mut self, ctx: &mut Ctx) {
        let heartbeat = if ctx.rng.chance(700) { 0 } else { ctx.plan.heartbeat };
        let tuned = tune_ok(ctx.rng.pick(&[0, 10, 2047]), ctx.plan.frame_max, heartbeat);
        match self.guise {
            // It says nothing of who it is, and does not wait until somebody asks.
            Guise::Stranger => {
                self.polite = false;
                self.say(protocol_header());
                if ctx.rng.chance(300) {
                    self.script.push_back(Step::Hear(Sign::Start));
                }
                if ctx.rng.chance(800) {
                    self.say(connection_open(VHOST));
                }
            }
            Guise::Impostor => {
                self.polite = false;
                self.say(protocol_header());
                self.script.push_back(Step::Hear(Sign::Start));
                self.say(start_ok_as(OWNER, "wrong") + tuned + connection_open(VHOST));
            }
            Guise::Neighbour | Guise::Keyholder | Guise::Tenant => {
                let vhost = if self.guise == Guise::Tenant { OTHER_VHOST } else { VHOST };
                self.ask(protocol_header(), Sign::Start);
                self.ask(start_ok(self.user()), Sign::Tune);
                self.ask(tuned + connection_open(vhost), Sign::OpenOk);
            }
        }
    }

    /// Attacks in one of the ways below.
    fn attack(&mut self, ctx: &mut Ctx) {
        match ctx.rng.below(100) {
            0..3 => return self.open_many(ctx),
            3..25 if self.guise == Guise::Tenant => self.move_over(ctx),
            3..8 => self.move_over(ctx),
            _ => {}
        }
        for _ in 0..ctx.rng.between(1, 3) {
            self.use_a_channel(ctx);
        }
        match ctx.rng.below(10) {
            0..4 => self.script.push_back(Step::Sit(ctx.rng.pick(&[0, 3, 60]))),
            4 => self.say(connection_close(200, "bye")),
            _ => {}
        }
    }

    /// More channels than anybody needs, or than are allowed.
    fn open_many(&mut self, ctx: &mut Ctx) {
        ctx.truth.count("hostile: many channels");
        let many = ctx.rng.pick(&[50, 50, 200, 2100]);
        let all = (1..=many).flat_map(channel_open).collect();
        self.say(Frames(all));
    }

    /// It says again who it is and where, though it was asked once.
    fn move_over(&mut self, ctx: &mut Ctx) {
        ctx.truth.count("hostile: second thoughts");
        let frames = match ctx.rng.below(5) {
            0 => start_ok_as(OWNER, "wrong") + connection_open(VHOST),
            1 => update_secret("guessed"),
            2 => tune_ok(0, 0, 0) + connection_open(VHOST),
            _ => connection_open(VHOST),
        };
        self.say(frames);
        self.polite = false;
    }

    /// Opens a channel, perhaps makes it something else than plain, publishes, and leaves it in some state.
    fn use_a_channel(&mut self, ctx: &mut Ctx) {
        let id = self.channel;
        self.channel = if ctx.rng.chance(900) { id % 9 + 1 } else { id };
        self.ask(channel_open(id), Sign::On(id));
        let tx = match ctx.rng.below(10) {
            0..4 => {
                self.ask(confirm_select(id), Sign::On(id));
                false
            }
            4..7 => {
                self.ask(tx_select(id), Sign::On(id));
                true
            }
            _ => false,
        };
        let mut all = Frames::none();
        for _ in 0..ctx.rng.between(1, 8) {
            all += self.publish(id, ctx);
        }
        if ctx.rng.chance(150) {
            // Its content is never whole.
            ctx.truth.count("hostile: half a message");
            let half = half_of(self.publish(id, ctx), &mut ctx.rng);
            return self.ask(all + half, Sign::On(id));
        }
        match ctx.rng.below(10) {
            0..3 if tx => all += tx_commit(id),
            3 if tx => all += tx_rollback(id),
            4 => all += channel_close(id, 200, "bye"),
            5 => all += channel_close(id, 200, "bye") + channel_open(id) + self.publish(id, ctx),
            _ => {}
        }
        self.ask(all, Sign::On(id));
    }

    /// A message like others, with an id that others use, mostly where it has no right.
    fn publish(&mut self, id: u16, ctx: &mut Ctx) -> Frames {
        let exchange = match self.guise {
            Guise::Keyholder if ctx.rng.chance(700) => 1,
            _ => ctx.rng.pick(&[0, 0, 0, 1, 1, 2, 2]),
        };
        let clients = ctx.plan.clients;
        let what = What {
            exchange,
            routing_key: ctx.rng.below(ROUTING_KEYS.len()),
            id: match ctx.rng.below(10) {
                0 => None,
                1..4 => Some((1_000_000 * (1 + ctx.rng.below(clients)) + 1 + ctx.rng.below(80)) as u32),
                _ => Some(ctx.rng.below(ctx.plan.ids as usize) as u32),
            },
        };
        let publish = Publish {
            what,
            mandatory: ctx.rng.chance(300),
            bypass: ctx.rng.chance(50),
            ttl: ctx.rng.chance(50).then_some(500 * MILLI),
            len: ctx.rng.below(40),
            by_body: ctx.truth.by_body(exchange),
            by_header: ctx.truth.by_header(exchange),
            ..Publish::begun(ctx.now)
        };
        ctx.truth.count(if EXCHANGES[exchange] == "free" {
            "hostile: elsewhere"
        } else {
            "hostile: intrudes"
        });
        compose(ctx.rng.below(300) as u32, &publish).publish(id)
    }
}

/// The beginning of a message: its method, and perhaps its header, and perhaps some of its body.
fn half_of(frames: Frames, rng: &mut Rng) -> Frames {
    let keep = 1 + rng.below(frames.len().saturating_sub(1));
    Frames(frames.0.into_iter().take(keep).collect())
}
