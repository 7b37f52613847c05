//! Sequences in Redis: `id = "sequence"` and `store = "redis"`.

use super::server::Server;
use super::{PATIENCE, REFUSE, Stage, assert_each_once, config, each_passes_once, ids, killed};
use crate::e2e::kills::Plan;
use crate::e2e::raw::{Publish, Raw, Told, Value};
use crate::e2e::retry::{self, Rng};
use crate::e2e::wait;
use std::collections::BTreeSet;
use std::thread;

const NUMBERS: &str = "id = \"sequence\"";

#[test]
fn two_relays_let_each_number_through_once() {
    let window = format!("{NUMBERS}\n{REFUSE}");
    let Some((redis, _relays)) = each_passes_once("redis-numbers", &window, 1_500) else { return };
    // (The name of the key is not text, so a script names it.)
    const BYTES: &str = "local sizes = {}
for at, key in ipairs(redis.call('KEYS', 'hapax:orders:*')) do sizes[at] = redis.call('MEMORY', 'USAGE', key) end
return sizes";
    let said = redis.cli(&["EVAL", BYTES, "0"]);
    let sizes: Vec<usize> = said.lines().map(|size| size.parse().expect("a size")).collect();
    assert!(matches!(sizes[..], [100..1_500]), "one producer, and nothing is in flight: {said}");
}

#[test]
fn no_number_that_was_acked_passes_again_whenever_a_relay_is_killed() {
    let window = format!("{NUMBERS}\n{REFUSE}");
    if let Some(outcome) =
        killed("kill-numbers", Plan { kills: retry::kills(60), acks: 1_000, other: None }, &window)
    {
        outcome.assert_nothing_is_forgotten();
    }
}

#[test]
fn a_cluster_holds_producers_in_the_slots_of_their_keys() {
    let mut servers = Server::cluster(0);
    let page = std::fs::read_to_string("docs/stores.md").unwrap();
    let (_, rights) = page.split_once("Its user needs `").expect("the page names the rights");
    let (rights, _) = rights.split_once('`').unwrap();
    let rights: Vec<&str> = rights.split(' ').chain(["+cluster|slots"]).collect();
    servers.iter().for_each(|server| server.add_user(&rights));
    let redis = format!("url = \"redis://hapax:PASSWORD@127.0.0.1:{}\"\nmode = \"cluster\"", servers[0].port);
    let Some(stage) = Stage::new("redis-cluster-numbers", 2, &config(&servers[0], &redis, NUMBERS)) else {
        return;
    };
    let ids: Vec<String> = (0..60).flat_map(|producer| ids(&format!("p{producer}"), 10)).collect();
    thread::scope(|scope| {
        for relay in [0, 1] {
            let (stage, ids) = (&stage, &ids);
            scope.spawn(move || stage.publish(relay, ids));
        }
    });
    assert_each_once(&stage.queue(), &ids);
    for server in &servers {
        let keys: usize = server.cli(&["DBSIZE"]).trim().parse().unwrap();
        assert!(keys > 5, "{keys} of 60 producers");
    }
    servers.pop();
}

/// A producer that is forgotten at one relay is unknown at the other, and in Redis.
#[test]
fn a_producer_is_forgotten_everywhere() {
    let redis = Server::start();
    let Some(stage) = Stage::new("redis-producers", 2, &config(&redis, &redis.url(), NUMBERS)) else {
        return;
    };
    let ids = ids("a", 20);
    stage.publish(0, &ids);
    stage.publish(1, &ids);
    assert_each_once(&stage.queue(), &ids);
    let producers = |relay: usize| stage.relays[relay].api("GET", "/api/v1/windows/orders/producers", "");
    let one = producers(1)["producers"][0].clone();
    assert_eq!(one["highest"], 19);
    stage.relays[1].api(
        "DELETE",
        &format!("/api/v1/windows/orders/producers/{}", one["key"].as_str().unwrap()),
        "",
    );
    wait::until("it is forgotten at the other one", PATIENCE, || {
        (producers(0)["entries"] == 0).then_some(())
    });
    stage.publish(0, &ids);
    assert_each_once(&stage.queue(), &ids);
}

/// One call of the script, by hand.
fn call(redis: &Server, what: &str, number: u64, more: &[&str]) -> String {
    let script = include_str!("../../../src/store/redis/sequence.lua");
    let digits = [0, number, number + 1].map(|number| format!("{number:016x}"));
    let (chunk, place) = ((number / 1024).to_string(), (number % 1024).to_string());
    let mut call =
        vec!["EVAL", script, "1", "producer", what, &digits[0], &digits[1], &digits[2], &chunk, &place, "0"];
    call.extend(more);
    redis.cli(&call)
}

/// The script against a set: it never says stored of a number that is not, and it knows what lies within its chunks.
#[test]
fn the_script_says_stored_of_nothing_that_is_not() {
    let redis = Server::start();
    let mut dice = Rng::seeded("the_script_says_stored_of_nothing_that_is_not");
    let (mut stored, mut next) = (BTreeSet::new(), 900_u64 + dice.below(200));
    let is_stored = |number: u64| {
        let said = call(&redis, "R", number, &["lease", "10000", "0", "", "0"]);
        call(&redis, "X", number, &["lease"]);
        match said.lines().next() {
            Some("D") => true,
            Some("F") => false,
            _ => panic!("{number}: {said}"),
        }
    };
    for step in 0..250 {
        let number = match dice.below(12) {
            0 => next + dice.below(700),
            1 => next + 1_024 * dice.below(4),
            2 if dice.below(20) == 0 => next + 1_024 * 40,
            3 => next.saturating_sub(dice.below(3_000)),
            _ => next,
        };
        match dice.below(9) {
            0 => {
                call(&redis, "U", number, &[]);
                stored.remove(&number);
            }
            _ => {
                call(&redis, "C", number, &["600000"]);
                stored.insert(number);
                next = next.max(number + 1);
            }
        }
        let near = next.saturating_sub(1 + dice.below(2_000));
        for asked in [number, near, number + 1, number.saturating_sub(1)] {
            let says = is_stored(asked);
            assert!(!says || stored.contains(&asked), "step {step}: {asked} was not stored");
        }
        // The last chunks are known. (A jump that is too far begins anew.)
        let is_known = number / 1024 + 12 > next / 1024 && number < next;
        assert!(!is_known || is_stored(number) == stored.contains(&number), "step {step}: {number}");
    }
    let bytes: usize = redis.cli(&["MEMORY", "USAGE", "producer"]).trim().parse().unwrap();
    assert!(bytes < 8_000, "{bytes}");
}

/// A chunk that is full takes no bytes.
#[test]
fn a_dense_producer_is_small_in_redis() {
    let redis = Server::start();
    for number in 0..2_100 {
        call(&redis, "C", number, &["600000"]);
    }
    let fields = redis.cli(&["HKEYS", "producer"]);
    assert_eq!(fields.lines().filter(|field| field.starts_with('c')).count(), 1, "{fields}");
    assert!(call(&redis, "R", 5, &["lease", "10000", "0", "", "0"]).starts_with('D'));
    assert!(call(&redis, "R", 2_100, &["lease", "10000", "0", "", "0"]).starts_with('F'));
}

/// Epochs, gaps and leases, as the script answers.
#[test]
fn the_script_keeps_leases_apart() {
    let redis = Server::start();
    let lease = |number: u64, value: &str, life: &str, keep: &str, from: &str| {
        let said = call(&redis, "R", number, &[value, life, keep, from, "1"]);
        said.lines().take(2).collect::<Vec<_>>().join(" ")
    };
    assert_eq!(lease(1, "one", "10000", "0", ""), "F 0");
    assert_eq!(lease(1, "two", "10000", "0", ""), "L one");
    assert_eq!(lease(3, "two", "10000", "0", ""), "G", "nobody has let 2 through");
    assert_eq!(lease(2, "two", "10000", "0", ""), "F 0");
    // Only its own lease is given back, and it may be replaced by who knows it.
    call(&redis, "X", 1, &["two"]);
    assert_eq!(lease(1, "two", "10000", "0", ""), "L one");
    assert_eq!(lease(1, "two", "10000", "0", "one"), "F 0");
    assert_eq!(call(&redis, "W", 1, &["one", "10000", "0", "", "1"]).lines().next(), Some("L"));
    call(&redis, "X", 1, &["two"]);
    // It has ended, and counts as stored, because its relay keeps what is in doubt.
    assert_eq!(lease(1, "one", "1", "60000", ""), "F 0");
    wait::until("the lease has ended", PATIENCE, || {
        lease(1, "two", "10000", "0", "").starts_with("D ").then_some(())
    });
    // A stored number stays stored, also if somebody else has the lease by now.
    call(&redis, "C", 2, &["600000"]);
    assert!(lease(2, "three", "10000", "0", "").starts_with("D "));
    call(&redis, "P", 0, &[]);
    assert_eq!(lease(7, "one", "10000", "0", ""), "F 0", "a producer that is not known may begin anywhere");
}

/// Headers of a number of the producer `p`.
fn headers(epoch: i64, number: i64) -> [(&'static str, Value<'static>); 3] {
    let producer = ("x-hapax-producer", Value::Text("p"));
    [producer, ("x-hapax-sequence", Value::Long(number)), ("x-hapax-epoch", Value::Long(epoch))]
}

/// A relay stands still with a number in its hands for longer than its lease. Meanwhile the number passes at the other relay, and a process
/// of a higher epoch begins there. When the relay wakes, it takes back nothing of that, and its own client is a zombie.
#[test]
fn a_relay_that_was_paused_takes_nothing_back() {
    let redis = Server::start();
    let window = format!("{NUMBERS}\n{REFUSE}");
    let Some(stage) = Stage::new("redis-paused-numbers", 2, &config(&redis, &redis.url(), &window)) else {
        return;
    };
    let mut clients: Vec<Raw> =
        stage.relays.iter().map(|relay| Raw::connect(relay.addr(), &stage.vhost)).collect();
    clients.iter_mut().for_each(|client| client.confirming(1));
    let publish = |client: &mut Raw, epoch, number: i64| {
        let id = format!("{epoch}-{number}");
        client.publish(
            1,
            &Publish { headers: &headers(epoch, number), persistent: true, ..Publish::to("q", &id) },
        );
        client.next(1)
    };
    let is_acked = |told: Told| matches!(told, Told::Ack { .. });
    assert!(is_acked(publish(&mut clients[0], 1, 1)));
    // Its publish has gone to Redis and perhaps to the broker, and nobody hears of it.
    let id = Publish { persistent: true, ..Publish::to("q", "1-2") };
    clients[0].publish(1, &Publish { headers: &headers(1, 2), ..id });
    stage.relays[0].stand_still();
    assert!(is_acked(publish(&mut clients[1], 1, 1)));
    assert!(is_acked(publish(&mut clients[1], 1, 2)), "when the lease is over, or it was stored");
    assert!(is_acked(publish(&mut clients[1], 1, 3)));
    assert!(is_acked(publish(&mut clients[1], 2, 1)), "a new epoch");
    stage.relays[0].carry_on();
    let told = clients[0].next(1);
    assert!(is_acked(told.clone()) || matches!(told, Told::ChannelClosed { code: 406, .. }), "{told:?}");
    if is_acked(told) {
        let told = publish(&mut clients[0], 1, 4);
        assert!(matches!(told, Told::ChannelClosed { code: 406, .. }), "{told:?}");
    }
    // What the new epoch has stored is known at both, and what it has not is not.
    clients[0] = Raw::connect(stage.relays[0].addr(), &stage.vhost);
    clients[0].confirming(1);
    for client in &mut clients {
        assert!(is_acked(publish(client, 2, 1)));
        assert!(is_acked(publish(client, 2, 2)));
    }
    let held = stage.queue();
    for id in ["1-1", "1-3", "2-1", "2-2"] {
        assert_eq!(held.get(id), Some(&1), "{id}: {held:?}");
    }
    assert!(held["1-2"] <= 2 && !held.contains_key("1-4"), "{held:?}");
}

/// What is no number is forwarded as a message without an id: nothing of it is remembered. Numbers at the ends of what there is are judged.
#[test]
fn numbers_at_their_ends_are_judged_in_redis() {
    let redis = Server::start();
    let Some(stage) = Stage::new("redis-ends", 1, &config(&redis, &redis.url(), NUMBERS)) else { return };
    let mut client = Raw::connect(stage.relays[0].addr(), &stage.vhost);
    client.confirming(1);
    for number in [0, i64::MAX, 1, i64::MAX - 1, 1 << 53, (1 << 53) + 1] {
        for _ in 0..2 {
            let id = number.to_string();
            let told = client.publish_and_settle(
                1,
                &Publish { headers: &headers(i64::MAX, number), ..Publish::to("q", &id) },
            );
            assert!(matches!(told[..], [Told::Ack { .. }]), "{told:?}");
        }
    }
    let held = stage.queue();
    // A jump of more than 17,000 numbers makes Redis forget those before it.
    println!("{held:?}");
    assert_eq!(held.len(), 6, "nothing is lost: {held:?}");
    assert_eq!((held["0"], held[&i64::MAX.to_string()]), (1, 1), "{held:?}");
    for no_number in
        [Value::Long(-1), Value::Bool(true), Value::Text("1.5"), Value::Text("18446744073709551615")]
    {
        let headers = [("x-hapax-producer", Value::Text("p")), ("x-hapax-sequence", no_number)];
        for _ in 0..2 {
            client.publish_and_settle(1, &Publish { headers: &headers, ..Publish::to("q", "no") });
        }
    }
    assert_eq!(stage.queue().get("no"), Some(&8));
}
