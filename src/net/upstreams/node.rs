//! One node of the broker's cluster: its address, what it said last, and how many connections it has.

use super::connect::Opening;
use super::greeting::NoAnswer;
use super::resolver::Resolver;
use crate::clock::now;
use crate::config::UpstreamAddress;
use crate::net::Transport;
use bytes::BytesMut;
use parking_lot::Mutex;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering::Relaxed};
use std::time::{Duration, Instant};
use tokio::time::timeout_at;

/// A node.
#[derive(Debug)]
pub(super) struct Node {
    /// `HOST:PORT`
    pub(super) name: Arc<str>,
    address: UpstreamAddress,
    resolver: Resolver,
    last: Mutex<Option<Answer>>,
    /// Held during a probe. If several ask at once, one probes and the others get its answer.
    pub(super) probing: tokio::sync::Mutex<()>,
    /// Which of the addresses of its name comes first, by turns.
    turn: AtomicUsize,
    pub(super) counts: Arc<Counts>,
}

/// The counters of a node.
#[derive(Debug, Default)]
pub(super) struct Counts {
    pub(super) opened: AtomicU64,
    pub(super) closed: AtomicU64,
    pub(super) failures: AtomicU64,
}

/// The answer of a node, or why there was none.
#[derive(Clone, Debug)]
pub(super) struct Answer {
    pub(super) at: Instant,
    pub(super) what: Result<(), NoAnswer>,
}

/// How long an attempt may take.
#[derive(Clone, Copy, Debug)]
pub(super) struct Patience {
    /// when all attempts are over
    pub(super) until: Instant,
    /// for one address, if there are others to try
    pub(super) each: Duration,
    /// how many nodes are still to be tried, with this one
    pub(super) nodes_left: usize,
    /// this node is the only one
    pub(super) is_only: bool,
}

impl Patience {
    /// Returns when the next attempt is over. Each address that may still be tried gets the same share of the time that is left.
    fn next(&self, addresses_left: usize, addresses: usize, now: Instant) -> Instant {
        let left = self.until.saturating_duration_since(now);
        if self.is_only && addresses == 1 {
            return self.until;
        }
        let attempts = (self.nodes_left.saturating_sub(1)).saturating_add(addresses_left).max(1);
        let share = left / u32::try_from(attempts).unwrap_or(u32::MAX);
        now + share.min(self.each)
    }
}

/// A guard: the node has this connection while it lives.
#[derive(Debug)]
pub(in crate::net) struct OpenUpstream(Arc<Counts>);

impl Drop for OpenUpstream {
    fn drop(&mut self) {
        self.0.closed.fetch_add(1, Relaxed);
    }
}

impl Node {
    pub(super) fn new(address: &UpstreamAddress) -> Node {
        Node {
            name: address.authority().into(),
            address: address.clone(),
            resolver: Resolver::new(address.clone()),
            last: Mutex::default(),
            probing: tokio::sync::Mutex::default(),
            turn: AtomicUsize::new(0),
            counts: Arc::default(),
        }
    }

    /// Counts a connection until the guard is dropped.
    pub(super) fn opened(&self) -> OpenUpstream {
        self.counts.opened.fetch_add(1, Relaxed);
        OpenUpstream(Arc::clone(&self.counts))
    }

    /// Returns the last answer.
    pub(super) fn last(&self) -> Option<Answer> {
        self.last.lock().clone()
    }

    /// Returns the last answer if it is younger than `age`.
    pub(super) fn last_within(&self, age: Duration) -> Option<Answer> {
        self.last().filter(|answer| now().saturating_duration_since(answer.at) < age)
    }

    /// Keeps what the node has answered.
    pub(super) fn note(&self, what: Result<(), NoAnswer>) {
        *self.last.lock() = Some(Answer { at: now(), what });
    }

    /// Connects, sends the protocol header and reads `connection.start`. Tries each address of the node's name. If `by_turns`, each
    /// attempt begins with another one.
    pub(super) async fn greet(
        &self,
        opening: Opening<'_>,
        patience: Patience,
        by_turns: bool,
    ) -> Result<(Transport, BytesMut), NoAnswer> {
        let begun = now();
        let until = patience.next(1, 1, begun);
        let addresses = match timeout_at(until.into(), self.resolver.addresses()).await {
            Ok(addresses) => addresses?,
            Err(_) => return Err(NoAnswer::Silent(rounded(until.saturating_duration_since(begun)))),
        };
        self.greet_any(&addresses, opening, patience, by_turns).await
    }

    /// Tries these addresses one after the other.
    pub(super) async fn greet_any(
        &self,
        addresses: &[SocketAddr],
        opening: Opening<'_>,
        patience: Patience,
        by_turns: bool,
    ) -> Result<(Transport, BytesMut), NoAnswer> {
        let count = addresses.len();
        let first = if by_turns { self.turn.fetch_add(1, Relaxed) % count.max(1) } else { 0 };
        let mut why = NoAnswer::NoTime;
        for (tried, address) in addresses.iter().cycle().skip(first).take(count).enumerate() {
            let begun = now();
            if begun >= patience.until {
                break;
            }
            let until = patience.next(count - tried, count, begun);
            let error = match timeout_at(until.into(), opening.greet(&self.address, *address)).await {
                Ok(Ok(greeted)) => return Ok(greeted),
                Ok(Err(error)) => error,
                Err(_) => NoAnswer::Silent(rounded(until.saturating_duration_since(begun))),
            };
            if error.weight() >= why.weight() {
                why = error;
            }
        }
        Err(why)
    }
}

/// Rounds to tenths of a second, for people; a shorter time to milliseconds.
fn rounded(time: Duration) -> Duration {
    let unit = if time < Duration::from_secs(1) { 1_000 } else { 100_000 };
    let micros = u64::try_from(time.as_micros()).unwrap_or(u64::MAX);
    Duration::from_micros(micros.saturating_add(unit / 2) / unit * unit)
}
