//! The users who may log in from the broker's own host only, as `guest` in RabbitMQ (`loopback_users`).
//!
//! RabbitMQ checks the address that a client has connected to. If the broker stands on the same host as Hapax, that is a
//! loopback address for all clients of Hapax. Hapax makes this check in its place, with the address that the client really has.

use super::external::EXTERNAL;
use crate::wire::method::StartOk;
use core::net::IpAddr;

/// Returns true if only this host has such an address. As in RabbitMQ, an IPv4 address may be written as an IPv6 one.
pub fn is_loopback(address: IpAddr) -> bool {
    address.to_canonical().is_loopback()
}

/// Names of users who may log in from this host only.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct LoopbackUsers(Box<[Box<str>]>);

impl LoopbackUsers {
    /// These users. An empty list turns the check off.
    pub fn new<'a>(names: impl IntoIterator<Item = &'a str>) -> LoopbackUsers {
        LoopbackUsers(names.into_iter().map(Box::from).collect())
    }

    /// Returns how a `connection.start-ok` tries to log in, if the client may not do so from this address. `payload` is the
    /// payload of the method frame.
    pub(super) fn refuse(&self, peer: IpAddr, payload: &[u8]) -> Option<RefusedLogin> {
        if self.0.is_empty() || is_loopback(peer) {
            return None;
        }
        // If this is no start-ok, the broker does not take it for one, either.
        let StartOk { mechanism, response } = StartOk::parse(payload).ok()?;
        let user = match Login::of(mechanism, response) {
            Login::Named(user) => Some(self.0.iter().find(|name| name.as_bytes() == user)?.clone()),
            Login::Unreadable => None,
            Login::Elsewhere => return None,
        };
        Some(RefusedLogin {
            mechanism: String::from_utf8_lossy(mechanism).into(),
            user,
            reason: RefusedBecause::Loopback,
        })
    }
}

/// A login that Hapax has refused.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct RefusedLogin {
    /// the SASL mechanism
    pub mechanism: Box<str>,
    /// the user; `None` if the mechanism does not show who it is
    pub user: Option<Box<str>>,
    /// why
    pub reason: RefusedBecause,
}

/// Why Hapax refuses a login.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum RefusedBecause {
    /// The user may log in from this host only, or may be such a user.
    Loopback,
    /// The broker would take the user from Hapax's own certificate.
    External,
    /// The user has as many connections as it may have.
    UserConnections {
        /// the limit
        max: usize,
    },
}

/// Where the broker finds the user of a login.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Login<'a> {
    /// In the response: this one.
    Named(&'a [u8]),
    /// In no place that the client can choose. The broker refuses this login (no valid PLAIN response), or takes the user
    /// from the certificate of its own connection (EXTERNAL), which is not the client's.
    Elsewhere,
    /// In a place that Hapax does not know. (ANONYMOUS of RabbitMQ 4 logs in as `guest`.)
    Unreadable,
}

impl<'a> Login<'a> {
    /// Finds the user in the response of a `start-ok`.
    pub(super) fn of(mechanism: &[u8], response: &'a [u8]) -> Login<'a> {
        match mechanism {
            b"PLAIN" => plain_user(response).map_or(Login::Elsewhere, Login::Named),
            b"AMQPLAIN" => amqplain_user(response).map_or(Login::Unreadable, Login::Named),
            // The password comes later, by secure-ok.
            b"RABBIT-CR-DEMO" => Login::Named(response),
            EXTERNAL => Login::Elsewhere,
            _ => Login::Unreadable,
        }
    }
}

/// Returns the user in `authzid NUL user NUL password`.
fn plain_user(response: &[u8]) -> Option<&[u8]> {
    let mut parts = response.split(|byte| *byte == 0);
    let user = parts.nth(1)?;
    // Without a third part this is no PLAIN response, and the second part may be a password.
    parts.next().map(|_| user)
}

/// Returns the value of `LOGIN` in a table without its length. `LOGIN` and `PASSWORD` may come in any order.
fn amqplain_user(mut rest: &[u8]) -> Option<&[u8]> {
    while let Some((length, after)) = rest.split_first() {
        let (key, after) = after.split_at_checked(usize::from(*length))?;
        let (tag, after) = after.split_first()?;
        let (length, after) = after.split_first_chunk::<4>()?;
        let (value, after) = after.split_at_checked(usize::try_from(u32::from_be_bytes(*length)).ok()?)?;
        if *tag != b'S' {
            return None;
        }
        if key == b"LOGIN" {
            return Some(value);
        }
        rest = after;
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A `start-ok` with these octets as its table.
    fn start_ok(table: &[u8], mechanism: &str, response: &[u8]) -> Vec<u8> {
        let long = |bytes: &[u8]| [&u32::try_from(bytes.len()).unwrap().to_be_bytes()[..], bytes].concat();
        let short = |text: &str| [&[u8::try_from(text.len()).unwrap()], text.as_bytes()].concat();
        [&[0, 10, 0, 11][..], &long(table), &short(mechanism), &long(response), &short("en_US")].concat()
    }

    #[test]
    fn loopback_is_every_form_of_it() {
        for (address, is) in [
            ("127.0.0.1", true),
            ("127.255.3.4", true),
            ("::1", true),
            ("::ffff:127.0.0.1", true),
            ("::ffff:127.9.9.9", true),
            ("128.0.0.1", false),
            ("10.0.0.1", false),
            ("0.0.0.0", false),
            ("::", false),
            ("::2", false),
            ("::127.0.0.1", false),
            ("::ffff:10.0.0.1", false),
            ("fe80::1", false),
        ] {
            assert_eq!(is_loopback(address.parse().unwrap()), is, "{address}");
        }
    }

    #[test]
    fn a_loopback_user_is_known_by_every_mechanism() {
        let users = LoopbackUsers::new(["guest", "operator"]);
        let far = "192.0.2.7".parse().unwrap();
        let table = b"\x08PASSWORDS\0\0\0\x01x\x05LOGINS\0\0\0\x05guest";
        let odd = b"\x01xt\x01\x05LOGINS\0\0\0\x05guest\x08PASSWORDS\0\0\0\x05guest";
        let cases: [(&str, &[u8], bool); 16] = [
            ("PLAIN", b"\0guest\0guest", true),
            ("PLAIN", b"\0operator\0x", true),
            ("PLAIN", b"bob\0guest\0guest", true),
            ("PLAIN", b"guest\0bob\0guest", false),
            ("PLAIN", b"\0bob\0guest", false),
            ("PLAIN", b"\0Guest\0guest", false),
            ("PLAIN", b"\0guest ", false),
            ("PLAIN", b"", false),
            ("AMQPLAIN", table, true),
            ("AMQPLAIN", odd, true),
            ("AMQPLAIN", b"\x05LOGINS\0\0\0\x03bob", false),
            ("RABBIT-CR-DEMO", b"guest", true),
            ("RABBIT-CR-DEMO", b"bob", false),
            ("EXTERNAL", b"guest", false),
            ("ANONYMOUS", b"", true),
            ("of somebody else", b"bob", true),
        ];
        for (mechanism, response, refused) in cases {
            let payload = start_ok(b"", mechanism, response);
            let shown = response.escape_ascii().to_string();
            assert_eq!(users.refuse(far, &payload).is_some(), refused, "{mechanism} {shown}");
            assert_eq!(users.refuse("127.0.0.1".parse().unwrap(), &payload), None, "{mechanism} {shown}");
            assert_eq!(LoopbackUsers::default().refuse(far, &payload), None, "{mechanism} {shown}");
        }
    }

    #[test]
    fn a_table_that_nobody_can_read_hides_no_user() {
        let users = LoopbackUsers::new(["guest"]);
        let far = "192.0.2.7".parse().unwrap();
        for table in [&b"\x01\xff?"[..], b"\xff", &[0; 9000]] {
            let refused = users.refuse(far, &start_ok(table, "PLAIN", b"\0guest\0guest"));
            assert_eq!(refused.and_then(|login| login.user).as_deref(), Some("guest"));
        }
        let whole = start_ok(b"", "PLAIN", b"\0guest\0guest");
        let parts = whole.len() - "en_US".len() - 1;
        assert!((0..parts).all(|end| users.refuse(far, &whole[..end]).is_none()), "no broker can read these");
    }
}
