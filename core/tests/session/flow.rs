//! Point 11: data that waits for the client does not stop the client without a way out. (`session/flow.rs` has a table of the
//! rule itself.)

use super::desk::{Desk, SECOND, m, publish};
use crate::support::frames::Frames;
use crate::support::methods::{ack, ack_multiple, channel_open, connection_close_ok};
use crate::support::pair::Pair;
use hapax_core::session::{Queued, Reading, Room};

const ROOM: Room = Room { buffer: 1_000, unread: Some(10_000) };

/// Returns whether client and upstream may be read from, while this number of bytes waits for the client.
fn reading(pair: &Pair, client: usize) -> (bool, bool) {
    let Reading { client, upstream } = pair.session.reading(Queued { client, upstream: 0 }, ROOM);
    (client, upstream)
}

#[test]
fn p11_a_full_queue_for_the_client_stops_deliveries_and_not_publishes() {
    let mut pair = Desk::new().confirming();
    publish(&mut pair, &m("a"));
    assert_eq!(reading(&pair, 999), (true, true));
    assert_eq!(reading(&pair, 1_000), (true, false));
    assert_eq!(reading(&pair, 10_000), (false, false));
}

#[test]
fn p11_answers_are_read_when_too_many_publishes_are_unresolved() {
    let desk = Desk::with(|plan| plan.settings.max_unresolved = 2);
    let mut pair = desk.confirming();
    pair.client(m("a").publish(1) + m("b").publish(1) + m("c").publish(1));
    assert_eq!(reading(&pair, 1_000), (false, true));
    assert_eq!(reading(&pair, 10_000), (false, false));
    pair.upstream(ack_multiple(1, 2));
    assert_eq!(reading(&pair, 1_000), (true, false), "no more than that is needed");
}

#[test]
fn p11_answers_are_read_when_publishes_wait_for_a_right() {
    let desk = Desk::unproven(|plan| plan.settings.held_bytes = 100);
    let mut pair = desk.confirming();
    pair.client(m("a").body(vec![b'x'; 500]).publish(1));
    assert_eq!(reading(&pair, 1_000), (false, true));
}

/// The client of the first does not read. The second publishes the same ids.
#[test]
fn p15_who_waits_for_an_outcome_does_not_wait_for_a_client_that_does_not_read() {
    let desk = Desk::with(|plan| plan.settings.max_unresolved = 10_000);
    let mut first = desk.confirming();
    let publishes: Vec<u8> = (0..5_000).flat_map(|n| m(&n.to_string()).publish(1).encode()).collect();
    first.client_bytes(&publishes);
    let now = first.now();
    first.session.handle_reading_upstream(false, now);
    first.advance(3 * SECOND);
    assert_eq!(reading(&first, 1_000), (true, false), "nobody waits");
    let mut second = desk.confirming();
    second.client(m("4900").publish(1));
    first.advance(2 * SECOND);
    assert_eq!(reading(&first, 1_000), (true, true));
    assert_eq!(reading(&first, 10_000), (false, false));
    let now = first.now();
    first.session.handle_reading_upstream(true, now);
    first.upstream(ack_multiple(1, 4_901));
    second.pump();
    assert_eq!(second.to_client(), ack(1, 1));
    first.advance(2 * SECOND);
    assert_eq!(reading(&first, 1_000), (true, false), "nobody waits any more");
}

#[test]
fn p11_a_drain_reads_the_outcomes_of_a_client_that_does_not_read() {
    let desk = Desk::new();
    let mut pair = desk.confirming();
    publish(&mut pair, &m("a"));
    pair.drain();
    assert_eq!(reading(&pair, 1_000), (false, true));
}

#[test]
fn p11_a_client_that_does_not_read_is_told_so_and_its_outcomes_are_awaited() {
    let desk = Desk::with(|plan| plan.settings.max_unresolved = 2);
    let mut pair = desk.confirming();
    pair.client(m("a").publish(1) + m("b").publish(1));
    let now = pair.now();
    pair.session.handle_unread(10_000, 60 * SECOND, now);
    let said = format!("{:?}", pair.to_client());
    assert!(said.contains("connection.close 506") && said.contains("10000 bytes"), "{said}");
    // Its frames are read and dropped: it may be in a blocking write, and then it reads the reason. Outcomes are read, too.
    assert_eq!(reading(&pair, 20_000), (true, true));
    pair.to_upstream();
    pair.client(m("too late").publish(1) + channel_open(2));
    assert_eq!(pair.untaken(), 0);
    assert_eq!(pair.to_upstream(), Frames::none());
    pair.upstream(ack_multiple(1, 2));
    assert!(desk.is_seen("a") && desk.is_seen("b"));
    assert!(!desk.is_seen("too late") && desk.in_flight() == 0);
    pair.client(connection_close_ok());
    pair.leave_upstream();
    assert!(pair.client_closed() && pair.session.is_over());
}

#[test]
fn p11_a_client_that_does_not_answer_that_either_is_gone_in_time() {
    let desk = Desk::new();
    let mut pair = desk.confirming();
    publish(&mut pair, &m("a"));
    let now = pair.now();
    pair.session.handle_unread(10_000, 60 * SECOND, now);
    pair.upstream(ack(1, 1));
    pair.advance(10 * SECOND);
    assert!(pair.client_closed() && pair.upstream_closed() && desk.is_seen("a"));
}
