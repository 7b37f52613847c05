//! How things look: sixteen colours at most, the terminal's own, so that light and dark ones both serve; and none at all
//! with `NO_COLOR`. No colour says what a word or a sign does not say, too.

use hapax_core::pressure::Level;
use ratatui::style::{Color, Modifier, Style};

/// With or without colours.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Theme {
    /// false: only bold, dim and reversed
    pub color: bool,
}

impl Theme {
    /// Without colours.
    pub const PLAIN: Theme = Theme { color: false };

    /// Labels, and what matters less.
    pub fn label(self) -> Style {
        Style::new().add_modifier(Modifier::DIM)
    }

    /// Headings.
    pub fn title(self) -> Style {
        self.fg(Color::Cyan).add_modifier(Modifier::BOLD)
    }

    /// Returns the style of text that must catch the eye.
    pub fn strong(self) -> Style {
        Style::new().add_modifier(Modifier::BOLD)
    }

    /// The row that keys act on.
    pub fn selected(self) -> Style {
        Style::new().add_modifier(Modifier::REVERSED)
    }

    /// A level's word and numbers.
    pub fn level(self, level: Level) -> Style {
        match level {
            Level::Ok => self.fg(Color::Green),
            Level::Warming | Level::Blind => self.fg(Color::Yellow),
            Level::High => self.fg(Color::Yellow).add_modifier(Modifier::BOLD),
            Level::Critical => self.bad(),
        }
    }

    /// What is wrong.
    pub fn bad(self) -> Style {
        self.fg(Color::Red).add_modifier(Modifier::BOLD)
    }

    /// Bars and curves.
    pub fn graph(self) -> Style {
        self.fg(Color::Blue)
    }

    fn fg(self, color: Color) -> Style {
        if self.color { Style::new().fg(color) } else { Style::new() }
    }
}

/// A level in a word. The worst one is loud without colours, too.
pub fn word(level: Level) -> &'static str {
    match level {
        Level::Ok => "ok",
        Level::Warming => "warming",
        Level::Blind => "blind",
        Level::High => "high",
        Level::Critical => "CRITICAL",
    }
}
