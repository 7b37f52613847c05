//! Any list of actions on a window with a log, whose store is slow, fails, or is silent, and whose process crashes at any moment.
//!
//! The model is a list of what has happened, each with whether the store surely has it by now. It knows nothing of positions, of flights
//! or of who waits: it says of each key only whether it must be seen, or must not.

use crate::LIMITS;
use crate::shelf::{POLICIES, Shelf, later, name};
use hapax_core::window::engine::EngineKind;
use hapax_core::window::{
    Claim, ForgetCause, Found, Inspect, Key, Limits, OverdueCommit, Position, Remember, Reservation,
    StorePolicy, TakeOver, Verdict, Wait, Window,
};
use proptest::prelude::*;
use std::time::{Duration, Instant};

const KEYS: u128 = 5;
const TTL: Duration = Duration::from_secs(60);

#[derive(Clone, Debug)]
enum Action {
    Ask {
        key: u128,
    },
    Republish {
        key: u128,
    },
    Commit {
        pick: usize,
    },
    InDoubt {
        pick: usize,
    },
    Rollback {
        pick: usize,
    },
    TakeOver {
        pick: usize,
    },
    Leave {
        pick: usize,
    },
    Forget {
        key: u128,
    },
    Flush,
    /// The client of the oldest commit has waited long enough.
    Overdue,
    Take {
        most: usize,
    },
    Write,
    WriteAll,
    Fail,
    Works,
    Advance {
        by: Duration,
    },
    Crash,
}

fn action() -> impl Strategy<Value = Action> {
    let pick = 0..16_usize;
    let by = prop::sample::select(vec![1, 10, 1_000, 20_000, 60_000]).prop_map(Duration::from_millis);
    prop_oneof![
        12 => (0..KEYS).prop_map(|key| Action::Ask { key }),
        3 => (0..KEYS).prop_map(|key| Action::Republish { key }),
        10 => pick.clone().prop_map(|pick| Action::Commit { pick }),
        1 => pick.clone().prop_map(|pick| Action::InDoubt { pick }),
        2 => pick.clone().prop_map(|pick| Action::Rollback { pick }),
        2 => pick.clone().prop_map(|pick| Action::TakeOver { pick }),
        1 => pick.prop_map(|pick| Action::Leave { pick }),
        1 => (0..KEYS).prop_map(|key| Action::Forget { key }),
        1 => Just(Action::Flush),
        1 => Just(Action::Overdue),
        4 => (1..4_usize).prop_map(|most| Action::Take { most }),
        4 => Just(Action::Write),
        2 => Just(Action::WriteAll),
        1 => Just(Action::Fail),
        1 => Just(Action::Works),
        3 => by.prop_map(|by| Action::Advance { by }),
        3 => Just(Action::Crash),
    ]
}

/// One thing that has happened.
#[derive(Clone, Debug)]
struct Happened {
    what: What,
    /// The client may be told, by what the window says.
    is_told: bool,
    /// The store surely has it.
    is_written: bool,
    position: Option<Position>,
}

#[derive(Clone, Copy, PartialEq, Debug)]
enum What {
    /// The key was stored, or may have been, or a duplicate has made it young again.
    Stored {
        key: u128,
        until: Instant,
        touch: bool,
    },
    Forgotten {
        key: u128,
    },
    Flushed,
}

struct Run {
    shelf: Shelf,
    policy: StorePolicy,
    refresh: bool,
    held: Vec<(u128, Reservation)>,
    waits: Vec<(u128, Instant, Wait)>,
    happened: Vec<Happened>,
    /// The store has failed, or has been called silent, since the process began. From then on an ack says less.
    has_failed: bool,
}

impl Run {
    fn happens(&mut self, what: What, position: Option<Position>) {
        let is_told = position.is_none();
        self.happened.push(Happened { what, is_told, is_written: false, position });
    }

    fn stored(&mut self, key: u128, touch: bool, position: Option<Position>) {
        self.happens(What::Stored { key, until: self.shelf.now + TTL, touch }, position);
    }

    fn pick<T>(from: &mut Vec<T>, pick: usize) -> Option<T> {
        (!from.is_empty()).then(|| from.remove(pick % from.len()))
    }

    fn take_verdict(&mut self, key: u128, verdict: Verdict) {
        match verdict {
            Verdict::Fresh(reservation) => {
                // (A message of a key that a consumer publishes again may be stored beside.)
                self.held.push((key, reservation));
            }
            Verdict::InFlight(wait) | Verdict::Pending(wait) => {
                self.waits.push((key, self.shelf.now, wait));
            }
            Verdict::Duplicate(_) => self.is_duplicate(key),
            Verdict::Refused(_) | Verdict::Crowded => {}
        }
    }

    /// The client of this publish is acked now.
    fn is_duplicate(&mut self, key: u128) {
        assert!(self.may_be_seen(key, false), "{key} is a duplicate of nothing: {:?}", self.happened);
        if self.policy.remember == Remember::Sync && !self.has_failed {
            let settled = self.shelf.window.remembered();
            let any = self.happened.iter().any(|happened| {
                let is_key = matches!(happened.what, What::Stored { key: other, .. } if other == key);
                // (Of a commit in doubt nobody is told where it stands.)
                let is_untold = happened.position == Some(Position(u64::MAX));
                is_key
                    && (is_untold || happened.is_written || happened.position.is_some_and(|at| at <= settled))
            });
            assert!(any, "{key} is a duplicate of what is not written: {:?}", self.happened);
        }
    }

    fn act(&mut self, action: &Action) {
        match *action {
            Action::Ask { key } => {
                let (must, verdict) = (self.must_be_seen(key, true), self.shelf.ask(key));
                let is_fresh = matches!(verdict, Verdict::Fresh(_));
                assert!(!(must && is_fresh), "{key} is fresh, and stored: {:?}", self.happened);
                let is_seen = matches!(verdict, Verdict::Duplicate(_));
                assert!(!is_seen || self.is_known(key), "{key} was forgotten: {:?}", self.happened);
                if self.refresh && matches!(verdict, Verdict::Duplicate(_)) {
                    self.take_verdict(key, verdict);
                    return self.stored(key, true, None);
                }
                self.take_verdict(key, verdict);
            }
            Action::Republish { key } => {
                let (reservation, beside, forgotten) = self.shelf.republish(key);
                if !beside || forgotten.is_some() {
                    let position = forgotten.map(|forgotten| forgotten.position());
                    self.happens(What::Forgotten { key }, position);
                }
                self.held.push((key, reservation));
            }
            Action::Commit { pick } => {
                let Some((key, reservation)) = Run::pick(&mut self.held, pick) else { return };
                let position = later(reservation.commit(self.shelf.now, TTL)).map(|later| later.position());
                self.stored(key, false, position);
            }
            Action::InDoubt { pick } => {
                let Some((key, reservation)) = Run::pick(&mut self.held, pick) else { return };
                reservation.commit_in_doubt(self.shelf.now, TTL);
                // Nobody is told of it. But it may be seen from now on.
                self.stored(key, false, Some(Position(u64::MAX)));
            }
            Action::Rollback { pick } => {
                let Some((_, reservation)) = Run::pick(&mut self.held, pick) else { return };
                reservation.forget(ForgetCause::Nack);
            }
            Action::TakeOver { pick } => {
                let Some((key, since, wait)) = Run::pick(&mut self.waits, pick) else { return };
                match wait.take_over(since, self.shelf.now) {
                    TakeOver::Granted(reservation) => {
                        let must = self.must_be_seen(key, true);
                        assert!(!must, "{key} is taken over, and stored: {:?}", self.happened);
                        self.held.push((key, reservation));
                    }
                    TakeOver::Wait { since } => self.waits.push((key, since, wait)),
                    TakeOver::Answered => self.waits.push((key, since, wait)),
                }
            }
            Action::Leave { pick } => drop(Run::pick(&mut self.waits, pick)),
            Action::Forget { key } => {
                let _ = self.shelf.window.forget(Claim::from(Key(key)), self.shelf.now);
                self.happens(What::Forgotten { key }, None);
            }
            Action::Flush => {
                let _ = self.shelf.window.flush(self.shelf.now);
                self.happens(What::Flushed, None);
            }
            Action::Overdue => {
                let settled = self.shelf.window.remembered();
                let oldest = self.happened.iter().filter_map(|happened| happened.position);
                let Some(position) = oldest.filter(|at| *at > settled && at.0 < u64::MAX).min() else {
                    return;
                };
                let then = self.shelf.window.overdue_commit(position, self.shelf.now);
                self.has_failed |= then == OverdueCommit::AckAnyway;
            }
            Action::Take { most } => drop(self.shelf.take(most)),
            Action::Write => drop(self.shelf.write_one()),
            Action::WriteAll => {
                self.shelf.write();
                self.happened.iter_mut().for_each(|happened| happened.is_written = true);
            }
            Action::Fail => {
                self.has_failed = true;
                self.shelf.window.store_failed(self.shelf.now);
            }
            Action::Works => self.shelf.window.store_works(self.shelf.now),
            Action::Advance { by } => self.shelf.now += by,
            Action::Crash => self.crash(),
        }
        let mail = self.shelf.mailbox.take();
        for (ticket, verdict) in mail {
            let at = self.waits.iter().position(|(_, _, wait)| wait.ticket() == ticket);
            match at.map(|at| self.waits.remove(at)) {
                Some((key, _, wait)) => {
                    wait.answered();
                    if self.refresh && matches!(verdict, Verdict::Duplicate(_)) {
                        // It was asked again when the store was back, perhaps.
                        self.stored(key, true, Some(Position(u64::MAX)));
                    }
                    self.take_verdict(key, verdict);
                }
                None => panic!("nobody waits for {ticket:?}: {}", name(&verdict)),
            }
        }
        let settled = self.shelf.window.remembered();
        for happened in &mut self.happened {
            happened.is_told |= happened.position.is_some_and(|position| position <= settled);
        }
    }

    /// Whether a key must be seen: by the process that has stored it, or by the one after it.
    fn must_be_seen(&self, key: u128, same_process: bool) -> bool {
        let soon = self.shelf.now + Duration::from_millis(2);
        let is_safe = self.policy.remember == Remember::Sync && !self.has_failed;
        for happened in self.happened.iter().rev() {
            match happened.what {
                What::Stored { key: other, until, touch } if other == key => {
                    let is_there =
                        happened.is_written || happened.is_told && (same_process || is_safe && !touch);
                    let is_sure = !touch || happened.position.is_none();
                    if is_there && is_sure && until > soon {
                        return true;
                    }
                }
                What::Forgotten { key: other } if other == key => return false,
                What::Flushed => return false,
                What::Stored { .. } | What::Forgotten { .. } => {}
            }
        }
        false
    }

    /// Whether a key was stored since it was forgotten the last time, and its TTL is not over.
    fn is_known(&self, key: u128) -> bool {
        let soon = self.shelf.now;
        let of_key = self.happened.iter().rev().take_while(|happened| match happened.what {
            What::Stored { .. } => true,
            What::Forgotten { key: other } => other != key,
            What::Flushed => false,
        });
        let lives = |until: Instant| until + Duration::from_millis(2) > soon;
        let mut of_key = of_key.map(|happened| happened.what);
        of_key.any(
            |what| matches!(what, What::Stored { key: other, until, .. } if other == key && lives(until)),
        )
    }

    /// Whether a key may be seen. `after_crash`: what was forgotten, and the store has not learnt of it, may be known again.
    fn may_be_seen(&self, key: u128, after_crash: bool) -> bool {
        for happened in self.happened.iter().rev() {
            match happened.what {
                // (Who waits for it is told in the end, however short the TTL is.)
                What::Stored { key: other, until, .. } if other == key => {
                    if !after_crash || until + Duration::from_millis(2) > self.shelf.now {
                        return true;
                    }
                }
                What::Forgotten { key: other } if other == key && after_crash => {
                    let is_known = happened.is_written || happened.position.is_some() && happened.is_told;
                    if is_known && !self.has_failed || happened.is_written {
                        return false;
                    }
                }
                What::Flushed if after_crash && happened.is_written => return false,
                What::Stored { .. } | What::Forgotten { .. } | What::Flushed => {}
            }
        }
        false
    }

    fn crash(&mut self) {
        let must: Vec<bool> = (0..KEYS).map(|key| self.must_be_seen(key, false)).collect();
        let may: Vec<bool> = (0..KEYS).map(|key| self.may_be_seen(key, true)).collect();
        self.waits.clear();
        self.held.clear();
        self.shelf.crash();
        for key in 0..KEYS {
            let at = usize::try_from(key).unwrap_or_default();
            let is_seen = self.shelf.state(key) == 's';
            assert!(is_seen || !must[at], "{key} is forgotten: {:#?}", self.happened);
            assert!(!is_seen || may[at], "{key} is seen: {:#?}", self.happened);
        }
        // What the store has is what there is from now on.
        self.happened.clear();
        for key in 0..KEYS {
            if let Some(Found::Seen(seen)) = self.shelf.window.find(Claim::from(Key(key)), self.shelf.now) {
                let what = What::Stored { key, until: seen.until, touch: false };
                let (is_told, is_written, position) = (true, true, None);
                self.happened.push(Happened { what, is_told, is_written, position });
            }
        }
        self.has_failed = false;
        self.shelf.assert_adds_up();
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 250, ..ProptestConfig::default() })]

    #[test]
    fn any_list_of_actions_on_a_window_with_a_log(
        actions in prop::collection::vec(action(), 1..150),
        policy in prop::sample::select(POLICIES.to_vec()),
        refresh: bool,
    ) {
        for engine in EngineKind::ALL {
            let limits = Limits { capacity: 100, refresh_on_duplicate: refresh, waiters_per_id: 3, ..LIMITS };
            let shelf = Shelf::new(engine, limits, policy);
            let (held, waits, happened) = Default::default();
            let mut run = Run { shelf, policy, refresh, held, waits, happened, has_failed: false };
            for (step, action) in actions.iter().enumerate() {
                println!("{step}: {action:?}");
                run.act(action);
                run.shelf.assert_adds_up();
            }
            run.crash();
        }
    }

    /// The log has the commits in their order, so the same ids make room.
    #[test]
    fn the_order_of_eviction_survives(
        commits in prop::collection::vec((0..12_u128, 0..10_u8, 1..8_usize), 1..60),
        capacity in 1..6_usize,
        policy in prop::sample::select(POLICIES.to_vec()),
    ) {
        for engine in EngineKind::ALL {
            let mut shelf = Shelf::new(engine, Limits { capacity, ..LIMITS }, policy);
            for (key, what, most) in &commits {
                shelf.now += Duration::from_millis(1);
                match what {
                    // (An id that is forgotten before it is written takes no room here. In the log it does.)
                    0 => {
                        shelf.write();
                        let _ = shelf.window.forget(Claim::from(Key(*key)), shelf.now);
                    }
                    1 => _ = shelf.take(*most) && shelf.write_one(),
                    _ if shelf.state(*key) != '-' => {}
                    _ => {
                        let reservation = shelf.fresh(*key);
                        let _ = shelf.commit(reservation);
                    }
                }
            }
            shelf.write();
            let states = |shelf: &Shelf| (0..12).map(|key| shelf.state(key)).collect::<String>();
            let before = states(&shelf);
            shelf.crash();
            prop_assert_eq!(before, states(&shelf));
            shelf.assert_adds_up();
        }
    }
}
