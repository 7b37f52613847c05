//! The channel numbers of the client that stand for other numbers at the upstream.
//!
//! A channel whose client has closed it may have to stay open at the upstream, because outcomes of its publishes are not known
//! ([`super::channel`]). Its number is free for the client, but not for the upstream. If the client opens the number again,
//! it stands for another one at the upstream from then on. The session knows channels by their numbers at the upstream:
//! frames are renumbered when they are read from the client, and when they are written to it.
//!
//! Two numbers change places each time, so every number of one side stands for exactly one of the other.

use crate::wire::frame::HEADER_LEN;
use crate::wire::{ChannelId, scan};
use bytes::{Bytes, BytesMut};
use std::collections::BTreeMap;

/// Which number of the client stands for which number at the upstream. A number that is not listed stands for itself.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub(super) struct Numbers {
    upstream: BTreeMap<ChannelId, ChannelId>,
    client: BTreeMap<ChannelId, ChannelId>,
}

impl Numbers {
    /// Returns true if every number stands for itself.
    #[inline]
    pub(super) fn is_empty(&self) -> bool {
        self.upstream.is_empty()
    }

    /// Returns the number at the upstream that this number of the client stands for.
    pub(super) fn upstream(&self, client: ChannelId) -> ChannelId {
        self.upstream.get(&client).copied().unwrap_or(client)
    }

    /// Returns the number of the client that stands for this number at the upstream.
    pub(super) fn client(&self, upstream: ChannelId) -> ChannelId {
        self.client.get(&upstream).copied().unwrap_or(upstream)
    }

    /// Lets the two numbers at the upstream change places.
    pub(super) fn swap(&mut self, one: ChannelId, other: ChannelId) {
        let (of_one, of_other) = (self.client(one), self.client(other));
        self.set(of_one, other);
        self.set(of_other, one);
    }

    fn set(&mut self, client: ChannelId, upstream: ChannelId) {
        if client == upstream {
            self.upstream.remove(&client);
            self.client.remove(&upstream);
        } else {
            self.upstream.insert(client, upstream);
            self.client.insert(upstream, client);
        }
    }

    /// Returns frames of the session with the client's numbers. Copies them if a number is another one.
    pub(super) fn to_client(&self, frames: Bytes) -> Bytes {
        if self.is_empty() {
            return frames;
        }
        let mut changed = BytesMut::from(&frames[..]);
        each_number(&mut changed, |id| self.client(id));
        changed.freeze()
    }

    /// Gives whole frames of the client the upstream's numbers, in place.
    pub(super) fn as_upstream(&self, frames: &mut [u8]) {
        each_number(frames, |id| self.upstream(id));
    }
}

/// Replaces the channel number of each whole frame.
pub(super) fn each_number(frames: &mut [u8], number: impl Fn(ChannelId) -> ChannelId) {
    let mut start = 0;
    while let Some(rest) = frames.get_mut(start..)
        && let Ok(Some(frame)) = scan(rest, usize::MAX)
    {
        let (id, length) = (frame.channel, frame.wire_len());
        if let Some(place) = rest.get_mut(..HEADER_LEN).and_then(|header| header.get_mut(1..3)) {
            place.copy_from_slice(&number(id).0.to_be_bytes());
        }
        start += length;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn frame(channel: u16) -> Vec<u8> {
        let [high, low] = channel.to_be_bytes();
        vec![3, high, low, 0, 0, 0, 2, 7, 7, 0xce]
    }

    #[test]
    fn numbers_change_places_and_come_back() {
        let mut numbers = Numbers::default();
        let id = ChannelId;
        numbers.swap(id(1), id(9));
        assert_eq!((numbers.upstream(id(1)), numbers.upstream(id(9))), (id(9), id(1)));
        numbers.swap(id(9), id(8));
        assert_eq!([1, 8, 9].map(|n| numbers.upstream(id(n)).0), [8, 9, 1]);
        assert_eq!([1, 8, 9].map(|n| numbers.client(id(n)).0), [9, 1, 8]);
        let mut frames = [frame(1), frame(2), frame(8)].concat();
        numbers.as_upstream(&mut frames);
        assert_eq!(frames, [frame(8), frame(2), frame(9)].concat());
        let back = numbers.to_client(Bytes::from(frames));
        assert_eq!(back, [frame(1), frame(2), frame(8)].concat());
        numbers.swap(id(8), id(1));
        numbers.swap(id(8), id(9));
        assert!(numbers.is_empty());
    }
}
