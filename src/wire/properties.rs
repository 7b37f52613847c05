//! The walk over a content header: past the 14 property flags to the id, the nested tables skipped, not decoded.

use super::WireError;

/// Where a window takes its id from. `body` is the session's business: the header only says how long it is.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum IdSource {
    /// the `message-id` property
    MessageId,
    /// the `correlation-id` property
    CorrelationId,
    /// an entry of the `headers` table, by its name
    Header(Box<str>),
    /// the message body's bytes
    Body,
}

/// The value of an id as it stood on the wire. Two ids are the same when this is the same.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum IdValue<'a> {
    /// a short string, long string or byte array
    Bytes(&'a [u8]),
    /// any of the integer types (and timestamp), as a number
    Integer(i128),
    /// any other type: its tag and its bytes as they stand
    Other(u8, &'a [u8]),
}

impl IdValue<'_> {
    /// An empty string is no id; nor is the void value.
    pub fn is_empty(&self) -> bool {
        match self {
            IdValue::Bytes(bytes) => bytes.is_empty(),
            IdValue::Integer(_) => false,
            IdValue::Other(tag, _) => *tag == b'V',
        }
    }
}

/// What Hapax wants to know of a content header, found in one walk without an allocation.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct ContentHeader<'a> {
    /// the class, 60 for basic
    pub class: u16,
    /// the length of the body that follows
    pub body_size: u64,
    /// the id, where the source asked for is a property or header that is present and not empty
    pub id: Option<IdValue<'a>>,
    /// the `message-id` property as it stands (returns are matched by it, whatever the id source)
    pub message_id: Option<&'a [u8]>,
    /// the `x-cache-ttl` header in milliseconds, where it is an integer of any type and not negative
    pub cache_ttl_ms: Option<u64>,
    /// `x-hapax-bypass: true`
    pub bypass: bool,
}

impl<'a> ContentHeader<'a> {
    /// Walks a content header's payload: class, weight, body size, flags (with continuation words), then
    /// content-type, content-encoding, headers, delivery-mode, priority, correlation-id, reply-to, expiration,
    /// message-id, timestamp, type, user-id, app-id, cluster-id.
    pub fn parse(payload: &'a [u8], source: &IdSource) -> Result<ContentHeader<'a>, WireError> {
        let _ = (payload, source);
        todo!()
    }

    /// Class and body size alone, for content that nobody judges. Reads 12 octets.
    pub fn size_of(payload: &[u8]) -> Result<(u16, u64), WireError> {
        let _ = payload;
        todo!()
    }
}
