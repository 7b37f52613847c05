//! The start of a transcript: a window, its counters, and sessions that share it.

use crate::support::frames::{Frames, Message, message};
use crate::support::methods::{ack, confirm_select, confirm_select_ok, tx_select, tx_select_ok};
use crate::support::pair::{Everything, NoSessionListener, Pair, epoch, settings, shared};
use hapax_core::session::{Settings, Shared};
use hapax_core::window::engine::EngineKind;
use hapax_core::window::{
    ConfirmRule, Event, InDoubt, Key, KeyMaker, Limits, Listener, LocalWindow, Mailbox, MissingId, Mode,
    OnConflict, RepublishRule, Rules, Scope, Signals, Ticket, Verdict, Window, reserve_one,
};
use hapax_core::wire::IdSource;
use hapax_core::wire::properties::IdValue;
use std::sync::{Arc, Mutex};
use std::time::Duration;

pub(super) const SECOND: Duration = Duration::from_secs(1);

/// A window of a minute, and all that sessions share.
pub(super) struct Desk {
    pub(super) window: Arc<LocalWindow>,
    pub(super) shared: Arc<Shared>,
    events: Arc<Events>,
    proving: bool,
}

#[derive(Debug, Default)]
struct Events(Mutex<Vec<Event>>);

impl Listener for Events {
    fn on(&self, event: &Event) {
        self.0.lock().unwrap().push(*event);
    }
}

/// The settings that a test may change.
pub(super) struct Plan {
    pub(super) rules: Rules,
    pub(super) limits: Limits,
    pub(super) settings: Settings,
}

impl Desk {
    /// Creates a desk where everybody may publish everywhere. The transcripts do not show the questions about rights.
    pub(super) fn new() -> Desk {
        Desk::with(|_| ())
    }

    pub(super) fn with(change: impl FnOnce(&mut Plan)) -> Desk {
        Desk::unproven(change).proving()
    }

    /// Lets everybody publish everywhere, in sessions that begin later.
    pub(super) fn proving(self) -> Desk {
        Desk { proving: true, ..self }
    }

    /// The test answers the questions about rights itself.
    pub(super) fn unproven(change: impl FnOnce(&mut Plan)) -> Desk {
        Desk::around(change, |window| window)
    }

    /// With another window around the local one.
    pub(super) fn around(
        change: impl FnOnce(&mut Plan),
        wrap: impl FnOnce(Arc<LocalWindow>) -> Arc<dyn Window>,
    ) -> Desk {
        let rules = Rules {
            name: "test".into(),
            id: IdSource::MessageId,
            scope: Scope::RoutingKey,
            in_doubt: InDoubt::Forget,
            missing_id: MissingId::Forward,
            on_conflict: OnConflict::Drop,
            confirms: ConfirmRule::Shadow,
            verify_routing: false,
            forward_to: None,
            republish: RepublishRule::default(),
            quota: hapax_core::window::Quota::None,
            signals: Signals::default(),
            ..Rules::named("test")
        };
        let limits = Limits {
            capacity: 1000,
            ttl: Duration::from_secs(60),
            mode: Mode::Enforce,
            refresh_on_duplicate: false,
            waiters_per_id: 10,
        };
        let mut plan = Plan { rules, limits, settings: settings() };
        change(&mut plan);
        let events = Arc::new(Events::default());
        let window: Arc<LocalWindow> =
            LocalWindow::new(plan.rules, plan.limits, EngineKind::default(), events.clone());
        let shared =
            shared(plan.settings, Arc::new(Everything(wrap(window.clone()))), Arc::new(NoSessionListener));
        Desk { window, shared, events, proving: false }
    }

    /// A connection of `guest`, channel 1 open.
    pub(super) fn pair(&self) -> Pair {
        self.user("guest")
    }

    /// A connection of this user, channel 1 open.
    pub(super) fn user(&self, user: &str) -> Pair {
        let mut pair = Pair::new(&self.shared);
        if self.proving {
            pair = pair.proving();
        }
        pair.handshake(user, "/");
        pair.open(1);
        pair
    }

    /// As [`Desk::pair`], with confirms selected.
    pub(super) fn confirming(&self) -> Pair {
        let mut pair = self.pair();
        confirm(&mut pair, 1);
        pair
    }

    /// As [`Desk::pair`], with a transaction begun.
    pub(super) fn in_tx(&self) -> Pair {
        let mut pair = self.pair();
        begin_tx(&mut pair);
        pair
    }

    /// Makes an id seen, without anybody's publish.
    pub(super) fn store(&self, id: &str) {
        let mailbox = Arc::new(Mailbox::new());
        match reserve_one(&self.window, key(id), epoch(), &mailbox, Ticket(0)) {
            Verdict::Fresh(reservation) => drop(reservation.commit(epoch(), self.window.ttl())),
            other => panic!("{id} is not fresh: {other:?}"),
        }
        self.events.0.lock().unwrap().clear();
    }

    pub(super) fn is_seen(&self, id: &str) -> bool {
        self.window.get(key(id), epoch()).is_some()
    }

    /// The same for an id that was published elsewhere.
    pub(super) fn is_seen_at(&self, exchange: &str, routing_key: &str, id: &str) -> bool {
        self.window.get(key_at(exchange, routing_key, id), epoch()).is_some()
    }

    pub(super) fn in_flight(&self) -> usize {
        self.window.in_flight()
    }

    /// How often the window said that.
    pub(super) fn count(&self, event: Event) -> usize {
        self.count_like(|other| *other == event)
    }

    /// How often the window said something like that.
    pub(super) fn count_like(&self, like: impl Fn(&Event) -> bool) -> usize {
        self.events.0.lock().unwrap().iter().filter(|event| like(event)).count()
    }
}

/// The key of a message as [`m`] makes it.
pub(super) fn key(id: &str) -> Key {
    key_at("x", "k", id)
}

fn key_at(exchange: &str, routing_key: &str, id: &str) -> Key {
    let id = IdValue::Bytes(id.as_bytes());
    KeyMaker::new((1, 2)).key(Scope::RoutingKey, b"/", exchange.as_bytes(), routing_key.as_bytes(), &id)
}

/// A message to `x` with `k`, with this id and a body of one frame.
pub(super) fn m(id: &str) -> Message {
    message("x", "k").id(id).body("body")
}

/// The same with a body of two frames.
pub(super) fn two(id: &str) -> Message {
    message("x", "k").id(id).body("abcdef").frame_size(11)
}

/// Selects confirms; nothing of it is left to be read.
pub(super) fn confirm(pair: &mut Pair, channel: u16) {
    pair.client(confirm_select(channel));
    pair.upstream(confirm_select_ok(channel));
    assert_eq!(pair.to_client(), confirm_select_ok(channel));
    assert_eq!(pair.to_upstream(), confirm_select(channel));
}

/// Begins a transaction on channel 1; nothing of it is left to be read.
pub(super) fn begin_tx(pair: &mut Pair) {
    pair.client(tx_select(1));
    pair.upstream(tx_select_ok(1));
    pair.to_client();
    pair.to_upstream();
}

/// The first `n` frames, and the rest.
pub(super) fn cut(frames: Frames, n: usize) -> (Frames, Frames) {
    let mut first = frames.0;
    let rest = first.split_off(n);
    (Frames(first), Frames(rest))
}

/// Publishes what is fresh; nothing of it is left to be read.
pub(super) fn publish(pair: &mut Pair, message: &Message) {
    pair.client(message.publish(1));
    assert_eq!(pair.to_upstream(), message.publish(1));
    assert_eq!(pair.to_client(), Frames::none());
}

/// The client has said this; nobody hears anything of it.
pub(super) fn unheard(pair: &mut Pair, frames: Frames) {
    pair.client(frames);
    assert_eq!(pair.to_upstream(), Frames::none());
    assert_eq!(pair.to_client(), Frames::none());
}

/// A client that publishes and gets acks, and a broker that stores everything.
pub(super) struct Line {
    pub(super) pair: Pair,
    sent: u64,
    stored: u64,
}

impl Line {
    pub(super) fn of(mut pair: Pair) -> Line {
        confirm(&mut pair, 1);
        Line { pair, sent: 0, stored: 0 }
    }

    /// Returns true if the message was forwarded, and false if it was dropped. It is acked either way.
    pub(super) fn passes(&mut self, message: &Message) -> bool {
        self.sent += 1;
        self.pair.client(message.publish(1));
        let forwarded = self.pair.to_upstream() != Frames::none();
        if forwarded {
            self.stored += 1;
            self.pair.upstream(ack(1, self.stored));
        }
        assert_eq!(self.pair.to_client(), ack(1, self.sent));
        forwarded
    }
}
