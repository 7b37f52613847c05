//! Reads the content header of a publish, and says what its window has to do with it.

use crate::session::candidate::Terms;
use crate::session::finder::{Judge, Route, Verify};
use crate::session::hosts::Marks;
use crate::session::message_key::MessageKey;
use crate::session::outbox::View;
use crate::session::returns::ReturnKey;
use crate::session::rights::{OwnRights, Standing};
use crate::window::{KeyMaker, Scoped, Window};
use crate::wire::{BadHeaders, ContentHeader, IdSource};
use std::sync::Arc;
use std::time::Duration;

/// A publish whose header has come.
#[derive(Clone, Copy)]
pub(super) struct Start<'a> {
    pub(super) publish: View<'a>,
    pub(super) header: View<'a>,
    /// the header, and the frames of the body that have come
    pub(super) content: View<'a>,
    /// octets of the body that are missing
    pub(super) left: u64,
}

/// A publish, as its content header shows it to a window.
pub(super) struct Reading {
    pub(super) kind: Kind,
    /// headers whose value can't be understood
    pub(super) bad: BadHeaders,
}

/// Says how a window handles a publish.
pub(super) enum Kind {
    /// It has an id. (The client's tag is not in the terms yet.)
    Plain(Terms),
    /// The id is the body, and this makes the key of it.
    Body(Scoped),
    Bypass,
    NoId,
    /// The broker will refuse it, or nobody knows which messages are the same as this one.
    Malformed,
}

impl Reading {
    /// Reads the payload of a content header.
    #[inline]
    pub(super) fn of(
        header: &[u8],
        route: &Route,
        judge: &Judge,
        standing: Standing,
        rights: &OwnRights,
        keys: &KeyMaker,
        marks: &Marks,
    ) -> Reading {
        let Ok(found) = ContentHeader::parse(header, &judge.window.rules().id) else {
            return Reading { kind: Kind::Malformed, bad: BadHeaders::NONE };
        };
        let mut bad = found.bad;
        if found.bypass {
            return Reading { kind: Kind::Bypass, bad };
        }
        let kind = match MessageKey::of(&found, route, judge, standing, rights) {
            MessageKey::Known(claim) => {
                let by_header = route.mandatory || judge.verify == Verify::ByHeader;
                let shown_as = |found| match MessageKey::of(&found, route, judge, standing, rights) {
                    MessageKey::Known(shown) if by_header || shown != claim => {
                        Some(ReturnKey::of_claim(judge.needs.right, shown))
                    }
                    _ => None,
                };
                let altered = found.without_bcc().and_then(shown_as);
                let return_key = || ReturnKey::new(keys, &route.target, &route.routing_key, header);
                Kind::Plain(Terms {
                    claim,
                    ttl: ttl_of(&found, &judge.window),
                    tenant: judge.tenant,
                    client: None,
                    right: judge.needs.right,
                    asked: route.mandatory,
                    verify: judge.verify != Verify::No,
                    return_key: altered.or_else(|| by_header.then(return_key)),
                    mark: marks.of_publish(judge, |route| route.found(&found, &judge.window.rules().id)),
                })
            }
            MessageKey::Body(scoped) => Kind::Body(scoped),
            MessageKey::NoId => Kind::NoId,
            MessageKey::BadId(headers) => {
                bad = bad.or(headers);
                Kind::NoId
            }
            MessageKey::Unreadable(headers) => {
                bad = bad.or(headers);
                Kind::Malformed
            }
        };
        Reading { kind, bad }
    }
}

/// Returns for how long the id is remembered. A number is remembered with its producer, whatever the message says.
pub(super) fn ttl_of(found: &ContentHeader<'_>, window: &Arc<dyn Window>) -> Duration {
    let own = found.cache_ttl_ms.filter(|_| window.rules().id != IdSource::Sequence);
    own.map_or_else(|| window.ttl(), Duration::from_millis)
}
