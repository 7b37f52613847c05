//! The names that a client gives for itself in the handshake. Operators see them in lists of connections.
//!
//! The broker has checked the user once the connection is open. Nobody checks the other names. The password is never kept.

use super::loopback::Login;
use amq_protocol::protocol::connection::StartOk;
use amq_protocol::types::AMQPValue;

/// Characters kept of each text. It is kept as long as the connection lives, and a client may send a text of any length.
const LONGEST: usize = 128;

/// User, library and application of a client, as far as it has sent them.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct About {
    /// the user's name, if the mechanism shows it (PLAIN, AMQPLAIN, RABBIT-CR-DEMO)
    pub user: Option<Box<str>>,
    /// the client library
    pub product: Option<Box<str>>,
    /// its version
    pub version: Option<Box<str>>,
    /// what it runs on
    pub platform: Option<Box<str>>,
    /// the name that the application gives the connection
    pub connection_name: Option<Box<str>>,
}

impl About {
    /// Reads the names in a `connection.start-ok`.
    pub(super) fn of(start_ok: &StartOk) -> About {
        let property = |name: &str| {
            let value = start_ok.client_properties.inner().iter().find(|(key, _)| key.as_str() == name);
            match value {
                Some((_, AMQPValue::LongString(text))) => Some(shown(text.as_bytes())),
                Some((_, AMQPValue::ShortString(text))) => Some(shown(text.as_str().as_bytes())),
                _ => None,
            }
        };
        let user = match Login::of(start_ok.mechanism.as_str().as_bytes(), start_ok.response.as_bytes()) {
            Login::Named(user) => Some(shown(user)),
            Login::Elsewhere | Login::Unreadable => None,
        };
        About {
            user,
            product: property("product"),
            version: property("version"),
            platform: property("platform"),
            connection_name: property("connection_name"),
        }
    }
}

/// Returns the first characters of a text.
fn shown(text: &[u8]) -> Box<str> {
    String::from_utf8_lossy(text).chars().take(LONGEST).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use amq_protocol::types::FieldTable;

    fn about(mechanism: &str, response: &[u8]) -> About {
        let mut client_properties = FieldTable::default();
        client_properties.insert("product".into(), AMQPValue::LongString("a library".into()));
        client_properties.insert("version".into(), AMQPValue::LongString("9".repeat(1000).as_str().into()));
        client_properties.insert("platform".into(), AMQPValue::Boolean(true));
        let response = response.into();
        About::of(&StartOk {
            client_properties,
            mechanism: mechanism.into(),
            response,
            locale: "en_US".into(),
        })
    }

    #[test]
    fn the_user_is_found_and_the_password_is_not() {
        let table = b"\x08PASSWORDS\0\0\0\x06secret\x05LOGINS\0\0\0\x03bob";
        let cases: [(&str, &[u8], Option<&str>); 9] = [
            ("PLAIN", b"\0bob\0secret", Some("bob")),
            ("PLAIN", b"admin\0bob\0secret", Some("bob")),
            ("PLAIN", b"\0\0secret", Some("")),
            ("PLAIN", b"secret", None),
            ("PLAIN", b"\0secret", None),
            ("AMQPLAIN", table, Some("bob")),
            ("AMQPLAIN", &table[..20], None),
            ("AMQPLAIN", b"\x08PASSWORDS\xff\xff\xff\xffsecret", None),
            ("EXTERNAL", b"\0bob\0secret", None),
        ];
        for (mechanism, response, user) in cases {
            let about = about(mechanism, response);
            assert_eq!(about.user.as_deref(), user, "{mechanism} {:?}", response.escape_ascii().to_string());
            assert!(!format!("{about:?}").contains("secret"));
        }
    }

    #[test]
    fn properties_are_texts_and_bounded() {
        let about = about("PLAIN", b"");
        assert_eq!(about.product.as_deref(), Some("a library"));
        assert_eq!(about.version.map(|version| version.len()), Some(LONGEST));
        assert_eq!((about.platform, about.connection_name), (None, None));
    }
}
