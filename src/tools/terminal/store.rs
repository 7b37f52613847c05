//! The store of a window in lines: where it remembers beside memory, whether that works, and how far behind it is.

use super::sections::{LABEL, Section};
use super::theme::Theme;
use crate::tools::text::{bytes, clean, grouped, span};
use hapax_core::pressure::facts::Store;
use hapax_core::window::{OnOutage, Remember};
use ratatui::style::Style;
use ratatui::text::{Line, Span};

/// Returns what an operator should know before all else: the window does not remember as it should.
pub(super) fn trouble(store: &Store) -> Option<String> {
    if store.recovering {
        return Some("reads its store: no client is taken before it knows what stood there".to_owned());
    }
    let since = span(store.down_seconds?);
    Some(match store.on_outage {
        OnOutage::Continue => {
            format!("the store is down for {since}: a crash now forgets {} ids", grouped(store.unremembered))
        }
        OnOutage::Refuse => format!("the store is down for {since}: publishers wait until it is back"),
    })
}

/// Returns the section. Facts that this kind of store can't know have no line, and neither has what never went wrong.
pub(super) fn section(store: &Store, theme: Theme) -> Section {
    let row = |label: &str, value: String, style: Style| {
        Line::from(vec![Span::styled(format!("{label:<LABEL$}"), theme.label()), Span::styled(value, style)])
    };
    let plain = |label: &str, value: String| row(label, value, Style::new());
    let (state, style) = match (store.recovering, store.up) {
        (true, _) => ("recovering", theme.bad()),
        (false, true) => ("up", Style::new()),
        (false, false) => ("down", theme.bad()),
    };
    let remember = match (store.remember, store.remember_delay_seconds) {
        (Remember::Sync, _) => "before the ack".to_owned(),
        (Remember::Async, delay) => format!("{} after the ack", span(delay.unwrap_or_default())),
    };
    let mut lines = vec![
        row("state", state.to_owned(), style),
        plain("remembers", remember),
        plain("not written", format!("{}, for {}", grouped(store.waiting_records), span(store.lag_seconds))),
    ];
    let known = [
        ("goes back", store.oldest_seconds.map(span)),
        ("behind", store.behind_seconds.map(span)),
        ("latency", store.latency_seconds.map(span)),
        ("room", store.bytes.map(bytes)),
        (
            "memory",
            store.memory_bytes.map(|used| match store.memory_max_bytes {
                Some(most) => format!("{} of {}", bytes(used), bytes(most)),
                None => bytes(used),
            }),
        ),
    ];
    lines.extend(known.into_iter().filter_map(|(label, value)| Some(plain(label, value?))));
    lines.push(plain("recovered", grouped(store.recovered)));
    if store.kind != "disk" {
        lines.push(plain("merged", grouped(store.merged)));
    }
    let wrong = [
        ("crossed", store.crossed),
        ("while down", store.unremembered),
        ("dropped", store.dropped_records),
        ("damaged", store.damaged_batches),
        ("evicted", store.evicted_keys.unwrap_or_default()),
        ("reconnects", store.reconnects.unwrap_or_default()),
    ];
    let wrong = wrong.into_iter().filter(|(_, count)| *count > 0);
    lines.extend(wrong.map(|(label, count)| row(&format!("{label} "), grouped(count), theme.bad())));
    Section { title: format!("Store: {}", clean(&store.kind)), lines }
}
