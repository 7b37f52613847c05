//! `hapax top` in a real terminal: it shows numbers, follows keys and sizes, and leaves the terminal as it was, however it
//! ends.

use super::commands::hapax;
use super::emulator::Terminal;
use super::stub::Stub;
use hapax::tools::terminal::top::screen::Screen;
use hapax_testbed::free_port;
use std::process::Command;

fn top(stub: &Stub) -> Terminal {
    let mut command = hapax(&["top"], &stub.url());
    command.env_remove("NO_COLOR");
    Terminal::start(&command, 80, 24)
}

#[test]
fn it_shows_numbers_follows_keys_and_leaves_on_q() {
    let stub = Stub::start();
    let mut terminal = top(&stub);
    terminal.wait_for("numbers", |screen| {
        screen.alternate_screen()
            && screen.contents().contains("CRITICAL")
            && screen.contents().contains("12.4k")
    });
    // Live: what changes there changes here.
    stub.edit(|windows| windows[0]["escaped_duplicates"] = 98_765.into());
    terminal.wait_for_text("98.8k");
    terminal.type_keys("\r");
    terminal.wait_for_text("Age at early eviction");
    terminal.type_keys("\t");
    terminal.wait_for_text("10.1.2.1:54001");
    terminal.type_keys("?");
    terminal.wait_for_text("any key goes back");
    terminal.type_keys(" \t/def\r");
    terminal.wait_for("the filter", |screen| {
        let text = screen.contents();
        text.contains("only “def”") && !text.contains("CRITICAL")
    });
    terminal.type_keys("q");
    assert_eq!(terminal.ended().code(), Some(0));
    terminal.assert_restored();
}

#[test]
fn it_follows_a_new_size() {
    let stub = Stub::start();
    let mut terminal = top(&stub);
    terminal.wait_for_text("CRITICAL");
    assert!(!terminal.text().contains("Advised"), "no room for it yet");
    terminal.resize(140, 40);
    terminal.wait_for_text("Advised");
    terminal.resize(30, 5);
    terminal.wait_for_text("needs 40 × 8");
    terminal.type_keys("\x03");
    assert_eq!(terminal.ended().code(), Some(0));
    terminal.assert_restored();
}

#[test]
fn a_signal_ends_it_with_the_terminal_restored() {
    let stub = Stub::start();
    for signal in ["-TERM", "-INT", "-HUP"] {
        let mut terminal = top(&stub);
        terminal.wait_for_text("CRITICAL");
        let killed = Command::new("kill").args([signal, &terminal.pid().to_string()]).status().unwrap();
        assert!(killed.success());
        assert_eq!(terminal.ended().code(), Some(0), "{signal}");
        terminal.assert_restored();
    }
}

#[test]
fn a_relay_that_goes_is_told_and_what_was_known_stays() {
    let stub = Stub::start();
    let mut terminal = top(&stub);
    terminal.wait_for_text("CRITICAL");
    drop(stub);
    terminal.wait_for_text("no news for");
    assert!(terminal.text().contains("CRITICAL"), "{}", terminal.text());
    terminal.type_keys("q");
    assert_eq!(terminal.ended().code(), Some(0));
    terminal.assert_restored();
}

#[test]
fn without_a_relay_the_screen_is_not_taken() {
    let url = format!("http://127.0.0.1:{}", free_port().unwrap());
    let mut terminal = Terminal::start(&hapax(&["top"], &url), 80, 24);
    assert_eq!(terminal.ended().code(), Some(1));
    assert!(terminal.text().contains("no relay answers at"), "{}", terminal.text());
    terminal.assert_restored();
}

#[test]
fn without_colour_no_colour_is_sent() {
    let stub = Stub::start();
    for (no_color, coloured) in [("", true), ("1", false)] {
        let mut command = hapax(&["top"], &stub.url());
        let mut terminal = Terminal::start(command.env("NO_COLOR", no_color), 80, 24);
        terminal.wait_for_text("CRITICAL");
        terminal.wait_for_text("quit");
        let has = |screen: &vt100::Screen| {
            let (rows, columns) = screen.size();
            let cells = (0..rows.get()).flat_map(|row| (0..columns.get()).map(move |column| (row, column)));
            cells
                .filter_map(|(row, column)| screen.cell(row, column))
                .any(|c| c.fgcolor() != vt100::Color::Default)
        };
        terminal.wait_for("colours as asked for", |screen| has(screen) == coloured);
        terminal.type_keys("q");
        assert_eq!(terminal.ended().code(), Some(0));
    }
}

#[test]
fn a_flush_is_asked_for_where_somebody_sits() {
    let stub = Stub::start();
    for (answer, code, text) in
        [("n\r", 0, "nothing was changed"), ("y\r", 0, "orders: 1,000,000 ids forgotten")]
    {
        let mut terminal = Terminal::start(&hapax(&["windows", "flush", "orders"], &stub.url()), 100, 24);
        terminal.wait_for_text("forget all 1,000,000 ids of orders?");
        terminal.type_keys(answer);
        terminal.wait_for_text(text);
        assert_eq!(terminal.ended().code(), Some(code));
    }
}

/// Not a test: what [`a_panic_leaves_the_terminal_as_it_was`] runs in its terminal.
#[test]
#[ignore = "run by another test, in a terminal"]
fn panics_with_the_screen_taken() {
    if std::env::var_os("HAPAX_TEST_PANICS").is_some() {
        let _screen = Screen::enter().unwrap();
        panic!("planted");
    }
}

#[test]
fn a_panic_leaves_the_terminal_as_it_was() {
    let mut command = Command::new(std::env::current_exe().unwrap());
    command.args(["--exact", "terminal::pty::panics_with_the_screen_taken", "--ignored", "--nocapture"]);
    let mut terminal =
        Terminal::start(command.env("HAPAX_TEST_PANICS", "1").env("RUST_BACKTRACE", "0"), 80, 50);
    assert_ne!(terminal.ended().code(), Some(0));
    assert!(terminal.text().contains("planted"), "its message is read: {}", terminal.text());
    terminal.assert_restored();
}
