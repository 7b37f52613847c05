//! How sessions and operators use a window whose ids are in Redis.

use super::*;
use crate::window::engine::Stamp;

impl<L: Listener + ?Sized> LeasedWindow<L> {
    /// Asks Redis about a claim that is unknown here. The shell is woken by the caller.
    pub(super) fn ask(self: Arc<Self>, ask: &Ask, mailbox: &Arc<Mailbox>) -> Verdict {
        let bound = self.table().waiters_per_id();
        let joined = self.leases.ask(ask.claim, self.keep(), (mailbox, ask.ticket), false, bound);
        if joined != Joined::Pending {
            self.log.notice(Event::InFlight);
        }
        let wait = |window| Wait::new(window, ask.claim, Arc::clone(mailbox), ask.ticket);
        match joined {
            Joined::Pending => Verdict::Pending(wait(self)),
            Joined::Elsewhere => Verdict::InFlight(wait(self)),
            Joined::Crowded => Verdict::Crowded,
        }
    }

    /// How long an id counts as seen whose relay has died, in milliseconds.
    fn keep(&self) -> u64 {
        match self.rules().in_doubt {
            InDoubt::Forget => 0,
            InDoubt::Keep => millis(self.ttl()),
        }
    }

    /// Returns true if the memory alone decides, because Redis is out of order.
    fn decides_alone(&self) -> bool {
        self.log.is_down() && self.log.on_outage() == OnOutage::Continue
    }
}

impl<L: Listener + ?Sized> Window for LeasedWindow<L> {
    fn rules(&self) -> &Rules {
        self.log.rules()
    }

    fn mode(&self) -> Mode {
        self.log.mode()
    }

    fn ttl(&self) -> Duration {
        self.log.ttl()
    }

    fn handle(self: Arc<Self>) -> Arc<dyn Window> {
        self
    }

    fn reserve(
        self: Arc<Self>,
        asks: &[Ask],
        now: Instant,
        mailbox: &Arc<Mailbox>,
        verdicts: &mut [Option<Verdict>],
    ) {
        let (alone, refuses) = (self.decides_alone(), self.log.judges_nothing());
        for (ask, verdict) in asks.iter().zip(&mut *verdicts) {
            let known = match (alone, refuses) {
                (true, _) => Some(self.judge(ask.claim, now, mailbox, ask.ticket)),
                (_, true) => None,
                _ => Table::reserve_known(&self, |window| window.table(), ask, now, mailbox),
            };
            *verdict = Some(known.unwrap_or_else(|| Arc::clone(&self).ask(ask, mailbox)));
        }
        if self.log.local().refreshes_on_duplicate() {
            self.log.record_touches(asks, verdicts, now);
        }
        self.log.record_life(asks, verdicts, now);
        self.leases.wake();
    }

    /// The publish waits until Redis has forgotten the record, and not for the lease.
    fn republish(self: Arc<Self>, claim: Claim, now: Instant) -> Republish {
        self.leases.doubt(claim);
        let (placed, forgotten) = self.log.place_republish(claim, now);
        if matches!(forgotten, Remembered::At(_)) && !self.log.is_down() {
            self.leases.claim(claim, self.keep());
            self.leases.wake();
        }
        let forgotten = Committed::new(Arc::clone(&self) as _, forgotten);
        Republish { forgotten, ..placed.republish(self, claim) }
    }

    fn overdue(
        self: Arc<Self>,
        claim: Claim,
        now: Instant,
        mailbox: &Arc<Mailbox>,
        ticket: Ticket,
    ) -> Verdict {
        match self.log.on_outage() {
            OnOutage::Continue => self.judge(claim, now, mailbox, ticket),
            OnOutage::Refuse => reserve_one(&self, claim, now, mailbox, ticket),
        }
    }

    fn supersede(
        self: Arc<Self>,
        ask: Ask,
        body: BodyDigest,
        now: Instant,
        mailbox: &Arc<Mailbox>,
    ) -> Verdict {
        Table::supersede(self, |window| window.table(), ask, body, now, mailbox)
    }

    fn is_refusing(&self, mailbox: &Arc<Mailbox>) -> bool {
        self.log.is_refusing(mailbox)
    }

    fn commit(&self, commit: Commit, now: Instant) -> Remembered {
        self.commit_all(&[commit], now)
    }

    fn commit_all(&self, commits: &[Commit], now: Instant) -> Remembered {
        self.leases.committed(commits.iter().map(|commit| commit.claim));
        self.log.commit_all(commits, now)
    }

    fn commit_in_doubt(&self, commit: Commit, now: Instant) {
        self.leases.committed([commit.claim].into_iter());
        self.log.commit_in_doubt(commit, now);
    }

    fn remembered(&self) -> Position {
        self.log.remembered()
    }

    fn tell_when(&self, position: Position, mailbox: &Arc<Mailbox>) {
        self.log.tell_when(position, mailbox);
    }

    fn overdue_commit(&self, position: Position, now: Instant) -> OverdueCommit {
        self.log.overdue_commit(position, now)
    }

    /// Nobody is promoted by the memory alone: the lease may have ended, and another relay may have it. Who waits asks Redis.
    fn rollback(self: Arc<Self>, claim: Claim, turn: Turn, cause: ForgetCause) {
        let key = claim.key();
        if self.decides_alone() {
            self.log.pass_on(claim, turn, cause).deliver(Arc::clone(&self) as _, claim);
            return self.settle(key);
        }
        let (next, waiters) = self.log.give_up(claim, turn, cause);
        self.settle(key);
        for (mailbox, ticket) in waiters {
            let joined = self.leases.ask(claim, self.keep(), (&mailbox, ticket), true, usize::MAX);
            let wait = Wait::new(Arc::clone(&self) as _, claim, Arc::clone(&mailbox), ticket);
            mailbox.deliver(
                ticket,
                match joined {
                    Joined::Pending => Verdict::Pending(wait),
                    Joined::Elsewhere | Joined::Crowded => Verdict::InFlight(wait),
                },
            );
        }
        self.leases.wake();
        next.deliver(self, claim);
    }

    /// If another relay has the claim, its lease is to be replaced. The answer comes by mail.
    fn take_over(
        self: Arc<Self>,
        claim: Claim,
        since: Instant,
        now: Instant,
        queued: Option<(&Arc<Mailbox>, Ticket)>,
    ) -> TakeOver {
        let key = claim.key();
        if self.leases.replace(key, queued) {
            return TakeOver::Wait { since: now };
        }
        let taken = self.log.take_from(claim, since, now, queued);
        taken.result(self, claim)
    }

    fn set_uploading(&self, claim: Claim, turn: Turn, uploading: bool) {
        self.log.set_uploading(claim, turn, uploading);
    }

    fn waits_on(&self, claim: Claim, queued: Option<(&Arc<Mailbox>, Ticket)>) -> bool {
        let key = claim.key();
        match self.leases.waits_elsewhere(key, queued) {
            Some(elsewhere) => !elsewhere,
            None => self.log.waits_on(claim, queued),
        }
    }

    fn is_awaited(&self, claim: Claim, turn: Turn) -> bool {
        self.log.is_awaited(claim, turn)
    }

    fn disown(&self, claim: Claim, now: Instant) {
        self.leases.doubt(claim);
        self.log.disown(claim, now);
    }

    /// While another relay's publish of it is in flight, that one's outcome decides.
    fn release(&self, claim: Claim, now: Instant) {
        self.leases.doubt(claim);
        self.log.release(claim, now);
    }

    fn leave(&self, claim: Claim, mailbox: &Arc<Mailbox>, ticket: Ticket) {
        let key = claim.key();
        self.leases.leave(key, mailbox, ticket);
        self.log.leave(claim, mailbox, ticket);
    }

    fn crowd(&self, claim: Claim) {
        self.log.crowd(claim);
    }

    fn notice(&self, event: Event) {
        self.log.notice(event);
    }

    fn wants_origin(&self, claim: Claim) -> bool {
        self.log.wants_origin(claim)
    }

    fn note_origin(&self, origin: &Origin<'_>) {
        self.log.note_origin(origin);
    }

    fn wants_producer(&self, claim: Claim) -> bool {
        self.log.wants_producer(claim)
    }

    fn note_producer(&self, claim: Claim, name: &[u8]) {
        self.log.note_producer(claim, name);
    }

    fn wants_names(&self) -> bool {
        self.log.wants_names()
    }

    fn note_names(&self, names: &[&[u8]]) {
        self.log.note_names(names);
    }

    fn note_tenant(&self, tenant: Tenant, name: &str) {
        self.log.note_tenant(tenant, name);
    }
}

/// What concerns ids is said of the memory in front: Redis may know more of them.
impl<L: Listener + ?Sized> Inspect for LeasedWindow<L> {
    fn entries(&self) -> Option<usize> {
        self.log.entries()
    }

    fn capacity(&self) -> Option<usize> {
        self.log.capacity()
    }

    fn in_flight(&self) -> Option<usize> {
        self.log.in_flight()
    }

    fn refreshes_on_duplicate(&self) -> bool {
        self.log.refreshes_on_duplicate()
    }

    fn waiters_per_id(&self) -> usize {
        self.log.waiters_per_id()
    }

    fn bytes(&self) -> usize {
        self.log.bytes() + self.leases.bytes()
    }

    fn store_bytes(&self) -> usize {
        self.log.store_bytes()
    }

    fn store_bytes_at(&self, capacity: usize) -> usize {
        self.log.store_bytes_at(capacity)
    }

    fn bytes_per_id(&self) -> f64 {
        self.log.bytes_per_id()
    }

    fn oldest(&self, now: Instant) -> Option<Duration> {
        Inspect::oldest(&*self.log, now)
    }

    fn stamp(&self, now: Instant) -> Stamp {
        self.log.stamp(now)
    }

    fn find(&self, claim: Claim, now: Instant) -> Option<Found> {
        self.log.find(claim, now)
    }

    fn forget(&self, claim: Claim, now: Instant) -> Option<bool> {
        self.leases.doubt(claim);
        Inspect::forget(&*self.log, claim, now)
    }

    fn flush(&self, now: Instant) -> Option<usize> {
        self.leases.doubt_all(|_| true);
        Inspect::flush(&*self.log, now)
    }

    fn resize(&self, capacity: usize, now: Instant) -> Option<()> {
        Inspect::resize(&*self.log, capacity, now)
    }

    fn set_ttl(&self, ttl: Duration) {
        Inspect::set_ttl(&*self.log, ttl);
    }

    fn set_mode(&self, mode: Mode) {
        Inspect::set_mode(&*self.log, mode);
    }

    fn announce(&self, change: Change, now: Instant) {
        self.log.announce(change, now);
    }

    fn sweep(&self, now: Instant) {
        Inspect::sweep(&*self.log, now);
    }

    fn record(&self, now: Instant) -> Option<Recorder> {
        Inspect::record(&*self.log, now)
    }

    fn tenants(&self) -> Vec<TenantFacts> {
        self.log.tenants()
    }

    fn producers(&self, most: usize, containing: &str, now: Instant) -> Vec<ProducerFacts> {
        self.log.producers(most, containing, now)
    }

    fn producer(&self, producer: ProducerKey, now: Instant) -> Option<ProducerFacts> {
        self.log.producer(producer, now)
    }

    fn forget_producer(&self, producer: ProducerKey, now: Instant) -> Option<bool> {
        self.leases.doubt_all(|claim| claim.is_of(producer));
        self.log.forget_producer(producer, now)
    }

    fn store(&self, now: Instant) -> Option<StoreFacts> {
        let facts = self.log.store(now)?;
        let known_for = facts.at_store.oldest.filter(|_| !facts.recovering);
        Some(StoreFacts { waiting_publishes: self.leases.waiting() as u64, known_for, ..facts })
    }
}
