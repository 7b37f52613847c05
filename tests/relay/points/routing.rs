//! `verify_routing`: seen means that a queue took it. Whatever leads a message to its queue, the second publish of an id that no
//! queue has taken goes through, the third is a duplicate, and the publisher hears nothing but acks.

use super::acked;
use crate::e2e::raw::{Publish, Raw, Told, Value};
use crate::e2e::site::Site;
use crate::e2e::wait::{self, PATIENCE};
use amq_protocol::protocol::{AMQPClass, basic, exchange};
use amq_protocol::types::{AMQPValue, FieldTable};

fn declare(client: &mut Raw, name: &str, kind: &str, alternate: Option<&str>, internal: bool) {
    let mut arguments = FieldTable::default();
    if let Some(alternate) = alternate {
        arguments.insert("alternate-exchange".into(), AMQPValue::LongString(alternate.into()));
    }
    let declare = exchange::Declare {
        exchange: name.into(),
        kind: kind.into(),
        internal,
        arguments,
        ..exchange::Declare::default()
    };
    client.call(1, &AMQPClass::Exchange(exchange::AMQPMethod::Declare(declare))).unwrap();
}

fn bind(client: &mut Raw, queue: &str, exchange: &str, key: &str) {
    let arguments = [("kind", AMQPValue::LongString("wanted".into()))];
    client.bind(1, queue, (exchange, key), &arguments);
}

/// Loads the plugin of Debian's package. Returns false if there is none.
fn has_consistent_hash(site: &Site) -> bool {
    let load = "App = rabbitmq_consistent_hash_exchange, \
         {ok, Dirs} = application:get_env(rabbit, plugins_dir), \
         Found = [Path || Dir <- string:tokens(Dirs, \":\"), \
                          Path <- filelib:wildcard(Dir ++ \"/\" ++ atom_to_list(App) ++ \"-*/ebin\")], \
         code:add_pathsa(Found), \
         case application:load(App) of \
           ok -> rabbit_boot_steps:run_boot_steps([App]), loaded; \
           {error, {already_loaded, App}} -> loaded; \
           {error, Reason} -> {none, Reason} \
         end.";
    site.rabbit.eval(load).unwrap().contains("loaded")
}

/// A way to a queue.
struct Way {
    name: &'static str,
    exchange: &'static str,
    key: &'static str,
    /// makes everything but the last step
    prepare: fn(&mut Raw),
    /// the last step: from now on, `queue` takes it
    open: fn(&mut Raw),
    queue: &'static str,
}

fn nothing(_: &mut Raw) {}

const WAYS: [Way; 8] = [
    Way {
        name: "the default exchange",
        exchange: "",
        key: "plain",
        prepare: nothing,
        open: |client| client.declare(1, "plain", &[]),
        queue: "plain",
    },
    Way {
        name: "a topic exchange, one of several bindings",
        exchange: "topic",
        key: "a.b.c",
        prepare: |client| {
            declare(client, "topic", "topic", None, false);
            client.declare(1, "by-topic", &[]);
            client.declare(1, "other", &[]);
            bind(client, "other", "topic", "x.#");
            bind(client, "other", "topic", "a.*");
        },
        open: |client| bind(client, "by-topic", "topic", "a.#"),
        queue: "by-topic",
    },
    Way {
        name: "a fanout",
        exchange: "fanout",
        key: "any",
        prepare: |client| {
            declare(client, "fanout", "fanout", None, false);
            client.declare(1, "fan-one", &[]);
            client.declare(1, "fan-two", &[]);
        },
        open: |client| {
            bind(client, "fan-one", "fanout", "");
            bind(client, "fan-two", "fanout", "");
        },
        queue: "fan-two",
    },
    Way {
        name: "an alternate exchange",
        exchange: "main",
        key: "k",
        prepare: |client| {
            declare(client, "alternate", "fanout", None, false);
            declare(client, "main", "direct", Some("alternate"), false);
            client.declare(1, "stray", &[]);
        },
        open: |client| bind(client, "stray", "alternate", ""),
        queue: "stray",
    },
    Way {
        name: "a binding between exchanges",
        exchange: "source",
        key: "k",
        prepare: |client| {
            declare(client, "source", "direct", None, false);
            declare(client, "inner", "fanout", None, true);
            client.declare(1, "inmost", &[]);
            bind(client, "inmost", "inner", "");
        },
        open: |client| {
            let bind = exchange::Bind {
                destination: "inner".into(),
                source: "source".into(),
                routing_key: "k".into(),
                ..exchange::Bind::default()
            };
            client.call(1, &AMQPClass::Exchange(exchange::AMQPMethod::Bind(bind))).unwrap();
        },
        queue: "inmost",
    },
    Way {
        name: "a headers exchange",
        exchange: "amq.headers",
        key: "",
        prepare: |client| client.declare(1, "by-header", &[]),
        open: |client| bind(client, "by-header", "amq.headers", ""),
        queue: "by-header",
    },
    Way {
        name: "a quorum queue",
        exchange: "amq.direct",
        key: "quorum",
        prepare: |client| {
            client.declare(1, "quorum", &[("x-queue-type", AMQPValue::LongString("quorum".into()))]);
        },
        open: |client| bind(client, "quorum", "amq.direct", "quorum"),
        queue: "quorum",
    },
    Way {
        name: "a consistent-hash exchange",
        exchange: "hash",
        key: "k",
        prepare: |client| {
            declare(client, "hash", "x-consistent-hash", None, false);
            client.declare(1, "hashed", &[]);
        },
        open: |client| bind(client, "hashed", "hash", "1"),
        queue: "hashed",
    },
];

#[test]
fn p01_what_no_queue_took_is_not_seen_whatever_the_way_to_the_queue() {
    let Some(site) = Site::of_relay("p01-routing", "") else { return };
    let has_hash = has_consistent_hash(&site);
    println!("consistent-hash exchange: {has_hash}");
    let (mut direct, mut client) = (site.direct(), site.client());
    direct.open_channel(1);
    client.confirming(1);
    let mut unroutable = 0.0;
    for Way { name, exchange, key, prepare, open, queue } in WAYS {
        if exchange == "hash" && !has_hash {
            continue;
        }
        println!("{name}");
        prepare(&mut direct);
        let headers = [("kind", Value::Text("wanted"))];
        let message = Publish { exchange, key, headers: &headers, ..Publish::to("", "a") };
        acked(&client.publish_and_settle(1, &message));
        acked(&client.publish_and_settle(1, &message));
        unroutable += 2.0;
        open(&mut direct);
        acked(&client.publish_and_settle(1, &message));
        acked(&client.publish_and_settle(1, &message));
        assert_eq!(direct.drain(1, queue), ["a"], "{name}");
        assert_eq!(site.metrics().sum("forgotten_total", &[("cause", "unroutable")]), unroutable, "{name}");
    }
    assert_eq!(site.metrics().sum("forgotten_total", &[("cause", "returned")]), 0.0);
}

/// The same on a channel without confirms, in a transaction, and where Hapax selects no confirms itself.
#[test]
fn p01_what_no_queue_took_is_not_seen_however_the_channel_hears_of_it() {
    let plain = "[[window]]\nname = \"w\"\n";
    let modes = [("shadow", plain.to_owned(), false), ("tx", plain.to_owned(), true)];
    let client_only = ("client-only", format!("{plain}confirms = \"client-only\"\n"), false);
    for (mode, config, tx) in modes.into_iter().chain([client_only]) {
        println!("{mode}");
        let Some(site) = Site::of_relay(&format!("p01-routing-{mode}"), &config) else { return };
        let (mut direct, mut client) = (site.direct(), site.client());
        direct.open_channel(1);
        client.open_channel(1);
        if tx {
            client.tx_select(1).unwrap();
        }
        let publish = |client: &mut Raw| {
            client.publish(1, &Publish::to("later", "a"));
            if tx {
                client.tx_commit(1).unwrap();
            }
        };
        publish(&mut client);
        // (On its own channel, so the broker has looked at the message by then.)
        client.declare(1, "later", &[]);
        publish(&mut client);
        wait::until("the second is stored", PATIENCE, || (direct.drain(1, "later") == ["a"]).then_some(()));
        publish(&mut client);
        client.declare(1, "marker", &[]);
        assert_eq!(direct.drain(1, "later"), [""; 0], "{mode}: the third is a duplicate");
        let duplicates = site.metrics().sum("publishes_total", &[("verdict", "duplicate")]);
        assert_eq!(duplicates, 1.0, "{mode}");
    }
}

/// RabbitMQ 3.10 returns a mandatory reply to a direct reply-to, and delivers it. It is seen all the same.
#[test]
fn p01_direct_replies_are_seen() {
    let Some(site) = Site::of_relay("p01-reply-to", "") else { return };
    let (mut direct, mut requester, mut responder) = (site.direct(), site.client(), site.client());
    direct.open_channel(1);
    direct.declare(1, "requests", &[]);
    requester.confirming(1);
    responder.confirming(1);
    let consume =
        basic::Consume { queue: "amq.rabbitmq.reply-to".into(), no_ack: true, ..basic::Consume::default() };
    requester.call(1, &AMQPClass::Basic(basic::AMQPMethod::Consume(consume))).unwrap();
    let request = Publish { reply_to: Some("amq.rabbitmq.reply-to"), ..Publish::to("requests", "request") };
    acked(&requester.publish_and_settle(1, &request));
    let asked = responder.get(1, "requests").unwrap();
    let address = String::from_utf8(asked.property(9).unwrap().to_vec()).unwrap();
    assert!(address.starts_with("amq.rabbitmq.reply-to."), "{address}");
    for _ in 0..2 {
        acked(&responder.publish_and_settle(1, &Publish::to(&address, "answer")));
    }
    assert!(matches!(requester.next(1), Told::Delivered { message, .. } if message.id() == Some(b"answer")));
    acked(&requester.publish_and_settle(1, &Publish::to("requests", "next")));
    assert_eq!(site.metrics().sum("publishes_total", &[("verdict", "duplicate")]), 1.0, "the second answer");
}

/// The broker refuses a publish to an internal exchange, and says so.
#[test]
fn p01_an_internal_exchange_refuses_as_ever() {
    let Some(site) = Site::of_relay("p01-internal", "") else { return };
    let (mut direct, mut client) = (site.direct(), site.client());
    direct.open_channel(1);
    declare(&mut direct, "inside", "fanout", None, true);
    client.confirming(1);
    let told = client.publish_and_settle(1, &Publish { exchange: "inside", ..Publish::to("", "a") });
    assert!(matches!(&told[..], [Told::ChannelClosed { code: 403, .. }]), "{told:?}");
    assert_eq!(site.metrics().sum("window_in_flight", &[]), 0.0);
}

/// Returns that the client has asked for and those of Hapax, on one channel with deliveries.
#[test]
fn p04_the_client_hears_of_its_own_returns_only() {
    let Some(site) = Site::of_relay("p04-own-returns", "") else { return };
    let mut client = site.client();
    client.confirming(1);
    client.declare(1, "q", &[]);
    let consume = basic::Consume { queue: "q".into(), no_ack: true, ..basic::Consume::default() };
    client.call(1, &AMQPClass::Basic(basic::AMQPMethod::Consume(consume))).unwrap();
    let (ids, long): (Vec<String>, _) = ((0..60).map(|n| format!("{n}")).collect(), vec![b'x'; 300_000]);
    let mut batch = Vec::new();
    for (n, id) in ids.iter().enumerate() {
        let to = Publish { body: if n % 20 == 0 { &long } else { id.as_bytes() }, ..Publish::to("none", id) };
        let publish = match n % 3 {
            0 => to,
            1 => to.mandatory(),
            _ => Publish { key: "q", ..to },
        };
        batch.extend(publish.encode(1, client.frame_max()));
    }
    client.write(&batch).unwrap();
    let (mut returned, mut delivered, mut settled) = (Vec::new(), 0, [false; 61]);
    while settled[1..].contains(&false) || delivered < 20 {
        match client.next(1) {
            Told::Returned { message, .. } => {
                returned.push(String::from_utf8(message.id().unwrap().to_vec()).unwrap());
            }
            Told::Delivered { .. } => delivered += 1,
            Told::Ack { tag, multiple } => {
                let first = if multiple { 1 } else { tag as usize };
                settled[first..=tag as usize].fill(true);
            }
            other => panic!("{other:?}"),
        }
    }
    assert_eq!(returned, ids.iter().skip(1).step_by(3).cloned().collect::<Vec<_>>());
    let forgotten = |cause| site.metrics().sum("forgotten_total", &[("cause", cause)]);
    assert_eq!((forgotten("unroutable"), forgotten("returned")), (20.0, 20.0));
}

/// `verify_routing = false`: an ack is the broker's word, and counts as stored.
#[test]
fn p01_a_window_need_not_verify() {
    let config = "[[window]]\nname = \"w\"\nverify_routing = false\n";
    let Some(site) = Site::of_relay("p01-unverified", config) else { return };
    let mut client = site.client();
    client.confirming(1);
    acked(&client.publish_and_settle(1, &Publish::to("later", "a")));
    client.declare(1, "later", &[]);
    acked(&client.publish_and_settle(1, &Publish::to("later", "a")));
    assert_eq!(client.drain(1, "later"), [""; 0]);
}

/// RabbitMQ refuses the immediate bit with 540. Its message passes its window, which counts it.
#[test]
fn an_immediate_message_is_counted_in_its_window() {
    let Some(site) = Site::of_relay("immediate", "[[window]]\nname = \"w\"\n") else { return };
    let mut client = site.client();
    client.confirming(1);
    client.declare(1, "q", &[]);
    let publish = Publish::to("q", "a");
    let mut method = publish.method(1);
    let bits = method.len() - 2;
    method[bits] = 2;
    client
        .write(&[method, publish.encode(1, client.frame_max()).split_off(publish.method(1).len())].concat())
        .unwrap();
    assert!(matches!(client.next(1), Told::ConnectionClosed { code: 540, .. }));
    let publishes =
        |window, verdict| site.metrics().sum("publishes_total", &[("window", window), ("verdict", verdict)]);
    assert_eq!((publishes("w", "bypassed"), publishes("", "unmatched")), (1.0, 0.0));
}
