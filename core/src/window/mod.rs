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

mod apart;
mod dials;
mod flight;
mod handle;
mod key;
mod mailbox;
mod reservation;

pub mod engine;
pub mod event;
pub mod local;
pub mod set;
pub mod tap;

pub(crate) use apart::Apart;
pub use event::{Event, EvictionCause, ForgetCause, Listener, Origin};
pub use key::{Key, KeyMaker, Scope, Scoped};
pub use local::{Limits, LocalWindow};
pub use mailbox::{Mailbox, Ticket};
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

/// The contract that sessions hold a window to. [`LocalWindow`] fulfils it for every engine; one that lives outside
/// the process would answer `Pending` and use the mailbox.
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
        Self: Sized + 'static,
    {
        self
    }
    /// A hint: these keys are about to be reserved, one after the other. What that will read is asked for at once, so that
    /// the caller waits once for all of it (64 keys or so) and not once for each. It tells and changes nothing.
    fn warm(&self, _: &[Key]) {}
    /// The same hint for keys whose reservations are about to be committed: what has to make room for them is read, too.
    fn warm_commits(&self, _: &[Key]) {}
    /// Asks for a verdict. `mailbox` and `ticket` say where a late one goes.
    fn reserve(self: Arc<Self>, key: Key, now: Instant, mailbox: &Arc<Mailbox>, ticket: Ticket) -> Verdict;
    /// The reservation's commit. Called by [`Reservation::commit`] only.
    fn commit(&self, key: Key, now: Instant, ttl: Duration);
    /// As many commits. Called by [`Reservations`] only.
    fn commit_all(&self, commits: &[(Key, Duration)], now: Instant) {
        commits.iter().for_each(|(key, ttl)| self.commit(*key, now, *ttl));
    }
    /// As `commit`, for an outcome that is not known. Called by [`Reservation::commit_in_doubt`] only. A window that does
    /// not count these apart need not tell them apart.
    fn commit_in_doubt(&self, key: Key, now: Instant, ttl: Duration) {
        self.commit(key, now, ttl);
    }
    /// The rollback of the reservation of this turn: the oldest living waiter is promoted, unless the reservation was
    /// overtaken. Called by [`Reservation`] only.
    fn rollback(self: Arc<Self>, key: Key, turn: Turn, cause: ForgetCause);
    /// Takes the key over from a publish that does not come to its end, for one that waits for it since `since`. The
    /// reservation of the former is *overtaken*: what it stores is seen, what it does not store changes nothing.
    /// `queued` is the waiter's place in the queue; none if it was [`Verdict::Crowded`]. Of all that have waited equally
    /// long, one is granted it.
    fn take_over(
        self: Arc<Self>,
        key: Key,
        since: Instant,
        now: Instant,
        queued: Option<(&Arc<Mailbox>, Ticket)>,
    ) -> TakeOver;
    /// See [`Reservation::set_uploading`], which alone calls it.
    fn set_uploading(&self, key: Key, turn: Turn, uploading: bool);
    /// Whether a publish that has waited long enough has to wait on all the same, where it could only be refused: the content
    /// of the one that has the key is not whole, or nobody has the key any more, or its verdict is in its mailbox.
    fn waits_on(&self, key: Key, queued: Option<(&Arc<Mailbox>, Ticket)>) -> bool;
    /// See [`Reservation::is_awaited`], which alone calls it.
    fn is_awaited(&self, key: Key, turn: Turn) -> bool;
    /// A key that was committed turns out not to be stored: it is unknown again. What is in flight stays so.
    fn disown(&self, key: Key, now: Instant);
    /// A waiter leaves. Called by [`Wait`] only.
    fn leave(&self, key: Key, mailbox: &Arc<Mailbox>, ticket: Ticket);
    /// Tells the window's listener what the window itself cannot see (a publish without an id, a bypass, …).
    fn notice(&self, event: Event);
    /// Whether the window wants to know where this publish goes, which it found fresh. It may do with a part of them.
    fn wants_origin(&self, _: Key) -> bool {
        false
    }
    /// Where a fresh publish goes.
    fn note_origin(&self, _: &Origin<'_>) {}
}

/// Whether these are the same window, perhaps by two handles.
pub(crate) fn is_same(one: &Arc<dyn Window>, other: &Arc<dyn Window>) -> bool {
    std::ptr::eq(one.rules(), other.rules())
}
