//! Reads a content header: finds the id behind the 14 property flags. Nested tables are skipped and not decoded.
//!
//! ```text
//! class 2 | weight 2 | body size 8 | flags 2 [| flags 2 …] | the properties whose flags are set, in order
//! ```
//!
//! Both Hapax and the broker read the same header. Wherever AMQP leaves a choice, Hapax therefore does what RabbitMQ
//! does:
//!
//! * If a header's name occurs twice, the first one counts (`rabbit_misc:table_lookup`). Clients that decode into a
//!   map see the last one, but the broker is the one that routes.
//! * Field types are RabbitMQ's: `L` is signed like `l`, and `s` is an integer of two octets. The specification's
//!   letter for such an integer is `U`. Hapax accepts it, too, and the broker refuses it.
//! * Octets left over after the last property are an error. Weight and flag 1 are ignored.
//!
//! Flag 0 says that another word of flags follows. The `basic` class needs only one word. RabbitMQ does not know more
//! words and reads the second one as a property. Hapax skips them as the specification says, and does not read their
//! properties, which come after ours.

use super::WireError;
use super::bad_headers::{BadHeader, BadHeaders};
use super::death::{self, Death};
use super::extra_keys;
use super::field::Field;
use super::forms::{self, Form};
use super::reader::Reader;
use super::sequence::{self, Sequence};

/// The one class of AMQP 0-9-1 that has content.
pub const BASIC: u16 = 60;
/// The header that overrides the TTL of one message.
const CACHE_TTL: &[u8] = b"x-cache-ttl";
/// The header that exempts one message from deduplication.
const BYPASS: &[u8] = b"x-hapax-bypass";
/// The headers of a number: whose it is, the number, and the count of the producer's starts.
pub(super) const PRODUCER: &[u8] = b"x-hapax-producer";
pub(super) const SEQUENCE: &[u8] = b"x-hapax-sequence";
pub(super) const EPOCH: &[u8] = b"x-hapax-epoch";
/// The header of a message that was dead-lettered.
const DEATH: &[u8] = b"x-death";
/// The header that RabbitMQ adds to each delivery from a stream.
const STREAM_OFFSET: &[u8] = b"x-stream-offset";
/// More routing keys, which consumers see.
const CC: &[u8] = b"CC";
/// More routing keys, which consumers do not see.
const BCC: &[u8] = b"BCC";
/// A bit for each length that one of these names has.
const LENGTHS: u32 =
    1 << CACHE_TTL.len() | 1 << BYPASS.len() | 1 << DEATH.len() | 1 << CC.len() | 1 << BCC.len();
/// The most parts that an id may have.
pub const PARTS_MAX: usize = 8;

/// Where a window takes its id from. The session handles `body`, because the header only says how long the body is.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum IdSource {
    /// the `message-id` property
    MessageId,
    /// the `correlation-id` property
    CorrelationId,
    /// an entry of the `headers` table, by its name
    Header(Box<str>),
    /// the bytes of the message body
    Body,
    /// a producer and its number, in headers of Hapax's own. A publish without one of the two has no id
    Sequence,
    /// several parts together. Without the first one there is no id; any other may be absent
    Parts(Box<[IdPart]>),
}

/// A part of an id.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum IdPart {
    /// the `message-id` property
    MessageId,
    /// the `correlation-id` property
    CorrelationId,
    /// an entry of the `headers` table, by its name
    Header(Box<str>),
}

impl From<IdPart> for IdSource {
    fn from(part: IdPart) -> IdSource {
        match part {
            IdPart::MessageId => IdSource::MessageId,
            IdPart::CorrelationId => IdSource::CorrelationId,
            IdPart::Header(name) => IdSource::Header(name),
        }
    }
}

impl IdSource {
    /// Returns the header that the id, or its first part, is in.
    fn first_header(&self) -> Option<&[u8]> {
        match self {
            IdSource::Header(name) => Some(name.as_bytes()),
            IdSource::Parts(parts) => match parts.first() {
                Some(IdPart::Header(name)) => Some(name.as_bytes()),
                Some(IdPart::MessageId | IdPart::CorrelationId) | None => None,
            },
            IdSource::Sequence => Some(SEQUENCE),
            IdSource::MessageId | IdSource::CorrelationId | IdSource::Body => None,
        }
    }
}

/// Writes the source as the configuration does.
impl std::fmt::Display for IdSource {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            IdSource::MessageId => f.write_str("message-id"),
            IdSource::CorrelationId => f.write_str("correlation-id"),
            IdSource::Header(name) => write!(f, "header:{name}"),
            IdSource::Body => f.write_str("body"),
            IdSource::Sequence => f.write_str("sequence"),
            IdSource::Parts(parts) => {
                for (n, part) in parts.iter().enumerate() {
                    let comma = if n > 0 { ", " } else { "" };
                    write!(f, "{comma}{part}")?;
                }
                Ok(())
            }
        }
    }
}

/// Writes the part as the configuration does.
impl std::fmt::Display for IdPart {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            IdPart::MessageId => f.write_str("message-id"),
            IdPart::CorrelationId => f.write_str("correlation-id"),
            IdPart::Header(name) => write!(f, "header:{name}"),
        }
    }
}

/// The value of an id as it was on the wire. Two ids are the same if these values are equal.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum IdValue<'a> {
    /// a short string, long string or byte array
    Bytes(&'a [u8]),
    /// an integer of any type, or a timestamp
    Integer(i128),
    /// a value of any other type: its tag and its bytes
    Other(u8, &'a [u8]),
}

/// Calls `sink` with everything that makes an id of several parts, an absent part included.
pub(crate) fn feed_parts<'a>(
    parts: impl ExactSizeIterator<Item = Option<IdValue<'a>>>,
    sink: &mut impl FnMut(u8, &[u8]),
) {
    sink(b'p', &(parts.len() as u64).to_le_bytes());
    for part in parts {
        match part {
            Some(part) => part.feed(sink),
            None => sink(b'-', &[]),
        }
    }
}

impl IdValue<'_> {
    /// Calls `sink` with what makes the value: a letter for its kind, and its bytes. Two values are the same if these are equal.
    #[inline]
    pub fn feed(&self, sink: &mut impl FnMut(u8, &[u8])) {
        match *self {
            IdValue::Bytes(bytes) => sink(b'b', bytes),
            IdValue::Integer(number) => sink(b'i', &number.to_le_bytes()),
            // The types' letters have the highest bit clear.
            IdValue::Other(tag, bytes) => sink(tag | 0x80, bytes),
        }
    }

    /// Returns true for an empty string and for the void value. Both count as "no id".
    pub fn is_empty(&self) -> bool {
        match self {
            IdValue::Bytes(bytes) => bytes.is_empty(),
            IdValue::Integer(_) => false,
            IdValue::Other(tag, _) => *tag == b'V',
        }
    }
}

/// The parts of a content header that Hapax needs. They are found in one pass without an allocation.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct ContentHeader<'a> {
    /// the class, 60 for basic
    pub class: u16,
    /// the length of the body that follows
    pub body_size: u64,
    /// the id, or its first part, if the id source is a property or header that is present and not empty
    pub id: Option<IdValue<'a>>,
    /// the `message-id` property, whatever the id source is; a `basic.return` is matched to its publish by it
    pub message_id: Option<&'a [u8]>,
    /// the `x-cache-ttl` header in milliseconds
    pub cache_ttl_ms: Option<u64>,
    /// the `x-hapax-bypass` header is true
    pub bypass: bool,
    /// which of these two headers can't be understood, and count as absent
    pub bad: BadHeaders,
    /// `x-death`, `CC` or `BCC` is there
    special: bool,
    /// `BCC` counts as absent
    hides_bcc: bool,
    correlation_id: Option<&'a [u8]>,
    /// the octets of the headers table
    table: &'a [u8],
}

impl<'a> ContentHeader<'a> {
    /// Reads the payload of a content header: class, weight, body size, flags (with continuation words), then
    /// content-type, content-encoding, headers, delivery-mode, priority, correlation-id, reply-to, expiration,
    /// message-id, timestamp, type, user-id, app-id, cluster-id.
    ///
    /// For a class other than `basic`, reads only class and body size.
    pub fn parse(payload: &'a [u8], source: &IdSource) -> Result<ContentHeader<'a>, WireError> {
        let mut reader = Reader::new(payload);
        let (class, body_size) = preamble(&mut reader)?;
        let mut header = ContentHeader::empty(class, body_size);
        if class != BASIC {
            return Ok(header);
        }
        let flags = Flags::read(&mut reader)?;

        flags.shortstr(15, &mut reader, "content-type")?;
        flags.shortstr(14, &mut reader, "content-encoding")?;
        if flags.has(13) {
            header.table = reader.longstr("headers")?;
        }
        let found = WantedHeaders::walk(header.table, source.first_header())?;
        flags.skip(12, 1, &mut reader, "delivery-mode")?;
        flags.skip(11, 1, &mut reader, "priority")?;
        header.correlation_id = flags.shortstr(10, &mut reader, "correlation-id")?;
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
            IdSource::CorrelationId => header.correlation_id.map(IdValue::Bytes),
            IdSource::Header(_) | IdSource::Sequence => found.wanted.map(Field::value),
            IdSource::Parts(parts) => parts.first().and_then(|first| header.part(first)),
            IdSource::Body => None,
        };
        header.id = id.filter(|id| !id.is_empty());
        header.special = found.special;
        if let Some(field) = found.cache_ttl {
            match forms::milliseconds(field) {
                Form::Known(ttl) => header.cache_ttl_ms = Some(ttl),
                Form::Absent => {}
                Form::Bad => header.bad.insert(BadHeader::CacheTtl),
            }
        }
        if let Some(field) = found.bypass {
            match forms::truth(field) {
                Form::Known(bypass) => header.bypass = bypass,
                Form::Absent => {}
                Form::Bad => header.bad.insert(BadHeader::Bypass),
            }
        }
        Ok(header)
    }

    fn empty(class: u16, body_size: u64) -> ContentHeader<'a> {
        ContentHeader {
            class,
            body_size,
            id: None,
            message_id: None,
            cache_ttl_ms: None,
            bypass: false,
            bad: BadHeaders::NONE,
            special: false,
            hides_bcc: false,
            correlation_id: None,
            table: &[],
        }
    }

    /// Returns true if there is a header that makes the message another one than its id alone does: [`ContentHeader::death`] or
    /// [`ContentHeader::extra_keys`] has to be asked.
    #[inline]
    pub fn is_special(&self) -> bool {
        self.special
    }

    /// Returns a part of an id. `None`: it is absent, or void.
    pub fn part(&self, part: &IdPart) -> Option<IdValue<'a>> {
        let value = match part {
            IdPart::MessageId => self.message_id.map(IdValue::Bytes),
            IdPart::CorrelationId => self.correlation_id.map(IdValue::Bytes),
            IdPart::Header(name) => Field::find(self.table, name.as_bytes()).map(Field::value),
        };
        value.filter(|value| !matches!(value, IdValue::Other(b'V', _)))
    }

    /// Calls `sink` with what makes the id, as the source says where it is: equal calls are equal ids. Routing keys in headers and
    /// deaths are no part of it. Returns false if there is no id in the header.
    #[inline]
    pub fn feed_id(&self, source: &IdSource, sink: &mut impl FnMut(u8, &[u8])) -> bool {
        let Some(id) = &self.id else { return false };
        match source {
            IdSource::Parts(parts) => feed_parts(parts.iter().map(|part| self.part(part)), sink),
            // A number is the same in whatever form it is written.
            IdSource::Sequence => match self.sequence() {
                Ok(Some(Sequence { producer, epoch, number })) => {
                    let [epoch, number] = [epoch, number].map(|number| IdValue::Integer(number.into()));
                    feed_parts([IdValue::Bytes(producer), epoch, number].into_iter().map(Some), sink);
                }
                Ok(None) | Err(_) => return false,
            },
            _ => id.feed(sink),
        }
        true
    }

    /// Returns true if this is a delivery from a stream.
    pub fn is_of_stream(&self) -> bool {
        Field::find(self.table, STREAM_OFFSET).is_some()
    }

    /// Returns the number of the message and whose it is. `None`: a header of the two is absent. An error names the headers that can't
    /// be understood.
    pub fn sequence(&self) -> Result<Option<Sequence<'a>>, BadHeaders> {
        sequence::read(self.table)
    }

    /// Returns the newest death of the message, if it was dead-lettered.
    pub fn death(&self) -> Result<Option<Death<'a>>, BadHeader> {
        Field::find(self.table, DEATH).map_or(Ok(None), Death::newest)
    }

    /// Returns where the message had been published before it died, by each of its last deaths: exchange and routing key.
    pub fn places(&self) -> Vec<(&'a [u8], &'a [u8])> {
        Field::find(self.table, DEATH).map_or_else(Vec::new, death::places)
    }

    /// Returns the routing keys in `CC` and `BCC`, sorted, each once.
    pub fn extra_keys(&self) -> Result<Vec<&'a [u8]>, BadHeader> {
        let mut keys = Vec::new();
        for (name, header) in [(CC, BadHeader::Cc), (BCC, BadHeader::Bcc)] {
            if !(self.hides_bcc && name == BCC)
                && let Some(field) = Field::find(self.table, name)
            {
                extra_keys::add(&mut keys, field, header)?;
            }
        }
        keys.sort_unstable();
        keys.dedup();
        Ok(keys)
    }

    /// Returns the same header as RabbitMQ shows it in deliveries and returns: without `BCC`. `None` if there is none.
    pub fn without_bcc(&self) -> Option<ContentHeader<'a>> {
        let has_bcc = self.special && Field::find(self.table, BCC).is_some();
        has_bcc.then_some(ContentHeader { hides_bcc: true, ..*self })
    }

    /// Returns only class and body size, for content that is not judged. Reads 12 octets.
    pub fn size_of(payload: &[u8]) -> Result<(u16, u64), WireError> {
        preamble(&mut Reader::new(payload))
    }
}

/// Reads class and body size. The weight between them is always 0 and unused.
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
    /// Continuation words followed, so unknown properties may come after ours.
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

/// The entries of the headers table that Hapax needs. Each is the first with its name.
#[derive(Clone, Copy, Default)]
struct WantedHeaders<'a> {
    wanted: Option<Field<'a>>,
    cache_ttl: Option<Field<'a>>,
    bypass: Option<Field<'a>>,
    /// there is an `x-death`, `CC` or `BCC`
    special: bool,
}

impl<'a> WantedHeaders<'a> {
    /// Reads the table to its end, even after all entries are found. If the table is cut short, the broker will refuse
    /// the message, so it must not be judged here.
    fn walk(table: &'a [u8], wanted: Option<&[u8]>) -> Result<WantedHeaders<'a>, WireError> {
        let mut found = WantedHeaders::default();
        let mut reader = Reader::new(table);
        while !reader.is_empty() {
            let (name, field) = Field::entry(&mut reader)?;
            // Few other headers have a name as long as one of ours, so compare lengths first.
            if wanted.is_some() || name.len() < 32 && LENGTHS >> name.len() & 1 != 0 {
                found.note(name, field, wanted);
            }
        }
        Ok(found)
    }

    fn note(&mut self, name: &[u8], field: Field<'a>, wanted: Option<&[u8]>) {
        // This is not one `match`, because a window may take its id from one of our own two headers.
        if wanted == Some(name) {
            self.wanted.get_or_insert(field);
        }
        if name == CACHE_TTL {
            self.cache_ttl.get_or_insert(field);
        }
        if name == BYPASS {
            self.bypass.get_or_insert(field);
        }
        self.special |= name == DEATH || name == CC || name == BCC;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MALFORMED: fn(&Result<ContentHeader<'_>, WireError>) -> bool =
        |parsed| matches!(parsed, Err(WireError::Malformed(_)));

    /// Returns a content header of class 60 and body size 5 with these flags and properties.
    fn content(flags: &[u16], properties: &[u8]) -> Vec<u8> {
        let mut payload = vec![0, 60, 0, 0, 0, 0, 0, 0, 0, 0, 0, 5];
        payload.extend(flags.iter().flat_map(|word| word.to_be_bytes()));
        payload.extend_from_slice(properties);
        payload
    }

    /// Returns a content header with only a headers table.
    fn headers(entries: &[u8]) -> Vec<u8> {
        let len = u32::try_from(entries.len()).unwrap_or_default();
        content(&[1 << 13], &[&len.to_be_bytes(), entries].concat())
    }

    fn header(name: &str) -> IdSource {
        IdSource::Header(name.into())
    }

    /// All properties, each with a value that can be recognised.
    const ALL: &[u8] = b"\x02ct\x02ce\0\0\0\x0b\x01kS\0\0\0\x04k-id\x02\x07\x03cor\x02re\x03exp\x03msg\
                         \0\0\0\0\0\0\0\x09\x02ty\x02us\x02ap\x02cl";

    #[test]
    fn all_properties_are_passed_on_the_way_to_the_id() {
        let payload = content(&[0xFFFC], ALL);
        for (source, id) in [
            (IdSource::MessageId, Some(&b"msg"[..])),
            (IdSource::CorrelationId, Some(b"cor")),
            (header("k"), Some(b"k-id")),
            (header("other"), None),
            (IdSource::Body, None),
        ] {
            let expected = ContentHeader {
                id: id.map(IdValue::Bytes),
                message_id: Some(b"msg"),
                correlation_id: Some(b"cor"),
                table: b"\x01kS\0\0\0\x04k-id",
                ..ContentHeader::empty(60, 5)
            };
            assert_eq!(ContentHeader::parse(&payload, &source), Ok(expected), "{source:?}");
        }
        assert_eq!(ContentHeader::size_of(&payload), Ok((60, 5)));
    }

    #[test]
    fn octets_too_few_or_too_many_are_malformed() {
        let payload = content(&[0xFFFC], ALL);
        for len in 0..payload.len() {
            let cut = payload.get(..len).unwrap_or_default();
            let parsed = ContentHeader::parse(cut, &IdSource::MessageId);
            assert!(MALFORMED(&parsed), "{len} octets");
            assert_eq!(ContentHeader::size_of(cut).is_ok(), len >= 12, "{len} octets");
        }
        let longer = content(&[0xFFFC], &[ALL, &[0]].concat());
        assert!(MALFORMED(&ContentHeader::parse(&longer, &IdSource::MessageId)));
    }

    #[test]
    fn continuation_words_are_skipped_and_what_they_bring_is_not_read() {
        let id = |payload: &[u8]| {
            ContentHeader::parse(payload, &IdSource::MessageId)
                .map(|header| header.message_id.map(<[u8]>::to_vec))
        };
        let msg = Ok(Some(b"msg".to_vec()));
        assert_eq!(id(&content(&[0x0081, 0x0000], b"\x03msg")), msg);
        assert_eq!(id(&content(&[0x0081, 0x8001, 0x4000], b"\x03msg\x07unknown")), msg);
        assert_eq!(id(&content(&[0x0082], b"\x03msg")), msg, "flag 1 is reserved");
        assert!(id(&content(&[0x0081], b"")).is_err(), "the word that is announced is not there");
    }

    #[test]
    fn every_type_has_its_value_and_its_length() {
        let cases: &[(&[u8], IdValue<'_>)] = &[
            (b"t\x01", IdValue::Other(b't', &[1])),
            (b"b\xff", IdValue::Integer(-1)),
            (b"B\xff", IdValue::Integer(255)),
            (b"s\xff\xfe", IdValue::Integer(-2)),
            (b"U\xff\xfe", IdValue::Integer(-2)),
            (b"u\xff\xfe", IdValue::Integer(65534)),
            (b"I\x80\0\0\0", IdValue::Integer(i32::MIN as i128)),
            (b"i\x80\0\0\0", IdValue::Integer(0x8000_0000)),
            (b"l\x80\0\0\0\0\0\0\0", IdValue::Integer(i64::MIN as i128)),
            (b"L\xff\xff\xff\xff\xff\xff\xff\xff", IdValue::Integer(-1)),
            (b"T\xff\xff\xff\xff\xff\xff\xff\xff", IdValue::Integer(u64::MAX as i128)),
            (b"f\x01\x02\x03\x04", IdValue::Other(b'f', &[1, 2, 3, 4])),
            (b"d\x01\x02\x03\x04\x05\x06\x07\x08", IdValue::Other(b'd', &[1, 2, 3, 4, 5, 6, 7, 8])),
            (b"D\x02\0\0\0\x09", IdValue::Other(b'D', &[2, 0, 0, 0, 9])),
            (b"S\0\0\0\x02id", IdValue::Bytes(b"id")),
            (b"x\0\0\0\x02id", IdValue::Bytes(b"id")),
            (b"A\0\0\0\x02t\x01", IdValue::Other(b'A', &[b't', 1])),
            (b"F\0\0\0\x04\x01at\x01", IdValue::Other(b'F', &[1, b'a', b't', 1])),
        ];
        for (value, expected) in cases {
            // Before it is a void value, and after it an entry that is only found if the length was right.
            let entries = [b"\x01vV\x02id", *value, b"\x0bx-cache-ttlB\x07"].concat();
            let payload = headers(&entries);
            let parsed = ContentHeader::parse(&payload, &header("id"));
            let found = parsed.map(|parsed| (parsed.id, parsed.cache_ttl_ms));
            assert_eq!(found, Ok((Some(*expected), Some(7))), "{value:?}");
        }
        for tag in (0..=u8::MAX).filter(|tag| !b"tbBsUuIilLTfdDSxAFV".contains(tag)) {
            let payload = headers(&[1, b'k', tag, 0, 0, 0, 0, 0, 0, 0, 0]);
            assert!(MALFORMED(&ContentHeader::parse(&payload, &IdSource::Body)), "type {tag}");
        }
    }

    #[test]
    fn an_empty_id_is_no_id() {
        for value in [&b"S\0\0\0\0"[..], b"x\0\0\0\0", b"V"] {
            let payload = headers(&[b"\x02id", value].concat());
            let parsed = ContentHeader::parse(&payload, &header("id"));
            assert_eq!(parsed.map(|parsed| parsed.id), Ok(None));
        }
        let payload = content(&[0x0080], b"\x00");
        let parsed = ContentHeader::parse(&payload, &IdSource::MessageId);
        assert_eq!(parsed.map(|parsed| (parsed.id, parsed.message_id)), Ok((None, Some(&b""[..]))));
    }

    #[test]
    fn of_two_headers_with_one_name_the_first_counts() {
        let entries = b"\x02idS\0\0\0\x01a\x02idS\0\0\0\x01b\x0bx-cache-ttlB\x01\x0bx-cache-ttlB\x02\
                        \x0ex-hapax-bypasst\x00\x0ex-hapax-bypasst\x01";
        let payload = headers(entries);
        let parsed = ContentHeader::parse(&payload, &header("id"));
        let found = parsed.map(|parsed| (parsed.id, parsed.cache_ttl_ms, parsed.bypass));
        assert_eq!(found, Ok((Some(IdValue::Bytes(b"a")), Some(1), false)));
    }

    #[test]
    fn a_header_that_is_not_understood_counts_as_absent_and_is_named() {
        for (entries, ttl, bypass, bad) in [
            (&b"\x0bx-cache-ttlI\0\0\0\x05"[..], Some(5), false, &[][..]),
            (b"\x0bx-cache-ttlS\0\0\0\x03500", Some(500), false, &[]),
            (b"\x0bx-cache-ttlS\0\0\0\x03soo", None, false, &[BadHeader::CacheTtl]),
            (b"\x0bx-cache-ttlb\xff", None, false, &[BadHeader::CacheTtl]),
            (b"\x0bx-cache-ttlV", None, false, &[]),
            (b"\x0ex-hapax-bypasst\x01", None, true, &[]),
            (b"\x0ex-hapax-bypasst\x00", None, false, &[]),
            (b"\x0ex-hapax-bypassB\x01", None, true, &[]),
            (b"\x0ex-hapax-bypassS\0\0\0\x04true", None, true, &[]),
            (b"\x0ex-hapax-bypassS\0\0\0\x05maybe", None, false, &[BadHeader::Bypass]),
            (b"\x0eX-hapax-bypasst\x01", None, false, &[]),
            (b"\x01nF\0\0\0\x11\x0ex-hapax-bypasst\x01", None, false, &[]),
            (
                b"\x0ex-hapax-bypassA\0\0\0\0\x0bx-cache-ttlA\0\0\0\0",
                None,
                false,
                &[BadHeader::CacheTtl, BadHeader::Bypass],
            ),
        ] {
            let payload = headers(entries);
            let parsed = ContentHeader::parse(&payload, &IdSource::MessageId).expect("a header");
            assert_eq!((parsed.cache_ttl_ms, parsed.bypass), (ttl, bypass), "{entries:?}");
            assert_eq!(parsed.bad.iter().collect::<Vec<_>>(), bad, "{entries:?}");
        }
    }

    #[test]
    fn an_id_of_parts_needs_its_first_one() {
        let parts = |parts: &[&str]| {
            IdSource::Parts(parts.iter().map(|name| IdPart::Header((*name).into())).collect())
        };
        let payload = headers(b"\x01aS\0\0\0\x01x\x01bS\0\0\0\0\x01cV\x01db\x05");
        let fed = |source: &IdSource| {
            let parsed = ContentHeader::parse(&payload, source).expect("a header");
            let mut fed = Vec::new();
            let any = parsed.feed_id(source, &mut |kind, bytes| fed.push((kind, bytes.to_vec())));
            any.then_some(fed)
        };
        let number = |value: i128| value.to_le_bytes().to_vec();
        let count = (b'p', 5_u64.to_le_bytes().to_vec());
        assert_eq!(
            fed(&parts(&["a", "b", "c", "d", "e"])),
            Some(vec![
                count,
                (b'b', b"x".to_vec()),
                (b'b', vec![]),
                (b'-', vec![]),
                (b'i', number(5)),
                (b'-', vec![])
            ])
        );
        for first in ["b", "c", "e"] {
            assert_eq!(fed(&parts(&[first, "a"])), None, "{first}: empty, void or absent");
        }
        assert_eq!(fed(&header("d")), Some(vec![(b'i', number(5))]));
    }

    #[test]
    fn deaths_and_more_routing_keys_are_found_where_they_are() {
        let death = b"\x05queueS\0\0\0\x01q\x06reasonS\0\0\0\x01r\x05countb\x01";
        let length = u8::try_from(death.len()).expect("short");
        let table = [b"\x07x-deathA\0\0\0", &[length + 5][..], b"F\0\0\0", &[length], death].concat();
        let lists = b"\x03BCCA\0\0\0\x06S\0\0\0\x01a\x02CCA\0\0\0\x0cS\0\0\0\x01bS\0\0\0\x01a";
        let payload = headers(&[&table[..], lists].concat());
        let parsed = ContentHeader::parse(&payload, &IdSource::MessageId).expect("a header");
        assert!(parsed.is_special());
        assert_eq!(parsed.extra_keys(), Ok(vec![&b"a"[..], b"b"]));
        assert_eq!(parsed.death().map(|death| death.map(|death| death.queue)), Ok(Some(&b"q"[..])));

        let payload = headers(b"\x02ccA\0\0\0\0\x07x-deadsV\x03bccV");
        let parsed = ContentHeader::parse(&payload, &IdSource::MessageId).expect("a header");
        assert!(!parsed.is_special());
        assert_eq!((parsed.extra_keys(), parsed.death()), (Ok(vec![]), Ok(None)));
    }

    #[test]
    fn the_id_may_be_asked_for_in_our_own_headers() {
        let payload = headers(b"\x0bx-cache-ttlB\x07");
        let parsed = ContentHeader::parse(&payload, &header("x-cache-ttl"));
        let found = parsed.map(|parsed| (parsed.id, parsed.cache_ttl_ms));
        assert_eq!(found, Ok((Some(IdValue::Integer(7)), Some(7))));
    }

    #[test]
    fn a_long_value_may_not_point_outside_its_table() {
        // The length reaches into the property after the table.
        let payload = content(&[0x2080], b"\0\0\0\x08\x01kS\0\0\0\x04x\x09123456789");
        assert!(MALFORMED(&ContentHeader::parse(&payload, &IdSource::MessageId)));
    }

    #[test]
    fn of_another_class_only_the_size_is_known() {
        let payload = [0, 50, 0, 0, 0, 0, 0, 0, 0, 0, 1, 0, 0xFF, 0xFF];
        let parsed = ContentHeader::parse(&payload, &IdSource::MessageId);
        assert_eq!(parsed.map(|parsed| (parsed.class, parsed.body_size, parsed.id)), Ok((50, 256, None)));
    }
}
