//! More reloads than anybody asks for, at once, of a file that is being written, under load.

use super::{assert_nobody_has_noticed, config, publish_twice, reload};
use crate::e2e::retry;
use crate::e2e::site::Site;
use crate::e2e::wait::{PATIENCE, until};
use serde_json::Value;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering::Relaxed};
use std::thread;

/// Signals that are sent.
const SIGNALS: usize = 300;

/// The file is written over and over while SIGHUPs and requests come. Some reloads find it half written, and are refused. No publisher
/// notices anything, and the last file is in force at the end.
#[test]
fn a_storm_of_reloads_loses_nothing_and_doubles_nothing() {
    let Some(site) = Site::of_relay("reload-storm", &config(0)) else { return };
    let mut direct = site.direct();
    direct.open_channel(1);
    direct.declare(1, "q", &[]);
    site.prove();
    let (stop, acks) = (AtomicBool::new(false), AtomicUsize::new(0));
    let before = site.metrics().sum("connections_accepted_total", &[]);
    let published = thread::scope(|scope| {
        let (stop, acks, site) = (&stop, &acks, &site);
        let publishers: Vec<_> =
            (0..3).map(|publisher| scope.spawn(move || publish_twice(site, publisher, stop, acks))).collect();
        let askers: Vec<_> = (0..2)
            .map(|_| {
                scope.spawn(|| {
                    let mut statuses = [0; 3];
                    while !stop.load(Relaxed) {
                        let (status, answer) = reload(site);
                        let place = [200, 409, 422].iter().position(|known| *known == status);
                        statuses[place.unwrap_or_else(|| panic!("{status}: {answer}"))] += 1;
                    }
                    statuses
                })
            })
            .collect();
        for n in 0..SIGNALS {
            // The file is cut to nothing first, and then written.
            site.relay().write_config(&config(n));
            site.relay().sighup();
            thread::yield_now();
        }
        let seen = acks.load(Relaxed);
        until("publishes go on", PATIENCE, || (acks.load(Relaxed) > seen + 1000).then_some(()));
        stop.store(true, Relaxed);
        let statuses: Vec<_> = askers.into_iter().map(|asker| asker.join().unwrap()).collect();
        println!("200, 409, 422: {statuses:?}");
        publishers.into_iter().map(|publisher| publisher.join().unwrap()).collect::<Vec<_>>()
    });
    site.relay().write_config(&config(5));
    site.relay().sighup();
    until("the last file is in force", PATIENCE, || {
        let state = site.relay().api("GET", "/api/v1/config", "");
        let nothing = Value::Array(Vec::new());
        (state["not_loaded"] == nothing && state["file_errors"] == nothing).then_some(())
    });
    let windows = site.relay().api("GET", "/api/v1/windows", "");
    let names: Vec<_> = windows["windows"].as_array().unwrap().iter().map(|window| &window["name"]).collect();
    assert_eq!(names, ["kept", "extra"]);
    assert_nobody_has_noticed(&site, &retry::held(&mut direct, "q"), &published, before);
}

/// At least one of many reloads at once is applied. The others get 409. At the end, all of the file is in force.
#[test]
fn of_many_reloads_at_once_each_is_done_or_refused() {
    let Some(site) = Site::of_relay("reload-many", &config(0)) else { return };
    site.relay().write_config(&config(4));
    let statuses: Vec<u16> = thread::scope(|scope| {
        let asked: Vec<_> = (0..16).map(|_| scope.spawn(|| reload(&site).0)).collect();
        asked.into_iter().map(|asked| asked.join().unwrap()).collect()
    });
    let done = statuses.iter().filter(|status| **status == 200).count();
    assert!(done >= 1 && statuses.iter().all(|status| [200, 409].contains(status)), "{statuses:?}");
    let applied = || site.relay().log().matches("configuration reloaded").count();
    until("the log has been written", PATIENCE, || (applied() >= done).then_some(()));
    assert_eq!(applied(), done, "as many as were told so");
    let window = site.relay().api("GET", "/api/v1/windows/kept", "");
    assert_eq!((&window["capacity"], &window["ttl_seconds"]), (&200_004.into(), &Value::from(840.0)));
    // A dry run at the same time does not count as one that was applied.
    assert_eq!(site.relay().api("POST", "/api/v1/reload?dry_run=true", "")["applied"], false);
}

/// A capacity is changed, and changed back by the next reload at once. Whatever the first change is still doing, the last file holds.
#[test]
fn of_two_reloads_of_a_capacity_the_last_one_holds() {
    let Some(site) = Site::of_relay("reload-twice", &config(0)) else { return };
    let relay = site.relay();
    let of = |capacity: u64| {
        format!("[[window]]\nname = \"kept\"\nvhost = \"reload*\"\ncapacity = {capacity}\nttl = \"10m\"\n")
    };
    for round in 0..40 {
        for capacity in [20, 10] {
            relay.write_config(&of(capacity));
            assert_eq!(reload(&site).0, 200, "round {round}");
        }
        // A change that were under way would be shown here.
        let window = until("no change is under way", PATIENCE, || {
            let window = relay.api("GET", "/api/v1/windows/kept", "");
            window["resizing"].is_null().then_some(window)
        });
        assert_eq!(window["capacity"], 10, "round {round}: {window}");
        assert_eq!(relay.api("GET", "/api/v1/config", "")["changed_live"], Value::Array(Vec::new()));
    }
}
