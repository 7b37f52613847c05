//! Windows that belong to one relay, in memory and on its disk: what a kill costs, and what another relay knows.

use crate::disk::StateDir;
use crate::e2e::load::publish;
use crate::e2e::raw::Raw;
use crate::e2e::relay::Relay;
use crate::e2e::retry;
use crate::e2e::site::{shared_rabbit, without_relay};
use std::collections::BTreeMap;
use std::sync::atomic::AtomicUsize;
use std::thread;

/// Two relays with such windows, in front of the queue `q` of a vhost.
struct Pair {
    vhost: &'static str,
    relays: [Relay; 2],
    direct: Raw,
}

impl Pair {
    fn new(vhost: &'static str, configs: [&str; 2]) -> Pair {
        let rabbit = shared_rabbit();
        rabbit.add_vhost(vhost).unwrap();
        let mut direct = Raw::connect(rabbit.addr(), vhost);
        direct.open_channel(1);
        direct.declare(1, "q", &[]);
        Pair { vhost, relays: configs.map(|config| Relay::start(rabbit.addr(), config)), direct }
    }

    fn publish(&self, relay: usize, ids: &[String]) {
        let published =
            publish((self.relays[relay].addr(), self.vhost, "q"), ids.iter().cloned(), &AtomicUsize::new(0));
        assert!(published.unknown.is_empty(), "all are acked");
    }

    /// In how many copies each of these is in the queue. Empties it.
    fn copies(&mut self, ids: &[String]) -> usize {
        let held: BTreeMap<String, usize> = retry::held(&mut self.direct, "q");
        assert_eq!(held.len(), ids.len());
        let first = held[&ids[0]];
        assert!(held.values().all(|copies| *copies == first), "{held:?}");
        first
    }

    /// Returns the copies after a retry at the other relay, after both got ids at the same time, and after a retry at the one that was killed.
    fn told(mut self) -> [usize; 3] {
        let ids = |name: &str| (0..100).map(|n| format!("{name}-{n}")).collect::<Vec<String>>();
        let (one, both, kept) = (ids("one"), ids("both"), ids("kept"));
        self.publish(0, &one);
        self.publish(0, &one);
        self.publish(1, &one);
        let elsewhere = self.copies(&one);
        thread::scope(|scope| {
            for relay in [0, 1] {
                let (pair, both) = (&self, &both);
                scope.spawn(move || pair.publish(relay, both));
            }
        });
        let at_once = self.copies(&both);
        self.publish(0, &kept);
        self.relays[0].restart();
        self.publish(0, &kept);
        [elsewhere, at_once, self.copies(&kept)]
    }
}

#[test]
fn a_window_in_memory_ends_with_its_process_and_is_its_own() {
    if !without_relay() {
        let config = "[[window]]\nname = \"orders\"\n";
        assert_eq!(Pair::new("alone-memory", [config; 2]).told(), [2, 2, 2]);
    }
}

#[test]
fn a_window_on_a_disk_outlives_its_process_and_is_that_relay_s_own() {
    if !without_relay() {
        let states = ["alone-disk-0", "alone-disk-1"].map(StateDir::new);
        let [one, other] = states.each_ref().map(|state| state.config(""));
        assert_eq!(Pair::new("alone-disk", [&one, &other]).told(), [2, 2, 1]);
    }
}
