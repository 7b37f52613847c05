//! Reads the facts that a `basic.return` shows of its publish: see [`Shown`].

use super::reading::{Kind, Reading};
use crate::session::cx::Cx;
use crate::session::finder::Route;
use crate::session::outbox::View;
use crate::session::returns::{ReturnKey, Shown};
use crate::session::rights::Standing;
use crate::wire::emit;
use crate::wire::method::Return;
use crate::wire::properties::{ContentHeader, IdSource, IdValue};

/// The header that tells a delayed-message exchange for how many milliseconds to keep a message.
const DELAY: &str = "x-delay";

/// Reads what a return shows. `header` is its content header.
pub(super) fn shown(fields: &Return<'_>, header: View<'_>, cx: &mut Cx<'_>) -> Shown {
    let Return { exchange, routing_key, .. } = *fields;
    let keys = &cx.shared.keys;
    let vhost_keeps = !cx.shared.exchanges.is_of_other_type(cx.link.finder.vhost(), exchange);
    Shown {
        by_header: ReturnKey::new(keys, exchange, routing_key, header.payload()),
        kept: vhost_keeps && is_delayed(header.payload()),
        by_claim: by_claim(exchange, routing_key, header, cx),
    }
}

/// Returns the keys that the publish may have by its claim. The window and the id are found as when it was forwarded.
fn by_claim(exchange: &[u8], routing_key: &[u8], header: View<'_>, cx: &mut Cx<'_>) -> Vec<ReturnKey> {
    let publish = emit::publish_payload(exchange, routing_key);
    let former = cx.link.finder.former_routes(cx.shared, &cx.link.rights, &publish);
    let Some(route) = cx.link.finder.route(cx.shared, &cx.link.rights, &publish) else { return Vec::new() };
    let (keys, rights, marks) = (&cx.shared.keys, &cx.link.rights, &cx.link.marks);
    let mut found = Vec::new();
    let judged = |route| Some((route, Route::once_judged(route)?));
    let judges = std::iter::once(route).chain(&former).filter_map(judged);
    // A user that may not write every routing key has ids of its own.
    let standings = [Standing::Common, Standing::OwnIds];
    for ((route, judge), standing) in judges.flat_map(|judged| standings.map(|standing| (judged, standing))) {
        let reading = Reading::of(header.payload(), route, judge, standing, rights, keys, marks);
        if let Kind::Plain(terms) = reading.kind {
            let key = ReturnKey::of_claim(terms.right, terms.claim);
            if !found.contains(&key) {
                found.push(key);
            }
        }
    }
    found
}

/// Returns true if a delayed-message exchange would keep this message.
fn is_delayed(header: &[u8]) -> bool {
    let delay =
        ContentHeader::parse(header, &IdSource::Header(DELAY.into())).ok().and_then(|header| header.id);
    matches!(delay, Some(IdValue::Integer(delay)) if delay > 0)
}
