//! Judged publishes that belong to a trace are told of, and only those; without telemetry, none.

use super::desk::{Desk, m, publish};
use crate::support::frames::Message;
use crate::support::methods::ack;
use amq_protocol::types::AMQPValue;
use hapax_core::session::Traced;

const RECORDED: &str = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01";
const NOT_RECORDED: &str = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-00";

fn of(id: &str, parent: &str) -> Message {
    m(id).header("traceparent", AMQPValue::LongString(parent.into()))
}

fn brief(traced: &[Traced]) -> Vec<(&str, &str)> {
    traced.iter().map(|traced| (&*traced.window, traced.verdict)).collect()
}

#[test]
fn a_traced_publish_is_told_of_with_its_parent_its_window_and_its_verdict() {
    let desk = Desk::new();
    let mut pair = desk.confirming();
    pair.session.trace_every(1, 0);
    publish(&mut pair, &of("a", RECORDED));
    pair.upstream(ack(1, 1));
    pair.client(of("a", RECORDED).publish(1) + m("no trace").publish(1) + of("b", NOT_RECORDED).publish(1));
    pair.client(of("c", "00-nonsense").publish(1));
    let traced = pair.traced();
    let window = traced[0].window.clone();
    assert_eq!(brief(&traced), [(&*window, "fresh"), (&*window, "duplicate")]);
    assert_eq!((traced[0].parent.trace[0], traced[0].parent.span[7]), (0x0a, 0x31));
    assert_eq!((&*traced[0].vhost, traced[0].left_out), (&b"/"[..], 0));
}

#[test]
fn every_third_is_looked_at_and_without_telemetry_none() {
    let desk = Desk::new();
    let mut pair = desk.confirming();
    for n in 0..6 {
        publish(&mut pair, &of(&n.to_string(), RECORDED));
    }
    assert!(pair.traced().is_empty(), "it is off");
    pair.session.trace_every(3, 1);
    for n in 6..14 {
        publish(&mut pair, &of(&n.to_string(), RECORDED));
    }
    assert_eq!(pair.traced().len(), 3, "after one, and then each third: 7, 10, 13");
}

/// A read full of traced publishes holds no more than a few.
#[test]
fn of_many_in_one_read_the_rest_is_counted() {
    let desk = Desk::new();
    let mut pair = desk.confirming();
    pair.session.trace_every(1, 0);
    let all =
        (0..200).map(|n| of(&n.to_string(), RECORDED).publish(1)).reduce(|all, next| all + next).unwrap();
    pair.client(all);
    assert_eq!(pair.traced().len(), 64);
    pair.to_upstream();
    publish(&mut pair, &of("later", RECORDED));
    assert_eq!(pair.traced()[0].left_out, 136);
}
