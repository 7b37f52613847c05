//! What an operator sees of a store, before and after the process is killed.

use crate::e2e::load::publish;
use crate::e2e::site::Site;
use crate::e2e::wait;
use serde_json::Value;
use std::path::PathBuf;
use std::sync::atomic::AtomicUsize;

/// The two sums over the events of a window, from what the API shows.
fn assert_adds_up(window: &Value) {
    let number = |value: &Value| value.as_u64().unwrap_or_else(|| panic!("{value} in {window}"));
    let sum = |causes: &Value| causes.as_object().unwrap().values().map(number).sum::<u64>();
    let removed = number(&window["entries"]) + sum(&window["evictions"]);
    let unsettled = sum(&window["forgotten"]) + number(&window["in_flight"]);
    let (publishes, recovered) = (&window["publishes"], number(&window["recovered"]));
    let forwarded = number(&publishes["fresh"]) + number(&publishes["republished"]);
    assert_eq!(forwarded + recovered, removed + unsettled, "{window}");
    let commits = number(&window["commits"]) + number(&window["commits_in_doubt"]);
    assert_eq!(commits + recovered, removed, "{window}");
}

/// A window whose log reaches back for a TTL is warm as soon as the process has started again. It says how many ids it has read, and the
/// events add up with them.
#[test]
fn a_window_that_has_read_its_log_is_warm_at_once_and_says_what_it_has_read() {
    let folder: PathBuf = std::env::temp_dir().join(format!("hapax-store-{}-shown", std::process::id()));
    let _ = std::fs::remove_dir_all(&folder);
    let config = format!(
        "state_dir = \"{}\"\n[[window]]\nname = \"orders\"\nttl = \"3s\"\ncapacity = 100000\nstore = \"disk\"\n\
         [[window]]\nname = \"memory\"\nexchange = \"memory\"\n",
        folder.display()
    );
    let Some(mut site) = Site::of_relay("disk-shown", &config) else { return };
    let mut direct = site.direct();
    direct.open_channel(1);
    direct.declare(1, "q", &[]);
    let load = |site: &Site, name: &str| {
        let ids = (0..50).map(|n| format!("{name}-{n}")).collect::<Vec<_>>();
        publish((site.addr(), &site.vhost, "q"), ids, &AtomicUsize::new(0));
    };
    let orders = |site: &Site| site.relay().api("GET", "/api/v1/windows/orders", "");
    let new = orders(&site);
    assert_eq!((&new["store"]["kind"], &new["store"]["up"]), (&"disk".into(), &true.into()), "{new}");
    assert!(
        new["warming_seconds"].as_f64().is_some_and(|left| left > 0.0),
        "an empty log says nothing: {new}"
    );
    let mut round = 0;
    wait::until("the window is as old as its TTL", wait::PATIENCE, || {
        round += 1;
        load(&site, &format!("round-{round}"));
        (orders(&site)["warming_seconds"] == 0.0).then_some(())
    });
    load(&site, "last");
    assert_adds_up(&orders(&site));

    site.relay_mut().kill9();
    site.relay_mut().restart();
    let again = orders(&site);
    let store = &again["store"];
    // The log reaches back for a TTL, or to the first load of the last TTL: a busy machine has gaps between them.
    let (reach, warming) =
        (store["oldest_seconds"].as_f64().unwrap(), again["warming_seconds"].as_f64().unwrap());
    assert!(reach > 2.0 && (reach + warming - 3.0).abs() < 0.1 || warming == 0.0, "{again}");
    assert!((again["coverage"].as_f64().unwrap() + warming / 3.0 - 1.0).abs() < 0.01, "{again}");
    assert_eq!((&store["recovering"], &store["damaged_batches"]), (&false.into(), &0.into()), "{store}");
    let recovered = store["recovered"].as_u64().unwrap();
    assert!(recovered >= 50, "the last ones at least: {store}");
    assert_eq!(again["recovered"], recovered, "each is an event");
    assert_adds_up(&again);
    let metrics = site.relay().metrics();
    assert_eq!(metrics.sum("recovered_total", &[("window", "orders")]), recovered as f64);
    assert_eq!(metrics.sum("store_up", &[("window", "orders"), ("store", "disk")]), 1.0);
    let memory = site.relay().api("GET", "/api/v1/windows/memory", "");
    assert!(
        memory["warming_seconds"].as_f64().is_some_and(|left| left > 0.0) && memory.get("store").is_none()
    );
    load(&site, "last");
    load(&site, "new");
    assert_adds_up(&orders(&site));
    let _ = std::fs::remove_dir_all(&folder);
}
