//! Counts a window's events, exactly. One [`Accounting`] per window.
//!
//! It is told of every event with a lock of the window held, so it has to be quick: the counters of the events that every
//! publish causes are divided into stripes by key (see [`super::stripe`]), the rest are plain atomics. Averages, level and
//! history are made by [`Accounting::tick`], once a second; [`Accounting::facts`] adds all up for those who look.
//!
//! Lock order: whatever the window holds, then a stripe's ledger or the trend, then the ages.

use super::ages::Ages;
use super::distinct::Distinct;
use super::facts::{Facts, GhostFacts, Level, Publishes};
use super::form::{InForce, STRIPES};
use super::ghost::{FINGERPRINT_BITS, SLOTS};
use super::scopes::Scopes;
use super::stripe::{Ledger, Stripe};
use super::trend::{Totals, Trend, interval};
use super::whatif::Sampler;
use crate::window::engine::Stamp;
use crate::window::{
    Apart, Claim, Event, EvictionCause, ForgetCause, Key, Limits, Listener, LocalWindow, Origin, Window,
};
use parking_lot::Mutex;
use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed};
use std::time::Instant;

/// Below so many ids, and below a quarter of its capacity, what a window takes says nothing about what an id takes.
const FILLED: usize = 1000;
/// From so many fresh ids per second on, one in [`SAMPLE`] tells where it goes.
const BUSY: f64 = 20_000.0;
const SAMPLE: u64 = 16;

/// Counts a window's events since the start. Two counters that are read one after the other may be an event apart.
#[derive(Debug, Default)]
pub struct Accounting {
    in_force: InForce,
    stripes: Box<[Stripe; STRIPES]>,
    ages: Apart<Mutex<Ages>>,
    in_flight: Counter,
    no_id: Counter,
    bypassed: Counter,
    promoted: Counter,
    takeovers: Counter,
    refused: Counter,
    forgotten: [Counter; ForgetCause::ALL.len()],
    distinct: Distinct,
    scopes: Apart<Mutex<Scopes>>,
    /// There are so many fresh ids that a part of them tells where they come from.
    is_busy: AtomicBool,
    trend: Mutex<Trend>,
    what_if: Sampler,
}

impl Accounting {
    /// All zero.
    pub fn new() -> Accounting {
        Accounting::default()
    }

    /// Verdicts *fresh*, those by promotion included: publishes forwarded on the window's word.
    pub fn fresh(&self) -> u64 {
        self.stripes.iter().map(|stripe| stripe.fresh.value()).sum()
    }

    /// Verdicts *duplicate*, those that had to wait for it included: publishes taken out (or, observed, forwarded).
    pub fn duplicate(&self) -> u64 {
        self.stripes.iter().map(|stripe| stripe.duplicate.value()).sum()
    }

    /// Verdicts *in flight*: publishes that had to wait. Each is counted again by what came of it.
    pub fn in_flight(&self) -> u64 {
        self.in_flight.value()
    }

    /// Publishes without an id.
    pub fn no_id(&self) -> u64 {
        self.no_id.value()
    }

    /// Publishes that asked not to be judged.
    pub fn bypassed(&self) -> u64 {
        self.bypassed.value()
    }

    /// Keys that became seen because the upstream said so.
    pub fn committed(&self) -> u64 {
        self.stripes.iter().map(|stripe| stripe.committed.value()).sum()
    }

    /// Keys that became seen although nobody knows whether they were stored.
    pub fn committed_in_doubt(&self) -> u64 {
        self.sum(|ledger| ledger.committed_in_doubt)
    }

    /// Waiters that took the place of a first that failed.
    pub fn promoted(&self) -> u64 {
        self.promoted.value()
    }

    /// Waiters that took the place of a first whose outcome did not come.
    pub fn takeovers(&self) -> u64 {
        self.takeovers.value()
    }

    /// Publishes that were nacked because they could not wait, or not any longer.
    pub fn refused(&self) -> u64 {
        self.refused.value()
    }

    /// Reservations given up for this cause.
    pub fn forgotten(&self, cause: ForgetCause) -> u64 {
        self.forgotten.get(cause as usize).map_or(0, Counter::value)
    }

    /// Reservations given up.
    pub fn forgotten_total(&self) -> u64 {
        self.forgotten.iter().map(Counter::value).sum()
    }

    /// Seen keys removed for this cause.
    pub fn evicted(&self, cause: EvictionCause) -> u64 {
        self.sum(|ledger| ledger.evictions(cause))
    }

    /// Seen keys removed.
    pub fn evicted_total(&self) -> u64 {
        self.sum(|ledger| ledger.evicted.iter().sum())
    }

    /// Keys that were stored again because they had been evicted early.
    pub fn escaped(&self) -> u64 {
        self.work_off(None);
        self.sum(Ledger::escaped)
    }

    /// Everything that is known of the window that this listens to.
    pub fn facts(&self, window: &LocalWindow<impl Listener + ?Sized>, now: Instant) -> Facts {
        self.work_off(Some(window.stamp(now)));
        let totals = self.totals();
        let (entries, capacity, ttl) = (window.len(), window.capacity(), window.ttl());
        let mut facts = Facts {
            publishes: Publishes {
                fresh: totals.fresh,
                duplicate: totals.duplicate,
                in_flight: self.in_flight(),
                no_id: self.no_id(),
                bypassed: self.bypassed(),
            },
            commits: self.committed(),
            commits_in_doubt: self.committed_in_doubt(),
            promoted: self.promoted(),
            takeovers: self.takeovers(),
            refused: self.refused(),
            forgotten: by_cause(ForgetCause::ALL, ForgetCause::name, |cause| self.forgotten(cause)),
            evictions: by_cause(EvictionCause::ALL, EvictionCause::name, |cause| self.evicted(cause)),
            escaped_duplicates: totals.escaped,
            ghost: self.ghost(),
            entries: entries as u64,
            in_flight: window.in_flight() as u64,
            capacity: capacity as u64,
            ttl_seconds: ttl.as_secs_f64(),
            bytes: (window.bytes() + self.bytes()) as u64,
            hit_ratio: hit_ratio(&totals),
            distinct: self.distinct.facts(now),
            top_scopes: self.scopes.lock().top(),
            ..Facts::default()
        };
        // Where shards are to be filled evenly, the last hundredth takes long.
        if entries + capacity / 64 >= capacity {
            facts.oldest_seconds = window.oldest(now).map(|age| age.as_secs_f64());
        }
        self.tell_ages(&mut facts);
        self.tell_trend(&mut facts, window, now);
        facts.what_if = self.what_if.facts(facts.bytes_per_id, resolved(&totals));
        facts
    }

    /// About once a second: averages and level. A change of level is logged.
    pub fn tick(&self, window: &LocalWindow<impl Listener + ?Sized>, now: Instant) {
        self.in_force.set(&window.limits());
        self.work_off(Some(window.stamp(now)));
        self.distinct.tick(now);
        self.scopes.lock().tick(now);
        let (totals, ttl, capacity) = (self.totals(), window.ttl(), window.capacity());
        self.what_if.tick(window.limits(), now, resolved(&totals));
        let before = {
            let mut trend = self.trend.lock();
            trend.step(now, totals, ttl);
            self.is_busy.store(trend.rates().fresh > BUSY, Relaxed);
            let pressure = trend.pressure(ttl, capacity);
            let is_interval_over = trend.is_interval_over(now, ttl);
            let is_early = {
                let mut ages = self.ages.lock();
                let lately = ages.lately();
                if is_interval_over {
                    ages.turn();
                }
                lately > 0
            };
            trend.gauge.measure(pressure, is_early, interval(ttl), now)
        };
        if let Some(before) = before {
            log(&window.rules().name, before, &self.facts(window, now));
        }
    }

    fn totals(&self) -> Totals {
        Totals {
            fresh: self.fresh(),
            duplicate: self.duplicate(),
            commits: self.committed() + self.committed_in_doubt(),
            escaped: self.sum(Ledger::escaped),
            early: self.sum(Ledger::early),
        }
    }

    fn ghost(&self) -> GhostFacts {
        let (keys, capacity) =
            (self.sum(|ledger| ledger.ghost.keys() as u64), self.sum(|l| l.ghost.capacity() as u64));
        let load = if capacity > 0 { keys as f64 / capacity as f64 } else { 0.0 };
        GhostFacts {
            keys,
            capacity,
            dropped: self.sum(|ledger| ledger.ghost.dropped()),
            bits_per_key: u32::BITS,
            false_positive_rate: load * SLOTS as f64 / f64::from(1_u32 << FINGERPRINT_BITS),
        }
    }

    fn tell_ages(&self, facts: &mut Facts) {
        facts.age_at_eviction = self.ages.lock().facts();
        facts.effective_seconds = facts.age_at_eviction.p50_seconds.unwrap_or(facts.ttl_seconds);
        let coverage = facts.effective_seconds / facts.ttl_seconds;
        facts.coverage = if coverage < 1.0 { coverage } else { 1.0 };
    }

    fn tell_trend(&self, facts: &mut Facts, window: &LocalWindow<impl Listener + ?Sized>, now: Instant) {
        // The curve does not grow with the ids.
        let grows = facts.bytes.saturating_sub(self.what_if.bytes() as u64);
        let filled = facts.entries >= FILLED as u64 && facts.entries >= facts.capacity / 4;
        facts.bytes_per_id = if filled { grows as f64 / facts.entries as f64 } else { window.bytes_per_id() };
        let trend = self.trend.lock();
        facts.rates = trend.rates();
        facts.pressure = trend.pressure(window.ttl(), window.capacity());
        facts.recommended_capacity = trend.recommended(window.ttl());
        facts.level = trend.level();
        facts.level_history = trend.gauge.history(now);
        facts.recommended_bytes = facts.recommended_capacity.map(|ids| bytes_of(ids, facts.bytes_per_id));
    }

    /// What the accounting itself occupies on the heap.
    fn bytes(&self) -> usize {
        let stripes: usize =
            self.stripes.iter().map(|stripe| size_of::<Stripe>() + stripe.ledger().bytes()).sum();
        size_of::<Accounting>()
            + stripes
            + Ages::bytes()
            + Distinct::BYTES
            + self.scopes.lock().bytes()
            + self.trend.lock().bytes()
            + self.what_if.bytes()
    }

    fn sum(&self, what: impl Fn(&Ledger) -> u64) -> u64 {
        self.stripes.iter().map(|stripe| what(&stripe.ledger())).sum()
    }

    /// Works all journals off; what is over by `now` leaves the ghost.
    fn work_off(&self, now: Option<Stamp>) {
        let form = self.in_force.form();
        for stripe in &*self.stripes {
            stripe.write(|ledger| {
                let now = now.unwrap_or(ledger.last());
                ledger.work_off(form, now, &self.ages);
            });
        }
    }

    /// Whose lock the window holds, if it holds the key's.
    fn stripe(&self, key: Key) -> &Stripe {
        let [first, ..] = &*self.stripes;
        self.stripes.get(key.shard(STRIPES)).unwrap_or(first)
    }

    /// What the key's ledger has to know. A journal that is full is worked off.
    fn note(&self, ledger: &mut Ledger, event: &Event) {
        let (is_full, now) = match *event {
            Event::Committed { claim: Claim::Digest(key), now, .. } => (ledger.commit(key, now), now),
            Event::Evicted { claim: Claim::Digest(key), at, until, now, cause } => {
                (ledger.evict(key, at, until, now, cause), now)
            }
            Event::Disowned { claim: Claim::Digest(key) } => (ledger.disown(key), Stamp(0)),
            _ => return,
        };
        if is_full {
            ledger.work_off(self.in_force.form(), now, &self.ages);
        }
    }

    /// All but the three that every publish causes.
    #[inline(never)]
    fn on_seldom(&self, event: &Event) {
        self.what_if.on(event);
        match *event {
            Event::Fresh { .. } | Event::Duplicate { .. } | Event::Committed { .. } => {}
            Event::CommittedInDoubt { claim: Claim::Digest(key), .. } => {
                self.stripe(key).write(|ledger| ledger.committed_in_doubt += 1);
            }
            Event::Evicted { claim: Claim::Digest(key), .. }
            | Event::Disowned { claim: Claim::Digest(key) } => {
                self.stripe(key).write(|ledger| self.note(ledger, event));
            }
            Event::Flushed => self.flush(),
            Event::InFlight => add(&self.in_flight.0),
            Event::NoId => add(&self.no_id.0),
            Event::Bypassed => add(&self.bypassed.0),
            Event::Promoted => add(&self.promoted.0),
            Event::TakenOver => add(&self.takeovers.0),
            Event::Refused => add(&self.refused.0),
            Event::Forgotten(cause) => {
                if let Some(counter) = self.forgotten.get(cause as usize) {
                    add(&counter.0);
                }
            }
        }
    }

    fn flush(&self) {
        let form = self.in_force.form();
        self.stripes.iter().for_each(|stripe| stripe.write(|ledger| ledger.flush(form, &self.ages)));
    }
}

impl Listener for Accounting {
    /// What every publish causes is asked for first, one comparison each: a jump by a table is predicted badly amid a
    /// window's work, and then costs more than all the counting (ADR 13).
    #[inline]
    fn on(&self, event: &Event) {
        if let Event::Duplicate { claim: Claim::Digest(key), .. } = *event {
            self.what_if.on(event);
            self.distinct.add(key.spread());
            self.stripe(key).duplicate.add();
        } else if let Event::Fresh { claim: Claim::Digest(key) } = *event {
            self.distinct.add(key.spread());
            self.stripe(key).fresh.add();
        } else if let Event::Committed { claim: Claim::Digest(key), .. } = *event {
            self.what_if.on(event);
            let stripe = self.stripe(key);
            stripe.committed.add();
            if stripe.is_haunted() {
                stripe.write(|ledger| self.note(ledger, event));
            }
        } else {
            self.on_seldom(event);
        }
    }

    /// Commits and what made room for them, mostly of one stripe: its ledger is locked once.
    fn on_all(&self, events: &[Event]) {
        let stripe = |event: &Event| match event {
            Event::Committed { claim: Claim::Digest(key), .. }
            | Event::Evicted { claim: Claim::Digest(key), .. } => Some(self.stripe(*key)),
            _ => None,
        };
        let is_in = |one: &Stripe| {
            events.iter().all(|event| stripe(event).is_some_and(|other| std::ptr::eq(one, other)))
        };
        let Some(one) = events.first().and_then(stripe).filter(|one| is_in(one)) else {
            return events.iter().for_each(|event| self.on(event));
        };
        let mut is_for_ledger = one.is_haunted();
        for event in events {
            self.what_if.on(event);
            match event {
                Event::Committed { .. } => one.committed.add(),
                _ => is_for_ledger = true,
            }
        }
        if is_for_ledger {
            one.write(|ledger| events.iter().for_each(|event| self.note(ledger, event)));
        }
    }

    fn limits(&self, limits: &Limits) {
        self.in_force.set(limits);
    }

    fn wants_origin(&self, claim: Claim) -> bool {
        let Claim::Digest(key) = claim;
        !self.is_busy.load(Relaxed) || key.spread().is_multiple_of(SAMPLE)
    }

    fn origin(&self, origin: &Origin<'_>) {
        let ids = if self.is_busy.load(Relaxed) { SAMPLE } else { 1 };
        self.scopes.lock().add(origin, ids);
    }
}

/// Publishes whose outcome is known, as the what-if curve counts them.
fn resolved(totals: &Totals) -> u64 {
    totals.commits + totals.duplicate
}

fn add(counter: &AtomicU64) {
    counter.fetch_add(1, Relaxed);
}

fn by_cause<C: Copy, const N: usize>(
    all: [C; N],
    name: fn(C) -> &'static str,
    count: impl Fn(C) -> u64,
) -> BTreeMap<String, u64> {
    all.into_iter().map(|cause| (name(cause).to_owned(), count(cause))).collect()
}

fn hit_ratio(totals: &Totals) -> Option<f64> {
    let judged = totals.fresh + totals.duplicate;
    (judged > 0).then(|| totals.duplicate as f64 / judged as f64)
}

#[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "it saturates")]
fn bytes_of(ids: u64, each: f64) -> u64 {
    (ids as f64 * each) as u64
}

fn log(window: &str, before: Level, facts: &Facts) {
    let Facts {
        level, pressure, coverage, escaped_duplicates: escaped, recommended_capacity, capacity, ..
    } = facts;
    let recommended = recommended_capacity.unwrap_or(*capacity);
    let (pressure, coverage) = (format_args!("{pressure:.2}"), format_args!("{coverage:.2}"));
    match level {
        Level::Critical if before < *level => tracing::warn!(
            window, %pressure, %coverage, escaped, capacity, recommended,
            "the window is too small: ids are forgotten before their TTL is over; set its capacity to the recommended one"
        ),
        Level::High if before < *level => tracing::warn!(
            window, %pressure, %coverage, escaped, capacity, recommended,
            "the window is nearly too small for its traffic; raise its capacity to the recommended one"
        ),
        _ => tracing::info!(
            window, %pressure, %coverage, escaped, capacity, recommended, level = ?level,
            "the pressure on the window has fallen"
        ),
    }
}

#[derive(Debug, Default)]
struct Counter(AtomicU64);

impl Counter {
    fn value(&self) -> u64 {
        self.0.load(Relaxed)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::window::Key;
    use crate::window::engine::Stamp;

    /// Every event has a counter of its own: after the n-th event was told n times, all counters differ.
    #[test]
    fn every_event_moves_its_own_counter() {
        let accounting = Accounting::new();
        let (key, now, until) = (Key(1), Stamp(1), Stamp(2));
        let plain = [
            Event::Fresh { claim: Claim::Digest(key) },
            Event::Duplicate { claim: Claim::Digest(key), now },
            Event::InFlight,
            Event::NoId,
            Event::Bypassed,
            Event::Committed { claim: Claim::Digest(key), now, until },
            Event::CommittedInDoubt { claim: Claim::Digest(key), now, until },
            Event::Promoted,
            Event::TakenOver,
            Event::Refused,
        ];
        let forgotten = ForgetCause::ALL.map(Event::Forgotten);
        let evicted = EvictionCause::ALL.map(|cause| Event::Evicted {
            claim: Claim::Digest(key),
            at: now,
            until,
            now,
            cause,
        });
        let events: Vec<Event> = plain.into_iter().chain(forgotten).chain(evicted).collect();
        for (n, event) in events.iter().enumerate() {
            (0..=n).for_each(|_| accounting.on(event));
        }
        let read: Vec<u64> = [
            accounting.fresh(),
            accounting.duplicate(),
            accounting.in_flight(),
            accounting.no_id(),
            accounting.bypassed(),
            accounting.committed(),
            accounting.committed_in_doubt(),
            accounting.promoted(),
            accounting.takeovers(),
            accounting.refused(),
        ]
        .into_iter()
        .chain(ForgetCause::ALL.map(|cause| accounting.forgotten(cause)))
        .chain(EvictionCause::ALL.map(|cause| accounting.evicted(cause)))
        .collect();
        assert_eq!(read, (1..=events.len() as u64).collect::<Vec<_>>());
        assert_eq!(accounting.forgotten_total(), (11..=16).sum::<u64>());
        assert_eq!(accounting.evicted_total(), (17..=21).sum::<u64>());
    }
}
