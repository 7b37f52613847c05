//! A window for each tenant, as `config/examples/per-tenant.toml` has it.

use hapax::config::{Config, Overrides};
use hapax::store::{self, Opened};
use hapax_core::pressure::Watched;
use hapax_core::window::Windows;
use hapax_core::window::{EvictionCause, KeyMaker, Mailbox, Scope, Ticket, Verdict, reserve_one};
use hapax_core::wire::properties::IdValue;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

const VICTIM: u64 = 1_000;

#[expect(clippy::disallowed_methods, reason = "one base instant; the tests count from there")]
fn base() -> Instant {
    Instant::now()
}

/// Publishes of a vhost that the broker acks at once. How many were forwarded.
fn publish(windows: &dyn Windows, vhost: &[u8], ids: std::ops::Range<u64>, now: Instant) -> usize {
    let (keys, mailbox) = (KeyMaker::new((1, 2)), Arc::new(Mailbox::new()));
    let window = windows.find(vhost, b"events").unwrap_or_else(|| panic!("no window"));
    let scoped = keys.scoped(Scope::RoutingKey, vhost, b"events", b"");
    let is_new = |id: &u64| {
        let key = scoped.key(&IdValue::Bytes(&id.to_be_bytes()));
        match reserve_one(&window, key, now, &mailbox, Ticket(*id)) {
            Verdict::Fresh(reservation) => drop(reservation.commit(now, window.ttl())),
            Verdict::Duplicate(_) => return false,
            other => panic!("{other:?}"),
        }
        true
    };
    ids.filter(is_new).count()
}

/// One tenant floods, another one retries: how many of its duplicates pass, and what was evicted early, window by window.
fn flooded(config: &Config, flood: u64) -> (usize, Vec<(String, u64)>) {
    let now = base();
    let Opened { set, windows: watched, .. } = store::open(config, now).expect("opened");
    assert_eq!(publish(&*set, b"tenant-b", 0..VICTIM, now) as u64, VICTIM);
    let new = publish(&*set, b"tenant-a", 0..flood, now + Duration::from_secs(1)) as u64;
    assert_eq!(new, flood);
    let passed = publish(&*set, b"tenant-b", 0..VICTIM, now + Duration::from_secs(15));
    let early = |watched: &Watched| {
        let name = watched.window.rules().name.to_string();
        (name, watched.accounting.evicted(EvictionCause::Capacity))
    };
    (passed, watched.iter().map(early).filter(|(_, early)| *early > 0).collect())
}

#[test]
fn a_tenant_that_floods_its_window_pushes_out_nobody_elses_ids() {
    let file = Path::new("config/examples/per-tenant.toml");
    let loaded =
        Config::load(Some(file), &Overrides::default()).unwrap_or_else(|problems| panic!("{problems}"));
    let (passed, early) = flooded(&loaded.config, 1_100_000);
    assert_eq!(passed, 0, "of {VICTIM} duplicates of another tenant");
    let [(window, evicted)] = &early[..] else { panic!("{early:?}") };
    assert!(window == "tenant-a" && *evicted >= 100_000, "the flood pushes out its own: {early:?}");
}

/// The reason for a window of each tenant: in the one default window, a flood evicts everybody's ids.
#[test]
fn without_a_window_for_each_tenant_a_flood_pushes_out_all() {
    let mut config = Config::default();
    config.windows[0].limits.capacity /= 50;
    let (passed, early) = flooded(&config, 1_100_000 / 50);
    assert_eq!((passed as u64, early.len()), (VICTIM, 1), "{early:?}");
}
