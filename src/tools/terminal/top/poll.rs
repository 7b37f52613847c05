//! Asks the relay, again and again, off the thread that draws. A relay that is away is asked on: it may come back.

use crate::tools::reach::Failure;
use crate::tools::terminal::ApiClient;
use crate::tools::terminal::answer::{Connections, Status, Window, Windows};
use crate::tools::terminal::client::Path;
use std::io;
use std::time::Duration;
use tokio::sync::{mpsc, watch};

/// Connections that are asked for.
const CONNECTIONS: &str = "500";

/// The requests that the page on the screen needs.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Wants {
    /// nothing new
    pub paused: bool,
    /// connections, too: there may be many
    pub connections: bool,
}

/// The relay's answers of one poll.
#[derive(Clone, PartialEq, Debug, Default)]
pub struct Polled {
    /// all windows
    pub windows: Vec<Window>,
    /// the process
    pub status: Status,
    /// if they were wanted
    pub connections: Option<Connections>,
}

/// The one who asks.
#[derive(Debug)]
pub struct Poll {
    /// whom
    pub client: ApiClient,
    /// for what
    pub wanted: watch::Receiver<Wants>,
    /// and tells
    pub tell: mpsc::Sender<Result<Polled, Failure>>,
    /// how often
    pub every: Duration,
}

impl Poll {
    /// Until nobody listens any more.
    pub async fn run(mut self) {
        loop {
            let wants = *self.wanted.borrow_and_update();
            // Poll at once when another page is opened.
            tokio::select! {
                () = tokio::time::sleep(self.every), if !wants.paused => {}
                changed = self.wanted.changed() => if changed.is_err() { return },
            }
            let wants = *self.wanted.borrow();
            if wants.paused {
                continue;
            }
            let polled = ask(self.client.clone(), wants).await;
            if self.tell.send(polled).await.is_err() {
                return;
            }
        }
    }
}

/// Once.
pub async fn ask(client: ApiClient, wants: Wants) -> Result<Polled, Failure> {
    match tokio::task::spawn_blocking(move || ask_blocking(&client, wants)).await {
        Ok(polled) => polled,
        // The terminal is given back by now: going on would draw over it.
        Err(error) if error.is_panic() => std::panic::resume_unwind(error.into_panic()),
        Err(error) => Err(Failure::Io(io::Error::other(error))),
    }
}

fn ask_blocking(client: &ApiClient, wants: Wants) -> Result<Polled, Failure> {
    let Windows { windows } = client.read(&Path::new("windows"))?;
    let status = client.read(&Path::new("status"))?;
    let connections = match wants.connections {
        true => Some(client.read(&Path::new("connections").query("limit", CONNECTIONS))?),
        false => None,
    };
    Ok(Polled { windows, status, connections })
}
