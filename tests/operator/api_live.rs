//! The API beside a relay at work before a real RabbitMQ: what is changed while publishers publish, and what is known of
//! them.

use crate::e2e::http;
use crate::e2e::raw::{Publish, Told, Value as Header};
use crate::e2e::site::Site;
use crate::e2e::wait;
use serde_json::{Value, json};
use std::io::{BufRead, BufReader, Write};
use std::net::TcpStream;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::SeqCst};
use std::thread;

const LIVE: &str = "[[window]]\nname = \"live\"\ncapacity = 5000\nttl = \"10m\"\n";
const WINDOW: &str = "/api/v1/windows/live";

fn acked(told: &[Told]) {
    assert!(matches!(told, [Told::Ack { .. }]), "{told:?}");
}

/// Says stop when it goes, by a panic too: a publisher that nobody stops would be waited for without end.
struct Stop<'a>(&'a AtomicBool);

impl Drop for Stop<'_> {
    fn drop(&mut self) {
        self.0.store(true, SeqCst);
    }
}

fn number(value: &Value, key: &str) -> u64 {
    value[key].as_u64().unwrap_or_else(|| panic!("{key} in {value}"))
}

#[test]
fn capacity_changes_while_publishers_publish() {
    let Some(site) = Site::of_relay("resize", LIVE) else { return };
    let mut client = site.client();
    client.confirming(1);
    client.declare(1, "q", &[]);
    // Many at once: memory is a matter of many.
    (0..4000).for_each(|n| client.publish(1, &Publish::to("q", &format!("before-{n}"))));
    wait::until("4000 ids are remembered", wait::PATIENCE, || {
        (number(&site.relay().api("GET", WINDOW, ""), "entries") == 4000).then_some(())
    });
    let mut settled = 0;
    while settled < 4000 {
        match client.next(1) {
            Told::Ack { tag, .. } => settled = tag,
            other => panic!("{other:?}"),
        }
    }
    let (stop, count) = (AtomicBool::new(false), AtomicU64::new(0));
    thread::scope(|scope| {
        let _stop = Stop(&stop);
        let mut publisher = site.client();
        let publishing = scope.spawn(|| {
            publisher.confirming(1);
            while !stop.load(SeqCst) {
                let id = format!("id-{}", count.fetch_add(1, SeqCst));
                acked(&publisher.publish_and_settle(1, &Publish::to("q", &id)));
            }
            publisher.close();
        });
        let published = |many: u64| {
            let goal = count.load(SeqCst) + many;
            wait::until("publishes", wait::PATIENCE, || {
                assert!(!publishing.is_finished(), "the publisher has ended");
                (count.load(SeqCst) >= goal).then_some(())
            });
        };
        published(50);
        let before = site.relay().api("GET", WINDOW, "");
        assert!(number(&before, "entries") >= 4049, "{before}");

        let small = site.relay().api("PATCH", WINDOW, r#"{"capacity": 20}"#);
        assert_eq!((number(&small, "capacity"), number(&small, "entries")), (20, 20), "{small}");
        assert!(number(&small["evictions"], "resize") >= 4029, "{small}");
        assert!(number(&small, "bytes") < number(&before, "bytes"), "{small}\n{before}");
        published(50);
        assert_eq!(number(&site.relay().api("GET", WINDOW, ""), "entries"), 20, "and it stays so");

        acked(&client.publish_and_settle(1, &Publish::to("q", "kept")));
        let large = site.relay().api("PATCH", WINDOW, r#"{"capacity": 100000, "ttl": "20m"}"#);
        assert_eq!(number(&large, "capacity"), 100_000);
        assert!(number(&large, "entries") >= 20, "{large}");
        published(100);
        acked(&client.publish_and_settle(1, &Publish::to("q", "kept")));
    });
    let copies = client.drain(1, "q").iter().filter(|id| *id == "kept").count();
    assert_eq!(copies, 1, "what was there was kept");
    let after = site.relay().api("GET", WINDOW, "");
    assert_eq!((number(&after["publishes"], "duplicate"), &after["ttl_seconds"]), (1, &json!(1200.0)));
    client.close();
}

/// After a start and a flush, duplicates of what was published before get through, and nobody can count them. The same holds
/// for messages without an id.
#[test]
fn a_young_window_and_one_without_ids_do_not_look_well() {
    let Some(site) = Site::of_relay("unwell", LIVE) else { return };
    let window = || site.relay().api("GET", WINDOW, "");
    let young = window();
    assert_eq!(young["level"], "warming", "{young}");
    assert!(young["coverage"].as_f64().unwrap() < 0.2 && young["warming_seconds"].as_f64().unwrap() > 480.0);
    site.relay().api("PATCH", WINDOW, r#"{"ttl": "1s"}"#);
    wait::until("it is as old as its TTL", wait::PATIENCE, || (window()["level"] == "ok").then_some(()));
    site.relay().api("PATCH", WINDOW, r#"{"ttl": "5m"}"#);
    assert!(window()["warming_seconds"].as_f64().unwrap() > 200.0);
    site.relay().api("PATCH", WINDOW, r#"{"ttl": "1s"}"#);

    let mut client = site.client();
    client.confirming(1);
    client.declare(1, "q", &[]);
    for n in 0..40 {
        let id = n.to_string();
        let publish =
            Publish { headers: &[("x-request-id", Header::Long(n))], id: None, ..Publish::to("q", &id) };
        acked(&client.publish_and_settle(1, &publish));
    }
    acked(&client.publish_and_settle(1, &Publish::to("q", "with an id")));
    let blind = wait::until("it is blind", wait::PATIENCE, || {
        let window = window();
        (window["level"] == "blind").then_some(window)
    });
    let missing = &blind["missing_ids"];
    assert_eq!(missing["publishes"], 40, "{missing}");
    assert_eq!(missing["headers"], json!([{"name": "x-request-id", "share": 1.0}]), "{missing}");
    assert!(!blind.to_string().contains("\"39\""), "no values");
    client.close();
}

#[test]
fn an_id_is_looked_up_and_forgotten_as_it_was_published() {
    let Some(site) = Site::of_relay("lookup", LIVE) else { return };
    let mut client = site.client();
    client.confirming(1);
    client.declare(1, "a queue/é", &[]);
    let publish = Publish::to("a queue/é", "order 1/2");
    for _ in 0..3 {
        acked(&client.publish_and_settle(1, &publish));
    }
    let path = format!("{WINDOW}/ids/order%201%2F2?exchange=&routing_key=a+queue/%C3%A9&vhost=lookup");
    let seen = site.relay().api("GET", &path, "");
    assert_eq!((&seen["state"], &seen["duplicates"]), (&json!("seen"), &json!(2)), "{seen}");
    // (The engine keeps milliseconds, and rounds up: nothing is forgotten early.)
    assert!(
        seen["expires_in_seconds"].as_f64().is_some_and(|left| (1.0..=600.001).contains(&left)),
        "{seen}"
    );
    let elsewhere = path.replace("vhost=lookup", "vhost=/");
    assert_eq!(site.relay().api("GET", &elsewhere, "")["state"], "unknown");

    assert_eq!(site.relay().api("DELETE", &path, "")["forgotten"], true);
    acked(&client.publish_and_settle(1, &publish));
    acked(&client.publish_and_settle(1, &publish));
    assert_eq!(client.drain(1, "a queue/é").len(), 2, "the one before it was forgotten and the one after");

    site.relay().api("PATCH", WINDOW, r#"{"mode": "observe"}"#);
    acked(&client.publish_and_settle(1, &publish));
    assert_eq!(client.drain(1, "a queue/é").len(), 1, "counted and forwarded");
    assert_eq!(site.relay().api("POST", &format!("{WINDOW}/flush"), ""), json!({"flushed": 1}));
    client.close();
}

#[test]
fn connections_are_listed_while_they_last() {
    let Some(site) = Site::with_cut("listed", LIVE) else { return };
    site.add_user("bob", ".*");
    let mut client = site.client();
    client.confirming(1);
    client.open_channel(2);
    client.declare(1, "q", &[]);
    for id in ["a", "b", "a"] {
        acked(&client.publish_and_settle(1, &Publish::to("q", id)));
    }
    let login = crate::e2e::raw::Login::new("listed", "bob", "bob");
    let bob = crate::e2e::raw::Raw::login(site.addr(), &login).unwrap();
    let list = |query: &str| site.relay().api("GET", &format!("/api/v1/connections{query}"), "");
    let both = list("");
    assert_eq!(both["total"], 2, "{both}");
    let one = &both["connections"][0];
    for (key, value) in [
        ("user", json!("guest")),
        ("vhost", json!("listed")),
        ("channels", json!(2)),
        ("publishes", json!(3)),
        ("unresolved", json!(0)),
        ("state", json!("open")),
    ] {
        assert_eq!(one[key], value, "{key} in {one}");
    }
    assert_eq!(one["peer"], client.socket().local_addr().unwrap().to_string());
    assert!(number(one, "bytes_in") > 300 && number(one, "bytes_out") > 300, "{one}");
    assert!(one["age_seconds"].as_f64().is_some_and(|age| age > 0.0), "{one}");
    assert_eq!(both["connections"][1]["user"], "bob");
    let second = list("?limit=1&offset=1");
    assert_eq!((&second["total"], &second["connections"][0]["user"]), (&json!(2), &json!("bob")));
    assert_eq!(list("?offset=2")["connections"], json!([]));
    bob.close();
    wait::until("bob has left", wait::PATIENCE, || (list("")["total"] == 1).then_some(()));

    // The broker says nothing more, and the client goes: what it published is waited for.
    site.cut().stall_down();
    client.publish(1, &Publish::to("q", "c"));
    wait::until("one is unresolved", wait::PATIENCE, || {
        (list("")["connections"][0]["unresolved"] == 1).then_some(())
    });
    drop(client);
    wait::until("it lingers", wait::PATIENCE, || {
        (list("")["connections"][0]["state"] == "lingering").then_some(())
    });
    site.cut().resume();
    wait::until("it is gone", wait::PATIENCE, || (list("")["total"] == 0).then_some(()));
}

#[test]
fn a_token_from_a_file_guards_the_process() {
    let folder = std::env::temp_dir().join(format!("hapax-api-live-{}", std::process::id()));
    std::fs::create_dir_all(&folder).unwrap();
    let file = folder.join("token");
    std::fs::write(&file, "a-token-of-a-process\n").unwrap();
    std::fs::set_permissions(&file, std::os::unix::fs::PermissionsExt::from_mode(0o600)).unwrap();
    let config = format!("admin_token_file = {:?}\n{LIVE}", file.display().to_string());
    let Some(site) = Site::of_relay("token", &config) else { return };
    let admin = site.relay().admin();
    let ask = |headers: &str| http::ask(admin, "GET", WINDOW, headers, "").unwrap();
    assert_eq!(ask("").0, 401);
    assert_eq!(ask("Authorization: Bearer a-token-of-a-procesS\r\n").0, 401);
    assert_eq!(ask("Authorization: Bearer a-token-of-a-process\r\n").0, 200);
    assert_eq!(http::get(admin, "/metrics").unwrap().0, 200);
    let patch = r#"{"capacity": 7}"#;
    let headers = "Authorization: Bearer a-token-of-a-process\r\n";
    assert_eq!(http::ask(admin, "PATCH", WINDOW, headers, patch).unwrap().0, 200);
    let line = wait::until("the change is logged", wait::PATIENCE, || {
        site.relay().log().lines().find(|line| line.contains("capacity changed")).map(str::to_owned)
    });
    for part in ["hapax::admin", r#""by":"token""#, r#""window":"live""#, r#""from":5000"#, r#""to":7"#] {
        assert!(line.contains(part), "{part} in {line}");
    }
    assert!(!site.relay().log().contains("a-token-of"), "the token is logged");
    std::fs::remove_dir_all(&folder).unwrap();
}

/// The question "who sends these duplicates?" has an answer while they come: in the list, live, and per client.
#[test]
fn duplicates_are_shown_with_their_id_their_route_and_their_sender() {
    let Some(site) = Site::of_relay("drops", LIVE) else { return };
    let none = site.relay().api("GET", "/api/v1/drops", "");
    assert_eq!((none["drops"].as_array().map(Vec::len), number(&none, "last")), (Some(0), 0));
    let mut follower = TcpStream::connect(site.relay().admin()).unwrap();
    follower.set_read_timeout(Some(wait::PATIENCE)).unwrap();
    write!(follower, "GET /api/v1/drops/events HTTP/1.1\r\nHost: {}\r\n\r\n", site.relay().admin()).unwrap();
    let mut follower = BufReader::new(follower).lines().map(Result::unwrap);
    assert!(follower.any(|line| line == ": nothing"), "it follows from here on");

    let mut client = site.client();
    client.confirming(1);
    client.declare(1, "q", &[]);
    // An id that would write into a terminal, and into a list of another kind.
    let id = "order-17\u{1b}[2J\n\u{202e}";
    for _ in 0..20 {
        acked(&client.publish_and_settle(1, &Publish::to("q", id)));
    }
    let data = follower.find_map(|line| Some(line.strip_prefix("data: ")?.to_owned())).unwrap();
    let live: Value = serde_json::from_str(&data).unwrap();
    let list = site.relay().api("GET", "/api/v1/drops", "");
    let drops = list["drops"].as_array().unwrap();
    // A few a second of each connection, and the others are counted.
    assert!((4..=12).contains(&drops.len()), "{list}");
    let first = &drops[0];
    for (key, value) in [
        ("id", json!(id)),
        ("outcome", json!("dropped")),
        ("conflict", json!(false)),
        ("window", json!("live")),
        ("vhost", json!("drops")),
        ("exchange", json!("")),
        ("routing_key", json!("q")),
        ("user", json!("guest")),
        ("number", json!(1)),
    ] {
        assert_eq!((&first[key], &live[key]), (&value, &value), "{key} in {first}");
    }
    assert!(first["first_seen_seconds"].as_f64().unwrap() >= first["age_seconds"].as_f64().unwrap());
    assert_eq!(number(first, "duplicates"), 19, "how often, by now");
    let connections = site.relay().api("GET", "/api/v1/connections", "");
    assert_eq!(first["peer"], connections["connections"][0]["peer"]);
    assert_eq!(number(&connections["connections"][0], "duplicates"), 19);
    let after = site.relay().api("GET", &format!("/api/v1/drops?after={}", number(&list, "last")), "");
    assert_eq!(after["drops"], json!([]));
    // Nothing is made up for an id that the window has forgotten.
    site.relay().api("POST", &format!("{WINDOW}/flush"), "");
    let list = site.relay().api("GET", "/api/v1/drops?limit=1", "");
    assert_eq!(
        (&list["drops"][0]["duplicates"], &list["drops"][0]["first_seen_at"]),
        (&Value::Null, &Value::Null)
    );
    client.close();
}
