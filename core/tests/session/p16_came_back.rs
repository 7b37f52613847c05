//! Point 16, of messages that have died: a queue that delays retries gives them back from another exchange than they were published to, and
//! a consumer of dead letters publishes them where they came from.

use super::desk::{Desk, Line, publish};
use crate::support::frames::{Message, message};
use amq_protocol::types::{AMQPValue, FieldTable};

fn text(text: &str) -> AMQPValue {
    AMQPValue::LongString(text.into())
}

/// A death of a message that was published to the default exchange with these routing keys, as RabbitMQ writes it.
fn death(queue: &str, routing_keys: &[&str], count: i64) -> AMQPValue {
    let mut table = FieldTable::default();
    let keys: Vec<_> = routing_keys.iter().map(|key| text(key)).collect();
    for (name, value) in [
        ("count", AMQPValue::LongLongInt(count)),
        ("exchange", text("")),
        ("queue", text(queue)),
        ("reason", text("expired")),
        ("routing-keys", AMQPValue::FieldArray(keys.into())),
        ("time", AMQPValue::Timestamp(7)),
    ] {
        table.insert(name.into(), value);
    }
    AMQPValue::FieldTable(table)
}

fn to(queue: &str) -> Message {
    message("", queue).id("a")
}

/// The message in a queue, after these deaths.
fn died(queue: &str, deaths: Vec<AMQPValue>) -> Message {
    to(queue).header("x-death", AMQPValue::FieldArray(deaths.into()))
}

fn deliver(line: &mut Line, message: &Message) {
    line.pair.upstream(message.deliver(1, "c", 1));
    assert_eq!(line.pair.to_client(), message.deliver(1, "c", 1));
}

/// The usual retry by hand: to a queue whose messages expire into the queue that they came from. The consumer keeps the id only.
#[test]
fn p16_a_queue_that_delays_retries_gives_it_back_ten_times() {
    let desk = Desk::new();
    let mut line = Line::of(desk.pair());
    assert!(line.passes(&to("work")));
    deliver(&mut line, &to("work"));
    for round in 1..=10 {
        assert!(line.passes(&to("later")), "attempt {round} is lost");
        assert!(!line.passes(&to("later")), "a retry of attempt {round} is stored");
        deliver(&mut line, &died("work", vec![death("later", &["later", "cc"], round)]));
    }
}

#[test]
fn p16_every_place_where_it_died_counts() {
    let desk = Desk::new();
    let mut line = Line::of(desk.pair());
    for queue in ["work", "later", "dead"] {
        assert!(line.passes(&to(queue)) && !line.passes(&to(queue)));
    }
    deliver(&mut line, &died("dead", vec![death("later", &["later"], 1), death("work", &["work"], 1)]));
    for queue in ["work", "later", "dead"] {
        assert!(line.passes(&to(queue)) && !line.passes(&to(queue)), "{queue}");
    }
    assert!(line.passes(&to("cc")), "it was never there");
    assert!(!line.passes(&to("cc")));
}

/// A dead letter that keeps its deaths is one incarnation of the message. The delivery does not let its retry pass.
#[test]
fn p16_a_dead_letter_that_keeps_its_deaths_passes_once() {
    let desk = Desk::new();
    let mut line = Line::of(desk.pair());
    assert!(line.passes(&to("work")));
    deliver(&mut line, &died("dead", vec![death("work", &["work"], 1)]));
    let moved = died("work", vec![death("work", &["work"], 1)]);
    assert!(line.passes(&moved));
    assert!(!line.passes(&moved));
    assert!(!line.passes(&moved));
}

/// Two incarnations of one id wait in the same queue. A consumer that puts both back has published two messages.
#[test]
fn p16_each_incarnation_passes_once() {
    let desk = Desk::new();
    let mut line = Line::of(desk.pair());
    let incarnations: Vec<_> =
        (1..=3).map(|count| died("dead", vec![death("work", &["work"], count)])).collect();
    for incarnation in &incarnations {
        assert!(line.passes(incarnation) && !line.passes(incarnation));
    }
    incarnations.iter().for_each(|incarnation| deliver(&mut line, incarnation));
    for (at, incarnation) in incarnations.iter().enumerate() {
        assert!(line.passes(incarnation), "incarnation {at} is lost");
        assert!(!line.passes(incarnation), "a retry of incarnation {at} is stored");
    }
    // The last one that is delivered again is no licence for the others.
    deliver(&mut line, &incarnations[2]);
    assert!(!line.passes(&incarnations[0]) && line.passes(&incarnations[2]));
}

/// Nobody adds a death: the message itself was delivered, and not the dead letter that was made of it.
#[test]
fn p16_a_delivery_without_deaths_is_no_licence_for_a_dead_letter() {
    let desk = Desk::new();
    let mut line = Line::of(desk.pair());
    let letter = died("work", vec![death("work", &["work"], 1)]);
    assert!(line.passes(&to("work")) && line.passes(&letter));
    deliver(&mut line, &to("work"));
    assert!(!line.passes(&letter));
    assert!(line.passes(&to("work")), "the dead letter has used it up");
}

#[test]
fn p16_a_death_that_others_got_is_no_licence() {
    let desk = Desk::new();
    let (mut line, mut other) = (Line::of(desk.pair()), Line::of(desk.pair()));
    assert!(line.passes(&to("work")));
    deliver(&mut line, &died("dead", vec![death("work", &["work"], 1)]));
    assert!(!other.passes(&to("work")));
    let mut pair = other.pair;
    publish(&mut pair, &message("", "work").id("b"));
}

/// Deaths that can't be read leave no mark of where it died, and the delivery itself counts.
#[test]
fn p16_a_malformed_death_is_a_delivery_like_any_other() {
    let desk = Desk::new();
    let mut line = Line::of(desk.pair());
    assert!(line.passes(&to("work")) && !line.passes(&to("work")));
    for bad in [text("q"), AMQPValue::FieldArray(vec![text("q")].into())] {
        deliver(&mut line, &to("work").header("x-death", bad));
        assert!(line.passes(&to("work")) && !line.passes(&to("work")));
    }
}
