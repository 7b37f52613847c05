//! `confirms = "client-only"` and a client without confirms: an id is committed when it is written, and what shows later that
//! it was not stored forgets it.

use super::desk::{Desk, confirm, m};
use crate::support::frames::{Frames, message};
use crate::support::methods::{ack, channel_close_for, channel_close_ok, publish_refused, queue_declare};
use crate::support::pair::Pair;
use hapax_core::window::{ConfirmRule, Event};

fn client_only() -> Desk {
    Desk::with(|plan| {
        plan.rules.confirms = ConfirmRule::ClientOnly;
        plan.limits.capacity = 10_000;
    })
}

fn seen<const N: usize>(desk: &Desk, ids: [&str; N]) -> [bool; N] {
    ids.map(|id| desk.is_seen(id))
}

/// The client has sent these, and they were written as they are.
fn write(pair: &mut Pair, frames: Frames) {
    let written = frames.clone();
    pair.client(frames);
    assert_eq!(pair.to_upstream(), written);
}

#[test]
fn p07_client_only_a_return_forgets_what_was_committed_at_its_writing() {
    let desk = client_only();
    let mut pair = desk.pair();
    let a = m("a").mandatory();
    write(&mut pair, a.publish(1) + m("b").mandatory().publish(1) + m("c").publish(1));
    assert_eq!(seen(&desk, ["a", "b", "c"]), [true, true, true]);
    pair.upstream(a.returned(1));
    assert_eq!(pair.to_client(), a.returned(1));
    assert_eq!(seen(&desk, ["a", "b", "c"]), [false, true, true]);
    write(&mut pair, a.publish(1));
}

#[test]
fn p07_client_only_a_return_with_an_altered_header_forgets_all_that_it_may_mean() {
    let desk = client_only();
    let mut pair = desk.pair();
    write(&mut pair, m("a").mandatory().publish(1) + m("b").mandatory().publish(1) + m("c").publish(1));
    write(&mut pair, message("x", "other").id("d").mandatory().publish(1));
    pair.upstream(m("a").app("added by the broker").returned(1));
    assert_eq!(seen(&desk, ["a", "b", "c"]), [false, false, true]);
    assert!(desk.is_seen_at("x", "other", "d"));
}

#[test]
fn p07_client_only_a_return_of_a_bypassed_message_forgets_nothing() {
    let desk = client_only();
    let mut pair = desk.pair();
    let bypassed = m("a").bypass().mandatory();
    write(&mut pair, m("a").mandatory().publish(1) + bypassed.publish(1));
    pair.upstream(bypassed.returned(1));
    assert!(desk.is_seen("a"));
}

#[test]
fn p07_client_only_a_close_that_names_the_exchange_forgets_what_went_there() {
    for (code, text) in [
        (404, "NOT_FOUND - no exchange 'y' in vhost '/'"),
        (403, "ACCESS_REFUSED - access to exchange 'y' in vhost '/' refused for user 'guest'"),
    ] {
        let desk = client_only();
        let mut pair = desk.pair();
        write(&mut pair, m("a").publish(1) + message("y", "k").id("b").publish(1) + m("c").publish(1));
        assert_eq!(seen(&desk, ["a", "c"]), [true, true]);
        assert!(desk.is_seen_at("y", "k", "b"));
        pair.upstream(publish_refused(1, code, text));
        assert!(!desk.is_seen_at("y", "k", "b"));
        assert_eq!(seen(&desk, ["a", "c"]), [true, false], "the broker has never looked at c");
        pair.client(channel_close_ok(1));
    }
}

#[test]
fn p07_client_only_a_close_that_blames_another_method_forgets_nothing() {
    let desk = client_only();
    let mut pair = desk.pair();
    write(&mut pair, m("a").publish(1));
    pair.upstream(channel_close_for(1, 404, "NOT_FOUND - no exchange 'x' in vhost '/'", (50, 20)));
    assert!(desk.is_seen("a"));
}

#[test]
fn p07_client_only_what_was_not_written_whole_is_not_the_culprit() {
    let desk = client_only();
    let mut pair = desk.pair();
    let (here, _) = super::desk::cut(super::desk::two("b").publish(1), 3);
    write(&mut pair, m("a").publish(1) + here);
    pair.upstream(publish_refused(1, 406, "PRECONDITION_FAILED - invalid expiration 'soon'"));
    assert_eq!(seen(&desk, ["a", "b"]), [false, false]);
    assert_eq!(desk.in_flight(), 0);
}

/// Nor where nobody judges it.
#[test]
fn p07_client_only_what_is_bypassed_and_not_written_whole_is_not_the_culprit() {
    let desk = client_only();
    let mut pair = desk.pair();
    let (here, _) = super::desk::cut(super::desk::two("b").bypass().publish(1), 3);
    write(&mut pair, m("a").publish(1) + here);
    pair.upstream(publish_refused(1, 406, "PRECONDITION_FAILED - invalid expiration 'soon'"));
    assert!(!desk.is_seen("a"));
}

#[test]
fn p07_client_only_so_many_are_remembered_and_no_more() {
    let desk = client_only();
    let mut pair = desk.pair();
    let all: Vec<_> = (0..5_000).map(|n| m(&format!("{n}")).mandatory()).collect();
    all.iter().for_each(|message| pair.client(message.publish(1)));
    for n in [0, 900, 1_000, 4_999] {
        pair.upstream(all[n].returned(1));
    }
    assert_eq!(seen(&desk, ["1000", "4999"]), [false, false], "of the last 4,096");
    // A return that looks like none of the remembered publishes may belong to any of them, so all of them are forgotten.
    assert_eq!(seen(&desk, ["0", "900", "903"]), [true, true, true]);
    assert_eq!(seen(&desk, ["905", "4998"]), [false, false]);
}

#[test]
fn p07_client_only_an_ack_of_something_later_ends_the_matter() {
    let desk = client_only();
    let mut pair = desk.pair();
    let a = m("a").mandatory();
    write(&mut pair, a.publish(1));
    confirm(&mut pair, 1);
    write(&mut pair, m("b").mandatory().publish(1) + a.bypass().publish(1));
    pair.upstream(m("a").mandatory().returned(1));
    assert!(!desk.is_seen("a"), "it comes before what has confirms");
    pair.upstream(ack(1, 1));
    assert!(desk.is_seen("b"), "and the return was not that of b");
    pair.upstream(publish_refused(1, 404, "NOT_FOUND - no exchange 'x' in vhost '/'"));
    assert!(desk.is_seen("b"));
}

/// The id is committed when the first message is written, so the others of the same read wait for nothing.
#[test]
fn copies_in_one_read_do_not_stop_the_channel() {
    let desk = Desk::with(|plan| {
        plan.rules.confirms = ConfirmRule::ClientOnly;
        plan.limits.waiters_per_id = 0;
    });
    let mut pair = desk.pair();
    pair.client(m("shown").publish(1));
    pair.to_upstream();
    pair.client(
        m("a").publish(1) + m("a").publish(1) + m("b").publish(1) + m("a").publish(1) + queue_declare(1, "q"),
    );
    assert_eq!(pair.to_upstream(), m("a").publish(1) + m("b").publish(1) + queue_declare(1, "q"));
    assert_eq!((desk.count(Event::InFlight), desk.in_flight()), (0, 0));
}
