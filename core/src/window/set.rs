//! The list of (vhost, exchange) patterns that says which window judges a publish. The first match wins.
//!
//! Names are compared as bytes: a vhost or exchange that is not UTF-8 matches `*`, and nothing is lost or replaced on
//! the way. `*` crosses `/` and matches the empty name of the default exchange.

use super::live::{Changes, Presence};
use super::{LocalWindow, Release, Window};
use globset::{Candidate, GlobBuilder, GlobMatcher};
use std::fmt::{self, Debug};
use std::sync::Arc;

/// A glob over names. Plain names and `*`, which nearly all patterns are, are compared without a regex.
#[derive(Clone)]
pub struct Pattern {
    text: Box<str>,
    kind: Kind,
}

#[derive(Clone)]
enum Kind {
    Everything,
    Literal,
    Glob(Box<GlobMatcher>),
}

impl Pattern {
    /// `*` any text, `?` one character, `[a-z]` one of a set, `{a,b}` either; a backslash takes the next one as it is.
    pub fn new(text: &str) -> Result<Pattern, globset::Error> {
        let kind = match text {
            "*" => Kind::Everything,
            _ if !text.contains(['*', '?', '[', ']', '{', '}', '\\']) => Kind::Literal,
            _ => {
                let glob = GlobBuilder::new(text).literal_separator(false).backslash_escape(true).build()?;
                Kind::Glob(Box::new(glob.compile_matcher()))
            }
        };
        Ok(Pattern { text: text.into(), kind })
    }

    /// `*`.
    pub fn everything() -> Pattern {
        Pattern { text: "*".into(), kind: Kind::Everything }
    }

    /// Returns true if this name fits.
    pub fn matches(&self, name: &[u8]) -> bool {
        match &self.kind {
            Kind::Everything => true,
            Kind::Literal => self.text.as_bytes() == name,
            Kind::Glob(glob) => glob.is_match_candidate(&Candidate::from_bytes(name)),
        }
    }

    /// Returns true if every name that fits `other` surely fits this pattern, too. Returns false where that is not easy to see.
    pub fn covers(&self, other: &Pattern) -> bool {
        match (&self.kind, &other.kind) {
            (Kind::Everything, _) => true,
            (_, Kind::Literal) => self.matches(other.text.as_bytes()),
            _ => self.text == other.text,
        }
    }

    /// Returns true if exactly one name fits: [`Pattern::as_str`].
    pub fn is_literal(&self) -> bool {
        matches!(self.kind, Kind::Literal)
    }

    /// Returns the pattern as it was written.
    pub fn as_str(&self) -> &str {
        &self.text
    }
}

impl PartialEq for Pattern {
    fn eq(&self, other: &Pattern) -> bool {
        self.text == other.text
    }
}

impl Eq for Pattern {}

impl fmt::Debug for Pattern {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.text.fmt(f)
    }
}

/// Finds the window of a publish: first match wins; `None` is unmatched.
pub trait Windows: Send + Sync + Debug {
    /// The window for publishes to this exchange of this vhost.
    fn find(&self, vhost: &[u8], exchange: &[u8]) -> Option<Arc<dyn Window>>;
    /// The windows that judge publishes which end up in this exchange of this vhost: its own, and those that forward there.
    fn delivering(&self, vhost: &[u8], exchange: &[u8]) -> Vec<Arc<dyn Window>> {
        self.find(vhost, exchange).into_iter().collect()
    }
    /// All windows that judge publishes to this exchange, or may have judged publishes whose outcome is not known. Empty if the windows
    /// have never changed.
    fn once(&self, _vhost: &[u8], _exchange: &[u8]) -> Vec<Arc<dyn Window>> {
        Vec::new()
    }
    /// Returns the guard of this queue: the window of the ids that its consumers have acked.
    fn guard(&self, _vhost: &[u8], _queue: &[u8]) -> Option<Arc<dyn Window>> {
        None
    }
    /// Returns true if a queue of this vhost may have a guard.
    fn has_guards(&self, _vhost: &[u8]) -> bool {
        false
    }
    /// Returns true if a window of this vhost forgets what was consumed ([`Release::Consumed`](super::Release)).
    fn releases(&self, _vhost: &[u8]) -> bool {
        false
    }
    /// A number that is another one when other windows may be responsible than before.
    fn generation(&self) -> u64 {
        0
    }
    /// Notes that a session begins. It holds what this returns until it ends.
    fn enter(&self) -> Option<Presence> {
        None
    }
    /// The counter that moves after each change of the generation.
    fn changes(&self) -> Changes {
        Changes::default()
    }
}

/// The windows of a process, in the order of the configuration. Windows whose mode is `off` are found, too: the
/// session looks at the mode, because it can change.
#[derive(Debug)]
pub struct WindowSet<W: ?Sized = LocalWindow> {
    routes: Routes<Arc<W>>,
    /// by the patterns of vhost and queue
    guards: Routes<Arc<W>>,
}

impl<W: ?Sized> Default for WindowSet<W> {
    fn default() -> WindowSet<W> {
        WindowSet { routes: Routes(Vec::new()), guards: Routes(Vec::new()) }
    }
}

impl<W: ?Sized> WindowSet<W> {
    /// No window: every publish is unmatched.
    pub fn new() -> WindowSet<W> {
        WindowSet::default()
    }

    /// Adds a window behind those that are there.
    pub fn push(&mut self, vhost: Pattern, exchange: Pattern, window: Arc<W>) {
        self.routes.push(vhost, exchange, window);
    }

    /// Adds a guard of queues behind those that are there.
    pub fn push_guard(&mut self, vhost: Pattern, queue: Pattern, guard: Arc<W>) {
        self.guards.push(vhost, queue, guard);
    }

    /// All places with their windows, in order.
    pub(super) fn places(&self) -> impl Iterator<Item = &(Pattern, Pattern, Arc<W>)> {
        self.routes.0.iter()
    }

    /// All windows, in order.
    pub fn iter(&self) -> impl Iterator<Item = &Arc<W>> {
        self.routes.0.iter().map(|(_, _, window)| window)
    }
}

impl<W: Window + ?Sized + 'static> Windows for WindowSet<W> {
    fn find(&self, vhost: &[u8], exchange: &[u8]) -> Option<Arc<dyn Window>> {
        self.routes.find(vhost, exchange).map(|window| Arc::clone(window).handle())
    }

    fn guard(&self, vhost: &[u8], queue: &[u8]) -> Option<Arc<dyn Window>> {
        self.guards.find(vhost, queue).map(|guard| Arc::clone(guard).handle())
    }

    fn releases(&self, vhost: &[u8]) -> bool {
        let releases = |window: &W| window.rules().release == Release::Consumed;
        self.routes.0.iter().any(|(pattern, _, window)| pattern.matches(vhost) && releases(window))
    }

    fn has_guards(&self, vhost: &[u8]) -> bool {
        self.guards.0.iter().any(|(pattern, ..)| pattern.matches(vhost))
    }

    fn delivering(&self, vhost: &[u8], exchange: &[u8]) -> Vec<Arc<dyn Window>> {
        let forwards_there = |window: &W| {
            window.rules().forward_to.as_deref().is_some_and(|target| target.as_bytes() == exchange)
        };
        let forwarding =
            self.routes.0.iter().filter(|(v, _, window)| v.matches(vhost) && forwards_there(window));
        let own = self.routes.find(vhost, exchange).into_iter();
        own.chain(forwarding.map(|(_, _, window)| window)).map(|window| Arc::clone(window).handle()).collect()
    }
}

/// An ordered list of patterns and what they lead to.
#[derive(Debug)]
struct Routes<T>(Vec<(Pattern, Pattern, T)>);

impl<T> Routes<T> {
    fn push(&mut self, vhost: Pattern, exchange: Pattern, to: T) {
        self.0.push((vhost, exchange, to));
    }

    fn find(&self, vhost: &[u8], exchange: &[u8]) -> Option<&T> {
        let fits = |(v, e, _): &&(Pattern, Pattern, T)| v.matches(vhost) && e.matches(exchange);
        self.0.iter().find(fits).map(|(_, _, to)| to)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pattern(text: &str) -> Pattern {
        Pattern::new(text).expect(text)
    }

    #[test]
    fn patterns_match_bytes() {
        type Names = &'static [&'static [u8]];
        let table: &[(&str, Names, Names)] = &[
            ("*", &[b"", b"/", b"orders", b"a/b", b"..", b"\xff\xfe", b"a\nb"], &[]),
            ("**", &[b"", b"/", b"a/b", b"\xff"], &[]),
            ("/", &[b"/"], &[b"", b"//", b"a"]),
            ("", &[b""], &[b"/", b"a"]),
            ("orders", &[b"orders"], &[b"Orders", b"orders ", b"", b"x/orders"]),
            ("orders.*", &[b"orders.", b"orders.eu/x", b"orders.\xff"], &[b"orders", b"xorders.y"]),
            ("*.dlx", &[b".dlx", b"a/b.dlx", b"..dlx"], &[b"dlx", b".dlx2"]),
            ("a?c", &[b"abc", b"a/c"], &[b"ac", b"abbc"]),
            ("{a,b}[0-9]", &[b"a1", b"b0"], &[b"c1", b"ab"]),
            (r"a\*", &[b"a*"], &[b"ab", b"a"]),
            ("amq.*", &[b"amq.topic", b"amq."], &[b"amq"]),
        ];
        for (text, fits, fails) in table {
            for name in *fits {
                assert!(
                    pattern(text).matches(name),
                    "{text:?} must match {:?}",
                    name.escape_ascii().to_string()
                );
            }
            for name in *fails {
                assert!(
                    !pattern(text).matches(name),
                    "{text:?} matches {:?}",
                    name.escape_ascii().to_string()
                );
            }
        }
        assert!(Pattern::new("a[").is_err());
        assert!(Pattern::new("{a").is_err());
    }

    #[test]
    fn first_match_wins() {
        let mut routes = Routes(Vec::new());
        routes.push(pattern("/"), pattern("orders"), 1);
        routes.push(pattern("/"), pattern("orders*"), 2);
        routes.push(pattern("test-*"), pattern("*"), 3);
        assert_eq!(routes.find(b"/", b"orders"), Some(&1));
        assert_eq!(routes.find(b"/", b"orders-eu"), Some(&2));
        assert_eq!(routes.find(b"test-1", b""), Some(&3));
        assert_eq!(routes.find(b"/", b""), None);
        assert_eq!(routes.find(b"other", b"orders"), None);
    }

    #[test]
    fn covers_is_never_wrong() {
        assert!(pattern("*").covers(&pattern("a*")));
        assert!(pattern("a*").covers(&pattern("abc")));
        assert!(pattern("a*").covers(&pattern("a*")));
        assert!(!pattern("a*").covers(&pattern("*")));
        assert!(!pattern("abc").covers(&pattern("a*")));
        assert!(!pattern("abc").covers(&pattern("abd")));
    }
}
