//! The help: a list of the keys, drawn over everything else.

use super::super::input::KEYS;
use crate::tools::terminal::theme::Theme;
use ratatui::Frame;
use ratatui::layout::Rect;
use ratatui::text::{Line, Span};
use ratatui::widgets::{Block, Borders, Clear, Paragraph};

/// Columns of the keys' names.
const KEY: usize = 15;
const WIDTH: u16 = 56;

pub(super) fn draw(theme: Theme, frame: &mut Frame<'_>, area: Rect) {
    let lines: Vec<Line<'static>> = KEYS
        .iter()
        .map(|(key, what)| {
            Line::from(vec![Span::styled(format!(" {key:<KEY$}"), theme.strong()), Span::raw(*what)])
        })
        .collect();
    let height = u16::try_from(KEYS.len()).unwrap_or(u16::MAX).saturating_add(2).min(area.height);
    let width = WIDTH.min(area.width);
    let place =
        Rect { x: area.x + (area.width - width) / 2, y: area.y + (area.height - height) / 2, width, height };
    frame.render_widget(Clear, place);
    let block =
        Block::new().borders(Borders::ALL).title(" Keys; any key goes back ").border_style(theme.label());
    frame.render_widget(Paragraph::new(lines).block(block), place);
}
