//! What a relay remembers after its death.

use super::stage::{Stage, ids, publish_all};
use crate::e2e::publisher::{Publisher, check};
use crate::e2e::retry::{Rng, kills};
use crate::e2e::site::{shared_rabbit, without_relay};

#[test]
fn a_relay_that_was_killed_knows_its_ids_again() {
    if without_relay() {
        return;
    }
    let stage = Stage::new(shared_rabbit(), "stream-killed");
    let mut relay = stage.relay();
    let all = ids("a", 2000);
    publish_all(&mut stage.client(&relay), &mut 0, &all);
    relay.kill9();
    relay.restart();
    stage.until_known(&relay, all.len());
    publish_all(&mut stage.client(&relay), &mut 0, &all);
    let held = stage.held();
    assert_eq!(held.len(), all.len());
    assert!(held.values().all(|copies| *copies == 1), "a retry has passed");
}

/// With `sync`: an id whose ack a client has received is never forgotten, whenever the relay is killed.
#[test]
fn killed_at_any_moment_a_relay_forgets_no_id_that_was_acked() {
    if without_relay() {
        return;
    }
    let mut rng = Rng::seeded("a relay with a stream is killed");
    let stage = Stage::new(shared_rabbit(), "stream-kills");
    let mut relay = stage.relay();
    let addr = relay.addr();
    let (mut publishers, rounds) = (Vec::new(), kills(30));
    for round in 0..rounds {
        // It dies after so many acks, while more are under way.
        let most = 1 + usize::try_from(rng.below(400)).unwrap();
        let mut publisher = Publisher::new(&stage.name, &[addr], ids(&format!("{round}"), 2000), 50);
        publisher.run(&|publisher| publisher.acked.len() < most);
        relay.kill9();
        relay.restart();
        // Everything that was acked is published again.
        let acked = publisher.acked.clone();
        publish_all(&mut stage.client(&relay), &mut 0, &acked);
        publishers.push(publisher);
    }
    let held = stage.held();
    check(&held, &publishers.iter().collect::<Vec<_>>());
    let acked: usize = publishers.iter().map(|publisher| publisher.acked.len()).sum();
    println!("{rounds} kills, {acked} ids were acked and published again: none passed");
}

/// With `async` a crash forgets what was acked within the last `remember_delay`, and no more.
#[test]
fn with_async_a_crash_forgets_what_the_delay_allows() {
    if without_relay() {
        return;
    }
    let stage = Stage::new(shared_rabbit(), "stream-async");
    let with = super::stage::With {
        window: "remember = \"async\"\nremember_delay = \"40ms\"".to_owned(),
        ..stage.with()
    };
    let mut relay = stage.relay_with(&with);
    let mut client = stage.client(&relay);
    let (early, late) = (ids("early", 500), ids("late", 500));
    publish_all(&mut client, &mut 0, &early);
    std::thread::park_timeout(std::time::Duration::from_millis(100));
    publish_all(&mut client, &mut (early.len() as u64), &late);
    relay.kill9();
    relay.restart();
    let mut client = stage.client(&relay);
    publish_all(&mut client, &mut 0, &early);
    publish_all(&mut client, &mut (early.len() as u64), &late);
    let held = stage.held();
    assert!(early.iter().all(|id| held[id] == 1), "these were written long before the crash");
    let forgotten = late.iter().filter(|id| held[*id] == 2).count();
    println!("{forgotten} of {} ids that were acked at the end were forgotten", late.len());
}
