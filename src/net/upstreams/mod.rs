//! The nodes of the broker's cluster: which one a new connection goes to, and which of them answer.
//!
//! Whatever Hapax remembers (ids, rights, what was delivered) belongs to the cluster. Nothing of it is kept by node, so a client
//! that comes back by another node finds all of it.
//!
//! ```text
//!   pump ── dial() ──┐                      ┌── chooser: which node, and when is it asked (no sockets, no clock)
//!   watch() ─────────┼── Upstreams ── Node ─┤── resolver: the addresses of its name
//!   admin ── check() ┘                      └── connect, greeting: a socket that has said connection.start
//! ```
//!
//! A dial ends when a node has said `connection.start`: a node that accepts connections and says nothing is passed over like one
//! that refuses them. A refusal after that (a wrong password, a vhost that does not exist) is the client's own business, and no
//! reason to try another node.

mod chooser;
mod connect;
mod greeting;
mod node;
mod resolver;

pub use greeting::NoAnswer;
pub(super) use node::OpenUpstream;

use crate::clock::{Backoff, luck, now};
use crate::config::{Config, UpstreamAddress, UpstreamHealth, UpstreamOrder};
use crate::net::{Ends, Opener, Transport};
use bytes::BytesMut;
use chooser::{Change, Chooser, Found, Times};
use connect::Opening;
use futures_util::future::join_all;
use hapax_core::wire::frame::PROTOCOL_HEADER;
use node::{Node, Patience};
use parking_lot::Mutex;
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::time::{Duration, Instant};
use tokio::sync::Notify;
use tokio::task::JoinSet;
use tokio::time::sleep_until;

/// The pause after all nodes were tried in vain: the first one, and the longest one.
const BACKOFF: (Duration, Duration) = (Duration::from_millis(50), Duration::from_secs(1));
/// How long a scrape accepts a good answer of the only node. Otherwise each scrape would add a line to RabbitMQ's log. The price: a
/// scrape notices a lost broker this much later.
const GOOD_FOR_SCRAPES: Duration = Duration::from_secs(15);

/// The nodes, and what is known of them. There is one per process.
#[derive(Debug)]
pub struct Upstreams {
    nodes: Vec<Node>,
    order: UpstreamOrder,
    health: UpstreamHealth,
    /// opens TLS and sends the PROXY header
    opener: Opener,
    /// how long a dial may take in all
    connect_timeout: Duration,
    /// how long an answer is given to those who ask again
    fresh: Duration,
    chooser: Mutex<Chooser>,
    /// wakes [`Upstreams::watch`], because a node is to be asked earlier
    earlier: Notify,
}

/// A connection to a node, which has said `connection.start`.
#[derive(Debug)]
pub(super) struct Dialled {
    /// the connection
    pub(super) transport: Transport,
    /// what was read from it
    pub(super) said: BytesMut,
    /// counts the connection
    pub(super) open: OpenUpstream,
    /// `HOST:PORT` of the node
    pub(super) upstream: Arc<str>,
}

/// No node could be reached.
#[derive(Debug)]
pub(super) struct Unreachable {
    /// `HOST:PORT` of the node that was tried last
    pub(super) upstream: Arc<str>,
    /// why it could not be reached
    pub(super) error: NoAnswer,
}

/// A node at one moment.
#[derive(Clone, PartialEq, Debug)]
pub struct UpstreamNode {
    /// `HOST:PORT`
    pub address: Arc<str>,
    /// whether it answered when it was last asked, or when a connection was last opened; `None` before that
    pub up: Option<bool>,
    /// why it did not
    pub error: Option<String>,
    /// how long ago that was
    pub age: Option<Duration>,
    /// how long it gets no connections, as long as there are others
    pub rest: Option<Duration>,
    /// connections that are open
    pub connections: u64,
    /// connections that were opened since the start
    pub opened: u64,
    /// attempts since the start that got no `connection.start`: those for clients, and Hapax's own probes
    pub failures: u64,
}

impl Upstreams {
    /// Creates the nodes of this configuration. An answer is given to those who ask within `fresh`.
    pub fn new(config: &Config, opener: Opener, fresh: Duration) -> Arc<Upstreams> {
        Upstreams::of(
            &config.upstreams,
            config.upstream_order,
            config.upstream_health,
            opener,
            config.timeouts.upstream_connect,
            fresh,
        )
    }

    fn of(
        addresses: &[UpstreamAddress],
        order: UpstreamOrder,
        health: UpstreamHealth,
        opener: Opener,
        connect_timeout: Duration,
        fresh: Duration,
    ) -> Arc<Upstreams> {
        let times = Times { interval: health.interval, rest: health.rest, max_rest: health.max_rest };
        let nodes: Vec<Node> = addresses.iter().map(Node::new).collect();
        let chooser = Mutex::new(Chooser::new(nodes.len(), order, times, now()));
        let earlier = Notify::new();
        Arc::new(Upstreams { nodes, order, health, opener, connect_timeout, fresh, chooser, earlier })
    }

    /// Opens a connection for a client: tries the nodes one after the other, and all of them again after a pause, until one has
    /// said `connection.start` or the time is over. The only node is tried once.
    pub(super) async fn dial(&self, protocol_header: &[u8], ends: Ends) -> Result<Dialled, Unreachable> {
        let opening = Opening { opener: &self.opener, ends: Some(ends), protocol_header };
        let until = now() + self.connect_timeout;
        let mut backoff = Backoff::new(BACKOFF.0, BACKOFF.1);
        loop {
            let why = match self.try_all(opening, until).await {
                Ok(dialled) => return Ok(dialled),
                Err(why) => why,
            };
            let again = now() + backoff.draw();
            if self.is_one() || again >= until {
                return Err(why);
            }
            sleep_until(again.into()).await;
        }
    }

    async fn try_all(&self, opening: Opening<'_>, until: Instant) -> Result<Dialled, Unreachable> {
        let order = self.chooser.lock().next_order();
        let count = order.len();
        let mut why = Unreachable { upstream: "".into(), error: NoAnswer::NoTime };
        let nodes = order.into_iter().filter_map(|index| Some((index, self.nodes.get(index)?)));
        for (tried, (index, node)) in nodes.enumerate() {
            let patience = Patience {
                until,
                each: self.health.timeout,
                nodes_left: count - tried,
                is_only: self.is_one(),
            };
            let by_turns = self.order == UpstreamOrder::RoundRobin;
            match node.greet(opening, patience, by_turns).await {
                Ok((transport, said)) => {
                    self.answered(index, node);
                    let (open, upstream) = (node.opened(), Arc::clone(&node.name));
                    return Ok(Dialled { transport, said, open, upstream });
                }
                Err(error) => {
                    self.suspect(index, node, &error);
                    why = Unreachable { upstream: Arc::clone(&node.name), error };
                }
            }
            if now() >= until {
                break;
            }
        }
        Err(why)
    }

    fn is_one(&self) -> bool {
        self.nodes.len() == 1
    }

    fn answered(&self, index: usize, node: &Node) {
        node.note(Ok(()));
        let change = self.chooser.lock().answered(index, now());
        self.tell(change, node);
    }

    /// Handles that a client's connection to the node has failed.
    fn suspect(&self, index: usize, node: &Node, error: &NoAnswer) {
        tracing::debug!(upstream = &*node.name, %error, "a connection to this node of the broker has failed");
        if error.is_our_own() {
            return;
        }
        node.counts.failures.fetch_add(1, Relaxed);
        if self.chooser.lock().suspected(index, now()) {
            self.earlier.notify_one();
        }
    }

    /// Logs that a node rests, or is back. It happens once per rest.
    fn tell(&self, change: Change, node: &Node) {
        if self.is_one() {
            return;
        }
        let upstream = &*node.name;
        match change {
            Change::None | Change::Ignored => {}
            Change::Down => {
                let error = node.last().and_then(|answer| answer.what.err()).map(|error| error.to_string());
                tracing::warn!(
                    upstream,
                    error = error.unwrap_or_default(),
                    "this node of the broker does not answer: new connections go to the others until it does"
                );
            }
            Change::Back => {
                tracing::info!(upstream, "this node of the broker answers again, and takes connections");
            }
        }
    }

    /// Asks nodes as it is due, for as long as it is polled: each one from which nothing was heard for `interval`, one whose rest is
    /// over, and one to which a client's connection has failed. The only node is not watched, because there is no choice.
    pub async fn watch(self: Arc<Upstreams>) {
        if self.is_one() {
            return;
        }
        let mut probes = JoinSet::new();
        loop {
            let due = self.chooser.lock().take_due(now());
            for index in due {
                let upstreams = Arc::clone(&self);
                probes.spawn(async move { upstreams.probe(index).await });
            }
            let next = self.chooser.lock().next_due();
            tokio::select! {
                () = async {
                    match next {
                        Some(next) => sleep_until(next.into()).await,
                        None => std::future::pending().await,
                    }
                } => {}
                () = self.earlier.notified() => {}
                Some(_) = probes.join_next() => {}
            }
        }
    }

    /// Returns whether a node answers, for `/readyz`. A good answer of any node is enough, and may be up to `fresh` old. Otherwise it
    /// asks the node that the next connection would go to, and if that fails, all others at once.
    pub async fn check(&self) -> Result<(), Vec<(Arc<str>, NoAnswer)>> {
        let is_good = |node: &Node| node.last_within(self.fresh).is_some_and(|answer| answer.what.is_ok());
        if self.nodes.iter().any(is_good) {
            return Ok(());
        }
        let order = self.chooser.lock().order();
        let (first, others) = order.split_at(1.min(order.len()));
        let mut failed = Vec::new();
        for some in [first, others] {
            let answers = join_all(some.iter().map(|index| self.fresh_answer(*index))).await;
            for (index, answer) in some.iter().zip(answers) {
                match (answer, self.nodes.get(*index)) {
                    (Ok(()), _) => return Ok(()),
                    (Err(error), Some(node)) => failed.push((Arc::clone(&node.name), error)),
                    (Err(_), None) => {}
                }
            }
        }
        Err(failed)
    }

    async fn fresh_answer(&self, index: usize) -> Result<(), NoAnswer> {
        let kept = self.nodes.get(index).and_then(|node| node.last_within(self.fresh));
        match kept {
            Some(answer) => answer.what,
            None => self.probe(index).await,
        }
    }

    /// Renews what is known of the only node if it is too old, but waits at most `patience`. A slower probe goes on in the background,
    /// and its answer is there for the next caller. Several nodes are watched already ([`Upstreams::watch`]).
    pub async fn refresh(self: &Arc<Upstreams>, patience: Duration) {
        let Some(node) = self.nodes.first().filter(|_| self.is_one()) else { return };
        let is_good =
            node.last_within(self.fresh.max(GOOD_FOR_SCRAPES)).is_some_and(|answer| answer.what.is_ok());
        if is_good || node.last_within(self.fresh).is_some() {
            return;
        }
        let upstreams = Arc::clone(self);
        let asked = tokio::spawn(async move { upstreams.probe(0).await });
        let _ = tokio::time::timeout(patience, asked).await;
    }

    /// Returns all nodes as they are now, in the order of the configuration.
    pub fn nodes(&self) -> Vec<UpstreamNode> {
        let now = now();
        let shown = |(index, node): (usize, &Node)| {
            let last = node.last();
            let rests_until = self.chooser.lock().rests_until(index);
            let counts = &node.counts;
            // Read first, so that no connection is counted as closed before it counts as opened.
            let closed = counts.closed.load(Relaxed);
            let opened = counts.opened.load(Relaxed);
            UpstreamNode {
                address: Arc::clone(&node.name),
                up: last.as_ref().map(|answer| answer.what.is_ok()),
                error: last.as_ref().and_then(|answer| Some(answer.what.as_ref().err()?.to_string())),
                age: last.map(|answer| now.saturating_duration_since(answer.at)),
                rest: rests_until
                    .filter(|_| !self.is_one())
                    .map(|until| until.saturating_duration_since(now)),
                connections: opened.saturating_sub(closed),
                opened,
                failures: counts.failures.load(Relaxed),
            }
        };
        self.nodes.iter().enumerate().map(shown).collect()
    }

    /// Asks a node, or waits for the answer to somebody else who does.
    async fn probe(&self, index: usize) -> Result<(), NoAnswer> {
        let Some(node) = self.nodes.get(index) else { return Err(NoAnswer::NoTime) };
        let since = now();
        let _probing = node.probing.lock().await;
        if let Some(answer) = node.last().filter(|answer| answer.at >= since) {
            return answer.what;
        }
        let mut asking = Asking::begin(&self.chooser, index);
        let each = if self.is_one() { self.connect_timeout } else { self.health.timeout };
        let patience = Patience { until: now() + each, each, nodes_left: 1, is_only: self.is_one() };
        let opening = Opening { opener: &self.opener, ends: None, protocol_header: &PROTOCOL_HEADER };
        let what = match node.greet(opening, patience, true).await {
            Ok((mut transport, _)) => {
                transport.say_good_bye();
                Ok(())
            }
            Err(error) => Err(error),
        };
        asking.found = match &what {
            Ok(()) => Found::Answer,
            Err(error) if error.is_our_own() => Found::Nothing,
            Err(_) => Found::Failure,
        };
        if asking.found == Found::Failure {
            node.counts.failures.fetch_add(1, Relaxed);
        }
        let found = asking.found;
        match asking.end() {
            // Somebody else was answered meanwhile, or nobody could ask: what was known of the node still holds.
            Change::None if found == Found::Nothing => {}
            Change::Ignored => {}
            change => {
                node.note(what.clone());
                self.tell(change, node);
            }
        }
        what
    }
}

/// A probe that is under way. If it is given up, it has found nothing.
struct Asking<'a> {
    chooser: &'a Mutex<Chooser>,
    index: usize,
    found: Found,
    is_over: bool,
}

impl Asking<'_> {
    fn begin(chooser: &Mutex<Chooser>, index: usize) -> Asking<'_> {
        chooser.lock().asked(index, now());
        Asking { chooser, index, found: Found::Nothing, is_over: false }
    }

    fn end(mut self) -> Change {
        self.is_over = true;
        self.chooser.lock().found(self.index, self.found, luck(), now())
    }
}

impl Drop for Asking<'_> {
    fn drop(&mut self) {
        if !self.is_over {
            self.chooser.lock().found(self.index, Found::Nothing, 0, now());
        }
    }
}

#[cfg(test)]
mod tests;
