//! Says what `id = "sequence"` would do with the same publishes: for a few capacities, how much is caught, in how many bytes.
//!
//! Each publish of the trace names its producer and its number. The window is the real one, and each number is stored at once. *Caught* are
//! the repeats that it takes out, *passed* those that it lets through. *Used twice* are numbers that came for the first time with this id and
//! were stored with another one before: a window of sequences loses such a message.

use super::replay::{base, nanos};
use super::trace::Trace;
use crate::config::{WindowConfig, defaults};
use hapax_core::window::engine::EngineKind;
use hapax_core::window::event::NoListener;
use hapax_core::window::{
    Claim, Key, Limits, LocalWindow, Mailbox, ProducerKey, Rules, Ticket, Verdict, reserve_one,
};
use hapax_core::wire::IdSource;
use std::sync::Arc;
use std::time::Duration;

/// The same publishes by their numbers.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Sequences {
    /// how many have published
    pub producers: usize,
    /// from a producer's last publish on
    pub ttl: Duration,
    /// a row for each capacity, the smallest first
    pub rows: Vec<Row>,
}

/// The counts of one replay.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Row {
    /// producers
    pub capacity: usize,
    /// memory of the window when it is full
    pub bytes_when_full: u64,
    /// repeats that the window takes out
    pub caught: u64,
    /// repeats that it lets through
    pub passed: u64,
    /// new ids whose number was stored before
    pub used_twice: u64,
}

/// Replays the trace by its numbers. There is a row with room for a quarter of the producers, for half of them, for all, and for the
/// default of a window. `None` unless each publish names its producer and its number.
pub fn sequences(trace: &Trace, ttl: Duration) -> Option<Sequences> {
    let producers = trace.producers();
    let mut capacities = vec![producers.div_ceil(4), producers.div_ceil(2), producers];
    capacities.push(defaults::PRODUCERS.max(producers));
    capacities.dedup();
    let rows = capacities.into_iter().map(|capacity| replay(trace, capacity, ttl)).collect::<Option<_>>()?;
    Some(Sequences { producers, ttl, rows })
}

fn replay(trace: &Trace, capacity: usize, ttl: Duration) -> Option<Row> {
    let default = WindowConfig::named("simulation");
    let rules = Rules { id: IdSource::Sequence, ..default.rules };
    let bytes_when_full = rules.numbering.bytes_at(capacity) as u64;
    let limits = Limits { capacity, ttl, ..default.limits };
    let window = LocalWindow::new(rules, limits, EngineKind::default(), Arc::new(NoListener));
    let (base, mailbox) = (base(), Arc::new(Mailbox::new()));
    let mut row = Row { capacity, bytes_when_full, ..Row::default() };
    let mut next_sweep = 0;
    for (at, (producer, number), is_repeat) in trace.numbers()? {
        let now = base + Duration::from_nanos(at);
        if at >= next_sweep {
            window.sweep(now);
            next_sweep = at.saturating_add(nanos(Duration::from_secs(1)));
        }
        let key = Key(u128::from(producer + 1).wrapping_mul(0x9e37_79b9_7f4a_7c15_f39c_c060) & Key::MASK);
        let claim = Claim::Sequence { producer: ProducerKey::new(key), epoch: 0, number };
        match reserve_one(&window, claim, now, &mailbox, Ticket(0)) {
            Verdict::Fresh(reservation) => {
                reservation.commit(now, ttl);
                row.passed += u64::from(is_repeat);
            }
            Verdict::Duplicate(_) if is_repeat => row.caught += 1,
            Verdict::Duplicate(_) => row.used_twice += 1,
            // Nothing is ever in flight here, there is one epoch, and gaps are forwarded.
            Verdict::InFlight(_) | Verdict::Refused(_) | Verdict::Crowded | Verdict::Pending(_) => {}
        }
    }
    Some(row)
}
