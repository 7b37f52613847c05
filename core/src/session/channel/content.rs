//! How much of a message has passed: it takes a method, a header, and body frames until the body is whole.

use crate::session::outbox::View;
use crate::wire::frame::FrameKind;
use crate::wire::method::MethodId;
use crate::wire::properties::ContentHeader;

/// Where the message is that comes in frames of one channel, in one direction.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub(super) enum Content {
    /// No message has begun, or all of it has passed.
    #[default]
    Idle,
    /// Its method has passed. Its header comes next.
    Header,
    /// Its body is passing. This many bytes are missing.
    Body(u64),
}

impl Content {
    /// Returns where the message is after this frame.
    #[inline]
    pub(super) fn after(self, kind: FrameKind, id: Option<MethodId>, frame: View<'_>) -> Content {
        const BEGIN: [MethodId; 4] = [
            MethodId::BASIC_DELIVER,
            MethodId::BASIC_GET_OK,
            MethodId::BASIC_RETURN,
            MethodId::BASIC_PUBLISH,
        ];
        let left = match (self, kind, id) {
            (_, _, Some(id)) if BEGIN.contains(&id) => return Content::Header,
            (_, FrameKind::Header, _) => ContentHeader::size_of(frame.payload()).map_or(0, |(_, size)| size),
            (Content::Body(left), FrameKind::Body, _) => left.saturating_sub(frame.payload().len() as u64),
            (as_before, _, _) => return as_before,
        };
        if left == 0 { Content::Idle } else { Content::Body(left) }
    }
}
