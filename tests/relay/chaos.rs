//! Chaos on the real thing: the broker killed, the relay killed, connections cut at random octets on either side, under
//! load, with publishers that retry until they are acked. Afterwards:
//!
//! * every id that was acked is in the queue: nothing is lost;
//! * a duplicate is there only where an outcome was unknown to its publisher, and at most as often;
//! * all of them together are no more than what Hapax has counted as in doubt, and none where only a client's
//!   connection broke: then the relay still learns the outcome, and the retry finds the truth.
//!
//! A run is driven by a seed, which is printed; `HAPAX_E2E_SEED=N` sets it. (The schedule of processes is the machine's
//! own: the seed replays the plan, not every octet of the run.)
#![allow(
    clippy::disallowed_methods,
    clippy::cast_possible_truncation,
    reason = "a failed step is a failed test, and publishers give up at a deadline"
)]

use crate::e2e::cut::{Cut, Limits};
use crate::e2e::raw::{Publish, Told};
use crate::e2e::retry::{self, Rng, over, settled};
use crate::e2e::site::{self, Before, Site};
use std::collections::{BTreeMap, VecDeque};
use std::io;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Condvar, Mutex};
use std::thread;
use std::time::{Duration, Instant};

/// When a publisher gives up. A node is killed twice, and may take a minute to start on a busy machine.
const DEADLINE: Duration = Duration::from_secs(150);
const PUBLISHERS: usize = 3;
const IDS: usize = 3000;
/// Publishes that a publisher has under way at a time.
const UNDER_WAY: usize = 50;
const BODY: [u8; 100] = [b'.'; 100];

/// How many ids all publishers together have acked.
#[derive(Default)]
struct Progress {
    acked: Mutex<usize>,
    moved: Condvar,
}

impl Progress {
    fn one_more(&self) {
        *self.acked.lock().unwrap() += 1;
        self.moved.notify_all();
    }

    fn wait_for(&self, count: usize) {
        let waiting =
            self.moved.wait_timeout_while(self.acked.lock().unwrap(), DEADLINE, |acked| *acked < count);
        assert!(!waiting.unwrap().1.timed_out(), "{count} are not acked within {DEADLINE:?}");
    }
}

/// One publisher, until all of its ids are acked.
struct Publisher {
    addr: SocketAddr,
    vhost: String,
    /// sometimes publishes again what was acked already; it must make no difference
    repeats: bool,
    rng: Rng,
    todo: VecDeque<String>,
    /// how often each id was under way when the connection broke
    unknown: BTreeMap<String, usize>,
    acked: BTreeMap<String, usize>,
    connections: usize,
}

impl Publisher {
    fn new(number: usize, site: &Site, addr: SocketAddr, repeats: bool, rng: Rng) -> Publisher {
        Publisher {
            addr,
            vhost: site.vhost.clone(),
            repeats,
            rng,
            todo: (0..IDS).map(|n| format!("{number}-{n}")).collect(),
            unknown: BTreeMap::new(),
            acked: BTreeMap::new(),
            connections: 0,
        }
    }

    fn run(mut self, progress: &Progress) -> Publisher {
        let end = Instant::now() + DEADLINE;
        while self.acked.len() < IDS || !self.todo.is_empty() {
            assert!(Instant::now() < end, "{} of {IDS} are acked at the deadline", self.acked.len());
            self.connections += 1;
            let mut under_way = BTreeMap::new();
            if self.connection(&mut under_way, progress).is_err() {
                // Nobody is there, or somebody hung up: the next attempt in a moment.
                thread::park_timeout(Duration::from_millis(20));
            }
            for (_, id) in under_way.into_iter().rev() {
                *self.unknown.entry(id.clone()).or_default() += 1;
                self.todo.push_front(id);
            }
        }
        self
    }

    /// Publishes on one connection, to its end or until nothing is left.
    fn connection(&mut self, under_way: &mut BTreeMap<u64, String>, progress: &Progress) -> io::Result<()> {
        let mut raw = retry::login(self.addr, &self.vhost)?;
        let mut tag = 0;
        loop {
            let mut octets = Vec::new();
            while under_way.len() < UNDER_WAY {
                let Some(id) = self.todo.pop_front() else { break };
                tag += 1;
                let publish = Publish { persistent: true, body: &BODY, ..Publish::to("q", &id) };
                octets.extend(publish.encode(1, raw.frame_max()));
                under_way.insert(tag, id);
            }
            if under_way.is_empty() {
                // Everything is acked. The broker may be gone before it answers the goodbye.
                return raw.leave();
            }
            raw.write(&octets)?;
            match raw.receive()?.ok_or_else(over)?.1 {
                Told::Ack { tag, multiple } => {
                    let acked = settled(under_way, tag, multiple);
                    acked.into_iter().for_each(|id| self.acked(id, progress));
                }
                Told::Nack { tag, multiple } => self.todo.extend(settled(under_way, tag, multiple)),
                _ => return Err(over()),
            }
        }
    }

    fn acked(&mut self, id: String, progress: &Progress) {
        let times = self.acked.entry(id.clone()).or_default();
        *times += 1;
        if *times == 1 {
            progress.one_more();
        }
        if self.repeats && *times < 3 && self.rng.below(5) == 0 {
            self.todo.push_back(id);
        }
    }
}

/// Runs publishers against `addr` with `chaos` beside them, and looks at the queue afterwards. Gives the number of
/// duplicates and how often outcomes were unknown.
fn run(
    site: &Site,
    addr: SocketAddr,
    repeats: bool,
    rng: &mut Rng,
    chaos: impl FnOnce(&Progress),
) -> (usize, usize) {
    let mut direct = site.direct();
    direct.open_channel(1);
    direct.declare(1, "q", &[]);
    drop(direct);
    // A queue that was declared is in RabbitMQ's log two seconds later only. Killed before that, it has no such queue
    // when it comes back, and acks what is published to it as unroutable: not what is tried here.
    site.rabbit.sync_metadata().unwrap();
    let progress = Progress::default();
    let publishers: Vec<Publisher> = thread::scope(|scope| {
        let running: Vec<_> = (0..PUBLISHERS)
            .map(|number| {
                let publisher = Publisher::new(number, site, addr, repeats, Rng(rng.next()));
                let progress = &progress;
                scope.spawn(move || publisher.run(progress))
            })
            .collect();
        chaos(&progress);
        running.into_iter().map(|publisher| publisher.join().unwrap()).collect()
    });

    let mut direct = site.direct();
    direct.open_channel(1);
    let held = retry::held(&mut direct, "q");
    let doubled = publishers.iter().map(|one| retry::doubled(&held, one.acked.keys(), &one.unknown));
    let duplicates = doubled.sum();
    let doubts = publishers.iter().flat_map(|one| one.acked.keys().filter_map(|id| one.unknown.get(id)));
    let unknown = doubts.sum();
    let connections: usize = publishers.iter().map(|publisher| publisher.connections).sum();
    println!("{connections} connections, {unknown} unknown outcomes, {duplicates} duplicates");
    assert!(connections > PUBLISHERS, "nothing has happened to anybody");
    (duplicates, unknown)
}

fn in_doubt(site: &Site) -> usize {
    site.metrics().sum("forgotten_total", &[("cause", "in_doubt")]) as usize
}

#[test]
fn the_broker_is_killed_and_restarted_under_load() {
    let mut rng = Rng::seeded("the broker is killed");
    let site = Site::on(&site::own_rabbit(), "chaos-broker", "");
    // Straight at the broker there is nobody to take repeats out.
    let repeats = !site::without_relay();
    let at = [500, 3000].map(|after| after + rng.below(1500) as usize);
    let (duplicates, _) = run(&site, site.addr(), repeats, &mut rng, |progress| {
        for after in at {
            progress.wait_for(after);
            site.rabbit.kill9();
            site.rabbit.restart().unwrap_or_else(|error| panic!("{error}"));
        }
    });
    if !site::without_relay() {
        let in_doubt = in_doubt(&site);
        assert!(duplicates <= in_doubt, "{duplicates} duplicates, {in_doubt} counted as in doubt");
        assert!(in_doubt > 0, "it was killed under load, and nothing was in doubt");
    }
}

#[test]
fn the_relay_is_killed_and_restarted_under_load() {
    let mut rng = Rng::seeded("the relay is killed");
    let Some(mut site) = Site::of_relay("chaos-relay", "") else { return };
    let addr = site.addr();
    // It starts with an empty memory: a repeat of what was acked before
    // its death would be stored again. Retries of what is in doubt may be.
    let at: Vec<usize> = (0..4).map(|n| 400 + n * 1200 + rng.below(1000) as usize).collect();
    let Before::Relay(relay) = std::mem::replace(&mut site.before, Before::Nothing) else { return };
    let relay = Mutex::new(relay);
    run(&site, addr, false, &mut rng, |progress| {
        for after in at {
            progress.wait_for(after);
            relay.lock().unwrap().restart();
        }
    });
}

/// Limits for a connection: somewhere within the publishes of either direction, sometimes in the handshake.
fn somewhere(rng: &mut Rng) -> Limits {
    let up = (rng.below(3) < 2).then(|| rng.below(9_000) + 100);
    let down = up.is_none().then(|| rng.below(1_500) + 100);
    Limits { up, down }
}

/// A forwarder that cuts every connection made while it is armed, until it has made `cuts` cuts.
fn cutting(upstream: SocketAddr, rng: &mut Rng, armed: &Arc<AtomicBool>, cuts: usize) -> Cut {
    let (armed, rng) = (Arc::clone(armed), Mutex::new((Rng(rng.next()), cuts)));
    Cut::start(upstream, move |_| {
        let mut rng = rng.lock().unwrap();
        if !armed.load(Ordering::SeqCst) || rng.1 == 0 {
            return Limits::default();
        }
        rng.1 -= 1;
        somewhere(&mut rng.0)
    })
}

#[test]
fn connections_of_clients_are_cut_anywhere() {
    let mut rng = Rng::seeded("clients are cut");
    let site = Site::new("chaos-client-side", "");
    let armed = Arc::new(AtomicBool::new(true));
    let cut = cutting(site.addr(), &mut rng, &armed, 60);
    let (duplicates, unknown) = run(&site, cut.addr(), !site::without_relay(), &mut rng, |_| {});
    assert!(cut.cuts() > 10 && unknown > 100, "{} cuts, {unknown} unknown outcomes", cut.cuts());
    if !site::without_relay() {
        assert_eq!(in_doubt(&site), 0, "the broker was there all the time");
        assert_eq!(duplicates, 0, "unknown to the publishers, not to the relay");
    }
}

#[test]
fn connections_to_the_broker_are_cut_anywhere() {
    let mut rng = Rng::seeded("the upstream is cut");
    if site::without_relay() {
        println!("passed over: without the relay there is only the clients' side");
        return;
    }
    let rabbit = site::shared_rabbit();
    let armed = Arc::new(AtomicBool::new(false));
    let cut = cutting(rabbit.addr(), &mut rng, &armed, 60);
    let site = Site::behind(rabbit, cut, "chaos-broker-side", "");
    armed.store(true, Ordering::SeqCst);
    let (duplicates, _) = run(&site, site.addr(), true, &mut rng, |_| {});
    let (cuts, in_doubt) = (site.cut().cuts(), in_doubt(&site));
    assert!(cuts > 10, "{cuts} cuts");
    assert!(duplicates <= in_doubt, "{duplicates} duplicates, {in_doubt} counted as in doubt");
    println!("{cuts} cuts, {in_doubt} in doubt");
}
