//! Windows: what is *seen*, which is remembered for a TTL, and the reservations of publishes that are in flight.
//!
//! A [`Window`] gives a [`Verdict`] about a [`Claim`]. `Fresh` comes with a [`Reservation`]. Committing the reservation makes the
//! claim *seen*; dropping it forgets the claim and promotes one waiter. [`LocalWindow`] keeps reservations beside its engine, so no
//! engine can ever evict one. A verdict that is not known at once (`InFlight`, `Pending`) comes later by the session's [`Mailbox`].
//!
//! ```text
//!              reserve                commit                 TTL over, evicted, forgotten
//!   unknown ─────────────▶ in flight ─────────▶ seen ──────────────────────────────────────▶ unknown
//!      ▲                    │     ▲
//!      └────────────────────┘     │ a waiter takes the place of the first publish, and its verdict is Fresh, too
//!        drop, nobody waits ──────┘
//! ```
//!
//! A window may have a *store*, which keeps its ids outside of the memory of this process and answers late, or never:
//!
//! ```text
//!   reserve ──▶ Pending ─────┬─ the store answers ──▶ Mailbox::deliver(ticket, verdict)
//!                            └─ it is silent ───────▶ the session calls leave and overdue, under a new ticket
//!   commit ───▶ At(position) ┬─ the store has it ───▶ remembered() is at the position; Mailbox::call for each tell_when
//!                            └─ it is silent ───────▶ the session calls overdue_commit
//! ```
//!
//! There is no socket, no task and no clock here: `now` is an argument. A lock is held for one operation, and never while a guard is
//! dropped or a mailbox is woken.

mod body;
mod by_lock;
mod cache_aligned;
mod claim;
mod commit_group;
mod dials;
mod flight;
mod handle;
mod inspect;
mod key;
mod mailbox;
mod memory;
mod producers;
mod remembered;
mod reservation;
mod signals;
mod table;
mod tenant;
mod tenant_names;

pub mod engine;
pub mod event;
pub mod leased;
pub mod live;
pub mod local;
pub mod logged;
pub mod set;
pub mod tap;

pub use body::{BodyDigest, BodyHasher, Memo};
pub(crate) use cache_aligned::CacheAligned;
pub use claim::{Ask, Claim, Commit};
pub use event::{Event, EvictionCause, ForgetCause, Listener, Origin};
pub use inspect::{Found, Inspect};
pub use key::{Key, KeyMaker, Scope, Scoped};
pub use leased::LeasedWindow;
pub use live::{Changes, LiveWindows, Presence};
pub use local::{Limits, LocalWindow};
pub use logged::{Change, LoggedWindow, OnOutage, Remember, Setting, StoreFacts, StorePolicy};
pub use mailbox::{Mailbox, Ticket};
pub use producers::{Numbering, OnGap, ProducerFacts, ProducerImage, ProducerKey, Refusal};
pub use remembered::{Committed, OverdueCommit, Position, Remembered, Unremembered};
pub use reservation::{Reservation, Reservations, Wait};
pub use set::{WindowSet, Windows};
pub use signals::{OnDuplicate, Signals, Told};
pub use tap::Recorder;
pub use tenant::{Quota, Tenant, TenantFacts};

use crate::wire::IdSource;
use std::sync::Arc;
use std::time::{Duration, Instant};

/// The number of claims that a window reads ahead together, and that a batch of commits has at most.
pub(crate) const HINTED: usize = 64;

/// The verdict of a window about a publish.
#[must_use]
#[derive(Debug)]
pub enum Verdict {
    /// Not seen: forward it; commit the reservation when the upstream has acked it, drop it otherwise.
    Fresh(Reservation),
    /// Another publish with this claim is in flight. The final verdict comes to the mailbox under the ticket: `Fresh` if this publish
    /// takes its place, `Duplicate` if the other one was stored. Dropping the guard leaves the queue.
    InFlight(Wait),
    /// As `InFlight`, but as many publishes wait already as the window allows for one claim. Nothing will come by mail. The session
    /// decides whether it refuses the publish, and then tells the window ([`Event::Refused`]).
    Crowded,
    /// Seen: stored and acked by the upstream within the TTL, with this body. The session compares the bodies, because the body may come
    /// later than the verdict. If they differ, it tells the window ([`Event::Conflict`]).
    Duplicate(BodyDigest),
    /// A number that is neither let through nor stored (`id = "sequence"`). The publish is refused, and its publisher has to be told.
    Refused(Refusal),
    /// The window has to ask its store. The verdict (any but `Pending`) comes to the mailbox under the ticket.
    Pending(Wait),
}

/// The number of a reservation among those of its key. A window gives none twice.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub struct Turn(pub u64);

impl Turn {
    /// The turn of no reservation.
    const NOBODY: Turn = Turn(0);
}

/// The answer to a publish that has waited long enough for the outcome of another one.
#[must_use]
#[derive(Debug)]
pub enum TakeOver {
    /// It holds the claim now, as after [`Verdict::Fresh`]. The other waiters wait for its outcome.
    Granted(Reservation),
    /// It has to wait on. Its patience counts anew from `since`: another publish has held the claim since then, or the content of the
    /// holder was still on its way at that time.
    Wait {
        /// later than the `since` of the question, and not later than now
        since: Instant,
    },
    /// It does not wait any more: its verdict is in its mailbox. (A publish that was not queued has to ask again.)
    Answered,
}

/// The reservation of a publish that a consumer makes of its own delivery.
#[must_use]
#[derive(Debug)]
pub struct Republish {
    /// its reservation
    pub reservation: Reservation,
    /// Another publish holds the claim. If that one is stored, the claim is seen, whatever becomes of this one.
    pub beside: bool,
    /// Whether the store of the window has learnt already that the claim is not seen any more. The publish has to wait for that:
    /// otherwise a crash in between makes the claim seen again, and the retry of a message that was not stored is dropped.
    pub forgotten: Committed,
}

/// One remembered key, as the API shows it. Ages are relative to the `now` of the question.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Seen {
    /// when it was committed, or last made young again by a duplicate (`refresh_on_duplicate`)
    pub at: Instant,
    /// until when it is remembered
    pub until: Instant,
    /// duplicates since the commit
    pub duplicates: u32,
}

/// `enforce`, `observe` (count but forward) or `off`.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, serde::Deserialize, serde::Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Mode {
    /// duplicates are dropped
    #[default]
    Enforce,
    /// duplicates are counted and forwarded
    Observe,
    /// publishes are not judged
    Off,
}

impl Mode {
    /// As the configuration writes it.
    pub fn name(self) -> &'static str {
        match self {
            Mode::Enforce => "enforce",
            Mode::Observe => "observe",
            Mode::Off => "off",
        }
    }
}

/// The rule for reservations whose channel or upstream connection ended before the outcome was known.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, serde::Deserialize, serde::Serialize)]
#[serde(rename_all = "lowercase")]
pub enum InDoubt {
    /// a retry passes: a duplicate is possible, a loss is not
    #[default]
    Forget,
    /// a retry is dropped: a loss is possible, a duplicate is not
    Keep,
}

/// The rule for a publish of the same id, to the same exchange with the same routing key, as a message that was delivered before.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, serde::Deserialize, serde::Serialize)]
#[serde(rename_all = "lowercase")]
pub enum RepublishRule {
    /// It is a new message if the delivery came on the connection that publishes.
    #[default]
    Connection,
    /// It is a new message if the delivery came on any connection of the same user from the same host.
    Host,
    /// It is a duplicate.
    Drop,
}

/// When the id of a stored message is forgotten.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, serde::Deserialize, serde::Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Release {
    /// when its TTL is over
    #[default]
    Ttl,
    /// when a consumer acks the message, or when its TTL is over, if that comes first
    Consumed,
}

/// The rule for a publish without an id.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, serde::Deserialize, serde::Serialize)]
#[serde(rename_all = "lowercase")]
pub enum MissingId {
    /// forwarded and counted
    #[default]
    Forward,
    /// refused: the channel is closed with 406
    Reject,
}

/// The rule for a publish whose id is seen with another body: a conflict.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, serde::Deserialize, serde::Serialize)]
#[serde(rename_all = "lowercase")]
pub enum OnConflict {
    /// dropped as every duplicate, and counted
    #[default]
    Drop,
    /// forwarded as a new message; its body is the one that is remembered from its ack on
    Forward,
    /// nacked; without confirms the channel is closed with 406
    Reject,
}

/// Whether Hapax selects confirms upstream for clients that do not.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, serde::Deserialize, serde::Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum ConfirmRule {
    /// Hapax selects confirms upstream before the first publish that it judges
    #[default]
    Shadow,
    /// only the client does; without them, a key is committed when it is written
    ClientOnly,
}

/// The rules by which a window judges publishes. They are fixed while it lives; capacity, TTL and mode are not part of them.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Rules {
    /// the window's name, the label of its metrics
    pub name: Arc<str>,
    /// where the id is
    pub id: IdSource,
    /// the scope within which an id is unique
    pub scope: Scope,
    /// see [`InDoubt`]
    pub in_doubt: InDoubt,
    /// see [`MissingId`]
    pub missing_id: MissingId,
    /// see [`OnConflict`]
    pub on_conflict: OnConflict,
    /// how numbers are judged, if the id is a sequence
    pub numbering: Numbering,
    /// see [`ConfirmRule`]
    pub confirms: ConfirmRule,
    /// Hapax sets the mandatory bit on what it forwards, to learn whether a queue has taken it
    pub verify_routing: bool,
    /// publish what is fresh to this exchange instead
    pub forward_to: Option<Arc<str>>,
    /// see [`RepublishRule`]
    pub republish: RepublishRule,
    /// see [`Release`]
    pub release: Release,
    /// what divides the capacity
    pub quota: Quota,
    /// see [`Signals`]
    pub signals: Signals,
}

impl Rules {
    /// The rules of a window with this name that nobody has configured.
    pub fn named(name: &str) -> Rules {
        Rules {
            name: Arc::from(name),
            id: IdSource::MessageId,
            scope: Scope::default(),
            in_doubt: InDoubt::default(),
            missing_id: MissingId::default(),
            on_conflict: OnConflict::default(),
            numbering: Numbering::default(),
            confirms: ConfirmRule::default(),
            verify_routing: true,
            forward_to: None,
            republish: RepublishRule::default(),
            release: Release::default(),
            quota: Quota::default(),
            signals: Signals::default(),
        }
    }

    /// Returns the largest capacity that a window may have. A window of producers may take as much memory as one of ids.
    pub fn most_capacity(&self) -> usize {
        match self.id {
            IdSource::Sequence => self.numbering.most_producers(),
            _ => engine::MOST_IDS,
        }
    }

    /// Returns true if the bodies of duplicates are compared. If the body is the id, duplicates have equal bodies. Of a number, only a bit
    /// is remembered.
    #[inline]
    pub fn compares_bodies(&self) -> bool {
        !matches!(self.id, IdSource::Body | IdSource::Sequence)
    }
}

/// A window as a session uses it: the session asks for verdicts and settles them. [`LocalWindow`] does it in the memory of this process;
/// a window with a store outside of it answers `Pending` and uses the mailbox.
///
/// No method has a default, on purpose: a wrapper that forgets to forward one does not compile.
pub trait Window: Send + Sync + std::fmt::Debug {
    /// How publishes are judged.
    fn rules(&self) -> &Rules;
    /// The mode in force now.
    fn mode(&self) -> Mode;
    /// The TTL in force now, for messages that do not bring their own.
    fn ttl(&self) -> Duration;
    /// For one session to hold: the same window, but its reference count may be one that no other session writes to.
    fn handle(self: Arc<Self>) -> Arc<dyn Window>
    where
        Self: 'static;
    /// Asks for verdicts: all that one read brings for a channel. Puts one verdict for each ask into `verdicts`, in the order of
    /// the asks; the two slices are equally long. A late verdict goes to the mailbox under the ask's ticket, in any order.
    fn reserve(
        self: Arc<Self>,
        asks: &[Ask],
        now: Instant,
        mailbox: &Arc<Mailbox>,
        verdicts: &mut [Option<Verdict>],
    );
    /// Reserves the claim for a publish that a consumer makes of its own delivery: a new message, which neither is a duplicate nor
    /// waits. A claim that was seen is in flight from now on. If another publish holds the claim, this reservation is an overtaken
    /// one from the start: if its message is stored, the claim is seen; if not, nothing changes. A window with a store answers before
    /// its store knows, see [`Republish::forgotten`].
    fn republish(self: Arc<Self>, claim: Claim, now: Instant) -> Republish;
    /// Asks for a verdict without the store, by the window's own policy, because the answer to a `Pending` ask is overdue. `Pending`
    /// again means that the policy is to wait on. The earlier question was withdrawn ([`Window::leave`]), so no answer to it reaches
    /// the mailbox any more. An answer that is there already is discarded, because this ticket is a new one. Called by
    /// [`Wait::overdue`] only.
    fn overdue(
        self: Arc<Self>,
        claim: Claim,
        now: Instant,
        mailbox: &Arc<Mailbox>,
        ticket: Ticket,
    ) -> Verdict;
    /// Asks for a verdict on a publish whose id is seen with another body, and which is to be forwarded all the same. `body` is its own. The
    /// verdict is `Fresh` if the id is still seen with another body, or not seen any more, and nothing of it is in flight. The old body
    /// stays remembered until the reservation is committed. `Duplicate` says that the id was stored with this body meanwhile.
    fn supersede(
        self: Arc<Self>,
        ask: Ask,
        body: BodyDigest,
        now: Instant,
        mailbox: &Arc<Mailbox>,
    ) -> Verdict;
    /// Returns true if the window judges nothing at present, because its store is out of order and the policy is to refuse. Then it
    /// calls the session of this mailbox ([`Mailbox::call`]) when that is over. Asked only about a window that has let a publish wait.
    fn is_refusing(&self, mailbox: &Arc<Mailbox>) -> bool;
    /// Commits a reservation. Until it is remembered the claim stays in flight for everybody else. Called by
    /// [`Reservation::commit`] only.
    fn commit(&self, commit: Commit, now: Instant) -> Remembered;
    /// Makes several commits. The position, if any, covers all of them. Called by [`Reservations`] only.
    fn commit_all(&self, commits: &[Commit], now: Instant) -> Remembered;
    /// Commits a reservation whose outcome is not known. Nobody waits until it is remembered. Called by
    /// [`Reservation::commit_in_doubt`] only. A window that does not count these apart need not tell them apart.
    fn commit_in_doubt(&self, commit: Commit, now: Instant);
    /// Returns the last position up to which every commit is remembered. A window gives positions by [`Remembered::At`]; one that
    /// gives none is never asked.
    fn remembered(&self) -> Position;
    /// Wakes the session of this mailbox, by [`Mailbox::call`], once [`Window::remembered`] has come to the position; at once if it has
    /// already.
    fn tell_when(&self, position: Position, mailbox: &Arc<Mailbox>);
    /// Says what to do about the commits up to this position, which are overdue. The window counts those that are acked anyway.
    fn overdue_commit(&self, position: Position, now: Instant) -> OverdueCommit;
    /// Gives up the reservation of this turn. The oldest waiter is promoted, unless the reservation was overtaken. Called by
    /// [`Reservation`] only.
    fn rollback(self: Arc<Self>, claim: Claim, turn: Turn, cause: ForgetCause);
    /// Lets a publish that waits since `since` take the claim over from a publish that does not come to its end. The reservation of
    /// the latter is *overtaken*: if its message is stored, the claim is seen; if not, nothing changes. `queued` is the waiter's place
    /// in the queue, `None` if its verdict was [`Verdict::Crowded`]. If several have waited equally long, one takes over.
    fn take_over(
        self: Arc<Self>,
        claim: Claim,
        since: Instant,
        now: Instant,
        queued: Option<(&Arc<Mailbox>, Ticket)>,
    ) -> TakeOver;
    /// Notes whether the content of the publish is still on its way. Called by [`Reservation::set_uploading`] only.
    fn set_uploading(&self, claim: Claim, turn: Turn, uploading: bool);
    /// Returns true if a publish that has waited long enough, and could only be refused, has to wait on: because the content of the
    /// holder is not complete, or because there is no holder any more, or because the verdict is in the mailbox already.
    fn waits_on(&self, claim: Claim, queued: Option<(&Arc<Mailbox>, Ticket)>) -> bool;
    /// Returns true if somebody waits for the reservation of this turn. Called by [`Reservation::is_awaited`] only.
    fn is_awaited(&self, claim: Claim, turn: Turn) -> bool;
    /// Makes a committed claim unknown again, because its message was not stored after all. A claim in flight stays in flight.
    fn disown(&self, claim: Claim, now: Instant);
    /// Makes a claim unknown because a consumer has acked its message. If the claim is in flight, its commit, which is on its way, does not
    /// make it seen.
    fn release(&self, claim: Claim, now: Instant);
    /// Removes a waiter. Called by [`Wait`] only.
    fn leave(&self, claim: Claim, mailbox: &Arc<Mailbox>, ticket: Ticket);
    /// Notes that a publish waits for the claim without a place in the queue, and asks again. Called by [`Wait::no_room`] only.
    fn crowd(&self, claim: Claim);
    /// Tells the window's listener what the window itself cannot see (a publish without an id, a bypass, …).
    fn notice(&self, event: Event);
    /// Returns true if the window wants to know where this fresh publish goes. It may ask for a sample only.
    fn wants_origin(&self, claim: Claim) -> bool;
    /// Takes the place where a fresh publish goes.
    fn note_origin(&self, origin: &Origin<'_>);
    /// Returns true if the window wants to know the name of this claim's producer, for people to read.
    fn wants_producer(&self, claim: Claim) -> bool;
    /// Takes the name of a claim's producer.
    fn note_producer(&self, claim: Claim, name: &[u8]);
    /// Returns true if the window wants to know which headers this publish without an id carries. It may ask for a sample only.
    fn wants_names(&self) -> bool;
    /// Takes the names of the headers and properties of a publish without an id.
    fn note_names(&self, names: &[&[u8]]);
    /// Takes the name of a tenant that is about to publish, for people to read.
    fn note_tenant(&self, tenant: Tenant, name: &str);
}

/// Asks for one verdict: [`Window::reserve`] with a slice of one. Allocates nothing.
#[inline]
pub fn reserve_one<W: Window + ?Sized>(
    window: &Arc<W>,
    claim: impl Into<Claim>,
    now: Instant,
    mailbox: &Arc<Mailbox>,
    ticket: Ticket,
) -> Verdict {
    let mut verdict = [None];
    Arc::clone(window).reserve(&[Ask { claim: claim.into(), ticket }], now, mailbox, &mut verdict);
    let [verdict] = verdict;
    // A window that gives no verdict breaks its contract: nothing will come, which is what `Crowded` says.
    verdict.unwrap_or(Verdict::Crowded)
}

/// Returns true if these are the same window, perhaps by two handles.
pub(crate) fn is_same(one: &Arc<dyn Window>, other: &Arc<dyn Window>) -> bool {
    Arc::ptr_eq(one, other) || std::ptr::eq(one.rules(), other.rules())
}
