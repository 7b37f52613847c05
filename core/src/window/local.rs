//! The window in the memory of this process: rules and limits around a table. `table.rs` decides what happens to a key.

use super::dials::Dials;
use super::engine::{EngineKind, Stamp};
use super::handle::Handle;
use super::memory::Memory;
use super::table::Table;
use super::tenant_names::TenantNames;
use super::*;

/// A window in memory, over an engine. It knows every verdict at once, and it remembers every commit at once.
#[derive(Debug)]
pub struct LocalWindow<L: Listener + ?Sized = dyn Listener> {
    rules: Rules,
    dials: Dials,
    kind: EngineKind,
    table: Table<L>,
    tenant_names: TenantNames,
}

/// The limits of a window: what an operator can change while it runs, and its bounds.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Limits {
    /// ids
    pub capacity: usize,
    /// from the commit
    pub ttl: Duration,
    /// see [`Mode`]
    pub mode: Mode,
    /// a duplicate makes the key young again
    pub refresh_on_duplicate: bool,
    /// how many publishes may wait for the outcome of one key
    pub waiters_per_id: usize,
}

impl<L: Listener + ?Sized> LocalWindow<L> {
    /// Returns an empty window. A capacity of 0 counts as 1.
    pub fn new(rules: Rules, limits: Limits, engine: EngineKind, listener: Arc<L>) -> Arc<LocalWindow<L>> {
        let Limits { capacity, ttl, mode, refresh_on_duplicate, waiters_per_id } = limits;
        let memory = Memory::new(&rules, engine, capacity.max(1));
        memory.set_mode(mode);
        let table = Table::new(memory, refresh_on_duplicate, waiters_per_id, listener);
        let window = LocalWindow {
            rules,
            dials: Dials::new(ttl, mode),
            kind: engine,
            table,
            tenant_names: TenantNames::default(),
        };
        window.tell_limits();
        Arc::new(window)
    }

    /// Returns capacity, TTL and mode in force now, and the bounds.
    pub fn limits(&self) -> Limits {
        Limits {
            capacity: self.capacity(),
            ttl: self.dials.ttl(),
            mode: self.dials.mode(),
            refresh_on_duplicate: self.table.refreshes_on_duplicate(),
            waiters_per_id: self.table.waiters_per_id(),
        }
    }

    fn tell_limits(&self) {
        self.table.listener().limits(&self.limits());
    }

    /// Returns the table, for the handles of this window.
    pub(super) fn table(&self) -> &Table<L> {
        &self.table
    }

    /// Returns the number of remembered keys, expired ones that were not swept yet included.
    pub fn len(&self) -> usize {
        self.table.memory().len()
    }

    /// Returns true if no key is remembered.
    pub fn is_empty(&self) -> bool {
        self.table.memory().len() == 0
    }

    /// Returns the number of reservations whose outcome is not known: keys in flight, and overtaken reservations. They do not count
    /// against the capacity.
    pub fn in_flight(&self) -> usize {
        self.table.flights().len()
    }

    /// Returns how many keys can be remembered.
    pub fn capacity(&self) -> usize {
        self.table.memory().capacity()
    }

    /// Estimates the bytes that the window takes on the heap. The engine says how good the estimate is.
    pub fn bytes(&self) -> usize {
        self.store_bytes() + self.table.flights().bytes() + self.tenant_names.bytes()
    }

    /// Returns how keys are stored.
    pub fn engine(&self) -> EngineKind {
        self.kind
    }

    /// Estimates the bytes that the remembered keys take: a part of [`LocalWindow::bytes`].
    pub fn store_bytes(&self) -> usize {
        self.table.memory().bytes()
    }

    /// Estimates the bytes that this many remembered keys would take at most.
    pub fn store_bytes_at(&self, capacity: usize) -> usize {
        if let Some(producers) = self.table.memory().producers() {
            return producers.bytes_at(capacity);
        }
        let tenants = if self.rules.quota.is_some() { self.kind.tenant_bytes_at(capacity) } else { 0 };
        self.kind.bytes_at(capacity) + tenants
    }

    /// Estimates the bytes that one remembered key takes in a well-filled window.
    pub fn bytes_per_id(&self) -> f64 {
        self.table.memory().bytes_per_entry()
    }

    /// Returns the age of the key that has to make room next, as far as the engine can say. A duplicate may have made it young again.
    pub fn oldest(&self, now: Instant) -> Option<Duration> {
        self.table.memory().oldest().map(|at| self.table.stamp(now).since(at))
    }

    /// Returns a seen key. Does not count as a duplicate.
    pub fn get(&self, claim: impl Into<Claim>, now: Instant) -> Option<Seen> {
        self.table.get(claim.into(), now)
    }

    /// Returns true if the outcome of a publish with this key is not known.
    pub fn is_in_flight(&self, claim: impl Into<Claim>) -> bool {
        self.table.is_in_flight(claim.into().key())
    }

    /// Makes one seen key unknown, and says whether it was seen. A key in flight stays in flight: its outcome will decide.
    pub fn forget(&self, claim: impl Into<Claim>, now: Instant) -> bool {
        self.table.forget(claim.into(), now)
    }

    /// Makes all seen keys unknown, and says how many there were. Keys in flight stay in flight.
    pub fn flush(&self, now: Instant) -> usize {
        self.table.flush(now)
    }

    /// Changes the capacity (at least 1). Keys that no longer fit are forgotten at once, least recently seen first.
    pub fn resize(&self, capacity: usize, now: Instant) {
        self.table.resize(capacity.max(1), now);
        self.tell_limits();
    }

    /// Removes expired keys that are easy to find. Publishes do that in passing; this is for times without any.
    pub fn sweep(&self, now: Instant) {
        self.table.sweep(now);
    }

    /// Records the publishes that are judged from now on; `None` if too many recorders are open already.
    pub fn record(&self, now: Instant) -> Option<Recorder> {
        self.table.record(now)
    }

    /// Changes the TTL of keys that will be committed from now on.
    pub fn set_ttl(&self, ttl: Duration) {
        self.dials.set_ttl(ttl);
        self.tell_limits();
    }

    /// Changes the mode.
    pub fn set_mode(&self, mode: Mode) {
        self.dials.set_mode(mode);
        self.table.memory().set_mode(mode);
        self.tell_limits();
    }
}

impl<L: Listener + ?Sized> Window for LocalWindow<L> {
    fn rules(&self) -> &Rules {
        &self.rules
    }

    fn mode(&self) -> Mode {
        self.dials.mode()
    }

    fn ttl(&self) -> Duration {
        self.dials.ttl()
    }

    fn handle(self: Arc<Self>) -> Arc<dyn Window> {
        Arc::new(Handle(self))
    }

    fn reserve(
        self: Arc<Self>,
        asks: &[Ask],
        now: Instant,
        mailbox: &Arc<Mailbox>,
        verdicts: &mut [Option<Verdict>],
    ) {
        Table::reserve(self, |window| &window.table, asks, now, mailbox, verdicts);
    }

    fn republish(self: Arc<Self>, claim: Claim, now: Instant) -> Republish {
        self.table.republish(claim, now).republish(self, claim)
    }

    /// This window never says `Pending`, so this is never needed. It asks anew.
    fn overdue(
        self: Arc<Self>,
        claim: Claim,
        now: Instant,
        mailbox: &Arc<Mailbox>,
        ticket: Ticket,
    ) -> Verdict {
        reserve_one(&self, claim, now, mailbox, ticket)
    }

    fn supersede(
        self: Arc<Self>,
        ask: Ask,
        body: BodyDigest,
        now: Instant,
        mailbox: &Arc<Mailbox>,
    ) -> Verdict {
        Table::supersede(self, |window| &window.table, ask, body, now, mailbox)
    }

    fn is_refusing(&self, _: &Arc<Mailbox>) -> bool {
        false
    }

    fn commit(&self, commit: Commit, now: Instant) -> Remembered {
        self.table.commit(&commit, now, false);
        Remembered::Now
    }

    fn commit_all(&self, commits: &[Commit], now: Instant) -> Remembered {
        self.table.commit_all(commits, now);
        Remembered::Now
    }

    fn commit_in_doubt(&self, commit: Commit, now: Instant) {
        self.table.commit(&commit, now, true);
    }

    fn remembered(&self) -> Position {
        Position::default()
    }

    /// Every commit is remembered at once, so there is nothing to wait for.
    fn tell_when(&self, _: Position, mailbox: &Arc<Mailbox>) {
        mailbox.call();
    }

    /// Never called: no commit of this window has a position.
    fn overdue_commit(&self, _: Position, _: Instant) -> OverdueCommit {
        OverdueCommit::AckAnyway
    }

    fn rollback(self: Arc<Self>, claim: Claim, turn: Turn, cause: ForgetCause) {
        Table::rollback(self, |window| &window.table, claim, turn, cause);
    }

    fn take_over(
        self: Arc<Self>,
        claim: Claim,
        since: Instant,
        now: Instant,
        queued: Option<(&Arc<Mailbox>, Ticket)>,
    ) -> TakeOver {
        self.table.take_over(claim, since, now, queued).result(self, claim)
    }

    fn set_uploading(&self, claim: Claim, turn: Turn, uploading: bool) {
        self.table.set_uploading(claim.key(), turn, uploading);
    }

    fn waits_on(&self, claim: Claim, queued: Option<(&Arc<Mailbox>, Ticket)>) -> bool {
        self.table.waits_on(claim.key(), queued)
    }

    fn is_awaited(&self, claim: Claim, turn: Turn) -> bool {
        self.table.is_awaited(claim.key(), turn)
    }

    fn disown(&self, claim: Claim, now: Instant) {
        self.forget(claim, now);
    }

    fn release(&self, claim: Claim, now: Instant) {
        self.table.release(claim, now);
    }

    fn leave(&self, claim: Claim, mailbox: &Arc<Mailbox>, ticket: Ticket) {
        self.table.leave(claim.key(), mailbox, ticket);
    }

    fn crowd(&self, claim: Claim) {
        self.table.crowd(claim.key());
    }

    fn notice(&self, event: Event) {
        self.table.notice(event);
    }

    fn wants_origin(&self, claim: Claim) -> bool {
        self.table.listener().wants_origin(claim)
    }

    fn note_origin(&self, origin: &Origin<'_>) {
        self.table.listener().origin(origin);
    }

    fn wants_producer(&self, claim: Claim) -> bool {
        match (claim, self.table.memory().producers()) {
            (Claim::Sequence { producer, .. }, Some(producers)) => producers.wants_name(producer),
            _ => false,
        }
    }

    fn note_producer(&self, claim: Claim, name: &[u8]) {
        if let (Claim::Sequence { producer, .. }, Some(producers)) = (claim, self.table.memory().producers())
        {
            producers.name(producer, name);
        }
    }

    fn wants_names(&self) -> bool {
        self.table.listener().wants_names()
    }

    fn note_names(&self, names: &[&[u8]]) {
        self.table.listener().names(names);
    }

    fn note_tenant(&self, tenant: Tenant, name: &str) {
        let has_ids = || self.table.memory().tenants().into_iter().filter(|(_, len, _)| *len > 0);
        self.tenant_names.note(tenant, name, || has_ids().map(|(tenant, ..)| tenant).collect());
    }
}

impl<L: Listener + ?Sized> Inspect for LocalWindow<L> {
    fn entries(&self) -> Option<usize> {
        Some(self.len())
    }

    fn capacity(&self) -> Option<usize> {
        Some(self.capacity())
    }

    fn in_flight(&self) -> Option<usize> {
        Some(self.in_flight())
    }

    fn refreshes_on_duplicate(&self) -> bool {
        self.table.refreshes_on_duplicate()
    }

    fn waiters_per_id(&self) -> usize {
        self.table.waiters_per_id()
    }

    fn bytes(&self) -> usize {
        self.bytes()
    }

    fn store_bytes(&self) -> usize {
        self.store_bytes()
    }

    fn store_bytes_at(&self, capacity: usize) -> usize {
        self.store_bytes_at(capacity)
    }

    fn bytes_per_id(&self) -> f64 {
        self.bytes_per_id()
    }

    fn oldest(&self, now: Instant) -> Option<Duration> {
        self.oldest(now)
    }

    fn stamp(&self, now: Instant) -> Stamp {
        self.table.stamp(now)
    }

    fn find(&self, claim: Claim, now: Instant) -> Option<Found> {
        Some(match self.get(claim, now) {
            Some(seen) => Found::Seen(seen),
            None if self.is_in_flight(claim) => Found::InFlight,
            None => Found::Unknown,
        })
    }

    fn forget(&self, claim: Claim, now: Instant) -> Option<bool> {
        Some(self.forget(claim, now))
    }

    fn flush(&self, now: Instant) -> Option<usize> {
        Some(self.flush(now))
    }

    fn resize(&self, capacity: usize, now: Instant) -> Option<()> {
        self.resize(capacity, now);
        Some(())
    }

    fn set_ttl(&self, ttl: Duration) {
        self.set_ttl(ttl);
    }

    fn set_mode(&self, mode: Mode) {
        self.set_mode(mode);
    }

    /// Nobody else has this window.
    fn announce(&self, _: Change, _: Instant) {}

    fn sweep(&self, now: Instant) {
        self.sweep(now);
    }

    fn record(&self, now: Instant) -> Option<Recorder> {
        self.record(now)
    }

    fn tenants(&self) -> Vec<TenantFacts> {
        let named = |(tenant, entries, evicted)| TenantFacts {
            tenant,
            name: self.tenant_names.of(tenant),
            entries,
            evicted,
        };
        self.table.memory().tenants().into_iter().map(named).collect()
    }

    fn producers(&self, most: usize, containing: &str, now: Instant) -> Vec<ProducerFacts> {
        let producers = self.table.memory().producers();
        producers
            .map(|producers| producers.facts(most, containing, self.table.stamp(now)))
            .unwrap_or_default()
    }

    fn producer(&self, producer: ProducerKey, now: Instant) -> Option<ProducerFacts> {
        self.table.memory().producers()?.find(producer, self.table.stamp(now))
    }

    fn forget_producer(&self, producer: ProducerKey, now: Instant) -> Option<bool> {
        self.table.forget_producer(producer, now)
    }

    fn store(&self, _: Instant) -> Option<StoreFacts> {
        None
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::window::event::NoListener;

    #[expect(clippy::disallowed_methods, reason = "one base instant; the tests count from there")]
    fn base() -> Instant {
        Instant::now()
    }

    fn window(capacity: usize, engine: EngineKind) -> Arc<LocalWindow> {
        let rules = Rules {
            name: "test".into(),
            id: IdSource::MessageId,
            scope: Scope::default(),
            in_doubt: InDoubt::Forget,
            missing_id: MissingId::Forward,
            on_conflict: OnConflict::Drop,
            numbering: Numbering::default(),
            confirms: ConfirmRule::Shadow,
            verify_routing: true,
            forward_to: None,
            republish: RepublishRule::default(),
            release: Release::default(),
            quota: Quota::None,
            signals: crate::window::Signals::default(),
        };
        let limits = Limits {
            capacity,
            ttl: Duration::from_secs(60),
            mode: Mode::Enforce,
            refresh_on_duplicate: false,
            waiters_per_id: 2,
        };
        LocalWindow::new(rules, limits, engine, Arc::new(NoListener))
    }

    /// By a session's handle everything is as by the window itself, and the window's own count stays as it is.
    #[test]
    fn a_handle_is_the_window_with_a_count_of_its_own() {
        let (window, mailbox, now) = (window(4, EngineKind::default()), Arc::new(Mailbox::new()), base());
        let handles = [Arc::clone(&window).handle(), Arc::clone(&window).handle()];
        let reserve =
            |n: usize, key, ticket| reserve_one(&handles[n], Key(key), now, &mailbox, Ticket(ticket));
        let Verdict::Fresh(first) = reserve(0, 1, 1) else { panic!("not fresh") };
        let Verdict::InFlight(wait) = reserve(1, 1, 2) else { panic!("not in flight") };
        assert_eq!((Arc::strong_count(&window), Arc::strong_count(&handles[0])), (3, 2));
        first.forget(ForgetCause::Nack);
        let Some((Ticket(2), Verdict::Fresh(promoted))) = mailbox.take().pop() else {
            panic!("not promoted")
        };
        drop(wait);
        promoted.commit(now, Duration::from_secs(1));
        assert!(matches!(reserve(0, 1, 3), Verdict::Duplicate(_)));
        assert!(window.get(Key(1), now).is_some() && window.in_flight() == 0);
        assert_eq!((Arc::strong_count(&window), Arc::strong_count(&handles[0])), (3, 1));
    }

    /// Without a reservation, which a session never does: nothing is stored twice.
    #[test]
    fn a_commit_of_what_is_seen_replaces_it() {
        for engine in EngineKind::ALL {
            let (window, now) = (window(4, engine), base());
            for seconds in [1, 2, 3] {
                let memo = Duration::from_secs(seconds).into();
                window.commit(Commit { claim: Key(1).into(), turn: Turn::NOBODY, memo }, now);
                assert_eq!(window.len(), 1);
            }
            assert_eq!(window.get(Key(1), now).unwrap().until, now + Duration::from_secs(3));
        }
    }

    #[test]
    fn a_clock_that_is_read_a_moment_late_does_no_harm() {
        let (window, mailbox, now) = (window(4, EngineKind::default()), Arc::new(Mailbox::new()), base());
        let second = Duration::from_secs(1);
        let Verdict::Fresh(reservation) = reserve_one(&window, Key(1), now + second, &mailbox, Ticket(1))
        else {
            panic!("not fresh")
        };
        reservation.commit(now, second);
        let before = window.get(Key(1), now).unwrap();
        assert_eq!((before.at, before.until), (now, now + second));
        assert!(matches!(reserve_one(&window, Key(1), now, &mailbox, Ticket(2)), Verdict::Duplicate(_)));
        assert!(window.get(Key(1), now + 2 * second).is_none());
    }
}
