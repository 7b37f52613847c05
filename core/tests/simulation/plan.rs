//! The plan of a run, which the seed decides before it begins: who takes part, how large the windows are, and the
//! weather.

use super::rng::Rng;
use hapax_core::session::{ChaosFault, ChaosShares, Settings};
use hapax_core::window::engine::EngineKind;
use hapax_core::window::{OnDuplicate, OnOutage, Quota, Remember, StorePolicy};
use std::time::Duration;

/// Messages that a client has ready to be written on a channel at most: it begins no other one while there are twice as many frames.
pub const AT_ONCE: usize = 25;

/// Microseconds of virtual time since the run began.
pub type Micros = u64;
/// One second.
pub const SECOND: Micros = 1_000_000;
/// One millisecond.
pub const MILLI: Micros = 1_000;

/// One window of a run.
#[derive(Clone, Debug)]
pub struct WindowPlan {
    /// ids
    pub capacity: usize,
    /// from the commit
    pub ttl: Micros,
    /// how many may wait for one id
    pub waiters: usize,
    /// a duplicate makes the key young again
    pub refresh: bool,
    /// which store
    pub engine: EngineKind,
    /// its verdicts come late and out of order
    pub late: bool,
    /// its commits are remembered late
    pub log: bool,
    /// it waits on for a silent store, instead of going on without it
    pub waits_on: bool,
    /// its store never answers a question, in thousandths
    pub silent: u32,
    /// its store answers a question twice, or one that was withdrawn, in thousandths
    pub wrong: u32,
    /// its log stands still for seconds, in thousandths of the occasions
    pub stuck: u32,
    /// it has a log, with this policy; then nothing of it is late
    pub logged: Option<StorePolicy>,
    /// duplicates are counted and forwarded
    pub observe: bool,
    /// `in_doubt = "keep"`
    pub keep: bool,
    /// `missing_id = "reject"`
    pub reject: bool,
    /// the body is the id (the second window only)
    pub by_body: bool,
    /// `forward_to` another exchange (the second window only)
    pub redirect: bool,
    /// `verify_routing`
    pub verify: bool,
    /// whose ids share the capacity
    pub quota: Quota,
    /// `on_conflict = "forward"`, and ids come with several bodies
    pub forwards_conflicts: bool,
    /// what the publisher of a duplicate hears
    pub on_duplicate: OnDuplicate,
    /// ids are numbers of producers (the first window only)
    pub sequence: bool,
    /// `release = "consumed"`
    pub releases: bool,
    /// `republish = "drop"`: a message that its consumer publishes again is as any other
    pub drops_republish: bool,
}

/// The faults of a run, each with its frequency in thousandths of the occasions.
#[derive(Clone, Debug)]
pub struct Weather {
    /// the broker refuses a message: nack
    pub nack: u32,
    /// a mandatory message has no route
    pub no_route: u32,
    /// the broker closes a channel, per publish
    pub channel_close: u32,
    /// the broker closes a connection with 320, per piece of its work
    pub connection_close: u32,
    /// the broker dies, or its connection is cut, per piece of its work
    pub broker_death: u32,
    /// a client vanishes, per thing that it does
    pub crash: u32,
    /// a client falls silent without a word, per thing that it does
    pub freeze: u32,
    /// a client closes its connection, per thing that it does
    pub leave: u32,
    /// a dial fails
    pub no_dial: u32,
    /// `tx.commit` fails
    pub no_commit: u32,
    /// the broker settles with `multiple` where it can
    pub multiple: u32,
    /// the broker settles out of order
    pub disorder: u32,
    /// the broker blocks publishers, per piece of its work
    pub block: u32,
    /// the broker delivers to a consumer, per piece of its work
    pub deliver: u32,
    /// the relay's process is drained once; this many of its connections are affected
    pub drain: u32,
}

/// A run.
#[derive(Clone, Debug)]
pub struct Plan {
    /// bounds and times of the sessions
    pub settings: Settings,
    /// the windows; exchange n belongs to the n-th, or to the first where there is only one
    pub windows: Vec<WindowPlan>,
    /// how many clients
    pub clients: usize,
    /// the most channels of a connection
    pub channels: u16,
    /// how many ids the clients share
    pub ids: u32,
    /// a publish takes an id that was taken before, in thousandths
    pub repeat: u32,
    /// a channel selects confirms when it is opened, in thousandths
    pub confirm: u32,
    /// a channel selects tx when it is opened, in thousandths
    pub tx: u32,
    /// the longest way of a piece of bytes
    pub way: Micros,
    /// the longest time between two things that a client does
    pub pause: Micros,
    /// the longest time of a piece of the broker's work
    pub toil: Micros,
    /// what the broker offers, in seconds
    pub heartbeat: u16,
    /// the broker's frame_max
    pub frame_max: u32,
    /// the largest body
    pub body: usize,
    /// bounds or times are so small that publishes are given up for them
    pub tight: bool,
    /// what goes wrong
    pub weather: Weather,
    /// the relay's process ends once without a word
    pub crashes: bool,
    /// a client may send so many messages in a moment at most; 0: as many as it likes
    pub rate: u64,
    /// how many hostile clients, beside the others
    pub hostile: usize,
    /// one of them may publish to the second exchange with one routing key; where that exchange has a window of its own
    /// with room for everybody, and an order of answers that depends on nobody
    pub keyholder: bool,
    /// clients consume from a guarded queue
    pub guards: bool,
    /// a new message of the second exchange has the header of many others, in thousandths, where its body is its id
    pub alike: u32,
    /// a client reads nothing while bytes that it has written are not taken, as one that writes with blocking calls; then
    /// the relay reads deliveries from the broker only while fewer frames than this wait for the client
    pub blocking: Option<usize>,
    /// producers begin anew about this often, and a publish of the epoch before may come late; where a window counts numbers
    pub epochs: Option<Micros>,
    /// the relay makes trouble itself, for this long
    pub chaos: Option<(ChaosShares, Micros)>,
}

impl Plan {
    /// The plan of a seed.
    pub fn of(seed: u64) -> Plan {
        let mut rng = Rng::new(seed);
        let tight = rng.chance(250);
        let mut settings = settings(&mut rng, tight);
        let mut windows: Vec<_> =
            (0..rng.between(1, 2)).map(|at| WindowPlan::draw(&mut rng, at == 1, tight)).collect();
        let mut others = Rng::new(!seed);
        settings.rights_held = Duration::from_millis(others.pick(&[1_000, 60_000, 60_000]));
        // The broker takes longer than anybody waits for another's outcome.
        let sluggish = others.chance(150);
        if sluggish {
            settings.in_flight_timeout = Duration::from_millis(50);
        }
        let hostile = if others.chance(400) { others.between(1, 3) as usize } else { 0 };
        settings.store_timeout = Duration::from_millis(others.pick(&[50, 1_000, 1_000]));
        windows.iter_mut().for_each(|window| window.draw_store(&mut others));
        let mut verify = Rng::new(seed.rotate_left(32));
        windows.iter_mut().for_each(|window| window.verify = verify.chance(700));
        let mut bodies = Rng::new(seed.rotate_left(16));
        for window in &mut windows {
            window.forwards_conflicts = !window.by_body && bodies.chance(300);
        }
        let mut signals = Rng::new(seed.rotate_left(40));
        for window in &mut windows {
            let rules = [OnDuplicate::Ack, OnDuplicate::Ack, OnDuplicate::Nack, OnDuplicate::Return];
            window.on_duplicate = signals.pick(&rules);
        }
        let mut logs = Rng::new(seed.rotate_left(48));
        windows.iter_mut().for_each(|window| window.draw_log(&mut logs));
        let mut limits = Rng::new(seed.rotate_left(24));
        for window in windows.iter_mut().filter(|window| window.engine.has_tenants()) {
            window.quota =
                limits.pick(&[Quota::None, Quota::None, Quota::User, Quota::Exchange, Quota::Vhost]);
        }
        let mut numbers = Rng::new(seed.rotate_left(8));
        windows.first_mut().into_iter().for_each(|window| window.draw_sequence(&mut numbers));
        let mut releases = Rng::new(seed.rotate_left(9));
        windows.iter_mut().for_each(|window| window.draw_release(&mut releases));
        let mut drops = Rng::new(seed.rotate_left(10));
        windows.iter_mut().for_each(|window| window.drops_republish = drops.chance(700) && window.releases);
        let counts = windows.first().is_some_and(|window| window.sequence);
        let epochs = Some(numbers.pick(&[SECOND / 5, SECOND, 10 * SECOND]));
        let epochs = epochs.filter(|_| counts && numbers.chance(700));
        let rate = if limits.chance(250) { limits.pick(&[1, 3, 20]) } else { 0 };
        let crashes = windows.iter().any(|window| window.logged.is_some()) && logs.chance(600);
        let has_store = |w: &WindowPlan| w.late || w.log || w.logged.is_some();
        let keyholder =
            windows.get(1).is_some_and(|w| !has_store(w) && w.capacity > 1000 && w.waiters > 1000);
        let calm = rng.chance(150);
        Plan {
            settings,
            windows,
            clients: rng.between(1, 6) as usize,
            channels: rng.between(1, 3) as u16,
            ids: rng.pick(&[3, 10, 40, 400]),
            repeat: rng.pick(&[50, 300, 700]),
            confirm: rng.pick(&[0, 500, 700, 1000]),
            tx: rng.pick(&[0, 0, 150, 600]),
            way: rng.pick(&[100, 2 * MILLI, 20 * MILLI]),
            pause: rng.pick(&[200, 2 * MILLI, 30 * MILLI]),
            toil: rng.pick(&[200, 3 * MILLI, 50 * MILLI]) + if sluggish { 150 * MILLI } else { 0 },
            heartbeat: rng.pick(&[0, 1, 2, 60]),
            frame_max: rng.pick(&[4096, 8192, 131_072]),
            body: rng.pick(&[60, 60, 60, 9000]),
            tight,
            weather: if calm { Weather::calm() } else { Weather::draw(&mut rng) },
            hostile,
            rate,
            crashes,
            keyholder,
            guards: Rng::new(seed.rotate_left(40)).chance(400),
            alike: others.pick(&[0, 300, 900]),
            epochs,
            chaos: draw_chaos(&mut Rng::new(seed.rotate_left(56))),
            // (A client that reads late may be later than a short linger.)
            blocking: others.chance(300).then(|| others.pick(&[1, 3, 20])).filter(|_| !tight),
        }
    }

    /// Nothing goes wrong any more.
    pub fn heal(&mut self) {
        let order = self.weather.clone();
        self.weather = Weather { multiple: order.multiple, disorder: order.disorder, ..Weather::calm() };
        self.toil = self.toil.min(5 * MILLI);
        for window in &mut self.windows {
            (window.silent, window.wrong, window.stuck) = (0, 0, 0);
        }
    }

    /// How many may be unresolved. Reading stops at the bound; what was read before and waits behind a verdict (it is
    /// part of the held bytes, and no publish is smaller than 50) is judged without asking again, and a transaction
    /// counts when it ends. `channels`: how many there may be.
    pub fn most_unresolved(&self, channels: u16) -> usize {
        let transactions = usize::from(channels) * self.settings.max_unresolved;
        self.settings.max_unresolved + transactions + self.most_published(channels) / 50
    }

    /// How many bytes may be held. Where duplicates come back, the returns of all that one read has brought may wait for the end of a
    /// delivery.
    pub fn most_held(&self, channels: u16) -> usize {
        let comes_back = self.windows.iter().any(|window| window.on_duplicate == OnDuplicate::Return);
        let returns = if comes_back { usize::from(channels) * AT_ONCE * self.message() } else { 0 };
        self.most_published(channels) + returns
    }

    /// How many bytes of publishes may be held. Reading stops beyond the bound: each channel may exceed it by one message.
    fn most_published(&self, channels: u16) -> usize {
        self.settings.held_bytes + (usize::from(channels) + 1) * self.message()
    }

    /// The bytes of a message at most.
    fn message(&self) -> usize {
        2 * self.body + 400
    }

    /// How long everything may take to come to an end once the network is healed.
    pub fn patience(&self) -> Micros {
        let s = &self.settings;
        let all = s.linger * 2 + s.in_flight_timeout * 2 + s.handshake_timeout * 2 + s.store_timeout * 4;
        all.as_micros() as u64 + 60 * SECOND + 4 * SECOND * u64::from(self.heartbeat)
    }
}

/// The trouble that the relay makes itself, if it does. (With dice of its own: the rest of a seed's plan is as it was before.)
fn draw_chaos(rng: &mut Rng) -> Option<(ChaosShares, Micros)> {
    let is_on = rng.chance(400);
    let mut shares = ChaosShares::default();
    for fault in ChaosFault::ALL {
        // (Clients publish more than they ack.)
        let often = if fault == ChaosFault::Redeliver { 1.0 } else { 0.1 };
        shares = shares.with(fault, often * rng.pick(&[0.0, 0.1, 1.0]));
    }
    let lasts = rng.pick(&[SECOND / 10, SECOND, 10 * SECOND]);
    is_on.then_some((shares, lasts))
}

fn settings(rng: &mut Rng, tight: bool) -> Settings {
    let millis = Duration::from_millis;
    if tight {
        Settings {
            linger: millis(rng.pick(&[20, 200, 5000])),
            in_flight_timeout: millis(rng.pick(&[50, 500, 30_000])),
            store_timeout: millis(1000),
            handshake_timeout: millis(rng.pick(&[2000, 10_000])),
            rights_held: millis(60_000),
            max_unresolved: rng.pick(&[1, 4, 1000]),
            held_bytes: rng.pick(&[0, 200, 20_000]),
            frame_max: 131_072,
            initial_frame_max: 8192,
            external: true,
        }
    } else {
        Settings {
            linger: millis(30_000),
            in_flight_timeout: millis(20_000),
            store_timeout: millis(1000),
            handshake_timeout: millis(10_000),
            rights_held: millis(60_000),
            max_unresolved: 10_000,
            held_bytes: 16 << 20,
            frame_max: 131_072,
            initial_frame_max: 8192,
            external: true,
        }
    }
}

impl WindowPlan {
    fn draw(rng: &mut Rng, second: bool, tight: bool) -> WindowPlan {
        let small = rng.chance(300);
        let short = rng.chance(300);
        // Where there is no room to hold a body, it is not judged.
        let by_body = second && !tight && rng.chance(250);
        WindowPlan {
            capacity: if small { rng.pick(&[1, 3, 16, 64]) } else { 100_000 },
            ttl: if short { rng.pick(&[20, 100, 1000]) * MILLI } else { 3600 * SECOND },
            waiters: if tight { rng.pick(&[1, 3, 1000]) } else { 100_000 },
            refresh: rng.chance(200),
            engine: if small || rng.chance(700) { EngineKind::default() } else { EngineKind::Moka },
            late: rng.chance(300),
            log: false,
            waits_on: false,
            silent: 0,
            wrong: 0,
            stuck: 0,
            logged: None,
            observe: rng.chance(70),
            keep: rng.chance(150),
            reject: !by_body && rng.chance(100),
            by_body,
            redirect: second && rng.chance(300),
            verify: false,
            quota: Quota::None,
            forwards_conflicts: false,
            on_duplicate: OnDuplicate::Ack,
            sequence: false,
            releases: false,
            drops_republish: false,
        }
    }
}

impl WindowPlan {
    /// How late its store is. (With dice of its own: the rest of a seed's plan is as it was before there were stores.)
    fn draw_store(&mut self, rng: &mut Rng) {
        self.log = rng.chance(300);
        self.waits_on = rng.chance(300);
        self.silent = rng.pick(&[0, 20, 200]);
        self.wrong = rng.pick(&[0, 100, 500]);
        self.stuck = rng.pick(&[0, 20, 200]);
    }

    /// Whether ids are numbers. A producer lives from its last use on, has no bodies to compare, and no tenant.
    fn draw_sequence(&mut self, rng: &mut Rng) {
        self.sequence = rng.chance(300) && self.logged.is_none();
        if self.sequence {
            self.refresh = true;
            (self.forwards_conflicts, self.quota) = (false, Quota::None);
            self.capacity = rng.pick(&[2, 4, 100_000]);
        }
    }

    /// Whether an id is released when a consumer acks its message. The delivery has to show where it was published, and the id.
    fn draw_release(&mut self, rng: &mut Rng) {
        self.releases = rng.chance(250) && !self.by_body && !self.redirect && !self.sequence;
    }

    /// Whether it has a log. (With dice of its own, too.)
    fn draw_log(&mut self, rng: &mut Rng) {
        let policy = StorePolicy {
            remember: rng.pick(&[Remember::Sync, Remember::Sync, Remember::Async]),
            on_outage: rng.pick(&[OnOutage::Continue, OnOutage::Refuse]),
            ..StorePolicy::default()
        };
        self.logged = Some(policy).filter(|_| rng.chance(350) && !self.late && !self.log);
    }
}

impl Weather {
    /// Nothing goes wrong.
    pub fn calm() -> Weather {
        Weather {
            nack: 0,
            no_route: 0,
            channel_close: 0,
            connection_close: 0,
            broker_death: 0,
            crash: 0,
            freeze: 0,
            leave: 0,
            no_dial: 0,
            no_commit: 0,
            multiple: 300,
            disorder: 300,
            block: 0,
            deliver: 0,
            drain: 0,
        }
    }

    fn draw(rng: &mut Rng) -> Weather {
        Weather {
            nack: rng.pick(&[0, 50, 300]),
            no_route: rng.pick(&[0, 100, 500]),
            channel_close: rng.pick(&[0, 3, 30]),
            connection_close: rng.pick(&[0, 0, 1, 5]),
            broker_death: rng.pick(&[0, 1, 5]),
            crash: rng.pick(&[0, 2, 20]),
            freeze: rng.pick(&[0, 0, 2]),
            leave: rng.pick(&[0, 2, 20]),
            no_dial: rng.pick(&[0, 50]),
            no_commit: rng.pick(&[0, 100]),
            multiple: rng.pick(&[0, 300, 800]),
            disorder: rng.pick(&[0, 300, 800]),
            block: rng.pick(&[0, 0, 3]),
            deliver: rng.pick(&[0, 50, 300]),
            drain: rng.pick(&[0, 0, 0, 500, 1000]),
        }
    }
}
