//! Which user may publish where, as the broker has shown.
//!
//! A publish is not judged before its user is known to have the right to publish there. If a window judged publishes of a user
//! without the right, these would make others wait, or tell whether an id is known. A [`Right`] is the digest of (credentials,
//! vhost, exchange, routing key). The broker proves it by answering a question ([`super::probe`]), and again by settling each
//! publish. A proof is believed for [`Settings::rights_held`](super::Settings::rights_held).
//!
//! **Wide scopes.** If ids are unique within an exchange or a vhost, a publish with one routing key can make a publish with another
//! key a duplicate. A user with topic permissions may write some routing keys and not others. Therefore a user who may not
//! write every routing key there has ids of its own: the key's digest includes the credentials ([`Standing::OwnIds`]).

use super::returns::half;
use crate::window::{Key, KeyMaker, Scope, Scoped};
use crate::wire::properties::IdValue;
use lru::LruCache;
use parking_lot::Mutex;
use std::collections::HashMap;
use std::num::NonZeroUsize;
use std::time::{Duration, Instant};

/// Proofs kept for the whole process (48 bytes each).
const KEPT: NonZeroUsize = NonZeroUsize::new(65_536).unwrap();
/// Refusals kept for the whole process. They have a map of their own, so that one user's refusals do not push out the proofs of others.
const REFUSALS_KEPT: NonZeroUsize = NonZeroUsize::new(16_384).unwrap();
/// Proofs that a session keeps for itself, so that it seldom locks the common map.
const KEPT_BY_SESSION: usize = 1_024;
/// How long Hapax remembers that a user's limit of channels leaves none to ask on.
const LIMITED: Duration = Duration::from_secs(24 * 3600);
/// A routing key without words. Patterns of topic permissions name words, so only a permission to write every key allows it.
const ANY_KEY: &[u8] = b"~.~.~.~.~";
/// An exchange that does not exist. RabbitMQ checks the permission first, so its 404 shows that the user may write to any name.
const ANY_EXCHANGE: &[u8] = b"~.~.~.~.~";

/// Something that a user may or may not do, as the broker can show it: the digest of credentials, vhost, exchange, routing key
/// and of what is shown.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub(super) struct Right(Key);

impl Right {
    /// A right that no user has. It is given where no right was asked for.
    pub(super) const NONE: Right = Right(Key(0));

    /// Returns half of the digest.
    pub(super) fn half(self) -> u64 {
        half(self.0)
    }
}

/// Returns true if this exchange may be a topic exchange, as far as its name tells.
pub fn may_have_topics(exchange: &[u8]) -> bool {
    !matches!(exchange, b"" | b"amq.direct" | b"amq.fanout" | b"amq.headers" | b"amq.match")
}

/// The proofs that all sessions of the process share.
#[derive(Debug)]
pub struct Rights {
    proven: Mutex<LruCache<Right, Instant>>,
    refused: Mutex<LruCache<Right, Instant>>,
}

impl Default for Rights {
    fn default() -> Rights {
        let refused = Mutex::new(LruCache::new(REFUSALS_KEPT));
        Rights { proven: Mutex::new(LruCache::new(KEPT)), refused }
    }
}

impl Rights {
    /// Returns until when the right is believed.
    fn until(&self, fact: Right) -> Option<Instant> {
        let proven = self.proven.lock().get(&fact).copied();
        proven.or_else(|| self.refused.lock().get(&fact).copied())
    }

    /// Keeps a refusal until this time.
    fn refuse(&self, fact: Right, until: Instant) {
        self.refused.lock().put(fact, until);
    }

    /// Keeps a proof until this time.
    fn learn(&self, fact: Right, until: Instant) {
        self.proven.lock().put(fact, until);
    }
}

/// How much is known of a user's right to publish somewhere.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Standing {
    /// Not enough is known: the broker has to be asked.
    Unknown,
    /// It may publish there, and shares its ids with all who may.
    Common,
    /// It may publish there, and has ids of its own.
    OwnIds,
}

/// A question to the broker. It is asked by a publish that is rolled back.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) struct Question {
    /// what the user has if the publish is allowed
    pub(super) right: Right,
    /// what is learned if the publish is refused
    pub(super) otherwise: Right,
    pub(super) exchange: Box<[u8]>,
    pub(super) routing_key: Box<[u8]>,
    /// the exchange does not exist: 404 shows that the publish is allowed
    pub(super) missing: bool,
}

/// The rights that have to be known before a publish is judged.
#[derive(Debug)]
pub(super) struct Needs {
    /// the right to publish to this exchange with this routing key
    pub(super) right: Right,
    /// the exchange may be one where topic permissions apply
    has_topics: bool,
    /// what is known of a user that does not have it
    refused: Right,
    wide: Option<Box<Wide>>,
}

/// The facts that are needed, too, if the scope is wider than a routing key.
#[derive(Debug)]
struct Wide {
    /// whether the user may write every routing key of the exchange
    keys: Fact,
    /// whether the user may write to every exchange; only if the scope is the vhost
    exchanges: Option<Fact>,
    /// what the ids of this user are unique within, if it has ids of its own
    own_ids: Scoped,
}

/// A fact that is true or false of a user. Both answers are kept.
#[derive(Clone, Copy, Debug)]
struct Fact {
    yes: Right,
    no: Right,
}

impl Needs {
    /// Returns true if this right is about the exchange that the publish goes to.
    pub(super) fn is_of_exchange(&self, fact: Right) -> bool {
        fact == self.right || self.wide.as_ref().is_some_and(|wide| fact == wide.keys.yes)
    }

    /// Returns whose ids those of messages with more routing keys (`CC`, `BCC`) are: the user's own where topic permissions may
    /// apply. RabbitMQ 4 asks for the right to write each of the keys, and Hapax knows of the first one only.
    pub(super) fn owner_of_extra_keys<'a>(&self, rights: &'a OwnRights) -> &'a [u8] {
        if self.has_topics { &rights.identity } else { &[] }
    }

    /// Returns what an id of a user of this standing is unique within.
    #[inline]
    pub(super) fn scoped<'a>(&'a self, common: &'a Scoped, standing: Standing) -> &'a Scoped {
        match &self.wide {
            Some(wide) if standing == Standing::OwnIds => &wide.own_ids,
            _ => common,
        }
    }
}

/// The identity of one session's user, and the rights that were proven for it lately.
#[derive(Debug)]
pub(super) struct OwnRights {
    /// Bytes that tell this user from others.
    identity: Vec<u8>,
    /// How long a proof is believed.
    held: Duration,
    /// Until when each right is believed.
    recent: HashMap<Right, Instant>,
    /// The right that was asked for last. It is likely to be the next one, too.
    last: Option<(Right, Instant)>,
}

impl OwnRights {
    /// Creates the rights of a user that is not known yet. A proof is believed for `held`.
    pub(super) fn new(held: Duration) -> OwnRights {
        OwnRights { identity: Vec::new(), held, recent: HashMap::new(), last: None }
    }

    /// Sets the identity that the broker has accepted. Forgets what was proven for another one.
    pub(super) fn set_identity(&mut self, identity: Vec<u8>) {
        self.identity = identity;
        self.recent.clear();
        self.last = None;
    }

    /// Returns the rights that a publish to `exchange` needs. The client has `named` this exchange, or another one if the
    /// window redirects. Topic permissions depend on the routing key. They do not apply to the predeclared exchanges that are
    /// no topic exchanges; any other exchange may be a topic exchange.
    pub(super) fn needs(
        &self,
        keys: &KeyMaker,
        scope: Scope,
        (named, exchange): (&[u8], &[u8]),
        routing_key: &[u8],
    ) -> Needs {
        let has_topics = may_have_topics(exchange);
        let topic = if has_topics { routing_key } else { b"" };
        let right = self.fact(keys, exchange, topic, b"right");
        let refused = self.fact(keys, exchange, topic, b"no right");
        if scope == Scope::RoutingKey {
            return Needs { right, refused, has_topics, wide: None };
        }
        let any_key = match has_topics {
            true => self.fact(keys, exchange, ANY_KEY, b"right"),
            false => right,
        };
        let every = |exchange, yes| Fact { yes, no: self.fact(keys, exchange, ANY_KEY, b"no right") };
        let exchanges = (scope == Scope::Vhost)
            .then(|| every(ANY_EXCHANGE, self.fact(keys, ANY_EXCHANGE, ANY_KEY, b"right")));
        let own_ids = keys.scoped(scope, &self.identity, named, b"");
        let wide = Wide { keys: every(exchange, any_key), exchanges, own_ids };
        Needs { right, refused, has_topics, wide: Some(Box::new(wide)) }
    }

    /// Returns true if the broker lets this user open one channel more, as far as is known.
    pub(super) fn may_ask(&mut self, common: &Rights, keys: &KeyMaker, now: Instant) -> bool {
        !self.knows(common, self.limited(keys), now)
    }

    /// Remembers that the broker has closed the connection because Hapax opened a channel to ask on.
    pub(super) fn learn_limited(&mut self, common: &Rights, keys: &KeyMaker, now: Instant) {
        common.learn(self.limited(keys), now + LIMITED);
    }

    /// Returns what is learned if the user's limit of channels leaves none for Hapax.
    fn limited(&self, keys: &KeyMaker) -> Right {
        self.fact(keys, b"", b"", b"no channel to ask on")
    }

    /// Returns the digest of what (`what`) is shown of this user.
    fn fact(&self, keys: &KeyMaker, exchange: &[u8], routing_key: &[u8], what: &[u8]) -> Right {
        Right(keys.key(Scope::RoutingKey, &self.identity, exchange, routing_key, &IdValue::Bytes(what)))
    }

    /// Returns what is known of the user, for a publish that needs these rights.
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
                return Standing::OwnIds;
            }
            if !self.knows(common, yes, now) {
                standing = Standing::Unknown;
            }
        }
        standing
    }

    /// Returns the questions to the broker for a publish to this exchange with this routing key. It is empty if all is known.
    pub(super) fn questions(
        &mut self,
        common: &Rights,
        needs: &Needs,
        (exchange, routing_key): (&[u8], &[u8]),
        now: Instant,
    ) -> Vec<Question> {
        let question = |fact: Fact, exchange: &[u8], missing| Question {
            right: fact.yes,
            otherwise: fact.no,
            exchange: exchange.into(),
            routing_key: ANY_KEY.into(),
            missing,
        };
        let publish = Question {
            right: needs.right,
            otherwise: needs.refused,
            exchange: exchange.into(),
            routing_key: routing_key.into(),
            missing: false,
        };
        let wide = needs.wide.as_deref();
        let keys =
            wide.map(|wide| question(wide.keys, exchange, false)).filter(|all| all.right != needs.right);
        let exchanges = wide.and_then(|wide| wide.exchanges).map(|fact| question(fact, ANY_EXCHANGE, true));
        let mut known = |question: &Question| {
            self.knows(common, question.right, now) || self.knows(common, question.otherwise, now)
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

    /// Keeps a proof, for this session and for all others. A proof that is believed for half the time to come stays as it is.
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

    /// Keeps that the user does not have a right, for this session and for all others of the same user. Otherwise each of its
    /// connections would have the broker refuse the same question, with two lines in the broker's log.
    pub(super) fn learn_refusal(&mut self, common: &Rights, fact: Right, now: Instant) {
        let until = now + self.held;
        self.keep(fact, until);
        common.refuse(fact, until);
    }

    /// Returns true if the broker has refused a publish like this lately.
    pub(super) fn is_refused(&mut self, common: &Rights, needs: &Needs, now: Instant) -> bool {
        !self.knows(common, needs.right, now) && self.knows(common, needs.refused, now)
    }

    fn keep(&mut self, fact: Right, until: Instant) {
        if self.recent.len() >= KEPT_BY_SESSION {
            self.recent.clear();
        }
        self.recent.insert(fact, until);
    }

    /// Returns the bytes that the proofs of this session take.
    pub(super) fn memory(&self) -> usize {
        self.identity.capacity() + self.recent.len() * 2 * size_of::<(Right, Instant)>()
    }
}
