//! The parts of a request that tell messages with one id apart: the other parts of an id that has several, the routing keys in its headers, its
//! newest death.

use super::query::{Query, bad};
use crate::admin::complaint::Complaint;
use hapax_core::session::may_have_topics;
use hapax_core::window::{Key, Scope, Scoped};
use hapax_core::wire::properties::IdValue;
use hapax_core::wire::{Death, IdPart, IdSource};
use serde::Deserialize;

/// The fields of a query that [`keys`] reads.
pub(super) const KNOWN: [&str; 3] = ["part", "cc", "death"];

/// The place where a message was published, and how its window tells ids apart.
#[derive(Clone, Copy, Debug)]
pub(super) struct Place<'a> {
    pub(super) scope: Scope,
    pub(super) source: &'a IdSource,
    pub(super) exchange: &'a [u8],
    pub(super) routing_key: &'a [u8],
}

/// Returns all keys that a message with this id may have. `id` is the first part, if there are several.
pub(super) fn keys(
    scoped: Scoped,
    place: Place<'_>,
    id: &[u8],
    query: &Query,
) -> Result<Vec<Key>, Complaint> {
    if *place.source == IdSource::Sequence {
        return Err(bad(
            "this window remembers producers and their numbers: look at /api/v1/windows/NAME/producers"
                .to_owned(),
        ));
    }
    let scoped = with_extra_keys(scoped, place, query)?;
    let scoped = match query.get("death") {
        Some(json) => DeathQuery::read(json)?.of(&scoped),
        None => scoped,
    };
    let IdSource::Parts(parts) = place.source else {
        if query.get("part").is_some() {
            return Err(bad(format!(
                "the id of this window has one part only ({}): leave ?part= out",
                place.source
            )));
        }
        let in_header = matches!(place.source, IdSource::Header(_));
        return Ok(meanings(id, in_header).iter().map(|value| scoped.key(value)).collect());
    };
    let given = parts_of(parts, query)?;
    // A header may hold a number, and a number is another id than the text with the same digits. Each combination is another key.
    let mut combinations: Vec<Vec<Option<IdValue<'_>>>> = vec![Vec::new()];
    for (n, part) in parts.iter().enumerate() {
        let value = if n == 0 { Some(id) } else { given.get(n).copied().flatten() };
        let in_header = matches!(part, IdPart::Header(_));
        let values: Vec<_> = match value {
            Some(value) => meanings(value, in_header).into_iter().map(Some).collect(),
            None => vec![None],
        };
        combinations = combinations
            .iter()
            .flat_map(|before| values.iter().map(move |value| [&before[..], &[*value]].concat()))
            .collect();
    }
    Ok(combinations.into_iter().map(|parts| scoped.key_of_parts(parts.into_iter())).collect())
}

/// Returns what a text may stand for.
fn meanings(text: &[u8], in_header: bool) -> Vec<IdValue<'_>> {
    let number =
        if in_header { std::str::from_utf8(text).ok().and_then(|text| text.parse().ok()) } else { None };
    let number = number.map(IdValue::Integer);
    [Some(IdValue::Bytes(text)), number].into_iter().flatten().collect()
}

/// Returns the value of each part that the query names. The first part is the id in the path.
fn parts_of<'a>(parts: &[IdPart], query: &'a Query) -> Result<Vec<Option<&'a [u8]>>, Complaint> {
    let mut given = vec![None; parts.len()];
    for text in query.all("part") {
        let value_of = |part: &IdPart| {
            let rest = text.strip_prefix(part.to_string().as_bytes())?;
            rest.strip_prefix(b"=")
        };
        let found =
            parts.iter().zip(&mut given).skip(1).find_map(|(part, slot)| Some((slot, value_of(part)?)));
        match found {
            Some((slot, value)) => *slot = Some(value),
            None => {
                let names: Vec<_> = parts.iter().skip(1).map(|part| format!("?part={part}=VALUE")).collect();
                return Err(bad(format!(
                    "?part={} names no part of the id beyond the first; what is: {}",
                    text.escape_ascii(),
                    names.join(", ")
                )));
            }
        }
    }
    Ok(given)
}

fn with_extra_keys(scoped: Scoped, place: Place<'_>, query: &Query) -> Result<Scoped, Complaint> {
    let mut keys: Vec<&[u8]> = query.all("cc").filter(|key| *key != place.routing_key).collect();
    keys.sort_unstable();
    keys.dedup();
    if keys.is_empty() || place.scope != Scope::RoutingKey {
        return Ok(scoped);
    }
    if may_have_topics(place.exchange) {
        return Err(bad(format!(
            "topic permissions may apply at exchange \"{}\", so there the ids of messages with CC or BCC are each user's own, and can't be looked up",
            place.exchange.escape_ascii()
        )));
    }
    Ok(scoped.with_extra_keys(b"", &keys))
}

/// A table of `x-death` as RabbitMQ's management shows it.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
struct DeathQuery {
    queue: String,
    reason: String,
    count: Option<i64>,
    time: Option<i64>,
    exchange: Option<String>,
    routing_keys: Option<Vec<String>>,
    #[serde(rename = "original-expiration")]
    _original_expiration: Option<String>,
}

impl DeathQuery {
    fn read(json: &[u8]) -> Result<DeathQuery, Complaint> {
        serde_json::from_slice(json).map_err(|error| {
            bad(format!(
                "?death= is no newest entry of x-death ({error}); write it as RabbitMQ's management shows it, as in {{\"queue\":\"q\",\"reason\":\"expired\",\"count\":1,\"time\":1700000000,\"exchange\":\"\",\"routing-keys\":[\"q\"]}}"
            ))
        })
    }

    fn of(&self, scoped: &Scoped) -> Scoped {
        let number = |number: Option<i64>| number.map(|number| IdValue::Integer(number.into()));
        // As the array of long strings that it is on the wire.
        let keys = self.routing_keys.as_ref().map(|keys| {
            let mut raw = Vec::new();
            for key in keys {
                raw.push(b'S');
                raw.extend_from_slice(&u32::try_from(key.len()).unwrap_or(u32::MAX).to_be_bytes());
                raw.extend_from_slice(key.as_bytes());
            }
            raw
        });
        scoped.with_death(&Death {
            queue: self.queue.as_bytes(),
            reason: self.reason.as_bytes(),
            count: number(self.count),
            time: number(self.time),
            exchange: self.exchange.as_ref().map(|exchange| IdValue::Bytes(exchange.as_bytes())),
            routing_keys: keys.as_deref().map(|raw| IdValue::Other(b'A', raw)),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use axum::http::Uri;
    use hapax_core::window::KeyMaker;

    const PLACE: Place<'_> =
        Place { scope: Scope::RoutingKey, source: &IdSource::MessageId, exchange: b"", routing_key: b"k" };

    fn scoped() -> Scoped {
        KeyMaker::new((1, 2)).scoped(Scope::RoutingKey, b"/", b"", b"k")
    }

    fn asked(place: Place<'_>, query: &str) -> Result<Vec<Key>, String> {
        let uri: Uri = format!("/ids/7?{query}").parse().unwrap();
        let query = Query::of(&uri, &KNOWN).unwrap();
        keys(scoped(), place, b"7", &query).map_err(|complaint| complaint.body.error)
    }

    const SEVEN: IdValue<'_> = IdValue::Bytes(b"7");

    #[test]
    fn a_plain_id_has_one_key_and_one_in_a_header_may_be_a_number() {
        assert_eq!(asked(PLACE, ""), Ok(vec![scoped().key(&SEVEN)]));
        let source = IdSource::Header("x".into());
        let number = scoped().key(&IdValue::Integer(7));
        assert_eq!(asked(Place { source: &source, ..PLACE }, ""), Ok(vec![scoped().key(&SEVEN), number]));
        assert!(asked(PLACE, "part=header:x=1").unwrap_err().contains("one part only (message-id)"));
    }

    #[test]
    fn each_part_is_named_and_may_be_absent_or_a_number() {
        let parts = [IdPart::MessageId, IdPart::Header("a=b".into()), IdPart::CorrelationId];
        let source = IdSource::Parts(parts.into());
        let place = Place { source: &source, ..PLACE };
        let key = |second, third| scoped().key_of_parts([Some(SEVEN), second, third].into_iter());
        let (one, text) = (IdValue::Integer(1), IdValue::Bytes(b"1"));
        assert_eq!(asked(place, ""), Ok(vec![key(None, None)]));
        assert_eq!(
            asked(place, "part=correlation-id=1&part=header:a%3Db=1"),
            Ok(vec![key(Some(text), Some(text)), key(Some(one), Some(text))])
        );
        assert_eq!(asked(place, "part=correlation-id="), Ok(vec![key(None, Some(IdValue::Bytes(b"")))]));
        for wrong in ["part=message-id=7", "part=header:a=1", "part=correlation-id"] {
            assert!(asked(place, wrong).unwrap_err().contains("?part=header:a=b=VALUE"), "{wrong}");
        }
    }

    #[test]
    fn routing_keys_in_headers_are_named_where_ids_are_common() {
        let found = asked(PLACE, "cc=c&cc=b&cc=k&cc=b");
        assert_eq!(found, Ok(vec![scoped().with_extra_keys(b"", &[b"b", b"c"]).key(&SEVEN)]));
        let own = Place { exchange: b"orders", ..PLACE };
        assert!(asked(own, "cc=c").unwrap_err().contains("each user's own"));
        assert_eq!(asked(Place { scope: Scope::Exchange, ..own }, "cc=c"), asked(PLACE, ""));
    }

    #[test]
    fn a_death_is_named_as_the_management_shows_it() {
        let json =
            r#"{"count":2,"exchange":"","queue":"q","reason":"expired","routing-keys":["q"],"time":9}"#;
        let encoded = percent_encoding::utf8_percent_encode(json, percent_encoding::NON_ALPHANUMERIC);
        let death = Death {
            queue: b"q",
            reason: b"expired",
            count: Some(IdValue::Integer(2)),
            time: Some(IdValue::Integer(9)),
            exchange: Some(IdValue::Bytes(b"")),
            routing_keys: Some(IdValue::Other(b'A', b"S\0\0\0\x01q")),
        };
        assert_eq!(
            asked(PLACE, &format!("death={encoded}")),
            Ok(vec![scoped().with_death(&death).key(&SEVEN)])
        );
        assert!(asked(PLACE, "death=q").unwrap_err().contains("is no newest entry of x-death"));
    }
}
