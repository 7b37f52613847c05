//! `store = "disk"`: the process is killed at any moment, the disk is full, files are damaged, two processes want one folder.

use crate::e2e::kills::{Lane, Outcome, Plan, killed_again_and_again};
use crate::e2e::load::{Published, publish};
use crate::e2e::relay::Relay;
use crate::e2e::retry;
use crate::e2e::site::{Site, without_relay};
use crate::e2e::wait;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};
use std::thread;
use std::time::Duration;

/// How many relays are killed at a time.
const LANES: usize = 4;

/// A folder for the state of a relay. It is deleted when the test has passed.
pub(crate) struct StateDir(pub(crate) PathBuf);

impl StateDir {
    pub(crate) fn new(test: &str) -> StateDir {
        let path = std::env::temp_dir().join(format!("hapax-store-{}-{test}", std::process::id()));
        let _ = std::fs::remove_dir_all(&path);
        StateDir(path)
    }

    pub(crate) fn config(&self, more: &str) -> String {
        let path = self.0.display();
        format!(
            "state_dir = \"{path}\"\n[[window]]\nname = \"orders\"\nttl = \"1h\"\ncapacity = 1000000\nstore = \"disk\"\n{more}"
        )
    }

    /// The name of the folder.
    fn name(&self) -> String {
        self.0.file_name().unwrap().to_str().unwrap().to_owned()
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

/// Relays with a log of their own each, killed so often altogether. `None` if the environment asks to do without a relay.
fn killed(test: &str, plan: Plan, window: &str) -> Option<Outcome> {
    if without_relay() {
        return None;
    }
    let states: Vec<StateDir> = (0..LANES).map(|n| StateDir::new(&format!("{test}-{n}"))).collect();
    let lane = |state: &StateDir| Lane::new(state.name(), &state.config(window));
    Some(killed_again_and_again(states.iter().map(lane).collect(), plan))
}

/// `sync`: no id whose ack a client has received is forgotten, whenever the process is killed. (`refuse`: a disk that is slow for a second
/// makes no exception.)
#[test]
fn killed_at_any_moment_what_was_acked_is_remembered() {
    if let Some(outcome) =
        killed("sync", Plan { kills: retry::kills(200), acks: 150, other: None }, "on_outage = \"refuse\"\n")
    {
        outcome.assert_nothing_is_forgotten();
    }
}

/// The same with sequences: each round has a producer of its own.
#[test]
fn killed_at_any_moment_the_numbers_that_were_acked_are_remembered() {
    let window = "id = \"sequence\"\non_outage = \"refuse\"\n";
    if let Some(outcome) =
        killed("sequences", Plan { kills: retry::kills(60), acks: 1_500, other: None }, window)
    {
        outcome.assert_nothing_is_forgotten();
    }
}

/// `async`: only what was acked within `remember_delay` before the kill may be forgotten. Nothing is lost.
#[test]
fn with_async_at_most_the_delay_is_forgotten() {
    let window = "remember = \"async\"\nremember_delay = \"250ms\"\n";
    if let Some(outcome) = killed("async", Plan { kills: retry::kills(20), acks: 3_000, other: None }, window)
    {
        outcome.assert_forgotten_within(Duration::from_millis(250));
    }
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
    assert_eq!(site.metrics().sum("publishes_total", &[("verdict", "fresh")]), 0.0);
    site.relay().until_says("read the log of this window");
    site.relay().until_says("\"ids\":2000");
}

/// Producers, too: with their epochs, and the log says of each how far it is. A producer that an operator forgets stays forgotten.
#[test]
fn a_restart_forgets_no_producer() {
    let state = StateDir::new("producers");
    let config = state.config("id = \"sequence\"\n");
    let Some(mut site) = site_with_queue("disk-producers", &config) else { return };
    let of = |producer: &str| (0..300).map(|n| format!("{producer}-{n}")).collect::<Vec<_>>();
    all(&site, of("a"));
    all(&site, of("b"));
    let keys = |site: &Site| {
        let list = site.relay().api("GET", "/api/v1/windows/orders/producers", "");
        let producers = list["producers"].as_array().unwrap().iter();
        producers
            .map(|one| (one["key"].as_str().unwrap().to_owned(), one["highest"].as_u64()))
            .collect::<Vec<_>>()
    };
    let before = keys(&site);
    assert_eq!(before.iter().map(|(_, highest)| *highest).collect::<Vec<_>>(), [Some(299), Some(299)]);
    site.relay_mut().kill9();
    site.relay_mut().restart();
    assert_eq!(keys(&site), before, "the one that was seen last comes first");
    let (code, text) = store(&["export"], &state.0);
    assert_eq!((code, text.lines().count()), (0, 2), "{text}");
    assert!(text.lines().all(|line| line.contains("\"epoch\":0,\"highest\":299")), "{text}");
    all(&site, of("b"));
    let (key, _) = &before[1];
    site.relay().api("DELETE", &format!("/api/v1/windows/orders/producers/{key}"), "");
    wait::until("that is written", wait::PATIENCE, || {
        let window = site.relay().api("GET", "/api/v1/windows/orders", "");
        (window["store"]["waiting_records"] == 0).then_some(())
    });
    site.relay_mut().kill9();
    site.relay_mut().restart();
    assert_eq!(keys(&site), before[..1]);
    all(&site, of("a"));
    assert_eq!(site.metrics().sum("publishes_total", &[("verdict", "fresh")]), 300.0);
}

/// Runs `hapax store`. Returns its exit code, and what it has printed.
fn store(arguments: &[&str], dir: &Path) -> (i32, String) {
    let binary = env!("CARGO_BIN_EXE_hapax");
    let output = Command::new(binary).arg("store").args(arguments).arg(dir).output().unwrap();
    let text = [output.stdout, output.stderr].map(|bytes| String::from_utf8(bytes).unwrap()).concat();
    (output.status.code().unwrap(), text)
}

/// The operator sees what is kept, while a relay is at work and after.
#[test]
fn an_operator_looks_at_a_log_that_is_in_use() {
    let state = StateDir::new("look");
    let Some(mut site) = site_with_queue("disk-look", &state.config("")) else { return };
    all(&site, ids(0..300));
    let (code, text) = store(&["inspect", "--json"], &state.0);
    assert_eq!(code, 0, "{text}");
    let seen: serde_json::Value = serde_json::from_str(&text).unwrap();
    let window = &seen[0];
    assert_eq!(
        (&window["window"], &window["ids"], &window["damaged"]),
        (&"orders".into(), &300.into(), &0.into())
    );
    assert!(window["since"].as_str() < window["until"].as_str() && window["segments"][0]["records"] == 300);
    let (code, text) = store(&["inspect"], &state.log());
    assert!(code == 0 && text.contains("ids       300"), "{text}");
    let (code, text) = store(&["export"], &state.0);
    let lines: Vec<serde_json::Value> =
        text.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    assert_eq!((code, lines.len()), (0, 300));
    assert!(lines[0]["key"].as_str().unwrap().len() == 24 && lines[0]["body"].as_str().unwrap().len() == 8);
    let mut keys: Vec<_> = lines.iter().map(|line| line["key"].as_str().unwrap()).collect();
    keys.sort_unstable();
    keys.dedup();
    assert_eq!(keys.len(), 300);
    assert_eq!(store(&["verify"], &state.0).0, 0);

    site.relay_mut().kill9();
    let file = files(&state.log()).pop().unwrap();
    let mut bytes = std::fs::read(&file).unwrap();
    let middle = bytes.len() / 2;
    bytes[middle] ^= 4;
    std::fs::write(&file, bytes).unwrap();
    let (code, text) = store(&["verify"], &state.0);
    assert!(code == 1 && text.contains("damaged at byte") && text.contains("orders: damaged"), "{text}");
    let (code, text) = store(&["inspect"], Path::new("/nowhere"));
    assert!(code == 1 && text.contains("/nowhere"), "{text}");
    assert_eq!(store(&["inspect"], Path::new("--nothing")).0, 2);
}

/// A turned bit and a torn tail: the rest is used, and the operator is told.
#[test]
fn damage_costs_what_is_damaged_and_is_told() {
    let state = StateDir::new("damage");
    let Some(mut site) = site_with_queue("disk-damage", &state.config("")) else { return };
    // One batch each, or few.
    for n in 0..40 {
        all(&site, ids(n..n + 1));
    }
    site.relay_mut().kill9();
    let file = files(&state.log()).pop().unwrap();
    let mut bytes = std::fs::read(&file).unwrap();
    let middle = bytes.len() / 2;
    bytes[middle] ^= 4;
    bytes.truncate(bytes.len() - 5);
    std::fs::write(&file, &bytes).unwrap();
    site.relay_mut().restart();
    for words in ["the log of this window is damaged", "\"damaged\":1", "ends within a record"] {
        site.relay().until_says(words);
    }
    assert_eq!(site.metrics().sum("store_damaged_total", &[]), 1.0);
    all(&site, ids(0..40));
    assert_eq!(site.metrics().sum("publishes_total", &[("verdict", "fresh")]), 2.0, "both that were damaged");
}

/// Starts a second relay with this configuration. Returns its exit code, and what it has said.
fn started(config: &str) -> (Option<i32>, String) {
    let (status, said) = Relay::refused(SocketAddr::from(([127, 0, 0, 1], 1)), config);
    (status.code(), said)
}

/// A log that this process can't use stops it, and the text says what to do. Nothing in the folder changes.
#[test]
fn what_does_not_fit_is_refused() {
    let state = StateDir::new("refused");
    let Some(mut site) = site_with_queue("disk-refused", &state.config("")) else { return };
    all(&site, ids(0..10));
    let (code, text) = started(&state.config("[timeouts]\ntakeover = \"0s\"\n"));
    assert_eq!(code, Some(1), "{text}");
    assert!(text.contains("another process (pid ") && text.contains("fix: "), "{text}");

    site.relay_mut().kill9();
    let before = std::fs::read(files(&state.log()).pop().unwrap()).unwrap();
    for other in ["id = \"header:x-id\"\n", "scope = \"exchange\"\n"] {
        let (code, text) = started(&state.config(other));
        assert_eq!(code, Some(1), "{text}");
        assert!(text.contains("another digest secret, another `scope` or another `id`"), "{text}");
        assert!(text.contains(&state.log().display().to_string()), "{text}");
    }
    std::fs::rename(state.0.join("secret"), state.0.join("lost")).unwrap();
    let (code, text) = started(&state.config(""));
    assert!(code == Some(1) && text.contains("another digest secret"), "{text}");
    std::fs::remove_file(state.0.join("secret")).unwrap();
    std::fs::rename(state.0.join("lost"), state.0.join("secret")).unwrap();
    assert_eq!(std::fs::read(files(&state.log()).pop().unwrap()).unwrap(), before);

    site.relay_mut().restart();
    all(&site, ids(0..10));
    assert_eq!(site.metrics().sum("publishes_total", &[("verdict", "fresh")]), 0.0);
}

/// A small mount. `None`, said aloud, where mounting is not permitted.
pub(crate) struct Mount(PathBuf);

impl Mount {
    pub(crate) fn new(path: PathBuf) -> Option<Mount> {
        std::fs::create_dir_all(&path).unwrap();
        let mounted = Command::new("mount")
            .args(["-t", "tmpfs", "-o", "size=1M,mode=700", "hapax-test"])
            .arg(&path)
            .output();
        if mounted.is_ok_and(|output| output.status.success()) {
            return Some(Mount(path));
        }
        println!(
            "a full mount is passed over, because this user may not mount; the test of the log over a disk in memory (a_full_disk_is_told_and_loses_nothing) fills that one"
        );
        None
    }
}

impl Drop for Mount {
    fn drop(&mut self) {
        let _ = Command::new("umount").arg("-l").arg(&self.0).status();
    }
}

/// A full disk: with `continue` acks go on, with `refuse` they wait. With room again everything is written, and nothing is forgotten.
#[test]
fn a_full_disk_stops_acks_or_is_counted() {
    for on_outage in ["continue", "refuse"] {
        let state = StateDir::new(&format!("full-{on_outage}"));
        let Some(_mount) = Mount::new(state.0.clone()) else { return };
        let config = state.config(&format!("on_outage = \"{on_outage}\"\n"));
        let Some(mut site) = site_with_queue(&format!("disk-full-{on_outage}"), &config) else { return };
        let ballast = state.0.join("ballast");
        std::fs::write(&ballast, vec![1; 900 << 10]).unwrap();
        let (addr, vhost, count) = (site.addr(), site.vhost.clone(), AtomicUsize::new(0));
        let is_down = |relay: &Relay| relay.metrics().sum("store_up", &[]) == 0.0;
        thread::scope(|scope| {
            let load = scope.spawn(|| publish((addr, &vhost, "q"), ids(0..6_000), &count));
            wait::until("the disk is full", wait::PATIENCE, || is_down(site.relay()).then_some(()));
            if on_outage == "continue" {
                // All are acked although the disk is full. They are counted.
                wait::until("all are acked", wait::PATIENCE, || (count.load(Relaxed) == 6_000).then_some(()));
                assert!(site.metrics().sum("unremembered_total", &[]) > 0.0);
            }
            site.relay().until_says("make room on the disk");
            std::fs::remove_file(&ballast).unwrap();
            assert!(load.join().unwrap().unknown.is_empty());
        });
        let written = || {
            let metrics = site.metrics();
            (metrics.sum("store_up", &[]) == 1.0 && metrics.sum("store_waiting_records", &[]) == 0.0)
                .then_some(())
        };
        wait::until("everything is written", wait::PATIENCE, written);
        let unremembered = site.metrics().sum("unremembered_total", &[]);
        assert_eq!(unremembered > 0.0, on_outage == "continue", "{unremembered}");
        site.relay_mut().kill9();
        site.relay_mut().restart();
        all(&site, ids(0..6_000));
        assert_eq!(site.metrics().sum("publishes_total", &[("verdict", "fresh")]), 0.0);
    }
}
