//! One run: its plan, and what it has done.

use super::order::ChaosOrder;
use super::replay::Replays;
use super::report::{ChaosReport, Ended, FaultCount, Row, WindowAnswers};
use hapax_core::pressure::{Facts, Watched};
use hapax_core::session::{ChaosDeed, ChaosFault, ChaosPlan, ChaosWhat, KeptPublish};
use parking_lot::Mutex;
use std::collections::{BTreeMap, HashSet};
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};
use tokio::sync::watch;

/// Rows of a report. Further ones are counted together.
const ROWS: usize = 1_000;
/// Bytes that are kept of a name in a row.
const LONGEST: usize = 255;
/// Acked deliveries that are known by their message-id, to see them again. One takes 16 bytes.
const KNOWN: usize = 100_000;

/// A run.
#[derive(Debug)]
pub(super) struct Run {
    pub(super) number: u64,
    /// the number that the last connection had when it began
    pub(super) first_connection: u64,
    pub(super) plan: Arc<ChaosPlan>,
    pub(super) replays: Option<Arc<Replays>>,
    by: String,
    began: (Instant, SystemTime),
    duration: Duration,
    /// the windows and guards that it troubles, and what was known of each before
    windows: Vec<(Watched, Facts)>,
    tallies: Mutex<Tallies>,
    /// says how it has ended
    pub(super) ended: watch::Sender<Option<End>>,
}

/// How a run has ended.
#[derive(Clone, Debug)]
pub(super) struct End {
    why: Ended,
    by: Option<String>,
    at: Instant,
    /// what the windows have answered
    windows: Vec<WindowAnswers>,
}

/// What is counted.
#[derive(Debug, Default)]
struct Tallies {
    counts: BTreeMap<ChaosWhat, u64>,
    rows: BTreeMap<(ChaosWhat, Place), u64>,
    rows_left_out: u64,
    /// deliveries that were acked and are delivered again
    acked: HashSet<u64>,
    acked_shown_again: u64,
}

/// Where something was done, and to whom.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Debug)]
struct Place {
    window: Option<Arc<str>>,
    vhost: String,
    user: String,
    place: String,
}

impl Run {
    /// Begins the run of this number at this time. `first_connection`: the number of the newest connection then.
    pub(super) fn new(
        (number, first_connection): (u64, u64),
        order: &ChaosOrder,
        by: &str,
        windows: Vec<Watched>,
        began: (Instant, SystemTime),
        replays: Option<Replays>,
    ) -> Run {
        let chosen = (!order.windows.is_empty()).then(|| order.windows.clone().into());
        let plan = ChaosPlan {
            seed: order.seed,
            shares: order.shares,
            hold_for: order.hold_for,
            windows: chosen,
            until: began.0 + order.duration,
        };
        Run {
            number,
            first_connection,
            plan: Arc::new(plan),
            replays: replays.map(Arc::new),
            by: by.to_owned(),
            began,
            duration: order.duration,
            windows: windows.into_iter().map(|watched| (watched.clone(), watched.facts(began.0))).collect(),
            tallies: Mutex::default(),
            ended: watch::Sender::new(None),
        }
    }

    /// Notes what a session has done or seen.
    pub(super) fn note(&self, deed: ChaosDeed, vhost: &[u8], user: Option<&str>) {
        let text = |bytes: &[u8]| {
            let bytes = bytes.get(..LONGEST.min(bytes.len())).unwrap_or_default();
            String::from_utf8_lossy(bytes).into_owned()
        };
        let ChaosDeed { what, window, place, message } = deed;
        let place = Place {
            window,
            vhost: text(vhost),
            user: text(user.unwrap_or_default().as_bytes()),
            place: text(&place),
        };
        let mut tallies = self.tallies.lock();
        *tallies.counts.entry(what).or_default() += 1;
        let has_room = tallies.rows.len() < ROWS;
        match tallies.rows.get_mut(&(what, place.clone())) {
            Some(count) => *count += 1,
            None if has_room => _ = tallies.rows.insert((what, place), 1),
            None => tallies.rows_left_out += 1,
        }
        match (what, message) {
            (ChaosWhat::Done(ChaosFault::Redeliver), Some(message)) if tallies.acked.len() < KNOWN => {
                tallies.acked.insert(message);
            }
            (ChaosWhat::ShownAgain, Some(message)) if tallies.acked.contains(&message) => {
                tallies.acked_shown_again += 1;
            }
            _ => {}
        }
    }

    /// Keeps a publish that comes again.
    pub(super) fn keep(&self, publish: KeptPublish, now: Instant) {
        if let Some(replays) = &self.replays {
            replays.keep(publish, now, self.plan.until);
        }
    }

    /// Notes the end.
    pub(super) fn end(&self, why: Ended, by: Option<&str>, now: Instant) {
        let end = End { why, by: by.map(str::to_owned), at: now, windows: self.answers(now) };
        self.ended.send_replace(Some(end));
    }

    /// Returns what is to be done, in words.
    pub(super) fn shown(&self) -> String {
        let share = |fault: &ChaosFault| {
            let share = self.plan.shares.of(*fault);
            (share > 0.0).then(|| format!("{} {share}", fault.name()))
        };
        let shares: Vec<String> = ChaosFault::ALL.iter().filter_map(share).collect();
        let windows = self.plan.windows.iter().flatten().map(|name| name.to_string()).collect::<Vec<_>>();
        let windows = if windows.is_empty() { String::new() } else { format!(" in {}", windows.join(", ")) };
        format!("{}{windows}", shares.join(", "))
    }

    /// Returns what the windows have answered since the run began.
    fn answers(&self, now: Instant) -> Vec<WindowAnswers> {
        self.windows.iter().map(|(watched, before)| WindowAnswers::between(watched, before, now)).collect()
    }

    /// Returns what was done until now.
    pub(super) fn report(&self, now: Instant) -> ChaosReport {
        let end = self.ended.borrow().clone();
        let at = end.as_ref().map_or(now, |end| end.at);
        let elapsed = at.saturating_duration_since(self.began.0);
        let date = |after: Duration| {
            let at = self.began.1.checked_add(after).unwrap_or(self.began.1);
            humantime::format_rfc3339_millis(at).to_string()
        };
        let tallies = self.tallies.lock();
        let count = |what| tallies.counts.get(&what).copied().unwrap_or_default();
        let replays = self.replays.as_ref().map(|replays| replays.facts());
        let fault = |fault: ChaosFault| FaultCount {
            fault: fault.name().to_owned(),
            share: self.plan.shares.of(fault),
            done: match (fault, &replays) {
                (ChaosFault::Replay, Some(replays)) => replays.published,
                _ => count(ChaosWhat::Done(fault)),
            },
            spared: count(ChaosWhat::Spared(fault)),
        };
        let row = |((what, place), count): (&(ChaosWhat, Place), &u64)| Row {
            what: Row::word(*what),
            window: place.window.as_deref().map(str::to_owned),
            vhost: place.vhost.clone(),
            user: place.user.clone(),
            place: place.place.clone(),
            count: *count,
        };
        ChaosReport {
            number: self.number,
            seed: self.plan.seed,
            running: end.is_none(),
            by: self.by.clone(),
            began_at: date(Duration::ZERO),
            ended_at: end.as_ref().map(|_| date(elapsed)),
            ended: end.as_ref().map(|end| end.why.word().to_owned()),
            ended_by: end.as_ref().and_then(|end| end.by.clone()),
            duration_seconds: self.duration.as_secs_f64(),
            elapsed_seconds: elapsed.as_secs_f64(),
            hold_for_seconds: self.plan.hold_for.as_secs_f64(),
            chosen: self.plan.windows.iter().flatten().map(|name| name.to_string()).collect(),
            faults: ChaosFault::ALL.map(fault).to_vec(),
            rows: tallies.rows.iter().map(row).collect(),
            rows_left_out: tallies.rows_left_out,
            shown_again: count(ChaosWhat::ShownAgain),
            acked_shown_again: tallies.acked_shown_again,
            windows: end.map_or_else(|| self.answers(now), |end| end.windows),
            replays,
        }
    }
}
