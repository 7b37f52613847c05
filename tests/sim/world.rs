//! A run: clients, links and windows, stepped through virtual time, then healed, settled, and taken apart.

use super::client::{Act, Client};
use super::content::human;
use super::ctx::{Ctx, Log};
use super::link::Link;
use super::plan::{MILLI, Micros, Plan};
use super::relay::{Relay, Wire};
use super::rng::Rng;
use super::schedule::{Event, Schedule, instant};
use super::tap::Toward;
use super::truth::{LinkId, Truth, Violation};
use super::windows::SimWindows;
use hapax::session::Session;

/// What stands between clients and broker.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Middle {
    /// real sessions and real windows
    Sessions,
    /// nothing: the models try each other
    Wire,
}

/// See the module.
pub struct World {
    /// time, dice, plan, truth, log
    pub ctx: Ctx,
    middle: Middle,
    schedule: Schedule,
    clients: Vec<Client>,
    links: Vec<Option<Link>>,
    windows: SimWindows,
    /// events handled
    pub steps: u64,
    digest: u64,
}

impl World {
    /// The world of a seed; `log`: how many lines of what was done last it remembers.
    pub fn new(seed: u64, middle: Middle, log: usize) -> World {
        let mut plan = Plan::of(seed);
        if middle == Middle::Wire {
            plan.weather.freeze = 0;
            plan.weather.drain = 0;
        }
        let windows = SimWindows::new(&plan);
        let mut world = World {
            middle,
            schedule: Schedule::default(),
            clients: (0..plan.clients).map(Client::new).collect(),
            links: Vec::new(),
            windows,
            steps: 0,
            digest: 0,
            ctx: Ctx {
                now: 0,
                rng: Rng::new(seed.rotate_left(17)),
                truth: Truth::new(&plan, middle == Middle::Sessions),
                plan,
                log: Log { kept: log, ..Log::default() },
            },
        };
        world.ctx.log.say(|| format!("{:#?}", world.ctx.plan));
        let drain = world.ctx.soon(200 * world.ctx.plan.pause);
        world.schedule.at(drain, Event::Drain);
        for client in 0..world.clients.len() {
            world.schedule.at(world.ctx.soon(10 * MILLI), Event::Act(client));
        }
        world
    }

    /// All of it; a digest of what the relay wrote.
    pub fn run(&mut self, steps: u64) -> Result<u64, Violation> {
        while self.steps < steps {
            self.step()?;
        }
        self.heal()?;
        self.until("everything is settled", |world| world.is_settled())?;
        self.part()?;
        self.until("every connection is over", |world| world.links.iter().all(Option::is_none))?;
        self.end()
    }

    fn step(&mut self) -> Result<(), Violation> {
        let Some((time, event)) = self.schedule.next() else {
            self.ctx.truth.broken('h', "nothing happens any more");
            return self.verdict();
        };
        self.steps += 1;
        self.ctx.now = self.ctx.now.max(time);
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
            Event::Answer(window) => self.windows.answer(window, &mut self.ctx),
        }
        self.look_after();
        self.verdict()
    }

    fn verdict(&mut self) -> Result<(), Violation> {
        self.ctx.truth.violation.take().map_or(Ok(()), Err)
    }

    fn on_link(&mut self, id: LinkId, what: impl FnOnce(&mut Link, &mut Ctx, &mut Schedule)) {
        if let Some(link) = self.links[id].as_mut() {
            what(link, &mut self.ctx, &mut self.schedule);
        }
    }

    /// What one step leaves behind for others: mail, questions, evictions, links that are gone.
    fn look_after(&mut self) {
        self.windows.look_after(&mut self.ctx, &mut self.schedule);
        for (id, slot) in self.links.iter_mut().enumerate() {
            let Some(link) = slot else { continue };
            if link.bell_rang() {
                self.schedule.at(self.ctx.soon(self.ctx.plan.way.min(MILLI)), Event::Mail(id));
            }
            if link.is_gone() {
                self.digest = self.digest.rotate_left(5) ^ link.digest;
                *slot = None;
            }
        }
    }

    /// A process is drained, while another takes new connections already.
    fn drain(&mut self) {
        for id in 0..self.links.len() {
            if self.ctx.rng.chance(self.ctx.plan.weather.drain) {
                self.on_link(id, Link::drain);
            }
        }
    }

    fn act(&mut self, number: usize) {
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

    fn connect(&mut self, number: usize) {
        let id = self.links.len();
        let relay: Box<dyn Relay> = match self.middle {
            Middle::Sessions => Box::new(Session::new(self.windows.shared(), instant(self.ctx.now))),
            Middle::Wire => Box::new(Wire::new()),
        };
        let link = Link::new(id, number, relay, &mut self.ctx, &mut self.schedule);
        self.links.push(Some(link));
        self.clients[number].connected(id, self.ctx.now);
        self.ctx.truth.count("connection");
    }

    fn hang_up(&mut self, number: usize, id: LinkId, all: bool) {
        self.on_link(id, |link, ctx, schedule| link.client_gone(all, ctx, schedule));
        self.clients[number].disconnected(&mut self.ctx);
    }

    fn reach_client(&mut self, id: LinkId) {
        let Some(link) = self.links[id].as_mut() else { return };
        let frames = link.reach_client(&mut self.ctx, &mut self.schedule);
        let Some(number) = link.client else { return };
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
        self.clients.iter_mut().for_each(|client| client.stopping = true);
        for id in 0..self.links.len() {
            self.on_link(id, |link, ctx, schedule| {
                if std::mem::take(&mut link.frozen) {
                    link.client_gone(true, ctx, schedule);
                }
            });
        }
        self.verdict()
    }

    fn is_settled(&self) -> bool {
        self.clients.iter().all(Client::is_settled) && self.links.iter().flatten().all(Link::is_settled)
    }

    /// Everybody goes: some with a word, some without.
    fn part(&mut self) -> Result<(), Violation> {
        self.ctx.log.say(|| "parting".into());
        for number in 0..self.clients.len() {
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

    /// What must hold when everybody is gone.
    fn end(&mut self) -> Result<u64, Violation> {
        let in_flight = self.windows.in_flight();
        if in_flight > 0 {
            self.ctx.truth.broken('d', format!("{in_flight} ids are in flight and nobody is there"));
        }
        let tight = self.ctx.plan.tight;
        self.ctx.truth.nothing_lost(tight);
        self.windows.report(&mut self.ctx);
        self.verdict()?;
        Ok(self.digest)
    }
}
