//! Which messages are the same: deaths, routing keys in headers, ids of several parts, and the forms of Hapax's own headers.

use super::desk::{Desk, Line, confirm, m, publish, unheard};
use crate::support::frames::{Frames, Message, message};
use crate::support::methods::ack_multiple;
use amq_protocol::protocol::BasicProperties;
use amq_protocol::types::{AMQPValue, FieldTable};
use hapax_core::window::{Event, MissingId, Scope};
use hapax_core::wire::{BadHeader, IdPart, IdSource};
use std::time::Duration;

fn text(text: &str) -> AMQPValue {
    AMQPValue::LongString(text.into())
}

fn texts<const N: usize>(all: [&str; N]) -> AMQPValue {
    AMQPValue::FieldArray(all.map(text).to_vec().into())
}

/// A table of `x-death`, as RabbitMQ writes it.
fn death(queue: &str, reason: &str, count: i64, time: u64) -> AMQPValue {
    let mut table = FieldTable::default();
    for (name, value) in [
        ("count", AMQPValue::LongLongInt(count)),
        ("exchange", text("")),
        ("queue", text(queue)),
        ("reason", text(reason)),
        ("routing-keys", texts([queue])),
        ("time", AMQPValue::Timestamp(time)),
    ] {
        table.insert(name.into(), value);
    }
    AMQPValue::FieldTable(table)
}

fn died<const N: usize>(message: &Message, deaths: [AMQPValue; N]) -> Message {
    message.clone().header("x-death", AMQPValue::FieldArray(Vec::from(deaths).into()))
}

#[test]
fn a_dead_lettered_message_passes_once_and_its_retries_are_duplicates() {
    let desk = Desk::new();
    let mut line = Line::of(desk.pair());
    let first = m("a");
    assert!(line.passes(&first));
    assert!(!line.passes(&first));
    // Each of these left a queue at another time, for another reason, or another queue.
    for newest in [
        death("q", "expired", 1, 7),
        death("q", "expired", 2, 7),
        death("q", "rejected", 1, 7),
        death("p", "expired", 1, 7),
        death("q", "expired", 1, 8),
    ] {
        let again = died(&first, [newest]);
        assert!(line.passes(&again), "{again:?}");
        assert!(!line.passes(&again), "{again:?}");
    }
    // Only the newest death counts, and it is the first one.
    let again = died(&first, [death("q", "expired", 1, 7), death("old", "rejected", 1, 1)]);
    assert!(!line.passes(&again));
    assert!(line.passes(&died(&first, [death("old", "rejected", 1, 1), death("q", "expired", 1, 7)])));
    assert!(!line.passes(&first));
    assert!(!line.passes(&died(&first, [])), "without a death it is the first publish again");
}

#[test]
fn copies_of_an_incarnation_share_the_outcome_of_the_first() {
    let desk = Desk::new();
    let mut pair = desk.confirming();
    let again = died(&m("a"), [death("q", "expired", 1, 7)]);
    publish(&mut pair, &m("a"));
    publish(&mut pair, &again);
    unheard(&mut pair, again.publish(1));
    pair.upstream(ack_multiple(1, 2));
    assert_eq!(pair.to_client(), ack_multiple(1, 3));
}

#[test]
fn a_malformed_death_is_forwarded_each_time_and_told_once() {
    let desk = Desk::with(|plan| plan.rules.missing_id = MissingId::Reject);
    let mut line = Line::of(desk.pair());
    assert!(line.passes(&m("a")));
    let nameless = AMQPValue::FieldTable(FieldTable::default());
    for bad in [text("q"), texts(["q"]), AMQPValue::FieldArray(vec![nameless].into())] {
        let message = m("a").header("x-death", bad);
        assert!(line.passes(&message) && line.passes(&message), "{message:?}");
    }
    assert_eq!(desk.count(Event::NoId), 6);
    assert_eq!(line.pair.take_bad_headers(), [BadHeader::Death]);
    assert!(line.passes(&m("b").header("CC", text("c"))));
    assert_eq!(line.pair.take_bad_headers(), [BadHeader::Cc]);
}

#[test]
fn routing_keys_in_headers_belong_to_the_scope() {
    let desk = Desk::new();
    let mut line = Line::of(desk.pair());
    let to = |header: &str, keys: AMQPValue| m("a").header(header, keys);
    assert!(line.passes(&m("a")));
    assert!(line.passes(&to("CC", texts(["b"]))));
    assert!(line.passes(&to("CC", texts(["c"]))));
    assert!(line.passes(&to("CC", texts(["b", "c"]))));
    assert!(!line.passes(&to("CC", texts(["c", "b"]))), "in another order");
    assert!(!line.passes(&to("CC", texts(["b", "c", "b"]))), "one of them twice");
    assert!(!line.passes(&to("BCC", texts(["b", "c"]))), "without telling the consumers");
    assert!(!line.passes(&to("CC", texts(["b"])).header("BCC", texts(["c"]))), "in both headers");
    assert!(!line.passes(&to("CC", texts(["k", "b"]))), "the first routing key again");
    assert!(!line.passes(&to("CC", texts(["k"]))) && !line.passes(&to("BCC", texts([]))), "no more keys");
    assert!(line.passes(&to("CC", texts([""]))), "the empty routing key is one");
    for header in ["CC", "BCC"] {
        let refused = to(header, text("b"));
        assert!(line.passes(&refused) && line.passes(&refused), "the broker has to answer");
    }
    assert_eq!(line.pair.take_bad_headers(), [BadHeader::Cc, BadHeader::Bcc]);
}

#[test]
fn in_a_wider_scope_routing_keys_in_headers_do_not_matter() {
    for scope in [Scope::Exchange, Scope::Vhost] {
        let desk = Desk::with(|plan| plan.rules.scope = scope);
        let mut line = Line::of(desk.pair());
        assert!(line.passes(&m("a")));
        assert!(!line.passes(&m("a").header("CC", texts(["b"]))));
        assert!(line.passes(&m("a").header("CC", text("b"))), "the broker has to answer");
        assert!(line.passes(&died(&m("a"), [death("q", "expired", 1, 7)])));
    }
}

/// RabbitMQ 4 refuses a message if its user may not write one of the routing keys in `CC`. Hapax asks for the first key only.
/// Therefore the ids of such messages are each user's own.
#[test]
fn a_user_without_the_right_to_a_key_in_cc_touches_nobody_elses_ids() {
    let desk = Desk::new();
    let copied = m("a").header("CC", texts(["secret"]));
    let (mut alice, mut mallory) = (Line::of(desk.pair()), desk.user("mallory"));
    confirm(&mut mallory, 1);
    publish(&mut mallory, &copied);
    assert!(alice.passes(&copied), "it does not wait for a message of another user");
    assert!(!alice.passes(&copied));
    assert!(!Line::of(desk.pair()).passes(&copied), "the same user on another connection");
    // Where no topic permissions apply, all who may publish share their ids.
    let direct = message("amq.direct", "k").id("a").header("CC", texts(["b"]));
    assert!(alice.passes(&direct));
    assert!(!Line::of(desk.user("bob")).passes(&direct));
}

#[test]
fn an_id_of_several_parts() {
    let parts = [IdPart::MessageId, IdPart::Header("type".into()), IdPart::CorrelationId];
    let desk = Desk::with(|plan| plan.rules.id = IdSource::Parts(parts.into()));
    let mut line = Line::of(desk.pair());
    let of_type = |kind: AMQPValue| m("a").header("type", kind);
    let different = [
        m("a"),
        m("b"),
        of_type(text("x")),
        of_type(text("")),
        of_type(text("1")),
        of_type(AMQPValue::LongInt(1)),
        m("a").correlation("x"),
        m("a").correlation(""),
        of_type(text("x")).correlation("x"),
    ];
    for message in &different {
        assert!(line.passes(message), "{message:?}");
        assert!(!line.passes(message), "{message:?}");
    }
    assert!(!line.passes(&of_type(AMQPValue::Void)), "a void part is an absent one");
    assert!(!line.passes(&of_type(AMQPValue::ShortShortInt(1))), "integers are compared by value");
    assert!(!line.passes(&m("a").header("other", text("x"))), "other headers do not matter");
    // Otherwise all messages without an id and of one type would be the same.
    for nameless in [m("").header("type", text("x")), message("x", "k").header("type", text("x"))] {
        assert!(line.passes(&nameless) && line.passes(&nameless), "the first part is needed");
    }
}

/// As Celery sends it: `self.retry()` publishes the same task id with one retry more, `self.replace()` with another task.
#[test]
fn a_celery_task_passes_again_when_it_is_retried_or_replaced() {
    let names = ["id", "task", "retries", "replaced_task_nesting"];
    let source = IdSource::Parts(names.map(|name| IdPart::Header(name.into())).into());
    let desk = Desk::with(|plan| plan.rules.id = source);
    let mut line = Line::of(desk.pair());
    let task = |name: &str, retries: i32, nesting: i32| {
        message("celery", "celery")
            .correlation("62845044")
            .header("id", text("62845044"))
            .header("task", text(name))
            .header("retries", AMQPValue::LongInt(retries))
            .header("replaced_task_nesting", AMQPValue::LongInt(nesting))
            .header("eta", AMQPValue::Void)
    };
    for message in [task("add", 0, 0), task("add", 1, 0), task("sum", 0, 1), task("add", 0, 1)] {
        assert!(line.passes(&message), "{message:?}");
        assert!(!line.passes(&message), "{message:?}");
    }
    let event = message("celeryev", "worker.heartbeat").header("hostname", text("celery@a"));
    assert!(line.passes(&event) && line.passes(&event), "an event has no task id");
}

#[test]
fn a_body_that_is_the_id_has_deaths_and_routing_keys_too() {
    let desk = Desk::with(|plan| plan.rules.id = IdSource::Body);
    let mut line = Line::of(desk.pair());
    let plain = message("x", "k").body("this is the id");
    for message in [
        plain.clone(),
        plain.clone().header("CC", texts(["b"])),
        plain.clone().header("CC", texts(["c"])),
        died(&plain, [death("q", "expired", 1, 7)]),
        died(&plain, [death("q", "expired", 2, 7)]),
    ] {
        assert!(line.passes(&message), "{message:?}");
        assert!(!line.passes(&message), "{message:?}");
    }
    let refused = plain.header("CC", text("b"));
    assert!(line.passes(&refused) && line.passes(&refused));
}

#[test]
fn a_bypass_may_be_a_text_or_a_number() {
    let desk = Desk::new();
    let mut line = Line::of(desk.pair());
    assert!(line.passes(&m("a")));
    let bypass = |value| m("a").header("x-hapax-bypass", value);
    for value in [text("true"), text("1"), text(" Yes "), AMQPValue::LongInt(1), AMQPValue::Boolean(true)] {
        assert!(line.passes(&bypass(value)));
    }
    assert_eq!((desk.count(Event::Bypassed), line.pair.take_bad_headers()), (5, vec![]));
    for value in [text("false"), text("0"), AMQPValue::LongInt(0), AMQPValue::Void] {
        assert!(!line.passes(&bypass(value)));
    }
    assert_eq!(line.pair.take_bad_headers(), []);
    assert!(!line.passes(&bypass(text("maybe"))) && !line.passes(&bypass(AMQPValue::LongInt(2))));
    assert_eq!(line.pair.take_bad_headers(), [BadHeader::Bypass]);
}

#[test]
fn a_ttl_may_be_a_text_and_a_bad_one_is_the_windows() {
    let desk = Desk::with(|plan| plan.limits.ttl = Duration::from_secs(60));
    let mut line = Line::of(desk.pair());
    let ttl = |id: &str, value| m(id).header("x-cache-ttl", value);
    for (id, value) in [("a", text("500")), ("b", text("0.5s")), ("c", AMQPValue::Double(500.0))] {
        assert!(line.passes(&ttl(id, value)));
    }
    assert!(line.passes(&ttl("bad", text("soon"))) && line.passes(&ttl("less", AMQPValue::LongInt(-1))));
    for id in ["a", "b", "c", "bad", "less"] {
        assert!(!line.passes(&m(id)));
    }
    line.pair.advance(Duration::from_millis(501));
    assert!(["a", "b", "c"].iter().all(|id| line.passes(&m(id))));
    assert!(["bad", "less"].iter().all(|id| !line.passes(&m(id))));
    assert_eq!(line.pair.take_bad_headers(), [BadHeader::CacheTtl]);
}

/// A read of many messages, of which some have a bad header: nothing else changes for the others. The right to publish is proven
/// before the read, or while it waits.
#[test]
fn a_bad_header_in_the_midst_of_a_read_is_told_once() {
    for proven in [0, 1] {
        let desk = Desk::new();
        let mut pair = desk.confirming();
        if proven == 1 {
            publish(&mut pair, &m("z"));
        }
        let bad = m("b").header("x-cache-ttl", text("soon"));
        let all = [m("a"), bad.clone(), m("c"), bad, m("a")];
        let frames = |count| {
            all.iter().take(count).fold(Frames::none(), |frames, message| frames + message.publish(1))
        };
        pair.client(frames(5));
        assert_eq!(pair.to_upstream(), frames(3));
        pair.upstream(ack_multiple(1, 3 + proven));
        assert_eq!(pair.to_client(), ack_multiple(1, 5 + proven));
        assert_eq!(pair.take_bad_headers(), [BadHeader::CacheTtl]);
        assert_eq!(
            desk.count_like(|event| matches!(event, Event::Fresh { .. })),
            [3, 4][usize::from(proven == 1)]
        );
    }
}

#[test]
fn without_an_id_a_death_makes_no_difference() {
    let desk = Desk::new();
    let mut line = Line::of(desk.pair());
    let nameless = died(&m("").properties(BasicProperties::default()), [death("q", "expired", 1, 7)]);
    assert!(line.passes(&nameless) && line.passes(&nameless));
    assert_eq!(desk.count(Event::NoId), 2);
}
