//! Measures what the confirm ledger of a channel costs, with 1,000 and 100,000 publishes always outstanding. The
//! entries hold no reservation; `benches/engines` and `window.rs` measure what a commit costs.
//!
//! In each round, [`BLOCK`] publishes (or two blocks) are forwarded, the upstream acks as many of the oldest ones, and
//! the answers are flushed, as after a read.
//!
//! * `one by one`: one ack per publish, in order.
//! * `multiple`: one ack for the block. As before, the client gets one answer for the block.
//! * `out of order`: two blocks, the younger one first, each in bit-reversed order. The answers of the younger block
//!   can't be combined, because open tags come before them. Those of the older block can.
//! * `mandatory`: as `one by one`, but each publish can be returned and has its own id.
//! * `mandatory, no id`: as `mandatory` without ids, so that a return could belong to any of them.
//! * `duplicates`: each forwarded publish is followed by one that is acked at once.
//! * `flush, prefix` and `flush, beyond`: only writes as many answers as there were outstanding. The first writes them
//!   as one `multiple`. The second writes them one by one, because the first tag is open.
//!
//! Criterion's elements are answers to the client.

use bytes::BytesMut;
use criterion::{BatchSize, Criterion, Throughput};
use hapax_core::session::alone::Ledger;
use std::hint::black_box;
use std::time::{Duration, Instant};

#[path = "../tests/support/ground.rs"]
mod ground;

use ground::key;

const OUTSTANDING: [u64; 2] = [1_000, 100_000];
/// Publishes per block. It is a power of two.
const BLOCK: u64 = 64;

#[derive(Clone, Copy, PartialEq, Debug)]
enum Job {
    OneByOne,
    Multiple,
    OutOfOrder,
    Mandatory,
    MandatoryAlike,
    Duplicates,
}

const JOBS: [(Job, &str); 6] = [
    (Job::OneByOne, "one by one"),
    (Job::Multiple, "multiple"),
    (Job::OutOfOrder, "out of order"),
    (Job::Mandatory, "mandatory"),
    (Job::MandatoryAlike, "mandatory, no id"),
    (Job::Duplicates, "duplicates"),
];

impl Job {
    /// Returns the number of answers of a round.
    fn answers(self) -> u64 {
        match self {
            Job::OneByOne | Job::Multiple | Job::Mandatory | Job::MandatoryAlike => BLOCK,
            Job::OutOfOrder | Job::Duplicates => 2 * BLOCK,
        }
    }
}

fn main() {
    let mut criterion = Criterion::default()
        .warm_up_time(Duration::from_millis(500))
        .measurement_time(Duration::from_secs(1))
        .sample_size(20)
        .configure_from_args();
    for outstanding in OUTSTANDING {
        let mut group = criterion.benchmark_group(format!("ledger, {outstanding} outstanding"));
        for (job, name) in JOBS {
            let mut rig = None;
            group.throughput(Throughput::Elements(job.answers()));
            group.bench_function(name, |bencher| {
                let rig = rig.get_or_insert_with(|| Rig::filled(job, outstanding));
                bencher.iter(|| rig.round());
                assert_eq!(rig.ledger.unsettled() as u64, outstanding);
            });
        }
        for (name, first) in [("flush, prefix", 1), ("flush, beyond", 2)] {
            group.throughput(Throughput::Elements(outstanding));
            group.bench_function(name, |bencher| {
                let due = || {
                    let mut rig = Rig::filled(Job::OneByOne, outstanding);
                    (first..=outstanding).for_each(|tag| rig.ledger.ack(tag, false));
                    rig
                };
                bencher.iter_batched_ref(due, Rig::flush, BatchSize::PerIteration);
            });
        }
        group.finish();
    }
    criterion.final_summary();
}

/// A ledger, and the progress of both of its sides.
struct Rig {
    job: Job,
    ledger: Ledger,
    forwarded: u64,
    settled: u64,
    out: BytesMut,
    now: Instant,
}

impl Rig {
    fn filled(job: Job, outstanding: u64) -> Rig {
        let (ledger, out) = (Ledger::new(), BytesMut::new());
        let mut rig = Rig { job, ledger, forwarded: 0, settled: 0, out, now: now() };
        rig.forward(outstanding);
        rig.flush();
        rig
    }

    fn forward(&mut self, publishes: u64) {
        for _ in 0..publishes {
            self.forwarded += 1;
            let return_key = match self.job {
                Job::Mandatory => Some(key(self.forwarded)),
                Job::MandatoryAlike => Some(key(0)),
                Job::OneByOne | Job::Multiple | Job::OutOfOrder | Job::Duplicates => None,
            };
            self.ledger.forward(self.now, return_key);
            if self.job == Job::Duplicates {
                self.ledger.swallow();
            }
        }
    }

    fn round(&mut self) {
        match self.job {
            Job::OneByOne | Job::Mandatory | Job::MandatoryAlike | Job::Duplicates => {
                self.forward(BLOCK);
                (1..=BLOCK).for_each(|n| self.ledger.ack(self.settled + n, false));
                self.settled += BLOCK;
            }
            Job::Multiple => {
                self.forward(BLOCK);
                self.settled += BLOCK;
                self.ledger.ack(self.settled, true);
            }
            Job::OutOfOrder => {
                self.forward(2 * BLOCK);
                self.ack_in_disorder(self.settled + BLOCK);
                self.flush();
                self.ack_in_disorder(self.settled);
                self.settled += 2 * BLOCK;
            }
        }
        self.flush();
    }

    /// Acks the block after this tag in bit-reversed order.
    fn ack_in_disorder(&mut self, after: u64) {
        for n in 0..BLOCK {
            let reversed = n.reverse_bits() >> (u64::BITS - BLOCK.ilog2());
            self.ledger.ack(after + 1 + reversed, false);
        }
    }

    fn flush(&mut self) {
        self.ledger.flush(&mut self.out);
        black_box(&mut self.out).clear();
    }
}

#[expect(clippy::disallowed_methods, reason = "an Instant can be had from nowhere else")]
fn now() -> Instant {
    Instant::now()
}
