//! A run: clients, links and windows, stepped through virtual time, then healed, settled, and taken apart.

use super::client::{Act, Client};
use super::content::human;
use super::ctx::{Ctx, Dice, Log, Whose};
use super::hostile::Hostile;
use super::link::{Link, TURN};
use super::plan::{MILLI, Micros, Plan};
use super::relay::{Relay, Wire};
use super::schedule::{Event, Schedule, instant};
use super::tap::Toward;
use super::transcript::Transcript;
use super::truth::{LinkId, Truth, Violation};
use super::watch::Watch;
use super::windows::SimWindows;
use crate::support::pair::LOCALHOST;
use hapax_core::session::{ChaosOrders, ChaosPlan, Session};
use std::sync::Arc;
use std::time::Duration;

/// The relay between clients and broker.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Middle {
    /// real sessions and real windows
    Sessions,
    /// nothing: the models try each other
    Wire,
}

/// Who takes part.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Cast {
    /// everybody
    All,
    /// the honest clients
    Honest,
    /// the hostile clients
    Hostile,
}

/// A whole run.
pub struct World {
    /// time, dice, plan, truth, log
    pub ctx: Ctx,
    middle: Middle,
    schedule: Schedule,
    /// the honest clients
    clients: Vec<Client>,
    /// the hostile ones; their numbers come after those of the plan's honest ones
    hostile: Vec<Hostile>,
    links: Vec<Option<Link>>,
    /// the number of the client of each link
    owners: Vec<usize>,
    windows: SimWindows,
    /// events handled
    pub steps: u64,
    /// events handled that are not of a hostile client
    honest_steps: u64,
    /// when everything was healed
    pub healed: Option<Micros>,
    digest: u64,
}

impl World {
    /// The world of a seed; `log`: how many lines of what was done last it remembers.
    pub fn new(seed: u64, middle: Middle, cast: Cast, log: usize) -> World {
        let mut plan = Plan::of(seed);
        if middle == Middle::Wire {
            plan.weather.freeze = 0;
            plan.weather.drain = 0;
        }
        let watch = Arc::new(Watch::default());
        let windows = SimWindows::new(&plan, &watch);
        let oracle = windows.oracle();
        let dice = Dice::new(seed);
        let (honest, hostile) = match cast {
            Cast::All => (plan.clients, plan.hostile),
            Cast::Honest => (plan.clients, 0),
            Cast::Hostile => (0, plan.hostile),
        };
        let mut world = World {
            middle,
            schedule: Schedule::default(),
            clients: (0..honest).map(Client::new).collect(),
            hostile: (0..hostile).map(|_| Hostile::new()).collect(),
            links: Vec::new(),
            owners: Vec::new(),
            windows,
            steps: 0,
            honest_steps: 0,
            healed: None,
            digest: 0,
            ctx: Ctx {
                now: 0,
                rng: dice.first(Whose::World),
                dice,
                transcript: Transcript::default(),
                watch,
                truth: Truth::new(&plan, middle == Middle::Sessions),
                plan,
                log: Log { kept: log, ..Log::default() },
            },
        };
        world.ctx.truth.oracle = Some(oracle);
        if middle == Middle::Sessions {
            world.windows.show_guard(&mut world.ctx);
        }
        world.ctx.log.say(|| format!("{:#?}", world.ctx.plan));
        let drain = world.ctx.soon(200 * world.ctx.plan.pause);
        world.schedule.at(drain, Event::Drain);
        if world.ctx.plan.crashes && middle == Middle::Sessions {
            let crash = world.ctx.soon(400 * world.ctx.plan.pause);
            world.schedule.at(crash, Event::Crash);
        }
        let first = world.ctx.plan.clients;
        let hostile = first..first + hostile;
        for client in (0..honest).chain(hostile) {
            world.ctx.turn_to(Whose::Client(client));
            world.schedule.at(world.ctx.soon(10 * MILLI), Event::Act(client));
        }
        world
    }

    /// All of it; a digest of what the relay wrote.
    pub fn run(&mut self, steps: u64) -> Result<u64, Violation> {
        while self.honest_steps < steps {
            self.step()?;
        }
        self.heal()?;
        self.until("everything is settled", |world| world.is_settled())?;
        self.until("every prefetch has room", |world| world.is_settled() && world.has_room())?;
        self.part()?;
        self.until("every connection is over", |world| world.links.iter().all(Option::is_none))?;
        self.end()
    }

    /// Handles all events before this time.
    pub fn run_until(&mut self, time: Micros) -> Result<(), Violation> {
        while self.ctx.now < time {
            self.step()?;
        }
        Ok(())
    }

    fn step(&mut self) -> Result<(), Violation> {
        let Some((time, event)) = self.schedule.next() else {
            self.ctx.truth.broken('h', "nothing happens any more");
            return self.verdict();
        };
        let whose = self.whose(event);
        self.steps += 1;
        self.honest_steps += u64::from(!self.is_hostile(whose));
        self.ctx.now = self.ctx.now.max(time);
        self.ctx.turn_to(whose);
        match event {
            Event::Act(client) => self.act(client),
            Event::Work(id, at) => self.on_link(id, |link, ctx, schedule| {
                if link.is_due(at) {
                    link.work(ctx, schedule);
                }
            }),
            Event::ToRelay(id, from) => {
                self.on_link(id, |link, ctx, schedule| link.arrive(from, ctx, schedule));
            }
            Event::FromRelay(id, Toward::Broker) => self.on_link(id, Link::reach_broker),
            Event::FromRelay(id, Toward::Client) => self.reach_client(id),
            Event::Dialled(id) => self.on_link(id, |link, ctx, schedule| {
                let found = !ctx.rng.chance(ctx.plan.weather.no_dial);
                link.dialled(found, ctx, schedule);
            }),
            Event::Timer(id) => self.on_link(id, Link::timeout),
            Event::Mail(id) => self.on_link(id, Link::mail),
            Event::Drain => self.drain(),
            Event::DrainOverdue(id) => self.on_link(id, Link::drain_overdue),
            Event::DrainOver(id) => self.on_link(id, Link::drain_over),
            Event::Crash => self.crash(),
            Event::Answer(window) => self.windows.answer(window, &mut self.ctx),
        }
        self.look_after();
        self.verdict()
    }

    /// Returns the participant whose dice decide about this event.
    fn whose(&self, event: Event) -> Whose {
        match event {
            Event::Act(number) => Whose::Client(number),
            Event::Drain | Event::Crash => Whose::World,
            Event::Answer(window) => Whose::Window(window),
            Event::Work(id, _)
            | Event::ToRelay(id, _)
            | Event::FromRelay(id, _)
            | Event::Dialled(id)
            | Event::DrainOverdue(id)
            | Event::DrainOver(id)
            | Event::Timer(id)
            | Event::Mail(id) => Whose::Client(self.owners[id]),
        }
    }

    fn is_hostile(&self, whose: Whose) -> bool {
        matches!(whose, Whose::Client(number) if number >= self.ctx.plan.clients)
    }

    /// Does this to the links, each with the dice of its client.
    fn each_link(&mut self, what: impl Fn(&mut Link, &mut Ctx, &mut Schedule)) {
        for id in 0..self.links.len() {
            self.ctx.turn_to(Whose::Client(self.owners[id]));
            self.on_link(id, &what);
        }
    }

    fn verdict(&mut self) -> Result<(), Violation> {
        self.ctx.truth.violation.take().map_or(Ok(()), Err)
    }

    fn on_link(&mut self, id: LinkId, what: impl FnOnce(&mut Link, &mut Ctx, &mut Schedule)) {
        if let Some(link) = self.links[id].as_mut() {
            what(link, &mut self.ctx, &mut self.schedule);
        }
    }

    /// Follows up on a step: mail, questions to late windows, evictions, and links that are gone.
    fn look_after(&mut self) {
        self.windows.look_after(&mut self.ctx, &mut self.schedule);
        for (id, slot) in self.links.iter_mut().enumerate() {
            let Some(link) = slot else { continue };
            if link.bell_rang() {
                self.ctx.turn_to(Whose::Client(self.owners[id]));
                self.schedule.at(self.ctx.soon(self.ctx.plan.way.min(MILLI)), Event::Mail(id));
            }
            if link.is_gone() {
                self.digest = self.digest.rotate_left(5) ^ link.digest;
                *slot = None;
            }
        }
        if let Some(text) = self.ctx.watch.wrong() {
            self.ctx.truth.broken('j', text);
        }
    }

    /// A process is drained, while another takes new connections already.
    fn drain(&mut self) {
        self.each_link(|link, ctx, schedule| {
            if ctx.rng.chance(ctx.plan.weather.drain) {
                link.drain(ctx, schedule);
            }
        });
    }

    /// The relay's process ends without a word. Another one begins with what is in the stores.
    fn crash(&mut self) {
        self.ctx.truth.count("relay crashed");
        self.windows.crash(&mut self.ctx);
        let before = self.ctx.truth.oracle.take();
        self.ctx.truth.oracle = Some(self.windows.oracle().after(before, self.ctx.now));
        self.each_link(|link, ctx, schedule| link.killed(ctx, schedule));
    }

    fn act(&mut self, number: usize) {
        if number >= self.ctx.plan.clients {
            return self.act_of_hostile(number);
        }
        let client = &mut self.clients[number];
        let act = client.act(&mut self.ctx);
        let link = client.connection.as_ref().map(|connection| (connection.link, connection.frame_max));
        let idle = matches!(&act, Act::Idle) || matches!(&act, Act::Write(outs) if outs.is_empty());
        match (act, link) {
            (Act::Connect, _) => self.connect(number),
            (Act::Write(outs), Some((id, frame_max))) => self.on_link(id, |link, ctx, schedule| {
                link.agreed(frame_max);
                link.client_writes(outs, ctx, schedule);
            }),
            (Act::Vanish, Some((id, _))) => {
                self.ctx.truth.count("client vanished");
                let all = self.ctx.rng.chance(500);
                self.hang_up(number, id, all);
            }
            (Act::Freeze, Some((id, _))) => {
                self.ctx.truth.count("client froze");
                let noticeable = self.clients[number].would_be_missed();
                self.on_link(id, |link, _, _| link.client_frozen(noticeable));
                self.clients[number].disconnected(&mut self.ctx);
            }
            _ => {}
        }
        if let (true, Some((id, _))) = (self.clients[number].is_done(), link) {
            self.hang_up(number, id, true);
        }
        let pause = self.clients[number].pause(idle, &mut self.ctx);
        self.schedule.at(self.ctx.now + pause, Event::Act(number));
    }

    fn act_of_hostile(&mut self, number: usize) {
        let at = number - self.ctx.plan.clients;
        let act = self.hostile[at].act(&mut self.ctx);
        match (act, self.hostile[at].link()) {
            (Act::Connect, _) => {
                self.hostile[at].dress(&mut self.ctx);
                let id = self.dial_in(number, self.hostile[at].user());
                self.hostile[at].connected(id, &mut self.ctx);
            }
            (Act::Write(outs), Some(id)) => self.on_link(id, |link, ctx, schedule| {
                link.agreed(ctx.plan.frame_max.max(8192));
                link.client_writes(outs, ctx, schedule);
            }),
            (Act::Vanish, Some(id)) => {
                let all = self.ctx.rng.chance(500);
                self.send_away(at, id, all);
            }
            _ => {}
        }
        let pause = self.hostile[at].pause(&mut self.ctx);
        self.schedule.at(self.ctx.now + pause, Event::Act(number));
    }

    fn send_away(&mut self, at: usize, id: LinkId, all: bool) {
        self.on_link(id, |link, ctx, schedule| link.client_gone(all, ctx, schedule));
        self.hostile[at].disconnected();
    }

    fn connect(&mut self, number: usize) {
        let id = self.dial_in(number, self.clients[number].user);
        self.clients[number].connected(id, self.ctx.now);
        self.ctx.truth.count("connection");
    }

    /// A connection to the relay.
    fn dial_in(&mut self, number: usize, user: &'static str) -> LinkId {
        let id = self.links.len();
        let relay: Box<dyn Relay> = match self.middle {
            Middle::Sessions => {
                let mut session = Session::new(self.windows.shared(), LOCALHOST, instant(self.ctx.now));
                session.handle_turn(TURN, instant(self.ctx.now));
                if let Some((shares, lasts)) = self.ctx.plan.chaos {
                    let (until, hold_for) = (instant(lasts), Duration::from_millis(30));
                    let plan = ChaosPlan { seed: 0, shares, hold_for, windows: None, until };
                    // (By a number that does not depend on anybody else.)
                    let nth = self.owners.iter().filter(|owner| **owner == number).count();
                    let connection = (number as u64) << 32 | nth as u64;
                    let orders = ChaosOrders { connection, plan: Some(Arc::new(plan)) };
                    session.handle_chaos(Some(orders), instant(self.ctx.now));
                }
                self.ctx.watch.begun(session.mailbox(), id, user);
                Box::new(session)
            }
            Middle::Wire => Box::new(Wire::new()),
        };
        let hostile = number >= self.ctx.plan.clients;
        let link = Link::new(id, (number, hostile), relay, &mut self.ctx, &mut self.schedule);
        self.links.push(Some(link));
        self.owners.push(number);
        id
    }

    fn hang_up(&mut self, number: usize, id: LinkId, all: bool) {
        self.on_link(id, |link, ctx, schedule| link.client_gone(all, ctx, schedule));
        self.clients[number].disconnected(&mut self.ctx);
    }

    fn reach_client(&mut self, id: LinkId) {
        let Some(link) = self.links[id].as_mut() else { return };
        let frames = link.reach_client(&mut self.ctx, &mut self.schedule);
        let Some(number) = link.client else { return };
        if let Some(at) = number.checked_sub(self.ctx.plan.clients) {
            match frames {
                Some(frames) => frames.iter().for_each(|frame| self.hostile[at].handle(frame, &mut self.ctx)),
                None => {
                    link.client = None;
                    self.hostile[at].disconnected();
                }
            }
            return;
        }
        match frames {
            Some(frames) => frames.iter().for_each(|frame| self.clients[number].handle(frame, &mut self.ctx)),
            None => {
                link.client = None;
                self.clients[number].disconnected(&mut self.ctx);
            }
        }
    }

    /// Nothing goes wrong any more, and nobody begins anything new.
    fn heal(&mut self) -> Result<(), Violation> {
        self.ctx.log.say(|| "healed".into());
        self.ctx.plan.heal();
        self.healed = Some(self.ctx.now);
        self.clients.iter_mut().for_each(|client| client.stopping = true);
        self.each_link(|link, ctx, schedule| {
            if std::mem::take(&mut link.frozen) {
                link.client_gone(true, ctx, schedule);
            }
        });
        for at in 0..self.hostile.len() {
            self.ctx.turn_to(Whose::Client(self.ctx.plan.clients + at));
            self.hostile[at].stopping = true;
            if let Some(id) = self.hostile[at].link() {
                self.send_away(at, id, true);
            }
        }
        self.verdict()
    }

    /// Whether the honest clients have nothing left to wait for. The hostile ones must not matter.
    fn is_settled(&self) -> bool {
        let mut links = self.links.iter().flatten().filter(|link| !link.hostile);
        self.clients.iter().all(Client::is_settled) && links.all(Link::is_settled)
    }

    /// Whether no delivery takes room of a prefetch. Consumers have acked all that they were shown, so one that does is hidden from them,
    /// and its consumer would get nothing any more.
    fn has_room(&self) -> bool {
        let mut links = self.links.iter().flatten().filter(|link| !link.hostile);
        links.all(|link| link.unsettled_deliveries() == 0)
    }

    /// Everybody goes: some with a word, some without.
    fn part(&mut self) -> Result<(), Violation> {
        self.ctx.log.say(|| "parting".into());
        for number in 0..self.clients.len() {
            self.ctx.turn_to(Whose::Client(number));
            self.clients[number].is_gone = true;
            let link = self.clients[number].connection.as_ref().map(|connection| connection.link);
            match link {
                Some(_) if self.ctx.rng.chance(500) => self.clients[number].leave(),
                Some(id) => self.hang_up(number, id, true),
                None => {}
            }
        }
        self.verdict()
    }

    /// (h): this comes about in bounded time.
    fn until(&mut self, what: &str, holds: impl Fn(&World) -> bool) -> Result<(), Violation> {
        let deadline: Micros = self.ctx.now + self.ctx.plan.patience();
        while !holds(self) {
            self.step()?;
            if self.ctx.now > deadline {
                let links: Vec<String> = self.links.iter().flatten().map(Link::describe).collect();
                let unsettled = self.clients.iter().enumerate().filter(|(_, client)| !client.is_settled());
                let clients: Vec<usize> = unsettled.map(|(number, _)| number).collect();
                let text = format!(
                    "at {} it is not yet so that {what}; clients {clients:?} are not settled; {links:#?}",
                    human(self.ctx.now)
                );
                self.ctx.truth.broken('h', text);
                self.verdict()?;
            }
        }
        Ok(())
    }

    /// Checks everything that must hold after all clients have left.
    fn end(&mut self) -> Result<u64, Violation> {
        let in_flight = self.windows.in_flight(self.ctx.now);
        if in_flight > 0 {
            self.ctx.truth.broken('d', format!("{in_flight} ids are in flight and nobody is there"));
        }
        for (letter, side) in [('j', &self.ctx.transcript.honest), ('k', &self.ctx.transcript.hostile)] {
            if let Some(why) = side.is_missing() {
                self.ctx.truth.broken(letter, why);
            }
        }
        let tight = self.ctx.plan.tight;
        self.ctx.truth.nothing_lost(tight);
        self.ctx.truth.nothing_stale();
        self.windows.report(&mut self.ctx);
        self.verdict()?;
        Ok(self.digest)
    }
}
