//! One window, all of it: its sections in as many columns as there is room for, scrolled together.

use super::super::model::{Drawn, Model};
use crate::tools::terminal::columns::{fit, spark};
use crate::tools::terminal::sections::{Section, Sections, advice};
use crate::tools::terminal::theme::Theme;
use ratatui::Frame;
use ratatui::layout::{Constraint, Layout, Rect};
use ratatui::text::{Line, Span};
use ratatui::widgets::Paragraph;

/// Columns between columns.
const GAP: u16 = 2;

pub(super) fn draw(model: &Model, theme: Theme, frame: &mut Frame<'_>, area: Rect) -> Drawn {
    let Some(window) = model.window() else {
        super::remark("no window is selected", theme, frame, area);
        return Drawn::default();
    };
    let [head, body] = Layout::vertical([Constraint::Length(1), Constraint::Min(1)]).areas(area);
    let mut title = vec![Span::styled(format!(" {}  ", fit(&window.name, 30)), theme.title())];
    match advice(window) {
        Some(advice) => title.push(Span::styled(advice, theme.level(window.facts.level))),
        None => {
            let history = model.history(&window.name).into_iter().flatten().map(|sample| sample.fresh);
            title.push(Span::styled("fresh/s ", theme.label()));
            title.push(Span::styled(spark(history, 30).trim_start().to_owned(), theme.graph()));
        }
    }
    frame.render_widget(Paragraph::new(Line::from(title)), head);

    let number = match body.width {
        ..76 => 1,
        76..132 => 2,
        _ => 3,
    };
    let areas = Layout::horizontal(vec![Constraint::Fill(1); number]).spacing(GAP).split(body);
    let width = areas.first().map_or(0, |area| area.width);
    let sections = Sections::of(window, usize::from(width.saturating_sub(1)), theme);
    let columns = arrange(sections, number).map(|sections| lines(sections, theme));
    let height = usize::from(body.height);
    let longest = columns.iter().map(Vec::len).max().unwrap_or(0);
    let scroll = model.scroll.min(longest.saturating_sub(height));
    for (area, lines) in areas.iter().zip(columns) {
        let area = Rect { x: area.x + 1, width: area.width.saturating_sub(1), ..*area };
        let lines: Vec<Line<'static>> = lines.into_iter().skip(scroll).take(height).collect();
        frame.render_widget(Paragraph::new(lines), area);
    }
    Drawn { page: height, scroll: longest.saturating_sub(height) }
}

/// Always in the same places, so that nothing jumps when numbers grow.
fn arrange(s: Sections, columns: usize) -> [Vec<Section>; 3] {
    match columns {
        1 => [s.into_list(), Vec::new(), Vec::new()],
        2 => [
            vec![s.now, s.publishes, s.evictions, s.levels],
            [s.ages, s.what_if, s.scopes, s.settings].into_iter().chain(s.store).collect(),
            Vec::new(),
        ],
        _ => [
            vec![s.now, s.publishes],
            vec![s.ages, s.what_if],
            [s.evictions, s.levels, s.scopes, s.settings].into_iter().chain(s.store).collect(),
        ],
    }
}

fn lines(sections: Vec<Section>, theme: Theme) -> Vec<Line<'static>> {
    let mut lines = Vec::new();
    for section in sections {
        if !lines.is_empty() {
            lines.push(Line::default());
        }
        lines.push(Line::styled(section.title, theme.title()));
        lines.extend(section.lines);
    }
    lines
}
