//! `hapax top`: a running relay's windows, live. This file is the shell: terminal, signals, clock and requests; what is known
//! is in [`model`], what keys do in [`input`], how it looks in [`view`].
//!
//! ```text
//! keys ────→ input ──┐
//! relay ─→ poll ─────┴─→ model ─→ view ─→ terminal
//! ```

pub mod input;
pub mod model;
pub mod poll;
pub mod screen;
pub mod view;

use super::ApiClient;
use super::client::Path;
use super::theme::Theme;
use crate::tools::reach::Failure;
use crate::tools::text::json;
use crossterm::event::{Event, EventStream, KeyEventKind};
use futures_util::StreamExt;
use model::Model;
use poll::{Poll, Polled, Wants};
use screen::Screen;
use serde_json::{Value, json};
use std::io::{self, IsTerminal, Write};
use std::time::Duration;
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::{mpsc, watch};
use tokio::time::{Instant, MissedTickBehavior};

/// How often the relay is asked, and how often the screen is drawn though nothing happened.
const EVERY: Duration = Duration::from_secs(1);

/// Shows it until `q`, Ctrl-C or a signal.
pub fn run(client: ApiClient) -> Result<(), Failure> {
    if !io::stdout().is_terminal() {
        return Err(Failure::usage(
            "hapax top draws on a terminal, and the output is none",
            "use hapax windows list, or hapax top --json for a line of JSON a second",
        ));
    }
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let result = runtime.block_on(watch_relay(client));
    // A request that is under way is not waited for.
    runtime.shutdown_background();
    result
}

async fn watch_relay(client: ApiClient) -> Result<(), Failure> {
    // Whether there is a relay is found out before the screen is taken: an error is then read where it belongs.
    let mut model = Model::new(client.url());
    let first = poll::ask(client.clone(), Wants::default()).await;
    model.learn(first?, Duration::ZERO);

    let mut terminate = signal(SignalKind::terminate())?;
    let mut hangup = signal(SignalKind::hangup())?;
    let mut interrupt = signal(SignalKind::interrupt())?;
    let (wants, wanted) = watch::channel(Wants::default());
    let (tell, mut told) = mpsc::channel::<Result<Polled, Failure>>(1);
    let polling = tokio::spawn(Poll { client, wanted, tell, every: EVERY }.run());

    // NO_COLOR counts if it is there and not empty: https://no-color.org
    let theme = Theme { color: std::env::var_os("NO_COLOR").is_none_or(|value| value.is_empty()) };
    let mut screen = Screen::enter()?;
    let mut events = EventStream::new();
    let mut tick = tokio::time::interval(EVERY);
    tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let start: Instant = tick.tick().await;
    let mut now = Duration::ZERO;
    while !model.ended {
        let drawn = screen.draw(&model, theme)?;
        model.drawn(drawn);
        tokio::select! {
            event = events.next() => match event {
                Some(Ok(Event::Key(key))) if key.kind != KeyEventKind::Release => input::handle_key(&mut model, key),
                // A new size is drawn as everything else is.
                Some(Ok(_)) => {}
                Some(Err(error)) => return Err(error.into()),
                None => break,
            },
            polled = told.recv() => match polled {
                Some(Ok(polled)) => model.learn(polled, now),
                Some(Err(failure)) => model.fail(&failure, now),
                None => return Err(io::Error::other("nobody asks the relay any more").into()),
            },
            at = tick.tick() => now = at.duration_since(start),
            _ = terminate.recv() => break,
            _ = hangup.recv() => break,
            _ = interrupt.recv() => break,
        }
        model.now = now;
        wants.send_if_modified(|wants| {
            let changed = *wants != model.wants();
            *wants = model.wants();
            changed
        });
    }
    polling.abort();
    Ok(())
}

/// `hapax top --json`: a line a second until stopped, or one document.
pub fn stream(client: &ApiClient, once: bool, out: &mut dyn Write) -> Result<(), Failure> {
    let document = || -> Result<Value, Failure> {
        let windows = client.get(&Path::new("windows"))?;
        let status = client.get(&Path::new("status"))?;
        Ok(json!({"windows": windows.get("windows"), "status": status}))
    };
    if once {
        writeln!(out, "{}", json(&format!("{:#}", document()?)))?;
        return Ok(());
    }
    loop {
        writeln!(out, "{}", json(&document()?.to_string()))?;
        out.flush()?;
        std::thread::sleep(EVERY);
    }
}
