//! The task that keeps the stream of one window: from a connection to the next.

use super::Why;
use super::envelope::Envelope;
use super::health::Health;
use super::link::{Link, Live, State};
use super::outbox::Outbox;
use super::queue::{Found, Layout};
use super::reader::Reader;
use super::session::Session;
use crate::clock::now;
use crate::config::{Config, WindowConfig};
use crate::store::{Failure, Keeper, Logged};
use crate::tls;
use hapax_core::window::logged::{BadBatch, OnOutage, RelayId};
use hapax_core::window::{Inspect, KeyMaker, Window};
use std::sync::Arc;
use std::time::{Duration, Instant};
use tokio::sync::{oneshot, watch};
use tokio::time::{sleep, timeout};

/// How long the start waits for the stream without any progress, in times of `timeouts.store`. Then the window's policy decides.
const START: u32 = 10;
/// The most of the time for the end that is left to close the connection.
const LEAVE: Duration = Duration::from_secs(2);
/// How long to wait before the stream is tried again on a connection that works.
const AGAIN: Duration = Duration::from_millis(500);
/// How often the same trouble is logged again.
const LOG_AGAIN: Duration = Duration::from_secs(60);

/// How long a task that was told to end has to write the rest.
pub(super) type Closing = Option<Duration>;

/// How far the start has come.
pub(super) enum Start {
    /// so many messages are read
    Reading(u64),
    /// The window knows what stood in the stream.
    Done,
    /// The stream is of no use to this window.
    Refused(Failure),
}

/// The parts of a window's task that outlive a connection.
pub(super) struct Stream {
    pub(super) window: Arc<Logged>,
    pub(super) name: Arc<str>,
    pub(super) layout: Layout,
    pub(super) envelope: Envelope,
    pub(super) outbox: Outbox,
    pub(super) reader: Reader,
    pub(super) health: Arc<Health>,
    pub(super) link: Arc<Link>,
    pub(super) start: watch::Sender<Start>,
    /// What stood in the stream at the start is read.
    pub(super) is_recovered: bool,
    /// The trouble that was logged last, and when.
    complained: Option<(Why, Instant)>,
    is_difference_told: bool,
}

/// Makes the keeper of a window's stream. Its task starts when the keeper begins to recover. All windows use one link.
pub(crate) fn open(
    config: &Config,
    of: &WindowConfig,
    (keys, relay): (&KeyMaker, RelayId),
    window: Arc<Logged>,
    (link, tls): (&mut Option<Arc<Link>>, Option<&Arc<tls::Client>>),
) -> Keeper {
    // A window with a stream and no broker for it is an error of the configuration.
    let settings = config.store.stream.as_ref();
    let nodes = settings.map_or(&[][..], |settings| &settings.nodes);
    // The link of windows that a reload has taken out is closed.
    let link = match link.take().filter(|link| link.join()) {
        Some(open) => link.insert(open),
        None => link.insert(Link::new(nodes, tls.cloned())),
    };
    let link = Arc::clone(link);
    let layout = Layout::of(settings, of);
    let name = Arc::clone(&of.rules.name);
    let envelope = Envelope::new(keys.clone(), &of.rules, relay);
    let health = Arc::new(Health::new(Arc::clone(&window), config.timeouts.store, now()));
    let start = watch::Sender::new(Start::Reading(0));
    let (watched, waiting, patience) =
        (start.subscribe(), Arc::clone(&window), START * config.timeouts.store);
    let stream = Stream {
        window,
        name,
        layout,
        outbox: Outbox::default(),
        reader: Reader::new(envelope.relay()),
        envelope,
        health,
        link: Arc::clone(&link),
        start,
        is_recovered: false,
        complained: None,
        is_difference_told: false,
    };
    let (closing, told) = watch::channel(None);
    let (ended, end) = oneshot::channel();
    let recover = async move {
        tokio::spawn(async move {
            stream.run(told).await;
            let _ = ended.send(());
        });
        wait_for_start(watched, &waiting, patience).await
    };
    let close = move |within: Duration| {
        let closed = async move {
            let leave = LEAVE.min(within / 4);
            closing.send_replace(Some(within - leave));
            // A task that never started has dropped its sender.
            let _ = timeout(within, end).await;
            let _ = timeout(leave, link.leave()).await;
        };
        Box::pin(closed) as crate::store::Task<()>
    };
    Keeper { recover: Box::pin(recover), close: Box::new(close) }
}

async fn wait_for_start(
    mut start: watch::Receiver<Start>,
    window: &Logged,
    patience: Duration,
) -> Result<(), Failure> {
    loop {
        {
            let start = start.borrow_and_update();
            match &*start {
                Start::Done => return Ok(()),
                Start::Refused(Failure { what, fix }) => {
                    return Err(Failure { what: what.clone(), fix: fix.clone() });
                }
                Start::Reading(_) => {}
            }
        }
        if timeout(patience, start.changed()).await.is_err() {
            if window.policy().on_outage == OnOutage::Continue {
                window.recovered();
            }
            tracing::error!(
                window = &*window.rules().name,
                "the stream can't be read: this relay begins without what the window remembered; it reads it as soon as it can"
            );
            return Ok(());
        }
    }
}

impl Stream {
    /// Keeps the stream until it is told to end, and everything is written or the time for that is over.
    async fn run(mut self, mut closing: watch::Receiver<Closing>) {
        let mut link = self.link.enter();
        let watch = tokio::spawn(watch_health(Arc::clone(&self.health), Arc::clone(&self.name)));
        let mut told = closing.clone();
        let end = async {
            let within = told.wait_for(Option::is_some).await.map_or(None, |within| *within);
            sleep(within.unwrap_or_default()).await;
        };
        let is_written = tokio::select! {
            () = self.keep(&mut link, &mut closing) => true,
            () = end => false,
        };
        watch.abort();
        let left = self.window.store(now()).map_or(0, |facts| facts.waiting);
        if !is_written {
            tracing::warn!(
                window = &*self.name,
                records = left,
                "the stream has not taken everything: after a restart these ids are unknown to this window"
            );
        }
    }

    async fn keep(&mut self, link: &mut watch::Receiver<State>, closing: &mut watch::Receiver<Closing>) {
        while let Some(live) = self.connection(link, closing).await {
            let outcome = self.serve(&live, closing).await;
            self.health.owes(now());
            match outcome {
                Ok(()) => return,
                Err(why) => {
                    self.complain(&why);
                    if why.is_final && !self.is_recovered {
                        let what = format!("window {:?}: {}", self.name, why.what);
                        self.refuse(what, why.fix.unwrap_or_default());
                    }
                }
            }
            if live.connection.status().connected() {
                // The connection works, and the stream does not: perhaps it does at another node.
                live.give_up();
                sleep(AGAIN).await;
            }
        }
    }

    /// Waits for a connection. `None`: there is none, and nothing is to be written any more.
    async fn connection(
        &mut self,
        link: &mut watch::Receiver<State>,
        closing: &mut watch::Receiver<Closing>,
    ) -> Option<Arc<Live>> {
        loop {
            let state = link.borrow_and_update().clone();
            match state {
                State::Up(live) if live.connection.status().connected() => return Some(live),
                State::Down(Some(why)) => self.complain(&why),
                State::Closed => return None,
                State::Up(_) | State::Down(None) => {}
            }
            let is_idle = self.outbox.is_empty() && !self.has_records();
            tokio::select! {
                changed = link.changed() => changed.ok()?,
                _ = closing.wait_for(Option::is_some), if is_idle => return None,
            }
        }
    }

    fn has_records(&self) -> bool {
        self.window.store(now()).is_some_and(|facts| facts.waiting > 0)
    }

    /// Works on one connection until it ends, or everything is written that is to be written before the end.
    async fn serve(&mut self, live: &Live, closing: &mut watch::Receiver<Closing>) -> Result<(), Why> {
        let found = self.layout.declare(&live.connection).await?;
        if let Found::Differs(text) = found
            && !std::mem::replace(&mut self.is_difference_told, true)
        {
            tracing::warn!(
                window = &*self.name,
                stream = self.layout.name,
                broker = text,
                fix = format!(
                    "a policy goes before the stream's own arguments: rabbitmqctl set_policy hapax '^{}$' '{{\"max-age\":\"{}\"}}' --apply-to queues",
                    self.layout.name.replace('.', "\\."),
                    self.layout.max_age()
                ),
                "the stream has other arguments than the window asks for, and is used as it is: the broker may drop ids before their TTL is over"
            );
        }
        let mut session = Session::open(self, live).await?;
        session.work(self, closing).await
    }

    /// Ends the start: what stood in the stream is of no use.
    pub(super) fn refuse(&self, what: String, fix: String) {
        self.start.send_if_modified(|start| {
            let is_open = matches!(start, Start::Reading(_));
            if is_open {
                *start = Start::Refused(Failure { what, fix });
            }
            is_open
        });
    }

    /// Refuses a stream that others have written.
    pub(super) fn refuse_stranger(&self, bad: BadBatch) {
        let fix = match bad {
            BadBatch::Format(_) => "run the version of Hapax that has written it, or delete the stream",
            _ => {
                "put back the `digest_secret_file` that all relays of this stream share, and the window's `scope` and `id`; \
                 or delete the stream, if what it remembers is not needed any more"
            }
        };
        let what = format!(
            "window {:?}: all that stands in the stream {:?} is of no use here: {bad}",
            self.name, self.layout.name
        );
        self.refuse(what, fix.to_owned());
    }

    /// Logs a trouble: the first time, when it is another one than before, and now and then.
    fn complain(&mut self, why: &Why) {
        let now = now();
        let is_old = self
            .complained
            .as_ref()
            .is_some_and(|(last, at)| last == why && now.saturating_duration_since(*at) < LOG_AGAIN);
        if is_old {
            return;
        }
        tracing::warn!(
            window = &*self.name,
            stream = self.layout.name,
            why = why.what,
            fix = why.fix.as_deref().unwrap_or("none needed, if the broker comes back"),
            "the stream can't be used: trying again"
        );
        self.complained = Some((why.clone(), now));
    }

    /// Notes that the stream works, and says so if it has not.
    pub(super) fn is_well(&mut self, node: &str) {
        if self.complained.take().is_some() {
            tracing::info!(window = &*self.name, stream = self.layout.name, node, "the stream is back");
        }
    }
}

/// Tells the window when the stream has not worked for too long.
async fn watch_health(health: Arc<Health>, window: Arc<str>) {
    loop {
        sleep(health.look_every()).await;
        if health.look(now()) {
            tracing::error!(
                window = &*window,
                "the stream takes nothing: the window does what its `on_outage` says"
            );
        }
    }
}
