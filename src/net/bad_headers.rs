//! The log line about a header that a client sends and Hapax can't understand.

use hapax_core::session::Session;
use hapax_core::wire::BadHeader;
use std::net::SocketAddr;

/// Says who sends the header, what becomes of the message, and what to write instead.
pub(super) fn warn(header: BadHeader, peer: SocketAddr, session: &Session, left_out: u64) {
    let (name, then) = (header.name(), consequence(header));
    let vhost = session.vhost().map(|vhost| String::from_utf8_lossy(vhost).into_owned());
    let user = session.about().and_then(|about| about.user.as_deref());
    tracing::warn!(target: "hapax::net", %peer, user, vhost, header = name, left_out, "a client sends a header that can't be understood: {then}");
}

fn consequence(header: BadHeader) -> &'static str {
    match header {
        BadHeader::CacheTtl => {
            "the message gets the window's ttl. Let it send milliseconds: 500, \"500\" or \"500ms\""
        }
        BadHeader::Bypass => "the message is judged. Let it send true or false, 1 or 0, or a text of these",
        BadHeader::Death => {
            "the message is forwarded and not judged. Let it send the header as it came from the broker, or not at all"
        }
        BadHeader::Producer => {
            "the message has no id (missing_id says what happens). Let it send a text of 1 to 255 bytes"
        }
        BadHeader::Sequence | BadHeader::Epoch => {
            "the message has no id (missing_id says what happens). Let it send an integer from 0 to 9223372036854775807"
        }
        BadHeader::Cc | BadHeader::Bcc => {
            "the message is forwarded, and the broker refuses it. Let it send an array of strings"
        }
    }
}
