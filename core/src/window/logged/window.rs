//! How sessions and operators use a window with a log: as the window in memory, but for what is written.

use super::*;
use crate::window::engine::Stamp;
use crate::window::flight::{Next, Placed, Taken};
use crate::window::inspect::Inspect;
use crate::window::table::Table;

impl<L: Listener + ?Sized> LoggedWindow<L> {
    fn pending(self: Arc<Self>, ask: &Ask, mailbox: &Arc<Mailbox>) -> Option<Verdict> {
        let is_kept = self.questions.push(ask, mailbox);
        is_kept.then(|| Verdict::Pending(Wait::new(self, ask.claim, Arc::clone(mailbox), ask.ticket)))
    }

    /// Writes down the duplicates that make their ids young again.
    pub(in crate::window) fn record_touches(&self, asks: &[Ask], verdicts: &[Option<Verdict>], now: Instant) {
        let record = |(ask, verdict): (&Ask, &Option<Verdict>)| {
            let Some(Verdict::Duplicate(body)) = verdict else { return None };
            let ttl = self.inner.table().ttl_of(ask.claim)?;
            Some(Record { at: now, what: What::Touched(ask.claim, Memo::new(ttl, *body)) })
        };
        self.queue.push(asks.iter().zip(verdicts).filter_map(record), self.bound());
        self.look_behind();
    }

    /// Writes down what the store can't know by the numbers that are stored. An epoch that has begun shuts the old one out also after a
    /// crash, and at other relays. And a producer whose duplicates keep it alive here is alive there.
    pub(in crate::window) fn record_life(&self, asks: &[Ask], verdicts: &[Option<Verdict>], now: Instant) {
        let table = self.inner.table();
        let Some(producers) = table.memory().producers() else { return };
        let stamp = table.stamp(now);
        for (ask, verdict) in asks.iter().zip(verdicts) {
            match (ask.claim, verdict) {
                (Claim::Sequence { producer, .. }, Some(Verdict::Fresh(_)))
                    if producers.new_epoch(producer, false).is_some() =>
                {
                    let _order = self.order.lock();
                    if let Some(image) = producers.new_epoch(producer, true) {
                        self.record(What::Producer(Box::new(image)), now);
                    }
                }
                (Claim::Sequence { producer, .. }, Some(Verdict::Duplicate(body)))
                    if producers.is_to_be_told(producer, stamp) =>
                {
                    let _order = self.order.lock();
                    if let Some(ttl) = table.ttl_of(ask.claim) {
                        self.record(What::Touched(ask.claim, Memo::new(ttl, *body)), now);
                    }
                }
                _ => {}
            }
        }
    }

    /// Puts a key in flight for a publish that a consumer makes of its own delivery. Returns the position of the record, if there is
    /// one: the publish has to wait until it is written.
    pub(in crate::window) fn place_republish(&self, claim: Claim, now: Instant) -> (Placed, Remembered) {
        let placed = {
            let _order = self.order.lock();
            let mut placed = self.inner.table().republish(claim, now);
            let is_stored = self.queue.is_stored(claim);
            let forgets = !is_stored && (placed.removed || !placed.beside);
            placed.beside |= is_stored;
            let record = Record { at: now, what: What::Forgotten(claim) };
            let forgotten = match forgets {
                true => Remembered::At(self.queue.push_urgent(record, self.bound())),
                false => Remembered::Now,
            };
            (placed, forgotten)
        };
        self.look_behind();
        placed
    }

    /// Gives a reservation up. If another message of the claim is stored and not written yet, nobody is promoted: a second copy must not
    /// be stored. If it is a message that its consumer publishes again, the store forgets the claim once more: another relay may have
    /// written the one before later than this relay had it forgotten, and a retry of this one must not count as its duplicate.
    pub(in crate::window) fn pass_on(&self, claim: Claim, turn: Turn, cause: ForgetCause) -> Next {
        let table = self.inner.table();
        let pass_on = |is_stored, over: &mut bool| {
            table.pass_on(claim, turn, cause, is_stored, |is_over| *over = is_over)
        };
        self.queue.settle_flight(claim, self.bound(), pass_on)
    }

    /// Gives a reservation up, and promotes nobody. Who waits for it has to ask again.
    pub(in crate::window) fn give_up(
        &self,
        claim: Claim,
        turn: Turn,
        cause: ForgetCause,
    ) -> (Next, Vec<(Arc<Mailbox>, Ticket)>) {
        let table = self.inner.table();
        let give_up = |is_stored, over: &mut bool| {
            table.give_up(claim, turn, cause, is_stored, |is_over| *over = is_over)
        };
        self.queue.settle_flight(claim, self.bound(), give_up)
    }

    /// Lets a waiter take a claim over; `None` if the message may be stored, and only its id is not written yet: a second copy must
    /// not be stored.
    pub(in crate::window) fn take_from(
        &self,
        claim: Claim,
        since: Instant,
        now: Instant,
        queued: Option<(&Arc<Mailbox>, Ticket)>,
    ) -> Taken {
        let _order = self.order.lock();
        match self.queue.is_stored(claim) {
            true => Taken::Wait { since: now },
            false => self.inner.table().take_over(claim, since, now, queued),
        }
    }
}

impl<L: Listener + ?Sized> Window for LoggedWindow<L> {
    fn rules(&self) -> &Rules {
        self.inner.rules()
    }

    fn mode(&self) -> Mode {
        self.inner.mode()
    }

    fn ttl(&self) -> Duration {
        self.inner.ttl()
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
        if self.judges_nothing() {
            for (ask, verdict) in asks.iter().zip(verdicts) {
                let pending = Arc::clone(&self).pending(ask, mailbox);
                *verdict =
                    Some(pending.unwrap_or_else(|| reserve_one(&self, ask.claim, now, mailbox, ask.ticket)));
            }
            return;
        }
        if self.inner.table().memory().producers().is_some() {
            Table::reserve(Arc::clone(&self), |window| window.inner.table(), asks, now, mailbox, verdicts);
            return self.record_life(asks, verdicts, now);
        }
        if !self.inner.refreshes_on_duplicate() {
            return Table::reserve(self, |window| window.inner.table(), asks, now, mailbox, verdicts);
        }
        let _order = self.order.lock();
        Table::reserve(Arc::clone(&self), |window| window.inner.table(), asks, now, mailbox, verdicts);
        self.record_touches(asks, verdicts, now);
    }

    /// The log forgets the claim, too: if this process ends now, the message must not count as a duplicate of what it replaces. It does not
    /// forget the message of another publish: that is a new one, too, or the log will have it after this.
    fn republish(self: Arc<Self>, claim: Claim, now: Instant) -> Republish {
        let (placed, forgotten) = self.place_republish(claim, now);
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
        reserve_one(&self, claim, now, mailbox, ticket)
    }

    fn supersede(
        self: Arc<Self>,
        ask: Ask,
        body: BodyDigest,
        now: Instant,
        mailbox: &Arc<Mailbox>,
    ) -> Verdict {
        Table::supersede(self, |window| window.inner.table(), ask, body, now, mailbox)
    }

    fn is_refusing(&self, mailbox: &Arc<Mailbox>) -> bool {
        self.judges_nothing() && self.questions.call_when_released(mailbox)
    }

    fn commit(&self, commit: Commit, now: Instant) -> Remembered {
        self.commit_all(&[commit], now)
    }

    fn commit_all(&self, commits: &[Commit], now: Instant) -> Remembered {
        if self.waits_for_store() {
            return Remembered::At(self.queue.push_stored(commits, now, false, self.bound()));
        }
        let seen = |commit: &Commit| Record { at: now, what: What::Seen(commit.claim, commit.memo) };
        {
            let _order = self.order.lock();
            self.queue.push(commits.iter().map(seen), self.bound());
            self.inner.table().commit_all(commits, now);
        }
        self.look_behind();
        if self.is_down.load(Relaxed) {
            self.counts.unremembered.fetch_add(commits.len() as u64, Relaxed);
        }
        Remembered::Now
    }

    /// Its client is not acked. But those who wait for the id are, so it has to be written first, as any other.
    fn commit_in_doubt(&self, commit: Commit, now: Instant) {
        if self.waits_for_store() {
            self.queue.push_stored(&[commit], now, true, self.bound());
            return;
        }
        let _order = self.order.lock();
        self.record(What::Seen(commit.claim, commit.memo), now);
        self.inner.table().commit(&commit, now, true);
    }

    fn remembered(&self) -> Position {
        self.queue.settled()
    }

    fn tell_when(&self, position: Position, mailbox: &Arc<Mailbox>) {
        self.queue.tell_when(position, mailbox);
    }

    fn overdue_commit(&self, position: Position, _: Instant) -> OverdueCommit {
        match self.on_outage() {
            OnOutage::Refuse => OverdueCommit::WaitOn,
            OnOutage::Continue => {
                self.go_on_without(position);
                OverdueCommit::AckAnyway
            }
        }
    }

    fn rollback(self: Arc<Self>, claim: Claim, turn: Turn, cause: ForgetCause) {
        self.pass_on(claim, turn, cause).deliver(self, claim);
    }

    fn take_over(
        self: Arc<Self>,
        claim: Claim,
        since: Instant,
        now: Instant,
        queued: Option<(&Arc<Mailbox>, Ticket)>,
    ) -> TakeOver {
        let taken = self.take_from(claim, since, now, queued);
        taken.result(self, claim)
    }

    fn set_uploading(&self, claim: Claim, turn: Turn, uploading: bool) {
        self.inner.set_uploading(claim, turn, uploading);
    }

    fn waits_on(&self, claim: Claim, queued: Option<(&Arc<Mailbox>, Ticket)>) -> bool {
        let _order = self.order.lock();
        self.queue.is_stored(claim) || self.inner.waits_on(claim, queued)
    }

    fn is_awaited(&self, claim: Claim, turn: Turn) -> bool {
        self.inner.is_awaited(claim, turn)
    }

    fn disown(&self, claim: Claim, now: Instant) {
        Inspect::forget(self, claim, now);
    }

    /// (If the claim is in flight, its commit is written all the same. A process that reads the log takes the id for seen until its TTL is over.)
    fn release(&self, claim: Claim, now: Instant) {
        self.inner.release(claim, now);
        Inspect::forget(self, claim, now);
    }

    fn leave(&self, claim: Claim, mailbox: &Arc<Mailbox>, ticket: Ticket) {
        self.questions.leave(mailbox, ticket);
        self.inner.leave(claim, mailbox, ticket);
    }

    fn crowd(&self, claim: Claim) {
        self.inner.crowd(claim);
    }

    fn notice(&self, event: Event) {
        self.inner.notice(event);
    }

    fn wants_origin(&self, claim: Claim) -> bool {
        self.inner.wants_origin(claim)
    }

    fn note_origin(&self, origin: &Origin<'_>) {
        self.inner.note_origin(origin);
    }

    fn wants_producer(&self, claim: Claim) -> bool {
        self.inner.wants_producer(claim)
    }

    fn note_producer(&self, claim: Claim, name: &[u8]) {
        self.inner.note_producer(claim, name);
    }

    fn wants_names(&self) -> bool {
        self.inner.wants_names()
    }

    fn note_names(&self, names: &[&[u8]]) {
        self.inner.note_names(names);
    }

    fn note_tenant(&self, tenant: Tenant, name: &str) {
        self.inner.note_tenant(tenant, name);
    }
}

impl<L: Listener + ?Sized> Inspect for LoggedWindow<L> {
    fn entries(&self) -> Option<usize> {
        Some(self.inner.len())
    }

    fn capacity(&self) -> Option<usize> {
        Some(self.inner.capacity())
    }

    fn in_flight(&self) -> Option<usize> {
        Some(self.inner.in_flight())
    }

    fn refreshes_on_duplicate(&self) -> bool {
        self.inner.refreshes_on_duplicate()
    }

    fn waiters_per_id(&self) -> usize {
        self.inner.waiters_per_id()
    }

    fn bytes(&self) -> usize {
        self.inner.bytes() + self.queue.bytes()
    }

    fn store_bytes(&self) -> usize {
        self.inner.store_bytes()
    }

    fn store_bytes_at(&self, capacity: usize) -> usize {
        self.inner.store_bytes_at(capacity)
    }

    fn bytes_per_id(&self) -> f64 {
        self.inner.bytes_per_id()
    }

    fn oldest(&self, now: Instant) -> Option<Duration> {
        self.inner.oldest(now)
    }

    fn stamp(&self, now: Instant) -> Stamp {
        self.inner.stamp(now)
    }

    fn find(&self, claim: Claim, now: Instant) -> Option<Found> {
        self.inner.find(claim, now)
    }

    fn forget(&self, claim: Claim, now: Instant) -> Option<bool> {
        let _order = self.order.lock();
        self.record(What::Forgotten(claim), now);
        self.queue.disown(claim);
        Some(self.inner.forget(claim, now))
    }

    fn flush(&self, now: Instant) -> Option<usize> {
        let _order = self.order.lock();
        self.record(What::Flushed, now);
        self.queue.flush();
        self.begin_anew();
        Some(self.inner.flush(now))
    }

    fn resize(&self, capacity: usize, now: Instant) -> Option<()> {
        self.inner.resize(capacity, now);
        Some(())
    }

    fn set_ttl(&self, ttl: Duration) {
        self.begin_anew();
        self.inner.set_ttl(ttl);
    }

    fn set_mode(&self, mode: Mode) {
        self.begin_anew();
        self.inner.set_mode(mode);
    }

    fn announce(&self, change: Change, now: Instant) {
        self.record(What::Changed(change), now);
    }

    fn sweep(&self, now: Instant) {
        self.inner.sweep(now);
    }

    fn record(&self, now: Instant) -> Option<Recorder> {
        self.inner.record(now)
    }

    fn tenants(&self) -> Vec<TenantFacts> {
        self.inner.tenants()
    }

    fn producers(&self, most: usize, containing: &str, now: Instant) -> Vec<ProducerFacts> {
        self.inner.producers(most, containing, now)
    }

    fn producer(&self, producer: ProducerKey, now: Instant) -> Option<ProducerFacts> {
        self.inner.producer(producer, now)
    }

    fn forget_producer(&self, producer: ProducerKey, now: Instant) -> Option<bool> {
        self.inner.table().memory().producers()?;
        let _order = self.order.lock();
        self.record(What::ProducerForgotten(producer), now);
        self.queue.disown_producer(producer);
        self.inner.forget_producer(producer, now)
    }

    fn store(&self, now: Instant) -> Option<StoreFacts> {
        Some(self.store_facts(now))
    }
}
