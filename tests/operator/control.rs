//! Orders to a relay at work before a real RabbitMQ: a connection is closed, the log says more, the relay drains.

use crate::e2e::http;
use crate::e2e::raw::{Login, Publish, Raw, Told};
use crate::e2e::site::Site;
use crate::e2e::wait;
use serde_json::Value;

const LIVE: &str = "[[window]]\nname = \"live\"\ncapacity = 5000\nttl = \"10m\"\n";

fn connections(site: &Site) -> Vec<Value> {
    site.relay().api("GET", "/api/v1/connections", "")["connections"].as_array().unwrap().clone()
}

fn only(site: &Site) -> u64 {
    let all = connections(site);
    assert_eq!(all.len(), 1, "{all:?}");
    all[0]["id"].as_u64().unwrap()
}

/// The client gets the reason. Hapax remembers an id that the broker acks after that, so a retry is a duplicate. Other connections go
/// on.
#[test]
fn a_closed_connection_loses_nothing_that_was_stored() {
    let Some(site) = Site::with_cut("forced", LIVE) else { return };
    let mut client = site.client();
    client.confirming(1);
    client.declare(1, "q", &[]);
    let id = only(&site);
    let told = client.publish_and_settle(1, &Publish::to("q", "before"));
    assert!(matches!(told[..], [Told::Ack { .. }]), "{told:?}");
    let mut neighbour = site.client();
    neighbour.confirming(1);
    // The broker's answer is on its way for as long as we want.
    site.cut().stall_down();
    client.publish(1, &Publish::to("q", "in-flight"));
    wait::until("it is in flight", wait::PATIENCE, || {
        let all = connections(&site);
        all.iter().any(|one| one["id"] == id && one["unresolved"] == 1).then_some(())
    });
    let path = format!("/api/v1/connections/{id}?reason=moved+to+b");
    let closing = site.relay().api("DELETE", &path, "");
    assert_eq!((&closing["closing"]["id"], &closing["reason"]), (&id.into(), &"moved to b".into()));
    match client.next(0) {
        Told::ConnectionClosed { code, text } => {
            assert_eq!((code, text.as_str()), (320, "CONNECTION_FORCED - moved to b"));
        }
        other => panic!("{other:?}"),
    }
    site.cut().resume();
    wait::until("its outcome is known", wait::PATIENCE, || {
        connections(&site).iter().all(|one| one["id"] != id).then_some(())
    });
    let told = neighbour.publish_and_settle(1, &Publish::to("q", "in-flight"));
    assert!(matches!(told[..], [Told::Ack { .. }]), "{told:?}");
    let mut copies = neighbour.drain(1, "q");
    copies.sort_unstable();
    assert_eq!(copies, ["before", "in-flight"], "each once");
    let again = http::ask(site.relay().admin(), "DELETE", &path, "Content-Type: application/json\r\n", "");
    assert_eq!(again.unwrap().0, 404, "it is gone");
    let line = site.relay().log().lines().find(|line| line.contains("connection closed")).map(str::to_owned);
    let line = line.expect("it is logged");
    for part in [r#""reason":"moved to b""#, r#""user":"guest""#, r#""by":"loopback""#] {
        assert!(line.contains(part), "{part} in {line}");
    }
    let journal = site.relay().api("GET", "/api/v1/journal", "").to_string();
    assert!(journal.contains("of guest: moved to b"), "{journal}");
    neighbour.close();
}

/// A client chooses its own name, and somebody opens the list in a spreadsheet.
#[test]
fn a_name_in_the_csv_of_connections_is_no_formula() {
    let Some(site) = Site::of_relay("export", LIVE) else { return };
    site.add_user("=1+1", ".*");
    let client = Raw::login(site.addr(), &Login::new("export", "=1+1", "=1+1")).unwrap();
    let (status, text) = http::get(site.relay().admin(), "/api/v1/connections?format=csv").unwrap();
    assert_eq!(status, 200);
    let lines: Vec<&str> = text.lines().collect();
    assert_eq!(lines.len(), 2, "{text}");
    assert!(lines[1].contains(",\"'=1+1\",\"export\","), "{text}");
    let deliveries = site.metrics().sum("deliveries_total", &[]);
    assert!(deliveries.abs() < f64::EPSILON);
    client.close();
}

#[test]
fn the_log_says_more_and_less_while_it_runs() {
    let Some(site) = Site::of_relay("loglevel", LIVE) else { return };
    let log = |level: &str| site.relay().api("PUT", "/api/v1/log", &format!(r#"{{"level": "{level}"}}"#));
    let connected = || site.relay().log().lines().filter(|line| line.contains("client connected")).count();
    site.client().close();
    assert_eq!(connected(), 0, "that is a detail");
    let now = log("info,hapax::net=debug");
    assert_eq!((&now["level"], &now["configured"]), (&"info,hapax::net=debug".into(), &"info".into()));
    site.client().close();
    wait::until("details are logged", wait::PATIENCE, || (connected() == 1).then_some(()));
    let config = site.relay().api("GET", "/api/v1/config", "");
    assert!(config["changed_live"].to_string().contains("log.level"), "{config}");
    log("error");
    log("info");
    let changes = || site.relay().log().lines().filter(|line| line.contains("log level changed")).count();
    wait::until("each change is logged", wait::PATIENCE, || (changes() == 3).then_some(()));
    site.client().close();
    assert_eq!(connected(), 1);
}

#[test]
fn a_drain_by_the_api_is_a_drain() {
    let config = format!("{LIVE}[timeouts]\ndrain_delay = \"1s\"\n");
    let Some(mut site) = Site::of_relay("drainapi", &config) else { return };
    let mut client = site.client();
    client.confirming(1);
    client.declare(1, "q", &[]);
    let drain = site.relay().api("POST", "/api/v1/drain", "");
    assert_eq!((&drain["draining"], &drain["connections"]), (&true.into(), &1.into()));
    wait::until("/readyz says so", wait::PATIENCE, || {
        http::get(site.relay().admin(), "/readyz").is_ok_and(|(status, _)| status == 503).then_some(())
    });
    assert!((site.metrics().sum("draining", &[]) - 1.0).abs() < f64::EPSILON);
    // Asked again, it goes on. It does not end at once, as after a second signal.
    site.relay().api("POST", "/api/v1/drain", "");
    let told = client.publish_and_settle(1, &Publish::to("q", "late"));
    assert!(matches!(told[..], [Told::Ack { .. }]), "it is served until the delay is over: {told:?}");
    match client.next(0) {
        Told::ConnectionClosed { code, text } => {
            assert!(code == 320 && text.contains("shutting down"), "{text}");
        }
        other => panic!("{other:?}"),
    }
    assert!(site.relay_mut().ended().success());
    site.relay().until_says("order of 127.0.0.1:");
    site.relay().until_says("drained; good bye");
}
