//! Runs the simulation for one seed, or for enough seeds to reach a number of steps. A failed run is repeated with its
//! log on.

use super::plan::Plan;
use super::truth::Violation;
use super::world::{Cast, Middle, World};
use std::collections::BTreeMap;
use std::panic::{AssertUnwindSafe, catch_unwind};

/// Steps of a run before it is healed.
pub const STEPS: u64 = 4_000;

/// The totals of one or several runs.
#[derive(Debug, Default)]
pub struct Report {
    /// events handled, those of the healing included
    pub steps: u64,
    /// runs
    pub runs: u64,
    /// how often what happened
    pub counts: BTreeMap<&'static str, u64>,
}

impl Report {
    /// How often it happened.
    pub fn count(&self, what: &str) -> u64 {
        self.counts.get(what).copied().unwrap_or_default()
    }
}

/// Why a run failed, and when.
#[derive(Debug)]
struct Failure {
    step: u64,
    why: String,
    log: Vec<String>,
}

fn attempt(seed: u64, steps: u64, middle: Middle, log: usize, report: &mut Report) -> Result<u64, Failure> {
    let mut world = World::new(seed, middle, Cast::All, log);
    if Plan::of(seed).hostile > 0 {
        expect(&mut world, (seed, middle), (steps, log), report)?;
    }
    let outcome = catch_unwind(AssertUnwindSafe(|| world.run(steps)));
    report.runs += 1;
    finish(world, outcome, "", report)
}

/// Runs the honest clients without the hostile ones, and those without the honest ones: `world` is held to what each side is
/// written then.
fn expect(
    world: &mut World,
    (seed, middle): (u64, Middle),
    (steps, log): (u64, usize),
    report: &mut Report,
) -> Result<(), Failure> {
    let mut honest = World::new(seed, middle, Cast::Honest, log);
    let outcome = catch_unwind(AssertUnwindSafe(|| honest.run(steps)));
    let (healed, end) = (honest.healed, honest.ctx.now);
    let lines = std::mem::take(&mut honest.ctx.transcript.honest.lines);
    finish(honest, outcome, " (without the hostile clients)", report)?;
    // (With hostile clients the run may last longer.)
    world.ctx.transcript.honest.expect(lines, Some(end));
    let Some(healed) = healed else { return Ok(()) };
    let mut hostile = World::new(seed, middle, Cast::Hostile, log);
    let outcome = catch_unwind(AssertUnwindSafe(|| hostile.run_until(healed).map(|()| 0)));
    let lines = std::mem::take(&mut hostile.ctx.transcript.hostile.lines);
    finish(hostile, outcome, " (without the honest clients)", report)?;
    world.ctx.transcript.hostile.expect(lines, Some(healed));
    Ok(())
}

fn finish(
    world: World,
    outcome: std::thread::Result<Result<u64, Violation>>,
    which: &str,
    report: &mut Report,
) -> Result<u64, Failure> {
    report.steps += world.steps;
    for (what, count) in &world.ctx.truth.counts {
        *report.counts.entry(what).or_default() += count;
    }
    let why = match outcome {
        Ok(Ok(digest)) => return Ok(digest),
        Ok(Err(Violation { invariant, text })) => format!("invariant ({invariant}){which}: {text}"),
        Err(panic) => {
            let text = panic.downcast_ref::<String>().map(String::as_str);
            format!("panic{which}: {}", text.or(panic.downcast_ref::<&str>().copied()).unwrap_or("?"))
        }
    };
    Err(Failure { step: world.steps, why, log: world.ctx.log.lines.into() })
}

/// One run. Where it fails it is run again with its log on, and the test fails with the seed, the step and the log.
pub fn run(seed: u64, steps: u64, middle: Middle, report: &mut Report) -> u64 {
    attempt(seed, steps, middle, 0, report).unwrap_or_else(|first| {
        let kept = std::env::var("HAPAX_SIM_LOG").ok().and_then(|lines| lines.parse().ok()).unwrap_or(40);
        let again = attempt(seed, steps, middle, kept, &mut Report::default());
        let log = match again {
            Err(failure) if (failure.step, &failure.why) == (first.step, &first.why) => {
                failure.log.join("\n")
            }
            other => format!("(it does not replay: {other:?})"),
        };
        panic!(
            "\nlast events:\n{log}\n\nseed {seed} ({middle:?}), step {} ({} in all): {}\n\
             replay: HAPAX_SIM_SEED={seed} cargo test --test simulation\n",
            first.step, report.steps, first.why
        );
    })
}

/// Runs the seeds from `base` on until they have made `total` steps.
pub fn run_many(base: u64, total: u64, middle: Middle) -> Report {
    let mut report = Report::default();
    let mut seed = base;
    while report.steps < total {
        run(seed, STEPS, middle, &mut report);
        seed += 1;
    }
    report
}

/// Runs them all and says in a line why each failed one did: for the day when many do.
pub fn survey(base: u64, runs: u64, middle: Middle) -> Vec<String> {
    let told = |seed: u64| {
        let failure = attempt(seed, STEPS, middle, 0, &mut Report::default()).err()?;
        Some(format!("seed {seed} step {}: {}", failure.step, failure.why))
    };
    (base..base + runs).filter_map(told).collect()
}
