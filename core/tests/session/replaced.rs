//! Windows that are added, removed and exchanged under sessions that run: what was judged keeps its window, what comes next gets the
//! new one.

use super::desk::{SECOND, begin_tx, confirm, key, m, publish, unheard};
use crate::support::frames::{Frames, Message, message};
use crate::support::methods::{
    ack, ack_multiple, nack, tx_commit, tx_commit_ok, tx_rollback, tx_rollback_ok,
};
use crate::support::pair::{NoSessionListener, Pair, epoch, settings, shared};
use amq_protocol::types::AMQPValue;
use hapax_core::session::Shared;
use hapax_core::window::engine::EngineKind;
use hapax_core::window::event::NoListener;
use hapax_core::window::set::Pattern;
use hapax_core::window::{
    ConfirmRule, Limits, LiveWindows, LocalWindow, Mode, RepublishRule, Rules, WindowSet,
};
use hapax_core::wire::IdSource;
use std::sync::Arc;

const HEADER: &str = "x-id";

fn window(change: impl FnOnce(&mut Rules)) -> Arc<LocalWindow> {
    let mut rules = Rules { verify_routing: false, ..Rules::named("w") };
    change(&mut rules);
    let limits = Limits {
        capacity: 1000,
        ttl: 60 * SECOND,
        mode: Mode::Enforce,
        refresh_on_duplicate: false,
        waiters_per_id: 10,
    };
    LocalWindow::new(rules, limits, EngineKind::default(), Arc::new(NoListener))
}

fn plain() -> Arc<LocalWindow> {
    window(|_| ())
}

fn everything(window: &Arc<LocalWindow>) -> WindowSet {
    let mut set = WindowSet::new();
    set.push(Pattern::everything(), Pattern::everything(), Arc::clone(window));
    set
}

/// A process whose windows can be replaced.
struct Stage {
    windows: Arc<LiveWindows>,
    shared: Arc<Shared>,
}

impl Stage {
    fn new(set: WindowSet) -> Stage {
        let windows = LiveWindows::new(set);
        let shared = shared(settings(), windows.clone(), Arc::new(NoSessionListener));
        Stage { windows, shared }
    }

    fn pair(&self) -> Pair {
        let mut pair = Pair::new(&self.shared).proving();
        pair.handshake("guest", "/");
        pair.open(1);
        pair
    }

    fn confirming(&self) -> Pair {
        let mut pair = self.pair();
        confirm(&mut pair, 1);
        pair
    }

    fn in_tx(&self) -> Pair {
        let mut pair = self.pair();
        begin_tx(&mut pair);
        pair
    }
}

fn is_seen(window: &LocalWindow, id: &str) -> bool {
    window.get(key(id), epoch()).is_some()
}

/// The client publishes what is known; it gets this ack, and the broker nothing.
fn dropped(pair: &mut Pair, message: &Message, tag: u64) {
    pair.client(message.publish(1));
    assert_eq!((pair.to_upstream(), pair.to_client()), (Frames::none(), ack(1, tag)));
}

#[test]
fn what_was_judged_keeps_its_window_and_what_comes_next_gets_the_new_one() {
    let (old, new) = (plain(), plain());
    let stage = Stage::new(everything(&old));
    let mut pair = stage.confirming();
    publish(&mut pair, &m("a"));
    stage.windows.replace(everything(&new));
    publish(&mut pair, &m("b"));
    pair.upstream(ack_multiple(1, 2));
    assert_eq!(pair.to_client(), ack_multiple(1, 2));
    assert_eq!((is_seen(&old, "a"), is_seen(&new, "a")), (true, false));
    assert_eq!((is_seen(&old, "b"), is_seen(&new, "b")), (false, true));
    dropped(&mut pair, &m("b"), 3);
    assert_eq!((old.in_flight(), new.in_flight()), (0, 0));
}

#[test]
fn the_waiters_of_a_removed_window_are_answered() {
    for stored in [true, false] {
        let old = plain();
        let stage = Stage::new(everything(&old));
        let (mut first, mut second) = (stage.confirming(), stage.confirming());
        publish(&mut first, &m("a"));
        unheard(&mut second, m("a").publish(1));
        stage.windows.replace(WindowSet::new());
        if stored {
            first.upstream(ack(1, 1));
            assert_eq!((second.to_upstream(), second.to_client()), (Frames::none(), ack(1, 1)));
        } else {
            first.upstream(nack(1, 1));
            assert_eq!(second.to_upstream(), m("a").publish(1), "it takes its place");
            second.upstream(ack(1, 1));
            assert_eq!(second.to_client(), ack(1, 1));
        }
        assert_eq!((is_seen(&old, "a"), old.in_flight()), (true, 0));
    }
}

#[test]
fn without_a_window_publishes_pass_and_tags_stay_right() {
    let old = plain();
    let stage = Stage::new(everything(&old));
    let mut pair = stage.confirming();
    publish(&mut pair, &m("a"));
    pair.upstream(ack(1, 1));
    assert_eq!(pair.to_client(), ack(1, 1));
    dropped(&mut pair, &m("a"), 2);
    stage.windows.replace(WindowSet::new());
    publish(&mut pair, &m("a"));
    pair.upstream(ack(1, 2));
    assert_eq!(pair.to_client(), ack(1, 3));
    stage.windows.replace(everything(&old));
    dropped(&mut pair, &m("a"), 4);
}

#[test]
fn a_window_that_is_added_judges_the_next_publish_of_a_session_that_runs() {
    let stage = Stage::new(WindowSet::new());
    let mut pair = stage.confirming();
    publish(&mut pair, &m("a"));
    let new = plain();
    stage.windows.replace(everything(&new));
    publish(&mut pair, &m("a"));
    pair.upstream(ack(1, 1) + ack(1, 2));
    assert_eq!(pair.to_client(), ack_multiple(1, 2));
    dropped(&mut pair, &m("a"), 3);
}

#[test]
fn a_transaction_across_a_change_ends_in_both_windows() {
    for commits in [true, false] {
        let (old, new) = (plain(), plain());
        let stage = Stage::new(everything(&old));
        let mut pair = stage.in_tx();
        publish(&mut pair, &m("a"));
        stage.windows.replace(everything(&new));
        publish(&mut pair, &m("b"));
        assert_eq!((old.in_flight(), new.in_flight()), (1, 1));
        let (ask, answer) =
            if commits { (tx_commit(1), tx_commit_ok(1)) } else { (tx_rollback(1), tx_rollback_ok(1)) };
        pair.client(ask);
        pair.upstream(answer.clone());
        assert_eq!(pair.to_client(), answer);
        assert_eq!((is_seen(&old, "a"), is_seen(&new, "b")), (commits, commits));
        assert_eq!((old.in_flight(), new.in_flight()), (0, 0));
    }
}

/// A message that no queue took is known by the id that its own window reads. If it were taken for a stored one, its retry would be
/// dropped, and the message lost.
#[test]
fn a_message_that_comes_back_is_known_although_the_id_is_elsewhere_now() {
    let old = window(|rules| rules.verify_routing = true);
    let new = window(|rules| {
        rules.verify_routing = true;
        rules.id = IdSource::Header(HEADER.into());
    });
    let stage = Stage::new(everything(&old));
    let mut pair = stage.confirming();
    pair.client(m("a").publish(1));
    assert_eq!(pair.to_upstream(), m("a").mandatory().publish(1));
    stage.windows.replace(everything(&new));
    // The session has learned of the new window before the message comes back.
    let other = message("x", "k").header(HEADER, AMQPValue::LongString("b".into())).body("body");
    pair.client(other.publish(1));
    assert_eq!(pair.to_upstream(), other.clone().mandatory().publish(1));
    pair.upstream(m("a").returned(1) + ack(1, 1) + ack(1, 2));
    assert_eq!(pair.to_client(), ack_multiple(1, 2));
    assert_eq!((is_seen(&old, "a"), is_seen(&new, "b")), (false, true));
    assert_eq!(old.in_flight(), 0);
}

/// A consumer that publishes its delivery again publishes something new, also if the window is younger than the connection.
#[test]
fn a_delivery_under_a_window_that_was_added_may_be_published_again() {
    let stage = Stage::new(WindowSet::new());
    let (mut consumer, mut publisher) = (stage.confirming(), stage.confirming());
    consumer.upstream(m("old").deliver(1, "c", 1));
    consumer.to_client();
    let new = plain();
    stage.windows.replace(everything(&new));
    publish(&mut publisher, &m("a"));
    publisher.upstream(ack(1, 1));
    assert!(is_seen(&new, "a"));
    consumer.upstream(m("a").deliver(1, "c", 2));
    consumer.to_client();
    publish(&mut consumer, &m("a"));
}

#[test]
fn former_places_are_forgotten_when_nothing_is_in_flight_there() {
    let (old, new) = (plain(), plain());
    let stage = Stage::new(everything(&old));
    let mut pair = stage.confirming();
    publish(&mut pair, &m("a"));
    stage.windows.replace(everything(&new));
    stage.windows.let_go(|window| window.in_flight() == 0);
    assert_eq!(stage.windows.former(), 1);
    pair.upstream(ack(1, 1));
    stage.windows.let_go(|window| window.in_flight() == 0);
    assert_eq!(stage.windows.former(), 0);
    // However often the same places come and go, each is remembered once.
    for _ in 0..10 {
        stage.windows.replace(everything(&old));
        stage.windows.replace(everything(&new));
    }
    assert_eq!(stage.windows.former(), 1);
}

/// The message comes back to a window that was moved thousands of times since. No queue took it.
#[test]
fn however_many_places_change_a_return_finds_its_window() {
    let (judge, other) = (plain(), plain());
    let stage = Stage::new(everything(&judge));
    let mut pair = stage.confirming();
    publish(&mut pair, &m("a").mandatory());
    for n in 0..3_000 {
        let mut set = WindowSet::new();
        set.push(Pattern::new(&format!("v{n}")).unwrap(), Pattern::everything(), Arc::clone(&other));
        stage.windows.replace(set);
    }
    pair.upstream(m("a").returned(1) + ack(1, 1));
    assert!(!is_seen(&judge, "a"));
}

/// A process does not replace them without end.
#[test]
fn a_set_with_many_former_places_says_that_it_is_crowded() {
    let windows: Vec<_> = (0..1_024).map(|_| plain()).collect();
    let set = |at: usize| {
        let mut set = WindowSet::new();
        for (n, window) in windows.iter().enumerate() {
            let vhost = Pattern::new(&format!("v{}", n + at)).unwrap();
            set.push(vhost, Pattern::everything(), Arc::clone(window));
        }
        set
    };
    let stage = Stage::new(set(0));
    assert!(!stage.windows.is_crowded());
    stage.windows.replace(set(10_000));
    assert!(stage.windows.is_crowded());
    stage.windows.let_go(|window| window.in_flight() == 0);
    assert!(!stage.windows.is_crowded());
}

/// The window is a good one. A mistake in the configuration takes it away for a while, or puts another in its place, and just then a
/// message is delivered. The consumer publishes it again, and settles what it got. If that is taken for a retry, it is lost.
fn republished_after(meanwhile: Option<&Arc<LocalWindow>>, republish: RepublishRule, before_all: bool) {
    let judge = window(|rules| rules.republish = republish);
    let set = || meanwhile.map_or_else(WindowSet::new, everything);
    let stage = Stage::new(if before_all { set() } else { everything(&judge) });
    let mut consumer = stage.confirming();
    // It is another user, so it has nothing to do with the deliveries of the consumer.
    let mut publisher = Pair::new(&stage.shared).proving();
    publisher.handshake("publisher", "/");
    publisher.open(1);
    confirm(&mut publisher, 1);
    if !before_all {
        publish(&mut publisher, &m("a"));
        publisher.upstream(ack(1, 1));
        publisher.to_client();
        stage.windows.replace(set());
    }
    consumer.upstream(m("a").deliver(1, "c", 1));
    consumer.to_client();
    stage.windows.replace(everything(&judge));
    if before_all {
        publish(&mut publisher, &m("a"));
        publisher.upstream(ack(1, 1));
        publisher.to_client();
    }
    assert!(is_seen(&judge, "a"));
    let mut second = stage.confirming();
    let again = if republish == RepublishRule::Host { &mut second } else { &mut consumer };
    publish(again, &m("a"));
    again.upstream(ack(1, 1));
    assert_eq!(again.to_client(), ack(1, 1));
    // Its own retry is a duplicate, and so are the retries of others.
    dropped(again, &m("a"), 2);
    dropped(&mut stage.confirming(), &m("a"), 1);
}

#[test]
fn a_delivery_that_its_window_did_not_see_may_be_published_again() {
    let header = || window(|rules| rules.id = IdSource::Header(HEADER.into()));
    let other = |republish| window(|rules| rules.republish = republish);
    for before_all in [false, true] {
        for rule in [RepublishRule::Connection, RepublishRule::Host] {
            republished_after(None, rule, before_all);
            republished_after(Some(&header()), rule, before_all);
            republished_after(Some(&other(RepublishRule::Drop)), rule, before_all);
        }
        republished_after(Some(&other(RepublishRule::Connection)), RepublishRule::Host, before_all);
        republished_after(Some(&other(RepublishRule::Host)), RepublishRule::Connection, before_all);
    }
}

/// A window that was there all the time knows each delivery, whatever happens to others.
#[test]
fn a_window_that_stays_takes_retries_of_a_consumer_for_duplicates() {
    let judge = plain();
    let stage = Stage::new(everything(&judge));
    let mut consumer = stage.confirming();
    consumer.upstream(m("a").deliver(1, "c", 1));
    consumer.to_client();
    let mut set = everything(&judge);
    set.push(Pattern::everything(), Pattern::everything(), plain());
    stage.windows.replace(set);
    let mut publisher = stage.confirming();
    publish(&mut publisher, &m("b"));
    publisher.upstream(ack(1, 1));
    dropped(&mut consumer, &m("b"), 1);
    consumer.upstream(m("a").deliver(1, "c", 2));
    consumer.to_client();
    dropped(&mut consumer, &m("b"), 2);
}

/// Nothing says that a written message has its outcome, so nothing is in flight. It may come back as long as its connection is open.
#[test]
fn a_written_message_that_comes_back_late_finds_its_window() {
    let judge = window(|rules| rules.confirms = ConfirmRule::ClientOnly);
    let stage = Stage::new(everything(&judge));
    let mut pair = stage.pair();
    publish(&mut pair, &m("a").mandatory());
    assert_eq!((is_seen(&judge, "a"), judge.in_flight()), (true, 0));
    stage.windows.replace(WindowSet::new());
    let later = stage.pair();
    stage.windows.let_go(|window| window.in_flight() == 0);
    assert_eq!(stage.windows.former(), 1);
    pair.upstream(m("a").mandatory().returned(1));
    assert!(!is_seen(&judge, "a"));
    drop(pair);
    stage.windows.let_go(|window| window.in_flight() == 0);
    assert_eq!(stage.windows.former(), 0, "whoever began after the change holds nothing");
    drop(later);
}
