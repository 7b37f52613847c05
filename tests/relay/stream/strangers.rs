//! What somebody can do who may publish to the stream, and what an operator can get wrong.

use super::stage::{Stage, With, ids, publish_all, until_logged};
use crate::e2e::raw::{Publish, Told};
use crate::e2e::relay::Relay;
use crate::e2e::site::{shared_rabbit, without_relay};
use crate::e2e::wait::{self, PATIENCE};
use amq_protocol::protocol::{AMQPClass, basic, queue};
use amq_protocol::types::{AMQPValue, FieldTable};

/// Reads the whole stream, straight at the broker.
fn messages(stage: &Stage, count: usize) -> Vec<Vec<u8>> {
    let mut direct = stage.direct();
    let qos = basic::Qos { prefetch_count: 1000, global: false };
    direct.call(1, &AMQPClass::Basic(basic::AMQPMethod::Qos(qos))).unwrap();
    let mut arguments = FieldTable::default();
    arguments.insert("x-stream-offset".into(), AMQPValue::LongString("first".into()));
    let consume =
        basic::Consume { queue: stage.stream().as_str().into(), arguments, ..basic::Consume::default() };
    direct.call(1, &AMQPClass::Basic(basic::AMQPMethod::Consume(consume))).unwrap();
    let body = |told| match told {
        Told::Delivered { message, .. } => message.body,
        told => panic!("no delivery: {told:?}"),
    };
    (0..count).map(|_| body(direct.next(1))).collect()
}

fn publish_raw(stage: &Stage, bodies: &[&[u8]]) {
    let (mut direct, stream) = (stage.direct(), stage.stream());
    for body in bodies {
        let publish = Publish { key: &stream, body, persistent: true, ..Publish::default() };
        direct.publish_and_settle(1, &publish);
    }
}

/// What is not sealed with the secret does nothing, and what is sealed counts once: a stranger can't make Hapax drop a message.
#[test]
fn who_may_write_to_the_stream_can_make_no_id_a_duplicate() {
    if without_relay() {
        return;
    }
    let stage = Stage::new(shared_rabbit(), "stream-stranger");
    let (mut relay, other) = (stage.relay(), stage.relay());
    let mut client = stage.client(&relay);
    publish_all(&mut client, &mut 0, &ids("a", 1));
    stage.until_known(&other, 1);
    // The mark of the first relay, that of the second, and the batch.
    let batch = messages(&stage, 3).remove(2);
    // The operator lets the id through again, and the stranger publishes the batch that says that it is seen.
    relay.api("DELETE", &stage.path("a-0"), "");
    stage.until_known(&other, 0);
    let mut damaged = batch.clone();
    damaged[60] ^= 1;
    publish_raw(&stage, &[&batch, b"hello", &damaged, &[], &batch]);
    until_logged(&other, "was passed over");
    publish_all(&mut client, &mut 1, &ids("b", 1));
    stage.until_known(&other, 1);
    publish_all(&mut stage.client(&other), &mut 0, &ids("a", 1));
    assert_eq!(stage.metric(&other, "store_damaged_total"), 3.0, "what has no seal is counted");
    // Nor is anything of it believed at a start.
    publish_raw(&stage, &[&batch]);
    relay.kill9();
    relay.restart();
    stage.until_known(&relay, 2);
    assert_eq!(stage.held(), [("a-0".to_owned(), 2), ("b-0".to_owned(), 1)].into());
}

/// Its keys mean nothing to a relay with another secret, scope or place of the id. It says so and ends, instead of knowing nothing.
#[test]
fn a_stream_that_was_written_with_another_secret_scope_or_id_is_refused() {
    if without_relay() {
        return;
    }
    let stage = Stage::new(shared_rabbit(), "stream-secret");
    let relay = stage.relay();
    publish_all(&mut stage.client(&relay), &mut 0, &ids("a", 10));
    for with in [
        With { secret: "ffeeddccbbaa99887766554433221100".to_owned(), ..stage.with() },
        With { window: "scope = \"exchange\"".to_owned(), ..stage.with() },
        With { window: "id = \"header:x-id\"".to_owned(), ..stage.with() },
    ] {
        let (status, log) = Relay::refused(stage.rabbit.addr(), &stage.config(&with));
        assert_eq!(status.code(), Some(1), "{log}");
        assert!(
            log.contains("another digest secret") && log.contains("fix: put back the `digest_secret_file`"),
            "{log}"
        );
    }
}

#[test]
fn a_stream_of_other_arguments_is_used_as_it_is() {
    if without_relay() {
        return;
    }
    let stage = Stage::new(shared_rabbit(), "stream-arguments");
    stage.direct().declare(
        1,
        &stage.stream(),
        &[
            ("x-queue-type", AMQPValue::LongString("stream".into())),
            ("x-max-age", AMQPValue::LongString("1D".into())),
        ],
    );
    let mut relay = stage.relay();
    until_logged(&relay, "the stream has other arguments than the window asks for");
    publish_all(&mut stage.client(&relay), &mut 0, &ids("a", 10));
    relay.restart();
    stage.until_known(&relay, 10);
}

/// A user who may read the stream and write to it is enough, if somebody else declares it.
#[test]
fn a_user_who_may_not_declare_uses_what_is_there() {
    if without_relay() {
        return;
    }
    let stage = Stage::new(shared_rabbit(), "stream-user");
    stage.add_user("reader", "^amq\\\\.default$");
    let with = With { login: "reader:reader".to_owned(), ..stage.with() };
    let relay = stage.relay_with(&With { timeouts: "store = \"100ms\"".to_owned(), ..with.clone() });
    until_logged(&relay, "may not declare it");
    drop(relay);
    let declaring = stage.relay();
    let relay = stage.relay_with(&with);
    publish_all(&mut stage.client(&relay), &mut 0, &ids("a", 10));
    stage.until_known(&declaring, 10);
}

/// Everything in it is gone. The relays go on with a new one, and what they have in memory stays there until they end.
#[test]
fn a_stream_that_was_deleted_is_declared_again() {
    if without_relay() {
        return;
    }
    let stage = Stage::new(shared_rabbit(), "stream-deleted");
    let (mut one, other) = (stage.relay(), stage.relay());
    publish_all(&mut stage.client(&one), &mut 0, &ids("a", 10));
    stage.until_known(&other, 10);
    let delete = queue::Delete { queue: stage.stream().as_str().into(), ..queue::Delete::default() };
    stage.direct().call(1, &AMQPClass::Queue(queue::AMQPMethod::Delete(delete))).unwrap();
    publish_all(&mut stage.client(&one), &mut 0, &ids("b", 10));
    stage.until_known(&other, 20);
    let mut client = stage.client(&other);
    publish_all(&mut client, &mut 0, &ids("a", 10));
    publish_all(&mut client, &mut 10, &ids("b", 10));
    assert!(stage.held().into_values().all(|copies| copies == 1));
    wait::until("it is said aloud", PATIENCE, || {
        [&one, &other].iter().any(|relay| relay.log().contains("the stream was deleted")).then_some(())
    });
    // A relay that starts knows what stands in the new one.
    one.restart();
    stage.until_known(&one, 10);
    let mut client = stage.client(&one);
    publish_all(&mut client, &mut 0, &ids("a", 10));
    publish_all(&mut client, &mut 10, &ids("b", 10));
    assert!(
        stage.held().into_keys().all(|id| id.starts_with("a-")),
        "it had forgotten what stood in the old one alone"
    );
}
