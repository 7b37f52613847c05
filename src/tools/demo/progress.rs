//! Shows how far it is: a bar on a terminal, lines otherwise. Also the one who notices that nothing moves any more.

use super::Error;
use super::tally::Tally;
use super::voice::Voice;
use crate::tools::text::grouped;
use indicatif::{ProgressBar, ProgressStyle};
use std::io::IsTerminal;
use std::time::Duration;
use tokio::time::Instant;

const BAR_EVERY: Duration = Duration::from_millis(100);
const LINE_EVERY: Duration = Duration::from_secs(2);
/// A publish is answered within milliseconds; the relay gives up waiting after 30 s.
const STALLED: Duration = Duration::from_secs(40);
const STYLE: &str = "  {bar:40} {human_pos} of {human_len} answered  {per_sec}  {elapsed}";

/// Shows until it is dropped; returns only when nothing has been answered for too long.
pub(super) async fn watch(tally: &Tally, total: u64, voice: Voice) -> Error {
    let bar = std::io::stderr().is_terminal().then(|| {
        let style = ProgressStyle::with_template(STYLE).unwrap_or_else(|_| ProgressStyle::default_bar());
        Shown(ProgressBar::new(total).with_style(style))
    });
    let mut tick = tokio::time::interval(if bar.is_some() { BAR_EVERY } else { LINE_EVERY });
    tick.tick().await;
    let mut last = (0, Instant::now());
    loop {
        tick.tick().await;
        let counts = tally.snapshot();
        let settled = counts.settled();
        match &bar {
            Some(Shown(bar)) => bar.set_position(settled),
            None => voice.say(&format!(
                "  {} of {} sent, {} answered",
                grouped(counts.sent),
                grouped(total),
                grouped(settled)
            )),
        }
        if settled != last.0 {
            last = (settled, Instant::now());
        } else if last.1.elapsed() > STALLED {
            return Error::Stalled { settled, sent: counts.sent, seconds: STALLED.as_secs() };
        }
    }
}

/// Taken off the screen when it is dropped.
struct Shown(ProgressBar);

impl Drop for Shown {
    fn drop(&mut self) {
        self.0.finish_and_clear();
    }
}
