//! Histories of windows with `id = "sequence"` that share a real Redis: several threads publish, settle and forget the same numbers by
//! three relays, all at the same time. Then [`linear`](super::linear) looks for an order in which one relay alone would have said the same.
//!
//! `HAPAX_E2E_SEED` replays the plan of the threads, not how they are interleaved. `HAPAX_HISTORIES` says how many histories there are. A red one
//! leaves a [`Story`].

use super::linear::{Done, Op, Says, check};
use super::server::Server;
use super::story::Story;
use super::{PATIENCE, config};
use crate::e2e::retry::Rng;
use crate::e2e::wait::{self, now};
use hapax::config::{Config, Overrides};
use hapax::store::{self, Stores};
use hapax_core::window::{
    Claim, Committed, ForgetCause, Inspect, Key, Mailbox, ProducerKey, Refusal, Reservation, Ticket, Verdict,
    reserve_one,
};
use std::collections::{BTreeSet, VecDeque};
use std::future::poll_fn;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::SeqCst};
use std::task::Poll;
use std::thread;
use std::time::Duration;
use tokio::runtime::{Handle, Runtime};
use tokio::time::timeout;

const RELAYS: usize = 3;
const THREADS: usize = 6;
const PRODUCERS: usize = 2;
/// The histories of a run. Each has producers of its own.
const HISTORIES: usize = 4;
/// After this time no history begins, unless somebody has asked for a number of them: a busy machine does fewer.
const ENOUGH: Duration = Duration::from_secs(6);
const STEPS: u64 = 150;
/// Numbers on both sides of the border between two chunks.
const NUMBERS: std::ops::Range<u64> = 1_022..1_026;
/// How often a thread looks whether the others have gone on. (They may all wait for it.)
const PATIENT: usize = 2_000;
const TTL: Duration = Duration::from_secs(600);

/// The window of one relay.
struct Relay {
    window: Arc<dyn Inspect>,
    tasks: Handle,
}

/// One step of a thread.
#[derive(Clone, Copy, Debug)]
struct Step {
    producer: usize,
    relay: usize,
    epoch: u64,
    number: u64,
    what: What,
}

#[derive(Clone, Copy, Debug)]
enum What {
    /// Publishes, and waits for a verdict. The broker answers after so many moments of the history.
    Publish {
        is_stored: bool,
        after: u64,
    },
    /// As a publisher that goes when it has to wait.
    Leave,
    Forget,
}

fn claim(producer: usize, epoch: u64, number: u64) -> Claim {
    Claim::Sequence { producer: ProducerKey::new(Key((producer as u128 + 1) << 70)), epoch, number }
}

impl Relay {
    /// Its leases do not end in a test, and Redis is never too slow. It works while its stores are there. (With `remember = "async"`, a forget at
    /// another relay may overtake a commit that has returned: Redis has the number in the end. So it is `"sync"`.)
    fn start(server: &Server, tasks: &Handle) -> (Relay, Stores) {
        let text = config(server, &server.url(), "id = \"sequence\"\non_outage = \"refuse\"\nttl = \"10m\"")
            .replace("store = \"500ms\"", "store = \"10s\"")
            .replace("lease = \"1s\"", "lease = \"30s\"");
        let parsed = Config::parse(None, &text, &Overrides::default());
        let config = parsed.unwrap_or_else(|problems| panic!("{problems}")).config;
        let _tasks = tasks.enter();
        let mut opened = store::open(&config, now()).unwrap();
        tasks.block_on(opened.stores.recover()).unwrap();
        let window = Arc::clone(&opened.windows.first().unwrap().window);
        (Relay { window, tasks: tasks.clone() }, opened.stores)
    }

    /// Waits until the window calls.
    fn called(&self, mailbox: &Mailbox) {
        let call = poll_fn(|task| match mailbox.register(task.waker()) {
            true => Poll::Ready(()),
            false => Poll::Pending,
        });
        self.tasks.block_on(async { timeout(PATIENCE, call).await }).expect("the window answers in time");
    }

    /// Publishes a number, in a session of its own. Returns what the relay says, and the reservation if it is let through.
    fn publish(&self, claim: Claim, waits: bool) -> (Says, Option<Reservation>) {
        let mailbox = Arc::new(Mailbox::new());
        let said = self.publish_by(&mailbox, claim, waits);
        mailbox.close();
        said
    }

    fn publish_by(&self, mailbox: &Arc<Mailbox>, claim: Claim, waits: bool) -> (Says, Option<Reservation>) {
        let mut verdict = reserve_one(&self.window, claim, now(), mailbox, Ticket(0));
        let mut letters = VecDeque::new();
        loop {
            let wait = match verdict {
                Verdict::Fresh(reservation) => return (Says::Fresh, Some(reservation)),
                Verdict::Duplicate(_) => return (Says::Duplicate, None),
                Verdict::Refused(Refusal::Stale) => return (Says::Stale, None),
                Verdict::InFlight(_) if !waits && letters.is_empty() => return (Says::Waits, None),
                Verdict::Pending(wait) | Verdict::InFlight(wait) => wait,
                Verdict::Refused(Refusal::Gap) | Verdict::Crowded => panic!("{claim:?}: {verdict:?}"),
            };
            while letters.is_empty() {
                self.called(mailbox);
                letters.extend(mailbox.take());
            }
            wait.answered();
            (_, verdict) = letters.pop_front().expect("a letter");
        }
    }

    /// Commits, and waits until a client would be acked.
    fn commit(&self, reservation: Reservation) {
        let Committed::Later(unremembered) = reservation.commit(now(), TTL) else { return };
        let mailbox = Arc::new(Mailbox::new());
        unremembered.tell_when(&mailbox);
        self.called(&mailbox);
        assert!(unremembered.is_remembered());
    }

    /// Has a number forgotten, and waits until Redis knows.
    fn forget(&self, claim: Claim) {
        self.window.forget(claim, now());
        wait::until("Redis knows what is forgotten", PATIENCE, || {
            (self.window.store(now()).unwrap().waiting == 0).then_some(())
        });
    }
}

/// The moments of a history.
struct History<'a> {
    moments: AtomicU64,
    story: &'a Story,
}

impl History<'_> {
    fn moment(&self) -> u64 {
        self.moments.fetch_add(1, SeqCst)
    }

    /// Waits until other threads have gone on by so many moments, or until they seem to stand still.
    fn pass(&self, moments: u64) {
        let until = self.moments.load(SeqCst) + moments;
        for _ in 0..PATIENT {
            if self.moments.load(SeqCst) >= until {
                return;
            }
            thread::yield_now();
        }
    }

    /// Does one thing, and notes when it began and ended. Its result says what it was.
    fn note<T>(&self, list: &mut Vec<Done>, work: impl FnOnce() -> (Op, T)) -> T {
        let begin = self.moment();
        let (op, result) = work();
        let done = Done { op, begin, end: self.moment() };
        self.story.tell(|| format!("{done:?}"));
        list.push(done);
        result
    }

    /// Does one step of a thread. `list` is what the thread has done with this producer.
    fn step(&self, step: Step, relays: &[Relay], list: &mut Vec<Done>) {
        self.story.tell(|| format!("{step:?}"));
        let Step { producer, relay, epoch, number, what } = step;
        let (relay, claim) = (&relays[relay], claim(producer, epoch, number));
        let (waits, (is_stored, after)) = match what {
            What::Forget => {
                return self.note(list, || (Op::Forget(epoch, number), relay.forget(claim)));
            }
            What::Publish { is_stored, after } => (true, (is_stored, after)),
            What::Leave => (false, (false, 0)),
        };
        let reservation = self.note(list, || {
            let (says, reservation) = relay.publish(claim, waits);
            (Op::Publish(epoch, number, says), reservation)
        });
        let Some(reservation) = reservation else { return };
        self.pass(after);
        if is_stored {
            self.note(list, || (Op::Commit(epoch, number), relay.commit(reservation)));
        } else {
            let forget = || reservation.forget(ForgetCause::Nack);
            self.note(list, || (Op::Rollback(epoch, number), forget()));
        }
    }
}

/// Draws what a thread does. Epochs rise as it goes on, at about the same time in all threads; some publishers are zombies of the one before.
fn plan(dice: &mut Rng, thread: usize) -> Vec<Step> {
    let step = |at: u64| Step {
        producer: usize::try_from(dice.below(PRODUCERS as u64)).unwrap(),
        relay: thread % RELAYS,
        epoch: (1 + (at + dice.below(3)) / 30).saturating_sub(u64::from(dice.below(8) == 0)),
        number: NUMBERS.start + dice.below(NUMBERS.end - NUMBERS.start),
        what: match dice.below(12) {
            0 | 1 => What::Forget,
            2 | 3 => What::Leave,
            4..7 => What::Publish { is_stored: false, after: dice.below(8) },
            _ => What::Publish { is_stored: true, after: dice.below(8) },
        },
    };
    (0..STEPS).map(step).collect()
}

/// Counts the leases in Redis.
fn leases(server: &Server) -> String {
    const COUNT: &str = "local leases = 0
for _, key in ipairs(redis.call('KEYS', 'hapax:orders:*')) do
  for _, field in ipairs(redis.call('HKEYS', key)) do
    if string.sub(field, 1, 1) == 'L' then leases = leases + 1 end
  end
end
return leases";
    server.cli(&["EVAL", COUNT, "0"])
}

/// The last epoch of a producer, and all its numbers, as a relay sees them when nobody else does anything.
fn looked(history: &History<'_>, relay: &Relay, producer: usize, epoch: u64) -> Vec<Done> {
    let mut list = Vec::new();
    for number in NUMBERS {
        history.note(&mut list, || {
            let (says, reservation) = relay.publish(claim(producer, epoch, number), true);
            reservation.into_iter().for_each(|reservation| reservation.forget(ForgetCause::Nack));
            (Op::Look(epoch, number, says), ())
        });
    }
    list
}

fn verdicts(list: &[Done]) -> Vec<Op> {
    list.iter().map(|done| done.op).collect()
}

/// One publish waits for another one. In the threads, that is left to chance.
fn begin(history: &History<'_>, relays: &[Relay], producer: usize) -> Vec<Done> {
    let (mut list, number) = (Vec::new(), NUMBERS.start);
    let mut publish = |relay: &Relay| {
        history.note(&mut list, || {
            let (says, reservation) = relay.publish(claim(producer, 0, number), false);
            (Op::Publish(0, number, says), reservation)
        })
    };
    let held = publish(&relays[0]).expect("it is the first one");
    assert!(publish(&relays[1]).is_none());
    history.note(&mut list, || (Op::Rollback(0, number), held.forget(ForgetCause::Nack)));
    list
}

/// Has the threads do what they have drawn. Returns for each what it has done, with each producer.
fn act(history: &History<'_>, relays: &[Relay], plans: &[Vec<Step>], first: usize) -> Vec<Vec<Vec<Done>>> {
    thread::scope(|scope| {
        let threads = plans.iter().enumerate().map(|(at, plan)| {
            let act = move || {
                let mut lists = vec![Vec::new(); PRODUCERS];
                for step in plan {
                    let list = &mut lists[step.producer];
                    history.step(Step { producer: first + step.producer, ..*step }, relays, list);
                }
                lists
            };
            thread::Builder::new().name(format!("thread {at}")).spawn_scoped(scope, act).unwrap()
        });
        threads.collect::<Vec<_>>().into_iter().map(|thread| thread.join().unwrap()).collect()
    })
}

#[test]
fn what_relays_say_of_numbers_has_an_order_in_which_one_relay_would_say_it() {
    let mut dice = Rng::seeded("what_relays_say_of_numbers_has_an_order_in_which_one_relay_would_say_it");
    let asked: Option<usize> = std::env::var("HAPAX_HISTORIES").ok().and_then(|count| count.parse().ok());
    let enough_at = now() + ENOUGH;
    let (server, tasks) = (Server::start(), Runtime::new().unwrap());
    let story = Story::of(&server, dice.0);
    let (relays, _stores): (Vec<Relay>, Vec<Stores>) =
        (0..RELAYS).map(|_| Relay::start(&server, tasks.handle())).unzip();
    // A relay that knows nothing by itself says what Redis knows.
    let (stranger, _its_stores) = Relay::start(&server, tasks.handle());
    for at in 0..asked.unwrap_or(HISTORIES) {
        if at > 0 && asked.is_none() && now() > enough_at {
            break;
        }
        let history = History { moments: AtomicU64::new(0), story: &story };
        let first = at * PRODUCERS;
        let plans: Vec<Vec<Step>> = (0..THREADS).map(|thread| plan(&mut dice, thread)).collect();
        let begun: Vec<Vec<Done>> =
            (0..PRODUCERS).map(|producer| begin(&history, &relays, first + producer)).collect();
        let lists = act(&history, &relays, &plans, first);
        let mut seen = BTreeSet::new();
        for (at, begun) in begun.into_iter().enumerate() {
            let mut threads: Vec<Vec<Done>> = lists.iter().map(|lists| lists[at].clone()).collect();
            threads.push(begun);
            seen.extend(threads.iter().flatten().map(|done| kind(done.op)));
            has_an_order(&history, &relays, &stranger, (first + at, threads));
        }
        assert_eq!(seen.len(), 7, "everything has happened: {seen:?}");
        wait::until("all leases are given back", PATIENCE, || (leases(&server) == "0").then_some(()));
    }
}

/// Checks what was done with a producer, and that all relays agree in the end: what was forgotten at one of them is forgotten at all of them.
fn has_an_order(
    history: &History<'_>,
    relays: &[Relay],
    stranger: &Relay,
    (producer, mut threads): (usize, Vec<Vec<Done>>),
) {
    let epochs = threads.iter().flatten().filter_map(|done| match done.op {
        Op::Publish(epoch, _, says) if says != Says::Stale => Some(epoch),
        _ => None,
    });
    let epoch = epochs.max().expect("somebody has published");
    let end = looked(history, stranger, producer, epoch);
    threads.push(end.clone());
    check(&threads).unwrap_or_else(|stuck| panic!("producer {producer} has no order: {stuck}"));
    for relay in relays {
        wait::until("the relay says what Redis knows", PATIENCE, || {
            let says = looked(history, relay, producer, epoch);
            (verdicts(&says) == verdicts(&end)).then_some(())
        });
    }
}

/// The kind of an operation.
fn kind(op: Op) -> &'static str {
    match op {
        Op::Publish(_, _, Says::Fresh) => "fresh",
        Op::Publish(_, _, Says::Duplicate) => "duplicate",
        Op::Publish(_, _, Says::Stale) => "stale",
        Op::Publish(_, _, Says::Waits) => "waits",
        Op::Commit(..) => "commit",
        Op::Rollback(..) => "rollback",
        Op::Forget(..) => "forget",
        Op::Look(..) => "look",
    }
}
