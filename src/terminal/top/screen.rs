//! The terminal as we take it and as we give it back: raw mode, alternate screen, hidden cursor. However this ends, by a
//! return, a failure or a panic, the terminal is as it was.

use super::model::{Drawn, Model};
use super::view;
use crate::terminal::theme::Theme;
use ratatui::DefaultTerminal;
use std::io;

/// A terminal that is ours until it is dropped.
#[derive(Debug)]
pub struct Screen {
    terminal: DefaultTerminal,
}

impl Screen {
    /// Takes it. A panic from here on gives it back before its message is printed.
    pub fn enter() -> io::Result<Screen> {
        Ok(Screen { terminal: ratatui::try_init()? })
    }

    /// Draws all of it; only what has changed is written.
    pub fn draw(&mut self, model: &Model, theme: Theme) -> io::Result<Drawn> {
        let mut drawn = Drawn::default();
        self.terminal.draw(|frame| drawn = view::draw(model, theme, frame))?;
        Ok(drawn)
    }
}

impl Drop for Screen {
    fn drop(&mut self) {
        // A terminal that is gone can't be given back, and there is nobody to tell.
        let _ = self.terminal.show_cursor();
        ratatui::restore();
    }
}
