//! Headers that a client sends and Hapax can't understand: each is counted, and each kind is told once per connection.

use super::{Output, SessionListener};
use crate::wire::BadHeaders;

/// What one connection has told of its bad headers.
#[derive(Debug, Default)]
pub(super) struct BadHeaderLog {
    told: BadHeaders,
    to_tell: BadHeaders,
}

impl BadHeaderLog {
    /// Counts the bad headers of a publish.
    #[inline]
    pub(super) fn count(&mut self, bad: BadHeaders, listener: &dyn SessionListener) {
        if !bad.is_empty() {
            bad.iter().for_each(|header| listener.bad_header(header));
            self.to_tell = self.to_tell.or(bad.without(self.told));
        }
    }

    /// Takes a header that is bad for the first time.
    #[inline]
    pub(super) fn poll(&mut self) -> Option<Output> {
        let header = if self.to_tell.is_empty() { return None } else { self.to_tell.iter().next()? };
        self.told.insert(header);
        self.to_tell = self.to_tell.without(self.told);
        Some(Output::BadHeader(header))
    }
}
