//! A user without the right gets the same answer for a known id and for an unknown one: the broker's own words.

use super::script::{
    Differences, channel_open, confirm_select, frame, logged_in, qos, to_the_close, tx_commit, tx_select,
};
use super::stage::{Settled, Stage, Who, settle_all};
use crate::e2e::raw::{Publish, Value};

/// A script on channel 1, which is open, about a message.
struct Script {
    name: &'static str,
    /// what the broker says to it, somewhere
    says: &'static str,
    octets: fn(&Publish<'_>) -> Vec<u8>,
}

const SCRIPTS: &[Script] = &[
    Script { name: "a publish", says: "channel.close 403", octets: |publish| publish.encode(1, 4096) },
    Script {
        name: "a publish, then qos",
        says: "channel.close 403",
        octets: |publish| [publish.encode(1, 4096), qos(1)].concat(),
    },
    Script {
        name: "qos, confirm, two publishes, qos",
        says: "channel.close 403",
        octets: |publish| {
            let publish = publish.encode(1, 4096);
            [qos(1), confirm_select(1), publish.clone(), publish, qos(1)].concat()
        },
    },
    Script {
        name: "a mandatory publish",
        says: "channel.close 403",
        octets: |publish| publish.clone().mandatory().encode(1, 4096),
    },
    Script {
        name: "a bypassed publish",
        says: "channel.close 403",
        octets: |publish| {
            let headers = &[("x-hapax-bypass", Value::Bool(true))];
            Publish { headers, ..publish.clone() }.encode(1, 4096)
        },
    },
    Script {
        name: "a transaction",
        says: "channel.close 403",
        octets: |publish| [tx_select(1), publish.encode(1, 4096), tx_commit(1)].concat(),
    },
    Script {
        name: "a body in pieces, another channel between them",
        says: "channel.close 403",
        octets: |publish| {
            let (front, back) = publish.body.split_at(2);
            let begin = [publish.method(1), publish.header(1), frame(3, 1, front)].concat();
            [begin, channel_open(2), qos(2), frame(3, 1, back)].concat()
        },
    },
    Script {
        name: "a method where a header must be",
        says: "connection.close 505",
        octets: |publish| [publish.method(1), qos(1)].concat(),
    },
    Script {
        name: "a method within a body",
        says: "connection.close 505",
        octets: |publish| [publish.method(1), publish.header(1), frame(3, 1, b"x"), qos(1)].concat(),
    },
    Script {
        name: "a publish within a body",
        says: "connection.close 505",
        octets: |publish| [publish.method(1), publish.header(1), publish.method(1)].concat(),
    },
    Script {
        name: "a header within a body",
        says: "connection.close 505",
        octets: |publish| [publish.method(1), publish.header(1), publish.header(1)].concat(),
    },
    Script {
        name: "more body than was announced",
        // 505, from RabbitMQ 4.3 on 501
        says: "connection.close 50",
        octets: |publish| [publish.method(1), publish.header(1), frame(3, 1, &[b'x'; 400]), qos(1)].concat(),
    },
    Script {
        name: "a channel that is opened twice",
        says: "connection.close 504",
        octets: |publish| [publish.encode(1, 4096), channel_open(1)].concat(),
    },
];

/// Whom, and where to.
const TARGETS: [(Who, &str, &str); 5] = [
    (Who::None, "", "q"),
    (Who::None, "open", "key"),
    (Who::Some, "shut", "key"),
    (Who::Topic, "topics", "a.key"),
    (Who::None, "no such exchange", "key"),
];

/// Both ids, each as often as there are targets where it can be known.
fn make_known(stage: &Stage) {
    let known: Vec<_> = TARGETS[..4]
        .iter()
        .map(|(_, exchange, key)| Publish { exchange, ..Publish::to(key, "known") })
        .collect();
    assert_eq!(settle_all(&mut stage.client(Who::All), 1, &known), Settled::acked(4));
}

/// Compares the answers of broker and relay for both ids, with this `channel_max`, and with these channels open beside the first.
fn compare(stage: &Stage, channel_max: u16, also: &[u16], scripts: &[Script]) {
    let mut differences = Differences::default();
    for (who, exchange, key) in TARGETS {
        for Script { name, says, octets } in scripts {
            let hear = |addr, id| {
                let publish = Publish { exchange, ..Publish::to(key, id) };
                let mut client = logged_in(addr, &stage.user(who), &stage.site.vhost, channel_max);
                client.open_channel(1);
                also.iter().for_each(|channel| client.open_channel(*channel));
                let mut said = to_the_close(&mut client, &octets(&publish), 1);
                // Which of its processes is first decides what the broker says on a channel before it closes all.
                if said.iter().any(|line| line.contains("connection.close")) {
                    said.retain(|line| !line.starts_with("channel 1:"));
                }
                said
            };
            let theirs = hear(stage.site.rabbit.addr(), "known");
            differences.expect(name, says, &theirs);
            for id in ["known", "not known"] {
                let name = format!("{who:?} to {exchange:?} {key:?}: {name}, an id that is {id}");
                differences.compare(&name, &theirs, &hear(stage.site.addr(), id));
            }
        }
    }
    differences.none();
}

#[test]
fn n04_a_known_id_and_an_unknown_one_are_refused_alike() {
    let mut stage = Stage::new("n04-scripts", "");
    make_known(&stage);
    compare(&stage, 100, &[], SCRIPTS);
    assert_eq!(stage.stored(), ["known"; 4], "nothing of it was stored");
}

/// Two channels were agreed on, and both are open.
#[test]
fn n04_nor_can_they_be_told_apart_when_all_channels_are_open() {
    let stage = Stage::new("n04-full", "");
    make_known(&stage);
    compare(&stage, 2, &[2], &SCRIPTS[..2]);
}

/// Checks the relay's answers for both ids where a window takes the id from another place, or publishes to another one.
fn told_apart(stage: &Stage, who: Who, publishes: [&Publish<'_>; 2], says: &str) {
    let mut differences = Differences::default();
    for script in SCRIPTS {
        let [known, unknown] = publishes.map(|publish| {
            let mut client = logged_in(stage.site.addr(), &stage.user(who), &stage.site.vhost, 100);
            client.open_channel(1);
            let mut said = to_the_close(&mut client, &(script.octets)(publish), 1);
            if said.iter().any(|line| line.contains("connection.close")) {
                said.retain(|line| !line.starts_with("channel 1:"));
            }
            said
        });
        let says = if script.says == "channel.close 403" { says } else { script.says };
        differences.expect(script.name, says, &known);
        differences.compare(script.name, &unknown, &known);
    }
    differences.none();
}

#[test]
fn n04_nor_where_the_id_is_the_body() {
    let config = "[[window]]\nname = \"w\"\nid = \"body\"\n";
    let Some(mut stage) = Stage::of_relay("n04-body", config) else { return };
    let [known, unknown] = ["known", "other"].map(|id| Publish { id: None, ..Publish::to("q", id) });
    assert_eq!(settle_all(&mut stage.client(Who::All), 1, std::slice::from_ref(&known)), Settled::acked(1));
    told_apart(&stage, Who::None, [&known, &unknown], "channel.close 403");
    assert_eq!(stage.held("q"), 1);
}

#[test]
fn n04_nor_where_the_id_is_a_header() {
    let config = "[[window]]\nname = \"w\"\nid = \"header:key\"\n";
    let Some(mut stage) = Stage::of_relay("n04-header", config) else { return };
    let tables = ["known", "other"].map(|key| [("key", Value::Text(key))]);
    let [known, unknown] =
        [0, 1].map(|n| Publish { headers: &tables[n], id: None, ..Publish::to("q", "alike") });
    assert_eq!(settle_all(&mut stage.client(Who::All), 1, std::slice::from_ref(&known)), Settled::acked(1));
    told_apart(&stage, Who::None, [&known, &unknown], "channel.close 403");
    assert_eq!(stage.held("q"), 1);
}

/// The right that counts is the one to the exchange that is published to in the end.
#[test]
fn n04_nor_where_a_window_publishes_elsewhere() {
    let config = "[[window]]\nname = \"w\"\nexchange = \"open\"\nforward_to = \"shut\"\n";
    let Some(mut stage) = Stage::of_relay("n04-elsewhere", config) else { return };
    let [known, unknown] =
        ["known", "other"].map(|id| Publish { exchange: "open", ..Publish::to("key", id) });
    assert_eq!(settle_all(&mut stage.client(Who::All), 1, std::slice::from_ref(&known)), Settled::acked(1));
    told_apart(&stage, Who::Some, [&known, &unknown], "access to exchange 'shut'");
    assert_eq!(stage.held("q"), 1);
}
