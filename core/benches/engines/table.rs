//! Prints a table with bytes and nanoseconds for each engine and size.
//!
//! Each engine and size runs in a process of its own, so that its resident memory shows the bytes per id. This, and
//! the longest single operation, are why this is not a criterion bench. *Fill*: fresh ids (reserve and commit) into an
//! empty window. *Hit*: duplicates of random remembered ids. *Churn*: fresh ids into the full window, each of which
//! evicts one. By then, the order of the remembered ids is shuffled. *Told*: the same operations as a session does
//! them, [`READ`] ids at a time, asked for together. All values are medians of [`ROUNDS`].
//!
//! All times are processor times. Other work of the machine hardly counts, but page faults and spinning for a lock do.
//! The longest operation is that of a fill and a churn together. The value beside it is the longest of as many
//! operations that do nothing; it shows what the machine adds.

#![expect(clippy::print_stdout, reason = "it is what the bench is for")]

use super::ground::key;
use super::{fresh, mix, window};
use hapax_core::window::engine::EngineKind;
use hapax_core::window::event::NoListener;
use hapax_core::window::{
    Ask, Key, LocalWindow, Mailbox, Reservations, Ticket, Verdict, Window, reserve_one,
};
use rustix::time::{ClockId, clock_gettime};
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::time::{Duration, Instant};

const TTL: Duration = Duration::from_secs(3600);
const ROUNDS: usize = 5;
/// Operations per round.
const OPS: u64 = 400_000;
/// Ids per read.
const READ: usize = 64;
/// With more ids, moka would take minutes and gigabytes.
const MOST_OF_MOKA: u64 = 1_000_000;

/// Prints the table for these sizes.
pub(super) fn print(sizes: &[u64]) {
    println!(
        "| engine | ids | bytes per id: resident, as counted | ns, 1 thread: fill / hit / churn | told: hit / churn | ns, 2 threads: hit / churn | longest |"
    );
    println!("|---|---|---|---|---|---|---|");
    let mut all = Vec::new();
    for &ids in sizes {
        for engine in EngineKind::ALL {
            if engine == EngineKind::Moka && ids > MOST_OF_MOKA {
                continue;
            }
            let row = measured(engine, ids);
            println!("{}", row.line());
            all.push(row);
        }
    }
    for engine in EngineKind::ALL {
        let mut rows: Vec<_> = all.iter().filter(|row| row.engine == engine).collect();
        rows.sort_by_key(|row| row.ids);
        if let [least, .., most] = &rows[..] {
            println!("{}", most.ratios(least));
        }
    }
}

/// Measures one engine and size in a process of its own.
fn measured(engine: EngineKind, ids: u64) -> Row {
    let this = std::env::current_exe().expect("this program");
    let mut child = Command::new(this);
    child.args(["--child", engine.name(), &ids.to_string()]).stderr(Stdio::inherit());
    let output = child.output().expect("a process");
    assert!(output.status.success(), "{} with {ids} ids failed", engine.name());
    let text = String::from_utf8(output.stdout).expect("text");
    let figures: Vec<u64> = text.split_whitespace().map(|figure| figure.parse().expect("a number")).collect();
    Row { engine, ids, figures: figures.try_into().expect("all figures") }
}

/// The values that a process prints: bytes resident, bytes as counted, fill, hit, churn, hit and churn with hints, hit
/// and churn of two threads, the longest operation, and the longest of no operation.
struct Row {
    engine: EngineKind,
    ids: u64,
    figures: [u64; 11],
}

impl Row {
    fn line(&self) -> String {
        let [resident, counted, fill, hit, churn, hit_told, churn_told, hit_2, churn_2, longest, nothing] =
            self.figures;
        format!(
            "| `{}` | {} | {resident}, {counted} | {fill} / {hit} / {churn} | {hit_told} / {churn_told} | {hit_2} / {churn_2} | {longest}, {nothing} µs |",
            self.engine.name(),
            self.ids,
        )
    }

    /// Returns the ratio of the times here to those of `least`, for one thread.
    fn ratios(&self, least: &Row) -> String {
        let ratio = |at: usize| self.figures[at] as f64 / least.figures[at] as f64;
        format!(
            "`{}`, {} ids to {}: fill {:.1}, hit {:.1}, churn {:.1}; told: hit {:.1}, churn {:.1}",
            self.engine.name(),
            self.ids,
            least.ids,
            ratio(2),
            ratio(3),
            ratio(4),
            ratio(5),
            ratio(6),
        )
    }
}

/// Runs the measurement in the child process.
pub(super) fn child(engine: &str, ids: &str) {
    let engine = EngineKind::ALL.into_iter().find(|kind| kind.name() == engine).expect("an engine");
    let ids = ids.parse().expect("a number of ids");
    let empty = resident();
    let run = Run::new(engine, ids);
    let fresh = |n| {
        fresh(&run.window, &run.mailbox, run.now, TTL, n);
    };
    let longest = longest_of(0..ids, fresh);
    let (bytes, counted) = (resident().saturating_sub(empty), run.window.bytes());
    let fill = run.fill();
    let hit = median(|n| run.threads(1, n, Run::hit));
    let hit_told = median(|n| run.threads(1, ROUNDS as u64 + n, Run::hit_told));
    let hit_2 = median(|n| run.threads(2, n, Run::hit));
    let churn = median(|n| run.threads(1, n, Run::churn));
    let churn_told = median(|n| run.threads(1, ROUNDS as u64 + n, Run::churn_told));
    let churn_2 = median(|n| run.threads(2, 2 * ROUNDS as u64 + n, Run::churn));
    let longest = longest.max(longest_of(50 * OPS + ids..51 * OPS + ids, fresh));
    let nothing = longest_of(0..OPS + ids, |n| {
        std::hint::black_box(n);
    });
    let len = run.window.len();
    println!(
        "{} {} {fill} {hit} {churn} {hit_told} {churn_told} {hit_2} {churn_2} {} {}",
        bytes / len,
        counted / len,
        longest.as_micros(),
        nothing.as_micros(),
    );
}

/// Returns the duration of the longest of these operations.
fn longest_of(ids: std::ops::Range<u64>, work: impl Fn(u64)) -> Duration {
    let mut longest = Duration::ZERO;
    let mut before = processor_time();
    for n in ids {
        work(n);
        let after = processor_time();
        longest = longest.max(after - before);
        before = after;
    }
    longest
}

struct Run {
    engine: EngineKind,
    ids: u64,
    window: Arc<LocalWindow<NoListener>>,
    mailbox: Arc<Mailbox>,
    now: Instant,
}

impl Run {
    fn new(engine: EngineKind, ids: u64) -> Run {
        let window = window(engine, ids, TTL);
        Run { engine, ids, window, mailbox: Arc::default(), now: Instant::now() }
    }

    /// Fills as many windows as a round needs.
    fn fill(&self) -> u64 {
        let windows = (OPS / self.ids).max(1);
        let mut time = Duration::ZERO;
        for _ in 0..windows {
            let window = window(self.engine, self.ids, TTL);
            let start = processor_time();
            (0..self.ids).for_each(|n| {
                fresh(&window, &self.mailbox, self.now, TTL, n);
            });
            time += processor_time() - start;
        }
        per(time, windows * self.ids)
    }

    /// Returns nanoseconds per operation of one thread, while `threads` of them run.
    fn threads(&self, threads: u64, round: u64, work: fn(&Run, u64, u64)) -> u64 {
        let timed = |thread| {
            let start = processor_time();
            work(self, round, thread);
            processor_time() - start
        };
        let time: Duration = std::thread::scope(|scope| {
            let threads: Vec<_> = (0..threads).map(|thread| scope.spawn(move || timed(thread))).collect();
            threads.into_iter().map(|thread| thread.join().expect("a thread")).sum()
        });
        per(time, threads * OPS)
    }

    /// Runs the hits. It comes before any churn, so the remembered ids are the first ones.
    fn hit(&self, round: u64, thread: u64) {
        self.ids_to_hit(round, thread).for_each(|key| drop(self.reserve(key)));
    }

    fn hit_told(&self, round: u64, thread: u64) {
        let mut keys = self.ids_to_hit(round, thread);
        loop {
            let read: Vec<Key> = keys.by_ref().take(READ).collect();
            if read.is_empty() {
                return;
            }
            drop(self.reserve_all(&read));
        }
    }

    /// Returns the keys to hit. At most one in a hundred was evicted from its shard; such a key is fresh, and is
    /// forgotten again.
    fn ids_to_hit(&self, round: u64, thread: u64) -> impl Iterator<Item = Key> {
        let mut seed = round * 2 + thread;
        (0..OPS).map(move |_| {
            seed = mix(seed);
            key(seed % self.ids)
        })
    }

    fn churn(&self, round: u64, thread: u64) {
        let mailbox = Arc::default();
        self.ids_to_churn(round, thread).for_each(|n| {
            fresh(&self.window, &mailbox, self.now, TTL, n);
        });
    }

    fn churn_told(&self, round: u64, thread: u64) {
        let mut ids = self.ids_to_churn(round, thread);
        loop {
            let read: Vec<Key> = ids.by_ref().take(READ).map(key).collect();
            if read.is_empty() {
                return;
            }
            let mut stored = Reservations::default();
            for verdict in self.reserve_all(&read) {
                if let Some(Verdict::Fresh(reservation)) = verdict {
                    stored.push(reservation, self.now, TTL);
                }
            }
            stored.commit(self.now);
        }
    }

    fn ids_to_churn(&self, round: u64, thread: u64) -> std::ops::Range<u64> {
        let first = self.ids + (round * 2 + thread) * OPS;
        first..first + OPS
    }

    /// As a session asks for a whole read.
    fn reserve_all(&self, read: &[Key]) -> Vec<Option<Verdict>> {
        let asks: Vec<Ask> = read.iter().map(|key| Ask { claim: (*key).into(), ticket: Ticket(0) }).collect();
        let mut verdicts: Vec<Option<Verdict>> = asks.iter().map(|_| None).collect();
        Arc::clone(&self.window).reserve(&asks, self.now, &self.mailbox, &mut verdicts);
        verdicts
    }

    fn reserve(&self, key: Key) -> Verdict {
        reserve_one(&self.window, key, self.now, &self.mailbox, Ticket(0))
    }
}

fn median(measure: impl Fn(u64) -> u64) -> u64 {
    let mut all: Vec<u64> = (0..ROUNDS as u64).map(measure).collect();
    all.sort_unstable();
    all[ROUNDS / 2]
}

fn per(time: Duration, ops: u64) -> u64 {
    u64::try_from(time.as_nanos()).unwrap_or(u64::MAX) / ops
}

fn processor_time() -> Duration {
    let time = clock_gettime(ClockId::ThreadCPUTime);
    Duration::new(u64::try_from(time.tv_sec).unwrap_or(0), u32::try_from(time.tv_nsec).unwrap_or(0))
}

/// Returns the bytes of this process that are in RAM.
fn resident() -> usize {
    let statm = std::fs::read_to_string("/proc/self/statm").expect("/proc/self/statm");
    let pages: usize = statm.split_whitespace().nth(1).and_then(|pages| pages.parse().ok()).expect("pages");
    pages * 4096
}
