//! Decodes the query and the last path segment of a URL. Both are bytes and not text, because AMQP compares bytes.

use super::Complaint;
use crate::config::number;
use axum::http::{StatusCode, Uri};
use percent_encoding::percent_decode;

/// The key-value pairs of a query in form encoding: `+` is a space, `%2B` is a plus sign.
#[derive(Debug)]
pub(super) struct Query(Vec<(Vec<u8>, Vec<u8>)>);

impl Query {
    /// Parses the query of this URL. A key that is not in `known` is an error: a misspelt key would otherwise have no
    /// effect, and nobody would notice.
    pub(super) fn of(uri: &Uri, known: &[&str]) -> Result<Query, Complaint> {
        let pairs = uri.query().unwrap_or_default().split('&').filter(|pair| !pair.is_empty());
        let query: Vec<_> = pairs
            .map(|pair| pair.split_once('=').unwrap_or((pair, "")))
            .map(|(key, value)| (form(key), form(value)))
            .collect();
        match query.iter().find(|(key, _)| !known.iter().any(|known| known.as_bytes() == key)) {
            Some((key, _)) => Err(bad(format!(
                "?{}= is not known here; what is: {}",
                key.escape_ascii(),
                if known.is_empty() { "nothing".to_owned() } else { known.join(", ") }
            ))),
            None => Ok(Query(query)),
        }
    }

    /// Returns the first value of this key.
    pub(super) fn get(&self, key: &str) -> Option<&[u8]> {
        self.0.iter().find(|(have, _)| have == key.as_bytes()).map(|(_, value)| &**value)
    }

    /// Returns all values of this key.
    pub(super) fn all<'a>(&'a self, key: &'a str) -> impl Iterator<Item = &'a [u8]> {
        self.0.iter().filter(move |(have, _)| have == key.as_bytes()).map(|(_, value)| &**value)
    }

    /// Returns the number under this key, at most `most`. Returns `default` if the key is absent.
    pub(super) fn number(&self, key: &str, default: usize, most: usize) -> Result<usize, Complaint> {
        let Some(value) = self.get(key) else { return Ok(default) };
        let number = std::str::from_utf8(value).ok().and_then(number::count);
        let number = number.and_then(|number| usize::try_from(number).ok());
        number.filter(|number| *number <= most).ok_or_else(|| {
            bad(format!("?{key}= is \"{}\"; write a number from 0 to {most}", value.escape_ascii()))
        })
    }
}

/// Returns the last segment of a path, percent-decoded.
pub(super) fn last_part(uri: &Uri) -> Vec<u8> {
    let part = uri.path().rsplit('/').next().unwrap_or_default();
    percent_decode(part.as_bytes()).collect()
}

pub(super) fn bad(what: impl Into<String>) -> Complaint {
    Complaint::new(StatusCode::BAD_REQUEST, what)
}

fn form(text: &str) -> Vec<u8> {
    let blanks: Vec<u8> = text.bytes().map(|byte| if byte == b'+' { b' ' } else { byte }).collect();
    percent_decode(&blanks).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bytes_not_text() {
        let uri: Uri = "/a/ids/%FF%2Fx%00+y?exchange=a%20b+c%2B&routing_key=%FF&empty=&bare".parse().unwrap();
        assert_eq!(last_part(&uri), b"\xff/x\0+y");
        let query = Query::of(&uri, &["exchange", "routing_key", "empty", "bare"]).unwrap();
        assert_eq!(query.get("exchange"), Some(&b"a b c+"[..]));
        assert_eq!(query.get("routing_key"), Some(&b"\xff"[..]));
        assert_eq!((query.get("empty"), query.get("bare")), (Some(&b""[..]), Some(&b""[..])));
        assert_eq!(query.get("other"), None);
        let complaint = Query::of(&uri, &["exchange", "empty", "bare"]).unwrap_err();
        assert_eq!(complaint.body.error, "?routing_key= is not known here; what is: exchange, empty, bare");
    }

    #[test]
    fn numbers_have_bounds() {
        let number = |text: &str| {
            let uri: Uri = format!("/?limit={text}").parse().unwrap();
            Query::of(&uri, &["limit"]).and_then(|query| query.number("limit", 100, 1000)).ok()
        };
        assert_eq!([number("0"), number("1000"), number("1k")], [Some(0), Some(1000), Some(1000)]);
        assert_eq!([number("1001"), number("-1"), number(""), number("ten")], [None; 4]);
    }
}
