//! The screen is a function of the model: snapshots as text, and what colours and hostile names may do.

use super::facts::{HOSTILE, polled, three, window};
use hapax::tools::reach::Failure;
use hapax::tools::terminal::answer::ChaosOn;
use hapax::tools::terminal::theme::Theme;
use hapax::tools::terminal::top::model::{Model, Page};
use hapax::tools::terminal::top::view;
use hapax_core::pressure::Facts;
use hapax_core::pressure::facts::Store;
use hapax_core::window::OnOutage;
use ratatui::Terminal;
use ratatui::backend::TestBackend;
use ratatui::buffer::Buffer;
use ratatui::style::{Color, Modifier};
use serde_json::Value;
use std::time::Duration;

/// Returns a model after this number of answers whose rates go up and down.
fn model(windows: &[Value], answers: u32) -> Model {
    let mut model = Model::new("http://127.0.0.1:15673");
    for second in 0..answers {
        let mut polled = polled(windows);
        for window in &mut polled.windows {
            let swing = 1.0 + (f64::from(second) / 4.0).sin() / 2.0;
            window.facts.rates.fresh *= if second + 1 == answers { 1.0 } else { swing };
            let so_far = f64::from(second + 1) / f64::from(answers);
            window.facts.pressure = window.facts.pressure.map(|pressure| pressure * so_far);
        }
        model.learn(polled, Duration::from_secs(u64::from(second)));
    }
    model
}

fn draw(model: &mut Model, width: u16, height: u16, theme: Theme) -> Buffer {
    let mut terminal = Terminal::new(TestBackend::new(width, height)).unwrap();
    let mut drawn = None;
    terminal.draw(|frame| drawn = Some(view::draw(model, theme, frame))).unwrap();
    model.drawn(drawn.unwrap());
    terminal.backend().buffer().clone()
}

fn text(buffer: &Buffer) -> String {
    let width = usize::from(buffer.area.width);
    let row = |cells: &[ratatui::buffer::Cell]| {
        let line: String = cells.iter().map(ratatui::buffer::Cell::symbol).collect();
        line.trim_end().to_owned()
    };
    buffer.content.chunks(width).map(row).collect::<Vec<_>>().join("\n")
}

fn shown(model: &mut Model, width: u16, height: u16) -> String {
    text(&draw(model, width, height, Theme::PLAIN))
}

fn at(page: Page, windows: &[Value]) -> Model {
    let mut model = model(windows, 40);
    model.page = page;
    model
}

#[test]
fn the_list() {
    let mut model = at(Page::Windows, &three());
    insta::assert_snapshot!("list_80x24", shown(&mut model, 80, 24));
    insta::assert_snapshot!("list_140x40", shown(&mut model, 140, 40));
    insta::assert_snapshot!("list_60x12", shown(&mut model, 60, 12));
}

#[test]
fn the_detail_of_a_window_that_is_too_small() {
    let mut model = at(Page::Detail, &three());
    insta::assert_snapshot!("detail_80x24", shown(&mut model, 80, 24));
    assert!(model.drawn.scroll > 0, "there is more below");
    model.scroll = usize::MAX;
    insta::assert_snapshot!("detail_80x24_end", shown(&mut model, 80, 24));
    insta::assert_snapshot!("detail_140x40", shown(&mut model, 140, 40));
}

#[test]
fn the_detail_of_a_window_that_is_well() {
    let mut model = at(Page::Detail, &three());
    model.selected = Some("default".to_owned());
    insta::assert_snapshot!("detail_well_140x40", shown(&mut model, 140, 40));
}

/// A window with a store shows it below all else. Trouble with the store is the advice, whatever else there is.
#[test]
fn the_detail_of_a_window_with_a_store() {
    let down = Store {
        kind: "redis".to_owned(),
        down_seconds: Some(83.0),
        waiting_records: 4_120,
        lag_seconds: 83.5,
        unremembered: 4_117,
        recovered: 81_020,
        merged: 977,
        crossed: 2,
        behind_seconds: Some(0.004),
        latency_seconds: Some(0.0125),
        memory_bytes: Some(3 << 30),
        memory_max_bytes: Some(4 << 30),
        evicted_keys: Some(0),
        ..Store::default()
    };
    let shown_of = |store: Store, width, height| {
        let facts = Facts { store: Some(store), ..super::facts::critical() };
        let mut model = at(Page::Detail, &[window("orders", &facts)]);
        model.scroll = usize::MAX;
        shown(&mut model, width, height)
    };
    insta::assert_snapshot!("detail_store_80x24", shown_of(down.clone(), 80, 24));
    insta::assert_snapshot!("detail_store_140x40", shown_of(down.clone(), 140, 40));
    let refuses = shown_of(Store { on_outage: OnOutage::Refuse, ..down.clone() }, 140, 40);
    assert!(refuses.contains("the store is down for 1m 23s: publishers wait until it is back"), "{refuses}");
    let reads = Store { up: true, down_seconds: None, recovering: true, ..down.clone() };
    assert!(shown_of(reads, 140, 40).contains("reads its store: no client is taken"));
    let well = Store { up: true, down_seconds: None, kind: "disk".to_owned(), ..down };
    let well = shown_of(well, 140, 40);
    assert!(!well.contains("stores down"), "{well}");
    assert!(well.contains("too small, remembers") && !well.contains("merged"), "{well}");
}

#[test]
fn connections() {
    let mut model = at(Page::Connections, &three());
    insta::assert_snapshot!("connections_80x24", shown(&mut model, 80, 24));
    insta::assert_snapshot!("connections_140x40", shown(&mut model, 140, 12));
    model.filter = "AUDIT".to_owned();
    assert!(!shown(&mut model, 140, 12).contains("shop"));
}

#[test]
fn nothing_yet_and_nothing_found() {
    let mut empty = model(&[], 1);
    insta::assert_snapshot!("empty_80x24", shown(&mut empty, 80, 10));
    let mut fresh = model(&[window("default", &Facts::default())], 1);
    for page in [Page::Windows, Page::Detail, Page::Connections] {
        fresh.page = page;
        shown(&mut fresh, 80, 24);
    }
    let mut model = model(&three(), 1);
    model.filter = "nope".to_owned();
    assert!(shown(&mut model, 80, 24).contains("no window matches the filter"));
}

#[test]
fn help_pause_filter_and_trouble_are_seen() {
    let mut model = model(&three(), 3);
    let refused = Failure::Unreachable {
        url: "http://127.0.0.1:15673".to_owned(),
        why: "Connection refused".to_owned(),
    };
    model.fail(&refused, Duration::from_secs(10));
    model.fail(&refused, Duration::from_secs(15));
    model.help = true;
    model.paused = true;
    model.filter = "def".to_owned();
    model.typing = true;
    model.settle();
    insta::assert_snapshot!("help_80x24", shown(&mut model, 80, 24));
}

#[test]
fn a_broker_that_is_down_and_a_drain_are_loud() {
    let mut model = model(&three(), 1);
    model.status.upstream.ok = false;
    model.status.upstream.error = Some(format!("refused {HOSTILE}"));
    model.status.draining = true;
    model.status.chaos = Some(ChaosOn { left_seconds: 150.0, ..ChaosOn::default() });
    model.status.connections.rejected = 5;
    let text = shown(&mut model, 80, 24);
    for part in ["DOWN", "DRAINING", "CHAOS, 2m 30s left", "(5 rejected)", "broker: refused evil␛"] {
        assert!(text.contains(part), "{part} in\n{text}");
    }
}

#[test]
fn no_name_reaches_the_terminal_as_it_is() {
    for page in [Page::Windows, Page::Detail, Page::Connections] {
        for selected in ["orders", HOSTILE] {
            let mut model = at(page, &three());
            model.selected = Some(selected.to_owned());
            for scroll in [0, 10, 20] {
                model.scroll = scroll;
                let text = shown(&mut model, 140, 60);
                let wrong = |c: &char| {
                    c.is_control() && *c != '\n' || ('\u{2028}'..='\u{202e}').contains(c) || *c == '\u{200b}'
                };
                assert_eq!(text.chars().find(wrong), None, "{page:?}\n{text}");
            }
        }
        let mut model = at(page, &three());
        model.selected = Some(HOSTILE.to_owned());
        assert!(shown(&mut model, 140, 60).contains("evil␛"), "it is shown, harmlessly: {page:?}");
    }
}

#[test]
fn without_colour_there_is_none_and_the_level_is_still_read() {
    let mut model = at(Page::Windows, &three());
    let coloured = |buffer: &Buffer| {
        buffer.content.iter().any(|cell| cell.fg != Color::Reset || cell.bg != Color::Reset)
    };
    let plain = draw(&mut model, 140, 40, Theme::PLAIN);
    assert!(!coloured(&plain));
    assert!(text(&plain).contains("CRITICAL"));
    let bright = draw(&mut model, 140, 40, Theme { color: true });
    assert_eq!(text(&plain), text(&bright), "colours add nothing but colour");
    let first = bright.content.iter().position(|cell| cell.symbol() == "C" && cell.fg == Color::Red);
    assert!(first.is_some(), "critical is red");
    assert!(plain.content.iter().any(|cell| cell.modifier.contains(Modifier::REVERSED)), "the selected row");
}

#[test]
fn every_size_can_be_drawn() {
    let hostile_numbers = Facts {
        pressure: Some(f64::INFINITY),
        coverage: f64::NAN,
        capacity: Some(0),
        entries: Some(u64::MAX),
        bytes: u64::MAX,
        ttl_seconds: f64::MAX,
        ..super::facts::critical()
    };
    let mut polled = polled(&three());
    polled.windows[0].facts = hostile_numbers;
    for page in [Page::Windows, Page::Detail, Page::Connections] {
        let mut model = Model::new("http://h:1");
        model.learn(polled.clone(), Duration::ZERO);
        model.page = page;
        for help in [false, true] {
            model.help = help;
            for width in [1, 10, 39, 40, 41, 59, 75, 76, 80, 131, 132, 200, 400] {
                for height in [1, 5, 8, 9, 13, 14, 24, 100] {
                    draw(&mut model, width, height, Theme { color: true });
                }
            }
        }
    }
}
