//! Relays that are killed with signal 9 under load, again and again. After each restart every id of the round is published again, and at
//! the end every id of all rounds.
//!
//! A round is short and mostly waits: for a process to start, for a lease to end. Several relays are killed at a time, each in a lane of
//! its own with a vhost of its own.

use super::load::{Published, publish};
use super::raw::Raw;
use super::relay::Relay;
use super::retry::{self, Rng};
use super::site::shared_rabbit;
use super::wait;
use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};
use std::thread;
use std::time::{Duration, Instant};

/// The longest time between the acks that a round waits for and the kill, in microseconds.
const LATER: u64 = 8_000;

/// How relays are killed.
#[derive(Clone, Copy)]
pub struct Plan {
    /// how often, altogether
    pub kills: usize,
    /// A relay is killed after fewer acks than this.
    pub acks: u64,
    /// a relay that shares the store and lives: retries go there first
    pub other: Option<SocketAddr>,
}

/// A relay, and the vhost that its publishers use. Messages go to the queue `q`.
pub struct Lane {
    pub vhost: String,
    pub relay: Relay,
}

/// The state of all ids after the last kill.
#[derive(Debug, Default)]
pub struct Outcome {
    kills: usize,
    acked: usize,
    /// acked before the kill and in the queue more than once, and how long before the kill they were acked
    doubled: Vec<(String, Duration)>,
    /// their outcome was unknown at the kill, and they are in the queue more than twice
    too_often: Vec<String>,
    lost: Vec<String>,
}

impl Outcome {
    /// No id whose ack a client had is in the queue twice: the window of each relay remembered it over all kills.
    pub fn assert_nothing_is_forgotten(&self) {
        assert_eq!((&self.doubled[..], &self.too_often[..], &self.lost[..]), (&[][..], &[][..], &[][..]));
        assert!(self.acked > 50 * self.kills, "{} acks in {} rounds", self.acked, self.kills);
    }

    /// No id was forgotten that was acked earlier than this before the kill. Nothing is lost.
    pub fn assert_forgotten_within(&self, delay: Duration) {
        assert_eq!(self.lost, Vec::<String>::new());
        let early: Vec<_> = self.doubled.iter().filter(|(_, before)| *before > delay).collect();
        assert!(early.is_empty(), "acked long before the kill: {early:?}");
        assert!(self.acked > 50 * self.kills, "{} acks in {} rounds", self.acked, self.kills);
    }
}

/// One round: the ids, and when the relay was killed.
struct Round {
    published: Published,
    killed: Instant,
}

/// Kills the relays of these lanes.
pub fn killed_again_and_again(lanes: Vec<Lane>, plan: Plan) -> Outcome {
    let kills = plan.kills;
    let (mut outcome, next, start) =
        (Outcome { kills, ..Outcome::default() }, AtomicUsize::new(0), Instant::now());
    thread::scope(|scope| {
        let next = &next;
        let running: Vec<_> = (0..)
            .zip(lanes)
            .map(|(n, lane)| scope.spawn(move || lane.run(Rng(0x5eed + n), next, plan)))
            .collect();
        for lane in running {
            outcome.add(lane.join().unwrap());
        }
    });
    let oldest = outcome.doubled.iter().map(|(_, before)| *before).max().unwrap_or_default();
    println!(
        "{kills} kills in {:.1?}: {} ids acked before them, {} of these passed again (acked {oldest:.1?} before the kill at most), {} lost",
        start.elapsed(),
        outcome.acked,
        outcome.doubled.len(),
        outcome.lost.len()
    );
    outcome
}

impl Outcome {
    fn add(&mut self, (rounds, queue): (Vec<Round>, BTreeMap<String, usize>)) {
        let copies = |id: &String| queue.get(id).copied().unwrap_or_default();
        for Round { published, killed } in rounds {
            self.acked += published.acked.len();
            let (acked, unknown) = (&published.acked, &published.unknown);
            self.lost.extend(acked.keys().chain(unknown).filter(|id| copies(id) == 0).cloned());
            self.too_often.extend(unknown.iter().filter(|id| copies(id) > 2).cloned());
            let twice = acked.iter().filter(|(id, _)| copies(id) > 1);
            self.doubled.extend(twice.map(|(id, at)| (id.clone(), killed.saturating_duration_since(*at))));
        }
    }
}

impl Lane {
    /// Makes the vhost and the queue. `config` is that of the relay.
    pub fn new(vhost: String, config: &str) -> Lane {
        let rabbit = shared_rabbit();
        rabbit.add_vhost(&vhost).unwrap();
        let lane = Lane { vhost, relay: Relay::start(rabbit.addr(), config) };
        lane.direct().declare(1, "q", &[]);
        lane
    }

    fn direct(&self) -> Raw {
        let mut direct = Raw::connect(shared_rabbit().addr(), &self.vhost);
        direct.open_channel(1);
        direct
    }

    /// Takes part in the kills until there were enough. Returns the rounds, and how often each id is in the queue at the end.
    fn run(mut self, mut dice: Rng, next: &AtomicUsize, plan: Plan) -> (Vec<Round>, BTreeMap<String, usize>) {
        let (mut rounds, mut queue, mut direct) = (Vec::<Round>::new(), BTreeMap::new(), self.direct());
        loop {
            let kill = next.fetch_add(1, Relaxed);
            if kill >= plan.kills {
                break;
            }
            let round = self.killed_once(kill, plan.acks, &mut dice);
            let ids = || round.published.acked.keys().chain(&round.published.unknown);
            if let Some(other) = plan.other {
                self.all_acked(other, ids());
            }
            self.relay.restart();
            self.all_acked(self.relay.addr(), ids());
            rounds.push(round);
            // The broker need not keep the messages of all rounds in its memory.
            add(&mut queue, retry::held(&mut direct, "q"));
        }
        self.all_acked(self.relay.addr(), rounds.iter().flat_map(|round| round.published.acked.keys()));
        add(&mut queue, retry::held(&mut direct, "q"));
        (rounds, queue)
    }

    fn killed_once(&mut self, kill: usize, acks: u64, dice: &mut Rng) -> Round {
        let (addr, vhost, count) = (self.relay.addr(), self.vhost.clone(), AtomicUsize::new(0));
        let wanted = usize::try_from(dice.below(acks)).unwrap();
        let later = Duration::from_micros(dice.below(LATER));
        thread::scope(|scope| {
            let ids = (0..).map(|n| format!("{kill}-{n}"));
            let load = scope.spawn(|| publish((addr, &vhost, "q"), ids, &count));
            wait::until("acks", 3 * wait::PATIENCE, || {
                assert!(!load.is_finished(), "its connection ended before the kill");
                (count.load(Relaxed) >= wanted).then_some(())
            });
            thread::park_timeout(later);
            let killed = Instant::now();
            self.relay.kill9();
            Round { published: load.join().unwrap(), killed }
        })
    }

    /// Publishes these again: each is acked.
    fn all_acked<'a>(&self, relay: SocketAddr, ids: impl Iterator<Item = &'a String>) {
        let ids: Vec<String> = ids.cloned().collect();
        let retried = publish((relay, &self.vhost, "q"), ids, &AtomicUsize::new(0));
        assert!(retried.unknown.is_empty(), "not every retry is acked");
    }
}

fn add(queue: &mut BTreeMap<String, usize>, held: BTreeMap<String, usize>) {
    for (id, copies) in held {
        *queue.entry(id).or_default() += copies;
    }
}
