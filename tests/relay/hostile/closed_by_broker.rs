//! A channel that the broker closes leaves the outcome of its other messages unknown, and that is how they are handled.

use super::stage::{Settled, Stage, Who, ids, publish_all, settle_all};
use crate::e2e::raw::{Publish, Raw, Told};
use crate::e2e::wait;
use amq_protocol::types::AMQPValue;

fn config(in_doubt: &str) -> String {
    format!("[[window]]\nname = \"w\"\nin_doubt = \"{in_doubt}\"\n")
}

/// Twenty messages that the broker has but has not acked, and one to an exchange that is not there.
fn closed_by_404(stage: &mut Stage, ids: &[String]) -> Raw {
    let mut client = stage.confirming(Who::All);
    // The right is proven, so that nothing waits for that.
    let first = Publish::to("q", "first");
    client.publish(1, &first);
    assert!(matches!(client.next(1), Told::Ack { .. }));
    stage.site.suspend("q");
    let mut octets: Vec<u8> = ids.iter().flat_map(|id| Publish::to("q", id).encode(1, 4096)).collect();
    octets.extend(missing().encode(1, 4096));
    client.write(&octets).unwrap();
    let told = client.next(1);
    stage.site.resume("q");
    assert!(matches!(told, Told::ChannelClosed { code: 404, .. }), "{told:?}");
    let count = 1 + u32::try_from(ids.len()).unwrap();
    wait::until("all is stored", wait::PATIENCE, || (stage.held("q") == count).then_some(()));
    client
}

/// The message that closes the channel.
fn missing() -> Publish<'static> {
    Publish { exchange: "not there yet", ..Publish::to("", "the cause") }
}

/// Its retry, once its exchange is there.
fn the_cause_may_come_again(stage: &mut Stage, client: &mut Raw) {
    let declare = amq_protocol::protocol::exchange::Declare {
        exchange: "not there yet".into(),
        kind: "fanout".into(),
        ..Default::default()
    };
    let declare = amq_protocol::protocol::exchange::AMQPMethod::Declare(declare);
    stage.direct.call(1, &amq_protocol::protocol::AMQPClass::Exchange(declare)).unwrap();
    stage.bind("q", "not there yet", "", None);
    stage.stored();
    assert_eq!(settle_all(client, 9, &[missing()]), Settled::acked(1));
    assert_eq!(stage.stored(), ["the cause"]);
}

#[test]
fn n06_keep_holds_for_a_channel_that_the_broker_closes() {
    let Some(mut stage) = Stage::of_relay("n06-keep", &config("keep")) else { return };
    let ids = ids("id", 20);
    let mut client = closed_by_404(&mut stage, &ids);
    let metrics = stage.site.metrics();
    assert_eq!(metrics.sum("in_doubt_total", &[("outcome", "kept")]), 20.0);
    assert_eq!(metrics.sum("window_in_flight", &[]), 0.0);
    assert_eq!(publish_all(&mut client, 2, &ids), Settled::acked(20));
    assert_eq!(stage.held("q"), 21, "none of them twice");
    the_cause_may_come_again(&mut stage, &mut client);
}

#[test]
fn n06_forget_is_counted_for_a_channel_that_the_broker_closes() {
    let Some(mut stage) = Stage::of_relay("n06-forget", &config("forget")) else { return };
    let ids = ids("id", 20);
    let mut client = closed_by_404(&mut stage, &ids);
    assert_eq!(stage.site.metrics().sum("in_doubt_total", &[("outcome", "forgotten")]), 20.0);
    assert_eq!(publish_all(&mut client, 2, &ids), Settled::acked(20));
    assert_eq!(stage.held("q"), 41, "a retry passes");
    the_cause_may_come_again(&mut stage, &mut client);
}

/// One queue takes its messages, another refuses: the broker closes the channel at `tx.commit` and does not say which.
#[test]
fn n06_keep_holds_for_a_transaction_that_is_completed_in_part() {
    let Some(mut stage) = Stage::of_relay("n06-tx", &config("keep")) else { return };
    let arguments = [
        ("x-max-length", AMQPValue::LongInt(1)),
        ("x-overflow", AMQPValue::LongString("reject-publish".into())),
    ];
    stage.direct.declare(1, "full", &arguments);
    stage.direct.publish(1, &Publish::to("full", "first"));
    wait::until("the queue is full", wait::PATIENCE, || (stage.held("full") == 1).then_some(()));

    let ids = ids("id", 20);
    let mut client = stage.client(Who::All);
    client.open_channel(1);
    client.tx_select(1).unwrap();
    ids.iter().for_each(|id| client.publish(1, &Publish::to("q", id)));
    client.publish(1, &Publish::to("full", "one too many"));
    match client.tx_commit(1) {
        Err(Told::ChannelClosed { code: 406, text }) => {
            assert!(text.contains("partial tx completion"), "{text}");
        }
        other => panic!("a 406 is expected: {other:?}"),
    }
    assert_eq!(stage.held("q"), 20);
    assert_eq!(publish_all(&mut client, 2, &ids), Settled::acked(20));
    assert_eq!(stage.held("q"), 20, "none of them twice");
    // Whichever caused it: nobody can tell.
    assert_eq!(stage.site.metrics().sum("in_doubt_total", &[("outcome", "kept")]), 21.0);
}
