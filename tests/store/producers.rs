//! `hapax producers list`, `show` and `forget` with each store: what an operator sees, also after a restart, and what a producer that was
//! forgotten may publish.

use super::redis::server::Server;
use crate::e2e::raw::{Publish, Raw, Told, Value};
use crate::e2e::relay::Relay;
use crate::e2e::retry;
use crate::e2e::site::{shared_rabbit, without_relay};
use crate::e2e::wait::{self, PATIENCE};
use hapax_testbed::Leash;
use std::process::{Command, Stdio};

/// One line of the table.
struct Case {
    store: &'static str,
    /// the lines above the window
    top: String,
    /// producers are in the store when the process is gone
    outlives: bool,
    /// the relay has not read them all: it asks about each number
    asks: bool,
}

/// The two outputs of a command.
struct Said {
    code: Option<i32>,
    out: String,
    remarks: String,
}

/// One of the commands, of the window `orders` of this relay.
fn producers(relay: &Relay, arguments: &[&str]) -> Said {
    let mut command = Command::new(env!("CARGO_BIN_EXE_hapax"));
    let output = command
        .args(["producers", arguments[0], "orders"])
        .args(&arguments[1..])
        .env("HAPAX_ADMIN_URL", format!("http://{}", relay.admin()))
        .stdin(Stdio::null())
        .output()
        .unwrap();
    let text = |octets| String::from_utf8(octets).unwrap();
    Said { code: output.status.code(), out: text(output.stdout), remarks: text(output.stderr) }
}

/// Forgets a producer that is known.
fn forget(relay: &Relay, key: &str) {
    let Said { out, remarks, .. } = producers(relay, &["forget", key]);
    assert!(out.contains("all of its numbers get through"), "{out}{remarks}");
}

/// The words of the only producer in the list: its name or `-`, its key, its epoch, its highest number.
fn only(relay: &Relay) -> [String; 4] {
    let said = producers(relay, &["list"]);
    let lines: Vec<&str> = said.out.lines().collect();
    let [_, line] = &lines[..] else { panic!("{}{}", said.out, said.remarks) };
    let mut words = line.split_whitespace().map(str::to_owned);
    [(); 4].map(|()| words.next().unwrap())
}

/// Publishes numbers of `p` in this epoch. Each is acked. The message says which one it was.
fn publish(relay: &Relay, vhost: &str, epoch: i64, numbers: &[i64]) {
    let mut client = Raw::connect(relay.addr(), vhost);
    client.confirming(1);
    for (tag, number) in (1..).zip(numbers) {
        let headers = [
            ("x-hapax-producer", Value::Text("p")),
            ("x-hapax-sequence", Value::Long(*number)),
            ("x-hapax-epoch", Value::Long(epoch)),
        ];
        let id = format!("{epoch}-{number}");
        let told = client
            .publish_and_settle(1, &Publish { headers: &headers, persistent: true, ..Publish::to("q", &id) });
        assert_eq!(told, [Told::Ack { tag, multiple: false }], "{id}");
    }
}

/// Kills the relay when its store has all that it was told, and starts it again.
fn restart(relay: &mut Relay, store: &str) {
    wait::until("all is written", PATIENCE, || {
        let window = relay.api("GET", "/api/v1/windows/orders", "");
        (store == "memory" || window["store"]["waiting_records"] == 0).then_some(())
    });
    relay.restart();
}

/// How often each message is in the queue. Empties it.
fn held(vhost: &str) -> Vec<(String, usize)> {
    let mut direct = Raw::connect(shared_rabbit().addr(), vhost);
    direct.open_channel(1);
    retry::held(&mut direct, "q").into_iter().collect()
}

fn once(ids: &[&str]) -> Vec<(String, usize)> {
    ids.iter().map(|id| ((*id).to_owned(), 1)).collect()
}

fn run(case: &Case) {
    let Case { store, top, outlives, asks } = case;
    println!("--- {store}");
    let vhost = format!("producers-{store}");
    shared_rabbit().add_vhost(&vhost).unwrap();
    let mut direct = Raw::connect(shared_rabbit().addr(), &vhost);
    direct.open_channel(1);
    direct.declare(1, "q", &[]);
    let config = format!(
        "{top}\n[[window]]\nname = \"orders\"\nid = \"sequence\"\nttl = \"1h\"\nstore = \"{store}\"\nremember = \"sync\"\n"
    );
    let config = if *store == "memory" { config.replace("remember = \"sync\"\n", "") } else { config };
    let mut relay = Relay::start(shared_rabbit().addr(), &config);

    publish(&relay, &vhost, 5, &[1, 2, 3, 3]);
    assert_eq!(held(&vhost), once(&["5-1", "5-2", "5-3"]));
    let [name, key, epoch, highest] = only(&relay);
    assert_eq!([&*name, &*epoch, &*highest], ["p", "5", "3"]);
    let shown = producers(&relay, &["show", &key]);
    assert!(shown.code == Some(0) && shown.out.contains("name        p\n"), "{}{}", shown.out, shown.remarks);

    restart(&mut relay, store);
    let list = producers(&relay, &["list"]);
    let may_know_more = |said: &Said| said.remarks.contains("its store may know more");
    assert_eq!(may_know_more(&list), *asks, "{}{}", list.out, list.remarks);
    let is_listed = list.out.contains(&key);
    assert_eq!(is_listed, *outlives && !asks, "{}", list.out);
    assert!(
        list.remarks.contains(&format!("{0} shown of {0} remembered", u8::from(is_listed))),
        "{}",
        list.remarks
    );
    let shown = producers(&relay, &["show", &key]);
    assert_eq!(shown.code, Some(if is_listed { 0 } else { 1 }), "{}{}", shown.out, shown.remarks);
    assert_eq!(shown.remarks.contains("its store may"), *asks, "{}", shown.remarks);

    publish(&relay, &vhost, 5, &[3, 4]);
    let again = if *outlives { once(&["5-4"]) } else { once(&["5-3", "5-4"]) };
    assert_eq!(held(&vhost), again);
    // (Without a store, each process has a secret of its own.)
    let [name, now, epoch, highest] = only(&relay);
    assert_eq!((&*name, &*epoch, &*highest, now == key), ("p", "5", "4", *outlives));
    let key = now;

    // Forgotten, its numbers get through, and so does a lower epoch.
    forget(&relay, &key);
    publish(&relay, &vhost, 2, &[3, 3]);
    assert_eq!(held(&vhost), once(&["2-3"]));
    forget(&relay, &key);
    publish(&relay, &vhost, 1, &[9]);
    assert_eq!(held(&vhost), once(&["1-9"]));

    // It is forgotten in the store, too, whether the relay has it in memory or not.
    forget(&relay, &key);
    restart(&mut relay, store);
    publish(&relay, &vhost, 1, &[9]);
    assert_eq!(held(&vhost), once(&["1-9"]));
    restart(&mut relay, store);
    let forgotten = producers(&relay, &["forget", &key]);
    let is_known = if *outlives { "all of its numbers get through" } else { "was not known" };
    assert!(forgotten.out.contains(is_known), "{}{}", forgotten.out, forgotten.remarks);
    assert_eq!(forgotten.out.contains("its store forgets it, too"), *asks, "{}", forgotten.out);
    publish(&relay, &vhost, 0, &[9]);
    assert_eq!(held(&vhost), once(&["0-9"]));
}

#[test]
fn producers_are_listed_shown_and_forgotten_with_each_store() {
    if without_relay() {
        return;
    }
    let (redis, state) = (Server::start(), Leash::new("producers").unwrap());
    let folder = |name: &str| format!("state_dir = \"{}\"", state.folder().join(name).display());
    shared_rabbit().add_vhost("producers-log").unwrap();
    let stream =
        format!("[store.stream]\nuri = \"amqp://guest:guest@{}/producers-log\"", shared_rabbit().addr());
    let case = |store, top, outlives, asks| Case { store, top, outlives, asks };
    for case in [
        case("memory", String::new(), false, false),
        case("disk", folder("disk"), true, false),
        case("stream", format!("{}\n{stream}", folder("stream")), true, false),
        case(
            "redis",
            format!("digest_secret_file = \"{}\"\n[store.redis]\n{}", redis.secret().display(), redis.url()),
            true,
            true,
        ),
    ] {
        run(&case);
    }
}
