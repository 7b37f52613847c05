//! The lines at the top (which relay, and how it is) and the one at the bottom (keys, filter).

use super::super::model::{Model, Page};
use crate::tools::terminal::answer::Window;
use crate::tools::terminal::columns::fit;
use crate::tools::terminal::theme::Theme;
use crate::tools::text::{bytes, count, span};
use ratatui::text::{Line, Span};
use ratatui::widgets::Paragraph;

/// One line for the relay, one for the broker, and one if something is wrong.
pub(super) fn lines(model: &Model, theme: Theme, width: usize) -> Vec<Line<'static>> {
    let status = &model.status;
    let place = model.place.trim_start_matches("http://");
    let mut first = vec![
        Span::styled(" hapax top ", theme.title()),
        Span::styled(fit(place, width / 3), theme.strong()),
        Span::raw(format!("  {}  up {}", fit(&status.version, 12), span(status.uptime_seconds))),
    ];
    if status.draining {
        first.push(Span::styled("  DRAINING", theme.bad()));
    }
    if let Some(chaos) = &status.chaos {
        first.push(Span::styled(format!("  CHAOS, {} left", span(chaos.left_seconds)), theme.bad()));
    }
    if model.paused {
        first.push(Span::styled("  PAUSED", theme.selected()));
    }
    let connections = &status.connections;
    let upstream = &status.upstream;
    let mut second = vec![
        Span::raw(format!(" broker {} ", fit(&upstream.address, width / 3))),
        match upstream.ok {
            true => Span::styled("ok", theme.level(hapax_core::pressure::Level::Ok)),
            false => Span::styled("DOWN", theme.bad()),
        },
        Span::raw(format!("  clients {}/{}", count(connections.open), count(connections.max))),
    ];
    let nodes_down = status.upstreams.iter().filter(|node| node.state == "down").count();
    if upstream.ok && nodes_down > 0 {
        second.insert(
            2,
            Span::styled(format!(" ({nodes_down} of {} nodes down)", status.upstreams.len()), theme.bad()),
        );
    }
    if connections.rejected > 0 {
        second.push(Span::styled(format!(" ({} rejected)", count(connections.rejected)), theme.bad()));
    }
    second.push(Span::raw(format!("  memory {}", bytes(status.memory.resident_bytes))));
    if let Some(budget) = status.memory.budget_bytes {
        second.push(Span::raw(format!(", budget {}", bytes(budget))));
    }
    let is_down = |window: &&Window| window.facts.store.as_ref().is_some_and(|store| !store.up);
    let down = model.windows.iter().filter(is_down).count();
    if down > 0 {
        second.push(Span::styled(format!("  stores down {down}"), theme.bad()));
    }
    let mut lines = vec![Line::from(first), Line::from(second)];
    if let Some(trouble) = &model.trouble {
        let age = span(model.now.saturating_sub(trouble.since).as_secs_f64());
        // The first line says what; the rest is for those who are not looking at a screen.
        let what = trouble.text.lines().next().unwrap_or_default();
        let text = format!(" no news for {age}, trying on: {what}");
        lines.push(Line::styled(fit(&text, width), theme.bad()));
    } else if let Some(error) = upstream.error.as_ref().filter(|_| !upstream.ok) {
        lines.push(Line::styled(fit(&format!(" broker: {error}"), width), theme.bad()));
    }
    lines
}

/// Draws the keys that fit; the help has all of them.
pub(super) fn footer(model: &Model, theme: Theme) -> Paragraph<'static> {
    if model.typing {
        let typed = format!(" /{}", fit(&model.filter, 40));
        let hint = Span::styled("   Enter keeps, Esc clears", theme.label());
        return Paragraph::new(Line::from(vec![Span::styled(format!("{typed}▏"), theme.strong()), hint]));
    }
    let keys: &[(&str, &str)] = match model.page {
        Page::Windows => &[
            ("q", "quit"),
            ("↑↓ jk", "select"),
            ("Enter", "detail"),
            ("Tab", "connections"),
            ("/", "filter"),
            ("p", "pause"),
            ("?", "help"),
        ],
        Page::Detail => &[
            ("q", "quit"),
            ("Esc", "back"),
            ("↑↓ jk", "scroll"),
            ("←→ hl", "window"),
            ("Tab", "connections"),
            ("p", "pause"),
            ("?", "help"),
        ],
        Page::Connections => &[
            ("q", "quit"),
            ("↑↓ jk", "select"),
            ("Tab", "windows"),
            ("/", "filter"),
            ("p", "pause"),
            ("?", "help"),
        ],
    };
    let mut spans = vec![Span::raw(" ")];
    // First, because it says that something is missing.
    if !model.filter.is_empty() {
        spans.push(Span::styled(format!("only “{}”  ", fit(&model.filter, 20)), theme.selected()));
    }
    for (key, what) in keys {
        spans.push(Span::styled((*key).to_owned(), theme.strong()));
        spans.push(Span::styled(format!(" {what}  "), theme.label()));
    }
    Paragraph::new(Line::from(spans))
}
