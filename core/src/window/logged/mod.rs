//! A window in memory with a log: what it commits is also written to a store outside of this process.
//!
//! The window decides by its memory alone, as [`LocalWindow`] does. Each change of what is seen becomes a [`Record`]. The shell takes the
//! records in their order, writes them, and says how far it has come:
//!
//! ```text
//!   commit ──▶ Queue ──take──▶ the shell writes ──written(position)──▶ the id is seen, and its client is acked     (remember = "sync")
//!          └─▶ the id is seen, and its client is acked                                                            (remember = "async")
//!
//!   at the start, and from other relays:  the shell reads ──▶ Codec::decode ──▶ recover, merge ──▶ the ids are seen
//! ```
//!
//! With `sync` an id stays in flight until it is written. A crash can make it unknown until then, so no publish is acked as its duplicate.
//!
//! The log has the same order of events for each key as the memory. Every method that makes a record holds the
//! lock `order` while it changes the memory and while it adds the record. (The giving up of a reservation makes none. It may come from anywhere, also from under this lock: with the
//! last reference to a mailbox its letters are dropped.)

mod batch;
mod facts;
mod policy;
mod questions;
mod queue;
mod reach;
mod record;
mod window;

pub use batch::{BadBatch, Batch, Codec, FORMAT, Identity, RelayId, read_batch};
pub(super) use batch::{Reader, whole_millis};
pub use facts::{AtStore, StoreFacts};
pub use policy::{OnOutage, Remember, StorePolicy};
pub use record::{Change, Record, Setting, What, Written};

use super::engine::{EngineKind, Entry, WallEntry};
use super::table::Brought;
use super::*;
use parking_lot::Mutex;
use questions::Questions;
use queue::{MOST_WAITING, Queue, Stored};
use reach::{Reach, Reading};
use std::sync::Weak;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed};
use std::task::Waker;
use std::time::SystemTime;

/// The window's clock starts this long before the window. So it can tell when a recovered id was committed. It is the longest TTL that the
/// configuration takes.
const CLOCK_BEFORE: Duration = Duration::from_secs(365 * 86_400);

/// Commits that become seen together, while others wait for the lock.
const TOGETHER: usize = 256;

/// A window in memory with a log.
#[derive(Debug)]
pub struct LoggedWindow<L: Listener + ?Sized = dyn Listener> {
    inner: Arc<LocalWindow<L>>,
    kind: &'static str,
    policy: StorePolicy,
    queue: Queue,
    questions: Questions,
    /// Held around what happens to a key and the record of it.
    order: Mutex<()>,
    /// The store takes nothing at present.
    is_down: AtomicBool,
    state: Mutex<State>,
    counts: Counts,
}

#[derive(Debug, Default)]
struct State {
    down_since: Option<Instant>,
    /// Too many records wait, so the window refuses more.
    is_behind: bool,
    recovering: bool,
    reach: Reach,
    at_store: AtStore,
}

#[derive(Debug, Default)]
struct Counts {
    unremembered: AtomicU64,
    recovered: AtomicU64,
    merged: AtomicU64,
    crossed: AtomicU64,
    damaged: AtomicU64,
}

/// The effect of a batch on the window.
#[derive(Clone, PartialEq, Debug, Default)]
pub struct Applied {
    /// ids that are seen from now on
    pub seen: u64,
    /// ids whose TTL was over
    pub expired: u64,
    /// ids that were seen already, or in flight, and that another relay has let through, too
    pub crossed: u64,
    /// what operators have done at other relays, and what this one has done, too
    pub changes: Vec<Change>,
}

impl<L: Listener + ?Sized> LoggedWindow<L> {
    /// Returns an empty window whose store is of this kind. It judges nothing of what its store knows until [`LoggedWindow::recovered`].
    pub fn new(
        rules: Rules,
        limits: Limits,
        engine: EngineKind,
        listener: Arc<L>,
        kind: &'static str,
        policy: StorePolicy,
        now: Instant,
    ) -> Arc<LoggedWindow<L>> {
        let inner = LocalWindow::new(rules, limits, engine, listener);
        inner.table().start_clock(now.checked_sub(CLOCK_BEFORE).unwrap_or(now));
        let state = Mutex::new(State { recovering: true, ..State::default() });
        Arc::new(LoggedWindow {
            inner,
            kind,
            policy,
            queue: Queue::default(),
            questions: Questions::default(),
            order: Mutex::new(()),
            is_down: AtomicBool::new(false),
            state,
            counts: Counts::default(),
        })
    }

    /// Returns the rules of the store.
    pub fn policy(&self) -> &StorePolicy {
        &self.policy
    }

    // ---- the writer's side ---------------------------------------------------------------------------------------

    /// Takes the oldest records that nobody has taken yet, at most this many, and the position of the last one. The caller
    /// writes them, and says so by [`LoggedWindow::written`]. Records that could not be written are still to be written.
    pub fn take(&self, most: usize) -> Option<(Vec<Record>, Position)> {
        self.queue.take(most)
    }

    /// Returns true if there are records that nobody has taken yet.
    pub fn has_records(&self) -> bool {
        self.queue.has_waiting()
    }

    /// Registers the waker of the writer. Returns true if there is something to take already.
    pub fn register(&self, waker: &Waker) -> bool {
        self.queue.register(waker)
    }

    /// Returns true if a client waits for a record that nobody has taken yet, although it waits for no commit. A writer that collects
    /// records for a while writes at once then.
    pub fn is_urgent(&self) -> bool {
        self.queue.is_urgent()
    }

    /// Registers the waker of a writer that collects records: it is woken when [`LoggedWindow::is_urgent`] becomes true. Returns true if
    /// it is true already.
    pub fn register_urgent(&self, waker: &Waker) -> bool {
        self.queue.register_urgent(waker)
    }

    /// Notes that the store has everything up to this position, and that it works.
    pub fn written(self: &Arc<Self>, position: Position, now: Instant) {
        self.queue.written(position);
        self.let_through(position);
        self.queue.settle(position);
        self.store_works(now);
    }

    /// Notes that the store takes nothing. With `on_outage = "continue"` everybody who waits goes on; these ids are counted.
    pub fn store_failed(&self, now: Instant) {
        {
            let mut state = self.state.lock();
            state.down_since.get_or_insert(now);
            self.is_down.store(true, Relaxed);
            if self.on_outage() == OnOutage::Refuse {
                self.questions.keep();
            }
        }
        if self.on_outage() == OnOutage::Continue {
            let last = self.queue.last();
            self.go_on_without(last);
        }
    }

    /// Notes that the store works. Questions that have waited for it are answered.
    pub fn store_works(self: &Arc<Self>, now: Instant) {
        if !self.is_down.load(Relaxed) && !self.questions.are_kept() {
            return;
        }
        let (questions, callers) = {
            let mut state = self.state.lock();
            state.down_since = None;
            self.is_down.store(false, Relaxed);
            state.is_behind &= self.queue.waiting().0 > MOST_WAITING / 2;
            if state.is_behind {
                return;
            }
            self.questions.release()
        };
        for question in questions {
            if let Some(mailbox) = question.mailbox.upgrade() {
                let verdict = reserve_one(self, question.claim, now, &mailbox, question.ticket);
                mailbox.deliver(question.ticket, verdict);
            }
        }
        callers.iter().filter_map(Weak::upgrade).for_each(|mailbox| mailbox.call());
    }

    /// Sets what the store says of itself.
    pub fn set_at_store(&self, at_store: AtStore) {
        self.state.lock().at_store = at_store;
    }

    /// Counts batches that could not be read.
    pub fn note_damaged(&self, batches: u64) {
        self.counts.damaged.fetch_add(batches, Relaxed);
    }

    // ---- the reader's side ---------------------------------------------------------------------------------------

    /// Takes what stood in the store before this process started, in order. Settings that were changed then are not changed again:
    /// the configuration has them.
    pub fn recover(&self, batch: &Batch, now: Instant, wall: SystemTime) -> Applied {
        let applied = self.apply(batch, now, wall, false);
        self.counts.recovered.fetch_add(applied.seen, Relaxed);
        applied
    }

    /// Takes what another relay has written since then.
    pub fn merge(&self, batch: &Batch, now: Instant, wall: SystemTime) -> Applied {
        let applied = self.apply(batch, now, wall, true);
        self.counts.merged.fetch_add(applied.seen, Relaxed);
        self.counts.crossed.fetch_add(applied.crossed, Relaxed);
        applied
    }

    /// Notes that the window knows everything that stood in its store when this process started.
    pub fn recovered(&self) {
        self.state.lock().recovering = false;
    }

    fn apply(&self, batch: &Batch, now: Instant, wall: SystemTime, is_live: bool) -> Applied {
        let table = self.inner.table();
        let stamp = table.stamp(now);
        let mut applied = Applied::default();
        let mut reading = Reading::new(now, wall);
        let wall_entry = |at, ttl, body| WallEntry { at, ttl, duplicates: 0, body };
        let past = |at, ttl, body| wall_entry(at, ttl, body).past_entry(stamp, wall);
        let is_digest = |claim: &Claim| matches!(claim, Claim::Digest(_));
        // An old number says something, too: its producer may have lived on since then.
        let left = |claim: &Claim, at, ttl, body| match is_digest(claim) {
            true => wall_entry(at, ttl, body).entry(stamp, wall),
            false => Some(past(at, ttl, body)),
        };
        for (n, record) in batch.records.iter().enumerate() {
            if n % HINTED == 0 {
                let next = batch.records.get(n..).unwrap_or_default().iter().take(HINTED);
                table.warm(next.filter_map(Written::claim), true);
            }
            match record {
                Written::Seen { claim, at, ttl, body, tenant } => {
                    reading.commit(*at, *ttl);
                    let Some(entry) = left(claim, *at, *ttl, *body) else {
                        applied.expired += 1;
                        continue;
                    };
                    match table.bring(*claim, entry, *tenant, stamp) {
                        Brought::New => applied.seen += 1,
                        Brought::Crossed => {
                            applied.seen += 1;
                            applied.crossed += u64::from(is_live);
                        }
                        Brought::Known => applied.crossed += u64::from(is_live),
                        Brought::Before => {}
                    }
                }
                Written::Touched { claim, at, ttl, body, tenant } => {
                    if let Some(entry) = left(claim, *at, *ttl, *body)
                        && !(is_digest(claim) && table.touch_at(*claim, entry, stamp))
                        && table.bring(*claim, entry, *tenant, stamp) == Brought::New
                    {
                        applied.seen += 1;
                    }
                }
                Written::Producer { image, at } => {
                    reading.commit(*at, image.ttl);
                    table.restore(image, past(*at, image.ttl, BodyDigest::UNKNOWN).at, stamp);
                    applied.seen += u64::from(image.end > 0);
                }
                Written::Forgotten(claim) => {
                    table.forget(*claim, now);
                }
                Written::ProducerForgotten(producer) => {
                    self.forget_written(Some(*producer), now);
                }
                Written::Flushed => {
                    reading.begin_anew();
                    self.forget_written(None, now);
                }
                Written::Changed(change) if is_live => {
                    match change.setting {
                        Setting::Capacity(capacity) => {
                            self.inner.resize(capacity.min(self.inner.rules().most_capacity()), now);
                        }
                        Setting::Ttl(ttl) => self.inner.set_ttl(ttl),
                        Setting::Mode(mode) => self.inner.set_mode(mode),
                        // Records of their own have done it.
                        Setting::Flushed | Setting::Forgotten => {}
                    }
                    reading.change(change.setting);
                    applied.changes.push(change.clone());
                }
                Written::Changed(change) => reading.change(change.setting),
            }
        }
        self.state.lock().reach.extend(&reading);
        applied
    }

    /// Makes everything unknown, or everything about a producer. What this relay has still to write comes later in the log, so that stays.
    pub(in crate::window) fn forget_written(&self, producer: Option<ProducerKey>, now: Instant) {
        let _order = self.order.lock();
        let table = self.inner.table();
        let later = self.queue.seen_unwritten(producer);
        match producer {
            Some(producer) => drop(table.forget_producer(producer, now)),
            None => drop(table.flush(now)),
        }
        let stamp = table.stamp(now);
        for (claim, at, memo) in later {
            let at = table.stamp(at);
            let entry = Entry { at, until: memo.until(at), duplicates: 0, body: memo.body() };
            if !entry.is_expired(stamp) {
                table.bring(claim, entry, memo.tenant(), stamp);
            }
        }
    }

    /// Returns a record of each producer that the window remembers, those seen last at the end, and a position. A log that has everything
    /// up to that position needs no older record. There are none in a window with ids.
    pub fn images(&self, now: Instant) -> (Vec<Record>, Position) {
        let table = self.inner.table();
        let stamp = table.stamp(now);
        let images = table.memory().producers().map(|producers| producers.images(stamp)).unwrap_or_default();
        let record = |(at, image): (engine::Stamp, ProducerImage)| {
            let at = now.checked_sub(stamp.since(at)).unwrap_or(now);
            Record { at, what: What::Producer(Box::new(image)) }
        };
        let records = images.into_iter().map(record).collect();
        // Under the lock, so that the records of everything that was seen above are in the queue.
        let _order = self.order.lock();
        (records, self.queue.last())
    }

    /// Returns true if the store has everything up to this position.
    pub fn is_written(&self, position: Position) -> bool {
        self.queue.is_written(position)
    }

    // ---- for a window that asks its store, too ---------------------------------------------------------------------

    /// The window in memory.
    pub(in crate::window) fn local(&self) -> &Arc<LocalWindow<L>> {
        &self.inner
    }

    /// Notes what another relay has had forgotten. A commit of it whose writing is not known yet may be older: the memory forgets it when it
    /// is. Only for a store that is asked about what the memory does not know.
    pub(in crate::window) fn doubt(&self, record: &Written) {
        let _order = self.order.lock();
        match record {
            Written::Forgotten(claim) => self.queue.disown(*claim),
            Written::ProducerForgotten(producer) => self.queue.disown_producer(*producer),
            Written::Flushed => self.queue.flush(),
            Written::Seen { .. }
            | Written::Touched { .. }
            | Written::Producer { .. }
            | Written::Changed(_) => {}
        }
    }

    /// Returns true if the store takes nothing at present.
    pub(in crate::window) fn is_down(&self) -> bool {
        self.is_down.load(Relaxed)
    }

    /// Makes a claim seen because the store says so: `left` of its TTL is left.
    pub(in crate::window) fn bring(
        &self,
        claim: Claim,
        (ttl, left): (Duration, Duration),
        body: BodyDigest,
        now: Instant,
    ) {
        let table = self.inner.table();
        let stamp = table.stamp(now);
        let at = table.stamp(now.checked_sub(ttl.saturating_sub(left)).unwrap_or(now));
        let entry = Entry { at, until: stamp.after(left), duplicates: 0, body };
        match table.bring(claim, entry, Tenant::COMMON, stamp) {
            Brought::New => self.counts.merged.fetch_add(1, Relaxed),
            Brought::Crossed => self.counts.crossed.fetch_add(1, Relaxed),
            Brought::Known | Brought::Before => 0,
        };
    }

    // ---- for both ------------------------------------------------------------------------------------------------

    /// Returns true if nothing is judged at present, because the store is out of order, or far behind, and the policy is to refuse.
    pub(in crate::window) fn judges_nothing(&self) -> bool {
        self.questions.are_kept() && self.on_outage() == OnOutage::Refuse
    }

    /// Returns the rule for an outage that holds now. A window that is off holds nobody up: publishes that waited for its store are judged
    /// by the memory when they ask again.
    pub(in crate::window) fn on_outage(&self) -> OnOutage {
        match self.inner.mode() {
            Mode::Off => OnOutage::Continue,
            Mode::Enforce | Mode::Observe => self.policy.on_outage,
        }
    }

    /// Returns true if a commit has to wait until it is written.
    fn waits_for_store(&self) -> bool {
        match (self.policy.remember, self.on_outage()) {
            (Remember::Async, _) => false,
            (Remember::Sync, OnOutage::Refuse) => true,
            (Remember::Sync, OnOutage::Continue) => !self.is_down.load(Relaxed),
        }
    }

    /// The number of records that may wait. With `refuse` none is dropped: the window refuses more.
    fn bound(&self) -> usize {
        match self.policy.on_outage {
            OnOutage::Continue => MOST_WAITING,
            OnOutage::Refuse => usize::MAX,
        }
    }

    /// Notes that somebody has made the window forget, or that other rules hold from now on: what its store knew before says nothing of that.
    fn begin_anew(&self) {
        self.state.lock().reach = Reach::default();
    }

    fn record(&self, what: What, at: Instant) {
        self.queue.push([Record { at, what }], self.bound());
        self.look_behind();
    }

    /// Refuses more if too many records wait.
    fn look_behind(&self) {
        if self.on_outage() == OnOutage::Refuse && self.queue.waiting().0 > MOST_WAITING {
            let mut state = self.state.lock();
            state.is_behind = true;
            self.questions.keep();
        }
    }

    /// Makes the commits up to this position seen. Returns how many there were.
    fn let_through(&self, position: Position) -> u64 {
        let mut count = 0;
        loop {
            let _order = self.order.lock();
            let stored = self.queue.take_stored(position, TOGETHER);
            if stored.is_empty() {
                return count;
            }
            count += stored.len() as u64;
            for alike in stored.chunk_by(|one, other| one.is_alike(other)) {
                self.make_seen(alike);
            }
        }
    }

    /// Makes commits seen that are alike.
    fn make_seen(&self, commits: &[Stored]) {
        let table = self.inner.table();
        match commits {
            [] => {}
            [first, _, ..] if !first.in_doubt => {
                let all: Vec<Commit> = commits.iter().map(|stored| stored.commit).collect();
                table.commit_all(&all, first.at);
            }
            _ => {
                for Stored { commit, at, in_doubt, .. } in commits {
                    table.commit(commit, *at, *in_doubt);
                }
            }
        }
        for Stored { commit, at, .. } in commits.iter().filter(|one| one.is_disowned) {
            table.forget(commit.claim, *at);
        }
    }

    /// Lets everybody go on who waits for a position up to this one, although it is not written.
    fn go_on_without(&self, position: Position) {
        let count = self.let_through(position);
        self.counts.unremembered.fetch_add(count, Relaxed);
        self.queue.settle(position);
    }

    /// Returns everything that is known of the store.
    fn store_facts(&self, now: Instant) -> StoreFacts {
        let (waiting, oldest) = self.queue.waiting();
        let state = self.state.lock();
        let count = |counter: &AtomicU64| counter.load(Relaxed);
        StoreFacts {
            kind: self.kind,
            policy: self.policy,
            known_for: state.reach.age(now).filter(|_| !state.recovering && count(&self.counts.damaged) == 0),
            down_since: state.down_since,
            recovering: state.recovering,
            waiting: waiting as u64,
            waiting_commits: self.queue.stored() as u64,
            waiting_publishes: self.questions.len() as u64,
            lag: oldest.map(|at| now.saturating_duration_since(at)),
            unremembered: count(&self.counts.unremembered),
            dropped: self.queue.dropped(),
            recovered: count(&self.counts.recovered),
            merged: count(&self.counts.merged),
            crossed: count(&self.counts.crossed),
            damaged: count(&self.counts.damaged),
            at_store: state.at_store.clone(),
        }
    }
}
