//! Decides which node of the broker's cluster a new connection goes to, and when Hapax asks a node itself. It has no sockets and
//! no clock.
//!
//! ```text
//!   unknown --answered--> up --a probe of Hapax failed--> resting --a probe is answered, or a connection--> up
//!                                                          |   ^
//!                                            the rest is over: probe; failed again: a longer rest
//! ```
//!
//! Three rules keep clients from making a node look dead:
//!
//! * A connection that fails makes a node *suspect*: Hapax asks it soon. Only the probe of Hapax itself, one at a time, can send it
//!   to rest.
//! * A node that has answered anybody since a probe began is alive, however that probe ends. A node with very much to do is slow,
//!   and not dead.
//! * A resting node is the last choice, but it is one. If all nodes rest, they are tried all the same.

use crate::clock::part;
use crate::config::UpstreamOrder;
use std::time::{Duration, Instant};

/// The shortest time between the beginnings of two probes of a node that connections have called for.
pub(super) const SPACING: Duration = Duration::from_secs(1);

/// When nodes are asked, and how long they rest.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Times {
    /// a node from which nothing was heard for this long is asked
    pub(super) interval: Duration,
    /// the first rest; each failure in a row doubles it
    pub(super) rest: Duration,
    /// the longest rest
    pub(super) max_rest: Duration,
}

/// The nodes, in the order of the configuration, by their index.
#[derive(Debug)]
pub(super) struct Chooser {
    order: UpstreamOrder,
    times: Times,
    nodes: Vec<Health>,
    /// How many connections were given an order of nodes.
    turn: usize,
}

/// The facts about one node.
#[derive(Clone, Copy, Debug)]
struct Health {
    /// When it rests, until when. It goes on resting until a probe or a connection is answered.
    rests_until: Option<Instant>,
    /// Probes in a row that it did not answer.
    failures: u32,
    /// When it answered last.
    answered_at: Option<Instant>,
    /// When the last probe began.
    asked_at: Option<Instant>,
    /// A probe is under way.
    is_asked: bool,
    /// When it is to be asked.
    ask_at: Instant,
}

/// The result of a probe.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Found {
    /// The node has answered.
    Answer,
    /// It has not, or wrongly.
    Failure,
    /// This process could not ask: it has no more files or ports. That says nothing of the node.
    Nothing,
}

/// The change that an answer or a probe has made.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Change {
    /// Nothing, or the node goes on resting.
    None,
    /// Nothing: the probe has failed, but the node has answered somebody else meanwhile.
    Ignored,
    /// The node begins to rest.
    Down,
    /// The node was resting and takes connections again.
    Back,
}

impl Chooser {
    /// Creates the chooser of this many nodes. All of them are to be asked now, and get connections meanwhile.
    pub(super) fn new(nodes: usize, order: UpstreamOrder, times: Times, now: Instant) -> Chooser {
        let health = Health {
            rests_until: None,
            failures: 0,
            answered_at: None,
            asked_at: None,
            is_asked: false,
            ask_at: now,
        };
        Chooser { order, times, nodes: vec![health; nodes], turn: 0 }
    }

    /// Returns all nodes in the order in which a connection tries them. The next connection gets another one, if they take turns.
    pub(super) fn next_order(&mut self) -> Vec<usize> {
        let order = self.order();
        self.turn = self.turn.wrapping_add(1);
        order
    }

    /// Returns all nodes, in the order in which the next connection tries them: first those that do not rest, and then those that
    /// do, the one whose rest ends first before the others.
    pub(super) fn order(&self) -> Vec<usize> {
        let mut order: Vec<usize> = (0..self.nodes.len()).filter(|node| !self.is_resting(*node)).collect();
        if self.order == UpstreamOrder::RoundRobin && !order.is_empty() {
            let first = self.turn % order.len();
            order.rotate_left(first);
        }
        let resting = self.nodes.iter().enumerate();
        let mut resting: Vec<(Instant, usize)> =
            resting.filter_map(|(node, health)| Some((health.rests_until?, node))).collect();
        resting.sort_unstable();
        order.extend(resting.into_iter().map(|(_, node)| node));
        order
    }

    /// Returns true if the node rests.
    pub(super) fn is_resting(&self, node: usize) -> bool {
        self.rests_until(node).is_some()
    }

    /// Returns when the node's rest ends, if it rests.
    pub(super) fn rests_until(&self, node: usize) -> Option<Instant> {
        self.nodes.get(node).and_then(|health| health.rests_until)
    }

    /// Handles that the node has answered a connection's protocol header.
    pub(super) fn answered(&mut self, node: usize, now: Instant) -> Change {
        let interval = self.times.interval;
        let Some(health) = self.nodes.get_mut(node) else { return Change::None };
        health.answered_at = Some(now);
        health.failures = 0;
        health.ask_at = now + interval;
        if health.rests_until.take().is_some() { Change::Back } else { Change::None }
    }

    /// Handles that a connection to the node has failed. Returns true if the node is to be asked earlier than before.
    pub(super) fn suspected(&mut self, node: usize, now: Instant) -> bool {
        let Some(health) = self.nodes.get_mut(node).filter(|health| health.rests_until.is_none()) else {
            return false;
        };
        let ask_at = health.asked_at.map_or(now, |asked_at| now.max(asked_at + SPACING));
        let earlier = ask_at < health.ask_at && !health.is_asked;
        if earlier {
            health.ask_at = ask_at;
        }
        earlier
    }

    /// Returns the nodes that are to be asked now, and notes that they are.
    pub(super) fn take_due(&mut self, now: Instant) -> Vec<usize> {
        let due = |health: &Health| !health.is_asked && health.ask_at <= now;
        let due: Vec<usize> =
            (0..).zip(&self.nodes).filter_map(|(node, health)| due(health).then_some(node)).collect();
        due.iter().for_each(|node| self.asked(*node, now));
        due
    }

    /// Returns when the next node is to be asked.
    pub(super) fn next_due(&self) -> Option<Instant> {
        self.nodes.iter().filter(|health| !health.is_asked).map(|health| health.ask_at).min()
    }

    /// Notes that a probe begins. [`Chooser::found`] ends it.
    pub(super) fn asked(&mut self, node: usize, now: Instant) {
        if let Some(health) = self.nodes.get_mut(node) {
            health.is_asked = true;
            health.asked_at = Some(now);
        }
    }

    /// Handles the end of a probe. `luck` makes the rest shorter by chance, so that many relays do not come back at the same time:
    /// 0 is half of the rest, `u32::MAX` all of it.
    pub(super) fn found(&mut self, node: usize, found: Found, luck: u32, now: Instant) -> Change {
        let times = self.times;
        let Some(health) = self.nodes.get_mut(node) else { return Change::None };
        health.is_asked = false;
        let is_alive =
            health.answered_at.is_some_and(|at| health.asked_at.is_none_or(|asked_at| at >= asked_at));
        match found {
            Found::Answer => self.answered(node, now),
            Found::Nothing => {
                health.ask_at = now + SPACING;
                Change::None
            }
            Found::Failure if is_alive => {
                health.ask_at = now + times.interval;
                Change::Ignored
            }
            Found::Failure => {
                let doubled = 1_u32.checked_shl(health.failures).unwrap_or(u32::MAX);
                let rest = times.rest.saturating_mul(doubled).min(times.max_rest);
                let rest = part(rest, luck);
                health.failures = health.failures.saturating_add(1);
                health.ask_at = now + rest;
                let was_resting = health.rests_until.replace(now + rest).is_some();
                if was_resting { Change::None } else { Change::Down }
            }
        }
    }
}

#[cfg(test)]
mod tests;
