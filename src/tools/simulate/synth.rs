//! A made-up workload, where there is no trace yet.
//!
//! New messages come at random (a Poisson process). Each publish, the first of an id as any other, is followed by one more
//! of the same id with the probability `duplicates`, after a delay from the distribution `delay`. In the long run that
//! share of all publishes are repeats, and all publishes together come at `rate`. A trace that is hardly longer than the
//! delays has fewer: its last repeats lie behind its end.

use super::trace::{Trace, TraceBuilder};
use crate::tools::text::{Share, parse_count, parse_duration};
use rand::{RngExt, SeedableRng};
use rand_chacha::ChaCha8Rng;
use rand_distr::{Distribution, Exp1, StandardNormal};
use std::cmp::Reverse;
use std::collections::BinaryHeap;
use std::time::Duration;

/// The parameters of a made-up workload.
#[derive(Clone, Copy, PartialEq, Debug)]
pub struct Synthetic {
    /// publishes per second, repeats included
    pub rate: f64,
    /// of the publishes, how many follow one of the same id
    pub duplicates: Share,
    /// how long after that one
    pub delay: Delay,
    /// what new messages take their ids from
    pub ids: Ids,
    /// publishes
    pub events: u64,
    /// the same one gives the same trace
    pub seed: u64,
}

impl Synthetic {
    /// All of it.
    pub fn trace(&self) -> Trace {
        let mut rng = ChaCha8Rng::seed_from_u64(self.seed);
        let Share(again) = self.duplicates;
        // Seconds between new messages; without any, there would be nothing to repeat.
        let pause = 1.0 / (self.rate * (1.0 - again)).max(f64::MIN_POSITIVE);
        let mut trace = TraceBuilder::new();
        let mut repeats: BinaryHeap<Reverse<(u64, u64)>> = BinaryHeap::new();
        let (mut next_new, mut count) = (0.0_f64, 0_u64);
        for _ in 0..self.events {
            let new_at = nanos(next_new);
            let (at, id) = match repeats.peek() {
                Some(Reverse((at, _))) if *at <= new_at => match repeats.pop() {
                    Some(Reverse(repeat)) => repeat,
                    None => break,
                },
                _ => {
                    next_new += rng.sample::<f64, _>(Exp1) * pause;
                    count += 1;
                    let id = match self.ids {
                        Ids::Endless => count,
                        Ids::Of(ids) => rng.random_range(0..ids),
                    };
                    (new_at, id)
                }
            };
            trace.push(at.into(), &id.to_le_bytes(), None);
            if rng.random_bool(again) {
                repeats.push(Reverse((at.saturating_add(nanos(self.delay.seconds(&mut rng))), id)));
            }
        }
        trace.build()
    }
}

#[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "a cast from f64 saturates")]
fn nanos(seconds: f64) -> u64 {
    (seconds * 1e9).round() as u64
}

/// The set that new messages take their ids from.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Ids {
    /// every new message has an id of its own
    Endless,
    /// a random one of this many ids, so that an id may come again without a retry
    Of(u64),
}

impl Ids {
    /// `endless`, or a number.
    pub fn parse(text: &str) -> Result<Ids, String> {
        match text {
            "endless" => Ok(Ids::Endless),
            _ => parse_count(text)
                .map(|count| Ids::Of(count as u64))
                .map_err(|fix| format!("{fix}, or \"endless\"")),
        }
    }
}

/// How long after a publish the next one of the same id comes.
#[derive(Clone, Copy, PartialEq, Debug)]
pub enum Delay {
    /// always so long
    Fixed(Duration),
    /// exponential, with this mean
    Exp(Duration),
    /// anything between these
    Uniform(Duration, Duration),
    /// log-normal: half are shorter than `median`; `sigma` is the deviation of the logarithm
    LogNormal {
        /// half are shorter
        median: Duration,
        /// 1 means that two thirds lie between a third and three times the median
        sigma: f64,
    },
}

impl Delay {
    /// `fixed:5s`, `exp:30s`, `uniform:1s..60s`, `lognormal:30s,1.2`.
    pub fn parse(text: &str) -> Result<Delay, String> {
        let fix =
            "write fixed:5s, exp:MEAN, uniform:1s..60s or lognormal:MEDIAN,SIGMA (as in lognormal:30s,1.2)";
        let wrong = |what: String| format!("{what}; {fix}");
        let (kind, rest) = text.split_once(':').ok_or_else(|| fix.to_owned())?;
        let duration = |text: &str| parse_duration(text).map_err(wrong);
        match kind {
            "fixed" => Ok(Delay::Fixed(duration(rest)?)),
            "exp" => Ok(Delay::Exp(duration(rest)?)),
            "uniform" => {
                let (from, to) = rest.split_once("..").ok_or_else(|| fix.to_owned())?;
                // A range may begin at a plain 0; any other duration needs its unit.
                let from = if from.trim() == "0" { Duration::ZERO } else { duration(from)? };
                match duration(to)? {
                    to if to >= from => Ok(Delay::Uniform(from, to)),
                    _ => Err(wrong("the second time is before the first".to_owned())),
                }
            }
            "lognormal" => {
                let (median, sigma) = rest.split_once(',').ok_or_else(|| fix.to_owned())?;
                match sigma.trim().parse::<f64>() {
                    Ok(sigma) if (0.0..=10.0).contains(&sigma) => {
                        Ok(Delay::LogNormal { median: duration(median)?, sigma })
                    }
                    _ => Err(wrong("sigma is a number from 0 to 10".to_owned())),
                }
            }
            other => Err(wrong(format!("{other:?} is no distribution"))),
        }
    }

    fn seconds(self, rng: &mut ChaCha8Rng) -> f64 {
        match self {
            Delay::Fixed(delay) => delay.as_secs_f64(),
            Delay::Exp(mean) => {
                let unit: f64 = Exp1.sample(rng);
                unit * mean.as_secs_f64()
            }
            Delay::Uniform(from, to) => {
                from.as_secs_f64() + rng.random::<f64>() * (to.as_secs_f64() - from.as_secs_f64())
            }
            Delay::LogNormal { median, sigma } => {
                let normal: f64 = StandardNormal.sample(rng);
                median.as_secs_f64() * (sigma * normal).exp()
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn distributions_are_read() {
        let second = Duration::from_secs(1);
        let good = [
            ("fixed:5s", Delay::Fixed(5 * second)),
            ("exp:1m 30s", Delay::Exp(90 * second)),
            ("uniform:1s..60s", Delay::Uniform(second, 60 * second)),
            ("uniform:0..1s", Delay::Uniform(Duration::ZERO, second)),
            ("lognormal:30s,1.2", Delay::LogNormal { median: 30 * second, sigma: 1.2 }),
        ];
        for (text, delay) in good {
            assert_eq!(Delay::parse(text), Ok(delay));
        }
        for text in
            ["5s", "exp", "uniform:2s..1s", "uniform:2s", "lognormal:1s", "lognormal:1s,-1", "pareto:1s"]
        {
            let error = Delay::parse(text).expect_err(text);
            assert!(error.contains("uniform:1s..60s"), "{error}");
        }
        assert_eq!((Ids::parse("endless"), Ids::parse("5k")), (Ok(Ids::Endless), Ok(Ids::Of(5_000))));
        assert!(Ids::parse("some").expect_err("wrong").contains("endless"));
    }
}
