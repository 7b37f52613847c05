//! The ids of a window in memory: the table of those in flight, beside the engine that remembers those that were stored. Here it is
//! decided what is a duplicate: in `Table::judge` for a new publish, and in `Table::commit` for those that wait.
//!
//! Every operation on a key holds the key's lock in the table of flights. A key is in flight, or seen, or neither. It is never two of
//! these, and no other thread sees a state in between. Two exceptions: a publish with another body than the one that was stored may be
//! in flight to replace it ([`Table::supersede`]). The stored id stays seen until that one is committed. And of several messages of a key
//! that are in flight at a time, one may be stored before the others: the key is seen, and if the engine forgets it, the others are still
//! in flight. Lock order: first the shard of the flights, then the engine. Both are
//! released before a letter is delivered. A letter, or the mailbox around it, may be dropped on the way, and a reservation in it
//! would come back here.

use super::by_lock::ByLock;
use super::commit_group::CommitGroup;
use super::dials::Clock;
use super::engine::{Compact, Entry, Stamp, Store};
use super::event::{Event, EvictionCause, ForgetCause, Listener};
use super::flight::{Flight, Flights, Next, Placed, Shard, Stored, Taken, Turns};
use super::memory::{Admitted, Memory, Removed};
use super::producers::{Leaving, Refusal};
use super::tap::Tap;
use super::{
    Ask, BodyDigest, Claim, Commit, Committed, HINTED, Key, Mailbox, ProducerImage, ProducerKey, Recorder,
    Republish, Reservation, Seen, TakeOver, Tenant, Ticket, Turn, Verdict, Wait, Window,
};
use std::collections::hash_map::{Entry as MapEntry, VacantEntry};
use std::sync::Arc;
use std::time::{Duration, Instant};

/// The ids of one window, and the listener of what happens to them.
#[derive(Debug)]
pub(super) struct Table<L: Listener + ?Sized> {
    refresh_on_duplicate: bool,
    waiters_per_id: usize,
    clock: Clock,
    flights: Flights,
    memory: Memory,
    listener: Arc<L>,
    tap: Arc<Tap>,
}

impl<L: Listener + ?Sized> Table<L> {
    /// A table over an empty memory.
    pub(super) fn new(
        memory: Memory,
        refresh_on_duplicate: bool,
        waiters_per_id: usize,
        listener: Arc<L>,
    ) -> Table<L> {
        Table {
            refresh_on_duplicate,
            waiters_per_id,
            clock: Clock::default(),
            flights: Flights::new(),
            memory,
            listener,
            tap: Arc::default(),
        }
    }

    /// Whether a duplicate makes an id young again.
    pub(super) fn refreshes_on_duplicate(&self) -> bool {
        self.refresh_on_duplicate
    }

    /// How many publishes may wait for the outcome of one key.
    pub(super) fn waiters_per_id(&self) -> usize {
        self.waiters_per_id
    }

    /// What is remembered, to be asked for its sizes.
    pub(super) fn memory(&self) -> &Memory {
        &self.memory
    }

    /// The flights, to be asked for their sizes.
    pub(super) fn flights(&self) -> &Flights {
        &self.flights
    }

    /// The listener.
    pub(super) fn listener(&self) -> &L {
        &self.listener
    }

    /// Converts an instant to the window's own clock.
    pub(super) fn stamp(&self, now: Instant) -> Stamp {
        self.clock.stamp(now)
    }

    /// Returns a seen claim. Does not count as a duplicate.
    pub(super) fn get(&self, claim: Claim, now: Instant) -> Option<Seen> {
        let stamp = self.clock.stamp(now);
        let entry = self.memory.peek(claim).filter(|entry| !entry.is_expired(stamp))?;
        let at = now.checked_sub(stamp.since(entry.at)).unwrap_or(now);
        let until = now.checked_add(entry.until.since(stamp)).unwrap_or(now);
        Some(Seen { at, until, duplicates: entry.duplicates })
    }

    /// Returns for how long a seen key is remembered from its commit, or from its last duplicate, on.
    pub(super) fn ttl_of(&self, claim: Claim) -> Option<Duration> {
        self.memory.peek(claim).map(|entry| entry.until.since(entry.at))
    }

    /// Returns true if the outcome of a publish with this key is not known.
    pub(super) fn is_in_flight(&self, key: Key) -> bool {
        self.flights.lock(key).flights.contains_key(&key)
    }

    /// Makes one seen claim unknown, and says whether it was seen.
    pub(super) fn forget(&self, claim: Claim, now: Instant) -> bool {
        let now = self.clock.stamp(now);
        let _flights = self.flights.lock(claim.key());
        let removed = self.remove(claim, now, EvictionCause::Forget);
        self.notice(Event::Disowned { claim });
        match removed {
            Removed::Nothing => false,
            Removed::Id(_, entry) => !entry.is_expired(now),
            Removed::Number => true,
        }
    }

    /// Makes a claim unknown, and tells the listener if an id has left the memory by that.
    fn remove(&self, claim: Claim, now: Stamp, cause: EvictionCause) -> Removed {
        let removed = self.memory.remove(claim);
        if let Removed::Id(key, entry) = removed {
            self.evicted(now, key, entry, cause);
        }
        removed
    }

    /// Makes a key unknown because a consumer has acked its message, see [`Window::release`].
    pub(super) fn release(&self, claim: Claim, now: Instant) {
        let (now, key) = (self.clock.stamp(now), claim.key());
        let mut shard = self.flights.lock(key);
        shard.flights.get_mut(&key).into_iter().for_each(Flight::release);
        self.remove(claim, now, EvictionCause::Consumed);
        self.notice(Event::Disowned { claim });
    }

    /// Makes all seen keys unknown, and says how many there were.
    pub(super) fn flush(&self, now: Instant) -> usize {
        let now = self.clock.stamp(now);
        let mut count = 0;
        self.memory.clear(&mut |key, entry, cause| {
            count += 1;
            self.evicted(now, key, entry, cause);
        });
        self.notice(Event::Flushed);
        count
    }

    /// Makes everything about a producer unknown, and says whether it was known; `None` if there are none.
    pub(super) fn forget_producer(&self, producer: ProducerKey, now: Instant) -> Option<bool> {
        let now = self.clock.stamp(now);
        let producers = self.memory.producers()?;
        Some(producers.forget(producer, &mut |key, entry, cause| self.evicted(now, key, entry, cause)))
    }

    /// Changes the capacity. Keys that no longer fit are forgotten at once, least recently seen first.
    pub(super) fn resize(&self, capacity: usize, now: Instant) {
        let now = self.clock.stamp(now);
        self.memory.resize(capacity, &mut |key, entry, cause| self.evicted(now, key, entry, cause));
    }

    /// Removes expired keys that are easy to find.
    pub(super) fn sweep(&self, now: Instant) {
        let now = self.clock.stamp(now);
        self.memory.sweep(now, &mut |key, entry, cause| self.evicted(now, key, entry, cause));
    }

    /// Records the publishes that are judged from now on; `None` if too many recorders are open already.
    pub(super) fn record(&self, now: Instant) -> Option<Recorder> {
        Recorder::open(Arc::clone(&self.tap), self.clock.stamp(now))
    }

    /// Tells the listener.
    pub(super) fn notice(&self, event: Event) {
        self.listener.on(&event);
    }

    /// Judges all asks, and gives each verdict its guard. The guard holds `window`, which owns this table.
    pub(super) fn reserve<W: Window + 'static>(
        window: Arc<W>,
        table: impl Fn(&W) -> &Table<L>,
        asks: &[Ask],
        now: Instant,
        mailbox: &Arc<Mailbox>,
        verdicts: &mut [Option<Verdict>],
    ) {
        let moment = (table(&window).clock.stamp(now), now);
        if asks.len() > 1
            && let Some(engine) = table(&window).memory.ids().and_then(Store::by_lock)
        {
            for (asks, slots) in asks.chunks(HINTED).zip(verdicts.chunks_mut(HINTED)) {
                table(&window).warm(asks.iter().map(|ask| ask.claim), false);
                let judgements = table(&window).ask_all(engine, asks, moment, mailbox);
                for ((ask, slot), judgement) in asks.iter().zip(slots).zip(judgements) {
                    let verdict =
                        |judgement: Judgement| judgement.verdict(|| Arc::clone(&window) as _, ask, mailbox);
                    *slot = judgement.map(verdict);
                }
            }
            return;
        }
        let Some((last, others)) = asks.split_last() else { return };
        let mut slots = verdicts.iter_mut();
        if !others.is_empty() {
            for asks in asks.chunks(HINTED) {
                table(&window).warm(asks.iter().map(|ask| ask.claim), false);
            }
        }
        for (ask, slot) in others.iter().zip(&mut slots) {
            let judgement = table(&window).ask(ask, moment, mailbox);
            *slot = Some(judgement.verdict(|| Arc::clone(&window) as _, ask, mailbox));
        }
        // The last verdict takes over the reference that the caller gave.
        if let Some(slot) = slots.next() {
            let judgement = table(&window).ask(last, moment, mailbox);
            *slot = Some(judgement.verdict(|| window, last, mailbox));
        }
    }

    /// Lets the engine read the memory that these claims (at most [`HINTED`]) will need. With `insert`, also the memory of the entries
    /// that will have to make room.
    pub(super) fn warm(&self, claims: impl Iterator<Item = Claim>, insert: bool) {
        let mut keys = [Key(0); HINTED];
        let mut count = 0;
        for (slot, claim) in keys.iter_mut().zip(claims) {
            *slot = claim.key();
            count += 1;
        }
        self.memory.warm(keys.get(..count).unwrap_or_default(), insert);
    }

    /// Judges one publish, and records it. `now` and `instant` are the same moment.
    fn ask(&self, ask: &Ask, (now, instant): (Stamp, Instant), mailbox: &Arc<Mailbox>) -> Judgement {
        self.tap.asked(ask.claim.key(), now);
        self.judge(ask.claim, (now, instant), mailbox, ask.ticket)
    }

    /// Judges several publishes, [`HINTED`] at most: takes each lock once. The engine must have one shard for each lock.
    fn ask_all(
        &self,
        engine: &Compact,
        asks: &[Ask],
        (now, instant): (Stamp, Instant),
        mailbox: &Arc<Mailbox>,
    ) -> [Option<Judgement>; HINTED] {
        let mut judgements = [const { None }; HINTED];
        let order = ByLock::of(asks.iter().map(|ask| ask.claim.key()));
        for places in order.groups() {
            let asks = places.iter().filter_map(|place| Some((place, asks.get(usize::from(*place))?)));
            let Some((_, first)) = asks.clone().next() else { continue };
            let mut shard = self.flights.lock(first.claim.key());
            let (flights, turns) = shard.parts();
            let mut ids = None;
            asks.for_each(|(place, &Ask { claim, ticket })| {
                let key = claim.key();
                self.tap.asked(key, now);
                let judgement = match flights.entry(key) {
                    MapEntry::Occupied(mut flight) => {
                        // That may look into the engine by itself.
                        ids = None;
                        self.judge_in_flight(claim, flight.get_mut(), (now, instant), mailbox, ticket)
                    }
                    MapEntry::Vacant(free) => {
                        let ids = ids.get_or_insert_with(|| engine.hold(key));
                        let mut gone = |key, entry, cause| self.evicted(now, key, entry, cause);
                        let seen = ids.touch(key, now, self.refresh_on_duplicate, &mut gone);
                        self.admitted(Admitted::of_id(seen), claim, now, free, turns)
                    }
                };
                if let Some(to) = judgements.get_mut(usize::from(*place)) {
                    *to = Some(judgement);
                }
            });
        }
        judgements
    }

    /// Judges one publish. `now` and `instant` are the same moment.
    fn judge(
        &self,
        claim: Claim,
        (now, instant): (Stamp, Instant),
        mailbox: &Arc<Mailbox>,
        ticket: Ticket,
    ) -> Judgement {
        let key = claim.key();
        let mut shard = self.flights.lock(key);
        let (flights, turns) = shard.parts();
        let free = match flights.entry(key) {
            MapEntry::Occupied(mut flight) => {
                return self.judge_in_flight(claim, flight.get_mut(), (now, instant), mailbox, ticket);
            }
            MapEntry::Vacant(free) => free,
        };
        let mut gone = |key, entry, cause| self.evicted(now, key, entry, cause);
        let admitted = self.memory.admit(claim, now, self.refresh_on_duplicate, &mut gone);
        self.admitted(admitted, claim, now, free, turns)
    }

    /// Judges a publish by what the memory says of its claim, which is not in flight. A fresh one is in flight from now on.
    #[inline]
    fn admitted(
        &self,
        admitted: Admitted,
        claim: Claim,
        now: Stamp,
        free: VacantEntry<'_, Key, Flight>,
        turns: &mut Turns,
    ) -> Judgement {
        match admitted {
            Admitted::Seen(body) => {
                self.notice(Event::Duplicate { claim, now });
                Judgement::Duplicate(body)
            }
            Admitted::Fresh(leaving) => {
                let turn = turns.draw();
                free.insert(Flight::new(turn));
                self.notice(Event::Fresh { claim });
                if leaving != Leaving::default() {
                    self.notice_leaving(leaving);
                }
                Judgement::Fresh(turn)
            }
            Admitted::Refused(refusal) => {
                self.notice(Event::OutOfSequence(refusal));
                Judgement::Refused(refusal)
            }
        }
    }

    /// Tells the listener what there is to say of a number that is let through.
    #[cold]
    fn notice_leaving(&self, leaving: Leaving) {
        match leaving {
            Leaving { gap: true, observed: true, .. } => self.notice(Event::OutOfSequence(Refusal::Gap)),
            Leaving { gap: true, .. } => self.notice(Event::Gap),
            Leaving { .. } => {}
        }
        if leaving.below {
            self.notice(Event::Below);
        }
    }

    /// Judges a publish whose key is in flight. It may be seen, too.
    fn judge_in_flight(
        &self,
        claim: Claim,
        flight: &mut Flight,
        (now, instant): (Stamp, Instant),
        mailbox: &Arc<Mailbox>,
        ticket: Ticket,
    ) -> Judgement {
        if self.memory.is_stale(claim) {
            self.notice(Event::OutOfSequence(Refusal::Stale));
            return Judgement::Refused(Refusal::Stale);
        }
        let seen = if flight.is_seen() { self.judge_seen(claim, now) } else { None };
        seen.unwrap_or_else(|| self.wait(claim, flight, (now, instant), mailbox, ticket))
    }

    /// Judges a publish by what is seen; `None` if its key is not seen. The key's lock is held.
    #[inline]
    fn judge_seen(&self, claim: Claim, now: Stamp) -> Option<Judgement> {
        let mut gone = |key, entry, cause| self.evicted(now, key, entry, cause);
        let body = self.memory.touch(claim, now, self.refresh_on_duplicate, &mut gone)?;
        self.notice(Event::Duplicate { claim, now });
        Some(Judgement::Duplicate(body))
    }

    /// Judges one publish if its key is seen or in flight, or its epoch is over. Otherwise nothing changes, and there is no verdict. The guard holds `window`,
    /// which owns this table.
    pub(super) fn reserve_known<W: Window + 'static>(
        window: &Arc<W>,
        table: impl Fn(&W) -> &Table<L>,
        ask: &Ask,
        instant: Instant,
        mailbox: &Arc<Mailbox>,
    ) -> Option<Verdict> {
        let judgement = table(window).judge_known(ask, instant, mailbox)?;
        Some(judgement.verdict(|| Arc::clone(window) as _, ask, mailbox))
    }

    fn judge_known(&self, ask: &Ask, instant: Instant, mailbox: &Arc<Mailbox>) -> Option<Judgement> {
        let (key, now) = (ask.claim.key(), self.clock.stamp(instant));
        let mut shard = self.flights.lock(key);
        let judgement = match shard.flights.get_mut(&key) {
            Some(flight) => self.judge_in_flight(ask.claim, flight, (now, instant), mailbox, ask.ticket),
            None => match self.judge_seen(ask.claim, now) {
                Some(seen) => seen,
                None if self.memory.is_stale(ask.claim) => {
                    self.notice(Event::OutOfSequence(Refusal::Stale));
                    Judgement::Refused(Refusal::Stale)
                }
                None => return None,
            },
        };
        self.tap.asked(key, now);
        Some(judgement)
    }

    /// Queues a publish whose key is in flight.
    fn wait(
        &self,
        claim: Claim,
        flight: &mut Flight,
        (now, instant): (Stamp, Instant),
        mailbox: &Arc<Mailbox>,
        ticket: Ticket,
    ) -> Judgement {
        self.notice(Event::InFlight);
        // If the reservation is given up, this publish must not hear of an id that has expired before it came.
        if flight.supersedes() && self.memory.peek(claim).is_none_or(|entry| entry.is_expired(now)) {
            flight.supersedes_nothing();
            self.remove(claim, now, EvictionCause::Expired);
        }
        // Those who wait are duplicates of the message in flight. This one came after a consumer had acked that message, so it is none.
        if flight.is_released() {
            return Judgement::Crowded;
        }
        match flight.queue(mailbox, ticket, self.waiters_per_id, instant) {
            true => Judgement::Queued,
            false => Judgement::Crowded,
        }
    }

    /// Judges a publish that is to replace what is seen of its key, see [`Window::supersede`]. The guard holds `window`, which owns this
    /// table.
    pub(super) fn supersede<W: Window + 'static>(
        window: Arc<W>,
        table: impl Fn(&W) -> &Table<L>,
        ask: Ask,
        body: BodyDigest,
        now: Instant,
        mailbox: &Arc<Mailbox>,
    ) -> Verdict {
        let judgement = table(&window).judge_again(ask, body, now, mailbox);
        judgement.verdict(|| window, &ask, mailbox)
    }

    fn judge_again(
        &self,
        Ask { claim, ticket }: Ask,
        body: BodyDigest,
        instant: Instant,
        mailbox: &Arc<Mailbox>,
    ) -> Judgement {
        let (key, now) = (claim.key(), self.clock.stamp(instant));
        let mut shard = self.flights.lock(key);
        let flight = shard.flights.get_mut(&key);
        let seen = self.memory.peek(claim);
        if let Some(entry) = seen.filter(|entry| !entry.is_expired(now))
            && flight.as_ref().is_none_or(|flight| flight.is_seen())
            && body.is_known()
            && !entry.body.differs(body)
        {
            return Judgement::Duplicate(entry.body);
        }
        // Nobody knows the body of a message in flight here. It may be this one, whatever else is seen of the key.
        if let Some(flight) = flight {
            return self.wait(claim, flight, (now, instant), mailbox, ticket);
        }
        let turn = shard.supersede(key, seen.is_some());
        self.hold(claim, now);
        self.notice(Event::Fresh { claim });
        Judgement::Fresh(turn)
    }

    /// Puts a key in flight for a publish that a consumer makes of its own delivery, see [`Window::republish`].
    /// The memory can't make a number unknown whose epoch is over. Then the mark of the delivery stays, as if another publish held it.
    pub(super) fn republish(&self, claim: Claim, now: Instant) -> Placed {
        let (key, now) = (claim.key(), self.clock.stamp(now));
        let mut shard = self.flights.lock(key);
        self.hold(claim, now);
        let is_stale = self.memory.is_stale(claim);
        let removed = self.remove(claim, now, EvictionCause::Republished).was_seen();
        self.notice(Event::Republished { claim });
        let placed = shard.place(key);
        Placed { removed, beside: placed.beside || is_stale, ..placed }
    }

    /// Notes one more reservation of a claim.
    #[inline]
    fn hold(&self, claim: Claim, now: Stamp) {
        self.memory.hold(claim, now, &mut |key, entry, cause| self.evicted(now, key, entry, cause));
    }

    /// Makes a key seen. If the TTL is zero it is seen for no time at all, but its waiters still learn that it was stored.
    pub(super) fn commit(&self, commit: &Commit, now: Instant, in_doubt: bool) {
        let &Commit { claim, turn, memo } = commit;
        let (key, now) = (claim.key(), self.clock.stamp(now));
        let until = memo.until(now);
        let waiters = {
            let mut shard = self.flights.lock(key);
            self.notice(if in_doubt {
                Event::CommittedInDoubt { claim, now, until }
            } else {
                Event::Committed { claim, now, until }
            });
            // An overtaken reservation may be committed after its key was, and a caller may commit without a reservation. Then the new
            // entry replaces the old one, also if the bodies differ.
            let Stored { waiters, replaces, is_released } = shard.stored(key, turn);
            if let Some(cause) = replaces {
                self.remove(claim, now, cause);
            }
            let entry = Entry { at: now, until, duplicates: 0, body: memo.body() };
            if is_released {
                self.evicted(now, claim.owner(), entry, EvictionCause::Consumed);
                self.notice(Event::Disowned { claim });
            } else if entry.is_expired(now) {
                self.evicted(now, claim.owner(), entry, EvictionCause::Expired);
            } else {
                let mut gone = |key, entry, cause| self.evicted(now, key, entry, cause);
                self.memory.insert(claim, entry, memo.tenant(), now, &mut gone);
            }
            self.memory.release(claim);
            waiters.iter().for_each(|_| self.notice(Event::Duplicate { claim, now }));
            waiters
        };
        for (mailbox, ticket) in waiters {
            mailbox.deliver(ticket, Verdict::Duplicate(memo.body()));
        }
    }

    /// Makes several keys seen. Lets the engine read the memory for all of them first.
    pub(super) fn commit_all(&self, commits: &[Commit], now: Instant) {
        let one = |commit: &Commit| self.commit(commit, now, false);
        for commits in commits.chunks(HINTED) {
            self.warm(commits.iter().map(|commit| commit.claim), true);
            if let Some(engine) = self.memory.ids().and_then(Store::by_lock) {
                let now = self.clock.stamp(now);
                CommitGroup::new(&self.flights, engine, &*self.listener, now).commit(commits, one);
            } else {
                commits.iter().for_each(one);
            }
        }
    }

    /// Starts the clock, unless it runs already.
    pub(super) fn start_clock(&self, start: Instant) {
        self.clock.start(start);
    }

    /// Makes a key seen because a store says so. If a publish of it is in flight here, the key is seen as well: if that publish is
    /// not stored, those who wait for it are duplicates of the one that the store knows. But if the flight began with a message that its
    /// consumer publishes again, the store may mean the message before that: the key is not seen, so that no retry is lost.
    pub(super) fn bring(&self, claim: Claim, entry: Entry, tenant: Tenant, now: Stamp) -> Brought {
        let key = claim.key();
        let mut shard = self.flights.lock(key);
        let in_flight = shard.flights.get_mut(&key);
        if in_flight.as_ref().is_some_and(|flight| flight.is_republish()) {
            return Brought::Before;
        }
        if let (Some(producers), Claim::Sequence { producer, epoch, number }) =
            (self.memory.producers(), claim)
        {
            let mut gone = |key, entry, cause| self.evicted(now, key, entry, cause);
            let was_stored = producers.bring(producer, (epoch, number), entry, &mut gone);
            return self.number_brought(claim, was_stored, in_flight, entry);
        }
        let known = self.memory.peek(claim).filter(|known| !known.is_expired(now));
        let entry = match known {
            // Of two bodies the one is right that comes later in the log, whatever the clocks say.
            Some(known) if known.at >= entry.at && known.body.differs(entry.body) => {
                Entry { body: entry.body, ..known }
            }
            Some(known) if known.at >= entry.at => return Brought::Known,
            _ => entry,
        };
        self.remove(claim, now, EvictionCause::Superseded);
        let crossed = in_flight.is_some() || known.is_some();
        in_flight.into_iter().for_each(Flight::supersedes_now);
        self.notice(Event::Recovered { claim, at: entry.at, until: entry.until });
        let mut gone = |key, entry, cause| self.evicted(now, key, entry, cause);
        self.memory.insert(claim, entry, tenant, now, &mut gone);
        if crossed { Brought::Crossed } else { Brought::New }
    }

    /// Tells what it means that a store has brought a number. `was_stored`: as `Producers::bring` says.
    fn number_brought(
        &self,
        claim: Claim,
        was_stored: Option<bool>,
        in_flight: Option<&mut Flight>,
        entry: Entry,
    ) -> Brought {
        let Some(was_stored) = was_stored else { return Brought::Before };
        if was_stored {
            return Brought::Known;
        }
        self.notice(Event::Recovered { claim, at: entry.at, until: entry.until });
        match in_flight {
            Some(flight) => {
                flight.supersedes_now();
                Brought::Crossed
            }
            None => Brought::New,
        }
    }

    /// Notes that all numbers before this one may have been let through, by this relay or another one: the store has looked.
    pub(super) fn expect(&self, claim: Claim) {
        if let (Some(producers), Claim::Sequence { producer, epoch, number }) =
            (self.memory.producers(), claim)
        {
            producers.expect(producer, (epoch, number));
        }
    }

    /// Takes what a store has of a producer that was seen last at this time.
    pub(super) fn restore(&self, image: &ProducerImage, at: Stamp, now: Stamp) {
        if let Some(producers) = self.memory.producers() {
            producers.restore(image, at, &mut |key, entry, cause| self.evicted(now, key, entry, cause));
        }
    }

    /// Makes a seen key young again, as a duplicate at the time of `entry` has done. Returns false if the key is not seen here.
    pub(super) fn touch_at(&self, claim: Claim, entry: Entry, now: Stamp) -> bool {
        let _flights = self.flights.lock(claim.key());
        let is_seen = self.memory.peek(claim).is_some_and(|known| !known.is_expired(now));
        if is_seen {
            let mut gone = |key, entry, cause| self.evicted(now, key, entry, cause);
            self.memory.touch(claim, entry.at, true, &mut gone);
        }
        is_seen
    }

    /// Gives a reservation up. Returns the next waiter, for which the key stays in flight, or all waiters if the key is still seen with
    /// another body. It is nobody if nobody waits, so that the key is unknown again, or if the reservation was overtaken, so that it has
    /// no key to pass on. `is_stored`: another message of the key is stored, and its commit follows. `over` is called under the key's lock. It
    /// hears `true` if the key has left the table, and its flight began with a message that a consumer has published again.
    pub(super) fn pass_on(
        &self,
        claim: Claim,
        turn: Turn,
        cause: ForgetCause,
        is_stored: bool,
        over: impl FnOnce(bool),
    ) -> Next {
        let key = claim.key();
        let mut shard = self.flights.lock(key);
        let is_republish = shard.is_republish(key);
        let mut next = self.pass_on_in(&mut shard, claim, turn, cause, is_stored);
        if let Next::Promoted(mailbox, ticket, _) = &next
            && self.memory.is_stale(claim)
        {
            let first = (Arc::clone(mailbox), *ticket);
            let behind = shard.flights.remove(&key).map(Flight::into_waiters).unwrap_or_default();
            let waiters: Vec<_> = std::iter::once(first).chain(behind).collect();
            waiters.iter().for_each(|_| self.notice(Event::OutOfSequence(Refusal::Stale)));
            next = Next::Refused(Refusal::Stale, waiters);
        }
        if matches!(next, Next::Promoted(..)) {
            self.hold(claim, Stamp(0));
            self.notice(Event::Promoted);
            self.notice(Event::Fresh { claim });
        }
        self.memory.release(claim);
        over(is_republish && !shard.flights.contains_key(&key));
        next
    }

    /// As [`Table::pass_on`], but nobody is promoted. Who would be, and all who wait behind it, are given back as well: they are in
    /// no queue any more, and have to ask again.
    pub(super) fn give_up(
        &self,
        claim: Claim,
        turn: Turn,
        cause: ForgetCause,
        is_stored: bool,
        over: impl FnOnce(bool),
    ) -> (Next, Vec<(Arc<Mailbox>, Ticket)>) {
        let key = claim.key();
        let mut shard = self.flights.lock(key);
        let is_republish = shard.is_republish(key);
        let given_up = match self.pass_on_in(&mut shard, claim, turn, cause, is_stored) {
            Next::Promoted(mailbox, ticket, _) => {
                let behind = shard.flights.remove(&key).map(Flight::into_waiters).unwrap_or_default();
                (Next::Nobody, std::iter::once((mailbox, ticket)).chain(behind).collect())
            }
            next @ (Next::Seen(..) | Next::Refused(..) | Next::Nobody) => (next, Vec::new()),
        };
        self.memory.release(claim);
        over(is_republish && !shard.flights.contains_key(&key));
        given_up
    }

    /// Finds out who is next, and tells the listener what that means for the waiters, but for a promotion.
    fn pass_on_in(
        &self,
        shard: &mut Shard,
        claim: Claim,
        turn: Turn,
        cause: ForgetCause,
        is_stored: bool,
    ) -> Next {
        let seen = || self.memory.peek(claim).map(|entry| entry.body);
        let next = shard.pass_on(claim.key(), turn, is_stored, seen);
        self.notice(Event::Forgotten(cause));
        if let Next::Seen(_, waiters) = &next {
            let now = self.memory.peek(claim).map_or(Stamp(0), |entry| entry.at);
            waiters.iter().for_each(|_| self.notice(Event::Duplicate { claim, now }));
        }
        next
    }

    /// Gives a reservation up, see [`Window::rollback`]. The guard of the next one holds `window`, which owns this table.
    pub(super) fn rollback<W: Window + 'static>(
        window: Arc<W>,
        table: impl Fn(&W) -> &Table<L>,
        claim: Claim,
        turn: Turn,
        cause: ForgetCause,
    ) {
        let next = table(&window).pass_on(claim, turn, cause, false, |_| ());
        next.deliver(window, claim);
    }

    /// Lets a waiter take the key over, see [`Window::take_over`].
    pub(super) fn take_over(
        &self,
        claim: Claim,
        since: Instant,
        now: Instant,
        queued: Option<(&Arc<Mailbox>, Ticket)>,
    ) -> Taken {
        let key = claim.key();
        let mut shard = self.flights.lock(key);
        // A message of an epoch that is over is not forwarded. What it waits for has an outcome in the end.
        if self.memory.is_stale(claim) && shard.flights.contains_key(&key) {
            return Taken::Wait { since: now };
        }
        let taken = shard.take_over(key, since, now, queued);
        if matches!(taken, Taken::Granted(_)) {
            self.hold(claim, self.clock.stamp(now));
            self.notice(Event::TakenOver);
            self.notice(Event::Fresh { claim });
        }
        taken
    }

    /// Notes whether the content of the publish of this turn is still on its way.
    pub(super) fn set_uploading(&self, key: Key, turn: Turn, uploading: bool) {
        if let Some(flight) = self.flights.lock(key).flights.get_mut(&key) {
            flight.set_uploading(turn, uploading);
        }
    }

    /// Returns true if a waiter has to wait on in any case, see [`Window::waits_on`].
    pub(super) fn waits_on(&self, key: Key, queued: Option<(&Arc<Mailbox>, Ticket)>) -> bool {
        let shard = self.flights.lock(key);
        let Some(flight) = shard.flights.get(&key) else { return true };
        flight.is_uploading() || queued.is_some_and(|(mailbox, ticket)| !flight.is_queued(mailbox, ticket))
    }

    /// Returns true if somebody waits for the reservation of this turn.
    pub(super) fn is_awaited(&self, key: Key, turn: Turn) -> bool {
        self.flights.lock(key).flights.get_mut(&key).is_some_and(|flight| flight.is_awaited(turn))
    }

    /// Notes that a publish has found no room to wait for this key.
    pub(super) fn crowd(&self, key: Key) {
        if let Some(flight) = self.flights.lock(key).flights.get_mut(&key) {
            flight.crowd();
        }
    }

    /// Removes a waiter from the queue of its key.
    pub(super) fn leave(&self, key: Key, mailbox: &Arc<Mailbox>, ticket: Ticket) {
        if let Some(flight) = self.flights.lock(key).flights.get_mut(&key) {
            flight.leave(mailbox, ticket);
        }
    }

    fn evicted(&self, now: Stamp, key: Key, entry: Entry, cause: EvictionCause) {
        self.notice(Event::evicted(now, key, entry, cause));
    }
}

/// The effect of a key that a store has brought.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Brought {
    /// It is seen now.
    New,
    /// It is seen now, and was seen already, or in flight.
    Crossed,
    /// It was seen already, and later.
    Known,
    /// It is not seen: a consumer has published its message again, and that is in flight.
    Before,
}

/// A verdict before its guard is made, which must not happen under the lock.
enum Judgement {
    Fresh(Turn),
    Queued,
    Crowded,
    Duplicate(BodyDigest),
    Refused(Refusal),
}

impl Judgement {
    /// Makes the verdict. Its guard, if it has one, holds `window`.
    fn verdict(self, window: impl FnOnce() -> Arc<dyn Window>, ask: &Ask, mailbox: &Arc<Mailbox>) -> Verdict {
        match self {
            Judgement::Fresh(turn) => Verdict::Fresh(Reservation::new(window(), ask.claim, turn)),
            Judgement::Queued => {
                Verdict::InFlight(Wait::new(window(), ask.claim, mailbox.clone(), ask.ticket))
            }
            Judgement::Crowded => Verdict::Crowded,
            Judgement::Duplicate(body) => Verdict::Duplicate(body),
            Judgement::Refused(refusal) => Verdict::Refused(refusal),
        }
    }
}

impl Next {
    /// Delivers the verdicts. The reservation in them, if any, holds `window`.
    pub(super) fn deliver(self, window: Arc<dyn Window>, claim: Claim) {
        match self {
            Next::Nobody => {}
            Next::Promoted(mailbox, ticket, turn) => {
                mailbox.deliver(ticket, Verdict::Fresh(Reservation::new(window, claim, turn)));
            }
            Next::Refused(refusal, waiters) => {
                for (mailbox, ticket) in waiters {
                    mailbox.deliver(ticket, Verdict::Refused(refusal));
                }
            }
            Next::Seen(body, waiters) => {
                for (mailbox, ticket) in waiters {
                    mailbox.deliver(ticket, Verdict::Duplicate(body));
                }
            }
        }
    }
}

impl Placed {
    /// Makes the answer. Its reservation holds `window`.
    pub(super) fn republish(self, window: Arc<dyn Window>, claim: Claim) -> Republish {
        let Placed { turn, beside, .. } = self;
        let reservation = Reservation::new(window, claim, turn);
        Republish { reservation, beside, forgotten: Committed::Now }
    }
}

impl Taken {
    /// Makes the answer. Its reservation, if it has one, holds `window`.
    pub(super) fn result(self, window: Arc<dyn Window>, claim: Claim) -> TakeOver {
        match self {
            Taken::Granted(turn) => TakeOver::Granted(Reservation::new(window, claim, turn)),
            Taken::Wait { since } => TakeOver::Wait { since },
            Taken::Answered => TakeOver::Answered,
        }
    }
}
