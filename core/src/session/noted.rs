//! For which windows the deliveries of each exchange have left marks.
//!
//! A delivery leaves a mark where the windows of that moment look for ids. When the windows are replaced, another one may judge what the
//! consumer publishes again, and look elsewhere. Then nobody can tell a message that is published again from a retry, and each id
//! passes once more: a duplicate is possible, a loss is not.

use super::delivered::{MarkHasher, RouteMark};
use super::finder::Source;
use crate::window::Rules;
use std::collections::HashMap;
use std::hash::BuildHasherDefault;
use std::sync::Arc;

/// The most exchanges that have sources of their own. All others share theirs.
const KEPT: usize = 256;
/// Bytes of one of them: an estimate. Their sources are shared with those that were found.
const ENTRY: usize = 64;

/// The sources of ids that every delivery of an exchange has left its mark for.
#[derive(Debug, Default)]
pub(super) struct Noted {
    exchanges: HashMap<RouteMark, Arc<[Source]>, BuildHasherDefault<MarkHasher>>,
    others: Option<Arc<[Source]>>,
}

impl Noted {
    /// Returns true if nothing was delivered.
    #[inline]
    pub(super) fn is_empty(&self) -> bool {
        self.exchanges.is_empty()
    }

    /// Notes that deliveries of this exchange leave their marks for these sources from now on.
    pub(super) fn add(&mut self, exchange: RouteMark, sources: &Arc<[Source]>) {
        let is_full = self.exchanges.len() >= KEPT && !self.exchanges.contains_key(&exchange);
        let before = if is_full {
            self.others.get_or_insert_with(|| Arc::clone(sources))
        } else {
            self.exchanges.entry(exchange).or_insert_with(|| Arc::clone(sources))
        };
        if before.iter().any(|source| !sources.contains(source)) {
            *before = before.iter().filter(|source| sources.contains(source)).cloned().collect();
        }
    }

    /// Returns true if something of this exchange was delivered that has left no mark for a window with these rules.
    pub(super) fn lacks(&self, exchange: RouteMark, rules: &Rules) -> bool {
        let sources = self.exchanges.get(&exchange).or(self.others.as_ref());
        let is_of_window = |source: &Source| source.id == rules.id && source.rule == rules.republish;
        sources.is_some_and(|sources| !sources.iter().any(is_of_window))
    }

    /// Returns the bytes that it takes, about.
    pub(super) fn memory(&self) -> usize {
        self.exchanges.len() * ENTRY
    }
}
