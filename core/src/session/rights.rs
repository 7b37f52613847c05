//! Who may publish where, as the broker has shown.
//!
//! Nothing of a publish is judged before its user is known to have the right to publish there: a window that is asked in the
//! name of somebody without the right would make others wait, or tell whether an id is known. A right is the digest of
//! (credentials, vhost, exchange, routing key). The broker proves it by answering [`super::probe`]'s question, and again by
//! settling each publish. A proof is believed for [`Settings::rights_held`](super::Settings::rights_held).
//!
//! **Wide scopes.** Where an id is unique within an exchange or a vhost, a publish with one routing key can make one with
//! another key a duplicate. A user with topic permissions may write some keys and not others. So a user who may not write
//! every key there has ids of its own: the key's digest includes the credentials ([`Standing::Apart`]).

use crate::window::{Key, KeyMaker, Scope, Scoped};
use crate::wire::properties::IdValue;
use lru::LruCache;
use parking_lot::Mutex;
use std::collections::HashMap;
use std::num::NonZeroUsize;
use std::time::{Duration, Instant};

/// Proofs kept for the whole process (48 bytes each).
const KEPT: NonZeroUsize = NonZeroUsize::new(65_536).unwrap();
/// Proofs that a session keeps for itself, to leave the common map alone.
const KEPT_BY_SESSION: usize = 1_024;
/// How long it is remembered that a user's limit of channels leaves none to ask on.
const LIMITED: Duration = Duration::from_secs(24 * 3600);
/// A routing key that only a permission to write every key allows: patterns name words, and this one has none.
const ANY_KEY: &[u8] = b"~.~.~.~.~";
/// An exchange that does not exist. RabbitMQ checks the permission first, so 404 shows that any name is allowed.
const ANY_EXCHANGE: &[u8] = b"~.~.~.~.~";

/// Something that a user may or may not do, as the broker can show it: the digest of credentials, vhost, exchange, routing key
/// and of what is shown.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub(super) struct Right(Key);

impl Right {
    /// Stands where no right was asked for. It is no user's.
    pub(super) const NONE: Right = Right(Key(0));
}

/// The proofs of the whole process.
#[derive(Debug)]
pub struct Rights {
    proven: Mutex<LruCache<Right, Instant>>,
}

impl Default for Rights {
    fn default() -> Rights {
        Rights { proven: Mutex::new(LruCache::new(KEPT)) }
    }
}

impl Rights {
    fn until(&self, fact: Right) -> Option<Instant> {
        self.proven.lock().get(&fact).copied()
    }

    fn learn(&self, fact: Right, until: Instant) {
        self.proven.lock().put(fact, until);
    }
}

/// What is known of a user where it publishes.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Standing {
    /// Not enough: the broker has to be asked.
    Unknown,
    /// It may publish there, and its ids are common to all who may.
    Common,
    /// It may publish there, and its ids are its own.
    Apart,
}

/// One thing to find out from the broker.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) struct Question {
    /// what is learned if the publish is allowed
    pub(super) right: Right,
    /// what is learned if it is refused, where a refusal says something, too
    pub(super) otherwise: Option<Right>,
    pub(super) exchange: Box<[u8]>,
    pub(super) routing_key: Box<[u8]>,
    /// 404 shows that it is allowed: the exchange is one that does not exist
    pub(super) missing: bool,
}

/// What has to be known before a publish is judged.
#[derive(Debug)]
pub(super) struct Needs {
    /// the right to publish to this exchange with this routing key
    pub(super) right: Right,
    wide: Option<Box<Wide>>,
}

/// What has to be known beside the right where the scope is wider than a routing key.
#[derive(Debug)]
struct Wide {
    /// whether every routing key of the exchange may be written
    keys: Fact,
    /// whether every exchange may be written, where the scope is the vhost
    exchanges: Option<Fact>,
    /// what the ids of this user are unique within if not
    apart: Scoped,
}

/// Something that is true or false of a user. Each answer is a proof of its own.
#[derive(Clone, Copy, Debug)]
struct Fact {
    yes: Right,
    no: Right,
}

impl Needs {
    /// Whether this is learned of the exchange that the publish goes to.
    pub(super) fn is_of_exchange(&self, fact: Right) -> bool {
        fact == self.right || self.wide.as_ref().is_some_and(|wide| fact == wide.keys.yes)
    }

    /// The digest's scope for a user of this standing.
    #[inline]
    pub(super) fn scoped<'a>(&'a self, common: &'a Scoped, standing: Standing) -> &'a Scoped {
        match &self.wide {
            Some(wide) if standing == Standing::Apart => &wide.apart,
            _ => common,
        }
    }
}

/// One session's view: whose credentials, and what they have proven lately.
#[derive(Debug)]
pub(super) struct OwnRights {
    identity: Vec<u8>,
    held: Duration,
    recent: HashMap<Right, Instant>,
    /// The one that was asked for last: mostly it is the next one, too.
    last: Option<(Right, Instant)>,
}

impl OwnRights {
    /// A proof is believed for `held`.
    pub(super) fn new(held: Duration) -> OwnRights {
        OwnRights { identity: Vec::new(), held, recent: HashMap::new(), last: None }
    }

    /// The credentials and the vhost, as the broker has accepted them. What was proven for others is void.
    pub(super) fn set_identity(&mut self, identity: Vec<u8>) {
        self.identity = identity;
        self.recent.clear();
        self.last = None;
    }

    /// What a publish needs that goes to `exchange`; the client has `named` that one, or another where the window redirects.
    /// Topic permissions look at the routing key. The predeclared exchanges that are not topic exchanges are known, any other
    /// may be one.
    pub(super) fn needs(
        &self,
        keys: &KeyMaker,
        scope: Scope,
        (named, exchange): (&[u8], &[u8]),
        routing_key: &[u8],
    ) -> Needs {
        let has_topics =
            !matches!(exchange, b"" | b"amq.direct" | b"amq.fanout" | b"amq.headers" | b"amq.match");
        let right = self.fact(keys, exchange, if has_topics { routing_key } else { b"" }, b"right");
        if scope == Scope::RoutingKey {
            return Needs { right, wide: None };
        }
        let any_key = match has_topics {
            true => self.fact(keys, exchange, ANY_KEY, b"right"),
            false => right,
        };
        let every = |exchange, yes| Fact { yes, no: self.fact(keys, exchange, ANY_KEY, b"no right") };
        let exchanges = (scope == Scope::Vhost)
            .then(|| every(ANY_EXCHANGE, self.fact(keys, ANY_EXCHANGE, ANY_KEY, b"right")));
        let apart = keys.scoped(scope, &self.identity, named, b"");
        Needs { right, wide: Some(Box::new(Wide { keys: every(exchange, any_key), exchanges, apart })) }
    }

    /// Whether the broker lets this user open one channel more.
    pub(super) fn may_ask(&mut self, common: &Rights, keys: &KeyMaker, now: Instant) -> bool {
        !self.knows(common, self.limited(keys), now)
    }

    /// The broker has closed the connection because of the channel that was to be asked on.
    pub(super) fn learn_limited(&mut self, common: &Rights, keys: &KeyMaker, now: Instant) {
        common.learn(self.limited(keys), now + LIMITED);
    }

    fn limited(&self, keys: &KeyMaker) -> Right {
        self.fact(keys, b"", b"", b"no channel to ask on")
    }

    fn fact(&self, keys: &KeyMaker, exchange: &[u8], routing_key: &[u8], what: &[u8]) -> Right {
        Right(keys.key(Scope::RoutingKey, &self.identity, exchange, routing_key, &IdValue::Bytes(what)))
    }

    /// What is known of the user where it needs this.
    #[inline]
    pub(super) fn standing(&mut self, common: &Rights, needs: &Needs, now: Instant) -> Standing {
        if !self.knows(common, needs.right, now) {
            return Standing::Unknown;
        }
        match &needs.wide {
            None => Standing::Common,
            Some(wide) => self.standing_in(common, wide, now),
        }
    }

    fn standing_in(&mut self, common: &Rights, wide: &Wide, now: Instant) -> Standing {
        let mut standing = Standing::Common;
        for Fact { yes, no } in [Some(wide.keys), wide.exchanges].into_iter().flatten() {
            if self.knows(common, no, now) {
                return Standing::Apart;
            }
            if !self.knows(common, yes, now) {
                standing = Standing::Unknown;
            }
        }
        standing
    }

    /// What the broker has to be asked, for a publish to this exchange with this routing key.
    pub(super) fn questions(
        &mut self,
        common: &Rights,
        needs: &Needs,
        (exchange, routing_key): (&[u8], &[u8]),
        now: Instant,
    ) -> Vec<Question> {
        let question = |fact: Fact, exchange: &[u8], missing| Question {
            right: fact.yes,
            otherwise: Some(fact.no),
            exchange: exchange.into(),
            routing_key: ANY_KEY.into(),
            missing,
        };
        let publish = Question {
            right: needs.right,
            otherwise: None,
            exchange: exchange.into(),
            routing_key: routing_key.into(),
            missing: false,
        };
        let wide = needs.wide.as_deref();
        let keys =
            wide.map(|wide| question(wide.keys, exchange, false)).filter(|all| all.right != needs.right);
        let exchanges = wide.and_then(|wide| wide.exchanges).map(|fact| question(fact, ANY_EXCHANGE, true));
        let mut known = |question: &Question| {
            self.knows(common, question.right, now)
                || question.otherwise.is_some_and(|no| self.knows(common, no, now))
        };
        let mut questions: Vec<_> = [Some(publish), keys, exchanges].into_iter().flatten().collect();
        questions.retain(|question| !known(question));
        questions
    }

    #[inline]
    fn knows(&mut self, common: &Rights, fact: Right, now: Instant) -> bool {
        if let Some((last, until)) = self.last
            && last == fact
            && now < until
        {
            return true;
        }
        self.looks_up(common, fact, now)
    }

    #[inline(never)]
    fn looks_up(&mut self, common: &Rights, fact: Right, now: Instant) -> bool {
        let until = match self.recent.get(&fact) {
            Some(&until) if now < until => Some(until),
            _ => common.until(fact).filter(|&until| now < until).inspect(|&until| self.keep(fact, until)),
        };
        if let Some(until) = until {
            self.last = Some((fact, until));
        }
        until.is_some()
    }

    /// The broker has shown it. What was shown not long ago stays as it is.
    pub(super) fn learn(&mut self, common: &Rights, fact: Right, now: Instant) {
        let half = now + self.held / 2;
        if let Some((last, until)) = self.last
            && last == fact
            && half < until
        {
            return;
        }
        if self.recent.get(&fact).is_some_and(|&until| half < until) {
            return;
        }
        let until = now + self.held;
        self.keep(fact, until);
        self.last = Some((fact, until));
        common.learn(fact, until);
    }

    /// The broker has shown that something does not hold. Only this session remembers it: what a user may not do must not push
    /// the proofs of others out.
    pub(super) fn learn_refusal(&mut self, fact: Right, now: Instant) {
        self.keep(fact, now + self.held);
    }

    fn keep(&mut self, fact: Right, until: Instant) {
        if self.recent.len() >= KEPT_BY_SESSION {
            self.recent.clear();
        }
        self.recent.insert(fact, until);
    }

    /// Bytes that what was proven lately takes.
    pub(super) fn memory(&self) -> usize {
        self.recent.len() * 2 * size_of::<(Right, Instant)>()
    }
}
