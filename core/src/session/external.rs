//! Logins by EXTERNAL, where the broker takes the user from the certificate of the connection.
//!
//! If TLS ends in Hapax, the broker never sees the client's certificate. It sees that of Hapax, or none. Everybody who reaches
//! Hapax could then log in as the user of Hapax's own certificate. Therefore Hapax takes EXTERNAL out of what the broker offers,
//! and refuses a client that uses it anyway (`Settings::external` is false).

use super::loopback::{RefusedBecause, RefusedLogin};
use crate::wire::method::StartOk;

/// The mechanism whose user is the one of the connection's certificate.
pub(super) const EXTERNAL: &[u8] = b"EXTERNAL";

/// Returns the refusal of a `connection.start-ok` that logs in by EXTERNAL. `payload` is the payload of the method frame.
pub(super) fn refuse_external(payload: &[u8]) -> Option<RefusedLogin> {
    let StartOk { mechanism, .. } = StartOk::parse(payload).ok()?;
    let mechanism_name = || String::from_utf8_lossy(mechanism).into();
    (mechanism == EXTERNAL).then(|| RefusedLogin {
        mechanism: mechanism_name(),
        user: None,
        reason: RefusedBecause::External,
    })
}

/// Returns the mechanisms that a broker offers, separated by spaces, without EXTERNAL. `None` if it is not among them.
pub(super) fn without_external(mechanisms: &[u8]) -> Option<Vec<u8>> {
    let names = || mechanisms.split(|byte| *byte == b' ');
    if names().all(|name| name != EXTERNAL) {
        return None;
    }
    Some(names().filter(|name| *name != EXTERNAL).collect::<Vec<_>>().join(&b' '))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn external_is_taken_out_of_the_list_and_nothing_else() {
        for (offered, left) in [
            ("PLAIN AMQPLAIN", None),
            ("EXTERNAL PLAIN AMQPLAIN", Some("PLAIN AMQPLAIN")),
            ("PLAIN EXTERNAL AMQPLAIN", Some("PLAIN AMQPLAIN")),
            ("PLAIN EXTERNAL", Some("PLAIN")),
            ("EXTERNAL", Some("")),
            ("EXTERNALS", None),
            ("", None),
        ] {
            let found = without_external(offered.as_bytes());
            assert_eq!(found.as_deref(), left.map(str::as_bytes), "{offered}");
        }
    }
}
