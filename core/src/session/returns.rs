//! Which mandatory publish a `basic.return` belongs to.
//!
//! A return carries no delivery tag. It shows the exchange, the routing key and the whole content header of the message, and
//! outstanding mandatory publishes are known by these here. Where several look alike, it is the oldest: the broker
//! routes the publishes of a channel in their order.
//!
//! A broker may return another header than was published: it resolves `amq.rabbitmq.reply-to`, takes the `BCC` header out,
//! or has an interceptor that adds a timestamp. Nobody can tell which publish such a return belongs to. Then every
//! outstanding publish of that exchange and routing key counts as returned: a duplicate is possible, a loss is not.

use crate::window::{Key, KeyMaker, Scope};
use crate::wire::properties::IdValue;
use std::collections::BTreeSet;

/// The things that a return shows of a publish, as a keyed digest, so nobody can choose two that collide.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub(super) struct ReturnKey {
    /// exchange and routing key
    place: u64,
    /// the payload of the content header, and the place once more
    header: u64,
}

impl ReturnKey {
    /// `header` is the payload of the content header.
    pub(super) fn new(keys: &KeyMaker, exchange: &[u8], routing_key: &[u8], header: &[u8]) -> ReturnKey {
        let place = keys.scoped(Scope::RoutingKey, b"return", exchange, routing_key);
        ReturnKey {
            place: half(place.key(&IdValue::Integer(0))),
            header: half(place.key(&IdValue::Bytes(header))),
        }
    }

    /// For the ledger's benchmark: this publish looks like no other.
    pub(super) fn of_key(key: Key) -> ReturnKey {
        ReturnKey { place: half(key), header: half(key) }
    }

    fn of_place(place: u64, header: u64) -> ReturnKey {
        ReturnKey { place, header }
    }
}

/// 64 bits of a digest are enough to tell the outstanding publishes of one channel apart.
#[expect(clippy::cast_possible_truncation, reason = "half of it is meant")]
fn half(key: Key) -> u64 {
    key.0 as u64
}

/// The meaning of a return for the publishes of one ledger.
#[derive(Debug, Default)]
pub(super) struct Returned {
    /// A publish looks exactly like it, so no other is meant.
    pub(super) exact: bool,
    /// These count as returned from now on.
    pub(super) marked: Vec<u64>,
    /// The publish whose return this is for the client.
    pub(super) told_as: Option<u64>,
}

/// The outstanding mandatory publishes of a ledger by what a return shows of them. Each has a tag of the ledger's choice;
/// later ones are larger. Every operation takes logarithmic time for each publish that it concerns.
#[derive(Debug, Default)]
pub(super) struct Returns {
    outstanding: BTreeSet<(ReturnKey, u64)>,
    /// Those that were marked by a return that looked like none of them, by place.
    guessed: BTreeSet<(u64, u64)>,
}

impl Returns {
    /// A mandatory publish was forwarded.
    pub(super) fn insert(&mut self, key: ReturnKey, tag: u64) {
        self.outstanding.insert((key, tag));
    }

    /// The outcome of a publish is known, or nobody waits for it any more.
    pub(super) fn remove(&mut self, key: ReturnKey, tag: u64) {
        if !self.outstanding.remove(&(key, tag)) && !self.guessed.is_empty() {
            self.guessed.remove(&(key.place, tag));
        }
    }

    /// Forgets all.
    pub(super) fn clear(&mut self) {
        *self = Returns::default();
    }

    /// Whether a publish looks exactly like this return.
    pub(super) fn holds(&self, key: ReturnKey) -> bool {
        self.oldest(key).is_some()
    }

    /// A return has come. If a publish looks exactly like it, only that one is marked.
    pub(super) fn recv(&mut self, key: ReturnKey) -> Returned {
        if let Some(oldest @ (_, tag)) = self.oldest(key) {
            self.outstanding.remove(&oldest);
            return Returned { exact: true, marked: vec![tag], told_as: Some(tag) };
        }
        let ReturnKey { place, .. } = key;
        let first = (ReturnKey::of_place(place, 0), 0);
        let last = (ReturnKey::of_place(place, u64::MAX), u64::MAX);
        let alike: Vec<(ReturnKey, u64)> = self.outstanding.range(first..=last).copied().collect();
        for publish @ (_, tag) in &alike {
            self.outstanding.remove(publish);
            self.guessed.insert((place, *tag));
        }
        // Each of these returns is the return of another publish for the client, as long as there are enough publishes.
        let told_as = self.guessed.range((place, 0)..=(place, u64::MAX)).next().copied();
        if let Some(guess) = told_as {
            self.guessed.remove(&guess);
        }
        Returned {
            exact: false,
            marked: alike.into_iter().map(|(_, tag)| tag).collect(),
            told_as: told_as.map(|(_, tag)| tag),
        }
    }

    fn oldest(&self, key: ReturnKey) -> Option<(ReturnKey, u64)> {
        self.outstanding.range((key, 0)..=(key, u64::MAX)).next().copied()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key(exchange: &str, header: &str) -> ReturnKey {
        ReturnKey::new(&KeyMaker::new((1, 2)), exchange.as_bytes(), b"k", header.as_bytes())
    }

    #[test]
    fn the_oldest_that_looks_like_it() {
        let mut returns = Returns::default();
        [(key("x", "h"), 1), (key("x", "h"), 2), (key("x", "i"), 3), (key("y", "h"), 4)]
            .into_iter()
            .for_each(|(key, tag)| returns.insert(key, tag));
        returns.remove(key("x", "h"), 1);
        let Returned { exact, marked, told_as } = returns.recv(key("x", "h"));
        assert_eq!((exact, marked, told_as), (true, vec![2], Some(2)));
    }

    #[test]
    fn what_looks_like_none_marks_all_of_its_place_and_is_told_of_under_one_after_the_other() {
        let mut returns = Returns::default();
        [(key("x", "h"), 1), (key("x", "i"), 2), (key("y", "h"), 3)]
            .into_iter()
            .for_each(|(key, tag)| returns.insert(key, tag));
        let mut first = returns.recv(key("x", "altered"));
        first.marked.sort_unstable();
        assert_eq!((first.exact, first.marked, first.told_as), (false, vec![1, 2], Some(1)));
        let second = returns.recv(key("x", "h"));
        assert_eq!((second.exact, second.marked, second.told_as), (false, vec![], Some(2)));
        assert_eq!(returns.recv(key("x", "h")).told_as, None);
        assert_eq!(returns.recv(key("y", "h")).marked, [3]);
        assert!(returns.outstanding.is_empty() && returns.guessed.is_empty());
    }
}
