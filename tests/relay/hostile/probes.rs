//! The cost of the proofs of rights for the broker and its log.

use super::stage::{Settled, Stage, Who, ids, settle_all};
use crate::e2e::raw::{Publish, Told};
use crate::e2e::wait;
use std::time::{Duration, Instant};

/// Errors of this user's channels in the broker's log.
fn errors(stage: &Stage, who: Who) -> usize {
    stage.site.rabbit.lines_with(&["Channel error", &format!("user: '{}'", stage.user(who))])
}

/// Messages to `topics`, each with a routing key of its own.
fn each_to_its_own_key<'a>(keys: &'a [String], ids: &'a [String]) -> Vec<Publish<'a>> {
    keys.iter().zip(ids).map(|(key, id)| Publish { exchange: "topics", ..Publish::to(key, id) }).collect()
}

/// The same messages again, by a user of whom nothing is proven yet.
#[test]
fn n12_a_replay_with_a_key_for_each_id_is_proven_at_once() {
    const COUNT: usize = 10_000;
    let Some(mut stage) = Stage::of_relay("n12-replay", "") else { return };
    let (keys, ids) = (ids("b.key", COUNT), ids("id", COUNT));
    let messages = each_to_its_own_key(&keys, &ids);
    let mut first = stage.client(Who::All);
    let begun = Instant::now();
    assert_eq!(settle_all(&mut first, 1, &messages), Settled::acked(COUNT));
    let (published, begun) = (begun.elapsed(), Instant::now());
    // With a routing key in the scope, what is judged is the same for both users.
    let mut again = stage.client(Who::Topic);
    assert_eq!(settle_all(&mut again, 1, &messages), Settled::acked(COUNT));
    let replayed = begun.elapsed();
    println!("published in {published:?}, replayed in {replayed:?}");
    assert_eq!(stage.held("q"), u32::try_from(COUNT).unwrap(), "no duplicate was stored");
    assert_eq!(errors(&stage, Who::Topic), 0, "errors in the broker's log");
    let bound = published * 2 + Duration::from_secs(1);
    assert!(replayed < bound, "published in {published:?}, but replayed in {replayed:?}");
}

/// One of many may not be written: those before it are settled, and then the broker's own words come. Its log has a
/// handful of lines more than without the relay.
#[test]
fn n12_one_refusal_among_many_is_found_in_few_steps() {
    const COUNT: usize = 1_000;
    let Some(mut stage) = Stage::of_relay("n12-refusal", "") else { return };
    let mut keys = ids("b.key", COUNT);
    keys[COUNT - 10] = "a.key".to_owned();
    let ids = ids("id", COUNT);
    let messages = each_to_its_own_key(&keys, &ids);
    let mut client = stage.confirming(Who::Topic);
    let octets: Vec<u8> = messages.iter().flat_map(|message| message.encode(1, 4096)).collect();
    client.write(&octets).unwrap();
    let text = loop {
        match client.next(1) {
            Told::Ack { .. } => {}
            Told::ChannelClosed { code: 403, text } => break text,
            other => panic!("{other:?}"),
        }
    };
    let broker = {
        let mut client = stage.client_at(stage.site.rabbit.addr(), Who::Topic);
        client.open_channel(1);
        client.publish(1, &messages[COUNT - 10]);
        client.next(1)
    };
    assert_eq!(Told::ChannelClosed { code: 403, text }, broker);
    assert_eq!(stage.held("q"), u32::try_from(COUNT - 10).unwrap(), "what came before it");
    let errors = errors(&stage, Who::Topic);
    println!("{errors} errors in the broker's log");
    assert!((1..=2 + 2 * 11).contains(&errors), "{errors} errors in the broker's log");
}

/// The first refusal closes the channel, so nobody waits for the others.
#[test]
fn n12_a_thousand_refused_publishes_are_few_lines() {
    const COUNT: usize = 1_000;
    let Some(stage) = Stage::of_relay("n12-refusals", "") else { return };
    let (keys, ids) = (ids("a.key", COUNT), ids("id", COUNT));
    let messages = each_to_its_own_key(&keys, &ids);
    let mut client = stage.client(Who::Topic);
    client.open_channel(1);
    let octets: Vec<u8> = messages.iter().flat_map(|message| message.encode(1, 4096)).collect();
    client.write(&octets).unwrap();
    let told = client.next(1);
    assert!(matches!(told, Told::ChannelClosed { code: 403, .. }), "{told:?}");
    // A question that is asked after all of those is answered, so they are, too.
    let allowed = Publish { exchange: "topics", ..Publish::to("b.key", "a") };
    assert_eq!(settle_all(&mut client, 2, &[allowed]), Settled::acked(1));
    client.close();
    let errors = errors(&stage, Who::Topic);
    println!("{errors} errors in the broker's log");
    assert!(errors <= 2 + 2 * 11, "{errors} errors in the broker's log");
}

/// A probe routes nothing, even where routing has a side effect.
#[test]
fn n12_a_proof_stores_nothing() {
    let Some(mut stage) = Stage::of_relay("n12-nothing", "") else { return };
    let mut client = stage.confirming(Who::All);
    for (exchange, key) in [("", "q"), ("open", "key"), ("topics", "a.key"), ("topics", "b.key")] {
        let publish = Publish { exchange, ..Publish::to(key, "a") };
        for _ in 0..2 {
            client.publish(1, &publish);
            assert!(matches!(client.next(1), Told::Ack { .. }));
        }
        assert_eq!(stage.stored(), ["a"], "{exchange:?} {key:?}");
    }
}

/// A user who may write some keys of an exchange, in a scope that is wider: each of its connections would ask for every key, and be
/// refused, with two lines in the broker's log.
#[test]
fn n12_twenty_connections_with_twenty_keys_write_one_refusal_into_the_log() {
    let config = "[[window]]\nname = \"w\"\nscope = \"vhost\"\n";
    let Some(mut stage) = Stage::of_relay("n12-connections", config) else { return };
    let keys = ids("b.key", 20);
    for key in &keys {
        let mut client = stage.confirming(Who::Topic);
        client.publish(1, &Publish { exchange: "topics", ..Publish::to(key, "a") });
        assert!(matches!(client.next(1), Told::Ack { .. }));
        client.close();
    }
    assert_eq!(stage.stored(), ["a"]);
    let errors = errors(&stage, Who::Topic);
    assert!(errors <= 1 + 1, "every key, and every exchange: {errors}");
}

/// A user who may not publish with any of these keys: the broker says so each time, and Hapax has asked once for each key.
#[test]
fn n12_a_refusal_is_not_asked_for_again() {
    let Some(stage) = Stage::of_relay("n12-again", "") else { return };
    for _ in 0..5 {
        let mut client = stage.confirming(Who::Topic);
        client.publish(1, &Publish { exchange: "topics", ..Publish::to("a.key", "a") });
        assert!(matches!(client.next(1), Told::ChannelClosed { code: 403, .. }));
        client.close();
    }
    // The broker writes its log behind its answers.
    wait::until("six refusals", wait::PATIENCE, || (errors(&stage, Who::Topic) == 5 + 1).then_some(()));
}
