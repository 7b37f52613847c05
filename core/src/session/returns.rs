//! Which publish a `basic.return` belongs to, and whether the client hears of it.
//!
//! A return carries no delivery tag. It shows the exchange, the routing key, the whole content header of the message, and the
//! body. The publishes that may come back are outstanding here, each by what a return shows of it ([`Shows`]):
//!
//! * **by its header**, a digest of the content header. It is made when the publish is forwarded. This is done for the publishes
//!   for which the client asks for returns, and for those whose claim a return does not show (`id = "body"`, `forward_to`).
//! * **by its claim**, for all other publishes for which Hapax sets the mandatory bit: that is nearly every message. A ledger
//!   has their claims anyway, so this costs nothing until a return comes. Then an index over the claims is built. It is kept
//!   while returns keep coming: until as many publishes were settled since the last return as were looked at to build it, or as
//!   it has. To build one again therefore costs no more than those settlements, and the publishes that were forwarded since.
//!
//! Where several look alike, it is the oldest: the broker routes the publishes of a channel in their order. But the oldest may have
//! been routed, and a later one with another body not. Therefore all later ones with another body count as returned, too: a duplicate is
//! possible, a loss is not.
//!
//! A broker may return another header than was published: it resolves `amq.rabbitmq.reply-to`, takes the `BCC` header out,
//! or has an interceptor that adds a timestamp. If it looks like no publish, nobody can tell which one such a return belongs
//! to. Then every outstanding publish of that exchange and routing key counts as returned: a duplicate is possible, a loss is
//! not.
//!
//! The return of a publish with `BCC` may look exactly like another publish, of the same id and without `BCC`. The claim of
//! such a publish is made without `BCC` here. While it is outstanding, a return that shows this claim may be of any publish to
//! that exchange and routing key, too.

use super::rights::Right;
use crate::window::{Claim, Key, KeyMaker, Scope};
use crate::wire::properties::IdValue;
use std::collections::{BTreeMap, BTreeSet};

/// The most publishes that are looked at because they look like one that has come back. A client has more of one id at the broker only if it
/// publishes as many of its deliveries again.
const MOST_ALIKE: usize = 64;

/// The things that a return shows of a publish, as a keyed digest, so nobody can choose two that collide.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub(super) struct ReturnKey {
    /// exchange and routing key
    place: u64,
    /// the payload of the content header and the place once more, or the claim
    content: u64,
}

impl ReturnKey {
    /// `header` is the payload of the content header.
    pub(super) fn new(keys: &KeyMaker, exchange: &[u8], routing_key: &[u8], header: &[u8]) -> ReturnKey {
        let place = keys.scoped(Scope::RoutingKey, b"return", exchange, routing_key);
        ReturnKey {
            place: half(place.key(&IdValue::Integer(0))),
            content: half(place.key(&IdValue::Bytes(header))),
        }
    }

    /// The right to publish there stands for the place.
    pub(super) fn of_claim(right: Right, claim: Claim) -> ReturnKey {
        ReturnKey::at(right.half(), claim)
    }

    /// Makes the key of a claim at a [place](ReturnKey::place).
    pub(super) fn at(place: u64, claim: Claim) -> ReturnKey {
        ReturnKey { place, content: half(claim.key()) }
    }

    /// Returns the digest of exchange and routing key.
    pub(super) fn place(self) -> u64 {
        self.place
    }

    /// For the ledger's benchmark: this publish looks like no other.
    pub(super) fn of_key(key: Key) -> ReturnKey {
        ReturnKey { place: half(key), content: half(key) }
    }

    fn of_place(place: u64, content: u64) -> ReturnKey {
        ReturnKey { place, content }
    }
}

/// 64 bits of a digest are enough to tell the outstanding publishes of one channel apart.
#[expect(clippy::cast_possible_truncation, reason = "half of it is meant")]
pub(super) fn half(key: Key) -> u64 {
    key.0 as u64
}

/// How a return shows one publish.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Shows {
    /// By its header. `asked`: the client has asked for returns.
    Header { key: ReturnKey, asked: bool },
    /// By its claim. Hapax alone has asked.
    Claim(ReturnKey),
}

/// The facts that a return shows.
#[derive(Clone, Debug)]
pub(super) struct Shown {
    /// its exchange, routing key and header
    pub(super) by_header: ReturnKey,
    /// Its exchange, routing key and claim. The id may be unique within one of two scopes. It is empty if it has no id, or no
    /// window judges what goes there.
    pub(super) by_claim: Vec<ReturnKey>,
    /// The exchange has kept the message to route it later, and has returned it all the same.
    pub(super) kept: bool,
}

/// The one who hears of a return.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Told {
    /// The client. It is the return of this publish, if one is known.
    Client(Option<u64>),
    /// Nobody: only Hapax has asked.
    Nobody,
}

/// The meaning of a return for the publishes of one ledger.
#[derive(PartialEq, Eq, Debug)]
pub(super) struct Returned {
    /// A publish looks exactly like it, so no other is meant.
    pub(super) exact: bool,
    /// These count as returned from now on.
    pub(super) marked: Vec<u64>,
    /// These look like the one that is marked, and are later. Those that have another body count as returned, too.
    pub(super) alike: Vec<u64>,
    /// who hears of it
    pub(super) told: Told,
}

/// The outstanding publishes of a ledger that may come back. Each has a tag of the ledger's choice; later ones are larger. Every
/// operation takes logarithmic time for each publish that it concerns, if the time to build the index is shared by those that
/// were settled since the last one.
#[derive(Debug, Default)]
pub(super) struct Returns {
    /// Those that are known by their header, and whether the client has asked for their return.
    by_header: BTreeMap<(ReturnKey, u64), bool>,
    /// Those of them that were marked by a return that looked like none of them: by place, first those that the client has asked
    /// for. (Place, not asked for, tag.)
    guessed: BTreeSet<(u64, bool, u64)>,
    by_claim: Option<Index>,
}

/// The publishes that are known by their claim.
#[derive(Debug, Default)]
struct Index {
    outstanding: BTreeSet<(ReturnKey, u64)>,
    /// Those that were marked by a return that looked like none of them: place and tag.
    guessed: BTreeSet<(u64, u64)>,
    /// Those that were marked by a return that may have been that of a publish known by its header. Their own may still come.
    twins: BTreeSet<(ReturnKey, u64)>,
    /// publishes that were looked at to build it
    looked_at: usize,
    /// publishes that were settled since the last return
    quiet: usize,
}

/// All outstanding publishes that are known by their claim, and how many publishes are looked at to find them.
pub(super) struct Outstanding<T> {
    pub(super) publishes: T,
    pub(super) of: usize,
}

impl Returns {
    /// Adds a publish that was forwarded and may come back.
    #[inline]
    pub(super) fn insert(&mut self, shows: Option<Shows>, tag: u64) {
        match shows {
            None => {}
            Some(Shows::Header { key, asked }) => drop(self.by_header.insert((key, tag), asked)),
            Some(Shows::Claim(key)) => {
                if let Some(index) = &mut self.by_claim {
                    index.outstanding.insert((key, tag));
                }
            }
        }
    }

    /// Removes a publish: its outcome is known, or nobody waits for it any more.
    #[inline]
    pub(super) fn remove(&mut self, shows: Option<Shows>, tag: u64) {
        match shows {
            None => {}
            Some(Shows::Header { key, asked }) => {
                let is_marked = self.by_header.remove(&(key, tag)).is_none();
                if is_marked && !self.guessed.is_empty() {
                    self.guessed.remove(&(key.place, !asked, tag));
                }
            }
            Some(Shows::Claim(key)) => {
                if let Some(index) = &mut self.by_claim
                    && index.is_over_without(key, tag)
                {
                    self.by_claim = None;
                }
            }
        }
    }

    /// Returns true if returns have come lately.
    #[inline]
    pub(super) fn is_busy(&self) -> bool {
        self.by_claim.is_some()
    }

    /// Forgets all.
    pub(super) fn clear(&mut self) {
        *self = Returns::default();
    }

    /// Returns true if a publish looks exactly like this return.
    pub(super) fn holds<T: Iterator<Item = (ReturnKey, u64)>>(
        &mut self,
        shown: &Shown,
        all: impl FnOnce() -> Outstanding<T>,
    ) -> bool {
        self.oldest(shown.by_header).is_some()
            || self.may_be_altered(shown)
            || self.index(all).oldest(&shown.by_claim).is_some()
    }

    /// Handles a return. If a publish looks exactly like it, only that one is marked.
    pub(super) fn recv<T: Iterator<Item = (ReturnKey, u64)>>(
        &mut self,
        shown: &Shown,
        all: impl FnOnce() -> Outstanding<T>,
    ) -> Returned {
        let by_header = self.oldest(shown.by_header);
        let is_ambiguous = self.may_be_altered(shown);
        let index = self.index(all);
        index.quiet = 0;
        if is_ambiguous {
            return self.guess(shown);
        }
        let by_claim = index.oldest(&shown.by_claim);
        if let Some(publish) = by_claim {
            index.outstanding.remove(&publish);
            if by_header.is_some() {
                index.twins.insert(publish);
            }
        } else if by_header.is_none() && index.take_twin(&shown.by_claim) {
            return Returned { exact: true, marked: Vec::new(), alike: Vec::new(), told: Told::Nobody };
        }
        let later = |&(key, tag): &(ReturnKey, u64)| index.outstanding.range((key, tag)..=(key, u64::MAX));
        let mut alike: Vec<u64> =
            by_claim.iter().flat_map(later).map(|(_, tag)| *tag).take(MOST_ALIKE).collect();
        let later = |&(key, tag): &(ReturnKey, u64)| self.by_header.range((key, tag + 1)..=(key, u64::MAX));
        alike.extend(by_header.iter().flat_map(later).map(|((_, tag), _)| *tag).take(MOST_ALIKE));
        let asked = by_header.and_then(|publish| self.by_header.remove(&publish));
        let told = match (by_header, by_claim) {
            (None, None) => return self.guess(shown),
            (Some((_, tag)), _) if asked == Some(true) => Told::Client(Some(tag)),
            _ => Told::Nobody,
        };
        // An exchange that keeps what it returns has kept the message. (Where the client has asked, it hears that the message
        // came back, and may send it again.)
        let kept = shown.kept && told == Told::Nobody;
        if kept {
            return Returned { exact: true, marked: Vec::new(), alike: Vec::new(), told };
        }
        let marked = by_header.into_iter().chain(by_claim).map(|(_, tag)| tag).collect();
        Returned { exact: true, marked, alike, told }
    }

    /// Returns true if a publish whose return does not show all of it may look like this.
    fn may_be_altered(&self, shown: &Shown) -> bool {
        !self.by_header.is_empty() && shown.by_claim.iter().any(|key| self.oldest(*key).is_some())
    }

    /// Handles a return that looks like no publish, or may be of several that are not the same: every one of its place is marked.
    fn guess(&mut self, shown: &Shown) -> Returned {
        let our_place = shown.by_claim.first().map(|key| key.place);
        let places = || std::iter::once(shown.by_header.place).chain(our_place);
        let alike: Vec<_> = places()
            .flat_map(|place| self.by_header.range(all_of(place)))
            .map(|(publish, asked)| (*publish, *asked))
            .collect();
        let asked_for =
            |place| self.guessed.range((place, false, 0)..=(place, false, u64::MAX)).next().is_some();
        let may_be_asked_for = alike.iter().any(|(_, asked)| *asked) || places().any(asked_for);
        if shown.kept && !may_be_asked_for {
            // Whichever it is, it is kept.
            return Returned { exact: false, marked: Vec::new(), alike: Vec::new(), told: Told::Nobody };
        }
        for (publish @ (key, tag), asked) in &alike {
            self.by_header.remove(publish);
            self.guessed.insert((key.place, !asked, *tag));
        }
        let mut marked: Vec<u64> = alike.into_iter().map(|((_, tag), _)| tag).collect();
        // Each of these returns is the return of another publish for the client, as long as there are enough publishes.
        let first = |place| self.guessed.range((place, false, 0)..=(place, true, u64::MAX)).next().copied();
        let guess = places().filter_map(first).min_by_key(|(_, not_asked, tag)| (*not_asked, *tag));
        if let Some(guess) = guess {
            self.guessed.remove(&guess);
        }
        let is_one_of_ours = match (&mut self.by_claim, our_place) {
            (Some(index), Some(place)) => index.guess(place, &mut marked, guess.is_none()),
            // A message without an id is none of those that are known by their claim.
            _ => false,
        };
        let told = match guess {
            Some((_, false, tag)) => Told::Client(Some(tag)),
            Some((_, true, _)) => Told::Nobody,
            None if is_one_of_ours => Told::Nobody,
            None => Told::Client(None),
        };
        Returned { exact: false, marked, alike: Vec::new(), told }
    }

    fn oldest(&self, key: ReturnKey) -> Option<(ReturnKey, u64)> {
        self.by_header.range((key, 0)..=(key, u64::MAX)).next().map(|(publish, _)| *publish)
    }

    fn index<T: Iterator<Item = (ReturnKey, u64)>>(
        &mut self,
        all: impl FnOnce() -> Outstanding<T>,
    ) -> &mut Index {
        self.by_claim.get_or_insert_with(|| {
            let Outstanding { publishes, of } = all();
            Index { outstanding: publishes.collect(), looked_at: of, ..Index::default() }
        })
    }
}

impl Index {
    fn oldest(&self, keys: &[ReturnKey]) -> Option<(ReturnKey, u64)> {
        keys.iter().find_map(|key| self.outstanding.range((*key, 0)..=(*key, u64::MAX)).next().copied())
    }

    /// Takes the oldest publish of these claims that was marked already, if there is one.
    fn take_twin(&mut self, keys: &[ReturnKey]) -> bool {
        let twin = keys.iter().find_map(|key| self.twins.range((*key, 0)..=(*key, u64::MAX)).next().copied());
        twin.is_some_and(|twin| self.twins.remove(&twin))
    }

    /// Marks every publish of this place. Returns true if the return is taken for that of one of them; only with `take`.
    fn guess(&mut self, place: u64, marked: &mut Vec<u64>, take: bool) -> bool {
        let alike: Vec<_> = self.outstanding.range(all_of(place)).copied().collect();
        for publish @ (_, tag) in &alike {
            self.outstanding.remove(publish);
            self.guessed.insert((place, *tag));
        }
        marked.extend(alike.into_iter().map(|(_, tag)| tag));
        let guess = self.guessed.range((place, 0)..=(place, u64::MAX)).next().copied().filter(|_| take);
        guess.is_some_and(|guess| self.guessed.remove(&guess))
    }

    /// Removes a publish. Returns true if the index has been of no use for long enough.
    fn is_over_without(&mut self, key: ReturnKey, tag: u64) -> bool {
        if !self.outstanding.remove(&(key, tag)) {
            self.twins.remove(&(key, tag));
            self.guessed.remove(&(key.place, tag));
        }
        self.quiet += 1;
        self.quiet > self.outstanding.len().max(self.looked_at)
    }
}

/// Everything of one place.
fn all_of(place: u64) -> std::ops::RangeInclusive<(ReturnKey, u64)> {
    (ReturnKey::of_place(place, 0), 0)..=(ReturnKey::of_place(place, u64::MAX), u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn empty() -> Outstanding<std::iter::Empty<(ReturnKey, u64)>> {
        Outstanding { publishes: std::iter::empty(), of: 0 }
    }

    fn all<const N: usize>(
        publishes: [(ReturnKey, u64); N],
    ) -> Outstanding<std::array::IntoIter<(ReturnKey, u64), N>> {
        Outstanding { publishes: publishes.into_iter(), of: N }
    }

    fn key(exchange: &str, header: &str) -> ReturnKey {
        ReturnKey::new(&KeyMaker::new((1, 2)), exchange.as_bytes(), b"k", header.as_bytes())
    }

    fn asked(exchange: &str, header: &str) -> Option<Shows> {
        Some(Shows::Header { key: key(exchange, header), asked: true })
    }

    /// The return of a message without an id.
    fn shown(exchange: &str, header: &str) -> Shown {
        Shown { by_header: key(exchange, header), by_claim: Vec::new(), kept: false }
    }

    fn claim(place: u64, content: u64) -> ReturnKey {
        ReturnKey { place, content }
    }

    /// The return of a message of this claim, with another header.
    fn shown_claim_with(place: u64, content: u64, header: &str) -> Shown {
        Shown { by_claim: vec![claim(place, content)], ..shown("x", header) }
    }

    /// The return of a message of this claim.
    fn shown_claim(place: u64, content: u64) -> Shown {
        Shown { by_claim: vec![claim(place, content)], ..shown("x", "h") }
    }

    #[test]
    fn the_oldest_that_looks_like_it() {
        let mut returns = Returns::default();
        [(asked("x", "h"), 1), (asked("x", "h"), 2), (asked("x", "i"), 3), (asked("y", "h"), 4)]
            .into_iter()
            .for_each(|(shows, tag)| returns.insert(shows, tag));
        returns.remove(asked("x", "h"), 1);
        let returned = returns.recv(&shown("x", "h"), empty);
        assert_eq!(
            returned,
            Returned { exact: true, marked: vec![2], alike: vec![], told: Told::Client(Some(2)) }
        );
    }

    #[test]
    fn what_looks_like_none_marks_all_of_its_place_and_is_told_of_under_one_after_the_other() {
        let mut returns = Returns::default();
        [(asked("x", "h"), 1), (asked("x", "i"), 2), (asked("y", "h"), 3)]
            .into_iter()
            .for_each(|(shows, tag)| returns.insert(shows, tag));
        let mut first = returns.recv(&shown("x", "altered"), empty);
        first.marked.sort_unstable();
        assert_eq!(
            first,
            Returned { exact: false, marked: vec![1, 2], alike: vec![], told: Told::Client(Some(1)) }
        );
        let second = returns.recv(&shown("x", "h"), empty);
        assert_eq!(
            second,
            Returned { exact: false, marked: vec![], alike: vec![], told: Told::Client(Some(2)) }
        );
        assert_eq!(returns.recv(&shown("x", "h"), empty).told, Told::Client(None));
        assert_eq!(returns.recv(&shown("y", "h"), empty).marked, [3]);
        assert!(returns.by_header.is_empty() && returns.guessed.is_empty());
    }

    #[test]
    fn a_claim_is_found_among_those_before_the_first_return_and_after_it() {
        let mut returns = Returns::default();
        returns.insert(Some(Shows::Claim(claim(1, 10))), 1);
        let all = || all([(claim(1, 10), 1), (claim(1, 11), 2), (claim(1, 12), 3)]);
        let ours = |tag| Returned { exact: true, marked: vec![tag], alike: vec![], told: Told::Nobody };
        assert_eq!(returns.recv(&shown_claim(1, 11), all), ours(2));
        returns.insert(Some(Shows::Claim(claim(1, 13))), 4);
        assert_eq!(returns.recv(&shown_claim(1, 13), empty), ours(4));
        // Nothing looks like it any more: all of the place may have come back.
        let mut guess = returns.recv(&shown_claim(1, 13), empty);
        guess.marked.sort_unstable();
        assert_eq!(guess, Returned { exact: false, marked: vec![1, 3], alike: vec![], told: Told::Nobody });
        assert_eq!(returns.recv(&shown_claim(1, 13), empty).told, Told::Nobody, "the second of two");
        assert_eq!(returns.recv(&shown_claim(1, 13), empty).told, Told::Client(None), "it was none of ours");
    }

    #[test]
    fn the_index_goes_when_as_many_were_settled_as_were_looked_at_or_as_it_has() {
        let mut returns = Returns::default();
        // Ten were looked at, of which two are known by their claim.
        returns
            .recv(&shown_claim(1, 0), || Outstanding { of: 10, ..all([(claim(1, 0), 0), (claim(1, 1), 1)]) });
        for n in 2..14 {
            returns.insert(Some(Shows::Claim(claim(1, n))), n);
        }
        let mut settle = |n| {
            returns.remove(Some(Shows::Claim(claim(1, n))), n);
            returns.is_busy()
        };
        assert!((1..11).all(&mut settle), "ten were settled");
        assert!(!settle(11));
    }

    #[test]
    fn the_client_hears_of_a_return_that_may_be_its_own() {
        let mut returns = Returns::default();
        returns.insert(asked("x", "h"), 7);
        let all = || all([(claim(1, 10), 1)]);
        let both = returns.recv(&shown_claim(1, 10), all);
        assert_eq!(
            both,
            Returned { exact: true, marked: vec![7, 1], alike: vec![], told: Told::Client(Some(7)) }
        );
        // If it was the client's, the other one may come back, too: the client has not asked for that.
        let other = returns.recv(&shown_claim_with(1, 10, "other"), empty);
        assert_eq!(other, Returned { exact: true, marked: vec![], alike: vec![], told: Told::Nobody });
    }
}
