//! A window with a log, and a store that is a list of batches in memory. The test says when the store writes. A crash takes the window away
//! and leaves the batches.

use crate::TTL;
use hapax_core::pressure::Accounting;
use hapax_core::window::engine::EngineKind;
use hapax_core::window::logged::{Batch, Codec, LoggedWindow, Record, RelayId, What, Written};
use hapax_core::window::{
    Claim, Committed, Found, Inspect, Key, KeyMaker, Limits, Mailbox, OnOutage, Position, Remember,
    Republish, Reservation, Rules, StorePolicy, Ticket, Unremembered, Verdict, Wait, Window, reserve_one,
};
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};

pub(crate) type Logged = LoggedWindow<Accounting>;

pub(crate) const SYNC: StorePolicy = StorePolicy {
    remember: Remember::Sync,
    delay: Duration::from_millis(100),
    on_outage: OnOutage::Continue,
};
pub(crate) const ASYNC: StorePolicy = StorePolicy { remember: Remember::Async, ..SYNC };
pub(crate) const SYNC_REFUSE: StorePolicy = StorePolicy { on_outage: OnOutage::Refuse, ..SYNC };
pub(crate) const ASYNC_REFUSE: StorePolicy = StorePolicy { remember: Remember::Async, ..SYNC_REFUSE };
pub(crate) const POLICIES: [StorePolicy; 4] = [SYNC, ASYNC, SYNC_REFUSE, ASYNC_REFUSE];

/// The wall clock's time of the first instant.
fn wall_base() -> SystemTime {
    SystemTime::UNIX_EPOCH + Duration::from_secs(1_800_000_000)
}

/// A window with a log, its store, and one asker.
pub(crate) struct Shelf {
    pub(crate) window: Arc<Logged>,
    pub(crate) accounting: Arc<Accounting>,
    pub(crate) mailbox: Arc<Mailbox>,
    engine: EngineKind,
    limits: Limits,
    policy: StorePolicy,
    /// what is in the store
    pub(crate) batches: Vec<Vec<u8>>,
    /// what the writer has taken and not written
    taken: Vec<(Vec<Record>, Position)>,
    codec: Codec,
    tickets: u64,
    begin: Instant,
    pub(crate) now: Instant,
}

fn window(
    engine: EngineKind,
    limits: Limits,
    policy: StorePolicy,
    now: Instant,
) -> (Arc<Logged>, Arc<Accounting>) {
    let accounting = Arc::new(Accounting::new());
    let rules = Rules::named("logged");
    (LoggedWindow::new(rules, limits, engine, accounting.clone(), "test", policy, now), accounting)
}

fn codec(relay: u64) -> Codec {
    Codec::new(KeyMaker::new((1, 2)), &Rules::named("logged"), RelayId(relay))
}

impl Shelf {
    pub(crate) fn new(engine: EngineKind, limits: Limits, policy: StorePolicy) -> Shelf {
        println!("{engine:?}, {limits:?}, {policy:?}");
        let begin = crate::base();
        let (window, accounting) = window(engine, limits, policy, begin);
        window.recovered();
        Shelf {
            window,
            accounting,
            mailbox: Arc::default(),
            engine,
            limits,
            policy,
            batches: Vec::new(),
            taken: Vec::new(),
            codec: codec(1),
            tickets: 0,
            begin,
            now: begin,
        }
    }

    pub(crate) fn wall(&self) -> SystemTime {
        wall_base() + (self.now - self.begin)
    }

    pub(crate) fn ask(&mut self, key: u128) -> Verdict {
        self.tickets += 1;
        reserve_one(&self.window, Key(key), self.now, &self.mailbox, Ticket(self.tickets))
    }

    pub(crate) fn fresh(&mut self, key: u128) -> Reservation {
        match self.ask(key) {
            Verdict::Fresh(reservation) => reservation,
            other => panic!("{key} should be fresh and is {other:?}"),
        }
    }

    pub(crate) fn waits(&mut self, key: u128) -> Wait {
        match self.ask(key) {
            Verdict::InFlight(wait) => wait,
            other => panic!("{key} should be in flight and is {other:?}"),
        }
    }

    pub(crate) fn pending(&mut self, key: u128) -> Wait {
        match self.ask(key) {
            Verdict::Pending(wait) => wait,
            other => panic!("{key} should be pending and is {other:?}"),
        }
    }

    pub(crate) fn is_duplicate(&mut self, key: u128) -> bool {
        matches!(self.ask(key), Verdict::Duplicate(_))
    }

    pub(crate) fn commit(&self, reservation: Reservation) -> Option<Unremembered> {
        later(reservation.commit(self.now, TTL))
    }

    /// Publishes it to a broker that acks. Everything is written.
    pub(crate) fn stored(&mut self, key: u128) {
        let reservation = self.fresh(key);
        let _ = self.commit(reservation);
        self.write();
    }

    pub(crate) fn republish(&self, key: u128) -> (Reservation, bool, Option<Unremembered>) {
        let Republish { reservation, beside, forgotten } =
            self.window.clone().republish(Key(key).into(), self.now);
        (reservation, beside, later(forgotten))
    }

    /// The state of a key, without a question: 's'een, in 'f'light, or neither.
    pub(crate) fn state(&self, key: u128) -> char {
        match self.window.find(Claim::from(Key(key)), self.now) {
            Some(Found::Seen(_)) => 's',
            Some(Found::InFlight) => 'f',
            Some(Found::Unknown) => '-',
            None => '?',
        }
    }

    /// The letters that have come: ticket and what it says.
    pub(crate) fn mail(&self) -> Vec<(u64, char)> {
        let letter = |(ticket, verdict): (Ticket, Verdict)| (ticket.0, name(&verdict));
        self.mailbox.take().into_iter().map(letter).collect()
    }

    /// The writer takes records, at most this many. Returns false if there are none.
    pub(crate) fn take(&mut self, most: usize) -> bool {
        let taken = self.window.take(most);
        let any = taken.is_some();
        self.taken.extend(taken);
        any
    }

    /// The writer writes what it has taken first. Returns false if it has nothing.
    pub(crate) fn write_one(&mut self) -> bool {
        if self.taken.is_empty() {
            return false;
        }
        let (records, position) = self.taken.remove(0);
        self.batches.push(self.codec.encode(&records, self.now, self.wall()));
        self.window.written(position, self.now);
        true
    }

    /// The writer writes everything.
    pub(crate) fn write(&mut self) {
        while self.write_one() || self.take(1000) {}
    }

    /// The records that have not been taken, as they would stand in the store.
    pub(crate) fn unwritten(&mut self) -> Vec<Written> {
        while self.take(1000) {}
        let encoded = self.taken.iter().map(|(records, _)| self.codec.encode(records, self.now, self.wall()));
        encoded.flat_map(|bytes| self.codec.decode(&bytes).unwrap().records).collect()
    }

    /// Everything that was not written is gone, and another process reads the store.
    pub(crate) fn crash(&mut self) {
        (self.window, self.accounting) = window(self.engine, self.limits, self.policy, self.now);
        self.mailbox = Arc::default();
        self.taken.clear();
        self.codec = codec(self.codec.relay().0 + 1);
        for bytes in &self.batches {
            let batch = self.codec.decode(bytes).unwrap();
            self.window.recover(&batch, self.now, self.wall());
        }
        self.window.recovered();
    }

    /// What another relay writes now, by a clock that is `ahead` of this one.
    pub(crate) fn merge_at(
        &self,
        records: Vec<Written>,
        ahead: Duration,
        behind: Duration,
    ) -> hapax_core::window::logged::Applied {
        let batch = Batch { relay: RelayId(99), records };
        self.window.merge(&batch, self.now, self.wall() - ahead + behind)
    }

    /// Another relay has stored this key: its record stands in the store, and is merged.
    pub(crate) fn stored_elsewhere(&mut self, key: u128) {
        let record = Record { at: self.now, what: What::Seen(Key(key).into(), TTL.into()) };
        let bytes = codec(99).encode(&[record], self.now, self.wall());
        self.window.merge(&self.codec.decode(&bytes).unwrap(), self.now, self.wall());
        self.batches.push(bytes);
    }

    pub(crate) fn merge(&self, records: Vec<Written>) -> hapax_core::window::logged::Applied {
        self.merge_at(records, Duration::ZERO, Duration::ZERO)
    }

    pub(crate) fn facts(&self) -> hapax_core::window::StoreFacts {
        self.window.store(self.now).unwrap()
    }

    /// The identities of `hapax_core::window::event`.
    pub(crate) fn assert_adds_up(&self) {
        let accounting = &self.accounting;
        let removed = self.window.entries().unwrap() as u64 + accounting.evicted_total();
        let unsettled = accounting.forgotten_total() + self.window.in_flight().unwrap() as u64;
        let forwarded = accounting.fresh() + accounting.republished();
        let recovered = accounting.recovered();
        assert_eq!(forwarded + recovered, removed + unsettled, "fresh, republished and recovered");
        let committed = accounting.committed() + accounting.committed_in_doubt();
        assert_eq!(committed + recovered, removed, "committed, in doubt and recovered");
    }
}

pub(crate) fn later(committed: Committed) -> Option<Unremembered> {
    match committed {
        Committed::Now => None,
        Committed::Later(later) => Some(later),
    }
}

pub(crate) fn name(verdict: &Verdict) -> char {
    match verdict {
        Verdict::Fresh(_) => 'F',
        Verdict::InFlight(_) => 'I',
        Verdict::Crowded => 'C',
        Verdict::Duplicate(_) => 'D',
        Verdict::Refused(_) => 'R',
        Verdict::Pending(_) => 'P',
    }
}
