//! The header `x-death`: how a broker has dead-lettered the message.
//!
//! ```text
//! x-death: [ {count, exchange, queue, reason, routing-keys, time [, original-expiration]}, …]    the newest first
//! ```
//!
//! A message that comes back with it was stored before, and has left its queue: it is another incarnation of the message. RabbitMQ has
//! one table for each queue and reason. It counts the deaths in it, and leaves `time` at the first of them. RabbitMQ 4 does not read the header of
//! a message that a client publishes, so it begins again with `count` 1 and another `time`. Therefore all fields count.

use super::bad_headers::BadHeader;
use super::field::Field;
use super::properties::IdValue;
use super::reader::Reader;

/// The newest death of a message. A field that is not there is `None`.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Death<'a> {
    /// the queue that the message has left
    pub queue: &'a [u8],
    /// `rejected`, `expired`, `maxlen` or `delivery_limit`
    pub reason: &'a [u8],
    /// how often it has left this queue for this reason
    pub count: Option<IdValue<'a>>,
    /// when it has done so first, in seconds
    pub time: Option<IdValue<'a>>,
    /// the exchange that it had been published to
    pub exchange: Option<IdValue<'a>>,
    /// the routing keys that it had been published with
    pub routing_keys: Option<IdValue<'a>>,
}

impl<'a> Death<'a> {
    /// Reads the newest death in the value of `x-death`. Returns `None` if the value says that there is none. A death needs a queue, a reason, and a count or a
    /// time: without these, two deaths would look the same.
    pub(super) fn newest(field: Field<'a>) -> Result<Option<Death<'a>>, BadHeader> {
        match (field.tag, field.raw) {
            (b'V', _) | (b'A', []) => Ok(None),
            (b'A', deaths) => Death::first_of(deaths).map(Some).ok_or(BadHeader::Death),
            _ => Err(BadHeader::Death),
        }
    }

    fn first_of(deaths: &'a [u8]) -> Option<Death<'a>> {
        let newest = Field::read(&mut Reader::new(deaths)).ok().filter(|newest| newest.tag == b'F')?;
        let mut fields = Fields::default();
        let mut reader = Reader::new(newest.raw);
        while !reader.is_empty() {
            let name = reader.shortstr("name in x-death").ok()?;
            let value = Field::read(&mut reader).ok()?.value();
            if let Some(field) = fields.named(name) {
                field.get_or_insert(value);
            }
        }
        let known = |field: Option<IdValue<'a>>| field.filter(|value| !value.is_empty());
        let text = |field| match known(field) {
            Some(IdValue::Bytes(text)) => Some(text),
            _ => None,
        };
        let (queue, reason) = (text(fields.queue)?, text(fields.reason)?);
        let (count, time) = (known(fields.count), known(fields.time));
        count.or(time)?;
        let (exchange, routing_keys) = (fields.exchange, fields.routing_keys);
        Some(Death { queue, reason, count, time, exchange, routing_keys })
    }
}

/// The most deaths of a message that tell where it was published.
const PLACES: usize = 8;

/// Returns where the message had been published before it died: exchange and first routing key of each death, the newest
/// first, at most [`PLACES`]. Deaths that can't be read are left out.
pub(super) fn places(field: Field<'_>) -> Vec<(&[u8], &[u8])> {
    let mut places = Vec::new();
    let mut deaths = Reader::new(if field.tag == b'A' { field.raw } else { &[] });
    while let Ok(death) = Field::read(&mut deaths)
        && places.len() < PLACES
    {
        let text = |name| match (death.tag, Field::find(death.raw, name)?) {
            (b'F', Field { tag: b'S', raw }) => Some(raw),
            // The first routing key is the one that the publish named. The others are those of its CC header.
            (b'F', Field { tag: b'A', raw }) => match Field::read(&mut Reader::new(raw)).ok()? {
                Field { tag: b'S', raw } => Some(raw),
                _ => None,
            },
            _ => None,
        };
        if let (Some(exchange), Some(routing_key)) = (text(b"exchange"), text(b"routing-keys"))
            && !places.contains(&(exchange, routing_key))
        {
            places.push((exchange, routing_key));
        }
    }
    places
}

#[derive(Default)]
struct Fields<'a> {
    queue: Option<IdValue<'a>>,
    reason: Option<IdValue<'a>>,
    count: Option<IdValue<'a>>,
    time: Option<IdValue<'a>>,
    exchange: Option<IdValue<'a>>,
    routing_keys: Option<IdValue<'a>>,
}

impl<'a> Fields<'a> {
    fn named(&mut self, name: &[u8]) -> Option<&mut Option<IdValue<'a>>> {
        match name {
            b"queue" => Some(&mut self.queue),
            b"reason" => Some(&mut self.reason),
            b"count" => Some(&mut self.count),
            b"time" => Some(&mut self.time),
            b"exchange" => Some(&mut self.exchange),
            b"routing-keys" => Some(&mut self.routing_keys),
            _ => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Returns an `x-death` with one table of these entries.
    fn deaths(entries: &[u8]) -> Vec<u8> {
        let len = u32::try_from(entries.len()).unwrap_or_default();
        [b"F", &len.to_be_bytes()[..], entries].concat()
    }

    const QUEUE: &[u8] = b"\x05queueS\0\0\0\x01q";
    const REASON: &[u8] = b"\x06reasonS\0\0\0\x07expired";
    const COUNT: &[u8] = b"\x05countl\0\0\0\0\0\0\0\x02";
    const TIME: &[u8] = b"\x04timeT\0\0\0\0\0\0\0\x09";

    fn read(raw: &[u8]) -> Result<Option<Death<'_>>, BadHeader> {
        Death::newest(Field { tag: b'A', raw })
    }

    #[test]
    fn the_first_table_is_the_newest_death() {
        let newest = deaths(&[COUNT, REASON, QUEUE, TIME, b"\x08exchangeS\0\0\0\0"].concat());
        let raw = [newest, deaths(&[QUEUE, REASON].concat())].concat();
        let expected = Death {
            queue: b"q",
            reason: b"expired",
            count: Some(IdValue::Integer(2)),
            time: Some(IdValue::Integer(9)),
            exchange: Some(IdValue::Bytes(b"")),
            routing_keys: None,
        };
        assert_eq!(read(&raw), Ok(Some(expected)));
    }

    #[test]
    fn a_death_has_queue_reason_and_count_or_time() {
        for (entries, fine) in [
            (&[QUEUE, REASON, COUNT][..], true),
            (&[TIME, QUEUE, REASON], true),
            (&[QUEUE, REASON], false),
            (&[QUEUE, COUNT, TIME], false),
            (&[REASON, COUNT, TIME], false),
            (&[b"\x05queueS\0\0\0\0", REASON, COUNT], false),
            (&[b"\x05queueV", REASON, COUNT], false),
            (&[b"\x05queueb\x01", REASON, COUNT], false),
            (&[QUEUE, REASON, b"\x05countV"], false),
            (&[], false),
        ] {
            let raw = deaths(&entries.concat());
            assert_eq!(read(&raw).is_ok_and(|death| death.is_some()), fine, "{entries:?}");
        }
    }

    #[test]
    fn the_places_of_a_message_are_those_of_its_deaths() {
        let place = |number: u8| {
            let keys = [b"\x0crouting-keysA\0\0\0\x0cS\0\0\0\x01", &[number][..], b"S\0\0\0\x01c"].concat();
            deaths(&[QUEUE, b"\x08exchangeS\0\0\0\x01e", &keys].concat())
        };
        let of = |raw: &[u8]| {
            let own = |(exchange, key): (&[u8], &[u8])| (exchange.to_vec(), key.to_vec());
            places(Field { tag: b'A', raw }).into_iter().map(own).collect::<Vec<_>>()
        };
        let expected = |number: u8| (b"e".to_vec(), vec![number]);
        let raw = [place(1), deaths(QUEUE), place(2), place(1)].concat();
        assert_eq!(of(&raw), [expected(1), expected(2)]);
        let many: Vec<u8> = (0..100).flat_map(place).collect();
        assert_eq!(of(&many).len(), PLACES);
        for len in 0..raw.len() {
            assert!(of(raw.get(..len).unwrap_or_default()).len() <= 2, "{len} octets");
        }
        assert!(places(Field { tag: b'S', raw: &raw }).is_empty());
    }

    #[test]
    fn no_death_is_not_a_malformed_one() {
        assert_eq!(read(b""), Ok(None));
        assert_eq!(Death::newest(Field { tag: b'V', raw: b"" }), Ok(None));
        for (tag, raw) in [(b'S', &b"q"[..]), (b'F', b""), (b't', b"\x01"), (b'A', b"S\0\0\0\x01q")] {
            assert_eq!(Death::newest(Field { tag, raw }), Err(BadHeader::Death));
        }
        let whole = deaths(&[QUEUE, REASON, COUNT].concat());
        for len in 1..whole.len() {
            assert_eq!(read(whole.get(..len).unwrap_or_default()), Err(BadHeader::Death), "{len} octets");
        }
    }
}
