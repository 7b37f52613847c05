//! On every engine, the work of a window must grow linearly with the number of calls, and not with its square. (The
//! cost of many waiters for one key is bounded by `waiters_per_id`.)

use crate::cost::assert_linear;
use crate::{Asker, LIMITS, TTL, base, window};
use hapax_core::window::engine::EngineKind;
use hapax_core::window::{
    ForgetCause, Key, Limits, LocalWindow, Reservation, Reservations, Verdict, Wait, Window,
};
use std::sync::Arc;

/// The number of items; the other measurement has 16 times as many.
const N: usize = 2_000;
const ROOMY: Limits = Limits { capacity: 64_000, ..LIMITS };

/// A window with `n` keys in flight.
fn in_flight(engine: EngineKind, limits: Limits, n: usize) -> (Arc<LocalWindow>, Vec<Reservation>) {
    let (window, _) = window(engine, limits);
    let mut asker = Asker::new(&window);
    let reservations = (0..n as u128).map(|key| asker.fresh(key, base())).collect();
    (window, reservations)
}

/// A window with `n` keys seen.
fn seen(engine: EngineKind, n: usize) -> Arc<LocalWindow> {
    let (window, reservations) = in_flight(engine, ROOMY, n);
    reservations.into_iter().for_each(|reservation| drop(reservation.commit(base(), TTL)));
    window
}

#[test]
fn cost_of_what_is_reserved_and_settled() {
    for engine in EngineKind::ALL {
        assert_linear("reserve", N, |n| n, |n| in_flight(engine, ROOMY, n));
        let prepare = |n| in_flight(engine, ROOMY, n);
        assert_linear("commit", N, prepare, |(window, reservations)| {
            reservations.into_iter().for_each(|reservation| drop(reservation.commit(base(), TTL)));
            window
        });
        assert_linear("commit together", N, prepare, |(window, reservations)| {
            let mut stored = Reservations::default();
            reservations.into_iter().for_each(|reservation| drop(stored.push(reservation, base(), TTL)));
            stored.commit(base());
            window
        });
        assert_linear("rollback", N, prepare, |(window, reservations)| {
            reservations.into_iter().rev().for_each(|reservation| reservation.forget(ForgetCause::Nack));
            window
        });
    }
}

#[test]
fn cost_of_what_pushes_others_out() {
    for engine in EngineKind::ALL {
        let prepare = |n| in_flight(engine, Limits { capacity: n / 2, ..LIMITS }, n);
        assert_linear("commit in a full window", N, prepare, |(window, reservations)| {
            reservations.into_iter().for_each(|reservation| drop(reservation.commit(base(), TTL)));
            window
        });
    }
}

#[test]
fn cost_of_what_is_seen() {
    for engine in EngineKind::ALL {
        let prepare = |n| (seen(engine, n), n as u128);
        assert_linear("duplicates", N, prepare, |(window, n)| {
            let mut asker = Asker::new(&window);
            assert!((0..n).rev().all(|key| matches!(asker.ask(key, base()), Verdict::Duplicate(_))));
            window
        });
        assert_linear("disown", N, prepare, |(window, n)| {
            (0..n).rev().for_each(|key| window.disown(Key(key).into(), base()));
            assert!(window.is_empty());
            window
        });
        assert_linear("flush", N, prepare, |(window, n)| {
            assert_eq!(window.flush(base()) as u128, n);
            window
        });
        assert_linear("resize", N, prepare, |(window, _)| {
            window.resize(1, base());
            window
        });
        assert_linear("sweep", N, prepare, |(window, _)| {
            window.sweep(base() + 2 * TTL);
            window
        });
    }
}

#[test]
fn cost_of_waiters_of_many_keys() {
    let prepare = |n: usize| {
        let (window, reservations) = in_flight(EngineKind::default(), ROOMY, n);
        let mut asker = Asker::new(&window);
        let wait = |verdict| match verdict {
            Verdict::InFlight(wait) => wait,
            other => panic!("should wait and is {other:?}"),
        };
        let waits: Vec<Wait> = (0..n as u128).map(|key| wait(asker.ask(key, base()))).collect();
        (asker, reservations, waits)
    };
    assert_linear("waiters that are told", N, prepare, |(asker, reservations, waits)| {
        reservations.into_iter().rev().for_each(|reservation| drop(reservation.commit(base(), TTL)));
        assert_eq!(asker.mailbox.take().len(), waits.len());
        (asker, waits)
    });
    assert_linear("waiters that leave", N, prepare, |(asker, reservations, waits)| {
        waits.into_iter().rev().for_each(drop);
        (asker, reservations)
    });
}
