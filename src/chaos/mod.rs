//! Runs of chaos: trouble that an operator asks for, so that a team sees what happens when a message arrives twice.
//!
//! ```text
//!   POST /api/v1/chaos ──▶ Chaos::start ──▶ a Run ──▶ its plan, to the sessions that may be troubled (net::pump)
//!                                             ▲                │ deeds, and publishes that come again
//!                                             └────────────────┘
//! ```
//!
//! The sessions decide and act (`hapax_core::session`). Here is who may be troubled, when a run ends, what is counted, and the client that
//! publishes again ([`replay`]). Without a run, a connection compares one number for each turn.

mod order;
mod replay;
mod report;
mod run;

pub use order::{ChaosOrder, MIN_DURATION};
pub use report::{ChaosReport, Ended};

use crate::clock::{now, wall};
use crate::config::{ChaosSettings, PublishingSettings};
use crate::tls;
use hapax_core::pressure::Watched;
use hapax_core::session::{ChaosDeed, ChaosFault, ChaosOrders, ChaosWhat, KeptPublish};
use hapax_core::window::{Inspect, LiveWindows, WindowSet};
use parking_lot::Mutex;
use replay::Replays;
use run::Run;
use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use tokio::sync::watch;

/// Why a run can't be started, or stopped.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Refused {
    /// The configuration does not allow it.
    Off(&'static str),
    /// One is on already.
    On {
        /// its seed
        seed: u64,
        /// seconds until it is over
        left: u64,
    },
    /// The process is about to end.
    Draining,
    /// The order is wrong in these ways.
    Wrong(Vec<String>),
}

/// The chaos of the process.
pub struct Chaos {
    /// another number after each change of what holds for connections; 0: nobody was ever allowed anything
    generation: AtomicU64,
    inner: Mutex<Inner>,
    windows: Arc<LiveWindows<dyn Inspect>>,
    replay: Option<(PublishingSettings, Option<Arc<tls::Client>>)>,
    /// true from the order to end on
    leaving: watch::Receiver<bool>,
    /// wakes all connections, so that they look at their orders again
    wake: Box<dyn Fn() + Send + Sync>,
    done: [AtomicU64; ChaosFault::ALL.len()],
    spared: [AtomicU64; ChaosFault::ALL.len()],
}

struct Inner {
    settings: ChaosSettings,
    runs: u64,
    run: Option<Arc<Run>>,
    last: Option<Arc<Run>>,
}

impl fmt::Debug for Chaos {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Chaos").field("generation", &self.generation).finish_non_exhaustive()
    }
}

impl Default for Chaos {
    /// Creates the chaos of a process that allows none.
    fn default() -> Chaos {
        let windows = LiveWindows::new(WindowSet::default());
        let (_, leaving) = watch::channel(false);
        Chaos::new(&ChaosSettings::default(), windows, None, leaving, Box::new(|| ()))
    }
}

impl Chaos {
    /// Begins without a run. `wake` is called when connections have something to follow.
    pub fn new(
        settings: &ChaosSettings,
        windows: Arc<LiveWindows<dyn Inspect>>,
        replay_tls: Option<Arc<tls::Client>>,
        leaving: watch::Receiver<bool>,
        wake: Box<dyn Fn() + Send + Sync>,
    ) -> Chaos {
        Chaos {
            generation: AtomicU64::new(u64::from(settings.enabled)),
            replay: settings.replay.clone().map(|replay| (replay, replay_tls)),
            inner: Mutex::new(Inner { settings: settings.clone(), runs: 0, run: None, last: None }),
            windows,
            leaving,
            wake,
            done: Default::default(),
            spared: Default::default(),
        }
    }

    /// Returns a number that is another one whenever [`Chaos::orders`] may be.
    #[inline]
    pub fn generation(&self) -> u64 {
        self.generation.load(Ordering::Relaxed)
    }

    /// Returns what holds for the connection of this number. `None`: it may not be troubled.
    pub fn orders(&self, connection: u64, vhost: &[u8], user: Option<&str>) -> Option<ChaosOrders> {
        let inner = self.inner.lock();
        let run = inner.run.as_ref();
        let first = run.map_or(0, |run| run.first_connection);
        let orders = ChaosOrders {
            connection: connection.wrapping_sub(first),
            plan: run.map(|run| Arc::clone(&run.plan)),
        };
        inner.settings.allows(vhost, user).then_some(orders)
    }

    /// Returns the settings in force.
    pub fn settings(&self) -> ChaosSettings {
        self.inner.lock().settings.clone()
    }

    /// Puts other settings in force. A run that they do not allow ends.
    pub fn configure(&self, settings: &ChaosSettings) {
        let (forbidden, changed) = {
            let mut inner = self.inner.lock();
            let changed = inner.settings != *settings;
            inner.settings = settings.clone();
            (!settings.enabled || settings.vhosts.is_empty(), changed)
        };
        if forbidden {
            self.end(None, Ended::Reload, None);
        }
        if changed {
            self.changed();
        }
    }

    /// Starts a run. `by`: who wants it. `windows`: those that it may name. `connections`: how many there have been until now.
    pub fn start(
        self: &Arc<Chaos>,
        order: &ChaosOrder,
        by: &str,
        windows: &[Watched],
        connections: u64,
    ) -> Result<ChaosReport, Refused> {
        let (now, wall) = (now(), wall());
        let run = {
            let mut inner = self.inner.lock();
            let settings = &inner.settings;
            if !settings.enabled {
                return Err(Refused::Off("write enabled = true under [chaos], and name vhosts there"));
            }
            if settings.vhosts.is_empty() {
                return Err(Refused::Off("[chaos] names no vhost: write vhosts = [\"staging\"] there"));
            }
            if *self.leaving.borrow() {
                return Err(Refused::Draining);
            }
            if let Some(run) = &inner.run {
                let left = run.plan.until.saturating_duration_since(now);
                return Err(Refused::On { seed: run.plan.seed, left: left.as_secs() });
            }
            let wrong = order.check(settings, windows);
            if !wrong.is_empty() {
                return Err(Refused::Wrong(wrong));
            }
            let chosen = windows.iter().filter(|watched| order.means(&watched.window.rules().name));
            let replays = match &self.replay {
                Some((settings, _)) if order.shares.of(ChaosFault::Replay) > 0.0 => {
                    Some(Replays::new(settings))
                }
                _ => None,
            };
            inner.runs += 1;
            let numbers = (inner.runs, connections);
            let run = Arc::new(Run::new(numbers, order, by, chosen.cloned().collect(), (now, wall), replays));
            inner.run = Some(Arc::clone(&run));
            run
        };
        tracing::warn!(
            seed = run.plan.seed,
            by,
            duration = %humantime::format_duration(run.plan.until.saturating_duration_since(now)),
            what = %run.shown(),
            "a run of chaos has begun: clients are cut and delayed on purpose"
        );
        self.changed();
        tokio::spawn(Arc::clone(self).watch_over(Arc::clone(&run)));
        Ok(run.report(now))
    }

    /// Ends the run that is on, if one is. Returns what it has done.
    pub fn stop(&self, by: &str) -> Option<ChaosReport> {
        let run = self.end(None, Ended::Stopped, Some(by))?;
        Some(run.report(now()))
    }

    /// Returns true if a run is on.
    pub fn is_on(&self) -> bool {
        self.inner.lock().run.is_some()
    }

    /// Returns what the run that is on has done until now, or what the last one has done.
    pub fn report(&self) -> Option<ChaosReport> {
        let inner = self.inner.lock();
        let run = inner.run.as_ref().or(inner.last.as_ref()).cloned();
        drop(inner);
        run.map(|run| run.report(now()))
    }

    /// Returns the number of faults that were done since the start of the process, and of those that were spared.
    pub fn counts(&self, fault: ChaosFault) -> (u64, u64) {
        let count = |counts: &[AtomicU64]| {
            counts.get(fault as usize).map_or(0, |count| count.load(Ordering::Relaxed))
        };
        (count(&self.done), count(&self.spared))
    }

    /// Notes what a session has done or seen.
    pub fn note(&self, deed: ChaosDeed, vhost: &[u8], user: Option<&str>) {
        let counts = match deed.what {
            ChaosWhat::Done(fault) => self.done.get(fault as usize),
            ChaosWhat::Spared(fault) => self.spared.get(fault as usize),
            ChaosWhat::ShownAgain => None,
        };
        counts.into_iter().for_each(|count| _ = count.fetch_add(1, Ordering::Relaxed));
        let inner = self.inner.lock();
        // (A deed of the last turn may come when the run is over.)
        if let Some(run) = inner.run.as_ref().or(inner.last.as_ref()) {
            run.note(deed, vhost, user);
        }
    }

    /// Keeps a publish that comes again, if there is room.
    pub fn keep(&self, publish: KeptPublish) {
        let run = self.inner.lock().run.clone();
        if let Some(run) = run {
            run.keep(publish, now());
        }
    }

    /// Waits for the end of a run, and publishes again meanwhile.
    async fn watch_over(self: Arc<Chaos>, run: Arc<Run>) {
        let mut leaving = self.leaving.clone();
        let mut ended = run.ended.subscribe();
        let replaying = async {
            if let (Some(replays), Some((settings, tls))) = (&run.replays, &self.replay) {
                let count = |replays: u64| self.done_replays(replays);
                replays.publish(settings, tls.as_ref(), &self.windows, count).await;
            }
            std::future::pending::<()>().await;
        };
        let why = tokio::select! {
            () = tokio::time::sleep_until(run.plan.until.into()) => Some(Ended::Time),
            Ok(_) = leaving.wait_for(|leaving| *leaving) => Some(Ended::Drain),
            _ = ended.wait_for(Option::is_some) => None,
            () = replaying => None,
        };
        if let Some(why) = why {
            self.end(Some(run.number), why, None);
        }
    }

    fn done_replays(&self, replays: u64) {
        let count = self.done.get(ChaosFault::Replay as usize);
        count.into_iter().for_each(|count| _ = count.fetch_add(replays, Ordering::Relaxed));
    }

    /// Ends the run of this number, or whichever is on.
    fn end(&self, number: Option<u64>, why: Ended, by: Option<&str>) -> Option<Arc<Run>> {
        let run = {
            let mut inner = self.inner.lock();
            let run = inner.run.take_if(|run| number.is_none_or(|number| number == run.number))?;
            inner.last = Some(Arc::clone(&run));
            run
        };
        run.end(why, by, now());
        self.changed();
        let report = run.report(now());
        tracing::warn!(
            seed = run.plan.seed,
            why = why.word(),
            by,
            done = %report.shown(),
            "the run of chaos is over: hapax chaos report says what it has done"
        );
        Some(run)
    }

    fn changed(&self) {
        self.generation.fetch_add(1, Ordering::Relaxed);
        (self.wake)();
    }
}
