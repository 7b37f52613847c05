//! Measures what an operation on a full window of 1,000,000 ids costs for every engine, and what the accounting adds
//! to it.
//!
//! * `fresh`: reserve and commit of a new id at a pressure of 0.86, so that an id expires for each new one.
//! * `churn`: the same at a pressure of 3, so that each new id evicts one before its TTL is over, and the ghost
//!   records it.
//! * `duplicate`: a verdict on an id that is remembered.
//!
//! `churn` also runs as in a session, [`READ`] ids at a time: together, and one by one.
//!
//! First, the same window is measured in turns with and without its accounting, and the ratio of the lower quartiles
//! is printed. The turns make sure that disturbances of the machine affect both alike. (Two windows can differ by a
//! third, only because of where their memory is.) Then criterion measures. `HAPAX_BENCH=churn:lru:on` (or `off`) only
//! runs a million operations, for `perf stat` or callgrind.

use criterion::Criterion;
#[path = "../tests/support/ground.rs"]
mod ground;

use ground::key;
use hapax_core::pressure::Accounting;
use hapax_core::window::engine::EngineKind;
use hapax_core::window::event::NoListener;
use hapax_core::window::{
    Ask, Claim, Event, Limits, Listener, LocalWindow, Mailbox, Mode, Origin, Reservations, Rules, Ticket,
    Verdict, Window, reserve_one,
};
use std::hint::black_box;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::time::{Duration, Instant};

/// Publishes that a session finds in one read.
const READ: u32 = 64;
const CAPACITY: usize = 1_000_000;
const TTL: Duration = Duration::from_secs(600);
/// Operations of one turn, and turns of each.
const TURN: u64 = 2_000;
const TURNS: usize = 801;

#[derive(Clone, Copy, PartialEq, Debug)]
enum Job {
    Fresh,
    Churn,
    Duplicate,
}

const JOBS: [(Job, &str); 3] = [(Job::Fresh, "fresh"), (Job::Churn, "churn"), (Job::Duplicate, "duplicate")];

impl Job {
    /// Between two new ids.
    fn step(self) -> Duration {
        Duration::from_micros(if self == Job::Fresh { 700 } else { 200 })
    }
}

/// A full window, and how far its traffic has come.
struct Rig<L: Listener> {
    window: Arc<LocalWindow<L>>,
    mailbox: Arc<Mailbox>,
    now: Instant,
    next: u64,
    asked: u64,
    job: Job,
}

impl<L: Listener> Rig<L> {
    fn new(engine: EngineKind, listener: Arc<L>, job: Job) -> Rig<L> {
        let rules = Rules::named("bench");
        let limits = Limits {
            capacity: CAPACITY,
            ttl: TTL,
            mode: Mode::Enforce,
            refresh_on_duplicate: false,
            waiters_per_id: 16,
        };
        let window = LocalWindow::new(rules, limits, engine, listener);
        let mut rig = Rig { window, mailbox: Arc::default(), now: now(), next: 0, asked: 0, job };
        // Filled, and churned for a TTL: the ghost holds what it will hold.
        (0..CAPACITY * 3).for_each(|_| rig.fresh());
        rig
    }

    fn fresh(&mut self) {
        self.next += 1;
        self.now += self.job.step();
        match reserve_one(&self.window, key(self.next), self.now, &self.mailbox, Ticket(self.next)) {
            Verdict::Fresh(reservation) => drop(reservation.commit(self.now, TTL)),
            other => drop(black_box(other)),
        }
    }

    /// One of the younger half, so that it is there whatever the engine's order.
    fn duplicate(&mut self) {
        self.asked += 1;
        let back = self.asked.wrapping_mul(0x9e37_79b9_7f4a_7c15) % (CAPACITY as u64 / 2);
        let key = key(self.next - back);
        drop(black_box(reserve_one(&self.window, key, self.now, &self.mailbox, Ticket(self.asked))));
    }

    /// Handles a read as a session does: reserves its ids together, and commits them when the upstream has acked them. If
    /// `together` is false, both happen one by one.
    fn read(&mut self, together: bool) {
        let asks: Vec<Ask> = (1..=u64::from(READ))
            .map(|n| Ask { claim: key(self.next + n).into(), ticket: Ticket(0) })
            .collect();
        self.next += u64::from(READ);
        self.now += self.job.step() * READ;
        let mut verdicts: Vec<Option<Verdict>> = asks.iter().map(|_| None).collect();
        if together {
            self.window.clone().reserve(&asks, self.now, &self.mailbox, &mut verdicts);
        } else {
            for (ask, verdict) in asks.iter().zip(&mut verdicts) {
                *verdict = Some(reserve_one(&self.window, ask.claim, self.now, &self.mailbox, ask.ticket));
            }
        }
        let mut stored = Reservations::default();
        for verdict in verdicts {
            if let Some(Verdict::Fresh(reservation)) = verdict {
                if together {
                    stored.push(reservation, self.now, TTL);
                } else {
                    reservation.commit(self.now, TTL);
                }
            }
        }
        stored.commit(self.now);
    }

    /// Returns nanoseconds per operation, measured by whole reads.
    fn reads(&mut self, together: bool) -> f64 {
        let begin = now();
        (0..TURN / u64::from(READ)).for_each(|_| self.read(together));
        begin.elapsed().as_secs_f64() * 1e9 / (TURN / u64::from(READ) * u64::from(READ)) as f64
    }

    fn run(&mut self, count: u64) {
        match self.job {
            Job::Fresh | Job::Churn => (0..count).for_each(|_| self.fresh()),
            Job::Duplicate => (0..count).for_each(|_| self.duplicate()),
        }
    }

    /// Nanoseconds of one operation.
    fn turn(&mut self) -> f64 {
        let begin = now();
        self.run(TURN);
        begin.elapsed().as_secs_f64() * 1e9 / TURN as f64
    }
}

#[expect(clippy::disallowed_methods, reason = "a benchmark reads the clock")]
fn now() -> Instant {
    Instant::now()
}

/// Listens, or does not.
#[derive(Debug, Default)]
struct Switch {
    accounting: Accounting,
    is_off: AtomicBool,
}

impl Listener for Switch {
    fn on(&self, event: &Event) {
        if !self.is_off.load(Relaxed) {
            self.accounting.on(event);
        }
    }

    fn limits(&self, limits: &Limits) {
        self.accounting.limits(limits);
    }

    fn wants_origin(&self, claim: Claim) -> bool {
        self.accounting.wants_origin(claim)
    }

    fn origin(&self, origin: &Origin<'_>) {
        self.accounting.origin(origin);
    }
}

#[expect(clippy::print_stdout, reason = "it is what the bench is for")]
fn ratios() {
    for engine in EngineKind::ALL.into_iter().rev() {
        for (job, name) in JOBS {
            let switch = Arc::new(Switch::default());
            let mut rig = Rig::new(engine, switch.clone(), job);
            let (mut deaf, mut counted) = (Vec::new(), Vec::new());
            for _ in 0..TURNS {
                switch.is_off.store(true, Relaxed);
                deaf.push(rig.turn());
                switch.is_off.store(false, Relaxed);
                counted.push(rig.turn());
            }
            let (deaf, counted) = (quartile(deaf), quartile(counted));
            let more = (counted / deaf - 1.0) * 100.0;
            let engine = engine.name();
            println!(
                "{name:>10} {engine:>8}: {deaf:6.1} ns alone, {counted:6.1} ns with accounting: {more:+.1} %"
            );
        }
    }
}

/// A quarter of the turns were quicker: those in which nobody else had the processor.
fn quartile(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    values.get(values.len() / 4).copied().unwrap_or_default()
}

#[expect(clippy::print_stdout, reason = "it is what the bench is for")]
fn together() {
    for engine in EngineKind::ALL.into_iter().rev() {
        let mut rig = Rig::new(engine, Arc::new(Accounting::new()), Job::Churn);
        let (mut cold, mut warm) = (Vec::new(), Vec::new());
        for _ in 0..TURNS {
            cold.push(rig.reads(false));
            warm.push(rig.reads(true));
        }
        let (cold, warm, engine) = (quartile(cold), quartile(warm), engine.name());
        let less = (warm / cold - 1.0) * 100.0;
        println!("{READ:>7} ids {engine:>8}: {cold:6.1} ns, {warm:6.1} ns together: {less:+.1} %");
    }
}

fn criterion(criterion: &mut Criterion) {
    for (job, name) in JOBS {
        let mut group = criterion.benchmark_group(name);
        for engine in EngineKind::ALL {
            let mut rig = Rig::new(engine, Arc::new(NoListener), job);
            group.bench_function(format!("{}/alone", engine.name()), |bencher| bencher.iter(|| rig.run(1)));
            let mut rig = Rig::new(engine, Arc::new(Accounting::new()), job);
            group.bench_function(format!("{}/accounting", engine.name()), |bencher| {
                bencher.iter(|| rig.run(1));
            });
        }
        group.finish();
    }
}

/// `job:engine:on` or `off`.
fn count_only(what: &str) -> Option<()> {
    let mut parts = what.split(':');
    let (job, engine, on) = (parts.next()?, parts.next()?, parts.next()? == "on");
    let (job, _) = JOBS.into_iter().find(|(_, name)| *name == job)?;
    let engine = EngineKind::ALL.into_iter().find(|kind| kind.name() == engine)?;
    if on {
        Rig::new(engine, Arc::new(Accounting::new()), job).run(1_000_000);
    } else {
        Rig::new(engine, Arc::new(NoListener), job).run(1_000_000);
    }
    Some(())
}

fn main() {
    if let Ok(what) = std::env::var("HAPAX_BENCH") {
        assert!(count_only(&what).is_some(), "HAPAX_BENCH={what}: write it as churn:lru:on");
        return;
    }
    together();
    ratios();
    let mut all = Criterion::default().configure_from_args();
    criterion(&mut all);
    all.final_summary();
}
