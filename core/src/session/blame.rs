//! Which publish a broker blames for its `channel.close`.
//!
//! RabbitMQ handles the methods of a channel one after the other. A `channel.close` that blames `basic.publish` was caused by
//! one publish, the culprit. It was not stored, nor was anything that was sent after it. The publishes before it may be
//! stored: their outcome is unknown.
//!
//! Where the text names an exchange, every unsettled publish to that exchange is a suspect; otherwise the newest whole one is.
//! A suspect is forgotten. Under `in_doubt = "keep"`, forgetting one that was stored lets a duplicate through, and keeping
//! the culprit would lose it: so all suspects are forgotten. The newest is only a guess where no exchange is named: if it is
//! wrong, the culprit counts as in doubt and `keep` loses it, as `keep` may.
//!
//! Texts of RabbitMQ 3.10 and 4.x:
//!
//! ```text
//! NOT_FOUND - no exchange 'x' in vhost '/'
//! ACCESS_REFUSED - access to exchange 'x' in vhost '/' refused for user 'u'            (since 3.11: write access to …)
//! ACCESS_REFUSED - access to topic 'k' in exchange 'x' in vhost '/' refused for user 'u'
//! ACCESS_REFUSED - cannot publish to internal exchange 'x' in vhost '/'
//! ```

use crate::wire::method::{Close, MethodId};

/// A `channel.close` that blames `basic.publish`.
#[derive(Debug)]
pub(super) struct Blame {
    /// the exchange that the text names
    exchange: Option<Box<[u8]>>,
    /// the routing key that it names
    topic: Option<Box<[u8]>>,
}

/// The default exchange, as texts about rights name it.
const DEFAULT: &[u8] = b"amq.default";

impl Blame {
    /// Reads the payload of a `channel.close`. `None`: it does not blame a publish.
    pub(super) fn of(payload: &[u8]) -> Option<Blame> {
        let close = Close::parse(payload).ok().filter(|close| close.culprit == MethodId::BASIC_PUBLISH)?;
        let named = matches!(close.reply_code, 403 | 404).then(|| exchange_in(close.reply_text)).flatten();
        let topic = named.and_then(|_| topic_in(close.reply_text));
        Some(Blame { exchange: named.map(Into::into), topic: topic.map(Into::into) })
    }

    /// Whether the text names this exchange.
    pub(super) fn names(&self, exchange: &[u8]) -> bool {
        match self.exchange.as_deref() {
            Some(DEFAULT) => exchange.is_empty() || exchange == DEFAULT,
            Some(named) => named == exchange,
            None => false,
        }
    }

    /// Whether the text refuses a publish to this exchange with this routing key, as far as it says.
    pub(super) fn refuses(&self, exchange: &[u8], routing_key: &[u8]) -> bool {
        self.names(exchange) && self.topic.as_deref().is_none_or(|topic| topic == routing_key)
    }

    /// Whether the text names an exchange at all.
    pub(super) fn names_any(&self) -> bool {
        self.exchange.is_some()
    }

    /// Takes whether each publish, oldest first, is a suspect. Returns whether each of them was not stored, as far as one
    /// can tell: the suspects, or the newest where there is none, and all that came after it for certain. All others are in
    /// doubt.
    pub(super) fn guilty(suspects: impl Iterator<Item = bool>) -> Vec<bool> {
        let mut guilty: Vec<bool> = suspects.collect();
        let newest = guilty.iter().rposition(|suspect| *suspect).or(guilty.len().checked_sub(1));
        if let Some(after) = newest.and_then(|newest| guilty.get_mut(newest..)) {
            after.fill(true);
        }
        guilty
    }
}

/// The name in `exchange 'NAME' in vhost '…`. Names may have quotes in them, and a topic stands before its exchange: the last
/// one counts.
fn exchange_in(text: &[u8]) -> Option<&[u8]> {
    const BEFORE: &[u8] = b"exchange '";
    const AFTER: &[u8] = b"' in vhost '";
    let end = text.windows(AFTER.len()).rposition(|part| part == AFTER)?;
    let head = text.get(..end)?;
    let start = head.windows(BEFORE.len()).rposition(|part| part == BEFORE)? + BEFORE.len();
    head.get(start..)
}

/// The name in `to topic 'NAME' in exchange '…`. The first quote and the last exchange count, as above.
fn topic_in(text: &[u8]) -> Option<&[u8]> {
    const BEFORE: &[u8] = b" to topic '";
    const AFTER: &[u8] = b"' in exchange '";
    let end = text.windows(AFTER.len()).rposition(|part| part == AFTER)?;
    let start = text.windows(BEFORE.len()).position(|part| part == BEFORE)? + BEFORE.len();
    text.get(start..end)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_exchange_in_the_broker_s_texts() {
        let cases: [(&str, Option<&str>); 9] = [
            ("NOT_FOUND - no exchange 'x' in vhost '/'", Some("x")),
            ("ACCESS_REFUSED - access to exchange 'x y' in vhost '/' refused for user 'u'", Some("x y")),
            ("ACCESS_REFUSED - write access to exchange 'x' in vhost 'v' refused for user 'u'", Some("x")),
            (
                "ACCESS_REFUSED - access to topic 'a.b' in exchange 'x' in vhost '/' refused for user 'u'",
                Some("x"),
            ),
            (
                "ACCESS_REFUSED - write access to topic 'exchange 'y' in exchange 'x' in vhost '/' …",
                Some("x"),
            ),
            ("ACCESS_REFUSED - cannot publish to internal exchange 'it's' in vhost '/'", Some("it's")),
            ("PRECONDITION_FAILED - invalid expiration 'soon'", None),
            ("NOT_FOUND - no exchange 'a name that is cut...", None),
            ("NOT_FOUND", None),
        ];
        for (text, exchange) in cases {
            assert_eq!(exchange_in(text.as_bytes()), exchange.map(str::as_bytes), "{text}");
        }
    }

    #[test]
    fn the_topic_in_the_broker_s_texts() {
        let of =
            |text: &str| topic_in(text.as_bytes()).map(|topic| String::from_utf8_lossy(topic).into_owned());
        let topic =
            "ACCESS_REFUSED - write access to topic 'a.'b' in exchange 'x' in vhost '/' refused for user 'u'";
        assert_eq!(of(topic).as_deref(), Some("a.'b"));
        assert_eq!(of("ACCESS_REFUSED - access to exchange 'x' in vhost '/' refused for user 'u'"), None);
        assert_eq!(of("ACCESS_REFUSED - access to topic 'a name that is cut..."), None);
    }

    #[test]
    fn only_a_publish_can_be_the_culprit() {
        let close = |code: u16, text: &str, method: u16| {
            let mut payload = vec![0, 20, 0, 40];
            payload.extend(code.to_be_bytes());
            payload.push(u8::try_from(text.len()).unwrap());
            payload.extend(text.as_bytes());
            payload.extend([0, 60]);
            payload.extend(method.to_be_bytes());
            Blame::of(&payload)
        };
        let text = "ACCESS_REFUSED - access to exchange 'amq.default' in vhost '/' refused for user 'u'";
        assert!(close(403, text, 20).is_none(), "basic.consume");
        let named = close(403, text, 40).unwrap();
        assert!(named.names(b"") && named.names(b"amq.default") && !named.names(b"x"));
        assert!(!close(406, text, 40).unwrap().names_any());
    }

    #[test]
    fn suspects_and_what_was_sent_after_them() {
        let guilty = |suspects: &[bool]| Blame::guilty(suspects.iter().copied());
        assert_eq!(guilty(&[false, true, false, true, false]), [false, true, false, true, true]);
        assert_eq!(guilty(&[false, false, false]), [false, false, true], "the newest");
        assert_eq!(guilty(&[false]), [true]);
        assert_eq!(guilty(&[]), [false; 0]);
    }
}
