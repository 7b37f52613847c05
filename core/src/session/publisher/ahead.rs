//! Publishes that stand whole in a read, as nearly all do: each is taken as one, and the window is shown the keys of those
//! that follow before it is asked for the first. So the memory that it has to look at is fetched for all of them at once.

use super::reading::{Reading, Start};
use crate::session::candidate::Terms;
use crate::session::cx::Cx;
use crate::session::inbound::Whole;
use crate::session::rights::Standing;
use crate::window::{HINTED, Key, Window, is_same};
use crate::wire::ChannelId;
use crate::wire::method::MethodId;
use crate::wire::properties::IdSource;
use bytes::Bytes;
use std::sync::Arc;

/// The next frames of a read.
pub(super) enum Next {
    /// publishes for this window that need nothing special
    Plain(Arc<dyn Window>),
    /// a publish that no window judges now
    Unmatched { whole: Whole, mandatory: bool },
    /// a publish that a window has to look at more closely
    Special(Whole),
    /// other frames, or a publish that can't be taken as one
    Other,
}

/// The plain publishes that come next.
#[derive(Default)]
pub(super) struct Ahead(Vec<(Whole, Terms)>);

impl Ahead {
    /// Looks at the publishes that come next, `most` at most, as far as they are plain. Nothing is taken.
    pub(super) fn look(&mut self, channel: ChannelId, frames: &Bytes, most: usize, cx: &mut Cx<'_>) -> Next {
        let Ahead(ahead) = self;
        let most = most.min(HINTED);
        let mut window: Option<Arc<dyn Window>> = None;
        let (mut places, mut next) = (0, Next::Other);
        while ahead.len() < most {
            let Some(whole) = cx.link.inbound.whole(places, channel, MethodId::BASIC_PUBLISH) else { break };
            let payload = whole.method(frames).payload();
            let Some(route) = cx.link.finder.route(cx.shared, &cx.link.rights, payload) else { break };
            let Some(judge) = route.judge() else {
                next = Next::Unmatched { whole, mandatory: route.mandatory };
                break;
            };
            if window.as_ref().is_some_and(|window| !is_same(window, &judge.window)) {
                break;
            }
            let standing = cx.link.rights.standing(&cx.shared.rights, &judge.needs, cx.now);
            if standing == Standing::Unknown {
                if judge.window.rules().id == IdSource::Body {
                    break;
                }
                next = Next::Special(whole);
                break;
            }
            match Reading::of(whole.header(frames), route, judge, standing, &cx.shared.keys) {
                Reading::Plain(terms) => ahead.push((whole, terms)),
                Reading::Body => break,
                Reading::Bypass | Reading::NoId | Reading::Malformed => {
                    next = Next::Special(whole);
                    break;
                }
            }
            window.get_or_insert_with(|| Arc::clone(&judge.window));
            places += whole.frames;
        }
        if let Some(window) = window.as_ref().filter(|_| ahead.len() > 1) {
            let mut keys = [Key(0); HINTED];
            keys.iter_mut().zip(&*ahead).for_each(|(key, (_, terms))| *key = terms.key);
            window.warm(keys.get(..ahead.len()).unwrap_or_default());
        }
        window.map_or(next, Next::Plain)
    }

    /// Takes the publishes that were looked at.
    pub(super) fn drain(&mut self) -> impl Iterator<Item = (Whole, Terms)> {
        self.0.drain(..)
    }
}

impl Whole {
    /// It is done with.
    pub(super) fn take(self, cx: &mut Cx<'_>) {
        cx.link.inbound.skip(self.frames);
        cx.link.publishes += 1;
    }
}

impl<'a> Start<'a> {
    /// The start of a content that stands whole in a read.
    pub(super) fn of(whole: Whole, frames: &'a Bytes) -> Start<'a> {
        let (publish, header, content) = (whole.method(frames), whole.header(frames), whole.content(frames));
        Start { publish, header, content, left: 0 }
    }
}
