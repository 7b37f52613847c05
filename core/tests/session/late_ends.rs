//! Windows that answer late, and the ends of those who wait for them: by impatience, by a close, by an answer that comes in an
//! unlucky moment.

use super::desk::{SECOND, cut, m, two, unheard};
use super::late::{COMMITS, VERDICTS, answer, late, late_as, remember, shown, shown_without_confirms};
use crate::support::frames::Frames;
use crate::support::late::Late;
use crate::support::methods::{
    ack, ack_multiple, channel_close, confirm_select, connection_close, consume, consume_ok, nack,
    queue_declare, queue_declare_ok, tx_commit, tx_commit_ok, tx_select, tx_select_ok,
};
use crate::support::pair::Pair;
use hapax_core::window::{BodyDigest, Verdict};
use std::time::Duration;

/// The ways in which a channel or its connection ends.
type End = fn(&mut Pair);

/// The ends of a connection whose client may still have something that waits.
const ENDS: [End; 3] = [
    |pair| pair.client(connection_close(200, "bye")),
    |pair| {
        pair.drain();
        // The rest of the last message does not come.
        pair.advance(5 * SECOND);
        pair.drain_overdue();
    },
    Pair::client_eof,
];

/// A publish that the store has not answered for long has not waited for anybody yet when it learns that its id is in flight.
#[test]
fn patience_counts_from_the_verdict_and_not_from_the_question() {
    for ahead in [true, false] {
        let (desk, late) = late_as(Late { waits_on: true, ..VERDICTS }, |plan| {
            plan.settings.in_flight_timeout = 3 * SECOND;
        });
        let mut pair = shown_without_confirms(&desk, &late);
        let mut other = shown_without_confirms(&desk, &late);
        let first = if ahead { m("x").publish(1) } else { Frames::none() };
        unheard(&mut pair, first.clone() + m("a").publish(1));
        pair.advance(4 * SECOND);
        other.advance(4 * SECOND);
        other.client(m("a").publish(1));
        let asked = late.questions();
        answer(&late, &mut other, asked - 1);
        assert_eq!(other.to_upstream(), m("a").publish(1));
        (1..asked).for_each(|_| answer(&late, &mut pair, 0));
        assert_eq!(pair.to_upstream(), first);
        pair.advance(2 * SECOND);
        other.advance(2 * SECOND);
        assert_eq!(pair.to_upstream(), Frames::none(), "it has waited for two seconds");
        other.upstream(ack(1, 2));
        pair.pump();
        assert_eq!(pair.to_upstream(), Frames::none(), "a duplicate");
    }
}

/// The same with confirms: it is not refused before it has waited.
#[test]
fn a_publish_with_confirms_is_not_refused_before_it_has_waited() {
    let (desk, late) = late_as(Late { waits_on: true, ..VERDICTS }, |plan| {
        plan.settings.in_flight_timeout = 3 * SECOND;
    });
    let (mut pair, mut other) = (shown(&desk, &late), shown(&desk, &late));
    unheard(&mut pair, m("a").publish(1));
    pair.advance(4 * SECOND);
    other.advance(4 * SECOND);
    other.client(m("a").publish(1));
    answer(&late, &mut other, 1);
    answer(&late, &mut pair, 0);
    pair.advance(2 * SECOND);
    other.advance(2 * SECOND);
    assert_eq!(pair.to_client(), Frames::none());
    other.upstream(ack(1, 2));
    pair.pump();
    assert_eq!(pair.to_client(), ack(1, 2));
}

/// A return goes on while replies wait, with its header and its body, and its id is forgotten.
#[test]
fn a_return_goes_on_while_replies_wait() {
    let (desk, late) = late_as(COMMITS, |_| ());
    let mut pair = desk.pair();
    pair.client(tx_select(1));
    pair.upstream(tx_select_ok(1));
    let lost = m("b").mandatory();
    pair.client(m("a").publish(1) + tx_commit(1) + queue_declare(1, "q") + lost.publish(1) + tx_commit(1));
    pair.to_client();
    pair.upstream(tx_commit_ok(1) + queue_declare_ok(1, "q"));
    assert_eq!(pair.to_client(), Frames::none());
    pair.upstream(lost.returned(1));
    assert_eq!(pair.to_client(), lost.returned(1));
    pair.upstream(tx_commit_ok(1));
    remember(&late, &mut pair, 2);
    assert_eq!(pair.to_client(), tx_commit_ok(1) + queue_declare_ok(1, "q") + tx_commit_ok(1));
    assert!(desk.is_seen("a") && !desk.is_seen("b"));
    assert_eq!((pair.session.unresolved(), pair.session.held_bytes()), (0, 0));
}

/// No client knows a consumer before its `basic.consume-ok`.
#[test]
fn a_delivery_does_not_overtake_the_reply_that_its_consumer_waits_for() {
    let (desk, late) = late_as(COMMITS, |_| ());
    let mut pair = desk.pair();
    pair.client(tx_select(1) + consume(1, "p", "before"));
    pair.upstream(tx_select_ok(1) + consume_ok(1, "before"));
    pair.client(m("a").publish(1) + tx_commit(1) + consume(1, "q", "new"));
    pair.to_client();
    assert_eq!(
        pair.to_upstream(),
        tx_select(1) + consume(1, "p", "before") + m("a").publish(1) + tx_commit(1)
    );
    let early = m("d").deliver(1, "before", 1);
    pair.upstream(tx_commit_ok(1) + early.clone());
    assert_eq!((pair.to_client(), pair.to_upstream()), (early, Frames::none()));
    remember(&late, &mut pair, 1);
    assert_eq!((pair.to_client(), pair.to_upstream()), (tx_commit_ok(1), consume(1, "q", "new")));
    let new = consume_ok(1, "new") + m("e").deliver(1, "new", 2);
    pair.upstream(new.clone());
    assert_eq!(pair.to_client(), new);
    assert_eq!((pair.session.unresolved(), pair.session.held_bytes()), (0, 0));
}

/// A client without confirms can't know that its publish was dropped, so the publish is sent when the time is over.
#[test]
fn a_silent_clients_publishes_are_not_lost_with_a_silent_store() {
    for (number, end) in ENDS.into_iter().enumerate() {
        let (desk, late) = late_as(Late { waits_on: true, ..VERDICTS }, |_| ());
        let mut pair = shown_without_confirms(&desk, &late);
        desk.store("seen");
        let frames = m("a").publish(1) + m("seen").publish(1) + queue_declare(1, "q") + m("b").publish(1);
        unheard(&mut pair, frames);
        // The first one comes in two reads, and so does the second one, but not all of it.
        let (here, to_come) = cut(two("c").publish(1), 3);
        unheard(&mut pair, here);
        unheard(&mut pair, to_come + cut(two("d").publish(1), 3).0);
        answer(&late, &mut pair, 1);
        end(&mut pair);
        pair.advance(11 * SECOND);
        let told = format!("{:?}", pair.to_upstream());
        assert_eq!(told.matches("publish").count(), 3, "end {number}: {told}");
        assert_eq!(told.matches("#1 body").count(), 4, "end {number}: {told}");
        assert_eq!((desk.in_flight(), pair.session.held_bytes()), (0, 0));
    }
}

/// A client that has selected confirms publishes again what has no ack. Forwarded unjudged, that could be stored twice.
#[test]
fn what_stands_behind_a_confirm_select_is_not_sent_when_the_time_is_over() {
    for (number, end) in ENDS.into_iter().enumerate() {
        let (desk, late) = late_as(Late { waits_on: true, ..VERDICTS }, |_| ());
        let mut pair = shown_without_confirms(&desk, &late);
        unheard(&mut pair, m("a").publish(1) + confirm_select(1) + m("b").publish(1) + m("c").publish(1));
        end(&mut pair);
        pair.advance(11 * SECOND);
        let told = format!("{:?}", pair.to_upstream());
        assert_eq!(told.matches("publish").count(), 1, "end {number}: {told}");
        assert_eq!((desk.in_flight(), pair.session.held_bytes()), (0, 0));
    }
}

/// The answer to an earlier question of a publish that asks again is not taken for the answer to the later one.
#[test]
fn pending_crowded_and_asked_again_is_another_question() {
    let (desk, late) = late(|plan| plan.limits.waiters_per_id = 0);
    let mut first = shown(&desk, &late);
    first.client(m("a").publish(1));
    answer(&late, &mut first, 0);
    first.to_upstream();
    let mut pair = shown_without_confirms(&desk, &late);
    unheard(&mut pair, m("a").publish(1));
    let ticket = late.tickets()[0];
    answer(&late, &mut pair, 0);
    pair.advance(Duration::from_millis(20));
    assert_eq!(late.questions(), 1, "it asks again");
    first.upstream(nack(1, 2));
    pair.session.mailbox().clone().deliver(ticket, Verdict::Duplicate(BodyDigest::UNKNOWN));
    pair.pump();
    answer(&late, &mut pair, 0);
    assert_eq!(pair.to_upstream(), m("a").publish(1));
}

/// A publish that finds no room takes over in the end, although each question is answered later.
#[test]
fn a_publish_that_never_finds_room_takes_over_by_late_answers() {
    let (desk, late) = late(|plan| {
        plan.limits.waiters_per_id = 0;
        plan.settings.in_flight_timeout = 3 * SECOND;
    });
    let mut first = shown(&desk, &late);
    first.client(m("a").publish(1));
    answer(&late, &mut first, 0);
    let mut pair = shown_without_confirms(&desk, &late);
    unheard(&mut pair, m("a").publish(1));
    for round in 0..200 {
        assert_eq!(pair.to_upstream(), Frames::none(), "{round}");
        if late.answer_next(0, pair.now()) {
            pair.pump();
        }
        if pair.now() >= first.now() + 3 * SECOND {
            break;
        }
        pair.advance(Duration::from_millis(20));
    }
    assert_eq!(pair.to_upstream(), m("a").publish(1));
    pair.upstream(ack(1, 2));
    assert_eq!((pair.session.unresolved(), pair.session.held_bytes()), (0, 0));
}

/// The same for a publish that waits aside, and whose window tells it again and again that there is no room.
#[test]
fn a_publish_aside_that_never_finds_room_takes_over_by_late_answers() {
    let (desk, late) = late(|plan| plan.settings.in_flight_timeout = 3 * SECOND);
    let mut first = shown(&desk, &late);
    first.client(m("a").publish(1));
    answer(&late, &mut first, 0);
    let mut pair = shown_without_confirms(&desk, &late);
    unheard(&mut pair, m("a").publish(1));
    let mut ticket = late.tickets()[0];
    answer(&late, &mut pair, 0);
    for round in 0..200 {
        pair.session.mailbox().clone().deliver(ticket, Verdict::Crowded);
        pair.pump();
        if pair.now() >= first.now() + 3 * SECOND {
            break;
        }
        assert_eq!(pair.to_upstream(), Frames::none(), "{round}");
        pair.advance(Duration::from_millis(20));
        ticket = *late.tickets().last().unwrap();
    }
    assert_eq!(pair.to_upstream(), m("a").publish(1));
}

/// A window that remembers a commit and calls nobody is not waited for without end.
#[test]
fn a_commit_is_not_overdue_if_its_window_remembers_it() {
    let (desk, late) = late_as(Late { waits_on: true, ..COMMITS }, |_| ());
    let mut pair = shown(&desk, &late);
    pair.client(m("a").publish(1) + m("b").publish(1));
    pair.upstream(ack(1, 2));
    late.remember_silently(pair.now());
    pair.upstream(ack(1, 3));
    pair.advance(SECOND);
    assert_eq!(pair.to_client(), ack(1, 2), "b is not remembered");
    assert_eq!(pair.session.poll_timeout().map(|at| at > pair.now()), Some(true));
}

/// A client without confirms whose channel is closed by Hapax does not hear that its publishes were dropped.
#[test]
fn a_channel_that_is_refused_still_sends_what_its_silent_client_has_published() {
    let (desk, late) = late(|_| ());
    let mut pair = shown_without_confirms(&desk, &late);
    unheard(&mut pair, m("a").publish(1) + m("b").publish(1) + two("c").publish(1));
    unheard(&mut pair, cut(two("d").publish(1), 3).0);
    let now = pair.now();
    pair.session.handle_memory_pressure(0, now);
    pair.pump();
    assert!(format!("{:?}", pair.to_client()).contains("channel.close"));
    assert_eq!(late.questions(), 3, "d will never be whole");
    (0..3).for_each(|_| answer(&late, &mut pair, 0));
    assert_eq!(pair.to_upstream(), m("a").publish(1) + m("b").publish(1) + two("c").publish(1));
    pair.upstream(ack_multiple(1, 4));
    assert!(format!("{:?}", pair.to_upstream()).contains("channel.close"));
    assert_eq!((desk.in_flight(), pair.session.unresolved(), pair.session.held_bytes()), (0, 0, 0));
    let mut pair = shown_without_confirms(&desk, &late);
    unheard(&mut pair, cut(two("d").publish(1), 3).0);
    assert_eq!(late.questions(), 1);
    pair.session.handle_memory_pressure(0, now);
    pair.pump();
    assert_eq!((late.questions(), pair.session.held_bytes()), (0, 0), "nobody asks for d any more");
}

#[test]
fn a_channel_that_is_refused_sends_what_its_silent_client_has_published_although_the_store_is_silent() {
    let (desk, late) = late_as(Late { waits_on: true, ..VERDICTS }, |_| ());
    let mut pair = shown_without_confirms(&desk, &late);
    unheard(&mut pair, m("a").publish(1) + m("b").publish(1));
    let now = pair.now();
    pair.session.handle_memory_pressure(0, now);
    pair.advance(9 * SECOND);
    assert_eq!(pair.to_upstream(), Frames::none());
    pair.advance(2 * SECOND);
    let told = format!("{:?}", pair.to_upstream());
    assert!(told.matches("publish").count() == 2 && told.contains("channel.close"), "{told}");
    assert_eq!((late.questions(), pair.session.held_bytes()), (0, 0));
}

/// Every way in which the publishes of a read can end gives all of it back.
#[test]
fn nothing_is_left_of_a_read_whose_channel_ends() {
    let ends: [(&str, End); 6] = [
        ("upstream's channel.close", |pair| {
            pair.upstream(channel_close(1, 404, "no"));
        }),
        ("upstream's eof", Pair::upstream_eof),
        ("client's eof", Pair::client_eof),
        ("drain", Pair::drain),
        ("connection.close", |pair| pair.client(connection_close(200, "bye"))),
        ("memory", |pair| {
            let now = pair.now();
            pair.session.handle_memory_pressure(0, now);
            pair.pump();
        }),
    ];
    for (name, end) in ends {
        for confirms in [true, false] {
            let (desk, late) = late_as(Late { waits_on: true, ..VERDICTS }, |_| ());
            let mut other = shown_without_confirms(&desk, &late);
            let mut pair = if confirms { shown(&desk, &late) } else { shown_without_confirms(&desk, &late) };
            unheard(&mut pair, m("a").publish(1) + m("b").publish(1) + m("b").publish(1) + m("c").publish(1));
            unheard(&mut pair, queue_declare(1, "q") + two("d").publish(1));
            (0..3).for_each(|_| answer(&late, &mut pair, 1));
            unheard(&mut other, m("b").publish(1));
            answer(&late, &mut other, 1);
            assert_eq!(other.to_upstream(), Frames::none());
            end(&mut pair);
            pair.pump();
            pair.advance(11 * SECOND);
            pair.advance(11 * SECOND);
            other.advance(22 * SECOND);
            let left = (late.questions(), pair.session.held_bytes());
            assert_eq!(left, (0, 0), "{name}, confirms {confirms}");
            let told = format!("{:?}{:?}", pair.to_upstream(), other.to_upstream());
            // Without confirms it is sent in the end, and in doubt if the upstream does not answer. It is never lost.
            let sent = told.matches("id=b").count();
            assert!(sent == 1 || (2..=3).contains(&sent) && !confirms, "{name}, confirms {confirms}: {told}");
        }
    }
}

/// A publish that found no room is in no queue: nobody knows whether the same one has the id all the time.
#[test]
fn a_publish_that_found_no_room_long_ago_is_patient_with_whoever_has_the_id_now() {
    let (desk, late) = late_as(Late { waits_on: true, ..VERDICTS }, |plan| {
        plan.limits.waiters_per_id = 0;
        plan.settings.in_flight_timeout = 3 * SECOND;
    });
    let (mut first, mut second) = (shown(&desk, &late), shown(&desk, &late));
    let mut pair = shown_without_confirms(&desk, &late);
    first.client(m("a").publish(1));
    answer(&late, &mut first, 0);
    unheard(&mut pair, m("x").publish(1) + m("a").publish(1));
    answer(&late, &mut pair, 1);
    [&mut first, &mut second, &mut pair].into_iter().for_each(|pair| pair.advance(4 * SECOND));
    first.upstream(nack(1, 2));
    second.client(m("a").publish(1));
    answer(&late, &mut second, 1);
    assert_eq!(second.to_upstream(), m("a").publish(1));
    answer(&late, &mut pair, 0);
    for _ in 0..50 {
        pair.advance(Duration::from_millis(20));
        if late.answer_next(0, pair.now()) {
            pair.pump();
        }
    }
    assert_eq!(pair.to_upstream(), m("x").publish(1), "the second one has it for a second");
    second.upstream(ack(1, 2));
    pair.advance(Duration::from_millis(20));
    late.answer_next(0, pair.now());
    pair.pump();
    assert_eq!((pair.to_upstream(), pair.session.held_bytes()), (Frames::none(), 0));
}

/// The same for one that asked again, and whose store was silent then.
#[test]
fn a_publish_that_asked_again_in_vain_is_patient_with_whoever_has_the_id_now() {
    let (desk, late) = late_as(Late { waits_on: true, ..VERDICTS }, |plan| {
        plan.limits.waiters_per_id = 0;
        plan.settings.in_flight_timeout = 3 * SECOND;
    });
    let (mut first, mut second) = (shown(&desk, &late), shown(&desk, &late));
    let mut pair = shown_without_confirms(&desk, &late);
    first.client(m("a").publish(1));
    answer(&late, &mut first, 0);
    unheard(&mut pair, m("a").publish(1));
    answer(&late, &mut pair, 0);
    [&mut first, &mut second, &mut pair].into_iter().for_each(|pair| pair.advance(4 * SECOND));
    first.upstream(nack(1, 2));
    second.client(m("a").publish(1));
    answer(&late, &mut second, 1);
    assert_eq!(second.to_upstream(), m("a").publish(1));
    answer(&late, &mut pair, 0);
    assert_eq!(pair.to_upstream(), Frames::none(), "the second one has just got it");
    for _ in 0..200 {
        pair.advance(Duration::from_millis(20));
        if late.answer_next(0, pair.now()) {
            pair.pump();
        }
    }
    assert_eq!(pair.to_upstream(), m("a").publish(1), "but not for ever");
}
