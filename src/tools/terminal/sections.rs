//! The facts of one window in sections of lines: for `hapax windows show` (printed) and for the detail view of
//! `hapax top` (drawn). Pure: a window in, lines out.

use super::answer::Window;
use super::columns::{bar, fit};
use super::store;
use super::theme::{Theme, word};
use crate::tools::text::{bytes, clean, count, factor, grouped, or_dash, rate, share, span};
use hapax_core::pressure::facts::{AgeBucket, LevelChange, WhatIfPoint};
use hapax_core::pressure::{Facts, Level};
use ratatui::style::Style;
use ratatui::text::{Line, Span};
use std::collections::BTreeMap;

/// Columns of a label.
pub(super) const LABEL: usize = 12;
/// Level changes that are shown; the API has more.
const CHANGES: usize = 6;

/// Lines under a heading.
#[derive(Clone, PartialEq, Debug)]
pub struct Section {
    /// what they are about
    pub title: String,
    /// at most as wide as was asked for, where names allow
    pub lines: Vec<Line<'static>>,
}

/// All of them, in the order in which one reads them.
#[derive(Clone, PartialEq, Debug)]
pub struct Sections {
    /// how full, how pressed, for how long
    pub now: Section,
    /// by verdict
    pub publishes: Section,
    /// how old ids were when they had to go
    pub ages: Section,
    /// what another capacity would catch
    pub what_if: Section,
    /// why ids went
    pub evictions: Section,
    /// when the level changed
    pub levels: Section,
    /// who fills it
    pub scopes: Section,
    /// as configured
    pub settings: Section,
    /// where it remembers beside memory, if anywhere
    pub store: Option<Section>,
}

impl Sections {
    /// Returns the sections of this window for a terminal of `width` columns.
    pub fn of(window: &Window, width: usize, theme: Theme) -> Sections {
        let cx = Cx { window, width: width.max(24), theme };
        Sections {
            now: cx.now(),
            publishes: cx.publishes(),
            ages: cx.ages(),
            what_if: cx.what_if(),
            evictions: cx.evictions(),
            levels: cx.levels(),
            scopes: cx.scopes(),
            settings: cx.settings(),
            store: window.facts.store.as_ref().map(|facts| store::section(facts, theme)),
        }
    }

    /// In order.
    pub fn into_list(self) -> Vec<Section> {
        let first = [
            self.now,
            self.publishes,
            self.ages,
            self.what_if,
            self.evictions,
            self.levels,
            self.scopes,
            self.settings,
        ];
        first.into_iter().chain(self.store).collect()
    }
}

/// Returns what an operator should do, if anything.
pub fn advice(window: &Window) -> Option<String> {
    let facts = &window.facts;
    if window.mode == "off" {
        return Some("mode is off: nothing is judged here".to_owned());
    }
    if let Some(trouble) = facts.store.as_ref().and_then(store::trouble) {
        return Some(trouble);
    }
    let held = || format!("remembers {} of {}", span(facts.effective_seconds), span(facts.ttl_seconds));
    let remedy = match (
        window.auto,
        facts.recommended_capacity.filter(|wanted| facts.capacity.is_some_and(|has| *wanted > has)),
    ) {
        (true, _) => "memory_budget is all used".to_owned(),
        (false, Some(wanted)) => {
            let more = facts.recommended_bytes.map(|all| all.saturating_sub(facts.bytes));
            let cost = more.map_or_else(String::new, |more| format!(" (+{})", bytes(more)));
            format!("set it to {wanted}{cost}")
        }
        (false, None) => "a larger capacity or a shorter ttl would end that".to_owned(),
    };
    match facts.level {
        Level::Ok => None,
        Level::Warming => Some(format!(
            "warm in {}: until then, duplicates of what was published before get through uncounted",
            span(facts.warming_seconds)
        )),
        Level::Blind => Some(without_ids(facts)),
        Level::High => Some(format!("nearly too small: {remedy}")),
        Level::Critical => Some(format!("too small, {}: {remedy}", held())),
    }
}

/// Returns what share of the publishes has no id, and what they have instead.
fn without_ids(facts: &Facts) -> String {
    let part = share(facts.missing_ids.share.unwrap_or_default());
    let instead = facts.missing_ids.headers.first();
    let instead = instead.map_or_else(String::new, |header| {
        format!("; {} of them have {}", share(header.share), clean(&header.name))
    });
    format!("{part} of the publishes carry no id, so their duplicates get through{instead}")
}

/// Returns the number of escaped duplicates: how many were counted, and about how many there were.
pub fn escaped(facts: &Facts, number: fn(u64) -> String) -> String {
    let (least, about) = (facts.escaped_duplicates, facts.escaped_duplicates_about);
    if about > least + least / 100 { format!(">{} ~{}", number(least), number(about)) } else { number(least) }
}

struct Cx<'a> {
    window: &'a Window,
    width: usize,
    theme: Theme,
}

impl Cx<'_> {
    fn row(&self, label: &str, value: impl Into<String>) -> Line<'static> {
        self.styled(label, value, Style::new())
    }

    fn styled(&self, label: &str, value: impl Into<String>, style: Style) -> Line<'static> {
        Line::from(vec![
            Span::styled(format!("{label:<LABEL$}"), self.theme.label()),
            Span::styled(value.into(), style),
        ])
    }

    fn dim(&self, text: impl Into<String>) -> Line<'static> {
        Line::styled(text.into(), self.theme.label())
    }

    fn now(&self) -> Section {
        let facts = &self.window.facts;
        let level = self.theme.level(facts.level);
        let full = facts.full();
        let auto = if self.window.auto { " (auto)" } else { "" };
        let recommended = or_dash(facts.recommended_capacity, |ids| {
            format!(
                "{}{}",
                grouped(ids),
                facts.recommended_bytes.map_or_else(String::new, |b| format!(", {}", bytes(b)))
            )
        });
        let lines = vec![
            self.styled("level", word(facts.level), level),
            Line::from(vec![
                Span::styled(format!("{:<LABEL$}", "entries"), self.theme.label()),
                Span::styled(or_dash(full, |full| bar(full, 10)), self.theme.graph()),
                Span::raw(format!(" {} of {}", or_dash(full, share), or_dash(facts.capacity, count))),
            ]),
            self.row("", or_dash(facts.entries, grouped)),
            self.row("capacity", format!("{}{auto}", or_dash(facts.capacity, grouped))),
            self.row("recommended", recommended),
            self.styled("pressure", or_dash(facts.pressure, factor), level),
            self.styled("coverage", share(facts.coverage), level),
            self.row(
                "remembers",
                format!("{} of {}", span(facts.effective_seconds), span(facts.ttl_seconds)),
            ),
            self.row("oldest", or_dash(facts.oldest_seconds, span)),
            self.row("in flight", or_dash(facts.in_flight, grouped)),
            self.row("memory", format!("{}, {:.0} B an id", bytes(facts.bytes), facts.bytes_per_id)),
        ];
        Section { title: "Window".to_owned(), lines }
    }

    fn publishes(&self) -> Section {
        let facts = &self.window.facts;
        let (rates, all) = (&facts.rates, &facts.publishes);
        let line = |label: &str, rate_of: Option<f64>, total: u64, style: Style| {
            let rate_of = rate_of.map_or_else(String::new, |value| format!("{}/s", rate(value)));
            self.styled(label, format!("{rate_of:>10}  {:>12}", grouped(total)), style)
        };
        let plain = Style::new();
        let escaping = if facts.rates.escaped > 0.0 { self.theme.bad() } else { plain };
        let mut lines = vec![
            line("fresh", Some(rates.fresh), all.fresh, plain),
            line("duplicate", Some(rates.duplicate), all.duplicate, plain),
            self.styled(
                "escaped",
                format!("{:>10}  {:>12}", format!("{}/s", rate(rates.escaped)), escaped(facts, grouped)),
                escaping,
            ),
            line(
                "conflict",
                None,
                facts.conflicts,
                if facts.conflicts > 0 { self.theme.bad() } else { plain },
            ),
            self.styled(
                "no id",
                format!("{:>10}  {:>12}", or_dash(facts.missing_ids.share, share), grouped(all.no_id)),
                if facts.missing_ids.is_blind() { self.theme.bad() } else { plain },
            ),
            line("bypassed", None, all.bypassed, plain),
            line("waited", None, all.in_flight, plain),
            line("promoted", None, facts.promoted, plain),
            line("refused", None, facts.refused, plain),
            line("commits", None, facts.commits, plain),
        ];
        if all.republished > 0 {
            lines.push(line("republished", None, all.republished, plain));
        }
        if facts.commits_in_doubt > 0 {
            lines.push(line("  in doubt", None, facts.commits_in_doubt, plain));
        }
        lines.push(self.row("hit ratio", or_dash(facts.hit_ratio, share)));
        let distinct = &facts.distinct;
        if distinct.seconds > 0.0 {
            let about = format!("~{} ids in {}", count(distinct.ids), span(distinct.seconds));
            lines.push(self.row("distinct", about));
        }
        if facts.ghost.capacity > 0 {
            let ghost = &facts.ghost;
            let room = format!("{} of {} keys", count(ghost.keys), count(ghost.capacity));
            lines.push(self.row("ghost", room));
            lines.push(self.row(
                "",
                format!("{} bits a key, {:.0e} false", ghost.bits_per_key, ghost.false_positive_rate),
            ));
            if ghost.dropped > 0 {
                lines.push(self.styled(
                    "",
                    format!("{} had no place", count(ghost.dropped)),
                    self.theme.bad(),
                ));
            }
        }
        Section { title: "Publishes: now, and since the start".to_owned(), lines }
    }

    /// The histogram against the TTL: how far from the end of their time ids had to go.
    fn ages(&self) -> Section {
        let facts = &self.window.facts;
        let ages = &facts.age_at_eviction;
        let title = format!("Age at early eviction (TTL {})", span(facts.ttl_seconds));
        let Some(first) = ages.buckets.iter().position(|bucket| bucket.count > 0) else {
            return Section { title, lines: vec![self.dim("no id was evicted early")] };
        };
        let last = ages.buckets.iter().rposition(|bucket| bucket.count > 0).unwrap_or(first);
        // Ids of this age would have expired anyway.
        let is_end = |bucket: &AgeBucket| bucket.le.is_none_or(|le| le >= facts.ttl_seconds);
        let end = ages.buckets.iter().position(is_end).unwrap_or(last);
        let top = ages.buckets.iter().map(|bucket| bucket.count).max().unwrap_or(1).max(1);
        let room = self.width.saturating_sub(LABEL + 9).min(40);
        let mut lines = vec![self.row(
            "lately",
            format!("½ ≥ {}, 99 % ≥ {}", or_dash(ages.p50_seconds, span), or_dash(ages.p1_seconds, span)),
        )];
        for (at, bucket) in ages.buckets.iter().enumerate().take(last.max(end) + 1).skip(first.min(end)) {
            let label = bucket.le.map_or_else(|| "longer".to_owned(), |le| format!("≤ {}", span(le)));
            lines.push(Line::from(vec![
                Span::styled(format!("{label:<LABEL$}"), self.theme.label()),
                Span::styled(bar(bucket.count as f64 / top as f64, room), self.theme.graph()),
                Span::raw(format!(" {:>7}", count(bucket.count))),
            ]));
            if at == end {
                let ttl = format!("── TTL {} ", span(facts.ttl_seconds));
                lines.push(Line::styled(format!("{ttl:─<0$}", LABEL + room), self.theme.strong()));
            }
        }
        Section { title, lines }
    }

    fn what_if(&self) -> Section {
        let what_if = &self.window.facts.what_if;
        let title = "What if: caught duplicates by capacity".to_owned();
        if what_if.points.is_empty() {
            return Section { title, lines: vec![self.dim("no traffic was sampled yet")] };
        }
        let room = self.width.saturating_sub(6 + 8 + 8 + 10).min(30);
        let top = what_if.points.iter().map(|point| point.caught).fold(0.0, f64::max);
        let mut lines: Vec<Line<'static>> =
            what_if.points.iter().map(|point| self.point(point, room, top)).collect();
        lines.push(self.dim(format!(
            "sample {}: {} publishes",
            share(what_if.sample_rate),
            count(what_if.sampled)
        )));
        Section { title, lines }
    }

    fn point(&self, point: &WhatIfPoint, room: usize, top: f64) -> Line<'static> {
        let present = (point.factor - 1.0).abs() < 1e-9;
        let style = if present { self.theme.strong() } else { Style::new() };
        let sign = if present { '▶' } else { ' ' };
        let times = trimmed(point.factor);
        let filled = if top > 0.0 { point.caught / top } else { 0.0 };
        Line::from(vec![
            Span::styled(
                format!("{sign}×{times:<4}{:>7} {:>7} ", count(point.capacity), share(point.caught)),
                style,
            ),
            Span::styled(bar(filled, room), self.theme.graph()),
            Span::styled(format!(" {:>9}", bytes(point.bytes)), self.theme.label()),
        ])
    }

    fn evictions(&self) -> Section {
        let facts = &self.window.facts;
        let mut lines = self.causes(&facts.evictions, &["capacity", "resize"]);
        if lines.is_empty() {
            lines.push(self.dim("none"));
        }
        lines.push(self.row("early now", format!("{}/s", rate(facts.rates.evicted_early))));
        let given_up = self.causes(&facts.forgotten, &[]);
        if !given_up.is_empty() {
            lines.push(self.dim("given up before they were stored:"));
            lines.extend(given_up);
        }
        Section { title: "Evictions by cause".to_owned(), lines }
    }

    /// Counters by cause; these causes mean that the window is too small.
    fn causes(&self, counters: &BTreeMap<String, u64>, early: &[&str]) -> Vec<Line<'static>> {
        let nonzero = counters.iter().filter(|(_, n)| **n > 0);
        nonzero
            .map(|(cause, n)| {
                let is_early = early.contains(&cause.as_str());
                let style = if is_early { self.theme.bad() } else { Style::new() };
                let note = if is_early { "  early" } else { "" };
                self.styled(&format!("{} ", fit(cause, LABEL)), format!("{:>12}{note}", grouped(*n)), style)
            })
            .collect()
    }

    fn levels(&self) -> Section {
        let history = &self.window.facts.level_history;
        let line = |(at, change): (usize, &LevelChange)| {
            let when = if at == 0 { "since" } else { "ago" };
            Line::from(vec![
                Span::styled(format!("{:<LABEL$}", word(change.level)), self.theme.level(change.level)),
                Span::raw(format!("{} ", span(change.ago_seconds))),
                Span::styled(when, self.theme.label()),
            ])
        };
        let mut lines: Vec<Line<'static>> =
            history.iter().rev().enumerate().take(CHANGES).map(line).collect();
        if lines.is_empty() {
            lines.push(self.dim("it has not changed"));
        }
        Section { title: "Level, the newest first".to_owned(), lines }
    }

    fn scopes(&self) -> Section {
        let title = "Fresh ids lately, by scope".to_owned();
        let scopes = &self.window.facts.top_scopes;
        if scopes.is_empty() {
            return Section { title, lines: vec![self.dim("none yet")] };
        }
        let most = scopes.iter().map(|scope| scope.fresh).max().unwrap_or(1).max(1);
        let lines = scopes.iter().map(|scope| {
            // The default exchange has no name: the routing key is the queue.
            let exchange = if scope.exchange.is_empty() { "(default)" } else { &scope.exchange };
            let name = format!("{exchange} {} in {}", scope.routing_key, scope.vhost);
            Line::from(vec![
                Span::raw(format!("{:>7} ", count(scope.fresh))),
                Span::styled(bar(scope.fresh as f64 / most as f64, 6), self.theme.graph()),
                Span::raw(format!(" {}", fit(&name, self.width.saturating_sub(15)))),
            ])
        });
        Section { title, lines: lines.collect() }
    }

    fn settings(&self) -> Section {
        let window = self.window;
        let room = self.width.saturating_sub(LABEL);
        let row = |label: &str, value: &str| self.row(label, fit(value, room));
        let mut lines = vec![
            row("mode", &window.mode),
            row("ttl", &span(window.facts.ttl_seconds)),
            row("vhost", &window.vhost),
            match &window.queue {
                Some(queue) => row("queue", queue),
                None => row("exchange", &window.exchange),
            },
            row("id", &window.id),
            row("scope", &window.scope),
            row("engine", &window.engine),
            row("in doubt", &window.in_doubt),
            row("missing id", &window.missing_id),
            row("on conflict", &window.on_conflict),
        ];
        if !matches!(&*window.on_duplicate, "" | "ack") {
            lines.push(row("on duplicate", &window.on_duplicate));
        }
        if let Some(exchange) = &window.duplicates_to {
            lines.push(row("duplicates to", exchange));
        }
        if window.audit {
            lines.push(row("audit", "on"));
        }
        if let Some(exchange) = &window.forward_to {
            lines.push(row("forward to", exchange));
        }
        Section { title: "Settings".to_owned(), lines }
    }
}

/// `0.25`, `1`, `8`: without zeros that say nothing.
fn trimmed(factor: f64) -> String {
    format!("{factor:.2}").trim_end_matches('0').trim_end_matches('.').to_owned()
}
