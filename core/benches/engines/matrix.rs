//! Measures every engine × job × size × threads, by criterion. A time is the time of one operation of one thread; a
//! throughput is that of all threads together. At the end, prints what the second thread adds.
//!
//! * `fresh`: new ids into a window that is half full, until it is nine tenths full. Then it continues in another
//!   half-full window, whose filling is not timed.
//! * `duplicate`: random ids of the younger half of the remembered ids.
//! * `evict`: new ids into a full window in which nothing ever expires, so that each evicts an id.
//! * `expire`: new ids at a rate that just keeps the window full, so that an old id expires for each new one.
//!
//! Each thread takes 64 ids at a time. Before `duplicate` and `evict`, the window is shuffled by as many duplicates as
//! it has ids, so that neighbours in time are not neighbours in memory. Afterwards the bench checks that the
//! operations were of the kind that the job names.

use super::{fresh, ground, mix, window};
use criterion::{BenchmarkId, Criterion, Throughput};
use hapax_core::window::engine::EngineKind;
use hapax_core::window::event::NoListener;
use hapax_core::window::{LocalWindow, Mailbox, Ticket, Verdict, reserve_one};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed, Ordering::SeqCst};
use std::time::{Duration, Instant};

/// The sizes, unless `HAPAX_IDS` names others.
const SIZES: &str = "10000,1000000";
const THREADS: [u64; 2] = [1, 2];
/// Ids that a thread takes at a time.
const CHUNK: u64 = 64;
/// How far the clock moves per id. An engine measures time in whole milliseconds.
const STEP: Duration = Duration::from_millis(1);
/// The TTL in jobs whose clock stands still.
const TTL: Duration = Duration::from_secs(3600);
/// Shorter samples are the first of a warm-up, and do not count in the summary.
const SHORTEST: Duration = Duration::from_millis(2);

#[derive(Clone, Copy, PartialEq, Debug)]
enum Job {
    Fresh,
    Duplicate,
    Evict,
    Expire,
}

const JOBS: [(Job, &str); 4] =
    [(Job::Fresh, "fresh"), (Job::Duplicate, "duplicate"), (Job::Evict, "evict"), (Job::Expire, "expire")];

/// Measures everything and prints the results.
pub(super) fn run() {
    let sizes = std::env::var("HAPAX_IDS").unwrap_or_else(|_| SIZES.to_owned());
    let mut criterion = Criterion::default()
        .sample_size(10)
        .warm_up_time(Duration::from_millis(500))
        .measurement_time(Duration::from_secs(1))
        .configure_from_args();
    let mut all = Vec::new();
    for ids in sizes.split(',').map(|ids| ids.parse().expect("HAPAX_IDS: numbers, with commas between")) {
        for engine in EngineKind::ALL {
            for (job, name) in JOBS {
                all.extend(measure(&mut criterion, engine, ids, job, name));
            }
        }
    }
    summary(&all);
    criterion.final_summary();
}

/// Nanoseconds per operation, for each number of threads and each sample.
struct Samples {
    label: String,
    taken: [Vec<f64>; THREADS.len()],
}

impl Samples {
    /// Returns the median throughput of all threads together, in million operations per second.
    fn rate(&self, at: usize) -> Option<f64> {
        let mut taken = self.taken[at].clone();
        taken.sort_by(f64::total_cmp);
        taken.get(taken.len() / 2).map(|nanoseconds| 1e3 / nanoseconds)
    }
}

/// Measures one window with each number of threads. The window is only made if this measurement was selected.
fn measure(criterion: &mut Criterion, engine: EngineKind, ids: u64, job: Job, name: &str) -> Option<Samples> {
    let label = format!("{}/{name}/{ids}", engine.name());
    let mut group = criterion.benchmark_group(&label);
    group.throughput(Throughput::Elements(1));
    let mut taken = [const { Vec::new() }; THREADS.len()];
    let mut rig = None;
    for (at, threads) in THREADS.into_iter().enumerate() {
        group.bench_function(BenchmarkId::new("threads", threads), |bencher| {
            let rig = rig.get_or_insert_with(|| Rig::new(engine, ids, job));
            bencher.iter_custom(|count| {
                let took = rig.run(count, threads);
                if took >= SHORTEST {
                    taken[at].push(took.as_secs_f64() * 1e9 / count as f64);
                }
                took
            });
        });
    }
    group.finish();
    rig?.check();
    Some(Samples { label, taken })
}

#[expect(clippy::print_stdout, reason = "it is what the bench is for")]
fn summary(all: &[Samples]) {
    println!("{:<28} {:>10} {:>10} {:>6}", "million operations/s", "1 thread", "2 threads", "ratio");
    for samples in all {
        if let (Some(one), Some(two)) = (samples.rate(0), samples.rate(1)) {
            println!("{:<28} {one:>10.2} {two:>10.2} {:>6.2}", samples.label, two / one);
        }
    }
}

/// A window and the progress of its traffic.
struct Rig {
    engine: EngineKind,
    ids: u64,
    job: Job,
    window: Arc<LocalWindow<NoListener>>,
    ttl: Duration,
    epoch: Instant,
    next: AtomicU64,
    done: u64,
    /// operations whose verdict was not the one that the job expects
    other: AtomicU64,
}

impl Rig {
    fn new(engine: EngineKind, ids: u64, job: Job) -> Rig {
        let ttl = match job {
            // A little less than the capacity: shards do not fill evenly, and none of them must evict.
            Job::Expire => STEP * u32::try_from(ids / 20 * 19).expect("so many"),
            Job::Fresh | Job::Duplicate | Job::Evict => TTL,
        };
        let (next, other) = (AtomicU64::new(0), AtomicU64::new(0));
        let window = window(engine, ids, ttl);
        let mut rig = Rig { engine, ids, job, window, ttl, epoch: Instant::now(), next, done: 0, other };
        match job {
            Job::Fresh => rig.make_room(),
            Job::Expire => rig.fill(ids * 2),
            Job::Duplicate | Job::Evict => {
                rig.fill(ids);
                (0..ids).for_each(|n| drop(rig.ask(n, &Arc::default())));
            }
        }
        rig
    }

    fn fill(&mut self, count: u64) {
        let mailbox = Arc::default();
        (self.done..self.done + count).for_each(|n| {
            self.fresh(n, &mailbox);
        });
        self.done += count;
    }

    fn make_room(&mut self) {
        self.window = window(self.engine, self.ids, self.ttl);
        self.done = 0;
        self.fill(self.ids / 2);
    }

    /// Runs `count` operations in `threads` threads. Returns the time.
    fn run(&mut self, mut count: u64, threads: u64) -> Duration {
        let mut time = Duration::ZERO;
        while count > 0 {
            if self.room() == 0 {
                self.make_room();
            }
            let now = count.min(self.room());
            time += self.run_on(now, threads);
            self.done += now;
            count -= now;
        }
        time
    }

    /// Returns how many more operations the window can take before it is too full for its job.
    fn room(&self) -> u64 {
        match self.job {
            Job::Fresh => (self.ids / 10 * 9).saturating_sub(self.done),
            Job::Duplicate | Job::Evict | Job::Expire => u64::MAX,
        }
    }

    fn run_on(&self, count: u64, threads: u64) -> Duration {
        self.next.store(self.done, Relaxed);
        let end = self.done + count;
        if threads == 1 {
            let begin = Instant::now();
            self.work(end);
            return begin.elapsed();
        }
        let here = AtomicU64::new(0);
        let work = || {
            // Wait until all threads are here, so that the time does not include starting or waking one.
            here.fetch_add(1, SeqCst);
            while here.load(SeqCst) < threads {
                std::thread::yield_now();
            }
            let begin = Instant::now();
            self.work(end);
            (begin, Instant::now())
        };
        std::thread::scope(|scope| {
            let threads: Vec<_> = (0..threads).map(|_| scope.spawn(work)).collect();
            let (begins, ends): (Vec<_>, Vec<_>) =
                threads.into_iter().map(|thread| thread.join().expect("a thread")).unzip();
            ends.into_iter().max().expect("one") - begins.into_iter().min().expect("one")
        })
    }

    /// Runs one thread's part of the operations.
    fn work(&self, end: u64) {
        let (mailbox, mut other) = (Arc::default(), 0);
        loop {
            let first = self.next.fetch_add(CHUNK, Relaxed);
            if first >= end {
                break;
            }
            for n in first..end.min(first + CHUNK) {
                let as_it_should_be = match self.job {
                    Job::Duplicate => matches!(self.ask(n, &mailbox), Verdict::Duplicate(_)),
                    Job::Fresh | Job::Evict | Job::Expire => self.fresh(n, &mailbox),
                };
                other += u64::from(!as_it_should_be);
            }
        }
        self.other.fetch_add(other, Relaxed);
    }

    fn fresh(&self, n: u64, mailbox: &Arc<Mailbox>) -> bool {
        let now = match self.job {
            Job::Expire => self.epoch + STEP * u32::try_from(n).expect("49 days"),
            Job::Fresh | Job::Duplicate | Job::Evict => self.epoch,
        };
        fresh(&self.window, mailbox, now, self.ttl, n)
    }

    /// Reserves a random id of the younger half. All ids are still those of the filling.
    fn ask(&self, n: u64, mailbox: &Arc<Mailbox>) -> Verdict {
        let id = self.ids - 1 - mix(n) % (self.ids / 2);
        reserve_one(&self.window, ground::key(id), self.epoch, mailbox, Ticket(0))
    }

    /// Checks that the operations were of the kind that the job names.
    fn check(self) {
        let len = self.window.len() as u64;
        let share = len as f64 / self.ids as f64;
        let right = match self.job {
            Job::Fresh => len == self.done,
            Job::Duplicate | Job::Evict => share > 0.97,
            // If ids were evicted before they expire, the window would be full.
            Job::Expire => (0.94..0.97).contains(&share),
        };
        let other = self.other.into_inner();
        assert!(
            right && other <= self.done / 100,
            "{:?}: {other} are something else, {share} full",
            self.job
        );
    }
}
