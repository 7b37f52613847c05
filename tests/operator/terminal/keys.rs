//! The effect of keys on the model.

use super::facts::{polled, three};
use crossterm::event::{KeyCode, KeyEvent, KeyModifiers};
use hapax::tools::terminal::top::input::handle_key;
use hapax::tools::terminal::top::model::{Drawn, Model, Page};
use hapax::tools::terminal::top::poll::Wants;
use std::time::Duration;

fn model() -> Model {
    let mut model = Model::new("http://127.0.0.1:15673");
    model.learn(polled(&three()), Duration::ZERO);
    model.drawn(Drawn { page: 10, scroll: 15 });
    model
}

/// Characters are keys; those with a name are in angle brackets.
fn press(model: &mut Model, keys: &str) {
    let mut rest = keys;
    while let Some(first) = rest.chars().next() {
        let (code, length) = match first {
            '<' => {
                let end = rest.find('>').unwrap();
                let code = match &rest[1..end] {
                    "enter" => KeyCode::Enter,
                    "esc" => KeyCode::Esc,
                    "tab" => KeyCode::Tab,
                    "up" => KeyCode::Up,
                    "down" => KeyCode::Down,
                    "right" => KeyCode::Right,
                    "back" => KeyCode::Backspace,
                    "pgdn" => KeyCode::PageDown,
                    other => panic!("{other}"),
                };
                (code, end + 1)
            }
            c => (KeyCode::Char(c), c.len_utf8()),
        };
        handle_key(model, KeyEvent::new(code, KeyModifiers::NONE));
        rest = &rest[length..];
    }
}

fn selected(model: &Model) -> &str {
    model.selected.as_deref().unwrap()
}

#[test]
fn q_and_ctrl_c_end_it_from_everywhere() {
    for before in ["", "<enter>", "<tab>", "?", "p"] {
        let mut model = model();
        press(&mut model, before);
        assert!(!model.ended);
        press(&mut model, "q");
        assert!(model.ended, "{before}");
    }
    let mut model = model();
    press(&mut model, "/q");
    assert!(!model.ended, "q is a letter where one types");
    handle_key(&mut model, KeyEvent::new(KeyCode::Char('c'), KeyModifiers::CONTROL));
    assert!(model.ended);
}

#[test]
fn the_selection_stays_within_the_list_and_with_its_window() {
    let mut model = model();
    assert_eq!(selected(&model), "orders");
    press(&mut model, "k");
    assert_eq!(selected(&model), "orders");
    press(&mut model, "j");
    assert_eq!(selected(&model), "default");
    press(&mut model, "<down><down><down>g<down>");
    assert_eq!(selected(&model), "default");
    // The first window goes, the selection does not.
    model.learn(polled(&three()[1..]), Duration::ZERO);
    assert_eq!((selected(&model), model.position()), ("default", Some(0)));
    // It goes itself.
    model.learn(polled(&three()[..1]), Duration::ZERO);
    assert_eq!(selected(&model), "orders");
    model.learn(polled(&[]), Duration::ZERO);
    assert_eq!(model.selected, None);
    press(&mut model, "jk<enter>gG<tab>j");
    assert_eq!(model.page, Page::Connections);
}

#[test]
fn detail_scrolls_changes_windows_and_goes_back() {
    let mut model = model();
    press(&mut model, "<enter>");
    assert_eq!(model.page, Page::Detail);
    press(&mut model, "jj");
    assert_eq!((model.scroll, selected(&model)), (2, "orders"));
    press(&mut model, "<pgdn><pgdn><pgdn>");
    assert_eq!(model.scroll, 15);
    press(&mut model, "<right>");
    assert_eq!(selected(&model), "default");
    press(&mut model, "<esc>");
    assert_eq!((model.page, selected(&model)), (Page::Windows, "default"));
    // The window that is looked at is gone.
    press(&mut model, "<enter>");
    model.learn(polled(&[]), Duration::ZERO);
    assert_eq!(model.page, Page::Windows);
}

#[test]
fn a_filter_is_typed_kept_and_cleared() {
    let mut model = model();
    press(&mut model, "/DEFx<back><enter>");
    assert_eq!((model.listed().len(), selected(&model), model.typing), (1, "default", false));
    press(&mut model, "<enter><esc>");
    assert_eq!(model.filter, "DEF", "coming back from the detail keeps it");
    press(&mut model, "<esc>");
    assert_eq!(model.listed().len(), 3);
    press(&mut model, "/zzz");
    assert_eq!((model.listed().len(), model.selected.clone()), (0, None));
    press(&mut model, "<esc>");
    assert_eq!((model.listed().len(), selected(&model)), (3, "orders"));
}

#[test]
fn a_pause_freezes_what_is_shown() {
    let mut model = model();
    press(&mut model, "p");
    assert_eq!(model.wants(), Wants { paused: true, connections: false });
    model.learn(polled(&[]), Duration::ZERO);
    assert_eq!(model.windows.len(), 3, "an answer that was under way changes nothing");
    press(&mut model, "p<tab>");
    assert_eq!(model.wants(), Wants { paused: false, connections: true });
    model.learn(polled(&[]), Duration::ZERO);
    assert_eq!(model.windows.len(), 0);
}

#[test]
fn the_history_is_bounded_and_goes_with_its_window() {
    let mut model = model();
    for _ in 0..700 {
        model.learn(polled(&three()), Duration::ZERO);
    }
    assert_eq!(model.history("orders").unwrap().len(), 600);
    model.learn(polled(&three()[1..]), Duration::ZERO);
    assert_eq!(model.history("orders"), None);
}
