//! The messages: a wallet that is credited, which nobody wants to happen twice. About 256 bytes of JSON.

use lapin::BasicProperties;
use lapin::types::{AMQPValue, FieldTable, LongString, ShortString};

/// The part of an id in front of its number.
const PREFIX: &str = "credit-";
const PERSISTENT: u8 = 2;

/// The message-id.
pub(super) fn id(number: u64) -> String {
    format!("{PREFIX}{number:012}")
}

/// The number in a message-id of ours.
pub(super) fn number(id: &str) -> Option<u64> {
    id.strip_prefix(PREFIX)?.parse().ok()
}

/// The body: the same for every publish of an id.
pub(super) fn body(id: &str) -> String {
    let number = number(id).unwrap_or_default();
    format!(
        "{{\"event\":\"wallet.credited\",\"id\":\"{id}\",\"wallet\":\"w-{wallet:08}\",\"amount\":{amount},\
         \"currency\":\"EUR\",\"reason\":\"refund\",\"order\":\"o-{number:010}\",\
         \"note\":\"Returned within 30 days, paid back to the wallet that was charged\",\"schema\":3,\
         \"source\":\"refunds/eu-west-1\"}}",
        wallet = number.wrapping_mul(7919) % 100_000_000,
        amount = number % 9_900 + 100,
    )
}

/// The properties, as a careful publisher sets them.
pub(super) fn properties(id: &str, publisher: &str) -> BasicProperties {
    let mut headers = FieldTable::default();
    let text = |text: String| AMQPValue::LongString(LongString::from(text));
    headers.insert(ShortString::from("publisher"), text(publisher.to_owned()));
    headers.insert(ShortString::from("tenant"), text("acme".to_owned()));
    headers.insert(ShortString::from("attempt-of"), text(id.to_owned()));
    BasicProperties::default()
        .with_message_id(ShortString::from(id))
        .with_content_type(ShortString::from("application/json"))
        .with_delivery_mode(PERSISTENT)
        .with_type(ShortString::from("wallet.credited"))
        .with_app_id(ShortString::from("refunds"))
        .with_headers(headers)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_are_read_back() {
        assert_eq!(number(&id(79_999)), Some(79_999));
        assert_eq!(number("other"), None);
    }

    #[test]
    fn the_body_is_json_of_about_256_bytes() {
        let body = body(&id(1));
        assert!((200..320).contains(&body.len()), "{}", body.len());
        assert!(serde_json::from_str::<serde_json::Value>(&body).is_ok());
    }
}
