//! The windows of a run: real ones, some behind a [`LateWindow`], with a listener that counts.

use super::content::{Counted, body_of_id, counted, death_of, text_of};
use super::ctx::{Ctx, Whose};
use super::jobs::QUEUES;
use super::plan::{Micros, Plan, SECOND, WindowPlan};
use super::schedule::{Event as SimEvent, Schedule, instant};
use super::shelf::Shelf;
use super::truth::{BACKING, EXCHANGES, ModelKey, ROUTING_KEYS, VHOST};
use super::watch::{Gate, Watch};
use crate::support::late::{Late, LateWindow};
use crate::support::pair::{NoSessionListener, shared};
use hapax_core::session::Shared;
use hapax_core::window::Windows;
use hapax_core::window::{
    Claim, ConfirmRule, Event, EvictionCause, Found, InDoubt, Inspect, Limits, Listener, LocalWindow,
    LoggedWindow, MissingId, Mode, OnConflict, Refusal, Release, RepublishRule, Rules, Scope, Signals,
    Window,
};
use hapax_core::wire::IdSource;
use hapax_core::wire::properties::IdValue;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

/// How often a window said what.
#[derive(Debug, Default)]
struct Counts {
    early: AtomicU64,
    promoted: AtomicU64,
    taken_over: AtomicU64,
    in_flight: AtomicU64,
    duplicate: AtomicU64,
    refused: AtomicU64,
    conflicts: AtomicU64,
    superseded: AtomicU64,
    released: AtomicU64,
    stale: AtomicU64,
}

impl Listener for Counts {
    fn on(&self, event: &Event) {
        let count = match event {
            Event::Evicted { cause: EvictionCause::Capacity | EvictionCause::Resize, .. } => &self.early,
            Event::Promoted => &self.promoted,
            Event::TakenOver => &self.taken_over,
            Event::InFlight => &self.in_flight,
            Event::Duplicate { .. } => &self.duplicate,
            Event::Refused => &self.refused,
            Event::Conflict { .. } => &self.conflicts,
            Event::Evicted { cause: EvictionCause::Superseded, .. } => &self.superseded,
            Event::Evicted { cause: EvictionCause::Consumed, .. } => &self.released,
            Event::OutOfSequence(Refusal::Stale) => &self.stale,
            _ => return,
        };
        count.fetch_add(1, Ordering::Relaxed);
    }
}

#[derive(Debug)]
struct One {
    local: Arc<LocalWindow>,
    late: Option<Arc<LateWindow>>,
    shelf: Option<Arc<Shelf>>,
    counts: Arc<Counts>,
    by: By,
    evictions: u64,
    answering: bool,
}

/// All windows of a run.
#[derive(Debug)]
pub struct SimWindows {
    all: Vec<One>,
    /// the guard of the consumers, and its counts
    guard: Option<(Arc<LocalWindow>, Arc<GuardCounts>)>,
    shared: Arc<Shared>,
}

/// Whether the body is the id, and whether numbers are.
type By = (bool, bool);

/// A window, its store if it has one, and where the id is.
type Asked = (Option<Arc<LateWindow>>, Option<Arc<Shelf>>, By);

/// Knows which commits windows do not remember yet.
#[derive(Debug)]
pub struct Oracle {
    windows: Vec<Asked>,
    shared: Arc<Shared>,
    /// the one of the process before, and when that ended
    before: Option<(Box<Oracle>, Micros)>,
}

impl Oracle {
    /// The process of another oracle has crashed, and this one is that of the next process.
    pub fn after(self, before: Option<Oracle>, now: Micros) -> Oracle {
        Oracle { before: before.map(|before| (Box::new(before), now)), ..self }
    }

    /// Whether the commit of a message, made at this time, is not remembered yet.
    pub fn is_unremembered(&self, key: ModelKey, committed: Micros) -> bool {
        let (late, shelf, by) = &self.windows[key.0];
        let (claim, at) = (real_key(&self.shared, *by, key), instant(committed));
        late.as_ref().is_some_and(|late| late.is_unremembered(claim, at))
            || shelf.as_ref().is_some_and(|shelf| shelf.is_unremembered(claim, at))
    }

    /// Whether it was not remembered yet at this other time.
    pub fn was_unremembered(&self, key: ModelKey, committed: Micros, then: Micros) -> bool {
        if let Some((before, ended)) = &self.before
            && then < *ended
        {
            return before.was_unremembered(key, committed, then);
        }
        let (late, shelf, by) = &self.windows[key.0];
        let claim = real_key(&self.shared, *by, key);
        let (at, then) = (instant(committed), instant(then));
        late.as_ref().is_some_and(|late| late.was_unremembered(claim, at, then))
            || shelf.as_ref().is_some_and(|shelf| shelf.was_unremembered(claim, at, then))
    }
}

/// The windows of the first two exchanges, in the vhost that has windows.
#[derive(Debug)]
struct ByExchange([Arc<Gate>; 2], Option<Arc<LocalWindow>>);

impl Windows for ByExchange {
    fn find(&self, vhost: &[u8], exchange: &[u8]) -> Option<Arc<dyn Window>> {
        let at = EXCHANGES.iter().position(|name| name.as_bytes() == exchange)?;
        let gate = self.0.get(at).filter(|_| vhost == VHOST.as_bytes())?;
        Some(gate.clone())
    }

    fn guard(&self, vhost: &[u8], queue: &[u8]) -> Option<Arc<dyn Window>> {
        let is_guarded = vhost == VHOST.as_bytes() && QUEUES.iter().any(|name| name.as_bytes() == queue);
        self.1.clone().filter(|_| is_guarded).map(|guard| guard as _)
    }

    fn has_guards(&self, vhost: &[u8]) -> bool {
        self.1.is_some() && vhost == VHOST.as_bytes()
    }

    fn releases(&self, vhost: &[u8]) -> bool {
        let releases = |gate: &Arc<Gate>| gate.rules().release == Release::Consumed;
        vhost == VHOST.as_bytes() && self.0.iter().any(releases)
    }

    fn delivering(&self, vhost: &[u8], exchange: &[u8]) -> Vec<Arc<dyn Window>> {
        let forwards_there =
            |gate: &&Arc<Gate>| gate.rules().forward_to.as_deref().map(str::as_bytes) == Some(exchange);
        let forwarding = self.0.iter().filter(forwards_there).filter(|_| vhost == VHOST.as_bytes());
        self.find(vhost, exchange).into_iter().chain(forwarding.map(|gate| gate.clone() as _)).collect()
    }
}

impl SimWindows {
    /// The windows of a plan.
    pub fn new(plan: &Plan, watch: &Arc<Watch>) -> SimWindows {
        SimWindows::after(None, plan, watch, 0)
    }

    /// The windows of another process, with what the one before has left in its stores.
    fn after(before: Option<&SimWindows>, plan: &Plan, watch: &Arc<Watch>, now: Micros) -> SimWindows {
        let shelf = |at: usize| before.and_then(|before| before.all[at].shelf.as_deref());
        let windows = plan.windows.iter().enumerate();
        let all: Vec<One> = windows.map(|(at, window)| One::new(at, window, shelf(at), now)).collect();
        let gate = |at: usize, window: usize| {
            let redirect = plan.windows[window].redirect;
            let exchange = if redirect { BACKING } else { EXCHANGES[at] };
            Arc::new(Gate { window: all[window].window(), exchange, watch: watch.clone() })
        };
        let gates = [gate(0, 0), gate(1, all.len() - 1)];
        let guard = plan.guards.then(guard);
        let guards = guard.as_ref().map(|(guard, _)| guard.clone());
        let shared = shared(plan.settings, Arc::new(ByExchange(gates, guards)), Arc::new(NoSessionListener));
        SimWindows { all, guard, shared }
    }

    /// The process ends, and another one begins.
    pub fn crash(&mut self, ctx: &mut Ctx) {
        self.report(ctx);
        let is_safe = |one: &One| one.shelf.as_ref().is_some_and(|shelf| shelf.is_safe());
        let safe: Vec<bool> = self.all.iter().map(is_safe).collect();
        *self = SimWindows::after(Some(self), &ctx.plan, &ctx.watch.clone(), ctx.now);
        self.show_guard(ctx);
        let now = instant(ctx.now);
        for (at, (one, is_safe)) in self.all.iter().zip(safe).enumerate() {
            let shared = &self.shared;
            ctx.truth.crashed(at, ctx.now, is_safe, |key| one.remembers(real_key(shared, one.by, key), now));
        }
    }

    /// Shows the truth the guard that consumers have now.
    pub fn show_guard(&self, ctx: &mut Ctx) {
        if let Some((guard, _)) = &self.guard {
            ctx.truth.jobs.guarded_by(guard.clone());
        }
    }

    /// Returns everything that the sessions share.
    pub fn shared(&self) -> Arc<Shared> {
        self.shared.clone()
    }

    /// Follows up on a step: schedules the answers of late windows, and records early evictions in the truth.
    pub fn look_after(&mut self, ctx: &mut Ctx, schedule: &mut Schedule) {
        for (at, one) in self.all.iter_mut().enumerate() {
            let is_busy = |late: &Arc<LateWindow>| late.questions() + late.unremembered() > 0;
            let has_log_to_write = || one.shelf.as_ref().is_some_and(|shelf| shelf.is_busy());
            if !one.answering && (one.late.as_ref().is_some_and(is_busy) || has_log_to_write()) {
                one.answering = true;
                ctx.turn_to(Whose::Window(at));
                let stuck = if ctx.rng.chance(ctx.plan.windows[at].stuck) { 3 * SECOND } else { 0 };
                schedule.at(ctx.soon(4 * ctx.plan.way + stuck), SimEvent::Answer(at));
            }
            let evictions = one.counts.early.load(Ordering::Relaxed);
            if evictions != one.evictions {
                one.evictions = evictions;
                let (now, shared) = (instant(ctx.now), &self.shared);
                ctx.truth.evicted(at, ctx.now, |key| one.remembers(real_key(shared, one.by, key), now));
            }
        }
    }

    /// A late window answers some questions, in any order, and writes some of its log.
    pub fn answer(&mut self, at: usize, ctx: &mut Ctx) {
        let one = &mut self.all[at];
        one.answering = false;
        if let Some(shelf) = &one.shelf {
            let stuck = ctx.plan.windows[at].stuck;
            if ctx.rng.chance(stuck) {
                ctx.truth.count("store: failed");
                shelf.window.store_failed(instant(ctx.now));
            } else if shelf.is_down() && ctx.rng.chance(500) {
                shelf.window.store_works(instant(ctx.now));
            } else {
                shelf.write(ctx.rng.some_of(shelf.waiting()), ctx.now);
            }
        }
        let Some(late) = &one.late else { return };
        let (silent, wrong) = (ctx.plan.windows[at].silent, ctx.plan.windows[at].wrong);
        for _ in 0..ctx.rng.some_of(late.questions()) {
            let (pick, now) = (ctx.rng.below(8), instant(ctx.now));
            if ctx.rng.chance(silent) {
                late.silence(pick);
            } else if ctx.rng.chance(wrong) {
                late.answer_twice(pick, now);
            } else {
                late.answer_next(pick, now);
            }
        }
        if ctx.rng.chance(wrong) {
            late.answer_withdrawn();
            late.call_in_vain();
        }
        late.remember(ctx.rng.some_of(late.unremembered()), instant(ctx.now));
    }

    /// Whether the commit of a message, made at this time, is one that its window does not remember yet.
    pub fn oracle(&self) -> Oracle {
        let windows = self.all.iter().map(|one| (one.late.clone(), one.shelf.clone(), one.by)).collect();
        Oracle { windows, shared: self.shared.clone(), before: None }
    }

    /// (d): how much is in flight or asked. (All logs are written to their ends first.)
    pub fn in_flight(&self, now: Micros) -> usize {
        self.all
            .iter()
            .filter_map(|one| one.late.as_ref())
            .for_each(|late| late.remember(usize::MAX, instant(now)));
        for shelf in self.all.iter().filter_map(|one| one.shelf.as_ref()) {
            shelf.window.store_works(instant(now));
            shelf.write(usize::MAX, now);
        }
        let asked = |one: &One| one.late.as_ref().map_or(0, |late| late.questions());
        let at_shelf = |one: &One| {
            one.shelf.as_ref().map_or(0, |shelf| shelf.window.in_flight().unwrap_or(0) + shelf.questions())
        };
        let guarded = self.guard.as_ref().map_or(0, |(guard, _)| guard.in_flight());
        guarded + self.all.iter().map(|one| one.local.in_flight() + asked(one) + at_shelf(one)).sum::<usize>()
    }

    /// Adds the windows' counts to the report.
    pub fn report(&self, ctx: &mut Ctx) {
        for late in self.all.iter().filter_map(|one| one.late.as_ref()) {
            let tally = late.tally();
            for (name, count) in [
                ("store: late verdict", tally.late_verdicts),
                ("store: second verdict", tally.second_verdicts),
                ("store: verdict for a question that was withdrawn", tally.stale_verdicts),
                ("store: overdue verdict", tally.overdue_verdicts),
                ("store: late commit", tally.late_commits),
                ("store: overdue commit, acked anyway", tally.acked_anyway),
                ("store: overdue, waited on", tally.waited_on),
            ] {
                *ctx.truth.counts.entry(name).or_default() += count;
            }
        }
        if let Some((_, counts)) = &self.guard {
            for (name, count) in [
                ("guard: hidden", &counts.hidden),
                ("guard: waited", &counts.waited),
                ("guard: given back", &counts.given_back),
            ] {
                *ctx.truth.counts.entry(name).or_default() += count.load(Ordering::Relaxed);
            }
        }
        for One { counts, local, .. } in &self.all {
            let tenants = local.tenants();
            let made_room = tenants.iter().filter(|tenant| tenant.evicted > 0).count() as u64;
            *ctx.truth.counts.entry("window: a tenant made room").or_default() += made_room;
            for (name, count) in [
                ("window: evicted early", &counts.early),
                ("window: promoted", &counts.promoted),
                ("window: taken over", &counts.taken_over),
                ("window: in flight", &counts.in_flight),
                ("window: duplicate", &counts.duplicate),
                ("window: refused", &counts.refused),
                ("window: conflict", &counts.conflicts),
                ("window: superseded", &counts.superseded),
                ("window: released", &counts.released),
                ("window: stale", &counts.stale),
            ] {
                *ctx.truth.counts.entry(name).or_default() += count.load(Ordering::Relaxed);
            }
        }
    }
}

/// How often the guard said what.
#[derive(Debug, Default)]
pub struct GuardCounts {
    hidden: AtomicU64,
    waited: AtomicU64,
    given_back: AtomicU64,
}

impl Listener for GuardCounts {
    fn on(&self, event: &Event) {
        let count = match event {
            Event::Duplicate { .. } => &self.hidden,
            Event::InFlight => &self.waited,
            Event::Forgotten(_) => &self.given_back,
            _ => return,
        };
        count.fetch_add(1, Ordering::Relaxed);
    }
}

/// A guard that forgets nothing while its process lives.
fn guard() -> (Arc<LocalWindow>, Arc<GuardCounts>) {
    let counts = Arc::new(GuardCounts::default());
    let limits = Limits {
        capacity: 1000,
        ttl: Duration::from_secs(1 << 20),
        mode: Mode::Enforce,
        refresh_on_duplicate: false,
        waiters_per_id: 3,
    };
    let engine = hapax_core::window::engine::EngineKind::default();
    (LocalWindow::new(Rules::named("guard"), limits, engine, counts.clone()), counts)
}

/// The window's own claim for a model key.
fn real_key(
    shared: &Shared,
    (by_body, sequence): By,
    (window, exchange, routing_key, id): ModelKey,
) -> Claim {
    let death = death_of(id).filter(|_| !by_body);
    let Counted { producer, epoch, number } = counted(id);
    let id = if by_body { body_of_id(id) } else { text_of(id).into_bytes() };
    let scope = if window == 1 { Scope::Exchange } else { Scope::RoutingKey };
    let (exchange, routing_key) = (EXCHANGES[exchange].as_bytes(), ROUTING_KEYS[routing_key].as_bytes());
    let scoped = shared.keys.scoped(scope, VHOST.as_bytes(), exchange, routing_key);
    let is_dead = death.is_some();
    let scoped = death.map_or(scoped, |death| scoped.with_death(&death));
    if sequence {
        let scoped = if is_dead { scoped.with_number(epoch.into(), number.into()) } else { scoped };
        let producer = scoped.producer(producer.as_bytes());
        return Claim::Sequence { producer, epoch: epoch.into(), number: number.into() };
    }
    scoped.key(&IdValue::Bytes(&id)).into()
}

impl One {
    fn new(at: usize, plan: &WindowPlan, before: Option<&Shelf>, now: Micros) -> One {
        let rules = Rules {
            name: format!("w{at}").into(),
            id: match at {
                1 if plan.by_body => IdSource::Body,
                1 => IdSource::Header("x-dedup".into()),
                _ if plan.sequence => IdSource::Sequence,
                _ => IdSource::MessageId,
            },
            scope: if at == 1 { Scope::Exchange } else { Scope::RoutingKey },
            in_doubt: if plan.keep { InDoubt::Keep } else { InDoubt::Forget },
            missing_id: if plan.reject { MissingId::Reject } else { MissingId::Forward },
            on_conflict: if plan.forwards_conflicts { OnConflict::Forward } else { OnConflict::Drop },
            confirms: ConfirmRule::Shadow,
            verify_routing: plan.verify,
            forward_to: plan.redirect.then(|| BACKING.into()),
            republish: if plan.drops_republish { RepublishRule::Drop } else { RepublishRule::default() },
            quota: plan.quota,
            release: if plan.releases { Release::Consumed } else { Release::Ttl },
            signals: Signals {
                on_duplicate: plan.on_duplicate,
                duplicates_to: Some("copies".into()),
                audit: true,
            },
            ..Rules::named("w")
        };
        let limits = Limits {
            capacity: plan.capacity,
            ttl: Duration::from_micros(plan.ttl),
            mode: if plan.observe { Mode::Observe } else { Mode::Enforce },
            refresh_on_duplicate: plan.refresh,
            waiters_per_id: plan.waiters,
        };
        let counts = Arc::new(Counts::default());
        let local: Arc<LocalWindow> = LocalWindow::new(rules.clone(), limits, plan.engine, counts.clone());
        let shelf = plan.logged.map(|policy| {
            let window: Arc<LoggedWindow> =
                LoggedWindow::new(rules, limits, plan.engine, counts.clone(), "test", policy, instant(now));
            Arc::new(Shelf::new(window, before, now))
        });
        let late = Late { verdicts: plan.late, commits: plan.log, waits_on: plan.waits_on };
        let late = (plan.late || plan.log).then(|| LateWindow::with(local.clone(), late));
        One { local, late, shelf, counts, by: (plan.by_body, plan.sequence), evictions: 0, answering: false }
    }

    fn window(&self) -> Arc<dyn Window> {
        match (&self.late, &self.shelf) {
            (Some(late), _) => late.clone(),
            (None, Some(shelf)) => shelf.window.clone(),
            (None, None) => self.local.clone(),
        }
    }

    /// Whether an id is seen.
    fn remembers(&self, key: Claim, now: Instant) -> bool {
        match &self.shelf {
            Some(shelf) => matches!(shelf.window.find(key, now), Some(Found::Seen(_))),
            None => self.local.get(key, now).is_some(),
        }
    }
}
