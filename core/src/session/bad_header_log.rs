//! Counts the headers that a client sends and Hapax can't understand, and tells the shell of each kind once per connection.

use super::{Output, SessionListener};
use crate::wire::BadHeaders;

/// Remembers which bad headers of one connection the shell was told of.
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::wire::BadHeader;
    use parking_lot::Mutex;
    use std::time::Duration;

    #[derive(Debug, Default)]
    struct Counted(Mutex<Vec<BadHeader>>);

    impl SessionListener for Counted {
        fn unmatched(&self) {}
        fn unverified(&self) {}
        fn returns_everything(&self, _: &[u8], _: &[u8], _: u32) {}
        fn channel_limited(&self, _: Option<&str>) {}
        fn bad_header(&self, header: BadHeader) {
            self.0.lock().push(header);
        }
        fn publish_latency(&self, _: Duration, _: u64) {}
    }

    #[test]
    fn each_is_counted_and_each_kind_is_told_once() {
        let (counted, mut log) = (Counted::default(), BadHeaderLog::default());
        let mut bad = BadHeaders::NONE;
        bad.insert(BadHeader::CacheTtl);
        let both = {
            let mut both = bad;
            both.insert(BadHeader::Death);
            both
        };
        log.count(BadHeaders::NONE, &counted);
        assert_eq!(log.poll(), None);
        log.count(bad, &counted);
        log.count(bad, &counted);
        assert_eq!(log.poll(), Some(Output::BadHeader(BadHeader::CacheTtl)));
        assert_eq!(log.poll(), None);
        log.count(both, &counted);
        assert_eq!(log.poll(), Some(Output::BadHeader(BadHeader::Death)));
        assert_eq!(log.poll(), None);
        let [ttl, death] = [BadHeader::CacheTtl, BadHeader::Death];
        assert_eq!(*counted.0.lock(), [ttl, ttl, ttl, death]);
    }
}
