//! `store = "disk"`: the process is killed at any moment, the disk is full, files are damaged, two processes want one folder.
#![allow(clippy::disallowed_methods, reason = "the times of acks are compared with the time of a kill")]

use crate::e2e::site::Site;
use crate::e2e::wait;
use crate::load::{Published, publish};
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};
use std::thread;
use std::time::{Duration, Instant};

/// How often a relay is killed, for each of the two policies. `make chaos` takes more.
fn kills() -> usize {
    std::env::var("HAPAX_KILLS").ok().and_then(|kills| kills.parse().ok()).unwrap_or(12)
}

/// A folder for the state of a relay. It is deleted when the test has passed.
struct StateDir(PathBuf);

impl StateDir {
    fn new(test: &str) -> StateDir {
        let path = std::env::temp_dir().join(format!("hapax-store-{}-{test}", std::process::id()));
        let _ = std::fs::remove_dir_all(&path);
        StateDir(path)
    }

    fn config(&self, more: &str) -> String {
        let path = self.0.display();
        format!(
            "state_dir = \"{path}\"\n[[window]]\nname = \"orders\"\nttl = \"1h\"\ncapacity = 1000000\nstore = \"disk\"\n{more}"
        )
    }

    fn log(&self) -> PathBuf {
        self.0.join("windows/orders")
    }
}

impl Drop for StateDir {
    fn drop(&mut self) {
        if !thread::panicking() {
            let _ = std::fs::remove_dir_all(&self.0);
        }
    }
}

/// Chance that a seed repeats.
struct Dice(u64);

impl Dice {
    fn below(&mut self, bound: u64) -> u64 {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (self.0 >> 33) % bound
    }
}

/// What became of the ids of all runs: how many were acked, and which of them are in the queue more than once.
struct Outcome {
    acked: usize,
    /// and how long before the kill they were acked
    doubled: Vec<(String, Duration)>,
    lost: Vec<String>,
}

/// Kills the relay under load, again and again, and publishes every id again after each restart.
fn killed_again_and_again(test: &str, config: &str) -> Option<Outcome> {
    let mut site = Site::of_relay(test, config)?;
    site.direct().open_channel(1);
    let mut direct = site.direct();
    direct.open_channel(1);
    direct.declare(1, "q", &[]);
    let mut dice = Dice(0x5eed);
    let (mut acked, mut killed): (BTreeMap<String, Instant>, BTreeMap<String, Instant>) = Default::default();
    let mut unknown = Vec::new();
    for kill in 0..kills() {
        let (addr, vhost, count) = (site.addr(), site.vhost.clone(), AtomicUsize::new(0));
        let wanted = dice.below(400) as usize;
        let more = Duration::from_micros(dice.below(8_000));
        let (published, at) = thread::scope(|scope| {
            let ids = (0..).map(|n| format!("{kill}-{n}"));
            let load = scope.spawn(|| publish((addr, &vhost, "q"), ids, &count));
            wait::until("acks", wait::PATIENCE, || (count.load(Relaxed) >= wanted).then_some(()));
            let end = Instant::now() + more;
            while Instant::now() < end {
                std::hint::spin_loop();
            }
            let at = Instant::now();
            site.relay_mut().kill9();
            (load.join().unwrap(), at)
        });
        site.relay_mut().restart();
        let again = published.acked.keys().chain(&published.unknown).cloned().collect::<Vec<_>>();
        let retried = publish((site.addr(), &site.vhost, "q"), again, &AtomicUsize::new(0));
        assert!(retried.unknown.is_empty(), "every retry is acked");
        killed.extend(published.acked.keys().map(|id| (id.clone(), at)));
        acked.extend(published.acked);
        unknown.extend(published.unknown);
    }
    let mut in_queue: BTreeMap<String, usize> = BTreeMap::new();
    for id in direct.drain(1, "q") {
        *in_queue.entry(id).or_default() += 1;
    }
    let lost = acked.keys().chain(&unknown).filter(|id| !in_queue.contains_key(*id)).cloned().collect();
    let doubled = acked
        .iter()
        .filter(|(id, _)| in_queue.get(*id).is_some_and(|count| *count > 1))
        .map(|(id, at)| (id.clone(), killed[id].saturating_duration_since(*at)))
        .collect();
    Some(Outcome { acked: acked.len(), doubled, lost })
}

/// `sync`: no id whose ack a client has received is forgotten, whenever the process is killed.
#[test]
fn killed_at_any_moment_what_was_acked_is_remembered() {
    let state = StateDir::new("sync");
    let Some(Outcome { acked, doubled, lost }) = killed_again_and_again("disk-sync", &state.config(""))
    else {
        return;
    };
    println!("{} kills, {acked} ids acked, {} passed again, {} lost", kills(), doubled.len(), lost.len());
    assert_eq!((doubled, lost), (vec![], vec![]));
    assert!(acked > 50 * kills(), "{acked}");
}

/// `async`: only what was acked within `remember_delay` before the kill may be forgotten. Nothing is lost.
#[test]
fn with_async_at_most_the_delay_is_forgotten() {
    let delay = Duration::from_millis(300);
    let state = StateDir::new("async");
    let config = state.config("remember = \"async\"\nremember_delay = \"300ms\"\n");
    let Some(Outcome { acked, doubled, lost }) = killed_again_and_again("disk-async", &config) else {
        return;
    };
    println!("{} kills, {acked} ids acked, {} passed again, {} lost", kills(), doubled.len(), lost.len());
    assert_eq!(lost, Vec::<String>::new());
    let early: Vec<_> = doubled.iter().filter(|(_, before)| *before > delay).collect();
    assert!(early.is_empty(), "acked long before the kill: {early:?}");
}

fn ids(range: std::ops::Range<usize>) -> Vec<String> {
    range.map(|n| format!("id-{n}")).collect()
}

fn all(site: &Site, ids: Vec<String>) -> Published {
    let published = publish((site.addr(), &site.vhost, "q"), ids, &AtomicUsize::new(0));
    assert!(published.unknown.is_empty(), "all are acked");
    published
}

fn files(folder: &Path) -> Vec<PathBuf> {
    let mut files: Vec<_> = std::fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path()).collect();
    files.sort();
    files
}

fn site_with_queue(test: &str, config: &str) -> Option<Site> {
    let site = Site::of_relay(test, config)?;
    let mut direct = site.direct();
    direct.open_channel(1);
    direct.declare(1, "q", &[]);
    Some(site)
}

/// A drain and a start: nothing is forgotten with `async` either, and the operator sees it.
#[test]
fn a_restart_forgets_nothing() {
    let state = StateDir::new("restart");
    let config = state.config("remember = \"async\"\nremember_delay = \"1m\"\n");
    let Some(mut site) = site_with_queue("disk-restart", &config) else { return };
    all(&site, ids(0..2_000));
    site.relay().sigterm();
    assert!(site.relay_mut().ended().success());
    site.relay_mut().restart();
    all(&site, ids(0..2_000));
    assert_eq!(site.metrics().sum("hapax_publishes_total", &[("verdict", "fresh")]), 0.0);
    let log = site.relay().log();
    assert!(log.contains("read the log of this window") && log.contains("\"ids\":2000"), "{log}");
}
