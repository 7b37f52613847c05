//! Tells others than its publisher of a publish that was dropped: by lines in the log ([`audit`]), and by copies for another exchange
//! ([`copies`]).
//!
//! Nothing here slows a publisher. A line or a copy that would have to wait too long is left out, and counted.

mod audit;
mod copies;

pub use audit::Audit;
pub(crate) use copies::without_origin;
pub use copies::{Copies, Reason};

use crate::config::PublishingSettings;
use crate::tls;
use hapax_core::session::{CopiedDuplicate, Sighting};
use hapax_core::window::{Claim, Found, Inspect, LiveWindows, Seen, WindowSet};
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Instant;

/// The client that has sent a publish.
#[derive(Clone, Copy, Debug)]
pub struct Publisher<'a> {
    /// the address that the client connects from
    pub peer: SocketAddr,
    /// the user's name, if it is known
    pub user: Option<&'a str>,
}

/// Says what is to be said of dropped publishes. There is one in the process.
#[derive(Debug)]
pub struct Signals {
    windows: Arc<LiveWindows<dyn Inspect>>,
    /// the lines in the log
    pub audit: Audit,
    /// the copies for other exchanges; `None`: nobody says at which broker
    pub copies: Option<Arc<Copies>>,
}

impl Default for Signals {
    /// Creates the signals of a process without windows.
    fn default() -> Signals {
        Signals { windows: LiveWindows::new(WindowSet::default()), audit: Audit::default(), copies: None }
    }
}

impl Signals {
    /// Begins to say it.
    pub fn new(
        windows: Arc<LiveWindows<dyn Inspect>>,
        copies: Option<PublishingSettings>,
        tls: Option<Arc<tls::Client>>,
    ) -> Arc<Signals> {
        let copies = copies.map(|settings| Copies::new(settings, tls));
        Arc::new(Signals { windows, audit: Audit::default(), copies })
    }

    /// Logs a publish that was dropped.
    pub fn audit(&self, publisher: Publisher<'_>, sighting: &Sighting, now: Instant) {
        self.audit.note(publisher, sighting, || self.first(&sighting.window, sighting.claim, now), now);
    }

    /// Sends the copy of a publish that was dropped on its way.
    pub fn copy(&self, publisher: Publisher<'_>, copy: CopiedDuplicate, now: Instant) {
        if let Some(copies) = &self.copies {
            let first = self.first(&copy.window, copy.claim, now);
            copies.put(publisher, copy, first, now);
        }
    }

    /// Returns what the window remembers of an id.
    fn first(&self, window: &str, claim: Claim, now: Instant) -> Option<Seen> {
        match self.windows.named(window)?.find(claim, now) {
            Some(Found::Seen(seen)) => Some(seen),
            Some(Found::InFlight | Found::Unknown) | None => None,
        }
    }
}
