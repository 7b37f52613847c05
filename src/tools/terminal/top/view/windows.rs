//! The list of windows: as many columns as there is room for, the selected one's course and advice below.

use super::super::model::{Drawn, History, Model, Sample};
use crate::tools::terminal::answer::Window;
use crate::tools::terminal::columns::{bar, fit, spark};
use crate::tools::terminal::sections::advice;
use crate::tools::terminal::theme::{Theme, word};
use crate::tools::text::{bytes, count, factor, or_dash, rate, share, span};
use hapax_core::pressure::Facts;
use ratatui::Frame;
use ratatui::layout::{Alignment, Constraint, Layout, Rect};
use ratatui::style::Style;
use ratatui::text::{Line, Span};
use ratatui::widgets::{Block, Borders, Cell, Paragraph, Row, Sparkline, Table, TableState};
use unicode_width::UnicodeWidthStr;

/// Rows of the panel below the list, at least; none where the list would get less than six.
const PANEL: u16 = 8;
/// Rows of the panel where there is room.
const LARGE: u16 = 18;

type Pick = fn(&Sample) -> f64;
type Show = fn(&Window, Theme) -> Line<'static>;

struct Column {
    title: &'static str,
    width: u16,
    /// those with the smallest number are shown first, where there is little room
    rank: u8,
    show: Show,
}

const fn column(title: &'static str, width: u16, rank: u8, show: Show) -> Column {
    Column { title, width, rank, show }
}

/// The columns beside the name, which takes the remaining width.
const COLUMNS: [Column; 17] = [
    column("Level", 8, 0, |w, t| Line::styled(word(w.facts.level), t.level(w.facts.level))),
    column("Mode", 7, 9, |w, _| Line::raw(fit(&w.mode, 7))),
    column("Used", 12, 5, used),
    column("Entries", 7, 11, |w, _| right(or_dash(w.facts.entries, count))),
    column("Capacity", 8, 8, |w, _| right(or_dash(w.facts.capacity, count))),
    column("Press", 5, 1, |w, t| right(or_dash(w.facts.pressure, factor)).style(t.level(w.facts.level))),
    column("Cover", 6, 2, |w, t| right(share(w.facts.coverage)).style(t.level(w.facts.level))),
    column("Remembers", 9, 10, |w, _| right(span(w.facts.effective_seconds))),
    column("TTL", 7, 10, |w, _| right(span(w.facts.ttl_seconds))),
    column("Fresh/s", 7, 3, |w, _| right(rate(w.facts.rates.fresh))),
    column("Dup/s", 7, 3, |w, _| right(rate(w.facts.rates.duplicate))),
    column("Esc/s", 6, 4, |w, t| escaped(rate(w.facts.rates.escaped), w, t)),
    column("Escaped", 7, 6, |w, _| right(about_escaped(&w.facts))),
    column("No id", 6, 8, |w, t| {
        let line = right(or_dash(w.facts.missing_ids.share, share));
        if w.facts.missing_ids.is_blind() { line.style(t.bad()) } else { line }
    }),
    column("Flight", 6, 13, |w, _| right(or_dash(w.facts.in_flight, count))),
    column("Memory", 8, 12, |w, _| right(bytes(w.facts.bytes))),
    column("Advised", 7, 7, |w, _| right(or_dash(w.facts.recommended_capacity, count))),
];

/// The least width of the curve of the fresh rate. It takes the remaining width of a wide terminal.
const COURSE: u16 = 16;
const NAME: u16 = 12;

pub(super) fn draw(model: &Model, theme: Theme, frame: &mut Frame<'_>, area: Rect) -> Drawn {
    let listed = model.listed();
    let spare = area.height.saturating_sub(u16::try_from(listed.len()).unwrap_or(u16::MAX).saturating_add(2));
    let panel = if area.height >= PANEL + 6 { spare.clamp(PANEL, LARGE) } else { 0 };
    let [list, below] = Layout::vertical([Constraint::Min(3), Constraint::Length(panel)]).areas(area);
    let page = usize::from(list.height.saturating_sub(1));
    if listed.is_empty() {
        let text = if model.windows.is_empty() {
            "the relay has no windows"
        } else {
            "no window matches the filter"
        };
        super::remark(text, theme, frame, list);
        return Drawn { page, scroll: 0 };
    }
    table(model, &listed, theme, frame, list);
    if let Some(window) = model.window().filter(|_| panel > 0) {
        course(window, model.history(&window.name), theme, frame, below);
    }
    Drawn { page, scroll: 0 }
}

fn table(model: &Model, listed: &[&Window], theme: Theme, frame: &mut Frame<'_>, area: Rect) {
    let longest = listed.iter().map(|window| fit(&window.name, 28).width()).max().unwrap_or(0);
    let longest = u16::try_from(longest).unwrap_or(NAME).max(NAME);
    // In a wide terminal a name comes before the columns that are there for completeness.
    let name = if area.width >= 100 { longest } else { NAME };
    let room = area.width.saturating_sub(2 + name);
    let (columns, left) = choose(room);
    let (course, left) =
        if left > COURSE { (COURSE.max(left / 2), left - COURSE.max(left / 2) - 1) } else { (0, left) };
    let name = usize::from((name + left).min(longest));
    let header = std::iter::once(Cell::from(format!("{:<name$}", "Window")))
        .chain(columns.iter().map(|column| {
            let left = matches!(column.title, "Level" | "Mode" | "Used");
            Line::raw(column.title).alignment(if left { Alignment::Left } else { Alignment::Right }).into()
        }))
        .chain((course > 0).then(|| Cell::from("Fresh/s, course")));
    let rows = listed.iter().map(|window| {
        let cells = std::iter::once(Cell::from(fit(&window.name, name)))
            .chain(columns.iter().map(|column| Cell::from((column.show)(window, theme))))
            .chain((course > 0).then(|| {
                let history = model.history(&window.name).into_iter().flatten().map(|sample| sample.fresh);
                Cell::from(Line::styled(spark(history, usize::from(course)), theme.graph()))
            }));
        Row::new(cells)
    });
    let widths = std::iter::once(Constraint::Length(u16::try_from(name).unwrap_or(NAME)))
        .chain(columns.iter().map(|column| Constraint::Length(column.width)))
        .chain((course > 0).then_some(Constraint::Length(course)));
    let table = Table::new(rows, widths)
        .header(Row::new(header).style(theme.label()))
        .column_spacing(1)
        .row_highlight_style(theme.selected())
        .highlight_symbol("▶ ");
    let mut state = TableState::default().with_selected(model.position());
    frame.render_stateful_widget(table, area, &mut state);
}

/// Returns the columns that fit, in the order of the table, and the remaining width.
fn choose(room: u16) -> (Vec<&'static Column>, u16) {
    let mut order: Vec<usize> = (0..COLUMNS.len()).collect();
    order.sort_by_key(|at| COLUMNS[*at].rank);
    let mut left = room;
    let mut chosen = Vec::new();
    for at in order {
        let Some(rest) = left.checked_sub(COLUMNS[at].width + 1) else { break };
        left = rest;
        chosen.push(at);
    }
    chosen.sort_unstable();
    (chosen.into_iter().map(|at| &COLUMNS[at]).collect(), left)
}

fn right(text: String) -> Line<'static> {
    Line::raw(text).alignment(Alignment::Right)
}

/// About how many duplicates escaped, where not all could be counted.
fn about_escaped(facts: &Facts) -> String {
    let (least, about) = (facts.escaped_duplicates, facts.escaped_duplicates_about);
    if about > least + least / 100 { format!("~{}", count(about)) } else { count(least) }
}

fn escaped(text: String, window: &Window, theme: Theme) -> Line<'static> {
    let line = right(text);
    if window.facts.rates.escaped > 0.0 { line.style(theme.bad()) } else { line }
}

fn used(window: &Window, theme: Theme) -> Line<'static> {
    let Some(full) = window.facts.full() else { return right("-".to_owned()) };
    let text = format!("{:>7}", share(full));
    Line::from(vec![Span::styled(bar(full, 5), theme.graph()), Span::raw(text)])
}

/// Draws the recent history of the selected window, and the advice.
fn course(window: &Window, history: Option<&History>, theme: Theme, frame: &mut Frame<'_>, area: Rect) {
    let mut block = Block::new()
        .borders(Borders::TOP)
        .border_style(theme.label())
        .title(Line::styled(format!(" {} ", fit(&window.name, 30)), theme.title()));
    if let Some(advice) = advice(window) {
        let room = usize::from(area.width).saturating_sub(fit(&window.name, 30).width() + 5);
        block =
            block.title(Line::styled(format!("{} ", fit(&advice, room)), theme.level(window.facts.level)));
    }
    let inner = block.inner(area);
    frame.render_widget(block, area);
    let [upper, lower] = Layout::vertical([Constraint::Fill(1), Constraint::Fill(1)]).areas(inner);
    let halves = |area: Rect| -> [Rect; 2] {
        Layout::horizontal([Constraint::Fill(1), Constraint::Fill(1)]).spacing(2).areas(area)
    };
    let [a, b] = halves(upper);
    let [c, d] = halves(lower);
    let facts = &window.facts;
    let charts: [(Rect, Chart, Pick); 4] = [
        (a, Chart::new("fresh/s", rate, facts.rates.fresh, theme.graph()), |sample| sample.fresh),
        (b, Chart::new("duplicates/s", rate, facts.rates.duplicate, theme.graph()), |sample| {
            sample.duplicate
        }),
        (c, Chart::new("escaped/s", rate, facts.rates.escaped, theme.bad()), |sample| sample.escaped),
        // A little pressure shall look like little: 1 is where it begins to matter.
        (
            d,
            Chart {
                floor: 1.0,
                ..Chart::new("pressure", factor, facts.pressure.unwrap_or_default(), theme.level(facts.level))
            },
            |sample| sample.pressure,
        ),
    ];
    for (area, chart, pick) in charts {
        let values: Vec<f64> = history.into_iter().flatten().map(pick).collect();
        chart.draw(&values, theme, frame, area);
    }
}

/// The present value, and the course below it.
struct Chart {
    label: &'static str,
    show: fn(f64) -> String,
    now: f64,
    style: Style,
    /// the top of the chart, at least
    floor: f64,
}

impl Chart {
    fn new(label: &'static str, show: fn(f64) -> String, now: f64, style: Style) -> Chart {
        Chart { label, show, now, style, floor: 0.0 }
    }

    fn draw(&self, values: &[f64], theme: Theme, frame: &mut Frame<'_>, area: Rect) {
        let [head, body] = Layout::vertical([Constraint::Length(1), Constraint::Fill(1)]).areas(area);
        let columns = usize::from(body.width.saturating_sub(1));
        let newest = &values[values.len().saturating_sub(columns)..];
        let top = newest.iter().copied().filter(|value| value.is_finite()).fold(self.floor, f64::max);
        let line = Line::from(vec![
            Span::styled(format!(" {} ", self.label), theme.label()),
            Span::styled((self.show)(self.now), theme.strong()),
            Span::styled(format!("  of {}", (self.show)(top)), theme.label()),
        ]);
        frame.render_widget(Paragraph::new(line), head);
        #[expect(clippy::cast_possible_truncation, reason = "between 0 and 800")]
        let scaled =
            newest.iter().map(|value| if top > 0.0 { (value.max(0.0) / top * 800.0) as u64 } else { 0 });
        let data = std::iter::repeat_n(0, columns - newest.len()).chain(scaled);
        let body = Rect { x: body.x + 1, width: body.width.saturating_sub(1), ..body };
        frame.render_widget(Sparkline::default().data(data).max(800).style(self.style), body);
    }
}
