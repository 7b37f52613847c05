//! The walk over a content header: past the 14 property flags to the id, the nested tables skipped, not decoded.
//!
//! ```text
//! class 2 | weight 2 | body size 8 | flags 2 [| flags 2 …] | the properties whose flags are set, in order
//! ```
//!
//! Two readers see the same header, Hapax and then the broker, so wherever AMQP leaves a choice RabbitMQ's is taken:
//!
//! * A header's name that comes twice: the first one counts (`rabbit_misc:table_lookup`). Clients that decode into a map
//!   see the last one, but it is the broker that routes.
//! * Field types are RabbitMQ's: `L` is signed like `l`, `s` is an integer of two octets. `U`, the specification's letter
//!   for the latter, is taken too: for the broker to refuse.
//! * Octets left over after the last property are an error; weight and flag 1 are not looked at.
//!
//! Flag 0 says that another word of flags follows. The `basic` class needs one word only; RabbitMQ does not know
//! continuation words and takes the second for a property. Here they are skipped, as the specification has it, and what
//! their properties hold (after ours) is not read.

use super::WireError;
use super::reader::Reader;

/// The one class of AMQP 0-9-1 that has content.
const BASIC: u16 = 60;
/// The header that overrides the TTL of one message.
const CACHE_TTL: &[u8] = b"x-cache-ttl";
/// The header that skips judgement.
const BYPASS: &[u8] = b"x-hapax-bypass";

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

/// As the configuration writes it.
impl std::fmt::Display for IdSource {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            IdSource::MessageId => f.write_str("message-id"),
            IdSource::CorrelationId => f.write_str("correlation-id"),
            IdSource::Header(name) => write!(f, "header:{name}"),
            IdSource::Body => f.write_str("body"),
        }
    }
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
    ///
    /// Of a class other than `basic` nothing is known but class and body size: the rest is not looked at.
    pub fn parse(payload: &'a [u8], source: &IdSource) -> Result<ContentHeader<'a>, WireError> {
        let mut reader = Reader::new(payload);
        let (class, body_size) = preamble(&mut reader)?;
        let mut header =
            ContentHeader { class, body_size, id: None, message_id: None, cache_ttl_ms: None, bypass: false };
        if class != BASIC {
            return Ok(header);
        }
        let flags = Flags::read(&mut reader)?;

        flags.shortstr(15, &mut reader, "content-type")?;
        flags.shortstr(14, &mut reader, "content-encoding")?;
        let wanted = match source {
            IdSource::Header(name) => Some(name.as_bytes()),
            IdSource::MessageId | IdSource::CorrelationId | IdSource::Body => None,
        };
        let found = match flags.has(13) {
            true => Found::walk(reader.longstr("headers")?, wanted)?,
            false => Found::default(),
        };
        flags.skip(12, 1, &mut reader, "delivery-mode")?;
        flags.skip(11, 1, &mut reader, "priority")?;
        let correlation_id = flags.shortstr(10, &mut reader, "correlation-id")?;
        flags.shortstr(9, &mut reader, "reply-to")?;
        flags.shortstr(8, &mut reader, "expiration")?;
        header.message_id = flags.shortstr(7, &mut reader, "message-id")?;
        flags.skip(6, 8, &mut reader, "timestamp")?;
        flags.shortstr(5, &mut reader, "type")?;
        flags.shortstr(4, &mut reader, "user-id")?;
        flags.shortstr(3, &mut reader, "app-id")?;
        flags.shortstr(2, &mut reader, "cluster-id")?;
        if !flags.continued {
            reader.end("octets left over after the properties")?;
        }

        let id = match source {
            IdSource::MessageId => header.message_id.map(IdValue::Bytes),
            IdSource::CorrelationId => correlation_id.map(IdValue::Bytes),
            IdSource::Header(_) => found.wanted.map(Field::value),
            IdSource::Body => None,
        };
        header.id = id.filter(|id| !id.is_empty());
        header.cache_ttl_ms = found.cache_ttl.and_then(Field::milliseconds);
        header.bypass = found.bypass.is_some_and(Field::is_true);
        Ok(header)
    }

    /// Class and body size alone, for content that nobody judges. Reads 12 octets.
    pub fn size_of(payload: &[u8]) -> Result<(u16, u64), WireError> {
        preamble(&mut Reader::new(payload))
    }
}

/// Class and body size; the weight between them is always 0 and never used.
#[inline]
fn preamble(reader: &mut Reader<'_>) -> Result<(u16, u64), WireError> {
    let class = reader.short("content header: class")?;
    reader.short("content header: weight")?;
    Ok((class, reader.longlong("content header: body size")?))
}

/// The first word of property flags, from bit 15 (content-type) down to bit 2 (cluster-id).
#[derive(Clone, Copy)]
struct Flags {
    word: u16,
    /// Continuation words followed: properties that nobody has defined may follow ours.
    continued: bool,
}

impl Flags {
    #[inline]
    fn read(reader: &mut Reader<'_>) -> Result<Flags, WireError> {
        let word = reader.short("property flags")?;
        let mut last = word;
        while last & 1 != 0 {
            last = reader.short("property flags: continuation")?;
        }
        Ok(Flags { word, continued: word & 1 != 0 })
    }

    #[inline]
    fn has(self, bit: u32) -> bool {
        self.word >> bit & 1 != 0
    }

    #[inline]
    fn shortstr<'a>(
        self,
        bit: u32,
        reader: &mut Reader<'a>,
        what: &'static str,
    ) -> Result<Option<&'a [u8]>, WireError> {
        if self.has(bit) { reader.shortstr(what).map(Some) } else { Ok(None) }
    }

    #[inline]
    fn skip(
        self,
        bit: u32,
        len: usize,
        reader: &mut Reader<'_>,
        what: &'static str,
    ) -> Result<(), WireError> {
        if self.has(bit) { reader.take(len, what).map(drop) } else { Ok(()) }
    }
}

/// The entries of the headers table that matter, each the first of its name.
#[derive(Clone, Copy, Default)]
struct Found<'a> {
    wanted: Option<Field<'a>>,
    cache_ttl: Option<Field<'a>>,
    bypass: Option<Field<'a>>,
}

impl<'a> Found<'a> {
    /// To the table's end, even when all is found: a table that is cut short is the broker's to refuse, and must not
    /// be judged before.
    fn walk(table: &'a [u8], wanted: Option<&[u8]>) -> Result<Found<'a>, WireError> {
        let mut found = Found::default();
        let mut reader = Reader::new(table);
        while !reader.is_empty() {
            let name = reader.shortstr("name of a header")?;
            let field = Field::read(&mut reader)?;
            // Not one `match`: the id may well be asked for in one of our own two headers.
            if wanted == Some(name) {
                found.wanted.get_or_insert(field);
            }
            if name == CACHE_TTL {
                found.cache_ttl.get_or_insert(field);
            }
            if name == BYPASS {
                found.bypass.get_or_insert(field);
            }
        }
        Ok(found)
    }
}

/// A value of a headers table: its type's letter, and its octets without the length that may stand before them.
#[derive(Clone, Copy)]
struct Field<'a> {
    tag: u8,
    raw: &'a [u8],
}

impl<'a> Field<'a> {
    /// Tables and arrays are passed over by their length, so nothing here recurses.
    #[inline]
    fn read(reader: &mut Reader<'a>) -> Result<Field<'a>, WireError> {
        let tag = reader.octet("type of a header")?;
        let raw = match tag {
            b'S' | b'x' | b'F' | b'A' => reader.longstr("long value of a header")?,
            b'V' => &[],
            b't' | b'b' | b'B' => reader.take(1, "value of a header")?,
            b's' | b'u' | b'U' => reader.take(2, "value of a header")?,
            b'I' | b'i' | b'f' => reader.take(4, "value of a header")?,
            b'D' => reader.take(5, "value of a header")?,
            b'l' | b'L' | b'd' | b'T' => reader.take(8, "value of a header")?,
            _ => return Err(WireError::Malformed("unknown type of a header")),
        };
        Ok(Field { tag, raw })
    }

    fn value(self) -> IdValue<'a> {
        match self.tag {
            b'S' | b'x' => IdValue::Bytes(self.raw),
            b'b' | b's' | b'U' | b'I' | b'l' | b'L' => IdValue::Integer(signed(self.raw)),
            b'B' | b'u' | b'i' | b'T' => IdValue::Integer(unsigned(self.raw)),
            tag => IdValue::Other(tag, self.raw),
        }
    }

    /// A point in time is an integer to compare, but not a span.
    fn milliseconds(self) -> Option<u64> {
        match self.value() {
            IdValue::Integer(value) if self.tag != b'T' => u64::try_from(value).ok(),
            _ => None,
        }
    }

    fn is_true(self) -> bool {
        self.tag == b't' && self.raw.iter().any(|&octet| octet != 0)
    }
}

/// Eight octets at most: the callers' types are no longer.
fn unsigned(raw: &[u8]) -> i128 {
    raw.iter().fold(0, |value, &octet| value << 8 | i128::from(octet))
}

fn signed(raw: &[u8]) -> i128 {
    let negative = raw.first().is_some_and(|&first| first & 0x80 != 0);
    unsigned(raw) - if negative { 1 << (8 * raw.len()) } else { 0 }
}
