//! A stream with a replica on each of three nodes.

use super::stage::{Stage, With, ids, publish_all};
use crate::e2e::publisher::{Publisher, check, publish_while};
use crate::e2e::site::without_relay;
use crate::e2e::wait::{self, PATIENCE};
use hapax_testbed::Rabbit;
use std::sync::Arc;

/// The node that leads the stream, as this one sees it.
fn leader(of: &Rabbit, stage: &Stage) -> String {
    of.eval(&format!(
        "{{ok, Q}} = rabbit_amqqueue:lookup(rabbit_misc:r(<<\"{}\">>, queue, <<\"{}\">>)), node(amqqueue:get_pid(Q)).",
        stage.name,
        stage.stream()
    ))
    .unwrap()
    .trim_matches('\'')
    .to_owned()
}

/// The node that leads the stream dies under load, and comes back. RabbitMQ chooses another leader, and the relays go on at another node.
#[test]
#[ignore = "three nodes take half a minute to start: make chaos"]
fn the_leader_of_the_stream_dies() {
    if without_relay() {
        return;
    }
    let nodes: Vec<Arc<Rabbit>> = Rabbit::cluster(3).unwrap().into_iter().map(Arc::new).collect();
    // The last one is the upstream, and does not die.
    let stage = Stage::new(&nodes[2], "stream-cluster");
    let at = |order: [usize; 3]| {
        stage.relay_with(&With { nodes: order.map(|n| nodes[n].addr()).to_vec(), ..stage.with() })
    };
    let relays = [at([0, 1, 2]), at([1, 2, 0])];
    let first = leader(&nodes[2], &stage);
    let dies = nodes.iter().position(|node| node.name() == first).unwrap();
    assert_ne!(dies, 2, "the first relay's node leads");
    let mut publishers: Vec<Publisher> = relays
        .iter()
        .enumerate()
        .map(|(n, relay)| Publisher::new(&stage.name, &[relay.addr()], ids(&format!("{n}"), 10_000), 50))
        .collect();
    publish_while(&mut publishers, |acked| {
        acked.wait_for(5000);
        nodes[dies].kill9();
    });
    wait::until("there is another leader", PATIENCE, || (leader(&nodes[2], &stage) != first).then_some(()));
    nodes[dies].restart().unwrap();
    assert_eq!(
        check(&stage.held(), &publishers.iter().collect::<Vec<_>>()),
        0,
        "the upstream was there all the time"
    );
    for relay in &relays {
        wait::until("the stream works", PATIENCE, || (stage.metric(relay, "store_up") == 1.0).then_some(()));
        stage.until_known(relay, 20_000);
        println!("acked while the stream was away: {}", stage.metric(relay, "unremembered_total"));
    }
    for (publisher, relay) in publishers.iter().zip(relays.iter().rev()) {
        publish_all(&mut stage.client(relay), &mut 0, &publisher.acked);
    }
    assert!(stage.held().is_empty(), "a retry at the other relay has passed");
    // A relay that starts now reads it all from the new leader.
    let third = at([2, 1, 0]);
    stage.until_known(&third, 20_000);
}
