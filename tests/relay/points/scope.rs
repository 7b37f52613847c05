//! Points 8 and 9: what an id is unique within, and whom a duplicate verdict serves.

use super::{acked, held};
use crate::e2e::raw::{Login, Publish, Raw, Told, Value};
use crate::e2e::site::Site;
use amq_protocol::protocol::{AMQPClass, exchange};

#[test]
fn p08_the_same_id_to_two_exchanges_or_two_queues_is_two_messages() {
    let Some(site) = Site::of_relay("p08", "") else { return };
    let mut client = site.client();
    client.confirming(1);
    client.declare(1, "one", &[]);
    client.declare(1, "two", &[]);
    for exchange in ["x", "y"] {
        let declare = exchange::Declare {
            exchange: exchange.into(),
            kind: "fanout".into(),
            ..exchange::Declare::default()
        };
        client.call(1, &AMQPClass::Exchange(exchange::AMQPMethod::Declare(declare))).unwrap();
        client.bind(1, "one", (exchange, ""), &[]);
    }
    for _ in 0..2 {
        for publish in [
            Publish::to("one", "a"),
            Publish::to("two", "a"),
            Publish { exchange: "x", ..Publish::to("", "a") },
            Publish { exchange: "y", ..Publish::to("", "a") },
        ] {
            acked(&client.publish_and_settle(1, &publish));
        }
    }
    assert_eq!((held(&mut client, "one"), held(&mut client, "two")), (3, 1));
}

#[test]
fn p08_vhosts_are_apart() {
    let (Some(one), Some(two)) = (Site::of_relay("p08-one", ""), Site::of_relay("p08-two", "")) else {
        return;
    };
    for _ in 0..2 {
        for vhost in [&one.vhost, &two.vhost] {
            let mut client = Raw::connect(one.addr(), vhost);
            client.confirming(1);
            client.declare(1, "q", &[]);
            acked(&client.publish_and_settle(1, &Publish::to("q", "a")));
        }
    }
    for site in [one, two] {
        let mut direct = site.direct();
        direct.open_channel(1);
        assert_eq!(direct.drain(1, "q"), ["a"]);
    }
}

#[test]
fn p08_bytes_are_compared_and_no_id_is_no_judgement() {
    let Some(site) = Site::of_relay("p08-bytes", "") else { return };
    let mut client = site.client();
    client.confirming(1);
    client.declare(1, "q", &[]);
    let long = [b'x'; 255];
    let mut longer = long;
    longer[254] = b'y';
    // No UTF-8, precomposed and decomposed ä, case, blanks, a nul, and ids that differ in their last octet.
    let ids: [&[u8]; 10] =
        [b"\xff", b"\xfe", "ä".as_bytes(), "a\u{308}".as_bytes(), b"a", b"A", b"a ", b"a\0", &long, &longer];
    for _ in 0..2 {
        for id in ids {
            acked(&client.publish_and_settle(1, &Publish { id: Some(id), ..Publish::to("q", "") }));
        }
    }
    let got: Vec<_> = std::iter::from_fn(|| client.get(1, "q")).collect();
    assert_eq!(got.iter().map(|message| message.id().unwrap()).collect::<Vec<_>>(), ids);

    for id in [None, None, Some(&b""[..]), Some(&b""[..])] {
        acked(&client.publish_and_settle(1, &Publish { id, ..Publish::to("q", "") }));
    }
    assert_eq!(held(&mut client, "q"), 4);
    assert_eq!(site.metrics().sum("publishes_total", &[("verdict", "no_id")]), 4.0);
}

#[test]
fn p08_a_bypass_header_lets_a_replay_through() {
    let Some(site) = Site::of_relay("p08-bypass", "") else { return };
    let mut client = site.client();
    client.confirming(1);
    client.declare(1, "q", &[]);
    let bypass = |truth| Publish {
        headers: if truth {
            &[("other", Value::Text("x")), ("x-hapax-bypass", Value::Bool(true))]
        } else {
            &[("x-hapax-bypass", Value::Bool(false))]
        },
        ..Publish::to("q", "a")
    };
    for publish in [Publish::to("q", "a"), bypass(true), bypass(false), bypass(true), Publish::to("q", "a")] {
        acked(&client.publish_and_settle(1, &publish));
    }
    assert_eq!(client.drain(1, "q"), ["a", "a", "a"]);
    assert_eq!(site.metrics().sum("publishes_total", &[("verdict", "bypassed")]), 2.0);
}

fn refusal(mut client: Raw, publish: &Publish<'_>) -> Told {
    client.confirming(1);
    client.publish(1, publish);
    client.next(1)
}

#[test]
fn p09_who_may_not_publish_gets_the_brokers_403_even_for_a_known_id() {
    let Some(site) = Site::of_relay("p09", "") else { return };
    site.add_user("p09-reader", "");
    let mut client = site.client();
    client.confirming(1);
    client.declare(1, "q", &[]);
    acked(&client.publish_and_settle(1, &Publish::to("q", "known")));

    let reader = Login::new(&site.vhost, "p09-reader", "p09-reader");
    for id in ["known", "unknown"] {
        let theirs = refusal(Raw::login(site.rabbit.addr(), &reader).unwrap(), &Publish::to("q", id));
        assert!(matches!(theirs, Told::ChannelClosed { code: 403, .. }), "{theirs:?}");
        let ours = refusal(Raw::login(site.addr(), &reader).unwrap(), &Publish::to("q", id));
        assert_eq!(ours, theirs, "{id}");
    }
    // The connection outlives the refusal, and without confirms it is refused all the same.
    let mut reading = Raw::login(site.addr(), &reader).unwrap();
    reading.open_channel(1);
    reading.publish(1, &Publish::to("q", "known"));
    assert!(matches!(reading.next(1), Told::ChannelClosed { code: 403, .. }));
    reading.open_channel(2);
    assert_eq!(reading.drain(2, "q"), ["known"]);
}

#[test]
fn p09_who_may_publish_is_served_a_duplicate_without_having_published_before() {
    let Some(site) = Site::of_relay("p09-writer", "") else { return };
    site.add_user("p09-writer", "amq\\\\.default|allowed");
    let mut client = site.client();
    client.confirming(1);
    client.declare(1, "q", &[]);
    for name in ["allowed", "denied"] {
        let declare = exchange::Declare {
            exchange: name.into(),
            kind: "fanout".into(),
            ..exchange::Declare::default()
        };
        client.call(1, &AMQPClass::Exchange(exchange::AMQPMethod::Declare(declare))).unwrap();
        client.bind(1, "q", (name, ""), &[]);
        acked(&client.publish_and_settle(1, &Publish { exchange: name, ..Publish::to("", "known") }));
    }
    assert_eq!(held(&mut client, "q"), 2);

    let mut writer = Raw::login(site.addr(), &Login::new(&site.vhost, "p09-writer", "p09-writer")).unwrap();
    writer.confirming(1);
    let to = |exchange| Publish { exchange, ..Publish::to("", "known") };
    assert_eq!(acked(&writer.publish_and_settle(1, &to("allowed"))), 1);
    // A right to one exchange says nothing about another exchange.
    writer.publish(1, &to("denied"));
    assert!(matches!(writer.next(1), Told::ChannelClosed { code: 403, .. }));
    assert_eq!(held(&mut client, "q"), 0, "finding out has stored nothing");
}
