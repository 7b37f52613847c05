//! Points 1, 2, 4 and 5: what counts as stored, and the answers to duplicates that wait for it.

use super::{acked, held};
use crate::e2e::raw::{Publish, Raw, Told, Value};
use crate::e2e::site::Site;
use crate::e2e::wait::PATIENCE;
use amq_protocol::protocol::{AMQPClass, confirm, exchange, queue};
use amq_protocol::types::{AMQPValue, FieldTable};
use std::time::{Duration, Instant};

fn text(text: &str) -> AMQPValue {
    AMQPValue::LongString(text.into())
}

#[test]
fn p01_seen_means_stored_and_the_ttl_runs_from_the_ack() {
    let Some(site) = Site::of_relay("p01", "") else { return };
    let mut client = site.client();
    client.confirming(1);
    client.declare(
        1,
        "q",
        &[("x-max-length", AMQPValue::LongInt(1)), ("x-overflow", text("reject-publish"))],
    );
    // A client that publishes what it has got publishes a new message.
    let mut other = site.direct();
    other.open_channel(1);
    acked(&client.publish_and_settle(1, &Publish::to("q", "first")));
    // Nacked as often as it is tried: it is never taken for seen.
    for tag in 2..5 {
        let told = client.publish_and_settle(1, &Publish::to("q", "second"));
        assert_eq!(told, [Told::Nack { tag, multiple: false }]);
    }
    assert_eq!(other.drain(1, "q"), ["first"]);

    let ttl = Duration::from_millis(700);
    let short = Publish { headers: &[("x-cache-ttl", Value::Long(700))], ..Publish::to("q", "second") };
    let published = Instant::now();
    acked(&client.publish_and_settle(1, &short));
    let seen = Instant::now();
    assert_eq!(other.drain(1, "q"), ["second"]);
    // A duplicate does not make it young again: tried all the time, it passes when the TTL is over, not before.
    let passed = loop {
        assert!(seen.elapsed() < PATIENCE, "it never passes again");
        acked(&client.publish_and_settle(1, &short));
        if other.drain(1, "q") == ["second"] {
            break Instant::now();
        }
    };
    assert!(passed - published >= ttl, "after {:?}", passed - published);
    assert!(passed - seen < ttl + Duration::from_secs(5), "after {:?}", passed - seen);
}

#[test]
fn p02_duplicates_in_flight_share_the_fate_of_the_first() {
    let Some(site) = Site::with_cut("p02", "[limits]\nwaiters_per_id = 2\n") else { return };
    let mut direct = site.direct();
    direct.open_channel(1);
    direct.declare(1, "q", &[]);
    let mut clients = [(); 4].map(|()| {
        let mut client = site.client();
        client.confirming(1);
        client
    });

    site.prove();
    site.cut().stall_up();
    for (client, waiting) in clients.iter_mut().zip([0.0, 1.0, 2.0]) {
        client.publish(1, &Publish::to("q", "a"));
        site.until_metric("publishes_total", &[("verdict", "in_flight")], waiting);
        site.until_metric("window_in_flight", &[], 1.0);
    }
    // One more than may wait.
    let refused = clients[3].publish_and_settle(1, &Publish::to("q", "a"));
    assert_eq!(refused, [Told::Nack { tag: 1, multiple: false }]);
    assert_eq!(site.metrics().sum("refused_total", &[]), 1.0);

    site.cut().resume();
    for client in &mut clients[..3] {
        assert_eq!(client.next(1), Told::Ack { tag: 1, multiple: false });
    }
    assert_eq!(held(&mut direct, "q"), 1);
    assert_eq!(site.metrics().sum("window_in_flight", &[]), 0.0);
}

#[test]
fn p02_a_waiter_is_promoted_when_the_first_was_not_stored() {
    let Some(site) = Site::with_cut("p02-promoted", "") else { return };
    let mut direct = site.direct();
    direct.open_channel(1);
    let (mut first, mut second) = (site.client(), site.client());
    first.confirming(1);
    second.confirming(1);

    // The second comes with another body, so that it is seen which of the two was stored.
    site.prove();
    site.cut().stall_up();
    first.publish(1, &Publish::to("later", "a").mandatory());
    site.until_metric("window_in_flight", &[], 1.0);
    second.publish(1, &Publish { body: b"of the second", ..Publish::to("later", "a") });
    site.until_metric("publishes_total", &[("verdict", "in_flight")], 1.0);
    site.cut().resume();
    assert!(matches!(first.next(1), Told::Returned { code: 312, .. }));
    assert_eq!(first.next(1), Told::Ack { tag: 1, multiple: false });
    assert_eq!(second.next(1), Told::Ack { tag: 1, multiple: false });
    assert_eq!(site.metrics().sum("promoted_total", &[]), 1.0);
    // It was promoted and acked, and no queue has taken it, either: it is not seen, although its client hears no return.
    direct.declare(1, "later", &[]);
    acked(&second.publish_and_settle(1, &Publish::to("later", "a")));
    assert_eq!(held(&mut direct, "later"), 1);
}

#[test]
fn p04_return_then_ack_is_not_stored() {
    let Some(site) = Site::of_relay("p04", "") else { return };
    let mut client = site.client();
    client.confirming(1);
    client.declare(1, "q", &[]);
    // Several outstanding, with the same key and other ids, and one that is routed between them: each return goes
    // before the ack of its own.
    let batch: Vec<u8> = [
        Publish::to("none", "a").mandatory(),
        Publish::to("q", "b").mandatory(),
        Publish::to("none", "c").mandatory(),
        Publish::to("none", "d"),
    ]
    .iter()
    .flat_map(|publish| publish.encode(1, client.frame_max()))
    .collect();
    client.write(&batch).unwrap();
    let (mut returned, mut settled) = (Vec::new(), [false; 5]);
    while settled != [false, true, true, true, true] {
        match client.next(1) {
            Told::Returned { code: 312, message } => {
                assert_eq!((&message.exchange[..], &message.key[..]), ("", "none"));
                let id = String::from_utf8(message.id().unwrap().to_vec()).unwrap();
                assert!(!settled[if id == "a" { 1 } else { 3 }], "{id} was acked before it was returned");
                returned.push(id);
            }
            Told::Ack { tag, multiple } => {
                let first = if multiple { 1 } else { tag as usize };
                settled[first..=tag as usize].fill(true);
            }
            other => panic!("{other:?}"),
        }
    }
    assert_eq!(returned, ["a", "c"]);

    client.declare(1, "none", &[]);
    for id in ["a", "b", "c", "d"] {
        let queue = if id == "b" { "q" } else { "none" };
        acked(&client.publish_and_settle(1, &Publish::to(queue, id).mandatory()));
    }
    assert_eq!(
        client.drain(1, "none"),
        ["a", "c", "d"],
        "no queue had taken them, though the client has not asked for the return of d"
    );
    assert_eq!(client.drain(1, "q"), ["b"]);
}

#[test]
fn p04_a_duplicate_earns_no_return_and_reaches_no_alternate_exchange() {
    let Some(site) = Site::of_relay("p04-alternate", "") else { return };
    let mut client = site.client();
    client.confirming(1);
    for (name, alternate) in [("alternate", None), ("main", Some("alternate")), ("bare", None)] {
        let mut arguments = FieldTable::default();
        if let Some(alternate) = alternate {
            arguments.insert("alternate-exchange".into(), text(alternate));
        }
        let declare = exchange::Declare {
            exchange: name.into(),
            kind: "fanout".into(),
            arguments,
            ..exchange::Declare::default()
        };
        client.call(1, &AMQPClass::Exchange(exchange::AMQPMethod::Declare(declare))).unwrap();
    }
    client.declare(1, "q", &[]);
    client.declare(1, "stray", &[]);
    client.bind(1, "q", ("main", ""), &[]);
    client.bind(1, "q", ("bare", ""), &[]);
    client.bind(1, "stray", ("alternate", ""), &[]);

    let by = |exchange| Publish { exchange, key: "k", ..Publish::to("", "a").mandatory() };
    acked(&client.publish_and_settle(1, &by("main")));
    acked(&client.publish_and_settle(1, &by("bare")));
    // A client that publishes what it has got publishes a new message.
    let mut other = site.direct();
    other.open_channel(1);
    assert_eq!(other.drain(1, "q"), ["a", "a"]);
    // Nobody listens any more: the broker would return it, or lead it to the alternate exchange.
    let delete = queue::Delete { queue: "q".into(), ..queue::Delete::default() };
    client.call(1, &AMQPClass::Queue(queue::AMQPMethod::Delete(delete))).unwrap();
    acked(&client.publish_and_settle(1, &by("main")));
    acked(&client.publish_and_settle(1, &by("bare")));
    assert_eq!(client.drain(1, "stray"), [""; 0]);
}

#[test]
fn p05_a_seen_id_in_a_transaction_is_dropped_alone() {
    let Some(site) = Site::of_relay("p05", "") else { return };
    let mut direct = site.direct();
    direct.open_channel(1);
    direct.declare(1, "q", &[]);
    let mut client = site.client();
    client.confirming(1);
    acked(&client.publish_and_settle(1, &Publish::to("q", "seen")));
    client.open_channel(2);
    client.tx_select(2).unwrap();
    for id in ["a", "seen", "b", "a"] {
        client.publish(2, &Publish::to("q", id));
    }
    assert_eq!(direct.drain(1, "q"), ["seen"], "nothing before the commit");
    client.tx_commit(2).unwrap();
    assert_eq!(direct.drain(1, "q"), ["a", "b"]);
    for id in ["a", "b"] {
        acked(&client.publish_and_settle(1, &Publish::to("q", id)));
    }
    assert_eq!(held(&mut direct, "q"), 0, "commit-ok has made them seen");
}

#[test]
fn p05_a_fault_in_a_transaction_forgets_it() {
    let Some(site) = Site::of_relay("p05-fault", "") else { return };
    let mut client = site.client();
    client.open_channel(1);
    client.declare(1, "q", &[]);
    client.tx_select(1).unwrap();
    client.publish(1, &Publish::to("q", "a"));
    client.publish(1, &Publish { exchange: "no-such-exchange", ..Publish::to("", "b") });
    assert!(matches!(client.next(1), Told::ChannelClosed { code: 404, .. }));
    client.confirming(2);
    acked(&client.publish_and_settle(2, &Publish::to("q", "a")));
    assert_eq!(client.drain(2, "q"), ["a"]);
}

/// Said by the broker itself, and therefore alike with the relay and without it.
#[test]
fn p05_tx_and_confirm_exclude_each_other() {
    let site = Site::new("p05-exclude", "");
    let answers = |mut client: Raw| {
        client.confirming(1);
        let tx_after_confirm = client.tx_select(1);
        client.open_channel(2);
        client.tx_select(2).unwrap();
        let select = AMQPClass::Confirm(confirm::AMQPMethod::Select(confirm::Select { nowait: false }));
        (tx_after_confirm, client.call(2, &select))
    };
    let theirs = answers(site.direct());
    assert!(matches!(theirs.0, Err(Told::ChannelClosed { code: 406, .. })), "{theirs:?}");
    assert_eq!(answers(site.client()), theirs);
}
