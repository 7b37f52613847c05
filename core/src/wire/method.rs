//! Reads the methods of the hot path in place: `basic.publish`, `basic.ack`, `basic.nack`, `basic.return`. It also
//! reads `channel.close`, because its text need not be UTF-8, and the login in `connection.start-ok`.

use super::WireError;
use super::reader::Reader;

/// A class id and a method id, such as `(60, 40)` for `basic.publish`.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub struct MethodId(pub u16, pub u16);

impl MethodId {
    /// connection.start-ok
    pub const CONNECTION_START_OK: MethodId = MethodId(10, 11);
    /// connection.secure-ok
    pub const CONNECTION_SECURE_OK: MethodId = MethodId(10, 21);
    /// connection.tune-ok
    pub const CONNECTION_TUNE_OK: MethodId = MethodId(10, 31);
    /// connection.open
    pub const CONNECTION_OPEN: MethodId = MethodId(10, 40);
    /// channel.open
    pub const CHANNEL_OPEN: MethodId = MethodId(20, 10);
    /// channel.open-ok
    pub const CHANNEL_OPEN_OK: MethodId = MethodId(20, 11);
    /// channel.flow
    pub const CHANNEL_FLOW: MethodId = MethodId(20, 20);
    /// channel.flow-ok
    pub const CHANNEL_FLOW_OK: MethodId = MethodId(20, 21);
    /// channel.close
    pub const CHANNEL_CLOSE: MethodId = MethodId(20, 40);
    /// channel.close-ok
    pub const CHANNEL_CLOSE_OK: MethodId = MethodId(20, 41);
    /// queue.declare
    pub const QUEUE_DECLARE: MethodId = MethodId(50, 10);
    /// queue.declare-ok
    pub const QUEUE_DECLARE_OK: MethodId = MethodId(50, 11);
    /// queue.delete
    pub const QUEUE_DELETE: MethodId = MethodId(50, 40);
    /// queue.delete-ok
    pub const QUEUE_DELETE_OK: MethodId = MethodId(50, 41);
    /// exchange.declare
    pub const EXCHANGE_DECLARE: MethodId = MethodId(40, 10);
    /// exchange.declare-ok
    pub const EXCHANGE_DECLARE_OK: MethodId = MethodId(40, 11);
    /// exchange.delete
    pub const EXCHANGE_DELETE: MethodId = MethodId(40, 20);
    /// basic.qos
    pub const BASIC_QOS: MethodId = MethodId(60, 10);
    /// basic.consume
    pub const BASIC_CONSUME: MethodId = MethodId(60, 20);
    /// basic.consume-ok
    pub const BASIC_CONSUME_OK: MethodId = MethodId(60, 21);
    /// basic.cancel
    pub const BASIC_CANCEL: MethodId = MethodId(60, 30);
    /// basic.cancel-ok
    pub const BASIC_CANCEL_OK: MethodId = MethodId(60, 31);
    /// basic.get
    pub const BASIC_GET: MethodId = MethodId(60, 70);
    /// confirm.select
    pub const CONFIRM_SELECT: MethodId = MethodId(85, 10);
    /// confirm.select-ok
    pub const CONFIRM_SELECT_OK: MethodId = MethodId(85, 11);
    /// tx.select
    pub const TX_SELECT: MethodId = MethodId(90, 10);
    /// tx.commit
    pub const TX_COMMIT: MethodId = MethodId(90, 20);
    /// tx.commit-ok
    pub const TX_COMMIT_OK: MethodId = MethodId(90, 21);
    /// tx.rollback
    pub const TX_ROLLBACK: MethodId = MethodId(90, 30);
    /// tx.rollback-ok
    pub const TX_ROLLBACK_OK: MethodId = MethodId(90, 31);
    /// basic.publish
    pub const BASIC_PUBLISH: MethodId = MethodId(60, 40);
    /// basic.return
    pub const BASIC_RETURN: MethodId = MethodId(60, 50);
    /// basic.deliver
    pub const BASIC_DELIVER: MethodId = MethodId(60, 60);
    /// basic.get-ok
    pub const BASIC_GET_OK: MethodId = MethodId(60, 71);
    /// `basic.get-empty`
    pub const BASIC_GET_EMPTY: MethodId = MethodId(60, 72);
    /// basic.ack
    pub const BASIC_ACK: MethodId = MethodId(60, 80);
    /// basic.nack
    pub const BASIC_NACK: MethodId = MethodId(60, 120);
    /// `basic.reject`
    pub const BASIC_REJECT: MethodId = MethodId(60, 90);
    /// `basic.recover`
    pub const BASIC_RECOVER: MethodId = MethodId(60, 110);
    /// `basic.recover-async`
    pub const BASIC_RECOVER_ASYNC: MethodId = MethodId(60, 100);
    /// `basic.recover-ok`
    pub const BASIC_RECOVER_OK: MethodId = MethodId(60, 111);

    /// Reads the method id from the first four octets of a method payload.
    pub fn of(payload: &[u8]) -> Result<MethodId, WireError> {
        let mut fields = Reader::new(payload);
        Ok(MethodId(fields.short("class id")?, fields.short("method id")?))
    }
}

/// Returns a reader of the octets after class and method id. As in RabbitMQ, a method's fields must fill its payload
/// to the last octet.
#[inline]
fn fields_of(payload: &[u8]) -> Result<Reader<'_>, WireError> {
    let mut fields = Reader::new(payload);
    fields.take(4, "class and method id")?;
    Ok(fields)
}

/// The SASL fields of `connection.start-ok`: client-properties table, mechanism shortstr, response longstr, locale.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct StartOk<'a> {
    /// the SASL mechanism
    pub mechanism: &'a [u8],
    /// what the mechanism begins with
    pub response: &'a [u8],
}

impl<'a> StartOk<'a> {
    /// Reads a method payload whose id is [`MethodId::CONNECTION_START_OK`]. Skips the table without looking at it, so it
    /// reads all that a broker may be able to read.
    pub fn parse(payload: &'a [u8]) -> Result<StartOk<'a>, WireError> {
        let mut fields = fields_of(payload)?;
        fields.longstr("connection.start-ok: client-properties")?;
        let mechanism = fields.shortstr("connection.start-ok: mechanism")?;
        Ok(StartOk { mechanism, response: fields.longstr("connection.start-ok: response")? })
    }
}

/// `basic.publish`: reserved-1 short, exchange shortstr, routing-key shortstr, bits mandatory, immediate.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Publish<'a> {
    /// the exchange; empty is the default exchange
    pub exchange: &'a [u8],
    /// the routing key
    pub routing_key: &'a [u8],
    /// return the message if it can't be routed
    pub mandatory: bool,
    /// RabbitMQ does not support this bit; Hapax forwards it, and the broker refuses the publish
    pub immediate: bool,
}

impl<'a> Publish<'a> {
    /// The mandatory bit.
    pub const MANDATORY: u8 = 1;

    /// Returns true if the mandatory bit is set in a frame that is known to be valid.
    #[inline]
    pub fn is_mandatory(frame: &[u8]) -> bool {
        matches!(frame, [.., bits, _] if bits & Publish::MANDATORY != 0)
    }

    /// Reads a method payload whose id is [`MethodId::BASIC_PUBLISH`].
    #[inline]
    pub fn parse(payload: &'a [u8]) -> Result<Publish<'a>, WireError> {
        let mut fields = fields_of(payload)?;
        fields.short("basic.publish: reserved-1")?;
        let exchange = fields.shortstr("basic.publish: exchange")?;
        let routing_key = fields.shortstr("basic.publish: routing-key")?;
        let bits = fields.octet("basic.publish: bits")?;
        fields.end("basic.publish: octets left over")?;
        Ok(Publish { exchange, routing_key, mandatory: bits & 1 != 0, immediate: bits & 2 != 0 })
    }

    /// Returns only the exchange of a payload that is known to be valid.
    #[inline]
    pub fn exchange_of(payload: &'a [u8]) -> &'a [u8] {
        let len = payload.get(6).copied().unwrap_or_default();
        payload.get(7..7 + usize::from(len)).unwrap_or_default()
    }
}

/// The part of `basic.deliver` and `basic.get-ok` that says where the message was published: exchange shortstr, routing-key
/// shortstr.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Delivery<'a> {
    /// exchange and routing key as they stand in the method, one after the other
    pub names: &'a [u8],
    /// the exchange that the message was published to
    pub exchange: &'a [u8],
    /// the routing key that it was published with
    pub routing_key: &'a [u8],
}

impl<'a> Delivery<'a> {
    /// Reads a method payload whose id is [`MethodId::BASIC_DELIVER`] or [`MethodId::BASIC_GET_OK`].
    #[inline]
    pub fn parse(payload: &'a [u8]) -> Result<Delivery<'a>, WireError> {
        let mut fields = fields_of(payload)?;
        if MethodId::of(payload)? == MethodId::BASIC_DELIVER {
            fields.shortstr("basic.deliver: consumer-tag")?;
        }
        fields.take(9, "delivery-tag and redelivered")?;
        let before = fields.rest();
        let exchange = fields.shortstr("exchange of a delivery")?;
        let routing_key = fields.shortstr("routing-key of a delivery")?;
        let len = before.len() - fields.rest().len();
        Ok(Delivery { names: before.get(..len).unwrap_or_default(), exchange, routing_key })
    }
}

/// `basic.return`: reply-code short, reply-text shortstr, exchange shortstr, routing-key shortstr.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Return<'a> {
    /// 312 NO_ROUTE, 313 NO_CONSUMERS
    pub reply_code: u16,
    /// the broker's text
    pub reply_text: &'a [u8],
    /// the exchange that the message was published to
    pub exchange: &'a [u8],
    /// the message's routing key
    pub routing_key: &'a [u8],
}

impl<'a> Return<'a> {
    /// Reads a method payload whose id is [`MethodId::BASIC_RETURN`].
    pub fn parse(payload: &'a [u8]) -> Result<Return<'a>, WireError> {
        let mut fields = fields_of(payload)?;
        let reply_code = fields.short("basic.return: reply-code")?;
        let reply_text = fields.shortstr("basic.return: reply-text")?;
        let exchange = fields.shortstr("basic.return: exchange")?;
        let routing_key = fields.shortstr("basic.return: routing-key")?;
        fields.end("basic.return: octets left over")?;
        Ok(Return { reply_code, reply_text, exchange, routing_key })
    }
}

/// `channel.close`: reply-code short, reply-text shortstr, class-id short, method-id short.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Close<'a> {
    /// the code: 403, 404, 406 …
    pub reply_code: u16,
    /// the peer's text
    pub reply_text: &'a [u8],
    /// the method that caused the close; `(0, 0)` if there is none
    pub culprit: MethodId,
}

impl<'a> Close<'a> {
    /// Reads a method payload whose id is [`MethodId::CHANNEL_CLOSE`].
    pub fn parse(payload: &'a [u8]) -> Result<Close<'a>, WireError> {
        let mut fields = fields_of(payload)?;
        let reply_code = fields.short("channel.close: reply-code")?;
        let reply_text = fields.shortstr("channel.close: reply-text")?;
        let culprit =
            MethodId(fields.short("channel.close: class-id")?, fields.short("channel.close: method-id")?);
        fields.end("channel.close: octets left over")?;
        Ok(Close { reply_code, reply_text, culprit })
    }
}

/// `basic.ack` or `basic.nack` as a broker sends them to a publisher.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Settle {
    /// the delivery tag
    pub tag: u64,
    /// the answer is for all publishes up to and including the tag
    pub multiple: bool,
}

impl Settle {
    /// Reads a method payload whose id is [`MethodId::BASIC_ACK`] or [`MethodId::BASIC_NACK`].
    #[inline]
    pub fn parse(payload: &[u8]) -> Result<Settle, WireError> {
        let mut fields = fields_of(payload)?;
        let tag = fields.longlong("delivery tag")?;
        let bits = fields.octet("bits of an ack or nack")?;
        fields.end("octets left over after an ack or nack")?;
        Ok(Settle { tag, multiple: bits & 1 != 0 })
    }

    /// Reads a method payload whose id is [`MethodId::BASIC_REJECT`]. That is about one delivery.
    pub fn of_reject(payload: &[u8]) -> Result<Settle, WireError> {
        let mut fields = fields_of(payload)?;
        Ok(Settle { tag: fields.longlong("delivery tag")?, multiple: false })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const PUBLISH: &[u8] = b"\x00\x3c\x00\x28\x00\x00\x02ex\x03key\x01";
    const RETURN: &[u8] = b"\x00\x3c\x00\x32\x01\x38\x08NO_ROUTE\x02ex\x03key";
    const NACK: &[u8] = b"\x00\x3c\x00\x78\x01\x02\x03\x04\x05\x06\x07\x08\x03";
    const CLOSE: &[u8] = b"\x00\x14\x00\x28\x01\x94\x09NOT_FOUND\x00\x3c\x00\x28";

    #[test]
    fn each_method_gives_its_fields() {
        let publish = Publish { exchange: b"ex", routing_key: b"key", mandatory: true, immediate: false };
        assert_eq!(MethodId::of(PUBLISH), Ok(MethodId::BASIC_PUBLISH));
        assert_eq!(Publish::parse(PUBLISH), Ok(publish));

        let returned =
            Return { reply_code: 312, reply_text: b"NO_ROUTE", exchange: b"ex", routing_key: b"key" };
        assert_eq!(MethodId::of(RETURN), Ok(MethodId::BASIC_RETURN));
        assert_eq!(Return::parse(RETURN), Ok(returned));

        let close = Close { reply_code: 404, reply_text: b"NOT_FOUND", culprit: MethodId::BASIC_PUBLISH };
        assert_eq!(MethodId::of(CLOSE), Ok(MethodId::CHANNEL_CLOSE));
        assert_eq!(Close::parse(CLOSE), Ok(close));
        assert_eq!((Publish::exchange_of(PUBLISH), Publish::exchange_of(b"")), (&b"ex"[..], &b""[..]));

        let settle = Settle { tag: 0x0102_0304_0506_0708, multiple: true };
        assert_eq!(MethodId::of(NACK), Ok(MethodId::BASIC_NACK));
        assert_eq!(Settle::parse(NACK), Ok(settle));
    }

    #[test]
    fn a_delivery_says_where_its_message_was_published() {
        let expected = Ok(Delivery { names: b"\x02ex\x03key", exchange: b"ex", routing_key: b"key" });
        let deliver = b"\x00\x3c\x00\x3c\x03ctg\0\0\0\0\0\0\0\x01\0\x02ex\x03key";
        let get_ok = b"\x00\x3c\x00\x47\0\0\0\0\0\0\0\x01\0\x02ex\x03key\0\0\0\x05";
        assert_eq!((Delivery::parse(deliver), Delivery::parse(get_ok)), (expected, expected));
        for len in 0..deliver.len() {
            assert!(Delivery::parse(&deliver[..len]).is_err(), "{len} octets");
        }
    }

    #[test]
    fn requeue_is_not_multiple_and_immediate_is_not_mandatory() {
        assert_eq!(
            Settle::parse(b"\x00\x3c\x00\x78\0\0\0\0\0\0\0\x01\x02"),
            Ok(Settle { tag: 1, multiple: false })
        );
        assert_eq!(
            Publish::parse(b"\x00\x3c\x00\x28\0\0\0\0\x02"),
            Ok(Publish { exchange: b"", routing_key: b"", mandatory: false, immediate: true })
        );
    }

    #[test]
    fn names_need_not_be_text() {
        let publish = Publish::parse(b"\x00\x3c\x00\x28\0\0\x02\xff\xfe\x01\x80\0");
        assert_eq!(publish.map(|p| (p.exchange, p.routing_key)), Ok((&b"\xff\xfe"[..], &b"\x80"[..])));
    }

    #[test]
    fn octets_too_few_or_too_many_are_malformed() {
        fn only_whole<T>(whole: &[u8], parse: impl Fn(&[u8]) -> Result<T, WireError>) {
            for len in 0..whole.len() {
                let cut = whole.get(..len).unwrap_or_default();
                assert!(matches!(parse(cut), Err(WireError::Malformed(_))), "{len} octets");
            }
            let longer = [whole, &[0]].concat();
            assert!(matches!(parse(&longer), Err(WireError::Malformed(_))));
        }
        only_whole(PUBLISH, |octets| Publish::parse(octets).map(drop));
        only_whole(RETURN, |octets| Return::parse(octets).map(drop));
        only_whole(CLOSE, |octets| Close::parse(octets).map(drop));
        only_whole(NACK, Settle::parse);
    }
}
