//! Reads the methods about consumers and the queues that they name, in place. Names need not be text: one that is not read would let the
//! answer to it be taken for the answer to another one.

use super::WireError;
use super::emit::push_shortstr;
use super::field::Field;
use super::method::MethodId;
use super::reader::Reader;

/// The argument by which a consumer says that it reads a stream.
const STREAM_OFFSET: &[u8] = b"x-stream-offset";

fn fields_of(payload: &[u8]) -> Result<Reader<'_>, WireError> {
    let mut fields = Reader::new(payload);
    fields.take(4, "class and method id")?;
    Ok(fields)
}

/// `queue.declare`: reserved-1 short, queue shortstr, bits passive, durable, exclusive, auto-delete, no-wait, arguments table.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Declare<'a> {
    /// the queue; empty: the broker draws a name
    pub queue: &'a [u8],
    /// the broker does not answer
    pub nowait: bool,
}

impl<'a> Declare<'a> {
    const NOWAIT: u8 = 16;

    /// Reads a method payload whose id is [`MethodId::QUEUE_DECLARE`].
    pub fn parse(payload: &'a [u8]) -> Result<Declare<'a>, WireError> {
        let mut fields = fields_of(payload)?;
        fields.short("queue.declare: reserved-1")?;
        let queue = fields.shortstr("queue.declare: queue")?;
        let bits = fields.octet("queue.declare: bits")?;
        fields.longstr("queue.declare: arguments")?;
        fields.end("queue.declare: octets left over")?;
        Ok(Declare { queue, nowait: bits & Declare::NOWAIT != 0 })
    }

    /// Returns the name of the queue in a method payload whose id is [`MethodId::QUEUE_DECLARE_OK`].
    pub fn queue_of_ok(payload: &'a [u8]) -> Result<&'a [u8], WireError> {
        fields_of(payload)?.shortstr("queue.declare-ok: queue")
    }
}

/// `basic.consume`: reserved-1 short, queue shortstr, consumer-tag shortstr, bits no-local, no-ack, exclusive, no-wait, arguments table.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Consume<'a> {
    /// the queue; empty: the one that was declared last
    pub queue: &'a [u8],
    /// the consumer tag; empty: the broker draws one
    pub tag: &'a [u8],
    /// the broker takes each delivery for acked
    pub no_ack: bool,
    /// the broker does not answer
    pub nowait: bool,
    before_tag: &'a [u8],
    after_tag: &'a [u8],
    arguments: &'a [u8],
}

impl<'a> Consume<'a> {
    const NO_ACK: u8 = 2;
    const NOWAIT: u8 = 8;

    /// Reads a method payload whose id is [`MethodId::BASIC_CONSUME`].
    pub fn parse(payload: &'a [u8]) -> Result<Consume<'a>, WireError> {
        let mut fields = fields_of(payload)?;
        fields.short("basic.consume: reserved-1")?;
        let queue = fields.shortstr("basic.consume: queue")?;
        let before_tag = payload.get(..payload.len() - fields.rest().len()).unwrap_or_default();
        let tag = fields.shortstr("basic.consume: consumer-tag")?;
        let after_tag = fields.rest();
        let bits = fields.octet("basic.consume: bits")?;
        let arguments = fields.longstr("basic.consume: arguments")?;
        fields.end("basic.consume: octets left over")?;
        let (no_ack, nowait) = (bits & Consume::NO_ACK != 0, bits & Consume::NOWAIT != 0);
        Ok(Consume { queue, tag, no_ack, nowait, before_tag, after_tag, arguments })
    }

    /// Returns true if it says that it reads a stream.
    pub fn is_of_stream(&self) -> bool {
        Field::find(self.arguments, STREAM_OFFSET).is_some()
    }

    /// Returns the payload with another tag. One of more than 255 octets is cut.
    pub fn with_tag(&self, tag: &[u8]) -> Vec<u8> {
        let mut payload = self.before_tag.to_vec();
        push_shortstr(&mut payload, tag);
        payload.extend_from_slice(self.after_tag);
        payload
    }
}

/// `basic.cancel` of either side: consumer-tag shortstr, bit no-wait.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Cancel<'a> {
    /// the consumer tag
    pub tag: &'a [u8],
    /// nobody answers
    pub nowait: bool,
}

impl<'a> Cancel<'a> {
    /// The no-wait bit.
    pub const NOWAIT: u8 = 1;

    /// Returns the payload of a `basic.cancel` that nobody answers.
    pub fn nowait(tag: &[u8]) -> Vec<u8> {
        let MethodId(class, method) = MethodId::BASIC_CANCEL;
        let mut payload = [class.to_be_bytes(), method.to_be_bytes()].concat();
        push_shortstr(&mut payload, tag);
        payload.push(Cancel::NOWAIT);
        payload
    }

    /// Reads a method payload whose id is [`MethodId::BASIC_CANCEL`].
    pub fn parse(payload: &'a [u8]) -> Result<Cancel<'a>, WireError> {
        let mut fields = fields_of(payload)?;
        let tag = fields.shortstr("basic.cancel: consumer-tag")?;
        let bits = fields.octet("basic.cancel: bits")?;
        fields.end("basic.cancel: octets left over")?;
        Ok(Cancel { tag, nowait: bits & Cancel::NOWAIT != 0 })
    }
}

/// Returns the consumer tag of a method payload whose id is [`MethodId::BASIC_CONSUME_OK`], [`MethodId::BASIC_CANCEL`] or
/// [`MethodId::BASIC_CANCEL_OK`]. [`MethodId::BASIC_DELIVER`] has it in the same place.
#[inline]
pub fn consumer_tag(payload: &[u8]) -> Result<&[u8], WireError> {
    fields_of(payload)?.shortstr("consumer-tag")
}

/// `basic.get`: reserved-1 short, queue shortstr, bit no-ack.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Get<'a> {
    /// the queue; empty: the one that was declared last
    pub queue: &'a [u8],
    /// the broker takes the message for acked
    pub no_ack: bool,
}

impl<'a> Get<'a> {
    /// The no-ack bit.
    pub const NO_ACK: u8 = 1;

    /// Reads a method payload whose id is [`MethodId::BASIC_GET`].
    pub fn parse(payload: &'a [u8]) -> Result<Get<'a>, WireError> {
        let mut fields = fields_of(payload)?;
        fields.short("basic.get: reserved-1")?;
        let queue = fields.shortstr("basic.get: queue")?;
        let bits = fields.octet("basic.get: bits")?;
        fields.end("basic.get: octets left over")?;
        Ok(Get { queue, no_ack: bits & Get::NO_ACK != 0 })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const DECLARE: &[u8] = b"\x00\x32\x00\x0a\0\0\x02\xffq\x10\0\0\0\0";
    const CONSUME: &[u8] =
        b"\x00\x3c\x00\x14\0\0\x01q\x02\xfft\x0a\0\0\0\x15\x0fx-stream-offset\x49\0\0\0\x01";
    const CANCEL: &[u8] = b"\x00\x3c\x00\x1e\x02\xfft\x01";
    const GET: &[u8] = b"\x00\x3c\x00\x46\0\0\x01q\x01";

    #[test]
    fn each_method_gives_its_fields() {
        assert_eq!(Declare::parse(DECLARE), Ok(Declare { queue: b"\xffq", nowait: true }));
        assert_eq!(Cancel::parse(CANCEL), Ok(Cancel { tag: b"\xfft", nowait: true }));
        assert_eq!(Cancel::nowait(b"\xfft"), CANCEL);
        assert_eq!(Get::parse(GET), Ok(Get { queue: b"q", no_ack: true }));
        let consume = Consume::parse(CONSUME).unwrap();
        assert_eq!((consume.queue, consume.tag), (&b"q"[..], &b"\xfft"[..]));
        assert!(consume.no_ack && consume.nowait && consume.is_of_stream());
        assert_eq!(consumer_tag(CANCEL), Ok(&b"\xfft"[..]));
        assert_eq!(Declare::queue_of_ok(b"\x00\x32\x00\x0b\x02\xffq\0\0\0\0\0\0\0\0"), Ok(&b"\xffq"[..]));
        assert_eq!(
            [DECLARE, CONSUME, CANCEL, GET].map(|payload| MethodId::of(payload).unwrap()),
            [MethodId::QUEUE_DECLARE, MethodId::BASIC_CONSUME, MethodId::BASIC_CANCEL, MethodId::BASIC_GET]
        );
    }

    #[test]
    fn a_consume_with_another_tag_is_the_same_otherwise() {
        let consume = Consume::parse(CONSUME).unwrap();
        assert_eq!(consume.with_tag(consume.tag), CONSUME);
        let renamed = consume.with_tag(b"other");
        let other = Consume::parse(&renamed).unwrap();
        assert_eq!((other.tag, other.with_tag(consume.tag)), (&b"other"[..], CONSUME.to_vec()));
    }

    #[test]
    fn octets_too_few_or_too_many_are_malformed() {
        fn only_whole<T>(whole: &[u8], parse: impl Fn(&[u8]) -> Result<T, WireError>) {
            for len in 0..whole.len() {
                assert!(parse(whole.get(..len).unwrap()).is_err(), "{len} octets");
            }
            assert!(parse(&[whole, &[0]].concat()).is_err());
        }
        only_whole(DECLARE, |octets| Declare::parse(octets).map(drop));
        only_whole(CONSUME, |octets| Consume::parse(octets).map(drop));
        only_whole(CANCEL, |octets| Cancel::parse(octets).map(drop));
        only_whole(GET, |octets| Get::parse(octets).map(drop));
    }
}
