//! The start of a transcript about a guard: its window, and consumers that share it.

#![allow(clippy::needless_pass_by_value, reason = "a transcript reads as it is said")]

use crate::support::frames::{Frames, Message, message};
use crate::support::methods::{ack, consume_acking, consume_ok};
use crate::support::pair::{LOCALHOST, NoSessionListener, Pair, epoch, settings};
use hapax_core::session::{LoopbackUsers, Settings, Shared};
use hapax_core::window::engine::EngineKind;
use hapax_core::window::{Event, KeyMaker, Limits, Listener, LocalWindow, Mode, Rules, Window, Windows};
use hapax_core::wire::IdSource;
use hapax_core::wire::properties::IdValue;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::sync::{Arc, Mutex};
use std::time::Duration;

/// A guard of all queues of `/` whose names do not begin with `free`.
pub(super) struct Post {
    pub(super) window: Arc<LocalWindow>,
    pub(super) shared: Arc<Shared>,
    guards: Arc<Guards>,
    events: Arc<Events>,
}

#[derive(Debug, Default)]
struct Events(Mutex<Vec<Event>>);

impl Listener for Events {
    fn on(&self, event: &Event) {
        self.0.lock().unwrap().push(*event);
    }
}

#[derive(Debug)]
struct Guards {
    window: Arc<dyn Window>,
    are_there: AtomicBool,
}

impl Windows for Guards {
    /// A window judges the messages of one exchange.
    fn find(&self, _: &[u8], exchange: &[u8]) -> Option<Arc<dyn Window>> {
        (exchange == b"judged").then(|| self.window.clone())
    }

    fn guard(&self, vhost: &[u8], queue: &[u8]) -> Option<Arc<dyn Window>> {
        (self.has_guards(vhost) && !queue.starts_with(b"free")).then(|| self.window.clone())
    }

    fn has_guards(&self, vhost: &[u8]) -> bool {
        vhost == b"/" && self.are_there.load(Relaxed)
    }
}

/// What a test may change.
pub(super) struct Terms {
    pub(super) id: IdSource,
    pub(super) mode: Mode,
    pub(super) waiters: usize,
    pub(super) settings: Settings,
}

impl Post {
    pub(super) fn new() -> Post {
        Post::with(|_| (), |window| window)
    }

    pub(super) fn with(
        change: impl FnOnce(&mut Terms),
        wrap: impl FnOnce(Arc<LocalWindow>) -> Arc<dyn Window>,
    ) -> Post {
        let mut terms =
            Terms { id: IdSource::MessageId, mode: Mode::Enforce, waiters: 10, settings: settings() };
        change(&mut terms);
        let rules = Rules { id: terms.id, ..Rules::named("guard") };
        let limits = Limits {
            capacity: 1000,
            ttl: Duration::from_secs(60),
            mode: terms.mode,
            refresh_on_duplicate: false,
            waiters_per_id: terms.waiters,
        };
        let events = Arc::new(Events::default());
        let window: Arc<LocalWindow> = LocalWindow::new(rules, limits, EngineKind::default(), events.clone());
        let guards = Arc::new(Guards { window: wrap(window.clone()), are_there: AtomicBool::new(true) });
        let (keys, users) = (KeyMaker::new((1, 2)), LoopbackUsers::new(["guest"]));
        let shared =
            Arc::new(Shared::new(terms.settings, keys, guards.clone(), users, Arc::new(NoSessionListener)));
        Post { window, shared, guards, events }
    }

    /// A reload brings the guards, or takes them away.
    pub(super) fn show_guards(&self, are_there: bool) {
        self.guards.are_there.store(are_there, Relaxed);
    }

    /// A connection to this vhost, channel 1 open.
    pub(super) fn at(&self, vhost: &str) -> Pair {
        let mut pair = Pair::from_peer(&self.shared, LOCALHOST).proving();
        pair.handshake("guest", vhost);
        pair.open(1);
        pair
    }

    /// A connection, channel 1 open.
    pub(super) fn pair(&self) -> Pair {
        self.at("/")
    }

    /// A connection with the consumer `c` of the queue `q`, which acks.
    pub(super) fn consumer(&self) -> Pair {
        let mut pair = self.pair();
        begin(&mut pair, consume_acking(1, "q", "c"), "c");
        pair
    }

    /// Whether a consumer of this queue has acked this id.
    pub(super) fn is_seen_in(&self, queue: &str, id: &str) -> bool {
        let key = KeyMaker::new((1, 2)).scoped_to_queue(b"/", queue.as_bytes());
        self.window.get(key.key(&IdValue::Bytes(id.as_bytes())), epoch()).is_some()
    }

    pub(super) fn is_seen(&self, id: &str) -> bool {
        self.is_seen_in("q", id)
    }

    pub(super) fn in_flight(&self) -> usize {
        self.window.in_flight()
    }

    pub(super) fn count_like(&self, like: impl Fn(&Event) -> bool) -> usize {
        self.events.0.lock().unwrap().iter().filter(|event| like(event)).count()
    }
}

/// Starts a consumer; nothing of it is left to be read.
pub(super) fn begin(pair: &mut Pair, consume: Frames, tag: &str) {
    pair.client(consume.clone());
    assert_eq!(pair.to_upstream(), consume);
    pair.upstream(consume_ok(1, tag));
    assert_eq!(pair.to_client(), consume_ok(1, tag));
}

/// A message with this id.
pub(super) fn job(id: &str) -> Message {
    message("x", "k").id(id).body("work")
}

/// The broker delivers this to `c` under its tag, and the client is shown it under its own.
pub(super) fn shown(pair: &mut Pair, message: &Message, upstream: u64, client: u64) {
    pair.upstream(message.deliver(1, "c", upstream));
    assert_eq!(pair.to_client(), message.deliver(1, "c", client));
    assert_eq!(pair.to_upstream(), Frames::none());
}

/// The broker delivers this to `c`; it is acked, and the client is not shown it.
pub(super) fn hidden(pair: &mut Pair, message: &Message, upstream: u64) {
    pair.upstream(message.deliver(1, "c", upstream));
    assert_eq!(pair.to_client(), Frames::none());
    assert_eq!(pair.to_upstream(), ack(1, upstream));
}

/// The broker delivers this to `c`; nobody hears anything of it.
pub(super) fn waits(pair: &mut Pair, message: &Message, upstream: u64) {
    pair.upstream(message.deliver(1, "c", upstream));
    quiet(pair);
}

/// Nothing was written to either side.
pub(super) fn quiet(pair: &mut Pair) {
    assert_eq!(pair.to_client(), Frames::none());
    assert_eq!(pair.to_upstream(), Frames::none());
}

/// The client says `said`, and the broker hears `heard`.
pub(super) fn says(pair: &mut Pair, said: Frames, heard: Frames) {
    pair.client(said);
    assert_eq!(pair.to_upstream(), heard);
    assert_eq!(pair.to_client(), Frames::none());
}

/// Makes an id seen: a consumer works on it and acks it.
pub(super) fn done(post: &Post, id: &str) {
    done_in(post, "q", id);
}

/// The same, of this queue.
pub(super) fn done_in(post: &Post, queue: &str, id: &str) {
    let mut pair = post.pair();
    begin(&mut pair, consume_acking(1, queue, "c"), "c");
    shown(&mut pair, &job(id), 1, 1);
    says(&mut pair, ack(1, 1), ack(1, 1));
    assert!(post.is_seen_in(queue, id));
    drop(pair);
}
