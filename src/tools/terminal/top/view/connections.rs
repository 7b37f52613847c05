//! The clients, one a line.

use super::super::model::{Drawn, Model};
use crate::tools::terminal::answer::Connection;
use crate::tools::terminal::columns::fit;
use crate::tools::terminal::theme::Theme;
use crate::tools::text::{bytes, count, or_dash, span};
use ratatui::Frame;
use ratatui::layout::{Alignment, Constraint, Layout, Rect};
use ratatui::text::Line;
use ratatui::widgets::{Cell, Paragraph, Row, Table, TableState};

/// All columns are shown in a terminal of this width or more.
const WIDE: u16 = 118;

pub(super) fn draw(model: &Model, theme: Theme, frame: &mut Frame<'_>, area: Rect) -> Drawn {
    let listed = model.listed_connections();
    let [list, foot] = Layout::vertical([Constraint::Min(2), Constraint::Length(1)]).areas(area);
    let page = usize::from(list.height.saturating_sub(1));
    let known = model.connections.connections.len();
    let total = model.connections.total;
    let text = if known as u64 == total {
        format!(" {} of {} clients", listed.len(), count(total))
    } else {
        format!(" {} of the first {known}; there are {} clients", listed.len(), count(total))
    };
    frame.render_widget(Paragraph::new(Line::styled(text, theme.label())), foot);
    if listed.is_empty() {
        let text = if known == 0 { "nobody is connected" } else { "no client matches the filter" };
        super::remark(text, theme, frame, list);
        return Drawn { page, scroll: 0 };
    }
    let wide = list.width >= WIDE;
    let left = |text: &str| Cell::from(text.to_owned());
    let mut header = vec![left("Peer"), left("User"), left("Vhost"), left("Client"), left("State")];
    header.extend(["Chan", "Unres", "Publishes", "Dupl"].map(right));
    let mut widths: Vec<Constraint> =
        if wide { vec![22, 14, 11, 20, 10, 5, 6, 9, 6] } else { vec![21, 8, 5, 8, 7, 4, 5, 9, 5] }
            .into_iter()
            .map(Constraint::Length)
            .collect();
    if wide {
        header.extend(["In", "Out", "Age"].map(right));
        widths.extend([9, 9, 7].map(Constraint::Length));
    }
    // Rows that can't be seen are not made: there may be hundreds.
    let first = model.row.saturating_sub(page.saturating_sub(1));
    let rows = listed.iter().skip(first).take(page).map(|connection| row(connection, &widths, wide));
    let table = Table::new(rows, widths.clone())
        .header(Row::new(header).style(theme.label()))
        .column_spacing(1)
        .row_highlight_style(theme.selected());
    let mut state = TableState::default().with_selected(Some(model.row - first));
    frame.render_stateful_widget(table, list, &mut state);
    Drawn { page, scroll: 0 }
}

fn right(text: &str) -> Cell<'static> {
    Cell::from(Line::raw(text.to_owned()).alignment(Alignment::Right))
}

fn row(connection: &Connection, widths: &[Constraint], wide: bool) -> Row<'static> {
    let width = |at: usize| match widths.get(at) {
        Some(Constraint::Length(width)) => usize::from(*width),
        _ => 0,
    };
    let texts = [
        connection.peer.clone(),
        or_dash(connection.user.clone(), |user| user),
        or_dash(connection.vhost.clone(), |vhost| vhost),
        connection.software(),
        connection.state.clone(),
    ];
    let mut cells: Vec<Cell<'static>> =
        texts.iter().enumerate().map(|(at, text)| Cell::from(fit(text, width(at)))).collect();
    cells.extend(
        [connection.channels, connection.unresolved, connection.publishes, connection.duplicates]
            .map(|number| right(&count(number))),
    );
    if wide {
        let last = [bytes(connection.bytes_in), bytes(connection.bytes_out), span(connection.age_seconds)];
        cells.extend(last.map(|text| right(&text)));
    }
    Row::new(cells)
}
