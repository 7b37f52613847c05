//! The window inside this process: an in-flight table in shards, beside an engine that remembers what was stored.
//!
//! Every operation on a key holds the lock of its place in the in-flight table, so a key is in flight or seen or neither,
//! never both, and nobody sees it between two. Lock order: in-flight shard, then engine. Both are released before a
//! letter is delivered, because a letter, or the mailbox around it, may die on the way, and a reservation in it comes back
//! here.

mod group;

use super::dials::{Clock, Dials};
use super::engine::{Engine, EngineKind, Entry, Stamp, Store};
use super::flight::{Flight, Flights, Taken};
use super::handle::Handle;
use super::tap::Tap;
use super::*;
use std::collections::hash_map::Entry as Place;

/// A window over an engine. See the module's doc for what lives where.
#[derive(Debug)]
pub struct LocalWindow<L: Listener + ?Sized = dyn Listener> {
    rules: Rules,
    refresh_on_duplicate: bool,
    waiters_per_id: usize,
    dials: Dials,
    clock: Clock,
    flights: Flights,
    kind: EngineKind,
    engine: Store,
    listener: Arc<L>,
    tap: Arc<Tap>,
}

/// What can be changed while it runs, and the bounds.
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
    /// An empty window. A capacity of 0 is taken as 1.
    pub fn new(rules: Rules, limits: Limits, engine: EngineKind, listener: Arc<L>) -> Arc<LocalWindow<L>> {
        let Limits { capacity, ttl, mode, refresh_on_duplicate, waiters_per_id } = limits;
        let window = LocalWindow {
            rules,
            refresh_on_duplicate,
            waiters_per_id,
            dials: Dials::new(ttl, mode),
            clock: Clock::default(),
            flights: Flights::new(),
            kind: engine,
            engine: engine.build(capacity.max(1)),
            listener,
            tap: Arc::default(),
        };
        window.listener.limits(&window.limits());
        Arc::new(window)
    }

    /// Capacity, TTL and mode in force now, and the bounds.
    pub fn limits(&self) -> Limits {
        Limits {
            capacity: self.capacity(),
            ttl: self.dials.ttl(),
            mode: self.dials.mode(),
            refresh_on_duplicate: self.refresh_on_duplicate,
            waiters_per_id: self.waiters_per_id,
        }
    }

    /// Keys remembered, expired ones that were not swept yet included.
    pub fn len(&self) -> usize {
        self.engine.len()
    }

    /// Whether no key is remembered.
    pub fn is_empty(&self) -> bool {
        self.engine.is_empty()
    }

    /// Reservations whose outcome is not known: keys in flight, and reservations that were overtaken. They do not count
    /// against the capacity.
    pub fn in_flight(&self) -> usize {
        self.flights.len()
    }

    /// Keys remembered at most.
    pub fn capacity(&self) -> usize {
        self.engine.capacity()
    }

    /// What the window occupies on the heap: an estimate, the engine says how good it is.
    pub fn bytes(&self) -> usize {
        self.engine.bytes() + self.flights.bytes()
    }

    /// How keys are stored.
    pub fn engine(&self) -> EngineKind {
        self.kind
    }

    /// Of [`LocalWindow::bytes`], what the remembered keys take.
    pub fn store_bytes(&self) -> usize {
        self.engine.bytes()
    }

    /// What the remembered keys would take at most, were there so many.
    pub fn store_bytes_at(&self, capacity: usize) -> usize {
        self.kind.bytes_at(capacity)
    }

    /// What one remembered key takes in this engine, in a well-filled window.
    pub fn bytes_per_id(&self) -> f64 {
        self.engine.bytes_per_entry()
    }

    /// How long ago the key was committed (or made young again) that would have to make room next, as far as the engine
    /// can say.
    pub fn oldest(&self, now: Instant) -> Option<Duration> {
        self.engine.oldest().map(|at| self.stamp(now).since(at))
    }

    /// The window's own clock.
    pub(crate) fn stamp(&self, now: Instant) -> Stamp {
        self.clock.stamp(now)
    }

    /// What is known of a seen key. Does not count as seeing it.
    pub fn get(&self, key: Key, now: Instant) -> Option<Seen> {
        let stamp = self.clock.stamp(now);
        let entry = self.engine.peek(key).filter(|entry| !entry.is_expired(stamp))?;
        let at = now.checked_sub(stamp.since(entry.at)).unwrap_or(now);
        let until = now.checked_add(entry.until.since(stamp)).unwrap_or(now);
        Some(Seen { at, until, duplicates: entry.duplicates })
    }

    /// Whether the outcome of this key is awaited.
    pub fn is_in_flight(&self, key: Key) -> bool {
        self.flights.lock(key).flights.contains_key(&key)
    }

    /// Makes one seen key unknown; false if it was not seen. What is in flight stays so: its outcome will decide.
    pub fn forget(&self, key: Key, now: Instant) -> bool {
        let now = self.clock.stamp(now);
        let _flights = self.flights.lock(key);
        let removed = self.engine.remove(key);
        if let Some(entry) = removed {
            self.evicted(now, key, entry, EvictionCause::Forget);
        }
        self.notice(Event::Disowned { claim: key.into() });
        removed.is_some_and(|entry| !entry.is_expired(now))
    }

    /// Makes all seen keys unknown, and says how many. What is in flight stays so.
    pub fn flush(&self, now: Instant) -> usize {
        let now = self.clock.stamp(now);
        let mut count = 0;
        self.engine.clear(&mut |key, entry, cause| {
            count += 1;
            self.evicted(now, key, entry, cause);
        });
        self.notice(Event::Flushed);
        count
    }

    /// Changes the capacity (at least 1); what has no place is forgotten at once, least recently seen first.
    pub fn resize(&self, capacity: usize, now: Instant) {
        let now = self.clock.stamp(now);
        self.engine.resize(capacity.max(1), &mut |key, entry, cause| self.evicted(now, key, entry, cause));
        self.listener.limits(&self.limits());
    }

    /// Removes expired keys that are easy to find. Publishes do that in passing; this is for when there are none.
    pub fn sweep(&self, now: Instant) {
        let now = self.clock.stamp(now);
        self.engine.sweep(now, &mut |key, entry, cause| self.evicted(now, key, entry, cause));
    }

    /// Records the publishes that are judged from now on; none if too many record already.
    pub fn record(&self, now: Instant) -> Option<Recorder> {
        Recorder::open(Arc::clone(&self.tap), self.clock.stamp(now))
    }

    /// Changes the TTL of what will be committed from now on.
    pub fn set_ttl(&self, ttl: Duration) {
        self.dials.set_ttl(ttl);
        self.listener.limits(&self.limits());
    }

    /// Changes the mode.
    pub fn set_mode(&self, mode: Mode) {
        self.dials.set_mode(mode);
        self.listener.limits(&self.limits());
    }

    /// A verdict is asked for.
    fn ask(&self, ask: &Ask, now: Instant, mailbox: &Arc<Mailbox>) -> Judgement {
        let Claim::Digest(key) = ask.claim;
        let stamp = self.clock.stamp(now);
        self.tap.asked(key, stamp);
        self.judge(key, (stamp, now), mailbox, ask.ticket)
    }

    /// Judges all asks, and gives each verdict its guard. The guard holds `holder`, which is this window or a handle of it.
    pub(super) fn reserve_for<W: Window + 'static>(
        holder: Arc<W>,
        window: impl Fn(&W) -> &LocalWindow<L>,
        asks: &[Ask],
        now: Instant,
        mailbox: &Arc<Mailbox>,
        verdicts: &mut [Option<Verdict>],
    ) {
        let Some((last, others)) = asks.split_last() else { return };
        let mut slots = verdicts.iter_mut();
        if !others.is_empty() {
            for asks in asks.chunks(HINTED) {
                window(&holder).warm_all(asks.iter().map(|ask| ask.claim), false);
            }
        }
        for (ask, slot) in others.iter().zip(&mut slots) {
            let judgement = window(&holder).ask(ask, now, mailbox);
            *slot = Some(judgement.verdict(|| Arc::clone(&holder) as _, ask, mailbox));
        }
        if let Some(slot) = slots.next() {
            let judgement = window(&holder).ask(last, now, mailbox);
            *slot = Some(judgement.verdict(|| holder, last, mailbox));
        }
    }

    /// Has the engine read what it will read of these claims, [`HINTED`] at most. With `insert`, also what has to make room.
    fn warm_all(&self, claims: impl Iterator<Item = Claim>, insert: bool) {
        let mut keys = [Key(0); HINTED];
        let mut count = 0;
        for (slot, Claim::Digest(key)) in keys.iter_mut().zip(claims) {
            *slot = key;
            count += 1;
        }
        self.engine.warm(keys.get(..count).unwrap_or_default(), insert);
    }

    /// In flight, seen or neither, and what becomes of each. The moment is told in both ways.
    fn judge(
        &self,
        key: Key,
        (now, moment): (Stamp, Instant),
        mailbox: &Arc<Mailbox>,
        ticket: Ticket,
    ) -> Judgement {
        let mut shard = self.flights.lock(key);
        let (flights, turns) = shard.parts();
        let place = match flights.entry(key) {
            Place::Occupied(mut flight) => {
                self.notice(Event::InFlight);
                return match flight.get_mut().queue(mailbox, ticket, self.waiters_per_id, moment) {
                    true => Judgement::Queued,
                    false => Judgement::Crowded,
                };
            }
            Place::Vacant(place) => place,
        };
        let mut gone = |key, entry, cause| self.evicted(now, key, entry, cause);
        if self.engine.touch(key, now, self.refresh_on_duplicate, &mut gone) {
            self.notice(Event::Duplicate { claim: key.into(), now });
            return Judgement::Duplicate;
        }
        let turn = turns.draw();
        place.insert(Flight::new(turn));
        self.notice(Event::Fresh { claim: key.into() });
        Judgement::Fresh(turn)
    }

    /// The key becomes seen. Without a TTL it is seen for no time at all: its waiters still learn that it was stored.
    fn settle(&self, key: Key, now: Instant, ttl: Duration, in_doubt: bool) {
        let now = self.clock.stamp(now);
        let until = now.after(ttl);
        let waiters = {
            let mut shard = self.flights.lock(key);
            self.notice(if in_doubt {
                Event::CommittedInDoubt { claim: key.into(), now, until }
            } else {
                Event::Committed { claim: key.into(), now, until }
            });
            let flight = shard.stored(key);
            // What was in flight is not seen. Whoever commits what was overtaken, or without a reservation, gets what is
            // right, too.
            if flight.is_none()
                && let Some(entry) = self.engine.remove(key)
            {
                self.evicted(now, key, entry, EvictionCause::Expired);
            }
            let entry = Entry { at: now, until, duplicates: 0 };
            if entry.is_expired(now) {
                self.evicted(now, key, entry, EvictionCause::Expired);
            } else {
                self.engine
                    .insert(key, entry, now, &mut |key, entry, cause| self.evicted(now, key, entry, cause));
            }
            let waiters = flight.map(Flight::into_waiters).unwrap_or_default();
            waiters.iter().for_each(|_| self.notice(Event::Duplicate { claim: key.into(), now }));
            waiters
        };
        for (mailbox, ticket) in waiters {
            mailbox.deliver(ticket, Verdict::Duplicate);
        }
    }

    /// The next waiter, in whose name the key stays in flight; or nobody, and the key is unknown again. Nobody, too, if the
    /// reservation of this turn was overtaken: it has no key to pass on.
    pub(super) fn pass_on(
        &self,
        key: Key,
        turn: Turn,
        cause: ForgetCause,
    ) -> Option<(Arc<Mailbox>, Ticket, Turn)> {
        let mut shard = self.flights.lock(key);
        let next = shard.pass_on(key, turn);
        self.notice(Event::Forgotten(cause));
        if next.is_some() {
            self.notice(Event::Promoted);
            self.notice(Event::Fresh { claim: key.into() });
        }
        next
    }

    /// See [`Window::take_over`].
    pub(super) fn overtake(
        &self,
        key: Key,
        since: Instant,
        now: Instant,
        queued: Option<(&Arc<Mailbox>, Ticket)>,
    ) -> Taken {
        let mut shard = self.flights.lock(key);
        let taken = shard.take_over(key, since, now, queued);
        if matches!(taken, Taken::Granted(_)) {
            self.notice(Event::TakenOver);
            self.notice(Event::Fresh { claim: key.into() });
        }
        taken
    }

    fn evicted(&self, now: Stamp, key: Key, entry: Entry, cause: EvictionCause) {
        self.notice(gone(now, key, entry, cause));
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

    fn warm(&self, claims: &[Claim]) {
        self.warm_all(claims.iter().copied(), false);
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
        LocalWindow::reserve_for(self, |window| window, asks, now, mailbox, verdicts);
    }

    /// Never called: this window never says `Pending`. It would ask anew.
    fn overdue(
        self: Arc<Self>,
        claim: Claim,
        now: Instant,
        mailbox: &Arc<Mailbox>,
        ticket: Ticket,
    ) -> Verdict {
        self.leave(claim, mailbox, ticket);
        reserve_one(&self, claim, now, mailbox, ticket)
    }

    fn commit(&self, claim: Claim, now: Instant, ttl: Duration) -> Remembered {
        let Claim::Digest(key) = claim;
        self.settle(key, now, ttl, false);
        Remembered::Now
    }

    /// Reads what the commits will read first, all of it at once.
    fn commit_all(&self, commits: &[(Claim, Duration)], now: Instant) -> Remembered {
        for commits in commits.chunks(HINTED) {
            self.warm_all(commits.iter().map(|(claim, _)| *claim), true);
            match self.engine.by_lock() {
                Some(engine) => self.settle_all(engine, commits, now),
                None => {
                    commits.iter().for_each(|(Claim::Digest(key), ttl)| self.settle(*key, now, *ttl, false))
                }
            }
        }
        Remembered::Now
    }

    fn commit_in_doubt(&self, claim: Claim, now: Instant, ttl: Duration) {
        let Claim::Digest(key) = claim;
        self.settle(key, now, ttl, true);
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
        let Claim::Digest(key) = claim;
        if let Some((mailbox, ticket, turn)) = self.pass_on(key, turn, cause) {
            mailbox.deliver(ticket, Verdict::Fresh(Reservation::new(self, claim, turn)));
        }
    }

    fn take_over(
        self: Arc<Self>,
        claim: Claim,
        since: Instant,
        now: Instant,
        queued: Option<(&Arc<Mailbox>, Ticket)>,
    ) -> TakeOver {
        let Claim::Digest(key) = claim;
        self.overtake(key, since, now, queued).result(self, claim)
    }

    fn set_uploading(&self, claim: Claim, turn: Turn, uploading: bool) {
        let Claim::Digest(key) = claim;
        if let Some(flight) = self.flights.lock(key).flights.get_mut(&key) {
            flight.set_uploading(turn, uploading);
        }
    }

    fn waits_on(&self, claim: Claim, queued: Option<(&Arc<Mailbox>, Ticket)>) -> bool {
        let Claim::Digest(key) = claim;
        let shard = self.flights.lock(key);
        let Some(flight) = shard.flights.get(&key) else { return true };
        flight.is_uploading() || queued.is_some_and(|(mailbox, ticket)| !flight.is_queued(mailbox, ticket))
    }

    fn is_awaited(&self, claim: Claim, turn: Turn) -> bool {
        let Claim::Digest(key) = claim;
        self.flights.lock(key).flights.get_mut(&key).is_some_and(|flight| flight.is_awaited(turn))
    }

    fn disown(&self, claim: Claim, now: Instant) {
        let Claim::Digest(key) = claim;
        self.forget(key, now);
    }

    fn leave(&self, claim: Claim, mailbox: &Arc<Mailbox>, ticket: Ticket) {
        let Claim::Digest(key) = claim;
        if let Some(flight) = self.flights.lock(key).flights.get_mut(&key) {
            flight.leave(mailbox, ticket);
        }
    }

    fn notice(&self, event: Event) {
        self.listener.on(&event);
    }

    fn wants_origin(&self, claim: Claim) -> bool {
        self.listener.wants_origin(claim)
    }

    fn note_origin(&self, origin: &Origin<'_>) {
        self.listener.origin(origin);
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
        self.refresh_on_duplicate
    }

    fn waiters_per_id(&self) -> usize {
        self.waiters_per_id
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
        self.stamp(now)
    }

    fn find(&self, claim: Claim, now: Instant) -> Option<Found> {
        let Claim::Digest(key) = claim;
        Some(match self.get(key, now) {
            Some(seen) => Found::Seen(seen),
            None if self.is_in_flight(key) => Found::InFlight,
            None => Found::Unknown,
        })
    }

    fn forget(&self, claim: Claim, now: Instant) -> Option<bool> {
        let Claim::Digest(key) = claim;
        Some(self.forget(key, now))
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

    fn sweep(&self, now: Instant) {
        self.sweep(now);
    }

    fn record(&self, now: Instant) -> Option<Recorder> {
        self.record(now)
    }
}

/// What had expired anyway is not held against whoever took it out.
fn gone(now: Stamp, key: Key, entry: Entry, cause: EvictionCause) -> Event {
    let cause = if entry.is_expired(now) { EvictionCause::Expired } else { cause };
    Event::Evicted { claim: key.into(), at: entry.at, until: entry.until, now, cause }
}

/// A verdict before its guard is made, which must not happen under the lock.
enum Judgement {
    Fresh(Turn),
    Queued,
    Crowded,
    Duplicate,
}

impl Judgement {
    /// With its guard, if it has one, which holds `window`.
    fn verdict(self, window: impl FnOnce() -> Arc<dyn Window>, ask: &Ask, mailbox: &Arc<Mailbox>) -> Verdict {
        match self {
            Judgement::Fresh(turn) => Verdict::Fresh(Reservation::new(window(), ask.claim, turn)),
            Judgement::Queued => {
                Verdict::InFlight(Wait::new(window(), ask.claim, mailbox.clone(), ask.ticket))
            }
            Judgement::Crowded => Verdict::Crowded,
            Judgement::Duplicate => Verdict::Duplicate,
        }
    }
}

impl Taken {
    /// With its reservation, which holds `window`.
    pub(super) fn result(self, window: Arc<dyn Window>, claim: Claim) -> TakeOver {
        match self {
            Taken::Granted(turn) => TakeOver::Granted(Reservation::new(window, claim, turn)),
            Taken::Wait { since } => TakeOver::Wait { since },
            Taken::Answered => TakeOver::Answered,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::window::event::Deaf;

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
            confirms: Confirms::Shadow,
            forward_to: None,
        };
        let limits = Limits {
            capacity,
            ttl: Duration::from_secs(60),
            mode: Mode::Enforce,
            refresh_on_duplicate: false,
            waiters_per_id: 2,
        };
        LocalWindow::new(rules, limits, engine, Arc::new(Deaf))
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
        assert!(matches!(reserve(0, 1, 3), Verdict::Duplicate));
        assert!(window.get(Key(1), now).is_some() && window.in_flight() == 0);
        assert_eq!((Arc::strong_count(&window), Arc::strong_count(&handles[0])), (3, 1));
    }

    /// Without a reservation, which a session never does: nothing is stored twice.
    #[test]
    fn a_commit_of_what_is_seen_replaces_it() {
        for engine in EngineKind::ALL {
            let (window, now) = (window(4, engine), base());
            for seconds in [1, 2, 3] {
                window.commit(Key(1).into(), now, Duration::from_secs(seconds));
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
        assert!(matches!(reserve_one(&window, Key(1), now, &mailbox, Ticket(2)), Verdict::Duplicate));
        assert!(window.get(Key(1), now + 2 * second).is_none());
    }
}
