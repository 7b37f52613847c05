//! Server-sent events: once a second, all windows and the status. Each event is made once for all subscribers.
//!
//! A subscriber that is behind gets the newest event and misses those in between. A subscriber that reads nothing is
//! closed by the write timeout of its socket ([`crate::admin::listen`]); the kernel buffers little for it, so this is noticed
//! soon. When there are as many subscribers as allowed, a new one replaces the one that has read nothing for the
//! longest time. While nobody subscribes, no event is made.

use super::status::Status;
use super::windows::WindowFacts;
use crate::admin::Admin;
use crate::admin::activity::Activity;
use crate::admin::clock::Now;
use crate::admin::complaint::{Complaint, ComplaintBody};
use crate::admin::health::UpstreamState;
use axum::Extension;
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
use tokio::sync::watch;
use tokio::time::MissedTickBehavior;
use utoipa::ToSchema;

/// The most subscribers at a time. It is far more than the number of dashboards that anybody looks at.
const MAX_SUBSCRIBERS: usize = 64;
/// Time between two events.
const EVERY: Duration = Duration::from_secs(1);
/// A subscriber that has read nothing for this long may be replaced by a new one.
const BEHIND: Duration = Duration::from_secs(2);

/// The data of one event.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = Event)]
pub(in crate::admin) struct WindowsEvent {
    /// in the order of the configuration
    windows: Vec<WindowFacts>,
    status: Status,
}

/// The newest event and its subscribers.
#[derive(Debug)]
pub(in crate::admin) struct Events {
    /// The newest event as it is sent; `None` before the first.
    newest: watch::Sender<Option<Bytes>>,
    subscribers: Mutex<Subscribers>,
}

#[derive(Debug, Default)]
struct Subscribers {
    /// the activity of each subscriber's connection
    connections: Vec<Arc<Activity>>,
    /// true while [`run`] runs
    running: bool,
}

impl Default for Events {
    fn default() -> Events {
        Events { newest: watch::Sender::new(None), subscribers: Mutex::default() }
    }
}

impl Subscribers {
    /// Adds a subscriber. If there is no room for one more, it replaces the one that has read nothing for the longest time.
    fn enter(&mut self, activity: &Arc<Activity>) -> Result<(), Complaint> {
        if self.connections.len() >= MAX_SUBSCRIBERS {
            let stuck = |(at, subscriber): (usize, &Arc<Activity>)| {
                subscriber.stuck().filter(|stuck| *stuck >= BEHIND).map(|stuck| (stuck, at))
            };
            let (_, last) =
                self.connections.iter().enumerate().filter_map(stuck).max().ok_or_else(all_taken)?;
            self.connections.swap_remove(last).leave();
        }
        self.connections.push(Arc::clone(activity));
        Ok(())
    }

    fn leave(&mut self, activity: &Arc<Activity>) {
        self.connections.retain(|subscriber| !Arc::ptr_eq(subscriber, activity));
    }
}

fn all_taken() -> Complaint {
    Complaint::new(
        StatusCode::SERVICE_UNAVAILABLE,
        format!("{MAX_SUBSCRIBERS} listen to the events already: close a dashboard, or read /api/v1/windows"),
    )
}

/// One subscription. The subscriber's stream owns it.
struct Subscription {
    admin: Arc<Admin>,
    newest: watch::Receiver<Option<Bytes>>,
    activity: Arc<Activity>,
}

impl Drop for Subscription {
    fn drop(&mut self) {
        self.admin.events.subscribers.lock().leave(&self.activity);
    }
}

impl Admin {
    fn subscribe(self: &Arc<Admin>, activity: Arc<Activity>) -> Result<Subscription, Complaint> {
        let mut subscribers = self.events.subscribers.lock();
        subscribers.enter(&activity)?;
        activity.keep_short();
        let mut newest = self.events.newest.subscribe();
        if subscribers.running {
            // The newest event is less than a second old, so send it at once.
            newest.mark_changed();
        } else {
            subscribers.running = true;
            tokio::spawn(run(Arc::clone(self)));
        }
        drop(subscribers);
        Ok(Subscription { admin: Arc::clone(self), newest, activity })
    }

    /// Returns true if there is no subscriber. Then [`run`] ends, and the next subscriber starts it again.
    fn rest(&self) -> bool {
        let mut subscribers = self.events.subscribers.lock();
        if !subscribers.connections.is_empty() {
            return false;
        }
        subscribers.running = false;
        self.events.newest.send_replace(None);
        true
    }
}

/// Makes an event per second until there is no subscriber.
async fn run(admin: Arc<Admin>) {
    let mut tick = tokio::time::interval(EVERY);
    tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut upstream = admin.upstream().await;
    let mut asking = None;
    while !admin.rest() {
        tick.tick().await;
        // A silent upstream takes seconds to answer. Do not wait for it here.
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
        let event =
            WindowsEvent { windows: self.windows(now.instant), status: self.status(upstream.clone(), &now) };
        // JSON text has no line breaks, which would end the event.
        let json = serde_json::to_string(&event).ok()?;
        Some(Bytes::from(format!("event: windows\ndata: {json}\n\n")))
    }
}

/// Stream all windows and the status each second, as server-sent events
///
/// Each event is named `windows`. A browser's `EventSource` can't send the token; `fetch` can.
#[utoipa::path(get, path = "/api/v1/events", tag = "process", security(("token" = [])),
    responses((status = 200, body = WindowsEvent, content_type = "text/event-stream"), (status = 401, body = ComplaintBody),
        (status = 403, body = ComplaintBody), (status = 503, body = ComplaintBody)))]
pub(in crate::admin) async fn stream(
    State(admin): State<Arc<Admin>>,
    activity: Option<Extension<Arc<Activity>>>,
) -> Result<Response, Complaint> {
    let subscription = admin.subscribe(activity.map(|Extension(activity)| activity).unwrap_or_default())?;
    let events = stream::unfold(subscription, async |mut subscription| {
        loop {
            subscription.newest.changed().await.ok()?;
            let newest = subscription.newest.borrow_and_update().clone();
            if let Some(event) = newest {
                return Some((Ok::<_, Infallible>(event), subscription));
            }
        }
    });
    Ok(([(header::CONTENT_TYPE, "text/event-stream")], Body::from_stream(events)).into_response())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::admin::Parts;
    use crate::config::Config;
    use crate::live::Running;
    use crate::net::{ConnectionList, Opener, Upstreams};
    use crate::stats::Stats;
    use hapax_core::window::KeyMaker;

    const DEADLINE: Duration = Duration::from_secs(20);

    fn admin() -> Arc<Admin> {
        let config = Config { windows: Vec::new(), ..Config::default() };
        Admin::new(Parts {
            config: &config,
            running: Running::new(&config, Vec::new(), watch::channel(false).1),
            keys: KeyMaker::new((1, 2)),
            stats: Stats::new(),
            connections: ConnectionList::new(),
            upstreams: Upstreams::new(&config, Opener::default(), DEADLINE),
            certificates: Arc::default(),
            signals: Arc::default(),
            chaos: Arc::default(),
            tls: None,
            reloader: None,
            draining: watch::channel(false).1,
            drain: None,
            spans: None,
        })
    }

    async fn hears(subscription: &mut Subscription) {
        tokio::time::timeout(DEADLINE, subscription.newest.changed())
            .await
            .expect("an event in time")
            .unwrap();
        assert!(subscription.newest.borrow_and_update().is_some());
    }

    #[tokio::test]
    async fn it_rests_while_nobody_listens_and_starts_again() {
        let admin = admin();
        let mut subscription = admin.subscribe(Arc::default()).unwrap();
        hears(&mut subscription).await;
        drop(subscription);
        let rest = async {
            let mut again = tokio::time::interval(Duration::from_millis(10));
            while admin.events.newest.borrow().is_some() {
                again.tick().await;
            }
        };
        tokio::time::timeout(DEADLINE, rest).await.expect("it rests");
        let mut subscription = admin.subscribe(Arc::default()).unwrap();
        hears(&mut subscription).await;
        hears(&mut subscription).await;
    }
}
