//! Publishes without an id: what share they are, and where else an id may be.
//!
//! Publishers choose the names of headers. A name is therefore bounded in length, and their number, too; of one
//! publish in [`ONE_IN`] the names are looked at. Values are never kept.

use super::facts::{HeaderShare, MissingIds};
use parking_lot::Mutex;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::{Duration, Instant};

/// One publish without an id in this many is sampled.
pub(super) const ONE_IN: u64 = 16;
/// Names that are remembered for one window.
pub(super) const NAMES: usize = 32;
/// Bytes of a name that are kept.
pub(super) const NAME_BYTES: usize = 64;
/// Names of one publish that are looked at.
pub(super) const NAMES_OF_ONE: usize = 32;
/// Names that are shown.
const SHOWN: usize = 5;
/// The shares are those of the last one to two of these.
const INTERVAL: Duration = Duration::from_secs(60);
/// A window is blind from this share of publishes without an id on, if there were at least [`LEAST`] of them lately.
const BLIND: f64 = 0.5;
const LEAST: u64 = 20;

/// Counts of publishes since the start.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub(super) struct Counts {
    pub(super) no_id: u64,
    pub(super) judged: u64,
}

/// Counts the publishes of one window that carry no id, and remembers the names of their headers.
#[derive(Debug, Default)]
pub(super) struct Missing {
    publishes: AtomicU64,
    sample: Mutex<Sample>,
    epochs: Mutex<Epochs>,
}

#[derive(Debug, Default)]
struct Sample {
    publishes: u64,
    names: Vec<(Box<str>, u64)>,
    /// the publish that was counted last for a name, so that a name that is repeated counts once
    seen: Vec<u64>,
}

#[derive(Debug, Default)]
struct Epochs {
    begun: Option<Instant>,
    /// the counts at the begin of the present interval and of the one before
    at: [Counts; 2],
}

impl Missing {
    /// Returns true if the names of this publish should be passed to [`Missing::sample`].
    pub(super) fn wants_names(&self) -> bool {
        self.publishes.fetch_add(1, Relaxed).is_multiple_of(ONE_IN)
    }

    /// Counts the names of the headers and properties of one publish without an id.
    pub(super) fn sample(&self, names: &[&[u8]]) {
        let mut sample = self.sample.lock();
        let sample = &mut *sample;
        sample.publishes += 1;
        for name in names.iter().take(NAMES_OF_ONE).filter(|name| !name.is_empty()) {
            let name = String::from_utf8_lossy(name.get(..NAME_BYTES).unwrap_or(name));
            let known = sample.names.iter().position(|(known, _)| **known == *name);
            let at = match known {
                Some(at) => at,
                None if sample.names.len() < NAMES => {
                    sample.names.push((name.into(), 0));
                    sample.seen.push(0);
                    sample.names.len() - 1
                }
                // The least frequent name makes room. A name that only one publish had loses its place to any other.
                None => match sample.names.iter().enumerate().min_by_key(|(_, (_, count))| *count) {
                    Some((at, (_, 0..=1))) => {
                        if let (Some(slot), Some(seen)) = (sample.names.get_mut(at), sample.seen.get_mut(at))
                        {
                            (*slot, *seen) = ((name.into(), 0), 0);
                        }
                        at
                    }
                    _ => continue,
                },
            };
            if let (Some((_, count)), Some(seen)) = (sample.names.get_mut(at), sample.seen.get_mut(at))
                && *seen != sample.publishes
            {
                *seen = sample.publishes;
                *count += 1;
            }
        }
    }

    /// Begins a new interval if the present one is over. Every other one, old names lose weight.
    pub(super) fn tick(&self, counts: Counts, now: Instant) {
        let mut epochs = self.epochs.lock();
        let begun = *epochs.begun.get_or_insert(now);
        if now.saturating_duration_since(begun) < INTERVAL {
            return;
        }
        let [present, _] = epochs.at;
        // Without publishes there is nothing new to say, and what was said last stays.
        if counts != present {
            epochs.at = [counts, present];
            let mut sample = self.sample.lock();
            sample.publishes /= 2;
            sample.names.iter_mut().for_each(|(_, count)| *count /= 2);
            sample.seen.fill(u64::MAX);
        }
        epochs.begun = Some(now);
    }

    pub(super) fn facts(&self, counts: Counts) -> MissingIds {
        let [_, since] = self.epochs.lock().at;
        let (no_id, judged) =
            (counts.no_id.saturating_sub(since.no_id), counts.judged.saturating_sub(since.judged));
        let all = no_id + judged;
        let share = (all > 0).then(|| no_id as f64 / all as f64);
        let sample = self.sample.lock();
        let mut headers: Vec<HeaderShare> = sample
            .names
            .iter()
            .map(|(name, count)| HeaderShare {
                name: name.to_string(),
                share: (*count as f64 / sample.publishes.max(1) as f64).min(1.0),
            })
            .filter(|header| header.share > 0.0)
            .collect();
        headers.sort_by(|a, b| b.share.total_cmp(&a.share).then_with(|| a.name.cmp(&b.name)));
        headers.truncate(SHOWN);
        MissingIds { share, publishes: no_id, headers }
    }

    pub(super) fn bytes(&self) -> usize {
        let sample = self.sample.lock();
        let names: usize = sample.names.iter().map(|(name, _)| name.len()).sum();
        names
            + sample.names.capacity() * size_of::<(Box<str>, u64)>()
            + sample.seen.capacity() * size_of::<u64>()
    }
}

impl MissingIds {
    /// Returns true if most publishes carry no id, so that the window can't see their duplicates.
    pub fn is_blind(&self) -> bool {
        self.publishes >= LEAST && self.share.is_some_and(|share| share >= BLIND)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_most_frequent_names_are_told_and_a_flood_of_names_is_bounded() {
        let missing = Missing::default();
        for n in 0..10_000 {
            let odd = format!("x-{n}-{}", "y".repeat(500));
            let mut names: Vec<&[u8]> = vec![odd.as_bytes(), b"x-request-id", b"x-request-id"];
            if n % 2 == 0 {
                names.push(b"correlation-id");
            }
            missing.sample(&names);
        }
        let facts = missing.facts(Counts { no_id: 97, judged: 3 });
        let told: Vec<(&str, f64)> =
            facts.headers.iter().map(|header| (&*header.name, header.share)).collect();
        assert_eq!(told[..2], [("x-request-id", 1.0), ("correlation-id", 0.5)]);
        assert!(facts.headers.iter().all(|header| header.name.len() <= NAME_BYTES * 3));
        assert!(missing.bytes() < 16 << 10, "{}", missing.bytes());
        assert_eq!((facts.share, facts.is_blind()), (Some(0.97), true));
        assert!(!missing.facts(Counts { no_id: 10, judged: 0 }).is_blind(), "too few to say");
    }

    #[test]
    fn the_share_is_that_of_the_last_minutes() {
        #[expect(clippy::disallowed_methods, reason = "one base instant; the test counts from there")]
        let base = Instant::now();
        let (missing, mut counts) = (Missing::default(), Counts::default());
        for second in 0..600 {
            if second < 300 {
                counts.no_id += 10;
            } else {
                counts.judged += 10;
            }
            missing.tick(counts, base + Duration::from_secs(second));
            let share = missing.facts(counts).share.unwrap();
            assert!(second >= 300 || share == 1.0);
            assert!(second < 430 || share == 0.0, "{share} after {second} s");
        }
        (600..2_000).for_each(|second| missing.tick(counts, base + Duration::from_secs(second)));
        assert_eq!(missing.facts(counts).share, Some(0.0), "what was said last stays");
    }
}
