//! What keys do: a key and a model in, the model changed. No terminal.

use super::model::{Model, Page};
use crossterm::event::{KeyCode, KeyEvent, KeyModifiers};

/// Keys and what they do, for the help.
pub const KEYS: [(&str, &str); 11] = [
    ("q, Ctrl-C", "quit"),
    ("↑ ↓, j k", "select; scroll in the detail view"),
    ("PgUp PgDn", "a page"),
    ("g G, Home End", "first, last"),
    ("Enter", "detail of the selected window"),
    ("← →, h l", "detail: previous, next window"),
    ("Esc", "back; clear the filter"),
    ("Tab", "windows, connections"),
    ("/", "filter by name"),
    ("p", "pause, go on"),
    ("?", "this help"),
];

/// Columns of a filter that can be typed.
const FILTER: usize = 64;

/// A key that was pressed.
pub fn handle_key(model: &mut Model, key: KeyEvent) {
    if key.modifiers.contains(KeyModifiers::CONTROL) {
        if key.code == KeyCode::Char('c') {
            model.ended = true;
        }
        return;
    }
    if model.typing {
        return handle_typed(model, key.code);
    }
    if model.help {
        model.help = false;
        // It is read, and any key ends it; the one that quits still does.
        model.ended = key.code == KeyCode::Char('q');
        return;
    }
    match key.code {
        KeyCode::Char('q') => model.ended = true,
        KeyCode::Char('?') => model.help = true,
        KeyCode::Char('p') => model.paused = !model.paused,
        KeyCode::Char('/') if model.page != Page::Detail => model.typing = true,
        KeyCode::Tab | KeyCode::BackTab => {
            model.page = if model.page == Page::Connections { Page::Windows } else { Page::Connections };
            model.filter.clear();
            model.settle();
        }
        KeyCode::Enter if model.page == Page::Windows && model.window().is_some() => {
            model.page = Page::Detail;
            model.scroll = 0;
        }
        KeyCode::Esc | KeyCode::Backspace => back(model),
        KeyCode::Left | KeyCode::Char('h') if model.page == Page::Detail => model.step(-1),
        KeyCode::Right | KeyCode::Char('l') if model.page == Page::Detail => model.step(1),
        code => {
            if let Some(by) = distance(model, code) {
                travel(model, by);
            }
        }
    }
}

/// Where to, in lines.
fn distance(model: &Model, code: KeyCode) -> Option<isize> {
    let page = isize::try_from(model.drawn.page.max(1)).unwrap_or(1);
    Some(match code {
        KeyCode::Up | KeyCode::Char('k') => -1,
        KeyCode::Down | KeyCode::Char('j') => 1,
        KeyCode::PageUp => -page,
        KeyCode::PageDown | KeyCode::Char(' ') => page,
        KeyCode::Home | KeyCode::Char('g') => isize::MIN,
        KeyCode::End | KeyCode::Char('G') => isize::MAX,
        _ => return None,
    })
}

fn travel(model: &mut Model, by: isize) {
    if model.page == Page::Detail {
        model.scroll = model.scroll.saturating_add_signed(by).min(model.drawn.scroll);
    } else {
        model.step(by);
    }
}

fn back(model: &mut Model) {
    if model.page == Page::Windows || !model.filter.is_empty() && model.page == Page::Connections {
        model.filter.clear();
    } else {
        model.page = Page::Windows;
    }
    model.settle();
}

fn handle_typed(model: &mut Model, code: KeyCode) {
    match code {
        KeyCode::Enter => model.typing = false,
        KeyCode::Esc => {
            model.typing = false;
            model.filter.clear();
        }
        KeyCode::Backspace => {
            model.filter.pop();
        }
        KeyCode::Char(c) if model.filter.chars().count() < FILTER => model.filter.push(c),
        KeyCode::Up | KeyCode::Down => {
            model.typing = false;
            travel(model, if code == KeyCode::Up { -1 } else { 1 });
        }
        _ => {}
    }
    model.settle();
}
