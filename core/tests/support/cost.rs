//! Checks that work is linear: with 16 times as many items, each item must cost about as much as before.
//!
//! It measures the time for which this thread was running, so the load of the machine does not matter. The shortest of
//! several runs counts.

use std::hint::black_box;
use std::time::Duration;

/// How many times as many.
const TIMES: usize = 16;
/// How much more an item may cost then. Sorted sets and caches that are too small make it more than 1; quadratic work makes
/// it up to 16.
const MORE: f64 = 4.0;
/// Runs until it is given up.
const RUNS: usize = 6;

/// Fails if the work for `16 * n` items costs more than four times as much for each as that for `n`. `prepare` is not measured;
/// what `work` gives back is dropped later.
pub(crate) fn assert_linear<T, D>(
    what: &str,
    n: usize,
    mut prepare: impl FnMut(usize) -> T,
    mut work: impl FnMut(T) -> D,
) {
    let mut measure = |n: usize| {
        let prepared = prepare(n);
        let before = running();
        let done = work(black_box(prepared));
        let after = running();
        drop(done);
        after.saturating_sub(before).as_secs_f64() / n as f64
    };
    let (mut few, mut many) = (f64::INFINITY, f64::INFINITY);
    for _ in 0..RUNS {
        few = few.min(measure(n));
        many = many.min(measure(TIMES * n));
        if many <= MORE * few {
            return;
        }
    }
    panic!("{what}: an item costs {:.1} µs of {n}, and {:.1} µs of {}", few * 1e6, many * 1e6, TIMES * n);
}

/// How long this thread was running until now; where the system does not say, how late it is.
fn running() -> Duration {
    // The kernel counts up to the last switch.
    std::thread::yield_now();
    let stat = std::fs::read_to_string("/proc/thread-self/schedstat").ok();
    let nanos = stat.and_then(|stat| stat.split_whitespace().next()?.parse().ok());
    nanos.map_or_else(late, Duration::from_nanos)
}

#[expect(clippy::disallowed_methods, reason = "time is what is measured")]
fn late() -> Duration {
    use std::sync::OnceLock;
    use std::time::Instant;
    static START: OnceLock<Instant> = OnceLock::new();
    START.get_or_init(Instant::now).elapsed()
}
