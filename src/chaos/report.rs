//! The report of a run, for people and programs.

use super::replay::ReplayFacts;
use hapax_core::pressure::{Facts, Watched};
use hapax_core::session::ChaosWhat;
use serde::Serialize;
use std::time::Instant;
use utoipa::ToSchema;

/// Why a run has ended.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Ended {
    /// its duration is over
    Time,
    /// an operator has stopped it
    Stopped,
    /// a reload has forbidden it
    Reload,
    /// the process ends
    Drain,
}

impl Ended {
    /// As a report says it.
    pub(super) fn word(self) -> &'static str {
        match self {
            Ended::Time => "time",
            Ended::Stopped => "stopped",
            Ended::Reload => "reload",
            Ended::Drain => "drain",
        }
    }
}

/// A run of chaos: what was asked for, what was done, and what the windows and guards have answered.
#[derive(Clone, PartialEq, Debug, Serialize, ToSchema)]
pub struct ChaosReport {
    /// counts the runs of this process from 1
    pub number: u64,
    /// by which the run decides
    pub seed: u64,
    /// false: it is over
    pub running: bool,
    /// who has started it
    pub by: String,
    /// when it began
    pub began_at: String,
    /// when it ended
    pub ended_at: Option<String>,
    /// why: `time`, `stopped`, `reload` or `drain`
    pub ended: Option<String>,
    /// who has stopped it
    pub ended_by: Option<String>,
    /// how long it was to last
    pub duration_seconds: f64,
    /// how long it has lasted
    pub elapsed_seconds: f64,
    /// how long it holds confirms back
    pub hold_for_seconds: f64,
    /// the windows and guards that it troubles; empty: all messages, those that nothing judges included
    pub chosen: Vec<String>,
    /// each fault: its share, how often it was done, and how often not, because a message could have been lost
    pub faults: Vec<FaultCount>,
    /// the same by window, vhost, user and place
    pub rows: Vec<Row>,
    /// how many of these have no row, because a report has 1,000 at most
    pub rows_left_out: u64,
    /// deliveries marked as redelivered that consumers were shown
    pub shown_again: u64,
    /// those of them that a consumer had acked in this run: jobs that are done twice, unless the consumer knows better. Only messages with a
    /// `message-id` are recognized
    pub acked_shown_again: u64,
    /// the answers of the windows and guards to all clients since the run began
    pub windows: Vec<WindowAnswers>,
    /// what became of messages that were to be published again; null: none was
    pub replays: Option<ReplayFacts>,
}

/// How often a fault was done.
#[derive(Clone, PartialEq, Debug, Serialize, ToSchema)]
pub struct FaultCount {
    /// `drop_acks`, `hold_acks`, `cut`, `redeliver` or `replay`
    #[schema(example = "drop_acks")]
    pub fault: String,
    /// the share of its occasions that was asked for
    pub share: f64,
    /// how often it was done
    pub done: u64,
    /// how often it was not done, because a message could have been lost by it
    pub spared: u64,
}

/// A count by fault, place and user.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, ToSchema)]
#[schema(as = ChaosRow)]
pub struct Row {
    /// the fault, `spared` before it if it was not done; or `shown_again`
    #[schema(example = "redeliver")]
    pub what: String,
    /// the window or guard
    pub window: Option<String>,
    /// the vhost of the client
    pub vhost: String,
    /// the user of the client
    pub user: String,
    /// the exchange of a publish, the routing key of a delivery
    pub place: String,
    /// how often
    pub count: u64,
}

impl Row {
    /// Returns what was done in a word.
    pub(super) fn word(what: ChaosWhat) -> String {
        match what {
            ChaosWhat::Done(fault) => fault.name().to_owned(),
            ChaosWhat::Spared(fault) => format!("spared {}", fault.name()),
            ChaosWhat::ShownAgain => "shown_again".to_owned(),
        }
    }
}

/// The answers of a window or a guard since the run began.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, ToSchema)]
#[schema(as = ChaosAnswers)]
pub struct WindowAnswers {
    /// its name
    pub name: String,
    /// `enforce`, `observe` or `off`
    pub mode: String,
    /// publishes that were forwarded as new ones; of a guard: deliveries that were shown
    pub fresh: u64,
    /// duplicates that were dropped; of a guard: deliveries that were hidden. With `observe` they were only counted
    pub duplicates: u64,
    /// duplicates that got through, because their ids had been evicted early
    pub escaped: u64,
    /// duplicates whose body was another one
    pub conflicts: u64,
    /// publishes that were refused, because too many waited or they waited for too long
    pub refused: u64,
    /// publishes without an id, which nothing protects
    pub no_id: u64,
    /// ids that were forgotten because nobody knows the outcome (`in_doubt`): a retry of a stored message gets through
    pub in_doubt: u64,
}

impl WindowAnswers {
    /// Compares a window with what was known of it before.
    pub(super) fn between(watched: &Watched, before: &Facts, now: Instant) -> WindowAnswers {
        let after = watched.facts(now);
        let since = |of: fn(&Facts) -> u64| of(&after).saturating_sub(of(before));
        WindowAnswers {
            name: watched.window.rules().name.to_string(),
            mode: watched.window.mode().name().to_owned(),
            fresh: since(|facts| facts.publishes.fresh),
            duplicates: since(|facts| facts.publishes.duplicate),
            escaped: since(|facts| facts.escaped_duplicates),
            conflicts: since(|facts| facts.conflicts),
            refused: since(|facts| facts.refused),
            no_id: since(|facts| facts.publishes.no_id),
            in_doubt: since(|facts| facts.forgotten.get("in_doubt").copied().unwrap_or_default()),
        }
    }
}

impl ChaosReport {
    /// Returns what was done in one line.
    pub(super) fn shown(&self) -> String {
        let counts = self.faults.iter().filter(|fault| fault.share > 0.0);
        let counts: Vec<String> = counts.map(|fault| format!("{} {}", fault.fault, fault.done)).collect();
        counts.join(", ")
    }
}
