//! A window whose ids are in a Redis that several relays share: each id has a lease while its publish is in flight, and a record once it
//! was stored. Therefore no two relays let the same id through.
//!
//! ```text
//!   reserve ──▶ known here: a verdict at once
//!           └─▶ unknown here: Pending ──▶ Question ──take_questions──▶ the shell asks Redis ──answer──▶ Mailbox::deliver
//!
//!   commit ───▶ Record ──take_records──▶ the shell writes "seen" ──written(position)──▶ the client is acked      (remember = "sync")
//! ```
//!
//! In front stands a window in memory with a log ([`LoggedWindow`]): it knows what is in flight here and what was seen here, and it keeps
//! what is to be written, in order. This module adds the leases. The clock of Redis alone decides when a lease or a record ends: no time of
//! a relay's clock stands in Redis.
//!
//! * While Redis is asked about an id, all publishes of it that come here wait for the one answer.
//! * While another relay has the id in flight, Redis is asked again, with pauses. To the session this is [`Verdict::InFlight`].
//! * A lease that is held is renewed. If its relay dies, it ends by itself. With `in_doubt = "keep"` it lives for the TTL on top, and
//!   who finds it unrenewed takes the id for seen.
//! * A flush adds one to the window's generation. Records of an earlier generation count as nothing.
//! * `republish` removes the record and asks for a lease; it does not wait for the answer. `supersede` asks for no lease: the record
//!   stays until the commit replaces it. `disown` and `forget` remove a record, never a lease.

mod leases;
mod question;
mod value;
mod window;

pub use question::{Answer, Question, Request};
pub use value::{Lease, millis};

use super::logged::{AtStore, Batch, LoggedWindow, RelayId, StorePolicy, Written};
use super::table::Table;
use super::*;
use leases::{Joined, Leases, Waiter};
use std::sync::atomic::{AtomicU32, Ordering::Relaxed};
use std::task::Waker;
use std::time::SystemTime;
use value::{Value, Values};

/// The part of its time after which a lease is renewed.
const RENEWALS: u32 = 3;

/// A window whose ids are in a Redis that several relays share.
#[derive(Debug)]
pub struct LeasedWindow<L: Listener + ?Sized = dyn Listener> {
    log: Arc<LoggedWindow<L>>,
    leases: Leases,
    values: Values,
    relay: RelayId,
    /// how long a lease lives that nobody renews
    lease_time: Duration,
    /// how often the window was flushed, as far as this relay knows
    generation: AtomicU32,
}

impl<L: Listener + ?Sized> LeasedWindow<L> {
    /// Returns an empty window. `relay` is drawn at each start. A lease that nobody renews ends after `lease_time`.
    #[expect(clippy::too_many_arguments, reason = "a window has as many parts")]
    pub fn new(
        rules: Rules,
        limits: Limits,
        engine: engine::EngineKind,
        listener: Arc<L>,
        policy: StorePolicy,
        keys: KeyMaker,
        relay: RelayId,
        lease_time: Duration,
        now: Instant,
    ) -> Arc<LeasedWindow<L>> {
        let log = LoggedWindow::new(rules, limits, engine, listener, "redis", policy, now);
        Arc::new(LeasedWindow {
            log,
            leases: Leases::default(),
            values: Values::new(keys),
            relay,
            lease_time,
            generation: AtomicU32::new(0),
        })
    }

    /// Returns the window with a log that stands in front. The shell takes its records and tells it how far they are written.
    pub fn log(&self) -> &Arc<LoggedWindow<L>> {
        &self.log
    }

    fn table(&self) -> &Table<L> {
        self.log.local().table()
    }

    // ---- questions -----------------------------------------------------------------------------------------------

    /// Returns true if there are questions.
    pub fn asks(&self) -> bool {
        self.leases.asks()
    }

    /// Takes the oldest questions, at most this many. All records are to be taken after that, and written before these are asked: what was
    /// committed before a question was made is among them then. Redis would answer a question by the lease that such a record replaces.
    pub fn take_questions(&self, most: usize) -> Vec<Question> {
        self.leases.take(most)
    }

    /// Returns true if the question is still to be asked. A lease is not renewed whose publish has its outcome: it would be there again, and
    /// nobody would give it back. To be asked when the records are taken.
    pub fn is_to_be_asked(&self, question: &Question) -> bool {
        question.what != Request::Renew || self.leases.of(question.claim.key()) == Some(question.lease)
    }

    /// Puts questions back that were taken and not asked, before the others.
    pub fn put_back(&self, questions: Vec<Question>) {
        self.leases.put_back(questions);
    }

    /// Registers the waker of the shell. Returns true if there is a question, or a record to write, already.
    pub fn register(&self, waker: &Waker) -> bool {
        let (asks, writes) = (self.leases.register(waker), self.log.register(waker));
        asks || writes
    }

    /// Registers the waker of a shell that collects records. Returns true if there is a question, or a record that somebody waits for,
    /// already.
    pub fn register_urgent(&self, waker: &Waker) -> bool {
        let (asks, writes) = (self.leases.register(waker), self.log.register_urgent(waker));
        asks || writes
    }

    /// Returns the value of the lease that a question is about.
    pub fn value(&self, question: &Question) -> Vec<u8> {
        self.values.lease(question.claim.key(), self.relay, question.lease)
    }

    /// Returns how long a lease lives in Redis from now on.
    pub fn lease_time(&self, lease: Lease) -> Duration {
        self.lease_time + Duration::from_millis(lease.keep)
    }

    /// Returns true if gaps are refused. A window that only observes counts them, and lets them through.
    pub fn refuses_gaps(&self) -> bool {
        self.rules().numbering.on_gap == OnGap::Reject && self.mode() != Mode::Observe
    }

    /// Returns the beginning of the values of all leases of this relay. A record whose time is over before it is written is not written;
    /// the lease of its publish has to go all the same.
    pub fn own_lease(&self) -> Vec<u8> {
        value::lease_of(self.relay)
    }

    /// Returns the value of a record.
    pub fn seen(&self, claim: Claim, memo: Memo) -> Vec<u8> {
        self.values.seen(claim.key(), memo.ttl(), self.generation.load(Relaxed), memo.body())
    }

    /// Notes how often the window was flushed. The number never becomes smaller. Returns the one that is in force.
    pub fn set_generation(&self, generation: u32) -> u32 {
        self.generation.fetch_max(generation, Relaxed).max(generation)
    }

    /// Takes the answer to a question.
    pub fn answer(self: &Arc<Self>, question: &Question, answer: Answer, now: Instant) {
        let Question { claim, lease, ref what } = *question;
        match (what, answer) {
            (Request::Lease | Request::Replace(_), Answer::Done) => self.granted(claim, lease, now),
            (Request::Lease | Request::Replace(_), Answer::Granted { gap }) => {
                let refuses = self.rules().numbering.on_gap == OnGap::Reject;
                match gap {
                    true if refuses => self.log.notice(Event::OutOfSequence(Refusal::Gap)),
                    true => self.log.notice(Event::Gap),
                    false => {}
                }
                self.table().expect(claim);
                self.granted(claim, lease, now);
            }
            (Request::Lease | Request::Replace(_), Answer::Stored(left)) => {
                self.is_seen(question, (self.ttl().max(left), left), BodyDigest::UNKNOWN, now);
            }
            (Request::Lease | Request::Replace(_), Answer::Refused(why)) => self.refused(question, why),
            // The value was removed in the meantime.
            (Request::Lease | Request::Replace(_) | Request::Look, Answer::Nothing) => {
                self.ask_again(question, Request::Lease);
            }
            (Request::Lease | Request::Replace(_), Answer::Found(value, _)) => {
                self.found(question, value, None, now);
            }
            (Request::Look, Answer::Found(value, left)) => self.found(question, value, Some(left), now),
            (Request::Renew, Answer::Found(..) | Answer::Stored(_) | Answer::Refused(_)) => {
                self.leases.lost(claim.key(), lease);
            }
            (Request::Renew, Answer::Done | Answer::Granted { .. } | Answer::Nothing)
            | (Request::Look, _)
            | (Request::Release, _) => {}
        }
    }

    /// The lease is ours: the first publish that waits for it is fresh.
    ///
    /// Nobody hears that before all are judged and the lease is held. The first one may be given up at once, and its lease with it. A
    /// publish that is judged after that would be let through without a lease, and another relay would let the same id through.
    fn granted(self: &Arc<Self>, claim: Claim, lease: Lease, now: Instant) {
        let judge = |waiter: Waiter| {
            let mailbox = waiter.mailbox.upgrade()?;
            let verdict = self.judge(claim, now, &mailbox, waiter.ticket);
            if waiter.is_told && matches!(verdict, Verdict::Fresh(_)) {
                self.log.notice(Event::Promoted);
            }
            Some((mailbox, waiter.ticket, verdict))
        };
        let waiters = self.leases.settle(claim.key(), lease);
        let letters: Vec<_> = waiters.into_iter().filter_map(judge).collect();
        self.leases.hold(claim, lease, now);
        letters.into_iter().for_each(|(mailbox, ticket, verdict)| mailbox.deliver(ticket, verdict));
        self.settle(claim.key());
    }

    /// The number is not let through: all publishes that have waited hear it.
    fn refused(&self, question: &Question, why: Refusal) {
        for waiter in self.leases.settle(question.claim.key(), question.lease) {
            let Some(mailbox) = waiter.mailbox.upgrade() else { continue };
            self.log.notice(Event::OutOfSequence(why));
            mailbox.deliver(waiter.ticket, Verdict::Refused(why));
        }
    }

    /// The key has another value. `left` is known if that was asked.
    fn found(self: &Arc<Self>, question: &Question, value: Vec<u8>, left: Option<Duration>, now: Instant) {
        let Question { claim, lease, .. } = *question;
        let (key, is_number) = (claim.key(), matches!(claim, Claim::Sequence { .. }));
        let is_asked = self.leases.is_asked(key, lease);
        if !is_asked && (!self.table().is_in_flight(key) || self.leases.is_held(key)) {
            return;
        }
        match (self.values.read(key, &value), left) {
            // The answer to an earlier question was lost.
            (Value::Leased(relay, held), _) if relay == self.relay && held == lease => {
                self.granted(claim, lease, now);
            }
            (Value::Leased(relay, _), _) if relay == self.relay => self.is_here(question, value, now),
            // (Of a number, Redis itself says that it counts as stored by then.)
            (Value::Leased(_, held), None) if held.keep > 0 && !is_number => {
                self.ask_again(question, Request::Look);
            }
            (Value::Leased(_, held), Some(left)) if left < Duration::from_millis(held.keep) => {
                self.is_seen(question, (left, left), BodyDigest::UNKNOWN, now);
            }
            (Value::Leased(..), _) => self.elsewhere(claim, lease, value, now),
            // Its producer has as many leases as it may have.
            (Value::Strange, _) if value.is_empty() => self.elsewhere(claim, lease, value, now),
            (Value::Seen { generation, .. }, _) if generation < self.generation.load(Relaxed) => {
                self.ask_again(question, Request::Replace(value));
            }
            (Value::Seen { .. }, None) => self.ask_again(question, Request::Look),
            (Value::Seen { ttl, body, .. }, Some(left)) => {
                self.is_seen(question, (ttl, left.min(ttl)), body, now);
            }
            (Value::Strange, _) => {
                self.log.note_damaged(1);
                self.ask_again(question, Request::Replace(value));
            }
        }
    }

    /// This relay itself has the key. A publish of it is in flight: all who have waited wait for that one. Its lease must stay what it is,
    /// because its commit and its rollback take that one away. If none is in flight, the lease is one that nobody needs any more.
    fn is_here(self: &Arc<Self>, question: &Question, value: Vec<u8>, now: Instant) {
        let Question { claim, lease, .. } = *question;
        let key = claim.key();
        if !self.leases.is_asked(key, lease) || !self.table().is_in_flight(key) {
            return self.ask_again(question, Request::Replace(value));
        }
        for waiter in self.leases.settle(key, lease) {
            let Some(mailbox) = waiter.mailbox.upgrade() else { continue };
            let ask = Ask { claim, ticket: waiter.ticket };
            let known = Table::reserve_known(self, |window| window.table(), &ask, now, &mailbox);
            mailbox.deliver(waiter.ticket, known.unwrap_or_else(|| Arc::clone(self).ask(&ask, &mailbox)));
        }
        self.leases.wake();
    }

    fn ask_again(&self, question: &Question, what: Request) {
        let Question { claim, lease, .. } = *question;
        if self.leases.is_asked(claim.key(), lease) || self.table().is_in_flight(claim.key()) {
            self.leases.push(Question { claim, lease, what });
        }
    }

    /// The key is seen: all publishes that have waited are duplicates.
    fn is_seen(
        self: &Arc<Self>,
        question: &Question,
        life: (Duration, Duration),
        body: BodyDigest,
        now: Instant,
    ) {
        let (claim, lease) = (question.claim, question.lease);
        if !self.leases.is_asked(claim.key(), lease) {
            return;
        }
        self.log.bring(claim, life, body, now);
        // (A forget comes after its doubt. If the doubt is not there yet, the memory forgets what was just brought.)
        if self.leases.is_doubted(claim.key(), lease) {
            self.table().forget(claim, now);
            return self.ask_again(question, Request::Lease);
        }
        for waiter in self.leases.settle(claim.key(), lease) {
            let Some(mailbox) = waiter.mailbox.upgrade() else { continue };
            let ask = Ask { claim, ticket: waiter.ticket };
            let known = Table::reserve_known(self, |window| window.table(), &ask, now, &mailbox);
            let verdict = known.unwrap_or_else(|| match claim {
                Claim::Digest(_) => Arc::clone(self).ask(&ask, &mailbox),
                // The memory can't keep it: it has too many holes. Redis knows it.
                Claim::Sequence { .. } => {
                    self.log.notice(Event::Duplicate { claim, now: self.table().stamp(now) });
                    Verdict::Duplicate(body)
                }
            });
            let verdict = [Some(verdict)];
            if self.log.local().refreshes_on_duplicate() {
                self.log.record_touches(&[ask], &verdict, now);
            }
            let [verdict] = verdict;
            let verdict = verdict.unwrap_or(Verdict::Crowded);
            mailbox.deliver(waiter.ticket, verdict);
        }
        self.leases.wake();
    }

    /// Another relay has the key in flight.
    fn elsewhere(self: &Arc<Self>, claim: Claim, lease: Lease, value: Vec<u8>, now: Instant) {
        let key = claim.key();
        let bound = self.log.local().table().waiters_per_id();
        let (untold, crowd) = self.leases.is_elsewhere(key, lease, value, now, bound);
        for Waiter { mailbox, ticket, .. } in untold {
            let Some(mailbox) = mailbox.upgrade() else { continue };
            self.log.notice(Event::InFlight);
            let wait = Wait::new(Arc::clone(self) as _, claim, Arc::clone(&mailbox), ticket);
            mailbox.deliver(ticket, Verdict::InFlight(wait));
        }
        for Waiter { mailbox, ticket, is_told } in crowd {
            let Some(mailbox) = mailbox.upgrade() else { continue };
            if !is_told {
                self.log.notice(Event::InFlight);
            }
            mailbox.deliver(ticket, Verdict::Crowded);
        }
    }

    /// Judges by the memory alone.
    fn judge(
        self: &Arc<Self>,
        claim: Claim,
        now: Instant,
        mailbox: &Arc<Mailbox>,
        ticket: Ticket,
    ) -> Verdict {
        let mut verdict = [None];
        let ask = Ask { claim, ticket };
        Table::reserve(Arc::clone(self), |window| window.table(), &[ask], now, mailbox, &mut verdict);
        let [verdict] = verdict;
        verdict.unwrap_or(Verdict::Crowded)
    }

    /// Gives a lease back if its key is not in flight here any more. The lease is read first: another publish may get one at any moment,
    /// and its key is in flight before that lease is held.
    fn settle(&self, key: Key) {
        if let Some(lease) = self.leases.of(key)
            && !self.table().is_in_flight(key)
        {
            self.leases.release(key, lease);
        }
    }

    // ---- the store's health --------------------------------------------------------------------------------------

    /// Notes that Redis takes nothing. `unanswered` was taken and not answered. With `on_outage = "continue"` the memory alone decides.
    pub fn failed(self: &Arc<Self>, unanswered: Vec<Question>, now: Instant) {
        self.log.store_failed(now);
        match self.log.on_outage() {
            OnOutage::Refuse => self.leases.put_back(unanswered),
            OnOutage::Continue => {
                for (claim, waiters) in self.leases.give_up(&unanswered, now) {
                    for Waiter { mailbox, ticket, .. } in waiters {
                        let Some(mailbox) = mailbox.upgrade() else { continue };
                        let verdict = self.judge(claim, now, &mailbox, ticket);
                        mailbox.deliver(ticket, verdict);
                    }
                }
                unanswered.iter().for_each(|question| self.settle(question.claim.key()));
            }
        }
    }

    /// Notes that Redis works. Leases may have ended in the meantime, so they are renewed.
    pub fn works(&self, now: Instant) {
        self.log.recovered();
        if self.log.is_down() {
            self.renew(Duration::ZERO, now);
        }
        self.log.store_works(now);
    }

    /// Returns when [`LeasedWindow::handle_timeout`] is to be called next. It is also to be called after [`LeasedWindow::renews_every`].
    pub fn deadline(&self) -> Option<Instant> {
        self.leases.next_poll()
    }

    /// Returns how often leases are looked at that may have to be renewed.
    pub fn renews_every(&self) -> Duration {
        self.lease_time / (2 * RENEWALS)
    }

    /// Asks again about what is in flight in other relays, and renews leases.
    pub fn handle_timeout(&self, now: Instant) {
        self.leases.poll(now);
        if !self.log.is_down() {
            self.renew(self.lease_time / RENEWALS, now);
        }
    }

    /// Renews leases that are older than this. One that nobody needs is given back: renewed for ever, it would hold other relays up.
    fn renew(&self, age: Duration, now: Instant) {
        self.leases.older(age, now).into_iter().for_each(|key| self.settle(key));
        self.leases.renew(age, now);
    }

    /// Returns the number of leases that are held.
    pub fn leases(&self) -> usize {
        self.leases.held()
    }

    /// Sets what Redis says of itself.
    pub fn set_at_store(&self, at_store: AtStore) {
        self.log.set_at_store(at_store);
    }

    /// Forgets everything that is known here, because it may be wrong. Redis knows what is seen, but for what is still to be written.
    pub fn forget_memory(&self, now: Instant) {
        self.leases.doubt_all(|_| true);
        self.log.doubt(&Written::Flushed);
        self.log.forget_written(None, now);
    }

    /// Takes what another relay has told all the others: what it has forgotten, flushed, or changed. Redis may have said before that
    /// it has an id, or has taken it, and the reply is still on its way. Both replies are doubted before the memory forgets. (If the memory
    /// knows too little, Redis is asked.)
    pub fn merge(&self, batch: &Batch, now: Instant, wall: SystemTime) -> Vec<Change> {
        for record in &batch.records {
            match record {
                Written::Forgotten(claim) => self.leases.doubt(*claim),
                Written::ProducerForgotten(producer) => self.leases.doubt_all(|claim| claim.is_of(*producer)),
                Written::Flushed => self.leases.doubt_all(|_| true),
                _ => continue,
            }
            self.log.doubt(record);
        }
        self.log.merge(batch, now, wall).changes
    }
}
