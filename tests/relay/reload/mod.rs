//! The configuration is reloaded while clients publish: no connection is lost, no message is lost, and none is there twice.

mod files;
mod stores;
mod storm;

use crate::e2e::load::{self, Published};
use crate::e2e::raw::{Publish, Raw, Told};
use crate::e2e::site::Site;
use crate::e2e::wait::{PATIENCE, until};
use crate::e2e::{http, retry};
use serde_json::Value;
use std::collections::BTreeMap;
use std::fs::OpenOptions;
use std::io::Write;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering::Relaxed};
use std::thread;

/// The window of the queue's ids stays; all else comes and goes.
fn config(n: usize) -> String {
    let limits = format!("[limits]\nmax_connections = {}\n", 1_000 + n);
    let extra = "[[window]]\nname = \"extra\"\nexchange = \"extra\"\ncapacity = 500\n";
    let kept = format!(
        "[[window]]\nname = \"kept\"\nvhost = \"{}\"\ncapacity = {}\nttl = \"{}m\"\n",
        if n.is_multiple_of(2) { "reload*" } else { "*" },
        200_000 + n,
        10 + n
    );
    // The order changes, too: `extra` is before the other one, behind it, or not there.
    match n % 3 {
        0 => format!("{limits}{kept}"),
        1 => format!("{limits}{extra}{kept}"),
        _ => format!("{limits}{kept}{extra}"),
    }
}

fn reload(site: &Site) -> (u16, Value) {
    let headers = "Content-Type: application/json\r\n";
    let admin = site.relay().admin();
    let (status, text) = http::ask(admin, "POST", "/api/v1/reload", headers, "").unwrap();
    (status, serde_json::from_str(&text).unwrap())
}

/// Publishes until it is told to stop. Each id goes out twice, the second time while the first is in flight.
fn publish_twice(site: &Site, publisher: usize, stop: &AtomicBool, acks: &AtomicUsize) -> Published {
    let ids = (0..200_000)
        .take_while(|_| !stop.load(Relaxed))
        .flat_map(|n| [(); 2].map(|()| format!("{publisher}-{n}")));
    load::publish((site.addr(), &site.vhost, "q"), ids, acks)
}

/// What was acked is in the queue once, and nothing else is. The three publishers have kept their connections. The last reload was
/// applied.
fn assert_nobody_has_noticed(
    site: &Site,
    held: &BTreeMap<String, usize>,
    published: &[Published],
    accepted_before: f64,
) {
    for publisher in published {
        assert!(publisher.unknown.is_empty(), "a connection has ended: {:?}", publisher.unknown);
        publisher.acked.keys().for_each(|id| assert_eq!(held.get(id), Some(&1), "{id}"));
    }
    assert_eq!(held.len(), published.iter().map(|publisher| publisher.acked.len()).sum::<usize>());
    let metrics = site.metrics();
    let accepted = metrics.sum("connections_accepted_total", &[]) - accepted_before;
    assert_eq!(accepted, 3.0, "three connections, no more");
    assert_eq!(metrics.sum("config_last_reload_successful", &[]), 1.0);
}

#[test]
fn publishers_with_retries_notice_nothing_of_reloads() {
    let Some(site) = Site::of_relay("reload", &config(0)) else { return };
    let mut direct = site.direct();
    direct.open_channel(1);
    direct.declare(1, "q", &[]);
    site.prove();
    let (stop, acks) = (AtomicBool::new(false), AtomicUsize::new(0));
    let before = site.metrics().sum("connections_accepted_total", &[]);
    let published = thread::scope(|scope| {
        let publishers: Vec<_> = (0..3)
            .map(|publisher| {
                let (site, stop, acks) = (&site, &stop, &acks);
                scope.spawn(move || publish_twice(site, publisher, stop, acks))
            })
            .collect();
        for n in 1..=12 {
            let seen = acks.load(Relaxed);
            site.relay().write_config(&config(n));
            if n % 4 == 3 {
                site.relay().sighup();
                let capacity = 200_000 + n as u64;
                until("the window has its new capacity", PATIENCE, || {
                    let window = site.relay().api("GET", "/api/v1/windows/kept", "");
                    (window["capacity"] == capacity).then_some(())
                });
            } else {
                let (status, answer) = reload(&site);
                assert_eq!((status, &answer["applied"]), (200, &true.into()), "{answer}");
            }
            until("publishes go on", PATIENCE, || (acks.load(Relaxed) > seen + 200).then_some(()));
        }
        stop.store(true, Relaxed);
        publishers.into_iter().map(|publisher| publisher.join().unwrap()).collect::<Vec<_>>()
    });
    assert_nobody_has_noticed(&site, &retry::held(&mut direct, "q"), &published, before);
    assert!(site.metrics().sum("publishes_total", &[("window", "kept"), ("verdict", "duplicate")]) > 0.0);
}

#[test]
fn a_reload_that_is_refused_changes_nothing_and_says_all_that_is_wrong() {
    let Some(site) = Site::of_relay("reload-no", &config(0)) else { return };
    let relay = site.relay();
    let state = || relay.api("GET", "/api/v1/config", "");
    let capacity = || relay.api("GET", "/api/v1/windows/kept", "")["capacity"].clone();
    assert_eq!(state()["not_loaded"], Value::Array(Vec::new()));

    // A file that is saved half: not TOML any more, with a value cut off, or empty.
    let whole = config(1);
    for (text, says) in [
        (&whole[..whole.len() - 3], "not TOML"),
        ("[limits]\nmax_connections = 0\nmemory = 1\n", "max_connections"),
        ("", "the file is empty"),
    ] {
        relay.write_config(text);
        let (status, answer) = reload(&site);
        assert_eq!(status, 422, "{answer}");
        assert!(answer["error"].as_str().unwrap().contains(says), "{answer}");
        assert!(!state()["file_errors"].as_array().unwrap().is_empty());
        assert_eq!(capacity(), 200_000);
    }
    assert_eq!(site.metrics().sum("config_last_reload_successful", &[]), 0.0);

    // One change that can be made, and two that cannot: nothing is done.
    let kept = "[[window]]\nname = \"kept\"\nid = \"body\"\ncapacity = 7\nttl = \"7s\"\nmode = \"off\"\n[timeouts]\nstore = \"9s\"\n";
    relay.write_config(kept);
    let dry = relay.api("POST", "/api/v1/reload?dry_run=true", "");
    assert_eq!((&dry["applied"], &dry["needs_restart"]), (&false.into(), &true.into()));
    let (status, answer) = reload(&site);
    assert_eq!((status, answer["errors"].as_array().unwrap().len()), (422, 2), "{answer}");
    let window = relay.api("GET", "/api/v1/windows/kept", "");
    let settings = ["capacity", "ttl_seconds", "mode"].map(|key| window[key].clone());
    let before = [Value::from(200_000), Value::from(600.0), Value::from("enforce")];
    assert_eq!(settings, before, "no part of it is done");

    // A change by the API is shown, and a reload undoes it.
    relay.write_config(&config(0));
    relay.api("PATCH", "/api/v1/windows/kept", r#"{"ttl": "99s"}"#);
    let live = state();
    assert_eq!(live["changed_live"][0]["key"], "window \"kept\": ttl", "{live}");
    let (status, answer) = reload(&site);
    assert_eq!((status, &answer["changes"][0]["to"]), (200, &"\"10m\"".into()), "{answer}");
    assert_eq!(state()["changed_live"], Value::Array(Vec::new()));
    assert_eq!(site.metrics().sum("config_last_reload_successful", &[]), 1.0);

    // If two come at a time, the second one waits or gets 409.
    let both = thread::scope(|scope| {
        let two = [scope.spawn(|| reload(&site).0), scope.spawn(|| reload(&site).0)];
        two.map(|reload| reload.join().unwrap())
    });
    assert!(both.contains(&200) && both.iter().all(|status| [200, 409].contains(status)), "{both:?}");
}

#[test]
fn a_file_that_is_being_written_is_not_put_in_force() {
    let Some(site) = Site::of_relay("reload-half", &config(0)) else { return };
    let done = AtomicBool::new(false);
    let state = site.relay().api("GET", "/api/v1/config", "");
    let mut file = OpenOptions::new().append(true).open(state["file"].as_str().unwrap()).unwrap();
    let (status, answer) = thread::scope(|scope| {
        // The file grows, and would hold at every moment.
        scope.spawn(|| {
            while !done.load(Relaxed) {
                file.write_all(b"# and so on\n").unwrap();
                thread::yield_now();
            }
        });
        let said = reload(&site);
        done.store(true, Relaxed);
        said
    });
    assert_eq!(status, 422, "{answer}");
    assert!(answer["error"].as_str().unwrap().contains("is being written"), "{answer}");
    site.relay().write_config(&config(2));
    assert_eq!(reload(&site).0, 200, "it is saved");
}

/// The most connections are those of the new configuration at once. The clients that are there stay.
#[test]
fn a_new_limit_of_connections_holds_for_those_who_come() {
    let limit = |most: usize| format!("[limits]\nmax_connections = {most}\n[[window]]\nname = \"w\"\n");
    let Some(site) = Site::of_relay("reload-limit", &limit(2)) else { return };
    let mut clients = [site.client(), site.client()];
    clients[0].confirming(1);
    clients[0].declare(1, "q", &[]);
    let refused = || assert_eq!(Raw::dial(site.addr()).unwrap().frame().unwrap(), None, "turned away");
    refused();
    for (most, has_room) in [(1, false), (3, true)] {
        site.relay().write_config(&limit(most));
        assert_eq!(reload(&site).0, 200);
        let third = has_room.then(|| site.client());
        refused();
        drop(third);
        let told = clients[0].publish_and_settle(1, &Publish::to("q", &most.to_string()));
        assert!(matches!(told.as_slice(), [Told::Ack { .. }]), "{told:?}");
    }
}

/// Capacity, TTL, patterns and order change under a window, and it knows its ids.
#[test]
fn a_window_that_changes_keeps_its_ids() {
    let Some(site) = Site::of_relay("reload-ids", &config(0)) else { return };
    let mut client = site.client();
    client.confirming(1);
    client.declare(1, "q", &[]);
    for n in 0..6 {
        site.relay().write_config(&config(n));
        assert_eq!(reload(&site).0, 200);
        let id = format!("new-{n}");
        for id in ["a", &id, &id] {
            let told = client.publish_and_settle(1, &Publish::to("q", id));
            assert!(matches!(told.as_slice(), [Told::Ack { .. }]), "{told:?}");
        }
    }
    assert_eq!(client.drain(1, "q"), ["a", "new-0", "new-1", "new-2", "new-3", "new-4", "new-5"]);
}
