//! How it looks: a pure function of the model. Works from 40 × 8 on, and uses what there is.

mod connections;
mod detail;
mod header;
mod help;
mod windows;

use super::model::{Drawn, Model, Page};
use crate::tools::terminal::theme::Theme;
use ratatui::Frame;
use ratatui::layout::{Constraint, Layout, Rect};
use ratatui::text::Line;
use ratatui::widgets::Paragraph;

/// Below this, only a request for more room is shown.
const SMALLEST: (u16, u16) = (40, 8);

/// Draws everything, and says what input has to know of it.
pub fn draw(model: &Model, theme: Theme, frame: &mut Frame<'_>) -> Drawn {
    let area = frame.area();
    if area.width < SMALLEST.0 || area.height < SMALLEST.1 {
        let text = format!("{} × {}: needs {} × {}", area.width, area.height, SMALLEST.0, SMALLEST.1);
        frame.render_widget(Paragraph::new(text), area);
        return Drawn::default();
    }
    let lines = header::lines(model, theme, usize::from(area.width));
    let height = u16::try_from(lines.len()).unwrap_or(1);
    let [top, middle, bottom] =
        Layout::vertical([Constraint::Length(height), Constraint::Min(3), Constraint::Length(1)]).areas(area);
    frame.render_widget(Paragraph::new(lines), top);
    let drawn = match model.page {
        Page::Windows => windows::draw(model, theme, frame, middle),
        Page::Detail => detail::draw(model, theme, frame, middle),
        Page::Connections => connections::draw(model, theme, frame, middle),
    };
    frame.render_widget(header::footer(model, theme), bottom);
    if model.help {
        help::draw(theme, frame, area);
    }
    drawn
}

/// A remark where a list would be.
fn remark(text: &str, theme: Theme, frame: &mut Frame<'_>, area: Rect) {
    let area = Rect { x: area.x + 2, width: area.width.saturating_sub(2), ..area };
    frame.render_widget(Paragraph::new(Line::styled(text.to_owned(), theme.label())), area);
}
