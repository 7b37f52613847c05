//! Compares the what-if curve with the truth: the real engines run the same trace in full, at every capacity of the
//! curve.
//!
//! Traces are made from fixed seeds on a virtual clock. To see the table, run `cargo test -p hapax-core --test
//! pressure whatif -- --nocapture`.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::print_stdout,
    clippy::cast_possible_truncation,
    reason = "a failed step is a failed test, and what it saw is its output"
)]

use hapax_core::pressure::facts;
use hapax_core::pressure::whatif::{FACTORS, Sampler, WhatIf};
use hapax_core::window::engine::{EngineKind, Stamp};
use hapax_core::window::event::NoListener;
use hapax_core::window::{
    Event, Key, Limits, Listener, LocalWindow, Mailbox, Mode, Rules, Ticket, Verdict, Window, reserve_one,
};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::{Duration, Instant};

mod traces;

use traces::{Publish, Trace};

const TTL: Duration = Duration::from_secs(600);
/// The largest mean error, in percentage points.
const MEAN_ERROR: f64 = 2.0;

#[expect(clippy::disallowed_methods, reason = "one base instant; the tests count from there")]
fn base() -> Instant {
    Instant::now()
}

fn limits(capacity: usize) -> Limits {
    Limits { capacity, ttl: TTL, mode: Mode::Enforce, refresh_on_duplicate: false, waiters_per_id: 2 }
}

fn window(limits: Limits, engine: EngineKind, listener: Arc<dyn Listener>) -> Arc<LocalWindow> {
    let rules = Rules::named("whatif");
    LocalWindow::new(rules, limits, engine, listener)
}

/// A listener that feeds the curve as an accounting does.
#[derive(Debug, Default)]
struct Ear {
    sampler: Sampler,
    publishes: AtomicU64,
}

impl Listener for Ear {
    fn on(&self, event: &Event) {
        if let Event::Committed { .. } | Event::Duplicate { .. } = event {
            self.publishes.fetch_add(1, Relaxed);
        }
        self.sampler.on(event);
    }
}

impl Ear {
    fn tick(&self, window: &LocalWindow, now: Instant) {
        self.sampler.tick(window.limits(), now, self.publishes.load(Relaxed));
    }

    fn facts(&self) -> facts::WhatIf {
        self.sampler.facts(100.0, self.publishes.load(Relaxed))
    }
}

/// A window that a trace is published to.
struct Run {
    window: Arc<LocalWindow>,
    mailbox: Arc<Mailbox>,
}

impl Run {
    fn new(window: Arc<LocalWindow>) -> Run {
        Run { window, mailbox: Arc::default() }
    }

    /// Publishes a key. Returns true if it was a duplicate.
    fn publish(&self, key: u64, now: Instant) -> bool {
        match reserve_one(&self.window, key_of(key), now, &self.mailbox, Ticket(0)) {
            Verdict::Fresh(reservation) => {
                reservation.commit(now, self.window.ttl());
                false
            }
            Verdict::Duplicate(_) => true,
            other => panic!("{other:?}"),
        }
    }
}

/// Makes a key that looks like a digest: all of its bits look random.
fn key_of(id: u64) -> Key {
    let mut random = traces::Random(id);
    Key((u128::from(random.next()) << 64 | u128::from(random.next())) >> 32)
}

/// Returns the curve that a live window would show at the end of the trace, with a tick per second.
fn estimate(trace: &[Publish], limits: Limits, engine: EngineKind, base: Instant) -> (facts::WhatIf, usize) {
    let ear = Arc::new(Ear::default());
    let run = Run::new(window(limits, engine, ear.clone()));
    let mut ticked = Duration::ZERO;
    ear.tick(&run.window, base);
    for publish in trace {
        while ticked + Duration::from_secs(1) <= publish.at {
            ticked += Duration::from_secs(1);
            ear.tick(&run.window, base + ticked);
        }
        run.publish(publish.id, base + publish.at);
    }
    (ear.facts(), ear.sampler.bytes())
}

/// Returns the time from which on the curve counts: four whole epochs of half a TTL, and the present one.
fn counted_from(trace: &[Publish]) -> Duration {
    let end = trace.last().map_or(Duration::ZERO, |publish| publish.at);
    let epochs = u32::try_from(end.as_secs() / (TTL / 2).as_secs()).expect("a short trace");
    (TTL / 2) * epochs.saturating_sub(4)
}

/// Returns the share that a window of this capacity catches from that time on.
fn exact(trace: &[Publish], limits: Limits, engine: EngineKind, base: Instant, since: Duration) -> f64 {
    let run = Run::new(window(limits, engine, Arc::new(NoListener)));
    let (mut caught, mut all) = (0.0, 0.0);
    for publish in trace {
        let duplicate = run.publish(publish.id, base + publish.at);
        if publish.at >= since {
            all += 1.0;
            caught += f64::from(u8::from(duplicate));
        }
    }
    caught / all
}

fn exact_curve(trace: &[Publish], limits: Limits, engine: EngineKind, base: Instant) -> Vec<f64> {
    let since = counted_from(trace);
    std::thread::scope(|scope| {
        let run = |factor: f64| {
            #[expect(clippy::cast_possible_truncation, reason = "a small number")]
            let capacity = (limits.capacity as f64 * factor) as usize;
            exact(trace, Limits { capacity, ..limits }, engine, base, since)
        };
        let threads: Vec<_> = FACTORS
            .chunks(FACTORS.len() / 2)
            .map(|part| scope.spawn(move || part.iter().map(|factor| run(*factor)).collect::<Vec<f64>>()))
            .collect();
        threads.into_iter().flat_map(|thread| thread.join().expect("a run")).collect()
    })
}

/// Prints the curve and the truth. Returns the mean and the largest error in percentage points.
fn compare(trace: &Trace, limits: Limits, engine: EngineKind) -> (f64, f64) {
    let base = base();
    let publishes = (trace.publishes)(limits.capacity as u64);
    let (curve, bytes) = estimate(&publishes, limits, engine, base);
    let truth = exact_curve(&publishes, limits, engine, base);
    let told: Vec<f64> = curve.points.iter().map(|point| point.caught).collect();
    assert_eq!(told.len(), truth.len());
    let errors: Vec<f64> = told.iter().zip(&truth).map(|(a, b)| (a - b).abs() * 100.0).collect();
    let (mean, most) =
        (errors.iter().sum::<f64>() / errors.len() as f64, errors.iter().copied().fold(0.0, f64::max));
    let show =
        |values: &[f64]| values.iter().map(|value| format!("{:6.2}", value * 100.0)).collect::<String>();
    println!(
        "{:16} {} publishes, {} of them looked at (1 key in {:.0}), {} KiB",
        trace.name,
        publishes.len(),
        curve.sampled,
        1.0 / curve.sample_rate,
        bytes / 1024
    );
    println!(
        "      told {}\n      true {}   error: mean {mean:.2}, most {most:.2}",
        show(&told),
        show(&truth)
    );
    (mean, most)
}

#[test]
fn the_curve_is_within_two_points_of_the_truth() {
    let mut sum = 0.0;
    for trace in traces::ALL {
        let (mean, _) = compare(trace, limits(trace.capacity), EngineKind::default());
        assert!(mean < MEAN_ERROR, "{}: mean absolute error of {mean:.2} points", trace.name);
        sum += mean;
    }
    println!("mean of all traces: {:.2} points", sum / traces::ALL.len() as f64);
}

/// The other mode of a window: a duplicate renews its id.
#[test]
fn the_curve_knows_refresh_on_duplicate() {
    let trace = traces::ALL.iter().find(|trace| trace.name == "late retries").expect("a trace");
    let plain = limits(trace.capacity);
    let refreshed = Limits { refresh_on_duplicate: true, ..plain };
    let (mean, most) = compare(trace, refreshed, EngineKind::default());
    assert!(mean < MEAN_ERROR && most < 2.0 * MEAN_ERROR, "{mean}, {most}");
}

/// A window is resized twice while the trace runs. At the end, the curve must show what windows would have caught that
/// always had these sizes: the remembered keys and the counts are carried over.
#[test]
fn a_resize_keeps_the_curve() {
    for (name, capacities) in [("retries", [16_384, 8_192, 20_000]), ("uniform", [8_192, 20_000, 16_384])] {
        let trace = traces::ALL.iter().find(|trace| trace.name == name).expect("a trace");
        let publishes = (trace.publishes)(16_384);
        let (base, ear) = (base(), Arc::new(Ear::default()));
        let run = Run::new(window(limits(capacities[0]), EngineKind::default(), ear.clone()));
        ear.tick(&run.window, base);
        for (part, capacity) in publishes.chunks(publishes.len().div_ceil(3)).zip(capacities) {
            let now = base + part[0].at;
            let before = ear.facts();
            run.window.resize(capacity, now);
            ear.tick(&run.window, now);
            let after = ear.facts();
            assert!(after.sampled >= before.sampled / 3, "{} and then {}", before.sampled, after.sampled);
            for publish in part {
                run.publish(publish.id, base + publish.at);
                ear.tick(&run.window, base + publish.at);
            }
        }
        let truth = exact_curve(&publishes, limits(capacities[2]), EngineKind::default(), base);
        let told: Vec<f64> = ear.facts().points.iter().map(|point| point.caught).collect();
        let mean =
            told.iter().zip(&truth).map(|(a, b)| (a - b).abs() * 100.0).sum::<f64>() / truth.len() as f64;
        println!("{name}, resized: {mean:.2} points");
        assert!(mean < MEAN_ERROR, "{name}: {told:.3?} and not {truth:.3?}");
    }
}

/// A new TTL makes a new curve. The counts under the old TTL say nothing about it.
#[test]
fn a_new_ttl_begins_a_new_curve() {
    let (base, ear) = (base(), Arc::new(Ear::default()));
    let run = Run::new(window(limits(1000), EngineKind::default(), ear.clone()));
    ear.tick(&run.window, base);
    let publish = |id| (0..3).filter(|_| run.publish(id, base)).count();
    assert_eq!((0..500).map(publish).sum::<usize>(), 1000);
    let curve = ear.facts();
    assert_eq!(
        (curve.sample_rate, curve.sampled, curve.points.len()),
        (1.0, 1500, FACTORS.len()),
        "all of a small window"
    );
    assert_eq!(
        (curve.points[0].capacity, curve.points[9].capacity, curve.points[9].bytes),
        (250, 8000, 800_000)
    );
    assert!(curve.points.iter().all(|point| (point.caught - 2.0 / 3.0).abs() < 1e-6), "{curve:?}");
    run.window.set_ttl(TTL / 2);
    ear.tick(&run.window, base);
    assert_eq!((ear.facts().sampled, ear.facts().points), (0, Vec::new()));
}

/// However large the window is and whatever is published, the curve stays within its bound, and almost reaches it.
#[test]
fn its_memory_is_bounded() {
    let base = base();
    for capacity in [1, 1_000, 100_000, 1_000_000, 100_000_000] {
        let mut what_if = WhatIf::new(limits(capacity), base, 0);
        for id in 0..40_000 {
            what_if.on_publish(key_of(id), Stamp(id), None);
        }
        let (bytes, most) = (what_if.bytes(), WhatIf::bytes_at_most(capacity));
        println!("{capacity}: {bytes} of {most} bytes");
        assert!(bytes <= most && most <= 5 << 20, "{capacity}: {bytes} of {most} bytes");
        assert!(capacity == 1 || bytes * 2 > most, "{capacity}: {bytes} of {most} bytes");
    }
}
