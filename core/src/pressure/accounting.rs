//! Counts a window's events exactly. There is one [`Accounting`] per window.
//!
//! The window reports every event while it holds a lock, so counting must be fast. The counters of frequent events are
//! divided into stripes by key (see [`super::stripe`]); all others are plain atomics. [`Accounting::tick`] updates
//! averages, level and history once a second. [`Accounting::facts`] adds everything up for those who look.
//!
//! Lock order: the window's lock, then a stripe's ledger or the trend, then the ages.

use super::ages::Ages;
use super::budget::plan::capacity_for;
use super::distinct::Distinct;
use super::facts::{self, Bound, Facts, GhostFacts, Level, Publishes, Store};
use super::layout::{InForce, STRIPES};
use super::log;
use super::missing::{self, Missing};
use super::room::{Place, Room};
use super::scopes::Scopes;
use super::stripe::{Ledger, Stripe};
use super::trend::{Totals, Trend, interval};
use super::warmth::{FlushFlag, Warming, Warmth};
use super::whatif::Sampler;
use crate::window::engine::{MOST_IDS, Stamp};
use crate::window::{
    CacheAligned, Claim, Event, EvictionCause, ForgetCause, Inspect, Key, Limits, Listener, Origin, Refusal,
    Told,
};
use crate::wire::IdSource;
use parking_lot::Mutex;
use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed};
use std::time::Instant;

/// With fewer ids than this, or less than a quarter of the capacity, the window's memory says nothing about the bytes
/// per id.
const FILLED: usize = 1000;
/// With more fresh ids per second than this, only one in [`SAMPLE`] is counted in the top scopes.
const BUSY: f64 = 20_000.0;
const SAMPLE: u64 = 16;

/// The counts of a window's events since the start. Two counters are read one after the other, so they may be an event
/// apart.
#[derive(Debug, Default)]
pub struct Accounting {
    in_force: InForce,
    stripes: Box<[Stripe; STRIPES]>,
    ages: CacheAligned<Mutex<Ages>>,
    in_flight: Counter,
    republished: Counter,
    recovered: Counter,
    no_id: Counter,
    bypassed: Counter,
    promoted: Counter,
    takeovers: Counter,
    refused: Counter,
    conflicts: Counter,
    uncompared: Counter,
    told: [Counter; Told::ALL.len()],
    sequences: Sequences,
    forgotten: [Counter; ForgetCause::ALL.len()],
    distinct: Distinct,
    scopes: CacheAligned<Mutex<Scopes>>,
    /// true while fresh ids are so frequent that only a sample of them is counted in the top scopes
    is_busy: AtomicBool,
    trend: Mutex<Trend>,
    what_if: Sampler,
    flushed: FlushFlag,
    warmth: Mutex<Warmth>,
    missing: Missing,
    place: Place,
}

impl Accounting {
    /// Creates the accounting, all zero, of a process that may use any amount of memory.
    pub fn new() -> Accounting {
        Accounting::default()
    }

    /// Creates the accounting, all zero, of a process that may use this much memory.
    pub fn within(room: &Arc<Room>) -> Accounting {
        Accounting { place: Place::new(Arc::clone(room)), ..Accounting::default() }
    }

    /// Returns the verdicts *fresh*, including promotions: publishes that were forwarded because the window said so.
    pub fn fresh(&self) -> u64 {
        self.stripes.iter().map(|stripe| stripe.fresh.value()).sum()
    }

    /// Returns the verdicts *duplicate*, including those after a wait: publishes that were dropped (or forwarded, in
    /// mode observe).
    pub fn duplicate(&self) -> u64 {
        self.stripes.iter().map(|stripe| stripe.duplicate.value()).sum()
    }

    /// Returns the verdicts *in flight*: publishes that had to wait. Each one is counted again by its final verdict.
    pub fn in_flight(&self) -> u64 {
        self.in_flight.value()
    }

    /// Returns how many ids came from the window's store.
    pub fn recovered(&self) -> u64 {
        self.recovered.value()
    }

    /// Returns the verdicts *republished*: publishes of consumers that had got the message before.
    pub fn republished(&self) -> u64 {
        self.republished.value()
    }

    /// Returns the publishes without an id.
    pub fn no_id(&self) -> u64 {
        self.no_id.value()
    }

    /// Returns the publishes that asked not to be judged.
    pub fn bypassed(&self) -> u64 {
        self.bypassed.value()
    }

    /// Returns the keys that became seen because the upstream has acked them.
    pub fn committed(&self) -> u64 {
        self.stripes.iter().map(|stripe| stripe.committed.value()).sum()
    }

    /// Returns the keys that became seen although it is unknown whether they were stored.
    pub fn committed_in_doubt(&self) -> u64 {
        self.sum(|ledger| ledger.committed_in_doubt)
    }

    /// Returns the waiters that were forwarded because the first publish was not stored.
    pub fn promoted(&self) -> u64 {
        self.promoted.value()
    }

    /// Returns the waiters that were forwarded because the outcome of the first publish did not come in time.
    pub fn takeovers(&self) -> u64 {
        self.takeovers.value()
    }

    /// Returns the publishes that were nacked because they could not wait, or not any longer.
    pub fn refused(&self) -> u64 {
        self.refused.value()
    }

    /// Returns the publishes of a seen id whose body was not the one that was stored.
    pub fn conflicts(&self) -> u64 {
        self.conflicts.value()
    }

    /// Returns the publishes of a seen id that were forwarded because their body was too large to be held for the comparison.
    pub fn uncompared(&self) -> u64 {
        self.uncompared.value()
    }

    /// Returns the duplicates whose publisher was told this.
    pub fn told(&self, told: Told) -> u64 {
        self.told.get(told as usize).map_or(0, Counter::value)
    }

    /// Returns the publishes that were refused because their producer has begun a higher epoch.
    pub fn stale(&self) -> u64 {
        self.sequences.stale.value()
    }

    /// Returns the publishes that were refused because lower numbers of their producer were never let through.
    pub fn refused_gaps(&self) -> u64 {
        self.sequences.refused_gaps.value()
    }

    /// Returns the publishes that were forwarded although lower numbers of their producer were never let through.
    pub fn gaps(&self) -> u64 {
        self.sequences.gaps.value()
    }

    /// Returns the publishes that were forwarded because their number is too low to be known by a bit, and was not known to be stored.
    pub fn below(&self) -> u64 {
        self.sequences.below.value()
    }

    /// Returns the reservations that were given up for this cause.
    pub fn forgotten(&self, cause: ForgetCause) -> u64 {
        self.forgotten.get(cause as usize).map_or(0, Counter::value)
    }

    /// Returns the reservations that were given up for any cause.
    pub fn forgotten_total(&self) -> u64 {
        self.forgotten.iter().map(Counter::value).sum()
    }

    /// Returns the seen keys that were removed for this cause.
    pub fn evicted(&self, cause: EvictionCause) -> u64 {
        self.sum(|ledger| ledger.evictions(cause))
    }

    /// Returns the seen keys that were removed for any cause.
    pub fn evicted_total(&self) -> u64 {
        self.sum(|ledger| ledger.evicted.iter().sum())
    }

    /// Returns the keys that were stored again after an early eviction, while their TTL was not over.
    pub fn escaped(&self) -> u64 {
        self.apply_journal(None);
        self.sum(Ledger::escaped)
    }

    /// Returns everything that is known about the window.
    pub fn facts(&self, window: &dyn Inspect, now: Instant) -> Facts {
        self.apply_journal(Some(window.stamp(now)));
        let totals = self.totals();
        let (entries, capacity, ttl) = (window.entries(), window.capacity(), window.ttl());
        let has_tenants = window.rules().quota.is_some();
        let tenants = if has_tenants { window.tenants() } else { Vec::new() };
        let tenants = tenants.iter().map(|facts| facts.entries).filter(|entries| *entries > 0);
        let mut facts = Facts {
            publishes: Publishes {
                fresh: totals.fresh,
                duplicate: totals.duplicate,
                in_flight: self.in_flight(),
                republished: self.republished(),
                no_id: self.no_id(),
                bypassed: self.bypassed(),
            },
            commits: self.committed(),
            commits_in_doubt: self.committed_in_doubt(),
            recovered: self.recovered(),
            promoted: self.promoted(),
            takeovers: self.takeovers(),
            refused: self.refused(),
            conflicts: self.conflicts(),
            uncompared: self.uncompared(),
            told: by_cause(Told::ALL, Told::name, |told| self.told(told)),
            sequences: is_sequence(window).then(|| facts::Sequences {
                stale: self.stale(),
                gaps_refused: self.refused_gaps(),
                gaps: self.gaps(),
                below: self.below(),
            }),
            forgotten: by_cause(ForgetCause::ALL, ForgetCause::name, |cause| self.forgotten(cause)),
            evictions: by_cause(EvictionCause::ALL, EvictionCause::name, |cause| self.evicted(cause)),
            escaped_duplicates: totals.escaped,
            escaped_duplicates_about: self.sum(Ledger::escaped_about),
            missing_ids: self.missing.facts(self.missing_counts(&totals)),
            ghost: self.ghost(),
            entries: entries.map(|count| count as u64),
            tenants: has_tenants.then(|| tenants.clone().count() as u64),
            largest_tenant_entries: has_tenants.then(|| tenants.max().unwrap_or(0) as u64),
            in_flight: window.in_flight().map(|count| count as u64),
            capacity: capacity.map(|count| count as u64),
            ttl_seconds: ttl.as_secs_f64(),
            bytes: (window.bytes() + self.bytes()) as u64,
            store_bytes: window.store_bytes() as u64,
            hit_ratio: hit_ratio(&totals),
            distinct: self.distinct.facts(now),
            top_scopes: self.scopes.lock().top(),
            store: window.store(now).map(|store| Store::new(&store, now)),
            ..Facts::default()
        };
        // A window counts as full a little early: shards fill evenly, and the last hundredth takes long.
        if let (Some(entries), Some(capacity)) = (entries, capacity)
            && entries + capacity / 64 >= capacity
        {
            facts.oldest_seconds = window.oldest(now).map(|age| age.as_secs_f64());
        }
        self.tell_ages(&mut facts, self.warming_at_tick(window, now));
        self.tell_trend(&mut facts, window, now);
        facts.what_if = self.what_if.facts(facts.bytes_per_id, resolved(&totals));
        facts
    }

    /// Takes the settings of the window, so that the what-if curve knows of the ids that its store brings before the first tick.
    pub fn begin(&self, window: &dyn Inspect, now: Instant) {
        if let Some(limits) = window.limits().filter(|_| !is_sequence(window)) {
            self.what_if.tick(limits, now, resolved(&self.totals()));
        }
    }

    /// Updates averages and level. Call it about once a second. Logs a change of level.
    pub fn tick(&self, window: &dyn Inspect, now: Instant) {
        let limits = window.limits();
        limits.iter().for_each(|limits| self.in_force.set(limits));
        self.apply_journal(Some(window.stamp(now)));
        self.distinct.tick(now);
        self.scopes.lock().tick(now);
        let (mut totals, ttl) = (self.totals(), window.ttl());
        let store = window.store(now);
        // The ids that other relays have stored take room, too. The ids that the store had at the start came all at once: it says nothing of a rate.
        totals.merged = store.as_ref().map_or(0, |store| store.merged);
        // The curve needs a capacity to compare with. A window without a capacity has no curve.
        if !is_sequence(window) {
            limits.into_iter().for_each(|limits| self.what_if.tick(limits, now, resolved(&totals)));
        }
        let counts = self.missing_counts(&totals);
        self.missing.tick(counts, now);
        let known_for = store.and_then(|store| store.known_for);
        let warming =
            self.warmth.lock().follow(window.mode(), window.ttl(), self.flushed.take(), known_for, now);
        let state = self.state(warming, counts);
        let before = {
            let mut trend = self.trend.lock();
            trend.step(now, totals, ttl);
            self.is_busy.store(trend.rates().fresh > BUSY, Relaxed);
            let pressure = pressure_of(window, &trend).unwrap_or_default();
            let is_interval_over = trend.is_interval_over(now, ttl);
            let is_early = {
                let mut ages = self.ages.lock();
                let lately = ages.lately();
                if is_interval_over {
                    ages.turn();
                }
                lately > 0
            };
            trend.gauge.measure(pressure, is_early, state, interval(ttl), now)
        };
        if let Some(before) = before {
            log::change(&window.rules().name, before, &self.facts(window, now));
        }
    }

    /// Returns how warm the window was at the last tick, unless something has changed since.
    fn warming_at_tick(&self, window: &dyn Inspect, now: Instant) -> Warming {
        let known_for = window.store(now).and_then(|store| store.known_for);
        self.warmth.lock().look(window.mode(), window.ttl(), self.flushed.take(), known_for, now)
    }

    fn missing_counts(&self, totals: &Totals) -> missing::Counts {
        missing::Counts { no_id: self.no_id(), judged: totals.fresh + totals.duplicate + self.republished() }
    }

    /// Returns the level of a window that is not pressed.
    fn state(&self, warming: Warming, counts: missing::Counts) -> Level {
        match self.missing.facts(counts).is_blind() {
            true => Level::Blind,
            false if !warming.left.is_zero() => Level::Warming,
            false => Level::Ok,
        }
    }

    /// Says whether the window sizes itself: its ghost then stays within what the memory budget sets aside for it.
    pub(super) fn set_auto(&self, is_auto: bool) {
        self.in_force.set_auto(is_auto);
    }

    fn totals(&self) -> Totals {
        Totals {
            fresh: self.fresh(),
            duplicate: self.duplicate(),
            commits: self.committed() + self.committed_in_doubt(),
            escaped: self.sum(Ledger::escaped),
            early: self.sum(Ledger::early),
            merged: 0,
        }
    }

    fn ghost(&self) -> GhostFacts {
        let mut facts = GhostFacts {
            capacity: (self.in_force.layout(self.place.room()).most * STRIPES) as u64,
            bits_per_key: u32::BITS,
            watched: 1.0,
            ..GhostFacts::default()
        };
        for stripe in &*self.stripes {
            let ledger = stripe.ledger();
            let ghost = &ledger.ghost;
            facts.keys += ghost.keys() as u64;
            facts.dropped += ghost.dropped();
            facts.bytes += ghost.bytes() as u64;
            facts.watched = facts.watched.min(1.0 / f64::from(1_u32 << ghost.level()));
            facts.false_positive_rate += ghost.mistakes() / STRIPES as f64;
        }
        facts
    }

    fn tell_ages(&self, facts: &mut Facts, warming: Warming) {
        facts.age_at_eviction = self.ages.lock().facts();
        facts.effective_seconds = facts.age_at_eviction.p50_seconds.unwrap_or(facts.ttl_seconds);
        if !warming.left.is_zero() {
            facts.warming_seconds = warming.left.as_secs_f64();
            facts.effective_seconds = facts.effective_seconds.min(warming.kept.as_secs_f64());
        }
        let coverage = facts.effective_seconds / facts.ttl_seconds;
        facts.coverage = if coverage < 1.0 { coverage } else { 1.0 };
    }

    fn tell_trend(&self, facts: &mut Facts, window: &dyn Inspect, now: Instant) {
        facts.bytes_per_id = match (facts.entries, facts.capacity) {
            (Some(entries), Some(capacity)) if entries >= FILLED as u64 && entries >= capacity / 4 => {
                facts.store_bytes as f64 / entries as f64
            }
            _ => window.bytes_per_id(),
        };
        let trend = self.trend.lock();
        facts.rates = trend.rates();
        let (capacity, ttl) = (window.capacity(), window.ttl());
        facts.pressure = pressure_of(window, &trend);
        facts.arrived = rounded(trend.arrived(ttl));
        facts.level = trend.level();
        facts.level_history = trend.gauge.history(now);
        // How many producers there are is no matter of the rate at which they publish.
        if capacity.is_some() && !is_sequence(window) {
            facts.recommended_from = trend.seen(ttl);
            if let Some(wanted) = trend.recommended(ttl) {
                self.recommend(wanted, facts, window);
            }
        }
    }

    /// Recommends a capacity that the relay and its machine can have.
    fn recommend(&self, wanted: u64, facts: &mut Facts, window: &dyn Inspect) {
        // The window takes this beside its ids. A window that is large enough has no ghost.
        let beside = facts.bytes.saturating_sub(facts.store_bytes).saturating_sub(facts.ghost.bytes);
        let cost = |capacity: usize| {
            window.store_bytes_at(capacity).saturating_add(usize::try_from(beside).unwrap_or(usize::MAX))
        };
        let memory = self.place.room().memory();
        let most = if memory == usize::MAX { usize::MAX } else { capacity_for(&cost, memory) };
        let ids = usize::try_from(wanted).unwrap_or(usize::MAX).min(most).min(MOST_IDS);
        facts.recommended_bound = match ids {
            ids if ids as u64 == wanted => None,
            MOST_IDS => Some(Bound::Maximum),
            _ => Some(Bound::Memory),
        };
        facts.recommended_capacity = Some(ids as u64);
        facts.recommended_bytes = Some(cost(ids) as u64);
    }

    /// Returns the bytes of the accounting itself on the heap.
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
            + self.missing.bytes()
    }

    fn sum(&self, what: impl Fn(&Ledger) -> u64) -> u64 {
        self.stripes.iter().map(|stripe| what(&stripe.ledger())).sum()
    }

    /// Applies all journals. If `now` is given, also removes keys from the ghosts that have expired by then.
    fn apply_journal(&self, now: Option<Stamp>) {
        let layout = self.in_force.layout(self.place.room());
        for stripe in &*self.stripes {
            stripe.write(|ledger| {
                let now = now.unwrap_or(ledger.last());
                ledger.apply_journal(layout, now, &self.ages);
            });
        }
    }

    /// Returns the key's stripe. The window holds the lock of this stripe's keys when it reports an event of the key.
    fn stripe(&self, key: Key) -> &Stripe {
        let [first, ..] = &*self.stripes;
        self.stripes.get(key.shard(STRIPES)).unwrap_or(first)
    }

    /// Passes an event to the key's ledger, and applies the journal if it is full.
    fn note(&self, ledger: &mut Ledger, event: &Event) {
        let (is_full, now) = match *event {
            Event::Committed { claim, now, .. } => (ledger.commit(claim.owner(), now), now),
            Event::Evicted { claim, at, until, now, cause } => {
                (ledger.evict(claim.owner(), at, until, now, cause), now)
            }
            Event::Disowned { claim } => (ledger.disown(claim.owner()), Stamp(0)),
            _ => return,
        };
        if is_full {
            ledger.apply_journal(self.in_force.layout(self.place.room()), now, &self.ages);
        }
    }

    /// Handles all events except the three frequent ones.
    #[inline(never)]
    fn on_seldom(&self, event: &Event) {
        self.what_if.on(event);
        match *event {
            Event::Fresh { .. } | Event::Duplicate { .. } | Event::Committed { .. } => {}
            Event::CommittedInDoubt { claim, .. } => {
                self.stripe(claim.owner()).write(|ledger| ledger.committed_in_doubt += 1);
            }
            // The producer of a number that is forgotten is still known.
            Event::Disowned { claim: Claim::Sequence { .. } } => {}
            Event::Evicted { claim, .. } | Event::Disowned { claim } => {
                self.stripe(claim.owner()).write(|ledger| self.note(ledger, event));
            }
            Event::Flushed => self.flush(),
            Event::InFlight => add(&self.in_flight.0),
            Event::Republished { .. } => add(&self.republished.0),
            Event::Recovered { claim, .. } => self.recover(claim.owner()),
            Event::OutOfSequence(Refusal::Stale) => add(&self.sequences.stale.0),
            Event::OutOfSequence(Refusal::Gap) => add(&self.sequences.refused_gaps.0),
            Event::Gap => add(&self.sequences.gaps.0),
            Event::Below => add(&self.sequences.below.0),
            Event::NoId => add(&self.no_id.0),
            Event::Bypassed => add(&self.bypassed.0),
            Event::Promoted => add(&self.promoted.0),
            Event::TakenOver => add(&self.takeovers.0),
            Event::Refused => add(&self.refused.0),
            Event::Conflict { .. } => add(&self.conflicts.0),
            Event::Uncompared => add(&self.uncompared.0),
            Event::Told(told) => {
                if let Some(counter) = self.told.get(told as usize) {
                    add(&counter.0);
                }
            }
            Event::Forgotten(cause) => {
                if let Some(counter) = self.forgotten.get(cause as usize) {
                    add(&counter.0);
                }
            }
        }
    }

    /// Counts an id that the store has brought. If it was evicted early here, it need not be watched any more: it is known again. No duplicate
    /// has got through here, so none is counted; where one has, that relay has counted it.
    fn recover(&self, key: Key) {
        add(&self.recovered.0);
        let stripe = self.stripe(key);
        if stripe.has_ghosts() {
            let claim = Claim::Digest(key);
            stripe.write(|ledger| self.note(ledger, &Event::Disowned { claim }));
        }
    }

    fn flush(&self) {
        self.flushed.raise();
        let layout = self.in_force.layout(self.place.room());
        self.stripes.iter().for_each(|stripe| stripe.write(|ledger| ledger.flush(layout, &self.ages)));
    }
}

impl Listener for Accounting {
    /// Compares with the frequent events first, one after the other. A jump table would be mispredicted between the
    /// window's own branches, and would cost more than all the counting (ADR 13).
    #[inline]
    fn on(&self, event: &Event) {
        if let Event::Duplicate { claim, .. } = *event {
            self.what_if.on(event);
            self.distinct.add(claim.owner().spread());
            self.stripe(claim.key()).duplicate.add();
        } else if let Event::Fresh { claim } = *event {
            self.distinct.add(claim.owner().spread());
            self.stripe(claim.key()).fresh.add();
        } else if let Event::Committed { claim, .. } = *event {
            self.what_if.on(event);
            let stripe = self.stripe(claim.key());
            stripe.committed.add();
            // The ghost knows owners.
            let stripe = match claim {
                Claim::Digest(_) => stripe,
                Claim::Sequence { .. } => self.stripe(claim.owner()),
            };
            if stripe.has_ghosts() {
                stripe.write(|ledger| self.note(ledger, event));
            }
        } else {
            self.on_seldom(event);
        }
    }

    /// Handles commits and the evictions that made room for them. Usually all are in one stripe, so its ledger is
    /// locked once.
    fn on_all(&self, events: &[Event]) {
        let stripe = |event: &Event| match event {
            Event::Committed { claim, .. } | Event::Evicted { claim, .. } => Some(self.stripe(claim.key())),
            _ => None,
        };
        let is_in = |one: &Stripe| {
            events.iter().all(|event| stripe(event).is_some_and(|other| std::ptr::eq(one, other)))
        };
        let Some(one) = events.first().and_then(stripe).filter(|one| is_in(one)) else {
            return events.iter().for_each(|event| self.on(event));
        };
        let mut is_for_ledger = one.has_ghosts();
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

    fn wants_names(&self) -> bool {
        self.missing.wants_names()
    }

    fn names(&self, names: &[&[u8]]) {
        self.missing.sample(names);
    }

    fn wants_origin(&self, claim: Claim) -> bool {
        !self.is_busy.load(Relaxed) || claim.key().spread().is_multiple_of(SAMPLE)
    }

    fn origin(&self, origin: &Origin<'_>) {
        let ids = if self.is_busy.load(Relaxed) { SAMPLE } else { 1 };
        self.scopes.lock().add(origin, ids);
    }
}

/// Counts what only a window of sequences can see.
#[derive(Debug, Default)]
struct Sequences {
    stale: Counter,
    refused_gaps: Counter,
    gaps: Counter,
    below: Counter,
}

/// Returns true if the window remembers producers, not ids.
fn is_sequence(window: &dyn Inspect) -> bool {
    window.rules().id == IdSource::Sequence
}

/// Returns how pressed the window is; `None` without a capacity. Producers do not come at the rate of their numbers: a window of them is
/// as pressed as it is full.
#[expect(clippy::cast_precision_loss, reason = "a ratio")]
fn pressure_of(window: &dyn Inspect, trend: &Trend) -> Option<f64> {
    let capacity = window.capacity()?;
    Some(match is_sequence(window) {
        true => window.entries()? as f64 / capacity as f64,
        false => trend.pressure(window.ttl(), capacity),
    })
}

/// Returns the publishes with a known outcome, as the what-if curve counts them.
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
fn rounded(value: f64) -> u64 {
    value.round() as u64
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

    /// Every event must have a counter of its own: after the n-th event was reported n times, all counters must
    /// differ.
    #[test]
    fn every_event_moves_its_own_counter() {
        let accounting = Accounting::new();
        let (key, now, until) = (Key(1), Stamp(1), Stamp(2));
        let plain = [
            Event::Fresh { claim: Claim::Digest(key) },
            Event::Duplicate { claim: Claim::Digest(key), now },
            Event::InFlight,
            Event::Republished { claim: Claim::Digest(key) },
            Event::Recovered { claim: Claim::Digest(key), at: now, until },
            Event::NoId,
            Event::Bypassed,
            Event::Committed { claim: Claim::Digest(key), now, until },
            Event::CommittedInDoubt { claim: Claim::Digest(key), now, until },
            Event::Promoted,
            Event::TakenOver,
            Event::Refused,
            Event::Conflict { claim: Claim::Digest(key) },
            Event::Uncompared,
            Event::OutOfSequence(Refusal::Stale),
            Event::OutOfSequence(Refusal::Gap),
            Event::Gap,
            Event::Below,
        ];
        let forgotten = ForgetCause::ALL.map(Event::Forgotten);
        let evicted = EvictionCause::ALL.map(|cause| Event::Evicted {
            claim: Claim::Digest(key),
            at: now,
            until,
            now,
            cause,
        });
        let first = plain.len() as u64 + 1;
        let last = first + forgotten.len() as u64;
        let told = Told::ALL.map(Event::Told);
        let before = first + (forgotten.len() + evicted.len()) as u64;
        let events: Vec<Event> = plain.into_iter().chain(forgotten).chain(evicted).chain(told).collect();
        for (n, event) in events.iter().enumerate() {
            (0..=n).for_each(|_| accounting.on(event));
        }
        let read: Vec<u64> = [
            accounting.fresh(),
            accounting.duplicate(),
            accounting.in_flight(),
            accounting.republished(),
            accounting.recovered(),
            accounting.no_id(),
            accounting.bypassed(),
            accounting.committed(),
            accounting.committed_in_doubt(),
            accounting.promoted(),
            accounting.takeovers(),
            accounting.refused(),
            accounting.conflicts(),
            accounting.uncompared(),
            accounting.stale(),
            accounting.refused_gaps(),
            accounting.gaps(),
            accounting.below(),
        ]
        .into_iter()
        .chain(ForgetCause::ALL.map(|cause| accounting.forgotten(cause)))
        .chain(EvictionCause::ALL.map(|cause| accounting.evicted(cause)))
        .chain(Told::ALL.map(|told| accounting.told(told)))
        .collect();
        assert_eq!(read, (1..=events.len() as u64).collect::<Vec<_>>());
        assert_eq!(accounting.forgotten_total(), (first..last).sum::<u64>());
        assert_eq!(accounting.evicted_total(), (last..before).sum::<u64>());
    }
}
