//! Server-sent events: once a second, all windows and the status, made once for all who listen.
//!
//! A listener that is behind gets the newest and misses what was between; one that takes nothing is dropped by the
//! socket's own bound ([`super::listen`]). While nobody listens nothing is made.

use super::Admin;
use super::api::{Status, WindowFacts};
use super::clock::Now;
use super::complaint::{Complaint, ComplaintBody};
use super::health::UpstreamState;
use axum::body::{Body, Bytes};
use axum::extract::State;
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use futures_util::stream;
use parking_lot::Mutex;
use serde::Serialize;
use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::{OwnedSemaphorePermit, Semaphore, watch};
use tokio::time::MissedTickBehavior;
use utoipa::ToSchema;

/// Listeners at a time: far more dashboards than anybody looks at.
const LISTENERS: usize = 64;
/// Time between two events.
const EVERY: Duration = Duration::from_secs(1);

/// One event's data.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = Event)]
pub(super) struct Snapshot {
    /// in the order of the configuration
    windows: Vec<WindowFacts>,
    status: Status,
}

/// Who listens, and to what.
#[derive(Debug)]
pub(super) struct Events {
    /// The newest event, as it is written; none before the first.
    newest: watch::Sender<Option<Bytes>>,
    places: Arc<Semaphore>,
    /// Whether [`run`] runs.
    running: Mutex<bool>,
}

impl Default for Events {
    fn default() -> Events {
        let places = Arc::new(Semaphore::new(LISTENERS));
        Events { newest: watch::Sender::new(None), places, running: Mutex::new(false) }
    }
}

/// A listener's place. Its stream owns it.
struct Seat {
    newest: watch::Receiver<Option<Bytes>>,
    _place: OwnedSemaphorePermit,
}

impl Admin {
    fn seat(self: &Arc<Admin>) -> Result<Seat, Complaint> {
        let place = Arc::clone(&self.events.places).try_acquire_owned().map_err(|_| {
            Complaint::new(
                StatusCode::SERVICE_UNAVAILABLE,
                format!(
                    "{LISTENERS} listen to the events already: close a dashboard, or read /api/v1/windows"
                ),
            )
        })?;
        let mut running = self.events.running.lock();
        let mut newest = self.events.newest.subscribe();
        if *running {
            // What is there is less than a second old: the first event comes at once.
            newest.mark_changed();
        } else {
            *running = true;
            tokio::spawn(run(Arc::clone(self)));
        }
        Ok(Seat { newest, _place: place })
    }

    /// Whether nobody listens; then whoever comes next starts it again.
    fn rest(&self) -> bool {
        let mut running = self.events.running.lock();
        if self.events.newest.receiver_count() > 0 {
            return false;
        }
        *running = false;
        self.events.newest.send_replace(None);
        true
    }
}

/// Makes an event a second, until nobody listens.
async fn run(admin: Arc<Admin>) {
    let mut tick = tokio::time::interval(EVERY);
    tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut upstream = admin.upstream().await;
    let mut asking = None;
    while !admin.rest() {
        tick.tick().await;
        // A silent upstream takes seconds to answer: nobody waits for it here.
        let ask = || {
            let admin = Arc::clone(&admin);
            tokio::spawn(async move { admin.upstream().await })
        };
        let task = asking.get_or_insert_with(ask);
        if task.is_finished()
            && let Some(task) = asking.take()
        {
            upstream = task.await.unwrap_or(upstream);
        }
        admin.events.newest.send_replace(admin.event(&upstream));
    }
}

impl Admin {
    fn event(&self, upstream: &UpstreamState) -> Option<Bytes> {
        let now = Now::read();
        let snapshot =
            Snapshot { windows: self.windows(now.instant), status: self.status(upstream.clone(), &now) };
        // JSON has no line ends of its own.
        let json = serde_json::to_string(&snapshot).ok()?;
        Some(Bytes::from(format!("event: windows\ndata: {json}\n\n")))
    }
}

/// All windows and the status, each second, as server-sent events
///
/// Each event is named `windows`. A browser's `EventSource` can't send the token; `fetch` can.
#[utoipa::path(get, path = "/api/v1/events", tag = "process", security(("token" = [])),
    responses((status = 200, body = Snapshot, content_type = "text/event-stream"), (status = 401, body = ComplaintBody),
        (status = 403, body = ComplaintBody), (status = 503, body = ComplaintBody)))]
pub(super) async fn stream(State(admin): State<Arc<Admin>>) -> Result<Response, Complaint> {
    let seat = admin.seat()?;
    let events = stream::unfold(seat, async |mut seat| {
        loop {
            seat.newest.changed().await.ok()?;
            let newest = seat.newest.borrow_and_update().clone();
            if let Some(event) = newest {
                return Some((Ok::<_, Infallible>(event), seat));
            }
        }
    });
    Ok(([(header::CONTENT_TYPE, "text/event-stream")], Body::from_stream(events)).into_response())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::admin::{Parts, Probe};
    use crate::config::Config;
    use crate::net::Clients;
    use crate::stats::Stats;
    use crate::window::KeyMaker;

    const DEADLINE: Duration = Duration::from_secs(20);

    fn admin() -> Arc<Admin> {
        let config = Config { windows: Vec::new(), ..Config::default() };
        Admin::new(Parts {
            config: &config,
            windows: Vec::new(),
            budget: Arc::new(config.budget()),
            keys: KeyMaker::new((1, 2)),
            stats: Stats::new(),
            clients: Clients::new(),
            probe: Probe::new(&config.upstream, DEADLINE, DEADLINE),
            draining: watch::channel(false).1,
        })
    }

    async fn hears(seat: &mut Seat) {
        tokio::time::timeout(DEADLINE, seat.newest.changed()).await.expect("an event in time").unwrap();
        assert!(seat.newest.borrow_and_update().is_some());
    }

    #[tokio::test]
    async fn it_rests_while_nobody_listens_and_starts_again() {
        let admin = admin();
        let mut seat = admin.seat().unwrap();
        hears(&mut seat).await;
        drop(seat);
        let rest = async {
            let mut again = tokio::time::interval(Duration::from_millis(10));
            while admin.events.newest.borrow().is_some() {
                again.tick().await;
            }
        };
        tokio::time::timeout(DEADLINE, rest).await.expect("it rests");
        let mut seat = admin.seat().unwrap();
        hears(&mut seat).await;
        hears(&mut seat).await;
    }
}
