//! Turns: what a session handles of a read before others get theirs.

use super::desk::{Desk, m, publish};
use crate::support::frames::Frames;
use crate::support::methods::{ack, channel_close, channel_open};

fn opened(channels: impl IntoIterator<Item = u16>) -> Frames {
    channels.into_iter().fold(Frames::none(), |all, channel| all + channel_open(channel))
}

#[test]
fn a_turn_has_so_many_frames_and_the_next_one_goes_on_behind_them() {
    let desk = Desk::new();
    let mut pair = desk.confirming();
    pair.turn(10);
    pair.client(opened(2..=26) + channel_close(1, 200, ""));
    assert_eq!(pair.to_upstream(), opened(2..=11));
    assert!(pair.session.is_turn_over() && !pair.session.wants_client());
    // What the broker says meanwhile takes nothing away, and gives nothing.
    pair.upstream(Frames::none());
    assert_eq!(pair.to_upstream(), Frames::none());
    pair.turn(10);
    assert_eq!(pair.to_upstream(), opened(12..=21));
    pair.turn(10);
    assert_eq!(pair.to_upstream(), opened(22..=26) + channel_close(1, 200, ""));
    assert!(!pair.session.is_turn_over() && pair.session.wants_client());
}

#[test]
fn what_was_read_before_the_client_left_is_handled_to_its_end() {
    let desk = Desk::new();
    let mut pair = desk.confirming();
    pair.turn(1);
    // Each of them interrupts the run of publishes.
    pair.client(m("a").publish(1) + channel_open(2) + m("b").publish(1));
    pair.client_eof();
    for _ in 0..5 {
        pair.turn(1);
    }
    let end = channel_close(2, 200, "the client's channel was closed by hapax");
    assert_eq!(pair.to_upstream(), m("a").publish(1) + channel_open(2) + m("b").publish(1) + end);
}

#[test]
fn publishes_that_stand_behind_each_other_count_as_one() {
    let desk = Desk::new();
    let mut pair = desk.confirming();
    // The ack proves the right, which the next ones need to be judged together.
    publish(&mut pair, &m("first"));
    pair.upstream(ack(1, 1));
    pair.to_client();
    pair.turn(2);
    let all = (0..100).fold(Frames::none(), |all, n| all + m(&format!("{n}")).publish(1));
    pair.client(all.clone());
    assert_eq!(pair.to_upstream(), all);
    assert!(!pair.session.is_turn_over());
    publish(&mut pair, &m("one more"));
}
