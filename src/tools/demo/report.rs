//! The result of the demo: tables for people, JSON for programs, and the checks that make it pass or fail.

use super::cases::Cases;
use super::census::Census;
use super::client::Outcome;
use super::crash::Crash;
use super::metrics::Relayed;
use super::plan::Plan;
use super::tally::Counts;
use crate::tools::text::grouped;
use comfy_table::presets::UTF8_FULL_CONDENSED;
use comfy_table::{CellAlignment, Table};
use serde_json::json;
use std::ops::Range;

/// Everything that was planned, counted and found.
#[derive(Debug)]
pub(super) struct Report {
    /// what was to be published
    pub(super) plan: Plan,
    /// what the publishers counted
    pub(super) counts: Counts,
    /// what the relay counted; none if the relay is somebody else's
    pub(super) relayed: Option<Relayed>,
    /// what the queue held
    pub(super) census: Census,
    /// the two failures
    pub(super) cases: Cases,
    /// the relays that were killed; none if the relay is somebody else's
    pub(super) crashes: Vec<Crash>,
}

/// One thing that must hold.
#[derive(Clone, PartialEq, Eq, Debug, serde::Serialize)]
pub(super) struct Check {
    pub(super) what: String,
    pub(super) holds: bool,
}

impl Report {
    /// Whether all of it holds.
    pub(super) fn passes(&self) -> bool {
        self.checks().iter().all(|check| check.holds)
    }

    /// Publishes that were written to a connection of a crashing producer and did not reach the relay.
    fn lost_with_a_crash(&self) -> Option<u64> {
        let relayed = self.relayed?;
        self.counts.sent.checked_sub(relayed.fresh + relayed.duplicate + relayed.unjudged + relayed.refused)
    }

    fn checks(&self) -> Vec<Check> {
        let Report { plan, counts, census, cases, .. } = self;
        let replayed = length(&plan.replayed);
        let mut checks = vec![
            Check {
                what: format!(
                    "every id exactly once: {} of {} ids ({} twice or more, {} missing)",
                    grouped(census.once),
                    grouped(plan.ids()),
                    grouped(census.repeated),
                    grouped(census.missing)
                ),
                holds: census.is_exact() && census.once == plan.ids(),
            },
            Check {
                what: format!(
                    "every publish acked, but for those whose producer had crashed: {} + {} of {}",
                    grouped(counts.acked),
                    grouped(counts.unconfirmed),
                    grouped(counts.sent)
                ),
                holds: counts.sent == plan.messages()
                    && counts.acked + counts.unconfirmed == counts.sent
                    && counts.unconfirmed <= replayed,
            },
        ];
        if let Some(relayed) = self.relayed {
            let lost = self.lost_with_a_crash();
            checks.push(Check {
                what: format!(
                    "/metrics of the relay agrees: {} forwarded and stored, {} dropped",
                    grouped(relayed.commits),
                    grouped(relayed.duplicate)
                ),
                holds: relayed.commits == census.messages
                    && relayed.fresh == relayed.commits + relayed.forgotten
                    && lost.is_some_and(|lost| lost <= replayed),
            });
        }
        for (what, case) in [("queue full", cases.queue_full), ("unroutable", cases.unroutable)] {
            checks.push(Check {
                what: format!("{what}, then the same id again: delivered through Hapax"),
                holds: case.hapax.is_delivered(),
            });
        }
        checks.extend(self.crashes.iter().map(|crash| Check {
            what: format!(
                "killed with store = \"{}\": of {} acked ids {} passed again, {} are missing",
                crash.store,
                grouped(crash.acked),
                grouped(crash.passed),
                grouped(crash.missing)
            ),
            holds: crash.is_right(),
        }));
        checks
    }

    /// Returns a table of the relays that were killed.
    pub(super) fn crashes(&self) -> Table {
        let header = ["", "disk: started again", "stream: a second relay goes on"];
        let mut table = numbers(header, 1..3);
        let mut row = |what: &str, count: fn(&Crash) -> u64| {
            let counts = self.crashes.iter().map(|crash| grouped(count(crash)));
            table.add_row([what.to_owned()].into_iter().chain(counts));
        };
        row("ids acked before the relay was killed", |crash| crash.acked);
        row("    of these, in the queue twice after the retry", |crash| crash.passed);
        row("ids whose ack did not come any more", |crash| crash.in_doubt);
        row("    of these, in the queue twice after the retry (2)", |crash| crash.doubled);
        row("ids that are missing", |crash| crash.missing);
        table
    }

    /// How the ids in doubt are counted.
    pub(super) fn crash_footnote() -> &'static str {
        "(2) The broker had stored them, and the relay died before it knew. No proxy can know these. Nobody was told that\n    \
         they were stored."
    }

    /// Returns a table of the publishes by kind.
    pub(super) fn published(plan: &Plan) -> Table {
        let mut table = numbers(["published", "ids", "messages", "repeats"], 1..4);
        let mut row = |what: &str, ids: &Range<u64>, times: u64| {
            let ids = length(ids);
            let cells = [ids, ids * times, ids * (times - 1)].map(grouped);
            table.add_row([what.to_owned()].into_iter().chain(cells));
        };
        row("once, by three connections", &plan.once, 1);
        row("replays: the producer crashed, its successor sends the batch again", &plan.replayed, 2);
        row("redundant publishers: two send the same ids", &plan.redundant, 2);
        row("in flight: the same id at once on another channel or connection", &plan.hasty, 2);
        let all = [plan.ids(), plan.messages(), plan.repeats()].map(grouped);
        table.add_row(["all".to_owned()].into_iter().chain(all));
        table
    }

    /// Returns a table of the counts on the way from the publishers to the queue.
    pub(super) fn flow(&self) -> Table {
        let Report { counts, census, .. } = self;
        let mut table = numbers(["", "messages"], 1..2);
        let mut row = |what: &str, count: u64| {
            table.add_row([what.to_owned(), grouped(count)]);
        };
        row("sent (written to a connection)", counts.sent);
        match (self.relayed, self.lost_with_a_crash()) {
            (Some(relayed), lost) => {
                row("forwarded by the relay", relayed.fresh + relayed.unjudged);
                if relayed.forgotten > 0 {
                    row("    of these, not stored (their producer crashed mid-message)", relayed.forgotten);
                }
                row("dropped by the relay", relayed.duplicate);
                row("    of these, after waiting for one in flight", relayed.in_flight);
                row("lost with a crashed producer's connection (1)", lost.unwrap_or_default());
            }
            (None, _) => {
                row("repeats among them (the relay is yours: see its /metrics)", self.plan.repeats());
            }
        }
        row("in the queue, says the broker (passive declare)", census.declared);
        row("in the queue, taken out one by one", census.messages);
        row("    ids that were there exactly once", census.once);
        row("    ids that were there more than once", census.repeated);
        row("    ids that were not there", census.missing);
        table
    }

    /// How the crashed producers' publishes are counted.
    pub(super) fn footnote(&self) -> String {
        if self.relayed.is_none() {
            return String::new();
        }
        format!(
            "(1) A crashing producer's publishes count as sent once they are written to its connection; {} of {} were\n    \
             unconfirmed when it went. Those that it took with it before the relay had read them are lost there, and\n    \
             the replay is what the relay sees first. All others make a repeat of their replay.",
            grouped(self.counts.unconfirmed),
            grouped(length(&self.plan.replayed))
        )
    }

    /// The two failures, side by side.
    pub(super) fn failures(&self) -> Table {
        let mut table = Table::new();
        table.load_style(UTF8_FULL_CONDENSED).set_header(["", "records the id first", "Hapax"]);
        let parts = [
            (
                "1. Queue full (x-max-length, overflow=reject-publish)",
                "   the queue is drained, the same id again",
                self.cases.queue_full,
            ),
            (
                "2. mandatory, and no queue is bound",
                "   a queue is bound, the same id again",
                self.cases.unroutable,
            ),
        ];
        for (what, again, case) in parts {
            let (early, hapax) = (case.record_first, case.hapax);
            table.add_row([what, answer(early.first), answer(hapax.first)]);
            table.add_row([again, answer(early.second), answer(hapax.second)]);
            let held = |course: super::cases::Course| {
                let end = if course.is_lost() {
                    "LOST"
                } else if course.is_delivered() {
                    "delivered"
                } else {
                    "?"
                };
                format!("{}: {end}", course.stored)
            };
            table.add_row(["   in the queue".to_owned(), held(early), held(hapax)]);
        }
        table
    }

    /// A line for each check.
    pub(super) fn verdict(&self) -> String {
        let mut text = String::new();
        for check in self.checks() {
            text += &format!("  {}  {}\n", if check.holds { "ok  " } else { "FAIL" }, check.what);
        }
        text + if self.passes() { "PASS" } else { "FAIL" }
    }

    /// All of it for programs.
    pub(super) fn json(&self) -> serde_json::Value {
        json!({
            "pass": self.passes(),
            "checks": self.checks(),
            "planned": { "messages": self.plan.messages(), "ids": self.plan.ids(), "repeats": self.plan.repeats() },
            "publishers": self.counts,
            "relay": self.relayed,
            "lost_with_a_crash": self.lost_with_a_crash(),
            "queue": self.census,
            "failures": {
                "queue_full": { "record_first": self.cases.queue_full.record_first, "hapax": self.cases.queue_full.hapax },
                "unroutable": { "record_first": self.cases.unroutable.record_first, "hapax": self.cases.unroutable.hapax },
            },
            "crashes": self.crashes,
        })
    }
}

fn answer(outcome: Outcome) -> &'static str {
    match outcome {
        Outcome::Acked => "ack",
        Outcome::Nacked => "nack",
        Outcome::Returned => "returned",
        Outcome::Unconfirmed => "no answer",
    }
}

fn length(range: &Range<u64>) -> u64 {
    range.end - range.start
}

/// A table with numbers in these columns.
fn numbers<const N: usize>(header: [&str; N], columns: Range<usize>) -> Table {
    let mut table = Table::new();
    table.load_style(UTF8_FULL_CONDENSED).set_header(header);
    for column in columns {
        if let Some(column) = table.column_mut(column) {
            column.set_cell_alignment(CellAlignment::Right);
        }
    }
    table
}
