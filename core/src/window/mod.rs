//! What is remembered: a bounded store of *seen* keys with a TTL, and the reservations of what is in flight.
//!
//! A [`Window`] gives a [`Verdict`] for a [`Key`]. `Fresh` comes with a [`Reservation`]: commit makes the key *seen*,
//! dropping it forgets the key and promotes one waiter. Reservations live beside the store, so no engine can ever
//! evict one. An answer that is not known at once (`InFlight`, `Pending`) comes later by the asker's [`Mailbox`].
//!
//! ```text
//!              reserve                commit                 TTL over, evicted, forgotten
//!   unknown ─────────────▶ in flight ─────────▶ seen ──────────────────────────────────────▶ unknown
//!      ▲                    │     ▲
//!      └────────────────────┘     │ a waiter takes the place of the first (it was Fresh for the first, and is again)
//!        drop, nobody waits ──────┘
//! ```
//!
//! No socket, no task, no clock: `now` is an argument. Locks are held for one operation and never while a guard is
//! dropped or a mailbox is woken.

mod cache_aligned;
mod claim;
mod commit_group;
mod dials;
mod flight;
mod handle;
mod inspect;
mod key;
mod mailbox;
mod remembered;
mod reservation;
mod table;

pub mod engine;
pub mod event;
pub mod local;
pub mod set;
pub mod tap;

pub(crate) use cache_aligned::CacheAligned;
pub use claim::{Ask, Claim};
pub use event::{Event, EvictionCause, ForgetCause, Listener, Origin};
pub use inspect::{Found, Inspect};
pub use key::{Key, KeyMaker, Scope, Scoped};
pub use local::{Limits, LocalWindow};
pub use mailbox::{Mailbox, Ticket};
pub use remembered::{Committed, OverdueCommit, Position, Remembered, Unremembered};
pub use reservation::{Reservation, Reservations, Wait};
pub use set::{WindowSet, Windows};
pub use tap::Recorder;

use crate::wire::IdSource;
use std::sync::Arc;
use std::time::{Duration, Instant};

/// Keys that a window is told of at a time, before it is asked (see [`Window::warm`]).
pub(crate) const HINTED: usize = 64;

/// What the window says of a publish.
#[must_use]
#[derive(Debug)]
pub enum Verdict {
    /// Not seen: forward it; commit the reservation when the upstream has acked it, drop it otherwise.
    Fresh(Reservation),
    /// Somebody's publish of this key is unresolved. The final verdict (`Fresh` = promoted in its place, `Duplicate` =
    /// it was stored) comes to the mailbox under the ticket. Dropping the guard leaves the queue.
    InFlight(Wait),
    /// As `InFlight`, but there are already as many waiters as the window allows for one key. Nothing will come. (Whether
    /// the publish is refused for it is the asker's to decide, and to tell.)
    Crowded,
    /// Seen: stored and acked by the upstream within the TTL.
    Duplicate,
    /// The store has to be asked. The verdict (anything but `Pending`) comes to the mailbox under the ticket.
    Pending(Wait),
}

/// Which reservation of a key it is: a window gives each its own, and none twice.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub struct Turn(pub u64);

/// What a publish is told that has waited long enough for the outcome of another one.
#[must_use]
#[derive(Debug)]
pub enum TakeOver {
    /// The key is its own now, as after [`Verdict::Fresh`]. The others wait for its outcome.
    Granted(Reservation),
    /// Its patience is counted anew from here: since then another publish has the key, or the content of the one that has it
    /// was still on its way.
    Wait {
        /// later than what it was asked with, and not later than now
        since: Instant,
    },
    /// The key is not in flight for this waiter any more: its verdict is in its mailbox. (Who was not queued asks again.)
    Answered,
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

/// What becomes of reservations whose channel or upstream connection ended before the outcome was known.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, serde::Deserialize, serde::Serialize)]
#[serde(rename_all = "lowercase")]
pub enum InDoubt {
    /// a retry passes: a duplicate is possible, a loss is not
    #[default]
    Forget,
    /// a retry is dropped: a loss is possible, a duplicate is not
    Keep,
}

/// What becomes of a publish without an id.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, serde::Deserialize, serde::Serialize)]
#[serde(rename_all = "lowercase")]
pub enum MissingId {
    /// forwarded and counted
    #[default]
    Forward,
    /// refused: the channel is closed with 406
    Reject,
}

/// Whether Hapax selects confirms upstream for clients that do not.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, serde::Deserialize, serde::Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Confirms {
    /// Hapax selects confirms upstream before the first publish that it judges
    #[default]
    Shadow,
    /// only the client does; without them, a key is committed when it is written
    ClientOnly,
}

/// How publishes are judged by a window; fixed while it lives, but for capacity, TTL and mode.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Rules {
    /// the window's name, the label of its metrics
    pub name: Arc<str>,
    /// where the id is
    pub id: IdSource,
    /// what an id is unique within
    pub scope: Scope,
    /// see [`InDoubt`]
    pub in_doubt: InDoubt,
    /// see [`MissingId`]
    pub missing_id: MissingId,
    /// see [`Confirms`]
    pub confirms: Confirms,
    /// publish what is fresh to this exchange instead
    pub forward_to: Option<Arc<str>>,
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
            confirms: Confirms::default(),
            forward_to: None,
        }
    }
}

/// What a session needs of a window: ask for verdicts and settle them. [`LocalWindow`] does it in the memory of this process;
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
        Self: Sized + 'static;
    /// A hint: these claims are about to be reserved, one call each. The window reads what that will read, all of it at once.
    /// Changes nothing. A slice that is given to [`Window::reserve`] needs no hint.
    fn warm(&self, claims: &[Claim]);
    /// Asks for verdicts: all that one read brings for a channel. Puts one verdict for each ask into `verdicts`, in the order of
    /// the asks; the two slices are equally long. A late verdict goes to the mailbox under the ask's ticket, in any order.
    fn reserve(
        self: Arc<Self>,
        asks: &[Ask],
        now: Instant,
        mailbox: &Arc<Mailbox>,
        verdicts: &mut [Option<Verdict>],
    );
    /// What the window says without its store, by its own policy, about a `Pending` ask whose verdict is overdue. `Pending` again
    /// means that its policy is to wait on. The earlier question was withdrawn ([`Window::leave`]), and no answer to it reaches
    /// the mailbox any more; one that is there already is discarded, for this ticket is a new one. Called by [`Wait::overdue`] only.
    fn overdue(
        self: Arc<Self>,
        claim: Claim,
        now: Instant,
        mailbox: &Arc<Mailbox>,
        ticket: Ticket,
    ) -> Verdict;
    /// The reservation's commit. Until it is remembered the claim stays in flight for everybody else. Called by
    /// [`Reservation::commit`] only.
    fn commit(&self, claim: Claim, now: Instant, ttl: Duration) -> Remembered;
    /// As many commits; the position, if any, is one that covers all of them. Called by [`Reservations`] only.
    fn commit_all(&self, commits: &[(Claim, Duration)], now: Instant) -> Remembered;
    /// As `commit`, for an outcome that is not known, so nobody waits for its being remembered. Called by
    /// [`Reservation::commit_in_doubt`] only. A window that does not count these apart need not tell them apart.
    fn commit_in_doubt(&self, claim: Claim, now: Instant, ttl: Duration);
    /// How far its log is written: every commit up to this position is remembered.
    fn remembered(&self) -> Position;
    /// Wakes the session of this mailbox once [`Window::remembered`] has come to the position; at once if it has already.
    fn tell_when(&self, position: Position, mailbox: &Arc<Mailbox>);
    /// What to do about the commits up to this position, which are overdue. The window counts those that are acked anyway.
    fn overdue_commit(&self, position: Position, now: Instant) -> OverdueCommit;
    /// The rollback of the reservation of this turn: the oldest living waiter is promoted, unless the reservation was
    /// overtaken. Called by [`Reservation`] only.
    fn rollback(self: Arc<Self>, claim: Claim, turn: Turn, cause: ForgetCause);
    /// Takes the claim over from a publish that does not come to its end, for one that waits for it since `since`. The
    /// reservation of the former is *overtaken*: what it stores is seen, what it does not store changes nothing.
    /// `queued` is the waiter's place in the queue; none if it was [`Verdict::Crowded`]. Of all that have waited equally
    /// long, one is granted it.
    fn take_over(
        self: Arc<Self>,
        claim: Claim,
        since: Instant,
        now: Instant,
        queued: Option<(&Arc<Mailbox>, Ticket)>,
    ) -> TakeOver;
    /// See [`Reservation::set_uploading`], which alone calls it.
    fn set_uploading(&self, claim: Claim, turn: Turn, uploading: bool);
    /// Whether a publish that has waited long enough has to wait on all the same, where it could only be refused: the content
    /// of the one that has the claim is not whole, or nobody has it any more, or its verdict is in its mailbox.
    fn waits_on(&self, claim: Claim, queued: Option<(&Arc<Mailbox>, Ticket)>) -> bool;
    /// See [`Reservation::is_awaited`], which alone calls it.
    fn is_awaited(&self, claim: Claim, turn: Turn) -> bool;
    /// A claim that was committed turns out not to be stored: it is unknown again. What is in flight stays so.
    fn disown(&self, claim: Claim, now: Instant);
    /// A waiter leaves. Called by [`Wait`] only.
    fn leave(&self, claim: Claim, mailbox: &Arc<Mailbox>, ticket: Ticket);
    /// Tells the window's listener what the window itself cannot see (a publish without an id, a bypass, …).
    fn notice(&self, event: Event);
    /// Whether the window wants to know where this publish goes, which it found fresh. It may do with a part of them.
    fn wants_origin(&self, claim: Claim) -> bool;
    /// Where a fresh publish goes.
    fn note_origin(&self, origin: &Origin<'_>);
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

/// Whether these are the same window, perhaps by two handles.
pub(crate) fn is_same(one: &Arc<dyn Window>, other: &Arc<dyn Window>) -> bool {
    Arc::ptr_eq(one, other) || std::ptr::eq(one.rules(), other.rules())
}
