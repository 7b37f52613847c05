//! The cases in which a broker that records an id before the outcome is known loses messages, one
//! test a row, on a real RabbitMQ. The row about a restart belongs to the durable window, which has its own tests.

use crate::e2e::raw::{Publish, Told};
use crate::e2e::site::Site;
use amq_protocol::types::AMQPValue;

const ACK_1: Told = Told::Ack { tag: 1, multiple: false };

fn tag(told: &[Told]) -> u64 {
    match told {
        [Told::Ack { tag, .. }] => *tag,
        other => panic!("an ack and nothing else is expected: {other:?}"),
    }
}

#[test]
fn queue_full_nack_then_retry_is_delivered() {
    let Some(site) = Site::of_relay("queue-full", "") else { return };
    let mut client = site.client();
    client.confirming(1);
    let full = [
        ("x-max-length", AMQPValue::LongInt(1)),
        ("x-overflow", AMQPValue::LongString("reject-publish".into())),
    ];
    client.declare(1, "q", &full);

    assert_eq!(client.publish_and_settle(1, &Publish::to("q", "a")), [ACK_1]);
    let refused = client.publish_and_settle(1, &Publish::to("q", "b"));
    assert_eq!(refused, [Told::Nack { tag: 2, multiple: false }], "the queue is full");
    assert_eq!(client.drain(1, "q"), ["a"]);

    assert_eq!(tag(&client.publish_and_settle(1, &Publish::to("q", "b"))), 3);
    assert_eq!(client.drain(1, "q"), ["b"], "the retry was delivered");
    assert_eq!(site.metrics().sum("forgotten_total", &[("cause", "nack")]), 1.0);
    assert_eq!(site.metrics().sum("publishes_total", &[("verdict", "duplicate")]), 0.0);
}

#[test]
fn returned_then_bound_then_retry_is_delivered() {
    let Some(site) = Site::of_relay("returned", "") else { return };
    let mut client = site.client();
    client.confirming(1);

    match &client.publish_and_settle(1, &Publish::to("q", "a").mandatory())[..] {
        [Told::Returned { code: 312, message }, Told::Ack { tag: 1, .. }] => {
            assert_eq!((message.id(), &message.body[..]), (Some(&b"a"[..]), &b"a"[..]));
        }
        other => panic!("a return, then its ack, are expected: {other:?}"),
    }
    client.declare(1, "q", &[]);

    assert_eq!(tag(&client.publish_and_settle(1, &Publish::to("q", "a").mandatory())), 2);
    assert_eq!(client.drain(1, "q"), ["a"], "the retry was delivered");
    assert_eq!(site.metrics().sum("forgotten_total", &[("cause", "returned")]), 1.0);
}

#[test]
fn rollback_then_retry_is_delivered() {
    let Some(site) = Site::of_relay("rollback", "") else { return };
    let mut client = site.client();
    client.open_channel(1);
    client.declare(1, "q", &[]);
    client.tx_select(1).unwrap();
    client.publish(1, &Publish::to("q", "a"));
    client.tx_rollback(1).unwrap();

    client.publish(1, &Publish::to("q", "a"));
    client.tx_commit(1).unwrap();
    // A client that publishes what it has got publishes a new message.
    let mut other = site.direct();
    other.open_channel(1);
    assert_eq!(other.drain(1, "q"), ["a"], "the retry was delivered");
    assert_eq!(site.metrics().sum("forgotten_total", &[("cause", "rollback")]), 1.0);

    client.publish(1, &Publish::to("q", "a"));
    client.tx_commit(1).unwrap();
    assert_eq!(other.drain(1, "q"), [""; 0], "and after the commit it is a duplicate");
}

#[test]
fn duplicate_with_mandatory_is_a_plain_ack() {
    let Some(site) = Site::of_relay("mandatory", "") else { return };
    let mut client = site.client();
    client.confirming(1);
    client.declare(1, "q", &[]);
    assert_eq!(client.publish_and_settle(1, &Publish::to("q", "a").mandatory()), [ACK_1]);
    assert_eq!(tag(&client.publish_and_settle(1, &Publish::to("q", "a").mandatory())), 2);
    assert_eq!(client.drain(1, "q"), ["a"]);
}

#[test]
fn window_of_three_lets_five_through_and_counts_them() {
    for engine in ["compact", "lru", "moka"] {
        let config = format!("[[window]]\nname = \"small\"\ncapacity = 3\nengine = \"{engine}\"\n");
        let Some(site) = Site::of_relay(&format!("window-of-three-{engine}"), &config) else { return };
        let mut client = site.client();
        client.confirming(1);
        client.declare(1, "q", &[]);
        let ids = ["0", "1", "2", "3", "4", "5", "6", "7"];
        for id in ids.iter().chain(ids.iter().rev()) {
            tag(&client.publish_and_settle(1, &Publish::to("q", id)));
        }
        let through = ["0", "1", "2", "3", "4", "5", "6", "7", "4", "3", "2", "1", "0"];
        assert_eq!(client.drain(1, "q"), through, "{engine}");
        let metrics = site.metrics();
        assert_eq!(metrics.sum("publishes_total", &[("window", "small"), ("verdict", "duplicate")]), 3.0);
        // Thirteen became seen, three are still remembered: ten went before their time, five of which came again.
        assert_eq!(metrics.sum("commits_total", &[("window", "small")]), 13.0);
        assert_eq!(metrics.sum("window_entries", &[("window", "small")]), 3.0);
        assert_eq!(metrics.sum("evictions_total", &[("window", "small"), ("cause", "capacity")]), 10.0);
    }
}
