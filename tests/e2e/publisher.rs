//! Publishers that retry until all of their ids are acked, and a check of the queue afterwards.

use super::raw::{Publish, Told};
use super::relay::Relay;
use super::retry::{self, over};
use super::wait::{self, PATIENCE};
use std::cell::Cell;
use std::collections::BTreeMap;
use std::io;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicUsize, Ordering::SeqCst};
use std::thread;
use std::time::{Duration, Instant};

/// A persistent message to the queue `q`.
pub fn persistent(id: &str) -> Publish<'_> {
    Publish { persistent: true, ..Publish::to("q", id) }
}

/// A publisher that goes on with the next relay when its connection ends, until all of its ids are acked.
pub struct Publisher {
    relays: Vec<SocketAddr>,
    vhost: String,
    todo: Vec<String>,
    /// Ids that were under way when a connection ended, and how often.
    pub unknown: BTreeMap<String, usize>,
    pub acked: Vec<String>,
    pub connections: usize,
    next: usize,
    under_way: usize,
}

impl Publisher {
    pub fn new(vhost: &str, relays: &[SocketAddr], ids: Vec<String>, under_way: usize) -> Publisher {
        let mut todo = ids;
        todo.reverse();
        Publisher {
            relays: relays.to_vec(),
            vhost: vhost.to_owned(),
            todo,
            unknown: BTreeMap::new(),
            acked: Vec::new(),
            connections: 0,
            next: 0,
            under_way,
        }
    }

    /// Publishes for as long as `go_on` says so, or until everything is acked.
    pub fn run(&mut self, go_on: &dyn Fn(&Publisher) -> bool) {
        let end = Instant::now() + 6 * PATIENCE;
        while !self.todo.is_empty() && go_on(self) {
            let now = Instant::now();
            assert!(now < end, "{} ids are not acked at the deadline", self.todo.len());
            let mut under_way = BTreeMap::new();
            if self.connection(&mut under_way, go_on).is_err() {
                thread::park_timeout(Duration::from_millis(5));
            }
            for (_, id) in under_way.into_iter().rev() {
                *self.unknown.entry(String::clone(&id)).or_default() += 1;
                self.todo.push(id);
            }
        }
    }

    fn connection(
        &mut self,
        under_way: &mut BTreeMap<u64, String>,
        go_on: &dyn Fn(&Publisher) -> bool,
    ) -> io::Result<()> {
        let relay = self.relays[self.next % self.relays.len()];
        self.next += 1;
        let mut raw = retry::login(relay, &self.vhost)?;
        self.connections += 1;
        let mut tag = 0;
        loop {
            let mut octets = Vec::new();
            while under_way.len() < self.under_way {
                let Some(id) = self.todo.pop() else { break };
                tag += 1;
                octets.extend(persistent(&id).encode(1, raw.frame_max()));
                under_way.insert(tag, id);
            }
            if under_way.is_empty() || !go_on(self) {
                return Ok(());
            }
            raw.write(&octets)?;
            match raw.receive()?.ok_or_else(over)? {
                (1, Told::Ack { tag, multiple }) => {
                    self.acked.extend(retry::settled(under_way, tag, multiple));
                }
                // connection.blocked and connection.unblocked
                (0, Told::Method(_)) => {}
                _ => return Err(over()),
            }
        }
    }
}

/// How many acks all publishers have together.
pub struct Acked(AtomicUsize);

impl Acked {
    /// Waits until there are more acks than that.
    pub fn wait_for(&self, acks: usize) {
        wait::until("they publish", PATIENCE, || (self.0.load(SeqCst) > acks).then_some(()));
    }
}

/// Runs the publishers to their end, and `then` meanwhile.
pub fn publish_while(publishers: &mut [Publisher], then: impl FnOnce(&Acked)) {
    let acked = Acked(AtomicUsize::new(0));
    thread::scope(|scope| {
        let acked = &acked;
        for publisher in publishers {
            scope.spawn(move || {
                let told = Cell::new(0);
                publisher.run(&|publisher| {
                    acked.0.fetch_add(publisher.acked.len() - told.replace(publisher.acked.len()), SeqCst);
                    true
                });
            });
        }
        then(acked);
    });
}

/// Every id that was acked is in the queue. It is there more than once only if its outcome was unknown to its publisher.
/// Returns how many are there too often.
pub fn check(held: &BTreeMap<String, usize>, publishers: &[&Publisher]) -> usize {
    publishers.iter().map(|one| retry::doubled(held, &one.acked, &one.unknown)).sum()
}

/// Restarts two relays one after the other while four publishers are at work: each begins at one of the two and goes on at the other.
/// Nothing is lost, nothing is doubled, and a restart costs a publisher one reconnect at most. `held` empties the queue.
pub fn restarted_one_after_the_other(
    relays: &mut [Relay; 2],
    vhost: &str,
    held: impl FnOnce() -> BTreeMap<String, usize>,
) {
    const IDS: usize = 6_000;
    let [one, other] = [relays[0].addr(), relays[1].addr()];
    let mut publishers: Vec<Publisher> = (0..4)
        .map(|n| {
            let order = if n % 2 == 0 { [one, other] } else { [other, one] };
            let ids = (0..IDS).map(|id| format!("{n}-{id}")).collect();
            Publisher::new(vhost, &order, ids, 50)
        })
        .collect();
    publish_while(&mut publishers, |acked| {
        for (n, relay) in relays.iter_mut().enumerate() {
            acked.wait_for(IDS / 2 + n * 8_000);
            relay.sigterm();
            assert!(relay.ended().success());
            relay.restart();
        }
    });
    let held = held();
    let doubled = check(&held, &publishers.iter().collect::<Vec<_>>());
    let connections: Vec<usize> = publishers.iter().map(|publisher| publisher.connections).collect();
    println!("connections {connections:?}, {doubled} doubled");
    assert_eq!((held.len(), doubled), (4 * IDS, 0));
    assert!(
        connections.iter().all(|connections| *connections <= 3),
        "a restart costs a publisher one reconnect"
    );
}
