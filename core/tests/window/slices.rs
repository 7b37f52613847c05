//! The asks of one read are judged together, and reservations that were stored together are committed together, window by window.

use crate::{LIMITS, TTL, assert_adds_up, base, window};
use hapax_core::window::engine::EngineKind;
use hapax_core::window::{
    Ask, Committed, ForgetCause, Key, Limits, LocalWindow, Mailbox, Position, Reservation, Reservations,
    Ticket, Verdict, Wait, Window, reserve_one,
};
use proptest::prelude::*;
use std::sync::Arc;
use std::task::{Wake, Waker};

/// A verdict without its guard.
#[derive(PartialEq, Eq, Clone, Copy, Debug)]
enum Said {
    Fresh(Key),
    InFlight(Ticket),
    Crowded,
    Duplicate,
}

/// One window, and the guards that it has given.
struct Side {
    window: Arc<LocalWindow>,
    holder: Arc<dyn Window>,
    mailbox: Arc<Mailbox>,
    reserved: Vec<Reservation>,
    waits: Vec<Wait>,
}

impl Side {
    fn new(engine: EngineKind, limits: Limits, by_handle: bool) -> Side {
        let (window, _) = window(engine, limits);
        let holder: Arc<dyn Window> = if by_handle { window.clone().handle() } else { window.clone() };
        Side { window, holder, mailbox: Arc::default(), reserved: Vec::new(), waits: Vec::new() }
    }

    fn take(&mut self, verdict: Verdict) -> Said {
        match verdict {
            Verdict::Fresh(reservation) => {
                let key = reservation.claim().key();
                self.reserved.push(reservation);
                Said::Fresh(key)
            }
            Verdict::InFlight(wait) => {
                let ticket = wait.ticket();
                self.waits.push(wait);
                Said::InFlight(ticket)
            }
            Verdict::Crowded => Said::Crowded,
            Verdict::Duplicate(_) => Said::Duplicate,
            Verdict::Refused(_) | Verdict::Pending(_) => panic!("a window in memory knows at once"),
        }
    }
}

/// `read` makes the tickets unique.
fn asks(read: u64, keys: &[u8]) -> Vec<Ask> {
    let ask = |(n, key): (u64, &u8)| Ask { claim: Key(u128::from(*key)).into(), ticket: Ticket(n) };
    (read * 1_000..).zip(keys).map(ask).collect()
}

/// There is room for everything.
const ROOMY: Limits = Limits { capacity: 1_000, ..LIMITS };
/// There are as many shards as there can be, so the asks of one lock are judged together.
const LARGE: Limits = Limits { capacity: 65_536, ..LIMITS };

proptest! {
    #![proptest_config(ProptestConfig { cases: 60, ..ProptestConfig::default() })]

    /// A read has the same key several times, and more keys than a window reads ahead at a time. Between reads, ids expire.
    #[test]
    fn a_slice_is_judged_as_its_asks_one_by_one(
        reads in prop::collection::vec((prop::collection::vec(0..40_u8, 0..150), 0..3_u32), 1..6),
        by_handle: bool,
        refresh_on_duplicate: bool,
    ) {
        let small = EngineKind::ALL.map(|engine| (engine, ROOMY));
        for (engine, limits) in small.into_iter().chain([(EngineKind::Compact, LARGE)]) {
            let limits = Limits { waiters_per_id: 2, refresh_on_duplicate, ..limits };
            let (mut together, mut single) =
                (Side::new(engine, limits, by_handle), Side::new(engine, limits, false));
            let mut now = base();
            for (read, (keys, thirds)) in (0..).zip(&reads) {
                now += TTL / 3 * *thirds;
                let asks = asks(read, keys);
                let mut verdicts: Vec<Option<Verdict>> = asks.iter().map(|_| None).collect();
                let mailbox = together.mailbox.clone();
                together.holder.clone().reserve(&asks, now, &mailbox, &mut verdicts);
                let all: Vec<Said> =
                    verdicts.into_iter().map(|verdict| together.take(verdict.unwrap())).collect();
                let mut one = |ask: &Ask| {
                    let verdict = reserve_one(&single.holder, ask.claim, now, &single.mailbox, ask.ticket);
                    single.take(verdict)
                };
                let each: Vec<Said> = asks.iter().map(&mut one).collect();
                prop_assert_eq!(all, each, "{:?}", engine);
                for side in [&mut together, &mut single] {
                    let half = side.reserved.len() / 2;
                    for reservation in side.reserved.drain(half..) {
                        reservation.commit(now, TTL);
                    }
                }
                prop_assert_eq!(together.window.len(), single.window.len());
                prop_assert_eq!(together.window.in_flight(), single.window.in_flight());
                for key in (0..40).map(Key) {
                    prop_assert_eq!(together.window.get(key, now), single.window.get(key, now));
                }
            }
            for mut side in [together, single] {
                side.waits.clear();
                side.reserved.clear();
                prop_assert_eq!(side.window.in_flight(), 0);
                drop(side.holder);
                prop_assert_eq!(Arc::strong_count(&side.window), 1, "no guard is left");
            }
        }
    }
}

/// The result of `push` is about the reservations that were pushed before.
#[test]
fn a_batch_is_of_one_window_and_of_64_at_most() {
    let [(one, told_one), (other, told_other)] = [(); 2].map(|()| window(EngineKind::Compact, ROOMY));
    let (now, mailbox) = (base(), Arc::new(Mailbox::new()));
    let fresh = |of: &Arc<LocalWindow>, n: u128| match reserve_one(of, Key(n), now, &mailbox, Ticket(0)) {
        Verdict::Fresh(reservation) => reservation,
        other => panic!("{other:?}"),
    };
    let mut stored = Reservations::default();
    assert!(stored.commit(now).is_none(), "there is nothing to commit");
    for n in 0..64 {
        assert!(stored.push(fresh(&one, n), now, TTL).is_none());
    }
    assert_eq!((one.len(), one.in_flight()), (0, 64));
    assert!(matches!(stored.push(fresh(&one, 64), now, TTL), Some(Committed::Now)), "it was full");
    assert_eq!((one.len(), one.in_flight()), (64, 1));
    assert!(matches!(stored.push(fresh(&other, 1), now, TTL), Some(Committed::Now)), "of another window");
    assert_eq!((one.len(), other.len(), other.in_flight()), (65, 0, 1));
    assert!(matches!(stored.commit(now), Some(Committed::Now)));
    assert_eq!((other.len(), other.in_flight()), (1, 0));
    // A batch that is dropped forgets its reservations.
    drop(stored.push(fresh(&other, 2), now, TTL));
    drop(stored);
    assert_eq!(other.in_flight(), 0);
    assert_adds_up(&one, &told_one);
    assert_adds_up(&other, &told_other);
}

/// Two handles of a window are one window.
#[test]
fn handles_of_one_window_share_a_batch() {
    let (window, _) = window(EngineKind::Compact, ROOMY);
    let handles = [window.clone().handle(), window.clone().handle()];
    let (now, mailbox) = (base(), Arc::new(Mailbox::new()));
    let mut stored = Reservations::default();
    for n in 0..10_usize {
        let key = Key(n as u128);
        let Verdict::Fresh(reservation) = reserve_one(&handles[n % 2], key, now, &mailbox, Ticket(0)) else {
            panic!("not fresh")
        };
        assert!(stored.push(reservation, now, TTL).is_none());
    }
    assert!(matches!(stored.commit(now), Some(Committed::Now)));
    assert_eq!((window.len(), window.in_flight()), (10, 0));
}

struct Rung(std::sync::atomic::AtomicUsize);

impl Wake for Rung {
    fn wake(self: Arc<Self>) {
        self.0.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
    }
}

/// A session that registers between a call and its `take` is not left asleep.
#[test]
fn a_mailbox_that_is_called_wakes_its_session_once() {
    let (mailbox, rung) = (Arc::new(Mailbox::new()), Arc::new(Rung(0.into())));
    let (waker, count) = (Waker::from(rung.clone()), || rung.0.load(std::sync::atomic::Ordering::Relaxed));
    assert!(!mailbox.register(&waker));
    mailbox.call();
    assert_eq!(count(), 1);
    assert!(mailbox.register(&waker), "it was called and has not looked yet");
    assert!(mailbox.take().is_empty());
    assert!(!mailbox.register(&waker), "the call was heard");
    // A window that remembers at once has nothing to wait for.
    let (window, _) = window(EngineKind::default(), LIMITS);
    window.tell_when(Position(7), &mailbox);
    assert_eq!((count(), mailbox.register(&waker)), (2, true));
}

/// The place that the verdict holds stays in the queue.
#[test]
fn a_wait_that_has_its_answer_takes_no_place_away() {
    let (window, accounting) = window(EngineKind::default(), LIMITS);
    let (now, mailbox) = (base(), Arc::new(Mailbox::new()));
    let ask = |n, ticket| reserve_one(&window, Key(n), now, &mailbox, Ticket(ticket));
    let Verdict::Fresh(first) = ask(1, 1) else { panic!("not fresh") };
    let Verdict::InFlight(wait) = ask(1, 2) else { panic!("not in flight") };
    let Verdict::InFlight(again) = wait.overdue(Ticket(3), now) else { panic!("not in flight any more") };
    again.answered();
    first.forget(ForgetCause::Nack);
    let mut letters = mailbox.take();
    let Some((Ticket(3), Verdict::Fresh(second))) = letters.pop() else { panic!("its place was taken away") };
    second.commit(now, TTL);
    assert!(letters.is_empty() && matches!(ask(1, 4), Verdict::Duplicate(_)));
    assert_adds_up(&window, &accounting);
}
