//! The state of `hapax top`: the last answer, a bounded history, the page and the selection on it. No
//! terminal, no socket, no clock.

use super::poll::{Polled, Wants};
use crate::tools::reach::Failure;
use crate::tools::terminal::answer::{Connection, Connections, Status, Window};
use std::collections::{BTreeMap, VecDeque};
use std::time::Duration;

/// Samples that are kept of each window: ten minutes.
const HISTORY: usize = 600;

/// What is shown.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub enum Page {
    /// all windows, a line each
    #[default]
    Windows,
    /// the selected window
    Detail,
    /// clients
    Connections,
}

/// A window at one moment, as far as its course is shown.
#[derive(Clone, Copy, PartialEq, Debug, Default)]
pub struct Sample {
    /// per second
    pub fresh: f64,
    /// per second
    pub duplicate: f64,
    /// per second
    pub escaped: f64,
    /// demand against room
    pub pressure: f64,
}

/// The newest last.
pub type History = VecDeque<Sample>;

/// Sizes that the view found out while it drew, and that input needs.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Drawn {
    /// lines that a page holds
    pub page: usize,
    /// the last line that scrolling can put on top
    pub scroll: usize,
}

/// The relay does not answer as it should.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Trouble {
    /// what is wrong
    pub text: String,
    /// for so long: when it began
    pub since: Duration,
}

/// All of it.
#[derive(Clone, PartialEq, Debug, Default)]
pub struct Model {
    /// the relay's address
    pub place: String,
    /// in the relay's order
    pub windows: Vec<Window>,
    /// of the relay
    pub status: Status,
    /// as last asked for
    pub connections: Connections,
    /// samples by window
    histories: BTreeMap<String, History>,
    /// what is shown
    pub page: Page,
    /// a window's name: a window keeps being selected though others come and go
    pub selected: Option<String>,
    /// the selected row of connections
    pub row: usize,
    /// lines of the detail page above the screen
    pub scroll: usize,
    /// only what contains this is listed
    pub filter: String,
    /// keys go into the filter
    pub typing: bool,
    /// the keys are explained
    pub help: bool,
    /// nothing new is shown
    pub paused: bool,
    /// since the last answer
    pub trouble: Option<Trouble>,
    /// since the start
    pub now: Duration,
    /// of the last drawing
    pub drawn: Drawn,
    /// time to go
    pub ended: bool,
}

impl Model {
    /// Knows nothing yet.
    pub fn new(place: &str) -> Model {
        Model { place: place.to_owned(), ..Model::default() }
    }

    /// An answer.
    pub fn learn(&mut self, polled: Polled, now: Duration) {
        self.now = now;
        // It was asked before the pause.
        if self.paused {
            return;
        }
        self.trouble = None;
        for window in &polled.windows {
            let (rates, facts) = (&window.facts.rates, &window.facts);
            let history = self.histories.entry(window.name.clone()).or_default();
            if history.len() == HISTORY {
                history.pop_front();
            }
            history.push_back(Sample {
                fresh: rates.fresh,
                duplicate: rates.duplicate,
                escaped: rates.escaped,
                pressure: facts.pressure.unwrap_or_default(),
            });
        }
        self.histories.retain(|name, _| polled.windows.iter().any(|window| window.name == *name));
        self.windows = polled.windows;
        self.status = polled.status;
        if let Some(connections) = polled.connections {
            self.connections = connections;
        }
        self.settle();
    }

    /// Takes a failure instead of an answer. The last answer stays on the screen.
    pub fn fail(&mut self, failure: &Failure, now: Duration) {
        self.now = now;
        let since = self.trouble.as_ref().map_or(now, |trouble| trouble.since);
        self.trouble = Some(Trouble { text: failure.to_string(), since });
    }

    /// Takes the sizes that the view found out.
    pub fn drawn(&mut self, drawn: Drawn) {
        self.drawn = drawn;
        self.scroll = self.scroll.min(drawn.scroll);
    }

    /// Returns the requests that the page on the screen needs.
    pub fn wants(&self) -> Wants {
        Wants { paused: self.paused, connections: self.page == Page::Connections }
    }

    /// Those that the filter lets through.
    pub fn listed(&self) -> Vec<&Window> {
        self.windows.iter().filter(|window| self.passes(&window.name)).collect()
    }

    /// Those that the filter lets through.
    pub fn listed_connections(&self) -> Vec<&Connection> {
        let passes = |connection: &&Connection| {
            let (user, vhost) = (connection.user.as_deref(), connection.vhost.as_deref());
            let texts = [
                &connection.peer,
                user.unwrap_or_default(),
                vhost.unwrap_or_default(),
                &connection.software(),
            ];
            texts.into_iter().any(|text| self.passes(text))
        };
        self.connections.connections.iter().filter(passes).collect()
    }

    fn passes(&self, text: &str) -> bool {
        self.filter.is_empty() || text.to_lowercase().contains(&self.filter.to_lowercase())
    }

    /// The window that keys act on.
    pub fn window(&self) -> Option<&Window> {
        let name = self.selected.as_deref()?;
        self.windows.iter().find(|window| window.name == name)
    }

    /// Its place among those listed.
    pub fn position(&self) -> Option<usize> {
        self.listed().iter().position(|window| Some(&window.name) == self.selected.as_ref())
    }

    /// The course of a window.
    pub fn history(&self, name: &str) -> Option<&History> {
        self.histories.get(name)
    }

    /// Moves the selection among what is listed, and stops at the ends.
    pub fn step(&mut self, by: isize) {
        match self.page {
            Page::Connections => {
                let last = self.listed_connections().len().saturating_sub(1);
                self.row = self.row.saturating_add_signed(by).min(last);
            }
            Page::Windows | Page::Detail => {
                let at = self.position().unwrap_or(0).saturating_add_signed(by);
                let listed = self.listed();
                let at = at.min(listed.len().saturating_sub(1));
                self.selected = listed.get(at).map(|window| window.name.clone());
            }
        }
    }

    /// The selection is something that is listed, if there is anything.
    pub fn settle(&mut self) {
        // On the detail page, a window is looked at that may be filtered out of the list.
        let kept = self.page == Page::Detail && self.window().is_some();
        if !kept && self.position().is_none() {
            self.selected = self.listed().first().map(|window| window.name.clone());
        }
        if self.page == Page::Detail && self.selected.is_none() {
            self.page = Page::Windows;
        }
        self.row = self.row.min(self.listed_connections().len().saturating_sub(1));
    }
}
