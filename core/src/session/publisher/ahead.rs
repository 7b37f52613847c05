//! Publishes that stand whole in a read, as nearly all do: the window is asked about all of them together. A window in memory
//! then fetches the memory for all of them at once, and a window with a store sends one question.

use super::questions::Questions;
use super::reading::{Kind, Reading, Start};
use crate::session::candidate::Terms;
use crate::session::cx::Cx;
use crate::session::inbound::Whole;
use crate::session::rights::Standing;
use crate::window::{HINTED, Ticket, Verdict, Window, is_same};
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

/// The plain publishes that come next, what the window is asked about them, and what it says.
#[derive(Default)]
pub(super) struct Ahead {
    publishes: Vec<(Whole, Terms)>,
    questions: Questions,
}

impl Ahead {
    /// Looks at the plain publishes that come next, up to `most` of them and up to `room` bytes, but at least at one. Takes
    /// nothing. `distinct`: no two of the same claim.
    pub(super) fn look(
        &mut self,
        channel: ChannelId,
        frames: &Bytes,
        (most, mut room): (usize, usize),
        distinct: bool,
        cx: &mut Cx<'_>,
    ) -> Next {
        let ahead = &mut self.publishes;
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
            let size = whole.all(frames).len();
            if window.as_ref().is_some_and(|window| size > room || !is_same(window, &judge.window)) {
                break;
            }
            room = room.saturating_sub(size);
            let standing = cx.link.rights.standing(&cx.shared.rights, &judge.needs, cx.now);
            if standing == Standing::Unknown {
                if judge.window.rules().id == IdSource::Body {
                    break;
                }
                next = Next::Special(whole);
                break;
            }
            let header = whole.header(frames);
            let reading =
                Reading::of(header, route, judge, standing, &cx.link.rights, &cx.shared.keys, &cx.link.marks);
            match reading.kind {
                // It is counted where it is taken.
                _ if !reading.bad.is_empty() => {
                    next = Next::Special(whole);
                    break;
                }
                Kind::Plain(terms)
                    if distinct && ahead.iter().any(|(_, before)| before.claim == terms.claim) =>
                {
                    break;
                }
                // It is not judged. (Most sessions have no deliveries, so their publishes have no mark.)
                Kind::Plain(Terms { mark: Some(mark), .. })
                    if cx.link.marks.holds(mark, judge.window.rules().republish, cx.shared) =>
                {
                    next = Next::Special(whole);
                    break;
                }
                Kind::Plain(terms) => ahead.push((whole, terms)),
                Kind::Body(_) => break,
                Kind::Bypass | Kind::NoId | Kind::Malformed => {
                    next = Next::Special(whole);
                    break;
                }
            }
            window.get_or_insert_with(|| Arc::clone(&judge.window));
            places += whole.frames;
        }
        window.map_or(next, Next::Plain)
    }

    /// Asks the window about the publishes that were looked at, and takes them, each with its ticket and its verdict.
    pub(super) fn ask<'a>(
        &'a mut self,
        window: &Arc<dyn Window>,
        channel: ChannelId,
        cx: &mut Cx<'_>,
    ) -> impl Iterator<Item = (Whole, Terms, Ticket, Verdict)> + use<'a> {
        let Ahead { publishes, questions } = self;
        questions.ask(window, channel, publishes.iter().map(|(_, terms)| terms.claim), cx);
        publishes
            .drain(..)
            .zip(questions.answers())
            .map(|((whole, terms), (ticket, verdict))| (whole, terms, ticket, verdict))
    }
}

impl Whole {
    /// Marks its frames as handled.
    pub(super) fn take(self, cx: &mut Cx<'_>) {
        cx.link.inbound.skip(self.frames);
        cx.link.publishes += 1;
    }
}

impl<'a> Start<'a> {
    /// Returns the start of a content that stands whole in a read.
    pub(super) fn of(whole: Whole, frames: &'a Bytes) -> Start<'a> {
        let (publish, header, content) = (whole.method(frames), whole.header(frames), whole.content(frames));
        Start { publish, header, content, left: 0 }
    }
}
