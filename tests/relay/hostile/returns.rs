//! A return belongs to the message whose whole content header it carries, not to one that looks like it.

use super::stage::{Settled, Stage, Who, headed, settle_all};
use crate::e2e::raw::{Publish, Told, Value};

const BY_HEADER: &str = "[[window]]\nname = \"w\"\nid = \"header:key\"\n";

/// Header tables of this many pairs of messages: the first of a pair is routed, the second is not until `late` is bound.
/// They differ in nothing but these headers.
fn tables(pairs: usize, keys: &[String]) -> Vec<[(&str, Value<'_>); 2]> {
    assert_eq!(keys.len(), 2 * pairs);
    let kind = |n: usize| Value::Text(if n.is_multiple_of(2) { "stored" } else { "lost" });
    keys.iter().enumerate().map(|(n, key)| [("key", Value::Text(key)), ("kind", kind(n))]).collect()
}

fn keys(count: usize) -> Vec<String> {
    (0..count).map(|n| format!("key-{n}")).collect()
}

fn of_kind<'a>(messages: &[Publish<'a>], stored: bool) -> Vec<Publish<'a>> {
    messages.iter().skip(usize::from(!stored)).step_by(2).cloned().collect()
}

/// Binds the queue `late`, which takes messages that would be returned.
fn route_the_rest(stage: &mut Stage) {
    stage.direct.declare(1, "late", &[]);
    stage.bind("late", "heads", "", Some("lost"));
}

#[test]
fn n02_a_return_is_credited_to_its_own_message() {
    let Some(mut stage) = Stage::of_relay("n02-header", BY_HEADER) else { return };
    let keys = keys(40);
    let tables = tables(20, &keys);
    let messages: Vec<_> = tables.iter().map(|table| headed(table, "alike")).collect();
    let mut client = stage.client(Who::All);
    let settled = settle_all(&mut client, 1, &messages);
    assert_eq!(settled, Settled { acked: 40, nacked: 0, returned: 20 });

    route_the_rest(&mut stage);
    assert_eq!(settle_all(&mut client, 2, &of_kind(&messages, false)), Settled::acked(20));
    assert_eq!(settle_all(&mut client, 3, &of_kind(&messages, true)), Settled::acked(20));
    assert_eq!(stage.held("late"), 20, "the retries of what was returned");
    assert_eq!(stage.held("q"), 20, "no duplicate of what was stored");
}

#[test]
fn n02_in_a_transaction_too() {
    let Some(mut stage) = Stage::of_relay("n02-tx", BY_HEADER) else { return };
    let keys = keys(20);
    let tables = tables(10, &keys);
    let messages: Vec<_> = tables.iter().map(|table| headed(table, "alike")).collect();
    let mut client = stage.client(Who::All);
    client.open_channel(1);
    client.tx_select(1).unwrap();
    messages.iter().for_each(|message| client.publish(1, message));
    client.tx_commit(1).unwrap();
    for _ in 0..10 {
        assert!(matches!(client.next(1), Told::Returned { code: 312, .. }));
    }

    route_the_rest(&mut stage);
    client.open_channel(2);
    client.tx_select(2).unwrap();
    messages.iter().for_each(|message| client.publish(2, message));
    client.tx_commit(2).unwrap();
    assert_eq!(stage.held("late"), 10, "the retries of what was returned");
    assert_eq!(stage.held("q"), 10, "no duplicate of what was stored");
}

/// The message-id is not all of a header either: one of the two is not judged at all.
#[test]
fn n02_a_bypassed_message_of_the_same_id_is_another() {
    let Some(mut stage) = Stage::of_relay("n02-bypass", "") else { return };
    let ids = keys(20);
    let bypass = ("x-hapax-bypass", Value::Bool(true));
    let stored = [("kind", Value::Text("stored")), bypass];
    let lost = [("kind", Value::Text("lost"))];
    let pairs: Vec<_> = ids
        .iter()
        .flat_map(|id| {
            [&stored[..], &lost[..]]
                .map(|table| Publish { id: Some(id.as_bytes()), ..headed(table, "alike") })
        })
        .collect();
    let mut client = stage.client(Who::All);
    assert_eq!(settle_all(&mut client, 1, &pairs), Settled { acked: 40, nacked: 0, returned: 20 });

    route_the_rest(&mut stage);
    assert_eq!(settle_all(&mut client, 2, &of_kind(&pairs, false)), Settled::acked(20));
    assert_eq!(stage.held("late"), 20, "the retries of what was returned");
    assert_eq!(settle_all(&mut client, 3, &of_kind(&pairs, false)), Settled::acked(20));
    assert_eq!(stage.held("late"), 20, "and their duplicates are dropped now");
}

/// The other way about: what was stored is judged, and what was returned is not.
#[test]
fn n02_the_return_of_a_bypassed_message_forgets_no_other() {
    let Some(mut stage) = Stage::of_relay("n02-bypassed", "") else { return };
    let ids = keys(20);
    let stored = [("kind", Value::Text("stored"))];
    let lost = [("kind", Value::Text("lost")), ("x-hapax-bypass", Value::Bool(true))];
    let pairs: Vec<_> = ids
        .iter()
        .flat_map(|id| {
            [&stored[..], &lost[..]]
                .map(|table| Publish { id: Some(id.as_bytes()), ..headed(table, "alike") })
        })
        .collect();
    let mut client = stage.client(Who::All);
    assert_eq!(settle_all(&mut client, 1, &pairs), Settled { acked: 40, nacked: 0, returned: 20 });
    assert_eq!(settle_all(&mut client, 2, &of_kind(&pairs, true)), Settled::acked(20));
    assert_eq!(stage.held("q"), 20, "no duplicate of what was stored");
}
