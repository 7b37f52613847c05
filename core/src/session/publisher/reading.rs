//! How a window finds the id of a publish: in its header, or not at all.

use crate::session::candidate::Terms;
use crate::session::finder::{Judge, Route};
use crate::session::hosts::Marks;
use crate::session::outbox::View;
use crate::session::returns::ReturnKey;
use crate::session::rights::Standing;
use crate::window::{KeyMaker, Window};
use crate::wire::properties::{ContentHeader, IdSource};
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

/// The id of a publish, as its content header shows it to a window.
pub(super) enum Reading {
    /// An id. (The client's tag is not in the terms yet.)
    Plain(Terms),
    /// The id is the body.
    Body,
    Bypass,
    NoId,
    /// The broker will refuse it.
    Malformed,
}

impl Reading {
    #[inline]
    pub(super) fn of(
        header: View<'_>,
        route: &Route,
        judge: &Judge,
        standing: Standing,
        keys: &KeyMaker,
        marks: &Marks,
    ) -> Reading {
        let rules = judge.window.rules();
        let Ok(found) = ContentHeader::parse(header.payload(), &rules.id) else { return Reading::Malformed };
        if found.bypass {
            return Reading::Bypass;
        }
        if rules.id == IdSource::Body {
            return Reading::Body;
        }
        let Some(id) = found.id else { return Reading::NoId };
        let return_key = || ReturnKey::new(keys, &route.target, &route.routing_key, header.payload());
        Reading::Plain(Terms {
            claim: judge.needs.scoped(&judge.scoped, standing).key(&id).into(),
            ttl: ttl_of(&found, &judge.window),
            client: None,
            right: judge.needs.right,
            return_key: route.mandatory.then(return_key),
            mark: marks.of_publish(judge, |route| route.id(&id)),
        })
    }
}

/// Returns for how long the id is remembered.
pub(super) fn ttl_of(found: &ContentHeader<'_>, window: &Arc<dyn Window>) -> Duration {
    found.cache_ttl_ms.map_or_else(|| window.ttl(), Duration::from_millis)
}
