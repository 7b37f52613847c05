//! The users of the model broker, and what each may do.

use super::truth::{BACKING, EXCHANGES, OTHER_VHOST, ROUTING_KEYS, VHOST};

/// She may publish everywhere.
pub const OWNER: &str = "alice";
/// She may not publish to the second exchange. She is honest: her other messages are held to all invariants.
pub const RESTRICTED: &str = "mallory";
/// He may publish to the exchange without a window only.
pub const NEIGHBOUR: &str = "nick";
/// She may do that, and publish to the second exchange with the second routing key.
pub const KEYHOLDER: &str = "kate";
/// He has a vhost of his own.
pub const TENANT: &str = "tom";
/// Stands for a client that the broker does not know: no login, or a wrong password.
pub const NOBODY: &str = "nobody";

/// Returns the user with these credentials (`\0user\0password`; a user's password is the same as the name).
pub fn who(response: &[u8]) -> &'static str {
    let mut parts = response.split(|octet| *octet == 0).skip(1);
    let (name, password) = (parts.next().unwrap_or_default(), parts.next().unwrap_or_default());
    let known = [OWNER, RESTRICTED, NEIGHBOUR, KEYHOLDER, TENANT];
    known.into_iter().find(|user| user.as_bytes() == name && name == password).unwrap_or(NOBODY)
}

/// Whether a user may use a vhost.
pub fn may_enter(user: &str, vhost: &str) -> bool {
    match vhost {
        VHOST => user != TENANT,
        OTHER_VHOST => user == TENANT,
        _ => false,
    }
}

/// Returns whether a user who is logged in may publish.
pub fn may_publish(user: &str, exchange: &str, routing_key: &str) -> bool {
    let second = exchange == EXCHANGES[1] || exchange == BACKING;
    match user {
        OWNER | TENANT => true,
        RESTRICTED => !second,
        KEYHOLDER => exchange == EXCHANGES[2] || (second && routing_key == ROUTING_KEYS[1]),
        NEIGHBOUR => exchange == EXCHANGES[2],
        _ => false,
    }
}
