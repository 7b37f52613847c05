//! Windows with stores come and go by reloads, while stores are down, and while the relay drains.

use super::reload;
use crate::e2e::http;
use crate::e2e::raw::{Publish, Raw, Told};
use crate::e2e::relay::Relay;
use crate::e2e::site::{Site, shared_rabbit};
use crate::e2e::wait::{PATIENCE, now, until};
use hapax_testbed::{Leash, free_port};
use serde_json::Value;
use std::fs::{self, File, Permissions, TryLockError};
use std::os::unix::fs::PermissionsExt;
use std::time::Duration;

fn windows(relay: &Relay) -> Vec<String> {
    let windows = relay.api("GET", "/api/v1/windows", "");
    let names = windows["windows"].as_array().unwrap().iter().map(|window| window["name"].as_str().unwrap());
    names.map(str::to_owned).collect()
}

fn publish(client: &mut Raw, id: &str) {
    let told = client.publish_and_settle(1, &Publish::to("q", id));
    assert!(matches!(told.as_slice(), [Told::Ack { .. }]), "{told:?}");
}

/// Publishes the second message of a site, whose outcome does not come.
fn put_in_flight(site: &Site, client: &mut Raw, id: &str) {
    site.cut().stall_down();
    client.publish(1, &Publish::to("q", id));
    until("it is in flight", PATIENCE, || {
        (site.metrics().sum("publishes_total", &[("verdict", "fresh")]) == 2.0).then_some(())
    });
}

/// The window's log is written while it is there, is let go when it is removed, and is read again when it comes back.
#[test]
fn a_window_with_a_log_on_disk_is_added_removed_and_added_again() {
    let leash = Leash::new("reload-state").unwrap();
    let state = leash.folder().join("state");
    let top = format!("state_dir = \"{}\"\n", state.display());
    let first = "[[window]]\nname = \"first\"\nexchange = \"first\"\nstore = \"disk\"\n";
    let second = "[[window]]\nname = \"second\"\nstore = \"disk\"\nttl = \"1h\"\ncapacity = 1000\n";
    let (one, both) = (format!("{top}{first}"), format!("{top}{first}{second}"));
    let Some(site) = Site::of_relay("reload-disk", &one) else { return };
    let relay = site.relay();
    let log = state.join("windows/second");
    let mut client = site.client();
    client.confirming(1);
    client.declare(1, "q", &[]);
    publish(&mut client, "before");
    assert!(!log.exists());

    // Another window's folder can't be used: this one is not added either, and its log is let go.
    fs::write(state.join("windows/third"), "a file").unwrap();
    relay.write_config(&format!("{both}[[window]]\nname = \"third\"\nexchange = \"x\"\nstore = \"disk\"\n"));
    let (status, answer) = reload(&site);
    assert_eq!((status, windows(relay)), (422, vec!["first".to_owned()]), "{answer}");
    assert!(answer["error"].as_str().unwrap().contains("window \"third\""), "{answer}");
    until("its writer has ended", PATIENCE, || (relay.threads("hapax-log") == 1).then_some(()));

    relay.write_config(&both);
    assert_eq!(reload(&site).0, 200);
    publish(&mut client, "a");
    publish(&mut client, "a");
    let of_second = |name: &str| site.metrics().sum(name, &[("window", "second")]);
    assert_eq!((of_second("commits_total"), of_second("store_up")), (1.0, 1.0));
    assert!(fs::read_dir(&log).unwrap().next().is_some(), "it has a log");
    assert!(relay.threads("hapax-log") >= 2);

    relay.write_config(&one);
    assert_eq!(reload(&site).0, 200);
    assert_eq!(windows(relay), ["first"]);
    publish(&mut client, "b");
    let (_, exposed) = http::get(relay.admin(), "/metrics").unwrap();
    assert!(!exposed.contains("window=\"second\""), "nothing is left of it in the metrics");
    // The same name at once: the log is still in the hands of the window that was removed.
    relay.write_config(&both);
    let (status, answer) = reload(&site);
    assert_eq!(status, 422, "{answer}");
    assert!(answer["error"].as_str().unwrap().contains("its store is not closed yet"), "{answer}");
    assert_eq!(windows(relay), ["first"]);
    until("its writer has ended", PATIENCE, || (relay.threads("hapax-log") == 1).then_some(()));
    until("it can come back", PATIENCE, || (reload(&site).0 == 200).then_some(()));
    publish(&mut client, "a");
    let verdict =
        |verdict| site.metrics().sum("publishes_total", &[("window", "second"), ("verdict", verdict)]);
    assert_eq!((verdict("duplicate"), verdict("fresh")), (1.0, 0.0), "it has read what it had written");
    // The folder of the process is held as long as the process is there, whatever its windows do.
    let lock = fs::read_dir(&state).unwrap().map(|entry| entry.unwrap().path());
    let lock = lock.into_iter().find(|path| path.to_string_lossy().contains("lock")).expect("a lock");
    assert!(matches!(File::open(lock).unwrap().try_lock(), Err(TryLockError::WouldBlock)));
    assert_eq!(client.drain(1, "q"), ["before", "a", "b"]);
}

/// The only window with a stream takes the connection with it. It is opened again.
#[test]
fn the_only_window_with_a_stream_goes_and_comes_back() {
    let leash = Leash::new("reload-stream").unwrap();
    let uri = format!("amqp://guest:guest@{}/reload-stream", shared_rabbit().addr());
    let top = format!(
        "state_dir = \"{}\"\n[store.stream]\nuri = \"{uri}\"\n[[window]]\nname = \"first\"\nexchange = \"first\"\nstore = \"disk\"\n",
        leash.folder().join("state").display()
    );
    let window = "[[window]]\nname = \"w\"\nstore = \"stream\"\nttl = \"1h\"\n";
    let all = format!("{top}{window}");
    let Some(site) = Site::of_relay("reload-stream", &all) else { return };
    let mut client = site.client();
    client.confirming(1);
    client.declare(1, "q", &[]);
    publish(&mut client, "a");
    for _ in 0..2 {
        site.relay().write_config(&top);
        assert_eq!(reload(&site).0, 200);
        site.relay().write_config(&all);
        until("it comes back", PATIENCE, || {
            let (status, answer) = reload(&site);
            assert!(status == 200 || answer.to_string().contains("not closed yet"), "{answer}");
            (status == 200).then_some(())
        });
        publish(&mut client, "a");
        assert_eq!(site.metrics().sum("store_up", &[("window", "w")]), 1.0);
    }
    assert_eq!(client.drain(1, "q"), ["a"]);
}

/// A window is removed while a message is in flight. However late the broker's ack comes, the id is written before the log is closed.
#[test]
fn what_is_in_flight_in_a_removed_window_is_remembered_there() {
    let leash = Leash::new("reload-flight").unwrap();
    let top = format!("state_dir = \"{}\"\n", leash.folder().join("state").display());
    let idle = "[[window]]\nname = \"idle\"\nexchange = \"idle\"\nstore = \"disk\"\n";
    let window = "[[window]]\nname = \"w\"\nttl = \"1h\"\nstore = \"disk\"\n";
    let all = format!("{top}{idle}{window}");
    let Some(site) = Site::with_cut("reload-flight", &all) else { return };
    let relay = site.relay();
    let mut client = site.client();
    client.confirming(1);
    client.declare(1, "q", &[]);
    publish(&mut client, "a");
    put_in_flight(&site, &mut client, "b");
    relay.write_config(&format!("{top}[[window]]\nname = \"other\"\n"));
    assert_eq!(reload(&site).0, 200);
    // The log of a window where nothing is in flight is closed in the meantime.
    let closed = |name: &str| {
        let log = relay.log();
        log.lines().any(|line| line.contains("removed is closed") && line.contains(&format!("\"{name}\"")))
    };
    until("the idle one is closed", PATIENCE, || closed("idle").then_some(()));
    assert!(!closed("w"), "its message is in flight");
    site.cut().resume();
    let told = client.receive().unwrap();
    assert!(matches!(told, Some((1, Told::Ack { .. }))), "{told:?}");
    until("it is closed", PATIENCE, || closed("w").then_some(()));
    relay.write_config(&all);
    assert_eq!(reload(&site).0, 200);
    publish(&mut client, "b");
    let of_window = [("window", "w"), ("verdict", "duplicate")];
    assert_eq!(site.metrics().sum("publishes_total", &of_window), 1.0, "it is known there");
    assert_eq!(client.drain(1, "q"), ["a", "b"]);
}

/// A window whose store is down can be changed and removed. One that is added while its store is down holds up nobody.
#[test]
fn a_store_that_is_down_holds_up_no_reload() {
    let leash = Leash::new("reload-down").unwrap();
    let secret = leash.folder().join("secret");
    fs::write(&secret, "5a".repeat(32)).unwrap();
    fs::set_permissions(&secret, Permissions::from_mode(0o600)).unwrap();
    let top = format!(
        "digest_secret_file = \"{}\"\n[timeouts]\nstore = \"200ms\"\n[store.redis]\nurl = \"redis://127.0.0.1:{}\"\n",
        secret.display(),
        free_port().unwrap()
    );
    let window = |name: &str, ttl: &str| {
        format!("[[window]]\nname = \"{name}\"\nttl = \"{ttl}\"\nstore = \"redis\"\n")
    };
    let memory = "[[window]]\nname = \"memory\"\n";
    let Some(site) = Site::of_relay("reload-down", &format!("{top}{memory}")) else { return };
    let relay = site.relay();
    let mut client = site.client();
    client.confirming(1);
    client.declare(1, "q", &[]);
    publish(&mut client, "a");
    let steps = [
        (vec!["down"], window("down", "1h")),
        (vec!["down"], window("down", "2h")),
        (
            vec!["more", "down"],
            format!(
                "[[window]]\nname = \"more\"\nexchange = \"x\"\nstore = \"redis\"\n{}",
                window("down", "3h")
            ),
        ),
        (vec!["memory"], memory.to_owned()),
    ];
    for (names, text) in steps {
        relay.write_config(&format!("{top}{text}"));
        let begin = now();
        let (status, answer) = reload(&site);
        assert_eq!(status, 200, "{answer}");
        assert!(now() - begin < Duration::from_secs(8), "{names:?} took {:?}", now() - begin);
        assert_eq!(windows(relay), names);
        publish(&mut client, names[0]);
    }
    publish(&mut client, "memory");
    assert_eq!(relay.api("GET", "/api/v1/config", "")["file_errors"], Value::Array(Vec::new()));
    assert_eq!(site.metrics().sum("publishes_total", &[("window", "memory"), ("verdict", "duplicate")]), 1.0);
    assert_eq!(client.drain(1, "q"), ["a", "down", "more", "memory"]);
}

/// While Hapax drains, its configuration is that of its last moments: the next process reads the file.
#[test]
fn a_relay_that_drains_is_not_reloaded_and_still_drains() {
    let first = "[[window]]\nname = \"w\"\nttl = \"1h\"\n";
    let Some(mut site) = Site::with_cut("reload-drain", first) else { return };
    let mut client = site.client();
    client.confirming(1);
    client.declare(1, "q", &[]);
    publish(&mut client, "a");
    put_in_flight(&site, &mut client, "b");
    let relay = site.relay();
    relay.sigterm();
    until("it drains", PATIENCE, || relay.log().contains("draining: no new connections").then_some(()));
    relay.write_config("[[window]]\nname = \"w\"\nttl = \"2h\"\n");
    let (status, answer) = reload(&site);
    assert_eq!(status, 409, "{answer}");
    assert!(answer["error"].as_str().unwrap().contains("draining"), "{answer}");
    relay.sighup();
    until("SIGHUP is refused", PATIENCE, || {
        relay.log().contains("not reloaded: Hapax is draining").then_some(())
    });
    assert_eq!(relay.api("GET", "/api/v1/windows/w", "")["ttl_seconds"], Value::from(3600.0));
    site.cut().resume();
    let told = client.receive().unwrap();
    assert!(matches!(told, Some((1, Told::Ack { .. }))), "what was in flight is settled: {told:?}");
    assert!(site.relay_mut().ended().success());
    let mut direct = Raw::connect(shared_rabbit().addr(), &site.vhost);
    direct.open_channel(1);
    assert_eq!(direct.drain(1, "q"), ["a", "b"]);
}
