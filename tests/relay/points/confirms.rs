//! Points 3 and 7: tags, and publishers that do not ask for confirms.

use super::{acked, held};
use crate::e2e::raw::{Publish, Raw, Told};
use crate::e2e::site::Site;
use amq_protocol::protocol::{AMQPClass, basic, confirm};
use amq_protocol::types::AMQPValue;
use std::collections::BTreeSet;

/// Reads acks and nacks until tags 1..=last are all answered, each once; true is an ack.
fn answers(client: &mut Raw, channel: u16, last: usize) -> Vec<Option<bool>> {
    let mut answers: Vec<Option<bool>> = vec![None; last + 1];
    while answers[1..].contains(&None) {
        let (tag, multiple, good) = match client.next(channel) {
            Told::Ack { tag, multiple } => (tag as usize, multiple, true),
            Told::Nack { tag, multiple } => (tag as usize, multiple, false),
            other => panic!("an ack or a nack is expected: {other:?}"),
        };
        assert!((1..=last).contains(&tag), "tag {tag} was never given");
        if multiple {
            let open: Vec<_> = (1..=tag).filter(|tag| answers[*tag].is_none()).collect();
            assert!(!open.is_empty(), "nothing is left to be answered up to {tag}");
            for tag in open {
                answers[tag] = Some(good);
            }
        } else {
            assert_eq!(answers[tag].replace(good), None, "tag {tag} is answered twice");
        }
    }
    answers
}

fn write_all(client: &mut Raw, publishes: &[Publish<'_>], channel: u16) {
    let max = client.frame_max();
    let bytes: Vec<u8> = publishes.iter().flat_map(|publish| publish.encode(channel, max)).collect();
    client.write(&bytes).unwrap();
}

#[test]
fn p03_each_tag_is_answered_exactly_once() {
    let Some(site) = Site::of_relay("p03", "") else { return };
    let mut client = site.client();
    client.confirming(1);
    client.declare(1, "q", &[]);
    let full = [
        ("x-max-length", AMQPValue::LongInt(100)),
        ("x-overflow", AMQPValue::LongString("reject-publish".into())),
    ];
    client.declare(1, "full", &full);
    // In one breath: fresh ones, their repeats while they are in flight and after, and every third to a queue that
    // fills up, so that acks, nacks, singles, multiples and answers of our own all mix.
    let ids: Vec<String> = (0..3000_usize).map(|n| (n / 2 % 1000).to_string()).collect();
    let queue_of = |n: usize| if (n / 2).is_multiple_of(3) { "full" } else { "q" };
    let publishes: Vec<_> = ids.iter().enumerate().map(|(n, id)| Publish::to(queue_of(n), id)).collect();
    write_all(&mut client, &publishes, 1);
    let answers = answers(&mut client, 1, publishes.len());

    let told_stored = |queue: &str, good: bool| -> BTreeSet<String> {
        (0..publishes.len())
            .filter(|n| queue_of(*n) == queue && answers[n + 1] == Some(good))
            .map(|n| ids[n].clone())
            .collect()
    };
    for queue in ["q", "full"] {
        let stored = client.drain(1, queue);
        let once: BTreeSet<_> = stored.iter().cloned().collect();
        assert_eq!(stored.len(), once.len(), "{queue} holds an id twice");
        assert_eq!(once, told_stored(queue, true), "{queue} holds what was acked, and nothing else");
    }
    assert_eq!(told_stored("q", false), BTreeSet::new());
    assert!(!told_stored("full", false).is_empty(), "the full queue refused some");
}

#[test]
fn p03_what_waits_is_not_answered_with_what_came_after_it() {
    let Some(site) = Site::of_relay("p03-held", "") else { return };
    let (mut client, mut other, mut direct) = (site.client(), site.client(), site.direct());
    direct.open_channel(1);
    direct.declare(1, "q", &[]);
    // Reserved by an open transaction: known to the relay, its outcome open as long as the test wants.
    other.open_channel(1);
    other.tx_select(1).unwrap();
    other.publish(1, &Publish::to("q", "held"));
    other.publish(1, &Publish::to("q", "rolled-back"));
    site.until_metric("window_in_flight", &[], 2.0);

    client.confirming(1);
    let ids: Vec<String> = (3..=500).map(|n| n.to_string()).collect();
    let mut publishes = vec![Publish::to("q", "held"), Publish::to("q", "rolled-back")];
    publishes.extend(ids.iter().map(|id| Publish::to("q", id)));
    write_all(&mut client, &publishes, 1);
    let mut answered = BTreeSet::new();
    while answered.len() < 498 {
        match client.next(1) {
            Told::Ack { tag, multiple: false } => assert!(answered.insert(tag), "{tag} twice"),
            other => panic!("neither held tag may be answered, nor a multiple cross them: {other:?}"),
        }
    }
    assert_eq!(answered, (3..=500).collect());

    other.tx_rollback(1).unwrap();
    // Both are promoted now: forwarded, and acked under their own tags, or as the prefix that they complete.
    while answered.len() < 500 {
        match client.next(1) {
            Told::Ack { tag, multiple: false } => assert!(answered.insert(tag), "{tag} twice"),
            Told::Ack { tag, multiple: true } => answered.extend(1..=tag),
            other => panic!("{other:?}"),
        }
    }
    assert_eq!(held(&mut direct, "q"), 500);
}

#[test]
fn p07_without_confirms_duplicates_are_dropped_and_the_count_starts_at_one() {
    let Some(site) = Site::of_relay("p07", "") else { return };
    let mut client = site.client();
    client.open_channel(1);
    client.declare(1, "q", &[]);
    for id in ["a", "b", "a", "b"] {
        client.publish(1, &Publish::to("q", id));
    }
    // Nothing was said to the client of the confirms behind its back, and its own count starts at 1.
    let select = confirm::Select { nowait: false };
    client.call(1, &AMQPClass::Confirm(confirm::AMQPMethod::Select(select))).unwrap();
    assert_eq!(acked(&client.publish_and_settle(1, &Publish::to("q", "c"))), 1);
    assert_eq!(acked(&client.publish_and_settle(1, &Publish::to("q", "a"))), 2);
    assert_eq!(acked(&client.publish_and_settle(1, &Publish::to("q", "d"))), 3);
    assert_eq!(client.drain(1, "q"), ["a", "b", "c", "d"]);
}

#[test]
fn p07_tx_select_after_a_judged_publish_works_or_says_why_not() {
    let Some(site) = Site::of_relay("p07-tx", "") else { return };
    let mut client = site.client();
    client.open_channel(1);
    client.declare(1, "q", &[]);
    client.publish(1, &Publish::to("q", "a"));
    client.tx_select(1).unwrap();
    client.publish(1, &Publish::to("q", "b"));
    client.publish(1, &Publish::to("q", "a"));
    client.tx_commit(1).unwrap();
    client.open_channel(2);
    assert_eq!(client.drain(2, "q"), ["a", "b"]);

    // A channel that has a consumer cannot be made anew unseen.
    client.open_channel(3);
    let consume = basic::Consume { queue: "q".into(), ..basic::Consume::default() };
    client.call(3, &AMQPClass::Basic(basic::AMQPMethod::Consume(consume))).unwrap();
    client.publish(3, &Publish::to("none", "c"));
    match client.tx_select(3) {
        Err(Told::ChannelClosed { code: 406, text }) => assert!(text.contains("tx"), "{text}"),
        other => panic!("a clear refusal is expected: {other:?}"),
    }
}

#[test]
fn p07_client_only_leaves_publishers_without_confirms_alone() {
    let config = "[[window]]\nname = \"w\"\nconfirms = \"client-only\"\n";
    let Some(site) = Site::of_relay("p07-client-only", config) else { return };
    let mut client = site.client();
    client.open_channel(1);
    client.declare(1, "q", &[]);
    for id in ["a", "a", "b"] {
        client.publish(1, &Publish::to("q", id));
    }
    // No confirms were selected upstream: a transaction can still begin on this very channel.
    client.tx_select(1).unwrap();
    client.open_channel(2);
    assert_eq!(client.drain(2, "q"), ["a", "b"]);
}
