//! Windows with a log: what their clients hear while the store is slow, silent or out of order, and `connection.blocked`.

use super::desk::{Desk, Plan, SECOND, confirm, m, publish, unheard};
use crate::support::frames::{FRAME_MAX, Frames, message, protocol_header};
use crate::support::methods::{
    ack, ack_multiple, blocked, channel_close, channel_close_ok, connection_close, connection_close_ok,
    connection_open, connection_open_ok, consume, consume_ok, nack, start, start_ok_with, tune, tune_ok,
    tx_commit, tx_commit_ok, tx_select, tx_select_ok, unblocked,
};
use crate::support::pair::{NoSessionListener, Pair, epoch, settings, shared};
use hapax_core::window::engine::EngineKind;
use hapax_core::window::event::NoListener;
use hapax_core::window::logged::Record;
use hapax_core::window::set::Pattern;
use hapax_core::window::{
    Inspect, LocalWindow, LoggedWindow, OnOutage, Position, Remember, StorePolicy, WindowSet,
};
use std::sync::Arc;
use std::time::Duration;

const SYNC: StorePolicy = StorePolicy {
    remember: Remember::Sync,
    delay: Duration::from_millis(100),
    on_outage: OnOutage::Continue,
};
const ASYNC: StorePolicy = StorePolicy { remember: Remember::Async, ..SYNC };
const REFUSE: StorePolicy = StorePolicy { on_outage: OnOutage::Refuse, ..SYNC };
const REASON: &str = "hapax: the store of window test is out of order";

/// The window, and a writer whose store takes everything when the test says so.
struct Store {
    window: Arc<LoggedWindow>,
    taken: Vec<(Vec<Record>, Position)>,
}

impl Store {
    fn of(window: &LocalWindow, policy: StorePolicy) -> Store {
        let (rules, limits) = (hapax_core::window::Window::rules(window).clone(), window.limits());
        let window: Arc<LoggedWindow> = LoggedWindow::new(
            rules,
            limits,
            EngineKind::default(),
            Arc::new(NoListener),
            "test",
            policy,
            epoch(),
        );
        window.recovered();
        Store { window, taken: Vec::new() }
    }

    fn write(&mut self, pair: &mut Pair) {
        loop {
            self.taken.extend(self.window.take(1000));
            if self.taken.is_empty() {
                return pair.pump();
            }
            let (_, position) = self.taken.remove(0);
            self.window.written(position, pair.now());
        }
    }

    fn fails(&self, pair: &mut Pair) {
        self.window.store_failed(pair.now());
        pair.pump();
    }

    fn works(&self, pair: &mut Pair) {
        self.window.store_works(pair.now());
        pair.pump();
    }
}

fn logged(policy: StorePolicy, change: impl FnOnce(&mut Plan)) -> (Desk, Store) {
    let mut store = None;
    let desk = Desk::around(change, |window| {
        let made = Store::of(&window, policy);
        store.insert(made).window.clone()
    });
    (desk.proving(), store.unwrap())
}

/// A client whose library understands `connection.blocked`, channel 1 open.
fn capable(desk: &Desk) -> Pair {
    capable_of(Pair::new(&desk.shared).proving())
}

fn capable_of(mut pair: Pair) -> Pair {
    let frame_max = u32::try_from(FRAME_MAX).unwrap();
    pair.client(protocol_header());
    pair.upstream(start());
    pair.client(start_ok_with("PLAIN", "\0guest\0guest", &[("connection.blocked", true)]));
    pair.upstream(tune(2047, frame_max, 0));
    pair.client(tune_ok(2047, frame_max, 0) + connection_open("/"));
    pair.upstream(connection_open_ok());
    pair.to_client_bytes();
    pair.to_upstream_bytes();
    pair.open(1);
    pair
}

/// The same with confirms, after a first message that shows that it may publish.
fn publisher(desk: &Desk, store: &mut Store) -> Pair {
    let mut pair = capable(desk);
    confirm(&mut pair, 1);
    first(&mut pair, store);
    pair
}

fn first(pair: &mut Pair, store: &mut Store) {
    publish(pair, &m("first"));
    pair.upstream(ack(1, 1));
    store.write(pair);
    assert_eq!(pair.to_client(), ack(1, 1));
}

// ---- republish -----------------------------------------------------------------------------------------------------------

fn deliver(pair: &mut Pair, id: &str) {
    pair.upstream(m(id).deliver(1, "c", 1));
    assert_eq!(pair.to_client(), m(id).deliver(1, "c", 1));
}

/// A crash between both would make the message before count again, and its retry would be dropped.
#[test]
fn a_republish_is_forwarded_when_the_store_has_forgotten_the_message_before() {
    for policy in [SYNC, ASYNC, REFUSE] {
        let (desk, mut store) = logged(policy, |_| ());
        let mut pair = publisher(&desk, &mut store);
        deliver(&mut pair, "first");
        unheard(&mut pair, m("first").publish(1) + m("b").publish(1));
        assert!(store.window.is_urgent());
        store.write(&mut pair);
        assert_eq!(pair.to_upstream(), m("first").publish(1) + m("b").publish(1), "in order");
        pair.upstream(ack_multiple(1, 3));
        store.write(&mut pair);
        assert_eq!(pair.to_client(), ack_multiple(1, 3));
        unheard_duplicate(&mut pair, "first", 4);
    }
}

fn unheard_duplicate(pair: &mut Pair, id: &str, tag: u64) {
    pair.client(m(id).publish(1));
    assert_eq!((pair.to_upstream(), pair.to_client()), (Frames::none(), ack(1, tag)));
}

/// They do not wait for each other, and their order stays.
#[test]
fn many_messages_of_a_consumer_wait_for_two_writes() {
    let (desk, mut store) = logged(SYNC, |_| ());
    let mut pair = publisher(&desk, &mut store);
    let ids: Vec<String> = (0..20).map(|n| format!("a{n}")).collect();
    ids.iter().for_each(|id| deliver(&mut pair, id));
    let all = |ids: &[String]| ids.iter().fold(Frames::none(), |frames, id| frames + m(id).publish(1));
    unheard(&mut pair, all(&ids));
    for (waiting, sent) in [(1, &ids[..1]), (19, &ids[1..])] {
        let (records, position) = store.window.take(1000).unwrap();
        assert_eq!(records.len(), waiting, "the first, and then all others together");
        store.window.written(position, pair.now());
        pair.pump();
        assert_eq!(pair.to_upstream(), all(sent));
    }
    pair.upstream(ack_multiple(1, 21));
    store.write(&mut pair);
    assert_eq!(pair.to_client(), ack_multiple(1, 21));
    assert_eq!(pair.session.held_bytes(), 0);
    // And behind a message of somebody else they wait as frames.
    ids[..3].iter().for_each(|id| deliver(&mut pair, id));
    unheard(&mut pair, m("a0").publish(1) + m("new").publish(1) + m("a1").publish(1) + m("a2").publish(1));
    store.write(&mut pair);
    store.write(&mut pair);
    let expected = ["a0", "new", "a1", "a2"].iter().fold(Frames::none(), |f, id| f + m(id).publish(1));
    assert_eq!(pair.to_upstream(), expected);
}

#[test]
fn a_republish_waits_no_longer_than_anybody_for_a_silent_store() {
    let (desk, mut store) = logged(SYNC, |_| ());
    let mut pair = publisher(&desk, &mut store);
    deliver(&mut pair, "first");
    unheard(&mut pair, m("first").publish(1));
    pair.advance(SECOND);
    assert_eq!(pair.to_upstream(), m("first").publish(1), "on_outage = continue");
    let (desk, mut store) = logged(REFUSE, |_| ());
    let mut pair = publisher(&desk, &mut store);
    deliver(&mut pair, "first");
    unheard(&mut pair, m("first").publish(1));
    pair.advance(20 * SECOND);
    assert_eq!(pair.to_upstream(), Frames::none(), "on_outage = refuse");
    store.fails(&mut pair);
    pair.advance(2 * SECOND);
    assert_eq!(pair.to_client(), blocked(REASON), "told, though the store has failed later");
    store.write(&mut pair);
    assert_eq!((pair.to_upstream(), pair.to_client()), (m("first").publish(1), unblocked()));
}

/// Its channel or its client ends before: it was never sent, so its id is unknown.
#[test]
fn a_republish_that_waits_and_is_given_up_holds_nothing() {
    for end in 0..3 {
        let (desk, mut store) = logged(SYNC, |_| ());
        let mut pair = publisher(&desk, &mut store);
        deliver(&mut pair, "first");
        unheard(&mut pair, m("first").publish(1));
        match end {
            0 => pair.client_eof(),
            1 => pair.upstream_eof(),
            _ => pair.upstream(channel_close(1, 404, "gone")),
        }
        store.write(&mut pair);
        pair.advance(20 * SECOND);
        let sent = pair.to_upstream_bytes();
        assert_eq!(store.window.in_flight(), Some(0), "{end} {sent:?}");
        assert_eq!(store.window.entries(), Some(0), "{end}");
    }
}

/// It waited in a body that was not whole.
#[test]
fn a_republish_in_pieces_waits_too() {
    let (desk, mut store) = logged(SYNC, |_| ());
    let mut pair = publisher(&desk, &mut store);
    deliver(&mut pair, "first");
    let (begin, rest) = super::desk::cut(super::desk::two("first").publish(1), 3);
    unheard(&mut pair, begin.clone());
    store.write(&mut pair);
    assert_eq!(pair.to_upstream(), begin);
    pair.client(rest.clone());
    assert_eq!(pair.to_upstream(), rest);
    pair.upstream(ack(1, 2));
    store.write(&mut pair);
    assert_eq!(pair.to_client(), ack(1, 2));
}

// ---- connection.blocked ----------------------------------------------------------------------------------------------------

#[test]
fn a_publisher_is_told_that_it_is_blocked_and_that_it_is_not() {
    let (desk, mut store) = logged(REFUSE, |_| ());
    let mut pair = publisher(&desk, &mut store);
    store.fails(&mut pair);
    pair.advance(5 * SECOND);
    assert_eq!(pair.to_client(), Frames::none(), "it has not published");
    pair.client(m("a").publish(1));
    assert_eq!((pair.to_client(), pair.to_upstream()), (blocked(REASON), Frames::none()));
    unheard(&mut pair, m("b").publish(1) + m("first").publish(1));
    pair.advance(20 * SECOND);
    assert_eq!((pair.to_client(), pair.to_upstream()), (Frames::none(), Frames::none()), "once");
    store.works(&mut pair);
    assert_eq!(pair.to_upstream(), m("a").publish(1) + m("b").publish(1));
    assert_eq!(pair.to_client(), ack(1, 4) + unblocked());
    pair.upstream(ack_multiple(1, 3));
    store.write(&mut pair);
    assert_eq!(pair.to_client(), ack_multiple(1, 3));
    // And again.
    store.fails(&mut pair);
    pair.client(m("c").publish(1));
    assert_eq!(pair.to_client(), blocked(REASON));
    store.works(&mut pair);
    assert_eq!(pair.to_client(), unblocked());
}

/// A client that does not know the method waits. So does one that says that it can't.
#[test]
fn a_client_that_does_not_understand_it_just_waits() {
    let (desk, mut store) = logged(REFUSE, |_| ());
    let mut pair = desk.confirming();
    first(&mut pair, &mut store);
    store.fails(&mut pair);
    unheard(&mut pair, m("a").publish(1));
    pair.advance(10 * SECOND);
    assert_eq!(pair.to_client(), Frames::none());
    store.works(&mut pair);
    assert_eq!((pair.to_upstream(), pair.to_client()), (m("a").publish(1), Frames::none()));
}

/// The rule is to continue: nobody is blocked.
#[test]
fn with_continue_nobody_is_told() {
    let (desk, mut store) = logged(SYNC, |_| ());
    let mut pair = publisher(&desk, &mut store);
    store.fails(&mut pair);
    pair.client(m("a").publish(1));
    pair.upstream(ack(1, 2));
    assert_eq!((pair.to_upstream(), pair.to_client()), (m("a").publish(1), ack(1, 2)));
}

/// The broker has an alarm, too. The client hears the first reason, and the end of the last.
#[test]
fn the_reasons_of_the_broker_and_of_windows_are_one() {
    let orders = [[0, 1, 2, 3], [0, 1, 3, 2], [1, 0, 2, 3], [1, 0, 3, 2]];
    for order in orders {
        let (desk, mut store) = logged(REFUSE, |_| ());
        let mut pair = publisher(&desk, &mut store);
        store.fails(&mut pair);
        let mut said = Vec::new();
        for step in order {
            match step {
                0 => pair.client(m("a").publish(1)),
                1 => pair.upstream(blocked("low on memory")),
                2 => store.works(&mut pair),
                _ => pair.upstream(unblocked()),
            }
            said.push(pair.to_client());
        }
        let reason = if order[0] == 0 { REASON } else { "low on memory" };
        assert_eq!(said, [blocked(reason), Frames::none(), Frames::none(), unblocked()], "{order:?}");
    }
}

/// The window's two states while the broker's come and go: each change is told once.
#[test]
fn the_broker_alone_is_passed_on_as_it_is() {
    let (desk, mut store) = logged(REFUSE, |_| ());
    let mut pair = publisher(&desk, &mut store);
    for _ in 0..2 {
        pair.upstream(blocked("low on disk") + blocked("low on memory") + unblocked());
        assert_eq!(pair.to_client(), blocked("low on disk") + blocked("low on memory") + unblocked());
    }
    store.fails(&mut pair);
    pair.client(m("a").publish(1));
    pair.upstream(blocked("low on disk") + unblocked() + blocked("low on disk"));
    assert_eq!(pair.to_client(), blocked(REASON));
    store.works(&mut pair);
    pair.upstream(unblocked());
    assert_eq!(pair.to_client(), unblocked());
}

/// Others, who do not publish there, hear nothing and go on: a consumer, a publisher to another exchange, a stranger.
#[test]
fn others_notice_nothing() {
    let memory = Desk::new();
    let store = Store::of(&memory.window, REFUSE);
    let mut windows: WindowSet<dyn Inspect> = WindowSet::new();
    windows.push(Pattern::everything(), Pattern::new("x").unwrap(), store.window.clone());
    windows.push(Pattern::everything(), Pattern::everything(), memory.window.clone());
    let all = shared(settings(), Arc::new(windows), Arc::new(NoSessionListener));
    let mut publisher = capable_of(Pair::new(&all).proving());
    let mut other = capable_of(Pair::new(&all).proving());
    let mut consumer = capable_of(Pair::new(&all).proving());
    let mut stranger = Pair::new(&all);
    stranger.client(protocol_header());
    store.fails(&mut publisher);
    publisher.client(m("a").publish(1));
    assert_eq!(publisher.to_client(), blocked(REASON));
    confirm(&mut other, 1);
    for (tag, id) in [(1, "a"), (2, "b")] {
        let message = message("other", "k").id(id).body("body");
        other.client(message.publish(1));
        other.upstream(ack(1, tag));
        assert_eq!((other.to_upstream(), other.to_client()), (message.publish(1), ack(1, tag)));
    }
    consumer.client(consume(1, "q", "c"));
    consumer.upstream(consume_ok(1, "c") + m("a").deliver(1, "c", 1));
    assert_eq!(consumer.to_client(), consume_ok(1, "c") + m("a").deliver(1, "c", 1));
    stranger.upstream(start());
    assert_eq!(stranger.to_client().len(), 1, "connection.start");
    for pair in [&mut other, &mut consumer, &mut stranger] {
        pair.advance(5 * SECOND);
        assert_eq!(pair.to_client(), Frames::none());
    }
    // It publishes there, too, and then it is told. Its other channel goes on.
    other.open(2);
    other.client(m("z").publish(1) + consume(2, "q", "d"));
    assert_eq!((other.to_client(), other.to_upstream()), (blocked(REASON), consume(2, "q", "d")));
}

/// It goes on getting deliveries, and its acks for them pass, on another channel and on its own up to the publish.
#[test]
fn a_consumer_on_the_same_connection_goes_on() {
    let (desk, mut store) = logged(REFUSE, |_| ());
    let mut pair = publisher(&desk, &mut store);
    pair.open(2);
    store.fails(&mut pair);
    pair.client(m("a").publish(1));
    assert_eq!(pair.to_client(), blocked(REASON));
    for channel in [1, 2] {
        pair.upstream(m("x").deliver(channel, "c", 1));
        assert_eq!(pair.to_client(), m("x").deliver(channel, "c", 1));
    }
    pair.client(ack(2, 1));
    assert_eq!(pair.to_upstream(), ack(2, 1));
    unheard(&mut pair, ack(1, 1));
    store.works(&mut pair);
    assert_eq!(pair.to_upstream(), m("a").publish(1) + ack(1, 1), "in order");
}

/// While it waits, what it sends is bounded, and its heartbeats are not late.
#[test]
fn what_a_blocked_client_sends_has_a_bound() {
    let (desk, mut store) = logged(REFUSE, |plan| plan.settings.held_bytes = 2000);
    let mut pair = publisher(&desk, &mut store);
    store.fails(&mut pair);
    for n in 0..100 {
        pair.client(m(&format!("a{n}")).publish(1));
    }
    assert!(pair.session.held_bytes() < 3000 && pair.untaken() > 0, "{}", pair.session.held_bytes());
    assert!(store.window.store(epoch()).unwrap().waiting_publishes < 60);
    store.works(&mut pair);
    pair.pump();
    assert_eq!((pair.session.held_bytes(), pair.untaken()), (0, 0));
}

#[test]
fn a_blocked_client_that_closes_is_answered() {
    let (desk, mut store) = logged(REFUSE, |_| ());
    let mut pair = publisher(&desk, &mut store);
    store.fails(&mut pair);
    pair.client(m("a").publish(1));
    assert_eq!(pair.to_client(), blocked(REASON));
    pair.client(connection_close(200, "bye"));
    pair.advance(11 * SECOND);
    let sent = pair.to_upstream();
    pair.upstream(connection_close_ok());
    pair.advance(10 * SECOND);
    assert_eq!(pair.to_client(), connection_close_ok(), "and never unblocked: {sent:?}");
    store.works(&mut pair);
    assert!(pair.session.is_over() && store.window.in_flight() == Some(0));
}

#[test]
fn a_blocked_channel_that_closes_is_answered_and_the_client_hears_the_end() {
    let (desk, mut store) = logged(REFUSE, |_| ());
    let mut pair = publisher(&desk, &mut store);
    store.fails(&mut pair);
    pair.client(m("a").publish(1) + channel_close(1, 200, "bye"));
    assert_eq!(pair.to_client(), blocked(REASON));
    pair.advance(11 * SECOND);
    pair.upstream(channel_close_ok(1));
    let _ = (pair.to_client(), pair.to_upstream());
    store.works(&mut pair);
    pair.advance(SECOND);
    pair.upstream(channel_close_ok(1));
    let heard = pair.to_client();
    assert!(heard.0.contains(&unblocked().0[0]), "{heard:?}");
}

/// It has gone, and comes again, and again: nothing is kept of those that are gone.
#[test]
fn clients_that_come_and_go_while_a_window_refuses_leave_nothing() {
    let (desk, mut store) = logged(REFUSE, |_| ());
    let mut watcher = publisher(&desk, &mut store);
    store.fails(&mut watcher);
    let before = store.window.store(epoch()).unwrap().waiting_publishes;
    for _ in 0..200 {
        let mut pair = capable(&desk);
        pair.client(m("a").publish(1));
        assert_eq!(pair.to_client(), blocked(REASON));
        pair.client_eof();
        pair.advance(11 * SECOND);
    }
    assert_eq!(store.window.store(epoch()).unwrap().waiting_publishes, before);
    store.works(&mut watcher);
    assert_eq!(watcher.to_client(), Frames::none());
}

/// The publishes of a transaction wait in order, and so does its end.
#[test]
fn a_transaction_waits() {
    let (desk, mut store) = logged(REFUSE, |_| ());
    let mut pair = publisher(&desk, &mut store);
    pair.open(2);
    pair.client(tx_select(2));
    pair.upstream(tx_select_ok(2));
    let _ = (pair.to_client(), pair.to_upstream());
    store.fails(&mut pair);
    pair.client(m("a").publish(2) + tx_commit(2));
    assert_eq!((pair.to_client(), pair.to_upstream()), (blocked(REASON), Frames::none()));
    store.works(&mut pair);
    assert_eq!((pair.to_client(), pair.to_upstream()), (unblocked(), m("a").publish(2) + tx_commit(2)));
    pair.upstream(tx_commit_ok(2));
    assert_eq!(pair.to_client(), Frames::none(), "its id is not written yet");
    store.write(&mut pair);
    assert_eq!(pair.to_client(), tx_commit_ok(2));
}

/// Two windows refuse: the client hears of the first, and of the end of both.
#[test]
fn two_windows_are_one_reason() {
    let memory = Desk::new();
    let stores = [Store::of(&memory.window, REFUSE), Store::of(&memory.window, REFUSE)];
    let mut windows: WindowSet<dyn Inspect> = WindowSet::new();
    windows.push(Pattern::everything(), Pattern::new("x").unwrap(), stores[0].window.clone());
    windows.push(Pattern::everything(), Pattern::new("y").unwrap(), stores[1].window.clone());
    let all = shared(settings(), Arc::new(windows), Arc::new(NoSessionListener));
    let mut pair = capable_of(Pair::new(&all).proving());
    stores.iter().for_each(|store| store.fails(&mut pair));
    pair.open(2);
    pair.client(m("a").publish(1) + message("y", "k").id("a").body("body").publish(2));
    assert_eq!(pair.to_client(), blocked(REASON));
    stores[0].works(&mut pair);
    assert_eq!(pair.to_client(), Frames::none());
    stores[1].works(&mut pair);
    assert_eq!(pair.to_client(), unblocked());
}

/// What was nacked meanwhile, and what was acked and not written, is told when the store is back.
#[test]
fn outcomes_of_what_was_forwarded_before_come_in_their_time() {
    let (desk, mut store) = logged(REFUSE, |_| ());
    let mut pair = publisher(&desk, &mut store);
    publish(&mut pair, &m("a"));
    publish(&mut pair, &m("b"));
    store.fails(&mut pair);
    pair.upstream(ack(1, 2) + nack(1, 3));
    assert_eq!(pair.to_client(), nack(1, 3));
    pair.advance(10 * SECOND);
    assert_eq!(pair.to_client(), Frames::none());
    store.write(&mut pair);
    assert_eq!(pair.to_client(), ack(1, 2));
}
