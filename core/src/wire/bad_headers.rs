//! Headers whose value can't be understood: a client means something by them, and does not get it.

/// A header that Hapax reads.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum BadHeader {
    /// `x-cache-ttl`: the message gets the window's TTL
    CacheTtl,
    /// `x-hapax-bypass`: the message is judged
    Bypass,
    /// `x-death`: the message is forwarded and not judged, because nobody knows which incarnation it is
    Death,
    /// `CC`: the message is forwarded, and the broker refuses it
    Cc,
    /// `BCC`: the same
    Bcc,
    /// `x-hapax-producer`: the message has no id
    Producer,
    /// `x-hapax-sequence`: the same
    Sequence,
    /// `x-hapax-epoch`: the same
    Epoch,
}

impl BadHeader {
    /// Every header.
    pub const ALL: [BadHeader; 8] = [
        BadHeader::CacheTtl,
        BadHeader::Bypass,
        BadHeader::Death,
        BadHeader::Cc,
        BadHeader::Bcc,
        BadHeader::Producer,
        BadHeader::Sequence,
        BadHeader::Epoch,
    ];

    /// Returns the header's name.
    pub fn name(self) -> &'static str {
        match self {
            BadHeader::CacheTtl => "x-cache-ttl",
            BadHeader::Bypass => "x-hapax-bypass",
            BadHeader::Death => "x-death",
            BadHeader::Cc => "CC",
            BadHeader::Bcc => "BCC",
            BadHeader::Producer => "x-hapax-producer",
            BadHeader::Sequence => "x-hapax-sequence",
            BadHeader::Epoch => "x-hapax-epoch",
        }
    }

    fn bit(self) -> u16 {
        match self {
            BadHeader::CacheTtl => 1,
            BadHeader::Bypass => 2,
            BadHeader::Death => 4,
            BadHeader::Cc => 8,
            BadHeader::Bcc => 16,
            BadHeader::Producer => 32,
            BadHeader::Sequence => 64,
            BadHeader::Epoch => 128,
        }
    }
}

/// A set of headers.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
pub struct BadHeaders(u16);

impl BadHeaders {
    /// No header.
    pub const NONE: BadHeaders = BadHeaders(0);

    /// Returns true if there is none.
    #[inline]
    pub fn is_empty(self) -> bool {
        self.0 == 0
    }

    /// Adds a header.
    pub fn insert(&mut self, header: BadHeader) {
        self.0 |= header.bit();
    }

    /// Returns true if it has this header.
    pub fn contains(self, header: BadHeader) -> bool {
        self.0 & header.bit() != 0
    }

    /// Returns the headers that are in either set.
    #[must_use]
    pub fn or(self, other: BadHeaders) -> BadHeaders {
        BadHeaders(self.0 | other.0)
    }

    /// Returns the headers that are in this set and not in the other.
    #[must_use]
    pub fn without(self, other: BadHeaders) -> BadHeaders {
        BadHeaders(self.0 & !other.0)
    }

    /// Returns its headers.
    pub fn iter(self) -> impl Iterator<Item = BadHeader> {
        BadHeader::ALL.into_iter().filter(move |header| self.contains(*header))
    }
}
