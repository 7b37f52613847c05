//! The windows of a run: real ones, some behind a [`LateWindow`], with a listener that counts.

use super::content::body_of_id;
use super::ctx::{Ctx, Whose};
use super::plan::{Plan, WindowPlan};
use super::schedule::{Event as SimEvent, Schedule, instant};
use super::truth::{BACKING, EXCHANGES, ModelKey, ROUTING_KEYS, VHOST};
use super::watch::{Gate, Watch};
use crate::support::late::LateWindow;
use crate::support::pair::{Deaf, shared};
use hapax_core::session::Shared;
use hapax_core::window::Windows;
use hapax_core::window::{
    Confirms, Event, EvictionCause, InDoubt, Key, Limits, Listener, LocalWindow, MissingId, Mode, Rules,
    Scope, Window,
};
use hapax_core::wire::IdSource;
use hapax_core::wire::properties::IdValue;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

/// How often a window said what.
#[derive(Debug, Default)]
struct Counts {
    early: AtomicU64,
    promoted: AtomicU64,
    taken_over: AtomicU64,
    in_flight: AtomicU64,
    duplicate: AtomicU64,
    refused: AtomicU64,
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
            _ => return,
        };
        count.fetch_add(1, Ordering::Relaxed);
    }
}

#[derive(Debug)]
struct One {
    local: Arc<LocalWindow>,
    late: Option<Arc<LateWindow>>,
    counts: Arc<Counts>,
    by_body: bool,
    evictions: u64,
    answering: bool,
}

/// See the module.
#[derive(Debug)]
pub struct SimWindows {
    all: Vec<One>,
    shared: Arc<Shared>,
}

/// The windows of the first two exchanges, in the vhost that has windows.
#[derive(Debug)]
struct ByExchange([Arc<Gate>; 2]);

impl Windows for ByExchange {
    fn find(&self, vhost: &[u8], exchange: &[u8]) -> Option<Arc<dyn Window>> {
        let at = EXCHANGES.iter().position(|name| name.as_bytes() == exchange)?;
        let gate = self.0.get(at).filter(|_| vhost == VHOST.as_bytes())?;
        Some(gate.clone())
    }
}

impl SimWindows {
    /// The windows of a plan.
    pub fn new(plan: &Plan, watch: &Arc<Watch>) -> SimWindows {
        let all: Vec<One> =
            plan.windows.iter().enumerate().map(|(at, window)| One::new(at, window)).collect();
        let gate = |at: usize, window: usize| {
            let redirect = plan.windows[window].redirect;
            let exchange = if redirect { BACKING } else { EXCHANGES[at] };
            Arc::new(Gate { window: all[window].window(), exchange, watch: watch.clone() })
        };
        let gates = [gate(0, 0), gate(1, all.len() - 1)];
        let shared = shared(plan.settings, Arc::new(ByExchange(gates)), Arc::new(Deaf));
        SimWindows { all, shared }
    }

    /// What the sessions share.
    pub fn shared(&self) -> Arc<Shared> {
        self.shared.clone()
    }

    /// After a step: late windows get a time to answer, early evictions are told to the truth.
    pub fn look_after(&mut self, ctx: &mut Ctx, schedule: &mut Schedule) {
        for (at, one) in self.all.iter_mut().enumerate() {
            if !one.answering && one.late.as_ref().is_some_and(|late| late.questions() > 0) {
                one.answering = true;
                ctx.turn_to(Whose::Window(at));
                schedule.at(ctx.soon(ctx.plan.way), SimEvent::Answer(at));
            }
            let evictions = one.counts.early.load(Ordering::Relaxed);
            if evictions != one.evictions {
                one.evictions = evictions;
                let (now, shared) = (instant(ctx.now), &self.shared);
                ctx.truth.evicted(at, ctx.now, |key| {
                    one.local.get(real_key(shared, one.by_body, key), now).is_some()
                });
            }
        }
    }

    /// A late window answers some questions, in any order.
    pub fn answer(&mut self, at: usize, ctx: &mut Ctx) {
        let one = &mut self.all[at];
        one.answering = false;
        let Some(late) = &one.late else { return };
        for _ in 0..ctx.rng.some_of(late.questions()) {
            late.answer_next(ctx.rng.below(8), instant(ctx.now));
        }
    }

    /// (d): how much is in flight or asked.
    pub fn in_flight(&self) -> usize {
        let asked = |one: &One| one.late.as_ref().map_or(0, |late| late.questions());
        self.all.iter().map(|one| one.local.in_flight() + asked(one)).sum()
    }

    /// What the windows have said, for the report.
    pub fn report(&self, ctx: &mut Ctx) {
        for One { counts, .. } in &self.all {
            for (name, count) in [
                ("window: evicted early", &counts.early),
                ("window: promoted", &counts.promoted),
                ("window: taken over", &counts.taken_over),
                ("window: in flight", &counts.in_flight),
                ("window: duplicate", &counts.duplicate),
                ("window: refused", &counts.refused),
            ] {
                *ctx.truth.counts.entry(name).or_default() += count.load(Ordering::Relaxed);
            }
        }
    }
}

/// The window's own key for a model key.
fn real_key(shared: &Shared, by_body: bool, (window, exchange, routing_key, id): ModelKey) -> Key {
    let id = if by_body { body_of_id(id) } else { format!("id-{id}").into_bytes() };
    let scope = if window == 1 { Scope::Exchange } else { Scope::RoutingKey };
    let (exchange, routing_key) = (EXCHANGES[exchange].as_bytes(), ROUTING_KEYS[routing_key].as_bytes());
    shared.keys.key(scope, VHOST.as_bytes(), exchange, routing_key, &IdValue::Bytes(&id))
}

impl One {
    fn new(at: usize, plan: &WindowPlan) -> One {
        let rules = Rules {
            name: format!("w{at}").into(),
            id: match at {
                1 if plan.by_body => IdSource::Body,
                1 => IdSource::Header("x-dedup".into()),
                _ => IdSource::MessageId,
            },
            scope: if at == 1 { Scope::Exchange } else { Scope::RoutingKey },
            in_doubt: if plan.keep { InDoubt::Keep } else { InDoubt::Forget },
            missing_id: if plan.reject { MissingId::Reject } else { MissingId::Forward },
            confirms: Confirms::Shadow,
            forward_to: plan.redirect.then(|| BACKING.into()),
        };
        let limits = Limits {
            capacity: plan.capacity,
            ttl: Duration::from_micros(plan.ttl),
            mode: if plan.observe { Mode::Observe } else { Mode::Enforce },
            refresh_on_duplicate: plan.refresh,
            waiters_per_id: plan.waiters,
        };
        let counts = Arc::new(Counts::default());
        let local: Arc<LocalWindow> = LocalWindow::new(rules, limits, plan.engine, counts.clone());
        let late = plan.late.then(|| LateWindow::new(local.clone()));
        One { local, late, counts, by_body: plan.by_body, evictions: 0, answering: false }
    }

    fn window(&self) -> Arc<dyn Window> {
        match &self.late {
            Some(late) => late.clone(),
            None => self.local.clone(),
        }
    }
}
